//! The side that asks: writes our request's head in place of hyper's, and reads the answer's head before hyper does.

use super::{
    side::ClientSide,
    swap::{Swap, poll_queued},
    tunnel::{Side, Tunnel},
    wire::Wire,
};
use crate::http::heads::{
    framing::synthetic_response,
    response::{HeadError, Parser, Progress, ResponseHead},
};
use bytes::Bytes;
use hyper::rt::ReadBufCursor;
use hyper_util::rt::TokioIo;
use std::{
    cell::RefCell,
    io::{self, IoSlice},
    ops::Deref,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Parts a connected stream into what hyper works on and what its owner works with.
pub fn client<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> (ClientIo<S>, ClientHandle<S>) {
    let core = Core { wire: Some(Wire::new(stream)), reading: Reading::Raw, swap: Swap::Body };
    let handle = ClientHandle { core: Rc::new(RefCell::new(core)), side: ClientSide::default() };
    (ClientIo(handle.clone()), handle)
}

/// The most hyper reads at once and holds back before it writes. Bytes.
const BUFFER: usize = 64 * 1024;

/// hyper's settings that this needs: moderate buffers.
pub fn client_builder() -> hyper::client::conn::http1::Builder {
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(BUFFER);
    builder
}

/// What hyper's client connection reads and writes.
pub struct ClientIo<S>(ClientHandle<S>);

/// The owner's end of a client's connection: cheap to clone.
pub struct ClientHandle<S> {
    core: Rc<RefCell<Core<S>>>,
    side: ClientSide,
}

impl<S> Clone for ClientHandle<S> {
    fn clone(&self) -> Self {
        Self { core: Rc::clone(&self.core), side: self.side.clone() }
    }
}

impl<S> Deref for ClientHandle<S> {
    type Target = ClientSide;

    fn deref(&self) -> &ClientSide {
        &self.side
    }
}

struct Core<S> {
    wire: Option<Wire<S>>,
    reading: Reading,
    swap: Swap,
}

/// What hyper may read now.
enum Reading {
    /// Everything as it comes: bodies, and what an idle connection should not send, which hyper ends it for.
    Raw,
    /// The head of an answer comes next; of it, so much has been read.
    Await(Box<Parser>),
    /// A synthetic head.
    Head(Bytes, bool),
    /// Nothing: the connection speaks another protocol now.
    Switched,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientHandle<S> {
    /// What belongs to who asks.
    pub fn side(&self) -> &ClientSide {
        &self.side
    }

    /// Takes the connection away from hyper, behind an upgrade. Everything that came behind the head comes along.
    /// `None` the second time.
    pub fn tunnel(&self) -> Option<Tunnel<S>> {
        let wire = self.core.borrow_mut().wire.take()?;
        Some(Tunnel::new(wire, Side::Client(self.side.clone())))
    }

    /// Looks at the stream. `None` once it was taken.
    pub fn with_stream<T>(&self, look: impl FnOnce(&S) -> T) -> Option<T> {
        self.core.borrow().wire.as_ref().map(|wire| look(wire.stream_ref()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> hyper::rt::Read for ClientIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let handle = &self.get_mut().0;
        let mut core = handle.core.borrow_mut();
        let reader = Reader { core: &mut core, side: &handle.side };
        Pin::new(&mut TokioIo::new(reader)).poll_read(cx, buf)
    }
}

/// Reads what hyper may have into hyper's own memory.
struct Reader<'a, S> {
    core: &'a mut Core<S>,
    side: &'a ClientSide,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Reader<'_, S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Reader { core, side } = self.get_mut();
        let Some(wire) = &mut core.wire else { return Poll::Ready(Ok(())) };
        loop {
            match &mut core.reading {
                Reading::Switched => return Poll::Pending,
                Reading::Raw => {
                    let n = ready!(wire.poll_pass(cx, buf, u64::MAX, side))?;
                    side.note_body(n);
                    return Poll::Ready(Ok(()));
                }
                Reading::Head(text, switched) => {
                    let n = text.len().min(buf.remaining());
                    buf.put_slice(&text.split_to(n));
                    if text.is_empty() {
                        let switched = *switched;
                        core.reading = if switched { Reading::Switched } else { Reading::Raw };
                        // What has come of the body goes along.
                        if !switched && buf.remaining() > 0 {
                            let n = wire.pass_rest(buf, u64::MAX);
                            side.note_body(n);
                        }
                    }
                    return Poll::Ready(Ok(()));
                }
                Reading::Await(parser) => {
                    let read = poll_head(wire, cx, parser, side);
                    side.set_read_waiting(read.is_pending());
                    match ready!(read) {
                        Ok(head) => {
                            core.reading = Reading::Head(synthetic_response(&head), head.status == 101);
                            side.answer(head);
                        }
                        Err(fault) => {
                            core.reading = Reading::Raw;
                            side.fail(fault.clone());
                            // hyper takes the end of the stream for what it is.
                            return Poll::Ready(match fault {
                                HeadError::Closed => Ok(()),
                                HeadError::Io(kind) => Err(kind.into()),
                                fault => Err(io::Error::new(io::ErrorKind::InvalidData, fault)),
                            });
                        }
                    }
                }
            }
        }
    }
}

/// Reads until the head of an answer is complete that is not an interim one. Early hints (103) are handed out; other
/// interim answers are passed over.
fn poll_head<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    cx: &mut Context<'_>,
    parser: &mut Parser,
    side: &ClientSide,
) -> Poll<Result<ResponseHead, HeadError>> {
    let size = side.shared().head_size.get();
    loop {
        if !wire.rest.is_empty() {
            match parser.parse(&wire.rest, size)? {
                Progress::Partial => {}
                Progress::Complete(n) => {
                    let parser = std::mem::take(parser);
                    let bytes = if n == 0 { Bytes::new() } else { wire.take(n) };
                    let head = parser.finish(bytes);
                    match head.status {
                        103 => side.hint(head),
                        100..=199 if head.status != 101 => {}
                        _ => return Poll::Ready(Ok(head)),
                    }
                    continue;
                }
            }
        }
        // Never more than fits: what follows the head goes straight into hyper's memory.
        let room = size.saturating_sub(wire.rest.len()).max(1);
        match ready!(wire.poll_fill(cx, side, room as u64)) {
            Ok(0) => return Poll::Ready(Err(HeadError::Closed)),
            Ok(_) => {}
            Err(error) => return Poll::Ready(Err(HeadError::Io(error.kind()))),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> hyper::rt::Write for ClientIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let handle = &self.get_mut().0;
        let core = &mut *handle.core.borrow_mut();
        let Some(wire) = &mut core.wire else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let out = &handle.side.shared().out;
        if !out.head_written.get() && matches!(core.swap, Swap::Body) {
            core.swap = Swap::Head;
        }
        let (n, swapped) = ready!(core.swap.poll_write(wire, cx, parts, out, &handle.side))?;
        if swapped {
            core.reading = Reading::Await(Box::default());
        }
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.with_stream(AsyncWrite::is_write_vectored).unwrap_or(false)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let handle = &self.get_mut().0;
        let core = &mut *handle.core.borrow_mut();
        let Some(wire) = &mut core.wire else { return Poll::Ready(Ok(())) };
        ready!(poll_queued(wire, cx, &handle.side.shared().out, &handle.side))?;
        Pin::new(wire.stream()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        match &mut self.get_mut().0.core.borrow_mut().wire {
            Some(wire) => Pin::new(wire.stream()).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
