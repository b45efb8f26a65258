//! Where connections come from.
//!
//! A listening socket rings when somebody comes, and whoever hears it accepts: the workers, for their clients. So a
//! newcomer wakes no thread that only hands it on. None of them ever waits here. Where no place or no descriptor is free,
//! newcomers stay in the backlog, and the one who has found that out comes again a moment later; until then nobody else
//! need try.
//!
//! The sockets may be changed meanwhile. A socket whose address stays is not touched, so nobody who connects to it
//! notices; one that goes is emptied before it is closed, since closing it resets those who wait in its backlog. Sockets
//! that somebody else has opened (a service manager, a process that makes way for this one) take the place of those that
//! would be opened for the same address: see [`Passed`].

use super::descriptors::{is_out_of_descriptors, is_shortage};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token, Waker};
use rustix::io::Errno;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// As many connections wait in the kernel while we are busy; std's 128 overflow in a millisecond of a burst.
const BACKLOG: i32 = 4096;

/// So many are accepted from one socket before something else has its turn: as many as events are told at once.
const AT_ONCE: u32 = 16;

/// How soon it is tried again where no place or no descriptor was free: soon enough for a client not to notice, seldom
/// enough not to spin. (Accepting again at once, without a descriptor, fails at a million times a second.)
const HALT: Duration = Duration::from_millis(20);

/// Where the tokens of listening sockets begin: no other socket has one beyond it.
const FIRST_BELL: usize = 1 << 62;

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

/// Where listening sockets are registered, and how a thread that waits there is woken.
#[derive(Debug)]
pub struct Bells {
    pub(super) registry: Registry,
    pub(super) waker: Arc<Waker>,
}

/// The token of one listening socket.
#[derive(Clone, Copy, Debug)]
pub struct Bell(Token);

impl Bell {
    /// `None`: the token of something else.
    pub(super) fn of_token(token: Token) -> Option<Bell> {
        (token.0 >= FIRST_BELL).then_some(Bell(token))
    }
}

/// Listening sockets, watched. Clones are the same sockets.
pub struct Listeners<L>(Arc<Shared<L>>);

struct Shared<L> {
    sources: RwLock<Sources<L>>,
    /// Who is to look next: see [`RUNG`] and [`HALTED`].
    state: AtomicU8,
    /// Where the next look begins: where the last one ended for want of a place.
    next: AtomicUsize,
    bells: Bells,
    complaint: Complaint,
}

/// Somebody may have come since the last look. It is taken back before each look, as hints are: see `Hints`.
///
/// | state | who looks next |
/// |---|---|
/// | neither | nobody need |
/// | `RUNG` | whoever takes it first |
/// | `HALTED` | who has promised it; nobody else |
/// | both | the same: that look is at all sockets |
const RUNG: u8 = 1;
/// There was no room for who has come, and somebody has promised to look again: see [`Promise`].
const HALTED: u8 = 2;

struct Sources<L> {
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
    /// Connections may be waiting. Taken back before each look, too.
    waiting: AtomicBool,
    /// To be closed as soon as no connection is waiting.
    leaving: bool,
}

impl<L> Source<L> {
    /// The same, to be looked at.
    fn looked_at_again(self, leaving: bool) -> Source<L> {
        Source { waiting: AtomicBool::new(true), leaving, ..self }
    }
}

impl<L> Shared<L> {
    fn read(&self) -> RwLockReadGuard<'_, Sources<L>> {
        self.sources.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Sources<L>> {
        self.sources.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, Passed { address, socket }: Passed, owner: L, nth: usize) -> io::Result<Source<L>> {
        let (local, token) = (socket.local_addr()?, Token(FIRST_BELL + nth));
        let mut socket = mio::net::TcpListener::from_std(socket);
        self.bells.registry.register(&mut socket, token, Interest::READABLE)?;
        Ok(Source { address, local, owner, socket, token, waiting: AtomicBool::new(true), leaving: false })
    }

    /// To be done before it is closed: another process may hold the same socket, and its events would go on.
    fn unwatch(&self, source: &mut Source<L>) {
        if let Err(error) = self.bells.registry.deregister(&mut source.socket) {
            log::error!("the kernel would not forget the socket of {}: {error}", source.local);
        }
    }

    fn watch_again(&self, source: &mut Source<L>) {
        if let Err(error) = self.bells.registry.register(&mut source.socket, source.token, Interest::READABLE) {
            log::error!("the kernel would not watch the socket of {}: {error}", source.local);
        }
    }

    /// Has somebody look who waits for events.
    fn call(&self) {
        self.ring();
        if let Err(error) = self.bells.waker.wake() {
            log::error!("nobody could be woken to accept connections: {error}");
        }
    }

    /// To be called after `waiting` was set, so that whoever looks for this sees that.
    fn ring(&self) {
        self.state.fetch_or(RUNG, Ordering::AcqRel);
    }

    /// Whether somebody has rung, and nobody has promised to look again. It is heard only once.
    fn take_ring(&self) -> bool {
        self.state.load(Ordering::Relaxed) == RUNG && self.state.fetch_and(!RUNG, Ordering::AcqRel) & RUNG != 0
    }
}

impl<L> Clone for Listeners<L> {
    fn clone(&self) -> Self {
        Listeners(Arc::clone(&self.0))
    }
}

impl<L> Listeners<L> {
    /// Watches these sockets; they ring by these bells.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(bound: Bound<L>, bells: Bells) -> io::Result<Listeners<L>> {
        let sources = Sources { all: Vec::new(), next_token: bound.0.len(), stopping: false };
        let (sources, state, next) = (RwLock::new(sources), AtomicU8::new(RUNG), AtomicUsize::new(0));
        let shared = Shared { sources, state, next, bells, complaint: Complaint::default() };
        let watched = bound.0.into_iter().enumerate().map(|(nth, (passed, owner))| shared.watch(passed, owner, nth));
        let watched = watched.collect::<io::Result<Vec<_>>>()?;
        shared.write().all = watched;
        Ok(Listeners(Arc::new(shared)))
    }

    /// Whether it is about to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.0.read().stopping
    }

    /// Where it listens, with the ports that the system chose, in the order of the settings.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.0.read().all.iter().filter(|source| !source.leaving).map(|source| source.local).collect()
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
        let mut sources = self.0.write();
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
            let nth = sources.next_token;
            sources.next_token += 1;
            let socket = TcpListener::bind(address).and_then(listen);
            let opened = socket.and_then(|socket| self.0.watch(Passed { address, socket }, owner, nth));
            plan.push(Planned::New(opened.map_err(|error| (address, error))?));
        }
        // The order changes under the feet of those who accept: they may pass a source by, and all are looked at again.
        let mut old: Vec<Option<Source<L>>> = sources.all.drain(..).map(Some).collect();
        for planned in plan {
            let source = match planned {
                Planned::New(source) => Some(source),
                Planned::Kept(nth, owner) => {
                    old[nth].take().map(|source| Source { owner, ..source.looked_at_again(false) })
                }
            };
            sources.all.extend(source);
        }
        let addresses = sources.all.iter().map(|source| source.local).collect();
        sources.all.extend(old.into_iter().flatten().map(|source| source.looked_at_again(true)));
        drop(sources);
        self.0.call();
        Ok(addresses)
    }

    /// The same sockets once more, for another process to accept from.
    ///
    /// # Errors
    /// The kernel's: no descriptor is free.
    pub fn sockets(&self) -> io::Result<Vec<Passed>> {
        let sources = self.0.read();
        let staying = sources.all.iter().filter(|source| !source.leaving);
        staying
            .map(|source| {
                let socket = source.socket.as_fd().try_clone_to_owned()?.into();
                Ok(Passed { address: source.address, socket })
            })
            .collect()
    }

    /// Somebody has come, as an event has told.
    pub fn hear(&self, bell: Bell) {
        if let Some(source) = self.0.read().all.iter().find(|source| source.token == bell.0) {
            source.waiting.store(true, Ordering::Release);
            self.0.ring();
        }
    }

    /// Closes all sockets, for whoever holds a clone too. Who waits in a backlog is reset: see [`Listeners::finish`].
    pub(super) fn close(&self) {
        let mut sources = self.0.write();
        sources.stopping = true;
        sources.all.drain(..).for_each(|mut source| self.0.unwatch(&mut source));
    }

    /// Has nobody accept any more but who [finishes](Listeners::finish); an [`Acceptor`](super::Acceptor) does so itself.
    pub fn stop(&self) {
        self.0.write().stopping = true;
        self.0.call();
    }

    /// That of somebody who accepts, and has promised nothing yet.
    pub fn promise(&self) -> Promise<L> {
        Promise { listeners: self.clone(), due: None }
    }
}

/// When somebody who accepts is to look again, though nobody rings. Others may rely on that; so it does not end with a
/// thread that ends: dropped, it has somebody else look.
pub struct Promise<L> {
    listeners: Listeners<L>,
    due: Option<Instant>,
}

impl<L> Promise<L> {
    /// When that is; `None`: nothing is promised.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Promises to look at this time, whatever was promised.
    pub fn look_at(&mut self, time: Instant) {
        self.due = Some(time);
    }
}

impl<L> Drop for Promise<L> {
    fn drop(&mut self) {
        if self.due.is_some() {
            self.listeners.0.state.fetch_and(!HALTED, Ordering::AcqRel);
            self.listeners.0.call();
        }
    }
}

enum Planned<L> {
    Kept(usize, L),
    New(Source<L>),
}

/// What a look at one socket has found.
enum Found<L, P> {
    Connection(TcpStream, SocketAddr, L, P),
    Nothing,
    /// There may be somebody, and there is no place.
    Full,
    /// The socket was leaving, and has left: another one stands in its place.
    Gone,
    Failure(io::Error),
}

/// How far one socket has been emptied.
enum Emptied {
    /// Nobody waits there, or there is no such socket any more.
    Yes,
    /// Somebody may wait still: others first.
    Partly,
    /// Somebody may wait, and can't be accepted now.
    NotNow,
    /// There is no place for anybody, or, where some got one, for others.
    Full { some: bool },
}

impl<L: Clone> Listeners<L> {
    /// Accepts and admits connections that wait, if somebody has rung, or the caller's `promise` is due: some of them, so
    /// that others have their turn.
    ///
    /// For each connection, `place` gives one first; while it gives none, connections wait in the backlog. `make_room` is
    /// asked to free a descriptor when there is none, and says whether it could. `admit` is told whose listener it was.
    pub fn accept<P>(
        &self,
        promise: &mut Promise<L>,
        now: Instant,
        place: impl Fn() -> Option<P>,
        make_room: impl Fn() -> bool,
        admit: impl Fn(TcpStream, SocketAddr, L, P) -> io::Result<()>,
    ) {
        if promise.due.is_some_and(|due| due <= now) {
            self.0.state.swap(0, Ordering::AcqRel);
        } else if !self.0.take_ring() {
            return;
        }
        let again = self.look_at_all(false, place, make_room, admit);
        match again {
            Some(Duration::ZERO) => self.0.ring(), // for whoever comes first
            Some(_) => drop(self.0.state.fetch_or(HALTED, Ordering::AcqRel)),
            None => {}
        }
        promise.due = again.map(|pause| now + pause);
    }

    /// Accepts and admits all connections that wait and have a place, since closing a listener resets those that don't,
    /// and closes the sockets. Nobody else looks meanwhile.
    pub fn finish<P>(
        &self,
        place: impl Fn() -> Option<P>,
        make_room: impl Fn() -> bool,
        admit: impl Fn(TcpStream, SocketAddr, L, P) -> io::Result<()>,
    ) {
        let mut sources = self.0.write();
        sources.stopping = true;
        sources.all.iter_mut().for_each(|source| *source.waiting.get_mut() = true);
        drop(sources);
        self.look_at_all(true, place, make_room, admit);
        self.close();
    }

    /// Looks at each socket, and empties it, or for some part if this is not the last look. How soon to look again, if
    /// somebody may wait still.
    fn look_at_all<P>(
        &self,
        is_last: bool,
        place: impl Fn() -> Option<P>,
        make_room: impl Fn() -> bool,
        admit: impl Fn(TcpStream, SocketAddr, L, P) -> io::Result<()>,
    ) -> Option<Duration> {
        let mut again = None;
        let count = self.0.read().all.len();
        let first = self.0.next.load(Ordering::Relaxed);
        for nth in (first..first + count).map(|nth| nth % count) {
            match self.empty(nth, is_last, &place, &make_room, &admit) {
                Emptied::Yes => {}
                Emptied::Partly => again = again.or(Some(Duration::ZERO)),
                Emptied::NotNow => again = Some(HALT),
                Emptied::Full { some } => {
                    // A place that is left is for who waits here, or, after one of them, at the next.
                    self.0.next.store(nth + usize::from(some), Ordering::Relaxed);
                    return Some(HALT);
                }
            }
        }
        again
    }

    /// Accepts and admits who waits at the nth socket.
    fn empty<P>(
        &self,
        nth: usize,
        is_last: bool,
        place: impl Fn() -> Option<P>,
        make_room: impl Fn() -> bool,
        admit: impl Fn(TcpStream, SocketAddr, L, P) -> io::Result<()>,
    ) -> Emptied {
        // No more can have been waiting at the last look.
        let most = if is_last { BACKLOG.unsigned_abs() } else { AT_ONCE };
        let (mut shortages, mut some) = (0, false);
        for _ in 0..most {
            let admitted = match self.look(nth, is_last, &place) {
                Found::Nothing => return Emptied::Yes,
                Found::Full => return Emptied::Full { some },
                Found::Gone => continue,
                Found::Connection(socket, peer, owner, place) => admit(socket, peer, owner, place),
                Found::Failure(error) if is_fault_of_ours(&error) => {
                    log::error!("nobody can be accepted: {error}");
                    return Emptied::Yes; // as far as can be: until it rings again
                }
                Found::Failure(error) => Err(error),
            };
            match admitted {
                Ok(()) => some = true,
                Err(error) if is_shortage(&error) => {
                    self.0.complaint.log(&error);
                    if !is_out_of_descriptors(&error) || !make_room() {
                        return Emptied::NotNow;
                    }
                    shortages += 1;
                    if shortages == 2 && !is_last {
                        return Emptied::Partly; // finding who may go takes its time: others first
                    }
                }
                // The client left before it was accepted, or while it was admitted: none of our business.
                Err(error) => log::debug!("a connection was lost before its first byte: {error}"),
            }
        }
        if some { Emptied::Partly } else { Emptied::NotNow }
    }

    /// One connection from the nth socket, if there is such a socket. The lock is not held while it is admitted.
    fn look<P>(&self, nth: usize, is_last: bool, place: impl Fn() -> Option<P>) -> Found<L, P> {
        let sources = self.0.read();
        let Some(source) = sources.all.get(nth) else { return Found::Nothing };
        // The last look is one thread's alone: another would hide from it who waits.
        if sources.stopping && !is_last || !source.waiting.swap(false, Ordering::AcqRel) {
            return Found::Nothing;
        }
        let found = source.look(&place);
        if !source.leaving || !matches!(found, Found::Nothing) {
            return found;
        }
        let token = source.token;
        drop(sources);
        self.look_and_close(token, is_last, place)
    }

    /// The same for one that is leaving, and at which nobody seems to wait. If nobody does, it is closed, and nothing that
    /// takes its time lies in between: who comes there is reset.
    fn look_and_close<P>(&self, token: Token, is_last: bool, place: impl Fn() -> Option<P>) -> Found<L, P> {
        let mut sources = self.0.write();
        let Some(nth) = sources.all.iter().position(|source| source.token == token && source.leaving) else {
            return Found::Nothing; // somebody else was faster, or it is wanted again, and has been rung
        };
        if sources.stopping && !is_last {
            return Found::Nothing;
        }
        let source = &mut sources.all[nth];
        self.0.unwatch(source);
        let found = source.look(place);
        if let Found::Nothing = found {
            drop(sources.all.remove(nth));
            self.0.call(); // others have moved up, and whoever looks at them just now may pass one by
            return Found::Gone;
        }
        self.0.watch_again(source);
        found
    }
}

/// Whether accepting at this socket fails for good: no client has brought it about.
fn is_fault_of_ours(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::BADF | Errno::NOTSOCK))
}

impl<L: Clone> Source<L> {
    fn look<P>(&self, place: impl Fn() -> Option<P>) -> Found<L, P> {
        let found = match place() {
            None => Found::Full,
            Some(place) => match self.socket.accept() {
                Ok((socket, peer)) => Found::Connection(socket, peer, self.owner.clone(), place),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Found::Nothing,
                Err(error) => Found::Failure(error),
            },
        };
        let is_over = match &found {
            Found::Nothing => true,
            Found::Failure(error) => is_fault_of_ours(error),
            Found::Connection(..) | Found::Full | Found::Gone => false,
        };
        if !is_over {
            self.waiting.store(true, Ordering::Release);
        }
        found
    }
}

/// Says once a second what goes wrong thousands of times.
#[derive(Default)]
struct Complaint {
    last: Mutex<Option<Instant>>,
}

impl Complaint {
    fn log(&self, error: &io::Error) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            log::warn!("connections wait in the backlog: {error}");
            *last = Some(Instant::now());
        }
    }
}
