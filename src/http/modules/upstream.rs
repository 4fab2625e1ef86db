//! `upstream`: groups of servers that requests are passed to.

use super::Room;
use crate::{
    config::{
        Args, Directive, FromArgs, HTTP, Handle, Kind, List, Module, Registry, Scope, Slot, UPSTREAM,
        registry::Built,
        values::{Msec, Url, Wants, parse_number, parse_time, parse_url},
    },
    http::exchange::Exchange,
    syntax::{Fault, Span, Stage, Word},
    upstream::{Address, Balance, Group, Keepalive, ServerLine},
};
use std::{ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub groups: List<Definition>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[Directive::new("upstream", HTTP, |conf| &mut conf.groups)];
}

impl Room for Conf {
    const VARIABLES: &'static [crate::http::variables::Variable] = crate::upstream::pass::variables::VARIABLES;
    const FAMILIES: &'static [crate::http::variables::Prefixed] = crate::upstream::pass::variables::FAMILIES;
    type State = ();
}

/// All groups that anything refers to, in the order of the handles: those of `upstream` blocks, and one
/// for each address that requests are passed to directly.
pub fn groups(conf: &Conf, scope: &Scope<'_>) -> Vec<Option<Arc<Group>>> {
    let names = scope.names(Kind::Upstream);
    let group = |(at, named): (usize, &crate::config::scope::Named)| {
        let defined = conf.groups.iter().find(|group| group.handle.0 as usize == at);
        let group = match defined {
            Some(definition) if definition.doubtful => return None,
            Some(definition) => definition.group(),
            None => implicit(&named.name, named.first_use, named.note, conf, scope),
        };
        group.map(Arc::new).map_err(|fault| scope.fault(fault)).ok()
    };
    names.iter().enumerate().map(group).collect()
}

/// Mentions the group that an address leads to: the `upstream` of that name, or the address itself.
/// `default_port` 0 demands a written one.
pub fn refer(url: &Url, word: &Word, default_port: u16, scope: &Scope<'_>) -> Handle {
    scope.refer_noting(Kind::Upstream, &key(url), word.span, u32::from(default_port))
}

/// The group for an address that variables gave: an `upstream` of that name, or whoever a name is looked up to be
/// (`ngx_http_upstream_init_request`).
///
/// # Errors
/// The status, and the line for the error log.
pub async fn reach(exchange: &Exchange, url: Url) -> Result<Arc<Group>, (u16, String)> {
    if let Some(group) = exchange.http.group(&url.host, url.has_port.then_some(url.port)) {
        return Ok(group);
    }
    let host = String::from_utf8_lossy(&url.host).into_owned();
    if !url.unix && url.port == 0 {
        return Err((500, format!("no port in upstream \"{host}\"")));
    }
    let mut addresses = url.addresses;
    if addresses.is_empty() {
        let resolved = super::resolver::resolve(exchange, &host).await.map_err(|text| (502, text))?;
        addresses = resolved.into_iter().map(|ip| Address::Tcp((ip, url.port).into())).collect();
    }
    let name = if url.unix { format!("unix:{host}") } else { format!("{host}:{}", url.port) };
    Group::implicit(name, addresses).map(Arc::new).map_err(|error| (500, error.to_string()))
}

/// The name under which an address is looked up.
fn key(url: &Url) -> Vec<u8> {
    if url.unix {
        return [b"unix:", &url.host[..]].concat();
    }
    if url.has_port { [&url.host[..], b":", url.port.to_string().as_bytes()].concat() } else { url.host.clone() }
}

/// A group of all addresses of one name (`ngx_http_upstream_init_round_robin` without servers).
fn implicit(name: &[u8], at: Span, default_port: u32, conf: &Conf, scope: &Scope<'_>) -> Result<Group, Fault> {
    let default_port = u16::try_from(default_port).unwrap_or(0);
    let wants = Wants { default_port, ..Wants::default() };
    let written = parse_url(name, wants, scope);
    // nginx names the host alone; the port is that of whoever refers to it.
    let text = String::from_utf8_lossy(written.as_ref().map_or(name, |url| &url.host[..])).into_owned();
    let settling = |what: &str| Fault::at(at, format!("{what} in upstream \"{text}\"")).when(Stage::Settling);
    let url = written.map_err(settling)?;
    if let Some(group) = conf.groups.iter().find(|group| url.has_port && group.name.as_bytes() == url.host) {
        let text = format!("upstream \"{}\" may not have port {}", group.name, url.port);
        return Err(Fault::at(at, text).when(Stage::Settling).also(group.span, "this upstream"));
    }
    if !url.unix && url.port == 0 {
        return Err(settling("no port"));
    }
    let url = parse_url(name, Wants { resolve: true, ..wants }, scope).map_err(settling)?;
    let addresses = url.addresses.clone();
    let name = String::from_utf8_lossy(name).into_owned();
    Group::implicit(name, addresses).map_err(|error| Fault::at(at, error.to_string()).when(Stage::Settling))
}

/// One `upstream` block.
#[derive(Clone, Debug)]
pub struct Definition {
    pub name: String,
    pub handle: Handle,
    pub span: Span,
    inner: Inner,
    /// Something was wrong with it: what follows from that is not told, too.
    doubtful: bool,
}

/// What stands in an `upstream` block.
#[derive(Clone, Debug, Default)]
struct Inner {
    lines: Lines,
    zone: Option<Zone>,
    keepalive: Option<KeepaliveArgs>,
    keepalive_requests: Option<usize>,
    keepalive_time: Option<Msec>,
    keepalive_timeout: Option<Msec>,
}

impl Module for Inner {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("server", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("least_conn", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("ip_hash", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("zone", UPSTREAM, |inner| &mut inner.zone),
        Directive::new("keepalive", UPSTREAM, |inner| &mut inner.keepalive),
        Directive::new("keepalive_requests", UPSTREAM, |inner| &mut inner.keepalive_requests),
        Directive::new("keepalive_time", UPSTREAM, |inner| &mut inner.keepalive_time),
        Directive::new("keepalive_timeout", UPSTREAM, |inner| &mut inner.keepalive_timeout),
    ];
}

/// The directives inside an `upstream` block, for DIRECTIVES.md and the tests that compare with nginx's table.
pub fn built() -> Vec<Built> {
    registry().built().collect()
}

fn registry() -> Registry<Arc<Inner>> {
    let mut registry = Registry::default();
    registry.add(|inner: &mut Arc<Inner>| inner);
    registry
}

impl FromArgs for Definition {
    const BLOCK: bool = true;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let (handle, earlier) = args.scope.define(Kind::Upstream, &word.value, word.span);
        if let Some(earlier) = earlier {
            let text = [b"duplicate upstream \"", &word.value[..], b"\""].concat();
            return Err(Fault::at(word.span, text).also(earlier, "the first one"));
        }
        let registry = registry();
        let mut inner = Arc::new(Inner::default());
        let faults_before = args.scope.fault_count();
        args.scope.inside(args.statement, || registry.apply_all(args.block(), UPSTREAM, &mut inner, args.scope));
        let name = String::from_utf8_lossy(&word.value).into_owned();
        if inner.lines.servers.is_empty() && args.scope.fault_count() == faults_before {
            let fault = Fault::at(word.span, "no servers are inside upstream");
            let close = args.statement.block.as_ref().map_or(args.statement.end, |block| block.close);
            args.scope.fault(Fault { line: crate::syntax::Line::Of(close), ..fault });
        }
        let doubtful = args.scope.fault_count() != faults_before;
        Ok(Self { name, handle, span: word.span, inner: Arc::unwrap_or_clone(inner), doubtful })
    }
}

impl Definition {
    fn group(&self) -> Result<Group, Fault> {
        let lines = &self.inner.lines;
        let mut group = Group::new(self.name.clone(), lines.balance, lines.servers.clone())
            .map_err(|error| Fault::at(self.span, error.to_string()).when(Stage::Settling))?;
        let default = Keepalive::default();
        group.keepalive = Keepalive {
            connections: self.inner.keepalive.map_or(default.connections, |keepalive| keepalive.connections),
            requests: self.inner.keepalive_requests.map_or(default.requests, |requests| requests as u64),
            time: self.inner.keepalive_time.map_or(default.time, |time| time.0),
            timeout: self.inner.keepalive_timeout.map_or(default.timeout, |timeout| timeout.0),
        };
        Ok(group)
    }
}

/// The `server` lines and the method. One slot: which parameters a line may have depends on the method
/// written above it.
#[derive(Clone, Debug, Default)]
struct Lines {
    servers: Vec<(ServerLine, Vec<Address>)>,
    balance: Balance,
    method: Option<Span>,
}

impl Slot for Lines {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        let balance = match &args.statement.name.value[..] {
            b"least_conn" => Balance::LeastConn,
            b"ip_hash" => Balance::IpHash,
            _ => {
                self.servers.push(server(args, self.balance)?);
                return Ok(());
            }
        };
        if let Some(earlier) = self.method {
            let fault = Fault::at(args.statement.name.span, "load balancing method redefined").warn();
            args.scope.fault(fault.also(earlier, "first chosen here"));
        }
        if !args.first {
            let text = format!("\"{}\" directive is duplicate", args.name());
            return Err(Fault::at(args.statement.name.span, text));
        }
        self.balance = balance;
        self.method = Some(args.statement.name.span);
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        0..=usize::MAX
    }
}

fn server(args: &Args<'_>, balance: Balance) -> Result<(ServerLine, Vec<Address>), Fault> {
    let mut line = ServerLine { server: args.word(0).text().into_owned(), ..ServerLine::default() };
    for word in &args.words()[1..] {
        let invalid = || args.parameter(word);
        let number = |value: &[u8]| parse_number(value).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        let (name, value) = match memchr::memchr(b'=', &word.value) {
            Some(at) => (&word.value[..at], Some(&word.value[at + 1..])),
            None => (&word.value[..], None),
        };
        match (name, value) {
            (b"weight", Some(value)) => {
                line.weight = number(value).filter(|weight| *weight > 0).ok_or_else(invalid)?;
            }
            (b"max_conns", Some(value)) => line.max_conns = number(value).ok_or_else(invalid)?,
            (b"max_fails", Some(value)) => line.max_fails = number(value).ok_or_else(invalid)?,
            (b"fail_timeout", Some(value)) => {
                let seconds = parse_time(value, false).and_then(|seconds| i64::try_from(seconds).ok());
                line.fail_timeout = seconds.ok_or_else(invalid)?;
            }
            (b"backup", None) if balance == Balance::IpHash => {
                let text = [b"balancing method does not support parameter \"", &word.value[..], b"\""].concat();
                return Err(Fault::at(word.span, text));
            }
            (b"backup", None) => line.backup = true,
            (b"down", None) => line.down = true,
            (b"resolve" | b"drain", None) | (b"service" | b"route" | b"slow_start", Some(_)) => {
                let text = [b"the \"", name, b"\" parameter is not supported by this version"].concat();
                return Err(Fault::at(word.span, text));
            }
            _ => return Err(invalid()),
        }
    }
    let word = args.word(0);
    let wants = Wants { resolve: true, default_port: 80, ..Wants::default() };
    let url = parse_url(&word.value, wants, args.scope).map_err(|error| {
        let text = [error.as_bytes(), b" in upstream \"", &word.value, b"\""].concat();
        let fault = Fault::at(word.span, text);
        match error {
            "invalid host" => fault.help("write the address alone, as in `server 127.0.0.1:8000;`"),
            "host not found" => fault.help("the name is looked up when the server starts, and nothing answers for it"),
            _ => fault,
        }
    })?;
    Ok((line, url.addresses))
}

/// `zone`: accepted; the state of a group is shared by all threads in any case.
#[derive(Clone, Debug)]
struct Zone;

impl FromArgs for Zone {
    const TAKES: RangeInclusive<usize> = 1..=2;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        if args.word(0).value.is_empty() {
            let text = [b"invalid zone name \"", &args.word(0).value[..], b"\""].concat();
            return Err(Fault::at(args.word(0).span, text));
        }
        let Some(size) = args.words().get(1) else { return Ok(Self) };
        let fault = |what: &str| {
            let text = format!("zone \"{}\" {what}", args.word(0).text());
            Fault::at(size.span, text)
        };
        match crate::config::values::parse_size(&size.value) {
            None => Err(Fault::at(size.span, [b"invalid zone size \"", &size.value[..], b"\""].concat())),
            Some(bytes) if bytes < 8 * 4096 => Err(fault("is too small")),
            Some(_) => Ok(Self),
        }
    }
}

/// `keepalive connections [local]`.
#[derive(Clone, Copy, Debug)]
struct KeepaliveArgs {
    connections: usize,
}

impl FromArgs for KeepaliveArgs {
    const TAKES: RangeInclusive<usize> = 1..=2;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let invalid = || {
            let text = [b"invalid value \"", &word.value[..], b"\" in \"keepalive\" directive"].concat();
            Fault::at(word.span, text)
        };
        let connections = parse_number(&word.value).ok_or_else(invalid)?;
        match args.words().get(1) {
            Some(word) if word.value != b"local" => Err(args.parameter(word)),
            _ => Ok(Self { connections }),
        }
    }
}
