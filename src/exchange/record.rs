//! What is told of an exchange when it has ended.

use super::desk::Desk;
use crate::access_log::Outcome;
use crate::error::Reason;
use crate::http::ForwardedRequest;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Notes for the books, made as things happen.
#[derive(Clone)]
pub(super) struct Record {
    client: SocketAddr,
    began: Instant,
    /// Of the final head that went out; 0 before.
    pub(super) status: u16,
    /// Whoever was asked last.
    pub(super) backend: Option<Arc<str>>,
    /// How many backends were asked.
    pub(super) tries: u32,
    /// How long it waited for a place at a backend.
    pub(super) queued: Duration,
    /// How long the last connection took to come about.
    pub(super) connect: Option<Duration>,
    /// From the request's last byte to the first head of an answer.
    pub(super) wait: Option<Duration>,
}

impl Record {
    pub(super) fn new(client: SocketAddr, desk: &Desk) -> Record {
        Record {
            client,
            began: desk.now,
            status: 0,
            backend: None,
            tries: 0,
            queued: Duration::ZERO,
            connect: None,
            wait: None,
        }
    }

    /// Counts the exchange out of the books, with a line in the log.
    pub(super) fn count_out(&self, head: &ForwardedRequest, bytes: u64, reason: Option<Reason>, desk: &mut Desk) {
        // Once a head has gone out, its status is what the client got, whatever came after.
        let status = match (self.status, reason) {
            (0, Some(reason)) => reason.status(),
            (status, _) => status,
        };
        desk.count_ended(&Outcome {
            ended: SystemTime::now(),
            client: self.client,
            method: head.method(),
            target: head.target(),
            id: head.id(),
            status,
            bytes,
            queued: Some(self.queued).filter(|queued| !queued.is_zero()),
            connect: self.connect,
            wait: self.wait,
            total: self.began.elapsed(),
            backend: self.backend.as_deref(),
            tries: self.tries,
            reason,
        });
    }
}
