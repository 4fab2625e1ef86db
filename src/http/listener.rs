//! Listeners: the addresses of all servers, who answers on each, and which sockets that takes.

use super::{
    level::Server,
    modules::server::{Listen, SocketOptions},
    names::{Match, Names, Refusal, ServerName},
    regex::MatchError,
};
use crate::{
    config::{Scope, values::Address},
    syntax::{Fault, Severity, Span, Stage},
};
use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

/// One listening socket.
pub struct Listener {
    /// What it binds to.
    pub address: Address,
    pub options: SocketOptions,
    /// Who answers, by the address the client connected to; the last is the socket's own address.
    pub hosts: Vec<(Address, Virtual)>,
}

/// The servers of one address.
pub struct Virtual {
    pub default: Arc<Server>,
    names: Names<Arc<Server>>,
    /// Whatever the name, it is the default server.
    lone: bool,
    pub proxy_protocol: bool,
}

impl Listener {
    /// The servers for a connection to `local`, which is asked for where it makes a difference.
    pub fn host<'l>(&self, local: impl FnOnce() -> &'l Address) -> &Virtual {
        match &self.hosts[..] {
            [(_, only)] => only,
            hosts => {
                let local = local();
                match hosts.iter().find(|(address, _)| address == local).or_else(|| hosts.last()) {
                    Some((_, host)) => host,
                    None => unreachable!("a listener is made of the hosts that listen on it"),
                }
            }
        }
    }

    /// The address every connection is made to, where there is only one.
    pub fn only_address(&self) -> Option<&Address> {
        (!is_wildcard(&self.address)).then_some(&self.address)
    }
}

impl Virtual {
    /// The server for a host name (lower case, without port), with what its expression captured; `None` is the default.
    ///
    /// # Errors
    /// An expression that could not be matched to its end.
    pub fn find(&self, host: &[u8]) -> Result<Option<Match<'_, Arc<Server>>>, MatchError> {
        if self.lone { Ok(None) } else { self.names.find(host) }
    }
}

struct Draft {
    listens: Vec<Listen>,
    servers: Vec<Arc<Server>>,
    default: Option<(Arc<Server>, Listen)>,
    options: Option<SocketOptions>,
}

/// Groups the `listen`s of all servers. A server without one listens on port 80, or 8000 where the
/// port may not be bound.
pub fn collect(servers: &[Arc<Server>], scope: &Scope<'_>) -> Vec<Listener> {
    let mut order: Vec<Address> = Vec::new();
    let mut drafts: HashMap<Address, Draft> = HashMap::new();
    for server in servers {
        let mut listens: Vec<Listen> = server.base.settings.server.listen.iter().flatten().cloned().collect();
        if listens.is_empty() {
            let port = if scope.surroundings.superuser { 80 } else { 8000 };
            listens.push(Listen::plain(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into(), server.span));
        }
        for listen in listens {
            let draft = drafts.entry(listen.address.clone()).or_insert_with(|| {
                order.push(listen.address.clone());
                Draft { listens: Vec::new(), servers: Vec::new(), default: None, options: None }
            });
            if let Err(fault) = draft.add(server, listen) {
                scope.fault(fault);
            }
        }
    }
    let mut hosts: BTreeMap<Key, Vec<(Address, SocketOptions, Virtual)>> = BTreeMap::new();
    for (at, address) in order.into_iter().enumerate() {
        let Some(draft) = drafts.remove(&address) else { continue };
        let bind = draft.options.as_ref().is_some_and(|options| *options != SocketOptions::default());
        let key = Key::of(&address, bind, at);
        let (options, host) = draft.finish(&address, scope);
        hosts.entry(key).or_default().push((address, options, host));
    }
    share_wildcards(hosts)
}

/// An address whose port is also bound for all addresses needs no socket of its own, unless it has
/// options of its own.
fn share_wildcards(mut hosts: BTreeMap<Key, Vec<(Address, SocketOptions, Virtual)>>) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for group in hosts.values_mut() {
        let wildcard = group.iter().position(|(address, ..)| is_wildcard(address));
        match wildcard {
            Some(at) => {
                let (address, options, host) = group.remove(at);
                let mut hosts: Vec<_> = group.drain(..).map(|(address, _, host)| (address, host)).collect();
                hosts.push((address.clone(), host));
                listeners.push(Listener { address, options, hosts });
            }
            None => listeners.extend(group.drain(..).map(|(address, options, host)| Listener {
                hosts: vec![(address.clone(), host)],
                address,
                options,
            })),
        }
    }
    listeners
}

/// Addresses with the same key can share a socket.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Port { v6: bool, port: u16 },
    Own(usize),
}

impl Key {
    fn of(address: &Address, bind: bool, at: usize) -> Self {
        match address {
            Address::Tcp(tcp) if is_wildcard(address) || !bind => Self::Port { v6: tcp.is_ipv6(), port: tcp.port() },
            _ => Self::Own(at),
        }
    }
}

fn is_wildcard(address: &Address) -> bool {
    matches!(address, Address::Tcp(tcp) if tcp.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) || tcp.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED))
}

impl Draft {
    fn add(&mut self, server: &Arc<Server>, listen: Listen) -> Result<(), Fault> {
        let place = listen.address.to_string();
        if self.servers.iter().any(|known| Arc::ptr_eq(known, server)) {
            return Err(Fault::at(listen.span, format!("a duplicate listen {place}")));
        }
        if let Some(options) = &listen.options {
            if self.options.as_ref().is_some_and(|known| known != options) {
                return Err(Fault::at(listen.span, format!("duplicate listen options for {place}")));
            }
            self.options = Some(options.clone());
        }
        if listen.default_server {
            if let Some((_, earlier)) = &self.default {
                let fault = Fault::at(listen.span, format!("a duplicate default server for {place}"));
                return Err(fault.also(earlier.span, "the first one"));
            }
            self.default = Some((Arc::clone(server), listen.clone()));
        }
        if let Some(first) = self.listens.first()
            && first.proxy_protocol != listen.proxy_protocol
        {
            let text = format!("protocol options redefined for {place}");
            return match listen.proxy_protocol || listen.ssl {
                true => Err(Fault { severity: Severity::Warn, ..Fault::at(listen.span, text) }),
                false => {
                    self.push(server, listen);
                    Ok(())
                }
            };
        }
        self.push(server, listen);
        Ok(())
    }

    fn push(&mut self, server: &Arc<Server>, listen: Listen) {
        self.servers.push(Arc::clone(server));
        self.listens.push(listen);
    }

    fn finish(self, address: &Address, scope: &Scope<'_>) -> (SocketOptions, Virtual) {
        let place = address.to_string();
        let mut table = Names::default();
        for server in &self.servers {
            let names = server.base.settings.server.names.iter().flat_map(|names| &names.0);
            let mut any = false;
            for (name, span) in names {
                any = true;
                add_name(&mut table, name, *span, server, &place, scope);
            }
            if !any {
                add_name(&mut table, b"", server.span, server, &place, scope);
            }
        }
        let default = match (self.default, self.servers.first()) {
            (Some((server, _)), _) => server,
            (None, Some(first)) => Arc::clone(first),
            (None, None) => unreachable!("an address is drafted by the server that names it"),
        };
        let proxy_protocol = self.listens.iter().any(|listen| listen.proxy_protocol);
        let lone = self.servers.len() == 1 && !table.has_regexes();
        (self.options.unwrap_or_default(), Virtual { default, names: table, lone, proxy_protocol })
    }
}

fn add_name(
    table: &mut Names<Arc<Server>>,
    name: &[u8],
    span: Span,
    server: &Arc<Server>,
    place: &str,
    scope: &Scope<'_>,
) {
    let settling = |text: [&[u8]; 3]| {
        Fault::at(span, [&text.concat()[..], place.as_bytes()].concat()).unnamed().when(Stage::Settling)
    };
    let refusal = match ServerName::parse(name, scope.surroundings.host_name.as_bytes()) {
        Ok(ServerName::Name(name)) => table.add(&name, Arc::clone(server)).err(),
        Ok(ServerName::Regex(regex)) => {
            table.add_regex(regex, Arc::clone(server));
            None
        }
        // What `server_name` refuses was refused where it was read.
        Err(_) => None,
    };
    match refusal {
        Some(Refusal::Conflict) => {
            let fault = Fault::at(
                span,
                [b"conflicting server name \"", name, b"\" on ", place.as_bytes(), b", ignored"].concat(),
            );
            scope.fault(fault.unnamed().when(Stage::Settling).warn());
        }
        Some(Refusal::Invalid) => scope.fault(settling([b"invalid server name or wildcard \"", name, b"\" on "])),
        None => {}
    }
}
