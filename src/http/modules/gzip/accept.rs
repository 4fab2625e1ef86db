//! Whether a client takes a compressed answer (`ngx_http_gzip_ok`).

use super::Conf;
use crate::{
    config::{
        Args, FromArgs, Slot,
        values::{Choices, Mask, choose},
    },
    http::{agent::Agent, dates::parse_http_time, exchange::Exchange, regex::Regex, response::Response},
    syntax::Fault,
};
use std::{ops::RangeInclusive, sync::Arc};

/// Whether the request may be answered compressed.
pub(super) fn ok(conf: &Conf, exchange: &Exchange, response: &Response) -> bool {
    let user_agent = exchange.field("user-agent");
    exchange.field("accept-encoding").is_some_and(|value| takes(value, b"gzip"))
        && !(conf.disable.msie6 && Agent::of(exchange).msie6)
        && exchange.head.version >= conf.http_version.0
        && (exchange.field("via").is_none() || proxied(&conf.proxied, exchange, response))
        && !user_agent.is_some_and(|agent| conf.disable.matches(agent))
}

/// `gzip_proxied`: what may be compressed for a request that comes through a proxy.
fn proxied(allowed: &Proxied, exchange: &Exchange, response: &Response) -> bool {
    if allowed.has(OFF) {
        return false;
    }
    if allowed.has(ANY) || allowed.has(AUTH) && exchange.field("authorization").is_some() {
        return true;
    }
    if let Some(expires) = response.field("expires") {
        return allowed.has(EXPIRED) && expired(expires, exchange, response);
    }
    if response.field("cache-control").is_some() {
        let words: [(u32, &[u8]); 3] = [(NO_CACHE, b"no-cache"), (NO_STORE, b"no-store"), (PRIVATE, b"private")];
        let said = |word: &[u8]| response.fields.get_all("cache-control").any(|value| lists(value, word));
        return words.iter().any(|(bit, word)| allowed.has(*bit) && said(word));
    }
    let modified = allowed.has(NO_LAST_MODIFIED) && response.field("last-modified").is_some();
    let tagged = allowed.has(NO_ETAG) && (response.etag.is_some() || response.field("etag").is_some());
    !modified && !tagged
}

fn expired(expires: &[u8], exchange: &Exchange, response: &Response) -> bool {
    let now = || i64::try_from(exchange.connection.worker.clock.now().as_secs()).ok();
    let date = response.field("date").map_or_else(now, parse_http_time);
    match (parse_http_time(expires), date) {
        (Some(expires), Some(date)) => expires < date,
        _ => false,
    }
}

/// Whether a field with elements between commas holds a word (`ngx_http_parse_multi_header_lines`).
fn lists(value: &[u8], word: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|element| {
        let element = element.trim_ascii_start();
        let spaces = element.iter().rev().take_while(|byte| **byte == b' ').count();
        element[..element.len() - spaces].eq_ignore_ascii_case(word)
    })
}

/// Whether `Accept-Encoding` takes a coding: it is named, and not with `q=0` or a weight that is none
/// (`ngx_http_gzip_accept_encoding`).
pub fn takes(value: &[u8], coding: &[u8]) -> bool {
    let mut from = 0;
    let rest = loop {
        let found = value[from..].windows(coding.len()).position(|word| word.eq_ignore_ascii_case(coding));
        let Some(at) = found.map(|at| from + at) else { return false };
        if at == 0 || matches!(value[at - 1], b',' | b' ') {
            break &value[at + coding.len()..];
        }
        from = at + coding.len();
    };
    let rest = without_spaces(rest);
    let rest = match rest.split_first() {
        None | Some((b',', _)) => return true,
        Some((b';', rest)) => without_spaces(rest),
        Some(_) => return false,
    };
    match rest {
        [] => true,
        [b'q' | b'Q', b'=', weight @ ..] => weighs(weight),
        _ => false,
    }
}

/// Whether a weight is above 0 and well formed (`ngx_http_gzip_quantity`).
fn weighs(weight: &[u8]) -> bool {
    let end = weight.iter().position(|byte| matches!(byte, b',' | b' ')).unwrap_or(weight.len());
    match &weight[..end] {
        [b'1'] => true,
        [b'1', b'.', digits @ ..] => digits.len() <= 3 && digits.iter().all(|digit| *digit == b'0'),
        [b'0', b'.', digits @ ..] => {
            digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) && digits.iter().any(|digit| *digit != b'0')
        }
        _ => false,
    }
}

fn without_spaces(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|byte| **byte == b' ').count()..]
}

/// `gzip_http_version`: the lowest version that is answered compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpVersion(pub (u8, u8));

impl Default for HttpVersion {
    fn default() -> Self {
        Self((1, 1))
    }
}

impl FromArgs for HttpVersion {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        choose(args, &[("1.0", Self((1, 0))), ("1.1", Self((1, 1)))])
    }
}

/// `gzip_proxied`.
pub type Proxied = Mask<ProxiedWords>;

const OFF: u32 = 1;
const EXPIRED: u32 = 1 << 1;
const NO_CACHE: u32 = 1 << 2;
const NO_STORE: u32 = 1 << 3;
const PRIVATE: u32 = 1 << 4;
const NO_LAST_MODIFIED: u32 = 1 << 5;
const NO_ETAG: u32 = 1 << 6;
const AUTH: u32 = 1 << 7;
const ANY: u32 = 1 << 8;

/// The words of `gzip_proxied`.
pub struct ProxiedWords;

impl Choices for ProxiedWords {
    const CHOICES: &'static [(&'static str, u32)] = &[
        ("off", OFF),
        ("expired", EXPIRED),
        ("no-cache", NO_CACHE),
        ("no-store", NO_STORE),
        ("private", PRIVATE),
        ("no_last_modified", NO_LAST_MODIFIED),
        ("no_etag", NO_ETAG),
        ("auth", AUTH),
        ("any", ANY),
    ];
    const DEFAULT: u32 = OFF;
}

/// `gzip_disable`: browsers that get nothing compressed.
#[derive(Clone, Debug, Default)]
pub struct Disable {
    msie6: bool,
    regexes: Vec<Arc<Regex>>,
}

impl Disable {
    fn matches(&self, agent: &[u8]) -> bool {
        // An expression that could not be run to its end counts as one that matched.
        self.regexes.iter().any(|regex| regex.is_match(agent).unwrap_or(true))
    }
}

/// One mention hides the expressions of the level above, but not `msie6`.
impl Slot for Disable {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        if args.first {
            self.regexes.clear();
        }
        for word in args.words() {
            match &word.value[..] {
                b"msie6" => self.msie6 = true,
                pattern => {
                    let regex = Regex::compile(pattern, true).map_err(|error| Fault::at(word.span, error.message))?;
                    self.regexes.push(Arc::new(regex));
                }
            }
        }
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        1..=usize::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_must_be_named_with_a_weight_above_nothing() {
        for yes in [
            "gzip",
            "gzip, deflate",
            "deflate, GZip",
            "deflate,gzip",
            "gzip;q=1",
            "gzip;q=0.001",
            "gzip ; Q=0.5, br",
            "gzip; q=1.000",
            "gzip;",
            "x-gzip, gzip",
            "gzip ,x",
        ] {
            assert!(takes(yes.as_bytes(), b"gzip"), "{yes}");
        }
        for no in [
            "",
            "br",
            "x-gzip",
            "gzipped",
            "gzip;q=0",
            "gzip;q=0.000",
            "gzip;q=0.",
            "gzip;q=1.001",
            "gzip;q=0.0001",
            "gzip;q=2",
            "gzip;q=",
            "gzip;q",
            "gzip;p=1",
            "gzip;q=0.5;x",
            "gzip q=1",
        ] {
            assert!(!takes(no.as_bytes(), b"gzip"), "{no}");
        }
    }

    #[test]
    fn a_word_stands_alone_between_commas() {
        assert!(lists(b"max-age=1, No-Cache ", b"no-cache"));
        assert!(!lists(b"no-cache=x", b"no-cache"));
        assert!(!lists(b"no-cached", b"no-cache"));
    }
}
