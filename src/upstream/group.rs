//! One upstream: its peers, how it chooses among them, and the state all threads of the process share.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use super::{
    balance::Balance,
    peer::{Address, Peer, ServerLine},
    selection::{Client, Selection, Tried},
};

/// An upstream: one `upstream {}`, or the addresses of a host that `proxy_pass` names.
///
/// It is immutable but for what its peers live through. Where the membership changes, a new group is made
/// and adopts the old one, as a reload does.
#[derive(Debug)]
pub struct Group {
    /// As in `upstream name {`; nginx logs it where no peer could be chosen.
    pub name: String,
    /// The load balancing method.
    pub balance: Balance,
    primary: PeerSet,
    backup: Option<PeerSet>,
    /// Held while a peer is chosen, so that sequences are exact whatever the number of threads.
    /// Shared with the generations this one adopted.
    lock: OnceLock<Arc<Mutex<()>>>,
    /// How connections to its peers are kept.
    pub keepalive: Keepalive,
}

/// How connections to the peers of a group are kept between requests, each thread for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// `keepalive`: idle connections a thread keeps to all peers together; 0 keeps none.
    pub connections: usize,
    /// `keepalive_requests`: after this many a connection is closed.
    pub requests: u64,
    /// `keepalive_time`: beyond this age a connection is closed.
    pub time: Duration,
    /// `keepalive_timeout`: how long one may be idle.
    pub timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        let (time, timeout) = (Duration::from_secs(3600), Duration::from_secs(60));
        Self { connections: 32, requests: 1000, time, timeout }
    }
}

/// An upstream without any server that is not `backup`. nginx refuses it at the place of `upstream name {`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no servers in upstream \"{0}\"")]
pub struct NoServers(pub String);

/// The primary or the backup servers of a group (`ngx_http_upstream_rr_peers_t`).
#[derive(Debug)]
pub(super) struct PeerSet {
    pub(super) peers: Vec<Arc<Peer>>,
    pub(super) total_weight: u64,
    /// How many peers are worth a try: those not `down`.
    pub(super) tries: usize,
    /// The only server there is: failures never take it out.
    pub(super) single: bool,
}

impl Group {
    /// A group from the `server` lines of an `upstream {}` and what each resolves to, in the order written.
    /// Every address becomes a peer with the parameters of its line (`ngx_http_upstream_init_round_robin`).
    pub fn new(
        name: impl Into<String>,
        balance: Balance,
        servers: Vec<(ServerLine, Vec<Address>)>,
    ) -> Result<Self, NoServers> {
        let (backup, primary): (Vec<_>, Vec<_>) = servers.into_iter().partition(|(line, _)| line.backup);
        let mut primary = PeerSet::new(primary, 0);
        let backup = PeerSet::new(backup, primary.peers.len());
        let name = name.into();
        if primary.peers.is_empty() {
            return Err(NoServers(name));
        }
        let backup = (!backup.peers.is_empty()).then_some(backup);
        primary.single = primary.peers.len() == 1 && backup.is_none();
        Ok(Self { name, balance, primary, backup, lock: OnceLock::new(), keepalive: Keepalive::default() })
    }

    /// A group nobody declared: every address of a host, with the defaults of a `server` line.
    /// Also for a host resolved at run time (`ngx_http_upstream_create_round_robin_peer`).
    pub fn implicit(host: impl Into<String>, addresses: Vec<Address>) -> Result<Self, NoServers> {
        let host = host.into();
        let line = ServerLine { server: host.clone(), ..ServerLine::default() };
        Self::new(host, Balance::RoundRobin, vec![(line, addresses)])
    }

    /// Takes over the state of every peer that `previous` has as well: same address, name, weight and role
    /// (primary or backup); a peer listed twice is matched twice, in order. From then on both groups share it,
    /// so requests still under way in the old generation count in the new one.
    ///
    /// To be called before this group is first selected from; afterwards it does nothing.
    /// Returns the number of peers taken over.
    pub fn adopt(&self, previous: &Self) -> usize {
        if self.lock.set(Arc::clone(previous.shared_lock())).is_err() {
            return 0;
        }
        let mut known: HashMap<_, VecDeque<&Peer>> = HashMap::new();
        for peer in previous.peers() {
            known.entry(identity(peer)).or_default().push_back(peer);
        }
        let mut adopted = 0;
        for peer in self.peers() {
            let old = known.get_mut(&identity(peer)).and_then(VecDeque::pop_front);
            adopted += usize::from(old.is_some_and(|old| peer.adopt(old)));
        }
        adopted
    }

    /// Starts the choice of a peer for one request (`ngx_http_upstream_init_round_robin_peer` and its kin).
    pub fn select(self: &Arc<Self>, client: Client) -> Selection {
        Selection::new(Arc::clone(self), &client)
    }

    /// All peers: primary servers first, each in the order written.
    pub fn peers(&self) -> impl DoubleEndedIterator<Item = &Arc<Peer>> {
        self.primary.peers.iter().chain(self.backup.iter().flat_map(|set| &set.peers))
    }

    /// The backup servers when `backup` is asked for and there are any, else the primary ones.
    pub(super) fn set(&self, backup: bool) -> &PeerSet {
        self.backup.as_ref().filter(|_| backup).unwrap_or(&self.primary)
    }

    pub(super) fn has_backup(&self) -> bool {
        self.backup.is_some()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        // The numbers behind it are valid at any time: a panic elsewhere must not stop the proxy.
        self.shared_lock().lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared_lock(&self) -> &Arc<Mutex<()>> {
        self.lock.get_or_init(Arc::default)
    }
}

/// What makes a peer of another generation the same peer.
fn identity(peer: &Peer) -> (&Address, &str, i64, bool) {
    (&peer.address, &peer.name, peer.weight(), peer.line.backup)
}

impl PeerSet {
    fn new(servers: Vec<(ServerLine, Vec<Address>)>, first_id: usize) -> Self {
        let lines = servers.into_iter().flat_map(|(line, addresses)| {
            let line = Arc::new(line);
            addresses.into_iter().map(move |address| (Arc::clone(&line), address))
        });
        let peers: Vec<_> = (first_id as u32..)
            .zip(lines)
            .map(|(id, (line, address))| Arc::new(Peer::new(id, line, address)))
            .collect();
        Self {
            total_weight: peers.iter().map(|peer| peer.weight().unsigned_abs()).sum(),
            tries: peers.iter().filter(|peer| !peer.line.down).count(),
            single: false,
            peers,
        }
    }

    /// The peers this request may still ask at second `now`.
    pub(super) fn untried(&self, tried: &Tried, now: i64) -> impl Iterator<Item = (usize, &Peer)> {
        self.peers
            .iter()
            .enumerate()
            .filter(move |(index, peer)| !tried.contains(*index) && peer.is_usable(now))
            .map(|(index, peer)| (index, &**peer))
    }

    /// The peer at a point of the line on which each peer covers its weight. `point` is below the total weight.
    pub(super) fn at_weight(&self, mut point: u64) -> usize {
        for (index, peer) in self.peers.iter().enumerate() {
            match point.checked_sub(peer.weight().unsigned_abs()) {
                Some(rest) => point = rest,
                None => return index,
            }
        }
        0
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::upstream::Outcome;

    /// Servers `/1`, `/2`, … with these weights; `change` sees each line with its number.
    pub(in crate::upstream) fn group(
        balance: Balance,
        weights: &[u32],
        change: impl Fn((usize, &mut ServerLine)),
    ) -> Arc<Group> {
        let server = |(number, weight): (usize, &u32)| {
            let mut line = ServerLine { weight: *weight, ..ServerLine::default() };
            change((number, &mut line));
            (line, vec![Address::Unix(format!("/{number}").into())])
        };
        Arc::new(Group::new("app", balance, (1..).zip(weights).map(server).collect()).unwrap())
    }

    /// The peer ids of `count` requests that all succeed at once.
    fn ids(group: &Arc<Group>, count: usize) -> Vec<u32> {
        (0..count).map(|_| group.select(Client::default()).next(5000).unwrap().id).collect()
    }

    #[test]
    fn every_address_of_a_line_is_a_peer_with_the_weight_of_the_line() {
        let tcp = |text: &str| Address::Tcp(text.parse().unwrap());
        let line = |server: &str, weight| ServerLine { server: server.into(), weight, ..ServerLine::default() };
        let spare = ServerLine { backup: true, ..line("spare", 3) };
        let servers = vec![
            (spare, vec![tcp("127.0.0.1:9000")]),
            (line("localhost:8000", 2), vec![tcp("[::1]:8000"), tcp("127.0.0.1:8000")]),
            (line("10.0.0.1", 1), vec![tcp("10.0.0.1:80")]),
        ];
        let group = Group::new("app", Balance::RoundRobin, servers).unwrap();
        let peers: Vec<_> = group.peers().map(|p| (p.id, &*p.name, &*p.line.server, p.line.weight)).collect();
        assert_eq!(
            peers,
            [
                (0, "[::1]:8000", "localhost:8000", 2),
                (1, "127.0.0.1:8000", "localhost:8000", 2),
                (2, "10.0.0.1:80", "10.0.0.1", 1),
                (3, "127.0.0.1:9000", "spare", 3),
            ]
        );
    }

    #[test]
    fn a_group_of_backups_only_is_refused() {
        let line = ServerLine { backup: true, ..ServerLine::default() };
        let fault =
            Group::new("mult", Balance::RoundRobin, vec![(line, vec![Address::Unix("/a".into())])]).unwrap_err();
        assert_eq!(fault.to_string(), "no servers in upstream \"mult\"");
    }

    #[test]
    fn a_host_without_upstream_has_its_addresses_as_equal_peers() {
        let addresses = ["127.0.0.1:80", "127.0.0.2:80"].map(|text| Address::Tcp(text.parse().unwrap()));
        let group = Arc::new(Group::implicit("localhost", addresses.into()).unwrap());
        assert_eq!(ids(&group, 4), [0, 1, 0, 1]);
    }

    #[test]
    fn a_new_generation_goes_on_where_the_old_one_was() {
        let old = group(Balance::RoundRobin, &[4, 6], |_| {});
        let new = group(Balance::RoundRobin, &[4, 6], |_| {});
        let whole = ids(&group(Balance::RoundRobin, &[4, 6], |_| {}), 10);
        assert_eq!(ids(&old, 3), whole[..3]);
        assert_eq!(new.adopt(&old), 2);
        assert_eq!(ids(&new, 4), whole[3..7]);
        assert_eq!(ids(&old, 3), whole[7..], "both share one state");
    }

    #[test]
    fn failures_and_requests_under_way_outlive_a_reload() {
        let old = group(Balance::RoundRobin, &[1, 1], |_| {});
        let mut failing = old.select(Client::default());
        failing.next(5000).unwrap();
        assert!(failing.done(Outcome::Failed, 5000));
        let mut under_way = old.select(Client::default());
        under_way.next(5000).unwrap();
        let new = group(Balance::RoundRobin, &[1, 1], |_| {});
        assert_eq!(new.adopt(&old), 2);
        assert_eq!(ids(&new, 3), [1, 1, 1]);
        assert_eq!(new.peers().map(|peer| peer.active()).collect::<Vec<_>>(), [0, 1]);
        drop(under_way);
        assert_eq!(new.peers().map(|peer| peer.active()).sum::<u32>(), 0);
    }

    #[test]
    fn a_peer_whose_weight_role_or_address_changed_starts_afresh() {
        let old = group(Balance::RoundRobin, &[1, 2, 1, 1], |_| {});
        let new = group(Balance::RoundRobin, &[1, 3, 1, 1, 1], |(number, line)| line.backup = number == 3);
        assert_eq!(new.adopt(&old), 2);
    }

    #[test]
    fn a_peer_listed_twice_is_matched_twice_in_order() {
        let twice = || {
            let server = || (ServerLine::default(), vec![Address::Unix("/a".into())]);
            Arc::new(Group::new("app", Balance::RoundRobin, vec![server(), server()]).unwrap())
        };
        let (old, new) = (twice(), twice());
        let mut selection = old.select(Client::default());
        selection.next(5000).unwrap();
        assert_eq!(new.adopt(&old), 2);
        assert_eq!(new.peers().map(|peer| peer.active()).collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn a_group_that_already_chose_keeps_its_own_state() {
        let (old, new) = (group(Balance::RoundRobin, &[1, 1], |_| {}), group(Balance::RoundRobin, &[1, 1], |_| {}));
        ids(&new, 1);
        assert_eq!(new.adopt(&old), 0);
    }

    #[test]
    fn many_threads_share_one_exact_sequence() {
        for balance in [Balance::RoundRobin, Balance::LeastConn, Balance::IpHash] {
            let group = group(balance, &[4, 6, 10], |_| {});
            let mut counts = [0; 3];
            std::thread::scope(|scope| {
                let pick = || (0..500).flat_map(|_| ids(&group, 1)).collect::<Vec<_>>();
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(pick)).collect();
                for id in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
                    counts[id as usize] += 1;
                }
            });
            assert_eq!(counts.iter().sum::<u32>(), 4000);
            if balance == Balance::RoundRobin {
                assert_eq!(counts, [800, 1200, 2000]);
            }
            assert_eq!(group.peers().map(|peer| peer.active()).sum::<u32>(), 0, "{balance:?}");
        }
    }
}
