//! Connections to one backend, kept for the next request.
//!
//! Newest first: under little load the same few stay warm, and the others age out. A backend may close a spare at any
//! moment, and the close may cross the request on its way. For a request that may be repeated that is no harm; for the
//! others a spare must be *sure*: the backend is known to keep spares for a second or more, and this one is younger
//! than half the shortest age at which it ever closed one.

use super::Account;
use crate::net::{Connection, Glance};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a request needs of a spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Any that seems alive: the request may be repeated.
    Alive,
    /// One that the backend will not close just now: the request must not be sent twice.
    Sure,
}

/// A backend that keeps spares for this long keeps them on purpose.
const HABIT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Spares {
    resting: Mutex<Vec<Spare>>,
    /// How many there are, for those who only want to know that.
    count: AtomicUsize,
    /// The greatest age at which a spare was seen alive, in milliseconds.
    kept: AtomicU64,
    /// The least age at which the backend closed one, in milliseconds.
    closed: AtomicU64,
    account: Arc<Account>,
}

struct Spare {
    connection: Connection,
    since: Instant,
    life: Duration,
}

impl std::fmt::Debug for Spare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spare").field("since", &self.since).field("life", &self.life).finish_non_exhaustive()
    }
}

impl Spares {
    pub(super) fn new(account: Arc<Account>) -> Spares {
        Spares {
            resting: Mutex::new(Vec::new()),
            count: AtomicUsize::new(0),
            kept: AtomicU64::new(0),
            closed: AtomicU64::new(u64::MAX),
            account,
        }
    }

    /// The newest spare that fits the need, probed: nothing to read and no end in sight; and since when it
    /// was kept. It is bound to whoever waits under `client`.
    pub(super) fn take(&self, client: &Connection, need: Need, now: Instant) -> Option<(Connection, Instant)> {
        loop {
            let mut spare = {
                let mut resting = self.lock();
                let newest = resting.last()?;
                if need == Need::Sure && !self.is_sure(now.saturating_duration_since(newest.since)) {
                    return None;
                }
                let spare = resting.pop()?;
                self.note_count(&resting);
                spare
            };
            let age = now.saturating_duration_since(spare.since);
            if age >= spare.life {
                continue;
            }
            spare.connection.bind_to(client);
            if !spare.connection.is_stirring() && spare.connection.glance() == Glance::Quiet {
                self.account.spares_reused.fetch_add(1, Ordering::Relaxed);
                return Some((spare.connection, spare.since));
            }
            self.note_closed(age);
        }
    }

    /// Keeps a connection for at most `life`.
    pub(super) fn rest(&self, mut connection: Connection, now: Instant, life: Duration) {
        connection.unbind();
        let mut resting = self.lock();
        resting.push(Spare { connection, since: now, life });
        self.note_count(&resting);
    }

    /// A spare was closed by the backend at this age, before or after it was taken.
    pub(super) fn note_closed(&self, age: Duration) {
        self.account.spares_dead.fetch_add(1, Ordering::Relaxed);
        self.closed.fetch_min(milliseconds(age), Ordering::Relaxed);
    }

    /// Closes those that are too old or that the backend has closed, and learns from both.
    pub(super) fn sweep(&self, now: Instant) {
        let is_over = |spare: &mut Spare| {
            let age = now.saturating_duration_since(spare.since);
            if spare.connection.is_stirring() {
                self.note_closed(age);
                return true;
            }
            if age >= HABIT {
                self.kept.fetch_max(milliseconds(age), Ordering::Relaxed);
            }
            age >= spare.life
        };
        let mut resting = self.lock();
        let gone: Vec<Spare> = resting.extract_if(.., is_over).collect();
        self.note_count(&resting);
        drop(resting);
        drop(gone); // closed outside the lock: each is a system call
    }

    /// Closes the oldest, and says whether there was one.
    pub(super) fn close_oldest(&self) -> bool {
        let mut resting = self.lock();
        if resting.is_empty() {
            return false;
        }
        let oldest = resting.remove(0);
        self.note_count(&resting);
        drop(resting);
        drop(oldest);
        true
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// To be called under the lock, whenever their number has changed.
    fn note_count(&self, resting: &[Spare]) {
        self.count.store(resting.len(), Ordering::Relaxed);
    }

    fn is_sure(&self, age: Duration) -> bool {
        Duration::from_millis(self.kept.load(Ordering::Relaxed)) >= HABIT
            && milliseconds(age) < self.closed.load(Ordering::Relaxed) / 2
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Spare>> {
        // A worker that panicked under this lock left a list of connections, each of them whole.
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
