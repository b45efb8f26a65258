//! Who comes in, and how many of one address may.
//!
//! A proxy that passes bytes on unread hides the client's address. By the PROXY protocol it says it, in a header before
//! the client's first byte. Whether a connection begins with a header is never read off its bytes: it does if its peer
//! is in the listener's networks, and doesn't else. So no stranger can write one, and none of those peers can come
//! without one, and be taken for its client.
//!
//! An address that has as many connections as it may is refused another by a close, without an answer: who opens
//! thousands is after descriptors, and an answer would hold one until it is taken, for a second at least. (HAProxy's
//! `tcp-request connection reject` does the same; nginx counts only connections that have asked for something, and so
//! can answer, and does not count those that say nothing.) One that asks too often gets an answer, 429, since it is told
//! when to come again, and its connection stays, since a new one would cost us more.
//!
//! Proxies that are trusted are not limited: each of them is many clients.

use super::desk::Desk;
use crate::addresses::{Addresses, Guest};
use crate::config::{Config, ListenerSettings};
use crate::net::Connection;
use crate::net::proxy_protocol::{LONGEST, Parsed, parse};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What stands at the beginning of a connection.
#[derive(Debug)]
pub enum Arrival {
    /// What a proxy says of the client. Whose connection it counts as is known only then.
    Introduced,
    /// A request of the peer's own.
    Direct(Guest),
}

/// Why nobody has been introduced.
#[derive(Debug)]
pub(super) enum Unintroduced {
    /// More must be read first.
    NotYet,
    /// It is no header.
    Flawed,
    /// The connection ended, or was lost.
    Ended,
}

/// Where clients come in.
#[derive(Debug, Default)]
pub struct Door {
    addresses: Arc<Addresses>,
    nameless: Seldom,
    crowded: Seldom,
}

impl Door {
    /// How a connection of this peer begins; none if it is to be closed.
    pub fn arrival(
        &self,
        peer: SocketAddr,
        listener: &ListenerSettings,
        config: &Config,
        now: Instant,
    ) -> Option<Arrival> {
        match listener.proxy_protocol_from.iter().any(|network| network.contains(peer.ip())) {
            true => Some(Arrival::Introduced),
            false => self.let_in(peer, config, now).map(Arrival::Direct),
        }
    }

    /// Counts a client's connection in; none if its address has as many as it may. Connections that came while there was
    /// no limit are not counted.
    pub(super) fn let_in(&self, client: SocketAddr, config: &Config, now: Instant) -> Option<Guest> {
        let Some(most) = config.load.connections_per_address.filter(|_| !config.trusts(client.ip())) else {
            return Some(Guest::default());
        };
        let guest = self.addresses.enter(client.ip(), most);
        if guest.is_none() {
            self.crowded.tell(now, |more| {
                log::warn!("closed a connection of {client}: its address has {most} open already{more}");
            });
        }
        guest
    }

    /// Whether this client's address may ask for something now; if so, that is counted.
    pub(super) fn may_ask(&self, client: SocketAddr, config: &Config, now: Instant) -> bool {
        let rate = config.load.rate_per_address().filter(|_| !config.trusts(client.ip()));
        rate.is_none_or(|rate| self.addresses.may_ask(client.ip(), rate, now))
    }

    /// Forgets addresses that need not be known any more; to be called now and then.
    pub fn sweep(&self, now: Instant) {
        self.addresses.sweep(now);
    }

    /// Reads the header on. The client's address, if the proxy knows it; what lies behind the header stays with the
    /// connection, and so does the beginning of one that is not complete.
    pub(super) fn introduction(
        &self,
        connection: &mut Connection,
        peer: SocketAddr,
        desk: &mut Desk,
    ) -> Result<Option<SocketAddr>, Unintroduced> {
        let mut end = 0;
        loop {
            // Never more than a header, so that little is to be put back. (Who has read so much knows what it is.)
            match connection.read(&mut desk.inbound[end..LONGEST]) {
                Ok(n) if n > 0 => end += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.put_back(&desk.inbound[..end]);
                    return Err(Unintroduced::NotYet);
                }
                Ok(_) | Err(_) => return Err(Unintroduced::Ended),
            }
            match parse(&desk.inbound[..end]) {
                Ok(Parsed::Incomplete) => {}
                Ok(Parsed::Header { source, length }) => {
                    connection.put_back(&desk.inbound[length..end]);
                    return Ok(source);
                }
                Err(flaw) => {
                    self.complain(peer, flaw, desk.now);
                    return Err(Unintroduced::Flawed);
                }
            }
        }
    }

    /// A header was waited for too long. That nothing came at all is no reason for a word: proxies connect to see
    /// whether we are there.
    pub(super) fn regret(&self, connection: &Connection, peer: SocketAddr, now: Instant) {
        if connection.holds_bytes() {
            self.complain(peer, "the PROXY header did not end in time", now);
        }
    }

    fn complain(&self, peer: SocketAddr, flaw: &str, now: Instant) {
        self.nameless.tell(now, |more| {
            log::warn!("closed a connection of {peer}, which is to begin with a PROXY header: {flaw}{more}");
        });
    }
}

/// How often the same is said.
const PAUSE: Duration = Duration::from_secs(10);

/// Says seldom what may go wrong thousands of times.
#[derive(Debug, Default)]
struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// Says it, with how often it went unsaid, unless the last time is not long ago.
    fn tell(&self, now: Instant, say: impl FnOnce(&str)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, unsaid) = &mut *state;
        if last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            *unsaid += 1;
            return;
        }
        *last = Some(now);
        let unsaid = std::mem::take(unsaid);
        drop(state);
        match unsaid {
            0 => say(""),
            unsaid => say(&format!(" ({unsaid} more since the last time)")),
        }
    }
}
