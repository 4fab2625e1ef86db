//! What is there to read, and what each path says to each method.

use super::{Api, send};
use crate::support::backend::Backend;
use crate::support::client::{Request, ask};
use crate::support::replaced;

fn whole(peer: &Backend) -> Api {
    Api::new(
        &format!(
            "limit_conn_zone $uri zone=conns:64k; limit_req_zone $uri zone=reqs:64k rate=1000r/s; \
             resolver 127.0.0.1 status_zone=names; proxy_cache_path kept keys_zone=answers:64k; \
             upstream app {{ zone app 64k; server {}; queue 3; }} upstream fixed {{ server 127.0.0.1:1; }}",
            peer.address()
        ),
        "status_zone front; limit_conn conns 100; limit_req zone=reqs burst=100 nodelay; \
         location / { status_zone main; proxy_pass http://app; }",
    )
}

#[test]
fn every_path_answers_with_its_object_to_get_and_with_its_length_to_head() {
    if replaced() {
        return;
    }
    let peer = Backend::named("peer");
    let api = whole(&peer);
    assert_eq!(ask(api.port, &Request::get("/")).text(), "peer");
    for (path, members) in [
        ("/nginx", "version build address generation load_timestamp timestamp pid ppid"),
        ("/processes", "respawned"),
        ("/connections", "accepted dropped active idle"),
        ("/slabs/", ""),
        ("/http/requests", "total current"),
        ("/http/server_zones/", "front"),
        ("/http/server_zones/front", "processing requests responses discarded received sent"),
        ("/http/location_zones/", "main"),
        ("/http/location_zones/main", "requests responses discarded received sent"),
        ("/http/limit_conns/conns", "passed rejected rejected_dry_run"),
        ("/http/limit_reqs/reqs", "passed delayed rejected delayed_dry_run rejected_dry_run"),
        ("/http/caches/", "answers"),
        ("/http/caches/answers", "size cold hit stale updating revalidated miss expired bypass"),
        ("/http/keyvals/", ""),
        ("/http/upstreams/", "app"),
        ("/http/upstreams/app", "peers keepalive zombies zone queue"),
        (
            "/http/upstreams/app/servers/0",
            "id server weight max_conns max_fails fail_timeout slow_start route backup down",
        ),
        ("/resolvers/names", "requests responses"),
        ("/ssl", "handshakes handshakes_failed session_reuses verify_failures"),
        ("/workers/0", "id pid connections http"),
    ] {
        let value = api.get(path);
        let there = |member: &str| value.get(member).is_some();
        assert!(value.is_object() && members.split_whitespace().all(there), "{path}: {value}");
        let slash = if path.ends_with('/') { path.trim_end_matches('/').to_owned() } else { format!("{path}/") };
        assert!(api.get(&slash).is_object(), "{slash}");
        let target = format!("/api/9{path}");
        let (get, head) = (ask(api.port, &Request::get(&target)), ask(api.port, &Request::new("HEAD", &target)));
        assert_eq!((head.status, &*head.text(), head.header("Content-Type")), (200, "", Some("application/json")));
        assert!(get.header("Content-Length").is_some() && head.header("Content-Length").is_some());
    }
    for (path, list) in [
        ("/", r#"["nginx","processes","connections","slabs","http","resolvers","ssl","workers","stream"]"#),
        ("/stream/", "[]"),
    ] {
        assert_eq!(api.get(path).to_string(), list);
    }
    for path in ["/api", "/api/", "/read/"] {
        assert_eq!(send(api.port, "GET", path, "").body.to_string(), "[1,2,3,4,5,6,7,8,9]", "{path}");
    }
    let peer = &api.get("/http/upstreams/app")["peers"][0];
    assert_eq!(
        (&peer["state"], &peer["requests"], &peer["responses"]["codes"]["200"]),
        (&"up".into(), &1.into(), &1.into())
    );
    assert_eq!(api.get("/http/upstreams/app")["picks"].to_string(), "[0]");
}

#[test]
fn fields_leave_what_is_asked_for() {
    if replaced() {
        return;
    }
    let api = whole(&Backend::named("peer"));
    for (path, text) in [
        ("/nginx?fields=version,nothing", r#"{"version":"1.31.5"}"#),
        ("/processes?fields=", "{}"),
        ("/http/upstreams/?fields=", r#"{"app":{}}"#),
        ("/http/upstreams?fields=zone%2Czombies", r#"{"app":{"zombies":0,"zone":"app"}}"#),
        ("/http/upstreams/app?a=b&fields=zone", r#"{"zone":"app"}"#),
        ("/http/server_zones/?fields=processing", r#"{"front":{"processing":1}}"#),
    ] {
        assert_eq!(api.get(path).to_string(), text, "{path}");
    }
}

#[test]
fn what_is_not_there_says_so_by_its_code() {
    if replaced() {
        return;
    }
    let api = whole(&Backend::named("peer"));
    for (path, status, code) in [
        ("/x", 404, "PathNotFound"),
        ("/http/x", 404, "PathNotFound"),
        ("/nginx/x", 404, "PathNotFound"),
        ("/slabs/x", 404, "SlabNotFound"),
        ("/http/caches/x", 404, "CacheNotFound"),
        ("/http/keyvals/x", 404, "KeyvalNotFound"),
        ("/http/server_zones/x", 404, "ServerZoneNotFound"),
        ("/http/location_zones/x", 404, "LocationZoneNotFound"),
        ("/http/limit_conns/x", 404, "LimitConnNotFound"),
        ("/http/limit_reqs/x", 404, "LimitReqNotFound"),
        ("/http/upstreams/x", 404, "UpstreamNotFound"),
        ("/http/upstreams/127.0.0.1", 404, "UpstreamNotFound"),
        ("/http/upstreams/fixed", 400, "UpstreamStatic"),
        ("/http/upstreams/fixed/servers/", 400, "UpstreamStatic"),
        ("/http/upstreams/app/servers/7", 404, "UpstreamServerNotFound"),
        ("/http/upstreams/app/servers/-1", 400, "UpstreamBadServerId"),
        ("/http/upstreams/app/servers/x", 400, "UpstreamBadServerId"),
        ("/resolvers/x", 404, "ResolverZoneNotFound"),
        ("/workers/x", 404, "WorkerNotFound"),
    ] {
        assert_eq!(api.send("GET", path, "").fault(), (status, code), "{path}");
    }
    for (target, code) in
        [("/api/0/", "UnknownVersion"), ("/api/nginx", "UnknownVersion"), ("/api/8/workers", "PathNotFound")]
    {
        assert_eq!(send(api.port, "GET", target, "").fault(), (404, code), "{target}");
    }
    let old = send(api.port, "GET", "/api/3/x", "").body;
    assert_eq!((&old["path"], &old["method"]), (&"".into(), &"".into()));
    assert!(send(api.port, "GET", "/api/4/x", "").body.get("path").is_none());
}

#[test]
fn a_method_is_disabled_or_unsupported_and_allow_says_what_is_not() {
    if replaced() {
        return;
    }
    let api = whole(&Backend::named("peer"));
    let read = "GET, HEAD, OPTIONS";
    for (method, target, code, allowed) in [
        ("POST", "/read/9/http/upstreams/app/servers/", "MethodDisabled", read),
        ("PATCH", "/read/9/http/upstreams/app/servers/0", "MethodDisabled", read),
        ("DELETE", "/read/9/connections", "MethodDisabled", read),
        ("PUT", "/read/9/connections", "MethodUnsupported", read),
        ("PUT", "/api/9/http/upstreams/app/servers/", "MethodUnsupported", "GET, HEAD, OPTIONS, POST"),
        ("PATCH", "/api/9/http/upstreams/app/servers/", "MethodUnsupported", "GET, HEAD, OPTIONS, POST"),
        ("POST", "/api/9/http/upstreams/app/servers/0", "MethodUnsupported", "GET, HEAD, OPTIONS, PATCH, DELETE"),
        ("DELETE", "/api/9/nginx", "MethodUnsupported", read),
        ("POST", "/api/9/connections", "MethodUnsupported", "GET, HEAD, OPTIONS, DELETE"),
        ("BREW", "/api/9/", "MethodUnsupported", read),
    ] {
        let said = send(api.port, method, target, "");
        assert_eq!((said.fault(), said.answer.header("Allow")), ((405, code), Some(allowed)), "{method} {target}");
        let options = send(api.port, "OPTIONS", target, "");
        assert_eq!((options.status, options.answer.header("Allow")), (204, Some(allowed)), "{target}");
    }
}

#[test]
fn numbers_begin_anew_when_they_are_deleted() {
    if replaced() {
        return;
    }
    let peer = Backend::named("peer");
    let api = whole(&peer);
    for _ in 0..20 {
        assert_eq!(ask(api.port, &Request::get("/")).status, 200);
    }
    for (path, pointer) in [
        ("/http/requests", "/total"),
        ("/connections", "/accepted"),
        ("/http/server_zones/front", "/requests"),
        ("/http/location_zones/main", "/responses/total"),
        ("/http/limit_conns/conns", "/passed"),
        ("/http/limit_reqs/reqs", "/passed"),
        ("/http/upstreams/app", "/peers/0/requests"),
        ("/workers/0", "/http/requests/total"),
    ] {
        let number = |value: serde_json::Value| value.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap();
        let before = number(api.get(path));
        let said = api.send("DELETE", path, "");
        assert_eq!((said.status, said.answer.text().len()), (204, 0), "{path}");
        let after = number(api.get(path));
        // What asks is counted itself.
        assert!(before >= 20 || path == "/workers/0" || path == "/connections", "{path}: {before}");
        assert!(after <= 3, "{path}: {before}, then {after}");
    }
    for path in ["/processes", "/ssl", "/workers/", "/resolvers/names"] {
        assert_eq!(api.send("DELETE", path, "").status, 204, "{path}");
    }
    for (path, code) in [("/http/server_zones/x", "ServerZoneNotFound"), ("/slabs/x", "SlabNotFound")] {
        assert_eq!(api.send("DELETE", path, "").fault(), (404, code));
    }
    assert_eq!(api.send("DELETE", "/http/upstreams/fixed", "").fault(), (400, "UpstreamStatic"));
}
