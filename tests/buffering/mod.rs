//! Between a peer and a client of another speed: what is kept for whom, and what is not.

use crate::support::backend::{Backend, Reply};
use crate::support::client::Connection;
use crate::support::ports::free_port;
use crate::support::replaced;
use crate::support::server::Server;
use crate::support::wait::{SOON, until};
use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc;

/// Far more than sockets hold.
const LARGE: usize = 50 << 20;

/// `LARGE` bytes that are different everywhere, behind a head.
fn large() -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n").into_bytes();
    answer.extend((0_u32..).flat_map(u32::to_le_bytes).take(LARGE));
    answer
}

/// Answers `/large` with that, everything else with its path.
fn backend() -> Backend {
    let answer = large();
    Backend::start(move |request| match request.target() {
        "/large" => Reply::Keep(answer.clone()),
        path => Reply::Text(path.to_owned()),
    })
}

/// How many files there are in a folder, at any depth.
fn files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let count = |path: &Path| if path.is_dir() { files(path) } else { 1 };
    entries.map(|entry| count(&entry.expect("an entry").path())).sum()
}

#[test]
fn a_slow_client_holds_neither_a_peer_nor_memory_and_leaves_no_file() {
    let backend = backend();
    let port = free_port();
    let server = Server::http(
        port,
        &format!(
            "error_log error.log warn; upstream u {{ server {} max_conns=1; keepalive 1; }}\n\
             server {{ listen 127.0.0.1:{port}; proxy_http_version 1.1; proxy_set_header Connection ''; \
             location / {{ proxy_pass http://u; }} }}",
            backend.address()
        ),
    );
    assert_eq!(Connection::open(port).get("/warm").status, 200);
    let before = server.memory();
    let mut slow = Connection::open(port);
    slow.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
    until("the peer has the request", SOON, || backend.hits() == 2);
    // The client has read nothing of its answer; the peer is busy until all of that is here.
    until("the peer is free", SOON, || Connection::open(port).get("/other").status == 200);
    assert!(server.memory() < before + 8 * 1024, "{} KiB, before {before}", server.memory());
    let answer = slow.answer("GET").expect(200);
    assert!(answer.body == large()[large().len() - LARGE..]);
    assert_eq!(backend.connections(), 1, "the connection was kept");
    let log = server.error_log();
    assert!(
        log.contains(" [warn] ") && log.contains(" an upstream response is buffered to a temporary file "),
        "{log}"
    );
    let temp = server.dir().path().join("proxy_temp");
    assert_eq!(files(&temp), 0, "nothing stays in {}", temp.display());
}

#[test]
fn without_a_file_memory_is_all_there_is_and_the_peer_waits() {
    let backend = backend();
    let port = free_port();
    let server = Server::http(
        port,
        &format!(
            "error_log error.log warn; server {{ listen 127.0.0.1:{port}; location / {{ proxy_max_temp_file_size 0; \
             proxy_pass http://{}; }} }}",
            backend.address()
        ),
    );
    Connection::open(port).get("/large").expect(200);
    let before = server.memory();
    let mut slow = Connection::open(port);
    slow.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
    until("the peer has the request", SOON, || backend.hits() == 2);
    assert_eq!(Connection::open(port).get("/other").text(), "/other");
    assert!(server.memory() < before + 8 * 1024, "{} KiB, before {before}", server.memory());
    let answer = slow.answer("GET").expect(200);
    assert!(answer.body == large()[large().len() - LARGE..]);
    assert!(!server.error_log().contains("buffered"), "{}", server.error_log());
}

/// A peer that sends the second half of an answer when it is told to.
fn halves(head: &'static str) -> (u16, mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("an address").port();
    let (go, goes) = mpsc::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a request");
            request.push(byte[0]);
        }
        let send = |mut stream: &TcpStream, text: &str| stream.write_all(text.as_bytes()).expect("sent");
        send(&stream, &format!("HTTP/1.1 200 OK\r\n{head}Content-Length: 10\r\n\r\nfirst"));
        goes.recv().expect("a word");
        send(&stream, "after");
    });
    (port, go)
}

#[test]
fn what_is_not_buffered_goes_on_at_once() {
    for (directive, head) in [("proxy_buffering off;", ""), ("", "X-Accel-Buffering: no\r\n")] {
        let (peer, go) = halves(head);
        let port = free_port();
        let _server = Server::http(
            port,
            &format!(
                "server {{ listen 127.0.0.1:{port}; location / {{ {directive} proxy_pass http://127.0.0.1:{peer}; }} }}"
            ),
        );
        let mut client = Connection::open(port);
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\nfirst") {
            let byte = client.read_exact(1);
            assert!(!byte.is_empty(), "{}", String::from_utf8_lossy(&seen));
            seen.extend(byte);
        }
        go.send(()).expect("the peer waits");
        assert_eq!(client.read_exact(5), b"after");
    }
}

#[test]
fn an_answer_is_stored_even_if_its_client_does_not_wait_for_it() {
    let backend = backend();
    let port = free_port();
    let server = Server::http(
        port,
        &format!(
            "server {{ listen 127.0.0.1:{port}; root store; location / {{ proxy_store on; proxy_store_access all:r; \
             proxy_pass http://{}; }} }}",
            backend.address()
        ),
    );
    let store = server.dir().path().join("store");
    std::fs::create_dir(&store).expect("mkdir");
    std::fs::set_permissions(&store, Permissions::from_mode(0o777)).expect("chmod");
    let stored = |name: &str| store.join(name);
    assert_eq!(Connection::open(port).get("/deep/small").text(), "/deep/small");
    until("the small one is there", SOON, || stored("deep/small").exists());
    assert_eq!(std::fs::read(stored("deep/small")).expect("read"), b"/deep/small");
    let mut hasty = Connection::open(port);
    hasty.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(hasty.read_exact(15), b"HTTP/1.1 200 OK");
    drop(hasty);
    until("the large one is there", SOON, || stored("large").exists());
    assert!(std::fs::read(stored("large")).expect("read") == large()[large().len() - LARGE..]);
    assert_eq!(files(&server.dir().path().join("proxy_temp")), 0);
}

#[test]
fn fields_behind_a_body_go_on_if_that_is_wanted() {
    // Since nginx 1.27.2.
    if replaced() {
        return;
    }
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-Sum: 42\r\nServer: x\r\n\
                  X-Hide: x\r\nOther:  y \r\n\r\n";
    let backend = Backend::start(move |_| Reply::Keep(answer.as_bytes().to_vec()));
    let port = free_port();
    let server = Server::http(
        port,
        &format!(
            "log_format l '$sent_trailer_x_sum|$upstream_trailer_server'; \
             server {{ listen 127.0.0.1:{port}; access_log access.log l; proxy_hide_header X-Hide; \
             location / {{ proxy_pass http://{0}; }} \
             location /on {{ proxy_pass_trailers on; add_trailer Own $uri; proxy_pass http://{0}; }} }}",
            backend.address()
        ),
    );
    for (request, end) in [
        ("GET /on HTTP/1.1", "5\r\nhello\r\n0\r\nx-Sum: 42\r\nOther: y\r\nOwn: /on\r\n\r\n"),
        ("GET / HTTP/1.1", "5\r\nhello\r\n0\r\n\r\n"),
        ("GET /on HTTP/1.0", "\r\n\r\nhello"),
    ] {
        let mut client = Connection::open(port);
        client.send(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n"));
        let text = String::from_utf8(client.read_to_end()).expect("text");
        assert!(text.ends_with(end), "{request}: {text}");
    }
    until("all are logged", SOON, || server.access_log().lines().count() == 3);
    assert_eq!(server.access_log(), "42|x\n-|-\n-|-\n");
    // The connection goes on behind them.
    let mut client = Connection::open(port);
    assert_eq!((client.get("/on").text(), client.get("/on").text()), ("hello".to_owned(), "hello".to_owned()));
}

#[test]
fn a_peer_that_says_too_much_is_heard_no_further() {
    let backend = Backend::start(|request| match request.target() {
        "/much" => Reply::Keep(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello world".to_vec()),
        "/behind" => {
            Reply::Keep(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n world".to_vec())
        }
        path => Reply::Text(path.to_owned()),
    });
    let port = free_port();
    let server = Server::http(
        port,
        &format!(
            "error_log error.log warn; upstream u {{ server {}; keepalive 1; }} server {{ listen 127.0.0.1:{port}; \
             proxy_http_version 1.1; proxy_set_header Connection ''; location / {{ proxy_pass http://u; }} }}",
            backend.address()
        ),
    );
    for (path, text) in [
        ("/much", "upstream sent more data than specified in \"Content-Length\" header while reading upstream"),
        ("/behind", "upstream sent data after final chunk while reading upstream"),
    ] {
        assert_eq!(Connection::open(port).get(path).text(), "hello");
        server.expect_log(&[text]);
    }
    assert_eq!(Connection::open(port).get("/fine").text(), "/fine");
    assert_eq!(backend.connections(), 3);
}

#[test]
fn a_long_request_is_kept_in_a_file_that_goes_with_it() {
    let backend = Backend::start(|request| Reply::Text(request.body.len().to_string()));
    let port = free_port();
    let server = Server::http(
        port,
        &format!(
            "error_log error.log notice; server {{ listen 127.0.0.1:{port}; client_body_buffer_size 1k; \
             location / {{ add_header F $request_body_file; proxy_pass http://{0}; }} \
             location /clean {{ client_body_in_file_only clean; add_header F $request_body_file; \
             proxy_pass http://{0}; }} \
             location /on {{ client_body_in_file_only on; proxy_pass http://{0}; }} }}",
            backend.address()
        ),
    );
    let temp = server.dir().path().join("client_body_temp");
    for (path, length, named, kept) in
        [("/", 1000, false, 0), ("/", 100_000, true, 0), ("/clean", 10, true, 0), ("/on", 10, false, 1)]
    {
        let mut client = Connection::open(port);
        client.send(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"));
        client.send("x".repeat(length));
        let answer = client.answer("POST").expect(200);
        assert_eq!(answer.text(), length.to_string(), "{path}");
        assert_eq!(answer.header("F").is_some(), named, "{path} {length}");
        drop(client);
        until(&format!("{kept} files are left behind {path}"), SOON, || files(&temp) == kept);
    }
    let log = server.error_log();
    let lines = |level: &str| {
        let text = "a client request body is buffered to a temporary file ";
        log.lines().filter(|line| line.contains(level) && line.contains(text)).count()
    };
    assert_eq!((lines("[warn]"), lines("[notice]")), (1, 2), "{log}");
}
