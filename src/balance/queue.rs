//! Where requests wait for a place at a backend.
//!
//! One queue for all backends, first come first served: whoever waits longest gets the next place that becomes free
//! anywhere, unless it has been there already. Waiting costs a place in a list and a parked visit, no thread.
//!
//! Why nobody is forgotten: whoever queues up puts itself into the list, *then* tries the backends once more; whoever
//! leaves a backend counts itself out, *then* looks whether anybody waits. Whichever comes second sees the other.

#[cfg(test)]
mod tests;

use super::backend::InFlight;
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
    /// How many wait, for those who only want to know whether anybody does.
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
        places.push_back(Arc::clone(&place));
        self.note(&places);
        drop(places);
        self.serve_all(members, now);
        let waiting = Waiting { queue: Arc::clone(self), place };
        (!is_beyond || waiting.is_served()).then_some(waiting)
    }

    /// How many wait.
    pub fn length(&self) -> usize {
        self.length.load(Ordering::SeqCst)
    }

    /// A place may have become free before anybody could see that somebody waits for it.
    fn serve_all(&self, members: &[Member], now: Instant) {
        for member in members.iter().filter(|member| !member.is_full()) {
            self.serve(&member.backend, now);
        }
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
        self.length.store(places.len(), Ordering::SeqCst);
        let oldest = places.front().map_or(0, |first| {
            let waited = first.joined.saturating_duration_since(*self.born.get_or_init(|| first.joined));
            u64::try_from(waited.as_micros()).unwrap_or(u64::MAX - 1) + 1
        });
        self.oldest.store(oldest, Ordering::Relaxed);
    }

    /// Hands the free places of a backend to whoever has waited longest for one. It has something to do from now on, and
    /// not since they wait: the queue's time is not held against the backend.
    pub(super) fn serve(&self, backend: &Arc<super::Backend>, now: Instant) {
        if backend.is_retired() {
            return; // who waits for it is about to wait for others
        }
        let mut places = lock(&self.places);
        while let Some((at, nth)) = places.iter().enumerate().find_map(|(at, place)| Some((at, place.wants(backend)?)))
        {
            let Some(entered) = places.get(at).and_then(|place| place.members.get(nth)?.try_enter(now)) else {
                break;
            };
            let Some(place) = places.remove(at) else { break };
            self.note(&places);
            self.served.fetch_add(1, Ordering::Relaxed);
            *lock(&place.given) = Some((nth, entered));
            lock(&self.called).push(place.whom);
            self.has_called.store(true, Ordering::Release);
        }
    }

    /// Whether somebody has been given a place, and doesn't know yet.
    pub fn has_called(&self) -> bool {
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
    /// Under which number it would go to this backend, if it would.
    fn wants(&self, backend: &Arc<super::Backend>) -> Option<usize> {
        let nth = self.members.iter().position(|member| Arc::ptr_eq(&member.backend, backend))?;
        self.may_go_to(nth).then_some(nth)
    }

    fn may_go_to(&self, nth: usize) -> bool {
        self.barred.binary_search(&nth).is_err()
    }

    /// Whether all that it may go to are known to be full.
    fn is_full(&self) -> bool {
        self.members.iter().enumerate().all(|(nth, member)| member.is_full() || !self.may_go_to(nth))
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
        *place = Arc::clone(&moved);
        drop(places);
        self.place = moved;
        self.queue.serve_all(members, now);
        true
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
        places.retain(|place| !Arc::ptr_eq(place, &self.place));
        self.queue.note(&places);
        drop(places);
        // What was given and not used goes to the next one, by being dropped here, with no lock held.
        drop(self.given());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics under these locks that could leave a list half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
