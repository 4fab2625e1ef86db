//! How the end of a body is told.

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
