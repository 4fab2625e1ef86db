//! Smooth weighted round robin, nginx's default: heavier peers come more often, and evenly spread.

use super::Pick;
use crate::upstream::members::PeerSet;

/// `ngx_http_upstream_get_round_robin_peer` within one set: every usable peer gains its effective weight,
/// the one with the most is chosen (the first among equals) and pays back what all gained together.
pub(super) fn pick(pick: &mut Pick<'_>) -> Option<usize> {
    let set = pick.set;
    let own = pick.own();
    if set.single {
        // A lone server is asked however often it failed: there is nobody else.
        return own.or_else(|| set.peers[0].has_room().then_some(0));
    }
    let Some(own) = own else {
        let index = among(set, set.untried(pick.tried, pick.second()).map(|(index, _)| index))?;
        return pick.chosen(index);
    };
    // Who is asked by its own pays for it, but runs into no debt that would keep all others away for long.
    let current = &set.peers[own].live().current_weight;
    let most = set.total_weight as i64 - set.peers[own].weight();
    if current.get() > -most {
        let total: i64 = set.untried(pick.tried, pick.second()).map(|(_, peer)| peer.weigh()).sum();
        current.set(current.get() - total);
    }
    pick.chosen(own)
}

/// The same among some peers of a set, and without marking the choice.
pub(super) fn among(set: &PeerSet, candidates: impl Iterator<Item = usize>) -> Option<usize> {
    let mut best: Option<(usize, i64)> = None;
    let mut total = 0;
    for index in candidates {
        let peer = &set.peers[index];
        total += peer.weigh();
        let weight = peer.live().current_weight.get();
        if best.is_none_or(|(_, most)| weight > most) {
            best = Some((index, weight));
        }
    }
    let (index, weight) = best?;
    set.peers[index].live().current_weight.set(weight - total);
    Some(index)
}
