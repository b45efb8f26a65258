//! Answers of our own: what a client gets when no backend's answer can be had.

use super::desk::Desk;
use crate::error::{Fault, Reason, phrase};
use crate::http::{Persistence, close_fields};
use std::io::Write;

/// Whether the client will read a body behind the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// It will.
    Sent,
    /// It asked with HEAD.
    Omitted,
}

/// Writes the answer to a fault into `out`: a line that names the reason word and the request's id. Returns how many
/// bytes of a body are among it.
pub(super) fn to_fault(
    fault: &Fault,
    id: &[u8],
    persistence: Persistence,
    body: Body,
    desk: &mut Desk,
    out: &mut Vec<u8>,
) -> u64 {
    let status = fault.reason.status();
    let mut line = format!("{status} {}", fault.reason.word());
    if let Some(detail) = fault.detail {
        line.push_str(": ");
        line.push_str(detail);
    }
    if !id.is_empty() {
        line.push_str(" (request ");
        line.push_str(&String::from_utf8_lossy(id));
        line.push(')');
    }
    line.push('\n');
    // A second: the queue of a backend that is restarting is over by then, an address may ask again, and the client is
    // not kept waiting long.
    let retry = if matches!(status, 429 | 503) { "Retry-After: 1\r\n" } else { "" };
    write(status, retry, &line, persistence, body, desk, out)
}

/// Writes the answer to a request that may not be forwarded any further (RFC 9110 section 7.6.2). Returns its status and
/// how many bytes of a body are among it.
pub(super) fn to_last_hop(
    is_options: bool,
    id: &[u8],
    persistence: Persistence,
    desk: &mut Desk,
    out: &mut Vec<u8>,
) -> (u16, u64) {
    if is_options {
        (200, write(200, "", "", persistence, Body::Sent, desk, out))
    } else {
        let fault = Fault { reason: Reason::NotImplemented, detail: Some("TRACE ends here and is not answered") };
        (501, to_fault(&fault, id, persistence, Body::Sent, desk, out))
    }
}

fn write(
    status: u16,
    fields: &str,
    body: &str,
    persistence: Persistence,
    with_body: Body,
    desk: &mut Desk,
    out: &mut Vec<u8>,
) -> u64 {
    let content_type = if body.is_empty() { "" } else { "Content-Type: text/plain; charset=utf-8\r\n" };
    let close = str::from_utf8(close_fields(persistence, false)).unwrap_or_default();
    let sent_body = if with_body == Body::Sent { body } else { "" };
    write!(
        out,
        "HTTP/1.1 {status} {}\r\nDate: {}\r\n{content_type}Content-Length: {}\r\n{fields}{close}\r\n{sent_body}",
        phrase(status),
        desk.date(),
        body.len(),
    )
    .expect("writing to a Vec can't fail");
    sent_body.len() as u64
}
