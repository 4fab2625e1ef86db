//! What rewrites a text by rules: `proxy_redirect` and `proxy_cookie_…` share it.

use crate::{
    config::{Args, Slot},
    http::{exchange::Exchange, regex::Regex, template::Template},
    syntax::{Fault, Word},
};
use bytes::Bytes;
use std::{ops::RangeInclusive, sync::Arc};

/// The rules of a level, of which the first that fits counts. `off` at one level hides those above.
#[derive(Clone, Debug)]
pub struct Rewrites<R> {
    pub rules: Vec<R>,
    off: bool,
}

impl<R> Default for Rewrites<R> {
    fn default() -> Self {
        Self { rules: Vec::new(), off: false }
    }
}

/// One rule: what is written behind the directive's name.
pub trait Rule: Sized {
    /// How many arguments.
    const TAKES: RangeInclusive<usize>;

    /// Reads a rule of two arguments and more.
    ///
    /// # Errors
    /// A fault with nginx's text.
    fn of(args: &Args<'_>) -> Result<Self, Fault>;
}

impl<R: Rule> Slot for Rewrites<R> {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        if args.first {
            *self = Self::default();
        }
        let duplicate = || Fault::at(args.statement.name.span, format!("\"{}\" directive is duplicate", args.name()));
        if self.off {
            return Err(duplicate());
        }
        let word = args.word(0);
        if args.words().len() > 1 {
            self.rules.push(R::of(args)?);
        } else if word.value != b"off" {
            return Err(args.parameter(word));
        } else if self.rules.is_empty() {
            self.off = true;
        } else {
            return Err(duplicate());
        }
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        R::TAKES
    }
}

/// Reads a pattern that stands behind `~`.
///
/// # Errors
/// What is wrong with the expression.
pub(super) fn regex(pattern: &[u8], caseless: bool, word: &Word) -> Result<Arc<Regex>, Fault> {
    Regex::compile(pattern, caseless).map(Arc::new).map_err(|error| Fault::at(word.span, error.message))
}

/// The replacement of a text that an expression matches: all of the text goes (`ngx_http_proxy_rewrite_regex_handler`).
pub(super) fn by_regex(exchange: &Exchange, regex: &Regex, to: &Template, text: &[u8]) -> Option<Vec<u8>> {
    let captures = regex.captures(text).ok().flatten()?;
    exchange.keep_captures(regex, &captures, Bytes::copy_from_slice(text));
    Some(to.evaluate(exchange).into_owned())
}

/// The replacement of a text's beginning (`ngx_http_proxy_rewrite_complex_handler`).
pub(super) fn by_prefix(exchange: &Exchange, from: &Template, to: &Template, text: &[u8]) -> Option<Vec<u8>> {
    let rest = text.strip_prefix(&from.evaluate(exchange)[..])?;
    Some([&to.evaluate(exchange)[..], rest].concat())
}
