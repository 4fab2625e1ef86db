//! Tests: whole sequences of choices, as nginx shows them, with a scripted clock and scripted peers.

use std::sync::Arc;

use super::{Address, Balance, Client, Group, Outcome, ServerLine};

/// An `upstream {}`: for each server its parameters and its addresses, each with the label it answers with.
struct Case {
    group: Arc<Group>,
    labels: Vec<&'static str>,
}

/// `servers` are `(weight, backup, labels of its addresses)`.
fn case(servers: &[(u32, bool, &[&'static str])]) -> Case {
    let mut labels = Vec::new();
    let mut lines = Vec::new();
    for backup in [false, true] {
        for (weight, _, names) in servers.iter().filter(|server| server.1 == backup) {
            let first = labels.len();
            labels.extend_from_slice(names);
            let addresses = (first..labels.len()).map(|n| Address::Unix(format!("/{n}").into())).collect();
            lines.push((ServerLine { weight: *weight, backup, ..ServerLine::default() }, addresses));
        }
    }
    Case { group: Arc::new(Group::new("app", Balance::RoundRobin, lines).unwrap()), labels }
}

impl Case {
    /// Equal servers with one address each.
    fn equal(labels: &[&'static str]) -> Self {
        let each: Vec<_> = labels.iter().map(std::slice::from_ref).collect();
        case(&each.into_iter().map(|label| (1, false, label)).collect::<Vec<_>>())
    }

    /// One request at millisecond `now`: `B(after A)` when A was tried first, `502` when nobody answers.
    fn request(&self, now: u64, dead: &[&str]) -> String {
        let mut selection = self.group.select(Client::default());
        let mut after = Vec::new();
        let mut answer = "502";
        while selection.tries() > 0 {
            let Ok(peer) = selection.next(now) else { break };
            let label = self.labels[peer.id as usize];
            if !dead.contains(&label) {
                selection.done(Outcome::Success, now);
                answer = label;
                break;
            }
            assert!(selection.done(Outcome::Failed, now), "max_fails is 1: each failure takes it out");
            after.push(label);
        }
        if after.is_empty() { answer.to_owned() } else { format!("{answer}(after {})", after.join(",")) }
    }

    /// Requests `apart` seconds from each other, compared with a row of answers.
    fn shows(&self, expected: &str, dead: &[&str], apart: u64) {
        self.shows_from(1_000_000, expected, dead, apart);
    }

    fn shows_from(&self, start: u64, expected: &str, dead: &[&str], apart: u64) {
        let count = expected.split(' ').filter(|word| !word.ends_with(')')).count();
        let seen: Vec<_> = (0..count as u64).map(|n| self.request(start + n * apart * 1000, dead)).collect();
        assert_eq!(seen.join(" "), expected);
    }
}

const API: [(u32, bool, &[&str]); 2] = [(4, false, &["api"]), (6, false, &["api2"])];
const MULT: [(u32, bool, &[&str]); 3] = [(3, false, &["A"]), (1, false, &["B"]), (1, true, &["bk"])];
const V6: [&str; 3] = ["6:8000", "6:8001", "6:8002"];

#[test]
fn weights_are_kept_in_every_ten() {
    let ten = "api2 api api2 api api2 api2 api api2 api api2";
    case(&API).shows(&[ten, ten].join(" "), &[], 0);
}

#[test]
fn three_to_one_with_a_backup_that_is_never_asked() {
    case(&MULT).shows("A A B A A A B A A A B A", &[], 0);
}

#[test]
fn equal_servers_take_turns() {
    Case::equal(&["p1", "p2"]).shows("p1 p2 p1 p2 p1 p2", &[], 0);
    Case::equal(&["1", "2", "3"]).shows("1 2 3 1 2 3 1 2 3", &[], 0);
}

#[test]
fn a_dead_server_costs_one_try_and_is_left_alone_for_ten_seconds() {
    case(&MULT).shows("B(after A) B B B B B B B B B B B", &["A"], 0);
    // A is asked late after its ten seconds: its effective weight has to grow from 0 first.
    case(&MULT).shows("B(after A) B B B B B B B B(after A) B B B B B B B B(after A) B B B", &["A"], 2);
    Case::equal(&["1111", "2222", "3333"]).shows(
        "1111 3333(after 2222) 3333 1111 3333 1111 3333 1111 3333",
        &["2222"],
        0,
    );
    case(&API).shows("api2 api2(after api) api2 api2 api2 api2 api2 api2 api2 api2", &["api"], 0);
    case(&API).shows("api2 api2(after api) api2 api2 api2 api2 api2 api2 api2(after api) api2", &["api"], 4);
}

#[test]
fn the_backup_answers_when_all_primaries_are_dead() {
    case(&MULT).shows("bk(after A,B) bk bk bk bk bk", &["A", "B"], 0);
}

#[test]
fn when_everybody_is_dead_nobody_is_asked_again() {
    Case::equal(&["a", "b"]).shows("502(after a,b) 502 502 502", &["a", "b"], 0);
}

#[test]
fn a_server_that_returns_gets_its_weight_back_step_by_step() {
    let case = case(&API);
    case.shows("api2 api2(after api) api2 api2 api2 api2 api2 api2 api2 api2", &["api"], 0);
    let ramp = "api2 api2 api2 api2 api api2 api api2 api2 api api2 api api2 api2 api api2 api api2 api2 api";
    case.shows_from(1_012_000, ramp, &[], 0);
}

#[test]
fn a_name_with_two_addresses_makes_two_peers() {
    let dual: [(u32, bool, &[&str]); 3] =
        [(1, false, &["1111", "1111"]), (1, false, &["2222", "2222"]), (1, false, &["3333", "3333"])];
    case(&dual).shows("1111 1111 2222 2222 3333 3333 1111 1111 2222 2222 3333 3333", &[], 0);
}

#[test]
fn addresses_that_refuse_turn_the_order_around() {
    let first: [(u32, bool, &[&str]); 3] =
        [(1, false, &["6:8000", "1"]), (1, false, &["6:8001", "2"]), (1, false, &["6:8002", "3"])];
    case(&first).shows("1(after 6:8000) 2(after 6:8001) 3(after 6:8002) 3 2 1 3 2 1 3 2 1 3 2 1", &V6, 0);
    case(&first).shows(
        "1(after 6:8000) 2(after 6:8001) 3(after 6:8002) 3 2 1 3 2 1(after 6:8002) \
         3(after 6:8001,6:8000) 2 1 3 2 1 3 2(after 6:8000,6:8001,6:8002) 1 3 2",
        &V6,
        4,
    );
    let last: [(u32, bool, &[&str]); 3] =
        [(1, false, &["1", "6:8000"]), (1, false, &["2", "6:8001"]), (1, false, &["3", "6:8002"])];
    case(&last).shows("1 2(after 6:8000) 3(after 6:8001) 3(after 6:8002) 2 1 3 2 1 3 2 1 3 2 1", &V6, 0);
}
