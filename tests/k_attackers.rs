//! Slow attackers: the four ways of slowhttptest, by clients of our own, and what an ordinary client notices of them.
//!
//! Slow heads, slow bodies, slow reads and ranges without end all live on one thing: that somebody waits for them with
//! something dear in hand. `ATTACKERS=10` brings ten times as many; the figures in `docs/RELIABILITY.md` are of that.
//! That each of them is cut in the end has tests of its own (`i_failures.rs`, `exchange/pace.rs`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]
#![allow(clippy::print_stdout, reason = "what was measured is told")]
// Threads and memory of another process are told by /proc alone.
#![cfg(target_os = "linux")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use program::Program;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Backend, Client, eventually};

/// Between two bytes of one attacker.
const DRIP: Duration = Duration::from_millis(100);

/// Requests of the ordinary client in each measurement.
const REQUESTS: usize = 100;

/// So many attackers, times `ATTACKERS`.
fn attackers(count: usize) -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    count * std::env::var("ATTACKERS").map_or(1, |text| text.parse().expect("ATTACKERS is a number"))
}

/// Answers `/large` with more than all buffers hold, and everything else, once it has come, with a word.
fn backend() -> Backend {
    Backend::start(|connection| {
        while let Some(request) = connection.read_request() {
            if request.target == "/large" {
                let piece = [b'x'; 64 * 1024];
                connection
                    .send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", piece.len() * 1024).as_bytes());
                if !(0..1024).all(|_| connection.send(&piece)) {
                    return;
                }
            } else {
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    })
}

/// What an ordinary client notices, and what the program has in hand.
#[derive(Debug)]
struct Seen {
    p50: Duration,
    p99: Duration,
    memory: u64,
    threads: u64,
}

fn look(program: &Program) -> Seen {
    let mut client = Client::connect(program.address());
    let mut times: Vec<Duration> = (0..REQUESTS)
        .map(|_| {
            let begun = Instant::now();
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.read_response("GET").text(), "ok");
            begun.elapsed()
        })
        .collect();
    times.sort();
    let (p50, p99) = (times[REQUESTS / 2], times[REQUESTS * 99 / 100]);
    let (memory, threads) = (program.status("VmRSS").unwrap(), program.status("Threads").unwrap());
    Seen { p50, p99, memory, threads }
}

/// Looks at an ordinary client's times alone and under this attack, which goes on in its own thread until that is done.
fn besieged(
    what: &str,
    count: usize,
    backend: &Backend,
    flags: &[&str],
    attack: impl Fn(SocketAddr, &AtomicBool, &AtomicBool) + Sync,
) {
    let url = backend.url();
    let program = Program::start([&["--workers", "2", &url], flags].concat());
    look(&program);
    let alone = look(&program);
    let (is_on, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let attackers = scope.spawn(|| attack(program.address(), &is_on, &is_over));
        eventually(|| is_on.load(Ordering::SeqCst) || attackers.is_finished(), "the attack is on");
        let besieged = look(&program);
        let open = backend.open();
        is_over.store(true, Ordering::SeqCst);
        attackers.join().unwrap();
        let each = besieged.memory.saturating_sub(alone.memory) as f64 / count as f64;
        println!(
            "{count} {what}: p50 {:?} alone, {:?} besieged; p99 {:?} and {:?}; {each:.1} KiB each; {open} backend connections",
            alone.p50, besieged.p50, alone.p99, besieged.p99
        );
        assert_eq!(besieged.threads, alone.threads, "attackers took a thread");
        assert!(each < 160.0, "{each} KiB for each of {count} {what}");
        // The order of magnitude of half of them: the rest is whatever else the machine has to do.
        assert!(besieged.p50 < alone.p50 * 10 + Duration::from_millis(100), "{alone:?}, but {besieged:?}");
    });
    eventually(|| program.descriptors().unwrap() < 64, "the attackers' descriptors are free again");
    assert!(look(&program).p50 < alone.p50 * 10 + Duration::from_millis(100), "the attack is over, but not its effect");
}

/// Connects so many, who all say this.
fn saying(address: SocketAddr, count: usize, words: &str) -> Vec<TcpStream> {
    (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(words.as_bytes()).unwrap();
            stream
        })
        .collect()
}

/// Lets each say one byte after the other, until it is over; whoever was cut says no more.
fn drip(streams: &mut [TcpStream], byte: u8, is_on: &AtomicBool, is_over: &AtomicBool) {
    is_on.store(true, Ordering::SeqCst);
    while !is_over.load(Ordering::SeqCst) {
        for stream in streams.iter_mut() {
            let _ = stream.write(&[byte]);
        }
        thread::sleep(DRIP);
    }
}

#[test]
fn slow_heads_cost_an_ordinary_client_nothing_and_reach_no_backend() {
    let count = attackers(300);
    let backend = backend();
    besieged("slow heads", count, &backend, &[], |address, is_on, is_over| {
        let mut streams = saying(address, count, "GET /slow HTTP/1.1\r\nHost: a\r\nX: ");
        drip(&mut streams, b'x', is_on, is_over);
    });
    assert!(backend.requests().iter().all(|request| request.target == "/"), "half a head went on");
    assert!(backend.accepted() <= 8, "{} backend connections", backend.accepted());
}

#[test]
fn slow_bodies_cost_an_ordinary_client_nothing() {
    let count = attackers(200);
    let backend = backend();
    besieged("slow bodies", count, &backend, &[], |address, is_on, is_over| {
        let mut streams = saying(address, count, "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 8192\r\n\r\n");
        drip(&mut streams, b'x', is_on, is_over);
    });
    let whole = |request: &support::Received| request.whole == (request.target == "/");
    assert!(backend.requests().iter().all(whole), "a body that broke off looked whole");
}

#[test]
fn small_bodies_that_are_late_hold_few_backends_and_end_in_time() {
    const LATE: usize = 16;
    let backend = backend();
    let program = Program::start(["--workers", "2", "--request-body-timeout", "3s", &backend.url()]);
    let half = "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf ";
    let mut streams = saying(program.address(), 3 * LATE, half);
    eventually(|| backend.open() == LATE, "the first that are late stream");
    // Whoever is one too many is not forgotten.
    let mut whole: Vec<TcpStream> = streams.drain(2 * LATE..).collect();
    for stream in &mut whole {
        stream.write_all(b"whole").unwrap();
    }
    for stream in &mut whole {
        assert!(said(stream).starts_with("HTTP/1.1 200 "), "a body that is whole was not passed on");
    }
    assert!(backend.requests().iter().filter(|request| !request.whole).count() <= LATE, "too many hold a backend");
    for stream in &mut streams {
        let said = said(stream);
        assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("client-body-timeout"), "{said:?}");
    }
    eventually(|| backend.open() <= LATE, "nothing of them is left");
}

/// The next thing that is said, whole as it is small.
fn said(stream: &mut TcpStream) -> String {
    let mut room = [0; 4096];
    let length = stream.read(&mut room).unwrap();
    String::from_utf8_lossy(&room[..length]).into_owned()
}

#[test]
fn slow_readers_cost_an_ordinary_client_nothing() {
    let count = attackers(100);
    let backend = backend();
    besieged("slow readers", count, &backend, &[], |address, is_on, is_over| {
        let SocketAddr::V4(address) = address else { panic!("{address} is not an IPv4 address") };
        // A receive buffer as small as can be, else the kernel takes in what the attacker doesn't.
        let mut streams: Vec<TcpStream> = (0..count)
            .map(|_| {
                let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
                set_socket_recv_buffer_size(&socket, 1024).unwrap();
                rustix::net::connect(&socket, &SocketAddrV4::new(*address.ip(), address.port())).unwrap();
                let mut stream = TcpStream::from(socket);
                stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                stream
            })
            .collect();
        for stream in &mut streams {
            stream.read_exact(&mut [0]).unwrap(); // the answer has begun
            stream.set_nonblocking(true).unwrap();
        }
        is_on.store(true, Ordering::SeqCst);
        while !is_over.load(Ordering::SeqCst) {
            for stream in &mut streams {
                let read = stream.read(&mut [0]);
                assert!(read.is_ok_and(|count| count == 1) || is_over.load(Ordering::SeqCst), "a reader was cut");
            }
            thread::sleep(DRIP);
        }
    });
}

#[test]
fn ranges_without_end_are_a_field_like_any_other() {
    let count = attackers(50);
    let backend = backend();
    let ranges: String = (0..1200).map(|nth| format!(",5-{nth}")).collect();
    let request = format!("GET /ranges HTTP/1.1\r\nHost: a\r\nRange: bytes=0-{ranges}\r\n\r\n");
    besieged("range requests at once", count, &backend, &[], |address, is_on, is_over| {
        while !is_over.load(Ordering::SeqCst) {
            let mut streams = saying(address, count, &request);
            is_on.store(true, Ordering::SeqCst);
            for stream in &mut streams {
                stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
                let mut answer = [0; 15];
                match stream.read_exact(&mut answer) {
                    Ok(()) => assert_eq!(&answer, b"HTTP/1.1 200 OK"),
                    Err(error) => assert!(error.kind() != ErrorKind::WouldBlock, "no answer"),
                }
            }
            thread::sleep(DRIP);
        }
    });
    let longer = request.replace("5-1199", &"5-1199,".repeat(2000));
    let program = Program::start([backend.url()]);
    let mut client = Client::connect(program.address());
    client.send(longer.as_bytes());
    client.expect_refusal(&[431]);
}
