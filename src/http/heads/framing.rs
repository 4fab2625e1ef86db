//! What hyper is told: messages with nothing in them but how their bodies are framed.

use super::RequestHead;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Version, header};
use http_body::Body;

/// How the end of a body is told on an HTTP/1 connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// `Content-Length`.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// The connection closes behind it. Answers only.
    Close,
}

/// The answer to hand to hyper's server for a head that goes out by [`ServerSide::respond`](super::ServerSide::respond).
/// The head must say the same: `keepalive` off where it says `Connection: close`, and the same framing. `switch` is for
/// answers behind which the connection speaks another protocol.
pub fn response<B: Body>(framing: Framing, keepalive: bool, switch: bool, body: B) -> Response<B> {
    let known = body.size_hint().exact();
    let mut response = Response::new(body);
    match framing {
        _ if switch => *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS,
        // hyper sends no body behind it, whatever there is.
        Framing::None => *response.status_mut() = StatusCode::NO_CONTENT,
        Framing::Length(length) if known.is_none() => {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        Framing::Length(_) => {}
        Framing::Chunked => {
            response.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        // hyper knows no other way to let the end of the connection end a body.
        Framing::Close => *response.version_mut() = Version::HTTP_10,
    }
    if !keepalive || framing == Framing::Close {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What hyper's server reads in place of a request's head.
pub(super) fn synthetic_request(head: &RequestHead) -> Bytes {
    let keepalive = head.keepalive();
    if keepalive && !head.has_body() && !head.upgrade {
        match &*head.method {
            b"HEAD" => return Bytes::from_static(b"HEAD / HTTP/1.1\r\n\r\n"),
            _ => return Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"),
        }
    }
    let mut text = Vec::with_capacity(128);
    text.extend_from_slice(if head.method == "HEAD" { b"HEAD / HTTP/1.1\r\n" } else { b"GET / HTTP/1.1\r\n" });
    if head.chunked {
        text.extend_from_slice(b"transfer-encoding: chunked\r\n");
    } else if let Some(length) = head.content_length {
        text.extend_from_slice(b"content-length: ");
        text.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    if head.expect_continue {
        text.extend_from_slice(b"expect: 100-continue\r\n");
    }
    // hyper lets a request that asks for it switch protocols; whether it does is for the answer to say.
    if head.upgrade || head.method == "CONNECT" {
        text.extend_from_slice(b"upgrade: x\r\n");
    }
    if !keepalive && !head.upgrade && head.method != "CONNECT" {
        text.extend_from_slice(b"connection: close\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text.into()
}

/// What hyper's server reads in place of a head that was refused.
pub(super) const REFUSED: &[u8] = b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n";
