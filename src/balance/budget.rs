//! How much may be tried again.
//!
//! Retries help while few requests fail. When all fail, they are the second half of the flood. So every request pays a
//! part of a token into the budget, a retry costs a whole one, and what is not spent within ten seconds is lost: with 20
//! percent, a backend that fails all the time costs a fifth more requests, not twice as many.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What is saved longer than this is lost, so this is the largest burst: ten seconds' worth of retries.
const WINDOW: u64 = 10_000; // ms
/// Tokens are counted in millionths: a hundredth of one, of which a thousandth passes each millisecond.
const TOKEN: u64 = 1_000_000;

/// A token bucket that requests fill and retries empty.
#[derive(Debug)]
pub struct Budget {
    /// What a request pays in, millionths of a token.
    deposit: u64,
    /// What a millisecond pays in, millionths of a token.
    floor: u64,
    began: Instant,
    /// Paid in by requests and not settled yet. Apart from `saved`, so that a request costs one addition.
    paid_in: AtomicU64,
    saved: AtomicU64,
    /// When it was settled, milliseconds since `began`.
    settled: AtomicU64,
}

impl Budget {
    /// A budget of so many percent of all requests, and so many a second whatever their number. It begins with ten
    /// seconds' worth of the latter.
    pub fn new(percent: u32, floor: u32, now: Instant) -> Budget {
        let floor = u64::from(floor) * (TOKEN / 1000);
        Budget {
            deposit: u64::from(percent) * (TOKEN / 100),
            floor,
            began: now,
            paid_in: AtomicU64::new(0),
            saved: AtomicU64::new(floor * WINDOW),
            settled: AtomicU64::new(0),
        }
    }

    /// Whether both are filled alike.
    pub fn is_like(&self, other: &Budget) -> bool {
        (self.deposit, self.floor) == (other.deposit, other.floor)
    }

    /// A request has come.
    pub fn deposit(&self) {
        if self.deposit > 0 {
            self.paid_in.fetch_add(self.deposit, Ordering::Relaxed);
        }
    }

    /// Takes a token for a retry; `false`: there is none, and the failure stands.
    pub fn try_withdraw(&self, now: Instant) -> bool {
        self.settle(now);
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(TOKEN)).is_ok()
    }

    /// Retries that the budget would allow now.
    pub fn left(&self, now: Instant) -> u64 {
        self.settle(now);
        self.saved.load(Ordering::Relaxed) / TOKEN
    }

    /// Adds what has been paid in since the last time, and lets go of what is too old.
    fn settle(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        let now = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let then = self.settled.load(Ordering::Relaxed);
        // One of those who come at once settles; for the others the budget is a moment old.
        let is_ours =
            then <= now && self.settled.compare_exchange(then, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !is_ours {
            return;
        }
        let passed = now - then;
        let lasting = passed.min(WINDOW);
        let paid_in = self.paid_in.swap(0, Ordering::Relaxed);
        // Of a long time, the last ten seconds count, at its mean rate.
        let paid_in = if passed > WINDOW { paid_in.saturating_mul(WINDOW) / passed } else { paid_in };
        let earned = paid_in.saturating_add(self.floor * lasting);
        let advance = |saved: u64| Some((saved - saved.saturating_mul(lasting) / WINDOW).saturating_add(earned));
        let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, advance);
    }
}
