//! Lines of the error log, as nginx writes them: `2026/11/21 10:00:00 [error] 1#1: *7 text, client: …`.

pub use crate::process::Level;

use crate::http::{dates, exchange::Exchange, modules::error_log::Conf};
use std::{fmt::Write, time::SystemTime};

/// Writes a line about a request to every target of `conf` that keeps its level.
pub fn request_line(exchange: &Exchange, conf: &Conf, level: Level, message: &str, upstream: Option<&str>) {
    let mut line = start(level);
    let _ = write!(line, "*{} {message}, client: {}", exchange.connection.serial, exchange.remote_ip());
    let _ = write!(line, ", server: {}", String::from_utf8_lossy(&exchange.server.name));
    let _ = write!(line, ", request: \"{}\"", String::from_utf8_lossy(&exchange.head.line));
    if exchange.depth > 0 {
        let _ = write!(line, ", subrequest: \"{}\"", String::from_utf8_lossy(&exchange.path));
    }
    if let Some(upstream) = upstream {
        let _ = write!(line, ", upstream: \"{upstream}\"");
    }
    for (label, field) in [("host", "host"), ("referrer", "referer")] {
        if let Some(value) = exchange.field(field) {
            let _ = write!(line, ", {label}: \"{}\"", String::from_utf8_lossy(value));
        }
    }
    line.push('\n');
    conf.write(&exchange.http, level, line.as_bytes());
}

/// Writes a line about a connection that has no request (yet).
pub fn connection_line(http: &crate::http::Http, conf: &Conf, level: Level, serial: u64, message: &str) {
    if conf.keeps(level) {
        let mut line = start(level);
        let _ = writeln!(line, "*{serial} {message}");
        conf.write(http, level, line.as_bytes());
    }
}

/// Date, level, process and thread.
fn start(level: Level) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let stamp = dates::error_log_time(now, dates::local_offset(now));
    let pid = std::process::id();
    format!("{stamp} [{}] {pid}#{pid}: ", level.name())
}
