//! The one coding, and its trailers (RFC 9112 section 7.1).

use super::{SYNTAX, show, without_text};
use crate::http::{CHUNK_HEAD_ROOM, ChunkDecoder, Flaw, forward_trailers, write_chunk_head};

const LIMIT: usize = 1024;

/// What a decoder makes of bytes: the data, how many of the bytes were used, and whether the body has ended.
pub(super) type Outcome = (Vec<u8>, usize, bool);

/// Decodes these pieces one after the other, with their trailers.
pub(super) fn decode<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Result<(Outcome, Vec<u8>), Flaw> {
    let mut decoder = ChunkDecoder::new(LIMIT);
    let (mut data, mut used, mut ended) = (Vec::new(), 0, false);
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let decoded = decoder.decode(&mut bytes)?;
        assert!(decoded.used <= bytes.len(), "more used than there was: {decoded:?}");
        assert!(decoded.data.end <= decoded.used, "data from beyond: {decoded:?}");
        data.extend_from_slice(&bytes[decoded.data]);
        used += decoded.used;
        ended = decoded.ended;
        assert!(ended || decoded.used == bytes.len(), "bytes left, and the body has not ended");
    }
    Ok(((data, used, ended), decoder.trailers().to_vec()))
}

/// The verdict on a body in one piece, which byte by byte must be the same.
fn verdict(body: &[u8]) -> Result<(Outcome, Vec<u8>), Flaw> {
    let whole = decode([body]);
    assert_eq!(decode(body.chunks(1)), whole, "byte by byte: {}", show(body));
    whole
}

#[test]
fn a_chunk_may_be_written_in_these_ways() {
    let rows: [(&str, &str); 28] = [
        ("0\r\n\r\n", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("1\r\nh\r\n1\r\ne\r\n3\r\nllo\r\n0\r\n\r\n", "hello"),
        ("a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("0B\r\n0123456789a\r\n0\r\n\r\n", "0123456789a"),
        ("11\r\n0123456789abcdef0\r\n0\r\n\r\n", "0123456789abcdef0"),
        ("0000000000000005\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5\r\nhello\r\n0000000000000000\r\n\r\n", "hello"),
        // Data that looks like what is around it.
        ("5\r\n\r\n0\r\n\r\n0\r\n\r\n", "\r\n0\r\n"),
        ("7\r\n0\r\n\r\n5\r\r\n0\r\n\r\n", "0\r\n\r\n5\r"),
        ("5;a\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a=b\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a=\"b\"\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a=\"\"\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a=\";=,\"\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a=\"b\\\"c\\\\\"\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a=\"b c\td\u{e4}\\\u{e4}\"\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a;b=c;d=\"e\";f\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a=\"b\";c\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5 ;a\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5; a\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a ;b\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5;a=b ;c\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5\t;\ta\t=\tb\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5 ; a = b ; c = \"d\" ;e\r\nhello\r\n0\r\n\r\n", "hello"),
        ("5\r\nhello\r\n0;last\r\n\r\n", "hello"),
        ("5\r\nhello\r\n000 ; last = \"1\"\r\n\r\n", "hello"),
    ];
    for (body, data) in rows {
        let expected = (data.as_bytes().to_vec(), body.len(), true);
        assert_eq!(verdict(body.as_bytes()), Ok((expected.clone(), Vec::new())), "{body:?}");
        // What stands behind the end is nobody's, whatever it is.
        for behind in ["\r\n", "\n", "0", "GET / HTTP/1.1\r\n\r\n", "\0"] {
            let whole = format!("{body}{behind}");
            assert_eq!(verdict(whole.as_bytes()), Ok((expected.clone(), Vec::new())), "{whole:?}");
        }
    }
}

#[test]
fn a_faulty_chunk_is_refused() {
    let rows: [&[u8]; 71] = [
        b"\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"\t5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"5\t\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"-0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"x5\r\nhello\r\n0\r\n\r\n",
        b"5h\r\nhello\r\n0\r\n\r\n",
        b"g\r\nhello\r\n0\r\n\r\n",
        b"5 5\r\nhello\r\n0\r\n\r\n",
        b"5_\r\nhello\r\n0\r\n\r\n",
        b"5.0\r\nhello\r\n0\r\n\r\n",
        b"5,\r\nhello\r\n0\r\n\r\n",
        b"5=a\r\nhello\r\n0\r\n\r\n",
        b"\"5\"\r\nhello\r\n0\r\n\r\n",
        b";a\r\nhello\r\n0\r\n\r\n",
        b"\0\r\nhello\r\n0\r\n\r\n",
        b"5\0\r\nhello\r\n0\r\n\r\n",
        b"\xef\xbc\x95\r\nhello\r\n0\r\n\r\n",
        // Seventeen digits, even if they are zeros; and a size whose upper digits would be lost.
        b"00000000000000005\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n00000000000000000\r\n\r\n",
        // Line ends.
        b"5\nhello\r\n0\r\n\r\n",
        b"5\rhello\r\n0\r\n\r\n",
        b"5\r\r\nhello\r\n0\r\n\r\n",
        b"5\n\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhello\r\r\n0\r\n\r\n",
        b"5\r\nhello \r\n0\r\n\r\n",
        b"5\r\nhello\r\n\r\n0\r\n\r\n",
        b"4\r\nhello\r\n0\r\n\r\n",
        b"6\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\n\r\n",
        b"5\r\nhello\r\n0\r\n\n",
        b"5\r\nhello\r\n0\n\n",
        b"5\r\nhello\r\n0\r\r\n\r\n",
        // Extensions.
        b"5;\r\nhello\r\n0\r\n\r\n",
        b"5;;a\r\nhello\r\n0\r\n\r\n",
        b"5;=a\r\nhello\r\n0\r\n\r\n",
        b"5;a=\r\nhello\r\n0\r\n\r\n",
        b"5;a==b\r\nhello\r\n0\r\n\r\n",
        b"5;a=;b\r\nhello\r\n0\r\n\r\n",
        b"5;a b\r\nhello\r\n0\r\n\r\n",
        b"5;a=b c\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\"c\r\nhello\r\n0\r\n\r\n",
        b"5;a\"b\"\r\nhello\r\n0\r\n\r\n",
        b"5;\xe4\r\nhello\r\n0\r\n\r\n",
        b"5;a\nb\r\nhello\r\n0\r\n\r\n",
        b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        b"5;a\0\r\nhello\r\n0\r\n\r\n",
        b"5;a=b\x01\r\nhello\r\n0\r\n\r\n",
        b"5;a=\x7f\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\x01\"\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\\\x01\"\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\nc\"\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\r\nhello\r\n0\r\n\r\n",
        b"5;a=\"b\\\r\n\"\r\nhello\r\n0\r\n\r\n",
        b"5 a\r\nhello\r\n0\r\n\r\n",
        b"5;a \r\nhello\r\n0\r\n\r\n",
        b"5;a=b \r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0;a\n\r\n",
        // Trailer sections that no continuation can mend.
        b"5\r\nhello\r\n0\r\nX: y\n\r\n",
        b"5\r\nhello\r\n0\r\nX: y\rz\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: \0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: y\r\n\n",
        b"5\r\nhello\r\n0\r\n\rX: y\r\n\r\n",
    ];
    for body in rows {
        let Err(flaw) = verdict(body) else { panic!("passes: {}", show(body)) };
        assert!(matches!(flaw, Flaw::Framing(_) | Flaw::Syntax(_)), "{flaw:?}: {}", show(body));
    }
}

#[test]
fn a_size_that_no_memory_could_hold_is_only_a_number() {
    for size in ["ffffffffffffffff", "FFFFFFFFFFFFFFFF", "7fffffffffffffff", "8000000000000000"] {
        let body = format!("{size}\r\nhello");
        assert_eq!(verdict(body.as_bytes()), Ok(((b"hello".to_vec(), body.len(), false), Vec::new())), "{size}");
    }
}

#[test]
fn what_surrounds_the_data_is_bounded() {
    let long = "y".repeat(64 * 1024);
    let rows = [
        (format!("5;{long}"), false),
        (format!("5;a=\"{long}"), false),
        (format!("5{}", " ".repeat(64 * 1024)), false),
        (format!("5{}", ";a".repeat(32 * 1024)), false),
        ("1;ext=y\r\nx\r\n".repeat(8 * 1024), false), // many small ones add up
        (format!("5;{}\r\nhello\r\n0\r\n\r\n", "y".repeat(16 * 1024)), true),
        (format!("5;{}\r\nhello\r\n0\r\n\r\n", "y".repeat(16 * 1024 + 1)), false),
        (format!("0\r\n{:y<1020}\r\n\r\n", "X: "), true),
        (format!("0\r\n{:y<1021}\r\n\r\n", "X: "), false),
        (format!("0\r\n{:y<1020}\r\n\r\n{long}", "X: "), true),
        (format!("0\r\nX: {long}"), false),
        (format!("0\r\n{}", "X: y\r\n".repeat(1024)), false),
    ];
    for (body, fine) in rows {
        assert_eq!(verdict(body.as_bytes()).is_ok(), fine, "{} bytes: {body:.40}...", body.len());
    }
    for limit in [0, 1, 2] {
        let mut decoder = ChunkDecoder::new(limit);
        let ended: Vec<bool> = b"0\r\n\r\n".iter().map(|&byte| decoder.decode(&mut [byte]).unwrap().ended).collect();
        assert_eq!(ended, [false, false, false, false, true], "no trailers, and a limit of {limit}");
    }
}

#[test]
fn a_trailer_section_is_kept_as_it_came() {
    let rows = [
        ("0\r\n\r\n", ""),
        ("0\r\nX: y\r\n\r\n", "X: y\r\n\r\n"),
        ("1\r\na\r\n0\r\nX: y\r\nZ:\r\n\r\n", "X: y\r\nZ:\r\n\r\n"),
        ("0;a\r\nX: \u{e4}\r\n\r\nGET", "X: \u{e4}\r\n\r\n"),
    ];
    for (body, section) in rows {
        let (_, trailers) = verdict(body.as_bytes()).unwrap();
        assert_eq!(trailers, section.as_bytes(), "{body:?}");
    }
}

/// A trailer section as it goes on.
fn passed_on(section: &[u8], named: &[&str]) -> Result<String, Flaw> {
    let named: Vec<Box<str>> = named.iter().map(|&name| Box::from(name)).collect();
    let mut out = Vec::new();
    forward_trailers(section, &named, &mut out).map_err(without_text)?;
    Ok(super::text_of(out))
}

#[test]
fn trailers_go_on_without_those_that_would_steer_anything() {
    assert_eq!(passed_on(b"", &[]).as_deref(), Ok("\r\n"));
    let section = b"X-Sum:1\r\nx-two: \t2 \r\nX-Two: 3\r\nX-Empty:\r\n\r\n";
    assert_eq!(passed_on(section, &[]).as_deref(), Ok("X-Sum: 1\r\nx-two: 2\r\nX-Two: 3\r\nX-Empty: \r\n\r\n"));
    assert_eq!(passed_on(section, &["x-TWO", "y"]).as_deref(), Ok("X-Sum: 1\r\nX-Empty: \r\n\r\n"));
    let stay_here = [
        "Content-Length: 5",
        "transfer-encoding: chunked",
        "Trailer: X",
        "Host: b",
        "Connection: close",
        "Keep-Alive: timeout=1",
        "Proxy-Connection: close",
        "TE: trailers",
        "Upgrade: websocket",
        "Expect: 100-continue",
        "Max-Forwards: 1",
        "Authorization: Basic YTpi",
        "Proxy-Authorization: Basic YTpi",
        "WWW-Authenticate: Basic",
        "Proxy-Authenticate: Basic",
        "Cookie: a=b",
        "Set-Cookie: a=b",
        "Content-Encoding: gzip",
        "Content-Type: text/html",
        "Content-Range: bytes 0-1/2",
        "Range: bytes=0-1",
        "If-Match: *",
        "Cache-Control: no-store",
        "Age: 1",
        "Date: now",
        "Expires: 0",
        "Location: /",
        "Vary: *",
        "Via: 1.1 x",
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: b",
        "Forwarded: for=1.2.3.4",
        "X-Request-Id: x",
    ];
    for line in stay_here {
        let section = format!("A: 1\r\n{line}\r\nB: 2\r\n\r\n");
        assert_eq!(passed_on(section.as_bytes(), &[]).as_deref(), Ok("A: 1\r\nB: 2\r\n\r\n"), "{line}");
    }
}

#[test]
fn a_trailer_section_that_does_not_consist_of_field_lines_is_refused() {
    let rows = ["X : y", " X: y", "X: y\r\n z", "X", ": y", "X Y: z", "\"X\": y", "5\r\nhello\r\n0", "GET / HTTP/1.1"];
    for lines in rows {
        assert_eq!(passed_on(format!("{lines}\r\n\r\n").as_bytes(), &[]), Err(SYNTAX), "{lines:?}");
    }
    assert_eq!(passed_on(format!("{}\r\n", "X: y\r\n".repeat(256)).as_bytes(), &["x"]).as_deref(), Ok("\r\n"));
    assert_eq!(passed_on(format!("{}\r\n", "X: y\r\n".repeat(257)).as_bytes(), &["x"]), Err(Flaw::TooManyFields));
}

#[test]
fn a_chunk_head_is_lower_case_hex_without_leading_zeros() {
    for size in (0..=300).chain((4..usize::BITS).flat_map(|bit| [(1 << bit) - 1, 1 << bit])).chain([usize::MAX]) {
        let mut room = [b'!'; CHUNK_HEAD_ROOM];
        assert_eq!(write_chunk_head(size, &mut room), format!("{size:x}\r\n").as_bytes(), "{size}");
    }
}
