//! What a thread costs: to start, to keep, and to wake.

use clap::Parser;
use std::io;
use std::sync::mpsc::{self, channel};
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
    tell!("woken      {} from one thread to another that sleeps", super::show(hand_over(settings.rounds)));
    Ok(())
}

/// How long it takes from a word to a sleeping thread until it answers: half of there and back.
fn hand_over(rounds: u32) -> std::time::Duration {
    let (there, arrives) = mpsc::sync_channel::<()>(0);
    let (back, returns) = mpsc::sync_channel::<()>(0);
    let other = thread::spawn(move || while arrives.recv().is_ok() && back.send(()).is_ok() {});
    let began = Instant::now();
    for _ in 0..rounds {
        if there.send(()).is_err() || returns.recv().is_err() {
            break;
        }
    }
    let took = began.elapsed();
    drop(there);
    drop(other.join());
    took / (2 * rounds.max(1))
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
