//! How an upstream's answer is read: its head by the protocol's rules, and where its body ends.

use crate::{
    http::heads::{
        HeadError, ResponseHead,
        chunked::{Scan, Scanner},
        response::{Parser, Progress, cgi::CgiParser},
    },
    upstream::Failure,
};
use bytes::{Buf, Bytes, BytesMut};

/// In what protocol an answer comes: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// HTTP/1 (and what has no head at all).
    Http,
    /// uwsgi and SCGI: a head as CGI's, which may begin with a status line.
    Cgi,
}

/// A head under way.
#[derive(Debug)]
pub enum HeadReader {
    Http(Parser),
    Cgi(CgiParser),
}

impl HeadReader {
    /// At the beginning of an answer.
    pub fn new(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Http => Self::Http(Parser::default()),
            Dialect::Cgi => Self::Cgi(CgiParser::with_status_line()),
        }
    }

    /// Another answer begins, of the same protocol or another.
    pub fn restart(&mut self, dialect: Dialect) {
        match (&mut *self, dialect) {
            (Self::Http(parser), Dialect::Http) => parser.reset(),
            (this, dialect) => *this = Self::new(dialect),
        }
    }

    /// Reads on; see [`Parser::parse`].
    ///
    /// # Errors
    /// What is wrong with the head.
    pub fn parse(&mut self, bytes: &[u8], size: usize) -> Result<Progress, HeadError> {
        match self {
            Self::Http(parser) => parser.parse(bytes, size),
            Self::Cgi(parser) => parser.parse(bytes, size),
        }
    }

    /// The head, of the bytes that were complete. In HTTP, another may follow.
    pub fn finish(&mut self, bytes: Bytes) -> ResponseHead {
        match self {
            Self::Http(parser) => {
                let head = parser.finish(bytes);
                parser.reset();
                head
            }
            Self::Cgi(parser) => parser.finish(bytes),
        }
    }
}

/// The least and the most that is read of a body at once. Bytes.
const ROOM: (usize, usize) = (16 << 10, 64 << 10);

/// A place within an answer's body. It holds none of its bytes.
#[derive(Debug)]
pub struct AnswerBody {
    coding: Coding,
    /// Payload that is yet to come, where that is known.
    left: Option<u64>,
    room: usize,
}

/// What stands between the bytes of a body.
#[derive(Debug)]
enum Coding {
    Plain,
    Chunked(Scanner),
    Over,
}

/// What came of reading on.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Some of the body.
    Piece(Bytes),
    /// Nothing of it is here yet.
    More,
    /// It is complete.
    End,
}

impl AnswerBody {
    /// The body behind a head. `head_only` if the request was one that is answered without any.
    pub fn behind(head: &ResponseHead, head_only: bool) -> Self {
        let (coding, left) = match (head_only || head.bodyless(), head.chunked) {
            (true, _) => (Coding::Over, None),
            (false, true) => (Coding::Chunked(Scanner::default()), None),
            (false, false) => (Coding::Plain, head.content_length),
        };
        Self { coding, left, room: ROOM.0 }
    }

    /// Takes what there is of the body from the front of `rest`.
    ///
    /// # Errors
    /// [`Failure::Invalid`] where the coding is broken.
    pub fn next(&mut self, rest: &mut BytesMut) -> Result<Step, Failure> {
        match &mut self.coding {
            Coding::Over => Ok(Step::End),
            Coding::Plain if self.left == Some(0) => {
                self.coding = Coding::Over;
                Ok(Step::End)
            }
            Coding::Plain if rest.is_empty() => Ok(Step::More),
            Coding::Plain => {
                let n =
                    self.left.map_or(rest.len(), |left| rest.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                self.left = self.left.map(|left| left - n as u64);
                if self.left == Some(0) {
                    self.coding = Coding::Over;
                }
                Ok(Step::Piece(take(rest, n)))
            }
            Coding::Chunked(scanner) => {
                rest.advance(scanner.lead(rest));
                let found = scanner.unwrap(rest);
                let piece = found.kept;
                match found.scan {
                    Scan::Invalid => return Err(Failure::Invalid("upstream sent invalid chunked response".into())),
                    Scan::More if piece == 0 => {
                        rest.clear();
                        return Ok(Step::More);
                    }
                    Scan::More => rest.truncate(piece),
                    Scan::Done(end) => {
                        self.coding = Coding::Over;
                        if piece == 0 {
                            rest.advance(end);
                            return Ok(Step::End);
                        }
                        // What stands behind the body moves up to it.
                        let behind = rest.len() - end;
                        rest.copy_within(end.., piece);
                        rest.truncate(piece + behind);
                    }
                }
                Ok(Step::Piece(take(rest, piece)))
            }
        }
    }

    /// Whether all of it was handed out.
    pub fn is_over(&self) -> bool {
        matches!(self.coding, Coding::Over)
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// [`Failure::Closed`] unless that is how the body ends.
    pub fn cut_off(&mut self) -> Result<(), Failure> {
        match (&self.coding, self.left) {
            (Coding::Over, _) | (Coding::Plain, None) => {
                self.coding = Coding::Over;
                Ok(())
            }
            _ => Err(Failure::Closed),
        }
    }

    /// How much is worth reading at once.
    pub fn room(&self) -> usize {
        match self.left {
            Some(left) => usize::try_from(left).unwrap_or(usize::MAX).clamp(1, self.room),
            None => self.room,
        }
    }

    /// So much was read at once.
    pub fn note_read(&mut self, n: usize) {
        if n >= self.room {
            self.room = (self.room * 2).min(ROOM.1);
        }
    }
}

/// The first `n` bytes; the memory goes with the last of them.
fn take(rest: &mut BytesMut, n: usize) -> Bytes {
    if n == rest.len() { std::mem::take(rest).freeze() } else { rest.split_to(n).freeze() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of an answer that arrives in pieces of `step` bytes; and what came behind it.
    fn read(head: &ResponseHead, bytes: &[u8], step: usize) -> Result<(Vec<u8>, Vec<u8>), String> {
        let mut body = AnswerBody::behind(head, false);
        let (mut rest, mut out) = (BytesMut::new(), Vec::new());
        let mut pieces = bytes.chunks(step);
        loop {
            match body.next(&mut rest).map_err(|failure| failure.to_string())? {
                Step::Piece(piece) => {
                    assert!(!piece.is_empty());
                    out.extend_from_slice(&piece);
                }
                Step::End => {
                    assert!(body.is_over());
                    pieces.for_each(|piece| rest.extend_from_slice(piece));
                    return Ok((out, rest.to_vec()));
                }
                Step::More => match pieces.next() {
                    Some(piece) => rest.extend_from_slice(piece),
                    None => {
                        body.cut_off().map_err(|failure| failure.to_string())?;
                        return Ok((out, rest.to_vec()));
                    }
                },
            }
        }
    }

    #[test]
    fn a_body_ends_where_its_head_says_however_it_arrives() {
        let chunked = ResponseHead { chunked: true, status: 200, ..ResponseHead::default() };
        let length = ResponseHead { content_length: Some(5), status: 200, ..ResponseHead::default() };
        let close = ResponseHead { status: 200, ..ResponseHead::default() };
        let none = ResponseHead { status: 304, content_length: Some(5), ..ResponseHead::default() };
        let cut = "upstream prematurely closed connection";
        let cases: [(&ResponseHead, &str, Result<(&str, &str), &str>); 11] = [
            (&length, "hello", Ok(("hello", ""))),
            (&length, "hello world", Ok(("hello", " world"))),
            (&length, "hell", Err(cut)),
            (&close, "to the end", Ok(("to the end", ""))),
            (&none, "", Ok(("", ""))),
            (&none, "more", Ok(("", "more"))),
            (&chunked, "5\r\nhello\r\n0\r\n\r\n", Ok(("hello", ""))),
            (&chunked, "5;x\r\nhello\r\n6\r\n world\r\n0\r\nA: b\r\n\r\nHTTP", Ok(("hello world", "HTTP"))),
            (&chunked, "0\r\n\r\nHTTP", Ok(("", "HTTP"))),
            (&chunked, "5\r\nhello\r\n", Err(cut)),
            (&chunked, "5\r\nhelloX", Err("upstream sent invalid chunked response")),
        ];
        for (head, bytes, expected) in cases {
            for step in 1..=bytes.len().max(1) {
                let found = read(head, bytes.as_bytes(), step);
                let found =
                    found.map(|(body, rest)| (String::from_utf8(body).unwrap(), String::from_utf8(rest).unwrap()));
                let found = found.as_ref().map(|(body, rest)| (&**body, &**rest)).map_err(|error| &**error);
                assert_eq!(found, expected, "{bytes:?} by {step}");
            }
        }
    }
}
