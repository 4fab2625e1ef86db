//! Balancing by what peers say of their load: `least_load` and its sources, and servers that register themselves.

use crate::support::backend::{Backend, Reply};
use crate::support::client::{self, Answer, Connection, Request};
use crate::support::ports::free_port;
use crate::support::server::Server;
use crate::support::{replaced, wait};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

/// A node of the tutorial: it says how loaded it is, and takes jobs.
struct Node {
    backend: Backend,
    load: Arc<Mutex<String>>,
}

impl Node {
    /// What it answers to `/status` is set by [`Node::says`]; to all else it answers its name.
    fn new(name: &'static str, load: &str) -> Self {
        let load = Arc::new(Mutex::new(load.to_owned()));
        let own = Arc::clone(&load);
        let backend = Backend::start(move |request| match request.target() {
            "/status" => Reply::Text(own.lock().unwrap().clone()),
            _ => Reply::Text(name.into()),
        });
        Self { backend, load }
    }

    fn says(&self, load: &str) {
        *self.load.lock().unwrap() = load.to_owned();
    }

    fn address(&self) -> SocketAddr {
        self.backend.address()
    }
}

/// What the tutorial's nodes answer.
fn json(load: f64) -> String {
    format!("{{\"status\":true,\"up\":\"10.0.0.1\",\"port\":\"3004\",\"load\":\"{load}\"}}")
}

fn upstream(port: u16, inside: &str) -> Server {
    let location = "location / { proxy_pass http://nodes; }";
    let register = "location = /assign-node { upstream_register nodes ip port weight=2 max=3; }";
    let server = format!("server {{ listen 127.0.0.1:{port}; {location} {register} }}");
    Server::http(port, &format!("upstream nodes {{ zone nodes 64k; {inside} }} {server}"))
}

fn who(port: u16) -> String {
    client::get(port, "/").expect(200).text()
}

#[track_caller]
fn until_asked(port: u16, name: &str) {
    wait::until(&format!("{name} is asked"), wait::SOON, || who(port) == name);
}

fn register(port: u16, body: &str) -> Answer {
    client::ask(port, &Request::post("/assign-node", "application/json", body))
}

#[test]
fn the_peer_that_reports_the_least_gets_the_requests() {
    if replaced() {
        return;
    }
    let (a, b, c) = (Node::new("a", &json(90.0)), Node::new("b", &json(5.0)), Node::new("c", &json(50.0)));
    let port = free_port();
    let servers = [&a, &b, &c].map(|node| format!("server {};", node.address())).concat();
    let check = "load_check uri=/status interval=50ms timeout=5s json=load;";
    let mut server = upstream(port, &format!("least_load; {check} {servers}"));
    until_asked(port, "b");
    server.expect_log(&["[notice]", &a.address().to_string(), "reports load 90"]);
    b.says(&json(95.0));
    until_asked(port, "c");
    // What is no number is known by nobody, and who answers no 2xx or 3xx is down.
    c.says("{\"load\":null}");
    until_asked(port, "a");
    let down = |node: &mut Node| node.backend.kill();
    let (mut a, mut c) = (a, c);
    down(&mut a);
    until_asked(port, "b");
    server.expect_log(&["[notice]", &a.address().to_string(), "is down: connect() failed (111"]);
    down(&mut c);
    let mut b = b;
    down(&mut b);
    server.expect_log(&["[notice]", &b.address().to_string(), "is down"]);
    server.expect_log(&["[notice]", &c.address().to_string(), "is down"]);
    client::get(port, "/").expect(502);
    a.backend.restart();
    server.expect_log(&["[notice]", &a.address().to_string(), "is up again"]);
    assert_eq!(who(port), "a");
    assert!(server.quit().success());
}

#[test]
fn even_a_lone_server_is_down_until_it_says_how_loaded_it_is_or_nobody_asks() {
    if replaced() {
        return;
    }
    let node = Backend::start(|request| match request.target() {
        "/status" => Reply::Raw(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec()),
        _ => Reply::Text("a".into()),
    });
    let port = free_port();
    let server = upstream(port, &format!("load_check uri=/status interval=50ms; server {};", node.address()));
    server.expect_log(&["[notice]", "is down: status 500"]);
    client::get(port, "/").expect(502);
    // So it is behind a reload, as long as somebody asks.
    server.reload();
    client::get(port, "/").expect(502);
    let file = server.dir().read("nginx.conf");
    server.dir().write("nginx.conf", file.replace("load_check uri=/status interval=50ms;", ""));
    server.reload();
    assert_eq!(who(port), "a");
}

#[test]
fn who_does_not_answer_leaves_with_remove_and_is_asked_no_more() {
    if replaced() {
        return;
    }
    let (a, b) = (Node::new("a", "1"), Node::new("b", "2%"));
    let port = free_port();
    let servers = [&a, &b].map(|node| format!("server {};", node.address())).concat();
    let check = "load_check uri=/status interval=50ms timeout=5s fails=2 on_fail=remove;";
    let server = upstream(port, &format!("least_load; {check} {servers}"));
    until_asked(port, "a");
    server.expect_log(&[&b.address().to_string(), "reports load 2"]);
    let mut a = a;
    a.backend.kill();
    server.expect_log(&["[notice]", &a.address().to_string(), "dropped: connect() failed (111"]);
    assert!(server.error_log().contains("does not say how loaded it is"));
    a.backend.restart();
    let (before, seen) = (a.backend.hits(), b.backend.hits());
    wait::until("b was asked often", wait::SOON, || b.backend.hits() > seen + 5);
    assert_eq!((a.backend.hits(), who(port)), (before, "b".to_owned()));
    // A reload of what is written as before changes nothing, and one source asks.
    server.reload();
    assert_eq!(who(port), "b");
    assert_eq!(register(port, &format!("{{\"ip\":\"127.0.0.1\",\"port\":{}}}", a.address().port())).status, 200);
    until_asked(port, "a");
    server.expect_log(&[&a.address().to_string(), "reports load 1"]);
}

#[test]
fn servers_register_once_and_outlive_a_reload() {
    if replaced() {
        return;
    }
    let nodes = ["a", "b", "c", "d"].map(|name| Node::new(name, "0"));
    let port = free_port();
    let server = upstream(port, "least_load;");
    client::get(port, "/").expect(502);
    let place = |node: &Node| format!("{{\"ip\":\"127.0.0.1\",\"port\":\"{}\"}}", node.address().port());
    let yes = "{\"status\":true,\"message\":\"successfully assigned child with address: 127.0.0.1\"}";
    let no = "{\"status\":false,\"message\":\"failed to assign address\"}";
    for node in [&nodes[0], &nodes[0], &nodes[1], &nodes[0]] {
        let answer = register(port, &place(node)).expect(200);
        assert_eq!((answer.text().as_str(), answer.header("Content-Type")), (yes, Some("application/json")));
    }
    let added =
        || server.error_log().lines().filter(|line| line.contains("[notice]") && line.ends_with("added")).count();
    assert_eq!(added(), 2);
    assert_eq!([(); 4].map(|()| who(port)), ["a", "b", "a", "b"]);
    server.reload();
    assert_eq!([(); 2].map(|()| who(port)), ["a", "b"]);
    register(port, &place(&nodes[2])).expect(200);
    assert_eq!(register(port, &place(&nodes[3])).expect(503).text(), no, "there are three");
    register(port, &place(&nodes[2])).expect(200);
    assert!(server.error_log().contains("has 3 servers already"));
    for (body, status) in [
        ("", 200),
        ("{}", 200),
        ("[]", 200),
        ("{\"ip\":\"\",\"port\":1}", 200),
        ("{\"ip\":null}", 200),
        ("{", 400),
        ("{\"ip\":\"localhost\",\"port\":1}", 400),
        ("{\"ip\":7,\"port\":1}", 400),
        ("{\"ip\":\"127.0.0.1\"}", 400),
        ("{\"ip\":\"127.0.0.1\",\"port\":0}", 400),
        ("{\"ip\":\"127.0.0.1\",\"port\":\"x\"}", 400),
        ("{\"ip\":\"127.0.0.1\",\"port\":65536}", 400),
        ("{\"ip\":\"0.0.0.0\",\"port\":80}", 400),
        ("{\"ip\":\"224.0.0.1\",\"port\":80}", 400),
    ] {
        let answer = register(port, body);
        assert_eq!((answer.status, answer.text().as_str()), (status, no), "{body}");
    }
    let long = format!("{{\"ip\":\"{}\",\"port\":1}}", "1".repeat(5000));
    register(port, &long).expect(413);
    let chunked = Request::new("POST", "/assign-node").header("Transfer-Encoding", "chunked");
    let mut connection = Connection::open(port);
    connection.send([chunked.bytes(), format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len()).into()].concat());
    connection.answer("POST").expect(413);
    let asked = |request: &Request| client::ask(port, request);
    assert_eq!(asked(&Request::get("/assign-node")).expect(405).header("Allow"), Some("POST"));
    asked(&Request::new("OPTIONS", "/assign-node")).expect(405);
    let elsewhere = |kind: &str| {
        let request = Request::post("/assign-node", kind, place(&nodes[0]));
        asked(&request.header("Origin", "http://elsewhere.example")).status
    };
    assert_eq!([elsewhere("text/plain"), elsewhere("application/json; charset=utf-8")], [415, 200]);
}

#[test]
fn who_may_register_is_said_by_allow_and_deny() {
    if replaced() {
        return;
    }
    let port = free_port();
    let _server = Server::http(
        port,
        &format!(
            "upstream nodes {{ zone nodes 64k; }} server {{ listen 127.0.0.1:{port}; \
             location = /assign-node {{ upstream_register nodes ip port; allow 10.0.0.0/8; deny all; }} }}"
        ),
    );
    register(port, "{\"ip\":\"127.0.0.1\",\"port\":80}").expect(403);
}

#[test]
fn answers_that_carry_the_load_say_who_is_next() {
    if replaced() {
        return;
    }
    let node = |name: &'static str, load: &Arc<Mutex<String>>| {
        let load = Arc::clone(load);
        Backend::start(move |_| {
            let load = load.lock().unwrap();
            Reply::Keep(format!("HTTP/1.1 200 OK\r\nX-Load: {load}\r\nContent-Length: 1\r\n\r\n{name}").into())
        })
    };
    let loads = [Arc::new(Mutex::new("80%".to_owned())), Arc::new(Mutex::new("TEXT cpu_utilization=20".to_owned()))];
    let (a, b, port) = (node("a", &loads[0]), node("b", &loads[1]), free_port());
    let servers = [&a, &b].map(|node| format!("server {};", node.address())).concat();
    let _server = upstream(port, &format!("least_load; load_header x-load; {servers}"));
    // Who has said nothing is asked last: the first alone is known, until it is away.
    assert_eq!([who(port), who(port)], ["a", "a"]);
    let mut a = a;
    a.kill();
    assert_eq!(who(port), "b");
    a.restart();
    assert_eq!([who(port), who(port)], ["b", "b"]);
    *loads[1].lock().unwrap() = "90".to_owned();
    let answer = client::get(port, "/").expect(200);
    assert_eq!((answer.text().as_str(), answer.header("X-Load")), ("b", Some("90")));
    // It failed a while ago, and is left out for ten seconds.
    wait::until("a is asked again", wait::SOON, || who(port) == "a");
}

/// An agent that says a line to whoever connects.
struct Agent {
    address: SocketAddr,
    line: Arc<Mutex<String>>,
    asked: Arc<Mutex<String>>,
}

impl Agent {
    fn on(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (line, asked) = (Arc::new(Mutex::new(String::new())), Arc::new(Mutex::new(String::new())));
        let (own, heard) = (Arc::clone(&line), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut question = [0; 5];
                let _ = stream.read_exact(&mut question);
                *heard.lock().unwrap() = String::from_utf8_lossy(&question).into_owned();
                let line = own.lock().unwrap().clone();
                let _ = stream.write_all(line.as_bytes());
            }
        });
        Self { address, line, asked }
    }

    fn says(&self, line: &str) {
        *self.line.lock().unwrap() = line.to_owned();
    }
}

#[test]
fn an_agent_sets_weight_drain_and_state_of_its_server() {
    if replaced() {
        return;
    }
    // Both servers have an agent at the same port of their own address.
    let one = Agent::on("127.0.0.1:0");
    let two = Agent::on(&format!("127.0.0.2:{}", one.address.port()));
    let (a, b) = (Backend::named("a"), Backend::start_on("127.0.0.2:0".parse().unwrap(), |_| Reply::Text("b".into())));
    let port = free_port();
    let servers = [&a, &b].map(|node| format!("server {} weight=100;", node.address())).concat();
    let agent = format!("agent_check port={} interval=50ms 'send=load\\n';", one.address.port());
    let server = upstream(port, &format!("{agent} {servers}"));
    let shares = || {
        // There may be nobody to ask while the agents are heard one after the other.
        (0..8).filter(|_| client::get(port, "/").text() == "a").count()
    };
    let settles = |what: &str, expected: usize| {
        wait::until(&format!("{what}: a gets {expected} of 8"), wait::SOON, || shares() == expected);
    };
    assert_eq!(shares(), 4);
    two.says("33.4%\n");
    one.says("100% up ready\r\n");
    settles("34 of 134", 6);
    assert_eq!(*two.asked.lock().unwrap(), "load\n");
    one.says("drain\n");
    settles("drained", 0);
    one.says("ready\n");
    two.says("0%\n");
    settles("no weight", 8);
    two.says("100%\n");
    settles("both again", 4);
    one.says("fail#disk is full\n");
    settles("down", 0);
    server.expect_log(&["[notice]", &a.address().to_string(), "is down, as its agent says: fail: disk is full"]);
    one.says("nonsense\n");
    server.expect_log(&["has an agent that says nothing: \"nonsense\" means nothing"]);
    assert_eq!(shares(), 0, "only `up` ends that");
    one.says("up\n");
    settles("up again", 4);
    one.says("maint\n");
    settles("maintained", 0);
    one.says("ready weight:300\n");
    settles("300 of 400", 6);
}
