//! Where to listen and where to connect, as nginx writes it (`ngx_parse_url`): `80`, `*:80`, `host:port`,
//! `[::1]:80`, `unix:/path`, with a URI part where a directive allows one.

use super::numbers::{parse_number, parse_port};
use crate::config::Scope;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

/// Where a socket is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// The form nginx logs (`ngx_sock_ntop` with a port).
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(SocketAddr::V4(address)) => write!(f, "{address}"),
            Self::Tcp(SocketAddr::V6(address)) => {
                write!(f, "[{}]:{}", ip_text(IpAddr::V6(*address.ip())), address.port())
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An IP address as nginx writes it (`ngx_inet6_ntop`): IPv4-compatible IPv6 addresses are dotted, too.
pub fn ip_text(ip: IpAddr) -> String {
    if let IpAddr::V6(ip) = ip {
        let (segments, bytes) = (ip.segments(), ip.octets());
        let dotted = segments[6] != 0 || (bytes[14] != 0 && bytes[15] != 1);
        if segments[..6].iter().all(|segment| *segment == 0) && dotted {
            return format!("::{}", Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]));
        }
    }
    ip.to_string()
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// What a directive wants of an address.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wants {
    /// To listen: a bare port, `*` and port ranges are legal.
    pub listen: bool,
    /// A URI may follow.
    pub uri_part: bool,
    /// Names are looked up at once.
    pub resolve: bool,
    /// For addresses without a port.
    pub default_port: u16,
}

/// An address taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// As written, without port and URI; `[::1]` keeps its brackets, a unix path its bare path.
    pub host: Vec<u8>,
    pub port: u16,
    /// A port was written.
    pub has_port: bool,
    /// What follows, with its `/` or `?`.
    pub uri: Vec<u8>,
    /// All addresses; empty for a name that was not looked up.
    pub addresses: Vec<Address>,
    pub unix: bool,
}

/// Takes an address apart.
///
/// # Errors
/// nginx's text for what is wrong with it, to stand before ` in "…"`.
pub fn parse_url(text: &[u8], wants: Wants, scope: &Scope<'_>) -> Result<Url, &'static str> {
    parse(text, wants, Some(scope))
}

/// The same at run time: names are left to a resolver.
///
/// # Errors
/// As [`parse_url`].
pub fn parse_known_url(text: &[u8], wants: Wants) -> Result<Url, &'static str> {
    parse(text, Wants { resolve: false, ..wants }, None)
}

fn parse(text: &[u8], wants: Wants, scope: Option<&Scope<'_>>) -> Result<Url, &'static str> {
    if text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"unix:")) {
        unix(&text[5..], wants)
    } else if text.first() == Some(&b'[') {
        inet6(text, wants)
    } else {
        inet(text, wants, scope)
    }
}

fn unix(text: &[u8], wants: Wants) -> Result<Url, &'static str> {
    let (path, uri) = match memchr::memchr(b':', text).filter(|_| wants.uri_part) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[][..]),
    };
    if path.is_empty() {
        return Err("no path in the unix domain socket");
    }
    if path.len() + 1 > 108 {
        return Err("too long path in the unix domain socket");
    }
    let address = Address::Unix(crate::config::scope::bytes_to_path(path).to_path_buf());
    Ok(Url { host: path.into(), port: 0, has_port: false, uri: uri.into(), addresses: vec![address], unix: true })
}

fn inet6(text: &[u8], wants: Wants) -> Result<Url, &'static str> {
    let close = memchr::memchr(b']', text).ok_or("invalid host")?;
    let (rest, uri) = split_uri(&text[close + 1..], wants)?;
    let (first, last, has_port) = match rest.split_first() {
        None => (wants.default_port, wants.default_port, false),
        Some((b':', port)) => {
            let (first, last) = ports(port, wants.listen)?;
            (first, last, true)
        }
        Some(_) => return Err("invalid host"),
    };
    let host = &text[1..close];
    if host.is_empty() {
        return Err("no host");
    }
    let ip = std::str::from_utf8(host).ok().and_then(|host| host.parse::<Ipv6Addr>().ok());
    let ip = ip.ok_or("invalid IPv6 address")?;
    let addresses = (first..=last).map(|port| SocketAddr::new(IpAddr::V6(ip), port).into()).collect();
    Ok(Url { host: text[..=close].into(), port: first, has_port, uri: uri.into(), addresses, unix: false })
}

fn inet(text: &[u8], wants: Wants, scope: Option<&Scope<'_>>) -> Result<Url, &'static str> {
    let (rest, uri) = split_uri(text, wants)?;
    let (host, first, last, has_port) = match memchr::memchr(b':', rest) {
        Some(at) => {
            let (first, last) = ports(&rest[at + 1..], wants.listen)?;
            (&rest[..at], first, last, true)
        }
        None if wants.listen && uri.is_empty() && looks_like_ports(rest) => {
            let (first, last) = ports(rest, true)?;
            (&b"*"[..], first, last, true)
        }
        None => (rest, wants.default_port, wants.default_port, false),
    };
    if host.is_empty() {
        return Err("no host");
    }
    let mut url = Url { host: host.into(), port: first, has_port, uri: uri.into(), addresses: Vec::new(), unix: false };
    let ips = if wants.listen && host == b"*" {
        vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)]
    } else if let Some(ip) = std::str::from_utf8(host).ok().and_then(|host| host.parse::<Ipv4Addr>().ok()) {
        vec![IpAddr::V4(ip)]
    } else if let Some(scope) = scope.filter(|_| wants.resolve) {
        let host = std::str::from_utf8(host).map_err(|_| "host not found")?;
        scope.resolve(host).map_err(|_| "host not found")?
    } else {
        return Ok(url);
    };
    let each = ips.into_iter().flat_map(|ip| (first..=last).map(move |port| SocketAddr::new(ip, port).into()));
    url.addresses = each.collect();
    Ok(url)
}

fn split_uri(text: &[u8], wants: Wants) -> Result<(&[u8], &[u8]), &'static str> {
    match memchr::memchr2(b'/', b'?', text) {
        None => Ok((text, &[])),
        Some(_) if wants.listen || !wants.uri_part => Err("invalid host"),
        Some(at) => Ok(text.split_at(at)),
    }
}

fn looks_like_ports(text: &[u8]) -> bool {
    let mut parts = text.splitn(2, |byte| *byte == b'-');
    parts.all(|part| parse_number(part).is_some())
}

fn ports(text: &[u8], range: bool) -> Result<(u16, u16), &'static str> {
    let port = |text: &[u8]| parse_port(text).ok_or("invalid port");
    match memchr::memchr(b'-', text).filter(|_| range) {
        None => port(text).map(|port| (port, port)),
        Some(at) => {
            let last = port(&text[at + 1..])?;
            let first = port(&text[..at])?;
            if first <= last { Ok((first, last)) } else { Err("invalid port range") }
        }
    }
}
