//! How a group chooses among its peers: the methods of nginx as one closed set.

mod ip_hash;
mod least_conn;
mod round_robin;

use super::{
    group::PeerSet,
    selection::{Client, Tried},
};

/// The load balancing method of an upstream. Round robin unless a directive names another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// `least_conn`: the fewest requests under way for its weight; round robin among equals.
    LeastConn,
    /// `ip_hash`: by the client's address. nginx allows no `backup` servers with it.
    IpHash,
}

/// A method together with what one request has to remember of it.
#[derive(Debug)]
pub(super) enum Course {
    RoundRobin,
    LeastConn,
    IpHash(ip_hash::Walk),
}

impl Course {
    pub(super) fn new(balance: Balance, client: &Client) -> Self {
        match balance {
            Balance::RoundRobin => Self::RoundRobin,
            Balance::LeastConn => Self::LeastConn,
            Balance::IpHash => Self::IpHash(ip_hash::Walk::new(client.address)),
        }
    }

    /// Chooses a peer of the set at second `now` and marks it as tried; `None` when none can be asked.
    /// The group's lock must be held.
    pub(super) fn pick(&mut self, set: &PeerSet, tried: &mut Tried, now: i64) -> Option<usize> {
        match self {
            Self::RoundRobin => round_robin::pick(set, tried, now),
            Self::LeastConn => least_conn::pick(set, tried, now),
            Self::IpHash(walk) => walk.pick(set, tried, now),
        }
    }
}

/// What every method does with its choice.
fn chosen(set: &PeerSet, tried: &mut Tried, index: usize, now: i64) -> Option<usize> {
    tried.insert(index);
    set.peers[index].probe(now);
    Some(index)
}
