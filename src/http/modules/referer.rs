//! `valid_referers`: whether a request comes from a page that may lead here.

use super::{Room, core::put};
use crate::{
    config::{Args, Contexts, Directive, LOCATION, Module, SERVER, Scope, Slot},
    http::{
        exchange::Exchange,
        names::{Names, Refusal, ServerName},
        regex::Regex,
        variables::Variable,
    },
    observe::error_log::Level,
    syntax::{Fault, Span, Stage, Word},
};
use bytes::Bytes;
use std::{
    ops::RangeInclusive,
    sync::{Arc, OnceLock},
};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    valid: Valid,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] =
        &[Directive::new("valid_referers", SERVER.or(LOCATION), |conf| &mut conf.valid)];

    fn settle(&mut self, _scope: &Scope<'_>, _level: Contexts) -> Result<(), Fault> {
        let valid = &self.valid;
        if (valid.none || valid.blocked) && valid.names.is_empty() && !valid.server_names {
            let text = "the \"none\" or \"blocked\" referers are specified in the \"valid_referers\" directive \
                without any valid referer";
            return Err(Fault::at(valid.at, text).unnamed().when(Stage::Settling));
        }
        Ok(())
    }
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] =
        &[Variable::changeable("invalid_referer", |ex, out| put(out, if valid(ex) { b"" } else { b"1" }))];
    type State = ();
}

/// The `valid_referers` of a level; one mention hides those above, but for expressions, which stay until a level has
/// its own (`ngx_http_referer_merge_conf`).
#[derive(Clone, Debug, Default)]
struct Valid {
    /// A request without a `Referer`.
    none: bool,
    /// One whose scheme somebody took away.
    blocked: bool,
    /// The names of the server are valid, too.
    server_names: bool,
    /// Hosts, with what the path must begin with.
    names: Arc<Names<Bytes>>,
    /// Of what stands behind the scheme.
    regexes: Vec<Arc<Regex>>,
    regexes_inherited: bool,
    /// Those of the server, made when they are first needed.
    served: OnceLock<Arc<Names<()>>>,
    at: Span,
}

impl Valid {
    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.regexes.is_empty() && !self.server_names
    }

    fn add(&mut self, word: &Word) -> Result<(), Fault> {
        let fault = |parts: [&[u8]; 3]| Fault::at(word.span, parts.concat());
        match &word.value[..] {
            b"" => return Err(fault([b"invalid referer \"", b"", b"\""])),
            b"none" => self.none = true,
            b"blocked" => self.blocked = true,
            b"server_names" => self.server_names = true,
            b"~" => return Err(fault([b"empty regex in \"", b"~", b"\""])),
            [b'~', pattern @ ..] => {
                let regex = Regex::compile(pattern, true).map_err(|error| Fault::at(word.span, error.message))?;
                if std::mem::take(&mut self.regexes_inherited) {
                    self.regexes.clear();
                }
                self.regexes.push(Arc::new(regex));
            }
            text => {
                let (host, path) = text.split_at(memchr::memchr(b'/', text).unwrap_or(text.len()));
                let Some(names) = Arc::get_mut(&mut self.names) else { return Ok(()) };
                let added = names.add(&host.to_ascii_lowercase(), Bytes::copy_from_slice(path));
                added.map_err(|refusal| match refusal {
                    Refusal::Conflict => fault([b"conflicting parameter \"", host, b"\""]),
                    Refusal::Invalid => fault([b"invalid hostname or wildcard \"", host, b"\""]),
                })?;
            }
        }
        Ok(())
    }

    /// The names of the server that answers.
    fn served(&self, exchange: &Exchange) -> &Names<()> {
        self.served.get_or_init(|| {
            let mut names = Names::default();
            for (name, _) in exchange.location.settings.server.names.iter().flat_map(|names| &names.0) {
                match ServerName::parse(name, exchange.http.hostname.as_bytes()) {
                    Ok(ServerName::Regex(regex)) => names.add_regex(regex, ()),
                    _ => drop(names.add(&name.to_ascii_lowercase(), ())),
                }
            }
            Arc::new(names)
        })
    }
}

impl Slot for Valid {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        if args.first {
            let regexes = std::mem::take(&mut self.regexes);
            let at = args.statement.name.span;
            *self = Self { regexes, regexes_inherited: true, at, ..Self::default() };
        }
        args.words().iter().try_for_each(|word| self.add(word))
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        1..=usize::MAX
    }
}

/// Whether the request's `Referer` is valid (`ngx_http_referer_variable`).
fn valid(exchange: &Exchange) -> bool {
    let conf = &exchange.location.settings.referer.valid;
    if conf.is_empty() {
        return true;
    }
    let Some(referer) = exchange.field("referer") else { return conf.none };
    let long = referer.len() >= b"http://i.ru".len();
    let Some(rest) = behind_scheme(referer).filter(|_| long) else { return conf.blocked };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b':')).unwrap_or(rest.len());
    let host = rest[..end].to_ascii_lowercase();
    if host.len() > 256 {
        return false;
    }
    if let Ok(Some(found)) = conf.names.find(&host) {
        let path = &rest[memchr::memchr(b'/', &rest[end..]).map_or(rest.len(), |at| end + at)..];
        return path.starts_with(found.value);
    }
    if conf.server_names && matches!(conf.served(exchange).find(&host), Ok(Some(_))) {
        return true;
    }
    conf.regexes.iter().any(|regex| {
        regex.is_match(rest).unwrap_or_else(|error| {
            exchange.log(Level::Alert, &error.to_string());
            false
        })
    })
}

fn behind_scheme(referer: &[u8]) -> Option<&[u8]> {
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    let found = schemes
        .iter()
        .find(|scheme| referer.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
    found.map(|scheme| &referer[scheme.len()..])
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask, fault};

    fn said(referers: &str, referer: &str) -> String {
        let server =
            format!("server_name served.org *.wild.org; location / {{ {referers} return 200 '[$invalid_referer]'; }}");
        let field = if referer.is_empty() { String::new() } else { format!("Referer: {referer}\r\n") };
        ask(&server, &format!("GET / HTTP/1.1\r\nHost: x\r\n{field}\r\n")).text()
    }

    #[test]
    fn a_page_may_lead_here_by_its_host_and_path() {
        let referers =
            "valid_referers none server_names a.example.com *.b.example.com c.example.com/path ~\\.google\\.;";
        for (referer, valid) in [
            ("", true),
            ("http://a.example.com", true),
            ("HTTPS://A.example.com:80/x", true),
            ("http://x.b.example.com/", true),
            ("http://c.example.com/path/x", true),
            ("http://c.example.com:80/other", false),
            ("http://served.org/", true),
            ("http://x.wild.org/", true),
            ("http://www.google.com/", true),
            ("http://other.example.com/", false),
            ("a.example.com", false),
        ] {
            assert_eq!(said(referers, referer), if valid { "[]" } else { "[1]" }, "{referer}");
        }
    }

    #[test]
    fn without_rules_everything_is_valid_and_blocked_ones_may_be() {
        assert_eq!(said("", "http://x.example.com/"), "[]");
        assert_eq!(said("valid_referers blocked a.example.com;", "withheld"), "[]");
        assert_eq!(said("valid_referers a.example.com;", ""), "[1]");
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        for (text, message) in [
            ("valid_referers ~;", "empty regex in \"~\""),
            ("valid_referers a.b.*.c;", "invalid hostname or wildcard \"a.b.*.c\""),
            ("valid_referers a.com a.com;", "conflicting parameter \"a.com\""),
            (
                "valid_referers none;",
                "the \"none\" or \"blocked\" referers are specified in the \"valid_referers\" directive without any valid \
                    referer",
            ),
        ] {
            assert_eq!(fault(text), message, "{text}");
        }
    }
}
