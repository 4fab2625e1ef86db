//! What is spoken to upstream servers and in front of connections: bytes in, bytes out, no sockets and no clock.

pub mod answer;
pub mod fastcgi;
pub mod grpc;
pub mod memcached;
pub mod proxy_protocol;
pub mod scgi;
pub mod uwsgi;

use crate::http::heads::Queue;
use bytes::Bytes;

/// How the body of a request is framed on its way to an upstream: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Not at all: its length was announced.
    Plain,
    /// The chunked coding.
    Chunked,
    /// Records of FastCGI, with an empty one at the end.
    FastCgi,
}

impl Frames {
    /// Queues a piece of the body, which is not empty, with what belongs around it.
    pub fn wrap(self, piece: Bytes, queue: &mut Queue) {
        match self {
            Self::Plain => queue.push(piece),
            Self::Chunked => queue.push_chunk(piece),
            Self::FastCgi => fastcgi::stdin(piece, |part| queue.push(part)),
        }
    }

    /// Queues what stands behind the last piece.
    pub fn end(self, queue: &mut Queue) {
        match self {
            Self::Plain => {}
            Self::Chunked => queue.push_last_chunk(b""),
            Self::FastCgi => queue.push(fastcgi::stdin_end()),
        }
    }
}
