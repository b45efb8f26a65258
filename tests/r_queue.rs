//! The queue before backends that are full: first come, first served, bounded, and no thread held.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Backend, Client, Gate, TempFile, balancer, eventually, placed};
use threadbare::balance::Condition;
use threadbare::{Balancer, Config};

/// Holds every answer back until the gate is open; the answer is the target.
fn gated(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::start(move |connection| {
        while let Some(request) = connection.read_request() {
            gate.pass();
            let length = request.target.len();
            connection
                .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}", request.target).as_bytes());
        }
    })
}

fn asks(client: &mut Client, target: &str) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
}

#[test]
fn a_backend_never_has_more_than_its_limit_and_everybody_is_served_in_the_end() {
    let gate = Gate::new();
    let backends = [gated(&gate), gated(&gate)];
    let urls = backends.each_ref().map(Backend::url);
    let balancer = balancer(&[&urls[0], &urls[1]], &["--max-in-flight", "2"]);
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(balancer.address())).collect();
    for (nth, client) in clients.iter_mut().enumerate() {
        asks(client, &format!("/{nth}"));
    }
    let asked = || backends.iter().map(|backend| backend.requests().len()).collect::<Vec<_>>();
    eventually(|| placed(&balancer) == 20, "all have asked");
    eventually(|| asked() == [2, 2], "as many as there are places have been passed on");
    gate.open();
    for (nth, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.read_response("GET").text(), format!("/{nth}"));
    }
    assert_eq!(asked().iter().sum::<usize>(), 20);
    for backend in &backends {
        assert!(backend.accepted() <= 2, "{} connections to a backend that takes two", backend.accepted());
    }
}

#[test]
fn whoever_waits_longest_is_served_first() {
    let gate = Gate::new();
    let backend = gated(&gate);
    let balancer = balancer(&[&backend.url()], &["--max-in-flight", "1"]);
    let mut clients = Vec::new();
    for nth in 0..8 {
        let mut client = Client::connect(balancer.address());
        asks(&mut client, &format!("/{nth}"));
        clients.push(client);
        eventually(|| placed(&balancer) == nth + 1, "this one has its place before the next one comes");
    }
    gate.open();
    for client in &mut clients {
        client.read_response("GET");
    }
    let order: Vec<String> = backend.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(order, ["/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7"]);
}

#[test]
fn whoever_waits_holds_no_thread() {
    let gate = Gate::new();
    let backend = gated(&gate);
    let balancer = balancer(&[&backend.url()], &["--max-in-flight", "1", "--workers", "1"]);
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(balancer.address())).collect();
    clients.iter_mut().for_each(|client| asks(client, "/"));
    eventually(|| placed(&balancer) == 100 && backend.requests().len() == 1, "one is served, the others wait");
    // The only worker there is has time for somebody else.
    let mut other = Client::connect(balancer.address());
    other.send(b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n");
    assert_eq!(other.read_response("CONNECT").status, 501);
    assert_eq!(backend.requests().len(), 1);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read_response("GET").status, 200);
    }
}

#[test]
fn whoever_finds_the_queue_full_is_told_at_once() {
    let gate = Gate::new();
    let backend = gated(&gate);
    let balancer = balancer(&[&backend.url()], &["--max-in-flight", "1", "--queue", "1"]);
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(balancer.address())).collect();
    for (nth, client) in clients.iter_mut().enumerate() {
        asks(client, "/");
        eventually(|| placed(&balancer) == nth + 1, "it has asked");
    }
    let mut late = Client::connect(balancer.address());
    asks(&mut late, "/");
    let answer = late.read_response("GET");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.text().contains("queue-full") && answer.head.get("Retry-After").is_some(), "{answer:?}");
    assert!(!answer.closes(), "a request without a body leaves its connection in order");
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read_response("GET").status, 200);
    }
}

#[test]
fn whoever_waits_too_long_is_told() {
    let gate = Gate::new();
    let backend = gated(&gate);
    let balancer = balancer(&[&backend.url()], &["--max-in-flight", "1", "--queue-timeout", "100ms"]);
    let mut first = Client::connect(balancer.address());
    asks(&mut first, "/first");
    backend.wait_for_requests(1);
    let mut second = Client::connect(balancer.address());
    asks(&mut second, "/second");
    let answer = second.read_response("GET");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.text().contains("queue-timeout"), "{answer:?}");
    gate.open();
    assert_eq!(first.read_response("GET").status, 200);
    asks(&mut second, "/third");
    assert_eq!(second.read_response("GET").text(), "/third");
    let targets: Vec<String> = backend.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/first", "/third"], "who gave up is not asked for");
}

#[test]
fn a_client_that_leaves_loses_its_place() {
    let gate = Gate::new();
    let backend = gated(&gate);
    let balancer = balancer(&[&backend.url()], &["--max-in-flight", "1"]);
    let mut first = Client::connect(balancer.address());
    asks(&mut first, "/first");
    backend.wait_for_requests(1);
    let mut leaver = Client::connect(balancer.address());
    asks(&mut leaver, "/left");
    eventually(|| placed(&balancer) == 2, "it waits");
    let mut last = Client::connect(balancer.address());
    asks(&mut last, "/last");
    eventually(|| placed(&balancer) == 3, "another waits behind it");
    drop(leaver);
    eventually(|| placed(&balancer) == 2, "the leaver is noticed");
    gate.open();
    assert_eq!(first.read_response("GET").text(), "/first");
    assert_eq!(last.read_response("GET").text(), "/last");
    let targets: Vec<String> = backend.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/first", "/last"]);
}

#[test]
fn a_place_that_its_client_can_not_use_any_more_goes_to_the_next() {
    let gate = Gate::new();
    let backend = gated(&gate);
    let balancer = balancer(&[&backend.url()], &["--max-in-flight", "2"]);
    gate.open();
    // Many come and go at once: places are handed to clients that have left at that moment.
    for round in 0..10 {
        let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(balancer.address())).collect();
        for client in &mut clients {
            asks(client, "/");
        }
        for (nth, client) in clients.into_iter().enumerate() {
            if (nth + round) % 3 == 0 {
                client.abort();
            }
        }
        eventually(|| balancer.counters().in_flight == 0, "nobody is left in the queue");
    }
    let mut client = Client::connect(balancer.address());
    asks(&mut client, "/still");
    assert_eq!(client.read_response("GET").text(), "/still");
}

/// Says on /healthz whether it is well, answers /slow once the gate is open, and everything else at once, with its name.
fn checked(name: &'static str, well: &Arc<AtomicBool>, gate: &Gate) -> Backend {
    let (well, gate) = (Arc::clone(well), gate.clone());
    Backend::start(move |connection| {
        while let Some(request) = connection.read_request() {
            let is_good = request.target != "/healthz" || well.load(Ordering::SeqCst);
            if request.target == "/slow" {
                gate.pass();
            }
            let status = if is_good { "200 OK" } else { "500 No" };
            connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{name}", name.len()).as_bytes());
        }
    })
}

/// One request at a time, and checks that tell at once how a backend is.
fn checked_balancer(backends: &[&Backend], more: &[&str]) -> Balancer {
    let urls: Vec<String> = backends.iter().map(|backend| backend.url()).collect();
    let flags = "--max-in-flight 1 --health-path /healthz --health-interval 20ms --health-rise 1 --health-fall 1";
    let flags: Vec<&str> = flags.split(' ').chain(more.iter().copied()).collect();
    balancer(&urls.iter().map(String::as_str).collect::<Vec<_>>(), &flags)
}

fn are_up(balancer: &Balancer) -> Vec<bool> {
    balancer.figures().backends.iter().map(|backend| backend.condition == Condition::Up).collect()
}

fn asks_tied(client: &mut Client, target: &str, pair: &str) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\nCookie: {pair}\r\n\r\n").as_bytes());
}

/// A client's cookie for the first backend.
fn tied_to_the_first(balancer: &Balancer) -> String {
    let mut client = Client::connect(balancer.address());
    asks(&mut client, "/");
    let answer = client.read_response("GET");
    assert_eq!(answer.text(), "a");
    eventually(|| balancer.counters().in_flight == 0, "its place is free again");
    answer.head.get("Set-Cookie").unwrap().split(';').next().unwrap().to_owned()
}

#[test]
fn whoever_waits_goes_to_a_backend_that_is_well_again_though_nobody_else_comes() {
    let (gate, well, sick) = (Gate::new(), Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (a, b) = (checked("a", &well, &gate), checked("b", &sick, &gate));
    let balancer = checked_balancer(&[&a, &b], &[]);
    eventually(|| are_up(&balancer) == [true, false], "one of two is down");
    let mut first = Client::connect(balancer.address());
    asks(&mut first, "/slow");
    a.wait_until("it has the first", |record| record.requests.iter().any(|request| request.target == "/slow"));
    let mut waiting: Vec<Client> = (0..3).map(|_| Client::connect(balancer.address())).collect();
    waiting.iter_mut().for_each(|client| asks(client, "/"));
    eventually(|| placed(&balancer) == 4, "three wait");
    sick.store(true, Ordering::SeqCst);
    for client in &mut waiting {
        assert_eq!(client.read_response("GET").text(), "b");
    }
    gate.open();
    assert_eq!(first.read_response("GET").text(), "a");
}

#[test]
fn nobody_waits_for_a_backend_that_is_down() {
    // With another one there, who is tied to it goes there; with none, everybody is told.
    for (others, expected) in [(1, "b"), (0, "no-backend")] {
        let (gate, well, always) = (Gate::new(), Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
        let backends = [checked("a", &well, &gate), checked("b", &always, &gate)];
        let backends: Vec<&Backend> = backends.iter().take(1 + others).collect();
        let balancer = checked_balancer(&backends, &["--sticky-cookie", "tie"]);
        let pair = tied_to_the_first(&balancer);
        let mut first = Client::connect(balancer.address());
        asks_tied(&mut first, "/slow", &pair);
        backends[0]
            .wait_until("it has the first", |record| record.requests.iter().any(|request| request.target == "/slow"));
        let mut second = Client::connect(balancer.address());
        asks_tied(&mut second, "/", &pair);
        eventually(|| placed(&balancer) == 2, "another waits for the same backend");
        well.store(false, Ordering::SeqCst);
        let answer = second.read_response("GET").text();
        assert!(answer.contains(expected), "{answer}");
        gate.open();
        assert_eq!(first.read_response("GET").text(), "a");
    }
}

#[test]
fn who_waits_for_one_backend_is_in_nobodys_way_to_another_though_the_queue_is_full() {
    let (gate, well) = (Gate::new(), Arc::new(AtomicBool::new(true)));
    let (a, b) = (checked("a", &well, &gate), checked("b", &well, &gate));
    let balancer = checked_balancer(&[&a, &b], &["--sticky-cookie", "tie", "--queue", "1"]);
    let pair = tied_to_the_first(&balancer);
    let mut tied: Vec<Client> = (0..2).map(|_| Client::connect(balancer.address())).collect();
    for (nth, client) in tied.iter_mut().enumerate() {
        asks_tied(client, "/slow", &pair);
        eventually(|| placed(&balancer) == nth + 1, "it has asked");
    }
    let mut third = Client::connect(balancer.address());
    asks_tied(&mut third, "/", &pair);
    assert!(third.read_response("GET").text().contains("queue-full"), "as many wait for it as may");
    for _ in 0..4 {
        let mut other = Client::connect(balancer.address());
        asks(&mut other, "/");
        assert_eq!(other.read_response("GET").text(), "b", "nobody waits for this one");
    }
    gate.open();
    for client in &mut tied {
        assert_eq!(client.read_response("GET").text(), "a");
    }
}

#[test]
fn who_asks_again_once_it_is_answered_never_meets_itself() {
    // At once, in two pieces, in three.
    for cuts in [&[][..], &[47], &[20, 49]] {
        let backend = Backend::start(move |connection| {
            while connection.read_request().is_some() {
                let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
                let ends = cuts.iter().copied().chain([answer.len()]);
                ends.fold(0, |begin, end| {
                    connection.send(&answer[begin..end]);
                    end
                });
            }
        });
        let balancer = balancer(&[&backend.url()], &["--max-in-flight", "1", "--queue", "0"]);
        for _ in 0..500 {
            let mut client = Client::connect(balancer.address());
            asks(&mut client, "/");
            assert_eq!(client.read_response("GET").text(), "ok", "nobody else has asked");
        }
        assert_eq!(backend.accepted(), 1, "the place is free, and its connection rests");
    }
}

#[test]
fn a_backend_that_is_only_full_is_waited_for_though_a_backup_is_idle() {
    let gate = Gate::new();
    let (backend, backup) = (gated(&gate), gated(&gate));
    let text = format!(
        "[[backend]]\nurl = \"{}\"\nmax_in_flight = 1\n[[backend]]\nurl = \"{}\"\nbackup = true\n",
        backend.url(),
        backup.url()
    );
    let file = TempFile::new(&text);
    let flags = ["--listen", "127.0.0.1:0", "--access-log", "off", "--config", file.path()];
    let balancer = Balancer::start(Config::from_args(flags).unwrap()).unwrap();
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(balancer.address())).collect();
    for (nth, client) in clients.iter_mut().enumerate() {
        asks(client, "/");
        eventually(|| placed(&balancer) == nth + 1, "it has asked");
    }
    eventually(|| balancer.figures().queue.length == 1, "one of two waits");
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read_response("GET").status, 200);
    }
    assert_eq!((backend.requests().len(), backup.requests().len()), (2, 0));
}
