//! Waiting costs no thread: a crowd of clients that all wait for something, before two workers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]
// Threads, descriptors and memory of another process are told by /proc alone.
#![cfg(target_os = "linux")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use program::Program;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Backend, Client, Gate, PATIENCE, eventually};

const WORKERS: u64 = 2;

/// Main, health checker, names, log, access log: as many threads as there are, beside the workers.
const OTHER_THREADS: u64 = 5;

/// More than all the buffers on its way hold.
const LARGE: usize = 16 * 1024 * 1024;

/// How many clients wait for what.
#[derive(Debug)]
struct Crowd {
    idle: usize,
    half_heads: usize,
    waiting: usize,
    tunnels: usize,
    slow_readers: usize,
}

impl Crowd {
    /// As large as the descriptor limit allows: most of these take two, here and in the program.
    fn within(descriptors: u64) -> Crowd {
        let full = Crowd { idle: 1000, half_heads: 300, waiting: 400, tunnels: 100, slow_readers: 50 };
        let needed = full.idle + full.half_heads + 2 * (full.waiting + full.tunnels + full.slow_readers);
        // 200 for everything else: listeners, logs, pipes, and what the test itself has open.
        let available = usize::try_from(descriptors).unwrap_or(usize::MAX).saturating_sub(200);
        let part = |count: usize| (count * available.min(needed) / needed).max(1);
        Crowd {
            idle: part(full.idle),
            half_heads: part(full.half_heads),
            waiting: part(full.waiting),
            tunnels: part(full.tunnels),
            slow_readers: part(full.slow_readers),
        }
    }
}

/// Raises our own soft limit, which the program inherits, to the hard one.
fn descriptor_limit() -> u64 {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let limit = maximum.unwrap_or(1 << 20).min(1 << 20);
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum }).unwrap();
    limit
}

/// Answers `/` at once, `/held` when the gate is open, `/large` with more than buffers hold, and `/tunnel` with an echo.
fn backend(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::start(move |connection| {
        while let Some(request) = connection.read_request() {
            match request.target.as_str() {
                "/tunnel" => {
                    connection.send(b"HTTP/1.1 101 \r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
                    while let Some(byte) = connection.read_raw(1) {
                        connection.send(&byte);
                    }
                    return;
                }
                "/large" => {
                    connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes());
                    // In pieces: each is given as long as a reader may take for it.
                    let piece = [b'x'; 64 * 1024];
                    if !(0..LARGE / piece.len()).all(|_| connection.send(&piece)) {
                        return;
                    }
                }
                target => {
                    if target == "/held" {
                        gate.pass();
                    }
                    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
            }
        }
    })
}

fn ask(client: &mut Client, target: &str) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
}

fn get(client: &mut Client) {
    ask(client, "/");
    assert_eq!(client.read_response("GET").text(), "ok");
}

/// A client that has asked for more than it takes: its receive buffer is as small as can be.
fn slow_reader(address: SocketAddr) -> TcpStream {
    let SocketAddr::V4(address) = address else { panic!("{address} is not an IPv4 address") };
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    set_socket_recv_buffer_size(&socket, 1024).unwrap();
    rustix::net::connect(&socket, &SocketAddrV4::new(*address.ip(), address.port())).unwrap();
    let mut reader = TcpStream::from(socket);
    reader.set_read_timeout(Some(PATIENCE)).unwrap();
    reader.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    reader
}

#[test]
fn what_comes_behind_a_request_that_waits_is_left_with_the_kernel() {
    const CLIENTS: usize = 200;
    let gate = Gate::new();
    let backend = backend(&gate);
    let program = Program::start(["--access-log", "off", &backend.url()]);
    get(&mut Client::connect(program.address()));
    let memory = program.status("VmRSS").unwrap();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(program.address())).collect();
    let behind = "x".repeat(60_000);
    for client in &mut clients {
        client.try_send(format!("GET /held HTTP/1.1\r\nHost: a\r\n\r\n{behind}").as_bytes());
    }
    backend.wait_until("they all wait", |record| {
        record.requests.iter().filter(|request| request.target == "/held").count() == CLIENTS
    });
    let each = program.status("VmRSS").unwrap().saturating_sub(memory) / CLIENTS as u64;
    assert!(each <= 32, "{each} KiB for each");
    gate.open();
}

#[test]
fn a_crowd_that_waits_takes_no_thread_and_holds_nobody_up() {
    let limit = descriptor_limit();
    let crowd = Crowd::within(limit);
    println!("{limit} descriptors allow {crowd:?}");
    let gate = Gate::new();
    let backend = backend(&gate);
    let workers = WORKERS.to_string();
    let flags = ["--workers", &workers, "--access-log", "text", "--head-timeout", "1h", &backend.url()];
    let program = Program::start(flags);
    get(&mut Client::connect(program.address()));
    let threads = program.status("Threads").unwrap();
    let descriptors = program.descriptors().unwrap();
    let memory = program.status("VmRSS").unwrap();
    assert!(threads <= WORKERS + OTHER_THREADS, "{threads} threads");

    let connect = || Client::connect(program.address());
    let mut idle: Vec<Client> = (0..crowd.idle).map(|_| connect()).collect();
    idle.iter_mut().for_each(get);
    let mut half_heads: Vec<Client> = (0..crowd.half_heads).map(|_| connect()).collect();
    half_heads.iter_mut().for_each(|client| client.send(b"GET / HTTP/1.1\r\nHo"));
    let mut waiting: Vec<Client> = (0..crowd.waiting).map(|_| connect()).collect();
    waiting.iter_mut().for_each(|client| ask(client, "/held"));
    let mut tunnels: Vec<Client> = (0..crowd.tunnels).map(|_| connect()).collect();
    for client in &mut tunnels {
        client.send(b"GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
        assert!(client.read_head("GET").start.starts_with("HTTP/1.1 101"));
    }
    let mut slow_readers: Vec<TcpStream> = (0..crowd.slow_readers).map(|_| slow_reader(program.address())).collect();
    for reader in &mut slow_readers {
        reader.read_exact(&mut [0; 256]).unwrap();
    }
    let held = crowd.waiting;
    backend.wait_until("all that wait, wait at the backend", |record| {
        record.requests.iter().filter(|request| request.target == "/held").count() == held
    });

    assert_eq!(program.status("Threads").unwrap(), threads, "a crowd that waits takes no thread");
    // The slow readers' buffers fill up first; then nothing happens any more.
    let rests = || program.processor_time_of_a_second().unwrap() < Duration::from_millis(100);
    eventually(rests, "the program rests, with nothing to do but to wait");
    let with_crowd = program.status("VmRSS").unwrap();
    println!("memory: {memory} KiB alone, {with_crowd} KiB with the crowd");

    let begun = Instant::now();
    let mut kept = connect();
    for _ in 0..50 {
        get(&mut kept);
        get(&mut connect());
    }
    let taken = begun.elapsed();
    assert!(taken < PATIENCE / 2, "{taken:?} for a hundred ordinary requests");

    // Everybody has been waited for, and nobody forgotten.
    for tunnel in &mut tunnels {
        tunnel.send(b"!");
        assert_eq!(tunnel.read_raw(1), b"!");
    }
    for reader in &mut slow_readers {
        reader.read_exact(&mut [0; 1]).unwrap();
    }
    for client in &mut half_heads {
        client.send(b"st: a\r\n\r\n");
    }
    for client in &mut half_heads {
        assert_eq!(client.read_response("GET").text(), "ok");
    }
    gate.open();
    for client in &mut waiting {
        assert_eq!(client.read_response("GET").text(), "ok");
    }
    idle.iter_mut().for_each(get);
    assert_eq!(program.status("Threads").unwrap(), threads, "nor does one that wakes up");

    drop((idle, half_heads, waiting, tunnels, slow_readers, kept));
    // A few kept connections to the backend may rest on.
    eventually(|| program.descriptors().unwrap() <= descriptors + 8, "the descriptors are free again");
    eventually(|| program.status("VmRSS").unwrap() < memory + 8 * 1024, "the memory is free again");
}

/// Bytes that tell where they come from: one that is lost, doubled or out of its place is noticed.
struct Pattern(Vec<u8>);

impl Pattern {
    const PERIOD: usize = 251;
    const PIECE: usize = 64 * 1024;

    fn new() -> Pattern {
        let bytes = (0..Self::PIECE + Self::PERIOD).map(|n| u8::try_from(n % Self::PERIOD).unwrap());
        Pattern(bytes.collect())
    }

    /// The bytes from this position on.
    fn at(&self, position: usize, length: usize) -> &[u8] {
        &self.0[position % Self::PERIOD..][..length]
    }

    fn write(&self, length: usize, mut to: impl Write) {
        let mut position = 0;
        while position < length {
            let piece = self.at(position, Self::PIECE.min(length - position));
            to.write_all(piece).unwrap();
            position += piece.len();
        }
    }

    fn read(&self, length: usize, mut from: impl Read) {
        let mut buffer = vec![0; Self::PIECE];
        let mut position = 0;
        while position < length {
            let most = buffer.len().min(length - position);
            let n = from.read(&mut buffer[..most]).unwrap();
            assert!(n > 0, "an end after {position} of {length} bytes");
            assert!(buffer[..n] == *self.at(position, n), "wrong bytes from {position} on");
            position += n;
        }
    }
}

fn read_head(mut from: &TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        from.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn a_large_echo_takes_hardly_any_memory() {
    const SMALL: usize = 1024 * 1024;
    const LARGE: usize = 100 * 1024 * 1024;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let program = Program::start([format!("http://{}", listener.local_addr().unwrap())]);
    let pattern = Pattern::new();
    let echo = |length: usize| {
        let client = patient(TcpStream::connect(program.address()).unwrap());
        thread::scope(|scope| {
            // The backend answers while it reads, and keeps nothing.
            scope.spawn(|| {
                let connection = patient(listener.accept().unwrap().0);
                read_head(&connection);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
                (&connection).write_all(head.as_bytes()).unwrap();
                let mut buffer = vec![0; 64 * 1024];
                let mut left = length;
                while left > 0 {
                    let n = (&connection).read(&mut buffer).unwrap();
                    assert!(n > 0, "an end, {left} bytes before the end");
                    (&connection).write_all(&buffer[..n]).unwrap();
                    left -= n;
                }
            });
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            (&client).write_all(head.as_bytes()).unwrap();
            scope.spawn(|| pattern.write(length, &client));
            assert!(read_head(&client).starts_with("HTTP/1.1 200 "));
            pattern.read(length, &client);
        });
    };
    echo(SMALL); // every path has been walked once, and its code is in memory
    let before = program.status("VmHWM").unwrap();
    echo(LARGE);
    let after = program.status("VmHWM").unwrap();
    println!("the most memory: {before} KiB before, {after} KiB after {LARGE} bytes each way");
    assert!(after - before < 4 * 1024, "{before} KiB before, {after} KiB after");
}
