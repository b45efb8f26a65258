//! Connections to one backend, kept for the next request.
//!
//! Newest first: under little load the same few stay warm, and the others age out. A backend may close a spare at any
//! moment, and the close may cross the request on its way. For a request that may be repeated that is no harm; for the
//! others a spare must be *sure*: the backend is known to keep spares for a second or more, this one is younger than half
//! of what it keeps them for, and it has not surprised us lately.
//!
//! While none is sure, each of these others brings a new connection, which becomes a spare. So no more are kept than
//! exchanges were ever under way at once: more are of no use, and a backend that has too many closes some, at any age.

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

/// So long is none of them sure after the backend has closed one that could have been. A restart does that too, once.
const DISTRUST: Duration = Duration::from_secs(60);

/// So many may be kept in any case: the oldest, which shows the backend's habit, and one for the next request.
const FEW: usize = 2;

#[derive(Debug)]
pub(super) struct Spares {
    resting: Mutex<Vec<Spare>>,
    /// How many there are, for those who only want to know that.
    count: AtomicUsize,
    /// To what age the backend keeps them, by the latest evidence, in milliseconds: one that lives raises it, one that was
    /// closed lowers it.
    kept: AtomicU64,
    /// Until when no spare is sure, in milliseconds from `start`.
    distrusted: AtomicU64,
    start: Instant,
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
            distrusted: AtomicU64::new(0),
            start: Instant::now(),
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
                if need == Need::Sure && !self.is_sure(now.saturating_duration_since(newest.since), now) {
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
            if is_quiet(&spare.connection) {
                self.account.spares_reused.fetch_add(1, Ordering::Relaxed);
                return Some((spare.connection, spare.since));
            }
            self.note_closed(age, now);
        }
    }

    /// Keeps a connection, if `keeps` says so under the lock, for at most `life`, and of all of them at most so many. The
    /// oldest stays: it shows for how long the backend keeps one.
    pub(super) fn rest(
        &self,
        mut connection: Connection,
        now: Instant,
        life: Duration,
        most: usize,
        keeps: impl Fn(&Connection) -> bool,
    ) {
        let mut resting = self.lock();
        if !keeps(&connection) {
            drop(resting); // the connection is closed outside the lock
            return;
        }
        connection.unbind();
        resting.push(Spare { connection, since: now, life });
        let surplus = (resting.len() > most.max(FEW)).then(|| resting.remove(1));
        self.note_count(&resting);
        drop(resting);
        drop(surplus); // closed outside the lock
    }

    /// A spare was closed by the backend at this age, before or after it was taken.
    pub(super) fn note_closed(&self, age: Duration, now: Instant) {
        self.account.spares_dead.fetch_add(1, Ordering::Relaxed);
        let age = milliseconds(age);
        let kept = self.kept.fetch_min(age, Ordering::Relaxed);
        if age < (kept / 2).max(milliseconds(HABIT)) {
            self.distrusted.fetch_max(self.milliseconds_at(now + DISTRUST), Ordering::Relaxed);
        }
    }

    /// Closes those that are too old or that the backend has closed, and learns from both.
    pub(super) fn sweep(&self, now: Instant) {
        let is_over = |spare: &mut Spare| {
            let age = now.saturating_duration_since(spare.since);
            if spare.connection.is_stirring() && !is_quiet(&spare.connection) {
                self.note_closed(age, now);
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
        drop(gone); // closed outside the lock: each is a system call, as is the look at one that stirs, but few do
    }

    /// Closes all but those that `keeps` says so of.
    pub(super) fn keep_only(&self, keeps: impl Fn(&Connection) -> bool) {
        let mut resting = self.lock();
        let gone: Vec<Spare> = resting.extract_if(.., |spare| !keeps(&spare.connection)).collect();
        self.note_count(&resting);
        drop(resting);
        drop(gone); // closed outside the lock
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

    fn is_sure(&self, age: Duration, now: Instant) -> bool {
        let kept = self.kept.load(Ordering::Relaxed);
        kept >= milliseconds(HABIT)
            && milliseconds(age) < kept / 2
            && self.distrusted.load(Ordering::Relaxed) <= self.milliseconds_at(now)
    }

    fn milliseconds_at(&self, time: Instant) -> u64 {
        milliseconds(time.saturating_duration_since(self.start))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Spare>> {
        // A worker that panicked under this lock left a list of connections, each of them whole.
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nothing has come by it, and no end. A hint may be an old event's that was told late: only a look says.
fn is_quiet(spare: &Connection) -> bool {
    if spare.is_stirring() {
        spare.look_again();
        return !spare.is_stirring();
    }
    spare.glance() == Glance::Quiet
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Backend;
    use crate::net::Lot;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    const PATIENCE: Duration = Duration::from_secs(8);

    /// A backend, and a client on whose behalf it is connected to. Time is handed in, so nothing here waits for an age.
    struct House {
        lot: Lot<Connection>,
        client: Box<Connection>,
        listener: TcpListener,
        backend: Arc<Backend>,
        start: Instant,
    }

    impl House {
        fn new() -> House {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let lot = Lot::new(crate::net::raise_limit()).unwrap();
            let socket = mio::net::TcpStream::connect(address).unwrap();
            listener.accept().unwrap();
            let start = Instant::now();
            lot.admit(socket, start + PATIENCE, Box::new).unwrap();
            let client = lot.take_oldest_idle(|_| Some(start)).unwrap();
            let backend = Arc::new(Backend::new("a", "http://a".parse().unwrap(), vec![address], &Arc::default()));
            let _at_once = [(); 4].map(|()| backend.enter(None, start)); // so many may be kept
            House { lot, client, listener, backend, start }
        }

        /// A connection to the backend, and the backend's end of it.
        fn connection(&self) -> (Connection, TcpStream) {
            let near = self.backend.dial(&self.client, 0).unwrap();
            (near, self.listener.accept().unwrap().0)
        }

        /// A connection that was kept so many seconds after the start, for at most so many. Its number, and the far end.
        fn kept(&self, after: u64, life: u64) -> (u64, TcpStream) {
            let (near, far) = self.connection();
            let number = near.number();
            self.backend.rest(near, self.after(after * 1000), Duration::from_secs(life));
            (number, far)
        }

        fn after(&self, milliseconds: u64) -> Instant {
            self.start + Duration::from_millis(milliseconds)
        }

        /// The number of the connection that is given at this time, which stays open as long as its far end lives.
        fn given(&self, need: Need, milliseconds: u64) -> Option<u64> {
            let (connection, since) = self.backend.spare(&self.client, need, self.after(milliseconds))?;
            assert!(since <= self.after(milliseconds));
            Some(connection.number())
        }
    }

    #[test]
    fn the_newest_is_given_first_and_who_is_too_old_never() {
        let house = House::new();
        let (first, _far) = house.kept(0, 60);
        let (second, _far) = house.kept(1, 60);
        let (_, _far) = house.kept(2, 1);
        assert_eq!(house.backend.spares(), 3);
        assert_eq!(house.given(Need::Alive, 3000), Some(second), "the third is a second old");
        assert_eq!((house.given(Need::Alive, 3000), house.backend.spares()), (Some(first), 0));
        assert_eq!(house.given(Need::Alive, 3000), None);
        assert_eq!(house.backend.account.read().spares_reused, 2);
    }

    #[test]
    fn neither_an_end_nor_a_byte_that_nobody_asked_for_reaches_the_next_client() {
        let house = House::new();
        for (says, glance) in [(&b""[..], Glance::Ended), (b"x", Glance::Bytes)] {
            let (near, mut far) = house.connection();
            far.write_all(says).unwrap();
            far.shutdown(std::net::Shutdown::Write).unwrap();
            let began = Instant::now();
            while near.glance() != glance {
                assert!(began.elapsed() < PATIENCE);
                std::thread::yield_now();
            }
            house.backend.rest(near, house.start, PATIENCE);
            assert_eq!((house.given(Need::Alive, 1), house.backend.spares()), (None, 0));
        }
        assert_eq!(house.backend.account.read().spares_dead, 2);
    }

    #[test]
    fn a_word_of_bytes_that_are_read_long_since_costs_no_spare() {
        let house = House::new();
        for is_swept in [false, true] {
            let (mut near, mut far) = house.connection();
            far.write_all(b"x").unwrap();
            while near.read(&mut [0]).is_err() {
                assert!(house.start.elapsed() < PATIENCE, "nothing comes");
                house.lot.wait(&mut Vec::new()).unwrap();
            }
            assert!(near.is_stirring(), "as much as there was room for: there may be more");
            let number = near.number();
            house.backend.rest(near, house.start, Duration::from_secs(60));
            if is_swept {
                house.backend.sweep(house.after(1));
            }
            assert_eq!(house.given(Need::Alive, 1), Some(number));
        }
        assert_eq!(house.backend.account.read().spares_dead, 0);
    }

    #[test]
    fn a_spare_is_sure_while_it_is_younger_than_half_of_what_one_was_seen_to_live_and_that_is_a_second() {
        let house = House::new();
        let (number, _far) = house.kept(0, 60);
        house.backend.sweep(house.after(999));
        assert_eq!((house.given(Need::Sure, 0), house.backend.spares()), (None, 1), "it stays for whoever may repeat");
        house.backend.sweep(house.after(1000));
        assert_eq!(house.given(Need::Sure, 500), None);
        assert_eq!(house.given(Need::Sure, 499), Some(number));
        let (_, _far) = house.kept(0, 60);
        house.backend.sweep(house.after(20_000));
        let (number, _far) = house.kept(20, 60);
        assert_eq!(house.given(Need::Sure, 30_000), None);
        assert_eq!(house.given(Need::Sure, 29_999), Some(number));
    }

    #[test]
    fn a_backend_that_closes_a_spare_at_the_end_of_its_time_goes_on_being_trusted_for_half_of_that() {
        let house = House::new();
        let (_, _far) = house.kept(0, 60);
        house.backend.sweep(house.after(12_000));
        house.backend.note_closed_spare(Duration::from_secs(10), house.after(12_000));
        let (number, _far) = house.kept(12, 60);
        assert_eq!(house.given(Need::Sure, 17_000), None);
        assert_eq!(house.given(Need::Sure, 16_999), Some(number));
    }

    #[test]
    fn a_backend_that_closes_a_spare_which_could_have_been_sure_is_distrusted_for_a_minute_and_no_longer() {
        let house = House::new();
        for age in [10, 9_000] {
            let (_, _far) = house.kept(0, 60);
            house.backend.sweep(house.after(20_000));
            house.backend.note_closed_spare(Duration::from_millis(age), house.after(20_000));
            let (_, _old) = house.kept(20, 600);
            house.backend.sweep(house.after(40_000));
            let (number, _far) = house.kept(79, 60);
            assert_eq!(house.given(Need::Sure, 79_999), None, "{age} ms");
            assert_eq!(house.given(Need::Sure, 80_000), Some(number), "{age} ms");
        }
    }

    #[test]
    fn no_more_are_kept_than_were_ever_in_use_at_once_and_the_oldest_stays() {
        let house = House::new();
        let far: Vec<_> = (0..6).map(|second| house.kept(second, 60)).collect();
        assert_eq!(house.backend.spares(), 4);
        let left = [(); 5].map(|()| house.given(Need::Alive, 7000));
        assert_eq!(
            left,
            [5, 4, 3, 0].map(|nth: usize| Some(far[nth].0)).into_iter().chain([None]).collect::<Vec<_>>()[..]
        );
    }

    #[test]
    fn a_sweep_closes_the_old_and_those_that_the_backend_has_closed() {
        let house = House::new();
        let (_, _far) = house.kept(0, 2);
        let (number, far) = house.kept(0, 60);
        house.backend.sweep(house.after(1999));
        assert_eq!(house.backend.spares(), 2);
        house.backend.sweep(house.after(2000));
        house.backend.sweep(house.after(2999));
        assert_eq!(house.backend.spares(), 1);
        drop(far);
        while house.backend.spares() > 0 {
            assert!(house.start.elapsed() < PATIENCE, "{number} is not closed");
            house.lot.wait(&mut Vec::new()).unwrap(); // the kernel says so
            house.backend.sweep(house.after(3000));
        }
        assert_eq!(house.backend.account.read().spares_dead, 1);
        let (number, _far) = house.kept(0, 60);
        assert_eq!(house.given(Need::Sure, 1500), None, "one was closed when it was three seconds old");
        assert_eq!(house.given(Need::Sure, 1498), Some(number));
    }

    #[test]
    fn the_oldest_goes_first_where_room_is_needed_and_all_go_with_their_backend() {
        let house = House::new();
        let (_, _far) = house.kept(0, 60);
        let (newer, _far) = house.kept(1, 60);
        assert!(house.backend.close_oldest_spare());
        assert_eq!(house.given(Need::Alive, 2000), Some(newer));
        assert!(!house.backend.close_oldest_spare());
        let (_, _far) = house.kept(2, 60);
        assert!(!house.backend.is_retired());
        house.backend.retire();
        assert_eq!((house.backend.is_retired(), house.backend.spares()), (true, 0));
        let (_, _far) = house.kept(3, 60);
        assert_eq!((house.backend.spares(), house.given(Need::Alive, 3000)), (0, None));
    }
}
