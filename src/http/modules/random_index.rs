//! `random_index`: any file of a folder answers for it.

use super::Room;
use crate::{
    config::{Directive, LOCATION, Module, scope::bytes_to_path},
    http::{
        exchange::Exchange,
        files,
        phase::{Break, Phase, Redirect, status},
    },
    observe::error_log::Level,
};
use std::{io, os::unix::ffi::OsStrExt};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub enabled: bool,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] =
        &[Directive::new("random_index", LOCATION, |conf| &mut conf.enabled)];
}

impl Room for Conf {
    type State = ();
}

/// Sends a request for a folder to one of its files (`ngx_http_random_index_handler`).
pub async fn content(exchange: &mut Exchange) -> Phase {
    let enabled = exchange.location.settings.random_index.enabled;
    if !enabled || !exchange.path.ends_with(b"/") || !exchange.method.reads_or_posts() {
        return Phase::Continue(());
    }
    let Some(path) = files::path(exchange, &exchange.path) else { return status(500) };
    let folder = path.strip_suffix(b"/").unwrap_or(&path);
    let mut names = match names(folder) {
        Ok(names) => names,
        Err(error) => {
            let (level, code) = match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG) => (Level::Err, 404),
                Some(libc::EACCES) => (Level::Err, 403),
                _ => (Level::Crit, 500),
            };
            let folder = String::from_utf8_lossy(folder);
            exchange.log(level, &format!("opendir() \"{folder}\" failed ({})", files::errno(&error)));
            return status(code);
        }
    };
    if names.is_empty() {
        return Phase::Continue(());
    }
    let random = (0..4).fold(0, |all, at| all << 8 | usize::from(exchange.connection.worker.random_byte(at)));
    let name = names.swap_remove(random % names.len());
    let path = [&exchange.path[..], &name].concat().into();
    Phase::Break(Break::Redirect(Redirect::Path { path, args: exchange.args.clone() }))
}

/// The files of a folder that are not hidden.
fn names(folder: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(bytes_to_path(folder))? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.as_bytes().starts_with(b".") && std::fs::metadata(entry.path()).is_ok_and(|facts| facts.is_file()) {
            names.push(name.as_bytes().to_vec());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use crate::http::testing::get;

    #[test]
    fn a_file_of_the_folder_answers_and_a_folder_without_files_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let server = format!("root {}; location / {{ random_index on; }}", folder.path().display());
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        std::fs::write(folder.path().join(".hidden"), "hidden").unwrap();
        assert_eq!(get(&server, "/").status, 403);
        std::fs::write(folder.path().join("one"), "1").unwrap();
        assert_eq!(get(&server, "/").text(), "1");
        assert_eq!(get(&server, "/none/").status, 404);
    }
}
