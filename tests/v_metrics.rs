//! What is counted: that log, metrics, JSON and tables agree to the number, that the books balance at every moment, and that what
//! is written down about the numbers is true.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]
#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use program::{Program, command};
use rustix::process::Signal;
use serde_json::Value;
use support::{Backend, Client, Folder, Gate, TempFile, balancer, eventually};
use threadbare::counting::BOUNDS;
use threadbare::error::Reason;
use threadbare::metrics::METRICS;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn get(admin: SocketAddr, path: &str) -> String {
    let mut client = Client::connect(admin);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    let answer = client.read_response("GET");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text()
}

fn stats(admin: SocketAddr) -> Value {
    serde_json::from_str(&get(admin, "/stats.json")).unwrap()
}

fn admin_of(program: &Program) -> SocketAddr {
    let line = program.stderr.wait_for("the admin listener is at ");
    line.split("http://").nth(1).unwrap().trim_end_matches('/').parse().unwrap()
}

fn text(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// One number of Prometheus' format: its name, its labels, and what it is.
type Series = (String, BTreeMap<String, String>);

/// A reading of the format that lets nothing pass: every family has HELP and TYPE, once, before its numbers and with them in one
/// piece; labels are escaped; nothing stands there twice; counters end in `_total`; buckets only grow, to their count.
fn parse(text: &str) -> BTreeMap<Series, f64> {
    assert!(text.ends_with('\n') && !text.contains('\r'), "{text}");
    let mut numbers = BTreeMap::new();
    let mut families = BTreeSet::new();
    let (mut family, mut kind) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(help.ends_with('.') && families.insert(name.to_owned()), "{line}");
            (family, kind) = (name.to_owned(), String::new());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, is) = rest.split_once(' ').unwrap();
            assert!(name == family && kind.is_empty(), "{line}");
            assert_eq!(is == "counter", name.ends_with("_total"), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&is), "{line}");
            kind = is.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let value = value.parse::<f64>().unwrap_or_else(|error| panic!("{error}: {line}"));
            assert!(value >= 0.0 && value.is_finite(), "{line}");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let suffix = name.strip_prefix(&*family).unwrap_or_else(|| panic!("not of the family {family}: {line}"));
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
            let labels = parse_labels(labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}")));
            assert!(numbers.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
        }
    }
    for ((name, labels), value) in &numbers {
        let Some(family) = name.strip_suffix("_count") else { continue };
        let of = |le: &str| {
            let mut labels = labels.clone();
            labels.insert("le".to_owned(), le.to_owned());
            numbers.get(&(format!("{family}_bucket"), labels)).copied()
        };
        assert_eq!(of("+Inf"), Some(*value), "{name} {labels:?}");
        let counts: Vec<f64> =
            ["0.0001", "0.001", "0.01", "0.1", "1", "10", "60"].iter().map(|le| of(le).unwrap()).collect();
        assert!(counts.is_sorted() && counts.last() <= Some(value), "{name}: {counts:?}");
        assert!(numbers.contains_key(&(format!("{family}_sum"), labels.clone())));
    }
    numbers
}

fn parse_labels(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").unwrap_or_else(|| panic!("{text}"));
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next().unwrap_or_else(|| panic!("no end: {text}")) {
                (end, '"') => break end,
                (_, '\\') => value.push(match characters.next().unwrap().1 {
                    'n' => '\n',
                    c if c == '"' || c == '\\' => c,
                    other => panic!("\\{other} in {text}"),
                }),
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "twice: {text}");
        text = &rest[end + 1..];
        text = text.strip_prefix(',').unwrap_or(text);
    }
    labels
}

/// The sum of all series of this name whose labels have these values.
fn sum(numbers: &BTreeMap<Series, f64>, name: &str, labels: &[(&str, &str)]) -> u64 {
    let fits = |series: &Series| {
        series.0 == name && labels.iter().all(|(label, value)| series.1.get(*label).is_some_and(|is| is == value))
    };
    let whole = |value: &f64| value.to_string().parse::<u64>().unwrap_or_else(|_| panic!("{value} is not whole"));
    numbers.iter().filter(|(series, _)| fits(series)).map(|(_, value)| whole(value)).sum()
}

/// Talks to the balancer as well and as badly as clients do. Returns how many requests that was.
fn talk(address: SocketAddr) -> usize {
    let requests = [
        "GET /fine HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /missing HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /cut HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /nonsense HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /fine HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /fine HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /fine HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nhello a\r\n0\r\n\r\n",
        "POST /fine HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n",
        "GET /fine HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
        "nonsense\r\n\r\n",
    ];
    for _ in 0..5 {
        for request in requests {
            let mut client = Client::connect(address);
            client.send(request.as_bytes());
            drop(client.try_response(request.split(' ').next().unwrap()));
        }
    }
    5 * requests.len()
}

#[test]
fn log_metrics_json_and_tables_agree_to_the_number() {
    let backend = || {
        Backend::start(|connection| {
            while let Some(request) = connection.read_request() {
                connection.send(match &*request.target {
                    "/fine" if request.method == "HEAD" => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
                    "/fine" => OK.as_bytes(),
                    "/missing" => b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nnobody",
                    "/cut" => {
                        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this");
                        return;
                    }
                    _ => b"HTTP/1.1 2000 OK\r\n\r\n",
                });
            }
        })
    };
    let backends = [backend(), backend(), Backend::refusing()];
    let urls = backends.each_ref().map(Backend::url);
    let flags = [
        "--admin",
        "127.0.0.1:0",
        "--access-log",
        "json",
        "--workers",
        "2",
        "--max-body",
        "1MiB",
        "--failures",
        "1000000",
    ];
    let flags: Vec<&str> = flags.into_iter().chain(urls.iter().map(String::as_str)).collect();
    let program = Program::listening(command().args(["--listen", "127.0.0.1:0"]).args(flags));
    let admin = admin_of(&program);

    let requests = talk(program.address());
    let lines = program.stdout.wait_for_lines(requests);
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), requests);
    let is_over = |json: &Value| json["books"]["requests"] == requests && json["clients"]["connections"] == 0;
    eventually(|| is_over(&stats(admin)), "all are over, and every client has left");
    let json = stats(admin);
    let numbers = parse(&get(admin, "/metrics"));

    let count = |fits: &dyn Fn(&Value) -> bool| lines.iter().filter(|line| fits(line)).count() as u64;
    let of_class = |line: &Value, class: u64| line["status"].as_u64().unwrap() / 100 == class;
    let all = count(&|_| true);
    assert_eq!(sum(&numbers, "threadbare_requests_begun_total", &[]), all);
    assert_eq!(sum(&numbers, "threadbare_requests_total", &[]), all);
    assert_eq!(json["latency"]["total"]["count"], all);
    assert_eq!(sum(&numbers, "threadbare_request_seconds_count", &[]), all);
    for class in 1..=5 {
        let (name, of_log) = (format!("{class}xx"), count(&|line| of_class(line, class)));
        assert_eq!((json["responses"][&name].as_u64(), of_log), (Some(of_log), of_log), "{name}");
        assert_eq!(sum(&numbers, "threadbare_requests_total", &[("class", &name)]), of_log, "{name}");
        for url in &urls {
            let backend = url.strip_prefix("http://").unwrap();
            let of_log = count(&|line| of_class(line, class) && line["backend"] == *backend);
            let labels = [("class", &*name), ("backend", backend)];
            assert_eq!(sum(&numbers, "threadbare_requests_total", &labels), of_log, "{labels:?}");
            let of_json = json["backends"].as_array().unwrap().iter().find(|row| row["name"] == *backend).unwrap();
            assert_eq!(of_json["responses"][&name], of_log, "{labels:?}");
        }
        let own = count(&|line| of_class(line, class) && line["backend"].is_null());
        assert_eq!(sum(&numbers, "threadbare_requests_total", &[("class", &name), ("backend", "")]), own, "{name}");
    }
    let mut seen = 0;
    for reason in Reason::ALL {
        let of_log = count(&|line| line["reason"] == reason.word());
        assert_eq!(sum(&numbers, "threadbare_reasons_total", &[("reason", reason.word())]), of_log, "{reason:?}");
        assert_eq!(json["reasons"].get(reason.word()).map_or(0, |count| count.as_u64().unwrap()), of_log, "{reason:?}");
        seen += u64::from(of_log > 0);
    }
    assert!(seen >= 5, "hardly anything went wrong: {lines:?}");
    let all_of = |name: &str| -> u64 { lines.iter().filter_map(|line| line[name].as_u64()).sum() };
    for (of_log, of_json, metric) in [
        ("bytes_in", &json["bytes"]["in_bytes"], "threadbare_request_bytes_total"),
        ("bytes_out", &json["bytes"]["out_bytes"], "threadbare_response_bytes_total"),
    ] {
        assert_eq!(*of_json, all_of(of_log), "{of_log}");
        assert_eq!(sum(&numbers, metric, &[]), all_of(of_log), "{of_log}");
    }
    for (of_log, histogram) in [("total_us", "total"), ("first_byte_us", "head")] {
        let latency = &json["latency"][histogram];
        assert_eq!(latency["sum_us"], all_of(of_log), "{histogram}");
        assert_eq!(latency["count"], count(&|line| line[of_log].is_u64()), "{histogram}");
        assert_eq!(
            latency["max_us"].as_u64(),
            lines.iter().filter_map(|line| line[of_log].as_u64()).max(),
            "{histogram}"
        );
    }
    let rows = json["backends"].as_array().unwrap();
    for row in rows {
        let labels = [("backend", row["name"].as_str().unwrap())];
        for (of_json, metric) in [
            ("failures", "failures_total"),
            ("bytes_in", "request_bytes_total"),
            ("bytes_out", "response_bytes_total"),
            ("dials", "dials_total"),
            ("spares_reused", "spares_reused_total"),
            ("spares_dead", "spares_dead_total"),
            ("retries", "retries_total"),
            ("ejections", "ejections_total"),
            ("readmissions", "readmissions_total"),
            ("weight", "weight"),
            ("in_flight", "in_flight"),
            ("awaited", "awaited"),
        ] {
            let told = sum(&numbers, &format!("threadbare_backend_{metric}"), &labels);
            assert_eq!(row[of_json], told, "{of_json} of {labels:?}");
        }
        let told = sum(&numbers, "threadbare_backend_response_head_seconds_count", &labels);
        assert_eq!(row["latency"]["count"], told, "{labels:?}");
    }
    let of_all = |name: &str| rows.iter().map(|row| row[name].as_u64().unwrap()).sum::<u64>();
    assert!(of_all("retries") > 0 && of_all("spares_reused") > 0, "{rows:?}");
    for (worker, row) in json["workers"].as_array().unwrap().iter().enumerate() {
        let labels = [("worker", &*worker.to_string())];
        assert_eq!(row["turns"], sum(&numbers, "threadbare_worker_turns_total", &labels), "{labels:?}");
        assert!(row["turns"].as_u64().unwrap() > 0 && row["busy_us"].as_u64().unwrap() > 0, "{row}");
    }

    // And the tables, which are the page for those without script.
    let page = get(admin, "/table");
    let told = |name: &str, value: &str| {
        let row = format!(">{name}</th><td>{value}</td></tr>");
        assert!(page.contains(&row), "no {row} in {page}");
    };
    for part in ["requests", "answered", "refused", "failed", "open"] {
        told(part, &json["books"][part].to_string());
    }
    for (word, count) in json["reasons"].as_object().unwrap() {
        told(word, &count.to_string());
    }
    for (class, count) in json["responses"].as_object().unwrap() {
        told(class, &count.to_string());
    }
    told("bytes in", &all_of("bytes_in").to_string());
    told("bytes out", &all_of("bytes_out").to_string());
}

/// A client that asks for more than it takes, behind as small a buffer as the kernel gives.
fn slow_reader(address: SocketAddr, target: &str) -> TcpStream {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let mut reader = TcpStream::from(socket);
    reader.write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    reader
}

#[test]
fn everybody_who_is_parked_is_counted_by_what_they_wait_for() {
    let gate = Gate::new();
    let backend = Backend::start({
        let gate = gate.clone();
        move |connection| {
            let Some(head) = connection.read_head() else { return };
            match head.start.split(' ').nth(1).unwrap() {
                "/large" => {
                    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
                    while connection.send(&[b'x'; 64 * 1024]) {}
                }
                "/hints" => while connection.send(&b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(1000)) {},
                "/tunnel" => {
                    connection.send(b"HTTP/1.1 101 Over To You\r\nConnection: upgrade\r\nUpgrade: talk\r\n\r\n");
                    gate.pass();
                }
                _ => gate.pass(),
            }
        }
    });
    let flags = ["--admin", "127.0.0.1:0", "--max-in-flight", "5", "--max-body", "1MiB"];
    let balancer = balancer(&[&backend.url()], &flags);
    let admin = balancer.admin_address().unwrap();
    let begin = |words: &str| {
        let mut client = Client::connect(balancer.address());
        client.send(words.as_bytes());
        client
    };
    let lot = || stats(admin)["lot"].clone();
    let upgrade = "Connection: upgrade\r\nUpgrade: talk\r\n";
    let rows = [
        ("request", String::new()),
        ("head", "GET / HTT".to_owned()),
        ("backend", "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("body", "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nonly this".to_owned()),
        ("tunnel", format!("GET /tunnel HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n")),
    ];
    let mut waiting = Vec::new();
    for (what, words) in &rows {
        waiting.push(begin(words));
        eventually(|| lot()[what] == 1, &format!("the new one waits for: {what}"));
    }
    let slow = ["/large", "/hints"].map(|target| slow_reader(balancer.address(), target));
    eventually(|| lot()["slow_reader"] == 2, "the slow readers are known as such");
    let began = Instant::now();
    waiting.push(begin("GET /queued HTTP/1.1\r\nHost: a\r\n\r\n"));
    eventually(|| lot()["queue"] == 1, "all places are taken");
    let parked = ["request", "head", "backend", "body", "tunnel", "slow_reader", "queue"];
    let numbers = parse(&get(admin, "/metrics"));
    for what in parked {
        let count = if what == "slow_reader" { 2 } else { 1 };
        assert_eq!(sum(&numbers, "threadbare_parked", &[("for", what)]), count, "{what}");
    }
    assert_eq!(sum(&numbers, "threadbare_parked", &[]), 8);
    let queue = stats(admin)["queue"].clone();
    assert_eq!((&queue["length"], sum(&numbers, "threadbare_queue_length", &[])), (&1.into(), 1));
    let age = numbers[&("threadbare_queue_oldest_seconds".to_owned(), BTreeMap::new())];
    assert!(age > 0.0 && age < began.elapsed().as_secs_f64(), "{age} s");
    let later = queue["oldest_us"].as_f64().unwrap() / 1e6;
    assert!(later >= age - 1e-6 && later < began.elapsed().as_secs_f64(), "{age} s, and then {later} s");
    // A refused body is let come for a while, so that the client hears the refusal: a second, which may be over.
    let is_closing = || {
        let mut refused = begin("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n");
        assert_eq!(refused.read_response("POST").status, 413);
        lot()["closing"] != 0
    };
    eventually(is_closing, "one waits for a gentle close");
    drop((slow, waiting));
    gate.open();
}

#[test]
fn reloads_and_lost_lines_are_counted_as_they_are_told() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let (folder, backend) = (Folder::new(), Backend::answering(OK));
    let log = folder.path("log");
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    let text = format!(
        "[[backend]]\nurl = \"{}\"\n[log]\naccess_file = {log:?}\n[admin]\nlisten = \"127.0.0.1:0\"\n",
        backend.url()
    );
    let config = folder.file("config.toml", &text);
    let program = Program::start(["--config", &config]);
    let admin = admin_of(&program);
    let mut client = Client::connect(program.address());
    for _ in 0..10 {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response("GET").status, 200);
    }
    let told = |name: &str, labels: &[(&str, &str)]| sum(&parse(&get(admin, "/metrics")), name, labels);
    eventually(|| told("threadbare_log_lines_dropped_total", &[]) == 10, "each of them is lost");
    assert_eq!(stats(admin)["log"]["lines_dropped"], 10);
    let reload = |text: &str, words: &str| {
        folder.file("config.toml", text);
        program.signal(Signal::HUP);
        program.stderr.wait_for(words);
    };
    reload(&text, "reloaded");
    reload("workers = 0", "workers = 0");
    reload(&text.replace("access_file", "wire = true\nwire_file = \"/nowhere/log\"\naccess_file"), "/nowhere/log");
    let reloads = || {
        (
            told("threadbare_reloads_total", &[("outcome", "done")]),
            told("threadbare_reloads_total", &[("outcome", "refused")]),
        )
    };
    eventually(|| reloads() == (1, 2), "one was done, and two were refused");
    let json = &stats(admin)["reloads"];
    assert_eq!((&json["done"], &json["refused"]), (&1.into(), &2.into()));
    assert!(json["last_error"].as_str().unwrap().contains("/nowhere/log"), "{json}");
}

/// Ends what looks at this, also where the test fails.
struct EndOf<'a>(&'a AtomicBool);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_books_balance_at_every_moment_under_load() {
    let backend = Backend::answering(OK);
    let balancer =
        balancer(&[&backend.url(), &Backend::refusing().url()], &["--admin", "127.0.0.1:0", "--workers", "3"]);
    let admin = balancer.admin_address().unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let end = EndOf(&is_over);
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let mut client = Client::connect(balancer.address());
                    for _ in 0..20 {
                        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                        assert_eq!(client.read_response("GET").status, 200);
                    }
                    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n");
                    client.expect_refusal(&[417]);
                }
            });
        }
        let mut before = 0;
        let mut moments = 0;
        while moments < 200 || before < 2000 {
            // By way of the library, which reads them anew each time; and now and then as they are told.
            let figures = balancer.figures();
            let ended = figures.answered + figures.refused() + figures.failed();
            assert_eq!(figures.requests, ended + figures.open, "{figures:?}");
            assert_eq!(figures.classes.iter().sum::<u64>(), ended, "{figures:?}");
            assert_eq!(figures.total.count(), ended, "{figures:?}");
            assert!(figures.requests >= before, "{figures:?}");
            let of_backends = figures.over_backends(|balance| balance.requests());
            assert!(of_backends + figures.own.iter().sum::<u64>() <= ended, "{figures:?}");
            before = figures.requests;
            moments += 1;
            if moments % 50 == 0 {
                let books = stats(admin)["books"].clone();
                let number = |name: &str| books[name].as_u64().unwrap();
                let sum: u64 = ["answered", "refused", "failed", "open"].map(number).iter().sum();
                assert_eq!(number("requests"), sum, "{books}");
            }
        }
        drop(end);
    });
    eventually(|| balancer.figures().open == 0, "nothing is open any more");
    let figures = balancer.figures();
    let of_backends = figures.over_backends(|balance| balance.requests());
    assert_eq!(of_backends + figures.own.iter().sum::<u64>(), figures.requests, "at rest, to the number");
}

/// The output after some traffic, of a balancer that has all there is.
fn everything() -> String {
    let backend = Backend::answering(OK);
    let balancer = balancer(&[&backend.url(), &Backend::refusing().url()], &["--admin", "127.0.0.1:0"]);
    for _ in 0..4 {
        let mut client = Client::connect(balancer.address());
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response("GET").status, 200);
    }
    get(balancer.admin_address().unwrap(), "/metrics")
}

#[test]
fn every_metric_is_told_and_documented_and_no_other() {
    let numbers = parse(&everything());
    let page = text("docs/METRICS.md");
    let (_, behind) = page.split_once("## Metrics").unwrap();
    let rows: Vec<Vec<String>> = behind
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', "")).collect())
        .collect();
    let real: Vec<Vec<String>> = METRICS
        .iter()
        .map(|metric| [metric.name, metric.kind, metric.labels, metric.help].map(str::to_owned).to_vec())
        .collect();
    assert_eq!(rows, real, "docs/METRICS.md does not say what the program tells");
    let sentence = format!("are counted in {} buckets, from 100 us to 60 s", BOUNDS.len() + 1);
    assert!(page.contains(&sentence), "the page does not say that durations {sentence}");
    for metric in METRICS {
        let name = if metric.kind == "histogram" { format!("{}_count", metric.name) } else { metric.name.to_owned() };
        let labels: BTreeSet<&str> = metric.labels.split(", ").filter(|label| !label.is_empty()).collect();
        let (series, _) = numbers.iter().find(|((told, _), _)| *told == name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(series.1.keys().map(String::as_str).collect::<BTreeSet<_>>(), labels, "{name}");
    }
}

/// The names in an expression of Prometheus', and in the labels of a dashboard.
fn names_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c)).filter(|word| word.starts_with("threadbare_")).map(str::to_owned).collect()
}

#[test]
fn dashboard_and_alerts_name_what_there_is() {
    let told: BTreeSet<String> = parse(&everything()).into_keys().map(|(name, _)| name).collect();
    let dashboard = text("docs/deploy/grafana.json");
    let parsed: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() > 15);
    let alerts = text("docs/deploy/alerts.yml");
    for (file, text) in [("grafana.json", dashboard), ("alerts.yml", alerts.clone())] {
        let names = names_in(&text);
        assert!(names.len() >= 8, "{file} was not understood: {names:?}");
        let unknown: Vec<&String> = names.difference(&told).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
    }
    for reason in alerts.split("reason=~\"").skip(1).flat_map(|rest| rest.split('"').next().unwrap().split('|')) {
        assert!(Reason::ALL.iter().any(|known| known.word() == reason), "{reason} is no reason");
    }
}

/// What a program says of this input, if it is installed and has not said that it can't.
fn ask_program(program: &mut Command, input: &str) -> Option<(bool, String)> {
    let child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        println!("skipped: {program:?} can't be run");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let _it_may_have_ended = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    if output.status.code() == Some(77) {
        println!("skipped: {said}");
        return None;
    }
    Some((output.status.success(), said))
}

#[test]
fn pythons_client_library_reads_the_same_numbers() {
    let output = everything();
    let script = "import sys\ntry:\n    from prometheus_client.parser import text_string_to_metric_families as read\n\
        except ImportError:\n    print('python3 has no prometheus_client'); sys.exit(77)\n\
        for family in read(sys.stdin.read()):\n    for s in family.samples: print(s.name, len(s.labels), s.value)";
    let Some((is_fine, said)) = ask_program(Command::new("python3").args(["-c", script]), &output) else { return };
    assert!(is_fine, "{said}");
    let row = |name: &str, labels: usize, value: f64| format!("{name} {labels} {value}");
    let mut theirs: Vec<String> = said
        .lines()
        .map(|line| {
            let [name, labels, value] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            row(name, labels.parse().unwrap(), value.parse().unwrap())
        })
        .collect();
    theirs.sort_unstable();
    let ours = parse(&output);
    let mut ours: Vec<String> = ours.iter().map(|((name, labels), value)| row(name, labels.len(), *value)).collect();
    ours.sort_unstable();
    assert_eq!(ours, theirs);
}

#[test]
fn prometheus_itself_finds_nothing_wrong() {
    let checked = ask_program(Command::new("promtool").args(["check", "metrics"]), &everything());
    if let Some((is_fine, said)) = checked {
        assert!(is_fine && said.trim().is_empty(), "{said}");
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/deploy/alerts.yml");
        let (is_fine, said) = ask_program(Command::new("promtool").args(["check", "rules"]).arg(rules), "").unwrap();
        assert!(is_fine, "{said}");
    }
}

#[test]
fn a_backends_name_can_hold_what_labels_must_escape() {
    let backend = Backend::answering(OK);
    let name = r#"a\"b\\c{d}"#; // as TOML writes it
    let file = TempFile::new(format!("[[backend]]\nurl = \"{}\"\nname = \"{name}\"\n", backend.url()));
    let flags = ["--config", file.path(), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--access-log", "off"];
    let config = threadbare::Config::from_args(flags);
    let balancer = threadbare::Balancer::start(config.unwrap()).unwrap();
    let numbers = parse(&get(balancer.admin_address().unwrap(), "/metrics"));
    assert_eq!(sum(&numbers, "threadbare_backend_up", &[("backend", r#"a"b\c{d}"#)]), 1);
}
