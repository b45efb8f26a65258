//! What a thread costs: to start, to keep, and to wake.

use clap::Parser;
use std::io::{self, Read, Write};
use std::sync::mpsc::channel;
use std::thread::{self, Builder, JoinHandle};
use std::time::Instant;

/// Starts threads that only wait, and says what they cost.
#[derive(Parser)]
pub(crate) struct Settings {
    /// How many.
    count: u32,
    /// How often a ball goes from one thread to another and back.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    rounds: u32,
}

/// Starts, measures, and lets go.
pub(crate) fn run(settings: &Settings) -> io::Result<()> {
    let before = Memory::now();
    let began = Instant::now();
    let (gate, closed) = channel::<()>();
    let closed = std::sync::Arc::new(std::sync::Mutex::new(closed));
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    let mut refusal = None;
    for _ in 0..settings.count {
        let closed = std::sync::Arc::clone(&closed);
        // Each waits for its turn at the lock, and then for the gate, which never brings anything but its end.
        match Builder::new().spawn(move || drop(closed.lock().map(|gate| gate.recv()))) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                refusal = Some(error);
                break;
            }
        }
    }
    let took = began.elapsed();
    let count = u32::try_from(threads.len()).unwrap_or(u32::MAX).max(1);
    tell!("started    {count} threads, {} each", super::show(took / count));
    if let Some(error) = refusal {
        tell!("refused    the next one: {error}");
    }
    if let (Some(before), Some(now)) = (before, Memory::now()) {
        let each = |now: u64, before: u64| now.saturating_sub(before) / u64::from(count);
        tell!("memory     {} KiB each in use", each(now.resident, before.resident));
        tell!("promised   {} KiB each, should they ever need it", each(now.promised, before.promised));
    }
    drop(gate);
    for thread in threads {
        drop(thread.join());
    }
    tell!("woken      {} from one thread to another that sleeps in read", super::show(hand_over(settings.rounds)?));
    tell!("awake      {} for the same two calls, with nobody to wake", super::show(keep(settings.rounds)?));
    Ok(())
}

/// How long it takes from a word to a thread that sleeps in `read` until it says something: half of there and back.
/// That is one call to write, one to read, and whatever the kernel does between them.
fn hand_over(rounds: u32) -> io::Result<std::time::Duration> {
    let (mut arrives, mut there) = io::pipe()?;
    let (mut returns, mut back) = io::pipe()?;
    let other = thread::spawn(move || {
        let mut ball = [0];
        while arrives.read_exact(&mut ball).is_ok() && back.write_all(&ball).is_ok() {}
    });
    let began = Instant::now();
    let mut ball = [0];
    for _ in 0..rounds {
        there.write_all(&ball)?;
        returns.read_exact(&mut ball)?;
    }
    let took = began.elapsed();
    drop(there);
    drop(other.join());
    Ok(took / (2 * rounds.max(1)))
}

/// How long it takes to write a byte and to read it again, which wakes nobody.
fn keep(rounds: u32) -> io::Result<std::time::Duration> {
    let (mut reader, mut writer) = io::pipe()?;
    let began = Instant::now();
    let mut ball = [0];
    for _ in 0..rounds {
        writer.write_all(&ball)?;
        reader.read_exact(&mut ball)?;
    }
    Ok(began.elapsed() / rounds.max(1))
}

/// What the kernel says of this process's memory, in KiB.
struct Memory {
    resident: u64,
    promised: u64,
}

impl Memory {
    /// None where there is no such file.
    fn now() -> Option<Memory> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').split_whitespace().next()?.parse().ok()
        };
        Some(Memory { resident: number("VmRSS")?, promised: number("VmSize")? })
    }
}
