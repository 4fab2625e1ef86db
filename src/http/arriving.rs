//! A request's body that is passed on as it comes (`proxy_request_buffering off`).

use super::body::{BodyLimits, RequestBodyError};
use bytes::{Bytes, BytesMut};
use hyper::body::{Body as _, Frame, Incoming};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::Sleep;

/// The pieces of a body, joined as far as they have come.
pub struct Arriving {
    incoming: Incoming,
    joined: BytesMut,
    /// Bytes that have come so far.
    received: u64,
    limits: BodyLimits,
    timer: Option<Pin<Box<Sleep>>>,
    /// How often in a row nothing was there.
    asked: u8,
    /// What is joined was handed over as all that has come.
    early: bool,
    ended: bool,
    failed: Option<RequestBodyError>,
}

/// About as much is passed on at once.
const PIECE: usize = 32 << 10;

/// So often nothing must be there until nothing is expected.
const ASKED: u8 = 3;

impl Arriving {
    pub fn new(incoming: Incoming, limits: BodyLimits) -> Self {
        let joined = BytesMut::new();
        Self { incoming, joined, received: 0, limits, timer: None, asked: 0, early: false, ended: false, failed: None }
    }

    /// Ready when all that has come is here, or `client_body_buffer_size` of it; whether that is the whole body.
    pub fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, RequestBodyError>> {
        ready!(self.poll_join(cx, self.limits.memory));
        self.early = true;
        Poll::Ready(self.failed.take().map_or(Ok(self.ended), Err))
    }

    /// What has come.
    pub fn into_joined(self) -> Bytes {
        self.joined.freeze()
    }

    /// What nobody has read.
    pub fn into_rest(self) -> Incoming {
        self.incoming
    }

    /// The next piece, `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, RequestBodyError>>> {
        while self.joined.is_empty() && !self.ended && self.failed.is_none() {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(frame) => self.take(frame),
                Poll::Pending => {
                    let gap = self.limits.gap;
                    let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(gap)));
                    ready!(timer.as_mut().poll(cx));
                    self.failed = Some(RequestBodyError::Timeout);
                }
            }
        }
        self.timer = None;
        // What was there before anybody was asked goes along with the head.
        if self.joined.is_empty() || !std::mem::take(&mut self.early) {
            ready!(self.poll_join(cx, PIECE));
        }
        if !self.joined.is_empty() {
            return Poll::Ready(Some(Ok(self.joined.split().freeze())));
        }
        Poll::Ready(self.failed.map(Err))
    }

    /// Everything was handed out.
    pub fn is_over(&self) -> bool {
        self.ended && self.joined.is_empty()
    }

    /// Joins what is there. hyper hands out a piece at a time, each when it is driven, so who finds nothing lets it be
    /// driven and asks again.
    fn poll_join(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<()> {
        while !self.ended && self.failed.is_none() && self.joined.len() < most {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(frame) => self.take(frame),
                Poll::Pending if self.asked == ASKED => break,
                Poll::Pending => {
                    self.asked += 1;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        self.asked = 0;
        Poll::Ready(())
    }

    fn take(&mut self, frame: Option<Result<Frame<Bytes>, hyper::Error>>) {
        self.asked = 0;
        match frame {
            None => self.ended = true,
            Some(Err(error)) => self.failed = Some(RequestBodyError::of(&error)),
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    self.received += piece.len() as u64;
                    if self.limits.max != 0 && self.received > self.limits.max {
                        self.failed = Some(RequestBodyError::TooLarge);
                        return;
                    }
                    self.joined.extend_from_slice(&piece);
                }
                self.ended = self.incoming.is_end_stream();
            }
        }
    }
}
