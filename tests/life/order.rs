//! Orders and signals: quit, stop, reopen, WINCH; and what happens when a process is killed.

use super::{Held, conf, conf_with, served, text, worker};
use crate::support::client::{self, Connection};
use crate::support::daemon::Daemon;
use crate::support::ports::free_port;
use crate::support::program::send;
use crate::support::{measure, replaced, wait};
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

#[track_caller]
fn ended(pid: i32) {
    wait::until(&format!("{pid} has ended"), wait::SOON, || measure::started(pid).is_none());
}

#[test]
fn quit_finishes_requests_and_closes_idle_connections_at_once() {
    let port = free_port();
    let peer = Held::new();
    let server = Daemon::start(&conf_with(&peer, port, "", "one"));
    let master = server.master();
    let mut idle = Connection::open(port);
    idle.get("/").expect(200);
    let mut held = peer.ask(port);
    server.order("quit");
    // All this while the request is under way.
    assert!(idle.closes_within(wait::SOON));
    wait::until("the port is closed", wait::SOON, || !served(port));
    let mut workers = Vec::new();
    wait::until("the worker that is left says so", wait::SOON, || {
        workers = measure::children(master);
        workers.iter().all(|worker| measure::command_line(*worker) == "nginx: worker process is shutting down")
    });
    assert_eq!(workers.len(), 1);
    assert!(measure::started(master).is_some());
    peer.let_go();
    assert_eq!(held.answer("GET").expect(200).text(), "held");
    assert!(held.closes_within(wait::SOON));
    ended(workers[0]);
    ended(master);
    assert!(!server.path("nginx.pid").exists());
}

#[test]
fn quit_answers_a_request_on_a_connection_that_was_just_accepted() {
    if replaced() {
        // nginx closes its ports without taking what waits there.
        return;
    }
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let master = server.master();
    let mut connections: Vec<Connection> = (0..20).map(|_| Connection::open(port)).collect();
    server.signal(Signal::QUIT);
    for connection in &mut connections {
        connection.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    for connection in &mut connections {
        connection.answer("GET").expect(200);
    }
    drop(connections);
    ended(master);
}

#[test]
fn worker_shutdown_timeout_bounds_a_quit() {
    let port = free_port();
    let peer = Held::new();
    let server = Daemon::start(&conf_with(&peer, port, "worker_shutdown_timeout 300ms;", "one"));
    let master = server.master();
    let mut held = peer.ask(port);
    server.order("quit");
    // The peer never answers.
    assert_ne!(held.answer("GET").status, 200);
    ended(master);
}

#[test]
fn stop_does_not_wait_for_requests() {
    let port = free_port();
    let peer = Held::new();
    let server = Daemon::start(&conf_with(&peer, port, "", "one"));
    let master = server.master();
    let mut held = peer.ask(port);
    server.order("stop");
    assert_eq!(held.answer("GET").status, 0);
    ended(master);
    assert!(!server.path("nginx.pid").exists());
}

#[test]
fn int_is_as_term_and_neither_waits_after_a_quit() {
    for signal in [Signal::TERM, Signal::INT] {
        let port = free_port();
        let peer = Held::new();
        let server = Daemon::start(&conf_with(&peer, port, "", "one"));
        let master = server.master();
        let mut held = peer.ask(port);
        server.signal(Signal::QUIT);
        wait::until("the port is closed", wait::SOON, || !served(port));
        assert!(measure::started(master).is_some());
        server.signal(signal);
        assert_eq!(held.answer("GET").status, 0);
        ended(master);
    }
}

#[test]
fn a_worker_that_does_not_listen_is_killed_in_the_end() {
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let (master, worker) = (server.master(), worker(port));
    send(worker, Signal::STOP);
    server.signal(Signal::TERM);
    ended(master);
    ended(worker);
}

#[test]
fn usr1_reopens_logs_and_gives_them_to_the_worker() {
    let port = free_port();
    let root = rustix::process::getuid().is_root();
    let user = if root { "user nobody nogroup;" } else { "" };
    let server = Daemon::start(&conf(port, user, "one").replace("access_log off", "access_log access.log"));
    let logged = |file: &str, path: &str| {
        wait::until(&format!("{path} is in {file}"), wait::SOON, || {
            server.dir().read(file).contains(&format!("GET {path} "))
        });
    };
    client::get(port, "/a").expect(200);
    logged("access.log", "/a");
    for log in ["access.log", "error.log"] {
        fs::rename(server.path(log), server.path(&format!("{log}.1"))).unwrap();
    }
    client::get(port, "/b").expect(200);
    logged("access.log.1", "/b");
    server.signal(Signal::USR1);
    wait::until("the new files are written to", wait::SOON, || {
        client::get(port, "/c").expect(200);
        server.dir().read("access.log").contains("GET /c ") && server.path("error.log").exists()
    });
    if root {
        assert_eq!(fs::metadata(server.path("access.log")).unwrap().uid(), 65534);
    }
    server.order("reopen");
    // Told to the worker alone: nginx's opens the file as it may, tidegate's asks the master.
    fs::rename(server.path("access.log"), server.path("access.log.2")).unwrap();
    if !replaced() {
        send(worker(port), Signal::USR1);
        wait::until("there is a new file", wait::SOON, || server.path("access.log").exists());
    }
}

#[test]
fn a_killed_worker_is_replaced() {
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let master = server.master();
    for (signal, how) in [(Signal::KILL, "on signal 9"), (Signal::TERM, "with code 0")] {
        let first = worker(port);
        send(first, signal);
        ended(first);
        wait::until("another one answers", wait::SOON, || {
            served(port) && client::get(port, "/pid").text().parse().is_ok_and(|second: i32| second != first)
        });
        server.expect_log(&format!("worker process {first} exited {how}"));
    }
    assert_eq!((server.master(), text(port)), (master, "one".into()));
}

#[test]
fn the_worker_ends_with_its_master() {
    if replaced() {
        // nginx's workers go on without one.
        return;
    }
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let worker = worker(port);
    server.signal(Signal::KILL);
    ended(worker);
    assert!(server.error_log().contains("the master process is gone"));
    // What it left behind is in nobody's way.
    server.launch();
    assert_eq!(text(port), "one");
}

#[test]
fn winch_rests_a_daemon_and_hup_wakes_it() {
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let (master, first) = (server.master(), worker(port));
    server.signal(Signal::WINCH);
    ended(first);
    wait::until("no worker is left", wait::SOON, || measure::children(master).is_empty());
    assert!(measure::started(master).is_some());
    server.signal(Signal::HUP);
    wait::until("there is another", wait::SOON, || !measure::children(master).is_empty());
    assert_eq!(text(port), "one");
}

#[test]
fn an_order_without_a_master_fails_in_nginxs_words() {
    let server = Daemon::idle(&conf(free_port(), "", "one"));
    let path = server.path("nginx.pid");
    let shown = path.display();
    let expect = |order: &str, fault: String| {
        let ran = server.cli(&["-s", order]);
        assert_eq!((ran.code, ran.stdout, ran.stderr), (Some(1), String::new(), fault));
    };
    for order in ["stop", "quit", "reopen", "reload"] {
        expect(order, format!("nginx: [error] open() \"{shown}\" failed (2: No such file or directory)\n"));
    }
    for (content, named) in [("", ""), ("12x\n", "12x")] {
        fs::write(&path, content).unwrap();
        expect("quit", format!("nginx: [error] invalid PID number \"{named}\" in \"{shown}\"\n"));
    }
    fs::write(&path, "99999999\n").unwrap();
    for (order, number) in [("reload", 1), ("stop", 15), ("quit", 3), ("reopen", 10)] {
        expect(order, format!("nginx: [alert] kill(99999999, {number}) failed (3: No such process)\n"));
    }
}

#[test]
fn an_idle_connection_of_a_worker_told_to_quit_by_itself_is_closed_and_others_are_served() {
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let mut idle = Connection::open(port);
    let first: i32 = idle.get("/pid").expect(200).text().parse().unwrap();
    send(first, Signal::QUIT);
    assert!(idle.closes_within(Duration::from_secs(20)));
    ended(first);
    server.expect_log(&format!("worker process {first} exited with code 0"));
    wait::until("another one answers", wait::SOON, || served(port) && client::get(port, "/pid").status == 200);
    assert_ne!(worker(port), first);
}
