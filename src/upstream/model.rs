//! Tests: round robin against a plain model of nginx's rules, with requests that overlap in every way.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Address, Balance, Client, Group, Outcome, Selection, ServerLine};

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
}

/// Primary and backup servers.
#[derive(Clone, Debug)]
struct Model([Vec<Peer>; 2]);

impl Model {
    fn single(&self, set: usize) -> bool {
        set == 0 && self.0[0].len() == 1 && self.0[1].is_empty()
    }

    fn start(&self) -> Request {
        let tries = self.0.iter().flatten().filter(|peer| !peer.line.down).count();
        Request { set: 0, tried: Vec::new(), peer: None, tries }
    }

    fn next(&mut self, request: &mut Request, now: i64) -> Option<usize> {
        let single = self.single(request.set);
        let peers = &mut self.0[request.set];
        let mut total = 0;
        let mut best: Option<usize> = None;
        for index in 0..peers.len() {
            let peer = &mut peers[index];
            let full = peer.line.max_conns > 0 && peer.conns >= peer.line.max_conns;
            let out = peer.line.max_fails > 0
                && peer.fails >= peer.line.max_fails
                && now - peer.checked <= peer.line.fail_timeout;
            if peer.line.down || full || (!single && (out || request.tried.contains(&index))) {
                continue;
            }
            if single {
                best = Some(index);
                break;
            }
            peer.current += peer.effective;
            total += peer.effective;
            peer.effective = i64::from(peer.line.weight).min(peer.effective + 1);
            let current = peer.current;
            if best.is_none_or(|best| current > peers[best].current) {
                best = Some(index);
            }
        }
        let Some(index) = best else {
            if request.set == 0 && !self.0[1].is_empty() {
                (request.set, request.tried) = (1, Vec::new());
                return self.next(request, now);
            }
            return None;
        };
        let peer = &mut peers[index];
        peer.conns += 1;
        if !single {
            peer.current -= total;
            request.tried.push(index);
            if now - peer.checked > peer.line.fail_timeout {
                peer.checked = now;
            }
        }
        request.peer = Some(index);
        Some(if request.set == 0 { index } else { self.0[0].len() + index })
    }

    fn done(&mut self, request: &mut Request, failed: bool, now: i64) -> bool {
        let single = self.single(request.set);
        let Some(index) = request.peer.take() else { return false };
        let peer = &mut self.0[request.set][index];
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

/// One thing that happens. Requests under way are named by number, modulo how many there are.
#[derive(Clone, Debug)]
enum Event {
    Start,
    Next(usize),
    Done(usize, Outcome),
    Cancel(usize),
    Wait(u64),
    Reload,
}

fn events() -> impl Strategy<Value = Event> {
    let outcome = prop_oneof![Just(Outcome::Success), Just(Outcome::Next), Just(Outcome::Failed)];
    prop_oneof![
        6 => Just(Event::Start),
        4 => (0usize..8).prop_map(Event::Next),
        6 => (0usize..8, outcome).prop_map(|(request, outcome)| Event::Done(request, outcome)),
        2 => (0usize..8).prop_map(Event::Cancel),
        3 => (0u64..6000).prop_map(Event::Wait),
        1 => Just(Event::Reload),
    ]
}

fn lines() -> impl Strategy<Value = Vec<ServerLine>> {
    let line = (1u32..8, 0u32..4, 0i64..12, prop_oneof![3 => Just(0u32), 1 => 1u32..4], 0u8..8).prop_map(
        |(weight, max_fails, fail_timeout, max_conns, kind)| ServerLine {
            weight,
            max_fails,
            fail_timeout,
            max_conns,
            backup: kind == 0 || kind == 1,
            down: kind == 2,
            ..ServerLine::default()
        },
    );
    proptest::collection::vec(line, 1..7)
        .prop_filter("no primary server", |lines| lines.iter().any(|line| !line.backup))
}

fn real(lines: &[ServerLine]) -> Arc<Group> {
    let address = |n: usize| vec![Address::Unix(format!("/{n}").into())];
    let servers = lines.iter().enumerate().map(|(n, line)| (line.clone(), address(n))).collect();
    Arc::new(Group::new("app", Balance::RoundRobin, servers).unwrap())
}

fn model(lines: &[ServerLine]) -> Model {
    Model([false, true].map(|backup| {
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
    }))
}

proptest! {
    #[test]
    fn round_robin_does_what_the_rules_say(lines in lines(), events in proptest::collection::vec(events(), 0..120)) {
        let (mut group, mut model) = (real(&lines), model(&lines));
        let mut requests: Vec<(Selection, Request)> = Vec::new();
        let mut now = 1_700_000_000_123_u64;
        for event in events {
            let second = (now / 1000) as i64;
            let which = |n: usize| if requests.is_empty() { None } else { Some(n % requests.len()) };
            match event {
                Event::Start => {
                    let mut pair = (group.select(Client::default()), model.start());
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
                    let new = real(&lines);
                    prop_assert_eq!(new.adopt(&group), lines.len());
                    group = new;
                }
            }
            let seen: Vec<_> = group.peers().map(|p| (p.active(), p.fails() as u32, p.effective_weight())).collect();
            let expected: Vec<_> = model.0.iter().flatten().map(|p| (p.conns, p.fails, p.effective)).collect();
            prop_assert_eq!(seen, expected);
        }
        drop(requests);
        prop_assert!(group.peers().all(|peer| peer.active() == 0));
    }
}
