//! Who is chosen, as far as it shows only where every place is kept.

use super::*;
use std::sync::mpsc;
use std::thread;

const MAIN: bool = false;
const BACKUP: bool = true;

/// Backends with these weights.
fn rotation(policy: Policy, weights: &[u32]) -> Rotation {
    let members: Vec<_> = weights.iter().map(|&weight| (MAIN, weight)).collect();
    rotation_of(policy, &members)
}

/// Main ones and backups with these weights. A weight of 0: it drains.
fn rotation_of(policy: Policy, members: &[(bool, u32)]) -> Rotation {
    limited(policy, members, None)
}

/// The same, with so many at once at each.
fn limited(policy: Policy, members: &[(bool, u32)], max_in_flight: Option<usize>) -> Rotation {
    let queue = Arc::default();
    let members = members.iter().enumerate().map(|(nth, &(backup, weight))| {
        let backend = Backend::new(&nth.to_string(), "http://a:80".parse().unwrap(), Vec::new(), &queue);
        let settings = BackendSettings::at(backend.origin.clone());
        (Arc::new(backend), BackendSettings { weight, backup, drain: weight == 0, ..settings })
    });
    let balance = BalanceSettings { policy, max_in_flight, slow_start: Duration::ZERO, ..BalanceSettings::default() };
    let (passive, retries) = (PassiveHealth::default(), RetrySettings::default());
    Rotation::new(members, Arc::clone(&queue), &balance, passive, &retries)
}

fn next(rotation: &Rotation, tried: &[usize], now: Instant) -> Pick {
    rotation.next(Wish::default(), tried, Caller::nobody(), now).unwrap()
}

/// How many of so many requests that come one after the other each backend gets.
fn one_by_one(rotation: &Rotation, requests: usize, now: Instant) -> Vec<usize> {
    let mut had = vec![0; rotation.members().len()];
    (0..requests).for_each(|_| had[next(rotation, &[], now).nth] += 1);
    had
}

/// As often as it takes to eject it.
fn refuses(rotation: &Rotation, nth: usize, now: Instant) {
    (0..3).for_each(|_| rotation.failed(&rotation.members()[nth].backend, Failure::Refused, None, now));
    assert!(rotation.members()[nth].backend.health.is_out());
}

/// How many of so many requests, none of which is ever answered, each of two backends gets.
fn shares(policy: Policy, weights: [u32; 2], requests: usize) -> [usize; 2] {
    let (rotation, now) = (rotation(policy, &weights), Instant::now());
    let picks: Vec<Pick> = (0..requests).map(|_| next(&rotation, &[], now)).collect();
    [0, 1].map(|nth| picks.iter().filter(|pick| pick.nth == nth).count())
}

#[test]
fn the_least_in_flight_is_reckoned_by_weight() {
    assert_eq!(shares(Policy::LeastInFlight, [4, 1], 50), [40, 10]);
    assert_eq!(shares(Policy::LeastInFlight, [1, 3], 40), [10, 30]);
    assert_eq!(shares(Policy::TwoChoices, [4, 1], 50), [40, 10]);
}

#[test]
fn backups_take_turns_by_weight_too() {
    let members = [(MAIN, 0), (BACKUP, 8), (BACKUP, 1), (BACKUP, 0), (BACKUP, 1)];
    let rotation = rotation_of(Policy::RoundRobin, &members);
    assert_eq!(one_by_one(&rotation, 120, Instant::now()), [0, 96, 12, 0, 12]);
}

#[test]
fn an_ejected_backup_is_tried_though_another_serves_but_not_while_a_main_one_does() {
    for policy in [Policy::RoundRobin, Policy::LeastInFlight] {
        let (rotation, now) = (rotation_of(policy, &[(MAIN, 1), (BACKUP, 1), (BACKUP, 1)]), Instant::now());
        refuses(&rotation, 1, now);
        let now = now + Duration::from_secs(1); // its trial is due
        assert_eq!(one_by_one(&rotation, 10, now), [10, 0, 0], "{policy:?}");
        refuses(&rotation, 0, now);
        let picks: Vec<Pick> = (0..4).map(|_| next(&rotation, &[], now)).collect();
        let trials: Vec<usize> = picks.iter().filter(|pick| pick.by == By::Trial).map(|pick| pick.nth).collect();
        assert_eq!(trials, [1], "{policy:?}: one request tries it");
        assert_eq!(picks.iter().filter(|pick| pick.nth == 2).count(), 3, "{policy:?}: the others are not kept waiting");
    }
}

#[test]
fn backups_share_evenly_where_turns_do_not_decide() {
    let backups = |count| [vec![(MAIN, 0)], vec![(BACKUP, 1); count]].concat();
    for count in [2, 4] {
        let rotation = rotation_of(Policy::LeastInFlight, &backups(count));
        let had = one_by_one(&rotation, 120, Instant::now());
        assert_eq!(had[1..], vec![120 / count; count], "the least in flight");
    }
    let (rotation, now) = (rotation_of(Policy::RoundRobin, &backups(3)), Instant::now());
    refuses(&rotation, 1, now);
    assert_eq!(one_by_one(&rotation, 120, now)[1..], [0, 60, 60], "whose turn it is can't take it");
}

#[test]
fn whoever_is_asked_in_vain_is_not_always_the_first_to_be_asked() {
    let rows = [Policy::RoundRobin, Policy::LeastInFlight].map(|policy| [(policy, false), (policy, true)]);
    for (policy, is_out) in rows.into_iter().flatten() {
        let (rotation, now) = (rotation(policy, &[1, 1]), Instant::now());
        (0..2).filter(|_| is_out).for_each(|nth| refuses(&rotation, nth, now));
        let mut first = [0, 0];
        for _ in 0..60 {
            let one = next(&rotation, &[], now).nth;
            assert_eq!(next(&rotation, &[one], now).nth, 1 - one, "{policy:?}");
            first[one] += 1;
        }
        assert_eq!(first, [30, 30], "{policy:?}, all are ejected: {is_out}");
    }
}

#[test]
fn who_is_ejected_and_full_is_nobody_to_turn_to() {
    let now = Instant::now();
    let rotation = limited(Policy::RoundRobin, &[(MAIN, 1), (MAIN, 1)], Some(1));
    let one = next(&rotation, &[], now).nth;
    let place = next(&rotation, &[one], now).place;
    assert!(rotation.has_any_left(&[one], now), "it is full, and waited for");
    refuses(&rotation, 1 - one, now);
    assert!(!rotation.has_any_left(&[one], now));
    refuses(&rotation, one, now);
    for _ in 0..4 {
        assert_eq!(next(&rotation, &[], now).nth, one, "it is asked for want of a better one, and has room");
    }
    drop(place);
    assert!(rotation.has_any_left(&[one], now));
    assert_eq!(next(&rotation, &[one], now).nth, 1 - one);
}

#[test]
fn of_those_who_could_serve_at_most_half_are_ejected_for_what_may_be_the_requests_doing() {
    let (main, backup, drained) = ((MAIN, 1), (BACKUP, 1), (MAIN, 0));
    // Who is down; and who is ejected once all have failed, in their order.
    let rows: [(&[(bool, u32)], &[usize], &[usize]); 10] = [
        (&[main], &[], &[]),
        (&[main, main, main], &[], &[0]),
        (&[main, main, main, main], &[3], &[0]),
        // Who drains takes nobody's place, and stands in for nobody.
        (&[drained, main, main, drained], &[0, 3], &[1]),
        (&[drained, main, main, drained], &[], &[1]),
        (&[main, drained], &[], &[]),
        // A backup stands in for all others.
        (&[main, backup], &[], &[0]),
        (&[main, main, backup, backup], &[], &[0, 1, 2]),
        // Where one kind is out, half of the other still is half.
        (&[main, backup, backup], &[0], &[1]),
        (&[main, main, backup, backup], &[2, 3], &[0]),
    ];
    for (members, down, ejected) in rows {
        let (rotation, now) = (rotation_of(Policy::RoundRobin, members), Instant::now());
        let health = |nth: usize| &rotation.members()[nth].backend.health;
        down.iter().for_each(|&nth| assert!(health(nth).located(false, now).is_some()));
        for member in rotation.members().iter().filter(|member| !member.drain) {
            (0..9).for_each(|_| rotation.failed(&member.backend, Failure::NoAnswer, None, now));
        }
        let out: Vec<usize> = (0..members.len()).filter(|nth| health(*nth).is_out() && !down.contains(nth)).collect();
        assert_eq!(out, ejected, "{members:?}, {down:?} are down");
    }
}

#[test]
fn who_stands_still_and_may_not_be_ejected_keeps_nobody_waiting_for_a_lock() {
    let (rotation, now) = (Arc::new(rotation(Policy::RoundRobin, &[1])), Instant::now());
    let _unanswered: Vec<Pick> = (0..8).map(|_| next(&rotation, &[], now)).collect();
    let later = now + Duration::from_secs(60);
    assert!(rotation.members()[0].backend.health.has_stalled(later, 8, &PassiveHealth::default()));
    let held = rotation.turns.ejecting();
    let (tell, told) = mpsc::channel();
    let other = Arc::clone(&rotation);
    thread::spawn(move || tell.send(next(&other, &[], later).nth).unwrap());
    assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(0), "it need not wait");
    drop(held);
}

#[test]
fn clients_that_come_and_leave_again_and_again_are_not_the_silence_of_many() {
    let (rotation, begun) = (rotation(Policy::RoundRobin, &[1, 1]), Instant::now());
    let _slow = [next(&rotation, &[], begun), next(&rotation, &[], begun)];
    for second in 1..5 {
        let now = begun + Duration::from_secs(3 * second);
        let many: Vec<Pick> = (0..15).map(|_| next(&rotation, &[], now)).collect();
        let is_out = |nth: usize| rotation.members()[nth].backend.health.is_out();
        assert_eq!([0, 1].map(is_out), [false; 2], "they have only just been asked");
        drop(many);
        (1..30).for_each(|tick| rotation.sweep(now + Duration::from_millis(100 * tick)));
    }
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
