//! What can go wrong with an upstream: whose fault it is, whether another peer may be asked, and what nginx says.

use crate::http::body::RequestBodyError;
use std::io;

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection; the text is that of `connect()`.
    #[error("connect() {}failed ({})", where_to(.0), crate::http::files::errno(.1))]
    Connect(String, #[source] io::Error),
    /// No connection in time.
    #[error("upstream timed out (110: Connection timed out)")]
    ConnectTimeout,
    /// No answer came in time.
    #[error("upstream timed out (110: Connection timed out)")]
    Timeout,
    /// The request could not be sent in time.
    #[error("upstream timed out (110: Connection timed out)")]
    SendTimeout,
    /// The connection broke; the text is the system's.
    #[error("{0} failed ({1})")]
    Io(&'static str, String),
    /// The connection ended before the answer did.
    #[error("upstream prematurely closed connection")]
    Closed,
    /// The answer is no HTTP.
    #[error("{0}")]
    Invalid(String),
    /// The head of the answer is longer than the buffer for it.
    #[error("upstream sent too big header")]
    TooBig,
    /// It said what it must not say (`fastcgi_catch_stderr`), which was logged.
    #[error("")]
    Caught,
    /// The client's body could not be had to its end; nobody else is to blame.
    #[error(transparent)]
    Client(RequestBodyError),
    /// Our own end of the connection could not be set up (`proxy_bind`); nobody else is asked.
    #[error("{0}")]
    Local(String),
}

/// nginx says where only for unix sockets.
fn where_to(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!("to {place} ") }
}

/// Which attempts `proxy_next_upstream` may repeat: the bits of the directive.
pub mod cases {
    pub const ERROR: u32 = 1;
    pub const TIMEOUT: u32 = 1 << 1;
    pub const INVALID_HEADER: u32 = 1 << 2;
    pub const HTTP_500: u32 = 1 << 3;
    pub const HTTP_502: u32 = 1 << 4;
    pub const HTTP_503: u32 = 1 << 5;
    pub const HTTP_504: u32 = 1 << 6;
    pub const HTTP_403: u32 = 1 << 7;
    pub const HTTP_404: u32 = 1 << 8;
    pub const HTTP_429: u32 = 1 << 9;
    pub const UPDATING: u32 = 1 << 10;
    pub const NON_IDEMPOTENT: u32 = 1 << 11;
    pub const OFF: u32 = 1 << 12;
}

impl Failure {
    /// The case of `proxy_next_upstream` this is; `None` where nobody else may be asked.
    pub fn case(&self) -> Option<u32> {
        match self {
            Self::Connect(..) | Self::Io(..) | Self::Closed => Some(cases::ERROR),
            Self::ConnectTimeout | Self::Timeout | Self::SendTimeout => Some(cases::TIMEOUT),
            Self::Invalid(_) | Self::TooBig | Self::Caught => Some(cases::INVALID_HEADER),
            Self::Client(_) | Self::Local(_) => None,
        }
    }

    /// The status the client gets when nobody else is asked.
    pub fn status(&self) -> u16 {
        match self {
            Self::ConnectTimeout | Self::Timeout | Self::SendTimeout => 504,
            Self::Client(_) => 499,
            Self::Local(_) => 500,
            _ => 502,
        }
    }

    /// What nginx was doing: the end of its log line.
    pub fn action(&self, sent: bool) -> &'static str {
        match self {
            Self::Connect(..) | Self::ConnectTimeout | Self::Local(_) => "connecting to upstream",
            Self::Client(_) | Self::SendTimeout => "sending request to upstream",
            Self::Io("writev()" | "send()", _) if !sent => "sending request to upstream",
            _ => "reading response header from upstream",
        }
    }
}
