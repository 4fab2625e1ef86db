//! `set_real_ip_from`, `real_ip_header`, `real_ip_recursive`: the client is the one that a trusted proxy names.

use super::{Room, core::put};
use crate::{
    config::{
        Args, Directive, FromArgs, LEVELS, Module, Slot,
        values::{ip_text, parse_port},
    },
    http::{exchange::Exchange, network::Network, variables::Variable},
    syntax::Fault,
};
use bytes::Bytes;
use std::{net::IpAddr, ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub from: Trusted,
    pub header: Source,
    pub recursive: bool,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("set_real_ip_from", LEVELS, |conf| &mut conf.from),
        Directive::new("real_ip_header", LEVELS, |conf| &mut conf.header),
        Directive::new("real_ip_recursive", LEVELS, |conf| &mut conf.recursive),
    ];
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] = &[
        Variable::new("realip_remote_addr", |ex, out| put(out, ex.connection.remote_ip().as_bytes())),
        Variable::new("realip_remote_port", |ex, out| put(out, ex.connection.remote_port().as_bytes())),
    ];
    /// Who the client really is, once it is known.
    type State = Option<Box<Real>>;
}

/// A client as a proxy names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Real {
    pub address: IpAddr,
    /// `$remote_addr`.
    pub ip: String,
    /// `$remote_port`; empty where the proxy named none.
    pub port: String,
}

/// The post-read and preaccess phases: replaces the client's address for this request, once
/// (`ngx_http_realip_handler`).
pub fn replace(exchange: &mut Exchange) {
    if exchange.location.settings.realip.from.0.is_empty() || exchange.state.realip.is_some() {
        return;
    }
    let conf = Arc::clone(&exchange.location.settings.realip);
    let peer = exchange.connection.remote_ip_address();
    let found = match &conf.header {
        Source::ForwardedFor => {
            let fields: Vec<_> = exchange.head.fields.get_all("x-forwarded-for").collect();
            conf.forwarded(peer, fields.into_iter().rev())
        }
        Source::Field(name) => {
            exchange.head.fields.get(name).and_then(|value| conf.forwarded(peer, std::iter::once(value)))
        }
        Source::ProxyProtocol => exchange.connection.proxied.get().and_then(|header| {
            let found = conf.forwarded(peer, std::iter::once(header.source_address.as_bytes()));
            found.map(|(address, _)| (address, header.source_port))
        }),
    };
    exchange.state.realip = found.map(|(address, port)| {
        let port = if port == 0 { String::new() } else { port.to_string() };
        Box::new(Real { address, ip: ip_text(address), port })
    });
}

impl Conf {
    /// See [`Trusted::forwarded`].
    fn forwarded<'v>(&self, peer: Option<IpAddr>, lists: impl Iterator<Item = &'v [u8]>) -> Option<(IpAddr, u16)> {
        self.from.forwarded(self.recursive, peer, lists)
    }
}

/// The last member of a list whose members stand apart by commas or spaces, and what stands before it.
fn split_last(list: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let apart = |byte: &u8| matches!(byte, b' ' | b',');
    let end = list.iter().rposition(|byte| !apart(byte)).map_or(0, |at| at + 1);
    match list[..end].iter().rposition(apart) {
        Some(at) => (Some(&list[..at]), &list[at + 1..end]),
        None => (None, &list[..end]),
    }
}

/// An address with or without a port, 0 then (`ngx_parse_addr_port`).
fn parse(text: &[u8]) -> Option<(IpAddr, u16)> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse() {
        return Some((address, 0));
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']')? {
            (address, "") => return Some((address.parse().ok()?, 0)),
            (address, port) => (address, port.strip_prefix(':')?),
        },
        None => text.split_once(':')?,
    };
    Some((address.parse().ok()?, parse_port(port.as_bytes())?))
}

/// Who may say who the client is; one mention of `set_real_ip_from` hides those of the level above.
#[derive(Clone, Debug, Default)]
pub struct Trusted(pub Vec<Network>);

impl Trusted {
    /// The last address of the lists that nobody trusted put there, or unless `recursive` the last of all;
    /// `None` where the peer is not trusted or names nobody (`ngx_http_get_forwarded_addr`). The last list comes first.
    pub fn forwarded<'v>(
        &self,
        recursive: bool,
        peer: Option<IpAddr>,
        lists: impl Iterator<Item = &'v [u8]>,
    ) -> Option<(IpAddr, u16)> {
        let mut found = None;
        for mut list in lists {
            loop {
                let client = found.map_or(peer, |(address, _)| Some(address));
                if !self.contains(client) {
                    return found;
                }
                let (rest, last) = split_last(list);
                let Some(named) = parse(last) else { return found };
                found = Some(named);
                match rest {
                    Some(rest) if recursive => list = rest,
                    _ => break,
                }
            }
            if !recursive {
                break;
            }
        }
        found
    }

    fn contains(&self, client: Option<IpAddr>) -> bool {
        self.0.iter().any(|network| network.contains(client))
    }
}

impl Slot for Trusted {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        if args.first {
            self.0.clear();
        }
        let word = args.word(0);
        match Network::parse(&word.value) {
            // Here it is a host's name.
            None | Some(Network::All) => {}
            Some(network) => {
                if network.has_host_bits() {
                    let text = [b"low address bits of ", &word.value[..], b" are meaningless"].concat();
                    args.scope.fault(Fault::at(word.span, text).warn());
                }
                self.0.push(network);
                return Ok(());
            }
        }
        let addresses = std::str::from_utf8(&word.value).ok().and_then(|host| args.scope.resolve(host).ok());
        let Some(addresses) = addresses.filter(|addresses| !addresses.is_empty()) else {
            let text = [b"host not found in set_real_ip_from \"", &word.value[..], b"\""].concat();
            return Err(Fault::at(word.span, text));
        };
        self.0.extend(addresses.into_iter().map(Network::host));
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        1..=1
    }
}

/// Where the client is named: the value of `real_ip_header`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// All `X-Forwarded-For`, as one list.
    ForwardedFor,
    /// The first field of that name.
    Field(Bytes),
    ProxyProtocol,
}

impl Default for Source {
    fn default() -> Self {
        Self::Field(Bytes::from_static(b"X-Real-IP"))
    }
}

impl FromArgs for Source {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        Ok(match &args.word(0).value[..] {
            b"X-Forwarded-For" => Self::ForwardedFor,
            b"proxy_protocol" => Self::ProxyProtocol,
            name => Self::Field(Bytes::copy_from_slice(name)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{ask, fault};

    #[test]
    fn the_client_is_who_a_trusted_proxy_names() {
        for (config, field, client) in [
            ("", "X-Real-IP: 192.0.2.1", "127.0.0.1:40000"),
            ("set_real_ip_from 10.0.0.0/8;", "X-Real-IP: 192.0.2.1", "127.0.0.1:40000"),
            ("set_real_ip_from 127.0.0.1;", "X-Real-IP: 192.0.2.1", "192.0.2.1:"),
            ("set_real_ip_from localhost;", "X-Real-IP: 192.0.2.1:80", "192.0.2.1:80"),
            ("set_real_ip_from 127.0.0.1;", "X-Real-IP: [2001:db8::1]:80", "2001:db8::1:80"),
            ("set_real_ip_from 127.0.0.1;", "X-Real-IP: nonsense", "127.0.0.1:40000"),
            ("set_real_ip_from 127.0.0.1; real_ip_header X-Client;", "X-client: 192.0.2.1", "192.0.2.1:"),
            (
                "set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;",
                "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2, 192.0.2.3",
                "192.0.2.3:",
            ),
            ("set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;", "X-Real-IP: 192.0.2.1", "127.0.0.1:40000"),
        ] {
            let config = format!("{config} location / {{ return 200 $remote_addr:$remote_port; }}");
            let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n");
            assert_eq!(ask(&config, &request).text(), client, "{config} {field}");
        }
    }

    #[test]
    fn the_connection_s_own_address_is_kept_and_rules_see_the_other() {
        let config = "set_real_ip_from 127.0.0.1; deny 192.0.2.1; location / { return 200 $realip_remote_addr; }
            location /file { }";
        let ask = |path: &str| {
            ask(config, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Real-IP: 192.0.2.1\r\n\r\n"))
        };
        assert_eq!(ask("/").text(), "127.0.0.1");
        assert_eq!(ask("/file").status, 403);
    }

    #[test]
    fn lists_are_walked_backwards_through_those_who_are_trusted() {
        let from = Trusted(vec![Network::parse(b"127.0.0.0/8").unwrap(), Network::parse(b"10.0.0.0/8").unwrap()]);
        let conf = Conf { from, header: Source::ForwardedFor, recursive: true };
        let peer = Some(IpAddr::from([127, 0, 0, 1]));
        for (lists, expected) in [
            (&["192.0.2.1, 10.0.0.1"][..], Some("192.0.2.1")),
            (&["192.0.2.1 ,10.0.0.1, "], Some("192.0.2.1")),
            (&["192.0.2.1", "10.0.0.1"], Some("192.0.2.1")),
            (&["192.0.2.1, 192.0.2.2", "10.0.0.1"], Some("192.0.2.2")),
            (&["10.0.0.2, 10.0.0.1"], Some("10.0.0.2")),
            (&["nonsense, 10.0.0.1"], Some("10.0.0.1")),
            (&["192.0.2.1", "nonsense"], None),
            (&[""], None),
            (&[], None),
        ] {
            let found = conf.forwarded(peer, lists.iter().rev().map(|list| list.as_bytes()));
            assert_eq!(found.map(|(ip, _)| ip.to_string()).as_deref(), expected, "{lists:?}");
        }
    }

    #[test]
    fn an_unknown_host_is_a_fault() {
        let message = "host not found in set_real_ip_from \"nowhere.example\"";
        assert_eq!(fault("set_real_ip_from nowhere.example;"), message);
    }
}
