//! `index`: which file answers for a folder.

use super::Room;
use crate::{
    config::{Args, Directive, FromArgs, LEVELS, List, Module},
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
use std::{io::ErrorKind, ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug)]
pub struct Conf {
    pub names: List<Names>,
}

impl Default for Conf {
    fn default() -> Self {
        Self { names: List(vec![Names(vec![Template::literal(Bytes::from_static(b"index.html"))])]) }
    }
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[Directive::new("index", LEVELS, |conf| &mut conf.names)];
}

impl Room for Conf {
    type State = ();
}

/// Sends a request for a folder to the first index file that is there.
pub async fn content(exchange: &mut Exchange) -> Phase {
    if !exchange.path.ends_with(b"/") || !exchange.method.reads_or_posts() {
        return Phase::Continue(());
    }
    let conf = Arc::clone(&exchange.location.settings.index);
    for name in conf.names.iter().flat_map(|names| &names.0) {
        let literal = name.as_literal().is_some();
        let name = name.evaluate(exchange);
        if name.starts_with(b"/") {
            return Phase::Break(Break::Redirect(Redirect::Path {
                path: Bytes::copy_from_slice(&name),
                args: exchange.args.clone(),
            }));
        }
        let uri: Bytes = [&exchange.path[..], &name].concat().into();
        let Some(path) = files::path(exchange, &uri) else { return Phase::Break(Break::Status(500)) };
        match files::open(&path) {
            Ok(found) if found.is_dir() && literal => {}
            Ok(_) => {
                return Phase::Break(Break::Redirect(Redirect::Path { path: uri, args: exchange.args.clone() }));
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(error) => {
                let status = if error.kind() == ErrorKind::PermissionDenied { 403 } else { 500 };
                let text = format!("\"{}\" is forbidden ({})", String::from_utf8_lossy(&path), files::errno(&error));
                exchange.log(Level::Err, &text);
                return Phase::Break(Break::Status(status));
            }
        }
    }
    Phase::Continue(())
}

/// The names of one `index`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(pub Vec<Template>);

impl FromArgs for Names {
    const TAKES: RangeInclusive<usize> = 1..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let last = args.words().len() - 1;
        let mut names = Vec::new();
        for (at, word) in args.words().iter().enumerate() {
            if word.value.is_empty() {
                let text = [b"index \"", &word.value[..], b"\" in \"index\" directive is invalid"].concat();
                return Err(Fault::at(word.span, text));
            }
            if word.value.starts_with(b"/") && at != last {
                let fault = Fault::at(word.span, "only the last index in \"index\" directive should be absolute");
                args.scope.fault(fault.warn());
            }
            names.push(Template::compile(word, args.scope)?);
        }
        Ok(Self(names))
    }
}
