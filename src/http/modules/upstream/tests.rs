//! Tests: what is wrong with an `upstream` as nginx 1.31.5 tells it, and what its requests are answered.

use crate::http::testing::{ask_http, http_fault};

/// What an upstream that says this is refused for.
fn fault(inside: &str) -> String {
    http_fault(&format!("upstream u {{ {inside} }}"))
}

#[test]
fn methods_are_refused_in_nginxs_words() {
    for (inside, expected) in [
        ("least_conn; least_conn;", ""),
        ("hash a; hash b;", ""),
        ("hash a b;", "invalid parameter \"b\""),
        ("hash;", "invalid number of arguments in \"hash\" directive"),
        ("random two least_conn;", ""),
        ("random x;", "invalid parameter \"x\""),
        ("random two x;", "invalid parameter \"x\""),
        ("random two least_time=header;", ""),
        ("random two least_time=body;", "invalid parameter \"least_time=body\""),
        ("least_time header inflight;", ""),
        ("least_time x;", "invalid value \"x\""),
        ("least_time header x;", "invalid parameter \"x\""),
        ("least_time header; least_time header;", "\"least_time\" directive is duplicate"),
        ("queue 10 timeout=30s;", ""),
        ("queue 0;", "invalid value \"0\""),
        ("queue 1 time=1;", "invalid parameter \"time=1\""),
        ("ntlm;", "unknown directive \"ntlm\""),
        ("state /var/lib/u.state;", "\"state\" directive is incompatible with \"server\""),
    ] {
        assert_eq!(fault(&format!("{inside} server 127.0.0.1:1;")), expected, "{inside}");
    }
}

#[test]
fn a_line_has_the_parameters_that_its_method_knows() {
    let refused = |parameter: &str| format!("balancing method does not support parameter \"{parameter}\"");
    for (method, backup) in [
        ("", String::new()),
        ("least_conn;", String::new()),
        ("least_time header;", String::new()),
        ("ip_hash;", refused("backup")),
        ("hash a;", refused("backup")),
        ("random two;", refused("backup")),
    ] {
        let slow = backup.replace("\"backup\"", "\"slow_start=3s\"");
        assert_eq!(fault(&format!("{method} server 127.0.0.1:1; server 127.0.0.1:2 backup;")), backup, "{method}");
        assert_eq!(fault(&format!("{method} server 127.0.0.1:1 slow_start=3s;")), slow, "{method}");
        let others = "weight=2 max_conns=3 max_fails=0 fail_timeout=1m drain route=a";
        assert_eq!(fault(&format!("{method} server 127.0.0.1:1 {others};")), "", "{method}");
    }
    for (parameter, expected) in [
        ("route=", "route is empty"),
        ("route=123456789012345678901234567890123", "route is longer than 32"),
        ("slow_start=x", "invalid parameter \"slow_start=x\""),
        ("resolving", "invalid parameter \"resolving\""),
        ("drain=1", "invalid parameter \"drain=1\""),
    ] {
        assert_eq!(fault(&format!("server 127.0.0.1:1 {parameter};")), expected);
    }
}

#[test]
fn sticky_is_refused_in_nginxs_words() {
    let session = "create=$cookie_a lookup=$cookie_a";
    for (sticky, expected) in [
        ("cookie a expires=1h domain=$host path=/ samesite=lax httponly secure", ""),
        ("route $cookie_a $arg_a", ""),
        ("foo bar", "unknown parameter \"foo\""),
        ("cookie ''", "\"sticky\" directive empty cookie name"),
        ("cookie a foo", "unknown parameter \"foo\""),
        ("cookie a domain=", "\"sticky\" directive no value for \"domain\""),
        ("cookie a path=", "\"sticky\" directive no value for \"path\""),
        ("cookie a path=/ path=/", "\"sticky\" directive parameter \"path\" is duplicate"),
        ("cookie a secure secure", "\"sticky\" directive parameter \"secure\" is duplicate"),
        ("cookie a expires=x", "\"sticky\" directive invalid \"expires\" parameter value"),
        ("cookie a samesite=x", "\"sticky\" directive invalid \"samesite\" parameter value"),
        ("cookie a samesite=$arg_x", ""),
        ("route foo", "invalid variable name \"foo\""),
        ("route $nothing", "unknown \"nothing\" variable"),
        (&format!("learn {session} zone=z:1m timeout=1h header"), ""),
        ("learn create=$cookie_a", "\"sticky\" directive \"lookup\" parameter is not specified"),
        ("learn lookup=$cookie_a", "\"sticky\" directive \"create\" parameter is not specified"),
        ("learn create=a", "\"sticky\" directive missing variable in the \"create\" parameter"),
        (&format!("learn {session}"), "\"sticky\" directive \"zone\" parameter is not specified"),
        (&format!("learn {session} zone=z"), "\"sticky\" directive zone size is not specified"),
        (&format!("learn {session} zone=:1m"), "\"sticky\" directive zone name is not specified"),
        (&format!("learn {session} zone=z:x"), "\"sticky\" directive invalid zone size"),
        (&format!("learn {session} zone=z:1k"), "\"sticky\" directive zone is too small"),
        (&format!("learn {session} zone=z:1m zone=y:1m"), "\"sticky\" directive duplicate zone"),
        (&format!("learn {session} zone=z:1m timeout=0"), "\"sticky\" directive invalid timeout"),
        (&format!("learn {session} zone=z:1m what"), "unknown parameter \"what\""),
    ] {
        assert_eq!(fault(&format!("server 127.0.0.1:1; sticky {sticky};")), expected, "{sticky}");
    }
    assert_eq!(fault("sticky cookie a; sticky cookie b; server 127.0.0.1:1;"), "\"sticky\" directive is duplicate");
}

#[test]
fn names_are_looked_up_at_run_time_where_there_is_a_zone_and_a_resolver() {
    for (inside, expected) in [
        ("zone z 1m; resolver 127.0.0.1; server a.b resolve;", ""),
        (
            "zone z 1m; resolver 127.0.0.1; resolver_timeout 1s; server a.b service=http resolve backup; server a.b resolve;",
            "",
        ),
        ("server a.b resolve;", "resolving names at run time requires upstream \"u\" to be in shared memory"),
        ("zone z 1m; server a.b resolve;", "no resolver defined to resolve names at run time in upstream \"u\""),
        ("zone z 1m; server a.b service=http;", "service upstream \"a.b\" requires \"resolve\" parameter"),
        ("zone z 1m; server a.b:80 service=http resolve;", "service upstream \"a.b:80\" may not have port"),
        ("zone z 1m; server 127.0.0.1 service=http resolve;", "service upstream \"127.0.0.1\" requires domain name"),
        ("zone z 1m; server a.b service= resolve;", "service is empty"),
        ("server 127.0.0.1:1 resolve;", ""),
        (
            "zone z 1m; resolver 127.0.0.1; resolver 127.0.0.1; server a.b resolve;",
            "\"resolver\" directive is duplicate",
        ),
        ("zone z 1m; resolver 127.0.0.1; server a.b resolve backup;", "no servers in upstream \"u\""),
    ] {
        assert_eq!(fault(inside), expected, "{inside}");
    }
    assert_eq!(http_fault("resolver 127.0.0.1; upstream u { zone z 1m; server a.b resolve; }"), "");
}

#[test]
fn a_zone_is_of_one_size_and_use() {
    let server = "server 127.0.0.1:1;";
    let learn = "sticky learn zone=z:1m create=$cookie_a lookup=$cookie_a;";
    for (u, v, expected) in [
        ("zone z 1m;", "zone z;", ""),
        ("zone z;", "zone z 1m;", ""),
        ("zone z;", "", "zero size shared memory zone \"z\""),
        (
            "zone z 1m;",
            "zone z 2m;",
            "the size 2097152 of shared memory zone \"z\" conflicts with already declared size 1048576",
        ),
        ("zone z 1m;", learn, "the shared memory zone \"z\" is already declared for a different use"),
        (learn, learn, "sticky zone \"z\" is already used in upstream \"u\""),
    ] {
        let text = format!("upstream u {{ {server} {u} }} upstream v {{ {server} {v} }}");
        assert_eq!(http_fault(&text), expected, "{u} {v}");
    }
    let limit = "limit_req_zone $uri zone=z:1m rate=1r/s;";
    assert_eq!(
        http_fault(&format!("{limit} upstream u {{ zone z 1m; {server} }}")),
        "the shared memory zone \"z\" is already declared for a different use"
    );
}

/// What the answer to a request says of its peer. Nobody listens at the peers: who was asked is in the log's variable.
fn asked(upstream: &str, server: &str, request: &str) -> (String, String) {
    let text = format!(
        "upstream u {{ {upstream} }} server {{ proxy_next_upstream off; {server} \
         add_header X-Asked $upstream_addr always; location / {{ proxy_pass http://u; }} }}"
    );
    let answer = ask_http(&text, request);
    let header = |name| answer.header(name).unwrap_or_default().to_owned();
    (header("X-Asked"), header("Set-Cookie"))
}

fn get(target: &str, cookie: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n")
}

const THREE: &str = "server 127.0.0.1:1 route=a; server 127.0.0.1:2 route=b; server 127.0.0.1:3;";

#[test]
fn a_cookie_leads_back_to_the_peer_even_with_an_error() {
    // The MD5 of `127.0.0.1:3`.
    let third = "sid=73c418f48cafa3c2b9f36efeb19875f8";
    let third = third.to_owned();
    let sticky = format!("{THREE} sticky cookie sid path=/x domain=$arg_d samesite=$arg_s httponly secure;");
    assert_eq!(
        asked(&sticky, "", &get("/", "sid=b")),
        ("127.0.0.1:2".into(), "sid=b; httponly; secure; path=/x".into())
    );
    let (peer, cookie) = asked(&sticky, "", &get("/?d=a.example&s=x", "sid=unknown"));
    assert_eq!(
        (&*peer, &*cookie),
        ("127.0.0.1:1", "sid=a; domain=a.example; httponly; secure; samesite=strict; path=/x")
    );
    let (peer, cookie) = asked(&format!("{THREE} sticky cookie sid expires=max;"), "", &get("/", &third));
    assert_eq!(peer, "127.0.0.1:3");
    assert_eq!(cookie, format!("{third}; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000"));
    let (_, cookie) = asked(&format!("{THREE} sticky cookie sid expires=1h;"), "", &get("/", "sid=a"));
    assert!(cookie.starts_with("sid=a; expires=") && cookie.ends_with(" GMT; max-age=3600"), "{cookie}");
}

#[test]
fn a_route_is_the_first_of_its_variables_that_has_a_value() {
    let sticky = format!("{THREE} sticky route $arg_r $cookie_r;");
    for (target, cookie, peer) in [
        ("/", "x=y", "127.0.0.1:1"),
        ("/", "r=b", "127.0.0.1:2"),
        ("/?r=a", "r=b", "127.0.0.1:1"),
        ("/?r=", "r=b", "127.0.0.1:2"),
    ] {
        assert_eq!(asked(&sticky, "", &get(target, cookie)), (peer.into(), String::new()), "{target} {cookie}");
    }
}

#[test]
fn sticky_above_the_method_is_lost() {
    assert_eq!(asked(&format!("{THREE} sticky cookie r; least_conn;"), "", &get("/", "r=b")).0, "127.0.0.1:1");
    assert_eq!(asked(&format!("least_conn; {THREE} sticky cookie r;"), "", &get("/", "r=b")).0, "127.0.0.1:2");
    assert_eq!(asked(&format!("least_conn; ip_hash; {THREE} sticky cookie r;"), "", &get("/", "r=b")).0, "127.0.0.1:2");
}

#[test]
fn hash_evaluates_its_key_for_each_request() {
    let hash = format!("hash $arg_k consistent; {THREE}");
    let peer = |k: u32| asked(&hash, "", &get(&format!("/?k={k}"), "")).0;
    let mut seen: Vec<_> = (0..12).map(peer).collect();
    assert_eq!(seen, (0..12).map(peer).collect::<Vec<_>>());
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() > 1, "{seen:?}");
}

#[test]
fn nobody_is_asked_while_no_name_is_known() {
    let names = "zone z 1m; resolver 127.0.0.1; server a.b resolve;";
    assert_eq!(asked(names, "", &get("/", "")).0, "u");
}
