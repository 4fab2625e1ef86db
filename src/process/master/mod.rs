//! The master: keeps a worker serving, and listens to signals and to `-s reload` (`ngx_master_process_cycle`).
//! One thread, one loop; nothing in it waits for the worker.

mod child;
mod cycle;
mod keeping;
mod life;
mod reload;
mod upgrade;

use std::{
    os::fd::AsFd,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use self::child::{Standing, Worker};
pub(super) use self::cycle::Cycle;
use super::{
    channel::Kind,
    command::{Client, Office},
    daemon::Waiting,
    errno::Errno,
    files,
    invocation::Invocation,
    keep::Arriving,
    log::{self, Level, Log},
    pid,
    program::Program,
    signals::Signals,
    sys,
};

/// The pause before a worker that did not even start is started again.
const RETRY: Duration = Duration::from_secs(1);

/// What the master was born with.
pub(super) struct Birth {
    pub invocation: Invocation,
    pub log: Log,
    pub signals: Signals,
    /// The process that waits for the server to serve.
    pub waiting: Waiting,
    /// Whether it left the terminal, or an old binary started it.
    pub daemonized: bool,
    /// An old binary started it.
    pub inherited: bool,
    /// The parent at the start; while it is the same in an upgraded binary, the old master still runs.
    pub parent: i32,
}

/// The master's state.
pub(super) struct Master<P: Program> {
    program: Arc<P>,
    birth: Birth,
    /// The configuration in force.
    cycle: Cycle,
    workers: Vec<Worker>,
    /// A reload the worker has not answered yet.
    pending: Option<reload::Pending>,
    /// Reloads that were asked for meanwhile.
    queued: Option<Vec<Client>>,
    office: Option<Office>,
    /// Whether a worker has ever served.
    served: bool,
    /// When to start a worker again that did not start.
    retry_at: Option<Instant>,
    /// WINCH: the workers were sent away and none is to be started.
    resting: bool,
    quitting: bool,
    terminating: Option<life::Terminating>,
    /// USR2: the process of the new binary.
    new_binary: Option<i32>,
    /// Texts of files that are kept, as far as they have come.
    arriving: Arriving,
    /// Set when the loop is to end.
    over: Option<ExitCode>,
}

/// Runs the master of `cycle` until the end.
pub(super) fn run<P: Program>(program: Arc<P>, birth: Birth, cycle: Cycle) -> ExitCode {
    let office = Office::open(&cycle.needs.pid);
    let mut master = Master {
        program,
        birth,
        cycle,
        workers: Vec::new(),
        pending: None,
        queued: None,
        office,
        served: false,
        retry_at: None,
        resting: false,
        quitting: false,
        terminating: None,
        new_binary: None,
        arriving: Arriving::default(),
        over: None,
    };
    master.announce();
    master.start_worker();
    loop {
        if let Some(code) = master.over {
            return code;
        }
        master.turn();
    }
}

impl<P: Program> Master<P> {
    /// Waits for something to happen and does it.
    fn turn(&mut self) {
        let mut sources = vec![self.birth.signals.as_fd()];
        sources.extend(self.office.as_ref().map(AsFd::as_fd));
        let first_channel = sources.len();
        let listening: Vec<usize> =
            (0..self.workers.len()).filter(|&index| self.workers[index].channel.is_some()).collect();
        sources.extend(listening.iter().filter_map(|&index| Some(self.workers[index].channel.as_ref()?.as_fd())));
        let ready = sys::wait_readable(&sources, self.next_timer());
        drop(sources);

        // Messages before signals: a worker's last words come before the news of its death.
        for (&index, _) in listening.iter().zip(&ready[first_channel..]).filter(|(_, ready)| **ready).rev() {
            self.hear(index);
        }
        for signal in self.birth.signals.take() {
            self.signal(signal);
        }
        while let Some(client) = self.office.as_ref().and_then(Office::next) {
            self.asked_to_reload(client);
        }
        self.timers();
        if self.queued.is_some() && self.pending.is_none() && !self.is_starting() {
            self.reload();
        }
        if self.workers.is_empty() && self.is_ending() {
            self.exit(ExitCode::SUCCESS);
        }
    }

    /// How long the loop may sleep.
    fn next_timer(&self) -> Option<Duration> {
        let termination = self.terminating.as_ref().map(|terminating| terminating.next);
        let next = [self.retry_at, termination].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn timers(&mut self) {
        let now = Instant::now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.start_worker();
        }
        if self.terminating.as_ref().is_some_and(|terminating| terminating.next <= now) {
            self.terminate_harder();
        }
    }

    fn is_ending(&self) -> bool {
        self.quitting || self.terminating.is_some()
    }

    /// Whether somebody serves or is about to.
    fn is_staffed(&self) -> bool {
        self.workers.iter().any(|worker| worker.standing != Standing::Leaving)
    }

    fn is_starting(&self) -> bool {
        self.workers.iter().any(|worker| worker.standing == Standing::Starting)
    }

    /// A message from worker `index`, or the end of its channel.
    fn hear(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        let message = worker.channel.as_ref().map_or(Ok(None), |channel| channel.receive());
        let id = worker.id;
        match message {
            Ok(Some(message)) => match message.kind {
                Kind::Serving => self.serving(id),
                Kind::Fault => self.fault(id, &message.body),
                Kind::PleaseReopen => self.reopen(),
                Kind::Keep => self.keep(index, &message.body),
                Kind::Serve | Kind::Reopen | Kind::Quit | Kind::Terminate | Kind::Refused | Kind::Kept => {}
            },
            Ok(None) => self.silent(index),
            Err(error) => {
                let errno = Errno::from(error);
                self.birth.log.write(Level::Alert, format!("recvmsg() from a worker process failed ({errno})"));
                worker.kill(libc::SIGKILL, &self.birth.log);
                self.silent(index);
            }
        }
    }

    /// A channel ended. A process is waited for; a worker inside this process is gone with it.
    fn silent(&mut self, index: usize) {
        self.workers[index].channel = None;
        if self.workers[index].is_inside() {
            let worker = self.workers.remove(index);
            if worker.standing != Standing::Leaving {
                self.birth.log.write(Level::Alert, "the worker ended unexpectedly");
                self.exit(ExitCode::FAILURE);
            }
        }
    }

    /// A worker says that what it was sent serves.
    fn serving(&mut self, id: u64) {
        if let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == id)
            && worker.standing == Standing::Starting
        {
            worker.standing = Standing::Serving;
        }
        if self.pending.as_ref().is_some_and(|pending| pending.worker == id) {
            self.commit();
        }
        if !self.served {
            self.served = true;
            self.birth.waiting.release();
            self.redirect_stderr();
            self.birth.log.leave_console();
        }
    }

    /// A worker says why it cannot serve what it was sent.
    fn fault(&mut self, id: u64, text: &[u8]) {
        self.birth.log.write(Level::Emerg, text);
        if self.pending.as_ref().is_some_and(|pending| pending.worker == id) {
            // One that was started for the new configuration ends by itself.
            for worker in self.workers.iter_mut().filter(|worker| worker.id == id) {
                if worker.standing == Standing::Starting {
                    worker.standing = Standing::Leaving;
                }
            }
            self.roll_back();
        }
    }

    /// Starts a worker for the configuration in force.
    fn start_worker(&mut self) {
        self.birth.log.write(Level::Notice, "start worker processes");
        match self.spawn(&self.cycle) {
            Some(worker) => self.workers.push(worker),
            None if self.served => self.retry_at = Some(Instant::now() + RETRY),
            None => self.exit(ExitCode::FAILURE),
        }
    }

    /// Standard error goes to the error log from now on, unless that is standard error.
    fn redirect_stderr(&self) {
        if let Some(file) = self.birth.log.main_file()
            && let Err(errno) = log::redirect_stderr(file)
        {
            self.birth.log.write(Level::Alert, format!("dup2(STDERR) failed ({errno})"));
        }
    }

    /// Reopens the logs here and hands them to the workers.
    fn reopen(&mut self) {
        self.birth.log.write(Level::Notice, "reopening logs");
        let owner = self.cycle.needs.identity.user.as_ref().filter(|_| self.cycle.needs.master_process);
        let owner = owner.filter(|_| sys::is_superuser()).map(|user| user.uid);
        files::reopen(&self.cycle.logs, owner, &self.birth.log);
        self.redirect_stderr();
        let (names, descriptors) = self.cycle.log_descriptors();
        let body = super::bundle::encode_handles(&names);
        for worker in &self.workers {
            worker.send(Kind::Reopen, &body, &descriptors, &self.birth.log);
        }
    }

    /// Ends the loop: the pid file and the sockets go.
    fn exit(&mut self, code: ExitCode) {
        if self.over.is_some() {
            return;
        }
        self.abandon("the master process is ending");
        let pid_file = &self.cycle.needs.pid;
        match self.new_binary {
            Some(_) => pid::delete(&pid::old(pid_file), &self.birth.log),
            None => pid::delete(pid_file, &self.birth.log),
        }
        self.birth.log.write(Level::Notice, "exit");
        self.close_listeners();
        self.over = Some(code);
    }

    /// Closes the listening sockets here. The files of Unix sockets go unless another binary, older or newer, uses them
    /// (`ngx_close_listening_sockets`).
    fn close_listeners(&mut self) {
        let listeners = std::mem::take(&mut self.cycle.listeners);
        if self.new_binary.is_none() {
            let old_binary_runs = self.birth.inherited && sys::parent_id() == self.birth.parent;
            listeners.delete_files(!old_binary_runs, &self.birth.log);
        }
    }

    /// The lines nginx writes when it starts.
    fn announce(&self) {
        let log = &self.birth.log;
        log.write(Level::Notice, "using the \"epoll\" event method");
        log.write(Level::Notice, crate::cli::server_version());
        log.write(Level::Notice, format!("OS: {}", sys::kernel()));
        let (soft, hard) = super::user::open_files_limit();
        log.write(Level::Notice, format!("getrlimit(RLIMIT_NOFILE): {soft}:{hard}"));
    }
}
