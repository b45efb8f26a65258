//! A pipe, by which bytes go from socket to socket and are never copied: Linux hands over the pages that hold them, from
//! the source's queue to the pipe and from the pipe to the sink's queue (`splice`).
//!
//! What is in the pipe has left its source, so nothing is put in but what the sink should take. Should it not, because the
//! kernel is short of memory for sockets, or the bytes came in many small packets, each of which takes more of a small send
//! buffer than it is long, the rest is ours to keep; so a pipe to which that has happened has a rest itself.
//! Elsewhere than on Linux there is no such pipe.

use std::io;
use std::os::fd::AsFd;
use std::time::Instant;

/// A pipe of a worker's own. It is empty whenever nobody passes bytes through it.
#[derive(Debug, Default)]
pub struct Pipe {
    #[cfg(target_os = "linux")]
    ends: Option<linux::Ends>,
    /// Until when it is not to be used.
    #[cfg(target_os = "linux")]
    rests_until: Option<Instant>,
}

#[cfg(target_os = "linux")]
mod linux {
    use super::{AsFd, Instant, Pipe, io};
    use rustix::io::{Errno, read};
    use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    /// It has a slot for each page of this, and a slot is taken by less than a page too.
    const SIZE: usize = 256 * 1024;

    /// A thousand slow readers may be what the kernel's memory goes to, and each would leave us a part of what is in the pipe.
    const REST: Duration = Duration::from_secs(60);

    const FLAGS: SpliceFlags = SpliceFlags::NONBLOCK.union(SpliceFlags::MOVE);

    #[derive(Debug)]
    pub(super) struct Ends {
        inlet: OwnedFd,
        outlet: OwnedFd,
    }

    impl Pipe {
        /// Whether there is a pipe to be used now: it is opened by whoever asks first. None where no descriptor is left for it,
        /// and none for a minute after a sink has not taken what it should have.
        pub fn is_open(&mut self, now: Instant) -> bool {
            if self.rests_until.is_some_and(|until| now < until) {
                return false;
            }
            if self.ends.is_none()
                && let Ok((outlet, inlet)) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC)
            {
                // Refused to a user who has many large pipes already. A small one is slower, and does the same.
                let _size: rustix::io::Result<usize> = fcntl_setpipe_size(&inlet, SIZE);
                self.ends = Some(Ends { inlet, outlet });
            }
            self.ends.is_some()
        }

        /// Takes up to `most` bytes from `source`, and maybe fewer than there are. 0 is its end.
        pub(in crate::net) fn fill(&mut self, source: impl AsFd, most: usize) -> io::Result<usize> {
            let Ends { inlet, .. } = self.ends.as_ref().ok_or(io::ErrorKind::Unsupported)?;
            Ok(splice(source, None, inlet, None, most, FLAGS)?)
        }

        /// Gives all that is in it, `count` bytes, to `sink`, and returns what that did not take.
        pub(in crate::net) fn empty(&mut self, sink: impl AsFd, count: usize) -> io::Result<Vec<u8>> {
            let outcome = self.pass_out(sink, count);
            match &outcome {
                Ok(rest) if rest.is_empty() => {}
                Ok(_) => self.rests_until = Some(Instant::now() + REST),
                Err(_) => self.ends = None, // and what is still in it
            }
            outcome
        }

        fn pass_out(&self, sink: impl AsFd, count: usize) -> io::Result<Vec<u8>> {
            let Ends { outlet, .. } = self.ends.as_ref().ok_or(io::ErrorKind::Unsupported)?;
            let mut left = count;
            while left > 0 {
                match splice(outlet, None, &sink, None, left, FLAGS) {
                    Ok(0) | Err(Errno::AGAIN) => break,
                    Ok(taken) => left -= taken,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let mut rest = vec![0; left];
            let mut unread = &mut rest[..];
            while !unread.is_empty() {
                match read(outlet, &mut *unread)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    taken => unread = &mut unread[taken..],
                }
            }
            Ok(rest)
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Pipe {
    /// There is none.
    pub fn is_open(&mut self, _now: Instant) -> bool {
        false
    }

    pub(super) fn fill(&mut self, _source: impl AsFd, _most: usize) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn empty(&mut self, _sink: impl AsFd, _count: usize) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::{Instant, Pipe};
    use crate::net::{Connection, Glance, Lot, Stuck};
    use std::io::{self, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    /// Two ends of a connection that never waits.
    fn pair() -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let one = TcpStream::connect(listener.local_addr()?)?;
        let (other, _) = listener.accept()?;
        one.set_nonblocking(true)?;
        other.set_nonblocking(true)?;
        Ok((one, other))
    }

    /// No two neighbourhoods of it look alike.
    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|nth| (nth.wrapping_mul(0x9e37_79b9) >> 13).to_le_bytes()[0]).collect()
    }

    fn pipe() -> Pipe {
        let mut pipe = Pipe::default();
        assert!(pipe.is_open(Instant::now()));
        pipe
    }

    #[test]
    fn what_the_sink_does_not_take_is_given_back_and_nothing_is_lost_or_said_twice() {
        let (mut sender, source) = pair().unwrap();
        let (sink, mut receiver) = pair().unwrap();
        rustix::net::sockopt::set_socket_send_buffer_size(&sink, 4096).unwrap();
        let sent = bytes(100_000);
        let mut pipe = pipe();
        let (mut given, mut received, mut rest) = (0, Vec::new(), Vec::new());
        let mut room = vec![0; 65_536];
        let mut fell_short = false;
        while received.len() < sent.len() {
            given += sender.write(&sent[given..]).unwrap_or(0);
            if rest.is_empty() {
                let filled = pipe.fill(&source, 50_000).unwrap_or(0);
                rest = pipe.empty(&sink, filled).unwrap();
                fell_short |= !rest.is_empty();
            } else if let Ok(taken) = (&sink).write(&rest) {
                rest.drain(..taken);
            }
            if let Ok(n) = receiver.read(&mut room) {
                received.extend_from_slice(&room[..n]);
            }
        }
        assert!(fell_short, "a sink of 4 KiB took all of 50 KB");
        let now = Instant::now();
        assert!(!pipe.is_open(now) && pipe.is_open(now + Duration::from_secs(60)), "it rests for a minute");
        assert!(received == sent, "they differ");
    }

    #[test]
    fn an_end_is_told_and_what_comes_before_it_is_not_lost() {
        let (mut sender, source) = pair().unwrap();
        let (sink, mut receiver) = pair().unwrap();
        let mut pipe = pipe();
        assert_eq!(pipe.fill(&source, 10).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        sender.write_all(b"the last").unwrap();
        drop(sender);
        receiver.set_nonblocking(false).unwrap();
        source.set_nonblocking(false).unwrap();
        source.peek(&mut [0]).unwrap(); // it has come
        assert_eq!(pipe.fill(&source, 3).unwrap(), 3);
        assert_eq!(pipe.empty(&sink, 3).unwrap(), b"");
        assert_eq!(pipe.fill(&source, 100).unwrap(), 5);
        assert_eq!(pipe.empty(&sink, 5).unwrap(), b"");
        assert_eq!(pipe.fill(&source, 100).unwrap(), 0);
        drop(sink);
        let mut all = String::new();
        receiver.read_to_string(&mut all).unwrap();
        assert_eq!(all, "the last");
    }

    #[test]
    fn a_lost_sink_leaves_nothing_in_the_pipe_for_the_next() {
        let (mut sender, source) = pair().unwrap();
        let (lost, gone) = pair().unwrap();
        let (sink, mut receiver) = pair().unwrap();
        let mut pipe = pipe();
        gone.set_nonblocking(false).unwrap();
        drop(gone);
        while lost.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {}
        lost.shutdown(std::net::Shutdown::Write).unwrap();
        source.set_nonblocking(false).unwrap();
        sender.write_all(b"somebody else's").unwrap();
        let filled = pipe.fill(&source, 100).unwrap();
        assert_eq!(filled, 15);
        pipe.empty(&lost, filled).unwrap_err();
        assert!(pipe.is_open(Instant::now()));
        sender.write_all(b"ours").unwrap();
        let filled = pipe.fill(&source, 100).unwrap();
        assert_eq!(pipe.empty(&sink, filled).unwrap(), b"");
        drop(sink);
        receiver.set_nonblocking(false).unwrap();
        let mut all = String::new();
        receiver.read_to_string(&mut all).unwrap();
        assert_eq!(all, "ours");
    }

    /// Two connections of ours, and their far ends.
    fn connections(lot: &Lot<Connection>) -> io::Result<[(Box<Connection>, TcpStream); 2]> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let connection = || -> io::Result<(Box<Connection>, TcpStream)> {
            let near = mio::net::TcpStream::connect(listener.local_addr()?)?;
            let (far, _) = listener.accept()?;
            let now = Instant::now();
            lot.admit(near, now + Duration::from_secs(60), Box::new)?;
            Ok((lot.take_oldest_idle(|_| Some(now)).ok_or(io::ErrorKind::NotFound)?, far))
        };
        Ok([connection()?, connection()?])
    }

    /// What pouring comes to, once there is something to pour and `is_due`.
    fn poured(
        from: &mut Connection,
        to: &mut Connection,
        is_due: impl Fn(&Connection) -> bool,
    ) -> Result<usize, Stuck> {
        let (mut pipe, mut rest) = (pipe(), Vec::new());
        while from.glance() == Glance::Quiet || !is_due(to) {
            std::thread::yield_now();
        }
        from.look_again();
        from.pour(to, &mut pipe, 100, &mut rest)
    }

    #[test]
    fn what_a_lost_sink_can_not_have_stays_with_its_source() {
        let lot = Lot::new(1024).unwrap();
        let [(mut from, mut sender), (mut to, receiver)] = connections(&lot).unwrap();
        sender.write_all(b"all of it").unwrap();
        rustix::net::sockopt::set_socket_linger(&receiver, Some(Duration::ZERO)).unwrap();
        drop(receiver);
        let outcome = poured(&mut from, &mut to, |to| to.glance() == Glance::Ended);
        assert!(matches!(outcome, Err(Stuck::Sink(_))), "{outcome:?}");
        let mut room = [0; 100];
        let count = from.read(&mut room).unwrap();
        assert_eq!(&room[..count], b"all of it");
    }

    #[test]
    fn it_is_told_when_bytes_were_lost_with_their_sink() {
        let lot = Lot::new(1024).unwrap();
        let [(mut from, mut sender), (mut to, _receiver)] = connections(&lot).unwrap();
        sender.write_all(b"all of it").unwrap();
        to.shutdown_write().unwrap(); // the kernel calls it writable all the same
        let outcome = poured(&mut from, &mut to, |_| true);
        assert!(matches!(outcome, Err(Stuck::Spilt(_))), "{outcome:?}");
        from.look_again();
        assert!(from.is_quiet(), "nothing is left at the source");
    }

    #[test]
    fn an_urgent_byte_and_an_end_are_left_to_whoever_reads() {
        let lot = Lot::new(1024).unwrap();
        let [(mut from, sender), (mut to, mut receiver)] = connections(&lot).unwrap();
        rustix::net::send(&sender, b"!", rustix::net::SendFlags::OOB).unwrap();
        (&sender).write_all(b"behind it").unwrap();
        let outcome = poured(&mut from, &mut to, |_| true);
        assert!(matches!(outcome, Ok(0)), "{outcome:?}");
        assert_eq!(from.pass_on(&mut to, &mut [0; 100]).unwrap(), 9);
        let mut room = [0; 9];
        receiver.read_exact(&mut room).unwrap();
        assert_eq!(&room, b"behind it");
        drop(sender);
        let outcome = poured(&mut from, &mut to, |_| true);
        assert!(matches!(outcome, Ok(0)), "{outcome:?}");
        assert_eq!(from.pass_on(&mut to, &mut room).unwrap(), 0);
    }
}
