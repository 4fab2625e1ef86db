//! Waiting for a request: cheaply, and not for ever.

use super::{Connection, Stream};
use crate::{
    http::deadline::Deadline,
    http::heads::{Refusal, RequestHead, ServerHandle, Stop},
    observe::error_log::Level,
    upstream::wire::proxy_protocol,
};
use std::{
    future::poll_fn,
    rc::Rc,
    task::{Poll, ready},
    time::Duration,
};
use tokio::time::Instant;

/// Why the connection waits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Idle {
    /// For its first request.
    First,
    /// For another one.
    Between(Keep),
}

/// How long a connection is kept between two requests, in milliseconds: an idle connection carries it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    timeout: u32,
    least: u32,
}

impl Keep {
    /// `keepalive_timeout`, and `keepalive_min_timeout`: the least, even if the process ends meanwhile.
    pub(super) fn new(timeout: Duration, least: Duration) -> Self {
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        Self { timeout: millis(timeout), least: millis(least) }
    }
}

/// Why there is no further request.
pub(super) enum End {
    Stop(Stop),
    /// It was idle too long, or the process wants to end.
    Idle,
    /// Nothing came in time.
    Slow,
    /// A head was begun and not completed in time.
    Late(Box<Refusal>),
}

impl End {
    /// Tells the error log what nginx would.
    pub(super) fn log(&self, connection: &Connection, idle: Idle) {
        match (self, idle) {
            (Self::Slow, _) => {
                connection.log(Level::Info, "client timed out (110: Connection timed out) while waiting for request");
            }
            (Self::Stop(Stop::Io(error)), _) => {
                let text = format!("recv() failed ({}) while waiting for request", crate::http::files::errno(error));
                connection.log(Level::Info, &text);
            }
            (Self::Stop(Stop::Closed), Idle::First) => {
                connection.log(Level::Info, "client closed connection while waiting for request");
            }
            (Self::Stop(Stop::Closed), Idle::Between(_)) => {
                let text = format!("client {} closed keepalive connection", connection.remote_text());
                connection.log_bare(Level::Info, &text);
            }
            (Self::Stop(_) | Self::Idle | Self::Late(_), _) => {}
        }
    }
}

/// What a connection is woken by while it waits, kept from one request to the next.
#[derive(Default)]
pub(super) struct Timers {
    deadline: Deadline,
    /// The worker knows whom to wake.
    known: bool,
}

/// How long a connection that has sent nothing yet is waited for when the process ends, or its listener is gone.
const GRACE: Duration = Duration::from_secs(2);

/// Waits for the next request's head.
pub(super) async fn next<S: Stream>(
    handle: &ServerHandle<S>,
    connection: &Rc<Connection>,
    idle: Idle,
    timers: &mut Timers,
) -> Result<Box<RequestHead>, End> {
    let limits = |host: Option<&[u8]>| connection.limits(host);
    // It may have come together with the one before it.
    if handle.head_begun()
        && let Poll::Ready(head) = poll_fn(|cx| Poll::Ready(handle.poll_head(cx, &limits))).await
    {
        return head.map_err(End::Stop);
    }
    if !handle.head_begun() {
        let keep = match idle {
            Idle::First => Keep::new(header_timeout(connection), Duration::ZERO),
            Idle::Between(keep) => keep,
        };
        connection.worker.counts.waiting.up();
        let outcome = between(handle, connection, keep, timers).await;
        connection.worker.counts.waiting.down();
        outcome.map_err(|end| match (idle, end) {
            (Idle::First, End::Idle) if !connection.is_leaving() => End::Slow,
            (_, end) => end,
        })?;
        if let Poll::Ready(head) = poll_fn(|cx| Poll::Ready(handle.poll_head(cx, &limits))).await {
            return head.map_err(End::Stop);
        }
    }
    connection.worker.counts.reading.up();
    let end = match idle {
        // Until the first head is complete the timeout runs once.
        Idle::First => Instant::from_std(connection.started),
        Idle::Between(_) => Instant::now(),
    } + header_timeout(connection);
    let head = poll_fn(|cx| {
        if let Poll::Ready(head) = handle.poll_head(cx, &limits) {
            return Poll::Ready(head.map_err(End::Stop));
        }
        ready!(timers.deadline.poll(cx, end));
        Poll::Ready(Err(match handle.head_begun() {
            true => End::Late(handle.give_up(408, "client timed out (110: Connection timed out)")),
            false => End::Slow,
        }))
    })
    .await;
    connection.worker.counts.reading.down();
    head
}

fn header_timeout(connection: &Connection) -> Duration {
    connection.with_host(|hosts| hosts.default.base.settings.core.client_header_timeout.0)
}

/// Waits for the first byte of a request.
async fn between<S: Stream>(
    handle: &ServerHandle<S>,
    connection: &Rc<Connection>,
    keep: Keep,
    timers: &mut Timers,
) -> Result<(), End> {
    let start = Instant::from_std(connection.worker.clock.instant());
    loop {
        let mut end = start + Duration::from_millis(keep.timeout.into());
        if !connection.follow() || connection.worker.quitting.get() {
            let promised = match connection.requests.get() {
                // A request may be under way on a connection that was just accepted.
                0 => Instant::now() + GRACE,
                _ if keep.least == 0 => return Err(End::Idle),
                _ => start + Duration::from_millis(keep.least.into()),
            };
            end = end.min(promised);
        }
        let changes = connection.worker.changes.get();
        let woken = poll_fn(|cx| {
            if let Poll::Ready(more) = handle.poll_wait(cx) {
                return Poll::Ready(Some(match more {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(End::Stop(Stop::Closed)),
                    Err(error) => Err(End::Stop(Stop::Io(error))),
                }));
            }
            if timers.deadline.poll(cx, end).is_ready() {
                return Poll::Ready(Some(Err(End::Idle)));
            }
            if !std::mem::replace(&mut timers.known, true) {
                connection.worker.wake_when_changed(connection.serial, cx.waker());
            }
            if connection.worker.changes.get() == changes { Poll::Pending } else { Poll::Ready(None) }
        })
        .await;
        if let Some(outcome) = woken {
            connection.follow();
            return outcome;
        }
        if connection.worker.makes_room() {
            return Err(End::Idle);
        }
    }
}

/// Reads the PROXY protocol's header that must come first.
pub(super) async fn proxy_header<S: Stream>(handle: &ServerHandle<S>, connection: &Rc<Connection>) -> bool {
    let timeout = connection.with_host(|hosts| hosts.default.base.settings.core.client_header_timeout.0);
    let Ok(Ok(true)) = tokio::time::timeout(timeout, handle.wait()).await else { return false };
    let parsed = proxy_protocol::parse(&handle.buffered());
    match parsed {
        Ok((header, consumed)) => {
            handle.consume(consumed);
            if let Some(header) = header {
                // A connection has one header; a second is data.
                let _ = connection.proxied.set(Box::new(header));
            }
            true
        }
        Err(error) => {
            connection.log(Level::Err, &format!("{error} while reading PROXY protocol"));
            false
        }
    }
}
