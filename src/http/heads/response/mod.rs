//! The head of an upstream's answer, read and judged as nginx does it (`ngx_http_proxy_process_status_line`,
//! `…_process_header`, and the handlers of single fields in `ngx_http_upstream.c`).

pub mod cgi;
mod facts;
mod status_line;

#[cfg(test)]
mod tests;

use super::{
    Fields,
    field_line::{Dialect, FieldLine, Span, Step},
};
use bytes::Bytes;
use facts::Facts;
use smallvec::SmallVec;
use status_line::StatusLine;

/// The head of an upstream's answer.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// `(0, 9)` if the upstream sent no head at all: everything it sends is body, and nginx passes it on without a head
    /// of its own.
    pub version: (u8, u8),
    /// Three digits as sent; nginx takes any.
    pub status: u16,
    /// The status line behind the version: `200 OK`. Empty if nginx writes its own.
    pub status_line: Bytes,
    /// In order, as sent, without the repeated fields nginx drops (see `warnings`).
    pub fields: Fields,
    /// `Content-Length`, if there was one.
    pub content_length: Option<u64>,
    /// The body is in the chunked coding.
    pub chunked: bool,
    /// The connection cannot be used again (`u->headers_in.connection_close`).
    pub close: bool,
    /// There is an `Upgrade` field.
    pub upgrade: bool,
    /// Bytes of the head.
    pub length: usize,
    /// The head itself, down to the empty line.
    pub text: Bytes,
    /// What nginx logs at `warn` about it: `upstream sent duplicate header line: …, ignored`.
    pub warnings: Vec<Bytes>,
}

impl ResponseHead {
    /// The text behind the status: `OK`.
    pub fn reason(&self) -> &[u8] {
        self.status_line.get(3..).map_or(&[], |text| text.strip_prefix(b" ").unwrap_or(text))
    }

    /// Whether no body follows, whatever the fields say (RFC 9112, section 6.3). The answer to `HEAD` has none either.
    pub fn bodyless(&self) -> bool {
        matches!(self.status, 101 | 204 | 304)
    }
}

/// Why an upstream's head cannot be used. The texts are nginx's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The head breaks a rule: `invalid_header` for `proxy_next_upstream`.
    #[error("{}", String::from_utf8_lossy(.0))]
    Invalid(Bytes),
    /// It does not fit into `proxy_buffer_size`: `invalid_header`, too.
    #[error("upstream sent too big header")]
    TooBig,
    /// What the upstream said is not to be said (`fastcgi_catch_stderr`): `invalid_header`, too.
    #[error("")]
    Caught,
    /// The upstream closed before the head was complete: `error`.
    #[error("upstream prematurely closed connection")]
    Closed,
    /// The connection broke: `error`.
    #[error("{0}")]
    Io(std::io::ErrorKind),
}

impl HeadError {
    #[cold]
    pub(super) fn invalid(parts: &[&[u8]]) -> Self {
        Self::Invalid(parts.concat().into())
    }
}

/// What came of reading on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Partial,
    /// The head is complete; it took so many of the bytes, and [`Parser::finish`] makes it of them.
    Complete(usize),
}

/// A head under way. It holds positions only; the bytes stay with the caller, who hands in all of them, from the first
/// on, at each call. No byte is looked at twice.
#[derive(Debug, Default)]
pub struct Parser {
    at: usize,
    stage: Stage,
    line: StatusLine,
    field: FieldLine,
    spans: SmallVec<[Span; 24]>,
    facts: Facts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    StatusLine,
    Fields,
    /// No status line: HTTP/0.9.
    NoHead,
}

impl Parser {
    /// Reads on. The head must fit into `size` bytes: `proxy_buffer_size`.
    pub fn parse(&mut self, bytes: &[u8], size: usize) -> Result<Progress, HeadError> {
        let visible = &bytes[..bytes.len().min(size)];
        if self.stage == Stage::StatusLine {
            match self.line.read(visible, &mut self.at) {
                Some(true) => {
                    self.stage = Stage::Fields;
                    if self.line.status == 103 && self.line.version < (1, 1) {
                        return Err(HeadError::invalid(&[b"upstream sent HTTP/1.0 response with early hints"]));
                    }
                }
                Some(false) => return self.more(bytes, size),
                None => {
                    self.stage = Stage::NoHead;
                    self.at = 0;
                }
            }
        }
        if self.stage == Stage::NoHead {
            return Ok(Progress::Complete(0));
        }
        self.fields(visible)?.map_or_else(|| self.more(bytes, size), |at| Ok(Progress::Complete(at)))
    }

    /// The head, of the bytes that were complete: as many as [`Progress::Complete`] said. [`Parser::reset`] makes it ready
    /// for another.
    pub fn finish(&mut self, bytes: Bytes) -> ResponseHead {
        if self.stage == Stage::NoHead {
            return ResponseHead { version: (0, 9), status: 200, close: true, ..ResponseHead::default() };
        }
        let (from, to) = self.line.text;
        let status_line = match &bytes[from..to] {
            b"200 OK" => Bytes::from_static(b"200 OK"),
            _ => bytes.slice(from..to),
        };
        let close = self.line.version < (1, 1) || self.facts.close;
        let (version, status) = (self.line.version, self.line.status);
        ResponseHead { version, status, status_line, close, ..self.without_status(&bytes) }
    }

    /// Forgets what was read.
    pub fn reset(&mut self) {
        (self.at, self.stage) = (0, Stage::default());
        (self.line, self.field, self.facts) = (StatusLine::default(), FieldLine::default(), Facts::default());
        self.spans.clear();
    }

    /// Reads on within the fields; the length of the head when it is complete.
    fn fields(&mut self, visible: &[u8]) -> Result<Option<usize>, HeadError> {
        let dialect = Dialect { underscores: true, answer: true };
        loop {
            match self.field.read(visible, &mut self.at, dialect) {
                Step::More => return Ok(None),
                Step::End => return Ok(Some(self.at)),
                Step::Line => {
                    let span = Span::of(&self.field);
                    self.spans.push(span);
                    // Nothing in early hints is looked at.
                    if self.line.status != 103 {
                        self.facts.note(visible, &self.spans)?;
                    }
                }
                Step::Invalid => {
                    let picture = self.field.picture(visible);
                    return Err(HeadError::invalid(&[b"upstream sent invalid header: \"", &picture, b"\""]));
                }
            }
        }
    }

    fn more(&self, bytes: &[u8], size: usize) -> Result<Progress, HeadError> {
        if bytes.len() >= size { Err(HeadError::TooBig) } else { Ok(Progress::Partial) }
    }

    /// What the fields say.
    fn without_status(&mut self, bytes: &Bytes) -> ResponseHead {
        let mut fields = Fields::with_capacity(self.spans.len());
        for (index, span) in self.spans.iter().enumerate() {
            if !self.facts.ignored.iter().any(|ignored| usize::from(*ignored) == index) {
                fields.add(span.field(bytes));
            }
        }
        ResponseHead {
            fields,
            content_length: self.facts.content_length,
            chunked: self.facts.chunked,
            close: self.facts.close,
            upgrade: self.facts.upgrade,
            length: self.at,
            warnings: std::mem::take(&mut self.facts.warnings),
            ..ResponseHead::default()
        }
    }
}
