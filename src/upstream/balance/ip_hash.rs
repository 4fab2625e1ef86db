//! `ip_hash`: the same client network goes to the same peer as long as that peer can be asked.

use super::{Pick, hash::MISSES, round_robin};
use std::net::IpAddr;

/// Where the hash of one client has got to; it moves on with every retry.
#[derive(Debug)]
pub(in crate::upstream) struct Walk {
    /// The client's network: three bytes of IPv4, all of IPv6.
    key: [u8; 16],
    key_length: usize,
    hash: u64,
    misses: u32,
}

impl Walk {
    /// Clients without an IP address (unix sockets) count as 0.0.0.0.
    pub(super) fn new(client: Option<IpAddr>) -> Self {
        let mut key = [0; 16];
        let key_length = match client {
            Some(IpAddr::V6(ip)) => {
                key = ip.octets();
                16
            }
            Some(IpAddr::V4(ip)) => {
                key[..4].copy_from_slice(&ip.octets());
                3
            }
            None => 3,
        };
        Self { key, key_length, hash: 89, misses: 0 }
    }

    /// `ngx_http_upstream_get_ip_hash_peer` within one set.
    pub(super) fn pick(&mut self, pick: &mut Pick<'_>) -> Option<usize> {
        let set = pick.set;
        if self.misses > MISSES || set.peers.len() < 2 {
            return round_robin::pick(pick);
        }
        if let Some(own) = pick.own() {
            return pick.chosen(own);
        }
        let mut hash = self.hash;
        loop {
            for byte in &self.key[..self.key_length] {
                hash = (hash * 113 + u64::from(*byte)) % 6271;
            }
            let index = set.at_weight(hash % set.total_weight);
            if pick.allows(index) {
                self.hash = hash;
                return pick.chosen(index);
            }
            self.misses += 1;
            if self.misses > MISSES {
                return round_robin::pick(pick);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::upstream::group::tests::group;
    use crate::upstream::{Balance, Client, Outcome};

    /// The peers (from 1) a client is sent to, each failing in turn.
    fn walk(weights: &[u32], client: Option<&str>) -> Vec<u32> {
        let group = group(Balance::IpHash, weights, |_| {});
        let client = Client { address: client.map(|ip| ip.parse().unwrap()), ..Client::default() };
        let mut selection = group.select(client);
        let mut seen = Vec::new();
        while let Ok(peer) = selection.next(1_000_000) {
            seen.push(peer.id + 1);
            selection.done(Outcome::Failed, 1_000_000);
        }
        seen
    }

    #[test]
    fn a_client_goes_where_nginx_sends_it() {
        // Measured on a running nginx: two equal peers, three equal peers, weights 4 and 6.
        for (client, two, three, weighted) in [
            ("127.0.0.1", 1, 3, 1),
            ("172.17.0.1", 1, 2, 2),
            ("172.18.0.1", 2, 1, 2),
            ("172.19.0.1", 1, 3, 1),
            ("192.168.1.50", 1, 2, 2),
            ("10.0.0.7", 2, 1, 2),
        ] {
            assert_eq!(walk(&[1, 1], Some(client))[0], two, "{client}, two equal");
            assert_eq!(walk(&[1, 1, 1], Some(client))[0], three, "{client}, three equal");
            assert_eq!(walk(&[4, 6], Some(client))[0], weighted, "{client}, 4:6");
        }
    }

    #[test]
    fn the_last_byte_of_ipv4_does_not_count_and_the_last_of_ipv6_does() {
        let weights = [1; 16];
        let v4: Vec<_> = (0..=255).map(|n| walk(&weights, Some(&format!("10.1.2.{n}")))[0]).collect();
        assert!(v4.iter().all(|peer| *peer == v4[0]));
        let v6: Vec<_> = (0..=255).map(|n| walk(&weights, Some(&format!("2001:db8::{n:x}")))[0]).collect();
        assert!(v6.iter().any(|peer| *peer != v6[0]));
    }

    #[test]
    fn a_client_on_a_unix_socket_counts_as_zeros() {
        assert_eq!(walk(&[1; 7], None), walk(&[1; 7], Some("0.0.0.9")));
    }

    #[test]
    fn every_peer_is_asked_once_even_when_the_hash_never_reaches_it() {
        // The light peer owns one of a thousand shares: round robin finds it after the misses.
        let mut seen = walk(&[999, 1], Some("10.0.0.1"));
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
    }
}
