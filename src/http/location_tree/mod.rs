//! Which location answers a path: exact ones, the longest prefix, regular expressions in their order, level by level.

mod pattern;
#[cfg(test)]
mod tests;

pub use pattern::{Pattern, PatternError};

use smallvec::SmallVec;

use super::regex::{Captures, MatchError, Regex};

/// One `location` block, on its way into the tree.
#[derive(Debug)]
pub struct Entry<T> {
    /// What its head says.
    pub pattern: Pattern,
    /// What a path that leads here is answered with.
    pub value: T,
    /// The locations inside, in the order of the file.
    pub nested: Vec<Entry<T>>,
    /// It passes requests on (`proxy_pass` and its kin): a path that lacks only the slash at the end of its name is
    /// redirected. Without effect unless the name ends so.
    pub auto_redirect: bool,
}

/// A second location with the same name on one level: `[emerg] duplicate location "NAME" in FILE:LINE`.
#[derive(Debug, PartialEq, Eq)]
pub struct Duplicate<T> {
    /// The name both have.
    pub name: Vec<u8>,
    /// What the second one held; its line is the one nginx names.
    pub value: T,
}

/// The locations of one server.
#[derive(Debug)]
pub struct Tree<T> {
    root: Level<T>,
    named: Vec<(Box<[u8]>, T)>,
}

/// The locations directly inside a server or a location.
#[derive(Debug)]
struct Level<T> {
    /// Names that stand for themselves, sorted, each once.
    names: Vec<Node<T>>,
    /// Nodes to whose name a slash leads, sorted by the name without it.
    redirects: Vec<u32>,
    regexes: Vec<(Regex, Leaf<T>)>,
}

#[derive(Debug)]
struct Node<T> {
    name: Box<[u8]>,
    /// `location = name`
    exact: Option<Leaf<T>>,
    /// `location name` and `location ^~ name`
    prefix: Option<Leaf<T>>,
    /// The longest prefix location whose name this name continues.
    parent: Option<u32>,
}

#[derive(Debug)]
struct Leaf<T> {
    value: T,
    /// `^~`
    no_regex: bool,
    auto_redirect: bool,
    nested: Option<Box<Level<T>>>,
}

/// Where a path leads.
#[derive(Clone, Debug)]
pub struct Found<'t, T> {
    /// The location, and how it was found.
    pub outcome: Outcome<'t, T>,
    /// Every regular expression that matched on the way, outermost first. The last one's groups are `$1`…, the named
    /// groups of all are set.
    pub regexes: SmallVec<[(&'t Regex, Captures); 1]>,
}

/// How a location was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'t, T> {
    /// By `=`, on whichever level.
    Exact(&'t T),
    /// As the longest prefix, no regular expression having matched.
    Prefix(&'t T),
    /// By a regular expression.
    Regex(&'t T),
    /// By all of its name but the slash at the end: 301 to the path with that slash.
    AutoRedirect(&'t T),
    /// Not at all: the server itself answers.
    None,
}

impl<'t, T> Outcome<'t, T> {
    /// The location whose settings count.
    pub fn location(self) -> Option<&'t T> {
        match self {
            Self::Exact(value) | Self::Prefix(value) | Self::Regex(value) | Self::AutoRedirect(value) => Some(value),
            Self::None => None,
        }
    }
}

impl<T> Tree<T> {
    /// Arranges the locations of a server. Of duplicates the first one stays; nginx sees none among regular
    /// expressions and named locations, of which the first one answers. What stands directly inside a regular
    /// expression and is none itself is left out, as nginx never finds it.
    pub fn build(entries: Vec<Entry<T>>) -> (Self, Vec<Duplicate<T>>) {
        let mut duplicates = Vec::new();
        let mut named = Vec::new();
        let root = Level::build(entries, true, &mut named, &mut duplicates);
        (Self { root, named }, duplicates)
    }

    /// The location of a path (`$uri`), as `ngx_http_core_find_location` finds it.
    ///
    /// # Errors
    /// A regular expression could not be run to its end, and no other answered; nginx answers 500.
    pub fn find<'t>(&'t self, path: &[u8]) -> Result<Found<'t, T>, MatchError> {
        let mut search = Search { path, outcome: Outcome::None, regexes: SmallVec::new() };
        search.level(&self.root)?;
        Ok(Found { outcome: search.outcome, regexes: search.regexes })
    }

    /// Every location, those inside others behind them; in no other order.
    pub fn all(&self) -> Vec<&T> {
        let mut all = Vec::new();
        self.root.collect(&mut all);
        all.extend(self.named.iter().map(|(_, value)| value));
        all
    }

    /// The location `name`, `@` included, of `error_page`, `try_files` and their like.
    pub fn named(&self, name: &[u8]) -> Option<&T> {
        self.named.iter().find(|(known, _)| **known == *name).map(|(_, value)| value)
    }
}

impl<T> Level<T> {
    /// `by_name` is false inside a regular expression: nginx splits those locations off before it builds the trees of
    /// names (`ngx_http_init_static_location_trees`), so the ones inside get no tree and are not even checked.
    fn build(
        entries: Vec<Entry<T>>,
        by_name: bool,
        named: &mut Vec<(Box<[u8]>, T)>,
        duplicates: &mut Vec<Duplicate<T>>,
    ) -> Self {
        let mut level = Self { names: Vec::new(), redirects: Vec::new(), regexes: Vec::new() };
        for entry in entries {
            let is_regex = matches!(entry.pattern, Pattern::Regex(_));
            if !by_name && !is_regex {
                continue;
            }
            let nested = match entry.nested {
                nested if nested.is_empty() => None,
                nested => Some(Box::new(Self::build(nested, !is_regex, named, duplicates))),
            };
            let no_regex = matches!(entry.pattern, Pattern::PrefixNoRegex(_));
            let leaf = Leaf { value: entry.value, no_regex, auto_redirect: entry.auto_redirect, nested };
            match entry.pattern {
                Pattern::Exact(name) => level.add(name, leaf, |node| &mut node.exact, duplicates),
                Pattern::Prefix(name) | Pattern::PrefixNoRegex(name) => {
                    level.add(name, leaf, |node| &mut node.prefix, duplicates);
                }
                Pattern::Regex(regex) => level.regexes.push((regex, leaf)),
                Pattern::Named(name) => named.push((name.into(), leaf.value)),
            }
        }
        level.link();
        level
    }

    fn collect<'t>(&'t self, all: &mut Vec<&'t T>) {
        let names = self.names.iter().flat_map(|node| [&node.exact, &node.prefix]).flatten();
        for leaf in names.chain(self.regexes.iter().map(|(_, leaf)| leaf)) {
            all.push(&leaf.value);
            if let Some(nested) = &leaf.nested {
                nested.collect(all);
            }
        }
    }

    /// Puts a leaf in its place, or with the duplicates if another one is there.
    fn add(
        &mut self,
        name: Vec<u8>,
        leaf: Leaf<T>,
        slot: fn(&mut Node<T>) -> &mut Option<Leaf<T>>,
        duplicates: &mut Vec<Duplicate<T>>,
    ) {
        let at = match self.names.binary_search_by(|node| (*node.name).cmp(&name)) {
            Ok(at) => at,
            Err(at) => {
                let node = Node { name: name.as_slice().into(), exact: None, prefix: None, parent: None };
                self.names.insert(at, node);
                at
            }
        };
        match slot(&mut self.names[at]) {
            Some(_) => duplicates.push(Duplicate { name, value: leaf.value }),
            empty => *empty = Some(leaf),
        }
    }

    /// Fills in what the search needs, once all names are there.
    fn link(&mut self) {
        let mut open: Vec<u32> = Vec::new();
        for at in 0..self.names.len() {
            let name = &self.names[at].name;
            while open.last().is_some_and(|&outer| !name.starts_with(&self.names[outer as usize].name)) {
                open.pop();
            }
            let index = u32::try_from(at).unwrap_or(u32::MAX);
            let redirects = name.ends_with(b"/");
            let node = &mut self.names[at];
            node.parent = open.last().copied();
            if node.prefix.is_some() {
                open.push(index);
            }
            let leaves = [&node.exact, &node.prefix];
            if redirects && leaves.into_iter().flatten().any(|leaf| leaf.auto_redirect) {
                self.redirects.push(index);
            }
        }
        let names = &self.names;
        self.redirects.sort_by(|&a, &b| names[a as usize].stem().cmp(names[b as usize].stem()));
    }

    /// What the names alone say (`ngx_http_core_find_static_location`).
    fn find_static(&self, path: &[u8]) -> Static<'_, T> {
        let after = self.names.partition_point(|node| *node.name <= *path);
        let before = after.checked_sub(1).map(|at| &self.names[at]);
        if let Some(node) = before.filter(|node| *node.name == *path) {
            match (&node.exact, &node.prefix) {
                (Some(leaf), _) => return Static::Exact(leaf),
                (None, Some(leaf)) => return Static::Prefix(leaf),
                (None, None) => {}
            }
        }
        if let Ok(at) = self.redirects.binary_search_by(|&at| self.names[at as usize].stem().cmp(path)) {
            let node = &self.names[self.redirects[at] as usize];
            if let Some(leaf) = node.exact.as_ref().or(node.prefix.as_ref()) {
                return Static::Redirect(leaf);
            }
        }
        // Whatever is a prefix of the path is one of its neighbour's in the order, too: the rest is climbing.
        let mut node = before;
        let common = node.map_or(0, |node| node.name.iter().zip(path).take_while(|(a, b)| a == b).count());
        while let Some(candidate) = node {
            if let Some(leaf) = candidate.prefix.as_ref().filter(|_| candidate.name.len() <= common) {
                return Static::Prefix(leaf);
            }
            node = candidate.parent.map(|parent| &self.names[parent as usize]);
        }
        Static::None
    }
}

impl<T> Node<T> {
    /// The name without its last byte.
    fn stem(&self) -> &[u8] {
        self.name.split_last().map_or(&[], |(_, stem)| stem)
    }
}

enum Static<'t, T> {
    Exact(&'t Leaf<T>),
    Prefix(&'t Leaf<T>),
    Redirect(&'t Leaf<T>),
    None,
}

/// One search under way.
struct Search<'t, 'p, T> {
    path: &'p [u8],
    /// The location so far; a better one replaces it.
    outcome: Outcome<'t, T>,
    regexes: SmallVec<[(&'t Regex, Captures); 1]>,
}

impl<'t, T> Search<'t, '_, T> {
    /// Searches a level and all inside it. Tells whether the outcome is final, or regular expressions further out may
    /// still replace it.
    fn level(&mut self, level: &'t Level<T>) -> Result<bool, MatchError> {
        let mut no_regex = false;
        let mut inner = Ok(false);
        match level.find_static(self.path) {
            Static::Exact(leaf) => {
                self.outcome = Outcome::Exact(&leaf.value);
                return Ok(true);
            }
            Static::Redirect(leaf) => {
                self.outcome = Outcome::AutoRedirect(&leaf.value);
                return Ok(true);
            }
            Static::Prefix(leaf) => {
                self.outcome = Outcome::Prefix(&leaf.value);
                no_regex = leaf.no_regex;
                inner = self.inside(leaf);
            }
            Static::None => {}
        }
        if no_regex || inner == Ok(true) {
            return inner;
        }
        for (regex, leaf) in &level.regexes {
            let Some(captures) = regex.captures(self.path)? else { continue };
            self.regexes.push((regex, captures));
            self.outcome = Outcome::Regex(&leaf.value);
            self.inside(leaf)?;
            return Ok(true);
        }
        inner
    }

    fn inside(&mut self, leaf: &'t Leaf<T>) -> Result<bool, MatchError> {
        leaf.nested.as_ref().map_or(Ok(false), |level| self.level(level))
    }
}
