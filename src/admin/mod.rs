//! The admin listener: the page, what it is made of, and two orders.
//!
//! It has a listener and threads of its own, so nothing that it does, and nobody who asks it, can slow a worker down. What
//! it tells is read from counters that nobody locks (`metrics`); it is read a few times a second, however often it is
//! asked for. No lock and no channel that a worker could wait on may enter here.
//!
//! What may be asked for is little, so this is the plainest server that does: a thread for each connection, one request
//! on each, and a bound on both. Requests are read by the same rules as the proxy's own.
//!
//! - `guard`: who may ask for what;
//! - `visit`: one connection, from its head to its answer;
//! - `answer`: what is answered, and the fields that go with everything;
//! - `pulse`: the numbers four times a second, and what has happened in between;
//! - `stats`: the numbers as JSON;
//! - `reading`: the chapters of the walkthrough;
//! - `page`: the glass box, and its tables for those without script;
//! - `tables`: the same numbers as plain tables.

mod answer;
mod guard;
mod page;
mod pulse;
mod reading;
mod stats;
mod tables;
mod visit;

use crate::exchange::Shared;
use crate::net::{Acceptor, Headcount, Listeners};
use pulse::Board;
use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So many may watch the event stream at once.
const VIEWERS: usize = 8;

/// So many other visits have time. While there are more, all are in haste: see `visit`.
const VISITS: usize = 16;

/// So many there are at most; more wait in the backlog.
const CROWD: usize = 64;

/// How long what is still being said is waited for at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The admin listener. Dropping it ends it.
pub struct Admin {
    house: Arc<House>,
    listeners: Listeners<()>,
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

/// What all visits share.
struct House {
    shared: Arc<Shared>,
    board: Board,
    /// Held by the visit that writes the numbers down: a crowd that asks for them has one processor at most.
    pen: Mutex<()>,
    /// Visits that are no viewers.
    visits: Arc<Headcount>,
    viewers: Arc<Headcount>,
    /// The connections of all visits, to be cut at the end.
    open: Mutex<HashMap<u64, TcpStream>>,
}

impl Admin {
    /// Serves the listener of this acceptor.
    ///
    /// # Errors
    /// There is none, or no thread could be started.
    pub fn start(shared: &Arc<Shared>, acceptor: Acceptor<()>) -> io::Result<Admin> {
        let house = Arc::new(House {
            shared: Arc::clone(shared),
            board: Board::new(shared),
            pen: Mutex::default(),
            visits: Headcount::of_at_most(CROWD),
            viewers: Headcount::of_at_most(VIEWERS),
            open: Mutex::default(),
        });
        let listeners = acceptor.listeners();
        let address = listeners.addresses().first().copied().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut admin = Admin { house: Arc::clone(&house), listeners, address, threads: Vec::new() };
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        admin.threads.push(thread("admin pulse").spawn(move || house.beat())?);
        let house = Arc::clone(&admin.house);
        admin.threads.push(thread("admin").spawn(move || accept(&house, acceptor))?);
        Ok(admin)
    }

    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its listening sockets, to be handed over, and then to be stopped.
    pub fn listeners(&self) -> Listeners<()> {
        self.listeners.clone()
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.listeners.stop();
        self.house.board.end();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the admin listener has ended in a panic");
            }
        }
        // Viewers see that it is over; who is still asking is cut off.
        for connection in self.house.connections().values() {
            let _gone = connection.shutdown(Shutdown::Both);
        }
        let deadline = Instant::now() + LAST_WORDS;
        let _left_behind =
            self.house.viewers.wait_until_empty(deadline) && self.house.visits.wait_until_empty(deadline);
    }
}

impl House {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives every connection a thread.
fn accept(house: &Arc<House>, acceptor: Acceptor<()>) {
    let number = Cell::new(0);
    acceptor.accept(
        || house.visits.enter(),
        || false,
        |socket, _, (), presence| {
            let connection = TcpStream::from(socket);
            connection.set_nonblocking(false)?;
            number.set(number.get() + 1);
            let visit = visit::Visit::new(house, connection, number.get(), presence)?;
            let thread = std::thread::Builder::new().name("admin visit".to_owned());
            thread.spawn(move || visit.serve()).map(drop)
        },
    );
}
