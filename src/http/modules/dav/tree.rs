//! What is done to files and folders, away from the thread that serves: it may take long.

use crate::{config::scope::bytes_to_path, http::files::errno, observe::error_log::Level};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps};
use std::{
    fs::{self, File, Metadata},
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, MetadataExt, PermissionsExt},
        },
    },
};

/// What there is to tell the error log.
#[derive(Debug, Default)]
pub(super) struct Log(pub(super) Vec<(Level, String)>);

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

    fn failed(&mut self, level: Level, call: &str, path: &[u8], error: &io::Error) {
        self.0.push((level, format!("{call} \"{}\" failed ({})", String::from_utf8_lossy(path), errno(error))));
    }

    fn not_renamed(&mut self, from: &[u8], to: &[u8], error: &io::Error) {
        let (from, to) = (String::from_utf8_lossy(from), String::from_utf8_lossy(to));
        self.0.push((Level::Crit, format!("rename() \"{from}\" to \"{to}\" failed ({})", errno(error))));
    }
}

/// What may happen to a file on the way to its place (`ngx_ext_rename_file_t`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Placing {
    /// Its rights from now on; 0 leaves them.
    pub(super) access: u32,
    /// The rights of folders that are missing; `None` makes none.
    pub(super) folders: Option<u32>,
    /// Seconds since the epoch: when it was changed.
    pub(super) modified: Option<i64>,
}

/// Puts a file in its place, on another device as well (`ngx_ext_rename_file`).
pub(super) fn place(log: &mut Log, from: &[u8], to: &[u8], placing: &Placing) -> Result<(), ()> {
    if placing.access != 0
        && let Err(error) = fs::set_permissions(bytes_to_path(from), fs::Permissions::from_mode(placing.access))
    {
        log.failed(Level::Crit, "chmod()", from, &error);
        return Err(());
    }
    if let Some(modified) = placing.modified
        && let Err(error) = set_time(from, modified)
    {
        log.failed(Level::Crit, "utimes()", from, &error);
        return Err(());
    }
    let mut renamed = rename(from, to);
    if let (Err(error), Some(access)) = (&renamed, placing.folders)
        && error.kind() == ErrorKind::NotFound
    {
        if let Err(error) = create_folders(to, access) {
            log.failed(Level::Crit, "mkdir()", to, &error);
            return Err(());
        }
        renamed = rename(from, to);
    }
    match renamed {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::CrossesDevices => carry(log, from, to, placing),
        Err(error) => {
            log.not_renamed(from, to, &error);
            Err(())
        }
    }
}

/// To another device: a copy beside its place, which then takes it at once.
fn carry(log: &mut Log, from: &[u8], to: &[u8], placing: &Placing) -> Result<(), ()> {
    let number = crate::http::body_file::next_number();
    let beside = [to, format!(".{number:010}").as_bytes()].concat();
    copy_file(log, from, &beside, (placing.access != 0).then_some(placing.access), placing.modified)?;
    if let Err(error) = rename(&beside, to) {
        log.not_renamed(&beside, to, &error);
        if let Err(error) = fs::remove_file(bytes_to_path(&beside)) {
            log.failed(Level::Crit, "unlink()", &beside, &error);
        }
        return Err(());
    }
    fs::remove_file(bytes_to_path(from)).map_err(|error| log.failed(Level::Crit, "unlink()", from, &error))
}

/// Renames a file or a folder.
pub(super) fn rename(from: &[u8], to: &[u8]) -> io::Result<()> {
    fs::rename(bytes_to_path(from), bytes_to_path(to))
}

/// Makes a folder with these rights.
pub(super) fn create_folder(path: &[u8], access: u32) -> io::Result<()> {
    fs::DirBuilder::new().mode(access).create(bytes_to_path(path))
}

/// Makes every folder that a path leads through (`ngx_create_full_path`).
fn create_folders(path: &[u8], access: u32) -> io::Result<()> {
    let mut last = Ok(());
    for (at, _) in path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/') {
        last = match create_folder(&path[..at], access) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            // It may be there though it cannot be looked at.
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => Err(error),
            Err(error) => return Err(error),
            Ok(()) => Ok(()),
        };
    }
    last
}

/// Copies a file with its rights and its time, or those given (`ngx_copy_file`).
pub(super) fn copy_file(
    log: &mut Log,
    from: &[u8],
    to: &[u8],
    access: Option<u32>,
    modified: Option<i64>,
) -> Result<(), ()> {
    let mut source =
        File::open(bytes_to_path(from)).map_err(|error| log.failed(Level::Crit, "open()", from, &error))?;
    let facts = source.metadata().map_err(|error| log.failed(Level::Alert, "fstat()", from, &error))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(access.unwrap_or_else(|| rights(&facts)));
    let target = rustix::fs::open(bytes_to_path(to), flags, mode);
    let target: OwnedFd = target.map_err(|error| log.failed(Level::Crit, "open()", to, &error.into()))?;
    let mut target = File::from(target);
    let mut left = facts.len();
    let mut piece = vec![0; usize::try_from(left.min(PIECE)).unwrap_or(0)];
    while left > 0 {
        let want = usize::try_from(left.min(PIECE)).unwrap_or(0);
        if let Err(error) = source.read_exact(&mut piece[..want]) {
            match error.kind() {
                ErrorKind::UnexpectedEof => {
                    let from = String::from_utf8_lossy(from);
                    log.0.push((Level::Alert, format!("read() has read less than {left} from {from}")));
                }
                _ => log.failed(Level::Alert, "read()", from, &error),
            }
            return Err(());
        }
        target.write_all(&piece[..want]).map_err(|error| log.failed(Level::Alert, "write()", to, &error))?;
        left -= want as u64;
    }
    let modified = modified.unwrap_or_else(|| facts.mtime());
    set_time(to, modified).map_err(|error| log.failed(Level::Alert, "utimes()", to, &error))
}

/// How much is copied at once.
const PIECE: u64 = 64 << 10;

/// What a file's owner, group and others may do.
pub(super) fn rights(facts: &Metadata) -> u32 {
    facts.mode() & 0o777
}

/// Sets when a path was read and changed, in seconds.
fn set_time(path: &[u8], seconds: i64) -> io::Result<()> {
    let at = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: at, last_modification: at };
    Ok(rustix::fs::utimensat(CWD, bytes_to_path(path), &times, AtFlags::empty())?)
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
