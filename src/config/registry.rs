//! All directives over one kind of settings, and how a statement finds its own.

use super::{
    args::{Args, Slot, count_fault},
    contexts::Contexts,
    harmless::Value,
    known,
    scope::Scope,
};
use crate::syntax::{Fault, Line, Span, Statement};
use std::{collections::HashMap, ops::RangeInclusive, sync::Arc};

/// One module: its settings at one level, and what the rest of the server may ask of it.
pub trait Module: Clone + Default + 'static {
    const DIRECTIVES: &'static [Directive<Self>];

    /// Directives that several rooms share under different prefixes; see [`Declarations::family`].
    fn families(_declarations: &mut Declarations<'_, Self>) {}

    /// Drops, on the way into a nested level, what a level does not inherit.
    fn enter(_this: &mut Arc<Self>, _level: Contexts) {}

    /// Checks and derives what depends on several directives, once a level has been read.
    ///
    /// # Errors
    /// The first fault found.
    fn settle(&mut self, _scope: &Scope<'_>, _level: Contexts) -> Result<(), Fault> {
        Ok(())
    }
}

/// One directive of a module whose settings are `C`.
pub struct Directive<C: 'static> {
    pub name: &'static str,
    pub contexts: Contexts,
    slot: fn(&mut C) -> &mut dyn Slot,
}

impl<C> Directive<C> {
    pub const fn new(name: &'static str, contexts: Contexts, slot: fn(&mut C) -> &mut dyn Slot) -> Self {
        Self { name, contexts, slot }
    }
}

type Fill<S> = Box<dyn Fn(&mut S, &Args<'_>) -> Result<(), Fault> + Send + Sync>;

/// All directives of all modules over settings `S`. Built once a reading; only configuration looks here.
pub struct Registry<S: 'static> {
    entries: Vec<Entry<S>>,
    index: HashMap<String, Vec<usize>>,
}

/// Who reads a statement.
enum Found<'r, S> {
    Built(&'r Entry<S>),
    /// nginx knows it, nothing here needs it.
    Harmless(Value),
}

struct Entry<S> {
    name: String,
    contexts: Contexts,
    repeats: bool,
    takes: RangeInclusive<usize>,
    block: bool,
    fill: Fill<S>,
}

/// The directives a built-in room offers, for DIRECTIVES.md and the tests that compare with nginx's table.
#[derive(Clone, Debug)]
pub struct Built {
    pub name: String,
    pub contexts: Contexts,
    pub block: bool,
}

impl<S: 'static> Default for Registry<S> {
    fn default() -> Self {
        Self { entries: Vec::new(), index: HashMap::new() }
    }
}

impl<S: 'static> Registry<S> {
    /// Adds a module. Its settings stay shared with the level above until first written.
    pub fn add<M: Module>(&mut self, own: fn(&mut S) -> &mut Arc<M>) {
        for row in M::DIRECTIVES {
            let slot = row.slot;
            let prototype = &mut M::default();
            let prototype = slot(prototype);
            let (repeats, takes, block) = (prototype.repeats(), prototype.takes(), prototype.block());
            let fill = Box::new(move |all: &mut S, args: &Args<'_>| slot(Arc::make_mut(own(all))).fill(args));
            self.push(Entry { name: row.name.into(), contexts: row.contexts, repeats, takes, block, fill });
        }
        let mut families = Vec::new();
        M::families(&mut Declarations { collected: &mut families });
        for family in families {
            let fill = family.fill;
            self.push(Entry {
                name: family.name,
                contexts: family.contexts,
                repeats: family.repeats,
                takes: family.takes,
                block: family.block,
                fill: Box::new(move |all: &mut S, args: &Args<'_>| fill(Arc::make_mut(own(all)), args)),
            });
        }
    }

    fn push(&mut self, entry: Entry<S>) {
        self.index.entry(entry.name.clone()).or_default().push(self.entries.len());
        self.entries.push(entry);
    }

    /// What is built, in the order it was added.
    pub fn built(&self) -> impl Iterator<Item = Built> + '_ {
        let built = |entry: &Entry<S>| Built { name: entry.name.clone(), contexts: entry.contexts, block: entry.block };
        self.entries.iter().map(built)
    }

    /// Applies one statement that opens no level of its own. `earlier` is where the same directive stood
    /// before at this level.
    ///
    /// # Errors
    /// What is wrong with it, in nginx's words; the line is that of its `;` or `{`.
    pub fn apply(
        &self,
        statement: &Statement,
        here: Contexts,
        all: &mut S,
        earlier: Option<Span>,
        scope: &Scope<'_>,
    ) -> Result<(), Fault> {
        self.find(statement, here)
            .and_then(|entry| match entry {
                Found::Built(entry) => entry.apply(statement, here, all, earlier, scope),
                Found::Harmless(value) => {
                    once(value.repeats(), statement, earlier)?;
                    value.check(&Args { statement, scope, here, first: earlier.is_none() })
                }
            })
            .map_err(|fault| on_statement_line(fault, statement))
    }

    /// Applies the own statements of a block in order and collects every fault.
    pub fn apply_all<'s>(
        &self,
        statements: impl IntoIterator<Item = &'s Statement>,
        here: Contexts,
        all: &mut S,
        scope: &Scope<'_>,
    ) {
        let mut seen: HashMap<&[u8], Span> = HashMap::new();
        for statement in statements {
            let earlier = seen.get(&statement.name.value[..]).copied();
            if let Err(fault) = self.apply(statement, here, all, earlier, scope) {
                scope.fault(fault);
            }
            seen.entry(&statement.name.value).or_insert(statement.name.span);
        }
    }

    /// Who reads a statement.
    fn find(&self, statement: &Statement, here: Contexts) -> Result<Found<'_, S>, Fault> {
        let name = statement.name.text();
        let entries = self.index.get(name.as_ref()).map_or(&[][..], |found| &found[..]);
        let built = entries.iter().map(|&at| &self.entries[at]).find(|entry| entry.contexts.allow(here));
        let known = match known::check(statement, here) {
            Ok(known) => Some(known),
            Err(known::Unknown::Elsewhere(_)) if built.is_some() => None,
            Err(known::Unknown::Elsewhere(contexts)) => {
                return Err(not_allowed(statement).help(format!("it is allowed in: {}", contexts.names())));
            }
            Err(known::Unknown::Name) if built.is_some() => None,
            Err(known::Unknown::Name) => {
                return Err(match entries.first().map(|&at| &self.entries[at]) {
                    Some(entry) => not_allowed(statement).help(format!("it is allowed in: {}", entry.contexts.names())),
                    None => self.unknown(statement),
                });
            }
            Err(known::Unknown::Shape(fault)) => return Err(fault),
        };
        match (built, known) {
            (Some(entry), None) => entry.shape(statement).map(|()| Found::Built(entry)),
            (Some(entry), Some(_)) => Ok(Found::Built(entry)),
            (None, Some(known)) if known.harmless => Ok(Found::Harmless(known.value)),
            (None, _) => Err(Fault::at(
                statement.name.span,
                [b"\"", &statement.name.value[..], b"\" is not supported by this version"].concat(),
            )
            .help("nginx knows this directive; tidegate does not yet, and ignores nothing silently")),
        }
    }

    fn unknown(&self, statement: &Statement) -> Fault {
        let name = &statement.name;
        let fault = Fault::at(name.span, [b"unknown directive \"", &name.value[..], b"\""].concat());
        let ours: Vec<&str> = self.entries.iter().map(|entry| entry.name.as_str()).collect();
        let known: Vec<&str> = known::names().collect();
        match super::render::nearest(&name.text(), known.into_iter().chain(ours)) {
            Some(near) => fault.help(format!("did you mean `{near}`?")),
            None => fault,
        }
    }
}

impl<S> Entry<S> {
    /// For directives that are not nginx's: what the directive table checks for those that are.
    fn shape(&self, statement: &Statement) -> Result<(), Fault> {
        known::block_shape(statement, self.block)?;
        if self.takes.contains(&statement.args.len()) { Ok(()) } else { Err(count_fault(statement)) }
    }

    fn apply(
        &self,
        statement: &Statement,
        here: Contexts,
        all: &mut S,
        earlier: Option<Span>,
        scope: &Scope<'_>,
    ) -> Result<(), Fault> {
        once(self.repeats, statement, earlier)?;
        (self.fill)(all, &Args { statement, scope, here, first: earlier.is_none() })
    }
}

/// A directive that may stand once stands once.
fn once(repeats: bool, statement: &Statement, earlier: Option<Span>) -> Result<(), Fault> {
    match earlier {
        Some(earlier) if !repeats => {
            let name = &statement.name;
            let fault = Fault::at(name.span, [b"\"", &name.value[..], b"\" directive is duplicate"].concat());
            Err(fault.also(earlier, "first set here"))
        }
        _ => Ok(()),
    }
}

/// Puts a fault on the line nginx would name: that of the statement's `;` or `{`.
pub fn on_statement_line(mut fault: Fault, statement: &Statement) -> Fault {
    if fault.line == Line::OfSpan && fault.span.is_some_and(|span| span.file == statement.end.file) {
        fault.line = Line::Of(statement.end);
    }
    fault
}

fn not_allowed(statement: &Statement) -> Fault {
    let name = &statement.name;
    Fault::at(name.span, [b"\"", &name.value[..], b"\" directive is not allowed here"].concat())
}

/// Where a room adds directives that it shares with others under a prefix of its own.
pub struct Declarations<'d, C: 'static> {
    collected: &'d mut Vec<Family<C>>,
}

struct Family<C> {
    name: String,
    contexts: Contexts,
    repeats: bool,
    takes: RangeInclusive<usize>,
    block: bool,
    fill: Fill<C>,
}

impl<C: 'static> Declarations<'_, C> {
    /// Registers rows that are written by suffix (`_connect_timeout`) under `prefix` (`proxy`); `except`
    /// names the suffixes this room has not.
    pub fn family<F: Default + 'static>(
        &mut self,
        prefix: &str,
        rows: &'static [Directive<F>],
        except: &[&str],
        own: fn(&mut C) -> &mut F,
    ) {
        for row in rows.iter().filter(|row| !except.contains(&row.name)) {
            let slot = row.slot;
            let prototype = &mut F::default();
            let prototype = slot(prototype);
            self.collected.push(Family {
                name: format!("{prefix}{}", row.name),
                contexts: row.contexts,
                repeats: prototype.repeats(),
                takes: prototype.takes(),
                block: prototype.block(),
                fill: Box::new(move |conf: &mut C, args: &Args<'_>| slot(own(conf)).fill(args)),
            });
        }
    }
}
