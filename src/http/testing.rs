//! Tests as texts: a configuration in, an answer or a fault out. The whole pipeline runs, in memory.

use super::{
    body::RequestBody,
    connection::{self, Connection},
    exchange::Exchange,
    heads::{
        Framing, Limits, RequestHead,
        request::{Parser, Progress},
    },
    modules::Settings,
    response::{self, Response},
    worker::Worker,
};
use crate::{
    config::{Inputs, Scope, scope::Surroundings, values::Address},
    generation::Generation,
    http::Http,
    process::worker::Current,
    syntax::{self, Fault, Severity, Source, Sources},
};
use bytes::Bytes;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

/// What a client would have got.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A field by name; of several the first.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// The settings of a location that says this.
pub fn conf(directives: &str) -> Settings {
    let http = http(&format!("server {{ location / {{ {directives} }} }}"));
    let found = http.servers[0].locations.find(b"/").unwrap();
    found.outcome.location().unwrap().settings.clone()
}

/// The first `[emerg]` about a location that says this, without its place.
pub fn fault(directives: &str) -> String {
    http_fault(&format!("server {{ location / {{ {directives} }} }}"))
}

/// The first `[emerg]` about what stands in `http {}`, without its place.
pub fn http_fault(text: &str) -> String {
    let (_, sources, mut faults) = read(text);
    crate::config::render::sort(&mut faults, &sources);
    let first = faults.into_iter().find(|fault| fault.severity == Severity::Emerg);
    first.map(|fault| String::from_utf8_lossy(&fault.message).into_owned()).unwrap_or_default()
}

/// What a server that says this answers to `GET` of a target.
pub fn get(server: &str, target: &str) -> Answer {
    ask(server, &format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

/// What a server that says this answers to a request's head.
pub fn ask(server: &str, request: &str) -> Answer {
    ask_http(&format!("server {{ {server} }}"), request)
}

/// The same with the whole of `http {}`.
pub fn ask_http(text: &str, request: &str) -> Answer {
    let http = Arc::new(http(text));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, answer(http, head(request)))
}

async fn answer(http: Arc<Http>, head: RequestHead) -> Answer {
    let worker =
        Rc::new(Worker::new(Current::new(Arc::new(Generation { http: Arc::clone(&http), shutdown_timeout: None }))));
    let listener = Arc::clone(&http.listeners[0]);
    let (local, remote) = (tcp("127.0.0.1:80"), tcp("127.0.0.1:40000"));
    let connection = Rc::new(Connection::new(worker, http, listener, 1, local, remote));
    let mut exchange = connection::exchange(&connection, Box::new(head), RequestBody::default());
    let response = match connection::place(&mut exchange) {
        Ok(()) => super::pipeline::answer(&mut exchange).await,
        Err(status) => super::pipeline::refuse(&mut exchange, status).await,
    };
    written(&exchange, *response.expect("the connection was closed without an answer")).await
}

async fn written(exchange: &Exchange, mut response: Response) -> Answer {
    let framing = response::framing(exchange, &response);
    let head = response::head(exchange, &response, framing, framing != Framing::Close);
    let mut body = Vec::new();
    if !response.bodyless(exchange) {
        while let Some(piece) = std::future::poll_fn(|cx| response.body.poll_next(cx)).await {
            body.extend_from_slice(&piece.unwrap());
        }
    }
    Answer { status: response.status, head: String::from_utf8_lossy(&head).into_owned(), body }
}

fn head(request: &str) -> RequestHead {
    let mut parser = Parser::default();
    match parser.parse(request.as_bytes(), &Limits::default()) {
        Progress::Complete(length) => parser.finish(Bytes::copy_from_slice(&request.as_bytes()[..length])),
        other => panic!("not a request: {other:?}"),
    }
}

fn tcp(address: &str) -> Address {
    Address::Tcp(address.parse::<SocketAddr>().unwrap())
}

/// Reads what stands in `http {}`.
pub fn http(text: &str) -> Http {
    let (http, _, faults) = read(text);
    let fault = faults.iter().find(|fault| fault.severity == Severity::Emerg);
    assert!(fault.is_none(), "{:?}", fault.map(|fault| String::from_utf8_lossy(&fault.message).into_owned()));
    http
}

fn read(text: &str) -> (Http, Sources, Vec<Fault>) {
    let mut faults = Vec::new();
    let block = syntax::parse(0, text.as_bytes(), &mut faults);
    let source = Source { path: "nginx.conf".into(), text: text.into(), included_at: None };
    let surroundings = Surroundings {
        prefix: "/nowhere/".into(),
        conf: "/nowhere/".into(),
        host_name: "testing".to_owned(),
        superuser: true,
        access_log: "/dev/null".into(),
        temp_folders: Vec::new(),
    };
    let scope = Scope::new(surroundings, &Nothing);
    let http = super::generation::read(&block, Settings::default(), 512, &scope);
    faults.extend(scope.take_faults());
    (http, Sources(vec![source]), faults)
}

/// A world without files and names, but for loopback.
struct Nothing;

impl Inputs for Nothing {
    fn read(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn glob(&self, _pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        match host {
            "localhost" => Ok(vec![IpAddr::from([127, 0, 0, 1])]),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

#[test]
fn an_idle_connection_is_small_and_a_request_is_bounded() {
    let http = Arc::new(http("server { return 200; }"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let worker = Rc::new(Worker::new(Current::new(Arc::new(Generation {
            http: Arc::clone(&http),
            shutdown_timeout: None,
        }))));
        let listener = Arc::clone(&http.listeners[0]);
        let (local, remote) = (tcp("127.0.0.1:80"), tcp("127.0.0.1:40000"));
        let connection = || {
            let (http, listener) = (Arc::clone(&http), Arc::clone(&listener));
            Connection::new(Rc::clone(&worker), http, listener, 1, local.clone(), remote.clone())
        };
        let held = Rc::new(connection());
        let mut exchange =
            connection::exchange(&held, Box::new(head("GET / HTTP/1.0\r\n\r\n")), RequestBody::default());
        assert!(size_of_val(&super::pipeline::answer(&mut exchange)) <= 4096);
        assert!(size_of::<Connection>() <= 256);
        let (stream, _other) = tokio::io::duplex(64);
        let size = size_of_val(&connection::serve(stream, connection()));
        // With what tokio adds, a task is then one block of 512 bytes; the next size is 768.
        assert!(size <= 392, "{size}");
    });
}
