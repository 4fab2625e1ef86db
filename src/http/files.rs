//! From paths of requests to files: `root`, `alias`, and opening what is there.

pub mod symlinks;

use super::{
    exchange::Exchange,
    modules::core::{Alias, DisableSymlinks},
};
use crate::{config::scope::bytes_to_path, observe::error_log::Level};
use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
};

/// An opened path: a file with its facts, or a folder.
#[derive(Debug)]
pub struct Found {
    pub file: File,
    pub metadata: Metadata,
}

impl Found {
    pub fn is_dir(&self) -> bool {
        self.metadata.is_dir()
    }

    /// Seconds since the epoch.
    pub fn modified(&self) -> i64 {
        self.metadata.mtime()
    }
}

/// The file system path of a request path (`ngx_http_map_uri_to_path`). `None` where the settings make
/// it impossible: an `alias` behind a rewriting that left the location.
pub fn path(exchange: &Exchange, uri: &[u8]) -> Option<Vec<u8>> {
    let location = &exchange.location;
    let place = &location.settings.core.place;
    if place.alias != Alias::No && !exchange.valid_location {
        let name = String::from_utf8_lossy(&location.name);
        let text = format!("\"alias\" cannot be used in location \"{name}\" where URI was rewritten");
        exchange.log(Level::Alert, &text);
        return None;
    }
    let mut path = Vec::with_capacity(128);
    place.path.append(exchange, &mut path);
    complete(exchange, &mut path, place);
    let rest = match place.alias {
        Alias::Prefix(length) => uri.get(length..)?,
        // Such an alias names the whole file.
        Alias::Whole if !exchange.state.try_files.below_alias => b"",
        Alias::Whole | Alias::No => uri,
    };
    path.extend_from_slice(rest);
    Some(path)
}

/// `$document_root`.
pub fn root(exchange: &Exchange) -> Vec<u8> {
    let place = &exchange.location.settings.core.place;
    let mut path = Vec::new();
    place.path.append(exchange, &mut path);
    complete(exchange, &mut path, place);
    path
}

/// `$realpath_root`: the same without links.
pub fn real_root(exchange: &Exchange) -> Option<Vec<u8>> {
    let root = std::fs::canonicalize(bytes_to_path(&root(exchange))).ok()?;
    Some(root.as_os_str().as_bytes().to_vec())
}

/// A folder with variables in it that comes out relative lies below the prefix.
fn complete(exchange: &Exchange, path: &mut Vec<u8>, place: &super::modules::core::Place) {
    if place.path.as_literal().is_none() && !path.starts_with(b"/") {
        let prefix = exchange.http.prefix.as_os_str().as_bytes();
        path.splice(..0, prefix.iter().copied());
    }
}

/// Why a path could not be opened, and in which call; shown, it is followed by what nginx prints behind the path.
#[derive(Debug)]
pub struct Failed {
    /// `open()`, `openat()`, `stat()`.
    pub call: &'static str,
    pub error: io::Error,
}

impl Failed {
    /// `open() "/path" failed (2: No such file or directory)`.
    pub fn text(&self, path: &[u8]) -> String {
        format!("{} \"{}\" failed ({})", self.call, String::from_utf8_lossy(path), errno(&self.error))
    }

    /// Nothing is there, which is no news where it is only looked for.
    pub fn usual(&self) -> bool {
        // Without a code the path has a zero in it.
        matches!(self.error.raw_os_error(), None | Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG))
    }

    /// A symbolic link is in the way, and `disable_symlinks` forbids it.
    pub fn link(&self) -> bool {
        matches!(self.error.raw_os_error(), Some(libc::ELOOP | libc::EMLINK))
    }
}

/// Opens a path for reading as `disable_symlinks` allows (`ngx_open_file_wrapper`).
///
/// # Errors
/// What the system says, or `ELOOP`.
pub fn open_allowed(exchange: &Exchange, path: &[u8]) -> Result<Found, Failed> {
    let allowed = DisableSymlinks::at(exchange, path);
    if !allowed.any() {
        return open(path).map_err(|error| Failed { call: "open()", error });
    }
    let file = symlinks::open(path, allowed, symlinks::Purpose::Read)?;
    let metadata = file.metadata().map_err(|error| Failed { call: "fstat()", error })?;
    Ok(Found { file, metadata })
}

/// The facts of a path as `disable_symlinks` allows to have them (`ngx_file_info_wrapper`).
///
/// # Errors
/// What the system says, or `ELOOP`.
pub fn stat_allowed(exchange: &Exchange, path: &[u8]) -> Result<Metadata, Failed> {
    match DisableSymlinks::at(exchange, path).any() {
        false => stat(path).map_err(|error| Failed { call: "stat()", error }),
        true => open_allowed(exchange, path).map(|found| found.metadata),
    }
}

/// Opens a log for appending as `disable_symlinks` allows.
///
/// # Errors
/// What the system says, or `ELOOP`.
pub fn append_allowed(exchange: &Exchange, path: &[u8]) -> Result<File, Failed> {
    let allowed = DisableSymlinks::at(exchange, path);
    match allowed.any() {
        false => append(path).map_err(|error| Failed { call: "open()", error }),
        true => symlinks::open(path, allowed, symlinks::Purpose::Append),
    }
}

/// Opens a path for reading. Never blocks on a pipe.
///
/// # Errors
/// What the system says.
pub fn open(path: &[u8]) -> io::Result<Found> {
    if path.contains(&0) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(bytes_to_path(path))?;
    let metadata = file.metadata()?;
    Ok(Found { file, metadata })
}

/// Opens a log for appending, and makes it if it is not there.
///
/// # Errors
/// What the system says.
pub fn append(path: &[u8]) -> io::Result<File> {
    if path.contains(&0) {
        return Err(io::ErrorKind::NotFound.into());
    }
    OpenOptions::new().append(true).create(true).mode(0o644).open(bytes_to_path(path))
}

/// The facts of a path without opening it.
///
/// # Errors
/// What the system says.
pub fn stat(path: &[u8]) -> io::Result<Metadata> {
    if path.contains(&0) {
        return Err(io::ErrorKind::NotFound.into());
    }
    std::fs::metadata(bytes_to_path(path))
}

/// `2: No such file or directory`: an error as nginx prints it.
pub fn errno(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    format!("{}: {text}", error.raw_os_error().unwrap_or(0))
}
