//! Who is chosen, as far as it shows only where every place is kept.

use super::*;
/// Backends with these weights.
fn rotation(policy: Policy, weights: &[u32]) -> Rotation {
    let queue = Arc::default();
    let members = weights.iter().enumerate().map(|(nth, &weight)| {
        let backend = Backend::new(&nth.to_string(), "http://a:80".parse().unwrap(), Vec::new(), &queue);
        let settings = BackendSettings { weight, ..BackendSettings::at(backend.origin.clone()) };
        (Arc::new(backend), settings)
    });
    let balance = BalanceSettings { policy, ..BalanceSettings::default() };
    let (passive, retries) = (PassiveHealth::default(), RetrySettings::default());
    Rotation::new(members, Arc::clone(&queue), &balance, passive, &retries)
}

/// How many of so many requests, none of which is ever answered, each of two backends gets.
fn shares(policy: Policy, weights: [u32; 2], requests: usize) -> [usize; 2] {
    let (rotation, now) = (rotation(policy, &weights), Instant::now());
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

#[test]
fn who_was_there_before_a_reload_is_found_where_it_is_now() {
    let old = rotation(Policy::RoundRobin, &[1, 1, 1]);
    let backends: Vec<_> = old.members().iter().map(|member| Arc::clone(&member.backend)).collect();
    let kept =
        [&backends[2], &backends[0]].map(|backend| (Arc::clone(backend), BackendSettings::at(backend.origin.clone())));
    let new = old.succeeded_by(kept, &BalanceSettings::default(), PassiveHealth::default(), &RetrySettings::default());
    assert_eq!(new.places_of(&backends), [1, 0], "the second one is gone");
    assert_eq!(new.places_of(&backends[1..]), [0]);
}
