//! tidegate, nginx and HAProxy side by side: CPU per request, throughput, latency and memory per idle connection.
//!
//! `cargo bench --bench side_by_side` prints a table for each scene, a few programs over like configurations. Every proxy
//! has one thread on core 0; `wrk` and the backend (an nginx of its own) run on core 1. The rounds are interleaved,
//! A B C A B C, and medians are shown, with ratios to the scene's base (nginx, or tidegate without what is measured).
//!
//! Environment: `TIDEGATE_BENCH_SECONDS` (2) per cell, `TIDEGATE_BENCH_ROUNDS` (3), `TIDEGATE_BENCH_ONLY` (a part of a
//! cell's name), `TIDEGATE_BENCH_MEMORY=0` (leave out the idle connections), `TIDEGATE_BENCH_WAIT` (3) seconds between
//! their waves, `TIDEGATE_BENCH_BINARY` (another tidegate), `TIDEGATE_BENCH_NGINX` (another nginx).

#![allow(clippy::expect_used, reason = "a measurement that cannot go on says so by a panic")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the tables are what it is run for")]
#![allow(
    clippy::disallowed_methods,
    reason = "the methods are those of a server; a measurement binds and waits as it likes"
)]
#![allow(clippy::cast_precision_loss, reason = "nothing measured here has more digits than a float")]

mod load;
mod memory;
mod programs;
mod scenes;

use programs::{program, start, start_all};
use std::{fs, os::unix::fs::PermissionsExt};

fn main() {
    let seconds = number("TIDEGATE_BENCH_SECONDS", 2);
    let rounds = usize::try_from(number("TIDEGATE_BENCH_ROUNDS", 3)).unwrap_or(3).max(1);
    let only = std::env::var("TIDEGATE_BENCH_ONLY").unwrap_or_default();
    programs::raise_open_files();
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let backend_port = scenes::prepare(dir.path());
    let nginx = program("/usr/sbin/nginx").expect("nginx");
    let _backend = start("backend", &nginx, "backend", dir.path(), backend_port, 1);
    assert!(program("/usr/bin/wrk").is_some(), "wrk is needed (Debian: apt-get install wrk)");

    println!("{rounds} rounds of {seconds} s, one thread each, medians");
    for scene in scenes::SCENES {
        let cells: Vec<_> = scene.cells.iter().filter(|cell| cell.name.contains(&only)).collect();
        if cells.is_empty() {
            continue;
        }
        let contenders = start_all(scene, dir.path(), backend_port);
        println!("\n{}", scene.title);
        load::heading();
        for cell in cells {
            let mut samples: Vec<Vec<load::Sample>> = contenders.iter().map(|_| Vec::new()).collect();
            for _ in 0..rounds {
                for (contender, samples) in contenders.iter().zip(&mut samples) {
                    if scenes::can(contender.name, cell) {
                        samples.push(load::measure(contender, cell, seconds));
                    }
                }
            }
            load::report(cell, scene.base, &contenders, &samples);
        }
    }
    if number("TIDEGATE_BENCH_MEMORY", 1) > 0 {
        println!("\nmemory per idle keepalive connection (bytes, PSS of all processes; waves of 1,000):");
        // Fresh processes: what the load above left behind would hide the growth.
        for contender in start_all(&scenes::SCENES[0], dir.path(), backend_port) {
            memory::idle(&contender);
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}
