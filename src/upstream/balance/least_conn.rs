//! `least_conn`: the peer with the fewest requests under way for its weight; round robin among equals.

use super::{Pick, round_robin};
use crate::upstream::peer::Peer;

/// `ngx_http_upstream_get_least_conn_peer` within one set.
pub(super) fn pick(pick: &mut Pick<'_>) -> Option<usize> {
    if pick.set.single {
        return round_robin::pick(pick);
    }
    least(pick, |_| (), |peer| u64::from(peer.active()))
}

/// The peer with the least of something for its weight; round robin among equals. Each is looked at once before its load
/// is asked for.
pub(super) fn least(pick: &mut Pick<'_>, look: impl Fn(&Peer), load: impl Fn(&Peer) -> u64) -> Option<usize> {
    if let Some(own) = pick.own() {
        return pick.chosen(own);
    }
    let set = pick.set;
    // Each load is compared for the other's weight: no division needed.
    let share = |load: u64, weight: i64| load.saturating_mul(weight.unsigned_abs());
    let mut best: Option<(usize, u64, i64)> = None;
    let mut many = false;
    for (index, peer) in set.untried(pick.tried, pick.second()) {
        look(peer);
        let (own, weight) = (load(peer), peer.weight());
        match best.map(|(_, least, of)| share(own, of).cmp(&share(least, weight))) {
            None | Some(std::cmp::Ordering::Less) => (best, many) = (Some((index, own, weight)), false),
            Some(std::cmp::Ordering::Equal) => many = true,
            Some(std::cmp::Ordering::Greater) => {}
        }
    }
    let (first, least, of) = best?;
    if !many {
        return pick.chosen(first);
    }
    // Weights move only when there is somebody to share with.
    let equal = |(index, peer): (usize, &Peer)| {
        (index >= first && share(load(peer), of) == share(least, peer.weight())).then_some(index)
    };
    let index = round_robin::among(set, set.untried(pick.tried, pick.second()).filter_map(equal))?;
    pick.chosen(index)
}
