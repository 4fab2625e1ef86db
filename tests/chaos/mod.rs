//! Eight peers under load, of which one after the other is killed, halted, resets connections in the middle of a head,
//! answers too late, or moves to another address: no client notices, and each is asked again when it is well.
//!
//! `TIDEGATE_CHAOS_SECONDS` makes it longer than the one round of faults it takes otherwise. With `TIDEGATE_CHAOS_NGINX`,
//! an nginx that knows `server … resolve` (1.27.3 and later), the same goes through that, too: without checks, as it has
//! none. What is seen is printed as a table: `cargo test --test main -- chaos --nocapture`.

mod peer;

use crate::support::component::need;
use crate::support::names::Names;
use crate::support::ports::free_port;
use crate::support::scratch::Scratch;
use crate::support::wrk::{self, Report};
use crate::support::{binary, machine, replaced, server, setting, wait};
use peer::{Mood, Peer};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PEERS: u8 = 8;

/// An answer that took longer was disturbed.
const NOTICEABLE: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    Halted,
    Resets,
    Slow,
    Moved,
}

const FAULTS: [Fault; 5] = [Fault::Killed, Fault::Halted, Fault::Resets, Fault::Slow, Fault::Moved];

/// What came of one fault.
struct Row {
    fault: Fault,
    /// The slowest answer from its beginning on.
    slowest: Duration,
    /// From its beginning to the last answer that was disturbed.
    disturbed: Duration,
    /// From its end until the peer was asked again.
    back: Duration,
}

#[test]
fn no_client_notices_what_happens_to_peers() {
    if replaced() || !need(&["wrk"]) {
        return;
    }
    let _machine = machine();
    let seconds = setting("TIDEGATE_CHAOS_SECONDS");
    let (report, rows, probe) = run(&binary(), true, seconds);
    print("with active checks", &report, &rows, &probe);
    if let Some(nginx) = std::env::var_os("TIDEGATE_CHAOS_NGINX").map(PathBuf::from) {
        let (report, rows, probe) = run(&nginx, false, seconds);
        print("nginx", &report, &rows, &probe);
    }
    assert!(report.requests > 100, "{report:?}");
    assert_eq!((report.failures, report.errors, probe.failures), (0, 0, 0));
}

/// Faults in turn under load, through one program.
fn run(program: &Path, checks: bool, seconds: Option<u64>) -> (Report, Vec<Row>, Seen) {
    let names = Names::start();
    let peer_port = free_port();
    let mut peers: Vec<Peer> = (0..PEERS)
        .map(|number| {
            names.set(&name(number), place(number, 0));
            Peer::start((place(number, 0), peer_port).into(), free_port())
        })
        .collect();
    let (dir, port) = (Scratch::new(), free_port());
    dir.write("nginx.conf", configuration(&dir, port, peer_port, names.port, checks));
    let mut running = server::start(program, dir.path(), port);
    wait::until("every peer is asked", wait::SOON, || {
        let _ = ask(port);
        peers.iter().all(|peer| peer.answered() > 0)
    });

    let mut wrk = wrk::start(port, &["-c32", "-d3600s", "--timeout", "30s"]);
    let probe = Probe::start(port);
    let began = Instant::now();
    let mut rows = Vec::new();
    let (mut moves, fault_time) = ([0; PEERS as usize], Duration::from_secs(if seconds.is_some() { 5 } else { 2 }));
    for round in 0.. {
        let number = round % usize::from(PEERS);
        let fault = FAULTS[round % FAULTS.len()];
        let start = Instant::now();
        probe.forget();
        begin(fault, &mut peers[number]);
        if fault == Fault::Moved {
            moves[number] += 1;
            let place = place(number as u8, moves[number] % 2);
            let new = Peer::start((place, peer_port).into(), free_port());
            names.set(&name(number as u8), place);
            let mut old = std::mem::replace(&mut peers[number], new);
            old.kill();
        } else {
            std::thread::sleep(fault_time);
        }
        let end = Instant::now();
        cure(fault, &mut peers[number]);
        if fault == Fault::Halted {
            // What waited in its sockets is answered at once, and says nothing.
            std::thread::sleep(Duration::from_millis(100));
        }
        let before = peers[number].answered();
        wait::until("the peer is asked again", Duration::from_secs(60), || peers[number].answered() > before);
        let back = end.elapsed();
        std::thread::sleep(fault_time / 2);
        let (slowest, last) = probe.noticed();
        let disturbed = last.map_or(Duration::ZERO, |last| last.saturating_duration_since(start));
        rows.push(Row { fault, slowest, disturbed, back });
        if match seconds {
            Some(seconds) => began.elapsed() >= Duration::from_secs(seconds),
            None => rows.len() == FAULTS.len(),
        } {
            break;
        }
    }
    let seen = probe.end();
    wrk.signal(Signal::INT);
    wrk.wait(wait::SOON);
    running.finish();
    (Report::of(&wrk.stdout()), rows, seen)
}

fn begin(fault: Fault, peer: &mut Peer) {
    match fault {
        Fault::Killed => peer.kill(),
        Fault::Halted => peer.halt(),
        Fault::Resets => peer.becomes(Mood::Resets),
        Fault::Slow => peer.becomes(Mood::Slow),
        Fault::Moved => {}
    }
}

fn cure(fault: Fault, peer: &mut Peer) {
    match fault {
        Fault::Killed => peer.restart(),
        Fault::Halted => peer.resume(),
        Fault::Resets | Fault::Slow => peer.becomes(Mood::Fine),
        Fault::Moved => {}
    }
}

fn name(number: u8) -> String {
    format!("peer{number}.chaos.test")
}

fn place(number: u8, house: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1 + house, 1 + number)
}

fn configuration(dir: &Scratch, port: u16, peers: u16, names: u16, checks: bool) -> String {
    let at = dir.path().display();
    let servers: String = (0..PEERS)
        .map(|number| format!("    server {}:{peers} resolve max_fails=1 fail_timeout=3s;\n", name(number)))
        .collect();
    let check = if checks { "health_check interval=500ms fails=1 passes=1 uri=/health;" } else { "" };
    format!(
        "daemon off;\nworker_processes 1;\npid {at}/nginx.pid;\nerror_log {at}/error.log warn;\n\
         events {{ worker_connections 1024; }}\nhttp {{\n  access_log off;\n  proxy_temp_path {at}/tmp;\n  \
         client_body_temp_path {at}/body;\n  resolver 127.0.0.1:{names} valid=1s ipv6=off;\n  \
         upstream peers {{\n    zone peers 256k;\n{servers}    keepalive 64;\n  }}\n  \
         server {{\n    listen 127.0.0.1:{port};\n    keepalive_requests 100000000;\n    location / {{\n      \
         proxy_pass http://peers;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      \
         proxy_connect_timeout 1s;\n      proxy_read_timeout 1s;\n      \
         proxy_next_upstream error timeout invalid_header http_502 http_503 http_504;\n      {check}\n    }}\n  }}\n}}\n"
    )
}

/// One request on a connection of its own; whether it was answered as it should be.
fn ask(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let mut line = String::new();
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: chaos\r\nConnection: close\r\n\r\n").is_ok();
    let mut reader = BufReader::new(stream);
    let answered = reader.read_line(&mut line).is_ok() && line.starts_with("HTTP/1.1 200 ");
    let mut rest = Vec::new();
    asked && answered && reader.read_to_end(&mut rest).is_ok() && rest.ends_with(b"fine\n")
}

/// A client that asks all the time, one request after the other, and looks at the clock.
struct Probe {
    seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

/// What it saw.
#[derive(Clone, Debug, Default)]
struct Seen {
    requests: u64,
    failures: u64,
    /// Since it was last forgotten: the slowest answer, and when the last one came that was disturbed.
    slowest: Duration,
    last: Option<Instant>,
}

impl Probe {
    fn start(port: u16) -> Self {
        let (seen, over) = (Arc::<Mutex<Seen>>::default(), Arc::new(AtomicBool::new(false)));
        let (shared, ended) = (Arc::clone(&seen), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while !ended.load(SeqCst) {
                let began = Instant::now();
                let fine = ask(port);
                let took = began.elapsed();
                let mut seen = shared.lock().expect("what was seen");
                seen.requests += 1;
                seen.failures += u64::from(!fine);
                seen.slowest = seen.slowest.max(took);
                if took > NOTICEABLE || !fine {
                    seen.last = Some(Instant::now());
                }
                drop(seen);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { seen, over, thread }
    }

    fn forget(&self) {
        let mut seen = self.seen.lock().expect("what was seen");
        (seen.slowest, seen.last) = (Duration::ZERO, None);
    }

    fn noticed(&self) -> (Duration, Option<Instant>) {
        let seen = self.seen.lock().expect("what was seen");
        (seen.slowest, seen.last)
    }

    fn end(self) -> Seen {
        self.over.store(true, SeqCst);
        self.thread.join().expect("the probe");
        let seen = self.seen.lock().expect("what was seen");
        seen.clone()
    }
}

/// The table: medians and worst of each kind of fault.
fn print(title: &str, report: &Report, rows: &[Row], seen: &Seen) {
    eprintln!(
        "\n{title}: {} requests, {} answers other than 2xx and 3xx, {} socket errors; one at a time {}, {} failed",
        report.requests, report.failures, report.errors, seen.requests, seen.failures
    );
    eprintln!(
        "{:<10} {:>6} {:>22} {:>22} {:>22}",
        "", "times", "slowest answer ms", "disturbed for ms", "back in use after ms"
    );
    for fault in FAULTS {
        let of: Vec<&Row> = rows.iter().filter(|row| row.fault == fault).collect();
        let column = |value: fn(&Row) -> Duration| {
            let mut all: Vec<u128> = of.iter().map(|row| value(row).as_millis()).collect();
            all.sort_unstable();
            let middle = all.get(all.len() / 2).copied().unwrap_or_default();
            format!("{middle} (worst {})", all.last().copied().unwrap_or_default())
        };
        let (slowest, disturbed, back) =
            (column(|row| row.slowest), column(|row| row.disturbed), column(|row| row.back));
        eprintln!("{:<10} {:>6} {slowest:>22} {disturbed:>22} {back:>22}", format!("{fault:?}"), of.len());
    }
}
