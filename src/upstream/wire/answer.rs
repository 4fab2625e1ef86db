//! How an upstream's answer is read: its head by the protocol's rules, and where its body ends.

use super::{
    fastcgi::{FastCgiHead, Reading, Records, What},
    memcached::{Asked, MemcachedHead, Trailer},
};
use crate::{
    http::heads::{
        Fields, HeadError, ResponseHead,
        chunked::{Scan, Scanner},
        response::{Parser, Progress, cgi::CgiParser},
        trailers,
    },
    upstream::Failure,
};
use bytes::{Buf, Bytes, BytesMut};

/// In what protocol an answer comes: a closed set.
#[derive(Clone, Debug)]
pub enum Dialect {
    /// HTTP/1 (and what has no head at all).
    Http,
    /// uwsgi and SCGI: a head as CGI's, which may begin with a status line.
    Cgi,
    /// A head as CGI's, in records.
    FastCgi(Reading),
    /// A line in front of a value.
    Memcached(Asked),
}

/// Something an answer gives to log, beside its failure. The texts are nginx's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Note {
    #[error("FastCGI sent in stderr: \"{}\"", String::from_utf8_lossy(.0))]
    Stderr(Bytes),
    #[error("upstream sent more data than specified in \"Content-Length\" header")]
    TooMuch,
    #[error("upstream sent data after final chunk")]
    BehindEnd,
    #[error("memcached sent invalid trailer")]
    Trailer,
    #[error("key: \"{}\" was not found by memcached", String::from_utf8_lossy(.0))]
    NotFound(Bytes),
}

/// A head under way.
#[derive(Debug)]
pub enum HeadReader {
    Http(Parser),
    Cgi(CgiParser),
    FastCgi(Box<FastCgiHead>),
    Memcached(Box<MemcachedHead>),
}

impl HeadReader {
    /// At the beginning of an answer.
    pub fn new(dialect: &Dialect) -> Self {
        match dialect {
            Dialect::Http => Self::Http(Parser::default()),
            Dialect::Cgi => Self::Cgi(CgiParser::with_status_line()),
            Dialect::FastCgi(reading) => Self::FastCgi(Box::new(FastCgiHead::new(reading.clone()))),
            Dialect::Memcached(asked) => Self::Memcached(Box::new(MemcachedHead::new(asked.clone()))),
        }
    }

    /// Another answer begins, of the same protocol or another.
    pub fn restart(&mut self, dialect: &Dialect) {
        match (&mut *self, dialect) {
            (Self::Http(parser), Dialect::Http) => parser.reset(),
            (this, dialect) => *this = Self::new(dialect),
        }
    }

    /// Reads on; see [`Parser::parse`]. What is no part of the answer is taken out of the bytes.
    ///
    /// # Errors
    /// What is wrong with the head.
    pub fn parse(&mut self, bytes: &mut BytesMut, size: usize) -> Result<Progress, HeadError> {
        match self {
            Self::Http(parser) => parser.parse(bytes, size),
            Self::Cgi(parser) => parser.parse(bytes, size),
            Self::FastCgi(head) => head.parse(bytes, size),
            Self::Memcached(head) => head.parse(bytes, size),
        }
    }

    /// How much may still come of a head that must fit into `size` bytes, of which there are some.
    pub fn room(&self, size: usize, here: usize) -> usize {
        match self {
            Self::FastCgi(head) => head.room(size),
            _ => size.saturating_sub(here).max(1),
        }
    }

    /// The head, of the bytes that were complete. In HTTP, another may follow.
    pub fn finish(&mut self, bytes: Bytes) -> ResponseHead {
        let text = bytes.clone();
        let head = match self {
            Self::Http(parser) => {
                let head = parser.finish(bytes);
                parser.reset();
                head
            }
            Self::Cgi(parser) => parser.finish(bytes),
            Self::FastCgi(head) => head.finish(bytes),
            Self::Memcached(head) => head.finish(),
        };
        ResponseHead { text, ..head }
    }

    /// The body behind a head. `head_only` if the request was one that is answered without any.
    pub fn body(&mut self, head: &ResponseHead, head_only: bool) -> AnswerBody {
        let plain = AnswerBody::behind(head, head_only);
        let left = if head.bodyless() { Some(0) } else { head.content_length };
        let from = head.length as u64;
        match self {
            Self::Http(_) | Self::Cgi(_) => plain,
            Self::FastCgi(reader) => {
                let reader = std::mem::replace(&mut **reader, FastCgiHead::new(Reading::default()));
                let (records, decoded, keep) = reader.into_body();
                let coding = Coding::FastCgi(Box::new(Stream { records, decoded, keep }));
                AnswerBody { coding, left, clean: false, from, ..plain }
            }
            // Nothing stands behind what says that there is nothing.
            Self::Memcached(_) if head.status == 404 => plain,
            Self::Memcached(_) => {
                let coding = Coding::Memcached(Trailer::default());
                AnswerBody { coding, left, clean: false, from, ..plain }
            }
        }
    }

    /// Takes what there is to log; `ended` when nothing more comes.
    pub fn notes(&mut self, ended: bool) -> Vec<Note> {
        match self {
            Self::Http(_) | Self::Cgi(_) => Vec::new(),
            Self::Memcached(head) => head.missing().into_iter().map(Note::NotFound).collect(),
            Self::FastCgi(head) => head.said(ended).into_iter().map(Note::Stderr).collect(),
        }
    }
}

/// The least and the most that is read of a body at once. Bytes.
const ROOM: (usize, usize) = (16 << 10, 64 << 10);

/// The most that is remembered of what is to be logged of one body. Bytes.
const NOTES: usize = 64 << 10;

/// A place within an answer's body. It holds none of its bytes.
#[derive(Debug)]
pub struct AnswerBody {
    coding: Coding,
    /// Payload that is yet to come, where that is known.
    left: Option<u64>,
    room: usize,
    /// Once it is over: nothing of it is left on the connection.
    clean: bool,
    /// Where it begins: everything behind that counts as its length. Bytes.
    from: u64,
    notes: Vec<Note>,
    /// The fields behind it, where they are wanted.
    trailers: Option<Box<Trailers>>,
}

/// The fields behind a body in the chunked coding.
#[derive(Debug)]
struct Trailers {
    /// The most they may take. Bytes.
    size: usize,
    text: Vec<u8>,
    fields: Fields,
}

/// What stands between the bytes of a body.
#[derive(Debug)]
enum Coding {
    Plain,
    Chunked(Scanner),
    FastCgi(Box<Stream>),
    Memcached(Trailer),
    Over,
}

/// A place within the output of a FastCGI application.
#[derive(Debug)]
struct Stream {
    records: Records,
    /// Of the bytes that were read, the first so many are output; those behind them are records as they came.
    decoded: usize,
    /// The connection is left open behind the answer.
    keep: bool,
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
            (false, false) if head.content_length == Some(0) => (Coding::Over, None),
            (false, false) => (Coding::Plain, head.content_length),
        };
        let from = head.length as u64;
        Self { coding, left, room: ROOM.0, clean: true, from, notes: Vec::new(), trailers: None }
    }

    /// Keeps the fields that stand behind it, of up to so many bytes (`proxy_pass_trailers`).
    pub fn keep_trailers(&mut self, size: usize) {
        self.trailers = Some(Box::new(Trailers { size, text: Vec::new(), fields: Fields::new() }));
    }

    /// The fields that stood behind it, if they were to be kept and it is over.
    pub fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref().map(|trailers| &trailers.fields)
    }

    /// Takes what there is of the body from the front of `rest`.
    ///
    /// # Errors
    /// [`Failure::Invalid`] where the coding is broken.
    pub fn next(&mut self, rest: &mut BytesMut) -> Result<Step, Failure> {
        match &mut self.coding {
            Coding::FastCgi(_) => self.next_output(rest),
            Coding::Memcached(_) => Ok(self.next_value(rest)),
            Coding::Over => Ok(Step::End),
            Coding::Plain if self.left == Some(0) => {
                self.coding = Coding::Over;
                Ok(Step::End)
            }
            Coding::Plain if rest.is_empty() => Ok(Step::More),
            Coding::Plain => {
                let n = self.left.map_or(rest.len(), |left| rest.len().min(bounded(left)));
                self.left = self.left.map(|left| left - n as u64);
                if self.left == Some(0) {
                    self.coding = Coding::Over;
                    if rest.len() > n {
                        note(&mut self.notes, Note::TooMuch);
                    }
                }
                Ok(Step::Piece(take(rest, n)))
            }
            Coding::Chunked(scanner) => {
                let trailers = self.trailers.as_deref_mut();
                if trailers.is_none() {
                    rest.advance(scanner.lead(rest));
                }
                let found = scanner.unwrap(rest, trailers.map(|trailers| &mut trailers.text));
                let piece = found.kept;
                if let Some(trailers) = &mut self.trailers {
                    trailers.read(matches!(found.scan, Scan::Done(_)))?;
                }
                match found.scan {
                    Scan::Invalid => return Err(Failure::Invalid("upstream sent invalid chunked response".into())),
                    Scan::More if piece == 0 => {
                        rest.clear();
                        return Ok(Step::More);
                    }
                    Scan::More => rest.truncate(piece),
                    Scan::Done(end) => {
                        self.coding = Coding::Over;
                        if rest.len() > end {
                            note(&mut self.notes, Note::BehindEnd);
                        }
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

    /// The same within records (`ngx_http_fastcgi_input_filter`).
    fn next_output(&mut self, rest: &mut BytesMut) -> Result<Step, Failure> {
        let Coding::FastCgi(stream) = &mut self.coding else { return Ok(Step::End) };
        let Stream { records, decoded, .. } = &mut **stream;
        let kept = records.unwrap(&mut rest[*decoded..]);
        *decoded += kept;
        rest.truncate(*decoded);
        let mut piece = None;
        loop {
            let done = records.payload() - *decoded as u64;
            let lacking = self.left.is_some_and(|left| left > 0);
            match records.event().filter(|event| event.at <= done).map(|event| &event.what) {
                // What was handed out before it comes first.
                Some(What::Closed | What::Ending) if lacking && piece.is_some() => break,
                Some(What::Closed) if lacking => {
                    return Err(Failure::Invalid("upstream prematurely closed FastCGI stdout".into()));
                }
                Some(What::Ending) if lacking => {
                    return Err(Failure::Invalid("upstream prematurely closed FastCGI request".into()));
                }
                Some(What::Said(text)) => note(&mut self.notes, Note::Stderr(text.clone())),
                Some(What::Closed | What::Ending) => {}
                None if *decoded == 0 => break,
                None if self.left == Some(0) => {
                    note(&mut self.notes, Note::TooMuch);
                    rest.clear();
                    self.coding = Coding::Over;
                    return Ok(piece.map_or(Step::End, Step::Piece));
                }
                None if piece.is_some() => break,
                None => {
                    let until = records.event().map_or(u64::MAX, |event| event.at - done);
                    let n = (*decoded).min(bounded(self.left.unwrap_or(u64::MAX).min(until)));
                    piece = Some(take(rest, n));
                    *decoded -= n;
                    self.left = self.left.map(|left| left - n as u64);
                    continue;
                }
            }
            records.take_event();
        }
        // The output may be closed before: who goes then disturbs an application that has not finished.
        if (records.ended || records.more) && records.event().is_none() && *decoded == 0 {
            self.clean = records.ended;
            self.coding = Coding::Over;
            return Ok(piece.map_or(Step::End, Step::Piece));
        }
        match (piece, records.fault) {
            (Some(piece), _) => Ok(Step::Piece(piece)),
            (None, Some(fault)) => Err(Failure::Invalid(fault.to_string())),
            (None, None) => Ok(Step::More),
        }
    }

    /// The same in front of memcached's `END` (`ngx_http_memcached_filter`).
    fn next_value(&mut self, rest: &mut BytesMut) -> Step {
        let (Coding::Memcached(trailer), Some(left)) = (&mut self.coding, self.left.as_mut()) else { return Step::End };
        let n = rest.len().min(bounded(*left));
        let piece = (n > 0).then(|| take(rest, n));
        *left -= n as u64;
        let end = if *left == 0 { trailer.read(rest) } else { Some(false) };
        if *left == 0 {
            rest.clear();
        }
        if end != Some(false) {
            self.clean = end.is_some();
            self.coding = Coding::Over;
        }
        if end.is_none() {
            note(&mut self.notes, Note::Trailer);
        }
        match (piece, end) {
            (Some(piece), _) => Step::Piece(piece),
            (None, Some(false)) => Step::More,
            (None, _) => Step::End,
        }
    }

    /// Whether all of it was handed out.
    pub fn is_over(&self) -> bool {
        matches!(self.coding, Coding::Over)
    }

    /// Whether it is over, and nothing of it is left on the connection.
    pub fn is_clean(&self) -> bool {
        self.is_over() && self.clean
    }

    /// Whether everything was handed out, and what ends it is still to come.
    pub fn wants_end(&self) -> bool {
        matches!(self.coding, Coding::FastCgi(_) | Coding::Memcached(_)) && self.left == Some(0)
    }

    /// Its length as nginx counts it, of so many bytes of the answer: with what frames it.
    pub fn length(&self, received: u64) -> u64 {
        received.saturating_sub(self.from)
    }

    /// Leaves a body behind that is over.
    #[must_use]
    pub fn take(&mut self) -> Self {
        std::mem::replace(
            self,
            Self {
                coding: Coding::Over,
                left: None,
                room: ROOM.0,
                clean: false,
                from: 0,
                notes: Vec::new(),
                trailers: None,
            },
        )
    }

    /// What there is to log.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// [`Failure::Closed`] unless that is how the body ends.
    pub fn cut_off(&mut self) -> Result<(), Failure> {
        if let Coding::FastCgi(stream) = &mut self.coding {
            stream.records.cut_off();
            stream.records.take_said().for_each(|text| note(&mut self.notes, Note::Stderr(text)));
        }
        let ends = match &self.coding {
            Coding::Over => true,
            Coding::Plain => self.left.is_none(),
            // Who was not asked to leave the connection open need not say more.
            Coding::FastCgi(stream) => !stream.keep && self.left.unwrap_or(0) == 0,
            Coding::Chunked(_) | Coding::Memcached(_) => false,
        };
        if !ends {
            return Err(Failure::Closed);
        }
        self.coding = Coding::Over;
        Ok(())
    }

    /// How much is worth reading at once. One byte more than there should be tells who sends too much.
    pub fn room(&self) -> usize {
        match self.left {
            Some(left) if matches!(self.coding, Coding::Plain) => bounded(left).saturating_add(1).min(self.room),
            _ => self.room,
        }
    }

    /// So much was read at once.
    pub fn note_read(&mut self, n: usize) {
        if n >= self.room {
            self.room = (self.room * 2).min(ROOM.1);
        }
    }
}

impl Trailers {
    fn read(&mut self, complete: bool) -> Result<(), Failure> {
        if self.text.len() >= self.size {
            return Err(Failure::Invalid("upstream sent too big trailers".into()));
        }
        if complete {
            let text = std::mem::take(&mut self.text).into();
            self.fields = trailers(&text).map_err(|error| Failure::Invalid(error.to_string()))?;
        }
        Ok(())
    }
}

/// Remembers something to log, unless there is too much of it already.
fn note(notes: &mut Vec<Note>, note: Note) {
    let length = |note: &Note| if let Note::Stderr(text) = note { text.len() } else { 0 };
    if notes.iter().map(length).sum::<usize>() < NOTES {
        notes.push(note);
    }
}

fn bounded(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX)
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
    fn fields_behind_a_body_are_kept_if_that_is_wanted() {
        let head = ResponseHead { chunked: true, status: 200, ..ResponseHead::default() };
        let cases = [
            ("5;x\r\nhello\r\n0;y\r\nA: b\r\nc:d \r\n\r\nHTTP", Ok("A=b,c=d")),
            ("5\r\nhello\r\n0\r\n\r\nHTTP", Ok("")),
            ("0\r\n:x\r\n\r\n", Err("upstream sent invalid trailer: \"\\x3a...\"")),
            ("0\r\nlonger: 0123456789012345678901234567890123456789\r\n\r\n", Err("upstream sent too big trailers")),
        ];
        for (text, expected) in cases {
            for step in 1..=text.len() {
                let mut body = AnswerBody::behind(&head, false);
                body.keep_trailers(40);
                let (mut rest, mut pieces) = (BytesMut::new(), text.as_bytes().chunks(step));
                let found = loop {
                    match body.next(&mut rest) {
                        Err(failure) => break Err(failure.to_string()),
                        Ok(Step::End) => break Ok(body.trailers().unwrap().clone()),
                        Ok(Step::Piece(_)) if body.is_over() => break Ok(body.trailers().unwrap().clone()),
                        Ok(Step::Piece(_)) => {}
                        Ok(Step::More) => rest.extend_from_slice(pieces.next().unwrap()),
                    }
                };
                let found = found.map(|fields| {
                    let lines = fields.iter().map(|field| [&field.name[..], b"=", &field.value].concat());
                    lines.map(|line| String::from_utf8(line).unwrap()).collect::<Vec<_>>().join(",")
                });
                assert_eq!(found.as_deref().map_err(|error| &**error), expected, "{text:?} by {step}");
            }
        }
    }

    #[test]
    fn who_sends_too_much_is_noted() {
        let chunked = ResponseHead { chunked: true, status: 200, ..ResponseHead::default() };
        let length = ResponseHead { content_length: Some(5), status: 200, ..ResponseHead::default() };
        for (head, text, notes) in [
            (&length, "hello", &[][..]),
            (&length, "hello world", &[Note::TooMuch]),
            (&chunked, "5\r\nhello\r\n0\r\n\r\n", &[]),
            (&chunked, "5\r\nhello\r\n0\r\n\r\nHTTP", &[Note::BehindEnd]),
        ] {
            let (mut body, mut rest) = (AnswerBody::behind(head, false), BytesMut::from(text));
            assert_eq!(body.next(&mut rest).unwrap(), Step::Piece(Bytes::from_static(b"hello")));
            assert!(body.is_over());
            assert_eq!(body.notes(), notes, "{text:?}");
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
