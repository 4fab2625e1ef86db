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
    let mut folder_seen = false;
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
        match files::open_allowed(exchange, &path) {
            Ok(found) if found.is_dir() && literal => {}
            Ok(_) => {
                return Phase::Break(Break::Redirect(Redirect::Path { path: uri, args: exchange.args.clone() }));
            }
            Err(failed) if failed.error.kind() == ErrorKind::NotFound => {
                if !folder_seen {
                    test_folder(exchange, &path, name.len())?;
                    folder_seen = true;
                }
            }
            Err(failed) => return refuse(exchange, &path, &failed),
        }
    }
    Phase::Continue(())
}

/// Whether the folder itself is there, which only the first missing file makes doubtful (`ngx_http_index_test_dir`).
fn test_folder(exchange: &Exchange, path: &[u8], name: usize) -> Phase {
    let folder = match &path[..path.len() - name] {
        [before @ .., b'/'] if !before.is_empty() => before,
        whole => whole,
    };
    match files::stat_allowed(exchange, folder) {
        Ok(found) if found.is_dir() => Phase::Continue(()),
        Ok(_) => {
            let text = format!("\"{}\" is not a directory", String::from_utf8_lossy(folder));
            exchange.log(Level::Alert, &text);
            Phase::Break(Break::Status(500))
        }
        Err(failed) if failed.error.kind() == ErrorKind::PermissionDenied => Phase::Continue(()),
        Err(failed) => refuse(exchange, path, &failed),
    }
}

/// `ngx_http_index_error`, and what nginx makes of errors that say nothing of the request.
fn refuse(exchange: &Exchange, path: &[u8], failed: &files::Failed) -> Phase {
    if failed.link() {
        return Phase::Break(Break::Status(403));
    }
    let error = &failed.error;
    let name = String::from_utf8_lossy(path);
    let long = error.raw_os_error() == Some(libc::ENAMETOOLONG);
    let (level, text, status) = match error.kind() {
        ErrorKind::PermissionDenied => (Level::Err, "is forbidden", 403),
        ErrorKind::NotFound | ErrorKind::NotADirectory => (Level::Err, "is not found", 404),
        _ if long => (Level::Err, "is not found", 404),
        _ => {
            exchange.log(Level::Crit, &failed.text(path));
            return Phase::Break(Break::Status(500));
        }
    };
    if status != 404 || exchange.location.settings.core.log_not_found {
        exchange.log(level, &format!("\"{name}\" {text} ({})", files::errno(error)));
    }
    Phase::Break(Break::Status(status))
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
