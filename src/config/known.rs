//! Every directive of nginx 1.31.5: where it may stand and how many arguments it takes. A misplaced or
//! miscounted one is diagnosed even before it is built; one that is not built is refused, unless it has
//! no effect that anybody could see.

use super::{args::count_fault, contexts::Contexts, harmless::Value};
use crate::syntax::{Fault, Statement};
use std::{collections::HashMap, sync::LazyLock};

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Known {
    pub name: &'static str,
    /// The nginx module that brings it.
    pub module: &'static str,
    pub contexts: Contexts,
    pub arguments: Arguments,
    pub block: bool,
    /// What an unbuilt one is: accepted without effect, or refused.
    pub harmless: bool,
    /// What is checked of one that is accepted without effect.
    pub value: Value,
}

/// How many arguments nginx allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    AtLeast(usize),
    OneOf(Vec<usize>),
}

/// Why a statement has no row here.
#[derive(Debug)]
pub enum Unknown {
    /// No directive of that name.
    Name,
    /// There is one, but not in this context.
    Elsewhere(Contexts),
    /// There is one here, and it is not written like this.
    Shape(Fault),
}

static TABLE: LazyLock<HashMap<&'static str, Vec<Known>>> = LazyLock::new(|| {
    let mut table: HashMap<_, Vec<_>> = HashMap::new();
    for row in include_str!("known.tsv").lines().skip(1).filter_map(parse) {
        table.entry(row.name).or_default().push(row);
    }
    table
});

/// Every row, in no particular order.
pub fn rows() -> impl Iterator<Item = &'static Known> {
    TABLE.values().flatten()
}

/// Every name.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.keys().copied()
}

/// Finds the row of a statement and checks its shape, in the order nginx's `ngx_conf_handler` does.
///
/// # Errors
/// [`Unknown`] says what was wrong first.
pub fn check(statement: &Statement, here: Contexts) -> Result<&'static Known, Unknown> {
    let rows = std::str::from_utf8(&statement.name.value).ok().and_then(|name| TABLE.get(name));
    let rows = rows.ok_or(Unknown::Name)?;
    let Some(row) = rows.iter().find(|row| row.contexts.allow(here)) else {
        return Err(Unknown::Elsewhere(rows.iter().fold(Contexts::parse(""), |all, row| all.or(row.contexts))));
    };
    block_shape(statement, row.block).map_err(Unknown::Shape)?;
    let count = statement.args.len();
    let fits = match &row.arguments {
        Arguments::AtLeast(least) => count >= *least,
        Arguments::OneOf(counts) => counts.contains(&count),
    };
    if fits { Ok(row) } else { Err(Unknown::Shape(count_fault(statement))) }
}

/// Whether a statement has a block exactly when it must.
///
/// # Errors
/// nginx's fault for the one or the other.
pub fn block_shape(statement: &Statement, block: bool) -> Result<(), Fault> {
    let name = &statement.name;
    match (block, &statement.block) {
        (true, None) => {
            Err(Fault::at(name.span, [b"directive \"", &name.value[..], b"\" has no opening \"{\""].concat()))
        }
        (false, Some(_)) => {
            Err(Fault::at(name.span, [b"directive \"", &name.value[..], b"\" is not terminated by \";\""].concat()))
        }
        _ => Ok(()),
    }
}

fn parse(line: &'static str) -> Option<Known> {
    let mut cells = line.split('\t');
    let (name, module, contexts) = (cells.next()?, cells.next()?, cells.next()?);
    let (arguments, unbuilt) = (cells.next()?, cells.next()?);
    let value = Value::parse(cells.next().unwrap_or_default());
    let (block, counts) = match arguments.strip_prefix("block ") {
        Some(counts) => (true, counts),
        None => (false, arguments),
    };
    Some(Known {
        name,
        module,
        contexts: Contexts::parse(contexts),
        arguments: parse_arguments(counts),
        block,
        harmless: unbuilt == "harmless",
        value,
    })
}

fn parse_arguments(counts: &str) -> Arguments {
    if counts == "flag" {
        return Arguments::OneOf(vec![1]);
    }
    match counts.strip_suffix('+') {
        Some(least) => Arguments::AtLeast(least.parse().unwrap_or(0)),
        None => Arguments::OneOf(counts.split(['|', ' ']).filter_map(|count| count.parse().ok()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_understood() {
        assert_eq!(rows().count(), include_str!("known.tsv").lines().count() - 1);
        for row in rows() {
            assert!(!row.contexts.names().is_empty(), "{} stands nowhere", row.name);
            assert!(row.arguments != Arguments::OneOf(vec![]), "{} takes nothing at all", row.name);
        }
    }
}
