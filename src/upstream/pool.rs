//! Kept connections to peers: each thread has its own, as each nginx worker has.

use super::{Failure, Group, connect::Stream, local::Local, pass::http::Outbound, peer::Peer};
use crate::http::{
    deadline::Deadline,
    heads::{self, ClientHandle, ClientIo, ClientSide, Tunnel},
};
use hyper::client::conn::http1::{Connection, SendRequest};
use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// A connection to a peer, with hyper on it. Nobody drives it but who holds it: a task of its own would cost every
/// request two changes of tasks.
pub struct Link {
    pub sender: SendRequest<Outbound>,
    pub side: ClientSide,
    /// Requests it has carried.
    pub requests: u64,
    /// For the waits of whoever holds it.
    pub deadline: Deadline,
    /// `None` when hyper is done with it.
    hyper: Option<Pin<Box<Connection<ClientIo<Stream>, Outbound>>>>,
    handle: ClientHandle<Stream>,
    opened: Instant,
}

impl Link {
    /// Puts hyper on a fresh connection.
    ///
    /// # Errors
    /// hyper's refusal, which it has no reason for.
    pub async fn open(stream: Stream) -> Result<Box<Self>, Failure> {
        let (io, handle) = heads::client(stream);
        let side = handle.side().clone();
        let handshake = heads::client_builder().handshake(io).await;
        let (sender, hyper) = handshake.map_err(|error| Failure::Io("connect()", error.to_string()))?;
        let hyper = Some(Box::pin(hyper));
        let (deadline, opened) = (Deadline::default(), Instant::now());
        Ok(Box::new(Self { sender, side, requests: 0, deadline, hyper, handle, opened }))
    }

    /// Lets hyper read and write. What is waited for behind it needs no waker of its own.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(hyper) = &mut self.hyper
            && hyper.as_mut().poll_without_shutdown(cx).is_ready()
        {
            self.hyper = None;
        }
    }

    /// Ready when a request can be sent; an error when none ever can.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        let mut nobody = Context::from_waker(Waker::noop());
        if let Poll::Ready(ready) = self.sender.poll_ready(&mut nobody) {
            return Poll::Ready(ready);
        }
        self.drive(cx);
        self.sender.poll_ready(cx)
    }

    /// Whether the peer has kept it open while it was idle.
    fn is_alive(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.hyper.is_some() && !self.sender.is_closed()
    }

    /// The bare connection, behind a switch of protocols.
    pub fn into_tunnel(self) -> Option<Tunnel<Stream>> {
        self.handle.tunnel()
    }
}

/// Which connections can stand in for each other.
#[derive(Clone)]
pub struct Key {
    group: Arc<Group>,
    peer: Arc<Peer>,
    /// The address they come from.
    local: Option<Local>,
}

impl Key {
    pub fn new(group: &Arc<Group>, peer: &Arc<Peer>, local: Option<Local>) -> Self {
        Self { group: Arc::clone(group), peer: Arc::clone(peer), local }
    }
}

/// The idle connections of one thread.
#[derive(Default)]
pub struct Pool {
    groups: RefCell<BTreeMap<String, VecDeque<Idle>>>,
}

struct Idle {
    peer: Arc<Peer>,
    local: Option<Local>,
    link: Box<Link>,
    until: Instant,
}

impl Pool {
    /// The connection to this peer that was used last, if one is alive.
    pub fn take(&self, key: &Key) -> Option<Box<Link>> {
        let mut groups = self.groups.borrow_mut();
        let idle = groups.get_mut(&key.group.name)?;
        loop {
            let at = idle.iter().rposition(|idle| idle.local == key.local && idle.peer.address == key.peer.address)?;
            let mut link = idle.remove(at)?.link;
            if link.is_alive() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection; the one that was idle longest goes when there are too many.
    pub fn put(&self, key: &Key, link: Box<Link>, now: Instant) {
        let keepalive = key.group.keepalive;
        let spent = link.requests >= keepalive.requests || now.saturating_duration_since(link.opened) >= keepalive.time;
        if spent || keepalive.connections == 0 || link.sender.is_closed() {
            return;
        }
        let mut groups = self.groups.borrow_mut();
        let idle = match groups.get_mut(&key.group.name) {
            Some(idle) => idle,
            None => groups.entry(key.group.name.clone()).or_default(),
        };
        idle.push_back(Idle { peer: Arc::clone(&key.peer), local: key.local, link, until: now + keepalive.timeout });
        while idle.len() > keepalive.connections {
            idle.pop_front();
        }
    }

    /// Closes what was idle too long or has died; called now and then.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.groups.borrow_mut().retain(|_, idle| {
            idle.retain_mut(|idle| idle.until > now && idle.link.is_alive());
            !idle.is_empty()
        });
    }

    /// How often [`Pool::sweep`] is worth a call.
    pub const SWEEP_EVERY: Duration = Duration::from_secs(1);
}
