//! `upstream { … }`: what stands inside the block.

use super::{
    lines::Lines,
    load::LoadHeader,
    retry::OnStart,
    state::StateFile,
    sticky::StickyConf,
    zones::{Zone, Zones},
};
use crate::{
    config::{
        Args, Directive, FromArgs, Handle, Kind, Module, Registry, Scope, UPSTREAM,
        registry::Built,
        values::{Msec, parse_number, parse_time},
    },
    http::modules::{
        Settings,
        resolver::{self, NameServers},
    },
    syntax::{Fault, Line, Span, Stage, Statement},
    upstream::{
        Group, Keepalive,
        edit::Dynamics,
        load::{Agent, Check, Sources},
        queue::Queue,
        resolve::{Resolved, Resolving},
        state::State,
    },
};
use std::{ops::RangeInclusive, sync::Arc, time::Duration};

/// One `upstream` block.
#[derive(Clone, Debug)]
pub struct Definition {
    pub name: String,
    pub handle: Handle,
    pub span: Span,
    /// Its `}`.
    close: Span,
    inner: Inner,
    /// Something was wrong with it: what follows from that is not told, too.
    pub(super) doubtful: bool,
}

/// What stands in an `upstream` block.
#[derive(Clone, Debug, Default)]
pub(super) struct Inner {
    lines: Lines,
    zones: Zones,
    keepalive: Option<KeepaliveArgs>,
    keepalive_requests: Option<usize>,
    keepalive_time: Option<Msec>,
    keepalive_timeout: Option<Msec>,
    resolver: Option<NameServers>,
    resolver_timeout: Option<Msec>,
    resolver_on_start: Option<OnStart>,
    queue: Option<QueueArgs>,
    state: Option<StateFile>,
    load_check: Option<Check>,
    agent_check: Option<Agent>,
    load_header: Option<LoadHeader>,
}

impl Module for Inner {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("server", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("least_conn", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("ip_hash", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("hash", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("random", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("least_time", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("least_load", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("sticky", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("zone", UPSTREAM, |inner| &mut inner.zones),
        Directive::new("keepalive", UPSTREAM, |inner| &mut inner.keepalive),
        Directive::new("keepalive_requests", UPSTREAM, |inner| &mut inner.keepalive_requests),
        Directive::new("keepalive_time", UPSTREAM, |inner| &mut inner.keepalive_time),
        Directive::new("keepalive_timeout", UPSTREAM, |inner| &mut inner.keepalive_timeout),
        Directive::new("resolver", UPSTREAM, |inner| &mut inner.resolver),
        Directive::new("resolver_timeout", UPSTREAM, |inner| &mut inner.resolver_timeout),
        Directive::new("resolver_on_start", UPSTREAM, |inner| &mut inner.resolver_on_start),
        Directive::new("queue", UPSTREAM, |inner| &mut inner.queue),
        Directive::new("state", UPSTREAM, |inner| &mut inner.state),
        Directive::new("load_check", UPSTREAM, |inner| &mut inner.load_check),
        Directive::new("agent_check", UPSTREAM, |inner| &mut inner.agent_check),
        Directive::new("load_header", UPSTREAM, |inner| &mut inner.load_header),
    ];
}

/// Notes that servers join an upstream while the server runs: it may begin with none, and they outlive a reload.
pub fn joined_at_run_time(upstream: &[u8], at: Span, scope: &Scope<'_>) {
    scope.refer(Kind::Feature, &joining(upstream), at);
}

/// Where it was noted that servers join an upstream.
pub(super) fn joined(upstream: &[u8], scope: &Scope<'_>) -> Option<Span> {
    let handle = scope.find(Kind::Feature, &joining(upstream))?;
    scope.names(Kind::Feature).get(handle.0 as usize).map(|named| named.first_use)
}

fn joining(upstream: &[u8]) -> Vec<u8> {
    [b"servers that join upstream ", upstream].concat()
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

impl Inner {
    /// The servers are those of a file.
    fn read_state(&mut self, state: &StateFile, args: &Args<'_>) -> Result<(), Fault> {
        let server = |statement: &&Statement| statement.name.value == b"server";
        if let Some(server) = args.block().iter().find(server) {
            let fault = Fault::at(state.span, "\"state\" directive is incompatible with \"server\"");
            let fault = fault.also(server.name.span, "this server");
            return Err(fault.help("the file of `state` says which servers there are: add them by the API"));
        }
        if self.zones.0.is_empty() {
            let text = format!("\"state\" requires upstream \"{}\" to be in shared memory", args.word(0).text());
            return Err(Fault::at(state.span, text).help("add `zone NAME 64k;` to the upstream"));
        }
        state.read(&mut self.lines, args)
    }
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
        let faults_before = args.scope.emerg_count();
        args.scope.inside(args.statement, || registry.apply_all(args.block(), UPSTREAM, &mut inner, args.scope));
        let name = String::from_utf8_lossy(&word.value).into_owned();
        if let Some(state) = inner.state.clone().filter(|_| args.scope.emerg_count() == faults_before) {
            let read = Arc::make_mut(&mut inner).read_state(&state, args);
            read.err().into_iter().for_each(|fault| args.scope.fault(fault));
        }
        let close = args.statement.block.as_ref().map_or(args.statement.end, |block| block.close);
        let doubtful = args.scope.emerg_count() != faults_before;
        Ok(Self { name, handle, span: word.span, close, inner: Arc::unwrap_or_clone(inner), doubtful })
    }
}

impl Definition {
    /// The zones it mentions, each with the name of the upstream.
    pub(super) fn zones(&self) -> impl Iterator<Item = (&str, &Zone)> {
        let learned = self.inner.lines.sticky.as_ref().and_then(StickyConf::zone);
        self.inner.zones.0.iter().chain(learned).map(|zone| (&*self.name, zone))
    }

    /// The file its servers are in, with the name of the upstream.
    pub(super) fn state(&self) -> Option<(&str, &StateFile)> {
        self.inner.state.as_ref().map(|state| (&*self.name, state))
    }

    /// The group it makes; `http` is what the http level says.
    pub(super) fn group(&self, http: &Settings, scope: &Scope<'_>) -> Result<Group, Fault> {
        let lines = &self.inner.lines;
        let dynamics = self.dynamics(scope);
        if lines.is_empty() && !dynamics.begins_empty {
            let fault = Fault::at(self.span, "no servers are inside upstream");
            return Err(Fault { line: Line::Of(self.close), ..fault });
        }
        if let Some(at) = joined(self.name.as_bytes(), scope).filter(|_| self.inner.zones.0.is_empty()) {
            let text = format!("adding servers at run time requires upstream \"{}\" to be in shared memory", self.name);
            let zone = format!("add `zone {} 64k;` to the upstream", self.name);
            return Err(Fault::at(at, text).when(Stage::Settling).help(zone).also(self.span, "this upstream"));
        }
        let settling = |text: String| Fault::at(self.span, text).when(Stage::Settling);
        let mut names: Vec<_> = lines.names.iter().map(|name| name.resolved()).collect();
        let on_start = self.inner.resolver_on_start.unwrap_or(http.upstream.resolver_on_start);
        let mut refused = None;
        for (fault, name) in lines.unresolved.iter().map(|line| line.settle(on_start)) {
            match name {
                Some(name) => {
                    scope.fault(fault);
                    names.push(name);
                }
                // Each is told, and the last of them ends it.
                None => refused.replace(fault).into_iter().for_each(|earlier| scope.fault(earlier)),
            }
        }
        if let Some(fault) = refused {
            return Err(fault);
        }
        let mut resolving = self.resolving(names, &http.resolver)?;
        // Those of a file are as if they had joined: whoever added them may remove them.
        let (kept, joined) = match self.inner.state {
            Some(_) => std::mem::take(&mut resolving.names).into_iter().partition(|name| name.at_first),
            None => (std::mem::take(&mut resolving.names), Vec::new()),
        };
        resolving.names = kept;
        let group = Group::with_names(self.name.clone(), lines.balance, lines.servers.clone(), resolving, dynamics);
        let mut group = group.map_err(|error| settling(error.to_string()))?;
        for name in joined {
            group.begin_with(name);
        }
        let default = Keepalive::default();
        group.keepalive = Keepalive {
            connections: self.inner.keepalive.map_or(default.connections, |keepalive| keepalive.connections),
            local: self.inner.keepalive.map_or(default.local, |keepalive| keepalive.local),
            requests: self.inner.keepalive_requests.map_or(default.requests, |requests| requests as u64),
            time: self.inner.keepalive_time.map_or(default.time, |time| time.0),
            timeout: self.inner.keepalive_timeout.map_or(default.timeout, |timeout| timeout.0),
        };
        group.key.clone_from(&lines.key);
        group.sticky = lines.sticky.as_ref().map(StickyConf::sticky);
        group.zone = self.inner.zones.0.last().map(|zone| String::from_utf8_lossy(&zone.name).into_owned());
        let (check, agent) = (self.inner.load_check.clone(), self.inner.agent_check.clone());
        group.loads = Sources::new(check, agent, self.inner.load_header.clone().map(|header| header.0));
        group.state = self.inner.state.as_ref().map(|state| State::new(state.path.clone()));
        group.queue = self.inner.queue.map(|queue| Queue::new(queue.most, queue.timeout));
        Ok(group)
    }

    /// How its membership may change: by the API where it has a `zone`, and by servers that register themselves.
    fn dynamics(&self, scope: &Scope<'_>) -> Dynamics {
        let joined = joined(self.name.as_bytes(), scope).is_some();
        Dynamics { keeps: joined || !self.inner.zones.0.is_empty(), begins_empty: joined || self.inner.state.is_some() }
    }

    /// `ngx_http_upstream_init_round_robin`, as far as names are looked up at run time.
    fn resolving(&self, names: Vec<Resolved>, http: &resolver::Conf) -> Result<Resolving, Fault> {
        let servers = self.inner.resolver.as_ref().or(http.servers.as_ref());
        let timeout = self.inner.resolver_timeout.unwrap_or(http.timeout).0;
        let what = |text: &str| Fault::at(self.span, text).when(Stage::Settling);
        let followed = names.iter().any(|name| !name.at_first);
        if followed && self.inner.zones.0.is_empty() {
            let text = format!("resolving names at run time requires upstream \"{}\"", self.name);
            let fault = what(&format!("{text} to be in shared memory"));
            return Err(Fault { line: Line::Amid(text.len()), ..fault }
                .help(format!("add `zone {} 64k;` to the upstream", self.name)));
        }
        if followed && servers.is_none() {
            let text = format!("no resolver defined to resolve names at run time in upstream \"{}\"", self.name);
            return Err(what(&text).help("add `resolver ADDRESS;` to the upstream or to http"));
        }
        Ok(Resolving::new(names, servers.cloned(), timeout))
    }
}

/// `keepalive connections [local]`.
#[derive(Clone, Copy, Debug)]
struct KeepaliveArgs {
    connections: usize,
    local: bool,
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
            local => Ok(Self { connections, local: local.is_some() }),
        }
    }
}

/// `queue number [timeout=time]`, as NGINX Plus has it.
#[derive(Clone, Copy, Debug)]
struct QueueArgs {
    most: usize,
    timeout: Duration,
}

impl FromArgs for QueueArgs {
    const TAKES: RangeInclusive<usize> = 1..=2;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let most = parse_number(&word.value).filter(|most| *most > 0).ok_or_else(|| args.invalid(word))?;
        let timeout = match args.words().get(1) {
            None => Duration::from_secs(60),
            Some(word) => {
                let time = word.value.strip_prefix(b"timeout=").ok_or_else(|| args.parameter(word))?;
                Duration::from_millis(parse_time(time, true).ok_or_else(|| args.parameter(word))?)
            }
        };
        Ok(Self { most, timeout })
    }
}
