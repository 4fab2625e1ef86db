//! A client that sends bytes as they are and reads answers strictly, framing included.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// How long an answer may take altogether before the conversation is called unfinished.
const PATIENCE: Duration = Duration::from_secs(8);

/// What to send on one connection and what to wait for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exchange {
    /// The pieces to send, a short pause between any two.
    pub(crate) pieces: Vec<Vec<u8>>,
    /// How many answers to read; interim ones (100) count.
    pub(crate) responses: usize,
    /// Whether the client ends its own direction after sending.
    pub(crate) half_close: bool,
}

/// One answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Response {
    /// `HTTP/1.1 200 OK`; empty when what came was no HTTP/1 answer.
    pub(crate) line: String,
    /// Names as sent, values trimmed, in order.
    pub(crate) headers: Vec<(String, String)>,
    /// The body without its chunk framing.
    pub(crate) body: Vec<u8>,
    /// Whether it ended as its framing said it would.
    pub(crate) complete: bool,
}

impl Response {
    /// The status code, 0 when there is none.
    pub(crate) fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// All values of a header, in order.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The first value of a header.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.values(name).first().copied()
    }
}

/// How a connection stood after the last answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nobody said it would close, and nobody looked.
    Open,
    /// The server closed it.
    Closed,
    /// It was to be closed but was not, within a second.
    LeftOpen,
    /// More came than was to come.
    Trailing(Vec<u8>),
}

/// Everything that came back on one connection.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    /// The answers, at most as many as were asked for.
    pub(crate) responses: Vec<Response>,
    /// The state afterwards.
    pub(crate) end: End,
}

/// Sends and reads.
pub(crate) fn converse(port: u16, exchange: &Exchange) -> Conversation {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.set_nodelay(true).expect("nodelay");
    let mut sender = stream.try_clone().expect("clone");
    let pieces = exchange.pieces.clone();
    let half_close = exchange.half_close;
    // A thread of its own: a server may answer and stop reading before all is sent.
    let sending = std::thread::spawn(move || {
        for (index, piece) in pieces.iter().enumerate() {
            if index > 0 {
                std::thread::sleep(Duration::from_millis(120));
            }
            if sender.write_all(piece).is_err() {
                return;
            }
        }
        if half_close {
            let _ = sender.shutdown(Shutdown::Write);
        }
    });
    let methods = methods(&exchange.pieces.concat());
    let mut reader = Reader { stream, buffer: Vec::new(), eof: false, deadline: Instant::now() + PATIENCE };
    let mut responses = Vec::new();
    let mut finals = 0;
    while responses.len() < exchange.responses.max(1) {
        let head_only = methods.get(finals).is_some_and(|method| method == b"HEAD");
        let Some(response) = reader.response(head_only) else { break };
        if response.status() >= 200 {
            finals += 1;
        }
        let complete = response.complete;
        responses.push(response);
        if !complete {
            break;
        }
    }
    let end = reader.end(responses.last());
    drop(reader);
    let _ = sending.join();
    Conversation { responses, end }
}

/// The methods of the requests in a piece of text, in order.
fn methods(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0"))
        .map(|line| line.split(|byte| *byte == b' ').next().unwrap_or_default().to_vec())
        .collect()
}

/// Bytes from the server, buffered, with one deadline for the whole conversation.
struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
    eof: bool,
    deadline: Instant,
}

impl Reader {
    /// Reads more; false at the end, at an error or at the deadline.
    fn more(&mut self) -> bool {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if self.eof || left.is_zero() {
            return false;
        }
        self.stream.set_read_timeout(Some(left)).expect("timeout");
        let mut chunk = [0; 16384];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.eof = true,
            Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
            // A reset ends what can be read as an orderly end does.
            Err(_) => self.eof = true,
        }
        !self.eof
    }

    fn response(&mut self, head_only: bool) -> Option<Response> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")
                && self.buffer.starts_with(b"HTTP/1.")
            {
                break at;
            }
            if !self.more() {
                if self.buffer.is_empty() {
                    return None;
                }
                // No head: an HTTP/0.9 answer, or a head cut short.
                let body = std::mem::take(&mut self.buffer);
                return Some(Response { body, complete: self.eof, ..Response::default() });
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .map(|line| line.split_once(':').map_or((line, ""), |(name, value)| (name, value.trim())))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut response = Response { line, headers, body: Vec::new(), complete: true };
        let status = response.status();
        if head_only || status == 204 || status == 304 || (100..200).contains(&status) && status != 101 {
            return Some(response);
        }
        if response.value("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            response.complete = self.chunks(&mut response.body);
        } else if let Some(length) = response.value("content-length").and_then(|value| value.parse().ok()) {
            while self.buffer.len() < length && self.more() {}
            response.complete = self.buffer.len() >= length;
            let length = length.min(self.buffer.len());
            response.body = self.buffer.drain(..length).collect();
        } else {
            while self.more() {}
            response.complete = self.eof;
            response.body = std::mem::take(&mut self.buffer);
        }
        Some(response)
    }

    /// Reads chunks and trailers into `body`; false when they do not end as they should.
    fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let Some(size) = self.line() else { return false };
            let digits = size.split(';').next().unwrap_or_default().trim();
            let Ok(size) = usize::from_str_radix(digits, 16) else { return false };
            if size == 0 {
                return loop {
                    match self.line() {
                        Some(line) if line.is_empty() => break true,
                        Some(_) => {}
                        None => break false,
                    }
                };
            }
            while self.buffer.len() < size + 2 && self.more() {}
            if self.buffer.len() < size + 2 {
                body.append(&mut self.buffer);
                return false;
            }
            body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
        }
    }

    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 2);
                return Some(line);
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Looks whether the connection ends, if the last answer says that it does.
    fn end(&mut self, last: Option<&Response>) -> End {
        let closing = last.is_none_or(|last| {
            let connection = last.value("connection").unwrap_or_default();
            last.line.is_empty() || !last.complete || connection.eq_ignore_ascii_case("close")
        });
        if closing {
            self.deadline = Instant::now() + Duration::from_secs(1);
            while self.more() {}
        }
        if !self.buffer.is_empty() {
            return End::Trailing(std::mem::take(&mut self.buffer));
        }
        match (closing, self.eof) {
            (_, true) => End::Closed,
            (true, false) => End::LeftOpen,
            (false, false) => End::Open,
        }
    }
}
