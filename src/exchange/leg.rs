//! The way to one backend: whom to ask, and the connection over which it is asked.

use super::desk::{Desk, Shared};
use crate::balance::{Backend, InFlight, Need, Origin};
use crate::error::Fault;
use crate::http::ForwardedRequest;
use crate::net::{Connection, is_shortage};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whom to ask, and how.
pub(super) struct Asked {
    pub(super) backend: Arc<Backend>,
    pub(super) way: Way,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Over a spare that fits, or else by a new connection.
    Any(Need),
    /// By a new connection to the `attempt`th of its addresses.
    Fresh { attempt: usize },
}

/// A connection to a backend, for one exchange.
pub(super) struct Leg {
    backend: InFlight,
    pub(super) connection: Connection,
    pub(super) kind: Kind,
    pub(super) since: Instant,
    /// How long the connection took; `None` for a spare, and until it stands.
    pub(super) connect: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Kept since then.
    Spare { rested: Instant },
    /// Opened for this exchange, to the `attempt`th of the backend's addresses.
    Fresh { attempt: usize },
}

impl Leg {
    /// A spare, or a new connection.
    pub(super) fn to(asked: &Asked, client: &Connection, desk: &Desk) -> Result<Leg, Fault> {
        let backend = &asked.backend;
        let spare = match asked.way {
            Way::Any(need) => backend.spare(client, need, desk.now),
            Way::Fresh { .. } => None,
        };
        let (connection, kind) = match spare {
            Some((connection, rested)) => (connection, Kind::Spare { rested }),
            None => {
                let attempt = asked.way.attempt();
                (dial(backend, attempt, client, &desk.shared)?, Kind::Fresh { attempt })
            }
        };
        Ok(Leg { backend: InFlight::new(Arc::clone(backend)), connection, kind, since: desk.now, connect: None })
    }

    /// Whether it was kept from an earlier exchange.
    pub(super) fn is_spare(&self) -> bool {
        matches!(self.kind, Kind::Spare { .. })
    }

    /// It has not taken a byte yet, so nobody knows whether there is somebody at the other end.
    pub(super) fn is_connecting(&self) -> bool {
        !self.is_spare() && self.connect.is_none()
    }

    /// Writes a head, and what was collected behind it, from `sent` on. Returns how much was taken and how much is left.
    pub(super) fn write_head(
        &mut self,
        head: &ForwardedRequest,
        sent: usize,
        now: Instant,
    ) -> io::Result<(usize, usize)> {
        let Origin { prefix, authority, .. } = &self.backend.origin;
        let pieces = behind(head.pieces(prefix, authority), sent);
        let wanted: usize = pieces.iter().map(|piece| piece.len()).sum();
        let taken = self.connection.write(&pieces)?;
        if let (Kind::Fresh { attempt }, None) = (self.kind, self.connect) {
            self.connect = Some(now.saturating_duration_since(self.since));
            self.backend.prefer(attempt);
        }
        Ok((taken, wanted - taken))
    }

    /// The backend has closed it without a byte of an answer.
    pub(super) fn was_closed(&self, now: Instant) {
        if let Kind::Spare { rested } = self.kind {
            self.backend.note_closed_spare(now.saturating_duration_since(rested));
        }
    }

    /// Keeps the connection for another exchange.
    pub(super) fn rest(self, now: Instant, life: Duration) {
        self.backend.rest(self.connection, now, life);
    }
}

impl Way {
    /// Which of the backend's addresses is meant, counted from the one that answered last.
    pub(super) fn attempt(self) -> usize {
        match self {
            Way::Any(_) => 0,
            Way::Fresh { attempt } => attempt,
        }
    }
}

/// Opens a connection. Where this process has run out of descriptors, the longest rest of somebody else ends.
fn dial(backend: &Backend, attempt: usize, client: &Connection, shared: &Shared) -> Result<Connection, Fault> {
    loop {
        match backend.dial(client, attempt) {
            Ok(connection) => return Ok(connection),
            Err(error) if is_shortage(&error) && shared.make_room() => {}
            Err(error) => return Err(Fault::of_dial(&error)),
        }
    }
}

/// How long a backend's connection is kept: less than the backend keeps it, if it says so.
pub(super) fn spare_life(backend_keeps: Option<u64>, desk: &Desk) -> Duration {
    let ours = desk.shared.config.timeouts.spare;
    // Half of it: the backend's count began before ours, and the next request must arrive in time.
    backend_keeps.map_or(ours, |seconds| ours.min(Duration::from_secs(seconds) / 2))
}

/// The pieces without their first `sent` bytes.
fn behind(pieces: [&[u8]; 6], sent: usize) -> [&[u8]; 6] {
    let mut skip = sent;
    pieces.map(|piece| {
        let skipped = skip.min(piece.len());
        skip -= skipped;
        &piece[skipped..]
    })
}
