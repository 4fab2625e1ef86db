//! Scripts of `rewrite`, `set`, `if`, `return`, `break` and a `map`, against a plain interpreter of nginx's rules.
//!
//! A script is put together from a few patterns and texts: patterns simple enough that a function says the same, texts
//! that cannot grow without end. What the fuzzer chooses is their order, the places they stand at, and the request.

use super::script_rules::{self as rules, End};
use crate::http::{Http, heads::RequestHead, in_memory};
use bytes::Bytes;
use std::{cell::OnceCell, sync::Arc};
use tokio::runtime::{Builder, Runtime};

/// One statement, by number of what it says.
#[derive(Clone, Debug)]
pub(super) enum Statement {
    Set(usize),
    Rewrite { pattern: usize, target: usize, flag: usize },
    If(usize, Vec<Statement>),
    Break,
    Return(usize),
}

/// The places a script stands at: the server and its locations.
pub(super) const PLACES: [&str; 5] = ["", "/", "/a/", "/b/", "/c/"];

/// What each location says at its end.
pub(super) const LAST: &str = "[$uri|$args|$v|$m|$1|$2]";

pub(super) const VALUES: [&str; 8] = ["one", "$uri", "$arg_x", "$1", "$v-", "$m", "0", ""];

/// Where a `rewrite` leads.
pub(super) const TARGETS: [&str; 12] = [
    "/a/$1",
    "/b/$v",
    "/c/$m?x=$1",
    "$1",
    "/d?x=$v?",
    "/a$uri?",
    "/?y=$2",
    "http://h/$1",
    "http://h/$v?q=$1",
    "/b%20c?",
    "$2?x=$uri&$1?",
    "https://h/$uri?",
];

pub(super) const FLAGS: [&str; 5] = ["", "last", "break", "redirect", "permanent"];

pub(super) const RETURNS: [&str; 6] = ["200 $v$1", "302 /r$1", "403", "404", "301 http://h/$v", "204"];

/// What an `if` asks: with a pattern of [`rules::PATTERNS`] in place of its `~`.
pub(super) const CONDITIONS: [&str; 8] =
    ["$v", "$v = one", "$arg_x != $v", "$m", "$uri ~ 1", "$uri !~ 4", "$v ~ 2", "$args ~ 4"];

const MAP: &str = "map $v $m { default d; one x; '' $uri; 0 '$1-'; }";

/// A target up to the first NUL, then a script: the server's first, then a location's each.
pub(super) fn rewrite(data: &[u8]) {
    let (target, scripts) = taken(data);
    let request = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
    let Some(head) = RequestHead::of(&request) else { return };
    let text = configuration(&scripts);
    let (http, _, faults) = in_memory::read(text.as_bytes());
    assert!(faults.is_empty(), "{:?} in {text}", faults.first().map(|fault| String::from_utf8_lossy(&fault.message)));
    let expected = rules::outcome(&scripts, head.target.clone());
    let told = answered(http, head);
    let asked = || format!("{} in {text}", String::from_utf8_lossy(&target));
    match expected {
        // Files are looked for then, and there are none.
        End::Content => assert!(told.0 >= 400 && told.0 != 500, "{} to {}", told.0, asked()),
        End::Status(status) => assert_eq!(told.0, status, "{}", asked()),
        End::Text(status, text) => {
            assert_eq!((told.0, Bytes::from(told.2)), (status, Bytes::from(text)), "{}", asked());
        }
        End::Location(status, url) => {
            let line = [b"\r\nLocation: ", &url[..], b"\r\n"].concat();
            let found = told.1.windows(line.len()).any(|window| window == line);
            assert!(
                told.0 == status && (found || url.is_empty()),
                "{} to {}: {:?}",
                told.0,
                asked(),
                Bytes::from(told.1)
            );
        }
    }
}

/// The target and the scripts that some bytes stand for.
fn taken(data: &[u8]) -> (Vec<u8>, [Vec<Statement>; PLACES.len()]) {
    let mut halves = data.splitn(2, |byte| *byte == 0);
    let target = [b"/", halves.next().unwrap_or_default()].concat();
    let mut bytes = halves.next().unwrap_or_default().iter().copied().take(96);
    (target, PLACES.map(|_| script(&mut bytes, 0)))
}

/// Statements up to a byte that ends them.
fn script(bytes: &mut impl Iterator<Item = u8>, depth: usize) -> Vec<Statement> {
    let mut statements = Vec::new();
    while let Some(byte) = bytes.next() {
        let (kind, which) = (byte % 8, usize::from(byte / 8));
        statements.push(match kind {
            0 | 1 => Statement::Set(which % VALUES.len()),
            2 | 3 => {
                let next = usize::from(bytes.next().unwrap_or_default());
                let (pattern, target) = (which % rules::PATTERNS.len(), next % TARGETS.len());
                Statement::Rewrite { pattern, target, flag: next / TARGETS.len() % FLAGS.len() }
            }
            4 if depth == 0 => Statement::If(which % CONDITIONS.len(), script(bytes, 1)),
            5 if which < 8 => Statement::Break,
            6 if which < 16 => Statement::Return(which % RETURNS.len()),
            _ => return statements,
        });
    }
    statements
}

/// The script as a configuration.
fn configuration(scripts: &[Vec<Statement>]) -> String {
    let mut text = format!(
        "{MAP}\nserver {{ absolute_redirect off; uninitialized_variable_warn off;\nlocation @v {{ set $v 0; }}\n"
    );
    for (place, script) in PLACES.iter().zip(scripts) {
        if place.is_empty() {
            write(script, &mut text);
        } else {
            text.push_str(&format!("location {place} {{ "));
            write(script, &mut text);
            text.push_str(&format!("return 200 \"{LAST}\"; }}\n"));
        }
    }
    text.push_str("}\n");
    text
}

fn write(script: &[Statement], text: &mut String) {
    for statement in script {
        match statement {
            Statement::Set(value) => text.push_str(&format!("set $v \"{}\"; ", VALUES[*value])),
            Statement::Rewrite { pattern, target, flag } => {
                let (pattern, target, flag) = (rules::PATTERNS[*pattern].0, TARGETS[*target], FLAGS[*flag]);
                text.push_str(&format!("rewrite \"{pattern}\" \"{target}\" {flag}; "));
            }
            Statement::If(condition, inner) => {
                let condition = match CONDITIONS[*condition].rsplit_once("~ ") {
                    Some((front, number)) => format!("{front}~ \"{}\"", rules::pattern(number).0),
                    None => CONDITIONS[*condition].to_owned(),
                };
                text.push_str(&format!("if ({condition}) {{ "));
                write(inner, text);
                text.push_str("} ");
            }
            Statement::Break => text.push_str("break; "),
            Statement::Return(which) => {
                let (status, rest) = RETURNS[*which].split_once(' ').unwrap_or((RETURNS[*which], ""));
                let rest = if rest.is_empty() { String::new() } else { format!("\"{rest}\"") };
                text.push_str(&format!("return {status} {rest}; "));
            }
        }
    }
}

/// Status, head and body.
fn answered(http: Http, head: RequestHead) -> (u16, Vec<u8>, Vec<u8>) {
    thread_local! {
        static RUNTIME: OnceCell<Option<Runtime>> = const { OnceCell::new() };
    }
    RUNTIME.with(|runtime| {
        let runtime = runtime.get_or_init(|| Builder::new_current_thread().enable_all().build().ok());
        let Some(runtime) = runtime else { return (0, Vec::new(), Vec::new()) };
        let reply = tokio::task::LocalSet::new().block_on(runtime, in_memory::answer(Arc::new(http), head));
        match reply {
            Ok(Some(reply)) => (reply.status, reply.head, reply.body),
            _ => (0, Vec::new(), Vec::new()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stand_for_scripts_whose_ends_are_known() {
        for (data, first, end) in [
            (&b"a/b?x=1"[..], "", End::Text(200, b"[/a/b|x=1||/a/b||]".to_vec())),
            (b"x?x=One\0\x10\x07", "set $v \"$arg_x\";", End::Text(200, b"[/x|x=One|One|x||]".to_vec())),
            (b"b%20c\0\x12\x02\x07", "rewrite \"(.)", End::Text(200, b"[/c//b c|x=c||/b c|c|]".to_vec())),
            (b"a/%26\0\x0a\x37\x07", "rewrite", End::Location(301, b"http://h/&".to_vec())),
            (b"\0\x16\x07", "return 403", End::Status(403)),
            (b"a/x\0\x07\x07\x02\x0c\x07", "", End::Status(500)),
            (b"\0\x07\x02\x01\x05\x07", "", End::Content),
        ] {
            let (target, scripts) = taken(data);
            let text = configuration(&scripts);
            let line = text.lines().nth(3).unwrap_or_default();
            assert!(line.contains(first), "{first} is not in {line}");
            assert_eq!(rules::outcome(&scripts, target.into()), end, "{text}");
            rewrite(data);
        }
    }
}
