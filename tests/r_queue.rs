//! The queue before backends that are full: first come, first served, bounded, and no thread held.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use support::{Backend, Client, Gate, balancer, eventually};

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
    eventually(|| balancer.counters().in_flight == 20, "all have asked");
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
        eventually(|| balancer.counters().in_flight == nth + 1, "this one has its place before the next one comes");
    }
    gate.open();
    for client in &mut clients {
        client.read_response("GET");
    }
    let order: Vec<String> = backend.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(order, ["/0", "/1", "/2", "/3", "/4", "/5", "/6", "/7"]);
}

#[test]
fn whoever_finds_the_queue_full_is_told_at_once() {
    let gate = Gate::new();
    let backend = gated(&gate);
    let balancer = balancer(&[&backend.url()], &["--max-in-flight", "1", "--queue", "1"]);
    let mut clients: Vec<Client> = (0..2).map(|_| Client::connect(balancer.address())).collect();
    for (nth, client) in clients.iter_mut().enumerate() {
        asks(client, "/");
        eventually(|| balancer.counters().in_flight == nth + 1, "it has asked");
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
    eventually(|| balancer.counters().in_flight == 2, "it waits");
    let mut last = Client::connect(balancer.address());
    asks(&mut last, "/last");
    eventually(|| balancer.counters().in_flight == 3, "another waits behind it");
    drop(leaver);
    eventually(|| balancer.counters().in_flight == 2, "the leaver is noticed");
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
