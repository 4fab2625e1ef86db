//! Changes under load: no request fails, whatever is changed meanwhile.

use super::{Api, send};
use crate::support::backend::Backend;
use crate::support::client::Connection;
use crate::support::{machine, replaced, setting};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

#[test]
fn no_request_fails_while_servers_come_and_go_and_the_server_is_reloaded() {
    if replaced() {
        return;
    }
    let _machine = machine();
    let rounds = setting("TIDEGATE_API_ROUNDS").unwrap_or(30);
    let peers = ["a", "b", "c"].map(Backend::named);
    let api = Api::new(
        &format!("upstream app {{ zone app 64k; server {} max_fails=0; }}", peers[0].address()),
        "location / { proxy_pass http://app; }",
    );
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = Connection::open(api.port);
                while !over.load(SeqCst) {
                    let answer = connection.get("/");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    asked.fetch_add(1, SeqCst);
                }
            });
        }
        let changes: Vec<_> = peers[1..].iter().map(|peer| scope.spawn(|| change(api.port, peer, rounds))).collect();
        while !changes.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            api.server.reload();
        }
        over.store(true, SeqCst);
    });
    assert!(asked.into_inner() > 0);
    assert_eq!(api.servers("app"), format!("0:{}*1", peers[0].address()));
}

/// Has a server come, change and go, so many times.
fn change(port: u16, peer: &Backend, rounds: usize) {
    let servers = "/api/9/http/upstreams/app/servers/";
    for _ in 0..rounds {
        let said = send(port, "POST", servers, &json!({ "server": peer.address().to_string() }).to_string());
        assert_eq!(said.status, 201, "{}", said.body);
        let own = format!("{servers}{}", said.body["id"]);
        for body in ["{\"weight\":5}", "{\"drain\":true}", "{\"down\":false,\"max_conns\":100}", "{\"down\":true}"] {
            assert_eq!(send(port, "PATCH", &own, body).status, 200);
        }
        assert_eq!(send(port, "DELETE", &own, "").status, 200);
    }
}
