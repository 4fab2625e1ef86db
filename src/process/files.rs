//! Log files and temporary directories: opened by the master, written to by the worker.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::Write,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    errno::Errno,
    log::{Level, Log, Output, Sink},
    needs::{ErrorLog, LogTarget, Needs},
    sys,
    syslog::Syslog,
};

/// A log file that is open for appending. It stays the same object when the file is reopened, so who writes to it
/// never looks it up again.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    stderr: bool,
}

impl LogFile {
    /// A file that was opened for appending.
    pub fn new(path: PathBuf, file: impl Into<File>) -> Self {
        Self { path, file: file.into(), stderr: false }
    }

    /// Standard error as a log.
    pub fn stderr() -> Result<Self, Errno> {
        let file = std::io::stderr().as_fd().try_clone_to_owned()?;
        Ok(Self { path: PathBuf::from("stderr"), file: file.into(), stderr: true })
    }

    /// The path as the configuration names it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is standard error itself.
    pub fn is_stderr(&self) -> bool {
        self.stderr
    }

    /// Appends whole lines with one call, so that lines of several writers do not mix.
    pub fn write(&self, lines: &[u8]) -> std::io::Result<()> {
        (&self.file).write_all(lines)
    }

    /// Goes on with another file, at once and for every thread.
    pub(super) fn replace(&self, with: &OwnedFd) -> Result<(), Errno> {
        sys::replace(with, self.file.as_fd())
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The open log files of this process, by the path the configuration names.
pub(super) type LogFiles = HashMap<PathBuf, Arc<LogFile>>;

/// Something could not be opened; the log has the line.
#[derive(Debug, thiserror::Error)]
#[error("could not be opened")]
pub(super) struct NotOpened;

/// Opens a log: appended to, created with mode 0644, closed on `exec`.
pub(super) fn open_for_append(path: &Path) -> Result<OwnedFd, Errno> {
    Ok(OpenOptions::new().append(true).create(true).mode(0o644).open(path)?.into())
}

/// Opens every log of `needs`; the first that fails is reported and ends it.
pub(super) fn open_logs(needs: &Needs, log: &Log) -> Result<LogFiles, NotOpened> {
    let mut files = LogFiles::new();
    for path in needs.log_files() {
        match open_for_append(&path) {
            Ok(file) => files.insert(path.clone(), Arc::new(LogFile::new(path, file))),
            Err(errno) => {
                log.write(Level::Emerg, format!("open() \"{}\" failed ({errno})", path.display()));
                return Err(NotOpened);
            }
        };
    }
    Ok(files)
}

/// Where the `error_log` lines lead, loudest first, now that the files are open.
pub(super) fn outputs(error_logs: &[ErrorLog], files: &LogFiles) -> Vec<Output> {
    let sink = |log: &ErrorLog| match &log.target {
        LogTarget::File(path) => files.get(path).cloned().map(Sink::File),
        LogTarget::Stderr => LogFile::stderr().ok().map(Arc::new).map(Sink::File),
        LogTarget::Syslog(need) => Some(Sink::Syslog(Arc::new(Syslog::new(need.clone())))),
    };
    error_logs.iter().filter_map(|log| Some(Output { level: log.level, sink: sink(log)?, json: log.json })).collect()
}

/// Opens every log again under its name and goes on with the new file (`ngx_reopen_files`). With `owner`, the files
/// are given to the worker's user first. A file that fails is reported and stays as it is.
pub(super) fn reopen(files: &LogFiles, owner: Option<u32>, log: &Log) {
    for (path, file) in files {
        let reopened = open_for_append(path)
            .map_err(|errno| format!("open() \"{}\" failed ({errno})", path.display()))
            .and_then(|new| owner.map_or(Ok(()), |uid| give(path, uid, 0o600)).map(|()| new))
            .and_then(|new| {
                file.replace(&new).map_err(|errno| format!("dup() \"{}\" failed ({errno})", path.display()))
            });
        if let Err(text) = reopened {
            log.write(Level::Emerg, text);
        }
    }
}

/// Creates the directories for temporary files where they are missing, and gives them to the worker's user
/// (`ngx_create_paths`).
pub(super) fn create_directories(needs: &Needs, log: &Log) -> Result<(), NotOpened> {
    let owner = needs.identity.user.as_ref().filter(|_| sys::is_superuser()).map(|user| user.uid);
    let create = |path: &Path| match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(format!("mkdir() \"{}\" failed ({})", path.display(), Errno::from(error)))
        }
        _ => owner.map_or(Ok(()), |uid| give(path, uid, 0o700)),
    };
    for path in &needs.optional_directories {
        // Who needs a file finds another place for it.
        let _ = create(path);
    }
    for path in &needs.directories {
        if let Err(text) = create(path) {
            log.write(Level::Emerg, text);
            return Err(NotOpened);
        }
    }
    Ok(())
}

/// Makes `path` belong to `uid` and gives its owner the bits of `mode`, changing only what is not so already.
fn give(path: &Path, uid: u32, mode: u32) -> Result<(), String> {
    let shown = path.display();
    let status =
        std::fs::metadata(path).map_err(|error| format!("stat() \"{shown}\" failed ({})", Errno::from(error)))?;
    if status.uid() != uid {
        std::os::unix::fs::chown(path, Some(uid), None)
            .map_err(|error| format!("chown(\"{shown}\", {uid}) failed ({})", Errno::from(error)))?;
    }
    if status.mode() & mode != mode {
        let mode = (status.mode() & 0o7777) | mode;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(|error| format!("chmod() \"{shown}\" failed ({})", Errno::from(error)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reopened_log_writes_to_the_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let needs = Needs { logs: vec![path.clone()], ..Needs::default() };
        let log = Log::default();
        let files = open_logs(&needs, &log).unwrap();
        let file = files[&path].clone();
        file.write(b"one\n").unwrap();
        std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
        file.write(b"two\n").unwrap();
        reopen(&files, None, &log);
        file.write(b"three\n").unwrap();
        assert_eq!(std::fs::read(folder.path().join("access.log.1")).unwrap(), b"one\ntwo\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
    }

    #[test]
    fn a_directory_is_made_once_and_its_parents_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let needs = Needs { directories: vec![folder.path().join("a")], ..Needs::default() };
        let log = Log::default();
        assert!(create_directories(&needs, &log).is_ok() && create_directories(&needs, &log).is_ok());
        let needs = Needs { directories: vec![folder.path().join("b/c")], ..Needs::default() };
        log.capture();
        assert!(create_directories(&needs, &log).is_err());
        assert!(String::from_utf8(log.captured()).unwrap().ends_with("b/c\" failed (2: No such file or directory)\n"));
        let needs = Needs { optional_directories: needs.directories, ..Needs::default() };
        assert!(create_directories(&needs, &log).is_ok());
    }
}
