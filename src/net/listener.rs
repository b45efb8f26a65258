//! Where connections come from.
//!
//! One thread accepts for all listeners. It is no worker: while every worker is busy, the backlog still empties, and
//! nothing that it waits for (a free descriptor, a place below the connection limit) holds up anybody's turn.

use super::descriptors::{is_out_of_descriptors, is_shortage};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// As many connections wait in the kernel while we are busy; std's 128 overflow in a millisecond of a burst.
const BACKLOG: i32 = 4096;

/// How soon a halted listener tries again: soon enough for a client not to notice, seldom enough not to spin.
/// (Accepting again at once, without a descriptor, fails at a million times a second.)
const HALT: Duration = Duration::from_millis(20);

const STOP: Token = Token(usize::MAX);

/// Listening sockets, before anybody accepts from them.
#[derive(Debug)]
pub struct Bound(Vec<TcpListener>);

/// Begins to listen on each address; port 0 takes a free one.
///
/// # Errors
/// The address that could not be had, and why.
pub fn bind(addresses: &[SocketAddr]) -> Result<Bound, (SocketAddr, io::Error)> {
    let listen = |&address: &SocketAddr| {
        let listener = TcpListener::bind(address)?;
        rustix::net::listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let listeners = addresses.iter().map(|address| listen(address).map_err(|error| (*address, error)));
    Ok(Bound(listeners.collect::<Result<_, _>>()?))
}

impl Bound {
    /// The addresses in use, with the ports that the system chose.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.0.iter().map(TcpListener::local_addr).collect()
    }
}

/// Listening sockets, watched.
pub struct Listeners {
    poll: Poll,
    sockets: Vec<Source>,
    stop: Arc<Waker>,
}

/// Ends [`Listeners::accept`].
pub struct Stopper(Arc<Waker>);

impl Stopper {
    /// Stops accepting.
    pub fn stop(&self) {
        if let Err(error) = self.0.wake() {
            log::error!("the listeners could not be stopped: {error}");
        }
    }
}

struct Source {
    socket: mio::net::TcpListener,
    /// Connections may be waiting: accepting has not answered `WouldBlock` since the last event.
    waiting: bool,
}

impl Listeners {
    /// Watches these sockets.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(bound: Bound) -> io::Result<Listeners> {
        let poll = Poll::new()?;
        let stop = Arc::new(Waker::new(poll.registry(), STOP)?);
        let mut sockets = Vec::with_capacity(bound.0.len());
        for (nth, listener) in bound.0.into_iter().enumerate() {
            let mut socket = mio::net::TcpListener::from_std(listener);
            poll.registry().register(&mut socket, Token(nth), Interest::READABLE)?;
            sockets.push(Source { socket, waiting: true });
        }
        Ok(Listeners { poll, sockets, stop })
    }

    /// Ends [`Listeners::accept`], from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.stop))
    }

    /// Accepts and admits connections until stopped; then once more until none is waiting, since closing a listener
    /// resets those that are. While `is_full`, connections wait in the backlog. `make_room` is asked to free a
    /// descriptor when there is none, and says whether it could.
    pub fn accept(
        mut self,
        is_full: impl Fn() -> bool,
        make_room: impl Fn() -> bool,
        admit: impl Fn(TcpStream, SocketAddr) -> io::Result<()>,
    ) {
        let mut events = Events::with_capacity(64);
        let mut complaint = Complaint::default();
        let mut stopping = false;
        loop {
            let mut halted = false;
            for source in self.sockets.iter_mut().filter(|source| source.waiting) {
                loop {
                    if is_full() {
                        halted = true;
                        break;
                    }
                    match source.socket.accept().and_then(|(socket, peer)| admit(socket, peer)) {
                        Ok(()) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            source.waiting = false;
                            break;
                        }
                        Err(error) if is_shortage(&error) => {
                            complaint.log(&error);
                            if !is_out_of_descriptors(&error) || !make_room() {
                                halted = true;
                                break;
                            }
                        }
                        // The client left before it was accepted, or while it was admitted: none of our business.
                        Err(error) => log::debug!("a connection was lost before its first byte: {error}"),
                    }
                }
            }
            if stopping {
                return;
            }
            match self.poll.poll(&mut events, halted.then_some(HALT)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    log::error!("the kernel would not say whether connections are waiting: {error}");
                    return;
                }
                Ok(()) | Err(_) => {}
            }
            for event in &events {
                match self.sockets.get_mut(event.token().0) {
                    Some(source) => source.waiting = true,
                    None => stopping = true,
                }
            }
        }
    }
}

/// Says once a second what goes wrong thousands of times.
#[derive(Default)]
struct Complaint {
    last: Option<Instant>,
}

impl Complaint {
    fn log(&mut self, error: &io::Error) {
        if self.last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            log::warn!("connections wait in the backlog: {error}");
            self.last = Some(Instant::now());
        }
    }
}
