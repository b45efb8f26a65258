//! The policies that look at load, as functions from candidates to one of them.
//!
//! There is no clock here and no die. A policy that needs chance gets a number, in practice the next value of a counter,
//! and scatters it: the same candidates and the same number are the same choice, so a test is a table. Nothing is
//! allocated; the candidates are walked two or three times instead.
//!
//! The counts that a policy reads are a moment old, and other workers read the same. So none of them is ever exact, and
//! the ones that look at two backends only do better under that than one that sends everybody to the same best.

use super::hashing::{fraction, scatter};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A backend that may be chosen, as of now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its place among all backends: what a policy answers with.
    pub nth: usize,
    /// Its weight, times its share of it while it starts slowly.
    pub weight: f64,
    /// Exchanges that are with it.
    pub in_flight: usize,
    /// How long it takes to answer, in microseconds, as [`Ewma::read`] says; 0: nobody knows yet.
    pub latency: f64,
}

impl Candidate {
    /// The weight, kept to numbers that can be added up and divided by.
    pub(super) fn share(&self) -> f64 {
        const LEAST: f64 = 1e-6;
        // Not a number is not greater, and becomes the least too.
        if self.weight > LEAST { self.weight.min(1e6) } else { LEAST }
    }

    /// How full it would be with one more, beside the others.
    fn fullness(&self) -> f64 {
        (self.in_flight + 1) as f64 / self.share()
    }

    fn is_idle(&self) -> bool {
        self.in_flight == 0
    }
}

/// Whoever has the fewest in flight for its weight, with the new one counted in. Equals take turns by `number`.
///
/// While all are idle there is nothing to compare, and the weights alone decide; otherwise a client that sends one
/// request after the other would always meet the heaviest.
pub fn least_in_flight(candidates: impl Iterator<Item = Candidate> + Clone, number: u64) -> Option<usize> {
    let first = candidates.clone().next()?;
    let is_uniform = candidates.clone().all(|candidate| candidate.share() == first.share());
    if !is_uniform && candidates.clone().all(|candidate| candidate.is_idle()) {
        return draw(candidates, scatter(number), None).map(|candidate| candidate.nth);
    }
    let least = candidates.clone().map(|candidate| candidate.fullness()).min_by(f64::total_cmp)?;
    let equals = candidates.filter(|candidate| candidate.fullness() == least);
    let count = equals.clone().count() as u64;
    let turn = usize::try_from(number.checked_rem(count)?).ok()?;
    equals.map(|candidate| candidate.nth).nth(turn)
}

/// Of two drawn by weight, the less full one. Of two idle ones the first: the draw has seen to their weights.
pub fn two_choices(candidates: impl Iterator<Item = Candidate> + Clone, number: u64) -> Option<usize> {
    let (one, other) = draw_two(candidates, number)?;
    let both_idle = one.is_idle() && other.is_idle();
    Some(if both_idle || one.fullness() <= other.fullness() { one.nth } else { other.nth })
}

/// Of two drawn by weight, the one where less waiting is to be expected: its latency, times those in flight with the
/// new one, over its weight. Between two idle ones the latency alone decides.
///
/// A backend that has not answered yet is tried before any other, but with one request at a time: until its answer says
/// more, whoever comes second goes elsewhere.
pub fn peak_ewma(candidates: impl Iterator<Item = Candidate> + Clone, number: u64) -> Option<usize> {
    let (one, other) = draw_two(candidates, number)?;
    let both_idle = one.is_idle() && other.is_idle();
    let cost = |candidate: Candidate| {
        let is_known = candidate.latency > 0.0;
        let rank = if is_known { 1 } else { 2 * u8::from(!candidate.is_idle()) };
        let fullness = if both_idle { 1.0 } else { candidate.fullness() };
        (rank, if is_known { candidate.latency * fullness } else { fullness })
    };
    Some(if cost(one) <= cost(other) { one.nth } else { other.nth })
}

/// Two different candidates, drawn by weight; the same one twice, if there is only one.
fn draw_two(candidates: impl Iterator<Item = Candidate> + Clone, number: u64) -> Option<(Candidate, Candidate)> {
    let chance = scatter(number);
    let one = draw(candidates.clone(), chance, None)?;
    let other = draw(candidates, scatter(chance), Some(one.nth));
    Some((one, other.unwrap_or(one)))
}

/// One of the candidates, each as likely as its weight says.
fn draw(candidates: impl Iterator<Item = Candidate> + Clone, chance: u64, except: Option<usize>) -> Option<Candidate> {
    let candidates = candidates.filter(|candidate| Some(candidate.nth) != except);
    let total: f64 = candidates.clone().map(|candidate| candidate.share()).sum();
    let mut left = fraction(chance) * total;
    let mut last = None;
    for candidate in candidates {
        last = Some(candidate);
        left -= candidate.share();
        if left < 0.0 {
            break;
        }
    }
    last // rounding may leave a little over: then it is the last one's
}

/// How long an old latency counts: after so long it has lost 63 percent of its say, after three times as long 95. Others
/// remember for as long: Finagle and Linkerd, from which this policy comes.
const MEMORY: Duration = Duration::from_secs(10);

/// A worker's clock is behind another's by less than this, in milliseconds: it is read every turn. What seems to be longer
/// is a mean of which nothing was heard for weeks, by a count that goes round.
const LATE: u32 = 60_000;

/// How long a backend takes to answer: a mean that forgets (exponentially weighted), and believes bad news at once.
///
/// A latency above the mean replaces it; below it, it pulls the mean down as slowly as time passes. And while nothing is
/// heard at all, the mean sinks, so that a backend that was slow once is tried again.
#[derive(Debug)]
pub struct Ewma {
    began: Instant,
    /// The mean, microseconds as the bits of an f32, and below it when that was, milliseconds since `began`. One word,
    /// so that both are read together without a lock. 0: nothing was heard yet.
    state: AtomicU64,
}

impl Ewma {
    /// Nothing is known at first.
    pub fn new(now: Instant) -> Ewma {
        Ewma { began: now, state: AtomicU64::new(0) }
    }

    /// An answer took so long. At most one of the unsurprising ones per millisecond counts.
    pub fn observe(&self, latency: Duration, now: Instant) {
        let time = self.time(now);
        let latency = (latency.as_secs_f32() * 1e6).max(1.0); // never 0, which would be: unknown
        let advance = |state| {
            let (mean, then) = unpack(state);
            if latency > mean {
                return Some(pack(latency, time));
            }
            let kept = decay(time, then);
            (kept < 1.0).then(|| pack(mean * kept + latency * (1.0 - kept), time))
        };
        // An error says only that there was nothing to change.
        let _ = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, advance);
    }

    /// The mean as of now, in microseconds; 0: nothing was heard yet.
    pub fn read(&self, now: Instant) -> f64 {
        let (mean, then) = unpack(self.state.load(Ordering::Relaxed));
        if mean > 0.0 { f64::from((mean * decay(self.time(now), then)).max(1.0)) } else { 0.0 }
    }

    /// Milliseconds since it began, which go round after 49 days.
    fn time(&self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.began).as_millis();
        u32::try_from(passed & u128::from(u32::MAX)).unwrap_or_default()
    }
}

fn pack(mean: f32, time: u32) -> u64 {
    u64::from(mean.to_bits()) << 32 | u64::from(time)
}

fn unpack(state: u64) -> (f32, u32) {
    let [a, b, c, d, e, f, g, h] = state.to_be_bytes();
    (f32::from_bits(u32::from_be_bytes([a, b, c, d])), u32::from_be_bytes([e, f, g, h]))
}

/// What is left of a mean's say: e to the minus x, near enough, in arithmetic that is the same on every machine.
fn decay(time: u32, then: u32) -> f32 {
    let passed = time.wrapping_sub(then);
    if passed > u32::MAX - LATE {
        return 1.0; // another worker's clock was read later and its answer noted first
    }
    let x = Duration::from_millis(u64::from(passed)).as_secs_f32() / MEMORY.as_secs_f32();
    // Of a 64th of x three terms are enough. Of x itself they are not: to sink from a second to 5 ms, a mean would take
    // three minutes instead of 53 s.
    let part = x / 64.0;
    let grown = (0..6).fold(1.0 + part + part * part / 2.0, |power, _| power * power);
    1.0 / grown
}
