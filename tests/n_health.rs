//! Backends are asked whether they are well: over real sockets, one thread for all.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};
use support::{Backend, BlackHole, Gate, PATIENCE, each, eventually};
use threadbare::balance::{ActiveHealth, Failure, Health, PassiveHealth, Standing};
use threadbare::health::{Checker, Target};

const SLOW_START: Duration = Duration::from_secs(3600);

/// Checks this path (none: a connection) about every 5 ms.
fn asking_for(path: Option<&str>) -> ActiveHealth {
    ActiveHealth {
        path: path.map(str::to_owned),
        interval: Duration::from_millis(5),
        timeout: PATIENCE,
        ..ActiveHealth::default()
    }
}

fn target(addresses: &[SocketAddr], prefix: &str, active: impl Into<Option<ActiveHealth>>) -> Target {
    Target {
        name: "a".into(),
        origin: format!("http://backend.test:81{prefix}").parse().unwrap(),
        addresses: addresses.to_vec(),
        health: Arc::new(Health::new(Instant::now())),
        active: active.into().map(Arc::new),
    }
}

fn check(targets: &[&Target]) -> Checker {
    let targets: Vec<Target> = targets.iter().map(|&target| target.clone()).collect();
    Checker::start(move || targets.clone()).unwrap()
}

fn standing(target: &Target) -> Standing {
    target.health.standing(Instant::now(), SLOW_START)
}

fn is_in(target: &Target) -> bool {
    matches!(standing(target), Standing::In { .. })
}

fn wait_for_down(target: &Target, what: &str) {
    eventually(|| standing(target) == Standing::Down, &format!("a backend is down: {what}"));
}

/// Says these bytes to every request, and closes.
fn saying(response: &'static str) -> Backend {
    Backend::start(move |connection| {
        if connection.read_request().is_some() {
            connection.send(response.as_bytes());
        }
    })
}

#[test]
fn a_check_asks_for_its_path_below_the_prefix() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let target = target(&[backend.address()], "/deep", asking_for(Some("/healthz?full=1")));
    let _checker = check(&[&target]);
    let asked = backend.wait_for_requests(1).remove(0);
    let head = String::from_utf8(asked.head.raw.clone()).unwrap();
    assert_eq!(
        head,
        "GET /deep/healthz?full=1 HTTP/1.1\r\nHost: backend.test:81\r\nUser-Agent: threadbare-health\r\nConnection: close\r\n\r\n"
    );
}

#[test]
fn a_good_status_keeps_a_backend_in() {
    let rows = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.0 302 Found\r\nLocation: /elsewhere\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ];
    each(rows, |response| {
        let backend = saying(response);
        let target = target(&[backend.address()], "", asking_for(Some("/")));
        let _checker = check(&[&target]);
        backend.wait_for_requests(8); // more than it takes to fall, and the check of the first few is over
        assert_eq!(standing(&target), Standing::In { share: 1.0 }, "{response:?}");
    });
}

#[test]
fn anything_else_takes_it_out() {
    let rows = [
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "+OK ready\r\n\r\n",
        "HTTP/2 200\r\n\r\n",
        "",
    ];
    each(rows, |response| {
        let backend = saying(response);
        let target = target(&[backend.address()], "", asking_for(Some("/")));
        let _checker = check(&[&target]);
        wait_for_down(&target, response);
        assert!(backend.requests().len() >= 3, "not by fewer than three checks");
    });
}

#[test]
fn a_head_without_end_is_no_healthy_sign() {
    let backend = Backend::start(|connection| {
        connection.read_request();
        connection.send(b"HTTP/1.1 200 OK\r\n");
        while connection.send(format!("A: {}\r\n", "a".repeat(1000)).as_bytes()) {}
    });
    let target = target(&[backend.address()], "", asking_for(Some("/")));
    let _checker = check(&[&target]);
    wait_for_down(&target, "it never ends its head");
}

#[test]
fn the_status_that_is_good_can_be_chosen() {
    let backend = saying("HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n");
    let teapots = ActiveHealth { status: (418, 418), ..asking_for(Some("/")) };
    let (teapot, server) =
        (target(&[backend.address()], "", teapots), target(&[backend.address()], "", asking_for(Some("/"))));
    let _checker = check(&[&teapot, &server]);
    wait_for_down(&server, "a teapot");
    backend.wait_for_requests(20);
    assert!(is_in(&teapot));
}

#[test]
fn a_backend_that_hangs_is_down_after_its_timeout() {
    let gate = Gate::new();
    let backend = {
        let gate = gate.clone();
        Backend::start(move |connection| {
            connection.read_request();
            gate.pass();
        })
    };
    let hasty = ActiveHealth { timeout: Duration::from_millis(20), ..asking_for(Some("/")) };
    let target = target(&[backend.address()], "", hasty);
    let checker = check(&[&target]);
    wait_for_down(&target, "it does not answer");
    drop(checker);
    gate.open();
}

#[test]
fn a_backend_that_hangs_delays_nobody_elses_check() {
    let gate = Gate::new();
    let hanging = {
        let gate = gate.clone();
        Backend::start(move |connection| {
            connection.read_request();
            gate.pass();
        })
    };
    let failing = saying("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    let hangs = target(&[hanging.address()], "", asking_for(Some("/")));
    let fails = target(&[failing.address()], "", asking_for(Some("/")));
    let checker = check(&[&hangs, &fails]);
    hanging.wait_for_requests(1);
    wait_for_down(&fails, "it answers 500 while another hangs");
    assert_eq!((hanging.requests().len(), is_in(&hangs)), (1, true), "one check at a time, and it is not over");

    let asked = Instant::now();
    drop(checker);
    assert!(asked.elapsed() < PATIENCE / 2, "a check that hangs held the checker up: {:?}", asked.elapsed());
    assert!(is_in(&hangs), "a check that was given up tells nothing");
    gate.open();
    for backend in [hanging, failing] {
        backend.wait_until("no connection is left of it", |record| record.open == 0);
    }
}

#[test]
fn a_backend_that_refuses_is_down() {
    each([Some("/"), None], |path| {
        let backend = Backend::refusing();
        let target = target(&[backend.address()], "", asking_for(path));
        let _checker = check(&[&target]);
        wait_for_down(&target, "nobody listens");
    });
}

#[test]
fn without_a_path_a_connection_is_enough() {
    let backend = Backend::start(|connection| {
        let (said, _) = connection.read_to_end();
        assert_eq!(said, b"", "nothing is said");
    });
    let target = target(&[backend.address()], "", asking_for(None));
    let _checker = check(&[&target]);
    backend.wait_until("it is tried again and again", |record| record.accepted >= 8);
    assert_eq!(standing(&target), Standing::In { share: 1.0 });
}

#[test]
fn any_address_of_a_backend_will_do() {
    let (refusing, backend) = (Backend::refusing(), saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    let addresses = [refusing.address(), backend.address()];
    let (asked, connected) = (target(&addresses, "", asking_for(Some("/"))), target(&addresses, "", asking_for(None)));
    let _checker = check(&[&asked, &connected]);
    backend.wait_until("both are checked", |record| record.whole() >= 8 && record.accepted >= 16);
    assert!(is_in(&asked) && is_in(&connected));
}

#[test]
fn an_address_where_nobody_answers_leaves_the_others_their_time() {
    let Some(hole) = BlackHole::open() else { return };
    let good = saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let addresses = [hole.address(), good.address()];
    for path in [Some("/"), None] {
        let patient = ActiveHealth { timeout: Duration::from_secs(2), fall: 1, ..asking_for(path) };
        let target = target(&addresses, "", patient);
        let before = good.accepted();
        let _checker = check(&[&target]);
        good.wait_until("it is asked behind the other", |record| record.accepted > before + 1);
        assert!(is_in(&target));
    }
}

#[test]
fn it_takes_some_checks_in_a_row_to_fall_and_to_rise() {
    const GOOD: usize = 0;
    const BAD: usize = 1;
    const EVERY_THIRD_GOOD: usize = 2;
    const EVERY_OTHER_GOOD: usize = 3;
    let mood = Arc::new(AtomicUsize::new(EVERY_THIRD_GOOD));
    let backend = {
        let mood = Arc::clone(&mood);
        Backend::start(move |connection| {
            connection.read_request();
            let is_good = match mood.load(Ordering::SeqCst) {
                GOOD => true,
                BAD => false,
                EVERY_THIRD_GOOD => connection.number % 3 == 2,
                _ => connection.number % 2 == 0,
            };
            let status = if is_good { "200 OK" } else { "500 No" };
            connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        })
    };
    let target = target(&[backend.address()], "", asking_for(Some("/")));
    let _checker = check(&[&target]);
    let after = |count: usize| backend.wait_for_requests(backend.requests().len() + count);
    after(12);
    assert!(is_in(&target), "two bad checks in a row are no fall");
    mood.store(BAD, Ordering::SeqCst);
    wait_for_down(&target, "three bad checks in a row are a fall");
    mood.store(EVERY_OTHER_GOOD, Ordering::SeqCst);
    after(12);
    assert_eq!(standing(&target), Standing::Down, "one good check is no rise");
    mood.store(GOOD, Ordering::SeqCst);
    eventually(|| is_in(&target), "two good checks in a row are a rise");
    assert!(matches!(standing(&target), Standing::In { share } if share < 0.2), "{:?}", standing(&target));
}

/// So that nothing but a knock ends an ejection.
const FOR_LONG: PassiveHealth = PassiveHealth {
    enabled: true,
    failures: 1,
    shortest_ejection: Duration::from_secs(3600),
    longest_ejection: Duration::from_secs(3600),
    stall_in_flight: 8,
    stall: Duration::from_millis(500),
};

#[test]
fn a_knock_finds_out_that_somebody_listens_again() {
    let port = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&port, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = SocketAddr::try_from(rustix::net::getsockname(&port).unwrap()).unwrap();
    let (silent, refuses) = (Backend::start(|_| {}), target(&[address], "", None));
    let hangs = target(&[silent.address()], "", None);
    refuses.health.failed(Failure::Refused, None, Instant::now(), &FOR_LONG, |_| true);
    hangs.health.failed(Failure::NoAnswer, None, Instant::now(), &FOR_LONG, |_| true);
    let looks = Arc::new(AtomicUsize::new(0));
    let targets = {
        let (targets, looks) = ([refuses.clone(), hangs.clone()], Arc::clone(&looks));
        move || {
            looks.fetch_add(1, Ordering::SeqCst);
            targets.to_vec()
        }
    };
    let _checker = Checker::start(targets).unwrap();
    eventually(|| looks.load(Ordering::SeqCst) >= 3, "it has looked after them");
    assert!(matches!(standing(&refuses), Standing::Ejected(..)), "nobody listens yet");
    rustix::net::listen(&port, 16).unwrap();
    eventually(|| standing(&refuses) == Standing::TrialDue, "the trial is due");
    assert!(matches!(standing(&hangs), Standing::Ejected(..)), "an open door proves nothing about who does not answer");
    assert_eq!(silent.accepted(), 0, "so nobody knocks there");
}

#[test]
fn a_reload_may_change_whom_to_ask_and_for_what() {
    let backend = saying("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
    let first = target(&[backend.address()], "", asking_for(Some("/before")));
    let current = Arc::new(Mutex::new(vec![first.clone()]));
    let targets = {
        let current = Arc::clone(&current);
        move || current.lock().unwrap().clone()
    };
    let _checker = Checker::start(targets).unwrap();
    wait_for_down(&first, "it answers 500");

    let patient = ActiveHealth { status: (500, 599), ..asking_for(Some("/after")) };
    *current.lock().unwrap() = vec![Target { active: Some(Arc::new(patient)), ..first.clone() }];
    eventually(|| is_in(&first), "500 is good now");
    assert!(backend.requests().iter().any(|request| request.target == "/after"));

    *current.lock().unwrap() = vec![first.clone()];
    wait_for_down(&first, "500 is bad again");
    *current.lock().unwrap() = vec![Target { active: None, ..first.clone() }];
    eventually(|| is_in(&first), "who is not checked any more is not down");

    let second = target(&[backend.address()], "", asking_for(Some("/second")));
    *current.lock().unwrap() = vec![second.clone()];
    wait_for_down(&second, "another took its place");
    eventually(|| Arc::strong_count(&first.health) == 1, "who is gone is let go");
}
