//! What is spoken to upstream servers and in front of connections: bytes in, bytes out, no sockets and no clock.

pub mod answer;
pub mod fastcgi;
pub mod memcached;
pub mod proxy_protocol;
pub mod scgi;
pub mod uwsgi;

use bytes::Bytes;

/// How the body of a request is framed on its way to an upstream: a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Not at all: its length was announced.
    Plain,
    /// The chunked coding (RFC 9112, section 7.1), sizes as nginx writes them.
    Chunked,
    /// Records of FastCGI, with an empty one at the end.
    FastCgi,
}

impl Frames {
    /// A piece of the body, which is not empty, with what belongs around it, part by part.
    pub fn wrap(self, piece: Bytes, mut part: impl FnMut(Bytes)) {
        match self {
            Self::Plain => part(piece),
            Self::Chunked => {
                part(format!("{:x}\r\n", piece.len()).into());
                part(piece);
                part(Bytes::from_static(b"\r\n"));
            }
            Self::FastCgi => fastcgi::stdin(piece, part),
        }
    }

    /// What stands behind the last piece.
    pub fn end(self, mut part: impl FnMut(Bytes)) {
        match self {
            Self::Plain => {}
            Self::Chunked => part(Bytes::from_static(b"0\r\n\r\n")),
            Self::FastCgi => part(fastcgi::stdin_end()),
        }
    }
}
