//! After a 101: the same two pumps, for bytes whose meaning is not ours.

use super::desk::Desk;
use super::leg::Leg;
use super::pump::{Halt, Pump};
use super::record::{Carried, Named, Record};
use super::stop::{Stop, Wait};
use crate::error::Reason;
use crate::http::{ForwardedRequest, Version};
use crate::live::Snapshot;
use crate::net::{Connection, Wants};
use std::sync::Arc;
use std::time::Instant;

/// A connection that has left HTTP behind.
pub(super) struct Tunnel {
    pub(super) leg: Leg,
    pub(super) head: ForwardedRequest,
    pub(super) record: Record,
    /// Bytes of the request that it began with.
    pub(super) bytes_in: u64,
    /// What held when it began.
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) up: Direction,
    pub(super) down: Direction,
    /// When a byte last moved, in either direction.
    pub(super) progress: Instant,
}

/// One direction of a tunnel.
pub(super) struct Direction {
    pub(super) pump: Pump,
    /// The source's end has been passed on.
    closed: bool,
}

impl Direction {
    pub(super) fn new(pump: Pump) -> Direction {
        Direction { pump, closed: false }
    }

    /// Moves what there is, and passes the end on behind the last byte. After its end a side is never read again.
    fn run(&mut self, from: &mut Connection, to: &mut Connection, desk: &mut Desk) -> Result<(), Halt> {
        if !self.closed {
            self.pump.run(from, to, desk)?;
            self.closed = true;
            to.shutdown_write().map_err(|_| Halt::SinkLost)?;
        }
        Ok(())
    }
}

impl Tunnel {
    /// `Ok`: both directions have ended, or the tunnel is broken; either way both sockets may go.
    pub(super) fn advance(&mut self, client: &mut Connection, desk: &mut Desk) -> Result<(), Stop> {
        let up = self.up.run(client, &mut self.leg.connection, desk).err();
        desk.leave_a_share();
        let down = self.down.run(&mut self.leg.connection, client, desk).err();
        if desk.moved {
            self.progress = desk.now;
        }
        if up.is_none() && down.is_none() {
            return Ok(());
        }
        // Some resets no read would tell of: the client's, while its bytes wait for a slow backend, and that of a backend
        // that is never read again. Where we have ended our own direction, though, a hang-up may only say that both ended
        // in order, with bytes still to be read: to wait for it there would be to spin.
        if !self.down.closed && client.is_broken() || self.down.closed && self.leg.connection.is_broken() {
            self.break_off(client);
            return Ok(());
        }
        let (client_broken, backend_broken) = match self.down.closed {
            false => (Wants::BROKEN, Wants::NOTHING),
            true => (Wants::NOTHING, Wants::BROKEN),
        };
        let mut wait = Wait { client: client_broken, backend: backend_broken };
        for (halt, towards_backend) in [(up.as_ref(), true), (down.as_ref(), false)] {
            let Some(halt) = halt else { continue };
            let Some((source, sink)) = halt.wants() else {
                self.break_off(client); // an error on either side ends both
                return Ok(());
            };
            wait = wait.and(if towards_backend {
                Wait { client: source, backend: sink }
            } else {
                Wait { client: sink, backend: source }
            });
        }
        if desk.now >= self.deadline() {
            return Err(Reason::TunnelIdle.into());
        }
        Err(Stop::NotYet(wait))
    }

    /// A reset is passed on as one: behind an end in order, what is missing would not be missed.
    fn break_off(&self, client: &Connection) {
        client.reset_on_close();
        self.leg.connection.reset_on_close();
    }

    /// Ends it from here.
    pub(super) fn cut(&self, client: &Connection) {
        if self.up.pump.waits_for_sink() || self.down.pump.waits_for_sink() {
            self.break_off(client);
        }
    }

    /// Counts the exchange out of the books.
    pub(super) fn count_out(&mut self, reason: Option<Reason>, desk: &mut Desk) {
        let bytes_in = self.bytes_in + self.up.pump.carried();
        let carried = Carried { bytes_in, bytes_out: self.down.pump.delivered() };
        let named = Named::of_head(&self.head, Version::Http11, desk); // others can't upgrade
        self.record.count_out(named, carried, reason, desk);
    }

    /// Until when a byte must move.
    pub(super) fn deadline(&self) -> Instant {
        self.progress + self.snapshot.config.timeouts.tunnel
    }
}
