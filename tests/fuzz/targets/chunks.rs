//! `oracles::chunks`, with whatever libFuzzer comes up with.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| threadbare_fuzz::chunks(data));
