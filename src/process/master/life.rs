//! What signals and the deaths of children mean to the master.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use super::{Master, RETRY, child::Standing};
use crate::process::{
    channel::Kind,
    command::Client,
    log::Level,
    program::Program,
    signals::Signal,
    sys::{self, Ended},
};

/// TERM: how long until the workers are told again, harder.
#[derive(Debug)]
pub(super) struct Terminating {
    pub next: Instant,
    delay: Duration,
}

/// The first pause; each next is twice as long, and beyond [`LAST_DELAY`] workers are killed (as in nginx).
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LAST_DELAY: Duration = Duration::from_secs(1);

/// The exit code of a worker that must not be started again at once.
const FATAL: i32 = 2;

impl<P: Program> Master<P> {
    /// One signal (`ngx_signal_handler` and the flags it sets).
    pub(super) fn signal(&mut self, signal: Signal) {
        let ignoring = signal.number == libc::SIGUSR2 && self.refuses_upgrade();
        let action = match signal.number {
            libc::SIGQUIT => ", shutting down",
            libc::SIGTERM | libc::SIGINT => ", exiting",
            libc::SIGWINCH if self.birth.daemonized => ", stop accepting connections",
            libc::SIGHUP => ", reconfiguring",
            libc::SIGUSR1 => ", reopening logs",
            libc::SIGUSR2 if ignoring => ", ignoring",
            libc::SIGUSR2 => ", changing binary",
            _ => "",
        };
        self.birth.log.write(Level::Notice, signal.describe(action));
        match signal.number {
            libc::SIGCHLD => self.reap(),
            libc::SIGTERM | libc::SIGINT => self.terminate(),
            libc::SIGQUIT => self.quit(),
            libc::SIGHUP => self.reconfigure(),
            libc::SIGUSR1 => self.reopen(),
            libc::SIGUSR2 if ignoring => self.birth.log.write(
                Level::Crit,
                "the changing binary signal is ignored: you should shutdown or terminate before either old or new \
                 binary's process",
            ),
            libc::SIGUSR2 => self.upgrade(),
            libc::SIGWINCH if self.birth.daemonized => self.rest(),
            _ => {}
        }
    }

    /// QUIT: no new connections, finish what is under way.
    fn quit(&mut self) {
        if self.is_ending() {
            return;
        }
        self.quitting = true;
        self.retry_at = None;
        self.abandon("the master process is ending");
        self.dismiss_workers();
        self.close_listeners();
    }

    /// TERM and INT: end now.
    fn terminate(&mut self) {
        if self.terminating.is_some() {
            return;
        }
        self.terminating = Some(Terminating { next: Instant::now() + FIRST_DELAY, delay: FIRST_DELAY });
        self.retry_at = None;
        self.abandon("the master process is ending");
        for worker in &mut self.workers {
            worker.standing = Standing::Leaving;
            if !worker.send(Kind::Terminate, b"", &[], &self.birth.log) {
                worker.kill(libc::SIGTERM, &self.birth.log);
            }
        }
    }

    /// The workers have not ended yet.
    pub(super) fn terminate_harder(&mut self) {
        let Some(terminating) = &mut self.terminating else { return };
        terminating.delay *= 2;
        terminating.next = Instant::now() + terminating.delay;
        let kill = terminating.delay > LAST_DELAY;
        for worker in &self.workers {
            worker.kill(if kill { libc::SIGKILL } else { libc::SIGTERM }, &self.birth.log);
        }
        if kill {
            // Those inside this process end with it.
            self.workers.retain(|worker| !worker.is_inside());
        }
    }

    /// WINCH: the workers finish and the master stays, as the old binary does during an upgrade.
    fn rest(&mut self) {
        if self.cycle.needs.master_process {
            self.resting = true;
            self.retry_at = None;
            self.abandon("the workers were told to stop accepting connections");
            self.dismiss_workers();
        }
    }

    fn dismiss_workers(&mut self) {
        for worker in &mut self.workers {
            worker.dismiss(&self.birth.log);
        }
    }

    /// HUP. While a new binary runs, it only brings the workers back.
    fn reconfigure(&mut self) {
        if self.new_binary.is_some() {
            if self.resting {
                self.resting = false;
                self.start_worker();
            }
            return;
        }
        self.queued.get_or_insert_default();
    }

    /// `-s reload`: as HUP, and somebody waits for the outcome.
    pub(super) fn asked_to_reload(&mut self, client: Client) {
        let signal = Signal { number: libc::SIGHUP, sender: client.pid };
        self.birth.log.write(Level::Notice, signal.describe(", reconfiguring"));
        if self.is_ending() {
            client.answer(false, b"nginx: [error] the master process is ending\n");
        } else if self.new_binary.is_some() {
            self.reconfigure();
            client.answer(true, b"");
        } else {
            self.queued.get_or_insert_default().push(client);
        }
    }

    /// Takes note of every child that ended.
    fn reap(&mut self) {
        while let Some((pid, ended)) = sys::reap() {
            let worker = self.workers.iter().position(|worker| worker.pid == Some(pid));
            let name = match worker {
                Some(_) => "worker process",
                None if self.new_binary == Some(pid) => "new binary process",
                None => "unknown process",
            };
            let (level, how) = match ended {
                Ended::Signal { number, core } => {
                    let core = if core { " (core dumped)" } else { "" };
                    (Level::Alert, format!("on signal {number}{core}"))
                }
                Ended::Code(code) => (Level::Notice, format!("with code {code}")),
            };
            self.birth.log.write(level, format!("{name} {pid} exited {how}"));
            if let Some(index) = worker {
                self.hear_last_words(index);
                self.bury(pid, ended);
            } else if self.new_binary == Some(pid) {
                self.upgrade_ended();
            }
        }
    }

    /// What a dead worker sent before it died is still in its channel.
    fn hear_last_words(&mut self, index: usize) {
        let id = self.workers[index].id;
        loop {
            let alive = |worker: &super::child::Worker| worker.id == id && worker.channel.is_some();
            let Some(index) = self.workers.iter().position(alive) else { return };
            self.hear(index);
        }
    }

    fn bury(&mut self, pid: i32, ended: Ended) {
        let Some(index) = self.workers.iter().position(|worker| worker.pid == Some(pid)) else { return };
        let worker = self.workers.remove(index);
        if self.pending.as_ref().is_some_and(|pending| pending.worker == worker.id) {
            self.abandon("the worker process ended before the new configuration served");
        }
        if self.is_ending() || self.resting || self.is_staffed() {
            return;
        }
        match worker.standing {
            Standing::Leaving => {}
            Standing::Serving => {
                self.cycle.bundle.respawned += 1;
                self.start_worker();
            }
            Standing::Starting if self.served => {
                if ended == Ended::Code(FATAL) {
                    let text = format!("worker process {pid} exited with fatal code {FATAL}, trying again in a second");
                    self.birth.log.write(Level::Alert, text);
                }
                self.retry_at = Some(Instant::now() + RETRY);
            }
            Standing::Starting => {
                if !matches!(ended, Ended::Code(FATAL)) {
                    self.birth.log.write(Level::Emerg, "the worker process ended before it served");
                }
                self.exit(ExitCode::FAILURE);
            }
        }
    }
}
