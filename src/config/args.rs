//! A statement's arguments on their way into a slot.
//!
//! The *type* of the slot is the grammar: how many arguments are taken, how they are read, whether the
//! directive may be repeated, how it is inherited.

use super::{contexts::Contexts, scope::Scope};
use crate::syntax::{Fault, Span, Statement, Word};
use std::ops::RangeInclusive;

/// A value that a directive's arguments spell: parsed once, never validated later.
pub trait FromArgs: Sized {
    /// How many arguments; for nginx's own directives the directive table is asked before.
    const TAKES: RangeInclusive<usize> = 1..=1;
    /// Whether it opens a block.
    const BLOCK: bool = false;

    /// Reads the value; the number of arguments has been checked.
    ///
    /// # Errors
    /// A fault with nginx's text, pointing at the word that is wrong.
    fn from_args(args: &Args<'_>) -> Result<Self, Fault>;
}

/// The place in a module's settings that a directive fills.
pub trait Slot {
    /// Reads the arguments into the slot.
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault>;

    /// Whether the directive may stand more than once at a level.
    fn repeats(&self) -> bool {
        false
    }

    /// See [`FromArgs::TAKES`].
    fn takes(&self) -> RangeInclusive<usize>;

    /// See [`FromArgs::BLOCK`].
    fn block(&self) -> bool {
        false
    }
}

/// Set at most once per level, inherited by the levels below.
impl<T: FromArgs> Slot for T {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        *self = T::from_args(args)?;
        Ok(())
    }

    fn takes(&self) -> RangeInclusive<usize> {
        T::TAKES
    }

    fn block(&self) -> bool {
        T::BLOCK
    }
}

/// The same, and absence means something.
impl<T: FromArgs> Slot for Option<T> {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        *self = Some(T::from_args(args)?);
        Ok(())
    }

    fn takes(&self) -> RangeInclusive<usize> {
        T::TAKES
    }

    fn block(&self) -> bool {
        T::BLOCK
    }
}

/// A value, and at which level it was said: two may go together or not according to that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leveled<T> {
    pub value: T,
    /// Where the directive stands; `None` where nothing was said.
    pub at: Option<Span>,
    level: Option<Span>,
}

impl<T> Leveled<T> {
    /// Whether it was said at the level that is being settled, not above it.
    pub fn is_own(&self, scope: &Scope<'_>) -> bool {
        self.at.is_some() && self.level == scope.enclosing().map(|statement| statement.name.span)
    }
}

impl<T: FromArgs> FromArgs for Leveled<T> {
    const TAKES: RangeInclusive<usize> = T::TAKES;
    const BLOCK: bool = T::BLOCK;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let level = args.scope.enclosing().map(|statement| statement.name.span);
        Ok(Self { value: T::from_args(args)?, at: Some(args.statement.name.span), level })
    }
}

/// May be repeated; one mention at a level hides all that is above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> std::ops::Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: FromArgs> Slot for List<T> {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        if args.first {
            self.0.clear();
        }
        self.0.push(T::from_args(args)?);
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        T::TAKES
    }

    fn block(&self) -> bool {
        T::BLOCK
    }
}

/// A directive that is read for what it does to the scope (it defines a name), not for a setting.
/// May be repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declared<T>(std::marker::PhantomData<T>);

impl<T: FromArgs> Slot for Declared<T> {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        T::from_args(args).map(drop)
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        T::TAKES
    }

    fn block(&self) -> bool {
        T::BLOCK
    }
}

/// The arguments of one statement, and what may be asked while reading them.
pub struct Args<'a> {
    pub statement: &'a Statement,
    pub scope: &'a Scope<'a>,
    /// The context the statement stands in.
    pub here: Contexts,
    /// Whether the directive was not yet seen at this level.
    pub first: bool,
}

impl<'a> Args<'a> {
    /// The arguments, without the directive's name.
    pub fn words(&self) -> &'a [Word] {
        &self.statement.args
    }

    /// The directive's name, for messages.
    pub fn name(&self) -> std::borrow::Cow<'a, str> {
        self.statement.name.text()
    }

    /// The n-th argument. Only for arguments that `TAKES` guarantees.
    pub fn word(&self, n: usize) -> &'a Word {
        self.statement.args.get(n).unwrap_or(&self.statement.name)
    }

    /// The statements of the block; empty for a directive without one.
    pub fn block(&self) -> &'a [Statement] {
        self.statement.block.as_ref().map_or(&[], |block| &block.statements)
    }

    /// nginx's general form: `invalid value "X"`.
    pub fn invalid(&self, word: &Word) -> Fault {
        Fault::at(word.span, [b"invalid value \"", &word.value[..], b"\""].concat())
    }

    /// nginx's form for slots that return a text: `"NAME" directive TEXT`.
    pub fn directive(&self, word: &Word, text: &str) -> Fault {
        Fault::at(word.span, format!("\"{}\" directive {text}", self.name()))
    }

    /// `invalid parameter "X"`.
    pub fn parameter(&self, word: &Word) -> Fault {
        Fault::at(word.span, [b"invalid parameter \"", &word.value[..], b"\""].concat())
    }

    /// `invalid number of arguments in "NAME" directive`.
    pub fn count(&self) -> Fault {
        count_fault(self.statement)
    }
}

/// `invalid number of arguments in "NAME" directive`, for any statement.
pub fn count_fault(statement: &Statement) -> Fault {
    let name = &statement.name;
    Fault::at(name.span, [b"invalid number of arguments in \"", &name.value[..], b"\" directive"].concat())
}
