//! How many are here, and a wait until nobody is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Counts those who come and go; the last to go wakes whoever waits for an empty house.
#[derive(Debug, Default)]
pub struct Headcount {
    here: AtomicUsize,
    /// Held while the last one to leave wakes others: that does not fall between a look and the sleep behind it.
    last_out: Mutex<()>,
    emptied: Condvar,
}

impl Headcount {
    /// One more is here.
    pub fn enter(&self) {
        self.here.fetch_add(1, Ordering::AcqRel);
    }

    /// One has left.
    pub fn leave(&self) {
        if self.here.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _last_out = self.last_out.lock().unwrap_or_else(PoisonError::into_inner);
            self.emptied.notify_all();
        }
    }

    /// How many are here now.
    pub fn count(&self) -> usize {
        self.here.load(Ordering::Acquire)
    }

    /// Waits until nobody is here, at most until `deadline`, and says whether that was reached.
    pub fn wait_until_empty(&self, deadline: Instant) -> bool {
        let mut last_out = self.last_out.lock().unwrap_or_else(PoisonError::into_inner);
        while self.count() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (last_out, _) = self.emptied.wait_timeout(last_out, left).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }
}
