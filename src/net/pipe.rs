//! A pipe, by which bytes go from socket to socket and are never copied: Linux hands over the pages that hold them, from
//! the source's queue to the pipe and from the pipe to the sink's queue (`splice`).
//!
//! What is in the pipe has left its source, so nothing is put in but what the sink should take. Should it not, because the
//! kernel is short of memory for sockets, the rest is ours to keep; so a pipe to which that has happened has a rest itself.
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
}
