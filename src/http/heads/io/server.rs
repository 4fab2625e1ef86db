//! The side that is asked: reads requests' heads before hyper hears of them, and counts where their bodies end.

use super::{
    side::{Asked, ServerSide},
    swap::{Swap, poll_queued},
    tunnel::{Side, Tunnel},
    wire::Wire,
};
use crate::http::heads::{
    chunked::{Scan, Scanner},
    framing::{REFUSED, synthetic_request},
    request::{Parser, Progress, Refusal, RequestHead, ServerLimits},
};
use bytes::{Bytes, BytesMut};
use hyper::rt::ReadBufCursor;
use hyper_util::rt::TokioIo;
use std::{
    cell::{Ref, RefCell},
    future::poll_fn,
    io::{self, IoSlice},
    ops::Deref,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Parts an accepted stream into what hyper works on and what the connection's task works with.
pub fn server<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> (ServerIo<S>, ServerHandle<S>) {
    let core = Core { wire: Some(Wire::new(stream)), reading: Reading::Idle, parser: None, swap: Swap::Body };
    let handle = ServerHandle { core: Rc::new(RefCell::new(core)), side: ServerSide::default() };
    (handle.io(), handle)
}

/// The most hyper reads at once and holds back before it writes. Bytes.
const BUFFER: usize = 64 * 1024;

/// hyper's settings that this needs: nothing added to heads, no timers, moderate buffers.
pub fn server_builder() -> hyper::server::conn::http1::Builder {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.auto_date_header(false).header_read_timeout(None).half_close(false).keep_alive(true).max_buf_size(BUFFER);
    builder
}

/// What hyper's server connection reads and writes.
pub struct ServerIo<S>(ServerHandle<S>);

/// The connection's end of a server: cheap to clone.
///
/// The task that owns the connection takes heads with [`next_head`](Self::next_head), hands them on with
/// [`deliver`](Self::deliver), and polls hyper until [`is_idle`](Self::is_idle). hyper must be polled by the task that
/// delivers, after it did. While idle, hyper's connection may be dropped and made anew with [`io`](Self::io): nothing is
/// ever left in it.
pub struct ServerHandle<S> {
    core: Rc<RefCell<Core<S>>>,
    side: ServerSide,
}

impl<S> Clone for ServerHandle<S> {
    fn clone(&self) -> Self {
        Self { core: Rc::clone(&self.core), side: self.side.clone() }
    }
}

impl<S> Deref for ServerHandle<S> {
    type Target = ServerSide;

    fn deref(&self) -> &ServerSide {
        &self.side
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
    reading: Reading,
    /// Of a head that has come in part.
    parser: Option<Box<Parser>>,
    swap: Swap,
}

#[cfg(test)]
pub(super) const fn core_size<S>() -> usize {
    size_of::<RefCell<Core<S>>>()
}

/// What hyper may read now.
#[derive(Debug)]
enum Reading {
    /// Nothing, until a request is delivered.
    Idle,
    /// The synthetic head, and then the body.
    Head(Bytes, Body),
    Body(Body),
    /// Nothing more of this request. Only whether the client leaves is looked for.
    Done,
    /// The end.
    Ended,
}

#[derive(Clone, Debug)]
enum Body {
    None,
    Length(u64),
    Chunked(Scanner),
    /// Not in the chunked coding after all.
    Invalid,
}

impl Body {
    fn is_over(&self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ServerHandle<S> {
    /// What hyper works on. There must be one at a time.
    pub fn io(&self) -> ServerIo<S> {
        ServerIo(self.clone())
    }

    /// What belongs to the exchange.
    pub fn side(&self) -> &ServerSide {
        &self.side
    }

    /// Waits until something of the next head, or of whatever the client speaks, is there. `false` if the client closed.
    pub async fn wait(&self) -> io::Result<bool> {
        poll_fn(|cx| if self.buffered().is_empty() { self.poll_more(cx) } else { Poll::Ready(Ok(true)) }).await
    }

    /// Waits until more has come. `false` if the client closed.
    pub async fn more(&self) -> io::Result<bool> {
        poll_fn(|cx| self.poll_more(cx)).await
    }

    fn poll_more(&self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match &mut self.core.borrow_mut().wire {
            Some(wire) => wire.poll_fill(cx, &self.side, u64::MAX).map_ok(|n| n > 0),
            None => Poll::Ready(Ok(false)),
        }
    }

    /// What was read and not used: the beginning of a head, or of another protocol.
    pub fn buffered(&self) -> Ref<'_, [u8]> {
        Ref::map(self.core.borrow(), |core| core.wire.as_ref().map_or(&[][..], |wire| &wire.rest))
    }

    /// Takes bytes from the front of what was read and not used: a PROXY protocol header.
    pub fn consume(&self, n: usize) {
        if let Some(wire) = &mut self.core.borrow_mut().wire {
            wire.advance(n.min(wire.rest.len()));
        }
    }

    /// Puts bytes that were read elsewhere in front of everything.
    pub fn unread(&self, bytes: &[u8]) {
        if let Some(wire) = &mut self.core.borrow_mut().wire {
            let rest = std::mem::take(&mut wire.rest);
            wire.rest.extend_from_slice(bytes);
            wire.rest.extend_from_slice(&rest);
        }
    }

    /// The next request's head. It can be dropped and called again at any time; nothing is lost.
    pub async fn next_head(&self, servers: &impl ServerLimits) -> Result<RequestHead, Stop> {
        poll_fn(|cx| self.poll_head(cx, servers)).await
    }

    /// The next request's head, polled.
    pub fn poll_head(&self, cx: &mut Context<'_>, servers: &impl ServerLimits) -> Poll<Result<RequestHead, Stop>> {
        let core = &mut *self.core.borrow_mut();
        let Some(wire) = &mut core.wire else { return Poll::Ready(Err(Stop::Closed)) };
        let mut parser = core.parser.take();
        // What is left of an earlier read comes first.
        if !wire.rest.is_empty() {
            let mut kept = parser.take().unwrap_or_default();
            match kept.parse(&wire.rest, servers) {
                Progress::Complete(n) => return Poll::Ready(Ok(kept.finish(wire.take(n)))),
                Progress::Refused(refusal) => return Poll::Ready(Err(Stop::Refused(refusal))),
                Progress::Partial if kept.is_blank() => wire.advance(wire.rest.len()),
                Progress::Partial => parser = Some(kept),
            }
        }
        loop {
            let seen = wire.poll_see(cx, &self.side, u64::MAX, |rest, bytes| match parser.take() {
                // A head mostly comes whole: then only its own bytes are kept.
                None => {
                    let mut fresh = Parser::default();
                    match fresh.parse(bytes, servers) {
                        Progress::Complete(n) => (n, Some(Ok(fresh.finish(Bytes::copy_from_slice(&bytes[..n]))))),
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
                            let head = kept.finish(rest.split_to(n).freeze());
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
        self.core.borrow().parser.is_some() || !self.buffered().is_empty()
    }

    /// What has come of a head that takes too long, to be logged: 408, `client timed out`. Nothing is answered.
    pub fn give_up(&self, status: u16, why: &'static str) -> Box<Refusal> {
        let core = self.core.borrow();
        let rest = core.wire.as_ref().map_or(&[][..], |wire| &wire.rest);
        let fresh = Parser::default();
        Box::new(core.parser.as_deref().unwrap_or(&fresh).give_up(rest, status, why))
    }

    /// Lets hyper have a request. The service it calls takes the head with [`ServerSide::take_asked`]; behind a refusal
    /// the connection closes.
    pub fn deliver(&self, asked: Asked) {
        let core = &mut *self.core.borrow_mut();
        let (head, body) = match &asked {
            Asked::Refused(_) => (Bytes::from_static(REFUSED), Body::None),
            Asked::Request(head) => {
                let body = match head.content_length {
                    _ if head.chunked => Body::Chunked(Scanner::default()),
                    Some(length) => Body::Length(length),
                    None => Body::None,
                };
                (synthetic_request(head), body)
            }
        };
        core.reading = Reading::Head(head, body);
        core.swap = Swap::Head;
        self.side.begin(asked);
    }

    /// The request that was delivered is read whole, its answer is written whole, and hyper waits for the next one.
    /// To know the second, the answer's body must hold a [`ServerSide::guard`].
    pub fn is_idle(&self) -> bool {
        let done = matches!(self.core.borrow().reading, Reading::Done | Reading::Idle);
        done && self.side.shared().flushed.get() && !self.side.is_discarding()
    }

    /// Reads away what [`ServerSide::discard`] was given. To be polled by the connection's task along with hyper;
    /// ready when nothing is left.
    pub fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.side.poll_discard(cx)
    }

    /// Lets hyper read the end of the stream, so that its connection ends in order.
    pub fn finish(&self) {
        self.core.borrow_mut().reading = Reading::Ended;
    }

    /// Takes the connection away from hyper: behind an upgrade, or to linger before closing. Everything that was read
    /// beyond the head and body under way comes along. `None` the second time.
    pub fn tunnel(&self) -> Option<Tunnel<S>> {
        let wire = self.core.borrow_mut().wire.take()?;
        Some(Tunnel::new(wire, Side::Server(self.side.clone())))
    }

    /// Looks at the stream: to shut TLS down, to set an option of the socket. `None` once it was taken.
    pub fn with_stream<T>(&self, look: impl FnOnce(&S) -> T) -> Option<T> {
        self.core.borrow().wire.as_ref().map(|wire| look(wire.stream_ref()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> hyper::rt::Read for ServerIo<S> {
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
    side: &'a ServerSide,
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Reader<'_, S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Reader { core, side } = self.get_mut();
        let Some(wire) = &mut core.wire else { return Poll::Ready(Ok(())) };
        match &mut core.reading {
            Reading::Idle => Poll::Pending,
            Reading::Ended => Poll::Ready(Ok(())),
            Reading::Head(text, body) => {
                let n = text.len().min(buf.remaining());
                buf.put_slice(&text.split_to(n));
                if !text.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                let mut body = body.clone();
                // What has come of the body goes along.
                if !wire.rest.is_empty() && !body.is_over() && buf.remaining() > 0 {
                    let before = buf.filled().len();
                    wire.pass_rest(buf, body.limit());
                    // If that fails, hyper hears of it when the service reads the body.
                    let _: io::Result<()> = body.advance(wire, buf, before, side);
                }
                core.reading = if body.is_over() { Reading::Done } else { Reading::Body(body) };
                Poll::Ready(Ok(()))
            }
            Reading::Body(Body::Invalid) => Poll::Ready(Err(bad_body())),
            Reading::Body(body) => {
                let before = buf.filled().len();
                loop {
                    let read = wire.poll_pass(cx, buf, body.limit(), side);
                    side.set_read_waiting(read.is_pending());
                    if ready!(read)? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    body.advance(wire, buf, before, side)?;
                    if body.is_over() {
                        core.reading = Reading::Done;
                        return Poll::Ready(Ok(()));
                    }
                    if buf.filled().len() > before {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            Reading::Done => {
                // hyper looks for the client's leaving. It is noted, but hyper is not told: whether the answer goes on
                // is not its to decide. What comes instead is the next request's.
                if wire.rest.is_empty() && !side.closed() {
                    let _: Poll<io::Result<usize>> = wire.poll_fill(cx, side, u64::MAX);
                }
                Poll::Pending
            }
        }
    }
}

impl Body {
    /// How much may be read at once without reading beyond.
    fn limit(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::None | Self::Invalid => 0,
            Self::Chunked(_) => u64::MAX,
        }
    }

    /// Looks at what was read behind `before`. What is not of this body goes back to the wire.
    fn advance<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        buf: &mut ReadBuf<'_>,
        before: usize,
        side: &ServerSide,
    ) -> io::Result<()> {
        let bytes = &mut buf.filled_mut()[before..];
        let n = bytes.len();
        match self {
            Self::None | Self::Invalid => {}
            Self::Length(left) => {
                side.note_body(n);
                *left = left.saturating_sub(n as u64);
            }
            Self::Chunked(scanner) => {
                let mut beyond = BytesMut::new();
                // Where the body ends is not known before; the filter moves bytes, so those behind it are saved first.
                let filtered = match scanner.clone().scan(bytes) {
                    Scan::Done(end) if end < n => {
                        beyond.extend_from_slice(&bytes[end..]);
                        scanner.filter(&mut bytes[..end])
                    }
                    _ => scanner.filter(bytes),
                };
                side.note_body(n - beyond.len());
                buf.set_filled(before + filtered.kept);
                match filtered.scan {
                    Scan::More => {}
                    Scan::Done(_) => {
                        *self = Self::None;
                        beyond.extend_from_slice(&wire.rest);
                        wire.rest = beyond;
                    }
                    Scan::Invalid => {
                        side.shared().bad_body.set(true);
                        buf.set_filled(before);
                        *self = Self::Invalid;
                        return Err(bad_body());
                    }
                }
            }
        }
        Ok(())
    }
}

/// What reading a body ends in that is not in the chunked coding.
fn bad_body() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "client sent invalid chunked body")
}

impl<S: AsyncRead + AsyncWrite + Unpin> hyper::rt::Write for ServerIo<S> {
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
        core.swap.poll_write(wire, cx, parts, &handle.side.shared().out, &handle.side).map_ok(|(n, _)| n)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.with_stream(AsyncWrite::is_write_vectored).unwrap_or(false)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let handle = &self.get_mut().0;
        let core = &mut *handle.core.borrow_mut();
        let Some(wire) = &mut core.wire else { return Poll::Ready(Ok(())) };
        ready!(poll_queued(wire, cx, &handle.side.shared().out, &handle.side))?;
        ready!(Pin::new(wire.stream()).poll_flush(cx))?;
        handle.side.note_flush();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        match &mut self.get_mut().0.core.borrow_mut().wire {
            Some(wire) => Pin::new(wire.stream()).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
