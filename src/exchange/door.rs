//! Who a client is, where a proxy before us says so.
//!
//! A proxy that passes bytes on unread hides the client's address. By the PROXY protocol it says it, in a header before
//! the client's first byte. Whether a connection begins with a header is never read off its bytes: it does if its peer
//! is in the listener's networks, and doesn't else. So no stranger can write one, and none of those peers can come
//! without one, and be taken for its client.

use super::desk::Desk;
use crate::config::ListenerSettings;
use crate::net::Connection;
use crate::net::proxy_protocol::{LONGEST, Parsed, parse};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What stands at the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// What a proxy says of the client.
    Introduced,
    /// A request of the peer's own.
    Direct,
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
    nameless: Seldom,
}

impl Door {
    /// How a connection of this peer begins.
    pub fn arrival(peer: SocketAddr, listener: &ListenerSettings) -> Arrival {
        match listener.proxy_protocol_from.iter().any(|network| network.contains(peer.ip())) {
            true => Arrival::Introduced,
            false => Arrival::Direct,
        }
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
