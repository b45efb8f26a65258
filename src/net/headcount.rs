//! How many are here, at most so many, and a wait until nobody is.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// Counts those who come and go; the last to go wakes whoever waits for an empty house.
#[derive(Debug)]
pub struct Headcount {
    here: AtomicUsize,
    most: usize,
    /// Somebody found no place.
    turned_away: AtomicBool,
    /// Nobody is waited for any more.
    given_up: AtomicBool,
    /// Held while the last one to leave wakes others: that does not fall between a look and the sleep behind it.
    last_out: Mutex<()>,
    emptied: Condvar,
}

/// One who is here, until this is dropped.
#[derive(Debug)]
pub struct Presence(Arc<Headcount>);

impl Headcount {
    /// `most` may be here at once.
    pub fn of_at_most(most: usize) -> Arc<Headcount> {
        Arc::new(Headcount {
            here: AtomicUsize::new(0),
            most,
            turned_away: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            last_out: Mutex::default(),
            emptied: Condvar::new(),
        })
    }

    /// One more is here, if that is not too many.
    pub fn enter(self: &Arc<Self>) -> Option<Presence> {
        let one_more = |here| (here < self.most).then_some(here + 1);
        let entered = self.here.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        if entered.is_err() {
            self.turned_away.store(true, Ordering::Release);
        }
        entered.is_ok().then(|| Presence(Arc::clone(self)))
    }

    /// Whether there is a place for somebody who found none. It is heard only once.
    pub fn take_place_again(&self) -> bool {
        self.turned_away.load(Ordering::Acquire)
            && self.count() < self.most
            && self.turned_away.swap(false, Ordering::AcqRel)
    }

    /// How many are here now.
    pub fn count(&self) -> usize {
        self.here.load(Ordering::Acquire)
    }

    /// Waits until nobody is here, at most until `deadline` or until somebody gives up, and says whether that was reached.
    pub fn wait_until_empty(&self, deadline: Instant) -> bool {
        let mut last_out = self.last_out.lock().unwrap_or_else(PoisonError::into_inner);
        while self.count() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_given_up() {
                return false;
            }
            (last_out, _) = self.emptied.wait_timeout(last_out, left).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Ends every wait, now and later, as if its deadline were over.
    pub fn give_up(&self) {
        let _last_out = self.last_out.lock().unwrap_or_else(PoisonError::into_inner);
        self.given_up.store(true, Ordering::Release);
        self.emptied.notify_all();
    }

    /// Whether somebody has given up.
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if self.0.here.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _last_out = self.0.last_out.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.emptied.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Headcount;

    #[test]
    fn who_found_no_place_is_told_once_when_there_is_one() {
        let headcount = Headcount::of_at_most(1);
        let first = headcount.enter();
        assert!(first.is_some());
        assert!(!headcount.take_place_again(), "nobody has asked");
        assert!(headcount.enter().is_none());
        assert!(!headcount.take_place_again(), "it is taken still");
        drop(first);
        assert!(headcount.take_place_again());
        assert!(!headcount.take_place_again(), "that was said");
        assert!(headcount.enter().is_some());
    }
}
