//! Upstream servers in threads of the test, answering as they are told.

use super::wait;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Request line and headers, as they came, with the empty line.
    pub(crate) head: String,
    /// The body without its framing.
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// `GET`.
    pub(crate) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// `/path?args`.
    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// `GET /path HTTP/1.1`.
    pub(crate) fn line(&self) -> &str {
        self.head.split("\r\n").next().unwrap_or_default()
    }

    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .split("\r\n")
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// 200 with this text, connection kept if the client wants.
    Text(String),
    /// These bytes; then the connection is closed.
    Raw(Vec<u8>),
    /// These bytes, in pieces with a pause between; then the connection is closed.
    Slowly(Vec<Vec<u8>>, Duration),
    /// These bytes, which say themselves where they end; the connection is kept.
    Keep(Vec<u8>),
    /// Nothing; the connection is closed.
    Close,
    /// The same after a while.
    After(Duration, Box<Reply>),
    /// 101; from then on every byte comes back, as an echoing WebSocket server would do.
    UpgradeAndEcho,
}

/// What happened so far, shared with the threads.
#[derive(Default)]
struct Ledger {
    hits: AtomicUsize,
    connections: AtomicUsize,
    requests: Mutex<Vec<Received>>,
    /// The open connections, each with its client's address.
    open: Mutex<Vec<(SocketAddr, TcpStream)>>,
    ended: AtomicBool,
}

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

/// A listening server; ended when dropped.
pub(crate) struct Backend {
    address: SocketAddr,
    script: Arc<Script>,
    ledger: Arc<Ledger>,
    listening: Option<JoinHandle<()>>,
}

impl Backend {
    /// Listens on a port of the kernel's choice on 127.0.0.1.
    pub(crate) fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0".parse().expect("an address"), script)
    }

    /// Listens there.
    pub(crate) fn start_on(address: SocketAddr, script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let mut backend = Self { address, script: Arc::new(script), ledger: Arc::default(), listening: None };
        backend.listen();
        backend
    }

    /// Answers everything with its name.
    pub(crate) fn named(name: &str) -> Self {
        let name = name.to_owned();
        Self::start(move |_| Reply::Text(name.clone()))
    }

    /// Answers with the request it got, head and body.
    pub(crate) fn echo() -> Self {
        Self::start(|request| Reply::Text(format!("{}{}", request.head, String::from_utf8_lossy(&request.body))))
    }

    /// Its address, as in `server ADDRESS;`.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests it got.
    pub(crate) fn hits(&self) -> usize {
        self.ledger.hits.load(Ordering::SeqCst)
    }

    /// How many connections it accepted.
    pub(crate) fn connections(&self) -> usize {
        self.ledger.connections.load(Ordering::SeqCst)
    }

    /// The requests it got, at most the first thousand.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.ledger.requests.lock().expect("lock").clone()
    }

    /// Goes away as a killed process does: nothing listens, every connection is cut.
    pub(crate) fn kill(&mut self) {
        self.ledger.ended.store(true, Ordering::SeqCst);
        // The listening thread looks up when somebody comes.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.listening.take() {
            thread.join().expect("the listening thread");
        }
        for (_, stream) in self.ledger.open.lock().expect("lock").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Comes back on the same port.
    pub(crate) fn restart(&mut self) {
        self.ledger.ended.store(false, Ordering::SeqCst);
        self.listen();
    }

    fn listen(&mut self) {
        let mut bound = None;
        wait::until(&format!("{} is free", self.address), wait::SOON, || {
            bound = TcpListener::bind(self.address).ok();
            bound.is_some()
        });
        let listener = bound.expect("until it was bound");
        self.address = listener.local_addr().expect("its address");
        let (script, ledger) = (self.script.clone(), self.ledger.clone());
        self.listening = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ledger.ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (Ok(client), Ok(copy)) = (stream.peer_addr(), stream.try_clone()) else { continue };
                ledger.connections.fetch_add(1, Ordering::SeqCst);
                ledger.open.lock().expect("lock").push((client, copy));
                let (script, ledger) = (script.clone(), ledger.clone());
                std::thread::spawn(move || {
                    serve(&stream, &*script, &ledger);
                    let _ = stream.shutdown(Shutdown::Both);
                    ledger.open.lock().expect("lock").retain(|(other, _)| *other != client);
                });
            }
        }));
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if self.listening.is_some() {
            self.kill();
        }
    }
}

/// One connection, request after request.
fn serve(mut stream: &TcpStream, script: &Script, ledger: &Ledger) {
    let mut ahead = Vec::new();
    while let Some(request) = receive(stream, &mut ahead) {
        ledger.hits.fetch_add(1, Ordering::SeqCst);
        let mut reply = script(&request);
        let keep = !request.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
            && request.line().ends_with("HTTP/1.1");
        {
            let mut requests = ledger.requests.lock().expect("lock");
            if requests.len() < 1000 {
                requests.push(request);
            }
        }
        while let Reply::After(pause, then) = reply {
            std::thread::sleep(pause);
            reply = *then;
        }
        let sent = match reply {
            Reply::Text(text) => {
                let end = if keep { "" } else { "Connection: close\r\n" };
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{end}\r\n", text.len());
                stream.write_all(format!("{head}{text}").as_bytes()).is_ok() && keep
            }
            Reply::Keep(bytes) => stream.write_all(&bytes).is_ok() && keep,
            Reply::Raw(bytes) => {
                let _ = stream.write_all(&bytes);
                false
            }
            Reply::Slowly(pieces, pause) => {
                for piece in pieces {
                    let _ = stream.write_all(&piece);
                    std::thread::sleep(pause);
                }
                false
            }
            Reply::Close | Reply::After(..) => false,
            Reply::UpgradeAndEcho => {
                echo(stream, &ahead);
                false
            }
        };
        if !sent {
            return;
        }
    }
}

fn echo(mut stream: &TcpStream, ahead: &[u8]) {
    let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let _ = stream.write_all(ahead);
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// One whole request; none when the client has gone.
fn receive(stream: &TcpStream, ahead: &mut Vec<u8>) -> Option<Received> {
    let head = take_until(stream, ahead, b"\r\n\r\n")?;
    let mut request = Received { head: String::from_utf8_lossy(&head).into_owned(), body: Vec::new() };
    if request.header("Transfer-Encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        loop {
            let line = take_until(stream, ahead, b"\r\n")?;
            let digits = String::from_utf8_lossy(&line).trim().to_owned();
            let size = usize::from_str_radix(&digits, 16).ok()?;
            let chunk = take(stream, ahead, size + 2)?;
            if size == 0 {
                break;
            }
            request.body.extend_from_slice(&chunk[..size]);
        }
    } else if let Some(length) = request.header("Content-Length").and_then(|text| text.parse().ok()) {
        request.body = take(stream, ahead, length)?;
    }
    Some(request)
}

fn take_until(stream: &TcpStream, ahead: &mut Vec<u8>, mark: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = ahead.windows(mark.len()).position(|window| window == mark) {
            return Some(ahead.drain(..at + mark.len()).collect());
        }
        more(stream, ahead)?;
    }
}

fn take(stream: &TcpStream, ahead: &mut Vec<u8>, count: usize) -> Option<Vec<u8>> {
    while ahead.len() < count {
        more(stream, ahead)?;
    }
    Some(ahead.drain(..count).collect())
}

fn more(mut stream: &TcpStream, ahead: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16 * 1024];
    let count = stream.read(&mut buffer).ok()?;
    ahead.extend_from_slice(&buffer[..count]);
    (count > 0).then_some(())
}
