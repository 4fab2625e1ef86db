//! `log_format`: what a line of an access log is made of.

use crate::{
    config::{Args, FromArgs, Handle, Kind, Scope},
    http::exchange::Exchange,
    syntax::{Fault, Span, Word},
};
use bytes::Bytes;
use std::{ops::RangeInclusive, sync::Arc};

/// The name of the format that needs no `log_format`.
pub(super) const COMBINED_NAME: &[u8] = b"combined";

const COMBINED: &[u8] = b"$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
                          \"$http_referer\" \"$http_user_agent\"";

/// A compiled `log_format`.
#[derive(Debug, Default)]
pub struct Format {
    escape: Escape,
    parts: Vec<Part>,
}

impl Format {
    /// Appends the line of a request, without its end.
    pub fn append(&self, exchange: &Exchange, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Variable(handle) => {
                    let start = out.len();
                    let found = exchange.variable(*handle, out);
                    self.escape.finish(found, start, out);
                }
            }
        }
    }

    /// Compiles one word of a `log_format` (`ngx_http_log_compile_format`). Unlike in other texts, `$1` is a
    /// variable like any other: no expression belongs to a log.
    fn compile(&mut self, word: &Word, scope: &Scope<'_>) -> Result<(), Fault> {
        let mut rest = &word.value[..];
        while let Some(&first) = rest.first() {
            if first != b'$' {
                let end = memchr::memchr(b'$', rest).unwrap_or(rest.len());
                self.parts.push(Part::Text(Bytes::copy_from_slice(&rest[..end])));
                rest = &rest[end..];
                continue;
            }
            let braced = rest.get(1) == Some(&b'{');
            let text = &rest[1 + usize::from(braced)..];
            let length = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
            let (name, behind) = text.split_at(length);
            if braced && !text.is_empty() && behind.first() != Some(&b'}') {
                let text = [b"the closing bracket in \"", name, b"\" variable is missing"].concat();
                return Err(Fault::at(word.span, text));
            }
            if name.is_empty() {
                return Err(Fault::at(word.span, [b"invalid parameter \"", rest, b"\""].concat()));
            }
            self.parts.push(Part::Variable(scope.refer(Kind::Variable, name, word.span)));
            rest = &behind[usize::from(braced)..];
        }
        Ok(())
    }
}

/// A format and its name.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    pub(super) name: Vec<u8>,
    pub(super) format: Arc<Format>,
}

impl FromArgs for Definition {
    const TAKES: RangeInclusive<usize> = 2..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let name = args.word(0);
        let (_, earlier) = args.scope.define(Kind::LogFormat, &name.value, name.span);
        if earlier.is_some() || name.value == COMBINED_NAME {
            let text = [b"duplicate \"log_format\" name \"", &name.value[..], b"\""].concat();
            let fault = Fault::at(name.span, text);
            return Err(match earlier {
                Some(span) => fault.also(span, "first defined here"),
                None => fault.help("nginx predefines `combined`"),
            });
        }
        let mut format = Format::default();
        let mut parts = &args.words()[1..];
        if let Some((word, behind)) = parts.split_first()
            && let Some(escape) = word.value.strip_prefix(b"escape=")
        {
            format.escape = match escape {
                b"default" => Escape::Default,
                b"json" => Escape::Json,
                b"none" => Escape::None,
                _ => {
                    let text = [b"unknown log format escaping \"", escape, b"\""].concat();
                    return Err(Fault::at(word.span, text).help("it must be one of `default`, `json`, `none`"));
                }
            };
            parts = behind;
        }
        parts.iter().try_for_each(|word| format.compile(word, args.scope))?;
        Ok(Self { name: name.value.clone(), format: Arc::new(format) })
    }
}

/// The predefined format.
pub(super) fn combined(scope: &Scope<'_>) -> Definition {
    let mut format = Format::default();
    let word = Word { value: COMBINED.to_vec(), span: Span::default() };
    // It is written above, and it is well formed.
    let compiled = format.compile(&word, scope);
    debug_assert!(compiled.is_ok());
    Definition { name: COMBINED_NAME.to_vec(), format: Arc::new(format) }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Bytes),
    Variable(Handle),
}

/// `escape=`: what is done to a variable's value so that nobody can forge a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    Default,
    Json,
    None,
}

impl Escape {
    /// Makes what was appended from `start` on fit for the line.
    fn finish(self, found: bool, start: usize, out: &mut Vec<u8>) {
        if !found {
            out.truncate(start);
            if self == Self::Default {
                out.push(b'-');
            }
            return;
        }
        let special = match self {
            Self::None => return,
            Self::Default => default_special,
            Self::Json => json_special,
        };
        // Without an early exit this takes many bytes at once, and almost every value is harmless.
        if !out[start..].iter().fold(false, |any, byte| any | special(*byte)) {
            return;
        }
        for byte in out.split_off(start) {
            match self {
                _ if !special(byte) => out.push(byte),
                Self::Json => json(byte, out),
                _ => out.extend_from_slice(&[b'\\', b'x', hex(byte >> 4), hex(byte & 15)]),
            }
        }
    }
}

/// `ngx_http_log_escape`.
fn default_special(byte: u8) -> bool {
    !matches!(byte, 0x20..=0x7e) || byte == b'"' || byte == b'\\'
}

/// `ngx_escape_json`.
fn json_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Appends a text as it stands between the quotes of JSON.
pub fn escape_json(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if json_special(*byte) { json(*byte, out) } else { out.push(*byte) }
    }
}

fn json(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        8 => b'b',
        12 => b'f',
        _ => return out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]),
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn hex(digit: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(digit & 15)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::http_fault;

    #[test]
    fn values_cannot_break_out_of_their_line() {
        let value = b"a\"b\\c\n\r\t\x08\x0c\x01\x1f~\x7f\xc3\xa9";
        let escaped = |escape: Escape, found| {
            let mut out = b"before\"".to_vec();
            out.extend_from_slice(value);
            escape.finish(found, 7, &mut out);
            String::from_utf8_lossy(&out[7..]).into_owned()
        };
        let default = r"a\x22b\x5Cc\x0A\x0D\x09\x08\x0C\x01\x1F~\x7F\xC3\xA9";
        assert_eq!(escaped(Escape::Default, true), default);
        assert_eq!(escaped(Escape::Json, true), "a\\\"b\\\\c\\n\\r\\t\\b\\f\\u0001\\u001F~\x7fé");
        assert_eq!(escaped(Escape::None, true).as_bytes(), value);
        assert_eq!(escaped(Escape::Default, false), "-");
        assert_eq!(escaped(Escape::Json, false), "");
        assert_eq!(escaped(Escape::None, false), "");
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        for (text, message) in [
            ("log_format a x; log_format a y;", "duplicate \"log_format\" name \"a\""),
            ("log_format combined x;", "duplicate \"log_format\" name \"combined\""),
            ("log_format a escape=xml x;", "unknown log format escaping \"xml\""),
            ("log_format a 'x $ y';", "invalid parameter \"$ y\""),
            ("log_format a 'x ${';", "invalid parameter \"${\""),
            ("log_format a 'x $';", "invalid parameter \"$\""),
            ("log_format a 'x ${status y';", "the closing bracket in \"status\" variable is missing"),
            ("log_format a '$nothing_at_all';", "unknown \"nothing_at_all\" variable"),
        ] {
            assert_eq!(http_fault(text), message, "{text}");
        }
    }
}
