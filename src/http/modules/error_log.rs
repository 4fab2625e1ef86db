//! `error_log` at the levels of http: where faults of requests are told, and how many of them.

use super::Room;
use crate::{
    config::{Args, Directive, FromArgs, Handle, Kind, LEVELS, List, MAIN, Module, Scope, values::choose},
    http::Http,
    observe::error_log::Level,
    syntax::{Fault, Span, Statement, Word},
};
use std::ops::RangeInclusive;

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub targets: List<Target>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] =
        &[Directive::new("error_log", LEVELS.or(MAIN), |conf| &mut conf.targets)];
}

impl Room for Conf {
    type State = ();
}

/// One `error_log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub file: File,
    pub level: Level,
}

/// Where an error log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum File {
    Stderr,
    Path(Handle),
}

impl Target {
    /// The log of a configuration that names none: a file, or with an empty path standard error.
    pub fn default_at(path: &std::path::Path, scope: &Scope<'_>) -> Self {
        let file = match path.as_os_str().is_empty() {
            true => File::Stderr,
            false => File::Path(scope.refer(Kind::LogFile, path_bytes(path), Span::default())),
        };
        Self { file, level: Level::Err }
    }
}

impl FromArgs for Target {
    const TAKES: RangeInclusive<usize> = 1..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let file = match &word.value[..] {
            b"stderr" => File::Stderr,
            value if value.starts_with(b"syslog:") || value.starts_with(b"memory:") => {
                let text = [b"\"", value, b"\" is not supported by this version"].concat();
                return Err(Fault::at(word.span, text));
            }
            value => File::Path(args.scope.refer(Kind::LogFile, path_bytes(&args.scope.path(value)), word.span)),
        };
        let Some(first) = args.words().get(1) else { return Ok(Self { file, level: Level::Err }) };
        let level = level(first, args)?;
        // There is one level; nginx looks at the other words, and takes none of them.
        match args.words().get(2) {
            None => Ok(Self { file, level }),
            Some(word) => {
                self::level(word, args)?;
                Err(Fault::at(word.span, [b"duplicate log level \"", &word.value[..], b"\""].concat()))
            }
        }
    }
}

/// The name of a severity.
fn level(word: &Word, args: &Args<'_>) -> Result<Level, Fault> {
    let one = Statement { args: vec![word.clone()], ..args.statement.clone() };
    let levels = [
        ("debug", Level::Debug),
        ("info", Level::Info),
        ("notice", Level::Notice),
        ("warn", Level::Warn),
        ("error", Level::Err),
        ("crit", Level::Crit),
        ("alert", Level::Alert),
        ("emerg", Level::Emerg),
    ];
    let args = Args { statement: &one, scope: args.scope, here: args.here, first: true };
    choose(&args, &levels).map_err(|fault| {
        let text = [b"invalid log level \"", &word.value[..], b"\""].concat();
        Fault { message: text, ..fault }
    })
}

impl Conf {
    /// Whether any target keeps lines of this level.
    pub fn keeps(&self, level: Level) -> bool {
        self.targets.iter().any(|target| level <= target.level)
    }

    /// Writes a whole line to the targets that keep it.
    pub fn write(&self, http: &Http, level: Level, line: &[u8]) {
        for target in self.targets.iter().filter(|target| level <= target.level) {
            match target.file {
                File::Stderr => {
                    use std::io::Write;
                    let _ = std::io::stderr().write_all(line);
                }
                File::Path(handle) => http.log_files[handle.0 as usize].write(line),
            }
        }
    }
}

/// A path as the bytes that name a log file.
pub fn path_bytes(path: &std::path::Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes()
}
