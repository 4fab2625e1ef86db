//! What a serving thread sees of the process: its listeners, the current generation, and what changes.

use std::{
    net::{TcpListener, UdpSocket},
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener},
    },
    sync::{Arc, mpsc},
};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::mpsc as channel;

use crate::process::needs::{Address, Endpoint, Transport};

/// One serving thread. [`crate::process::Program::serve`] gets it and returns when the thread is done.
#[derive(Debug)]
pub struct Thread<G> {
    /// Its number, from 0.
    pub index: usize,
    /// What it listens on at first; [`Change::Reload`] adds and removes.
    pub listeners: Vec<Listener>,
    /// What changes, in order.
    pub changes: Changes<G>,
    /// The generation in force.
    pub current: Current<G>,
}

/// The generation in force, for whoever starts a request. Cheap to clone and to ask.
#[derive(Debug)]
pub struct Current<G>(pub(super) Arc<ArcSwap<G>>);

impl<G> Clone for Current<G> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<G> Current<G> {
    /// A generation in force.
    pub fn new(generation: Arc<G>) -> Self {
        Self(Arc::new(ArcSwap::new(generation)))
    }

    /// The generation, to keep for a request.
    pub fn generation(&self) -> Arc<G> {
        self.0.load_full()
    }

    /// The generation for a short look, without counting the reference.
    pub fn peek(&self) -> Guard<Arc<G>> {
        self.0.load()
    }
}

/// A socket to accept from; non-blocking, this thread's own descriptor.
#[derive(Debug)]
pub struct Listener {
    pub endpoint: Endpoint,
    pub socket: Socket,
}

/// The kinds of socket one can listen on.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
    Unix(UnixListener),
    UnixDatagram(UnixDatagram),
}

impl Listener {
    pub(super) fn new(endpoint: Endpoint, descriptor: OwnedFd) -> Self {
        let socket = match (endpoint.transport, &endpoint.address) {
            (Transport::Stream, Address::Ip(_)) => Socket::Tcp(descriptor.into()),
            (Transport::Datagram, Address::Ip(_)) => Socket::Udp(descriptor.into()),
            (Transport::Stream, Address::Unix(_)) => Socket::Unix(descriptor.into()),
            (Transport::Datagram, Address::Unix(_)) => Socket::UnixDatagram(descriptor.into()),
        };
        Self { endpoint, socket }
    }
}

/// Something that happened to the process.
#[derive(Debug)]
pub enum Change<G> {
    /// A reload. [`Current`] gives `generation` already. `removed` comes first: a socket that was replaced stands in
    /// both lists. Who removes a listener should accept what is waiting on it before closing. `done` is dropped when
    /// both lists are carried out; the reload is reported as served when every thread has done so.
    Reload { generation: Arc<G>, removed: Vec<Endpoint>, added: Vec<Listener>, done: Done },
    /// Graceful end: accept no more, close idle connections at once, finish what is under way, then return.
    Quit,
    /// `worker_shutdown_timeout` is over: close every connection and return.
    Expire,
    /// Return at once.
    Terminate,
}

/// Dropped by a thread when it has carried a change out.
#[derive(Debug)]
pub struct Done {
    /// Never sent on: the other side waits until all are dropped.
    _line: mpsc::Sender<()>,
}

impl Done {
    pub(super) fn new(line: mpsc::Sender<()>) -> Self {
        Self { _line: line }
    }
}

/// The changes of one thread, in order.
#[derive(Debug)]
pub struct Changes<G>(pub(super) channel::UnboundedReceiver<Change<G>>);

impl<G> Changes<G> {
    /// Waits for the next change. Safe to drop and call again.
    pub async fn next(&mut self) -> Change<G> {
        // Whoever lost the process that steers it has nothing left to do.
        self.0.recv().await.unwrap_or(Change::Terminate)
    }
}
