//! The worker: takes a bundle from the master, builds the generation from it, and serves it on its threads.
//! As a process of its own it drops to `user` first; with `master_process off` the same code runs on a thread.

mod control;
mod threads;

use std::{
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

pub use self::control::{Change, Changes, Current, Done, Listener, Socket, Thread};
use self::threads::{State, Threads};
use super::{
    bundle::{Bundle, Handle, decode_handles},
    channel::{Channel, Kind, Message},
    errno::Errno,
    files::{self, LogFile, LogFiles},
    keep::{Keeper, Piece, Receipt},
    log::{self, Level, Log},
    needs::Needs,
    program::{Opened, Program, Ready},
    reloads,
    resources::Recorder,
    signals::{Signal, Signals},
    sys,
    syslog::Syslog,
    title::Title,
    user,
};

/// Tells a process that it is a worker, and the number of its channel.
pub const VARIABLE: &str = "TIDEGATE_WORKER";

/// The exit code of a worker that could not start: nginx calls it fatal and does not start another at once.
const FATAL: u8 = 2;

/// How many workers before this one ended although nobody told them to.
static RESPAWNED: AtomicU64 = AtomicU64::new(0);

/// How many workers before this one ended although nobody told them to.
pub fn respawned() -> u64 {
    RESPAWNED.load(Relaxed)
}

/// How long threads may take to end when told to end at once.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// Serves, when this process was started as a worker; `None` when it was not. Must come first in `main`.
pub fn enter<P: Program>(make: impl FnOnce() -> P) -> Option<ExitCode> {
    let number = std::env::var(VARIABLE).ok()?.parse().ok()?;
    let title = Title::prepare();
    let channel = sys::adopt(number).and_then(|descriptor| Ok(Channel::inherited(descriptor)?));
    let code = match (channel, Signals::install()) {
        (Ok(channel), Ok(signals)) => run(Arc::new(make()), &channel, &Role::Process { signals, title }),
        _ => FATAL,
    };
    Some(ExitCode::from(code))
}

/// Serves inside the master's process, for `master_process off`; returns when all is done.
pub(super) fn run_inside<P: Program>(program: Arc<P>, channel: &Channel) {
    run(program, channel, &Role::Inside);
}

/// What this worker is.
enum Role {
    /// A process of its own.
    Process { signals: Signals, title: Title },
    /// A part of the master's process, which has the signals, the identity and the title.
    Inside,
}

/// The worker's state between two messages.
struct Worker<'a, P: Program> {
    program: Arc<P>,
    channel: &'a Channel,
    role: &'a Role,
    log: Log,
    logs: LogFiles,
    needs: Needs,
    threads: Threads<P>,
    keeper: Arc<Keeper>,
    daemonized: bool,
    /// When `worker_shutdown_timeout` is over.
    deadline: Option<Instant>,
}

fn run<P: Program>(program: Arc<P>, channel: &Channel, role: &Role) -> u8 {
    let first = match channel.receive() {
        Ok(Some(message)) if message.kind == Kind::Serve => message,
        // The master is gone, or talks nonsense: there is nobody to tell.
        _ => return FATAL,
    };
    match start(program, channel, role, first) {
        Ok(mut worker) => {
            if channel.send(Kind::Serving, b"", &[]).is_err() {
                return 0;
            }
            reloads::began();
            worker.redirect_stderr();
            worker.live()
        }
        Err(text) => {
            let _ = channel.send(Kind::Fault, text.as_bytes(), &[]);
            FATAL
        }
    }
}

/// From the first bundle to threads that serve.
fn start<'a, P: Program>(
    program: Arc<P>,
    channel: &'a Channel,
    role: &'a Role,
    message: Message,
) -> Result<Worker<'a, P>, String> {
    let (bundle, descriptors) = unpack(message)?;
    let daemonized = bundle.daemonized;
    RESPAWNED.store(bundle.respawned, Relaxed);
    let process_name = bundle.process_name.clone();
    let environment_of = |needs: &Needs| needs.identity.environment();
    let ready = read(&*program, bundle)?;
    let mut logs = LogFiles::new();
    adopt_logs(&mut logs, &descriptors).map_err(|errno| format!("dup() of a log failed ({errno})"))?;
    let log = Log::to(files::outputs(&ready.needs.error_logs, &logs));
    if let Role::Process { title, .. } = role {
        sys::set_process_name(&process_name);
        title.set(b"worker process");
        sys::set_environment(&environment_of(&ready.needs));
        user::become_worker(&ready.needs.identity, ready.needs.threads(), &log).map_err(|error| error.to_string())?;
    }
    let keeper = Keeper::new().map_err(|errno| format!("pipe() failed ({errno})"))?;
    let opened = Opened { logs: logs.clone(), syslogs: Syslog::all(&ready.needs), keeper: Arc::clone(&keeper) };
    program.install(&ready.generation, &opened)?;
    let threads = Threads::start(program.clone(), ready.generation, &ready.needs, descriptors)
        .map_err(|error| format!("could not start the worker's threads ({})", Errno::from(error)))?;
    Ok(Worker { program, channel, role, log, logs, needs: ready.needs, threads, keeper, daemonized, deadline: None })
}

/// The bundle, and each descriptor with its name.
fn unpack(message: Message) -> Result<(Bundle, Vec<(Handle, OwnedFd)>), String> {
    let (bundle, handles) = Bundle::decode(&message.body).map_err(|error| error.to_string())?;
    Ok((bundle, handles.into_iter().zip(message.descriptors).collect()))
}

/// Repeats the master's reading. What was fine there is fine here, so a fault is ours.
fn read<P: Program>(program: &P, bundle: Bundle) -> Result<Ready<P::Generation>, String> {
    let mut resources = Recorder::replay(bundle.facts, bundle.answers);
    let reading = program.read(&bundle.invocation, &mut resources);
    let first = || {
        let report = reading.reports.iter().min_by_key(|report| report.level);
        report.map(|report| String::from_utf8_lossy(&report.text).into_owned()).unwrap_or_default()
    };
    match reading.ready {
        Some(ready) => Ok(ready),
        None => Err(format!("the worker read the configuration differently: {}", first())),
    }
}

/// Takes logs over: a path that is open already goes on with the new file. Takes no descriptor out of the list,
/// because a listener's stay where they are.
fn adopt_logs(logs: &mut LogFiles, descriptors: &[(Handle, OwnedFd)]) -> Result<(), Errno> {
    for (handle, descriptor) in descriptors {
        let Handle::Log(path) = handle else { continue };
        match logs.get(path) {
            Some(file) => file.replace(descriptor)?,
            None => {
                let file = LogFile::new(path.clone(), descriptor.try_clone()?);
                logs.insert(path.clone(), Arc::new(file));
            }
        }
    }
    Ok(())
}

impl<P: Program> Worker<'_, P> {
    /// Until the end, which is the returned exit code.
    fn live(&mut self) -> u8 {
        loop {
            let timeout = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let mut sources = vec![self.channel.as_fd(), self.threads.waker().as_fd(), self.keeper.waker().as_fd()];
            if let Role::Process { signals, .. } = self.role {
                sources.push(signals.as_fd());
            }
            let ready = sys::wait_readable(&sources, timeout);
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.deadline = None;
                self.threads.expire();
            }
            if let Role::Process { signals, .. } = self.role
                && signals.take().into_iter().any(|signal| self.signal(signal))
            {
                return self.end_now();
            }
            if ready[0] && !self.message() {
                return self.end_now();
            }
            if ready[2] && !self.keep() {
                return self.end_now();
            }
            match self.threads.state() {
                State::Running => {}
                State::Ended => {
                    self.program.flush(&self.threads.generation());
                    self.log.write(Level::Notice, "exiting");
                    self.log.write(Level::Notice, "exit");
                    return 0;
                }
                State::Broken => {
                    self.log.write(Level::Alert, "a thread of the worker process ended unexpectedly");
                    return 1;
                }
            }
        }
    }

    /// A signal that was sent to the worker itself; whether it means to end now.
    fn signal(&mut self, signal: Signal) -> bool {
        let action = match signal.number {
            libc::SIGQUIT => ", shutting down",
            libc::SIGWINCH if self.daemonized => ", shutting down",
            libc::SIGTERM | libc::SIGINT => ", exiting",
            libc::SIGUSR1 => ", reopening logs",
            libc::SIGHUP | libc::SIGUSR2 => ", ignoring",
            _ => "",
        };
        self.log.write(Level::Notice, signal.describe(action));
        match signal.number {
            libc::SIGTERM | libc::SIGINT => return true,
            libc::SIGQUIT => self.quit(),
            libc::SIGWINCH if self.daemonized => self.quit(),
            // Only the master may open files in root's folders.
            libc::SIGUSR1 => {
                let _ = self.channel.send(Kind::PleaseReopen, b"", &[]);
            }
            _ => {}
        }
        false
    }

    /// A message from the master; false when it is time to end: told so, or the master is gone.
    fn message(&mut self) -> bool {
        let message = match self.channel.receive() {
            Ok(Some(message)) => message,
            Ok(None) => {
                if matches!(self.role, Role::Process { .. }) {
                    self.log.write(Level::Alert, "the master process is gone, exiting");
                }
                return false;
            }
            Err(error) => {
                let errno = Errno::from(error);
                self.log.write(Level::Alert, format!("recvmsg() from the master process failed ({errno})"));
                return false;
            }
        };
        match message.kind {
            Kind::Serve => {
                let sent = match self.reload(message) {
                    Ok(()) => {
                        reloads::succeeded();
                        self.channel.send(Kind::Serving, b"", &[])
                    }
                    Err(text) => {
                        reloads::failed(text.as_bytes());
                        self.channel.send(Kind::Fault, text.as_bytes(), &[])
                    }
                };
                sent.is_ok()
            }
            Kind::Reopen => {
                self.reopen(message);
                true
            }
            Kind::Quit => {
                self.quit();
                true
            }
            Kind::Terminate => false,
            Kind::Refused => {
                reloads::failed(&message.body);
                true
            }
            Kind::Kept => self.kept(&message),
            Kind::Serving | Kind::Fault | Kind::PleaseReopen | Kind::Keep => true,
        }
    }

    /// Sends what is to be written to files; false when the master is gone.
    fn keep(&self) -> bool {
        self.keeper.pieces().iter().all(|piece| self.send_piece(piece))
    }

    /// The master has a piece, or could not write what was to be written.
    fn kept(&self, message: &Message) -> bool {
        let Ok(receipt) = Receipt::decode(&message.body) else { return true };
        if !receipt.fault.is_empty() {
            self.log.write(Level::Crit, &receipt.fault);
        }
        self.keeper.received(&receipt).is_none_or(|next| self.send_piece(&next))
    }

    fn send_piece(&self, piece: &Piece) -> bool {
        self.channel.send(Kind::Keep, &piece.encode(), &[]).is_ok()
    }

    fn reload(&mut self, message: Message) -> Result<(), String> {
        let (bundle, descriptors) = unpack(message)?;
        let ready = read(&*self.program, bundle)?;
        self.program.flush(&self.threads.generation());
        adopt_logs(&mut self.logs, &descriptors).map_err(|errno| format!("dup() of a log failed ({errno})"))?;
        let keeper = Arc::clone(&self.keeper);
        let opened = Opened { logs: self.logs.clone(), syslogs: Syslog::all(&ready.needs), keeper };
        self.program.install(&ready.generation, &opened)?;
        self.threads
            .reload(&ready.generation, &ready.needs, descriptors)
            .map_err(|error| format!("the worker's threads could not follow ({})", Errno::from(error)))?;
        let wanted = ready.needs.log_files();
        self.logs.retain(|path, _| wanted.contains(path));
        self.log.redirect(files::outputs(&ready.needs.error_logs, &self.logs));
        self.needs = ready.needs;
        self.redirect_stderr();
        Ok(())
    }

    fn reopen(&mut self, message: Message) {
        self.log.write(Level::Notice, "reopening logs");
        self.program.flush(&self.threads.generation());
        let handles = decode_handles(&message.body).unwrap_or_default();
        let descriptors: Vec<(Handle, OwnedFd)> = handles.into_iter().zip(message.descriptors).collect();
        if let Err(errno) = adopt_logs(&mut self.logs, &descriptors) {
            self.log.write(Level::Emerg, format!("dup() of a log failed ({errno})"));
        }
        self.redirect_stderr();
    }

    fn quit(&mut self) {
        self.log.write(Level::Notice, "gracefully shutting down");
        if let Role::Process { title, .. } = self.role {
            title.set(b"worker process is shutting down");
        }
        if self.deadline.is_none() {
            self.deadline = self.needs.shutdown_timeout.map(|timeout| Instant::now() + timeout);
        }
        self.threads.quit();
    }

    /// Ends without waiting for connections; logs still get what is buffered.
    fn end_now(&mut self) -> u8 {
        self.log.write(Level::Notice, "exiting");
        self.threads.terminate();
        let deadline = Instant::now() + LAST_WORDS;
        while self.threads.state() == State::Running {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            sys::wait_readable(&[self.threads.waker().as_fd()], Some(left));
        }
        self.program.flush(&self.threads.generation());
        self.log.write(Level::Notice, "exit");
        0
    }

    fn redirect_stderr(&self) {
        if matches!(self.role, Role::Process { .. })
            && let Some(file) = self.log.main_file()
            && let Err(errno) = log::redirect_stderr(file)
        {
            self.log.write(Level::Alert, format!("dup2(STDERR) failed ({errno})"));
        }
    }
}
