//! Our own end of a connection to a peer: `proxy_bind`, `proxy_socket_rcvbuf` and their kin.

use super::Failure;
use crate::{
    config::{
        Args, FromArgs,
        values::{Address, Wants, parse_known_url},
    },
    http::{exchange::Exchange, files::errno, template::Template},
    observe::error_log::Level,
    syntax::Fault,
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    time::Duration,
};
use tokio::net::{TcpSocket, TcpStream};

/// How a connection to a peer is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// `_connect_timeout`.
    pub timeout: Duration,
    /// `_socket_keepalive`: the kernel probes idle connections.
    pub keepalive: bool,
    /// `_socket_rcvbuf`, bytes; 0 leaves it to the kernel.
    pub receive_buffer: usize,
    /// `_socket_sndbuf`, bytes; 0 leaves it to the kernel.
    pub send_buffer: usize,
    /// `_bind`, for this request.
    pub local: Option<Local>,
}

impl Options {
    /// Nothing is asked for that must be set before connecting.
    pub fn is_plain(&self) -> bool {
        self.local.is_none() && self.receive_buffer == 0 && self.send_buffer == 0
    }
}

/// The address a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    pub address: SocketAddr,
    /// It need not be one of this machine's.
    pub transparent: bool,
}

/// `_bind`.
#[derive(Clone, Debug, Default)]
pub enum Bind {
    /// The kernel chooses the address.
    #[default]
    Off,
    Address(Local),
    Variable {
        address: Template,
        transparent: bool,
    },
}

impl FromArgs for Bind {
    const TAKES: RangeInclusive<usize> = 1..=2;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        if word.value == b"off" && args.words().len() == 1 {
            return Ok(Self::Off);
        }
        let template = Template::compile(word, args.scope)?;
        let fixed = template.as_literal().map(parse);
        let transparent = match args.words().get(1) {
            Some(word) if word.value == b"transparent" => true,
            Some(word) => return Err(args.parameter(word)),
            None => false,
        };
        match fixed {
            None => Ok(Self::Variable { address: template, transparent }),
            Some(Some(address)) => Ok(Self::Address(Local { address, transparent })),
            Some(None) => Err(Fault::at(word.span, [b"invalid address \"", &word.value[..], b"\""].concat())),
        }
    }
}

impl Bind {
    /// The address for one request (`ngx_http_upstream_set_local`).
    pub fn of(&self, exchange: &Exchange) -> Option<Local> {
        match self {
            Self::Off => None,
            Self::Address(local) => Some(*local),
            Self::Variable { address, transparent } => {
                let text = address.evaluate(exchange);
                if text.is_empty() {
                    return None;
                }
                let address = parse(&text);
                if address.is_none() {
                    let text = String::from_utf8_lossy(&text);
                    exchange.log(Level::Err, &format!("invalid local address \"{text}\""));
                }
                address.map(|address| Local { address, transparent: *transparent })
            }
        }
    }
}

/// An IP address, with or without a port (`ngx_parse_addr_port`).
fn parse(text: &[u8]) -> Option<SocketAddr> {
    let plain = std::str::from_utf8(text).ok()?;
    if let Ok(ip) = plain.parse::<IpAddr>() {
        return Some((ip, 0).into());
    }
    let url = parse_known_url(text, Wants::default()).ok()?;
    match url.addresses[..] {
        [Address::Tcp(address)] if !url.unix => Some(address),
        _ => None,
    }
}

/// Connects from the address and with the buffers that are asked for.
///
/// # Errors
/// [`Failure::Local`] for our own end, [`Failure::Connect`] without an address for the peer's.
pub async fn connect(to: SocketAddr, options: &Options) -> Result<TcpStream, Failure> {
    let refused = |error: io::Error| Failure::Local(format!("socket() failed ({})", errno(&error)));
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(refused)?;
    // Like nginx, a buffer that the kernel does not want is no reason to stop.
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    if options.receive_buffer > 0 {
        let _ = socket.set_recv_buffer_size(size(options.receive_buffer));
    }
    if options.send_buffer > 0 {
        let _ = socket.set_send_buffer_size(size(options.send_buffer));
    }
    if let Some(local) = options.local {
        if local.transparent {
            transparent(&socket, to)?;
        }
        socket.bind(local.address).map_err(|error| {
            let address = match local.address.port() {
                0 => local.address.ip().to_string(),
                _ => local.address.to_string(),
            };
            Failure::Local(format!("bind({address}) failed ({})", errno(&error)))
        })?;
    }
    socket.connect(to).await.map_err(|error| Failure::Connect(String::new(), error))
}

/// Lets a socket come from an address that is not ours.
#[cfg(target_os = "linux")]
fn transparent(socket: &TcpSocket, to: SocketAddr) -> Result<(), Failure> {
    let raw = socket2::SockRef::from(socket);
    let (set, name) = match to {
        SocketAddr::V4(_) => (raw.set_ip_transparent_v4(true), "IP_TRANSPARENT"),
        SocketAddr::V6(_) => (raw.set_ip_transparent_v6(true), "IPV6_TRANSPARENT"),
    };
    set.map_err(|error| Failure::Local(format!("setsockopt({name}) failed ({})", errno(&error))))
}

/// The same where the system cannot.
#[cfg(not(target_os = "linux"))]
fn transparent(_socket: &TcpSocket, _to: SocketAddr) -> Result<(), Failure> {
    Err(Failure::Local("transparent proxying is not supported on this platform".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{conf, fault};

    #[test]
    fn an_address_may_have_a_port() {
        for (text, address) in [
            ("127.0.0.2", "127.0.0.2:0"),
            ("127.0.0.2:99", "127.0.0.2:99"),
            ("::1", "[::1]:0"),
            ("[::1]:99", "[::1]:99"),
        ] {
            assert_eq!(parse(text.as_bytes()), Some(address.parse().unwrap()), "{text}");
        }
        for text in ["", "localhost", "unix:/x", "127.0.0.2:x", "127.0.0.2:99/"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_name_is_no_address_to_come_from() {
        assert_eq!(fault("proxy_bind localhost;"), "invalid address \"localhost\"");
        assert_eq!(fault("proxy_bind 127.0.0.1 opaque;"), "invalid parameter \"opaque\"");
        assert_eq!(fault("proxy_bind 127.0.0.1; proxy_bind 127.0.0.1;"), "\"proxy_bind\" directive is duplicate");
    }

    #[test]
    fn off_is_no_address_and_an_address_may_be_foreign() {
        assert!(matches!(conf("proxy_bind off;").proxy.passing.bind, Bind::Off));
        let transparent = conf("proxy_bind 192.0.2.1 transparent;").proxy.passing.bind.clone();
        assert!(matches!(transparent, Bind::Address(Local { transparent: true, .. })));
        let variable = conf("uwsgi_bind $remote_addr transparent;").uwsgi.passing.bind.clone();
        assert!(matches!(variable, Bind::Variable { transparent: true, .. }));
    }
}
