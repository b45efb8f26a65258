//! What a worker has at hand for every turn, and what all workers share.

use super::{Client, Door};
use crate::access_log::{self, Outcome};
use crate::balance::Backend;
use crate::config::{AccessLogFormat, ListenerSettings};
use crate::http::CHUNK_HEAD_ROOM;
use crate::lines::Lines;
use crate::live::{Live, Snapshot, View};
use crate::metrics::{Figures, Samples, Sources, Tally};
use crate::net::{Connection, Headcount, Listeners, Lot, Pipe};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant, SystemTime};

/// What all workers share.
pub struct Shared {
    /// What was set, and whose turn it is.
    pub live: Live,
    /// Where clients come from.
    pub listeners: Listeners<Arc<ListenerSettings>>,
    /// Where visits wait.
    pub lot: Lot<Client>,
    /// Where finished exchanges are told of.
    pub access_log: Lines,
    /// Where everything else is told of, if that is wished.
    pub wire_log: Arc<Lines>,
    /// Client connections open now.
    pub connections: Arc<Headcount>,
    /// Who comes in, and as whom.
    pub door: Door,
    /// One for each worker; and a last one for whoever ends what they have left undone.
    pub tallies: Box<[Tally]>,
    /// Finished exchanges, for whoever watches.
    pub samples: Samples,
    /// A drain is announced: nobody new should be sent here.
    pub is_leaving: AtomicBool,
    /// Bytes of request bodies collected at the moment.
    pub collected: AtomicUsize,
    /// Small bodies that are late, and stream.
    pub late: AtomicUsize,
}

impl AsRef<Live> for Shared {
    fn as_ref(&self) -> &Live {
        &self.live
    }
}

impl Shared {
    /// Everything that has been counted, at this moment.
    pub fn figures(&self, snapshot: &Snapshot) -> Figures {
        Figures::read(&Sources {
            tallies: &self.tallies,
            snapshot,
            queue: &self.live.queue,
            books: &self.live.books,
            parked: self.lot.census(),
            connections: self.connections.count(),
            log_lines_dropped: self.access_log.dropped(),
        })
    }
}

/// 64 KiB: with less, long bodies cost more calls; with more, they cost no less.
const BUFFER: usize = 64 * 1024;

/// A turn moves about so much, then others go first: one fast download can't starve the rest.
const BUDGET: usize = 1024 * 1024;

/// So much may come down in a turn, whatever went up in it: an upload without end can't starve its own answer.
const SHARE: usize = BUDGET / 4;

/// A worker's desk.
pub struct Desk {
    pub(super) shared: Arc<Shared>,
    /// What held at the beginning of the turn.
    pub(super) live: View,
    worker: usize,
    /// The time, as of the beginning of the turn.
    pub(super) now: Instant,
    /// Where bytes are read into. Larger than any head may be.
    pub(super) inbound: Vec<u8>,
    /// Where heads are written.
    pub(super) out: Vec<u8>,
    /// Through which long bodies are passed on.
    pub(super) pipe: Pipe,
    /// How many bytes this turn may still read.
    pub(super) budget: usize,
    /// What is left of them, at the least, to the other direction: once in a turn.
    share: usize,
    /// Some byte was written in this turn, or the head of an answer has come.
    pub(super) moved: bool,
    lines: Vec<u8>,
    clock: access_log::Clock,
    date: (u64, String),
    numbers: u64,
}

impl Desk {
    /// A desk for the `worker`th worker.
    pub fn new(shared: Arc<Shared>, worker: usize) -> Desk {
        let live = shared.live.view();
        Desk {
            now: Instant::now(),
            inbound: vec![0; buffer_size(&live)],
            live,
            out: Vec::with_capacity(4096),
            pipe: Pipe::default(),
            budget: BUDGET,
            share: SHARE,
            moved: false,
            lines: Vec::new(),
            clock: access_log::Clock::default(),
            date: (0, String::new()),
            // Each `RandomState` has keys of its own, from the system: what follows differs between workers and processes.
            numbers: RandomState::new().build_hasher().finish(),
            shared,
            worker,
        }
    }

    /// Makes new what a turn that panicked may have left in disorder.
    pub fn renew(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        *self = Desk { lines, ..Desk::new(Arc::clone(&self.shared), self.worker) };
    }

    /// Makes ready for a turn.
    pub fn clear(&mut self, now: Instant) {
        self.now = now;
        self.tally().count_turn();
        if self.live.refresh(&self.shared.live) {
            // Never smaller: an exchange that began before may still need what there was.
            self.inbound.resize(buffer_size(&self.live).max(self.inbound.len()), 0);
        }
        self.moved = false;
        (self.budget, self.share) = (BUDGET, SHARE);
    }

    /// Leaves a share of the turn to the other direction.
    pub(super) fn leave_a_share(&mut self) {
        self.budget = self.budget.max(std::mem::take(&mut self.share));
    }

    /// Ends a turn that has moved enough bytes, but could move more from this connection: others go first.
    pub(super) fn spend(&self, from: &mut Connection) -> io::Result<()> {
        from.note(format_args!("this turn has moved enough: others go first"));
        from.let_others_go_first()
    }

    /// Hands the lines of this batch of turns over to the access log.
    pub fn hand_over_lines(&mut self) {
        self.shared.access_log.send(&mut self.lines);
    }

    /// Exchanges begun and not ended, by all workers.
    pub(super) fn in_flight(&self) -> usize {
        usize::try_from(Tally::open(&self.shared.tallies)).unwrap_or(usize::MAX)
    }

    /// The worker's number.
    pub(super) fn worker(&self) -> usize {
        self.worker
    }

    /// What this worker has counted.
    pub fn tally(&self) -> &Tally {
        &self.shared.tallies[self.worker]
    }

    pub(super) fn count_begun(&self) {
        self.tally().count_begun();
    }

    /// Counts an exchange out, and writes its line. `backend`: who answered, or was asked last.
    pub(super) fn count_ended(&mut self, outcome: &Outcome<'_>, backend: Option<&Backend>) {
        self.tally().count_ended(self.worker, outcome, backend);
        if self.tally().gives_sample() {
            self.shared.samples.give(outcome);
        }
        let settings = &self.live.config.access_log;
        if settings.format != AccessLogFormat::Off
            && access_log::is_told(outcome, settings, || next_number(&mut self.numbers))
        {
            access_log::write_line(settings.format, outcome, &mut self.clock, &mut self.lines);
        }
    }

    /// Whether the access log tells what clients say of themselves.
    pub(super) fn tells_of_clients(&self) -> bool {
        self.live.config.access_log.format == AccessLogFormat::Combined
    }

    /// The value of a Date field, now.
    pub(super) fn date(&mut self) -> &str {
        let second = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        if second != self.date.0 || self.date.1.is_empty() {
            self.date = (second, httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(second)));
        }
        &self.date.1
    }

    /// An id that no other request has: 16 hex digits.
    pub(super) fn fresh_id(&mut self) -> [u8; 16] {
        let mut number = next_number(&mut self.numbers);
        let mut id = [0; 16];
        for digit in id.iter_mut().rev() {
            *digit = b"0123456789abcdef"[(number & 15) as usize];
            number >>= 4;
        }
        id
    }
}

/// SplitMix64: every state gives another number, and neighbours don't look alike.
fn next_number(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut number = *state;
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Larger than any head may be.
fn buffer_size(live: &View) -> usize {
    BUFFER.max(live.config.request_limits.head_bytes.max(live.config.response_head_bytes) + CHUNK_HEAD_ROOM)
}
