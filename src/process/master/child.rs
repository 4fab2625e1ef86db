//! A worker as the master sees it: a process or a thread, and the channel to it.

use std::{
    os::{fd::BorrowedFd, unix::process::CommandExt},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Cycle, Master};
use crate::process::{
    channel::{Channel, Kind},
    errno::Errno,
    log::{Level, Log},
    program::Program,
    sys, worker,
};

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was sent its first bundle and has not answered.
    Starting,
    Serving,
    /// It was told to end, or is of no use.
    Leaving,
}

/// A worker.
#[derive(Debug)]
pub(super) struct Worker {
    /// Names it for as long as the master lives; process ids come back.
    pub id: u64,
    /// `None` for the one inside the master's process.
    pub pid: Option<i32>,
    /// Until the worker closes it.
    pub channel: Option<Channel>,
    pub standing: Standing,
}

impl Worker {
    fn new(pid: Option<i32>, channel: Channel) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let id = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { id, pid, channel: Some(channel), standing: Standing::Starting }
    }

    /// Whether it is a thread of this process.
    pub(super) fn is_inside(&self) -> bool {
        self.pid.is_none()
    }

    /// Sends it a message; false when that did not work, which is logged.
    pub(super) fn send(&self, kind: Kind, body: &[u8], descriptors: &[BorrowedFd<'_>], log: &Log) -> bool {
        let Some(channel) = &self.channel else { return false };
        match channel.send(kind, body, descriptors) {
            Ok(()) => true,
            Err(error) => {
                let errno = Errno::from(error);
                log.write(Level::Alert, format!("sendmsg() to a worker process failed ({errno})"));
                false
            }
        }
    }

    /// Sends it a signal, if it is a process.
    pub(super) fn kill(&self, signal: i32, log: &Log) {
        if let Some(pid) = self.pid
            && let Err(errno) = sys::kill(pid, signal)
        {
            log.write(Level::Alert, format!("kill({pid}, {signal}) failed ({errno})"));
        }
    }

    /// Tells it to finish what is under way and end.
    pub(super) fn dismiss(&mut self, log: &Log) {
        if self.standing != Standing::Leaving {
            self.standing = Standing::Leaving;
            if !self.send(Kind::Quit, b"", &[], log) {
                self.kill(libc::SIGQUIT, log);
            }
        }
    }
}

impl<P: Program> Master<P> {
    /// Starts a worker and sends it `cycle`; `None` when that failed, which is logged.
    pub(super) fn spawn(&self, cycle: &Cycle) -> Option<Worker> {
        let log = &self.birth.log;
        let (ours, theirs) = Channel::pair()
            .inspect_err(|error| {
                let errno = error.raw_os_error().map_or(Errno(libc::EIO), Errno);
                log.write(Level::Alert, format!("socketpair() failed while spawning \"worker process\" ({errno})"));
            })
            .ok()?;
        let worker = if cycle.needs.master_process {
            let pid = start_process(cycle, &theirs)
                .inspect_err(|errno| {
                    log.write(Level::Alert, format!("fork() failed while spawning \"worker process\" ({errno})"));
                })
                .ok()?;
            log.write(Level::Notice, format!("start worker process {pid}"));
            Worker::new(Some(pid), ours)
        } else {
            let program = self.program.clone();
            let inside = std::thread::Builder::new().name("worker".into());
            inside
                .spawn(move || worker::run_inside(program, &theirs))
                .inspect_err(|error| log.write(Level::Alert, format!("could not start a thread: {error}")))
                .ok()?;
            Worker::new(None, ours)
        };
        let (body, descriptors) = cycle.message();
        if !worker.send(Kind::Serve, &body, &descriptors, log) {
            // What it got is incomplete. Its death is noticed and it is replaced.
            worker.kill(libc::SIGKILL, log);
        }
        Some(worker)
    }
}

/// Executes this same binary again as a worker: never a fork that goes on, because the program has threads there.
fn start_process(cycle: &Cycle, channel: &Channel) -> Result<i32, Errno> {
    let number = sys::number(channel);
    let mut command = Command::new(own_binary(cycle));
    command
        .arg0("nginx: worker process")
        .env_clear()
        .envs(cycle.needs.identity.environment())
        .env(worker::VARIABLE, number.to_string());
    Ok(sys::spawn(&mut command, vec![number])?)
}

/// The running binary, even when the file has been replaced since; without `/proc`, the file it was started from.
fn own_binary(cycle: &Cycle) -> PathBuf {
    let running = PathBuf::from("/proc/self/exe");
    if running.exists() {
        return running;
    }
    let typed = || cycle.bundle.invocation.arguments.first().map(PathBuf::from).unwrap_or_default();
    std::env::current_exe().unwrap_or_else(|_| typed())
}
