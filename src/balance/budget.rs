//! How much may be tried again: a part of what is asked for, so that a sick backend can't double the load on the others.
//!
//! A bucket of tokens. Every request puts a part of one in, time puts some in too, and each repetition takes one out.

use super::RetrySettings;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The bucket. Counting costs a request one atomic addition; the lock is for those who repeat.
#[derive(Debug)]
pub struct Budget {
    settings: RetrySettings,
    /// Requests since the bucket was last looked at.
    requests: AtomicU64,
    bucket: Mutex<(f64, Instant)>,
}

/// It holds what so many seconds of the floor give, and what 100 requests do: after a quiet night, no more.
const SECONDS: f64 = 10.0;
const REQUESTS: f64 = 100.0;

impl Budget {
    /// A full bucket.
    pub(super) fn new(settings: &RetrySettings, now: Instant) -> Budget {
        let bucket = Mutex::new((f64::INFINITY, now));
        Budget { settings: settings.clone(), requests: AtomicU64::new(0), bucket }
    }

    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Leave to send one request again.
    pub fn may_repeat(&self, now: Instant) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, since) = &mut *bucket;
        let part = f64::from(self.settings.budget_percent) / 100.0;
        let floor = f64::from(self.settings.budget_floor);
        let requests = self.requests.swap(0, Ordering::Relaxed) as f64;
        let seconds = now.saturating_duration_since(*since).as_secs_f64();
        *tokens = (*tokens + part * requests + floor * seconds).min(part * REQUESTS + floor * SECONDS);
        *since = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }

    /// Whether an answer with this status is worth another try.
    pub fn is_retried(&self, status: u16) -> bool {
        self.settings.statuses.contains(&status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_fifth_of_all_requests_may_be_repeated_and_ten_a_second_in_any_case() {
        let now = Instant::now();
        let budget = Budget::new(&RetrySettings::default(), now);
        let repeats = |now| (0..10_000).take_while(|_| budget.may_repeat(now)).count();
        assert_eq!(repeats(now), 120, "full at the start: a fifth of a hundred requests, and ten seconds' worth");
        assert_eq!(repeats(now), 0);
        assert_eq!(repeats(now + Duration::from_secs(1)), 10);
        (0..50).for_each(|_| budget.count_request());
        assert_eq!(repeats(now + Duration::from_secs(1)), 10);
        (0..10_000).for_each(|_| budget.count_request());
        assert_eq!(repeats(now + Duration::from_secs(3600)), 120, "no more than the bucket holds");
    }

    #[test]
    fn nothing_is_repeated_where_nothing_is_allowed() {
        let settings = RetrySettings { budget_percent: 0, budget_floor: 0, ..RetrySettings::default() };
        let budget = Budget::new(&settings, Instant::now());
        budget.count_request();
        assert!(!budget.may_repeat(Instant::now() + Duration::from_secs(60)));
    }
}
