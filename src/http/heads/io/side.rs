//! What an exchange shares with the connection under it: signs, counters, and interim answers. One thread runs both, so
//! cells are enough.

use bytes::Bytes;
use std::{cell::Cell, ops::Deref, rc::Rc};

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

/// The end of a client's connection that belongs to the exchange: cheap to clone, free of the stream's type.
#[derive(Clone, Default)]
pub struct ServerSide(Rc<Shared>);

#[derive(Default)]
struct Shared {
    meter: Meter,
    /// Interim answers, which go out before anything else. Boxed, so that an idle connection has no room for them.
    interim: Cell<Option<Box<Bytes>>>,
    /// The client waits for `100 Continue`, and has not got it.
    expects: Cell<bool>,
    /// The answer's head is on its way.
    answered: Cell<bool>,
    bad_body: Cell<bool>,
}

impl Deref for ServerSide {
    type Target = Meter;

    fn deref(&self) -> &Meter {
        &self.0.meter
    }
}

impl ServerSide {
    /// Sends `100 Continue` if the client waits for it, unless it was sent or the answer has begun
    /// (`ngx_http_test_expect`).
    pub fn send_continue(&self) {
        if self.0.expects.replace(false) {
            self.send_interim(&b"HTTP/1.1 100 Continue\r\n\r\n"[..]);
        }
    }

    /// Lets the client wait in vain: the answer is on its way (`r->expect_tested = 1`, for 413).
    pub fn skip_continue(&self) {
        self.0.expects.set(false);
    }

    /// Sends an interim answer, whole, unless the answer has begun: early hints.
    pub fn send_interim(&self, head: impl Into<Bytes>) {
        if !self.0.answered.get() {
            let (before, head) = (self.take_interim(), head.into());
            self.put_interim(if before.is_empty() { head } else { [before, head].concat().into() });
        }
    }

    /// The request's body was not in the chunked coding: nginx answers 400 and logs `client sent invalid chunked body`.
    /// Reading the body ends in an error then.
    pub fn bad_body(&self) -> bool {
        self.0.bad_body.get()
    }

    pub(super) fn set_bad_body(&self) {
        self.0.bad_body.set(true);
    }

    /// A request begins, whose client may wait for `100 Continue`.
    pub(super) fn begin_request(&self, expects: bool) {
        let shared = &*self.0;
        shared.meter.begin();
        shared.interim.set(None);
        shared.expects.set(expects);
        shared.answered.set(false);
        shared.bad_body.set(false);
    }

    /// From now on it is too late for interim answers.
    pub(super) fn begin_answer(&self) {
        self.0.answered.set(true);
    }

    /// Whether an interim answer waits to be written.
    pub fn has_interim(&self) -> bool {
        let interim = self.0.interim.take();
        let has = interim.is_some();
        self.0.interim.set(interim);
        has
    }

    pub(super) fn take_interim(&self) -> Bytes {
        self.0.interim.take().map(|interim| *interim).unwrap_or_default()
    }

    pub(super) fn put_interim(&self, interim: Bytes) {
        self.0.interim.set(Some(Box::new(interim)));
    }

    #[cfg(test)]
    pub(super) const SIZE: usize = size_of::<Shared>();
}
