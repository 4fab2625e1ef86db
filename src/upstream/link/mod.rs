//! One connection to a peer: what goes out over it, what comes in, and how much of both there was. It has no task of its
//! own: the request that holds it polls it, so that no request pays for changes of tasks.

mod sending;

#[cfg(test)]
mod tests;

pub use sending::{Outbound, Sending};

use super::{
    Failure,
    connect::Stream,
    wire::answer::{AnswerBody, Dialect, HeadReader, Note, Step},
};
use crate::http::{
    deadline::Deadline,
    files::errno,
    heads::{HeadError, Meter, ResponseHead, Tunnel, Wire, response::Progress},
};
use bytes::Bytes;
use std::{
    io,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection to a peer.
pub struct Link<S = Stream> {
    /// What has gone over it.
    pub meter: Rc<Meter>,
    /// Requests it has carried.
    pub requests: u64,
    /// For the waits of whoever holds it.
    pub deadline: Deadline,
    /// When it was opened.
    pub opened: Instant,
    wire: Wire<S>,
    head: HeadReader,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// Over a fresh connection.
    pub fn new(stream: S, now: Instant) -> Box<Self> {
        Box::new(Self {
            meter: Rc::default(),
            requests: 0,
            deadline: Deadline::default(),
            opened: now,
            wire: Wire::new(stream),
            head: HeadReader::new(&Dialect::Http),
        })
    }

    /// A request begins, whose answer is read as that of the protocol.
    pub fn begin(&mut self, dialect: &Dialect) {
        self.requests += 1;
        self.meter.begin();
        self.head.restart(dialect);
    }

    /// Writes what can be written of the request, and reads what can be read of the next head, which must fit into `size`
    /// bytes (`proxy_buffer_size`).
    ///
    /// # Errors
    /// [`Failure::Closed`], [`Failure::Io`], [`Failure::Invalid`]; [`Failure::Client`] if the client's body cannot be had.
    pub fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        sending: &mut Sending,
        size: usize,
    ) -> Poll<Result<ResponseHead, Failure>> {
        if sending.goes_on()
            && let Poll::Ready(Err(failure)) = self.poll_send(cx, sending)
        {
            match failure {
                // Who answers before it has read everything may close on us, and its answer may still be there to read.
                Failure::Io(..) => sending.refused = Some(failure),
                failure => return Poll::Ready(Err(failure)),
            }
        }
        let head = ready!(self.poll_head(cx, size));
        Poll::Ready(match head {
            Err(Failure::Closed | Failure::Io(..)) if sending.refused.is_some() => {
                Err(sending.refused.take().unwrap_or(Failure::Closed))
            }
            head => head,
        })
    }

    /// Writes the request; ready when all of it is with the kernel.
    fn poll_send(&mut self, cx: &mut Context<'_>, sending: &mut Sending) -> Poll<Result<(), Failure>> {
        loop {
            let filled = sending.poll_fill(cx)?;
            if sending.queue.is_empty() {
                return filled.map(Ok);
            }
            let written = sending.queue.slices(u64::MAX, |slices| self.wire.poll_write(cx, slices, &self.meter));
            let n = ready!(written).map_err(|error| Failure::Io("writev()", errno(&error)))?;
            sending.queue.advance(n);
        }
    }

    /// Reads the next head. What comes behind it stays.
    fn poll_head(&mut self, cx: &mut Context<'_>, size: usize) -> Poll<Result<ResponseHead, Failure>> {
        loop {
            if !self.wire.rest.is_empty()
                && let Progress::Complete(n) = self.head.parse(&mut self.wire.rest, size).map_err(head_failure)?
            {
                let bytes = if n == 0 { Bytes::new() } else { self.wire.take(n) };
                return Poll::Ready(Ok(self.head.finish(bytes)));
            }
            let room = self.head.room(size, self.wire.rest.len());
            match ready!(self.wire.poll_fill(cx, &self.meter, room as u64)) {
                Ok(0) => return Poll::Ready(Err(Failure::Closed)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(recv_failure(&error))),
            }
        }
    }

    /// The body behind a head. `head_only` if the request was one that is answered without any.
    pub fn body(&mut self, head: &ResponseHead, head_only: bool) -> AnswerBody {
        self.head.body(head, head_only)
    }

    /// Takes what there is to log about the head; `ended` when nothing more comes of it.
    pub fn notes(&mut self, ended: bool) -> Vec<Note> {
        self.head.notes(ended)
    }

    /// The next piece of the answer's body; `None` at its end.
    ///
    /// # Errors
    /// [`Failure::Closed`] when it ends too early, [`Failure::Io`] or [`Failure::Invalid`].
    pub fn poll_body(&mut self, cx: &mut Context<'_>, body: &mut AnswerBody) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            match body.next(&mut self.wire.rest) {
                Ok(Step::Piece(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(Step::End) => return Poll::Ready(None),
                Ok(Step::More) => {}
                Err(failure) => return Poll::Ready(Some(Err(failure))),
            }
            match ready!(self.wire.poll_fetch(cx, &self.meter, body.room())) {
                Ok(0) => return Poll::Ready(body.cut_off().err().map(Err)),
                Ok(n) => body.note_read(n),
                Err(error) => return Poll::Ready(Some(Err(recv_failure(&error)))),
            }
        }
    }

    /// Whether the peer has kept it open, and silent, while it was idle.
    pub fn is_quiet(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        self.is_drained() && self.wire.poll_fill(&mut nobody, &self.meter, 1).is_pending()
    }

    /// Whether nothing was read that no answer has used.
    pub fn is_drained(&self) -> bool {
        self.wire.rest.is_empty()
    }

    /// The bare connection, behind a switch of protocols, with what has come behind the head.
    pub fn into_tunnel(self) -> Tunnel<S> {
        Tunnel::upstream(self.wire, self.meter)
    }
}

/// What the head's parser says, as a failure of the attempt.
fn head_failure(error: HeadError) -> Failure {
    match error {
        HeadError::Closed => Failure::Closed,
        HeadError::Caught => Failure::Caught,
        HeadError::TooBig => Failure::TooBig,
        other => Failure::Invalid(other.to_string()),
    }
}

fn recv_failure(error: &io::Error) -> Failure {
    Failure::Io("recv()", errno(error))
}
