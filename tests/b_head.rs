//! Reading a request's head: what passes, and how it looks behind us; what is refused, and that no backend hears of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use support::{Backend, Client, Received, balancer, each, show};
use threadbare::Balancer;

/// Stands behind every refused request: whoever goes on reading after the refusal serves it.
const BEHIND: &[u8] = b"GET /behind HTTP/1.1\r\nHost: behind\r\n\r\n";

/// A balancer before a backend that answers with what it was sent.
struct House {
    balancer: Balancer,
    backend: Backend,
}

impl House {
    fn with(flags: &[&str]) -> Self {
        let backend = Backend::echo();
        let balancer = balancer(&[&backend.url()], flags);
        Self { balancer, backend }
    }

    fn with_prefix(prefix: &str) -> Self {
        let backend = Backend::echo();
        let balancer = balancer(&[&format!("{}{prefix}", backend.url())], &[]);
        Self { balancer, backend }
    }

    /// The request as the backend got it.
    fn passes(&self, request: &[u8]) -> Received {
        let mut client = Client::connect(self.balancer.address());
        client.send(request);
        let method = if request.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
        let response = client.read_response(method);
        assert_eq!(response.status, 200, "{}", client.story());
        self.backend.requests().pop().unwrap()
    }

    /// Refused alike alone and with another request behind it; the backend hears of neither.
    fn refuses(&self, request: impl AsRef<[u8]>, statuses: &[u16]) {
        for behind in [&b""[..], BEHIND] {
            let mut client = Client::connect(self.balancer.address());
            client.send(&[request.as_ref(), behind].concat());
            client.expect_refusal(statuses);
            assert_eq!(self.balancer.counters().dials, 0, "a backend was bothered: {}", client.story());
        }
        assert_eq!(self.backend.accepted(), 0, "a backend was bothered by {}", show(request.as_ref()));
    }

    /// Answered by us, and whatever the answer says of the connection is true.
    fn answers(&self, request: &str, statuses: &[u16]) {
        let mut client = Client::connect(self.balancer.address());
        client.send(request.as_bytes());
        let response = client.read_response("GET");
        assert!(statuses.contains(&response.status), "not {statuses:?}: {}", client.story());
        assert_eq!(self.balancer.counters().dials, 0, "a backend was bothered: {}", client.story());
        if response.closes() {
            client.expect_closed();
        } else {
            client.send(request.as_bytes());
            assert_eq!(client.read_response("GET").status, response.status, "{}", client.story());
        }
    }
}

/// A request that is fine but for the line under test.
fn with_line(line: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET / HTTP/1.1\r\nHost: a\r\n", line.as_ref(), b"\r\n\r\n"].concat()
}

/// A request for this target, which need not be text.
fn for_target(target: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET ", target.as_ref(), b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat()
}

// Line ends and control characters.

#[test]
fn a_line_that_does_not_end_in_crlf_is_refused() {
    let house = House::with(&[]);
    let heads: &[&[u8]] = &[
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ: z\r\n\r\n",
        b"GET / HTTP/1.1\rHost: a\r\r",
        b"GET / HTTP/1.1\rHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rZ: z\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\r\n\r\n",
        b"GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a\nb HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G\rET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHo\rst: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\n Transfer-Encoding: chunked\r\n\r\n",
    ];
    each(heads, |head| house.refuses(head, &[400]));
}

#[test]
fn a_control_character_in_a_head_is_refused() {
    let house = House::with(&[]);
    let controls = (0x00..0x20).chain([0x7f]).filter(|byte| !b"\t\r\n".contains(byte));
    each(controls, |byte| {
        house.refuses(with_line([b"X: a", &[byte][..], b"b"].concat()), &[400]);
        house.refuses(with_line([b"X: ", &[byte][..]].concat()), &[400]);
        house.refuses(with_line([b"X", &[byte][..], b": a"].concat()), &[400]);
        house.refuses(for_target([b"/", &[byte][..]].concat()), &[400]);
    });
}

#[test]
fn what_can_only_be_refused_is_refused_when_seen_and_not_when_the_head_ends() {
    // No deadline can pass for the refusal: if the rest of the head is waited for, the answer never comes.
    let house = House::with(&["--head-timeout", "1h", "--first-byte-timeout", "1h"]);
    let beginnings: &[&[u8]] = &[
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\nHost: a\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\rH",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rb",
        b"GET / HTTP/1.1\r\nHost: a\r\n\rX",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: \x1b",
        b"GET /\0",
        b"\n",
        b"\rG",
        b"\r\n\n",
        b"\r\n\r\n",
        // The first bytes of a TLS 1.2 ClientHello, as `curl https://` sends them to a plain port.
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x5a\xa5\x5a\xa5\x5a\xa5\x5a\xa5\x5a\xa5",
    ];
    each(beginnings, |beginning| {
        let mut client = Client::connect(house.balancer.address());
        client.send(beginning);
        client.expect_refusal(&[400]);
    });
    assert_eq!(house.balancer.counters().dials, 0);
}

// Empty lines before the request line.

#[test]
fn one_empty_line_before_a_request_is_ignored() {
    let house = House::with(&[]);
    let received = house.passes(b"\r\nGET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(received.head.raw.starts_with(b"GET /x "), "{received:?}");
}

#[test]
fn one_empty_line_between_two_requests_is_ignored() {
    let house = House::with(&[]);
    let mut client = Client::connect(house.balancer.address());
    // What some old clients put behind the body of a POST, once with the next request close behind it.
    client.send(b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response("POST").status, 200, "{}", client.story());
    assert_eq!(client.read_response("GET").status, 200, "{}", client.story());
    client.send(b"\r\n");
    client.send(b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response("GET").status, 200, "{}", client.story());
    let targets: Vec<String> = house.backend.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/1", "/2", "/3"]);
}

#[test]
fn anything_else_before_a_request_line_is_refused() {
    let house = House::with(&[]);
    each(["\r\n\r\n", "\r\n\r\n\r\n", "\n", "\r", " ", " \r\n", "\t", "\r\n ", "\r\n\n"], |before| {
        house.refuses(format!("{before}GET / HTTP/1.1\r\nHost: a\r\n\r\n"), &[400]);
    });
}

// The request line.

#[test]
fn every_token_is_a_method_and_passes_in_its_case() {
    let house = House::with(&[]);
    let methods = [
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "DELETE",
        "OPTIONS",
        "PATCH",
        "TRACE",
        "PROPFIND",
        "M-SEARCH",
        "get",
        "Get",
        "X",
        "connect",
        "!#$%&'*+-.^_`|~09azAZ",
    ];
    each(methods, |method| {
        let received = house.passes(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(received.method, method);
    });
}

#[test]
fn a_request_line_that_is_not_three_words_and_two_spaces_is_refused() {
    let house = House::with(&[]);
    let lines: &[&[u8]] = &[
        b"GET /",
        b"GET / ",
        b"GET",
        b"GET ",
        b"/ HTTP/1.1",
        b" / HTTP/1.1",
        b" GET / HTTP/1.1",
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b"GET  HTTP/1.1",
        b"GET HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET / x HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET /\tHTTP/1.1",
        b"GET\t/\tHTTP/1.1",
        b"GET\x0b/ HTTP/1.1",
        b"G@T / HTTP/1.1",
        b"GE(T / HTTP/1.1",
        b"GET: / HTTP/1.1",
        b"\"GET\" / HTTP/1.1",
        b"G\xc4T / HTTP/1.1",
    ];
    each(lines, |line| house.refuses([line, &b"\r\nHost: a\r\n\r\n"[..]].concat(), &[400]));
}

#[test]
fn every_minor_version_of_http_1_goes_out_as_http_1_1() {
    let house = House::with(&[]);
    // The harness holds the version that reaches the backend to HTTP/1.1.
    each(0..=9, |minor| {
        house.passes(format!("GET / HTTP/1.{minor}\r\nHost: a\r\n\r\n").as_bytes());
    });
}

#[test]
fn a_minor_version_above_1_is_read_as_http_1_1() {
    let house = House::with(&[]);
    each(1..=9, |minor| {
        let mut client = Client::connect(house.balancer.address());
        for _keeps_alive_unasked in 0..2 {
            client.send(format!("GET / HTTP/1.{minor}\r\nHost: a\r\n\r\n").as_bytes());
            let response = client.read_response("GET");
            assert!(response.status == 200 && !response.closes(), "{}", client.story());
        }
        let mut client = Client::connect(house.balancer.address());
        client.send(format!("GET / HTTP/1.{minor}\r\nX: no-host\r\n\r\n").as_bytes());
        client.expect_refusal(&[400]);
    });
}

#[test]
fn another_major_version_is_refused_as_such() {
    let house = House::with(&[]);
    each(["0.0", "0.9", "2.0", "2.1", "3.0", "9.9"], |version| {
        house.refuses(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n"), &[505]);
    });
}

#[test]
fn what_is_no_version_at_all_is_refused() {
    let house = House::with(&[]);
    let versions = [
        "http/1.1",
        "Http/1.1",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/.1",
        "HTTP/11",
        "HTTP/1.10",
        "HTTP/1.01",
        "HTTP/01.1",
        "HTTP/10.0",
        "HTTP/1.a",
        "HTTP/1,1",
        "HTTP/+1.1",
        "HTTP/1.+1",
        "HTTP/-1.1",
        "HTTP/1.1x",
        "HTTP/",
        "HTTP",
        "HTTP 1.1",
        "HTTPS/1.1",
        "XTTP/1.1",
        "ICY/1.1",
        "1.1",
    ];
    each(versions, |version| house.refuses(format!("GET / {version}\r\nHost: a\r\n\r\n"), &[400]));
}

#[test]
fn the_preface_of_http_2_is_refused() {
    House::with(&[]).refuses("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400, 505]);
}

// The target.

#[test]
fn a_path_and_a_query_pass_byte_for_byte() {
    let house = House::with(&[]);
    let mut targets: Vec<String> = [
        "/",
        "//",
        "///a//b/",
        "/.",
        "/..",
        "/../../etc/passwd",
        "/a/./b/../c",
        "/?",
        "/??",
        "/a?",
        "/a?b?c",
        "/a?/../b",
        "/%",
        "/%2",
        "/%2e%2E/",
        "/%00",
        "/%zz",
        "/%2f%2F",
        "/a%20b",
        "/a+b",
        "/a;b=c;d",
        "/a:80",
        "/a@b",
        "/*",
        "/a,b",
        "/?u=http://x:1/y?z",
        "//evil.example/x",
        "/http://x/",
        "/\\..\\x",
        "/\"<>^`{|}",
    ]
    .map(str::to_owned)
    .to_vec();
    targets.extend((0x21..0x7f).filter(|&byte| byte != b'#').map(|byte| format!("/{0}?{0}", char::from(byte))));
    each(targets, |target| assert_eq!(house.passes(&for_target(&target)).target, target));
}

#[test]
fn a_target_with_a_fragment_or_a_byte_outside_of_ascii_is_refused() {
    let house = House::with(&[]);
    let targets: &[&[u8]] =
        &[b"/#", b"/a#b", b"/a?b#c", b"#", b"#/", b"http://a/#b", b"http://a#b", b"/\xc3\xa4", b"/?\xc3"];
    each(targets, |target| house.refuses(for_target(target), &[400]));
    each(0x7f..=0xff_u8, |byte| house.refuses(for_target([b"/x", &[byte][..]].concat()), &[400]));
}

#[test]
fn a_target_in_none_of_the_four_forms_is_refused() {
    let house = House::with(&[]);
    let targets = [
        "x",
        "a/b",
        "?",
        "?a=b",
        "./a",
        "../a",
        "\\",
        ":",
        "a:80",
        "127.0.0.1:80",
        ":80",
        "http:",
        "http:x",
        "http:/x",
        "http//a/",
        "://a/",
        "%2f",
    ];
    each(targets.into_iter().filter(|target| !target.starts_with('/')), |target| {
        house.refuses(for_target(target), &[400]);
    });
}

#[test]
fn an_absolute_target_goes_out_as_a_path_and_a_host() {
    let house = House::with(&[]);
    let rows = [
        ("GET", "http://b.example/x?y", "/x?y", "b.example"),
        ("GET", "HTTP://B.Example:8080/X", "/X", "B.Example:8080"),
        ("GET", "hTTp://b/", "/", "b"),
        ("GET", "http://b", "/", "b"),
        ("GET", "http://b:80", "/", "b:80"),
        ("GET", "http://b?", "/?", "b"),
        ("GET", "http://b?q", "/?q", "b"),
        ("GET", "http://b?q@r", "/?q@r", "b"),
        ("GET", "http://b/x@y:z", "/x@y:z", "b"),
        ("GET", "http://b//x/../y", "//x/../y", "b"),
        ("GET", "http://b/http://c/", "/http://c/", "b"),
        ("GET", "http://127.0.0.1:1/x", "/x", "127.0.0.1:1"),
        ("GET", "http://[::1]/x", "/x", "[::1]"),
        ("GET", "http://[::1]:81/x", "/x", "[::1]:81"),
        ("OPTIONS", "http://b", "*", "b"),
        ("OPTIONS", "http://b:81", "*", "b:81"),
        ("OPTIONS", "http://b/", "/", "b"),
        ("OPTIONS", "http://b?q", "/?q", "b"),
    ];
    each(rows, |(method, target, path, host)| {
        for head in [
            format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("{method} {target} HTTP/1.0\r\nHost: a\r\n\r\n"),
            format!("{method} {target} HTTP/1.0\r\n\r\n"),
        ] {
            let received = house.passes(head.as_bytes());
            assert_eq!((&*received.target, received.head.get("Host").unwrap()), (path, host), "{head:?}");
        }
    });
}

#[test]
fn an_absolute_target_is_checked_like_a_host() {
    let house = House::with(&[]);
    let targets = [
        "http://",
        "http:///",
        "http:///x",
        "http://?q",
        "http://:80/",
        "http://u@b/",
        "http://u:p@b/x",
        "http://@b/",
        "http://b@/",
        "http://b:x/",
        "http://b:8x/",
        "http://b:-1/",
        "http://b:+80/",
        "http://b:80:80/",
        "http://[::1/",
        "http://::1/",
        "http://[]/",
        "http://b\\c/",
        "http://\"b\"/",
    ];
    each(targets, |target| house.refuses(for_target(target), &[400]));
}

#[test]
fn an_absolute_target_does_not_excuse_the_host_field() {
    let house = House::with(&[]);
    each(["", "Host: a b\r\n", "Host: a\r\nHost: a\r\n", "Host: b:x\r\n"], |host| {
        house.refuses(format!("GET http://b/ HTTP/1.1\r\n{host}\r\n"), &[400]);
    });
}

#[test]
fn an_https_target_on_a_plain_port_is_misdirected() {
    let house = House::with(&[]);
    each(["https://b/", "HTTPS://b/x", "https://b", "https://b:443/"], |target| {
        house.answers(&format!("GET {target} HTTP/1.1\r\nHost: b\r\n\r\n"), &[421]);
    });
}

#[test]
fn a_scheme_that_is_not_http_is_refused() {
    let house = House::with(&[]);
    each(["ftp://b/", "ws://b/", "file:///etc/passwd", "httpx://b/", "urn:a:b", "javascript:1"], |target| {
        house.answers(&format!("GET {target} HTTP/1.1\r\nHost: b\r\n\r\n"), &[400, 421]);
    });
}

#[test]
fn an_asterisk_passes_with_options_alone() {
    let house = House::with(&[]);
    assert_eq!(house.passes(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target, "*");
    let house = House::with(&[]);
    let lines = ["GET *", "TRACE *", "POST *", "options *", "OPTIONS **", "OPTIONS */", "OPTIONS *?q", "OPTIONS x"];
    each(lines, |line| house.refuses(format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n"), &[400]));
}

#[test]
fn connect_is_not_for_us() {
    let house = House::with(&[]);
    each(["a:443", "127.0.0.1:1", "[::1]:443"], |target| {
        // What stands behind it is meant for the tunnel, so it is not a request even if it looks like one.
        house.refuses(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"), &[501]);
    });
}

#[test]
fn the_path_of_a_backend_is_put_before_the_path_of_a_request() {
    let rows = [
        ("/b8081", "GET", "/x", "/b8081/x"),
        ("/b8081", "GET", "/", "/b8081/"),
        ("/b8081", "GET", "/?q", "/b8081/?q"),
        ("/b8081", "GET", "//x/../y", "/b8081//x/../y"),
        ("/b8081", "GET", "http://b/x?y", "/b8081/x?y"),
        ("/b8081", "GET", "http://b", "/b8081/"),
        ("/b8081", "GET", "http://b?q", "/b8081/?q"),
        ("/b8081", "OPTIONS", "/x", "/b8081/x"),
        ("/b8081", "OPTIONS", "*", "*"),
        ("/b8081", "OPTIONS", "http://b", "*"),
        ("/b/c.d", "GET", "/x", "/b/c.d/x"),
        ("/", "GET", "/x", "/x"),
        ("/", "GET", "/", "/"),
        ("", "GET", "/x", "/x"),
    ];
    each(rows, |(prefix, method, target, expected)| {
        let house = House::with_prefix(prefix);
        let received = house.passes(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(received.target, expected, "{method} {target} behind {prefix:?}");
    });
}

// Host.

#[test]
fn a_host_passes_as_the_client_sent_it() {
    let house = House::with(&[]);
    let hosts =
        ["a", "A.Example", "a:80", "a.", "a_b", "a-b.c", "127.0.0.1", "127.0.0.1:8080", "[::1]", "[::1]:80", "x~y"];
    each(hosts, |host| {
        for version in ["1.0", "1.1"] {
            let received = house.passes(format!("GET / HTTP/{version}\r\nHost: {host}\r\n\r\n").as_bytes());
            assert_eq!(received.head.get("Host"), Some(host), "HTTP/{version}");
        }
    });
    each(["Host:a", "Host:   a", "Host: a  ", "Host:\ta\t", "hOST: a"], |line| {
        let received = house.passes(format!("GET / HTTP/1.1\r\n{line}\r\n\r\n").as_bytes());
        assert_eq!(received.head.get("Host"), Some("a"), "{line:?}");
    });
}

#[test]
fn a_second_or_a_faulty_host_is_refused_in_both_versions() {
    let house = House::with(&[]);
    let hosts = [
        "Host: a\r\nHost: b",
        "Host: a\r\nHost: a",
        "Host: a\r\nX: y\r\nhost: a",
        "Host: a\r\nHost:",
        "Host: a, b",
        "Host: a b",
        "Host: a\tb",
        "Host: a:b",
        "Host: a:80x",
        "Host: a:x80",
        "Host: a:+80",
        "Host: a:-80",
        "Host: a:80:80",
        "Host: a: 80",
        "Host: a :80",
        "Host: :80",
        "Host: u@a",
        "Host: u:p@a",
        "Host: a/b",
        "Host: a/",
        "Host: a?b",
        "Host: a#b",
        "Host: a\\b",
        "Host: http://a",
        "Host: [::1",
        "Host: ::1",
        "Host: []",
        "Host: [::1]x",
        "Host: [a",
        "Host: \"a\"",
        "Host: <a>",
        "Host: a|b",
        "Host: {a}",
        "Host: ^a",
    ];
    each(hosts, |lines| {
        for version in ["1.0", "1.1"] {
            house.refuses(format!("GET / HTTP/{version}\r\n{lines}\r\n\r\n"), &[400]);
        }
    });
    each([&b"Host: \xe4"[..], b"Host: a\xff"], |line| {
        house.refuses([b"GET / HTTP/1.1\r\n", line, b"\r\n\r\n"].concat(), &[400]);
    });
}

#[test]
fn http_1_1_needs_a_host() {
    let house = House::with(&[]);
    each(["", "X: y\r\n", "X-Host: a\r\n", "Forwarded: host=a\r\n"], |lines| {
        house.refuses(format!("GET / HTTP/1.1\r\n{lines}\r\n"), &[400]);
    });
}

#[test]
fn http_1_0_without_a_host_goes_on_with_the_backends_authority() {
    let house = House::with(&[]);
    let received = house.passes(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(received.head.get("Host"), Some(&*house.backend.address().to_string()));
}

// Field lines.

#[test]
fn a_faulty_field_line_is_refused() {
    let house = House::with(&[]);
    let lines: &[&[u8]] = &[
        b"X : a",
        b"X\t: a",
        b"X  : a",
        b"Content-Length : 0",
        b"Transfer-Encoding\x0b: chunked",
        b" X: a",
        b"\tX: a",
        b"X: a\r\n b",
        b"X: a\r\n\tb",
        b"X: a\r\n  ",
        b"X:\r\n a",
        b"X",
        b"X a",
        b"no colon here",
        b": a",
        b":",
        b" : a",
        b"A B: c",
        b"A(: b",
        b"A/B: c",
        b"A@B: c",
        b"\"A\": b",
        b"[A]: b",
        b"A=B: c",
        b"A,B: c",
        b"A;B: c",
        b"A{}: b",
        b"A\\: b",
        b"\xc4: b",
        b"A\xff: b",
    ];
    each(lines, |line| house.refuses(with_line(line), &[400]));
}

#[test]
fn the_first_field_line_may_not_be_folded_either() {
    let house = House::with(&[]);
    each(["GET / HTTP/1.1\r\n Host: a\r\n\r\n", "GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n"], |head| {
        house.refuses(head, &[400]);
    });
}

#[test]
fn a_field_passes_in_its_place_its_case_and_its_bytes() {
    let house = House::with(&[]);
    let every_byte: Vec<u8> = (0x21..=0xff).filter(|&byte| byte != 0x7f).collect();
    let lines: &[(&[u8], &[u8])] = &[
        (b"X-plain: a", b"a"),
        (b"x-LOWER-and-UPPER: a", b"a"),
        (b"X-No-Space:a", b"a"),
        (b"X-Around: \t a \t ", b"a"),
        (b"X-Within: a  b\tc", b"a  b\tc"),
        (b"X-Empty:", b""),
        (b"X-Blank:   ", b""),
        (b"X-Colons: a:b: c", b"a:b: c"),
        (b"X-Twice: 1", b"1"),
        (b"X-Twice: 2", b"2"),
        (b"x-twice: 1", b"1"),
        (b"X-Obs-Text: \xe4 \xff", b"\xe4 \xff"),
        (b"!#$%&'*+-.^_`|~09azAZ: a", b"a"),
        (&[b"X-Every: ", &every_byte[..]].concat(), &every_byte),
    ];
    let text: Vec<u8> = lines.iter().flat_map(|(line, _)| [line, &b"\r\n"[..]].concat()).collect();
    let received = house.passes(&[b"GET / HTTP/1.1\r\nHost: a\r\n", &text[..], b"\r\n"].concat());
    let latin = |bytes: &[u8]| bytes.iter().map(|&byte| char::from(byte)).collect::<String>();
    let sent: Vec<(String, String)> = lines
        .iter()
        .map(|(line, value)| (latin(line.splitn(2, |&byte| byte == b':').next().unwrap()), latin(value)))
        .collect();
    let is_ours = |name: &str| !sent.iter().any(|(sent, _)| sent == name);
    let came: Vec<(String, String)> =
        received.head.fields.0.iter().filter(|(name, _)| !is_ours(name)).cloned().collect();
    assert_eq!(came, sent, "{received:?}");
}

// Limits.

/// A head of exactly this many bytes.
fn of_length(length: usize) -> Vec<u8> {
    let fixed = with_line("X: ").len();
    with_line(format!("X: {}", "y".repeat(length - fixed)))
}

/// A head with exactly this many fields.
fn of_fields(fields: usize) -> Vec<u8> {
    with_line((1..fields).map(|number| format!("X: {number}")).collect::<Vec<_>>().join("\r\n"))
}

/// A head with a target of exactly this many bytes.
fn of_target(length: usize) -> Vec<u8> {
    for_target(format!("/{}", "y".repeat(length - 1)))
}

#[test]
fn a_head_may_be_so_long_and_not_a_byte_longer() {
    let rows: [(&[&str], usize); 3] =
        [(&[], 16 * 1024), (&["--head-bytes", "1KiB"], 1024), (&["--head-bytes", "64KiB"], 64 * 1024)];
    each(rows, |(flags, limit)| {
        let house = House::with(flags);
        house.refuses(of_length(limit + 1), &[431]);
        house.refuses(of_length(limit * 2), &[431]);
        let received = house.passes(&of_length(limit));
        let fixed = with_line("X: ").len();
        assert_eq!(received.head.get("X").unwrap().len(), limit - fixed);
    });
}

#[test]
fn a_head_may_have_so_many_fields_and_not_one_more() {
    let rows: [(&[&str], usize); 3] = [(&[], 100), (&["--head-fields", "3"], 3), (&["--head-fields", "1000"], 1000)];
    each(rows, |(flags, limit)| {
        let house = House::with(flags);
        house.refuses(of_fields(limit + 1), &[431]);
        house.refuses(of_fields(limit * 2), &[431]);
        assert_eq!(house.passes(&of_fields(limit)).head.all("X").len(), limit - 1);
    });
}

#[test]
fn a_target_may_be_so_long_and_not_a_byte_longer() {
    let rows: [(&[&str], usize); 2] = [(&[], 8 * 1024), (&["--target-bytes", "100"], 100)];
    each(rows, |(flags, limit)| {
        let house = House::with(flags);
        house.refuses(of_target(limit + 1), &[414]);
        // Over the limit of the head as well, and still the target is to blame.
        house.refuses(of_target(limit + 16 * 1024), &[414]);
        assert_eq!(house.passes(&of_target(limit)).target.len(), limit);
    });
}

#[test]
fn a_head_over_a_limit_is_refused_before_it_ends() {
    let house = House::with(&["--head-timeout", "1h"]);
    let target = |length| [b"GET /", &b"y".repeat(length)[..]].concat();
    let value = |length| [b"GET / HTTP/1.1\r\nHost: a\r\nX: ", &b"y".repeat(length)[..]].concat();
    let fields = |count| [&b"GET / HTTP/1.1\r\nHost: a\r\n"[..], &b"X: y\r\n".repeat(count)].concat();
    let rows: [(Vec<u8>, &[u16]); 7] = [
        (target(8 * 1024), &[414]),
        (target(20 * 1024), &[414]),
        (value(16 * 1024), &[431]),
        (value(64 * 1024), &[431]),
        (fields(16 * 1024 / 6), &[431]),
        ([b"GET / HTTP/1.1\r\n", &b"y".repeat(16 * 1024)[..]].concat(), &[431]),
        // A method has no limit of its own.
        (b"Y".repeat(20 * 1024), &[400, 431]),
    ];
    each(rows, |(beginning, statuses)| {
        let mut client = Client::connect(house.balancer.address());
        client.send(&beginning);
        client.expect_refusal(statuses);
    });
    assert_eq!(house.balancer.counters().dials, 0);
}

#[test]
fn the_body_is_not_part_of_the_head() {
    let house = House::with(&["--head-bytes", "1KiB"]);
    let body = "y".repeat(64 * 1024);
    let request = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    assert_eq!(house.passes(request.as_bytes()).body.len(), body.len());
}

#[test]
fn after_all_refusals_a_good_request_is_served() {
    let house = House::with(&[]);
    let refused: &[&[u8]] = &[b"\n", b"GET / HTTP/2.0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\0\0"];
    each(refused, |request| house.refuses(request, &[400, 505]));
    house.passes(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(house.balancer.counters().panics, 0);
}
