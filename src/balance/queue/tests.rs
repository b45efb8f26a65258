//! Who is served when, as far as times and lists show it that no socket does.

use super::*;
use crate::balance::{
    BackendSettings, BalanceSettings, By, PassiveHealth, Pick, RetrySettings, Rotation, Unserved, Wish,
};
use std::cell::Cell;
use std::sync::mpsc;
use std::thread;

thread_local! {
    /// How often a backend was looked up among all, by this thread.
    pub(super) static LOOKED_UP: Cell<usize> = const { Cell::new(0) };
}

const ANYWHERE: Wish = Wish { key: 0, sticky: None };

fn tied_to(nth: usize, rotation: &Rotation) -> Wish {
    Wish { sticky: Some(rotation.members()[nth].sticky), ..ANYWHERE }
}

/// An exchange with each of the backends.
fn fill(rotation: &Rotation, now: Instant) -> Vec<Pick> {
    (0..rotation.members().len()).map(|nth| next(rotation, tied_to(nth, rotation), now).unwrap()).collect()
}

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
    let (queue, now) = (Arc::default(), Instant::now());
    let backends = backends(1, &queue);
    let small = rotation(&backends, &queue, 1);
    let mut first = next(&small, ANYWHERE, now).unwrap();
    small.answered(&mut first.place, None, now);
    let mut waiting = waits(&small, ANYWHERE, now);
    let later = now + Duration::from_secs(10);
    assert_eq!(rotation(&backends, &queue, 2).take_over(&mut waiting, ANYWHERE, &[], later), Some(true));
    assert!(waiting.given().is_some(), "there is room for two now");
    let has_stalled = |after| backends[0].health.has_stalled(later + after, 8, &PassiveHealth::default());
    assert!(!has_stalled(Duration::from_millis(490)), "nobody could have expected an answer before");
    assert!(has_stalled(Duration::from_millis(510)));
}

#[test]
fn where_nobody_who_waits_would_go_nobody_looks_at_the_list() {
    let (queue, now) = (Arc::default(), Instant::now());
    let backends = backends(3, &queue);
    let rotation = Arc::new(rotation(&backends, &queue, 1));
    let _first = next(&rotation, tied_to(0, &rotation), now).unwrap();
    let _waiting = [(); 10].map(|()| waits(&rotation, tied_to(0, &rotation), now));
    let wishes = [ANYWHERE, ANYWHERE, ANYWHERE, tied_to(2, &rotation)];
    let list = lock(&queue.places);
    let (tell, told) = mpsc::channel();
    let other = Arc::clone(&rotation);
    thread::spawn(move || {
        for wish in wishes.into_iter().cycle().take(40) {
            let pick = next(&other, wish, now).unwrap();
            let chosen = (pick.nth, pick.by);
            drop(pick);
            tell.send(chosen).unwrap();
        }
    });
    let chosen = [(); 40].map(|()| told.recv_timeout(Duration::from_secs(10)).expect("it need not wait for the list"));
    drop(list);
    for nth in [1, 2] {
        let got = chosen.iter().filter(|chosen| chosen.0 == nth).count();
        assert!((10..=30).contains(&got), "the policy goes on among those that have room: {chosen:?}");
    }
    assert!(chosen.iter().all(|chosen| chosen.1 != By::Place), "{chosen:?}");
    assert_eq!(queue.length(), 10);
}

#[test]
fn nobody_is_overtaken_on_the_way_to_a_backend_where_it_would_go_too() {
    let (queue, now) = (Arc::default(), Instant::now());
    let backends = backends(2, &queue);
    let small = rotation(&backends, &queue, 1);
    let full: Vec<Pick> = fill(&small, now);
    let mut early = waits(&small, tied_to(1, &small), now);
    // There is room for more now, but the early one does not know that yet.
    let large = rotation(&backends, &queue, 3);
    assert_eq!(next(&large, ANYWHERE, now).unwrap().nth, 0, "nobody waits for this one");
    let late = waits(&large, tied_to(1, &large), now);
    assert!(early.given().is_none() && late.given().is_none(), "the late one leaves it to the early one");
    assert_eq!(large.take_over(&mut early, tied_to(1, &large), &[], now), Some(true));
    let given = [&early, &late].map(|waiting| waiting.given().unwrap());
    assert_eq!(given.each_ref().map(|given| given.0), [1, 1]);
    let another = waits(&large, tied_to(1, &large), now);
    drop(given);
    assert!(another.given().is_some());
    drop(full);
}

#[test]
fn a_backend_is_looked_up_once_however_many_wait() {
    for count in [10, 1000] {
        let (queue, now) = (Arc::default(), Instant::now());
        let backends = backends(20, &queue);
        let rotation = rotation(&backends, &queue, 1);
        let mut full: Vec<Pick> = fill(&rotation, now);
        let mut waiting: Vec<Waiting> = (1..count).map(|_| waits(&rotation, tied_to(0, &rotation), now)).collect();
        waiting.push(waits(&rotation, ANYWHERE, now));
        assert_eq!(LOOKED_UP.take(), 0, "who comes while all are full looks for nobody");
        drop(full.pop());
        assert!(waiting.last().unwrap().given().is_some(), "the last of {count} is the first who would go there");
        assert_eq!(LOOKED_UP.take(), 1, "{count} wait");
    }
}

#[test]
fn who_has_left_the_queue_is_wanted_by_nobody() {
    let (queue, now) = (Arc::default(), Instant::now());
    let backends = backends(3, &queue);
    let wanted = || backends.iter().map(|backend| backend.is_wanted()).collect::<Vec<_>>();
    let rotation = rotation(&backends, &queue, 1);
    let full: Vec<Pick> = fill(&rotation, now);
    let tied = waits(&rotation, tied_to(1, &rotation), now);
    assert_eq!(wanted(), [false, true, false]);
    let mut other = waits(&rotation, tied_to(1, &rotation), now);
    drop(tied);
    assert_eq!(wanted(), [false, true, false]);
    assert_eq!(rotation.take_over(&mut other, tied_to(2, &rotation), &[], now), Some(true));
    assert_eq!(wanted(), [false, false, true]);
    assert_eq!(rotation.take_over(&mut other, ANYWHERE, &[0], now), Some(true));
    assert_eq!(wanted(), [false, true, true]);
    drop(full);
    assert!(other.given().is_some());
    assert_eq!(wanted(), [false; 3]);
}

#[test]
fn a_backup_is_nobody_else_to_ask_while_another_is_only_full() {
    let (queue, now) = (Arc::default(), Instant::now());
    let backends = backends(3, &queue);
    let members = backends.iter().enumerate().map(|(nth, backend)| {
        let settings = BackendSettings::at(backend.origin.clone());
        (Arc::clone(backend), BackendSettings { backup: nth == 2, ..settings })
    });
    let balance = BalanceSettings { max_in_flight: Some(1), ..BalanceSettings::default() };
    let passive = PassiveHealth::default();
    let rotation = Rotation::new(members, Arc::clone(&queue), &balance, passive, &RetrySettings::default());
    assert!(rotation.has_another(&[0], now));
    let full = next(&rotation, tied_to(1, &rotation), now).unwrap();
    assert!(!rotation.has_another(&[0], now), "the backup will not be asked");
    assert!(rotation.has_another(&[0, 1], now));
    drop(full);
}

#[test]
fn who_is_given_a_place_is_called_once_and_all_are_when_something_has_changed() {
    let (queue, now) = (Arc::<Queue>::default(), Instant::now());
    let rotation = rotation(&backends(1, &queue), &queue, 1);
    let full = next(&rotation, ANYWHERE, now).unwrap();
    let waiting = [(); 3].map(|()| waits(&rotation, ANYWHERE, now));
    assert!(!queue.has_called() && queue.take_called().is_empty());
    drop(full);
    assert_eq!((queue.has_called(), queue.take_called().len(), queue.served()), (true, 1, 1));
    assert!(!queue.has_called() && queue.take_called().is_empty(), "once");
    queue.call_all();
    assert_eq!((queue.has_called(), queue.take_called().len()), (true, 2), "two are left");
    queue.call_all();
    drop(waiting);
    queue.call_all();
    assert!(queue.has_called(), "who was called before is still to be told");
    queue.take_called();
    queue.call_all();
    assert!(!queue.has_called(), "nobody is there");
}

#[test]
fn the_oldest_in_the_queue_is_the_first_and_nobody_is_none() {
    let (queue, now) = (Arc::<Queue>::default(), Instant::now());
    let rotation = rotation(&backends(1, &queue), &queue, 1);
    let after = |seconds| now + Duration::from_secs(seconds);
    assert_eq!(queue.oldest(now), None);
    let full = next(&rotation, ANYWHERE, now).unwrap();
    let first = waits(&rotation, ANYWHERE, after(1));
    assert_eq!(queue.oldest(after(1)), Some(Duration::ZERO));
    let second = waits(&rotation, ANYWHERE, after(3));
    assert_eq!(queue.oldest(after(9)), Some(Duration::from_secs(8)));
    drop(first);
    assert_eq!(queue.oldest(after(9)), Some(Duration::from_secs(6)));
    drop(second);
    assert_eq!(queue.oldest(after(9)), None);
    drop(full);
}

#[test]
fn beyond_its_limit_the_queue_takes_nobody_who_would_have_to_wait() {
    let (queue, now) = (Arc::<Queue>::default(), Instant::now());
    let backends = backends(1, &queue);
    let small = rotation(&backends, &queue, 1);
    let full = fill(&small, now);
    let early = waits(&small, ANYWHERE, now);
    // There is room for more now, but for the early one first, which does not know that yet.
    let member = (Arc::clone(&backends[0]), BackendSettings::at(backends[0].origin.clone()));
    let balance = BalanceSettings { max_in_flight: Some(3), queue: 1, ..BalanceSettings::default() };
    let passive = PassiveHealth::default();
    let large = Rotation::new([member], Arc::clone(&queue), &balance, passive, &RetrySettings::default());
    assert!(matches!(next(&large, ANYWHERE, now), Err(Unserved::QueueFull)));
    assert_eq!(queue.length(), 1);
    drop(full);
    assert!(early.given().is_some());
}
