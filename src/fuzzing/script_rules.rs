//! nginx's rules for scripts, as plainly as they can be said: no state is shared with what serves.

use super::script::{CONDITIONS, FLAGS, LAST, PLACES, RETURNS, Statement, TARGETS, VALUES};
use crate::http::uri::{self, Escape, Unescape};
use bytes::Bytes;

/// How a request ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// No script has said it.
    Content,
    Status(u16),
    Text(u16, Vec<u8>),
    Location(u16, Vec<u8>),
}

type Groups<'t> = Option<[&'t [u8]; 2]>;

/// A pattern, and what it captures as first and second group.
pub(super) type Pattern = (&'static str, fn(&[u8]) -> Groups<'_>);

pub(super) const PATTERNS: [Pattern; 7] = [
    ("^", |_| Some([b"", b""])),
    ("^/a/(.*)", |text| Some([line(text.strip_prefix(b"/a/")?), b""])),
    (r"(.)\z", |text| {
        text.split_last().filter(|(last, _)| **last != b'\n').map(|_| [&text[text.len() - 1..], &b""[..]])
    }),
    ("^/(b|c)(/[a-z]*)", |text| match text {
        [b'/', b'b' | b'c', rest @ ..] if rest.starts_with(b"/") => {
            let letters = rest[1..].iter().take_while(|byte| byte.is_ascii_lowercase()).count();
            Some([&text[1..2], &rest[..=letters]])
        }
        _ => None,
    }),
    ("x", |text| text.contains(&b'x').then_some([b"", b""])),
    ("^z^", |_| None),
    ("^/([^/]*)/(.*)", |text| {
        let rest = text.strip_prefix(b"/")?;
        let slash = rest.iter().position(|byte| *byte == b'/')?;
        Some([&rest[..slash], line(&rest[slash + 1..])])
    }),
];

/// Up to the end of the line: what `.*` takes.
fn line(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// The pattern of a number.
pub(super) fn pattern(number: &str) -> Pattern {
    PATTERNS[number.parse::<usize>().unwrap_or_default()]
}

/// What becomes of a request.
pub(super) fn outcome(scripts: &[Vec<Statement>], target: Bytes) -> End {
    let Ok(parts) = uri::normalise(&target, true) else { return End::Status(400) };
    let raw = target.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    let mut request = Request {
        path: parts.path.to_vec(),
        args: parts.args.to_vec(),
        escaped: raw.iter().any(|byte| matches!(byte, b'%' | b'+')),
        ..Request::default()
    };
    let mut run = Run::new(&mut request);
    if let Some(Stop::End(end)) = run.script(&scripts[0]) {
        return end;
    }
    for _ in 0..=10 {
        let Some(place) = request.location() else { return End::Content };
        let mut run = Run::new(&mut request);
        match run.script(&scripts[place]) {
            Some(Stop::End(end)) => return end,
            Some(Stop::Script) if run.changed => {}
            Some(Stop::Script) => return End::Content,
            // The `return` at the end of each location.
            None => return End::Text(200, request.expand(LAST, false)),
        }
    }
    End::Status(500)
}

#[derive(Debug, Default)]
struct Request {
    path: Vec<u8>,
    args: Vec<u8>,
    /// The path came with a `%` or a `+`.
    escaped: bool,
    v: Vec<u8>,
    /// `$m`, once somebody asked for it.
    m: std::cell::OnceCell<Vec<u8>>,
    groups: [Vec<u8>; 2],
}

impl Request {
    /// The location with the longest prefix.
    fn location(&self) -> Option<usize> {
        (1..PLACES.len()).filter(|at| self.path.starts_with(PLACES[*at].as_bytes())).max_by_key(|at| PLACES[*at].len())
    }

    /// The text of a template; `escape`: captures are escaped as arguments.
    fn expand(&self, template: &str, escape: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut parts = template.split('$');
        out.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
        for part in parts {
            let digit = part.starts_with(|first: char| first.is_ascii_digit());
            let length = match digit {
                true => 1,
                false => part.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(part.len()),
            };
            let (name, rest) = part.split_at(length);
            match (digit, escape) {
                (true, true) => uri::escape(&self.variable(name), Escape::Args, &mut out),
                _ => out.extend_from_slice(&self.variable(name)),
            }
            out.extend_from_slice(rest.as_bytes());
        }
        out
    }

    fn variable(&self, name: &str) -> Vec<u8> {
        match name {
            "1" => self.groups[0].clone(),
            "2" => self.groups[1].clone(),
            "uri" => self.path.clone(),
            "args" => self.args.clone(),
            "v" => self.v.clone(),
            "arg_x" => {
                let mut args = self.args.split(|byte| *byte == b'&');
                let x = args.find(|arg| arg.len() > 1 && arg[..2].eq_ignore_ascii_case(b"x="));
                x.map(|arg| arg[2..].to_vec()).unwrap_or_default()
            }
            _ => self.m.get_or_init(|| self.map()).clone(),
        }
    }

    /// The `map`.
    fn map(&self) -> Vec<u8> {
        match &self.v.to_ascii_lowercase()[..] {
            b"one" => b"x".to_vec(),
            b"" => self.path.clone(),
            b"0" => [&self.groups[0][..], b"-"].concat(),
            _ => b"d".to_vec(),
        }
    }

    /// Keeps what a pattern captures; no match leaves nothing.
    fn matches(&mut self, pattern: Pattern, subject: &[u8]) -> bool {
        let found = pattern.1(subject);
        self.groups = found.unwrap_or_default().map(<[u8]>::to_vec);
        found.is_some()
    }
}

/// What ends a script.
#[derive(Debug)]
enum Stop {
    /// It alone.
    Script,
    /// The request as well.
    End(End),
}

/// One run through a script.
struct Run<'r> {
    request: &'r mut Request,
    /// No `rewrite` has applied: captures are escaped.
    quotes: bool,
    /// The location is to be found again.
    changed: bool,
}

impl<'r> Run<'r> {
    fn new(request: &'r mut Request) -> Self {
        Self { request, quotes: true, changed: false }
    }

    fn script(&mut self, script: &[Statement]) -> Option<Stop> {
        script.iter().find_map(|statement| self.step(statement))
    }

    fn value(&self, template: &str) -> Vec<u8> {
        self.request.expand(template, self.quotes && self.request.escaped)
    }

    fn step(&mut self, statement: &Statement) -> Option<Stop> {
        match statement {
            Statement::Set(which) => self.request.v = self.value(VALUES[*which]),
            Statement::If(which, inner) => {
                if self.holds(CONDITIONS[*which]) {
                    return self.script(inner);
                }
            }
            Statement::Break => {
                self.changed = false;
                return Some(Stop::Script);
            }
            Statement::Return(which) => return Some(Stop::End(self.answer(RETURNS[*which]))),
            Statement::Rewrite { pattern, target, flag } => {
                return self.rewrite(PATTERNS[*pattern], TARGETS[*target], FLAGS[*flag]);
            }
        }
        None
    }

    fn holds(&mut self, condition: &str) -> bool {
        let words: Vec<&str> = condition.split(' ').collect();
        let subject = self.request.expand(words[0], false);
        match words[..] {
            [_, "=", value] => subject == self.value(value),
            [_, "!=", value] => subject != self.value(value),
            [_, "~", number] => self.request.matches(pattern(number), &subject),
            [_, "!~", number] => !self.request.matches(pattern(number), &subject),
            _ => !subject.is_empty() && subject != b"0",
        }
    }

    fn answer(&self, text: &str) -> End {
        let (status, text) = text.split_once(' ').unwrap_or((text, ""));
        let status = status.parse().unwrap_or_default();
        let value = self.request.expand(text, false);
        match status {
            301 | 302 => End::Location(status, value),
            200 => End::Text(status, value),
            _ => End::Status(status),
        }
    }

    fn rewrite(&mut self, pattern: Pattern, target: &str, flag: &str) -> Option<Stop> {
        let subject = self.request.path.clone();
        if !self.request.matches(pattern, &subject) {
            return None;
        }
        self.quotes = false;
        let (target, keeps) = target.strip_suffix('?').map_or((target, true), |target| (target, false));
        let escape = self.request.escaped;
        if target.starts_with("http") || matches!(flag, "redirect" | "permanent") {
            let escaped = self.request.expand(target, escape);
            let mut url = Vec::new();
            let read = uri::unescape(&escaped, Unescape::Redirect, &mut url);
            url.extend_from_slice(&escaped[read..]);
            if keeps && !self.request.args.is_empty() {
                url.push(if target.contains('?') { b'&' } else { b'?' });
                url.extend_from_slice(&self.request.args);
            }
            return Some(Stop::End(End::Location(if flag == "permanent" { 301 } else { 302 }, url)));
        }
        let (path, args) = target.split_once('?').map_or((target, None), |(path, args)| (path, Some(args)));
        let path = self.request.expand(path, false);
        let mut all = args.map(|args| self.request.expand(args, escape)).unwrap_or_default();
        if keeps {
            if args.is_some() && !self.request.args.is_empty() {
                all.push(b'&');
            }
            all.extend_from_slice(&self.request.args);
        }
        if path.is_empty() {
            return Some(Stop::End(End::Status(500)));
        }
        (self.request.path, self.request.args) = (path, all);
        self.changed = flag != "break";
        (!flag.is_empty()).then_some(Stop::Script)
    }
}
