//! `try_files`: the first of several files that is there, or what to do instead.

use super::{Room, core::Alias};
use crate::{
    config::{Args, Contexts, Directive, FromArgs, LOCATION, Module, SERVER, values::parse_number},
    http::{
        exchange::Exchange,
        files,
        phase::{Break, Phase, Redirect},
        template::Template,
    },
    observe::error_log::Level,
    syntax::Fault,
};
use bytes::Bytes;
use std::{ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub tries: Option<Tries>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] =
        &[Directive::new("try_files", SERVER.or(LOCATION), |conf| &mut conf.tries)];

    /// Belongs to its own level.
    fn enter(this: &mut Arc<Self>, _level: Contexts) {
        if this.tries.is_some() {
            Arc::make_mut(this).tries = None;
        }
    }
}

impl Room for Conf {
    type State = State;
}

/// What is remembered about a request.
#[derive(Debug, Default)]
pub struct State {
    /// A file was found below the `alias` of a location given by an expression: the path stands behind the alias
    /// (`r->add_uri_to_alias`).
    pub below_alias: bool,
}

/// Looks the files up in order; the last word is not a file but what happens if none is there.
pub fn precontent(exchange: &mut Exchange) -> Phase {
    if exchange.location.settings.try_files.tries.is_none() {
        return Phase::Continue(());
    }
    let conf = Arc::clone(&exchange.location.settings.try_files);
    let Some(tries) = &conf.tries else { return Phase::Continue(()) };
    for file in &tries.files {
        let name: Bytes = file.name.evaluate_bytes(exchange);
        let place = &exchange.location.settings.core.place;
        let prefix = match place.alias {
            Alias::Prefix(length) => exchange.path.slice(..length.min(exchange.path.len())),
            Alias::Whole | Alias::No => Bytes::new(),
        };
        // Under `alias` a name that begins as its location does, as `$uri` does, is taken without that beginning.
        let name = match file.name.as_literal() {
            None if name.starts_with(&prefix) => name.slice(prefix.len()..),
            _ => name,
        };
        let mut path = files::root(exchange);
        path.extend_from_slice(&name);
        if file.directory {
            while path.len() > 1 && path.ends_with(b"/") {
                path.pop();
            }
        }
        let metadata = match files::stat_allowed(exchange, &path) {
            Ok(metadata) => metadata,
            Err(failed) => {
                if !failed.usual() {
                    exchange.log(Level::Crit, &failed.text(&path));
                }
                continue;
            }
        };
        if metadata.is_dir() != file.directory {
            continue;
        }
        let whole = place.alias == Alias::Whole;
        let uri: Bytes = if prefix.is_empty() { name } else { [&prefix[..], &name].concat().into() };
        if whole {
            if file.directory {
                return Phase::Continue(());
            }
            exchange.state.try_files.below_alias = true;
        }
        if exchange.path != uri {
            exchange.path = uri;
            exchange.pristine = false;
        }
        return Phase::Continue(());
    }
    match &tries.last {
        Last::Status(status) => Phase::Break(Break::Status(*status)),
        Last::Uri(uri) => {
            let uri: Bytes = uri.evaluate_bytes(exchange);
            if uri.starts_with(b"@") {
                return Phase::Break(Break::Redirect(Redirect::Named(uri)));
            }
            let (path, args) = match memchr::memchr(b'?', &uri) {
                Some(at) => (uri.slice(..at), uri.slice(at + 1..)),
                None => (uri, Bytes::new()),
            };
            Phase::Break(Break::Redirect(Redirect::Path { path, args }))
        }
    }
}

/// The files of one `try_files` and what stands at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tries {
    pub files: Vec<TryFile>,
    pub last: Last,
}

/// One file to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TryFile {
    pub name: Template,
    /// Written with a slash at its end: looked for as a folder.
    pub directory: bool,
}

/// The last word of `try_files`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    /// `=404`
    Status(u16),
    /// A path with arguments, or a named location.
    Uri(Template),
}

impl FromArgs for Tries {
    const TAKES: RangeInclusive<usize> = 2..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let Some((last, names)) = args.words().split_last() else { return Err(args.count()) };
        let mut files = Vec::new();
        for word in names {
            let directory = word.value.len() > 1 && word.value.ends_with(b"/");
            let name = &word.value[..word.value.len() - usize::from(directory)];
            files.push(TryFile { name: Template::compile_text(name, word, args.scope)?, directory });
        }
        let last = match last.value.strip_prefix(b"=") {
            Some(code) => {
                let invalid = || Fault::at(last.span, [b"invalid code \"", &last.value[..], b"\""].concat());
                let code = parse_number(code).filter(|code| *code <= 999).ok_or_else(invalid)?;
                Last::Status(u16::try_from(code).unwrap_or(404))
            }
            None => Last::Uri(Template::compile(last, args.scope)?),
        };
        Ok(Self { files, last })
    }
}
