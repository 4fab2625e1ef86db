//! The system calls that have no safe wrapper among our libraries, each behind one small safe function.
//! Nothing here decides anything; with `resolve.rs` and `user.rs` this is where `unsafe` lives.
#![allow(unsafe_code, reason = "system calls without a safe form; every block says why it is sound")]

use std::{
    ffi::{CStr, CString, OsString},
    io, mem,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::ffi::OsStringExt,
    },
    path::Path,
    time::Duration,
};

use super::errno::Errno;

/// The number of standard error.
pub(super) const STDERR: RawFd = libc::STDERR_FILENO;

/// Which of the two processes [`fork`] returned in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forked {
    Parent(libc::pid_t),
    Child,
}

/// A clock time in the local zone.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalTime {
    pub year: i32,
    pub month: i32,
    pub day: i32,
    pub hour: i32,
    pub minute: i32,
    pub second: i32,
    /// Seconds east of Greenwich.
    pub offset: i64,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Code(i32),
    Signal { number: i32, core: bool },
}

fn check(result: libc::c_int) -> Result<libc::c_int, Errno> {
    if result == -1 { Err(Errno::last()) } else { Ok(result) }
}

/// `fork()`. Must be called while this process has one thread, as `daemon on` does.
pub(super) fn fork() -> Result<Forked, Errno> {
    // SAFETY: the process has a single thread, so no lock can be held by a thread that the child lacks.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// `setsid()` and `umask(0)`: away from the terminal, as `ngx_daemon` does.
pub(super) fn new_session() -> Result<(), Errno> {
    // SAFETY: neither call touches memory.
    unsafe {
        check(libc::setsid())?;
        libc::umask(0);
    }
    Ok(())
}

/// Ends this process without running anything more; for the first process of `daemon on`.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` does not return and needs nothing.
    unsafe { libc::_exit(code) }
}

/// Makes descriptor number `to` another name of `from` (`dup2`). Standard descriptors stay open over `exec`.
pub(super) fn duplicate_onto(from: BorrowedFd<'_>, to: RawFd) -> Result<(), Errno> {
    // SAFETY: both are numbers to the kernel; `to` is one of the standard three or owned by the caller.
    check(unsafe { libc::dup2(from.as_raw_fd(), to) }).map(drop)
}

/// Replaces what `to` refers to, keeping its number and closing it on `exec`. Atomic: who writes to `to`
/// meanwhile reaches either the old file or the new one.
pub(super) fn replace(from: &OwnedFd, to: BorrowedFd<'_>) -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    // SAFETY: numbers to the kernel; `to` stays owned by whom it belongs to.
    return check(unsafe { libc::dup3(from.as_raw_fd(), to.as_raw_fd(), libc::O_CLOEXEC) }).map(drop);
    #[cfg(not(target_os = "linux"))]
    {
        duplicate_onto(from.as_fd(), to.as_raw_fd())?;
        set_close_on_exec(to.as_raw_fd(), true)
    }
}

/// Says whether a descriptor closes on `exec`. Async-signal-safe: also called between `fork` and `exec`.
pub(super) fn set_close_on_exec(fd: RawFd, close: bool) -> Result<(), Errno> {
    // SAFETY: `F_SETFD` takes an integer and touches no memory.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, if close { libc::FD_CLOEXEC } else { 0 }) }).map(drop)
}

/// Takes over a descriptor that was inherited over `exec`, if that number is open.
pub(super) fn adopt(fd: RawFd) -> Result<OwnedFd, Errno> {
    use std::os::fd::FromRawFd;
    set_close_on_exec(fd, true)?;
    // SAFETY: it is open (just checked), and the one who executed us left it to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The number of a descriptor, for paths and for lists that travel in the environment.
pub(super) fn number(descriptor: &impl AsFd) -> RawFd {
    descriptor.as_fd().as_raw_fd()
}

/// `kill()`.
pub(super) fn kill(pid: libc::pid_t, signal: i32) -> Result<(), Errno> {
    // SAFETY: touches no memory.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// The parent's process id; 0 when it is outside our pid namespace.
pub(super) fn parent_id() -> libc::pid_t {
    // SAFETY: cannot fail.
    unsafe { libc::getppid() }
}

/// The next child that ended, ours or adopted (as process 1); `None` when there is none for now.
pub(super) fn reap() -> Option<(libc::pid_t, Ended)> {
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        match check(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }) {
            Err(Errno(libc::EINTR)) => {}
            Err(_) | Ok(0) => return None,
            Ok(pid) if libc::WIFSIGNALED(status) => {
                let ended = Ended::Signal { number: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) };
                return Some((pid, ended));
            }
            Ok(pid) => return Some((pid, Ended::Code(libc::WEXITSTATUS(status)))),
        }
    }
}

/// Whether this process runs as root (`geteuid() == 0`).
pub(super) fn is_superuser() -> bool {
    // SAFETY: cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// The processors that are on line (`ngx_ncpu`).
pub(super) fn processors() -> usize {
    // SAFETY: touches no memory.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }).unwrap_or(1).max(1)
}

/// The host's name in lower case, as `$hostname` shows it.
pub(super) fn host_name() -> Vec<u8> {
    let mut name = vec![0u8; 256];
    // SAFETY: the buffer is as long as said.
    if unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) } == -1 {
        return Vec::new();
    }
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    name.truncate(end);
    name.to_ascii_lowercase()
}

/// The kernel's name and release, as nginx notes them at start.
pub(super) fn kernel() -> String {
    // SAFETY: an all-zero `utsname` is valid, and `uname` fills it with terminated strings.
    unsafe {
        let mut name: libc::utsname = mem::zeroed();
        if libc::uname(&raw mut name) == -1 {
            return String::new();
        }
        let text = |field: *const libc::c_char| CStr::from_ptr(field).to_string_lossy().into_owned();
        format!("{} {}", text(name.sysname.as_ptr()), text(name.release.as_ptr()))
    }
}

/// Now, in the zone of `TZ`.
pub(super) fn local_time(at: std::time::SystemTime) -> LocalTime {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let now = libc::time_t::try_from(since.as_secs()).unwrap_or(libc::time_t::MAX);
    // SAFETY: `tm` is plain data that `localtime_r` fills; both pointers outlive the calls.
    let tm = unsafe {
        let mut tm: libc::tm = mem::zeroed();
        libc::localtime_r(&raw const now, &raw mut tm);
        tm
    };
    LocalTime {
        year: tm.tm_year + 1900,
        month: tm.tm_mon + 1,
        day: tm.tm_mday,
        hour: tm.tm_hour,
        minute: tm.tm_min,
        second: tm.tm_sec,
        offset: tm.tm_gmtoff,
    }
}

/// The number nginx prints behind `#`: the kernel's name of this thread.
pub(super) fn thread_id() -> u64 {
    #[cfg(target_os = "linux")]
    // SAFETY: cannot fail.
    return unsafe { libc::gettid() }.unsigned_abs().into();
    #[cfg(not(target_os = "linux"))]
    {
        let mut id = 0;
        // SAFETY: `id` outlives the call; 0 means this thread.
        unsafe { libc::pthread_threadid_np(0, &raw mut id) };
        id
    }
}

/// The name of this process in `ps -C` and `pidof`; empty where the system has none.
pub(super) fn process_name() -> Vec<u8> {
    #[cfg(target_os = "linux")]
    {
        let mut name = [0u8; 16];
        // SAFETY: `PR_GET_NAME` writes at most 16 bytes.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        name.iter().copied().take_while(|&byte| byte != 0).collect()
    }
    #[cfg(not(target_os = "linux"))]
    Vec::new()
}

/// Sets [`process_name`]: a worker started through `/proc/self/exe` would be called `exe`.
pub(super) fn set_process_name(name: &[u8]) {
    #[cfg(target_os = "linux")]
    if let Ok(name) = CString::new(name) {
        // SAFETY: a terminated string; the kernel copies at most 16 bytes.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}

/// Waits until one of `fds` can be read or is closed, or `timeout` is over; says which.
/// A signal ends the wait with none.
pub(super) fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Vec<bool> {
    let mut polled: Vec<libc::pollfd> =
        fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    // Rounded up, or the last millisecond would be spent spinning.
    let timeout = timeout.map_or(-1, |left| i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
    // SAFETY: the array lives through the call and its length is its own.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) };
    polled.iter().map(|fd| ready > 0 && fd.revents != 0).collect()
}

/// A pipe that closes on `exec` and never blocks either side.
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    #[cfg(target_os = "linux")]
    {
        use rustix::pipe::{PipeFlags, pipe_with};
        Ok(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let (read, write) = rustix::pipe::pipe()?;
        for end in [&read, &write] {
            set_close_on_exec(end.as_raw_fd(), true)?;
            rustix::io::ioctl_fionbio(end, true)?;
        }
        Ok((read, write))
    }
}

/// An integer option of a socket.
pub(super) fn set_socket_option(socket: &OwnedFd, level: i32, name: i32, value: i32) -> Result<(), Errno> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the pointer and the length describe `value`.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), length) }).map(drop)
}

/// The files a pattern stands for, as `glob(3)` finds and sorts them; none is not an error.
pub(super) fn glob(pattern: &Path) -> Result<Vec<OsString>, Errno> {
    let pattern = CString::new(pattern.as_os_str().as_encoded_bytes()).map_err(|_| Errno(libc::EINVAL))?;
    // SAFETY: a zeroed `glob_t` is what `glob` expects; the paths it returns are terminated strings that live
    // until `globfree`, and are copied before.
    unsafe {
        let mut found: libc::glob_t = mem::zeroed();
        let outcome = libc::glob(pattern.as_ptr(), 0, None, &raw mut found);
        let errno = Errno::last();
        let names = (0..found.gl_pathc as usize)
            .take_while(|_| outcome == 0)
            .map(|index| OsString::from_vec(CStr::from_ptr(*found.gl_pathv.add(index)).to_bytes().to_vec()))
            .collect();
        libc::globfree(&raw mut found);
        match outcome {
            0 | libc::GLOB_NOMATCH => Ok(names),
            libc::GLOB_NOSPACE => Err(Errno(libc::ENOMEM)),
            _ => Err(errno),
        }
    }
}

/// Runs `command` with `keep` left open over `exec`.
pub(super) fn spawn(command: &mut std::process::Command, keep: Vec<RawFd>) -> io::Result<libc::pid_t> {
    use std::os::unix::process::CommandExt;
    let clear = move || {
        for &fd in &keep {
            set_close_on_exec(fd, false).map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        }
        Ok(())
    };
    // SAFETY: the closure only calls `fcntl` on numbers, which is async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(clear) };
    Ok(command.spawn()?.id().cast_signed())
}

/// Writes `text` over the memory that `ps` shows as the command line, when the system says where that is.
#[cfg(target_os = "linux")]
pub(super) fn write_over(start: usize, room: usize, text: &[u8]) {
    if start == 0 || room == 0 {
        return;
    }
    let length = text.len().min(room - 1);
    // SAFETY: the caller passes the bounds of this process's own argument and environment strings as the kernel
    // names them; they are writable, nobody keeps pointers into them (`title::prepare` moved the environment
    // away), and only one thread exists or calls this.
    unsafe {
        let memory = std::ptr::with_exposed_provenance_mut::<u8>(start);
        std::ptr::copy_nonoverlapping(text.as_ptr(), memory, length);
        std::ptr::write_bytes(memory.add(length), 0, room - length);
    }
}

/// Copies every variable of the environment to the heap, so that its first place can be written over.
#[cfg(target_os = "linux")]
pub(super) fn move_environment() {
    for (name, value) in std::env::vars_os() {
        // SAFETY: called at the start of the process, while it has one thread.
        unsafe { std::env::set_var(name, value) };
    }
}

/// Makes `variables` the whole environment (`ngx_set_environment`).
pub(super) fn set_environment(variables: &[(OsString, OsString)]) {
    // SAFETY: called before this process starts its second thread.
    unsafe {
        for (name, _) in std::env::vars_os() {
            std::env::remove_var(name);
        }
        for (name, value) in variables {
            std::env::set_var(name, value);
        }
    }
}
