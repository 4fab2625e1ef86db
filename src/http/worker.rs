//! One serving thread: its kept upstream connections, its counters, and the loops that accept.

use super::{
    clock::{Clock, wall},
    connection::{self, Connection},
    generation::Http,
    zones,
};
use crate::{
    config::values::Address,
    generation::Generation,
    lock,
    observe::counts::Counter,
    process::{
        needs,
        worker::{Change, Current, Listener as Accepting, Socket, Thread},
    },
    upstream::pool::Pool,
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
    time::Duration,
};
use tokio::{sync::Notify, task::AbortHandle};

/// What all connections of one thread share.
pub struct Worker {
    current: Current<Generation>,
    pub clock: Clock,
    pub pool: Pool,
    pub counts: Arc<Counts>,
    /// What this thread has counted in each `status_zone`.
    pub zones: zones::Own,
    /// Set when the process ends gracefully: connections close as soon as they are idle.
    pub quitting: Cell<bool>,
    /// Counts what may end connections that are idle.
    pub changes: Cell<u64>,
    /// The tasks of the connections that have been idle, by their numbers, to be woken then: a list, because every
    /// connection is on it, and what tokio offers for it is five times as large for each.
    idlers: RefCell<BTreeMap<u64, Waker>>,
    reuse: Reuse,
    /// Connections with smaller numbers have no more time: `worker_shutdown_timeout` is over for them.
    pub expired: Cell<u64>,
    /// The tasks of the connections that it is counted for, by their numbers.
    ending: RefCell<BTreeMap<u64, AbortHandle>>,
    connections: Cell<usize>,
    emptied: Notify,
    random: Cell<u64>,
}

/// What makes room for newcomers.
#[derive(Default)]
struct Reuse {
    /// So many connections are to end of those that are idle.
    wanted: Cell<usize>,
    /// The last one that was asked.
    asked: Cell<u64>,
    /// When that was last logged. Seconds.
    told: Cell<u64>,
}

/// What `stub_status` counts, for one thread.
#[derive(Debug, Default)]
pub struct Counts {
    /// The number of the thread, once it serves; it is kept when it has ended.
    number: OnceLock<usize>,
    ended: AtomicBool,
    /// What had been counted when the API was to begin anew.
    base: Mutex<Totals>,
    pub accepted: Count,
    /// Closed at once, because there were too many.
    pub dropped: Count,
    pub requests: Count,
    pub active: Count,
    pub reading: Count,
    pub writing: Count,
    pub waiting: Count,
}

/// A number that one thread changes and all may read.
pub type Count = Counter<false>;

impl Counts {
    fn totals(&self) -> Totals {
        Totals {
            accepted: self.accepted.get(),
            dropped: self.dropped.get(),
            requests: self.requests.get(),
            active: self.active.get(),
            reading: self.reading.get(),
            writing: self.writing.get(),
            waiting: self.waiting.get(),
        }
    }

    /// Without what had been counted when the API was to begin anew.
    fn reported(&self) -> Totals {
        let base = *lock(&self.base);
        let totals = self.totals();
        Totals {
            accepted: totals.accepted - base.accepted,
            dropped: totals.dropped - base.dropped,
            requests: totals.requests - base.requests,
            ..totals
        }
    }
}

/// The sums over all threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub accepted: u64,
    pub dropped: u64,
    pub requests: u64,
    pub active: u64,
    pub reading: u64,
    pub writing: u64,
    pub waiting: u64,
}

static ALL_COUNTS: Mutex<Vec<Arc<Counts>>> = Mutex::new(Vec::new());

/// Adds up what the threads have counted.
pub fn totals() -> Totals {
    let all = lock(&ALL_COUNTS);
    all.iter().fold(Totals::default(), |sum, counts| sum.and(counts.totals()))
}

/// The same for `api`, which may have begun anew.
pub fn reported() -> Totals {
    let all = lock(&ALL_COUNTS);
    all.iter().fold(Totals::default(), |sum, counts| sum.and(counts.reported()))
}

/// The same for each thread that serves, by its number.
pub fn workers() -> Vec<(usize, Totals)> {
    let all = lock(&ALL_COUNTS);
    let serving = all.iter().filter(|counts| !counts.ended.load(Relaxed));
    let mut workers: Vec<_> = serving.filter_map(|counts| Some((*counts.number.get()?, counts.reported()))).collect();
    workers.sort_by_key(|(number, _)| *number);
    workers
}

/// What of the counts can begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anew {
    Connections,
    Requests,
    /// Both, of one thread.
    Thread(usize),
}

/// Has the numbers of `api` begin anew.
pub fn reset(what: Anew) {
    let all = lock(&ALL_COUNTS);
    for counts in all.iter() {
        let mut base = lock(&counts.base);
        let now = counts.totals();
        let thread = matches!(what, Anew::Thread(number) if counts.number.get() == Some(&number));
        if thread || what == Anew::Connections {
            (base.accepted, base.dropped) = (now.accepted, now.dropped);
        }
        if thread || what == Anew::Requests {
            base.requests = now.requests;
        }
    }
}

impl Totals {
    /// Connections that are not idle.
    pub fn busy(&self) -> u64 {
        self.active.saturating_sub(self.waiting)
    }

    /// Requests under way.
    pub fn current(&self) -> u64 {
        self.reading + self.writing
    }

    fn and(self, other: Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            dropped: self.dropped + other.dropped,
            requests: self.requests + other.requests,
            active: self.active + other.active,
            reading: self.reading + other.reading,
            writing: self.writing + other.writing,
            waiting: self.waiting + other.waiting,
        }
    }
}

/// Connection numbers, `*7` in the log, counted over the whole process.
static SERIAL: AtomicU64 = AtomicU64::new(1);

/// Serves on this thread until the process tells it to end.
pub async fn serve(mut thread: Thread<Generation>) {
    let worker = Rc::new(Worker::new(thread.current.clone()));
    // Asked once.
    let _ = worker.counts.number.set(thread.index);
    let mut doors: Vec<Door> = thread.listeners.drain(..).map(|listener| Door::open(&worker, listener)).collect();
    let keeper = tokio::task::spawn_local(keep_house(Rc::clone(&worker)));
    let mut shutdown_timeout = thread.current.generation().shutdown_timeout;
    super::modules::upstream::watch(&worker.http());
    super::modules::upstream_hc::watch(&worker.http(), &worker);
    super::modules::upstream::poll(&worker.http(), &worker);
    loop {
        match thread.changes.next().await {
            Change::Reload { generation, removed, added, done } => {
                if let Some(timeout) = std::mem::replace(&mut shutdown_timeout, generation.shutdown_timeout) {
                    worker.expire_after(timeout);
                }
                for endpoint in removed {
                    if let Some(at) = doors.iter().position(|door| door.endpoint == endpoint) {
                        doors.swap_remove(at).close().await;
                    }
                }
                doors.extend(added.into_iter().map(|listener| Door::open(&worker, listener)));
                worker.changed();
                super::modules::upstream::watch(&generation.http);
                super::modules::upstream_hc::watch(&generation.http, &worker);
                super::modules::upstream::poll(&generation.http, &worker);
                drop(done);
            }
            Change::Quit => {
                for door in doors.drain(..) {
                    door.close().await;
                }
                worker.quitting.set(true);
                worker.changed();
                tokio::select! {
                    () = worker.all_closed() => break,
                    change = thread.changes.next() => {
                        if matches!(change, Change::Expire) {
                            worker.expired.set(u64::MAX);
                        }
                        if matches!(change, Change::Expire | Change::Terminate) {
                            break;
                        }
                    }
                }
                worker.all_closed().await;
                break;
            }
            Change::Expire | Change::Terminate => break,
        }
    }
    keeper.abort();
    worker.counts.ended.store(true, Relaxed);
}

/// One socket of this thread, and what accepts from it.
struct Door {
    endpoint: needs::Endpoint,
    task: tokio::task::JoinHandle<()>,
    closing: Rc<Notify>,
}

impl Door {
    fn open(worker: &Rc<Worker>, listener: Accepting) -> Self {
        let endpoint = listener.endpoint.clone();
        let closing = Rc::new(Notify::new());
        let task = tokio::task::spawn_local(accept(Rc::clone(worker), listener, Rc::clone(&closing)));
        Self { endpoint, task, closing }
    }

    /// Takes what already waits on the socket, then lets go of it.
    async fn close(self) {
        self.closing.notify_one();
        // A task that ended otherwise has let go as well.
        let _ = self.task.await;
    }
}

async fn accept(worker: Rc<Worker>, listener: Accepting, closing: Rc<Notify>) {
    let address = match &listener.endpoint.address {
        needs::Address::Ip(ip) => Address::Tcp(*ip),
        needs::Address::Unix(path) => Address::Unix(path.clone()),
    };
    // A listener that a reload takes away may still have connections waiting: they are served as before.
    let mut http = worker.http();
    match listener.socket {
        Socket::Tcp(socket) => {
            let Ok(socket) = tokio::net::TcpListener::from_std(socket) else { return };
            while let Some((stream, remote)) = next(&worker, &closing, async || socket.accept().await).await {
                worker.connected(stream, &mut http, &address, Address::Tcp(remote));
            }
        }
        Socket::Unix(socket) => {
            let Ok(socket) = tokio::net::UnixListener::from_std(socket) else { return };
            while let Some((stream, _)) = next(&worker, &closing, async || socket.accept().await).await {
                worker.connected(stream, &mut http, &address, Address::Unix("".into()));
            }
        }
        Socket::Udp(_) | Socket::UnixDatagram(_) => {}
    }
}

/// The next connection; `None` when the socket is to be let go of and nothing waits on it any more.
async fn next<T>(worker: &Worker, closing: &Notify, accept: impl AsyncFn() -> std::io::Result<T>) -> Option<T> {
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = accept() => accepted,
            () = closing.notified() => return None,
        };
        match accepted {
            Ok(accepted) => return Some(accepted),
            Err(error) => pause(worker, &error).await,
        }
    }
}

/// Out of descriptors or memory, nginx stops accepting for half a second (`accept_mutex_delay`).
async fn pause(worker: &Worker, error: &std::io::Error) {
    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) {
        let http = worker.http();
        let text = format!("accept4() failed ({})", super::files::errno(error));
        http.log(crate::observe::error_log::Level::Crit, &text);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What is done now and then: old upstream connections closed, buffered logs written.
async fn keep_house(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(Pool::SWEEP_EVERY).await;
        worker.clock.follow();
        worker.pool.sweep();
        super::modules::access_log::flush_due();
    }
}

impl Worker {
    /// A thread's own, around the generation in force.
    pub fn new(current: Current<Generation>) -> Self {
        let counts = Arc::new(Counts::default());
        lock(&ALL_COUNTS).push(Arc::clone(&counts));
        let seed = wall();
        let here = std::ptr::from_ref(&counts) as u64;
        Self {
            current,
            clock: Clock::default(),
            pool: Pool::default(),
            counts,
            zones: zones::Own::default(),
            quitting: Cell::new(false),
            changes: Cell::new(0),
            idlers: RefCell::default(),
            reuse: Reuse::default(),
            expired: Cell::new(0),
            ending: RefCell::default(),
            connections: Cell::new(0),
            emptied: Notify::new(),
            random: Cell::new((seed.as_nanos() as u64 ^ here.rotate_left(32)) | 1),
        }
    }

    /// The generation in force.
    pub fn http(&self) -> Arc<Http> {
        Arc::clone(&self.current.peek().http)
    }

    /// Whether this is still the generation in force.
    pub fn is_current(&self, http: &Arc<Http>) -> bool {
        Arc::ptr_eq(&self.current.peek().http, http)
    }

    fn connected<S: connection::Stream>(
        self: &Rc<Self>,
        stream: S,
        latest: &mut Arc<Http>,
        listener: &Address,
        remote: Address,
    ) {
        self.clock.update();
        let now = self.http();
        if now.listener(listener).is_some() {
            *latest = now;
        }
        let http = Arc::clone(latest);
        let Some(listener) = http.listener(listener) else { return };
        self.counts.accepted.up();
        if !self.has_room(&http) {
            let text = format!("{} worker_connections are not enough", http.connections_limit);
            http.log(crate::observe::error_log::Level::Alert, &text);
            self.counts.dropped.up();
            return;
        }
        let serial = SERIAL.fetch_add(1, Relaxed);
        let mut connection = Connection::new(Rc::clone(self), http, listener, serial, remote);
        connection.descriptor = stream.descriptor();
        let task = tokio::task::spawn_local(connection::serve(stream, connection));
        if self.current.peek().shutdown_timeout.is_some() {
            self.ending.borrow_mut().insert(serial, task.abort_handle());
        }
    }

    /// Whether a newcomer can be served. Where hardly one can, some of those that are idle make room
    /// (`ngx_drain_connections`).
    fn has_room(&self, http: &Http) -> bool {
        let (open, limit) = (self.connections.get(), http.connections_limit);
        let idle = usize::try_from(self.counts.waiting.get()).unwrap_or(0);
        if limit.saturating_sub(open) > limit / 16 || idle == 0 {
            return open < limit;
        }
        let second = self.clock.now().as_secs();
        if self.reuse.told.replace(second) != second {
            let text = format!("{limit} worker_connections are not enough, reusing connections");
            http.log(crate::observe::error_log::Level::Warn, &text);
        }
        self.reuse.wanted.set((idle / 8).clamp(1, 32));
        self.changes.set(self.changes.get() + 1);
        // Whoever is not idle lets it pass; the next ones are asked the next time.
        let idlers = self.idlers.borrow();
        let behind = idlers.range(self.reuse.asked.get() + 1..).chain(idlers.iter());
        for (serial, waker) in behind.take(idlers.len().min(64)) {
            waker.wake_by_ref();
            self.reuse.asked.set(*serial);
        }
        // They will have gone when the newcomer has its turn.
        open < limit + self.reuse.wanted.get()
    }

    /// Whether a connection that is idle ends to make room for others.
    pub fn makes_room(&self) -> bool {
        let wanted = self.reuse.wanted.get();
        self.reuse.wanted.set(wanted.saturating_sub(1));
        wanted > 0
    }

    /// Ends the connections there are now when that time is over, whatever they are doing then. A reload closes no
    /// connection otherwise.
    fn expire_after(self: &Rc<Self>, timeout: Duration) {
        let (worker, before) = (Rc::clone(self), SERIAL.load(Relaxed));
        tokio::task::spawn_local(async move {
            tokio::time::sleep(timeout).await;
            worker.expired.set(before.max(worker.expired.get()));
            let later = worker.ending.borrow_mut().split_off(&before);
            worker.ending.replace(later).values().for_each(AbortHandle::abort);
        });
    }

    /// Wakes a connection's task whenever something changes, for as long as the connection is open.
    pub fn wake_when_changed(&self, serial: u64, waker: &Waker) {
        self.idlers.borrow_mut().insert(serial, waker.clone());
    }

    /// Something has changed that may end connections.
    fn changed(&self) {
        self.reuse.wanted.set(0);
        self.changes.set(self.changes.get() + 1);
        self.idlers.borrow().values().for_each(Waker::wake_by_ref);
    }

    /// Counts a connection for as long as it is open.
    pub fn opened(&self) {
        self.connections.set(self.connections.get() + 1);
        self.counts.active.up();
    }

    /// Forgets a connection that was counted.
    pub fn closed(&self, serial: u64) {
        self.ending.borrow_mut().remove(&serial);
        let waker = self.idlers.borrow_mut().remove(&serial);
        drop(waker);
        self.connections.set(self.connections.get() - 1);
        self.counts.active.down();
        if self.connections.get() == 0 {
            self.emptied.notify_waiters();
        }
    }

    async fn all_closed(&self) {
        while self.connections.get() > 0 {
            self.emptied.notified().await;
        }
    }

    /// A byte that is different each time; `at` spreads the bytes of one value.
    pub fn random_byte(&self, at: usize) -> u8 {
        // xorshift64*: for identifiers, not for secrets.
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> (24 + 8 * (at & 3))) as u8
    }
}
