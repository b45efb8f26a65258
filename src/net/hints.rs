//! What the kernel has said about each socket.
//!
//! A hint is never the truth, only a reason to look: the read or write that follows tells. One atomic word per
//! descriptor holds the hints, who is to be woken for them, and a generation, so that an event that was on its way
//! while its socket was closed is not taken for one of the next socket with that number.
//!
//! ```text
//! 63        40 39              8 7      0
//! [generation][descriptor of the owner][hints]
//! ```
//!
//! The owner is the client connection under which an exchange is parked; a spare has none. Binding a socket to
//! another owner is done here, without a system call: the registration with the kernel stays as it is.

use super::table::Table;
use mio::{Interest, Registry, Token, event::Source};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// There is something to read.
pub(super) const READABLE: u8 = 1;
/// There is room to write.
pub(super) const WRITABLE: u8 = 2;
/// The peer has ended its direction, or both: behind what is still unread, a read will say so.
pub(super) const CLOSED: u8 = 4;
/// The connection is broken, or was ended in both directions.
pub(super) const BROKEN: u8 = 8;
/// Somebody here has something for the owner: no word of the kernel's.
pub(super) const CALLED: u8 = 16;
/// The connection was lost, and not by the peer's end. The kernel says so in one call, whichever comes first: to a read
/// behind that, it is an end like any other.
pub(super) const LOST: u8 = 32;
/// Among what there is to read is an urgent byte: reads stop short before it, with more behind.
pub(super) const URGENT: u8 = 64;

const OWNER_SHIFT: u32 = 8;
const GENERATION_SHIFT: u32 = 40;
const HINT_BITS: u64 = 0xff;
const OWNER_BITS: u64 = 0xffff_ffff << OWNER_SHIFT;

/// A token carries a whole key.
const _: () = assert!(usize::BITS >= 64, "threadbare needs 64-bit pointers");

/// The owner of a socket that nobody waits for.
const NOBODY: u32 = u32::MAX;

/// A socket for as long as it is open: its descriptor, and the generation of its table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u64);

impl Key {
    pub(super) fn descriptor(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    fn generation(self) -> u64 {
        self.0 >> 32
    }

    fn token(self) -> Token {
        Token(usize::try_from(self.0).expect("pointers have 64 bits, see above"))
    }

    pub(super) fn of_token(token: Token) -> Key {
        Key(token.0 as u64)
    }
}

/// What a parked visit waits for on one socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants(u8);

impl Wants {
    /// Nothing.
    pub const NOTHING: Wants = Wants(0);
    /// Bytes, or the end of them.
    pub const READABLE: Wants = Wants(READABLE);
    /// Room for more bytes.
    pub const WRITABLE: Wants = Wants(WRITABLE);
    /// The peer's end, though nobody means to read.
    pub const CLOSED: Wants = Wants(CLOSED);
    /// A reset; also the end of both directions, where we have ended ours.
    pub const BROKEN: Wants = Wants(BROKEN);
    /// A call by another worker ([`Lot::call`](super::Lot::call)).
    pub const CALL: Wants = Wants(CALLED);

    /// Whether it is bytes, or room for them, that is waited for.
    pub fn is_for_bytes(self) -> bool {
        self.0 & (READABLE | WRITABLE) != 0
    }

    /// Both.
    #[must_use]
    pub fn and(self, other: Wants) -> Wants {
        Wants(self.0 | other.0)
    }

    /// These, and what comes unasked.
    pub(super) fn or_bytes_or_end(self) -> Wants {
        Wants(self.0 | READABLE | CLOSED | BROKEN)
    }

    /// Those of them that are among these hints.
    pub(super) fn among(self, hints: u8) -> Wants {
        Wants(self.0 & hints)
    }

    /// Whether these hints are a reason to look.
    pub(super) fn are_met_by(self, hints: u8) -> bool {
        let met = |want: u8, by: u8| self.0 & want != 0 && hints & by != 0;
        met(READABLE, READABLE | CLOSED | BROKEN)
            || met(WRITABLE, WRITABLE | BROKEN)
            || met(CLOSED, CLOSED | BROKEN)
            || met(BROKEN, BROKEN)
            || met(CALLED, CALLED)
    }
}

impl fmt::Display for Wants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words =
            [(READABLE, "bytes"), (WRITABLE, "room"), (CLOSED, "the end"), (BROKEN, "a reset"), (CALLED, "a call")];
        let mut between = "";
        for (_, word) in words.into_iter().filter(|(hint, _)| self.0 & hint != 0) {
            write!(f, "{between}{word}")?;
            between = " or ";
        }
        if self.0 == 0 { f.write_str("nothing") } else { Ok(()) }
    }
}

/// The hints of all sockets, and the registry that makes the kernel speak of them.
pub(super) struct Hints {
    words: Table<AtomicU64>,
    registry: Registry,
    /// Connections so far.
    connections: AtomicU64,
}

impl Hints {
    pub(super) fn new(limit: usize, registry: Registry) -> Hints {
        Hints { words: Table::new(limit), registry, connections: AtomicU64::new(0) }
    }

    /// A number for a new connection, from 1.
    pub(super) fn next_number(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Gives a new socket its entry and registers it, once and for all: edge-triggered.
    ///
    /// # Errors
    /// The kernel's, and one for a descriptor beyond the limit that the tables were made for.
    pub(super) fn register(
        &self,
        socket: &mut impl Source,
        descriptor: u32,
        owner: Option<u32>,
        first: u8,
        interest: Interest,
    ) -> io::Result<Key> {
        if descriptor as usize >= self.words.len() {
            return Err(rustix::io::Errno::MFILE.into());
        }
        let word = self.words.at(descriptor);
        let generation = ((word.load(Ordering::Relaxed) >> GENERATION_SHIFT) + 1) & (u64::MAX >> GENERATION_SHIFT);
        let owner = u64::from(owner.unwrap_or(NOBODY));
        word.store(generation << GENERATION_SHIFT | owner << OWNER_SHIFT | u64::from(first), Ordering::Release);
        let key = Key(generation << 32 | u64::from(descriptor));
        self.registry.register(socket, key.token(), and_urgency(interest))?;
        Ok(key)
    }

    /// Makes the kernel look again, and speak of both directions from now on. What is ready already comes as a new
    /// event, behind those of others: this is also how a long turn lets them go first.
    pub(super) fn rearm(&self, socket: &mut impl Source, key: Key) -> io::Result<()> {
        self.registry.reregister(socket, key.token(), and_urgency(Interest::READABLE | Interest::WRITABLE))
    }

    /// Adds hints that the kernel gave. Returns the owner to be woken; `None` also for a socket that is long closed.
    pub(super) fn add(&self, key: Key, hints: u8) -> Option<u32> {
        let word = self.words.at(key.descriptor());
        let same_socket = |word: u64| (word >> GENERATION_SHIFT == key.generation()).then_some(word | u64::from(hints));
        let before = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, same_socket).ok()?;
        let owner = ((before & OWNER_BITS) >> OWNER_SHIFT) as u32;
        (owner != NOBODY).then_some(owner)
    }

    /// Takes hints back and returns what was there before. To be done *before* the look that they are a reason for:
    /// the other order would forget an event that comes in between.
    pub(super) fn take(&self, key: Key, hints: u8) -> u8 {
        let before = self.words.at(key.descriptor()).fetch_and(!u64::from(hints), Ordering::AcqRel);
        (before & HINT_BITS) as u8
    }

    /// Puts a hint of our own: a look has shown that there is more.
    pub(super) fn put(&self, key: Key, hints: u8) {
        self.words.at(key.descriptor()).fetch_or(u64::from(hints), Ordering::AcqRel);
    }

    pub(super) fn read(&self, key: Key) -> u8 {
        (self.words.at(key.descriptor()).load(Ordering::Acquire) & HINT_BITS) as u8
    }

    /// Says who is to be woken from now on. Hints that came before stay, and the new owner finds them.
    pub(super) fn bind(&self, key: Key, owner: Option<u32>) {
        let owner = u64::from(owner.unwrap_or(NOBODY)) << OWNER_SHIFT;
        let rebound = |word: u64| Some(word & !OWNER_BITS | owner);
        let word = self.words.at(key.descriptor());
        let _: Result<u64, u64> = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, rebound);
    }
}

#[cfg(target_os = "linux")]
fn and_urgency(interest: Interest) -> Interest {
    interest | Interest::PRIORITY
}

#[cfg(not(target_os = "linux"))]
fn and_urgency(interest: Interest) -> Interest {
    interest
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::Poll;
    use mio::net::TcpStream;
    use std::net::TcpListener;

    #[test]
    fn an_event_for_a_closed_socket_is_not_taken_for_the_next_one_with_its_number() {
        let poll = Poll::new().unwrap();
        let hints = Hints::new(1024, poll.registry().try_clone().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let old = hints.register(&mut socket, 7, Some(3), 0, Interest::READABLE).unwrap();
        assert_eq!(hints.add(old, READABLE), Some(3));
        poll.registry().deregister(&mut socket).unwrap();
        let new = hints.register(&mut socket, 7, Some(4), 0, Interest::READABLE).unwrap();
        assert_eq!(hints.add(old, READABLE), None);
        assert_eq!(hints.read(new), 0);
        assert_eq!(hints.add(new, CLOSED), Some(4));
    }

    #[test]
    fn a_socket_that_changes_owners_keeps_its_hints() {
        let poll = Poll::new().unwrap();
        let hints = Hints::new(1024, poll.registry().try_clone().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let key = hints.register(&mut socket, 7, Some(3), 0, Interest::READABLE).unwrap();
        hints.bind(key, None);
        assert_eq!(hints.add(key, READABLE | CLOSED), None, "nobody waits for it");
        hints.bind(key, Some(1 << 20));
        assert_eq!(hints.read(key), READABLE | CLOSED);
        assert_eq!(hints.add(key, BROKEN), Some(1 << 20));
    }
}
