//! Who is served when, as far as times and lists show it that no socket does.

use super::*;
use crate::balance::{
    Backend, BackendSettings, BalanceSettings, PassiveHealth, Pick, RetrySettings, Rotation, Unserved, Wish,
};

/// Backends, a queue before them, and a rotation over them in which each takes so many requests at once.
fn rotation(backends: &[Arc<Backend>], queue: &Arc<Queue>, most: usize) -> Rotation {
    let members = backends.iter().map(|backend| (Arc::clone(backend), BackendSettings::at(backend.origin.clone())));
    let balance = BalanceSettings { max_in_flight: Some(most), ..BalanceSettings::default() };
    Rotation::new(members, Arc::clone(queue), &balance, PassiveHealth::default(), &RetrySettings::default())
}

fn backends(count: usize, queue: &Arc<Queue>) -> Vec<Arc<Backend>> {
    let backend = |nth: usize| Backend::new(&nth.to_string(), "http://a:80".parse().unwrap(), Vec::new(), queue);
    (0..count).map(|nth| Arc::new(backend(nth))).collect()
}

fn next(rotation: &Rotation, wish: Wish, now: Instant) -> Result<Pick, Unserved> {
    rotation.next(wish, &[], Caller::nobody(), now)
}

fn waits(rotation: &Rotation, wish: Wish, now: Instant) -> Waiting {
    match next(rotation, wish, now) {
        Err(Unserved::Wait(waiting)) => waiting,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_backend_has_something_to_do_from_when_who_waited_comes_to_it() {
    let (queue, now, anywhere) = (Arc::default(), Instant::now(), Wish::default());
    let backends = backends(1, &queue);
    let small = rotation(&backends, &queue, 1);
    let mut first = next(&small, anywhere, now).unwrap();
    small.answered(&mut first.place, None, None, now);
    let mut waiting = waits(&small, anywhere, now);
    let later = now + Duration::from_secs(10);
    assert_eq!(rotation(&backends, &queue, 2).take_over(&mut waiting, anywhere, &[], later), Some(true));
    assert!(waiting.given().is_some(), "there is room for two now");
    let has_stalled = |after| backends[0].health.has_stalled(later + after, 8, &PassiveHealth::default());
    assert!(!has_stalled(Duration::from_millis(490)), "nobody could have expected an answer before");
    assert!(has_stalled(Duration::from_millis(510)));
}
