//! The program under test as a daemon in a directory of its own: started by a command that returns, found by its pid
//! file, told what to do by `-s` and by signals.

use super::program::{Ran, run, send, show};
use super::scratch::Scratch;
use super::server::{self, temp_paths};
use super::{binary, measure, wait};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory with `nginx.conf`, and the daemons started from it: they end with this value.
pub(crate) struct Daemon {
    dir: Scratch,
    binary: PathBuf,
}

impl Daemon {
    /// A directory with this whole file, and nothing running.
    pub(crate) fn idle(conf: &str) -> Self {
        let daemon = Self { dir: Scratch::new(), binary: binary() };
        daemon.configure(conf);
        daemon
    }

    /// The same with a daemon that serves.
    #[track_caller]
    pub(crate) fn start(conf: &str) -> Self {
        let daemon = Self::idle(conf);
        daemon.launch();
        daemon
    }

    /// Starts it by another file than the binary itself: one that a test may put another program in place of.
    pub(crate) fn by(mut self, binary: PathBuf) -> Self {
        self.binary = binary;
        self
    }

    /// Writes the whole file anew.
    pub(crate) fn configure(&self, conf: &str) {
        self.dir.write("nginx.conf", conf);
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Scratch {
        &self.dir
    }

    /// A file in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The file it is started from.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// `nginx -p DIR/ -c DIR/nginx.conf -e DIR/error.log ARGUMENTS`.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        server::command(&self.binary, self.dir.path(), arguments)
    }

    /// Runs that to its end.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Ran {
        run(self.command(arguments))
    }

    /// Starts it as a daemon; it serves when this returns, and that is its master.
    ///
    /// # Panics
    /// Unless the command succeeds in silence.
    #[track_caller]
    pub(crate) fn launch(&self) -> i32 {
        self.cli(&[]).silently();
        if super::replaced() {
            // nginx's command returns a moment before the daemon writes its pid.
            wait::until("there is a pid file", wait::SOON, || self.pid_in("nginx.pid").is_some());
        }
        self.master()
    }

    /// `nginx -s ORDER`.
    ///
    /// # Panics
    /// Unless it succeeds in silence.
    #[track_caller]
    pub(crate) fn order(&self, order: &str) {
        self.cli(&["-s", order]).silently();
    }

    /// The process id in one of its pid files.
    pub(crate) fn pid_in(&self, name: &str) -> Option<i32> {
        self.dir.read(name).trim().parse().ok()
    }

    /// The master's process id.
    #[track_caller]
    pub(crate) fn master(&self) -> i32 {
        self.pid_in("nginx.pid").expect("a process id in nginx.pid")
    }

    /// Sends its master a signal.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        send(self.master(), signal);
    }

    /// What its error log says so far.
    pub(crate) fn error_log(&self) -> String {
        self.dir.read("error.log")
    }

    /// Waits for a line with this text in its error log.
    #[track_caller]
    pub(crate) fn expect_log(&self, text: &str) {
        wait::until(&format!("its log says {text:?}"), wait::SOON, || self.error_log().contains(text));
    }

    /// Every process that was started from its directory and has not ended: masters by their command line, and workers by
    /// their masters.
    fn masters(&self) -> Vec<i32> {
        let here = self.dir.path().display().to_string();
        let ours = |pid: &i32| measure::command_line(*pid).contains(&here) && measure::started(*pid).is_some();
        measure::processes().into_iter().filter(ours).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show("error.log", &self.error_log());
        }
        // Old and new ones of an upgrade alike; those that do not listen are killed, and their workers end with them.
        for (signal, patience) in [(Signal::TERM, 100), (Signal::KILL, 500)] {
            for _ in 0..patience {
                let masters = self.masters();
                if masters.is_empty() {
                    return;
                }
                for master in masters {
                    send(master, signal);
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}

/// A whole file that serves one port of 127.0.0.1: `main` stands at the main level, `server` in the server. `/pid` is
/// answered with the worker's process id.
pub(crate) fn conf(port: u16, main: &str, server: &str) -> String {
    format!(
        "pid nginx.pid;\nerror_log error.log info;\n{main}\nevents {{\n    worker_connections 512;\n}}\nhttp {{\n    access_log off;\n{}\
         \n    server {{\n        listen 127.0.0.1:{port};\n        location = /pid {{ return 200 $pid; }}\n        {server}\n    }}\n}}\n",
        temp_paths(".")
    )
}
