//! A stream with the bytes that were read from it too early.

use super::side::Meter;
use bytes::{Buf, BytesMut};
use std::{
    cell::RefCell,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// How much is read at once where nobody offers room: heads.
const SCRATCH: usize = 16 * 1024;

thread_local! {
    /// Room to read into while it is not known whether anything comes: idle connections need none of their own.
    static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// A stream with the bytes that were read from it too early.
pub struct Wire<S> {
    stream: S,
    /// Read but not used.
    pub rest: BytesMut,
}

/// Counts what went out.
fn noted(sent: Poll<io::Result<usize>>, meter: &Meter) -> Poll<io::Result<usize>> {
    meter.set_write_blocked(sent.is_pending());
    match &sent {
        Poll::Ready(Ok(n)) => meter.note_sent(*n),
        Poll::Ready(Err(_)) => meter.set_closed(),
        Poll::Pending => {}
    }
    sent
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// With nothing read yet.
    pub fn new(stream: S) -> Self {
        Self { stream, rest: BytesMut::new() }
    }

    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    pub(super) fn stream_ref(&self) -> &S {
        &self.stream
    }

    pub(super) fn into_parts(self) -> (S, BytesMut) {
        (self.stream, self.rest)
    }

    /// Reads once, up to `limit` bytes, and lets `see` have the bytes, which it may take from the front; what it leaves is
    /// kept behind the rest. `Ok(None)` at the end of the stream.
    pub(super) fn poll_see<T>(
        &mut self,
        cx: &mut Context<'_>,
        meter: &Meter,
        limit: u64,
        see: impl FnOnce(&mut BytesMut, &[u8]) -> (usize, T),
    ) -> Poll<io::Result<Option<T>>> {
        ROOM.with_borrow_mut(|all| {
            let room = all.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
            let mut buf = ReadBuf::new(&mut all[..room]);
            if let Err(error) = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                meter.set_closed();
                return Poll::Ready(Err(error));
            }
            let bytes = buf.filled();
            if bytes.is_empty() {
                meter.set_closed();
                return Poll::Ready(Ok(None));
            }
            meter.note_received(bytes.len());
            let (used, seen) = see(&mut self.rest, bytes);
            if used < bytes.len() {
                self.rest.extend_from_slice(&bytes[used..]);
            }
            Poll::Ready(Ok(Some(seen)))
        })
    }

    /// Reads once, up to `limit` bytes, behind the rest. `Ok(0)` at the end of the stream.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, meter: &Meter, limit: u64) -> Poll<io::Result<usize>> {
        self.poll_see(cx, meter, limit, |_, bytes| (0, bytes.len())).map_ok(Option::unwrap_or_default)
    }

    /// Reads once into memory of the rest's own, about `room` bytes at most: where much is expected. `Ok(0)` at the end of
    /// the stream.
    pub fn poll_fetch(&mut self, cx: &mut Context<'_>, meter: &Meter, room: usize) -> Poll<io::Result<usize>> {
        self.rest.reserve(room);
        let read = std::pin::pin!(self.stream.read_buf(&mut self.rest)).poll(cx);
        if self.rest.is_empty() {
            // Who waits has no need of memory.
            self.rest = BytesMut::new();
        }
        match ready!(read) {
            Ok(n) => {
                meter.note_received(n);
                if n == 0 {
                    meter.set_closed();
                }
                Poll::Ready(Ok(n))
            }
            Err(error) => {
                meter.set_closed();
                Poll::Ready(Err(error))
            }
        }
    }

    /// One write to the stream, with its signs.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        meter: &Meter,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(self.stream());
        let written = match parts {
            [part] => stream.poll_write(cx, part),
            parts => stream.poll_write_vectored(cx, parts),
        };
        match ready!(noted(written, meter))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            n => Poll::Ready(Ok(n)),
        }
    }

    /// The same by whatever `send` does to the stream.
    pub(super) fn poll_send(
        &mut self,
        meter: &Meter,
        send: impl FnOnce(&S) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        noted(send(&self.stream), meter)
    }

    /// Hands bytes to `buf`: of the rest, or straight from the stream. Says how many; 0 at the end.
    pub(super) fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        meter: &Meter,
    ) -> Poll<io::Result<usize>> {
        if !self.rest.is_empty() {
            let n = self.rest.len().min(buf.remaining());
            buf.put_slice(&self.rest[..n]);
            self.advance(n);
            return Poll::Ready(Ok(n));
        }
        let before = buf.filled().len();
        if let Err(error) = ready!(Pin::new(&mut self.stream).poll_read(cx, buf)) {
            meter.set_closed();
            return Poll::Ready(Err(error));
        }
        let n = buf.filled().len() - before;
        meter.note_received(n);
        if n == 0 {
            meter.set_closed();
        }
        Poll::Ready(Ok(n))
    }

    /// Drops bytes of the rest, and its memory with the last of them.
    pub(super) fn advance(&mut self, n: usize) {
        if n == self.rest.len() {
            self.rest = BytesMut::new();
        } else {
            self.rest.advance(n);
        }
    }

    /// Takes bytes of the rest, and gives its memory away with the last of them.
    pub fn take(&mut self, n: usize) -> bytes::Bytes {
        if n == self.rest.len() {
            return std::mem::take(&mut self.rest).freeze();
        }
        self.rest.split_to(n).freeze()
    }
}
