//! What lines of the error log say: about a request, a connection, or the server as a whole. How they are written is the
//! process room's.

pub use crate::process::{Level, Line};

use crate::{
    http::{Http, connection::Connection, exchange::Exchange, modules::error_log::Conf},
    upstream::Reason,
};

/// What a line about a request says of an upstream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// `upstream: "…"`
    pub upstream: Option<&'a str>,
    /// Why it failed; in `error_log … json` only.
    pub reason: Option<Reason>,
}

/// Writes a line about a request to every target of `conf` that keeps its level (`ngx_http_log_error`).
pub fn request_line(exchange: &Exchange, conf: &Conf, level: Level, message: &str, asked: Asked<'_>) {
    let mut line = Line::new(level, message.as_bytes());
    line.reason = asked.reason.map(Reason::word);
    line.connection = Some(exchange.connection.serial);
    line.about("client", exchange.remote_ip().as_bytes());
    line.about("server", &exchange.server.name[..]);
    line.quote("request", &exchange.head.line[..]);
    if exchange.depth > 0 {
        line.quote("subrequest", &exchange.path[..]);
    }
    if let Some(upstream) = asked.upstream {
        line.quote("upstream", upstream.as_bytes());
    }
    for (name, field) in [("host", "host"), ("referrer", "referer")] {
        if let Some(value) = exchange.field(field) {
            line.quote(name, value);
        }
    }
    conf.write(&exchange.http, &line);
}

/// Writes a line about a connection that has no request (yet); `server` is the address it came to, where that is said.
pub fn connection_line(
    http: &Http,
    conf: &Conf,
    level: Level,
    connection: &Connection,
    server: Option<&str>,
    message: &str,
) {
    if conf.keeps(level) {
        let mut line = Line::new(level, message.as_bytes());
        line.connection = Some(connection.serial);
        if let Some(server) = server {
            line.about("client", connection.remote_text().as_bytes()).about("server", server.as_bytes());
        }
        conf.write(http, &line);
    }
}

/// Writes a line about nobody's request.
pub fn plain_line(http: &Http, conf: &Conf, level: Level, message: &str) {
    if conf.keeps(level) {
        conf.write(http, &Line::new(level, message.as_bytes()));
    }
}
