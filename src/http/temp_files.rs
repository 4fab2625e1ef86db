//! Temporary files: where they are, and how they are named (`ngx_create_temp_file`).

use crate::config::{Kind, Scope, scope::bytes_to_path, values::TempPath};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// A file could not be made; the path it was to have.
#[derive(Debug, thiserror::Error)]
#[error("open() \"{}\" failed ({})", path.display(), super::files::errno(error))]
pub struct NotCreated {
    path: PathBuf,
    #[source]
    error: io::Error,
}

/// The folders that the configuration names.
pub fn chosen(scope: &Scope<'_>) -> Vec<PathBuf> {
    scope.names(Kind::TempFolder).iter().map(|folder| bytes_to_path(&folder.name).to_owned()).collect()
}

/// The folders that are used because nobody has chosen any.
pub fn built_in(scope: &Scope<'_>) -> Vec<PathBuf> {
    scope.names(Kind::BuiltInFolder).iter().map(|folder| bytes_to_path(&folder.name).to_owned()).collect()
}

/// A new file that stays until somebody removes it, and its name.
///
/// # Errors
/// [`NotCreated`]. Where nobody has said which folder it is, any that can be written to will do.
pub fn create(folder: &TempPath) -> Result<(File, PathBuf), NotCreated> {
    match create_in(&folder.path, &folder.levels) {
        Err(_) if folder.built_in => {
            let kept = tempfile::NamedTempFile::new().and_then(|file| file.keep().map_err(|error| error.error));
            kept.map_err(|error| NotCreated { path: std::env::temp_dir(), error })
        }
        made => made,
    }
}

/// A new file beside the place where it is to be.
///
/// # Errors
/// [`NotCreated`].
pub fn create_beside(place: &Path) -> Result<(File, PathBuf), NotCreated> {
    loop {
        let mut path = place.as_os_str().to_owned();
        path.push(format!(".{:010}", next_number()));
        if let Some(made) = create_at(path.into())? {
            return Ok(made);
        }
    }
}

/// A new file that is gone when it is closed, and the name it had for a moment.
///
/// # Errors
/// The same.
pub fn create_unnamed(folder: &TempPath) -> Result<(File, PathBuf), NotCreated> {
    let (file, path) = create(folder)?;
    // If it stays, it is in nobody's way: its name is never used again.
    let _ = fs::remove_file(&path);
    Ok((file, path))
}

/// A new file, named by a number, in folders named by the number's last digits.
fn create_in(folder: &Path, levels: &[usize]) -> Result<(File, PathBuf), NotCreated> {
    loop {
        let name = format!("{:010}", next_number());
        if let Some(made) = create_at(place(folder, levels, &name).join(&name))? {
            return Ok(made);
        }
    }
}

/// A new file, and the folders it is in. `None` if there is one of that name, left by an earlier process.
fn create_at(path: PathBuf) -> Result<Option<(File, PathBuf)>, NotCreated> {
    let mut opened = open(&path);
    if opened.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)
        && let Some(folder) = path.parent()
    {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        opened = made.and_then(|()| open(&path));
    }
    match opened {
        Ok(file) => Ok(Some((file, path))),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(error) => Err(NotCreated { path, error }),
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// A number that no other temporary file of this process has (`ngx_next_temp_number`).
pub fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// The folder of a file in folders that are named by the last characters of its name.
pub fn place(folder: &Path, levels: &[usize], name: &str) -> PathBuf {
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
    fn a_file_that_is_there_is_not_taken_and_an_unnamed_one_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let temp = TempPath { path: folder.path().join("new"), levels: vec![1], built_in: false };
        let (_, first) = create(&temp).unwrap();
        let (_, second) = create(&temp).unwrap();
        let (_, third) = create_unnamed(&temp).unwrap();
        assert_ne!(first, second);
        assert!(first.exists() && second.exists() && !third.exists());
        assert!(third.starts_with(&temp.path));
    }

    #[test]
    fn a_folder_nobody_has_chosen_may_be_missing() {
        let chosen = TempPath { path: "/dev/null/x".into(), levels: vec![], built_in: false };
        let error = create(&chosen).unwrap_err().to_string();
        assert!(error.starts_with("open() \"/dev/null/x/00") && error.ends_with("(20: Not a directory)"), "{error}");
        let built_in = TempPath { built_in: true, ..chosen };
        let (_, path) = create(&built_in).unwrap();
        assert!(path.exists());
        fs::remove_file(path).unwrap();
    }
}
