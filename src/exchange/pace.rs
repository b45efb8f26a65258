//! The lowest rate at which a client may send a body, or take one.
//!
//! A byte now and then renews every deadline that is counted from the last one; this is what slow attackers live on. So
//! the time that *we* wait for the client is added up, and the bytes that came of it. A quiet backend costs a client
//! nothing.

use std::time::{Duration, Instant};

/// How long a client has been waited for.
#[derive(Debug, Default)]
pub(super) struct Pace {
    waited: Duration,
    since: Option<Instant>,
}

impl Pace {
    /// A turn begins: the wait for the client, if it was one, is over.
    pub(super) fn resume(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// A turn ends, to wait for the client.
    pub(super) fn wait_for_client(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// Whether so many bytes are too few, at a lowest rate of bytes a second, once it has been waited for for `grace`.
    pub(super) fn is_too_slow(&self, bytes: u64, lowest_rate: u64, grace: Duration) -> bool {
        let least = self.waited.as_millis().saturating_mul(u128::from(lowest_rate)) / 1000;
        self.waited >= grace && u128::from(bytes) < least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wait_for_the_client_counts_and_only_after_a_while() {
        const GRACE: Duration = Duration::from_secs(30);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        pace.resume(at(1000));
        assert!(!pace.is_too_slow(0, 240, GRACE), "it was not waited for");
        pace.wait_for_client(at(1000));
        pace.resume(at(1029));
        assert!(!pace.is_too_slow(0, 240, GRACE), "not for long");
        pace.wait_for_client(at(2000));
        pace.resume(at(2001));
        assert!(pace.is_too_slow(30 * 240 - 1, 240, GRACE));
        assert!(!pace.is_too_slow(30 * 240, 240, GRACE));
        assert!(!pace.is_too_slow(0, 0, GRACE), "turned off");
    }
}
