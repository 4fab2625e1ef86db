//! tidegate, nginx and HAProxy side by side: CPU per request, throughput, latency and memory per idle connection.
//!
//! `cargo bench --bench side_by_side` prints two tables. Every proxy has one thread on core 0; `wrk` and the backend (an
//! nginx of its own) run on core 1. The rounds are interleaved, A B C A B C, and medians are shown, with ratios to nginx.
//!
//! Environment: `TIDEGATE_BENCH_SECONDS` (2) per cell, `TIDEGATE_BENCH_ROUNDS` (3), `TIDEGATE_BENCH_ONLY` (a part of a
//! cell's name), `TIDEGATE_BENCH_MEMORY=0` (leave out the idle connections), `TIDEGATE_BENCH_WAIT` (3) seconds between
//! their waves, `TIDEGATE_BENCH_BINARY` (another tidegate).

#![allow(clippy::expect_used, reason = "a measurement that cannot go on says so by a panic")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the tables are what it is run for")]
#![allow(
    clippy::disallowed_methods,
    reason = "the methods are those of a server; a measurement binds and waits as it likes"
)]
#![allow(clippy::cast_precision_loss, reason = "nothing measured here has more digits than a float")]

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A kind of load.
struct Cell {
    name: &'static str,
    path: &'static str,
    connections: usize,
    close: bool,
    /// Files of the proxy itself: nothing for HAProxy.
    local: bool,
}

const CELLS: &[Cell] = &[
    Cell { name: "small, keepalive, 64 connections", path: "/small", connections: 64, close: false, local: false },
    Cell { name: "small, keepalive, 512 connections", path: "/small", connections: 512, close: false, local: false },
    Cell { name: "small, a connection per request", path: "/small", connections: 64, close: true, local: false },
    Cell { name: "100 KB body, 64 connections", path: "/100k", connections: 64, close: false, local: false },
    Cell { name: "10 MB body, 8 connections", path: "/10m", connections: 8, close: false, local: false },
    Cell { name: "static 1 KB, 64 connections", path: "/static/1k", connections: 64, close: false, local: true },
    Cell { name: "static 1 MB, 16 connections", path: "/static/1m", connections: 16, close: false, local: true },
];

/// A program under measurement.
struct Contender {
    name: &'static str,
    port: u16,
    child: Child,
}

/// What one run of `wrk` showed.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// Microseconds of processor time per request, user and system.
    cpu: f64,
    /// Requests per second.
    rate: f64,
    /// Microseconds.
    p50: f64,
    /// Microseconds.
    p99: f64,
    /// Answers other than 2xx and 3xx, and socket errors.
    errors: u64,
}

fn main() {
    let seconds = number("TIDEGATE_BENCH_SECONDS", 2);
    let rounds = usize::try_from(number("TIDEGATE_BENCH_ROUNDS", 3)).unwrap_or(3).max(1);
    let only = std::env::var("TIDEGATE_BENCH_ONLY").unwrap_or_default();
    raise_open_files();
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let backend_port = prepare(dir.path());
    let _backend = start("backend", &program("/usr/sbin/nginx").expect("nginx"), dir.path(), backend_port, 1);
    assert!(program("/usr/bin/wrk").is_some(), "wrk is needed (Debian: apt-get install wrk)");

    println!("{rounds} rounds of {seconds} s, one thread each, medians\n");
    {
        let contenders = start_all(dir.path(), backend_port);
        heading();
        for cell in CELLS.iter().filter(|cell| cell.name.contains(&only)) {
            let mut samples: Vec<Vec<Sample>> = contenders.iter().map(|_| Vec::new()).collect();
            for _ in 0..rounds {
                for (contender, samples) in contenders.iter().zip(&mut samples) {
                    if !(cell.local && contender.name == "haproxy") {
                        samples.push(measure(contender, cell, seconds));
                    }
                }
            }
            report(cell, &contenders, &samples);
        }
    }
    if number("TIDEGATE_BENCH_MEMORY", 1) > 0 {
        println!("\nmemory per idle keepalive connection (bytes, PSS of all processes; waves of 1,000):");
        // Fresh processes: what the load above left behind would hide the growth.
        for contender in start_all(dir.path(), backend_port) {
            idle_memory(&contender);
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn program(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(path)).filter(|path| path.exists())
}

/// The tidegate to measure, if there is one.
fn tidegate() -> Option<PathBuf> {
    std::env::var_os("TIDEGATE_BENCH_BINARY")
        .map(PathBuf::from)
        .or_else(|| option_env!("CARGO_BIN_EXE_tidegate").map(PathBuf::from))
}

fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Writes the files to serve and the backend's configuration; returns the backend's port.
fn prepare(dir: &Path) -> u16 {
    let files = dir.join("files/static");
    fs::create_dir_all(&files).expect("mkdir");
    for (name, size) in [("../100k", 100 << 10), ("../10m", 10 << 20), ("1k", 1 << 10), ("1m", 1 << 20)] {
        fs::write(files.join(name), vec![b'x'; size]).expect("write");
    }
    let port = free_port();
    let text = format!(
        "{}\n    server {{\n        listen 127.0.0.1:{port} backlog=4096;\n        root {}/files;\n        \
         location = /small {{ return 200 \"hello, world\\n\"; }}\n    }}\n}}\n",
        head(dir, "backend"),
        dir.display()
    );
    fs::write(dir.join("backend.conf"), text).expect("write");
    port
}

/// What every nginx configuration here begins with.
fn head(dir: &Path, name: &str) -> String {
    let dir = dir.display();
    format!(
        "daemon off;\nworker_processes 1;\npid {dir}/{name}.pid;\nerror_log {dir}/{name}.log error;\n\
         events {{\n    worker_connections 16384;\n}}\nhttp {{\n    access_log off;\n    sendfile on;\n    tcp_nopush on;\n    \
         keepalive_requests 100000000;\n    keepalive_timeout 300s;\n    client_body_temp_path {dir}/tmp_body_{name};\n    \
         proxy_temp_path {dir}/tmp_proxy_{name};\n"
    )
}

/// The proxy's configuration, the same text for tidegate and nginx.
fn proxy_conf(dir: &Path, name: &str, port: u16, backend: u16) -> String {
    format!(
        "{}\n    upstream backend {{\n        server 127.0.0.1:{backend};\n        keepalive 1024;\n        \
         keepalive_requests 100000000;\n    }}\n    server {{\n        listen 127.0.0.1:{port} backlog=4096;\n        \
         location / {{\n            proxy_pass http://backend;\n            proxy_http_version 1.1;\n            \
         proxy_set_header Connection \"\";\n        }}\n        location /static/ {{\n            root {}/files;\n        \
         }}\n    }}\n}}\n",
        head(dir, name),
        dir.display()
    )
}

fn haproxy_conf(port: u16, backend: u16) -> String {
    format!(
        "global\n    nbthread 1\n    maxconn 9000\ndefaults\n    mode http\n    timeout connect 5s\n    \
         timeout client 300s\n    timeout server 300s\n    timeout http-keep-alive 300s\n    http-reuse always\n    \
         option http-keep-alive\nlisten proxy\n    bind 127.0.0.1:{port} backlog 4096\n    \
         server backend 127.0.0.1:{backend} pool-max-conn 1024\n"
    )
}

/// Starts the three on core 0; one that is absent is left out with a notice.
fn start_all(dir: &Path, backend: u16) -> Vec<Contender> {
    let mut all = Vec::new();
    for (name, path) in
        [("tidegate", tidegate()), ("nginx", program("/usr/sbin/nginx")), ("haproxy", program("/usr/sbin/haproxy"))]
    {
        let Some(path) = path else {
            eprintln!("NOTICE: no {name} here: left out");
            continue;
        };
        let port = free_port();
        let text = match name {
            "haproxy" => haproxy_conf(port, backend),
            name => proxy_conf(dir, name, port, backend),
        };
        fs::write(dir.join(format!("{name}.conf")), text).expect("write");
        all.push(start(name, &path, dir, port, 0));
    }
    all
}

/// Starts a program over `NAME.conf` on one core and waits until its port answers.
fn start(name: &'static str, path: &Path, dir: &Path, port: u16, core: usize) -> Contender {
    let conf = dir.join(format!("{name}.conf"));
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(path);
    if name == "haproxy" {
        command.arg("-f").arg(conf);
    } else {
        command.arg("-p").arg(format!("{}/", dir.display())).arg("-e").arg(dir.join(format!("{name}.log")));
        command.arg("-c").arg(conf);
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("taskset");
    let mut contender = Contender { name, port, child };
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = contender.child.try_wait().expect("wait");
        assert!(ended.is_none() && began.elapsed() < Duration::from_secs(10), "{name} does not serve: {ended:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    contender
}

impl Drop for Contender {
    fn drop(&mut self) {
        for signal in [Signal::TERM, Signal::KILL] {
            if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, signal);
            }
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(5) {
                if matches!(self.child.try_wait(), Ok(Some(_))) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn free_port() -> u16 {
    let offset = u16::try_from(std::process::id() % 100).unwrap_or(0);
    (0..100)
        .map(|step| 26900 + (offset + step) % 100)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// One run of `wrk` on core 1.
fn measure(contender: &Contender, cell: &Cell, seconds: u64) -> Sample {
    let before = cpu_ticks(contender.child.id());
    let mut command = Command::new("taskset");
    command.args(["-c", "1", "wrk", "-t1", "--latency", "--timeout", "10s"]);
    command.arg(format!("-c{}", cell.connections)).arg(format!("-d{seconds}s"));
    if cell.close {
        command.args(["-H", "Connection: close"]);
    }
    let output = command.arg(format!("http://127.0.0.1:{}{}", contender.port, cell.path)).output().expect("wrk");
    let ticks = cpu_ticks(contender.child.id()) - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut sample = Sample::default();
    let mut requests = 0.0;
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["50%", value] => sample.p50 = microseconds(value),
            ["99%", value] => sample.p99 = microseconds(value),
            [count, "requests", "in", ..] => requests = count.parse().unwrap_or(0.0),
            ["Requests/sec:", value] => sample.rate = value.parse().unwrap_or(0.0),
            ["Non-2xx", .., count] => sample.errors += count.parse().unwrap_or(1),
            ["Socket", "errors:", rest @ ..] => {
                let numbers = rest.iter().filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok());
                sample.errors += numbers.sum::<u64>();
            }
            _ => {}
        }
    }
    // A tick is a hundredth of a second on every Linux (USER_HZ).
    if requests > 0.0 {
        sample.cpu = ticks as f64 * 10_000.0 / requests;
    }
    sample
}

/// `1.23ms` in microseconds.
fn microseconds(text: &str) -> f64 {
    let units = [("us", 1.0), ("ms", 1000.0), ("s", 1_000_000.0)];
    units
        .iter()
        .find_map(|(unit, factor)| {
            text.strip_suffix(unit).and_then(|value| value.parse::<f64>().ok()).map(|v| v * factor)
        })
        .unwrap_or(f64::NAN)
}

/// A process and all below it.
fn family(root: u32) -> Vec<u32> {
    let mut parents: Vec<(u32, u32)> = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").map_while(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = stat(pid).and_then(|fields| fields.get(1).and_then(|parent| parent.parse().ok())) {
            parents.push((pid, parent));
        }
    }
    let mut all = vec![root];
    let mut next = 0;
    while let Some(parent) = all.get(next).copied() {
        all.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    all
}

/// The fields of `/proc/PID/stat` behind the name: state, parent, ...
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// User and system time of a process and all below it, threads and ended children included.
fn cpu_ticks(root: u32) -> u64 {
    family(root)
        .into_iter()
        .filter_map(stat)
        .map(|fields| fields.iter().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>())
        .sum()
}

/// PSS of a process and all below it, bytes.
fn memory(root: u32) -> u64 {
    let pss = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    family(root).into_iter().filter_map(pss).sum::<u64>() * 1024
}

/// Six waves of connections that made one request each and stay open.
fn idle_memory(contender: &Contender) {
    let wait = Duration::from_secs(number("TIDEGATE_BENCH_WAIT", 3));
    let mut open = Vec::new();
    let mut sizes = vec![memory(contender.child.id())];
    for _ in 0..6 {
        for _ in 0..1000 {
            match one_request(contender.port) {
                Ok(stream) => open.push(stream),
                Err(error) => {
                    println!("  {:<9} gave up after {} connections: {error}", contender.name, open.len());
                    return;
                }
            }
        }
        std::thread::sleep(wait);
        sizes.push(memory(contender.child.id()));
    }
    let alive = open.iter_mut().filter_map(|stream| still_open(stream).then_some(())).count();
    let growth = (i64::try_from(sizes[6]).unwrap_or(0) - i64::try_from(sizes[2]).unwrap_or(0)) / 4000;
    let waves: Vec<String> = sizes.iter().map(|size| format!("{:.1}", mebibytes(*size))).collect();
    println!(
        "  {:<9} {growth:>6}   (MiB before and after each wave: {}; {alive} of 6000 still open)",
        contender.name,
        waves.join(" ")
    );
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// A connection that has had one answer.
fn one_request(port: u16) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while !answer.ends_with(b"hello, world\n") {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&chunk[..count]);
    }
    Ok(stream)
}

fn still_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).is_ok()
        && matches!(stream.read(&mut [0; 1]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

fn heading() {
    println!(
        "{:<36} {:<9} {:>10} {:>7} {:>10} {:>7} {:>10} {:>10}",
        "", "", "CPU µs/req", "ratio", "req/s", "ratio", "p50 µs", "p99 µs"
    );
}

fn report(cell: &Cell, contenders: &[Contender], samples: &[Vec<Sample>]) {
    let medians: Vec<Option<Sample>> = samples.iter().map(|samples| median(samples)).collect();
    let nginx = contenders.iter().position(|contender| contender.name == "nginx").and_then(|at| medians[at]);
    for (index, (contender, sample)) in contenders.iter().zip(&medians).enumerate() {
        let name = if index == 0 { cell.name } else { "" };
        let Some(sample) = sample else { continue };
        let base = nginx.unwrap_or(*sample);
        let errors = if sample.errors > 0 { format!("  {} errors", sample.errors) } else { String::new() };
        println!(
            "{name:<36} {:<9} {:>10.2} {:>7.2} {:>10.0} {:>7.2} {:>10.0} {:>10.0}{errors}",
            contender.name,
            sample.cpu,
            sample.cpu / base.cpu,
            sample.rate,
            sample.rate / base.rate,
            sample.p50,
            sample.p99
        );
    }
}

/// The median of each quantity, and the sum of the errors.
fn median(samples: &[Sample]) -> Option<Sample> {
    let middle = |of: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    Some(Sample {
        cpu: middle(|sample| sample.cpu)?,
        rate: middle(|sample| sample.rate)?,
        p50: middle(|sample| sample.p50)?,
        p99: middle(|sample| sample.p99)?,
        errors: samples.iter().map(|sample| sample.errors).sum(),
    })
}
