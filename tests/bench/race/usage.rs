//! What it cost, as the kernel counts it.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// What some processes have used so far, and hold now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time, user and system, in microseconds.
    pub(crate) cpu: f64,
    /// Context switches, wanted or not.
    pub(crate) switches: u64,
    /// Bytes in memory. What processes share is counted once.
    pub(crate) resident: u64,
    pub(crate) threads: usize,
}

impl Usage {
    pub(crate) fn of(processes: &[u32]) -> Usage {
        let mut usage = Usage::default();
        for process in processes {
            let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
            for task in tasks.map(|task| task.path()) {
                usage.threads += 1;
                usage.cpu += cpu(&task);
                let status = fs::read_to_string(task.join("status")).unwrap_or_default();
                usage.switches += number(&status, "voluntary_ctxt_switches:");
                usage.switches += number(&status, "nonvoluntary_ctxt_switches:");
            }
            let memory = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
            usage.resident += number(&memory, "Pss:") * 1024;
        }
        usage
    }
}

/// Microseconds of one thread. The scheduler's own count has nanoseconds; where there is none, ticks of 10 ms must do.
fn cpu(task: &Path) -> f64 {
    let schedule = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    let nanoseconds: f64 = schedule.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or_default();
    if nanoseconds > 0.0 {
        return nanoseconds / 1000.0;
    }
    let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() * 10_000.0
}

/// The number behind the line that begins so.
fn number(text: &str, key: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    rest.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// A process and its children.
pub(crate) fn family(head: u32) -> Vec<u32> {
    let mut family = vec![head];
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if number(&status, "PPid:") == u64::from(head) {
            family.push(process);
        }
    }
    family
}

pub(crate) fn signal(process: u32, signal: Signal) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    let _ended_already = process.map(|process| kill_process(process, signal));
}

/// System calls per request.
#[derive(Clone, Debug)]
pub(crate) struct Syscalls {
    pub(crate) all: f64,
    /// Reads and writes that have moved something.
    pub(crate) moves: f64,
    /// The most frequent ones.
    pub(crate) each: Vec<(String, f64)>,
}

const MOVERS: [&str; 10] =
    ["read", "readv", "recvfrom", "recvmsg", "write", "writev", "sendto", "sendmsg", "sendfile", "splice"];

impl Syscalls {
    /// Counts them with strace while `load` runs, which returns the number of requests. `None`: there is no strace, or
    /// it may not look. Everything is many times slower meanwhile, so nothing else is measured in this pass.
    pub(crate) fn count(processes: &[u32], folder: &Path, load: impl FnOnce() -> u64) -> Option<Syscalls> {
        let table = folder.join("syscalls");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-c", "-o"]).arg(&table).stderr(Stdio::piped());
        for process in processes {
            strace.args(["-p", &process.to_string()]);
        }
        let mut strace = strace.spawn().ok()?;
        let mut said = BufReader::new(strace.stderr.take()?);
        for _ in processes {
            let mut line = String::new();
            said.read_line(&mut line).ok()?;
            if !line.contains("attached") {
                let _ended = strace.kill();
                let _reaped = strace.wait();
                return None;
            }
        }
        let requests = load();
        signal(strace.id(), Signal::INT);
        strace.wait().ok()?;
        Some(read(&fs::read_to_string(&table).ok()?, requests as f64))
    }
}

/// Reads strace's table: percent, seconds, microseconds per call, calls, errors where there are any, name.
fn read(table: &str, requests: f64) -> Syscalls {
    let mut syscalls = Syscalls { all: 0.0, moves: 0.0, each: Vec::new() };
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (calls, errors, name) = match words.as_slice() {
            [_, _, _, calls, name] => (*calls, "0", *name),
            [_, _, _, calls, errors, name] => (*calls, *errors, *name),
            _ => continue,
        };
        let (Ok(calls), Ok(errors)) = (calls.parse::<f64>(), errors.parse::<f64>()) else { continue };
        if name == "total" {
            continue;
        }
        syscalls.all += calls / requests;
        if MOVERS.contains(&name) {
            syscalls.moves += (calls - errors) / requests;
        }
        syscalls.each.push((name.to_owned(), calls / requests));
    }
    syscalls.each.sort_by(|a, b| b.1.total_cmp(&a.1));
    syscalls
}
