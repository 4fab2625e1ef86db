//! One serving thread: its clock, its kept upstream connections, its counters, and the loops that accept.

use super::{
    connection::{self, Connection},
    generation::Http,
};
use crate::{
    config::values::Address,
    generation::Generation,
    process::{
        needs,
        worker::{Change, Current, Listener as Accepting, Socket, Thread},
    },
    upstream::pool::Pool,
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};
use tokio::sync::Notify;

/// What all connections of one thread share.
pub struct Worker {
    current: Current<Generation>,
    pub clock: Clock,
    pub pool: Pool,
    pub counts: Arc<Counts>,
    /// Set when the process ends gracefully: connections close as soon as they are idle.
    pub quitting: Cell<bool>,
    /// Wakes idle connections when something changes that may end them.
    pub changed: Notify,
    connections: Cell<usize>,
    emptied: Notify,
    random: Cell<u64>,
}

/// What `stub_status` counts, for one thread.
#[derive(Debug, Default)]
pub struct Counts {
    pub accepted: AtomicU64,
    pub requests: AtomicU64,
    pub active: AtomicU64,
    pub reading: AtomicU64,
    pub writing: AtomicU64,
    pub waiting: AtomicU64,
}

/// The sums over all threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub accepted: u64,
    pub requests: u64,
    pub active: u64,
    pub reading: u64,
    pub writing: u64,
    pub waiting: u64,
}

static ALL_COUNTS: Mutex<Vec<Arc<Counts>>> = Mutex::new(Vec::new());

/// Adds up what the threads have counted.
pub fn totals() -> Totals {
    let all = ALL_COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().fold(Totals::default(), |sum, counts| Totals {
        accepted: sum.accepted + counts.accepted.load(Relaxed),
        requests: sum.requests + counts.requests.load(Relaxed),
        active: sum.active + counts.active.load(Relaxed),
        reading: sum.reading + counts.reading.load(Relaxed),
        writing: sum.writing + counts.writing.load(Relaxed),
        waiting: sum.waiting + counts.waiting.load(Relaxed),
    })
}

/// Connection numbers, `*7` in the log, counted over the whole process.
static SERIAL: AtomicU64 = AtomicU64::new(1);

/// Serves on this thread until the process tells it to end.
pub async fn serve(mut thread: Thread<Generation>) {
    let worker = Rc::new(Worker::new(thread.current.clone()));
    let mut accepting: Vec<(needs::Endpoint, tokio::task::JoinHandle<()>, Rc<Cell<bool>>)> = Vec::new();
    let start = |listener: Accepting| {
        let endpoint = listener.endpoint.clone();
        let closing = Rc::new(Cell::new(false));
        let task = tokio::task::spawn_local(accept(Rc::clone(&worker), listener, Rc::clone(&closing)));
        (endpoint, task, closing)
    };
    accepting.extend(thread.listeners.drain(..).map(start));
    let keeper = tokio::task::spawn_local(keep_house(Rc::clone(&worker)));
    loop {
        match thread.changes.next().await {
            Change::Reload { removed, added, done, .. } => {
                for endpoint in removed {
                    if let Some(at) = accepting.iter().position(|(known, ..)| *known == endpoint) {
                        let (_, task, closing) = accepting.swap_remove(at);
                        stop_accepting(task, &closing).await;
                    }
                }
                accepting.extend(added.into_iter().map(start));
                worker.changed.notify_waiters();
                drop(done);
            }
            Change::Quit => {
                for (_, task, closing) in accepting.drain(..) {
                    stop_accepting(task, &closing).await;
                }
                worker.quitting.set(true);
                worker.changed.notify_waiters();
                tokio::select! {
                    () = worker.all_closed() => break,
                    change = thread.changes.next() => {
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
}

/// Takes what already waits on the socket, then lets go of it.
async fn stop_accepting(task: tokio::task::JoinHandle<()>, closing: &Cell<bool>) {
    closing.set(true);
    // The loop sees the flag when it has nothing left to take; it is not waited for longer than that.
    tokio::task::yield_now().await;
    task.abort();
    let _ = task.await;
}

async fn accept(worker: Rc<Worker>, listener: Accepting, closing: Rc<Cell<bool>>) {
    let address = match &listener.endpoint.address {
        needs::Address::Ip(ip) => Address::Tcp(*ip),
        needs::Address::Unix(path) => Address::Unix(path.clone()),
    };
    match listener.socket {
        Socket::Tcp(socket) => {
            let Ok(socket) = tokio::net::TcpListener::from_std(socket) else { return };
            loop {
                match socket.accept().await {
                    Ok((stream, remote)) => {
                        // A socket without TCP_NODELAY is slower, not wrong.
                        let _ = stream.set_nodelay(true);
                        let local = stream.local_addr().map_or_else(|_| address.clone(), Address::Tcp);
                        worker.connected(stream, &address, local, Address::Tcp(remote));
                    }
                    Err(error) => pause(&worker, &error).await,
                }
                if closing.get() {
                    return;
                }
            }
        }
        Socket::Unix(socket) => {
            let Ok(socket) = tokio::net::UnixListener::from_std(socket) else { return };
            loop {
                match socket.accept().await {
                    Ok((stream, _)) => {
                        worker.connected(stream, &address, address.clone(), Address::Unix("".into()));
                    }
                    Err(error) => pause(&worker, &error).await,
                }
                if closing.get() {
                    return;
                }
            }
        }
        Socket::Udp(_) | Socket::UnixDatagram(_) => {}
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
        worker.pool.sweep();
        super::modules::access_log::flush_due();
    }
}

impl Worker {
    /// A thread's own, around the generation in force.
    pub fn new(current: Current<Generation>) -> Self {
        let counts = Arc::new(Counts::default());
        ALL_COUNTS.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&counts));
        let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let here = std::ptr::from_ref(&counts) as u64;
        Self {
            current,
            clock: Clock::default(),
            pool: Pool::default(),
            counts,
            quitting: Cell::new(false),
            changed: Notify::new(),
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
        listener: &Address,
        local: Address,
        remote: Address,
    ) {
        let http = self.http();
        let Some(listener) = http.listener(listener) else { return };
        self.counts.accepted.fetch_add(1, Relaxed);
        if self.connections.get() >= http.connections_limit {
            let text = format!("{} worker_connections are not enough", http.connections_limit);
            http.log(crate::observe::error_log::Level::Alert, &text);
            return;
        }
        let serial = SERIAL.fetch_add(1, Relaxed);
        let connection = Connection::new(Rc::clone(self), http, listener, serial, local, remote);
        self.connections.set(self.connections.get() + 1);
        self.counts.active.fetch_add(1, Relaxed);
        let worker = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let _open = Open(worker);
            connection::serve(stream, Rc::new(connection)).await;
        });
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

/// Counts a connection for as long as it is open.
struct Open(Rc<Worker>);

impl Drop for Open {
    fn drop(&mut self) {
        let worker = &self.0;
        worker.connections.set(worker.connections.get() - 1);
        worker.counts.active.fetch_sub(1, Relaxed);
        if worker.connections.get() == 0 {
            worker.emptied.notify_waiters();
        }
    }
}

/// The time, and its spellings, which are made once a second.
#[derive(Debug, Default)]
pub struct Clock {
    spelled: RefCell<Spelled>,
}

#[derive(Debug, Default)]
struct Spelled {
    second: u64,
    date: Vec<u8>,
    log_time: Vec<u8>,
    iso8601: Vec<u8>,
}

impl Clock {
    /// Since the epoch.
    pub fn now(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    /// Milliseconds since the epoch.
    pub fn millis(&self) -> u64 {
        u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX)
    }

    /// Appends the `Date` field.
    pub fn write_date(&self, out: &mut Vec<u8>) {
        self.spelled(|spelled| out.extend_from_slice(&spelled.date));
    }

    /// `$time_local`.
    pub fn log_time(&self) -> Vec<u8> {
        self.spelled(|spelled| spelled.log_time.clone())
    }

    /// `$time_iso8601`.
    pub fn iso8601(&self) -> Vec<u8> {
        self.spelled(|spelled| spelled.iso8601.clone())
    }

    fn spelled<T>(&self, look: impl FnOnce(&Spelled) -> T) -> T {
        let second = self.now().as_secs();
        let mut spelled = self.spelled.borrow_mut();
        if spelled.second != second {
            let unix = i64::try_from(second).unwrap_or(i64::MAX);
            let offset = super::dates::local_offset(unix);
            *spelled = Spelled {
                second,
                date: [b"Date: ", &super::dates::http_date(unix)[..], b"\r\n"].concat(),
                log_time: super::dates::log_time(unix, offset).into(),
                iso8601: super::dates::iso8601(unix, offset).into(),
            };
        }
        look(&spelled)
    }
}
