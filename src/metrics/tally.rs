//! What one worker counts, on cache lines of its own: counting never makes two workers wait for each other.
//!
//! What belongs together (an exchange's status, reason, bytes and durations) is read together, so sums over it add up
//! exactly, at every moment: requests are answered, refused, failed or open, and none is counted twice or not at all.

use crate::access_log::Outcome;
use crate::balance::{Backend, CLASSES, Entry};
use crate::counting::{Coherence, Count, Distribution, Histogram, Measured};
use crate::error::{Blame, Reason};
use crate::net::Rest;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// What a worker has counted.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Tally {
    coherence: Coherence,
    ended: Ended,
    begun: Count,
    panics: Count,
    turns: Count,
    /// Nanoseconds.
    busy: Count,
    stretches: Histogram,
    doing: AtomicU8,
    /// How many samples are still wanted.
    wanted: Count,
}

/// Of exchanges that have ended.
#[derive(Debug, Default)]
struct Ended {
    classes: [Count; CLASSES],
    reasons: Reasons,
    bytes_in: Count,
    bytes_out: Count,
    /// Those that were no backend's.
    own: [Count; CLASSES],
    head: Histogram,
    total: Histogram,
}

#[derive(Debug)]
struct Reasons([Count; Reason::ALL.len()]);

impl Default for Reasons {
    fn default() -> Reasons {
        Reasons([(); Reason::ALL.len()].map(|()| Count::default()))
    }
}

/// What a worker has counted by one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    pub(super) classes: [u64; CLASSES],
    pub(super) own: [u64; CLASSES],
    /// In the order of `Reason::ALL`.
    pub(super) reasons: Vec<u64>,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) head: Distribution,
    pub(super) total: Distribution,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Doing {
    /// It waits for events.
    #[default]
    Waiting,
    /// It gives turns.
    Working,
}

impl Doing {
    /// All that a worker may do.
    pub const ALL: [Doing; 2] = [Doing::Waiting, Doing::Working];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Doing::Waiting => "waiting",
            Doing::Working => "working",
        }
    }
}

/// What a parked client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WaitsFor {
    /// Its own next request.
    Request,
    /// The rest of its request's head.
    Head,
    /// A place at a backend.
    Queue,
    /// The backend: to let us in, to take bytes, or to answer.
    Backend,
    /// The client itself: to take its answer.
    SlowReader,
    /// The rest of its request's body.
    Body,
    /// Either end of a tunnel.
    Tunnel,
    /// The end of a gentle close.
    Closing,
}

/// So many things may be waited for.
pub const WAITS: usize = 8;

impl WaitsFor {
    /// All that may be waited for, by number.
    pub const ALL: [WaitsFor; WAITS] = [
        WaitsFor::Request,
        WaitsFor::Head,
        WaitsFor::Queue,
        WaitsFor::Backend,
        WaitsFor::SlowReader,
        WaitsFor::Body,
        WaitsFor::Tunnel,
        WaitsFor::Closing,
    ];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            WaitsFor::Request => "request",
            WaitsFor::Head => "head",
            WaitsFor::Queue => "queue",
            WaitsFor::Backend => "backend",
            WaitsFor::SlowReader => "slow_reader",
            WaitsFor::Body => "body",
            WaitsFor::Tunnel => "tunnel",
            WaitsFor::Closing => "closing",
        }
    }
}

impl Tally {
    /// An exchange begins.
    pub fn count_begun(&self) {
        self.begun.add(1);
    }

    /// A turn begins.
    pub fn count_turn(&self) {
        self.turns.add(1);
    }

    /// A turn has panicked.
    pub fn count_panic(&self) {
        self.panics.add(1);
    }

    /// An exchange has ended. `worker`: whose tally this is; `backend`: who answered, or was asked last.
    pub fn count_ended(&self, worker: usize, outcome: &Outcome<'_>, backend: Option<&Backend>) {
        let class = usize::from(outcome.status / 100);
        let class = if class < CLASSES { class } else { 0 };
        let (bytes_in, bytes_out) = (outcome.bytes_in, outcome.bytes_out);
        let (head, total) = (outcome.first_byte.map(Measured::from), Measured::from(outcome.total));
        self.coherence.change(|| {
            let ended = &self.ended;
            add_at(&ended.classes, class);
            if backend.is_none() {
                add_at(&ended.own, class);
            }
            if let Some(reason) = outcome.reason {
                add_at(&ended.reasons.0, reason as usize);
            }
            ended.bytes_in.add(bytes_in);
            ended.bytes_out.add(bytes_out);
            if let Some(head) = head {
                ended.head.count(head);
            }
            ended.total.count(total);
        });
        if let Some(backend) = backend {
            let is_failure = outcome.reason.is_some_and(|reason| reason.blame() == Blame::Backend);
            backend.account.enter(worker, &Entry { class, is_failure, bytes_in, bytes_out, head });
        }
    }

    /// What the worker does from now on.
    pub fn note(&self, doing: Doing) {
        self.doing.store(doing as u8, Ordering::Relaxed);
    }

    /// The worker has waited, and goes on now. `resumed`: when it went on the last time.
    pub fn count_rest(&self, resumed: Instant, rest: Rest) {
        let busy = rest.since.saturating_duration_since(resumed);
        self.busy.add(nanoseconds(busy));
        self.stretches.count(busy.into());
    }

    /// Somebody watches: the next exchanges that end are to be told of, so many of them.
    pub fn want_samples(&self, count: u64) {
        self.wanted.set(count); // if the worker takes one away at this moment, there is one too many, or too few
    }

    /// Whether the exchange that has just ended is to be told of.
    pub fn gives_sample(&self) -> bool {
        let wanted = self.wanted.get();
        if wanted > 0 {
            self.wanted.set(wanted - 1);
        }
        wanted > 0
    }

    pub(super) fn read_ended(&self) -> Counted {
        let numbers = |counts: &[Count; CLASSES]| counts.each_ref().map(Count::get);
        self.coherence.read(|| Counted {
            classes: numbers(&self.ended.classes),
            own: numbers(&self.ended.own),
            reasons: self.ended.reasons.0.iter().map(Count::get).collect(),
            bytes_in: self.ended.bytes_in.get(),
            bytes_out: self.ended.bytes_out.get(),
            head: self.ended.head.read(),
            total: self.ended.total.read(),
        })
    }

    /// Exchanges begun and not ended, by all workers. For workers: whoever asks never reads twice, and may be off by those
    /// that end at this moment.
    pub fn open(tallies: &[Tally]) -> u64 {
        let ended = |tally: &Tally| tally.ended.classes.iter().map(Count::get).sum::<u64>();
        let ended: u64 = tallies.iter().map(ended).sum(); // before those begun, so that the difference is never negative
        tallies.iter().map(Tally::begun).sum::<u64>().saturating_sub(ended)
    }

    pub(super) fn begun(&self) -> u64 {
        self.begun.get()
    }

    pub(super) fn panics(&self) -> u64 {
        self.panics.get()
    }

    pub(super) fn turns(&self) -> u64 {
        self.turns.get()
    }

    pub(super) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy.get())
    }

    pub(super) fn stretches(&self) -> Distribution {
        self.stretches.read()
    }

    pub(super) fn doing(&self) -> Doing {
        let number = self.doing.load(Ordering::Relaxed);
        Doing::ALL.into_iter().find(|doing| *doing as u8 == number).unwrap_or_default()
    }
}

fn add_at(counts: &[Count], nth: usize) {
    if let Some(count) = counts.get(nth) {
        count.add(1);
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A finished exchange, for whoever watches.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it ended.
    pub ended: SystemTime,
    /// Its id; empty if it has none.
    pub id: String,
    /// As it was asked for; empty when the head was never understood.
    pub method: String,
    /// The first [`Sample::TARGET`] bytes of it.
    pub target: String,
    /// The status that went out, or 499.
    pub status: u16,
    /// Who answered, or was asked last.
    pub backend: Option<String>,
    /// Why it did not go as the client hoped.
    pub reason: Option<Reason>,
    /// How many backends were asked.
    pub tries: u32,
    /// In the queue for a place at a backend.
    pub queued: Option<Duration>,
    /// From the choice of a backend to the connection.
    pub connect: Option<Duration>,
    /// From the request's last byte to the answer's head.
    pub first_byte: Option<Duration>,
    /// From the request's first byte to the answer's head.
    pub head: Option<Duration>,
    /// From the request's first byte to the answer's last.
    pub total: Duration,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's.
    pub bytes_out: u64,
}

impl Sample {
    /// More of a target is not kept.
    pub const TARGET: usize = 256;
}

/// Where samples lie until somebody takes them. What finds no room is dropped.
#[derive(Debug)]
pub struct Samples {
    give: Sender<Sample>,
    take: Receiver<Sample>,
}

/// More than is ever wanted at once: whoever gives never meets a slow taker at the place that it wants.
const SAMPLES: usize = 64;

impl Default for Samples {
    fn default() -> Samples {
        let (give, take) = bounded(SAMPLES);
        Samples { give, take }
    }
}

impl Samples {
    /// Gives a sample away; if there is no room, it is lost.
    pub fn give(&self, outcome: &Outcome<'_>) {
        if self.give.is_full() {
            return;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.get(..Sample::TARGET).unwrap_or(bytes)).into_owned();
        let _lost = self.give.try_send(Sample {
            ended: outcome.ended,
            id: text(outcome.id),
            method: text(outcome.method),
            target: text(outcome.target),
            status: outcome.status,
            backend: outcome.backend.map(str::to_owned),
            reason: outcome.reason,
            tries: outcome.tries,
            queued: outcome.queued,
            connect: outcome.connect,
            first_byte: outcome.first_byte,
            head: outcome.head,
            total: outcome.total,
            bytes_in: outcome.bytes_in,
            bytes_out: outcome.bytes_out,
        });
    }

    /// What was given since the last time.
    pub fn take(&self) -> impl Iterator<Item = Sample> {
        self.take.try_iter()
    }
}
