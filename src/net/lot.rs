//! Where visits wait, and how workers take turns in watching over them.
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
//! The kernel is asked through one `Poll`, which is handed from worker to worker: the *baton*. Whoever holds it waits
//! for events, collects the visits that they wake, passes the baton on, and only then begins to work
//! (the Leader/Followers pattern). Owning the baton is leading; there is no other state that could disagree.

use super::connection::{Caller, Connection, descriptor};
use super::deadlines::{Deadlines, Tick};
use super::hints::{BROKEN, CALLED, CLOSED, Hints, Key, READABLE, WRITABLE, Wants};
use super::table::Table;
use crossbeam_channel::{Receiver, Sender, bounded};
use mio::net::TcpStream;
use mio::{Events, Poll, Token, Waker};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// At most so many events are taken at once. With 1,024, one worker hoarded five turns for each of the other's.
const EVENTS_A_HOLD: usize = 8;

/// At most so many expired visits are handed out at once.
const EXPIRED_A_HOLD: usize = 64;

const WAKER: Token = Token(usize::MAX);

/// The lot of visits of type `V`.
pub struct Lot<V> {
    hints: Arc<Hints>,
    slots: Table<Slot<V>>,
    deadlines: Deadlines,
    pass: Sender<Baton>,
    receive: Receiver<Baton>,
    waker: Waker,
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

/// What is passed from hand to hand.
struct Baton {
    poll: Poll,
    events: Events,
    /// The last tick whose deadlines have been looked at, and where to go on if that was interrupted.
    looked_at: Tick,
    look_on_from: Option<usize>,
}

impl<V> Lot<V> {
    /// A lot for sockets below this descriptor.
    ///
    /// # Errors
    /// The kernel's, when it has no poll to give.
    pub fn new(descriptor_limit: usize) -> io::Result<Lot<V>> {
        let poll = Poll::new()?;
        let (pass, receive) = bounded(1);
        let lot = Lot {
            hints: Arc::new(Hints::new(descriptor_limit, poll.registry().try_clone()?)),
            slots: Table::new(descriptor_limit),
            deadlines: Deadlines::new(descriptor_limit),
            waker: Waker::new(poll.registry(), WAKER)?,
            grace: OnceLock::new(),
            closed: AtomicBool::new(false),
            looks: AtomicU64::new(0),
            pass,
            receive,
        };
        lot.pass_on(Baton { poll, events: Events::with_capacity(EVENTS_A_HOLD), looked_at: 0, look_on_from: None });
        Ok(lot)
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

    /// Waits for the baton, and holds it until the result is dropped. `None`: the lot is closed.
    pub fn lead(&self) -> Option<Lead<'_, V>> {
        let mut waited_since = None;
        let baton = self.receive.try_recv().ok().or_else(|| {
            waited_since = Some(Instant::now());
            self.receive.recv().ok()
        });
        let lead = Lead { lot: self, baton, waited_since, rest: None };
        if self.closed.load(Ordering::Acquire) { None } else { Some(lead) }
    }

    fn pass_on(&self, baton: Baton) {
        self.pass.try_send(baton).expect("there is one baton, and the channel has room for one");
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

    /// Ends all waiting: every parked visit is given back, none will be parked again, and every worker gets `None`
    /// for a baton.
    pub fn close(&self) -> Vec<Box<V>> {
        self.closed.store(true, Ordering::Release);
        if let Err(error) = self.waker.wake() {
            log::error!("the workers could not be woken: {error}"); // the next tick will
        }
        self.take_all(|_, _| true)
    }

    /// Takes out the idle visit that has waited longest, by the age that `since` tells; `None` spares it.
    pub fn take_oldest_idle(&self, since: impl Fn(&V) -> Option<Instant>) -> Option<Box<V>> {
        loop {
            let ages = self.slots.iter_from(0).filter_map(|(descriptor, slot)| {
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
        let all = self.slots.iter_from(0).filter_map(|(descriptor, _)| u32::try_from(descriptor).ok());
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

/// The baton, held.
pub struct Lead<'l, V> {
    lot: &'l Lot<V>,
    baton: Option<Baton>,
    /// Since when the baton was waited for, if it was not to be had at once.
    waited_since: Option<Instant>,
    rest: Option<Rest>,
}

/// What a worker did before it could go on: nothing.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// Since when.
    pub since: Instant,
    /// How much of the time it waited for the baton, if it had to.
    pub for_baton: Option<Duration>,
}

impl<V> Lead<'_, V> {
    /// Waits until some visits can go on, or a tick has passed, and returns the time then. Visits whose deadline has
    /// passed are among them: they get one last look whether something has come. `None`: the lot is closed.
    pub fn wait(&mut self, ready: &mut Vec<Box<V>>) -> Option<Instant> {
        let lot = self.lot;
        let baton = self.baton.as_mut()?;
        let began = Instant::now();
        let waited_since = self.waited_since.take();
        let for_baton = waited_since.map(|since| began.saturating_duration_since(since));
        self.rest = Some(Rest { since: waited_since.unwrap_or(began), for_baton });
        let timeout = match baton.look_on_from {
            Some(_) => Duration::ZERO,
            None => lot.deadlines.to_next_tick(began),
        };
        match baton.poll.poll(&mut baton.events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => log::error!("the kernel would not say which sockets are ready: {error}"),
        }
        lot.looks.fetch_add(1, Ordering::Relaxed);
        for event in baton.events.iter().filter(|event| event.token() != WAKER) {
            ready.extend(lot.rouse(Key::of_token(event.token()), hints_of(event)));
        }
        let now = Instant::now();
        baton.look_for_expired(lot, now, ready);
        if lot.closed.load(Ordering::Acquire) && ready.is_empty() { None } else { Some(now) }
    }
}

impl<V> Lead<'_, V> {
    /// What came before the last [`Lead::wait`] returned. The clock is looked at for it only where it was anyway, or
    /// where a wake-up by another worker costs a hundred times as much.
    pub fn rest(&self) -> Option<Rest> {
        self.rest
    }
}

impl<V> Drop for Lead<'_, V> {
    fn drop(&mut self) {
        if let Some(baton) = self.baton.take() {
            self.lot.pass_on(baton);
        }
    }
}

impl Baton {
    /// Once a tick, in portions: thousands of visits may expire together.
    fn look_for_expired<V>(&mut self, lot: &Lot<V>, time: Instant, ready: &mut Vec<Box<V>>) {
        let now = lot.deadlines.tick_at(time);
        if self.look_on_from.is_none() && now == self.looked_at {
            return;
        }
        self.looked_at = now;
        let first = self.look_on_from.take().unwrap_or(0);
        let mut expired = lot.deadlines.expired(first, now);
        for descriptor in expired.by_ref().take(EXPIRED_A_HOLD) {
            let Ok(descriptor) = u32::try_from(descriptor) else { continue };
            // The deadline is looked at again under the lock: the visit may have been taken and parked anew.
            let is_due = |parked: &mut Parked<V>| parked.watch.deadline <= time;
            ready.extend(lot.take(descriptor, is_due));
        }
        self.look_on_from = expired.next();
    }
}

fn hints_of(event: &mio::event::Event) -> u8 {
    let mut hints = 0;
    for (is_so, hint) in [
        (event.is_readable(), READABLE),
        (event.is_writable(), WRITABLE),
        (event.is_read_closed(), READABLE | CLOSED),
        (event.is_write_closed() || event.is_error(), READABLE | WRITABLE | CLOSED | BROKEN),
    ] {
        if is_so {
            hints |= hint;
        }
    }
    hints
}
