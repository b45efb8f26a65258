//! Where visits wait, and how all workers watch over them.
//!
//! A visit is whatever a worker has to do for one client; here it is only a box with up to two sockets to watch and a
//! deadline. It is either *parked*, in the slot under its client's descriptor, or in the hands of exactly one worker.
//!
//! Why no wake-up is lost: an event first adds its hints to the socket's word, then locks the slot and takes the visit
//! if the hints are what it waits for. Parking locks the slot, looks at the words, and puts the visit in before it
//! lets go. Whichever of the two comes second sees what the first one did.
//!
//! Why no visit is in two hands: both of its sockets wake the same slot, and a visit is moved out of it under the lock.
//!
//! Workers wait for events all at once, and each event is told to one of them. So it may happen that one worker adds a
//! hint while another, which was told of an earlier event of the same socket, has the visit in hand. Both arguments hold
//! then too: they speak of words and locks, not of who uses them.

use super::connection::{Caller, Connection, descriptor};
use super::deadlines::Deadlines;
use super::hints::{CALLED, Hints, Key, Wants};
use super::listener::{Bell, Bells};
use super::poller::Poller;
use super::table::Table;
use mio::net::TcpStream;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// At most so many expired visits are handed out at once.
const EXPIRED_AT_ONCE: usize = 64;

/// The lot of visits of type `V`.
pub struct Lot<V> {
    hints: Arc<Hints>,
    slots: Table<Slot<V>>,
    poller: Poller,
    deadlines: Deadlines,
    /// The last tick whose deadlines have been looked at, or are being.
    looked_at: AtomicU32,
    /// Set with the beginning of a drain: until then, idle visits may still park.
    grace: OnceLock<Instant>,
    /// Nothing may park any more, and no worker need wait.
    closed: AtomicBool,
    /// How often somebody has looked whether something is to be done.
    looks: AtomicU64,
}

struct Slot<V>(Mutex<Option<Parked<V>>>);

impl<V> Default for Slot<V> {
    fn default() -> Self {
        Slot(Mutex::new(None))
    }
}

struct Parked<V> {
    visit: Box<V>,
    watch: Watch,
}

/// What a parked visit waits for.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    client: (Key, Wants),
    backend: Option<(Key, Wants)>,
    deadline: Instant,
    idle: bool,
    kind: u8,
}

impl Watch {
    /// Waits for something of its client, at most until `deadline`.
    pub fn client(client: &Connection, wants: Wants, deadline: Instant) -> Watch {
        Watch { client: (client.key(), wants), backend: None, deadline, idle: false, kind: 0 }
    }

    /// ... and for something of its backend too.
    #[must_use]
    pub fn and_backend(self, backend: &Connection, wants: Wants) -> Watch {
        Watch { backend: Some((backend.key(), wants)), ..self }
    }

    /// ... and is between two requests: a drain ends it at once.
    #[must_use]
    pub fn idle(self) -> Watch {
        Watch { idle: true, ..self }
    }

    /// ... and calls that by a number, for [`Lot::census`]. 0 if nothing is said.
    #[must_use]
    pub fn of_kind(self, kind: u8) -> Watch {
        Watch { kind, ..self }
    }

    fn is_met(&self, hints: &Hints) -> bool {
        let met = |(key, wants): (Key, Wants)| wants.are_met_by(hints.read(key));
        met(self.client) || self.backend.is_some_and(met)
    }

    fn watches(&self, key: Key) -> bool {
        self.client.0 == key || self.backend.is_some_and(|(backend, _)| backend == key)
    }
}

/// Why a visit was not parked.
#[derive(Debug)]
pub enum Unparked<V> {
    /// What it waits for has come already: it goes on.
    Ready(Box<V>),
    /// The lot takes no idle visits any more, or none at all: it is to be ended.
    Refused(Box<V>),
}

/// A time in which a worker did nothing.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// When it began to wait.
    pub since: Instant,
    /// When it went on.
    pub until: Instant,
}

impl<V> Lot<V> {
    /// A lot for sockets below this descriptor.
    ///
    /// # Errors
    /// The kernel's, when it has no poll to give.
    pub fn new(descriptor_limit: usize) -> io::Result<Lot<V>> {
        let poller = Poller::new()?;
        Ok(Lot {
            hints: Arc::new(Hints::new(descriptor_limit, poller.registry().try_clone()?)),
            slots: Table::new(descriptor_limit),
            poller,
            deadlines: Deadlines::new(descriptor_limit),
            looked_at: AtomicU32::new(0),
            grace: OnceLock::new(),
            closed: AtomicBool::new(false),
            looks: AtomicU64::new(0),
        })
    }

    /// Parks a new client's visit, made from its connection: a client that says nothing never costs a turn.
    ///
    /// # Errors
    /// The kernel's; the connection is closed then.
    pub fn admit(
        &self,
        socket: TcpStream,
        deadline: Instant,
        visit: impl FnOnce(Connection) -> Box<V>,
    ) -> io::Result<()> {
        let descriptor = descriptor(&socket);
        if descriptor as usize >= self.slots.len() {
            return Err(rustix::io::Errno::MFILE.into());
        }
        // Registered under the lock of its slot: the first event waits for it, and finds the visit there.
        let mut slot = self.lock(descriptor);
        let connection = Connection::accepted(socket, &self.hints)?;
        let deadline = self.grace.get().map_or(deadline, |&grace| deadline.min(grace));
        let watch = Watch::client(&connection, Wants::READABLE, deadline).idle();
        let visit = visit(connection);
        if !self.closed.load(Ordering::Acquire) {
            self.deadlines.set(descriptor, deadline, watch.kind);
            *slot = Some(Parked { visit, watch });
        }
        Ok(())
    }

    /// Parks a visit until something that it watches happens, or its deadline passes.
    ///
    /// # Errors
    /// The visit itself, to go on with or to end.
    pub fn park(&self, visit: Box<V>, mut watch: Watch) -> Result<(), Unparked<V>> {
        let descriptor = watch.client.0.descriptor();
        let mut slot = self.lock(descriptor);
        // Looked at under the lock that `drain` and `close` take later: nobody slips through.
        if self.closed.load(Ordering::Acquire) {
            return Err(Unparked::Refused(visit));
        }
        if watch.idle
            && let Some(&grace) = self.grace.get()
        {
            if Instant::now() >= grace {
                return Err(Unparked::Refused(visit));
            }
            watch.deadline = watch.deadline.min(grace);
        }
        if watch.is_met(&self.hints) {
            return Err(Unparked::Ready(visit));
        }
        self.deadlines.set(descriptor, watch.deadline, watch.kind);
        *slot = Some(Parked { visit, watch });
        Ok(())
    }

    /// Calls a visit that wants to be called, and takes it out. `None`: it is in a worker's hands, and will see the call
    /// when it means to park, or it is gone.
    pub fn call(&self, whom: Caller) -> Option<Box<V>> {
        self.rouse(whom.0, CALLED)
    }

    /// By which listening sockets ring for those who wait here.
    ///
    /// # Errors
    /// The kernel's: no descriptor is free.
    pub fn bells(&self) -> io::Result<Bells> {
        self.poller.bells()
    }

    /// Waits until some visits can go on, or a tick has passed. Visits whose deadline has passed are among them: they get
    /// one last look whether something has come. Any number of workers may wait. `None`: the lot is closed.
    pub fn wait(&self, ready: &mut Vec<Box<V>>) -> Option<Rest> {
        self.wait_and_hear(ready, None, |_| ())
    }

    /// The same, but at most until `promised`, if that is anything; and `hear` is told which listening sockets have rung.
    pub fn wait_and_hear(
        &self,
        ready: &mut Vec<Box<V>>,
        promised: Option<Instant>,
        mut hear: impl FnMut(Bell),
    ) -> Option<Rest> {
        if self.closed.load(Ordering::Acquire) {
            self.poller.wake(); // somebody may sleep still, and wakes the next
            return None;
        }
        let since = Instant::now();
        let is_behind = self.looked_at.load(Ordering::Relaxed) < self.deadlines.tick_at(since);
        let timeout = if is_behind { Duration::ZERO } else { self.deadlines.to_next_tick(since) };
        let timeout = promised.map_or(timeout, |due| timeout.min(due.saturating_duration_since(since)));
        self.poller.wait(timeout, |token, hints| match Bell::of_token(token) {
            Some(bell) => hear(bell),
            None => ready.extend(self.rouse(Key::of_token(token), hints)),
        });
        self.looks.fetch_add(1, Ordering::Relaxed);
        let until = Instant::now();
        self.look_for_expired(until, ready);
        Some(Rest { since, until })
    }

    /// Whoever comes first in a tick looks through the deadlines.
    fn look_for_expired(&self, time: Instant, ready: &mut Vec<Box<V>>) {
        let now = self.deadlines.tick_at(time);
        let before = self.looked_at.fetch_max(now, Ordering::Relaxed);
        if before >= now {
            return;
        }
        let mut expired = self.deadlines.expired(now);
        for descriptor in expired.by_ref().take(EXPIRED_AT_ONCE) {
            let Ok(descriptor) = u32::try_from(descriptor) else { continue };
            // The deadline is looked at again under the lock: the visit may have been taken and parked anew.
            ready.extend(self.take(descriptor, |parked| parked.watch.deadline <= time));
        }
        if expired.next().is_some() {
            // Thousands may expire together: the others are for somebody else.
            self.looked_at.store(before, Ordering::Relaxed);
            self.poller.wake();
        }
    }

    /// Begins a drain: an idle visit stays until `grace` at most, and none is parked again after that.
    pub fn announce_drain(&self, grace: Instant) {
        let _begun_before: Result<(), Instant> = self.grace.set(grace);
    }

    /// Drains: idle visits are given back, to be ended. Those that `has_grace` stay until `grace` is over.
    pub fn drain(&self, has_grace: impl Fn(&V) -> bool, grace: Instant) -> Vec<Box<V>> {
        self.announce_drain(grace);
        self.take_all(|descriptor, parked| {
            if parked.watch.idle && has_grace(&parked.visit) {
                parked.watch.deadline = parked.watch.deadline.min(grace);
                self.deadlines.set(descriptor, parked.watch.deadline, parked.watch.kind);
                return false;
            }
            parked.watch.idle
        })
    }

    /// Whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.grace.get().is_some()
    }

    /// Ends all waiting: every parked visit is given back, none will be parked again, and no worker waits any more.
    pub fn close(&self) -> Vec<Box<V>> {
        self.closed.store(true, Ordering::Release);
        self.poller.wake();
        self.take_all(|_, _| true)
    }

    /// Takes out the idle visit that has waited longest, by the age that `since` tells; `None` spares it.
    pub fn take_oldest_idle(&self, since: impl Fn(&V) -> Option<Instant>) -> Option<Box<V>> {
        loop {
            let ages = self.slots.iter().filter_map(|(descriptor, slot)| {
                let slot = slot.lock();
                let parked = slot.as_ref().filter(|parked| parked.watch.idle)?;
                Some((since(&parked.visit)?, descriptor))
            });
            let (_, descriptor) = ages.min()?;
            let oldest = self.take(u32::try_from(descriptor).ok()?, |parked| parked.watch.idle);
            if oldest.is_some() {
                return oldest;
            }
            // Somebody else was faster: the next oldest, then.
        }
    }

    /// How many visits are parked now.
    pub fn parked(&self) -> usize {
        self.census::<1>().iter().sum()
    }

    /// How many visits are parked now, by the kind of thing that they wait for ([`Watch::of_kind`]). Takes no lock: no
    /// worker ever waits for whoever asks.
    pub fn census<const KINDS: usize>(&self) -> [usize; KINDS] {
        self.deadlines.census()
    }

    /// How often somebody has looked whether something is to be done: ten times a second at least, unless all workers
    /// hang.
    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }

    fn take_all(&self, which: impl Fn(u32, &mut Parked<V>) -> bool) -> Vec<Box<V>> {
        let all = self.slots.iter().filter_map(|(descriptor, _)| u32::try_from(descriptor).ok());
        all.filter_map(|descriptor| self.take(descriptor, |parked| which(descriptor, parked))).collect()
    }

    fn take(&self, descriptor: u32, condition: impl FnOnce(&mut Parked<V>) -> bool) -> Option<Box<V>> {
        let mut slot = self.lock(descriptor);
        if !condition(slot.as_mut()?) {
            return None;
        }
        self.deadlines.clear(descriptor);
        slot.take().map(|parked| parked.visit)
    }

    /// Adds hints to a socket, and takes out the visit that waited for them.
    fn rouse(&self, key: Key, hints: u8) -> Option<Box<V>> {
        let owner = self.hints.add(key, hints)?;
        self.take(owner, |parked| parked.watch.watches(key) && parked.watch.is_met(&self.hints))
    }

    fn lock(&self, descriptor: u32) -> MutexGuard<'_, Option<Parked<V>>> {
        self.slots.at(descriptor).lock()
    }
}

impl<V> Slot<V> {
    fn lock(&self) -> MutexGuard<'_, Option<Parked<V>>> {
        // Nothing panics under this lock that could leave the slot half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
