//! `least_load`: the peer that last said it had the least to do. Ours: nginx has nothing like it.

use super::{Pick, round_robin};
use crate::upstream::peer::Peer;
use std::cmp::Ordering;

/// The least of what was reported; then of what was sent there since, and of what is under way, for its weight; then the
/// first. Who has reported nothing is asked only when nobody has.
pub(super) fn pick(pick: &mut Pick<'_>) -> Option<usize> {
    let set = pick.set;
    let found = match pick.own() {
        _ if set.single => round_robin::pick(pick),
        Some(own) => pick.chosen(own),
        None => {
            let least = set.untried(pick.tried, pick.second()).min_by(|(_, one), (_, other)| compare(one, other));
            least.and_then(|(index, _)| pick.chosen(index))
        }
    }?;
    set.peers[found].live().load.dispatch();
    Some(found)
}

fn compare(one: &Peer, other: &Peer) -> Ordering {
    let load = |peer: &Peer| peer.load().unwrap_or(f64::INFINITY);
    let share = |of: &dyn Fn(&Peer) -> u32| {
        let cross = |this: &Peer, that: &Peer| u64::from(of(this)).saturating_mul(that.weight().unsigned_abs());
        cross(one, other).cmp(&cross(other, one))
    };
    (load(one).total_cmp(&load(other)))
        .then_with(|| share(&|peer| peer.live().load.since()))
        .then_with(|| share(&Peer::active))
}

#[cfg(test)]
mod tests {
    use super::super::tests::group_of;
    use crate::upstream::{Balance::LeastLoad, Client, Group, Outcome, Selection};
    use std::sync::Arc;

    /// Peers that report this; one that reports nothing is not a number.
    fn loaded(loads: &[f64], weights: &[u32]) -> Arc<Group> {
        let group = group_of(LeastLoad, weights);
        report(&group, loads);
        group
    }

    fn report(group: &Group, loads: &[f64]) {
        group.peers().zip(loads).for_each(|(peer, load)| peer.report_load(Some(*load)));
    }

    fn start(group: &Arc<Group>) -> (u32, Selection) {
        let mut selection = group.select(Client::default());
        (selection.next(5000).unwrap().id, selection)
    }

    fn ids(group: &Arc<Group>, count: usize) -> Vec<u32> {
        (0..count).map(|_| start(group).0).collect()
    }

    #[test]
    fn the_least_loaded_is_asked_until_it_reports_more() {
        let group = loaded(&[90.0, 5.0, 50.0], &[1; 3]);
        assert_eq!(ids(&group, 4), [1; 4]);
        report(&group, &[90.0, 95.0, 50.0]);
        assert_eq!(ids(&group, 2), [2; 2]);
    }

    #[test]
    fn equals_share_by_what_was_sent_there_since_and_the_first_begins() {
        let group = loaded(&[7.0; 3], &[1, 1, 2]);
        assert_eq!(ids(&group, 8), [0, 1, 2, 2, 0, 1, 2, 2]);
        report(&group, &[7.0; 3]);
        assert_eq!(ids(&group, 2), [0, 1]);
    }

    #[test]
    fn what_is_under_way_counts_where_nothing_was_sent_since() {
        let group = loaded(&[7.0; 2], &[1; 2]);
        let (first, _under_way) = start(&group);
        report(&group, &[7.0; 2]);
        assert_eq!((first, start(&group).0), (0, 1));
    }

    #[test]
    fn who_reports_nothing_is_asked_only_when_there_is_nobody_else() {
        let group = loaded(&[f64::NAN, 100.0, f64::NAN], &[1; 3]);
        let mut selection = group.select(Client::default());
        let mut order = Vec::new();
        while let Ok(peer) = selection.next(5000) {
            order.push(peer.id);
            selection.done(Outcome::Next, 5000);
        }
        assert_eq!(order, [1, 0, 2]);
    }

    #[test]
    fn reports_outlive_a_reload() {
        let (old, new) = (loaded(&[90.0, 5.0], &[1; 2]), group_of(LeastLoad, &[1; 2]));
        assert_eq!(new.adopt(&old), 2);
        assert_eq!(ids(&new, 1), [1]);
    }
}
