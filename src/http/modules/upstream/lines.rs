//! `server` and the load balancing methods.

use super::{
    retry::{self, HOST_NOT_FOUND, Unresolved},
    sticky::StickyConf,
};
use crate::{
    config::{
        Args, Slot,
        values::{Url, Wants, parse_number, parse_time, parse_url},
    },
    http::template::Template,
    syntax::{Fault, Span, Word},
    upstream::{
        Address, Balance, ServerLine,
        balance::{Measure, Two},
        resolve::Resolved,
    },
};
use std::ops::RangeInclusive;

/// The `server` lines and the method. One slot: which parameters a line may have depends on the method
/// written above it, and `sticky` holds for the method above it.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    pub(super) servers: Vec<(ServerLine, Vec<Address>)>,
    pub(super) names: Vec<Name>,
    /// Those whose names nobody knew.
    pub(super) unresolved: Vec<Unresolved>,
    pub(super) balance: Balance,
    pub(super) key: Option<Template>,
    pub(super) sticky: Option<StickyConf>,
    /// Where the method, or `sticky` without one, was chosen.
    method: Option<Span>,
}

/// A server whose name is looked up while the server runs.
#[derive(Clone, Debug)]
pub(super) struct Name {
    line: ServerLine,
    host: String,
    service: Option<String>,
    port: u16,
}

impl Name {
    pub(super) fn resolved(&self) -> Resolved {
        Resolved::new(self.line.clone(), self.host.clone(), self.service.clone(), self.port)
    }
}

impl Lines {
    pub(super) fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.names.is_empty() && self.unresolved.is_empty()
    }
}

impl Slot for Lines {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        let at = args.statement.name.span;
        let duplicate = || Fault::at(at, format!("\"{}\" directive is duplicate", args.name()));
        let words = args.words();
        match &args.statement.name.value[..] {
            b"server" => return self.server(args),
            b"sticky" if args.first => {
                self.sticky = Some(StickyConf::read(args)?);
                self.method = self.method.or(Some(at));
                return Ok(());
            }
            b"sticky" => return Err(duplicate()),
            _ => {}
        }
        let key = match &args.statement.name.value[..] {
            b"hash" => Some(Template::compile(args.word(0), args.scope)?),
            _ => None,
        };
        if let Some(earlier) = self.method {
            let fault = Fault::at(at, "load balancing method redefined").warn().also(earlier, "first chosen here");
            args.scope.fault(match self.sticky.take() {
                Some(_) => fault.help("`sticky` is lost by it: write it below the method"),
                None => fault,
            });
        }
        self.method = Some(at);
        self.key = key;
        self.balance = match &args.statement.name.value[..] {
            b"least_conn" => Balance::LeastConn,
            b"least_load" => {
                if let Some(word) = words.first() {
                    return Err(args.parameter(word));
                }
                Balance::LeastLoad
            }
            b"ip_hash" => Balance::IpHash,
            b"hash" => match words.get(1) {
                None => Balance::Hash { consistent: false },
                Some(word) if word.value == b"consistent" => Balance::Hash { consistent: true },
                Some(word) => return Err(args.parameter(word)),
            },
            b"random" => Balance::Random(two(args)?),
            _ => {
                let inflight = match words.get(1) {
                    None => false,
                    Some(word) if word.value == b"inflight" => true,
                    Some(word) => return Err(args.parameter(word)),
                };
                if !args.first {
                    return Err(duplicate());
                }
                let measure = measure(&words[0].value).ok_or_else(|| args.invalid(&words[0]))?;
                Balance::LeastTime { measure, inflight }
            }
        };
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        0..=usize::MAX
    }
}

/// `random [two [method]]`. The methods that mind the time of answers are NGINX Plus's.
fn two(args: &Args<'_>) -> Result<Option<Two>, Fault> {
    let words = args.words();
    match words.first() {
        None => return Ok(None),
        Some(word) if word.value == b"two" => {}
        Some(word) => return Err(args.parameter(word)),
    }
    let Some(word) = words.get(1) else { return Ok(Some(Two::LeastConn)) };
    if word.value == b"least_conn" {
        return Ok(Some(Two::LeastConn));
    }
    let measured = word.value.strip_prefix(b"least_time=").and_then(measure);
    measured.map(|measure| Some(Two::LeastTime(measure))).ok_or_else(|| args.parameter(word))
}

fn measure(word: &[u8]) -> Option<Measure> {
    match word {
        _ if word.eq_ignore_ascii_case(b"header") => Some(Measure::Header),
        _ if word.eq_ignore_ascii_case(b"last_byte") => Some(Measure::LastByte),
        _ => None,
    }
}

impl Lines {
    /// `ngx_http_upstream_server`.
    fn server(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        let word = args.word(0);
        let Written { line, resolve, service } = read(args, self.balance)?;
        let about = |what: &str| {
            Fault::at(word.span, [b"service upstream \"", &word.value[..], b"\" ", what.as_bytes()].concat())
        };
        if service.is_some() && !resolve {
            return Err(about("requires \"resolve\" parameter"));
        }
        let url = match address(args, word, !resolve) {
            Err(HOST_NOT_FOUND) => {
                let url = address(args, word, false).map_err(|error| refused(word, error))?;
                let fault = refused(word, HOST_NOT_FOUND);
                self.unresolved.push(Unresolved::new(line, &url.host, url.port, fault, args));
                return Ok(());
            }
            url => url.map_err(|error| refused(word, error))?,
        };
        if service.is_some() && url.has_port {
            return Err(about("may not have port"));
        }
        if service.is_some() && !url.addresses.is_empty() {
            return Err(about("requires domain name"));
        }
        if resolve && url.addresses.is_empty() {
            let host = String::from_utf8_lossy(&url.host).into_owned();
            self.names.push(Name { line, host, service, port: url.port });
        } else {
            self.servers.push((line, url.addresses));
        }
        Ok(())
    }
}

fn address(args: &Args<'_>, word: &Word, resolve: bool) -> Result<Url, &'static str> {
    let wants = Wants { resolve, default_port: 80, ..Wants::default() };
    parse_url(&word.value, wants, args.scope)
}

/// What nginx says of an address that is wrong.
fn refused(word: &Word, error: &'static str) -> Fault {
    let text = [error.as_bytes(), b" in upstream \"", &word.value, b"\""].concat();
    let fault = Fault::at(word.span, text);
    match error {
        "invalid host" => fault.help("write the address alone, as in `server 127.0.0.1:8000;`"),
        HOST_NOT_FOUND => retry::not_found(fault),
        _ => fault,
    }
}

/// The parameters of a line.
struct Written {
    line: ServerLine,
    resolve: bool,
    service: Option<String>,
}

fn read(args: &Args<'_>, balance: Balance) -> Result<Written, Fault> {
    let mut line = ServerLine { server: args.word(0).text().into_owned(), ..ServerLine::default() };
    let (mut resolve, mut service) = (false, None);
    for word in &args.words()[1..] {
        let invalid = || args.parameter(word);
        let refused = || {
            let text = [b"balancing method does not support parameter \"", &word.value[..], b"\""].concat();
            Fault::at(word.span, text)
        };
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
            (b"backup", None) if !balance.allows_backup() => return Err(refused()),
            (b"backup", None) => line.backup = true,
            // The one written last counts.
            (b"down", None) => (line.down, line.drain) = (true, false),
            (b"drain", None) => (line.down, line.drain) = (false, true),
            (b"route", Some(b"")) => return Err(Fault::at(word.span, "route is empty")),
            (b"route", Some(value)) if value.len() > 32 => {
                return Err(Fault::at(word.span, "route is longer than 32"));
            }
            (b"route", Some(value)) => line.route = String::from_utf8_lossy(value).into_owned(),
            // NGINX Plus's.
            (b"slow_start", Some(_)) if !balance.allows_backup() => return Err(refused()),
            (b"slow_start", Some(value)) => line.slow_start = parse_time(value, true).ok_or_else(invalid)?,
            (b"resolve", None) => resolve = true,
            (b"service", Some(b"")) => return Err(Fault::at(word.span, "service is empty")),
            (b"service", Some(value)) => service = Some(String::from_utf8_lossy(value).into_owned()),
            _ => return Err(invalid()),
        }
    }
    Ok(Written { line, resolve, service })
}
