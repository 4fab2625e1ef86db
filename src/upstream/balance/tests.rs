//! Tests: what the methods share, and what was measured on a running nginx.

use crate::upstream::{
    Address, Balance, Client, Group, Outcome, ServerLine,
    balance::{Measure, Two},
};
use std::sync::Arc;

/// Every method, in one form at least.
pub(in crate::upstream) const ALL: [Balance; 10] = [
    Balance::RoundRobin,
    Balance::LeastConn,
    Balance::IpHash,
    Balance::Hash { consistent: false },
    Balance::Hash { consistent: true },
    Balance::Random(None),
    Balance::Random(Some(Two::LeastConn)),
    Balance::Random(Some(Two::LeastTime(Measure::LastByte))),
    Balance::LeastTime { measure: Measure::Header, inflight: true },
    Balance::LeastLoad,
];

/// Servers `127.0.0.1:8081`, `127.0.0.2:8082`, … with these weights.
pub(super) fn group_of(balance: Balance, weights: &[u32]) -> Arc<Group> {
    let server = |(number, weight): (u16, &u32)| {
        let server = format!("127.0.0.{number}:{}", 8080 + number);
        let address = Address::Tcp(server.parse().unwrap());
        (ServerLine { server, weight: *weight, ..ServerLine::default() }, vec![address])
    };
    Arc::new(Group::new("app", balance, (1..).zip(weights).map(server).collect()).unwrap())
}

/// The peers (from 1) a key is sent to, each failing in turn.
pub(super) fn walk(group: &Arc<Group>, key: &str) -> Vec<u32> {
    let mut selection = group.select(Client { key: key.to_owned().into(), ..Client::default() });
    let mut seen = Vec::new();
    while let Ok(peer) = selection.next(1_000_000) {
        seen.push(peer.id + 1);
        selection.done(Outcome::Next, 1_000_000);
    }
    seen
}

/// Keys and where nginx 1.22 sent them: among three equal servers, and among weights 1, 2 and 5.
pub(super) fn measured(method: &str) -> Vec<(String, u32, u32)> {
    let column = if method == "hash" { 1 } else { 3 };
    let row = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        (words[0].to_owned(), words[column].parse().unwrap(), words[column + 1].parse().unwrap())
    };
    MEASURED.lines().map(row).collect()
}

/// A key; `hash` equal and weighted; `hash … consistent` equal and weighted.
const MEASURED: &str = include_str!("measured.txt");

mod own {
    use super::*;
    use crate::upstream::sticky::{Kind, Sticky};

    /// Peers with the routes `a`, `b`, `c`; `change` sees each line.
    fn routed(balance: Balance, change: impl Fn((usize, &mut ServerLine))) -> Arc<Group> {
        let server = |(at, route): (usize, &str)| {
            let mut line = ServerLine { route: route.into(), server: route.into(), ..ServerLine::default() };
            change((at, &mut line));
            (line, vec![Address::Unix(format!("/{route}").into())])
        };
        let servers = ["a", "b", "c"].into_iter().enumerate().map(server).collect();
        let mut group = Group::new("app", balance, servers).unwrap();
        group.sticky = Some(Sticky { lookup: Vec::new(), kind: Kind::Route });
        Arc::new(group)
    }

    fn ask(group: &Arc<Group>, route: &'static str, key: &'static str) -> Vec<String> {
        let client = Client { key: key.into(), sticky: route.into(), ..Client::default() };
        let mut selection = group.select(client);
        let mut seen = Vec::new();
        while let Ok(peer) = selection.next(1_000_000) {
            seen.push(peer.line.route.clone());
            selection.done(Outcome::Next, 1_000_000);
        }
        seen
    }

    #[test]
    fn whoever_names_a_peer_gets_it_with_every_method() {
        for balance in ALL {
            let group = routed(balance, |_| {});
            for route in ["a", "b", "c", "b", "b", "b", "b"] {
                let seen = ask(&group, route, "key");
                assert_eq!((seen.len(), &*seen[0]), (3, route), "{balance:?}");
            }
        }
    }

    #[test]
    fn a_peer_that_is_down_full_or_failed_is_not_asked_by_its_own_either() {
        for balance in ALL {
            let down = routed(balance, |(at, line)| line.down = at == 1);
            assert_eq!(ask(&down, "b", "key").len(), 2, "{balance:?}");
            let full = routed(balance, |(_, line)| line.max_conns = 1);
            let client = || Client { key: "key".into(), sticky: "b".into(), ..Client::default() };
            let mut first = full.select(client());
            assert_eq!(first.next(0).unwrap().line.route, "b");
            assert_ne!(full.select(client()).next(0).unwrap().line.route, "b", "{balance:?}");
            first.done(Outcome::Failed, 1000);
            assert_ne!(full.select(client()).next(1000).unwrap().line.route, "b", "{balance:?}");
        }
    }

    #[test]
    fn a_draining_peer_is_asked_by_its_own_and_nobody_else() {
        for balance in ALL {
            let group = routed(balance, |(at, line)| line.drain = at == 1);
            assert_eq!(ask(&group, "b", "key")[0], "b", "{balance:?}");
            for key in ["key", "k2", "k3", "k4"] {
                assert!(!ask(&group, "", key).contains(&"b".to_owned()), "{balance:?}");
            }
            assert_eq!(group.select(Client::default()).tries(), 2);
        }
    }

    #[test]
    fn requests_of_their_own_count_in_the_turns_of_the_others() {
        let group = routed(Balance::RoundRobin, |_| {});
        let one = |route: &'static str| {
            let mut selection = group.select(Client { sticky: route.into(), ..Client::default() });
            selection.next(5000).unwrap().line.route.clone()
        };
        assert_eq!(["a", "a", "", "", "", ""].map(one), ["a", "a", "b", "c", "a", "b"]);
    }

    #[test]
    fn a_lone_peer_that_drains_serves_its_own() {
        let line = ServerLine { route: "a".into(), drain: true, ..ServerLine::default() };
        let group = Group::new("app", Balance::RoundRobin, vec![(line, vec![Address::Unix("/a".into())])]);
        let group = Arc::new(group.unwrap());
        assert!(group.select(Client::default()).next(0).is_err());
        assert!(group.select(Client { sticky: "a".into(), ..Client::default() }).next(0).is_ok());
    }

    #[test]
    fn a_peer_that_recovers_gets_its_share_back_slowly() {
        for balance in [Balance::RoundRobin, Balance::LeastConn] {
            let group = routed(balance, |(_, line)| line.slow_start = 100_000);
            let mut failing = group.select(Client { sticky: "a".into(), ..Client::default() });
            failing.next(0).unwrap();
            failing.done(Outcome::Failed, 1_000_000);
            // A probe after its ten seconds finds it well again.
            let mut probe = group.select(Client { sticky: "a".into(), ..Client::default() });
            assert_eq!(probe.next(1_011_000).unwrap().line.route, "a");
            probe.done(Outcome::Success, 1_011_000);
            let share = |from: u64| {
                let one = |now| group.select(Client::default()).next(now).unwrap().line.route.clone();
                (0..300).filter(|n| one(from + n) == "a").count()
            };
            let shares = [1_012_000, 1_036_000, 1_061_000, 1_111_000].map(share);
            assert!(shares[0] < 10 && shares.is_sorted() && shares[3] >= 95, "{balance:?}: {shares:?}");
        }
    }

    #[test]
    fn a_peer_that_recovers_is_asked_when_there_is_nobody_else() {
        let group = routed(Balance::RoundRobin, |(at, line)| {
            (line.slow_start, line.down) = (100_000, at != 0);
        });
        let one = |now| group.select(Client::default()).next(now).is_ok();
        let mut failing = group.select(Client::default());
        failing.next(0).unwrap();
        failing.done(Outcome::Failed, 1_000_000);
        assert!(!one(1_001_000));
        assert!((0..20).all(|n| one(1_011_000 + n)));
    }
}
