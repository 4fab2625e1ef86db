//! `sticky cookie`, `sticky route` and `sticky learn`: their arguments.

use super::zones::Zone;
use crate::{
    config::{
        Args, Handle, Kind,
        values::{parse_size, parse_time},
    },
    http::template::Template,
    syntax::{Fault, Word},
    upstream::sticky::{self, Cookie, Expires, Learn, SESSION_TIMEOUT, Sessions, Sticky, is_samesite},
};
use std::{sync::Arc, time::Duration};

/// One `sticky`.
#[derive(Clone, Debug)]
pub(super) struct StickyConf {
    lookup: Vec<Handle>,
    kind: Written,
}

#[derive(Clone, Debug)]
enum Written {
    Cookie(Cookie),
    Route,
    Learn { create: Vec<Handle>, at_header: bool, zone: Zone, timeout: Duration },
}

impl StickyConf {
    /// Reads the arguments (`ngx_http_upstream_sticky`).
    ///
    /// # Errors
    /// nginx's faults.
    pub(super) fn read(args: &Args<'_>) -> Result<Self, Fault> {
        let kind = args.word(0);
        match &kind.value[..] {
            b"cookie" => cookie(args),
            b"route" => {
                let lookup = args.words()[1..].iter().map(|word| match word.value.strip_prefix(b"$") {
                    Some(name) => Ok(args.scope.refer(Kind::Variable, name, word.span)),
                    None => Err(Fault::at(word.span, [b"invalid variable name \"", &word.value[..], b"\""].concat())),
                });
                Ok(Self { lookup: lookup.collect::<Result<_, _>>()?, kind: Written::Route })
            }
            b"learn" => learn(args),
            _ => Err(unknown(kind).help("it must be one of `cookie`, `route`, `learn`")),
        }
    }

    /// The zone that sessions are learned in.
    pub(super) fn zone(&self) -> Option<&Zone> {
        match &self.kind {
            Written::Learn { zone, .. } => Some(zone),
            Written::Cookie(_) | Written::Route => None,
        }
    }

    /// As the upstream uses it.
    pub(super) fn sticky(&self) -> Sticky {
        let kind = match &self.kind {
            Written::Cookie(cookie) => sticky::Kind::Cookie(cookie.clone()),
            Written::Route => sticky::Kind::Route,
            Written::Learn { create, at_header, zone, timeout } => {
                let name = String::from_utf8_lossy(&zone.name).into_owned();
                let sessions = Arc::new(Sessions::new(name, zone.size, *timeout));
                sticky::Kind::Learn(Learn { create: create.clone(), at_header: *at_header, sessions })
            }
        };
        Sticky { lookup: self.lookup.clone(), kind }
    }
}

fn unknown(word: &Word) -> Fault {
    Fault::at(word.span, [b"unknown parameter \"", &word.value[..], b"\""].concat())
}

/// `sticky cookie name [expires=] [domain=] [path=] [samesite=] [httponly] [secure]`.
fn cookie(args: &Args<'_>) -> Result<StickyConf, Fault> {
    let name = args.word(1);
    if name.value.is_empty() {
        return Err(args.directive(name, "empty cookie name"));
    }
    let mut cookie = Cookie { name: name.value.clone(), ..Cookie::default() };
    let (mut expires, mut path) = (None, None);
    for word in &args.words()[2..] {
        let once = |seen: bool, name: &str| match seen {
            true => Err(args.directive(word, &format!("parameter \"{name}\" is duplicate"))),
            false => Ok(()),
        };
        let some = |value: &[u8], name: &str| match value.is_empty() {
            true => Err(args.directive(word, &format!("no value for \"{name}\""))),
            false => Ok(()),
        };
        let (name, value) = match memchr::memchr(b'=', &word.value) {
            Some(at) => (&word.value[..at], Some(&word.value[at + 1..])),
            None => (&word.value[..], None),
        };
        match (name, value) {
            (b"domain", Some(value)) => {
                once(cookie.domain.is_some(), "domain")?;
                some(value, "domain")?;
                cookie.domain = Some(Template::compile_text(value, word, args.scope)?);
            }
            (b"path", Some(value)) => {
                once(path.is_some(), "path")?;
                some(value, "path")?;
                path = Some(value.to_vec());
            }
            (b"expires", Some(value)) => {
                once(expires.is_some(), "expires")?;
                let invalid = || args.directive(word, "invalid \"expires\" parameter value");
                expires = Some(match value {
                    b"max" => Expires::Max,
                    value => Expires::After(parse_time(value, false).ok_or_else(invalid)?),
                });
            }
            (b"httponly", None) => {
                once(cookie.httponly, "httponly")?;
                cookie.httponly = true;
            }
            (b"secure", None) => {
                once(cookie.secure, "secure")?;
                cookie.secure = true;
            }
            (b"samesite", Some(value)) => {
                once(cookie.samesite.is_some(), "samesite")?;
                let samesite = Template::compile_text(value, word, args.scope)?;
                if samesite.as_literal().is_some_and(|value| !is_samesite(value)) {
                    return Err(args.directive(word, "invalid \"samesite\" parameter value"));
                }
                cookie.samesite = Some(samesite);
            }
            _ => return Err(unknown(word)),
        }
    }
    cookie.path = path.unwrap_or_default();
    cookie.expires = expires;
    let variable = [b"cookie_", &cookie.name[..]].concat();
    let lookup = vec![args.scope.refer(Kind::Variable, &variable, name.span)];
    Ok(StickyConf { lookup, kind: Written::Cookie(cookie) })
}

/// `sticky learn create= lookup= zone=name:size [timeout=] [header]`.
fn learn(args: &Args<'_>) -> Result<StickyConf, Fault> {
    let (mut create, mut lookup) = (Vec::new(), Vec::new());
    let (mut zone, mut timeout, mut at_header) = (None, None, false);
    for word in &args.words()[1..] {
        let wrong = |text: &str| args.directive(word, text);
        let variable = |value: &[u8], name: &str| match value.strip_prefix(b"$") {
            Some(name) => Ok(args.scope.refer(Kind::Variable, name, word.span)),
            None => Err(wrong(&format!("missing variable in the \"{name}\" parameter"))),
        };
        if let Some(value) = word.value.strip_prefix(b"zone=") {
            if zone.is_some() {
                return Err(wrong("duplicate zone"));
            }
            let at = memchr::memchr(b':', value).ok_or_else(|| wrong("zone size is not specified"))?;
            if at == 0 {
                return Err(wrong("zone name is not specified"));
            }
            let size = parse_size(&value[at + 1..]).ok_or_else(|| wrong("invalid zone size"))?;
            if size < 8 * 4096 {
                return Err(wrong("zone is too small"));
            }
            let (name, end) = (value[..at].to_vec(), args.statement.end);
            zone = Some(Zone { name, size, span: word.span, end, sessions: true });
        } else if let Some(value) = word.value.strip_prefix(b"timeout=") {
            if timeout.is_some() {
                return Err(wrong("duplicate timeout"));
            }
            let milliseconds = parse_time(value, true).filter(|time| *time > 0);
            timeout = Some(Duration::from_millis(milliseconds.ok_or_else(|| wrong("invalid timeout"))?));
        } else if let Some(value) = word.value.strip_prefix(b"create=") {
            create.push(variable(value, "create")?);
        } else if let Some(value) = word.value.strip_prefix(b"lookup=") {
            lookup.push(variable(value, "lookup")?);
        } else if word.value == b"header" {
            at_header = true;
        } else {
            return Err(unknown(word));
        }
    }
    let missing = |name: &str| {
        Fault::at(args.statement.name.span, format!("\"sticky\" directive \"{name}\" parameter is not specified"))
    };
    if lookup.is_empty() {
        return Err(missing("lookup"));
    }
    if create.is_empty() {
        return Err(missing("create"));
    }
    let zone = zone.ok_or_else(|| missing("zone"))?;
    let timeout = timeout.unwrap_or(SESSION_TIMEOUT);
    Ok(StickyConf { lookup, kind: Written::Learn { create, at_header, zone, timeout } })
}
