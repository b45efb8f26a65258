//! What a backend may say, and what its client gets to hear of it: where a response ends, which heads are mended and
//! which refused, and that nobody mistakes a part for the whole.
//!
//! The client here reads to the letter (see `support/wire.rs`): a second length, a coding where there is no body, a
//! folded line or a control character that reached it would fail the test. So a test that a response arrives is also a
//! test that it was written afresh.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use support::{Backend, Client, Cut, End, Framing, Gate, Head, Response, balancer, each, eventually};
use threadbare::Balancer;

/// A request that keeps its connection, in either version.
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const GET_1_0: &str = "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";

/// What a backend does when it has said its piece.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// Reads the next request.
    Listen,
    /// Says no more, and reads nothing either, until the balancer leaves.
    Wait,
    Close,
    Reset,
}

/// A backend that says these bytes to each request.
fn saying(bytes: impl AsRef<[u8]>, then: Then) -> Backend {
    let bytes = bytes.as_ref().to_vec();
    Backend::start(move |connection| {
        while connection.read_request().is_some() {
            connection.send(&bytes);
            match then {
                Then::Listen => {}
                Then::Wait => drop(connection.read_to_end()),
                Then::Close => break,
                Then::Reset => return connection.reset(),
            }
        }
    })
}

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

    /// The answer to this request, and the client that got it.
    fn ask(&self, request: &str) -> (Response, Client) {
        let mut client = self.client();
        client.send(request.as_bytes());
        let method = request.split(' ').next().unwrap();
        (client.read_response(method), client)
    }

    /// The answer of our own that there is instead of the backend's; the client may go on, the backend's connection
    /// is dropped.
    fn fails(&self, request: &str, status: u16, word: &str) {
        let asked = self.backend.requests().len();
        let (response, mut client) = self.ask(request);
        assert_eq!(response.status, status, "{}", client.story());
        assert!(response.text().contains(word), "not {word}: {}", client.story());
        assert!(!response.closes(), "the client did nothing wrong: {}", client.story());
        self.backend.wait_until("the connection is dropped", |record| record.open == 0);
        assert_eq!(self.backend.requests().len(), asked + 1, "it was asked again: {}", client.story());
        client.send(b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response("GET").status, status, "{}", client.story());
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
}

/// A head with these lines, and five bytes behind it.
fn hello(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\nhello")
}

/// A head with these lines, and five bytes behind it in a chunk.
fn hello_in_a_chunk(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
}

// Responses that have no body.

#[test]
fn there_is_no_body_where_there_can_be_none_whatever_the_fields_say() {
    // Method, status, what the backend says of a body, and the Content-Length that the client gets.
    let rows = [
        ("HEAD", "200 OK", "Content-Length: 5", Some("5")),
        ("HEAD", "200 OK", "Content-Length: 005", Some("5")),
        ("HEAD", "200 OK", "Content-Length: 5\r\nContent-Length: 5", Some("5")),
        ("HEAD", "200 OK", "Content-Length: 5, 5", Some("5")),
        ("HEAD", "200 OK", "Content-Length: 0", Some("0")),
        ("HEAD", "200 OK", "Content-Length: 18446744073709551615", Some("18446744073709551615")),
        ("HEAD", "200 OK", "Transfer-Encoding: chunked", None),
        ("HEAD", "200 OK", "X: y", None),
        ("HEAD", "404 Not Found", "Content-Length: 5", Some("5")),
        ("HEAD", "204 No Content", "Content-Length: 5", None),
        ("HEAD", "304 Not Modified", "Content-Length: 5", Some("5")),
        ("GET", "204 No Content", "Content-Length: 5", None),
        ("GET", "204 No Content", "Content-Length: 0", None),
        ("GET", "204 No Content", "Transfer-Encoding: chunked", None),
        ("GET", "204 No Content", "X: y", None),
        ("GET", "304 Not Modified", "Content-Length: 5", Some("5")),
        ("GET", "304 Not Modified", "Content-Length: 5\r\ncontent-length: 0005", Some("5")),
        ("GET", "304 Not Modified", "Transfer-Encoding: chunked", None),
        ("GET", "304 Not Modified", "X: y", None),
        ("POST", "204 No Content", "Content-Length: 5", None),
        ("DELETE", "204 No Content", "Transfer-Encoding: chunked", None),
    ];
    each(rows, |(method, status, line, length)| {
        let house = House::before(saying(format!("HTTP/1.1 {status}\r\n{line}\r\n\r\n"), Then::Listen));
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        let (response, mut client) = house.ask(&request);
        assert!(status.starts_with(&response.status.to_string()), "{}", client.story());
        assert_eq!(response.head.get("Content-Length"), length, "{}", client.story());
        // That the next answer is understood shows that both connections stand where they should.
        client.send(request.as_bytes());
        assert_eq!(client.read_response(method).status, response.status, "{}", client.story());
        // What a 204 announces that can't be there may come later, and be nobody's.
        let in_vain = status.starts_with("204") && ["Content-Length: 5", "Transfer-Encoding: chunked"].contains(&line);
        if matches!(method, "GET" | "HEAD") {
            let connections = if in_vain { 2 } else { 1 };
            assert_eq!(house.backend.accepted(), connections, "there was nothing to wait for: {}", client.story());
        }
    });
}

#[test]
fn a_length_that_tells_of_a_body_elsewhere_is_checked_all_the_same() {
    let lengths = ["+5", "5, 6", "0x5", "5 5", "", "-1", "18446744073709551616"];
    let rows = lengths.into_iter().flat_map(|length| [("HEAD", "200 OK", length), ("GET", "304 Not Modified", length)]);
    each(rows, |(method, status, length)| {
        let house =
            House::before(saying(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n"), Then::Listen));
        let (response, client) = house.ask(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(response.status, 502, "{}", client.story());
    });
}

#[test]
fn an_interim_response_has_neither_body_nor_framing() {
    let lines = ["Content-Length: 5", "Transfer-Encoding: chunked", "Content-Length: 0", "Transfer-Encoding: gzip"];
    each(lines, |line| {
        let response =
            format!("HTTP/1.1 103 Early Hints\r\n{line}\r\nLink: </x>\r\n\r\n{}", hello("Content-Length: 5"));
        let house = House::before(saying(response, Then::Listen));
        let mut client = house.client();
        client.send(GET.as_bytes());
        assert_eq!(client.read_interim().head.get("Link"), Some("</x>"), "{}", client.story());
        assert_eq!(client.read_response("GET").text(), "hello", "{}", client.story());
    });
}

// Date.

#[test]
fn a_final_response_without_a_date_gets_one() {
    let rows = [
        ("GET", "200 OK", "Content-Length: 0"),
        ("GET", "204 No Content", "X: y"),
        ("GET", "304 Not Modified", "X: y"),
        ("GET", "404 Not Found", "Content-Length: 0"),
        ("GET", "500 Internal Server Error", "Content-Length: 0"),
        ("HEAD", "200 OK", "Content-Length: 0"),
    ];
    each(rows, |(method, status, line)| {
        let house = House::before(saying(format!("HTTP/1.1 {status}\r\n{line}\r\n\r\n"), Then::Listen));
        let (response, client) = house.ask(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let date = response.head.get("Date").unwrap_or_else(|| panic!("no Date: {}", client.story()));
        let time = httpdate::parse_http_date(date).unwrap_or_else(|error| panic!("{date:?}: {error}"));
        assert_eq!(httpdate::fmt_http_date(time), date, "the one format there is");
        let now = SystemTime::now();
        let apart = now.duration_since(time).or_else(|_| time.duration_since(now)).unwrap();
        assert!(apart < Duration::from_secs(60), "{date:?} is {apart:?} from now");
    });
}

#[test]
fn a_date_that_the_backend_gave_is_not_touched() {
    let dates = ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "yesterday", ""];
    each(dates, |date| {
        let house = House::before(saying(hello(&format!("Content-Length: 5\r\ndate: {date}")), Then::Listen));
        let (response, client) = house.ask(GET);
        assert_eq!(response.head.get("Date"), Some(date), "{}", client.story());
    });
}

// Framing.

#[test]
fn a_body_arrives_framed_as_it_was() {
    let rows = [
        (hello("Content-Length: 5"), Framing::Length(5), "hello"),
        (hello("content-length:5"), Framing::Length(5), "hello"),
        (hello("CONTENT-LENGTH: \t05 \t"), Framing::Length(5), "hello"),
        (hello("Content-Length: 5\r\nX: y\r\ncontent-length: 05"), Framing::Length(5), "hello"),
        (hello("Content-Length: 5, 5"), Framing::Length(5), "hello"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(), Framing::Length(0), ""),
        (hello_in_a_chunk("Transfer-Encoding: chunked"), Framing::Chunked, "hello"),
        (hello_in_a_chunk("TRANSFER-ENCODING:CHUNKED"), Framing::Chunked, "hello"),
        (hello_in_a_chunk("transfer-encoding: \tChunked\t "), Framing::Chunked, "hello"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), Framing::Chunked, ""),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             01;a=b\r\nh\r\n3 ; c=\"d e\" \r\nell\r\n0000001\r\no\r\n000;x\r\n\r\n"
                .replace("d e\" \r\n", "d e\"\r\n"),
            Framing::Chunked,
            "hello",
        ),
    ];
    each(rows, |(response, framing, body)| {
        let house = House::before(saying(&response, Then::Listen));
        let (response, mut client) = house.ask(GET);
        assert_eq!((response.status, response.framing), (200, framing), "{}", client.story());
        assert_eq!(response.text(), body, "{}", client.story());
        assert!(!response.closes(), "{}", client.story());
        client.send(GET.as_bytes());
        assert_eq!(client.read_response("GET").text(), body, "{}", client.story());
        assert_eq!(house.backend.accepted(), 1, "the backend's connection is as good as new: {}", client.story());
    });
}

#[test]
fn a_body_of_any_length_arrives_in_either_framing_and_version() {
    let lengths = [1, 100, 8191, 65_535, 65_536, 65_537, 1_000_000, 3_000_000];
    let rows = lengths.into_iter().flat_map(|length| [(length, 0), (length, 1), (length, 1000), (length, 100_000)]);
    // A piece of 0 stands for Content-Length.
    let rows = rows.filter(|&(length, piece)| piece != 1 || length <= 8191);
    each(rows, |(length, piece): (usize, usize)| {
        let body = noise(length);
        let response = if piece == 0 {
            [format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes(), &body].concat()
        } else {
            let mut response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            for piece in body.chunks(piece) {
                response.extend(format!("{:X}\r\n", piece.len()).as_bytes());
                response.extend(piece);
                response.extend(b"\r\n");
            }
            response.extend(b"0\r\n\r\n");
            response
        };
        let house = House::before(saying(response, Then::Listen));
        for request in [GET, GET_1_0] {
            let (response, _client) = house.ask(request);
            assert!(
                response.body == body,
                "{length} bytes, {piece} at once, {request:?}: not the bytes that were sent"
            );
        }
    });
}

/// Bytes without a pattern that a lost or doubled block could hide in.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn a_response_whose_end_is_in_doubt_is_refused() {
    let lines = [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nTransfer-Encoding: identity",
        "Content-Length : 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nTransfer-Encoding : chunked",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5 5",
        "Content-Length: 5.0",
        "Content-Length: 5;",
        "Content-Length: five",
        "Content-Length: \"5\"",
        "Content-Length:",
        "Content-Length: 18446744073709551616",
        "Content-Length: 99999999999999999999999999",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked;a=b",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunk",
        "Transfer-Encoding:",
    ];
    each(lines, |lines| {
        let house = House::before(saying(hello_in_a_chunk(lines), Then::Listen));
        house.fails(GET, 502, "backend-bad-response");
    });
}

#[test]
fn http_1_0_knows_no_coding() {
    let response = hello_in_a_chunk("Transfer-Encoding: chunked").replace("HTTP/1.1", "HTTP/1.0");
    let house = House::before(saying(response, Then::Listen));
    house.fails(GET, 502, "backend-bad-response");
}

#[test]
fn the_longest_length_there_is_sizes_nothing() {
    let house = House::before(saying(hello("Content-Length: 18446744073709551615"), Then::Wait));
    let mut client = house.client();
    client.send(GET.as_bytes());
    let head = client.read_head("GET");
    assert_eq!(head.get("Content-Length"), Some("18446744073709551615"), "{}", client.story());
    assert_eq!(client.read_body_bytes(5), b"hello", "{}", client.story());
}

#[test]
fn a_faulty_chunk_is_refused_and_its_response_never_ends() {
    let bodies = [
        "\r\nhello\r\n0\r\n\r\n",
        "x\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5;\"\r\nhello\r\n0\r\n\r\n",
        "5;a=b\nc\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX y: z\r\n\r\n",
        "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\n\r\n",
        "5\r\nhello\r\n0\r\n: y\r\n\r\n",
    ];
    let rows = bodies.into_iter().flat_map(|body| [(body, GET), (body, GET_1_0)]);
    each(rows, |(body, request)| {
        let response = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let house = House::before(saying(response, Then::Wait));
        let mut client = house.client();
        client.send(request.as_bytes());
        let told = client.try_response("GET");
        let is_told = match &told {
            // The fault was seen before a word of the answer was said.
            Ok(response) => response.status == 502,
            // An HTTP/1.0 client takes any clean end for the end of the body.
            Err(cut) => cut.end == End::Reset || request == GET && cut.end != End::TimedOut,
        };
        assert!(is_told, "{body:?} was finished as if it were whole: {told:?} {}", client.story());
        house.backend.wait_until("the connection is dropped", |record| record.open == 0);
    });
}

// Bodies that end with their connection.

/// A body that goes on until the close.
fn until_close(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nX: y\r\n\r\n{body}")
}

#[test]
fn a_body_that_ends_with_its_connection_goes_in_chunks_to_http_1_1() {
    let long = "hello ".repeat(100_000);
    let rows = [
        until_close("hello"),
        until_close(""),
        until_close(&long),
        until_close("hello").replace("HTTP/1.1", "HTTP/1.0"),
        until_close("hello").replace("X: y", "Connection: close"),
        until_close("hello").replace("X: y", "Connection: keep-alive"),
    ];
    each(rows, |said| {
        let house = House::before(saying(&said, Then::Close));
        let (response, mut client) = house.ask(GET);
        assert_eq!(response.framing, Framing::Chunked, "{}", client.story());
        assert!(said.ends_with(&*response.text()), "{}", client.story());
        assert_eq!(response.body.len(), said.split_once("\r\n\r\n").unwrap().1.len(), "{}", client.story());
        // The backend's close is not ours.
        assert!(!response.closes(), "{}", client.story());
        client.send(GET.as_bytes());
        assert_eq!(client.read_response("GET").body, response.body, "{}", client.story());
        assert_eq!(house.backend.accepted(), 2, "{}", client.story());
    });
}

#[test]
fn a_body_that_ends_with_its_connection_ends_with_it_for_http_1_0() {
    let rows = ["hello", "", &"hello ".repeat(100_000)];
    each(rows, |body| {
        let house = House::before(saying(until_close(body), Then::Close));
        for request in [GET_1_0, "GET / HTTP/1.0\r\n\r\n"] {
            let (response, mut client) = house.ask(request);
            assert_eq!(response.framing, Framing::UntilClose, "{}", client.story());
            assert_eq!(response.text(), body, "{}", client.story());
            // Even if it asked for another: there is no other way to tell it where the body ends.
            assert!(response.closes() && !response.head.lists("Connection", "keep-alive"), "{}", client.story());
            client.expect_closed();
        }
    });
}

#[test]
fn chunks_are_decoded_for_http_1_0() {
    let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n\
                  1\r\nh\r\n4;x=y\r\nello\r\n0\r\nX-T: t\r\n\r\n";
    let house = House::before(saying(chunks, Then::Listen));
    each([GET_1_0, "GET / HTTP/1.0\r\n\r\n"], |request| {
        let (response, mut client) = house.ask(request);
        assert_eq!((response.framing, &*response.text()), (Framing::UntilClose, "hello"), "{}", client.story());
        assert_eq!(response.head.get("Trailer"), None, "no trailer will come: {}", client.story());
        assert!(response.closes() && !response.head.lists("Connection", "keep-alive"), "{}", client.story());
        client.expect_closed();
    });
    assert_eq!(house.backend.accepted(), 1, "what the client can't read is no reason to drop the backend");
}

#[test]
fn a_length_is_a_length_for_http_1_0_too() {
    let house = House::before(saying(hello("Content-Length: 5"), Then::Listen));
    let (response, mut client) = house.ask(GET_1_0);
    assert_eq!((response.framing, &*response.text()), (Framing::Length(5), "hello"), "{}", client.story());
    assert!(response.head.lists("Connection", "keep-alive"), "{}", client.story());
    client.send(GET_1_0.as_bytes());
    assert_eq!(client.read_response("GET").text(), "hello", "{}", client.story());
}

// Heads: what is mended.

#[test]
fn white_space_before_a_colon_is_removed() {
    let rows = [("X-Y : z", "z"), ("X-Y\t: z", "z"), ("X-Y \t  :z", "z"), ("X-Y :", ""), ("X-Y : a : b", "a : b")];
    each(rows, |(line, value)| {
        let house = House::before(saying(hello(&format!("{line}\r\nContent-Length: 5")), Then::Listen));
        let (response, client) = house.ask(GET);
        assert_eq!(response.head.get("X-Y"), Some(value), "{}", client.story());
        assert_eq!(response.text(), "hello", "{}", client.story());
    });
}

#[test]
fn a_folded_line_becomes_one() {
    let rows = [
        ("X-Y: a\r\n b", "a b"),
        ("X-Y: a\r\n\tb", "a b"),
        ("X-Y: a \t\r\n \t b", "a b"),
        ("X-Y: a\r\n b\r\n c d\r\n\te", "a b c d e"),
        ("X-Y:\r\n a", "a"),
        ("X-Y: a, b;\r\n c=\"d\"", "a, b; c=\"d\""),
        ("X-Y : a\r\n b", "a b"),
        ("X-Y: a\r\n X-Z: b", "a X-Z: b"),
    ];
    each(rows, |(lines, value)| {
        let house = House::before(saying(hello(&format!("A: b\r\n{lines}\r\nContent-Length: 5")), Then::Listen));
        let (response, client) = house.ask(GET);
        assert_eq!(response.head.get("X-Y"), Some(value), "{}", client.story());
        assert_eq!((response.head.get("A"), &*response.text()), (Some("b"), "hello"), "{}", client.story());
    });
}

#[test]
fn a_mended_field_still_means_what_it_says() {
    // Read or refused, but never overlooked: whoever mends a field after it has been judged lets it through unjudged.
    let close = "Connection: keep-alive,\r\n close";
    let rows = [
        (hello("Content-Length : 5"), "hello"),
        (hello("Content-Length:\r\n 5"), "hello"),
        (hello_in_a_chunk("Transfer-Encoding : chunked"), "hello"),
        (hello_in_a_chunk("Transfer-Encoding:\r\n chunked"), "hello"),
        (hello_in_a_chunk("Transfer-Encoding: chunked\r\n "), "hello"),
        (hello("Content-Length: 5\r\nConnection : x-hop\r\nX-Hop: 1"), "hello"),
        (hello("Content-Length: 5\r\nConnection: x-other,\r\n x-hop\r\nX-Hop: 1"), "hello"),
        (hello("Content-Length: 5\r\nConnection:\r\n x-hop\r\nX-Hop: 1"), "hello"),
        (hello("Content-Length: 5\r\nConnection: x-hop\r\n , x-other\r\nX-Hop: 1"), "hello"),
        (hello("Content-Length: 5\r\nKeep-Alive : timeout=5"), "hello"),
        (hello(&format!("Content-Length: 5\r\n{close}")), "hello"),
    ];
    each(rows, |(said, body)| {
        let house = House::before(saying(&said, Then::Listen));
        let (response, mut client) = house.ask(GET);
        if response.status == 502 {
            return;
        }
        assert_eq!(response.text(), body, "{}", client.story());
        for name in ["X-Hop", "Connection", "Keep-Alive"] {
            assert_eq!(response.head.get(name), None, "{name} ends here: {}", client.story());
        }
        client.send(GET.as_bytes());
        assert_eq!(client.read_response("GET").text(), body, "{}", client.story());
        let connections = if said.contains(close) { 2 } else { 1 };
        assert_eq!(house.backend.accepted(), connections, "after {said:?}");
    });
}

// Heads: what is refused.

#[test]
fn a_faulty_field_line_is_refused() {
    let lines: [&[u8]; 21] = [
        b"X: a\0b",
        b"X\0Y: z",
        b"X: \0",
        b"X: a\rb",
        b"X: a\r",
        b"X: a\r\rY: b",
        b"X: a\nY: b",
        b"X: a\n",
        b"\nX: a",
        b"no colon",
        b"X",
        b": a",
        b" : a",
        b"X Y: z",
        b"X(Y): z",
        b"\"X\": y",
        b"X\xe9: y",
        b"X\x7fY: z",
        b"X: a\x01b",
        b"X: a\x7fb",
        b"X: a\x1bb",
    ];
    each(lines, |line| {
        let said = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", line, b"\r\n\r\nhello"].concat();
        let house = House::before(saying(said, Then::Listen));
        house.fails(GET, 502, "backend-bad-response");
    });
}

#[test]
fn a_faulty_status_line_is_refused() {
    let lines = [
        "HTTP/1.1 099 Low",
        "HTTP/1.1 000 Zero",
        "HTTP/1.1 20 Short",
        "HTTP/1.1 2 Short",
        "HTTP/1.1 2000 Long",
        "HTTP/1.1 0200 Long",
        "HTTP/1.1 600 High",
        "HTTP/1.1 999 High",
        "HTTP/1.1 +20 Sign",
        "HTTP/1.1 -20 Sign",
        "HTTP/1.1 2x0 Letter",
        "HTTP/1.1 OK",
        "HTTP/1.1 ",
        "HTTP/1.1",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 200\tOK",
        " HTTP/1.1 200 OK",
        "http/1.1 200 OK",
        "HTTP/2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/1.10 200 OK",
        "HTTP/1,1 200 OK",
        "HTTP/11 200 OK",
        "ICY 200 OK",
        "200 OK",
        "SSH-2.0-OpenSSH_9.2",
        "GET / HTTP/1.1",
    ];
    each(lines, |line| {
        let house = House::before(saying(format!("{line}\r\nContent-Length: 0\r\n\r\n"), Then::Listen));
        house.fails(GET, 502, "backend-bad-response");
    });
}

#[test]
fn a_control_character_in_a_reason_is_refused() {
    let reasons: [&[u8]; 5] = [b"a\0b", b"a\rb", b"a\nb", b"a\x01b", b"a\x7fb"];
    each(reasons, |reason| {
        let said = [b"HTTP/1.1 200 ", reason, b"\r\nContent-Length: 0\r\n\r\n"].concat();
        let house = House::before(saying(said, Then::Listen));
        house.fails(GET, 502, "backend-bad-response");
    });
}

#[test]
fn what_can_only_be_refused_is_refused_when_seen_and_not_when_the_head_ends() {
    // None of these heads ever ends as far as we can tell, and their senders wait.
    let heads: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
        b"HTTP/1.1 200 OK\r\nX: \0",
        b"HTTP/1.1 200 OK\r\nX: a\rb",
    ];
    each(heads, |head| {
        let house = House::before(saying(head, Then::Wait));
        house.fails(GET, 502, "backend-bad-response");
    });
}

// The status line.

#[test]
fn every_status_passes_with_its_reason() {
    let lines: [&[u8]; 22] = [
        b"200 OK",
        b"201 Created",
        b"203 Non-Authoritative Information",
        b"205 Reset Content",
        b"206 Partial Content",
        b"226 IM Used",
        b"299 ",
        b"300 Multiple Choices",
        b"305 Use Proxy",
        b"399 ?",
        b"400 Bad Request",
        b"401 Unauthorized",
        b"408 Request Timeout",
        b"418 I'm a teapot",
        b"451 Unavailable For Legal Reasons",
        b"499 Gone",
        b"502 Bad Gateway",
        b"503 Back soon",
        b"599 All the way",
        b"200 Sch\xc3\xb6n",
        b"200 Sch\xf6n \xff\x80",
        b"200 two  spaces\tand a tab",
    ];
    each(lines, |line| {
        let said = [b"HTTP/1.1 ", line, b"\r\nContent-Length: 5\r\n\r\nhello"].concat();
        let house = House::before(saying(said, Then::Listen));
        let (response, client) = house.ask(GET);
        let first = [b"HTTP/1.1 ", line, b"\r\n"].concat();
        assert!(response.head.raw.starts_with(&first), "{}", client.story());
        assert_eq!(response.text(), "hello", "{}", client.story());
    });
}

#[test]
fn the_space_behind_the_code_stays_when_there_is_no_reason() {
    each(["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.0 200", "HTTP/1.0 200 "], |line| {
        let house = House::before(saying(format!("{line}\r\nContent-Length: 0\r\n\r\n"), Then::Listen));
        let (response, client) = house.ask(GET);
        assert_eq!(response.head.start, "HTTP/1.1 200 ", "{}", client.story());
    });
}

#[test]
fn a_response_of_http_1_0_goes_out_as_http_1_1() {
    let house = House::before(saying("HTTP/1.0 404 Not here\r\nContent-Length: 0\r\n\r\n", Then::Close));
    let (response, client) = house.ask(GET);
    assert_eq!(response.head.start, "HTTP/1.1 404 Not here", "{}", client.story());
    assert!(!response.closes(), "only the backend closes: {}", client.story());
}

// Limits.

#[test]
fn a_response_may_have_many_fields() {
    each([1, 31, 32, 33, 100, 128], |count| {
        let lines: String = (1..count).map(|nth| format!("X-{nth}: {nth}\r\n")).collect();
        let house = House::before(saying(hello(&format!("{lines}Content-Length: 5")), Then::Listen));
        let (response, client) = house.ask(GET);
        assert_eq!(response.text(), "hello", "{count} fields: {}", client.story());
        for nth in 1..count {
            let value = response.head.get(&format!("X-{nth}")).map(str::to_owned);
            assert_eq!(value, Some(nth.to_string()), "of {count}: {}", client.story());
        }
    });
}

/// A response whose head has just so many bytes.
fn head_of(length: usize) -> Vec<u8> {
    let frame = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: \r\n\r\n".len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: {}\r\n\r\nhello", "y".repeat(length - frame)).into_bytes()
}

#[test]
fn a_response_head_may_be_so_long_and_not_a_byte_longer() {
    let rows: [(&[&str], usize, u16); 6] = [
        (&[], 16 * 1024 + 1, 200),
        (&[], 32 * 1024, 200),
        (&[], 32 * 1024 + 1, 502),
        (&["--response-head-bytes", "4KiB"], 4096, 200),
        (&["--response-head-bytes", "4KiB"], 4097, 502),
        (&["--response-head-bytes", "64KiB"], 64 * 1024, 200),
    ];
    each(rows, |(flags, length, status)| {
        let house = House::with(saying(head_of(length), Then::Listen), flags);
        let (response, _client) = house.ask(GET);
        assert_eq!(response.status, status, "a head of {length} bytes with {flags:?}");
        assert!(status != 200 || response.text() == "hello", "the body behind a head of {length} bytes");
    });
}

#[test]
fn a_response_head_without_an_end_is_refused() {
    let heads = [
        format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(100_000)),
        format!("HTTP/1.1 200 {}", "y".repeat(100_000)),
        format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(20_000)),
        "y".repeat(100_000),
    ];
    each(heads, |head| {
        let house = House::before(saying(head, Then::Wait));
        house.fails(GET, 502, "backend-bad-response");
    });
}

// Interim responses.

#[test]
fn every_interim_response_is_forwarded_in_order() {
    let interims = ["100 Continue", "102 Processing", "103 Early Hints", "103 Early Hints", "199 What", "110 "];
    let said: String = interims.iter().map(|line| format!("HTTP/1.1 {line}\r\nX-Of: {line}\r\n\r\n")).collect();
    let house = House::before(saying(said + &hello("Content-Length: 5"), Then::Listen));
    let mut client = house.client();
    for _again in 0..2 {
        client.send(GET.as_bytes());
        for line in interims {
            let interim = client.read_interim();
            assert_eq!(interim.head.start, format!("HTTP/1.1 {line}"), "{}", client.story());
            assert_eq!(interim.head.get("X-Of"), Some(line.trim_end()), "{}", client.story());
        }
        let response = client.read_response("GET");
        assert_eq!((response.text().as_str(), response.head.get("X-Of")), ("hello", None), "{}", client.story());
    }
    assert_eq!(house.backend.accepted(), 1, "the same connection: {}", client.story());
}

#[test]
fn an_interim_response_does_not_wait_for_the_next() {
    let gate = Gate::new();
    let house = House::before({
        let gate = gate.clone();
        Backend::start(move |connection| {
            connection.read_request();
            connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
            gate.pass();
            connection.send(hello("Content-Length: 5").as_bytes());
        })
    });
    let mut client = house.client();
    client.send(GET.as_bytes());
    assert_eq!(client.read_interim().status, 103, "{}", client.story());
    gate.open();
    assert_eq!(client.read_response("GET").text(), "hello", "{}", client.story());
}

#[test]
fn an_interim_response_is_not_for_http_1_0() {
    let said = format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nA: b\r\n\r\n{}", hello("Content-Length: 5"));
    let house = House::before(saying(said, Then::Listen));
    let (response, client) = house.ask(GET_1_0);
    assert_eq!((response.status, &*response.text()), (200, "hello"), "{}", client.story());
}

#[test]
fn an_interim_response_is_not_an_answer() {
    let rows: [(&str, Then, &[&str], u16, &str); 6] = [
        ("", Then::Close, &[], 502, "backend-closed-before-response"),
        ("", Then::Reset, &[], 502, ""),
        ("HTTP/1.1 20", Then::Close, &[], 502, "backend-cut-head"),
        ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", Then::Listen, &[], 502, "backend-bad-response"),
        ("", Then::Wait, &["--response-head-timeout", "200ms"], 504, "backend-head-timeout"),
        ("HTTP/1.1 20", Then::Wait, &["--response-head-timeout", "200ms"], 504, "backend-head-timeout"),
    ];
    each(rows, |(behind, then, flags, status, word)| {
        // A second backend would be asked, were this a request that may be tried again.
        let backend = saying(format!("HTTP/1.1 103 Early Hints\r\n\r\n{behind}"), then);
        let other = saying(format!("HTTP/1.1 103 Early Hints\r\n\r\n{behind}"), then);
        let balancer = balancer(&[&backend.url(), &other.url()], flags);
        let mut client = Client::connect(balancer.address());
        client.send(GET.as_bytes());
        assert_eq!(client.read_interim().status, 103, "{}", client.story());
        let response = client.read_response("GET");
        assert_eq!(response.status, status, "{}", client.story());
        assert!(response.text().contains(word), "not {word}: {}", client.story());
        let asked = backend.requests().len() + other.requests().len();
        assert_eq!(asked, 1, "it was tried again: {}", client.story());
    });
}

#[test]
fn a_backend_switches_only_to_a_protocol_that_was_offered() {
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat, x/2\r\n\r\n";
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n";
    let rows = [
        // Nobody asked.
        (GET.to_owned(), format!("{switch}Upgrade: chat\r\n\r\n")),
        // An offer without `Connection: upgrade` is none, and HTTP/1.0 can make none.
        (upgrade.replace("Connection: upgrade\r\n", ""), format!("{switch}Upgrade: chat\r\n\r\n")),
        (upgrade.replace("Connection: upgrade", "Connection: x"), format!("{switch}Upgrade: chat\r\n\r\n")),
        (upgrade.replace("HTTP/1.1", "HTTP/1.0"), format!("{switch}Upgrade: chat\r\n\r\n")),
        // Another protocol than those offered, or none.
        (upgrade.to_owned(), format!("{switch}Upgrade: websocket\r\n\r\n")),
        (upgrade.to_owned(), format!("{switch}Upgrade: chat, websocket\r\n\r\n")),
        (upgrade.to_owned(), format!("{switch}Upgrade: x/1\r\n\r\n")),
        (upgrade.to_owned(), format!("{switch}Upgrade: h2c\r\n\r\n")),
        (upgrade.to_owned(), format!("{switch}\r\n")),
        (upgrade.replace("chat, x/2", "h2c, chat"), format!("{switch}Upgrade: h2c\r\n\r\n")),
        (upgrade.replace("chat, x/2", "h2c"), format!("{switch}Upgrade: h2c\r\n\r\n")),
    ];
    each(rows, |(request, said)| {
        let house = House::before(saying(said + &hello("Content-Length: 5"), Then::Listen));
        let (response, client) = house.ask(&request);
        assert_eq!(response.status, 502, "{}", client.story());
        house.backend.wait_until("the connection is dropped", |record| record.open == 0);
    });
}

// Bytes behind a response.

#[test]
fn bytes_behind_a_complete_response_reach_nobody() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let rows = [
        ("GET", hello("Content-Length: 5")),
        ("GET", hello_in_a_chunk("Transfer-Encoding: chunked")),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n".to_owned()),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_owned()),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()),
    ];
    let rows = rows.into_iter().flat_map(|(method, response)| {
        let extras = [EVIL, "x", "\r\n", "hello", "0\r\n\r\n"];
        extras.map(|extra| [(method, response.clone(), extra, true), (method, response.clone(), extra, false)])
    });
    each(rows.flatten(), |(method, response, extra, at_once)| {
        // Either with the response, or once its client has it, so that they meet a connection that rests.
        let (answered, spoiled) = (Gate::new(), Gate::new());
        let house = House::before({
            let (answered, spoiled) = (answered.clone(), spoiled.clone());
            let first = if at_once { format!("{response}{extra}") } else { response.clone() };
            Backend::start(move |connection| {
                if connection.number > 0 {
                    while connection.read_request().is_some() {
                        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
                    }
                    return;
                }
                connection.read_request();
                connection.send(first.as_bytes());
                answered.pass();
                if !at_once {
                    connection.send(extra.as_bytes());
                }
                spoiled.open();
                // What would be taken for the next answer, if a request came.
                while connection.read_request().is_some() {
                    connection.send(EVIL.as_bytes());
                }
            })
        });
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        let (first, mut client) = house.ask(&request);
        assert!(!first.text().contains("evil"), "{}", client.story());
        answered.open();
        spoiled.pass();
        for _again in 0..2 {
            client.send(GET.as_bytes());
            let next = client.read_response("GET");
            assert_eq!((next.status, &*next.text()), (200, "good"), "behind {extra:?}: {}", client.story());
        }
        assert_eq!(house.backend.accepted(), 2, "{}", client.story());
    });
}

#[test]
fn an_answer_that_nobody_asked_for_reaches_nobody() {
    let spoiled = Gate::new();
    let ready = Gate::new();
    let house = House::before({
        let (ready, spoiled) = (ready.clone(), spoiled.clone());
        Backend::start(move |connection| {
            if connection.number > 0 {
                connection.read_request();
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
                return;
            }
            connection.read_request();
            connection.send(hello("Content-Length: 5").as_bytes());
            ready.pass();
            // As servers do that give up on an idle connection.
            connection.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            connection.close();
            spoiled.open();
        })
    });
    let (_response, mut client) = house.ask(GET);
    ready.open();
    spoiled.pass();
    client.send(GET.as_bytes());
    assert_eq!(client.read_response("GET").text(), "good", "{}", client.story());
}

// Responses that are cut short.

/// How a response can break off, and what had come of its body.
fn broken_off() -> Vec<(String, Then)> {
    let chunked = |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let parts = [
        hello("Content-Length: 10"),
        hello("Content-Length: 6"),
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".to_owned(),
        chunked(""),
        chunked("5"),
        chunked("5\r\n"),
        chunked("5\r\nhe"),
        chunked("5\r\nhello"),
        chunked("5\r\nhello\r"),
        chunked("5\r\nhello\r\n"),
        chunked("5\r\nhello\r\n0"),
        chunked("5\r\nhello\r\n0\r\n"),
        chunked("5\r\nhello\r\n0\r\nX: y"),
        chunked("5\r\nhello\r\n0\r\nX: y\r\n"),
        chunked("5\r\nhello\r\n0\r\nX: y\r\n\r"),
    ];
    let mut rows: Vec<_> =
        parts.into_iter().flat_map(|part| [(part.clone(), Then::Close), (part, Then::Reset)]).collect();
    rows.push((until_close("hello"), Then::Reset));
    rows.push((until_close("").replace("HTTP/1.1", "HTTP/1.0"), Then::Reset));
    rows
}

#[test]
fn a_client_can_tell_that_a_response_was_cut_short() {
    each(broken_off(), |(said, then)| {
        let house = House::before(saying(&said, then));
        for request in [GET, GET_1_0] {
            let mut client = house.client();
            client.send(request.as_bytes());
            let told = client.try_response("GET");
            let story = client.story();
            // If not a byte of the answer had been passed on, an error can still be.
            let Cut { head, body, end } = match told {
                Ok(response) => {
                    assert!(response.status == 502, "{said:?} {then:?} was finished as if it were whole: {story}");
                    continue;
                }
                Err(cut) => cut,
            };
            assert!(head.is_some(), "no answer at all: {story}");
            assert!(b"hello".starts_with(&body), "{story}");
            assert_ne!(end, End::TimedOut, "left waiting after {said:?} {then:?}: {story}");
            // Where the end of the connection is the end of the body, only a reset tells them apart.
            let only_a_reset_tells = request == GET_1_0 && !said.contains("Content-Length");
            assert!(!only_a_reset_tells || end == End::Reset, "{end:?} after {said:?} {then:?}: {story}");
        }
        house.comes_to_rest();
        house.backend.wait_until("no connection is left", |record| record.open == 0);
    });
}

#[test]
fn what_came_before_the_cut_is_delivered() {
    let gate = Gate::new();
    let house = House::before({
        let gate = gate.clone();
        Backend::start(move |connection| {
            connection.read_request();
            connection.send(hello("Content-Length: 10").as_bytes());
            gate.pass();
        })
    });
    let mut client = house.client();
    client.send(GET.as_bytes());
    assert_eq!(client.read_head("GET").get("Content-Length"), Some("10"), "{}", client.story());
    assert_eq!(client.read_body_bytes(5), b"hello", "{}", client.story());
    gate.open();
    let (rest, end) = client.try_to_end();
    assert!(rest.is_empty() && end != End::TimedOut, "{end:?} {}", client.story());
}

#[test]
fn a_long_response_that_is_cut_short_is_cut_short() {
    let megabytes = noise(3_000_000);
    let rows = ["Content-Length: 4000000", "Transfer-Encoding: chunked", "X: y"];
    let rows = rows.into_iter().flat_map(|line| [(line, GET), (line, GET_1_0)]);
    each(rows, |(line, request)| {
        let mut said = format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n").into_bytes();
        if line.starts_with('T') {
            said.extend(format!("{:x}\r\n", 4_000_000).as_bytes());
        }
        said.extend(&megabytes);
        // All of it is read before the reset is sent, so that what is cut is the end and not the middle.
        let then = if line.starts_with('X') { Then::Reset } else { Then::Close };
        let house = House::before(saying(said, then));
        let mut client = house.client();
        client.send(request.as_bytes());
        let cut = client.try_response("GET").expect_err("finished as if it were whole");
        assert!(megabytes.starts_with(&cut.body), "{line:?}, {request:?}: not the bytes that were sent");
        assert_ne!(cut.end, End::TimedOut, "{line:?}, {request:?}");
        assert!(
            request == GET || line.starts_with('C') || cut.end == End::Reset,
            "{line:?}, {request:?}: {:?}",
            cut.end
        );
    });
}

// No response at all, or too late.

#[test]
fn a_backend_that_says_nothing_or_half_a_head_is_a_bad_gateway() {
    let rows = [
        ("", Then::Close, "backend-closed-before-response"),
        ("", Then::Reset, "backend-closed-before-response"),
        ("H", Then::Close, "backend-cut-head"),
        ("HTTP/1.1 200 OK", Then::Close, "backend-cut-head"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", Then::Close, "backend-cut-head"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r", Then::Close, "backend-cut-head"),
        ("HTTP/1.1 200 OK\r\n", Then::Reset, ""),
        ("\r\n", Then::Close, ""),
    ];
    each(rows, |(said, then, word)| {
        let house = House::before(saying(said, then));
        house.fails(GET, 502, word);
    });
}

#[test]
fn a_response_that_comes_too_late_is_a_gateway_timeout() {
    let timeout = Duration::from_millis(300);
    each(["", "H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r"], |said| {
        let house = House::with(saying(said, Then::Wait), &["--response-head-timeout", "300ms"]);
        let asked = Instant::now();
        let (response, client) = house.ask(GET);
        assert_eq!(response.status, 504, "{}", client.story());
        assert!(response.text().contains("backend-head-timeout"), "{}", client.story());
        assert!(asked.elapsed() >= timeout, "after {:?} already", asked.elapsed());
        assert!(!response.closes(), "the client did nothing wrong: {}", client.story());
        house.backend.wait_until("the connection is dropped", |record| record.open == 0);
    });
}

#[test]
fn a_byte_now_and_then_does_not_renew_the_time_for_a_head() {
    let backend = Backend::start(|connection| {
        connection.read_request();
        connection.send(b"HTTP/1.1 200 OK\r\nX: ");
        while connection.send(b"y") {
            thread::sleep(Duration::from_millis(10));
        }
    });
    let house = House::with(backend, &["--response-head-timeout", "300ms"]);
    let (response, client) = house.ask(GET);
    assert_eq!(response.status, 504, "{}", client.story());
}

// However it is cut.

/// Answers with `said`, cut as the path of the request has it: `/whole`, `/bytes`, or `/17` for one cut before that.
fn cutting(said: Vec<u8>) -> Backend {
    Backend::start(move |connection| {
        while let Some(request) = connection.read_request() {
            let cuts: Vec<usize> = match &request.target[1..] {
                "whole" => Vec::new(),
                "bytes" => (1..said.len()).collect(),
                cut => vec![cut.parse().unwrap()],
            };
            let mut begin = 0;
            for cut in cuts.into_iter().chain([said.len()]) {
                connection.send(&said[begin..cut]);
                begin = cut;
                if cut < said.len() {
                    // Nothing is being waited for: the outcome must be the same if two pieces are seen as one.
                    thread::sleep(Duration::from_micros(200));
                }
            }
            if said.starts_with(b"HTTP/1.0") {
                break;
            }
        }
    })
}

/// A message as its reader takes it: the start line, the fields, the body and the trailers.
type Told = (String, Vec<(String, String)>, Vec<u8>, Vec<(String, String)>);

/// What a client was told, but for the time of day and a name that is made anew each time.
fn told(client: &mut Client, interims: usize) -> Vec<Told> {
    let lasting = |head: &Head| head.fields.0.iter().filter(|(name, _)| name != "Date").cloned().collect();
    let mut all = Vec::new();
    for _interim in 0..interims {
        let interim = client.read_interim();
        all.push((interim.head.start.clone(), lasting(&interim.head), Vec::new(), Vec::new()));
    }
    let response = client.read_response("GET");
    let body = if response.status == 502 { Vec::new() } else { response.body };
    let mut fields: Vec<_> = lasting(&response.head);
    if response.status == 502 {
        fields.retain(|(name, _)| name != "Content-Length");
    }
    all.push((response.head.start.clone(), fields, body, response.trailers.0));
    all
}

#[test]
fn however_a_response_is_cut_the_outcome_is_the_same() {
    let rows = [
        (0, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nhello"),
        (
            0,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n\
             5;a=\"b\"\r\nhello\r\n6\r\n world\r\n0\r\nX-T: t\r\nX-U: u\r\n\r\n",
        ),
        (0, "HTTP/1.1 200\r\nX-Mended : a\r\n b\r\nTransfer-Encoding : chunked\r\n\r\n1\r\n!\r\n0\r\n\r\n"),
        (
            2,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        (0, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nX: y\r\n\r\n"),
        (0, "HTTP/1.0 200 OK\r\nX: y\r\n\r\nuntil the close"),
        (0, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (0, "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n"),
        (0, "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
    ];
    each(rows, |(interims, said)| {
        let house = House::before(cutting(said.as_bytes().to_vec()));
        let outcome = |cut: &str, version: &str| {
            let mut client = house.client();
            client.send(format!("GET /{cut} HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes());
            told(&mut client, if version == "1.1" { interims } else { 0 })
        };
        for version in ["1.1", "1.0"] {
            let whole = outcome("whole", version);
            let cuts = (1..said.len()).map(|cut| cut.to_string()).chain(["bytes".to_owned()]);
            for cut in cuts {
                assert_eq!(outcome(&cut, version), whole, "{said:?} cut at {cut}, for HTTP/{version}");
            }
        }
        house.comes_to_rest();
    });
}
