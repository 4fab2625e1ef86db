//! `upstream`: groups of servers that requests are passed to.

mod definition;
mod lines;
mod load;
mod lookups;
mod polls;
mod retry;
mod state;
mod sticky;
#[cfg(test)]
mod tests;
mod zones;

pub use definition::{Definition, built, joined_at_run_time};
pub use lookups::watch;
pub use polls::{about, poll};

use super::{Room, Settings};
use retry::{HOST_NOT_FOUND, OnStart};
use crate::{
    config::{
        Directive, HTTP, Handle, Kind, List, Module, Scope,
        values::{Url, Wants, parse_url},
    },
    http::exchange::Exchange,
    syntax::{Fault, Span, Stage, Word},
    upstream::{
        Address, Balance, Group, ServerLine,
        edit::Dynamics,
        resolve::{Resolved, Resolving},
    },
};
use bytes::Bytes;
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub groups: List<Definition>,
    pub resolver_on_start: OnStart,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("upstream", HTTP, |conf| &mut conf.groups),
        Directive::new("resolver_on_start", HTTP, |conf| &mut conf.resolver_on_start),
    ];
}

impl Room for Conf {
    const VARIABLES: &'static [crate::http::variables::Variable] = crate::upstream::pass::variables::VARIABLES;
    const FAMILIES: &'static [crate::http::variables::Prefixed] = crate::upstream::pass::variables::FAMILIES;
    type State = State;
}

/// What is remembered about a request.
#[derive(Debug, Default)]
pub struct State {
    /// The cookie that leads back to the peer that was asked last (`sticky cookie`).
    pub cookie: Option<Bytes>,
    /// It is not known who its upstream's name is.
    pub unresolved: std::cell::Cell<bool>,
    /// What it has to do with a cache.
    pub cache: crate::upstream::pass::cached::State,
}

/// All groups that anything refers to, in the order of the handles: those of `upstream` blocks, and one
/// for each address that requests are passed to directly. `http` is what the http level says.
pub fn groups(http: &Settings, scope: &Scope<'_>) -> Vec<Option<Arc<Group>>> {
    let conf = &http.upstream;
    zones::check(conf.groups.iter().flat_map(Definition::zones), scope);
    state::check(conf.groups.iter().filter_map(Definition::state), scope);
    let names = scope.names(Kind::Upstream);
    let group = |(at, named): (usize, &crate::config::scope::Named)| {
        let defined = conf.groups.iter().find(|group| group.handle.0 as usize == at);
        let group = match defined {
            Some(definition) if definition.doubtful => return None,
            Some(definition) => definition.group(http, scope),
            None if let Some(at) = definition::joined(&named.name, scope) => {
                let text = format!("no upstream \"{}\" to add servers to", String::from_utf8_lossy(&named.name));
                Err(Fault::at(at, text).when(Stage::Settling))
            }
            None => implicit(&named.name, named.first_use, named.note, http, scope),
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
        let resolved = super::resolver::resolve(exchange, &host).await.map_err(|text| {
            exchange.state.upstream.unresolved.set(true);
            (502, text)
        })?;
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
fn implicit(name: &[u8], at: Span, default_port: u32, http: &Settings, scope: &Scope<'_>) -> Result<Group, Fault> {
    let conf = &http.upstream;
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
    let found = parse_url(name, Wants { resolve: true, ..wants }, scope);
    let name = String::from_utf8_lossy(name).into_owned();
    if found == Err(HOST_NOT_FOUND) && conf.resolver_on_start == OnStart::Retry {
        scope.fault(retry::warning(&settling(HOST_NOT_FOUND)));
        let line = ServerLine { server: text.clone(), ..ServerLine::default() };
        let (resolver, fixed) = (&http.resolver, Vec::new());
        let names = vec![Resolved::at_first(line, text.clone(), url.port)];
        let names = Resolving::new(names, resolver.servers.clone(), resolver.timeout.0);
        let group = Group::with_names(name, Balance::RoundRobin, fixed, names, Dynamics::default());
        return group.map_err(|error| settling(&error.to_string()));
    }
    let addresses = found.map_err(settling)?.addresses;
    Group::implicit(name, addresses).map_err(|error| Fault::at(at, error.to_string()).when(Stage::Settling))
}

