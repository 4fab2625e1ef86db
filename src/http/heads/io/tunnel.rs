//! What is left of a connection when it speaks another protocol: bytes both ways.

use super::{
    side::{Meter, ServerSide},
    wire::Wire,
};
use std::{
    io,
    ops::Deref,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection behind a switch of protocols. Bytes that came with or behind the head are read first.
pub struct Tunnel<S> {
    wire: Wire<S>,
    side: Side,
}

pub(super) enum Side {
    Server(ServerSide),
    Upstream(Rc<Meter>),
}

impl Deref for Side {
    type Target = Meter;

    fn deref(&self) -> &Meter {
        match self {
            Self::Server(side) => side,
            Self::Upstream(meter) => meter,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Tunnel<S> {
    pub(super) fn new(wire: Wire<S>, side: Side) -> Self {
        Self { wire, side }
    }

    /// Over a connection to an upstream.
    pub fn upstream(wire: Wire<S>, meter: Rc<Meter>) -> Self {
        Self::new(wire, Side::Upstream(meter))
    }

    /// The counters go on counting.
    pub fn meter(&self) -> &Meter {
        &self.side
    }

    /// Whether bytes can be read without waiting for the peer.
    pub fn has_rest(&self) -> bool {
        !self.wire.rest.is_empty()
    }

    /// The bare stream, and what was read from it too early.
    pub fn into_parts(self) -> (S, bytes::BytesMut) {
        self.wire.into_parts()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tunnel<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = this.wire.poll_pass(cx, buf, &this.side);
        this.side.set_read_waiting(read.is_pending());
        read.map_ok(|_| ())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tunnel<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(this.wire.stream()).poll_write(cx, bytes);
        this.side.set_write_blocked(written.is_pending());
        let n = ready!(written)?;
        this.side.note_sent(n);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().wire.stream()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().wire.stream()).poll_shutdown(cx)
    }
}
