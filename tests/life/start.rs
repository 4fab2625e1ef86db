//! Starting: what is there when the command returns, what is said when it cannot serve, and what `-t` opens.

use super::{Held, conf, conf_with, text, worker};
use crate::support::backend::Backend;
use crate::support::client::{self, Connection, Request};
use crate::support::daemon::{self, Daemon};
use crate::support::ports::free_port;
use crate::support::program::Program;
use crate::support::{component, measure, replaced, wait};
use rustix::process::Signal;
use std::fs;
use std::path::Path;

#[test]
fn a_daemon_serves_when_the_command_returns() {
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let master = server.master();
    if replaced() {
        // nginx's workers may still be starting.
        wait::until("its workers have their titles", wait::SOON, || {
            measure::children(master).iter().all(|worker| measure::command_line(*worker) == "nginx: worker process")
        });
    }
    assert_eq!(text(port), "one");
    assert_eq!(server.dir().read("nginx.pid"), format!("{master}\n"));
    let worker = worker(port);
    assert!(measure::children(master).contains(&worker));
    let file = server.binary().file_name().unwrap().to_str().unwrap();
    assert_eq!((measure::name(master).as_str(), measure::name(worker).as_str()), (file, file));
    assert_eq!(measure::command_line(worker), "nginx: worker process");
    let dir = server.dir().path().display().to_string();
    assert_eq!(
        measure::command_line(master),
        format!("nginx: master process {} -p {dir}/ -c {dir}/nginx.conf -e {dir}/error.log", server.binary().display())
    );
    for (number, target) in [(0, "/dev/null"), (1, "/dev/null"), (2, server.path("error.log").to_str().unwrap())] {
        for pid in [master, worker] {
            assert_eq!(fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap(), Path::new(target));
        }
    }
}

#[test]
fn in_the_foreground_term_ends_with_code_0_and_takes_the_pid_file_along() {
    let port = free_port();
    let server = Daemon::idle(&conf(port, "daemon off;", "one"));
    let mut program = Program::start("the server", server.command(&[]));
    wait::until("it serves", wait::SOON, || super::served(port));
    // The port is open before the pid file is written, and an answer comes after both.
    let worker = worker(port);
    assert_eq!(server.master(), program.pid());
    server.signal(Signal::TERM);
    assert_eq!(program.wait(wait::SOON).code(), Some(0));
    assert!(!server.path("nginx.pid").exists() && !server.path("nginx.pid.sock").exists());
    assert!(measure::started(worker).is_none() && !super::served(port));
    assert_eq!((program.stdout(), program.stderr()), (String::new(), String::new()));
}

#[test]
fn a_second_start_cannot_bind_and_leaves_the_first_alone() {
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let master = server.master();
    let ran = server.cli(&[]);
    let in_use = format!("nginx: [emerg] bind() to 127.0.0.1:{port} failed (98: Address already in use)\n");
    let said = in_use.repeat(5) + "nginx: [emerg] still could not bind()\n";
    assert_eq!((ran.code, ran.stdout, ran.stderr), (Some(1), String::new(), said));
    assert_eq!((server.master(), text(port)), (master, "one".into()));
}

#[test]
fn a_daemon_that_cannot_serve_says_so_and_leaves_nothing() {
    let port = free_port();
    let pid = conf(port, "", "one").replace("nginx.pid", "none/nginx.pid");
    let log = conf(port, "", "one").replace("access_log off", "access_log none/access.log");
    for (conf, file) in [(log, "none/access.log"), (pid, "none/nginx.pid")] {
        if replaced() && file == "none/nginx.pid" {
            // nginx's command has ended well when its daemon finds this; Debian's even serves.
            continue;
        }
        let server = Daemon::idle(&conf);
        let ran = server.cli(&[]);
        let file = server.path(file);
        let said = format!("nginx: [emerg] open() \"{}\" failed (2: No such file or directory)\n", file.display());
        assert_eq!((ran.code, ran.stdout, ran.stderr), (Some(1), String::new(), said));
        assert!(!server.path("nginx.pid").exists() && !super::served(port));
    }
}

#[test]
fn a_test_opens_everything_and_minds_no_address_in_use() {
    let port = free_port();
    let whole = conf(port, "", "one").replace("./proxy_temp", "temp");
    let server = Daemon::idle(&whole);
    let shown = server.path("nginx.conf").display().to_string();
    let fine = format!(
        "nginx: the configuration file {shown} syntax is ok\nnginx: configuration file {shown} test is successful\n"
    );
    let ran = server.cli(&["-t"]);
    assert_eq!((ran.code, &ran.stderr), (Some(0), &fine));
    assert_eq!(fs::read(server.path("nginx.pid")).unwrap(), b"");
    assert!(server.path("temp").is_dir());
    server.launch();
    assert_eq!(server.cli(&["-t"]).succeeded().stderr, fine);
    server.cli(&["-tq"]).silently();
    assert_eq!(text(port), "one");
    let dump = server.cli(&["-T"]).succeeded();
    assert_eq!((dump.stdout, dump.stderr), (format!("# configuration file {shown}:\n{whole}\n"), fine));
    server.configure("lisen;");
    let ran = server.cli(&["-t"]);
    let fault = format!(
        "nginx: [emerg] unknown directive \"lisen\" in {shown}:1\nnginx: configuration file {shown} test failed\n"
    );
    assert_eq!((ran.code, ran.stderr.starts_with("nginx: [emerg] unknown directive")), (Some(1), true));
    assert!(fault.lines().all(|line| ran.stderr.lines().any(|said| said == line)), "{}", ran.stderr);
    assert_eq!(text(port), "one");
}

#[test]
fn without_a_master_process_all_is_the_same_in_one() {
    let port = free_port();
    let peer = Held::new();
    let file = |text: &str| {
        conf_with(&peer, port, "master_process off;", text).replace("access_log off", "access_log access.log")
    };
    let server = Daemon::start(&file("one"));
    let master = server.master();
    assert_eq!((worker(port), measure::children(master)), (master, Vec::new()));
    fs::remove_file(server.path("access.log")).unwrap();
    server.order("reopen");
    wait::until("there is a new file", wait::SOON, || server.path("access.log").exists());
    if replaced() {
        // A lone nginx neither serves after a reload nor finishes requests.
        return;
    }
    server.configure(&file("two"));
    server.order("reload");
    assert_eq!(text(port), "two");
    let mut held = peer.ask(port);
    server.order("quit");
    wait::until("the port is closed", wait::SOON, || !super::served(port));
    peer.let_go();
    assert_eq!(held.answer("GET").expect(200).text(), "held");
    wait::until("it has ended", wait::SOON, || measure::started(master).is_none());
    assert!(!server.path("nginx.pid").exists());

    server.configure(&conf(port, "master_process off; daemon off;", "three"));
    let mut program = Program::start("the server", server.command(&[]));
    wait::until("it serves", wait::SOON, || super::served(port));
    assert_eq!(worker(port), program.pid());
    server.signal(Signal::TERM);
    assert_eq!(program.wait(wait::SOON).code(), Some(0));
}

/// What a process may do, by the line of /proc/PID/status.
fn status(pid: i32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_worker_is_the_configured_user_and_a_reload_may_change_that() {
    if !rustix::process::getuid().is_root() {
        component::missing("root");
        return;
    }
    let port = free_port();
    let peer = Held::new();
    let server = Daemon::start(&conf_with(&peer, port, "user nobody nogroup;", "one"));
    let first = worker(port);
    assert_eq!(
        (status(first, "Uid:"), status(first, "Gid:")),
        ("65534 65534 65534 65534".into(), "65534 65534 65534 65534".into())
    );
    assert_eq!(
        (status(first, "CapEff:"), status(server.master(), "Uid:")),
        ("0000000000000000".into(), "0 0 0 0".into())
    );

    let mut held = peer.ask(port);
    server.configure(&conf_with(&peer, port, "user www-data;", "two"));
    server.order("reload");
    wait::until("another worker answers", wait::SOON, || worker(port) != first);
    let second = worker(port);
    assert_eq!((status(second, "Uid:"), status(second, "Gid:")), ("33 33 33 33".into(), "33 33 33 33".into()));
    assert_eq!(text(port), "two");
    peer.let_go();
    assert_eq!(held.answer("GET").expect(200).text(), "held");
    wait::until("the first has ended", wait::SOON, || measure::started(first).is_none());
}

#[test]
fn worker_connections_is_a_limit_that_is_logged_and_left_again() {
    let port = free_port();
    let peer = Held::new();
    // Where connections to peers are counted, as in nginx, half as many clients are served.
    let whole = daemon::conf(
        port,
        "worker_processes 1;",
        &format!("location / {{ proxy_pass http://{}; }}", peer.backend.address()),
    );
    let server = Daemon::start(&whole.replace("worker_connections 512", "worker_connections 20"));
    let mut asked: Vec<Connection> = (0..40)
        .map(|_| {
            let mut connection = Connection::open(port);
            connection.send("GET /held HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            connection
        })
        .collect();
    server.expect_log("20 worker_connections are not enough");
    peer.let_go();
    let statuses: Vec<u16> = asked.iter_mut().map(|connection| connection.answer("GET").status).collect();
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    // One more may come in for one that is idle just then.
    assert!((5..=21).contains(&count(200)) && count(0) >= 5, "{statuses:?}");
    assert!(count(200) + count(0) + count(500) == 40, "{statuses:?}");
    drop(asked);
    wait::until("all is served again", wait::SOON, || client::get(port, "/").status == 200);
}

#[test]
fn connections_that_are_idle_make_room_for_others() {
    let port = free_port();
    let whole = daemon::conf(port, "worker_processes 1;", "location / { return 200 here; }");
    let server = Daemon::start(&whole.replace("worker_connections 512", "worker_connections 20"));
    // Each stays open behind its answer, and there are twice as many as there may be.
    let mut kept: Vec<Connection> = (0..40)
        .map(|_| {
            let mut connection = Connection::open(port);
            assert_eq!(connection.get("/").expect(200).text(), "here");
            connection
        })
        .collect();
    server.expect_log("20 worker_connections are not enough, reusing connections");
    let last = kept.last_mut().expect("there are some");
    assert_eq!(last.get("/").expect(200).text(), "here");
}

#[test]
fn folders_for_temporary_files_are_made_by_the_master_for_the_workers_user() {
    if !rustix::process::getuid().is_root() {
        component::missing("root");
        return;
    }
    let port = free_port();
    let peer = Backend::echo();
    let whole = daemon::conf(
        port,
        "user nobody nogroup;",
        &format!("client_body_in_file_only clean; location / {{ proxy_pass http://{}; }}", peer.address()),
    );
    let _server = Daemon::start(&whole);
    // The directory is root's: the worker could not make a folder in it.
    let answer = client::ask(port, &Request::post("/", "text/plain", "kept in a file for a while"));
    assert!(answer.expect(200).text().ends_with("kept in a file for a while"));
}
