//! The logs, as a user reads them.

mod syslog;

use crate::support::backend::Backend;
use crate::support::client::Connection;
use crate::support::ports::free_port;
use crate::support::replaced;
use crate::support::server::Server;

#[test]
fn who_asks_for_debug_reads_each_step_and_who_stops_asking_reads_no_more() {
    // nginx says other things, and only if it was built to.
    if replaced() {
        return;
    }
    let peer = Backend::named("peer");
    let port = free_port();
    let body = |level: &str| {
        format!(
            "error_log error.log {level}; upstream u {{ server {}; }}\n\
             server {{ listen 127.0.0.1:{port}; location /api/ {{ proxy_pass http://u; }} }}",
            peer.address()
        )
    };
    let server = Server::http(port, &body("debug"));
    assert_eq!(Connection::open(port).get("/api/x").status, 200);
    let log = server.error_log();
    for step in [
        " location chosen, uri: \"/api/x\", location: \"/api/\"".to_owned(),
        format!(" peer chosen, upstream: \"u\", peer: \"{}\"", peer.address()),
        " answer's head read, status: \"200\"".to_owned(),
    ] {
        let line = log.lines().find(|line| line.contains(&step)).unwrap_or_else(|| panic!("no {step} in {log}"));
        assert!(line.contains(" [debug] ") && line.contains(": *"), "{line}");
    }
    assert!(!log.contains("hyper"), "{log}");
    server.rewrite(&body("info"));
    server.reload();
    let before = server.error_log().matches("[debug]").count();
    assert_eq!(Connection::open(port).get("/api/y").status, 200);
    assert_eq!(server.error_log().matches("[debug]").count(), before);
}
