//! nginx and tidegate over the same files: what one has kept the other one gives.

use super::{KEPT, Origin, files, filled, seen, text};
use crate::support::backend::Received;
use crate::support::client::{Connection, Request, ask};
use crate::support::component;
use crate::support::ports::free_port;
use crate::support::program::Program;
use crate::support::scratch::Scratch;
use crate::support::server::{self, whole_file};
use crate::support::{binary, replaced};
use crate::versus::backend::{Backend, Speech, Step};
use crate::versus::support::oracle;
use std::path::{Path, PathBuf};

/// One directory and one port, which several programs serve one after the other.
struct Stage {
    dir: Scratch,
    port: u16,
}

impl Stage {
    /// `%FCGI%` is a FastCGI server.
    fn new(conf: &str, origin: &Origin, fastcgi: &Backend) -> Self {
        let (dir, port) = (Scratch::new(), free_port());
        let conf = filled(conf, port, origin).replace("%FCGI%", &fastcgi.address());
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind}_temp;\n", dir.path().display()))
            .concat();
        dir.write("nginx.conf", without_temp(&whole_file(&dir, &conf)).replace("http {", &format!("http {{\n{temp}")));
        Self { dir, port }
    }

    fn run(&self, program: &Path) -> Program {
        server::start(program, self.dir.path(), self.port)
    }
}

/// The file without the folders for temporary files.
fn without_temp(conf: &str) -> String {
    conf.lines().filter(|line| !line.contains("_temp_path ")).map(|line| format!("{line}\n")).collect()
}

fn origin(request: &Received) -> crate::support::backend::Reply {
    let language = request.header("Accept-Language").unwrap_or("none").to_owned();
    match request.target() {
        "/vary" => text("200 OK", &format!("{KEPT}Vary: Accept-Language, X-Other\r\n"), &language),
        "/old" => match request.header("If-None-Match") {
            Some("\"old\"") => text("304 Not Modified", KEPT, ""),
            _ => text("200 OK", "X-Accel-Expires: @1\r\nETag: \"old\"\r\n", "old"),
        },
        "/large" => text("200 OK", KEPT, &"large".repeat(100_000)),
        "/ranges" => text("200 OK", &format!("{KEPT}Accept-Ranges: bytes\r\nETag: \"r\"\r\n"), "abcdefgh"),
        path => text(
            if path == "/fine" { "203 Fine" } else { "200 OK" },
            &format!("{KEPT}ETag: \"e\"\r\nLast-Modified: Tue, 02 Jan 2024 03:04:05 GMT\r\nContent-Type: text/x\r\n"),
            path,
        ),
    }
}

/// What is asked for, and the status of the answer.
fn requests() -> Vec<(Request, u16)> {
    vec![
        (Request::get("/plain"), 200),
        (Request::get("/plain?x=y"), 200),
        (Request::get("/fine"), 203),
        (Request::get("/vary").header("Accept-Language", "de"), 200),
        (Request::get("/vary").header("Accept-Language", "en, fr"), 200),
        (Request::get("/vary").header("X-Other", "1").header("X-Other", "2"), 200),
        (Request::get("/large"), 200),
        (Request::get("/ranges").header("Range", "bytes=2-3"), 206),
        (Request::get("/plain").header("If-None-Match", "\"e\""), 304),
        (Request::new("HEAD", "/plain"), 200),
        (Request::get("/fcgi"), 201),
        (Request::get("/fcgi/vary").header("Accept-Encoding", "gzip"), 201),
    ]
}

/// Both directions: `first` fills the folder, `second` finds all of it, renews what is old, and `first` goes on with that.
fn goes_on(first: &Path, second: &Path) {
    let origin = Origin::new(origin);
    let fastcgi = Backend::tcp("fastcgi", Speech::FastCgi);
    let output = format!("Status: 201 Made\r\n{KEPT}Vary: Accept-Encoding\r\nX-A: b\r\n\r\nfrom fastcgi");
    let output =
        [Step::Record(6, 5, output.into_bytes()), Step::Record(6, 0, Vec::new()), Step::Record(3, 0, vec![0; 8])];
    fastcgi.script(Some(output.to_vec()));
    let conf = "proxy_cache_path cache keys_zone=z:1m levels=1:2; fastcgi_cache_path other keys_zone=f:1m; \
                server { listen 127.0.0.1:%PORT%; proxy_cache z; proxy_cache_revalidate on; \
                fastcgi_cache f; fastcgi_cache_key $request_uri; \
                location / { proxy_pass http://%ORIGIN%; } location /fcgi { fastcgi_pass %FCGI%; } }";
    let stage = Stage::new(conf, &origin, &fastcgi);
    let asked = |request: &Request| ask(stage.port, &request.clone().header("Connection", "close"));

    let mut program = stage.run(first);
    let kept: Vec<_> = requests()
        .iter()
        .map(|(request, status)| {
            let answer = asked(request).expect(*status);
            assert!(matches!(answer.header("X-Cache"), Some("MISS" | "HIT")), "{answer:?}");
            answer
        })
        .collect();
    assert_eq!(seen(&asked(&Request::get("/old"))), "200 MISS old");
    program.finish();
    let folders = ["cache", "other"].map(|name| stage.dir.path().join(name));
    let before: Vec<PathBuf> = folders.iter().flat_map(|folder| files(folder)).collect();
    let (hits, fast) = (origin.hits(), fastcgi.take_seen().len());
    assert_eq!((hits, fast), (9, 2));

    let mut program = stage.run(second);
    for ((request, status), kept) in requests().iter().zip(&kept) {
        let answer = asked(request).expect(*status);
        assert_eq!(answer.header("X-Cache"), Some("HIT"), "{request:?}");
        assert_eq!(answer.body, kept.body, "{request:?}");
        for name in ["ETag", "Last-Modified", "Content-Type", "Content-Length", "Content-Range", "Vary", "X-A"] {
            assert_eq!(answer.headers(name), kept.headers(name), "{request:?}");
        }
    }
    assert_eq!((origin.hits(), fastcgi.take_seen().len()), (hits, 0));
    assert_eq!(seen(&asked(&Request::get("/old"))), "200 REVALIDATED old");
    program.finish();
    let log = stage.dir.read("error.log");
    assert!(!log.contains("[crit]") && !log.contains("[alert]"), "{log}");

    let mut program = stage.run(first);
    assert_eq!(seen(&asked(&Request::get("/old"))), "200 HIT old");
    for (request, status) in requests() {
        assert_eq!(asked(&request).expect(status).header("X-Cache"), Some("HIT"), "{request:?}");
    }
    let mut connection = Connection::open(stage.port);
    assert_eq!(connection.get("/plain").header("X-Cache"), Some("HIT"));
    drop(connection);
    program.finish();
    let after: Vec<PathBuf> = folders.iter().flat_map(|folder| files(folder)).collect();
    assert_eq!(before, after);
    assert_eq!(origin.hits(), hits + 1);
}

/// The nginx beside us; its files have to be of the same form.
fn nginx() -> Option<PathBuf> {
    if replaced() {
        return None;
    }
    let nginx = oracle()?;
    // The form is that of 1.11.10 and later.
    nginx.exists().then_some(nginx).or_else(|| {
        component::missing("nginx");
        None
    })
}

#[test]
fn nginx_goes_on_with_what_was_kept_here() {
    let Some(nginx) = nginx() else { return };
    goes_on(&binary(), &nginx);
}

#[test]
fn what_nginx_has_kept_is_gone_on_with_here() {
    let Some(nginx) = nginx() else { return };
    goes_on(&nginx, &binary());
}

#[test]
fn both_write_the_same_file() {
    let Some(nginx) = nginx() else { return };
    let fastcgi = Backend::tcp("fastcgi", Speech::FastCgi);
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; proxy_cache z; \
                location / { proxy_pass http://%ORIGIN%; } }";
    let bytes = |program: &Path, path: &str, origin: &Origin| {
        let stage = Stage::new(conf, origin, &fastcgi);
        let mut running = stage.run(program);
        ask(stage.port, &Request::get(path).header("Accept-Language", "de, en").header("Connection", "close"));
        running.finish();
        let all = files(&stage.dir.path().join("cache"));
        assert_eq!(all.len(), 1, "{path}");
        let mut bytes = std::fs::read(&all[0]).unwrap();
        // Until when it is valid, and since when it is there.
        bytes[8..16].fill(0);
        bytes[40..48].fill(0);
        (all[0].file_name().unwrap().to_owned(), bytes)
    };
    for path in ["/plain", "/vary", "/old", "/ranges", "/large"] {
        let origin = Origin::new(origin);
        let (theirs, ours) = (bytes(&nginx, path, &origin), bytes(&binary(), path, &origin));
        assert_eq!(theirs.0, ours.0, "{path}");
        let differs = theirs.1.iter().zip(&ours.1).position(|(a, b)| a != b);
        assert_eq!((differs, theirs.1.len()), (None, ours.1.len()), "{path}");
    }
}
