//! Changes under load: no request fails, whatever is changed meanwhile.

use super::{Api, send};
use crate::support::backend::Backend;
use crate::support::client::Connection;
use crate::support::replaced;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

#[test]
fn no_request_fails_while_servers_come_and_go_and_the_server_is_reloaded() {
    if replaced() {
        return;
    }
    let seconds = std::env::var("TIDEGATE_LOAD_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
    let peers = ["a", "b", "c"].map(Backend::named);
    let api = Api::new(
        &format!("upstream app {{ zone app 64k; server {} max_fails=0; }}", peers[0].address()),
        "location / { proxy_pass http://app; }",
    );
    let (over, asked, changed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
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
        for peer in &peers[1..] {
            let (over, changed) = (&over, &changed);
            scope.spawn(move || {
                let servers = "/api/9/http/upstreams/app/servers/";
                while !over.load(SeqCst) {
                    let said =
                        send(api.port, "POST", servers, &json!({ "server": peer.address().to_string() }).to_string());
                    assert_eq!(said.status, 201, "{}", said.body);
                    let own = format!("{servers}{}", said.body["id"]);
                    for body in
                        ["{\"weight\":5}", "{\"drain\":true}", "{\"down\":false,\"max_conns\":100}", "{\"down\":true}"]
                    {
                        assert_eq!(send(api.port, "PATCH", &own, body).status, 200);
                    }
                    assert_eq!(send(api.port, "DELETE", &own, "").status, 200);
                    changed.fetch_add(6, SeqCst);
                }
            });
        }
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(seconds) {
            std::thread::sleep(Duration::from_millis(200));
            api.server.reload();
        }
        over.store(true, SeqCst);
    });
    let (asked, changed) = (asked.into_inner(), changed.into_inner());
    eprintln!("{asked} requests and {changed} changes in {seconds} s");
    assert!(asked > 100 && changed > 60, "{asked} requests, {changed} changes");
    assert_eq!(api.servers("app"), format!("0:{}*1", peers[0].address()));
}
