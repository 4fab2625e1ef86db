//! Servers whose names are looked up while the server runs (`resolve`, `service=`): what a name stands for, and which of
//! a group's peers come from it. Who asks the name servers is `http::modules::upstream`.

use super::peer::{Address, Peer, ServerLine};
use crate::http::modules::resolver::NameServers;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// The names of a group, and whom to ask.
#[derive(Debug, Default)]
pub struct Resolving {
    pub names: Vec<Resolved>,
    /// `resolver` of the upstream or of http.
    pub servers: Option<NameServers>,
    /// `resolver_timeout`; zero is for ever.
    pub timeout: Duration,
    /// A thread has taken it upon itself to ask.
    claimed: AtomicBool,
}

impl Resolving {
    /// The names of an upstream, which these servers are asked for.
    pub fn new(names: Vec<Resolved>, servers: Option<NameServers>, timeout: Duration) -> Self {
        Self { names, servers, timeout, claimed: AtomicBool::new(false) }
    }

    /// Whether the caller is the first to ask this: then it is up to it to look the names up.
    pub fn claim(&self) -> bool {
        !self.names.is_empty() && !self.claimed.swap(true, Relaxed)
    }
}

/// A `server` line whose name is looked up again and again (`ngx_http_upstream_host_t`).
#[derive(Debug)]
pub struct Resolved {
    pub line: ServerLine,
    pub host: String,
    /// `service=`: the name is that of a service, whose servers have ports of their own.
    pub service: Option<String>,
    pub port: u16,
    /// It is looked up until there is an answer, and that is kept: nobody knew it when the server started.
    pub at_first: bool,
    /// The number of one that joined while the server ran.
    pub id: Option<u32>,
    /// It was removed.
    gone: AtomicBool,
    /// A thread has taken it upon itself to look it up; for those that joined.
    claimed: AtomicBool,
    /// Until which second since the epoch the last answer holds.
    valid: AtomicU64,
    /// The second since the epoch of the last answer.
    answered: AtomicU64,
}

/// One address that a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub address: SocketAddr,
    /// Of a service: the name of the server.
    pub server: Option<String>,
    /// Of a service: lower ones are asked first.
    pub priority: u16,
    /// Of a service: its share.
    pub weight: u16,
}

impl Resolved {
    pub fn new(line: ServerLine, host: String, service: Option<String>, port: u16) -> Self {
        let (at_first, id) = (false, None);
        let (gone, claimed) = (AtomicBool::new(false), AtomicBool::new(false));
        let (valid, answered) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { line, host, service, port, at_first, id, gone, claimed, valid, answered }
    }

    /// A name that nobody knew when the server started (`resolver_on_start retry`).
    pub fn at_first(line: ServerLine, host: String, port: u16) -> Self {
        Self { at_first: true, ..Self::new(line, host, None, port) }
    }

    /// The same name with other parameters: whoever looks it up goes on.
    pub(super) fn with_line(&self, line: ServerLine) -> Self {
        let changed = Self {
            at_first: self.at_first,
            id: self.id,
            gone: AtomicBool::new(self.is_gone()),
            claimed: AtomicBool::new(self.claimed.load(Relaxed)),
            ..Self::new(line, self.host.clone(), self.service.clone(), self.port)
        };
        changed.copy_validity(self);
        changed
    }

    /// Whether the caller is the first to ask this: then it is up to it to look the name up.
    pub fn claim(&self) -> bool {
        !self.is_gone() && !self.claimed.swap(true, Relaxed)
    }

    /// Nobody looks it up for this generation yet.
    pub(super) fn release(&self) {
        self.claimed.store(false, Relaxed);
    }

    /// Whether it was removed.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// It is removed.
    pub(super) fn leave(&self) {
        self.gone.store(true, Relaxed);
    }

    /// Until which second since the epoch the last answer holds; 0 before there was one.
    pub fn valid(&self) -> u64 {
        self.valid.load(Relaxed)
    }

    /// The present answer holds until this second.
    pub fn set_valid(&self, second: u64) {
        self.valid.store(second, Relaxed);
    }

    /// The second since the epoch of the last answer; 0 before there was one.
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// There is an answer.
    pub fn set_answered(&self, second: u64) {
        self.answered.store(second, Relaxed);
    }

    pub(super) fn copy_validity(&self, previous: &Self) {
        self.set_valid(previous.valid());
        self.set_answered(previous.answered());
    }

    pub(super) fn is_same_name(&self, other: &Self) -> bool {
        self.host == other.host && self.service == other.service && self.line.backup == other.line.backup
    }

    /// Whether a peer of the generation before came from the same name, which was known then.
    pub(super) fn was(&self, peer: &Peer) -> bool {
        peer.found_by.is_none() && peer.line.server == self.line.server && peer.line.backup == self.line.backup
    }

    /// Whether a peer of this name is what was found.
    pub(super) fn is(&self, peer: &Peer, found: &Found) -> bool {
        let Address::Tcp(address) = &peer.address else { return false };
        match &found.server {
            None => address.ip() == found.address.ip(),
            Some(server) => {
                let own_weight = self.line.weight == 1;
                *address == found.address
                    && peer.line.server == *server
                    && (!own_weight || u32::from(found.weight) == peer.line.weight)
            }
        }
    }

    /// A peer for what was found.
    pub(super) fn peer(&self, line: usize, id: u32, found: &Found) -> Peer {
        let mut of = self.line.clone();
        let mut address = found.address;
        match &found.server {
            None => address.set_port(self.port),
            Some(server) => {
                of.server.clone_from(server);
                if of.weight == 1 {
                    of.weight = u32::from(found.weight);
                }
            }
        }
        Peer::found(id, Arc::new(of), Address::Tcp(address), line)
    }

    /// A peer of the same name in the generation before, as it is written now.
    pub(super) fn renew(&self, line: usize, id: u32, earlier: &Peer) -> Peer {
        let Address::Tcp(address) = earlier.address else {
            return Peer::found(id, Arc::clone(&earlier.line), earlier.address.clone(), line);
        };
        let found = Found {
            address,
            server: self.service.is_some().then(|| earlier.line.server.clone()),
            priority: 0,
            weight: u16::try_from(earlier.line.weight).unwrap_or(u16::MAX),
        };
        self.peer(line, id, &found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{Balance, Client, Group, Outcome, edit::Dynamics};

    fn group(lines: &[(&str, Option<&str>, bool)]) -> Arc<Group> {
        let name = |(host, service, backup): &(&str, Option<&str>, bool)| {
            let line = ServerLine { server: (*host).into(), backup: *backup, ..ServerLine::default() };
            Resolved::new(line, (*host).into(), service.map(Into::into), 8080)
        };
        let names = Resolving::new(lines.iter().map(name).collect(), None, Duration::ZERO);
        let fixed = ServerLine { server: "10.0.0.9".into(), ..ServerLine::default() };
        let fixed = vec![(fixed, vec![Address::Tcp("10.0.0.9:80".parse().unwrap())])];
        Arc::new(Group::with_names("app", Balance::RoundRobin, fixed, names, Dynamics::default()).unwrap())
    }

    /// `address` or `address server priority weight`, separated by commas.
    fn found(text: &str) -> Vec<Found> {
        let one = |text: &str| {
            let mut words = text.split_whitespace();
            let address = words.next().unwrap();
            let address = if address.contains(':') { address.to_owned() } else { format!("{address}:0") };
            let server = words.next().map(Into::into);
            let mut number = || words.next().map_or(0, |word| word.parse().unwrap());
            Found { address: address.parse().unwrap(), server, priority: number(), weight: number() }
        };
        text.split(", ").filter(|text| !text.is_empty()).map(one).collect()
    }

    fn names(group: &Group) -> String {
        let backup = |peer: &Peer| {
            let primary = group.members();
            if primary.sets()[0].iter().any(|other| other.id == peer.id) { "" } else { "+" }
        };
        let peers = group.peers().map(|peer| format!("{}{}*{}", backup(&peer), peer.name, peer.line.weight));
        peers.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn addresses_come_and_go_and_those_that_stay_keep_their_place_and_state() {
        let group = group(&[("app.example", None, false)]);
        assert_eq!(names(&group), "10.0.0.9:80*1");
        group.update(0, &found("10.0.0.1, 10.0.0.2"));
        assert_eq!(names(&group), "10.0.0.9:80*1 10.0.0.1:8080*1 10.0.0.2:8080*1");
        let mut selection = group.select(Client::default());
        while selection.next(5000).unwrap().name != "10.0.0.2:8080" {
            selection.done(Outcome::Next, 5000);
        }
        group.update(0, &found("10.0.0.3, 10.0.0.2"));
        assert_eq!(names(&group), "10.0.0.9:80*1 10.0.0.2:8080*1 10.0.0.3:8080*1");
        assert_eq!(group.peers().map(|peer| peer.active()).collect::<Vec<_>>(), [0, 1, 0]);
        group.update(0, &[]);
        assert_eq!(names(&group), "10.0.0.9:80*1");
        drop(selection);
    }

    #[test]
    fn a_request_under_way_keeps_to_those_who_belonged_to_it_when_it_began() {
        let group = group(&[("app.example", None, false)]);
        group.update(0, &found("10.0.0.1"));
        let mut selection = group.select(Client::default());
        group.update(0, &found("10.0.0.2"));
        let mut seen = Vec::new();
        while let Ok(peer) = selection.next(5000) {
            seen.push(peer.name.clone());
            selection.done(Outcome::Next, 5000);
        }
        assert_eq!(seen, ["10.0.0.9:80", "10.0.0.1:8080"]);
    }

    #[test]
    fn an_address_found_twice_is_two_peers() {
        let group = group(&[("app.example", Some("http"), false)]);
        group.update(0, &found("10.0.0.1:80 a 1 5, 10.0.0.1:80 a 1 5"));
        assert_eq!(names(&group), "10.0.0.9:80*1 10.0.0.1:80*5 10.0.0.1:80*5");
        group.update(0, &found("10.0.0.1:80 a 1 5"));
        assert_eq!(names(&group), "10.0.0.9:80*1 10.0.0.1:80*5");
    }

    #[test]
    fn of_a_service_those_of_lower_priority_are_backups_and_a_new_weight_is_a_new_peer() {
        let group = group(&[("app.example", Some("http"), false), ("spare.example", Some("http"), true)]);
        group.update(0, &found("10.0.0.1:81 a 1 5, 10.0.0.2:82 b 2 6"));
        assert_eq!(names(&group), "10.0.0.9:80*1 10.0.0.1:81*5 +10.0.0.2:82*6");
        let before = group.peers().nth(1).unwrap();
        group.update(0, &found("10.0.0.1:81 a 1 5, 10.0.0.2:82 b 2 7"));
        assert_eq!(names(&group), "10.0.0.9:80*1 10.0.0.1:81*5 +10.0.0.2:82*7");
        assert!(Arc::ptr_eq(&before, &group.peers().nth(1).unwrap()));
        group.update(1, &found("10.0.0.3:83 c 1 1, 10.0.0.4:84 d 2 1"));
        assert_eq!(names(&group), "10.0.0.9:80*1 10.0.0.1:81*5 +10.0.0.2:82*7 +10.0.0.3:83*1");
        group.update(0, &found("10.0.0.2:82 b 2 7"));
        assert_eq!(names(&group), "10.0.0.9:80*1 10.0.0.2:82*7 +10.0.0.3:83*1");
    }

    #[test]
    fn a_new_generation_begins_with_the_addresses_of_the_old_one() {
        let (old, new) = (
            group(&[("a.example", None, false), ("b.example", Some("http"), false)]),
            group(&[("b.example", Some("http"), false), ("c.example", None, false), ("a.example", None, false)]),
        );
        old.update(0, &found("10.0.0.1"));
        old.update(1, &found("10.0.0.2:82 b 1 3, 10.0.0.3:83 c 2 4"));
        old.resolving.names[0].set_valid(77);
        assert_eq!(new.adopt(&old), 4);
        assert_eq!(names(&new), "10.0.0.9:80*1 10.0.0.2:82*3 10.0.0.1:8080*1 +10.0.0.3:83*4");
        assert_eq!(new.resolving.names.iter().map(Resolved::valid).collect::<Vec<_>>(), [0, 0, 77]);
        new.update(2, &found("10.0.0.5"));
        assert_eq!(names(&new), "10.0.0.9:80*1 10.0.0.2:82*3 10.0.0.5:8080*1 +10.0.0.3:83*4");
    }

    #[test]
    fn an_upstream_of_names_only_has_nobody_until_they_are_known() {
        let name = Resolved::new(ServerLine::default(), "app.example".into(), None, 80);
        let names = Resolving::new(vec![name], None, Duration::ZERO);
        let group =
            Arc::new(Group::with_names("app", Balance::RoundRobin, Vec::new(), names, Dynamics::default()).unwrap());
        assert!(group.select(Client::default()).next(0).is_err());
        assert!(group.resolving.claim() && !group.resolving.claim());
        group.update(0, &found("10.0.0.1"));
        assert_eq!(group.select(Client::default()).next(0).unwrap().name, "10.0.0.1:80");
    }
}
