//! `upstream { … }`: what stands inside the block.

use super::{
    lines::Lines,
    sticky::StickyConf,
    zones::{Zone, Zones},
};
use crate::{
    config::{
        Args, Directive, FromArgs, Handle, Kind, Module, Registry, UPSTREAM,
        registry::Built,
        values::{Msec, parse_number, parse_time},
    },
    http::modules::resolver::{self, NameServers},
    syntax::{Fault, Line, Span, Stage},
    upstream::{
        Group, Keepalive,
        queue::Queue,
        resolve::{Resolved, Resolving},
    },
};
use std::{ops::RangeInclusive, sync::Arc, time::Duration};

/// One `upstream` block.
#[derive(Clone, Debug)]
pub struct Definition {
    pub name: String,
    pub handle: Handle,
    pub span: Span,
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
    queue: Option<QueueArgs>,
}

impl Module for Inner {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("server", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("least_conn", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("ip_hash", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("hash", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("random", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("least_time", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("sticky", UPSTREAM, |inner| &mut inner.lines),
        Directive::new("zone", UPSTREAM, |inner| &mut inner.zones),
        Directive::new("keepalive", UPSTREAM, |inner| &mut inner.keepalive),
        Directive::new("keepalive_requests", UPSTREAM, |inner| &mut inner.keepalive_requests),
        Directive::new("keepalive_time", UPSTREAM, |inner| &mut inner.keepalive_time),
        Directive::new("keepalive_timeout", UPSTREAM, |inner| &mut inner.keepalive_timeout),
        Directive::new("resolver", UPSTREAM, |inner| &mut inner.resolver),
        Directive::new("resolver_timeout", UPSTREAM, |inner| &mut inner.resolver_timeout),
        Directive::new("queue", UPSTREAM, |inner| &mut inner.queue),
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
        let faults_before = args.scope.emerg_count();
        args.scope.inside(args.statement, || registry.apply_all(args.block(), UPSTREAM, &mut inner, args.scope));
        let name = String::from_utf8_lossy(&word.value).into_owned();
        if inner.lines.is_empty() && args.scope.emerg_count() == faults_before {
            let fault = Fault::at(word.span, "no servers are inside upstream");
            let close = args.statement.block.as_ref().map_or(args.statement.end, |block| block.close);
            args.scope.fault(Fault { line: Line::Of(close), ..fault });
        }
        let doubtful = args.scope.emerg_count() != faults_before;
        Ok(Self { name, handle, span: word.span, inner: Arc::unwrap_or_clone(inner), doubtful })
    }
}

impl Definition {
    /// The zones it mentions, each with the name of the upstream.
    pub(super) fn zones(&self) -> impl Iterator<Item = (&str, &Zone)> {
        let learned = self.inner.lines.sticky.as_ref().and_then(StickyConf::zone);
        self.inner.zones.0.iter().chain(learned).map(|zone| (&*self.name, zone))
    }

    /// The group it makes; `http` is the http level's resolver.
    pub(super) fn group(&self, http: &resolver::Conf) -> Result<Group, Fault> {
        let lines = &self.inner.lines;
        let settling = |text: String| Fault::at(self.span, text).when(Stage::Settling);
        let names: Vec<_> = lines.names.iter().map(|name| name.resolved()).collect();
        let resolving = self.resolving(names, http)?;
        let group = Group::with_names(self.name.clone(), lines.balance, lines.servers.clone(), resolving);
        let mut group = group.map_err(|error| settling(error.to_string()))?;
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
        group.queue = self.inner.queue.map(|queue| Queue::new(queue.most, queue.timeout));
        Ok(group)
    }

    /// `ngx_http_upstream_init_round_robin`, as far as names are looked up at run time.
    fn resolving(&self, names: Vec<Resolved>, http: &resolver::Conf) -> Result<Resolving, Fault> {
        let servers = self.inner.resolver.as_ref().or(http.servers.as_ref());
        let timeout = self.inner.resolver_timeout.unwrap_or(http.timeout).0;
        let what = |text: &str| Fault::at(self.span, text).when(Stage::Settling);
        if !names.is_empty() && self.inner.zones.0.is_empty() {
            let text = format!("resolving names at run time requires upstream \"{}\"", self.name);
            let fault = what(&format!("{text} to be in shared memory"));
            return Err(Fault { line: Line::Amid(text.len()), ..fault }
                .help(format!("add `zone {} 64k;` to the upstream", self.name)));
        }
        if !names.is_empty() && servers.is_none() {
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
