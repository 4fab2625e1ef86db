//! Servers that are added, changed and removed while others ask.

use super::{Api, send};
use crate::support::backend::{Backend, Reply};
use crate::support::client::{Connection, Request, ask};
use crate::support::{replaced, wait};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::mpsc;

const SERVERS: &str = "/http/upstreams/app/servers/";

fn proxy(http: &str) -> Api {
    Api::new(http, "location / { proxy_pass http://app; }")
}

fn added(address: impl std::fmt::Display) -> String {
    json!({ "server": address.to_string() }).to_string()
}

/// Whom so many requests went to.
fn shares(port: u16, count: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    let mut connection = Connection::open(port);
    for _ in 0..count {
        *shares.entry(connection.get("/").text()).or_default() += 1;
    }
    shares
}

fn is(shares: &BTreeMap<String, usize>, expected: &[(&str, usize)]) -> bool {
    shares.iter().map(|(name, count)| (&**name, *count)).eq(expected.iter().copied())
}

#[test]
fn a_server_is_added_weighed_drained_taken_down_and_removed() {
    if replaced() {
        return;
    }
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let api = proxy(&format!("upstream app {{ zone app 64k; server {}; }}", a.address()));
    let said =
        api.send("POST", SERVERS, &json!({ "server": b.address().to_string(), "weight": 3, "route": "r" }).to_string());
    assert_eq!((said.status, &said.body["id"], &said.body["weight"]), (201, &1.into(), &3.into()), "{}", said.body);
    let place = said.answer.header("Location").unwrap().to_owned();
    assert!(place.ends_with("/api/9/http/upstreams/app/servers/1/"), "{place}");
    assert_eq!(said.body, api.get(&format!("{SERVERS}1")));
    assert!(is(&shares(api.port, 8), &[("a", 2), ("b", 6)]));
    assert_eq!(api.send("POST", SERVERS, &added(b.address())).fault(), (409, "EntryExists"));

    let patch = |body: &str| {
        let said = api.send("PATCH", &format!("{SERVERS}1"), body);
        assert_eq!(said.status, 200, "{}", said.body);
        said.body
    };
    assert_eq!(patch("{\"weight\":1}")["weight"], 1);
    assert!(is(&shares(api.port, 8), &[("a", 4), ("b", 4)]));
    assert_eq!(patch("{\"drain\":true}")["drain"], true);
    assert_eq!(api.get("/http/upstreams/app")["peers"][1]["state"], "draining");
    assert!(is(&shares(api.port, 4), &[("a", 4)]));
    assert_eq!(patch("{\"down\":true}")["down"], true);
    assert_eq!(api.get("/http/upstreams/app")["peers"][1]["state"], "down");
    assert!(is(&shares(api.port, 4), &[("a", 4)]));
    patch(
        "{\"down\":false,\"id\":1,\"backup\":false,\"max_fails\":3,\"fail_timeout\":\"1m\",\"slow_start\":\"500ms\"}",
    );
    let server = api.get(&format!("{SERVERS}1"));
    assert_eq!(
        (&server["max_fails"], &server["fail_timeout"], &server["slow_start"]),
        (&3.into(), &"60s".into(), &"500ms".into())
    );
    assert!(is(&shares(api.port, 8), &[("a", 4), ("b", 4)]));

    let said = api.send("DELETE", &format!("{SERVERS}1"), "");
    assert_eq!((said.status, super::shown(&said.body)), (200, format!("0:{}*1", a.address())));
    assert!(is(&shares(api.port, 4), &[("a", 4)]));
    assert_eq!(api.send("POST", SERVERS, &added(b.address())).body["id"], 2, "numbers are not given again");
    for id in [0, 2] {
        assert_eq!(api.send("DELETE", &format!("{SERVERS}{id}"), "").status, 200);
    }
    assert_eq!(api.servers("app"), "");
    assert_eq!(ask(api.port, &Request::get("/")).status, 502);
}

#[test]
fn what_is_wrong_with_a_change_is_told_by_its_code_and_changes_nothing() {
    if replaced() {
        return;
    }
    let api = proxy(
        "upstream app { zone app 64k; server 127.0.0.1:1; server 127.0.0.1:2 backup; } \
         upstream hashed { zone hashed 64k; ip_hash; server 127.0.0.1:1; } upstream fixed { server 127.0.0.1:1; }",
    );
    let before = (api.servers("app"), api.servers("hashed"));
    for (method, path, body, status, code) in [
        ("POST", SERVERS, "{", 415, "JsonError"),
        ("POST", SERVERS, "[]", 400, "UpstreamConfFormatError"),
        ("POST", SERVERS, "{}", 400, "UpstreamConfFormatError"),
        ("POST", SERVERS, "{\"server\":{}}", 400, "UpstreamConfFormatError"),
        ("POST", SERVERS, "{\"server\":\"127.0.0.1:3\",\"wait\":1}", 400, "UpstreamConfFormatError"),
        ("POST", SERVERS, "{\"server\":\"127.0.0.1:3\",\"weight\":\"1\"}", 400, "UpstreamConfFormatError"),
        ("POST", SERVERS, "{\"server\":\"127.0.0.1:99999\"}", 400, "UpstreamBadAddress"),
        ("POST", SERVERS, "{\"server\":\"app.example:80\"}", 400, "UpstreamConfNoResolver"),
        ("POST", SERVERS, "{\"server\":\"127.0.0.1:3\",\"service\":\"\"}", 400, "UpstreamBadService"),
        ("POST", SERVERS, "{\"server\":\"127.0.0.1:3\",\"weight\":0}", 400, "UpstreamBadWeight"),
        ("POST", SERVERS, "{\"server\":\"127.0.0.1:3\",\"max_conns\":-1}", 400, "UpstreamBadMaxConns"),
        ("POST", SERVERS, "{\"server\":\"127.0.0.1:3\",\"max_fails\":-1}", 400, "UpstreamBadMaxFails"),
        ("POST", SERVERS, "{\"server\":\"127.0.0.1:3\",\"fail_timeout\":\"x\"}", 400, "UpstreamBadFailTimeout"),
        ("POST", SERVERS, "{\"server\":\"127.0.0.1:3\",\"slow_start\":\"x\"}", 400, "UpstreamBadSlowStart"),
        ("POST", SERVERS, "{\"server\":\"127.0.0.1:1\"}", 409, "EntryExists"),
        (
            "POST",
            "/http/upstreams/hashed/servers",
            "{\"server\":\"127.0.0.1:3\",\"backup\":true}",
            400,
            "UpstreamNoBackup",
        ),
        ("POST", "/http/upstreams/fixed/servers", "{}", 400, "UpstreamStatic"),
        ("POST", "/http/upstreams/none/servers", "{}", 404, "UpstreamNotFound"),
        ("PATCH", "/http/upstreams/app/servers/0", "", 415, "JsonError"),
        ("PATCH", "/http/upstreams/app/servers/9", "{}", 404, "UpstreamServerNotFound"),
        ("PATCH", "/http/upstreams/app/servers/x", "{}", 400, "UpstreamBadServerId"),
        ("PATCH", "/http/upstreams/app/servers/0", "{\"backup\":true}", 400, "UpstreamConfFormatError"),
        ("PATCH", "/http/upstreams/app/servers/0", "{\"server\":\"127.0.0.1:2\"}", 409, "EntryExists"),
        ("DELETE", "/http/upstreams/app/servers/9", "", 404, "UpstreamServerNotFound"),
        ("DELETE", "/http/upstreams/app/servers/x", "", 400, "UpstreamBadServerId"),
        ("DELETE", "/http/upstreams/fixed/servers/0", "", 400, "UpstreamStatic"),
        ("POST", "/http/keyvals/x", "{}", 404, "KeyvalNotFound"),
    ] {
        assert_eq!(api.send(method, path, body).fault(), (status, code), "{method} {path} {body}");
    }
    assert_eq!((api.servers("app"), api.servers("hashed")), before);
    let long = format!("{{\"server\":\"{}\"}}", "x".repeat(100_000));
    let answer = ask(api.port, &Request::post(&format!("/api/9{SERVERS}"), "application/json", long));
    assert_eq!(answer.status, 413, "a body is bounded by client_body_buffer_size");
}

#[test]
fn a_removed_server_answers_what_it_was_asked_before() {
    if replaced() {
        return;
    }
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let slow = Backend::start(move |_| {
        // Ends when the other side does, too.
        let _ = gate.lock().unwrap().recv();
        Reply::Text("slow".into())
    });
    let quick = Backend::named("quick");
    let api = proxy(&format!("upstream app {{ zone app 64k; server {}; }}", slow.address()));
    let mut waiting = Connection::open(api.port);
    waiting.send(Request::get("/").bytes());
    wait::until("it was asked", wait::SOON, || slow.hits() == 1);
    assert_eq!(api.send("POST", SERVERS, &added(quick.address())).status, 201);
    assert_eq!(api.send("DELETE", &format!("{SERVERS}0"), "").status, 200);
    assert_eq!(api.get("/http/upstreams/app")["zombies"], 1);
    assert_eq!(ask(api.port, &Request::get("/")).text(), "quick");
    open.send(()).unwrap();
    assert_eq!(waiting.answer("GET").text(), "slow");
    wait::until("nobody is asked any more", wait::SOON, || api.get("/http/upstreams/app")["zombies"] == 0);
}

#[test]
fn changes_outlive_a_reload_until_other_servers_are_written() {
    if replaced() {
        return;
    }
    let (a, b, c) = (Backend::named("a"), Backend::named("b"), Backend::named("c"));
    let http = |servers: &str| format!("upstream app {{ zone app 64k; {servers} }}");
    let one = http(&format!("server {};", a.address()));
    let api = proxy(&one);
    assert_eq!(api.send("POST", SERVERS, &added(b.address())).status, 201);
    assert_eq!(api.send("PATCH", &format!("{SERVERS}0"), "{\"weight\":2}").status, 200);
    let servers = format!("0:{}*2 1:{}*1", a.address(), b.address());
    for _ in 0..3 {
        api.server.reload();
        assert_eq!(api.servers("app"), servers);
    }
    assert!(is(&shares(api.port, 6), &[("a", 4), ("b", 2)]));
    // Counters go on, too.
    assert_eq!(api.get("/http/upstreams/app")["peers"][1]["requests"], 2);

    let two = http(&format!("server {}; server {};", a.address(), c.address()));
    api.server.rewrite(&Api::body(api.port, &two, "location / { proxy_pass http://app; }"));
    api.server.reload();
    let now = api.servers("app");
    let expected = format!("0:{}*1 1:{}*1 2:{}*1", a.address(), c.address(), b.address());
    assert_eq!(now, expected, "what is written is as it is written; who was added stays");
    assert_eq!(send(api.port, "GET", "/api/9/nginx?fields=generation", "").body["generation"], 5);
}

#[test]
fn the_place_of_what_was_made_is_a_link_whatever_the_path_holds() {
    if replaced() {
        return;
    }
    let api = Api::new("upstream 'a b' { zone z 64k; server 127.0.0.1:1; }", "location ~ /any { api write=on; }");
    let target = "/x%0d%0ay/any/9/http/upstreams/a%20b/servers";
    let said = send(api.port, "POST", target, &added("127.0.0.1:2"));
    let place = "http://localhost/x%0D%0Ay/any/9/http/upstreams/a%20b/servers/1/";
    let without_port = said.answer.header("Location").unwrap().replace(&format!(":{}", api.port), "");
    assert_eq!((said.status, &*without_port), (201, place));
}
