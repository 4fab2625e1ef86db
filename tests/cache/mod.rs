//! Caches: which answers are kept, for how long, and what is given of them; the files, and who else may use them.

mod beside;
mod corners;
mod exchange;
mod files;
mod giving;
mod keeping;
mod locks;
mod protocols;
mod status;

use crate::support::backend::{Backend, Received, Reply};
use crate::support::client::{Answer, Connection, Request};
use crate::support::ports::free_port;
use crate::support::program::run;
use crate::support::scratch::Scratch;
use crate::support::server::Server;
use crate::support::wait::{SOON, until};
use crate::support::{binary, replaced};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

/// An upstream whose answers change as a test goes on.
struct Origin {
    backend: Backend,
    script: Arc<Mutex<Arc<Script>>>,
}

impl Origin {
    fn new(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let script: Arc<Mutex<Arc<Script>>> = Arc::new(Mutex::new(Arc::new(script)));
        let own = Arc::clone(&script);
        let backend = Backend::start(move |request| {
            let script = Arc::clone(&own.lock().unwrap());
            script(request)
        });
        Self { backend, script }
    }

    /// From now on it answers so.
    fn answers(&self, script: impl Fn(&Received) -> Reply + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    /// The same with one text, and fields that each end with CRLF.
    fn says(&self, status: &'static str, fields: &'static str, body: &'static str) {
        self.answers(move |_| text(status, fields, body));
    }

    fn hits(&self) -> usize {
        self.backend.hits()
    }

    /// The last request it got.
    fn last(&self) -> Received {
        self.backend.requests().pop().expect("a request")
    }

    /// Goes on when it has got so many requests.
    #[track_caller]
    fn has(&self, count: usize) {
        until(&format!("{count} requests have come"), SOON, || self.hits() >= count);
    }
}

/// An answer with a length, over a connection that stays.
fn text(status: &str, fields: &str, body: &str) -> Reply {
    Reply::Keep(format!("HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

/// What an answer is kept by for longer than any test takes.
const KEPT: &str = "Cache-Control: max-age=600\r\n";

/// What an answer is kept by though it is too old from the beginning.
const OLD: &str = "X-Accel-Expires: @1\r\n";

/// Holds whoever comes until it is opened.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn pass(&self) {
        let (open, changed) = &*self.0;
        drop(changed.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// A server with one cache before one upstream.
struct Site {
    server: Server,
    origin: Origin,
    port: u16,
}

impl Site {
    /// The cache `z` in the folder `cache`, with these parameters more, for a location that says this besides.
    fn new(parameters: &str, location: &str, script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let conf = format!(
            "proxy_cache_path cache keys_zone=z:1m {parameters}; \
             server {{ listen 127.0.0.1:%PORT%; \
             location / {{ proxy_cache z; proxy_pass http://%ORIGIN%; {location} }} }}"
        );
        Self::of(&conf, script)
    }

    /// The whole of `http {}`, where `%PORT%` and `%ORIGIN%` are what they say.
    fn of(conf: &str, script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let (origin, port) = (Origin::new(script), free_port());
        let server = Server::http(port, &filled(conf, port, &origin));
        Self { server, origin, port }
    }

    /// The same with three threads.
    fn threaded(conf: &str, script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let (origin, port) = (Origin::new(script), free_port());
        let server = Server::threaded(port, &filled(conf, port, &origin));
        Self { server, origin, port }
    }

    /// Puts another body of `http` in the file; the server's reload makes it count.
    fn rewrite(&self, conf: &str) {
        self.server.rewrite(&filled(conf, self.port, &self.origin));
    }

    fn ask(&self, request: &Request) -> Answer {
        Connection::open(self.port).ask(&request.clone().header("Connection", "close"))
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&Request::get(path))
    }

    /// Status, `$upstream_cache_status` and body of an answer, as in `200 HIT text`.
    #[track_caller]
    fn see(&self, path: &str) -> String {
        seen(&self.get(path))
    }

    /// The same for a request with fields.
    #[track_caller]
    fn see_with(&self, path: &str, fields: &[(&str, &str)]) -> String {
        seen(&self.ask(&with(path, fields)))
    }

    /// Asks until an answer is this one.
    #[track_caller]
    fn comes_to(&self, path: &str, expected: &str) {
        let mut last = String::new();
        until(&format!("{path} is answered with {expected:?}"), SOON, || {
            last = self.see(path);
            last == expected
        });
    }

    fn cache(&self) -> PathBuf {
        self.server.dir().path().join("cache")
    }
}

/// What the server adds to its answers.
fn filled(conf: &str, port: u16, origin: &Origin) -> String {
    let conf = conf.replace("%PORT%", &port.to_string()).replace("%ORIGIN%", &origin.backend.address().to_string());
    format!(
        "add_header X-Cache $upstream_cache_status always; proxy_http_version 1.1; proxy_set_header Connection ''; \
         {conf}"
    )
}

fn with(path: &str, fields: &[(&str, &str)]) -> Request {
    fields.iter().fold(Request::get(path), |request, (name, value)| request.header(name, value))
}

#[track_caller]
fn seen(answer: &Answer) -> String {
    assert!(answer.complete, "{answer:?}");
    format!("{} {} {}", answer.status, answer.header("X-Cache").unwrap_or("-"), answer.text())
}

/// Sends a request and leaves its answer for later.
fn begin(port: u16, path: &str) -> Connection {
    let mut connection = Connection::open(port);
    connection.send(Request::get(path).header("Connection", "close").bytes());
    connection
}

/// Whether an older nginx than 1.`minor` stands in tidegate's place.
fn is_older_than(minor: u32) -> bool {
    if !replaced() {
        return false;
    }
    let mut command = Command::new(binary());
    command.arg("-v");
    let told = run(command).stderr;
    let known: Option<u32> = told.split("nginx/1.").nth(1).and_then(|rest| rest.split('.').next()?.parse().ok());
    known.unwrap_or_else(|| panic!("no version of nginx: {told}")) < minor
}

/// The files in a folder, at any depth.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut all = Vec::new();
    for path in entries.map_while(Result::ok).map(|entry| entry.path()) {
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path),
        }
    }
    all.sort();
    all
}

/// Goes on when there are so many files in a folder.
#[track_caller]
fn holds(folder: &Path, count: usize) {
    until(&format!("{count} files are in {}", folder.display()), SOON, || files(folder).len() == count);
}

/// A directory with a server's file in it.
fn directory(conf: &str) -> Scratch {
    let dir = Scratch::new();
    dir.write("nginx.conf", crate::support::server::whole_file(&dir, conf));
    dir
}
