//! What is done to files and folders, away from the thread that serves: it may take long.

pub(super) use crate::http::placing::{Log, Placing, copy_file, create_folder, place, rename, rights};

use crate::{config::scope::bytes_to_path, http::placing::set_time, observe::error_log::Level};
use std::{
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
};

impl Log {
    /// A call has failed; the status for that (`ngx_http_dav_error`).
    pub(super) fn refused(&mut self, call: &str, path: &[u8], error: &io::Error, not_found: u16) -> u16 {
        let (level, status) = match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG) => (Level::Err, not_found),
            Some(libc::EACCES | libc::EPERM) => (Level::Err, 403),
            Some(libc::EEXIST) => (Level::Err, 405),
            Some(libc::ENOSPC) => (Level::Crit, 507),
            _ => (Level::Crit, 500),
        };
        self.failed(level, call, path, error);
        status
    }
}

/// Deletes a file, or a folder with all that is in it (`ngx_http_dav_delete_path`).
pub(super) fn delete(log: &mut Log, path: &[u8], folder: bool) -> Result<(), u16> {
    let (call, deleted) = match folder {
        true => {
            walk(log, path, &mut Deleting).map_err(|()| 500_u16)?;
            ("rmdir()", fs::remove_dir(bytes_to_path(path)))
        }
        false => ("unlink()", fs::remove_file(bytes_to_path(path))),
    };
    deleted.map_err(|error| log.refused(call, path, &error, 404))
}

/// Copies all that is in a folder into another one.
pub(super) fn copy_folder(log: &mut Log, from: &[u8], to: &[u8]) -> Result<(), ()> {
    walk(log, from, &mut Copying { to, skip: from.len() })
}

/// What is done on a walk through a folder. Failures are told, and the walk goes on.
trait Visitor {
    fn file(&mut self, log: &mut Log, path: &[u8], facts: &Metadata);
    /// A socket, a pipe, a link.
    fn special(&mut self, log: &mut Log, path: &[u8], facts: &Metadata);
    fn enter(&mut self, log: &mut Log, path: &[u8], facts: &Metadata);
    fn leave(&mut self, log: &mut Log, path: &[u8], facts: &Metadata);
}

/// Visits all that is in a folder; an error if it could not be read (`ngx_walk_tree`).
fn walk(log: &mut Log, folder: &[u8], visitor: &mut impl Visitor) -> Result<(), ()> {
    let entries = fs::read_dir(bytes_to_path(folder));
    let entries = entries.map_err(|error| log.failed(Level::Crit, "opendir()", folder, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| log.failed(Level::Crit, "readdir()", folder, &error))?;
        let path = [folder, b"/", entry.file_name().as_bytes()].concat();
        let facts = match fs::metadata(bytes_to_path(&path)) {
            Ok(facts) => facts,
            Err(error) => {
                log.failed(Level::Crit, "stat()", &path, &error);
                continue;
            }
        };
        match entry.file_type() {
            Ok(kind) if kind.is_file() => visitor.file(log, &path, &facts),
            Ok(kind) if kind.is_dir() => {
                visitor.enter(log, &path, &facts);
                // What could not be read was told.
                let _ = walk(log, &path, visitor);
                visitor.leave(log, &path, &facts);
            }
            Ok(_) => visitor.special(log, &path, &facts),
            Err(error) => log.failed(Level::Crit, "stat()", &path, &error),
        }
    }
    Ok(())
}

struct Deleting;

impl Visitor for Deleting {
    fn file(&mut self, log: &mut Log, path: &[u8], _facts: &Metadata) {
        if let Err(error) = fs::remove_file(bytes_to_path(path)) {
            log.refused("unlink()", path, &error, 0);
        }
    }

    fn special(&mut self, log: &mut Log, path: &[u8], facts: &Metadata) {
        self.file(log, path, facts);
    }

    fn enter(&mut self, _log: &mut Log, _path: &[u8], _facts: &Metadata) {}

    fn leave(&mut self, log: &mut Log, path: &[u8], _facts: &Metadata) {
        if let Err(error) = fs::remove_dir(bytes_to_path(path)) {
            log.refused("rmdir()", path, &error, 0);
        }
    }
}

struct Copying<'c> {
    to: &'c [u8],
    /// Length of the path that `to` takes the place of.
    skip: usize,
}

impl Copying<'_> {
    fn target(&self, path: &[u8]) -> Vec<u8> {
        [self.to, path.get(self.skip..).unwrap_or_default()].concat()
    }
}

impl Visitor for Copying<'_> {
    fn file(&mut self, log: &mut Log, path: &[u8], facts: &Metadata) {
        // What could not be copied was told.
        let _ = copy_file(log, path, &self.target(path), Some(rights(facts)), Some(facts.mtime()));
    }

    fn special(&mut self, _log: &mut Log, _path: &[u8], _facts: &Metadata) {}

    fn enter(&mut self, log: &mut Log, path: &[u8], facts: &Metadata) {
        let target = self.target(path);
        let access = rights(facts);
        if let Err(error) = create_folder(&target, access | (access & 0o444) >> 2) {
            log.refused("mkdir()", &target, &error, 0);
        }
    }

    fn leave(&mut self, log: &mut Log, path: &[u8], facts: &Metadata) {
        let target = self.target(path);
        if let Err(error) = set_time(&target, facts.mtime()) {
            log.failed(Level::Alert, "utimes()", &target, &error);
        }
    }
}
