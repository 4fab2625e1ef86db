//! Drives the reading of a request's head: line, fields, limits, and the checks nginx makes when a line or the head is
//! complete (`ngx_http_process_request_line`, `…_headers`, `ngx_http_process_request_header`).

use super::{
    Connection, Host, Limits, Refusal, RequestHead, ServerLimits, Stage, host,
    line::{RequestLine, Wrong},
};
use crate::http::heads::{
    Fields,
    field_line::{Dialect, FieldLine, Span, Step},
    fields::same,
};
use bytes::Bytes;
use smallvec::SmallVec;

/// A head under way. It holds positions only; the bytes stay with the caller, who hands in all of them, from the first
/// on, at each call. No byte is looked at twice.
#[derive(Debug, Default)]
pub struct Parser {
    at: usize,
    line: RequestLine,
    field: FieldLine,
    stage: Option<Stage>,
    line_complete: bool,
    window: Window,
    limits: Option<Limits>,
    spans: SmallVec<[Span; 24]>,
    dropped: SmallVec<[(u32, u32); 1]>,
    /// Index of the first field of each kind that is looked at, plus one.
    seen: [u16; KINDS],
    /// Where the name of the server stands, and its port: from the line, else from the `Host` field.
    host: Option<(usize, usize, u16)>,
    connection: Connection,
    content_length: Option<u64>,
    chunked: bool,
    expect_continue: bool,
    trailers: bool,
}

/// What came of reading on.
#[derive(Debug)]
pub enum Progress {
    /// More bytes are needed.
    Partial,
    /// The head is complete; it took so many of the bytes, and [`Parser::finish`] makes it of them.
    Complete(usize),
    /// nginx does not serve this.
    Refused(Box<Refusal>),
}

/// Which bytes nginx's buffers could hold by now. Lines are not parted between buffers: when one is full, the line
/// under way moves to the next. (`ngx_http_alloc_large_header_buffer`)
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    /// Bytes up to here can have been read.
    end: usize,
    capacity: usize,
    /// Large buffers taken.
    large: usize,
}

impl Parser {
    /// Reads on. `bytes` begins with the first byte of the head, or with empty lines before it.
    pub fn parse(&mut self, bytes: &[u8], servers: &impl ServerLimits) -> Progress {
        match self.read(bytes, servers) {
            Ok(true) => Progress::Complete(self.at),
            Ok(false) => Progress::Partial,
            Err(wrong) => Progress::Refused(Box::new(self.refuse(bytes, wrong))),
        }
    }

    /// Nothing but empty lines has come: they need not be kept, and a new parser may begin behind them.
    pub fn is_blank(&self) -> bool {
        !self.line_complete && self.line.at_start()
    }

    /// The head, of the bytes that were complete: as many as [`Progress::Complete`] said.
    pub fn finish(self, bytes: Bytes) -> RequestHead {
        self.head(&bytes)
    }

    /// The refusal of a head that did not become complete: the client closed or took too long.
    pub fn give_up(&self, bytes: &[u8], status: u16, why: &'static str) -> Refusal {
        self.refuse(bytes, Fault { status, why: Bytes::from_static(why.as_bytes()), linger: false })
    }

    fn read(&mut self, bytes: &[u8], servers: &impl ServerLimits) -> Result<bool, Fault> {
        let mut limits = match self.limits {
            Some(limits) => limits,
            None => {
                let limits = servers.limits(None);
                self.window.capacity = limits.client_header_buffer_size.max(1);
                self.window.end = self.window.capacity;
                *self.limits.insert(limits)
            }
        };
        loop {
            let visible = &bytes[..bytes.len().min(self.window.end)];
            let stage = *self.stage.get_or_insert(Stage::Line);
            let step = match stage {
                Stage::Line => match self.line.read(visible, &mut self.at) {
                    Ok(true) => {
                        if self.line_done(visible)? {
                            return Ok(true);
                        }
                        if let Some((from, to, _)) = self.host {
                            limits = *self.limits.insert(by_name(servers, &bytes[from..to]));
                        }
                        self.stage = Some(Stage::Fields);
                        continue;
                    }
                    Ok(false) => Step::More,
                    Err(wrong) => return Err(Fault::of(wrong)),
                },
                Stage::Fields => {
                    let dialect = Dialect { underscores: limits.underscores_in_headers, answer: false };
                    self.field.read(visible, &mut self.at, dialect)
                }
            };
            match step {
                Step::More if visible.len() < self.window.end => return Ok(false),
                Step::More => self.next_buffer(bytes, &limits, stage)?,
                Step::Line => {
                    let known = self.host.is_some();
                    self.field_done(visible, &limits)?;
                    if let (false, Some((from, to, _))) = (known, self.host) {
                        limits = *self.limits.insert(by_name(servers, &bytes[from..to]));
                    }
                }
                Step::End => return self.head_done(visible, &limits).map(|()| true),
                Step::Invalid => {
                    let picture = self.field.picture(visible);
                    return Err(Fault::new(
                        400,
                        [b"client sent invalid header line: \"", &picture[..], b"\""].concat(),
                    ));
                }
            }
        }
    }

    /// All that fits into nginx's buffer has been read, and the line goes on.
    fn next_buffer(&mut self, bytes: &[u8], limits: &Limits, stage: Stage) -> Result<(), Fault> {
        let (size, at_start, old) = match stage {
            Stage::Line if self.line.at_start() => {
                self.window.end = self.at + self.window.capacity;
                return Ok(());
            }
            Stage::Line => (limits.large.1, false, self.line.start),
            Stage::Fields => (limits.large.1, self.field.at_start(), self.field.start),
        };
        if (at_start || self.at - old < size) && self.window.large < limits.large.0 {
            let from = if at_start { self.at } else { old };
            self.window = Window { end: from + size, capacity: size, large: self.window.large + 1 };
            return Ok(());
        }
        match stage {
            Stage::Line => Err(Fault::new(414, &b"client sent too long URI"[..])),
            // nginx names the line it was at last, even if that one was complete.
            Stage::Fields if old == 0 => {
                Err(Fault { linger: true, ..Fault::new(494, &b"client sent too large request"[..]) })
            }
            Stage::Fields => {
                let shown = &bytes[old..self.at.min(old + 1748)];
                let why = [b"client sent too long header line: \"", shown, b"...\""].concat();
                Err(Fault { linger: true, ..Fault::new(494, why) })
            }
        }
    }

    /// The request line is complete. `true` if it is all there is: HTTP/0.9.
    fn line_done(&mut self, bytes: &[u8]) -> Result<bool, Fault> {
        self.line_complete = true;
        let line = &self.line;
        if line.version() == 9 && bytes[line.start..line.method_end] != *b"GET" {
            return Err(Fault::of(Wrong::OldMethod));
        }
        if let Some((from, to)) = line.host {
            let Some((length, port)) = host::check(&bytes[from..to]) else {
                return Err(Fault::new(400, &b"client sent invalid host in request line"[..]));
            };
            self.host = Some((from, from + length, port));
        }
        Ok(line.version() < 1000)
    }

    /// A field line is complete.
    fn field_done(&mut self, bytes: &[u8], limits: &Limits) -> Result<(), Fault> {
        let span = Span::of(&self.field);
        if self.field.odd && limits.ignore_invalid_headers {
            let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
            self.dropped.push((narrow(self.field.start), narrow(self.field.value_end)));
            return Ok(());
        }
        if self.spans.len() >= limits.max_headers {
            return Err(Fault { linger: true, ..Fault::new(494, &b"client sent too many header lines"[..]) });
        }
        self.spans.push(span);
        let Some((kind, single)) = kind(span.name(bytes)) else { return Ok(()) };
        let first = self.seen[kind as usize];
        if first == 0 {
            self.seen[kind as usize] = u16::try_from(self.spans.len()).unwrap_or(u16::MAX);
        } else if single {
            let before = &self.spans[usize::from(first) - 1];
            let what = if kind == Kind::Host { &b"host header"[..] } else { b"header line" };
            let pair = |span: &Span| [span.name(bytes), b": ", span.value(bytes)].concat();
            let (now, before) = (pair(&span), pair(before));
            let parts =
                [b"client sent duplicate ", what, b": \"", &now, b"\", previous value: \"", &before, b"\""].concat();
            return Err(Fault::new(400, parts));
        }
        let value = span.value(bytes);
        match kind {
            Kind::Host => {
                let Some((length, port)) = host::check(value) else {
                    return Err(Fault::new(400, &b"client sent invalid host header"[..]));
                };
                if self.host.is_none() {
                    self.host = Some((self.field.value_start, self.field.value_start + length, port));
                }
            }
            Kind::Connection if holds(value, b"close") => self.connection = Connection::Close,
            Kind::Connection if holds(value, b"keep-alive") => self.connection = Connection::KeepAlive,
            Kind::Te => self.trailers |= holds(value, b"trailers"),
            _ => {}
        }
        Ok(())
    }

    /// The head is complete.
    fn head_done(&mut self, bytes: &[u8], limits: &Limits) -> Result<(), Fault> {
        let version = self.line.version();
        let value = |kind: Kind| match self.seen[kind as usize] {
            0 => None,
            index => Some(self.spans[usize::from(index) - 1].value(bytes)),
        };
        if value(Kind::Host).is_none() && version > 1000 {
            return Err(Fault::new(400, &b"client sent HTTP/1.1 request without \"Host\" header"[..]));
        }
        if let Some(text) = value(Kind::ContentLength) {
            self.content_length = length(text);
            if self.content_length.is_none() {
                return Err(Fault::new(400, &b"client sent invalid \"Content-Length\" header"[..]));
            }
        }
        if let Some(coding) = value(Kind::TransferEncoding) {
            if version < 1001 {
                return Err(Fault::new(400, &b"client sent HTTP/1.0 request with \"Transfer-Encoding\" header"[..]));
            }
            if !same(coding, b"chunked") {
                let why = [b"client sent unknown \"Transfer-Encoding\": \"", coding, b"\""].concat();
                return Err(Fault::new(501, why));
            }
            if self.content_length.is_some() {
                let why = b"client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time";
                return Err(Fault::new(400, &why[..]));
            }
            self.chunked = true;
        }
        self.expect_continue = version >= 1001 && value(Kind::Expect).is_some_and(|value| same(value, b"100-continue"));
        match &bytes[self.line.start..self.line.method_end] {
            b"CONNECT" if version != 1001 || !limits.allow_connect => {
                Err(Fault::new(405, &b"client sent CONNECT method"[..]))
            }
            b"CONNECT" if self.chunked || self.content_length > Some(0) => {
                Err(Fault::new(400, &b"client sent CONNECT request with body"[..]))
            }
            b"TRACE" => Err(Fault::new(405, &b"client sent TRACE method"[..])),
            _ => Ok(()),
        }
    }

    /// What has been read, of bytes that reach at least as far as the parser got.
    fn head(&self, bytes: &Bytes) -> RequestHead {
        let line = &self.line;
        let part = |(from, to): (usize, usize)| if from < to { bytes.slice(from..to) } else { Bytes::new() };
        let small = |number: u16| u8::try_from(number).unwrap_or(u8::MAX);
        let mut fields = Fields::with_capacity(self.spans.len());
        self.spans.iter().for_each(|span| fields.add(span.field(bytes)));
        RequestHead {
            line: part((line.start, line.end)),
            method: method(bytes, line.start, line.method_end),
            target: part(line.target),
            scheme: part(line.scheme),
            authority: line.host.map(part),
            complex: line.complex,
            version: (small(line.major), small(line.minor)),
            protocol: match line.protocol {
                0 => Bytes::new(),
                from if bytes[from..line.end] == *b"HTTP/1.1" => Bytes::from_static(b"HTTP/1.1"),
                from => bytes.slice(from..line.end),
            },
            fields,
            length: self.at - line.start,
            host: self.host.map(|(from, to, port)| Host::checked(bytes.slice(from..to), port)),
            content_length: self.content_length,
            chunked: self.chunked,
            connection: self.connection,
            upgrade: self.seen[Kind::Upgrade as usize] != 0,
            expect_continue: self.expect_continue,
            trailers: self.trailers,
            dropped: self.dropped.iter().map(|&(from, to)| bytes.slice(from as usize..to as usize)).collect(),
        }
    }

    #[cold]
    fn refuse(&self, bytes: &[u8], fault: Fault) -> Refusal {
        let stage = self.stage.unwrap_or(Stage::Line);
        // A line that was not complete is shown up to its end or as far as it came, and nothing in it counts.
        let head = if self.line_complete {
            self.head(&Bytes::copy_from_slice(&bytes[..self.at.min(bytes.len())]))
        } else {
            let from = self.line.start.min(bytes.len());
            let arrived = &bytes[from..if fault.status == 414 { self.at } else { bytes.len() }];
            let line = arrived.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
            RequestHead { line: Bytes::copy_from_slice(line), version: (1, 0), ..RequestHead::default() }
        };
        Refusal { status: fault.status, why: fault.why, stage, linger: fault.linger, head }
    }
}

/// The limits of the server named so.
fn by_name(servers: &impl ServerLimits, name: &[u8]) -> Limits {
    let mut lower = SmallVec::<[u8; 64]>::from_slice(name);
    lower.make_ascii_lowercase();
    servers.limits(Some(&lower))
}

/// The method; the usual ones need no share of the head's memory.
fn method(bytes: &Bytes, from: usize, to: usize) -> Bytes {
    match bytes.get(from..to) {
        Some(b"GET") => Bytes::from_static(b"GET"),
        Some(b"POST") => Bytes::from_static(b"POST"),
        Some(b"HEAD") => Bytes::from_static(b"HEAD"),
        Some(_) => bytes.slice(from..to),
        None => Bytes::new(),
    }
}

/// A refusal before it is put together.
struct Fault {
    status: u16,
    why: Bytes,
    linger: bool,
}

impl Fault {
    #[cold]
    fn new(status: u16, why: impl Into<Bytes>) -> Self {
        Self { status, why: why.into(), linger: false }
    }

    #[cold]
    fn of(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Method => Self::new(400, &b"client sent invalid method"[..]),
            Wrong::Request => Self::new(400, &b"client sent invalid request"[..]),
            Wrong::Version => Self::new(505, &b"client sent invalid version"[..]),
            Wrong::OldMethod => Self::new(400, &b"client sent invalid method in HTTP/0.9 request"[..]),
        }
    }
}

/// The fields whose meaning or number matters (`ngx_http_headers_in`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Expect,
    Upgrade,
    Te,
    IfModifiedSince,
    IfUnmodifiedSince,
    IfMatch,
    IfNoneMatch,
    IfRange,
    ContentRange,
    Authorization,
    ProxyAuthorization,
}

const KINDS: usize = Kind::ProxyAuthorization as usize + 1;

/// Of which kind a field is, and whether there may be only one.
fn kind(name: &[u8]) -> Option<(Kind, bool)> {
    let is = |wanted: &[u8], kind: Kind, single: bool| name.eq_ignore_ascii_case(wanted).then_some((kind, single));
    // Length and first letter leave one or two to compare with.
    match (name.len(), name.first()? | 0x20) {
        (2, b't') => is(b"te", Kind::Te, false),
        (4, b'h') => is(b"host", Kind::Host, true),
        (6, b'e') => is(b"expect", Kind::Expect, true),
        (7, b'u') => is(b"upgrade", Kind::Upgrade, false),
        (8, b'i') => is(b"if-match", Kind::IfMatch, true).or_else(|| is(b"if-range", Kind::IfRange, true)),
        (10, b'c') => is(b"connection", Kind::Connection, false),
        (13, b'i') => is(b"if-none-match", Kind::IfNoneMatch, true),
        (13, b'a') => is(b"authorization", Kind::Authorization, true),
        (13, b'c') => is(b"content-range", Kind::ContentRange, true),
        (14, b'c') => is(b"content-length", Kind::ContentLength, true),
        (17, b't') => is(b"transfer-encoding", Kind::TransferEncoding, true),
        (17, b'i') => is(b"if-modified-since", Kind::IfModifiedSince, true),
        (19, b'i') => is(b"if-unmodified-since", Kind::IfUnmodifiedSince, true),
        (19, b'p') => is(b"proxy-authorization", Kind::ProxyAuthorization, true),
        _ => None,
    }
}

/// Whether `text` holds `word`, which is in lower case, anywhere (`ngx_strcasestrn`).
pub(in crate::http::heads) fn holds(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

/// A `Content-Length` (`ngx_atoof`): digits only, up to 2^63 - 1.
pub(in crate::http::heads) fn length(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let length = text.iter().try_fold(0u64, |length, byte| match byte {
        b'0'..=b'9' => length.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })?;
    i64::try_from(length).is_ok().then_some(length)
}
