//! USR2: another binary takes over, with the listening sockets, while this one still serves (`ngx_exec_new_binary`).

use std::{
    ffi::OsStr,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use super::Master;
use crate::process::{errno::Errno, log::Level, pid, program::Program, sockets::inherited, sys};

impl<P: Program> Master<P> {
    /// Whether USR2 is ignored: a new binary runs already, or we are the new one and the old one still runs.
    pub(super) fn refuses_upgrade(&self) -> bool {
        self.new_binary.is_some() || sys::parent_id() == self.birth.parent
    }

    /// Starts the new binary. The pid file goes aside, because the new master writes its own.
    pub(super) fn upgrade(&mut self) {
        let log = &self.birth.log;
        log.write(Level::Notice, "changing binary");
        let pid_file = self.cycle.needs.pid.clone();
        let aside = pid::old(&pid_file);
        let binary = self.new_binary_path();
        let shown = binary.display();
        if let Err(error) = std::fs::rename(&pid_file, &aside) {
            let errno = Errno::from(error);
            let what = format!("rename() {} to {} failed", pid_file.display(), aside.display());
            let text = format!("{what} before executing new binary process \"{shown}\" ({errno})");
            log.write(Level::Alert, text);
            return;
        }
        let (list, descriptors) = inherited::pass(&self.cycle.listeners);
        let arguments = &self.birth.invocation.arguments;
        let mut command = Command::new(&binary);
        command
            .arg0(arguments.first().map_or(OsStr::new("nginx"), |name| name))
            .args(arguments.iter().skip(1))
            .env_clear()
            .envs(self.cycle.needs.identity.environment())
            .env(inherited::VARIABLE, list);
        match sys::spawn(&mut command, descriptors) {
            Ok(pid) => {
                log.write(Level::Notice, format!("start new binary process {pid}"));
                self.new_binary = Some(pid);
                if let Some(office) = &mut self.office {
                    office.follow(&aside);
                }
            }
            Err(error) => {
                let errno = Errno::from(error);
                let text = format!("execve() failed while executing new binary process \"{shown}\" ({errno})");
                log.write(Level::Alert, text);
                self.restore_pid_file("after an attempt to execute");
            }
        }
    }

    /// The new binary has ended while we still run: everything is ours again.
    pub(super) fn upgrade_ended(&mut self) {
        self.new_binary = None;
        self.restore_pid_file("after exit of");
        if let Some(office) = &mut self.office {
            office.follow(&self.cycle.needs.pid);
        }
        if self.resting && !self.is_ending() {
            self.resting = false;
            self.start_worker();
        }
    }

    fn restore_pid_file(&self, when: &str) {
        let pid_file = &self.cycle.needs.pid;
        let aside = pid::old(pid_file);
        if let Err(error) = std::fs::rename(&aside, pid_file) {
            let errno = Errno::from(error);
            let what = format!("rename() {} back to {} failed", aside.display(), pid_file.display());
            self.birth.log.write(Level::Alert, format!("{what} {when} the new binary process ({errno})"));
        }
    }

    /// The file this master was started from. nginx executes the first argument; one that was found along `PATH` would
    /// not be found again, so that is looked up as the system names us.
    fn new_binary_path(&self) -> PathBuf {
        let typed = self.birth.invocation.arguments.first().map(PathBuf::from).unwrap_or_default();
        if typed.as_os_str().as_bytes().contains(&b'/') {
            return typed;
        }
        let running = std::env::current_exe().unwrap_or(typed);
        // The kernel marks a file that was replaced since.
        let name = running.as_os_str().as_bytes();
        Path::new(OsStr::from_bytes(name.strip_suffix(b" (deleted)").unwrap_or(name))).to_owned()
    }
}
