//! An HTTP/1.1 client: the bytes it is given go out as they are, answers are read strictly.

use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long one read may take before the answer counts as not coming. A failover may wait three seconds for ARP, twice.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a server is: a port on this machine, or a whole address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(pub(crate) SocketAddr);

impl From<u16> for Place {
    fn from(port: u16) -> Self {
        Self((Ipv4Addr::LOCALHOST, port).into())
    }
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self(address)
    }
}

impl From<&str> for Place {
    fn from(text: &str) -> Self {
        Self(text.parse().expect("address:port"))
    }
}

/// One answer.
#[derive(Clone, Default)]
pub(crate) struct Answer {
    /// The head as it came, with the empty line at its end.
    pub(crate) raw_head: Vec<u8>,
    /// The status, 0 when what came was no HTTP/1 answer.
    pub(crate) status: u16,
    /// Names as sent, values trimmed, in order.
    pub(crate) headers: Vec<(String, String)>,
    /// The body without its chunk framing.
    pub(crate) body: Vec<u8>,
    /// Whether it ended as its framing said it would.
    pub(crate) complete: bool,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.text();
        let start: String = text.chars().take(1000).collect();
        let end = if self.complete { "whole" } else { "cut short" };
        let head = String::from_utf8_lossy(&self.raw_head);
        write!(f, "an answer, {end}, body of {} bytes:\n{head}{start}", self.body.len())
    }
}

impl Answer {
    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All values of a header, in order.
    pub(crate) fn headers(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What the body says in JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// `HTTP/1.1 200 OK`.
    pub(crate) fn line(&self) -> String {
        String::from_utf8_lossy(self.raw_head.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned()
    }

    /// # Panics
    /// Unless it is whole and has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert!(self.status == status && self.complete, "expected {status}, got {self:?}");
        self
    }
}

/// One connection to a server.
pub(crate) struct Connection {
    stream: TcpStream,
    /// Read, but not yet part of an answer.
    ahead: Vec<u8>,
}

impl Connection {
    /// # Panics
    /// When the server does not accept it.
    #[track_caller]
    pub(crate) fn open(place: impl Into<Place>) -> Self {
        let Place(address) = place.into();
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, ahead: Vec::new() }
    }

    /// Sends bytes; the server may have closed already, which then shows when its answer is read.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Ends the client's own direction.
    pub(crate) fn finish_sending(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Asks for a path and stays connected.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(Request::get(path).bytes());
        self.answer("GET")
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: &Request) -> Answer {
        self.send(request.bytes());
        self.answer(&request.method)
    }

    /// Reads one answer to a request of this method; interim answers (100, 103) are read too, and forgotten.
    pub(crate) fn answer(&mut self, method: &str) -> Answer {
        loop {
            let mut answer = self.head();
            if (100..200).contains(&answer.status) && answer.status != 101 {
                continue;
            }
            self.body(method, &mut answer);
            return answer;
        }
    }

    /// Reads just so many bytes; fewer when the connection ends before.
    pub(crate) fn read_exact(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count && self.more() {}
        let count = count.min(self.ahead.len());
        self.ahead.drain(..count).collect()
    }

    /// Reads until the server closes.
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.ahead)
    }

    /// Whether the server closes within this time, without sending anything more.
    pub(crate) fn closes_within(&mut self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).expect("timeout");
        let closed = match self.stream.read(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        };
        self.stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        closed
    }

    fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more() {
                return Answer { raw_head: std::mem::take(&mut self.ahead), ..Answer::default() };
            }
        };
        let raw_head: Vec<u8> = self.ahead.drain(..end).collect();
        let text = String::from_utf8_lossy(&raw_head).into_owned();
        let mut lines = text.trim_end().split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_owned(), value.trim().to_owned())
        };
        Answer { raw_head, status, headers: lines.map(field).collect(), ..Answer::default() }
    }

    fn body(&mut self, method: &str, answer: &mut Answer) {
        if answer.status == 0 {
            return;
        }
        let length = answer.header("Content-Length").and_then(|text| text.parse().ok());
        if method == "HEAD" || matches!(answer.status, 101 | 204 | 304) {
            answer.complete = true;
        } else if answer.header("Transfer-Encoding").is_some_and(|coding| coding.ends_with("chunked")) {
            answer.complete = self.chunks(&mut answer.body);
        } else if let Some(length) = length {
            answer.body = self.read_exact(length);
            answer.complete = answer.body.len() == length;
        } else {
            answer.body = self.read_to_end();
            answer.complete = true;
        }
    }

    /// Whether the last chunk came.
    fn chunks(&mut self, body: &mut Vec<u8>) -> bool {
        loop {
            let Some(size) = self.line().and_then(|line| {
                let digits = line.split(';').next().unwrap_or_default().trim();
                usize::from_str_radix(digits, 16).ok()
            }) else {
                return false;
            };
            if size == 0 {
                // Trailers, then an empty line.
                while let Some(line) = self.line() {
                    if line.is_empty() {
                        return true;
                    }
                }
                return false;
            }
            let chunk = self.read_exact(size);
            body.extend_from_slice(&chunk);
            if chunk.len() < size || self.line().as_deref() != Some("") {
                return false;
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        let end = loop {
            if let Some(at) = self.ahead.windows(2).position(|two| two == b"\r\n") {
                break at;
            }
            if !self.more() {
                return None;
            }
        };
        let line: Vec<u8> = self.ahead.drain(..end + 2).collect();
        Some(String::from_utf8_lossy(&line[..end]).into_owned())
    }

    /// Reads what is there; false at the end, on an error, and when nothing comes.
    fn more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(count) => {
                    self.ahead.extend_from_slice(&buffer[..count]);
                    return count > 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// The same connection for another thread, to send while this one reads.
    pub(crate) fn sender(&self) -> TcpStream {
        self.stream.try_clone().expect("dup")
    }
}

/// A request in the making. `Host` is `localhost` unless set.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// Any method.
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self { method: method.to_owned(), target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// A GET.
    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST of a form or anything else.
    pub(crate) fn post(target: &str, content_type: &str, body: impl AsRef<[u8]>) -> Self {
        let mut request = Self::new("POST", target).header("Content-Type", content_type);
        request.body = body.as_ref().to_vec();
        let length = request.body.len().to_string();
        request.header("Content-Length", &length)
    }

    /// The same with another method.
    pub(crate) fn with_method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// One header more.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As it goes over the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text.push_str("Host: localhost\r\n");
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        [text.as_bytes(), &self.body].concat()
    }
}

/// Asks for a path on a connection of its own.
#[track_caller]
pub(crate) fn get(place: impl Into<Place>, path: &str) -> Answer {
    ask(place, &Request::get(path).header("Connection", "close"))
}

/// Sends a request on a connection of its own.
#[track_caller]
pub(crate) fn ask(place: impl Into<Place>, request: &Request) -> Answer {
    Connection::open(place).ask(request)
}

/// Sends bytes on a connection of its own and reads whatever comes until the server closes.
#[track_caller]
pub(crate) fn raw(place: impl Into<Place>, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut connection = Connection::open(place);
    connection.send(bytes);
    connection.read_to_end()
}
