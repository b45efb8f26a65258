//! Who is chosen, as far as it shows only where every place is kept.

use super::*;
use crate::balance::Backend;

/// How many of so many requests, none of which is ever answered, each of two backends gets.
fn shares(policy: Policy, weights: [u32; 2], requests: usize) -> [usize; 2] {
    let (queue, now) = (Arc::default(), Instant::now());
    let members = weights.iter().enumerate().map(|(nth, &weight)| {
        let backend = Backend::new(&nth.to_string(), "http://a:80".parse().unwrap(), Vec::new(), &queue);
        let settings = BackendSettings { weight, ..BackendSettings::at(backend.origin.clone()) };
        (Arc::new(backend), settings)
    });
    let balance = BalanceSettings { policy, ..BalanceSettings::default() };
    let (passive, retries) = (PassiveHealth::default(), RetrySettings::default());
    let rotation = Rotation::new(members, Arc::clone(&queue), &balance, passive, &retries);
    let next = |_| rotation.next(Wish::default(), &[], Caller::nobody(), now).unwrap();
    let picks: Vec<Pick> = (0..requests).map(next).collect();
    [0, 1].map(|nth| picks.iter().filter(|pick| pick.nth == nth).count())
}

#[test]
fn the_least_in_flight_is_reckoned_by_weight() {
    assert_eq!(shares(Policy::LeastInFlight, [4, 1], 50), [40, 10]);
    assert_eq!(shares(Policy::LeastInFlight, [1, 3], 40), [10, 30]);
    assert_eq!(shares(Policy::TwoChoices, [4, 1], 50), [40, 10]);
}
