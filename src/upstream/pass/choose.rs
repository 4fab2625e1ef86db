//! Whom a request is passed to: what its group is told of it, and the wait while nobody can take it.

use crate::{
    http::exchange::Exchange,
    upstream::{Client, Group, Reason, Selection, peer::Peer, queue::Queue},
};
use bytes::Bytes;
use std::{pin::pin, rc::Rc, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// How long somebody in a queue waits before it looks by itself: time alone, too, makes peers usable again.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a group may want to know of a request.
pub(super) fn client(exchange: &Exchange, group: &Group) -> Client {
    Client {
        address: exchange.remote_address(),
        key: group.key.as_ref().map(|key| key.evaluate_bytes(exchange)).unwrap_or_default(),
        sticky: group.sticky.as_ref().map(|sticky| sticky.of(exchange)).unwrap_or_default(),
    }
}

/// Why nobody was chosen, as the error log tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Nobody {
    #[error("no live upstreams")]
    Live,
    #[error("upstream queue is full")]
    QueueFull,
    #[error("upstream queue timed out")]
    QueueTimedOut,
}

impl Nobody {
    /// The same in one word.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Live => Reason::NoLivePeers,
            Self::QueueFull => Reason::QueueFull,
            Self::QueueTimedOut => Reason::QueueTimeout,
        }
    }
}

/// The next peer for a request; where there is a `queue`, the `first` one is waited for.
pub(super) async fn next(exchange: &mut Exchange, selection: &mut Selection, first: bool) -> Result<Arc<Peer>, Nobody> {
    let group = Arc::clone(selection.group());
    let now = exchange.connection.worker.clock.millis();
    let peer = match group.queue.as_ref().filter(|_| first) {
        None => selection.next(now).map_err(|_| Nobody::Live)?,
        // Who waits already comes first.
        Some(queue) => match queue.is_empty().then(|| selection.next(now)) {
            Some(Ok(peer)) => peer,
            // On the heap: it is rare, and every request carries what may be awaited.
            _ => Box::pin(wait(exchange, selection, queue)).await?,
        },
    };
    if let Some(cookie) = group.sticky.as_ref().and_then(|sticky| sticky.cookie(exchange, peer.sid())) {
        exchange.state.upstream.cookie = Some(cookie);
    }
    Ok(peer)
}

/// Waits in the queue until a peer can take the request.
async fn wait(exchange: &Exchange, selection: &mut Selection, queue: &Queue) -> Result<Arc<Peer>, Nobody> {
    let clock = &Rc::clone(&exchange.connection.worker).clock;
    let place = queue.enter().ok_or(Nobody::QueueFull)?;
    let began = Instant::now();
    let end = began + queue.timeout;
    loop {
        let mut called = pin!(place.called());
        // From here on no call is missed.
        called.as_mut().enable();
        clock.update();
        selection.restart();
        if let Ok(peer) = selection.next(clock.millis()) {
            queue.line().waits.up(began.elapsed());
            return Ok(peer);
        }
        if Instant::now() >= end {
            queue.line().timeouts.up();
            return Err(Nobody::QueueTimedOut);
        }
        // Called or not, it looks again.
        let _ = timeout_at(end.min(Instant::now() + PATIENCE), called).await;
    }
}

/// The cookie of the peer that was asked last goes with whatever is answered.
pub(super) fn keep_cookie(exchange: &mut Exchange) {
    if let Some(cookie) = exchange.state.upstream.cookie.take() {
        exchange.state.error_page.kept.push(Bytes::from_static(b"Set-Cookie"), cookie);
    }
}
