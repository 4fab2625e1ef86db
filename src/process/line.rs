//! One line of the error log: what it is made of, and the ways to write it down.

use super::{log::Level, sys};
use std::{
    borrow::Cow,
    io::Write,
    time::{SystemTime, UNIX_EPOCH},
};

/// The longest line in nginx's own form, with its end (`NGX_MAX_ERROR_STR`).
const LONGEST: usize = 2048;

/// A line, before anybody decides in which form to write it.
#[derive(Clone, Debug)]
pub struct Line<'l> {
    pub level: Level,
    /// The number of the connection that it is about: `*7`.
    pub connection: Option<u64>,
    pub message: Cow<'l, [u8]>,
    /// What else is known, in order.
    pub about: Vec<About<'l>>,
    /// Why it failed, in one word. nginx's own form has no place for it.
    pub reason: Option<&'static str>,
}

/// Something that is said behind the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About<'l> {
    pub name: &'static str,
    pub value: Cow<'l, [u8]>,
    /// Between quotes, in nginx's own form.
    pub quoted: bool,
}

impl<'l> Line<'l> {
    /// A line about nothing but what it says.
    pub fn new(level: Level, message: impl Into<Cow<'l, [u8]>>) -> Self {
        Self { level, connection: None, message: message.into(), about: Vec::new(), reason: None }
    }

    /// Adds what is known.
    pub fn about(&mut self, name: &'static str, value: impl Into<Cow<'l, [u8]>>) -> &mut Self {
        self.about.push(About { name, value: value.into(), quoted: false });
        self
    }

    /// Adds what is known, to stand between quotes.
    pub fn quote(&mut self, name: &'static str, value: impl Into<Cow<'l, [u8]>>) -> &mut Self {
        self.about.push(About { name, value: value.into(), quoted: true });
        self
    }

    /// The form of nginx: `2026/11/21 10:00:00 [error] 1#1: *7 text, client: …` and the end of the line.
    pub fn text(&self) -> Vec<u8> {
        let now = sys::local_time(SystemTime::now());
        let mut line = Vec::with_capacity(256);
        let (pid, thread) = (std::process::id(), sys::thread_id());
        // Writing into memory does not fail.
        let _ = write!(
            line,
            "{:04}/{:02}/{:02} {:02}:{:02}:{:02} [{}] {pid}#{thread}: ",
            now.year,
            now.month,
            now.day,
            now.hour,
            now.minute,
            now.second,
            self.level.name(),
        );
        if let Some(connection) = self.connection {
            let _ = write!(line, "*{connection} ");
        }
        line.extend_from_slice(&self.message);
        for About { name, value, quoted } in &self.about {
            let quote: &[u8] = if *quoted { b"\"" } else { b"" };
            for piece in [&b", "[..], name.as_bytes(), b": ", quote, value, quote] {
                line.extend_from_slice(piece);
            }
        }
        line.truncate(LONGEST - 1);
        line.push(b'\n');
        line
    }

    /// The form of `error_log … json`: one object, and the end of the line.
    pub fn json(&self) -> Vec<u8> {
        let wall = SystemTime::now();
        let now = sys::local_time(wall);
        let millis = wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_millis());
        let (sign, offset) = (if now.offset < 0 { '-' } else { '+' }, now.offset.unsigned_abs() / 60);
        let mut line = Vec::with_capacity(384);
        let _ = write!(
            line,
            "{{\"time\":\"{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{millis:03}{sign}{:02}:{:02}\",\
             \"level\":\"{}\",\"pid\":{},\"tid\":{}",
            now.year,
            now.month,
            now.day,
            now.hour,
            now.minute,
            now.second,
            offset / 60,
            offset % 60,
            self.level.name(),
            std::process::id(),
            sys::thread_id(),
        );
        if let Some(connection) = self.connection {
            let _ = write!(line, ",\"connection\":{connection}");
        }
        field(&mut line, "message", &self.message);
        for About { name, value, .. } in &self.about {
            field(&mut line, name, value);
        }
        if let Some(reason) = self.reason {
            field(&mut line, "reason", reason.as_bytes());
        }
        line.extend_from_slice(b"}\n");
        line
    }
}

/// Appends a member of an object. What is not UTF-8 is replaced: JSON has no room for it.
fn field(line: &mut Vec<u8>, name: &str, value: &[u8]) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
    // Neither memory nor a text can refuse.
    let _ = serde_json::to_writer(line, &String::from_utf8_lossy(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> Line<'_> {
        let mut line = Line::new(Level::Err, message.as_bytes());
        line.connection = Some(7);
        line.about("client", &b"127.0.0.1"[..]).quote("request", &b"GET /\"\xff HTTP/1.1"[..]);
        line
    }

    #[test]
    fn a_line_is_dated_and_names_process_thread_and_connection() {
        let text = line("open() failed").text();
        let pid = std::process::id();
        assert_eq!((text[4], text[13]), (b'/', b':'));
        let text = String::from_utf8_lossy(&text[19..]).into_owned();
        assert!(text.starts_with(&format!(" [error] {pid}#")), "{text}");
        let rest = ": *7 open() failed, client: 127.0.0.1, request: \"GET /\"\u{fffd} HTTP/1.1\"\n";
        assert!(text.ends_with(rest), "{text}");
        let bare = String::from_utf8(Line::new(Level::Notice, &b"exit"[..]).text()).unwrap();
        assert!(bare.ends_with(": exit\n") && !bare.contains('*'));
    }

    #[test]
    fn a_line_is_cut_where_nginx_cuts_it() {
        let text = line(&"x".repeat(3000)).text();
        assert_eq!((text.len(), text.last()), (2048, Some(&b'\n')));
    }

    #[test]
    fn the_same_is_an_object_of_json() {
        let line = line("\"quoted\"\n").json();
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["message"], "\"quoted\"\n");
        assert_eq!(value["connection"], 7);
        assert_eq!(value["level"], "error");
        assert_eq!(value["request"], "GET /\"\u{fffd} HTTP/1.1");
        assert_eq!(value["pid"], std::process::id());
        assert!(value["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{value}");
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
