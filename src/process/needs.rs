//! What a configuration needs from the system, as plain data: a reading lists it, the master opens it.

use std::{ffi::OsString, fmt, net::SocketAddr, os::unix::ffi::OsStringExt, path::PathBuf, time::Duration};

use super::log::Level;

/// Everything one configuration wants opened or set. The defaults are nginx's.
#[derive(Clone, Debug, PartialEq)]
pub struct Needs {
    /// The sockets to listen on, one per address, after `listen` lines that share one have been merged.
    pub listeners: Vec<ListenerNeed>,
    /// Log files to append to, besides those of `error_logs`. Each is handed out by this path.
    pub logs: Vec<PathBuf>,
    /// The syslog servers of access logs, and of error logs at any level.
    pub syslogs: Vec<Syslog>,
    /// The main level's `error_log` lines; without any, nginx logs `error` and worse to the file of `-e` or the build.
    pub error_logs: Vec<ErrorLog>,
    /// Directories for temporary files, created for the worker's user with mode 0700 (`ngx_create_paths`).
    pub directories: Vec<PathBuf>,
    /// The same, where it does no harm if there is none.
    pub optional_directories: Vec<PathBuf>,
    /// Files that are kept up to date while the server serves (`state`).
    pub kept: Vec<PathBuf>,
    /// `pid`, a full path.
    pub pid: PathBuf,
    /// `daemon`.
    pub daemon: bool,
    /// `master_process`.
    pub master_process: bool,
    /// `worker_processes`: the number of threads. Counted as 1 when 0.
    pub worker_processes: usize,
    /// Whom the worker becomes.
    pub identity: Identity,
    /// `worker_cpu_affinity`.
    pub affinity: Affinity,
    /// `worker_shutdown_timeout`.
    pub shutdown_timeout: Option<Duration>,
}

impl Default for Needs {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            logs: Vec::new(),
            syslogs: Vec::new(),
            error_logs: Vec::new(),
            directories: Vec::new(),
            optional_directories: Vec::new(),
            kept: Vec::new(),
            pid: PathBuf::new(),
            daemon: true,
            master_process: true,
            worker_processes: 1,
            identity: Identity::default(),
            affinity: Affinity::default(),
            shutdown_timeout: None,
        }
    }
}

impl Needs {
    /// The number of threads to run.
    pub fn threads(&self) -> usize {
        self.worker_processes.max(1)
    }

    /// Every log file to open, each once.
    pub fn log_files(&self) -> Vec<PathBuf> {
        let errors = self.error_logs.iter().filter_map(|log| match &log.target {
            LogTarget::File(path) => Some(path),
            LogTarget::Stderr | LogTarget::Syslog(_) => None,
        });
        let mut files: Vec<PathBuf> = Vec::new();
        for path in errors.chain(&self.logs) {
            if !files.contains(path) {
                files.push(path.clone());
            }
        }
        files
    }
}

/// One `error_log` line.
#[derive(Clone, Debug, PartialEq)]
pub struct ErrorLog {
    pub target: LogTarget,
    pub level: Level,
    /// Each line is an object of JSON.
    pub json: bool,
}

/// Where an `error_log` leads.
#[derive(Clone, Debug, PartialEq)]
pub enum LogTarget {
    Stderr,
    File(PathBuf),
    Syslog(Syslog),
}

/// A syslog server, and under which name lines are sent to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Syslog {
    /// `server=`
    pub endpoint: Endpoint,
    /// `facility=`, by its number.
    pub facility: u8,
    /// `severity=` of lines that have none themselves, by its number: 0 is `emerg`.
    pub severity: u8,
    /// `tag=`
    pub tag: Vec<u8>,
    /// The machine's name, unless `nohostname` leaves it out.
    pub host_name: Option<Vec<u8>>,
}

/// A socket to listen on and its options.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerNeed {
    pub endpoint: Endpoint,
    /// `backlog=`, 511 unless told.
    pub backlog: i32,
    /// `reuseport`: a socket of its own for every thread.
    pub reuseport: bool,
    /// `ipv6only=`, on unless told; only looked at for IPv6.
    pub ipv6only: bool,
    /// `rcvbuf=` in bytes.
    pub rcvbuf: Option<i32>,
    /// `sndbuf=` in bytes.
    pub sndbuf: Option<i32>,
    /// `fastopen=`, the length of its queue.
    pub fastopen: Option<i32>,
    /// `so_keepalive=`.
    pub keepalive: Keepalive,
    /// `deferred`.
    pub deferred: bool,
    /// `multipath`: MPTCP where the system has it.
    pub multipath: bool,
}

impl ListenerNeed {
    /// A listener with nginx's defaults.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            backlog: 511,
            reuseport: false,
            ipv6only: true,
            rcvbuf: None,
            sndbuf: None,
            fastopen: None,
            keepalive: Keepalive::default(),
            deferred: false,
            multipath: false,
        }
    }
}

/// `so_keepalive=on|off|idle:interval:count`; `None` leaves it to the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    pub on: Option<bool>,
    /// Seconds.
    pub idle: Option<i32>,
    /// Seconds.
    pub interval: Option<i32>,
    pub count: Option<i32>,
}

/// How bytes come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    Stream,
    Datagram,
}

/// Where a socket is bound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Ip(SocketAddr),
    Unix(PathBuf),
}

/// Which socket: the name of a listener through reloads, and between the master and its threads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub transport: Transport,
    pub address: Address,
}

impl Endpoint {
    /// A TCP address.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { transport: Transport::Stream, address: Address::Ip(address) }
    }

    /// A Unix socket of streams.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self { transport: Transport::Stream, address: Address::Unix(path.into()) }
    }
}

impl fmt::Display for Endpoint {
    /// As nginx names it in messages: `0.0.0.0:80`, `[::]:80`, `unix:/path`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Ip(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whom the worker becomes. A reload that changes any of this starts a new worker process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// `user`; only used when the master is root.
    pub user: Option<User>,
    /// `worker_priority`.
    pub priority: i32,
    /// `worker_rlimit_nofile`.
    pub rlimit_nofile: Option<u64>,
    /// `worker_rlimit_core`, bytes.
    pub rlimit_core: Option<u64>,
    /// `working_directory`.
    pub working_directory: Option<PathBuf>,
    /// `env` lines as written: `NAME` or `NAME=value`.
    pub environment: Vec<Vec<u8>>,
}

impl Identity {
    /// The environment of workers and of a new binary: `TZ`, what `env` lists, and our own profile (`ngx_set_environment`).
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let kept = ["TZ", super::profile::VARIABLE].map(|name| name.as_bytes().to_vec());
        let mut environment: Vec<(OsString, OsString)> = Vec::new();
        for line in kept.iter().chain(&self.environment) {
            let mut parts = line.splitn(2, |&byte| byte == b'=');
            let name = OsString::from_vec(parts.next().unwrap_or_default().to_vec());
            let value = parts.next().map(|value| OsString::from_vec(value.to_vec()));
            let Some(value) = value.or_else(|| std::env::var_os(&name)) else { continue };
            environment.retain(|(known, _)| *known != name);
            environment.push((name, value));
        }
        environment.retain(|(name, _)| !name.is_empty());
        environment
    }
}

/// A user and its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: Vec<u8>,
    pub uid: u32,
    pub gid: u32,
}

/// `worker_cpu_affinity`: sets of processor numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    #[default]
    None,
    /// One set per thread; the last serves the rest.
    Masks(Vec<Vec<usize>>),
    /// `auto`: each thread one processor out of this set, in turn.
    Auto(Vec<usize>),
}

impl Affinity {
    /// The processors of thread `index`; `None` when it may run anywhere (`ngx_get_cpu_affinity`).
    pub fn of(&self, index: usize) -> Option<&[usize]> {
        match self {
            Self::None => None,
            Self::Masks(masks) => masks.get(index).or(masks.last()).map(Vec::as_slice),
            Self::Auto(set) if set.is_empty() => None,
            Self::Auto(set) => Some(std::slice::from_ref(&set[index % set.len()])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_reads_as_in_nginx() {
        for (text, endpoint) in [
            ("0.0.0.0:80", Endpoint::tcp("0.0.0.0:80".parse().unwrap())),
            ("[::]:80", Endpoint::tcp("[::]:80".parse().unwrap())),
            ("unix:/run/a.sock", Endpoint::unix("/run/a.sock")),
        ] {
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn affinity_repeats_its_last_mask_and_turns_through_auto() {
        let masks = Affinity::Masks(vec![vec![0], vec![1, 2]]);
        assert_eq!((masks.of(0), masks.of(7)), (Some(&[0][..]), Some(&[1, 2][..])));
        let auto = Affinity::Auto(vec![1, 3]);
        assert_eq!((auto.of(0), auto.of(1), auto.of(2)), (Some(&[1][..]), Some(&[3][..]), Some(&[1][..])));
        assert_eq!(Affinity::Auto(Vec::new()).of(0), None);
    }

    #[test]
    fn the_environment_is_what_env_lists() {
        let identity = Identity {
            environment: vec![b"A=1".to_vec(), b"A=2=3".to_vec(), b"NO_SUCH_VARIABLE".to_vec()],
            ..Identity::default()
        };
        let environment = identity.environment();
        assert!(environment.contains(&("A".into(), "2=3".into())));
        assert!(!environment.iter().any(|(name, _)| name == "NO_SUCH_VARIABLE" || name == "HOME"));
    }

    #[test]
    fn a_log_that_two_lines_name_is_opened_once() {
        let needs = Needs {
            logs: vec!["/b".into(), "/a".into()],
            error_logs: vec![
                ErrorLog { target: LogTarget::File("/a".into()), level: Level::Err, json: false },
                ErrorLog { target: LogTarget::Stderr, level: Level::Err, json: false },
            ],
            ..Needs::default()
        };
        assert_eq!(needs.log_files(), [PathBuf::from("/a"), "/b".into()]);
    }
}
