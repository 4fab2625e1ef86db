//! The line of an agent: what HAProxy's `agent-check` reads, one text for weight, limits and state.

/// What an agent says of its server. What it does not mention stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    pub weight: Option<Weight>,
    /// `maxconn:N`; 0 is no limit.
    pub max_conns: Option<u32>,
    pub admin: Option<Admin>,
    pub operation: Option<Operation>,
}

/// How much of the requests it wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weight {
    /// `75%`: so much of the weight that is written.
    Percent(f64),
    /// `weight:N`.
    Absolute(u32),
}

/// What its operator wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// `ready`: requests as ever.
    Ready,
    /// `drain`: no requests but those that belong to it.
    Drain,
    /// `maint`: none at all.
    Maintenance,
}

/// Whether it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Up,
    /// `down`, `fail` or `stopped`: the word, and the reason behind `#`.
    Down(String),
}

/// Reads a line: words between blanks, tabs or commas; a reason goes on from `#` to the end. Words that mean nothing are
/// passed over; `None` where no word means anything.
pub fn read(line: &[u8]) -> Option<Said> {
    let line = String::from_utf8_lossy(line);
    let (words, reason) = line.split_once('#').map_or((&*line, ""), |(words, reason)| (words, reason.trim()));
    let mut said = Said::default();
    for word in words.split([' ', '\t', ',', '\r', '\n']).filter(|word| !word.is_empty()) {
        let number = |prefix: &str| {
            let head = word.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix))?;
            word[head.len()..].parse::<u32>().ok()
        };
        match &*word.to_ascii_lowercase() {
            "up" => said.operation = Some(Operation::Up),
            down @ ("down" | "fail" | "stopped") => {
                let why = if reason.is_empty() { down.to_owned() } else { format!("{down}: {reason}") };
                said.operation = Some(Operation::Down(why));
            }
            "ready" => said.admin = Some(Admin::Ready),
            "drain" => said.admin = Some(Admin::Drain),
            "maint" => said.admin = Some(Admin::Maintenance),
            percent if percent.ends_with('%') => {
                let percent: Option<f64> = percent.trim_end_matches('%').parse().ok();
                let valid = percent.filter(|percent| percent.is_finite() && *percent >= 0.0);
                said.weight = valid.map(Weight::Percent).or(said.weight);
            }
            _ => {
                said.weight = number("weight:").map(Weight::Absolute).or(said.weight);
                said.max_conns = number("maxconn:").or(said.max_conns);
            }
        }
    }
    (said != Said::default()).then_some(said)
}

impl Weight {
    /// Of a whole weight: `None` is no weight at all, where nobody new may come (HAProxy drains then, too).
    pub fn of(self, whole: u32) -> Option<u32> {
        let weight = match self {
            Self::Percent(percent) => (f64::from(whole) * percent / 100.0).ceil() as u32,
            Self::Absolute(weight) => weight,
        };
        // As much as nginx takes in a `server` line without overflowing sums.
        (weight > 0).then_some(weight.min(1 << 20))
    }

    /// As a load: what is not wanted of all that it could have.
    pub fn load(self) -> Option<f64> {
        match self {
            Self::Percent(percent) => Some(100.0 - percent),
            Self::Absolute(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_weight_limits_and_states() {
        let nothing = Said::default;
        let down = |why: &str| Some(Operation::Down(why.to_owned()));
        for (line, expected) in [
            ("75%", Said { weight: Some(Weight::Percent(75.0)), ..nothing() }),
            ("weight:5,maxconn:30", Said { weight: Some(Weight::Absolute(5)), max_conns: Some(30), ..nothing() }),
            (
                "up ready 100%",
                Said {
                    weight: Some(Weight::Percent(100.0)),
                    admin: Some(Admin::Ready),
                    operation: Some(Operation::Up),
                    ..nothing()
                },
            ),
            ("drain", Said { admin: Some(Admin::Drain), ..nothing() }),
            ("MAINT", Said { admin: Some(Admin::Maintenance), ..nothing() }),
            ("stopped", Said { operation: down("stopped"), ..nothing() }),
            ("down#no database", Said { operation: down("down: no database"), ..nothing() }),
            ("fail # a, b 75%\r", Said { operation: down("fail: a, b 75%"), ..nothing() }),
        ] {
            assert_eq!(read(line.as_bytes()), Some(expected), "{line}");
        }
        for line in ["", "hello", "x%", "weight:", "weight:-1", "maxconn:x", "# up", "-5%"] {
            assert_eq!(read(line.as_bytes()), None, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_and_weigh_something_or_nothing(line in ".{0,40}", whole in 1_u32..) {
            let said = read(line.as_bytes());
            let of = read(format!("{line} 7%").as_bytes()).and_then(|said| said.weight);
            for weight in [said.and_then(|said| said.weight), of].into_iter().flatten() {
                proptest::prop_assert!(weight.of(whole) != Some(0));
            }
        }
    }

    #[test]
    fn a_share_of_a_weight_is_rounded_up_and_nothing_is_no_weight() {
        let percent = |percent, whole| Weight::Percent(percent).of(whole);
        assert_eq!([percent(75.0, 100), percent(1.0, 1), percent(0.0, 7)], [Some(75), Some(1), None]);
        assert_eq!([percent(200.0, 7), percent(33.4, 10)], [Some(14), Some(4)]);
        assert_eq!(Weight::Absolute(0).of(5), None);
        assert_eq!((Weight::Percent(75.0).load(), Weight::Absolute(1).load()), (Some(25.0), None));
    }
}
