//! Places in the text: every word remembers where it was written, so that every fault can point.

use std::path::PathBuf;

/// A stretch of bytes in one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// Index into [`Sources`].
    pub file: u32,
    /// First byte, counted from the start of the file.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// One text that was read: a file, or the `-g` directives of the command line.
#[derive(Clone, Debug)]
pub struct Source {
    /// The path as nginx would print it (after prefixing); `command line` for `-g`.
    pub path: PathBuf,
    /// What was read, untouched.
    pub text: Vec<u8>,
    /// The `include` that brought it in; `None` for the main file and the command line.
    pub included_at: Option<Span>,
}

/// Every text of one reading of the configuration, in the order they were opened.
/// A file that is included twice stands here twice, once for each place.
#[derive(Clone, Debug, Default)]
pub struct Sources(pub Vec<Source>);

impl Sources {
    /// The source a span lies in.
    pub fn of(&self, span: Span) -> &Source {
        &self.0[span.file as usize]
    }

    /// The bytes of a span.
    pub fn text(&self, span: Span) -> &[u8] {
        &self.of(span).text[span.start as usize..span.end as usize]
    }

    /// The 1-based line a span starts on, as nginx counts lines.
    pub fn line(&self, span: Span) -> usize {
        1 + memchr::memchr_iter(b'\n', &self.of(span).text[..span.start as usize]).count()
    }

    /// A key that sorts places in reading order, includes standing where they were included.
    pub fn reading_order(&self, span: Span) -> Vec<(u32, u32)> {
        let mut order = match self.of(span).included_at {
            Some(site) => self.reading_order(site),
            None => Vec::new(),
        };
        order.push((span.file, span.start));
        order
    }
}
