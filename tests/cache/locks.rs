//! `proxy_cache_lock`: of many requests for what is not there yet one fetches it, and the others wait.

use super::{Gate, KEPT, OLD, Site, begin, seen, text};
use crate::support::backend::Reply;
use crate::support::client::Connection;
use crate::support::replaced;
use crate::support::wait::{SOON, until};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Each request is held until its own gate is opened, and told its number.
fn numbered<const N: usize>(
    gates: [&Gate; N],
    fields: &'static str,
) -> impl Fn(&crate::support::backend::Received) -> Reply + use<N> {
    let (gates, count) = (gates.map(Gate::clone), AtomicUsize::new(0));
    move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        gates[number.min(gates.len() - 1)].pass();
        text("200 OK", fields, &(number + 1).to_string())
    }
}

fn answers(connections: Vec<Connection>) -> Vec<String> {
    let mut all: Vec<_> = connections.into_iter().map(|mut connection| seen(&connection.answer("GET"))).collect();
    all.sort();
    all
}

#[test]
fn of_many_that_ask_at_once_one_reaches_the_upstream() {
    for threads in [1, 3] {
        let gate = Gate::default();
        let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; location / { \
                    proxy_cache z; proxy_cache_lock on; proxy_cache_lock_timeout 1h; proxy_cache_lock_age 1h; \
                    proxy_pass http://%ORIGIN%; } }";
        let site = match threads {
            1 => Site::of(conf, numbered([&gate], KEPT)),
            _ => Site::threaded(conf, numbered([&gate], KEPT)),
        };
        let all: Vec<_> = (0..20).map(|_| begin(site.port, "/")).collect();
        site.origin.has(1);
        gate.open();
        let mut expected = vec!["200 HIT 1".to_owned(); 19];
        expected.push("200 MISS 1".into());
        assert_eq!(answers(all), expected);
        assert_eq!(site.origin.hits(), 1);
    }
}

#[test]
fn without_a_lock_all_of_them_do() {
    let gate = Gate::default();
    let site = Site::new("", "", numbered([&gate], KEPT));
    let all: Vec<_> = (0..5).map(|_| begin(site.port, "/")).collect();
    site.origin.has(5);
    gate.open();
    assert!(answers(all).iter().all(|answer| answer.starts_with("200 MISS ")));
}

#[test]
fn who_has_waited_long_enough_asks_for_itself_alone() {
    let gates = [Gate::default(), Gate::default(), Gate::default()];
    let location = "proxy_cache_lock on; proxy_cache_lock_timeout 100ms; proxy_cache_lock_age 1h;";
    let site = Site::new("", location, numbered(gates.each_ref(), KEPT));
    let mut first = begin(site.port, "/");
    site.origin.has(1);
    gates[1].open();
    gates[2].open();
    // Not kept: the next one waits, too.
    assert_eq!(site.see("/"), "200 MISS 2");
    assert_eq!(site.see("/"), "200 MISS 3");
    assert!(site.server.error_log().contains("cache lock timeout"));
    gates[0].open();
    assert_eq!(seen(&first.answer("GET")), "200 MISS 1");
    site.comes_to("/", "200 HIT 1");
    assert_eq!(site.origin.hits(), 3);
}

#[test]
fn a_lock_that_is_too_old_is_anybodys() {
    let gates = [Gate::default(), Gate::default()];
    let location = "proxy_cache_lock on; proxy_cache_lock_timeout 1h; proxy_cache_lock_age 100ms;";
    let site = Site::new("", location, numbered(gates.each_ref(), KEPT));
    let mut first = begin(site.port, "/");
    site.origin.has(1);
    gates[1].open();
    assert_eq!(site.see("/"), "200 MISS 2");
    site.comes_to("/", "200 HIT 2");
    gates[0].open();
    assert_eq!(seen(&first.answer("GET")), "200 MISS 1");
    site.comes_to("/", "200 HIT 1");
}

#[test]
fn when_the_one_that_fetches_it_fails_the_next_one_does() {
    let gate = Gate::default();
    let (held, count) = (gate.clone(), AtomicUsize::new(0));
    let location = "proxy_cache_lock on; proxy_cache_lock_timeout 1h; proxy_cache_lock_age 1h;";
    let site = Site::new("", location, move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => {
            held.pass();
            Reply::Close
        }
        1 => text("200 OK", "", "not to be kept"),
        _ => text("200 OK", KEPT, "here it is"),
    });
    let mut first = begin(site.port, "/");
    site.origin.has(1);
    let others: Vec<_> = (0..4).map(|_| begin(site.port, "/")).collect();
    gate.open();
    assert_eq!(first.answer("GET").status, 502);
    let expected = ["200 HIT here it is", "200 HIT here it is", "200 MISS here it is", "200 MISS not to be kept"];
    assert_eq!(answers(others), expected);
    assert_eq!(site.origin.hits(), 3);
}

#[test]
fn a_client_that_leaves_does_not_take_the_lock_with_it() {
    // nginx forgets an answer whose client has left before it began.
    if replaced() {
        return;
    }
    let gate = Gate::default();
    let location = "proxy_cache_lock on; proxy_cache_lock_timeout 1h; proxy_cache_lock_age 1h;";
    let site = Site::new("", location, numbered([&gate], KEPT));
    let first = begin(site.port, "/");
    site.origin.has(1);
    let mut second = begin(site.port, "/");
    drop(begin(site.port, "/"));
    drop(first);
    gate.open();
    assert_eq!(seen(&second.answer("GET")), "200 HIT 1");
    assert_eq!(site.origin.hits(), 1);
}

#[test]
fn nobody_waits_for_what_is_only_too_old() {
    let site = Site::new("", "proxy_cache_lock on; proxy_cache_lock_timeout 1h;", |_| text("200 OK", OLD, "1"));
    assert_eq!(site.see("/"), "200 MISS 1");
    let gate = Gate::default();
    let held = gate.clone();
    site.origin.answers(move |_| {
        held.pass();
        text("200 OK", KEPT, "new")
    });
    let all: Vec<_> = (0..3).map(|_| begin(site.port, "/")).collect();
    until("all have reached the upstream", SOON, || site.origin.hits() == 4);
    gate.open();
    assert_eq!(answers(all), ["200 EXPIRED new", "200 EXPIRED new", "200 EXPIRED new"]);
}
