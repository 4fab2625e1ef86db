//! A request on its way: its head, and its body as the protocol frames it.

use crate::{
    http::{
        arriving::Arriving,
        body::{Body, BodyError, RequestBodyError},
        heads::Queue,
    },
    upstream::{Failure, wire::Frames},
};
use bytes::Bytes;
use std::task::{Context, Poll, ready};

/// Whose body it is: once more from what was kept, or as it comes from the client.
pub enum Outbound {
    Kept(Body),
    Streamed(Box<Arriving>),
}

impl Outbound {
    /// The client has yet to send some of it.
    pub fn waits_for_client(&self) -> bool {
        matches!(self, Self::Streamed(_))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        match self {
            Self::Kept(body) => body.poll_next(cx).map_err(|error| match error {
                BodyError::Upstream(failure) => failure,
                BodyError::File(_) | BodyError::Truncated | BodyError::Filter(_) | BodyError::Subrequest(_) => {
                    Failure::Client(RequestBodyError::Disk)
                }
            }),
            Self::Streamed(arriving) => arriving.poll_next(cx).map_err(Failure::Client),
        }
    }
}

/// What is left to be sent of a request.
pub struct Sending {
    pub(super) queue: Queue,
    /// `None` once all of it is in the queue.
    body: Option<Outbound>,
    frames: Frames,
    /// Why nothing more can be written.
    pub(super) refused: Option<Failure>,
}

impl Sending {
    /// A head and the body behind it.
    pub fn new(head: Bytes, body: Outbound, frames: Frames) -> Self {
        Self { queue: Queue::new(head), body: Some(body), frames, refused: None }
    }

    /// Everything was sent.
    pub fn is_done(&self) -> bool {
        self.body.is_none() && self.queue.is_empty()
    }

    /// Something is left to be sent, and can be.
    pub(super) fn goes_on(&self) -> bool {
        !self.is_done() && self.refused.is_none()
    }

    /// Queues what there is of the body, as far as one write goes. Pending when more is to come.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while self.queue.has_room()
            && let Some(body) = &mut self.body
        {
            match ready!(body.poll_next(cx)?) {
                Some(piece) if piece.is_empty() => {}
                Some(piece) => self.frames.wrap(piece, &mut self.queue),
                None => {
                    self.frames.end(&mut self.queue);
                    self.body = None;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
