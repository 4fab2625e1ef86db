//! Backends under the test's control: they echo what they were sent, or answer with the bytes of a script.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a backend speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    /// HTTP/1 with keep-alive.
    Http,
    /// The uwsgi protocol, one request per connection.
    Uwsgi,
    /// FastCGI, as many requests per connection as are wanted.
    FastCgi,
    /// SCGI, one request per connection.
    Scgi,
    /// memcached's text protocol: `get` only.
    Memcached,
}

impl Speech {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [Self::Http, Self::Uwsgi, Self::FastCgi, Self::Scgi, Self::Memcached];
}

/// One step of a scripted answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// These bytes.
    Send(Vec<u8>),
    /// A FastCGI record: its type, its padding, and these bytes.
    Record(u8, u8, Vec<u8>),
    /// 300 ms of silence.
    Pause,
}

/// A listening backend; stops accepting when dropped.
pub(crate) struct Backend {
    shared: Arc<Shared>,
    place: Place,
}

enum Place {
    Port(u16),
    Path(PathBuf),
}

struct Shared {
    name: String,
    speech: Speech,
    script: Mutex<Option<Vec<Step>>>,
    seen: Mutex<Vec<Vec<u8>>>,
    stop: AtomicBool,
}

trait Stream: Read + Write + Send {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

impl Backend {
    /// Listens on a port of the kernel's choice.
    pub(crate) fn tcp(name: &str, speech: Speech) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind a backend");
        let place = Place::Port(listener.local_addr().expect("an address").port());
        let shared = Shared::new(name, speech);
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = stream.set_nodelay(true);
                let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
                if !accepting.take(stream) {
                    return;
                }
            }
        });
        Self { shared, place }
    }

    /// Listens on a unix socket that everybody may connect to.
    pub(crate) fn unix(name: &str, speech: Speech, path: &Path) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let listener = UnixListener::bind(path).expect("bind a backend");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("chmod");
        let shared = Shared::new(name, speech);
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
                if !accepting.take(stream) {
                    return;
                }
            }
        });
        Self { shared, place: Place::Path(path.to_owned()) }
    }

    /// Where it listens: `127.0.0.1:PORT`, or the path of the socket.
    pub(crate) fn address(&self) -> String {
        match &self.place {
            Place::Port(port) => format!("127.0.0.1:{port}"),
            Place::Path(path) => path.display().to_string(),
        }
    }

    /// The name it gives itself in its answers.
    pub(crate) fn name(&self) -> &str {
        &self.shared.name
    }

    /// What it speaks.
    pub(crate) fn speech(&self) -> Speech {
        self.shared.speech
    }

    /// Answers with these steps from now on, then closes; `None` brings the echo back.
    pub(crate) fn script(&self, steps: Option<Vec<Step>>) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = steps;
    }

    /// The requests seen since the last call, each as it came: head and body.
    pub(crate) fn take_seen(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        match &self.place {
            Place::Port(port) => drop(TcpStream::connect(("127.0.0.1", *port))),
            Place::Path(path) => drop(UnixStream::connect(path)),
        }
    }
}

impl Shared {
    fn new(name: &str, speech: Speech) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            speech,
            script: Mutex::new(None),
            seen: Mutex::new(Vec::new()),
            stop: AtomicBool::new(false),
        })
    }

    /// Serves one connection on its own thread; false when the backend is to end.
    fn take(self: &Arc<Self>, stream: impl Stream + 'static) -> bool {
        if self.stop.load(Ordering::SeqCst) {
            return false;
        }
        let shared = Arc::clone(self);
        std::thread::spawn(move || {
            let mut stream = stream;
            let _ = match shared.speech {
                Speech::Http => shared.http(&mut stream),
                Speech::Uwsgi => shared.uwsgi(&mut stream),
                Speech::FastCgi => shared.fastcgi(&mut stream),
                Speech::Scgi => shared.scgi(&mut stream),
                Speech::Memcached => shared.memcached(&mut stream),
            };
        });
        true
    }

    fn saw(&self, request: Vec<u8>) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
    }

    /// Plays the script, if there is one.
    fn play(&self, stream: &mut impl Stream) -> std::io::Result<bool> {
        let script = self.script.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(steps) = script else { return Ok(false) };
        for step in steps {
            match step {
                Step::Send(bytes) => stream.write_all(&bytes)?,
                Step::Record(kind, padding, bytes) => stream.write_all(&record(kind, padding, &bytes))?,
                Step::Pause => std::thread::sleep(Duration::from_millis(300)),
            }
        }
        Ok(true)
    }

    fn http(&self, stream: &mut impl Stream) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                    break at + 4;
                }
                if !fill(stream, &mut buffer)? {
                    if !buffer.is_empty() {
                        self.saw(buffer);
                    }
                    return Ok(());
                }
            };
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let mut request: Vec<u8> = buffer.drain(..end).collect();
            let header = |name: &str| {
                head.lines()
                    .skip(1)
                    .filter_map(|line| line.split_once(':'))
                    .find_map(|(n, value)| n.eq_ignore_ascii_case(name).then(|| value.trim().to_owned()))
            };
            let mut body = Vec::new();
            if header("transfer-encoding").is_some() {
                while !buffer.ends_with(b"0\r\n\r\n") && fill(stream, &mut buffer)? {}
                body.append(&mut buffer);
            } else if let Some(length) = header("content-length").and_then(|value| value.parse().ok()) {
                while buffer.len() < length && fill(stream, &mut buffer)? {}
                body.extend(buffer.drain(..length.min(buffer.len())));
            }
            request.extend_from_slice(&body);
            self.saw(request);
            if self.play(stream)? {
                return Ok(());
            }
            let mut lines = head.trim_end().split("\r\n");
            let request_line = lines.next().unwrap_or_default().to_owned();
            let text = self.echo(&request_line, lines, &body);
            let last = request_line.ends_with("HTTP/1.0") || header("connection").is_some_and(|value| value == "close");
            let connection = if last { "Connection: close\r\n" } else { "" };
            let mut answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Backend: {}\r\nContent-Length: {}\r\n{connection}\r\n",
                self.name,
                text.len()
            )
            .into_bytes();
            if !request_line.starts_with("HEAD ") {
                answer.extend_from_slice(&text);
            }
            stream.write_all(&answer)?;
            if last {
                return Ok(());
            }
        }
    }

    /// The request in words: its line, its headers by name, its body.
    fn echo<'a>(&self, first: &str, headers: impl Iterator<Item = &'a str>, body: &[u8]) -> Vec<u8> {
        let mut headers: Vec<String> = headers
            .map(|line| line.split_once(':').unwrap_or((line, "")))
            .map(|(name, value)| format!("{}:{value}\n", name.to_ascii_lowercase()))
            .collect();
        headers.sort();
        let mut text = format!("{}\n{first}\n{}", self.name, headers.concat()).into_bytes();
        describe(body, &mut text);
        text
    }

    fn uwsgi(&self, stream: &mut impl Stream) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        while buffer.len() < 4 || buffer.len() < 4 + size_of(&buffer) {
            if !fill(stream, &mut buffer)? {
                return Ok(());
            }
        }
        let size = size_of(&buffer);
        let (first, second) = (buffer[0], buffer[3]);
        let mut rest = &buffer[4..4 + size];
        let mut vars = BTreeMap::new();
        while let Some((name, after)) = counted(rest) {
            let Some((value, after)) = counted(after) else { break };
            vars.insert(name, value);
            rest = after;
        }
        let length = vars.get("CONTENT_LENGTH").and_then(|value| value.parse().ok()).unwrap_or(0);
        while buffer.len() < 4 + size + length && fill(stream, &mut buffer)? {}
        self.saw(buffer.clone());
        if self.play(stream)? {
            return Ok(());
        }
        let about = format!("modifiers {first} {second}");
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        stream.write_all(&self.told(&about, &vars, &buffer[4 + size..]))
    }

    /// What the CGI-like ones answer: what they were told, and the body.
    fn told(&self, about: &str, vars: &BTreeMap<String, String>, body: &[u8]) -> Vec<u8> {
        let name = &self.name;
        let mut text = format!("Content-Type: text/plain\r\nX-Backend: {name}\r\n\r\n{name}\n{about}\n").into_bytes();
        for (name, value) in vars {
            text.extend_from_slice(format!("{name}={value}\n").as_bytes());
        }
        describe(body, &mut text);
        text
    }

    fn fastcgi(&self, stream: &mut impl Stream) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let (mut flags, mut params, mut body, mut raw) = (0, Vec::new(), Vec::new(), Vec::new());
            loop {
                while buffer.len() < 8 || buffer.len() < record_length(&buffer) {
                    if !fill(stream, &mut buffer)? {
                        return Ok(());
                    }
                }
                let record: Vec<u8> = buffer.drain(..record_length(&buffer)).collect();
                let content = &record[8..8 + usize::from(u16::from_be_bytes([record[4], record[5]]))];
                raw.extend_from_slice(&record);
                match record[1] {
                    1 => flags = content[2],
                    4 => params.extend_from_slice(content),
                    5 if content.is_empty() => break,
                    5 => body.extend_from_slice(content),
                    other => panic!("a record of type {other}"),
                }
            }
            self.saw(raw);
            if self.play(stream)? {
                return Ok(());
            }
            let mut vars = BTreeMap::new();
            let mut rest = &params[..];
            while let Some((name, value, after)) = long_counted(rest) {
                vars.insert(name, value);
                rest = after;
            }
            let text = self.told(&format!("flags {flags}"), &vars, &body);
            let parts = [record(6, 3, &text), record(6, 0, b""), record(3, 0, &[0; 8])];
            stream.write_all(&parts.concat())?;
            if flags & 1 == 0 {
                return Ok(());
            }
        }
    }

    fn scgi(&self, stream: &mut impl Stream) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        let (colon, size) = loop {
            if let Some(colon) = buffer.iter().position(|byte| *byte == b':') {
                break (colon, String::from_utf8_lossy(&buffer[..colon]).parse::<usize>().expect("a length"));
            }
            if !fill(stream, &mut buffer)? {
                return Ok(());
            }
        };
        let end = colon + 1 + size + 1;
        while buffer.len() < end && fill(stream, &mut buffer)? {}
        assert_eq!(buffer[end - 1], b',');
        let words: Vec<String> = buffer[colon + 1..end - 2]
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into())
            .collect();
        assert_eq!(words[0], "CONTENT_LENGTH");
        let vars: BTreeMap<_, _> = words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
        let length = words[1].parse::<usize>().expect("a length");
        while buffer.len() < end + length && fill(stream, &mut buffer)? {}
        self.saw(buffer.clone());
        if self.play(stream)? {
            return Ok(());
        }
        stream.write_all(&self.told("scgi", &vars, &buffer[end..]))
    }

    /// A key that ends with `missing` has no value.
    fn memcached(&self, stream: &mut impl Stream) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = buffer.windows(2).position(|window| window == b"\r\n") {
                    break at + 2;
                }
                if !fill(stream, &mut buffer)? {
                    return Ok(());
                }
            };
            let line: Vec<u8> = buffer.drain(..end).collect();
            self.saw(line.clone());
            if self.play(stream)? {
                return Ok(());
            }
            let key = String::from_utf8_lossy(&line[4..end - 2]).into_owned();
            let value = format!("{} has {key}\n", self.name);
            let answer = match key.ends_with("missing") {
                true => "END\r\n".to_owned(),
                false => format!("VALUE {key} 0 {}\r\n{value}\r\nEND\r\n", value.len()),
            };
            stream.write_all(answer.as_bytes())?;
        }
    }
}

/// A FastCGI record of request 1.
fn record(kind: u8, padding: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(content.len()).expect("a short record").to_be_bytes();
    let mut out = vec![1, kind, 0, 1, high, low, padding, 0];
    out.extend_from_slice(content);
    out.resize(out.len() + usize::from(padding), b'#');
    out
}

/// The length of a FastCGI record, from its header.
fn record_length(header: &[u8]) -> usize {
    8 + usize::from(u16::from_be_bytes([header[4], header[5]])) + usize::from(header[6])
}

/// A name and a value behind their lengths, of one byte or four.
fn long_counted(bytes: &[u8]) -> Option<(String, String, &[u8])> {
    fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
        match bytes {
            [short @ ..=127, rest @ ..] => Some((usize::from(*short), rest)),
            [a, b, c, d, rest @ ..] => Some((u32::from_be_bytes([a & 127, *b, *c, *d]) as usize, rest)),
            _ => None,
        }
    }
    let (name, rest) = length(bytes)?;
    let (value, rest) = length(rest)?;
    let (name, rest) = rest.split_at_checked(name)?;
    let (value, rest) = rest.split_at_checked(value)?;
    Some((String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value).into_owned(), rest))
}

/// The length of the variables in a uwsgi packet, from its header.
fn size_of(packet: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([packet[1], packet[2]]))
}

/// A string behind its two-byte length.
fn counted(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((String::from_utf8_lossy(text).into_owned(), rest))
}

/// A short body as it is, a long one by length and sum.
fn describe(body: &[u8], text: &mut Vec<u8>) {
    if body.is_empty() {
        return;
    }
    if body.len() <= 200 {
        text.extend_from_slice(b"body ");
        text.extend_from_slice(body);
        text.push(b'\n');
        return;
    }
    let sum =
        body.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    text.extend_from_slice(format!("body of {} bytes, sum {sum:016x}\n", body.len()).as_bytes());
}

fn fill(stream: &mut impl Stream, buffer: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut chunk = [0; 16384];
    let count = stream.read(&mut chunk)?;
    buffer.extend_from_slice(&chunk[..count]);
    Ok(count > 0)
}
