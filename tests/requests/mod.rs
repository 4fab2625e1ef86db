//! What Debian's nginx does not know yet, so that `versus` cannot ask it: held against nginx 1.31 instead, by
//! `TIDEGATE_TEST_BINARY`.

mod files;
mod tunnel;

use crate::support::backend::{Backend, Reply};
use crate::support::client::{self, Connection, Request};
use crate::support::ports::free_port;
use crate::support::server::Server;
use crate::support::wait;
use rustix::process::Signal;
use std::io::Read;
use std::net::TcpStream;

fn server(port: u16, inside: &str) -> Server {
    Server::http(port, &format!("server {{ listen 127.0.0.1:{port}; {inside} }}"))
}

#[test]
fn early_hints_go_to_clients_that_may_have_them() {
    let answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-Accel-Expires: 1\r\nDate: x\r\n\r\n\
        HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let peer = Backend::start(move |_| Reply::Raw(answer.to_vec()));
    let port = free_port();
    let location = format!("location / {{ early_hints $http_hints; proxy_pass http://{}; }}", peer.address());
    let _server = server(port, &location);
    let first = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let second = "HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\n";
    for (request, hinted) in [
        ("GET / HTTP/1.1\r\nHost: h\r\nHints: 1\r\n", true),
        ("GET / HTTP/1.1\r\nHost: h\r\nHints: 0\r\n", false),
        ("GET / HTTP/1.1\r\nHost: h\r\n", false),
        ("GET / HTTP/1.0\r\nHints: 1\r\n", false),
    ] {
        let raw = client::raw(port, format!("{request}Connection: close\r\n\r\n"));
        let text = String::from_utf8(raw).unwrap();
        assert_eq!(text.starts_with(&format!("{first}{second}HTTP/1.1 200 OK\r\n")), hinted, "{request}: {text}");
        assert!(hinted || text.starts_with("HTTP/1.1 200 OK\r\n"), "{request}: {text}");
        assert!(text.ends_with("\r\n\r\nok"), "{request}: {text}");
    }
}

#[test]
fn hints_beyond_the_buffer_are_kept_back() {
    let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n", "x".repeat(700));
    let answer = format!("{hint}{hint}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let peer = Backend::start(move |_| Reply::Raw(answer.clone().into_bytes()));
    let port = free_port();
    let location =
        format!("location / {{ early_hints 1; proxy_buffer_size 1k; proxy_pass http://{}; }}", peer.address());
    let server = server(port, &location);
    let raw = client::raw(port, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let text = String::from_utf8(raw).unwrap();
    assert_eq!(text.matches("103 Early Hints").count(), 1, "{text}");
    assert!(text.ends_with("\r\n\r\nok"), "{text}");
    server.expect_log(&["upstream sent too big early hints"]);
}

#[test]
fn a_body_may_be_read_before_anything_else() {
    let port = free_port();
    let inside = "client_body_early_read $http_early; client_max_body_size 8;
                  location / { return 200 \"got $request_body\"; }
                  location /small { client_max_body_size 3; return 200 \"got $request_body\"; }";
    let server = server(port, inside);
    let post = |path: &str, early: &str, body: &str| {
        client::ask(port, &Request::post(path, "text/plain", body).header("Early", early))
    };
    for (path, early, body, status, text) in [
        ("/", "1", "abc", 200, "got abc"),
        ("/", "0", "abc", 200, "got "),
        ("/", "1", "", 200, "got "),
        ("/", "1", "123456789", 413, ""),
        ("/small", "1", "12345", 413, ""),
    ] {
        let answer = post(path, early, body).expect(status);
        assert!(status != 200 || answer.text() == text, "{path} {early} {body}: {}", answer.text());
    }
    let log = server.error_log();
    let what = "client intended to send too large body: ";
    assert!(log.contains(&format!("{what}9 bytes while reading client request headers, client: ")), "{log}");
    assert!(log.contains(&format!("{what}5 bytes, client: ")), "{log}");
}

#[test]
fn a_connection_is_kept_for_its_least_time_when_the_process_ends() {
    let port = free_port();
    let server = server(port, "keepalive_min_timeout 10m; location / { return 200 x; }");
    let mut kept = Connection::open(port);
    assert_eq!(kept.get("/").status, 200);
    server.signal(Signal::QUIT);
    wait::until("nobody listens any more", wait::SOON, || TcpStream::connect(("127.0.0.1", port)).is_err());
    let answer = kept.get("/");
    assert_eq!((answer.status, answer.header("Connection")), (200, Some("close")));
}

#[test]
fn a_client_that_gets_no_answer_may_get_a_reset() {
    let port = free_port();
    let inside = "location /reset { reset_timedout_connection on; return 444; } location /end { return 444; }";
    let _server = server(port, inside);
    for (path, reset) in [("/reset", true), ("/end", false)] {
        let mut connection = Connection::open(port);
        connection.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let mut socket = connection.sender();
        socket.set_read_timeout(Some(wait::SOON)).unwrap();
        let error = socket.read(&mut [0; 16]).err().map(|error| error.kind());
        assert_eq!(error == Some(std::io::ErrorKind::ConnectionReset), reset, "{path}: {error:?}");
    }
}

#[test]
fn a_head_that_takes_too_long_is_logged_with_408() {
    let port = free_port();
    let server = Server::http(
        port,
        &format!("server {{ listen 127.0.0.1:{port}; client_header_timeout 200ms; location / {{ return 200 x; }} }}"),
    );
    let mut connection = Connection::open(port);
    connection.send("GET /slow HTTP/1.1\r\nHost");
    assert!(connection.read_to_end().is_empty());
    wait::until("it is logged", wait::SOON, || server.access_log().contains("\"GET /slow HTTP/1.1\" 408 0 "));
    let log = server.error_log();
    let text = "client timed out (110: Connection timed out) while reading client request headers, client: ";
    assert!(log.contains(text), "{log}");
}

#[test]
fn the_system_says_what_it_has_measured() {
    let port = free_port();
    let variables = "$tcpinfo_rtt $tcpinfo_rttvar $tcpinfo_snd_cwnd $tcpinfo_rcv_space";
    let _server = server(port, &format!("location / {{ return 200 \"{variables}\"; }}"));
    let text = client::get(port, "/").expect(200).text();
    let numbers: Vec<u32> = text.split(' ').map(|number| number.parse().unwrap()).collect();
    assert!(numbers.len() == 4 && numbers[2] > 0 && numbers[3] > 0, "{text}");
}
