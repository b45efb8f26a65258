//! How long connections live: what keeps a client's, what ends it and how gently, and which of a backend's are kept.
//!
//! Two questions run through all of it. May another message follow on this connection? And if not, does everybody
//! learn of it without losing what was said last?

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::{Backend, Client, End, Gate, balancer, each, eventually};
use threadbare::{Balancer, Config};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Behind whatever ends a connection: whoever parses it serves it.
const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: behind\r\n\r\n";

/// A balancer before one backend.
struct House {
    balancer: Balancer,
    backend: Backend,
}

impl House {
    fn before(backend: Backend) -> Self {
        Self::with(backend, &[])
    }

    fn with(backend: Backend, flags: &[&str]) -> Self {
        let balancer = balancer(&[&backend.url()], flags);
        Self { balancer, backend }
    }

    fn client(&self) -> Client {
        Client::connect(self.balancer.address())
    }

    /// One request and its answer, from a client of its own, with all that follows: the backend's connection rests.
    fn ask(&self, request: &str) -> String {
        let mut client = self.client();
        client.send(request.as_bytes());
        let answer = client.read_response(request.split(' ').next().unwrap()).text();
        eventually(|| self.balancer.counters().in_flight == 0, "the exchange has ended");
        answer
    }

    /// The targets that reached the backend.
    fn targets(&self) -> Vec<String> {
        self.backend.requests().into_iter().map(|request| request.target).collect()
    }

    /// Nobody is left, and nothing has panicked.
    fn comes_to_rest(&self) {
        let rests = || {
            let counters = self.balancer.counters();
            counters.in_flight == 0 && counters.connections == 0
        };
        eventually(rests, "no exchange and no connection is left");
        assert_eq!(self.balancer.counters().panics, 0);
    }

    /// The backend's connection rests among the spares.
    fn has_spares(&self, count: usize) {
        eventually(|| self.balancer.counters().spares == count, &format!("{count} spares are kept"));
    }
}

// What keeps a client's connection, and what ends it.

#[test]
fn a_client_of_http_1_1_stays_unless_it_says_close() {
    let rows = [
        ("", true),
        ("Connection: keep-alive\r\n", true),
        ("Connection: x\r\n", true),
        ("Connection:\r\n", true),
        ("Connection: ,\r\n", true),
        ("Connection: closed\r\n", true),
        ("Connection: not-close\r\n", true),
        ("Proxy-Connection: close\r\n", true),
        ("Keep-Alive: timeout=0\r\n", true),
        ("X-Connection: close\r\n", true),
        ("Connection: close\r\n", false),
        ("Connection: Close\r\n", false),
        ("CONNECTION:CLOSE\r\n", false),
        ("Connection: \tclose \t\r\n", false),
        ("Connection: keep-alive, close\r\n", false),
        ("Connection: close, keep-alive\r\n", false),
        ("Connection: close,keep-alive\r\n", false),
        ("Connection: ,x ,\tclose,\r\n", false),
        ("Connection: keep-alive\r\nConnection: close\r\n", false),
        ("Connection: close\r\nX: y\r\nconnection: keep-alive\r\n", false),
    ];
    each(rows, |(lines, stays)| {
        let house = House::before(Backend::answering(OK));
        let mut client = house.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n{BEHIND}").as_bytes());
        let response = client.read_response("GET");
        assert_eq!(response.closes(), !stays, "{}", client.story());
        if stays {
            assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
        } else {
            client.expect_closed();
            assert_eq!(house.targets(), ["/"], "what is behind a close is not parsed: {}", client.story());
        }
    });
}

#[test]
fn a_client_of_http_1_0_stays_only_if_it_says_keep_alive_and_is_told_so() {
    let rows = [
        ("", false),
        ("Connection: x\r\n", false),
        ("Proxy-Connection: keep-alive\r\n", false),
        ("Keep-Alive: timeout=5\r\n", false),
        ("Connection: close\r\n", false),
        ("Connection: keep-alive, close\r\n", false),
        ("Connection: close\r\nConnection: keep-alive\r\n", false),
        ("Connection: keep-alive\r\n", true),
        ("connection:Keep-Alive\r\n", true),
        ("Connection: x, KEEP-ALIVE\r\n", true),
        ("Connection: x\r\nX: y\r\nConnection: keep-alive\r\n", true),
    ];
    each(rows, |(lines, stays)| {
        let house = House::before(Backend::answering(OK));
        let mut client = house.client();
        client.send(format!("GET / HTTP/1.0\r\n{lines}\r\n{BEHIND}").as_bytes());
        let response = client.read_response("GET");
        assert_eq!(response.text(), "ok", "{}", client.story());
        assert_eq!(response.head.lists("Connection", "keep-alive"), stays, "{}", client.story());
        assert_eq!(response.closes(), !stays, "{}", client.story());
        if stays {
            assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
        } else {
            client.expect_closed();
            assert_eq!(house.targets(), ["/"], "what is behind a close is not parsed: {}", client.story());
        }
    });
}

#[test]
fn every_kind_of_response_leaves_the_connection_to_its_client() {
    let rows = [
        ("GET", OK),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        ("POST", "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno"),
        ("GET", "HTTP/1.1 408 Request Timeout\r\nContent-Length: 2\r\n\r\nno"),
        ("GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"),
        ("GET", "HTTP/1.1 100 Continue\r\n\r\nno HTTP\r\n\r\n"),
    ];
    each(rows, |(method, said)| {
        let house = House::before(Backend::start(move |connection| {
            if connection.read_request().is_some() {
                connection.send(said.as_bytes());
            }
        }));
        let mut client = house.client();
        for _again in 0..3 {
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
            if said.contains(" 100 ") {
                client.read_interim();
            }
            assert!(!client.read_response(method).closes(), "{}", client.story());
        }
        drop(client);
        house.comes_to_rest();
    });
}

#[test]
fn nothing_behind_a_close_is_parsed_not_even_to_be_refused() {
    let house = House::before(Backend::answering(OK));
    each([BEHIND, "no request\r\n\r\n", "\0\0\0", "GET / HTTP/9.9\r\n", "\r\n"], |behind| {
        let mut client = house.client();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{behind}").as_bytes());
        assert_eq!(client.read_response("GET").status, 200, "{}", client.story());
        client.expect_closed();
    });
    assert!(house.targets().iter().all(|target| target == "/"));
}

#[test]
fn a_connection_carries_as_many_requests_as_it_likes() {
    let house = House::before(Backend::answering(OK));
    let mut client = house.client();
    for nth in 0..1000 {
        client.send(GET.as_bytes());
        assert_eq!(client.read_response("GET").text(), "ok", "the {nth}th");
    }
    assert_eq!((house.balancer.counters().connections, house.backend.accepted()), (1, 1));
}

// Pipelines.

#[test]
fn pipelined_requests_are_answered_in_order() {
    let house = House::before(Backend::echo());
    let mut client = house.client();
    let mut all = String::new();
    let mut sent = Vec::new();
    for nth in 0..60 {
        let (method, body) = match nth % 4 {
            0 => ("GET", "\r\n".to_owned()),
            1 => ("POST", format!("Content-Length: {nth}\r\n\r\n{}", "y".repeat(nth))),
            2 => ("HEAD", "\r\n".to_owned()),
            _ => ("PUT", format!("Transfer-Encoding: chunked\r\n\r\n{nth:x}\r\n{}\r\n0\r\n\r\n", "z".repeat(nth))),
        };
        all += &format!("{method} /{nth} HTTP/1.1\r\nHost: a\r\n{body}");
        sent.push((method, nth));
    }
    client.send(all.as_bytes());
    for (method, nth) in sent {
        let response = client.read_response(method);
        assert_eq!(response.status, 200, "the {nth}th: {}", client.story());
        if method != "HEAD" {
            assert!(response.text().starts_with(&format!("{method} /{nth} ")), "the {nth}th: {}", client.story());
        }
    }
    let targets: Vec<String> = (0..60).map(|nth| format!("/{nth}")).collect();
    assert_eq!(house.targets(), targets);
}

#[test]
fn a_long_pipeline_is_answered_while_it_is_still_being_sent() {
    let house = House::before(Backend::answering(OK));
    let mut client = house.client();
    // More than a read takes, and more than a turn does.
    let count = 6000;
    let mut sender = client.second_hand();
    let thread = thread::spawn(move || std::io::Write::write_all(&mut sender, GET.repeat(count).as_bytes()));
    for nth in 0..count {
        assert_eq!(client.read_response("GET").status, 200, "the {nth}th");
    }
    thread.join().unwrap().unwrap();
}

#[test]
fn at_most_one_request_of_a_client_is_in_flight() {
    let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = Gate::new();
    let backend = || {
        let (at_once, most, gate) = (Arc::clone(&at_once), Arc::clone(&most), gate.clone());
        Backend::start(move |connection| {
            while connection.read_request().is_some() {
                most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
                gate.pass();
                at_once.fetch_sub(1, Ordering::SeqCst);
                connection.send(b"world");
            }
        })
    };
    let (one, other) = (backend(), backend());
    let balancer = balancer(&[&one.url(), &other.url()], &[]);
    let mut client = Client::connect(balancer.address());
    client.send(GET.repeat(5).as_bytes());
    // The first answer has begun; the second request has been in the balancer's hands since before that.
    client.read_head("GET");
    assert_eq!(client.read_body_bytes(5), b"hello", "{}", client.story());
    assert_eq!(one.requests().len() + other.requests().len(), 1, "the next one's bytes wait: {}", client.story());
    assert_eq!(balancer.counters().in_flight, 1);
    gate.open();
    assert_eq!(client.read_rest().text(), "helloworld", "{}", client.story());
    for _rest in 1..5 {
        assert_eq!(client.read_response("GET").text(), "helloworld", "{}", client.story());
    }
    assert_eq!(most.load(Ordering::SeqCst), 1, "at once");
}

#[test]
fn a_slow_answer_is_not_overtaken_by_a_fast_one() {
    let gate = Gate::new();
    let slow = Backend::start({
        let gate = gate.clone();
        move |connection| {
            while connection.read_request().is_some() {
                gate.pass();
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow");
            }
        }
    });
    let fast = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfast");
    let balancer = balancer(&[&slow.url(), &fast.url()], &[]);
    let mut client = Client::connect(balancer.address());
    client.send(GET.repeat(4).as_bytes());
    slow.wait_for_requests(1);
    gate.open();
    for answer in ["slow", "fast", "slow", "fast"] {
        assert_eq!(client.read_response("GET").text(), answer, "{}", client.story());
    }
}

#[test]
fn a_pipeline_goes_on_behind_an_answer_of_ours() {
    let backend = Backend::refusing();
    let balancer = balancer(&[&backend.url()], &[]);
    let mut client = Client::connect(balancer.address());
    client.send(GET.repeat(10).as_bytes());
    for _request in 0..10 {
        let response = client.read_response("GET");
        assert!(response.status == 502 && !response.closes(), "{}", client.story());
    }
    let last = "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n";
    client.send(format!("{last}{last}GET / HTTP/1.1\r\nX: no-host\r\n\r\n{GET}").as_bytes());
    assert_eq!(client.read_response("OPTIONS").status, 200, "{}", client.story());
    assert_eq!(client.read_response("OPTIONS").status, 200, "{}", client.story());
    client.expect_refusal(&[400]);
}

#[test]
fn a_pipeline_ends_with_a_close_in_its_middle() {
    let house = House::before(Backend::answering(OK));
    let mut client = house.client();
    let close = "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.send(format!("{GET}{GET}{close}{BEHIND}{BEHIND}").as_bytes());
    assert!(!client.read_response("GET").closes(), "{}", client.story());
    assert!(!client.read_response("GET").closes(), "{}", client.story());
    assert!(client.read_response("GET").closes(), "{}", client.story());
    client.expect_closed();
    assert_eq!(house.targets(), ["/", "/", "/last"]);
}

#[test]
fn a_head_that_has_begun_behind_an_answer_is_finished() {
    let house = House::before(Backend::answering(OK));
    let mut client = house.client();
    let (front, back) = GET.split_at(20);
    client.send(format!("{GET}{front}").as_bytes());
    assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
    client.send(format!("{back}{front}").as_bytes());
    assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
    client.send(back.as_bytes());
    assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
}

// The gentle close.

#[test]
fn the_last_answer_arrives_though_the_client_has_more_to_say() {
    let body = "y".repeat(300_000);
    let said = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let house = House::before(Backend::answering(said));
    let junk = "x".repeat(1_000_000);
    let rows = [
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{junk}"),
        format!("GET / HTTP/1.0\r\n\r\n{junk}"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{}", BEHIND.repeat(10_000)),
    ];
    each(rows, |request| {
        let mut client = house.client();
        // All of it before the first look at what came back: a close that is not gentle resets, and the answer is gone.
        client.send(request.as_bytes());
        assert_eq!(client.read_response("GET").body.len(), body.len());
        client.expect_closed();
    });
    house.comes_to_rest();
}

#[test]
fn a_gentle_close_has_an_end() {
    let house = House::before(Backend::answering(OK));
    let close = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    // It stays, and says nothing.
    let mut silent = house.client();
    silent.send(close.as_bytes());
    assert_eq!(silent.read_response("GET").status, 200, "{}", silent.story());
    silent.expect_closed();
    // It never stops to speak.
    let mut talker = house.client();
    talker.send(close.as_bytes());
    let megabyte = vec![b'y'; 1024 * 1024];
    let deadline = Instant::now() + support::PATIENCE;
    while talker.try_send(&megabyte) {
        assert!(Instant::now() < deadline, "it is heard for ever");
    }
    house.comes_to_rest();
}

#[test]
fn who_had_sent_much_before_it_looked_hears_the_answer_all_the_same() {
    let backend = Backend::answering(OK);
    let flags = ["--listen", "127.0.0.1:0", "--access-log", "off", "--backend", &backend.url()];
    let mut config = Config::from_args(flags).unwrap();
    config.timeouts.linger = Duration::from_secs(3600); // however slow this machine is
    let house = House { balancer: Balancer::start(config).unwrap(), backend };
    let mut client = house.client();
    client.send(b"POST / HTTP/1.1\r\nContent-Length: 8388608\r\n\r\n"); // it lacks a Host
    assert!(client.try_send(&vec![b'y'; 8 * 1024 * 1024]), "nobody listens any more");
    assert_eq!(client.read_response("POST").status, 400, "{}", client.story());
    drop(client);
    house.comes_to_rest();
}

#[test]
fn a_client_that_has_said_that_it_sends_no_more_is_not_waited_for() {
    let backend = Backend::answering(OK);
    let flags = ["--listen", "127.0.0.1:0", "--access-log", "off", "--backend", &backend.url()];
    let mut config = Config::from_args(flags).unwrap();
    config.timeouts.linger = Duration::from_secs(3600); // whoever is waited for is waited for longer than a test takes
    let house = House { balancer: Balancer::start(config).unwrap(), backend };
    each(["GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"], |request| {
        let mut client = house.client();
        client.send(request.as_bytes());
        assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
        client.expect_closed();
        house.comes_to_rest(); // though the client keeps its end open
    });
}

// Clients that go away.

/// A backend that reads a request and then waits for the balancer to leave.
fn patient() -> Backend {
    Backend::start(|connection| {
        if connection.read_request().is_some() {
            connection.read_to_end();
        }
    })
}

#[test]
fn a_client_that_leaves_while_it_waits_is_noticed() {
    let requests = [
        GET,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
    ];
    let rows = requests.into_iter().flat_map(|request| ["closes", "resets", "half-closes"].map(|how| (request, how)));
    each(rows, |(request, how)| {
        let house = House::before(patient());
        let mut client = house.client();
        client.send(request.as_bytes());
        house.backend.wait_for_requests(1);
        assert_eq!(house.balancer.counters().in_flight, 1, "{request:?}");
        match how {
            "closes" => drop(client),
            "resets" => client.abort(),
            _ => {
                client.half_close();
                let (bytes, _end) = client.try_to_end();
                assert!(bytes.is_empty(), "nobody is there to be answered: {}", client.story());
            }
        }
        house.backend.wait_until("the backend is let go", |record| record.open == 0);
        house.comes_to_rest();
        assert_eq!(house.backend.accepted(), 1, "nobody else is bothered with {request:?}");
    });
}

#[test]
fn a_client_that_half_closes_gets_its_answer_where_that_is_wanted() {
    let requests = [
        GET,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "GET / HTTP/1.0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ];
    each(requests, |request| {
        let gate = Gate::new();
        let house = House::with(
            Backend::start({
                let gate = gate.clone();
                move |connection| {
                    connection.read_request();
                    gate.pass();
                    connection.send(OK.as_bytes());
                }
            }),
            &["--half-close", "answer"],
        );
        let mut client = house.client();
        client.send(request.as_bytes());
        client.half_close();
        house.backend.wait_for_requests(1);
        gate.open();
        assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
        client.expect_closed();
        house.comes_to_rest();
    });
}

#[test]
fn a_reset_is_noticed_whatever_a_half_close_means() {
    let house = House::with(patient(), &["--half-close", "answer"]);
    let mut client = house.client();
    client.send(GET.as_bytes());
    house.backend.wait_for_requests(1);
    client.abort();
    house.backend.wait_until("the backend is let go", |record| record.open == 0);
    house.comes_to_rest();
}

#[test]
fn a_reset_behind_a_half_close_is_noticed() {
    let house = House::with(patient(), &["--half-close", "answer"]);
    let mut client = house.client();
    client.send(GET.as_bytes());
    house.backend.wait_for_requests(1);
    client.half_close();
    client.abort();
    house.backend.wait_until("the backend is let go", |record| record.open == 0);
    house.comes_to_rest();
}

#[test]
fn an_end_of_file_behind_unread_bytes_does_not_mean_gone() {
    let gate = Gate::new();
    let house = House::before(Backend::start({
        let gate = gate.clone();
        move |connection| {
            while connection.read_request().is_some() {
                gate.pass();
                connection.send(OK.as_bytes());
            }
        }
    }));
    let mut client = house.client();
    client.send(format!("{GET}{GET}").as_bytes());
    house.backend.wait_for_requests(1);
    client.half_close();
    // The end has certainly been noticed once a client that came after it has been served.
    house.client().send(b"no request\r\n\r\n");
    gate.open();
    assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
    house.comes_to_rest();
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_answer_is_noticed() {
    let megabytes = "y".repeat(16 * 1024 * 1024);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", megabytes.len());
    let unending = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello".to_owned();
    let rows = [head + &megabytes, unending];
    let rows = rows.iter().flat_map(|said| [(said, "closes"), (said, "resets")]);
    each(rows, |(said, how)| {
        let house = House::before(Backend::start({
            let said = said.clone();
            move |connection| {
                connection.read_request();
                connection.send(said.as_bytes());
                connection.read_to_end();
            }
        }));
        let mut client = house.client();
        client.send(GET.as_bytes());
        client.read_head("GET");
        assert_eq!(client.read_body_bytes(1).len(), 1);
        if how == "closes" {
            drop(client)
        } else {
            client.abort()
        }
        house.backend.wait_until("the backend is let go", |record| record.open == 0);
        house.comes_to_rest();
    });
}

#[test]
fn a_client_that_leaves_between_two_requests_leaves_a_spare() {
    each(["closes", "resets", "half-closes"], |how| {
        let house = House::before(Backend::answering(OK));
        let mut client = house.client();
        client.send(GET.as_bytes());
        assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
        match how {
            "closes" => drop(client),
            "resets" => client.abort(),
            _ => {
                client.half_close();
                client.expect_closed();
            }
        }
        house.comes_to_rest();
        assert_eq!(house.ask(GET), "ok");
        assert_eq!(house.backend.accepted(), 1, "the connection is as good as new");
    });
}

// Bodies that nobody reads.

#[test]
fn a_body_that_nobody_read_is_never_parsed_as_a_request() {
    let requests = |framing: &str| {
        let body = BEHIND.repeat(3000);
        match framing {
            "length" => format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
            "expecting" => format!(
                "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
            _ => format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                body.len()
            ),
        }
    };
    let backends: [(&str, fn(&mut support::BackendSide)); 3] = [
        ("an answer before the body is read, then the body", |connection| {
            while connection.read_head().is_some() {
                connection.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno");
                connection.read_rest();
            }
        }),
        ("an answer before the body is read, then a close", |connection| {
            if connection.read_head().is_some() {
                connection.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
                connection.half_close();
                connection.read_to_end();
            }
        }),
        ("no HTTP", |connection| {
            if connection.read_head().is_some() {
                connection.send(b"no HTTP\r\n\r\n");
                connection.read_to_end();
            }
        }),
    ];
    let rows = ["length", "chunked", "expecting"].into_iter().flat_map(|framing| backends.map(|row| (framing, row)));
    each(rows, |(framing, (what, script))| {
        let house = House::before(Backend::start(script));
        let mut client = house.client();
        client.send(requests(framing).as_bytes());
        client.send(BEHIND.as_bytes());
        let response = client.read_response("POST");
        assert!([413, 502].contains(&response.status), "{what}, {framing}: {}", response.status);
        // At most the request behind the body is answered, and it alone reaches a backend.
        let mut answers = 0;
        if !response.closes() {
            client.read_response("GET");
            answers += 1;
        } else {
            client.expect_closed();
        }
        drop(client);
        house.comes_to_rest();
        let behind = house.targets().iter().filter(|target| **target == "/behind").count();
        assert!(behind <= answers, "{what}, {framing}: {behind} requests out of a body");
    });
}

#[test]
fn a_body_for_a_backend_that_refuses_is_never_parsed_as_a_request() {
    let backend = Backend::refusing();
    let body = BEHIND.repeat(1000);
    let rows = [
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        format!(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        ),
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{BEHIND}", BEHIND.len()),
    ];
    each(rows, |request| {
        let balancer = balancer(&[&backend.url()], &[]);
        let mut client = Client::connect(balancer.address());
        client.send(request.as_bytes());
        client.send(b"GET / HTTP/1.1\r\nX: no-host\r\n\r\n");
        let response = client.read_response("POST");
        assert_eq!(response.status, 502, "{}", client.story());
        if response.closes() {
            client.expect_closed();
        } else {
            client.expect_refusal(&[400]);
        }
        assert!(balancer.counters().exchanges <= 2, "requests out of a body");
    });
}

#[test]
fn an_answer_before_the_end_of_its_request_announces_the_close() {
    let house = House::before(Backend::start(|connection| {
        if connection.read_head().is_some() {
            connection.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno");
            connection.read_to_end();
        }
    }));
    let mut client = house.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nhello");
    let response = client.read_response("POST");
    assert_eq!((response.status, &*response.text()), (413, "no"), "{}", client.story());
    assert!(response.closes(), "{}", client.story());
    client.expect_closed();
    house.backend.wait_until("half a request is no request", |record| record.open == 0);
    assert!(house.backend.requests().iter().all(|request| !request.whole));
    house.comes_to_rest();
}

#[test]
fn what_a_backend_said_before_it_stopped_reading_is_heard() {
    // The first goes gently; the other's close resets, since it leaves bytes unread, while we are still sending.
    each(["gently", "abruptly"], |how| {
        let house = House::before(Backend::start(move |connection| {
            if connection.read_head().is_some() {
                connection.read_body_bytes(1000);
                connection.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
                if how == "gently" {
                    connection.half_close();
                    connection.read_to_end();
                }
            }
        }));
        let mut client = house.client();
        let mut sender = client.second_hand();
        let length = 8 * 1024 * 1024;
        let thread = thread::spawn(move || {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            let all = [head.as_bytes(), &vec![b'y'; length]].concat();
            // It may break off: that is what the answer says.
            drop(std::io::Write::write_all(&mut sender, &all));
        });
        let response = client.read_response("POST");
        assert_eq!((response.status, &*response.text()), (413, "no"), "{how}");
        let (_rest, end) = client.try_to_end();
        assert_ne!(end, End::TimedOut, "{how}");
        drop(client);
        thread.join().unwrap();
        house.comes_to_rest();
    });
}

#[test]
fn an_answer_before_the_end_of_its_request_spoils_the_backends_connection() {
    let house = House::before(Backend::start(|connection| {
        while let Some(head) = connection.read_head() {
            connection.send(OK.as_bytes());
            if head.get("Content-Length").is_some() {
                connection.read_to_end();
                return;
            }
        }
    }));
    let mut client = house.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhello");
    assert_eq!(client.read_response("POST").text(), "ok", "{}", client.story());
    drop(client);
    house.comes_to_rest();
    assert_eq!(house.balancer.counters().spares, 0, "half a request has been sent on it");
    assert_eq!(house.ask(GET), "ok");
    assert_eq!(house.backend.accepted(), 2);
}

// Spares.

#[test]
fn a_connection_is_used_again() {
    let house = House::before(Backend::answering(OK));
    for _request in 0..20 {
        assert_eq!(house.ask(GET), "ok");
        house.has_spares(1); // the client has its answer a moment before the connection rests
    }
    let counters = house.balancer.counters();
    assert_eq!((house.backend.accepted(), counters.dials, counters.spares_reused), (1, 1, 19), "{counters:?}");
}

#[test]
fn a_connection_is_used_again_only_if_nothing_speaks_against_it() {
    let rows = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=60, max=5\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n", true),
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n", true),
        ("HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", true),
        ("HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", true),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: x, Keep-Alive\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: x ,CLOSE\r\n\r\nok", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, close\r\n\r\nok", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\nConnection: keep-alive\r\n\r\nok", false),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", false),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", false),
        ("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: x\r\n\r\nok", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive, close\r\n\r\nok", false),
        ("HTTP/1.0 204 No Content\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n", false),
        ("HTTP/1.1 204 No Content\r\n\r\nx", false),
    ];
    each(rows, |(said, kept)| {
        // It never closes by itself: that is for us to do.
        let house = House::before(Backend::start(move |connection| {
            while connection.read_request().is_some() {
                connection.send(said.as_bytes());
            }
        }));
        for _request in 0..3 {
            let mut client = house.client();
            client.send(GET.as_bytes());
            if said.contains(" 103 ") {
                client.read_interim();
            }
            assert!(client.read_response("GET").status != 502, "{}", client.story());
            eventually(|| house.balancer.counters().in_flight == 0, "the exchange has ended");
        }
        assert_eq!(house.backend.accepted(), if kept { 1 } else { 3 }, "after {said:?}");
        let open = usize::from(kept);
        house.backend.wait_until("what is not kept is closed", |record| record.open == open);
        house.has_spares(open);
    });
}

#[test]
fn a_body_that_ends_with_its_connection_leaves_none() {
    let house = House::before(Backend::start(|connection| {
        connection.read_request();
        connection.send(b"HTTP/1.1 200 OK\r\n\r\nok");
    }));
    for _request in 0..3 {
        assert_eq!(house.ask(GET), "ok");
    }
    assert_eq!(house.backend.accepted(), 3);
    house.has_spares(0);
}

#[test]
fn the_newest_spare_is_used_first() {
    let gates = [Gate::new(), Gate::new(), Gate::new()];
    let house = House::before(Backend::start({
        let gates = gates.clone();
        move |connection| {
            while let Some(request) = connection.read_request() {
                if let Ok(nth) = request.target[1..].parse::<usize>() {
                    gates[nth].pass();
                }
                connection.send(OK.as_bytes());
            }
        }
    }));
    // Three requests at once make three connections; they come to rest in an order of our choosing.
    let mut clients: Vec<Client> = (0..3).map(|_| house.client()).collect();
    for (nth, client) in clients.iter_mut().enumerate() {
        client.send(format!("GET /{nth} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        house.backend.wait_for_requests(nth + 1);
    }
    for (resting, nth) in [0, 2, 1].into_iter().enumerate() {
        gates[nth].open();
        assert_eq!(clients[nth].read_response("GET").text(), "ok");
        house.has_spares(resting + 1);
    }
    let connection_of = |target: &str| {
        let requests = house.backend.requests();
        requests.iter().rev().find(|request| request.target == target).unwrap().connection
    };
    for again in 0..3 {
        house.ask("GET /new HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(connection_of("/new"), connection_of("/1"), "the {again}th time");
    }
}

#[test]
fn a_spare_that_the_backend_has_closed_is_not_used() {
    // An end of file, a reset, and bytes that nobody asked for, all while it rests.
    let rows = ["closes", "resets", "half-closes", "speaks"];
    let rows = rows.into_iter().flat_map(|how| ["GET", "POST", "PATCH", "FOO"].map(|method| (how, method)));
    each(rows, |(how, method)| {
        let (go, gone) = (Gate::new(), Gate::new());
        let house = House::before(Backend::start({
            let (go, gone) = (go.clone(), gone.clone());
            move |connection| {
                connection.read_request();
                connection.send(OK.as_bytes());
                if connection.number == 0 {
                    go.pass();
                    match how {
                        "closes" => connection.close(),
                        "resets" => connection.reset(),
                        "half-closes" => connection.half_close(),
                        _ => drop(connection.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")),
                    }
                    gone.open();
                    if how == "half-closes" || how == "speaks" {
                        connection.read_to_end();
                    }
                }
            }
        }));
        assert_eq!(house.ask(GET), "ok");
        go.open();
        gone.pass();
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(house.ask(&request), "ok", "after a spare that {how}");
        assert_eq!(house.backend.requests().len(), 2, "once, after a spare that {how}");
        assert_eq!(house.backend.accepted(), 2);
    });
}

#[test]
fn a_spare_that_the_backend_has_closed_is_closed_here_too() {
    let go = Gate::new();
    let house = House::before(Backend::start({
        let go = go.clone();
        move |connection| {
            connection.read_request();
            connection.send(OK.as_bytes());
            go.pass();
            connection.half_close();
            connection.read_to_end();
        }
    }));
    assert_eq!(house.ask(GET), "ok");
    go.open();
    house.backend.wait_until("it is closed without being asked for", |record| record.open == 0);
    house.has_spares(0);
    assert_eq!(house.balancer.counters().spares_dead, 1);
}

#[test]
fn a_spare_is_closed_by_age() {
    let rows: [(&[&str], &str); 3] = [
        (&["--spare-timeout", "300ms"], ""),
        (&["--spare-timeout", "300ms"], "Keep-Alive: timeout=60\r\n"),
        // Less when the backend says so; more never.
        (&["--spare-timeout", "1h"], "Keep-Alive: timeout=1\r\n"),
    ];
    each(rows, |(flags, line)| {
        let said = format!("HTTP/1.1 200 OK\r\n{line}Content-Length: 2\r\n\r\nok");
        let house = House::with(Backend::answering(said), flags);
        assert_eq!(house.ask(GET), "ok");
        house.backend.wait_until("it is closed without being asked for", |record| record.open == 0);
        house.has_spares(0);
        assert_eq!(house.balancer.counters().spares_dead, 0, "it was not dead, only old");
        assert_eq!(house.ask(GET), "ok");
        assert_eq!(house.backend.accepted(), 2);
    });
}

#[test]
fn what_must_not_be_sent_twice_waits_until_the_backend_is_known_to_keep_spares() {
    let house = House::before(Backend::answering(OK));
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let began = Instant::now();
    assert_eq!(house.ask(GET), "ok");
    assert_eq!(house.ask(post), "ok");
    let dials = house.balancer.counters().dials;
    if began.elapsed() < Duration::from_millis(900) {
        assert_eq!(dials, 2, "nothing is known of this backend yet");
    }
    assert_eq!(house.ask(GET), "ok");
    let asks_for_a_spare = || {
        let before = house.balancer.counters().dials;
        assert_eq!(house.ask(post), "ok");
        house.balancer.counters().dials == before
    };
    eventually(
        || {
            thread::sleep(Duration::from_millis(50));
            asks_for_a_spare()
        },
        "a POST goes over a spare",
    );
    assert!(began.elapsed() >= Duration::from_secs(1), "after {:?} already", began.elapsed());
}

#[test]
fn requests_that_bring_new_connections_leave_no_more_of_them_behind_than_are_of_use() {
    let house = House::before(Backend::answering(OK));
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    for nth in 1..=40 {
        assert_eq!(house.ask(post), "ok");
        assert!(house.balancer.counters().spares <= 2, "after {nth} requests, one at a time");
    }
    house.backend.wait_until("the others are closed", |record| record.open <= 2);
}

#[test]
fn requests_at_once_make_as_many_connections_and_no_more() {
    let gate = Gate::new();
    let house = House::before(Backend::start({
        let gate = gate.clone();
        move |connection| {
            while connection.read_request().is_some() {
                gate.pass();
                connection.send(OK.as_bytes());
            }
        }
    }));
    let mut clients: Vec<Client> = (0..20).map(|_| house.client()).collect();
    for client in &mut clients {
        client.send(GET.as_bytes());
    }
    house.backend.wait_for_requests(20);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
    }
    house.has_spares(20);
    for client in &mut clients {
        client.send(GET.as_bytes());
        assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
    }
    assert_eq!(house.backend.accepted(), 20);
}

#[test]
fn an_empty_line_behind_a_request_begins_no_other() {
    for line in ["\r\n", "\r"] {
        let flags = ["--head-timeout", "100ms", "--idle-timeout", "1s"];
        let house = House::with(Backend::answering(OK), &flags);
        let mut client = house.client();
        client.send(GET.as_bytes());
        assert_eq!(client.read_response("GET").status, 200);
        client.send(line.as_bytes());
        thread::sleep(Duration::from_millis(300)); // not a wait for something: it outlasts what a head may take
        client.send(format!("{}{GET}", &"\r\n"[line.len()..]).as_bytes());
        assert_eq!(client.read_response("GET").status, 200, "what was behind the line is a request");
        client.send(line.as_bytes());
        client.expect_closed(); // and not a 408

        let mut new = house.client();
        new.send(line.as_bytes());
        let mut idle = house.client();
        idle.send(GET.as_bytes());
        assert_eq!(idle.read_response("GET").status, 200);
        idle.send(line.as_bytes());
        house.balancer.drain(Duration::from_secs(10));
        for mut client in [new, idle] {
            client.expect_closed();
        }
    }
}
