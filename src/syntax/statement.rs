//! Statements as written: words, blocks, and where they stand. Nothing here knows what a directive means.

use super::span::Span;

/// One word, unquoted and unescaped, as nginx hands it to a directive.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// The bytes the directive sees.
    pub value: Vec<u8>,
    /// The place as written, quotes included.
    pub span: Span,
}

impl Word {
    /// The value for messages; bytes that are not UTF-8 are replaced.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.value)
    }
}

/// `name args… ;` or `name args… { … }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    pub name: Word,
    pub args: Vec<Word>,
    pub block: Option<Block>,
    /// The `;`, or the `{` that opens the block. nginx reports most faults on this line.
    pub end: Span,
}

/// What stands between `{` and `}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    pub statements: Vec<Statement>,
    /// The closing `}`; for a file's top level, its end.
    pub close: Span,
}
