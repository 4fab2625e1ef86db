//! Texts with variables in them, as a page writes them: `$name`, `${name}`, and backslashes.

use super::Common;
use crate::http::{
    exchange::Exchange,
    variables::{builtin, family},
};
use bytes::Bytes;
use std::borrow::Cow;

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'t> {
    /// Without backslashes before what they stand before.
    Literal(Vec<u8>),
    Variable(&'t [u8]),
}

/// Why a text cannot be put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The page is wrong, which is what is logged.
    Page(String),
    /// A variable cannot be had.
    Variable,
}

/// Takes a text apart (`ngx_http_ssi_evaluate_string`).
///
/// # Errors
/// nginx's words about a `$` without a name and a `{` without its `}`.
pub fn split(text: &[u8]) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(&first) = rest.first() {
        if first != b'$' {
            let (literal, length) = literal(rest);
            parts.push(Part::Literal(literal));
            rest = &rest[length..];
            continue;
        }
        let braced = rest.get(1) == Some(&b'{');
        rest = &rest[1 + usize::from(braced)..];
        if rest.is_empty() {
            return Err(invalid(text));
        }
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let name = &rest[..length];
        rest = &rest[length..];
        if braced {
            let Some(behind) = rest.strip_prefix(b"}") else {
                let name = String::from_utf8_lossy(name);
                return Err(format!("the closing bracket in \"{name}\" variable is missing"));
            };
            rest = behind;
        }
        if name.is_empty() {
            return Err(invalid(text));
        }
        parts.push(Part::Variable(name));
    }
    Ok(parts)
}

fn invalid(text: &[u8]) -> String {
    format!("invalid variable name in \"{}\"", String::from_utf8_lossy(text))
}

/// What stands before the next `$`, and how long it was.
fn literal(text: &[u8]) -> (Vec<u8>, usize) {
    let mut out = Vec::with_capacity(text.len());
    let mut quoted = false;
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'\\' if !quoted => {
                quoted = true;
                continue;
            }
            b'$' if !quoted => return (out, at),
            b'\\' | b'\'' | b'"' | b'$' => {}
            _ if quoted => out.push(b'\\'),
            _ => {}
        }
        quoted = false;
        out.push(byte);
    }
    (out, text.len())
}

/// The value of a text.
///
/// # Errors
/// [`Fault`] says whose fault it is.
pub(super) fn evaluate(exchange: &Exchange, text: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::new();
    for part in split(text).map_err(Fault::Page)? {
        match part {
            Part::Literal(literal) => out.extend_from_slice(&literal),
            Part::Variable(name) => {
                if let Some(value) = variable(exchange, name)? {
                    out.extend_from_slice(&value);
                }
            }
        }
    }
    Ok(out)
}

/// A variable of the page, else of the server; `None` if it has no value (`ngx_http_ssi_get_variable`,
/// `ngx_http_get_variable`).
///
/// # Errors
/// It cannot be had, unlike one that is not there.
pub(super) fn variable(exchange: &Exchange, name: &[u8]) -> Result<Option<Bytes>, Fault> {
    let name = lower(name);
    if let Some(value) = exchange.state.ssi.common().borrow().get(&name) {
        return Ok(Some(value));
    }
    let mut out = Vec::new();
    let found = match exchange.http.variable_names.get(&*name) {
        Some(handle) => exchange.variable(*handle, &mut out),
        None => match (builtin(&name), family(&name)) {
            (Some(variable), _) => (variable.get)(exchange, &mut out),
            (None, Some((family, rest))) => (family.get)(exchange, rest, &mut out),
            (None, None) => false,
        },
    };
    match found {
        true => Ok(Some(out.into())),
        // A date that cannot be written as `timefmt` says.
        false if matches!(&*name, b"date_local" | b"date_gmt") => Err(Fault::Variable),
        false => Ok(None),
    }
}

/// A name as it is looked up.
pub(super) fn lower(name: &[u8]) -> Cow<'_, [u8]> {
    match name.iter().any(u8::is_ascii_uppercase) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}

impl Common {
    /// A variable that a page has set, or a group of its last expression.
    pub(super) fn get(&self, name: &[u8]) -> Option<Bytes> {
        if let Some(group) = self.group(name) {
            return Some(group);
        }
        let set = self.variables.iter().find(|(known, _)| **known == *name);
        set.map(|(_, value)| value.clone())
    }

    /// `$0` to `$9`, if the last expression that matched has such a group.
    fn group(&self, name: &[u8]) -> Option<Bytes> {
        let [digit @ b'0'..=b'9'] = name else { return None };
        self.groups.get(usize::from(digit - b'0')).cloned()
    }

    /// Gives a variable a value. Groups keep theirs.
    pub(super) fn set(&mut self, name: &[u8], value: Bytes) {
        if self.group(name).is_some() {
            return;
        }
        match self.variables.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, known)) => *known = value,
            None => self.variables.push((name.into(), value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_variables_and_backslashes() {
        let written = |parts: Vec<Part<'_>>| -> String {
            let part = |part: &Part<'_>| match part {
                Part::Literal(text) => String::from_utf8_lossy(text).into_owned(),
                Part::Variable(name) => format!("<{}>", String::from_utf8_lossy(name)),
            };
            parts.iter().map(part).collect()
        };
        for (text, parts) in [
            ("", ""),
            ("text", "text"),
            ("$a", "<a>"),
            ("/${a}b/$c_1.html", "/<a>b/<c_1>.html"),
            (r#"\$a \"b\" \'c\' \\ \d"#, r#"$a "b" 'c' \ \d"#),
            ("a\\", "a"),
        ] {
            assert_eq!(split(text.as_bytes()).map(written).unwrap(), parts, "{text}");
        }
        for (text, fault) in [
            ("a$", "invalid variable name in \"a$\""),
            ("$-", "invalid variable name in \"$-\""),
            ("${", "invalid variable name in \"${\""),
            ("${}", "invalid variable name in \"${}\""),
            ("${ab", "the closing bracket in \"ab\" variable is missing"),
            ("${ab-}", "the closing bracket in \"ab\" variable is missing"),
        ] {
            assert_eq!(split(text.as_bytes()), Err(fault.to_owned()), "{text}");
        }
    }
}
