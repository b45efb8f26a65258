//! Slow attackers: the four ways of slowhttptest, by clients of our own, and what an ordinary client notices of them.
//!
//! Slow heads, slow bodies, slow reads and ranges without end all live on one thing: that somebody waits for them with
//! something dear in hand. `ATTACKERS=10` brings ten times as many; the figures in `docs/RELIABILITY.md` are of that.
//! That each of them is cut in the end has tests of its own (`i_failures.rs`, `exchange/pace.rs`). `BESIEGED=nginx` and
//! `BESIEGED=haproxy` bring them before those: how much of what is noticed is the machine's own?

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]
#![allow(clippy::print_stdout, reason = "what was measured is told")]
// Threads and memory of another process are told by /proc alone.
#![cfg(target_os = "linux")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream};
use std::process::Command;
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

/// Requests of the ordinary client in each measurement: nine of them may be slower than the p99.
const REQUESTS: usize = 1000;

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

/// Who is besieged: this program, unless `BESIEGED` names another, which has to be installed.
fn besieged_program(backend: &Backend) -> Program {
    let folder = env!("CARGO_TARGET_TMPDIR");
    let peer = std::env::var("BESIEGED").unwrap_or_default();
    let program = match peer.as_str() {
        "" => Program::start(["--workers", "2", &backend.url()]),
        "nginx" => Program::listening_silently(|address| {
            let config = format!("{folder}/besieged.nginx");
            std::fs::write(&config, nginx(address, backend.address(), folder)).unwrap();
            let mut command = Command::new("nginx");
            command.args(["-e", "stderr", "-c", &config]);
            command
        }),
        "haproxy" => Program::listening_silently(|address| {
            let config = format!("{folder}/besieged.haproxy");
            std::fs::write(&config, haproxy(address, backend.address())).unwrap();
            let mut command = Command::new("haproxy");
            command.args(["-db", "-f", &config]);
            command
        }),
        _ => panic!("BESIEGED={peer}: it is nginx or haproxy that can be besieged in the place of threadbare"),
    };
    if !peer.is_empty() {
        println!("not threadbare, but {peer}:");
    }
    program
}

/// One process, which is what memory and processor time are read from.
fn nginx(address: &str, backend: SocketAddr, folder: &str) -> String {
    format!(
        "daemon off; master_process off; pid {folder}/besieged.pid; worker_rlimit_nofile 20000;
        events {{ worker_connections 16384; }}
        http {{
            access_log off; keepalive_requests 1000000; client_body_temp_path {folder}/body;
            proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
            scgi_temp_path {folder}/scgi; large_client_header_buffers 4 16k; proxy_max_temp_file_size 0;
            upstream backend {{ server {backend}; keepalive 64; }}
            server {{
                listen {address} backlog=4096;
                location / {{
                    proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection '';
                }}
            }}
        }}"
    )
}

fn haproxy(address: &str, backend: SocketAddr) -> String {
    let timeouts = "timeout connect 5s\n timeout client 60s\n timeout server 60s";
    format!(
        "global\n nbthread 2\n maxconn 16000\n no strict-limits\n\
        defaults\n mode http\n http-reuse always\n {timeouts}\n\
        listen all\n bind {address} backlog 4096\n server only {backend}\n"
    )
}

/// What an ordinary client notices, and what the program has in hand.
#[derive(Debug)]
struct Seen {
    p50: Duration,
    p99: Duration,
    worst: Duration,
    memory: u64,
    threads: u64,
    /// The part of the time in which the program worked, and waited for a core, all its threads together; in percent.
    works: f64,
    waits: f64,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { p50, p99, worst, works, waits, .. } = self;
        write!(f, "p50 {p50:.1?}, p99 {p99:.1?}, worst {worst:.1?}; works {works:.0} %, waits for a core {waits:.0} %")
    }
}

/// For so many nanoseconds have all threads of the program worked, and waited for a core that others had.
fn worked_and_waited(program: &Program) -> [u64; 2] {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", program.id())).unwrap();
    let mut sums = [0; 2];
    for task in tasks {
        let stat = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
        for (sum, number) in sums.iter_mut().zip(stat.split(' ')) {
            *sum += number.parse::<u64>().unwrap();
        }
    }
    sums
}

fn look(program: &Program) -> Seen {
    let mut client = Client::connect(program.address());
    let (before, begun) = (worked_and_waited(program), Instant::now());
    let mut times: Vec<Duration> = (0..REQUESTS)
        .map(|_| {
            let begun = Instant::now();
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.read_response("GET").text(), "ok");
            begun.elapsed()
        })
        .collect();
    let part = begun.elapsed().as_nanos() as f64 / 100.0;
    let after = worked_and_waited(program);
    let [works, waits] = [0, 1].map(|nth| (after[nth] - before[nth]) as f64 / part);
    times.sort();
    let (p50, p99, worst) = (times[REQUESTS / 2], times[REQUESTS * 99 / 100], times[REQUESTS - 1]);
    let (memory, threads) = (program.status("VmRSS").unwrap(), program.status("Threads").unwrap());
    Seen { p50, p99, worst, memory, threads, works, waits }
}

/// Looks at an ordinary client's times alone and under this attack, which goes on in its own thread until that is done.
/// Each attacker may cost at most so many KiB.
fn besieged(
    what: &str,
    count: usize,
    backend: &Backend,
    most: f64,
    attack: impl Fn(SocketAddr, &AtomicBool, &AtomicBool) + Sync,
) {
    let program = besieged_program(backend);
    let is_peer = std::env::var_os("BESIEGED").is_some_and(|name| !name.is_empty());
    look(&program);
    let alone = look(&program);
    let (is_on, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let attackers = scope.spawn(|| attack(program.address(), &is_on, &is_over));
        eventually(|| is_on.load(Ordering::SeqCst) || attackers.is_finished(), "the attack is on");
        let besieged = look(&program);
        let open = backend.open();
        let later = look(&program);
        is_over.store(true, Ordering::SeqCst);
        attackers.join().unwrap();
        let each = besieged.memory.max(later.memory).saturating_sub(alone.memory) as f64 / count as f64;
        println!("{count} {what}: {each:.1} KiB each; {open} backend connections");
        println!("alone {alone}\nbesieged {besieged}\nlater {later}");
        if is_peer {
            return;
        }
        assert_eq!(besieged.threads, alone.threads, "attackers took a thread");
        assert!(each < most, "{each} KiB for each of {count} {what}");
        // The order of magnitude of half of them: the rest is whatever else the machine has to do.
        assert!(besieged.p50 < alone.p50 * 10 + Duration::from_millis(100), "{alone:?}, but {besieged:?}");
    });
    if is_peer {
        return;
    }
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
    besieged("slow heads", count, &backend, 32.0, |address, is_on, is_over| {
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
    besieged("slow bodies", count, &backend, 32.0, |address, is_on, is_over| {
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
    besieged("slow readers", count, &backend, 20.0, |address, is_on, is_over| {
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
    besieged("range requests at once", count, &backend, 160.0, |address, is_on, is_over| {
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
