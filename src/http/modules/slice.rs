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
            exchange.log(Level::Err, &text);
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
                    Ok(body) => self.current = Some(body),
                    Err(text) => {
                        self.next = self.wanted.end;
                        return Poll::Ready(Some(Err(BodyError::Filter(text))));
                    }
                }
            }
            match ready!(self.current.as_mut().unwrap_or(&mut self.first).poll_next(cx)) {
                Some(piece) => return Poll::Ready(Some(piece)),
                None if self.next >= self.wanted.end => return Poll::Ready(None),
                None => {
                    let request = subrequest::begin_again(&self.pattern);
                    let Some(request) = request else {
                        return Poll::Ready(Some(Err(BodyError::Filter("missing slice response".into()))));
                    };
                    request.state.slice.start.set(Some(self.next));
                    self.asking = Some(Box::pin(subrequest::answer_again(request)));
                }
            }
        }
    }

    /// What of an answered piece the client gets.
    fn take(&mut self, answered: Option<Answered>) -> Result<Body, String> {
        let response = answered.ok_or("missing slice response")?.response;
        let piece = Piece::of(&response, self.next, self.size, self.etag.as_ref())?;
        self.next = piece.range.end;
        self.etag = piece.etag;
        Ok(range::part(response.body, &within(&self.wanted, &piece.range)))
    }
}

/// The part of a piece that is wanted, counted from the start of the piece.
fn within(wanted: &Range<u64>, piece: &Range<u64>) -> Range<u64> {
    let at = |offset: u64| offset.clamp(piece.start, piece.end) - piece.start;
    at(wanted.start)..at(wanted.end)
}
