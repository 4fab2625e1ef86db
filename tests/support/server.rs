//! The program under test over one configuration file, in a directory of its own, on free ports.

use super::program::{Program, Ran, run, send, show};
use super::scratch::Scratch;
use super::{binary, measure, replaced, wait};
use rustix::process::Signal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// A running server. Its prefix is a fresh directory with `nginx.conf`, `error.log` and `access.log` in it.
pub(crate) struct Server {
    program: Program,
    dir: Scratch,
    port: u16,
    /// How many threads its file asks for when it is written anew.
    threads: u32,
}

impl Server {
    /// Serves the body of an `http` block that listens on `port`.
    ///
    /// # Panics
    /// When it does not listen soon; with what it wrote.
    pub(crate) fn http(port: u16, body: &str) -> Self {
        Self::http_in(Scratch::new(), port, body)
    }

    /// The same in a directory where other files lie already.
    pub(crate) fn http_in(dir: Scratch, port: u16, body: &str) -> Self {
        dir.write("nginx.conf", whole_file(&dir, body));
        Self::file_in(dir, port)
    }

    /// The same with three threads.
    pub(crate) fn threaded(port: u16, body: &str) -> Self {
        let dir = Scratch::new();
        dir.write("nginx.conf", text(&dir, 3, body));
        let mut server = Self::file_in(dir, port);
        server.threads = 3;
        server
    }

    /// Serves the whole file `nginx.conf` that lies in the directory.
    pub(crate) fn file_in(dir: Scratch, port: u16) -> Self {
        let program = start(&binary(), dir.path(), port);
        Self { program, dir, port, threads: 1 }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Scratch {
        &self.dir
    }

    /// Puts another body of `http` in the file; `reload` makes it count.
    pub(crate) fn rewrite(&self, body: &str) {
        self.dir.write("nginx.conf", text(&self.dir, self.threads, body));
    }

    /// Runs it once more with these arguments, as in `nginx -s reload`.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Ran {
        run(command(&binary(), self.dir.path(), arguments))
    }

    /// `nginx -s reload`.
    ///
    /// # Panics
    /// Unless it succeeds in silence.
    #[track_caller]
    pub(crate) fn reload(&self) {
        self.cli(&["-s", "reload"]).silently();
    }

    /// Sends a signal to the master.
    pub(crate) fn signal(&self, signal: Signal) {
        self.program.signal(signal);
    }

    /// Asks it to finish what it is doing (QUIT), and waits for its end.
    pub(crate) fn quit(&mut self) -> ExitStatus {
        self.signal(Signal::QUIT);
        self.program.wait(wait::SOON)
    }

    /// Starts it again over the same directory, after its end.
    pub(crate) fn again(&mut self) {
        self.program = start(&binary(), self.dir.path(), self.port);
    }

    /// The master's process id.
    pub(crate) fn master(&self) -> i32 {
        self.program.pid()
    }

    /// The workers' process ids.
    pub(crate) fn workers(&self) -> Vec<i32> {
        measure::children(self.master())
    }

    /// How many files all its processes have open.
    pub(crate) fn open_files(&self) -> usize {
        self.processes().into_iter().map(measure::open_files).sum()
    }

    /// The memory of all its processes, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        self.processes().into_iter().map(measure::memory).sum()
    }

    /// What its error log says so far.
    pub(crate) fn error_log(&self) -> String {
        self.dir.read("error.log")
    }

    /// Waits for a line with all these words in its error log.
    #[track_caller]
    pub(crate) fn expect_log(&self, words: &[&str]) {
        wait::until(&format!("a line of its log says {words:?}"), wait::SOON, || {
            self.error_log().lines().any(|line| words.iter().all(|word| line.contains(word)))
        });
    }

    /// What its access log says so far.
    pub(crate) fn access_log(&self) -> String {
        self.dir.read("access.log")
    }

    fn processes(&self) -> Vec<i32> {
        [vec![self.master()], self.workers()].concat()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show("error.log", &self.error_log());
        }
        // A master that is killed for its slowness must not leave workers behind.
        let workers: Vec<_> = self.workers().into_iter().map(|pid| (pid, measure::started(pid))).collect();
        self.program.stop();
        for (worker, started) in workers {
            end_orphan(worker, started);
        }
    }
}

/// Ends a worker whose master has gone, unless it ends by itself. A later process that got
/// the same id is left alone.
fn end_orphan(worker: i32, started: Option<u64>) {
    let began = Instant::now();
    while started.is_some() && measure::started(worker) == started {
        if began.elapsed() > Duration::from_secs(2) {
            return send(worker, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A whole file around the body of an `http` block. What the program writes stays below the directory.
pub(crate) fn whole_file(dir: &Scratch, body: &str) -> String {
    text(dir, 1, body)
}

fn text(dir: &Scratch, threads: u32, body: &str) -> String {
    let at = dir.path().display();
    let temp = temp_paths(&at.to_string());
    format!(
        "daemon off;\nworker_processes {threads};\npid {at}/nginx.pid;\nerror_log {at}/error.log info;\n\
         events {{\n    worker_connections 4096;\n}}\nhttp {{\n    access_log {at}/access.log;\n{temp}\n{body}\n}}\n"
    )
}

/// The directives that keep temporary files below a folder. A nginx in tidegate's place makes folders for all kinds.
pub(crate) fn temp_paths(folder: &str) -> String {
    let kinds = ["client_body", "proxy", "uwsgi", "fastcgi", "scgi"];
    let used = if replaced() { kinds.as_slice() } else { &kinds[..3] };
    used.iter().map(|kind| format!("    {kind}_temp_path {folder}/{kind}_temp;\n")).collect()
}

/// Starts a program over `nginx.conf` in a directory; it serves the port when this returns.
///
/// # Panics
/// When it does not listen soon; with what it wrote.
pub(crate) fn start(binary: &Path, dir: &Path, port: u16) -> Program {
    let mut program = Program::start(&binary.display().to_string(), command(binary, dir, &[]));
    let began = Instant::now();
    while !wait::connectable((Ipv4Addr::LOCALHOST, port).into()) {
        let hopeful = program.running() && began.elapsed() < wait::SOON;
        let log = || std::fs::read_to_string(dir.join("error.log")).unwrap_or_default();
        assert!(hopeful, "{} does not serve port {port}: {}{}", binary.display(), program.stderr(), log());
        std::thread::sleep(Duration::from_millis(5));
    }
    program
}

/// `nginx -p DIR/ -c DIR/nginx.conf -e DIR/error.log ARGUMENTS`.
pub(crate) fn command(binary: &Path, dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.arg("-p").arg(format!("{}/", dir.display()));
    command.arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg(dir.join("error.log")).args(arguments);
    command
}
