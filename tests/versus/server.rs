//! One run of a binary over one configuration file: started, waited for, ended by its own process id.

use super::wire::connectable;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server; ended when dropped.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Starts `binary -p DIR/ -c DIR/nginx.conf -e DIR/error.log` and waits until `port` answers.
    ///
    /// # Panics
    /// When it ends or is silent for ten seconds; with what it wrote.
    pub(crate) fn start(binary: &Path, dir: &Path, port: u16) -> Self {
        let console = fs::File::create(dir.join("console")).expect("console file");
        let child = Command::new(binary)
            .arg("-p")
            .arg(format!("{}/", dir.display()))
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .arg("-e")
            .arg(dir.join("error.log"))
            .stdin(Stdio::null())
            .stdout(console.try_clone().expect("console file"))
            .stderr(console)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        let mut server = Self { child };
        let began = Instant::now();
        while !connectable(port) {
            let ended = server.child.try_wait().expect("wait");
            if ended.is_some() || began.elapsed() > Duration::from_secs(10) {
                let said = fs::read_to_string(dir.join("console")).unwrap_or_default();
                let log = fs::read_to_string(dir.join("error.log")).unwrap_or_default();
                panic!("{} did not serve port {port} ({ended:?}):\n{said}{log}", binary.display());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// Asks it to finish (QUIT, so that logs are complete), insists after a while, and waits for the end.
    pub(crate) fn stop(mut self) {
        self.end(Signal::QUIT);
    }

    fn end(&mut self, first: Signal) {
        for (signal, patience) in [(first, 2000), (Signal::TERM, 2000), (Signal::KILL, 2000)] {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, signal);
            }
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(patience) {
                if matches!(self.child.try_wait(), Ok(Some(_))) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(Signal::TERM);
    }
}

/// A whole configuration file around the body of an `http` block: one worker, everything it writes below `dir`.
pub(crate) fn whole_file(body: &str, dir: &Path) -> String {
    let dir = dir.display();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {dir}/tmp/{kind};\n"))
        .concat();
    format!(
        "daemon off;\nworker_processes 1;\npid {dir}/nginx.pid;\nerror_log {dir}/error.log info;\n\
         events {{\n    worker_connections 512;\n}}\nhttp {{\n    access_log off;\n{temp}\n{body}\n}}\n"
    )
}
