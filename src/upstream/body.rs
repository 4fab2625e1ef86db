//! The body of an upstream's answer, as it comes.

use super::{
    Failure, link::Link, pass, peer::Peer, pool::Key, selection::Selection, shape::Shape, wire::answer::AnswerBody,
};
use crate::{
    http::{body::BodyError, exchange::Exchange, heads::Meter, worker::Worker},
    observe::error_log::Level,
};
use bytes::Bytes;
use std::{
    future::Future,
    ops::Range,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::time::Sleep;

/// What an upstream sends behind its head. The peer is done with when it ends or is dropped.
pub struct UpstreamBody {
    /// `None` when it has ended.
    lease: Option<Lease>,
    rest: AnswerBody,
    meter: Rc<Meter>,
    /// The longest gap between two reads.
    gap: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes of the body so far.
    length: u64,
    /// When the attempt began.
    began: Option<Instant>,
    selection: Option<Selection>,
    shape: Option<Box<Shape>>,
    source: Option<Source>,
    /// Why it ended too early.
    failed: Option<String>,
}

/// Whom the log names when something is said about a body.
#[derive(Clone)]
pub struct Source {
    /// `http://` and its kin.
    pub scheme: &'static str,
    pub peer: Arc<Peer>,
    /// The path that was asked for.
    pub uri: Bytes,
}

impl Source {
    /// The upstream as nginx's log names it.
    pub fn text(&self) -> String {
        let (scheme, name, uri) = (self.scheme, &self.peer.name, String::from_utf8_lossy(&self.uri));
        let colon = if name.starts_with("unix:") { ":" } else { "" };
        format!("{scheme}{name}{colon}{uri}")
    }
}

impl UpstreamBody {
    /// What comes over a connection; `gap` is the longest time between two reads.
    pub fn new(lease: Lease, rest: AnswerBody, gap: Duration) -> Box<Self> {
        let meter = Rc::clone(&lease.link.meter);
        let lease = Some(lease);
        Box::new(Self {
            lease,
            rest,
            meter,
            gap,
            timer: None,
            length: 0,
            began: None,
            selection: None,
            shape: None,
            source: None,
            failed: None,
        })
    }

    /// Keeps the peer's selection until the body has ended.
    pub fn hold(&mut self, selection: Selection, began: Instant, source: Source) {
        self.selection = Some(selection);
        self.began = Some(began);
        self.source = Some(source);
    }

    /// Nobody wants it. If there is none, its connection can serve others.
    pub fn forgo(&mut self) {
        if self.rest.is_over() {
            self.end(true);
        }
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
        self.lease.is_none() || self.rest.is_over()
    }

    /// The connection itself, when the answer was a switch of protocols.
    pub fn take_link(mut self) -> Option<Box<Link>> {
        self.lease.take().map(|lease| lease.link)
    }

    /// Writes what is known at the end into the request's last attempt.
    pub fn report(&self, exchange: &mut Exchange) {
        let worker = Rc::clone(&exchange.connection.worker);
        let now = &worker.clock;
        if self.timer.is_some() || self.shape.is_some() {
            // It was waited for.
            now.update();
        }
        exchange.note_traffic(&self.meter);
        if let Some(attempt) = exchange.tries.last_mut() {
            attempt.response_ms = self.began.map(|began| now.millis_since(began));
            attempt.response_length = self.length;
        }
        if self.failed.is_some() || !self.rest.notes().is_empty() {
            self.tell(exchange);
        }
    }

    /// Writes what there is to say about it to the error log.
    #[cold]
    fn tell(&self, exchange: &Exchange) {
        let about = self.source.as_ref().map(Source::text);
        let log = |level, text: &dyn std::fmt::Display| {
            exchange.log_about(level, &format!("{text} while reading upstream"), about.as_deref());
        };
        self.rest.notes().iter().for_each(|note| log(pass::level(note), note));
        if let Some(failed) = &self.failed {
            log(Level::Err, failed);
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
                    Some(Err(failure)) => {
                        self.failed = Some(failure.to_string());
                        self.selection = None;
                    }
                    None => self.selection = None,
                }
                Poll::Ready(next.map(|piece| piece.map_err(BodyError::Upstream)))
            }
            Poll::Pending => {
                let gap = self.gap;
                let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(gap)));
                ready!(timer.as_mut().poll(cx));
                self.failed = Some(Failure::Timeout.to_string());
                Poll::Ready(Some(Err(BodyError::Upstream(Failure::Timeout))))
            }
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        let Some(lease) = &mut self.lease else { return Poll::Ready(None) };
        let next = ready!(lease.link.poll_body(cx, &mut self.rest));
        // Who knows the length never asks for more than that.
        if matches!(next, None | Some(Err(_))) || self.rest.is_over() {
            self.end(!matches!(next, Some(Err(_))));
        }
        Poll::Ready(next)
    }

    /// Nothing more comes. If that is how it should be, the connection can serve others.
    fn end(&mut self, well: bool) {
        if let Some(lease) = self.lease.take().filter(|lease| well && lease.keep && self.rest.is_clean()) {
            lease.give_back(None);
        }
    }
}

impl Drop for UpstreamBody {
    /// Who has all of a body does not wait for what ends it. The connection does.
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take().filter(|_| self.rest.wants_end()) {
            let rest = self.rest.take();
            match lease.keep {
                true => lease.give_back(Some(rest)),
                false => lease.worker.pool.see_off(lease.link, rest, lease.worker.clock.instant() + self.gap),
            }
        }
    }
}

/// A connection that belongs to one request until its answer has ended. Dropped before, it is closed.
pub struct Lease {
    pub worker: Rc<Worker>,
    pub key: Key,
    pub link: Box<Link>,
    /// It may serve others afterwards.
    pub keep: bool,
}

impl Lease {
    fn give_back(self, rest: Option<AnswerBody>) {
        self.worker.pool.put(&self.key, self.link, rest, self.worker.clock.instant());
    }
}
