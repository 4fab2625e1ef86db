//! Malformed requests: the statuses nginx answers, and that nothing reaches a backend which nginx would refuse.
//!
//! The table holds what nginx 1.31 does, the version we follow. Debian's nginx runs beside us as a check of the table
//! itself: it must answer as its row says.

mod bodies;
mod headers;
mod lines;

use super::backend::{Backend, Speech, Step};
use super::cases::{expand, unescape};
use super::compare::shown;
use super::support::{oracle, shows, whole_file, workdir};
use super::wire::{Exchange, converse};
use crate::support::ports::free_port;
use crate::support::{binary, server};
use std::fs;
use std::path::Path;

/// One malformed request.
pub(super) struct Row {
    name: &'static str,
    /// With `\xNN`, `%%FILL:N%%` and so on as in [`super::cases`]; `%%PAUSE%%` is a pause of 120 ms, `%%GET%%` and
    /// `%%POST%%` are plain request lines, `%%HEAD%%` is `Host: localhost` and `Connection: close`.
    send: &'static str,
    half_close: bool,
    /// The statuses of all answers until the connection is closed.
    statuses: &'static [u16],
    /// The same for Debian's nginx.
    older: &'static [u16],
}

impl Row {
    /// The same row where Debian's older nginx answers otherwise.
    pub(super) const fn older(mut self, statuses: &'static [u16]) -> Self {
        self.older = statuses;
        self
    }
}

/// A request, and what both versions of nginx answer.
pub(super) const fn row(name: &'static str, send: &'static str, statuses: &'static [u16]) -> Row {
    Row { name, send, half_close: false, statuses, older: statuses }
}

/// The same with a client that ends its direction after sending.
pub(super) const fn half_closed(name: &'static str, send: &'static str, statuses: &'static [u16]) -> Row {
    Row { name, send, half_close: true, statuses, older: statuses }
}

/// What one binary made of a row.
struct Outcome {
    statuses: Vec<u16>,
    /// The requests a backend saw, in words that do not depend on the order of headers.
    forwarded: Vec<String>,
}

const CONF: &str = r#"
proxy_http_version 1.1;
proxy_set_header Connection "";
keepalive_timeout 300ms;
client_header_timeout 600ms;
client_body_timeout 600ms;
server {
    listen 127.0.0.1:%%PORT%%;
    server_name localhost;
    location / { proxy_pass http://%%BACKEND%%; }
    location = /file { alias %%DIR%%/www/a.txt; }
    location = /slow { proxy_pass http://%%SLOW%%; }
}
"#;

fn run(program: &Path, rows: &[&Row]) -> Vec<Outcome> {
    let dir = workdir();
    let port = free_port();
    let backend = Backend::tcp("backend", Speech::Http);
    let slow = Backend::tcp("slow", Speech::Http);
    let late = Step::Send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec());
    slow.script(Some(vec![Step::Pause, Step::Pause, late]));
    let conf = CONF
        .replace("%%PORT%%", &port.to_string())
        .replace("%%BACKEND%%", &backend.address())
        .replace("%%SLOW%%", &slow.address())
        .replace("%%DIR%%", &dir.path().display().to_string());
    fs::write(dir.path().join("nginx.conf"), whole_file(&conf, dir.path())).expect("write");
    let mut server = server::start(program, dir.path(), port);
    let outcomes = rows
        .iter()
        .map(|row| {
            let send = row
                .send
                .replace("%%GET%%", "GET / HTTP/1.1\r\n")
                .replace("%%POST%%", "POST / HTTP/1.1\r\n")
                .replace("%%HEAD%%", "Host: localhost\r\nConnection: close\r\n");
            let pieces = send.split("%%PAUSE%%").map(|piece| unescape(&expand(piece))).collect();
            let conversation = converse(port, &Exchange { pieces, responses: 5, half_close: row.half_close });
            let status = |response: &super::wire::Response| match response.status() {
                0 => 9,
                status => status,
            };
            Outcome {
                statuses: conversation.responses.iter().map(status).collect(),
                forwarded: backend.take_seen().iter().map(|request| in_words(request)).collect(),
            }
        })
        .collect();
    server.finish();
    outcomes
}

/// A forwarded request with its headers in a fixed order and case, and without the backend's changing port.
fn in_words(request: &[u8]) -> String {
    let text = request.escape_ascii().to_string();
    let (head, body) = text.split_once("\\r\\n\\r\\n").unwrap_or((&text, "(no end of headers)"));
    let mut lines = head.split("\\r\\n");
    let first = lines.next().unwrap_or_default();
    let mut headers: Vec<String> = lines
        .map(|line| line.split_once(':').unwrap_or((line, "")))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .map(|(name, value)| if name == "host" { "host: (backend)".to_owned() } else { format!("{name}:{value}") })
        .collect();
    headers.sort();
    format!("{first} | {} | {body}", headers.join(" | "))
}

#[test]
fn malformed_requests_get_nginx_statuses_and_go_no_further() {
    let rows: Vec<&Row> = [bodies::TABLE, lines::TABLE, headers::TABLE].into_iter().flatten().collect();
    let theirs = oracle().map(|nginx| run(&nginx, &rows));
    let same_program = oracle() == Some(binary());
    let mine = run(&binary(), &rows);
    let mut told = Vec::new();
    for (index, (row, mine)) in rows.iter().zip(&mine).enumerate() {
        let expected = if same_program { row.older } else { row.statuses };
        if shows() {
            eprintln!("ROW {} => {:?} {}", row.name, mine.statuses, mine.forwarded.len());
        }
        if mine.statuses != expected {
            told.push(format!("{}: expected {expected:?}, ours {:?}", row.name, mine.statuses));
        }
        let served = expected.iter().filter(|status| **status < 400).count();
        if mine.forwarded.len() > served {
            told.push(format!("{}: refused, but forwarded: {}", row.name, shown(mine.forwarded.join("\n").as_bytes())));
        }
        let Some(nginx) = theirs.as_ref().map(|theirs| &theirs[index]) else { continue };
        if nginx.statuses != row.older {
            told.push(format!("{}: the table is wrong: Debian's nginx says {:?}", row.name, nginx.statuses));
        }
        if row.statuses == row.older && nginx.forwarded != mine.forwarded {
            let side = |outcome: &Outcome| shown(outcome.forwarded.join("\n").as_bytes());
            told.push(format!("{}: forwarded\n    {}\n <> {}", row.name, side(nginx), side(mine)));
        }
    }
    eprintln!("malformed: {} rows, {} complaints", rows.len(), told.len());
    assert!(told.is_empty(), "{} complaints about {} rows:\n{}", told.len(), rows.len(), told.join("\n"));
}
