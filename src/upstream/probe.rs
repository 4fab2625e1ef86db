//! Asking a peer something of our own: the small HTTP/1 client behind `health_check` and `load_check`. It speaks over the
//! links that requests use; a connection may be kept from one question to the next.

use super::{
    Failure,
    connect::{Stream, connect},
    link::{Link, Outbound, Sending},
    local::Options,
    peer::Address,
    wire::{
        Frames,
        answer::{AnswerBody, Dialect},
    },
};
use crate::http::heads::ResponseHead;
use bytes::{Bytes, BytesMut};
use std::{
    future::poll_fn,
    io,
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Whom to ask, and how patiently.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: Address,
    /// How the connection is opened, and within which time.
    pub options: Options,
    /// Between two moments at which bytes move (`_send_timeout`, `_read_timeout`).
    pub patience: Duration,
    /// The most that the head of an answer may take. Bytes.
    pub head_size: usize,
    /// The most that is read of a body; what comes behind it is not waited for. Bytes.
    pub body_size: usize,
    /// An answer without its whole body is none. If not, the body is read for a moment, so that the peer can get rid of
    /// it, and what becomes of it does not matter.
    pub needs_body: bool,
}

/// How long a body may take that nobody needs.
const MOMENT: Duration = Duration::from_secs(1);

impl Target {
    /// With nginx's defaults for the location that passes requests to it: 60 seconds, a page of head, and 256 KB of body.
    pub fn new(address: Address) -> Self {
        let patience = Duration::from_secs(60);
        let options = Options { timeout: patience, ..Options::default() };
        Self { address, options, patience, head_size: 4096, body_size: 256 << 10, needs_body: true }
    }

    /// The same, with one time for connecting and for every wait behind that.
    pub fn within(self, time: Duration) -> Self {
        Self { options: Options { timeout: time, ..self.options }, patience: time, ..self }
    }
}

/// What a peer is asked, in whatever protocol.
#[derive(Clone, Debug)]
pub struct Question {
    /// The whole head: down to the empty line, or a packet.
    pub head: Bytes,
    pub body: Bytes,
    pub frames: Frames,
    /// The protocol of the answer.
    pub dialect: Dialect,
    /// The answer has no body.
    pub head_only: bool,
}

impl Question {
    /// A request of HTTP without a body.
    pub fn http(head: Bytes) -> Self {
        Self { head, body: Bytes::new(), frames: Frames::Plain, dialect: Dialect::Http, head_only: false }
    }
}

/// What a peer said.
#[derive(Debug)]
pub struct Reply {
    pub head: ResponseHead,
    /// As much of the body as was asked for, without its coding.
    pub body: Bytes,
    /// The body goes on behind that.
    pub cut: bool,
    /// How long the head took from the beginning of the question, and the whole answer.
    pub times: (Duration, Duration),
}

/// A connection that is kept between questions, or none.
#[derive(Default)]
pub struct Line {
    link: Option<Box<Link>>,
    /// How old a connection may become (`keepalive_time`); `None` closes it behind every answer.
    pub keep: Option<Duration>,
}

impl Line {
    /// A line whose connections are kept that long.
    pub fn kept(keep: Option<Duration>) -> Self {
        Self { link: None, keep }
    }

    /// Asks, and reads the answer. A kept connection that turns out to be dead is replaced once, without a word: that says
    /// nothing of the peer.
    ///
    /// # Errors
    /// Why there is no answer, in the words that requests have for it.
    pub async fn put(&mut self, target: &Target, question: &Question) -> Result<Reply, Failure> {
        let now = Instant::now();
        if let Some(mut link) = self.link.take()
            && link.is_quiet()
            && self.keep.is_some_and(|keep| now.saturating_duration_since(link.opened) < keep)
        {
            match self.over(link, target, question).await {
                Err(Failure::Closed | Failure::Io(..)) => {}
                outcome => return outcome,
            }
        }
        let stream = connect(&target.address, &target.options).await?;
        self.over(Link::new(stream, now), target, question).await
    }

    /// The same over one connection, which is kept if it can be.
    async fn over(&mut self, mut link: Box<Link>, target: &Target, question: &Question) -> Result<Reply, Failure> {
        let began = Instant::now();
        link.begin(&question.dialect);
        let mut sending =
            Sending::new(question.head.clone(), Outbound::Kept(question.body.clone().into()), question.frames);
        let head = loop {
            let head = poll_fn(|cx| link.poll_answer(cx, &mut sending, target.head_size));
            let head = tokio::time::timeout(target.patience, head).await.unwrap_or(Err(Failure::Timeout))?;
            // Interim answers say nothing yet (RFC 9110, section 15.2).
            if !(100..200).contains(&head.status) || head.status == 101 {
                break head;
            }
        };
        let headed = began.elapsed();
        let mut rest = link.body(&head, question.head_only);
        let mut body = BytesMut::new();
        let reading = read_body(&mut link, &mut rest, &mut body, target);
        match target.needs_body {
            true => reading.await?,
            // Whatever becomes of it.
            false => drop(tokio::time::timeout(MOMENT.min(target.patience), reading).await),
        }
        let cut = !rest.is_over() || body.len() > target.body_size;
        body.truncate(target.body_size);
        if self.keep.is_some() && !cut && !head.close && !head.upgrade && rest.is_clean() && sending.is_done() {
            self.link = Some(link);
        }
        Ok(Reply { head, body: body.freeze(), cut, times: (headed, began.elapsed()) })
    }
}

/// Reads a body to its end, or until there is more of it than is wanted.
async fn read_body(
    link: &mut Link,
    rest: &mut AnswerBody,
    body: &mut BytesMut,
    target: &Target,
) -> Result<(), Failure> {
    while body.len() <= target.body_size {
        let piece = poll_fn(|cx| link.poll_body(cx, rest));
        match tokio::time::timeout(target.patience, piece).await {
            Err(_) => return Err(Failure::Timeout),
            Ok(None) => break,
            Ok(Some(piece)) => body.extend_from_slice(&piece?),
        }
    }
    Ok(())
}

/// The head of a GET over a connection of its own, down to the empty line.
pub fn get(host: &[u8], uri: &[u8]) -> Bytes {
    [b"GET ", uri, b" HTTP/1.1\r\nHost: ", host, b"\r\nConnection: close\r\n\r\n"].concat().into()
}

/// Asks once, over a connection of its own.
///
/// # Errors
/// Why there is no answer.
pub async fn ask(target: &Target, request: &Bytes) -> Result<Reply, Failure> {
    Line::default().put(target, &Question::http(request.clone())).await
}

/// Whether a peer accepts connections.
///
/// # Errors
/// Why it does not.
pub async fn reach(target: &Target) -> Result<Stream, Failure> {
    connect(&target.address, &target.options).await
}

/// Connects, sends some bytes, and reads what comes until a line has ended, the connection has, or `body_size` bytes are
/// there: protocols that are a line of text.
///
/// # Errors
/// Why there is none.
pub async fn read_line(target: &Target, send: &[u8]) -> Result<Bytes, Failure> {
    let mut stream = reach(target).await?;
    let failed = |call, error: io::Error| Failure::Io(call, crate::http::files::errno(&error));
    let talk = async {
        if !send.is_empty() {
            stream.write_all(send).await.map_err(|error| failed("send()", error))?;
        }
        let mut said = BytesMut::with_capacity(256);
        while said.len() < target.body_size && !said.contains(&b'\n') {
            if stream.read_buf(&mut said).await.map_err(|error| failed("recv()", error))? == 0 {
                break;
            }
        }
        said.truncate(target.body_size);
        let end = memchr::memchr(b'\n', &said).unwrap_or(said.len());
        let line = said.split_to(end).freeze();
        Ok(line.strip_suffix(b"\r").map_or(line.clone(), |short| line.slice_ref(short)))
    };
    tokio::time::timeout(target.patience, talk).await.unwrap_or(Err(Failure::Timeout))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        thread::JoinHandle,
    };

    /// A peer that answers each question of each connection with the next of these texts, and what it was asked.
    fn peer(connections: Vec<Vec<&'static str>>) -> (Target, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target::new(Address::Tcp(listener.local_addr().unwrap()));
        let serve = move || {
            let mut asked = Vec::new();
            for answers in connections {
                let (mut stream, _) = listener.accept().unwrap();
                for answer in answers {
                    asked.push(question(&mut stream));
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
            asked
        };
        (target, std::thread::spawn(serve))
    }

    fn question(stream: &mut TcpStream) -> String {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    #[tokio::test]
    async fn an_answer_is_read_whole_whatever_frames_it() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nhello",
            "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhello",
        ] {
            let (target, peer) = peer(vec![vec![answer]]);
            let request = get(b"app", b"/up?x=1");
            let reply = ask(&target, &request).await.unwrap();
            assert_eq!((reply.head.status, &reply.body[..], reply.cut), (200, &b"hello"[..], false), "{answer}");
            assert_eq!(peer.join().unwrap(), ["GET /up?x=1 HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"]);
        }
    }

    #[tokio::test]
    async fn of_a_long_body_only_so_much_is_read() {
        let (mut target, _peer) = peer(vec![vec!["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"]]);
        target.body_size = 4;
        let reply = ask(&target, &get(b"app", b"/")).await.unwrap();
        assert_eq!((&reply.body[..], reply.cut), (&b"hell"[..], true));
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_counts_only_where_it_is_needed() {
        for needs_body in [true, false] {
            let (mut target, _peer) = peer(vec![vec!["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"]]);
            target.needs_body = needs_body;
            let reply = ask(&target, &get(b"app", b"/")).await;
            assert_eq!(reply.is_ok_and(|reply| reply.cut), !needs_body);
        }
    }

    #[tokio::test]
    async fn a_connection_is_kept_while_it_is_young_and_replaced_once_it_is_dead() {
        let short = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n";
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let (target, peer) = peer(vec![vec![ok, ok], vec![ok], vec![ok], vec![short]]);
        let request = Question::http(Bytes::from_static(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"));
        let mut line = Line::kept(Some(Duration::from_secs(60)));
        for _ in 0..2 {
            assert_eq!(line.put(&target, &request).await.unwrap().body, "ok");
        }
        // The peer has closed it: the third goes over a new one.
        assert_eq!(line.put(&target, &request).await.unwrap().body, "ok");
        line.keep = Some(Duration::ZERO);
        assert_eq!(line.put(&target, &request).await.unwrap().body, "ok");
        assert!(matches!(line.put(&target, &request).await, Err(Failure::Closed)));
        assert_eq!(peer.join().unwrap().len(), 5);
    }

    #[tokio::test]
    async fn nobody_there_and_nobody_answering_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let request = get(b"app", b"/");
        let silent = Target::new(address.clone()).within(Duration::from_millis(20));
        assert!(matches!(ask(&silent, &request).await, Err(Failure::Timeout)));
        assert!(matches!(read_line(&silent, b"").await, Err(Failure::Timeout)));
        assert!(reach(&silent).await.is_ok());
        drop(listener);
        assert!(matches!(reach(&Target::new(address)).await, Err(Failure::Connect(..))));
    }

    #[tokio::test]
    async fn a_line_ends_at_its_end_or_at_that_of_the_connection() {
        for (said, line) in [("75% up\r\nmore", "75% up"), ("down", "down"), ("", "")] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let target = Target::new(Address::Tcp(listener.local_addr().unwrap()));
            let serve = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(said.as_bytes()).unwrap();
            });
            assert_eq!(read_line(&target, b"").await.unwrap(), line);
            serve.join().unwrap();
        }
    }
}
