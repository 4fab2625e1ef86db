//! The head of a CGI-like answer: fields, one of which may be `Status` (`ngx_http_uwsgi_process_header`, and its twins
//! for FastCGI and SCGI). RFC 3875, section 6.

use super::{HeadError, Parser, Progress, ResponseHead, Stage};
use bytes::Bytes;

/// A CGI head under way; used as [`Parser`] is.
#[derive(Debug, Default)]
pub struct CgiParser {
    parser: Parser,
    /// A status line may come first (uwsgi and SCGI, not FastCGI).
    status_line: bool,
    status: u16,
    /// Where the text of the status stands, if the upstream chose it.
    text: Option<usize>,
}

impl CgiParser {
    /// For uwsgi and SCGI: a status line as of HTTP may stand in front of the fields.
    pub fn with_status_line() -> Self {
        Self { status_line: true, ..Self::default() }
    }

    /// For FastCGI: fields only.
    pub fn fields_only() -> Self {
        Self { parser: Parser { stage: Stage::Fields, ..Parser::default() }, ..Self::default() }
    }

    /// Reads on. The head must fit into `size` bytes: `uwsgi_buffer_size` and its like.
    pub fn parse(&mut self, bytes: &[u8], size: usize) -> Result<Progress, HeadError> {
        let parser = &mut self.parser;
        let visible = &bytes[..bytes.len().min(size)];
        if parser.stage == Stage::StatusLine {
            match parser.line.read(visible, &mut parser.at) {
                Some(true) => {
                    parser.stage = Stage::Fields;
                    self.status = parser.line.status;
                }
                Some(false) => return parser.more(bytes, size),
                None => {
                    parser.stage = Stage::Fields;
                    parser.at = 0;
                    self.status_line = false;
                }
            }
            // nginx treats early hints of HTTP upstreams only.
            parser.line.status = 0;
        }
        let Some(length) = parser.fields(visible)? else { return parser.more(bytes, size) };
        if self.status == 0 {
            self.status = match (parser.facts.status(), parser.facts.has_location()) {
                (Some(index), _) => {
                    self.text = Some(index);
                    let value = parser.spans[index].value(bytes);
                    number(value)
                        .ok_or_else(|| HeadError::invalid(&[b"upstream sent invalid status \"", value, b"\""]))?
                }
                (None, true) => 302,
                (None, false) => 200,
            };
        }
        Ok(Progress::Complete(length))
    }

    /// The head, of the bytes that were complete. Its version is 1.0; its status line is empty where nginx writes its
    /// own.
    pub fn finish(&mut self, bytes: Bytes) -> ResponseHead {
        let (from, to) = self.parser.line.text;
        let status_line = match self.text {
            Some(index) => {
                let value = self.parser.spans[index].field(&bytes).value;
                if value.len() > 3 { value } else { Bytes::new() }
            }
            None if self.status_line => bytes.slice(from..to),
            None if self.parser.facts.has_location() => Bytes::from_static(b"302 Moved Temporarily"),
            None => Bytes::from_static(b"200 OK"),
        };
        let status = self.status;
        ResponseHead { version: (1, 0), status, status_line, ..self.parser.without_status(&bytes) }
    }
}

/// The first three digits.
fn number(text: &[u8]) -> Option<u16> {
    text.get(..3)?
        .iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u16::from(byte - b'0')))
}
