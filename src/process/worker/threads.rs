//! The serving threads of one process: started, given reloads, ended.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{sync::mpsc as channel, task::LocalSet};

use super::control::{Change, Changes, Current, Done, Listener, Thread};
use crate::process::{
    allocator,
    bundle::Handle,
    log::Log,
    needs::{Affinity, Endpoint, Needs},
    program::Program,
    signals::{WakeHandle, Waker},
    turn, user,
};

/// How long a reload waits for the threads to follow before it is reported as served anyway.
const FOLLOW: Duration = Duration::from_secs(2);

/// The sockets the process holds, by endpoint and index.
type Sockets = HashMap<(Endpoint, usize), OwnedFd>;

/// The threads, and what they share.
pub(super) struct Threads<P: Program> {
    program: Arc<P>,
    current: Current<P::Generation>,
    sockets: Sockets,
    running: Vec<Running<P::Generation>>,
    waker: Waker,
    quitting: bool,
}

struct Running<G> {
    changes: channel::UnboundedSender<Change<G>>,
    handle: JoinHandle<()>,
    /// Set when it has served to its end, just before it wakes us.
    ended: Arc<AtomicBool>,
    /// Which socket serves which endpoint on this thread.
    holds: HashMap<Endpoint, usize>,
    /// Fewer threads are wanted: it finishes and is not counted any more.
    retiring: bool,
}

/// Where the threads stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    /// All have ended, as they were told.
    Ended,
    /// One ended although nobody told it to.
    Broken,
}

impl<P: Program> Threads<P> {
    /// Starts as many threads as `needs` says and returns when each has its runtime.
    pub(super) fn start(
        program: Arc<P>,
        generation: Arc<P::Generation>,
        needs: &Needs,
        descriptors: Vec<(Handle, OwnedFd)>,
    ) -> io::Result<Self> {
        let current = Current(Arc::new(ArcSwap::new(generation)));
        let waker = Waker::new().map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        let mut threads =
            Self { program, current, sockets: Sockets::new(), running: Vec::new(), waker, quitting: false };
        threads.take_sockets(descriptors);
        threads.grow(needs)?;
        Ok(threads)
    }

    /// The generation in force.
    pub(super) fn generation(&self) -> Arc<P::Generation> {
        self.current.generation()
    }

    /// Wakes when a thread has ended; then ask for the [`State`].
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Swaps the generation, then tells every thread which listeners come and go, and waits until they have followed.
    pub(super) fn reload(
        &mut self,
        generation: &Arc<P::Generation>,
        needs: &Needs,
        descriptors: Vec<(Handle, OwnedFd)>,
    ) -> io::Result<()> {
        self.take_sockets(descriptors);
        let wanted = wanted_sockets(needs);
        self.sockets.retain(|(endpoint, index), _| wanted.get(endpoint).is_some_and(|&sockets| *index < sockets));
        self.current.0.store(generation.clone());
        let (line, followed) = mpsc::channel();
        for index in 0..self.running.len() {
            if self.running[index].retiring {
                continue;
            }
            let number = self.running[..index].iter().filter(|thread| !thread.retiring).count();
            if number >= needs.threads() {
                self.running[index].retiring = true;
                let _ = self.running[index].changes.send(Change::Quit);
                continue;
            }
            let holds = assignment(&wanted, number);
            let before = &self.running[index].holds;
            let differs = |from: &HashMap<Endpoint, usize>, to: &HashMap<Endpoint, usize>| -> Vec<Endpoint> {
                from.iter()
                    .filter(|(endpoint, index)| to.get(endpoint) != Some(index))
                    .map(|(e, _)| e.clone())
                    .collect()
            };
            let removed = differs(before, &holds);
            let added = self.listeners(&differs(&holds, before), &holds)?;
            let change =
                Change::Reload { generation: generation.clone(), removed, added, done: Done::new(line.clone()) };
            let _ = self.running[index].changes.send(change);
            self.running[index].holds = holds;
        }
        self.grow(needs)?;
        drop(line);
        // Ends when every thread has dropped its side; one that is stuck does not hold up the others.
        let _ = followed.recv_timeout(FOLLOW);
        Ok(())
    }

    /// Tells every thread to finish.
    pub(super) fn quit(&mut self) {
        if std::mem::replace(&mut self.quitting, true) {
            return;
        }
        // A retiring one has been told already.
        for thread in self.running.iter().filter(|thread| !thread.retiring) {
            let _ = thread.changes.send(Change::Quit);
        }
        // Only the threads' own descriptors keep the ports open, until they have followed.
        self.sockets.clear();
    }

    /// Tells every thread that the time to finish is over.
    pub(super) fn expire(&self) {
        self.tell(|| Change::Expire);
    }

    /// Tells every thread to end at once.
    pub(super) fn terminate(&mut self) {
        self.quitting = true;
        self.tell(|| Change::Terminate);
        self.sockets.clear();
    }

    /// Looks which threads have ended.
    pub(super) fn state(&mut self) -> State {
        self.waker.clear();
        let mut broken = false;
        for index in (0..self.running.len()).rev() {
            if self.running[index].ended.load(Ordering::SeqCst) {
                let thread = self.running.remove(index);
                broken |= thread.handle.join().is_err() || !(self.quitting || thread.retiring);
            }
        }
        match (broken, self.running.is_empty()) {
            (true, _) => State::Broken,
            (false, true) => State::Ended,
            (false, false) => State::Running,
        }
    }

    fn tell(&self, change: impl Fn() -> Change<P::Generation>) {
        for thread in &self.running {
            // One that has ended is found by `state`.
            let _ = thread.changes.send(change());
        }
    }

    /// Keeps sockets that are new here; of those already held, the second descriptor is closed.
    fn take_sockets(&mut self, descriptors: Vec<(Handle, OwnedFd)>) {
        for (handle, descriptor) in descriptors {
            if let Handle::Listener { endpoint, index } = handle {
                self.sockets.entry((endpoint, index)).or_insert(descriptor);
            }
        }
    }

    /// Starts the threads that are missing.
    fn grow(&mut self, needs: &Needs) -> io::Result<()> {
        let wanted = wanted_sockets(needs);
        let (started, starts) = mpsc::channel();
        let present = self.running.iter().filter(|thread| !thread.retiring).count();
        for index in present..needs.threads() {
            let holds = assignment(&wanted, index);
            let endpoints: Vec<Endpoint> = holds.keys().cloned().collect();
            let listeners = self.listeners(&endpoints, &holds)?;
            let (changes, receiver) = channel::unbounded_channel();
            let thread = Thread { index, listeners, changes: Changes(receiver), current: self.current.clone() };
            let (program, started, affinity) = (self.program.clone(), started.clone(), needs.affinity.clone());
            let (wake, ended) = self.waker.handle().map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
            let handle = std::thread::Builder::new()
                .name(format!("worker {index}"))
                .spawn(move || run(program, thread, &affinity, started, wake))?;
            self.running.push(Running { changes, handle, ended, holds, retiring: false });
        }
        drop(started);
        starts.iter().collect::<io::Result<()>>()
    }

    fn listeners(&self, endpoints: &[Endpoint], holds: &HashMap<Endpoint, usize>) -> io::Result<Vec<Listener>> {
        let own = |endpoint: &Endpoint| -> Option<io::Result<Listener>> {
            let socket = self.sockets.get(&(endpoint.clone(), *holds.get(endpoint)?))?;
            Some(socket.as_fd().try_clone_to_owned().map(|descriptor| Listener::new(endpoint.clone(), descriptor)))
        };
        endpoints.iter().filter_map(own).collect()
    }
}

/// How many sockets each endpoint has.
fn wanted_sockets(needs: &Needs) -> HashMap<Endpoint, usize> {
    let count = |reuseport: bool| if reuseport { needs.threads() } else { 1 };
    needs.listeners.iter().map(|need| (need.endpoint.clone(), count(need.reuseport))).collect()
}

/// Which socket of each endpoint thread `index` has: its own where there are several.
fn assignment(wanted: &HashMap<Endpoint, usize>, index: usize) -> HashMap<Endpoint, usize> {
    wanted.iter().map(|(endpoint, &sockets)| (endpoint.clone(), index.min(sockets - 1))).collect()
}

/// The life of one thread.
fn run<P: Program>(
    program: Arc<P>,
    thread: Thread<P::Generation>,
    affinity: &Affinity,
    started: mpsc::Sender<io::Result<()>>,
    wake: WakeHandle,
) {
    user::set_affinity(affinity, thread.index, &Log::default());
    let _keeping = allocator::keep();
    match tokio::runtime::Builder::new_current_thread().enable_all().on_thread_unpark(turn::note).build() {
        Ok(runtime) => {
            let _ = started.send(Ok(()));
            drop(started);
            let local = LocalSet::new();
            local.block_on(&runtime, program.serve(thread));
            // Tasks that are left belong to connections nobody waits for any more.
            drop(local);
            runtime.shutdown_background();
        }
        Err(error) => {
            let _ = started.send(Err(error));
        }
    }
    drop(wake);
}
