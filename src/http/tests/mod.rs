//! The room, row by row: every rule that can be decided from bytes alone, and properties that hold for any bytes.
//!
//! No socket is opened here. What takes two parties and a clock stands in the files under `tests/` of the crate.
//!
//! - `head`: where a head ends, and what its lines may hold;
//! - `target`: whom and what a request may ask for;
//! - `fields`: which names mean something;
//! - `framing`: how the end of a body is known;
//! - `chunked`: the one coding, and its trailers;
//! - `request`, `response`: what goes on of either;
//! - `pick`: single values out of a request;
//! - `properties`: what holds for messages that nobody thought of.

mod chunked;
mod fields;
mod framing;
mod head;
mod pick;
mod properties;
mod request;
mod response;
mod target;

use super::{
    Answer, Claims, FieldTable, Flaw, ForwardedRequest, HeadScan, Limits, Persistence, Request, Response, Sender,
    Version, forward_interim, forward_request, forward_response,
};
use std::net::{IpAddr, Ipv4Addr};

const LIMITS: Limits = Limits { head_bytes: 16 * 1024, target_bytes: 8 * 1024, fields: 100 };

/// What a flaw looks like without its text, so that a row need not repeat it.
const SYNTAX: Flaw = Flaw::Syntax("");
const FRAMING: Flaw = Flaw::Framing("");

fn without_text(flaw: Flaw) -> Flaw {
    if let Flaw::Syntax(_) = flaw {
        SYNTAX
    } else if let Flaw::Framing(_) = flaw {
        FRAMING
    } else {
        flaw
    }
}

/// Bytes as a failing test should show them.
fn show(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().escape_ascii().to_string()
}

/// Reads a request head in one piece and hands the verdict on, so that a row can ask whatever it likes.
fn with_request<R>(bytes: &[u8], ask: impl FnOnce(Result<Request<'_, '_>, Flaw>) -> R) -> R {
    let mut scan = HeadScan::of_request();
    let mut table = FieldTable::default();
    match scan.advance(bytes) {
        Ok(Some(end)) => ask(Request::read(&bytes[..end], &mut table, LIMITS)),
        Ok(None) => panic!("a head without an end: {}", show(bytes)),
        Err(flaw) => ask(Err(flaw)),
    }
}

/// The same for a response head; `to_head`: it answers a HEAD request.
fn with_response<R>(bytes: &[u8], to_head: bool, ask: impl FnOnce(Result<Response<'_, '_>, Flaw>) -> R) -> R {
    let mut scan = HeadScan::strict();
    let mut table = FieldTable::default();
    match scan.advance(bytes) {
        Ok(Some(end)) => ask(Response::read(&bytes[..end], &mut table, to_head)),
        Ok(None) => panic!("a head without an end: {}", show(bytes)),
        Err(flaw) => ask(Err(flaw)),
    }
}

fn refusal_of_request(bytes: impl AsRef<[u8]>) -> Option<Flaw> {
    with_request(bytes.as_ref(), |verdict| verdict.err()).map(without_text)
}

fn refusal_of_response(bytes: impl AsRef<[u8]>) -> Option<Flaw> {
    with_response(bytes.as_ref(), false, |verdict| verdict.err()).map(without_text)
}

/// A GET with these lines, each without its line end.
fn get(lines: &[&str]) -> String {
    head("GET / HTTP/1.1", &[&["Host: a"], lines].concat())
}

/// A head of a start line and these lines.
fn head(start: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{start}\r\n{lines}\r\n")
}

const STRANGER: Sender<'_> =
    Sender { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), claims: Claims::Replaced, fresh_id: "fresh", via: true };
const PROXY_OF_OURS: Sender<'_> = Sender { claims: Claims::Extended, ..STRANGER };

/// The head with which this request goes on to a backend without a prefix.
fn forwarded(bytes: impl AsRef<[u8]>, sender: &Sender<'_>) -> String {
    let head = with_request(bytes.as_ref(), |verdict| {
        let request = verdict.unwrap_or_else(|flaw| panic!("{flaw:?}: {}", show(&bytes)));
        joined(&forward_request(&request, sender), "", "backend:81")
    });
    text_of(head)
}

fn joined(head: &ForwardedRequest, prefix: &str, authority: &str) -> Vec<u8> {
    head.pieces(prefix, authority).concat()
}

const TO_1_1: Answer<'_> =
    Answer { version: Version::Http11, persistence: Persistence::Stays, date: "a fine day", via: true, cookie: None };
const TO_1_0: Answer<'_> = Answer { version: Version::Http10, persistence: Persistence::Closes, ..TO_1_1 };

/// The head with which this response goes on to a client.
fn answered(bytes: impl AsRef<[u8]>, to_head: bool, answer: &Answer<'_>) -> String {
    let mut out = Vec::new();
    with_response(bytes.as_ref(), to_head, |verdict| {
        let response = verdict.unwrap_or_else(|flaw| panic!("{flaw:?}: {}", show(&bytes)));
        if response.is_interim() {
            forward_interim(&response, answer.via, &mut out);
        } else {
            forward_response(&response, answer, &mut out);
        }
    });
    text_of(out)
}

/// One character a byte, so that obs-text survives.
fn text_of(bytes: Vec<u8>) -> String {
    bytes.into_iter().map(char::from).collect()
}

/// All values of a field in a head that has been written by us: `name: value` and CRLF, nothing else.
fn values<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    fields(head).into_iter().filter(|field| field.0.eq_ignore_ascii_case(name)).map(|field| field.1).collect()
}

/// All fields of such a head.
fn fields(head: &str) -> Vec<(&str, &str)> {
    let lines = head.strip_suffix("\r\n\r\n").unwrap_or_else(|| panic!("no empty line ends {head:?}"));
    let split = |line| str::split_once(line, ": ").unwrap_or_else(|| panic!("{line:?} in {head:?}"));
    lines.split("\r\n").skip(1).map(split).collect()
}
