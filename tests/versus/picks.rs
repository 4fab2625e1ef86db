//! Which peers a method picks, many times over: the same ones as nginx where the choice follows from the request, and as
//! many times as nginx where it does not.
//!
//! Nobody listens at the peers: each request goes from one to the next, and says in its answer whom it has asked.
//! `TIDEGATE_PICKS` is how many picks of each method are compared.

use super::support::{oracle, whole_file, workdir};
use crate::support::ports::free_port;
use crate::support::{binary, server};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

/// Peers a request asks, one after the other.
const TRIES: usize = 4;
/// Where nobody listens. It is part of what is hashed: the same for both programs.
const DISCARD: u16 = 9;
/// Requests on their way at the same time.
const BATCH: usize = 50;

const METHODS: [(&str, &str); 6] = [
    ("hash", "hash $arg_k;"),
    ("consistent", "hash $arg_k consistent;"),
    ("ip_hash", "ip_hash;"),
    ("least_conn", "least_conn;"),
    ("random", "random;"),
    ("two", "random two least_conn;"),
];

fn configuration(port: u16) -> String {
    let weights = [1, 1, 2, 3, 1, 5, 1, 2];
    let server = |(number, weight): (usize, &u32)| {
        format!("server 127.0.0.{}:{DISCARD} weight={weight} max_fails=0; ", number + 1)
    };
    let servers: String = weights.iter().enumerate().map(server).collect();
    let upstream = |(name, method): &(&str, &str)| format!("upstream {name} {{ {method} {servers} }}\n");
    let location = |(name, _): &(&str, &str)| format!("location /{name} {{ proxy_pass http://{name}; }}\n");
    format!(
        "{}error_log /dev/null crit; keepalive_requests 1000000;\n\
         set_real_ip_from 127.0.0.1; real_ip_header X-Client;\n\
         proxy_next_upstream_tries {TRIES}; error_page 502 =200 @asked;\n\
         server {{ listen 127.0.0.1:{port};\n{} location @asked {{ return 200 \"<$upstream_addr>\"; }} }}\n",
        METHODS.iter().map(upstream).collect::<String>(),
        METHODS.iter().map(location).collect::<String>(),
    )
}

/// Whom each of so many requests has asked.
fn picks(port: u16, method: &str, requests: usize) -> Vec<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut picks = Vec::with_capacity(requests);
    for first in (0..requests).step_by(BATCH) {
        let request = |n: usize| {
            let client = format!("10.{}.{}.{}", n % 251, n / 251 % 251, n % 7);
            format!("GET /{method}?k=/path/{n} HTTP/1.1\r\nHost: localhost\r\nX-Client: {client}\r\n\r\n")
        };
        let batch: String = (first..requests.min(first + BATCH)).map(request).collect();
        stream.write_all(batch.as_bytes()).expect("write");
        let (mut text, mut piece) = (String::new(), [0; 16384]);
        let due = requests.min(first + BATCH) - first;
        while text.matches('>').count() < due {
            let read = stream.read(&mut piece).expect("read");
            assert!(read > 0, "closed behind {} requests", picks.len());
            text.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        let asked = text.split('<').skip(1).filter_map(|rest| rest.split_once('>'));
        picks.extend(asked.map(|(asked, _)| asked.to_owned()));
    }
    picks
}

/// Everything one program picks.
fn run(program: &Path, requests: usize) -> BTreeMap<&'static str, Vec<String>> {
    let (dir, port) = (workdir(), free_port());
    fs::write(dir.path().join("nginx.conf"), whole_file(&configuration(port), dir.path())).expect("write");
    let mut running = server::start(program, dir.path(), port);
    let all = METHODS.iter().map(|(method, _)| (*method, picks(port, method, requests))).collect();
    running.finish();
    all
}

/// How often each peer was asked first.
fn shares(picks: &[String]) -> BTreeMap<&str, usize> {
    let mut shares = BTreeMap::new();
    for pick in picks {
        *shares.entry(pick.split(',').next().unwrap_or_default()).or_default() += 1;
    }
    shares
}

#[test]
fn every_method_picks_as_nginx_does() {
    let Some(nginx) = oracle() else { return };
    let count = std::env::var("TIDEGATE_PICKS").map_or(10_000, |text| text.parse().expect("a number"));
    let requests = count / TRIES;
    let (theirs, mine) = (run(&nginx, requests), run(&binary(), requests));
    for (method, _) in METHODS {
        let (theirs, mine) = (&theirs[method], &mine[method]);
        assert_eq!((theirs.len(), mine.len()), (requests, requests), "{method}");
        if matches!(method, "random" | "two") {
            let (theirs, mine) = (shares(theirs), shares(mine));
            // One in a hundred, and what chance may add to so few.
            let most = requests / 100 + 4 * requests.isqrt() / 2;
            for (peer, count) in &theirs {
                let own = mine.get(peer).copied().unwrap_or_default();
                assert!(count.abs_diff(own) <= most, "{method}: {peer} {count} <> {own} of {requests}");
            }
            eprintln!("{method}: {theirs:?} <> {mine:?}");
            continue;
        }
        let differences: Vec<_> = theirs.iter().zip(mine).enumerate().filter(|(_, (a, b))| a != b).take(5).collect();
        assert!(differences.is_empty(), "{method}, nginx <> ours:\n{differences:#?}");
        eprintln!("{method}: {} picks, all the same", requests * TRIES);
    }
}
