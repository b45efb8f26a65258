//! The fastest answer of late: what a silence is measured by.
//!
//! A backend whose every answer takes a second is silent for a second whenever several requests come at once, and is
//! well. So nobody stands still who has been silent for less than its fastest answer took, and as long again.

use std::sync::atomic::{AtomicU64, Ordering};

/// *Of late* is the current window and the one before, in milliseconds.
const WINDOW: u64 = 10_000;

/// So many bits for a time: 17 minutes in milliseconds, and longer counts as that.
const BITS: u32 = 20;
const LONGEST: u64 = (1 << BITS) - 1;

/// One word: the window's number, the fastest answer in it and the fastest in the one before; a millisecond is added to
/// each, so that 0 says that there was none.
#[derive(Debug, Default)]
pub(super) struct Fastest(AtomicU64);

impl Fastest {
    /// An answer took so long, in milliseconds. Nearly always this is one look at the word.
    pub(super) fn note(&self, took: u64, now: u64) {
        let (took, window) = (took.saturating_add(1).min(LONGEST), now / WINDOW);
        let faster = |word| {
            let (then, this, before) = unpack(word);
            match window.checked_sub(then) {
                Some(0) => (this == 0 || took < this).then(|| pack(window, took, before)),
                Some(1) => Some(pack(window, took, this)),
                Some(_) => Some(pack(window, took, 0)),
                None => None, // another worker's clock was read later, and its answer noted first
            }
        };
        // An error says only that there was nothing to change.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, faster);
    }

    /// What the fastest took, in milliseconds; 0 if there was none, or if it is long ago.
    pub(super) fn read(&self, now: u64) -> u64 {
        let (then, this, before) = unpack(self.0.load(Ordering::Relaxed));
        let of_late = match (now / WINDOW).saturating_sub(then) {
            0 => [this, before],
            1 => [this, 0],
            _ => [0, 0],
        };
        of_late.into_iter().filter(|took| *took > 0).min().map_or(0, |took| took - 1)
    }
}

fn pack(window: u64, this: u64, before: u64) -> u64 {
    window << (2 * BITS) | this << BITS | before
}

fn unpack(word: u64) -> (u64, u64, u64) {
    (word >> (2 * BITS), word >> BITS & LONGEST, word & LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_of_two_windows_counts() {
        // What took so long, when; and what is read then.
        let rows = [
            (600, 100, 600),
            (900, 5_000, 600),
            (700, 12_000, 600),
            (800, 19_000, 600),
            (800, 20_000, 700),
            (0, 20_001, 0),
            (5, 29_000, 0),
            (9, 35_000, 0),
            (u64::MAX, 90_000, LONGEST - 1),
        ];
        let fastest = Fastest::default();
        assert_eq!(fastest.read(0), 0, "nothing is known");
        for (took, now, read) in rows {
            fastest.note(took, now);
            assert_eq!(fastest.read(now), read, "{took} at {now}");
        }
        fastest.note(3, 89_999);
        assert_eq!(fastest.read(99_999), LONGEST - 1, "too late to count");
        assert_eq!((fastest.read(105_000), fastest.read(115_000)), (LONGEST - 1, 0), "and then it is forgotten");
    }
}
