//! The known ways to smuggle a request or a response, tried as their inventors describe them.
//!
//! All of them need two parties that disagree about where a message ends or what it says. So each attack here carries a
//! second request, `/smuggled`, in the place where one kind of reader would find it; no backend may ever be asked for
//! it, and whoever comes next gets the answer to its own request. `docs/SMUGGLING.md` lists every technique with the
//! function that refuses it; what the other files show already is not shown again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use support::{Backend, Client, Gate, balancer, each, eventually};
use threadbare::Balancer;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What must never be asked for.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// A balancer before a backend that answers with what it was sent, and reads to the letter.
struct House {
    balancer: Balancer,
    backend: Backend,
}

impl House {
    fn before(backend: Backend, flags: &[&str]) -> Self {
        let balancer = balancer(&[&backend.url()], flags);
        Self { balancer, backend }
    }

    fn new() -> Self {
        Self::before(Backend::echo(), &[])
    }

    fn client(&self) -> Client {
        Client::connect(self.balancer.address())
    }

    /// This is refused, no backend hears the end of any request, and the next client is served.
    fn refuses(&self, attack: impl AsRef<[u8]>, statuses: &[u16]) {
        let whole = self.whole();
        let mut client = self.client();
        client.send(attack.as_ref());
        client.expect_refusal(statuses);
        let at_rest = || self.backend.open() == self.balancer.counters().spares;
        eventually(at_rest, "half a request has gone with its connection");
        assert_eq!(self.whole(), whole, "a backend has got a whole request: {}", client.story());
        drop(client);
        self.serves_the_next();
    }

    /// This reaches the backend as one request with this body, and the next client is served.
    fn passes_as_one(&self, attack: impl AsRef<[u8]>, body: &str) {
        let whole = self.whole();
        let mut client = self.client();
        client.send(attack.as_ref());
        assert_eq!(client.read_response("GET").status, 200, "{}", client.story());
        let requests = self.backend.requests();
        assert_eq!(self.whole(), whole + 1, "{}", client.story());
        assert_eq!(requests.last().unwrap().body, body.as_bytes(), "{}", client.story());
        drop(client);
        self.serves_the_next();
    }

    fn whole(&self) -> usize {
        self.backend.requests().iter().filter(|request| request.whole).count()
    }

    fn serves_the_next(&self) {
        let mut next = self.client();
        next.send(b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n");
        let response = next.read_response("GET");
        assert!(response.text().starts_with("GET /next HTTP/1.1\r\n"), "{}", next.story());
        let smuggled =
            self.backend.requests().into_iter().find(|request| request.target != "/next" && request.target != "/");
        assert!(smuggled.is_none(), "{smuggled:?}");
        drop(next);
        // So that the next attack meets no spare whose owner could be blamed.
        eventually(|| self.balancer.counters().connections == 0, "the client's connection is gone");
    }
}

/// A POST with these lines and this behind its head.
fn post(lines: &str, behind: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{behind}")
}

#[test]
fn two_ways_to_find_the_end_are_one_too_many() {
    let house = House::new();
    let short = |lines: &str| post(lines, &format!("0\r\n\r\n{SMUGGLED}"));
    let long = |lines: &str| post(lines, &format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len()));
    let rows = [
        // CL.TE: the whole for who counts, two requests for who reads chunks. And TE.CL, the reverse.
        short(&format!("Content-Length: {}\r\nTransfer-Encoding: chunked", SMUGGLED.len() + 5)),
        long("Content-Length: 4\r\nTransfer-Encoding: chunked"),
        long("Transfer-Encoding: chunked\r\nContent-Length: 4"),
        // CL.CL: two lengths, and each of them somebody's.
        post(&format!("Content-Length: 0\r\nContent-Length: {}", SMUGGLED.len()), SMUGGLED),
        post(&format!("Content-Length: {}\r\nContent-Length: 0", SMUGGLED.len()), SMUGGLED),
        post(&format!("Content-Length: 0, {}", SMUGGLED.len()), SMUGGLED),
    ];
    each(rows, |attack| house.refuses(attack, &[400]));
}

#[test]
fn a_coding_that_only_some_can_read_is_no_coding() {
    let house = House::new();
    // TE.TE: one reader sees `chunked`, another sees nothing, and takes the length that isn't there for zero.
    let lines: &[&[u8]] = &[
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding\t: chunked",
        b" Transfer-Encoding: chunked",
        b"X: y\r\n Transfer-Encoding: chunked",
        b"X: y\nTransfer-Encoding: chunked",
        b"X: y\rTransfer-Encoding: chunked",
        b"X: y\0\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding:\x0bchunked",
        b"Transfer-Encoding: \x0cchunked",
        b"Transfer-Encoding: \xa0chunked",
        b"Transfer-Encoding: \x85chunked",
        b"Transfer-Encoding: chunked\0",
        b"Transfer-Encoding: chunked\x08",
        b"Transfer-Encoding:\r\n chunked",
        b"Transfer-Encoding: chun\r\n ked",
        b"Transfer-Encoding: 'chunked'",
        b"Transfer-Encoding: chunked;q=1",
        b"Transfer-Encoding: chunked, cow",
        b"Transfer\x00-Encoding: chunked",
        b"Transfer Encoding: chunked",
        b"Transfer-Encoding\xad: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-encoding: x",
        b"Transfer-Encoding: x\r\nTransfer-encoding: chunked",
        // The Kelvin sign and the long s are a k and an s to whoever folds case as Unicode does.
        "Transfer-Encoding: chun\u{212a}ed".as_bytes(),
        "Tran\u{17f}fer-Encoding: chunked".as_bytes(),
        // Overlong UTF-8 for a colon and a line feed.
        b"Transfer-Encoding\xc0\xba chunked",
        b"X: y\xe5\x98\x8a\r\nTransfer-Encoding\xc0\xba: chunked",
    ];
    each(lines, |line| {
        let head = [b"POST / HTTP/1.1\r\nHost: a\r\n", *line, b"\r\n\r\n"].concat();
        house.refuses([&head, SMUGGLED.as_bytes()].concat(), &[400, 501]);
        house.refuses([&head, &b"0\r\n\r\n"[..], SMUGGLED.as_bytes()].concat(), &[400, 501]);
    });
}

#[test]
fn a_field_that_only_looks_like_a_framing_field_frames_nothing_and_does_not_go_on() {
    let house = House::new();
    // Where CGI is spoken, `Content_Length` is `Content-Length`. Nobody behind us may count by it.
    let names = ["Content_Length", "content_length", "Content.Length", "Transfer_Encoding", "Transfer~Encoding"];
    each(names, |name| {
        let value = if name.starts_with('T') { "chunked" } else { "5" };
        house
            .passes_as_one(post(&format!("{name}: {value}\r\nContent-Length: {}", SMUGGLED.len()), SMUGGLED), SMUGGLED);
        let request = house.backend.requests().into_iter().rev().find(|request| request.target == "/").unwrap();
        assert!(request.head.all(name).is_empty(), "{request:?}");
    });
}

#[test]
fn a_length_that_only_some_can_read_is_refused() {
    let house = House::new();
    // 0.CL: who can't read the length takes the body for the next request.
    let length = SMUGGLED.len();
    let rows = [
        format!("Content-Length : {length}"),
        format!(" Content-Length: {length}"),
        format!("X: y\r\n Content-Length: {length}"),
        format!("X: y\nContent-Length: {length}"),
        format!("Content-Length:\r\n {length}"),
        format!("Content-Length: {length}\0"),
        format!("Content-Length: \x0b{length}"),
        format!("Content-Length: +{length}"),
        format!("Content-Length: 0x{length:x}"),
        format!("Content-Length: {length}, 0"),
        format!("Content-Length: {length}\r\nContent-Length:"),
        format!("Content\u{2010}Length: {length}"),
        // 2^64 + length, which is `length` where nobody looks at the overflow.
        format!("Content-Length: {}", (1_u128 << 64) + u128::try_from(length).unwrap()),
        format!("Content-Length: {}", u128::from(u64::MAX) * 10),
    ];
    each(rows, |line| house.refuses(post(&line, SMUGGLED), &[400]));
}

#[test]
fn a_body_is_a_body_whatever_the_method_and_the_expectation() {
    let house = House::new();
    let length = SMUGGLED.len();
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"] {
        if method != "HEAD" {
            let attack = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{SMUGGLED}");
            house.passes_as_one(attack, SMUGGLED);
        }
    }
    // The client that announces to wait, and doesn't; the line said twice; the one that is said to be nobody's.
    for lines in [
        "Expect: 100-continue",
        "Expect: 100-Continue\r\nexpect: 100-continue",
        "Expect: 100-continue\r\nConnection: expect",
    ] {
        house.passes_as_one(post(&format!("{lines}\r\nContent-Length: {length}"), SMUGGLED), SMUGGLED);
    }
}

#[test]
fn an_expectation_that_only_some_can_read_fails() {
    let house = House::new();
    let lines = [
        ("Expect: y 100-continue", 417),
        ("Expect: 100-continue y", 417),
        ("Expect: 100-continue,", 417),
        ("Expect:", 417),
        ("Expect: 100-continue\r\nExpect:", 417),
        ("Expect : 100-continue", 400),
        ("Expect:\r\n 100-continue", 400),
        ("Expect: 100-continue\x0b", 400),
    ];
    each(lines, |(line, status)| {
        let mut client = house.client();
        client.send(post(&format!("{line}\r\nContent-Length: {}", SMUGGLED.len()), SMUGGLED).as_bytes());
        let response = client.read_response("POST");
        assert_eq!(response.status, status, "{}", client.story());
        client.half_close();
        let (behind, _) = client.try_to_end();
        assert!(behind.is_empty(), "the body was answered: {}", client.story());
        assert_eq!(house.balancer.counters().dials, 0, "a backend was bothered: {}", client.story());
    });
}

#[test]
fn a_chunk_ends_in_one_place_for_everybody() {
    let house = House::new();
    // Each row is one body for one kind of reader, and a shorter one with `/smuggled` behind it for another.
    let rows = [
        ("TERM.EXT: a bare LF in an extension ends the line, or doesn't", "2;\nxx\r\n0\r\n\r\n"),
        ("EXT.TERM: the same with a name before it", "1;a\nx\r\n0\r\n\r\n"),
        ("a bare CR in an extension", "1;a\rx\r\n0\r\n\r\n"),
        ("a line end in a quoted value", "1;a=\"\r\nx\r\n0\r\n\r\n"),
        ("an escaped line end in a quoted value", "1;a=\"\\\r\nx\r\n0\r\n\r\n"),
        ("an extension without a name", "1;\r\nx\r\n0\r\n\r\n"),
        ("TERM.SPILL: two bytes behind the data that are no line end", "1\r\nxyz0\r\n\r\n"),
        ("SPILL.TERM: one byte behind the data", "1\r\nxy\r\n0\r\n\r\n"),
        ("ONE.TWO: a bare LF behind the data", "1\r\nx\n0\r\n\r\n"),
        ("TWO.ONE: one line end more behind the data", "1\r\nx\r\n\r\n0\r\n\r\n"),
        ("a bare LF behind the size", "1\nx\r\n0\r\n\r\n"),
        ("a bare CR behind the size", "1\rx\r\n0\r\n\r\n"),
        ("a size in C's way", "0x1\r\nx\r\n0\r\n\r\n"),
        ("a size with a sign", "+1\r\nx\r\n0\r\n\r\n"),
        ("a size with white space before it", " 1\r\nx\r\n0\r\n\r\n"),
        ("a size with white space behind it", "1 \r\nx\r\n0\r\n\r\n"),
        ("a size with a digit separator", "0_1\r\nx\r\n0\r\n\r\n"),
        ("a size of which 64 bits are 1", "10000000000000001\r\nx\r\n0\r\n\r\n"),
        ("no size", "\r\nx\r\n0\r\n\r\n"),
        ("a size that begins with a digit", "1g\r\nx\r\n0\r\n\r\n"),
        ("a last chunk with a bare LF", "0\n\r\n"),
        ("an end with bare LFs", "0\r\n\n"),
        ("an end with a bare CR", "0\r\n\r\r\n"),
        ("a request line for a trailer", "0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a trailer with white space before its colon", "0\r\nX : y\r\n\r\n"),
        ("a folded trailer", "0\r\nX: y\r\n z\r\n\r\n"),
        ("a trailer with a bare LF", "0\r\nX: y\n\r\n\r\n"),
    ];
    each(rows, |(what, body)| {
        println!("{what}");
        house.refuses(post("Transfer-Encoding: chunked", &format!("{body}{SMUGGLED}")), &[400]);
    });
}

#[test]
fn a_request_that_pauses_until_it_is_given_up_continues_nowhere() {
    let house = House::before(Backend::echo(), &["--request-body-timeout", "200ms"]);
    // Longer than what is collected before a backend is bothered, so the backend waits with us.
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhello";
    let mut client = house.client();
    client.send(head.as_bytes());
    assert_eq!(client.read_response("POST").status, 408, "{}", client.story());
    // For a server that has forgotten the body, here comes the next request.
    client.try_send(SMUGGLED.as_bytes());
    let (behind, _) = client.try_to_end();
    assert!(behind.is_empty(), "{}", client.story());
    house.backend.wait_until("its connection is dropped", |record| record.open == 0);
    assert_eq!(house.whole(), 0, "{:?}", house.backend.requests());
    house.serves_the_next();
}

#[test]
fn a_backend_that_ignores_a_body_confuses_nobody_else() {
    // CL.0: it answers at the head's end and takes the body for the next request, which it answers too: at once, or
    // when the connection rests already. TE.0 is the same with chunks.
    each(
        [
            ("Content-Length", true),
            ("Content-Length", false),
            ("Transfer-Encoding", true),
            ("Transfer-Encoding", false),
        ],
        |(framing, at_once)| {
            let (answered, spoiled) = (Gate::new(), Gate::new());
            let house = House::before(
                {
                    let (answered, spoiled) = (answered.clone(), spoiled.clone());
                    Backend::start(move |connection| {
                        if connection.number > 0 {
                            while connection.read_request().is_some() {
                                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
                            }
                            return;
                        }
                        // So that the answer comes behind the request; a backend of this kind need not have read it.
                        connection.read_request();
                        let (first, second) = (
                            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst",
                            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
                        );
                        if at_once {
                            connection.send(format!("{first}{second}").as_bytes());
                        } else {
                            connection.send(first.as_bytes());
                            answered.pass();
                            connection.send(second.as_bytes());
                        }
                        spoiled.open();
                        connection.read_to_end();
                    })
                },
                &[],
            );
            let attack = match framing {
                "Content-Length" => post(&format!("Content-Length: {}", SMUGGLED.len()), SMUGGLED),
                _ => post("Transfer-Encoding: chunked", &format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len())),
            };
            let mut attacker = house.client();
            attacker.send(attack.as_bytes());
            assert_eq!(attacker.read_response("POST").text(), "first", "{}", attacker.story());
            answered.open();
            spoiled.pass();
            let mut victim = house.client();
            victim.send(b"GET /victim HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(victim.read_response("GET").text(), "good", "{}", victim.story());
            attacker.send(b"GET /again HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(attacker.read_response("GET").text(), "good", "{}", attacker.story());
        },
    );
}

#[test]
fn nothing_that_a_client_writes_begins_a_line_of_its_own() {
    let house = House::new();
    // What is encoded stays so, whoever may decode it later; what can't be a line of text is no line.
    let targets = ["/%0d%0aX-Split:%201", "/%0D%0A%0D%0AHTTP/1.1%20200%20OK", "/%E5%98%8A%E5%98%8DX:y", "/?a=%00%0a"];
    each(targets, |target| {
        let mut client = house.client();
        let id = "%0d%0aX-Split:1";
        client.send(
            format!("GET {target} HTTP/1.1\r\nHost: a\r\nX-Request-Id: {id}\r\nOrigin: %0d%0a\r\n\r\n").as_bytes(),
        );
        let response = client.read_response("GET");
        assert!(response.text().starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{}", client.story());
        assert!(response.head.get("X-Split").is_none(), "{}", client.story());
        let received = house.backend.requests().pop().unwrap();
        assert_ne!(received.head.get("X-Request-Id"), Some(id), "no token: {received:?}");
    });
    each(
        [
            &b"GET /\xe5\x98\x8a\xe5\x98\x8d HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"GET /\xc0\x8a HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
        |attack| {
            let mut client = house.client();
            client.send(attack);
            client.expect_refusal(&[400]);
        },
    );
}

#[test]
fn a_response_that_hides_another_reaches_its_client_as_one_or_not_at_all() {
    const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    // Response smuggling and splitting: heads for which one reader sees an end where another sees none.
    let chunk = format!("{:x}\r\n{EVIL}\r\n0\r\n\r\n", EVIL.len());
    let rows = [
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: {}\r\n\r\n{EVIL}", EVIL.len()),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n{chunk}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding:\x0bchunked\r\n\r\n{chunk}"),
        format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"),
        format!("HTTP/1.1 200 OK\r\nX: y\nContent-Length: 0\r\n\r\n{EVIL}"),
        format!("HTTP/1.1 200 OK\r\nX: y\r\r\nContent-Length: 0\r\n\r\n{EVIL}"),
        format!("HTTP/1.1 200 OK\nContent-Length: 0\n\n{EVIL}"),
        format!("HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n{EVIL}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX\0: y\r\n\r\n{EVIL}"),
        format!("HTTP/1.1 200 OK\r\nConnection: content-length\r\nContent-Length: 0\r\n\r\n{EVIL}"),
        format!("HTTP/1.1 100 Continue\r\nContent-Length: {}\r\n\r\nevil", EVIL.len()),
        format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n{EVIL}"),
        format!("HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n{EVIL}"),
        format!("\r\n\r\n{EVIL}"),
        "evil".to_owned() + EVIL, // as HTTP/0.9 would have it
    ];
    each(rows, |said| {
        let is_interim = said.starts_with("HTTP/1.1 100");
        let backend = Backend::start(move |connection| {
            while connection.read_request().is_some() {
                connection.send(said.as_bytes());
                connection.half_close();
                connection.read_to_end();
            }
        });
        let house = House::before(backend, &[]);
        let mut client = house.client();
        for _again in 0..2 {
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            if is_interim {
                assert_eq!(client.read_interim().head.get("Content-Length"), None, "{}", client.story());
            }
            let response = client.read_response("GET");
            assert!(response.status == 502 && !response.text().contains("evil"), "{}", client.story());
        }
    });
}

#[test]
fn a_connection_that_somebody_has_logged_in_is_nobody_elses() {
    // RFC 4559: such credentials hold for whatever comes by the connection next.
    let rows = [("NTLM dA==", 2), ("negotiate dA==", 2), ("Negotiate", 2), ("Basic dA==", 1), ("NTLMv9 dA==", 1)];
    each(rows, |(credentials, connections)| {
        let backend = Backend::answering(OK);
        let balancer = balancer(&[&backend.url()], &[]);
        for lines in [&format!("Authorization: {credentials}\r\n"), ""] {
            let mut client = Client::connect(balancer.address());
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes());
            assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
        }
        assert_eq!(backend.accepted(), connections);
    });
}

#[test]
fn who_was_to_say_100_and_never_did_may_still_wait_for_the_body() {
    for (says_100, connections) in [(true, 1), (false, 2)] {
        let backend = Backend::start(move |connection| {
            while let Some(head) = connection.read_head() {
                if says_100 && head.get("Expect").is_some() {
                    connection.send(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                connection.read_rest();
                connection.send(OK.as_bytes());
            }
        });
        let balancer = balancer(&[&backend.url()], &[]);
        let mut client = Client::connect(balancer.address());
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi");
        if says_100 {
            assert_eq!(client.read_interim().status, 100);
        }
        assert_eq!(client.read_response("POST").text(), "ok", "{}", client.story());
        let mut other = Client::connect(balancer.address());
        other.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(other.read_response("GET").text(), "ok", "{}", other.story());
        assert_eq!(backend.accepted(), connections);
    }
}
