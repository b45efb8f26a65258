//! The access log: what each format tells of every exchange, where the lines go, and which are left out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use program::{Program, command, command_after, run};
use rustix::process::Signal;
use serde_json::Value;
use support::{Backend, Client, Folder, Gate, each, eventually};

/// Says so when it is dropped, also by a panic: whoever looks at it need not go on.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many lines it says that the access log has lost.
fn lost(said: &str) -> usize {
    let complaints = said.split("the access log has lost ").skip(1);
    complaints.map(|rest| rest.split(' ').next().unwrap().parse::<usize>().unwrap()).sum()
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn get(client: &mut Client, target: &str) -> u16 {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    client.read_response("GET").status
}

fn always_ok() -> Backend {
    Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
}

/// The one line about a single exchange, under these flags.
fn line_about(flags: &[&str], exchange: impl FnOnce(&mut Client)) -> String {
    let program = Program::start(flags);
    let mut client = Client::connect(program.address());
    exchange(&mut client);
    program.stdout.wait_for_lines(1).remove(0)
}

/// The milliseconds between the bytes and the backend of a line of text.
fn total(line: &str) -> f64 {
    let words: Vec<&str> = line.rsplit_once("\" ").unwrap().1.split(' ').collect();
    words[2].strip_suffix("ms").and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

// What is told of an exchange.

#[test]
fn a_refused_request_is_told_of_like_any_other() {
    let backend = Backend::echo();
    let url = backend.url();
    let rows: [(&str, &str, &[&str]); 8] = [
        // What is sent; the beginning of what is told; the flags.
        ("GET /a HTTP/1.1\r\n\r\n", "\"GET /a\" 400 ", &[]),
        ("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "\"GET /a\" 400 ", &[]),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "\"CONNECT a:443\" 501 ", &[]),
        ("GET https://a/b HTTP/1.1\r\nHost: a\r\n\r\n", "\"GET https://a/b\" 421 ", &[]),
        ("GET /a HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n", "\"GET /a\" 400 ", &[]),
        ("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", "\"POST /up\" 413 ", &["--max-body", "8"]),
        ("GET /a?b HTTP/1.1\r\nHo", "\"GET /a?b\" 408 ", &["--head-timeout", "200ms"]),
        ("GET /a", "\"-\" 408 ", &["--head-timeout", "200ms"]),
    ];
    each(rows, |(sent, told, flags)| {
        let mut length = 0;
        let line = line_about(&[flags, &[url.as_str()]].concat(), |client| {
            client.send(sent.as_bytes());
            length = client.read_response("GET").body.len();
        });
        assert!(line.contains(&format!("{told}{length}B ")), "not {told:?} and {length} bytes: {line}");
        if flags.contains(&"--head-timeout") {
            assert!(total(&line) >= 200.0, "the time that the head took is told: {line}");
        }
    });
}

#[test]
fn the_time_of_an_exchange_begins_with_the_first_byte_of_its_head() {
    let backend = Backend::echo();
    let pause = Duration::from_millis(300);
    let line = line_about(&[&backend.url()], |client| {
        client.send(b"GET / HTTP/1.1\r\n");
        thread::sleep(pause); // not a wait for something: what is measured
        client.send(b"Host: a\r\n\r\n");
        client.read_response("GET");
    });
    assert!(total(&line) >= 150.0, "{line}"); // a busy machine's worker may have seen the first bytes a little later
}

#[test]
fn a_connection_is_told_of_though_its_answer_came_as_soon_as_it_stood() {
    // This backend does not wait for the request: now and then all is there before the worker looks for the first time.
    let backend = Backend::start(|connection| {
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        connection.read_request();
    });
    let program = Program::start([&backend.url()]);
    let mut client = Client::connect(program.address());
    const EXCHANGES: usize = 300;
    for _ in 0..EXCHANGES {
        assert_eq!(get(&mut client, "/"), 200);
    }
    let lines = program.stdout.wait_for_lines(EXCHANGES);
    let silent = lines.iter().filter(|line| !line.contains(" (connect ")).count();
    assert_eq!(silent, 0, "of {EXCHANGES}, e.g. {:?}", lines.iter().find(|line| !line.contains(" (connect ")));
}

#[test]
fn what_is_waited_for_is_the_answer_that_goes_on() {
    let pause = Duration::from_millis(300);
    let micros = u64::try_from(pause.as_micros()).unwrap();
    let wait = |flags: &[&str], exchange: &dyn Fn(&mut Client)| {
        let line = line_about(&[&["--access-log", "json"], flags].concat(), exchange);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["status"], 200, "{line}");
        value["first_byte_us"].as_u64()
    };
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    // What comes before it is not it.
    let asking = Backend::start(move |connection| {
        connection.read_head();
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n");
        connection.read_rest();
        thread::sleep(pause); // the backend's slowness, not a wait
        connection.send(OK);
    });
    let told = wait(&[&asking.url()], &|client| {
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
        client.read_interim();
        client.send(b"a");
        client.read_response("POST");
    });
    assert!(told >= Some(micros), "{told:?}");

    // Nor is one that is passed over.
    let failing = Backend::start(move |connection| {
        connection.read_request();
        thread::sleep(10 * pause); // the backend's slowness, not a wait
        connection.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
    });
    let (failing, good) = (failing.url(), always_ok());
    let told = wait(&["--retry-status", "503", &failing, &good.url()], &|client| {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_response("GET");
    });
    assert!(told.is_some_and(|told| told < 10 * micros), "{told:?}");

    // One that came before the request's end was not waited for.
    let hasty = Backend::start(move |connection| {
        connection.read_head();
        connection.send(OK);
        connection.read_rest();
    });
    let told = wait(&[&hasty.url()], &|client| {
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n");
        client.read_head("POST");
        client.send(b"0\r\n\r\n");
        client.read_body_bytes(2);
    });
    assert_eq!(told, None);
}

#[test]
fn who_waited_in_the_queue_in_vain_is_told_of_with_the_time() {
    let gate = Gate::new();
    let backend = Backend::start({
        let gate = gate.clone();
        move |connection| {
            connection.read_request();
            gate.pass();
        }
    });
    let flags = ["--access-log", "json", "--max-in-flight", "1", "--queue-timeout", "300ms", &backend.url()];
    let program = Program::start(flags);
    let mut first = Client::connect(program.address());
    first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    backend.wait_for_requests(1);
    let mut second = Client::connect(program.address());
    assert_eq!(get(&mut second, "/"), 503);
    let line = program.stdout.wait_for_lines(1).remove(0);
    let value: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["reason"], "queue-timeout", "{line}");
    assert!(value["queue_us"].as_u64() >= Some(300_000), "{line}");
    gate.open();
}

#[test]
fn a_client_that_resets_is_gone_wherever_it_was() {
    let backend = Backend::start(|connection| _ = connection.read_request());
    for sent in ["Content-Length: 5\r\n\r\nhell", "Transfer-Encoding: chunked\r\n\r\n5\r\nhell"] {
        let program = Program::start([backend.url()]);
        let mut client = Client::connect(program.address());
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{sent}").as_bytes());
        client.abort();
        let line = program.stdout.wait_for_lines(1).remove(0);
        assert!(line.contains(" 499 ") && line.ends_with(" client-gone"), "{line}");
    }
}

#[test]
fn the_bytes_of_both_bodies_are_told_without_their_framing() {
    let backend = Backend::start(|connection| {
        while let Some(request) = connection.read_request() {
            assert!(request.whole);
            connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n");
        }
    });
    let rows: [(&str, u64); 3] = [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", 5),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", 11),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0),
    ];
    each(rows, |(sent, bytes_in)| {
        let line = line_about(&[&backend.url()], |client| {
            client.send(sent.as_bytes());
            client.read_response("POST");
        });
        assert!(line.contains("\" 200 7B "), "{line}");
        let told = line.split(' ').find_map(|word| word.strip_prefix("in=")?.strip_suffix('B')?.parse().ok());
        assert_eq!(told.unwrap_or(0), bytes_in, "{line}");
    });
}

#[test]
fn a_request_that_is_sent_again_has_come_in_once() {
    let closing = Backend::start(|connection| drop(connection.read_request()));
    let echo = Backend::echo();
    let line = line_about(&[&closing.url(), &echo.url()], |client| {
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        client.read_response("PUT");
    });
    assert_eq!(closing.requests().len(), 1);
    assert!(line.contains(" tries=2 in=5B "), "{line}");
}

#[test]
fn an_answer_of_ours_is_counted_with_its_body_and_a_cut_one_with_what_went_out() {
    let refusing = Backend::refusing();
    let mut length = 0;
    let line = line_about(&[&refusing.url()], |client| {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        length = client.read_response("GET").body.len();
    });
    assert!(length > 0 && line.contains(&format!("\" 502 {length}B ")), "{length}: {line}");

    let line = line_about(&[&refusing.url()], |client| {
        client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        client.read_response("HEAD");
    });
    assert!(line.contains("\" 502 0B "), "{line}");

    let cutting = Backend::start(|connection| {
        connection.read_request();
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
    });
    let line = line_about(&[&cutting.url()], |client| {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.try_response("GET").is_err());
    });
    assert!(line.contains("\" 200 4B ") && line.ends_with(" backend-cut-body"), "{line}");

    let gate = Gate::new();
    let silent = Backend::start({
        let gate = gate.clone();
        move |connection| {
            connection.read_request();
            gate.pass();
        }
    });
    let program = Program::start([silent.url()]);
    let mut client = Client::connect(program.address());
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    silent.wait_for_requests(1);
    drop(client);
    let line = program.stdout.wait_for_lines(1).remove(0);
    assert!(line.contains("\" 499 0B ") && line.contains(" in=3B "), "nobody is there to be answered: {line}");
    gate.open();
}

#[test]
fn a_tunnel_is_told_of_with_the_bytes_of_both_directions() {
    let backend = Backend::start(|connection| {
        connection.read_request();
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: talk\r\nConnection: upgrade\r\n\r\nhello");
        connection.read_raw(3);
        connection.send(b"!");
    });
    let line = line_about(&[&backend.url()], |client| {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: talk\r\nConnection: upgrade\r\n\r\n");
        client.read_head("GET");
        client.send(b"yes");
        assert_eq!(client.read_raw(6), b"hello!");
        client.half_close();
        client.expect_closed();
    });
    assert!(line.contains("\" 101 6B ") && line.contains(" in=3B "), "{line}");
}

#[test]
fn a_request_that_brought_its_id_is_told_of_by_that_id_even_when_it_is_refused() {
    let backend = Backend::echo();
    for sent in ["OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n", "GET / HTTP/1.1\r\nHost: a\r\n"] {
        let line = line_about(&[&backend.url(), "--max-body", "1"], |client| {
            client.send(format!("{sent}X-Request-Id: seven\r\nContent-Length: 2\r\n\r\n").as_bytes());
            client.read_response("GET");
        });
        assert!(line.contains(" id=seven"), "{line}");
    }
}

// Formats.

/// `name=value`, for each word that is such.
fn pairs(text: &str) -> BTreeMap<&str, &str> {
    text.split(' ').filter_map(|word| word.split_once('=')).collect()
}

#[test]
fn every_format_tells_the_same() {
    let backend = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let refusing = Backend::refusing();
    let about = |format: &str| {
        line_about(&["--access-log", format, &refusing.url(), &backend.url()], |client| {
            let fields = "X-Request-Id: seven\r\nReferer: http://a/\"b\r\nUser-Agent: \u{e9}\r\nContent-Length: 3";
            client.send(format!("POST /x?\"y HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\nabc").as_bytes());
            client.read_response("POST");
        })
    };
    let name = backend.address().to_string();

    let text = about("text");
    let (before, behind) = text.split_once(r#" "POST /x?\"y" 200 5B "#).unwrap_or_else(|| panic!("{text}"));
    assert!(before.contains('T') && before.contains("Z 127.0.0.1:"), "{text}");
    assert!(behind.ends_with(&format!(") {name} tries=2 in=3B id=seven")), "{text}");
    assert!(behind.contains("(connect ") && behind.contains(" wait "), "{text}");

    let combined = about("combined");
    let rest = combined.strip_prefix("127.0.0.1 - - [").unwrap_or_else(|| panic!("{combined}"));
    let (time, rest) = rest.split_at("25/Nov/2026:09:42:40 +0000".len());
    assert!(time[2..].starts_with('/') && time.ends_with(" +0000") && time.matches(':').count() == 3, "{combined}");
    let rest = rest.strip_prefix(r#"] "POST /x?\"y HTTP/1.1" 200 5 "http://a/\"b" "\xc3\xa9" "#);
    let rest = pairs(rest.unwrap_or_else(|| panic!("{combined}")));
    assert_eq!((rest["id"], rest["backend"], rest["tries"], rest["in"]), ("seven", &*name, "2", "3"));
    assert_eq!((rest["queue"], rest["reason"]), ("-", "-"));
    let number = |name: &str| rest[name].parse::<u64>().unwrap_or_else(|_| panic!("{combined}"));
    assert!(number("total") >= number("first_byte") + number("connect"), "{combined}");

    let json = about("json");
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["time"].as_str().map(str::len), Some("2026-11-25T09:42:40.678901Z".len()));
    assert!(value["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{json}");
    let texts = ["id", "method", "target", "backend"].map(|name| value[name].as_str().unwrap());
    assert_eq!(texts, ["seven", "POST", "/x?\"y", &*name]);
    let numbers = ["status", "bytes_in", "bytes_out", "tries"].map(|name| value[name].as_u64().unwrap());
    assert_eq!(numbers, [200, 3, 5, 2]);
    assert!(value["queue_us"].is_null() && value["reason"].is_null(), "{json}");
    let micros = ["connect_us", "first_byte_us", "total_us"].map(|name| value[name].as_u64().unwrap());
    assert!(micros[2] >= micros[0] + micros[1], "{json}");
}

#[test]
fn every_format_tells_what_was_not_understood() {
    let backend = Backend::echo();
    let about = |format: &str| {
        line_about(&["--access-log", format, &backend.url()], |client| {
            client.send(b"GET /\x1b\" HTTP/1.1\r\n\r\n");
            client.expect_refusal(&[400]);
        })
    };
    assert!(about("text").contains(" \"-\" 400 "));
    let combined = about("combined");
    assert!(combined.contains("] \"-\" 400 ") && combined.contains(" \"-\" \"-\" id="), "{combined}");
    assert!(combined.contains(" backend=- tries=0 in=0 queue=- connect=- first_byte=- total="), "{combined}");
    assert!(combined.ends_with(" reason=bad-request"), "{combined}");
    let value: Value = serde_json::from_str(&about("json")).unwrap();
    for name in ["method", "target", "backend", "queue_us", "connect_us", "first_byte_us"] {
        assert!(value[name].is_null(), "{name}: {value}");
    }
    assert_eq!((value["reason"].as_str(), value["tries"].as_u64()), (Some("bad-request"), Some(0)));
    assert!(value["id"].as_str().is_some_and(|id| id.len() == 16) && value["total_us"].is_u64(), "{value}");
}

#[test]
fn the_combined_format_tells_who_was_refused() {
    let backend = Backend::echo();
    let flags = ["--access-log", "combined", "--max-body", "1", &backend.url()];
    let line = line_about(&flags, |client| {
        client.send(b"POST / HTTP/1.0\r\nHost: a\r\nuser-agent:  tool/1 \r\nContent-Length: 2\r\n\r\n");
        client.read_response("POST");
    });
    assert!(line.contains("] \"POST / HTTP/1.0\" 413 ") && line.contains(" \"-\" \"tool/1\" id="), "{line}");
    let line = line_about(&["--access-log", "combined", &backend.url()], |client| {
        client.send(b"GET / HTTP/1.0\r\nReferer:\r\nUser-Agent: old\r\n\r\n"); // it brings no Host
        client.read_response("GET");
    });
    assert!(line.contains("\"GET / HTTP/1.0\" 200 ") && line.contains(" \"-\" \"old\" id="), "{line}");
}

#[test]
fn the_page_about_the_logs_lists_every_field() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/LOGS.md")).unwrap();
    let (_, behind) = page.split_once("## Fields").unwrap();
    let rows: Vec<Vec<&str>> = behind
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let documented: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();

    let backend = Backend::echo();
    let about = |format: &str| {
        line_about(&["--access-log", format, &backend.url()], |client| assert_eq!(get(client, "/"), 200))
    };
    let json = about("json");
    let value: Value = serde_json::from_str(&json).unwrap();
    let mut real: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    real.sort_by_key(|name| json.find(&format!("\"{name}\":")));
    assert_eq!(documented, real, "in their order");
    for row in &rows {
        let value = &value[row[0].trim_matches('`')];
        let kind = match value {
            Value::Null => "null",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => "something else",
        };
        assert!(row[1].split(" or ").any(|documented| documented == kind), "{row:?}: {value}");
    }
    let combined = about("combined");
    let words = combined.rsplit_once("\" ").unwrap().1.split(' ');
    let real: Vec<&str> = words.map(|word| word.split_once('=').unwrap().0).collect();
    let mut documented: Vec<&str> = rows.iter().filter_map(|row| row[3].trim_matches('`').strip_suffix('=')).collect();
    documented.sort_by_key(|name| combined.find(&format!(" {name}=")));
    assert_eq!(documented, real);
    // The example of the page has the fields of a real line.
    let (_, behind) = page.split_once("```json\n").unwrap();
    let example: Value = serde_json::from_str(behind.split_once("\n```").unwrap().0).unwrap();
    assert!(example.as_object().unwrap().keys().eq(value.as_object().unwrap().keys()));
}

// Where the lines go.

#[test]
fn the_lines_go_to_the_end_of_a_file() {
    let (folder, backend) = (Folder::new(), Backend::echo());
    let file = folder.path("log");
    fs::write(&file, "earlier\n").unwrap();
    let mut program = Program::start(["--access-log-file", &file, &backend.url()]);
    assert_eq!(get(&mut Client::connect(program.address()), "/x"), 200);
    program.terminate();
    assert_eq!(program.exit_code(), 0);
    let text = read(&file);
    assert!(text.starts_with("earlier\n") && text.contains("\"GET /x\" 200") && text.lines().count() == 2, "{text}");
    assert_eq!(program.stdout.all(), "");
}

#[test]
fn a_file_that_cannot_be_written_to_is_named_at_the_start() {
    let folder = Folder::new();
    let pipe = folder.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    let rows = [("/nowhere/log".to_owned(), "No such file"), (folder.path(""), "directory"), (pipe, "named pipe")];
    let rows = &rows[..if made.is_ok_and(|status| status.success()) { 3 } else { 2 }];
    each(rows, |(path, why)| {
        let output = run(&["--listen", "127.0.0.1:0", "--access-log-file", path, "127.0.0.1:9"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(path) && stderr.contains(why) && stderr.lines().count() == 1, "{stderr}");
    });
}

#[test]
fn a_file_that_is_rotated_loses_no_line_and_doubles_none() {
    let (folder, backend) = (Folder::new(), always_ok());
    let file = folder.path("log");
    let mut program = Program::start(["--access-log-file", &file, &backend.url()]);
    let address = program.address();
    let enough = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let clients: Vec<_> = (0..2)
            .map(|nth| {
                let enough = &enough;
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    let mut count = 0;
                    while !enough.load(Ordering::Relaxed) {
                        assert_eq!(get(&mut client, &format!("/{nth}/{count}")), 200);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let ending = Ending(&enough);
        for nth in 0..5 {
            eventually(|| read(&file).contains('\n'), "the file gets lines");
            fs::rename(&file, folder.path(&format!("log.{nth}"))).unwrap();
            program.signal(Signal::HUP);
        }
        eventually(|| read(&file).contains('\n'), "the last file gets lines");
        drop(ending);
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<usize>>()
    });
    program.terminate();
    assert_eq!(program.exit_code(), 0);
    let mut seen = BTreeMap::new();
    for name in ["log", "log.0", "log.1", "log.2", "log.3", "log.4"] {
        let text = read(&folder.path(name));
        assert!(text.ends_with('\n'), "{name} ends with a whole line");
        for line in text.lines() {
            let target = line.split_once("\"GET ").unwrap_or_else(|| panic!("{line}")).1.split('"').next().unwrap();
            *seen.entry(target.to_owned()).or_insert(0) += 1;
        }
    }
    for (nth, count) in asked.iter().enumerate() {
        for number in 0..*count {
            assert_eq!(seen.remove(&format!("/{nth}/{number}")), Some(1), "client {nth}, request {number}");
        }
    }
    assert!(seen.is_empty(), "{seen:?}");
    assert!(!program.stderr.all().contains("ERROR"), "whoever rotates a log has nothing else to be read again");
}

#[test]
fn a_file_that_cannot_be_opened_again_is_kept() {
    let (folder, backend) = (Folder::new(), Backend::echo());
    let inner = folder.path("inner");
    fs::create_dir(&inner).unwrap();
    let file = format!("{inner}/log");
    let program = Program::start(["--access-log-file", &file, &backend.url()]);
    let moved = folder.path("moved");
    fs::rename(&inner, &moved).unwrap();
    program.signal(Signal::HUP);
    let line = program.stderr.wait_for("ERROR");
    assert!(line.contains(&file) && line.contains("the old file is kept"), "{line}");
    assert_eq!(get(&mut Client::connect(program.address()), "/x"), 200);
    eventually(|| read(&format!("{moved}/log")).contains("\"GET /x\""), "the old file goes on");
}

#[test]
fn a_file_that_cannot_be_opened_again_keeps_no_other_from_it() {
    let (folder, backend) = (Folder::new(), Backend::echo());
    let (inner, wire) = (folder.path("inner"), folder.path("wire"));
    fs::create_dir(&inner).unwrap();
    let access = format!("{inner}/log");
    let flags = ["--access-log-file", &access, "--wire-log", "on", "--wire-log-file", &wire, &backend.url()];
    let program = Program::start(flags);
    fs::rename(&inner, folder.path("moved")).unwrap();
    fs::rename(&wire, folder.path("wire.1")).unwrap();
    program.signal(Signal::HUP);
    program.stderr.wait_for("the old file is kept");
    eventually(|| fs::exists(&wire).unwrap(), "the other file is there again");
}

#[test]
fn a_reload_changes_what_is_told_and_where() {
    let (folder, backend) = (Folder::new(), Backend::echo());
    let (config, log) = (folder.path("config.toml"), folder.path("log"));
    let backend = format!("[[backend]]\nurl = \"{}\"\n[log]\n", backend.url());
    let say = |keys: &str| fs::write(&config, format!("{backend}{keys}")).unwrap();
    say("access = \"off\"");
    let program = Program::start(["--config", &config]);
    let mut client = Client::connect(program.address());
    let reloads = AtomicUsize::new(0);
    let reload = |keys: &str| {
        say(keys);
        program.signal(Signal::HUP);
        let count = reloads.fetch_add(1, Ordering::Relaxed) + 1;
        eventually(|| program.stderr.so_far().matches("reloaded").count() == count, "it is reloaded");
    };
    assert_eq!(get(&mut client, "/untold"), 200);
    reload("access = \"text\"");
    assert_eq!(get(&mut client, "/text"), 200);
    assert!(program.stdout.wait_for_lines(1)[0].contains("\"GET /text\" 200"));
    reload(&format!("access = \"json\"\naccess_file = \"{log}\""));
    assert_eq!(get(&mut client, "/json"), 200);
    eventually(|| read(&log).ends_with("}\n"), "the file gets its line");
    reload(&format!("access = \"json\"\naccess_file = \"{log}\"\naccess_slower_than = \"1h\""));
    assert_eq!(get(&mut client, "/fast"), 200);
    reload("access = \"combined\"");
    assert_eq!(get(&mut client, "/combined"), 200);
    assert!(program.stdout.wait_for_lines(2)[1].contains("\"GET /combined HTTP/1.1\" 200"));
    assert!(read(&log).contains("\"/json\"") && read(&log).lines().count() == 1, "{}", read(&log));

    say("access_file = \"/nowhere/log\"");
    program.signal(Signal::HUP);
    program.stderr.wait_for("can't write the access log to /nowhere/log");
    assert_eq!(get(&mut client, "/still"), 200);
    assert!(program.stdout.wait_for_lines(3)[2].contains("\"GET /still HTTP/1.1\" 200"), "nothing of it holds");
}

// Which exchanges get a line.

#[test]
fn of_the_exchanges_that_went_well_one_in_so_many_is_told_of_and_of_the_others_all() {
    let backend = Backend::start(|connection| {
        while let Some(request) = connection.read_request() {
            let status = if request.target == "/bad" { "500 No" } else { "404 Not here" };
            connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        }
    });
    let told = |sample: &str, asked: usize| {
        let mut program = Program::start(["--access-log-sample", sample, &backend.url()]);
        let mut client = Client::connect(program.address());
        for _ in 0..asked {
            assert_eq!(get(&mut client, "/"), 404, "an answer like any other");
        }
        assert_eq!(get(&mut client, "/bad"), 500);
        client.send(b"GET / HTTP/1.1\r\n\r\n");
        client.expect_refusal(&[400]);
        program.terminate();
        assert_eq!(program.exit_code(), 0);
        let lines = program.stdout.all();
        assert!(lines.contains("\"GET /bad\" 500") && lines.contains(" bad-request\n"), "{lines}");
        assert_eq!(lost(&program.stderr.all()), 0, "what is left out is not lost");
        lines.lines().count() - 2
    };
    assert_eq!(told("1", 100), 100);
    assert_eq!(told("1000000000", 100), 0);
    // 100 are to be expected, and 8.7 is the standard deviation.
    let some = told("4", 400);
    assert!((40..=160).contains(&some), "{some} of 400, where one in four was asked for");
}

#[test]
fn only_slow_exchanges_are_told_of_where_that_is_wished() {
    let gate = Gate::new();
    let backend = Backend::start({
        let gate = gate.clone();
        move |connection| {
            while let Some(request) = connection.read_request() {
                if request.target == "/slow" {
                    gate.pass();
                }
                connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
    });
    // Twice as long as the fast one may take on a busy machine.
    let mut program = Program::start(["--access-log-slower-than", "1s", &backend.url()]);
    let mut client = Client::connect(program.address());
    assert_eq!(get(&mut client, "/fast"), 200);
    client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    backend.wait_for_requests(1);
    thread::sleep(Duration::from_millis(1100)); // not a wait for something: this is what makes it slow
    gate.open();
    assert_eq!(client.read_response("GET").status, 200);
    client.send(b"GET / HTTP/1.1\r\n\r\n");
    client.expect_refusal(&[400]);
    program.terminate();
    assert_eq!(program.exit_code(), 0);
    let lines = program.stdout.all();
    assert!(lines.contains("/slow") && lines.contains("bad-request") && lines.lines().count() == 2, "{lines}");
}

// When they can't be written.

#[test]
fn a_full_disk_stops_the_log_and_not_the_traffic() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let (folder, backend) = (Folder::new(), always_ok());
    let link = folder.path("log");
    std::os::unix::fs::symlink("/dev/full", &link).unwrap();
    let mut program = Program::start(["--access-log-file", &link, &backend.url()]);
    let mut client = Client::connect(program.address());
    for _ in 0..100 {
        assert_eq!(get(&mut client, "/lost"), 200);
    }
    program.stderr.wait_for("the access log can't be written: No space left");
    program.stderr.wait_for("the access log has lost ");
    fs::remove_file(&link).unwrap();
    program.signal(Signal::HUP); // and there is a disk with room
    eventually(|| fs::exists(&link).unwrap(), "the file is there");
    assert_eq!(get(&mut client, "/found"), 200);
    eventually(|| read(&link).contains("\"GET /found\""), "the log goes on");
    program.stderr.wait_for("the access log can be written again");
    program.terminate();
    assert_eq!(program.exit_code(), 0);
    let said = program.stderr.all();
    assert_eq!(lost(&said) + read(&link).matches("/lost").count(), 100, "{said}");
}

#[test]
fn a_disk_that_fills_up_in_the_middle_of_a_line_has_no_torn_line_once_there_is_room() {
    let (folder, backend) = (Folder::new(), always_ok());
    let file = folder.path("log");
    // A file may have 256 KiB; what goes beyond is cut short, or fails.
    let mut short = command_after("trap '' XFSZ && ulimit -f 512");
    let flags = ["--listen", "127.0.0.1:0", "--access-log-file", &file, &backend.url()];
    let mut program = Program::listening(short.args(flags));
    let mut client = Client::connect(program.address());
    let mut asked = 1;
    while !program.stderr.so_far().contains("the access log can't be written: File too large") {
        assert!(asked < 50_000, "there is room for all of them");
        assert_eq!(get(&mut client, "/"), 200);
        asked += 1;
    }
    let full = folder.path("full");
    fs::rename(&file, &full).unwrap();
    program.signal(Signal::HUP);
    eventually(|| fs::exists(&file).unwrap(), "the next file is there");
    assert_eq!(get(&mut client, "/last"), 200);
    program.terminate();
    assert_eq!(program.exit_code(), 0);
    let (text, said) = (read(&file), program.stderr.all());
    assert!(text.lines().all(|line| line.starts_with("20") && line.contains("Z 127.0.0.1:")), "{text}");
    assert!(text.ends_with('\n') && text.contains("\"GET /last\""), "{text}");
    assert_eq!(read(&full).matches('\n').count() + text.matches('\n').count() + lost(&said), asked, "{said}");
}

#[test]
fn what_a_closed_pipe_has_cost_is_counted_and_said() {
    let backend = always_ok();
    let (nobody, pipe) = std::io::pipe().unwrap();
    drop(nobody);
    let mut command = command();
    command.args(["--listen", "127.0.0.1:0", &backend.url()]);
    command.stdin(Stdio::null()).stdout(pipe).stderr(Stdio::piped());
    let mut program = Program::spawn_and_listen(&mut command);
    let mut client = Client::connect(program.address());
    for _ in 0..100 {
        assert_eq!(get(&mut client, "/"), 200);
    }
    program.stderr.wait_for("the access log can't be written: Broken pipe");
    program.terminate();
    assert_eq!(program.exit_code(), 0);
    let said = program.stderr.all();
    assert_eq!(lost(&said), 100, "{said}");
}

#[test]
fn a_tunnel_that_stood_still_has_a_word_of_its_own() {
    let gate = Gate::new();
    let backend = Backend::start({
        let gate = gate.clone();
        move |connection| {
            connection.read_request();
            connection.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: talk\r\nConnection: upgrade\r\n\r\n");
            gate.pass();
        }
    });
    let line = line_about(&["--tunnel-timeout", "200ms", &backend.url()], |client| {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: talk\r\nConnection: upgrade\r\n\r\n");
        client.read_head("GET");
        client.expect_closed();
    });
    assert!(line.contains("\" 101 0B ") && line.ends_with(" tunnel-idle"), "{line}");
    gate.open();
}
