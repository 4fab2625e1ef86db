//! The side that is asked: reads requests' heads and bodies, and writes the answers.

use super::{
    incoming::{Body, Cut, Incoming, Source},
    sending::{Pieces, Sending},
    side::ServerSide,
    tunnel::{Side, Tunnel},
    wire::Wire,
};
use crate::http::{
    body::FileBody,
    heads::request::{Parser, Progress, Refusal, RequestHead, ServerLimits},
};
use bytes::{Buf, Bytes, BytesMut};
use std::{
    cell::{Ref, RefCell},
    future::poll_fn,
    io::{self, IoSlice},
    ops::Deref,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// So much of a file goes at once (`sendfile_max_chunk`). Bytes.
const CHUNK: usize = 2 << 20;

/// What the connection's task works with, around an accepted stream.
pub fn server<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> ServerHandle<S> {
    let core = Core { wire: Some(Wire::new(stream)), parser: None, body: Body::None };
    ServerHandle(Rc::new(Channel { core: RefCell::new(core), side: ServerSide::default() }))
}

/// A client's connection: cheap to clone.
///
/// The task that owns it takes heads with [`next_head`](Self::next_head), says with [`begin`](Self::begin) that one is
/// answered, and sends the answer with [`poll_send`](Self::poll_send). Nothing of a request is left in it afterwards.
pub struct ServerHandle<S>(Rc<Channel<S>>);

struct Channel<S> {
    core: RefCell<Core<S>>,
    side: ServerSide,
}

impl<S> Clone for ServerHandle<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S> Deref for ServerHandle<S> {
    type Target = ServerSide;

    fn deref(&self) -> &ServerSide {
        &self.0.side
    }
}

/// Why there is no further request.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// To be answered, and then closed.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The client closed between requests.
    #[error("client closed connection")]
    Closed,
    /// The client closed within a head: nothing can be answered, but nginx logs a request with status 400.
    #[error("{0}")]
    Unfinished(Box<Refusal>),
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] io::Error),
}

struct Core<S> {
    wire: Option<Wire<S>>,
    /// Of a head that has come in part.
    parser: Option<Box<Parser>>,
    /// Of the request under way.
    body: Body,
}

#[cfg(test)]
pub(super) const fn channel_size<S>() -> usize {
    size_of::<Channel<S>>()
}

impl<S: AsyncRead + AsyncWrite + Unpin> ServerHandle<S> {
    /// What belongs to the exchange.
    pub fn side(&self) -> &ServerSide {
        &self.0.side
    }

    /// Waits until something of the next head, or of whatever the client speaks, is there. `false` if the client closed.
    pub async fn wait(&self) -> io::Result<bool> {
        poll_fn(|cx| self.poll_wait(cx)).await
    }

    /// The same, polled.
    pub fn poll_wait(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.buffered().is_empty() { self.poll_more(cx) } else { Poll::Ready(Ok(true)) }
    }

    /// Waits until more has come. `false` if the client closed.
    pub async fn more(&self) -> io::Result<bool> {
        poll_fn(|cx| self.poll_more(cx)).await
    }

    fn poll_more(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match &mut self.0.core.borrow_mut().wire {
            Some(wire) => wire.poll_fill(cx, &self.0.side, u64::MAX).map_ok(|n| n > 0),
            None => Poll::Ready(Ok(false)),
        }
    }

    /// What was read and not used: the beginning of a head, or of another protocol.
    pub fn buffered(&self) -> Ref<'_, [u8]> {
        Ref::map(self.0.core.borrow(), |core| core.wire.as_ref().map_or(&[][..], |wire| &wire.rest))
    }

    /// Takes bytes from the front of what was read and not used: a PROXY protocol header.
    pub fn consume(&self, n: usize) {
        if let Some(wire) = &mut self.0.core.borrow_mut().wire {
            wire.advance(n.min(wire.rest.len()));
        }
    }

    /// Puts bytes that were read elsewhere in front of everything.
    pub fn unread(&self, bytes: &[u8]) {
        if let Some(wire) = &mut self.0.core.borrow_mut().wire {
            let rest = std::mem::take(&mut wire.rest);
            wire.rest.extend_from_slice(bytes);
            wire.rest.extend_from_slice(&rest);
        }
    }

    /// The next request's head. It can be dropped and called again at any time; nothing is lost.
    pub async fn next_head(&self, servers: &impl ServerLimits) -> Result<Box<RequestHead>, Stop> {
        poll_fn(|cx| self.poll_head(cx, servers)).await
    }

    /// The next request's head, polled.
    pub fn poll_head(&self, cx: &mut Context<'_>, servers: &impl ServerLimits) -> Poll<Result<Box<RequestHead>, Stop>> {
        let core = &mut *self.0.core.borrow_mut();
        let Some(wire) = &mut core.wire else { return Poll::Ready(Err(Stop::Closed)) };
        let mut parser = core.parser.take();
        // What is left of an earlier read comes first.
        if !wire.rest.is_empty() {
            let mut kept = parser.take().unwrap_or_default();
            match kept.parse(&wire.rest, servers) {
                Progress::Complete(n) => return Poll::Ready(Ok(Box::new(kept.finish(wire.take(n))))),
                Progress::Refused(refusal) => return Poll::Ready(Err(Stop::Refused(refusal))),
                Progress::Partial if kept.is_blank() => wire.advance(wire.rest.len()),
                Progress::Partial => parser = Some(kept),
            }
        }
        loop {
            let seen = wire.poll_see(cx, &self.0.side, u64::MAX, |rest, bytes| match parser.take() {
                // A head mostly comes whole: then only its own bytes are kept.
                None => {
                    let mut fresh = Parser::default();
                    match fresh.parse(bytes, servers) {
                        Progress::Complete(n) => {
                            (n, Some(Ok(Box::new(fresh.finish(Bytes::copy_from_slice(&bytes[..n]))))))
                        }
                        Progress::Refused(refusal) => (0, Some(Err(Stop::Refused(refusal)))),
                        Progress::Partial if fresh.is_blank() => (bytes.len(), None),
                        Progress::Partial => {
                            parser = Some(Box::new(fresh));
                            (0, None)
                        }
                    }
                }
                Some(mut kept) => {
                    rest.extend_from_slice(bytes);
                    let all = bytes.len();
                    match kept.parse(rest, servers) {
                        Progress::Complete(n) => {
                            let head = Box::new(kept.finish(rest.split_to(n).freeze()));
                            if rest.is_empty() {
                                *rest = BytesMut::new();
                            }
                            (all, Some(Ok(head)))
                        }
                        Progress::Refused(refusal) => (all, Some(Err(Stop::Refused(refusal)))),
                        Progress::Partial => {
                            parser = Some(kept);
                            (all, None)
                        }
                    }
                }
            });
            match seen {
                Poll::Ready(Ok(Some(Some(result)))) => return Poll::Ready(result),
                Poll::Ready(Ok(Some(None))) => {}
                Poll::Ready(Ok(None)) => {
                    return Poll::Ready(Err(match parser {
                        None => Stop::Closed,
                        Some(parser) => {
                            let why = "client prematurely closed connection";
                            Stop::Unfinished(Box::new(parser.give_up(&wire.rest, 400, why)))
                        }
                    }));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Stop::Io(error))),
                Poll::Pending => {
                    core.parser = parser;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Whether a part of a head has come: from then on `client_header_timeout` runs.
    pub fn head_begun(&self) -> bool {
        self.0.core.borrow().parser.is_some() || !self.buffered().is_empty()
    }

    /// What has come of a head that takes too long, to be logged: 408, `client timed out`. Nothing is answered.
    pub fn give_up(&self, status: u16, why: &'static str) -> Box<Refusal> {
        let core = self.0.core.borrow();
        let rest = core.wire.as_ref().map_or(&[][..], |wire| &wire.rest);
        let fresh = Parser::default();
        Box::new(core.parser.as_deref().unwrap_or(&fresh).give_up(rest, status, why))
    }

    /// A request begins.
    pub fn begin(&self, head: &RequestHead) {
        self.0.core.borrow_mut().body = Body::behind(head);
        self.0.side.begin_request(head.expect_continue);
    }

    /// One begins that is refused, of which nothing more is read.
    pub fn begin_refused(&self) {
        self.0.core.borrow_mut().body = Body::None;
        self.0.side.begin_request(false);
    }

    /// The body of the request under way.
    pub fn incoming(&self) -> Incoming
    where
        S: 'static,
    {
        Incoming::new(Rc::clone(&self.0) as Rc<dyn Source>)
    }

    /// The request under way was read whole.
    pub fn is_read(&self) -> bool {
        self.0.core.borrow().body.is_over()
    }

    /// Reads away what is left of the request's body; an error if that cannot be.
    pub fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        while let Some(piece) = ready!(self.0.poll_body(cx)) {
            piece?;
        }
        Poll::Ready(Ok(()))
    }

    /// Looks for the client's leaving while a request is answered. It is only noted: whether the answer goes on is for
    /// others to say. What comes instead is the next request's.
    pub fn poll_watch(&self, cx: &mut Context<'_>) {
        let Channel { core, side } = &*self.0;
        let core = &mut *core.borrow_mut();
        if let Some(wire) = &mut core.wire
            && core.body.is_over()
            && wire.rest.is_empty()
            && !side.closed()
        {
            let _: Poll<io::Result<usize>> = wire.poll_fill(cx, side, u64::MAX);
        }
    }

    /// Writes the interim answers there are.
    ///
    /// # Errors
    /// The connection broke.
    pub fn poll_interim(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Channel { core, side } = &*self.0;
        let mut interim = side.take_interim();
        while !interim.is_empty() {
            let Some(wire) = &mut core.borrow_mut().wire else { return Poll::Ready(Ok(())) };
            match wire.poll_write(cx, &[IoSlice::new(&interim)], side) {
                Poll::Ready(Ok(n)) => interim.advance(n),
                other => {
                    side.put_interim(interim);
                    return other.map_ok(|_| ());
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Sends an answer; ready when all of it is with the kernel. `send_file` sends so many bytes of a file.
    ///
    /// # Errors
    /// The connection broke. That the body did is for [`Sending::is_cut`] to say.
    pub fn poll_send<B: Pieces>(
        &self,
        cx: &mut Context<'_>,
        sending: &mut Sending<B>,
        send_file: impl Fn(&S, &mut Context<'_>, &FileBody, usize) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        let Channel { core, side } = &*self.0;
        side.begin_answer();
        let interim = side.take_interim();
        if !interim.is_empty() {
            sending.queue.put_first(interim);
        }
        loop {
            let filled = sending.poll_fill(cx);
            let Some(wire) = &mut core.borrow_mut().wire else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            if !sending.queue.is_empty() {
                ready!(sending.poll_write(cx, |cx, slices| wire.poll_write(cx, slices, side)))?;
            } else if sending.has_file() {
                let send = |cx: &mut Context<'_>, file: &FileBody, most| {
                    wire.poll_send(side, |stream| send_file(stream, cx, file, most))
                };
                ready!(sending.poll_file(cx, CHUNK, send))?;
            } else {
                ready!(Pin::new(wire.stream()).poll_flush(cx))?;
                return filled.map(Ok);
            }
        }
    }

    /// Takes the connection for itself: behind an upgrade, or to linger before closing. Everything that was read
    /// beyond the head and body under way comes along. `None` the second time.
    pub fn tunnel(&self) -> Option<Tunnel<S>> {
        let wire = self.0.core.borrow_mut().wire.take()?;
        Some(Tunnel::new(wire, Side::Server(self.0.side.clone())))
    }

    /// Looks at the stream: to shut TLS down, to set an option of the socket. `None` once it was taken.
    pub fn with_stream<T>(&self, look: impl FnOnce(&S) -> T) -> Option<T> {
        self.0.core.borrow().wire.as_ref().map(|wire| look(wire.stream_ref()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Source for Channel<S> {
    fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let Core { wire, body, .. } = &mut *self.core.borrow_mut();
        let Some(wire) = wire else { return Poll::Ready(Some(Err(Cut::Gone))) };
        if !body.is_over() {
            self.side.send_continue();
        }
        body.poll_next(wire, cx, &self.side)
    }

    fn with_body(&self, look: &mut dyn FnMut(&Body)) {
        look(&self.core.borrow().body);
    }
}
