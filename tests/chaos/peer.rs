//! A peer that can be made ill: this test program itself, started once more as a process of its own.

use crate::support::program::Program;
use crate::support::wait;
use rustix::process::Signal;
use socket2::SockRef;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// Where the process serves, and where it is told what to do; set for nobody else.
const SERVES: &str = "TIDEGATE_CHAOS_PEER";

/// How long a slow answer takes: longer than anybody waits.
const SLOW: Duration = Duration::from_secs(20);

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It answers.
    Fine,
    /// It resets the connection in the middle of the answer's head.
    Resets,
    /// It answers when nobody waits any more.
    Slow,
}

/// A peer in a process of its own.
pub(crate) struct Peer {
    program: Program,
    pub(crate) address: SocketAddr,
    control: SocketAddr,
}

impl Peer {
    /// One that serves at an address.
    pub(crate) fn start(address: SocketAddr, control: u16) -> Self {
        let control = SocketAddr::from((Ipv4Addr::LOCALHOST, control));
        let mut command = Command::new(std::env::current_exe().expect("the test program"));
        command.args(["chaos::peer::a_peer_serves", "--exact", "--ignored", "--nocapture"]);
        command.env(SERVES, format!("{address} {control}"));
        let program = Program::start("peer", command).deaf();
        wait::until("the peer serves", wait::SOON, || {
            TcpStream::connect(address).is_ok() && TcpStream::connect(control).is_ok()
        });
        Self { program, address, control }
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(&mut self) {
        self.program.kill();
    }

    /// Starts it anew after that.
    pub(crate) fn restart(&mut self) {
        *self = Self::start(self.address, self.control.port());
    }

    /// Halts it: its sockets stay open, nobody reads from them.
    pub(crate) fn halt(&self) {
        self.program.signal(Signal::STOP);
    }

    /// It goes on.
    pub(crate) fn resume(&self) {
        self.program.signal(Signal::CONT);
    }

    /// From now on it does this with each request.
    pub(crate) fn becomes(&self, mood: Mood) {
        self.tell(&format!("{}", mood as u8));
    }

    /// How many requests it has answered, checks aside.
    pub(crate) fn answered(&self) -> u64 {
        self.tell("?").trim().parse().expect("a number")
    }

    fn tell(&self, line: &str) -> String {
        let mut stream = TcpStream::connect(self.control).expect("control");
        writeln!(stream, "{line}").expect("control");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("control");
        answer
    }
}

static MOOD: AtomicU8 = AtomicU8::new(Mood::Fine as u8);
static ANSWERED: AtomicU64 = AtomicU64::new(0);

/// What runs in the process of a peer.
#[test]
#[ignore = "it is what the peers of the chaos test run"]
fn a_peer_serves() {
    let places = std::env::var(SERVES).expect("where to serve");
    let (address, control) = places.split_once(' ').expect("two addresses");
    let control = TcpListener::bind(control).expect("control");
    let listener = TcpListener::bind(address).expect("bind");
    std::thread::spawn(move || control.incoming().flatten().for_each(obey));
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || serve(stream));
    }
}

fn obey(mut stream: TcpStream) {
    let mut line = String::new();
    if BufReader::new(&stream).read_line(&mut line).is_ok() {
        if let Ok(mood) = line.trim().parse() {
            MOOD.store(mood, SeqCst);
        }
        let _ = writeln!(stream, "{}", ANSWERED.load(SeqCst));
    }
}

/// One connection, request by request; bodies are not expected.
fn serve(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let (mut head, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut piece) {
                Ok(count) if count > 0 => head.extend_from_slice(&piece[..count]),
                _ => return,
            }
        }
        let mood = MOOD.load(SeqCst);
        if mood == Mood::Resets as u8 {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Ty");
            // Closed like this the connection is reset.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            return;
        }
        if mood == Mood::Slow as u8 {
            std::thread::sleep(SLOW);
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nfine\n").is_err()
        {
            return;
        }
        if !head.starts_with(b"GET /health ") {
            ANSWERED.fetch_add(1, SeqCst);
        }
        head.clear();
    }
}
