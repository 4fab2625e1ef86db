//! The body of an upstream's answer, as it comes.

use super::{
    Failure,
    connect::Stream,
    pool::{Key, Link},
    selection::Selection,
    shape::Shape,
};
use crate::http::{body::BodyError, exchange::Exchange, heads::ClientSide, worker::Worker};
use bytes::{Bytes, BytesMut};
use hyper::body::{Body as _, Incoming};
use std::{
    future::Future,
    ops::Range,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::Sleep,
};

/// What an upstream sends behind its head. The peer is done with when it ends or is dropped.
pub struct UpstreamBody {
    source: Source,
    /// The longest gap between two reads.
    gap: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes of the body so far.
    length: u64,
    /// When the attempt began.
    began: Option<Instant>,
    selection: Option<Selection>,
    shape: Option<Box<Shape>>,
}

enum Source {
    Http { incoming: Incoming, lease: Lease },
    Raw { stream: Box<Stream>, early: Bytes, left: Option<u64> },
    Done(Option<ClientSide>),
}

/// How much is read from a CGI-like upstream at once.
const PIECE: usize = 16 << 10;

impl UpstreamBody {
    /// Over hyper.
    pub fn http(incoming: Incoming, lease: Lease, gap: Duration) -> Box<Self> {
        Self::of(Source::Http { incoming, lease }, gap)
    }

    /// To the end of the connection, or for `length` bytes; `early` came with the head.
    pub fn raw(stream: Stream, early: Bytes, length: Option<u64>, gap: Duration) -> Box<Self> {
        Self::of(Source::Raw { stream: Box::new(stream), early, left: length }, gap)
    }

    fn of(source: Source, gap: Duration) -> Box<Self> {
        Box::new(Self { source, gap, timer: None, length: 0, began: None, selection: None, shape: None })
    }

    /// Keeps the peer's selection until the body has ended.
    pub fn hold(&mut self, selection: Selection, began: Instant) {
        self.selection = Some(selection);
        self.began = Some(began);
    }

    /// `_limit_rate`, bytes a second; 0 is no limit.
    pub fn limit(&mut self, rate: u64) {
        if rate > 0 {
            self.shape.get_or_insert_default().rate = Some(rate);
        }
    }

    /// Hands out no more than a part of it.
    pub fn cut(&mut self, range: &Range<u64>) {
        self.shape.get_or_insert_default().cut(range);
    }

    /// Everything has come.
    pub fn is_over(&self) -> bool {
        match &self.shape {
            Some(shape) if shape.holds() => return false,
            Some(shape) if shape.is_spent() => return true,
            _ => {}
        }
        match &self.source {
            Source::Done(_) => true,
            Source::Raw { left, early, .. } => *left == Some(0) && early.is_empty(),
            Source::Http { .. } => false,
        }
    }

    /// The connection itself, when the answer was a switch of protocols.
    pub fn take_lease(self) -> Option<Lease> {
        match self.source {
            Source::Http { lease, .. } => Some(lease),
            _ => None,
        }
    }

    /// Writes what is known at the end into the request's last attempt.
    pub fn report(&self, exchange: &mut Exchange) {
        let worker = Rc::clone(&exchange.connection.worker);
        let now = &worker.clock;
        if self.timer.is_some() || self.shape.is_some() {
            // It was waited for.
            now.update();
        }
        let side = match &self.source {
            Source::Http { lease, .. } => lease.side(),
            Source::Done(side) => side.as_ref(),
            Source::Raw { .. } => None,
        };
        if let Some(side) = side {
            exchange.note_traffic(side);
        }
        if let Some(attempt) = exchange.tries.last_mut() {
            attempt.response_ms = self.began.map(|began| now.millis_since(began));
            attempt.response_length = self.length;
            if side.is_none() {
                attempt.bytes_received += self.length;
            }
        }
    }

    /// The next piece.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let Some(mut shape) = self.shape.take() else { return self.poll_whole(cx) };
        let next = shape.poll_next(cx, |cx| self.poll_whole(cx));
        self.shape = Some(shape);
        next
    }

    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self.poll_source(cx) {
            Poll::Ready(next) => {
                if let Some(timer) = &mut self.timer {
                    timer.as_mut().reset(tokio::time::Instant::now() + self.gap);
                }
                match &next {
                    Some(Ok(piece)) => self.length += piece.len() as u64,
                    Some(Err(_)) | None => self.selection = None,
                }
                Poll::Ready(next.map(|piece| piece.map_err(BodyError::Upstream)))
            }
            Poll::Pending => {
                let gap = self.gap;
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(gap)));
                ready!(timer.as_mut().poll(cx));
                Poll::Ready(Some(Err(BodyError::Upstream(Failure::Timeout))))
            }
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        match &mut self.source {
            Source::Done(_) => Poll::Ready(None),
            Source::Http { incoming, lease } => loop {
                match ready!(poll_frame(incoming, lease, cx)) {
                    Some(Ok(frame)) => {
                        if let Ok(piece) = frame.into_data() {
                            // Who knows the length never asks for more than that.
                            if incoming.is_end_stream() {
                                let side = self.end();
                                self.source = Source::Done(side);
                            }
                            return Poll::Ready(Some(Ok(piece)));
                        }
                    }
                    Some(Err(_)) => return Poll::Ready(Some(Err(Failure::Closed))),
                    None => {
                        let side = self.end();
                        self.source = Source::Done(side);
                        return Poll::Ready(None);
                    }
                }
            },
            Source::Raw { stream, early, left } => {
                if *left == Some(0) {
                    self.source = Source::Done(None);
                    return Poll::Ready(None);
                }
                let mut piece = std::mem::take(early);
                if piece.is_empty() {
                    piece = match ready!(poll_read(stream, cx)) {
                        Ok(piece) => piece,
                        Err(error) => {
                            let text = crate::http::files::errno(&error);
                            return Poll::Ready(Some(Err(Failure::Io("recv()", text))));
                        }
                    };
                }
                if piece.is_empty() {
                    let short = left.is_some();
                    self.source = Source::Done(None);
                    return Poll::Ready(short.then_some(Err(Failure::Closed)));
                }
                if let Some(left) = left {
                    piece.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= piece.len() as u64;
                }
                Poll::Ready(Some(Ok(piece)))
            }
        }
    }

    /// The answer is whole: its connection can serve others.
    fn end(&mut self) -> Option<ClientSide> {
        match std::mem::replace(&mut self.source, Source::Done(None)) {
            Source::Http { lease, .. } => {
                let side = lease.side().cloned();
                lease.give_back();
                side
            }
            _ => None,
        }
    }
}

/// A frame that is there, or comes when hyper is driven.
fn poll_frame(
    incoming: &mut Incoming,
    lease: &mut Lease,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>> {
    let mut nobody = Context::from_waker(Waker::noop());
    if let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(&mut nobody) {
        return Poll::Ready(frame);
    }
    if let Some(link) = &mut lease.link {
        link.drive(cx);
    }
    Pin::new(incoming).poll_frame(&mut nobody)
}

fn poll_read(stream: &mut Stream, cx: &mut Context<'_>) -> Poll<std::io::Result<Bytes>> {
    let mut room = BytesMut::zeroed(PIECE);
    let mut buf = ReadBuf::new(&mut room);
    ready!(Pin::new(stream).poll_read(cx, &mut buf))?;
    let filled = buf.filled().len();
    room.truncate(filled);
    Poll::Ready(Ok(room.freeze()))
}

/// A connection that belongs to one request until its answer has ended. Dropped before, it is closed.
pub struct Lease {
    worker: Rc<Worker>,
    key: Key,
    link: Option<Box<Link>>,
    keep: bool,
}

impl Lease {
    pub fn new(worker: Rc<Worker>, key: Key, link: Box<Link>, keep: bool) -> Self {
        Self { worker, key, link: Some(link), keep }
    }

    fn side(&self) -> Option<&ClientSide> {
        self.link.as_ref().map(|link| &link.side)
    }

    /// The connection, for good.
    pub fn into_link(mut self) -> Option<Box<Link>> {
        self.link.take()
    }

    fn give_back(mut self) {
        if let Some(link) = self.link.take().filter(|_| self.keep) {
            self.worker.pool.put(&self.key, link, self.worker.clock.instant());
        }
    }
}
