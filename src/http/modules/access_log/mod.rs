//! `access_log` and `log_format`: a line for each request that has ended.

mod buffer;
mod format;
mod named;

pub use buffer::{Buffering, flush_all, flush_due};
pub use format::{Format, escape_json};

use super::{Room, error_log::path_bytes};
use crate::{
    config::{
        Args, Directive, FromArgs, HTTP, Handle, Kind, LEVELS, LEVELS_IF, LIMIT_EXCEPT, List, Module, Scope, Slot,
        values::{parse_number, parse_size, parse_time},
    },
    http::{exchange::Exchange, level::Server, template::Template},
    observe::{
        error_log::Level,
        syslog::{self, SyslogSlot},
    },
    syntax::{Fault, Span, Word},
};
use format::Definition;
use std::{cell::Cell, ops::RangeInclusive, sync::Arc, time::Duration};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub logs: Logs,
    cache: named::Caching,
    formats: List<Definition>,
    /// What applies where no level says anything; stands at the http level, see [`complete`].
    default: Option<Target>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("log_format", HTTP, |conf| &mut conf.formats),
        Directive::new("access_log", LEVELS_IF.or(LIMIT_EXCEPT), |conf| &mut conf.logs),
        Directive::new("open_log_file_cache", LEVELS, |conf| &mut conf.cache),
    ];
}

impl Room for Conf {
    type State = ();
}

/// Adds what nothing in the configuration says: the predefined format, and the log of servers without one. For the
/// settings of the http level, when all levels were read and before variables are given their meaning.
pub fn complete(conf: &mut Conf, servers: &[Arc<Server>], scope: &Scope<'_>) {
    if servers.iter().any(|server| !server.base.settings.access_log.logs.said) {
        let at = servers.first().map_or_else(Span::default, |server| server.span);
        conf.default = Some(Target {
            file: LogName::Fixed(scope.refer(Kind::LogFile, path_bytes(&scope.surroundings.access_log), at)),
            format: scope.refer(Kind::LogFormat, format::COMBINED_NAME, at),
            buffer: None,
            condition: None,
        });
    }
    if scope.names(Kind::LogFormat).iter().any(|named| named.name.eq_ignore_ascii_case(format::COMBINED_NAME)) {
        // The predefined format stands before all others.
        conf.formats.0.insert(0, format::combined(scope));
    }
}

/// The formats by their handles, for [`crate::http::Http`]. A name that no `log_format` defines is a fault.
pub fn formats(conf: &Conf, scope: &Scope<'_>) -> Vec<Option<Arc<Format>>> {
    let find = |named: crate::config::scope::Named| {
        let same = |definition: &&Definition| definition.name.eq_ignore_ascii_case(&named.name);
        let found = conf.formats.iter().find(same).map(|definition| Arc::clone(&definition.format));
        if found.is_none() && named.defined.is_none() {
            let text = [b"unknown log format \"", &named.name[..], b"\""].concat();
            scope.fault(Fault::at(named.first_use, text));
        }
        found
    };
    scope.names(Kind::LogFormat).into_iter().map(find).collect()
}

thread_local! {
    /// The line being written; kept for its memory.
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The log phase: one line to each log of the location (`ngx_http_log_handler`).
pub fn write(exchange: &Exchange) {
    let logs = &exchange.location.settings.access_log.logs;
    let targets = if logs.said { &logs.targets[..] } else { exchange.http.settings.access_log.default.as_slice() };
    if logs.off || targets.is_empty() {
        return;
    }
    let mut line = LINE.take();
    for target in targets {
        target.write(exchange, &mut line);
    }
    LINE.set(line);
}

/// What the `access_log`s of a level say; one mention hides all that is above it.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    /// A level said something.
    said: bool,
    /// `access_log off`, which silences its neighbours too.
    off: bool,
    targets: Vec<Target>,
}

/// One `access_log`.
#[derive(Clone, Debug)]
struct Target {
    file: LogName,
    format: Handle,
    buffer: Option<Buffering>,
    condition: Option<Template>,
}

/// Where the lines go.
#[derive(Clone, Debug)]
enum LogName {
    Fixed(Handle),
    /// A complete path with variables in it.
    Variable(Template),
    Syslog(Handle),
}

impl Target {
    fn write(&self, exchange: &Exchange, line: &mut Vec<u8>) {
        line.clear();
        if let Some(condition) = &self.condition {
            condition.append(exchange, line);
            if matches!(&line[..], b"" | b"0") {
                return;
            }
            line.clear();
        }
        let http = &exchange.http;
        let Some(Some(format)) = http.log_formats.get(self.format.0 as usize) else { return };
        format.append(exchange, line);
        if !matches!(self.file, LogName::Syslog(_)) {
            line.push(b'\n');
        }
        match &self.file {
            LogName::Syslog(server) => send(exchange, &http.syslogs[server.0 as usize], line),
            LogName::Variable(name) => {
                let cache = exchange.location.settings.access_log.cache.0.as_deref();
                named::write(exchange, cache, &name.evaluate(exchange), line);
            }
            LogName::Fixed(file) => match (http.log_files.get(file.0 as usize), self.buffer) {
                (Some(file), None) => file.write(line),
                (Some(file), Some(how)) => buffer::write(file, how, line),
                (None, _) => {}
            },
        }
    }
}

/// Sends a line to a syslog server. What is lost is told, as nginx tells it, but not to whom it was lost.
fn send(exchange: &Exchange, server: &SyslogSlot, line: &[u8]) {
    let Err(lost) = server.send(None, line) else { return };
    let level = if lost.call == "send" { Level::Err } else { Level::Alert };
    exchange.http.log(level, &format!("{lost} while logging to syslog, server: {}", server.server()));
    exchange.log(Level::Warn, "send() to syslog failed while logging request");
}

impl Slot for Logs {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        if args.first {
            *self = Self { said: true, ..Self::default() };
        }
        if args.word(0).value != b"off" {
            self.targets.push(Target::from_args(args)?);
            return Ok(());
        }
        self.off = true;
        args.words().get(1).map_or(Ok(()), |word| Err(args.parameter(word)))
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        1..=usize::MAX
    }
}

impl FromArgs for Target {
    const TAKES: RangeInclusive<usize> = 1..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let path = args.word(0);
        let full = args.scope.path(&path.value);
        let file = match &path.value[..] {
            value if value.starts_with(syslog::PREFIX) => LogName::Syslog(syslog::refer(path, args.scope)?),
            value if value.contains(&b'$') => {
                LogName::Variable(Template::compile_text(path_bytes(&full), path, args.scope)?)
            }
            _ => LogName::Fixed(args.scope.refer(Kind::LogFile, path_bytes(&full), path.span)),
        };
        let (name, at) = match args.words().get(1) {
            Some(word) => (&word.value[..], word.span),
            None => (format::COMBINED_NAME, path.span),
        };
        let format = args.scope.refer(Kind::LogFormat, name, at);
        let mut target = Self { file, format, buffer: None, condition: None };
        let mut parameters = Parameters::default();
        for word in args.words().iter().skip(2) {
            match word.value.strip_prefix(b"if=") {
                Some(text) => target.condition = Some(Template::compile_text(text, word, args.scope)?),
                None => parameters.read(word, args)?,
            }
        }
        let text = |before: &[u8], after: &[u8]| [before, &path.value[..], after].concat();
        target.buffer = match (parameters.size, parameters.flush) {
            (Some(size), flush) => Some(Buffering { size, flush, gzip: parameters.gzip }),
            (None, None) => None,
            (None, Some(_)) => {
                return Err(Fault::at(path.span, text(b"no buffer is defined for access_log \"", b"\"")));
            }
        };
        match &target.file {
            LogName::Variable(_) if target.buffer.is_some() => {
                return Err(Fault::at(path.span, "buffered logs cannot have variables in name"));
            }
            LogName::Syslog(_) if target.buffer.is_some() => {
                return Err(Fault::at(path.span, "logs to syslog cannot be buffered"));
            }
            _ => {}
        }
        if let Some(buffer) = target.buffer
            && conflicts(args.scope, path_bytes(&full), buffer, path.span)
        {
            let text = text(b"access_log \"", b"\" already defined with conflicting parameters");
            return Err(Fault::at(path.span, text));
        }
        Ok(target)
    }
}

/// The parameters that say how a log is buffered.
#[derive(Default)]
struct Parameters {
    size: Option<usize>,
    flush: Option<Duration>,
    gzip: Option<u32>,
}

impl Parameters {
    fn read(&mut self, word: &Word, args: &Args<'_>) -> Result<(), Fault> {
        /// What is buffered where only `gzip` is said.
        const GZIP_SIZE: usize = 64 << 10;
        let invalid =
            |what: &[u8], text: &[u8]| Fault::at(word.span, [b"invalid ", what, b" \"", text, b"\""].concat());
        let value = &word.value[..];
        if let Some(text) = value.strip_prefix(b"buffer=") {
            let size = parse_size(text).filter(|size| *size > 0);
            self.size = Some(size.ok_or_else(|| invalid(b"buffer size", text))?);
        } else if let Some(text) = value.strip_prefix(b"flush=") {
            let flush = parse_time(text, true).filter(|flush| *flush > 0);
            self.flush = Some(Duration::from_millis(flush.ok_or_else(|| invalid(b"flush time", text))?));
        } else if value == b"gzip" {
            self.size.get_or_insert(GZIP_SIZE);
            self.gzip = Some(1);
        } else if let Some(text) = value.strip_prefix(b"gzip=") {
            self.size.get_or_insert(GZIP_SIZE);
            let level = parse_number(text).and_then(|level| u32::try_from(level).ok());
            let level = level.filter(|level| (1..=9).contains(level));
            self.gzip = Some(level.ok_or_else(|| invalid(b"compression level", text))?);
        } else {
            return Err(args.parameter(word));
        }
        Ok(())
    }
}

/// Whether another `access_log` buffers the same file in another way. The buffer is the file's, not the directive's.
fn conflicts(scope: &Scope<'_>, path: &[u8], buffer: Buffering, at: Span) -> bool {
    let way = [path, format!("\0{buffer:?}").as_bytes()].concat();
    let (_, earlier) = scope.define(Kind::LogBuffer, path, at);
    let conflict = earlier.is_some() && scope.find(Kind::LogBuffer, &way).is_none();
    scope.refer(Kind::LogBuffer, &way, at);
    conflict
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{conf, fault};
    use std::time::Duration;

    #[test]
    fn a_level_hides_what_stands_above_it() {
        let logs = conf("access_log a; access_log b combined buffer=4k flush=1m gzip;").access_log.logs.clone();
        let buffer = logs.targets[1].buffer.unwrap();
        assert_eq!((logs.targets.len(), logs.targets[0].buffer), (2, None));
        assert_eq!((buffer.size, buffer.flush, buffer.gzip), (4096, Some(Duration::from_secs(60)), Some(1)));
        let logs = conf("access_log a; access_log off;").access_log.logs.clone();
        assert!(logs.said && logs.off);
        assert!(!conf("").access_log.logs.said);
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        for (text, message) in [
            ("access_log off main;", "invalid parameter \"main\""),
            ("access_log a combined x;", "invalid parameter \"x\""),
            ("access_log a combined buffer=0;", "invalid buffer size \"0\""),
            ("access_log a combined buffer=4k flush=x;", "invalid flush time \"x\""),
            ("access_log a combined gzip=10;", "invalid compression level \"10\""),
            ("access_log a combined flush=1s;", "no buffer is defined for access_log \"a\""),
            (
                "access_log a combined buffer=4k; access_log a combined buffer=8k;",
                "access_log \"a\" already defined with conflicting parameters",
            ),
            ("access_log syslog:server=127.0.0.1 combined buffer=4k;", "logs to syslog cannot be buffered"),
            ("access_log a nothing;", "unknown log format \"nothing\""),
        ] {
            assert_eq!(fault(text), message, "{text}");
        }
    }
}
