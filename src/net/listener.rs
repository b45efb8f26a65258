//! Where connections come from.
//!
//! One thread accepts for all listeners. It is no worker: while every worker is busy, the backlog still empties, and
//! nothing that it waits for (a free descriptor, a place below the connection limit) holds up anybody's turn.
//!
//! The sockets may be changed while it accepts, through a [`Handle`]. A socket whose address stays is not touched, so
//! nobody who connects to it notices; one that goes is emptied before it is closed, since closing it resets those who
//! wait in its backlog. Sockets that somebody else has opened (a service manager, a process that makes way for this
//! one) take the place of those that would be opened for the same address: see [`Passed`].

use super::descriptors::{is_out_of_descriptors, is_shortage};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// As many connections wait in the kernel while we are busy; std's 128 overflow in a millisecond of a burst.
const BACKLOG: i32 = 4096;

/// So many are accepted from one socket before the others have their turn: no more can have been waiting.
const ROUND: u32 = BACKLOG.unsigned_abs();

/// How soon a halted listener tries again: soon enough for a client not to notice, seldom enough not to spin.
/// (Accepting again at once, without a descriptor, fails at a million times a second.)
const HALT: Duration = Duration::from_millis(20);

const WAKE: Token = Token(usize::MAX);

/// A listening socket that somebody else has opened, and the address that it was opened for. The two may differ: a
/// socket opened for port 0 has a port.
#[derive(Debug)]
pub struct Passed {
    /// As it stands in the settings.
    pub address: SocketAddr,
    /// Listens, or is bound at least.
    pub socket: TcpListener,
}

/// Listening sockets, before anybody accepts from them. `L` is what their owner wants to know of each connection's
/// listener.
#[derive(Debug)]
pub struct Bound<L>(Vec<(Passed, L)>);

/// Begins to listen on each address; port 0 takes a free one. A passed socket serves in the place of the one that would
/// be opened for its address; what is left of those is closed.
///
/// # Errors
/// The address that could not be had, and why.
pub fn bind<L>(
    wanted: impl IntoIterator<Item = (SocketAddr, L)>,
    mut passed: Vec<Passed>,
) -> Result<Bound<L>, (SocketAddr, io::Error)> {
    let mut bound = Vec::new();
    for (address, owner) in wanted {
        let socket = match passed.iter().position(|passed| passed.address == address) {
            Some(nth) => Ok(passed.swap_remove(nth).socket),
            None => TcpListener::bind(address),
        };
        let socket = socket.and_then(listen).map_err(|error| (address, error))?;
        bound.push((Passed { address, socket }, owner));
    }
    for Passed { address, .. } in passed {
        log::warn!("a socket for {address} was passed on to this process, which is not told to listen there");
    }
    Ok(Bound(bound))
}

fn listen(socket: TcpListener) -> io::Result<TcpListener> {
    rustix::net::listen(&socket, BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Lets the kernel keep about so many bytes for a peer that does not read.
///
/// # Errors
/// The kernel's.
pub fn limit_send_buffer(connection: &std::net::TcpStream, bytes: usize) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_send_buffer_size(connection, bytes)?)
}

impl<L> Bound<L> {
    /// The addresses in use, with the ports that the system chose.
    ///
    /// # Errors
    /// The kernel's.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.0.iter().map(|(passed, _)| passed.socket.local_addr()).collect()
    }
}

/// Listening sockets, watched. Dropping them closes them.
pub struct Listeners<L> {
    poll: Poll,
    shared: Arc<Shared<L>>,
}

/// Changes and ends [`Listeners::accept`], from other threads. Clones are the same handle.
pub struct Handle<L>(Arc<Shared<L>>);

struct Shared<L> {
    sources: Mutex<Sources<L>>,
    registry: Registry,
    waker: Waker,
}

struct Sources<L> {
    /// Only the acceptor takes one out, so a position that it has holds until it does.
    all: Vec<Source<L>>,
    next_token: usize,
    stopping: bool,
}

struct Source<L> {
    /// As it stands in the settings.
    address: SocketAddr,
    local: SocketAddr,
    owner: L,
    socket: mio::net::TcpListener,
    token: Token,
    /// Connections may be waiting: accepting has not answered `WouldBlock` since the last event.
    waiting: bool,
    /// To be closed as soon as no connection is waiting.
    leaving: bool,
}

impl<L> Shared<L> {
    fn lock(&self) -> MutexGuard<'_, Sources<L>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, Passed { address, socket }: Passed, owner: L, token: usize) -> io::Result<Source<L>> {
        let (local, token) = (socket.local_addr()?, Token(token));
        let mut socket = mio::net::TcpListener::from_std(socket);
        self.registry.register(&mut socket, token, Interest::READABLE)?;
        Ok(Source { address, local, owner, socket, token, waiting: true, leaving: false })
    }

    fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("the acceptor could not be woken: {error}");
        }
    }
}

impl<L> Clone for Handle<L> {
    fn clone(&self) -> Self {
        Handle(Arc::clone(&self.0))
    }
}

impl<L> Handle<L> {
    /// Stops accepting.
    pub fn stop(&self) {
        self.0.lock().stopping = true;
        self.0.wake();
    }

    /// Where it listens, with the ports that the system chose, in the order of the settings.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.lock().all.iter().filter(|source| !source.leaving).map(|source| source.local).collect()
    }

    /// Listens on these addresses, and on no others from now on; returns them with the ports that the system chose.
    ///
    /// All or nothing: the new ones are opened before anything else is done. A socket whose address stays is kept as it
    /// is, with a new owner; port 0 is an address as any other, so it keeps its port. The connections that wait on an
    /// address that goes are accepted before it is closed, some time after this returns.
    ///
    /// # Errors
    /// The address that could not be had, and why. Nothing has changed then.
    pub fn replace(
        &self,
        wanted: impl IntoIterator<Item = (SocketAddr, L)>,
    ) -> Result<Vec<SocketAddr>, (SocketAddr, io::Error)> {
        let mut sources = self.0.lock();
        let mut kept = vec![false; sources.all.len()];
        let mut plan = Vec::new();
        for (address, owner) in wanted {
            if sources.stopping {
                return Err((address, io::Error::other("the listeners have been stopped")));
            }
            let staying = sources.all.iter().zip(&kept).position(|(source, kept)| source.address == address && !kept);
            if let Some(nth) = staying {
                kept[nth] = true;
                plan.push(Planned::Kept(nth, owner));
                continue;
            }
            let token = sources.next_token;
            sources.next_token += 1;
            let socket = TcpListener::bind(address).and_then(listen);
            let opened = socket.and_then(|socket| self.0.watch(Passed { address, socket }, owner, token));
            plan.push(Planned::New(opened.map_err(|error| (address, error))?));
        }
        // The order changes under the acceptor's feet: it may pass a source by, and is woken to look at all again.
        let mut old: Vec<Option<Source<L>>> = sources.all.drain(..).map(Some).collect();
        for planned in plan {
            let source = match planned {
                Planned::New(source) => Some(source),
                Planned::Kept(nth, owner) => {
                    old[nth].take().map(|source| Source { owner, waiting: true, leaving: false, ..source })
                }
            };
            sources.all.extend(source);
        }
        let addresses = sources.all.iter().map(|source| source.local).collect();
        let leaving = old.into_iter().flatten().map(|source| Source { waiting: true, leaving: true, ..source });
        sources.all.extend(leaving);
        drop(sources);
        self.0.wake();
        Ok(addresses)
    }

    /// The same sockets once more, for another process to accept from.
    ///
    /// # Errors
    /// The kernel's: no descriptor is free.
    pub fn sockets(&self) -> io::Result<Vec<Passed>> {
        let sources = self.0.lock();
        let staying = sources.all.iter().filter(|source| !source.leaving);
        staying
            .map(|source| {
                let socket = source.socket.as_fd().try_clone_to_owned()?.into();
                Ok(Passed { address: source.address, socket })
            })
            .collect()
    }
}

enum Planned<L> {
    Kept(usize, L),
    New(Source<L>),
}

/// What a look at one socket has found.
enum Found<L> {
    Connection(TcpStream, SocketAddr, L),
    Nothing,
    /// The socket was leaving, and has left: another one stands in its place.
    Gone,
    Failure(io::Error),
}

impl<L: Clone> Listeners<L> {
    /// Watches these sockets.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(bound: Bound<L>) -> io::Result<Listeners<L>> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(&registry, WAKE)?;
        let sources = Sources { all: Vec::new(), next_token: bound.0.len(), stopping: false };
        let shared = Arc::new(Shared { sources: Mutex::new(sources), registry, waker });
        let watched = bound.0.into_iter().enumerate().map(|(nth, (passed, owner))| shared.watch(passed, owner, nth));
        let watched = watched.collect::<io::Result<Vec<_>>>()?;
        shared.lock().all = watched;
        Ok(Listeners { poll, shared })
    }

    /// Changes and ends [`Listeners::accept`], from other threads.
    pub fn handle(&self) -> Handle<L> {
        Handle(Arc::clone(&self.shared))
    }

    /// Accepts and admits connections until stopped; then once more until none is waiting, since closing a listener
    /// resets those that are. While `is_full`, connections wait in the backlog. `make_room` is asked to free a
    /// descriptor when there is none, and says whether it could. `admit` is told whose listener it was.
    pub fn accept(
        mut self,
        is_full: impl Fn() -> bool,
        make_room: impl Fn() -> bool,
        admit: impl Fn(TcpStream, SocketAddr, L) -> io::Result<()>,
    ) {
        let mut events = Events::with_capacity(64);
        let mut complaint = Complaint::default();
        loop {
            let stopping = self.shared.lock().stopping;
            let mut pause = None;
            let mut nth = 0;
            let mut round = 0;
            loop {
                if is_full() {
                    pause = Some(HALT);
                    break;
                }
                let found = match self.look(nth) {
                    None => break,
                    Some(Found::Connection(socket, peer, owner)) => admit(socket, peer, owner),
                    Some(Found::Nothing) => {
                        (nth, round) = (nth + 1, 0);
                        continue;
                    }
                    Some(Found::Gone) => {
                        round = 0;
                        continue;
                    }
                    Some(Found::Failure(error)) => Err(error),
                };
                match found {
                    Ok(()) => {}
                    Err(error) if is_shortage(&error) => {
                        complaint.log(&error);
                        if !is_out_of_descriptors(&error) || !make_room() {
                            pause = Some(HALT);
                            (nth, round) = (nth + 1, 0);
                            continue;
                        }
                    }
                    // The client left before it was accepted, or while it was admitted: none of our business.
                    Err(error) => log::debug!("a connection was lost before its first byte: {error}"),
                }
                round += 1;
                if round == ROUND {
                    pause = pause.or(Some(Duration::ZERO));
                    (nth, round) = (nth + 1, 0);
                }
            }
            if stopping {
                return;
            }
            match self.poll.poll(&mut events, pause) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    log::error!("the kernel would not say whether connections are waiting: {error}");
                    return;
                }
                Ok(()) | Err(_) => {}
            }
            let mut sources = self.shared.lock();
            for event in &events {
                let source = sources.all.iter_mut().find(|source| source.token == event.token());
                source.into_iter().for_each(|source| source.waiting = true);
            }
        }
    }

    /// One connection from the nth socket; none if there is no such socket. The lock is not held while it is admitted.
    fn look(&self, nth: usize) -> Option<Found<L>> {
        let mut sources = self.shared.lock();
        let source = sources.all.get_mut(nth)?;
        if !source.waiting {
            return Some(Found::Nothing);
        }
        match source.socket.accept() {
            Ok((socket, peer)) => Some(Found::Connection(socket, peer, source.owner.clone())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                source.waiting = false;
                if !source.leaving {
                    return Some(Found::Nothing);
                }
                let mut gone = sources.all.remove(nth);
                // Closing is not enough: another process may hold the same socket, and its events would go on.
                if let Err(error) = self.shared.registry.deregister(&mut gone.socket) {
                    log::error!("the kernel would not forget the socket of {}: {error}", gone.local);
                }
                Some(Found::Gone)
            }
            Err(error) => Some(Found::Failure(error)),
        }
    }
}

impl<L> Drop for Listeners<L> {
    fn drop(&mut self) {
        // A handle may live on, and the sockets are not to live on with it.
        let mut sources = self.shared.lock();
        sources.stopping = true;
        sources.all.clear();
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
