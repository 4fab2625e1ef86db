//! Tutorial 003: Flask services in Docker containers, found by their names, behind the official nginx image; and the
//! exercise `mult` with weights and a backup.

use super::{ask_times, expect_lines, python};
use crate::support::backend::{Backend, Reply};
use crate::support::client::{self, Answer, Connection, Request};
use crate::support::component::{need, venv};
use crate::support::container::{Build, Container};
use crate::support::measure;
use crate::support::program::{Program, send};
use crate::support::{project, replaced, wait};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::time::Duration;

/// The containers' names without the folder's, in the order of their addresses.
const NAMES: [&str; 8] = ["ping_1", "ping_2", "calc_1", "soma_1", "sub_1", "mult_1", "mult_2", "mult_3"];

/// The reader's Docker network 172.18.0.0/16 with the services in it, and the image's file tree.
struct Compose {
    services: BTreeMap<&'static str, Program>,
    python: String,
    container: Container,
}

impl Compose {
    /// `docker-compose up --build`, up to where nginx starts. The file is the tutorial's or the exercise's.
    fn new(file: &str) -> Option<Self> {
        if !need(&["python3"]) {
            return None;
        }
        let python = python(venv()?);
        let container = Container::new(Build::Docker)?;
        // The network's other end is there, but nobody at it answers for an address that no container has.
        container.ip("link add eth0 type veth peer name bridge");
        container.ip("link set eth0 up");
        container.ip("link set bridge up");
        container.ip("addr add 172.18.0.100/16 dev eth0");
        let name = |(number, name): (usize, &str)| format!("172.18.0.{} microsservicos_{name}\n", number + 2);
        let names: String = NAMES.into_iter().enumerate().map(name).collect();
        container.write("/etc/hosts", format!("127.0.0.1 localhost\n{names}"));
        // The image's logs are the container's output; the Dockerfile replaces the configuration.
        container.link("/dev/stdout", "/var/log/nginx/access.log");
        container.link("/dev/stderr", "/var/log/nginx/error.log");
        container.remove("/etc/nginx/conf.d/default.conf");
        container.copy(&format!("nginx-examples/003-docker-flask/{file}"), "/etc/nginx/nginx.conf");
        Some(Self { services: BTreeMap::new(), python, container })
    }

    /// `docker start …`
    fn start(&mut self, names: &[&'static str]) {
        let app = project("fixtures/apps/flask/app.py");
        for name in names {
            let address = address(name);
            self.container.ip(&format!("addr add {address}/32 dev lo"));
            let words = [&self.python, app.to_str().expect("a path in UTF-8"), name, &address];
            self.services.insert(name, self.container.start(name, &words));
        }
        for name in names {
            self.container.wait_for(&format!("{}:5000", address(name)));
        }
    }

    /// `docker stop NAME`: the process and its address are gone, so that connecting fails as "No route to host".
    fn stop(&mut self, name: &'static str) {
        self.kill(name);
        self.container.ip(&format!("addr del {}/32 dev lo", address(name)));
    }

    /// The process alone ends: connections are refused.
    fn kill(&mut self, name: &'static str) {
        self.services.remove(name).expect("a running service").kill();
    }

    /// `CMD nginx -g 'daemon off;'`, in the foreground as process 1.
    fn start_nginx(&self) -> Nginx {
        let outer = self.container.start_as_init("nginx", &self.container.nginx_words(&["-g", "daemon off;"]));
        self.container.wait_for_port(80);
        Nginx(outer)
    }
}

/// nginx as process 1 of its own process namespace.
struct Nginx(Program);

impl Nginx {
    /// Process 1, by the id it has outside.
    fn master(&self) -> i32 {
        Container::init(&self.0)
    }

    /// `docker logs nginx`: the access log.
    fn access_log(&self) -> String {
        self.0.stdout()
    }

    /// `docker logs nginx`: the error log.
    fn error_log(&self) -> String {
        self.0.stderr()
    }
}

fn address(name: &str) -> String {
    let number = NAMES.iter().position(|other| *other == name).expect("one of the names");
    format!("172.18.0.{}", number + 2)
}

fn container(answer: &Answer) -> String {
    answer.header("X-Container").unwrap_or("nobody").to_owned()
}

/// A for mult_1, B for mult_2, R for the reserve.
fn letter(answer: &Answer) -> String {
    let name = container(answer);
    ["A", "B", "R"][usize::from(name.as_bytes()[5] - b'1')].to_owned()
}

#[test]
fn the_services_answer_at_their_paths() {
    let Some(mut compose) = Compose::new("nginx.conf") else { return };
    compose.start(&NAMES[..5]);
    let nginx = compose.start_nginx();
    assert_eq!(client::get(80, "/ping").expect(200).text(), "PONG");
    let json = |path: &str| client::get(80, path).expect(200).text().replace([' ', '\n'], "");
    assert_eq!(json("/soma?op1=10&op2=20"), "{\"resultado\":30}");
    assert_eq!(json("/sub?op1=10&op2=20"), "{\"resultado\":-10}");
    assert!(json("/calc").contains("soma"));
    let refused = client::get(80, "/soma?op1=10").expect(400);
    assert_eq!(refused.text(), "op1 ou op2 não informado");
    assert_eq!(container(&refused), "soma_1");
    // The only server answers for every name.
    for host in ["app.com", "127.0.0.1", "else.where"] {
        assert_eq!(client::ask(80, &Request::get("/ping").header("Host", host)).expect(200).text(), "PONG");
    }
    // Nothing is served besides: the prefix has no html folder in the image.
    assert!(client::get(80, "/").expect(404).text().contains("<center><h1>404 Not Found</h1></center>"));
    let missing = "\"/etc/nginx/html/index.html\" is not found (2: No such file or directory)";
    expect_lines(
        1,
        || nginx.error_log(),
        &["[error]", missing, "client: 127.0.0.1, server: app.com, request: \"GET / HTTP/1.1\""],
    );
    let log = || nginx.access_log();
    expect_lines(9, log, &["127.0.0.1 - - [", "\"GET /", " \"-\" \"-\""]);
    expect_lines(1, log, &["] \"GET /soma?op1=10 HTTP/1.1\" 400 25 \"-\" \"-\""]);
}

#[test]
fn two_pings_take_turns_and_the_other_covers_for_a_stopped_one() {
    let Some(mut compose) = Compose::new("nginx.conf") else { return };
    compose.start(&["ping_1", "ping_2"]);
    let nginx = compose.start_nginx();
    assert_eq!(ask_times(4, "/ping", container), ["ping_1", "ping_2", "ping_1", "ping_2"]);

    compose.stop("ping_1");
    assert_eq!(ask_times(5, "/ping", container), ["ping_2"; 5]);
    let failed = "failed (113: No route to host) while connecting to upstream, client: 127.0.0.1, server: app.com";
    expect_lines(1, || nginx.error_log(), &["[error]", failed, "upstream: \"http://172.18.0.2:5000/ping\""]);
    // The default level is `error`: that a peer is left out for a while is a warning.
    expect_lines(0, || nginx.error_log(), &["temporarily disabled"]);

    compose.start(&["ping_1"]);
    wait::until("ping_1 is asked again", Duration::from_secs(15), || {
        container(&client::get(80, "/ping").expect(200)) == "ping_1"
    });
}

#[test]
fn a_service_without_another_is_asked_every_time() {
    let Some(mut compose) = Compose::new("nginx.conf") else { return };
    compose.start(&["soma_1"]);
    let nginx = compose.start_nginx();
    client::get(80, "/soma?op1=1&op2=2").expect(200);
    compose.kill("soma_1");
    for asked in 1..=3 {
        client::get(80, "/soma?op1=1&op2=2").expect(502);
        expect_lines(asked, || nginx.error_log(), &["(111: Connection refused)", "172.18.0.5:5000"]);
    }
    compose.container.ip("addr del 172.18.0.5/32 dev lo");
    compose.start(&["soma_1"]);
    client::get(80, "/soma?op1=1&op2=2").expect(200);
}

#[test]
fn the_exercise_shows_a_a_b_a_then_failover_then_the_backup() {
    let Some(mut compose) = Compose::new("exercise-mult/nginx.conf") else { return };
    compose.start(&NAMES[5..]);
    let nginx = compose.start_nginx();
    let path = "/mult?op1=6&op2=7";
    assert!(client::get(80, path).expect(200).text().contains("42"));
    assert_eq!(ask_times(11, path, letter).concat(), "ABAAABAAABA");

    compose.kill("mult_1");
    assert_eq!(ask_times(6, path, letter).concat(), "BBBBBB");
    compose.kill("mult_2");
    assert_eq!(ask_times(6, path, letter).concat(), "RRRRRR");
    for address in ["172.18.0.7", "172.18.0.8"] {
        expect_lines(1, || nginx.error_log(), &["(111: Connection refused)", address]);
    }

    compose.container.ip("addr del 172.18.0.7/32 dev lo");
    compose.start(&["mult_1"]);
    wait::until("A is asked again", Duration::from_secs(15), || letter(&client::get(80, path).expect(200)) == "A");
    assert_eq!(ask_times(4, path, letter).concat(), "AAAA");
}

#[test]
fn one_name_with_two_addresses_is_two_peers() {
    let Some(mut compose) = Compose::new("nginx.conf") else { return };
    compose.start(&["ping_1", "ping_2"]);
    compose.container.write("/etc/hosts", "172.18.0.2 ping\n172.18.0.3 ping\n");
    compose.container.write(
        "/etc/nginx/nginx.conf",
        "events {}\nhttp {\n upstream app { server ping:5000; }\n server { listen 80; location / { proxy_pass http://app; } }\n}\n",
    );
    let _nginx = compose.start_nginx();
    let names = ask_times(4, "/ping", container);
    assert_eq!((&names[..2], names[0] != names[1]), (&names[2..], true), "{names:?}");
}

#[test]
fn a_name_nobody_has_stops_the_start() {
    let Some(compose) = Compose::new("nginx.conf") else { return };
    let hosts = compose.container.read("/etc/hosts").replace("172.18.0.3 microsservicos_ping_2\n", "");
    compose.container.write("/etc/hosts", hosts);
    // Messages go to the log and to the console.
    compose.container.remove("/var/log/nginx/error.log");
    let text = "host not found in upstream \"microsservicos_ping_2:5000\" in /etc/nginx/nginx.conf:10\n";
    let ran = compose.container.nginx(&["-g", "daemon off;"]);
    assert_eq!((ran.code, ran.stderr), (Some(1), format!("nginx: [emerg] {text}")));
    let ran = compose.container.nginx(&["-t"]);
    let failed = "nginx: configuration file /etc/nginx/nginx.conf test failed\n";
    assert_eq!((ran.code, ran.stderr), (Some(1), format!("nginx: [emerg] {text}{failed}")));
    assert!(compose.container.read("/var/log/nginx/error.log").contains(text.trim_end()));
}

#[test]
fn services_see_the_upstreams_name_as_their_host() {
    let Some(compose) = Compose::new("nginx.conf") else { return };
    compose.container.ip("addr add 172.18.0.4/32 dev lo");
    let calc =
        Backend::start_on("172.18.0.4:5000".parse().expect("an address"), |request| Reply::Text(request.head.clone()));
    let _nginx = compose.start_nginx();
    let request =
        Request::get("/calc?a=%20b").header("Host", "app.com").header("Accept", "*/*").header("TE", "trailers");
    let head = client::ask(80, &request.header("Connection", "keep-alive")).expect(200).text();
    // nginx has asked in HTTP/1.1 and kept the connection since 1.29.7.
    let (version, connection) = if replaced() { ("1.0", "Connection: close\r\n") } else { ("1.1", "") };
    assert_eq!(head, format!("GET /calc?a=%20b HTTP/{version}\r\nHost: calc\r\n{connection}Accept: */*\r\n\r\n"));
    for _ in 0..9 {
        client::get(80, "/calc").expect(200);
    }
    // A request may come before the connection of the one before is back.
    let expected = if replaced() { 10..=10 } else { 1..=2 };
    assert!(expected.contains(&calc.connections()), "{} connections", calc.connections());
}

#[test]
fn docker_stop_is_quick_and_finishes_what_is_under_way() {
    let Some(mut compose) = Compose::new("nginx.conf") else { return };
    compose.start(&["calc_1"]);
    compose.container.ip("addr add 172.18.0.6/32 dev lo");
    let slow = Backend::start_on("172.18.0.6:5000".parse().expect("an address"), |_| {
        Reply::After(Duration::from_secs(1), Box::new(Reply::Text("slow".to_owned())))
    });
    let mut nginx = compose.start_nginx();
    let mut idle = Connection::open(80);
    idle.get("/calc").expect(200);
    let mut busy = Connection::open(80);
    busy.send(Request::get("/sub").bytes());
    wait::until("the request is under way", wait::SOON, || slow.hits() == 1);
    // The image's STOPSIGNAL; after ten seconds Docker would kill it.
    send(nginx.master(), Signal::QUIT);
    assert_eq!(busy.answer("GET").expect(200).text(), "slow");
    assert!(idle.closes_within(Duration::from_secs(9)));
    assert!(nginx.0.wait(Duration::from_secs(9)).success());
}

#[test]
fn a_killed_worker_is_replaced() {
    let Some(mut compose) = Compose::new("nginx.conf") else { return };
    compose.start(&["calc_1"]);
    let nginx = compose.start_nginx();
    client::get(80, "/calc").expect(200);
    let workers = measure::children(nginx.master());
    assert!(!workers.is_empty());
    for worker in &workers {
        send(*worker, Signal::KILL);
    }
    let serves = || {
        let now = measure::children(nginx.master());
        !now.is_empty() && now.iter().all(|worker| !workers.contains(worker))
    };
    wait::until("there are others", wait::SOON, serves);
    wait::until("they serve", wait::SOON, || Connection::open(80).get("/calc").status == 200);
}
