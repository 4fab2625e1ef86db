//! One upstream: its peers, how it chooses among them, and the state all threads of the process share.

use super::{
    balance::{Balance, Random},
    edit::{Dynamics, Written},
    health::Terms,
    load::Sources,
    members::Members,
    peer::{Address, Peer, ServerLine},
    queue::Queue,
    resolve::{Found, Resolved, Resolving},
    selection::{Client, Selection},
    state::State,
    stats::{Picks, Stats},
    sticky::Sticky,
};
use crate::{http::template::Template, lock};
use arc_swap::ArcSwap;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

/// An upstream: one `upstream {}`, or the addresses of a host that `proxy_pass` names.
///
/// What is written of it is immutable. Who belongs to it may change where names are looked up at run time: requests
/// under way keep to those who belonged to it when they began.
#[derive(Debug)]
pub struct Group {
    /// As in `upstream name {`; nginx logs it where no peer could be chosen.
    pub name: String,
    /// The load balancing method.
    pub balance: Balance,
    /// How connections to its peers are kept.
    pub keepalive: Keepalive,
    /// What `hash` hashes.
    pub key: Option<Template>,
    /// How requests that belong together find the same peer.
    pub sticky: Option<Sticky>,
    /// Where requests wait while all peers are busy.
    pub queue: Option<Queue>,
    /// The names that are looked up while the server runs.
    pub resolving: Resolving,
    /// Where the loads of its peers are known from.
    pub loads: Sources,
    /// `zone`: its name. Without one nothing is counted.
    pub zone: Option<String>,
    picks: OnceLock<Box<Picks>>,
    /// The file that says who belongs to it.
    pub state: Option<State>,
    /// How its membership may change at run time.
    pub dynamics: Dynamics,
    pub(super) written: Written,
    /// How its peers are checked, once the whole configuration is known.
    pub(super) checks: OnceLock<Vec<Terms>>,
    members: ArcSwap<Members>,
    /// Held while the membership changes.
    pub(super) changing: Mutex<()>,
    /// Told whenever the membership has changed; for those who look after each peer.
    pub changed: Arc<tokio::sync::Notify>,
    /// Another generation took over the membership: it is changed there from now on.
    pub(super) superseded: AtomicBool,
    /// Names that joined while the server ran.
    pub(super) joined: Mutex<Vec<Arc<Resolved>>>,
    /// Who was removed, and may serve requests still.
    pub(super) removed: Mutex<Vec<Arc<Peer>>>,
    /// The number of the next peer that joins.
    pub(super) next_id: AtomicU32,
    /// Held while a peer is chosen, so that sequences are exact whatever the number of threads.
    /// Shared with the generations this one adopted.
    lock: OnceLock<Arc<Mutex<Random>>>,
}

/// How connections to the peers of a group are kept between requests, each thread for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// `keepalive`: idle connections a thread keeps to all peers together; 0 keeps none.
    pub connections: usize,
    /// `keepalive … local`: a connection serves the location again that it was opened for, and no other.
    pub local: bool,
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
        Self { connections: 32, local: true, requests: 1000, time, timeout }
    }
}

/// An upstream without any server that is not `backup`. nginx refuses it at the place of `upstream name {`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no servers in upstream \"{0}\"")]
pub struct NoServers(pub String);

impl Group {
    /// A group from the `server` lines of an `upstream {}` and what each resolves to, in the order written.
    /// Every address becomes a peer with the parameters of its line (`ngx_http_upstream_init_round_robin`).
    pub fn new(
        name: impl Into<String>,
        balance: Balance,
        servers: Vec<(ServerLine, Vec<Address>)>,
    ) -> Result<Self, NoServers> {
        Self::with_names(name, balance, servers, Resolving::default(), Dynamics::default())
    }

    /// The same, and some lines are names that are looked up while the server runs: their peers come later. Others may
    /// join and leave, if `dynamics` says so.
    pub fn with_names(
        name: impl Into<String>,
        balance: Balance,
        servers: Vec<(ServerLine, Vec<Address>)>,
        resolving: Resolving,
        dynamics: Dynamics,
    ) -> Result<Self, NoServers> {
        let name = name.into();
        let mut id = 0;
        let mut peers = [Vec::new(), Vec::new()];
        for backup in [false, true] {
            for (line, addresses) in servers.iter().filter(|(line, _)| line.backup == backup) {
                let line = Arc::new(line.clone());
                for address in addresses {
                    peers[usize::from(backup)].push(Arc::new(Peer::new(id, Arc::clone(&line), address.clone())));
                    id += 1;
                }
            }
        }
        let [primary, backup] = peers;
        if primary.is_empty() && !dynamics.begins_empty && !resolving.names.iter().any(|name| !name.line.backup) {
            return Err(NoServers(name));
        }
        Ok(Self {
            name,
            balance,
            keepalive: Keepalive::default(),
            key: None,
            sticky: None,
            queue: None,
            written: Written::new(&servers, &resolving),
            loads: Sources::default(),
            zone: None,
            picks: OnceLock::new(),
            resolving,
            dynamics,
            state: None,
            checks: OnceLock::new(),
            members: ArcSwap::from_pointee(Members::new(balance, primary, backup)),
            changing: Mutex::default(),
            changed: Arc::default(),
            superseded: AtomicBool::new(false),
            joined: Mutex::default(),
            removed: Mutex::default(),
            next_id: AtomicU32::new(id),
            lock: OnceLock::new(),
        })
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
    /// so requests still under way in the old generation count in the new one. Names have the addresses they had.
    ///
    /// To be called before this group is first selected from; afterwards it does nothing.
    /// Returns the number of peers taken over.
    pub fn adopt(&self, previous: &Self) -> usize {
        if self.lock.set(Arc::clone(previous.shared_lock())).is_err() {
            return 0;
        }
        if let (Some(own), Some(earlier)) = (&self.sticky, &previous.sticky)
            && let (Some(own), Some(earlier)) = (own.sessions(), earlier.sessions())
        {
            own.adopt(earlier);
        }
        if let (Some(own), Some(earlier)) = (&self.queue, &previous.queue) {
            own.adopt(earlier);
        }
        if let Some(kept) = self.keep_members(previous) {
            return kept;
        }
        self.adopt_names(previous);
        let mut known: HashMap<_, VecDeque<Arc<Peer>>> = HashMap::new();
        for peer in previous.peers() {
            known.entry(identity(&peer)).or_default().push_back(peer);
        }
        let mut adopted = 0;
        for peer in self.peers() {
            let old = known.get_mut(&identity(&peer)).and_then(VecDeque::pop_front);
            adopted += usize::from(old.is_some_and(|old| peer.adopt(&old)));
        }
        adopted
    }

    /// `ngx_http_upstream_zone_preresolve`: until a name is looked up again it is whoever it was, at the port and with
    /// the parameters that are written now.
    fn adopt_names(&self, previous: &Self) {
        let before = previous.members();
        let mut peers = self.members().sets().map(<[_]>::to_vec);
        for (line, name) in self.resolving.names.iter().enumerate() {
            let at = previous.resolving.names.iter().position(|earlier| earlier.is_same_name(name));
            if let Some(at) = at {
                name.copy_validity(&previous.resolving.names[at]);
            }
            let known = |peer: &&Arc<Peer>| match at {
                Some(_) => peer.found_by == at,
                // Nobody knows it any more: it is who it was when somebody did.
                None => name.at_first && name.was(peer),
            };
            for (set, earlier) in peers.iter_mut().zip(before.sets()) {
                let known = earlier.iter().filter(known);
                set.extend(known.map(|peer| Arc::new(name.renew(line, self.take_id(), peer))));
            }
        }
        self.replace(peers);
    }

    /// What a name is now: who is new to it joins, who is no longer in it leaves, all others stay as they are
    /// (`ngx_http_upstream_zone_resolve_handler`). Of a service, those of lower priority are backups.
    pub fn update(&self, line: usize, found: &[Found]) {
        let _changing = lock(&self.changing);
        let Some(name) = self.name(line).filter(|name| !name.is_gone()) else { return };
        let before = self.members();
        let mut peers = before.sets().map(<[_]>::to_vec);
        let best = found.iter().map(|found| found.priority).min();
        let mut changed = false;
        for (backup, set) in [false, true].into_iter().zip(&mut peers) {
            let rank = match (name.line.backup, backup) {
                (own, here) if own == here => true,
                (false, true) if name.service.is_some() && self.balance.allows_backup() => false,
                _ => continue,
            };
            let mut wanted: Vec<_> = found.iter().filter(|found| (Some(found.priority) == best) == rank).collect();
            let count = set.len();
            set.retain(|peer| {
                let stays = |found: &&Found| name.is(peer, found);
                peer.found_by != Some(line) || wanted.iter().position(stays).map(|at| wanted.remove(at)).is_some()
            });
            changed |= set.len() != count || !wanted.is_empty();
            set.extend(wanted.into_iter().map(|found| Arc::new(name.peer(line, self.take_id(), found))));
        }
        if changed {
            self.replace(peers);
            if let Some(queue) = &self.queue {
                queue.call_next();
            }
        }
    }

    pub(super) fn replace(&self, [primary, backup]: [Vec<Arc<Peer>>; 2]) {
        primary.iter().chain(&backup).for_each(|peer| self.enroll(peer));
        self.members.store(Arc::new(Members::new(self.balance, primary, backup)));
        self.changed.notify_waiters();
    }

    pub(super) fn take_id(&self) -> u32 {
        self.next_id.fetch_add(1, Relaxed)
    }

    /// Starts the choice of a peer for one request (`ngx_http_upstream_init_round_robin_peer` and its kin).
    pub fn select(self: &Arc<Self>, client: Client) -> Selection {
        Selection::new(Arc::clone(self), client)
    }

    /// All peers there are now: primary servers first, each in the order written.
    pub fn peers(&self) -> impl DoubleEndedIterator<Item = Arc<Peer>> {
        self.members().sets().concat().into_iter()
    }

    /// Nobody belongs to it because no name was found to be anybody's.
    pub(super) fn is_unresolved(&self) -> bool {
        !self.resolving.names.is_empty() && self.peers().next().is_none()
    }

    /// The servers whose names nobody has known since the start (`resolver_on_start retry`), as they are written.
    pub fn unresolved(&self) -> Vec<&str> {
        let names = self.resolving.names.iter().enumerate();
        let peers: Vec<_> = self.peers().collect();
        let found = |line| peers.iter().any(|peer| peer.found_by == Some(line));
        names.filter(|(line, name)| name.at_first && !found(*line)).map(|(_, name)| &*name.line.server).collect()
    }

    /// The numbers of the peers that were chosen last, the very last one at the end; in a group with a `zone`.
    pub fn picks(&self) -> Vec<u32> {
        self.picks.get().map(|picks| picks.read()).unwrap_or_default()
    }

    /// Counts that a peer was chosen. To be called under the group's lock.
    pub(super) fn count_pick(&self, peer: &Peer, now: u64) {
        if let Some(stats) = self.stats(peer) {
            self.picks.get_or_init(Box::default).push(peer.id);
            stats.choose(now);
        }
    }

    /// Where it is counted what a peer does; `None` where nothing is counted.
    pub(super) fn stats<'p>(&self, peer: &'p Peer) -> Option<&'p Stats> {
        self.zone.as_ref().map(|_| peer.counted())
    }

    pub(super) fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Random> {
        lock(self.shared_lock())
    }

    fn shared_lock(&self) -> &Arc<Mutex<Random>> {
        self.lock.get_or_init(Arc::default)
    }
}

/// What makes a peer of another generation the same peer.
fn identity(peer: &Peer) -> (Address, String, i64, bool) {
    (peer.address.clone(), peer.name.clone(), peer.weight(), peer.line.backup)
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
        let peers: Vec<_> = group.peers().collect();
        let peers: Vec<_> = peers.iter().map(|p| (p.id, &*p.name, &*p.line.server, p.line.weight)).collect();
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
