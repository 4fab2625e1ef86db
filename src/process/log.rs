//! What the process itself has to say: on the console until the logs are open, in the error log from then on.

use std::{
    cell::RefCell,
    io::Write,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
};

use super::{
    errno::Errno,
    files::{self, LogFile},
    line::Line,
    sys,
    syslog::Syslog,
};

/// How loud a line is; smaller is worse (`NGX_LOG_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Emerg = 1,
    Alert,
    Crit,
    Err,
    Warn,
    Notice,
    Info,
    Debug,
}

impl Level {
    /// The word between the brackets of a line, which is also the word of the `error_log` directive.
    pub fn name(self) -> &'static str {
        match self {
            Self::Emerg => "emerg",
            Self::Alert => "alert",
            Self::Crit => "crit",
            Self::Err => "error",
            Self::Warn => "warn",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// The same by syslog's numbers.
    pub fn severity(self) -> u8 {
        self as u8 - 1
    }
}

/// One place lines go to, with the loudest level it still takes.
#[derive(Clone, Debug)]
pub(super) struct Output {
    pub level: Level,
    pub sink: Sink,
    /// Each line is an object of JSON.
    pub json: bool,
}

/// What takes the lines.
#[derive(Clone, Debug)]
pub(super) enum Sink {
    File(Arc<LogFile>),
    Syslog(Arc<Syslog>),
}

impl Output {
    fn file(&self) -> Option<&LogFile> {
        match &self.sink {
            Sink::File(file) => Some(file),
            Sink::Syslog(_) => None,
        }
    }

    fn is_stderr(&self) -> bool {
        self.file().is_some_and(LogFile::is_stderr)
    }
}

/// The log of one process: its files, and the console while it is starting (`ngx_use_stderr`).
#[derive(Debug, Default)]
pub(super) struct Log {
    outputs: Vec<Output>,
    console: bool,
    captured: RefCell<Option<Vec<u8>>>,
}

impl Log {
    /// The log before the configuration is known (`ngx_log_init`): the file of `-e` or of the build, and the console.
    /// An empty path is standard error itself.
    pub(super) fn at_start(path: &Path, level: Level) -> Self {
        let mut log = Self { outputs: Vec::new(), console: true, captured: RefCell::default() };
        let file = if path.as_os_str().is_empty() {
            LogFile::stderr()
        } else {
            match files::open_for_append(path) {
                Ok(file) => Ok(LogFile::new(path.to_owned(), file)),
                Err(errno) => {
                    let path = path.display();
                    console(
                        format!("[alert] could not open error log file: open() \"{path}\" failed ({errno})").as_bytes(),
                    );
                    LogFile::stderr()
                }
            }
        };
        let output = |file| Output { level, sink: Sink::File(Arc::new(file)), json: false };
        log.outputs.extend(file.ok().map(output));
        log
    }

    /// A log that writes to `outputs` only.
    pub(super) fn to(outputs: Vec<Output>) -> Self {
        Self { outputs, console: false, captured: RefCell::default() }
    }

    /// Goes on with other files; whether the console hears it stays as it was.
    pub(super) fn redirect(&mut self, outputs: Vec<Output>) {
        self.outputs = outputs;
    }

    /// From here on the console hears nothing more: the process serves.
    pub(super) fn leave_console(&mut self) {
        self.console = false;
    }

    /// The file of the first `error_log`, which standard error is pointed at (`ngx_log_redirect_stderr`); `None` when
    /// standard error is one of the logs.
    pub(crate) fn main_file(&self) -> Option<&LogFile> {
        self.outputs.iter().find_map(Output::file).filter(|_| !self.is_on_stderr())
    }

    /// Whether lines already appear on standard error, dated.
    pub(super) fn is_on_stderr(&self) -> bool {
        self.outputs.iter().any(Output::is_stderr)
    }

    /// Writes one line. Every file whose level allows it takes a dated line; the console takes
    /// `nginx: [emerg] …` for warnings and worse, unless a file is the console.
    pub(super) fn write(&self, level: Level, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        if level <= Level::Warn
            && let Some(captured) = self.captured.borrow_mut().as_mut()
        {
            captured.extend_from_slice(&console_line(level, text));
        }
        let mut console_has_it = false;
        let line = Line::new(level, text);
        for output in self.outputs.iter().filter(|output| level <= output.level) {
            let written = if output.json { line.json() } else { line.text() };
            // A log that cannot be written has nowhere to complain.
            match &output.sink {
                Sink::File(file) => _ = file.write(&written),
                Sink::Syslog(syslog) => _ = syslog.send(Some(level.severity()), written.trim_ascii_end()),
            }
            console_has_it |= output.is_stderr();
        }
        if self.console && level <= Level::Warn && !console_has_it {
            let _ = std::io::stderr().write_all(&console_line(level, text));
        }
    }

    /// Starts to keep a copy of warnings and worse, for somebody who waits for the outcome.
    pub(super) fn capture(&self) {
        *self.captured.borrow_mut() = Some(Vec::new());
    }

    /// Ends [`Log::capture`] and hands over what was said meanwhile, as console lines.
    pub(super) fn captured(&self) -> Vec<u8> {
        self.captured.borrow_mut().take().unwrap_or_default()
    }
}

/// `nginx: text` on the console (`ngx_log_stderr`).
pub fn console(text: &[u8]) {
    let mut line = b"nginx: ".to_vec();
    line.extend_from_slice(text);
    line.push(b'\n');
    let _ = std::io::stderr().write_all(&line);
}

/// Points standard error at the error log, so that what libraries print is not lost.
pub(super) fn redirect_stderr(file: &LogFile) -> Result<(), Errno> {
    sys::duplicate_onto(file.as_fd(), sys::STDERR)
}

fn console_line(level: Level, text: &[u8]) -> Vec<u8> {
    let mut line = format!("nginx: [{}] ", level.name()).into_bytes();
    line.extend_from_slice(text);
    line.push(b'\n');
    line
}

impl AsFd for LogFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_its_level_and_worse() {
        let path = std::env::temp_dir().join(format!("tidegate-log-{}", std::process::id()));
        let file = LogFile::new(path.clone(), files::open_for_append(&path).unwrap());
        let log = Log::to(vec![Output { level: Level::Err, sink: Sink::File(Arc::new(file)), json: false }]);
        log.capture();
        log.write(Level::Warn, "quiet");
        log.write(Level::Emerg, "loud");
        log.write(Level::Notice, "not even captured");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(text.ends_with(": loud\n") && !text.contains("quiet"));
        assert_eq!(log.captured(), b"nginx: [warn] quiet\nnginx: [emerg] loud\n");
    }
}
