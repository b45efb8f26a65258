//! One backend, with its addresses, spares and counts.

use super::queue::Queue;
use super::spares::{Need, Spares};
use super::{Account, Books, Ewma, Health, Origin};
use crate::net::Connection;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

/// A server that answers requests.
#[derive(Debug)]
pub struct Backend {
    /// What it is called in the log.
    pub name: Arc<str>,
    /// How the operator named it.
    pub origin: Origin,
    /// Where it is; empty while its name has no address.
    whereabouts: RwLock<Whereabouts>,
    /// Whether one of its addresses has ever gone. Changes under their lock.
    has_moved: AtomicBool,
    /// Which of them answered last.
    preferred: AtomicUsize,
    /// Whether it is fit for requests.
    pub health: Arc<Health>,
    /// How long it takes to answer; kept only where the policy asks for it.
    pub latency: Ewma,
    spares: Spares,
    in_flight: AtomicUsize,
    /// The most that there have been at once.
    most: AtomicUsize,
    /// Those of them that it has not answered yet.
    awaited: AtomicUsize,
    /// Those who wait in the queue and would come here.
    wanted: AtomicUsize,
    /// What is counted of it.
    pub account: Arc<Account>,
    queue: Arc<Queue>,
    /// It is configured no more: nothing of it is kept.
    retired: AtomicBool,
}

impl Backend {
    /// A backend at these addresses. Its places are handed to those who wait in `queue`.
    pub fn new(name: &str, origin: Origin, addresses: Vec<SocketAddr>, queue: &Arc<Queue>) -> Backend {
        Backend::in_books(name, origin, addresses, queue, &Books::default())
    }

    /// The same, with an account in these books.
    pub fn in_books(
        name: &str,
        origin: Origin,
        addresses: Vec<SocketAddr>,
        queue: &Arc<Queue>,
        books: &Books,
    ) -> Backend {
        let account = books.open(name);
        Backend {
            name: name.into(),
            origin,
            whereabouts: RwLock::new(Whereabouts::at(&addresses)),
            has_moved: AtomicBool::new(false),
            preferred: AtomicUsize::new(0),
            health: Arc::new(Health::of_account(Instant::now(), Some(Arc::clone(&account)))),
            latency: Ewma::new(Instant::now()),
            spares: Spares::new(Arc::clone(&account)),
            in_flight: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            awaited: AtomicUsize::new(0),
            wanted: AtomicUsize::new(0),
            account,
            queue: Arc::clone(queue),
            retired: AtomicBool::new(false),
        }
    }

    /// Counts an exchange in, unless `limit` are with it already.
    pub(super) fn enter(self: &Arc<Backend>, limit: Option<usize>, now: Instant) -> Option<InFlight> {
        let below = |count: usize| (count < limit.unwrap_or(usize::MAX)).then_some(count + 1);
        let before = match limit {
            None => self.in_flight.fetch_add(1, Ordering::Relaxed),
            Some(_) => self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, below).ok()?,
        };
        if before >= self.most.load(Ordering::Relaxed) {
            self.most.fetch_max(before + 1, Ordering::Relaxed);
        }
        self.health.entered(now, self.awaited.fetch_add(1, Ordering::Relaxed));
        Some(InFlight { backend: Arc::clone(self), awaited: true, since: now })
    }

    /// A kept connection, bound to whoever waits under `client`.
    /// Also says since when it was kept.
    pub fn spare(&self, client: &Connection, need: Need, now: Instant) -> Option<(Connection, Instant)> {
        self.spares.take(client, need, now)
    }

    /// A new connection to the `nth` of its addresses, bound to whoever waits under `client`.
    ///
    /// # Errors
    /// The kernel's, for what it can say at once.
    pub fn dial(&self, client: &Connection, nth: usize) -> io::Result<Connection> {
        let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let (address, number) = self.whereabouts().nth(nth).ok_or_else(none)?; // unlocked before it is dialled
        let mut connection = client.dial(address)?;
        connection.set_mark(number);
        self.account.dials.fetch_add(1, Ordering::Relaxed);
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
        self.addresses().len()
    }

    /// Its addresses.
    pub fn addresses(&self) -> Arc<[SocketAddr]> {
        Arc::clone(&self.whereabouts().addresses)
    }

    fn whereabouts(&self) -> RwLockReadGuard<'_, Whereabouts> {
        self.whereabouts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its addresses, the preferred one first.
    pub fn addresses_by_preference(&self) -> Vec<SocketAddr> {
        let mut addresses = self.addresses().to_vec();
        let first = self.preferred_address().checked_rem(addresses.len()).unwrap_or_default();
        addresses.rotate_left(first);
        addresses
    }

    /// Its name has been looked up again. Says whether that has changed anything; the same in another order, or one of
    /// them twice, is no change, since many name servers give them in turns. Once an address is gone, no connection to it
    /// is kept.
    pub fn move_to(&self, addresses: &[SocketAddr]) -> bool {
        let mut current = self.whereabouts.write().unwrap_or_else(PoisonError::into_inner);
        let none_is_gone = current.addresses.iter().all(|one| addresses.contains(one));
        if none_is_gone && addresses.iter().all(|one| current.addresses.contains(one)) {
            return false;
        }
        current.change(addresses);
        if !none_is_gone {
            self.has_moved.store(true, Ordering::Release);
        }
        drop(current);
        self.preferred.store(0, Ordering::Relaxed);
        self.let_go();
        true
    }

    /// It is configured no more: what it still has in flight is finished, and nothing is kept.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
        self.let_go();
    }

    /// Whether it is configured no more.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// Keeps a connection for the next request, at most for `life`; and no more of them than there were ever exchanges at once.
    pub fn rest(&self, connection: Connection, now: Instant, life: Duration) {
        self.spares.rest(connection, now, life, self.most.load(Ordering::Relaxed), |connection| self.keeps(connection));
    }

    /// Closes the spares that are not kept any more. To be called behind the change that is the reason: whoever rests a
    /// connection asks under the lock of the spares, so either it knows of the change or its spare is seen here.
    fn let_go(&self) {
        self.spares.keep_only(|connection| self.keeps(connection));
    }

    /// Whether this connection may be kept. One to an address that is gone would be used again and again, and last as long
    /// as requests come.
    fn keeps(&self, connection: &Connection) -> bool {
        !self.is_retired() && !self.has_left(connection)
    }

    /// Whether the address that this connection was dialled to is gone; even where the same one has come back since, for
    /// what is there now may be another machine.
    pub fn has_left(&self, connection: &Connection) -> bool {
        // Most backends never move: they are not to pay for a lock at every request.
        self.has_moved.load(Ordering::Acquire) && !self.whereabouts().includes(connection.mark())
    }

    /// A kept connection was closed by the backend when it was used again, this long after it had been rested.
    pub fn note_closed_spare(&self, age: Duration, now: Instant) {
        self.spares.note_closed(age, now);
    }

    /// Closes spares that are too old or dead. To be called every tick.
    pub fn sweep(&self, now: Instant) {
        self.spares.sweep(now);
    }

    /// Closes the oldest spare, and says whether there was one.
    pub fn close_oldest_spare(&self) -> bool {
        self.spares.close_oldest()
    }

    /// Spares resting now.
    pub fn spares(&self) -> usize {
        self.spares.count()
    }

    /// Exchanges that wait for its answer now.
    pub fn awaited(&self) -> usize {
        self.awaited.load(Ordering::Relaxed)
    }

    /// Exchanges that are with this backend now.
    pub fn in_flight(&self) -> usize {
        // As strict as the count: whoever has queued up and sees it full is seen by whoever leaves, see `Queue`.
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Whether somebody waits in the queue who would come here, and so goes first.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) > 0 // as strict as the count of those in flight, see `Queue`
    }

    pub(super) fn is_wanted_by_one_more(&self) {
        self.wanted.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn is_wanted_by_one_less(&self) {
        self.wanted.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The addresses of a backend. Each has a number for as long as it stays, which is put on every connection to it; one
/// that comes back has another.
#[derive(Debug, Default)]
struct Whereabouts {
    addresses: Arc<[SocketAddr]>,
    numbers: HashMap<SocketAddr, u32>,
    /// The number that was given last.
    last: u32,
}

impl Whereabouts {
    fn at(addresses: &[SocketAddr]) -> Whereabouts {
        let mut whereabouts = Whereabouts::default();
        whereabouts.change(addresses);
        whereabouts
    }

    /// Those that stay keep their numbers.
    fn change(&mut self, addresses: &[SocketAddr]) {
        self.addresses = addresses.into();
        self.numbers.retain(|one, _| addresses.contains(one));
        for one in addresses {
            self.numbers.entry(*one).or_insert_with(|| {
                self.last = self.last.wrapping_add(1); // after four billion the first is long gone
                self.last
            });
        }
    }

    /// One of the addresses, counted round and round, and its number.
    fn nth(&self, nth: usize) -> Option<(SocketAddr, u32)> {
        let one = *self.addresses.get(nth.checked_rem(self.addresses.len())?)?;
        Some((one, *self.numbers.get(&one)?))
    }

    fn includes(&self, number: u32) -> bool {
        self.numbers.values().any(|one| *one == number)
    }
}

/// An exchange that is with a backend, as long as this value lives.
#[derive(Debug)]
pub struct InFlight {
    backend: Arc<Backend>,
    /// An answer is due.
    awaited: bool,
    /// When it was counted in.
    pub since: Instant,
}

impl InFlight {
    /// The backend has answered: a whole head has come.
    pub fn is_answered(&mut self) {
        if std::mem::take(&mut self.awaited) {
            self.backend.awaited.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whom it is with.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Whether it is the backend that is waited for: to let us in, to take bytes, or to answer. It isn't while the client
    /// takes its time to send a body.
    pub fn awaits_backend(&mut self, awaits: bool, now: Instant) {
        if !awaits {
            self.is_answered();
        } else if !std::mem::replace(&mut self.awaited, true) {
            self.backend.health.entered(now, self.backend.awaited.fetch_add(1, Ordering::Relaxed));
        }
    }
}

impl std::ops::Deref for InFlight {
    type Target = Backend;

    fn deref(&self) -> &Backend {
        &self.backend
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.is_answered();
        // Counted out first, and then looked whether anybody would come: see `Queue`.
        self.backend.in_flight.fetch_sub(1, Ordering::SeqCst);
        if self.backend.is_wanted() {
            self.backend.queue.serve(&self.backend, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(addresses: &[&str]) -> Arc<Backend> {
        let origin = "http://a:80".parse().unwrap();
        Arc::new(Backend::new("a", origin, addresses_of(addresses), &Arc::default()))
    }

    fn addresses_of(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_limit_lets_so_many_in_and_who_leaves_makes_room_for_one() {
        let (backend, now) = (backend(&[]), Instant::now());
        let first = backend.enter(Some(2), now).unwrap();
        let second = backend.enter(Some(2), now).unwrap();
        assert!(backend.enter(Some(2), now).is_none());
        assert_eq!(backend.in_flight(), 2, "whoever was turned away is not counted");
        let third = backend.enter(None, now).unwrap();
        assert_eq!(backend.in_flight(), 3);
        drop((first, third));
        let fourth = backend.enter(Some(2), now).unwrap();
        assert!(backend.enter(Some(2), now).is_none());
        drop((second, fourth));
        assert_eq!((backend.in_flight(), backend.awaited()), (0, 0));
    }

    #[test]
    fn a_backend_is_awaited_by_those_it_keeps_waiting_and_by_each_once() {
        let (backend, now) = (backend(&[]), Instant::now());
        let mut one = backend.enter(None, now).unwrap();
        let mut other = backend.enter(None, now).unwrap();
        assert_eq!(backend.awaited(), 2);
        for (awaits, awaited) in [(false, 1), (false, 1), (true, 2), (true, 2)] {
            one.awaits_backend(awaits, now);
            assert_eq!(backend.awaited(), awaited);
        }
        for awaited in [1, 1] {
            other.is_answered();
            assert_eq!(backend.awaited(), awaited);
        }
        drop((one, other));
        assert_eq!((backend.in_flight(), backend.awaited()), (0, 0));
    }

    #[test]
    fn the_address_that_was_reached_last_comes_first_until_there_are_others() {
        let backend = backend(&["127.0.0.1:1", "127.0.0.2:2", "127.0.0.3:3"]);
        let in_order = |texts: &[&str]| assert_eq!(backend.addresses_by_preference(), addresses_of(texts));
        backend.prefer(1);
        assert_eq!((backend.preferred_address(), backend.address_count()), (1, 3));
        in_order(&["127.0.0.2:2", "127.0.0.3:3", "127.0.0.1:1"]);
        backend.prefer(2);
        assert!(!backend.move_to(&addresses_of(&["127.0.0.3:3", "127.0.0.2:2", "127.0.0.1:1"])), "only the order");
        in_order(&["127.0.0.3:3", "127.0.0.1:1", "127.0.0.2:2"]);
        assert!(!backend.move_to(&addresses_of(&["127.0.0.2:2", "127.0.0.3:3", "127.0.0.2:2", "127.0.0.1:1"])));
        let others = [
            &["127.0.0.1:1", "127.0.0.2:2", "127.0.0.4:4"][..],
            &["127.0.0.4:4", "127.0.0.2:2"],
            &["127.0.0.4:4", "127.0.0.4:4"],
            &[],
        ];
        for other in others {
            assert!(backend.move_to(&addresses_of(other)), "{other:?}");
            in_order(other);
            backend.prefer(1);
        }
    }
}
