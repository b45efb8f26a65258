//! One non-blocking TCP connection.
//!
//! Every byte that this program moves passes through `read` and `write` here. A call that can't go on without waiting
//! answers `WouldBlock`, mostly without asking the kernel: what it last said is in the hints.

use super::hints::{BROKEN, CALLED, CLOSED, Hints, Key, LOST, READABLE, URGENT, WRITABLE, Wants};
use super::observer::{Call, Ear};
use super::pipe::Pipe;
use mio::Interest;
use mio::net::TcpStream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{set_socket_linger, socket_send_buffer_size};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io::{self, ErrorKind, IoSlice, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

/// Pieces that are no more than this together are copied into one: the kernel takes longer to read a list of pieces
/// than we take to copy a head.
const COPIED: usize = 2048;

/// As many pieces are written in one call; the rest in the next.
const MOST_PIECES: usize = 8;

/// How bytes are written to a peer that may be gone: without a signal. (Apple's sockets are told so once, by mio.)
#[cfg(not(target_vendor = "apple"))]
const QUIETLY: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const QUIETLY: SendFlags = SendFlags::empty();

/// How bytes are read that were seen already: Linux drops them where they lie, others copy them once more.
const DROPPED: RecvFlags = if cfg!(target_os = "linux") { RecvFlags::TRUNC } else { RecvFlags::empty() };

/// A TCP connection to a client or a backend.
pub struct Connection {
    socket: TcpStream,
    key: Key,
    hints: Arc<Hints>,
    /// Bytes that were read but not used, from `read` on: the next read gives them first.
    unread: Vec<u8>,
    read: usize,
    /// No other connection of this process has it.
    number: u64,
    /// What whoever has dialled it tells it from others by.
    mark: u32,
    pub(super) ear: Ear,
}

/// Whom to call: a visit, by its client's connection. It may be long gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller(pub(super) Key);

#[cfg(test)]
impl Caller {
    /// Somebody who was never here.
    pub(crate) fn nobody() -> Caller {
        Caller(Key::of_token(mio::Token(0)))
    }
}

/// What a look at a connection shows, without taking anything from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// Open, and nothing to read.
    Quiet,
    /// Something to read.
    Bytes,
    /// The peer has ended its direction, or the connection is broken.
    Ended,
}

/// Which of two connections can't go on.
#[derive(Debug)]
pub enum Stuck {
    /// The one that bytes come from.
    Source(io::Error),
    /// The one that they go to.
    Sink(io::Error),
    /// The one that they go to, and some of them had left the other already: they are lost.
    Spilt(io::Error),
}

impl Connection {
    /// Takes in a socket that a listener accepted. The lot registers it while it parks its owner, so that the first
    /// event finds somebody to wake.
    pub(super) fn accepted(mut socket: TcpStream, hints: &Arc<Hints>) -> io::Result<Connection> {
        // Without it, two small writes in a row cost 43 ms: the second waits for the peer's delayed acknowledgement.
        socket.set_nodelay(true)?;
        let own = descriptor(&socket);
        let key = hints.register(&mut socket, own, Some(own), WRITABLE, Interest::READABLE)?;
        Ok(Connection::new(socket, key, hints, Ear::default()))
    }

    fn new(socket: TcpStream, key: Key, hints: &Arc<Hints>, ear: Ear) -> Connection {
        let (number, hints) = (hints.next_number(), Arc::clone(hints));
        Connection { socket, key, hints, unread: Vec::new(), read: 0, number, mark: 0, ear }
    }

    /// Begins to connect to `address`, on behalf of whoever waits under `self`. The first write tells how it went: it
    /// would block until the connection stands.
    ///
    /// # Errors
    /// The kernel's, for what it can say at once.
    pub fn dial(&self, address: SocketAddr) -> io::Result<Connection> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let own = descriptor(&socket);
        let owner = Some(self.key.descriptor());
        let key = self.hints.register(
            &mut socket,
            own,
            owner,
            WRITABLE, // not known yet, but worth one try: on a fast network the connection stands already
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let connection = Connection::new(socket, key, &self.hints, self.ear.clone());
        connection.ear.hear(connection.number, || Call::Dial(address));
        Ok(connection)
    }

    /// From now on, events of `self` wake whoever waits under `owner`.
    pub fn bind_to(&mut self, owner: &Connection) {
        self.hints.bind(self.key, Some(owner.key.descriptor()));
        self.ear = owner.ear.clone();
        self.ear.hear(self.number, || Call::Bind);
    }

    /// From now on, events of `self` wake nobody; their hints stay.
    pub fn unbind(&mut self) {
        self.hints.bind(self.key, None);
        self.ear.hear(self.number, || Call::Rest);
        self.ear = Ear::default();
    }

    /// By which an observer knows it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Writes on it what whoever has dialled it is to tell it from others by.
    pub fn set_mark(&mut self, mark: u32) {
        self.mark = mark;
    }

    /// What was written on it; else zero.
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// What the kernel, or somebody here, has said of what is waited for, and of bytes or an end, for an observer.
    pub fn news(&self, awaited: Wants) -> Wants {
        awaited.or_bytes_or_end().among(self.hints.read(self.key))
    }

    /// By what [`Lot::call`](super::Lot::call) finds whoever waits under `self`.
    pub fn caller(&self) -> Caller {
        Caller(self.key)
    }

    /// Takes a call back, before the look that it was a reason for.
    pub fn heed_call(&self) {
        self.hints.take(self.key, CALLED);
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// Reads what is there: bytes that were put back first, else from the socket. 0 is the end: the peer's own, as a reset
    /// is an error here, even where another call has met with it.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there now; else the connection is lost.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.holds_bytes() {
            let held = &self.unread[self.read..];
            let n = held.len().min(buffer.len());
            buffer[..n].copy_from_slice(&held[..n]);
            self.read += n;
            if self.read == self.unread.len() {
                self.unread = Vec::new(); // an idle connection owns no buffer
                self.read = 0;
            }
            return Ok(n);
        }
        let Some(reason) = self.take_reason() else { return Err(ErrorKind::WouldBlock.into()) };
        let outcome = retry_interrupted(|| Ok(recv(&self.socket, &mut *buffer, RecvFlags::empty())?.1));
        let outcome = outcome.map_err(|error| self.heed_loss(error));
        self.ear.hear(self.number, || Call::Read(outcome.as_ref().map(|&n| &buffer[..n])));
        self.heed_read(&outcome, buffer.len(), reason);
        match outcome {
            Ok(0) if self.hints.read(self.key) & LOST != 0 && !buffer.is_empty() => {
                Err(ErrorKind::ConnectionReset.into())
            }
            outcome => outcome,
        }
    }

    /// Remembers a loss. (Of one behind the peer's own end, writes tell as of a broken pipe.)
    fn heed_loss(&self, error: io::Error) -> io::Error {
        use ErrorKind::{BrokenPipe, NotConnected, UnexpectedEof, Unsupported, WouldBlock};
        if !matches!(error.kind(), BrokenPipe | NotConnected | UnexpectedEof | Unsupported | WouldBlock) {
            self.hints.put(self.key, LOST);
        }
        error
    }

    /// Takes back what the kernel has said of something to read, before the look, as always. `None`: nothing. The part that
    /// stays, unless the look contradicts it, is returned.
    fn take_reason(&self) -> Option<u8> {
        let before = self.hints.take(self.key, READABLE | CLOSED | URGENT);
        (before & (READABLE | CLOSED | BROKEN) != 0).then_some(before & (CLOSED | URGENT))
    }

    /// Remembers what the kernel has said by a read of up to `room` bytes, for this reason.
    fn heed_read(&self, outcome: &io::Result<usize>, room: usize, reason: u8) {
        match outcome {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {} // contradicted: it was a stale event's, or is read
            // A full buffer means that there may be more. A short read means that there isn't, with two exceptions that give
            // no second event: an end that came in the same one, and what lies behind an urgent byte. CLOSED and URGENT,
            // which stay, remember that.
            Ok(n) if *n == room || reason & URGENT != 0 => self.hints.put(self.key, READABLE | reason),
            Ok(_) | Err(_) => self.hints.put(self.key, reason),
        }
    }

    /// Passes bytes on to `to`, by way of `buffer`, and takes no more of them than `to` takes: the others stay with the
    /// kernel, which has them already. Returns how many went; 0 is the end. A call more than to read and to write, and
    /// nothing is left over that would have to be kept.
    ///
    /// # Errors
    /// Which of the two can't go on: `WouldBlock`, for now; else it is lost.
    pub fn pass_on(&mut self, to: &mut Connection, buffer: &mut [u8]) -> Result<usize, Stuck> {
        if !to.may_take_bytes() {
            return Err(Stuck::Sink(ErrorKind::WouldBlock.into()));
        }
        let Some(reason) = self.take_reason() else { return Err(Stuck::Source(ErrorKind::WouldBlock.into())) };
        let outcome = retry_interrupted(|| self.socket.peek(buffer)).map_err(|error| self.heed_loss(error));
        self.heed_read(&outcome, buffer.len(), reason);
        let seen = match outcome {
            Ok(seen) if seen > 0 => seen,
            nothing => {
                self.ear.hear(self.number, || Call::Read(nothing.as_ref().map(|_| &[][..])));
                return nothing.map_err(Stuck::Source);
            }
        };
        let pieces = [&buffer[..seen]];
        let outcome = to.try_to_write(&pieces);
        let taken = *outcome.as_ref().unwrap_or(&0);
        if taken > 0 {
            self.ear.hear(self.number, || Call::Read(Ok(&buffer[..taken])));
        }
        let outcome = to.heed_write(&pieces, outcome);
        if taken < seen {
            self.hints.put(self.key, READABLE);
        }
        self.drop_seen(&mut buffer[..taken]).map_err(Stuck::Source)?;
        outcome.map_err(Stuck::Sink)
    }

    /// Passes on up to `most` bytes to `to`, through a pipe that is open, and takes no more of them than `to` is sure to
    /// take. Returns how many have left the source: 0 where the pipe can't have them, so that [`Connection::pass_on`] is to
    /// look what is the matter (it is the end, mostly). What `to` does not take after all comes to stand in `rest`. Whether
    /// more is there is not known afterwards: [`Connection::look_again`].
    ///
    /// # Errors
    /// As for [`Connection::pass_on`]; and that `to` was lost with bytes that had left the source.
    pub fn pour(
        &mut self,
        to: &mut Connection,
        pipe: &mut Pipe,
        most: u64,
        rest: &mut Vec<u8>,
    ) -> Result<usize, Stuck> {
        if !to.may_take_bytes() {
            return Err(Stuck::Sink(ErrorKind::WouldBlock.into()));
        }
        let Some(reason) = self.take_reason() else { return Err(Stuck::Source(ErrorKind::WouldBlock.into())) };
        let look = self.look_at_both(to);
        if matches!(look, Ok((false, _))) {
            return Err(Stuck::Source(ErrorKind::WouldBlock.into()));
        }
        self.hints.put(self.key, READABLE | reason); // whatever comes of it: nobody has seen the last of what is there
        let (_, room) = look?;
        if room == 0 {
            to.wait_for_room().map_err(Stuck::Sink)?;
            return Err(Stuck::Sink(ErrorKind::WouldBlock.into()));
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(room);
        let filled = retry_interrupted(|| pipe.fill(&self.socket, most));
        let taken = filled.map_err(|error| self.heed_loss(error)).unwrap_or(0);
        *rest = pipe.empty(&to.socket, taken).map_err(|error| Stuck::Spilt(to.heed_loss(error)))?;
        if !rest.is_empty() {
            to.wait_for_room().map_err(Stuck::Spilt)?;
        }
        Ok(taken)
    }

    /// Whether there is something to read here, and how many bytes `to` is sure to take. What the kernel calls writable has a
    /// third of its send buffer free; each piece takes a little more of it than it has bytes.
    fn look_at_both(&self, to: &Connection) -> Result<(bool, usize), Stuck> {
        let mut asked = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&to.socket, PollFlags::OUT)];
        retry_interrupted(|| Ok(poll(&mut asked, Some(&Timespec::default()))?)).map_err(Stuck::Sink)?;
        let [source, sink] = asked.map(|asked| asked.revents());
        if sink.intersects(PollFlags::ERR | PollFlags::HUP) {
            return Err(Stuck::Sink(ErrorKind::BrokenPipe.into()));
        }
        let room = match sink.is_empty() {
            true => 0,
            false => (socket_send_buffer_size(&to.socket).map_err(|error| Stuck::Sink(error.into()))? / 4).max(1),
        };
        Ok((!source.is_empty(), room))
    }

    /// Tells the peer at once how much we have taken. Where it may send no more until it hears of that, Linux lets it wait
    /// for up to 40 ms: of answers of 1 MiB over loopback, one in a hundred did.
    #[cfg(target_os = "linux")]
    pub fn acknowledge(&self) {
        let _lost = rustix::net::sockopt::set_tcp_quickack(&self.socket, true); // a read or write will say so, too
    }

    /// Nothing is to be done: others tell it in time.
    #[cfg(not(target_os = "linux"))]
    pub fn acknowledge(&self) {}

    /// Takes [`WRITABLE`] back after a look, for once: the kernel looks again when it is rearmed.
    fn wait_for_room(&mut self) -> io::Result<()> {
        self.hints.take(self.key, WRITABLE);
        self.hints.rearm(&mut self.socket, self.key)
    }

    /// Asks the kernel whether there is something to read.
    pub fn look_again(&self) {
        self.hints.take(self.key, READABLE); // before the look, as always
        if self.glance() != Glance::Quiet {
            self.hints.put(self.key, READABLE);
        }
    }

    /// Takes bytes that were seen already.
    fn drop_seen(&self, mut seen: &mut [u8]) -> io::Result<()> {
        while !seen.is_empty() {
            match retry_interrupted(|| Ok(recv(&self.socket, &mut *seen, DROPPED)?.1))? {
                0 => return Err(ErrorKind::UnexpectedEof.into()), // bytes that were there don't go away: not even by a reset
                taken => seen = &mut seen[taken..],
            }
        }
        Ok(())
    }

    /// Puts bytes back to be read again, before all others.
    pub fn put_back(&mut self, bytes: &[u8]) {
        if let Some(start) = self.read.checked_sub(bytes.len()) {
            self.unread[start..self.read].copy_from_slice(bytes); // back to where they came from
            self.read = start;
        } else {
            self.unread.splice(..self.read, bytes.iter().copied());
            self.read = 0;
        }
    }

    /// Whether there are bytes that were put back.
    pub fn holds_bytes(&self) -> bool {
        self.read < self.unread.len()
    }

    /// Writes as much of these pieces as the socket takes, in one call.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing now; else the connection is lost.
    pub fn write(&mut self, pieces: &[&[u8]]) -> io::Result<usize> {
        if !self.may_take_bytes() {
            return Err(ErrorKind::WouldBlock.into());
        }
        if pieces.iter().all(|piece| piece.is_empty()) {
            return Ok(0);
        }
        let outcome = self.try_to_write(pieces);
        self.heed_write(pieces, outcome)
    }

    /// Whether the kernel has said nothing against a write.
    fn may_take_bytes(&self) -> bool {
        self.hints.read(self.key) & (WRITABLE | BROKEN) != 0
    }

    fn try_to_write(&mut self, pieces: &[&[u8]]) -> io::Result<usize> {
        let wanted: usize = pieces.iter().map(|piece| piece.len()).sum();
        let mut filled = pieces.iter().filter(|piece| !piece.is_empty());
        match (filled.next(), filled.next()) {
            (None, _) => Ok(0),
            (Some(only), None) => retry_interrupted(|| self.send(only)),
            (Some(_), Some(_)) if wanted <= COPIED / 4 => self.send_together::<{ COPIED / 4 }>(pieces),
            (Some(_), Some(_)) if wanted <= COPIED => self.send_together::<COPIED>(pieces),
            (Some(_), Some(_)) => {
                let mut slices = [IoSlice::new(&[]); MOST_PIECES];
                let count = pieces.len().min(MOST_PIECES);
                for (slice, piece) in slices.iter_mut().zip(pieces) {
                    *slice = IoSlice::new(piece);
                }
                retry_interrupted(|| self.socket.write_vectored(&slices[..count]))
            }
        }
    }

    /// Not by way of the C library, nor is a read: as points where a thread might be cancelled, its calls cost 60 instructions
    /// each.
    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(&self.socket, bytes, QUIETLY)?)
    }

    /// Pieces that have no more than `ROOM` bytes together, in one.
    fn send_together<const ROOM: usize>(&self, pieces: &[&[u8]]) -> io::Result<usize> {
        let mut together = [0; ROOM];
        let mut end = 0;
        for piece in pieces {
            together[end..end + piece.len()].copy_from_slice(piece);
            end += piece.len();
        }
        retry_interrupted(|| self.send(&together[..end]))
    }

    /// Tells of a write, and remembers what the kernel has said by it.
    fn heed_write(&mut self, pieces: &[&[u8]], outcome: io::Result<usize>) -> io::Result<usize> {
        self.ear.hear(self.number, || Call::Write(pieces, outcome.as_ref().copied()));
        let wanted: usize = pieces.iter().map(|piece| piece.len()).sum();
        let blocked = match &outcome {
            Ok(written) => *written < wanted,
            // NotConnected: some systems say so of a connection that is still being made.
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected),
        };
        if blocked {
            self.wait_for_room()?;
        }
        match outcome {
            Err(_) if blocked => Err(ErrorKind::WouldBlock.into()),
            Err(error) => {
                self.hints.put(self.key, READABLE); // what came before the loss may still be read
                Err(self.heed_loss(error))
            }
            written => written,
        }
    }

    /// Lets others go first: what is ready already comes as a new event, behind theirs. (Not where the end is known: that is
    /// reason enough to go on, for as long as there is something before it.)
    ///
    /// # Errors
    /// The kernel's.
    pub fn let_others_go_first(&mut self) -> io::Result<()> {
        self.hints.take(self.key, READABLE);
        self.hints.rearm(&mut self.socket, self.key)
    }

    /// Looks at what the peer has sent, without taking it.
    pub fn glance(&self) -> Glance {
        if self.holds_bytes() {
            return Glance::Bytes;
        }
        let hinted = self.hints.take(self.key, CLOSED) & CLOSED; // before the look, as always
        let seen = match recv(&self.socket, &mut [0u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Glance::Ended,
            Ok(_) => Glance::Bytes,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Glance::Quiet,
            Err(error) => {
                self.heed_loss(error.into());
                Glance::Ended
            }
        };
        self.ear.hear(self.number, || Call::Glance(seen));
        if seen != Glance::Quiet {
            self.hints.put(self.key, hinted); // not contradicted
        }
        seen
    }

    /// Whether the kernel has said anything of bytes or an end since the last read.
    pub fn is_stirring(&self) -> bool {
        self.hints.read(self.key) & (READABLE | CLOSED | BROKEN) != 0
    }

    /// Whether all that is known to have come was read, and no end or loss.
    pub fn is_quiet(&self) -> bool {
        !self.holds_bytes() && !self.is_stirring()
    }

    /// Whether the kernel has said that the peer's direction, or the connection, has ended.
    pub fn is_ending(&self) -> bool {
        self.hints.read(self.key) & (CLOSED | BROKEN) != 0
    }

    /// Whether the kernel has said that the connection is broken, by an event or a call. What came before may still be read.
    pub fn is_broken(&self) -> bool {
        self.hints.read(self.key) & (BROKEN | LOST) != 0
    }

    /// Ends our direction: the peer reads to the end, and may still send.
    ///
    /// # Errors
    /// The connection is lost already.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.ear.hear(self.number, || Call::Shutdown);
        self.socket.shutdown(Shutdown::Write)
    }

    /// Makes the coming close a reset, for where a clean end would say that all is well.
    pub fn reset_on_close(&self) {
        self.ear.hear(self.number, || Call::Reset);
        // An error means that there is no connection left to reset.
        let _gone: rustix::io::Result<()> = set_socket_linger(&self.socket, Some(Duration::ZERO));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.ear.hear(self.number, || Call::Close);
    }
}

pub(super) fn descriptor(socket: &TcpStream) -> u32 {
    u32::try_from(socket.as_raw_fd()).expect("an open descriptor is not negative")
}

fn retry_interrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}
