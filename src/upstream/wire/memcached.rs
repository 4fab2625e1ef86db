//! The text protocol of memcached, as far as it is asked for a value: `get KEY`, answered by `VALUE KEY FLAGS LENGTH`, the
//! value and `END` (`ngx_http_memcached_process_header`, `…_filter`).

use crate::http::heads::{Fields, HeadError, ResponseHead, response::Progress};
use bytes::Bytes;

/// What stands behind a value.
const END: &[u8] = b"\r\nEND\r\n";

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// As it was sent.
    pub key: Bytes,
    /// A value with this flag is gzipped (`memcached_gzip_flag`); 0 is none.
    pub gzip_flag: usize,
}

impl Asked {
    /// The request.
    pub fn request(&self) -> Bytes {
        [b"get ", &self.key[..], b"\r\n"].concat().into()
    }
}

/// The first line of an answer under way.
#[derive(Debug, Default)]
pub struct MemcachedHead {
    asked: Asked,
    head: ResponseHead,
    missing: bool,
}

impl MemcachedHead {
    pub fn new(asked: Asked) -> Self {
        Self { asked, ..Self::default() }
    }

    /// Reads the first line, which must fit into `size` bytes.
    ///
    /// # Errors
    /// It is none that answers what was asked.
    pub fn parse(&mut self, bytes: &[u8], size: usize) -> Result<Progress, HeadError> {
        let visible = &bytes[..bytes.len().min(size)];
        let Some(newline) = memchr::memchr(b'\n', visible) else {
            return if bytes.len() >= size { Err(HeadError::TooBig) } else { Ok(Progress::Partial) };
        };
        let key = &self.asked.key[..];
        let Some(line) = visible[..newline].strip_suffix(b"\r") else { return Err(invalid(&visible[..newline])) };
        let about = |what: &str| {
            let what = [b"memcached sent invalid ", what.as_bytes()].concat();
            refused(&[&what, b" in response \"", line, b"\" for key \"", key, b"\""])
        };
        let length = newline + 1;
        if let Some(rest) = line.strip_prefix(b"VALUE ") {
            let rest = rest.strip_prefix(key).ok_or_else(|| about("key"))?;
            let rest = rest.strip_prefix(b" ").ok_or_else(|| invalid(line))?;
            let space = memchr::memchr(b' ', rest).ok_or_else(|| invalid(line))?;
            let (flags, size) = (&rest[..space], &rest[space + 1..]);
            let mut fields = Fields::new();
            if self.asked.gzip_flag != 0 {
                let flags = digits(flags).ok_or_else(|| about("flags"))?;
                if flags & self.asked.gzip_flag != 0 {
                    fields.push("Content-Encoding", "gzip");
                }
            }
            let content_length = Some(digits(size).ok_or_else(|| about("length"))? as u64);
            self.head = ResponseHead { fields, status: 200, content_length, length, ..ResponseHead::default() };
        } else if line == b"END" {
            self.missing = true;
            self.head = ResponseHead { status: 404, content_length: Some(0), length, ..ResponseHead::default() };
        } else {
            return Err(invalid(line));
        }
        self.head.version = (1, 0);
        Ok(Progress::Complete(length))
    }

    /// The answer in the terms of HTTP.
    pub fn finish(&mut self) -> ResponseHead {
        std::mem::take(&mut self.head)
    }

    /// The key, if there is no value: told once.
    pub fn missing(&mut self) -> Option<Bytes> {
        std::mem::take(&mut self.missing).then(|| self.asked.key.clone())
    }
}

fn digits(text: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

#[cold]
fn refused(parts: &[&[u8]]) -> HeadError {
    HeadError::Invalid(parts.concat().into())
}

#[cold]
fn invalid(line: &[u8]) -> HeadError {
    refused(&[b"memcached sent invalid response: \"", line, b"\""])
}

/// The end of a value under way.
#[derive(Debug, Default)]
pub struct Trailer {
    seen: usize,
}

impl Trailer {
    /// Looks at what stands behind a value, all of which is used up: whether it is complete; `None` if it is none.
    pub fn read(&mut self, bytes: &[u8]) -> Option<bool> {
        let left = &END[self.seen..];
        if !left.starts_with(bytes) {
            return None;
        }
        self.seen += bytes.len();
        Some(self.seen == END.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status, the length, and `gzip`; or what is wrong with it.
    fn read(line: &str, gzip_flag: usize) -> String {
        let mut head = MemcachedHead::new(Asked { key: "/key".into(), gzip_flag });
        for end in 1..=line.len() {
            match head.parse(&line.as_bytes()[..end], 64) {
                Ok(Progress::Partial) => {}
                Ok(Progress::Complete(n)) => {
                    assert_eq!(n, end);
                    let head = head.finish();
                    let gzip = head.fields.get("content-encoding").map_or("", |_| " gzip");
                    return format!("{} {}{gzip}", head.status, head.content_length.unwrap());
                }
                Err(error) => return error.to_string(),
            }
        }
        "more".into()
    }

    #[test]
    fn a_first_line_answers_for_the_key_or_is_refused() {
        let wrong =
            |what: &str, line: &str| format!("memcached sent invalid {what} in response \"{line}\" for key \"/key\"");
        let invalid = |line: &str| format!("memcached sent invalid response: \"{line}\"");
        let cases = [
            ("VALUE /key 0 8\r\n", "200 8".to_owned()),
            ("VALUE /key 2 8\r\n", "200 8 gzip".into()),
            ("VALUE /key 3 0\r\n", "200 0 gzip".into()),
            ("VALUE /key 4 8\r\n", "200 8".into()),
            ("END\r\n", "404 0".into()),
            ("VALUE /k 0 8\r\n", wrong("key", "VALUE /k 0 8")),
            ("VALUE /key x 8\r\n", wrong("flags", "VALUE /key x 8")),
            ("VALUE /key 0 8x\r\n", wrong("length", "VALUE /key 0 8x")),
            ("VALUE /key 0 \r\n", wrong("length", "VALUE /key 0 ")),
            ("VALUE /keys 0 8\r\n", invalid("VALUE /keys 0 8")),
            ("VALUE /key 0\r\n", invalid("VALUE /key 0")),
            ("ERROR\r\n", invalid("ERROR")),
            ("END\n", invalid("END")),
            ("\n", invalid("")),
            ("VALUE /key", "more".into()),
            (&*"x".repeat(64), "upstream sent too big header".into()),
        ];
        for (line, expected) in cases {
            assert_eq!(read(line, 2), expected, "{line:?}");
        }
        assert_eq!(read("VALUE /key x 8\r\n", 0), "200 8");
    }

    #[test]
    fn a_value_ends_as_it_should_or_not() {
        for cut in 0..=END.len() {
            let mut trailer = Trailer::default();
            assert_eq!(trailer.read(&END[..cut]), Some(cut == END.len()));
            assert_eq!(trailer.read(&END[cut..]), Some(true));
        }
        assert_eq!(Trailer::default().read(b"\r\nEND\r\nx"), None);
        assert_eq!(Trailer::default().read(b"END"), None);
    }
}
