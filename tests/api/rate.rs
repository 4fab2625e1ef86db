//! So many changes a second under load, evenly: no request fails, and nothing of the state is torn.
//!
//! `TIDEGATE_API_RATE=1000 TIDEGATE_LOAD_SECONDS=10 cargo test --release -- api::rate --nocapture` is the long form.

use super::{Api, send};
use crate::support::backend::Backend;
use crate::support::client::{Connection, Request};
use crate::support::component::need;
use crate::support::{machine, replaced, setting, wait, wrk};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// How many clients make the changes, each with servers of its own.
const CLIENTS: u32 = 40;

#[test]
fn so_many_changes_a_second_fail_no_request() {
    changes("");
}

#[test]
fn so_many_changes_a_second_fail_no_request_where_each_is_kept_in_a_file() {
    changes("state app.conf;");
}

fn changes(state: &str) {
    if replaced() || !need(&["wrk"]) {
        return;
    }
    let _machine = machine();
    let rate: u32 = setting("TIDEGATE_API_RATE").unwrap_or(200);
    let seconds: u32 = setting("TIDEGATE_LOAD_SECONDS").unwrap_or(2);
    let peer = Backend::named("peer");
    let first = if state.is_empty() { format!("server {} max_fails=0;", peer.address()) } else { String::new() };
    let api =
        Api::new(&format!("upstream app {{ zone app 1m; {state} {first} }}"), "location / { proxy_pass http://app; }");
    let (port, servers) = (api.port, "/api/9/http/upstreams/app/servers/");
    if !state.is_empty() {
        let body = format!("{{\"server\":\"{}\",\"max_fails\":0}}", peer.address());
        assert_eq!(send(api.port, "POST", servers, &body).status, 201);
    }
    let done = AtomicUsize::new(0);
    let (mut wrk, began) = (wrk::start(port, &["-c16", &format!("-d{seconds}s")]), Instant::now());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let done = &done;
            scope.spawn(move || {
                let mut connection = Connection::open(port);
                let mut ask = |method: &str, target: &str, body: &str, status: u16| {
                    let request = Request::post(target, "application/json", body).with_method(method);
                    let answer = connection.ask(&request).expect(status).json();
                    let turn = done.fetch_add(1, SeqCst) as u64 + 1;
                    // Changes have their times over all clients together.
                    let due = Duration::from_micros(turn * 1_000_000 / u64::from(rate));
                    std::thread::sleep(due.saturating_sub(began.elapsed()));
                    answer
                };
                // Nobody is there: it is down from the beginning, or a request would have to try it.
                let body = format!("{{\"server\":\"127.0.1.{}:1\",\"down\":true}}", client + 1);
                while began.elapsed() < Duration::from_secs(seconds.into()) {
                    let own = format!("{servers}{}", ask("POST", servers, &body, 201)["id"]);
                    for weight in 1..6 {
                        ask("PATCH", &own, &format!("{{\"weight\":{weight}}}"), 200);
                    }
                    ask("DELETE", &own, "", 200);
                }
            });
        }
    });
    let took = began.elapsed();
    wait::until("wrk has ended", wait::SOON, || !wrk.running());
    let report = wrk.stdout();
    let done = done.into_inner();
    eprintln!("{done} changes in {took:?} {state:?}\n{report}");
    assert!(!report.contains("Non-2xx") && !report.contains("Socket errors"), "{report}");
    assert_eq!(api.servers("app"), format!("0:{}*1", peer.address()));
    if !state.is_empty() {
        assert_eq!(api.server.dir().read("app.conf"), format!("server {} max_fails=0;\n", peer.address()));
    }
    assert!(!api.server.error_log().contains("[alert]"), "{}", api.server.error_log());
}
