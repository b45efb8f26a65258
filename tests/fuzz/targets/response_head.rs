//! `oracles::response_head`, with whatever libFuzzer comes up with.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| threadbare_fuzz::response_head(data));
