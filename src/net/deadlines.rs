//! When a parked visit has waited long enough.
//!
//! One atomic number per descriptor, in ticks of 100 ms; whoever waits first in a tick looks through all of them
//! (20,000 take some fifteen microseconds: they lie side by side). Nothing has to be cancelled, no heap kept in order,
//! and a nearer deadline needs no wake-up, for the price of being up to a tick late.
//!
//! In the same number stands what the visit waits for, as its owner calls it: so how many wait for what can be counted
//! by whoever asks, and costs those who park nothing.

use super::table::Table;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How exact deadlines are.
pub(super) const TICK: Duration = Duration::from_millis(100);

const TICKS_A_SECOND: u64 = 10;

/// Ticks since the start, counted from 1.
type Tick = u32;

/// So many bits say what is waited for; the rest is the tick.
const KIND_BITS: u32 = 8;

pub(super) struct Deadlines {
    start: Instant,
    /// The tick, and in the lowest bits the kind of wait. 0: none.
    words: Table<AtomicU64>,
}

impl Deadlines {
    pub(super) fn new(limit: usize) -> Deadlines {
        Deadlines { start: Instant::now(), words: Table::new(limit) }
    }

    /// The last tick that is over at this time.
    pub(super) fn tick_at(&self, time: Instant) -> Tick {
        let age = time.saturating_duration_since(self.start);
        // Not in milliseconds: these are 128 bits wide, and dividing them costs more than all the rest of this.
        let ticks = age.as_secs() * TICKS_A_SECOND + u64::from(age.subsec_nanos() / TICK.subsec_nanos());
        Tick::try_from(ticks).unwrap_or(Tick::MAX - 1)
    }

    /// How long from `now` to the end of the tick that is running.
    pub(super) fn to_next_tick(&self, now: Instant) -> Duration {
        let end = TICK * (self.tick_at(now) + 1);
        end.saturating_sub(now.saturating_duration_since(self.start))
    }

    pub(super) fn set(&self, descriptor: u32, deadline: Instant, kind: u8) {
        // Rounded up: early by no more than the turns take that were before this one in a batch.
        let tick = u64::from(self.tick_at(deadline)) + 1;
        self.words.at(descriptor).store(tick << KIND_BITS | u64::from(kind), Ordering::Relaxed);
    }

    pub(super) fn clear(&self, descriptor: u32) {
        self.words.at(descriptor).store(0, Ordering::Relaxed);
    }

    /// The descriptors whose deadline is not after `now`.
    pub(super) fn expired(&self, now: Tick) -> impl Iterator<Item = usize> {
        let is_due =
            move |word: &AtomicU64| (1..=u64::from(now)).contains(&(word.load(Ordering::Relaxed) >> KIND_BITS));
        self.words.iter().filter(move |(_, deadline)| is_due(deadline)).map(|(descriptor, _)| descriptor)
    }

    /// How many wait for each kind of thing, the greatest number standing for all beyond it.
    pub(super) fn census<const KINDS: usize>(&self) -> [usize; KINDS] {
        let mut counts = [0; KINDS];
        for (_, word) in self.words.iter() {
            let word = word.load(Ordering::Relaxed);
            let kind = usize::from(word.to_le_bytes()[0]).min(KINDS.saturating_sub(1));
            if word != 0
                && let Some(count) = counts.get_mut(kind)
            {
                *count += 1;
            }
        }
        counts
    }
}
