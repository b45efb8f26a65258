//! The access log: what each format tells of every exchange, where the lines go, and which are left out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "panicking is how a test fails")]

#[path = "support/program.rs"]
mod program;
mod support;

use program::Program;
use support::{Backend, Client, Gate, each};

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
    let pause = std::time::Duration::from_millis(50);
    let line = line_about(&[&backend.url()], |client| {
        client.send(b"GET / HTTP/1.1\r\n");
        std::thread::sleep(pause); // not a wait for something: what is measured
        client.send(b"Host: a\r\n\r\n");
        client.read_response("GET");
    });
    assert!(total(&line) >= 45.0, "{line}"); // the worker may have seen the first bytes a little later
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
