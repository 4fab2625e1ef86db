//! The load generator, and its report.

use super::program::Program;
use std::process::Command;

/// `wrk -t1 ARGUMENTS http://127.0.0.1:PORT/`.
pub(crate) fn start(port: u16, arguments: &[&str]) -> Program {
    let mut command = Command::new("wrk");
    command.arg("-t1").args(arguments).arg(format!("http://127.0.0.1:{port}/"));
    Program::start("wrk", command)
}

/// What wrk saw.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    /// Answers that are neither 2xx nor 3xx.
    pub(crate) failures: u64,
    /// Connections refused, cut or silent.
    pub(crate) errors: u64,
}

impl Report {
    /// What it printed at its end.
    pub(crate) fn of(text: &str) -> Self {
        let mut report = Self::default();
        for line in text.lines() {
            let number = |word: Option<&str>| word.and_then(|word| word.trim().parse().ok()).unwrap_or(0);
            if let Some((count, _)) = line.split_once(" requests in ") {
                report.requests = number(Some(count));
            } else if let Some(count) = line.trim().strip_prefix("Non-2xx or 3xx responses:") {
                report.failures = number(Some(count));
            } else if let Some(kinds) = line.trim().strip_prefix("Socket errors:") {
                report.errors = kinds.split(',').map(|kind| number(kind.trim().split(' ').nth(1))).sum();
            }
        }
        report
    }
}

#[test]
fn wrks_report_is_understood() {
    let report = Report::of(
        "  123456 requests in 10.02s, 1.2MB read\n  Socket errors: connect 1, read 20, write 3, timeout 4\n  \
         Non-2xx or 3xx responses: 7\n",
    );
    assert_eq!((report.requests, report.failures, report.errors), (123_456, 7, 28));
}
