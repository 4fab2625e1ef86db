//! How a group chooses among its peers: the methods of nginx as one closed set, one file for each.

mod consistent;
mod crc32;
mod hash;
mod ip_hash;
mod least_conn;
mod least_load;
mod least_time;
mod random;
mod round_robin;

#[cfg(test)]
pub(super) mod tests;

pub(super) use consistent::Ring;
pub(super) use least_time::average;
pub(super) use random::Random;

use super::{
    members::{Members, PeerSet},
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
    /// `hash`: by a key. No `backup` servers either.
    Hash {
        /// `consistent`: when a server comes or goes only its own keys move.
        consistent: bool,
    },
    /// `random`: by chance and weight, or the better of two. No `backup` servers either.
    Random(Option<Two>),
    /// `least_time`: the least time until it would have answered; round robin among equals.
    LeastTime {
        measure: Measure,
        /// `inflight`: requests that are not answered yet count, too.
        inflight: bool,
    },
    /// `least_load`: the least that peers said they had to do. Ours.
    LeastLoad,
}

/// What makes one of two the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Two {
    /// `two` or `two least_conn`.
    LeastConn,
    /// `two least_time=`.
    LeastTime(Measure),
}

/// Until when the time of an answer is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// `header`: until its head is there.
    Header,
    /// `last_byte`: until all of it is.
    LastByte,
}

impl Balance {
    /// Whether servers may be `backup`.
    pub fn allows_backup(self) -> bool {
        matches!(self, Self::RoundRobin | Self::LeastConn | Self::LeastTime { .. } | Self::LeastLoad)
    }

    /// What it wants to know of the time that answers take.
    pub(super) fn measure(self) -> Option<Measure> {
        match self {
            Self::LeastTime { measure, .. } => Some(measure),
            Self::Random(two) => two.and_then(Two::measure),
            _ => None,
        }
    }

    /// Whether the time of a head counts as soon as that is there, and not when all of the answer is.
    pub(super) fn measures_header_at_once(self) -> bool {
        matches!(self, Self::LeastTime { measure: Measure::Header, inflight: true })
    }

    /// Whether it counts the time of requests under way.
    pub(super) fn counts_inflight(self) -> bool {
        matches!(self, Self::LeastTime { inflight: true, .. })
    }
}

/// A method together with what one request has to remember of it.
#[derive(Debug)]
pub(super) enum Course {
    RoundRobin,
    LeastConn,
    IpHash(ip_hash::Walk),
    Hash(hash::Walk),
    Consistent(consistent::Walk),
    Random(random::Walk, Option<Two>),
    LeastTime(Measure),
    LeastLoad,
}

impl Course {
    pub(super) fn new(balance: Balance, client: &Client) -> Self {
        match balance {
            Balance::RoundRobin => Self::RoundRobin,
            Balance::LeastConn => Self::LeastConn,
            Balance::IpHash => Self::IpHash(ip_hash::Walk::new(client.address)),
            Balance::Hash { consistent: false } => Self::Hash(hash::Walk::default()),
            Balance::Hash { consistent: true } => Self::Consistent(consistent::Walk::default()),
            Balance::Random(two) => Self::Random(random::Walk::default(), two),
            Balance::LeastTime { measure, .. } => Self::LeastTime(measure),
            Balance::LeastLoad => Self::LeastLoad,
        }
    }

    /// Chooses a peer of the set and marks it as tried; `None` when none can be asked. The group's lock must be held.
    pub(super) fn pick(&mut self, pick: &mut Pick<'_>) -> Option<usize> {
        if pick.set.recovers {
            pick.set.peers.iter().filter(|peer| peer.line.slow_start > 0).for_each(|peer| peer.pace(pick.now));
        }
        let found = self.pick_awake(pick);
        if found.is_some() || !pick.set.recovers {
            return found;
        }
        pick.set.peers.iter().filter(|peer| peer.line.slow_start > 0).for_each(|peer| peer.wake());
        self.pick_awake(pick)
    }

    fn pick_awake(&mut self, pick: &mut Pick<'_>) -> Option<usize> {
        match self {
            Self::RoundRobin => round_robin::pick(pick),
            Self::LeastConn => least_conn::pick(pick),
            Self::IpHash(walk) => walk.pick(pick),
            Self::Hash(walk) => walk.pick(pick),
            Self::Consistent(walk) => walk.pick(pick),
            Self::Random(walk, None) => walk.pick(pick),
            Self::Random(walk, Some(two)) => walk.pick_of_two(*two, pick),
            Self::LeastTime(measure) => least_time::pick(*measure, pick),
            Self::LeastLoad => least_load::pick(pick),
        }
    }

    /// The first choice among the backup servers, once nobody else is left: methods that find no peer of their own
    /// leave that to round robin.
    pub(super) fn pick_backup(&mut self, pick: &mut Pick<'_>) -> Option<usize> {
        match self {
            Self::LeastConn | Self::LeastTime(_) | Self::LeastLoad => self.pick(pick),
            _ => Self::RoundRobin.pick(pick),
        }
    }
}

/// One choice: among whom, and what it may depend on.
#[derive(Debug)]
pub(super) struct Pick<'p> {
    pub(super) members: &'p Members,
    pub(super) set: &'p PeerSet,
    /// The set is that of the backup servers.
    pub(super) backup: bool,
    pub(super) tried: &'p mut Tried,
    /// Milliseconds.
    pub(super) now: u64,
    pub(super) random: &'p mut Random,
    /// What `hash` hashes.
    pub(super) key: &'p [u8],
    /// The peer the request belongs to (`sticky`); empty where it belongs to none.
    pub(super) sid: &'p [u8],
}

impl Pick<'_> {
    fn second(&self) -> i64 {
        (self.now / 1000) as i64
    }

    /// Whether a peer can be asked.
    fn allows(&self, index: usize) -> bool {
        let peer = &self.set.peers[index];
        !self.tried.contains(index) && peer.is_usable(self.second()) && !peer.rests()
    }

    /// The peer the request belongs to, if it can be asked (`ngx_http_upstream_get_rr_peer_by_sid`).
    fn own(&self) -> Option<usize> {
        if self.sid.is_empty() {
            return None;
        }
        let index = self.set.peers.iter().position(|peer| peer.sid() == self.sid)?;
        let usable = self.set.peers[index].is_usable_by_its_own(self.second());
        (usable && !self.tried.contains(index)).then_some(index)
    }

    /// What every method does with its choice.
    fn chosen(&mut self, index: usize) -> Option<usize> {
        self.tried.insert(index);
        self.set.peers[index].probe(self.second());
        Some(index)
    }
}
