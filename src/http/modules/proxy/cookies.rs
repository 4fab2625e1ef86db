//! `proxy_cookie_domain`, `proxy_cookie_path`, `proxy_cookie_flags`: the cookies of an upstream become ours.

use super::{
    Conf,
    rewrite::{Rule, by_prefix, by_regex, regex},
};
use crate::{
    config::Args,
    http::{exchange::Exchange, regex::Regex, template::Template},
    syntax::Fault,
};
use std::{borrow::Cow, ops::RangeInclusive, sync::Arc};

/// The value of a `Set-Cookie` as the client gets it; `None` where it stays as it is
/// (`ngx_http_proxy_rewrite_cookie`).
pub(super) fn rewrite(conf: &Conf, exchange: &Exchange, value: &[u8]) -> Option<Vec<u8>> {
    let (domains, paths, flags) = (&conf.cookie_domain.rules, &conf.cookie_path.rules, &conf.cookie_flags.rules);
    if domains.is_empty() && paths.is_empty() && flags.is_empty() {
        return None;
    }
    let mut attributes: Vec<_> = value.split(|byte| *byte == b';').map(Attribute::parse).collect();
    attributes[0].value.as_ref()?;
    let mut changed = false;
    for attribute in &mut attributes[1..] {
        let Some(value) = &attribute.value else { continue };
        let rewritten = if attribute.is("domain") {
            domains.iter().find_map(|rule| rule.apply(exchange, value))
        } else if attribute.is("path") {
            paths.iter().find_map(|rule| rule.apply(exchange, value))
        } else {
            None
        };
        if let Some(rewritten) = rewritten {
            attribute.value = Some(rewritten.into());
            changed = true;
        }
    }
    let cookie = attributes[0].name;
    if let Some(rule) = flags.iter().find(|rule| rule.names(exchange, cookie)) {
        let wanted = rule.flags(exchange);
        if wanted != 0 {
            edit(&mut attributes, wanted);
            changed = true;
        }
    }
    changed.then(|| join(&attributes))
}

/// `name=value`, or a bare name.
struct Attribute<'v> {
    name: &'v [u8],
    value: Option<Cow<'v, [u8]>>,
}

impl<'v> Attribute<'v> {
    fn parse(text: &'v [u8]) -> Self {
        match memchr::memchr(b'=', text) {
            Some(at) => Self { name: spaceless(&text[..at]), value: Some(Cow::Borrowed(spaceless(&text[at + 1..]))) },
            None => Self { name: spaceless(text), value: None },
        }
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

fn spaceless(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

fn join(attributes: &[Attribute<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, attribute) in attributes.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(attribute.name);
        if let Some(value) = &attribute.value {
            out.push(b'=');
            out.extend_from_slice(value);
        }
    }
    out
}

/// One `proxy_cookie_domain`.
#[derive(Clone, Debug)]
pub struct DomainRule {
    from: Pattern,
    to: Template,
}

#[derive(Clone, Debug)]
enum Pattern {
    Text(Template),
    Regex(Arc<Regex>),
}

impl Rule for DomainRule {
    const TAKES: RangeInclusive<usize> = 1..=2;

    fn of(args: &Args<'_>) -> Result<Self, Fault> {
        let (word, to) = (args.word(0), args.word(1));
        let dotless = |text: &'_ [u8]| text.strip_prefix(b".").unwrap_or(text).to_vec();
        Ok(match word.value.strip_prefix(b"~") {
            Some(pattern) => {
                Self { from: Pattern::Regex(regex(pattern, true, word)?), to: Template::compile(to, args.scope)? }
            }
            None => Self {
                from: Pattern::Text(Template::compile_text(&dotless(&word.value), word, args.scope)?),
                to: Template::compile_text(&dotless(&to.value), to, args.scope)?,
            },
        })
    }
}

impl DomainRule {
    /// The dot in front of a domain stays where the domain is a text.
    fn apply(&self, exchange: &Exchange, value: &[u8]) -> Option<Vec<u8>> {
        match &self.from {
            Pattern::Regex(regex) => by_regex(exchange, regex, &self.to, value),
            Pattern::Text(text) => {
                let bare = value.strip_prefix(b".").unwrap_or(value);
                let dot = &value[..value.len() - bare.len()];
                let fits = text.evaluate(exchange).eq_ignore_ascii_case(bare);
                fits.then(|| [dot, &self.to.evaluate(exchange)].concat())
            }
        }
    }
}

/// One `proxy_cookie_path`.
#[derive(Clone, Debug)]
pub struct PathRule {
    from: Pattern,
    to: Template,
}

impl Rule for PathRule {
    const TAKES: RangeInclusive<usize> = 1..=2;

    fn of(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let to = Template::compile(args.word(1), args.scope)?;
        let from = match &word.value[..] {
            [b'~', b'*', pattern @ ..] => Pattern::Regex(regex(pattern, true, word)?),
            [b'~', pattern @ ..] => Pattern::Regex(regex(pattern, false, word)?),
            _ => Pattern::Text(Template::compile(word, args.scope)?),
        };
        Ok(Self { from, to })
    }
}

impl PathRule {
    fn apply(&self, exchange: &Exchange, value: &[u8]) -> Option<Vec<u8>> {
        match &self.from {
            Pattern::Regex(regex) => by_regex(exchange, regex, &self.to, value),
            Pattern::Text(from) => by_prefix(exchange, from, &self.to, value),
        }
    }
}

/// One `proxy_cookie_flags`.
#[derive(Clone, Debug)]
pub struct FlagsRule {
    cookie: Pattern,
    flags: Vec<Template>,
}

const SECURE: u32 = 1;
const NO_SECURE: u32 = 1 << 1;
const HTTP_ONLY: u32 = 1 << 2;
const NO_HTTP_ONLY: u32 = 1 << 3;
const STRICT: u32 = 1 << 4;
const LAX: u32 = 1 << 5;
const NONE: u32 = 1 << 6;
const NO_SAME_SITE: u32 = 1 << 7;

const FLAGS: [(&str, u32); 8] = [
    ("secure", SECURE),
    ("nosecure", NO_SECURE),
    ("httponly", HTTP_ONLY),
    ("nohttponly", NO_HTTP_ONLY),
    ("samesite=strict", STRICT),
    ("samesite=lax", LAX),
    ("samesite=none", NONE),
    ("nosamesite", NO_SAME_SITE),
];

/// The values of `SameSite`, the earlier winning where several are asked for.
const SAME_SITE: [(u32, &[u8]); 3] = [(STRICT, b"Strict"), (LAX, b"Lax"), (NONE, b"None")];

impl Rule for FlagsRule {
    const TAKES: RangeInclusive<usize> = 1..=4;

    fn of(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let cookie = match word.value.strip_prefix(b"~") {
            Some(pattern) => Pattern::Regex(regex(pattern, true, word)?),
            None => Pattern::Text(Template::compile(word, args.scope)?),
        };
        let flags =
            args.words()[1..].iter().map(|word| Template::compile(word, args.scope)).collect::<Result<_, _>>()?;
        Ok(Self { cookie, flags })
    }
}

impl FlagsRule {
    fn names(&self, exchange: &Exchange, cookie: &[u8]) -> bool {
        match &self.cookie {
            Pattern::Regex(regex) => match regex.captures(cookie) {
                Ok(Some(captures)) => {
                    exchange.keep_captures(regex, &captures, bytes::Bytes::copy_from_slice(cookie));
                    true
                }
                _ => false,
            },
            Pattern::Text(name) => name.evaluate(exchange).eq_ignore_ascii_case(cookie),
        }
    }

    /// What variables give that is no flag is passed over.
    fn flags(&self, exchange: &Exchange) -> u32 {
        let values = self.flags.iter().map(|flag| flag.evaluate(exchange));
        let known = values.filter_map(|value| {
            FLAGS.iter().find(|(name, _)| value.eq_ignore_ascii_case(name.as_bytes())).map(|(_, bit)| *bit)
        });
        known.fold(0, |all, bit| all | bit)
    }
}

/// Sets and takes away flags (`ngx_http_proxy_edit_cookie_flags`).
fn edit(attributes: &mut Vec<Attribute<'_>>, mut flags: u32) {
    let mut at = 0;
    attributes.retain_mut(|attribute| {
        at += 1;
        if at == 1 {
            return true;
        }
        let (on, off) = if attribute.is("secure") {
            (SECURE, NO_SECURE)
        } else if attribute.is("httponly") {
            (HTTP_ONLY, NO_HTTP_ONLY)
        } else if attribute.is("samesite") {
            let Some((bit, value)) = SAME_SITE.iter().find(|(bit, _)| flags & bit != 0) else {
                return flags & NO_SAME_SITE == 0;
            };
            flags &= !bit;
            if !attribute.value.as_ref().is_some_and(|known| known.eq_ignore_ascii_case(value)) {
                *attribute = Attribute { name: b"SameSite", value: Some(Cow::Borrowed(value)) };
            }
            return true;
        } else {
            return true;
        };
        if flags & on != 0 {
            flags &= !on;
            return true;
        }
        flags & off == 0
    });
    if flags & SECURE != 0 {
        attributes.push(Attribute { name: b"Secure", value: None });
    }
    if flags & HTTP_ONLY != 0 {
        attributes.push(Attribute { name: b"HttpOnly", value: None });
    }
    if let Some((_, value)) = SAME_SITE.iter().find(|(bit, _)| flags & bit != 0) {
        attributes.push(Attribute { name: b"SameSite", value: Some(Cow::Borrowed(value)) });
    }
}
