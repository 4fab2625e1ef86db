//! What one choice of a peer costs: nanoseconds from the start of a request's selection to its end, for each method.
//!
//! `cargo bench --bench picks` prints a table for groups of 2, 10, 100 and 1,000 peers. Environment:
//! `TIDEGATE_BENCH_ONLY`, a part of a method's name; `TIDEGATE_BENCH_MILLIS` (200) for each number.

#![allow(clippy::expect_used, reason = "a measurement that cannot go on says so by a panic")]
#![allow(clippy::print_stdout, reason = "the table is what it is run for")]
#![allow(clippy::cast_precision_loss, reason = "nothing measured here has more digits than a float")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate::upstream::{
    Address, Balance, Client, Group, Outcome, ServerLine,
    balance::{Measure, Two},
};

const SIZES: [usize; 4] = [2, 10, 100, 1000];

const METHODS: [(&str, Balance); 9] = [
    ("round robin", Balance::RoundRobin),
    ("least_conn", Balance::LeastConn),
    ("ip_hash", Balance::IpHash),
    ("hash", Balance::Hash { consistent: false }),
    ("hash consistent", Balance::Hash { consistent: true }),
    ("random", Balance::Random(None)),
    ("random two least_conn", Balance::Random(Some(Two::LeastConn))),
    ("least_time", Balance::LeastTime { measure: Measure::Header, inflight: false }),
    ("least_time inflight", Balance::LeastTime { measure: Measure::Header, inflight: true }),
];

fn main() {
    let only = std::env::var("TIDEGATE_BENCH_ONLY").unwrap_or_default();
    let millis = std::env::var("TIDEGATE_BENCH_MILLIS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    println!("ns per pick{:>19} peers {:>10} {:>10} {:>10}", SIZES[0], SIZES[1], SIZES[2], SIZES[3]);
    for (name, balance) in METHODS.iter().filter(|(name, _)| name.contains(&only)) {
        let costs = SIZES.map(|size| cost(*balance, size, Duration::from_millis(millis)));
        println!("{name:<24} {:>11.0} {:>10.0} {:>10.0} {:>10.0}", costs[0], costs[1], costs[2], costs[3]);
    }
}

/// Nanoseconds of a request that chooses one of so many peers and is done with it, with 64 others under way.
fn cost(balance: Balance, size: usize, time: Duration) -> f64 {
    let server = |n: usize| {
        let address = format!("127.0.{}.{}:80", n / 250, n % 250 + 1);
        let line = ServerLine { server: address.clone(), ..ServerLine::default() };
        (line, vec![Address::Tcp(address.parse().expect("an address"))])
    };
    let group = Arc::new(Group::new("app", balance, (0..size).map(server).collect()).expect("servers"));
    let mut now = 1_700_000_000_000;
    let keys: Vec<Client> = (0..1000_u32)
        .map(|n| Client {
            address: Some(n.wrapping_mul(2_654_435_761).to_be_bytes().into()),
            key: format!("/some/path/{n}").into(),
            ..Client::default()
        })
        .collect();
    let start = |n: usize, now: u64| {
        let mut selection = group.select(keys[n % keys.len()].clone());
        selection.next(now).expect("a peer");
        selection
    };
    let mut under_way: Vec<_> = (0..64).map(|n| start(n, now)).collect();
    let (began, spent, mut picks) = (Instant::now(), on_processor(), 0);
    while began.elapsed() < time {
        for _ in 0..100 {
            now += u64::from(picks % 16 == 0);
            let place = picks % under_way.len();
            under_way[place].answered(now);
            under_way[place].done(Outcome::Success, now);
            under_way[place] = start(picks, now);
            picks += 1;
        }
    }
    (on_processor() - spent) as f64 / picks as f64
}

/// Nanoseconds this thread has run: others may be busy beside it.
fn on_processor() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("/proc");
    text.split(' ').next().and_then(|first| first.parse().ok()).expect("a number")
}
