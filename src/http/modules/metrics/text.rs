//! The text format of Prometheus (0.0.4), and OpenMetrics (1.0), which differs in little.

use crate::observe::counts::Spread;
use std::fmt::{Display, Write};

/// A page that is being written.
pub(super) struct Text {
    out: String,
    /// OpenMetrics.
    open: bool,
}

/// What kind of numbers a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Labels and their values.
pub(super) type Labels<'l> = [(&'l str, &'l str)];

impl Text {
    pub(super) fn new(open: bool) -> Self {
        Self { out: String::with_capacity(16 << 10), open }
    }

    /// The finished page.
    pub(super) fn end(mut self) -> String {
        if self.open {
            self.out.push_str("# EOF\n");
        }
        self.out
    }

    /// Begins a family. Nothing is written of one without samples.
    pub(super) fn family<'t>(&'t mut self, name: &'t str, kind: Kind, help: &'t str) -> Family<'t> {
        Family { text: self, name, kind, help, begun: false }
    }

    /// A family of one sample.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).sample(&[], value);
    }
}

/// All samples of one name.
pub(super) struct Family<'t> {
    text: &'t mut Text,
    name: &'t str,
    kind: Kind,
    help: &'t str,
    begun: bool,
}

impl Family<'_> {
    /// One sample.
    pub(super) fn sample(&mut self, labels: &Labels<'_>, value: impl Display) {
        self.begin();
        line(&mut self.text.out, self.name, "", labels, None, value);
    }

    /// One histogram, in seconds.
    pub(super) fn histogram(&mut self, labels: &Labels<'_>, spread: &Spread) {
        self.begin();
        let (out, open) = (&mut self.text.out, self.text.open);
        let mut count = 0;
        for (bound, sum) in spread.cumulative() {
            let mut bound = bound.map_or_else(|| "+Inf".to_owned(), |bound| decimal(bound, 6));
            if open && bound != "+Inf" && !bound.contains('.') {
                bound.push_str(".0");
            }
            line(out, self.name, "_bucket", labels, Some(&bound), sum);
            count = sum;
        }
        line(out, self.name, "_sum", labels, None, decimal(spread.micros, 6));
        line(out, self.name, "_count", labels, None, count);
    }

    /// Names the family, once.
    fn begin(&mut self) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let (name, kind) = match self.kind {
            Kind::Gauge => (self.name, "gauge"),
            Kind::Histogram => (self.name, "histogram"),
            Kind::Counter if !self.text.open => (self.name, "counter"),
            // There a counter's samples have a name that ends so; the names of others are worth more than their type.
            Kind::Counter => match self.name.strip_suffix("_total") {
                Some(name) => (name, "counter"),
                None => (self.name, "unknown"),
            },
        };
        // Writing into memory does not fail.
        let _ = write!(self.text.out, "# HELP {name} {}\n# TYPE {name} {kind}\n", self.help);
    }
}

/// A number whose last `digits` digits stand behind the point.
pub(super) fn decimal(number: u64, digits: usize) -> String {
    let text = format!("{number:0>width$}", width = digits + 1);
    let (whole, rest) = text.split_at(text.len() - digits);
    match rest.trim_end_matches('0') {
        "" => whole.to_owned(),
        rest => format!("{whole}.{rest}"),
    }
}

fn line(out: &mut String, name: &str, suffix: &str, labels: &Labels<'_>, bound: Option<&str>, value: impl Display) {
    out.push_str(name);
    out.push_str(suffix);
    let mut before = '{';
    for (label, value) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
        out.push(before);
        before = ',';
        out.push_str(label);
        out.push_str("=\"");
        for char in value.chars() {
            match char {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                char => out.push(char),
            }
        }
        out.push('"');
    }
    if before == ',' {
        out.push('}');
    }
    // Writing into memory does not fail.
    let _ = writeln!(out, " {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(open: bool) -> String {
        let mut text = Text::new(open);
        text.single("a_total", Kind::Counter, "First.", 7);
        text.family("b", Kind::Counter, "Second.").sample(&[("x", "q\"\\\n"), ("y", "")], 1.5);
        text.family("none", Kind::Gauge, "Has no samples.");
        let mut steps = [0; crate::observe::counts::BOUNDS.len() + 1];
        (steps[1], steps[12], steps[17]) = (2, 1, 1);
        text.family("c", Kind::Histogram, "Third.").histogram(&[("z", "1")], &Spread { steps, micros: 12_500_000 });
        text.end()
    }

    #[test]
    fn a_family_is_named_once_and_its_values_are_escaped() {
        let page = page(false);
        assert!(page.starts_with("# HELP a_total First.\n# TYPE a_total counter\na_total 7\n# HELP b Second.\n"));
        assert!(page.contains("# TYPE b counter\nb{x=\"q\\\"\\\\\\n\",y=\"\"} 1.5\n"), "{page}");
        assert!(!page.contains("none"));
    }

    #[test]
    fn numbers_have_no_more_digits_than_they_need() {
        for (number, digits, text) in
            [(0, 3, "0"), (5, 3, "0.005"), (1500, 3, "1.5"), (500, 6, "0.0005"), (2000, 3, "2")]
        {
            assert_eq!(decimal(number, digits), text);
        }
    }

    #[test]
    fn the_buckets_of_a_histogram_add_up() {
        let page = page(false);
        for line in [
            "c_bucket{z=\"1\",le=\"0.0005\"} 0",
            "c_bucket{z=\"1\",le=\"0.001\"} 2",
            "c_bucket{z=\"1\",le=\"1\"} 3",
            "c_bucket{z=\"1\",le=\"10\"} 3",
            "c_bucket{z=\"1\",le=\"+Inf\"} 4",
            "c_sum{z=\"1\"} 12.5",
            "c_count{z=\"1\"} 4",
        ] {
            assert!(page.lines().any(|other| other == line), "{line}\n{page}");
        }
    }

    #[test]
    fn open_metrics_has_counters_of_one_suffix_and_an_end() {
        let page = page(true);
        assert!(page.starts_with("# HELP a First.\n# TYPE a counter\na_total 7\n"), "{page}");
        assert!(page.contains("# TYPE b unknown\n") && page.contains("le=\"1.0\"") && page.ends_with("# EOF\n"));
    }
}
