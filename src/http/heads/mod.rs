//! HTTP/1 messages by nginx's exact rules: their heads, and where their bodies end.
//!
//! ```text
//!  client ──▶ GET /A HTTP/1.1   ──▶ request::Parser ──▶ next_head() ──▶ RequestHead
//!             Host: x …
//!             body bytes        ──▶ counted, or taken out of chunks ──▶ Incoming
//!             GET /B …              kept until next_head()
//!
//!  client ◀── HTTP/1.1 200 OK   ◀──┐
//!             Server: …             ├─ poll_send() ◀── Sending: a head, and the pieces of a body
//!             body bytes        ◀──┘   framed by length, in chunks, or by the connection's end
//! ```
//!
//! A connection's task works like this:
//!
//! ```text
//! let handle = server(stream);
//! while let Ok(head) = handle.next_head(&limits).await {
//!     handle.begin(&head);
//!     let mut sending = answer(head, handle.incoming()).await;    // beside it, poll_interim() and poll_watch()
//!     poll_fn(|cx| handle.poll_send(cx, &mut sending)).await?;    // beside it, poll_discard()
//! }
//! ```

pub mod chunked;
mod field_line;
mod fields;
mod framing;
mod io;
pub mod request;
pub mod response;
mod trailers;

pub use fields::{Field, Fields, same};
pub use framing::Framing;
pub use io::{
    Cut, Incoming, Meter, Pace, Pieces, Queue, Sending, ServerHandle, ServerSide, Stop, Tunnel, Wire, server,
};
pub use request::{Connection, Host, Limits, Refusal, RequestHead, ServerLimits, Stage};
pub use response::{HeadError, ResponseHead};
pub use trailers::trailers;
