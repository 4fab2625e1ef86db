//! Tests: the methods against a plain model of nginx's rules, with requests that overlap in every way.

use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;

use super::{
    Address, Balance, Client, Group, Outcome, Selection, ServerLine,
    balance::{Measure, Two},
    sticky::{Kind, Sticky},
};

/// A peer of the model: the rules say what each number is.
#[derive(Clone, Debug)]
struct Peer {
    line: ServerLine,
    current: i64,
    effective: i64,
    conns: u32,
    fails: u32,
    accessed: i64,
    checked: i64,
}

/// A request of the model.
#[derive(Clone, Debug)]
struct Request {
    set: usize,
    tried: Vec<usize>,
    peer: Option<usize>,
    tries: usize,
    key: String,
    route: String,
    /// How far the hash has got: its value or point, how often it was made, and how often in vain.
    hash: u64,
    rehash: u32,
    misses: u32,
}

/// Primary and backup servers.
#[derive(Clone, Debug)]
struct Model {
    method: Balance,
    sets: [Vec<Peer>; 2],
    /// The points of the servers, in order.
    ring: Vec<(u32, String)>,
}

impl Model {
    fn single(&self, set: usize) -> bool {
        set == 0 && self.sets[0].len() == 1 && self.sets[1].is_empty()
    }

    fn start(&self, key: &str, route: &str) -> Request {
        let tries = self.sets.iter().flatten().filter(|peer| !peer.line.down && !peer.line.drain).count();
        let hash = match self.method {
            Balance::IpHash => 89,
            Balance::Hash { consistent: true } => {
                let hash = crc32(key.as_bytes());
                self.ring.iter().take_while(|(point, _)| *point < hash).count() as u64
            }
            _ => 0,
        };
        let (key, route) = (key.to_owned(), route.to_owned());
        Request { set: 0, tried: Vec::new(), peer: None, tries, key, route, hash, rehash: 0, misses: 0 }
    }

    fn usable(&self, request: &Request, index: usize, own: bool, now: i64) -> bool {
        let peer = &self.sets[request.set][index];
        let line = &peer.line;
        let full = line.max_conns > 0 && peer.conns >= line.max_conns;
        let out = line.max_fails > 0 && peer.fails >= line.max_fails && now - peer.checked <= line.fail_timeout;
        !line.down && (own || !line.drain) && !full && !out && !request.tried.contains(&index)
    }

    fn own(&self, request: &Request, now: i64) -> Option<usize> {
        let of_route = |peer: &Peer| !request.route.is_empty() && peer.line.route == request.route;
        let index = self.sets[request.set].iter().position(of_route)?;
        self.usable(request, index, true, now).then_some(index)
    }

    /// The number of the chosen peer.
    fn next(&mut self, request: &mut Request, now: i64) -> Option<usize> {
        let chosen = match self.method {
            Balance::LeastConn => self.least_conn(request, now),
            Balance::IpHash | Balance::Hash { .. } => self.hashed(request, now),
            _ => self.round_robin(request, now),
        };
        let index = chosen?;
        let single = self.single(request.set);
        let peer = &mut self.sets[request.set][index];
        peer.conns += 1;
        if !single {
            request.tried.push(index);
            if now - peer.checked > peer.line.fail_timeout {
                peer.checked = now;
            }
        }
        request.peer = Some(index);
        Some(if request.set == 0 { index } else { self.sets[0].len() + index })
    }

    /// Whether there are backups to turn to.
    fn turn_to_backups(&self, request: &mut Request) -> bool {
        let turns = request.set == 0 && !self.sets[1].is_empty();
        if turns {
            (request.set, request.tried) = (1, Vec::new());
        }
        turns
    }

    fn round_robin(&mut self, request: &mut Request, now: i64) -> Option<usize> {
        let own = self.own(request, now);
        let peers = &self.sets[request.set];
        if self.single(request.set) {
            let line = &peers[0].line;
            let has_room = line.max_conns == 0 || peers[0].conns < line.max_conns;
            return own.or_else(|| (!line.down && !line.drain && has_room).then_some(0));
        }
        if let Some(own) = own {
            let others: i64 = peers.iter().map(|peer| i64::from(peer.line.weight)).sum();
            if peers[own].current <= i64::from(peers[own].line.weight) - others {
                return Some(own);
            }
        }
        let candidates: Vec<_> = (0..peers.len()).filter(|index| self.usable(request, *index, false, now)).collect();
        match self.turn(request.set, &candidates, own) {
            None if self.turn_to_backups(request) => self.round_robin(request, now),
            chosen => chosen,
        }
    }

    /// One turn among some peers of a set; whoever is named beforehand is chosen, and pays.
    fn turn(&mut self, set: usize, candidates: &[usize], named: Option<usize>) -> Option<usize> {
        let peers = &mut self.sets[set];
        let mut total = 0;
        let mut best: Option<usize> = None;
        for &index in candidates {
            let peer = &mut peers[index];
            peer.current += peer.effective;
            total += peer.effective;
            peer.effective = i64::from(peer.line.weight).min(peer.effective + 1);
            let current = peer.current;
            if best.is_none_or(|best| current > peers[best].current) {
                best = Some(index);
            }
        }
        let chosen = named.or(best)?;
        peers[chosen].current -= total;
        Some(chosen)
    }

    fn least_conn(&mut self, request: &mut Request, now: i64) -> Option<usize> {
        if self.single(request.set) {
            return self.round_robin(request, now);
        }
        if let Some(own) = self.own(request, now) {
            return Some(own);
        }
        let peers = &self.sets[request.set];
        let candidates: Vec<_> = (0..peers.len()).filter(|index| self.usable(request, *index, false, now)).collect();
        // Weights are below eight: a common multiple of all makes shares of them whole.
        let share = |index: &usize| peers[*index].conns * 840 / peers[*index].line.weight;
        let Some(least) = candidates.iter().map(share).min() else {
            return if self.turn_to_backups(request) { self.least_conn(request, now) } else { None };
        };
        let equal: Vec<_> = candidates.into_iter().filter(|index| share(index) == least).collect();
        match equal[..] {
            [only] => Some(only),
            _ => self.turn(request.set, &equal, None),
        }
    }

    fn hashed(&mut self, request: &mut Request, now: i64) -> Option<usize> {
        let consistent = self.method == Balance::Hash { consistent: true };
        let few = if consistent { self.single(request.set) } else { self.sets[request.set].len() < 2 };
        let keyless = request.key.is_empty() && self.method != Balance::IpHash;
        if request.misses > 20 || few || keyless {
            return self.round_robin(request, now);
        }
        if let Some(own) = self.own(request, now) {
            return Some(own);
        }
        let before = request.hash;
        while request.misses <= 20 {
            let candidates = self.step(request, now);
            if consistent {
                if let Some(chosen) = self.turn(request.set, &candidates, None) {
                    return Some(chosen);
                }
                request.hash += 1;
            } else if let [chosen] = candidates[..] {
                return Some(chosen);
            }
            request.misses += 1;
        }
        if self.method == Balance::IpHash {
            request.hash = before;
        }
        self.round_robin(request, now)
    }

    /// The usable peers at the next step of a hash.
    fn step(&self, request: &mut Request, now: i64) -> Vec<usize> {
        let peers = &self.sets[request.set];
        let usable = |index: &usize| self.usable(request, *index, false, now);
        if self.method == (Balance::Hash { consistent: true }) {
            let (_, server) = &self.ring[request.hash as usize % self.ring.len()];
            let here = |index: &usize| peers[*index].line.server == *server;
            return (0..peers.len()).filter(here).filter(usable).collect();
        }
        if self.method == Balance::IpHash {
            // Requests come from 10.0.N.1, where N is the length of the key.
            for byte in [10, 0, request.key.len() as u64] {
                request.hash = (request.hash * 113 + byte) % 6271;
            }
        } else {
            let number = if request.rehash > 0 { request.rehash.to_string() } else { String::new() };
            request.hash += u64::from((crc32((number + &request.key).as_bytes()) >> 16) & 0x7fff);
            request.rehash += 1;
        }
        let owners: Vec<_> = (0..peers.len()).flat_map(|at| vec![at; peers[at].line.weight as usize]).collect();
        let index = owners[request.hash as usize % owners.len()];
        [index].into_iter().filter(|index| self.usable(request, *index, false, now)).collect()
    }

    fn done(&mut self, request: &mut Request, failed: bool, now: i64) -> bool {
        let single = self.single(request.set);
        let Some(index) = request.peer.take() else { return false };
        let peer = &mut self.sets[request.set][index];
        peer.conns -= 1;
        if single {
            (peer.fails, request.tries) = (0, 0);
            return false;
        }
        request.tries = request.tries.saturating_sub(1);
        if !failed {
            if peer.accessed < peer.checked {
                peer.fails = 0;
            }
            return false;
        }
        peer.fails += 1;
        (peer.accessed, peer.checked) = (now, now);
        let share = peer.line.weight.checked_div(peer.line.max_fails).unwrap_or(0);
        peer.effective = (peer.effective - i64::from(share)).max(0);
        peer.line.max_fails > 0 && peer.fails >= peer.line.max_fails
    }
}

/// The circle of servers written `HOST:PORT`.
fn ring(peers: &[Peer]) -> Vec<(u32, String)> {
    let mut ring: Vec<(u32, String)> = Vec::new();
    for peer in peers {
        let server = peer.line.server.replace(':', "\0");
        let mut previous = [0; 4];
        for _ in 0..peer.line.weight * 160 {
            let hash = crc32(&[server.as_bytes(), &previous].concat());
            ring.push((hash, peer.line.server.clone()));
            previous = hash.to_le_bytes();
        }
    }
    ring.sort_by_key(|(hash, _)| *hash);
    ring.dedup_by_key(|(hash, _)| *hash);
    ring
}

/// Bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        let shift = |sum: u32, _| if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 };
        (0..8).fold(sum ^ u32::from(*byte), shift)
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// One thing that happens. Requests under way are named by number, modulo how many there are.
#[derive(Clone, Debug)]
enum Event {
    /// A request with this key that belongs to that peer.
    Start(usize, Option<usize>),
    Next(usize),
    Done(usize, Outcome),
    Cancel(usize),
    Wait(u64),
    Reload,
}

fn events() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![Just(Outcome::Success), Just(Outcome::Next), Just(Outcome::Failed)];
    prop_oneof![
        6 => (0usize..6, proptest::option::weighted(0.3, 0usize..6)).prop_map(|(key, own)| Event::Start(key, own)),
        4 => (0usize..8).prop_map(Event::Next),
        6 => (0usize..8, outcome).prop_map(|(request, outcome)| Event::Done(request, outcome)),
        2 => (0usize..8).prop_map(Event::Cancel),
        3 => (0u64..6000).prop_map(Event::Wait),
        1 => Just(Event::Reload),
    ]
}

/// The methods the model knows; those without backups are given none.
fn methods() -> impl Strategy<Value = Balance> {
    prop_oneof![
        2 => Just(Balance::RoundRobin),
        1 => Just(Balance::LeastConn),
        1 => Just(Balance::IpHash),
        1 => Just(Balance::Hash { consistent: false }),
        1 => Just(Balance::Hash { consistent: true }),
    ]
}

fn lines() -> impl Strategy<Value = Vec<ServerLine>> {
    let line = (1u32..8, 0u32..4, 0i64..12, prop_oneof![3 => Just(0u32), 1 => 1u32..4], 0u8..10).prop_map(
        |(weight, max_fails, fail_timeout, max_conns, kind)| ServerLine {
            weight,
            max_fails,
            fail_timeout,
            max_conns,
            backup: kind == 0 || kind == 1,
            down: kind == 2,
            drain: kind == 3,
            ..ServerLine::default()
        },
    );
    let number = |mut lines: Vec<ServerLine>| {
        for (number, line) in lines.iter_mut().enumerate() {
            // Two of them are one server to `hash … consistent`.
            (line.server, line.route) = (format!("host:{}", number % 5), format!("r{number}"));
        }
        lines
    };
    proptest::collection::vec(line, 1..7)
        .prop_filter("no primary server", |lines| lines.iter().any(|line| !line.backup))
        .prop_map(number)
}

fn real(method: Balance, lines: &[ServerLine]) -> Arc<Group> {
    let address = |n: usize| vec![Address::Unix(format!("/{n}").into())];
    let servers = lines.iter().enumerate().map(|(n, line)| (line.clone(), address(n))).collect();
    let mut group = Group::new("app", method, servers).unwrap();
    group.sticky = Some(Sticky { lookup: Vec::new(), kind: Kind::Route });
    Arc::new(group)
}

fn client(key: &str, route: &str) -> Client {
    let address = format!("10.0.{}.1", key.len()).parse().ok();
    Client { address, key: key.to_owned().into(), sticky: route.to_owned().into() }
}

fn model(method: Balance, lines: &[ServerLine]) -> Model {
    let sets: [Vec<Peer>; 2] = [false, true].map(|backup| {
        let of_set = lines.iter().filter(|line| line.backup == backup);
        of_set
            .map(|line| Peer {
                line: line.clone(),
                current: 0,
                effective: i64::from(line.weight),
                conns: 0,
                fails: 0,
                accessed: 0,
                checked: 0,
            })
            .collect()
    });
    let consistent = method == Balance::Hash { consistent: true };
    let ring = if consistent { ring(&sets[0]) } else { Vec::new() };
    Model { method, sets, ring }
}

proptest! {
    #[test]
    fn the_methods_do_what_the_rules_say(
        method in methods(),
        mut lines in lines(),
        events in proptest::collection::vec(events(), 0..120),
    ) {
        if !method.allows_backup() {
            for line in &mut lines {
                line.backup = false;
            }
        }
        let (mut group, mut model) = (real(method, &lines), model(method, &lines));
        let mut requests: Vec<(Selection, Request)> = Vec::new();
        let mut now = 1_700_000_000_123_u64;
        for event in events {
            let second = (now / 1000) as i64;
            let which = |n: usize| if requests.is_empty() { None } else { Some(n % requests.len()) };
            match event {
                Event::Start(key, own) => {
                    let (key, route) = ("k".repeat(key), own.map(|own| format!("r{own}")).unwrap_or_default());
                    let mut pair = (group.select(client(&key, &route)), model.start(&key, &route));
                    let chosen = pair.0.next(now).ok().map(|peer| peer.id as usize);
                    prop_assert_eq!(chosen, model.next(&mut pair.1, second));
                    requests.push(pair);
                }
                Event::Next(n) => {
                    if let Some((selection, request)) = which(n).map(|n| &mut requests[n]) {
                        // nginx frees a peer before it asks for the next one.
                        prop_assert_eq!(selection.done(Outcome::Failed, now), model.done(request, true, second));
                        let chosen = selection.next(now).ok().map(|peer| peer.id as usize);
                        prop_assert_eq!(chosen, model.next(request, second));
                    }
                }
                Event::Done(n, outcome) => {
                    if let Some((selection, request)) = which(n).map(|n| &mut requests[n]) {
                        let failed = outcome == Outcome::Failed;
                        prop_assert_eq!(selection.done(outcome, now), model.done(request, failed, second));
                        prop_assert_eq!(selection.tries(), request.tries);
                    }
                }
                Event::Cancel(n) => {
                    if let Some(n) = which(n) {
                        let (selection, mut request) = requests.remove(n);
                        drop(selection);
                        model.done(&mut request, false, second);
                    }
                }
                Event::Wait(milliseconds) => now += milliseconds,
                Event::Reload => {
                    let new = real(method, &lines);
                    prop_assert_eq!(new.adopt(&group), lines.len());
                    group = new;
                }
            }
            let seen: Vec<_> = group.peers().map(|p| (p.active(), p.fails() as u32, p.effective_weight())).collect();
            let expected: Vec<_> = model.sets.iter().flatten().map(|p| (p.conns, p.fails, p.effective)).collect();
            prop_assert_eq!(seen, expected);
        }
        drop(requests);
        prop_assert!(group.peers().all(|peer| peer.active() == 0));
    }

    #[test]
    fn every_method_asks_each_usable_peer_once_and_nobody_else(
        method in prop_oneof![
            methods(),
            Just(Balance::Random(None)),
            Just(Balance::Random(Some(Two::LeastConn))),
            Just(Balance::Random(Some(Two::LeastTime(Measure::Header)))),
            (any::<bool>(), any::<bool>()).prop_map(|(header, inflight)| Balance::LeastTime {
                measure: if header { Measure::Header } else { Measure::LastByte },
                inflight,
            }),
        ],
        lines in lines(),
        own in 0usize..7,
        slow in any::<bool>(),
    ) {
        let slow_start = if slow { 60_000 } else { 0 };
        let lines: Vec<_> = lines.into_iter().map(|line| ServerLine { slow_start, ..line }).collect();
        let (group, route) = (real(method, &lines), format!("r{own}"));
        let mut selection = group.select(client("key", &route));
        let mut asked = BTreeSet::new();
        let single = group.peers().count() == 1;
        while let Ok(peer) = selection.next(5000) {
            prop_assert!(asked.insert(peer.line.route.clone()) || single, "{} twice", peer.name);
            selection.answered(5001);
            selection.passed_on(5001);
            selection.done(Outcome::Next, 5002);
            if single {
                break;
            }
        }
        let usable = |line: &&ServerLine| !line.down && (!line.drain || line.route == route);
        let expected: BTreeSet<_> = lines.iter().filter(usable).map(|line| line.route.clone()).collect();
        prop_assert_eq!(asked, expected);
        prop_assert!(group.peers().all(|peer| peer.active() == 0));
    }
}
