//! The floor: a relay on the same lot that parses nothing.
//!
//! Each client has a backend connection of its own; what comes from one goes to the other, as it is. Two workers wait
//! exactly as ours do. What we need beyond it is what HTTP and balancing cost: it can be compared with, but
//! not beaten by much.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use threadbare::net::{Acceptor, Connection, Lot, Unparked, Wants, Watch, bind, raise_limit};

/// A client, its backend, and what the backend could not take before it was connected.
struct Pair {
    client: Connection,
    backend: Option<Connection>,
    waiting: Vec<u8>,
}

struct Relay {
    lot: Lot<Pair>,
    backends: Vec<SocketAddr>,
    turns: AtomicUsize,
}

pub(crate) fn relay(listen: &str, backends: &[&str]) {
    let relay = Arc::new(Relay {
        lot: Lot::new(raise_limit()).unwrap(),
        backends: backends.iter().map(|address| address.parse().unwrap()).collect(),
        turns: AtomicUsize::new(0),
    });
    for _ in 0..2 {
        let relay = Arc::clone(&relay);
        thread::spawn(move || work(&relay));
    }
    let acceptor = Acceptor::new(bind([(listen.parse().unwrap(), ())], Vec::new()).unwrap()).unwrap();
    acceptor.accept(
        || Some(()),
        || false,
        |socket, _, (), ()| {
            relay
                .lot
                .admit(socket, in_an_hour(), |client| Box::new(Pair { client, backend: None, waiting: Vec::new() }))
        },
    );
}

fn in_an_hour() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

fn work(relay: &Relay) {
    let mut buffer = vec![0; 64 * 1024];
    let mut ready = Vec::new();
    while relay.lot.wait(&mut ready).is_some() {
        for pair in ready.drain(..) {
            take_turns(relay, pair, &mut buffer);
        }
    }
}

fn take_turns(relay: &Relay, mut pair: Box<Pair>, buffer: &mut [u8]) {
    while pair.turn(relay, buffer).is_ok() {
        let wants = if pair.waiting.is_empty() { Wants::READABLE } else { Wants::WRITABLE };
        let mut watch = Watch::client(&pair.client, Wants::READABLE, in_an_hour());
        if let Some(backend) = &pair.backend {
            watch = watch.and_backend(backend, wants);
        }
        match relay.lot.park(pair, watch) {
            Err(Unparked::Ready(back)) => pair = back,
            Ok(()) | Err(Unparked::Refused(_)) => return,
        }
    }
}

impl Pair {
    /// An error: one of the two is gone.
    fn turn(&mut self, relay: &Relay, buffer: &mut [u8]) -> io::Result<()> {
        if let Some(n) = read(&mut self.client, buffer)? {
            let backend = match &mut self.backend {
                Some(backend) => backend,
                none => {
                    let turn = relay.turns.fetch_add(1, Ordering::Relaxed);
                    none.insert(self.client.dial(relay.backends[turn % relay.backends.len()])?)
                }
            };
            if !write(backend, &buffer[..n])? {
                self.waiting.extend_from_slice(&buffer[..n]);
            }
        }
        let Some(backend) = &mut self.backend else { return Ok(()) };
        if !self.waiting.is_empty() && write(backend, &self.waiting)? {
            self.waiting = Vec::new();
        }
        if let Some(n) = read(backend, buffer)? {
            write(&mut self.client, &buffer[..n])?;
        }
        Ok(())
    }
}

/// `None`: there is nothing now.
fn read(from: &mut Connection, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match from.read(buffer) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(n) => Ok(Some(n)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// `false`: nothing was taken. Small messages are taken whole, or not at all.
fn write(to: &mut Connection, bytes: &[u8]) -> io::Result<bool> {
    match to.write(&[bytes]) {
        Ok(n) if n == bytes.len() => Ok(true),
        Ok(_) => Err(io::Error::other("the floor is for small messages")),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
