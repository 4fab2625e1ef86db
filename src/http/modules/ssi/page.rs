//! A page whose directives are carried out while it is sent.

use super::{
    command::{self, Failure, Flow},
    parse::{Parser, Token},
};
use crate::{
    http::{
        body::{Body, BodyError},
        exchange::Exchange,
        subrequest::{Kept, Subrequest},
    },
    observe::error_log::Level,
};
use bytes::{Bytes, BytesMut};
use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

/// How much of a page is read while what it includes is waited for.
const AHEAD: usize = 64 << 10;

/// What a piece counts that is not a text.
const SUBREQUEST: usize = 64;

/// The most that short texts are joined to.
const JOINED: usize = 32 << 10;

/// Another body, its directives carried out (`ngx_http_ssi_body_filter`). What it includes is asked for as soon as it
/// is known, and put out in the order of the page.
pub struct SsiBody {
    inner: Body,
    page: Page,
    parser: Parser,
    /// Taken from the inner body and not yet gone through.
    input: Bytes,
    /// The inner body has ended.
    read: bool,
}

/// What is being made of a page.
pub(super) struct Page {
    pub exchange: Box<Exchange>,
    /// `errmsg`
    pub errmsg: Bytes,
    pub content_type: Option<Bytes>,
    pub flow: Flow,
    /// Nothing more is read before all that was read is put out.
    pub waiting: bool,
    silent: bool,
    /// What nginx says it is doing, in the lines it logs.
    doing: &'static str,
    out: VecDeque<Piece>,
    /// Bytes in `out`.
    held: usize,
    /// There are subrequests that have not begun.
    fresh: bool,
    failed: Option<BodyError>,
}

/// What stands in line to be put out.
pub(super) enum Piece {
    Text(Bytes),
    Subrequest(Subrequest),
    /// What becomes the value of a variable.
    Set(Kept, Vec<u8>),
    Failed(BodyError),
}

impl SsiBody {
    /// The body of an exchange's answer.
    pub(super) fn new(inner: Body, exchange: Exchange, content_type: Option<Bytes>, doing: &'static str) -> Self {
        let conf = &exchange.location.settings.ssi;
        let (parser, silent) = (Parser::new(conf.value_length.0), conf.silent_errors);
        let page = Page {
            exchange: Box::new(exchange),
            errmsg: Bytes::from_static(b"[an error occurred while processing the directive]"),
            content_type,
            flow: Flow::default(),
            waiting: false,
            silent,
            doing,
            out: VecDeque::new(),
            held: 0,
            fresh: false,
            failed: None,
        };
        Self { inner, page, parser, input: Bytes::new(), read: false }
    }

    /// The body of the page itself.
    pub fn inner(&self) -> &Body {
        &self.inner
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.read && self.input.is_empty() && self.page.out.is_empty() && self.page.failed.is_none()
    }

    /// The next piece; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(error) = self.page.failed.take() {
                self.end();
                return Poll::Ready(Some(Err(error)));
            }
            if let Some(text) = self.page.take_text() {
                return Poll::Ready(Some(Ok(text)));
            }
            self.read_ahead(cx);
            if std::mem::take(&mut self.page.fresh) {
                self.page.drive(cx, 0);
                continue;
            }
            let over = self.is_empty();
            let next = match self.page.out.front_mut() {
                None if self.page.failed.is_some() => continue,
                None if self.page.waiting => {
                    self.page.waiting = false;
                    continue;
                }
                None if over => return Poll::Ready(None),
                None => return Poll::Pending,
                Some(Piece::Text(_)) => continue,
                Some(Piece::Failed(_)) => {
                    if let Some(Piece::Failed(error)) = self.page.pop() {
                        self.page.failed = Some(error);
                    }
                    continue;
                }
                Some(Piece::Subrequest(subrequest)) => subrequest.poll_next(cx),
                Some(Piece::Set(kept, name)) => match poll_set(&self.page.exchange, kept, name, cx) {
                    Poll::Ready(Ok(())) => Poll::Ready(None),
                    Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
                    Poll::Pending => Poll::Pending,
                },
            };
            match next {
                Poll::Ready(Some(Ok(piece))) if piece.is_empty() => {}
                Poll::Ready(Some(Ok(piece))) => return Poll::Ready(Some(Ok(piece))),
                Poll::Ready(Some(Err(error))) => self.page.failed = Some(error),
                Poll::Ready(None) => drop(self.page.pop()),
                Poll::Pending => {
                    // The others go on meanwhile; the first one has just been asked.
                    self.page.drive(cx, 1);
                    if self.page.failed.is_none() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Goes through what there is of the page (`ngx_http_ssi_parse`).
    pub fn read_ahead(&mut self, cx: &mut Context<'_>) {
        while !self.page.waiting && self.page.held < AHEAD && self.page.failed.is_none() {
            if self.input.is_empty() {
                if self.read {
                    return;
                }
                match self.inner.poll_next(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Some(Ok(piece))) => self.input = piece,
                    Poll::Ready(None) => self.read = true,
                    Poll::Ready(Some(Err(error))) => {
                        self.page.put(Piece::Failed(error));
                        self.read = true;
                    }
                }
                continue;
            }
            let token = self.parser.next(&mut self.input);
            if let Some(complaint) = self.parser.complaint() {
                self.page.log(Level::Err, &complaint);
            }
            if let Some(token) = token {
                self.page.take(token);
            }
        }
    }

    /// Lets what the page includes go on, before its turn to be put out.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        self.read_ahead(cx);
        self.page.fresh = false;
        self.page.drive(cx, 0);
    }

    fn end(&mut self) {
        self.read = true;
        self.input = Bytes::new();
        self.page.out.clear();
        self.inner = Body::Empty;
    }
}

impl Page {
    /// Puts a piece at the end of the line.
    pub(super) fn put(&mut self, piece: Piece) {
        self.held += piece.weight();
        self.fresh |= matches!(piece, Piece::Subrequest(_) | Piece::Set(..));
        self.out.push_back(piece);
    }

    /// Keeps a text for the block that was begun last.
    pub(super) fn keep(&self, text: &[u8]) {
        if let Some((_, block)) = self.exchange.state.ssi.common().borrow_mut().blocks.last_mut() {
            block.extend_from_slice(text);
        }
    }

    /// Says in the log why a directive cannot be carried out.
    pub(super) fn fail(&self, message: &str) -> Failure {
        self.log(Level::Err, message);
        Failure::Directive
    }

    /// Writes to the error log.
    pub(super) fn log(&self, level: Level, message: &str) {
        self.exchange.log(level, &format!("{message}{}", self.doing));
    }

    fn take(&mut self, token: Token) {
        let done = match token {
            Token::Text(text) if self.flow.output => {
                self.put(Piece::Text(text));
                Ok(())
            }
            Token::Text(text) => {
                if self.flow.block {
                    self.keep(&text);
                }
                Ok(())
            }
            Token::Broken => Err(Failure::Directive),
            Token::Directive(directive) => command::run(self, &directive),
        };
        match done {
            Ok(()) => {}
            Err(Failure::Directive) if self.silent => {}
            Err(Failure::Directive) => self.put(Piece::Text(self.errmsg.clone())),
            Err(Failure::Request(error)) => self.failed = Some(error),
        }
    }

    fn pop(&mut self) -> Option<Piece> {
        let piece = self.out.pop_front()?;
        self.held -= piece.weight();
        Some(piece)
    }

    /// The texts at the head of the line, short ones joined.
    fn take_text(&mut self) -> Option<Bytes> {
        let mut joined = BytesMut::new();
        loop {
            match self.out.front() {
                Some(Piece::Text(text)) if joined.is_empty() || joined.len() + text.len() <= JOINED => {}
                _ => return Some(joined.freeze()).filter(|joined| !joined.is_empty()),
            }
            let Some(Piece::Text(text)) = self.pop() else { return None };
            if joined.is_empty() && !matches!(self.out.front(), Some(Piece::Text(_))) {
                return Some(text).filter(|text| !text.is_empty());
            }
            joined.extend_from_slice(&text);
        }
    }

    /// Lets all subrequests go on but for so many at the head of the line: first to their heads, then beyond.
    fn drive(&mut self, cx: &mut Context<'_>, but: usize) {
        for piece in self.out.iter_mut().skip(but) {
            let going = match piece {
                Piece::Text(_) | Piece::Failed(_) => continue,
                Piece::Subrequest(subrequest) => subrequest.poll_head(cx),
                Piece::Set(kept, name) => poll_set(&self.exchange, kept, name, cx),
            };
            if let Poll::Ready(Err(error)) = going {
                self.failed = Some(error);
                return;
            }
        }
        for piece in self.out.iter_mut().skip(but) {
            if let Piece::Subrequest(subrequest) = piece {
                subrequest.drive(cx);
            }
        }
    }
}

impl Piece {
    fn weight(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Subrequest(_) | Self::Set(..) | Self::Failed(_) => SUBREQUEST,
        }
    }
}

/// Goes on with an answer that becomes the value of a variable (`ngx_http_ssi_set_variable`).
fn poll_set(page: &Exchange, kept: &mut Kept, name: &[u8], cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
    kept.poll(cx).map_ok(|value| {
        if let Some(value) = value {
            page.state.ssi.common().borrow_mut().set(name, value);
        }
    })
}
