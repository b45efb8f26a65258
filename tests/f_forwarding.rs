//! What passes from one side to the other: which fields go on, which end here, and which are ours.
//!
//! In both directions, and for every field the question is the same: is it for the next hop or for us? Our own fields
//! are written when that has been decided, so nobody can name them away.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, TcpListener};

use support::{Backend, Client, Fields, Framing, Head, Received, Response, balancer, each, eventually};
use threadbare::Balancer;

/// Fields that we write ourselves, on requests.
const OURS: [&str; 6] =
    ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "X-Request-Id", "Via"];

/// A balancer before one backend.
struct House {
    balancer: Balancer,
    backend: Backend,
}

impl House {
    fn new(flags: &[&str]) -> Self {
        Self::before(Backend::echo(), flags)
    }

    fn before(backend: Backend, flags: &[&str]) -> Self {
        let balancer = balancer(&[&backend.url()], flags);
        Self { balancer, backend }
    }

    fn client(&self) -> Client {
        Client::connect(self.balancer.address())
    }

    /// This request as the backend got it.
    fn passes(&self, request: impl AsRef<[u8]>) -> Received {
        let mut client = self.client();
        client.send(request.as_ref());
        let response = client.read_response("GET");
        assert_eq!(response.status, 200, "{}", client.story());
        self.backend.requests().pop().unwrap()
    }

    /// A GET with these lines, as the backend got it.
    fn passes_with(&self, lines: &str) -> Received {
        self.passes(with_lines(lines))
    }
}

/// A GET with these lines, each with its CRLF.
fn with_lines(lines: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET / HTTP/1.1\r\nHost: a\r\n", lines.as_ref(), b"\r\n"].concat()
}

/// What a client gets of a response with these lines, each with its CRLF, that asked with those.
fn response_with(lines: impl AsRef<[u8]>, asking: &str, flags: &[&str]) -> (Response, String) {
    let said = [b"HTTP/1.1 200 OK\r\n", lines.as_ref(), b"Content-Length: 5\r\n\r\nhello"].concat();
    ask(said, &format!("GET / HTTP/1.1\r\nHost: a\r\n{asking}\r\n"), flags)
}

/// What a client gets if this is what the backend says, and the story of it.
fn ask(said: impl Into<Vec<u8>>, request: &str, flags: &[&str]) -> (Response, String) {
    let house = House::before(Backend::answering(said), flags);
    let mut client = house.client();
    client.send(request.as_bytes());
    let response = client.read_response(request.split(' ').next().unwrap());
    (response, client.story())
}

/// The members of a list field, over all its lines.
fn members(fields: &Fields, name: &str) -> Vec<String> {
    let members = fields.all(name).into_iter().flat_map(|value| value.split(','));
    members.map(|member| member.trim().to_owned()).filter(|member| !member.is_empty()).collect()
}

/// All fields but those with these names.
fn without(head: &Head, names: &[&str]) -> Vec<(String, String)> {
    let is_left = |name: &str| !names.iter().any(|n| n.eq_ignore_ascii_case(name));
    head.fields.0.iter().filter(|(name, _)| is_left(name)).cloned().collect()
}

fn pairs(lines: &[(&str, &str)]) -> Vec<(String, String)> {
    lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

// Fields that end here.

/// Lines, and the names that must not be seen behind us.
const HOP_BY_HOP: [(&str, &[&str]); 20] = [
    ("Connection: keep-alive\r\n", &["Connection"]),
    ("Keep-Alive: timeout=5, max=100\r\n", &["Keep-Alive"]),
    ("KEEP-ALIVE: timeout=5\r\nKeep-alive: max=1\r\n", &["Keep-Alive"]),
    ("Proxy-Connection: keep-alive\r\n", &["Proxy-Connection"]),
    ("Proxy-Authenticate: Basic realm=\"x\"\r\n", &["Proxy-Authenticate"]),
    ("Proxy-Authorization: Basic eDp5\r\n", &["Proxy-Authorization"]),
    ("proxy-authorization: Basic eDp5\r\n", &["Proxy-Authorization"]),
    ("TE: gzip;q=0.5\r\n", &["TE", "Connection"]),
    ("TE: gzip\r\nConnection: TE\r\n", &["TE", "Connection"]),
    ("Upgrade: chat\r\n", &["Upgrade", "Connection"]),
    ("Connection: x-hop\r\nX-Hop: 1\r\n", &["X-Hop", "Connection"]),
    ("X-Hop: 1\r\nConnection: x-hop\r\n", &["X-Hop", "Connection"]),
    ("Connection: X-HOP\r\nx-hop: 1\r\nX-Hop: 2\r\nx-Hop: 3\r\n", &["X-Hop", "Connection"]),
    ("Connection: x-a, x-b\r\nX-A: 1\r\nX-B: 2\r\n", &["X-A", "X-B", "Connection"]),
    ("Connection: x-a\r\nX-A: 1\r\nConnection: x-b\r\nX-B: 2\r\n", &["X-A", "X-B", "Connection"]),
    ("Connection: ,, \t x-a\t,,x-b,\r\nX-A: 1\r\nX-B: 2\r\n", &["X-A", "X-B", "Connection"]),
    ("Connection: keep-alive, x-a\r\nX-A: 1\r\n", &["X-A", "Connection"]),
    ("Connection: cookie, set-cookie\r\nCookie: c\r\nSet-Cookie: c\r\n", &["Cookie", "Set-Cookie", "Connection"]),
    ("Connection: x-not-there\r\n", &["X-Not-There", "Connection"]),
    ("Connection: cache-control, accept\r\nCache-Control: x\r\nAccept: y\r\n", &["Cache-Control", "Accept"]),
];

#[test]
fn hop_by_hop_fields_of_a_request_end_here() {
    let house = House::new(&[]);
    each(HOP_BY_HOP, |(lines, names)| {
        let received = house.passes_with(&format!("X-First: 1\r\n{lines}X-Last: 2\r\n"));
        for name in names {
            assert!(received.head.all(name).is_empty(), "{name} came through: {received:?}");
        }
        let seen = (received.head.get("X-First"), received.head.get("X-Last"));
        assert_eq!(seen, (Some("1"), Some("2")), "around {lines:?}: {received:?}");
    });
}

#[test]
fn hop_by_hop_fields_of_a_response_end_here() {
    each(HOP_BY_HOP, |(lines, names)| {
        let (response, story) = response_with(format!("X-First: 1\r\n{lines}X-Last: 2\r\n"), "", &[]);
        assert_eq!((response.status, &*response.text()), (200, "hello"), "{story}");
        for name in names {
            assert!(response.head.all(name).is_empty(), "{name} came through: {story}");
        }
        assert_eq!((response.head.get("X-First"), response.head.get("X-Last")), (Some("1"), Some("2")), "{story}");
    });
}

#[test]
fn hop_by_hop_fields_end_with_every_kind_of_message() {
    let lines = "Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n";
    let rows = [
        ("GET", format!("HTTP/1.1 407 Proxy Authentication Required\r\n{lines}Content-Length: 0\r\n\r\n")),
        ("GET", format!("HTTP/1.1 204 No Content\r\n{lines}\r\n")),
        ("GET", format!("HTTP/1.1 304 Not Modified\r\n{lines}\r\n")),
        ("HEAD", format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 5\r\n\r\n")),
        ("GET", format!("HTTP/1.1 200 OK\r\n{lines}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
    ];
    each(rows, |(method, said)| {
        let (response, story) = ask(said, &format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"), &[]);
        for name in ["X-Hop", "Keep-Alive", "Proxy-Authenticate", "Connection"] {
            assert_eq!(response.head.get(name), None, "{story}");
        }
    });
}

#[test]
fn hop_by_hop_fields_of_an_interim_response_end_here() {
    let said = "HTTP/1.1 103 Early Hints\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nLink: </x>\r\n\r\n\
                HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let house = House::before(
        Backend::start(move |connection| {
            while connection.read_request().is_some() {
                connection.send(said.as_bytes());
            }
        }),
        &[],
    );
    let mut client = house.client();
    client.send(&with_lines(""));
    let interim = client.read_interim();
    assert_eq!(interim.head.get("Link"), Some("</x>"), "{}", client.story());
    for name in ["X-Hop", "Keep-Alive", "Connection"] {
        assert_eq!(interim.head.get(name), None, "{}", client.story());
    }
}

#[test]
fn connection_may_not_name_what_every_hop_needs() {
    let names =
        ["Host", "host", "Content-Length", "CONTENT-LENGTH", "Transfer-Encoding", "Authorization", "authorization"];
    let rows = names.into_iter().flat_map(|name| {
        [format!("Connection: {name}\r\n"), format!("Connection: keep-alive, {name}\r\nAuthorization: x\r\n")]
    });
    each(rows, |lines| {
        let house = House::new(&[]);
        let mut client = house.client();
        client.send(&with_lines(&lines));
        client.expect_refusal(&[400]);
        assert_eq!(house.balancer.counters().dials, 0, "a backend was bothered: {}", client.story());
        let (response, story) = response_with(&lines, "", &[]);
        let needs_it = lines.to_lowercase().contains("content-length");
        assert_eq!(response.status, if needs_it { 502 } else { 200 }, "{story}");
    });
    // Some servers say so of what they send in chunks, which end here all the same.
    let said =
        "HTTP/1.1 200 OK\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let house = House::before(Backend::answering(said), &[]);
    let mut client = house.client();
    client.send(&with_lines(""));
    assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
}

#[test]
fn where_a_request_came_from_is_told_by_no_stranger_whatever_the_field() {
    for (flags, passes) in [(&[][..], false), (TRUSTED, true)] {
        each(
            ["X-Forwarded-Port", "X-Forwarded-Ssl", "x-forwarded-prefix", "X_Forwarded_User", "X-Forwarded-"],
            |name| {
                let received = House::new(flags).passes_with(&format!("{name}: x\r\nX-Forwarder: y\r\n"));
                assert_eq!(received.head.all(name).len(), usize::from(passes), "{name} {flags:?}");
                assert_eq!(received.head.get("X-Forwarder"), Some("y"));
            },
        );
    }
}

#[test]
fn an_earlier_hop_that_left_a_quote_open_does_not_swallow_what_we_say() {
    let rows =
        [("for=\"1.2.3.4", false), ("for=\"a\\\"", false), ("for=\"a\\", false), ("for=\"[::1]\", for=\"\\\"\"", true)];
    each(rows, |(said, passes)| {
        let received = House::new(TRUSTED).passes_with(&format!("Forwarded: {said}\r\n"));
        let ours = "for=127.0.0.1;host=a;proto=http";
        let expected = if passes { format!("{said}, {ours}") } else { ours.to_owned() };
        assert_eq!(received.head.all("Forwarded"), [expected]);
    });
}

#[test]
fn a_backend_that_closes_does_not_close_the_client() {
    let lines =
        ["Connection: close\r\n", "Connection: keep-alive, close\r\n", "Connection: x\r\nConnection: Close\r\n"];
    each(lines, |lines| {
        let (response, story) = response_with(lines, "", &[]);
        assert_eq!(response.head.get("Connection"), None, "{story}");
    });
}

#[test]
fn a_client_that_closes_does_not_close_the_backend() {
    let house = House::new(&[]);
    for _again in 0..3 {
        assert_eq!(house.passes_with("Connection: close\r\n").head.get("Connection"), None);
        eventually(|| house.balancer.counters().connections == 0, "the client has left");
    }
    assert_eq!(house.backend.accepted(), 1);
}

// Fields that go on.

#[test]
fn every_other_field_of_a_request_passes_in_its_order_its_case_and_its_repetitions() {
    let house = House::new(&[]);
    let lines = [
        ("Accept", "text/html, */*;q=0.1"),
        ("accept-ENCODING", "gzip"),
        ("Cookie", "a=1; b=2"),
        ("X-Twice", "1"),
        ("cookie", "c=3"),
        ("X-Empty", ""),
        ("X-Twice", "2"),
        ("x-twice", "2"),
        ("Authorization", "Bearer x.y.z"),
        ("If-None-Match", "\"a\", W/\"b\""),
        ("Range", "bytes=0-4"),
        ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("Expires", "-1"),
        ("Sec-WebSocket-Key", "x"),
        ("X-Real-IP", "1.2.3.4"),
        ("True-Client-IP", "1.2.3.4"),
        ("!#$%&'*+-.^_`|~09", "every character of a token"),
        ("X-Quoted", "\"a, b\\\"; c\" (d)"),
        ("X-Tab", "a\tb"),
        ("X-Latin", "Sch\u{f6}n \u{ff}\u{80}"),
        ("Origin", "null"),
        ("Priority", "u=1"),
    ];
    let text: Vec<u8> = lines
        .iter()
        .flat_map(|(name, value)| format!("{name}: {value}\r\n").chars().collect::<Vec<_>>())
        .map(|char| u8::try_from(u32::from(char)).unwrap())
        .collect();
    let received = house.passes(with_lines(text));
    let passed = without(&received.head, &[&OURS[..], &["Host"]].concat());
    assert_eq!(passed, pairs(&lines), "{received:?}");
}

#[test]
fn every_other_field_of_a_response_passes_in_its_order_its_case_and_its_repetitions() {
    let lines = [
        ("Server", "Some/1.0 (thing)"),
        ("Set-Cookie", "a=1; Path=/, no"),
        ("Content-Type", "text/html; charset=\"utf-8\""),
        ("set-cookie", "b=2; Expires=Wed, 21 Oct 2015 07:28:00 GMT"),
        ("Set-Cookie", "a=1; Path=/, no"),
        ("X-Empty", ""),
        ("WWW-Authenticate", "Basic realm=\"x\", Digest realm=\"y\""),
        ("www-authenticate", "Negotiate"),
        ("ETag", "W/\"x\""),
        ("Vary", "*"),
        ("X-Latin", "Sch\u{f6}n \u{ff}\u{80}"),
        ("X-Tab", "a\tb"),
        ("X-Request-Id", "theirs"),
        ("X-Forwarded-For", "theirs"),
        ("Forwarded", "for=theirs"),
        ("Host", "theirs"),
        ("Max-Forwards", "7"),
        ("Expect", "nothing"),
        ("Accept-Ranges", "bytes"),
        ("Age", "12"),
        ("Strict-Transport-Security", "max-age=1"),
        ("!#$%&'*+-.^_`|~09", "every character of a token"),
    ];
    let text: Vec<u8> = lines
        .iter()
        .flat_map(|(name, value)| format!("{name}: {value}\r\n").chars().collect::<Vec<_>>())
        .map(|char| u8::try_from(u32::from(char)).unwrap())
        .collect();
    let (response, story) = response_with(text, "", &[]);
    assert_eq!(without(&response.head, &["Date", "Via", "Content-Length"]), pairs(&lines), "{story}");
}

#[test]
fn traceparent_passes_untouched() {
    let house = House::new(&[]);
    let values = [
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "01-0AF7-not-valid-at-all",
        "00-00000000000000000000000000000000-0000000000000000-00",
        "",
    ];
    each(values, |value| {
        let received =
            house.passes_with(&format!("traceparent: {value}\r\ntracestate: a=b,c=d\r\nTraceState: e=f\r\n"));
        assert_eq!(received.head.get("traceparent"), Some(value), "{received:?}");
        assert_eq!(received.head.all("tracestate"), ["a=b,c=d", "e=f"], "{received:?}");
    });
    assert_eq!(house.passes_with("").head.get("traceparent"), None, "none is made up");
}

#[test]
fn nothing_is_added_to_a_request_but_what_is_ours() {
    let house = House::new(&[]);
    let received = house.passes_with("");
    let names: BTreeSet<String> = received.head.fields.0.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    let expected = OURS.iter().chain(&["Host"]).map(|name| name.to_ascii_lowercase()).collect();
    assert_eq!(names, expected, "{received:?}");
    assert_eq!(received.framing, Framing::None, "{received:?}");
}

#[test]
fn nothing_is_added_to_a_response_but_what_is_ours() {
    let (response, story) = response_with("", "", &[]);
    let names: Vec<String> = response.head.fields.0.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["content-length", "date", "via"]), "{story}");
}

#[test]
fn messages_go_on_as_http_1_1_whatever_version_came() {
    let house = House::new(&[]);
    each(["1.0", "1.1", "1.2"], |version| {
        let received = house.passes(format!("GET /x HTTP/{version}\r\nHost: a\r\n\r\n"));
        assert_eq!(received.head.start, "GET /x HTTP/1.1");
        let said = format!("HTTP/{} 200 Fine\r\nContent-Length: 0\r\n\r\n", version.replace("1.2", "1.1"));
        let (response, story) = ask(said, &format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"), &[]);
        assert_eq!(response.head.start, "HTTP/1.1 200 Fine", "{story}");
    });
}

// Our own fields.

/// What a client may claim with the names of our own fields.
const CLAIMS: &str = "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                      Forwarded: for=9.9.9.9\r\nX-Request-Id: theirs\r\nVia: 1.1 other\r\n";

#[test]
fn no_client_can_name_our_own_fields_away() {
    let alone = OURS.map(|name| (name, format!("Connection: {name}\r\n")));
    let all = OURS.map(|name| (name, format!("Connection: keep-alive, {}\r\n", OURS.join(", ").to_ascii_lowercase())));
    each([&[], TRUSTED], |flags| {
        let house = House::new(flags);
        for (name, line) in alone.iter().chain(&all) {
            for lines in [line.clone(), format!("{line}{CLAIMS}"), format!("{CLAIMS}{line}")] {
                let received = house.passes_with(&lines);
                let ours = members(&received.head, name).pop().unwrap_or_default();
                let is_ours = match *name {
                    "X-Forwarded-For" => ours == "127.0.0.1",
                    "Forwarded" => ours.contains("for=127.0.0.1"),
                    "Via" => ours == "1.1 threadbare",
                    _ => !ours.is_empty(),
                };
                assert!(is_ours, "{name} after {lines:?}: {received:?}");
            }
        }
    });
}

#[test]
fn nobody_can_name_away_where_a_request_came_from() {
    // A client behind a trusted proxy may send `Connection: X-Forwarded-For`, and a careless proxy pass it on: what the
    // proxy says of the client must not vanish for that.
    let house = House::new(TRUSTED);
    each(["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded"], |name| {
        for lines in [format!("Connection: {name}\r\n{CLAIMS}"), format!("{CLAIMS}Connection: x, {name}\r\n")] {
            let received = house.passes_with(&lines);
            let told = received.head.all(name).join(", ");
            let claimed = ["9.9.9.9", "https", "evil"].iter().any(|word| told.contains(word));
            assert!(claimed, "{name} after {lines:?}: {received:?}");
        }
    });
}

#[test]
fn no_backend_can_name_our_own_fields_away() {
    let (response, story) = response_with("Connection: via, date\r\nVia: 1.1 theirs\r\nDate: theirs\r\n", "", &[]);
    assert_eq!(response.head.all("Via"), ["1.1 threadbare"], "{story}");
    let date = response.head.get("Date").unwrap_or_else(|| panic!("no Date: {story}"));
    assert!(httpdate::parse_http_date(date).is_ok(), "{story}");
}

#[test]
fn via_is_appended_to_a_request() {
    let house = House::new(&[]);
    let rows: [(&str, &str, &[&str]); 7] = [
        ("1.1", "", &["1.1 threadbare"]),
        ("1.0", "", &["1.0 threadbare"]),
        ("1.1", "Via: 1.0 fred\r\n", &["1.0 fred", "1.1 threadbare"]),
        ("1.1", "via: 1.0 fred, 1.1 p.example:80 (x)\r\n", &["1.0 fred", "1.1 p.example:80 (x)", "1.1 threadbare"]),
        ("1.1", "Via: HTTP/2 a\r\nX: y\r\nVIA: 1.1 b\r\n", &["HTTP/2 a", "1.1 b", "1.1 threadbare"]),
        ("1.1", "Via: 1.1 threadbare\r\n", &["1.1 threadbare", "1.1 threadbare"]),
        ("1.0", "Via: 1.1 a\r\n", &["1.1 a", "1.0 threadbare"]),
    ];
    each(rows, |(version, lines, via)| {
        let received = house.passes(format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n"));
        assert_eq!(members(&received.head, "Via"), via, "{received:?}");
    });
}

#[test]
fn via_is_appended_to_a_response() {
    let rows: [(&str, &str, &[&str]); 4] = [
        ("1.1", "", &["1.1 threadbare"]),
        ("1.0", "", &["1.0 threadbare"]),
        ("1.1", "Via: 1.0 fred, 1.1 x\r\n", &["1.0 fred", "1.1 x", "1.1 threadbare"]),
        ("1.0", "Via: 1.1 fred\r\nvia: 1.1 x\r\n", &["1.1 fred", "1.1 x", "1.0 threadbare"]),
    ];
    each(rows, |(version, lines, via)| {
        let said = format!("HTTP/{version} 200 OK\r\n{lines}Content-Length: 0\r\n\r\n");
        let (response, story) = ask(said, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[]);
        assert_eq!(members(&response.head, "Via"), via, "{story}");
    });
}

#[test]
fn via_can_be_turned_off() {
    let house = House::new(&["--via", "off"]);
    assert_eq!(house.passes_with("").head.get("Via"), None);
    assert_eq!(house.passes_with("Via: 1.0 fred\r\n").head.get("Via"), Some("1.0 fred"), "what is not ours passes");
    let (response, story) = response_with("", "", &["--via", "off"]);
    assert_eq!(response.head.get("Via"), None, "{story}");
    let (response, story) = response_with("Via: 1.0 fred\r\n", "", &["--via", "off"]);
    assert_eq!(response.head.get("Via"), Some("1.0 fred"), "{story}");
}

#[test]
fn a_request_that_has_been_here_ten_times_is_a_loop() {
    let house = House::new(&[]);
    let one_line = |times: usize| format!("Via: {}\r\n", vec!["1.1 threadbare"; times].join(", "));
    let rows = [
        ("Via: 1.1 threadbare\r\n".repeat(9), 200),
        ("Via: 1.1 threadbare\r\n".repeat(10), 508),
        ("Via: 1.0 threadbare\r\n".repeat(10), 508),
        ("Via: 1.1 threadbare\r\n".repeat(11), 508),
        (one_line(9), 200),
        (one_line(10), 508),
        (one_line(5) + "Via: 1.1 other\r\n" + &one_line(5), 508),
        ("Via: 1.1 other\r\n".repeat(20), 200),
    ];
    each(rows, |(lines, status)| {
        let mut client = house.client();
        client.send(&with_lines(&lines));
        assert_eq!(client.read_response("GET").status, status, "{}", client.story());
    });
}

#[test]
fn two_balancers_in_a_row_both_sign() {
    let backend = Backend::echo();
    let inner = balancer(&[&backend.url()], &[]);
    let outer = balancer(&[&format!("http://{}", inner.address())], &[]);
    let mut client = Client::connect(outer.address());
    client.send(&with_lines(""));
    let response = client.read_response("GET");
    assert_eq!(members(&response.head, "Via"), ["1.1 threadbare", "1.1 threadbare"], "{}", client.story());
    let received = backend.requests().pop().unwrap();
    assert_eq!(members(&received.head, "Via"), ["1.1 threadbare", "1.1 threadbare"], "{received:?}");
    // The inner one does not trust the outer one; the id is not a matter of trust.
    assert_eq!(received.head.get("X-Forwarded-For"), Some("127.0.0.1"), "{received:?}");
}

// Where a request came from.

const TRUSTED: &[&str] = &["--trusted-proxy", "127.0.0.0/8"];
const TRUSTED_AMONG_OTHERS: &[&str] =
    &["--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "127.0.0.1", "--trusted-proxy", "fd00::/8"];
const OTHERS_TRUSTED: &[&str] = &["--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "::/0"];

#[test]
fn the_address_of_the_client_is_told_and_a_strangers_claim_is_not() {
    let claim = "X-Forwarded-For: 1.2.3.4\r\n";
    let rows: [(&[&str], &str, &str); 12] = [
        (&[], "", "127.0.0.1"),
        (&[], claim, "127.0.0.1"),
        (&[], "x-forwarded-for: 1.2.3.4, 5.6.7.8\r\n", "127.0.0.1"),
        (&[], "X-Forwarded-For: 1.2.3.4\r\nX-FORWARDED-FOR: 5.6.7.8\r\n", "127.0.0.1"),
        (OTHERS_TRUSTED, claim, "127.0.0.1"),
        (TRUSTED, "", "127.0.0.1"),
        (TRUSTED, claim, "1.2.3.4, 127.0.0.1"),
        (TRUSTED, "x-forwarded-for: 1.2.3.4,5.6.7.8\r\n", "1.2.3.4, 5.6.7.8, 127.0.0.1"),
        (TRUSTED, "X-Forwarded-For: 1.2.3.4\r\nX: y\r\nx-forwarded-for: ::1\r\n", "1.2.3.4, ::1, 127.0.0.1"),
        (TRUSTED, "X-Forwarded-For:\r\n", "127.0.0.1"),
        (TRUSTED, "X-Forwarded-For: unknown\r\n", "unknown, 127.0.0.1"),
        (TRUSTED_AMONG_OTHERS, claim, "1.2.3.4, 127.0.0.1"),
    ];
    each(rows, |(flags, lines, expected)| {
        let received = House::new(flags).passes_with(lines);
        assert_eq!(
            members(&received.head, "X-Forwarded-For").join(", "),
            expected,
            "{flags:?} {lines:?}: {received:?}"
        );
    });
}

#[test]
fn a_twin_of_a_name_that_we_answer_for_passes_from_nobody() {
    // Where CGI, WSGI or PHP is spoken, a backend sees one variable for both, and the last one or both of them in it.
    let names = [
        "X_Forwarded_For",
        "x_forwarded_for",
        "X-Forwarded_For",
        "X_Forwarded-For",
        "X.Forwarded.For",
        "X_Forwarded_Proto",
        "X_Forwarded_Host",
        "X_Request_Id",
        "Max_Forwards",
        "Proxy_Authorization",
        "Proxy_Connection",
        "Keep_Alive",
        "HTTP2_Settings",
    ];
    for flags in [&[], TRUSTED] {
        let house = House::new(flags);
        each(names, |name| {
            let received = house.passes_with(&format!("X-Before: 1\r\n{name}: 1.2.3.4\r\nX-Behind: 1\r\n"));
            let passed = without(&received.head, &[&OURS[..], &["Host"]].concat());
            assert_eq!(passed, pairs(&[("X-Before", "1"), ("X-Behind", "1")]), "{name} {flags:?}");
        });
        // What only resembles one does pass.
        each(["X_Forwarde_For", "XForwardedFor", "X_Forward_Port", "Ho_t", "user_agent", "X1Forwarded1For"], |name| {
            let received = house.passes_with(&format!("{name}: 1.2.3.4\r\n"));
            assert_eq!(received.head.all(name), ["1.2.3.4"], "{flags:?}");
        });
    }
}

#[test]
fn the_scheme_and_the_host_are_told_and_a_strangers_claim_is_not() {
    let claims = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: theirs:443\r\n";
    let rows: [(&[&str], &str, &str, &str); 6] = [
        (&[], "", "http", "a.example:80"),
        (&[], claims, "http", "a.example:80"),
        (&[], "x-forwarded-PROTO: https\r\nx-forwarded-HOST: theirs\r\n", "http", "a.example:80"),
        (OTHERS_TRUSTED, claims, "http", "a.example:80"),
        (TRUSTED, "", "http", "a.example:80"),
        (TRUSTED, claims, "https", "theirs:443"),
    ];
    each(rows, |(flags, lines, scheme, host)| {
        let received = House::new(flags).passes(format!("GET / HTTP/1.1\r\nHost: a.example:80\r\n{lines}\r\n"));
        assert_eq!(received.head.get("X-Forwarded-Proto"), Some(scheme), "{flags:?}: {received:?}");
        assert_eq!(received.head.get("X-Forwarded-Host"), Some(host), "{flags:?}: {received:?}");
    });
}

#[test]
fn a_stranger_without_a_host_has_none_to_claim() {
    let house = House::new(&[]);
    let received = house.passes("GET / HTTP/1.0\r\nX-Forwarded-Host: evil\r\nForwarded: host=evil\r\n\r\n");
    let text = format!("{:?}", received.head);
    assert!(!text.contains("evil"), "{received:?}");
    assert_eq!(received.head.get("Host"), Some(&*house.backend.address().to_string()), "{received:?}");
}

#[test]
fn the_host_that_is_told_is_that_of_an_absolute_target() {
    let received = House::new(&[]).passes("GET http://b.example:81/x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(received.head.get("Host"), Some("b.example:81"), "{received:?}");
    assert_eq!(received.head.get("X-Forwarded-Host"), Some("b.example:81"), "{received:?}");
}

/// The elements of a Forwarded field, each with its parameters in lower case and without quotes.
fn forwarded(fields: &Fields) -> Vec<BTreeSet<String>> {
    let plain = |pair: &str| pair.trim().to_ascii_lowercase().replace('"', "");
    members(fields, "Forwarded").iter().map(|element| element.split(';').map(plain).collect()).collect()
}

#[test]
fn forwarded_tells_the_same_as_one_field() {
    let ours = BTreeSet::from(["for=127.0.0.1".to_owned(), "host=a".to_owned(), "proto=http".to_owned()]);
    let theirs = BTreeSet::from(["for=1.2.3.4".to_owned(), "proto=https".to_owned()]);
    let other = BTreeSet::from(["for=[::1]:80".to_owned()]);
    let claim = "Forwarded: for=1.2.3.4;proto=https\r\n";
    let rows: [(&[&str], &str, &[&BTreeSet<String>]); 7] = [
        (&[], "", &[&ours]),
        (&[], claim, &[&ours]),
        (&[], "forwarded: for=1.2.3.4, for=5.6.7.8\r\nForwarded: for=x\r\n", &[&ours]),
        (OTHERS_TRUSTED, claim, &[&ours]),
        (TRUSTED, "", &[&ours]),
        (TRUSTED, claim, &[&theirs, &ours]),
        (TRUSTED, "Forwarded: For=1.2.3.4;Proto=https\r\nforwarded: for=\"[::1]:80\"\r\n", &[&theirs, &other, &ours]),
    ];
    each(rows, |(flags, lines, expected)| {
        let received = House::new(flags).passes_with(lines);
        let elements = forwarded(&received.head);
        assert_eq!(elements.iter().collect::<Vec<_>>(), expected, "{flags:?} {lines:?}: {received:?}");
    });
}

#[test]
fn what_is_no_token_is_quoted_in_forwarded() {
    // RFC 7239 section 4: a value is a token or a quoted string, and a colon is no token character.
    let house = House::new(&[]);
    let rows = [("a", "host=a"), ("a.example:80", "host=\"a.example:80\""), ("[::1]:80", "host=\"[::1]:80\"")];
    each(rows, |(host, parameter)| {
        let received = house.passes(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let forwarded = received.head.get("Forwarded").unwrap();
        let unquoted = parameter.replace('"', "");
        assert!(
            forwarded.split(';').any(|pair| pair == parameter || host == "a" && pair.replace('"', "") == unquoted),
            "{received:?}"
        );
    });
}

#[test]
fn an_address_of_ipv6_is_told_as_such() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("not tried: this system has no ::1");
        return;
    }
    let rows: [(&[&str], &str); 2] =
        [(&["--listen", "[::1]:0"], "::1"), (&["--listen", "[::1]:0", "--trusted-proxy", "::1/128"], "1.2.3.4, ::1")];
    each(rows, |(flags, expected)| {
        let house = House::new(flags);
        let address = *house.balancer.addresses().iter().find(|address| address.is_ipv6()).unwrap();
        let mut client = Client::connect(address);
        client.send(&with_lines("X-Forwarded-For: 1.2.3.4\r\n"));
        assert_eq!(client.read_response("GET").status, 200, "{}", client.story());
        let received = house.backend.requests().pop().unwrap();
        assert_eq!(members(&received.head, "X-Forwarded-For").join(", "), expected, "{received:?}");
        let forwarded = received.head.get("Forwarded").unwrap();
        assert!(forwarded.contains("for=\"[::1]\""), "{received:?}");
    });
}

// The name of a request.

#[test]
fn a_request_without_a_name_gets_one_of_its_own() {
    let house = House::new(&[]);
    let mut ids: Vec<String> =
        (0..50).map(|_| house.passes_with("").head.get("X-Request-Id").unwrap_or_default().to_owned()).collect();
    for id in &ids {
        assert!(is_token(id) && id.len() <= 128, "{id:?}");
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50, "{ids:?}");
}

#[test]
fn a_name_that_a_request_has_stays_if_it_is_one() {
    let house = House::new(&[]);
    let longest = "y".repeat(128);
    each(["a", "my-request.7", "!#$%&'*+-.^_`|~", "0123-ABCD", &longest], |id| {
        let received = house.passes_with(&format!("x-request-ID: {id}\r\n"));
        assert_eq!(received.head.get("X-Request-Id"), Some(id), "{received:?}");
    });
}

#[test]
fn what_is_no_name_is_replaced() {
    let house = House::new(&[]);
    let too_long = format!("X-Request-Id: {}", "y".repeat(129));
    let lines = [
        "X-Request-Id:",
        &too_long,
        "X-Request-Id: a b",
        "X-Request-Id: a\tb",
        "X-Request-Id: a,b",
        "X-Request-Id: a;b",
        "X-Request-Id: \"a\"",
        "X-Request-Id: <a>",
        "X-Request-Id: a/b",
        "X-Request-Id: a=b",
        "X-Request-Id: a@b",
        "X-Request-Id: a\u{e9}b",
        "X-Request-Id: a\r\nX-Request-Id: b",
        "X-Request-Id: a\r\nX-Request-Id: a",
    ];
    each(lines, |lines| {
        let received = house.passes_with(&format!("{lines}\r\n"));
        let id = received.head.get("X-Request-Id").unwrap_or_else(|| panic!("none: {received:?}"));
        assert!(is_token(id) && id.len() <= 128, "{received:?}");
        assert!(!lines.contains(&format!(": {id}")), "theirs passed: {received:?}");
    });
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

// Host, path, Max-Forwards.

#[test]
fn host_and_path_pass_as_the_client_sent_them_behind_the_prefix() {
    let rows = [
        ("", "GET /x HTTP/1.1\r\nHost: A.Example:8080", "/x", "A.Example:8080"),
        ("/", "GET /x HTTP/1.1\r\nHost: a.", "/x", "a."),
        ("/b8081", "GET /x HTTP/1.1\r\nHost: a", "/b8081/x", "a"),
        ("/b8081", "GET / HTTP/1.1\r\nhost:a", "/b8081/", "a"),
        ("/b8081/", "GET /x/../y//z?a=b&c=%2f#".trim_end_matches('#'), "/b8081/x/../y//z?a=b&c=%2f", "a"),
        ("/b/c", "OPTIONS * HTTP/1.1\r\nHost: a", "*", "a"),
        ("/b", "GET http://other/x HTTP/1.1\r\nHost: a", "/b/x", "other"),
        ("/b", "GET http://other?q HTTP/1.1\r\nHost: a", "/b/?q", "other"),
        ("/b", "GET /? HTTP/1.1\r\nHost: [::1]:80", "/b/?", "[::1]:80"),
    ];
    each(rows, |(prefix, head, target, host)| {
        let backend = Backend::echo();
        let balancer = balancer(&[&(backend.url() + prefix)], &[]);
        let mut client = Client::connect(balancer.address());
        let head = if head.contains(" HTTP/") { head.to_owned() } else { format!("{head} HTTP/1.1\r\nHost: a") };
        client.send(format!("{head}\r\n\r\n").as_bytes());
        assert_eq!(client.read_response("GET").status, 200, "{}", client.story());
        let received = backend.requests().pop().unwrap();
        assert_eq!((&*received.target, received.head.get("Host")), (target, Some(host)), "{received:?}");
    });
}

#[test]
fn each_backend_gets_its_own_prefix() {
    let backend = Backend::echo();
    let urls = ["/b8081", "/b8082/deep", ""].map(|prefix| backend.url() + prefix);
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let balancer = balancer(&urls, &[]);
    let mut client = Client::connect(balancer.address());
    for _request in 0..3 {
        client.send(b"GET /x?y HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response("GET").status, 200, "{}", client.story());
    }
    let targets: Vec<String> = backend.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/b8081/x?y", "/b8082/deep/x?y", "/x?y"]);
}

#[test]
fn max_forwards_counts_down_on_two_methods_alone() {
    let house = House::new(&[]);
    let rows = [
        ("OPTIONS /", "1", "0"),
        ("OPTIONS *", "12", "11"),
        ("TRACE /", "2", "1"),
        ("OPTIONS /", "18446744073709551615", "18446744073709551614"),
        ("GET /", "0", "0"),
        ("GET /", "7", "7"),
        ("POST /", "0", "0"),
        ("PROPFIND /", "0", "0"),
    ];
    each(rows, |(line, sent, came)| {
        let received = house.passes(format!("{line} HTTP/1.1\r\nHost: a\r\nmax-forwards: {sent}\r\n\r\n"));
        assert_eq!(received.head.get("Max-Forwards"), Some(came), "{received:?}");
    });
    let asked = house.backend.requests().len();
    for (line, status) in [("OPTIONS /", 200), ("OPTIONS *", 200), ("TRACE /", 501)] {
        let mut client = house.client();
        client.send(format!("{line} HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n").as_bytes());
        let response = client.read_response("GET");
        assert!(response.status == status && (status != 200 || response.body.is_empty()), "{}", client.story());
        // It was answered, not broken off: the connection goes on.
        if !response.closes() {
            client.send(&with_lines("Connection: close\r\nX-After: this\r\n"));
            assert_eq!(client.read_response("GET").status, 200, "{}", client.story());
        }
    }
    let behind = house.backend.requests().split_off(asked);
    assert!(behind.iter().all(|request| request.head.get("X-After").is_some()), "it went further: {behind:?}");
}

// TE, Trailer and trailers.

#[test]
fn a_wish_for_trailers_goes_on_as_our_own() {
    let house = House::new(&[]);
    let rows = [
        ("1.1", "TE: trailers\r\nConnection: TE\r\n", true),
        ("1.1", "TE: trailers\r\n", true),
        ("1.1", "te: Trailers\r\n", true),
        ("1.1", "TE: gzip;q=0.5, trailers\r\n", true),
        ("1.1", "TE: gzip\r\nTE: trailers\r\nConnection: te, x\r\n", true),
        ("1.1", "TE:\r\n", false),
        ("1.1", "TE: gzip\r\n", false),
        ("1.1", "TE: trailers-not\r\n", false),
        ("1.1", "", false),
        ("1.0", "TE: trailers\r\nConnection: TE\r\n", false),
    ];
    each(rows, |(version, lines, passes)| {
        let received = house.passes(format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n"));
        let expected = if passes { (Some("trailers"), Some("TE")) } else { (None, None) };
        assert_eq!((received.head.get("TE"), received.head.get("Connection")), expected, "{received:?}");
    });
}

#[test]
fn trailer_is_kept_where_trailers_are() {
    let house = House::new(&[]);
    let rows = [
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nX-T: t\r\nx-u: u\r\n\r\n", Some("X-T, X-U")),
        ("Content-Length: 5\r\n", "hello", None),
        ("", "", None),
    ];
    each(rows, |(framing, body, trailer)| {
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-T, X-U\r\n{framing}\r\n");
        let received = house.passes(format!("{head}{body}"));
        assert_eq!(received.head.get("Trailer"), trailer, "{received:?}");
        let trailers: &[(&str, &str)] = if trailer.is_some() { &[("X-T", "t"), ("x-u", "u")] } else { &[] };
        assert_eq!(received.trailers.0, pairs(trailers), "{received:?}");

        if framing.is_empty() {
            return; // the body of a response would go on until the close
        }
        let said = format!("HTTP/1.1 200 OK\r\nTrailer: X-T, X-U\r\n{framing}\r\n{body}");
        let (response, story) = ask(said, TRAILERS_WANTED, &[]);
        assert_eq!(response.head.get("Trailer"), trailer, "{story}");
        assert_eq!(response.trailers.0, pairs(trailers), "{story}");
    });
}

/// A GET that says that it can do with trailers.
const TRAILERS_WANTED: &str = "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n";

/// Trailers, and those among them that may go on.
fn trailers() -> (String, Vec<(String, String)>) {
    let good = [
        ("X-Checksum", "abc"),
        ("x-checksum", "def"),
        ("Server-Timing", "db;dur=1"),
        ("Grpc-Status", "0"),
        ("X-Latin", ""),
    ];
    let bad = [
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Host: evil",
        "Connection: close",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Trailer: x",
        "Upgrade: x",
        "Expect: 100-continue",
        "Max-Forwards: 0",
        "Authorization: Basic x",
        "Proxy-Authorization: Basic x",
        "Proxy-Authenticate: Basic",
        "WWW-Authenticate: Basic",
        "Cookie: a=b",
        "Set-Cookie: a=b",
        "Content-Encoding: gzip",
        "Content-Type: text/html",
        "Content-Range: bytes 0-4/5",
        "Cache-Control: no-store",
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Host: evil",
        "X-Forwarded-Proto: https",
        "Forwarded: for=1.2.3.4",
        "X-Request-Id: evil",
        "Via: 1.1 evil",
    ];
    let good_lines = good.iter().map(|(name, value)| format!("{name}: {value}"));
    let lines: Vec<String> = bad.iter().map(|line| (*line).to_owned()).collect();
    let (front, back) = lines.split_at(lines.len() / 2);
    let all: Vec<String> = front.iter().cloned().chain(good_lines).chain(back.iter().cloned()).collect();
    (all.join("\r\n") + "\r\n", pairs(&good))
}

#[test]
fn trailers_of_a_request_go_on_without_those_that_would_steer() {
    let (lines, good) = trailers();
    let received = House::new(&[]).passes(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{lines}\r\n"
    ));
    assert_eq!(received.trailers.0, good, "{received:?}");
    assert!(received.head.get("X-Checksum").is_none(), "never merged into the head: {received:?}");
}

#[test]
fn trailers_of_a_response_go_on_without_those_that_would_steer() {
    let (lines, good) = trailers();
    let said = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{lines}\r\n");
    let (response, story) = ask(said, TRAILERS_WANTED, &[]);
    assert_eq!((&*response.text(), &response.trailers.0), ("hello", &good), "{story}");
    assert!(response.head.get("X-Checksum").is_none(), "never merged into the head: {story}");
}

#[test]
fn a_trailer_that_connection_names_ends_here() {
    let lines = "Connection: x-hop, X-Other\r\nConnection: X-Third\r\nTransfer-Encoding: chunked\r\n";
    let body = "5\r\nhello\r\n0\r\nX-Hop: 1\r\nX-Good: 2\r\nx-other: 3\r\nX-THIRD: 4\r\n\r\n";
    let received = House::new(&[]).passes(format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n{body}"));
    assert_eq!(received.trailers.0, pairs(&[("X-Good", "2")]), "{received:?}");
    let (response, story) = ask(format!("HTTP/1.1 200 OK\r\n{lines}\r\n{body}"), TRAILERS_WANTED, &[]);
    assert_eq!(response.trailers.0, pairs(&[("X-Good", "2")]), "{story}");
}

#[test]
fn a_trailer_section_of_a_response_is_bounded() {
    let rows = [("X: y\r\n".repeat(100_000), false), (format!("X: {}\r\n", "y".repeat(1_000_000)), false)];
    each(rows, |(lines, whole)| {
        let said = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{lines}\r\n");
        let house = House::before(Backend::answering(said), &[]);
        let mut client = house.client();
        client.send(TRAILERS_WANTED.as_bytes());
        let told = client.try_response("GET");
        let is_whole = told.as_ref().is_ok_and(|response| response.status == 200);
        assert_eq!(is_whole, whole, "{} bytes of trailers", lines.len());
        house.backend.wait_until("the connection is dropped", |record| record.open == 0);
    });
}

// Upgrade.

#[test]
fn a_426_says_what_to_upgrade_to() {
    let said = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: HTTP/3.0, chat/2\r\nConnection: upgrade, x-hop\r\nX-Hop: 1\r\n\
                Content-Length: 2\r\n\r\nno";
    let (response, story) = ask(said, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[]);
    assert_eq!((response.status, &*response.text()), (426, "no"), "{story}");
    assert_eq!(members(&response.head, "Upgrade"), ["HTTP/3.0", "chat/2"], "{story}");
    assert!(response.head.lists("Connection", "upgrade"), "{story}");
    assert_eq!(response.head.get("X-Hop"), None, "{story}");

    let said = "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno";
    let (response, story) = ask(said, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", &[]);
    assert_eq!((response.status, response.head.get("Connection")), (426, None), "what it does not say: {story}");
}

#[test]
fn an_upgrade_passes_where_it_is_meant() {
    let house = House::new(&[]);
    let rows: [(&str, &str, &[&str]); 10] = [
        ("1.1", "Connection: Upgrade\r\nUpgrade: websocket\r\n", &["websocket"]),
        ("1.1", "connection: keep-alive, UPGRADE\r\nupgrade: chat/2, x\r\n", &["chat/2", "x"]),
        ("1.1", "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b\r\n", &["a", "b"]),
        // Half of it, or from HTTP/1.0: none.
        ("1.1", "Upgrade: websocket\r\n", &[]),
        ("1.1", "Connection: upgrade\r\n", &[]),
        ("1.0", "Connection: upgrade\r\nUpgrade: websocket\r\n", &[]),
        // HTTP/2 by prior knowledge would be a tunnel past every rule.
        ("1.1", "Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", &[]),
        ("1.1", "Connection: upgrade\r\nUpgrade: H2C\r\nHTTP2-Settings: AAMAAABk\r\n", &[]),
        ("1.1", "Connection: upgrade, HTTP2-Settings\r\nUpgrade: h2c, x\r\nHTTP2-Settings: A\r\n", &["x"]),
        ("1.1", "Connection: upgrade\r\nUpgrade: x, h2c\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n", &["x"]),
    ];
    each(rows, |(version, lines, protocols)| {
        // The backend answers 200: to it an upgrade is an offer like any other.
        let received = house.passes(format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n"));
        assert_eq!(members(&received.head, "Upgrade"), protocols, "{received:?}");
        assert_eq!(received.head.get("HTTP2-Settings"), None, "{received:?}");
        let connection: &[&str] = if protocols.is_empty() { &[] } else { &["upgrade"] };
        let said: Vec<String> = members(&received.head, "Connection").iter().map(|m| m.to_ascii_lowercase()).collect();
        assert_eq!(said, connection, "{received:?}");
    });
}
