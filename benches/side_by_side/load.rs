//! One run of `wrk`, and the table of what several showed.

use crate::{
    programs::{Contender, cpu_ticks},
    scenes::Cell,
};
use std::process::Command;

/// What one run of `wrk` showed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Microseconds of processor time per request, user and system.
    pub(crate) cpu: f64,
    /// Requests per second.
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    /// Microseconds.
    pub(crate) p99: f64,
    /// Answers other than 2xx and 3xx, and socket errors.
    pub(crate) errors: u64,
}

/// One run of `wrk` on core 1.
pub(crate) fn measure(contender: &Contender, cell: &Cell, seconds: u64) -> Sample {
    let before = cpu_ticks(contender.child.id());
    let mut command = Command::new("taskset");
    command.args(["-c", "1", "wrk", "-t1", "--latency", "--timeout", "10s"]);
    command.arg(format!("-c{}", cell.connections)).arg(format!("-d{seconds}s"));
    for field in cell.fields {
        command.args(["-H", field]);
    }
    let output = command.arg(format!("http://127.0.0.1:{}{}", contender.port, cell.path)).output().expect("wrk");
    let ticks = cpu_ticks(contender.child.id()) - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut sample = Sample::default();
    let mut requests = 0.0;
    for line in text.lines().map(str::trim) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["50%", value] => sample.p50 = microseconds(value),
            ["99%", value] => sample.p99 = microseconds(value),
            [count, "requests", "in", ..] => requests = count.parse().unwrap_or(0.0),
            ["Requests/sec:", value] => sample.rate = value.parse().unwrap_or(0.0),
            ["Non-2xx", .., count] => sample.errors += count.parse().unwrap_or(1),
            ["Socket", "errors:", rest @ ..] => {
                let numbers = rest.iter().filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok());
                sample.errors += numbers.sum::<u64>();
            }
            _ => {}
        }
    }
    // A tick is a hundredth of a second on every Linux (USER_HZ).
    if requests > 0.0 {
        sample.cpu = ticks as f64 * 10_000.0 / requests;
    }
    sample
}

/// `1.23ms` in microseconds.
fn microseconds(text: &str) -> f64 {
    let units = [("us", 1.0), ("ms", 1000.0), ("s", 1_000_000.0)];
    units
        .iter()
        .find_map(|(unit, factor)| {
            text.strip_suffix(unit).and_then(|value| value.parse::<f64>().ok()).map(|v| v * factor)
        })
        .unwrap_or(f64::NAN)
}

pub(crate) fn heading() {
    println!(
        "{:<36} {:<16} {:>10} {:>7} {:>10} {:>7} {:>10} {:>10}",
        "", "", "CPU µs/req", "ratio", "req/s", "ratio", "p50 µs", "p99 µs"
    );
}

pub(crate) fn report(cell: &Cell, base: &str, contenders: &[Contender], samples: &[Vec<Sample>]) {
    let medians: Vec<Option<Sample>> = samples.iter().map(|samples| median(samples)).collect();
    let base = contenders.iter().position(|contender| contender.name == base).and_then(|at| medians[at]);
    for (index, (contender, sample)) in contenders.iter().zip(&medians).enumerate() {
        let name = if index == 0 { cell.name } else { "" };
        let Some(sample) = sample else { continue };
        let base = base.unwrap_or(*sample);
        let errors = if sample.errors > 0 { format!("  {} errors", sample.errors) } else { String::new() };
        println!(
            "{name:<36} {:<16} {:>10.2} {:>7.2} {:>10.0} {:>7.2} {:>10.0} {:>10.0}{errors}",
            contender.name,
            sample.cpu,
            sample.cpu / base.cpu,
            sample.rate,
            sample.rate / base.rate,
            sample.p50,
            sample.p99
        );
    }
}

/// The median of each quantity, and the sum of the errors.
fn median(samples: &[Sample]) -> Option<Sample> {
    let middle = |of: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    Some(Sample {
        cpu: middle(|sample| sample.cpu)?,
        rate: middle(|sample| sample.rate)?,
        p50: middle(|sample| sample.p50)?,
        p99: middle(|sample| sample.p99)?,
        errors: samples.iter().map(|sample| sample.errors).sum(),
    })
}
