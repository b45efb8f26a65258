//! The way to one backend: whom to ask, and the connection over which it is asked.

use super::desk::{Desk, Shared};
use crate::balance::{Backend, InFlight, Need, Origin, Pick, Trial};
use crate::error::Fault;
use crate::http::ForwardedRequest;
use crate::net::{Connection, is_out_of_descriptors};
use std::io;
use std::time::{Duration, Instant};

/// Whom to ask, and how.
pub(super) struct Asked {
    pub(super) place: InFlight,
    /// The request tells whether the backend is fit again.
    pub(super) trial: Option<Trial>,
    /// What a spare would have to be; `None`: only a new connection will do.
    pub(super) spare: Option<Need>,
    /// Which of the backend's addresses a new connection goes to.
    address: usize,
    /// How many have been tried. A name server's answer has room for fewer than this can count.
    addresses_tried: u16,
}

impl Asked {
    /// A backend whose turn it is: over a spare that fits, or else by a new connection.
    pub(super) fn of_rotation(pick: Pick, need: Need) -> Asked {
        Asked {
            spare: Some(need),
            address: pick.place.preferred_address(),
            addresses_tried: 0,
            place: pick.place,
            trial: pick.trial,
        }
    }

    /// Whether the backend has an address that has not been tried.
    pub(super) fn has_another_address(&self) -> bool {
        usize::from(self.addresses_tried) + 1 < self.place.address_count()
    }

    /// Goes on to the backend's next address, by a new connection. `false`: there is none.
    pub(super) fn try_next_address(&mut self) -> bool {
        if !self.has_another_address() {
            return false;
        }
        self.addresses_tried = self.addresses_tried.saturating_add(1);
        self.spare = None;
        self.address += 1;
        true
    }
}

/// A connection to a backend, for one exchange.
pub(super) struct Leg {
    pub(super) asked: Asked,
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
    /// Opened for this exchange, to this one of the backend's addresses.
    Fresh { address: usize },
}

impl Leg {
    /// A spare, or a new connection.
    ///
    /// # Errors
    /// Why there is none, and whom it would have been to.
    pub(super) fn to(asked: Asked, client: &Connection, desk: &Desk) -> Result<Leg, (Asked, Fault)> {
        let backend = &*asked.place;
        client.meet(&backend.name);
        let spare = asked.spare.and_then(|need| backend.spare(client, need, desk.now));
        let (connection, kind) = match spare {
            Some((connection, rested)) => (connection, Kind::Spare { rested }),
            None => {
                if asked.spare.is_some() {
                    client.note(format_args!("no spare that would do: a new connection"));
                }
                let address = asked.address;
                match dial(backend, address, client, &desk.shared) {
                    Ok(connection) => (connection, Kind::Fresh { address }),
                    Err(fault) => return Err((asked, fault)),
                }
            }
        };
        Ok(Leg { asked, connection, kind, since: desk.now, connect: None })
    }

    /// Whether it was kept from an earlier exchange.
    pub(super) fn is_spare(&self) -> bool {
        matches!(self.kind, Kind::Spare { .. })
    }

    /// It has not taken a byte yet, so nobody knows whether there is somebody at the other end.
    pub(super) fn is_connecting(&self) -> bool {
        !self.is_spare() && self.connect.is_none()
    }

    /// It goes to another address than the one that was tried first, and nobody knows whether there is somebody either.
    pub(super) fn is_another_try(&self) -> bool {
        self.is_connecting() && self.asked.addresses_tried > 0
    }

    /// Writes a head, and what was collected behind it, from `sent` on. Returns how much was taken and how much is left.
    pub(super) fn write_head(
        &mut self,
        head: &ForwardedRequest,
        sent: usize,
        now: Instant,
    ) -> io::Result<(usize, usize)> {
        let Origin { prefix, authority, .. } = &self.asked.place.origin;
        let pieces = behind(head.pieces(prefix, authority), sent);
        let wanted: usize = pieces.iter().map(|piece| piece.len()).sum();
        let taken = self.connection.write(&pieces)?;
        if let (Kind::Fresh { address }, None) = (self.kind, self.connect) {
            self.connect = Some(now.saturating_duration_since(self.since));
            self.asked.place.prefer(address);
        }
        Ok((taken, wanted - taken))
    }

    /// The backend has closed it without a byte of an answer.
    pub(super) fn was_closed(&self, now: Instant) {
        if let Kind::Spare { rested } = self.kind {
            self.asked.place.note_closed_spare(now.saturating_duration_since(rested), now);
        }
    }

    /// Keeps the connection for another exchange.
    pub(super) fn rest(self, now: Instant, life: Duration) {
        self.asked.place.rest(self.connection, now, life);
    }
}

/// Opens a connection. Where this process has run out of descriptors, the longest rest of somebody else ends.
fn dial(backend: &Backend, address: usize, client: &Connection, shared: &Shared) -> Result<Connection, Fault> {
    loop {
        match backend.dial(client, address) {
            Ok(connection) => return Ok(connection),
            Err(error) if is_out_of_descriptors(&error) && shared.make_room() => {}
            Err(error) => return Err(Fault::of_dial(&error)),
        }
    }
}

/// How long a backend's connection is kept: less than the backend keeps it, if it says so.
pub(super) fn spare_life(backend_keeps: Option<u64>, desk: &Desk) -> Duration {
    let ours = desk.live.config.timeouts.spare;
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
