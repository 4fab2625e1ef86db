//! A reload: read and open in the master, serve in the worker, and only then let go of the old (`ngx_init_cycle`).

use super::{
    Cycle, Master,
    child::{Standing, Worker},
};
use crate::process::{
    bundle::Bundle,
    channel::Kind,
    command::Client,
    files,
    log::Level,
    pid,
    program::{Program, Ready},
    resources::{Facts, Recorder},
};

/// So much is told of what is wrong with a configuration.
const MOST_SAID: usize = 4096;

/// A reload that waits for the worker.
#[derive(Debug)]
pub(super) struct Pending {
    pub cycle: Cycle,
    /// Who is to serve it, by [`Worker::id`].
    pub worker: u64,
    /// Whether that worker was started for it, and takes the place of the others.
    fresh: bool,
    clients: Vec<Client>,
    /// The pid file was moved to another name already.
    pid_moved: bool,
}

impl<P: Program> Master<P> {
    /// Reads the configuration again and, when it is fine and everything opened, hands it to the worker.
    pub(super) fn reload(&mut self) {
        let Some(clients) = self.queued.take() else { return };
        self.birth.log.capture();
        self.birth.log.write(Level::Notice, "reconfiguring");
        match self.prepare() {
            Some(cycle) => self.hand_over(cycle, clients),
            None => {
                let lines = self.birth.log.captured();
                self.tell_why_not(&lines);
                answer(clients, false, &lines);
            }
        }
    }

    /// The new cycle, with everything opened; faults are logged.
    fn prepare(&mut self) -> Option<Cycle> {
        let mut resources = Recorder::live(Facts::gather());
        let reading = self.program.read(&self.birth.invocation, &mut resources);
        for report in &reading.reports {
            self.birth.log.write(report.level, &report.text);
        }
        let Ready { needs, generation: _ } = reading.ready?;
        if needs.master_process != self.cycle.needs.master_process || needs.daemon != self.cycle.needs.daemon {
            let text = "\"daemon\" and \"master_process\" take effect at the next start only";
            self.birth.log.write(Level::Warn, text);
        }
        let (facts, answers) = resources.into_parts();
        let bundle = Bundle { facts, answers, ..self.cycle.bundle.clone() };
        let mut needs = needs;
        needs.master_process = self.cycle.needs.master_process;
        Cycle::open(bundle, needs, &self.cycle.listeners, false, &self.birth.log).ok()
    }

    /// Tells whoever serves that it goes on as before, so that it can say so when it is asked.
    fn tell_why_not(&self, lines: &[u8]) {
        let serving = self.workers.iter().find(|worker| worker.standing == Standing::Serving);
        if let Some(worker) = serving {
            worker.send(Kind::Refused, &lines[..lines.len().min(MOST_SAID)], &[], &self.birth.log);
        }
    }

    fn hand_over(&mut self, cycle: Cycle, clients: Vec<Client>) {
        let log = &self.birth.log;
        let pid_moved = cycle.needs.pid != self.cycle.needs.pid;
        if pid_moved && pid::write(&cycle.needs.pid, false, log).is_err() {
            cycle.listeners.delete_files_beyond(&self.cycle.listeners, log);
            let lines = log.captured();
            self.tell_why_not(&lines);
            answer(clients, false, &lines);
            return;
        }
        let same = cycle.needs.identity == self.cycle.needs.identity || !cycle.needs.master_process;
        let serving = |worker: &&Worker| worker.standing == Standing::Serving;
        let (worker, fresh) = match self.workers.iter().find(serving).filter(|_| same) {
            Some(worker) => {
                let (body, descriptors) = cycle.message();
                if !worker.send(Kind::Serve, &body, &descriptors, log) {
                    // Half a message cannot be taken back: it is replaced by one with the old configuration.
                    worker.kill(libc::SIGKILL, log);
                }
                (Some(worker.id), false)
            }
            None => {
                let worker = self.spawn(&cycle);
                let id = worker.as_ref().map(|worker| worker.id);
                self.workers.extend(worker);
                (id, true)
            }
        };
        let pending = Pending { cycle, worker: worker.unwrap_or(u64::MAX), fresh, clients, pid_moved };
        self.pending = Some(pending);
        if worker.is_none() {
            self.roll_back();
        }
    }

    /// The new configuration serves: it is the one in force now, and what only the old one had is closed.
    pub(super) fn commit(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        let old = std::mem::replace(&mut self.cycle, pending.cycle);
        if pending.fresh {
            for worker in self.workers.iter_mut().filter(|worker| worker.id != pending.worker) {
                worker.dismiss(&self.birth.log);
            }
        }
        self.retry_at = None;
        self.resting = false;
        self.birth.log.redirect(files::outputs(&self.cycle.needs.error_logs, &self.cycle.logs));
        self.redirect_stderr();
        let log = &self.birth.log;
        if pending.pid_moved {
            pid::delete(&old.needs.pid, log);
            if let Some(office) = &mut self.office {
                office.follow(&self.cycle.needs.pid);
            }
        }
        old.listeners.delete_files_beyond(&self.cycle.listeners, log);
        drop(old);
        answer(pending.clients, true, &log.captured());
    }

    /// The new configuration does not serve: what it opened is closed again.
    pub(super) fn roll_back(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        let log = &self.birth.log;
        pending.cycle.listeners.delete_files_beyond(&self.cycle.listeners, log);
        if pending.pid_moved {
            pid::delete(&pending.cycle.needs.pid, log);
        }
        if pending.fresh
            && let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == pending.worker)
        {
            worker.dismiss(log);
        }
        answer(pending.clients, false, &log.captured());
        if !self.is_staffed() && !self.is_ending() && !self.resting && self.retry_at.is_none() {
            self.start_worker();
        }
    }

    /// Gives up a reload that is under way, and those that wait, for a reason.
    pub(super) fn abandon(&mut self, why: &str) {
        if self.pending.is_some() {
            self.birth.log.write(Level::Err, why);
            self.roll_back();
        }
        if let Some(clients) = self.queued.take_if(|_| self.quitting || self.terminating.is_some()) {
            answer(clients, false, format!("nginx: [error] {why}\n").as_bytes());
        }
    }
}

fn answer(clients: Vec<Client>, serves: bool, lines: &[u8]) {
    for client in clients {
        client.answer(serves, lines);
    }
}
