//! `hash KEY`: the same key goes to the same peer as long as that peer can be asked, as Cache::Memcached has it.

use super::{Pick, crc32::Crc32, round_robin};

/// Misses after which round robin decides.
pub(super) const MISSES: u32 = 20;

/// Where the hash of one key has got to; it moves on with every retry.
#[derive(Clone, Debug, Default)]
pub(in crate::upstream) struct Walk {
    hash: u32,
    rehash: u32,
    misses: u32,
}

impl Walk {
    /// `ngx_http_upstream_get_hash_peer` within one set.
    pub(super) fn pick(&mut self, pick: &mut Pick<'_>) -> Option<usize> {
        let set = pick.set;
        if self.misses > MISSES || set.peers.len() < 2 || pick.key.is_empty() {
            return round_robin::pick(pick);
        }
        if let Some(own) = pick.own() {
            return pick.chosen(own);
        }
        loop {
            self.step(pick.key);
            let index = set.at_weight(u64::from(self.hash) % set.total_weight);
            if pick.allows(index) {
                return pick.chosen(index);
            }
            self.misses += 1;
            if self.misses > MISSES {
                return round_robin::pick(pick);
            }
        }
    }

    /// The first step hashes the key alone, the later ones their number before it.
    fn step(&mut self, key: &[u8]) {
        let mut number = itoa::Buffer::new();
        let prefix = if self.rehash > 0 { number.format(self.rehash) } else { "" };
        let sum = Crc32::new().add(prefix.as_bytes()).add(key).value();
        self.hash = self.hash.wrapping_add((sum >> 16) & 0x7fff);
        self.rehash += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{group_of, walk};
    use crate::upstream::{Balance, Client};

    const HASH: Balance = Balance::Hash { consistent: false };

    #[test]
    fn a_key_goes_where_nginx_sends_it() {
        // Measured on a running nginx 1.22: three equal servers, and 127.0.0.1 to .3 with weights 1, 2 and 5.
        for (key, equal, weighted) in super::super::tests::measured("hash") {
            assert_eq!(walk(&group_of(HASH, &[1, 1, 1]), &key)[0], equal, "{key}");
            assert_eq!(walk(&group_of(HASH, &[1, 2, 5]), &key)[0], weighted, "{key}");
        }
    }

    #[test]
    fn without_a_key_the_peers_take_turns() {
        let group = group_of(HASH, &[1, 1]);
        let ids: Vec<_> = (0..4).map(|_| group.select(Client::default()).next(5000).unwrap().id).collect();
        assert_eq!(ids, [0, 1, 0, 1]);
    }

    #[test]
    fn every_peer_is_asked_once_even_when_the_hash_never_reaches_it() {
        for key in ["a", "b", "c", "d"] {
            let mut seen = walk(&group_of(HASH, &[999, 1, 1]), key);
            seen.sort_unstable();
            assert_eq!(seen, [1, 2, 3]);
        }
    }
}
