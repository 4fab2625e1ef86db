//! The statements of the room, as a list of steps that run one after the other.

use super::Condition;
use crate::{
    config::{Args, FromArgs, Handle, Slot, values::parse_number},
    http::{level::define_groups, regex::Regex, template::Template, variables::define_assigned},
    syntax::{Fault, Word},
};
use std::{ops::RangeInclusive, sync::Arc};

/// The steps of a level, among them its `if`s. As a slot it takes the `if`s; the others go into [`Codes`].
#[derive(Clone, Debug, Default)]
pub struct Script {
    pub codes: Codes,
}

/// The steps of a level in the order they are written.
#[derive(Clone, Debug, Default)]
pub struct Codes(Vec<Code>);

/// One step.
#[derive(Clone, Debug)]
pub enum Code {
    Set(Set),
    Rewrite(Arc<Rewrite>),
    Return(Return),
    Break,
    /// If the condition holds, the level with that number among the `if`s of this one applies, and its steps run.
    If(Condition, usize),
}

impl std::ops::Deref for Codes {
    type Target = [Code];

    fn deref(&self) -> &[Code] {
        &self.0
    }
}

impl Slot for Script {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        // A wrong condition is counted too, so that the numbers fit the levels that are read afterwards.
        let number = self.codes.iter().filter(|code| matches!(code, Code::If(..))).count();
        let (condition, fault) = match Condition::from_args(args) {
            Ok(condition) => (condition, None),
            Err(fault) => (Condition::NEVER, Some(fault)),
        };
        self.codes.0.push(Code::If(condition, number));
        fault.map_or(Ok(()), Err)
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        Condition::TAKES
    }

    fn block(&self) -> bool {
        true
    }
}

impl Slot for Codes {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        self.0.push(match &args.statement.name.value[..] {
            b"set" => Code::Set(Set::from_args(args)?),
            b"rewrite" => Code::Rewrite(Arc::new(Rewrite::from_args(args)?)),
            b"return" => Code::Return(Return::from_args(args)?),
            _ => Code::Break,
        });
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    /// From `break` without arguments to `rewrite` with a flag.
    fn takes(&self) -> RangeInclusive<usize> {
        0..=3
    }
}

/// `set $variable value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub variable: Handle,
    pub value: Template,
}

impl FromArgs for Set {
    const TAKES: RangeInclusive<usize> = 2..=2;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let invalid = |name: &[u8]| Fault::at(word.span, [b"invalid variable name \"", name, b"\""].concat());
        let variable = match word.value.strip_prefix(b"$") {
            None => return Err(invalid(&word.value)),
            Some(name) => define_assigned(args.scope, name, word.span)?,
        };
        Ok(Self { variable, value: Template::compile(args.word(1), args.scope)? })
    }
}

/// `return code`, `return code text`, `return url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Return {
    pub status: u16,
    /// The body, or where a redirect leads; empty if there is none.
    pub text: Template,
}

impl FromArgs for Return {
    const TAKES: RangeInclusive<usize> = 1..=2;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        match parse_number(&word.value) {
            Some(status @ 0..=999) => {
                let text = args.words().get(1).map(|word| Template::compile(word, args.scope)).transpose()?;
                Ok(Self { status: u16::try_from(status).unwrap_or(500), text: text.unwrap_or_default() })
            }
            None if args.words().len() == 1 && leads_elsewhere(&word.value) => {
                Ok(Self { status: 302, text: Template::compile(word, args.scope)? })
            }
            _ => Err(Fault::at(word.span, [b"invalid return code \"", &word.value[..], b"\""].concat())),
        }
    }
}

/// `rewrite regex replacement [flag]`.
#[derive(Clone, Debug)]
pub struct Rewrite {
    pub regex: Arc<Regex>,
    pub target: Target,
    /// The arguments of the request are kept, behind those of the replacement: no `?` at its end.
    pub add_args: bool,
    /// Nothing behind it runs if it applied.
    pub last: bool,
}

/// What a replacement makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Another path.
    Path {
        path: Template,
        /// What stands behind the first `?`.
        args: Option<Template>,
        /// The request stays in its location (`break`).
        stay: bool,
    },
    /// Another place for the client to ask at.
    Redirect { status: u16, url: Template, has_args: bool },
}

impl FromArgs for Rewrite {
    const TAKES: RangeInclusive<usize> = 2..=3;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let (pattern, replacement) = (args.word(0), args.word(1));
        if replacement.value.is_empty() {
            return Err(Fault::at(replacement.span, "empty replacement"));
        }
        let regex = compile(pattern, &pattern.value, false, args)?;
        let text = replacement.value.strip_suffix(b"?");
        let add_args = text.is_none();
        let text = text.unwrap_or(&replacement.value);
        let mut redirect = leads_elsewhere(text).then_some(302);
        let (mut last, mut stay) = (redirect.is_some(), false);
        if let Some(flag) = args.words().get(2) {
            last = true;
            match &flag.value[..] {
                b"last" => {}
                b"break" => stay = true,
                b"redirect" => redirect = Some(302),
                b"permanent" => redirect = Some(301),
                _ => return Err(args.parameter(flag).help("the flags are `last`, `break`, `redirect`, `permanent`")),
            }
        }
        let compile = |text: &[u8]| Template::compile_text(text, replacement, args.scope);
        let question = memchr::memchr(b'?', text);
        let target = match (redirect, question) {
            (Some(status), _) => Target::Redirect { status, url: compile(text)?, has_args: question.is_some() },
            (None, None) => Target::Path { path: compile(text)?, args: None, stay },
            (None, Some(at)) => {
                Target::Path { path: compile(&text[..at])?, args: Some(compile(&text[at + 1..])?), stay }
            }
        };
        Ok(Self { regex, target, add_args, last })
    }
}

/// Compiles a pattern and makes its named groups variables.
pub(super) fn compile(word: &Word, pattern: &[u8], caseless: bool, args: &Args<'_>) -> Result<Arc<Regex>, Fault> {
    let regex = Regex::compile(pattern, caseless).map_err(|error| Fault::at(word.span, error.message))?;
    define_groups(&regex, word.span, args.scope)?;
    Ok(Arc::new(regex))
}

/// How a text begins that is a redirect by itself.
fn leads_elsewhere(text: &[u8]) -> bool {
    [&b"http://"[..], b"https://", b"$scheme"].iter().any(|start| text.starts_with(start))
}
