//! How long things take: many durations as few numbers.
//!
//! The bounds are those between which a proxy's durations lie, ten a decade: near enough to one another that a
//! percentile that is read off them is wrong by a tenth or so, and round enough to be read by people.

use super::Count;
use std::time::Duration;

/// Upper ends of the buckets, in microseconds, from 100 us to 60 s. A last bucket takes what is longer.
pub const BOUNDS: [u64; 59] = bounds();

const fn bounds() -> [u64; 59] {
    // Each a fifth to a third greater than the one before.
    const DECADE: [u64; 10] = [10, 12, 15, 20, 25, 30, 40, 50, 60, 80];
    let mut bounds = [0; 59];
    let (mut nth, mut unit) = (0, 10);
    while nth < 59 {
        bounds[nth] = DECADE[nth % 10] * unit;
        nth += 1;
        if nth % 10 == 0 {
            unit *= 10;
        }
    }
    bounds
}

const BUCKETS: usize = BOUNDS.len() + 1;

/// A duration, and the bucket that it belongs to. To be found once, for several histograms.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    micros: u64,
    bucket: usize,
}

impl From<Duration> for Measured {
    fn from(duration: Duration) -> Measured {
        let micros = duration.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(duration.subsec_micros()));
        Measured { micros, bucket: BOUNDS.partition_point(|bound| *bound < micros) }
    }
}

/// Durations, counted by one thread.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Count; BUCKETS],
    sum: Count,
    max: Count,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: [(); BUCKETS].map(|()| Count::default()), sum: Count::default(), max: Count::default() }
    }
}

impl Histogram {
    /// Counts a duration. To be called by the histogram's own thread alone.
    pub fn count(&self, measured: Measured) {
        if let Some(bucket) = self.buckets.get(measured.bucket) {
            bucket.add(1);
        }
        self.sum.add(measured.micros);
        self.max.raise_to(measured.micros);
    }

    /// What has been counted.
    pub fn read(&self) -> Distribution {
        Distribution { buckets: self.buckets.each_ref().map(Count::get), sum: self.sum.get(), max: self.max.get() }
    }
}

/// What a histogram, or several, have counted by one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distribution {
    buckets: [u64; BUCKETS],
    sum: u64,
    max: u64,
}

impl Default for Distribution {
    fn default() -> Distribution {
        Distribution { buckets: [0; BUCKETS], sum: 0, max: 0 }
    }
}

impl Distribution {
    /// Adds what another has counted.
    pub fn add(&mut self, other: &Distribution) {
        for (mine, others) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += others;
        }
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// What has been counted since `earlier`. Its greatest is that of all time.
    #[must_use]
    pub fn since(&self, earlier: &Distribution) -> Distribution {
        let mut rest = *self;
        for (mine, before) in rest.buckets.iter_mut().zip(earlier.buckets) {
            *mine = mine.saturating_sub(before);
        }
        rest.sum = rest.sum.saturating_sub(earlier.sum);
        rest
    }

    /// How many durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All durations together, in microseconds.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The longest, in microseconds.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// How many durations are at most so long, in microseconds, for each of [`BOUNDS`].
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        BOUNDS.iter().zip(self.buckets).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((*bound, *sum))
        })
    }

    /// The duration, in microseconds, that `percent` of all are not longer than; 0 if there are none. Within a bucket
    /// they are taken to be spread evenly.
    pub fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.count() * percent).div_ceil(100).max(1);
        let mut below = 0;
        for (nth, &count) in self.buckets.iter().enumerate() {
            if below + count >= rank {
                let lower = nth.checked_sub(1).and_then(|nth| BOUNDS.get(nth)).copied().unwrap_or(0);
                let upper = BOUNDS.get(nth).copied().unwrap_or(self.max).min(self.max).max(lower);
                return lower + (upper - lower) * (rank - below) / count;
            }
            below += count;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(micros: impl IntoIterator<Item = u64>) -> Distribution {
        let histogram = Histogram::default();
        micros.into_iter().for_each(|micros| histogram.count(Duration::from_micros(micros).into()));
        histogram.read()
    }

    #[test]
    fn the_bounds_are_those_of_a_proxy() {
        assert_eq!((BOUNDS[0], BOUNDS[58]), (100, 60_000_000));
        assert!(BOUNDS.is_sorted() && BOUNDS.windows(2).all(|pair| pair[1] * 3 <= pair[0] * 4), "{BOUNDS:?}");
    }

    #[test]
    fn a_duration_belongs_to_the_first_bucket_that_ends_with_it_or_later() {
        for (micros, at_most_100, at_most_120) in [(0, 1, 1), (100, 1, 1), (101, 0, 1), (120, 0, 1), (121, 0, 0)] {
            let cumulative: Vec<(u64, u64)> = distribution([micros]).cumulative().take(2).collect();
            assert_eq!(cumulative, [(100, at_most_100), (120, at_most_120)], "{micros}");
        }
        let endless = distribution([u64::MAX / 2, 60_000_001]);
        assert_eq!((endless.count(), endless.cumulative().last()), (2, Some((60_000_000, 0))));
    }

    #[test]
    fn percentiles_are_wrong_by_a_sixth_at_most() {
        let even = distribution((1..=100_000).map(|nth| nth * 10));
        for percent in [1, 10, 50, 90, 99] {
            let (read, real) = (even.percentile(percent), percent * 10_000);
            assert!(read.abs_diff(real) * 6 <= real, "{percent}%: {read}, not {real}");
        }
        assert_eq!(distribution([]).percentile(50), 0);
        assert_eq!(distribution([7]).percentile(99), 7, "never more than the greatest");
        assert_eq!(distribution([90_000_000, 80_000_000]).percentile(99), 90_000_000);
    }

    #[test]
    fn what_came_since_is_the_difference() {
        let (early, late) = (distribution([100, 200]), distribution([100, 200, 5000]));
        let rest = late.since(&early);
        assert_eq!((rest.count(), rest.sum()), (1, 5000));
        let mut all = early;
        all.add(&rest);
        assert_eq!((all.count(), all.sum(), all.max()), (3, 5300, 5000));
    }
}
