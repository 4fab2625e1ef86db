//! A directory of one's own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A fresh directory that unprivileged workers can read; removed at the end.
#[derive(Debug)]
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    /// A new one.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("tidegate").tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("chmod");
        Self(dir)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file below it, with the folders that lead there.
    pub(crate) fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        write(&self.0.path().join(path), contents);
    }

    /// What a file below it says; nothing when it does not exist.
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read(self.0.path().join(path)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

/// Writes a file, with the folders that lead there.
pub(crate) fn write(path: &Path, contents: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
    fs::write(path, contents).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
