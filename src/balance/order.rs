//! Weighted turns, in an order that is worked out once.
//!
//! The rotation is one atomic counter. With weights it stays one: the counter walks through a list in which every
//! backend stands as often as its weight says, and the list is smooth, so a weight of 3 is not three in a row.
//!
//! Smooth has an exact meaning here: after any number of turns each backend has had its exact share, give or take less
//! than one request. The obvious order by `(2i + 1) / 2w` does not keep to that: beside 255 weights of 1, a weight of
//! 256 would stand 128 times in a row before all of them and after. What does is to give every turn of a backend a
//! window, and to take the one whose window closes first (Baruah et al., *Proportionate progress*, 1996).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Largest weight; more is taken for this. A finer share than one in 256 drowns in the noise of requests.
const LARGEST_WEIGHT: u32 = 256;

/// The order in which backends take turns, for one set of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Two bytes a turn: a thousand backends with weights up to 256 take half a megabyte at most.
    turns: Box<[u16]>,
}

impl Order {
    /// The order for backends of these weights, 1 - 256 each. A weight of 0 gets no turn, nor does the 65,537th backend.
    pub fn new(weights: &[u32]) -> Order {
        let weights = weights.iter().map(|&weight| u64::from(weight.min(LARGEST_WEIGHT)));
        let divisor = weights.clone().fold(0, greatest_common_divisor).max(1);
        let weights = weights.map(|weight| weight / divisor).zip(0..=u16::MAX);
        let weights: Vec<(u64, u16)> = weights.filter(|&(weight, _)| weight > 0).collect();
        let length = weights.iter().map(|&(weight, _)| weight).sum();

        // Both heaps hold one turn of a backend: when its window opens or closes, and whose it is. Turn number i of a
        // backend has the window from i * length / weight to (i + 1) * length / weight, rounded outwards.
        let mut coming: BinaryHeap<Reverse<(u64, usize)>> = (0..weights.len()).map(|at| Reverse((0, at))).collect();
        let mut open: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
        let mut had = vec![0; weights.len()];
        let mut turns = Vec::new();
        for now in 0..length {
            while let Some(&Reverse((opens, at))) = coming.peek()
                && opens <= now
            {
                coming.pop();
                open.push(Reverse((((had[at] + 1) * length).div_ceil(weights[at].0), at)));
            }
            let Some(Reverse((_, at))) = open.pop() else { continue };
            turns.push(weights[at].1);
            had[at] += 1;
            if had[at] < weights[at].0 {
                coming.push(Reverse((had[at] * length / weights[at].0, at)));
            }
        }
        Order { turns: turns.into() }
    }

    /// Which backend has this turn; turns go round. In an order without turns nobody has.
    pub fn at(&self, turn: usize) -> Option<usize> {
        turn.checked_rem(self.turns.len()).map(|turn| usize::from(self.turns[turn]))
    }

    /// How many turns there are until it begins anew.
    pub fn len(&self) -> usize {
        self.turns.len()
    }

    /// Nobody has a turn.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
