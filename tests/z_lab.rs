//! The walkthrough's laboratory: what it promises, it does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use program::{Program, output};
use support::{Backend, Client, End, Folder, Gate, each};

fn lab(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(words);
    command
}

/// A backend of the laboratory's, on a port of the system's choosing.
fn backend(flags: &[&str]) -> (Program, SocketAddr) {
    let program = Program::spawn(lab(&["backend", "--listen", "127.0.0.1:0", "--name", "one"]).args(flags));
    let line = program.stdout.wait_for("one listens on ");
    let address = line.rsplit(' ').next().unwrap().parse().unwrap();
    (program, address)
}

/// What an experiment prints; it must end well.
fn prints(words: &[&str]) -> String {
    let output = output(&mut lab(words));
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{words:?}: {err}");
    out
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_backend_answers_with_its_name_status_and_fields_and_keeps_the_connection() {
    let (_backend, address) = backend(&["--status", "404", "--field", "A: b", "--field", "A: c"]);
    let mut client = Client::connect(address);
    for _ in 0..2 {
        client.send(GET);
        let answer = client.read_response("GET");
        assert_eq!((answer.status, answer.text().as_str()), (404, "hello from one\n"));
        assert_eq!(answer.head.get("X-Backend"), Some("one"));
        assert_eq!(answer.head.all("A"), ["b", "c"]);
    }
    client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.read_response("HEAD").head.get("Content-Length"), Some("15"));
    client.expect_closed();
}

#[test]
fn an_echo_is_the_request_however_it_was_framed() {
    let (_backend, address) = backend(&["--behave", "echo"]);
    each(
        [("Content-Length: 3\r\n\r\nabc", "abc"), ("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "abc")],
        {
            |(rest, body)| {
                let mut client = Client::connect(address);
                client.send(format!("POST /x HTTP/1.1\r\nHost: a\r\n{rest}").as_bytes());
                let text = client.read_response("POST").text();
                assert!(
                    text.starts_with("POST /x HTTP/1.1\r\n") && text.ends_with(&format!("\r\n\r\n{body}")),
                    "{text}"
                );
            }
        },
    );
}

#[test]
fn a_drip_comes_piece_by_piece() {
    let (_backend, address) = backend(&["--behave", "drip", "--pieces", "2"]);
    let mut client = Client::connect(address);
    client.send(GET);
    assert_eq!(client.read_response("GET").text(), "piece 1 from one\npiece 2 from one\n");
}

#[test]
fn what_no_server_should_do_it_does() {
    let rows: [(&str, fn(&mut Client)); 5] = [
        ("cut", |client| {
            let cut = client.try_response("GET").unwrap_err();
            assert_eq!((cut.body, cut.end), (b"hello from one\n".to_vec(), End::Closed));
        }),
        ("nonsense", |client| assert_eq!(client.read_to_end(), b"220 mail.example ESMTP ready\r\n")),
        ("two-lengths", |client| {
            let end = client.try_response("GET").unwrap_err().end;
            assert!(matches!(end, End::Malformed(_)), "{end:?}");
        }),
        ("hang-up", |client| client.expect_closed()),
        ("silent", |client| {
            client.half_close();
            client.expect_closed();
        }),
    ];
    each(rows, |(behaviour, check)| {
        let (_backend, address) = backend(&["--behave", behaviour]);
        let mut client = Client::connect(address);
        client.send(GET);
        check(&mut client);
    });
}

#[test]
fn after_an_upgrade_every_byte_comes_back() {
    let (_backend, address) = backend(&["--behave", "upgrade"]);
    let mut client = Client::connect(address);
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly ");
    assert_eq!(client.read_head("GET").get("Upgrade"), Some("echo"));
    client.send(b"and late");
    assert_eq!(client.read_raw(14), b"early and late");
}

#[test]
fn what_it_reads_it_tells() {
    let (backend, address) = backend(&["--tell"]);
    Client::connect(address).send(GET);
    backend.stdout.wait_for("one, connection 1: 27 bytes");
    backend.stdout.wait_for("    Host: a\\r\\n");
    backend.stdout.wait_for("one, connection 1: the end");
}

#[test]
fn it_works_at_so_many_requests_at_once_and_no_more() {
    let (_backend, address) = backend(&["--at-once", "1", "--delay", "50ms"]);
    let began = Instant::now();
    prints(&["load", &address.to_string(), "--requests", "6", "--clients", "6"]);
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
}

#[test]
fn a_backend_that_is_told_to_wait_for_a_file_answers_when_it_is_there() {
    let folder = Folder::new();
    let (_backend, address) = backend(&["--until", &folder.path("go")]);
    let ask = || prints(&["load", &address.to_string(), "--requests", "1", "--patience", "300ms"]);
    assert!(ask().contains("too late: 1\n"));
    folder.file("go", "");
    let mut client = Client::connect(address);
    client.send(GET);
    assert_eq!(client.read_response("GET").text(), "hello from one\n");
}

#[test]
fn a_long_body_is_as_long_as_it_says_and_behind_a_head_alone_there_is_none() {
    let (_backend, address) = backend(&["--body", "200000"]);
    let mut client = Client::connect(address);
    client.send(GET);
    assert_eq!(client.read_response("GET").body, vec![b'.'; 200_000]);
    client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response("HEAD").head.get("Content-Length"), Some("200000"));
    client.send(GET);
    assert_eq!(client.read_response("GET").body.len(), 200_000);
}

#[test]
fn a_load_counts_answers_failures_and_backends() {
    let (_one, first) = backend(&[]);
    let told = prints(&["load", &first.to_string(), "--requests", "30", "--clients", "3"]);
    assert!(told.contains("answers    200: 30\n") && told.contains("backends   one: 30\n"), "{told}");
    assert!(!told.contains("failures"), "{told}");
    let (_cut, second) = backend(&["--behave", "cut"]);
    let told = prints(&["load", &second.to_string(), "--requests", "3"]);
    assert!(told.contains("answers    none\n") && told.contains("failures   cut off: 3\n"), "{told}");
}

#[test]
fn a_client_whose_patience_is_over_gives_up_and_the_server_works_on() {
    let (_backend, address) = backend(&["--at-once", "1", "--delay", "100ms"]);
    let impatient = ["load", &address.to_string(), "--requests", "30", "--clients", "30", "--patience", "250ms"];
    let told = prints(&impatient);
    let count = |what: &str| {
        let behind = told.split_once(what).map_or("0", |(_, behind)| behind);
        behind.lines().next().unwrap().parse::<u32>().unwrap()
    };
    assert!(count("answers    200: ") <= 3, "{told}");
    assert_eq!(count("answers    200: ") + count("failures   too late: "), 30, "{told}");
    // Thirty times a tenth of a second, and whoever comes now waits behind those who have left.
    let began = Instant::now();
    let told = prints(&["load", &address.to_string(), "--requests", "1"]);
    assert!(told.contains("answers    200: 1\n") && began.elapsed() > Duration::from_millis(300), "{told}");
}

#[test]
fn a_get_that_meets_the_close_of_a_kept_connection_is_sent_again_and_a_post_is_not() {
    let backend = Backend::start(|connection| {
        connection.read_request();
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        connection.read_head(); // the next one is read, and never answered
    });
    let address = backend.address().to_string();
    let told = prints(&["load", &address, "--requests", "3"]);
    assert!(told.contains("answers    200: 3\n") && !told.contains("failures"), "{told}");
    let told = prints(&["load", &address, "--requests", "3", "--method", "POST"]);
    assert!(told.contains("failures   closed without an answer: 1\n"), "{told}");
}

#[test]
fn an_open_loop_counts_the_wait_of_those_that_could_not_be_sent() {
    // One client, requests due every millisecond, and an answer that takes 30: the tenth was due long before it is sent.
    let (_backend, address) = backend(&["--delay", "30ms"]);
    let told = prints(&["load", &address.to_string(), "--requests", "10", "--rate", "1000"]);
    let slowest = |name: &str| {
        let line = told.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{told}"));
        let slowest = line.rsplit(' ').next().unwrap();
        let digits: String = slowest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        digits.parse::<f64>().unwrap() * if slowest.ends_with("ms") { 1.0 } else { 1000.0 }
    };
    assert!(slowest("since due") >= 280.0, "{told}");
    assert!(slowest("since due") > 2.0 * slowest("time"), "{told}");
}

#[test]
fn a_crowd_waits_while_something_else_happens() {
    let (_backend, address) = backend(&["--behave", "silent"]);
    each(["idle", "half-head", "slow-head", "slow-reader", "waiting"], |kind| {
        let told =
            prints(&["crowd", &address.to_string(), "--clients", "20", "--kind", kind, "--", "echo", "meanwhile"]);
        assert_eq!(told, "20 clients are connected\nmeanwhile\n20 of them are still connected\n", "{kind}");
    });
    let gate = Gate::new();
    let leaving = Backend::start({
        let gate = gate.clone();
        move |connection| {
            connection.read_head();
            gate.open();
        }
    });
    let address = leaving.address().to_string();
    let port = address.rsplit(':').next().unwrap();
    // Until the kernel knows of no established connection of that port's.
    let gone =
        format!("while grep -q ':{:04X} 0100007F:.* 01 ' /proc/net/tcp; do :; done", port.parse::<u16>().unwrap());
    let told = prints(&["crowd", &address, "--clients", "1", "--kind", "waiting", "--", "sh", "-c", &gone]);
    assert!(told.ends_with("0 of them are still connected\n"), "{told}");
}

#[test]
fn bytes_are_sent_as_they_are_written_and_the_end_is_told() {
    let (backend, address) = backend(&["--behave", "echo", "--tell"]);
    let address = address.to_string();
    let told = prints(&["send", &address, r"GET /\x41\\ HT", r"TP/1.1\r\nHost: a\r\n\r\n", "--pause", "50ms"]);
    assert!(told.contains("GET /A\\ HTTP/1.1\nHost: a\n\n-- still open\n"), "{told}");
    backend.stdout.wait_for("one, connection 1: 10 bytes");
    let told = prints(&["send", &address, r"GET / HTTP/1.0\r\nHost: a\r\n\r\n"]);
    assert!(told.ends_with("-- closed\n"), "{told}");
    let told = prints(&["send", &address, r"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "--reads"]);
    assert!(told.starts_with("-- a read brought "), "{told}");
}

#[test]
fn a_thread_costs_kibibytes_and_microseconds_and_not_megabytes() {
    let told = prints(&["threads", "500", "--rounds", "500"]);
    let number = |name: &str| {
        let line = told.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{told}"));
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(number("started"), "500");
    assert!(number("memory").parse::<u64>().unwrap() < 100, "{told}");
    assert!(number("promised").parse::<u64>().unwrap() >= 1024, "{told}");
    for time in ["woken", "awake"] {
        assert!(number(time).ends_with("us") || number(time).ends_with("ms"), "{told}");
    }
}

#[test]
fn a_mistake_is_told_with_what_would_be_right() {
    each(
        [
            (&["backend"][..], "--listen <ADDR:PORT>"),
            (&["backend", "--listen", "localhost:80"], "invalid socket address"),
            (&["backend", "--listen", "127.0.0.1:0", "--behave", "well"], "possible values: answer, echo"),
            (&["backend", "--listen", "127.0.0.1:0", "--delay", "5"], "written like 500ms"),
            (&["load", "127.0.0.1:1", "--requests", "many"], "invalid digit"),
            (&["crowd", "127.0.0.1:1"], "<COMMAND>"),
            (&["send", "127.0.0.1:1"], "<PIECE>"),
            (&["threads"], "<COUNT>"),
        ],
        |(words, told)| {
            let output = output(&mut lab(words));
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{words:?}: {error}");
            assert!(error.contains(told), "{words:?}: {error}");
        },
    );
}
