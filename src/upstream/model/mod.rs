//! Tests: the methods against a plain model of nginx's rules, with requests that overlap in every way, while servers
//! join, leave and change, are held out by checks and recover.

mod rules;

use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;

use super::{
    Address, Balance, Client, Group, Outcome, Selection, ServerLine,
    balance::{Measure, Two},
    edit::Dynamics,
    health::Hold,
    resolve::Resolving,
    sticky::{Kind, Sticky},
};
use rules::{Model, Peer, Request};

/// One thing that happens. Requests under way and peers are named by number, modulo how many there are.
#[derive(Clone, Debug)]
enum Event {
    /// A request with this key that belongs to that peer.
    Start(usize, Option<usize>),
    Next(usize),
    Done(usize, Outcome),
    Cancel(usize),
    Wait(u64),
    Reload,
    Add(ServerLine),
    Remove(usize),
    /// Another weight, `down`, `drain` and `max_conns` for a peer.
    Change(usize, u32, bool, bool, u32),
    Hold(usize),
    Release(usize),
}

fn events() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![Just(Outcome::Success), Just(Outcome::Next), Just(Outcome::Failed)];
    let change = (0usize..8, 1u32..8, proptest::bool::weighted(0.2), proptest::bool::weighted(0.2), 0u32..3);
    prop_oneof![
        12 => (0usize..6, proptest::option::weighted(0.3, 0usize..6)).prop_map(|(key, own)| Event::Start(key, own)),
        8 => (0usize..8).prop_map(Event::Next),
        12 => (0usize..8, outcome).prop_map(|(request, outcome)| Event::Done(request, outcome)),
        4 => (0usize..8).prop_map(Event::Cancel),
        6 => (0u64..6000).prop_map(Event::Wait),
        2 => Just(Event::Reload),
        1 => line().prop_map(Event::Add),
        1 => (0usize..8).prop_map(Event::Remove),
        2 => change.prop_map(|(peer, weight, down, drain, most)| Event::Change(peer, weight, down, drain, most)),
        2 => (0usize..8).prop_map(Event::Hold),
        2 => (0usize..8).prop_map(Event::Release),
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

fn line() -> impl Strategy<Value = ServerLine> {
    let max_conns = prop_oneof![3 => Just(0u32), 1 => 1u32..4];
    let slow_start = prop_oneof![3 => Just(0u64), 1 => 1000u64..20_000];
    (1u32..8, 0u32..4, 0i64..12, max_conns, 0u8..10, slow_start).prop_map(
        |(weight, max_fails, fail_timeout, max_conns, kind, slow_start)| ServerLine {
            weight,
            max_fails,
            fail_timeout,
            max_conns,
            backup: kind == 0 || kind == 1,
            down: kind == 2,
            drain: kind == 3,
            slow_start,
            ..ServerLine::default()
        },
    )
}

fn lines() -> impl Strategy<Value = Vec<ServerLine>> {
    let numbered = |mut lines: Vec<ServerLine>| {
        lines.iter_mut().enumerate().for_each(|(number, line)| name(line, number));
        lines
    };
    proptest::collection::vec(line(), 1..7)
        .prop_filter("no primary server", |lines| lines.iter().any(|line| !line.backup))
        .prop_map(numbered)
}

/// Two of five are one server to `hash … consistent`.
fn name(line: &mut ServerLine, number: usize) {
    (line.server, line.route) = (format!("host:{}", number % 5), format!("r{number}"));
}

fn address(line: &ServerLine) -> Address {
    Address::Unix(format!("/{}", line.route).into())
}

fn real(method: Balance, lines: &[ServerLine], keeps: bool) -> Arc<Group> {
    let servers = lines.iter().map(|line| (line.clone(), vec![address(line)])).collect();
    let dynamics = Dynamics { keeps, ..Dynamics::default() };
    let mut group = Group::with_names("app", method, servers, Resolving::default(), dynamics).unwrap();
    group.sticky = Some(Sticky { lookup: Vec::new(), kind: Kind::Route });
    Arc::new(group)
}

fn client(key: &str, route: &str) -> Client {
    let address = format!("10.0.{}.1", key.len()).parse().ok();
    Client { address, key: key.to_owned().into(), sticky: route.to_owned().into() }
}

/// The group and what it ought to be like.
struct Both {
    group: Arc<Group>,
    model: Model,
    lines: Vec<ServerLine>,
    keeps: bool,
    requests: Vec<(Selection, Request)>,
    now: u64,
    added: usize,
}

impl Both {
    fn new(method: Balance, lines: Vec<ServerLine>, keeps: bool) -> Self {
        let (group, model) = (real(method, &lines, keeps), Model::new(method, &lines));
        Self { group, model, lines, keeps, requests: Vec::new(), now: 1_700_000_000_123, added: 0 }
    }

    fn request(&mut self, number: usize) -> Option<usize> {
        number.checked_rem(self.requests.len())
    }

    fn peer(&self, number: usize) -> Option<Peer> {
        let peers = self.model.members.sets.concat();
        number.checked_rem(peers.len()).map(|at| peers[at].clone())
    }

    fn happens(&mut self, event: Event) -> Result<(), TestCaseError> {
        let now = self.now;
        match event {
            Event::Start(key, own) => {
                let (key, route) = ("k".repeat(key), own.map(|own| format!("r{own}")).unwrap_or_default());
                let mut pair = (self.group.select(client(&key, &route)), self.model.start(&key, &route));
                prop_assert_eq!(pair.0.next(now).ok().map(|peer| peer.id), self.model.next(&mut pair.1, now));
                self.requests.push(pair);
            }
            Event::Next(n) => {
                if let Some((selection, request)) = self.request(n).map(|n| &mut self.requests[n]) {
                    // nginx frees a peer before it asks for the next one.
                    let out = selection.done(Outcome::Failed, now);
                    prop_assert_eq!(out, self.model.done(request, true, Some(now)));
                    prop_assert_eq!(selection.next(now).ok().map(|peer| peer.id), self.model.next(request, now));
                }
            }
            Event::Done(n, outcome) => {
                if let Some((selection, request)) = self.request(n).map(|n| &mut self.requests[n]) {
                    let failed = outcome == Outcome::Failed;
                    prop_assert_eq!(selection.done(outcome, now), self.model.done(request, failed, Some(now)));
                    prop_assert_eq!(selection.tries(), request.tries);
                }
            }
            Event::Cancel(n) => {
                if let Some(n) = self.request(n) {
                    let (selection, mut request) = self.requests.remove(n);
                    drop(selection);
                    self.model.done(&mut request, false, None);
                }
            }
            Event::Wait(milliseconds) => self.now += milliseconds,
            Event::Reload => {
                let new = real(self.group.balance, &self.lines, self.keeps);
                let kept = match self.keeps {
                    true => self.model.members.sets.iter().map(Vec::len).sum(),
                    false => self.model.reload(&self.lines),
                };
                prop_assert_eq!(new.adopt(&self.group), kept);
                self.group = new;
            }
            Event::Add(mut line) => {
                line.backup &= self.group.balance.allows_backup();
                self.added += 1;
                name(&mut line, 100 + self.added);
                self.group.add(line.clone(), &[address(&line)]).unwrap();
                self.model.add(&line);
            }
            Event::Remove(n) => {
                if let Some(peer) = self.peer(n) {
                    self.group.remove(peer.id).unwrap();
                    self.model.remove(peer.id);
                }
            }
            Event::Change(n, weight, down, drain, max_conns) => {
                if let Some(peer) = self.peer(n) {
                    let change = |line: &mut ServerLine| {
                        (line.weight, line.down, line.drain, line.max_conns) = (weight, down, drain, max_conns);
                    };
                    self.group.change(peer.id, change).unwrap();
                    self.model.change(peer.id, change);
                }
            }
            Event::Hold(n) => {
                if let Some(peer) = self.peer(n) {
                    let held = self.group.hold(&self.group.peer(peer.id).unwrap(), Hold::Load, "busy", now);
                    prop_assert_eq!(held, !self.model.lives[peer.live].held);
                    self.model.hold(&peer);
                }
            }
            Event::Release(n) => {
                if let Some(peer) = self.peer(n) {
                    let released = self.group.release(&self.group.peer(peer.id).unwrap(), Hold::Load, now);
                    prop_assert_eq!(released, self.model.lives[peer.live].held);
                    self.model.release(&peer, now);
                }
            }
        }
        Ok(())
    }

    fn agree(&self) -> Result<(), TestCaseError> {
        let second = (self.now / 1000) as i64;
        let current = |peer: &super::Peer| peer.known().map_or(0, |live| live.current_weight.get());
        let peers = self.group.peers();
        let seen: Vec<_> = peers
            .map(|p| (p.id, p.state(second), p.active(), p.fails() as u32, p.effective_weight(), current(&p)))
            .collect();
        let expected: Vec<_> = self.model.members.sets.concat();
        let expected: Vec<_> = expected
            .iter()
            .map(|p| {
                let live = &self.model.lives[p.live];
                (p.id, self.model.state(p, second), live.conns, live.fails, live.effective, live.current)
            })
            .collect();
        prop_assert_eq!(seen, expected);
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_methods_do_what_the_rules_say(
        method in methods(),
        mut lines in lines(),
        keeps: bool,
        events in proptest::collection::vec(events(), 0..160),
    ) {
        for line in &mut lines {
            line.backup &= method.allows_backup();
        }
        let mut both = Both::new(method, lines, keeps);
        for event in events {
            both.happens(event)?;
            both.agree()?;
        }
        both.requests.clear();
        prop_assert!(both.group.peers().all(|peer| peer.active() == 0));
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
            Just(Balance::LeastLoad),
        ],
        lines in lines(),
        own in 0usize..7,
        slow in any::<bool>(),
        held in proptest::collection::vec(proptest::bool::weighted(0.2), 7),
    ) {
        let slow_start = if slow { 60_000 } else { 0 };
        let lines: Vec<_> = lines.into_iter().map(|line| ServerLine { slow_start, ..line }).collect();
        let (group, route) = (real(method, &lines, false), format!("r{own}"));
        let is_held = |line: &ServerLine| held[line.route[1..].parse::<usize>().unwrap()];
        for peer in group.peers().filter(|peer| is_held(&peer.line)) {
            group.hold(&peer, Hold::Load, "busy", 4000);
        }
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
        let usable = |line: &&ServerLine| !line.down && (!line.drain || line.route == route) && !is_held(line);
        let expected: BTreeSet<_> = lines.iter().filter(usable).map(|line| line.route.clone()).collect();
        prop_assert_eq!(asked, expected);
        prop_assert!(group.peers().all(|peer| peer.active() == 0));
    }
}
