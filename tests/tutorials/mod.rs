//! The published tutorials, step by step as their readers take them: the tutorial's own files, unchanged, from
//! `nginx-examples/`; its applications, written anew, from `fixtures/apps/`, on the real Tornado, Flask, Django and uWSGI.

mod t000;
mod t001;
mod t002;
mod t003;
mod t004;

use crate::support::client::{self, Answer, Connection};
use crate::support::wait;
use std::path::Path;
use std::time::{Duration, Instant};

/// Asks for a path so many times, each on a connection of its own, and picks something from every answer.
///
/// # Panics
/// When an answer is not a 200.
#[track_caller]
fn ask_times(times: usize, path: &str, pick: impl Fn(&Answer) -> String) -> Vec<String> {
    (0..times).map(|_| pick(&client::get(80, path).expect(200))).collect()
}

/// The same along one connection, where a nginx of several workers balances in one of them.
#[track_caller]
fn ask_along(connection: &mut Connection, times: usize, path: &str, pick: impl Fn(&Answer) -> String) -> Vec<String> {
    (0..times).map(|_| pick(&connection.get(path).expect(200))).collect()
}

/// The environment's Python, as a word of a command.
fn python(venv: &Path) -> String {
    venv.join("bin/python3").to_str().expect("a path in UTF-8").to_owned()
}

/// The lines of a log that hold all these words.
fn lines_with<'a>(log: &'a str, words: &[&str]) -> Vec<&'a str> {
    log.lines().filter(|line| words.iter().all(|word| line.contains(word))).collect()
}

/// Waits for so many lines with all these words: a log is written when the client has its answer already.
///
/// # Panics
/// When they do not come, or more than them.
#[track_caller]
fn expect_lines(count: usize, log: impl Fn() -> String, words: &[&str]) {
    let began = Instant::now();
    while lines_with(&log(), words).len() < count && began.elapsed() < wait::SOON {
        std::thread::sleep(Duration::from_millis(10));
    }
    let log = log();
    assert_eq!(lines_with(&log, words).len(), count, "{words:?} in:\n{log}");
}
