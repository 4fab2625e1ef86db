//! `resolver`: the name servers that are asked for names which are known only while requests run.

mod names;
mod question;
mod service;
mod zone;

use super::Room;
use crate::{
    config::{
        Args, Directive, FromArgs, Kind, LEVELS, Module, Scope,
        values::{Address, Msec, Wants, parse_time, parse_url},
    },
    http::{exchange::Exchange, files},
    observe::error_log::Level,
    syntax::{Fault, Word},
};
pub use question::Failure;
pub use service::{Service, Target, lookup_service};
pub use zone::Zone;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

#[derive(Clone, Debug)]
pub struct Conf {
    pub servers: Option<NameServers>,
    /// How long one request waits for a name; zero is for ever.
    pub timeout: Msec,
}

impl Default for Conf {
    fn default() -> Self {
        Self { servers: None, timeout: Msec::seconds(30) }
    }
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("resolver", LEVELS, |conf| &mut conf.servers),
        Directive::new("resolver_timeout", LEVELS, |conf| &mut conf.timeout),
    ];
}

impl Room for Conf {
    type State = ();
}

/// The zones that a reading mentions, in the order of their mention.
pub fn zones(scope: &Scope<'_>) -> Vec<Arc<Zone>> {
    let named = scope.names(Kind::ResolverZone);
    named.iter().map(|named| Zone::named(&String::from_utf8_lossy(&named.name))).collect()
}

/// The addresses of a name, as the servers of the request's location give them.
///
/// # Errors
/// The line nginx writes to the error log before it answers 502 (`ngx_http_upstream_resolve_handler`).
pub async fn resolve(exchange: &Exchange, name: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(ip) = name.parse::<Ipv4Addr>() {
        return Ok(vec![ip.into()]);
    }
    let conf = Arc::clone(&exchange.location.settings.resolver);
    let Some(servers) = &conf.servers else { return Err(format!("no resolver defined to resolve {name}")) };
    let http = Arc::clone(&exchange.http);
    let log: Log = Rc::new(move |trouble| http.log(Level::Err, &trouble.to_string()));
    lookup(servers, conf.timeout.0, name, log).await.map_err(|failure| {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        format!("{name} could not be resolved ({failure})")
    })
}

/// The addresses of a name without a request: from what this thread remembers of the servers' answers, or by
/// asking them. A zero `timeout` waits for ever.
///
/// # Errors
/// What the servers said, or that they said nothing in time.
pub async fn lookup(servers: &NameServers, timeout: Duration, name: &str, log: Log) -> Result<Vec<IpAddr>, Failure> {
    lookup_for_a_time(servers, timeout, name, log).await.map(|(addresses, _)| addresses)
}

/// The same, and for how many seconds they hold.
///
/// # Errors
/// As [`lookup`].
pub async fn lookup_for_a_time(
    servers: &NameServers,
    timeout: Duration,
    name: &str,
    log: Log,
) -> Result<(Vec<IpAddr>, u64), Failure> {
    let name = question::name(name).ok_or(Failure::NotFound)?;
    in_time(timeout, names::of(servers).addresses(name, log)).await
}

/// Waits for an answer, but no longer than `resolver_timeout`; zero is for ever.
async fn in_time<T>(timeout: Duration, answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    if timeout.is_zero() {
        return answer.await;
    }
    tokio::time::timeout(timeout, answer).await.unwrap_or(Err(Failure::TimedOut))
}

/// Where trouble with a server goes that does not end a lookup.
pub type Log = Rc<dyn Fn(Trouble<'_>)>;

/// Trouble with one server, in the words of nginx's error log.
#[derive(Debug, thiserror::Error)]
pub enum Trouble<'t> {
    /// It cannot be reached. `call` is the system call nginx would name.
    #[error("{call}() failed ({}) while resolving, resolver: {}", files::errno(error), Address::Tcp(*server))]
    Io { call: &'static str, error: &'t std::io::Error, server: SocketAddr },
    /// It answered with a code that nginx waits on after (`ngx_resolver_process_response`).
    #[error("DNS error ({code}: {text}), query id:{id}, name:\"{name}\"")]
    Code { code: u16, text: &'static str, id: u16, name: String },
}

/// The argument of `resolver`: whom to ask, for what, and how long answers are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NameServers {
    pub servers: Vec<SocketAddr>,
    /// Seconds answers are kept; `None` leaves it to their TTL.
    pub valid: Option<u64>,
    pub ipv4: bool,
    pub ipv6: bool,
    /// `status_zone=`: where it is counted what they are asked and say.
    pub zone: Option<String>,
}

impl FromArgs for NameServers {
    const TAKES: RangeInclusive<usize> = 1..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let mut read = Self { servers: Vec::new(), valid: None, ipv4: true, ipv6: true, zone: None };
        for word in args.words() {
            if let Some(valid) = word.value.strip_prefix(b"valid=") {
                let seconds = parse_time(valid, false).ok_or_else(|| invalid(word))?;
                read.valid = (seconds > 0).then_some(seconds);
            } else if let Some(flag) = word.value.strip_prefix(b"ipv4=") {
                read.ipv4 = on_or_off(flag, word)?;
            } else if let Some(flag) = word.value.strip_prefix(b"ipv6=") {
                read.ipv6 = on_or_off(flag, word)?;
            } else if let Some(name) = word.value.strip_prefix(b"status_zone=") {
                args.scope.refer(Kind::ResolverZone, name, word.span);
                read.zone = Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty());
                if read.zone.is_none() {
                    return Err(invalid(word));
                }
            } else {
                read.servers.extend(servers(word, args)?);
            }
        }
        if !read.ipv4 && !read.ipv6 {
            return Err(Fault::at(args.statement.name.span, "\"ipv4\" and \"ipv6\" cannot both be \"off\""));
        }
        if read.servers.is_empty() {
            return Err(Fault::at(args.statement.name.span, "no name servers defined"));
        }
        Ok(read)
    }
}

fn invalid(word: &Word) -> Fault {
    Fault::at(word.span, [b"invalid parameter: ", &word.value[..]].concat())
}

/// Unlike a flag of its own, this one minds the case.
fn on_or_off(flag: &[u8], word: &Word) -> Result<bool, Fault> {
    match flag {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => Err(invalid(word)),
    }
}

/// Every address of one server.
fn servers(word: &Word, args: &Args<'_>) -> Result<Vec<SocketAddr>, Fault> {
    let wants = Wants { resolve: true, default_port: 53, ..Wants::default() };
    let url = parse_url(&word.value, wants, args.scope).map_err(|error| {
        let text = [error.as_bytes(), b" in resolver \"", &word.value[..], b"\""].concat();
        Fault::at(word.span, text)
    })?;
    let ip = |address| match address {
        Address::Tcp(address) => Ok(address),
        Address::Unix(_) => {
            Err(Fault::at(word.span, [b"invalid host in resolver \"", &word.value[..], b"\""].concat())
                .help("a name server is reached by an IP address"))
        }
    };
    url.addresses.into_iter().map(ip).collect()
}

#[cfg(test)]
mod tests;
