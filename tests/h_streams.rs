//! Bytes on their way: pieces that go on as they come, both directions at once, and connections that leave HTTP behind.
//!
//! Most of these tests hold the sender of a piece back until its receiver has the piece before. Whoever waits for a
//! buffer to fill, or for one direction to end before it looks at the other, makes them wait for ever.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

mod support;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use support::{Backend, BackendSide, Client, End, Framing, Gate, PATIENCE, balancer, each, eventually};
use threadbare::Balancer;
use threadbare::metrics::WaitsFor;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

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

/// Bytes without a pattern that a lost or doubled block could hide in.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// These bytes as one chunk.
fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Runs `send` in a thread of its own on the client's connection, while the caller reads.
fn meanwhile(client: &Client, send: impl FnOnce(&mut TcpStream) + Send + 'static) -> thread::JoinHandle<()> {
    let mut stream = client.second_hand();
    thread::spawn(move || send(&mut stream))
}

// Bytes go on as they come.

#[test]
fn each_piece_of_a_response_goes_on_at_once() {
    let pieces: Vec<String> = (0..8).map(|nth| format!("data: {nth}\n\n")).collect();
    let length: usize = pieces.iter().map(String::len).sum();
    let framings = [format!("Content-Length: {length}"), "Transfer-Encoding: chunked".to_owned(), "X: y".to_owned()];
    let rows = framings.iter().flat_map(|framing| ["1.1", "1.0"].map(|version| (framing, version)));
    each(rows, |(framing, version)| {
        let gates: Vec<Gate> = (0..=pieces.len()).map(|_| Gate::new()).collect();
        let house = House::before(Backend::start({
            let (framing, pieces, gates) = (framing.clone(), pieces.clone(), gates.clone());
            move |connection| {
                connection.read_request();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n\r\n");
                connection.send(head.as_bytes());
                let is_chunked = framing.ends_with("chunked");
                for (piece, gate) in pieces.iter().zip(&gates) {
                    gate.pass();
                    let piece = if is_chunked { chunk(piece.as_bytes()) } else { piece.clone().into_bytes() };
                    connection.send(&piece);
                }
                gates[pieces.len()].pass();
                if is_chunked {
                    connection.send(b"0\r\n\r\n");
                }
            }
        }));
        let mut client = house.client();
        client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes());
        // The head comes before the first byte of the body does.
        let head = client.read_head("GET");
        assert_eq!(head.get("Content-Type"), Some("text/event-stream"), "{}", client.story());
        for (piece, gate) in pieces.iter().zip(&gates) {
            gate.open();
            assert_eq!(client.read_body_bytes(piece.len()), piece.as_bytes(), "{framing}: {}", client.story());
        }
        gates[pieces.len()].open();
        assert_eq!(client.read_rest().text(), pieces.concat(), "{framing}: {}", client.story());
    });
}

#[test]
fn each_piece_goes_both_ways_at_once() {
    // An answer that begins before its request has ended, and turns every piece around.
    const PIECE: usize = 4000;
    const COUNT: usize = 12;
    let rows = ["Content-Length: 48000", "Transfer-Encoding: chunked"];
    each(rows, |framing| {
        let house = House::before(Backend::start(|connection| {
            if connection.read_head().is_none() {
                return;
            }
            connection.send(CHUNKED.as_bytes());
            while let Some(bytes) = connection.read_body_bytes(PIECE) {
                if bytes.is_empty() {
                    connection.send(b"0\r\n\r\n");
                    break;
                }
                connection.send(&chunk(&bytes));
            }
        }));
        let mut client = house.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes());
        let head = client.read_head("POST");
        assert!(head.lists("Connection", "close"), "the request had not ended: {}", client.story());
        let all = noise(PIECE * COUNT);
        for piece in all.chunks(PIECE) {
            let sent = if framing.ends_with("chunked") { chunk(piece) } else { piece.to_vec() };
            client.send(&sent);
            assert!(client.read_body_bytes(PIECE) == piece, "{framing}: another piece came back");
        }
        if framing.ends_with("chunked") {
            client.send(b"0\r\n\r\n");
        }
        assert!(client.read_rest().body == all, "{framing}");
        let received = house.backend.wait_for_requests(1).pop().unwrap();
        assert!(received.body == all, "{framing}");
        drop(client);
        house.comes_to_rest();
    });
}

#[test]
fn a_slow_small_body_goes_on_in_the_end() {
    let house = House::before(Backend::echo());
    let mut client = house.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    // Collected for half a second at most; then it streams, and the backend gets what there is.
    house.backend.wait_until("the first half goes on alone", |record| {
        record.requests.first().is_some_and(|request| request.body == b"hello" && !request.whole)
    });
    client.send(b"world");
    assert!(client.read_response("POST").text().ends_with("\r\n\r\nhelloworld"), "{}", client.story());
}

#[test]
fn a_small_body_is_collected_before_a_backend_is_bothered() {
    let house = House::before(Backend::echo());
    let began = Instant::now();
    let mut client = house.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    eventually(|| house.balancer.counters().in_flight == 1, "the head has been read");
    let dials = house.balancer.counters().dials;
    if began.elapsed() < Duration::from_millis(400) {
        assert_eq!(dials, 0, "a backend was bothered with half a request");
    }
    client.send(b"world");
    assert!(client.read_response("POST").text().ends_with("\r\n\r\nhelloworld"), "{}", client.story());
}

#[test]
fn an_answer_may_take_its_time() {
    let gate = Gate::new();
    let house = House::before(Backend::start({
        let gate = gate.clone();
        move |connection| {
            connection.read_request();
            gate.pass();
            connection.send(OK.as_bytes());
        }
    }));
    let mut polls: Vec<Client> = (0..50).map(|_| house.client()).collect();
    for client in &mut polls {
        client.send(GET.as_bytes());
    }
    house.backend.wait_for_requests(50);
    // Fifty that wait are no hindrance to others; and no worker is with them.
    eventually(|| house.balancer.counters().parked == 50, "all of them wait in the lot");
    gate.open();
    for client in &mut polls {
        assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
    }
}

// Both directions at once.

/// Reads the head, says this, and has no ear for the body.
fn hasty(said: &'static str) -> Backend {
    Backend::start(move |connection| {
        if connection.read_head().is_some() {
            connection.send(said.as_bytes());
            connection.half_close();
            connection.read_to_end();
        }
    })
}

#[test]
fn an_early_answer_reaches_a_client_that_is_still_sending() {
    const TOO_LARGE: &str = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    let rows =
        ["Content-Length: 67108864", "Transfer-Encoding: chunked", "Content-Length: 67108864\r\nExpect: 100-continue"];
    each(rows, |framing| {
        let house = House::before(hasty(TOO_LARGE));
        // One that stops and looks, and one that does not.
        for goes_on in [false, true] {
            let mut client = house.client();
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes());
            client.send(if framing.ends_with("chunked") { b"4000000\r\nhello" } else { b"hello" });
            let sender = goes_on.then(|| {
                meanwhile(&client, |stream| {
                    let piece = vec![b'y'; 64 * 1024];
                    // Until it is no longer heard: the gentle close has its bounds.
                    while stream.write_all(&piece).is_ok() {}
                })
            });
            let response = client.read_response("POST");
            assert_eq!((response.status, &*response.text()), (413, "no"), "{framing}");
            assert!(response.closes(), "{framing}");
            let (rest, end) = client.try_to_end();
            assert!(rest.is_empty() && end != End::TimedOut, "{framing}: {end:?}");
            drop(client);
            if let Some(sender) = sender {
                sender.join().unwrap();
            }
        }
        house.comes_to_rest();
    });
}

/// Turns every piece of a body around, in chunks or behind the same length.
fn echoing() -> Backend {
    Backend::start(|connection| {
        while let Some(head) = connection.read_head() {
            let is_chunked = head.get("Transfer-Encoding").is_some();
            match head.get("Content-Length") {
                Some(length) => {
                    connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes())
                }
                None => connection.send(CHUNKED.as_bytes()),
            };
            while let Some(bytes) = connection.read_body_bytes(1) {
                if bytes.is_empty() {
                    break;
                }
                // What has come behind the first byte, as far as it has come.
                let bytes = [bytes, connection.read_body_bytes(32 * 1024 - 1).unwrap_or_default()].concat();
                if !connection.send(&if is_chunked { chunk(&bytes) } else { bytes }) {
                    return;
                }
            }
            if is_chunked {
                connection.send(b"0\r\n\r\n");
            }
        }
    })
}

#[test]
fn thirty_two_mebibytes_go_both_ways_at_once() {
    let house = House::before(echoing());
    let body = Arc::new(noise(32 * 1024 * 1024));
    let rows = [
        ("1.1", "Content-Length: 33554432"),
        ("1.1", "Transfer-Encoding: chunked"),
        ("1.0", "Content-Length: 33554432"),
    ];
    each(rows, |(version, framing)| {
        let mut client = house.client();
        client.send(format!("POST / HTTP/{version}\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes());
        let sender = meanwhile(&client, {
            let body = Arc::clone(&body);
            move |stream| {
                for piece in body.chunks(100_000) {
                    let piece = if framing.ends_with("chunked") { chunk(piece) } else { piece.to_vec() };
                    stream.write_all(&piece).unwrap();
                }
                if framing.ends_with("chunked") {
                    stream.write_all(b"0\r\n\r\n").unwrap();
                }
            }
        });
        let response = client.read_response("POST");
        assert!(
            response.status == 200 && response.body == *body,
            "HTTP/{version}, {framing}: {} bytes",
            response.body.len()
        );
        sender.join().unwrap();
    });
    house.comes_to_rest();
}

#[test]
fn many_go_both_ways_at_once() {
    let house = House::with(echoing(), &["--workers", "2"]);
    let body = Arc::new(noise(1024 * 1024));
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (address, body) = (house.balancer.address(), Arc::clone(&body));
            thread::spawn(move || {
                let mut client = Client::connect(address);
                for _again in 0..2 {
                    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
                    let sender = meanwhile(&client, {
                        let body = Arc::clone(&body);
                        move |stream| {
                            body.chunks(10_000).for_each(|piece| stream.write_all(&chunk(piece)).unwrap());
                            stream.write_all(b"0\r\n\r\n").unwrap();
                        }
                    });
                    let response = client.read_response("POST");
                    assert!(response.body == *body, "{} bytes came back", response.body.len());
                    sender.join().unwrap();
                    if response.closes() {
                        client = Client::connect(address);
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    house.comes_to_rest();
}

#[test]
fn a_slow_reader_holds_its_sender_back() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 900; // the kernel may hold 20 MiB of them
    let sent = Arc::new(AtomicUsize::new(0));
    let house = House::before(Backend::start({
        let sent = Arc::clone(&sent);
        move |connection| {
            connection.read_request();
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PIECE * PIECES).as_bytes());
            let piece = vec![b'y'; PIECE];
            while connection.send(&piece) && sent.fetch_add(1, Ordering::SeqCst) + 1 < PIECES {}
        }
    }));
    let mut client = house.client();
    client.send(GET.as_bytes());
    client.read_head("GET");
    // The system's buffers take some; after that the sender must stop.
    let stops = || {
        let before = sent.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(200));
        before > 0 && sent.load(Ordering::SeqCst) == before
    };
    eventually(stops, "the sender stops");
    let ahead = sent.load(Ordering::SeqCst) * PIECE;
    assert!(ahead < PIECES * PIECE / 2, "{ahead} bytes are under way to a client that reads none");
    let mut taken = 0;
    while taken < PIECE * PIECES {
        let bytes = client.read_body_bytes(PIECE);
        assert!(!bytes.is_empty(), "ended after {taken} bytes");
        taken += bytes.len();
    }
    client.read_rest();
}

#[test]
fn long_bodies_that_pass_at_once_are_not_mixed_up_though_some_stop_and_some_leave() {
    // All of them go through what little each worker has for that; what a client that has left did not take must not
    // come to the next.
    const LENGTH: usize = 6 * 1024 * 1024;
    let house = House::with(Backend::echo(), &["--workers", "2"]);
    thread::scope(|scope| {
        for nth in 0..12_u8 {
            let mut client = house.client();
            scope.spawn(move || {
                let body: Vec<u8> = noise(LENGTH + usize::from(nth)).into_iter().map(|byte| byte ^ nth).collect();
                let head = format!("POST /{nth} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
                for again in 0..2 {
                    client.send(&[head.as_bytes(), &body].concat());
                    client.read_head("POST");
                    if nth % 3 == 2 {
                        client.read_body_bytes(LENGTH / 2);
                        return client.abort();
                    }
                    while nth % 3 == 1 && client.read_body_bytes(LENGTH / 5).len() == LENGTH / 5 {
                        thread::sleep(Duration::from_millis(40)); // a pause, not a wait
                    }
                    let echo = client.read_rest().body;
                    assert!(echo.ends_with(&body), "client {nth} has got something else, time {again}");
                }
            });
        }
    });
    house.comes_to_rest();
}

#[test]
fn what_a_slow_backend_has_no_room_for_comes_to_it_later_and_in_its_place() {
    const LENGTH: usize = 24 * 1024 * 1024; // more than the buffers on its way hold
    let body = Arc::new(noise(LENGTH));
    let goes_on = Gate::new();
    let house = House::before(Backend::start({
        let goes_on = goes_on.clone();
        move |connection| {
            if connection.read_head().is_some() {
                connection.read_body_bytes(LENGTH / 8);
                goes_on.pass();
                if connection.read_rest().is_some() {
                    connection.send(OK.as_bytes());
                }
            }
        }
    }));
    let mut client = house.client();
    client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes());
    let sender = meanwhile(&client, {
        let body = Arc::clone(&body);
        move |stream| body.chunks(77_777).for_each(|piece| stream.write_all(piece).unwrap())
    });
    house.backend.wait_until("the beginning comes", |record| {
        record.requests.first().is_some_and(|request| request.body.len() == LENGTH / 8)
    });
    let is_stuck = || house.balancer.figures().parked[WaitsFor::Backend as usize] == 1;
    eventually(is_stuck, "the backend takes no more, and is waited for");
    goes_on.open();
    assert_eq!(client.read_response("PUT").text(), "ok", "{}", client.story());
    sender.join().unwrap();
    let received = house.backend.wait_for_requests(1).pop().unwrap();
    assert!(received.body == *body, "another body has come");
    drop(client);
    house.comes_to_rest();
}

#[test]
fn a_body_that_just_fills_a_buffer_leaves_its_connection_free_for_the_next() {
    const LENGTH: usize = 64 * 1024; // as much as is read at once
    let house = House::before(Backend::start(|connection| {
        while connection.read_request().is_some() {
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n").as_bytes());
            thread::sleep(Duration::from_millis(1)); // so that it comes alone, mostly
            connection.send(&[b'y'; LENGTH]);
        }
    }));
    let mut client = house.client();
    for _ in 0..50 {
        client.send(GET.as_bytes());
        assert_eq!(client.read_response("GET").body.len(), LENGTH);
        eventually(|| house.balancer.counters().in_flight == 0, "the exchange has ended");
    }
    let counters = house.balancer.counters();
    assert_eq!((counters.dials, counters.spares_reused, counters.spares_dead), (1, 49, 0));
}

#[test]
fn a_slow_backend_holds_the_client_back() {
    let (read_on, sent) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let house = House::before(Backend::start({
        let read_on = read_on.clone();
        move |connection| {
            if connection.read_head().is_some() {
                read_on.pass();
                connection.read_rest();
                connection.send(OK.as_bytes());
            }
        }
    }));
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 900; // the kernel may hold 20 MiB of them
    let mut client = house.client();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", PIECE * PIECES).as_bytes());
    let sender = meanwhile(&client, {
        let sent = Arc::clone(&sent);
        move |stream| {
            let piece = vec![b'y'; PIECE];
            for _piece in 0..PIECES {
                stream.write_all(&piece).unwrap();
                sent.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let stops = || {
        let before = sent.load(Ordering::SeqCst);
        thread::sleep(Duration::from_millis(200));
        before > 0 && sent.load(Ordering::SeqCst) == before
    };
    eventually(stops, "the sender stops");
    let ahead = sent.load(Ordering::SeqCst) * PIECE;
    assert!(ahead < PIECES * PIECE / 2, "{ahead} bytes are under way to a backend that reads none");
    read_on.open();
    assert_eq!(client.read_response("POST").text(), "ok");
    sender.join().unwrap();
}

#[test]
fn a_slow_reader_bothers_no_backend_again() {
    // The backend has said all it had to say while its client has yet to take the last of it: no reason to ask it, or
    // anybody else, once more. Some of these lengths are just what the system's buffers don't take.
    let rows = (4000..4400).step_by(20).map(|kibibytes| (kibibytes * 1024, kibibytes % 40 == 0));
    each(rows, |(length, is_chunked): (usize, bool)| {
        let body = vec![b'y'; length];
        let said = if is_chunked {
            [CHUNKED.as_bytes(), &chunk(&body), b"0\r\n\r\n"].concat()
        } else {
            [format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes(), &body].concat()
        };
        let house = House::before(Backend::answering(said));
        let mut client = house.client();
        client.send(GET.as_bytes());
        client.read_head("GET");
        // Time for the buffers to fill. Nothing is being waited for: the outcome must be the same if they have not.
        thread::sleep(Duration::from_millis(30));
        assert_eq!(client.read_rest().body.len(), length);
        eventually(|| house.balancer.counters().in_flight == 0, "the exchange has ended");
        let counters = house.balancer.counters();
        let asked = (counters.dials, counters.spares_reused, house.backend.requests().len());
        assert_eq!(asked, (1, 0, 1), "{length} bytes, in chunks: {is_chunked}");
    });
}

#[test]
fn an_early_answer_ends_the_way_to_the_backend_and_begins_no_other() {
    // A whole answer, while more of the request than a turn may move waits on the client's side.
    each(0..20, |nth| {
        let house = House::before(hasty("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"));
        let mut client = house.client();
        let sender = meanwhile(&client, |stream| {
            let length = 8 * 1024 * 1024;
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            // It may be left: that is what the answer says.
            drop(stream.write_all(&[head.as_bytes(), &vec![b'y'; length]].concat()));
        });
        assert_eq!(client.read_response("POST").status, 413, "the {nth}th time");
        drop(client);
        sender.join().unwrap();
        house.comes_to_rest();
        assert_eq!(house.balancer.counters().dials, 1, "the rest of the body went another way, the {nth}th time");
    });
}

// Expect.

#[test]
fn an_expectation_takes_each_of_its_ways() {
    type Script = fn(&mut BackendSide);
    let continues: Script = |connection| {
        while connection.read_head().is_some() {
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n");
            if connection.read_rest().is_none() {
                break;
            }
            connection.send(OK.as_bytes());
        }
    };
    let refuses: Script = |connection| {
        if connection.read_head().is_some() {
            connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
            connection.half_close();
            connection.read_to_end();
        }
    };
    let fails: Script = |connection| {
        if connection.read_head().is_some() {
            connection.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno");
            connection.read_to_end();
        }
    };
    let succeeds: Script = |connection| {
        if connection.read_head().is_some() {
            connection.send(OK.as_bytes());
            connection.read_to_end();
        }
    };
    let rows: [(&str, Script, bool, u16); 4] = [
        ("100, then the body", continues, true, 200),
        ("a refusal", refuses, false, 403),
        ("417", fails, false, 417),
        ("200 without a look at the body", succeeds, false, 200),
    ];
    let rows = rows.into_iter().flat_map(|row| {
        let length = ("Content-Length: 10", &b"helloworld"[..]);
        let chunked = ("Transfer-Encoding: chunked", &b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n"[..]);
        [(row, length), (row, chunked)]
    });
    each(rows, |((what, script, is_wanted, status), (framing, body))| {
        let house = House::before(Backend::start(script));
        let mut client = house.client();
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{framing}\r\n\r\n").as_bytes());
        if is_wanted {
            assert_eq!(client.read_interim().status, 100, "{what}: {}", client.story());
            client.send(body);
        }
        let response = client.read_response("PUT");
        assert_eq!(response.status, status, "{what}: {}", client.story());
        if is_wanted {
            assert!(!response.closes(), "{what}: {}", client.story());
            assert_eq!(house.backend.wait_for_requests(1)[0].body, b"helloworld");
        } else {
            // Nobody can know whether the body comes after all, and nobody waits for it.
            assert!(response.closes(), "{what}: {}", client.story());
            client.expect_closed();
            assert!(house.backend.requests().iter().all(|request| !request.whole && request.body.is_empty()));
        }
        drop(client);
        house.comes_to_rest();
    });
}

#[test]
fn a_client_that_gives_up_waiting_for_the_100_sends_its_body_all_the_same() {
    let house = House::before(Backend::echo());
    let mut client = house.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    house.backend.wait_until("the head goes on alone", |record| record.requests.len() == 1);
    client.send(b"hello");
    let response = client.read_response("POST");
    assert!(response.text().ends_with("\r\n\r\nhello") && !response.closes(), "{}", client.story());
}

// Tunnels.

const UPGRADE: &str = "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n";

/// Switches, and then says everything back until the other side ends.
fn switching() -> Backend {
    Backend::start(|connection| {
        if connection.read_request().is_some() {
            connection.send(SWITCH.as_bytes());
            while let Some(byte) = connection.read_raw(1) {
                connection.send(&byte);
            }
        }
    })
}

/// A client on the other side of a 101.
fn tunnel(house: &House) -> Client {
    let mut client = house.client();
    client.send(UPGRADE.as_bytes());
    expect_switch(&mut client);
    client
}

fn expect_switch(client: &mut Client) {
    let response = client.read_response("GET");
    assert_eq!(response.head.start, "HTTP/1.1 101 Switching Protocols", "{}", client.story());
    assert_eq!(response.head.get("Upgrade"), Some("echo/1"), "{}", client.story());
    assert!(response.head.lists("Connection", "upgrade") && !response.closes(), "{}", client.story());
}

#[test]
fn a_tunnel_carries_what_it_is_given() {
    let house = House::before(switching());
    let mut client = tunnel(&house);
    let request = house.backend.requests().pop().unwrap();
    assert_eq!(request.head.get("Upgrade"), Some("echo/1"), "{request:?}");
    assert!(request.head.lists("Connection", "upgrade"), "{request:?}");
    for bytes in [&b"hello"[..], b"\0\xff\r\n\r\n", b"GET /behind HTTP/1.1\r\n\r\n", b"0\r\n\r\n", b"!"] {
        client.send(bytes);
        assert_eq!(client.read_raw(bytes.len()), bytes, "{}", client.story());
    }
    assert_eq!(house.balancer.counters().in_flight, 1, "it is an exchange as long as it lasts");
    assert_eq!(house.backend.requests().len(), 1, "no request in there");
    drop(client);
    house.backend.wait_until("the tunnel has ended", |record| record.open == 0);
    house.comes_to_rest();
}

#[test]
fn bytes_behind_the_request_belong_to_the_tunnel() {
    let house = House::before(switching());
    each(["hello", "GET /behind HTTP/1.1\r\nHost: a\r\n\r\n", "\0"], |behind| {
        let mut client = house.client();
        client.send(format!("{UPGRADE}{behind}").as_bytes());
        expect_switch(&mut client);
        assert_eq!(client.read_raw(behind.len()), behind.as_bytes(), "{}", client.story());
        client.send(b"more");
        assert_eq!(client.read_raw(4), b"more", "{}", client.story());
    });
    assert!(house.backend.requests().iter().all(|request| request.target == "/tunnel"));
}

#[test]
fn bytes_behind_the_request_wait_for_the_101() {
    // Were they sent on at once, they would meet a backend that still speaks HTTP, unread by us.
    let house = House::before(Backend::start(|connection| {
        while let Some(request) = connection.read_request() {
            if request.target == "/tunnel" {
                connection.send(b"HTTP/1.1 103 Early Hints\r\n\r\n");
            }
            connection.send(OK.as_bytes());
        }
    }));
    let mut client = house.client();
    client.send(format!("{UPGRADE}GET /next HTTP/1.1\r\nHost: a\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n").as_bytes());
    assert_eq!(client.read_interim().status, 103, "{}", client.story());
    assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
    assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
    let next = house.backend.requests().pop().unwrap();
    assert_eq!(next.target, "/next");
    assert!(next.head.get("Via").is_some() && next.head.get("X-Hop").is_none(), "it went unread: {next:?}");
}

#[test]
fn bytes_behind_the_101_belong_to_the_tunnel() {
    each(["hello", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "\0"], |behind| {
        let house = House::before(Backend::start(move |connection| {
            if connection.read_request().is_some() {
                connection.send(format!("{SWITCH}{behind}").as_bytes());
                connection.read_to_end();
            }
        }));
        let mut client = house.client();
        client.send(UPGRADE.as_bytes());
        expect_switch(&mut client);
        assert_eq!(client.read_raw(behind.len()), behind.as_bytes(), "{}", client.story());
    });
}

#[test]
fn an_interim_response_may_come_before_the_101() {
    let house = House::before(Backend::start(|connection| {
        if connection.read_request().is_some() {
            connection.send(format!("HTTP/1.1 102 Processing\r\n\r\n{SWITCH}hello").as_bytes());
            connection.read_to_end();
        }
    }));
    let mut client = house.client();
    client.send(UPGRADE.as_bytes());
    assert_eq!(client.read_interim().status, 102, "{}", client.story());
    expect_switch(&mut client);
    assert_eq!(client.read_raw(5), b"hello", "{}", client.story());
}

#[test]
fn a_tunnel_that_was_ended_in_order_keeps_no_worker_busy() {
    // Both directions to the backend are ended while the client has yet to take most of the last word: to the kernel
    // that is a hang-up, but no reason to look again and again. There is one worker, so a busy one would be noticed.
    // How long a last word must be to fill one buffer but not the next is the system's secret: hence the rows.
    each((8..=24).map(|quarters| quarters * 256 * 1024), |length| {
        let backend = Backend::start(move |connection| {
            while let Some(request) = connection.read_request() {
                if request.target != "/tunnel" {
                    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    continue;
                }
                connection.send(SWITCH.as_bytes());
                connection.read_to_end();
                connection.send(&vec![b'y'; length]);
                connection.half_close();
                connection.read_to_end();
                return;
            }
        });
        let house = House::with(backend, &["--workers", "1"]);
        let mut client = tunnel(&house);
        client.half_close();
        for _ in 0..20 {
            let mut other = house.client();
            other.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(other.read_response("GET").text(), "ok", "{length} bytes: {}", other.story());
        }
        assert_eq!(client.read_to_end().len(), length);
    });
}

#[test]
fn a_half_close_is_passed_on_in_a_tunnel() {
    // Either side ends first; the other has a last word.
    let house = House::before(Backend::start(|connection| {
        if connection.read_request().is_some() {
            connection.send(SWITCH.as_bytes());
            let (heard, end) = connection.read_to_end();
            if end == End::Closed {
                connection.send(&[b"heard ", &heard[..]].concat());
            }
        }
    }));
    let mut client = tunnel(&house);
    client.send(b"hello");
    client.half_close();
    assert_eq!(client.read_to_end(), b"heard hello", "{}", client.story());
    drop(client);
    house.comes_to_rest();

    let heard = Gate::new();
    let house = House::before(Backend::start({
        let heard = heard.clone();
        move |connection| {
            if connection.read_request().is_some() {
                connection.send(format!("{SWITCH}hello").as_bytes());
                connection.half_close();
                if connection.read_to_end() == (b"last word".to_vec(), End::Closed) {
                    heard.open();
                }
            }
        }
    }));
    let mut client = tunnel(&house);
    assert_eq!(client.read_to_end(), b"hello", "{}", client.story());
    client.send(b"last word");
    client.half_close();
    heard.pass();
    drop(client);
    house.comes_to_rest();
}

#[test]
fn a_long_last_word_arrives_whole() {
    let word = Arc::new(noise(4 * 1024 * 1024));
    let house = House::before(Backend::start({
        let word = Arc::clone(&word);
        move |connection| {
            if connection.read_request().is_some() {
                connection.send(SWITCH.as_bytes());
                connection.send(&word);
            }
        }
    }));
    let mut client = tunnel(&house);
    assert!(client.read_to_end() == *word, "not the bytes that were sent");
}

#[test]
fn a_reset_goes_through_a_tunnel_as_one() {
    // Behind an end in order, what is missing would not be missed.
    let (heard, ends) = mpsc::channel();
    let house = House::before(Backend::start(move |connection| {
        if connection.read_request().is_some() {
            connection.send(SWITCH.as_bytes());
            let half = connection.read_raw(4).unwrap_or_default();
            connection.send(&half);
            let _test_is_over: Result<(), _> = heard.send(connection.read_to_end());
        }
    }));
    let mut client = tunnel(&house);
    client.send(b"half");
    assert_eq!(client.read_raw(4), b"half", "the backend has it");
    client.abort();
    assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), (Vec::new(), End::Reset));
    house.comes_to_rest();

    let house = House::before(Backend::start(|connection| {
        if connection.read_request().is_some() {
            connection.send(SWITCH.as_bytes());
            connection.read_raw(1);
            connection.reset();
        }
    }));
    let mut client = tunnel(&house);
    client.send(b"x");
    let (rest, end) = client.try_to_end();
    assert!(rest.is_empty() && end == End::Reset, "{end:?}: {}", client.story());
    house.comes_to_rest();
}

#[test]
fn who_leaves_a_body_unfinished_behind_an_early_101_is_waited_for_no_longer_than_others() {
    let backend = Backend::start(|connection| {
        if connection.read_head().is_some() {
            connection.send(SWITCH.as_bytes());
            connection.read_rest();
        }
    });
    let balancer = balancer(&[&backend.url()], &["--request-body-timeout", "300ms", "--lowest-rate", "0"]);
    let mut client = Client::connect(balancer.address());
    let framing = "\r\nContent-Length: 100000\r\n\r\nhello";
    client.send(UPGRADE.replace("GET", "POST").replace("\r\n\r\n", framing).as_bytes());
    assert_eq!(client.read_response("POST").status, 408, "{}", client.story());
}

#[test]
fn the_body_of_a_request_goes_out_whole_before_the_tunnel_begins() {
    let bodies: [(&str, Vec<u8>); 3] = [
        ("Content-Length: 5", b"hello".to_vec()),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n".to_vec()),
        ("Content-Length: 100000", noise(100_000)),
    ];
    let rows = bodies.iter().flat_map(|body| [(body, "after"), (body, "before")]);
    each(rows, |((framing, body), when)| {
        let asked = Gate::new();
        let house = House::before(Backend::start({
            let asked = asked.clone();
            move |connection| {
                if connection.read_head().is_some() {
                    // A backend may switch before it has read the body; it comes as a body all the same.
                    if when == "before" {
                        connection.send(SWITCH.as_bytes());
                    }
                    asked.open();
                    if connection.read_rest().is_none() {
                        return;
                    }
                    if when == "after" {
                        connection.send(SWITCH.as_bytes());
                    }
                    while let Some(byte) = connection.read_raw(1) {
                        connection.send(&byte);
                    }
                }
            }
        }));
        let mut client = house.client();
        client.send(UPGRADE.replace("GET", "POST").replace("\r\n\r\n", &format!("\r\n{framing}\r\n\r\n")).as_bytes());
        let (front, back) = body.split_at(body.len() / 2);
        client.send(front);
        if body.len() > 32 * 1024 {
            asked.pass(); // it streams, so the backend has had its say before the rest comes
        }
        client.send(back);
        client.send(b"tunnel");
        expect_switch(&mut client);
        assert_eq!(client.read_raw(6), b"tunnel", "{when} {framing}");
        let received = house.backend.wait_for_requests(1).pop().unwrap();
        let expected: &[u8] = if framing.ends_with("chunked") { b"hello" } else { body };
        assert!(received.body == expected, "{when} {framing}: {} bytes", received.body.len());
    });
}

#[test]
fn a_refused_upgrade_leaves_a_usable_connection() {
    let answers = [
        OK,
        "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nUpgrade: other\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
    ];
    each(answers, |answer| {
        let house = House::before(Backend::answering(answer));
        let mut client = house.client();
        for request in [UPGRADE, GET, UPGRADE, GET] {
            client.send(request.as_bytes());
            assert!(!client.read_response("GET").closes(), "{}", client.story());
        }
        assert_eq!(house.backend.accepted(), 1, "nor is the backend's connection spoilt by {answer:?}");
    });
}

#[test]
fn http_2_is_not_tunnelled() {
    let house = House::before(Backend::answering(OK));
    let rows = [
        ("h2c", None),
        ("H2C", None),
        ("HTTP/2.0, TLS/1.2, h2", None),
        ("h2c, echo/1", Some("echo/1")),
        ("echo/1, h2c, tls/1.0", Some("echo/1")),
    ];
    each(rows, |(offer, left)| {
        let mut client = house.client();
        let lines = format!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {offer}\r\nHTTP2-Settings: AAMAAABk");
        let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{preface}").as_bytes());
        assert_eq!(client.read_response("GET").text(), "ok", "{}", client.story());
        // What would be HTTP/2 is read as what it is to us: no request.
        client.expect_refusal(&[400, 505]);
        let received = house.backend.requests().pop().unwrap();
        assert_eq!(received.head.get("Upgrade"), left, "{received:?}");
        assert_eq!(received.head.get("HTTP2-Settings"), None, "{received:?}");
    });
}

#[test]
fn a_tunnel_that_nobody_uses_is_closed() {
    let timeout = Duration::from_millis(300);
    let house = House::with(switching(), &["--tunnel-timeout", "300ms"]);
    let began = Instant::now();
    let mut client = tunnel(&house);
    client.send(b"hello");
    assert_eq!(client.read_raw(5), b"hello", "{}", client.story());
    let (rest, end) = client.try_to_end();
    assert!(rest.is_empty() && end != End::TimedOut, "{end:?}: {}", client.story());
    assert!(began.elapsed() >= timeout, "after {:?} already", began.elapsed());
    house.backend.wait_until("the backend is let go", |record| record.open == 0);
    house.comes_to_rest();
}

#[test]
fn a_tunnel_that_is_cut_with_bytes_undelivered_does_not_end_as_if_it_were_whole() {
    let house = House::with(
        Backend::start(|connection| {
            connection.read_request();
            connection.send(SWITCH.as_bytes());
            while connection.send(&[b'x'; 100_000]) {}
        }),
        &["--tunnel-timeout", "300ms"],
    );
    let mut client = tunnel(&house);
    eventually(|| house.balancer.counters().in_flight == 0, "nothing moves, so it is cut");
    assert_eq!(client.try_to_end().1, End::Reset);
}

/// Uses a tunnel in one direction alone, for longer than it may be idle; it must not be closed.
fn use_tunnel(direction: &'static str) {
    let timeout = Duration::from_millis(1000);
    let house = House::with(
        Backend::start(move |connection| {
            if connection.read_request().is_some() {
                connection.send(SWITCH.as_bytes());
                if direction == "up" {
                    connection.read_to_end();
                }
                while connection.send(b"x") {
                    thread::sleep(timeout / 10);
                }
            }
        }),
        &["--tunnel-timeout", "1s"],
    );
    let mut client = tunnel(&house);
    let began = Instant::now();
    let mut last = began;
    while began.elapsed() < timeout * 3 / 2 {
        let lives = if direction == "up" {
            thread::sleep(timeout / 10);
            client.try_send(b"x") && house.balancer.counters().in_flight == 1
        } else {
            client.read_raw(1) == b"x"
        };
        // A machine that sleeps for so long says nothing about the tunnel.
        if last.elapsed() > timeout * 3 / 4 {
            eprintln!("not judged: a pause of {:?}", last.elapsed());
            return;
        }
        assert!(lives, "closed after {:?}, while it was in use", began.elapsed());
        last = Instant::now();
    }
}

#[test]
fn what_a_client_says_keeps_a_tunnel_open() {
    use_tunnel("up");
}

#[test]
fn what_a_backend_says_keeps_a_tunnel_open() {
    use_tunnel("down");
}

#[test]
fn a_tunnel_carries_much_in_both_directions_at_once() {
    let house = House::before(Backend::start(|connection| {
        if connection.read_request().is_some() {
            connection.send(SWITCH.as_bytes());
            while let Some(bytes) = connection.read_raw(64 * 1024) {
                connection.send(&bytes);
            }
        }
    }));
    let body = Arc::new(noise(16 * 1024 * 1024));
    let mut client = tunnel(&house);
    let sender = meanwhile(&client, {
        let body = Arc::clone(&body);
        move |stream| stream.write_all(&body).unwrap()
    });
    let mut came = Vec::new();
    while came.len() < body.len() {
        came.extend(client.read_raw(64 * 1024));
    }
    assert!(came == *body, "not the bytes that were sent");
    sender.join().unwrap();
}

#[test]
fn two_workers_carry_a_hundred_tunnels() {
    let house = House::with(switching(), &["--workers", "2"]);
    let mut clients: Vec<Client> = (0..100).map(|_| tunnel(&house)).collect();
    assert_eq!(house.balancer.counters().in_flight, 100);
    for round in 0..5u8 {
        for client in &mut clients {
            client.send(&[round; 3]);
        }
        for client in &mut clients {
            assert_eq!(client.read_raw(3), [round; 3]);
        }
    }
    drop(clients);
    house.comes_to_rest();
}

// Programs that we did not write.

/// A WebSocket server that says every message back, for this many connections.
fn websocket_server(connections: usize) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        for _connection in 0..connections {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
            let mut socket = tungstenite::accept(stream).unwrap();
            // Pings and closes are answered on the way.
            while let Ok(message) = socket.read() {
                if message.is_text() || message.is_binary() {
                    socket.send(message).unwrap();
                }
            }
        }
    });
    (url, server)
}

#[test]
fn a_websocket_passes() {
    use tungstenite::Message;

    let (url, server) = websocket_server(2);
    let balancer = balancer(&[&(url + "/prefix")], &[]);
    for _connection in 0..2 {
        let stream = TcpStream::connect(balancer.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let url = format!("ws://{}/chat?room=1", balancer.address());
        let (mut socket, response) = tungstenite::client(url, stream).unwrap();
        assert_eq!(response.status(), 101);
        let messages = [
            Message::text("hello"),
            Message::text(""),
            Message::text("Sch\u{f6}n \u{1f44b}"),
            Message::binary(noise(125)),
            Message::binary(noise(126)),
            Message::binary(noise(65_536)),
            Message::binary(noise(2_000_000)),
        ];
        for message in messages {
            socket.send(message.clone()).unwrap();
            assert!(socket.read().unwrap() == message, "another message came back");
        }
        for nth in 0..200 {
            socket.send(Message::text(nth.to_string())).unwrap();
        }
        for nth in 0..200 {
            assert_eq!(socket.read().unwrap(), Message::text(nth.to_string()));
        }
        socket.send(Message::Ping(b"are you there"[..].into())).unwrap();
        assert_eq!(socket.read().unwrap(), Message::Pong(b"are you there"[..].into()));
        socket.close(None).unwrap();
        // The other side's close, and then the end.
        assert!(socket.read().unwrap().is_close());
        assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)));
    }
    server.join().unwrap();
    eventually(|| balancer.counters().in_flight == 0, "both tunnels have ended");
}

/// A server that says every body back, until the test ends: behind a length, or in chunks where the path says so.
struct TinyServer(Arc<tiny_http::Server>, Option<thread::JoinHandle<()>>);

impl TinyServer {
    fn start() -> Self {
        let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").unwrap());
        let thread = thread::spawn({
            let server = Arc::clone(&server);
            move || {
                while let Ok(mut request) = server.recv() {
                    let mut body = Vec::new();
                    // An upload that breaks off is answered by nobody.
                    if request.as_reader().read_to_end(&mut body).is_err() {
                        continue;
                    }
                    if request.url().starts_with("/count") {
                        let count = request.url()["/count/".len()..].parse().unwrap();
                        body = noise(count);
                    }
                    let threshold = if request.url().contains("chunked") { 0 } else { usize::MAX };
                    drop(request.respond(tiny_http::Response::from_data(body).with_chunked_threshold(threshold)));
                }
            }
        });
        Self(server, Some(thread))
    }

    fn url(&self) -> String {
        format!("http://{}", self.0.server_addr().to_ip().unwrap())
    }
}

impl Drop for TinyServer {
    fn drop(&mut self) {
        self.0.unblock();
        let ended = self.1.take().unwrap().join();
        assert!(thread::panicking() || ended.is_ok(), "the server panicked");
    }
}

#[test]
fn a_client_and_a_server_that_we_did_not_write_understand_each_other() {
    let server = TinyServer::start();
    let balancer = balancer(&[&server.url()], &[]);
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
    let url = |path: &str| format!("http://{}/{path}", balancer.address());
    for size in [0, 1, 100, 1023, 1024, 32 * 1024, 32 * 1024 + 1, 65_536, 1024 * 1024] {
        let body = noise(size);
        let mut answer = agent.get(url(&format!("count/{size}"))).call().unwrap();
        assert!(answer.body_mut().read_to_vec().unwrap() == body, "GET of {size} bytes");
        for path in ["length", "chunked"] {
            let mut answer = agent.post(url(path)).send(&body[..]).unwrap();
            assert_eq!(answer.status(), 200, "POST of {size} bytes, {path}");
            assert!(answer.body_mut().read_to_vec().unwrap() == body, "POST of {size} bytes, {path}");
            let mut reader = &body[..];
            let mut answer = agent.put(url(path)).send(ureq::SendBody::from_reader(&mut reader)).unwrap();
            assert!(answer.body_mut().read_to_vec().unwrap() == body, "PUT of {size} bytes in chunks, {path}");
        }
        let mut answer = agent.head(url(&format!("count/{size}"))).call().unwrap();
        assert!(answer.body_mut().read_to_vec().unwrap().is_empty(), "HEAD of {size} bytes");
    }
    assert_eq!(balancer.counters().connections, 1, "it kept its connection");
    drop(agent);
    eventually(|| balancer.counters().connections == 0, "it has left");
    assert_eq!(balancer.counters().panics, 0);
}

#[test]
fn many_clients_that_we_did_not_write_are_served_at_once() {
    let servers = [TinyServer::start(), TinyServer::start()];
    let balancer = balancer(&[&servers[0].url(), &servers[1].url()], &[]);
    let clients: Vec<_> = (0..8)
        .map(|client: usize| {
            let address = balancer.address();
            thread::spawn(move || {
                let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
                for nth in 0..25 {
                    let body = noise(client * 1000 + nth);
                    let mut answer = agent.post(format!("http://{address}/")).send(&body[..]).unwrap();
                    assert!(answer.body_mut().read_to_vec().unwrap() == body, "client {client}, request {nth}");
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    eventually(|| balancer.counters().exchanges == 200, "two hundred exchanges have ended");
}

#[test]
fn a_framing_is_not_changed_on_the_way() {
    // A length stays a length, chunks stay chunks, in both directions.
    let house = House::before(echoing());
    let rows = [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n")];
    each(rows, |(framing, body)| {
        let mut client = house.client();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{body}").as_bytes());
        let response = client.read_response("POST");
        let received = house.backend.wait_for_requests(1).pop().unwrap();
        let expected = if framing.ends_with("chunked") { Framing::Chunked } else { Framing::Length(5) };
        assert_eq!((received.framing, response.framing), (expected, expected), "{}", client.story());
        assert_eq!((&received.body[..], &*response.text()), (&b"hello"[..], "hello"), "{}", client.story());
    });
}
