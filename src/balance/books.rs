//! What is counted of backends.
//!
//! The number of backends changes while the program runs, and what has been counted must not be lost with one that
//! leaves: sums never go backwards. So the counts of a backend are an object of their own (`Account`), which the books
//! hold too. Once the backend itself is gone, its account is closed: added to what stands under its name, where one of
//! the same name goes on.

use super::{Flip, Why};
use crate::counting::{Count, Distribution, Histogram, Measured};
use crate::events::{EventKind, Events};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Classes of statuses: 1xx to 5xx. The first place is for what is none.
pub const CLASSES: usize = 6;

/// So many names of backends that are gone are remembered; of what left before them, only the sums are.
const REMEMBERED: usize = 256;

/// The accounts of all backends.
#[derive(Debug, Default)]
pub struct Books {
    /// How many threads count.
    workers: usize,
    /// What happens to backends is told here, among other things.
    pub events: Arc<Events>,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    open: Vec<Arc<Account>>,
    /// Of backends that are gone, in the order in which they went.
    closed: VecDeque<(Arc<str>, Balance)>,
    /// Of those that went before.
    forgotten: Balance,
}

/// What is counted of one backend. It outlives it.
#[derive(Debug)]
pub struct Account {
    name: Arc<str>,
    events: Arc<Events>,
    /// One for each thread that counts.
    tallies: Box<[Tally]>,
    pub(super) dials: AtomicU64,
    pub(super) spares_reused: AtomicU64,
    pub(super) spares_dead: AtomicU64,
    retries: AtomicU64,
    ejections: AtomicU64,
    readmissions: AtomicU64,
}

/// What one worker has counted of one backend. On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Tally {
    classes: [Count; CLASSES],
    failures: Count,
    bytes_in: Count,
    bytes_out: Count,
    head: Histogram,
}

/// A finished exchange, as far as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Of its status: 1 to 5.
    pub class: usize,
    /// It ended by the backend's fault.
    pub is_failure: bool,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's.
    pub bytes_out: u64,
    /// From the request's last byte to the answer's head, if one came.
    pub head: Option<Measured>,
}

/// What an account comes to by one moment.
#[derive(Clone, Debug, Default)]
pub struct Balance {
    /// Exchanges that have ended with this backend, by the class of their status.
    pub classes: [u64; CLASSES],
    /// Those of them that ended by its fault.
    pub failures: u64,
    /// Bytes of requests' bodies.
    pub bytes_in: u64,
    /// Bytes of answers' bodies.
    pub bytes_out: u64,
    /// From the request's last byte to the answer's head.
    pub head: Distribution,
    /// Connections opened.
    pub dials: u64,
    /// Kept connections used again.
    pub spares_reused: u64,
    /// Kept connections found dead.
    pub spares_dead: u64,
    /// Tries with it that failed, and were followed by another, here or elsewhere.
    pub retries: u64,
    /// Times that it was taken out of rotation.
    pub ejections: u64,
    /// Times that it came back.
    pub readmissions: u64,
}

impl Books {
    /// Books for so many threads that count.
    pub fn new(workers: usize) -> Books {
        Books { workers, ..Books::default() }
    }

    /// Opens an account.
    pub fn open(&self, name: &str) -> Arc<Account> {
        let account = Arc::new(Account {
            name: name.into(),
            events: Arc::clone(&self.events),
            tallies: (0..self.workers).map(|_| Tally::default()).collect(),
            dials: AtomicU64::new(0),
            spares_reused: AtomicU64::new(0),
            spares_dead: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            readmissions: AtomicU64::new(0),
        });
        self.with_pages(|pages| {
            pages.close_accounts(); // whether anybody ever reads the books or not, they grow no longer than this
            pages.open.push(Arc::clone(&account));
        });
        account
    }

    /// What stands under each name, of backends that are there, that still have something to finish, and that are gone;
    /// and last, under no name, the sum of those whose names are forgotten.
    ///
    /// Whoever counts is not kept waiting for this, nor is whoever lets go of a backend.
    pub fn balances(&self) -> Vec<(Arc<str>, Balance)> {
        self.with_pages(|pages| {
            pages.close_accounts();
            let mut balances: Vec<(Arc<str>, Balance)> = Vec::new();
            let open = pages.open.iter().map(|account| (&account.name, account.read()));
            for (name, balance) in open.chain(pages.closed.iter().map(|(name, balance)| (name, balance.clone()))) {
                match balances.iter_mut().find(|(other, _)| other == name) {
                    Some((_, sum)) => sum.add(&balance),
                    None => balances.push((Arc::clone(name), balance)),
                }
            }
            balances.push(("".into(), pages.forgotten.clone()));
            balances
        })
    }

    fn with_pages<T>(&self, work: impl FnOnce(&mut Pages) -> T) -> T {
        // Whoever panicked under this lock left pages, each of them whole.
        work(&mut self.pages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Pages {
    /// Whose backend is gone has nobody left who could count there.
    fn close_accounts(&mut self) {
        // That it is ours alone is asked in the way that shows all that was counted before the others let go of it.
        for account in self.open.extract_if(.., |account| Arc::get_mut(account).is_some()) {
            let mut balance = account.read();
            if let Some(at) = self.closed.iter().position(|(name, _)| *name == account.name) {
                balance.add(&self.closed.remove(at).map(|(_, before)| before).unwrap_or_default());
            }
            self.closed.push_back((Arc::clone(&account.name), balance));
        }
        while self.closed.len() > REMEMBERED {
            // Who is here again under a name goes on from what stands there, however long ago that was.
            let is_gone = |name: &Arc<str>| !self.open.iter().any(|account| account.name == *name);
            let Some(oldest) = self.closed.iter().position(|(name, _)| is_gone(name)) else { return };
            if let Some((_, balance)) = self.closed.remove(oldest) {
                self.forgotten.add(&balance);
            }
        }
    }
}

impl Account {
    /// Counts a finished exchange, for the `worker`th thread that counts.
    pub fn enter(&self, worker: usize, entry: &Entry) {
        let Some(tally) = self.tallies.get(worker) else { return };
        if let Some(class) = tally.classes.get(entry.class) {
            class.add(1);
        }
        if entry.is_failure {
            tally.failures.add(1);
        }
        tally.bytes_in.add(entry.bytes_in);
        tally.bytes_out.add(entry.bytes_out);
        if let Some(head) = entry.head {
            tally.head.count(head);
        }
    }

    /// Counts a try that is followed by another.
    pub fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// What it comes to now.
    pub fn read(&self) -> Balance {
        let number = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let mut balance = Balance {
            dials: number(&self.dials),
            spares_reused: number(&self.spares_reused),
            spares_dead: number(&self.spares_dead),
            retries: number(&self.retries),
            ejections: number(&self.ejections),
            readmissions: number(&self.readmissions),
            ..Balance::default()
        };
        for tally in &self.tallies {
            add_all(&mut balance.classes, &tally.classes.each_ref().map(Count::get));
            balance.failures += tally.failures.get();
            balance.bytes_in += tally.bytes_in.get();
            balance.bytes_out += tally.bytes_out.get();
            balance.head.add(&tally.head.read());
        }
        balance
    }

    /// How often the backend has left rotation or come back. Whoever sees a change counted here sees the change.
    pub(super) fn changes(&self) -> u64 {
        self.ejections.load(Ordering::Acquire) + self.readmissions.load(Ordering::Acquire)
    }

    /// Tells that the backend has left rotation or come back: counts it, logs it, and says it to whoever watches.
    pub(super) fn note(&self, flip: &Flip) {
        let (count, kind) = match flip {
            Flip::Ejected { why: Why::Refused | Why::NoAnswer | Why::Stalled, .. } | Flip::Down { .. } => {
                (&self.ejections, EventKind::Ejected)
            }
            Flip::Readmitted { .. } | Flip::Up { .. } => (&self.readmissions, EventKind::Readmitted),
        };
        count.fetch_add(1, Ordering::Release);
        flip.tell(&self.name);
        self.events.tell(kind, format!("{} is {flip}", self.name));
    }
}

impl Balance {
    /// Exchanges that have ended with this backend.
    pub fn requests(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Balance) {
        add_all(&mut self.classes, &other.classes);
        self.head.add(&other.head);
        for (mine, others) in [
            (&mut self.failures, other.failures),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.dials, other.dials),
            (&mut self.spares_reused, other.spares_reused),
            (&mut self.spares_dead, other.spares_dead),
            (&mut self.retries, other.retries),
            (&mut self.ejections, other.ejections),
            (&mut self.readmissions, other.readmissions),
        ] {
            *mine += others;
        }
    }
}

/// Adds number by number.
fn add_all(sums: &mut [u64], more: &[u64]) {
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Entry = Entry { class: 2, is_failure: false, bytes_in: 1, bytes_out: 10, head: None };

    fn requests(books: &Books) -> Vec<(String, u64)> {
        books.balances().into_iter().map(|(name, balance)| (name.to_string(), balance.requests())).collect()
    }

    fn rows(rows: &[(&str, u64)]) -> Vec<(String, u64)> {
        rows.iter().map(|(name, requests)| ((*name).to_owned(), *requests)).collect()
    }

    #[test]
    fn what_was_counted_of_a_backend_stays_when_it_is_gone_and_goes_on_when_it_is_back() {
        let books = Books::new(2);
        let (a, b) = (books.open("a"), books.open("b"));
        a.enter(0, &ENTRY);
        a.enter(1, &ENTRY);
        b.enter(1, &ENTRY);
        drop(a);
        assert_eq!(requests(&books), rows(&[("b", 1), ("a", 2), ("", 0)]));
        let again = books.open("a");
        again.enter(0, &ENTRY);
        assert_eq!(requests(&books), rows(&[("b", 1), ("a", 3), ("", 0)]));
        drop(again);
        assert_eq!(requests(&books), rows(&[("b", 1), ("a", 3), ("", 0)]), "closed twice, under one name");
    }

    #[test]
    fn names_are_forgotten_in_the_end_and_sums_are_not() {
        let books = Books::new(1);
        for nth in 0..REMEMBERED + 5 {
            books.open(&nth.to_string()).enter(0, &ENTRY);
        }
        let requests = requests(&books);
        assert_eq!((requests.len(), requests[0].0.as_str(), requests.last().unwrap().1), (REMEMBERED + 1, "5", 5));
        assert_eq!(requests.iter().map(|(_, requests)| requests).sum::<u64>(), REMEMBERED as u64 + 5);
    }

    #[test]
    fn books_that_nobody_reads_do_not_grow() {
        let books = Books::new(1);
        let stays = books.open("stays");
        for nth in 0..3 * REMEMBERED {
            books.open(&nth.to_string()).enter(0, &ENTRY);
        }
        books.with_pages(|pages| assert_eq!((pages.open.len(), pages.closed.len()), (2, REMEMBERED)));
        let sum: u64 = requests(&books).iter().map(|(_, requests)| requests).sum();
        assert_eq!((sum, &*stays.name), (3 * REMEMBERED as u64, "stays"), "and nothing is lost");
    }

    #[test]
    fn a_name_that_is_there_again_is_not_forgotten_and_one_that_left_again_is_the_last() {
        let books = Books::new(1);
        let come_and_go = |count: usize| {
            for nth in 0..count {
                books.open(&nth.to_string()).enter(0, &ENTRY);
                books.balances();
            }
        };
        let of = |name: &str| requests(&books).into_iter().find(|(other, _)| other == name).map(|(_, count)| count);
        books.open("a").enter(0, &ENTRY);
        books.balances();
        let again = books.open("a");
        again.enter(0, &ENTRY);
        come_and_go(REMEMBERED + 5);
        assert_eq!(of("a"), Some(2), "a counter goes back");
        drop(again);
        books.balances();
        come_and_go(REMEMBERED - 1);
        assert_eq!(of("a"), Some(2), "it left last");
    }

    #[test]
    fn every_number_of_an_account_is_in_its_balance_and_two_of_one_name_add_up() {
        let books = Books::new(2);
        let accounts = [books.open("a"), books.open("a")];
        for account in &accounts {
            for (worker, times) in [(0, 2), (1, 3)] {
                for _ in 0..times {
                    account.enter(worker, &Entry { is_failure: true, ..ENTRY });
                }
            }
            account.dials.store(1, Ordering::Relaxed);
            account.spares_reused.store(2, Ordering::Relaxed);
            account.spares_dead.store(3, Ordering::Relaxed);
            for _ in 0..4 {
                account.count_retry();
            }
            let evidence = || "of a test".to_owned();
            account.note(&Flip::Down { evidence: evidence() });
            account.note(&Flip::Up { evidence: evidence() });
            account.note(&Flip::Down { evidence: evidence() });
            assert_eq!(account.changes(), 3);
        }
        let numbers = |balance: &Balance| {
            let Balance { failures, bytes_in, bytes_out, dials, spares_reused, spares_dead, .. } = *balance;
            let Balance { retries, ejections, readmissions, .. } = *balance;
            let traffic = [balance.requests(), failures, bytes_in, bytes_out];
            (traffic, [dials, spares_reused, spares_dead, retries, ejections, readmissions])
        };
        assert_eq!(numbers(&accounts[0].read()), ([5, 5, 5, 50], [1, 2, 3, 4, 2, 1]));
        let [(name, sum), (_, forgotten)] = &*books.balances() else {
            panic!("one name, and those that are forgotten")
        };
        assert_eq!((&**name, numbers(sum)), ("a", ([10, 10, 10, 100], [2, 4, 6, 8, 4, 2])));
        assert_eq!(numbers(forgotten), ([0; 4], [0; 6]));
    }
}
