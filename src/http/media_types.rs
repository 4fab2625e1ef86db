//! Lists of media types: `gzip_types`, `charset_types` and their like.

use crate::{
    config::{Args, Slot},
    syntax::Fault,
};
use std::ops::RangeInclusive;

/// The media types a filter applies to (`ngx_http_types_slot`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaTypes {
    /// In lower case.
    names: Vec<Box<[u8]>>,
    /// `*` was given.
    all: bool,
    /// The type that stands in every list of this directive.
    always: &'static str,
}

impl MediaTypes {
    /// A list to begin with. Its first type stands in every list of the directive, said or not.
    pub fn of(names: &[&'static str]) -> Self {
        let boxed = names.iter().map(|name| name.as_bytes().into());
        Self { names: boxed.collect(), all: false, always: names.first().copied().unwrap_or("text/html") }
    }

    /// Whether a type is on the list, in any case (`ngx_http_test_content_type`). `*` stands even for an answer
    /// without a type.
    pub fn contains(&self, media: &[u8]) -> bool {
        self.all || self.names.iter().any(|name| name.len() == media.len() && name.eq_ignore_ascii_case(media))
    }
}

impl Slot for MediaTypes {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        if args.first {
            *self = Self::of(&[self.always]);
        }
        for word in args.words() {
            if self.all || word.value == b"*" {
                self.all = true;
                break;
            }
            let name: Box<[u8]> = word.value.to_ascii_lowercase().into();
            if self.names.contains(&name) {
                let fault = Fault::at(word.span, [b"duplicate MIME type \"", &name[..], b"\""].concat()).warn();
                args.scope.fault(crate::config::registry::on_statement_line(fault, args.statement));
            } else {
                self.names.push(name);
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
    fn a_type_counts_in_any_case_and_as_a_whole() {
        let types = MediaTypes::of(&["text/html", "application/json"]);
        assert!(types.contains(b"Text/HTML") && types.contains(b"application/json"));
        assert!(!types.contains(b"text/html;x") && !types.contains(b"text") && !types.contains(b""));
    }
}
