//! More requests than the backends can serve: those that are served are served as before, and the rest is told at once.
//!
//! What can be counted is counted in every run. How much is served a second, and how fast the rest is told, takes seconds
//! and a machine that is not busy otherwise:
//!
//!     cargo test --test w_overload -- --ignored --nocapture
//!
//! `TORTURE_GOALS=assert` makes a missed goal a failure.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use program::Program;
use support::{Backend, Client, Gate, balancer, eventually};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn whoever_finds_no_room_is_told_while_the_others_wait_and_nobody_who_waits_is_lost() {
    let gate = Gate::new();
    let gated = || {
        let gate = gate.clone();
        Backend::start(move |connection| {
            while connection.read_request().is_some() {
                gate.pass();
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        })
    };
    let backends = [gated(), gated()];
    let urls = backends.each_ref().map(Backend::url);
    let balancer = balancer(&[&urls[0], &urls[1]], &["--max-in-flight", "4", "--queue", "32"]);
    // Four times what there is room for, all at once.
    let mut clients: Vec<Client> = (0..4 * (4 + 4 + 32)).map(|_| Client::connect(balancer.address())).collect();
    clients.iter_mut().for_each(|client| client.send(GET));
    // The backends stand still: whoever is answered now was not kept waiting for them.
    let refused = clients.len() - 40;
    eventually(|| balancer.counters().exchanges == refused, "all but forty have been told");
    assert_eq!(balancer.counters().in_flight, 40, "as many as there are places wait");
    eventually(|| backends.iter().all(|backend| backend.requests().len() == 4), "each backend has what it may have");
    gate.open();
    let mut statuses: Vec<u16> = clients
        .iter_mut()
        .map(|client| {
            let answer = client.read_response("GET");
            assert!(answer.status == 200 || answer.head.get("Retry-After").is_some(), "{answer:?}");
            answer.status
        })
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![200; 40], vec![503; refused]].concat());
    assert!(backends.iter().all(|backend| backend.accepted() <= 4), "no backend has had more than four at once");
}

/// Of each backend: how many at once, and how long each takes. Two of them serve 800 a second.
const PLACES: usize = 4;
const SERVICE: Duration = Duration::from_millis(10);
const CAPACITY: u32 = 800;

/// Which load, how many a second came through, and what it was like for the others.
struct Phase {
    load: f64,
    goodput: f64,
    served: Vec<Duration>,
    refused: Vec<Duration>,
}

impl Phase {
    fn account(&self) -> String {
        format!(
            "{:.1} times the capacity: {:.0} a second served, p50 {:.1?}; {} refused, p50 {:.1?}, p99 {:.1?}",
            self.load,
            self.goodput,
            rank(&self.served, 50),
            self.refused.len(),
            rank(&self.refused, 50),
            rank(&self.refused, 99),
        )
    }
}

#[test]
#[ignore = "takes ten seconds: measures"]
fn four_times_the_load_costs_no_goodput() {
    assert!(threadbare::net::raise_limit() >= 4096, "too few descriptors");
    let backends = [serve(), serve()];
    let flags = ["--max-in-flight", "4", "--queue", "50", "--access-log", "off"];
    let program = Program::start(flags.map(str::to_owned).into_iter().chain(backends.map(|at| at.to_string())));
    // As much as may be kept between requests is kept before it is measured.
    load(program.address(), 1.0, Duration::from_millis(500));
    let memory = program.status("VmRSS");
    // A machine that has something else to do can only make it look worse: the first good round of three counts.
    let mut rounds =
        (0..3).map(|_| [0.7, 1.0, 4.0].map(|times| load(program.address(), times, Duration::from_secs(3))));
    let [calm, flooded] = rounds
        .find_map(|[calm, full, flooded]| {
            println!("{}\n{}\n{}", calm.account(), full.account(), flooded.account());
            let peak = full.goodput.max(flooded.goodput);
            assert!(flooded.refused.len() > flooded.served.len(), "the load was not there");
            (flooded.goodput >= 0.9 * peak).then_some([calm, flooded])
        })
        .expect("a round in which the goodput is at least 90 % of its peak");
    let grown = program.status("VmRSS").zip(memory).map(|(after, before)| after.saturating_sub(before));
    println!("memory: {grown:?} KiB more");
    // Times are those of the clients too, so they are judged by orders of magnitude.
    assert!(rank(&flooded.served, 50) < Duration::from_millis(500), "who is served waits for a queue of fifty");
    assert!(rank(&flooded.refused, 50) < Duration::from_millis(50), "who is refused does not");
    assert!(grown.is_none_or(|kib| kib < 16 * 1024), "{grown:?} KiB");
    let goals = [
        (flooded.goodput >= 0.93 * f64::from(CAPACITY), "750 a second of 800"),
        (calm.refused.is_empty(), "nobody is refused at 70 % of the capacity"),
        (rank(&flooded.served, 50) <= Duration::from_millis(80), "served within 80 ms, at the median"),
        (rank(&flooded.refused, 99) <= Duration::from_millis(5), "refused within 5 ms, 99 of 100"),
        (grown.is_none_or(|kib| kib <= 4 * 1024), "4 MiB more"),
    ];
    for (is_met, goal) in goals {
        println!("{}: {goal}", if is_met { "as it should be" } else { "MISSED" });
        assert!(is_met || std::env::var("TORTURE_GOALS").is_err(), "missed: {goal}");
    }
}

/// A backend that takes its time for each request, however many there are: it is the balancer that counts them.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let busy = Arc::new(AtomicUsize::new(0));
    // It ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let busy = Arc::clone(&busy);
            thread::spawn(move || attend(stream.unwrap(), &busy));
        }
    });
    address
}

fn attend(stream: TcpStream, busy: &AtomicUsize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(&stream);
    while read_head(&mut reader)?.is_some() {
        let begun = Instant::now();
        assert!(busy.fetch_add(1, Ordering::SeqCst) < PLACES, "more at once than it may get");
        thread::sleep(SERVICE.saturating_sub(begun.elapsed()));
        busy.fetch_sub(1, Ordering::SeqCst);
        (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    }
    Ok(())
}

/// GETs in an open loop: due when they are due, whether or not those before have been answered.
fn load(address: SocketAddr, times: f64, time: Duration) -> Phase {
    let interval = Duration::from_secs_f64(1.0 / (f64::from(CAPACITY) * times));
    let (due, dues) = crossbeam_channel::unbounded::<Instant>();
    let (told, outcomes) = crossbeam_channel::unbounded();
    let idle = Arc::<AtomicUsize>::default();
    let began = Instant::now();
    let mut moment = began;
    while moment < began + time {
        thread::sleep(moment.saturating_duration_since(Instant::now()));
        // A client counts itself idle; whoever hands out a request counts it busy.
        if idle.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |idle| idle.checked_sub(1)).is_err() {
            let (dues, told, idle) = (dues.clone(), told.clone(), Arc::clone(&idle));
            let client = move || {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_nodelay(true).unwrap();
                let mut reader = BufReader::new(&stream);
                while let Ok(due) = dues.recv() {
                    (&stream).write_all(GET).unwrap();
                    let status = read_head(&mut reader).unwrap().expect("an answer");
                    told.send((status, due, Instant::now())).unwrap();
                    idle.fetch_add(1, Ordering::SeqCst);
                }
            };
            thread::Builder::new().stack_size(128 << 10).spawn(client).unwrap();
        }
        due.send(moment).unwrap();
        moment += interval;
    }
    drop((due, told));
    let outcomes: Vec<(u16, Instant, Instant)> = outcomes.iter().collect();
    let took = |wanted| {
        let times = outcomes.iter().filter(move |(status, ..)| *status == wanted);
        let mut times: Vec<Duration> = times.map(|(_, due, ended)| *ended - *due).collect();
        times.sort_unstable();
        times
    };
    let last = outcomes.iter().filter(|(status, ..)| *status == 200).map(|(.., ended)| *ended).max().unwrap();
    let (served, refused) = (took(200), took(503));
    assert_eq!(served.len() + refused.len(), outcomes.len(), "something else than 200 and 503");
    Phase { load: times, goodput: served.len() as f64 / (last - began).as_secs_f64(), served, refused }
}

/// Reads a head, and a body as long as it says. The number in its first line; `None` at the end of the connection.
fn read_head(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<u16>> {
    let (mut first, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        first.get_or_insert(line);
    }
    io::copy(&mut reader.take(length), &mut io::sink())?;
    Ok(first.map(|line| line.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or_default()))
}

/// What so many in a hundred took, or less.
fn rank(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default()
}
