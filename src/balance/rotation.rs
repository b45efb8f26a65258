//! The order in which backends take turns.
//!
//! One atomic counter, and every request takes the next number: `fetch_add` gives each to exactly one worker. (The
//! tempting alternative, read the cursor, choose, store it back modulo the count, gives the same turn to two workers
//! that read at once.) N requests over k backends differ by at most one per backend, in whatever order they come.

use super::Backend;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// The backends in their order.
#[derive(Debug)]
pub struct Rotation {
    backends: Vec<Arc<Backend>>,
    turn: AtomicUsize,
    /// Spreads second choices: were they simply the next in the order, a dead backend's neighbour would get all of them.
    spread: AtomicUsize,
}

impl Rotation {
    /// A rotation over these backends, beginning with the first.
    pub fn new(backends: Vec<Arc<Backend>>) -> Rotation {
        Rotation { backends, turn: AtomicUsize::new(0), spread: AtomicUsize::new(0) }
    }

    /// Whose turn it is. For a request that has been tried elsewhere: one of the backends that have not been, without
    /// taking another turn. `None`: there is none.
    pub fn next(&self, tried: &[usize]) -> Option<(usize, &Arc<Backend>)> {
        if tried.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(self.backends.len())?;
            return Some((turn, &self.backends[turn]));
        }
        let untried = || self.backends.iter().enumerate().filter(|(nth, _)| !tried.contains(nth));
        let nth = self.spread.fetch_add(1, Ordering::Relaxed).checked_rem(untried().count())?;
        untried().nth(nth)
    }

    /// All backends.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// Housekeeping, once a tick.
    pub fn sweep(&self, now: Instant) {
        for backend in &self.backends {
            backend.sweep(now);
        }
    }
}
