//! `random`: any peer by its weight, or the better of two.

use super::{Measure, Pick, Two, hash::MISSES, least_time, round_robin};
use crate::upstream::peer::Peer;
use std::{
    cmp::Ordering,
    hash::{BuildHasher, Hasher, RandomState},
};

/// How many picks of one request have found nobody.
#[derive(Clone, Debug, Default)]
pub(in crate::upstream) struct Walk {
    misses: u32,
}

impl Walk {
    /// `ngx_http_upstream_get_random_peer` within one set.
    pub(super) fn pick(&mut self, pick: &mut Pick<'_>) -> Option<usize> {
        match self.find(pick, |_, _| true) {
            Found::Peer(index) => pick.chosen(index),
            Found::Nobody => round_robin::pick(pick),
        }
    }

    /// `ngx_http_upstream_get_random2_peer` within one set.
    pub(super) fn pick_of_two(&mut self, two: Two, pick: &mut Pick<'_>) -> Option<usize> {
        let first = match self.find(pick, |_, _| true) {
            Found::Peer(first) => first,
            Found::Nobody => return round_robin::pick(pick),
        };
        if pick.own() == Some(first) {
            return pick.chosen(first);
        }
        match self.find(pick, |_, index| index != first) {
            Found::Peer(second) => {
                let set = pick.set;
                let first_is_better = compare(two, &set.peers[second], &set.peers[first], pick) == Ordering::Greater;
                pick.chosen(if first_is_better { first } else { second })
            }
            Found::Nobody => round_robin::pick(pick),
        }
    }

    fn find(&mut self, pick: &mut Pick<'_>, other: impl Fn(&Pick<'_>, usize) -> bool) -> Found {
        let set = pick.set;
        if set.peers.len() < 2 {
            return Found::Nobody;
        }
        if let Some(own) = pick.own() {
            return Found::Peer(own);
        }
        while self.misses <= MISSES {
            let index = set.at_weight(pick.random.below(set.total_weight));
            if other(pick, index) && pick.allows(index) {
                return Found::Peer(index);
            }
            self.misses += 1;
        }
        Found::Nobody
    }
}

enum Found {
    Peer(usize),
    /// Round robin decides.
    Nobody,
}

/// Which of two has more to do for its weight.
fn compare(two: Two, a: &Peer, b: &Peer, pick: &Pick<'_>) -> Ordering {
    let load = |peer: &Peer| match two {
        Two::LeastConn => u64::from(peer.active()),
        Two::LeastTime(measure) => least_time::expected(peer, measure, pick.now),
    };
    (load(a) * b.weight().unsigned_abs()).cmp(&(load(b) * a.weight().unsigned_abs()))
}

impl Two {
    /// What of the time an answer takes it looks at.
    pub(super) fn measure(self) -> Option<Measure> {
        match self {
            Self::LeastConn => None,
            Self::LeastTime(measure) => Some(measure),
        }
    }
}

/// Numbers nobody needs to foretell: xorshift64*, begun anew by each group.
#[derive(Debug)]
pub(in crate::upstream) struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        Self(RandomState::new().build_hasher().finish() | 1)
    }
}

impl Random {
    /// A number below another one.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 1) % end.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::group_of;
    use super::*;
    use crate::upstream::{Balance, Client, Group, Selection};
    use std::sync::Arc;

    fn random(two: Option<Two>) -> Balance {
        Balance::Random(two)
    }

    fn start(group: &Arc<Group>) -> (usize, Selection) {
        let mut selection = group.select(Client::default());
        (selection.next(5000).unwrap().id as usize, selection)
    }

    #[test]
    fn shares_are_as_the_weights() {
        let mut counts = [0i32; 3];
        let group = group_of(random(None), &[1, 2, 5]);
        (0..40_000).for_each(|_| counts[start(&group).0] += 1);
        assert!(
            counts.iter().zip([5000, 10_000, 25_000]).all(|(count, share)| (count - share).abs() < 800),
            "{counts:?}"
        );
    }

    #[test]
    fn of_two_the_one_with_less_to_do_is_taken() {
        let group = group_of(random(Some(Two::LeastConn)), &[1, 1]);
        let (_under_way, seen): (Vec<_>, Vec<_>) = (0..10)
            .map(|_| {
                let (peer, selection) = start(&group);
                (selection, peer)
            })
            .unzip();
        assert_eq!(seen.iter().filter(|peer| **peer == 0).count(), 5, "{seen:?}");
        let three = group_of(random(Some(Two::LeastConn)), &[1, 1, 1]);
        let _busy: Vec<_> = (0..30).map(|_| start(&three).1).collect();
        let active: Vec<_> = three.peers().map(|peer| peer.active()).collect();
        assert!(active.iter().all(|active| (8..=12).contains(active)), "{active:?}");
    }

    #[test]
    fn every_number_comes() {
        let mut random = Random(1);
        let mut seen = [false; 10];
        (0..200).for_each(|_| seen[random.below(10) as usize] = true);
        assert!(seen.iter().all(|seen| *seen));
        assert_eq!(random.below(0), 0);
    }
}
