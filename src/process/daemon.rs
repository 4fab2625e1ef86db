//! `daemon on`: leaving the terminal. The first process stays until the server serves, and its exit code says whether.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd},
    process::ExitCode,
};

use super::{
    errno::Errno,
    log::{Level, Log},
    sys::{self, Forked},
};

/// In the daemon: the first process waits at the other end. Dropped unanswered, it exits with 1.
#[derive(Debug, Default)]
pub(super) struct Waiting(Option<File>);

impl Waiting {
    /// Nobody waits: `daemon off`.
    pub(super) fn nobody() -> Self {
        Self(None)
    }

    /// Lets the first process go with code 0.
    pub(super) fn release(&mut self) {
        if let Some(mut pipe) = self.0.take() {
            let _ = pipe.write_all(&[0]);
        }
    }
}

/// Becomes a daemon (`ngx_daemon`): a new session, no file mode mask, standard input and output on `/dev/null`,
/// standard error as it was. Returns in the daemon only. Must be called while the process has one thread.
pub(super) fn detach(log: &Log) -> Result<Waiting, ExitCode> {
    let failed = |call: &str, errno: Errno| {
        log.write(Level::Emerg, format!("{call} failed ({errno})"));
        ExitCode::FAILURE
    };
    let (read, write) = rustix::pipe::pipe().map_err(|error| failed("pipe()", error.into()))?;
    for end in [&read, &write] {
        sys::set_close_on_exec(end.as_raw_fd(), true).map_err(|errno| failed("fcntl()", errno))?;
    }
    match sys::fork().map_err(|errno| failed("fork()", errno))? {
        Forked::Parent(_) => {
            drop(write);
            let mut code = [1];
            // No byte means that the daemon ended before it served; it has said why.
            let _ = File::from(read).read_exact(&mut code);
            sys::exit_now(code[0].into())
        }
        Forked::Child => {
            drop(read);
            sys::new_session().map_err(|errno| failed("setsid()", errno))?;
            let null = OpenOptions::new().read(true).write(true).open("/dev/null");
            let null = null.map_err(|error| failed("open(\"/dev/null\")", error.into()))?;
            for (number, name) in [(0, "dup2(STDIN)"), (1, "dup2(STDOUT)")] {
                sys::duplicate_onto(null.as_fd(), number).map_err(|errno| failed(name, errno))?;
            }
            Ok(Waiting(Some(write.into())))
        }
    }
}
