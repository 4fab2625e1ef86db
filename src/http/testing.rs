//! Tests as texts: a configuration in, an answer or a fault out. The whole pipeline runs, in memory.

use super::{
    Http,
    connection::{self, Connection},
    heads::RequestHead,
    in_memory::{self, Reply},
    modules::Settings,
};
use crate::syntax::Severity;
use std::sync::Arc;

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
    let (_, sources, mut faults) = in_memory::read(text.as_bytes());
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
    let reply = in_memory::answer(http, head).await.unwrap();
    let Reply { status, head, body } = reply.expect("the connection was closed without an answer");
    Answer { status, head: String::from_utf8_lossy(&head).into_owned(), body }
}

fn head(request: &str) -> RequestHead {
    RequestHead::of(request.as_bytes()).expect("a request's head")
}

/// Reads what stands in `http {}`.
pub fn http(text: &str) -> Http {
    let (http, _, faults) = in_memory::read(text.as_bytes());
    let fault = faults.iter().find(|fault| fault.severity == Severity::Emerg);
    assert!(fault.is_none(), "{:?}", fault.map(|fault| String::from_utf8_lossy(&fault.message).into_owned()));
    http
}

#[test]
fn an_idle_connection_is_small_and_a_request_is_bounded() {
    let http = Arc::new(http("server { return 200; }"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let mut exchange = in_memory::exchange(Arc::clone(&http), head("GET / HTTP/1.0\r\n\r\n"));
        assert!(size_of_val(&super::pipeline::answer(&mut exchange)) <= 4096);
        assert!(size_of::<Connection>() <= 256);
        let (stream, _other) = tokio::io::duplex(64);
        let size = size_of_val(&connection::serve(stream, in_memory::connection(http)));
        // With what tokio adds, a task is then one block of 512 bytes; the next size is 768.
        assert!(size <= 392, "{size}");
    });
}
