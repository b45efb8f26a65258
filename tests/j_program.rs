//! The program as its user meets it: flags, signals, exit codes, what it logs, and what it does when it runs short.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use program::{Program, command, command_after, run};
use rustix::process::{Signal, geteuid};
use support::{Backend, Client, End, Folder, Gate, PATIENCE, Response, each, eventually};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const GET_HELD: &[u8] = b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n";

/// Answers at once, except for `/held`, which waits until the gate is open.
fn holding(gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::start(move |connection| {
        while let Some(request) = connection.read_request() {
            if request.target == "/held" {
                gate.pass();
            }
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    })
}

fn get(client: &mut Client) -> Response {
    client.send(GET);
    client.read_response("GET")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

// Flags.

#[test]
fn the_version_is_told() {
    for flag in ["--version", "-V"] {
        let output = run(&[flag]);
        assert_eq!(text(&output.stdout), format!("threadbare {}\n", env!("CARGO_PKG_VERSION")));
        assert!(output.stderr.is_empty() && output.status.success(), "{output:?}");
    }
}

/// Each flag of the help text with what stands below it.
fn flags_in_help() -> BTreeMap<String, String> {
    let output = run(&["--help"]);
    assert!(output.stderr.is_empty() && output.status.success(), "{output:?}");
    let mut flags = BTreeMap::new();
    let mut last = None;
    for line in text(&output.stdout).lines() {
        let line = line.trim_start();
        let line_of_flag = line.strip_prefix("-h, ").or(line.strip_prefix("-V, ")).unwrap_or(line);
        if let Some(flag) = line_of_flag.split_whitespace().next().filter(|word| word.starts_with("--")) {
            last = Some(flag.to_owned());
        }
        if let Some(flag) = &last {
            let about: &mut String = flags.entry(flag.clone()).or_default();
            about.push_str(line);
            about.push(' ');
        }
    }
    flags
}

#[test]
fn the_help_names_every_flag_with_its_default() {
    let flags = flags_in_help();
    for (flag, about) in &flags {
        let default = about.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']')).map(|(value, _)| value);
        let is_said = default.is_some() || about.contains("if not given") || about.contains("more than once");
        assert!(is_said || ["--help", "--version"].contains(&flag.as_str()), "no word on the default of {about}");
        if flag.ends_with("-timeout") {
            let default = default.unwrap_or_else(|| panic!("no default: {about}"));
            assert!(humantime::parse_duration(default).is_ok_and(|time| !time.is_zero()), "without a unit: {about}");
        }
        if flag.ends_with("-bytes") {
            assert!(default.is_some_and(|size| size.ends_with("iB")), "without a unit: {about}");
        }
    }
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let flags = flags_in_help();
    each(
        [
            ("--access-log", "text"),
            ("--access-log-sample", "1"),
            ("--access-log-slower-than", "0s"),
            ("--wire-log", "off"),
            ("--log-level", "info"),
            ("--via", "on"),
            ("--half-close", "gone"),
            ("--first-byte-timeout", "10s"),
            ("--head-timeout", "10s"),
            ("--idle-timeout", "60s"),
            ("--request-body-timeout", "30s"),
            ("--connect-timeout", "3s"),
            ("--response-head-timeout", "60s"),
            ("--response-body-timeout", "60s"),
            ("--spare-timeout", "4s"),
            ("--tunnel-timeout", "1h"),
            ("--drain-timeout", "30s"),
            ("--head-bytes", "16KiB"),
            ("--target-bytes", "8KiB"),
            ("--head-fields", "100"),
            ("--response-head-bytes", "32KiB"),
            ("--policy", "round_robin"),
            ("--hash-key", "client"),
            ("--hash-load", "125"),
            ("--slow-start", "10s"),
            ("--resolve-interval", "10s"),
            ("--queue", "1000"),
            ("--passive-health", "on"),
            ("--failures", "3"),
            ("--shortest-ejection", "1s"),
            ("--longest-ejection", "30s"),
            ("--stall-in-flight", "8"),
            ("--stall", "500ms"),
            ("--health-interval", "2s"),
            ("--health-timeout", "1s"),
            ("--health-rise", "2"),
            ("--health-fall", "3"),
            ("--health-status", "200-399"),
            ("--retry-budget", "20"),
            ("--retry-budget-floor", "10"),
            ("--lowest-rate", "240"),
            ("--queue-timeout", "5s"),
            ("--drain-delay", "0s"),
            ("--drain-idle", "1s"),
        ],
        |(flag, default)| {
            let about = flags.get(flag).unwrap_or_else(|| panic!("{flag} is not in the help"));
            assert!(about.contains(&format!("[default: {default}]")), "not {default}: {about}");
        },
    );
}

#[test]
fn a_wrong_flag_is_refused_with_what_would_be_right() {
    const A: &str = "127.0.0.1:9";
    // The flags; what is wrong, where, and what would be right.
    let rows: &[(&[&str], [&str; 3])] = &[
        (&[A, "--listen", "localhost:80"], ["localhost:80", "--listen", "127.0.0.1:8080"]),
        (&[A, "--listen", "127.0.0.1"], ["127.0.0.1", "--listen", "127.0.0.1:8080"]),
        (&[A, "--listen", "127.0.0.1:99999"], ["99999", "--listen", "IP:PORT"]),
        (&[A, "--listen", "127.0.0.1:9999", "--listen", "127.0.0.1:9999"], ["twice", "--listen", "127.0.0.1:9999"]),
        (&["--listen", "127.0.0.1:0"], ["no backend", "--backend", "http://host:port"]),
        (&["--backend", "https://127.0.0.1:9"], ["https", "--backend", "http://host:port"]),
        (&["--backend", "ftp://127.0.0.1"], ["ftp", "--backend", "http://host:port"]),
        (&["--backend", "http://"], ["http://", "--backend", "host:port"]),
        (&["--backend", "http://a b"], ["a b", "--backend", "host:port"]),
        (&["--backend", "::1:80"], ["::1:80", "--backend", "brackets"]),
        (&["--backend", "127.0.0.1:0"], ["127.0.0.1:0", "--backend", "1 - 65535"]),
        (&["--backend", "127.0.0.1:70000"], ["70000", "--backend", "1 - 65535"]),
        (&["--backend", "127.0.0.1:http"], ["127.0.0.1:http", "--backend", "host:port"]),
        (&["--backend", "http://a/?x"], ["query", "--backend", "host:port/prefix"]),
        (&["127.0.0.1:0"], ["127.0.0.1:0", "[URL]", "1 - 65535"]),
        (&[A, "--workers", "0"], ["0", "--workers", "1 to 1024"]),
        (&[A, "--workers", "many"], ["many", "--workers", "1 to 1024"]),
        (&[A, "--workers", "5000"], ["5000", "--workers", "1 to 1024"]),
        (&[A, "--max-connections", "0"], ["0", "--max-connections", "at least 1"]),
        (&[A, "--idle-timeout", "0s"], ["0s", "--idle-timeout", "1ms"]),
        (&[A, "--idle-timeout", "10"], ["10", "--idle-timeout", "10s"]),
        (&[A, "--idle-timeout", "10parsecs"], ["parsecs", "--idle-timeout", "10s"]),
        (&[A, "--idle-timeout", "soon"], ["soon", "--idle-timeout", "10s"]),
        (&[A, "--drain-timeout"], ["a value is required", "--drain-timeout", "<TIME>"]),
        (&[A, "--head-bytes", "1MiB"], ["1MiB", "--head-bytes", "64 KiB"]),
        (&[A, "--head-bytes", "1"], ["1", "--head-bytes", "64 B"]),
        (&[A, "--target-bytes", "10furlongs"], ["10furlongs", "--target-bytes", "KiB"]),
        (&[A, "--response-head-bytes", "99999999999999999999"], ["9999", "--response-head-bytes", "64 KiB"]),
        (&[A, "--head-fields", "0"], ["0", "--head-fields", "1 - 1000"]),
        (&[A, "--head-fields", "1001"], ["1001", "--head-fields", "1 - 1000"]),
        (&[A, "--access-log", "xml"], ["xml", "--access-log", "text"]),
        (&[A, "--access-log-file", ""], ["''", "--access-log-file", "file name"]),
        (&[A, "--wire-log", "maybe"], ["maybe", "--wire-log", "on, off"]),
        (&[A, "--wire-log-file", ""], ["''", "--wire-log-file", "file name"]),
        (&[A, "--access-log-sample", "0"], ["0", "--access-log-sample", "from 1"]),
        (&[A, "--access-log-slower-than", "1"], ["1", "--access-log-slower-than", "10s"]),
        (&[A, "--log-level", "loud"], ["loud", "--log-level", "debug"]),
        (&[A, "--via", "maybe"], ["maybe", "--via", "on, off"]),
        (&[A, "--half-close", "no"], ["no", "--half-close", "gone, answer"]),
        (&[A, "--trusted-proxy", "proxy"], ["proxy", "--trusted-proxy", "10.0.0.0/8"]),
        (&[A, "--trusted-proxy", "10.0.0.0/33"], ["10.0.0.0/33", "--trusted-proxy", "32 bits"]),
        (&[A, "--policy", "fair"], ["fair", "--policy", "least_in_flight"]),
        (&[A, "--hash-key", "user"], ["user", "--hash-key", "cookie:NAME"]),
        (&[A, "--hash-load", "100"], ["100", "--hash-load", "101 to 1000"]),
        (&[A, "--sticky-cookie", "a;b"], ["a;b", "--sticky-cookie", "letters"]),
        (&[A, "--resolve-interval", "0s"], ["0s", "--resolve-interval", "1ms"]),
        (&[A, "--passive-health", "maybe"], ["maybe", "--passive-health", "on, off"]),
        (&[A, "--failures", "0"], ["0", "--failures", "from 1"]),
        (&[A, "--shortest-ejection", "1h"], ["3600s", "--shortest-ejection", "--longest-ejection"]),
        (&[A, "--health-path", "up"], ["up", "--health-path", "/healthz"]),
        (&[A, "--health-rise", "0"], ["0", "--health-rise", "from 1"]),
        (&[A, "--health-status", "600"], ["600", "--health-status", "200-399"]),
        (&[A, "--health-tcp", "--health-path", "/"], ["cannot be used", "--health-tcp", "--health-path"]),
        (&[A, "--retry-budget", "101"], ["101", "--retry-budget", "0 to 100"]),
        (&[A, "--retry-status", "200"], ["200", "--retry-status", "400 to 599"]),
        (&[A, "--max-body", "much"], ["much", "--max-body", "GiB"]),
        (&[A, "--max-exchanges", "0"], ["0", "--max-exchanges", "at least 1"]),
        (&[A, "--handover", ""], ["''", "--handover", "file name"]),
        (&["--config", "/nowhere/at.toml"], ["can't read", "/nowhere/at.toml", "No such file"]),
        (&[A, A], ["twice", "--backend", A]),
        (&[A, "--idle-timout", "3s"], ["unexpected", "--idle-timout", "'--idle-timeout'"]),
        (&[A, "--workes=2"], ["unexpected", "--workes", "'--workers'"]),
        (&[A, "-x"], ["unexpected", "-x", "--help"]),
    ];
    each(rows, |(flags, wanted)| {
        let output = run(flags);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{flags:?} on standard output: {}", text(&output.stdout));
        for words in wanted {
            assert!(stderr.contains(words), "{flags:?}: no {words:?} in: {stderr}");
        }
    });
}

#[test]
fn a_backend_whose_name_has_no_address_is_named_and_stops_nothing() {
    let good = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    // `.invalid` has no addresses anywhere (RFC 6761), and without a network nothing has.
    let program = Program::start(["http://nowhere.invalid:81/x", &good.url()]);
    program.stderr.wait_for("nowhere.invalid:81");
    for _ in 0..6 {
        assert_eq!(get(&mut Client::connect(program.address())).status, 200);
    }
}

#[test]
fn a_port_in_use_is_named_and_nothing_claims_to_listen_before() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (port, address) = (address.port().to_string(), address.to_string());
    for listen in [&["--listen", &address][..], &["--listen", "127.0.0.1:0", "--listen", &address]] {
        let output = run(&[listen, &["127.0.0.1:9"]].concat());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(&port) && stderr.lines().count() == 1, "{stderr}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}

#[test]
fn it_listens_on_every_address_that_it_is_given() {
    let backend = Backend::echo();
    let flags = ["--listen", "127.0.0.1:0", "--access-log", "off", "--backend", &backend.url()];
    let program = Program::start(flags);
    let line = program.stderr.wait_for("listening on");
    let addresses: Vec<SocketAddr> = line
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("http://")?.trim_end_matches('/').parse().ok())
        .collect();
    assert_eq!(addresses.len(), 2, "{line}");
    for address in addresses {
        assert_eq!(get(&mut Client::connect(address)).status, 200);
    }
}

// Signals.

#[test]
fn a_signal_finishes_what_is_in_flight() {
    each([Signal::TERM, Signal::INT], |signal| {
        let gate = Gate::new();
        let backend = holding(&gate);
        let mut program = Program::start([backend.url()]);
        let mut idle = Client::connect(program.address());
        assert!(!get(&mut idle).closes());
        let mut in_flight = Client::connect(program.address());
        in_flight.send(GET_HELD);
        backend.wait_for_requests(2);

        program.signal(signal);
        idle.expect_closed();
        program.wait_until_refusing();
        assert!(!program.has_ended(), "a request is in flight");

        gate.open();
        let response = in_flight.read_response("GET");
        assert!(response.status == 200 && response.closes(), "{response:?}");
        in_flight.expect_closed();
        assert_eq!(program.exit_code(), 0);
        let lines = program.stdout.wait_for_lines(2);
        assert!(lines[1].contains("\"GET /held\" 200 2B"), "the last line is written before it ends: {lines:?}");
    });
}

#[test]
fn a_client_that_has_just_connected_is_still_answered_in_a_drain() {
    let gate = Gate::new();
    let backend = holding(&gate);
    let mut program = Program::start([backend.url()]);
    let mut in_flight = Client::connect(program.address());
    in_flight.send(GET_HELD);
    backend.wait_for_requests(1);
    let mut new = Client::connect(program.address()); // its request and the signal cross
    program.terminate();
    program.wait_until_refusing(); // so the drain has begun
    let response = get(&mut new);
    assert!(response.status == 200 && response.closes(), "{response:?}");
    gate.open();
    assert_eq!(in_flight.read_response("GET").status, 200);
    assert_eq!(program.exit_code(), 0);
}

#[test]
fn a_drain_without_clients_ends_at_once() {
    let mut program = Program::start(["--drain-timeout", "1h", "127.0.0.1:9"]);
    program.terminate();
    assert_eq!(program.exit_code(), 0);
}

/// Says this to whoever asks for `/half`, and nothing to others; and no more until the gate is open.
fn saying_half(half: &'static [u8], gate: &Gate) -> Backend {
    let gate = gate.clone();
    Backend::start(move |connection| {
        let Some(request) = connection.read_request() else { return };
        if request.target == "/half" {
            connection.send(half);
        }
        gate.pass();
    })
}

#[test]
fn what_a_drain_does_not_finish_in_time_is_cut() {
    let gate = Gate::new();
    let backend = saying_half(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf", &gate);
    let mut program = Program::start(["--drain-timeout", "200ms", &backend.url()]);
    let mut waiting = Client::connect(program.address());
    waiting.send(GET);
    let mut reading = Client::connect(program.address());
    reading.send(b"GET /half HTTP/1.1\r\nHost: a\r\n\r\n");
    reading.read_head("GET");
    assert_eq!(reading.read_body_bytes(4), b"half");
    backend.wait_for_requests(2);

    program.terminate();
    let answer = waiting.read_response("GET");
    assert!(answer.status == 503 && answer.closes() && answer.text().contains("shutdown"), "{answer:?}");
    let cut = reading.try_rest().expect_err("half a body is not a body");
    assert!(matches!(cut.end, End::Closed | End::Reset), "{cut:?}");
    assert_eq!(program.exit_code(), 3);
    gate.open();
    let log = program.stdout.all();
    assert_eq!(log.lines().filter(|line| line.ends_with(" shutdown")).count(), 2, "{log}");
    assert!(log.contains("\" 503 ") && log.contains("\"GET /half\" 200 4B"), "{log}");
}

#[test]
fn a_drain_answers_what_has_come_before_it_though_nobody_had_seen_it_yet() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut program = Program::start(["--workers", "1", "--drain-idle", "1ms", &backend.url()]);
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(program.address())).collect();
    clients.iter_mut().for_each(|client| assert_eq!(get(client).status, 200));
    // As if the machine had been too busy for us.
    program.signal(Signal::STOP);
    clients.iter_mut().for_each(|client| client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    program.terminate();
    program.signal(Signal::CONT);
    clients.iter_mut().for_each(|client| assert_eq!(client.read_response("GET").status, 200, "{}", client.story()));
    assert_eq!(program.exit_code(), 0);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    each([[Signal::TERM, Signal::TERM], [Signal::INT, Signal::INT], [Signal::TERM, Signal::INT]], |[first, second]| {
        let gate = Gate::new();
        let backend = holding(&gate);
        let mut program = Program::start(["--drain-timeout", "1h", &backend.url()]);
        let mut client = Client::connect(program.address());
        client.send(GET_HELD);
        backend.wait_for_requests(1);
        program.signal(first);
        program.stderr.wait_for("draining");
        thread::sleep(Duration::from_millis(250)); // closer together they would be one
        program.signal(second);
        assert_eq!(program.exit_code(), 3);
        gate.open();
    });
}

#[test]
fn what_a_second_signal_cuts_is_told_and_never_looks_whole() {
    let gate = Gate::new();
    let backend = saying_half(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", &gate);
    for (nth, delay) in ["0s", "1h"].into_iter().enumerate() {
        let flags = ["--drain-timeout", "1h", "--drain-delay", delay, &backend.url()];
        let mut program = Program::start(flags);
        let mut waiting = Client::connect(program.address());
        waiting.send(GET);
        let mut reading = Client::connect(program.address());
        reading.send(b"GET /half HTTP/1.0\r\nHost: a\r\n\r\n"); // its end is the connection's
        reading.read_head("GET");
        assert_eq!(reading.read_body_bytes(4), b"half");
        backend.wait_for_requests(2 * (nth + 1));
        program.terminate();
        program.stderr.wait_for("draining");
        thread::sleep(Duration::from_millis(250)); // closer together they would be one
        program.terminate();
        let answer = waiting.read_response("GET");
        assert!(answer.status == 503 && answer.closes() && answer.text().contains("shutdown"), "{answer:?}");
        let cut = reading.try_rest().expect_err("an end that looks whole");
        assert!(cut.end == End::Reset, "{cut:?}");
        assert_eq!(program.exit_code(), 3);
        let log = program.stdout.all();
        assert_eq!(log.lines().filter(|line| line.ends_with(" shutdown")).count(), 2, "{log}");
    }
    gate.open();
}

#[test]
fn a_drain_goes_on_where_no_thread_can_be_had() {
    let as_another = |mut command: Command| {
        if geteuid().is_root() {
            command.uid(47111); // no limit of threads holds for root
        }
        command
    };
    if let Err(error) = as_another(command()).arg("--version").stdout(Stdio::null()).status() {
        println!("skipped: another user can't run the program: {error}");
        return;
    }
    let gate = Gate::new();
    let backend = holding(&gate);
    let flags = ["--listen", "127.0.0.1:0", "--drain-delay", "2s", &backend.url()];
    let mut program = Program::listening(as_another(command()).args(flags));
    let mut client = Client::connect(program.address());
    client.send(GET_HELD);
    backend.wait_for_requests(1);
    let (id, limit) = (program.id().to_string(), Command::new("prlimit"));
    let limited = as_another(limit).args(["--nproc=1", "--pid", &id]).status();
    if !limited.is_ok_and(|status| status.success()) {
        println!("skipped: no limit of threads can be set");
        gate.open();
        return;
    }
    program.terminate();
    program.stderr.wait_for("accepting goes on");
    assert_eq!(get(&mut Client::connect(program.address())).status, 200, "the delay is not cut short");
    program.stderr.wait_for("what is in flight is finished");
    gate.open();
    assert_eq!(client.read_response("GET").status, 200);
    assert_eq!(program.exit_code(), 0);
}

#[test]
fn a_limit_of_file_sizes_stops_the_log_and_not_the_traffic() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let folder = Folder::new();
    let log = folder.path("access.log");
    let mut command = command_after("ulimit -f 1");
    command.args(["--listen", "127.0.0.1:0", "--access-log-file", &log, &backend.url()]);
    let mut program = Program::listening(&mut command);
    let mut client = Client::connect(program.address());
    let mut answered = 0;
    while !program.stderr.so_far().contains("access log") {
        assert_eq!(get(&mut client).status, 200);
        answered += 1;
        assert!(answered < 100_000, "no line is lost");
    }
    program.terminate();
    assert_eq!(program.exit_code(), 0);
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one() {
    let ends_with = || {
        let gate = Gate::new();
        let backend = holding(&gate);
        let mut program = Program::start([backend.url()]);
        let mut client = Client::connect(program.address());
        client.send(GET_HELD);
        backend.wait_for_requests(1);
        let began = Instant::now();
        program.signal(Signal::TERM);
        program.stderr.wait_for("draining");
        program.signal(Signal::TERM);
        program.wait_until_refusing();
        let were_close = began.elapsed() < Duration::from_millis(150);
        gate.open();
        let code = program.exit_code();
        were_close.then_some(code)
    };
    // On a machine that stands still in between, they are not close enough to be one.
    let code = (0..20).find_map(|_| ends_with());
    assert_eq!(code, Some(0));
}

// What it tells.

/// A line of the access log, taken apart.
#[derive(Debug)]
struct Line {
    client: SocketAddr,
    request: String,
    status: String,
    bytes: String,
    /// The backend and what follows it.
    rest: Vec<String>,
    parts: Vec<String>,
}

impl Line {
    /// `time client "request" status bytes total (part part) backend id=... reason`
    fn read(line: &str) -> Line {
        let fault = |what: &str| -> ! { panic!("{what}: {line}") };
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "not plain text: {line:?}");
        let (before, quoted) = line.split_once(" \"").unwrap_or_else(|| fault("no request"));
        let (request, behind) = quoted.rsplit_once("\" ").unwrap_or_else(|| fault("no end of the request"));
        let (time, client) = before.split_once(' ').unwrap_or_else(|| fault("no client"));
        let time = humantime::parse_rfc3339(time).unwrap_or_else(|_| fault("not a time"));
        let age = SystemTime::now().duration_since(time).unwrap_or_default();
        assert!(age < Duration::from_secs(60), "a time long ago: {line}");
        let (numbers, rest, parts) = match behind.split_once(" (") {
            None => (behind, "", ""),
            Some((numbers, rest)) => {
                let (parts, rest) = rest.split_once(") ").unwrap_or_else(|| fault("no end of the parts"));
                (numbers, rest, parts)
            }
        };
        let words = |text: &str| text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let mut numbers: Vec<String> = words(numbers);
        let mut rest: Vec<String> = words(rest);
        if rest.is_empty() {
            rest = numbers.split_off(3);
        }
        let [status, bytes, total] = &numbers[..] else { fault("not three numbers") };
        assert!(total.strip_suffix("ms").is_some_and(|number| number.parse::<f64>().is_ok()), "no duration: {line}");
        Line {
            client: client.parse().unwrap_or_else(|_| fault("not a client")),
            request: request.to_owned(),
            status: status.clone(),
            bytes: bytes.clone(),
            rest,
            parts: words(parts),
        }
    }
}

#[test]
fn each_exchange_is_a_line_in_the_access_log() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let program = Program::start([&format!("{}/app", backend.url())]);
    let mut client = Client::connect(program.address());
    client.send(b"GET /x?y=1 HTTP/1.1\r\nHost: a\r\nX-Request-Id: seven\r\n\r\n");
    client.read_response("GET");
    client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_response("HEAD");

    let lines: Vec<Line> = program.stdout.wait_for_lines(2).iter().map(|line| Line::read(line)).collect();
    let [first, second] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(first.client, client.local_address());
    assert_eq!((&*first.request, &*first.status, &*first.bytes), ("GET /x?y=1", "200", "5B"));
    assert_eq!(first.rest, [format!("{}/app", backend.address()), "id=seven".to_owned()]);
    assert!(first.parts.len() == 4 && first.parts[0] == "connect" && first.parts[2] == "wait", "{first:?}");

    assert_eq!((&*second.request, &*second.status, &*second.bytes), ("HEAD /", "200", "0B"));
    assert!(second.rest.len() == 2 && second.rest[1].starts_with("id="), "{second:?}");
    assert!(second.parts.len() == 2 && second.parts[0] == "wait", "a spare needs no connect: {second:?}");
}

#[test]
fn a_failure_is_logged_with_its_reason() {
    let refusing = Backend::refusing();
    let echo = Backend::echo();
    let gate = Gate::new();
    let silent = holding(&gate);

    let program = Program::start([refusing.url()]);
    assert_eq!(get(&mut Client::connect(program.address())).status, 502);
    let line = Line::read(&program.stdout.wait_for_lines(1)[0]);
    assert_eq!((&*line.status, line.rest[0].clone()), ("502", refusing.address().to_string()));
    assert_eq!(line.rest.last().unwrap(), "backend-refused", "{line:?}");

    let program = Program::start([refusing.url(), echo.url()]);
    assert_eq!(get(&mut Client::connect(program.address())).status, 200);
    let line = Line::read(&program.stdout.wait_for_lines(1)[0]);
    assert_eq!(line.rest[..2], [echo.address().to_string(), "tries=2".to_owned()], "who answered: {line:?}");

    let program = Program::start([silent.url()]);
    let mut client = Client::connect(program.address());
    client.send(GET_HELD);
    silent.wait_for_requests(1);
    drop(client);
    let line = Line::read(&program.stdout.wait_for_lines(1)[0]);
    assert_eq!((&*line.request, &*line.status), ("GET /held", "499"), "{line:?}");
    assert_eq!(line.rest.last().unwrap(), "client-gone", "{line:?}");
    gate.open();
}

#[test]
fn what_a_stranger_writes_does_not_steer_the_access_log() {
    let backend = Backend::echo();
    let program = Program::start([backend.url()]);
    let rows: [(&[u8], &str, &str); 5] = [
        // The request line; the request in the log, and the status.
        (b"GET /a\"b\\c HTTP/1.1", r#"GET /a\"b\\c"#, "200"),
        (b"GET /\"%0a%1b[2J HTTP/1.1", r#"GET /\"%0a%1b[2J"#, "200"),
        // Never understood, so never repeated.
        (b"GET /\x1b[2J HTTP/1.1", "-", "400"),
        (b"GET /\xc3\xa9 HTTP/1.1", "-", "400"),
        (b"GET /\x00 HTTP/1.1", "-", "400"),
    ];
    for (nth, (line, request, status)) in rows.iter().enumerate() {
        let mut client = Client::connect(program.address());
        client.send(&[line, &b"\r\nHost: a\r\n\r\n"[..]].concat());
        let answer = client.read_response("GET");
        let lines = program.stdout.wait_for_lines(nth + 1);
        assert_eq!(lines.len(), nth + 1, "{lines:?}");
        let line = Line::read(&lines[nth]);
        assert_eq!((&*line.request, &*line.status), (*request, *status), "{line:?}");
        if line.request == "-" {
            let [backend, id, reason] = line.rest.as_slice() else { panic!("{line:?}") };
            assert_eq!((&**backend, &**reason), ("-", "bad-request"), "no backend was asked: {line:?}");
            let told = answer.text();
            assert!(
                told.contains(id.strip_prefix("id=").unwrap()),
                "the log's id is not the answer's: {line:?} {told}"
            );
        }
    }
}

#[test]
fn an_access_log_that_is_off_says_nothing() {
    let backend = Backend::echo();
    let mut program = Program::start(["--access-log", "off", &backend.url()]);
    let mut client = Client::connect(program.address());
    assert_eq!(get(&mut client).status, 200);
    program.terminate();
    assert_eq!(program.exit_code(), 0);
    assert_eq!(program.stdout.all(), "");
}

#[test]
fn an_access_log_that_nobody_can_read_stops_no_traffic() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (closed, to_closed) = std::io::pipe().unwrap();
    drop(closed);
    let (mut unread, to_unread) = std::io::pipe().unwrap();
    for (pipe, is_closed) in [(to_closed, true), (to_unread, false)] {
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0", &backend.url()]);
        command.stdin(Stdio::null()).stdout(pipe).stderr(Stdio::piped());
        let mut program = Program::spawn_and_listen(&mut command);
        drop(command); // and with it our copy of the pipe
        let mut client = Client::connect(program.address());
        // Each line has more than 100 bytes, and a pipe holds 64 KiB: it is full long before the end.
        for _ in 0..2000 {
            assert_eq!(get(&mut client).status, 200);
        }
        if is_closed {
            program.stderr.wait_for("the access log");
        }
        assert_is_at_rest(&program);
        program.terminate();
        assert_eq!(program.exit_code(), 0);
    }
    let mut log = String::new();
    unread.read_to_string(&mut log).unwrap();
    assert!(log.lines().take(100).all(|line| line.contains("\"GET /\" 200 2B")), "{log}");
}

/// Nothing is asked of it, so it does nothing: a second of a busy loop is a second of processor time.
fn assert_is_at_rest(program: &Program) {
    if let Some(used) = program.processor_time_of_a_second() {
        assert!(used < Duration::from_millis(300), "{used:?} of a second, for nothing");
    }
}

#[test]
fn a_standard_error_that_is_gone_stops_no_traffic() {
    let backend = Backend::echo();
    // Everything that can be said is said, and nothing of it can be written.
    let flags = ["--log-level", "trace", "--access-log", "off"];
    let was_closed = |address: &str| {
        let mut command = command_after("exec 2>&-");
        command.args(["--listen", address]).args(flags).arg(backend.url());
        command
    };
    let broken = |address: &str| {
        let (nobody, pipe) = std::io::pipe().unwrap();
        drop(nobody);
        let mut command = command();
        command.args(["--listen", address]).args(flags).arg(backend.url());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(pipe);
        command
    };
    for mut program in [Program::listening_silently(was_closed), Program::listening_silently_as_is(broken)] {
        let mut client = Client::connect(program.address());
        for _ in 0..50 {
            assert_eq!(get(&mut client).status, 200);
        }
        assert_is_at_rest(&program);
        program.terminate();
        assert_eq!(program.exit_code(), 0);
    }
}

#[test]
fn the_log_level_is_what_the_flag_says_or_else_the_environment() {
    let says_details = |variable: Option<&str>, flags: &[&str]| {
        let mut command = command();
        command.args(["--listen", "127.0.0.1:0"]).args(flags).arg("127.0.0.1:9");
        if let Some(level) = variable {
            command.env("RUST_LOG", level);
        }
        let mut program = Program::listening(&mut command);
        program.terminate();
        assert_eq!(program.exit_code(), 0);
        program.stderr.all().contains("DEBUG")
    };
    each(
        [
            (None, &[][..], false),
            (None, &["--log-level", "debug"], true),
            (Some("debug"), &[], true),
            (Some("DEBUG"), &[], true),
            (Some("debug"), &["--log-level", "info"], false),
            (Some("info"), &["--log-level", "debug"], true),
        ],
        |(variable, flags, expected)| assert_eq!(says_details(variable, flags), expected, "{variable:?} {flags:?}"),
    );
}

#[test]
fn a_log_that_is_off_says_nothing() {
    let backend = Backend::echo();
    let mut program = Program::listening_silently(|address| {
        let mut command = command();
        command.args(["--listen", address, "--log-level", "off", "--access-log", "off", &backend.url()]);
        command
    });
    assert_eq!(get(&mut Client::connect(program.address())).status, 200);
    program.terminate();
    assert_eq!(program.exit_code(), 0);
    assert_eq!(program.stderr.all() + &program.stdout.all(), "");
}

#[test]
fn a_log_level_in_the_environment_that_is_none_is_refused() {
    let output = program::output(command().env("RUST_LOG", "loud").arg("127.0.0.1:9"));
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    for words in ["loud", "RUST_LOG", "debug"] {
        assert!(stderr.contains(words), "no {words:?} in: {stderr}");
    }
    let output = program::output(command().env("RUST_LOG", "").args(["--check", "127.0.0.1:9"]));
    assert!(output.status.success(), "one that is empty is none: {}", text(&output.stderr));
}

// The demonstration.

/// Its ports are fixed, so they are also the lock: whoever has them all runs it. None if others have them all the time.
fn demonstration() -> Option<Program> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut program = Program::spawn(&mut command());
        if program.listens_or_ends("127.0.0.1:8080") {
            return Some(program);
        }
        let said = program.stderr.all();
        assert!(
            said.contains("can't listen on 127.0.0.1:808") && program.exit_code() == 1,
            "a busy port is named: {said}"
        );
        if Instant::now() > deadline {
            println!("skipped: {said}");
            return None;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_demonstration_shows_its_page_elsewhere_if_its_port_is_taken() {
    // If this fails, somebody else has it, which is as good.
    let _taken = TcpListener::bind("127.0.0.1:9900");
    let Some(mut program) = demonstration() else { return };
    let line = program.stderr.wait_for("the page is not on its usual port");
    assert!(line.contains("127.0.0.1:9900"), "{line}");
    let line = program.stderr.wait_for("the admin listener is at http://127.0.0.1:");
    assert!(!line.contains(":9900/"), "{line}");
    let address = line.split_once("http://").unwrap().1.trim_end_matches('/').parse().unwrap();
    let mut client = Client::connect(address);
    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(client.read_response("GET").text().contains("the glass box"));
    program.terminate();
    assert_eq!(program.exit_code(), 0);
}

#[test]
fn the_demonstration_shows_two_backends_in_turn() {
    let Some(mut program) = demonstration() else { return };
    let mut client = Client::connect(([127, 0, 0, 1], 8080).into());
    let mut ask = |target: &str| {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        client.read_response("GET")
    };
    for target in ["/", "/anything", "/any/thing?at=all"] {
        for port in [8081, 8082] {
            let response = ask(target);
            assert_eq!((response.status, response.text()), (200, format!("Hello from backend server on :{port}\n")));
        }
    }
    for port in [8081, 8082] {
        let mut client = Client::connect(([127, 0, 0, 1], port).into());
        client.send(b"GET /elsewhere HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response("GET").status, 404, "only what is below its own path is found");
        client.send(format!("GET /b{port}/below HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(client.read_response("GET").status, 200);
    }
    let lines = program.stdout.wait_for_lines(6);
    assert!(lines[2].contains("\"GET /anything\" 200") && lines[2].contains(" 127.0.0.1:8081/b8081 "), "{lines:?}");
    program.terminate();
    assert_eq!(program.exit_code(), 0);
}

// Shortage.

/// Few enough to be used up by a test.
const FEW: &str = "ulimit -n 96";

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "descriptors are counted in /proc")]
fn more_clients_than_fit_wait_without_a_busy_loop() {
    let backend = Backend::echo();
    let mut short = command_after(FEW);
    let program = Program::listening(short.args(["--listen", "127.0.0.1:0", &backend.url()]));
    // 96 less the reserve of 64.
    let mut inside: Vec<Client> = (0..32).map(|_| Client::connect(program.address())).collect();
    for client in &mut inside {
        assert_eq!(get(client).status, 200);
    }
    let mut outside: Vec<Client> = (0..32).map(|_| Client::connect(program.address())).collect();
    for client in &mut outside {
        client.send(GET);
    }
    assert_is_at_rest(&program);
    assert_eq!(backend.requests().len(), 32, "nobody is let in beyond the limit");
    for client in &mut inside {
        assert_eq!(get(client).status, 200);
    }
    drop(inside);
    for client in &mut outside {
        assert_eq!(client.read_response("GET").status, 200);
    }
    drop(outside);
    assert_eq!(get(&mut Client::connect(program.address())).status, 200);
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "descriptors are counted in /proc")]
fn a_shortage_of_descriptors_is_no_busy_loop_and_passes() {
    let gate = Gate::new();
    let backend = holding(&gate);
    let mut short = command_after(FEW);
    let flags = ["--listen", "127.0.0.1:0", "--max-connections", "1000", &backend.url()];
    let program = Program::listening(short.args(flags));
    let mut in_flight = Vec::new();
    // Each takes two descriptors, and none of them is at rest: no room can be made.
    while program.descriptors().unwrap() < 95 {
        let mut client = Client::connect(program.address());
        client.send(GET_HELD);
        in_flight.push(client);
        let count = in_flight.len();
        eventually(
            || backend.requests().len() == count || program.descriptors().unwrap() >= 95,
            "the request is with its backend, or there is no descriptor left",
        );
    }
    let mut late: Vec<Client> = (0..8).map(|_| Client::connect(program.address())).collect();
    for client in &mut late {
        client.send(GET_HELD);
    }
    assert_is_at_rest(&program);
    gate.open();
    let count = in_flight.len();
    let answered = in_flight.iter_mut().map(client_is_served).filter(|&served| served).count();
    assert!(answered + 1 >= count, "{answered} of {count}: all but perhaps the one that took the last descriptor");
    for client in &mut late {
        client_is_served(client);
    }
    drop(in_flight);
    drop(late);
    assert_eq!(get(&mut Client::connect(program.address())).status, 200);
    eventually(|| program.descriptors().unwrap() < 48, "the descriptors are free again");
}

/// True for 200, false for the one other answer that is allowed.
fn client_is_served(client: &mut Client) -> bool {
    let response = client.read_response("GET");
    assert!(response.status == 200 || response.text().contains("out-of-descriptors"), "{response:?}");
    response.status == 200
}

#[test]
#[cfg_attr(
    not(target_os = "linux"),
    ignore = "the shell's limit is about descriptors everywhere, but numbered for Linux"
)]
fn a_descriptor_that_is_needed_is_taken_from_whoever_has_rested_longest() {
    let backend = Backend::echo();
    let mut short = command_after(FEW);
    let flags = ["--listen", "127.0.0.1:0", "--max-connections", "1000", &backend.url()];
    let program = Program::listening(short.args(flags));
    let mut clients = Vec::new();
    for nth in 0..150 {
        let mut client = Client::connect(program.address());
        let response = get(&mut client);
        assert_eq!(response.status, 200, "client {nth}: {response:?}");
        clients.push(client);
    }
    assert_eq!(get(clients.last_mut().unwrap()).status, 200, "the newest may stay");
    clients[0].expect_closed();
}
