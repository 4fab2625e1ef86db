//! The head of a request, read and judged as nginx does it (`ngx_http_request.c`, `ngx_http_parse.c`).

#[cfg(test)]
mod cases;
mod host;
mod line;
mod parser;

#[cfg(test)]
mod tests;

pub use host::Host;
pub use parser::{Parser, Progress};
pub(in crate::http::heads) use parser::{holds, length};

use super::Fields;
use bytes::Bytes;

/// A request's head as the client sent it, and what nginx makes of it.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The request line without its end. (`$request`)
    pub line: Bytes,
    /// As sent; nginx takes capital letters, `_` and `-`.
    pub method: Bytes,
    /// The target without scheme and authority, as sent. (`$request_uri`) It may begin with `?` if it was
    /// `http://host?args`; of `CONNECT` it is `/`.
    pub target: Bytes,
    /// The scheme of a target in absolute form; empty otherwise.
    pub scheme: Bytes,
    /// Host and port of a target in absolute or authority form, as sent.
    pub authority: Option<Bytes>,
    /// The path may differ from its normal form; if not, it ends at the first `?` and is decoded already.
    pub complex: bool,
    /// `(1, 1)`; `(0, 9)` if the line named none.
    pub version: (u8, u8),
    /// `HTTP/1.1` as sent. (`$server_protocol`)
    pub protocol: Bytes,
    /// In order, as sent.
    pub fields: Fields,
    /// Bytes of the head, without empty lines before it: what it adds to `$request_length`.
    pub length: usize,
    /// From the line, else from the `Host` field: it chooses the server. (`$host`)
    pub host: Option<Host>,
    /// `Content-Length`, if there was one.
    pub content_length: Option<u64>,
    /// The body is in the chunked coding.
    pub chunked: bool,
    /// What the `Connection` field asks for.
    pub connection: Connection,
    /// There is an `Upgrade` field.
    pub upgrade: bool,
    /// The client waits for `100 Continue` (RFC 9110, section 10.1.1), which HTTP/1.0 does not know.
    pub expect_continue: bool,
    /// The client takes trailer fields (`TE: trailers`).
    pub trailers: bool,
    /// Lines that were dropped as `ignore_invalid_headers` says: nginx logs
    /// `client sent invalid header line: "…"` at `info` for each.
    pub dropped: Vec<Bytes>,
}

/// What a `Connection` field asks for (`NGX_HTTP_CONNECTION_CLOSE`, `NGX_HTTP_CONNECTION_KEEP_ALIVE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// Nothing, or neither of both.
    #[default]
    Unsaid,
    /// `close`, whatever else.
    Close,
    /// `keep-alive`.
    KeepAlive,
}

impl RequestHead {
    /// The head that a text is, if that is a complete one that nothing is wrong with.
    pub fn of(text: &[u8]) -> Option<Self> {
        let mut parser = Parser::default();
        match parser.parse(text, &Limits::default()) {
            Progress::Complete(length) => Some(parser.finish(Bytes::copy_from_slice(&text[..length]))),
            Progress::Partial | Progress::Refused(_) => None,
        }
    }

    /// Whether the client lets the connection live on behind the answer (`ngx_http_handler`).
    pub fn keepalive(&self) -> bool {
        let asked = match self.connection {
            Connection::Unsaid => self.version > (1, 0),
            Connection::Close => false,
            Connection::KeepAlive => true,
        };
        // The method may be that of an error page by now.
        asked && !self.line.starts_with(b"CONNECT ")
    }

    /// Whether bytes of a body follow.
    pub fn has_body(&self) -> bool {
        self.chunked || self.content_length.is_some_and(|length| length > 0)
    }
}

/// How long a head may be and what it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `client_header_buffer_size`, bytes.
    pub client_header_buffer_size: usize,
    /// `large_client_header_buffers`: how many, and bytes of each.
    pub large: (usize, usize),
    /// `max_headers`.
    pub max_headers: usize,
    /// `ignore_invalid_headers`.
    pub ignore_invalid_headers: bool,
    /// `underscores_in_headers`.
    pub underscores_in_headers: bool,
    /// `CONNECT` is answered at all.
    pub allow_connect: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            client_header_buffer_size: 1024,
            large: (4, 8192),
            max_headers: 1000,
            ignore_invalid_headers: true,
            underscores_in_headers: false,
            allow_connect: false,
        }
    }
}

/// Where limits come from. They belong to a server, and which one it is shows only when its name has been read: nginx
/// goes on by that server's limits from there.
pub trait ServerLimits {
    /// The limits of the server with that name, in lower case; of the default server for `None`.
    fn limits(&self, host: Option<&[u8]>) -> Limits;
}

impl ServerLimits for Limits {
    fn limits(&self, _: Option<&[u8]>) -> Limits {
        *self
    }
}

impl<F: Fn(Option<&[u8]>) -> Limits> ServerLimits for F {
    fn limits(&self, host: Option<&[u8]>) -> Limits {
        self(host)
    }
}

/// Why nginx does not serve a request, and what it answers.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} while {}", String::from_utf8_lossy(.why), .stage.action())]
pub struct Refusal {
    /// 400, 405, 414, 494 (goes out as 400), 501, 505. The connection closes behind the answer.
    pub status: u16,
    /// What nginx logs, at `info`, before ` while …`.
    pub why: Bytes,
    /// What nginx was doing.
    pub stage: Stage,
    /// nginx reads on for a while before it closes, whatever `lingering_close` decides otherwise (`r->lingering_close`).
    pub linger: bool,
    /// What was read until then. Of a broken request line only `line`: what had arrived of it. The version is
    /// 1.0 unless it was read; `(0, 9)` means that the answer goes out without a head.
    pub head: RequestHead,
}

/// The two steps of reading a head, as they stand in nginx's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Up to the end of the request line.
    Line,
    /// From there to the empty line.
    Fields,
}

impl Stage {
    /// What nginx logs behind ` while `.
    pub fn action(self) -> &'static str {
        match self {
            Self::Line => "reading client request line",
            Self::Fields => "reading client request headers",
        }
    }
}
