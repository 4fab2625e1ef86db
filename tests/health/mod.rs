//! Health checks of the running program: peers that fail theirs leave and come back, and a reload knows of them.

mod grpc;

use crate::support::backend::{Backend, Reply};
use crate::support::client::{Connection, Request};
use crate::support::names::Names;
use crate::support::ports::free_port;
use crate::support::server::Server;
use crate::support::{replaced, wait};
use rustix::process::Signal;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};

/// A peer with a name that says of itself whether it is well.
struct Peer {
    backend: Backend,
    well: Arc<AtomicBool>,
}

impl Peer {
    fn new(name: &'static str) -> Self {
        let well = Arc::new(AtomicBool::new(true));
        let own = Arc::clone(&well);
        let backend = Backend::start(move |request| match (request.target(), own.load(SeqCst)) {
            ("/up", true) => Reply::Text("all is well".into()),
            ("/up", false) => Reply::Raw("HTTP/1.1 503 No\r\n\r\nmaintenance".into()),
            _ => Reply::Text(name.into()),
        });
        Self { backend, well }
    }

    fn is(&self, well: bool) {
        self.well.store(well, SeqCst);
    }
}

/// The server's part of a file: what `/` checks, and what else stands in `http`.
fn body(port: u16, servers: &str, check: &str, more: &str) -> String {
    format!(
        "upstream u {{ zone u 64k; {servers} }} {more} \
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u; {check} }} }}"
    )
}

/// Who answers, or the status.
fn ask(port: u16) -> String {
    let answer = Connection::open(port).ask(&Request::get("/"));
    if answer.status == 200 { answer.text() } else { answer.status.to_string() }
}

/// Waits until everybody who answers is one of these.
fn until_only(port: u16, names: &[&str]) {
    wait::until(&format!("only {names:?} answer"), wait::SOON, || {
        let mut seen: Vec<_> = (0..12).map(|_| ask(port)).collect();
        seen.sort();
        seen.dedup();
        seen == names
    });
}

#[test]
fn a_peer_that_fails_its_check_leaves_and_comes_back() {
    if replaced() {
        return;
    }
    let (mut a, b, port) = (Peer::new("a"), Peer::new("b"), free_port());
    let servers = format!("server {}; server {};", a.backend.address(), b.backend.address());
    let server = Server::http(port, &body(port, &servers, "health_check uri=/up interval=50ms;", ""));
    until_only(port, &["a", "b"]);
    b.is(false);
    until_only(port, &["a"]);
    let about = |peer: &Peer| format!("health check \"\" of peer {} in upstream \"u\"", peer.backend.address());
    server.expect_log(&[&format!("peer is unhealthy while checking status code, {}", about(&b))]);
    b.is(true);
    until_only(port, &["a", "b"]);
    server.expect_log(&[&format!("peer is healthy while checking status code, {}", about(&b))]);
    a.backend.kill();
    until_only(port, &["b"]);
    server.expect_log(&[&format!(
        "connect() failed (111: Connection refused) while connecting to upstream, {}",
        about(&a)
    )]);
    server.expect_log(&[&format!("peer is unhealthy while connecting to upstream, {}", about(&a))]);
    // Nobody is asked while nobody is well, not even the last.
    b.is(false);
    until_only(port, &["502"]);
    server.expect_log(&["no live upstreams while connecting to upstream"]);
    a.backend.restart();
    until_only(port, &["a"]);
}

#[test]
fn a_mandatory_peer_waits_until_its_check_has_passed_so_many_times() {
    if replaced() {
        return;
    }
    let (peer, port) = (Peer::new("a"), free_port());
    peer.is(false);
    let servers = format!("server {};", peer.backend.address());
    let check = "health_check uri=/up interval=50ms passes=3 mandatory;";
    let server = Server::http(port, &body(port, &servers, check, ""));
    for _ in 0..5 {
        assert_eq!(ask(port), "502");
    }
    peer.is(true);
    until_only(port, &["a"]);
    let passed = peer.backend.requests().iter().filter(|request| request.target() == "/up").count();
    assert!(passed >= 3, "{passed}");
    server.expect_log(&["peer is healthy while checking status code"]);
}

#[test]
fn what_a_match_says_is_what_counts() {
    if replaced() {
        return;
    }
    let (peer, port) = (Peer::new("a"), free_port());
    let servers = format!("server {};", peer.backend.address());
    let matches = "match fine { status 200-299 503; body !~ maintenance; require $upstream_status; }";
    let check = "proxy_set_header X-Who checker; health_check uri=/up interval=50ms match=fine keepalive_time=1m;";
    let server = Server::http(port, &body(port, &servers, check, matches));
    until_only(port, &["a"]);
    wait::until("it is checked", wait::SOON, || peer.backend.hits() > 15);
    let checks = peer.backend.requests().into_iter().find(|request| request.target() == "/up").unwrap();
    assert_eq!((checks.header("host"), checks.header("x-who")), (Some("u"), Some("checker")));
    peer.is(false);
    until_only(port, &["502"]);
    let text = "peer is unhealthy while checking body, health check \"fine\" of peer";
    server.expect_log(&[text]);
    peer.is(true);
    until_only(port, &["a"]);
}

#[test]
fn a_check_of_another_port_sees_whether_somebody_listens_there() {
    if replaced() {
        return;
    }
    let (peer, mut side, port) = (Peer::new("a"), Peer::new("side"), free_port());
    let servers = format!("server {};", peer.backend.address());
    let check = format!("health_check type=tcp port={} interval=50ms;", side.backend.address().port());
    let server = Server::http(port, &body(port, &servers, &check, ""));
    wait::until("it is checked", wait::SOON, || side.backend.connections() > 2);
    assert_eq!(ask(port), "a");
    side.backend.kill();
    until_only(port, &["502"]);
    let end = format!("in upstream \"u\", port {}", side.backend.address().port());
    server.expect_log(&[&end]);
    side.backend.restart();
    until_only(port, &["a"]);
}

#[test]
fn a_reload_has_peers_checked_again_unless_that_is_persistent() {
    if replaced() {
        return;
    }
    for (persistent, behind) in [("persistent", "a"), ("", "502")] {
        let gate = Arc::new((Mutex::new(true), Condvar::new()));
        let own = Arc::clone(&gate);
        let peer = Backend::start(move |request| {
            if request.target() == "/up" {
                drop(own.1.wait_while(own.0.lock().unwrap(), |open| !*open).unwrap());
            }
            Reply::Text("a".into())
        });
        let port = free_port();
        let text = |mark: &str| {
            let check = format!("health_check uri=/up interval=50ms mandatory {persistent};");
            let servers = format!("server {};", peer.address());
            body(port, &servers, &check, "")
                .replace("server { listen", &format!("server {{ location /mark {{ return 200 {mark}; }} listen"))
        };
        let server = Server::http(port, &text("old"));
        until_only(port, &["a"]);
        *gate.0.lock().unwrap() = false;
        server.rewrite(&text("new"));
        server.reload();
        wait::until("the new generation serves", wait::SOON, || Connection::open(port).get("/mark").text() == "new");
        assert_eq!(ask(port), behind, "{persistent}");
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        until_only(port, &["a"]);
    }
}

#[test]
fn who_was_unhealthy_stays_so_over_a_reload() {
    if replaced() {
        return;
    }
    let (a, b, port) = (Peer::new("a"), Peer::new("b"), free_port());
    let servers = format!("server {}; server {};", a.backend.address(), b.backend.address());
    let text = body(port, &servers, "health_check uri=/up interval=50ms fails=2;", "");
    let server = Server::http(port, &text);
    b.is(false);
    until_only(port, &["a"]);
    server.reload();
    for _ in 0..20 {
        assert_eq!(ask(port), "a");
    }
    // Without the check everybody is asked again.
    server.rewrite(&text.replace("health_check uri=/up interval=50ms fails=2;", ""));
    server.reload();
    until_only(port, &["a", "b"]);
}

#[test]
fn a_server_whose_name_nobody_knows_at_the_start_is_found_later() {
    if replaced() {
        return;
    }
    let (peer, names, port) = (Backend::named("a"), Names::start(), free_port());
    let body = |more: &str| {
        format!(
            "resolver 127.0.0.1:{}; {more} upstream u {{ server later.invalid:{}; }} \
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u; }} }}",
            names.port,
            peer.address().port()
        )
    };
    let server = Server::http(port, &body("resolver_on_start retry;"));
    let warning = format!("[warn] host not found in upstream \"later.invalid:{}\"", peer.address().port());
    let tested = server.cli(&["-t"]);
    assert!(tested.stderr.contains(&warning) && tested.stderr.contains("test is successful"), "{}", tested.stderr);
    assert_eq!(ask(port), "502");
    names.set("later.invalid", Ipv4Addr::LOCALHOST);
    until_only(port, &["a"]);
    server.expect_log(&["later.invalid resolves to 127.0.0.1 now, in upstream \"u\""]);
    // It stays known over a reload, whatever the name server says then.
    names.forget("later.invalid");
    server.signal(Signal::HUP);
    for _ in 0..20 {
        assert_eq!(ask(port), "a");
    }
    // nginx refuses what nobody knows.
    server.rewrite(&body(""));
    let refused = server.cli(&["-t"]);
    assert!(refused.stderr.contains("[emerg] host not found in upstream"), "{}", refused.stderr);
}
