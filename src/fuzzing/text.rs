//! Configuration texts.

use crate::{
    config::{
        Inputs, Scope,
        render::{self, Rendering},
        scope::Surroundings,
    },
    generation,
    http::{
        location_tree::{Entry, Outcome, Pattern, Tree},
        template::{Part, Template},
    },
    syntax::{self, Block, Source, Sources, Span, Statement, Word},
};
use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// A text is read to its end; every place lies within it; every fault can be drawn; and what was read, printed and read
/// again, is the same.
pub(super) fn syntax(data: &[u8]) {
    let mut faults = Vec::new();
    let block = syntax::parse(0, data, &mut faults);
    visit(&block, data.len());
    let sources = Sources(vec![Source { path: "nginx.conf".into(), text: data.to_vec(), included_at: None }]);
    render::sort(&mut faults, &sources);
    for fault in &faults {
        let drawn = render::render(fault, &sources, &Rendering { pictures: true, color: true, width: 80 });
        assert!(drawn.starts_with(b"nginx: ["), "a fault without nginx's line");
    }
    let mut none = Vec::new();
    let again = syntax::parse(0, &syntax::dump::write(&block), &mut none);
    assert!(none.is_empty(), "what was printed has faults: {none:?}");
    assert!(same(&block, &again), "what was printed reads otherwise");
    syntax::parser::parse_globals(0, data, &mut none);
}

fn visit(block: &Block, length: usize) {
    let within = |span: Span| assert!(span.start <= span.end && span.end as usize <= length, "{span:?} of {length}");
    within(block.close);
    for Statement { name, args, block, end } in &block.statements {
        for word in args.iter().chain([name]) {
            within(word.span);
        }
        within(*end);
        if let Some(block) = block {
            visit(block, length);
        }
    }
}

/// Whether two blocks say the same, wherever it stands.
fn same(a: &Block, b: &Block) -> bool {
    let words = |statement: &Statement| -> Vec<Vec<u8>> {
        [&statement.name].into_iter().chain(&statement.args).map(|word| word.value.clone()).collect()
    };
    let statements = |(a, b): (&Statement, &Statement)| {
        words(a) == words(b)
            && match (&a.block, &b.block) {
                (Some(a), Some(b)) => same(a, b),
                (a, b) => a.is_none() && b.is_none(),
            }
    };
    a.statements.len() == b.statements.len() && a.statements.iter().zip(&b.statements).all(statements)
}

/// A whole configuration is read: the first text is `nginx.conf`, those behind a NUL are `1.conf`, `2.conf` and so on.
/// It is usable exactly when no `[emerg]` was reported, and reading it again gives the same reports.
pub(super) fn config(data: &[u8]) {
    let texts = data.split(|byte| *byte == 0).take(5);
    let names = ["nginx.conf", "1.conf", "2.conf", "3.conf", "4.conf"];
    let files: Vec<_> = names.into_iter().zip(texts).collect();
    let read = || {
        let reading = generation::read_text(&files);
        let emerg = reading.reports.iter().any(|report| report.level == crate::process::Level::Emerg);
        assert_eq!(reading.ready.is_none(), emerg, "usable or not, and the reports: {:?}", reading.reports);
        reading.reports.into_iter().map(|report| report.text).collect::<Vec<_>>()
    };
    assert_eq!(read(), read());
}

/// Locations, one on each line up to an empty one, then a path. Without regular expressions involved or with, the path
/// leads where nginx's documentation says: the exact one, the longest prefix, or the first expression.
pub(super) fn location(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let heads: Vec<&[u8]> = lines.by_ref().take_while(|line| !line.is_empty()).take(64).collect();
    let path = lines.next().unwrap_or_default();
    let patterns = |heads: &[&[u8]]| -> Vec<Pattern> {
        let words = |line: &&[u8]| {
            let mut words = line.splitn(2, |byte| *byte == b' ');
            let first = words.next().unwrap_or_default();
            match words.next() {
                Some(second) => Pattern::parse(&[first, second]),
                None => Pattern::parse(&[first]),
            }
        };
        heads.iter().filter_map(|line| words(line).ok()).collect()
    };
    let patterns_twice = (patterns(&heads), patterns(&heads));
    let entry =
        |redirect: bool| move |(value, pattern)| Entry { pattern, value, nested: Vec::new(), auto_redirect: redirect };
    // What would be redirected and what stands within others has no simple answer; it must be found without a panic.
    let nested = patterns(&heads).into_iter().enumerate().map(entry(true)).rev().reduce(|inner, mut outer| {
        let fits = inner.pattern.check_inside(&outer.pattern).is_ok();
        outer.nested.extend(fits.then_some(inner));
        outer
    });
    let _ = Tree::build(nested.into_iter().collect()).0.find(path);

    let (tree, _) = Tree::build(patterns_twice.0.into_iter().enumerate().map(entry(false)).collect());
    let Ok(found) = tree.find(path) else { return };
    let found = match found.outcome {
        Outcome::Exact(at) | Outcome::Prefix(at) | Outcome::Regex(at) | Outcome::AutoRedirect(at) => Some(*at),
        Outcome::None => None,
    };
    assert_eq!(found, expected(&patterns_twice.1, path));
}

/// The location of a path, found the slow way.
fn expected(patterns: &[Pattern], path: &[u8]) -> Option<usize> {
    let exact = patterns.iter().position(|pattern| matches!(pattern, Pattern::Exact(name) if *name == path));
    if exact.is_some() {
        return exact;
    }
    let mut longest: Option<(usize, usize, bool)> = None;
    for (at, pattern) in patterns.iter().enumerate() {
        let (name, stop) = match pattern {
            Pattern::Prefix(name) => (name, false),
            Pattern::PrefixNoRegex(name) => (name, true),
            _ => continue,
        };
        if path.starts_with(name) && longest.is_none_or(|(_, length, _)| name.len() > length) {
            longest = Some((at, name.len(), stop));
        }
    }
    let prefix = longest.map(|(at, _, _)| at);
    if longest.is_some_and(|(_, _, stop)| stop) {
        return prefix;
    }
    let matches = |pattern: &Pattern| matches!(pattern, Pattern::Regex(regex) if regex.is_match(path) == Ok(true));
    patterns.iter().position(matches).or(prefix)
}

/// A text with variables: no `$` stays in what it takes literally, and nothing it takes literally is its own.
pub(super) fn template(data: &[u8]) {
    let scope = Scope::new(Surroundings::default(), &Nowhere);
    let word = Word { value: data.to_vec(), span: Span::default() };
    let Ok(compiled) = Template::compile(&word, &scope) else { return };
    let mut rest = data;
    for part in compiled.parts() {
        if let Part::Literal(text) = part {
            assert!(!text.is_empty() && !text.contains(&b'$'), "{text:?}");
            let at = rest.windows(text.len()).position(|window| window == text);
            assert!(at.is_some(), "{text:?} is not in {rest:?}");
            rest = &rest[at.unwrap_or_default() + text.len()..];
        }
    }
    assert_eq!(compiled.as_literal().is_some(), !data.contains(&b'$'));
    assert_eq!(Ok(compiled), Template::compile(&word, &scope).map_err(|_| ()));
}

/// A world without anything in it.
struct Nowhere;

impl Inputs for Nowhere {
    fn read(&self, _path: &Path) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn glob(&self, _pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn resolve(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        Err(io::ErrorKind::NotFound.into())
    }
}
