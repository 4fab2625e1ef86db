//! `root` and `alias`: where the files of a location are.

use crate::{
    config::{Args, Scope, Slot},
    http::{
        location_tree::Pattern,
        template::{Part, Template},
    },
    syntax::{Fault, Span, Statement},
};
use bytes::Bytes;
use std::{ops::RangeInclusive, os::unix::ffi::OsStrExt};

/// The folder of a location.
#[derive(Clone, Debug)]
pub struct Place {
    /// The folder; without variables it is absolute once the level is settled.
    pub path: Template,
    /// What the folder takes the place of.
    pub alias: Alias,
    /// Where this level says so itself, and with which word.
    pub here: Option<(Span, bool)>,
}

/// Whether the folder stands before a request's path, as `root` does, or takes the place of a part of it
/// (`clcf->alias`). A nested location has the folder of the one around it, and so does its alias.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alias {
    /// `root`
    #[default]
    No,
    /// Of so many bytes: the name of the location.
    Prefix(usize),
    /// Of all of it: in a location given by an expression.
    Whole,
}

impl Alias {
    /// What an `alias` takes the place of in the location around it.
    fn inside(location: Option<&Statement>) -> Result<Self, &'static str> {
        let words: Vec<_> = location.iter().flat_map(|location| &location.args).map(|word| &word.value[..]).collect();
        match Pattern::parse(&words) {
            Ok(Pattern::Named(_)) => Err("the \"alias\" directive cannot be used inside the named location"),
            Ok(Pattern::Regex(_)) => Ok(Self::Whole),
            Ok(pattern) => Ok(Self::Prefix(pattern.name().len())),
            // Whoever reads the location says what is wrong with it.
            Err(_) => Ok(Self::No),
        }
    }
}

impl Default for Place {
    fn default() -> Self {
        Self { path: Template::literal(Bytes::from_static(b"html")), alias: Alias::No, here: None }
    }
}

impl Place {
    /// The slot of both directives: a level has one of them.
    pub fn slot(&mut self) -> &mut dyn Slot {
        self
    }

    /// A nested level may have a folder of its own.
    pub fn enter(&mut self) {
        self.here = None;
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
        let of = match alias {
            true => Alias::inside(args.scope.enclosing().as_ref()),
            false => Ok(Alias::No),
        };
        let of = of.map_err(|text| Fault::at(args.statement.name.span, text))?;
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
        self.alias = of;
        self.here = Some((args.statement.name.span, alias));
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        1..=1
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{get, http_fault};

    #[test]
    fn an_alias_takes_the_place_of_its_own_location_in_nested_ones_too() {
        for (locations, path, expected) in [
            ("location /a/ { alias /b/; return 200 $request_filename; }", "/a/x", "/b/x"),
            ("location /a/ { alias /b/; location ~ x { return 200 $request_filename; } }", "/a/x", "/b/x"),
            ("location /a/ { alias /b/; location /a/x/ { return 200 $request_filename; } }", "/a/x/y", "/b/x/y"),
            ("location /a/ { alias /b/; location ~ x { root /c; return 200 $request_filename; } }", "/a/x", "/c/a/x"),
            ("location ~ ^/a/(.*) { alias /b/$1.txt; return 200 $request_filename; }", "/a/x", "/b/x.txt"),
            ("location ~ a { alias /b; location ~ x { return 200 $request_filename; } }", "/a/x", "/b"),
        ] {
            assert_eq!(get(locations, path).text(), expected, "{locations}");
        }
        // Whatever was rewritten is no longer known to begin with the location's name.
        assert_eq!(get("location /a/ { alias /b/; rewrite x /a/y break; }", "/a/x").status, 500);
    }

    #[test]
    fn a_named_location_has_no_alias() {
        let message = "the \"alias\" directive cannot be used inside the named location";
        assert_eq!(http_fault("server { location @a { alias /b; } }"), message);
    }
}
