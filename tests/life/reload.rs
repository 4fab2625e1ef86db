//! Reloading: listeners come and go, nobody is cut off, nothing is left behind, and a fault changes nothing.

use super::{Crowd, Held, conf, conf_with, served, text, worker};
use crate::support::client::{self, Connection};
use crate::support::daemon::Daemon;
use crate::support::ports::free_port;
use crate::support::program::{Program, send};
use crate::support::{measure, replaced, wait};
use rustix::process::Signal;
use std::collections::HashSet;
use std::fs;
use std::net::TcpListener;
use std::time::Duration;

#[test]
fn a_reload_moves_listeners_and_loses_no_connection() {
    let (a, b, stays) = (free_port(), free_port(), free_port());
    let with = |port: u16| {
        conf(stays, "", "one").replace("location = /pid", &format!("listen 127.0.0.1:{port}; location = /pid"))
    };
    let server = Daemon::start(&with(a));
    let before = worker(stays);
    // nginx's old workers close kept connections, and a client may be about to use one.
    let crowd = Crowd::gather(stays, !replaced());
    for round in 0..20 {
        let (gone, new) = if round % 2 == 0 { (a, b) } else { (b, a) };
        server.configure(&with(new));
        server.order("reload");
        if replaced() {
            wait::until("the reload is done", wait::SOON, || served(new) && !served(gone));
        }
        assert_eq!(text(new), "one");
        assert!(!served(gone), "round {round}");
        crowd.carry_on(20);
    }
    crowd.leave_content();
    if !replaced() {
        assert_eq!(worker(stays), before, "the worker lives through reloads");
    }
}

#[test]
fn a_listener_that_goes_closes_idle_connections_and_answers_the_others() {
    let (goes, stays) = (free_port(), free_port());
    let peer = Held::new();
    let one = |conf: String| conf.replace("worker_processes 2", "worker_processes 1");
    let with = one(conf_with(&peer, goes, "", "one"));
    let server = Daemon::start(&with.replace("location = /pid", &format!("listen 127.0.0.1:{stays}; location = /pid")));
    let mut idle = Connection::open(goes);
    assert_eq!(idle.get("/").expect(200).text(), "one");
    let mut held = peer.ask(goes);
    let mut accepted = Connection::open(goes);
    // Of one process, connections are accepted in the order they come.
    assert_eq!(text(goes), "one");
    server.configure(&one(conf(stays, "", "two")));
    server.order("reload");
    accepted.get("/").expect(200);
    assert!(idle.closes_within(wait::SOON));
    wait::until("the port is closed", wait::SOON, || !served(goes));
    peer.let_go();
    assert_eq!(held.answer("GET").expect(200).text(), "held");
    assert!(held.closes_within(wait::SOON));
    wait::until("the new answer comes", wait::SOON, || text(stays) == "two");
}

#[test]
fn fifty_reloads_leave_no_descriptors_behind() {
    let port = free_port();
    let whole = conf(port, "", "one").replace("access_log off", "access_log access.log");
    let server = Daemon::idle("");
    let door = server.path("door.sock");
    server.configure(&whole.replace("127.0.0.1:", &format!("unix:{}; listen 127.0.0.1:", door.display())));
    server.launch();
    let master = server.master();
    server.order("reload");
    let settled = || {
        let mut last = (0, 0, 0);
        wait::until("old workers and the last connection are gone", wait::SOON, || {
            std::thread::sleep(Duration::from_millis(100));
            let workers = measure::children(master);
            let open = workers.iter().map(|worker| measure::open_files(*worker)).sum();
            let now = (workers.len(), measure::open_files(master), open);
            std::mem::replace(&mut last, now) == now
        });
        last
    };
    assert_eq!(text(port), "one");
    let before = settled();
    for _ in 0..50 {
        server.order("reload");
    }
    assert_eq!(text(port), "one");
    assert_eq!(settled(), before);
    assert!(wait::unix_connectable(&door));
}

#[test]
fn a_reload_reports_its_fault_and_the_old_serves_on() {
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let master = server.master();
    let worker = worker(port);
    let expect = |fault: &str| {
        let ran = server.cli(&["-s", "reload"]);
        if replaced() && ran.code == Some(0) {
            // Only nginx's log says how it went.
            let text = fault.lines().next().unwrap().strip_prefix("nginx: [emerg] ").unwrap();
            server.expect_log(text);
        } else {
            assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), fault));
        }
        assert_eq!(text(port), "one");
        assert!(measure::started(worker).is_some());
    };
    // Found by the command itself, before the master is asked.
    server.configure("lisen 80;");
    let path = server.path("nginx.conf");
    let ran = server.cli(&["-s", "reload"]);
    let first = format!("nginx: [emerg] unknown directive \"lisen\" in {}:1", path.display());
    assert_eq!((ran.code, ran.stderr.lines().next()), (Some(1), Some(first.as_str())));
    server.signal(Signal::HUP);
    server.expect_log(&format!("[emerg] {master}#"));
    assert_eq!(text(port), "one");
    // Found by the master: an address that is taken, a log that cannot be opened.
    let taken = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
    let address = taken.local_addr().unwrap();
    server.configure(&conf(port, "", "two").replace("location = /pid", &format!("listen {address}; location = /pid")));
    let in_use = format!("nginx: [emerg] bind() to {address} failed (98: Address already in use)\n");
    expect(&(in_use.repeat(5) + "nginx: [emerg] still could not bind()\n"));
    server.configure(&conf(port, "", "two").replace("access_log off", "access_log none/access.log"));
    let log = server.path("none/access.log");
    expect(&format!("nginx: [emerg] open() \"{}\" failed (2: No such file or directory)\n", log.display()));
    // And then it is fine again.
    server.configure(&conf(port, "", "two"));
    server.order("reload");
    wait::until("the new answer comes", wait::SOON, || text(port) == "two");
}

#[test]
fn a_plain_hup_reloads_and_so_does_s_reload_without_the_socket() {
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    server.configure(&conf(port, "", "two"));
    server.signal(Signal::HUP);
    wait::until("the new answer comes", wait::SOON, || text(port) == "two");
    if !replaced() {
        fs::remove_file(server.path("nginx.pid.sock")).unwrap();
    }
    server.configure(&conf(port, "", "three"));
    server.order("reload");
    wait::until("the new answer comes", wait::SOON, || text(port) == "three");
}

#[test]
fn threads_follow_worker_processes() {
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let master = server.master();
    let count = || {
        if replaced() {
            return measure::children(master).len();
        }
        let names = measure::threads(worker(port));
        names.iter().filter(|name| name.starts_with("worker")).count()
    };
    for (threads, reuseport) in [(4, ""), (3, " reuseport"), (1, ""), (2, "")] {
        let whole = conf(port, "", "one").replace("worker_processes 2", &format!("worker_processes {threads}"));
        server.configure(&whole.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{port}{reuseport}")));
        server.order("reload");
        wait::until(&format!("there are {threads}"), wait::SOON, || count() == threads);
        assert_eq!(text(port), "one");
    }
}

#[test]
fn each_reuseport_socket_of_a_thread_is_served() {
    let port = free_port();
    let whole = conf(port, "", "one").replace("worker_processes 2", "worker_processes 3");
    let server = Daemon::start(&whole.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{port} reuseport")));
    let listening = || {
        let hex = format!("0100007F:{port:04X} 00000000:0000 0A");
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().filter(|line| line.contains(&hex)).count()
    };
    assert_eq!(listening(), 3);
    // The kernel spreads connections over the sockets by the client's port: a socket nobody serves would be found.
    for _ in 0..100 {
        assert_eq!(text(port), "one");
    }
    server.configure(&whole.replace("worker_processes 3", "worker_processes 1"));
    server.order("reload");
    wait::until("one socket is left", wait::SOON, || listening() == 1);
    for _ in 0..20 {
        assert_eq!(text(port), "one");
    }
}

/// Stops a process, and waits until none of its threads runs any more.
fn halt(pid: i32) {
    send(pid, Signal::STOP);
    wait::until("it has stopped", wait::SOON, || measure::stopped(pid));
}

#[test]
fn a_worker_that_dies_during_a_reload_is_replaced_by_one_with_the_old_configuration() {
    if replaced() {
        // nginx has no worker that lives through a reload.
        return;
    }
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let master = server.master();
    let first = worker(port);
    halt(first);
    server.configure(&conf(port, "", "two"));
    let mut waiting = Program::start("the reload", server.command(&["-s", "reload"]));
    server.expect_log("reconfiguring");
    assert!(waiting.running());
    send(first, Signal::KILL);
    assert_eq!(waiting.wait(wait::SOON).code(), Some(1));
    let said = waiting.stderr();
    assert!(said.contains("the worker process ended before the new configuration served"), "{said}");
    wait::until("another worker serves", wait::SOON, || measure::children(master).iter().any(|pid| *pid != first));
    wait::until("the old answer comes", wait::SOON, || client::get(port, "/").text() == "one");
    assert_eq!(measure::children(master).len(), 1);

    // The next reload finds all in order.
    server.order("reload");
    assert_eq!(text(port), "two");
}

#[test]
fn what_is_asked_for_during_a_reload_is_done_after_it() {
    if replaced() {
        // nginx's command does not wait for a reload.
        return;
    }
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let first = worker(port);
    halt(first);
    server.configure(&conf(port, "", "two"));
    let mut waiting = Program::start("the first reload", server.command(&["-s", "reload"]));
    server.expect_log("reconfiguring");
    server.configure(&conf(port, "", "three"));
    let mut second = Program::start("the second reload", server.command(&["-s", "reload"]));
    let asked = || server.error_log().matches("signal 1 (SIGHUP) received").count();
    wait::until("both are asked for", wait::SOON, || asked() == 2);
    assert!(waiting.running() && second.running());
    send(first, Signal::CONT);
    assert_eq!((waiting.wait(wait::SOON).code(), second.wait(wait::SOON).code()), (Some(0), Some(0)));
    assert_eq!((text(port), worker(port)), ("three".into(), first));
}

#[test]
fn a_changed_environment_takes_a_new_worker_and_loses_no_request() {
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let before = worker(port);
    let crowd = Crowd::gather(port, false);
    server.configure(&conf(port, "env NEW=1;", "two"));
    server.order("reload");
    wait::until("the first has ended", wait::SOON, || measure::started(before).is_none());
    crowd.carry_on(20);
    crowd.leave_content();
    let texts: HashSet<String> = (0..20).map(|_| text(port)).collect();
    assert_eq!(texts, HashSet::from(["two".to_owned()]));
}

#[test]
fn a_reload_may_move_the_pid_file() {
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let master = server.master();
    server.configure(&conf(port, "", "one").replace("nginx.pid", "other.pid"));
    server.signal(Signal::HUP);
    wait::until("the pid is in the new file", wait::SOON, || {
        server.pid_in("other.pid") == Some(master) && !server.path("nginx.pid").exists()
    });
    server.order("reload");
    server.order("stop");
    wait::until("it has ended", wait::SOON, || measure::started(master).is_none());
    assert!(!server.path("other.pid").exists());
}
