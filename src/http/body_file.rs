//! `client_body_in_file_only`: a request's body in a file that others may read.

use super::{body::RequestBodyError, exchange::Exchange, modules::core::InFileOnly, temp_files};
use crate::{
    config::{Kind, Scope, values::TempPath},
    observe::error_log::Level,
    syntax::Span,
};
use std::{
    fs::{self, File},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
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

/// Says where the body that is to be read goes if it is too long for so many bytes of memory, or in any case where the location wants
/// that.
///
/// # Errors
/// [`RequestBodyError::Disk`].
pub fn prepare(exchange: &mut Exchange, memory: usize) -> Result<(), RequestBodyError> {
    let core = &exchange.location.settings.core;
    let kind = core.client_body_in_file_only;
    if kind == InFileOnly::Off && exchange.head.content_length.is_none_or(|length| length > memory as u64) {
        let folder = core.client_body_temp_path.as_ref().unwrap_or(&exchange.http.client_body_temp);
        exchange.body.spill_into(folder.clone());
    } else if kind != InFileOnly::Off && exchange.body.file_name().is_none() {
        let (file, path) = open(exchange)?;
        exchange.log(Level::Notice, &buffered_to(&path));
        let remove = (kind == InFileOnly::Clean).then(|| path.clone());
        exchange.body.read_to((file, BodyFile { name: path.into_os_string().into_vec(), remove }));
    }
    Ok(())
}

/// A new file for a body that is too long for the memory. Only its name stays.
///
/// # Errors
/// What there is to log.
pub fn spill(folder: &TempPath) -> Result<(File, BodyFile, String), String> {
    let (file, path) = temp_files::create_unnamed(folder).map_err(|fault| fault.to_string())?;
    let text = buffered_to(&path);
    Ok((file, BodyFile { name: path.into_os_string().into_vec(), remove: None }, text))
}

fn buffered_to(path: &Path) -> String {
    format!("a client request body is buffered to a temporary file {}", path.display())
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

/// Where bodies are kept for a configuration that does not say. The folder is made only if it is used: nginx makes it in any
/// case, and so does not start where it may not.
pub fn built_in(scope: &Scope<'_>) -> TempPath {
    match scope.find(Kind::Feature, BODY_FILES) {
        Some(_) => TempPath { levels: Vec::new(), ..TempPath::built_in("client_body", scope) },
        None => TempPath { path: scope.temp_folder("client_body"), levels: Vec::new(), built_in: true },
    }
}

/// A new file in `client_body_temp_path`.
fn open(exchange: &Exchange) -> Result<(File, PathBuf), RequestBodyError> {
    let folder = exchange.location.settings.core.client_body_temp_path.as_ref();
    temp_files::create(folder.unwrap_or(&exchange.http.client_body_temp)).map_err(|fault| {
        exchange.log(Level::Crit, &fault.to_string());
        RequestBodyError::Disk
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_with_its_request_unless_somebody_has_taken_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, "").unwrap();
            BodyFile { name: path.as_os_str().as_bytes().to_vec(), remove: Some(path) }
        };
        drop(file("a"));
        let mut taken = file("b");
        taken.release();
        drop(taken);
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["b"]);
    }
}
