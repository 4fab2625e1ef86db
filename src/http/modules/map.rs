//! `map`: a variable whose value depends on another text.

use super::Room;
use crate::{
    config::{Args, Directive, FromArgs, HTTP, Handle, List, Module, Scope, registry::on_statement_line},
    http::{
        exchange::Exchange,
        level::define_groups,
        names::{Names, Refusal},
        regex::Regex,
        template::Template,
        variables::{Computed, define_stored},
    },
    observe::error_log::Level,
    syntax::{Fault, Span, Statement},
};
use bytes::Bytes;
use smallvec::SmallVec;
use std::{cell::Cell, collections::HashMap, ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    maps: List<Arc<Map>>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[Directive::new("map", HTTP, |conf| &mut conf.maps)];
}

impl Room for Conf {
    type State = ();

    /// Of several maps of one variable the last counts.
    fn computed(&self) -> Vec<(Handle, Computed)> {
        self.maps.iter().map(|map| (map.variable, Computed::Map(Arc::clone(map)))).collect()
    }
}

/// One `map`.
#[derive(Debug)]
pub struct Map {
    /// Its value may differ each time it is asked for within one request.
    pub volatile: bool,
    variable: Handle,
    name: Vec<u8>,
    source: Template,
    /// Sources are host names: a dot at their end means nothing, and keys may be wildcards.
    hostnames: bool,
    /// Texts in lower case.
    exact: HashMap<Box<[u8]>, Template>,
    /// Keys after the word `hostnames`.
    names: Names<Template>,
    regexes: Vec<(Regex, Template)>,
    default: Option<Template>,
}

impl Map {
    /// Appends the value for a request; false if there is none because maps lead to each other in a circle.
    pub fn evaluate(&self, exchange: &Exchange, out: &mut Vec<u8>) -> bool {
        let Some(_depth) = Depth::enter() else {
            let name = String::from_utf8_lossy(&self.name);
            exchange.log(Level::Err, &format!("cycle while evaluating variable \"{name}\""));
            return false;
        };
        // The source stands in `out` for a moment: it needs no memory of its own.
        let start = out.len();
        self.source.append(exchange, out);
        let mut end = out.len();
        if self.hostnames && out[start..].ends_with(b".") {
            end -= 1;
        }
        let found = self.find(exchange, &out[start..end]).or(self.default.as_ref());
        out.truncate(start);
        if let Some(value) = found {
            value.append(exchange, out);
        }
        true
    }

    /// The value of a source (`ngx_http_map_find`): texts in any case, then the first expression that matches.
    fn find(&self, exchange: &Exchange, source: &[u8]) -> Option<&Template> {
        if let Some(value) = self.find_text(source) {
            return Some(value);
        }
        if source.is_empty() {
            return None;
        }
        for (regex, value) in &self.regexes {
            match regex.captures(source) {
                Ok(None) => {}
                Ok(Some(captures)) => {
                    exchange.keep_captures(regex, &captures, Bytes::copy_from_slice(source));
                    return Some(value);
                }
                Err(error) => {
                    let (source, pattern) = (String::from_utf8_lossy(source), String::from_utf8_lossy(regex.pattern()));
                    exchange.log(Level::Alert, &format!("{error} on \"{source}\" using \"{pattern}\""));
                    return None;
                }
            }
        }
        None
    }

    fn find_text(&self, source: &[u8]) -> Option<&Template> {
        if source.iter().any(u8::is_ascii_uppercase) {
            let mut lower: SmallVec<[u8; 128]> = SmallVec::from_slice(source);
            lower.make_ascii_lowercase();
            return self.find_lower(&lower);
        }
        self.find_lower(source)
    }

    fn find_lower(&self, source: &[u8]) -> Option<&Template> {
        let exact = if self.exact.is_empty() { None } else { self.exact.get(source) };
        // Names without expressions do not fail.
        exact.or_else(|| self.names.find(source).ok().flatten().map(|found| found.value))
    }

    /// Reads one row of the block (`ngx_http_map`).
    fn row(&mut self, row: &Statement, scope: &Scope<'_>) -> Result<(), Fault> {
        let key = &row.name;
        if row.block.is_some() {
            return Err(Fault::at(row.end, "unexpected \"{\""));
        }
        let [value] = &row.args[..] else {
            match &key.value[..] {
                b"hostnames" if row.args.is_empty() => self.hostnames = true,
                b"volatile" if row.args.is_empty() => self.volatile = true,
                _ => return Err(Fault::at(key.span, "invalid number of the map parameters")),
            }
            return Ok(());
        };
        let value = Template::compile(value, scope)?;
        match &key.value[..] {
            b"default" => {
                if self.default.is_some() {
                    return Err(Fault::at(key.span, "duplicate default map parameter"));
                }
                self.default = Some(value);
                Ok(())
            }
            [b'~', b'*', pattern @ ..] => self.regex(pattern, true, key.span, value, scope),
            [b'~', pattern @ ..] => self.regex(pattern, false, key.span, value, scope),
            [b'\\', text @ ..] | text => self.text(text, key.span, value),
        }
    }

    fn regex(
        &mut self,
        pattern: &[u8],
        caseless: bool,
        at: Span,
        value: Template,
        scope: &Scope<'_>,
    ) -> Result<(), Fault> {
        let regex = Regex::compile(pattern, caseless).map_err(|error| Fault::at(at, error.message))?;
        define_groups(&regex, at, scope)?;
        self.regexes.push((regex, value));
        Ok(())
    }

    fn text(&mut self, text: &[u8], at: Span, value: Template) -> Result<(), Fault> {
        let lower = text.to_ascii_lowercase();
        let added = if self.hostnames {
            match self.exact.contains_key(lower.strip_prefix(b".").unwrap_or(&lower)) {
                true => Err(Refusal::Conflict),
                false => self.names.add(&lower, value),
            }
        } else {
            match self.exact.insert(lower.clone().into(), value) {
                Some(_) => Err(Refusal::Conflict),
                None => Ok(()),
            }
        };
        added.map_err(|refusal| match refusal {
            Refusal::Conflict => Fault::at(at, [b"conflicting parameter \"", &lower[..], b"\""].concat()),
            Refusal::Invalid => Fault::at(at, [b"invalid hostname or wildcard \"", text, b"\""].concat()),
        })
    }
}

impl FromArgs for Arc<Map> {
    const TAKES: RangeInclusive<usize> = 2..=2;
    const BLOCK: bool = true;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let source = Template::compile(args.word(0), args.scope)?;
        let word = args.word(1);
        let name = match &word.value[..] {
            [b'$', name @ ..] if !name.is_empty() => name.to_ascii_lowercase(),
            name => return Err(Fault::at(word.span, [b"invalid variable name \"", name, b"\""].concat())),
        };
        let variable = define_stored(args.scope, &word.value[1..], word.span)?;
        let mut map = Map {
            volatile: false,
            variable,
            name,
            source,
            hostnames: false,
            exact: HashMap::new(),
            names: Names::default(),
            regexes: Vec::new(),
            default: None,
        };
        for row in args.block() {
            if let Err(fault) = map.row(row, args.scope) {
                args.scope.fault(on_statement_line(fault, row));
            }
        }
        Ok(Self::new(map))
    }
}

/// How many maps are being evaluated inside each other on this thread.
struct Depth;

thread_local! {
    static DEPTH: Cell<u8> = const { Cell::new(0) };
}

impl Depth {
    /// As deep as nginx lets variables lead to variables (`ngx_http_variable_depth`).
    const MOST: u8 = 100;

    fn enter() -> Option<Self> {
        let depth = DEPTH.get();
        (depth < Self::MOST).then(|| {
            DEPTH.set(depth + 1);
            Self
        })
    }
}

impl Drop for Depth {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask_http, http_fault};

    /// What a location with the given text answers to `/?a=…`, with maps beside its server.
    fn mapped(maps: &str, text: &str, a: &str) -> String {
        let config = format!("server {{ location / {{ return 200 '{text}'; }} }} {maps}");
        ask_http(&config, &format!("GET /?a={a} HTTP/1.1\r\nHost: x\r\n\r\n")).text()
    }

    #[test]
    fn a_source_finds_its_text_then_an_expression_then_the_default() {
        let map = "map $arg_a $m { default d; ONE 1; \\~x t; '' none; ~^(?<n>x)(.) \"$2-$n\"; ~*y caseless; }";
        for (a, value) in [("one", "1"), ("ONE", "1"), ("~X", "t"), ("", "none"), ("xY", "Y-x"), ("Y", "caseless"), ("z", "d")]
        {
            assert_eq!(mapped(map, "$m", a), value, "{a}");
        }
        assert_eq!(mapped("map $arg_a $m { a b; }", "[$m]", "z"), "[]");
    }

    #[test]
    fn host_names_may_be_wildcards_and_end_in_a_dot() {
        let map = "map $arg_a $m { *.early text; hostnames; default d; *.example.com w; .example.org o; www.* t; }";
        for (a, value) in [
            ("a.example.com.", "w"),
            ("example.com", "d"),
            ("example.org", "o"),
            ("A.EXAMPLE.org", "o"),
            ("www.x", "t"),
            ("a.early", "d"),
            ("*.early", "text"),
        ] {
            assert_eq!(mapped(map, "$m", a), value, "{a}");
        }
    }

    #[test]
    fn captures_of_a_map_are_there_for_what_follows() {
        assert_eq!(mapped("map $arg_a $m { ~(.)(.) $2; }", "$m$1", "xy"), "yx");
    }

    #[test]
    fn maps_in_a_circle_end() {
        assert_eq!(mapped("map $p $q { default a$p; } map $q $p { default $q; }", "[${p}]", "").len(), 52);
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        for (text, message) in [
            ("map $host m { }", "invalid variable name \"m\""),
            ("map $host $ { }", "invalid variable name \"$\""),
            ("map $host $host { }", "the duplicate \"host\" variable"),
            ("map $host $m { a; }", "invalid number of the map parameters"),
            ("map $host $m { a b c; }", "invalid number of the map parameters"),
            ("map $host $m { default a; default b; }", "duplicate default map parameter"),
            ("map $host $m { A a; a b; }", "conflicting parameter \"a\""),
            ("map $host $m { a a; hostnames; .a b; }", "conflicting parameter \".a\""),
            ("map $host $m { hostnames; a*b b; }", "invalid hostname or wildcard \"a*b\""),
            ("map $host $m { a $; }", "invalid variable name"),
            ("map $host $m { a { } }", "unexpected \"{\""),
        ] {
            assert_eq!(http_fault(text), message, "{text}");
        }
    }
}
