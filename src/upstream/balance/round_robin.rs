//! Smooth weighted round robin, nginx's default: heavier peers come more often, and evenly spread.

use super::chosen;
use crate::upstream::{group::PeerSet, selection::Tried};

/// `ngx_http_upstream_get_round_robin_peer` within one set: every usable peer gains its effective weight,
/// the one with the most is chosen (the first among equals) and pays back what all gained together.
pub(super) fn pick(set: &PeerSet, tried: &mut Tried, now: i64) -> Option<usize> {
    if set.single {
        // A lone server is asked however often it failed: there is nobody else.
        return set.peers[0].has_room().then_some(0);
    }
    let mut best: Option<(usize, i64)> = None;
    let mut total = 0;
    for (index, peer) in set.untried(tried, now) {
        total += peer.weigh();
        let weight = peer.live().current_weight.get();
        if best.is_none_or(|(_, most)| weight > most) {
            best = Some((index, weight));
        }
    }
    let (index, weight) = best?;
    set.peers[index].live().current_weight.set(weight - total);
    chosen(set, tried, index, now)
}
