//! What is counted of each client address: connections, and requests against a clock that the test turns.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use threadbare::addresses::{Addresses, Guest, Rate};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nth(nth: u32) -> IpAddr {
    Ipv4Addr::from_bits(nth).into()
}

/// Goes through all shards once.
fn sweep(addresses: &Addresses, now: Instant) {
    for _ in 0..16 {
        addresses.sweep(now);
    }
}

#[test]
fn an_address_has_so_many_connections_open_and_not_one_more() {
    let addresses = Arc::new(Addresses::default());
    let one = ip("192.0.2.1");
    let mut guests: Vec<Guest> = (0..3).map(|_| addresses.enter(one, 3).unwrap()).collect();
    for _ in 0..5 {
        assert!(addresses.enter(one, 3).is_none());
    }
    assert!(addresses.enter(ip("192.0.2.2"), 3).is_some(), "another address is another matter");
    guests.pop();
    guests.push(addresses.enter(one, 3).expect("one has left"));
    assert!(addresses.enter(one, 3).is_none());
    // The limit is whoever asks's, each time.
    assert!(addresses.enter(one, 2).is_none());
    guests.push(addresses.enter(one, 4).unwrap());
    drop(guests);
    assert_eq!(addresses.known().0, 0, "nothing is remembered of who has left");
}

#[test]
fn what_counts_as_one_address() {
    let rows = [
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "::ffff:192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", true),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ("::1", "::2", true),
        ("::1", "0.0.0.1", false),
        ("::", "0.0.0.0", false),
        ("::ffff:0:0:0:0", "0.0.0.0", false),
    ];
    let now = Instant::now();
    for (one, other, is_same) in rows {
        let addresses = Arc::new(Addresses::default());
        let guest = addresses.enter(ip(one), 1).unwrap();
        assert_eq!(addresses.enter(ip(other), 1).is_none(), is_same, "{one} and {other}");
        drop(guest);
        let once = Rate { a_second: 1, burst: 1 };
        assert!(addresses.may_ask(ip(one), once, now));
        assert_eq!(!addresses.may_ask(ip(other), once, now), is_same, "{one} and {other}");
    }
}

#[test]
fn a_bucket_is_emptied_by_a_burst_and_filled_again_by_time() {
    let addresses = Addresses::default();
    let (client, rate, begin) = (ip("192.0.2.1"), Rate { a_second: 2, burst: 3 }, Instant::now());
    // Milliseconds, and whether a request gets through then.
    let rows = [
        (0, true),
        (0, true),
        (0, true),
        (0, false),
        (499, false),
        (500, true),
        (500, false),
        (1700, true), // two more are there, and the beginning of a third
        (1700, true),
        (1700, false),
        (1999, false), // a refusal costs nothing
        (2000, true),
        (60_000, true),
        (60_000, true),
        (60_000, true),
        (60_000, false), // a long silence fills it to the brim and no further
        (59_000, false), // a clock that was read a moment earlier does no harm
    ];
    for (nth, (time, passes)) in rows.into_iter().enumerate() {
        let now = begin + Duration::from_millis(time);
        assert_eq!(addresses.may_ask(client, rate, now), passes, "row {nth}, at {time} ms");
    }
}

#[test]
fn in_the_long_run_a_rate_is_held_to_the_request() {
    for (a_second, burst) in [(1, 1), (1, 60), (3, 3), (7, 20), (1000, 1), (1000, 5000)] {
        let (addresses, begin) = (Addresses::default(), Instant::now());
        let passed = (0..100_000_u64).filter(|millis| {
            let now = begin + Duration::from_millis(*millis);
            addresses.may_ask(ip("::1"), Rate { a_second, burst }, now)
        });
        let most = 100 * u64::from(a_second) + u64::from(burst);
        let passed = u64::try_from(passed.count()).unwrap();
        let expected = most.min(100_000); // as often as was asked
        assert!((expected - 1..=expected).contains(&passed), "{passed} of {most}, at {a_second} a second");
    }
    // The greatest numbers that can be set overflow nothing.
    let (addresses, begin) = (Addresses::default(), Instant::now());
    for rate in [(1, u32::MAX), (u32::MAX, 1), (u32::MAX, u32::MAX), (0, 0)] {
        let rate = Rate { a_second: rate.0, burst: rate.1 };
        assert!(addresses.may_ask(nth(rate.a_second ^ rate.burst), rate, begin), "{rate:?}");
    }
}

#[test]
fn another_rate_begins_without_the_debts_of_the_old_one() {
    let addresses = Addresses::default();
    let (client, begin) = (ip("192.0.2.1"), Instant::now());
    let (slow, fast) = (Rate { a_second: 1, burst: 600 }, Rate { a_second: 10, burst: 10 });
    while addresses.may_ask(client, slow, begin) {}
    assert!(!addresses.may_ask(client, fast, begin), "empty is empty");
    assert!(addresses.may_ask(client, fast, begin + Duration::from_millis(100)), "but not for ten minutes");
}

#[test]
fn a_crowd_of_addresses_is_not_remembered_for_longer_than_it_matters() {
    let addresses = Arc::new(Addresses::default());
    let (rate, begin) = (Rate { a_second: 1, burst: 1 }, Instant::now());
    let mut now = begin;
    let mut most = 0;
    // A hundred thousand a second, each another, for four seconds; a worker sweeps ten times a second.
    for count in 0..400_000 {
        if count % 10_000 == 0 {
            now += Duration::from_millis(100);
            addresses.sweep(now);
            most = most.max(addresses.known().0);
        }
        assert!(addresses.may_ask(nth(count), rate, now));
    }
    // Those of the last second, and of the time until the sweep comes round.
    assert!((100_000..=270_000).contains(&most), "{most} were known at once");
    now += Duration::from_secs(2);
    sweep(&addresses, now);
    let (known, room) = addresses.known();
    assert!(known == 0 && room < 1000, "{known} known, room for {room}");
}

#[test]
fn a_greater_burst_costs_memory_only_in_the_measure_that_it_is_used() {
    let addresses = Addresses::default();
    let (rate, begin) = (Rate { a_second: 1, burst: 10_000 }, Instant::now());
    for count in 0..100_000 {
        let now = begin + Duration::from_millis(u64::from(count) / 100);
        addresses.may_ask(nth(count), rate, now);
        if count % 1000 == 0 {
            sweep(&addresses, now);
            // Each has asked once, and is forgotten a second later.
            assert!(addresses.known().0 <= 100_001, "{:?}", addresses.known());
        }
    }
    let end = begin + Duration::from_secs(3);
    sweep(&addresses, end);
    assert_eq!(addresses.known().0, 0);
}

#[test]
fn a_sweep_forgets_nobody_who_matters() {
    let addresses = Arc::new(Addresses::default());
    let (client, now) = (ip("2001:db8::1"), Instant::now());
    let rate = Rate { a_second: 1, burst: 2 };
    let guest = addresses.enter(client, 1).unwrap();
    assert!(addresses.may_ask(client, rate, now) && addresses.may_ask(client, rate, now));
    sweep(&addresses, now + Duration::from_millis(1999));
    assert!(addresses.enter(client, 1).is_none());
    assert!(!addresses.may_ask(client, rate, now + Duration::from_millis(999)));
    drop(guest);
    sweep(&addresses, now + Duration::from_millis(1999));
    assert_eq!(addresses.known().0, 1, "its bucket is not full yet");
    sweep(&addresses, now + Duration::from_secs(2));
    assert_eq!(addresses.known().0, 0);
}

#[test]
fn many_threads_together_keep_to_the_limits() {
    let addresses = Arc::new(Addresses::default());
    let rate = Rate { a_second: 1, burst: 1000 };
    let (open, most_open, asked) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let now = Instant::now();
    thread::scope(|scope| {
        for worker in 0..4_u16 {
            let (addresses, open, most_open, asked) = (&addresses, &open, &most_open, &asked);
            scope.spawn(move || {
                let client = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, worker).into();
                for _ in 0..5000 {
                    if let Some(guest) = addresses.enter(client, 3) {
                        most_open.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        open.fetch_sub(1, Ordering::SeqCst);
                        drop(guest);
                    }
                    if addresses.may_ask(client, rate, now) {
                        asked.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert!(most_open.into_inner() <= 3);
    assert_eq!(asked.into_inner(), 1000);
    assert!(addresses.enter(ip("2001:db8::9"), 1).is_some(), "all have been counted out again");
}
