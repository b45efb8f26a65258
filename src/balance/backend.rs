//! One backend, with its addresses, spares and counts.

use super::Origin;
use super::spares::{Need, Spares};
use crate::net::Connection;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A server that answers requests.
#[derive(Debug)]
pub struct Backend {
    /// What it is called in the log: host, port and prefix.
    pub name: Arc<str>,
    /// How the operator named it.
    pub origin: Origin,
    /// Where it is; never empty.
    addresses: Vec<SocketAddr>,
    /// Which of them answered last.
    preferred: AtomicUsize,
    spares: Spares,
    in_flight: AtomicUsize,
    dials: AtomicUsize,
}

impl Backend {
    /// A backend at these addresses; `None` if there are none.
    pub fn new(origin: Origin, addresses: Vec<SocketAddr>) -> Option<Backend> {
        if addresses.is_empty() {
            return None;
        }
        Some(Backend {
            name: format!("{}{}", origin.authority, origin.prefix).into(),
            origin,
            addresses,
            preferred: AtomicUsize::new(0),
            spares: Spares::new(),
            in_flight: AtomicUsize::new(0),
            dials: AtomicUsize::new(0),
        })
    }

    /// A kept connection, bound to whoever waits under `client`.
    /// Also says since when it was kept.
    pub fn spare(&self, client: &Connection, need: Need, now: Instant) -> Option<(Connection, Instant)> {
        let (connection, rested) = self.spares.take(need, now)?;
        connection.bind_to(client);
        Some((connection, rested))
    }

    /// A new connection to the `nth` of its addresses, bound to whoever waits under `client`.
    ///
    /// # Errors
    /// The kernel's, for what it can say at once.
    pub fn dial(&self, client: &Connection, nth: usize) -> io::Result<Connection> {
        let connection = client.dial(self.addresses[nth % self.addresses.len()])?;
        self.dials.fetch_add(1, Ordering::Relaxed);
        Ok(connection)
    }

    /// Which of its addresses was reached last.
    pub fn preferred_address(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    /// The `nth` address has been reached: it is preferred from now on.
    pub fn prefer(&self, nth: usize) {
        if self.preferred_address() != nth {
            self.preferred.store(nth, Ordering::Relaxed);
        }
    }

    /// How many addresses it has.
    pub fn address_count(&self) -> usize {
        self.addresses.len()
    }

    /// Keeps a connection for the next request, at most for `life`.
    pub fn rest(&self, connection: Connection, now: Instant, life: Duration) {
        self.spares.rest(connection, now, life);
    }

    /// A kept connection was closed by the backend when it was used again, this long after it had been rested.
    pub fn note_closed_spare(&self, age: Duration) {
        self.spares.note_closed(age);
    }

    /// Closes spares that are too old or dead. To be called every tick.
    pub fn sweep(&self, now: Instant) {
        self.spares.sweep(now);
    }

    /// Closes the oldest spare, and says whether there was one.
    pub fn close_oldest_spare(&self) -> bool {
        self.spares.close_oldest()
    }

    /// Connections opened so far.
    pub fn dials(&self) -> usize {
        self.dials.load(Ordering::Relaxed)
    }

    /// Spares used again so far, and spares found dead so far.
    pub fn spares_reused_and_dead(&self) -> (usize, usize) {
        (self.spares.reused.load(Ordering::Relaxed), self.spares.dead.load(Ordering::Relaxed))
    }

    /// Spares resting now.
    pub fn spares(&self) -> usize {
        self.spares.count()
    }

    /// Exchanges that are with this backend now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// An exchange that is with a backend, as long as this value lives.
#[derive(Debug)]
pub struct InFlight(Arc<Backend>);

impl InFlight {
    /// Counts one in.
    pub fn new(backend: Arc<Backend>) -> InFlight {
        backend.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(backend)
    }
}

impl std::ops::Deref for InFlight {
    type Target = Backend;

    fn deref(&self) -> &Backend {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
