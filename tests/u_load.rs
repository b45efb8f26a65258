//! Weights, policies, backups, retries and limits: who gets how much, and who gets nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Backend, Client, Gate, balancer, eventually};
use threadbare::{Balancer, Config};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn good() -> Backend {
    Backend::answering(OK)
}

/// A balancer with this file: `{n}` stands for the nth backend's URL.
fn configured(text: &str, backends: &[&Backend]) -> Balancer {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("threadbare-load-{}-{}.toml", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let mut text = text.to_owned();
    for (nth, backend) in backends.iter().enumerate() {
        text = text.replace(&format!("{{{nth}}}"), &backend.url());
    }
    fs::write(&path, &text).unwrap();
    let flags = ["--listen", "127.0.0.1:0", "--access-log", "off", "--config", path.to_str().unwrap()];
    let config = Config::from_args(flags);
    fs::remove_file(&path).unwrap();
    Balancer::start(config.unwrap_or_else(|error| panic!("{text}: {error}"))).unwrap()
}

fn ask(balancer: &Balancer, request: &str) -> support::Response {
    let mut client = Client::connect(balancer.address());
    client.send(request.as_bytes());
    client.read_response(request.split(' ').next().unwrap())
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn asked(backends: &[&Backend]) -> Vec<usize> {
    backends.iter().map(|backend| backend.requests().len()).collect()
}

#[test]
fn a_backend_of_weight_three_gets_exactly_three_times_as_much() {
    let (heavy, light) = (good(), good());
    let balancer =
        configured("[[backend]]\nurl = \"{0}\"\nweight = 3\n[[backend]]\nurl = \"{1}\"\n", &[&heavy, &light]);
    for _ in 0..40 {
        assert_eq!(ask(&balancer, GET).status, 200);
    }
    assert_eq!(asked(&[&heavy, &light]), [30, 10]);
}

#[test]
fn a_backend_that_drains_gets_nothing_new_and_a_backup_only_what_nobody_else_can_take() {
    let (drained, first, backup) = (good(), Backend::refusing(), good());
    let text = "[[backend]]\nurl = \"{0}\"\nstate = \"drain\"\n[[backend]]\nurl = \"{1}\"\n[[backend]]\nurl = \"{2}\"\n\
                backup = true\n";
    let balancer = configured(text, &[&drained, &first, &backup]);
    for _ in 0..10 {
        assert_eq!(ask(&balancer, GET).status, 200);
    }
    assert_eq!(asked(&[&drained, &backup]), [0, 10]);

    let (first, backup) = (good(), good());
    let text = "[[backend]]\nurl = \"{0}\"\n[[backend]]\nurl = \"{1}\"\nbackup = true\n";
    let balancer = configured(text, &[&first, &backup]);
    for _ in 0..10 {
        assert_eq!(ask(&balancer, GET).status, 200);
    }
    assert_eq!(asked(&[&first, &backup]), [10, 0]);
}

#[test]
fn where_load_is_looked_at_a_busy_backend_is_spared() {
    for policy in ["least_in_flight", "two_choices"] {
        let gate = Gate::new();
        let busy = {
            let gate = gate.clone();
            Backend::start(move |connection| {
                while connection.read_request().is_some() {
                    gate.pass();
                    connection.send(OK.as_bytes());
                }
            })
        };
        let idle = good();
        let balancer = balancer(&[&busy.url(), &idle.url()], &["--policy", policy]);
        let mut waiting = Vec::new();
        while busy.requests().is_empty() {
            let mut client = Client::connect(balancer.address());
            client.send(GET.as_bytes());
            waiting.push(client);
            eventually(|| busy.requests().len() + idle.requests().len() >= waiting.len(), "it has been passed on");
        }
        eventually(|| balancer.counters().in_flight == 1, "only the one at the busy backend waits");
        for _ in 0..30 {
            assert_eq!(ask(&balancer, GET).status, 200);
            eventually(|| balancer.counters().in_flight == 1, "it is over");
        }
        assert_eq!(busy.requests().len(), 1, "{policy}: nobody is sent to wait behind another");
        gate.open();
        for client in &mut waiting {
            assert_eq!(client.read_response("GET").status, 200);
        }
    }
}

#[test]
fn a_status_that_is_to_be_retried_is_asked_for_elsewhere_if_nothing_can_be_done_twice_by_it() {
    let sick = || Backend::answering("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nsick");
    let rows: &[(&str, u16)] = &[
        (GET, 200),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 503),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 503),
        ("PATCH / HTTP/1.1\r\nHost: a\r\n\r\n", 503),
    ];
    for (request, status) in rows {
        let (sick, sound) = (sick(), good());
        let balancer = balancer(&[&sick.url(), &sound.url()], &["--retry-status", "503"]);
        assert_eq!(ask(&balancer, request).status, *status, "{request}");
        assert_eq!(asked(&[&sick, &sound]), [1, usize::from(*status == 200)], "{request}");
    }
    // Without the wish, and where nobody else is left, the answer passes as it is.
    let (one, other) = (sick(), sick());
    let balancer_without = balancer(&[&one.url(), &other.url()], &[]);
    assert_eq!(ask(&balancer_without, GET).text(), "sick");
    assert_eq!(asked(&[&one, &other]), [1, 0]);
    let balancer = balancer(&[&one.url(), &other.url()], &["--retry-status", "503"]);
    assert_eq!(ask(&balancer, GET).text(), "sick");
    assert_eq!(asked(&[&one, &other]), [2, 1], "each of them once more");
}

#[test]
fn repetitions_have_a_budget() {
    let resetting = || {
        Backend::start(|connection| {
            connection.read_request();
            connection.reset();
        })
    };
    let backends = [resetting(), resetting(), resetting()];
    let urls = backends.each_ref().map(Backend::url);
    let flags = ["--retry-budget", "10", "--retry-budget-floor", "0", "--passive-health", "off"];
    let balancer = balancer(&[&urls[0], &urls[1], &urls[2]], &flags);
    for _ in 0..200 {
        assert_eq!(ask(&balancer, GET).status, 502);
    }
    let tries: usize = backends.iter().map(|backend| backend.requests().len()).sum();
    // The bucket holds ten at the start, and each request adds a tenth.
    assert!((200..=231).contains(&tries), "{tries} tries for 200 requests");
}

#[test]
fn a_body_beyond_its_limit_is_refused_however_it_is_framed() {
    let backend = Backend::echo();
    let balancer = balancer(&[&backend.url()], &["--max-body", "10"]);
    let answer = ask(&balancer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789");
    assert_eq!(answer.status, 200);
    let answer = ask(&balancer, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n01234567890");
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(answer.text().contains("body-too-large") && answer.closes(), "{answer:?}");
    assert_eq!(backend.requests().len(), 1, "it never reached a backend");
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(ask(&balancer, &format!("{chunked}a\r\n0123456789\r\n0\r\n\r\n")).status, 200);
    let answer = ask(&balancer, &format!("{chunked}6\r\n012345\r\n6\r\n012345\r\n0\r\n\r\n"));
    assert_eq!(answer.status, 413, "{answer:?}");
    let whole = backend.requests().into_iter().filter(|request| request.whole).count();
    assert_eq!(whole, 2, "what is too large never reaches a backend as a whole");
}

#[test]
fn beyond_the_cap_everybody_is_told_at_once() {
    let gate = Gate::new();
    let held = {
        let gate = gate.clone();
        Backend::start(move |connection| {
            while connection.read_request().is_some() {
                gate.pass();
                connection.send(OK.as_bytes());
            }
        })
    };
    let balancer = balancer(&[&held.url()], &["--max-exchanges", "3"]);
    let mut waiting: Vec<Client> = (0..3).map(|_| Client::connect(balancer.address())).collect();
    for client in &mut waiting {
        client.send(GET.as_bytes());
    }
    held.wait_for_requests(3);
    let mut late = Client::connect(balancer.address());
    late.send(GET.as_bytes());
    let answer = late.read_response("GET");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.text().contains("overloaded") && answer.head.get("Retry-After").is_some(), "{answer:?}");
    gate.open();
    for client in &mut waiting {
        assert_eq!(client.read_response("GET").status, 200);
    }
    late.send(GET.as_bytes());
    assert_eq!(late.read_response("GET").status, 200, "over the same connection, once there is room");
}

#[test]
fn a_backend_whose_checks_fail_gets_nothing_and_is_believed() {
    let status = std::sync::Arc::new(AtomicUsize::new(500));
    let checked = {
        let status = std::sync::Arc::clone(&status);
        Backend::start(move |connection| {
            while let Some(request) = connection.read_request() {
                let status = if request.target == "/healthz" { status.load(Ordering::SeqCst) } else { 200 };
                connection.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok").as_bytes());
            }
        })
    };
    let flags = ["--health-path", "/healthz", "--health-interval", "20ms", "--health-fall", "2", "--slow-start", "0s"];
    let balancer = balancer(&[&checked.url()], &flags);
    eventually(|| ask(&balancer, GET).status == 503, "its checks fail, so there is no backend");
    status.store(200, Ordering::SeqCst);
    eventually(|| ask(&balancer, GET).status == 200, "it is back");
}

#[test]
fn a_backend_that_comes_back_begins_with_a_tenth_of_its_turns() {
    let status = std::sync::Arc::new(AtomicUsize::new(500));
    let back = {
        let status = std::sync::Arc::clone(&status);
        Backend::start(move |connection| {
            while let Some(request) = connection.read_request() {
                let status = if request.target == "/healthz" { status.load(Ordering::SeqCst) } else { 200 };
                connection.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok").as_bytes());
            }
        })
    };
    let other = good();
    let flags = ["--health-path", "/healthz", "--health-interval", "20ms", "--health-fall", "1", "--slow-start", "1h"];
    let balancer = balancer(&[&back.url(), &other.url()], &flags);
    let asked = || back.requests().iter().filter(|request| request.target == "/").count();
    let gains = |requests: usize| {
        let before = asked();
        (0..requests).for_each(|_| assert_eq!(ask(&balancer, GET).status, 200));
        asked() - before
    };
    eventually(|| gains(4) == 0, "it is out");
    status.store(200, Ordering::SeqCst);
    eventually(|| gains(4) > 0, "it is back");
    // A hundred turns are its own; what it gives away does not come back to it.
    let gained = gains(200);
    assert!((5..=15).contains(&gained), "{gained} of 200");
}

#[test]
fn a_client_comes_back_to_its_backend_by_its_cookie_and_to_another_if_that_is_out() {
    let named =
        |name: &str| Backend::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()));
    let backends = [named("a"), named("b"), named("c")];
    let urls = backends.each_ref().map(Backend::url);
    let balancer = balancer(&[&urls[0], &urls[1], &urls[2]], &["--sticky-cookie", "tie"]);
    for _ in 0..3 {
        let first = ask(&balancer, GET);
        let cookie = first.head.get("Set-Cookie").unwrap().to_owned();
        let (pair, attributes) = cookie.split_once(';').unwrap();
        assert!(
            pair.starts_with("tie=") && attributes.contains("HttpOnly") && attributes.contains("Path=/"),
            "{cookie}"
        );
        for backend in &backends {
            let port = backend.address().port().to_string();
            assert!(!cookie.contains(&port), "{cookie} tells where the backend is");
        }
        for _ in 0..5 {
            let again = ask(&balancer, &format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; {pair}\r\n\r\n"));
            assert_eq!(again.text(), first.text());
            assert_eq!(again.head.get("Set-Cookie"), None, "it has it already");
        }
    }
    let unknown = ask(&balancer, "GET / HTTP/1.1\r\nHost: a\r\nCookie: tie=0123456789abcdef\r\n\r\n");
    assert_eq!(unknown.status, 200);
    assert!(unknown.head.get("Set-Cookie").is_some(), "a cookie that names nobody is replaced");
}

#[test]
fn the_same_key_goes_to_the_same_backend() {
    let backends = [good(), good(), good()];
    let urls = backends.each_ref().map(Backend::url);
    for (key, requests) in [
        ("client", ["GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"]),
        ("path", ["GET /same?1 HTTP/1.1\r\nHost: a\r\n\r\n", "GET /same?2 HTTP/1.1\r\nHost: a\r\n\r\n"]),
        (
            "header:User",
            ["GET /1 HTTP/1.1\r\nHost: a\r\nuser: x\r\n\r\n", "GET /2 HTTP/1.1\r\nHost: a\r\nUser: x\r\n\r\n"],
        ),
        (
            "cookie:id",
            [
                "GET /1 HTTP/1.1\r\nHost: a\r\nCookie: id=x\r\n\r\n",
                "GET /2 HTTP/1.1\r\nHost: a\r\nCookie: y=z; id=x\r\n\r\n",
            ],
        ),
        ("query:q", ["GET /1?q=x HTTP/1.1\r\nHost: a\r\n\r\n", "GET /2?p=y&q=x HTTP/1.1\r\nHost: a\r\n\r\n"]),
    ] {
        let balancer = balancer(&[&urls[0], &urls[1], &urls[2]], &["--policy", "hash", "--hash-key", key]);
        let before = asked(&backends.each_ref());
        for request in requests.iter().cycle().take(6) {
            assert_eq!(ask(&balancer, request).status, 200);
            eventually(|| balancer.counters().in_flight == 0, "it is over");
        }
        let after = asked(&backends.each_ref());
        let gained: Vec<usize> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
        assert!(gained.contains(&6), "{key}: {gained:?}");
    }
}
