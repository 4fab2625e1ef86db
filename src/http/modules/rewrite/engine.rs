//! Runs the steps of a level (`ngx_http_rewrite_handler` and `ngx_http_script.c`).

use super::{
    condition::{Condition, test_file},
    script::{Code, Return, Rewrite, Target},
};
use crate::{
    config::Handle,
    http::{
        exchange::{Captures, Exchange},
        level::Location,
        phase::Break,
        pipeline::captured,
        redirect,
        regex::Regex,
        special,
        template::{Part, Template},
        uri::{Escape, Unescape, escape, unescape},
    },
    observe::error_log::Level,
};
use bytes::Bytes;
use std::{ops::ControlFlow, sync::Arc};

/// Whose script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The server's: its `if`s are no levels of their own.
    Server,
    Location,
}

/// How a step ends; `Break(None)` ends the script and nothing else.
type Step = ControlFlow<Option<Break>>;

/// Runs a level's script; whether the path is another one now.
pub(super) fn run(exchange: &mut Exchange, level: &Arc<Location>, place: Place) -> ControlFlow<Break, bool> {
    let log = level.settings.rewrite.rewrite_log;
    let mut engine = Engine { exchange, place, log, quote: true, changed: false };
    match engine.steps(level) {
        ControlFlow::Break(Some(ended)) => ControlFlow::Break(ended),
        ControlFlow::Break(None) | ControlFlow::Continue(()) => ControlFlow::Continue(engine.changed),
    }
}

/// A variable of `set` is read before it was given a value.
pub fn uninitialized(exchange: &Exchange, variable: Handle) {
    if exchange.location.settings.rewrite.uninitialized_variable_warn {
        let name = exchange.http.variable_names.iter().find(|(_, handle)| **handle == variable);
        let name = name.map(|(name, _)| String::from_utf8_lossy(name)).unwrap_or_default();
        exchange.log(Level::Warn, &format!("using uninitialized \"{name}\" variable"));
    }
}

struct Engine<'e> {
    exchange: &'e mut Exchange,
    place: Place,
    /// `rewrite_log` of the level where the script began.
    log: bool,
    /// Captures are escaped where values are put together: so it is until a `rewrite` has applied.
    quote: bool,
    /// The location is to be found again.
    changed: bool,
}

impl Engine<'_> {
    fn steps(&mut self, level: &Arc<Location>) -> Step {
        for code in &*level.settings.rewrite.script.codes {
            match code {
                Code::Set(set) => {
                    let value = self.value(&set.value);
                    self.exchange.set_variable(set.variable, value);
                }
                Code::If(condition, number) => {
                    if self.holds(condition)?
                        && let Some(inner) = level.ifs.get(*number)
                    {
                        if self.place == Place::Location {
                            self.exchange.location = Arc::clone(inner);
                        }
                        self.steps(inner)?;
                    }
                }
                Code::Rewrite(rewrite) => self.rewrite(rewrite)?,
                Code::Return(code) => return Step::Break(Some(self.answer(code))),
                Code::Break => {
                    if self.changed {
                        self.changed = false;
                        self.exchange.valid_location = false;
                    }
                    return Step::Break(None);
                }
            }
        }
        Step::Continue(())
    }

    fn holds(&mut self, condition: &Condition) -> ControlFlow<Option<Break>, bool> {
        ControlFlow::Continue(match condition {
            Condition::Variable(variable) => !matches!(&self.variable(*variable)[..], b"" | b"0"),
            Condition::Equal { variable, value, negative } => {
                (self.variable(*variable) == self.value(value)) != *negative
            }
            Condition::Match { variable, regex, negative } => {
                let subject = self.variable(*variable);
                self.matches(regex, subject)? != *negative
            }
            Condition::File { test, path, negative } => {
                let path = self.value(path);
                test_file(self.exchange, *test, &path) != *negative
            }
        })
    }

    fn variable(&self, variable: Handle) -> Bytes {
        self.exchange.variable_bytes(variable).unwrap_or_default()
    }

    fn value(&self, value: &Template) -> Bytes {
        if !self.quote || !arrived_escaped(self.exchange) {
            return value.evaluate_bytes(self.exchange);
        }
        let mut out = Vec::new();
        append(self.exchange, value, true, &mut out);
        out.into()
    }

    /// Matches and keeps what was captured; a failed match leaves no captures.
    fn matches(&mut self, regex: &Arc<Regex>, subject: Bytes) -> ControlFlow<Option<Break>, bool> {
        match regex.captures(&subject) {
            Ok(Some(captures)) => {
                self.tell_match(regex, "matches", &subject);
                captured(self.exchange, regex, &captures, subject);
                ControlFlow::Continue(true)
            }
            Ok(None) => {
                self.tell_match(regex, "does not match", &subject);
                self.exchange.captures = Captures::default();
                ControlFlow::Continue(false)
            }
            Err(error) => {
                let (subject, pattern) = (text(&subject), text(regex.pattern()));
                self.exchange.log(Level::Alert, &format!("{error} on \"{subject}\" using \"{pattern}\""));
                ControlFlow::Break(Some(Break::Status(500)))
            }
        }
    }

    fn tell_match(&self, regex: &Regex, what: &str, subject: &[u8]) {
        if self.log {
            let message = format!("\"{}\" {what} \"{}\"", text(regex.pattern()), text(subject));
            self.exchange.log(Level::Notice, &message);
        }
    }

    fn rewrite(&mut self, rewrite: &Rewrite) -> Step {
        let subject = self.exchange.path.clone();
        if !self.matches(&rewrite.regex, subject)? {
            return Step::Continue(());
        }
        self.exchange.internal = true;
        self.exchange.pristine = false;
        self.quote = false;
        match &rewrite.target {
            Target::Redirect { status, url, has_args } => {
                let url = redirect_url(self.exchange, url, rewrite.add_args.then_some(*has_args));
                if self.log {
                    self.exchange.log(Level::Notice, &format!("rewritten redirect: \"{}\"", text(&url)));
                }
                return Step::Break(Some(redirect::to(self.exchange, *status, url)));
            }
            Target::Path { path, args, stay } => {
                self.changed = !stay;
                if *stay {
                    self.exchange.valid_location = false;
                }
                let path = path.evaluate_bytes(self.exchange);
                match args {
                    Some(args) => self.exchange.args = new_args(self.exchange, args, rewrite.add_args),
                    None if rewrite.add_args => {}
                    None => self.exchange.args = Bytes::new(),
                }
                if self.log {
                    let (path, args) = (text(&path), text(&self.exchange.args));
                    self.exchange.log(Level::Notice, &format!("rewritten data: \"{path}\", args: \"{args}\""));
                }
                if path.is_empty() {
                    self.exchange.log(Level::Err, "the rewritten URI has a zero length");
                    return Step::Break(Some(Break::Status(500)));
                }
                self.exchange.path = path;
            }
        }
        if rewrite.last { Step::Break(None) } else { Step::Continue(()) }
    }

    /// `return`: with a text it is the answer; without one an error is a matter of `error_page`.
    fn answer(&mut self, code: &Return) -> Break {
        let status = code.status;
        if status >= 400 && code.text.is_empty() {
            return match status {
                // Nobody is there any more who could be told.
                408 | 444 | 499 => {
                    self.exchange.sent.status = status;
                    Break::Close
                }
                _ => Break::Status(status),
            };
        }
        // The text may speak of it.
        self.exchange.sent.status = status;
        let text = code.text.evaluate_bytes(self.exchange);
        match status {
            301 | 302 | 303 | 307 | 308 => redirect::to(self.exchange, status, text),
            _ => special::text(self.exchange, status, text).into(),
        }
    }
}

/// The arguments of a replacement, and behind them those of the request if they are kept.
fn new_args(exchange: &Exchange, args: &Template, keep: bool) -> Bytes {
    let mut out = Vec::new();
    append(exchange, args, arrived_escaped(exchange), &mut out);
    if keep && !exchange.args.is_empty() {
        out.push(b'&');
        out.extend_from_slice(&exchange.args);
    }
    out.into()
}

/// Where a `rewrite` sends the client. `keep`: the arguments of the request are kept; whether there are others before
/// them.
fn redirect_url(exchange: &Exchange, url: &Template, keep: Option<bool>) -> Bytes {
    let mut escaped = Vec::new();
    append(exchange, url, arrived_escaped(exchange), &mut escaped);
    let mut out = Vec::new();
    let read = unescape(&escaped, Unescape::Redirect, &mut out);
    out.extend_from_slice(&escaped[read..]);
    if let Some(has_args) = keep
        && !exchange.args.is_empty()
    {
        out.push(if has_args { b'&' } else { b'?' });
        out.extend_from_slice(&exchange.args);
    }
    out.into()
}

/// The text of a template, its captures escaped as arguments if asked for. Variables go in as they are.
fn append(exchange: &Exchange, template: &Template, escaped: bool, out: &mut Vec<u8>) {
    if !escaped {
        return template.append(exchange, out);
    }
    for part in template.parts() {
        match part {
            Part::Literal(text) => out.extend_from_slice(text),
            Part::Variable(handle) => {
                exchange.variable(*handle, out);
            }
            Part::Capture(n) => escape(&exchange.captures.get(*n), Escape::Args, out),
        }
    }
}

/// The path had a `%` or a `+` when it arrived (nginx's `quoted_uri` and `plus_in_uri`): only then nginx escapes what
/// it captured from it.
fn arrived_escaped(exchange: &Exchange) -> bool {
    let target = &exchange.head.target;
    let path = &target[..memchr::memchr2(b'?', b'#', target).unwrap_or(target.len())];
    memchr::memchr2(b'%', b'+', path).is_some()
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}
