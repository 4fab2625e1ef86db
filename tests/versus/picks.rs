//! Which peers a method picks, many times over: the same ones as nginx where the choice follows from the request, and as
//! many times as nginx, and as chance has it, where it does not.
//!
//! Nobody listens at the peers: each request goes from one to the next, and says in its answer whom it has asked.
//! `TIDEGATE_PICKS` is how many picks of each method are compared.

use super::support::{oracle, whole_file, workdir};
use crate::support::ports::free_port;
use crate::support::program;
use crate::support::{binary, server, setting};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Peers a request asks, one after the other.
const TRIES: usize = 4;
/// Where nobody listens. It is part of what is hashed: the same for both programs.
const DISCARD: u16 = 9;
/// Requests on their way at the same time.
const BATCH: usize = 50;

/// How many requests of a method that leaves it to chance are counted: so many that a hundredth of them is five times
/// what chance makes of the share of the heaviest peer.
const CHANCES: usize = 100_000;

const WEIGHTS: [u32; 8] = [1, 1, 2, 3, 1, 5, 1, 2];

/// A method under its name.
type Method = (&'static str, &'static str);

const METHODS: [Method; 7] = [
    ("hash", "hash $arg_k;"),
    ("consistent", "hash $arg_k consistent;"),
    ("ip_hash", "ip_hash;"),
    ("least_conn", "least_conn;"),
    ("least_time", "least_time header;"),
    ("random", "random;"),
    ("two", "random two least_conn;"),
];

/// Whether it picks by chance.
fn chance(method: &str) -> bool {
    matches!(method, "random" | "two")
}

/// How many tries a request has.
fn tries(method: &str) -> usize {
    if chance(method) { 1 } else { TRIES }
}

fn configuration(port: u16, methods: &[Method]) -> String {
    let server = |(number, weight): (usize, &u32)| {
        format!("server 127.0.0.{}:{DISCARD} weight={weight} max_fails=0; ", number + 1)
    };
    let servers: String = WEIGHTS.iter().enumerate().map(server).collect();
    let upstream = |(name, method): &Method| format!("upstream {name} {{ {method} {servers} }}\n");
    let location = |(name, _): &Method| {
        format!("location /{name} {{ proxy_pass http://{name}; proxy_next_upstream_tries {}; }}\n", tries(name))
    };
    format!(
        "{}error_log /dev/null crit; keepalive_requests 1000000;\n\
         set_real_ip_from 127.0.0.1; real_ip_header X-Client;\n\
         error_page 502 =200 @asked;\n\
         server {{ listen 127.0.0.1:{port};\n{} location @asked {{ return 200 \"<$upstream_addr>\"; }} }}\n",
        methods.iter().map(upstream).collect::<String>(),
        methods.iter().map(location).collect::<String>(),
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
fn run(program: &Path, methods: &[Method], count: usize) -> BTreeMap<&'static str, Vec<String>> {
    let (dir, port) = (workdir(), free_port());
    fs::write(dir.path().join("nginx.conf"), whole_file(&configuration(port, methods), dir.path())).expect("write");
    let mut running = server::start(program, dir.path(), port);
    let requests = |method| if chance(method) { count.max(CHANCES) } else { count / TRIES };
    let all = methods.iter().map(|(method, _)| (*method, picks(port, method, requests(method)))).collect();
    running.finish();
    all
}

/// The part of all picks that each peer had.
fn shares(picks: &[String]) -> Vec<f64> {
    let number = |count: usize| f64::from(u32::try_from(count).expect("a number of picks"));
    let count = |peer: usize| {
        let name = format!("127.0.0.{peer}:{DISCARD}");
        number(picks.iter().filter(|pick| **pick == name).count()) / number(picks.len())
    };
    (1..=WEIGHTS.len()).map(count).collect()
}

/// The part that each ought to have: its weight's, or that of being the second of two, who is taken among equals.
fn expected(method: &str) -> Vec<f64> {
    let whole: u32 = WEIGHTS.iter().sum();
    let share = WEIGHTS.map(|weight| f64::from(weight) / f64::from(whole));
    let second = |own: usize| {
        let first = |(at, other): (usize, &f64)| if at == own { 0.0 } else { other * share[own] / (1.0 - other) };
        share.iter().enumerate().map(first).sum()
    };
    if method == "two" { (0..share.len()).map(second).collect() } else { share.to_vec() }
}

/// Whether a program that is nginx knows `least_time`, which came with 1.31.
fn knows_least_time(nginx: &Path) -> bool {
    let mut command = Command::new(nginx);
    command.arg("-v");
    let said = program::run(command).stderr;
    let version = said.split_once("nginx/").and_then(|(_, version)| version.split('.').nth(1)?.parse::<u32>().ok());
    version.is_some_and(|minor| minor >= 31)
}

#[test]
fn every_method_picks_as_nginx_does() {
    let Some(nginx) = oracle() else { return };
    let count = setting("TIDEGATE_PICKS").unwrap_or(10_000);
    let knows = knows_least_time(&nginx);
    let methods: Vec<_> = METHODS.into_iter().filter(|(method, _)| knows || *method != "least_time").collect();
    let (theirs, mine) = (run(&nginx, &methods, count), run(&binary(), &methods, count));
    for (method, _) in methods {
        let (theirs, mine) = (&theirs[method], &mine[method]);
        assert_eq!(theirs.len(), mine.len(), "{method}");
        if chance(method) {
            let (theirs, mine, chance) = (shares(theirs), shares(mine), expected(method));
            let close = |a: f64, b: f64| (a - b).abs() <= 0.01;
            for number in 0..WEIGHTS.len() {
                let (a, b, c) = (theirs[number], mine[number], chance[number]);
                assert!(close(a, b) && close(a, c) && close(b, c), "{method}, peer {number}: {a} <> {b}, not {c}");
            }
            eprintln!("{method}: {theirs:.4?} <> {mine:.4?}, by chance {chance:.4?}");
            continue;
        }
        let differences: Vec<_> = theirs.iter().zip(mine).enumerate().filter(|(_, (a, b))| a != b).take(5).collect();
        assert!(differences.is_empty(), "{method}, nginx <> ours:\n{differences:#?}");
        eprintln!("{method}: {} picks, all the same", mine.len() * TRIES);
    }
}
