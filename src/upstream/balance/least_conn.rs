//! `least_conn`: the peer with the fewest requests under way for its weight; round robin among equals.

use super::{chosen, round_robin};
use crate::upstream::{group::PeerSet, peer::Peer, selection::Tried};

/// `ngx_http_upstream_get_least_conn_peer` within one set.
pub(super) fn pick(set: &PeerSet, tried: &mut Tried, now: i64) -> Option<usize> {
    if set.single {
        return round_robin::pick(set, tried, now);
    }
    let (mut best, least) = set.untried(tried, now).min_by(|(_, a), (_, b)| load(a, b).cmp(&load(b, a)))?;
    let ties = || set.untried(tried, now).filter(|(_, peer)| load(peer, least) == load(least, peer));
    // Weights move only when there is somebody to share with.
    if ties().nth(1).is_some() {
        let (mut most, mut total) = (None, 0);
        for (index, peer) in ties() {
            total += peer.weigh();
            let weight = peer.live().current_weight.get();
            if most.is_none_or(|most| weight > most) {
                (most, best) = (Some(weight), index);
            }
        }
        let current = &set.peers[best].live().current_weight;
        current.set(current.get() - total);
    }
    chosen(set, tried, best, now)
}

/// The load of `peer` as a number to compare with the load of `other` against `peer`: no division needed.
fn load(peer: &Peer, other: &Peer) -> u64 {
    u64::from(peer.active()) * other.weight().unsigned_abs()
}
