//! How the end of a body is known (RFC 9112 section 6).

use super::*;
use crate::http::{BodyFraming, Endings, backend_may_be_reused, client_may_stay};

fn framing_of(start: &str, lines: &[&str]) -> Result<BodyFraming, Flaw> {
    let head = head(start, &[&["Host: a"], lines].concat());
    with_request(head.as_bytes(), |verdict| verdict.map(|request| request.framing).map_err(without_text))
}

const LENGTHS: [(&[&str], Result<u64, Flaw>); 44] = [
    (&["Content-Length: 5"], Ok(5)),
    (&["content-length:5"], Ok(5)),
    (&["Content-Length: \t5 \t"], Ok(5)),
    (&["Content-Length: 05"], Ok(5)),
    (&["Content-Length: 000000000000000000000000000000005"], Ok(5)),
    (&["Content-Length: 0"], Ok(0)),
    (&["Content-Length: 00"], Ok(0)),
    (&["Content-Length: 18446744073709551615"], Ok(u64::MAX)),
    (&["Content-Length: 5", "Content-Length: 5"], Ok(5)),
    (&["Content-Length: 5", "X: y", "content-length: 05", "Content-Length: 5"], Ok(5)),
    (&["Content-Length: 5, 5"], Ok(5)),
    (&["Content-Length: 5,5,5"], Ok(5)),
    (&["Content-Length: 5", "Content-Length: 5, 5"], Ok(5)),
    (&["Content-Length:"], Err(FRAMING)),
    (&["Content-Length: "], Err(FRAMING)),
    (&["Content-Length: +5"], Err(FRAMING)),
    (&["Content-Length: -5"], Err(FRAMING)),
    (&["Content-Length: -0"], Err(FRAMING)),
    (&["Content-Length: 0x5"], Err(FRAMING)),
    (&["Content-Length: 5h"], Err(FRAMING)),
    (&["Content-Length: 5.0"], Err(FRAMING)),
    (&["Content-Length: 5e0"], Err(FRAMING)),
    (&["Content-Length: 5_0"], Err(FRAMING)),
    (&["Content-Length: 5;a=b"], Err(FRAMING)),
    (&["Content-Length: 5 5"], Err(FRAMING)),
    (&["Content-Length: 5\t5"], Err(FRAMING)),
    (&["Content-Length: \"5\""], Err(FRAMING)),
    (&["Content-Length: a"], Err(FRAMING)),
    (&["Content-Length: 5, 6"], Err(FRAMING)),
    (&["Content-Length: 5, 5, 6"], Err(FRAMING)),
    (&["Content-Length: 5, +5"], Err(FRAMING)),
    (&["Content-Length: 5,"], Err(FRAMING)),
    (&["Content-Length: ,5"], Err(FRAMING)),
    (&["Content-Length: 5,,5"], Err(FRAMING)),
    (&["Content-Length: 5", "Content-Length: 6"], Err(FRAMING)),
    (&["Content-Length: 6", "Content-Length: 5"], Err(FRAMING)),
    (&["Content-Length: 5", "Content-Length: 0"], Err(FRAMING)),
    (&["Content-Length: 0", "Content-Length: 5"], Err(FRAMING)),
    (&["Content-Length: 5", "Content-Length:"], Err(FRAMING)),
    (&["Content-Length: x", "Content-Length: 5"], Err(FRAMING)),
    (&["Content-Length: 18446744073709551616"], Err(FRAMING)),
    (&["Content-Length: 99999999999999999999999999999999999"], Err(FRAMING)),
    (&["Content-Length: \u{0665}"], Err(FRAMING)),
    (&["Content-Length: \u{ff15}"], Err(FRAMING)),
];

#[test]
fn a_length_is_decimal_digits_and_says_one_thing() {
    for (lines, expected) in LENGTHS {
        let expected = expected.map(|length| if length == 0 { BodyFraming::None } else { BodyFraming::Length(length) });
        for start in ["POST / HTTP/1.1", "GET / HTTP/1.1", "POST / HTTP/1.0"] {
            assert_eq!(framing_of(start, lines), expected, "{start} {lines:?}");
        }
        for start in ["HTTP/1.1 200 OK", "HTTP/1.0 404 Not Found"] {
            let head = head(start, lines);
            let read = with_response(head.as_bytes(), false, |verdict| verdict.map(|response| response.framing));
            assert_eq!(read.map_err(without_text), expected, "{start} {lines:?}");
        }
    }
}

#[test]
fn a_length_goes_on_as_one_fresh_decimal() {
    for (lines, length) in LENGTHS {
        let Ok(length) = length else { continue };
        let written = forwarded(get(lines), &STRANGER);
        assert_eq!(values(&written, "content-length"), [length.to_string()], "{lines:?}");
        let written = answered(head("HTTP/1.1 200 OK", lines), false, &TO_1_1);
        assert_eq!(values(&written, "content-length"), [length.to_string()], "{lines:?}");
    }
    assert!(values(&forwarded(get(&[]), &STRANGER), "content-length").is_empty(), "no length is made up");
}

#[test]
fn a_coding_is_chunked_once_and_alone() {
    let rows: [(&[&str], Result<(), Flaw>); 36] = [
        (&["Transfer-Encoding: chunked"], Ok(())),
        (&["transfer-encoding:CHUNKED"], Ok(())),
        (&["Transfer-Encoding: \tcHunked "], Ok(())),
        (&["Transfer-Encoding: gzip"], Err(Flaw::UnknownCoding)),
        (&["Transfer-Encoding: identity"], Err(Flaw::UnknownCoding)),
        (&["Transfer-Encoding: xchunked"], Err(Flaw::UnknownCoding)),
        (&["Transfer-Encoding: chunkedx"], Err(Flaw::UnknownCoding)),
        (&["Transfer-Encoding: gzip, chunked"], Err(Flaw::UnknownCoding)),
        (&["Transfer-Encoding: identity, chunked"], Err(Flaw::UnknownCoding)),
        (&["Transfer-Encoding: deflate, gzip, chunked"], Err(Flaw::UnknownCoding)),
        (&["Transfer-Encoding: gzip", "X: y", "transfer-encoding: chunked"], Err(Flaw::UnknownCoding)),
        (&["Transfer-Encoding:"], Err(FRAMING)),
        (&["Transfer-Encoding: ,"], Err(FRAMING)),
        (&["Transfer-Encoding: ,chunked"], Err(FRAMING)),
        (&["Transfer-Encoding: chunked,"], Err(FRAMING)),
        (&["Transfer-Encoding: chunked, chunked"], Err(FRAMING)),
        (&["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], Err(FRAMING)),
        (&["Transfer-Encoding: chunked", "Transfer-Encoding:"], Err(FRAMING)),
        (&["Transfer-Encoding:", "Transfer-Encoding: chunked"], Err(FRAMING)),
        (&["Transfer-Encoding: chunked, gzip"], Err(FRAMING)),
        (&["Transfer-Encoding: chunked", "Transfer-Encoding: identity"], Err(FRAMING)),
        (&["Transfer-Encoding: chunked, gzip, chunked"], Err(FRAMING)),
        (&["Transfer-Encoding: gzip, chunked, chunked"], Err(FRAMING)),
        (&["Transfer-Encoding: gzip, chunked, gzip"], Err(FRAMING)),
        (&["Transfer-Encoding: chunked chunked"], Err(FRAMING)),
        (&["Transfer-Encoding: chunked;a=b"], Err(FRAMING)),
        (&["Transfer-Encoding: \"chunked\""], Err(FRAMING)),
        (&["Transfer-Encoding: chunked\u{a0}"], Err(FRAMING)),
        (&["Transfer-Encoding: chun\tked"], Err(FRAMING)),
        (&["Content-Length: 5", "Transfer-Encoding: chunked"], Err(FRAMING)),
        (&["Transfer-Encoding: chunked", "Content-Length: 5"], Err(FRAMING)),
        (&["Transfer-Encoding: chunked", "X: y", "content-length: 0"], Err(FRAMING)),
        (&["Transfer-Encoding: gzip", "Content-Length: 5"], Err(FRAMING)),
        (&["Transfer-Encoding:", "Content-Length: 5"], Err(FRAMING)),
        (&["Transfer-Encoding: chunked", "Content-Length:"], Err(FRAMING)),
        (&["Transfer-Encoding: chunked", "Content-Length: x"], Err(FRAMING)),
    ];
    for (lines, expected) in rows {
        let expected = expected.map(|()| BodyFraming::Chunked);
        for method in ["POST", "GET", "HEAD"] {
            assert_eq!(framing_of(&format!("{method} / HTTP/1.1"), lines), expected, "{method} {lines:?}");
            // RFC 9112 section 6.1: HTTP/1.0 knows no codings, so whatever came through one is faulty.
            assert_eq!(framing_of(&format!("{method} / HTTP/1.0"), lines), Err(FRAMING), "1.0: {lines:?}");
        }
        for (version, expected) in [("1.1", expected), ("1.0", Err(FRAMING))] {
            let head = head(&format!("HTTP/{version} 200 OK"), lines);
            let read = with_response(head.as_bytes(), false, |verdict| verdict.map(|response| response.framing));
            assert_eq!(read.map_err(without_text), expected, "a {version} response: {lines:?}");
        }
    }
}

#[test]
fn a_request_without_a_framing_field_has_no_body() {
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "X"] {
        for version in ["1.0", "1.1"] {
            assert_eq!(
                framing_of(&format!("{method} / HTTP/{version}"), &[]),
                Ok(BodyFraming::None),
                "{method} {version}"
            );
        }
    }
}

#[test]
fn a_response_that_has_no_body_has_none_whatever_its_fields_say() {
    let lies: [&[&str]; 5] = [
        &[],
        &["Content-Length: 5"],
        &["Transfer-Encoding: chunked"],
        &["Transfer-Encoding: gzip"],
        &["Content-Length: 5", "Transfer-Encoding: chunked"],
    ];
    for (status, to_head) in
        [(100, false), (103, false), (199, false), (101, false), (204, false), (304, false), (200, true), (404, true)]
    {
        for lines in lies {
            let head = head(&format!("HTTP/1.1 {status} X"), lines);
            let framing = with_response(head.as_bytes(), to_head, |verdict| verdict.map(|response| response.framing));
            assert_eq!(framing, Ok(BodyFraming::None), "{head:?}");
            let written = answered(&head, to_head, &TO_1_1);
            assert!(values(&written, "transfer-encoding").is_empty(), "{written:?}");
            // Only HEAD and 304 may tell of a length that is not here.
            let tells = (to_head || status == 304) && lines == ["Content-Length: 5"];
            let expected: &[&str] = if tells { &["5"] } else { &[] };
            assert_eq!(values(&written, "content-length"), expected, "{written:?}");
        }
    }
    for start in ["HTTP/1.1 304 Not Modified", "HTTP/1.1 200 OK"] {
        let head = head(start, &["Content-Length: +5"]);
        assert_eq!(
            with_response(head.as_bytes(), true, |verdict| verdict.err().map(without_text)),
            Some(FRAMING),
            "{head}"
        );
    }
}

#[test]
fn a_response_without_a_framing_field_goes_on_until_the_close() {
    let cases = [("HTTP/1.1 200 OK", BodyFraming::UntilClose), ("HTTP/1.0 404 No", BodyFraming::UntilClose)];
    for (start, expected) in cases {
        let read =
            with_response(head(start, &[]).as_bytes(), false, |verdict| verdict.map(|response| response.framing));
        assert_eq!(read, Ok(expected), "{start}");
    }
}

#[test]
fn a_body_is_framed_as_the_client_can_read_it() {
    let rows = [
        (BodyFraming::None, Version::Http11, Endings::AsItCame),
        (BodyFraming::None, Version::Http10, Endings::AsItCame),
        (BodyFraming::Length(5), Version::Http11, Endings::AsItCame),
        (BodyFraming::Length(5), Version::Http10, Endings::AsItCame),
        (BodyFraming::Chunked, Version::Http11, Endings::Chunks),
        (BodyFraming::Chunked, Version::Http10, Endings::Close),
        (BodyFraming::UntilClose, Version::Http11, Endings::Chunks),
        (BodyFraming::UntilClose, Version::Http10, Endings::Close),
    ];
    for (framing, version, expected) in rows {
        assert_eq!(Endings::of(framing, version), expected, "{framing:?} to {version:?}");
    }
    for lines in [&["Transfer-Encoding: chunked"][..], &[]] {
        let head = head("HTTP/1.1 200 OK", lines);
        assert_eq!(values(&answered(&head, false, &TO_1_1), "transfer-encoding"), ["chunked"], "{head:?}");
        let written = answered(&head, false, &TO_1_0);
        assert!(values(&written, "transfer-encoding").is_empty(), "{written:?}");
        assert_eq!(values(&written, "connection"), ["close"], "{written:?}");
    }
}

#[test]
fn a_connection_may_carry_another_exchange_when_both_sides_say_so() {
    let options = |lines: &[&str]| with_request(get(lines).as_bytes(), |request| request.unwrap().options);
    let rows: [(&[&str], bool, bool); 14] = [
        // The Connection lines, and whether HTTP/1.0 and HTTP/1.1 stay.
        (&[], false, true),
        (&["Connection: close"], false, false),
        (&["connection:CLOSE"], false, false),
        (&["Connection: keep-alive"], true, true),
        (&["Connection: Keep-Alive"], true, true),
        (&["Connection: keep-alive, close"], false, false),
        (&["Connection: close, keep-alive"], false, false),
        (&["Connection: keep-alive", "Connection: close"], false, false),
        (&["Connection: x,,\tclose ,y"], false, false),
        (&["Connection: x"], false, true),
        (&["Connection: closed"], false, true),
        (&["Connection: not-close"], false, true),
        (&["Keep-Alive: timeout=5"], false, true),
        (&["Proxy-Connection: keep-alive"], false, true),
    ];
    for (lines, in_1_0, in_1_1) in rows {
        let options = options(lines);
        assert_eq!(client_may_stay(Version::Http10, options), in_1_0, "1.0 {lines:?}");
        assert_eq!(client_may_stay(Version::Http11, options), in_1_1, "1.1 {lines:?}");
        for framing in [BodyFraming::None, BodyFraming::Length(5), BodyFraming::Chunked] {
            assert_eq!(backend_may_be_reused(Version::Http10, options, framing), in_1_0, "1.0 {lines:?}");
            assert_eq!(backend_may_be_reused(Version::Http11, options, framing), in_1_1, "1.1 {lines:?}");
        }
        assert!(!backend_may_be_reused(Version::Http11, options, BodyFraming::UntilClose), "{lines:?}");
    }
    let upgrade = options(&["Connection: upgrade"]);
    assert!(upgrade.upgrade && !upgrade.close && !upgrade.keep_alive && !upgrade.names_fields);
}
