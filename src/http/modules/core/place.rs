//! `root` and `alias`: where the files of a location are.

use crate::{
    config::{Args, Contexts, IF_IN_LOCATION, LIMIT_EXCEPT, Scope, Slot},
    http::template::{Part, Template},
    syntax::{Fault, Span},
};
use bytes::Bytes;
use std::{ops::RangeInclusive, os::unix::ffi::OsStrExt};

/// The folder of a location.
#[derive(Clone, Debug)]
pub struct Place {
    /// The folder; without variables it is absolute once the level is settled.
    pub path: Template,
    /// The path replaces the location's own prefix instead of standing before it.
    pub alias: bool,
    /// Where this level says so itself, and with which word.
    pub here: Option<(Span, bool)>,
}

impl Default for Place {
    fn default() -> Self {
        Self { path: Template::literal(Bytes::from_static(b"html")), alias: false, here: None }
    }
}

impl Place {
    /// The slot of both directives: a level has one of them.
    pub fn slot(&mut self) -> &mut dyn Slot {
        self
    }

    /// A nested location starts from `root`; an `alias` belongs to its own location, and to the
    /// `if` and `limit_except` inside.
    pub fn enter(&mut self, level: Contexts) {
        self.here = None;
        if !level.allow(IF_IN_LOCATION.or(LIMIT_EXCEPT)) {
            self.alias = false;
        }
    }

    /// Completes a relative folder by the prefix.
    pub fn settle(&mut self, scope: &Scope<'_>) {
        let completed = match self.path.parts().first() {
            None => scope.path(b""),
            Some(Part::Literal(text)) if !text.starts_with(b"/") && self.path.parts().len() == 1 => scope.path(text),
            _ => return,
        };
        self.path = Template::literal(Bytes::copy_from_slice(completed.as_os_str().as_bytes()));
    }
}

impl Slot for Place {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        let word = args.word(0);
        let alias = args.statement.name.value == b"alias";
        if let Some((span, earlier)) = self.here {
            let (name, other) = if alias { ("alias", "root") } else { ("root", "alias") };
            let text = match earlier == alias {
                true => format!("\"{name}\" directive is duplicate"),
                false => format!("\"{name}\" directive is duplicate, \"{other}\" directive was specified earlier"),
            };
            return Err(Fault::at(args.statement.name.span, text).also(span, "first set here"));
        }
        for variable in [&b"$document_root"[..], b"${document_root}", b"$realpath_root", b"${realpath_root}"] {
            if memchr::memmem::find(&word.value, variable).is_some() {
                let name = String::from_utf8_lossy(variable).replace(['{', '}'], "");
                return Err(Fault::at(
                    word.span,
                    format!("the {name} variable cannot be used in the \"{}\" directive", args.name()),
                ));
            }
        }
        let mut value = &word.value[..];
        while !alias && value.len() > 1 && value.ends_with(b"/") {
            value = &value[..value.len() - 1];
        }
        self.path = Template::compile_text(value, word, args.scope)?;
        self.alias = alias;
        self.here = Some((args.statement.name.span, alias));
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        1..=1
    }

    fn block(&self) -> bool {
        false
    }
}
