//! `error_log` at the levels of http: where faults of requests are told, and how many of them.

use super::Room;
use crate::{
    config::{Args, Directive, FromArgs, Handle, Kind, LEVELS, List, MAIN, Module, Scope},
    http::Http,
    observe::{
        error_log::{Level, Line},
        syslog,
    },
    syntax::{Fault, Span, Word},
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
    /// `json`, which nginx has not: each line is an object.
    pub json: bool,
}

/// Where an error log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum File {
    Stderr,
    Path(Handle),
    Syslog(Handle),
}

impl Target {
    /// The log of a configuration that names none: a file, or with an empty path standard error.
    pub fn default_at(path: &std::path::Path, scope: &Scope<'_>) -> Self {
        let file = match path.as_os_str().is_empty() {
            true => File::Stderr,
            false => File::Path(scope.refer(Kind::LogFile, path_bytes(path), Span::default())),
        };
        Self { file, level: Level::Err, json: false }
    }
}

impl FromArgs for Target {
    const TAKES: RangeInclusive<usize> = 1..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let file = match &word.value[..] {
            b"stderr" => File::Stderr,
            value if value.starts_with(b"memory:") => {
                return Err(Fault::at(word.span, "nginx was built without debug support"));
            }
            value if value.starts_with(syslog::PREFIX) => File::Syslog(syslog::refer(word, args.scope)?),
            value => File::Path(args.scope.refer(Kind::LogFile, path_bytes(&args.scope.path(value)), word.span)),
        };
        let (json, levels) = match args.words() {
            [_, levels @ .., last] if last.value == b"json" => (true, levels),
            words => (false, &words[1..]),
        };
        Ok(Self { file, level: read_levels(levels)?, json })
    }
}

/// The level that the words behind a destination name; there is one, or several kinds of debugging
/// (`ngx_log_set_levels`).
fn read_levels(words: &[Word]) -> Result<Level, Fault> {
    const LEVELS: [Level; 8] =
        [Level::Debug, Level::Info, Level::Notice, Level::Warn, Level::Err, Level::Crit, Level::Alert, Level::Emerg];
    const DEBUGGING: [&[u8]; 7] =
        [b"debug_core", b"debug_alloc", b"debug_mutex", b"debug_event", b"debug_http", b"debug_mail", b"debug_stream"];
    let (mut level, mut debugging) = (None, false);
    for word in words {
        let fault = |what: &[u8]| Fault::at(word.span, [what, b" log level \"", &word.value, b"\""].concat());
        if let Some(named) = LEVELS.into_iter().find(|level| level.name().as_bytes() == word.value) {
            if level.is_some() || debugging {
                return Err(fault(b"duplicate"));
            }
            level = Some(named);
        } else if DEBUGGING.contains(&&word.value[..]) && level.is_none_or(|level| level == Level::Debug) {
            debugging = true;
        } else {
            let names: Vec<String> = LEVELS.iter().map(|level| format!("`{}`", level.name())).collect();
            return Err(fault(b"invalid").help(format!("it must be one of {}", names.join(", "))));
        }
    }
    Ok(if debugging { Level::Debug } else { level.unwrap_or(Level::Err) })
}

impl Conf {
    /// Whether any target keeps lines of this level.
    pub fn keeps(&self, level: Level) -> bool {
        self.targets.iter().any(|target| level <= target.level)
    }

    /// Writes a whole line to the targets that keep it, to each in its form.
    pub fn write(&self, http: &Http, line: &Line<'_>) {
        for target in self.targets.iter().filter(|target| line.level <= target.level) {
            let written = if target.json { line.json() } else { line.text() };
            match target.file {
                File::Stderr => {
                    use std::io::Write;
                    let _ = std::io::stderr().write_all(&written);
                }
                File::Path(handle) => http.log_files[handle.0 as usize].write(&written),
                // A log that cannot be written has nobody left to tell.
                File::Syslog(handle) => {
                    _ = http.syslogs[handle.0 as usize].send(Some(line.level.severity()), written.trim_ascii_end());
                }
            }
        }
    }
}

/// A path as the bytes that name a log file.
pub fn path_bytes(path: &std::path::Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{conf, fault};

    #[test]
    fn a_log_has_a_level_and_may_be_json() {
        let targets = conf("error_log a; error_log b warn json; error_log c json; error_log d debug_http debug_core;");
        let targets: Vec<_> = targets.error_log.targets.iter().map(|target| (target.level, target.json)).collect();
        assert_eq!(targets, [(Level::Err, false), (Level::Warn, true), (Level::Err, true), (Level::Debug, false)]);
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        for (text, message) in [
            ("error_log a loud;", "invalid log level \"loud\""),
            ("error_log a warn error;", "duplicate log level \"error\""),
            ("error_log a warn debug_http;", "invalid log level \"debug_http\""),
            ("error_log a debug_http warn;", "duplicate log level \"warn\""),
            ("error_log a json warn;", "invalid log level \"json\""),
            ("error_log memory:32m debug;", "nginx was built without debug support"),
        ] {
            assert_eq!(fault(text), message, "{text}");
        }
    }
}
