//! The admin listener: what it tells, whom it tells it, and that nobody who asks slows a request down.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use program::Program;
use serde_json::Value;
use support::{Backend, Client, End, Folder, Gate, PATIENCE, Response, TempFile, balancer, each, eventually};
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

/// A balancer with so much to tell that no buffers on the way take `/metrics`.
fn talkative(backend: &Backend) -> (Balancer, TempFile) {
    let row = |nth| format!("[[backend]]\nurl = \"{}/{nth}\"\nname = \"{}{nth}\"\n", backend.url(), "x".repeat(240));
    let rows: String = (0..300).map(row).collect();
    let file = TempFile::new(format!("{rows}[admin]\nlisten = \"127.0.0.1:0\"\n"));
    let flags = ["--config", file.path(), "--listen", "127.0.0.1:0", "--access-log", "off"];
    (Balancer::start(threadbare::Config::from_args(flags).unwrap()).unwrap(), file)
}

#[test]
fn a_crowd_does_not_keep_a_probe_out_whatever_it_does() {
    let backend = Backend::answering(OK);
    let (balancer, _file) = talkative(&backend);
    // There is place for 64. In the time that each would have alone, such crowds would be here for half a minute and more.
    let ask = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let rows = [(400, "GET /healthz HTT", 0), (70, ask, 0), (70, ask, 1000)];
    each(rows, |(count, words, bytes_at_once)| {
        let crowd: Vec<TcpStream> = (0..count).map(|_| saying(admin(&balancer), words)).collect();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _end = EndOf(&is_over);
            scope.spawn(|| {
                crowd.iter().for_each(|member| member.set_nonblocking(true).unwrap());
                while !is_over.load(Ordering::Relaxed) {
                    let mut taken = vec![0; bytes_at_once];
                    crowd.iter().for_each(|mut member| _ = member.read(&mut taken));
                    std::thread::yield_now();
                }
            });
            let mut probe = saying(admin(&balancer), "GET /healthz HTTP/1.0\r\n\r\n");
            // Sixty answers of 3 MB are made meanwhile, by a debug build perhaps, beside other tests.
            probe.set_read_timeout(Some(2 * PATIENCE)).unwrap();
            let mut answer = String::new();
            probe.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        });
    });
}

#[test]
fn sixteen_have_time_to_take_an_answer() {
    let backend = Backend::answering(OK);
    let (balancer, _file) = talkative(&backend);
    let mut slow: Vec<Client> = (0..16).map(|_| Client::connect(admin(&balancer))).collect();
    slow.iter_mut().for_each(|client| client.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    slow.iter_mut().for_each(|client| _ = client.read_head("GET"));
    std::thread::sleep(Duration::from_millis(600)); // not a wait for something: their slowness is what is tried
    each(slow.iter_mut().enumerate(), |(nth, client)| {
        assert!(client.read_rest().body.len() > 3_000_000, "the {nth}th");
    });
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

/// What each value of this is called: within a list, beginning at its entries.
fn names_in(value: &Value, path: &str, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            fields.iter().for_each(|(name, value)| names_in(value, &below(name), names));
        }
        Value::Array(entries) => entries.iter().for_each(|entry| names_in(entry, "", names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => _ = names.insert(path.to_owned()),
    }
}

#[test]
fn the_tables_leave_out_nothing_of_the_json() {
    let backend = Backend::answering(OK);
    let balancer = glass(&[&backend.url()], &[]);
    let has_samples = || {
        assert_eq!(serve(&balancer, GET), 200);
        stats(&balancer)["samples"] != Value::Array(Vec::new())
    };
    eventually(has_samples, "a request is sampled, since somebody asks for the numbers");
    let mut json = stats(&balancer);
    for told_in_other_words in ["events", "reasons", "now_ms"] {
        json.as_object_mut().unwrap().remove(told_in_other_words).unwrap();
    }
    let mut names = BTreeSet::new();
    names_in(&json, "", &mut names);
    assert!(names.len() > 60, "{names:?}");
    let page = get(&balancer, "/table").text();
    let titles: BTreeSet<String> =
        page.split("title=\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    assert_eq!(names, titles);
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
fn it_is_ready_again_when_a_backend_may_be_tried_though_no_request_comes() {
    let refusing = Backend::refusing();
    let balancer = glass(&[&refusing.url()], &["--failures", "1"]);
    let is_ready = || get(&balancer, "/readyz").status == 200;
    let fails = || {
        let mut client = Client::connect(balancer.address());
        client.send(GET.as_bytes());
        client.read_response("GET").status == 502 && !is_ready()
    };
    eventually(fails, "its only backend is out");
    eventually(
        is_ready,
        "whoever is to send requests here would never know that it is back, if they were to wait for it",
    );
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

const TOKEN: &str = "0123456789abcdef";

/// A balancer with two named backends, from a file that knows a token.
struct Named {
    balancer: Balancer,
    config: threadbare::Config,
    _file: TempFile,
}

impl Named {
    fn start(backends: [&Backend; 2], token: &str) -> Named {
        let rows = backends.iter().zip(["a", "b/c"]);
        let rows: String = rows
            .map(|(backend, name)| format!("[[backend]]\nurl = \"{}\"\nname = \"{name}\"\n", backend.url()))
            .collect();
        let file = TempFile::new(format!("{rows}[admin]\nlisten = \"127.0.0.1:0\"\n{token}\n"));
        let flags = ["--config", file.path(), "--listen", "127.0.0.1:0", "--access-log", "off"];
        let config = threadbare::Config::from_args(flags).unwrap();
        Named { balancer: Balancer::start(config.clone()).unwrap(), config, _file: file }
    }

    fn order(&self, order: &str, fields: &str) -> Response {
        ask(&self.balancer, &format!("POST /backends/{order} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"))
    }

    fn states(&self) -> Vec<String> {
        let stats = stats(&self.balancer);
        let rows = stats["backends"].as_array().unwrap();
        rows.iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn an_order_takes_the_token_and_nothing_else_will_do() {
    let backends = [Backend::answering(OK), Backend::answering(OK)];
    let named = Named::start(backends.each_ref(), &format!("token = \"{TOKEN}\""));
    let rows: &[(&str, &str, u16, &str)] = &[
        ("a/drain", "", 401, "Bearer TOKEN"),
        ("a/drain", "Authorization: Basic MDEyMzQ1Njc4OWFiY2RlZg==\r\n", 401, "Bearer TOKEN"),
        ("a/drain", "Authorization: Bearer\r\n", 401, "Bearer TOKEN"),
        ("a/drain", "Authorization: Bearer 0123456789abcdeg\r\n", 403, "not the token"),
        ("a/drain", "Authorization: Bearer 0123456789abcde\r\n", 403, "not the token"),
        ("a/drain", "Authorization: Bearer 0123456789abcdef0\r\n", 403, "not the token"),
        ("a/drain", "Authorization: Bearer 0123456789abcdef\r\nOrigin: http://localhost\r\n", 403, "from a web page"),
        ("a/drain", "Authorization: Bearer 0123456789abcdef\r\nContent-Length: 1\r\n", 413, "no"),
        ("x/drain", "Authorization: Bearer 0123456789abcdef\r\n", 404, "no backend \"x\""),
        ("a/kill", "Authorization: Bearer 0123456789abcdef\r\n", 404, "/backends/NAME/drain or ready"),
    ];
    each(rows, |(order, fields, status, words)| {
        let answer = named.order(order, fields);
        assert_eq!(answer.status, *status, "{answer:?}");
        assert!(answer.text().contains(words), "no {words:?} in {answer:?}");
        assert_eq!(answer.head.get("WWW-Authenticate").is_some(), *status == 401, "{answer:?}");
    });
    assert_eq!(named.states(), ["up", "up"]);
    let without = Named::start(backends.each_ref(), "");
    let refused = without.order("a/drain", "Authorization: Bearer 0123456789abcdef\r\n");
    assert_eq!((refused.status, refused.text().contains("no admin.token")), (403, true), "{refused:?}");
}

#[test]
fn what_is_ordered_holds_at_once_and_until_the_next_reload() {
    let backends = [Backend::answering(OK), Backend::answering(OK)];
    let named = Named::start(backends.each_ref(), &format!("token = \"{TOKEN}\""));
    let token = format!("Authorization: bearer {TOKEN}\r\n");
    let asked = || backends.each_ref().map(|backend| backend.requests().len());
    let serve_eight = || {
        let before = asked();
        (0..8).for_each(|_| assert_eq!(serve(&named.balancer, GET), 200));
        let after = asked();
        [after[0] - before[0], after[1] - before[1]]
    };
    assert_eq!(serve_eight(), [4, 4]);
    assert_eq!(named.order("b%2Fc/drain", &token).text(), "b/c: drain\n");
    assert_eq!(serve_eight(), [8, 0]);
    assert_eq!(named.states(), ["up", "drain"]);
    assert_eq!(named.order("b/c/drain", &token).text(), "b/c: drain, as before\n");
    assert_eq!(named.order("b/c/ready", &token).text(), "b/c: ready\n");
    assert_eq!(serve_eight(), [4, 4]);
    named.order("a/drain", &token);
    assert_eq!(serve_eight(), [0, 8]);
    named.balancer.reload(named.config.reload().unwrap()).unwrap();
    assert_eq!(named.states(), ["up", "up"], "the file says so");
    assert_eq!(serve_eight(), [4, 4]);
    let stats = stats(&named.balancer);
    let told: Vec<&str> =
        stats["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(told, ["started", "drain", "drain", "drain", "reloaded"]);
    assert_eq!(stats["reloads"], serde_json::json!({"done": 1, "refused": 0, "last_error": null}));
    named.balancer.reload_refused("what is wrong\nand where");
    let reloads = &self::stats(&named.balancer)["reloads"];
    assert_eq!(*reloads, serde_json::json!({"done": 1, "refused": 1, "last_error": "what is wrong\nand where"}));
}

/// A client that says this, behind as small a buffer as the kernel gives.
fn saying(address: SocketAddr, words: &str) -> TcpStream {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let mut client = TcpStream::from(socket);
    client.write_all(words.as_bytes()).unwrap();
    client
}

/// Ends what looks at this, also where the test fails.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn nobody_who_asks_holds_a_request_up_and_who_does_not_read_is_dropped() {
    // With so many backends a few sets of numbers fill every buffer.
    let backend = Backend::answering(OK);
    let mut urls = vec![backend.url()];
    urls.extend((0..40).map(|nth| format!("{}/{nth}", backend.url())));
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let balancer = glass(&urls, &["--workers", "2"]);
    let watch = "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let viewers: Vec<TcpStream> = (0..8).map(|_| saying(admin(&balancer), watch)).collect();
    eventually(|| stats(&balancer)["viewers"] == 8, "all of them watch");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let end = EndOf(&is_over);
        for path in ["/metrics", "/stats.json", "/", "/readyz"] {
            let (balancer, is_over) = (&balancer, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(get(balancer, path).status, 200);
                }
            });
        }
        let mut client = Client::connect(balancer.address());
        for _ in 0..1000 {
            client.send(GET.as_bytes());
            assert_eq!(client.read_response("GET").status, 200);
        }
        drop(end);
    });
    eventually(|| stats(&balancer)["viewers"] == 0, "nobody who does not read is a viewer for long");
    drop(viewers);

    // Now nobody gets through to the admin listener at all: every place is taken by half a head.
    let mut half: Vec<Client> = (0..16).map(|_| Client::connect(admin(&balancer))).collect();
    half.iter_mut().for_each(|client| client.send(b"GET /healthz HTTP/1.1\r\n"));
    let mut waiting = Client::connect(admin(&balancer));
    waiting.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut client = Client::connect(balancer.address());
    for _ in 0..200 {
        client.send(GET.as_bytes());
        assert_eq!(client.read_response("GET").status, 200);
    }
    half.truncate(8);
    assert_eq!(waiting.read_response("GET").status, 200, "as soon as there is a place");
}

#[test]
fn a_newer_process_takes_the_admin_listener_over_too() {
    let backend = Backend::answering(OK);
    let folder = Folder::new();
    let socket = folder.path("handover.sock");
    let [listen, page] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], program::free_port())).to_string());
    let flags = ["--listen", &listen, "--admin", &page, "--handover", &socket, &backend.url()];
    let mut old = Program::listening(program::command().args(flags));
    let new = Program::listening(program::command().args(flags));
    assert_eq!(old.exit_code(), 0, "it has drained");
    let mut client = Client::connect(page.parse().unwrap());
    client.send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.read_response("GET").status, 200, "the new one is not draining");
    drop(new);
}

#[test]
fn an_address_that_others_can_reach_is_refused_unless_it_is_meant() {
    let refused = program::run(&["--admin", "0.0.0.0:0", "127.0.0.1:9"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    for words in ["--admin 0.0.0.0:0", "from other machines", "127.0.0.1", "--admin-anywhere on"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    let backend = Backend::answering(OK);
    let balancer = balancer(&[&backend.url()], &["--admin", "0.0.0.0:0", "--admin-anywhere", "on"]);
    assert!(balancer.admin_address().unwrap().ip().is_unspecified());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = program::run(&["--listen", "127.0.0.1:0", "--admin", &address, "127.0.0.1:9"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.contains(&format!("can't listen on {address}"))), (Some(1), true), "{said}");
}
