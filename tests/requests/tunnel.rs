//! `CONNECT` and `tunnel_pass`.

use super::Server;
use crate::support::backend::{Backend, Reply};
use crate::support::client::{Connection, Request};
use crate::support::ports::free_port;
use crate::support::{client, wait};
use std::net::SocketAddr;

const LOG: &str = "log_format tunnel '$status $body_bytes_sent [$upstream_addr] [$upstream_status] $upstream_bytes_sent \
                   $upstream_bytes_received $upstream_response_length $remote_user $request';";

/// A server that says this, and the text of its own log.
fn serve(port: u16, http: &str, inside: &str) -> Server {
    let log = "access_log tunnel.log tunnel;";
    Server::http(port, &format!("{LOG} {http} server {{ listen 127.0.0.1:{port}; {log} {inside} }}"))
}

/// `CONNECT TARGET`, with these lines behind `Host`.
fn connect(target: &str, lines: &str) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{lines}\r\n")
}

/// Asks for a connection, and then along it for `/`: what the server says to the one, and the backend to the other.
fn ask_through(port: u16, target: &str) -> (String, String) {
    let mut connection = Connection::open(port);
    connection.send(connect(target, ""));
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let byte = connection.read_exact(1);
        assert!(!byte.is_empty(), "{head}");
        head.push(char::from(byte[0]));
    }
    let lines = head.lines().filter(|line| !line.starts_with("Server: ") && !line.starts_with("Date: "));
    (lines.collect::<Vec<_>>().join("|"), connection.get("/").expect(200).text())
}

/// The status of an answer to `CONNECT`, and its field `Connection`.
fn refused(port: u16, target: &str, lines: &str) -> (u16, Option<String>) {
    let mut connection = Connection::open(port);
    connection.send(connect(target, lines));
    let answer = connection.answer("CONNECT");
    (answer.status, answer.header("Connection").map(Into::into))
}

fn dead() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

#[test]
fn bytes_go_both_ways_to_where_the_client_asks_for() {
    let (backend, port) = (Backend::named("there"), free_port());
    let server = serve(port, "", "tunnel_pass; add_header X-A b; gzip on; expires 1d;");
    let (head, said) = ask_through(port, &backend.address().to_string());
    assert!(head.starts_with("HTTP/1.1 200 OK|Connection: close|Expires: "), "{head}");
    assert!(
        head.contains("|X-A: b|") && !head.contains("Content-Type") && !head.contains("Transfer-Encoding"),
        "{head}"
    );
    assert_eq!(said, "there");
    // What comes with the head goes on, too, and the backend ends what it does not want to go on with.
    let mut connection = Connection::open(port);
    let whole = connect(&backend.address().to_string(), "") + "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    connection.send(whole);
    let said = String::from_utf8(connection.read_to_end()).expect("text");
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\nthere"), "{said}");
    // Who has nothing to resolve names with connects to addresses alone.
    assert_eq!(refused(port, "localhost:80", ""), (502, Some("close".into())));
    let log = || server.dir().read("tunnel.log");
    wait::until("all are logged", wait::SOON, || log().lines().count() == 3);
    let log = log();
    let length = log.split(' ').nth(1).expect("a length").to_owned();
    let line = format!("200 {length} [{0}] [-] 35 {length} 0 - CONNECT {0} HTTP/1.1", backend.address());
    assert_eq!(log.lines().next(), Some(&*line));
    assert!(server.error_log().contains("no resolver defined to resolve localhost"));
}

#[test]
fn only_who_may_gets_a_connection() {
    let (backend, port) = (Backend::named("there"), free_port());
    let target = backend.address().to_string();
    let rest = format!("if ($request_port != {}) {{ return 403; }}", backend.address().port());
    let _server =
        serve(port, "", &format!("location / {{ {rest} tunnel_pass; }} location /here {{ return 200 here; }}"));
    assert_eq!(ask_through(port, &target).1, "there");
    let close = || Some("close".to_owned());
    assert_eq!(refused(port, "127.0.0.1:22", ""), (403, close()));
    assert_eq!(refused(port, &target, "Content-Length: 1\r\n"), (400, close()));
    assert_eq!(refused(port, &target, "Transfer-Encoding: chunked\r\n"), (400, close()));
    assert_eq!(client::get(port, "/here").expect(200).text(), "here");
    let mut old = Connection::open(port);
    old.send(format!("CONNECT {target} HTTP/1.0\r\nHost: {target}\r\n\r\n"));
    assert_eq!(old.answer("CONNECT").status, 405);
}

#[test]
fn a_server_without_tunnels_takes_no_connect() {
    let (backend, port) = (Backend::named("there"), free_port());
    let tunnel = format!("server {{ listen 127.0.0.1:{port}; server_name with; tunnel_pass {}; }}", backend.address());
    let _server = serve(port, &tunnel, "server_name without; return 200;");
    assert_eq!(ask_through(port, "with:1").1, "there");
    assert_eq!(refused(port, "without:1", ""), (405, Some("close".into())));
}

#[test]
fn a_password_for_a_proxy_is_asked_for_in_its_own_field() {
    let (backend, port) = (Backend::named("there"), free_port());
    let auth = "auth_basic closed; auth_basic_user_file users;";
    let dir = crate::support::scratch::Scratch::new();
    dir.write("users", "plain:{PLAIN}pass\n");
    let inside = format!("access_log tunnel.log tunnel; tunnel_pass {}; {auth}", backend.address());
    let server = format!("{LOG} server {{ listen 127.0.0.1:{port}; {inside} }}");
    let server = Server::http_in(dir, port, &server);
    let credentials = "Basic cGxhaW46cGFzcw==";
    for wrong in ["", &format!("Authorization: {credentials}\r\n"), "Proxy-Authorization: Basic cGxhaW46eA==\r\n"] {
        let mut connection = Connection::open(port);
        connection.send(connect("any:80", wrong));
        let answer = connection.answer("CONNECT").expect(407);
        assert_eq!(answer.header("Proxy-Authenticate"), Some("Basic realm=\"closed\""));
        assert_eq!((answer.header("WWW-Authenticate"), answer.header("Connection")), (None, Some("close")));
    }
    let mut connection = Connection::open(port);
    connection.send(connect("any:80", &format!("Proxy-Authorization: {credentials}\r\n")));
    assert!(connection.read_exact(15).starts_with(b"HTTP/1.1 200 OK"));
    drop(connection);
    wait::until("it is logged", wait::SOON, || server.dir().read("tunnel.log").contains(" plain CONNECT any:80 "));
}

#[test]
fn the_next_server_is_tried_unless_it_is_not_to_be() {
    let (backend, port, dead) = (Backend::named("there"), free_port(), dead());
    let group = format!("upstream some {{ server {dead}; server {0}; }}", backend.address());
    let none = format!("upstream none {{ server {dead}; server {dead} backup; }}");
    let locations = format!(
        "location / {{ tunnel_pass some; }} \
         server_name a; }} server {{ listen 127.0.0.1:{port}; server_name off; tunnel_pass none; tunnel_next_upstream off; \
         error_page 502 /sorry; location = /sorry {{ return 200 sorry; }} \
         }} server {{ listen 127.0.0.1:{port}; server_name again; tunnel_pass none; error_page 502 = @other; \
         location @other {{ tunnel_pass {}; }}",
        backend.address()
    );
    let server = serve(port, &format!("{group} {none}"), &locations);
    for _ in 0..3 {
        assert_eq!(ask_through(port, "a:1").1, "there");
    }
    assert_eq!(ask_through(port, "again:1").1, "there");
    assert_eq!(refused(port, "off:1", ""), (502, Some("close".into())));
    let line = format!("upstream: \"{dead}\"");
    assert!(server.error_log().lines().any(|text| text.contains("connect() failed (111") && text.contains(&line)));
}

#[test]
fn a_silent_tunnel_is_closed_after_its_time() {
    let (backend, port) = (Backend::start(|_| Reply::Close), free_port());
    let server = serve(port, "", "tunnel_pass; tunnel_read_timeout 300ms;");
    let mut connection = Connection::open(port);
    connection.send(connect(&backend.address().to_string(), ""));
    let said = String::from_utf8(connection.read_to_end()).expect("text");
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\n"), "{said}");
    let words =
        ["[info]", "upstream timed out (110: Connection timed out) while proxying upgraded connection", "CONNECT"];
    server.expect_log(&words);
}

#[test]
fn a_tunnel_may_lead_to_one_place_whatever_the_client_asks_for() {
    let (backend, port) = (Backend::named("there"), free_port());
    let variable = "location / { tunnel_pass $http_to; }";
    let _server = serve(port, &format!("upstream named {{ server {}; }}", backend.address()), variable);
    let asked = |to: &str| refused(port, "any:80", &format!("To: {to}\r\n")).0;
    let mut connection = Connection::open(port);
    connection.send(connect("any:80", "To: named\r\n"));
    assert!(connection.read_exact(15).starts_with(b"HTTP/1.1 200 OK"));
    // No name of a group, and no address with a port.
    assert_eq!([asked(""), asked("127.0.0.1"), asked("/a/b"), asked("other:80")], [500, 500, 500, 502]);
    let request = Request::new("OPTIONS", "/").header("To", "named");
    assert_eq!(client::ask(port, &request).status, 405);
}
