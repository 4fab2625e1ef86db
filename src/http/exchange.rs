//! One request under way: what was asked, what applies to it, and what is remembered about it.

use super::{
    body::RequestBody,
    connection::Connection,
    generation::Http,
    heads::RequestHead,
    level::{Location, Server},
    modules::{State, rewrite},
    regex::{self, Regex},
    subrequest::Terms,
    variables::{Change, Definition},
};
use crate::{
    config::Handle,
    observe::error_log::{self, Asked, Level},
    upstream::Reason,
};
use bytes::Bytes;
use std::{
    cell::{OnceCell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

/// How often a request may be sent to another location before it is stopped (`NGX_HTTP_MAX_URI_CHANGES`).
pub const MAX_REDIRECTS: u8 = 10;

/// A request under way.
pub struct Exchange {
    /// Everything one reading of the configuration said; it stays the same for the whole request.
    pub http: Arc<Http>,
    pub connection: Rc<Connection>,
    pub server: Arc<Server>,
    /// What applies now: the server's own level until a location is found.
    pub location: Arc<Location>,
    /// The head as the client sent it.
    pub head: Box<RequestHead>,
    pub method: Method,
    /// `$uri`: normalised, as rewritten.
    pub path: Bytes,
    /// `$args`: as sent or rewritten.
    pub args: Bytes,
    /// `$host`: of the request line, the `Host` field, or the server's name; lower case, no port.
    pub host: Bytes,
    pub body: RequestBody,
    /// Reached by an internal redirect: may enter `internal` locations.
    pub internal: bool,
    /// The path still is what the client sent, so that `proxy_pass` may pass it on unchanged.
    pub pristine: bool,
    /// The path still is the one that found the location, so that `proxy_pass` may put its own in the place of the
    /// location's part of it (nginx's `valid_location`).
    pub valid_location: bool,
    /// The client's path had a `%XX`: it is escaped again where it is sent on.
    pub quoted: bool,
    /// How many subrequests this one is inside of; 0 for a client's own request.
    pub depth: u8,
    /// Internal redirects that are still allowed.
    pub redirects_left: u8,
    /// The status an `error_page` answers for; 0 while there is none.
    pub error_status: u16,
    /// The status `error_page … =code` puts in its place.
    pub overwritten_status: Option<u16>,
    /// What the last regular expression captured: `$1` …
    pub captures: Captures,
    /// What the modules remember.
    pub state: State,
    /// The attempts to reach an upstream, for `$upstream_*`.
    pub tries: Vec<Try>,
    pub started: Instant,
    /// What was answered, for logs and for `$status`, `$sent_http_*`.
    pub sent: Sent,
    /// The fields of the last upstream's answer.
    pub upstream_fields: super::heads::Fields,
    /// Those behind its body, where they are passed on.
    pub upstream_trailers: super::heads::Fields,
    /// The longest silence on a connection that has switched protocols.
    pub tunnel_timeout: Duration,
    /// The connection over which an upstream is asked just now.
    pub asking: Option<Rc<super::heads::Meter>>,
    /// How the answer of a subrequest is used.
    pub terms: Terms,
    /// The method of the client's request, for a subrequest.
    pub main_method: Option<Bytes>,
    /// What a client's request shares with all of its subrequests; made when there is something to share.
    family: OnceCell<Rc<Family>>,
}

/// What a client's request and its subrequests have in common.
#[derive(Default)]
struct Family {
    /// One list of variables for all of them.
    values: RefCell<Vec<Value>>,
}

/// The methods that nginx knows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Mkcol,
    Copy,
    Move,
    Options,
    Propfind,
    Proppatch,
    Lock,
    Unlock,
    Patch,
    Trace,
    Connect,
    Other,
}

impl Method {
    /// The names, as they stand in a request line and in `limit_except`.
    pub const NAMES: [(&'static str, Self); 16] = [
        ("GET", Self::Get),
        ("HEAD", Self::Head),
        ("POST", Self::Post),
        ("PUT", Self::Put),
        ("DELETE", Self::Delete),
        ("MKCOL", Self::Mkcol),
        ("COPY", Self::Copy),
        ("MOVE", Self::Move),
        ("OPTIONS", Self::Options),
        ("PROPFIND", Self::Propfind),
        ("PROPPATCH", Self::Proppatch),
        ("LOCK", Self::Lock),
        ("UNLOCK", Self::Unlock),
        ("PATCH", Self::Patch),
        ("TRACE", Self::Trace),
        ("CONNECT", Self::Connect),
    ];

    pub fn of(name: &[u8]) -> Self {
        Self::NAMES.iter().find(|(known, _)| known.as_bytes() == name).map_or(Self::Other, |(_, method)| *method)
    }

    /// The methods that files answer, `POST` being refused later.
    pub fn reads_or_posts(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Post)
    }

    /// `GET` or `HEAD`.
    pub fn reads(self) -> bool {
        matches!(self, Self::Get | Self::Head)
    }
}

/// The groups of the last regular expression that matched. They may change while a text is put together: a `map`
/// in it may try expressions of its own.
#[derive(Clone, Debug, Default)]
pub struct Captures(RefCell<Groups>);

#[derive(Clone, Debug, Default)]
struct Groups {
    subject: Bytes,
    places: smallvec::SmallVec<[(u32, u32); 4]>,
}

impl Captures {
    /// From the byte ranges of the groups, group 0 first; a group that took no part is empty.
    pub fn new(subject: Bytes, groups: impl IntoIterator<Item = Option<(usize, usize)>>) -> Self {
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let places = groups.into_iter().map(|group| group.map_or((0, 0), |(from, to)| (narrow(from), narrow(to))));
        Self(RefCell::new(Groups { subject, places: places.collect() }))
    }

    /// The text of group `n`; empty if there is none.
    pub fn get(&self, n: usize) -> Bytes {
        Bytes::copy_from_slice(self.0.borrow().get(n))
    }

    /// Appends the text of group `n`.
    pub fn append(&self, n: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.borrow().get(n));
    }

    /// Whether any expression captured.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().places.is_empty()
    }
}

impl Groups {
    fn get(&self, n: usize) -> &[u8] {
        self.places.get(n).map_or(&[], |&(from, to)| self.subject.get(from as usize..to as usize).unwrap_or(&[]))
    }
}

/// One attempt to get an answer from an upstream (`ngx_http_upstream_state_t`).
#[derive(Clone, Debug, Default)]
pub struct Try {
    /// The peer as logged; empty where none could be picked, then the group's name stands for it.
    pub peer: String,
    pub status: u16,
    /// `None` where nobody was asked.
    pub began: Option<Instant>,
    /// Milliseconds; `None` while unknown.
    pub connect_ms: Option<u64>,
    pub header_ms: Option<u64>,
    pub response_ms: Option<u64>,
    pub response_length: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Why it failed, or why the next one was asked though it answered.
    pub reason: Option<Reason>,
    /// The try belongs to a later internal redirect: `$upstream_addr` separates it by `:`.
    pub new_pass: bool,
}

/// What went out, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    pub status: u16,
    /// The head as written, for `$sent_http_*`.
    pub text: Bytes,
    /// Bytes of the head.
    pub head: u64,
    /// All bytes.
    pub total: u64,
    /// The fields behind the body, for `$sent_trailer_*`.
    pub trailers: super::heads::Fields,
    /// The response was sent whole.
    pub complete: bool,
}

/// A variable's value within one request.
#[derive(Clone, Debug, Default)]
enum Value {
    #[default]
    Unset,
    /// It has none.
    Missing,
    Known(Bytes),
}

impl Exchange {
    /// A request as it arrives at its server, before any phase.
    pub fn new(
        http: Arc<Http>,
        connection: Rc<Connection>,
        server: Arc<Server>,
        head: Box<RequestHead>,
        body: RequestBody,
    ) -> Self {
        let started = connection.worker.clock.instant();
        Self {
            http,
            connection,
            location: Arc::clone(&server.base),
            server,
            method: Method::of(&head.method),
            head,
            path: Bytes::new(),
            args: Bytes::new(),
            host: Bytes::new(),
            body,
            internal: false,
            pristine: true,
            quoted: false,
            valid_location: true,
            depth: 0,
            redirects_left: MAX_REDIRECTS,
            error_status: 0,
            overwritten_status: None,
            captures: Captures::default(),
            state: State::default(),
            tries: Vec::new(),
            started,
            sent: Sent::default(),
            upstream_fields: super::heads::Fields::new(),
            upstream_trailers: super::heads::Fields::new(),
            tunnel_timeout: Duration::ZERO,
            asking: None,
            terms: Terms::default(),
            main_method: None,
            family: OnceCell::new(),
        }
    }

    /// A request of the server's own inside of this one, before any phase (`ngx_http_subrequest`). It has the fields of
    /// this one's head, and shares its variables.
    pub fn child(&self, path: Bytes, args: Bytes, body: RequestBody) -> Self {
        let mut head = self.head.clone();
        head.method = Bytes::from_static(b"GET");
        head.content_length = body.length().filter(|_| head.has_body());
        head.chunked = false;
        // The client has sent none of it.
        head.length = 0;
        let (http, connection, server) =
            (Arc::clone(&self.http), Rc::clone(&self.connection), Arc::clone(&self.server));
        let mut child = Self::new(http, connection, server, head, body);
        child.path = path;
        child.args = args;
        child.internal = true;
        child.pristine = false;
        child.depth = self.depth + 1;
        child.main_method = Some(self.main_method.as_ref().unwrap_or(&self.head.method).clone());
        child.state.ssi = self.state.ssi.below();
        child.state.userid = self.state.userid.inside(&self.location.settings.userid);
        child.related(self)
    }

    /// This request once more: for what is made of its answer while that is sent.
    pub fn twin(&self) -> Self {
        let (http, connection, server) =
            (Arc::clone(&self.http), Rc::clone(&self.connection), Arc::clone(&self.server));
        let mut twin = Self::new(http, connection, server, self.head.clone(), self.body.share());
        twin.location = Arc::clone(&self.location);
        twin.method = self.method;
        twin.main_method = self.main_method.clone();
        twin.path = self.path.clone();
        twin.args = self.args.clone();
        twin.internal = self.internal;
        twin.pristine = self.pristine;
        twin.quoted = self.quoted;
        twin.depth = self.depth;
        twin.captures = self.captures.clone();
        twin.tries.clone_from(&self.tries);
        twin.upstream_fields = self.upstream_fields.clone();
        twin.started = self.started;
        twin.terms.in_memory = self.terms.in_memory;
        twin.state.ssi = self.state.ssi.beside();
        twin.related(self)
    }

    /// With what belongs to the client's request rather than to this one.
    fn related(mut self, other: &Self) -> Self {
        self.host = other.host.clone();
        self.state.realip.clone_from(&other.state.realip);
        self.state.core.request_id = other.state.core.request_id.clone();
        self.family = Rc::clone(other.family()).into();
        self
    }

    /// How many requests belong together, this one among them.
    pub fn relatives(&self) -> usize {
        Rc::strong_count(self.family())
    }

    fn family(&self) -> &Rc<Family> {
        self.family.get_or_init(Rc::default)
    }

    /// Appends a variable's value; whether it has one.
    pub fn variable(&self, handle: Handle, out: &mut Vec<u8>) -> bool {
        match &self.http.variables[handle.0 as usize] {
            Definition::Builtin(variable) => match self.stored(handle) {
                Some(Value::Known(value)) => {
                    out.extend_from_slice(&value);
                    true
                }
                _ => (variable.get)(self, out),
            },
            Definition::Prefixed(prefix, rest) => (prefix.get)(self, rest, out),
            Definition::Stored => match self.stored(handle) {
                Some(Value::Known(value)) => {
                    out.extend_from_slice(&value);
                    true
                }
                _ => false,
            },
            Definition::Assigned(family) => match (self.stored(handle), family) {
                (Some(Value::Known(value)), _) => {
                    out.extend_from_slice(&value);
                    true
                }
                (_, Some((prefix, rest))) => (prefix.get)(self, rest, out),
                (_, None) => {
                    rewrite::uninitialized(self, handle);
                    self.store(handle, Value::Known(Bytes::new()));
                    true
                }
            },
            Definition::Computed(computed) => self.computed(handle, computed, out),
        }
    }

    /// A variable's value; `None` if it has none.
    pub fn variable_bytes(&self, handle: Handle) -> Option<Bytes> {
        let mut out = Vec::new();
        self.variable(handle, &mut out).then(|| out.into())
    }

    /// Gives a variable a value for the rest of the request.
    pub fn set_variable(&mut self, handle: Handle, value: Bytes) {
        let http = Arc::clone(&self.http);
        if let Definition::Builtin(variable) = &http.variables[handle.0 as usize]
            && let Change::By(set) = variable.change
        {
            set(self, value);
            return;
        }
        self.store(handle, Value::Known(value));
    }

    /// Keeps what a regular expression captured: `$1` and its named groups (`ngx_http_regex_exec`).
    pub fn keep_captures(&self, regex: &Regex, captures: &regex::Captures, subject: Bytes) {
        for (name, group) in regex.names() {
            let name = name.to_ascii_lowercase();
            if let Some(handle) = self.http.variable_names.get(name.as_bytes()).copied() {
                let value = captures.get(group).map(|range| subject.slice(range)).unwrap_or_default();
                self.store(handle, Value::Known(value));
            }
        }
        let groups = (0..captures.len()).map(|group| captures.get(group).map(|range| (range.start, range.end)));
        self.captures.0.swap(&Captures::new(subject, groups).0);
    }

    fn computed(&self, handle: Handle, computed: &super::variables::Computed, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        match self.stored(handle) {
            Some(Value::Known(value)) => {
                out.extend_from_slice(&value);
                return true;
            }
            Some(Value::Missing) => return false,
            Some(Value::Unset) | None => {}
        }
        let found = computed.evaluate(self, out);
        if !computed.volatile() {
            let value = if found { Value::Known(Bytes::copy_from_slice(&out[start..])) } else { Value::Missing };
            self.store(handle, value);
        }
        found
    }

    fn stored(&self, handle: Handle) -> Option<Value> {
        self.family.get()?.values.borrow().get(handle.0 as usize).cloned()
    }

    fn store(&self, handle: Handle, value: Value) {
        let mut values = self.family().values.borrow_mut();
        let at = handle.0 as usize;
        if values.len() <= at {
            values.resize(self.http.variables.len().max(at + 1), Value::Unset);
        }
        values[at] = value;
    }

    /// Writes to the error log of this level, if it keeps lines of this severity.
    pub fn log(&self, level: Level, message: &str) {
        self.log_about(level, message, None);
    }

    /// The same, naming the upstream that was asked (`upstream: "…"`).
    pub fn log_about(&self, level: Level, message: &str, upstream: Option<&str>) {
        self.log_asked(level, message, Asked { upstream, reason: None });
    }

    /// The same of an attempt that failed, with the reason for those who read it as JSON.
    pub fn log_asked(&self, level: Level, message: &str, asked: Asked<'_>) {
        let conf = &self.location.settings.error_log;
        if conf.keeps(level) {
            error_log::request_line(self, conf, level, message, asked);
        }
    }

    /// The client's address, as a trusted proxy names it or the connection has it; `None` on a unix socket.
    pub fn remote_address(&self) -> Option<IpAddr> {
        self.state.realip.as_ref().map_or_else(|| self.connection.remote_ip_address(), |real| Some(real.address))
    }

    /// `$remote_addr`.
    pub fn remote_ip(&self) -> &str {
        self.state.realip.as_ref().map_or_else(|| self.connection.remote_ip(), |real| &real.ip)
    }

    /// `$remote_port`.
    pub fn remote_port(&self) -> &str {
        self.state.realip.as_ref().map_or_else(|| self.connection.remote_port(), |real| &real.port)
    }

    /// `$binary_remote_addr`.
    pub fn remote_binary(&self) -> smallvec::SmallVec<[u8; 16]> {
        match self.remote_address() {
            Some(IpAddr::V4(ip)) => smallvec::SmallVec::from_slice(&ip.octets()),
            Some(IpAddr::V6(ip)) => smallvec::SmallVec::from_slice(&ip.octets()),
            None => smallvec::SmallVec::from_slice(b"unix:"),
        }
    }

    /// A request field by name, the first of several.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.head.fields.get(name)
    }

    /// The length of the body that is passed on; `None` where none was announced.
    pub fn body_length(&self) -> Option<u64> {
        match self.head.content_length {
            Some(length) => Some(length),
            None if self.head.chunked => self.body.length(),
            None => None,
        }
    }

    /// Whether it makes no difference that a peer sees the request twice, by its method.
    pub fn is_idempotent(&self) -> bool {
        !matches!(self.method, Method::Post | Method::Lock | Method::Patch)
    }

    /// Whether the request may be sent a second time though a peer may have seen it.
    pub fn may_repeat(&self, sent: bool) -> bool {
        (self.is_idempotent() || !sent) && !self.body.is_streaming()
    }

    /// Keeps what a connection to an upstream has counted for the last attempt.
    pub fn note_traffic(&mut self, meter: &super::heads::Meter) {
        if let Some(attempt) = self.tries.last_mut() {
            attempt.bytes_sent = meter.sent_now();
            attempt.bytes_received = meter.received_now();
        }
    }

    /// The numbers of `stub_status`.
    pub fn counts(&self) -> super::worker::Totals {
        super::worker::totals()
    }

    /// Milliseconds since the request began.
    pub fn elapsed_ms(&self) -> u64 {
        self.connection.worker.clock.millis_since(self.started)
    }
}
