//! Numbers that one thread writes and others read.
//!
//! Counting must cost whoever works nothing that can be measured. So every number here belongs to one thread, and has a
//! place of its own: adding to it is a load and a store, and no other processor has to be asked. Whoever wants to know
//! reads all places and adds up.
//!
//! Nothing here knows what is counted.

mod histogram;

pub use histogram::{BOUNDS, Distribution, Histogram, Measured};

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// A number that one thread adds to and others read. (A second thread that added would lose additions, no more.)
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds to it. To be called by its own thread alone.
    pub fn add(&self, more: u64) {
        self.set(self.get().wrapping_add(more));
    }

    /// Makes it at least this. To be called by its own thread alone.
    pub fn raise_to(&self, least: u64) {
        if least > self.get() {
            self.set(least);
        }
    }

    /// Puts another number in its place.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Marks the moments at which several numbers of one thread don't fit one another, for readers to avoid: a sequence
/// lock. The writer never waits; a reader that comes in between reads again.
#[derive(Debug, Default)]
pub struct Coherence {
    /// Odd while the writer is at it.
    version: AtomicU64,
}

/// So often a reader tries again, and so often without letting others go first. A change takes nanoseconds; a writer that
/// lost its processor in the midst of one takes as long as it takes to get it back.
const READS: u32 = 1000;
const AT_ONCE: u32 = 100;

impl Coherence {
    /// Changes numbers that belong together. To be called by their own thread alone.
    pub fn change(&self, change: impl FnOnce()) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        change();
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// Reads numbers that belong together. What was done before a change that is seen, by whatever thread, is seen too.
    pub fn read<T>(&self, read: impl Fn() -> T) -> T {
        for nth in 1..READS {
            let before = self.version.load(Ordering::Acquire);
            let seen = read();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before {
                return seen;
            }
            if nth < AT_ONCE { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn numbers_that_belong_together_are_read_together() {
        let (coherence, numbers, is_over) =
            (Coherence::default(), [(); 8].map(|()| Count::default()), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    coherence.change(|| numbers.iter().for_each(|number| number.add(1)));
                    std::thread::yield_now(); // with less rest than work no reader would ever come through
                }
            });
            for _ in 0..20_000 {
                let seen = coherence.read(|| numbers.each_ref().map(Count::get));
                assert!(seen.iter().all(|number| *number == seen[0]), "{seen:?}");
            }
            is_over.store(true, Ordering::Relaxed);
        });
    }
}
