//! A file's way to its place: rights, time, the folders on the way, another device (`ngx_ext_rename_file`).

use super::temp_files::next_number;
use crate::{config::scope::bytes_to_path, http::files::errno, observe::error_log::Level};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawMode, Timespec, Timestamps};
use std::{
    fs::{self, File, Metadata},
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
};

/// What there is to tell the error log.
#[derive(Debug, Default)]
pub struct Log(pub Vec<(Level, String)>);

impl Log {
    /// A call has failed.
    pub fn failed(&mut self, level: Level, call: &str, path: &[u8], error: &io::Error) {
        self.0.push((level, format!("{call} \"{}\" failed ({})", String::from_utf8_lossy(path), errno(error))));
    }

    fn not_renamed(&mut self, from: &[u8], to: &[u8], error: &io::Error) {
        let (from, to) = (String::from_utf8_lossy(from), String::from_utf8_lossy(to));
        self.0.push((Level::Crit, format!("rename() \"{from}\" to \"{to}\" failed ({})", errno(error))));
    }
}

/// What may happen to a file on the way to its place (`ngx_ext_rename_file_t`).
#[derive(Clone, Copy, Debug)]
pub struct Placing {
    /// Its rights from now on; 0 leaves them.
    pub access: u32,
    /// The rights of folders that are missing; `None` makes none.
    pub folders: Option<u32>,
    /// Seconds since the epoch: when it was changed.
    pub modified: Option<i64>,
}

/// Puts a file in its place, on another device as well (`ngx_ext_rename_file`).
pub(crate) fn place(log: &mut Log, from: &[u8], to: &[u8], placing: &Placing) -> Result<(), ()> {
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
    let number = next_number();
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
pub fn rename(from: &[u8], to: &[u8]) -> io::Result<()> {
    fs::rename(bytes_to_path(from), bytes_to_path(to))
}

/// Makes a folder with these rights.
pub fn create_folder(path: &[u8], access: u32) -> io::Result<()> {
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
pub(crate) fn copy_file(
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
    let mode = Mode::from_raw_mode(access.unwrap_or_else(|| rights(&facts)) as RawMode);
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
pub fn rights(facts: &Metadata) -> u32 {
    facts.mode() & 0o777
}

/// Sets when a path was read and changed, in seconds.
pub fn set_time(path: &[u8], seconds: i64) -> io::Result<()> {
    let at = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: at, last_modification: at };
    Ok(rustix::fs::utimensat(CWD, bytes_to_path(path), &times, AtFlags::empty())?)
}
