//! An answer is written to a file as it comes: one that others can serve (`_store`, `ngx_http_upstream_store`), or one of a
//! cache.

use crate::{
    config::values::TempPath,
    http::{
        files::errno,
        placing::{Log, Placing, place},
        temp_files::{self, NotCreated},
    },
    observe::error_log::Level,
    upstream::cache::Entry,
};
use std::{
    fs::{self, File},
    io::Write,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

/// An answer on its way into a file. Unless it came whole, nothing is left of it.
pub struct Store {
    target: Target,
    /// `Content-Length` of the answer.
    expected: Option<u64>,
    file: File,
    /// The name until then; `None` when it is in its place.
    temporary: Option<PathBuf>,
    length: u64,
    log: Log,
}

/// Where it is to be.
enum Target {
    Place(Vec<u8>, Placing),
    Cache(Box<Entry>),
}

impl Store {
    /// Begins a file in the folder for temporary ones.
    ///
    /// # Errors
    /// [`NotCreated`].
    pub fn create(
        folder: &TempPath,
        to: Vec<u8>,
        placing: Placing,
        expected: Option<u64>,
    ) -> Result<Box<Self>, NotCreated> {
        Ok(Self::new(Target::Place(to, placing), expected, temp_files::create(folder)?))
    }

    /// Begins a file of a cache, which may use that folder, with what stands before the body.
    ///
    /// # Errors
    /// [`NotCreated`].
    pub fn cache(folder: &TempPath, entry: Box<Entry>, start: &[u8]) -> Result<Box<Self>, NotCreated> {
        let made = match entry.beside() {
            Some(place) => temp_files::create_beside(&place)?,
            None => temp_files::create(folder)?,
        };
        let mut store = Self::new(Target::Cache(entry), None, made);
        store.write(start);
        Ok(store)
    }

    fn new(target: Target, expected: Option<u64>, (file, temporary): (File, PathBuf)) -> Box<Self> {
        Box::new(Self { target, expected, file, temporary: Some(temporary), length: 0, log: Log::default() })
    }

    /// Keeps a piece of the body.
    pub(super) fn write(&mut self, piece: &[u8]) {
        self.length += piece.len() as u64;
        let Some(path) = &self.temporary else { return };
        if let Err(error) = self.file.write_all(piece) {
            let text = format!("write() \"{}\" failed ({}) while reading upstream", path.display(), errno(&error));
            self.log.0.push((Level::Crit, text));
            self.remove();
        }
    }

    /// The body has ended as it should: puts the file in its place if all of it is there.
    pub(super) fn finish(&mut self) {
        if self.expected.is_some_and(|expected| expected != self.length) {
            return;
        }
        let Some(path) = &self.temporary else { return };
        match &mut self.target {
            Target::Place(to, placing) => {
                if place(&mut self.log, path.as_os_str().as_bytes(), to, placing).is_ok() {
                    self.temporary = None;
                }
            }
            Target::Cache(entry) => {
                entry.store(path, &self.file, &mut self.log);
                self.temporary = None;
            }
        }
    }

    /// Takes what there is to log.
    pub(super) fn notes(&mut self) -> Vec<(Level, String)> {
        std::mem::take(&mut self.log.0)
    }

    fn remove(&mut self) {
        if let Some(path) = self.temporary.take()
            && let Err(error) = fs::remove_file(&path)
        {
            self.log.0.push((Level::Crit, format!("unlink() \"{}\" failed ({})", path.display(), errno(&error))));
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn an_answer_is_in_its_place_once_it_is_whole_and_nowhere_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let temp = TempPath { path: folder.path().join("temp"), levels: vec![], built_in: false };
        for (expected, kept) in [(None, true), (Some(11), true), (Some(12), false)] {
            let to = folder.path().join(format!("deep/er/{expected:?}"));
            let placing = Placing { access: 0o640, folders: Some(0o750), modified: Some(1_000_000) };
            let mut store = Store::create(&temp, to.as_os_str().as_bytes().to_vec(), placing, expected).unwrap();
            store.write(b"hello");
            store.write(b" world");
            assert!(!to.exists());
            store.finish();
            assert_eq!(to.exists(), kept, "{expected:?}");
            assert_eq!(store.notes(), Vec::new());
            drop(store);
            if kept {
                let facts = fs::metadata(&to).unwrap();
                assert_eq!((facts.permissions().mode() & 0o777, facts.mtime()), (0o640, 1_000_000));
                assert_eq!(fs::read(&to).unwrap(), b"hello world");
            }
        }
        assert_eq!(fs::read_dir(&temp.path).unwrap().count(), 0);
        assert_eq!(fs::metadata(folder.path().join("deep/er")).unwrap().permissions().mode() & 0o777, 0o750);
    }
}
