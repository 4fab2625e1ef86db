//! Holding peers, and how the choice heeds it.

use super::*;
use crate::upstream::{Balance, Client, ServerLine, balance::tests::ALL, group::tests::group, sticky::Sticky};
use std::sync::Arc;

const TERMS: (u32, u32) = (1, 1);

fn terms(mandatory: bool, persistent: bool) -> Terms {
    Terms { name: "check".into(), fails: TERMS.0, passes: TERMS.1, mandatory, persistent }
}

fn ids(group: &Arc<Group>, count: usize) -> Vec<u32> {
    let pick = |_| group.select(Client::default()).next(5_000_000).map_or(99, |peer| peer.id);
    (0..count).map(pick).collect()
}

fn states(group: &Group) -> String {
    group.peers().map(|peer| peer.state(5000).as_str().to_owned()).collect::<Vec<_>>().join(" ")
}

#[test]
fn who_is_held_is_not_asked_by_any_method() {
    for balance in ALL {
        let group = group(balance, &[1, 1, 1], |_| {});
        let held = group.peers().nth(1).unwrap();
        assert!(group.hold(&held, Hold::Health, "why", 0));
        assert!(!ids(&group, 60).contains(&1), "{balance:?}");
        assert!(group.release(&held, Hold::Health, 0));
        let mut clients = (0..200_u8).map(|n| {
            let client = Client { key: vec![n].into(), ..Client::default() };
            group.select(client).next(5_000_000).unwrap().id
        });
        assert!(balance == Balance::IpHash || clients.any(|id| id == 1), "{balance:?}");
    }
}

#[test]
fn a_lone_server_that_is_held_is_not_asked() {
    let group = group(Balance::RoundRobin, &[1], |_| {});
    let peer = group.peers().next().unwrap();
    group.hold(&peer, Hold::Health, "why", 0);
    assert_eq!(ids(&group, 1), [99]);
    group.release(&peer, Hold::Health, 0);
    assert_eq!(ids(&group, 1), [0]);
}

#[test]
fn backups_are_asked_when_all_primaries_are_held() {
    let group = group(Balance::RoundRobin, &[1, 1, 1], |(number, line)| line.backup = number == 3);
    for peer in group.peers().take(2) {
        group.hold(&peer, Hold::Load, "why", 0);
    }
    assert_eq!(ids(&group, 2), [2, 2]);
}

#[test]
fn several_may_hold_a_peer_and_the_last_lets_it_go() {
    let group = group(Balance::RoundRobin, &[1, 1], |_| {});
    let peer = group.peers().next().unwrap();
    assert!(group.hold(&peer, Hold::Health, "status 503", 0));
    assert!(!group.hold(&peer, Hold::Health, "status 500", 0));
    assert!(group.hold(&peer, Hold::Agent, "down", 0));
    assert_eq!(peer.why_held().unwrap(), "status 500; down");
    assert!(group.release(&peer, Hold::Health, 0) && !group.release(&peer, Hold::Health, 0));
    assert!(peer.is_held());
    assert!(group.release(&peer, Hold::Agent, 0));
    assert!(!peer.is_held() && peer.why_held().is_none());
}

#[test]
fn states_are_told_as_the_api_names_them() {
    let group = group(Balance::RoundRobin, &[1; 6], |(number, line)| {
        line.down = number == 2;
        line.drain = number == 3;
        line.slow_start = 100;
    });
    let peers: Vec<_> = group.peers().collect();
    peers[3].fail(5000);
    group.hold(&peers[4], Hold::Checking, "", 0);
    group.hold(&peers[5], Hold::Health, "why", 0);
    assert_eq!(states(&group), "up down draining unavail checking unhealthy");
    group.hold(&peers[3], Hold::Health, "why", 0);
    group.release(&peers[3], Hold::Health, 5_000_000);
    assert_eq!(peers[3].state(5000), State::Up, "who is well again is forgiven");
    peers[3].pace(5_000_000);
    assert!(peers[3].rests(), "and recovers slowly");
}

#[test]
fn mandatory_peers_wait_for_their_first_check_and_so_does_who_joins_later() {
    let group = group(Balance::RoundRobin, &[1, 1], |_| {});
    let terms = terms(true, false);
    group.check_by(vec![terms.clone()], 0);
    assert_eq!((&*states(&group), ids(&group, 1)), ("checking checking", vec![99]));
    let first = group.peers().next().unwrap();
    assert_eq!(group.note_check(&first, &terms, "", 1), Some(Verdict::Healthy));
    let second = group.peers().nth(1).unwrap();
    assert_eq!(group.note_check(&second, &terms, "status 500", 1), Some(Verdict::Unhealthy));
    assert_eq!((&*states(&group), ids(&group, 2)), ("up unhealthy", vec![0, 0]));
    assert_eq!((second.why_held().unwrap(), second.checks().why), ("status 500".to_owned(), "status 500".to_owned()));
    let line = ServerLine::default();
    group.add(line, &[crate::upstream::Address::Unix("/9".into())]).unwrap();
    assert_eq!(states(&group), "up unhealthy checking");
}

#[test]
fn a_reload_takes_over_what_is_known() {
    for (terms, after) in [
        (terms(false, false), "up unhealthy"),
        (terms(true, false), "checking checking"),
        (terms(true, true), "up checking"),
    ] {
        let (old, new) = (group(Balance::RoundRobin, &[1, 1], |_| {}), group(Balance::RoundRobin, &[1, 1], |_| {}));
        old.check_by(vec![terms.clone()], 0);
        let peers: Vec<_> = old.peers().collect();
        old.note_check(&peers[0], &terms, "", 1);
        old.note_check(&peers[1], &terms, "why", 1);
        new.adopt(&old);
        new.check_by(vec![terms.clone()], 2);
        assert_eq!(states(&new), after);
        // A generation without the check lets everybody go.
        let bare = group(Balance::RoundRobin, &[1, 1], |_| {});
        bare.adopt(&new);
        bare.check_by(Vec::new(), 3);
        assert_eq!(states(&bare), "up up");
    }
}

#[test]
fn a_change_of_parameters_keeps_what_is_known() {
    let group = group(Balance::RoundRobin, &[1, 1], |_| {});
    let terms = terms(false, false);
    group.check_by(vec![terms.clone()], 0);
    group.note_check(&group.peers().next().unwrap(), &terms, "why", 1);
    group.change(0, |line| line.weight = 7).unwrap();
    assert_eq!(states(&group), "unhealthy up");
    assert_eq!(group.peer(0).unwrap().checks().unhealthy, 1);
}

#[test]
fn those_who_belong_to_a_held_peer_are_led_to_others() {
    let mut group = group(Balance::RoundRobin, &[1, 1], |(number, line)| line.route = ["a", "b"][number - 1].into());
    Arc::get_mut(&mut group).unwrap().sticky =
        Some(Sticky { lookup: Vec::new(), kind: crate::upstream::sticky::Kind::Route });
    let peer = group.peers().nth(1).unwrap();
    let pick = || group.select(Client { sticky: "b".into(), ..Client::default() }).next(0).unwrap().id;
    assert_eq!([pick(), pick()], [1, 1]);
    group.hold(&peer, Hold::Health, "why", 0);
    assert_eq!([pick(), pick()], [0, 0]);
}
