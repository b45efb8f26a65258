//! A client and a backend made of raw bytes, and a parser between them that takes nothing on trust.
//!
//! Nothing here uses the crate under test, except to start it: what the balancer sends is judged by a second reading of
//! the RFCs. Nothing hangs: every read, write and wait gives up after `PATIENCE`, with a sentence about what it waited
//! for. Nothing is left behind: a `Backend` takes its threads with it, and fails the test if one of them heard
//! something that is not HTTP.

#![allow(dead_code, unused_imports, reason = "each test file uses its own part of the harness")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod backend;
mod client;
mod folder;
mod hole;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use threadbare::{Balancer, Config};

pub(crate) use backend::{Backend, BackendSide, Received, Record};
pub(crate) use client::{Client, Cut, Response};
pub(crate) use folder::{Folder, TempFile};
pub(crate) use hole::BlackHole;
pub(crate) use wire::{End, Fields, Framing, Head, show};

/// The longest that anything here waits. No test takes this long unless it is about to fail.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A balancer on a port of the system's choosing, before these backends and with these flags.
pub(crate) fn balancer(backends: &[&str], flags: &[&str]) -> Balancer {
    let mut words = vec!["--listen", "127.0.0.1:0", "--access-log", "off"];
    for backend in backends {
        words.extend(["--backend", backend]);
    }
    words.extend(flags);
    let config = Config::from_args(words.iter().copied()).unwrap_or_else(|error| panic!("{words:?}: {error}"));
    Balancer::start(config).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// Waits for `condition` to hold; `what` is the sentence that fails: "every spare is closed".
pub(crate) fn eventually(condition: impl Fn() -> bool, what: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?}, and still not: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// How many exchanges have a place at a backend, or wait for one in the queue. (To have begun is less: two that have may
/// come to the queue in the other order.)
pub(crate) fn placed(balancer: &Balancer) -> usize {
    let figures = balancer.figures();
    figures.queue.length + figures.backends.iter().map(|backend| backend.in_flight).sum::<usize>()
}

/// Tries every row, so that one run tells of every row that fails.
pub(crate) fn each<Row>(rows: impl IntoIterator<Item = Row>, test: impl Fn(Row)) {
    let rows: Vec<Row> = rows.into_iter().collect();
    let all = rows.len();
    let fails = |row| catch_unwind(AssertUnwindSafe(|| test(row))).is_err();
    let failed = rows.into_iter().map(fails).filter(|&failed| failed).count();
    assert_eq!(failed, 0, "of {all} rows, each with its own message above");
}

/// A door that a backend's script waits behind until the test opens it. Clones are the same door.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A closed door.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Lets everybody through, now and later.
    pub(crate) fn open(&self) {
        let (is_open, opened) = &*self.0;
        *is_open.lock().unwrap() = true;
        opened.notify_all();
    }

    /// Waits until the door is open.
    pub(crate) fn pass(&self) {
        let (is_open, opened) = &*self.0;
        let (_guard, wait) = opened.wait_timeout_while(is_open.lock().unwrap(), PATIENCE, |is_open| !*is_open).unwrap();
        assert!(!wait.timed_out(), "nobody opened the gate");
    }
}
