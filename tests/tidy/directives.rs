//! The table of directives holds together, and DIRECTIVES.md prints it. `BLESS=1 cargo test tidy` writes it anew.

use crate::support::project;
use std::collections::BTreeSet;
use std::fmt::Write;
use tidegate::config::known::{self, Arguments, Known};
use tidegate::config::registry::Built;
use tidegate::{generation, http, settings};

/// Read outside of any registry: `include` by `syntax::include`, the blocks of the main level by `generation`, those
/// that open a level by `http::level`.
const BLOCKS: [(&str, &str); 6] = [
    ("events", "main"),
    ("http", "main"),
    ("server", "http"),
    ("location", "server, location"),
    ("limit_except", "location"),
    ("include", "main, events, http, server, location, upstream, if-in-server, if-in-location, limit_except"),
];

/// What surrounds a directive in each context. Nothing is read inside the others yet.
const AROUND: [(&str, &str, &str); 9] = [
    ("main", "", "events {}"),
    ("events", "events {", "}"),
    ("http", "events {} http {", "}"),
    ("server", "events {} http { server {", "} }"),
    ("location", "events {} http { server { location / {", "} } }"),
    ("upstream", "events {} http { upstream u { server localhost;", "} }"),
    ("if-in-server", "events {} http { server { if ($uri) {", "} } }"),
    ("if-in-location", "events {} http { server { location / { if ($uri) {", "} } } }"),
    ("limit_except", "events {} http { server { location / { limit_except GET {", "} } } }"),
];

#[test]
fn what_is_built_stands_where_nginx_has_it() {
    for (name, built) in built() {
        let rows: Vec<_> = known::rows().filter(|row| row.name == name).collect();
        let nginx: BTreeSet<_> = rows.iter().flat_map(|row| contexts(row)).collect();
        if !rows.is_empty() {
            let outside: Vec<_> = built.difference(&nginx).collect();
            assert!(outside.is_empty(), "{name} is built for {outside:?}, where nginx has none");
        }
        for row in rows {
            let row_contexts = contexts(row);
            let missing: Vec<_> = row_contexts.difference(&built).collect();
            let other_row = missing.len() == row_contexts.len();
            assert!(missing.is_empty() || other_row, "{name} is not built for {missing:?}");
        }
    }
}

#[test]
fn no_directive_is_built_twice_in_a_context() {
    for registry in registries() {
        let mut seen = BTreeSet::new();
        for (name, contexts) in registry {
            for context in contexts.split(", ") {
                assert!(seen.insert((name.clone(), context.to_owned())), "{name} is built twice for {context}");
            }
        }
    }
}

#[test]
fn a_reading_refuses_what_the_table_refuses_and_nothing_else() {
    for row in known::rows() {
        let count = match &row.arguments {
            Arguments::AtLeast(least) => *least,
            Arguments::OneOf(counts) => counts[0],
        };
        let end = if row.block { "{}" } else { ";" };
        let statement = format!("{}{} {end}", row.name, " 1".repeat(count));
        for (context, before, after) in AROUND.iter().filter(|(context, ..)| contexts(row).contains(*context)) {
            let text = format!("{before}\n{statement}\n{after}");
            let reading = generation::read_text(&[("nginx.conf", text.as_bytes())]);
            let refusal = format!("\"{}\" is not supported by this version in ", row.name);
            let refused = reading.reports.iter().any(|report| report.text.starts_with(refusal.as_bytes()));
            assert_eq!(refused, state(row, &built()) == "refused", "{statement} in {context}");
        }
    }
}

#[test]
fn the_printed_table_is_the_one_in_force() {
    let file = project("DIRECTIVES.md");
    let printed = print();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, &printed).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    let differing = kept.lines().zip(printed.lines()).find(|(kept, printed)| kept != printed);
    assert!(kept == printed, "DIRECTIVES.md is not up to date, BLESS=1 writes it anew: {differing:?}");
}

/// The whole document.
fn print() -> String {
    let built = built();
    let mut rows: Vec<_> = known::rows().collect();
    rows.sort_by_key(|row| (row.name, row.module));
    let count = |wanted: &str| rows.iter().filter(|row| state(row, &built) == wanted).count();
    let mut out = format!(
        "# Directives\n\n\
        Every directive of nginx {}, and what becomes of it here. Written by a test: `BLESS=1 cargo test tidy`.\n\n\
        - **built**: does what it does in nginx ({} of {}).\n\
        - **harmless**: accepted; what it says could have no visible effect here ({}).\n\
        - **refused**: `[emerg] \"…\" is not supported by this version` ({}).\n\n\
        The number of arguments is nginx's; a directive with a block says so.\n\n\
        | directive | contexts | arguments | module | state |\n|---|---|---|---|---|\n",
        tidegate::NGINX_VERSION,
        count("built"),
        rows.len(),
        count("harmless"),
        count("refused"),
    );
    for row in rows {
        let block = if row.block { ", block" } else { "" };
        let module = row.module.strip_prefix("ngx_").unwrap_or(row.module);
        let module = module.strip_suffix("_module").unwrap_or(module);
        let (contexts, arguments, state) = (names(row), arguments(&row.arguments), state(row, &built));
        let _ = writeln!(out, "| `{}` | {contexts} | {arguments}{block} | {module} | {state} |", row.name);
    }
    let own: Vec<_> = built.iter().filter(|(name, _)| known::names().all(|known| known != name.as_str())).collect();
    if !own.is_empty() {
        out.push_str("\n## Not nginx's\n\n| directive | contexts |\n|---|---|\n");
        for (name, contexts) in own {
            let contexts: Vec<_> = contexts.iter().map(String::as_str).collect();
            let _ = writeln!(out, "| `{name}` | {} |", contexts.join(", "));
        }
    }
    out
}

fn arguments(arguments: &Arguments) -> String {
    match arguments {
        Arguments::AtLeast(least) => format!("{least} or more"),
        Arguments::OneOf(counts) => counts.iter().map(usize::to_string).collect::<Vec<_>>().join(" or "),
    }
}

/// Where a row may stand, in words.
fn names(row: &Known) -> String {
    let names = row.contexts.names();
    if names.contains("main") && names.contains("mail-server") { "any".to_owned() } else { names }
}

fn state(row: &Known, built: &[(String, BTreeSet<String>)]) -> &'static str {
    let contexts = contexts(row);
    match built.iter().any(|(name, built)| name == row.name && !contexts.is_disjoint(built)) {
        true => "built",
        false if row.harmless => "harmless",
        false => "refused",
    }
}

/// Where a row may stand, apart from `stream` and `mail`, which are not read at all.
fn contexts(row: &Known) -> BTreeSet<String> {
    let names = row.contexts.names();
    let read = |context: &&str| !context.starts_with("stream") && !context.starts_with("mail");
    names.split(", ").filter(read).map(str::to_owned).collect()
}

/// Every name that is built, with all its contexts.
fn built() -> Vec<(String, BTreeSet<String>)> {
    let mut all = std::collections::BTreeMap::<String, BTreeSet<String>>::new();
    let blocks = BLOCKS.map(|(name, contexts)| (name.to_owned(), contexts.to_owned()));
    for (name, contexts) in registries().into_iter().flatten().chain(blocks) {
        all.entry(name).or_default().extend(contexts.split(", ").map(str::to_owned));
    }
    all.into_iter().collect()
}

/// The rows of every registry: the main level's, http's, and what stands in an `upstream` block.
fn registries() -> [Vec<(String, String)>; 3] {
    let row = |built: Built| (built.name, built.contexts.names());
    let main = settings::registry().built().map(row).collect();
    let http = http::modules::registry().built().map(row).collect();
    [main, http, http::modules::upstream::built().into_iter().map(row).collect()]
}
