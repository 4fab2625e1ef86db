//! `nginx-examples/microcaching.conf`, on ports that are free here.

use crate::support::backend::{Backend, Reply};
use crate::support::client::{Answer, Connection, Request, ask, get};
use crate::support::ports::free_port;
use crate::support::project;
use crate::support::scratch::Scratch;
use crate::support::server::Server;
use crate::support::wait;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};

/// The example, and an application of ours in the place of its own if there is one.
fn start(application: Option<&Backend>) -> Server {
    let (dir, port, own) = (Scratch::new(), free_port(), free_port());
    let mut text = std::fs::read_to_string(project("nginx-examples/microcaching.conf")).unwrap();
    let asked = application.map_or(([127, 0, 0, 1], own).into(), Backend::address);
    text = text.replace("server 127.0.0.1:18081;", &format!("server {asked};"));
    text = text.replace("listen 127.0.0.1:18081;", &format!("listen 127.0.0.1:{own};"));
    text = text.replace("listen 8080;", &format!("listen 127.0.0.1:{port};"));
    text = text.replace("/tmp/tidegate-microcaching", &dir.path().join("example").display().to_string());
    dir.write("nginx.conf", text);
    Server::file_in(dir, port)
}

fn status(answer: &Answer) -> &str {
    answer.header("X-Cache-Status").unwrap_or("none")
}

#[test]
fn a_page_is_given_again_until_it_is_too_old_and_then_once_more_while_it_is_made_anew() {
    let server = start(None);
    let first = get(server.address(), "/").expect(200);
    assert_eq!(status(&first), "MISS");
    let mut seen = HashSet::new();
    wait::until("pages have been new, old and made anew", wait::SOON, || {
        let answer = get(server.address(), "/").expect(200);
        assert!(["HIT", "STALE", "UPDATING"].contains(&status(&answer)), "{answer:?}");
        seen.insert(status(&answer).to_owned());
        seen.contains("HIT") && seen.contains("STALE") && status(&answer) == "HIT" && answer.text() != first.text()
    });
    let personal = || ask(server.address(), &Request::get("/").header("Cookie", "a=b; session=me")).expect(200);
    let (one, two) = (personal(), personal());
    assert_eq!((status(&one), status(&two)), ("BYPASS", "BYPASS"));
    assert_ne!(one.text(), two.text());
    let others = get(server.address(), "/").expect(200).text();
    assert!(others != one.text() && others != two.text(), "it is for nobody else");
}

#[test]
fn one_of_many_asks_the_application_and_its_last_page_outlives_it() {
    let (gate, open) = mpsc::channel::<()>();
    let (open, made) = (Mutex::new(open), AtomicUsize::new(0));
    let mut application = Backend::start(move |_| {
        let number = made.fetch_add(1, Ordering::SeqCst);
        if number == 0 {
            // An error: nobody holds the gate any more.
            let _ = open.lock().unwrap().recv();
        }
        Reply::Text(format!("page {number}"))
    });
    let server = start(Some(&application));
    let mut clients: Vec<_> = (0..8).map(|_| Connection::open(server.address())).collect();
    for client in &mut clients {
        client.send("GET /page HTTP/1.1\r\nHost: example\r\nConnection: close\r\n\r\n");
    }
    wait::until("one of them is passed on", wait::SOON, || application.hits() == 1);
    drop(gate);
    for client in &mut clients {
        assert_eq!(client.answer("GET").expect(200).text(), "page 0");
    }
    application.kill();
    let ask = || ask(server.address(), &Request::get("/page").header("Host", "example")).expect(200);
    wait::until("the page is too old", wait::SOON, || status(&ask()) == "STALE");
    for _ in 0..5 {
        let answer = ask();
        assert!(answer.text().starts_with("page ") && status(&answer) != "MISS", "{answer:?}");
    }
}
