//! `listen`: an address and the options of its socket.

use crate::{
    config::{
        Args, FromArgs,
        values::{Address, Wants, parse_number, parse_size, parse_time, parse_url},
    },
    syntax::{Fault, Span, Word},
};
use std::{ops::RangeInclusive, path::PathBuf};

/// One address of a `listen`.
#[derive(Clone, Debug)]
pub struct Listen {
    pub address: Address,
    pub default_server: bool,
    pub proxy_protocol: bool,
    pub ssl: bool,
    pub http2: bool,
    /// Options of the socket; a second `listen` on the same address must not repeat them.
    pub options: Option<SocketOptions>,
    /// As written.
    pub text: Vec<u8>,
    pub span: Span,
}

/// What is asked of the listening socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    pub backlog: Option<i32>,
    pub rcvbuf: Option<usize>,
    pub sndbuf: Option<usize>,
    pub fastopen: Option<i32>,
    pub deferred: bool,
    pub reuseport: bool,
    /// `None`: nginx's default, on.
    pub ipv6only: Option<bool>,
    pub so_keepalive: Option<SoKeepalive>,
    pub multipath: bool,
    pub bind: bool,
}

/// `so_keepalive=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoKeepalive {
    Off,
    /// With idle and interval in seconds and the number of probes, where given.
    On { idle: Option<u64>, interval: Option<u64>, count: Option<u32> },
}

impl Listen {
    /// An address without parameters, for a server that names none.
    pub fn plain(address: Address, span: Span) -> Self {
        Self {
            address,
            default_server: false,
            proxy_protocol: false,
            ssl: false,
            http2: false,
            options: None,
            text: Vec::new(),
            span,
        }
    }
}

impl FromArgs for Vec<Listen> {
    const TAKES: RangeInclusive<usize> = 1..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let wants = Wants { listen: true, resolve: true, default_port: 80, uri_part: false };
        let url = parse_url(&word.value, wants, args.scope).map_err(|error| {
            let text = [error.as_bytes(), b" in \"", &word.value, b"\" of the \"listen\" directive"];
            Fault::at(word.span, text.concat())
        })?;
        let mut listen = Listen::plain(Address::Unix(PathBuf::new()), word.span);
        listen.text.clone_from(&word.value);
        for word in &args.words()[1..] {
            parameter(&mut listen, args, word)?;
        }
        let mut addresses = url.addresses;
        let mut seen = std::collections::HashSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        Ok(addresses.into_iter().map(|address| Listen { address, ..listen.clone() }).collect())
    }
}

fn parameter(listen: &mut Listen, args: &Args<'_>, word: &Word) -> Result<(), Fault> {
    let invalid = |what: &str| {
        let text = [b"invalid ", what.as_bytes(), b" \"", &word.value, b"\""];
        Fault::at(word.span, text.concat())
    };
    match &word.value[..] {
        b"default_server" | b"default" => listen.default_server = true,
        b"proxy_protocol" => listen.proxy_protocol = true,
        b"ssl" => {
            return Err(Fault::at(word.span, "the \"ssl\" parameter requires ngx_http_ssl_module")
                .help("this version does not speak TLS to clients yet"));
        }
        b"http2" => return Err(Fault::at(word.span, "the \"http2\" parameter requires ngx_http_v2_module")),
        b"quic" => return Err(Fault::at(word.span, "the \"quic\" parameter requires ngx_http_v3_module")),
        value => {
            let options = listen.options.get_or_insert_default();
            let (name, value) = match memchr::memchr(b'=', value) {
                Some(at) => (&value[..at], Some(&value[at + 1..])),
                None => (value, None),
            };
            match (name, value) {
                (b"bind", None) => options.bind = true,
                (b"deferred", None) => options.deferred = true,
                (b"reuseport", None) => options.reuseport = true,
                (b"multipath", None) => options.multipath = true,
                (b"fastopen", Some(value)) => {
                    options.fastopen = Some(small(value).ok_or_else(|| invalid("fastopen"))?);
                }
                (b"backlog", Some(value)) => {
                    let backlog = small(value).filter(|backlog| *backlog > 0);
                    options.backlog = Some(backlog.ok_or_else(|| invalid("backlog"))?);
                }
                (b"rcvbuf", Some(value)) => {
                    options.rcvbuf = Some(parse_size(value).ok_or_else(|| invalid("rcvbuf"))?);
                }
                (b"sndbuf", Some(value)) => {
                    options.sndbuf = Some(parse_size(value).ok_or_else(|| invalid("sndbuf"))?);
                }
                (b"ipv6only", Some(b"on")) => options.ipv6only = Some(true),
                (b"ipv6only", Some(b"off")) => options.ipv6only = Some(false),
                (b"ipv6only", Some([b'o', rest @ ..])) => {
                    let text = [b"invalid ipv6only flags \"o", rest, b"\""];
                    return Err(Fault::at(word.span, text.concat()));
                }
                (b"so_keepalive", Some(value)) => {
                    let text = || [b"invalid so_keepalive value: \"", value, b"\""].concat();
                    let parsed = so_keepalive(value);
                    options.so_keepalive = Some(parsed.ok_or_else(|| Fault::at(word.span, text()))?);
                }
                (b"accept_filter", Some(_)) => {
                    let text = [b"accept filters \"", &word.value[..], b"\" are not supported on this platform, ignored"];
                    args.scope.fault(Fault::at(word.span, text.concat()).warn());
                }
                _ => return Err(args.parameter(word)),
            }
        }
    }
    Ok(())
}

fn small(value: &[u8]) -> Option<i32> {
    let (value, sign) = match value.strip_prefix(b"-") {
        Some(value) => (value, -1),
        None => (value, 1),
    };
    parse_number(value).and_then(|number| i32::try_from(number).ok()).map(|number| sign * number)
}

fn so_keepalive(value: &[u8]) -> Option<SoKeepalive> {
    match value {
        b"on" => return Some(SoKeepalive::On { idle: None, interval: None, count: None }),
        b"off" => return Some(SoKeepalive::Off),
        _ => {}
    }
    let mut parts = value.splitn(3, |byte| *byte == b':');
    let mut time = || match parts.next() {
        None | Some(b"") => Some(None),
        Some(text) => parse_time(text, false).map(Some),
    };
    let (idle, interval) = (time()?, time()?);
    let count = match parts.next() {
        None | Some(b"") => None,
        Some(text) => Some(u32::try_from(parse_number(text)?).ok()?),
    };
    let any = idle.or(interval).or(count.map(u64::from)).is_some_and(|value| value > 0);
    any.then_some(SoKeepalive::On { idle, interval, count })
}
