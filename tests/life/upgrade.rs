//! USR2: another binary takes over with the listening sockets, while the old one still serves, and either may stay.

use super::{Crowd, Held, conf, conf_with, served, text, worker};
use crate::support::client;
use crate::support::daemon::Daemon;
use crate::support::ports::free_port;
use crate::support::program::{run, send};
use crate::support::{binary, measure, wait};
use rustix::process::Signal;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const OLD: &str = "nginx.pid.oldbin";

/// Sends USR2 to the one that serves, and waits until both have their pid files and workers. Both masters.
#[track_caller]
fn upgrade(server: &Daemon) -> (i32, i32) {
    let old = server.master();
    // nginx forgets a signal that comes before it has started its workers.
    wait::until("the old one has workers", wait::SOON, || !measure::children(old).is_empty());
    server.signal(Signal::USR2);
    wait::until("both pid files are there", wait::SOON, || {
        server.pid_in(OLD) == Some(old) && server.pid_in("nginx.pid").is_some_and(|pid| pid != old)
    });
    let new = server.master();
    wait::until("the new one has workers", wait::SOON, || !measure::children(new).is_empty());
    (old, new)
}

/// The masters of the workers that answer many clients at once.
fn serving(port: u16, masters: &[i32]) -> HashSet<i32> {
    let client = || std::thread::spawn(move || (0..10).map(|_| worker(port)).collect::<Vec<i32>>());
    let clients: Vec<_> = (0..8).map(|_| client()).collect();
    let workers: HashSet<i32> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    let of = |worker: &i32| masters.iter().copied().find(|master| measure::children(*master).contains(worker));
    workers.iter().filter_map(of).collect()
}

/// The workers of a master, without the new binary that it started.
fn workers(master: i32, new: i32) -> Vec<i32> {
    measure::children(master).into_iter().filter(|child| *child != new).collect()
}

#[test]
fn a_new_binary_takes_over_and_the_old_one_leaves() {
    let port = free_port();
    let peer = Held::new();
    let whole = conf_with(&peer, port, "", "one").replace("127.0.0.1:", "unix:DIR/door.sock; listen 127.0.0.1:");
    // The first occurrence is the listener's; the peer's address stays.
    let whole = whole.replace(
        &format!("http://unix:DIR/door.sock; listen {}", peer.backend.address()),
        &format!("http://{}", peer.backend.address()),
    );
    let server = Daemon::idle("");
    let door = server.path("door.sock");
    server.configure(&whole.replace("DIR/door.sock", &door.display().to_string()));
    server.launch();
    let mut held = peer.ask(port);
    let crowd = Crowd::gather(port, false);

    let (old, new) = upgrade(&server);
    wait::until("both serve", wait::SOON, || serving(port, &[old, new]).len() == 2);
    assert_eq!(server.error_log().matches("using inherited sockets from ").count(), 1);
    // While both run, neither starts a third.
    for pid in [old, new] {
        send(pid, Signal::USR2);
    }
    wait::until("both refuse", wait::SOON, || {
        server.error_log().matches("the changing binary signal is ignored").count() == 2
    });
    send(old, Signal::QUIT);
    wait::until("only the new one serves", wait::SOON, || serving(port, &[old, new]) == HashSet::from([new]));
    assert!(measure::started(old).is_some(), "a request is under way");
    peer.let_go();
    assert_eq!(held.answer("GET").expect(200).text(), "held");
    wait::until("the old one has ended", wait::SOON, || measure::started(old).is_none());
    assert!(!server.path(OLD).exists() && door.exists());
    assert!(wait::unix_connectable(&door));
    crowd.carry_on(20);
    crowd.leave_content();

    assert_eq!((text(port), server.master()), ("one".into(), new));
    server.order("reload");
    server.order("stop");
    wait::until("the new one has ended", wait::SOON, || measure::started(new).is_none());
    assert!(!door.exists() && !served(port) && !server.path("nginx.pid").exists());
}

#[test]
fn the_old_binary_rests_and_comes_back() {
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let crowd = Crowd::gather(port, false);
    let (old, new) = upgrade(&server);
    send(old, Signal::WINCH);
    wait::until("the old one has no workers", wait::SOON, || workers(old, new).is_empty());
    crowd.carry_on(20);
    assert_eq!(serving(port, &[old, new]), HashSet::from([new]));

    // Back to the old one: its workers return, the new one finishes.
    server.configure(&conf(port, "", "later"));
    send(old, Signal::HUP);
    wait::until("the old one has workers", wait::SOON, || !workers(old, new).is_empty());
    wait::until("both serve", wait::SOON, || serving(port, &[old, new]).len() == 2);
    send(new, Signal::QUIT);
    wait::until("the new one has ended", wait::SOON, || measure::started(new).is_none());
    wait::until("the pid file is the old one's again", wait::SOON, || {
        server.pid_in("nginx.pid") == Some(old) && !server.path(OLD).exists()
    });
    crowd.carry_on(20);
    crowd.leave_content();
    assert_eq!(text(port), "one");

    server.order("reload");
    wait::until("it reads its file again", wait::SOON, || text(port) == "later");
}

#[test]
fn a_new_binary_that_dies_gives_everything_back() {
    let port = free_port();
    let server = Daemon::start(&conf(port, "", "one"));
    let (old, new) = upgrade(&server);
    send(old, Signal::WINCH);
    wait::until("the old one has no workers", wait::SOON, || workers(old, new).is_empty());
    send(new, Signal::TERM);
    wait::until("the pid file is back", wait::SOON, || server.pid_in("nginx.pid") == Some(old));
    wait::until("the workers are back", wait::SOON, || !measure::children(old).is_empty());
    wait::until("it serves", wait::SOON, || client::get(port, "/").status == 200);
    assert!(!server.path(OLD).exists());
    server.order("reload");
    // And it may be tried again.
    let (again, _) = upgrade(&server);
    assert_eq!(again, old);
}

#[test]
fn a_new_binary_gets_the_arguments_the_sockets_and_the_environment_of_env() {
    let port = free_port();
    let server = Daemon::idle(&conf(port, "env A=b; env PASSED;", "one"));
    let place = server.path("nginx");
    std::os::unix::fs::symlink(binary(), &place).unwrap();
    let server = server.by(place.clone());
    let mut start = server.command(&[]);
    start.env("PASSED", "on").env("SECRET", "1").env("TZ", "UTC");
    run(start).silently();
    wait::until("there is a pid file", wait::SOON, || server.pid_in("nginx.pid").is_some());
    let old = server.master();

    // The next binary in that place tells what it was given, and ends.
    let script =
        "#!/bin/sh\n{ env; echo; printf '%s\\n' \"$0\" \"$@\"; } >\"$2/told.new\"; mv \"$2/told.new\" \"$2/told\"\n";
    server.dir().write("text", script);
    // Not written by this process: a file that it is writing to, and that another test's child inherits, cannot be executed.
    let mut install = Command::new("install");
    install.args(["-m", "755"]).arg(server.path("text")).arg(server.path("script"));
    run(install).silently();
    fs::rename(server.path("script"), &place).unwrap();
    server.signal(Signal::USR2);
    wait::until("it was executed", wait::SOON, || server.path("told").exists());
    let told = server.dir().read("told");
    let (environment, arguments) = told.split_once("\n\n").unwrap();
    // The shell adds some of its own, and nginx room for titles.
    let added = ["PWD=", "OLDPWD=", "SHLVL=", "_=", "SPARE="];
    let mut lines: Vec<&str> =
        environment.lines().filter(|line| !added.iter().any(|name| line.starts_with(name))).collect();
    lines.sort_unstable();
    let sockets = lines.iter().position(|line| line.starts_with("NGINX=")).expect("the sockets");
    let list = lines.remove(sockets).strip_prefix("NGINX=").unwrap();
    assert_eq!(lines, ["A=b", "PASSED=on", "TZ=UTC"]);
    let numbers: Vec<&str> = list.split_terminator([';', ':']).collect();
    assert_eq!(numbers.len(), 1, "{list}");
    let target = fs::read_link(format!("/proc/{old}/fd/{}", numbers[0])).unwrap();
    assert!(target.to_str().unwrap().starts_with("socket:"), "{}", target.display());
    let dir = server.dir().path().display().to_string();
    let path = |name: &str| Path::new(&dir).join(name).display().to_string();
    let expected = [
        path("nginx"),
        "-p".into(),
        format!("{dir}/"),
        "-c".into(),
        path("nginx.conf"),
        "-e".into(),
        path("error.log"),
    ];
    assert_eq!(arguments.lines().collect::<Vec<_>>(), expected);

    server.expect_log("exited with code 0");
    wait::until("the pid file is back", wait::SOON, || server.pid_in("nginx.pid") == Some(old));
    assert_eq!(text(port), "one");

    // One that cannot be executed changes nothing.
    fs::remove_file(&place).unwrap();
    server.signal(Signal::USR2);
    server.expect_log("execve() failed while executing new binary process");
    wait::until("the pid file is back", wait::SOON, || server.pid_in("nginx.pid") == Some(old));
    assert_eq!(text(port), "one");
}
