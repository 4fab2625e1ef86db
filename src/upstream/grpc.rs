//! Asking a peer over HTTP/2 how it is: the client behind `health_check type=grpc`. It knows beforehand that the peer speaks
//! HTTP/2 (RFC 9113, section 3.3), and asks one thing at a time; a connection may be kept from one question to the next.

use super::{
    Failure,
    connect::{Stream, connect},
    probe::Target,
    wire::grpc::{self, Answer},
};
use bytes::{Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinHandle,
};

/// What a peer is asked.
#[derive(Clone, Debug)]
pub struct Question {
    head: ::http::Request<()>,
    body: Bytes,
}

/// Fields that are written anew, or are those of a connection, which HTTP/2 has none of (RFC 9113, section 8.2.2).
const OWN: [&str; 9] = [
    "host",
    "connection",
    "proxy-connection",
    "keep-alive",
    "transfer-encoding",
    "upgrade",
    "te",
    "content-type",
    "content-length",
];

impl Question {
    /// How a service is; that without a name is the whole server. Of the fields, those go along that gRPC leaves alone.
    ///
    /// # Errors
    /// HTTP/2 cannot say that.
    pub fn new<'a>(
        service: &[u8],
        authority: &[u8],
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Self, String> {
        let uri = ::http::Uri::builder().scheme("http").authority(authority).path_and_query(grpc::PATH).build();
        let uri = uri.map_err(|_| format!("invalid host \"{}\"", grpc::printable(authority)))?;
        let mut head = ::http::Request::builder().method("POST").uri(uri).version(::http::Version::HTTP_2);
        head = head.header("content-type", grpc::CONTENT_TYPE).header("te", "trailers");
        for (name, value) in fields {
            if !OWN.iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes())) {
                head = head.header(name, value);
            }
        }
        let head = head.body(()).map_err(|error| error.to_string())?;
        Ok(Self { head, body: grpc::question(service) })
    }
}

/// A connection that is kept between questions, or none.
#[derive(Default)]
pub struct Line {
    link: Option<Link>,
    /// How old a connection may become (`keepalive_time`); `None` closes it behind every answer.
    keep: Option<Duration>,
}

/// One connection. It closes once this is dropped.
struct Link {
    requests: SendRequest<Bytes>,
    opened: Instant,
    /// Why nothing comes any more.
    end: Rc<RefCell<Option<Failure>>>,
    /// Moves the frames, between questions, too: a peer may send a PING at any time.
    driver: JoinHandle<()>,
}

impl Line {
    /// A line whose connections are kept that long.
    pub fn kept(keep: Option<Duration>) -> Self {
        Self { link: None, keep }
    }

    /// Asks, and reads the answer: each of connecting and all the rest within the target's times. A kept connection that
    /// turns out to be of no use is replaced once, without a word: that says nothing of the peer. Has to run inside a
    /// `LocalSet`.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn put(&mut self, target: &Target, question: &Question) -> Result<Answer, Failure> {
        let now = Instant::now();
        if let Some(link) = self.link.take()
            && !link.driver.is_finished()
            && self.keep.is_some_and(|keep| now.saturating_duration_since(link.opened) < keep)
        {
            match self.over(link, target, question).await {
                Err(failure) if !matches!(failure, Failure::Timeout) => {}
                outcome => return outcome,
            }
        }
        let stream = connect(&target.address, &target.options).await?;
        let link = tokio::time::timeout(target.patience, Link::open(stream, target));
        let link = link.await.unwrap_or(Err(Failure::Timeout))?;
        self.over(link, target, question).await
    }

    /// The same over one connection, which is kept if it can be.
    async fn over(&mut self, mut link: Link, target: &Target, question: &Question) -> Result<Answer, Failure> {
        let answer = tokio::time::timeout(target.patience, link.ask(question)).await;
        let answer = answer.unwrap_or(Err(Failure::Timeout));
        match &answer {
            Ok(_) if self.keep.is_some() => self.link = Some(link),
            // It says goodbye.
            Ok(_) => {}
            Err(_) => link.driver.abort(),
        }
        answer
    }
}

impl Link {
    async fn open(stream: Stream, target: &Target) -> Result<Self, Failure> {
        let end = Rc::default();
        let stream = Watched { stream, first: Vec::new(), begun: false, end: Rc::clone(&end) };
        let mut builder = Builder::new();
        builder.enable_push(false).max_header_list_size(u32::try_from(target.head_size).unwrap_or(u32::MAX));
        match builder.handshake(stream).await {
            Err(error) => Err(failure(&error, &end)),
            Ok((requests, connection)) => {
                // How it ends is told to whoever has asked something.
                let driver = tokio::task::spawn_local(async { drop(connection.await) });
                Ok(Self { requests, opened: Instant::now(), end, driver })
            }
        }
    }

    async fn ask(&mut self, question: &Question) -> Result<Answer, Failure> {
        let end = Rc::clone(&self.end);
        let failed = |error: h2::Error| failure(&error, &end);
        let mut requests = self.requests.clone().ready().await.map_err(failed)?;
        let (response, mut sending) = requests.send_request(question.head.clone(), false).map_err(failed)?;
        sending.send_data(question.body.clone(), true).map_err(failed)?;
        let (head, mut body) = response.await.map_err(failed)?.into_parts();
        let field = |name: &str| head.headers.get(name).map(|value| Bytes::copy_from_slice(value.as_bytes()));
        let mut answer = Answer {
            http: head.status.as_u16(),
            content_type: field("content-type").unwrap_or_default(),
            status: field("grpc-status"),
            message: field("grpc-message").unwrap_or_default(),
            body: Bytes::new(),
        };
        // Who has nothing but trailers says so in the head; and a page that says why there is no gRPC is not for us.
        if answer.status.is_some() || !answer.is_grpc() {
            return Ok(answer);
        }
        let mut read = BytesMut::new();
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(failed)?;
            read.extend_from_slice(&piece);
            if read.len() > grpc::MOST {
                return Err(Failure::Invalid("upstream sent too big message".to_owned()));
            }
            // The room is that of all answers of a connection.
            let _ = body.flow_control().release_capacity(piece.len());
        }
        answer.body = read.freeze();
        if let Some(trailers) = body.trailers().await.map_err(failed)? {
            let field = |name: &str| trailers.get(name).map(|value| Bytes::copy_from_slice(value.as_bytes()));
            answer.status = field("grpc-status");
            answer.message = field("grpc-message").unwrap_or_default();
        }
        Ok(answer)
    }
}

/// Why there is no answer: what the peer has said of it, or else what became of the connection.
fn failure(error: &h2::Error, end: &RefCell<Option<Failure>>) -> Failure {
    let reason = error.reason().map(|reason| format!("error {} ({reason:?})", u32::from(reason)));
    match reason {
        Some(reason) if error.is_remote() && error.is_reset() => {
            Failure::Invalid(format!("upstream rejected request with {reason}"))
        }
        Some(reason) if error.is_remote() => Failure::Invalid(format!("upstream sent goaway with {reason}")),
        Some(_) => Failure::Invalid(format!("upstream sent invalid HTTP/2: {error}")),
        None if error.is_io() => end.take().unwrap_or(Failure::Closed),
        None => Failure::Invalid(error.to_string()),
    }
}

/// A connection that remembers how it ended, in the words that requests have for it, and refuses answers of HTTP/1.
struct Watched {
    stream: Stream,
    /// The first bytes, until it is known what is spoken.
    first: Vec<u8>,
    begun: bool,
    end: Rc<RefCell<Option<Failure>>>,
}

/// How an answer of HTTP/1 begins. As a frame it would be one of five megabytes.
const HTTP_1: &[u8] = b"HTTP/";

impl Watched {
    fn ended(&self, call: &'static str, error: &io::Error) {
        self.end.borrow_mut().get_or_insert_with(|| Failure::Io(call, crate::http::files::errno(error)));
    }

    /// Looks at what has come first.
    fn begin(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.first.extend_from_slice(bytes);
        let known = self.first.len().min(HTTP_1.len());
        if self.first[..known] != HTTP_1[..known] {
            (self.begun, self.first) = (true, Vec::new());
        } else if known == HTTP_1.len() {
            let line = self.first.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
            let text = format!("upstream does not speak HTTP/2, it answered \"{}\"", grpc::printable(line));
            *self.end.borrow_mut() = Some(Failure::Invalid(text));
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        let read = &buf.filled()[before..];
        match &result {
            Err(error) => self.ended("recv()", error),
            Ok(()) if read.is_empty() => drop(self.end.borrow_mut().get_or_insert(Failure::Closed)),
            Ok(()) if self.begun => {}
            Ok(()) => self.begin(read)?,
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = std::task::ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(result.inspect_err(|error| self.ended("send()", error)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = std::task::ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(result.inspect_err(|error| self.ended("send()", error)))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
