//! One entry for each descriptor number.
//!
//! The kernel hands out the lowest free number, so numbers are dense, and no two open sockets share one: the perfect
//! index, with nothing to allocate, free or look up. Entries are made a thousand at a time and never move, so they can
//! be used by all workers without a lock around the table.

use std::sync::OnceLock;

const SEGMENT: usize = 1024;

pub(super) struct Table<T> {
    segments: Box<[OnceLock<Box<[T]>>]>,
}

impl<T: Default> Table<T> {
    /// A table for the descriptors below `limit`; entries are made as they are needed.
    pub(super) fn new(limit: usize) -> Table<T> {
        Table { segments: (0..limit.div_ceil(SEGMENT)).map(|_| OnceLock::new()).collect() }
    }

    /// The entry for this descriptor, which must be below the limit.
    pub(super) fn at(&self, descriptor: u32) -> &T {
        let index = descriptor as usize;
        let segment = self.segments[index / SEGMENT].get_or_init(|| (0..SEGMENT).map(|_| T::default()).collect());
        &segment[index % SEGMENT]
    }

    /// How many descriptors the table is for.
    pub(super) fn len(&self) -> usize {
        self.segments.len() * SEGMENT
    }

    /// All entries made so far, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let segments = self.segments.iter().enumerate();
        let made = segments.filter_map(|(nth, segment)| Some((nth * SEGMENT, segment.get()?)));
        made.flat_map(|(base, entries)| (base..).zip(entries.iter()))
    }
}
