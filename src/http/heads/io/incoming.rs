//! A request's body as it comes: counted by its length, or taken out of its chunks.

use super::{side::ServerSide, wire::Wire};
use crate::http::heads::{
    RequestHead,
    chunked::{Scan, Scanner},
};
use bytes::{Bytes, BytesMut};
use std::{
    rc::Rc,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite};

/// A request's body, to be read piece by piece. What nobody reads is for the connection to read away.
pub struct Incoming(Rc<dyn Source>);

/// Why a body could not be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// It is not in the chunked coding after all.
    #[error("client sent invalid chunked body")]
    Invalid,
    /// The client has gone.
    #[error("client prematurely closed connection")]
    Gone,
}

/// The connection a body comes over, whatever it is made of.
pub(super) trait Source {
    fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>>;
    fn with_body(&self, look: &mut dyn FnMut(&Body));
}

impl Incoming {
    pub(super) fn new(source: Rc<dyn Source>) -> Self {
        Self(source)
    }

    /// The next piece; `None` at the end. A client that waits for `100 Continue` gets it.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        self.0.poll_body(cx)
    }

    /// Bytes that are yet to come, where that was announced.
    pub fn left(&self) -> Option<u64> {
        let mut left = None;
        self.0.with_body(&mut |body| left = body.left());
        left
    }

    /// Whether all of it was read.
    pub fn is_over(&self) -> bool {
        let mut over = false;
        self.0.with_body(&mut |body| over = body.is_over());
        over
    }
}

/// The most that is read at once of a body with a length, and of one in chunks. Bytes.
const ROOM: (u64, usize) = (64 << 10, 16 << 10);

/// A place within a request's body.
#[derive(Clone, Debug, Default)]
pub(super) enum Body {
    #[default]
    None,
    /// So many bytes are left.
    Length(u64),
    Chunked(Scanner),
    /// Not in the chunked coding after all.
    Invalid,
}

impl Body {
    pub(super) fn behind(head: &RequestHead) -> Self {
        match head.content_length {
            _ if head.chunked => Self::Chunked(Scanner::default()),
            Some(length) => Self::Length(length),
            None => Self::None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }

    fn left(&self) -> Option<u64> {
        match self {
            Self::None => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::Invalid => None,
        }
    }

    /// The next piece, of what was read already or of the stream.
    pub(super) fn poll_next<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<S>,
        cx: &mut Context<'_>,
        side: &ServerSide,
    ) -> Poll<Option<Result<Bytes, Cut>>> {
        loop {
            if self.is_over() {
                return Poll::Ready(None);
            }
            if !wire.rest.is_empty() {
                match self.take(wire, side) {
                    Ok(piece) if piece.is_empty() => continue,
                    piece => return Poll::Ready(Some(piece)),
                }
            }
            let room = match self {
                Self::Length(left) => ROOM.0.min(*left) as usize,
                Self::Chunked(_) => ROOM.1,
                Self::None | Self::Invalid => return Poll::Ready(Some(Err(Cut::Invalid))),
            };
            let read = wire.poll_fetch(cx, side, room);
            side.set_read_waiting(read.is_pending());
            match read {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Some(Err(Cut::Gone))),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Takes what there is of the body from the front of what was read. What does not belong to it stays.
    fn take<S: AsyncRead + AsyncWrite + Unpin>(&mut self, wire: &mut Wire<S>, side: &ServerSide) -> Result<Bytes, Cut> {
        let there = wire.rest.len();
        match self {
            Self::None => Ok(Bytes::new()),
            Self::Invalid => Err(Cut::Invalid),
            Self::Length(left) => {
                let n = there.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                side.note_body(n);
                Ok(wire.take(n))
            }
            Self::Chunked(scanner) => {
                let found = scanner.unwrap(&mut wire.rest, None);
                let used = match found.scan {
                    Scan::More => there,
                    Scan::Done(end) => {
                        *self = Self::None;
                        end
                    }
                    Scan::Invalid => {
                        side.set_bad_body();
                        *self = Self::Invalid;
                        return Err(Cut::Invalid);
                    }
                };
                side.note_body(used);
                let mut bytes = std::mem::take(&mut wire.rest);
                if used < there {
                    // Copied, so that what comes next does not hold on to the room a body was read into.
                    wire.rest = BytesMut::from(&bytes[used..]);
                }
                bytes.truncate(found.kept);
                Ok(bytes.freeze())
            }
        }
    }
}
