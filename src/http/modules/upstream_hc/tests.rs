//! Texts: what is written, and what is asked and thought of peers.

use super::{collect::Check, matching, runner};
use crate::{
    generation::Generation,
    http::{
        Http,
        heads::{Fields, ResponseHead},
        testing::{http, http_fault},
        worker::Worker,
    },
    process::worker::Current,
    upstream::{Peer, health::State, probe::Reply},
};
use bytes::Bytes;
use std::{rc::Rc, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// A configuration with a check, and what else is in its location and in http.
fn text(check: &str, location: &str, more: &str) -> String {
    format!(
        "upstream u {{ zone u 64k; server 127.0.0.1:1; }} {more}
        server {{ server_name example.com; location / {{ proxy_pass http://u/inner/; health_check {check}; {location} }} }}"
    )
}

fn fault(check: &str) -> String {
    http_fault(&text(check, "", "match fine { status 200; }"))
}

#[test]
fn what_is_written_wrong_is_told() {
    for (check, expected) in [
        ("", ""),
        ("interval=10 jitter=3s fails=2 passes=4 uri=/up?x=1 mandatory persistent match=fine port=81", ""),
        ("type=tcp port=81 keepalive_time=10m", ""),
        ("type=http", ""),
        ("interval=x", "invalid parameter \"interval=x\""),
        ("interval=0", "\"interval\" of \"health_check\" must not be 0"),
        ("fails=0", "invalid parameter \"fails=0\""),
        ("passes=-1", "invalid parameter \"passes=-1\""),
        ("port=0", "invalid parameter \"port=0\""),
        ("port=70000", "invalid parameter \"port=70000\""),
        ("uri=up", "invalid parameter \"uri=up\""),
        ("match=", "invalid parameter \"match=\""),
        ("match=none", "unknown match \"none\""),
        ("mandatory=1", "invalid parameter \"mandatory=1\""),
        ("persistent", "\"persistent\" parameter requires \"mandatory\""),
        ("type=tcp uri=/", "\"uri\" parameter is not compatible with \"type=tcp\""),
        ("type=tcp match=fine", "\"match\" parameter is not compatible with \"type=tcp\""),
        ("type=grpc", ""),
        ("interval=10 keepalive_time=1m mandatory persistent port=81 type=grpc grpc_status=12 grpc_service=a.B", ""),
        ("type=grpc grpc_service=", ""),
        ("type=grpc uri=/", "\"uri\" parameter is not compatible with \"type=grpc\""),
        ("uri=/ type=grpc", "\"uri\" parameter is not compatible with \"type=grpc\""),
        ("match=fine type=grpc", "\"match\" parameter is not compatible with \"type=grpc\""),
        ("type=grpc mandatory", "\"mandatory\" parameter must be specified before \"type=grpc\""),
        ("type=grpc grpc_status=12 fails=2", "\"fails\" parameter must be specified before \"type=grpc\""),
        ("type=grpc type=http", "\"type\" parameter must be specified before \"type=grpc\""),
        ("type=grpc nonsense", "invalid parameter \"nonsense\""),
        ("grpc_status=12 type=grpc", "\"grpc_status\" parameter requires \"type=grpc\" before it"),
        ("grpc_service=a.B", "\"grpc_service\" parameter requires \"type=grpc\" before it"),
        ("type=tcp grpc_status=12", "\"grpc_status\" parameter requires \"type=grpc\" before it"),
        ("type=grpc grpc_status=0", "invalid parameter \"grpc_status=0\""),
        ("type=grpc grpc_status=OK", "invalid parameter \"grpc_status=OK\""),
        ("type=grpcs", "invalid parameter \"type=grpcs\""),
        ("nonsense", "invalid parameter \"nonsense\""),
    ] {
        assert_eq!(fault(check), expected, "{check}");
    }
}

#[test]
fn a_check_needs_a_location_that_leads_to_a_group_in_shared_memory() {
    let location = |directives: &str| {
        http_fault(&format!(
            "upstream u {{ zone u 64k; server 127.0.0.1:1; }} upstream bare {{ server 127.0.0.1:1; }}
            server {{ location / {{ {directives} }} }}"
        ))
    };
    for (directives, expected) in [
        ("health_check; return 200;", "\"health_check\" requires \"proxy_pass\" or its kin in the location"),
        ("health_check; proxy_pass http://bare;", "health checks require upstream \"bare\" to be in shared memory"),
        (
            "health_check; proxy_pass http://127.0.0.1:81;",
            "health checks require upstream \"127.0.0.1:81\" to be in shared memory",
        ),
        (
            "health_check; proxy_pass http://$host;",
            "\"health_check\" does not support variables in the address of the upstream",
        ),
        (
            "health_check; memcached_pass u; set $memcached_key 1;",
            "\"health_check\" of memcached servers is possible with \"type=tcp\" only",
        ),
        ("health_check type=tcp; memcached_pass u; set $memcached_key 1;", ""),
        ("health_check type=grpc; memcached_pass u; set $memcached_key 1;", ""),
        ("health_check type=grpc; fastcgi_pass u;", ""),
        ("health_check type=grpc; return 200;", "\"health_check\" requires \"proxy_pass\" or its kin in the location"),
        ("health_check; fastcgi_pass u;", ""),
        ("health_check; uwsgi_pass u; health_check uri=/2;", ""),
        ("health_check; scgi_pass u;", ""),
        ("proxy_pass http://u; health_check; location /inner { return 200; }", ""),
    ] {
        assert_eq!(location(directives), expected, "{directives}");
    }
}

#[test]
fn a_match_is_read_as_it_is_documented() {
    for (lines, expected) in [
        ("status 200; header Content-Type = text/html; body ~ \"Welcome to nginx!\";", ""),
        ("status ! 301-303 307; header ! Refresh; header Host; header A != b; header A ~ b; header A !~ b;", ""),
        ("body !~ maintenance; require $upstream_status $host; body ~* x;", ""),
        ("", ""),
        ("status;", "invalid number of arguments in \"status\" directive"),
        ("status !;", "invalid number of arguments in \"status\" directive"),
        ("status 20;", "invalid status \"20\""),
        ("status 300-200;", "invalid status \"300-200\""),
        ("status 2xx;", "invalid status \"2xx\""),
        ("header A b c d;", "invalid number of arguments in \"header\" directive"),
        ("header A == b;", "invalid parameter \"==\""),
        ("body = x;", "invalid parameter \"=\""),
        ("body ~;", "invalid number of arguments in \"body\" directive"),
        ("require host;", "invalid variable name \"host\""),
        ("require $no_such_variable;", "unknown \"no_such_variable\" variable"),
        ("foo 1;", "unknown directive \"foo\""),
    ] {
        assert_eq!(http_fault(&format!("match m {{ {lines} }}")), expected, "{lines}");
    }
    assert_eq!(http_fault("match m { } match m { }"), "duplicate match \"m\"");
    assert!(http_fault("match m { body ~ (; }").starts_with("pcre2_compile() failed"));
}

/// Runs what needs a thread that serves.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

fn worker(http: &Arc<Http>) -> Rc<Worker> {
    let generation = Generation { http: Arc::clone(http), shutdown_timeout: None };
    Rc::new(Worker::new(Current::new(Arc::new(generation))))
}

fn first(http: &Http) -> Arc<Check> {
    Arc::clone(&http.checks.all[0])
}

#[test]
fn an_answer_passes_when_all_tests_say_so() {
    let judge = |lines: &str, status: u16, fields: &[(&'static str, &'static str)], body: &'static str| {
        let map = "map $upstream_status $good { 200 1; 204 1; 205 0; }";
        let http = Arc::new(http(&text("match=m", "", &format!("{map} match m {{ {lines} }}"))));
        let worker = worker(&http);
        let check = first(&http);
        let mut exchange = runner::exchange(&http, &worker, &check).unwrap();
        let mut head = ResponseHead { status, fields: Fields::new(), ..ResponseHead::default() };
        for (name, value) in fields {
            head.fields.push(*name, *value);
        }
        exchange.tries.push(crate::http::exchange::Try { status, ..Default::default() });
        let times = (Duration::ZERO, Duration::ZERO);
        let reply = Reply { head, body: Bytes::from_static(body.as_bytes()), cut: false, times };
        check.matching.as_ref().unwrap().judge(&reply, &exchange).map_err(|unfit| unfit.why)
    };
    let passes = |lines: &str| {
        judge(lines, 200, &[("Content-Type", "text/html"), ("A", "1"), ("a", "2")], "Welcome").map_err(drop).is_ok()
    };
    for (lines, expected) in [
        ("", true),
        ("status 200;", true),
        ("status 204 200;", true),
        ("status 201-299;", false),
        ("status ! 201-299 404;", true),
        ("status ! 100-299;", false),
        ("header content-type;", true),
        ("header ! content-type;", false),
        ("header ! Refresh;", true),
        ("header Refresh;", false),
        ("header Content-Type = text/html;", true),
        ("header Content-Type = text/plain;", false),
        ("header Content-Type != text/plain;", true),
        ("header Refresh != 1;", false),
        ("header A = 2;", true),
        ("header A != 2;", false),
        ("header Content-Type ~ ^text/;", true),
        ("header Content-Type !~ html$;", false),
        ("body ~ come;", true),
        ("body ~ Come;", false),
        ("body ~* Come;", true),
        ("body !~ Come;", true),
        ("require $good;", true),
        ("require $good $upstream_http_refresh;", false),
        ("status 200; header A; body ~ nothing;", false),
    ] {
        assert_eq!(passes(lines), expected, "{lines}");
    }
    for (lines, status, why) in [
        ("status 200;", 503, "status 503"),
        ("header Refresh;", 200, "no header \"Refresh\""),
        ("header A = 3;", 200, "header \"A: 1\""),
        ("body ~ x;", 200, "body does not match \"x\""),
        ("require $good;", 205, "variable \"$good\""),
        ("require $good;", 500, "variable \"$good\""),
    ] {
        assert_eq!(judge(lines, status, &[("A", "1")], "").unwrap_err(), why, "{lines}");
    }
    assert_eq!(judge("body ~ .; status 200;", 200, &[], "x").unwrap(), matching::STATUS, "the last one is named");
}

#[test]
fn without_a_match_statuses_of_two_and_three_hundred_are_good() {
    let usual = |status| {
        let head = ResponseHead { status, ..ResponseHead::default() };
        let times = (Duration::ZERO, Duration::ZERO);
        matching::usual(&Reply { head, body: Bytes::new(), cut: false, times }).is_ok()
    };
    let statuses = [101, 199, 200, 204, 299, 301, 399, 400, 404, 500, 503];
    assert_eq!(statuses.map(usual), [false, false, true, true, true, true, true, false, false, false, false]);
}

#[test]
fn a_check_asks_as_its_location_would() {
    let asked = |check: &str, location: &str| {
        run(async {
            let http = Arc::new(http(&text(check, location, "")));
            let worker = worker(&http);
            let check = first(&http);
            let mut exchange = runner::exchange(&http, &worker, &check).unwrap();
            let question = runner::question(&mut exchange, &check).await.unwrap();
            String::from_utf8_lossy(&question.head).replace("\r\n", "|")
        })
    };
    for (check, location, expected) in [
        ("", "", "GET / HTTP/1.1|Host: u|Connection: close||"),
        ("uri=/up?x=1", "", "GET /up?x=1 HTTP/1.1|Host: u|Connection: close||"),
        ("", "proxy_set_header Host $host;", "GET / HTTP/1.1|Host: example.com|Connection: close||"),
        ("keepalive_time=1m", "proxy_set_header X-Uri $uri; proxy_method HEAD;", "HEAD / HTTP/1.1|Host: u|X-Uri: /||"),
        ("", "proxy_http_version 1.0; proxy_set_header Connection x;", "GET / HTTP/1.0|Host: u|Connection: x||"),
    ] {
        assert_eq!(asked(check, location), expected, "{check} {location}");
    }
}

#[test]
fn a_grpc_server_is_told_what_the_location_tells_servers_of_http() {
    let asked = |location: &str| {
        run(async {
            let text = format!(
                "upstream u {{ zone u 64k; server 127.0.0.1:1; }}
                server {{ server_name example.com; location / {{ {location} health_check type=grpc; }} }}"
            );
            let http = Arc::new(http(&text));
            let worker = worker(&http);
            let check = first(&http);
            let mut exchange = runner::exchange(&http, &worker, &check).unwrap();
            let asked = runner::grpc_question(&mut exchange, &check, b"").await;
            asked.map_or_else(|why| why, |question| question.to_string())
        })
    };
    let head = "POST http://u/grpc.health.v1.Health/Check content-type: application/grpc, te: trailers";
    for (location, expected) in [
        ("proxy_pass http://u/inner/;", head.to_owned()),
        ("proxy_pass http://u; proxy_http_version 1.0; proxy_set_header Host '';", head.to_owned()),
        ("proxy_pass http://u; proxy_set_header Host $host;", head.replace("//u/", "//example.com/")),
        (
            "proxy_pass http://u; proxy_set_header Authorization 'Bearer x'; proxy_set_header Connection x;",
            format!("{head}, authorization: Bearer x"),
        ),
        ("fastcgi_pass u;", head.to_owned()),
        ("proxy_pass http://u; proxy_set_header Host 'a b';", "invalid host \"a b\"".to_owned()),
    ] {
        assert_eq!(asked(location), expected, "{location}");
    }
}

#[test]
fn other_protocols_are_asked_by_their_packets() {
    run(async {
        for (pass, begins) in [
            ("fastcgi_pass u; fastcgi_param SCRIPT_NAME $uri;", &b"\x01\x01\x00\x01"[..]),
            ("uwsgi_pass u; uwsgi_param SCRIPT_NAME $uri;", b"\x00"),
            ("scgi_pass u; scgi_param SCRIPT_NAME $uri;", b""),
        ] {
            let text = format!(
                "upstream u {{ zone u 64k; server 127.0.0.1:1; }}
                server {{ location / {{ {pass} health_check uri=/up; }} }}"
            );
            let http = Arc::new(http(&text));
            let worker = worker(&http);
            let check = first(&http);
            let mut exchange = runner::exchange(&http, &worker, &check).unwrap();
            let head = runner::question(&mut exchange, &check).await.unwrap().head;
            assert!(head.starts_with(begins), "{pass} {head:?}");
            let named = head.windows(11).position(|window| window == b"SCRIPT_NAME").unwrap();
            assert!(head[named..].windows(3).any(|window| window == b"/up"), "{head:?}");
        }
    });
}

/// A peer on a free port, and how it answers each connection, until nothing is left to say.
async fn peer(listener: TcpListener, answers: Vec<&'static str>) {
    for answer in answers {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// Waits until a peer is in a state.
async fn until(peer: &Peer, state: State) {
    for _ in 0..2000 {
        if peer.state(0) == state {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it is {:?} and not {state:?}: {:?}", peer.state(0), peer.checks());
}

#[test]
fn peers_are_checked_again_and_again_and_so_is_who_joins() {
    run(async {
        let (good, bad) = ("HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 503 No\r\n\r\n");
        let listeners =
            [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
        let [one, two] = listeners;
        let text = format!(
            "upstream u {{ zone u 64k; server 127.0.0.1:{}; }}
            server {{ location / {{ proxy_pass http://u; health_check mandatory interval=20ms; }} }}",
            ports[0]
        );
        let http = Arc::new(http(&text));
        let worker = worker(&http);
        super::begin(&http);
        let group = Arc::clone(http.upstreams[0].as_ref().unwrap());
        let first = group.peers().next().unwrap();
        assert_eq!(first.state(0), State::Checking);
        super::watch(&http, &worker);
        super::watch(&http, &worker);
        tokio::task::spawn_local(peer(one, vec![good, bad, bad, good]));
        until(&first, State::Up).await;
        until(&first, State::Unhealthy).await;
        assert_eq!(first.why_held().unwrap(), "status 503 while checking status code");
        until(&first, State::Up).await;
        // Then nobody is there.
        until(&first, State::Unhealthy).await;
        assert!(first.checks().why.starts_with("connect() failed (111: Connection refused)"), "{:?}", first.checks());
        let line = crate::upstream::ServerLine::default();
        let joined =
            group.add(line, &[format!("127.0.0.1:{}", ports[1]).parse().map(crate::upstream::Address::Tcp).unwrap()]);
        let joined = joined.unwrap().remove(0);
        assert_eq!(joined.state(0), State::Checking);
        tokio::task::spawn_local(peer(two, vec![good]));
        until(&joined, State::Up).await;
        until(&joined, State::Unhealthy).await;
    });
}

#[test]
fn a_check_of_tcp_sees_whether_somebody_is_there() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let text = format!(
            "upstream u {{ zone u 64k; server 127.0.0.1:1; }}
            server {{ location / {{ proxy_pass http://u; health_check type=tcp port={port} interval=20ms mandatory; }} }}"
        );
        let http = Arc::new(http(&text));
        super::begin(&http);
        super::watch(&http, &worker(&http));
        let peer = http.upstreams[0].as_ref().unwrap().peers().next().unwrap();
        until(&peer, State::Up).await;
        drop(listener);
        until(&peer, State::Unhealthy).await;
    });
}
