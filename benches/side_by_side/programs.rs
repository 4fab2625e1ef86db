//! The programs under measurement: started, waited for, looked at from outside, ended.

use crate::scenes::Scene;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A program under measurement.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) child: Child,
}

/// A program, if it is there.
pub(crate) fn program(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(path)).filter(|path| path.exists())
}

/// The tidegate to measure, if there is one.
fn tidegate() -> Option<PathBuf> {
    std::env::var_os("TIDEGATE_BENCH_BINARY")
        .map(PathBuf::from)
        .or_else(|| option_env!("CARGO_BIN_EXE_tidegate").map(PathBuf::from))
}

pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Starts the programs of a scene on core 0; one that is absent is left out with a notice.
pub(crate) fn start_all(scene: &Scene, dir: &Path, backend: u16) -> Vec<Contender> {
    let mut all = Vec::new();
    for name in scene.contenders {
        let kind = name.split('+').next().unwrap_or_default();
        let path = match kind {
            "tidegate" => tidegate(),
            "nginx" => {
                std::env::var_os("TIDEGATE_BENCH_NGINX").map(PathBuf::from).or_else(|| program("/usr/sbin/nginx"))
            }
            _ => program("/usr/sbin/haproxy"),
        };
        let Some(path) = path else {
            eprintln!("NOTICE: no {kind} here: left out");
            continue;
        };
        let port = free_port();
        fs::write(dir.join(format!("{name}.conf")), (scene.text)(dir, name, port, backend)).expect("write");
        all.push(start(name, &path, kind, dir, port, 0));
    }
    all
}

/// Starts a program over `NAME.conf` on one core and waits until its port answers.
pub(crate) fn start(name: &'static str, path: &Path, kind: &str, dir: &Path, port: u16, core: usize) -> Contender {
    let conf = dir.join(format!("{name}.conf"));
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(path);
    if kind == "haproxy" {
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

pub(crate) fn free_port() -> u16 {
    let offset = u16::try_from(std::process::id() % 100).unwrap_or(0);
    (0..100)
        .map(|step| 26900 + (offset + step) % 100)
        .find(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok())
        .expect("a free port")
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
pub(crate) fn cpu_ticks(root: u32) -> u64 {
    family(root)
        .into_iter()
        .filter_map(stat)
        .map(|fields| fields.iter().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>())
        .sum()
}

/// PSS of a process and all below it, bytes.
pub(crate) fn memory(root: u32) -> u64 {
    let pss = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    family(root).into_iter().filter_map(pss).sum::<u64>() * 1024
}
