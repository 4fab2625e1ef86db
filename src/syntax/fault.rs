//! What is wrong with a configuration, as a value: made anywhere, collected, sorted and rendered in one place.

use super::span::Span;

/// How bad it is, in nginx's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration cannot be used.
    Emerg,
    /// It can be used, but something in it has no effect or another one than it seems.
    Warn,
    /// Worth a line.
    Notice,
}

/// When nginx would find it. nginx stops at the first fault it meets, and it reads a file from
/// top to bottom before it looks at what depends on several directives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Found while reading, at its place.
    Reading,
    /// Found when the levels were complete (nginx's `merge` and `init` steps).
    Settling,
    /// Found while opening what the configuration names: files, listeners.
    Opening,
}

/// Which line nginx would print behind its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Line {
    /// The line the span starts on.
    #[default]
    OfSpan,
    /// Another line: nginx reports a directive's faults where its `;` or `{` stands.
    Of(Span),
    /// The line the span starts on, told behind so many bytes of the message.
    Amid(usize),
    /// None: nginx finds it when it no longer knows the place. The picture still shows it.
    Unnamed,
}

/// Something wrong with the configuration, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    pub severity: Severity,
    pub stage: Stage,
    /// What to point at; `None` when there is no such place (`no "events" section in configuration`).
    pub span: Option<Span>,
    /// The line in nginx's message.
    pub line: Line,
    /// nginx's own words, without severity and place. Bytes of the file in it are kept as they are.
    pub message: Vec<u8>,
    /// What to do about it.
    pub help: Option<String>,
    /// Another place that matters, and why: "first set here".
    pub also: Option<(Span, &'static str)>,
}

impl Fault {
    /// An `[emerg]` found while reading.
    pub fn at(span: Span, message: impl Into<Vec<u8>>) -> Self {
        Self {
            severity: Severity::Emerg,
            stage: Stage::Reading,
            span: Some(span),
            line: Line::OfSpan,
            message: message.into(),
            help: None,
            also: None,
        }
    }

    /// An `[emerg]` that belongs to no place in particular.
    pub fn nowhere(message: impl Into<Vec<u8>>) -> Self {
        Self { span: None, stage: Stage::Settling, ..Self::at(Span::default(), message) }
    }

    /// The same as a `[warn]`.
    #[must_use]
    pub fn warn(mut self) -> Self {
        self.severity = Severity::Warn;
        self
    }

    /// The same, found at a later stage.
    #[must_use]
    pub fn when(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    /// Leaves the place out of nginx's line.
    #[must_use]
    pub fn unnamed(mut self) -> Self {
        self.line = Line::Unnamed;
        self
    }

    /// The place nginx's line names, if it names one.
    pub fn reported(&self) -> Option<Span> {
        match self.line {
            Line::OfSpan | Line::Amid(_) => self.span,
            Line::Of(span) => Some(span),
            Line::Unnamed => None,
        }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Points at a second place.
    #[must_use]
    pub fn also(mut self, span: Span, label: &'static str) -> Self {
        self.also = Some((span, label));
        self
    }
}
