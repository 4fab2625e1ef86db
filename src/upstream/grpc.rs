//! Asking a peer over HTTP/2 how it is: the client behind `health_check type=grpc`. It knows beforehand that the peer
//! speaks HTTP/2 (RFC 9113, section 3.3), and asks one thing at a time; a connection may be kept from one question to
//! the next.

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

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.head.method(), self.head.uri())?;
        self.head.headers().iter().enumerate().try_for_each(|(at, (name, value))| {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma} {name}: {}", grpc::printable(value.as_bytes()))
        })
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
    driver: JoinHandle<Option<h2::Error>>,
}

/// What has come between a question and its answer.
enum Broken {
    Http2(h2::Error),
    Answer(&'static str),
}

impl From<h2::Error> for Broken {
    fn from(error: h2::Error) -> Self {
        Self::Http2(error)
    }
}

impl Line {
    /// A line whose connections are kept that long.
    pub fn kept(keep: Option<Duration>) -> Self {
        Self { link: None, keep }
    }

    /// Asks, and reads the answer: connecting has its own time, and all the rest together the target's patience. A
    /// kept connection that turns out to be of no use is replaced once, without a word: that says nothing of the
    /// peer. Has to run inside a `LocalSet`.
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
                let driver = tokio::task::spawn_local(async { connection.await.err() });
                Ok(Self { requests, opened: Instant::now(), end, driver })
            }
        }
    }

    async fn ask(&mut self, question: &Question) -> Result<Answer, Failure> {
        match self.exchange(question).await {
            Ok(answer) => Ok(answer),
            Err(Broken::Answer(why)) => Err(Failure::Invalid(why.to_owned())),
            Err(Broken::Http2(error)) if error.is_io() => {
                // It has ended, and the peer may have said why before.
                let last = (&mut self.driver).await.ok().flatten();
                Err(failure(&last.unwrap_or(error), &self.end))
            }
            Err(Broken::Http2(error)) => Err(failure(&error, &self.end)),
        }
    }

    async fn exchange(&self, question: &Question) -> Result<Answer, Broken> {
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut sending) = requests.send_request(question.head.clone(), false)?;
        sending.send_data(question.body.clone(), true)?;
        let (head, mut body) = response.await?.into_parts();
        let field = |name: &str| head.headers.get(name).map(|value| Bytes::copy_from_slice(value.as_bytes()));
        let mut answer = Answer {
            http: head.status.as_u16(),
            content_type: field("content-type").unwrap_or_default(),
            status: field("grpc-status"),
            message: field("grpc-message").unwrap_or_default(),
            body: Bytes::new(),
        };
        // Nothing is read of a page that says why there is no gRPC.
        if body.is_end_stream() || !answer.is_grpc() {
            return Ok(answer);
        }
        let mut read = BytesMut::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            read.extend_from_slice(&piece);
            if read.len() > grpc::MOST {
                return Err(Broken::Answer("upstream sent too big message"));
            }
            // The room is that of all answers of a connection.
            let _ = body.flow_control().release_capacity(piece.len());
        }
        answer.body = read.freeze();
        if let Some(trailers) = body.trailers().await? {
            let field = |name: &str| trailers.get(name).map(|value| Bytes::copy_from_slice(value.as_bytes()));
            answer.status = field("grpc-status").or(answer.status);
            answer.message = field("grpc-message").unwrap_or(answer.message);
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

/// How an answer of HTTP/1 begins. As the length of a frame it would be five megabytes, which nobody has allowed.
const HTTP_1: &[u8] = b"HTT";

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
            return Err(io::ErrorKind::Other.into());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Address;
    use h2::{Reason, server};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    const SERVING: &[u8] = b"\0\0\0\0\x02\x08\x01";

    /// What a peer does with one question.
    #[derive(Clone, Copy)]
    enum Does {
        /// A head with these fields, this body, and these trailers.
        Says(&'static [(&'static str, &'static str)], &'static [u8], &'static [(&'static str, &'static str)]),
        /// The same for a head without a body.
        Refuses(u16, &'static [(&'static str, &'static str)]),
        Resets(Reason),
        GoesAway(Reason),
        Hangs,
        Leaves,
    }

    const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc")];
    const WELL: Does = Does::Says(GRPC, SERVING, &[("grpc-status", "0")]);

    fn response(status: u16, fields: &[(&'static str, &'static str)]) -> ::http::Response<()> {
        let response = ::http::Response::builder().status(status);
        fields.iter().fold(response, |response, (name, value)| response.header(*name, *value)).body(()).unwrap()
    }

    /// Serves one connection: what each question was.
    async fn serve(stream: TcpStream, does: Vec<Does>) -> Vec<String> {
        let mut connection = server::handshake(stream).await.unwrap();
        let mut asked = Vec::new();
        let mut kept = Vec::new();
        for does in does {
            let Some(Ok((request, mut respond))) = connection.accept().await else { return asked };
            let path = request.uri().to_string();
            let mut body = request.into_body();
            let mut said = Vec::new();
            // The frames move while the connection is asked for the next.
            let reading = async {
                while let Some(piece) = body.data().await {
                    said.extend_from_slice(&piece.unwrap());
                }
            };
            tokio::select! { () = reading => {}, _ = connection.accept() => {} }
            asked.push(format!("{path} {}", String::from_utf8_lossy(&said).escape_debug()));
            match does {
                Does::Says(fields, body, trailers) => {
                    let mut sending = respond.send_response(response(200, fields), false).unwrap();
                    sending.send_data(Bytes::from_static(body), trailers.is_empty()).unwrap();
                    if !trailers.is_empty() {
                        sending.send_trailers(response(200, trailers).headers().clone()).unwrap();
                    }
                }
                Does::Refuses(status, fields) => drop(respond.send_response(response(status, fields), true).unwrap()),
                Does::Resets(reason) => respond.send_reset(reason),
                Does::GoesAway(reason) => connection.abrupt_shutdown(reason),
                Does::Hangs => kept.push(respond),
                Does::Leaves => return asked,
            }
        }
        while connection.accept().await.is_some() {}
        asked
    }

    /// Runs what needs a `LocalSet`.
    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, future)
    }

    /// A peer that serves its connections one after the other.
    async fn peer(connections: Vec<Vec<Does>>) -> (Target, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::new(Address::Tcp(listener.local_addr().unwrap()));
        let serving = async move {
            let mut asked = Vec::new();
            for does in connections {
                asked.extend(serve(listener.accept().await.unwrap().0, does).await);
            }
            asked
        };
        (target, tokio::task::spawn_local(serving))
    }

    fn question(service: &str) -> Question {
        Question::new(service.as_bytes(), b"app", std::iter::empty()).unwrap()
    }

    /// What comes of a question, in the words for a log.
    async fn put(line: &mut Line, target: &Target, wanted: u32) -> String {
        match line.put(target, &question("")).await {
            Ok(answer) => answer.judge(wanted).err().unwrap_or_default(),
            Err(failure) => failure.to_string(),
        }
    }

    #[test]
    fn a_server_is_asked_by_the_protocol_and_its_answer_judged() {
        run(async {
            let (target, peer) = peer(vec![vec![WELL]]).await;
            let answer = Line::default().put(&target, &question("a.B")).await.unwrap();
            assert_eq!((answer.judge(0), &answer.body[..]), (Ok(()), SERVING));
            let asked = r"http://app/grpc.health.v1.Health/Check \0\0\0\0\u{5}\n\u{3}a.B";
            assert_eq!(peer.await.unwrap(), [asked]);
        });
    }

    #[test]
    fn whatever_else_a_server_does_is_told() {
        let plain = &[("content-type", "text/html")];
        for (does, wanted, expected) in [
            (WELL, 0, ""),
            (Does::Says(GRPC, b"\0\0\0\0\x02\x08\x02", &[("grpc-status", "0")]), 0, "NOT_SERVING"),
            (Does::Says(GRPC, SERVING, &[]), 0, "no grpc-status"),
            (Does::Says(GRPC, &[0; 5000], &[("grpc-status", "0")]), 0, "upstream sent too big message"),
            (
                Does::Refuses(200, &[("grpc-status", "12"), ("grpc-message", "none such")]),
                0,
                "grpc-status 12 (UNIMPLEMENTED): none such",
            ),
            (Does::Refuses(200, &[("grpc-status", "12")]), 12, ""),
            (Does::Says(GRPC, b"", &[("grpc-status", "12")]), 12, ""),
            (Does::Refuses(503, plain), 0, "status 503 and no grpc-status"),
            (Does::Says(plain, &[b'x'; 5000], &[]), 0, "content type \"text/html\" is not gRPC's"),
            (Does::Resets(Reason::REFUSED_STREAM), 0, "upstream rejected request with error 7 (REFUSED_STREAM)"),
            (Does::GoesAway(Reason::ENHANCE_YOUR_CALM), 0, "upstream sent goaway with error 11 (ENHANCE_YOUR_CALM)"),
            (Does::Leaves, 0, "upstream prematurely closed connection"),
            (Does::Hangs, 0, "upstream timed out (110: Connection timed out)"),
        ] {
            run(async {
                let (mut target, _peer) = peer(vec![vec![does]]).await;
                if matches!(does, Does::Hangs) {
                    target.patience = Duration::from_millis(50);
                }
                assert_eq!(put(&mut Line::default(), &target, wanted).await, expected);
            });
        }
    }

    #[test]
    fn a_peer_that_does_not_speak_http_2_is_told() {
        let old = "upstream does not speak HTTP/2, it answered";
        for (said, expected) in [
            (vec!["HTTP/1.1 400 Bad Request\r\n\r\n"], format!("{old} \"HTTP/1.1 400 Bad Request\"")),
            (vec!["HT", "TP", "/1.0 505 No\r\n"], format!("{old} \"HTTP\"")),
            (vec!["-ERR unknown command\r\n"], "upstream sent invalid HTTP/2".to_owned()),
            (vec![], "upstream prematurely closed connection".to_owned()),
        ] {
            run(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let target = Target::new(Address::Tcp(listener.local_addr().unwrap()));
                let serving = tokio::task::spawn_local(async move {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let _ = stream.read(&mut [0; 1024]).await;
                    for piece in said {
                        stream.write_all(piece.as_bytes()).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    stream.shutdown().await.unwrap();
                    // Closed with bytes unread, it would be reset.
                    while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
                });
                let why = put(&mut Line::default(), &target, 0).await;
                assert!(why.starts_with(&expected), "{why:?}, not {expected:?}");
                serving.await.unwrap();
            });
        }
    }

    #[test]
    fn a_connection_is_kept_while_it_is_young_and_replaced_once_it_is_dead() {
        run(async {
            let away = Does::GoesAway(Reason::NO_ERROR);
            let (target, peer) =
                peer(vec![vec![WELL, WELL, Does::Leaves], vec![WELL, away], vec![WELL], vec![WELL]]).await;
            let mut line = Line::kept(Some(Duration::from_secs(60)));
            // The third is asked anew over another connection, and so is the fourth.
            for number in 0..4 {
                assert_eq!(put(&mut line, &target, 0).await, "", "{number}");
            }
            line.keep = Some(Duration::ZERO);
            assert_eq!(put(&mut line, &target, 0).await, "");
            drop(line);
            assert_eq!(peer.await.unwrap().len(), 7);
        });
    }

    #[test]
    fn nobody_there_and_nobody_answering_are_told_apart() {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = Address::Tcp(listener.local_addr().unwrap());
            let silent = Target::new(address.clone()).within(Duration::from_millis(50));
            assert!(matches!(Line::default().put(&silent, &question("")).await, Err(Failure::Timeout)));
            drop(listener);
            let gone = Line::default().put(&Target::new(address), &question("")).await;
            assert!(matches!(gone, Err(Failure::Connect(..))));
        });
    }
}
