//! Everything that has been counted, at one moment.

use super::tally::{Counted, Doing, Tally, WAITS};
use crate::balance::{Balance, Books, CLASSES, Condition, Member, Queue};
use crate::counting::Distribution;
use crate::error::{Blame, Reason};
use crate::live::Snapshot;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the numbers are.
pub struct Sources<'a> {
    /// Of all who count.
    pub tallies: &'a [Tally],
    /// Whose backends are told of one by one.
    pub snapshot: &'a Snapshot,
    /// Who waits for a place at a backend.
    pub queue: &'a Queue,
    /// What is counted of backends.
    pub books: &'a Books,
    /// Parked clients, by what they wait for.
    pub parked: [usize; WAITS],
    /// Client connections open now.
    pub connections: usize,
    /// Lines that the access log could not keep up with.
    pub log_lines_dropped: u64,
}

/// What has been counted since the program began, and how things stand now.
///
/// At every moment `requests` = `answered` + `refused()` + `failed()` + `open`, and the exchanges that have ended are as many as
/// their statuses, and as many as their durations. Sums over backends may be a moment older.
#[derive(Clone, Debug)]
pub struct Figures {
    /// When they were read.
    pub at: Instant,
    /// Exchanges begun.
    pub requests: u64,
    /// Exchanges that ended without a reason word.
    pub answered: u64,
    /// Exchanges begun and not ended.
    pub open: u64,
    /// Exchanges that have ended, by the class of their status; the first place is for what is none.
    pub classes: [u64; CLASSES],
    /// Those of them that no backend was asked about.
    pub own: [u64; CLASSES],
    /// Exchanges that ended with a reason, in the order of `Reason::ALL`.
    pub reasons: Vec<(Reason, u64)>,
    /// Bytes of requests' bodies.
    pub bytes_in: u64,
    /// Bytes of answers' bodies.
    pub bytes_out: u64,
    /// From a request's last byte to its answer's head.
    pub head: Distribution,
    /// From a request's first byte to its answer's last.
    pub total: Distribution,
    /// Client connections open now.
    pub connections: usize,
    /// Clients parked now, by what they wait for, in the order of `WaitsFor::ALL`.
    pub parked: [usize; WAITS],
    /// The queue for a place at a backend.
    pub queue: QueueFigures,
    /// Each worker.
    pub workers: Vec<WorkerFigures>,
    /// How long workers worked from one wait to the next.
    pub stretches: Distribution,
    /// Turns that panicked.
    pub panics: u64,
    /// The backends that are configured now, in their order.
    pub backends: Vec<BackendFigures>,
    /// What stands under each name of a backend, also of those that are gone; last, under no name, what is forgotten.
    pub accounts: Vec<(Arc<str>, Balance)>,
    /// Lines that the access log could not keep up with.
    pub log_lines_dropped: u64,
}

/// The queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueFigures {
    /// How many wait.
    pub length: usize,
    /// How long the first of them has waited; none if nobody does.
    pub oldest: Option<Duration>,
    /// How many have been given a place.
    pub served: u64,
}

/// One worker.
#[derive(Clone, Copy, Debug)]
pub struct WorkerFigures {
    /// What it does now.
    pub doing: Doing,
    /// Turns that it has given.
    pub turns: u64,
    /// How long it has worked in all.
    pub busy: Duration,
    /// Turns of its that panicked.
    pub panics: u64,
}

/// One backend that is configured now.
#[derive(Clone, Debug)]
pub struct BackendFigures {
    /// What it is called.
    pub name: Arc<str>,
    /// As the operator wrote it.
    pub address: String,
    /// Whether it is fit for requests.
    pub condition: Condition,
    /// It gets nothing new.
    pub drain: bool,
    /// Its share, beside the others' weights.
    pub weight: u32,
    /// It gets requests only while no other can take any.
    pub backup: bool,
    /// Exchanges with it now.
    pub in_flight: usize,
    /// Those of them that it has not answered yet.
    pub awaited: usize,
    /// Its kept connections now.
    pub spares: usize,
    /// What has been counted of it.
    pub balance: Balance,
}

impl Figures {
    /// Reads them. Takes no lock that a worker could wait for.
    pub fn read(sources: &Sources<'_>) -> Figures {
        let at = Instant::now();
        // Each of these is counted after what is read after it: sums over backends are never ahead of those over workers,
        // and what has ended never ahead of what has begun.
        let accounts = sources.books.balances();
        let (requests, sum) = books(sources.tallies);
        let ended: u64 = sum.classes.iter().sum();
        let reasons: Vec<(Reason, u64)> = Reason::ALL.iter().copied().zip(sum.reasons).collect();
        let (last, workers) = sources.tallies.split_last().map_or((None, &[][..]), |(last, rest)| (Some(last), rest));
        let mut stretches = Distribution::default();
        workers.iter().for_each(|tally| stretches.add(&tally.stretches()));
        let workers: Vec<WorkerFigures> = workers.iter().map(WorkerFigures::read).collect();
        Figures {
            at,
            requests,
            answered: ended.saturating_sub(reasons.iter().map(|(_, count)| count).sum()),
            open: requests.saturating_sub(ended),
            classes: sum.classes,
            own: sum.own,
            reasons,
            bytes_in: sum.bytes_in,
            bytes_out: sum.bytes_out,
            head: sum.head,
            total: sum.total,
            connections: sources.connections,
            parked: sources.parked,
            queue: QueueFigures {
                length: sources.queue.length(),
                oldest: sources.queue.oldest(at),
                served: sources.queue.served(),
            },
            panics: workers.iter().map(|worker| worker.panics).sum::<u64>() + last.map_or(0, Tally::panics),
            workers,
            stretches,
            backends: sources.snapshot.rotation.members().iter().map(|member| backend(member, &accounts, at)).collect(),
            accounts,
            log_lines_dropped: sources.log_lines_dropped,
        }
    }

    /// Exchanges that ended with a reason that is the client's doing, or ours.
    pub fn refused(&self) -> u64 {
        self.by_blame(|blame| blame != Blame::Backend)
    }

    /// Exchanges that ended with a reason that is a backend's doing.
    pub fn failed(&self) -> u64 {
        self.by_blame(|blame| blame == Blame::Backend)
    }

    /// Exchanges that ended for this reason.
    pub fn of_reason(&self, reason: Reason) -> u64 {
        self.reasons.iter().filter(|(other, _)| *other == reason).map(|(_, count)| count).sum()
    }

    /// Exchanges that were turned away because there are too many.
    pub fn shed(&self) -> u64 {
        [Reason::Overloaded, Reason::QueueFull, Reason::QueueTimeout].map(|reason| self.of_reason(reason)).iter().sum()
    }

    /// The sum of a number over all backends that there are or were.
    pub fn over_backends(&self, number: impl Fn(&Balance) -> u64) -> u64 {
        self.accounts.iter().map(|(_, balance)| number(balance)).sum()
    }

    fn by_blame(&self, wanted: impl Fn(Blame) -> bool) -> u64 {
        self.reasons.iter().filter(|(reason, _)| wanted(reason.blame())).map(|(_, count)| count).sum()
    }
}

/// So often the books are read again.
const READS: u32 = 8;

/// What has begun, and what of that has ended. What begins while it is read looks as if it stayed open; where that is much,
/// because the reader lost its processor meanwhile, it is read again.
fn books(tallies: &[Tally]) -> (u64, Counted) {
    let begun = || tallies.iter().map(Tally::begun).sum::<u64>();
    let mut read = 0;
    loop {
        let before = begun();
        let mut ended = Counted { reasons: vec![0; Reason::ALL.len()], ..Counted::default() };
        tallies.iter().for_each(|tally| ended.add(&tally.read_ended()));
        let after = begun();
        read += 1;
        if after - before <= tallies.len() as u64 || read == READS {
            return (after, ended);
        }
    }
}

impl Counted {
    fn add(&mut self, other: &Counted) {
        for (sums, more) in [
            (&mut self.classes[..], &other.classes[..]),
            (&mut self.own, &other.own),
            (&mut self.reasons, &other.reasons),
        ] {
            sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
        }
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.head.add(&other.head);
        self.total.add(&other.total);
    }
}

impl WorkerFigures {
    fn read(tally: &Tally) -> WorkerFigures {
        WorkerFigures { doing: tally.doing(), turns: tally.turns(), busy: tally.busy(), panics: tally.panics() }
    }
}

fn backend(member: &Member, accounts: &[(Arc<str>, Balance)], at: Instant) -> BackendFigures {
    let backend = &member.backend;
    let account = accounts.iter().find(|(name, _)| *name == backend.name);
    BackendFigures {
        name: Arc::clone(&backend.name),
        address: backend.origin.to_string(),
        condition: backend.health.condition(at),
        drain: member.drain,
        weight: member.weight,
        backup: member.backup,
        in_flight: backend.in_flight(),
        awaited: backend.awaited(),
        spares: backend.spares(),
        balance: account.map(|(_, balance)| balance.clone()).unwrap_or_default(),
    }
}
