//! Texts with variables in them: `"$scheme://${host}$1"`, compiled once, evaluated per request.

use super::exchange::Exchange;
use crate::config::{Args, FromArgs, Handle, Kind, Scope, values::parse_size};
use crate::syntax::{Fault, Word};
use bytes::Bytes;
use std::borrow::Cow;

/// A compiled text (nginx's complex value).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// One piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Literal(Bytes),
    Variable(Handle),
    /// `$1` to `$9`: what the last regular expression captured.
    Capture(usize),
}

impl Template {
    /// A text without variables.
    pub fn literal(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Self { parts: if text.is_empty() { Vec::new() } else { vec![Part::Literal(text)] } }
    }

    /// Compiles the value of a word.
    ///
    /// # Errors
    /// nginx's faults for a lone `$` and a missing `}`.
    pub fn compile(word: &Word, scope: &Scope<'_>) -> Result<Self, Fault> {
        Self::compile_text(&word.value, word, scope)
    }

    /// Compiles a text that is part of a word.
    ///
    /// # Errors
    /// As [`Template::compile`].
    pub fn compile_text(text: &[u8], word: &Word, scope: &Scope<'_>) -> Result<Self, Fault> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = memchr::memchr(b'$', rest) {
            if at > 0 {
                parts.push(Part::Literal(Bytes::copy_from_slice(&rest[..at])));
            }
            rest = &rest[at + 1..];
            if let Some(digit @ b'1'..=b'9') = rest.first() {
                parts.push(Part::Capture(usize::from(digit - b'0')));
                rest = &rest[1..];
                continue;
            }
            let braced = rest.first() == Some(&b'{');
            rest = &rest[usize::from(braced)..];
            let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
            let name = &rest[..length];
            rest = &rest[length..];
            if braced {
                if rest.first() != Some(&b'}') {
                    let text = [b"the closing bracket in \"", name, b"\" variable is missing"].concat();
                    return Err(Fault::at(word.span, text));
                }
                rest = &rest[1..];
            }
            if name.is_empty() {
                return Err(Fault::at(word.span, "invalid variable name"));
            }
            parts.push(Part::Variable(scope.refer(Kind::Variable, name, word.span)));
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(Bytes::copy_from_slice(rest)));
        }
        Ok(Self { parts })
    }

    /// The text, where it is the same for every request.
    pub fn as_literal(&self) -> Option<&[u8]> {
        match &self.parts[..] {
            [] => Some(b""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether it is the empty text.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The text for one request; borrowed where nothing varies.
    pub fn evaluate<'t>(&'t self, exchange: &Exchange) -> Cow<'t, [u8]> {
        if let Some(text) = self.as_literal() {
            return Cow::Borrowed(text);
        }
        let mut out = Vec::new();
        self.append(exchange, &mut out);
        Cow::Owned(out)
    }

    /// The text for one request as shared bytes.
    pub fn evaluate_bytes(&self, exchange: &Exchange) -> Bytes {
        match &self.parts[..] {
            [] => Bytes::new(),
            [Part::Literal(text)] => text.clone(),
            _ => {
                let mut out = Vec::new();
                self.append(exchange, &mut out);
                out.into()
            }
        }
    }

    /// Appends the text for one request.
    pub fn append(&self, exchange: &Exchange, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Variable(handle) => {
                    exchange.variable(*handle, out);
                }
                Part::Capture(n) => exchange.captures.append(*n, out),
            }
        }
    }
}

impl Default for Template {
    fn default() -> Self {
        Self::literal(Bytes::new())
    }
}

impl FromArgs for Template {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        Self::compile(args.word(0), args.scope)
    }
}

/// A size that may have variables; without any it is checked at once (`ngx_http_set_complex_value_size_slot`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SizeTemplate(pub Template);

impl std::ops::Deref for SizeTemplate {
    type Target = Template;

    fn deref(&self) -> &Template {
        &self.0
    }
}

impl FromArgs for SizeTemplate {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let template = Template::from_args(args)?;
        match template.as_literal() {
            Some(size) if parse_size(size).is_none() => Err(args.directive(args.word(0), "invalid value")),
            _ => Ok(Self(template)),
        }
    }
}

/// Conditions of the `proxy_no_cache` kind: true when any text is neither empty nor `0`.
#[derive(Clone, Debug, Default)]
pub struct AnyOf(pub Vec<Template>);

impl AnyOf {
    /// Whether any of the texts holds.
    pub fn test(&self, exchange: &Exchange) -> bool {
        self.0.iter().any(|text| !matches!(&text.evaluate(exchange)[..], b"" | b"0"))
    }
}

impl FromArgs for AnyOf {
    const TAKES: std::ops::RangeInclusive<usize> = 1..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        args.words().iter().map(|word| Template::compile(word, args.scope)).collect::<Result<_, _>>().map(Self)
    }
}
