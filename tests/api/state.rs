//! `state`: whoever is killed when, the file is whole, and what was confirmed is in it.

use super::{Api, send};
use crate::support::client::{Request, ask};
use crate::support::ports::free_port;
use crate::support::scratch::Scratch;
use crate::support::{binary, measure, program, replaced, server, setting, wait};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

const SERVERS: &str = "/http/upstreams/app/servers/";

const UPSTREAM: &str = "upstream app { zone app 64k; state app.conf; }";
const PROXY: &str = "location / { proxy_pass http://app; }";

/// A folder with the same that `Api::new` serves.
fn folder(port: u16) -> Scratch {
    let dir = Scratch::new();
    dir.write("nginx.conf", server::whole_file(&dir, &Api::body(port, UPSTREAM, PROXY)));
    dir
}

#[test]
fn servers_are_kept_in_the_file_as_lines_and_come_back_from_it() {
    if replaced() {
        return;
    }
    let api = Api::new(UPSTREAM, PROXY);
    let file = || api.server.dir().read("app.conf");
    assert_eq!(ask(api.port, &Request::get("/")).status, 502, "nobody is there yet");
    for body in
        ["{\"server\":\"127.0.0.1:1\"}", "{\"server\":\"127.0.0.1:2\",\"weight\":5,\"route\":\"a;b\",\"backup\":true}"]
    {
        assert_eq!(api.send("POST", SERVERS, body).status, 201, "{body}");
    }
    assert_eq!(file(), "server 127.0.0.1:1;\nserver 127.0.0.1:2 weight=5 backup \"route=a;b\";\n");
    assert_eq!(api.send("PATCH", &format!("{SERVERS}0"), "{\"drain\":true}").status, 200);
    assert_eq!(file(), "server 127.0.0.1:1 drain;\nserver 127.0.0.1:2 weight=5 backup \"route=a;b\";\n");
    let servers = api.get(SERVERS);
    api.server.reload();
    assert_eq!(api.get(SERVERS), servers);
    api.server.cli(&["-t"]).succeeded();

    // A worker that dies is followed by one that knows what was changed since the start.
    let worker = api.server.workers()[0];
    program::send(worker, Signal::KILL);
    wait::until("another worker serves", wait::SOON, || {
        api.server.workers().iter().any(|pid| *pid != worker) && wait::connectable(api.server.address())
    });
    wait::until("it is known", wait::SOON, || api.get("/processes")["respawned"] == 1);
    assert_eq!(api.get(SERVERS), servers);

    let Api { server: mut first, port } = api;
    first.quit();
    assert!(!wait::connectable(first.address()));
    let again = server::start(&binary(), first.dir().path(), port);
    assert_eq!(send(port, "GET", &format!("/api/9{SERVERS}"), "").body, servers);
    drop(again);
}

#[test]
fn a_file_that_is_wrong_refuses_the_start_and_says_where() {
    if replaced() {
        return;
    }
    let dir = folder(free_port());
    dir.write("app.conf", "server 127.0.0.1:1;\nserver 127.0.0.1:2 wait=1;\n");
    let command = server::command(&binary(), dir.path(), &["-t"]);
    let ran = program::run(command);
    assert_eq!(ran.code, Some(1));
    let text = format!("invalid parameter \"wait=1\" in {}/app.conf:2", dir.path().display());
    assert!(ran.stderr.contains(&text), "{}", ran.stderr);
}

/// The addresses in the file, each of whose lines must be whole.
fn read(file: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with(";\n"), "torn: {text:?}");
    let address = |line: &str| line.strip_prefix("server ").and_then(|line| line.strip_suffix(";")).unwrap().to_owned();
    text.lines().map(address).collect()
}

/// Adds servers, and removes some, until the API is gone. What it was told of each of its servers last: there, gone, or nothing.
fn change(port: u16, client: u32, removes: bool, over: &AtomicBool) -> Vec<(String, Option<bool>)> {
    let mut known = Vec::new();
    for round in 0..250 {
        let address = format!("127.0.{client}.{round}");
        let Some((201, id)) = ask_once(port, "POST", "", &format!("{{\"server\":\"{address}\"}}")) else {
            known.push((address, None));
            break;
        };
        if round % 3 == 0 || !removes {
            known.push((address, Some(true)));
            if over.load(SeqCst) {
                break;
            }
            continue;
        }
        match ask_once(port, "DELETE", &id, "") {
            Some((200, _)) => known.push((address, Some(false))),
            _ => {
                known.push((address, None));
                break;
            }
        }
        if over.load(SeqCst) {
            break;
        }
    }
    known
}

/// A status and the number of the server; nothing where the server has gone.
fn ask_once(port: u16, method: &str, id: &str, body: &str) -> Option<(u16, String)> {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(wait::SOON)).ok()?;
    let head =
        format!("{method} /api/9{SERVERS}{id} HTTP/1.0\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let value: serde_json::Value = serde_json::from_str(body).ok()?;
    Some((head.get(9..12)?.parse().ok()?, value["id"].to_string()))
}

#[test]
fn whoever_is_killed_at_whatever_moment_the_file_is_whole_and_has_what_was_confirmed() {
    if replaced() {
        return;
    }
    let kills: u32 = setting("TIDEGATE_STATE_KILLS").unwrap_or(8);
    let port = free_port();
    let dir = folder(port);
    let file = dir.path().join("app.conf");
    for kill in 0..kills {
        std::fs::write(&file, "").unwrap();
        let program = server::start(&binary(), dir.path(), port);
        assert_eq!(send(port, "GET", "/api/9/", "").status, 200);
        let workers = measure::children(program.pid());
        let over = AtomicBool::new(false);
        let known = std::thread::scope(|scope| {
            // A new worker numbers the servers anew.
            let removes = kill % 2 == 0;
            let one = |client| {
                let over = &over;
                scope.spawn(move || change(port, client, removes, over))
            };
            let changes: Vec<_> = (0..4).map(one).collect();
            // Somewhere in the first changes, or between any two steps of writing them.
            std::thread::sleep(Duration::from_millis(40 + u64::from(kill) * 37 % 190));
            // Master and worker in turn; who is left ends as well, or goes on.
            let victim = if kill % 2 == 0 { program.pid() } else { workers[0] };
            program::send(victim, Signal::KILL);
            over.store(true, SeqCst);
            changes.into_iter().flat_map(|change| change.join().unwrap()).collect::<Vec<_>>()
        });
        let there = read(&file);
        for (address, last) in known {
            match last {
                Some(true) => assert!(there.contains(&address), "{address} was confirmed and is not in {there:?}"),
                Some(false) => assert!(!there.contains(&address), "{address} was removed and is in {there:?}"),
                None => {}
            }
        }
        drop(program);
        wait::until("the port is free again", wait::SOON, || std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
    }
}
