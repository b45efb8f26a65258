//! What is told of an exchange when it has ended.

use super::desk::Desk;
use crate::access_log::Outcome;
use crate::balance::Backend;
use crate::error::Reason;
use crate::http::{ForwardedRequest, Request, Version};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What was asked for, as far as it was understood.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Named<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) version: Option<Version>,
    pub(super) id: &'a [u8],
    referer: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
}

impl<'a> Named<'a> {
    /// A request that goes no further than here.
    pub(super) fn of_request(request: &Request<'_, 'a>, id: &'a [u8], desk: &Desk) -> Named<'a> {
        let field = |name| desk.tells_of_clients().then(|| request.field(name)).flatten();
        Named {
            method: request.method.as_bytes(),
            target: request.path().as_bytes(),
            version: Some(request.version),
            id,
            referer: field("referer"),
            user_agent: field("user-agent"),
        }
    }

    /// A request that went on with this head, which holds all that is told.
    pub(super) fn of_head(head: &'a ForwardedRequest, version: Version, desk: &Desk) -> Named<'a> {
        let field = |name| desk.tells_of_clients().then(|| head.field(name)).flatten();
        Named {
            method: head.method(),
            target: head.target(),
            version: Some(version),
            id: head.id(),
            referer: field("referer"),
            user_agent: field("user-agent"),
        }
    }

    /// A request that was refused, with what was understood of its first line.
    pub(super) fn of_line(line: Option<(&'a str, &'a str, Version)>, id: &'a [u8]) -> Named<'a> {
        let Some((method, target, version)) = line else { return Named { id, ..Named::default() } };
        Named { method: method.as_bytes(), target: target.as_bytes(), version: Some(version), id, ..Named::default() }
    }
}

/// How much of a body has come in and gone out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carried {
    /// From the client.
    pub(super) bytes_in: u64,
    /// To the client.
    pub(super) bytes_out: u64,
}

/// Notes for the books, made as things happen.
#[derive(Clone)]
pub(super) struct Record {
    client: SocketAddr,
    began: Instant,
    /// Of the final head that went out; 0 before.
    pub(super) status: u16,
    /// Whoever was asked last.
    pub(super) backend: Option<Arc<Backend>>,
    /// How many backends were asked.
    pub(super) tries: u32,
    /// How long it waited for a place at a backend.
    pub(super) queued: Duration,
    /// How long the last connection took to come about.
    pub(super) connect: Option<Duration>,
    /// From the request's last byte to the head of the answer; none if the answer came before.
    pub(super) first_byte: Option<Duration>,
    /// From the request's first byte to the head of the answer.
    pub(super) head: Option<Duration>,
}

impl Record {
    /// Nothing has been done yet for a request whose first byte came then.
    pub(super) fn new(client: SocketAddr, began: Instant) -> Record {
        Record {
            client,
            began,
            status: 0,
            backend: None,
            tries: 0,
            queued: Duration::ZERO,
            connect: None,
            first_byte: None,
            head: None,
        }
    }

    /// The head of the answer has come; this is when the request's last byte had gone, if it had.
    pub(super) fn note_head(&mut self, sent: Option<Instant>, now: Instant) {
        self.first_byte = sent.map(|sent| now.saturating_duration_since(sent));
        self.head = Some(now.saturating_duration_since(self.began));
    }

    /// Counts the exchange out of the books, with a line in the log.
    pub(super) fn count_out(&self, named: Named<'_>, carried: Carried, reason: Option<Reason>, desk: &mut Desk) {
        // Once a head has gone out, its status is what the client got, whatever came after.
        let status = match (self.status, reason) {
            (0, Some(reason)) => reason.status(),
            (status, _) => status,
        };
        let outcome = Outcome {
            ended: SystemTime::now(),
            client: self.client,
            method: named.method,
            target: named.target,
            version: named.version,
            referer: named.referer,
            user_agent: named.user_agent,
            id: named.id,
            status,
            bytes_in: carried.bytes_in,
            bytes_out: carried.bytes_out,
            queued: Some(self.queued).filter(|queued| !queued.is_zero()),
            connect: self.connect,
            first_byte: self.first_byte,
            head: self.head,
            total: self.began.elapsed(),
            backend: self.backend.as_ref().map(|backend| &*backend.name),
            tries: self.tries,
            reason,
        };
        desk.count_ended(&outcome, self.backend.as_deref());
    }
}
