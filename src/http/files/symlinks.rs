//! Opening a path one name at a time, so that no symbolic link is followed that may not be
//! (`ngx_open_file_wrapper` with `disable_symlinks`).

use super::Failed;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, statat},
    io::Errno,
};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Which links may be followed, and from which byte of the path on that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    pub links: Links,
    /// The part of the path that is not looked at.
    pub trusted: usize,
}

/// The symbolic links that may be followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Links {
    #[default]
    All,
    /// Those that belong to the owner of what they lead to.
    SameOwner,
    None,
}

impl Allowed {
    /// Whether anything is forbidden.
    pub fn any(self) -> bool {
        self.links != Links::All
    }
}

/// What a path is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be read; never blocks on a pipe.
    Read,
    /// A log, which is made if it is not there.
    Append,
}

/// A folder on the way, of which nothing is read.
const SEARCH: OFlags = NO_READ.union(OFlags::DIRECTORY).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

#[cfg(target_os = "linux")]
const NO_READ: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const NO_READ: OFlags = OFlags::RDONLY;

/// Opens a path.
///
/// # Errors
/// What the system says; `ELOOP` for a link that may not be followed.
pub fn open(path: &[u8], allowed: Allowed, purpose: Purpose) -> Result<File, Failed> {
    if path.contains(&0) {
        return Err(Failed { call: "openat()", error: io::ErrorKind::NotFound.into() });
    }
    let failed = |call: &'static str| move |errno: Errno| Failed { call, error: errno.into() };
    let (start, rest): (Option<OwnedFd>, &[u8]) = match (allowed.trusted, path.first()) {
        (0, Some(b'/')) => (Some(openat(CWD, "/", SEARCH, Mode::empty()).map_err(failed("openat()"))?), &path[1..]),
        (0, _) => (None, path),
        (at, _) => {
            let folder = openat(CWD, &path[..at], SEARCH, Mode::empty()).map_err(failed("open()"))?;
            (Some(folder), &path[at + 1..])
        }
    };
    walk(start, rest, allowed.links, purpose).map(File::from).map_err(failed("openat()"))
}

fn walk(start: Option<OwnedFd>, path: &[u8], links: Links, purpose: Purpose) -> Result<OwnedFd, Errno> {
    let mut folder = start;
    let mut rest = path;
    while let Some(at) = memchr::memchr(b'/', rest) {
        let name = &rest[..at];
        rest = &rest[at + 1..];
        if !name.is_empty() {
            folder = Some(step(at_fd(folder.as_ref()), name, SEARCH, links)?);
        }
    }
    let (flags, mode) = match purpose {
        Purpose::Read => (OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()),
        Purpose::Append => (OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE, Mode::from_raw_mode(0o644)),
    };
    let flags = flags | OFlags::CLOEXEC;
    match (rest, purpose) {
        ([], _) => openat(at_fd(folder.as_ref()), ".", flags, mode),
        (name, Purpose::Read) => step(at_fd(folder.as_ref()), name, flags, links),
        // Who made a file that was not there is no question.
        (name, Purpose::Append) => openat(at_fd(folder.as_ref()), name, flags | OFlags::NOFOLLOW, mode),
    }
}

fn at_fd(folder: Option<&OwnedFd>) -> BorrowedFd<'_> {
    folder.map_or(CWD, |folder| folder.as_fd())
}

/// Opens one name in a folder.
fn step(folder: BorrowedFd<'_>, name: &[u8], flags: OFlags, links: Links) -> Result<OwnedFd, Errno> {
    if links != Links::SameOwner {
        return openat(folder, name, flags | OFlags::NOFOLLOW, Mode::empty());
    }
    // Between the two calls the name may have changed its meaning, so the owners are compared whatever it is.
    let opened = openat(folder, name, flags, Mode::empty())?;
    let named = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match fstat(&opened)?.st_uid == named.st_uid {
        true => Ok(opened),
        false => Err(Errno::LOOP),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        os::unix::{ffi::OsStrExt, fs::symlink},
        path::Path,
    };

    fn text(path: &Path, links: Links, trusted: usize) -> Result<String, i32> {
        let allowed = Allowed { links, trusted };
        let file = open(path.as_os_str().as_bytes(), allowed, Purpose::Read);
        let mut file = file.map_err(|failed| failed.error.raw_os_error().unwrap_or(0))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|error| error.raw_os_error().unwrap_or(0))?;
        Ok(text)
    }

    #[test]
    fn links_are_followed_only_below_what_is_trusted() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().canonicalize().unwrap();
        std::fs::create_dir(folder.join("real")).unwrap();
        std::fs::write(folder.join("real/file"), "text").unwrap();
        symlink("real", folder.join("linked")).unwrap();
        symlink("real/file", folder.join("link")).unwrap();
        let trusted = folder.join("linked").as_os_str().len();
        let here = folder.as_os_str().len();
        for (name, links, trusted, expected) in [
            ("real/file", Links::None, 0, Ok("text")),
            ("real//file", Links::None, 0, Ok("text")),
            ("link", Links::None, 0, Err(libc::ELOOP)),
            ("link", Links::None, here, Err(libc::ELOOP)),
            ("link", Links::SameOwner, 0, Ok("text")),
            ("linked/file", Links::None, here, Err(libc::ENOTDIR)),
            ("linked/file", Links::SameOwner, here, Ok("text")),
            ("linked/file", Links::None, trusted, Ok("text")),
            ("none", Links::None, 0, Err(libc::ENOENT)),
            ("real/file/", Links::None, 0, Err(libc::ENOTDIR)),
            ("real/", Links::None, 0, Err(libc::EISDIR)),
        ] {
            let found = text(&folder.join(name), links, trusted);
            assert_eq!(found.as_deref().map_err(|code| *code), expected, "{name} {links:?} {trusted}");
        }
    }

    #[test]
    fn a_log_is_made_and_no_link_is_taken_for_one() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().canonicalize().unwrap();
        symlink("elsewhere", folder.join("link")).unwrap();
        let append = |name: &str| {
            let path = folder.join(name);
            let allowed = Allowed { links: Links::SameOwner, trusted: 0 };
            open(path.as_os_str().as_bytes(), allowed, Purpose::Append)
        };
        append("log").unwrap().write_all(b"a").unwrap();
        append("log").unwrap().write_all(b"b").unwrap();
        assert_eq!(std::fs::read(folder.join("log")).unwrap(), b"ab");
        assert_eq!(append("link").unwrap_err().error.raw_os_error(), Some(libc::ELOOP));
    }
}
