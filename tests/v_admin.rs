//! The admin listener: what it tells, whom it tells it, and that nobody who asks slows a request down.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use std::net::SocketAddr;

use serde_json::Value;
use support::{Backend, Client, End, Gate, Response, balancer, each, eventually};
use threadbare::Balancer;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A balancer that can be seen into.
fn glass(backends: &[&str], flags: &[&str]) -> Balancer {
    balancer(backends, &[&["--admin", "127.0.0.1:0"], flags].concat())
}

fn admin(balancer: &Balancer) -> SocketAddr {
    balancer.admin_address().expect("--admin was given")
}

/// What the admin listener answers to these bytes.
fn ask(balancer: &Balancer, request: &str) -> Response {
    let mut client = Client::connect(admin(balancer));
    client.send(request.as_bytes());
    let answer = client.read_response(request.split(' ').next().unwrap());
    client.expect_closed();
    answer
}

/// What it answers to a plain GET.
fn get(balancer: &Balancer, path: &str) -> Response {
    ask(balancer, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

fn stats(balancer: &Balancer) -> Value {
    let answer = get(balancer, "/stats.json");
    assert_eq!((answer.status, answer.head.get("Content-Type")), (200, Some("application/json")));
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

fn serve(balancer: &Balancer, request: &str) -> u16 {
    let mut client = Client::connect(balancer.address());
    client.send(request.as_bytes());
    client.read_response(request.split(' ').next().unwrap()).status
}

#[test]
fn it_is_off_unless_asked_for() {
    let backend = Backend::answering(OK);
    assert_eq!(balancer(&[&backend.url()], &[]).admin_address(), None);
}

#[test]
fn everything_is_told_with_the_fields_that_keep_browsers_honest() {
    let backend = Backend::answering(OK);
    let balancer = glass(&[&backend.url()], &[]);
    let rows = [
        ("/", "text/html; charset=utf-8"),
        ("/healthz", "text/plain; charset=utf-8"),
        ("/readyz", "text/plain; charset=utf-8"),
        ("/stats.json", "application/json"),
        ("/stats.json?x=1", "application/json"),
    ];
    each(rows, |(path, content_type)| {
        let answer = get(&balancer, path);
        assert_eq!((answer.status, answer.head.get("Content-Type")), (200, Some(content_type)), "{answer:?}");
        for (name, value) in [
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Connection", "close"),
        ] {
            assert_eq!(answer.head.get(name), Some(value), "{name} of {path}");
        }
        let policy = answer.head.get("Content-Security-Policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(answer.head.get("Access-Control-Allow-Origin").is_none());
        let head = ask(&balancer, &format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!((head.status, head.head.get("Content-Type")), (200, Some(content_type)), "{head:?}");
    });
}

#[test]
fn whoever_asks_wrongly_is_told_what_would_be_right() {
    let backend = Backend::answering(OK);
    let balancer = glass(&[&backend.url()], &["--admin-host", "lb.example"]);
    let long = "x".repeat(9000);
    let rows: &[(&str, u16, &str)] = &[
        ("GET /healthz HTTP/1.0\r\n\r\n", 200, "alive"), // what old probes send
        ("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:9900\r\n\r\n", 200, "alive"),
        ("GET /healthz HTTP/1.1\r\nHost: [::1]:9900\r\n\r\n", 200, "alive"),
        ("GET /healthz HTTP/1.1\r\nHost: LB.example\r\n\r\n", 200, "alive"),
        ("GET http://lb.example/healthz HTTP/1.1\r\nHost: other.example\r\n\r\n", 200, "alive"),
        ("GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "admin.hosts"),
        ("GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 421, "admin.hosts"),
        ("GET /healthz HTTP/1.0\r\nHost: evil.example\r\n\r\n", 421, "admin.hosts"),
        ("GET /healthz HTTP/1.1\r\n\r\n", 400, "Host"),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400, "Host"),
        ("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "/stats.json"),
        ("GET /healthz/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "/stats.json"),
        ("POST /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "GET or HEAD"),
        ("OPTIONS /stats.json HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n", 405, "GET or HEAD"),
        ("GET /backends/a/drain HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "POST"),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 413, "body"),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 413, "body"),
        ("GET /healthz HTTP/1.1\nHost: localhost\n\n", 400, "bare LF"),
        ("GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n", 505, "only HTTP/1.0"),
        ("get\r\n\r\n", 400, "400"),
        (&format!("GET /{long} HTTP/1.1\r\n"), 414, "target"),
        (&format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {long}\r\n\r\n"), 431, "head"),
    ];
    each(rows, |(request, status, words)| {
        let mut client = Client::connect(admin(&balancer));
        client.send(request.as_bytes());
        let answer = client.read_response("GET");
        assert_eq!(answer.status, *status, "{answer:?}");
        assert!(answer.text().contains(words), "no {words:?} in {answer:?}");
        let allow = match (status, words) {
            (405, &"POST") => Some("POST"),
            (405, _) => Some("GET, HEAD"),
            _ => None,
        };
        assert_eq!(answer.head.get("Allow"), allow, "{answer:?}");
    });
    eventually(|| stats(&balancer)["books"]["requests"] == 0, "nothing of that was anybody's request");
}

#[test]
fn a_head_that_is_too_slow_is_told_so_and_silence_is_not_answered() {
    let backend = Backend::answering(OK);
    let balancer = glass(&[&backend.url()], &[]);
    let mut silent = Client::connect(admin(&balancer));
    let mut slow = Client::connect(admin(&balancer));
    slow.send(b"GET /healthz HT");
    assert_eq!(slow.read_response("GET").status, 408);
    silent.expect_closed();
}

#[test]
fn the_numbers_are_those_of_what_has_happened() {
    let gate = Gate::new();
    let backend = {
        let gate = gate.clone();
        Backend::start(move |connection| {
            while let Some(request) = connection.read_request() {
                if request.target == "/wait" {
                    gate.pass();
                }
                connection.send(OK.as_bytes());
            }
        })
    };
    let balancer = glass(&[&backend.url(), &Backend::refusing().url()], &["--failures", "1", "--workers", "2"]);
    for _ in 0..8 {
        assert_eq!(serve(&balancer, GET), 200);
    }
    assert_eq!(serve(&balancer, "GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n"), 417);
    let mut waiting = Client::connect(balancer.address());
    waiting.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    backend.wait_until("it is there", |record| record.requests.iter().any(|request| request.target == "/wait"));
    let _idle = Client::connect(balancer.address());
    eventually(
        || {
            let lot = &stats(&balancer)["lot"];
            (&lot["backend"], &lot["request"], &lot["parked"]) == (&1.into(), &1.into(), &2.into())
        },
        "one waits for its backend, and one for its request",
    );
    let now = stats(&balancer);
    let books = serde_json::json!({"requests": 10, "answered": 8, "refused": 1, "failed": 0, "open": 1});
    assert_eq!(now["books"], books);
    assert_eq!((&now["responses"]["2xx"], &now["responses"]["4xx"]), (&8.into(), &1.into()));
    assert_eq!(now["reasons"], serde_json::json!({"expectation-failed": 1}));
    let [first, second] = &now["backends"].as_array().unwrap()[..] else { panic!("{now}") };
    assert_eq!((&first["state"], &first["requests"], &first["in_flight"]), (&"up".into(), &8.into(), &1.into()));
    assert_eq!(
        (&second["state"], &second["why"], &second["retries"]),
        (&"ejected".into(), &"refused".into(), &1.into())
    );
    assert!(second["next_trial_us"].is_u64(), "{second}");
    let events: Vec<&str> =
        now["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(events, ["started", "ejected"]);
    assert_eq!(now["workers"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&now["state"], &now["demo"], &now["version"]),
        (&"serving".into(), &false.into(), &env!("CARGO_PKG_VERSION").into())
    );
    gate.open();
    assert_eq!(waiting.read_response("GET").status, 200);
    eventually(|| stats(&balancer)["books"]["open"] == 0, "nothing is open any more");
}

#[test]
fn whoever_watches_is_shown_the_numbers_and_samples_four_times_a_second() {
    let backend = Backend::answering(OK);
    let balancer = glass(&[&backend.url()], &[]);
    let mut viewer = Client::connect(admin(&balancer));
    viewer.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = viewer.read_head("GET");
    assert_eq!(head.get("Content-Type"), Some("text/event-stream"));
    let mut text = String::new();
    let mut sampled = false;
    while !sampled {
        assert_eq!(serve(&balancer, "GET /sampled HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
        text += std::str::from_utf8(&viewer.read_body_bytes(256)).unwrap();
        for event in text.split("\n\n").filter(|event| event.starts_with("event: stats\n")) {
            let Some(data) = event.lines().nth(1).and_then(|line| line.strip_prefix("data: ")) else { continue };
            let Ok(stats) = serde_json::from_str::<Value>(data) else { continue };
            let books = &stats["books"];
            let number = |name: &str| books[name].as_u64().unwrap();
            let sum: u64 = ["answered", "refused", "failed", "open"].map(number).iter().sum();
            assert_eq!(number("requests"), sum, "{books}");
            sampled = stats["samples"].as_array().unwrap().iter().any(|sample| {
                (&sample["target"], &sample["status"], &sample["backend"])
                    == (&"/sampled".into(), &200.into(), &backend.address().to_string().into())
            });
            assert_eq!(stats["viewers"], 1);
        }
    }
    assert!(text.starts_with("retry: "), "{text}");
}

#[test]
fn eight_may_watch_and_the_ninth_is_told_so() {
    let backend = Backend::answering(OK);
    let balancer = glass(&[&backend.url()], &[]);
    let watch = || {
        let mut viewer = Client::connect(admin(&balancer));
        viewer.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
        viewer
    };
    let mut viewers: Vec<Client> = (0..8).map(|_| watch()).collect();
    viewers.iter_mut().for_each(|viewer| _ = viewer.read_head("GET"));
    let refused = watch().read_response("GET");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.text().contains("8 are watching"), "{refused:?}");
    assert_eq!(stats(&balancer)["viewers"], 8);
    drop(viewers.pop());
    eventually(|| stats(&balancer)["viewers"] == 7, "one has left");
    watch().read_head("GET");
}

#[test]
fn it_is_not_ready_while_it_drains_or_has_no_backend_and_answers_to_the_end() {
    let gate = Gate::new();
    let backend = {
        let gate = gate.clone();
        Backend::start(move |connection| {
            while connection.read_request().is_some() {
                gate.pass();
                connection.send(OK.as_bytes());
            }
        })
    };
    let balancer = glass(&[&backend.url()], &[]);
    assert_eq!(get(&balancer, "/readyz").status, 200);
    let mut client = Client::connect(balancer.address());
    client.send(GET.as_bytes());
    backend.wait_for_requests(1);
    balancer.announce_drain();
    let unready = get(&balancer, "/readyz");
    assert_eq!((unready.status, unready.text().contains("draining")), (503, true), "{unready:?}");
    assert_eq!(get(&balancer, "/healthz").status, 200, "it is alive all the same");
    assert_eq!(stats(&balancer)["state"], "draining");
    let address = admin(&balancer);
    let mut viewer = Client::connect(address);
    viewer.send(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    viewer.read_head("GET");
    std::thread::scope(|scope| {
        let drain = scope.spawn(move || balancer.drain(support::PATIENCE));
        eventually(|| std::net::TcpStream::connect(address).is_ok(), "it listens");
        let mut asked = Client::connect(address);
        asked.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(asked.read_response("GET").status, 200);
        gate.open();
        assert_eq!(client.read_response("GET").status, 200);
        assert!(drain.join().unwrap(), "all was finished");
    });
    let (_, end) = viewer.try_to_end();
    assert!(end == End::Closed || end == End::Reset, "{end:?}");

    let alone = glass(&[&Backend::refusing().url()], &["--failures", "1"]);
    assert_eq!(get(&alone, "/readyz").status, 200, "nobody knows yet");
    assert_eq!(serve(&alone, GET), 502);
    let unready = get(&alone, "/readyz");
    assert_eq!((unready.status, unready.text().contains("no backend is up")), (503, true), "{unready:?}");
}
