//! The main level and `events`: what concerns the process, not any request.

use crate::{
    config::{
        Args, Directive, EVENTS, FromArgs, List, MAIN, Module, Registry,
        values::{Msec, Offset, parse_number},
    },
    http::modules::error_log,
    syntax::{Fault, Word},
};
use std::{ops::RangeInclusive, path::PathBuf, sync::Arc};

/// The settings of the main level.
#[derive(Clone, Default)]
pub struct Settings {
    pub main: Arc<Main>,
    pub events: Arc<Events>,
    pub error_log: Arc<error_log::Conf>,
}

/// What the process is told.
#[derive(Clone, Debug)]
pub struct Main {
    pub daemon: bool,
    pub master_process: bool,
    pub user: Option<User>,
    pub pid: Option<PathBuf>,
    pub worker_processes: Processes,
    pub worker_priority: Priority,
    pub worker_rlimit_nofile: Option<usize>,
    pub worker_rlimit_core: Option<Offset>,
    pub worker_shutdown_timeout: Option<Msec>,
    pub working_directory: Option<PathBuf>,
    pub env: List<Variable>,
    pub load_module: List<LoadModule>,
}

impl Default for Main {
    fn default() -> Self {
        Self {
            daemon: true,
            master_process: true,
            user: None,
            pid: None,
            worker_processes: Processes::Number(1),
            worker_priority: Priority(0),
            worker_rlimit_nofile: None,
            worker_rlimit_core: None,
            worker_shutdown_timeout: None,
            working_directory: None,
            env: List::default(),
            load_module: List::default(),
        }
    }
}

impl Module for Main {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("daemon", MAIN, |main| &mut main.daemon),
        Directive::new("master_process", MAIN, |main| &mut main.master_process),
        Directive::new("user", MAIN, |main| &mut main.user),
        Directive::new("pid", MAIN, |main| &mut main.pid),
        Directive::new("worker_processes", MAIN, |main| &mut main.worker_processes),
        Directive::new("worker_priority", MAIN, |main| &mut main.worker_priority),
        Directive::new("worker_rlimit_nofile", MAIN, |main| &mut main.worker_rlimit_nofile),
        Directive::new("worker_rlimit_core", MAIN, |main| &mut main.worker_rlimit_core),
        Directive::new("worker_shutdown_timeout", MAIN, |main| &mut main.worker_shutdown_timeout),
        Directive::new("working_directory", MAIN, |main| &mut main.working_directory),
        Directive::new("env", MAIN, |main| &mut main.env),
        Directive::new("load_module", MAIN, |main| &mut main.load_module),
    ];
}

/// The `events` block.
#[derive(Clone, Debug)]
pub struct Events {
    pub worker_connections: Connections,
    pub method: Option<Method>,
}

impl Default for Events {
    fn default() -> Self {
        Self { worker_connections: Connections(512), method: None }
    }
}

impl Module for Events {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("worker_connections", EVENTS, |events| &mut events.worker_connections),
        Directive::new("use", EVENTS, |events| &mut events.method),
    ];
}

/// All directives of the main level and of `events`.
pub fn registry() -> Registry<Settings> {
    let mut registry = Registry::default();
    registry.add(|settings: &mut Settings| &mut settings.main);
    registry.add(|settings: &mut Settings| &mut settings.events);
    registry.add(|settings: &mut Settings| &mut settings.error_log);
    registry
}

/// `worker_processes`: here, threads of the one worker process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processes {
    /// One for each processor.
    Auto,
    Number(usize),
}

impl FromArgs for Processes {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        if word.value == b"auto" {
            return Ok(Self::Auto);
        }
        parse_number(&word.value).map(Self::Number).ok_or_else(|| args.directive(word, "invalid value"))
    }
}

/// `worker_connections`: how many connections may be open at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections(pub usize);

impl FromArgs for Connections {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let invalid = || Fault::at(word.span, [b"invalid number \"", &word.value[..], b"\""].concat());
        parse_number(&word.value).map(Self).ok_or_else(invalid)
    }
}

/// `use`: how the kernel tells of events. Whatever is named, it is epoll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method;

impl FromArgs for Method {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        match &word.value[..] {
            b"epoll" | b"poll" | b"select" => Ok(Self),
            _ => Err(Fault::at(word.span, [b"invalid event type \"", &word.value[..], b"\""].concat())),
        }
    }
}

/// `worker_priority`: as `nice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority(pub i32);

impl FromArgs for Priority {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let (sign, digits) = match word.value.strip_prefix(b"-") {
            Some(digits) => (-1, digits),
            None => (1, word.value.strip_prefix(b"+").unwrap_or(&word.value)),
        };
        let number = parse_number(digits).and_then(|number| i32::try_from(number).ok());
        number.map(|number| Self(sign * number)).ok_or_else(|| args.directive(word, "invalid number"))
    }
}

/// `user name [group]`: whom the worker becomes.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    pub name: Word,
    pub group: Option<Word>,
}

impl FromArgs for User {
    const TAKES: RangeInclusive<usize> = 1..=2;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        if !args.scope.surroundings.superuser {
            let text = "the \"user\" directive makes sense only if the master process runs with super-user privileges, ignored";
            args.scope.fault(Fault::at(args.statement.name.span, text).warn());
        }
        Ok(Self { name: args.word(0).clone(), group: args.words().get(1).cloned() })
    }
}

/// `env NAME[=value]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable(pub Vec<u8>);

impl FromArgs for Variable {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        Ok(Self(args.word(0).value.clone()))
    }
}

impl FromArgs for PathBuf {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        Ok(args.scope.path(&args.word(0).value))
    }
}

/// `load_module`: there are no loadable modules here. What a module brings is built in, or is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadModule;

/// Dynamic modules whose features are built in.
const BUILT_IN: [&str; 0] = [];

impl FromArgs for LoadModule {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let text = word.text();
        let name = text.rsplit('/').next().unwrap_or(&text).trim_end_matches(".so");
        if !BUILT_IN.contains(&name) {
            let text = format!("module \"{name}\" is not built in and cannot be loaded, ignored");
            let fault = Fault::at(word.span, text).warn();
            args.scope.fault(fault.help("its directives, if the configuration uses any, are refused where they stand"));
        }
        Ok(Self)
    }
}
