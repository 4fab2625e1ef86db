//! `match`: the tests that the answer to a health check has to pass.

use crate::{
    config::{Args, FromArgs, Scope, args::count_fault, registry::on_statement_line, values::parse_number},
    http::{exchange::Exchange, regex::Regex, template::Template},
    syntax::{Fault, Span, Statement, Word},
    upstream::probe::Reply,
};
use bytes::Bytes;
use std::{ops::RangeInclusive, sync::Arc};

/// One `match` block.
#[derive(Debug)]
pub struct Match {
    pub name: Bytes,
    pub span: Span,
    tests: Vec<Test>,
}

/// One line of the block.
#[derive(Debug)]
enum Test {
    /// The status is in one of these ranges, or in none of them.
    Status(bool, Vec<RangeInclusive<u16>>),
    /// There is such a field, or there is none.
    Has(bool, Bytes),
    /// There is such a field, and its value is this or matches this, or is or does not.
    Field(bool, Bytes, Value),
    Body(bool, Regex),
    /// All of these are neither empty nor `0`.
    Require(Vec<(Bytes, Template)>),
}

#[derive(Debug)]
enum Value {
    Text(Bytes),
    Pattern(Regex),
}

/// Which test an answer has failed: what nginx says it was doing, and what was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub action: &'static str,
    pub why: String,
}

pub(super) const STATUS: &str = "checking status code";
pub(super) const GRPC: &str = "checking gRPC status";
const HEADER: &str = "checking header";
const BODY: &str = "checking body";
const VARIABLES: &str = "checking variables";

/// The test of a check without `match`: the status is 2xx or 3xx.
///
/// # Errors
/// What was wrong.
pub(super) fn usual(reply: &Reply) -> Result<&'static str, Unfit> {
    match reply.head.status {
        200..=399 => Ok(STATUS),
        status => Err(Unfit { action: STATUS, why: format!("status {status:03}") }),
    }
}

impl Match {
    /// Whether an answer passes all tests; what the last one looked at. Variables see the answer as that of an upstream.
    ///
    /// # Errors
    /// The first test that fails.
    pub fn judge(&self, reply: &Reply, exchange: &Exchange) -> Result<&'static str, Unfit> {
        self.tests.iter().try_fold(STATUS, |_, test| test.judge(reply, exchange))
    }

    /// Whether it looks at the body.
    pub fn wants_body(&self) -> bool {
        self.tests.iter().any(|test| matches!(test, Test::Body(..)))
    }
}

impl Test {
    fn judge(&self, reply: &Reply, exchange: &Exchange) -> Result<&'static str, Unfit> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (action, fits, why) = match self {
            Self::Status(wanted, ranges) => {
                let status = reply.head.status;
                let fits = ranges.iter().any(|range| range.contains(&status)) == *wanted;
                (STATUS, fits, format!("status {status:03}"))
            }
            Self::Has(wanted, name) => {
                let there = reply.head.fields.contains(name);
                (HEADER, there == *wanted, format!("{} \"{}\"", if there { "header" } else { "no header" }, text(name)))
            }
            Self::Field(wanted, name, value) => {
                let mut values = reply.head.fields.get_all(name).peekable();
                match values.peek() {
                    None => (HEADER, false, format!("no header \"{}\"", text(name))),
                    Some(first) => {
                        let why = format!("header \"{}: {}\"", text(name), text(first));
                        (HEADER, values.any(|one| value.is(one)) == *wanted, why)
                    }
                }
            }
            Self::Body(wanted, regex) => {
                let found = regex.is_match(&reply.body).unwrap_or(false);
                let what = if found { "body matches" } else { "body does not match" };
                (BODY, found == *wanted, format!("{what} \"{}\"", text(regex.pattern())))
            }
            Self::Require(variables) => {
                let lacks = |value: &[u8]| value.is_empty() || value == b"0";
                let lacking = variables.iter().find(|(_, value)| lacks(&value.evaluate(exchange)));
                let why = lacking.map(|(name, _)| format!("variable \"{}\"", text(name)));
                (VARIABLES, lacking.is_none(), why.unwrap_or_default())
            }
        };
        if fits { Ok(action) } else { Err(Unfit { action, why }) }
    }
}

impl Value {
    fn is(&self, value: &[u8]) -> bool {
        match self {
            Self::Text(text) => text == value,
            Self::Pattern(regex) => regex.is_match(value).unwrap_or(false),
        }
    }
}

impl FromArgs for Arc<Match> {
    const BLOCK: bool = true;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let mut tests = Vec::new();
        for statement in args.block() {
            match read(statement, args.scope) {
                Ok(test) => tests.push(test),
                Err(fault) => args.scope.fault(on_statement_line(fault, statement)),
            }
        }
        Ok(Self::new(Match { name: Bytes::copy_from_slice(&word.value), span: word.span, tests }))
    }
}

/// Reads one line of the block.
fn read(statement: &Statement, scope: &Scope<'_>) -> Result<Test, Fault> {
    let (name, words) = (&statement.name, &statement.args[..]);
    let count = || count_fault(statement);
    if statement.block.is_some() {
        return Err(Fault::at(name.span, "unexpected \"{\""));
    }
    match (&name.value[..], words) {
        (b"status" | b"header" | b"body" | b"require", []) => Err(count()),
        (b"status", [not, rest @ ..]) if not.value == b"!" => {
            if rest.is_empty() {
                Err(count())
            } else {
                Ok(Test::Status(false, ranges(rest)?))
            }
        }
        (b"status", words) => Ok(Test::Status(true, ranges(words)?)),
        (b"header", [field]) => Ok(Test::Has(true, bytes(field))),
        (b"header", [not, field]) if not.value == b"!" => Ok(Test::Has(false, bytes(field))),
        (b"header", [field, operator, value]) => {
            let (wanted, value) = match &operator.value[..] {
                b"=" => (true, Value::Text(bytes(value))),
                b"!=" => (false, Value::Text(bytes(value))),
                _ => pattern(operator, value).map(|(wanted, regex)| (wanted, Value::Pattern(regex)))?,
            };
            Ok(Test::Field(wanted, bytes(field), value))
        }
        (b"body", [operator, value]) => pattern(operator, value).map(|(wanted, regex)| Test::Body(wanted, regex)),
        (b"require", words) => {
            let variable = |word: &Word| match word.value.strip_prefix(b"$") {
                Some(name) if !name.is_empty() => Ok((bytes(word), Template::compile(word, scope)?)),
                _ => Err(Fault::at(word.span, [b"invalid variable name \"", &word.value[..], b"\""].concat())),
            };
            words.iter().map(variable).collect::<Result<_, _>>().map(Test::Require)
        }
        (b"header" | b"body", _) => Err(count()),
        _ => Err(Fault::at(name.span, [b"unknown directive \"", &name.value[..], b"\""].concat())
            .help("a `match` has lines of `status`, `header`, `body` and `require`")),
    }
}

fn bytes(word: &Word) -> Bytes {
    Bytes::copy_from_slice(&word.value)
}

/// `~` and `!~`, and in any case `~*` and `!~*`.
fn pattern(operator: &Word, value: &Word) -> Result<(bool, Regex), Fault> {
    let (wanted, caseless) = match &operator.value[..] {
        b"~" => (true, false),
        b"!~" => (false, false),
        b"~*" => (true, true),
        b"!~*" => (false, true),
        other => return Err(Fault::at(operator.span, [b"invalid parameter \"", other, b"\""].concat())),
    };
    let regex = Regex::compile(&value.value, caseless).map_err(|error| Fault::at(value.span, error.to_string()))?;
    Ok((wanted, regex))
}

/// `200`, `200-399`.
fn ranges(words: &[Word]) -> Result<Vec<RangeInclusive<u16>>, Fault> {
    let status = |text: &[u8]| {
        let number = parse_number(text).and_then(|number| u16::try_from(number).ok());
        number.filter(|number| text.len() == 3 && (100..=999).contains(number))
    };
    let range = |word: &Word| {
        let ends = match memchr::memchr(b'-', &word.value) {
            Some(at) => (status(&word.value[..at]), status(&word.value[at + 1..])),
            None => (status(&word.value), status(&word.value)),
        };
        match ends {
            (Some(from), Some(to)) if from <= to => Ok(from..=to),
            _ => Err(Fault::at(word.span, [b"invalid status \"", &word.value[..], b"\""].concat())),
        }
    };
    words.iter().map(range).collect()
}
