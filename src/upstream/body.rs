//! The body of an upstream's answer, as it comes.

use super::{
    Failure, Outcome, Reason,
    cache::{Status, Zone},
    lease::Lease,
    link::Link,
    pass,
    peer::Peer,
    selection::Selection,
    shape::Shape,
    spool::{Bounds, Spool},
    store::Store,
    wire::answer::AnswerBody,
};
use crate::{
    http::{body::BodyError, exchange::Exchange, heads::Meter, worker::Worker},
    observe::error_log::Level,
};
use bytes::Bytes;
use std::{
    cell::RefCell,
    fmt::Display,
    future::poll_fn,
    ops::Range,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::time;

/// What an upstream sends behind its head. The peer is done with when it ends or is dropped.
///
/// Two read it: whoever writes to the client, as fast as that goes ([`Self::poll_next`]), and, where it is buffered, the
/// client's connection whenever the client is behind ([`Self::poll_ahead`]).
pub struct UpstreamBody(Rc<RefCell<Pipe>>);

struct Pipe {
    /// `None` when it has ended.
    lease: Option<Lease>,
    rest: AnswerBody,
    meter: Rc<Meter>,
    worker: Rc<Worker>,
    /// The longest gap between two reads.
    gap: Duration,
    /// When the gap under way is too long.
    until: Option<time::Instant>,
    /// The end of it was waited for.
    waited: bool,
    /// What was sent and received for it, once it has ended: afterwards others may use the connection.
    traffic: Option<(u64, u64)>,
    /// What has come of it is no part of any answer.
    forgone: bool,
    /// When the attempt began.
    began: Option<Instant>,
    /// How long it took, where it had ended before its client had it.
    took: Option<u64>,
    selection: Option<Selection>,
    shape: Option<Box<Shape>>,
    source: Option<Source>,
    /// Why it ended too early.
    failed: Option<String>,
    reason: Option<Reason>,
    /// How much is kept for a client that is behind; `None` where it is not buffered.
    bounds: Option<Arc<Bounds>>,
    spool: Option<Box<Spool>>,
    /// The next piece, which was read while it was asked whether there is one. It comes behind what is spooled.
    next: Option<Bytes>,
    pace: Pace,
    store: Option<Box<Store>>,
    /// Whether a field behind the body is kept from clients.
    hidden: Option<Box<dyn Fn(&[u8]) -> bool>>,
    /// The cache that had no such answer, and how its request fared there.
    cache: Option<(Arc<Zone>, Status)>,
}

/// How the client keeps up with the peer.
#[derive(Default)]
struct Pace {
    /// The client's connection looks after it.
    watched: bool,
    /// Nothing more was there when the client asked last.
    dry: bool,
    /// From when on the client counts as slow.
    slow_from: Option<time::Instant>,
    slow: bool,
}

/// For so long a client may be behind without anything being read for it: most catch up at once, and have no need of a
/// copy.
const PATIENCE: Duration = Duration::from_millis(50);

/// So many pieces are read ahead before others have their turn.
const TURN: usize = 32;

/// Whom the log names when something is said about a body.
#[derive(Clone)]
pub struct Source {
    /// `http://` and its kin.
    pub scheme: &'static str,
    pub peer: Arc<Peer>,
    /// The path that was asked for.
    pub uri: Bytes,
}

impl Source {
    /// The upstream as nginx's log names it.
    pub fn text(&self) -> String {
        let (scheme, name, uri) = (self.scheme, &self.peer.name, String::from_utf8_lossy(&self.uri));
        let colon = if name.starts_with("unix:") { ":" } else { "" };
        format!("{scheme}{name}{colon}{uri}")
    }
}

impl UpstreamBody {
    /// The upstream it comes from, as nginx's log names it.
    pub fn whom(&self) -> Option<String> {
        self.0.borrow().source.as_ref().map(Source::text)
    }

    /// What comes over a connection; `gap` is the longest time between two reads.
    pub fn new(lease: Lease, rest: AnswerBody, gap: Duration) -> Self {
        let meter = Rc::clone(&lease.link.meter);
        let worker = Rc::clone(&lease.worker);
        Self(Rc::new(RefCell::new(Pipe {
            lease: Some(lease),
            rest,
            meter,
            worker,
            gap,
            until: None,
            waited: false,
            traffic: None,
            forgone: false,
            began: None,
            took: None,
            selection: None,
            shape: None,
            source: None,
            failed: None,
            reason: None,
            bounds: None,
            spool: None,
            next: None,
            pace: Pace::default(),
            store: None,
            hidden: None,
            cache: None,
        })))
    }

    /// The same body, for another reader.
    pub fn share(&self) -> Self {
        Self(Rc::clone(&self.0))
    }

    /// Keeps the peer's selection until the body has ended.
    pub fn hold(&self, selection: Selection, began: Instant, source: Source) {
        let pipe = &mut *self.0.borrow_mut();
        pipe.selection = Some(selection);
        pipe.began = Some(began);
        pipe.source = Some(source);
    }

    /// Nobody wants it. If there is none, its connection can serve others. Unless it `counts`, what has come of it is no
    /// part of any answer.
    pub fn forgo(&self, counts: bool) {
        let pipe = &mut *self.0.borrow_mut();
        if !counts {
            pipe.forgone = true;
        }
        if pipe.rest.is_over() {
            pipe.end(true);
        }
    }

    /// Something else is answered in its place: it is no part of any answer, and not kept.
    pub fn discard(&self) {
        let pipe = &mut *self.0.borrow_mut();
        pipe.forgone = true;
        pipe.store = None;
    }

    /// Has it read as fast as it comes (`_buffering`), all of it if it is written to a file in any case.
    pub fn buffer(&self, bounds: Arc<Bounds>) {
        let pipe = &mut *self.0.borrow_mut();
        pipe.bounds = Some(match pipe.store {
            None => bounds,
            Some(_) => Arc::new(Bounds { file: u64::MAX, aside: true, ..Bounds::clone(&bounds) }),
        });
    }

    /// Has it written to a file, too (`_store`, `_cache`).
    pub fn store(&self, store: Box<Store>) {
        self.0.borrow_mut().store = Some(store);
    }

    /// Has its length counted by a cache, of the requests that fared so.
    pub fn count_for(&self, cache: Arc<Zone>, status: Status) {
        self.0.borrow_mut().cache = Some((cache, status));
    }

    /// Keeps the fields behind it for the client, of up to so many bytes and but for those that are hidden
    /// (`proxy_pass_trailers`).
    pub fn keep_trailers(&self, size: usize, hidden: Box<dyn Fn(&[u8]) -> bool>) {
        let pipe = &mut *self.0.borrow_mut();
        pipe.rest.keep_trailers(size);
        pipe.hidden = Some(hidden);
    }

    /// Adds them to those that go out behind the answer (`ngx_http_upstream_process_trailers`).
    pub fn pass_trailers(&self, exchange: &mut Exchange) {
        let pipe = self.0.borrow();
        if let (Some(fields), Some(hidden)) = (pipe.rest.trailers(), &pipe.hidden) {
            fields
                .iter()
                .filter(|field| !hidden(&field.name))
                .for_each(|field| exchange.sent.trailers.add(field.clone()));
            exchange.upstream_trailers = fields.clone();
        }
    }

    /// `_limit_rate`, bytes a second; 0 is no limit.
    pub fn limit(&self, rate: u64) {
        if rate > 0 {
            self.0.borrow_mut().shape.get_or_insert_default().rate = Some(rate);
        }
    }

    /// Hands out no more than a part of it.
    pub fn cut(&self, range: &Range<u64>) {
        self.0.borrow_mut().shape.get_or_insert_default().cut(range);
    }

    /// Everything has come, and was handed out.
    pub fn is_over(&self) -> bool {
        let pipe = self.0.borrow();
        pipe.next.is_none() && pipe.spool.as_ref().is_none_or(|spool| spool.is_empty()) && pipe.is_read()
    }

    /// The connection itself, when the answer was a switch of protocols. The peer is in use as long as the body lives.
    pub fn take_link(&self) -> Option<Box<Link>> {
        self.0.borrow_mut().lease.take().map(|lease| lease.link)
    }

    /// Writes what is known at the end into the request's last attempt.
    pub fn report(&self, exchange: &mut Exchange) {
        let worker = Rc::clone(&exchange.connection.worker);
        let now = &worker.clock;
        let pipe = &mut *self.0.borrow_mut();
        if pipe.waited || pipe.shape.is_some() {
            now.update();
        }
        if let Some(attempt) = exchange.tries.last_mut() {
            (attempt.bytes_sent, attempt.bytes_received) = pipe.traffic();
            attempt.response_ms = pipe.took.or_else(|| pipe.began.map(|began| now.millis_since(began)));
            attempt.response_length = pipe.counted();
            if pipe.reason.is_some() {
                attempt.reason = pipe.reason;
            }
        }
        if pipe.failed.is_some() || !pipe.rest.notes().is_empty() {
            pipe.tell(exchange);
        }
        if pipe.spool.is_some() || pipe.store.is_some() {
            pipe.tell_of_files(exchange);
        }
    }

    /// Has the client's connection look after a body that is buffered and has more to come, and logs what there is to
    /// log. To be called whenever it was asked for a piece.
    pub fn attend(&self, exchange: &Exchange) {
        let pipe = &mut *self.0.borrow_mut();
        if pipe.spool.as_ref().is_some_and(|spool| !spool.notes.is_empty()) {
            pipe.tell_of_files(exchange);
        }
        if pipe.bounds.is_some() && !pipe.pace.watched && !pipe.is_read() {
            pipe.pace.watched = true;
            exchange.connection.look_after(self.share());
        }
    }

    /// The next piece.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let pipe = &mut *self.0.borrow_mut();
        if let Some(mut spool) = pipe.spool.take() {
            let next = pipe.poll_spooled(&mut spool, cx);
            pipe.spool = Some(spool);
            return next;
        }
        if let Some(piece) = pipe.next.take() {
            return Poll::Ready(Some(Ok(piece)));
        }
        match pipe.poll_shaped(cx) {
            Poll::Pending => pipe.kept_up(),
            Poll::Ready(Some(Ok(piece))) if pipe.is_scrap(&piece) => pipe.poll_behind(piece, cx),
            next @ Poll::Ready(_) => next,
        }
    }

    /// Reads on for a client that is behind, into memory or a temporary file, so that it holds neither connection nor peer.
    /// To be called by the client's connection in every turn, after the client was written to. `false` when there is no
    /// more to read.
    pub fn poll_ahead(&self, cx: &mut Context<'_>) -> bool {
        let pipe = &mut *self.0.borrow_mut();
        if pipe.is_read() {
            return false;
        }
        if std::mem::take(&mut pipe.pace.dry) || !pipe.is_client_slow(cx) {
            return true;
        }
        let spool = pipe.spool.take().or_else(|| Some(Box::new(Spool::new(Arc::clone(pipe.bounds.as_ref()?)))));
        let Some(mut spool) = spool else { return false };
        let more = pipe.read_ahead(&mut spool, cx);
        pipe.spool = Some(spool);
        more
    }

    /// The client has what it wants, or has gone; a file that is to hold all of it (`_store`) has yet to get the rest.
    pub fn read_out(&self, worker: &Rc<Worker>) {
        if self.0.borrow().store.is_none() || self.0.borrow().lease.is_none() {
            return;
        }
        let (body, worker) = (self.share(), Rc::clone(worker));
        tokio::task::spawn_local(async move {
            while let Some(Ok(_)) = poll_fn(|cx| body.0.borrow_mut().poll_whole(cx)).await {}
            let pipe = &mut *body.0.borrow_mut();
            let http = worker.http();
            if let Some(failed) = &pipe.failed {
                http.log(Level::Err, &format!("{failed} while reading upstream"));
            }
            if let Some(store) = &mut pipe.store {
                store.notes().iter().for_each(|(level, text)| http.log(*level, text));
            }
        });
    }
}

impl Pipe {
    /// A small piece is handed on along with the next one, and waits for that if it has to.
    fn poll_behind(&mut self, piece: Bytes, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let next = self.poll_shaped(cx);
        if let Poll::Ready(Some(Ok(next))) = next {
            self.next = Some(next);
            return Poll::Ready(Some(Ok(piece)));
        }
        let Some(bounds) = self.bounds.clone() else { return Poll::Ready(Some(Ok(piece))) };
        let mut spool = Box::new(Spool::new(bounds));
        spool.push(&piece);
        spool.end = match next {
            Poll::Ready(end) => Some(end.map_or(Ok(()), |end| end.map(drop))),
            Poll::Pending => None,
        };
        let next = self.poll_spooled(&mut spool, cx);
        self.spool = Some(spool);
        next
    }

    /// Nothing more comes from the peer that anybody wants.
    fn is_read(&self) -> bool {
        match &self.shape {
            Some(shape) if shape.holds() => return false,
            Some(shape) if shape.is_spent() => return true,
            _ => {}
        }
        self.lease.is_none() || self.rest.is_over()
    }

    /// A piece is too small to be worth a write to the client: nginx waits for a buffer to be full.
    fn is_scrap(&self, piece: &[u8]) -> bool {
        self.bounds.as_ref().is_some_and(|bounds| piece.len() < bounds.piece) && !self.is_read()
    }

    /// The client has all that has come.
    fn kept_up<T>(&mut self) -> Poll<T> {
        self.pace.dry = true;
        self.pace.slow = false;
        self.pace.slow_from = None;
        Poll::Pending
    }

    /// The client has not taken what there is for some time.
    fn is_client_slow(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.pace.slow
            && let Some(lease) = &mut self.lease
        {
            let from = *self.pace.slow_from.get_or_insert_with(|| time::Instant::now() + PATIENCE);
            self.pace.slow = lease.link.deadline.poll(cx, from).is_ready();
        }
        self.pace.slow
    }

    fn read_ahead(&mut self, spool: &mut Spool, cx: &mut Context<'_>) -> bool {
        if let Some(piece) = self.next.take() {
            spool.push(&piece);
        }
        for _ in 0..TURN {
            if !spool.has_room() {
                return true;
            }
            match self.poll_shaped(cx) {
                Poll::Pending => return true,
                Poll::Ready(Some(Ok(piece))) => spool.push(&piece),
                Poll::Ready(Some(Err(error))) => spool.end = Some(Err(error)),
                Poll::Ready(None) => spool.end = Some(Ok(())),
            }
            if self.is_read() {
                self.note_time();
                return false;
            }
        }
        cx.waker().wake_by_ref();
        true
    }

    /// It has ended long before its client has it.
    fn note_time(&mut self) {
        if let Some(began) = self.began {
            self.took = Some(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
    }

    fn poll_spooled(&mut self, spool: &mut Spool, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            let enough = self.bounds.as_ref().map_or(1, |bounds| bounds.piece);
            let filled = spool.in_file() > 0 || spool.in_memory() >= enough;
            if filled || self.next.is_some() || spool.end.is_some() || self.is_read() {
                if let Some(piece) = spool.pop() {
                    return Poll::Ready(Some(piece));
                }
                if let Some(piece) = self.next.take() {
                    return Poll::Ready(Some(Ok(piece)));
                }
                if let Some(end) = spool.end.take() {
                    return Poll::Ready(end.err().map(Err));
                }
            }
            match self.poll_shaped(cx) {
                Poll::Pending => return self.kept_up(),
                Poll::Ready(Some(Ok(piece))) if self.is_scrap(&piece) => spool.push(&piece),
                Poll::Ready(Some(Ok(piece))) => self.next = Some(piece),
                Poll::Ready(Some(Err(error))) => spool.end = Some(Err(error)),
                Poll::Ready(None) => spool.end = Some(Ok(())),
            }
        }
    }

    fn poll_shaped(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let Some(mut shape) = self.shape.take() else { return self.poll_whole(cx) };
        let next = shape.poll_next(cx, |cx| self.poll_whole(cx));
        self.shape = Some(shape);
        next
    }

    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match self.poll_source(cx) {
            Poll::Ready(next) => {
                self.until = None;
                match &next {
                    Some(Ok(_)) => {}
                    Some(Err(failure)) => {
                        self.failed = Some(failure.to_string());
                        self.release(false);
                    }
                    None => self.release(true),
                }
                Poll::Ready(next.map(|piece| piece.map_err(BodyError::Upstream)))
            }
            Poll::Pending => {
                self.waited = true;
                let Some(lease) = &mut self.lease else { return Poll::Pending };
                let until = *self.until.get_or_insert_with(|| time::Instant::now() + self.gap);
                ready!(lease.link.deadline.poll(cx, until));
                self.failed = Some(Failure::Timeout.to_string());
                self.reason = Some(Reason::TimeoutRead);
                self.end(false);
                Poll::Ready(Some(Err(BodyError::Upstream(Failure::Timeout))))
            }
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        let Some(lease) = &mut self.lease else { return Poll::Ready(None) };
        let next = ready!(lease.link.poll_body(cx, &mut self.rest));
        if let Some(store) = &mut self.store
            && let Some(Ok(piece)) = &next
        {
            store.write(piece);
        }
        if let Some(Err(failure)) = &next {
            self.reason = Some(Reason::of(failure, false));
        }
        // Who knows the length never asks for more than that.
        if matches!(next, None | Some(Err(_))) || self.rest.is_over() {
            self.end(!matches!(next, Some(Err(_))));
        }
        Poll::Ready(next)
    }

    /// The peer is done with, however it went: its answer was taken.
    fn release(&mut self, whole: bool) {
        if let Some(mut selection) = self.selection.take() {
            self.count(&selection, whole);
            if let Some((cache, status)) = &self.cache {
                cache.tally(*status).bytes.add(self.counted());
            }
            selection.done(Outcome::Success, self.worker.clock.millis());
        }
    }

    /// Counts what the peer did.
    fn count(&self, selection: &Selection, whole: bool) {
        let Some(stats) = selection.current().and_then(|peer| selection.group().stats(peer)) else { return };
        let (sent, received) = self.traffic();
        stats.moved(sent, received);
        if let Some(reason) = self.reason {
            stats.failed(reason, self.worker.clock.millis());
        }
        if let Some(began) = self.began.filter(|_| whole) {
            let now = if self.waited { Instant::now() } else { self.worker.clock.instant() };
            stats.finished(now.saturating_duration_since(began));
        }
    }

    /// Its length so far as nginx counts it.
    fn counted(&self) -> u64 {
        if self.forgone { 0 } else { self.rest.length(self.traffic().1) }
    }

    /// Bytes sent and received so far.
    fn traffic(&self) -> (u64, u64) {
        self.traffic.unwrap_or_else(|| (self.meter.sent_now(), self.meter.received_now()))
    }

    /// Nothing more comes. If that is how it should be, the connection can serve others.
    fn end(&mut self, well: bool) {
        self.traffic = Some(self.traffic());
        if let Some(store) = self.store.as_mut().filter(|_| well && self.lease.is_some()) {
            store.finish();
        }
        if let Some(lease) = self.lease.take().filter(|lease| well && lease.keep && self.rest.is_clean()) {
            lease.give_back(None);
        }
        self.release(well);
    }

    /// Writes what there is to say about it to the error log.
    #[cold]
    fn tell(&self, exchange: &Exchange) {
        let about = self.source.as_ref().map(Source::text);
        let log = |level, text: &dyn Display| {
            exchange.log_about(level, &format!("{text} while reading upstream"), about.as_deref());
        };
        self.rest.notes().iter().for_each(|note| log(pass::level(note), note));
        if let Some(failed) = &self.failed {
            log(Level::Err, failed);
        }
    }

    /// The same about files it was written to.
    #[cold]
    fn tell_of_files(&mut self, exchange: &Exchange) {
        let about = self.source.as_ref().map(Source::text);
        let spooled = self.spool.as_mut().map(|spool| std::mem::take(&mut spool.notes));
        let stored = self.store.as_mut().map(|store| store.notes());
        for (level, text) in spooled.into_iter().chain(stored).flatten() {
            exchange.log_about(level, &text, about.as_deref());
        }
    }
}

impl Drop for Pipe {
    /// Who has all of a body does not wait for what ends it. The connection does.
    fn drop(&mut self) {
        if self.rest.is_over() {
            self.end(true);
        }
        if let Some(lease) = self.lease.take().filter(|_| self.rest.wants_end()) {
            let rest = self.rest.take();
            match lease.keep {
                true => lease.give_back(Some(rest)),
                false => lease.worker.pool.see_off(lease.link, rest, lease.worker.clock.instant() + self.gap),
            }
        }
        self.release(false);
    }
}
