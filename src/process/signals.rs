//! Signals as events: a handler writes them into a pipe, and the loops of master and worker read them there.
#![allow(unsafe_code, reason = "installing a handler, and the few calls that are allowed inside one")]

use std::{
    io::Read,
    mem,
    os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd},
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, Ordering},
    },
};

use super::{errno::Errno, sys};

/// The signals nginx handles; of the rest, `SIGPIPE` is ignored (Rust does that) and others keep their defaults.
const HANDLED: [i32; 8] = [
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGWINCH,
    libc::SIGTERM,
    libc::SIGQUIT,
    libc::SIGUSR2,
    libc::SIGINT,
    libc::SIGCHLD,
];

/// The writing end, for the handler.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// A signal, and who sent it; 0 when that was the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signal {
    pub number: i32,
    pub sender: i32,
}

impl Signal {
    /// As nginx notes it: `signal 1 (SIGHUP) received from 4711, reconfiguring`.
    pub(super) fn describe(self, action: &str) -> String {
        let name = match self.number {
            libc::SIGHUP => "SIGHUP",
            libc::SIGUSR1 => "SIGUSR1",
            libc::SIGWINCH => "SIGWINCH",
            libc::SIGTERM => "SIGTERM",
            libc::SIGQUIT => "SIGQUIT",
            libc::SIGUSR2 => "SIGUSR2",
            libc::SIGINT => "SIGINT",
            libc::SIGCHLD => "SIGCHLD",
            _ => "unknown",
        };
        let from = if self.sender == 0 { String::new() } else { format!(" from {}", self.sender) };
        format!("signal {} ({name}) received{from}{action}", self.number)
    }
}

/// The reading end of the pipe.
#[derive(Debug)]
pub(super) struct Signals(std::fs::File);

impl Signals {
    /// Installs the handlers for this process, once, and after any `fork`: the pipe must not be shared.
    pub(super) fn install() -> Result<Self, Errno> {
        let (read, write) = sys::pipe()?;
        let previous = PIPE.swap(write.into_raw_fd(), Ordering::SeqCst);
        debug_assert_eq!(previous, -1, "handlers are installed once");
        for number in HANDLED {
            // SAFETY: an all-zero `sigaction` is valid; `handle` has the signature SA_SIGINFO asks for and calls
            // only what is async-signal-safe.
            unsafe {
                let mut action: libc::sigaction = mem::zeroed();
                let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = handle;
                action.sa_sigaction = handler as libc::sighandler_t;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
                libc::sigemptyset(&raw mut action.sa_mask);
                if libc::sigaction(number, &raw const action, ptr::null_mut()) == -1 {
                    return Err(Errno::last());
                }
            }
        }
        unblock();
        Ok(Self(read.into()))
    }

    /// The signals that came since the last time.
    pub(super) fn take(&self) -> Vec<Signal> {
        let mut signals = Vec::new();
        let mut record = [0; 8];
        // A record is written with one call and is far below the size the kernel keeps in one piece.
        while matches!((&self.0).read(&mut record), Ok(8)) {
            let [a, b, c, d, e, f, g, h] = record;
            signals.push(Signal { number: i32::from_ne_bytes([a, b, c, d]), sender: i32::from_ne_bytes([e, f, g, h]) });
        }
        signals
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whoever started us may have left signals blocked.
fn unblock() {
    // SAFETY: an empty set on the stack.
    unsafe {
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

extern "C" fn handle(number: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t`; `write` is async-signal-safe and the pipe never blocks. errno
    // belongs to the code that was interrupted, so it is put back.
    unsafe {
        let errno = errno_place();
        let saved = *errno;
        let sender = info.as_ref().map_or(0, |info| info.si_pid());
        let mut record = [0; 8];
        record[..4].copy_from_slice(&number.to_ne_bytes());
        record[4..].copy_from_slice(&sender.to_ne_bytes());
        libc::write(PIPE.load(Ordering::SeqCst), record.as_ptr().cast(), record.len());
        *errno = saved;
    }
}

unsafe fn errno_place() -> *mut i32 {
    #[cfg(target_os = "linux")]
    // SAFETY: always valid.
    return unsafe { libc::__errno_location() };
    #[cfg(target_os = "macos")]
    // SAFETY: always valid.
    return unsafe { libc::__error() };
}

/// A pipe that wakes a loop: threads write a byte when they are done.
#[derive(Debug)]
pub(super) struct Waker {
    read: std::fs::File,
    write: OwnedFd,
}

impl Waker {
    /// A new one.
    pub(super) fn new() -> Result<Self, Errno> {
        let (read, write) = sys::pipe()?;
        Ok(Self { read: read.into(), write })
    }

    /// The end to wake it with, and the flag that says that it has.
    pub(crate) fn handle(&self) -> Result<(WakeHandle, Arc<AtomicBool>), Errno> {
        let woken = Arc::new(AtomicBool::new(false));
        Ok((WakeHandle { pipe: self.write.try_clone()?.into(), woken: woken.clone() }, woken))
    }

    /// Wakes the loop.
    pub(super) fn wake(&self) {
        // A full pipe is awake already.
        let _ = rustix::io::write(&self.write, &[1]);
    }

    /// Forgets what woke us.
    pub(super) fn clear(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.read).read(&mut bytes), Ok(count) if count > 0) {}
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

/// Wakes its [`Waker`] when dropped: also when the thread that holds it panics.
#[derive(Debug)]
pub(crate) struct WakeHandle {
    pipe: std::fs::File,
    woken: Arc<AtomicBool>,
}

impl Drop for WakeHandle {
    fn drop(&mut self) {
        use std::io::Write;
        self.woken.store(true, Ordering::SeqCst);
        // A full pipe is awake already.
        let _ = (&self.pipe).write(&[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_reads_as_in_nginx() {
        let signal = Signal { number: libc::SIGHUP, sender: 4711 };
        assert_eq!(signal.describe(", reconfiguring"), "signal 1 (SIGHUP) received from 4711, reconfiguring");
        assert_eq!(Signal { number: libc::SIGINT, sender: 0 }.describe(""), "signal 2 (SIGINT) received");
    }

    #[test]
    fn dropping_a_handle_wakes() {
        let waker = Waker::new().unwrap();
        let (handle, woken) = waker.handle().unwrap();
        assert!(!woken.load(Ordering::SeqCst));
        drop(handle);
        assert!(woken.load(Ordering::SeqCst));
        assert_eq!(sys::wait_readable(&[waker.as_fd()], None), [true]);
        waker.clear();
        assert_eq!(sys::wait_readable(&[waker.as_fd()], Some(std::time::Duration::ZERO)), [false]);
    }
}
