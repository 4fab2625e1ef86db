//! Why an attempt failed: one word, wherever it is told.

use super::Page;
use crate::support::backend::{Backend, Reply};
use crate::support::client::{Connection, Request};
use crate::support::ports::free_port;
use crate::support::server::Server;
use crate::support::{replaced, wait};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}

/// A peer that does this, the words that are expected, the error of `Proxy-Status`, and more directives.
struct Case {
    path: &'static str,
    reply: Option<Reply>,
    reason: &'static str,
    error: &'static str,
    more: &'static str,
}

fn cases() -> Vec<Case> {
    let case = |path, reply, reason, error, more| Case { path, reply, reason, error, more };
    let raw = |text: String| Some(Reply::Raw(text.into_bytes()));
    let slow = Reply::After(Duration::from_secs(5), Box::new(Reply::Text("late".into())));
    vec![
        case("refused", None, "refused", "connection_refused", ""),
        case("closed", Some(Reply::Close), "closed_early", "connection_terminated", ""),
        case("slow", Some(slow), "timeout_read", "connection_read_timeout", "proxy_read_timeout 100ms;"),
        case(
            "big",
            raw(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(9000))),
            "header_too_big",
            "http_response_header_section_size",
            "",
        ),
        case(
            "invalid",
            raw("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".into()),
            "invalid_header",
            "http_protocol_error",
            "",
        ),
    ]
}

#[test]
fn a_failure_is_the_same_word_in_the_variable_the_field_and_the_log() {
    if replaced() {
        return;
    }
    let port = free_port();
    let (mut backends, mut locations) = (Vec::new(), String::new());
    for case in cases() {
        let address = match &case.reply {
            None => nobody(),
            Some(reply) => {
                let reply = reply.clone();
                let backend = Backend::start(move |_| reply.clone());
                let address = backend.address();
                backends.push(backend);
                address
            }
        };
        let (path, more) = (case.path, case.more);
        locations += &format!("location /{path} {{ proxy_pass http://{address}; {more} }}\n");
    }
    let body = format!(
        "log_format r '$uri $upstream_failure_reason'; upstream none {{ server 127.0.0.1:1 down; }} \
         server {{ listen 127.0.0.1:{port}; proxy_status on; error_log error.json info json; \
         access_log access.log r; {locations} location /none {{ proxy_pass http://none; }} }}"
    );
    let server = Server::http(port, &body);
    let none = Case { path: "none", reply: None, reason: "no_live_peers", error: "destination_unavailable", more: "" };
    let cases: Vec<_> = cases().into_iter().chain([none]).collect();
    for case in &cases {
        let answer = Connection::open(port).get(&format!("/{}", case.path));
        let status = if case.reason == "timeout_read" { 504 } else { 502 };
        let said = answer.header("proxy-status").unwrap_or_default().to_owned();
        assert_eq!(answer.status, status, "{}", case.path);
        let expected = format!("; error={}; details=\"{}\"", case.error, case.reason);
        assert!(said.starts_with("tidegate") && said.ends_with(&expected), "{}: {said}", case.path);
    }
    wait::until("all are logged", wait::SOON, || server.access_log().lines().count() == cases.len());
    let (access, errors) = (server.access_log(), server.dir().read("error.json"));
    for case in &cases {
        let line = format!("/{} {}\n", case.path, case.reason);
        assert!(access.contains(&line), "{line}{access}");
        let told = |line: &&str| {
            line.contains(&format!("\"request\":\"GET /{} ", case.path))
                && line.contains(&format!("\"reason\":\"{}\"", case.reason))
        };
        assert!(errors.lines().any(|line| told(&line)), "{}: {errors}", case.reason);
    }
    // nginx's own form of the line has no place for it.
    assert!(!server.error_log().contains("reason"), "{}", server.error_log());
}

#[test]
fn each_attempt_has_its_own_reason_and_the_last_one_is_answered_with() {
    if replaced() {
        return;
    }
    let good = Backend::named("good");
    let busy = Backend::start(|_| Reply::Raw(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec()));
    let port = free_port();
    let body = format!(
        "upstream u {{ server {} weight=100; server {} weight=50; server {}; }} \
         server {{ listen 127.0.0.1:{port}; proxy_status on; proxy_next_upstream error http_503; \
         location / {{ proxy_pass http://u; add_header X-Reason $upstream_failure_reason; }} }}",
        nobody(),
        busy.address(),
        good.address()
    );
    let _server = Server::http(port, &body);
    let answer = Connection::open(port).get("/").expect(200);
    assert_eq!(answer.header("x-reason"), Some("refused, http_503, -"));
    let expected = format!("tidegate; next-hop=\"{}\"; received-status=200", good.address());
    assert_eq!(answer.header("proxy-status"), Some(&*expected));
}

#[test]
fn what_other_proxies_have_said_stays_in_front() {
    if replaced() {
        return;
    }
    let peer = Backend::start(|_| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nProxy-Status: inner; received-status=200\r\n\r\n";
        Reply::Keep(head.as_bytes().to_vec())
    });
    let port = free_port();
    let server = |more: &str| {
        format!("server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{}; {more} }} }}", peer.address())
    };
    let program = Server::http(port, &server("proxy_status on;"));
    let own = format!("tidegate; next-hop=\"{}\"; received-status=200", peer.address());
    let said = |answer: crate::support::client::Answer| {
        answer.headers("proxy-status").into_iter().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(said(Connection::open(port).get("/")), ["inner; received-status=200", &own]);
    program.rewrite(&server("proxy_status off;"));
    program.reload();
    assert_eq!(said(Connection::open(port).get("/")), ["inner; received-status=200"]);
}

#[test]
fn a_kept_connection_that_died_is_told_apart_from_a_peer_that_fails() {
    if replaced() {
        return;
    }
    let number = AtomicUsize::new(0);
    // Every second request on a connection is read and not answered.
    let peer = Backend::start(move |_| match number.fetch_add(1, Ordering::SeqCst) % 2 {
        0 => Reply::Text("served".into()),
        _ => Reply::Close,
    });
    let port = free_port();
    let http = format!("upstream u {{ zone u 64k; server {}; keepalive 8; }}", peer.address());
    let server = "location / { proxy_pass http://u; add_header X-Reason $upstream_failure_reason always; }";
    let _server = Server::http(port, &super::body(port, &http, server));
    let mut connection = Connection::open(port);
    connection.get("/").expect(200);
    // It may be repeated: the client sees nothing of it.
    assert_eq!(connection.get("/").expect(200).header("x-reason"), Some("-"));
    // This one may not.
    let posted = connection.ask(&Request::post("/", "text/plain", "x"));
    assert_eq!((posted.status, posted.header("x-reason")), (502, Some("reset_on_reused")));
    let page = Page::of(port);
    let series = format!(
        "tidegate_upstream_server_retries_total{{upstream=\"u\",server=\"{}\",reason=\"reset_on_reused\"}}",
        peer.address()
    );
    assert_eq!(page.number(&series), 1);
}

#[test]
fn a_peer_that_takes_no_more_of_a_request_times_out_while_it_is_sent_to() {
    if replaced() {
        return;
    }
    // Connections are accepted by the kernel, and nobody reads from them.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free_port();
    let body = format!(
        "server {{ listen 127.0.0.1:{port}; client_max_body_size 0; \
         location / {{ proxy_send_timeout 200ms; proxy_pass http://{}; \
         add_header X-Reason $upstream_failure_reason always; }} }}",
        deaf.local_addr().unwrap()
    );
    let server = Server::http(port, &body);
    let answer = Connection::open(port).ask(&Request::post("/", "text/plain", vec![b'x'; 16 << 20]));
    assert_eq!((answer.status, answer.header("x-reason")), (504, Some("timeout_write")));
    let told = "upstream timed out (110: Connection timed out) while sending request to upstream";
    assert!(server.error_log().contains(told), "{}", server.error_log());
}
