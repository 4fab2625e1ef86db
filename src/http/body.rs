//! Bodies: what an answer is made of, and what a client sent.

use super::{arriving::Arriving, body_file::BodyFile, connection::Connection, exchange::Exchange, limit_rate::Pace};
use crate::{observe::error_log::Level, upstream::body::UpstreamBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use std::{
    fs::File,
    future::poll_fn,
    io::Write,
    os::unix::fs::FileExt,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
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
    File(#[from] std::io::Error),
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
            Self::File(file) => Poll::Ready(file.next()),
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
            Self::Ssi(_) | Self::Subrequest(_) => true,
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
    pub fn take_link(&mut self) -> Option<Box<crate::upstream::link::Link>> {
        match std::mem::take(self) {
            Self::Upstream(body) => body.take_link(),
            other => {
                *self = other;
                None
            }
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

impl FileBody {
    /// The next piece of it.
    pub fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        if self.left == 0 {
            return None;
        }
        let want = usize::try_from(self.left.min(FILE_PIECE)).unwrap_or(0);
        let mut piece = BytesMut::zeroed(want);
        match self.file.read_at(&mut piece, self.offset) {
            Ok(0) => Some(Err(BodyError::Truncated)),
            Ok(got) => {
                piece.truncate(got);
                self.offset += got as u64;
                self.left -= got as u64;
                Some(Ok(piece.freeze()))
            }
            Err(error) => Some(Err(error.into())),
        }
    }
}

/// The body of an answer on its way into hyper. When it ends, or is dropped, the request is over.
pub struct Outgoing {
    body: Body,
    exchange: Option<Box<Exchange>>,
    /// Dropped with the body: tells the connection that it is over.
    _guard: super::heads::BodyGuard,
    /// Bytes a second, if `limit_rate` is on, and what paces them.
    pace: Option<Pace>,
    /// The body has failed, which hyper is told when everything before that is written.
    failed: Option<BodyError>,
    /// Fields may follow behind the body.
    trailers: bool,
    /// They do as soon as everything before them is written.
    ending: bool,
    /// hyper has had no occasion yet to write what was handed to it.
    unflushed: bool,
}

impl Outgoing {
    /// The body of an exchange's answer; with `trailers` fields may go out behind it.
    pub fn new(body: Body, exchange: Box<Exchange>, guard: super::heads::BodyGuard, trailers: bool) -> Self {
        let pace = Pace::of(&exchange);
        if pace.is_some() {
            // Nobody waits long for a client that has gone.
            exchange.connection.abortable.set(true);
        }
        Self { body, exchange: Some(exchange), _guard: guard, pace, failed: None, trailers, ending: false, unflushed: true }
    }

    /// Collects the fields behind the body: those of an upstream, and those of `add_trailer`. Whether there are any.
    fn add_trailers(&mut self) -> bool {
        let Some(exchange) = &mut self.exchange else { return false };
        if let Some(upstream) = self.body.upstream() {
            upstream.pass_trailers(exchange);
        }
        // They may tell how long the body took.
        exchange.connection.worker.clock.update();
        super::modules::headers::add_trailers(exchange);
        !exchange.sent.trailers.is_empty()
    }

    /// Ends the body with fields behind it, when everything before them is written: hyper, which knows none that were not
    /// announced, writes an end without any, and ours goes out in its place.
    fn poll_frame_end(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(exchange) = self.exchange.as_ref().filter(|_| self.ending) {
            let connection = &exchange.connection;
            if std::mem::take(&mut self.unflushed) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if connection.wait_for_flush() {
                return Poll::Pending;
            }
            let mut end = b"0\r\n".to_vec();
            for field in &exchange.sent.trailers {
                end.extend_from_slice(&[&field.name[..], b": ", &field.value, b"\r\n"].concat());
            }
            end.extend_from_slice(b"\r\n");
            connection.side.end_with(end);
        }
        self.finish(true);
        Poll::Ready(None)
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

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(error) = this.failed.take() {
            if this.exchange.as_ref().is_some_and(|exchange| exchange.connection.wait_for_flush()) {
                this.failed = Some(error);
                return Poll::Pending;
            }
            this.finish(false);
            return Poll::Ready(Some(Err(error)));
        }
        if this.ending {
            return this.poll_frame_end(cx);
        }
        let next = match &mut this.pace {
            None => this.body.poll_next(cx),
            Some(pace) => pace.poll_next(&mut this.body, cx),
        };
        if let (Some(upstream), Some(exchange)) = (this.body.upstream(), &this.exchange) {
            upstream.attend(exchange);
        }
        match ready!(next) {
            Some(Ok(piece)) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            Some(Err(error)) => {
                if let Some(exchange) = &this.exchange {
                    if let BodyError::Filter(text) = &error {
                        exchange.log(Level::Err, text);
                    }
                    exchange.connection.broken.set(true);
                }
                // hyper throws away what it has not written yet when a body fails; asked again, it has written it.
                this.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None if this.trailers => {
                this.trailers = false;
                this.ending = this.add_trailers();
                this.poll_frame_end(cx)
            }
            None => {
                this.finish(true);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_empty() && self.exchange.is_none()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let complete = self.body.is_empty() && !self.pace.as_ref().is_some_and(Pace::holds);
        self.finish(complete);
    }
}

/// What the client sent, or is going to send.
#[derive(Default)]
pub struct RequestBody {
    incoming: Option<Incoming>,
    /// To be passed on as it comes.
    arriving: Option<Box<Arriving>>,
    /// To be written here as it is read.
    file: Option<(File, BodyFile)>,
    read: Read,
    received: u64,
    streamed: bool,
}

#[derive(Default)]
enum Read {
    #[default]
    Nothing,
    Memory(Bytes),
    File {
        file: Arc<File>,
        name: Option<BodyFile>,
        length: u64,
    },
}

/// Why a request's body could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestBodyError {
    #[error("client intended to send too large chunked body")]
    TooLarge,
    #[error("client timed out")]
    Timeout,
    /// Bad framing.
    #[error("client sent invalid chunked body")]
    Bad,
    #[error("client prematurely closed connection")]
    Gone,
    #[error("a temporary file could not be written")]
    Disk,
}

/// What bounds the reading of a body.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// `client_max_body_size`; 0 is none.
    pub max: u64,
    /// `client_body_buffer_size`: more goes to a temporary file.
    pub memory: usize,
    /// `client_body_timeout`: the longest gap.
    pub gap: Duration,
}

impl RequestBodyError {
    /// Of what hyper says.
    pub fn of(error: &hyper::Error) -> Self {
        if error.is_parse() || error.is_user() { Self::Bad } else { Self::Gone }
    }
}

impl RequestBody {
    pub fn new(incoming: Option<Incoming>) -> Self {
        Self { incoming, ..Self::default() }
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The body, if it is in memory.
    pub fn memory(&self) -> Option<&Bytes> {
        match &self.read {
            Read::Memory(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The temporary file's name, if the body is in one that has a name.
    pub fn file_name(&self) -> Option<&[u8]> {
        match &self.read {
            Read::File { name, .. } => name.as_ref().map(BodyFile::name),
            _ => None,
        }
    }

    /// Leaves the file of the body to whoever has taken it away.
    pub fn release_file(&mut self) {
        if let Read::File { name: Some(name), .. } = &mut self.read {
            name.release();
        }
    }

    /// The length, once it was read whole.
    pub fn length(&self) -> Option<u64> {
        match &self.read {
            Read::Nothing => None,
            Read::Memory(bytes) => Some(bytes.len() as u64),
            Read::File { length, .. } => Some(*length),
        }
    }

    /// Whether the announced length is above `client_max_body_size`.
    pub fn too_large(&self, max: u64) -> bool {
        use hyper::body::Body;
        let announced = self.incoming.as_ref().and_then(|incoming| incoming.size_hint().exact());
        max != 0 && announced.is_some_and(|length| length > max)
    }

    /// Has the body written to a file with a name as it is read.
    pub fn read_to(&mut self, file: (File, BodyFile)) {
        self.file = Some(file);
    }

    /// Reads the body whole: into memory, or beyond the limit into a temporary file.
    ///
    /// # Errors
    /// [`RequestBodyError`] says whose fault it was.
    pub async fn read(&mut self, limits: BodyLimits) -> Result<(), RequestBodyError> {
        let Some(mut incoming) = self.incoming.take() else {
            if let Some((file, name)) = self.file.take() {
                self.read = Read::File { file: Arc::new(file), name: Some(name), length: 0 };
            } else if matches!(self.read, Read::Nothing) {
                self.read = Read::Memory(Bytes::new());
            }
            return Ok(());
        };
        let mut first: Option<Bytes> = None;
        let mut memory = BytesMut::new();
        let (mut file, name) = self.file.take().map_or((None, None), |(file, name)| (Some(file), Some(name)));
        loop {
            let frame = tokio::time::timeout(limits.gap, incoming.frame()).await;
            let piece = match frame.map_err(|_| RequestBodyError::Timeout)? {
                None => break,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(piece) => piece,
                    Err(_) => continue,
                },
                Some(Err(error)) => return Err(RequestBodyError::of(&error)),
            };
            self.received += piece.len() as u64;
            if limits.max != 0 && self.received > limits.max {
                return Err(RequestBodyError::TooLarge);
            }
            if let Some(file) = &mut file {
                file.write_all(&piece).map_err(|_| RequestBodyError::Disk)?;
            } else if first.is_none() && memory.is_empty() && piece.len() <= limits.memory {
                first = Some(piece);
            } else {
                memory.extend_from_slice(&first.take().unwrap_or_default());
                memory.extend_from_slice(&piece);
                if memory.len() > limits.memory {
                    let mut temporary = tempfile::tempfile().map_err(|_| RequestBodyError::Disk)?;
                    temporary.write_all(&memory).map_err(|_| RequestBodyError::Disk)?;
                    memory = BytesMut::new();
                    file = Some(temporary);
                }
            }
        }
        self.read = match file {
            Some(file) => Read::File { file: Arc::new(file), name, length: self.received },
            None => Read::Memory(first.unwrap_or_else(|| memory.freeze())),
        };
        Ok(())
    }

    /// Writes a body that was read whole to a file with a name (`client_body_in_file_only`).
    ///
    /// # Errors
    /// [`RequestBodyError::Disk`].
    pub fn put_into(&mut self, (file, name): (File, BodyFile)) -> Result<(), RequestBodyError> {
        let length = self.length().unwrap_or(0);
        let mut pieces = self.replay();
        let mut cx = Context::from_waker(Waker::noop());
        // What was kept is there at once.
        while let Poll::Ready(Some(piece)) = pieces.poll_next(&mut cx) {
            let piece = piece.map_err(|_| RequestBodyError::Disk)?;
            (&file).write_all(&piece).map_err(|_| RequestBodyError::Disk)?;
        }
        self.read = Read::File { file: Arc::new(file), name: Some(name), length };
        Ok(())
    }

    /// Reads what has come already, to pass the rest on as it comes. A body that is whole by then is like any that was
    /// read before it is sent (`request_body_no_buffering`).
    ///
    /// # Errors
    /// [`RequestBodyError`] says whose fault it was.
    pub async fn read_early(&mut self, limits: BodyLimits) -> Result<(), RequestBodyError> {
        let Some(incoming) = self.incoming.take() else { return self.read(limits).await };
        let mut arriving = Box::new(Arriving::new(incoming, limits));
        if poll_fn(|cx| arriving.poll_early(cx)).await? {
            let whole = arriving.into_joined();
            self.received = whole.len() as u64;
            self.read = Read::Memory(whole);
        } else {
            self.arriving = Some(arriving);
        }
        Ok(())
    }

    /// A body that was read whole, once more from its start, for one attempt to send it.
    pub fn replay(&self) -> Body {
        match &self.read {
            Read::Nothing => Body::Empty,
            Read::Memory(bytes) => Body::from(bytes.clone()),
            Read::File { file, length, .. } => {
                Body::File(FileBody { file: Arc::clone(file), offset: 0, left: *length })
            }
        }
    }

    /// A body that was read whole, for another request beside this one.
    pub fn share(&self) -> Self {
        let read = match &self.read {
            Read::Nothing => Read::Nothing,
            Read::Memory(bytes) => Read::Memory(bytes.clone()),
            Read::File { file, length, .. } => Read::File { file: Arc::clone(file), name: None, length: *length },
        };
        Self { read, received: self.received, ..Self::default() }
    }

    /// The body is passed on as it comes, and cannot be had twice.
    pub fn is_streaming(&self) -> bool {
        self.streamed || self.incoming.is_some() || self.arriving.is_some()
    }

    /// The body was, or is being, passed on as it comes.
    pub fn streamed(&self) -> bool {
        self.streamed
    }

    /// Takes the body to pass it on as it comes.
    pub fn take_stream(&mut self) -> Option<Box<Arriving>> {
        let arriving = self.arriving.take()?;
        self.streamed = true;
        Some(arriving)
    }

    /// Takes away what was not read, so that somebody may read it to its end behind the answer.
    pub fn take_unread(&mut self) -> Option<Incoming> {
        self.incoming.take().or_else(|| self.arriving.take().map(|arriving| arriving.into_rest()))
    }
}

/// Reads and forgets the rest of a request, so that the connection can serve another one
/// (`ngx_http_discard_request_body`).
pub async fn discard(mut incoming: Incoming, connection: Rc<Connection>, gap: Duration) {
    loop {
        match tokio::time::timeout(gap, incoming.frame()).await {
            Ok(Some(Ok(_))) => {}
            Ok(None) => return,
            Ok(Some(Err(_))) | Err(_) => {
                connection.broken.set(true);
                return;
            }
        }
    }
}
