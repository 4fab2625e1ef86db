//! The socket beside the pid file (`nginx.pid.sock`) on which `-s reload` hears whether the new configuration serves.
//! It is an addition: a master without it is sent the plain signal.

use std::{
    ffi::OsString,
    io::{Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use super::sys;

/// The only request there is.
const RELOAD: &[u8] = b"reload\n";
/// The first line of the answers; console lines follow.
const SERVES: &[u8] = b"serves\n";
const FAILED: &[u8] = b"failed\n";

/// How long the master waits for a request on an accepted connection.
const PATIENCE: Duration = Duration::from_millis(500);

/// The socket that belongs to a pid file.
fn path_beside(pid_file: &Path) -> PathBuf {
    let mut path = OsString::from(pid_file);
    path.push(".sock");
    path.into()
}

/// The master's side.
#[derive(Debug)]
pub(super) struct Office {
    listener: UnixListener,
    path: PathBuf,
}

/// Somebody who waits for the outcome of a reload.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    /// The process that asks, where the system tells.
    pub pid: i32,
}

impl Office {
    /// Opens beside `pid_file`, in place of what an earlier master left there. Not being able to is no fault.
    pub(super) fn open(pid_file: &Path) -> Option<Self> {
        let path = path_beside(pid_file);
        let _ = std::fs::remove_file(&path);
        let listener = with_short_path(&path, |path| UnixListener::bind(path)).ok()?;
        let private = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600));
        if private.is_err() || listener.set_nonblocking(true).is_err() {
            let _ = std::fs::remove_file(&path);
            return None;
        }
        Some(Self { listener, path })
    }

    /// Follows the pid file to another name, as a new binary takes the old one over.
    pub(super) fn follow(&mut self, pid_file: &Path) {
        let path = path_beside(pid_file);
        if std::fs::rename(&self.path, &path).is_ok() {
            self.path = path;
        }
    }

    /// The next one who asks for a reload. Others than root and ourselves are not listened to.
    pub(super) fn next(&self) -> Option<Client> {
        loop {
            let (stream, _) = self.listener.accept().ok()?;
            let Some((pid, user)) = peer(&stream) else { continue };
            let ourselves = rustix::process::geteuid().as_raw();
            if user != 0 && user != ourselves {
                continue;
            }
            let ready = stream.set_nonblocking(false).and(stream.set_read_timeout(Some(PATIENCE)));
            let mut request = [0; RELOAD.len()];
            if ready.is_ok() && (&stream).read_exact(&mut request).is_ok() && request == RELOAD {
                let _ = stream.set_write_timeout(Some(PATIENCE));
                return Some(Client { stream, pid });
            }
        }
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl AsFd for Office {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Client {
    /// Tells the outcome: whether the new configuration serves, and the lines that were logged meanwhile.
    pub(super) fn answer(mut self, serves: bool, lines: &[u8]) {
        let first = if serves { SERVES } else { FAILED };
        // Who does not wait any more needs no answer.
        let _ = self.stream.write_all(&[first, lines].concat());
    }
}

/// The caller's side: asks the master with process id `pid` to reload and waits. `None` when it has no such socket,
/// or another process has it; otherwise whether the new configuration serves, and the master's lines.
pub(super) fn reload(pid_file: &Path, pid: i32) -> Option<(bool, Vec<u8>)> {
    let mut stream = with_short_path(&path_beside(pid_file), |path| UnixStream::connect(path)).ok()?;
    if peer(&stream).is_some_and(|(peer, _)| peer != 0 && peer != pid) {
        return None;
    }
    stream.write_all(RELOAD).ok()?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let outcome = if let Some(lines) = answer.strip_prefix(SERVES) {
        (true, lines.to_vec())
    } else if let Some(lines) = answer.strip_prefix(FAILED) {
        (false, lines.to_vec())
    } else {
        (false, b"nginx: [error] the master process ended before the new configuration served\n".to_vec())
    };
    Some(outcome)
}

/// Process and user of the other side.
fn peer(stream: &UnixStream) -> Option<(i32, u32)> {
    #[cfg(target_os = "linux")]
    {
        let peer = rustix::net::sockopt::socket_peercred(stream).ok()?;
        Some((peer.pid.as_raw_nonzero().get(), peer.uid.as_raw()))
    }
    #[cfg(not(target_os = "linux"))]
    {
        // The socket's mode keeps others out; the process is not told.
        let _ = stream;
        Some((0, rustix::process::geteuid().as_raw()))
    }
}

/// Socket addresses hold about 100 bytes. A longer path is reached through its folder's descriptor.
fn with_short_path<T>(path: &Path, call: impl Fn(&Path) -> std::io::Result<T>) -> std::io::Result<T> {
    if path.as_os_str().len() < 100 {
        return call(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return call(path) };
    let folder = std::fs::File::open(folder)?;
    call(&Path::new("/proc/self/fd").join(sys::number(&folder).to_string()).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_hears_its_outcome_whatever_the_length_of_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        for pid_file in [folder.path().join("nginx.pid"), deep.join("nginx.pid")] {
            assert_eq!(reload(&pid_file, own), None);
            let office = Office::open(&pid_file).unwrap();
            let asked = {
                let pid_file = pid_file.clone();
                std::thread::spawn(move || reload(&pid_file, own))
            };
            sys::wait_readable(&[office.as_fd()], None);
            office.next().unwrap().answer(false, b"why\n");
            assert_eq!(asked.join().unwrap(), Some((false, b"why\n".to_vec())));
            assert_eq!(reload(&pid_file, own + 1), None);
            drop(office);
            assert_eq!(reload(&pid_file, own), None);
        }
    }

    #[test]
    fn the_socket_follows_the_pid_file() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("nginx.pid");
        let mut office = Office::open(&pid_file).unwrap();
        office.follow(&super::super::pid::old(&pid_file));
        assert!(folder.path().join("nginx.pid.oldbin.sock").exists());
        let _new = Office::open(&pid_file).unwrap();
        drop(office);
        assert!(folder.path().join("nginx.pid.sock").exists());
        assert!(!folder.path().join("nginx.pid.oldbin.sock").exists());
    }
}
