//! Who gets a request, policy by policy: exact where it can be, and simulated where chance and load have a say.
//!
//! The simulation has no socket, no clock and no die: it jumps from event to event, its chance is counted and scattered,
//! and it comes out the same every time. `docs/BALANCING.md` quotes it; `BLESS=1 cargo test --test q_policies` writes the
//! numbers there anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use threadbare::balance::{
    BalanceSettings, Budget, Candidate, Ewma, Order, PassiveHealth, Policy, RetrySettings, Rotation, Sticky, key_hash,
    least_in_flight, peak_ewma, rendezvous, scatter, two_choices,
};

const POLICIES: [Policy; 5] =
    [Policy::RoundRobin, Policy::LeastInFlight, Policy::TwoChoices, Policy::PeakEwma, Policy::Hash];

fn word(policy: Policy) -> &'static str {
    match policy {
        Policy::RoundRobin => "`round_robin`",
        Policy::LeastInFlight => "`least_in_flight`",
        Policy::TwoChoices => "`two_choices`",
        Policy::PeakEwma => "`peak_ewma`",
        Policy::Hash => "`hash`",
    }
}

// Turns by weight.

#[test]
fn equal_weights_take_turns_in_their_order() {
    for (weight, count) in [(1, 1), (1, 3), (7, 3), (256, 1000)] {
        let order = Order::new(&vec![weight; count]);
        assert_eq!(order.len(), count, "{count} of weight {weight}");
        for turn in 0..3 * count {
            assert_eq!(order.at(turn), Some(turn % count), "turn {turn} of {count} of weight {weight}");
        }
    }
}

#[test]
fn after_any_number_of_turns_each_has_had_its_share_give_or_take_less_than_one() {
    let one_heavy: Vec<u32> = [vec![256], vec![1; 255]].concat();
    let rows: [&[u32]; 12] = [
        &[1],
        &[1, 1],
        &[2, 1],
        &[1, 2],
        &[3, 1],
        &[5, 1, 1],
        &[4, 6],
        &[256, 1],
        &[1, 256],
        &[256, 255, 254, 1, 7, 100],
        &[0, 3, 0, 2],
        &one_heavy,
    ];
    for weights in rows {
        let order = Order::new(weights);
        let sum: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let mut had = vec![0u64; weights.len()];
        for turn in 0..2 * order.len() {
            had[order.at(turn).unwrap()] += 1;
            for (nth, &weight) in weights.iter().enumerate() {
                let (had, due) = (had[nth] * sum, u64::from(weight) * (turn as u64 + 1));
                assert!(had.abs_diff(due) < sum, "{weights:?}: backend {nth} after turn {turn}: {had}/{sum}");
            }
        }
    }
}

#[test]
fn an_order_is_as_short_as_it_can_be_and_bounded() {
    let rows: [(&[u32], usize); 7] = [
        (&[], 0),
        (&[0], 0),
        (&[0, 5], 1),
        (&[4, 6], 5),
        (&[100, 100, 50], 5),
        (&[256, 255], 511),
        (&[u32::MAX, 128], 3),
    ];
    for (weights, length) in rows {
        let order = Order::new(weights);
        assert_eq!((order.len(), order.is_empty()), (length, length == 0), "{weights:?}");
        assert_eq!(order.at(usize::MAX).is_some_and(|nth| nth < weights.len()), length > 0, "{weights:?}");
    }
    let thousand: Vec<u32> = (0..1000).map(|nth| 256 - nth % 256).collect();
    let order = Order::new(&thousand);
    assert_eq!(order.len(), thousand.iter().sum::<u32>() as usize);
    assert_eq!((0..order.len()).filter_map(|turn| order.at(turn)).collect::<BTreeSet<_>>().len(), 1000);
}

// One choice at a time.

fn candidate(nth: usize, weight: f64, in_flight: usize, latency: f64) -> Candidate {
    Candidate { nth, weight, in_flight, latency }
}

/// Who is chosen under the numbers from 0 on, and how often.
fn chosen(policy: Policy, candidates: &[Candidate], numbers: u64) -> BTreeMap<usize, u64> {
    let mut counts = BTreeMap::new();
    for number in 0..numbers {
        *counts.entry(choose(policy, candidates, number, number, 125).unwrap()).or_default() += 1;
    }
    counts
}

/// What rotation does with a policy; `key` is for `hash`.
fn choose(policy: Policy, candidates: &[Candidate], number: u64, key: u64, load_percent: u32) -> Option<usize> {
    let all = candidates.iter().copied();
    match policy {
        Policy::RoundRobin => unreachable!("an order needs no candidates"),
        Policy::LeastInFlight => least_in_flight(all, number),
        Policy::TwoChoices => two_choices(all, number),
        Policy::PeakEwma => peak_ewma(all, number),
        Policy::Hash => rendezvous(all, scatter(key), identity, load_percent),
    }
}

fn identity(nth: usize) -> u64 {
    key_hash(format!("backend-{nth}:80").as_bytes())
}

#[test]
fn nobody_and_only_one_are_choices_too() {
    for policy in POLICIES.into_iter().skip(1) {
        assert_eq!(choose(policy, &[], 0, 0, 125), None, "{policy:?}");
        for strange in [1.0, 0.0, -1.0, f64::NAN, f64::INFINITY] {
            let alone = [candidate(7, strange, 1_000_000, strange)];
            assert_eq!(choose(policy, &alone, 5, 5, 125), Some(7), "{policy:?}, {strange}");
            let two = [candidate(3, strange, 0, strange), candidate(7, strange, 1, 1.0)];
            assert!(choose(policy, &two, 5, 5, 125).is_some(), "{policy:?}, {strange}");
        }
    }
}

#[test]
fn the_fewest_in_flight_are_counted_by_weight() {
    let rows: [(&[(f64, usize)], &[usize]); 8] = [
        (&[(1.0, 3), (1.0, 1), (1.0, 2)], &[1]),
        (&[(1.0, 0), (1.0, 0), (1.0, 0)], &[0, 1, 2]),
        (&[(1.0, 2), (1.0, 1), (1.0, 1)], &[1, 2]),
        (&[(4.0, 5), (1.0, 1)], &[0]),
        (&[(4.0, 7), (1.0, 1)], &[0, 1]),
        (&[(4.0, 8), (1.0, 1)], &[1]),
        (&[(0.1, 0), (1.0, 5)], &[1]),
        (&[(0.1, 0), (1.0, 11)], &[0]),
    ];
    for (backends, expected) in rows {
        let candidates: Vec<Candidate> =
            backends.iter().enumerate().map(|(nth, &(weight, load))| candidate(nth, weight, load, 0.0)).collect();
        let turns: Vec<usize> =
            (0..6).map(|number| choose(Policy::LeastInFlight, &candidates, number, 0, 0).unwrap()).collect();
        let rotation: Vec<usize> = expected.iter().copied().cycle().take(6).collect();
        assert_eq!(turns, rotation, "{backends:?}");
    }
}

#[test]
fn of_two_choices_the_fullest_of_all_never_wins() {
    let candidates: Vec<Candidate> = (0..5).map(|nth| candidate(nth, 1.0, [4, 9, 2, 3, 1][nth], 0.0)).collect();
    let counts = chosen(Policy::TwoChoices, &candidates, 10_000);
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [0, 2, 3, 4]);
    // The emptiest is among the two in 4 of 10 pairs, the next one in 3 that it wins, and so on.
    for (nth, share) in [(4, 4000), (2, 3000), (3, 2000), (0, 1000)] {
        assert!(counts[&nth].abs_diff(share) < 200, "{counts:?}");
    }
}

#[test]
fn a_backend_that_starts_slowly_is_not_flooded_because_it_is_empty() {
    let candidates = [candidate(0, 0.1, 0, 0.0), candidate(1, 1.0, 5, 1000.0)];
    for policy in [Policy::LeastInFlight, Policy::TwoChoices] {
        assert_eq!(chosen(policy, &candidates, 100), BTreeMap::from([(1, 100)]), "{policy:?}");
    }
}

#[test]
fn latency_times_load_decides_and_the_unknown_is_tried_by_one() {
    let rows = [
        ("the quicker", (1, 1000.0), (1, 2000.0), 0),
        ("the quicker of two idle ones", (0, 2000.0), (0, 1000.0), 1),
        ("the slower, being emptier", (9, 1000.0), (1, 2000.0), 1),
        ("nobody has asked it", (0, 1.0), (0, 0.0), 1),
        ("somebody has asked it", (50, 90_000.0), (1, 0.0), 0),
        ("both unknown, one idle", (1, 0.0), (0, 0.0), 1),
        ("both unknown and busy", (2, 0.0), (1, 0.0), 1),
    ];
    for (why, one, other, winner) in rows {
        let candidates = [candidate(0, 1.0, one.0, one.1), candidate(1, 1.0, other.0, other.1)];
        assert_eq!(chosen(Policy::PeakEwma, &candidates, 100), BTreeMap::from([(winner, 100)]), "{why}");
    }
}

#[test]
fn while_all_are_idle_the_weights_alone_decide() {
    let candidates: Vec<Candidate> = (0..4).map(|nth| candidate(nth, [1.0, 2.0, 3.0, 4.0][nth], 0, 500.0)).collect();
    for policy in POLICIES.into_iter().skip(1) {
        let mut counts = BTreeMap::new();
        for number in 0..10_000 {
            *counts.entry(choose(policy, &candidates, number, number, 100_000).unwrap()).or_insert(0u64) += 1;
        }
        for nth in 0..4 {
            assert!(counts[&nth].abs_diff(1000 * (nth as u64 + 1)) < 200, "{policy:?}: {counts:?}");
        }
    }
}

// Latency.

#[test]
fn a_latency_rises_at_once_and_sinks_with_time() {
    let start = Instant::now();
    let ewma = Ewma::new(start);
    let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
    assert_eq!(ewma.read(at(5.0)), 0.0, "nothing is known");
    ewma.observe(Duration::from_millis(10), at(5.0));
    assert_eq!(ewma.read(at(5.0)), 10_000.0);
    ewma.observe(Duration::from_millis(100), at(5.001));
    assert_eq!(ewma.read(at(5.001)), 100_000.0, "a peak is believed at once");
    ewma.observe(Duration::from_millis(10), at(5.002));
    assert!(ewma.read(at(5.002)) > 99_000.0, "one good answer does not make up for it");
    // By e, once every ten seconds.
    for (time, about) in [(15.002, 36_788.0), (25.002, 13_534.0), (35.002, 4_979.0), (55.002, 673.8)] {
        let after_quiet = ewma.read(at(time));
        assert!((after_quiet - about).abs() < about / 100.0, "{after_quiet} at {time}, after nothing but quiet");
    }
    for nth in 0..100 {
        ewma.observe(Duration::from_millis(10), at(5.1 + f64::from(nth) * 0.1));
    }
    let after_good = ewma.read(at(15.0));
    assert!((35_000.0..50_000.0).contains(&after_good), "{after_good} after ten good seconds");
    for days in [1.0, 24.0, 25.0, 30.0, 49.0, 50.0, 75.0] {
        let long_after = ewma.read(at(days * 86_400.0));
        assert_eq!(long_after, 1.0, "after {days} days: what was known is never unknown again");
    }
}

#[test]
fn a_clock_that_was_read_earlier_does_no_harm() {
    let start = Instant::now();
    let ewma = Ewma::new(start + Duration::from_secs(1));
    ewma.observe(Duration::from_millis(10), start);
    ewma.observe(Duration::ZERO, start + Duration::from_secs(3));
    let now = ewma.read(start + Duration::from_secs(3));
    ewma.observe(Duration::ZERO, start + Duration::from_secs(2));
    assert_eq!(ewma.read(start + Duration::from_secs(3)), now);
    assert_eq!(ewma.read(start + Duration::from_secs(2)), now);
    // Also where the count of milliseconds goes round.
    let round = start + Duration::from_secs(1) + Duration::from_millis(1 << 32);
    ewma.observe(Duration::from_secs(1), round);
    assert_eq!(ewma.read(round - Duration::from_secs(30)), 1e6);
    ewma.observe(Duration::MAX, start + Duration::from_secs(3));
    assert!(ewma.read(start).is_finite());
}

// Keys.

#[test]
fn a_hash_is_the_same_in_every_version() {
    // From the reference implementations of FNV-1a and SplitMix64: a change here moves every client of every operator.
    assert_eq!(scatter(0), 0xe220_a839_7b1d_cdaf);
    for (key, fnv) in [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)] {
        assert_eq!(key_hash(key.as_bytes()), scatter(fnv), "{key:?}");
    }
}

/// Where each of these keys goes among idle backends of these weights.
fn homes(weights: &[(usize, f64)], keys: u64) -> Vec<usize> {
    let candidates: Vec<Candidate> = weights.iter().map(|&(nth, weight)| candidate(nth, weight, 0, 0.0)).collect();
    (0..keys).map(|key| choose(Policy::Hash, &candidates, 0, key, 100_000).unwrap()).collect()
}

#[test]
fn when_a_backend_leaves_its_keys_move_and_no_other() {
    let all: Vec<(usize, f64)> = (0..10).map(|nth| (nth, 1.0 + (nth % 3) as f64)).collect();
    let before = homes(&all, 5000);
    for leaver in [0, 5, 9] {
        let rest: Vec<(usize, f64)> = all.iter().copied().filter(|&(nth, _)| nth != leaver).rev().collect();
        for (key, (before, after)) in before.iter().zip(homes(&rest, 5000)).enumerate() {
            assert!(*before == leaver || *before == after, "key {key} moved from {before} to {after}");
            assert_ne!(after, leaver);
        }
    }
}

#[test]
fn no_backend_gets_more_than_its_bound_though_all_ask_for_the_same() {
    for (load_percent, backends) in [(100, 10), (125, 10), (125, 3), (300, 7)] {
        let mut in_flight = vec![0usize; backends];
        for total in 1..=1000usize {
            let candidates: Vec<Candidate> =
                in_flight.iter().enumerate().map(|(nth, &load)| candidate(nth, 1.0, load, 0.0)).collect();
            let nth = choose(Policy::Hash, &candidates, 0, 42, load_percent).unwrap();
            in_flight[nth] += 1;
            let bound = (load_percent as usize * total).div_ceil(100 * backends);
            assert!(in_flight[nth] <= bound, "{load_percent} percent of {backends}: {in_flight:?}");
        }
    }
}

#[test]
fn a_sticky_value_says_which_backend_but_not_its_name() {
    let names = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80/prefix"];
    let all = names.map(|name| Sticky::of(1, name));
    for (nth, sticky) in all.iter().enumerate() {
        let digits = sticky.digits();
        assert_eq!(
            str::from_utf8(&digits).unwrap(),
            format!("{:016x}", u64::from_str_radix(str::from_utf8(&digits).unwrap(), 16).unwrap())
        );
        let read = Sticky::read(&digits).unwrap();
        assert_eq!(all.iter().position(|known| *known == read), Some(nth));
        assert_ne!(*sticky, Sticky::of(2, names[nth]), "another key, another value");
    }
    // Pinned: an update must not send every client elsewhere.
    assert_eq!(str::from_utf8(&all[0].digits()).unwrap(), "d7745848717d97d9");
    for value in [
        "",
        "0",
        "000000000000000",
        "00000000000000000",
        "000000000000000g",
        "000000000000000A",
        "+00000000000000f",
        "\u{e9}00000000000000",
    ] {
        assert_eq!(Sticky::read(value.as_bytes()), None, "{value:?}");
    }
}

// The retry budget.

/// How many retries there are now, when all that can be are taken.
fn take_all(budget: &Budget, now: Instant) -> usize {
    (0..1_000_000).take_while(|_| budget.try_withdraw(now)).count()
}

#[test]
fn a_budget_allows_a_part_of_the_requests_and_a_few_a_second() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let rows: [(u32, u32, u64, u64, usize); 9] = [
        // percent, floor, requests, after so many ms, retries
        (20, 0, 4, 0, 0),
        (20, 0, 5, 0, 1),
        (20, 0, 1000, 0, 200),
        (0, 10, 1000, 0, 100),
        (0, 10, 0, 60_000, 100),
        (0, 0, 1000, 60_000, 0),
        (20, 10, 100, 0, 120),
        (100, 0, 10, 10_000, 10),
        (20, 0, 1000, 20_000, 100), // 1,000 in twenty seconds are 500 in ten
    ];
    for (percent, floor, requests, later, retries) in rows {
        let budget = Budget::new(percent, floor, start);
        (0..requests).for_each(|_| budget.deposit());
        assert_eq!(budget.left(at(later)), retries as u64, "{percent} {floor} {requests} {later}");
        assert_eq!(take_all(&budget, at(later)), retries, "{percent} {floor} {requests} {later}");
    }
}

#[test]
fn a_budget_goes_on_over_a_reload_unless_it_was_changed() {
    let (balance, passive, retries) = (BalanceSettings::default(), PassiveHealth::default(), RetrySettings::default());
    let rotation = Rotation::new([], Arc::default(), &balance, passive, &retries);
    let goes_on = |new: &RetrySettings| {
        let next = rotation.succeeded_by([], &balance, passive, new);
        Arc::ptr_eq(&next.budget, &rotation.budget)
    };
    assert!(goes_on(&retries));
    assert!(!goes_on(&RetrySettings { budget_percent: retries.budget_percent + 1, ..retries.clone() }));
    assert!(!goes_on(&RetrySettings { budget_floor: retries.budget_floor + 1, ..retries.clone() }));
}

#[test]
fn what_is_not_spent_is_lost_and_what_is_spent_comes_back_with_time() {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let budget = Budget::new(20, 0, start);
    (0..1000).for_each(|_| budget.deposit());
    assert_eq!(budget.left(at(0)), 200);
    assert_eq!(budget.left(at(5_000)), 100);
    assert_eq!(take_all(&budget, at(15_000)), 0);

    let budget = Budget::new(0, 10, start);
    assert_eq!(take_all(&budget, at(0)), 100);
    let each_ms: usize = (1..=1000).map(|ms| take_all(&budget, at(ms))).sum();
    // What is saved up for the next token fades too, which costs a few percent.
    assert!((9..=10).contains(&each_ms), "{each_ms}: the floor is kept however often it is asked for");
    assert!(!budget.try_withdraw(start), "a clock that was read earlier does no harm");
}

#[test]
fn however_a_failing_backend_is_retried_the_budget_holds() {
    let start = Instant::now();
    let budget = Budget::new(20, 10, start);
    // A thousand requests a second for a minute, and every one of them fails.
    let mut retries = 0;
    for ms in 0..60_000 {
        budget.deposit();
        retries += usize::from(budget.try_withdraw(start + Duration::from_millis(ms)));
    }
    assert!((12_000..=12_700).contains(&retries), "{retries} retries of 60,000 requests");
}

#[test]
fn a_token_is_spent_once_however_many_reach_for_it() {
    let now = Instant::now();
    let budget = Budget::new(100, 0, now);
    let taken: usize = std::thread::scope(|scope| {
        let spend = || {
            (0..5000).for_each(|_| budget.deposit());
            take_all(&budget, now)
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(spend)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(taken + take_all(&budget, now), 20_000);
}

// The simulation.

/// A backend that works on some requests at once and lets the others wait.
#[derive(Clone, Copy)]
struct Machine {
    weight: u32,
    at_once: usize,
    /// Mean time that a request takes, microseconds.
    mean: u64,
}

/// It works on 8 requests of 10 ms: 800 a second.
const USUAL: Machine = Machine { weight: 1, at_once: 8, mean: 10_000 };

struct Scene {
    machines: Vec<Machine>,
    /// Requests per second, at random moments.
    rate: u64,
    requests: usize,
    /// So many percent of the requests have the same key.
    hot_percent: u64,
    load_percent: u32,
}

impl Scene {
    /// Ten backends, the last of them as given, and half of what ten usual ones can do.
    fn with(last: Machine) -> Scene {
        let machines = [vec![USUAL; 9], vec![last]].concat();
        Scene { machines, rate: 4000, requests: 8000, hot_percent: 0, load_percent: 125 }
    }
}

#[derive(Default)]
struct Outcome {
    /// Requests that each got.
    got: Vec<u64>,
    /// Backends that got one with the hot key.
    hot: BTreeSet<usize>,
    /// Requests in flight at each, times microseconds, while requests came.
    presence: Vec<u128>,
    /// How long each request took, microseconds, in order.
    latencies: Vec<u64>,
}

impl Outcome {
    fn share(&self, nth: usize) -> f64 {
        100.0 * self.got[nth] as f64 / self.got.iter().sum::<u64>() as f64
    }

    fn share_of_waiting(&self, nth: usize) -> f64 {
        100.0 * self.presence[nth] as f64 / self.presence.iter().sum::<u128>() as f64
    }

    fn percentile(&self, percent: usize) -> String {
        format!("{} ms", (self.latencies[self.latencies.len() * percent / 100] + 500) / 1000)
    }
}

/// Lets the requests of a scene come, be shared out, wait, be worked on and end.
fn play(scene: &Scene, policy: Policy) -> Outcome {
    let count = scene.machines.len();
    let began = Instant::now();
    let order = Order::new(&scene.machines.iter().map(|machine| machine.weight).collect::<Vec<_>>());
    let ids: Vec<u64> = (0..count).map(identity).collect();
    let ewmas: Vec<Ewma> = (0..count).map(|_| Ewma::new(began)).collect();
    let mut queues: Vec<VecDeque<u64>> = vec![VecDeque::new(); count];
    let mut in_flight = vec![0usize; count];
    let mut outcome = Outcome { got: vec![0; count], presence: vec![0; count], ..Outcome::default() };
    let mut chance = (1u64..).map(scatter);
    // The time until something that happens at random happens, by its mean.
    let mut span = |mean: u64| {
        let chance = (chance.next().unwrap() >> 11) as f64 / (1u64 << 53) as f64;
        let span = Duration::from_micros(mean).mul_f64(-chance.max(1e-9).ln());
        u64::try_from(span.as_micros()).unwrap()
    };
    // When a request is done, by which backend, and when it had come.
    let mut ends: BinaryHeap<Reverse<(u64, usize, u64)>> = BinaryHeap::new();
    let mut came = 0;
    let mut next_comes = span(1_000_000 / scene.rate);
    let mut then = 0;
    while came < scene.requests || !ends.is_empty() {
        let end = ends.peek().map(|&Reverse((time, ..))| time);
        let comes = came < scene.requests && end.is_none_or(|end| next_comes <= end);
        let now = if comes { next_comes } else { end.unwrap() };
        if came < scene.requests {
            for (presence, load) in outcome.presence.iter_mut().zip(&in_flight) {
                *presence += u128::from(now - then) * *load as u128;
            }
        }
        then = now;
        let instant = began + Duration::from_micros(now);
        let nth = if comes {
            let number = came as u64;
            let draw = scatter(number ^ 0x5eed);
            let is_hot = draw % 100 < scene.hot_percent;
            let key = if is_hot { 0 } else { scatter(draw) };
            let all = in_flight.iter().enumerate().map(|(nth, &in_flight)| Candidate {
                nth,
                weight: f64::from(scene.machines[nth].weight),
                in_flight,
                latency: ewmas[nth].read(instant),
            });
            let nth = match policy {
                Policy::RoundRobin => order.at(came).unwrap(),
                Policy::LeastInFlight => least_in_flight(all, number).unwrap(),
                Policy::TwoChoices => two_choices(all, number).unwrap(),
                Policy::PeakEwma => peak_ewma(all, number).unwrap(),
                Policy::Hash => rendezvous(all, key, |nth| ids[nth], scene.load_percent).unwrap(),
            };
            came += 1;
            next_comes = now + span(1_000_000 / scene.rate);
            outcome.got[nth] += 1;
            if is_hot {
                outcome.hot.insert(nth);
            }
            in_flight[nth] += 1;
            if in_flight[nth] > scene.machines[nth].at_once {
                queues[nth].push_back(now);
                continue;
            }
            (nth, now)
        } else {
            let Reverse((_, nth, since)) = ends.pop().unwrap();
            in_flight[nth] -= 1;
            outcome.latencies.push(now - since);
            ewmas[nth].observe(Duration::from_micros(now - since), instant);
            let Some(since) = queues[nth].pop_front() else { continue };
            (nth, since)
        };
        let (nth, since) = nth;
        ends.push(Reverse((now + span(scene.machines[nth].mean), nth, since)));
    }
    outcome.latencies.sort_unstable();
    assert_eq!(outcome.latencies.len(), scene.requests);
    outcome
}

const TEN_TIMES_SLOWER: Machine = Machine { mean: 100_000, ..USUAL };
/// It refuses all, and quickly.
const FAILING: Machine = Machine { mean: 100, ..USUAL };

fn table(head: &str, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let columns = head.matches(" | ").count() + 1;
    let mut table = format!("| {head} |\n|{}\n", "---|".repeat(columns));
    for row in rows {
        assert_eq!(row.len(), columns, "{row:?}");
        writeln!(table, "| {} |", row.join(" | ")).unwrap();
    }
    table
}

fn even() -> String {
    let rows = POLICIES.map(|policy| {
        let outcome = play(&Scene::with(USUAL), policy);
        let (least, most) = (outcome.got.iter().min().unwrap(), outcome.got.iter().max().unwrap());
        vec![
            word(policy).to_owned(),
            least.to_string(),
            most.to_string(),
            outcome.percentile(50),
            outcome.percentile(99),
        ]
    });
    table("policy | least of one backend | most | half within | 99 % within", rows)
}

fn slow() -> String {
    let rows = POLICIES.map(|policy| {
        let outcome = play(&Scene::with(TEN_TIMES_SLOWER), policy);
        let (share, waiting) = (outcome.share(9), outcome.share_of_waiting(9));
        vec![
            word(policy).to_owned(),
            format!("{share:.1} %"),
            format!("{waiting:.0} %"),
            outcome.percentile(50),
            outcome.percentile(99),
        ]
    });
    table("policy | requests to the slow one | waiting there | half within | 99 % within", rows)
}

fn failing() -> String {
    let rows = POLICIES.map(|policy| {
        let outcome = play(&Scene::with(FAILING), policy);
        vec![word(policy).to_owned(), format!("{:.0} %", outcome.share(9))]
    });
    table("policy | requests that fail", rows)
}

fn weights() -> String {
    let heavy = Machine { weight: 3, at_once: 24, ..USUAL };
    let rows = POLICIES.map(|policy| {
        let shares = [100, 8000].map(|rate| {
            let machines = [vec![heavy; 5], vec![USUAL; 5]].concat();
            let scene = Scene { machines, rate, requests: 4000, hot_percent: 0, load_percent: 125 };
            let outcome = play(&scene, policy);
            format!("{:.0} %", (0..5).map(|nth| outcome.share(nth)).sum::<f64>())
        });
        [vec![word(policy).to_owned()], shares.to_vec()].concat()
    });
    table("policy | with one request in flight, in the mean | at half of what they can do", rows)
}

fn movement() -> String {
    const KEYS: u64 = 5000;
    let ten: Vec<(usize, f64)> = (0..10).map(|nth| (nth, 1.0)).collect();
    let nine = &ten[..9];
    let moved = |before: &[usize], after: &[usize]| {
        let moved = before.iter().zip(after).filter(|(before, after)| before != after).count();
        format!("{:.1} %", 100.0 * moved as f64 / KEYS as f64)
    };
    let remainder =
        |count: u64| (0..KEYS).map(|key| usize::try_from(scatter(key) % count).unwrap()).collect::<Vec<_>>();
    let (with_ten, with_nine) = (homes(&ten, KEYS), homes(nine, KEYS));
    let (by_ten, by_nine) = (remainder(10), remainder(9));
    table(
        "way to choose | one of ten leaves | an eleventh comes",
        [
            vec![
                "`hash`".to_owned(),
                moved(&with_ten, &with_nine),
                moved(&with_ten, &homes(&[ten, vec![(10, 1.0)]].concat(), KEYS)),
            ],
            vec!["remainder of a division".to_owned(), moved(&by_ten, &by_nine), moved(&by_ten, &remainder(11))],
        ],
    )
}

fn hot() -> String {
    let rows = [101, 125, 200, 1000].map(|load_percent| {
        let outcome = play(&Scene { hot_percent: 30, load_percent, ..Scene::with(USUAL) }, Policy::Hash);
        let busiest = (0..10).map(|nth| outcome.share(nth)).fold(0.0, f64::max);
        vec![
            format!("{load_percent}"),
            format!("{busiest:.0} %"),
            outcome.hot.len().to_string(),
            outcome.percentile(50),
            outcome.percentile(99),
        ]
    });
    table("most load, percent | requests to the busiest | backends that see the key | half within | 99 % within", rows)
}

#[test]
fn the_document_says_what_the_simulation_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/BALANCING.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let tables: [(&str, fn() -> String); 6] = [
        ("even", even),
        ("weights", weights),
        ("slow", slow),
        ("failing", failing),
        ("movement", movement),
        ("hot", hot),
    ];
    let simulated = std::thread::scope(|scope| {
        let threads = tables.map(|(name, simulate)| (name, scope.spawn(simulate)));
        threads.map(|(name, thread)| (name, thread.join().unwrap()))
    });
    let mut rewritten = page.clone();
    for (name, table) in simulated {
        let mark = format!("<!-- simulated: {name} -->\n");
        let (before, behind) = rewritten.split_once(&mark).unwrap_or_else(|| panic!("no place for the table {name}"));
        let lines = behind.split_inclusive('\n').take_while(|line| line.starts_with('|'));
        let length: usize = lines.map(str::len).sum();
        rewritten = format!("{before}{mark}{table}{}", behind.get(length..).unwrap());
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, rewritten).unwrap();
    } else {
        assert!(page == rewritten, "BLESS=1 would write:\n{rewritten}");
    }
}

#[test]
fn a_slow_backend_is_given_little_by_those_who_look() {
    for (policy, most) in [(Policy::LeastInFlight, 5.0), (Policy::TwoChoices, 8.0), (Policy::PeakEwma, 3.0)] {
        let share = play(&Scene::with(TEN_TIMES_SLOWER), policy).share(9);
        assert!(share < most, "{policy:?}: {share} percent");
    }
}

#[test]
fn a_thousand_backends_get_their_share_too() {
    let candidates: Vec<Candidate> = (0..1000).map(|nth| candidate(nth, 1.0, 0, 0.0)).collect();
    for policy in POLICIES.into_iter().skip(1) {
        let counts = chosen(policy, &candidates, 300);
        assert!(counts.len() > 200, "{policy:?}: {} backends for 300 requests", counts.len());
        assert!(counts.values().all(|&count| count < 8), "{policy:?}: {counts:?}");
    }
}
