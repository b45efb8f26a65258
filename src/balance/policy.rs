//! Who is to be preferred among those who could serve: functions of what they have in flight, and of a number.
//!
//! No clock, no lock and no dice: what must be random is made from a counter.

/// Somebody who could serve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    /// The place in the order.
    pub(super) nth: usize,
    /// The configured weight, times the share of it that counts now.
    pub(super) weight: f64,
    /// Exchanges that it has.
    pub(super) in_flight: usize,
}

impl Candidate {
    /// The load that it would have with one more.
    fn load(&self) -> f64 {
        (self.in_flight as f64 + 1.0) / self.weight
    }
}

/// Whoever has the least to do for its weight. Among equals, the number decides: else the first would get all that
/// comes while nobody has anything to do.
pub(super) fn least_in_flight(candidates: impl Iterator<Item = Candidate> + Clone, number: usize) -> Option<usize> {
    let least = candidates.clone().map(|candidate| candidate.load()).min_by(f64::total_cmp)?;
    let equals = || candidates.clone().filter(|candidate| candidate.load() <= least);
    equals().nth(number.checked_rem(equals().count())?).map(|candidate| candidate.nth)
}

/// The one with less to do of two, drawn from the number. Nearly as even as the least of all, and it does not send a
/// whole herd to the one that was least loaded a moment ago.
pub(super) fn two_choices(candidates: impl Iterator<Item = Candidate> + Clone, number: usize) -> Option<usize> {
    let count = candidates.clone().count();
    let first = scatter(number as u64, 0).checked_rem(count)?;
    // Another one, if there is another.
    let second = (first + 1 + scatter(number as u64, 1).checked_rem(count - 1).unwrap_or(0)) % count;
    let (first, second) = (candidates.clone().nth(first)?, candidates.clone().nth(second)?);
    Some(if second.load() < first.load() { second.nth } else { first.nth })
}

/// SplitMix64: neighbouring numbers give results that have nothing to do with each other.
fn scatter(number: u64, draw: u64) -> usize {
    let mut z = number.wrapping_mul(2).wrapping_add(draw).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    usize::try_from((z ^ (z >> 31)) >> 32).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(loads: &[usize]) -> impl Iterator<Item = Candidate> + Clone {
        loads.iter().enumerate().map(|(nth, &in_flight)| Candidate { nth, weight: 1.0, in_flight })
    }

    #[test]
    fn the_least_loaded_is_chosen_and_equals_in_turn() {
        assert_eq!(least_in_flight(candidates(&[]), 0), None);
        assert_eq!(least_in_flight(candidates(&[3, 1, 2]), 7), Some(1));
        let chosen: Vec<_> = (0..4).filter_map(|number| least_in_flight(candidates(&[0, 5, 0]), number)).collect();
        assert_eq!(chosen, [0, 2, 0, 2]);
    }

    #[test]
    fn a_weight_of_three_carries_three_times_as_much() {
        let heavy = |in_flight| {
            [Candidate { nth: 0, weight: 3.0, in_flight }, Candidate { nth: 1, weight: 1.0, in_flight: 0 }].into_iter()
        };
        assert_eq!(least_in_flight(heavy(1), 0), Some(0));
        assert_eq!(least_in_flight(heavy(3), 0), Some(1));
        assert_eq!(two_choices(heavy(1), 0), Some(0));
        assert_eq!(two_choices(heavy(3), 0), Some(1));
    }

    #[test]
    fn of_two_drawn_the_less_loaded_is_chosen_and_all_are_drawn() {
        assert_eq!(two_choices(candidates(&[]), 0), None);
        assert_eq!(two_choices(candidates(&[9]), 3), Some(0));
        let mut chosen = [0; 4];
        for number in 0..4000 {
            chosen[two_choices(candidates(&[9, 0, 0, 0]), number).unwrap()] += 1;
        }
        // The loaded one is never the better of two; the others share.
        assert_eq!(chosen[0], 0);
        assert!(chosen[1..].iter().all(|&times| (1200..1470).contains(&times)), "{chosen:?}");
    }

    /// One of ten backends takes ten times as long as the others: 40 clients ask again as soon as they are answered.
    fn share_of_the_slow_one(choose: impl Fn(&[usize], usize) -> usize) -> f64 {
        let mut in_flight = [0; 10];
        let mut asked = [0u32; 10];
        let mut ends: Vec<(u64, usize)> = Vec::new();
        let mut now = 0;
        for number in 0..20_000 {
            if ends.len() == 40 {
                let (at, _) = ends.iter().enumerate().min_by_key(|(_, end)| **end).unwrap();
                let (end, nth) = ends.swap_remove(at);
                now = end;
                in_flight[nth] -= 1;
            }
            let nth = choose(&in_flight, number);
            in_flight[nth] += 1;
            asked[nth] += 1;
            ends.push((now + if nth == 0 { 1000 } else { 100 } + (number as u64 % 7), nth));
        }
        f64::from(asked[0]) / 20_000.0
    }

    #[test]
    fn a_backend_ten_times_slower_gets_less_where_load_is_looked_at() {
        let in_turn = share_of_the_slow_one(|_, number| number % 10);
        let least = share_of_the_slow_one(|load, number| least_in_flight(candidates(load), number).unwrap());
        let two = share_of_the_slow_one(|load, number| two_choices(candidates(load), number).unwrap());
        assert!((in_turn - 0.1).abs() < 0.001, "in turn: {in_turn}");
        assert!(least < 0.02, "least in flight: {least}");
        assert!(two < 0.04, "two choices: {two}");
    }
}
