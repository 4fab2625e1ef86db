//! A process started by a test, ended by its own id.

use super::scratch::Scratch;
use super::wait;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running program; ended when dropped. What it writes is kept, and printed when the test fails.
pub(crate) struct Program {
    name: String,
    child: Child,
    output: Scratch,
    /// Whether asking it to end is of no use.
    deaf: bool,
}

impl Program {
    /// Starts it without input.
    pub(crate) fn start(name: &str, mut command: Command) -> Self {
        let output = Scratch::new();
        let child = command
            .stdin(Stdio::null())
            .stdout(output_file(&output, "stdout"))
            .stderr(output_file(&output, "stderr"))
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { name: name.to_owned(), child, output, deaf: false }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    /// Whether it has not ended yet.
    pub(crate) fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it is still there after `limit`.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        wait::until(&format!("{} ended", self.name), limit, || {
            status = self.child.try_wait().expect("wait");
            status.is_some()
        });
        status.expect("until it ended")
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        self.end(&[(Signal::KILL, 10)]);
    }

    /// Asks it to finish what it is doing (QUIT), so that its logs are complete; insists after a while.
    pub(crate) fn finish(&mut self) {
        self.end(&[(Signal::QUIT, 2), (Signal::TERM, 3), (Signal::KILL, 10)]);
    }

    /// Asks it to end, insists after a while.
    pub(crate) fn stop(&mut self) {
        self.end(&[(Signal::TERM, 3), (Signal::KILL, 10)]);
    }

    /// The same for one that does not listen to signals: at its end it is killed at once.
    pub(crate) fn deaf(mut self) -> Self {
        self.deaf = true;
        self
    }

    /// What it has written to standard output.
    pub(crate) fn stdout(&self) -> String {
        self.output.read("stdout")
    }

    /// What it has written to standard error.
    pub(crate) fn stderr(&self) -> String {
        self.output.read("stderr")
    }

    fn end(&mut self, steps: &[(Signal, u64)]) {
        for (signal, patience) in steps {
            if !self.running() {
                return;
            }
            self.signal(*signal);
            let began = Instant::now();
            while self.running() && began.elapsed() < Duration::from_secs(*patience) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.deaf {
            self.kill();
        } else {
            self.stop();
        }
        if std::thread::panicking() {
            show(&format!("{} wrote to stdout", self.name), &self.stdout());
            show(&format!("{} wrote to stderr", self.name), &self.stderr());
        }
    }
}

/// How a program that ended by itself ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// The exit status; none when a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it wrote to standard output.
    pub(crate) stdout: String,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
}

impl Ran {
    /// # Panics
    /// Unless it exited with 0.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// # Panics
    /// Unless it exited with 0 and had nothing to say.
    #[track_caller]
    pub(crate) fn silently(self) {
        assert_eq!((self.code, self.stdout.as_str(), self.stderr.as_str()), (Some(0), "", ""));
    }
}

/// Runs a program to its end. Processes it leaves behind may keep its output open: only the end of itself counts.
///
/// # Panics
/// When it does not end within a minute.
pub(crate) fn run(command: Command) -> Ran {
    run_within(Duration::from_secs(60), command)
}

/// The same with another limit.
pub(crate) fn run_within(limit: Duration, command: Command) -> Ran {
    let mut program = Program::start(&format!("{command:?}"), command);
    let status = program.wait(limit);
    Ran { code: status.code(), stdout: program.stdout(), stderr: program.stderr() }
}

/// Sends a signal to a process this test started; that it has ended meanwhile is no error.
pub(crate) fn send(pid: i32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid).expect("a process id"), signal);
}

/// Prints a text that helps to understand a failure; of a long one the end.
pub(crate) fn show(what: &str, text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(100);
    if !lines.is_empty() {
        eprintln!("--- {what} ({skipped} lines, then):\n{}", lines[skipped..].join("\n"));
    }
}

/// Opened for appending, as several processes may write to it.
fn output_file(dir: &Scratch, name: &str) -> File {
    let file = File::options().create(true).append(true).open(dir.path().join(name)).expect("a file for output");
    // A worker that has left root behind reopens /dev/stderr.
    fs::set_permissions(dir.path().join(name), std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("chmod");
    file
}
