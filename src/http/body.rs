//! Bodies of answers: what they are made of, and how they go out.

pub use super::request_body::{BodyLimits, RequestBody, RequestBodyError};

use super::{exchange::Exchange, heads::Pieces};
use crate::{observe::error_log::Level, upstream::body::UpstreamBody};
use bytes::Bytes;
use rustix::{buffer::spare_capacity, io::pread};
use std::{
    fs::File,
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// What an answer is made of: a closed set.
#[derive(Default)]
pub enum Body {
    #[default]
    Empty,
    Bytes(Bytes),
    File(FileBody),
    /// Bytes and stretches of a file, one after the other: `multipart/byteranges`.
    Parts(std::vec::IntoIter<Body>, Box<Body>),
    Upstream(UpstreamBody),
    Slices(Box<super::modules::slice::Slices>),
    Charset(Box<super::modules::charset::CharsetBody>),
    Gunzip(Box<super::modules::gunzip::GunzipBody>),
    Packed(Box<super::packing::PackedBody>),
    Sub(Box<super::modules::sub_filter::SubBody>),
    Ssi(Box<super::modules::ssi::SsiBody>),
    Subrequest(Box<super::subrequest::Subrequest>),
    Stub(Box<super::subrequest::StubBody>),
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("reading the file failed: {0}")]
    File(#[from] io::Error),
    /// The file is shorter than it was.
    #[error("the file was truncated while it was sent")]
    Truncated,
    #[error(transparent)]
    Upstream(#[from] crate::upstream::Failure),
    /// What was to be made of it could not be; the text is for the log.
    #[error("{0}")]
    Filter(String),
    /// Why is in the log; the status is for it, too, unless it is 0.
    #[error("a subrequest failed")]
    Subrequest(u16),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Bytes(_) => "Bytes",
            Self::File(_) => "File",
            Self::Parts(..) => "Parts",
            Self::Upstream(_) => "Upstream",
            Self::Slices(_) => "Slices",
            Self::Charset(_) => "Charset",
            Self::Gunzip(_) => "Gunzip",
            Self::Packed(_) => "Packed",
            Self::Sub(_) => "Sub",
            Self::Ssi(_) => "Ssi",
            Self::Subrequest(_) => "Subrequest",
            Self::Stub(_) => "Stub",
        })
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Bytes(bytes) }
    }
}

impl Body {
    /// The next piece; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Bytes(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(bytes)))
            }
            Self::File(file) => Poll::Ready(file.take_piece()),
            Self::Parts(rest, current) => loop {
                match ready!(current.poll_next(cx)) {
                    Some(piece) => return Poll::Ready(Some(piece)),
                    None => match rest.next() {
                        Some(next) => **current = next,
                        None => return Poll::Ready(None),
                    },
                }
            },
            Self::Upstream(body) => body.poll_next(cx),
            Self::Slices(body) => body.poll_next(cx),
            Self::Charset(body) => body.poll_next(cx),
            Self::Gunzip(body) => body.poll_next(cx),
            Self::Packed(body) => body.poll_next(cx),
            Self::Sub(body) => body.poll_next(cx),
            Self::Ssi(body) => body.poll_next(cx),
            Self::Subrequest(body) => body.poll_next(cx),
            Self::Stub(body) => body.poll_next(cx),
        }
    }

    /// A stretch of a file that comes next, if it is long enough to be worth a call of its own.
    fn take_file(&mut self) -> Option<FileBody> {
        match self {
            Self::File(file) if file.left >= FILE_ALONE => {
                let file = file.clone();
                *self = Self::Empty;
                Some(file)
            }
            Self::Parts(_, current) => current.take_file(),
            _ => None,
        }
    }

    /// Finds out what a page includes, before its turn to be put out.
    pub fn read_ahead(&mut self, cx: &mut Context<'_>) {
        if let Self::Ssi(body) = self {
            body.read_ahead(cx);
        }
    }

    /// Lets what a page includes go on, before its turn to be put out.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        if let Self::Ssi(body) = self {
            body.drive(cx);
        }
    }

    /// Whether answers of other locations are part of it.
    pub fn includes(&self) -> bool {
        match self {
            Self::Ssi(_) | Self::Subrequest(_) | Self::Slices(_) => true,
            Self::Parts(rest, current) => current.includes() || rest.as_slice().iter().any(Self::includes),
            Self::Packed(body) => body.inner().includes(),
            _ => false,
        }
    }

    /// The upstream's body, under whatever is done to it.
    pub fn upstream(&self) -> Option<&UpstreamBody> {
        match self {
            Self::Upstream(body) => Some(body),
            Self::Slices(body) => body.first().upstream(),
            Self::Charset(body) => body.inner().upstream(),
            Self::Gunzip(body) => body.inner().upstream(),
            Self::Packed(body) => body.inner().upstream(),
            Self::Sub(body) => body.inner().upstream(),
            Self::Ssi(body) => body.inner().upstream(),
            Self::Stub(body) => body.inner().upstream(),
            Self::Parts(rest, current) => {
                current.upstream().or_else(|| rest.as_slice().iter().find_map(Self::upstream))
            }
            _ => None,
        }
    }

    /// The connection to the upstream, for good.
    pub fn take_link(&self) -> Option<Box<crate::upstream::link::Link>> {
        match self {
            Self::Upstream(body) => body.take_link(),
            _ => None,
        }
    }

    /// Bodies one after the other.
    pub fn parts(parts: Vec<Self>) -> Self {
        Self::Parts(parts.into_iter(), Box::default())
    }

    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::File(file) => file.left == 0,
            Self::Upstream(body) => body.is_over(),
            Self::Slices(body) => body.is_empty(),
            Self::Parts(rest, current) => rest.len() == 0 && current.is_empty(),
            Self::Charset(body) => body.inner().is_empty(),
            Self::Sub(body) => body.is_empty(),
            Self::Ssi(body) => body.is_empty(),
            Self::Subrequest(body) => body.is_over(),
            Self::Stub(body) => body.is_empty(),
            Self::Bytes(_) | Self::Gunzip(_) | Self::Packed(_) => false,
        }
    }
}

/// A stretch of a file.
#[derive(Clone, Debug)]
pub struct FileBody {
    pub file: Arc<File>,
    /// Next byte to send.
    pub offset: u64,
    /// Bytes left to send.
    pub left: u64,
}

/// How much of a file is read at once (`output_buffers` has nginx's 2 of 32 KB; one read of both).
const FILE_PIECE: u64 = 64 << 10;

/// A shorter one is read and sent along with the head. Bytes.
const FILE_ALONE: u64 = 16 << 10;

impl FileBody {
    /// The next piece of it.
    pub fn take_piece(&mut self) -> Option<Result<Bytes, BodyError>> {
        if self.left == 0 {
            return None;
        }
        let want = usize::try_from(self.left.min(FILE_PIECE)).unwrap_or(0);
        let mut piece = Vec::with_capacity(want);
        match pread(&self.file, spare_capacity(&mut piece), self.offset) {
            Ok(0) => Some(Err(BodyError::Truncated)),
            Ok(_) => {
                piece.truncate(want);
                self.offset += piece.len() as u64;
                self.left -= piece.len() as u64;
                Some(Ok(piece.into()))
            }
            Err(error) => Some(Err(io::Error::from(error).into())),
        }
    }
}

/// The body of an answer on its way to the client. When it ends, or is dropped, the request is over.
pub struct Outgoing {
    body: Body,
    exchange: Option<Box<Exchange>>,
    /// Fields may follow behind the body.
    trailers: bool,
    /// All of it was handed out.
    ended: bool,
}

impl Outgoing {
    /// The body of an exchange's answer; with `trailers` fields may go out behind it.
    pub fn new(body: Body, exchange: Box<Exchange>, trailers: bool) -> Self {
        Self { body, exchange: Some(exchange), trailers, ended: false }
    }

    fn fail(&mut self, error: &BodyError) {
        if let (Some(exchange), BodyError::Filter(text)) = (&self.exchange, error) {
            exchange.log(Level::Err, text);
        }
        self.finish(false);
    }

    /// Ends the request: its log line is written when the last byte has left.
    fn finish(&mut self, complete: bool) {
        if let Some(mut exchange) = self.exchange.take() {
            exchange.sent.complete = complete;
            if let Some(upstream) = self.body.upstream() {
                upstream.report(&mut exchange);
                upstream.read_out(&exchange.connection.worker);
            }
            let connection = Rc::clone(&exchange.connection);
            connection.finished(exchange);
        }
    }
}

impl Pieces for Outgoing {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ()>>> {
        let next = self.body.poll_next(cx);
        if let (Some(upstream), Some(exchange)) = (self.body.upstream(), &self.exchange) {
            upstream.attend(exchange);
        }
        let next = ready!(next);
        self.ended = next.is_none();
        Poll::Ready(next.map(|piece| piece.map_err(|error| self.fail(&error))))
    }

    fn take_file(&mut self) -> Option<FileBody> {
        let exchange = self.exchange.as_ref()?;
        let sends = cfg!(target_os = "linux") && exchange.connection.descriptor.is_some();
        if !sends || !exchange.location.settings.core.sendfile {
            return None;
        }
        self.body.take_file()
    }

    fn file_ended(&mut self, at: u64) {
        if let Some(exchange) = &self.exchange {
            exchange.log(Level::Alert, &format!("sendfile() reported that the file was truncated at {at}"));
        }
        self.finish(false);
    }

    fn trailers(&mut self) -> Bytes {
        let Some(exchange) = self.exchange.as_mut().filter(|_| self.trailers) else { return Bytes::new() };
        if let Some(upstream) = self.body.upstream() {
            upstream.pass_trailers(exchange);
        }
        // They may tell how long the body took.
        exchange.connection.worker.clock.update();
        super::modules::headers::add_trailers(exchange);
        let lines = exchange.sent.trailers.iter().flat_map(|field| [&field.name[..], b": ", &field.value, b"\r\n"]);
        lines.collect::<Vec<_>>().concat().into()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // A body with a length is not asked again behind its last byte.
        self.finish(self.ended || self.body.is_empty());
    }
}
