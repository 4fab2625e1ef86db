//! `health_check type=grpc` against a server of HTTP/2: its answers, and peers that speak something else.

use super::{ask, body, until_only};
use crate::support::backend::{Backend, Reply};
use crate::support::client::{self, Request};
use crate::support::ports::free_port;
use crate::support::server::Server;
use crate::support::{replaced, wait};
use bytes::Bytes;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// What the server says of itself: these are the numbers of the protocol.
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;
/// It has no such service, and says so by a `grpc-status`.
const UNIMPLEMENTED: u8 = 12;

/// A server of gRPC's health protocol in a thread of its own. It ends with the test.
struct Health {
    address: SocketAddr,
    seen: Arc<Seen>,
}

/// What is said, and what was asked.
#[derive(Default)]
struct Seen {
    says: AtomicU8,
    connections: AtomicUsize,
    asked: AtomicUsize,
    /// The last question: where to, its fields, its body.
    last: Mutex<(String, Vec<u8>)>,
}

impl Health {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::<Seen>::default());
        seen.says.store(SERVING, SeqCst);
        let own = Arc::clone(&seen);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    own.connections.fetch_add(1, SeqCst);
                    tokio::spawn(serve(stream, Arc::clone(&own)));
                }
            });
        });
        Self { address, seen }
    }

    fn says(&self, status: u8) {
        self.seen.says.store(status, SeqCst);
    }
}

/// Serves one connection until its end.
async fn serve(stream: tokio::net::TcpStream, seen: Arc<Seen>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let head = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
            let (mut body, mut question) = (request.into_body(), Vec::new());
            while let Some(Ok(piece)) = body.data().await {
                question.extend_from_slice(&piece);
            }
            *seen.last.lock().unwrap() = (head, question);
            seen.asked.fetch_add(1, SeqCst);
            let status = seen.says.load(SeqCst);
            let head = http::Response::builder().header("content-type", "application/grpc");
            if status == UNIMPLEMENTED {
                let head = head.header("grpc-status", "12").header("grpc-message", "unknown service");
                let _ = respond.send_response(head.body(()).unwrap(), true);
                return;
            }
            let Ok(mut sending) = respond.send_response(head.body(()).unwrap(), false) else { return };
            let _ = sending.send_data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]), false);
            let trailers = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
            let _ = sending.send_trailers(trailers.into_iter().collect());
        });
    }
}

/// Requests go to a server of HTTP/1, and checks to a port beside it.
fn start(peer: &Backend, health: &Health, before: &str, after: &str) -> (Server, u16) {
    let port = free_port();
    let servers = format!("server {};", peer.address());
    let check = format!("health_check interval=50ms port={} {before} type=grpc {after};", health.address.port());
    let api = format!("server {{ listen 127.0.0.1:{port}; server_name api; location /api {{ api; }} }}");
    (Server::http(port, &format!("{} {api}", body(port, &servers, &check, ""))), port)
}

#[test]
fn a_grpc_server_gets_requests_while_it_says_that_it_is_serving() {
    if replaced() {
        return;
    }
    let (peer, health) = (Backend::named("a"), Health::start());
    health.says(NOT_SERVING);
    let (server, port) = start(&peer, &health, "mandatory keepalive_time=1m", "grpc_service=shop.Cart");
    server.expect_log(&[
        "[warn]",
        "peer is unhealthy while checking gRPC status: NOT_SERVING, health check \"\" of peer",
    ]);
    assert_eq!(ask(port), "502");
    let told = client::ask(port, &Request::get("/api/9/http/upstreams/u").header("Host", "api")).text();
    assert!(told.contains("\"reason\":\"NOT_SERVING while checking gRPC status\""), "{told}");
    health.says(SERVING);
    until_only(port, &["a"]);
    server.expect_log(&["peer is healthy while checking gRPC status"]);
    let (head, question) = health.seen.last.lock().unwrap().clone();
    assert!(head.starts_with("POST http://u/grpc.health.v1.Health/Check "), "{head}");
    assert!(head.contains("\"content-type\": \"application/grpc\"") && head.contains("\"te\": \"trailers\""), "{head}");
    assert_eq!(question, b"\0\0\0\0\x0b\x0a\x09shop.Cart");
    wait::until("it is asked again", wait::SOON, || health.seen.asked.load(SeqCst) > 20);
    assert_eq!(health.seen.connections.load(SeqCst), 1, "one connection is kept");
    health.says(UNIMPLEMENTED);
    until_only(port, &["502"]);
    server
        .expect_log(&["peer is unhealthy while checking gRPC status: grpc-status 12 (UNIMPLEMENTED): unknown service"]);
}

#[test]
fn a_server_without_the_protocol_is_known_by_the_status_it_answers_with() {
    if replaced() {
        return;
    }
    let (peer, health) = (Backend::named("a"), Health::start());
    health.says(UNIMPLEMENTED);
    let (server, port) = start(&peer, &health, "mandatory", "grpc_status=12");
    until_only(port, &["a"]);
    wait::until("it is asked again", wait::SOON, || health.seen.connections.load(SeqCst) > 5);
    assert_eq!(ask(port), "a");
    health.says(SERVING);
    until_only(port, &["502"]);
    server.expect_log(&["peer is unhealthy while checking gRPC status: grpc-status 0 (OK), health check"]);
}

#[test]
fn who_speaks_http_1_or_nothing_is_unhealthy_and_the_log_says_why() {
    if replaced() {
        return;
    }
    let mut peer = Backend::start(|request| match request.method() {
        "PRI" => Reply::Raw("HTTP/1.1 505 HTTP Version Not Supported\r\n\r\n".into()),
        _ => Reply::Text("a".into()),
    });
    let port = free_port();
    let servers = format!("server {};", peer.address());
    let server = Server::http(port, &body(port, &servers, "health_check interval=50ms type=grpc;", ""));
    until_only(port, &["502"]);
    let answered =
        "upstream does not speak HTTP/2, it answered \"HTTP/1.1 505 HTTP Version Not Supported\" while reading";
    server.expect_log(&["[error]", answered, "health check \"\" of peer"]);
    server.expect_log(&["peer is unhealthy while reading response header from upstream"]);
    peer.kill();
    server.expect_log(&["connect() failed (111: Connection refused) while connecting to upstream, health check"]);
}
