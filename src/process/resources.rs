//! The world a configuration is read from: files, names, users. The master asks the system and keeps every answer;
//! the worker is given the answers, so that both build the same generation with the same code.

use std::{
    collections::HashMap,
    fs::File,
    io::Read,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{errno::Errno, resolve, sys, user};

/// Everything a reading of the configuration may ask. The same question gets the same answer all through a reading.
pub trait Resources {
    /// The bytes of a file: the configuration itself, certificates, keys.
    fn read(&mut self, path: &Path) -> Result<Arc<[u8]>, ReadError>;

    /// The files that match a pattern, sorted, hidden ones left out, as `glob(3)`; none is no error.
    fn glob(&mut self, pattern: &Path) -> Result<Vec<PathBuf>, Errno>;

    /// Every address of a host, in the resolver's order. None means `host not found`.
    fn resolve(&mut self, host: &[u8]) -> Vec<IpAddr>;

    /// `getpwnam`: the number of a user; an error number of 0 says that there is no such user.
    fn user(&mut self, name: &[u8]) -> Result<u32, Errno>;

    /// `getgrnam`: the number of a group; the same rule.
    fn group(&mut self, name: &[u8]) -> Result<u32, Errno>;

    /// What is known of the machine and the master.
    fn facts(&self) -> &Facts;
}

/// A file that could not be read, and in which call: nginx's message starts with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}() failed ({errno})")]
pub struct ReadError {
    /// `open`, `pread` or `fstat`.
    pub call: Call,
    pub errno: Errno,
}

/// A system call on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Open,
    Read,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Read => "pread",
        })
    }
}

/// What a reading may depend on besides its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether the master runs as root: decides the default port and whether `user` counts.
    pub superuser: bool,
    /// Processors on line, for `worker_processes auto`.
    pub processors: usize,
    /// The host's name, lower case.
    pub host_name: Vec<u8>,
    /// The soft limit of open files.
    pub open_files: u64,
}

impl Facts {
    /// Asks the system.
    pub fn gather() -> Self {
        Self {
            superuser: sys::is_superuser(),
            processors: sys::processors(),
            host_name: sys::host_name(),
            open_files: user::open_files_limit().0,
        }
    }
}

/// Something a reading asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    Read(PathBuf),
    Glob(PathBuf),
    Resolve(Vec<u8>),
    User(Vec<u8>),
    Group(Vec<u8>),
}

/// What it was told, in the same order of kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Read(Result<Arc<[u8]>, ReadError>),
    Glob(Result<Vec<PathBuf>, Errno>),
    Resolve(Vec<IpAddr>),
    User(Result<u32, Errno>),
    Group(Result<u32, Errno>),
}

/// The answers of one reading.
pub(super) type Answers = HashMap<Question, Answer>;

/// Resources that keep what they answered. With `live`, a new question goes to the system; without, everything must
/// be known already, and what is not is an error.
#[derive(Debug)]
pub struct Recorder {
    facts: Facts,
    answers: Answers,
    live: bool,
}

impl Recorder {
    /// The master's: asks the system.
    pub fn live(facts: Facts) -> Self {
        Self { facts, answers: Answers::new(), live: true }
    }

    /// The worker's: answers from what the master was told.
    pub fn replay(facts: Facts, answers: Answers) -> Self {
        Self { facts, answers, live: false }
    }

    /// Ends the reading: everything that was answered.
    pub fn into_parts(self) -> (Facts, Answers) {
        (self.facts, self.answers)
    }

    fn ask(&mut self, question: Question) -> Answer {
        if let Some(answer) = self.answers.get(&question) {
            return answer.clone();
        }
        let answer = if self.live { ask_system(&question) } else { unknown(&question) };
        self.answers.insert(question, answer.clone());
        answer
    }
}

impl Resources for Recorder {
    fn read(&mut self, path: &Path) -> Result<Arc<[u8]>, ReadError> {
        match self.ask(Question::Read(path.to_owned())) {
            Answer::Read(answer) => answer,
            _ => Err(ReadError { call: Call::Open, errno: MISMATCH }),
        }
    }

    fn glob(&mut self, pattern: &Path) -> Result<Vec<PathBuf>, Errno> {
        match self.ask(Question::Glob(pattern.to_owned())) {
            Answer::Glob(answer) => answer,
            _ => Err(MISMATCH),
        }
    }

    fn resolve(&mut self, host: &[u8]) -> Vec<IpAddr> {
        match self.ask(Question::Resolve(host.to_owned())) {
            Answer::Resolve(answer) => answer,
            _ => Vec::new(),
        }
    }

    fn user(&mut self, name: &[u8]) -> Result<u32, Errno> {
        match self.ask(Question::User(name.to_owned())) {
            Answer::User(answer) => answer,
            _ => Err(MISMATCH),
        }
    }

    fn group(&mut self, name: &[u8]) -> Result<u32, Errno> {
        match self.ask(Question::Group(name.to_owned())) {
            Answer::Group(answer) => answer,
            _ => Err(MISMATCH),
        }
    }

    fn facts(&self) -> &Facts {
        &self.facts
    }
}

/// A bundle that pairs a question with an answer of another kind was not made by us.
const MISMATCH: Errno = Errno(libc::EIO);

fn ask_system(question: &Question) -> Answer {
    match question {
        Question::Read(path) => Answer::Read(read_file(path)),
        Question::Glob(pattern) => {
            Answer::Glob(sys::glob(pattern).map(|names| names.into_iter().map(PathBuf::from).collect()))
        }
        Question::Resolve(host) => Answer::Resolve(resolve::addresses(host)),
        Question::User(name) => Answer::User(user::user_id(name)),
        Question::Group(name) => Answer::Group(user::group_id(name)),
    }
}

/// The master never asked this, so the two readings differ: a fault the worker reports.
fn unknown(question: &Question) -> Answer {
    match question {
        Question::Read(_) => Answer::Read(Err(ReadError { call: Call::Open, errno: MISMATCH })),
        Question::Glob(_) => Answer::Glob(Err(MISMATCH)),
        Question::Resolve(_) => Answer::Resolve(Vec::new()),
        Question::User(_) => Answer::User(Err(MISMATCH)),
        Question::Group(_) => Answer::Group(Err(MISMATCH)),
    }
}

fn read_file(path: &Path) -> Result<Arc<[u8]>, ReadError> {
    let fault = |call| move |error: std::io::Error| ReadError { call, errno: error.into() };
    let mut file = File::open(path).map_err(fault(Call::Open))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(fault(Call::Read))?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_gets_the_masters_answers() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("b.conf");
        std::fs::write(&file, "one").unwrap();
        std::fs::write(folder.path().join("a.conf"), "").unwrap();
        std::fs::write(folder.path().join(".hidden.conf"), "").unwrap();
        let pattern = folder.path().join("*.conf");
        let missing = folder.path().join("missing");

        let ask = |resources: &mut Recorder| {
            (
                resources.read(&file).map(|bytes| bytes.to_vec()),
                resources.read(&missing),
                resources.read(folder.path()),
                resources.glob(&pattern),
                resources.resolve(b"127.0.0.1"),
                resources.user(b"root"),
            )
        };
        let mut master = Recorder::live(Facts::gather());
        let told = ask(&mut master);
        assert_eq!(told.0.as_deref(), Ok(&b"one"[..]));
        assert_eq!(told.1.as_ref().unwrap_err().to_string(), "open() failed (2: No such file or directory)");
        assert_eq!(told.2.as_ref().unwrap_err().to_string(), "pread() failed (21: Is a directory)");
        assert_eq!(told.3.as_deref(), Ok(&[folder.path().join("a.conf"), file.clone()][..]));

        std::fs::write(&file, "two").unwrap();
        let (facts, answers) = master.into_parts();
        let mut worker = Recorder::replay(facts, answers);
        assert_eq!(ask(&mut worker), told);
        assert_eq!(worker.read(Path::new("/never/asked")), Err(ReadError { call: Call::Open, errno: MISMATCH }));
    }
}
