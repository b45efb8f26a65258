//! The answers that are ours and no backend's: what they say, what they look like, and that they arrive.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use std::time::{Duration, SystemTime};

use support::{Backend, Client, Framing, balancer, each, eventually, show};
use threadbare::Balancer;

/// A way to be answered by us: what the backend does, what the balancer is told, what the client says.
struct Case {
    status: u16,
    /// The reason word, where there is only one that fits.
    word: &'static str,
    backend: fn() -> Backend,
    flags: &'static [&'static str],
    request: String,
    /// Whether what came is no request that another could follow.
    closes: bool,
}

impl Case {
    fn start(&self) -> (Backend, Balancer) {
        let backend = (self.backend)();
        let balancer = balancer(&[&backend.url()], self.flags);
        (backend, balancer)
    }

    fn method(&self) -> &'static str {
        if self.request.starts_with("HEAD ") { "HEAD" } else { "GET" }
    }
}

/// Reads a request and leaves without a word.
fn speechless() -> Backend {
    Backend::start(|connection| {
        connection.read_request();
    })
}

/// Reads requests and never answers.
fn silent() -> Backend {
    Backend::start(|connection| while connection.read_request().is_some() {})
}

/// Answers with something that is no HTTP.
fn babbling() -> Backend {
    Backend::start(|connection| {
        connection.read_request();
        connection.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n");
    })
}

/// One case for every answer that can be had in a moment; `method` is GET or HEAD.
fn cases(method: &str) -> Vec<Case> {
    let head = |lines: &str| format!("{method} / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let refused = |status, word, request| Case {
        status,
        word,
        backend: Backend::echo,
        flags: &[],
        request,
        closes: matches!(status, 400 | 414 | 431 | 501 | 505),
    };
    let failed = |status, word, backend, flags| Case {
        status,
        word,
        backend,
        flags,
        request: format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"),
        closes: false,
    };
    let vias = "Via: 1.1 threadbare\r\n".repeat(10);
    vec![
        refused(400, "bad-request", format!("{method} / HTTP/1.1\r\n\r\n")),
        refused(400, "bad-request", head("X : y\r\n")),
        refused(400, "bad-request", head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")),
        refused(414, "", format!("{method} /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(9000))),
        refused(417, "", head("Expect: x\r\nContent-Length: 1\r\n") + "y"),
        refused(421, "", format!("{method} https://a/ HTTP/1.1\r\nHost: a\r\n\r\n")),
        refused(431, "", head(&"X: y\r\n".repeat(101))),
        refused(501, "", head("Transfer-Encoding: gzip\r\n")),
        refused(505, "", format!("{method} / HTTP/2.0\r\nHost: a\r\n\r\n")),
        refused(508, "", head(&vias)),
        failed(502, "backend-refused", Backend::refusing, &[]),
        failed(502, "backend-closed-before-response", speechless, &[]),
        failed(502, "", babbling, &[]),
        failed(504, "backend-head-timeout", silent, &["--response-head-timeout", "200ms"]),
        Case {
            closes: true,
            request: format!("{method} / HTTP/1.1\r\nHost: a\r\n"),
            ..failed(408, "client-head-timeout", Backend::echo, &["--head-timeout", "200ms"])
        },
    ]
}

#[test]
fn an_answer_of_ours_is_one_line_of_plain_text_with_the_reason_and_the_request() {
    each(cases("GET"), |case| {
        let (_backend, balancer) = case.start();
        let mut client = Client::connect(balancer.address());
        client.send(case.request.as_bytes());
        let response = client.read_response("GET");
        let story = client.story();
        assert_eq!(response.status, case.status, "{story}");
        assert!(!response.reason.is_empty(), "a reason phrase, for people: {story}");
        let content_type = response.head.get("Content-Type").unwrap_or_default();
        assert_eq!(content_type.split(';').next().unwrap(), "text/plain", "{story}");
        assert_eq!(response.framing, Framing::Length(response.body.len().try_into().unwrap()), "{story}");
        let text = response.text();
        assert_eq!(text.trim_end_matches('\n').lines().count(), 1, "one line: {story}");
        assert!(text.contains(case.word), "not {}: {story}", case.word);
    });
}

#[test]
fn an_answer_of_ours_has_the_date() {
    each(cases("GET"), |case| {
        let (_backend, balancer) = case.start();
        let mut client = Client::connect(balancer.address());
        client.send(case.request.as_bytes());
        let response = client.read_response("GET");
        let date = response.head.get("Date").unwrap_or_else(|| panic!("no Date: {}", client.story()));
        let time = httpdate::parse_http_date(date).unwrap_or_else(|error| panic!("{date:?}: {error}"));
        assert_eq!(httpdate::fmt_http_date(time), date, "the one format there is");
        let now = SystemTime::now();
        let apart = now.duration_since(time).or_else(|_| time.duration_since(now)).unwrap();
        assert!(apart < Duration::from_secs(60), "{date:?} is {apart:?} from now");
    });
}

#[test]
fn an_answer_of_ours_says_truly_whether_the_connection_stays() {
    each(cases("GET"), |case| {
        let (_backend, balancer) = case.start();
        let mut client = Client::connect(balancer.address());
        client.send(case.request.as_bytes());
        let response = client.read_response("GET");
        assert!(response.closes() || !case.closes, "the close is not announced: {}", client.story());
        if response.closes() {
            client.expect_closed();
        } else {
            client.send(b"GET / HTTP/1.1\r\nX: no-host\r\n\r\n");
            client.expect_refusal(&[400]);
        }
    });
}

#[test]
fn an_answer_of_ours_to_head_has_no_body() {
    each(cases("HEAD"), |case| {
        let (_backend, balancer) = case.start();
        let mut client = Client::connect(balancer.address());
        client.send(case.request.as_bytes());
        let response = client.read_response(case.method());
        assert_eq!(response.status, case.status, "{}", client.story());
        // Were there a body, it would stand where the end of the connection or the next answer is looked for.
        if response.closes() {
            client.expect_closed();
        } else {
            client.send(b"GET / HTTP/1.1\r\nX: no-host\r\n\r\n");
            client.expect_refusal(&[400]);
        }
    });
}

#[test]
fn an_answer_to_http_1_0_closes_unless_it_was_asked_not_to() {
    let backend = Backend::refusing();
    let balancer = balancer(&[&backend.url()], &[]);
    let mut client = Client::connect(balancer.address());
    client.send(b"GET / HTTP/1.0\r\n\r\n");
    let response = client.read_response("GET");
    assert_eq!(response.status, 502, "{}", client.story());
    assert!(response.closes() && response.framing != Framing::UntilClose, "{}", client.story());
    client.expect_closed();
}

// The request's name.

#[test]
fn every_answer_of_ours_names_another_request() {
    let backend = Backend::refusing();
    let balancer = balancer(&[&backend.url()], &[]);
    // The same words for the same fault, so what tells two answers apart is the name.
    let mut texts = Vec::new();
    for _request in 0..20 {
        let mut client = Client::connect(balancer.address());
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        texts.push(client.read_response("GET").text());
        let mut client = Client::connect(balancer.address());
        client.send(b"no request\r\n\r\n");
        texts.push(client.read_response("GET").text());
    }
    texts.sort();
    texts.dedup();
    assert_eq!(texts.len(), 40, "{texts:?}");
}

#[test]
fn the_id_that_a_client_gave_is_the_one_that_is_named() {
    let backend = Backend::refusing();
    let balancer = balancer(&[&backend.url()], &[]);
    each(["my-request.7", "0123456789abcdef", &"y".repeat(128)], |id| {
        let mut client = Client::connect(balancer.address());
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\n\r\n").as_bytes());
        assert!(client.read_response("GET").text().contains(id), "{}", client.story());
    });
}

#[test]
fn what_a_client_sent_is_not_repeated_to_it() {
    // An answer that quotes the request is a way to put words into somebody's mouth.
    let backend = Backend::refusing();
    let balancer = balancer(&[&backend.url()], &[]);
    let markup = "<script>alert(1)</script>";
    let requests = [
        format!("GET /{markup} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {markup}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{markup}: y\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: {markup}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {markup}\r\n\r\n"),
        format!("GET / {markup}\r\nHost: a\r\n\r\n"),
        format!("{markup} / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    each(requests, |request| {
        let mut client = Client::connect(balancer.address());
        client.send(request.as_bytes());
        let response = client.read_response("GET");
        assert!(!show(&response.head.raw).contains(markup) && !response.text().contains(markup), "{}", client.story());
    });
}

// Max-Forwards.

#[test]
fn a_request_that_may_go_no_further_is_answered_here() {
    let backend = Backend::echo();
    let balancer = balancer(&[&backend.url()], &[]);
    let rows = [("OPTIONS /", 200), ("OPTIONS *", 200), ("TRACE /", 501)];
    each(rows, |(line, status)| {
        let mut client = Client::connect(balancer.address());
        client.send(format!("{line} HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n").as_bytes());
        let response = client.read_response("GET");
        assert_eq!(response.status, status, "{}", client.story());
        assert!(status != 200 || response.body.is_empty(), "{}", client.story());
        assert!(response.head.get("Date").is_some(), "{}", client.story());
        assert_eq!(balancer.counters().dials, 0, "a backend was bothered: {}", client.story());
    });
}

#[test]
fn a_request_that_may_go_further_goes_one_step_less() {
    let backend = Backend::echo();
    let balancer = balancer(&[&backend.url()], &[]);
    let rows =
        [("OPTIONS", "1", "0"), ("OPTIONS", "10", "9"), ("TRACE", "7", "6"), ("GET", "0", "0"), ("GET", "5", "5")];
    each(rows, |(method, sent, came)| {
        let mut client = Client::connect(balancer.address());
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: {sent}\r\n\r\n").as_bytes());
        assert_eq!(client.read_response("GET").status, 200, "{}", client.story());
        let received = backend.requests().pop().unwrap();
        assert_eq!(received.head.get("Max-Forwards"), Some(came), "{}", client.story());
    });
}

// An answer is not lost to what the client is still saying.

#[test]
fn an_answer_arrives_though_the_client_has_more_to_say() {
    type Start = fn() -> Backend;
    let megabyte = "y".repeat(1024 * 1024);
    let rows: [(Start, String, u16); 6] = [
        (Backend::echo, format!("no request\r\n\r\n{megabyte}"), 400),
        (Backend::echo, format!("GET / HTTP/1.1\r\nX: no-host\r\n\r\n{megabyte}"), 400),
        (Backend::echo, format!("GET /{megabyte} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (Backend::echo, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {megabyte}\r\n\r\n"), 431),
        (
            Backend::echo,
            format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 1048576\r\n\r\n{megabyte}"),
            417,
        ),
        (Backend::refusing, format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\n{megabyte}"), 502),
    ];
    each(rows, |(backend, request, status)| {
        let backend = backend();
        let balancer = balancer(&[&backend.url()], &[]);
        let mut client = Client::connect(balancer.address());
        // All of it before the first look at what came back: a close that is not gentle resets, and the answer is gone.
        client.send(request.as_bytes());
        let response = client.read_response("POST");
        assert_eq!(response.status, status, "{}", client.story());
        if response.closes() {
            client.expect_closed();
        }
        drop(client);
        eventually(|| balancer.counters().connections == 0, "the client's connection is forgotten");
    });
}

#[test]
fn a_client_that_never_stops_is_left_in_the_end() {
    let backend = Backend::echo();
    let balancer = balancer(&[&backend.url()], &[]);
    let mut client = Client::connect(balancer.address());
    client.send(b"no request\r\n\r\n");
    // It neither reads nor closes, so only a bound can end this. What the system's buffers take is no more than this.
    let megabyte = vec![b'y'; 1024 * 1024];
    assert!((0..64).any(|_| !client.try_send(&megabyte)), "64 MiB were taken behind a refusal");
    eventually(|| balancer.counters().connections == 0, "the connection is forgotten, though the client is there");
}

#[test]
fn a_client_that_never_leaves_is_left_in_the_end() {
    let backend = Backend::echo();
    let balancer = balancer(&[&backend.url()], &[]);
    let mut client = Client::connect(balancer.address());
    client.send(b"no request\r\n\r\n");
    client.expect_refusal(&[400]);
    eventually(|| balancer.counters().connections == 0, "the connection is forgotten, though the client is there");
}
