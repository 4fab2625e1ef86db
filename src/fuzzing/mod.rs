//! What holds for any bytes at all: the bodies of the targets in `fuzz/`, which the tests run over the committed corpus.
//!
//! A target takes bytes as a file or a network would bring them, and panics where something that must always hold does
//! not. Each one reads what a program could read, so whatever it finds can happen to a user.

mod cache;
mod filters;
mod http;
mod page;
mod script;
mod script_rules;
mod text;
mod wire;

/// One target: any bytes in, a panic if what must always hold does not.
pub type Target = fn(&[u8]);

/// Every target by the name it has in `fuzz/fuzz_targets` and `fuzz/corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("answers", http::answers),
    ("cache", cache::cache),
    ("chunked", http::chunked),
    ("config", text::config),
    ("fastcgi", wire::fastcgi),
    ("grpc", wire::grpc),
    ("gzip", filters::gzip),
    ("heads", http::heads),
    ("location", text::location),
    ("proxy_protocol", wire::proxy_protocol),
    ("ranges", filters::ranges),
    ("rewrite", script::rewrite),
    ("ssi", page::ssi),
    ("sub_filter", filters::sub_filter),
    ("syntax", text::syntax),
    ("template", text::template),
    ("uri", http::uri),
    ("uwsgi", wire::uwsgi),
];

/// Runs the target of that name.
///
/// # Panics
/// There is none, or it found something.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    assert!(found.is_some(), "no fuzz target is called {name}");
    if let Some((_, target)) = found {
        target(data);
    }
}

/// The first byte as a number from 1 on, and the rest: how many bytes arrive at once, and which.
fn paced(data: &[u8]) -> (usize, &[u8]) {
    match data {
        [step, rest @ ..] => (usize::from(*step).max(1), rest),
        [] => (1, data),
    }
}
