//! What this room drives: a program that reads a configuration and serves it. The room itself knows no directive.

use std::{future::Future, path::PathBuf, sync::Arc};

use super::{
    files::{LogFile, LogFiles},
    invocation::Invocation,
    keep::Keeper,
    log::Level,
    needs::{self, Needs},
    resources::Resources,
    syslog::{Syslog, Syslogs},
    worker::Thread,
};

/// The server behind the processes. One value exists in the master and one in each worker.
pub trait Program: Send + Sync + 'static {
    /// Everything one reading of the configuration produced. Shared by all threads.
    type Generation: Send + Sync + 'static;

    /// Reads the configuration. Called in the master and again in the worker with the same answers, so it must depend
    /// on nothing but its arguments.
    fn read(&self, invocation: &Invocation, resources: &mut dyn Resources) -> Reading<Self::Generation>;

    /// Hands a new generation what was opened for it, before any thread sees it. Called in the worker, which has its
    /// final user by then. An error keeps the old generation serving.
    fn install(&self, generation: &Arc<Self::Generation>, opened: &Opened) -> Result<(), String> {
        let _ = (generation, opened);
        Ok(())
    }

    /// Writes out what is buffered for logs: called before they are reopened and when the worker ends.
    fn flush(&self, generation: &Arc<Self::Generation>) {
        let _ = generation;
    }

    /// Serves on one thread, inside its own current-thread tokio runtime and `LocalSet`, until all is done after
    /// [`super::worker::Change::Quit`] or at once after [`super::worker::Change::Terminate`].
    fn serve(self: Arc<Self>, thread: Thread<Self::Generation>) -> impl Future<Output = ()>;
}

/// The outcome of reading a configuration.
#[derive(Debug)]
pub struct Reading<G> {
    /// What is wrong or worth a line, in the order to print.
    pub reports: Vec<Report>,
    /// Whether nginx would say `syntax is ok`: the text was read to its end without an `[emerg]`.
    pub syntax_ok: bool,
    /// `None` when there is an `[emerg]` among the reports.
    pub ready: Option<Ready<G>>,
    /// For `-T`: every file of the configuration, once, in the order of opening.
    pub dump: Vec<(PathBuf, Vec<u8>)>,
}

/// A configuration that can be used, and what it needs opened.
#[derive(Debug)]
pub struct Ready<G> {
    pub generation: Arc<G>,
    pub needs: Needs,
}

/// One line about the configuration, and the picture below it.
#[derive(Clone, Debug)]
pub struct Report {
    pub level: Level,
    /// nginx's words, place included, without `nginx: [emerg] `.
    pub text: Vec<u8>,
    /// For the console only: source line, carets, help. Empty when there is none or it is not wanted.
    pub picture: String,
    /// Whether it was found after the text was read; it then stands below `syntax is ok`.
    pub after_syntax: bool,
}

/// What was opened for a generation.
#[derive(Debug)]
pub struct Opened {
    pub(super) logs: LogFiles,
    pub(super) syslogs: Syslogs,
    pub(super) keeper: Arc<Keeper>,
}

impl Opened {
    /// The log the configuration names by this path.
    pub fn log(&self, path: &std::path::Path) -> Option<Arc<LogFile>> {
        self.logs.get(path).cloned()
    }

    /// Who has files written that the needs name as kept.
    pub fn keeper(&self) -> &Arc<Keeper> {
        &self.keeper
    }

    /// Who sends to a syslog server that the needs name.
    pub fn syslog(&self, need: &needs::Syslog) -> Option<Arc<Syslog>> {
        self.syslogs.get(need).cloned()
    }
}
