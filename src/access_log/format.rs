//! What a line looks like.
//!
//! `docs/LOGS.md` explains every field of every format, and a test holds that page to what is written here. Fields of the
//! JSON are only ever added.

use super::escape;
use super::{Clock, Outcome};
use crate::config::AccessLogFormat;
use crate::http::{Version, write_address, write_decimal};
use std::fmt::{Arguments, Display};
use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

/// Appends the line for one outcome.
pub fn write_line(format: AccessLogFormat, outcome: &Outcome<'_>, clock: &mut Clock, out: &mut Vec<u8>) {
    match format {
        AccessLogFormat::Off => return,
        AccessLogFormat::Text => text(outcome, clock, out),
        AccessLogFormat::Combined => combined(outcome, clock, out),
        AccessLogFormat::Json => json(outcome, clock, out),
    }
    out.push(b'\n');
}

/// For people.
///
/// ```text
/// 2026-01-02T03:04:05.678Z 127.0.0.1:50000 "GET /x" 200 29B 1.2ms (connect 0.1ms wait 0.9ms) 127.0.0.1:8081/b8081 id=8d1f
/// ```
fn text(outcome: &Outcome<'_>, clock: &mut Clock, out: &mut Vec<u8>) {
    clock.write_milliseconds(outcome.ended, out);
    out.push(b' ');
    socket(outcome.client, out);
    out.extend_from_slice(b" \"");
    request(outcome, out);
    out.extend_from_slice(b"\" ");
    write_decimal(outcome.status.into(), out);
    out.push(b' ');
    write_decimal(outcome.bytes_out, out);
    out.extend_from_slice(b"B ");
    milliseconds(outcome.total, out);
    let parts = [("queue", outcome.queued), ("connect", outcome.connect), ("wait", outcome.first_byte)];
    let known = parts.into_iter().filter_map(|(name, duration)| Some((name, duration?)));
    for (nth, (name, duration)) in known.clone().enumerate() {
        out.extend_from_slice(if nth == 0 { b" (" } else { b" " });
        out.extend_from_slice(name.as_bytes());
        out.push(b' ');
        milliseconds(duration, out);
    }
    if known.count() > 0 {
        out.push(b')');
    }
    out.push(b' ');
    out.extend_from_slice(outcome.backend.unwrap_or("-").as_bytes());
    if outcome.tries > 1 {
        write(out, format_args!(" tries={}", outcome.tries));
    }
    if outcome.bytes_in > 0 {
        write(out, format_args!(" in={}B", outcome.bytes_in));
    }
    if !outcome.id.is_empty() {
        out.extend_from_slice(b" id=");
        escape::plain(outcome.id, out);
    }
    if let Some(reason) = outcome.reason {
        write(out, format_args!(" {}", reason.word()));
    }
}

/// What Apache and nginx call combined, and behind it what they have no place for.
///
/// ```text
/// 127.0.0.1 - - [02/Jan/2026:03:04:05 +0000] "GET /x HTTP/1.1" 200 29 "-" "curl/8.5.0" id=8d1f backend=127.0.0.1:8081/b8081 tries=1 in=0 queue=- connect=104 first_byte=911 total=1204 reason=-
/// ```
fn combined(outcome: &Outcome<'_>, clock: &mut Clock, out: &mut Vec<u8>) {
    write_address(outcome.client.ip(), out);
    out.extend_from_slice(b" - - [");
    clock.write_common(outcome.ended, out);
    out.extend_from_slice(b"] \"");
    request(outcome, out);
    out.extend_from_slice(match outcome.version {
        None => b"",
        Some(Version::Http10) => b" HTTP/1.0",
        Some(Version::Http11) => b" HTTP/1.1",
    });
    write(out, format_args!("\" {} {}", outcome.status, outcome.bytes_out));
    for field in [outcome.referer, outcome.user_agent] {
        out.extend_from_slice(b" \"");
        escape::plain(field.filter(|value| !value.is_empty()).unwrap_or(b"-"), out);
        out.push(b'"');
    }
    out.extend_from_slice(b" id=");
    escape::plain(outcome.id, out);
    write(out, format_args!(" backend={} tries={}", outcome.backend.unwrap_or("-"), outcome.tries));
    write(out, format_args!(" in={}", outcome.bytes_in));
    let parts = [("queue", outcome.queued), ("connect", outcome.connect), ("first_byte", outcome.first_byte)];
    for (name, duration) in parts {
        write(out, format_args!(" {name}="));
        or(duration.map(|duration| duration.as_micros()), "-", out);
    }
    write(out, format_args!(" total={} reason=", outcome.total.as_micros()));
    or(outcome.reason.map(|reason| reason.word()), "-", out);
}

/// For programs: one object, always with the same fields.
///
/// ```text
/// {"time":"2026-01-02T03:04:05.678901Z","id":"8d1f","client":"127.0.0.1:50000","method":"GET","target":"/x","status":200,"bytes_in":0,"bytes_out":29,"backend":"127.0.0.1:8081/b8081","tries":1,"queue_us":null,"connect_us":104,"first_byte_us":911,"total_us":1204,"reason":null}
/// ```
fn json(outcome: &Outcome<'_>, clock: &mut Clock, out: &mut Vec<u8>) {
    let string = |name: &str, value: Option<&[u8]>, out: &mut Vec<u8>| {
        write(out, format_args!(",\"{name}\":"));
        let Some(value) = value else { return out.extend_from_slice(b"null") };
        out.push(b'"');
        escape::json(value, out);
        out.push(b'"');
    };
    let micros = |name: &str, value: Option<Duration>, out: &mut Vec<u8>| {
        write(out, format_args!(",\"{name}\":"));
        or(value.map(|value| value.as_micros()), "null", out);
    };
    out.extend_from_slice(b"{\"time\":\"");
    clock.write_microseconds(outcome.ended, out);
    out.push(b'"');
    string("id", Some(outcome.id), out);
    out.extend_from_slice(b",\"client\":\"");
    socket(outcome.client, out);
    out.push(b'"');
    let is_understood = !outcome.method.is_empty();
    string("method", is_understood.then_some(outcome.method), out);
    string("target", is_understood.then_some(outcome.target), out);
    write(out, format_args!(",\"status\":{}", outcome.status));
    write(out, format_args!(",\"bytes_in\":{},\"bytes_out\":{}", outcome.bytes_in, outcome.bytes_out));
    string("backend", outcome.backend.map(str::as_bytes), out);
    write(out, format_args!(",\"tries\":{}", outcome.tries));
    micros("queue_us", outcome.queued, out);
    micros("connect_us", outcome.connect, out);
    micros("first_byte_us", outcome.first_byte, out);
    micros("total_us", Some(outcome.total), out);
    string("reason", outcome.reason.map(|reason| reason.word().as_bytes()), out);
    out.push(b'}');
}

/// Method and target, or that they were not understood.
fn request(outcome: &Outcome<'_>, out: &mut Vec<u8>) {
    if outcome.method.is_empty() {
        return out.push(b'-');
    }
    escape::plain(outcome.method, out);
    out.push(b' ');
    escape::plain(outcome.target, out);
}

fn milliseconds(duration: Duration, out: &mut Vec<u8>) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    write_decimal(micros / 1000, out);
    out.push(b'.');
    write_decimal(micros % 1000 / 100, out);
    out.extend_from_slice(b"ms");
}

/// As `SocketAddr` is written, without the formatting machinery where it is IPv4, be it in IPv6's clothes.
fn socket(address: SocketAddr, out: &mut Vec<u8>) {
    match address {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_none() => write(out, format_args!("{address}")),
        SocketAddr::V4(_) | SocketAddr::V6(_) => {
            write_address(address.ip(), out);
            out.push(b':');
            write_decimal(address.port().into(), out);
        }
    }
}

fn or(value: Option<impl Display>, absent: &str, out: &mut Vec<u8>) {
    match value {
        Some(value) => write(out, format_args!("{value}")),
        None => out.extend_from_slice(absent.as_bytes()),
    }
}

fn write(out: &mut Vec<u8>, text: Arguments<'_>) {
    out.write_fmt(text).expect("writing to a Vec can't fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reason;
    use proptest::prelude::*;
    use serde_json::Value;
    use std::time::SystemTime;

    fn line(format: AccessLogFormat, outcome: &Outcome<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        write_line(format, outcome, &mut Clock::default(), &mut out);
        out
    }

    fn outcome<'a>(method: &'a [u8], target: &'a [u8], id: &'a [u8], field: &'a [u8], number: u64) -> Outcome<'a> {
        let duration = Some(Duration::from_micros(number)).filter(|_| number.is_multiple_of(2));
        Outcome {
            ended: SystemTime::UNIX_EPOCH + Duration::from_micros(number >> 14),
            client: ([127, 0, 0, 1], 50000).into(),
            method,
            target,
            version: Some(Version::Http11).filter(|_| number.is_multiple_of(3)),
            referer: Some(field),
            user_agent: Some(field),
            id,
            status: 200,
            bytes_in: number,
            bytes_out: number,
            queued: duration,
            connect: duration,
            first_byte: duration,
            head: duration,
            total: Duration::from_micros(number),
            backend: None,
            tries: 0,
            reason: Some(Reason::BadRequest).filter(|_| number.is_multiple_of(2)),
        }
    }

    /// A byte for each character, as the escape has it.
    fn bytes(value: &Value) -> Vec<u8> {
        value.as_str().unwrap().chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect()
    }

    #[test]
    fn who_came_by_ipv4_is_told_as_such_in_every_format() {
        let rows = [
            ("192.0.2.1:7", "192.0.2.1:7"),
            ("[::ffff:192.0.2.1]:7", "192.0.2.1:7"), // through a listener on [::]
            ("[2001:db8::1]:7", "[2001:db8::1]:7"),
        ];
        for (address, told) in rows {
            let outcome = Outcome { client: address.parse().unwrap(), ..outcome(b"GET", b"/", b"id", b"", 1) };
            let text = |format| String::from_utf8(line(format, &outcome)).unwrap();
            assert!(text(AccessLogFormat::Text).contains(&format!("Z {told} \"GET /\"")), "{address}");
            assert!(text(AccessLogFormat::Json).contains(&format!("\"client\":\"{told}\"")), "{address}");
            let ip = told.strip_suffix(":7").unwrap().trim_matches(['[', ']']);
            assert!(text(AccessLogFormat::Combined).starts_with(&format!("{ip} - - ")), "{address}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_are_a_line_of_json_is_an_object_that_tells_them(
            method in proptest::collection::vec(any::<u8>(), 1..20),
            target: Vec<u8>,
            id: Vec<u8>,
            number: u64,
        ) {
            let line = line(AccessLogFormat::Json, &outcome(&method, &target, &id, b"", number));
            prop_assert!(line.is_ascii());
            prop_assert_eq!(line.iter().position(|&byte| byte == b'\n'), Some(line.len() - 1));
            let value: Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(bytes(&value["method"]), method);
            prop_assert_eq!(bytes(&value["target"]), target);
            prop_assert_eq!(bytes(&value["id"]), id);
            prop_assert_eq!(value["bytes_in"].as_u64(), Some(number));
            prop_assert_eq!(value["total_us"].as_u64(), Some(number));
        }

        #[test]
        fn whatever_the_bytes_are_a_line_is_a_line_and_its_quotes_are_ours(
            method in proptest::collection::vec(any::<u8>(), 1..20),
            target: Vec<u8>,
            field: Vec<u8>,
            number: u64,
        ) {
            for (format, quotes) in [(AccessLogFormat::Text, 2), (AccessLogFormat::Combined, 6)] {
                let line = line(format, &outcome(&method, &target, b"id", &field, number));
                let (end, visible) = line.split_last().unwrap();
                prop_assert_eq!(*end, b'\n');
                prop_assert!(visible.iter().all(|byte| (b' '..=b'~').contains(byte)));
                let plain = String::from_utf8(line).unwrap().replace("\\\\", "").replace("\\\"", "");
                prop_assert_eq!(plain.matches('"').count(), quotes, "{}", plain);
            }
        }
    }
}
