//! The number in what a peer reports: a member of JSON, a plain number, or a field of an answer.

use serde_json::Value;

/// Which member of a JSON text says it: `load`, `cpu.total`, `nodes.0.load`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member(Vec<String>);

impl Default for Member {
    fn default() -> Self {
        Self(vec!["load".to_owned()])
    }
}

impl Member {
    /// A path with dots; `None` if one of its names is empty.
    pub fn parse(text: &str) -> Option<Self> {
        let names: Vec<_> = text.split('.').map(str::to_owned).collect();
        (!names.iter().any(String::is_empty)).then_some(Self(names))
    }

    fn of<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(value, |value, name| match value {
            Value::Object(members) => members.get(name),
            Value::Array(items) => name.parse().ok().and_then(|at: usize| items.get(at)),
            _ => None,
        })
    }
}

/// What a body reports: a member of its JSON, or the number it begins with.
pub fn in_body(body: &[u8], member: &Member) -> Option<f64> {
    match serde_json::from_slice(body) {
        Ok(json @ (Value::Object(_) | Value::Array(_))) => value(member.of(&json)?),
        Ok(plain) => value(&plain),
        Err(_) => number(&String::from_utf8_lossy(body)),
    }
}

/// What a field reports: a number, or an ORCA report as text (`cpu_utilization=0.3, …`, perhaps behind `TEXT`) or as
/// `JSON {…}`. Of that, what the application says of itself comes before its processor.
pub fn in_field(field: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(field).ok()?.trim();
    let named = |name: &str| match text.strip_prefix("JSON ").or(text.starts_with('{').then_some(text)) {
        Some(json) => value(serde_json::from_str::<Value>(json).ok()?.get(name)?),
        None => {
            let pairs = text.strip_prefix("TEXT ").unwrap_or(text).split(',');
            let mut pairs = pairs.filter_map(|pair| pair.split_once(['=', ':']));
            pairs.find(|(known, _)| known.trim() == name).and_then(|(_, value)| number(value))
        }
    };
    let application = named("application_utilization").filter(|load| *load > 0.0);
    number(text).or(application).or_else(|| named("cpu_utilization"))
}

fn value(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => number(text),
        _ => None,
    }
}

/// The number a text begins with, as `parseFloat` of ECMAScript finds it: what comes behind it, such as a `%`, does not
/// matter. What is infinite is no number here.
fn number(text: &str) -> Option<f64> {
    let text = text.trim_start();
    let bytes = text.as_bytes();
    let digits = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    };
    let begin = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let mut end = digits(begin);
    let mut count = end - begin;
    if bytes.get(end) == Some(&b'.') {
        let point = end + 1;
        end = digits(point);
        count += end - point;
    }
    if count == 0 {
        return None;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let first = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let last = digits(first);
        if last > first {
            end = last;
        }
    }
    text[..end].parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_what_a_text_begins_with() {
        for (text, expected) in [
            ("97.53", Some(97.53)),
            (" 97.53%\n", Some(97.53)),
            ("-1", Some(-1.0)),
            ("+.5x", Some(0.5)),
            ("5.", Some(5.0)),
            ("1e2e3", Some(100.0)),
            ("1e", Some(1.0)),
            ("2e+", Some(2.0)),
            ("1.2.3", Some(1.2)),
            ("1e999", None),
            (".", None),
            ("", None),
            ("%", None),
            ("load 5", None),
            ("NaN", None),
            ("Infinity", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }

    #[test]
    fn a_body_is_a_number_or_json_with_a_member() {
        let body = br#"{"status":true,"up":"10.0.0.1","load":"97.53","cpu":{"cores":[1,{"busy":0.25}]},"none":null}"#;
        for (path, expected) in [
            ("load", Some(97.53)),
            ("cpu.cores.0", Some(1.0)),
            ("cpu.cores.1.busy", Some(0.25)),
            ("cpu.cores.2", None),
            ("cpu", None),
            ("none", None),
            ("status", None),
            ("missing", None),
        ] {
            assert_eq!(in_body(body, &Member::parse(path).unwrap()), expected, "{path}");
        }
        let plain = |body: &str| in_body(body.as_bytes(), &Member::default());
        let loads = ["42\r\n", "97.5%", "\"7%\"", "{\"load\":3}", "[3]", "{\"load\":", "", "busy"].map(plain);
        assert_eq!(loads, [Some(42.0), Some(97.5), Some(7.0), Some(3.0), None, None, None, None]);
        assert_eq!([Member::parse(""), Member::parse("a..b"), Member::parse("a.")], [None, None, None]);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_read_is_a_number(text in "[ +\\-.0-9eE%a-c=,{}\":é]{0,24}") {
            let all = [in_body(text.as_bytes(), &Member::default()), in_field(text.as_bytes()), number(&text)];
            proptest::prop_assert!(all.into_iter().flatten().all(f64::is_finite));
        }
    }

    #[test]
    fn a_field_is_a_number_or_an_orca_report() {
        for (field, expected) in [
            ("0.3", Some(0.3)),
            (" 30% ", Some(30.0)),
            ("cpu_utilization=0.3", Some(0.3)),
            ("TEXT mem_utilization=0.8,cpu_utilization=0.3", Some(0.3)),
            ("cpu_utilization:0.3, application_utilization:0.6", Some(0.6)),
            ("application_utilization=0, cpu_utilization=0.4", Some(0.4)),
            ("JSON {\"cpu_utilization\": 0.3}", Some(0.3)),
            ("{\"application_utilization\": 0.7, \"cpu_utilization\": 0.3}", Some(0.7)),
            ("BIN AAAA", None),
            ("mem_utilization=0.8", None),
            ("", None),
        ] {
            assert_eq!(in_field(field.as_bytes()), expected, "{field}");
        }
    }
}
