//! Values as JSON, whose members stay in the order they were put in.

use std::borrow::Cow;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(i64),
    Real(f64),
    Text(Cow<'static, str>),
    List(Vec<Self>),
    Object(Members),
}

/// The members of an object, in order.
pub type Members = Vec<(Cow<'static, str>, Json)>;

/// An object of these members, in this order.
pub fn object<const N: usize>(members: [(&'static str, Json); N]) -> Json {
    Json::Object(members.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

impl Json {
    /// The value as it is sent.
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(value) => out.push_str(&value.to_string()),
            Self::Real(value) if value.is_finite() => out.push_str(&value.to_string()),
            // JSON has no word for it.
            Self::Real(_) => out.push_str("null"),
            Self::Text(value) => quote(value, out),
            Self::List(values) => {
                out.push('[');
                for (at, value) in values.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    value.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    quote(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// Leaves the members of an object that are asked for; everything else stays as it is.
    #[must_use]
    pub fn only(self, fields: Option<&[String]>) -> Self {
        match (self, fields) {
            (Self::Object(members), Some(fields)) => {
                let wanted = |(name, _): &(Cow<'static, str>, Self)| fields.iter().any(|field| field == name);
                Self::Object(members.into_iter().filter(wanted).collect())
            }
            (other, _) => other,
        }
    }

    /// The same for each value of a list or an object of objects.
    #[must_use]
    pub fn each_only(self, fields: Option<&[String]>) -> Self {
        match self {
            Self::Object(members) => {
                Self::Object(members.into_iter().map(|(name, value)| (name, value.only(fields))).collect())
            }
            Self::List(values) => Self::List(values.into_iter().map(|value| value.only(fields)).collect()),
            other => other,
        }
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
}

impl From<bool> for Json {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Json {
    fn from(value: u64) -> Self {
        Self::Number(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<i64> for Json {
    fn from(value: i64) -> Self {
        Self::Number(value)
    }
}

impl From<u32> for Json {
    fn from(value: u32) -> Self {
        Self::Number(value.into())
    }
}

impl From<&'static str> for Json {
    fn from(value: &'static str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Json {
    fn from(value: String) -> Self {
        Self::Text(value.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_written_in_its_order_and_is_json() {
        let value = object([
            ("z", 1u64.into()),
            ("a", Json::List(vec![true.into(), Json::Null, Json::Real(0.5), Json::Real(f64::NAN)])),
            ("text", "q\"u\\o\n\u{1}ä".into()),
        ]);
        let text = value.text();
        assert_eq!(text, "{\"z\":1,\"a\":[true,null,0.5,null],\"text\":\"q\\\"u\\\\o\\n\\u0001ä\"}");
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["text"], "q\"u\\o\n\u{1}ä");
    }

    #[test]
    fn only_the_members_that_are_asked_for_are_left() {
        let one = || object([("a", 1u64.into()), ("b", 2u64.into())]);
        let fields = ["b".to_owned(), "c".to_owned()];
        assert_eq!(one().only(Some(&fields)).text(), "{\"b\":2}");
        assert_eq!(object([("x", one())]).each_only(Some(&[])).text(), "{\"x\":{}}");
        assert_eq!(one().only(None), one());
    }
}
