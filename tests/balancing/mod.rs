//! Balancing where time, threads and reloads matter: limits over all threads, queues, sessions, connections of a location's own.

mod load;

use crate::support::backend::{Backend, Reply};
use crate::support::client::{Connection, Request};
use crate::support::ports::free_port;
use crate::support::server::Server;
use crate::support::{replaced, wait};
use std::sync::{Arc, Condvar, Mutex};

/// A peer that answers when it is told to.
struct Held {
    backend: Backend,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

impl Held {
    fn new() -> Self {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let own = Arc::clone(&gate);
        let backend = Backend::start(move |_| {
            let (open, changed) = &*own;
            drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
            Reply::Text("held".into())
        });
        Self { backend, gate }
    }

    fn let_go(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }
}

fn ask(port: u16, count: usize) -> Vec<Connection> {
    let one = |_| {
        let mut connection = Connection::open(port);
        connection.send(Request::get("/").bytes());
        connection
    };
    (0..count).map(one).collect()
}

/// How many were answered with 200; all others with 502.
fn served(connections: Vec<Connection>) -> usize {
    let statuses = connections.into_iter().map(|mut connection| connection.answer("GET").status);
    let statuses: Vec<_> = statuses.collect();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 502)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

#[test]
fn max_conns_holds_over_all_threads() {
    let (peer, port) = (Held::new(), free_port());
    let _server = Server::threaded(
        port,
        &format!(
            "upstream u {{ zone z 64k; server {} max_conns=3; }} \
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u; }} }}",
            peer.backend.address()
        ),
    );
    let first = ask(port, 3);
    wait::until("three are under way", wait::SOON, || peer.backend.hits() == 3);
    assert_eq!(served(ask(port, 9)), 0);
    peer.let_go();
    assert_eq!((served(first), served(ask(port, 3))), (3, 3));
}

#[test]
fn a_queue_holds_so_many_requests_until_a_peer_is_free() {
    if replaced() {
        return;
    }
    let (peer, port) = (Held::new(), free_port());
    let _server = Server::threaded(
        port,
        &format!(
            "upstream u {{ server {} max_conns=1; queue 2; }} \
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u; }} }}",
            peer.backend.address()
        ),
    );
    let first = ask(port, 1);
    wait::until("one is under way", wait::SOON, || peer.backend.hits() == 1);
    let mut others = ask(port, 5);
    // Those beyond the queue are refused at once, the others not before the peer is free.
    std::thread::scope(|scope| {
        let answers: Vec<_> =
            others.iter_mut().map(|connection| scope.spawn(|| connection.answer("GET").status)).collect();
        wait::until("three are refused", wait::SOON, || {
            answers.iter().filter(|answer| answer.is_finished()).count() == 3
        });
        peer.let_go();
        let mut statuses: Vec<_> = answers.into_iter().map(|answer| answer.join().unwrap()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 200, 502, 502, 502]);
    });
    assert_eq!(served(first), 1);
}

#[test]
fn nobody_waits_in_a_queue_beyond_its_timeout() {
    if replaced() {
        return;
    }
    let (peer, port) = (Held::new(), free_port());
    let server = Server::threaded(
        port,
        &format!(
            "upstream u {{ server {} max_conns=1; queue 9 timeout=100ms; }} \
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u; }} }}",
            peer.backend.address()
        ),
    );
    let first = ask(port, 1);
    wait::until("one is under way", wait::SOON, || peer.backend.hits() == 1);
    assert_eq!(served(ask(port, 4)), 0);
    assert!(server.error_log().contains("upstream queue timed out while connecting to upstream"));
    peer.let_go();
    assert_eq!(served(first), 1);
}

#[test]
fn sessions_that_were_learned_outlive_a_reload() {
    if replaced() {
        return;
    }
    let peer = |name: &'static str| {
        Backend::start(move |request| {
            let cookie = if request.target() == "/new" { "Set-Cookie: id=one\r\n" } else { "" };
            Reply::Keep(format!("HTTP/1.1 200 OK\r\n{cookie}Content-Length: {}\r\n\r\n{name}", name.len()).into())
        })
    };
    let (a, b, port) = (peer("a"), peer("b"), free_port());
    let body = format!(
        "upstream u {{ server {}; server {}; \
         sticky learn zone=sessions:64k create=$upstream_cookie_id lookup=$cookie_id; }} \
         server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u; }} }}",
        a.address(),
        b.address()
    );
    let server = Server::threaded(port, &body);
    let ask = |path: &str, cookie: &str| {
        Connection::open(port).ask(&Request::get(path).header("Cookie", cookie)).expect(200).text()
    };
    let first = ask("/new", "id=none");
    server.reload();
    for _ in 0..5 {
        assert_eq!(ask("/", "id=one"), first);
    }
    let strangers: Vec<_> = (0..4).map(|_| ask("/", "id=two")).collect();
    assert!(strangers.contains(&"a".to_owned()) && strangers.contains(&"b".to_owned()), "{strangers:?}");
}

#[test]
fn a_switched_connection_keeps_its_peer_in_use() {
    let echo = || Backend::start(|_| Reply::UpgradeAndEcho);
    let (a, b, port) = (echo(), echo(), free_port());
    let _server = Server::threaded(
        port,
        &format!(
            "upstream u {{ zone z 64k; server {} max_conns=1; server {} max_conns=1; }} \
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u; proxy_http_version 1.1; \
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }}",
            a.address(),
            b.address()
        ),
    );
    let switch = || {
        let mut connection = Connection::open(port);
        let request = Request::get("/").header("Upgrade", "echo").header("Connection", "upgrade");
        (connection.ask(&request).status, connection)
    };
    let (first, second) = (switch(), switch());
    assert_eq!((first.0, second.0, switch().0), (101, 101, 502));
    drop(first);
    wait::until("its peer is free", wait::SOON, || switch().0 == 101);
    drop(second);
}

#[test]
fn a_kept_connection_serves_the_location_it_was_opened_for() {
    // nginx has it since 1.29.
    if replaced() {
        return;
    }
    for (keepalive, connections) in [("", 2), ("keepalive 8 local;", 2), ("keepalive 8;", 1), ("keepalive 0;", 6)] {
        let (peer, port) = (Backend::named("a"), free_port());
        let _server = Server::http(
            port,
            &format!(
                "upstream u {{ server {}; {keepalive} }} server {{ listen 127.0.0.1:{port}; \
                 location /a {{ proxy_pass http://u; }} location /b {{ proxy_pass http://u; }} }}",
                peer.address()
            ),
        );
        let mut client = Connection::open(port);
        for path in ["/a", "/b", "/a", "/b", "/a", "/b"] {
            client.get(path).expect(200);
        }
        assert_eq!(peer.connections(), connections, "{keepalive}");
    }
}
