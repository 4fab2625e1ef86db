//! Heads are nginx's, framing is hyper's: this reads and writes every message head itself, by nginx's exact rules, and
//! leaves to hyper what it is good at: bodies by length or in chunks, `100 Continue`, keepalive, upgrades.
//!
//! ```text
//!              wire                    ServerIo                           hyper           service
//!
//!  client ──▶ GET /A HTTP/1.1   ──▶ request::Parser ──▶ RequestHead ───── deliver ─────▶ take_asked()
//!             Host: x …                                  │
//!                                                        └─▶ GET / HTTP/1.1 ──▶ hyper ──▶ Request<Incoming>
//!             body bytes        ──▶ counted or scanned ───────────────────────▶ hyper ──▶ Incoming
//!             GET /B …              kept until next_head()
//!
//!  client ◀── HTTP/1.1 200 OK   ◀── our head ◀──────────────────────────── respond(head) ◀── service
//!             Server: …              ╳ swallowed ◀── HTTP/1.1 200 OK … ◀── hyper
//!             body bytes        ◀── passed ◀───────────────────────────── hyper ◀── body
//! ```
//!
//! A connection's task works like this; while [`ServerHandle::next_head`] waits, hyper need not exist:
//!
//! ```text
//! let (io, handle) = server(stream);
//! let mut hyper = server_builder().serve_connection(io, service);    // the service calls handle.take_asked()
//! loop {
//!     match handle.next_head(&limits).await {
//!         Ok(head) => handle.deliver(Asked::Request(head)),
//!         Err(Stop::Refused(refusal)) => handle.deliver(Asked::Refused(refusal)),
//!         Err(_) => break,
//!     }
//!     poll_fn(|cx| {
//!         if hyper.poll_without_shutdown(cx).is_ready() { return Ready(END) }       // closed, broken or upgraded
//!         handle.poll_discard(cx);
//!         if handle.is_idle() { Ready(NEXT) } else { Pending }
//!     }).await
//! }
//! ```
//!
//! The service answers with `side.respond(head)` and [`framing::response`], whose body holds a [`BodyGuard`].

pub mod chunked;
mod field_line;
mod fields;
pub mod framing;
mod io;
pub mod request;
pub mod response;
mod trailers;

pub use fields::{Field, Fields};
pub use framing::Framing;
pub use io::{Asked, BodyGuard, Meter, ServerHandle, ServerIo, ServerSide, Stop, Tunnel, Wire, server, server_builder};
pub use request::{Connection, Host, Limits, Refusal, RequestHead, ServerLimits, Stage};
pub use response::{HeadError, ResponseHead};
pub use trailers::trailers;
