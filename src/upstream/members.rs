//! Who belongs to a group at one moment: its peers in their two sets, and what methods look up in them.

use super::{
    balance::{Balance, Ring},
    peer::Peer,
    selection::Tried,
};
use std::sync::Arc;

/// The peers of a group. Immutable: a change of the membership makes another one, and requests under way keep theirs.
#[derive(Debug)]
pub(super) struct Members {
    primary: PeerSet,
    /// `None` where nobody is `backup`.
    backup: Option<PeerSet>,
    /// For `hash … consistent`.
    pub(super) ring: Ring,
}

/// The primary or the backup servers of a group (`ngx_http_upstream_rr_peers_t`).
#[derive(Debug)]
pub(super) struct PeerSet {
    pub(super) peers: Vec<Arc<Peer>>,
    pub(super) total_weight: u64,
    /// How many peers are worth a try: those not `down`.
    pub(super) tries: usize,
    /// The only server there is: failures never take it out.
    pub(super) single: bool,
    /// Some line has `slow_start`.
    pub(super) recovers: bool,
    /// Where the share of each peer begins on the line on which each covers its weight.
    starts: Vec<u64>,
}

impl Members {
    pub(super) fn new(balance: Balance, primary: Vec<Arc<Peer>>, backup: Vec<Arc<Peer>>) -> Self {
        let single = primary.len() == 1 && backup.is_empty();
        let primary = PeerSet::new(primary, single);
        let backup = (!backup.is_empty()).then(|| PeerSet::new(backup, false));
        let ring = match balance {
            Balance::Hash { consistent: true } => Ring::new(&primary, backup.as_ref()),
            _ => Ring::default(),
        };
        Self { primary, backup, ring }
    }

    /// The backup servers when `backup` is asked for and there are any, else the primary ones.
    pub(super) fn set(&self, backup: bool) -> &PeerSet {
        self.backup.as_ref().filter(|_| backup).unwrap_or(&self.primary)
    }

    pub(super) fn has_backup(&self) -> bool {
        self.backup.is_some()
    }

    /// The peers of both sets, the primary ones first.
    pub(super) fn sets(&self) -> [&[Arc<Peer>]; 2] {
        [&self.primary.peers, self.backup.as_ref().map_or(&[], |set| &set.peers)]
    }
}

impl PeerSet {
    fn new(peers: Vec<Arc<Peer>>, single: bool) -> Self {
        let mut total_weight = 0;
        let mut start = |peer: &Arc<Peer>| {
            let start = total_weight;
            total_weight += peer.weight().unsigned_abs();
            start
        };
        Self {
            starts: peers.iter().map(&mut start).collect(),
            total_weight,
            tries: peers.iter().filter(|peer| !peer.is_down()).count(),
            single,
            recovers: peers.iter().any(|peer| peer.line.slow_start > 0),
            peers,
        }
    }

    /// The peers this request may still ask at second `now`.
    pub(super) fn untried(&self, tried: &Tried, now: i64) -> impl Iterator<Item = (usize, &Peer)> {
        self.peers
            .iter()
            .enumerate()
            .filter(move |(index, peer)| !tried.contains(*index) && peer.is_usable(now) && !peer.rests())
            .map(|(index, peer)| (index, &**peer))
    }

    /// The peer at a point of the line on which each peer covers its weight. `point` is below the total weight.
    pub(super) fn at_weight(&self, point: u64) -> usize {
        self.starts.partition_point(|start| *start <= point).saturating_sub(1)
    }
}
