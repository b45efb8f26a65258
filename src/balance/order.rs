//! A weighted order of turns, made once: choosing stays one atomic counter and one look into a list.
//!
//! A backend of weight w has w turns in a cycle, and they are spread evenly over it: its ith turn belongs at the point
//! (2i + 1) / 2w of the cycle, and all turns are sorted by their points. Backends of equal weight simply take turns.

/// Which backend has which turn.
#[derive(Debug)]
pub(super) struct Order(Box<[u16]>);

impl Order {
    /// An order for these weights, each at most 256; a weight of 0 has no turn.
    pub(super) fn of(weights: &[u32]) -> Order {
        let divisor = weights.iter().copied().fold(0, greatest_common_divisor).max(1);
        let mut turns: Vec<(u64, u32, u16)> = Vec::new();
        for (nth, weight) in (0..).zip(weights.iter().map(|weight| weight / divisor)) {
            turns.extend((0..weight).map(|i| (u64::from(2 * i + 1), weight, nth)));
        }
        // a / v < b / w without a division: a * w < b * v.
        turns.sort_by(|(a, v, one), (b, w, other)| (a * u64::from(*w)).cmp(&(b * u64::from(*v))).then(one.cmp(other)));
        Order(turns.into_iter().map(|(_, _, nth)| nth).collect())
    }

    /// Whose turn this is; `None`: nobody has one.
    pub(super) fn at(&self, turn: usize) -> Option<usize> {
        Some(usize::from(self.0[turn.checked_rem(self.0.len())?]))
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cycle(weights: &[u32]) -> Vec<usize> {
        let order = Order::of(weights);
        (0..order.0.len()).map(|turn| order.at(turn).unwrap()).collect()
    }

    #[test]
    fn equal_weights_take_turns_and_unequal_ones_are_spread() {
        let rows: &[(&[u32], &[usize])] = &[
            (&[], &[]),
            (&[0, 0], &[]),
            (&[1], &[0]),
            (&[7, 7, 7], &[0, 1, 2]),
            (&[1, 0, 1], &[0, 2]),
            (&[2, 1], &[0, 1, 0]),
            (&[4, 2], &[0, 1, 0]),
            (&[5, 1, 1], &[0, 0, 1, 2, 0, 0, 0]),
        ];
        for (weights, order) in rows {
            let mut sorted = cycle(weights);
            let as_often = |nth: usize| sorted.iter().filter(|&&n| n == nth).count();
            for (nth, weight) in weights.iter().enumerate() {
                assert_eq!(as_often(nth) as u32 * weights.iter().sum::<u32>(), *weight * sorted.len() as u32);
            }
            if weights.len() < 3 || weights[0] == weights[2] {
                assert_eq!(sorted, *order, "{weights:?}");
            }
            sorted.sort_unstable();
            let mut wanted = order.to_vec();
            wanted.sort_unstable();
            assert_eq!(sorted, wanted, "{weights:?}");
        }
    }

    proptest! {
        #[test]
        fn at_every_point_of_the_cycle_everybody_has_had_about_its_share(
            weights in proptest::collection::vec(1u32..=256, 1..12)
        ) {
            let total: u32 = weights.iter().sum();
            let mut had = vec![0u32; weights.len()];
            for (turns, nth) in (1u32..).zip(cycle(&weights)) {
                had[nth] += 1;
                for (had, weight) in had.iter().zip(&weights) {
                    let share = f64::from(turns) * f64::from(*weight) / f64::from(total);
                    prop_assert!((f64::from(*had) - share).abs() <= weights.len() as f64, "{had} instead of {share}");
                }
            }
        }
    }
}
