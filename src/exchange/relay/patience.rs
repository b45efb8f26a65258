//! What an exchange waits for, until when, and what it means if that does not come.

use super::{Exchange, Said};
use crate::error::Reason;
use crate::exchange::desk::Desk;
use crate::exchange::stop::Stop;
use crate::exchange::upload::Sending;
use crate::metrics::WaitsFor;
use crate::net::Connection;
use std::time::Instant;

impl Exchange {
    /// A turn begins: what it may have waited for of the client is here, or more of a small body is.
    pub(super) fn collect(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<(), Stop> {
        self.pace.resume(desk.now);
        let outcome = self.upload.collect(client, desk);
        if let Err(Stop::NotYet(_)) = outcome {
            self.wait_for_client(desk)?;
        }
        outcome
    }

    /// A turn ends, to wait for the client, if that has not been slower than it may be.
    pub(super) fn wait_for_client(&mut self, desk: &Desk) -> Result<(), Stop> {
        let bytes = self.upload.carried() + self.download.delivered();
        let load = &self.snapshot.config.load;
        if self.pace.is_too_slow(bytes, load.lowest_rate, load.rate_grace) {
            return Err(Reason::ClientTooSlow.into());
        }
        self.pace.wait_for_client(desk.now);
        Ok(())
    }

    /// Whether something has been waited for too long.
    pub(super) fn overdue(&self, desk: &Desk) -> Option<Reason> {
        let (deadline, reason) = self.deadline();
        (desk.now >= deadline).then_some(reason)
    }

    /// Until when this exchange waits for what it waits for, and what it means if that does not come.
    pub(in crate::exchange) fn deadline(&self) -> (Instant, Reason) {
        let timeouts = &self.snapshot.config.timeouts;
        if let Some(until) = self.upload.collects_until() {
            return (until, Reason::ClientBodyTimeout);
        }
        if let Some(waiting) = &self.waiting {
            return (waiting.joined() + timeouts.queue, Reason::QueueTimeout);
        }
        if let Some(leg) = self.leg.as_ref().filter(|leg| leg.is_connecting()) {
            return (leg.since + timeouts.connect, Reason::BackendConnectTimeout);
        }
        // Also of interim responses: a backend whose answer nobody takes is not late with it.
        if self.reader_is_slow() {
            return (self.progress + timeouts.response_body, Reason::ClientBodyTimeout);
        }
        if self.said == Said::Head {
            return (self.progress + timeouts.response_body, Reason::BackendBodyTimeout);
        }
        if self.upload.state == Sending::Going {
            let reason = if self.awaits_backend() { Reason::BackendBodyTimeout } else { Reason::ClientBodyTimeout };
            return (self.progress + timeouts.request_body, reason);
        }
        (self.upload.answer_is_due_from() + timeouts.response_head, Reason::BackendHeadTimeout)
    }

    /// The client does not take what there is of its answer: that is waited for, whatever else is.
    fn reader_is_slow(&self) -> bool {
        self.download.waits_for_sink()
    }

    /// It is the backend that is waited for, and not the client: to take what there is, or to send the rest of its body.
    pub(super) fn awaits_backend(&self) -> bool {
        if self.reader_is_slow() {
            return false;
        }
        // A client that asked for a 100 waits for the backend as we do.
        let is_asked = self.traits.awaits_continue && self.said != Said::Head && self.upload.is_whole();
        self.upload.state != Sending::Going || self.upload.waits_for_backend() || is_asked
    }

    /// What it waits for while it is parked: of several things, the one whose deadline counts.
    pub(in crate::exchange) fn waits_for(&self) -> WaitsFor {
        if self.waiting.is_some() {
            return WaitsFor::Queue;
        }
        match (self.reader_is_slow(), self.deadline().1 == Reason::ClientBodyTimeout) {
            (true, _) => WaitsFor::SlowReader,
            (false, true) => WaitsFor::Body,
            (false, false) => WaitsFor::Backend,
        }
    }
}
