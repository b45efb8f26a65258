//! Where a head ends, and what its lines may hold (RFC 9112 sections 2 to 5).

use super::*;
use crate::http::{BodyFraming, refuse_early};

/// Everything that a scan finds when the bytes come in one piece.
fn scanned(bytes: &[u8]) -> Result<Option<usize>, Flaw> {
    HeadScan::of_request().advance(bytes).map_err(without_text)
}

#[test]
fn a_head_ends_behind_its_empty_line() {
    let rows: [(&[u8], Option<usize>); 9] = [
        (b"", None),
        (b"\r", None),
        (b"\r\n", None),
        (b"\r\nG", None),
        (b"GET / HTTP/1.1\r\n", None),
        (b"GET / HTTP/1.1\r\nA: b\r\n\r", None),
        (b"GET / HTTP/1.1\r\nA: b\r\n\r\n", Some(24)),
        (b"GET / HTTP/1.1\r\nA: b\r\n\r\nbody\n\0", Some(24)),
        (b"\r\nGET / HTTP/1.1\r\n\r\nGET", Some(20)),
    ];
    for (bytes, end) in rows {
        assert_eq!(scanned(bytes), Ok(end), "{}", show(bytes));
    }
}

#[test]
fn what_was_looked_at_is_not_looked_at_again() {
    let mut scan = HeadScan::of_request();
    assert_eq!(scan.advance(b"GET / HTTP/1.1\r\nA: b"), Ok(None));
    // What would have been refused, were it new.
    assert_eq!(scan.advance(b"GET\0/ HTTP/1.1\r\nA: bc\r\n"), Ok(None));
    assert_eq!(scan.advance(b"\0\0\0 / HTTP/1.1\r\nA: bc\r\n\r\n"), Ok(Some(25)));
}

#[test]
fn two_wrongs_are_no_better_than_one() {
    let wrongs = ["\r", "\n", "\0", "\x7f", "\x1f"];
    for (one, other) in wrongs.iter().flat_map(|one| wrongs.iter().map(move |other| (one, other))) {
        for between in ["", "x", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"] {
            let bytes = format!("GET / HTTP/1.1\r\nA: b{one}{between}{other}c\r\n\r\n");
            let is_line_end = (*one, between, *other) == ("\r", "", "\n");
            assert_eq!(scanned(bytes.as_bytes()).is_ok(), is_line_end, "{}", show(&bytes));
        }
    }
}

#[test]
fn a_head_that_can_never_become_one_is_refused_when_the_bad_byte_is_seen() {
    let rows: [&[u8]; 12] = [
        b"\n",
        b"\rG",
        b"\r\r",
        b"\r\n\n",
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\rH",
        b"GET / HTTP/1.1\r\nA: b\n",
        b"GET / HTTP/1.1\r\nA: b\r\n\n",
        b"GET / HTTP/1.1\r\nA: b\r\n\rX",
        b"GET / HTTP/1.1\r\nA: \0",
        b"GET / HTTP/1.1\r\nA: \x7f",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", // how TLS says hello
    ];
    for bytes in rows {
        assert_eq!(scanned(bytes), Err(SYNTAX), "{}", show(bytes));
    }
}

#[test]
fn of_all_control_characters_only_the_tab_may_stand_in_a_head() {
    for byte in (0..=0x1f).chain([0x7f_u8]).filter(|byte| !b"\r\n".contains(byte)) {
        let expected = if byte == b'\t' { Ok(None) } else { Err(SYNTAX) };
        // At many places, so that the pieces in which the bytes are compared do not matter.
        for place in [0, 1, 15, 16, 31, 32, 63, 200] {
            let mut bytes = vec![b'x'; 201];
            bytes[place] = byte;
            assert_eq!(scanned(&bytes), expected, "{byte:#x} at {place}");
        }
    }
}

#[test]
fn one_empty_line_before_a_request_is_ignored_and_none_before_a_response() {
    assert_eq!(refusal_of_request("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
    assert_eq!(refusal_of_request("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Some(SYNTAX));
    assert_eq!(refusal_of_response("\r\nHTTP/1.1 200 OK\r\n\r\n"), Some(SYNTAX));
}

#[test]
fn a_request_line_is_three_words_and_two_spaces() {
    let rows: [(&str, Option<Flaw>); 36] = [
        ("GET / HTTP/1.1", None),
        ("get / HTTP/1.1", None),
        ("M-SEARCH / HTTP/1.1", None),
        ("!#$%&'*+-.^_`|~09azAZ / HTTP/1.1", None),
        ("GET / HTTP/1.0", None),
        ("GET / HTTP/1.2", None),
        ("GET / HTTP/1.9", None),
        ("GET / HTTP/0.9", Some(Flaw::UnsupportedVersion)),
        ("GET / HTTP/2.0", Some(Flaw::UnsupportedVersion)),
        ("GET / HTTP/9.9", Some(Flaw::UnsupportedVersion)),
        ("PRI * HTTP/2.0", Some(Flaw::UnsupportedVersion)),
        ("GET / HTTP/1.10", Some(SYNTAX)),
        ("GET / HTTP/01.1", Some(SYNTAX)),
        ("GET / HTTP/1", Some(SYNTAX)),
        ("GET / HTTP/1.", Some(SYNTAX)),
        ("GET / HTTP/1.1x", Some(SYNTAX)),
        ("GET / HTTP/+1.1", Some(SYNTAX)),
        ("GET / http/1.1", Some(SYNTAX)),
        ("GET / HTTPS/1.1", Some(SYNTAX)),
        ("GET / ", Some(SYNTAX)),
        ("GET /", Some(SYNTAX)),
        ("GET  HTTP/1.1", Some(SYNTAX)),
        ("GET HTTP/1.1", Some(SYNTAX)),
        ("GET", Some(SYNTAX)),
        (" GET / HTTP/1.1", Some(SYNTAX)),
        ("GET  / HTTP/1.1", Some(SYNTAX)),
        ("GET /  HTTP/1.1", Some(SYNTAX)),
        ("GET / HTTP/1.1 ", Some(SYNTAX)),
        ("GET /a b HTTP/1.1", Some(SYNTAX)),
        ("GET\t/ HTTP/1.1", Some(SYNTAX)),
        ("GET /\tHTTP/1.1", Some(SYNTAX)),
        ("GET /a\tb HTTP/1.1", Some(SYNTAX)),
        ("GE:T / HTTP/1.1", Some(SYNTAX)),
        ("G(T / HTTP/1.1", Some(SYNTAX)),
        ("\u{e4} / HTTP/1.1", Some(SYNTAX)),
        ("HTTP/1.1 200 OK", Some(SYNTAX)),
    ];
    for (line, expected) in rows {
        assert_eq!(refusal_of_request(head(line, &["Host: a"])), expected, "{line:?}");
    }
}

#[test]
fn a_minor_version_above_1_is_read_as_1_1() {
    for (minor, expected) in (0..=9).zip([Version::Http10].into_iter().chain([Version::Http11; 9])) {
        let head = head(&format!("GET / HTTP/1.{minor}"), &["Host: a"]);
        assert_eq!(with_request(head.as_bytes(), |request| request.unwrap().version), expected, "1.{minor}");
    }
}

#[test]
fn a_field_line_is_a_token_a_colon_and_a_value() {
    let rows: [(&[u8], bool); 33] = [
        (b"A: b", true),
        (b"A:b", true),
        (b"A:\t b \t", true),
        (b"A:", true),
        (b"A: ", true),
        (b"A: b: c", true),
        (b"A: b\tc", true),
        (b"A: \x80\xff", true),
        (b"A: \"\\", true),
        (b"!#$%&'*+-.^_`|~09azAZ: b", true),
        (b"A : b", false),
        (b"A\t: b", false),
        (b" A: b", false),
        (b"\tA: b", false),
        (b"A: b\r\n c", false),
        (b"A: b\r\n\tc", false),
        (b"A: b\r\n ", false),
        (b"A:\r\n b", false),
        (b"A", false),
        (b":", false),
        (b": b", false),
        (b" : b", false),
        (b"A B: c", false),
        (b"A(: b", false),
        (b"A/: b", false),
        (b"A@: b", false),
        (b"A\\: b", false),
        (b"\"A\": b", false),
        (b"\xe4: b", false),
        (b"Content-Length : 0", false),
        (b"A: b\0c", false),
        (b"A: b\x0bc", false),
        (b"A: b\x7fc", false),
    ];
    for (line, fine) in rows {
        // Once behind Host, once before it: the first line is no exception.
        let behind = [b"GET / HTTP/1.1\r\nHost: a\r\n", line, b"\r\n\r\n"].concat();
        let before = [b"GET / HTTP/1.1\r\n", line, b"\r\nHost: a\r\n\r\n"].concat();
        for head in [behind, before] {
            assert_eq!(refusal_of_request(&head), (!fine).then_some(SYNTAX), "{}", show(&head));
        }
    }
}

#[test]
fn a_head_may_have_so_many_fields_and_not_one_more() {
    for (count, expected) in [(1, None), (31, None), (32, None), (99, None), (100, Some(Flaw::TooManyFields))] {
        assert_eq!(refusal_of_request(get(&vec!["A: b"; count])), expected, "{count} fields and Host");
    }
    for (limit, count, fine) in [(3, 2, true), (3, 3, false), (1000, 999, true), (1000, 1000, false)] {
        let head = get(&vec!["A: b"; count]);
        let mut scan = HeadScan::of_request();
        assert_eq!(scan.advance(head.as_bytes()), Ok(Some(head.len())));
        let mut table = FieldTable::default();
        let limits = Limits { fields: limit, ..LIMITS };
        let verdict = Request::read(head.as_bytes(), &mut table, limits).map(|_| ());
        let expected = if fine { Ok(()) } else { Err(Flaw::TooManyFields) };
        assert_eq!(verdict, expected, "{count} fields and Host, {limit} allowed");
    }
}

#[test]
fn a_head_over_a_limit_is_refused_before_it_ends_and_the_target_is_to_blame_first() {
    let target = |length: usize| format!("GET /{}", "y".repeat(length - 1));
    let rows: [(String, Result<(), Flaw>); 14] = [
        (target(8 * 1024), Ok(())),
        (target(8 * 1024 + 1), Err(Flaw::TargetTooLong)),
        (target(20 * 1024), Err(Flaw::TargetTooLong)),
        (format!("{} HTTP/1.1\r\n", target(8 * 1024)), Ok(())),
        (format!("{} HTTP/1.1\r\n", target(8 * 1024 + 1)), Err(Flaw::TargetTooLong)),
        (format!("{}\r\n", target(8 * 1024 + 1)), Err(Flaw::TargetTooLong)),
        (format!("\r\n{}", target(8 * 1024)), Ok(())),
        (format!("\r\n{}", target(8 * 1024 + 1)), Err(Flaw::TargetTooLong)),
        (format!("{:y<16384}", "GET / HTTP/1.1\r\nA: "), Ok(())),
        (format!("{:y<16385}", "GET / HTTP/1.1\r\nA: "), Err(Flaw::HeadTooLarge)),
        (format!("{:y<16386}", "\r\nGET / HTTP/1.1\r\nA: "), Ok(())),
        (format!("{:y<16387}", "\r\nGET / HTTP/1.1\r\nA: "), Err(Flaw::HeadTooLarge)),
        ("Y".repeat(16384), Ok(())),
        ("Y".repeat(16385), Err(Flaw::HeadTooLarge)),
    ];
    for (beginning, expected) in rows {
        let mut scan = HeadScan::of_request();
        assert_eq!(scan.advance(beginning.as_bytes()), Ok(None));
        let verdict = refuse_early(beginning.as_bytes(), LIMITS);
        assert_eq!(verdict, expected, "{} bytes: {:.40}...", beginning.len(), show(&beginning));
    }
}

#[test]
fn a_complete_head_is_held_to_the_same_limits() {
    let of_length = |length: usize| {
        let fixed = get(&["A: "]).len();
        get(&[&format!("A: {}", "y".repeat(length - fixed))])
    };
    let of_target = |length: usize| head(&format!("GET /{} HTTP/1.1", "y".repeat(length - 1)), &["Host: a"]);
    assert_eq!(refusal_of_request(of_length(16 * 1024)), None);
    assert_eq!(refusal_of_request(of_length(16 * 1024 + 1)), Some(Flaw::HeadTooLarge));
    assert_eq!(refusal_of_request(of_target(8 * 1024)), None);
    assert_eq!(refusal_of_request(of_target(8 * 1024 + 1)), Some(Flaw::TargetTooLong));
    assert_eq!(refusal_of_request(of_target(32 * 1024)), Some(Flaw::TargetTooLong));
}

#[test]
fn a_status_line_has_a_version_and_three_digits() {
    let rows: [(&[u8], Option<u16>); 27] = [
        (b"HTTP/1.1 200 OK", Some(200)),
        (b"HTTP/1.0 200 OK", Some(200)),
        (b"HTTP/1.1 200 ", Some(200)),
        (b"HTTP/1.1 200", Some(200)),
        (b"HTTP/1.1 100 Continue", Some(100)),
        (b"HTTP/1.1 599 \xe4\t\xff of them", Some(599)),
        (b"HTTP/1.1 099 OK", None),
        (b"HTTP/1.1 000 OK", None),
        (b"HTTP/1.1 600 OK", None),
        (b"HTTP/1.1 999 OK", None),
        (b"HTTP/1.1 20 OK", None),
        (b"HTTP/1.1 2000 OK", None),
        (b"HTTP/1.1 2x0 OK", None),
        (b"HTTP/1.1 +20 OK", None),
        (b"HTTP/1.1 -20 OK", None),
        (b"HTTP/1.1 200\tOK", None),
        (b"HTTP/1.1 200OK", None),
        (b"HTTP/1.1  200 OK", None),
        (b"HTTP/1.1\t200 OK", None),
        (b"HTTP/1.1 OK", None),
        (b"HTTP/1.1", None),
        (b"HTTP/2.0 200 OK", None),
        (b"HTTP/0.9 200 OK", None),
        (b"HTTP/1.01 200 OK", None),
        (b"http/1.1 200 OK", None),
        (b"ICY 200 OK", None),
        (b" HTTP/1.1 200 OK", None),
    ];
    for (line, status) in rows {
        let head = [line, b"\r\nContent-Length: 0\r\n\r\n"].concat();
        let read = with_response(&head, false, |verdict| verdict.map(|response| response.status));
        assert_eq!(read.map_err(without_text), status.ok_or(SYNTAX), "{}", show(line));
    }
}

#[test]
fn two_things_are_mended_in_the_fields_of_a_response_and_no_more() {
    let rows: [(&[u8], Option<&[u8]>); 19] = [
        (b"A: b", Some(b"A: b")),
        (b"A : b", Some(b"A: b")),
        (b"A \t : b", Some(b"A: b")),
        (b"A: b\r\n c", Some(b"A: b c")),
        (b"A: b \t\r\n \t c", Some(b"A: b c")),
        (b"A:\r\n b", Some(b"A: b")),
        (b"A: b\r\n ", Some(b"A: b")),
        (b"A: b\r\n \r\n c", Some(b"A: b c")),
        (b"A: b\r\n c: d", Some(b"A: b c: d")),
        (b"A:", Some(b"A: ")),
        (b"A: \xe4", Some(b"A: \xe4")),
        (b" A: b", None), // nothing is there to be continued
        (b"A", None),
        (b"A b", None),
        (b": b", None),
        (b" : b", None),
        (b"A B: c", None),
        (b"A\x80: b", None),
        (b"A: b\0", None),
    ];
    for (line, mended) in rows {
        let head = [b"HTTP/1.1 200 OK\r\n", line, b"\r\nContent-Length: 0\r\n\r\n"].concat();
        match mended {
            None => assert_eq!(refusal_of_response(&head), Some(SYNTAX), "{}", show(&head)),
            Some(mended) => {
                let expected = format!("HTTP/1.1 200 OK\r\n{}\r\n", text_of(mended.to_vec()));
                let written = answered(&head, false, &TO_1_1);
                assert!(written.starts_with(&expected), "{}: {}", show(&head), written.escape_debug());
            }
        }
    }
}

#[test]
fn a_folded_value_means_what_it_would_mean_on_one_line() {
    let length = |line: &str| {
        let head = head("HTTP/1.1 200 OK", &[line]);
        with_response(head.as_bytes(), false, |response| {
            response.map(|response| response.framing).map_err(without_text)
        })
    };
    assert_eq!(length("Content-Length:\r\n 5"), Ok(BodyFraming::Length(5)));
    assert_eq!(length("Content-Length: 5\r\n "), Ok(BodyFraming::Length(5)));
    assert_eq!(length("Content-Length: 5,\r\n 5"), Ok(BodyFraming::Length(5)));
    assert_eq!(length("Content-Length: 5\r\n 5"), Err(FRAMING));
    assert_eq!(length("Transfer-Encoding:\r\n chunked\r\n\t"), Ok(BodyFraming::Chunked));
    assert_eq!(length("Transfer-Encoding: chunked,\r\n chunked"), Err(FRAMING));

    let head = head(
        "HTTP/1.1 200 OK",
        &[
            "Connection: x-hop,\r\n X-Hop-Too\r\n ,\r\n close",
            "X-Hop: 1",
            "X-Hop-Too: 2",
            "X-Goes-On: 3",
            "Content-Length: 0",
        ],
    );
    let written = answered(&head, false, &TO_1_1);
    assert!(!written.contains("Hop"), "{}", written.escape_debug());
    assert_eq!(values(&written, "X-Goes-On"), ["3"]);
    assert!(with_response(head.as_bytes(), false, |response| response.unwrap().options.close));
}

#[test]
fn a_response_may_have_256_fields_and_not_one_more() {
    for (count, expected) in [(128, None), (256, None), (257, Some(Flaw::TooManyFields))] {
        assert_eq!(refusal_of_response(head("HTTP/1.1 200 OK", &vec!["A: b"; count])), expected, "{count} fields");
    }
}
