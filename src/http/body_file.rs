//! `client_body_in_file_only`: a request's body in a file that others may read.

use super::{body::RequestBodyError, exchange::Exchange, files::errno, modules::core::InFileOnly};
use crate::{
    config::{Kind, Scope, scope::bytes_to_path},
    observe::error_log::Level,
    syntax::Span,
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// The file of a body.
pub struct BodyFile {
    name: Vec<u8>,
    /// It goes with the request.
    remove: Option<PathBuf>,
}

impl BodyFile {
    /// `$request_body_file`.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Somebody has taken it away.
    pub fn release(&mut self) {
        self.remove = None;
    }
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        if let Some(path) = &self.remove {
            // Whoever was told of the file may have taken it away.
            let _ = fs::remove_file(path);
        }
    }
}

/// Puts a body that was read into a file, where the location wants that and there is a body.
///
/// # Errors
/// [`RequestBodyError::Disk`].
pub fn keep(exchange: &mut Exchange) -> Result<(), RequestBodyError> {
    let kind = exchange.location.settings.core.client_body_in_file_only;
    if kind == InFileOnly::Off || !exchange.head.has_body() || exchange.body.file_name().is_some() {
        return Ok(());
    }
    let (file, path) = open(exchange)?;
    let remove = (kind == InFileOnly::Clean).then(|| path.clone());
    exchange.body.put_into((file, BodyFile { name: path.into_os_string().into_vec(), remove }))
}

/// Has the body that is to be read written to a file of its own, which goes with the request unless somebody takes it
/// away.
///
/// # Errors
/// [`RequestBodyError::Disk`].
pub fn receive(exchange: &mut Exchange) -> Result<(), RequestBodyError> {
    let (file, path) = open(exchange)?;
    exchange.body.read_to((file, BodyFile { name: path.as_os_str().as_bytes().to_vec(), remove: Some(path) }));
    Ok(())
}

/// The feature of a configuration that keeps request bodies in files.
const BODY_FILES: &[u8] = b"body files";

/// Notes that the configuration keeps request bodies in files.
pub fn announce(scope: &Scope<'_>) {
    scope.refer(Kind::Feature, BODY_FILES, Span::default());
}

/// The folders that must be there: those the configuration names, and the build's own one if it is used. (nginx makes all
/// of the build's own, used or not, and so does not start where it may not.)
pub fn folders(scope: &Scope<'_>) -> Vec<PathBuf> {
    if scope.find(Kind::Feature, BODY_FILES).is_some() {
        let path = scope.surroundings.client_body_temp.as_os_str().as_bytes();
        scope.refer(Kind::TempFolder, path, Span::default());
    }
    scope.names(Kind::TempFolder).iter().map(|folder| bytes_to_path(&folder.name).to_owned()).collect()
}

/// A new file in `client_body_temp_path`.
fn open(exchange: &Exchange) -> Result<(File, PathBuf), RequestBodyError> {
    let (folder, levels) = match &exchange.location.settings.core.client_body_temp_path {
        Some(temp) => (temp.path.clone(), &temp.levels[..]),
        None => (exchange.http.client_body_temp.clone(), &[][..]),
    };
    create(&folder, levels).map_err(|(path, error)| {
        let path = path.display();
        exchange.log(Level::Crit, &format!("open() \"{path}\" failed ({})", errno(&error)));
        RequestBodyError::Disk
    })
}

/// A new file, named by a number, in folders named by the number's last digits (`ngx_create_temp_file`).
fn create(folder: &Path, levels: &[usize]) -> Result<(File, PathBuf), (PathBuf, io::Error)> {
    loop {
        let name = format!("{:010}", next_number());
        let place = place(folder, levels, &name);
        let path = place.join(&name);
        if let Err(error) = fs::create_dir_all(&place) {
            return Err((path, error));
        }
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((file, path)),
            // Left by an earlier process.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err((path, error)),
        }
    }
}

/// A number that no other temporary file of this process has (`ngx_next_temp_number`).
pub fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

fn place(folder: &Path, levels: &[usize], name: &str) -> PathBuf {
    let mut place = folder.to_owned();
    let mut end = name.len();
    for level in levels {
        let start = end.saturating_sub(*level);
        place.push(&name[start..end]);
        end = start;
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_by_the_last_digits() {
        let folder = Path::new("/t");
        assert_eq!(place(folder, &[], "0000012345"), Path::new("/t"));
        assert_eq!(place(folder, &[1, 2], "0000012345"), Path::new("/t/5/34"));
        assert_eq!(place(folder, &[3, 2, 1], "0000012345"), Path::new("/t/345/12/0"));
    }

    #[test]
    fn a_file_that_is_there_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (_, first) = create(folder.path(), &[1]).unwrap();
        let (_, second) = create(folder.path(), &[1]).unwrap();
        assert_ne!(first, second);
        drop(BodyFile { name: Vec::new(), remove: Some(first.clone()) });
        drop(BodyFile { name: Vec::new(), remove: None });
        assert!(!first.exists() && second.exists());
    }
}
