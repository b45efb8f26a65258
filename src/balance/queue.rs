//! Where requests wait for a place at a backend.
//!
//! One queue for all backends, first come first served: whoever waits longest gets the next place that becomes free
//! anywhere, unless it has been there already. Waiting costs a place in a list and a parked visit, no thread.
//!
//! Why nobody is forgotten: whoever queues up puts itself into the list, and is counted at each backend where it would
//! go, *then* tries those once more; whoever leaves a backend counts itself out, *then* looks whether anybody would come.
//! Whichever comes second sees the other.
//!
//! Why nobody is in another's way: a backend where nobody who waits would go is *not wanted*, and neither who comes to it
//! nor who leaves it looks at the list. Where somebody would, a free place is one walk along the list.

#[cfg(test)]
mod tests;

use super::backend::{Backend, InFlight};
use super::rotation::Member;
use crate::net::Caller;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    places: Mutex<VecDeque<Arc<Place>>>,
    /// How many wait, for those who only want to know that.
    length: AtomicUsize,
    /// Since when the first of them waits, in microseconds since `born`, from 1; 0 if nobody does. For those who only
    /// want to know that.
    oldest: AtomicU64,
    born: OnceLock<Instant>,
    /// How many have been given a place.
    served: AtomicU64,
    /// Who has been given a place, and doesn't know yet.
    called: Mutex<Vec<Caller>>,
    has_called: AtomicBool,
}

#[derive(Debug)]
struct Place {
    whom: Caller,
    members: Arc<[Member]>,
    /// Members that it has been at, or may not go to, in their order.
    barred: Vec<usize>,
    /// Since when.
    joined: Instant,
    given: Mutex<Option<(usize, InFlight)>>,
}

/// A place in the queue; dropped, it is given up.
#[derive(Debug)]
pub struct Waiting {
    queue: Arc<Queue>,
    place: Arc<Place>,
}

impl Queue {
    /// Queues up at the end, unless `limit` are waiting already. Then only a place that is to be had at once will do: those
    /// who wait may wait for others than this one.
    pub(super) fn join(
        self: &Arc<Queue>,
        whom: Caller,
        members: &Arc<[Member]>,
        barred: Vec<usize>,
        limit: usize,
        now: Instant,
    ) -> Option<Waiting> {
        let place =
            Arc::new(Place { whom, members: Arc::clone(members), barred, joined: now, given: Mutex::new(None) });
        let mut places = lock(&self.places);
        let is_beyond = places.len() >= limit;
        if is_beyond && place.is_full() {
            return None;
        }
        place.count_in();
        places.push_back(Arc::clone(&place));
        self.note(&places);
        drop(places);
        let waiting = Waiting { queue: Arc::clone(self), place };
        waiting.try_once_more(now);
        (!is_beyond || waiting.is_served()).then_some(waiting)
    }

    /// How many wait.
    pub fn length(&self) -> usize {
        self.length.load(Ordering::Relaxed)
    }

    /// Calls all who wait: there are other backends now, or one has fallen ill or recovered.
    pub fn call_all(&self) {
        let places = lock(&self.places);
        lock(&self.called).extend(places.iter().map(|place| place.whom));
        self.has_called.store(!places.is_empty() || self.has_called(), Ordering::Release);
    }

    /// How long the first in the queue has waited; none if nobody waits.
    pub fn oldest(&self, now: Instant) -> Option<Duration> {
        let since = self.oldest.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now.saturating_duration_since(*self.born.get()? + Duration::from_micros(since)))
    }

    /// How many have been given a place so far.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// To be called under the lock, whenever the list has changed.
    fn note(&self, places: &VecDeque<Arc<Place>>) {
        self.length.store(places.len(), Ordering::Relaxed);
        let oldest = places.front().map_or(0, |first| {
            let waited = first.joined.saturating_duration_since(*self.born.get_or_init(|| first.joined));
            u64::try_from(waited.as_micros()).unwrap_or(u64::MAX - 1) + 1
        });
        self.oldest.store(oldest, Ordering::Relaxed);
    }

    /// Hands the free places of a backend to whoever has waited longest for one. It has something to do from now on, and
    /// not since they wait: the queue's time is not held against the backend.
    pub(super) fn serve(&self, backend: &Arc<Backend>, now: Instant) {
        // Who waits for one that is configured no more is about to wait for others.
        if backend.is_retired() || !backend.is_wanted() {
            return;
        }
        let mut places = lock(&self.places);
        let mut number = Number { backend, last: None };
        let mut wants = |(at, place): (usize, &Arc<Place>)| Some((at, number.wanted_by(place)?));
        while let Some((at, nth)) = places.iter().enumerate().find_map(&mut wants) {
            let Some(entered) = places.get(at).and_then(|place| place.members.get(nth)?.try_enter(now)) else { break };
            let Some(place) = self.remove(&mut places, at) else { break };
            self.served.fetch_add(1, Ordering::Relaxed);
            *lock(&place.given) = Some((nth, entered));
            lock(&self.called).push(place.whom);
            self.has_called.store(true, Ordering::Release);
        }
    }

    /// Takes the one that stands there out of the list.
    fn remove(&self, places: &mut VecDeque<Arc<Place>>, at: usize) -> Option<Arc<Place>> {
        let place = places.remove(at)?;
        place.count_out();
        self.note(places);
        Some(place)
    }

    /// Whether somebody has been given a place, and doesn't know yet.
    fn has_called(&self) -> bool {
        self.has_called.load(Ordering::Acquire)
    }

    /// Those who have been given a place since the last time, to be called.
    pub fn take_called(&self) -> Vec<Caller> {
        if self.has_called() && self.has_called.swap(false, Ordering::AcqRel) {
            std::mem::take(&mut *lock(&self.called))
        } else {
            Vec::new()
        }
    }
}

impl Place {
    /// Where it would go.
    fn wants(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().enumerate().filter(|(nth, _)| self.may_go_to(*nth)).map(|(_, member)| member)
    }

    /// It comes into the list. To be called under the lock.
    fn count_in(&self) {
        self.wants().for_each(|member| member.backend.is_wanted_by_one_more());
    }

    /// It leaves the list. To be called under the lock.
    fn count_out(&self) {
        self.wants().for_each(|member| member.backend.is_wanted_by_one_less());
    }

    fn may_go_to(&self, nth: usize) -> bool {
        self.barred.binary_search(&nth).is_err()
    }

    /// Whether all that it may go to are known to be full.
    fn is_full(&self) -> bool {
        self.wants().all(Member::is_full)
    }
}

/// The number of a backend among members. Nearly all who wait have the same members, so it is looked up once for them.
struct Number<'b> {
    backend: &'b Arc<Backend>,
    /// Among whom it was looked up last, and what was found.
    last: Option<(Arc<[Member]>, Option<usize>)>,
}

impl Number<'_> {
    /// Under which number it would go to this backend, if it would.
    fn wanted_by(&mut self, place: &Place) -> Option<usize> {
        self.among(&place.members).filter(|nth| place.may_go_to(*nth))
    }

    fn among(&mut self, members: &Arc<[Member]>) -> Option<usize> {
        if let Some((last, nth)) = &self.last
            && Arc::ptr_eq(last, members)
        {
            return *nth;
        }
        #[cfg(test)]
        tests::LOOKED_UP.set(tests::LOOKED_UP.get() + 1);
        let nth = members.iter().position(|member| Arc::ptr_eq(&member.backend, self.backend));
        self.last = Some((Arc::clone(members), nth));
        nth
    }
}

impl Waiting {
    /// Since when it waits.
    pub fn joined(&self) -> Instant {
        self.place.joined
    }

    /// Waits for these backends from now on, in the same place. `false`: it has been given a place already.
    pub(super) fn move_on(&mut self, members: &Arc<[Member]>, barred: Vec<usize>, now: Instant) -> bool {
        if Arc::ptr_eq(&self.place.members, members) && self.place.barred == barred {
            return true;
        }
        let Place { whom, joined, .. } = *self.place;
        let moved = Arc::new(Place { whom, members: Arc::clone(members), barred, joined, given: Mutex::new(None) });
        let mut places = lock(&self.queue.places);
        let Some(place) = places.iter_mut().find(|place| Arc::ptr_eq(place, &self.place)) else { return false };
        moved.count_in();
        place.count_out();
        *place = Arc::clone(&moved);
        drop(places);
        self.place = moved;
        self.try_once_more(now);
        true
    }

    /// A place may have become free before anybody could see that somebody waits for it. Nothing has changed where this one
    /// would not go, nor for those before it: they have tried too.
    fn try_once_more(&self, now: Instant) {
        for member in self.place.wants().filter(|member| !member.is_full()) {
            self.queue.serve(&member.backend, now);
            if self.is_served() {
                break;
            }
        }
    }

    fn is_served(&self) -> bool {
        lock(&self.place.given).is_some()
    }

    /// The place that it has been given.
    pub fn given(&self) -> Option<(usize, InFlight)> {
        lock(&self.place.given).take()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut places = lock(&self.queue.places);
        if let Some(at) = places.iter().position(|place| Arc::ptr_eq(place, &self.place)) {
            self.queue.remove(&mut places, at);
        }
        drop(places);
        // What was given and not used goes to the next one, by being dropped here, with no lock held.
        drop(self.given());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics under these locks that could leave a list half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
