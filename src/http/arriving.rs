//! A request's body that is passed on as it comes (`proxy_request_buffering off`).

use super::{
    body::{BodyLimits, RequestBodyError},
    heads::{Cut, Incoming},
};
use bytes::{Bytes, BytesMut};
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
    /// What is joined was handed over as all that has come.
    early: bool,
    ended: bool,
    failed: Option<RequestBodyError>,
}

/// About as much is passed on at once.
const PIECE: usize = 32 << 10;

impl Arriving {
    pub fn new(incoming: Incoming, limits: BodyLimits) -> Self {
        let joined = BytesMut::new();
        Self { incoming, joined, received: 0, limits, timer: None, early: false, ended: false, failed: None }
    }

    /// Takes all that has come, or `client_body_buffer_size` of it; whether that is the whole body.
    ///
    /// # Errors
    /// [`RequestBodyError`] says whose fault it was.
    pub fn take_early(&mut self, cx: &mut Context<'_>) -> Result<bool, RequestBodyError> {
        self.join(cx, self.limits.memory);
        self.early = true;
        self.failed.take().map_or(Ok(self.ended), Err)
    }

    /// What has come.
    pub fn into_joined(self) -> Bytes {
        self.joined.freeze()
    }

    /// The next piece, `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, RequestBodyError>>> {
        while self.joined.is_empty() && !self.ended && self.failed.is_none() {
            match self.incoming.poll_piece(cx) {
                Poll::Ready(piece) => self.take(piece),
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
            self.join(cx, PIECE);
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

    /// Joins what is there.
    fn join(&mut self, cx: &mut Context<'_>, most: usize) {
        while !self.ended
            && self.failed.is_none()
            && self.joined.len() < most
            && let Poll::Ready(piece) = self.incoming.poll_piece(cx)
        {
            self.take(piece);
        }
    }

    fn take(&mut self, piece: Option<Result<Bytes, Cut>>) {
        match piece {
            None => self.ended = true,
            Some(Err(cut)) => self.failed = Some(cut.into()),
            Some(Ok(piece)) => {
                self.received += piece.len() as u64;
                if self.limits.max != 0 && self.received > self.limits.max {
                    self.failed = Some(RequestBodyError::TooLarge);
                    return;
                }
                match self.joined.is_empty() {
                    // Mostly there is one piece, which is nobody else's.
                    true => self.joined = BytesMut::from(piece),
                    false => self.joined.extend_from_slice(&piece),
                }
                self.ended = self.incoming.is_over();
            }
        }
    }
}
