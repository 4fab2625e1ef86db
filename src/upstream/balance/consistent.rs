//! `hash KEY consistent`: keys and servers lie on a circle, and a key goes to the next server on it. When a server goes,
//! only its own keys move (ketama, as Cache::Memcached::Fast has it).

use super::{Pick, crc32::Crc32, hash::MISSES, round_robin};
use crate::upstream::members::PeerSet;
use std::collections::HashMap;

/// Points of a server for each unit of its weight.
const POINTS: u64 = 160;

/// The circle: where the servers lie on it.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Ring {
    /// Hashes in rising order, each with the number of its server.
    points: Vec<(u32, u32)>,
    /// By number of a server, its primary and its backup peers, as indices into their sets.
    peers: Vec<[Vec<usize>; 2]>,
}

/// Where a request has got to on the circle.
#[derive(Clone, Debug, Default)]
pub(in crate::upstream) struct Walk {
    /// The point, once it is known.
    at: Option<usize>,
    misses: u32,
}

impl Walk {
    /// `ngx_http_upstream_get_chash_peer` within one set.
    pub(super) fn pick(&mut self, pick: &mut Pick<'_>) -> Option<usize> {
        if self.misses > MISSES || pick.set.single || pick.key.is_empty() {
            return round_robin::pick(pick);
        }
        let ring = &pick.members.ring;
        if ring.points.is_empty() {
            return None;
        }
        if let Some(own) = pick.own() {
            return pick.chosen(own);
        }
        let mut at = self.at.unwrap_or_else(|| ring.find(Crc32::new().add(pick.key).value()));
        loop {
            let (_, server) = ring.points[at % ring.points.len()];
            self.at = Some(at);
            let peers = &ring.peers[server as usize][usize::from(pick.backup)];
            if let Some(index) = round_robin::among(pick.set, peers.iter().copied().filter(|at| pick.allows(*at))) {
                return pick.chosen(index);
            }
            at += 1;
            self.at = Some(at);
            self.misses += 1;
            if self.misses > MISSES {
                return round_robin::pick(pick);
            }
        }
    }
}

impl Ring {
    /// `ngx_http_upstream_update_chash`. Servers are told apart by how they are written, not by their addresses.
    pub(in crate::upstream) fn new(primary: &PeerSet, backup: Option<&PeerSet>) -> Self {
        let mut ring = Self::default();
        let mut numbers = HashMap::new();
        for (backup, set) in [(false, Some(primary)), (true, backup)] {
            for (index, peer) in set.into_iter().flat_map(|set| &set.peers).enumerate() {
                let next = numbers.len();
                let number = *numbers.entry(&*peer.line.server).or_insert(next);
                if number == next {
                    ring.peers.push(Default::default());
                }
                ring.peers[number][usize::from(backup)].push(index);
                if !backup {
                    let weight = peer.weight().unsigned_abs();
                    ring.points.extend(hashes(&peer.line.server, weight).map(|hash| (hash, number as u32)));
                }
            }
        }
        ring.points.sort_by_key(|(hash, _)| *hash);
        ring.points.dedup_by_key(|(hash, _)| *hash);
        ring.points.shrink_to_fit();
        ring
    }

    /// The first point that is not before a hash; behind the last one it is their number.
    fn find(&self, hash: u32) -> usize {
        self.points.partition_point(|(point, _)| *point < hash)
    }
}

/// The points of a server: each hash begins with the one before.
fn hashes(server: &str, weight: u64) -> impl Iterator<Item = u32> {
    let (host, port) = parts(server);
    let base = Crc32::new().add(host.as_bytes()).add(&[0]).add(port.as_bytes());
    let mut previous = 0u32;
    (0..weight * POINTS).map(move |_| {
        previous = base.add(&previous.to_le_bytes()).value();
        previous
    })
}

/// A server's host and port, as far as it is written with one.
fn parts(server: &str) -> (&str, &str) {
    if server.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("unix:")) {
        return (&server[5..], "");
    }
    match server.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        _ => (server, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{group_of, measured, walk};
    use super::*;
    use crate::upstream::Balance;

    const CONSISTENT: Balance = Balance::Hash { consistent: true };

    #[test]
    fn a_key_goes_where_nginx_sends_it() {
        // Measured on a running nginx 1.22: three equal servers, and 127.0.0.1 to .3 with weights 1, 2 and 5.
        for (key, equal, weighted) in measured("consistent") {
            assert_eq!(walk(&group_of(CONSISTENT, &[1, 1, 1]), &key)[0], equal, "{key}");
            assert_eq!(walk(&group_of(CONSISTENT, &[1, 2, 5]), &key)[0], weighted, "{key}");
        }
    }

    #[test]
    fn when_a_server_goes_only_its_keys_move() {
        let (four, three) = (group_of(CONSISTENT, &[1; 4]), group_of(CONSISTENT, &[1; 3]));
        for key in (0..500).map(|n| format!("/{n}")) {
            let (before, after) = (walk(&four, &key)[0], walk(&three, &key)[0]);
            assert!(before == after || before == 4, "{key}: {before} {after}");
        }
    }

    #[test]
    fn the_circle_ends_where_it_begins() {
        let ring = Ring { points: vec![(10, 0), (20, 1)], peers: Vec::new() };
        assert_eq!([0, 10, 11, 20, 21].map(|hash| ring.find(hash) % 2), [0, 0, 1, 1, 0]);
    }

    #[test]
    fn a_server_has_a_port_where_one_is_written() {
        for (server, expected) in [
            ("127.0.0.1:8081", ("127.0.0.1", "8081")),
            ("example.com", ("example.com", "")),
            ("[::1]:80", ("[::1]", "80")),
            ("[::1]", ("[::1]", "")),
            ("UNIX:/a:1", ("/a:1", "")),
        ] {
            assert_eq!(parts(server), expected);
        }
    }
}
