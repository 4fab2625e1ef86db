//! What the code beside hyper shares with the stream under it: heads to write, heads read, and how far everything is.
//! One thread runs both, so cells are enough.

use crate::http::heads::{Refusal, RequestHead};
use bytes::Bytes;
use std::{
    cell::{Cell, RefCell},
    ops::Deref,
    rc::Rc,
    task::{Context, Poll},
};

/// Counters and signs of one connection. Timers compare counters to see progress.
#[derive(Debug, Default)]
pub struct Meter {
    received: Cell<u64>,
    sent: Cell<u64>,
    /// `sent` and `received` when the message under way began.
    marks: Cell<(u64, u64)>,
    body_received: Cell<u64>,
    write_blocked: Cell<bool>,
    read_waiting: Cell<bool>,
    closed: Cell<bool>,
}

impl Meter {
    /// Bytes read from the peer since the connection began.
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// Bytes written to the peer since the connection began.
    pub fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Bytes read since the request under way was delivered (server) or began to go out (client).
    pub fn received_now(&self) -> u64 {
        self.received.get() - self.marks.get().1
    }

    /// Bytes written since the request under way was delivered (server: `$bytes_sent`) or set (client).
    pub fn sent_now(&self) -> u64 {
        self.sent.get() - self.marks.get().0
    }

    /// Bytes of the body of the message under way that were read, with what frames them. For a server: what the body
    /// adds to `$request_length`.
    pub fn body_received(&self) -> u64 {
        self.body_received.get()
    }

    /// The last write had to wait for the peer.
    pub fn write_blocked(&self) -> bool {
        self.write_blocked.get()
    }

    /// A part of the message under way is wanted and has not come: of the request's body (server), of the answer's head
    /// (client).
    pub fn read_waiting(&self) -> bool {
        self.read_waiting.get()
    }

    /// The peer has closed, or the connection broke.
    pub fn closed(&self) -> bool {
        self.closed.get()
    }

    /// A message begins.
    pub fn begin(&self) {
        self.marks.set((self.sent.get(), self.received.get()));
        self.body_received.set(0);
        self.read_waiting.set(false);
    }

    pub(super) fn note_received(&self, n: usize) {
        self.received.set(self.received.get() + n as u64);
    }

    pub(super) fn note_body(&self, n: usize) {
        self.body_received.set(self.body_received.get() + n as u64);
    }

    pub(super) fn note_sent(&self, n: usize) {
        self.sent.set(self.sent.get() + n as u64);
    }

    pub(super) fn set_write_blocked(&self, blocked: bool) {
        self.write_blocked.set(blocked);
    }

    pub(super) fn set_read_waiting(&self, waiting: bool) {
        self.read_waiting.set(waiting);
    }

    pub(super) fn set_closed(&self) {
        self.closed.set(true);
    }
}

/// What goes out in place of hyper's heads.
#[derive(Default)]
pub(super) struct Outgoing {
    /// Replaces the next head hyper writes.
    pub(super) head: Cell<Option<Bytes>>,
    /// Goes out before anything else.
    pub(super) queued: Cell<Bytes>,
    /// Replaces the end of the body that hyper writes next.
    pub(super) end: Cell<Option<Box<[u8]>>>,
    /// `100 Continue` has been sent, so hyper's is swallowed.
    pub(super) continued: Cell<bool>,
    /// The head of the message under way has been handed to the wire.
    pub(super) head_written: Cell<bool>,
}

impl Outgoing {
    pub(super) fn begin(&self) {
        self.head.set(None);
        self.end.set(None);
        self.continued.set(false);
        self.head_written.set(false);
    }

    /// Puts `bytes` behind what is queued.
    pub(super) fn queue(&self, bytes: Bytes) {
        let queued = self.queued.take();
        self.queued.set(if queued.is_empty() { bytes } else { [queued, bytes].concat().into() });
    }
}

/// What a server is asked: a request, or one that nginx refuses.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is moved twice in its life, and almost always the large one")]
pub enum Asked {
    /// To be served.
    Request(RequestHead),
    /// To be refused with nginx's error page.
    Refused(Box<Refusal>),
}

/// The end of a server's connection that belongs to the exchange: cheap to clone, free of the stream's type.
#[derive(Clone, Default)]
pub struct ServerSide(Rc<ServerShared>);

#[derive(Default)]
pub(super) struct ServerShared {
    pub(super) meter: Meter,
    pub(super) out: Outgoing,
    /// Boxed, so that an idle connection has no room for it.
    asked: RefCell<Option<Box<Asked>>>,
    /// The client waits for `100 Continue`.
    expects: Cell<bool>,
    /// The answer's body is over as far as we are concerned.
    body_done: Cell<bool>,
    /// … and every byte of it is with the peer's kernel.
    pub(super) flushed: Cell<bool>,
    pub(super) bad_body: Cell<bool>,
    discarding: RefCell<Option<hyper::body::Incoming>>,
}

impl Deref for ServerSide {
    type Target = Meter;

    fn deref(&self) -> &Meter {
        &self.0.meter
    }
}

impl ServerSide {
    /// What the client asked: for the service hyper calls, once per request.
    pub fn take_asked(&self) -> Option<Asked> {
        self.0.asked.take().map(|asked| *asked)
    }

    /// Sets the head that goes out in place of hyper's, down to and with the empty line. It may be empty (HTTP/0.9).
    /// Must be called before the service hands its answer to hyper.
    pub fn respond(&self, head: impl Into<Bytes>) {
        self.0.out.head.set(Some(head.into()));
    }

    /// Sends `100 Continue` if the client waits for it, unless it was sent or the answer has begun
    /// (`ngx_http_test_expect`). hyper does so by itself when such a request's body is read; this is for where nginx is
    /// earlier.
    pub fn send_continue(&self) {
        if self.0.expects.get() && !self.0.out.continued.replace(true) {
            self.send_interim(&b"HTTP/1.1 100 Continue\r\n\r\n"[..]);
        }
    }

    /// Lets the client wait in vain: the answer is on its way (`r->expect_tested = 1`, for 413).
    pub fn skip_continue(&self) {
        self.0.out.continued.set(true);
    }

    /// Sends an interim answer, whole, unless the answer has begun: early hints.
    pub fn send_interim(&self, head: impl Into<Bytes>) {
        if !self.0.out.head_written.get() {
            self.0.out.queue(head.into());
        }
    }

    /// Has other bytes go out than the ones with which hyper ends a body in the chunked coding: such with fields in them.
    /// Everything before must have been written.
    pub fn end_with(&self, end: Vec<u8>) {
        self.0.out.end.set(Some(end.into()));
    }

    /// A guard to put into the answer's body, so that its end is noticed: without it the connection's task never sees
    /// that the connection is idle again (`ServerHandle::is_idle`).
    pub fn guard(&self) -> BodyGuard {
        BodyGuard(self.clone())
    }

    /// The rest of a request's body that nobody wants. Never drop one that has not ended: hyper would close the
    /// connection; nginx reads on (`ngx_http_discard_request_body`), and says `100 Continue` first.
    pub fn discard(&self, body: hyper::body::Incoming) {
        self.send_continue();
        if !http_body::Body::is_end_stream(&body) {
            *self.0.discarding.borrow_mut() = Some(body);
        }
    }

    /// The request's body was not in the chunked coding: nginx answers 400 and logs `client sent invalid chunked body`.
    /// Reading the body ends in an error then.
    pub fn bad_body(&self) -> bool {
        self.0.bad_body.get()
    }

    pub(super) fn shared(&self) -> &ServerShared {
        &self.0
    }

    pub(super) fn begin(&self, asked: Asked) {
        let shared = &*self.0;
        shared.meter.begin();
        shared.out.begin();
        shared.body_done.set(false);
        shared.flushed.set(false);
        shared.bad_body.set(false);
        shared.expects.set(matches!(&asked, Asked::Request(head) if head.expect_continue));
        *shared.asked.borrow_mut() = Some(Box::new(asked));
    }

    /// hyper has no bytes left to write, and neither have we.
    pub(super) fn note_flush(&self) {
        let shared = &*self.0;
        if shared.body_done.get() && shared.out.head_written.get() {
            shared.flushed.set(true);
        }
    }

    pub(super) fn is_discarding(&self) -> bool {
        self.0.discarding.borrow().is_some()
    }

    pub(super) fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut slot = self.0.discarding.borrow_mut();
        while let Some(body) = slot.as_mut() {
            match http_body::Body::poll_frame(std::pin::Pin::new(body), cx) {
                Poll::Pending => return Poll::Pending,
                // hyper does not tell the end of a body apart from its last bytes when the answer was written before.
                Poll::Ready(Some(Ok(_))) if !http_body::Body::is_end_stream(body) => {}
                Poll::Ready(_) => *slot = None,
            }
        }
        Poll::Ready(())
    }
}

/// Tells that an answer's body is over, by being dropped with it.
pub struct BodyGuard(ServerSide);

impl Drop for BodyGuard {
    fn drop(&mut self) {
        self.0.0.body_done.set(true);
    }
}
