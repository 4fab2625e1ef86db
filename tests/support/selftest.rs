//! The helpers themselves: what the other tests rely on without looking.

use super::backend::{Backend, Reply};
use super::client::{self, Connection, Request};
use super::container::{Build, Container};
use super::ports::free_port;
use super::program::Program;
use super::server::Server;
use super::wait;
use std::process::Command;
use std::time::Duration;

#[test]
fn a_backend_answers_as_it_is_told_and_counts() {
    let backend = Backend::start(|request| match request.target() {
        "/close" => Reply::Close,
        "/raw" => Reply::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        _ => Reply::Text(format!("{} {}", request.method(), String::from_utf8_lossy(&request.body))),
    });
    let mut connection = Connection::open(backend.address());
    let form = Request::post("/", "text/plain", "some text");
    assert_eq!(connection.ask(&form).expect(200).text(), "POST some text");
    assert_eq!(connection.get("/again").expect(200).text(), "GET ");
    assert_eq!(connection.get("/raw").expect(204).line(), "HTTP/1.1 204 No Content");
    assert!(connection.closes_within(wait::SOON));
    assert_eq!(client::get(backend.address(), "/close").status, 0);
    assert_eq!((backend.hits(), backend.connections()), (4, 2));
    assert_eq!(backend.requests()[1].line(), "GET /again HTTP/1.1");
}

#[test]
fn a_killed_backend_refuses_and_comes_back_on_its_port() {
    let mut backend = Backend::named("A");
    let mut kept = Connection::open(backend.address());
    assert_eq!(kept.get("/").expect(200).text(), "A");
    backend.kill();
    assert!(kept.closes_within(wait::SOON));
    assert!(!wait::connectable(backend.address()));
    backend.restart();
    assert_eq!(client::get(backend.address(), "/").expect(200).text(), "A");
}

#[test]
fn chunks_are_joined_and_a_cut_body_is_noticed() {
    let backend = Backend::start(|request| {
        let rest = if request.target() == "/whole" { "5;x=y\r\nworld\r\n0\r\nT: v\r\n\r\n" } else { "5\r\nwor" };
        Reply::Raw(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n{rest}").into_bytes())
    });
    assert_eq!(client::get(backend.address(), "/whole").expect(200).text(), "hello world");
    assert!(!client::get(backend.address(), "/cut").complete);
}

#[test]
fn a_server_serves_reloads_and_quits() {
    let port = free_port();
    let body = |text: &str| format!("server {{ listen 127.0.0.1:{port}; return 200 \"{text}\"; }}");
    let mut server = Server::http(port, &body("one"));
    assert_eq!(client::get(port, "/").expect(200).text(), "one");
    assert!(!server.workers().is_empty() && server.open_files() > 3 && server.memory() > 0);
    server.rewrite(&body("two"));
    server.reload();
    wait::until("the new answer comes", wait::SOON, || client::get(port, "/").text() == "two");
    wait::until("it is logged", wait::SOON, || server.access_log().contains("\"GET / HTTP/1.1\" 200 3 "));
    assert_eq!(server.quit().code(), Some(0));
}

#[test]
fn a_websocket_passes_through() {
    let backend = Backend::start(|_| Reply::UpgradeAndEcho);
    let port = free_port();
    let _server = Server::http(
        port,
        &format!(
            "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{}; proxy_http_version 1.1;\n\
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }}",
            backend.address()
        ),
    );
    let mut connection = Connection::open(port);
    let answer = connection.ask(&Request::get("/").header("Connection", "Upgrade").header("Upgrade", "websocket"));
    assert_eq!((answer.status, answer.header("Upgrade")), (101, Some("websocket")));
    for text in ["ping", "and once more"] {
        connection.send(text);
        assert_eq!(connection.read_exact(text.len()), text.as_bytes());
    }
}

#[test]
fn a_program_is_ended_with_its_value() {
    let mut command = Command::new("sleep");
    command.arg("1000");
    let program = Program::start("sleep", command);
    let pid = program.pid();
    assert!(super::measure::started(pid).is_some());
    drop(program);
    assert!(super::measure::started(pid).is_none());
}

#[test]
fn a_container_has_its_own_files_network_and_end() {
    let Some(container) = Container::new(Build::Docker) else { return };
    container.write("/etc/hosts", "127.0.0.9 somebody\n");
    assert_eq!(container.run(&["getent", "hosts", "somebody"]).succeeded().stdout, "127.0.0.9       somebody\n");
    assert!(!std::fs::read_to_string("/etc/hosts").expect("hosts").contains("somebody"));
    // A symlink to an absolute path leads to a file of the container, not to the machine's.
    let path = "/tmp/tidegate-symlink-target";
    container.link(path, "/tmp/link");
    container.write("/tmp/link", "inside");
    assert!(
        !std::path::Path::new(path).exists()
            && container.read(path) == "inside"
            && container.read("/tmp/link") == "inside"
    );
    let listener = std::net::TcpListener::bind("0.0.0.0:80").expect("port 80 is free in here");
    assert!(container.listens(80));
    drop(listener);
    let shell = "sleep 1000 & setsid sleep 1000 </dev/null >/dev/null 2>&1 &";
    container.run(&["sh", "-c", shell]).succeeded();
    let left = container.processes();
    assert_eq!(left.len(), 2);
    drop(container);
    for pid in left {
        wait::until("it is gone", Duration::from_secs(5), || super::measure::started(pid).is_none());
    }
}
