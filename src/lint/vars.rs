//! Which variables clients choose the value of.

use crate::syntax::{Block, Statement};
use std::collections::BTreeSet;

/// The variables that clients choose, besides those that are so by nature.
pub(super) struct Tainted(BTreeSet<String>);

/// What nginx takes from requests as it is.
const NATURAL: [&str; 14] = [
    "host",
    "uri",
    "document_uri",
    "request_uri",
    "request",
    "args",
    "query_string",
    "request_body",
    "request_filename",
    "remote_user",
    "content_type",
    "http2",
    "realpath_root",
    "fastcgi_path_info",
];

/// The same by the beginning of the name.
const FAMILIES: [&str; 3] = ["arg_", "http_", "cookie_"];

impl Tainted {
    /// Follows what `set`, `map` and regular expressions hand on.
    pub(super) fn of(root: &Block) -> Self {
        let mut tainted = Self(BTreeSet::new());
        loop {
            let before = tainted.0.len();
            tainted.follow(&root.statements);
            if tainted.0.len() == before {
                return tainted;
            }
        }
    }

    fn follow(&mut self, statements: &[Statement]) {
        for statement in statements {
            self.captures(statement);
            match (&statement.name.value[..], &statement.args[..]) {
                (b"set", [name, value]) => self.hand_on(&name.value, self.first_in(&value.value).is_some()),
                (b"map", [source, name]) => {
                    let given = statement.block.iter().flat_map(|block| &block.statements);
                    // A value of the map's own is nobody's choice; one that is made of the source is.
                    let echoes = given.flat_map(|row| &row.args).any(|value| self.first_in(&value.value).is_some());
                    let from = self.first_in(&source.value).is_some();
                    self.hand_on(&name.value, from && echoes);
                }
                _ => {}
            }
            if let Some(block) = statement.block.as_ref().filter(|_| statement.name.value != b"map") {
                self.follow(&block.statements);
            }
        }
    }

    fn hand_on(&mut self, name: &[u8], tainted: bool) {
        if tainted && let Some(name) = name.strip_prefix(b"$") {
            self.0.insert(String::from_utf8_lossy(name).into_owned());
        }
    }

    /// The named groups of expressions that paths, hosts and variables are held against.
    fn captures(&mut self, statement: &Statement) {
        if !matches!(&statement.name.value[..], b"location" | b"server_name" | b"if" | b"rewrite") {
            return;
        }
        for word in &statement.args {
            for (at, _) in word.value.windows(2).enumerate().filter(|(_, pair)| pair == b"?<") {
                let rest = &word.value[at + 2..];
                let name: Vec<u8> = rest.iter().copied().take_while(|byte| is_name(*byte)).collect();
                if !name.is_empty() && rest.get(name.len()) == Some(&b'>') {
                    self.0.insert(String::from_utf8_lossy(&name).into_owned());
                }
            }
        }
    }

    /// The first variable of a text that clients choose.
    pub(super) fn first_in(&self, text: &[u8]) -> Option<String> {
        names(text).into_iter().find(|name| {
            let digit = name.len() == 1 && name.as_bytes()[0].is_ascii_digit();
            let family = FAMILIES.iter().any(|family| name.starts_with(family));
            digit || family || NATURAL.contains(&&name[..]) || self.0.contains(name)
        })
    }
}

/// What stands before the path of an URL: before a slash, or a variable that begins with one.
pub(super) fn before_path(url: &[u8]) -> &[u8] {
    let path = |at: usize| {
        let rest = &url[at..];
        rest.starts_with(b"/")
            || at > 0
                && matches!(names(rest).first().map(|name| &name[..]), Some("uri" | "document_uri" | "request_uri"))
                && rest.starts_with(b"$")
    };
    &url[..(0..url.len()).find(|at| path(*at)).unwrap_or(url.len())]
}

/// The variables in a text: `$name` and `${name}`.
pub(super) fn names(text: &[u8]) -> Vec<String> {
    let mut rest = text;
    let mut found = Vec::new();
    while let Some(at) = memchr::memchr(b'$', rest) {
        rest = &rest[at + 1..];
        let name = rest.strip_prefix(b"{").unwrap_or(rest);
        let length = match name.first() {
            Some(digit) if digit.is_ascii_digit() => 1,
            _ => name.iter().take_while(|byte| is_name(**byte)).count(),
        };
        if length > 0 {
            found.push(String::from_utf8_lossy(&name[..length]).into_owned());
        }
    }
    found
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}
