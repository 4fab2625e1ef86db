//! The life of the process: start, reload, signals, the change of binaries, the end.

mod container;
mod order;
mod reload;
mod start;
mod upgrade;

use crate::support::backend::{Backend, Reply};
use crate::support::client::{self, Connection};
use crate::support::daemon;
use crate::support::wait;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// A whole file of two threads that answers everything with `text`.
fn conf(port: u16, main: &str, text: &str) -> String {
    daemon::conf(port, &format!("worker_processes 2;\n{main}"), &format!("location / {{ return 200 {text}; }}"))
}

/// The same, and what is asked for below `/held` waits at a peer.
fn conf_with(peer: &Held, port: u16, main: &str, text: &str) -> String {
    let server = format!(
        "location / {{ return 200 {text}; }} location /held {{ proxy_pass http://{}; }}",
        peer.backend.address()
    );
    daemon::conf(port, &format!("worker_processes 2;\n{main}"), &server)
}

/// A peer that keeps every request waiting until it is told to answer.
struct Held {
    backend: Backend,
    open: Arc<AtomicBool>,
}

impl Held {
    fn new() -> Self {
        let open = Arc::new(AtomicBool::new(false));
        let opened = open.clone();
        let backend = Backend::start(move |_| {
            while !opened.load(Ordering::SeqCst) {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Reply::Text("held".into())
        });
        Self { backend, open }
    }

    /// A request that is under way.
    fn ask(&self, port: u16) -> Connection {
        let before = self.backend.hits();
        let mut connection = Connection::open(port);
        connection.send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n");
        wait::until("the peer has the request", wait::SOON, || self.backend.hits() > before);
        connection
    }

    /// Lets it answer all there is and all to come.
    fn let_go(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// The process that answers on this port.
#[track_caller]
fn worker(port: u16) -> i32 {
    client::get(port, "/pid").expect(200).text().parse().expect("a process id")
}

/// What `/` says there.
#[track_caller]
fn text(port: u16) -> String {
    client::get(port, "/").expect(200).text()
}

/// Whether a connection is accepted there.
fn served(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Clients that ask again and again, half of them on new connections, half along one; until they are told to stop.
struct Crowd {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Crowd {
    /// With `keep`, connections that are kept are among them.
    fn gather(port: u16, keep: bool) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |number: usize| {
            let (stop, answered) = (stop.clone(), answered.clone());
            std::thread::spawn(move || {
                let mut kept = (keep && number < 2).then(|| Connection::open(port));
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let answer = match &mut kept {
                        Some(connection) => connection.get("/"),
                        None => client::get(port, "/"),
                    };
                    if answer.status == 200 && answer.complete {
                        answered.fetch_add(1, Ordering::SeqCst);
                    } else {
                        failed.push(format!("{answer:?}"));
                    }
                    // After `keepalive_requests`, and after a failure.
                    if answer.header("Connection") != Some("keep-alive") {
                        kept = kept.map(|_| Connection::open(port));
                    }
                }
                failed
            })
        };
        let clients = (0..4).map(client).collect();
        Self { stop, answered, clients }
    }

    /// Waits until so many more were answered.
    #[track_caller]
    fn carry_on(&self, more: usize) {
        let goal = self.answered.load(Ordering::SeqCst) + more;
        wait::until("the crowd is answered", wait::SOON, || self.answered.load(Ordering::SeqCst) >= goal);
    }

    /// Sends them home.
    ///
    /// # Panics
    /// When one of them was not answered.
    #[track_caller]
    fn leave_content(self) {
        self.stop.store(true, Ordering::SeqCst);
        let failed: Vec<String> =
            self.clients.into_iter().flat_map(|client| client.join().expect("no connection refused")).collect();
        assert!(failed.is_empty(), "{} requests failed: {:#?}", failed.len(), &failed[..failed.len().min(5)]);
        assert!(self.answered.load(Ordering::SeqCst) > 0);
    }
}
