//! How long a request is: lengths, codings, chunks and trailers, `Expect`, and that no cut in the bytes changes a thing.
//!
//! The backends here read to the letter (see `support/wire.rs`): a second length, a chunk extension, a length with a
//! sign or a leading zero that reached one of them would fail the test. So a test that a request arrives is also a test
//! that it was framed afresh.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use support::{Backend, Client, Fields, Framing, Gate, Received, Response, balancer, each, eventually};
use threadbare::Balancer;

/// A body that looks like a request: whoever loses count of a body serves it.
const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: behind\r\n\r\n";

/// A balancer before a backend that answers with what it was sent.
struct House {
    balancer: Balancer,
    backend: Backend,
}

impl House {
    fn new() -> Self {
        Self::before(Backend::echo())
    }

    fn before(backend: Backend) -> Self {
        let balancer = balancer(&[&backend.url()], &[]);
        Self { balancer, backend }
    }

    fn client(&self) -> Client {
        Client::connect(self.balancer.address())
    }

    /// The request as the backend got it, on a connection that is fit for another one.
    fn passes(&self, request: impl AsRef<[u8]>) -> Received {
        let mut client = self.client();
        client.send(request.as_ref());
        let response = client.read_response("GET");
        assert!(response.status == 200 && !response.closes(), "{}", client.story());
        let received = self.backend.requests().pop().unwrap();
        client.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response("GET").status, 200, "{}", client.story());
        assert_eq!(self.backend.requests().pop().unwrap().target, "/next", "{}", client.story());
        received
    }

    /// Refused by its head alone; the backend hears of neither it nor what is behind it.
    fn refuses(&self, request: &str, status: u16) {
        for behind in ["", BEHIND] {
            let mut client = self.client();
            client.send(format!("{request}{behind}").as_bytes());
            client.expect_refusal(&[status]);
            assert_eq!(self.balancer.counters().dials, 0, "a backend was bothered: {}", client.story());
        }
        assert_eq!(self.backend.accepted(), 0, "a backend was bothered by {request:?}");
    }

    /// Refused inside its body. Its head may have gone on, but never its end, and nothing else on that connection.
    fn refuses_inside(&self, request: impl AsRef<[u8]>, statuses: &[u16]) {
        let mut client = self.client();
        client.send(request.as_ref());
        client.expect_refusal(statuses);
        self.backend.wait_until("the connection with half a request is dropped", |record| record.open == 0);
        assert_eq!(self.backend.wait_for_requests(0).iter().filter(|r| r.whole).count(), 0, "{}", client.story());
    }
}

/// A POST with these framing fields, and `hello` behind it.
fn with_lines(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\nhello")
}

/// A POST with this body, which is chunked or should be.
fn chunked(body: impl AsRef<[u8]>) -> Vec<u8> {
    [b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", body.as_ref()].concat()
}

// Content-Length.

#[test]
fn a_length_goes_out_as_one_fresh_decimal() {
    let house = House::new();
    let lines = [
        "Content-Length: 5",
        "content-length:5",
        "CONTENT-LENGTH: \t5 \t",
        "Content-Length: 05",
        "Content-Length: 00000000000000000000000000000000005",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nX: y\r\ncontent-length: 5\r\nContent-Length: 5",
    ];
    each(lines, |lines| {
        let received = house.passes(with_lines(lines));
        assert_eq!((received.framing, &received.body[..]), (Framing::Length(5), &b"hello"[..]), "{lines:?}");
    });
}

#[test]
fn a_length_repeated_within_a_line_counts_as_one_too() {
    // RFC 9110 section 8.6 leaves a choice; a proxy in front of us that joins repeated lines makes exactly this.
    let house = House::new();
    let lines = ["Content-Length: 5, 5", "Content-Length: 5,5,5", "Content-Length: 5\r\nContent-Length: 5, 5"];
    each(lines, |lines| assert_eq!(house.passes(with_lines(lines)).framing, Framing::Length(5), "{lines:?}"));
}

#[test]
fn a_length_of_zero_is_an_empty_body() {
    let house = House::new();
    each(["0", "00"], |length| {
        let received = house.passes(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
        assert_eq!(received.framing, Framing::Length(0), "{received:?}");
    });
}

#[test]
fn every_method_may_have_a_body() {
    let house = House::new();
    each(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "X"], |method| {
        let received = house.passes(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"));
        assert_eq!((&*received.method, &received.body[..]), (method, &b"hello"[..]));
        let received = house.passes(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        ));
        assert_eq!((&*received.method, &received.body[..]), (method, &b"hello"[..]));
    });
}

#[test]
fn a_faulty_length_is_refused() {
    let house = House::new();
    let lines = [
        "Content-Length:",
        "Content-Length:  ",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: -0",
        "Content-Length: 0x5",
        "Content-Length: 5h",
        "Content-Length: 5.0",
        "Content-Length: 5e0",
        "Content-Length: 5_0",
        "Content-Length: 5;",
        "Content-Length: 5 5",
        "Content-Length: 5\t5",
        "Content-Length: \"5\"",
        "Content-Length: five",
        "Content-Length: a",
        "Content-Length: 5, 6",
        "Content-Length: 5,6",
        "Content-Length: 5, 5, 6",
        "Content-Length: 5, +5",
        "Content-Length: 5, x",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 6\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 0",
        "Content-Length: 5\r\nContent-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5, 6",
        "Content-Length: 5\r\nContent-Length:",
        "Content-Length: 5\r\nContent-Length: +5",
        "Content-Length: 5\r\nContent-Length: x",
        // One more than fits a u64, and far more.
        "Content-Length: 18446744073709551616",
        "Content-Length: 184467440737095516160",
        "Content-Length: 99999999999999999999999999999999999999999999999999",
        // Digits elsewhere: ARABIC-INDIC FIVE, FULLWIDTH FIVE.
        "Content-Length: \u{0665}",
        "Content-Length: \u{ff15}",
    ];
    each(lines, |lines| {
        house.refuses(&with_lines(lines), 400);
        house.refuses(&with_lines(lines).replace("HTTP/1.1", "HTTP/1.0"), 400);
        house.refuses(&with_lines(lines).replace("POST", "GET"), 400);
    });
}

#[test]
fn the_longest_length_there_is_sizes_nothing() {
    let house = House::new();
    let mut client = house.client();
    client.send(with_lines(&format!("Content-Length: {}", u64::MAX)).as_bytes());
    house.backend.wait_until("the head and the first bytes go on", |record| {
        record.requests.iter().any(|r| r.framing == Framing::Length(u64::MAX) && r.body == b"hello")
    });
    client.abort();
    house.backend.wait_until("the connection is dropped", |record| record.open == 0);
    assert!(!house.backend.requests()[0].whole);
}

// Transfer-Encoding.

#[test]
fn chunked_is_understood_in_any_case() {
    let house = House::new();
    each(["chunked", "CHUNKED", "Chunked", "cHuNkEd", " \tchunked\t "], |coding| {
        let request =
            format!("POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:{coding}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        let received = house.passes(request);
        assert_eq!((received.framing, &received.body[..]), (Framing::Chunked, &b"hello"[..]), "{coding:?}");
    });
}

#[test]
fn a_coding_that_is_not_chunked_once_is_refused() {
    let house = House::new();
    let rows = [
        ("Transfer-Encoding: gzip", 501),
        ("Transfer-Encoding: identity", 501),
        ("Transfer-Encoding: deflate", 501),
        ("Transfer-Encoding: cow", 501),
        ("Transfer-Encoding: xchunked", 501),
        ("Transfer-Encoding: chunkedx", 501),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: gzip,chunked", 501),
        ("Transfer-Encoding: GZIP, CHUNKED", 501),
        ("Transfer-Encoding: identity, chunked", 501),
        ("Transfer-Encoding: deflate, gzip, chunked", 501),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", 501),
        ("Transfer-Encoding: gzip\r\nX: y\r\ntransfer-encoding: chunked", 501),
        ("Transfer-Encoding:", 400),
        ("Transfer-Encoding:  ", 400),
        ("Transfer-Encoding: ,", 400),
        ("Transfer-Encoding: ,chunked", 400),
        ("Transfer-Encoding: chunked,", 400),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: chunked,chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding:", 400),
        ("Transfer-Encoding: chunked\r\nX: y\r\ntransfer-encoding: chunked", 400),
        ("Transfer-Encoding: chunked, gzip", 400),
        ("Transfer-Encoding: chunked, identity", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip", 400),
        ("Transfer-Encoding: chunked, gzip, chunked", 400),
        ("Transfer-Encoding: chunked chunked", 400),
        ("Transfer-Encoding: chunked;a=b", 400),
        ("Transfer-Encoding: \"chunked\"", 400),
        ("Transfer-Encoding: chunked\u{a0}", 400),
    ];
    each(rows, |(lines, status)| {
        house.refuses(&with_lines(lines), status);
        house.refuses(&with_lines(lines).replace("POST", "GET"), status);
    });
}

#[test]
fn a_coding_in_http_1_0_is_refused() {
    let house = House::new();
    let rows = ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nConnection: keep-alive"];
    each(rows, |lines| house.refuses(&with_lines(lines).replace("HTTP/1.1", "HTTP/1.0"), 400));
}

#[test]
fn a_request_with_a_length_and_a_coding_is_refused() {
    let house = House::new();
    let rows = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nX: y\r\ncontent-length: 0",
        "Content-Length: 0\r\nX: y\r\ntransfer-encoding: CHUNKED",
        "Content-Length: 5\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nTransfer-Encoding: gzip",
        "Content-Length: 5\r\nTransfer-Encoding:",
        "Content-Length: x\r\nTransfer-Encoding: chunked",
    ];
    each(rows, |lines| {
        house.refuses(&with_lines(lines), 400);
        house.refuses(&with_lines(lines).replace("HTTP/1.1", "HTTP/1.0"), 400);
    });
}

// Bodies.

#[test]
fn without_a_framing_field_there_is_no_body_whatever_the_method() {
    let house = House::new();
    each(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "X"], |method| {
        let before = house.backend.requests().len();
        let mut client = house.client();
        client.send(format!("{method} /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        for method in [method, "GET"] {
            assert_eq!(client.read_response(method).status, 200, "{}", client.story());
        }
        let received = house.backend.requests().split_off(before);
        let told: Vec<_> = received.iter().map(|request| (&*request.target, request.body.len())).collect();
        assert_eq!(told, [("/1", 0), ("/2", 0)], "{}", client.story());
    });
}

/// Bytes without a pattern that a slip by a buffer's length would keep.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_body_of_any_length_arrives() {
    let house = House::new();
    let lengths = [1, 2, 8191, 8192, 8193, 16383, 16385, 32767, 32768, 32769, 65535, 65536, 65537, 3_000_000];
    each(lengths, |length| {
        let body = noise(length);
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        assert!(house.passes([head.as_bytes(), &body].concat()).body == body, "a body of {length} bytes");
    });
}

#[test]
fn a_body_in_chunks_of_any_length_arrives() {
    let house = House::new();
    let rows = [
        (1, 2_000),
        (2, 2_000),
        (15, 5_000),
        (16, 5_000),
        (255, 70_000),
        (4_095, 200_000),
        (65_536, 1_000_000),
        (70_000, 1_000_000),
        (3_000_000, 3_000_000),
    ];
    each(rows, |(chunk, length)| {
        let body = noise(length);
        let chunks = body.chunks(chunk).flat_map(|c| [format!("{:x}\r\n", c.len()).as_bytes(), c, b"\r\n"].concat());
        let request = chunked([&chunks.collect::<Vec<u8>>()[..], b"0\r\n\r\n"].concat());
        let received = house.passes(request);
        assert!(received.framing == Framing::Chunked && received.body == body, "{length} bytes by {chunk}");
    });
}

#[test]
fn each_piece_of_a_body_goes_on_at_once() {
    // The small one may be collected, for half a second; the backend has it before it is whole all the same.
    let rows: [(&str, [&[u8]; 4]); 3] = [
        ("Transfer-Encoding: chunked", [b"3\r\nabc\r\n", b"3\r\nde", b"f\r\n", b"0\r\n\r\n"]),
        ("Content-Length: 100006", [b"abc", b"de", b"f", &[b'x'; 100_000]]),
        ("Content-Length: 6", [b"abc", b"de", b"f", b""]),
    ];
    each(rows, |(line, [first, second, third, rest])| {
        let house = House::new();
        let mut client = house.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n").as_bytes());
        for (piece, so_far) in [(first, &b"abc"[..]), (second, b"abcde"), (third, b"abcdef")] {
            client.send(piece);
            house.backend.wait_until(line, |record| record.requests.iter().any(|request| request.body == so_far));
        }
        client.send(rest);
        assert_eq!(client.read_response("POST").status, 200, "{}", client.story());
    });
}

#[test]
fn a_body_that_breaks_off_is_never_ended_as_if_it_were_whole() {
    type Leave = fn(Client);
    let leaves: [(&str, Leave); 3] = [
        ("a reset", Client::abort),
        ("a close", drop),
        ("an end of file", |mut client| {
            client.half_close();
            client.try_to_end();
        }),
    ];
    let requests = [
        with_lines("Content-Length: 6"),
        with_lines("Content-Length: 100000"),
        with_lines("Transfer-Encoding: chunked").replace("hello", "5\r\nhel"),
        with_lines("Transfer-Encoding: chunked").replace("hello", "5\r\nhello"),
        with_lines("Transfer-Encoding: chunked").replace("hello", "5\r\nhello\r\n"),
        with_lines("Transfer-Encoding: chunked").replace("hello", "5\r\nhello\r\n0\r\n"),
        with_lines("Transfer-Encoding: chunked").replace("hello", "5\r\nhello\r\n0\r\nX: y\r\n"),
    ];
    each(leaves, |(how, leave)| {
        for request in &requests {
            let house = House::new();
            let mut client = house.client();
            client.send(request.as_bytes());
            house.backend.wait_until("the beginning goes on", |record| !record.requests.is_empty());
            leave(client);
            house.backend.wait_until("the connection is dropped", |record| record.open == 0);
            assert!(house.backend.requests().iter().all(|received| !received.whole), "{how} behind {request:?}");
            eventually(|| house.balancer.counters().connections == 0, "the client's connection is forgotten");
        }
    });
}

// Chunks.

#[test]
fn a_chunk_may_be_written_in_these_ways() {
    let house = House::new();
    let rows: &[(&str, &str)] = &[
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n", "hello"),
        ("a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("1a\r\n01234567890123456789012345\r\n0\r\n\r\n", "01234567890123456789012345"),
        ("1A\r\n01234567890123456789012345\r\n0\r\n\r\n", "01234567890123456789012345"),
        ("05\r\nhello\r\n0\r\n\r\n", "hello"),
        ("0000000000000005\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5\r\nhello\r\n00\r\n\r\n", "hello"),
        ("5\r\nhello\r\n0000000000000000\r\n\r\n", "hello"),
        // Data that looks like what is around it.
        ("5\r\n\r\n0\r\n\r\n0\r\n\r\n", "\r\n0\r\n"),
        ("7\r\n0\r\n\r\n5\r\r\n0\r\n\r\n", "0\r\n\r\n5\r"),
        // Extensions: a name, a value, a quoted value, several; with white space as some clients have it.
        ("5;a\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a=b\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a=\"b\"\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a=\"\"\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a=\"b;c=d\"\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a=\"b\\\"c\\\\\"\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a=\"b c\td\"\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a;b=c;d=\"e\"\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5 ;a\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5; a\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5\t;\ta\t=\tb\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5 ; a = b ; c = \"d\"\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5\r\nhello\r\n0;last\r\n\r\n", "hello"),
        ("5\r\nhello\r\n000 ; last = \"1\"\r\n\r\n", "hello"),
    ];
    each(rows, |(body, decoded)| {
        let received = house.passes(chunked(body));
        assert_eq!(received.body, decoded.as_bytes(), "{body:?}");
        assert_eq!(received.framing, Framing::Chunked, "{body:?}");
        assert_eq!(received.trailers, Fields::default(), "{body:?}");
    });
}

#[test]
fn a_faulty_chunk_is_refused_and_its_request_never_ends() {
    let house = House::new();
    let bodies: &[&[u8]] = &[
        // Sizes.
        b"\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"\t5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\t\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"-0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"x5\r\nhello\r\n0\r\n\r\n",
        b"5x\r\nhello\r\n0\r\n\r\n",
        b"5h\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"5_\r\nhello\r\n0\r\n\r\n",
        b"5.0\r\nhello\r\n0\r\n\r\n",
        b"5,\r\nhello\r\n0\r\n\r\n",
        b"5=a\r\nhello\r\n0\r\n\r\n",
        b"5:a\r\nhello\r\n0\r\n\r\n",
        b"\"5\"\r\nhello\r\n0\r\n\r\n",
        b";a\r\nhello\r\n0\r\n\r\n",
        b"\0\r\nhello\r\n0\r\n\r\n",
        b"5\0\r\nhello\r\n0\r\n\r\n",
        b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n",
        // Seventeen digits, even if they are zeros; and a size whose upper digits would be lost.
        b"00000000000000005\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n00000000000000000\r\n\r\n",
        // Line ends.
        b"5\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\r\nhello\r\n0\r\n\r\n",
        b"5\n\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\r\r\n0\r\n\r\n",
        b"5\r\nhello \r\n0\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"6\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\n\r\n",
        b"5\r\nhello\r\n0\r\n\n",
        b"5\r\nhello\r\n0\n\n",
        b"5\r\nhello\r\n0\r\r\n\r\n",
        // Extensions.
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5;a\0\r\nhello\r\n0\r\n\r\n",
        b"5;a=b\x01\r\nhello\r\n0\r\n\r\n",
        b"5;a=\x7f\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\x01\"\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\nc\"\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\r\n\"\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\\\r\n\"\r\nhello\r\n0\r\n\r\n",
        b"5 a\r\nhello\r\n0\r\n\r\n",
        b"5;a \r\nhello\r\n0\r\n\r\n",
        b"5;a=b \r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0;a\n\r\n",
        // Trailer sections.
        b"5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n",
        b"5\r\nhello\r\n0\r\n X: y\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX\r\n\r\n",
        b"5\r\nhello\r\n0\r\n: y\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX Y: z\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: y\n\r\n",
        b"5\r\nhello\r\n0\r\nX: y\nZ: z\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: y\rz\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: \0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX\x01: y\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: y\r\n\n",
        b"5\r\nhello\r\n0\r\n5\r\nhello\r\n0\r\n\r\n",
    ];
    each(bodies, |body| {
        house.refuses_inside(chunked(body), &[400]);
        // With another request behind it, which is neither read on into the body nor answered.
        house.refuses_inside([&chunked(body), BEHIND.as_bytes()].concat(), &[400]);
    });
}

#[test]
fn what_surrounds_the_data_of_a_chunk_is_bounded() {
    let house = House::new();
    let long = "y".repeat(1024 * 1024);
    let rows = [
        "0".repeat(1024 * 1024),
        format!("5;{long}"),
        format!("5;a=\"{long}"),
        format!("5{}", " ".repeat(1024 * 1024)),
        format!("5{}", ";a".repeat(512 * 1024)),
        format!("5\r\nhello\r\n0;{long}"),
        format!("5\r\nhello\r\n0\r\nX: {long}"),
        format!("5\r\nhello\r\n0\r\n{long}"),
        format!("5\r\nhello\r\n0\r\n{}", "X: y\r\n".repeat(150_000)),
    ];
    each(rows, |body| house.refuses_inside(chunked(body), &[400, 431]));
}

#[test]
fn the_longest_chunk_there_is_sizes_nothing() {
    let house = House::new();
    each(["ffffffffffffffff", "FFFFFFFFFFFFFFFF;a=b", "7fffffffffffffff", "8000000000000000"], |size| {
        let mut client = house.client();
        client.send(&chunked(format!("{size}\r\nhello")));
        house.backend.wait_until("the first bytes go on", |record| {
            record.open == 1 && record.requests.last().is_some_and(|request| request.body == b"hello")
        });
        client.abort();
        house.backend.wait_until("the connection is dropped", |record| record.open == 0);
    });
    assert!(house.backend.requests().iter().all(|request| !request.whole));
    assert_eq!(house.balancer.counters().panics, 0);
}

// Trailers.

/// A chunked POST with these fields in its head and those in its trailer section.
fn with_trailers(head: &str, trailers: &str) -> String {
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{head}Transfer-Encoding: chunked\r\n\r\n");
    format!("{head}5\r\nhello\r\n0\r\n{trailers}\r\n")
}

#[test]
fn trailers_go_on_behind_the_body_and_never_into_the_head() {
    let house = House::new();
    let received = house.passes(with_trailers(
        "Trailer: X-Sum, X-Two\r\n",
        "X-Sum: 1\r\nx-two: 2\r\nX-Two:  3 \r\nX-Empty:\r\nX-Two: 2\r\n",
    ));
    let expected = [("X-Sum", "1"), ("x-two", "2"), ("X-Two", "3"), ("X-Empty", ""), ("X-Two", "2")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(received.trailers.0, expected);
    assert_eq!(received.head.get("Trailer"), Some("X-Sum, X-Two"));
    for (name, _) in expected {
        assert_eq!(received.head.get(&name), None, "{received:?}");
    }
}

#[test]
fn a_trailer_does_not_steer_framing_routing_or_authentication() {
    let house = House::new();
    let dropped = [
        "Content-Length: 5",
        "content-length: 0",
        "Transfer-Encoding: chunked",
        "Trailer: X",
        "Host: b",
        "Connection: close",
        "Close: 1",
        "Connection: X-Good",
        "Keep-Alive: timeout=1",
        "Proxy-Connection: close",
        "TE: trailers",
        "Upgrade: websocket",
        "Authorization: Basic YTpi",
        "Proxy-Authorization: Basic YTpi",
        "X-Forwarded-For: 1.2.3.4",
        "Forwarded: for=1.2.3.4",
        // To CGI the same as with dashes.
        "X_Forwarded_For: 1.2.3.4",
        "Content_Length: 5",
    ];
    each(dropped, |line| {
        let received = house.passes(with_trailers("", &format!("X-Good: 1\r\n{line}\r\nX-Good: 2\r\n")));
        assert_eq!(received.trailers.all("X-Good"), ["1", "2"], "{line:?}");
        assert_eq!(received.trailers.0.len(), 2, "{line:?}: {received:?}");
    });
}

#[test]
fn a_trailer_that_connection_names_stops_here() {
    let house = House::new();
    let received = house.passes(with_trailers(
        "Connection: x-hop, X-Hop-Too\r\nConnection: X-Third\r\n",
        "X-Hop: 1\r\nX-Good: 2\r\nx-hop-too: 3\r\nX-THIRD: 4\r\n",
    ));
    assert_eq!(received.trailers.0, [("X-Good".to_owned(), "2".to_owned())]);
}

// Expect.

/// Reads a head and says 100 if it was asked to; then the body, and 200 with both.
fn polite() -> Backend {
    Backend::start(|connection| {
        while let Some(head) = connection.read_head() {
            if head.lists("Expect", "100-continue") {
                connection.send(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            if connection.read_rest().is_none() {
                break;
            }
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    })
}

#[test]
fn an_expectation_and_its_answer_pass() {
    let house = House::before(polite());
    each(["100-continue", "100-Continue", "100-CONTINUE"], |expect| {
        let mut client = house.client();
        for (framing, body) in [
            ("Content-Length: 5", "hello"),
            ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
            ("Content-Length: 5", "again"),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: {expect}\r\n{framing}\r\n\r\n");
            client.send(head.as_bytes());
            assert_eq!(client.read_interim().status, 100, "{}", client.story());
            client.send(body.as_bytes());
            let response = client.read_response("POST");
            assert!(response.status == 200 && !response.closes(), "{}", client.story());
            let received = house.backend.requests().pop().unwrap();
            assert!(received.head.lists("Expect", "100-continue") && received.body.len() == 5, "{received:?}");
        }
    });
}

#[test]
fn a_client_that_does_not_wait_for_the_100_gets_it_all_the_same() {
    let house = House::before(polite());
    let mut client = house.client();
    client.send(with_lines("Expect: 100-continue\r\nContent-Length: 5").as_bytes());
    assert_eq!(client.read_interim().status, 100, "{}", client.story());
    assert_eq!(client.read_response("POST").status, 200, "{}", client.story());
}

#[test]
fn no_100_comes_but_from_the_backend() {
    let asked = Gate::new();
    let house = House::before({
        let asked = asked.clone();
        Backend::start(move |connection| {
            connection.read_head();
            asked.pass();
            connection.send(b"HTTP/1.1 100 Continue\r\nX-Of: backend\r\n\r\n");
            connection.read_rest();
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        })
    });
    let mut client = house.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    house.backend.wait_until("the head goes on without its body", |record| !record.requests.is_empty());
    asked.open();
    let interim = client.read_interim();
    assert_eq!((interim.status, interim.head.get("X-Of")), (100, Some("backend")), "{}", client.story());
    client.send(b"hello");
    assert_eq!(client.read_response("POST").status, 200, "{}", client.story());
}

#[test]
fn a_body_that_was_refused_is_never_parsed_as_a_request() {
    let house = House::before(Backend::start(|connection| {
        while let Some(head) = connection.read_head() {
            if head.get("Expect").is_some() {
                connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
            } else {
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
            // The body comes all the same, or the connection goes: both are right.
            if connection.read_rest().is_none() {
                break;
            }
        }
    }));
    let head = format!(
        "POST /refused HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        BEHIND.len()
    );
    let after = "GET /after HTTP/1.1\r\nHost: a\r\n\r\n";
    // The client sends the body with the head; behind the refusal, as it may; or not, and goes on with the next request
    // only where the connection is left to it.
    each(["with the head", "behind the refusal"], |when| {
        let mut client = house.client();
        if when == "with the head" {
            client.send(format!("{head}{BEHIND}").as_bytes());
        } else {
            client.send(head.as_bytes());
        }
        let response = client.read_response("POST");
        assert_eq!((response.status, &*response.text()), (403, "no"), "{}", client.story());
        if when == "behind the refusal" {
            client.try_send(BEHIND.as_bytes());
        }
        if response.closes() {
            client.expect_closed();
        } else {
            client.send(after.as_bytes());
            assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
        }
    });
    let targets: Vec<String> = house.backend.requests().into_iter().map(|request| request.target).collect();
    assert!(!targets.contains(&"/behind".to_owned()), "{targets:?}");
}

#[test]
fn an_expectation_without_a_body_is_ignored() {
    let house = House::new();
    let heads = [
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
    ];
    each(heads, |head| assert_eq!(house.passes(head).head.get("Expect"), None, "{head:?}"));
}

#[test]
fn an_expectation_from_http_1_0_is_ignored() {
    let house = House::new();
    let mut client = house.client();
    client.send(with_lines("Expect: 100-continue\r\nContent-Length: 5").replace("HTTP/1.1", "HTTP/1.0").as_bytes());
    assert_eq!(client.read_response("POST").status, 200, "{}", client.story());
    let received = house.backend.requests().pop().unwrap();
    assert_eq!((received.head.get("Expect"), &received.body[..]), (None, &b"hello"[..]), "{received:?}");
}

#[test]
fn another_expectation_fails() {
    let house = House::new();
    let expectations = [
        "Expect: x",
        "Expect: 100",
        "Expect: continue",
        "Expect: 100-continued",
        "Expect: 200-ok",
        "Expect: 100-continue, x",
        "Expect: x, 100-continue",
        "Expect: 100-continue\r\nExpect: x",
        "Expect: x\r\nExpect: 100-continue",
        "Expect: 100-continue;a=b",
        "Expect: \"100-continue\"",
    ];
    each(expectations, |lines| {
        let mut client = house.client();
        let length = BEHIND.len();
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\nContent-Length: {length}\r\n\r\n{BEHIND}");
        client.send(request.as_bytes());
        let response = client.read_response("POST");
        assert_eq!(response.status, 417, "{}", client.story());
        if response.closes() {
            client.expect_closed();
        } else {
            // The body is skipped, so this is the next answer.
            client.send(b"GET / HTTP/1.1\r\n\r\n");
            client.expect_refusal(&[400]);
        }
        assert_eq!(house.balancer.counters().dials, 0, "a backend was bothered: {}", client.story());
    });
}

// However the bytes are cut, the outcome is the same.

/// What a test can compare of an answer: all but the moment and the request's name.
fn told(response: &Response) -> (String, Vec<(String, String)>, String) {
    let varies = |name: &str| ["Date", "X-Request-Id"].iter().any(|varying| name.eq_ignore_ascii_case(varying));
    let fields = response.head.fields.0.iter().filter(|(name, _)| !varies(name)).cloned().collect();
    let text = response.text();
    (response.head.start.clone(), fields, text.split("(request ").next().unwrap().to_owned())
}

/// What the backend got whole, and what the client was told, when these bytes are sent with these cuts.
fn outcome(house: &House, bytes: &[u8], methods: &[&str], cuts: &[usize]) -> impl PartialEq + std::fmt::Debug + use<> {
    let before = house.backend.requests().len();
    let mut client = house.client();
    client.send_split(bytes, cuts);
    let answers: Vec<_> = methods.iter().map(|method| client.read_response(method)).collect();
    if answers.last().is_some_and(Response::closes) {
        client.expect_closed();
    }
    let whole = house.backend.requests().split_off(before).into_iter().filter(|request| request.whole);
    let received: Vec<_> = whole.map(|r| (r.head, r.framing, r.body, r.trailers)).collect();
    (received, answers.iter().map(told).collect::<Vec<_>>())
}

#[test]
fn however_a_request_is_cut_the_outcome_is_the_same() {
    const ID: &str = "X-Request-Id: the-same\r\n";
    // What is refused is refused near its end, so that little is sent into a closing connection.
    let rows: &[(String, &[&str])] = &[
        (format!("GET /a?b HTTP/1.1\r\nHost: a\r\n{ID}X: y\r\nX:  z \r\n\r\n"), &["GET"]),
        (format!("HEAD / HTTP/1.1\r\nHost: a\r\n{ID}\r\n"), &["HEAD"]),
        (format!("\r\nGET http://b:80?c HTTP/1.0\r\n{ID}\r\n"), &["GET"]),
        (format!("POST / HTTP/1.1\r\nHost: a\r\n{ID}Content-Length: 5\r\n\r\nhello"), &["POST"]),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\n{ID}Transfer-Encoding: chunked\r\n\r\n\
                 3;a=\"b;\\\"c\"\r\nhel\r\n0002 ; d = e\r\nlo\r\n0;f\r\nX-Sum: 1\r\nHost: b\r\n\r\n"
            ),
            &["POST"],
        ),
        (
            format!(
                "POST /1 HTTP/1.1\r\nHost: a\r\n{ID}Content-Length: 5\r\n\r\nhello\
                 GET /2 HTTP/1.1\r\nHost: a\r\n{ID}\r\n\
                 POST /3 HTTP/1.1\r\nHost: a\r\n{ID}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\
                 \r\nGET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{ID}\r\n"
            ),
            &["POST", "GET", "POST", "GET"],
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\nZ: z\r\n\r\n".to_owned(), &["GET"]),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n".to_owned(), &["GET"]),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n".to_owned(), &["GET"]),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n".to_owned(), &["GET"]),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), &["GET"]),
        ("\r\n\r\n".to_owned(), &["GET"]),
        (with_lines("Content-Length: 5\r\nContent-Length: 6").replace("hello", ""), &["POST"]),
        (with_lines("Content-Length: 5\r\nTransfer-Encoding: chunked").replace("hello", ""), &["POST"]),
        (with_lines("Transfer-Encoding: gzip, chunked").replace("hello", ""), &["POST"]),
        (String::from_utf8(chunked("5\r\nhello\n0\r\n\r\n")).unwrap(), &["POST"]),
        (String::from_utf8(chunked("5\r\nhello\r\n 0\r\n\r\n")).unwrap(), &["POST"]),
        (String::from_utf8(chunked("5\r\nhello\r\n0\r\nX : y\r\n\r\n")).unwrap(), &["POST"]),
    ];
    each(rows, |(text, methods)| {
        let bytes = text.as_bytes();
        let house = House::new();
        let whole = outcome(&house, bytes, methods, &[]);
        for cut in 1..bytes.len() {
            assert_eq!(outcome(&house, bytes, methods, &[cut]), whole, "{text:?} cut at {cut}");
        }
        let everywhere: Vec<usize> = (1..bytes.len()).collect();
        assert_eq!(outcome(&house, bytes, methods, &everywhere), whole, "{text:?} byte by byte");
    });
}
