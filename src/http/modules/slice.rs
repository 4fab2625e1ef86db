//! `slice`: asks an upstream for an answer piece by piece.

use super::{Room, core::put};
use crate::{
    config::{Directive, LEVELS, Module, values::Size},
    http::{
        body::{Body, BodyError},
        exchange::{Exchange, Method},
        phase::Break,
        range, ranges,
        response::Response,
        subrequest::{self, Answered},
        variables::Variable,
    },
    observe::error_log::Level,
    upstream::body::UpstreamBody,
};
use bytes::Bytes;
use std::{
    cell::Cell,
    future::Future,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    /// Bytes of a piece; 0 asks for all at once.
    pub size: Size,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[Directive::new("slice", LEVELS, |conf| &mut conf.size)];
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] = &[Variable::new("slice_range", slice_range)];
    type State = State;
}

/// Where the piece begins that a request asks for, once it has asked.
#[derive(Debug, Default)]
pub struct State {
    start: Cell<Option<u64>>,
}

/// `$slice_range`: the piece to ask for, as a `Range` field says it (`ngx_http_slice_range_variable`).
fn slice_range(exchange: &Exchange, out: &mut Vec<u8>) -> bool {
    let state = &exchange.state.slice;
    let size = exchange.location.settings.slice.size.0 as u64;
    let start = match state.start.get() {
        Some(start) => start,
        // Whoever asks for the first time when there is an answer is too late.
        None if size == 0 || exchange.depth > 0 || exchange.sent.status != 0 => return false,
        None => first_byte(exchange) / size * size,
    };
    state.start.set(Some(start));
    let last = start.saturating_add(size).saturating_sub(1);
    put(out, format!("bytes={start}-{last}").as_bytes())
}

/// The first byte that the client asks for (`ngx_http_slice_get_start`).
fn first_byte(exchange: &Exchange) -> u64 {
    let Some(range) = exchange.field("range").filter(|_| exchange.field("if-range").is_none()) else { return 0 };
    let Some((unit, list)) = range.split_at_checked(6) else { return 0 };
    if !unit.eq_ignore_ascii_case(b"bytes=") || list.contains(&b',') {
        return 0;
    }
    let mut rest = list;
    ranges::skip_spaces(&mut rest);
    ranges::number(&mut rest).map_or(0, i64::unsigned_abs)
}

/// Makes a whole answer of a first piece (`ngx_http_slice_header_filter`).
///
/// # Errors
/// An upstream whose answers do not fit together: nothing can be said to the client any more.
pub fn filter(exchange: &mut Exchange, response: &mut Response) -> Result<(), Break> {
    let Some(start) = exchange.state.slice.start.get() else { return Ok(()) };
    if response.status != 206 {
        exchange.state.slice.start.set(None);
        return Ok(());
    }
    let size = exchange.location.settings.slice.size.0 as u64;
    let piece = match Piece::of(response, start, size, None) {
        Ok(piece) => piece,
        Err(text) => {
            tell(exchange, response, &text);
            exchange.sent.status = response.status;
            return Err(Break::Close);
        }
    };
    response.status = 200;
    response.status_line = None;
    response.content_length = Some(piece.complete);
    response.fields.remove("content-range");
    response.fields.remove("accept-ranges");
    response.ranges = true;
    if exchange.method != Method::Head
        && let Some(pattern) = subrequest::begin_again(exchange)
    {
        let first = std::mem::take(&mut response.body);
        response.body = Body::Slices(Box::new(Slices {
            first,
            current: None,
            wanted: piece.range.start..piece.complete,
            start: piece.range.start,
            next: piece.range.end,
            size,
            etag: piece.etag,
            pattern,
            asking: None,
        }));
    }
    Ok(())
}

/// A piece of an answer, as an upstream describes it.
struct Piece {
    range: Range<u64>,
    /// Length of the whole.
    complete: u64,
    etag: Option<Bytes>,
}

impl Piece {
    /// From an answer to a request for the piece that begins here.
    fn of(response: &Response, start: u64, size: u64, expected: Option<&Bytes>) -> Result<Self, String> {
        if response.status != 206 {
            return Err(format!("unexpected status code {} in slice response", response.status));
        }
        let etag = response.etag.clone().or_else(|| response.field("etag").map(Bytes::copy_from_slice));
        if expected.is_some_and(|expected| etag.as_ref() != Some(expected)) {
            return Err("etag mismatch in slice response".into());
        }
        let parsed = response.field("content-range").and_then(ranges::parse_content_range);
        let (range, complete) = parsed.ok_or("invalid range in slice response")?;
        let complete = complete.ok_or("no complete length in slice response")?;
        let end = range.start.saturating_add(size).min(complete);
        if range.start != start || range.end != end {
            let Range { start: from, end: to } = range;
            return Err(format!("unexpected range in slice response: {from}-{to}, expected: {start}-{end}"));
        }
        Ok(Self { range, complete, etag: etag.or_else(|| expected.cloned()) })
    }
}

/// The pieces of an answer, one after the other. Each is asked for when the one before it was handed on
/// (`ngx_http_slice_body_filter`).
pub struct Slices {
    /// The piece that came with the head. It stays for what is to be told of it at the end.
    first: Body,
    /// A later one.
    current: Option<Body>,
    /// What of the whole the client gets.
    wanted: Range<u64>,
    /// Where the first piece begins.
    start: u64,
    /// Where the piece begins that is asked for next.
    next: u64,
    size: u64,
    /// Every piece must have it.
    etag: Option<Bytes>,
    /// What the requests for the pieces are made from.
    pattern: Exchange,
    asking: Option<Asking>,
}

type Asking = Pin<Box<dyn Future<Output = Option<Answered>>>>;

impl Slices {
    /// The piece that came with the head.
    pub fn first(&self) -> &Body {
        &self.first
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        let piece = self.current.as_ref().unwrap_or(&self.first);
        self.next >= self.wanted.end && self.asking.is_none() && piece.is_empty()
    }

    /// Hands out no more than a part of the whole; pieces before it are not asked for.
    pub fn cut(&mut self, range: &Range<u64>) {
        self.wanted = range.clone();
        let first = self.start..self.next;
        self.first = range::part(std::mem::take(&mut self.first), &within(range, &first));
        if self.next + self.size <= range.start {
            self.next = range.start / self.size * self.size;
        }
    }

    /// The next piece of data; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(asking) = &mut self.asking {
                let answered = ready!(asking.as_mut().poll(cx));
                self.asking = None;
                match self.take(answered) {
                    Some(body) => self.current = Some(body),
                    None => {
                        self.next = self.wanted.end;
                        return Poll::Ready(Some(Err(BodyError::Subrequest(0))));
                    }
                }
            }
            match ready!(self.current.as_mut().unwrap_or(&mut self.first).poll_next(cx)) {
                Some(piece) => return Poll::Ready(Some(piece)),
                None if self.next >= self.wanted.end => return Poll::Ready(None),
                None => {
                    let Some(request) = subrequest::begin_again(&self.pattern) else {
                        return Poll::Ready(Some(Err(BodyError::Subrequest(0))));
                    };
                    request.state.slice.start.set(Some(self.next));
                    self.asking = Some(Box::pin(subrequest::answer_again(request)));
                }
            }
        }
    }

    /// What of an answered piece the client gets; `None` if it does not fit, which is in the log.
    fn take(&mut self, answered: Option<Answered>) -> Option<Body> {
        let Some(Answered { exchange, response }) = answered else {
            self.pattern.log(Level::Err, "missing slice response");
            return None;
        };
        match Piece::of(&response, self.next, self.size, self.etag.as_ref()) {
            Ok(piece) => {
                self.next = piece.range.end;
                self.etag = piece.etag;
                Some(range::part(response.body, &within(&self.wanted, &piece.range)))
            }
            Err(text) => {
                tell(&exchange, &response, &text);
                None
            }
        }
    }
}

/// Writes to the log what is wrong with a piece.
fn tell(exchange: &Exchange, response: &Response, text: &str) {
    match response.body.upstream().and_then(UpstreamBody::whom) {
        None => exchange.log(Level::Err, text),
        about => {
            let text = format!("{text} while reading response header from upstream");
            exchange.log_about(Level::Err, &text, about.as_deref());
        }
    }
}

/// The part of a piece that is wanted, counted from the start of the piece.
fn within(wanted: &Range<u64>, piece: &Range<u64>) -> Range<u64> {
    let at = |offset: u64| offset.clamp(piece.start, piece.end) - piece.start;
    at(wanted.start)..at(wanted.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{ask, conf, fault};

    #[test]
    fn the_range_is_the_piece_with_the_first_byte() {
        for (size, fields, range) in [
            ("10", "", "bytes=0-9"),
            ("10", "Range: bytes=9-\r\n", "bytes=0-9"),
            ("10", "Range: bytes=10-12\r\n", "bytes=10-19"),
            ("10", "Range: BYTES= 25-99\r\n", "bytes=20-29"),
            ("10", "Range: bytes=-5\r\n", "bytes=0-9"),
            ("10", "Range: bytes=20-21,30-31\r\n", "bytes=0-9"),
            ("10", "Range: items=20-\r\n", "bytes=0-9"),
            ("10", "Range: bytes=20-\r\nIf-Range: x\r\n", "bytes=0-9"),
            ("10", "Range: bytes=99999999999999999999-\r\n", "bytes=0-9"),
            ("1m", "Range: bytes=3000000-\r\n", "bytes=2097152-3145727"),
            ("0", "", ""),
        ] {
            let server = format!("location / {{ slice {size}; set $range $slice_range; return 200 $range; }}");
            let answer = ask(&server, &format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
            assert_eq!(answer.text(), range, "{size} {fields}");
        }
    }

    #[test]
    fn answers_that_are_no_pieces_stay_as_they_are() {
        let server = "slice 10; add_header X-Late $slice_range; location /a { return 200 x; }
                      location /b { set $range $slice_range; return 404 $range; }";
        let asked = |path: &str| ask(server, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!((asked("/a").status, asked("/a").header("x-late")), (200, None));
        assert_eq!((asked("/b").status, asked("/b").text().as_str()), (404, "bytes=0-9"));
    }

    #[test]
    fn a_piece_must_be_the_one_that_was_asked_for() {
        let described = |status, etag: &str, range: &str| {
            let mut response = Response::new(status);
            if !etag.is_empty() {
                response.push("ETag", etag.to_owned());
            }
            if !range.is_empty() {
                response.push("Content-Range", range.to_owned());
            }
            response
        };
        for (status, etag, range, outcome) in [
            (206, "\"a\"", "bytes 10-19/100", Ok((10..20, 100))),
            (206, "\"a\"", "bytes 10-14/15", Ok((10..15, 15))),
            (200, "\"a\"", "bytes 10-19/100", Err("unexpected status code 200 in slice response")),
            (206, "\"b\"", "bytes 10-19/100", Err("etag mismatch in slice response")),
            (206, "", "bytes 10-19/100", Err("etag mismatch in slice response")),
            (206, "\"a\"", "", Err("invalid range in slice response")),
            (206, "\"a\"", "bytes 10-19", Err("invalid range in slice response")),
            (206, "\"a\"", "bytes 10-19/*", Err("no complete length in slice response")),
            (206, "\"a\"", "bytes 0-9/100", Err("unexpected range in slice response: 0-10, expected: 10-10")),
            (206, "\"a\"", "bytes 10-14/100", Err("unexpected range in slice response: 10-15, expected: 10-20")),
        ] {
            let piece = Piece::of(&described(status, etag, range), 10, 10, Some(&Bytes::from_static(b"\"a\"")));
            let piece = piece.map(|piece| (piece.range, piece.complete));
            assert_eq!(piece, outcome.map_err(str::to_owned), "{status} {etag} {range}");
        }
        assert_eq!(Piece::of(&described(206, "\"x\"", "bytes 0-4/5"), 0, 10, None).unwrap().etag.unwrap(), "\"x\"");
    }

    #[test]
    fn a_part_of_a_piece_is_counted_from_its_start() {
        for (wanted, piece, part) in [
            (0..30, 10..20, 0..10),
            (12..15, 10..20, 2..5),
            (5..15, 10..20, 0..5),
            (15..99, 10..20, 5..10),
            (0..5, 10..20, 0..0),
            (25..30, 10..20, 10..10),
        ] {
            assert_eq!(within(&wanted, &piece), part, "{wanted:?} {piece:?}");
        }
    }

    #[test]
    fn the_size_is_a_size() {
        assert_eq!(conf("slice 1m;").slice.size.0, 1 << 20);
        assert_eq!(fault("slice x;"), "\"slice\" directive invalid value");
        assert_eq!(fault("set $slice_range x;"), "the duplicate \"slice_range\" variable");
    }
}
