//! One request and its answer: the answer is made, then sent, while an eye is kept on the client.

use super::{
    Connection, Stream,
    service::{Answer, Switch},
};
use crate::{
    http::heads::{Cut, ServerHandle},
    observe::error_log::Level,
};
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::time::Sleep;

/// How it ended.
pub(super) enum Outcome {
    /// The connection waits for another request.
    Next,
    /// It speaks another protocol from here.
    Switch(Box<Switch>),
    /// It does neither; with `linger` the client may still be sending.
    End { linger: bool },
}

impl Outcome {
    /// It ends, and the client is to have its answer if it is still there.
    fn end(connection: &Connection) -> Self {
        Self::End { linger: !connection.side.closed() }
    }
}

/// Lets `work` make an answer, and sends it.
pub(super) async fn drive<S: Stream>(
    handle: &ServerHandle<S>,
    connection: &Rc<Connection>,
    mut work: Pin<Box<impl Future<Output = Option<Box<Answer>>>>>,
) -> Outcome {
    let mut stall = Silence::default();
    let made = poll_fn(|cx| {
        if let Poll::Ready(answer) = work.as_mut().poll(cx) {
            return Poll::Ready(answer.ok_or_else(|| Outcome::end(connection)));
        }
        if handle.has_interim() {
            connection.hasten(handle);
            // That it cannot be written shows when the answer is.
            let _: Poll<std::io::Result<()>> = handle.poll_interim(cx);
        }
        ended(cx, handle, connection, &mut stall).map(Err)
    })
    .await;
    // The answer may take long, and has no use for what it took to make it.
    drop(work);
    let mut answer = match made {
        Ok(answer) => answer,
        Err(outcome) => return outcome,
    };
    let mut patience = None;
    poll_fn(|cx| {
        let sent = handle.poll_send(cx, &mut answer.sending, S::poll_file);
        if matches!(sent, Poll::Ready(Err(_))) || answer.sending.is_cut() && sent.is_ready() {
            return Poll::Ready(Outcome::end(connection));
        }
        if sent.is_pending() {
            connection.hasten(handle);
            connection.read_ahead(cx);
        }
        if sent.is_ready() {
            if let Some(switch) = answer.switch.take() {
                return Poll::Ready(Outcome::Switch(switch));
            }
            let rest = match answer.discards && !connection.broken.get() {
                true => handle.poll_discard(cx),
                false => Poll::Ready(Ok(())),
            };
            // Of a request that was not read to its end nobody knows where that is.
            if rest.is_ready() {
                return Poll::Ready(match connection.broken.get() || !handle.is_read() {
                    true => Outcome::end(connection),
                    false => Outcome::Next,
                });
            }
            if patience.get_or_insert_with(Patience::default).poll(cx, connection).is_ready() {
                return Poll::Ready(Outcome::End { linger: false });
            }
        } else if answer.discards {
            // Who still sends may not read before that is done.
            let _: Poll<Result<(), Cut>> = handle.poll_discard(cx);
        }
        ended(cx, handle, connection, &mut stall)
    })
    .await
}

/// Whether there is a reason not to go on with a request.
fn ended<S: Stream>(
    cx: &mut Context<'_>,
    handle: &ServerHandle<S>,
    connection: &Connection,
    stall: &mut Silence,
) -> Poll<Outcome> {
    handle.poll_watch(cx);
    if connection.side.closed() && connection.abortable.get() {
        return Poll::Ready(Outcome::End { linger: false });
    }
    if !connection.side.write_blocked() {
        stall.timer = None;
        return Poll::Pending;
    }
    let limit = connection.with_host(|hosts| hosts.default.base.settings.core.send_timeout.0);
    if stall.poll(cx, connection.side.sent(), limit).is_ready() {
        connection.timed_out.set(true);
        connection.log(Level::Info, "client timed out (110: Connection timed out) while sending to client");
        return Poll::Ready(Outcome::End { linger: false });
    }
    Poll::Pending
}

/// The longest time in which a counter stays as it is: `send_timeout` between two writes that the client lets happen.
#[derive(Default)]
struct Silence {
    timer: Option<Pin<Box<Sleep>>>,
    counted: u64,
}

impl Silence {
    fn poll(&mut self, cx: &mut Context<'_>, counted: u64, limit: Duration) -> Poll<()> {
        let fresh = self.timer.is_none() || counted != self.counted;
        self.counted = counted;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if fresh {
            timer.as_mut().reset(tokio::time::Instant::now() + limit);
        }
        timer.as_mut().poll(cx)
    }
}

/// How long the rest of a request is read away behind its answer: `lingering_timeout` between two reads,
/// `lingering_time` in all (`ngx_http_discarded_request_body_handler`).
struct Patience {
    silence: Silence,
    since: Instant,
}

impl Default for Patience {
    fn default() -> Self {
        Self { silence: Silence::default(), since: Instant::now() }
    }
}

impl Patience {
    fn poll(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Poll<()> {
        let (gap, all) = connection.with_host(|hosts| {
            let core = &hosts.default.base.settings.core;
            (core.lingering_timeout.0, core.lingering_time.0)
        });
        let left = all.saturating_sub(self.since.elapsed());
        self.silence.poll(cx, connection.side.received(), gap.min(left))
    }
}
