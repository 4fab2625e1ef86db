//! `proxy_redirect`: the `Location` of an upstream becomes one of ours.

use super::{
    Pass,
    rewrite::{by_prefix, by_regex, regex},
};
use crate::{
    config::{Args, Slot},
    http::{
        exchange::Exchange,
        regex::Regex,
        template::Template,
    },
    syntax::{Fault, Span},
};
use std::{ops::RangeInclusive, sync::Arc};

/// The rules of a level.
#[derive(Clone, Debug, Default)]
pub enum Redirects {
    /// Nothing was said: the default rule.
    #[default]
    Default,
    Off,
    Rules(Vec<Rule>),
}

/// One `proxy_redirect`.
#[derive(Clone, Debug)]
pub enum Rule {
    /// The `proxy_pass` of the location and the location's own name; where it says so, until that is settled.
    Default(Option<Span>),
    Prefix { from: Template, to: Template },
    Regex { from: Arc<Regex>, to: Template },
}

impl Redirects {
    /// The default rule needs a `proxy_pass` before it, one without variables.
    ///
    /// # Errors
    /// nginx's fault.
    pub fn settle(&mut self, pass: Option<&Pass>) -> Result<(), Fault> {
        let Self::Rules(rules) = self else { return Ok(()) };
        for rule in rules {
            let Rule::Default(at) = rule else { continue };
            let Some(at) = at.take() else { continue };
            let early = pass.is_none_or(|pass| pass.span.file == at.file && pass.span.start > at.start);
            if early {
                let text = "\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive";
                return Err(Fault::at(at, text));
            }
            if pass.is_some_and(|pass| memchr::memchr(b'$', &pass.url).is_some()) {
                let text = "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive with variables";
                return Err(Fault::at(at, text));
            }
        }
        Ok(())
    }

    /// The rewritten value of `Location` or `Refresh`; `None` where no rule fits.
    pub fn rewrite(&self, exchange: &Exchange, pass: &Pass, value: &[u8]) -> Option<Vec<u8>> {
        let at = refresh_url(value);
        let (before, url) = value.split_at(at);
        let rewritten = match self {
            Self::Off => None,
            Self::Default => default_rule(pass, url),
            Self::Rules(rules) => rules.iter().find_map(|rule| rule.apply(exchange, pass, url)),
        }?;
        Some([before, &rewritten].concat())
    }
}

/// `Refresh: 5; url=/x` has its URL behind the `=`.
fn refresh_url(value: &[u8]) -> usize {
    let lower = value.to_ascii_lowercase();
    match memchr::memmem::find(&lower, b"url=") {
        Some(at) if value.first().is_some_and(u8::is_ascii_digit) => at + 4,
        _ => 0,
    }
}

impl Rule {
    fn apply(&self, exchange: &Exchange, pass: &Pass, url: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Default(_) => default_rule(pass, url),
            Self::Prefix { from, to } => by_prefix(exchange, from, to, url),
            Self::Regex { from, to } => by_regex(exchange, from, to, url),
        }
    }
}

/// The URL of `proxy_pass` becomes the location; without a URI part the server's root becomes `/`.
fn default_rule(pass: &Pass, url: &[u8]) -> Option<Vec<u8>> {
    if memchr::memchr(b'$', &pass.url).is_some() {
        return None;
    }
    if pass.uri.is_empty() {
        let rest = url.strip_prefix(&pass.url[..])?.strip_prefix(b"/")?;
        return Some([b"/", rest].concat());
    }
    let rest = url.strip_prefix(&pass.url[..])?;
    Some([&pass.location[..], rest].concat())
}

impl Slot for Redirects {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        let name = args.statement.name.span;
        let duplicate = |at: Span| Fault::at(at, "\"proxy_redirect\" directive is duplicate");
        if args.first {
            *self = Self::Rules(Vec::new());
        }
        let Self::Rules(rules) = self else { return Err(duplicate(name)) };
        let word = args.word(0);
        if args.words().len() == 1 {
            match &word.value[..] {
                b"off" if rules.is_empty() => *self = Self::Off,
                b"off" => return Err(duplicate(name)),
                b"default" => rules.push(Rule::Default(Some(word.span))),
                _ => return Err(args.parameter(word)),
            }
            return Ok(());
        }
        let to = Template::compile(args.word(1), args.scope)?;
        rules.push(match word.value.strip_prefix(b"~") {
            Some(pattern) => {
                let (pattern, caseless) = match pattern.strip_prefix(b"*") {
                    Some(pattern) => (pattern, true),
                    None => (pattern, false),
                };
                Rule::Regex { from: regex(pattern, caseless, word)?, to }
            }
            None => Rule::Prefix { from: Template::compile(word, args.scope)?, to },
        });
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        1..=2
    }
}
