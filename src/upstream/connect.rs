//! Connections to peers: TCP or unix, opened within a time.

use super::{
    Failure,
    local::{self, Options},
    peer::Address,
};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// A connection to a peer.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Connects, within a time.
///
/// # Errors
/// [`Failure::Connect`], [`Failure::ConnectTimeout`] or [`Failure::Local`].
pub async fn connect(address: &Address, options: &Options) -> Result<Stream, Failure> {
    let failed = |error: io::Error| Failure::Connect(place(address, &error), error);
    let opening = async {
        match address {
            Address::Tcp(tcp) => {
                let stream = match options.is_plain() {
                    true => TcpStream::connect(tcp).await.map_err(failed)?,
                    // On the heap: it is rare, and every request carries what may be awaited.
                    false => Box::pin(local::connect(*tcp, options)).await.map_err(|failure| match failure {
                        Failure::Connect(_, error) => failed(error),
                        other => other,
                    })?,
                };
                stream.set_nodelay(true).map_err(failed)?;
                if options.keepalive {
                    socket2::SockRef::from(&stream).set_keepalive(true).map_err(failed)?;
                }
                Ok(Stream::Tcp(stream))
            }
            Address::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix).map_err(failed),
        }
    };
    tokio::time::timeout(options.timeout, opening).await.unwrap_or(Err(Failure::ConnectTimeout))
}

/// nginx names the address when `connect()` failed at once, and not when it failed later.
fn place(address: &Address, error: &io::Error) -> String {
    match address {
        Address::Unix(_) => address.to_string(),
        Address::Tcp(_) if matches!(error.raw_os_error(), Some(libc::EHOSTUNREACH | libc::ENETUNREACH)) => {
            address.to_string()
        }
        Address::Tcp(_) => String::new(),
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
