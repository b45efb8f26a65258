//! The same backend for the same key, and numbers that look random.
//!
//! Everything here gives the same answer in every process, on every machine and in every version: two balancers side by
//! side agree, and a restart moves nobody. (std's hasher promises none of that. The last bit of a logarithm may differ between
//! systems: that moves a key in some million millions.) The functions are small and public;
//! whoever may choose keys can choose them so that they meet at one backend. The bound on a backend's load is the cure.

use super::Candidate;

/// SplitMix64's finaliser: one number in, one number out that looks random. Steele et al., 2014.
pub fn scatter(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A hash of bytes: FNV-1a of 64 bits, and SplitMix64's finaliser behind it, because in FNV alone the last bytes hardly
/// reach the high bits.
pub fn key_hash(bytes: &[u8]) -> u64 {
    scatter(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3) // the prime of FNV
    }))
}

/// The number as a fraction, greater than 0 and less than 1.
pub(super) fn fraction(number: u64) -> f64 {
    // An f64 holds 53 bits: 52 of the number, and a half, which keeps 0 and 1 out.
    ((number >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

/// Whom this key belongs to, by weighted rendezvous hashing: every backend draws a ticket that depends on the key and
/// on itself alone, and the best ticket among those with room has it. So when a backend leaves, its keys are shared out
/// and no other key moves; when one comes, it takes its share, evenly from all.
///
/// `id` tells a backend's own number from its place: [`key_hash`] of its name, so that the order in which backends are
/// listed says nothing. A backend has room while its exchanges, with this one, are within `load_percent` of its fair
/// share (Mirrokni et al., *Consistent hashing with bounded loads*, 2018). From 100 percent on somebody always has.
pub fn rendezvous(
    candidates: impl Iterator<Item = Candidate> + Clone,
    key: u64,
    id: impl Fn(usize) -> u64,
    load_percent: u32,
) -> Option<usize> {
    let (in_flight, weight) = candidates
        .clone()
        .fold((0, 0.0), |(in_flight, weight), candidate| (candidate.in_flight + in_flight, candidate.share() + weight));
    let fair = (in_flight + 1) as f64 / weight;
    let has_room = |candidate: &Candidate| {
        let most = (f64::from(load_percent) / 100.0 * fair * candidate.share()).ceil();
        (candidate.in_flight as f64) < most
    };
    // -weight / ln(u): the chance to be the greatest is the weight's share (Schindelhauer and Schomaker, 2005).
    let ticket = |candidate: &Candidate| -candidate.share() / fraction(scatter(key ^ id(candidate.nth))).ln();
    let best = |a: &Candidate, b: &Candidate| ticket(a).total_cmp(&ticket(b));
    let chosen = candidates.clone().filter(has_room).max_by(best).or_else(|| candidates.max_by(best));
    chosen.map(|candidate| candidate.nth)
}

/// What stands in the cookie that ties a client to its backend: a number that says which one it is, but not its name.
///
/// It is opaque, not secret. A client that makes one up reaches a backend that it could have reached by chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sticky(u64);

impl Sticky {
    /// The value for the backend of this name. Another `key` gives other values, so that two balancers before the same
    /// backends need not share their cookies.
    pub fn of(key: u64, name: &str) -> Sticky {
        Sticky(scatter(key_hash(name.as_bytes()) ^ scatter(key)))
    }

    /// As it is written into the cookie: 16 hexadecimal digits, in lower case.
    pub fn digits(self) -> [u8; 16] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 16];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0.to_be_bytes()) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
        }
        digits
    }

    /// What a client sent back. `None`: it was not made here.
    pub fn read(value: &[u8]) -> Option<Sticky> {
        if value.len() != 16 {
            return None;
        }
        let number = value.iter().try_fold(0, |number: u64, &byte| {
            // Digits in upper case were not written here either.
            let digit = if byte.is_ascii_uppercase() { None } else { char::from(byte).to_digit(16) };
            Some(number << 4 | u64::from(digit?))
        });
        number.map(Sticky)
    }
}

#[cfg(test)]
mod tests {
    use super::fraction;

    #[test]
    fn a_fraction_is_never_nothing_and_never_the_whole() {
        assert!(fraction(0) > 0.0 && fraction(0) < 1e-15);
        assert!(fraction(u64::MAX) < 1.0 && fraction(u64::MAX) > 1.0 - 1e-15);
        assert!((fraction(1 << 63) - 0.5).abs() < 1e-15);
    }
}
