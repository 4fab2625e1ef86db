//! Under load: reloads, and a peer that dies and comes back every second, are noticed by no client, and nothing piles up.
//!
//! `TIDEGATE_LOAD_SECONDS` and `TIDEGATE_LOAD_RELOADS` make it longer than the ten seconds and twenty reloads it takes
//! otherwise.

use crate::support::backend::Backend;
use crate::support::component::need;
use crate::support::ports::free_port;
use crate::support::scratch::Scratch;
use crate::support::server::Server;
use crate::support::wrk::{self, Report};
use crate::support::{machine, replaced, setting, wait};
use std::time::{Duration, Instant};

#[test]
fn reloads_and_dying_peers_lose_no_request_and_nothing_piles_up() {
    if !need(&["wrk"]) {
        return;
    }
    let _machine = machine();
    let seconds = setting("TIDEGATE_LOAD_SECONDS").unwrap_or(10);
    let reloads = setting("TIDEGATE_LOAD_RELOADS").unwrap_or(20);
    let mut mortal = Backend::named("mortal");
    let (second, third) = (Backend::named("second"), Backend::named("third"));
    let port = free_port();
    let dir = Scratch::new();
    let at = dir.path().display().to_string();
    dir.write(
        "nginx.conf",
        format!(
            "daemon off;\nworker_processes 2;\npid {at}/nginx.pid;\nerror_log {at}/error.log warn;\nevents {{}}\n\
             http {{\n  access_log off;\n  upstream peers {{\n    server {} fail_timeout=1s;\n    server {};\n    server {};\n  }}\n\
             server {{\n    listen 127.0.0.1:{port};\n    keepalive_requests 1000000;\n    location / {{ proxy_pass http://peers; }}\n  }}\n}}\n",
            mortal.address(),
            second.address(),
            third.address()
        ),
    );
    let server = Server::file_in(dir, port);

    // What the first run leaves behind is what a server that has worked holds.
    let warm = stress(&server, &mut mortal, 3, 5);
    let (files, memory) = at_rest(&server, usize::MAX);
    let report = stress(&server, &mut mortal, seconds, reloads);
    // Each of the two workers may keep 32 idle connections to peers.
    let (files_after, memory_after) = at_rest(&server, files + 70);
    eprintln!("{warm:?}, then {report:?}; open files {files} then {files_after}, KiB {memory} then {memory_after}");

    assert!(report.requests > 1000, "{report:?}");
    assert!(mortal.hits() > 0 && second.hits() > 0 && third.hits() > 0);
    assert_eq!((warm.failures, report.failures), (0, 0));
    if !replaced() {
        // nginx's old workers close idle connections, of which a client may be about to use one.
        assert_eq!((warm.errors, report.errors), (0, 0));
    }
    assert!(memory_after < memory + memory / 10 + 4096, "{memory} KiB became {memory_after}");
    let log = server.error_log();
    let bad: Vec<&str> =
        log.lines().filter(|line| ["[alert]", "[emerg]", "[crit]"].iter().any(|level| line.contains(level))).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

/// `wrk -c64` for so many seconds, with so many reloads evenly between, and the peer killed and restarted every second.
fn stress(server: &Server, mortal: &mut Backend, seconds: u32, reloads: u32) -> Report {
    let mut wrk = wrk::start(server.port(), &["-c64", &format!("-d{seconds}s")]);
    let began = Instant::now();
    let pause = Duration::from_secs(seconds.into()) / (reloads + 1);
    let (mut done, mut halves) = (0, 0);
    while wrk.running() {
        if done < reloads && began.elapsed() > pause * (done + 1) {
            server.reload();
            done += 1;
        }
        if began.elapsed() > Duration::from_millis(500) * (halves + 1) {
            if halves % 2 == 0 {
                mortal.kill();
            } else {
                mortal.restart();
            }
            halves += 1;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if halves % 2 == 1 {
        mortal.restart();
    }
    for _ in done..reloads {
        server.reload();
    }
    Report::of(&wrk.stdout())
}

/// Open files and KiB of memory once no client is left and old workers have gone; no more files than `limit`.
fn at_rest(server: &Server, limit: usize) -> (usize, u64) {
    let mut last = usize::MAX;
    wait::until("open files settle", Duration::from_secs(30), || {
        std::thread::sleep(Duration::from_millis(200));
        let now = server.open_files();
        let settled = now == last && now <= limit;
        last = now;
        settled
    });
    (last, server.memory())
}
