//! Messages that nobody thought of: rows of the tests' own tables with damage done to them, through the pure rooms and
//! through the whole program.
//!
//! The pure rooms are held against a second reader of the RFCs (`fuzz/strict.rs`) by the oracles of `fuzz/oracles.rs`,
//! which a coverage-guided fuzzer drives for longer (`tests/fuzz/run`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]
#![allow(unreachable_pub, dead_code, reason = "tests/fuzz is a crate of its own, whose public face these items are")]

#[path = "fuzz/oracles.rs"]
mod oracles;
mod support;

use std::io::{ErrorKind, Read as _, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use oracles::mutate::{self, Dice, Seeds};
use oracles::strict::{self, Framing, Read};
use support::{PATIENCE, balancer, show};

/// How long each test may go on: `FUZZ_SECONDS`, or not long.
fn time() -> Duration {
    let seconds = std::env::var("FUZZ_SECONDS").ok().map(|text| text.parse().expect("FUZZ_SECONDS is a number"));
    seconds.map_or(Duration::from_secs(1), Duration::from_secs)
}

fn seeds() -> Seeds {
    mutate::seeds(Path::new(env!("CARGO_MANIFEST_DIR")))
}

#[test]
fn two_readers_agree_about_what_the_tests_hold_and_about_damaged_copies_of_it() {
    let seeds = seeds();
    let targets: [(&str, fn(&[u8]), &[Vec<u8>]); 5] = [
        ("request_head", oracles::request_head, &seeds.requests),
        ("response_head", oracles::response_head, &seeds.responses),
        ("framing", oracles::framing, &seeds.lines),
        ("chunks", oracles::chunks, &seeds.bodies),
        ("forwarding", |data| oracles::forwarding(&[b"7", data].concat()), &seeds.requests),
    ];
    let time = time() / 5;
    for (name, oracle, rows) in targets {
        assert!(rows.len() > 100, "the tables were not understood: {} rows for {name}", rows.len());
        rows.iter().for_each(|row| oracle(row));
        let end = Instant::now() + time;
        let mut dice = Dice::new(1);
        let mut cases = rows.len();
        while Instant::now() < end {
            let mut row = dice.pick(rows).clone();
            mutate::damage(&mut row, &seeds.lines, &mut dice);
            oracle(&row);
            cases += 1;
        }
        println!("{name}: {cases} cases");
    }
}

// Through the whole program.

/// A request as the second reader sees it: method, target, host, body.
type Meant = (Vec<u8>, Vec<u8>, Option<Vec<u8>>, Vec<u8>);

/// What came over some connections, and what of it was no HTTP.
#[derive(Debug, Default)]
struct Heard {
    requests: Vec<Meant>,
    malformed: Vec<String>,
}

/// Behind every case, so that a connection whose requests are whole comes to its end.
const LAST: &[u8] = b"GET /last HTTP/1.1\r\nHost: z\r\nConnection: close\r\n\r\n";

#[test]
fn mutated_requests_reach_a_backend_as_what_they_say_or_not_at_all() {
    let seeds = Arc::new(seeds());
    let lanes: Vec<_> = (1..=4)
        .map(|lane| {
            let seeds = Arc::clone(&seeds);
            thread::spawn(move || requests_of_one_lane(lane, &seeds))
        })
        .collect();
    let accounts: Vec<Account> = lanes.into_iter().map(|lane| lane.join().unwrap()).collect();
    let sum = |count: fn(&Account) -> usize| accounts.iter().map(count).sum::<usize>();
    println!(
        "{} mutated requests: {} passed, {} refused, {} left unfinished; 5xx 0, malformed to a backend 0, answers that are no HTTP 0",
        sum(|account| account.cases),
        sum(|account| account.passed),
        sum(|account| account.refused),
        sum(|account| account.unfinished),
    );
    assert!(sum(|account| account.passed) > 0 && sum(|account| account.refused) > 0, "{accounts:?}");
}

/// What became of the cases of one lane.
#[derive(Debug, Default)]
struct Account {
    cases: usize,
    passed: usize,
    refused: usize,
    unfinished: usize,
}

/// One balancer, one backend, one case after the other: so it is known whose request arrives.
fn requests_of_one_lane(lane: u64, seeds: &Seeds) -> Account {
    let backend = Recorder::start();
    // Nine of our names in Via would be ten behind us, and the second reader would refuse them.
    let balancer = balancer(&[&format!("http://{}", backend.address)], &["--via", "off"]);
    let mut dice = Dice::new(lane);
    let mut account = Account::default();
    let end = Instant::now() + time();
    while Instant::now() < end {
        let mut case = mutate::case(&mutate::GOOD_REQUESTS, &seeds.requests, &seeds.lines, &mut dice);
        case.extend_from_slice(LAST);
        account.cases += 1;
        one_request(balancer.address(), &backend, &case, &mut account);
    }
    assert_eq!(balancer.counters().panics, 0);
    account
}

/// What the second reader makes of a client's connection: the requests that are to be answered, each with whether a
/// backend hears of it, and how it ends.
fn meant_by(case: &[u8]) -> (Vec<(Meant, bool)>, Ends) {
    let mut rest = case;
    let mut meant = Vec::new();
    loop {
        rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
        let head = match strict::head(rest) {
            Read::Whole(head) => head,
            Read::Half => return (meant, Ends::Unfinished),
            Read::Bad(_) => return (meant, Ends::Refused),
        };
        let Ok(request) = strict::request(&head) else { return (meant, Ends::Refused) };
        let counts_hops = request.method == b"OPTIONS" || request.method == b"TRACE";
        let hops = strict::all(&request.fields, b"max-forwards").into_iter().filter_map(strict::number).min();
        let is_answered_here = counts_hops && hops == Some(0);
        if is_answered_here && request.framing != Framing::None {
            // A body that nobody read: no request may follow.
            meant.push(((request.method, request.target, request.host, Vec::new()), false));
            return (meant, Ends::Closed);
        }
        let body = match strict::body(&rest[head.length..], request.framing) {
            Read::Whole(body) => body,
            Read::Half => return (meant, Ends::Unfinished),
            Read::Bad(_) => return (meant, Ends::Refused),
        };
        rest = &rest[head.length + body.length..];
        let options = strict::members(&request.fields, b"connection");
        let says = |word: &[u8]| options.iter().any(|option| option.eq_ignore_ascii_case(word));
        let is_last = says(b"close") || (request.minor == 0 && !says(b"keep-alive"));
        // A client without a Host gets the backend's, whose port changes from run to run.
        meant.push(((request.method, request.target, request.host, body.data), !is_answered_here));
        if is_last {
            return (meant, Ends::Closed);
        }
    }
}

/// How a client's connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// A request that the client does not end.
    Unfinished,
    /// With a refusal.
    Refused,
    /// As the client wished.
    Closed,
}

fn one_request(address: SocketAddr, backend: &Recorder, case: &[u8], account: &mut Account) {
    let (meant, ends) = meant_by(case);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(case).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = Vec::new();
    for (nth, ((method, target, ..), passes)) in meant.iter().enumerate() {
        let response = read_response(&mut stream, &mut heard, method == b"HEAD")
            .unwrap_or_else(|why| panic!("{why} for the answer {nth} to {}", show(case)));
        match passes {
            true if method == b"HEAD" => assert_eq!(response.0, 200, "the answer {nth} to {}", show(case)),
            true => assert_eq!(response, (200, target.clone()), "the answer {nth} to {}", show(case)),
            false => assert!([200, 501].contains(&response.0), "{response:?}, the answer {nth} to {}", show(case)),
        }
    }
    match ends {
        Ends::Closed => account.passed += 1,
        Ends::Refused => account.refused += 1,
        Ends::Unfinished => account.unfinished += 1,
    }
    // No more than a refusal comes where none is certain.
    if ends == Ends::Unfinished {
        stream.set_read_timeout(Some(Duration::from_millis(3))).unwrap();
    }
    let is_head = case.windows(5).any(|five| five == b"HEAD ");
    let refusal = read_response(&mut stream, &mut heard, false);
    let refusal = match refusal {
        Err("an end inside a body") if is_head => Ok((400, Vec::new())),
        refusal => refusal,
    };
    match (ends, refusal) {
        (Ends::Closed, Err("an end")) | (Ends::Unfinished, Err("an end" | "silence")) => {}
        (Ends::Refused | Ends::Unfinished, Ok((400..=499 | 501 | 505 | 508, _))) => {}
        (ends, refusal) => panic!("{ends:?}, but {refusal:?} behind the answers to {}", show(case)),
    }
    drop(stream);
    let passed: Vec<&Meant> = meant.iter().filter(|(_, passes)| *passes).map(|(meant, _)| meant).collect();
    let heard = std::mem::take(&mut *backend.heard.lock().unwrap());
    assert!(heard.malformed.is_empty(), "{:?} at the backend, of {}", heard.malformed, show(case));
    assert_eq!(heard.requests.len(), passed.len(), "{heard:?}, of {}", show(case));
    for (mut got, meant) in heard.requests.into_iter().zip(passed) {
        if meant.2.is_none() {
            got.2 = None;
        }
        assert_eq!(&got, meant, "of {}", show(case));
    }
}

/// The next final response: its status and its body. Whatever else comes is an error, in words.
fn read_response(stream: &mut TcpStream, heard: &mut Vec<u8>, to_head: bool) -> Result<(u16, Vec<u8>), &'static str> {
    loop {
        if let Read::Whole(head) = strict::head(heard) {
            let response = strict::response(&head, to_head, false)?;
            let length = head.length;
            if let Read::Whole(body) = strict::body(&heard[length..], response.framing) {
                heard.drain(..length + body.length);
                if response.status >= 200 {
                    return Ok((response.status, body.data));
                }
                continue;
            }
        } else if let Read::Bad(why) = strict::head(heard) {
            return Err(why);
        }
        let mut buffer = [0; 16 * 1024];
        match stream.read(&mut buffer) {
            Ok(0) if heard.is_empty() => return Err("an end"),
            Ok(0) if matches!(strict::head(heard), Read::Whole(_)) => return Err("an end inside a body"),
            Ok(0) => return Err("an end inside a head"),
            Ok(count) => heard.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err("silence"),
            Err(_) => return Err("a reset"),
        }
    }
}

/// A backend that judges every byte by the second reader, answers whole requests with their target, and writes down the
/// rest.
struct Recorder {
    address: SocketAddr,
    heard: Arc<Mutex<Heard>>,
}

impl Recorder {
    /// Its threads end with the balancer's connections and the test.
    fn start() -> Recorder {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let shared = Arc::clone(&heard);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || record(stream.unwrap(), &shared));
            }
        });
        Recorder { address, heard }
    }
}

fn record(mut stream: TcpStream, heard: &Mutex<Heard>) {
    stream.set_nodelay(true).unwrap();
    let mut bytes = Vec::new();
    loop {
        match whole_request(&bytes) {
            Ok(Some((request, length))) => {
                bytes.drain(..length);
                let (method, target) = (request.0.clone(), request.1.clone());
                heard.lock().unwrap().requests.push(request);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", target.len());
                let body = if method == b"HEAD" { &[][..] } else { &target };
                if stream.write_all(&[head.as_bytes(), body].concat()).is_err() {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(why) => {
                heard.lock().unwrap().malformed.push(format!("{why}: {}", show(&bytes)));
                return;
            }
        }
        let mut buffer = [0; 16 * 1024];
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return, // half a request may break off
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn whole_request(bytes: &[u8]) -> Result<Option<(Meant, usize)>, &'static str> {
    let head = match strict::head(bytes) {
        Read::Whole(head) => head,
        Read::Half => return Ok(None),
        Read::Bad(why) => return Err(why),
    };
    let request = strict::request(&head)?;
    match strict::body(&bytes[head.length..], request.framing) {
        Read::Whole(body) => {
            let length = head.length + body.length;
            Ok(Some(((request.method, request.target, request.host, body.data), length)))
        }
        Read::Half => Ok(None),
        Read::Bad(why) => Err(why),
    }
}

#[test]
fn mutated_responses_reach_a_client_as_what_they_say_or_not_at_all() {
    let seeds = Arc::new(seeds());
    let lanes: Vec<_> = (1..=4)
        .map(|lane| {
            let seeds = Arc::clone(&seeds);
            thread::spawn(move || responses_of_one_lane(lane, &seeds))
        })
        .collect();
    let accounts: Vec<Account> = lanes.into_iter().map(|lane| lane.join().unwrap()).collect();
    let sum = |count: fn(&Account) -> usize| accounts.iter().map(count).sum::<usize>();
    println!(
        "{} mutated responses: {} passed, {} refused, {} cut; junk passed on as good 0",
        sum(|account| account.cases),
        sum(|account| account.passed),
        sum(|account| account.refused),
        sum(|account| account.unfinished),
    );
    assert!(sum(|account| account.passed) > 0 && sum(|account| account.refused) > 0, "{accounts:?}");
}

/// One balancer, and a backend that says what the case is, whatever it is asked, and ends its side.
fn responses_of_one_lane(lane: u64, seeds: &Seeds) -> Account {
    let said = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shared = Arc::clone(&said);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut bytes = Vec::new();
                let mut buffer = [0; 16 * 1024];
                while !bytes.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(0) | Err(_) => return,
                        Ok(count) => bytes.extend_from_slice(&buffer[..count]),
                    }
                }
                let said = shared.lock().unwrap().clone();
                // Nobody need be there any more; and a reset must not overtake what was said.
                let _ = stream.write_all(&said).and_then(|()| stream.shutdown(Shutdown::Write));
                while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
            });
        }
    });
    // What a backend says here never makes it an unfit one, else there would soon be none.
    let balancer = balancer(&[&url], &[]);
    let mut dice = Dice::new(lane);
    let mut account = Account::default();
    let end = Instant::now() + time();
    while Instant::now() < end {
        let case = mutate::case(&mutate::GOOD_RESPONSES, &seeds.responses, &seeds.lines, &mut dice);
        *said.lock().unwrap() = case.clone();
        account.cases += 1;
        one_response(balancer.address(), &case, dice.below(4) == 0, &mut account);
    }
    assert_eq!(balancer.counters().panics, 0);
    account
}

/// What the second reader makes of what a backend said before it ended its side: status and body, if it is a response.
fn response_meant_by(said: &[u8], to_head: bool) -> Option<(u16, Vec<u8>)> {
    let mut rest = said;
    loop {
        let Read::Whole(head) = strict::head(rest) else { return None };
        let response = strict::response(&head, to_head, true).ok()?;
        rest = &rest[head.length..];
        match response.status {
            101 => return None, // nobody asked for it
            100..200 => {}
            status if response.framing == Framing::UntilClose => return Some((status, rest.to_vec())),
            status => {
                let Read::Whole(body) = strict::body(rest, response.framing) else { return None };
                return Some((status, body.data));
            }
        }
    }
}

fn one_response(address: SocketAddr, case: &[u8], to_head: bool, account: &mut Account) {
    let meant = response_meant_by(case, to_head);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let method = if to_head { "HEAD" } else { "GET" };
    stream.write_all(format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut heard = Vec::new();
    let got = read_response(&mut stream, &mut heard, to_head);
    match (meant, got) {
        (Some(meant), Ok(got)) => {
            assert_eq!(got, meant, "of {}", show(case));
            account.passed += 1;
            assert_eq!(read_response(&mut stream, &mut heard, to_head), Err("an end"), "behind {}", show(case));
        }
        (None, Ok((status, _))) => {
            assert_eq!(status, 502, "junk passed on as good: {}", show(case));
            account.refused += 1;
        }
        (None, Err("an end inside a body" | "a reset")) => account.unfinished += 1,
        (meant, got) => panic!("{got:?} of {meant:?}: {}", show(case)),
    }
}
