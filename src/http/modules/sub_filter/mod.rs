//! `sub_filter`: replaces words in the text of an answer.

mod body;

pub use body::{SubBody, Words};

use super::Room;
use crate::{
    config::{Args, Directive, LEVELS, Module, Slot},
    http::{body::Body, exchange::Exchange, media_types::MediaTypes, response::Response, template::Template},
    syntax::Fault,
};
use bytes::Bytes;
use std::{ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug)]
pub struct Conf {
    pub pairs: Pairs,
    pub types: MediaTypes,
    /// Each word is replaced but once.
    pub once: bool,
    /// The answer keeps its date, and its tag as a weak one.
    pub last_modified: bool,
}

impl Default for Conf {
    fn default() -> Self {
        let (pairs, types) = (Pairs::default(), MediaTypes::of(&["text/html"]));
        Self { pairs, types, once: true, last_modified: false }
    }
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("sub_filter", LEVELS, |conf| &mut conf.pairs),
        Directive::new("sub_filter_types", LEVELS, |conf| &mut conf.types),
        Directive::new("sub_filter_once", LEVELS, |conf| &mut conf.once),
        Directive::new("sub_filter_last_modified", LEVELS, |conf| &mut conf.last_modified),
    ];
}

impl Room for Conf {
    type State = ();
}

/// Has the words of an answer replaced, if it is of a type for that (`ngx_http_sub_header_filter`). What takes the
/// place of a word is settled here, for all words at once.
pub fn filter(exchange: &mut Exchange, response: &mut Response) {
    let conf = &exchange.location.settings.sub_filter;
    if conf.pairs.all.is_empty()
        || response.content_length == Some(0)
        || !conf.types.contains(response.content_type.as_deref().unwrap_or_default())
    {
        return;
    }
    let mut values = Vec::new();
    let mut words = Vec::new();
    for (word, value) in &conf.pairs.all {
        if conf.pairs.fixed.is_none() {
            let word = word.evaluate(exchange).to_ascii_lowercase();
            if word.is_empty() {
                continue;
            }
            words.push(word.into());
        }
        values.push(value.evaluate_bytes(exchange));
    }
    let Some(words) = conf.pairs.fixed.clone().or_else(|| Words::new(words).map(Arc::new)) else { return };
    response.body = Body::Sub(Box::new(SubBody::new(std::mem::take(&mut response.body), words, values, conf.once)));
    if exchange.depth > 0 {
        return;
    }
    response.content_length = None;
    response.rewritten(conf.last_modified);
}

/// The words of a level with what takes their place. One mention hides those of the level above.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    all: Vec<(Template, Template)>,
    /// The words, where they are the same for every request.
    fixed: Option<Arc<Words>>,
}

impl Slot for Pairs {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        if args.first {
            *self = Self::default();
        }
        let (word, value) = (args.word(0), args.word(1));
        if word.value.is_empty() {
            return Err(Fault::at(word.span, "empty search pattern"));
        }
        if self.all.len() == 255 {
            return Err(Fault::at(word.span, "number of search patterns exceeds 255"));
        }
        let word = Template::compile_text(&word.value.to_ascii_lowercase(), word, args.scope)?;
        self.all.push((word, Template::compile(value, args.scope)?));
        let words = self.all.iter().map(|(word, _)| word.as_literal().map(Bytes::copy_from_slice));
        self.fixed = words.collect::<Option<_>>().and_then(Words::new).map(Arc::new);
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        2..=2
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{fault, get};

    #[test]
    fn words_of_an_answer_are_replaced() {
        for (directives, text) in [
            ("sub_filter foo bar;", "bar Foo baz"),
            ("sub_filter foo bar; sub_filter_once off;", "bar bar baz"),
            ("sub_filter foo bar; sub_filter baz $arg_a;", "bar Foo 1"),
            ("sub_filter $arg_w $uri; sub_filter $arg_none x;", "foo Foo /"),
            ("sub_filter foo bar; sub_filter_types text/plain;", "bar Foo baz"),
            ("default_type text/plain; sub_filter foo bar;", "foo Foo baz"),
        ] {
            let server = format!("default_type text/html; location / {{ {directives} return 200 \"foo Foo baz\"; }}");
            let answer = get(&server, "/?a=1&w=BAZ");
            assert_eq!(answer.text(), text, "{directives}");
        }
    }

    #[test]
    fn an_answer_with_other_words_has_another_length_and_no_tag() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.html"), "foo").unwrap();
        let server = |more: &str| format!("root {}; sub_filter o 0; {more}", folder.path().display());
        let plain = get(&server(""), "/x.html");
        assert_eq!(plain.text(), "f0o");
        for field in ["content-length", "etag", "last-modified", "accept-ranges"] {
            assert_eq!(plain.header(field), None, "{field}");
        }
        let dated = get(&server("sub_filter_last_modified on;"), "/x.html");
        assert!(dated.header("etag").is_some_and(|etag| etag.starts_with("W/")));
        assert!(dated.header("last-modified").is_some());
    }

    #[test]
    fn a_word_is_not_empty() {
        assert_eq!(fault("sub_filter '' x;"), "empty search pattern");
    }
}
