//! Kept connections to peers: each thread has its own, as each nginx worker has.

use super::{Failure, Group, connect::Stream, pass::http::Outbound, peer::Peer};
use crate::http::heads::{self, ClientSide, Tunnel};
use hyper::client::conn::http1::SendRequest;
use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// A connection to a peer, with hyper on it.
pub struct Link {
    pub sender: SendRequest<Outbound>,
    pub side: ClientSide,
    /// Requests it has carried.
    pub requests: u64,
    /// Comes when the peer has switched protocols.
    pub tunnel: tokio::sync::oneshot::Receiver<Tunnel<Stream>>,
    opened: Instant,
}

impl Link {
    /// Puts hyper on a fresh connection.
    ///
    /// # Errors
    /// hyper's refusal, which it has no reason for.
    pub async fn open(stream: Stream) -> Result<Self, Failure> {
        let (io, handle) = heads::client(stream);
        let side = handle.side().clone();
        let handshake = heads::client_builder().handshake(io).await;
        let (sender, mut connection) = handshake.map_err(|error| Failure::Io("connect()", error.to_string()))?;
        let (switched, tunnel) = tokio::sync::oneshot::channel();
        tokio::task::spawn_local(async move {
            let ended = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
            drop(connection);
            if ended.is_ok()
                && let Some(tunnel) = handle.tunnel()
            {
                // Nobody may be waiting for it any more.
                let _ = switched.send(tunnel);
            }
        });
        Ok(Self { sender, side, requests: 0, tunnel, opened: Instant::now() })
    }
}

/// Which connections can stand in for each other.
#[derive(Clone)]
pub struct Key {
    group: Arc<Group>,
    peer: Arc<Peer>,
}

impl Key {
    pub fn new(group: &Arc<Group>, peer: &Arc<Peer>) -> Self {
        Self { group: Arc::clone(group), peer: Arc::clone(peer) }
    }
}

/// The idle connections of one thread.
#[derive(Default)]
pub struct Pool {
    groups: RefCell<HashMap<String, VecDeque<Idle>>>,
}

struct Idle {
    peer: Arc<Peer>,
    link: Link,
    until: Instant,
}

impl Pool {
    /// The connection to this peer that was used last, if one is alive.
    pub fn take(&self, key: &Key) -> Option<Link> {
        let mut groups = self.groups.borrow_mut();
        let idle = groups.get_mut(&key.group.name)?;
        loop {
            let at = idle.iter().rposition(|idle| idle.peer.address == key.peer.address)?;
            let link = idle.remove(at)?.link;
            if !link.sender.is_closed() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection; the one that was idle longest goes when there are too many.
    pub fn put(&self, key: &Key, link: Link) {
        let keepalive = key.group.keepalive;
        let spent = link.requests >= keepalive.requests || link.opened.elapsed() >= keepalive.time;
        if spent || keepalive.connections == 0 || link.sender.is_closed() {
            return;
        }
        let mut groups = self.groups.borrow_mut();
        let idle = match groups.get_mut(&key.group.name) {
            Some(idle) => idle,
            None => groups.entry(key.group.name.clone()).or_default(),
        };
        idle.push_back(Idle { peer: Arc::clone(&key.peer), link, until: Instant::now() + keepalive.timeout });
        while idle.len() > keepalive.connections {
            idle.pop_front();
        }
    }

    /// Closes what was idle too long or has died; called now and then.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.groups.borrow_mut().retain(|_, idle| {
            idle.retain(|idle| idle.until > now && !idle.link.sender.is_closed());
            !idle.is_empty()
        });
    }

    /// How often [`Pool::sweep`] is worth a call.
    pub const SWEEP_EVERY: Duration = Duration::from_secs(1);
}
