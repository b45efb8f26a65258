//! Short connections that find out whether anybody is there, many at once, in one thread.
//!
//! A probe connects, says its words if it has any, and listens until its owner has heard enough. Each has a deadline
//! of its own, and none waits for another. Of several addresses each has its share of the time. What the words mean is the
//! owner's business.

use super::descriptors::is_shortage;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What is kept of an answer. It need only show how it begins; a longer head is no healthy sign.
const MOST_HEARD: usize = 16 * 1024;

const CALL: Token = Token(usize::MAX);

/// What became of a probe.
#[derive(Debug)]
pub enum Found {
    /// A connection was made, and there was nothing to say.
    Opened,
    /// Its owner has heard enough.
    Heard(Vec<u8>),
    /// There is no way in; of several addresses, the last one's error.
    Refused(io::Error),
    /// A connection was made and lost, or ended before enough was heard.
    Cut,
    /// More was said than is listened to.
    Endless,
    /// The deadline passed before there was a connection.
    NoConnection,
    /// The deadline passed before enough was heard.
    NoAnswer,
    /// Not tried, for want of descriptors or the like: tells nothing about the other side.
    NotTried(io::Error),
}

/// Probes under way, each known by a number that its owner chose.
pub struct Probes {
    poll: Poll,
    events: Events,
    waker: Arc<Waker>,
    called: Arc<AtomicBool>,
    under_way: HashMap<u64, Probe>,
    /// Those that were over as soon as they had begun.
    over: Vec<(u64, Found)>,
}

/// Ends the waiting for probes, from another thread and for good.
pub struct ProbeStopper(Arc<Waker>, Arc<AtomicBool>);

impl ProbeStopper {
    /// From now on [`Probes::wait`] returns at once.
    pub fn stop(&self) {
        self.1.store(true, Ordering::Release);
        if let Err(error) = self.0.wake() {
            log::error!("the probes could not be stopped: {error}");
        }
    }
}

impl Probes {
    /// No probes yet.
    ///
    /// # Errors
    /// The kernel has no poll to give.
    pub fn new() -> io::Result<Probes> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), CALL)?);
        let called = Arc::new(AtomicBool::new(false));
        let events = Events::with_capacity(64);
        Ok(Probes { poll, events, waker, called, under_way: HashMap::new(), over: Vec::new() })
    }

    /// Ends the waiting, from another thread.
    pub fn stopper(&self) -> ProbeStopper {
        ProbeStopper(Arc::clone(&self.waker), Arc::clone(&self.called))
    }

    /// Whether they have been stopped.
    pub fn is_stopped(&self) -> bool {
        self.called.load(Ordering::Acquire)
    }

    /// Begins one: each of these addresses in turn until one lets us in; then these words. The number must be free.
    pub fn begin(&mut self, number: u64, addresses: &[SocketAddr], words: Vec<u8>, deadline: Instant) {
        let mut addresses = addresses.to_vec();
        addresses.reverse(); // the next one is popped
        match connect(&self.poll, number, &mut addresses) {
            Ok(socket) => {
                let until = share(&addresses, deadline);
                let probe = Probe {
                    socket,
                    addresses,
                    until,
                    is_connected: false,
                    words,
                    said: 0,
                    heard: Vec::new(),
                    deadline,
                };
                self.under_way.insert(number, probe);
            }
            Err(found) => self.over.push((number, found)),
        }
    }

    /// Waits until one is over, or until then; returns those that are. `is_enough` judges what one has heard so far.
    ///
    /// # Errors
    /// The kernel would not say what has happened.
    pub fn wait(
        &mut self,
        until: Instant,
        mut is_enough: impl FnMut(u64, &[u8]) -> bool,
    ) -> io::Result<Vec<(u64, Found)>> {
        loop {
            let mut over = std::mem::take(&mut self.over);
            let now = Instant::now();
            self.under_way.retain(|number, probe| match probe.overdue(&self.poll, *number, now) {
                Some(found) => {
                    over.push((*number, found));
                    false
                }
                None => true,
            });
            if !over.is_empty() || now >= until || self.is_stopped() {
                return Ok(over);
            }
            let next = self.under_way.values().map(Probe::patience).fold(until, Instant::min);
            // A millisecond more, since the kernel counts in whole ones and may round down.
            let patience = next.saturating_duration_since(now) + Duration::from_millis(1);
            match self.poll.poll(&mut self.events, Some(patience)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                Ok(()) | Err(_) => {}
            }
            for event in &self.events {
                let Ok(number) = u64::try_from(event.token().0) else { continue };
                let Some(probe) = self.under_way.get_mut(&number) else { continue };
                let enough = |heard: &[u8]| is_enough(number, heard);
                if let Some(found) = probe.go_on(&self.poll, number, event, enough) {
                    self.under_way.remove(&number);
                    self.over.push((number, found));
                }
            }
        }
    }
}

struct Probe {
    socket: TcpStream,
    /// Where else to try, the next one last.
    addresses: Vec<SocketAddr>,
    /// Until then this address may let us in: a silent one leaves the others their time.
    until: Instant,
    is_connected: bool,
    words: Vec<u8>,
    /// How many of the words have been said.
    said: usize,
    heard: Vec<u8>,
    deadline: Instant,
}

impl Probe {
    fn go_on(
        &mut self,
        poll: &Poll,
        number: u64,
        event: &Event,
        is_enough: impl FnOnce(&[u8]) -> bool,
    ) -> Option<Found> {
        if !self.is_connected {
            match is_connected(&self.socket) {
                Ok(true) => self.is_connected = true,
                Ok(false) if !event.is_error() => return None,
                Ok(false) => return self.try_next(poll, number, ErrorKind::ConnectionRefused.into()),
                Err(error) => return self.try_next(poll, number, error),
            }
        }
        if self.words.is_empty() {
            return Some(Found::Opened);
        }
        while self.said < self.words.len() {
            match self.socket.write(&self.words[self.said..]) {
                Ok(n) => self.said += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break, // it may have answered before it closed
            }
        }
        self.listen(is_enough)
    }

    fn listen(&mut self, is_enough: impl FnOnce(&[u8]) -> bool) -> Option<Found> {
        let mut buffer = [0; 2048];
        let is_ended = loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => break true,
                Ok(n) => self.heard.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break true,
            }
            if self.heard.len() > MOST_HEARD {
                break false;
            }
        };
        if is_enough(&self.heard) {
            return Some(Found::Heard(std::mem::take(&mut self.heard)));
        }
        if self.heard.len() > MOST_HEARD {
            return Some(Found::Endless);
        }
        is_ended.then_some(Found::Cut)
    }

    /// How long this is waited for.
    fn patience(&self) -> Instant {
        if self.is_connected { self.deadline } else { self.until }
    }

    /// What has become of it if its time is over: it may have another address to try.
    fn overdue(&mut self, poll: &Poll, number: u64, now: Instant) -> Option<Found> {
        if now < self.patience() {
            return None;
        }
        match self.is_connected {
            true => Some(Found::NoAnswer),
            false if now >= self.deadline || self.addresses.is_empty() => Some(Found::NoConnection),
            false => self.try_next(poll, number, ErrorKind::TimedOut.into()),
        }
    }

    fn try_next(&mut self, poll: &Poll, number: u64, error: io::Error) -> Option<Found> {
        if self.addresses.is_empty() {
            return Some(of_connecting(error));
        }
        match connect(poll, number, &mut self.addresses) {
            Ok(socket) => {
                self.socket = socket;
                self.until = share(&self.addresses, self.deadline);
                None
            }
            Err(found) => Some(found),
        }
    }
}

/// Until when the address that is tried now may take its time, if these are to have as much.
fn share(others: &[SocketAddr], deadline: Instant) -> Instant {
    let now = Instant::now();
    let parts = u32::try_from(others.len()).unwrap_or(u32::MAX).saturating_add(1);
    now + deadline.saturating_duration_since(now) / parts
}

/// Begins to connect to the first of these that does not fail at once.
fn connect(poll: &Poll, number: u64, addresses: &mut Vec<SocketAddr>) -> Result<TcpStream, Found> {
    let Ok(token) = usize::try_from(number) else {
        return Err(Found::NotTried(ErrorKind::InvalidInput.into()));
    };
    let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
    while let Some(address) = addresses.pop() {
        let begun = TcpStream::connect(address).and_then(|mut socket| {
            poll.registry().register(&mut socket, Token(token), Interest::READABLE | Interest::WRITABLE)?;
            Ok(socket)
        });
        match begun {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(of_connecting(last))
}

fn of_connecting(error: io::Error) -> Found {
    if is_shortage(&error) { Found::NotTried(error) } else { Found::Refused(error) }
}

/// Whether the connection stands by now.
fn is_connected(socket: &TcpStream) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        // Our own port, of all: the kernel gave it to us, and nobody listened. (A connection can meet itself.)
        Ok(peer) if socket.local_addr()? == peer => Err(ErrorKind::ConnectionRefused.into()),
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}
