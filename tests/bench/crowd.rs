//! Waiting costs no thread: `cargo bench --bench crowd`.
//!
//! A normal client's requests are timed without and with a crowd around it: idle clients, requests that wait for a slow
//! backend, half-sent heads, idle tunnels and slow readers, all at once. The balancer, the backend and the crowd are
//! processes of their own; this one is the normal client. Sized to the descriptors at hand; takes half a minute.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a bench prints, and fails by panicking")]

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// More than the buffers between here and a slow reader hold.
const LARGE: usize = 16 * 1024 * 1024;

/// Requests that are timed in each round.
const REQUESTS: usize = 3000;

#[derive(Clone, Copy)]
struct Crowd {
    idle: usize,
    waiting: usize,
    half_heads: usize,
    tunnels: usize,
    slow: usize,
}

impl Crowd {
    const WHOLE: Crowd = Crowd { idle: 10_000, waiting: 2000, half_heads: 1000, tunnels: 500, slow: 200 };

    /// As much of it as this many descriptors of the balancer's allow.
    fn within(descriptors: usize) -> Crowd {
        let Crowd { idle, waiting, half_heads, tunnels, slow } = Crowd::WHOLE;
        let needed = idle + half_heads + 2 * (waiting + tunnels + slow) + 300;
        let share = |count: usize| if descriptors >= needed { count } else { count * descriptors / needed };
        Crowd {
            idle: share(idle),
            waiting: share(waiting),
            half_heads: share(half_heads),
            tunnels: share(tunnels),
            slow: share(slow),
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["backend"] => backend(),
        ["crowd", address, descriptors] => crowd(address.parse().unwrap(), descriptors.parse().unwrap()),
        _ => normal_client(),
    }
}

/// A process that ends with this one.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Process {
    /// Starts this program again in another role, and returns the first line that it prints.
    fn in_role(args: &[&str]) -> (Process, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (Process(child), line.trim().to_owned())
    }

    fn status(&self, key: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or(": unknown");
        line.trim_start_matches(':').trim().to_owned()
    }

    /// Clock ticks of processor time so far, a hundred to the second.
    fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
    }
}

fn normal_client() {
    let descriptors = threadbare::net::raise_limit();
    let crowd = Crowd::within(descriptors);
    let (_backend, backend) = Process::in_role(&["backend"]);
    let flags = ["--listen", "127.0.0.1:0", "--workers", "2", "--access-log", "off", "--head-timeout", "10m", &backend];
    let mut balancer = Command::new(env!("CARGO_BIN_EXE_threadbare"));
    let mut balancer = balancer.args(flags).stderr(Stdio::piped()).spawn().unwrap();
    let mut greeting = String::new();
    BufReader::new(balancer.stderr.take().unwrap()).read_line(&mut greeting).unwrap();
    let balancer = Process(balancer);
    let address = greeting.split("http://").nth(1).and_then(|rest| rest.trim_end().strip_suffix('/')).unwrap();
    let address: SocketAddr = address.parse().unwrap();

    println!("| | p50 us | p99 us | threads | resident | processor |");
    println!("|---|---|---|---|---|---|");
    measure("alone", address, &balancer);
    let (_crowd, _ready) = Process::in_role(&["crowd", &address.to_string(), &descriptors.to_string()]);
    measure("in the crowd", address, &balancer);
    println!(
        "\n{descriptors} descriptors allow {} idle clients, {} requests at a backend that takes a second, {} half-sent \
         heads, {} idle tunnels, {} readers of a byte a second",
        crowd.idle, crowd.waiting, crowd.half_heads, crowd.tunnels, crowd.slow
    );
}

fn measure(name: &str, address: SocketAddr, balancer: &Process) {
    let mut client = connect(address);
    let mut taken: Vec<Duration> = Vec::new();
    let (began, ticks) = (Instant::now(), balancer.ticks());
    for _ in 0..REQUESTS {
        let asked = Instant::now();
        ask(&mut client, "/");
        read_answer(&mut client);
        taken.push(asked.elapsed());
        thread::sleep(Duration::from_millis(2));
    }
    let share = 1000.0 * (balancer.ticks() - ticks) as f64 / 100.0 / began.elapsed().as_millis() as f64;
    taken.sort();
    println!(
        "| {name} | {} | {} | {} | {} | {:.1} % |",
        taken[REQUESTS / 2].as_micros(),
        taken[REQUESTS * 99 / 100].as_micros(),
        balancer.status("Threads"),
        balancer.status("VmRSS"),
        100.0 * share
    );
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_nodelay(true).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    client
}

fn ask(client: &mut TcpStream, target: &str) {
    write!(client, "GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
}

/// Reads an answer whose body is `ok`.
fn read_answer(client: &mut TcpStream) {
    let mut heard = Vec::new();
    let mut buffer = [0; 1024];
    while !heard.ends_with(b"\r\n\r\nok") {
        let n = client.read(&mut buffer).unwrap();
        assert_ne!(n, 0, "closed after {:?}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&buffer[..n]);
    }
}

/// Builds the crowd, says so, and keeps it up until its standard input ends.
fn crowd(address: SocketAddr, descriptors: usize) {
    threadbare::net::raise_limit();
    let crowd = Crowd::within(descriptors);
    let mut idle: Vec<TcpStream> = (0..crowd.idle).map(|_| connect(address)).collect();
    for client in &mut idle {
        ask(client, "/");
        read_answer(client);
    }
    let mut half_heads: Vec<TcpStream> = (0..crowd.half_heads).map(|_| connect(address)).collect();
    for client in &mut half_heads {
        client.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
    }
    let mut tunnels: Vec<TcpStream> = (0..crowd.tunnels).map(|_| connect(address)).collect();
    for client in &mut tunnels {
        client.write_all(b"GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 101");
    }
    let mut slow: Vec<TcpStream> = (0..crowd.slow).map(|_| slow_reader(address)).collect();
    let mut waiting: Vec<TcpStream> = (0..crowd.waiting).map(|_| connect(address)).collect();
    waiting.iter_mut().for_each(|client| ask(client, "/slow"));
    thread::spawn(move || {
        loop {
            for client in &mut waiting {
                read_answer(client);
                ask(client, "/slow");
            }
        }
    });
    thread::spawn(move || {
        loop {
            for reader in &mut slow {
                reader.read_exact(&mut [0]).unwrap();
            }
            thread::sleep(Duration::from_secs(1));
        }
    });
    // The slow readers' buffers fill up first.
    thread::sleep(Duration::from_secs(3));
    println!("ready");
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
}

/// A client with the smallest receive buffer that there is, so that the kernel does not do its waiting.
fn slow_reader(address: SocketAddr) -> TcpStream {
    let family = rustix::net::AddressFamily::INET;
    let socket = rustix::net::socket(family, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1024).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let mut client = TcpStream::from(socket);
    ask(&mut client, "/large");
    client
}

/// Answers `/` at once, `/slow` after a second, `/large` at length, and `/tunnel` with a 101.
fn backend() {
    threadbare::net::raise_limit();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 4096).unwrap();
    println!("{}", listener.local_addr().unwrap());
    for connection in listener.incoming() {
        let connection = connection.unwrap();
        thread::Builder::new().stack_size(128 * 1024).spawn(move || serve(connection)).unwrap();
    }
}

fn serve(mut connection: TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut request = [0; 2048];
    loop {
        // A head comes in one piece here: the balancer writes it so.
        let n = connection.read(&mut request)?;
        let asked = String::from_utf8_lossy(&request[..n]).into_owned();
        match asked.split(' ').nth(1) {
            None => return Ok(()),
            Some("/tunnel") => {
                connection.write_all(b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")?;
                io::copy(&mut connection, &mut io::sink())?;
            }
            Some("/large") => {
                write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")?;
                for _ in 0..LARGE / 65536 {
                    connection.write_all(&[b'x'; 65536])?;
                }
            }
            Some(target) => {
                if target == "/slow" {
                    thread::sleep(Duration::from_secs(1));
                }
                connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            }
        }
    }
}
