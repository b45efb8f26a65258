//! When a parked visit has waited long enough.
//!
//! One atomic number per descriptor, in ticks of 100 ms; whoever holds the baton looks through all of them once a
//! tick (20,000 take a few microseconds: they lie side by side). Nothing has to be cancelled, no heap kept in order,
//! and a nearer deadline needs no wake-up, for the price of being up to a tick late.

use super::table::Table;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How exact deadlines are.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// Ticks since the start, counted from 1.
pub(super) type Tick = u32;

pub(super) struct Deadlines {
    start: Instant,
    /// 0: none.
    ticks: Table<AtomicU32>,
}

impl Deadlines {
    pub(super) fn new(limit: usize) -> Deadlines {
        Deadlines { start: Instant::now(), ticks: Table::new(limit) }
    }

    /// The last tick that is over at this time.
    pub(super) fn tick_at(&self, time: Instant) -> Tick {
        let ticks = time.saturating_duration_since(self.start).as_millis() / TICK.as_millis();
        Tick::try_from(ticks).unwrap_or(Tick::MAX - 1)
    }

    /// How long from `now` to the end of the tick that is running.
    pub(super) fn to_next_tick(&self, now: Instant) -> Duration {
        let end = TICK * (self.tick_at(now) + 1);
        end.saturating_sub(now.saturating_duration_since(self.start))
    }

    pub(super) fn set(&self, descriptor: u32, deadline: Instant) {
        // Rounded up: never early.
        self.ticks.at(descriptor).store(self.tick_at(deadline) + 1, Ordering::Relaxed);
    }

    pub(super) fn clear(&self, descriptor: u32) {
        self.ticks.at(descriptor).store(0, Ordering::Relaxed);
    }

    /// The descriptors from `first` on whose deadline is not after `now`.
    pub(super) fn expired(&self, first: usize, now: Tick) -> impl Iterator<Item = usize> {
        let is_due = move |deadline: &AtomicU32| (1..=now).contains(&deadline.load(Ordering::Relaxed));
        self.ticks.iter_from(first).filter(move |(_, deadline)| is_due(deadline)).map(|(descriptor, _)| descriptor)
    }
}
