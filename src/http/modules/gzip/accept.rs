//! Whether a client takes a compressed answer (`ngx_http_gzip_ok`).

use super::Conf;
use crate::{
    config::{
        Args, FromArgs, Slot,
        values::{choose, choose_mask},
    },
    http::{dates::parse_http_time, exchange::Exchange, regex::Regex, response::Response},
    syntax::Fault,
};
use std::{ops::RangeInclusive, sync::Arc};

/// Whether the request may be answered compressed.
pub(super) fn ok(conf: &Conf, exchange: &Exchange, response: &Response) -> bool {
    let user_agent = exchange.field("user-agent");
    exchange.field("accept-encoding").is_some_and(accepts_gzip)
        && !(conf.disable.msie6 && user_agent.is_some_and(is_msie6))
        && exchange.head.version >= conf.http_version.0
        && (exchange.field("via").is_none() || proxied(conf.proxied, exchange, response))
        && !user_agent.is_some_and(|agent| conf.disable.matches(agent))
}

/// `gzip_proxied`: what may be compressed for a request that comes through a proxy.
fn proxied(allowed: Proxied, exchange: &Exchange, response: &Response) -> bool {
    if allowed.has(Proxied::OFF) {
        return false;
    }
    if allowed.has(Proxied::ANY) || allowed.has(Proxied::AUTH) && exchange.field("authorization").is_some() {
        return true;
    }
    if let Some(expires) = response.field("expires") {
        return allowed.has(Proxied::EXPIRED) && expired(expires, exchange, response);
    }
    if response.field("cache-control").is_some() {
        let words: [(u32, &[u8]); 3] =
            [(Proxied::NO_CACHE, b"no-cache"), (Proxied::NO_STORE, b"no-store"), (Proxied::PRIVATE, b"private")];
        let said = |word: &[u8]| response.fields.get_all("cache-control").any(|value| lists(value, word));
        return words.iter().any(|(bit, word)| allowed.has(*bit) && said(word));
    }
    let modified = allowed.has(Proxied::NO_LAST_MODIFIED) && response.field("last-modified").is_some();
    let tagged = allowed.has(Proxied::NO_ETAG) && (response.etag.is_some() || response.field("etag").is_some());
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

/// Whether `Accept-Encoding` takes gzip: it is named, and not with `q=0` or a weight that is none
/// (`ngx_http_gzip_accept_encoding`).
fn accepts_gzip(value: &[u8]) -> bool {
    let mut from = 0;
    let rest = loop {
        let found = value[from..].windows(4).position(|word| word.eq_ignore_ascii_case(b"gzip"));
        let Some(at) = found.map(|at| from + at) else { return false };
        if at == 0 || matches!(value[at - 1], b',' | b' ') {
            break &value[at + 4..];
        }
        from = at + 4;
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

/// Internet Explorer 4 to 6 before its second service pack (`ngx_http_process_user_agent`).
fn is_msie6(agent: &[u8]) -> bool {
    if memchr::memmem::find(agent, b"Opera").is_some() {
        return false;
    }
    let Some(at) = memchr::memmem::find(agent, b"MSIE ") else { return false };
    match &agent[at + 5..] {
        [b'4' | b'5', b'.', _, ..] => true,
        [b'6', b'.', rest @ ..] if !rest.is_empty() => memchr::memmem::find(rest, b"SV1").is_none(),
        _ => false,
    }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied(u32);

impl Proxied {
    const OFF: u32 = 1;
    const EXPIRED: u32 = 1 << 1;
    const NO_CACHE: u32 = 1 << 2;
    const NO_STORE: u32 = 1 << 3;
    const PRIVATE: u32 = 1 << 4;
    const NO_LAST_MODIFIED: u32 = 1 << 5;
    const NO_ETAG: u32 = 1 << 6;
    const AUTH: u32 = 1 << 7;
    const ANY: u32 = 1 << 8;

    fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }
}

impl Default for Proxied {
    fn default() -> Self {
        Self(Self::OFF)
    }
}

/// May be repeated: what several mentions at a level say adds up.
impl Slot for Proxied {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        let bits = choose_mask(
            args,
            &[
                ("off", Self::OFF),
                ("expired", Self::EXPIRED),
                ("no-cache", Self::NO_CACHE),
                ("no-store", Self::NO_STORE),
                ("private", Self::PRIVATE),
                ("no_last_modified", Self::NO_LAST_MODIFIED),
                ("no_etag", Self::NO_ETAG),
                ("auth", Self::AUTH),
                ("any", Self::ANY),
            ],
        )?;
        self.0 = if args.first { bits } else { self.0 | bits };
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        1..=usize::MAX
    }

    fn block(&self) -> bool {
        false
    }
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

    fn block(&self) -> bool {
        false
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
            assert!(accepts_gzip(yes.as_bytes()), "{yes}");
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
            assert!(!accepts_gzip(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn old_explorers_are_told_apart() {
        for (agent, old) in [
            ("Mozilla/4.0 (compatible; MSIE 5.5; Windows)", true),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)", true),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; SV1)", false),
            ("Mozilla/4.0 (compatible; MSIE 7.0; Windows)", false),
            ("Mozilla/4.0 (compatible; MSIE 6.0; Windows) Opera 9", false),
            ("MSIE 6.", false),
            ("curl", false),
        ] {
            assert_eq!(is_msie6(agent.as_bytes()), old, "{agent}");
        }
    }

    #[test]
    fn a_word_stands_alone_between_commas() {
        assert!(lists(b"max-age=1, No-Cache ", b"no-cache"));
        assert!(!lists(b"no-cache=x", b"no-cache"));
        assert!(!lists(b"no-cached", b"no-cache"));
    }
}
