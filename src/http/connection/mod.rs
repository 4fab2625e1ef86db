//! A client's connection: who it is, and the loop that reads requests from it until it ends.

mod close;
mod service;
mod turn;
mod wait;

use super::{
    body::FileBody,
    exchange::Exchange,
    generation::Http,
    heads::{self, Limits, Refusal, RequestHead, ServerHandle, ServerSide, Stop},
    listener::{Listener, Virtual},
    pipeline,
    worker::Worker,
};
use crate::{
    config::values::{Address, ip_text},
    observe::error_log::{self, Level},
    process,
    upstream::{body::UpstreamBody, wire::proxy_protocol},
};
pub use service::keeps;
pub(super) use service::{exchange, place};
use std::{
    cell::{Cell, OnceCell, RefCell},
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};
use tokio::io::{AsyncRead, AsyncWrite};
use turn::Outcome;

/// What a connection is made of.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {
    /// The socket's number, where there is one.
    fn descriptor(&self) -> Option<i32> {
        None
    }

    /// Closing it will not wait for anything (`SO_LINGER` of 0).
    fn reset_when_closed(&self) {}

    /// Small pieces leave at once (`TCP_NODELAY`).
    fn hasten(&self) {}

    /// Sends no more than so many bytes of a file, which never pass through here (`sendfile`); how many it were. Only where
    /// there is a descriptor.
    fn poll_file(&self, _cx: &mut Context<'_>, _file: &FileBody, _most: usize) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

impl Stream for tokio::net::TcpStream {
    fn descriptor(&self) -> Option<i32> {
        Some(std::os::fd::AsRawFd::as_raw_fd(self))
    }

    fn reset_when_closed(&self) {
        // It is closed one way or the other.
        let _ = socket2::SockRef::from(self).set_linger(Some(std::time::Duration::ZERO));
    }

    fn hasten(&self) {
        // Without it, it is slower, not wrong.
        let _ = self.set_nodelay(true);
    }

    #[cfg(target_os = "linux")]
    fn poll_file(&self, cx: &mut Context<'_>, file: &FileBody, most: usize) -> Poll<io::Result<usize>> {
        loop {
            std::task::ready!(self.poll_write_ready(cx))?;
            let mut offset = file.offset;
            let sent = self.try_io(tokio::io::Interest::WRITABLE, || {
                rustix::fs::sendfile(self, &*file.file, Some(&mut offset), most).map_err(io::Error::from)
            });
            match sent {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

impl Stream for tokio::net::UnixStream {}
impl Stream for tokio::io::DuplexStream {}

/// A client's connection, as requests on it see it.
pub struct Connection {
    pub worker: Rc<Worker>,
    /// `$connection`.
    pub serial: u64,
    /// `$connection_requests`.
    pub requests: Cell<u64>,
    pub started: Instant,
    pub side: ServerSide,
    /// It cannot serve another request.
    pub broken: Cell<bool>,
    /// The request under way ends if the client leaves.
    pub abortable: Cell<bool>,
    /// The client was waited for too long, or is told nothing (`return 444`).
    timed_out: Cell<bool>,
    /// … and `reset_timedout_connection` is on: no memory is kept for what it may still say.
    reset: Cell<bool>,
    /// The socket's number, for what the system knows of it.
    pub descriptor: Option<i32>,
    /// Its small pieces leave at once.
    hastened: Cell<bool>,
    /// What the PROXY protocol said of the client.
    pub proxied: OnceCell<Box<proxy_protocol::Header>>,
    http: RefCell<(Arc<Http>, Arc<Listener>)>,
    /// Asked of the system where it is not the listener's, once somebody wants to know.
    local: OnceCell<Address>,
    remote: Address,
    texts: OnceCell<Box<Texts>>,
    finishing: Cell<Option<Box<Exchange>>>,
    /// The answer of an upstream that is sent just now, and has more to come.
    sending: Cell<Option<UpstreamBody>>,
}

/// Addresses as texts.
struct Texts {
    remote_ip: String,
    remote_port: String,
    local_ip: String,
    local_port: String,
}

impl Connection {
    pub fn new(worker: Rc<Worker>, http: Arc<Http>, listener: Arc<Listener>, serial: u64, remote: Address) -> Self {
        let started = worker.clock.instant();
        let local = listener.only_address().cloned().map_or_else(OnceCell::new, OnceCell::from);
        Self {
            worker,
            serial,
            requests: Cell::new(0),
            started,
            side: ServerSide::default(),
            broken: Cell::new(false),
            abortable: Cell::new(false),
            timed_out: Cell::new(false),
            reset: Cell::new(false),
            descriptor: None,
            hastened: Cell::new(false),
            proxied: OnceCell::new(),
            http: RefCell::new((http, listener)),
            local,
            remote,
            texts: OnceCell::new(),
            finishing: Cell::new(None),
            sending: Cell::new(None),
        }
    }

    /// The same, made to this address: where no socket can be asked.
    pub fn made_to(self, local: Address) -> Self {
        Self { local: local.into(), ..self }
    }

    /// The generation for the next request: the one in force, unless it no longer has this listener.
    fn follow(&self) -> bool {
        let mut held = self.http.borrow_mut();
        if self.worker.is_current(&held.0) {
            return true;
        }
        let http = self.worker.http();
        match http.listener(&held.1.address) {
            Some(listener) => {
                *held = (http, listener);
                true
            }
            None => false,
        }
    }

    /// Whether it ends with the request under way: the process ends, or its listener is gone.
    fn is_leaving(&self) -> bool {
        let held = self.http.borrow();
        let listed = || self.worker.is_current(&held.0) || self.worker.http().listener(&held.1.address).is_some();
        self.worker.quitting.get() || !listed()
    }

    /// The generation this connection serves.
    pub fn http(&self) -> Arc<Http> {
        Arc::clone(&self.http.borrow().0)
    }

    fn listener(&self) -> Arc<Listener> {
        Arc::clone(&self.http.borrow().1)
    }

    /// The address the client connected to.
    fn local(&self) -> &Address {
        self.local.get_or_init(|| {
            let asked = self.descriptor.and_then(process::local_address);
            asked.map_or_else(|| self.http.borrow().1.address.clone(), Address::Tcp)
        })
    }

    /// From here on small pieces leave at once (`tcp_nodelay`). An answer that is all a connection is made for leaves when
    /// the connection ends.
    fn hasten<S: Stream>(&self, handle: &ServerHandle<S>) {
        if !self.hastened.replace(true) {
            handle.with_stream(Stream::hasten);
        }
    }

    fn with_host<T>(&self, look: impl FnOnce(&Virtual) -> T) -> T {
        look(self.http.borrow().1.host(|| self.local()))
    }

    /// Whether TLS is spoken.
    pub fn tls(&self) -> bool {
        false
    }

    /// `$scheme`.
    pub fn scheme(&self) -> &'static [u8] {
        if self.tls() { b"https" } else { b"http" }
    }

    /// The client's address; `None` on a unix socket.
    pub fn remote_ip_address(&self) -> Option<IpAddr> {
        match &self.remote {
            Address::Tcp(remote) => Some(remote.ip()),
            Address::Unix(_) => None,
        }
    }

    /// `$remote_addr`.
    pub fn remote_ip(&self) -> &str {
        &self.texts().remote_ip
    }

    /// As in the error log.
    pub fn remote_text(&self) -> &str {
        self.remote_ip()
    }

    /// `$remote_port`.
    pub fn remote_port(&self) -> &str {
        &self.texts().remote_port
    }

    /// `$server_addr`.
    pub fn local_ip(&self) -> &str {
        &self.texts().local_ip
    }

    /// `$server_port`.
    pub fn local_port(&self) -> &str {
        &self.texts().local_port
    }

    /// `$pipe`: whether the request was read together with the one before it.
    pub fn pipelined(&self) -> bool {
        false
    }

    fn texts(&self) -> &Texts {
        self.texts.get_or_init(|| {
            let split = |address: &Address| match address {
                Address::Tcp(tcp) => (ip_text(tcp.ip()), tcp.port().to_string()),
                Address::Unix(path) if path.as_os_str().is_empty() => ("unix:".to_owned(), String::new()),
                Address::Unix(_) => (address.to_string(), String::new()),
            };
            let (remote_ip, remote_port) = split(&self.remote);
            let (local_ip, local_port) = split(self.local());
            Box::new(Texts { remote_ip, remote_port, local_ip, local_port })
        })
    }

    /// The limits of a request's head, by the server its `Host` names.
    fn limits(&self, host: Option<&[u8]>) -> Limits {
        self.with_host(|hosts| {
            let named = host.and_then(|host| hosts.find(host).ok().flatten());
            let server = named.map_or(&hosts.default, |found| found.value);
            let core = &server.base.settings.core;
            Limits {
                client_header_buffer_size: core.client_header_buffer_size.0,
                large: (core.large_client_header_buffers.count, core.large_client_header_buffers.size),
                max_headers: core.max_headers,
                ignore_invalid_headers: core.ignore_invalid_headers,
                underscores_in_headers: core.underscores_in_headers,
                allow_connect: server.allow_connect,
            }
        })
    }

    /// Reads on of the answer that is sent while the client is behind, from now until it is finished.
    pub fn look_after(&self, body: UpstreamBody) {
        self.sending.set(Some(body));
    }

    fn read_ahead(&self, cx: &mut Context<'_>) {
        if let Some(body) = self.sending.take()
            && body.poll_ahead(cx)
        {
            self.sending.set(Some(body));
        }
    }

    /// Takes a request whose answer's last byte was handed over, to log it when it has left.
    pub fn finished(&self, exchange: Box<Exchange>) {
        self.sending.take();
        self.finishing.set(Some(exchange));
    }

    /// Looks at the request that has ended and is not logged yet, if there is one.
    fn with_finished(&self, look: impl FnOnce(&mut Exchange)) {
        if let Some(mut exchange) = self.finishing.take() {
            look(&mut exchange);
            self.finishing.set(Some(exchange));
        }
    }

    /// What the request that has ended still has to do before it is logged. On the heap, so that an idle connection does
    /// not carry it.
    fn post_action(self: &Rc<Self>) -> Option<Pin<Box<dyn Future<Output = ()>>>> {
        let exchange = self.finishing.take()?;
        if exchange.location.settings.core.post_action.is_none() {
            self.finishing.set(Some(exchange));
            return None;
        }
        let (this, mut exchange) = (Rc::clone(self), exchange);
        Some(Box::pin(async move {
            pipeline::post_action(&mut exchange).await;
            this.finished(exchange);
        }))
    }

    /// Logs the request that has ended, if one has.
    fn settle(&self) -> Option<wait::Keep> {
        let mut exchange = self.finishing.take()?;
        Some(self.log_request(&mut exchange))
    }

    /// Logs a request that has ended.
    fn log_request(&self, exchange: &mut Exchange) -> wait::Keep {
        self.worker.clock.update();
        exchange.sent.total = self.side.sent_now();
        pipeline::log(exchange);
        let core = &exchange.location.settings.core;
        if self.timed_out.get() && core.reset_timedout_connection {
            self.reset.set(true);
        }
        wait::Keep::new(core.keepalive_timeout.timeout, core.keepalive_min_timeout.0)
    }

    /// Writes a line about the connection to its default server's error log.
    fn log(&self, level: Level, message: &str) {
        let (http, conf) = self.error_log();
        error_log::connection_line(&http, &conf, level, self, Some(&self.local().to_string()), message);
    }

    /// The same, of a connection that no longer has a part in anything: nothing is said of client and server.
    fn log_bare(&self, level: Level, message: &str) {
        let (http, conf) = self.error_log();
        error_log::connection_line(&http, &conf, level, self, None, message);
    }

    fn error_log(&self) -> (Arc<Http>, Arc<super::modules::error_log::Conf>) {
        (self.http(), self.with_host(|hosts| Arc::clone(&hosts.default.base.settings.error_log)))
    }
}

/// What a client asked: a request, or one that nginx refuses.
enum Asked {
    Request(Box<RequestHead>),
    Refused(Box<Refusal>),
}

/// Reads and answers requests until the connection ends.
///
/// What this makes is what an idle connection costs. So everything is on the heap that is not there while it is idle, and
/// what is handed to the future is handed over in its final form: it would have room for every form it had.
pub fn serve<S: Stream>(stream: S, mut connection: Connection) -> impl Future<Output = ()> + use<S> {
    let handle = heads::server(stream);
    connection.side = handle.side().clone();
    connection.worker.opened();
    run(handle, Open(Rc::new(connection)))
}

async fn run<S: Stream>(handle: ServerHandle<S>, open: Open) {
    let connection = &open.0;
    if connection.with_host(|host| host.proxy_protocol) && !Box::pin(wait::proxy_header(&handle, connection)).await {
        return;
    }
    let mut idle = wait::Idle::First;
    let mut timers = wait::Timers::default();
    loop {
        let work = match wait::next(&handle, connection, idle, &mut timers).await {
            Ok(head) => begin(&handle, connection, Asked::Request(head)),
            Err(wait::End::Stop(Stop::Refused(refusal))) => begin(&handle, connection, Asked::Refused(refusal)),
            Err(wait::End::Stop(Stop::Unfinished(refusal))) => {
                service::log_unfinished(connection, *refusal);
                return;
            }
            Err(wait::End::Late(refusal)) => {
                service::log_unfinished(connection, *refusal);
                if connection.with_host(|host| host.default.base.settings.core.reset_timedout_connection) {
                    handle.with_stream(Stream::reset_when_closed);
                }
                return;
            }
            Err(end) => {
                end.log(connection, idle);
                return;
            }
        };
        let outcome = turn::drive(&handle, connection, work).await;
        connection.worker.counts.writing.down();
        if let Some(action) = connection.post_action() {
            action.await;
        }
        match outcome {
            Outcome::Next => {
                connection.hasten(&handle);
                match connection.settle() {
                    Some(keep) => idle = wait::Idle::Between(keep),
                    None => return,
                }
            }
            Outcome::Switch(switch) => {
                connection.hasten(&handle);
                // The log wants to know it when the socket is gone.
                connection.local();
                Box::pin(service::tunnel(&handle, connection, switch)).await;
                connection.settle();
                return;
            }
            Outcome::End { linger } => {
                // The log has its line before the client sees the end.
                connection.settle();
                if connection.reset.get() {
                    handle.with_stream(Stream::reset_when_closed);
                } else if linger && close::lingers(&handle, connection) {
                    Box::pin(close::linger(&handle, connection)).await;
                }
                return;
            }
        }
    }
}

/// Begins to answer. On the heap, so that an idle connection does not carry it.
fn begin<S: Stream>(
    handle: &ServerHandle<S>,
    connection: &Rc<Connection>,
    asked: Asked,
) -> Pin<Box<impl Future<Output = Option<Box<service::Answer>>> + use<S>>> {
    match &asked {
        Asked::Request(head) => handle.begin(head),
        Asked::Refused(_) => handle.begin_refused(),
    }
    connection.requests.set(connection.requests.get() + 1);
    connection.worker.counts.requests.up();
    connection.worker.counts.writing.up();
    connection.abortable.set(false);
    let (under_way, refused) = service::arrive(connection, asked, || handle.incoming());
    Box::pin(service::answer(under_way, refused))
}

/// A connection while it is open.
struct Open(Rc<Connection>);

impl Drop for Open {
    fn drop(&mut self) {
        let Connection { worker, serial, .. } = &*self.0;
        // The request in which it is ended because `worker_shutdown_timeout` is over has its line in the log.
        if *serial < worker.expired.get() {
            self.0.settle();
        }
        worker.closed(*serial);
    }
}
