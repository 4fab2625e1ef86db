//! Kept connections to peers: each thread has its own, as each nginx worker has.

use super::{Group, link::Link, local::Local, peer::Peer};
use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

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
            if link.is_quiet() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection; the one that was idle longest goes when there are too many.
    pub fn put(&self, key: &Key, link: Box<Link>, now: Instant) {
        let keepalive = key.group.keepalive;
        let spent = link.requests >= keepalive.requests || now.saturating_duration_since(link.opened) >= keepalive.time;
        if spent || keepalive.connections == 0 || !link.is_drained() {
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
            idle.retain_mut(|idle| idle.until > now && idle.link.is_quiet());
            !idle.is_empty()
        });
    }

    /// How often [`Pool::sweep`] is worth a call.
    pub const SWEEP_EVERY: Duration = Duration::from_secs(1);
}
