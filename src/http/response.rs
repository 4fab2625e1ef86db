//! An answer on its way out: what content makes, filters change, and `head` writes in nginx's order.

use super::{
    body::Body,
    exchange::Exchange,
    heads::{Fields, Framing},
    status,
    validators::weak_etag,
};
use crate::upstream::body::UpstreamBody;
use bytes::Bytes;

/// An answer. The fields that nginx treats apart have a place of their own; the rest is a list in order.
#[derive(Debug, Default)]
pub struct Response {
    pub status: u16,
    /// The status line's text when an upstream chose it: `200 Fine`.
    pub status_line: Option<Bytes>,
    /// Without `charset`.
    pub content_type: Option<Bytes>,
    /// What `charset` appends.
    pub charset: Option<Bytes>,
    /// The charset an upstream wants it to have, by `X-Accel-Charset`.
    pub wanted_charset: Option<Bytes>,
    /// The type as an upstream wrote it, and the charset in it: stays as it is unless either is changed.
    pub content_type_as_sent: Option<(Bytes, Bytes)>,
    /// Length of the body, where it is known beforehand. For `HEAD`, of the body that is not sent.
    pub content_length: Option<u64>,
    /// Seconds since the epoch; sent as `Last-Modified` unless the fields hold one.
    pub last_modified: Option<i64>,
    /// An absolute URI, or a path that becomes one.
    pub location: Option<Bytes>,
    /// The value with its quotes.
    pub etag: Option<Bytes>,
    /// Ranges of the body may be asked for.
    pub ranges: bool,
    /// One at a time.
    pub single_range: bool,
    /// Content may not be asked for a range of this at all (`Accept-Ranges` of an upstream is dropped).
    pub vary_accept_encoding: bool,
    /// `Content-Encoding` is on the list.
    pub encoded: bool,
    /// An upstream's: whether the client has it already is the upstream's to say.
    pub passed: bool,
    /// What we add to no answer of an upstream whose own is passed on (`proxy_pass_header Date`).
    pub without: Unsigned,
    /// Everything else, in order, names as they will be written.
    pub fields: Fields,
    pub body: Body,
    /// The body of an upstream that the client does not get, and that is kept all the same.
    pub aside: Body,
    /// Fields follow behind the body.
    pub trailers: bool,
    /// Those of an upstream's answer do, if it has any and the framing lets them.
    pub passes_trailers: bool,
    /// Whether the connection may serve another request after this one.
    pub close: bool,
    /// The answer is a switch of protocols.
    pub upgrade: bool,
}

/// Fields that are not added to an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unsigned {
    pub server: bool,
    pub date: bool,
}

impl Response {
    /// A bare status with an empty body of unknown type.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// A status with a whole body.
    pub fn with_body(status: u16, content_type: impl Into<Bytes>, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self {
            content_length: Some(body.len() as u64),
            content_type: Some(content_type.into()),
            body: Body::from(body),
            ..Self::new(status)
        }
    }

    /// The body of an upstream in it, whoever gets it.
    pub fn upstream(&self) -> Option<&UpstreamBody> {
        self.aside.upstream().or_else(|| self.body.upstream())
    }

    /// Ends the phases with this answer.
    pub fn into_phase(self) -> super::phase::Phase {
        super::phase::Phase::Break(self.into())
    }

    /// A field by name, whichever place it has.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.fields.get(name)
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.fields.push(name.into(), value.into());
    }

    /// Forgets what belongs to one exact body: for filters that change it.
    pub fn forget_length(&mut self) {
        self.content_length = None;
        self.ranges = false;
        self.fields.remove("accept-ranges");
    }

    /// The body is no longer byte for byte what its tag stands for (`ngx_http_weak_etag`).
    pub fn weaken_etag(&mut self) {
        let weak = |etag: &[u8]| weak_etag(etag).map(|weak| Bytes::copy_from_slice(&weak));
        self.etag = self.etag.as_deref().and_then(weak);
        match self.field("etag").map(weak) {
            Some(Some(etag)) => {
                for field in self.fields.iter_mut().filter(|field| field.name.eq_ignore_ascii_case(b"etag")) {
                    field.value = etag.clone();
                }
            }
            Some(None) => {
                self.fields.remove("etag");
            }
            None => {}
        }
    }

    /// The body becomes another text: the answer keeps its date, and its tag as a weak one, or loses both.
    pub fn rewritten(&mut self, keeps: bool) {
        if keeps {
            return self.weaken_etag();
        }
        (self.last_modified, self.etag) = (None, None);
        self.fields.remove("last-modified");
        self.fields.remove("etag");
    }

    /// Whether the status and method leave the answer without a body.
    pub fn bodyless(&self, exchange: &Exchange) -> bool {
        exchange.method == super::exchange::Method::Head || matches!(self.status, 204 | 304) || self.status < 200
    }
}

/// How this answer is framed, by nginx's rules (`ngx_http_chunked_header_filter`).
pub fn framing(exchange: &Exchange, response: &Response) -> Framing {
    if response.upgrade || response.status == 204 || response.status < 200 {
        return Framing::None;
    }
    let head = exchange.method == super::exchange::Method::Head;
    let chunked = exchange.head.version >= (1, 1) && exchange.location.settings.core.chunked_transfer_encoding;
    match response.content_length {
        Some(_) if response.trailers && chunked && !head && response.status != 304 => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None if response.status == 304 => Framing::None,
        None if head => Framing::None,
        None if chunked => Framing::Chunked,
        None => Framing::Close,
    }
}

/// The answer as `$sent_http_*` see it while `add_header` is at it: lines behind an empty first one.
pub fn preview(exchange: &Exchange, response: &Response) -> Bytes {
    let mut out = b"\r\n".to_vec();
    content_type(&mut out, response);
    if let Some(length) = response.content_length {
        field(&mut out, b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
    }
    if let Some(seconds) = response.last_modified {
        field(&mut out, b"Last-Modified", &super::dates::http_date(seconds));
    }
    if let Some(location) = &response.location {
        field(&mut out, b"Location", location);
    }
    if let Some(etag) = &response.etag {
        field(&mut out, b"ETag", etag);
    }
    let connection: &[u8] = match super::connection::keeps(exchange, response, framing(exchange, response)) {
        _ if response.status == 101 => b"upgrade",
        true => b"keep-alive",
        false => b"close",
    };
    field(&mut out, b"Connection", connection);
    response.fields.iter().for_each(|entry| field(&mut out, &entry.name, &entry.value));
    out.into()
}

/// Writes the head as `ngx_http_header_filter` does: status line, nginx's own fields, then the list.
pub fn head(exchange: &Exchange, response: &Response, framing: Framing, keepalive: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"HTTP/1.1 ");
    match &response.status_line {
        Some(line) => out.extend_from_slice(line),
        None => out.extend_from_slice(status::line(response.status).as_ref()),
    }
    out.extend_from_slice(b"\r\n");
    if !response.without.server && response.fields.get("server").is_none() {
        let signature = exchange.location.settings.core.server_tokens.signature(exchange);
        if !signature.is_empty() {
            field(&mut out, b"Server", &signature);
        }
    }
    if !response.without.date && response.fields.get("date").is_none() {
        exchange.connection.worker.clock.write_date(&mut out);
    }
    // An upstream's may have one.
    if response.status != 204 || response.status_line.is_some() {
        content_type(&mut out, response);
    }
    if let Framing::Length(length) = framing {
        field(&mut out, b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
    }
    if let Some(seconds) = response.last_modified.filter(|_| matches!(response.status, 200 | 206 | 304))
        && response.fields.get("last-modified").is_none()
    {
        field(&mut out, b"Last-Modified", &super::dates::http_date(seconds));
    }
    if let Some(location) = &response.location {
        field(&mut out, b"Location", &super::redirect::absolute(exchange, location));
    }
    if framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if response.status == 101 {
        out.extend_from_slice(b"Connection: upgrade\r\n");
    } else if keepalive {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
        if let Some(seconds) = exchange.location.settings.core.keepalive_timeout.header {
            field(&mut out, b"Keep-Alive", format!("timeout={seconds}").as_bytes());
        }
    } else {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    if response.vary_accept_encoding && exchange.location.settings.gzip.vary {
        out.extend_from_slice(b"Vary: Accept-Encoding\r\n");
    }
    if let Some(etag) = &response.etag {
        field(&mut out, b"ETag", etag);
    }
    for entry in &response.fields {
        field(&mut out, &entry.name, &entry.value);
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn content_type(out: &mut Vec<u8>, response: &Response) {
    let Some(kind) = response.content_type.as_ref().filter(|kind| !kind.is_empty()) else { return };
    match (&response.content_type_as_sent, &response.charset) {
        (Some((whole, sent)), Some(charset)) if sent == charset && whole.starts_with(kind) => {
            field(out, b"Content-Type", whole);
        }
        (_, Some(charset)) => field(out, b"Content-Type", &[kind, &b"; charset="[..], charset].concat()),
        (_, None) => field(out, b"Content-Type", kind),
    }
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
