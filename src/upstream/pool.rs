//! Kept connections to peers: each thread has its own, as each nginx worker has.

use super::{Group, link::Link, local::Local, peer::Peer, wire::answer::AnswerBody};
use crate::http::level::Location;
use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// Which connections can stand in for each other.
#[derive(Clone)]
pub struct Key {
    group: Arc<Group>,
    peer: Arc<Peer>,
    /// The address they come from.
    local: Option<Local>,
    /// The location they were opened for, where they serve no other (`keepalive … local`).
    place: Option<Weak<Location>>,
}

impl Key {
    pub fn new(group: &Arc<Group>, peer: &Arc<Peer>, local: Option<Local>, location: &Arc<Location>) -> Self {
        let place = group.keepalive.local.then(|| Arc::downgrade(location));
        Self { group: Arc::clone(group), peer: Arc::clone(peer), local, place }
    }

    fn fits(&self, idle: &Idle) -> bool {
        let placed = match (&self.place, &idle.place) {
            (None, _) => true,
            (Some(own), Some(other)) => Weak::ptr_eq(own, other),
            (Some(_), None) => false,
        };
        placed && idle.local == self.local && idle.peer.0.address == self.peer.address
    }

    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }
}

/// The idle connections of one thread.
#[derive(Default)]
pub struct Pool {
    groups: RefCell<BTreeMap<String, VecDeque<Idle>>>,
    leaving: RefCell<Vec<Leaving>>,
}

/// A connection that nobody will use again, and the end of its last answer.
struct Leaving {
    link: Box<Link>,
    rest: AnswerBody,
    until: Instant,
}

struct Idle {
    peer: Parked,
    local: Option<Local>,
    place: Option<Weak<Location>>,
    link: Box<Link>,
    /// What still has to come of the last answer: its end, which nobody waited for.
    rest: Option<AnswerBody>,
    until: Instant,
}

/// The peer of an idle connection, which counts it where it counts anything.
struct Parked(Arc<Peer>, bool);

impl Parked {
    fn new(key: &Key) -> Self {
        let stats = key.group.stats(&key.peer);
        stats.inspect(|stats| stats.keep(true));
        Self(Arc::clone(&key.peer), stats.is_some())
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        if self.1 {
            self.0.counted().keep(false);
        }
    }
}

/// What may be done with an idle connection.
#[derive(PartialEq, Eq)]
enum State {
    Ready,
    /// The last answer has not ended.
    Busy,
    Dead,
}

impl Idle {
    fn state(&mut self) -> State {
        if let Some(rest) = &mut self.rest {
            let mut nobody = Context::from_waker(Waker::noop());
            match self.link.poll_body(&mut nobody, rest) {
                Poll::Pending => return State::Busy,
                Poll::Ready(None) if rest.is_clean() => self.rest = None,
                Poll::Ready(_) => return State::Dead,
            }
        }
        if self.link.is_quiet() { State::Ready } else { State::Dead }
    }
}

impl Pool {
    /// The connection to this peer that was used last, if one is alive.
    pub fn take(&self, key: &Key) -> Option<Box<Link>> {
        let mut groups = self.groups.borrow_mut();
        let idle = groups.get_mut(&key.group.name)?;
        for at in (0..idle.len()).rev() {
            if !key.fits(&idle[at]) {
                continue;
            }
            match idle[at].state() {
                State::Ready => return idle.remove(at).map(|idle| idle.link),
                State::Busy => {}
                State::Dead => drop(idle.remove(at)),
            }
        }
        None
    }

    /// Keeps a connection; the one that was idle longest goes when there are too many. It can serve when the `rest` of its
    /// last answer has come, if something is left of that.
    pub fn put(&self, key: &Key, link: Box<Link>, rest: Option<AnswerBody>, now: Instant) {
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
        let until = now + keepalive.timeout;
        let (peer, place) = (Parked::new(key), key.place.clone());
        idle.push_back(Idle { peer, local: key.local, place, link, rest, until });
        while idle.len() > keepalive.connections {
            idle.pop_front();
        }
    }

    /// Closes a connection when its last answer has ended, or by a time: who is still writing is not cut short.
    pub fn see_off(&self, link: Box<Link>, rest: AnswerBody, until: Instant) {
        self.leaving.borrow_mut().push(Leaving { link, rest, until });
    }

    /// Closes what was idle too long or has died; called now and then.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.groups.borrow_mut().retain(|_, idle| {
            idle.retain_mut(|idle| idle.until > now && idle.state() != State::Dead);
            !idle.is_empty()
        });
        let mut nobody = Context::from_waker(Waker::noop());
        self.leaving
            .borrow_mut()
            .retain_mut(|Leaving { link, rest, until }| *until > now && link.poll_body(&mut nobody, rest).is_pending());
    }

    /// How often [`Pool::sweep`] is worth a call.
    pub const SWEEP_EVERY: Duration = Duration::from_secs(1);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{
        Address, Keepalive,
        connect::Stream,
        wire::{
            answer::{Dialect, HeadReader},
            memcached::Asked,
        },
    };
    use bytes::BytesMut;
    use tokio::{io::AsyncWriteExt, net::UnixStream};

    /// A connection, its other end, and a body of which all is there but its end.
    fn lacking_the_end() -> (Box<Link>, UnixStream, AnswerBody) {
        let (near, far) = UnixStream::pair().unwrap();
        let mut head = HeadReader::new(&Dialect::Memcached(Asked { key: "k".into(), gzip_flag: 0 }));
        let mut bytes = BytesMut::from(&b"VALUE k 0 2\r\n"[..]);
        head.parse(&mut bytes, 64).unwrap();
        let answer = head.finish(bytes.split().freeze());
        let mut body = head.body(&answer, false);
        bytes.extend_from_slice(b"ok");
        body.next(&mut bytes).unwrap();
        assert!(body.wants_end() && !body.is_over());
        (Link::new(Stream::Unix(near), Instant::now()), far, body)
    }

    fn key() -> Key {
        let mut group = Group::implicit("a", vec![Address::Unix("/a".into())]).unwrap();
        group.keepalive = Keepalive { connections: 2, ..Keepalive::default() };
        let group = Arc::new(group);
        let peer = group.peers().next().unwrap();
        let location = Arc::clone(&crate::http::testing::http("server { return 200; }").servers[0].base);
        Key::new(&group, &peer, None, &location)
    }

    /// Lets the runtime see what has arrived.
    async fn settle() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    #[tokio::test]
    async fn a_connection_serves_again_when_its_last_answer_has_ended() {
        let (pool, key) = (Pool::default(), key());
        for (end, serves) in [("\r\nEND\r\n", true), ("\r\nEND\r\nmore", false), ("no end", false)] {
            let (link, mut far, body) = lacking_the_end();
            pool.put(&key, link, Some(body), Instant::now());
            pool.sweep();
            assert!(pool.take(&key).is_none(), "its answer goes on");
            far.write_all(end.as_bytes()).await.unwrap();
            settle().await;
            pool.sweep();
            assert_eq!(pool.take(&key).is_some(), serves, "{end:?}");
            assert!(pool.take(&key).is_none());
        }
    }

    #[tokio::test]
    async fn who_is_seen_off_is_heard_out() {
        let pool = Pool::default();
        let soon = Instant::now() + Duration::from_secs(60);
        let (link, mut far, body) = lacking_the_end();
        pool.see_off(link, body, soon);
        pool.sweep();
        far.write_all(b"\r\nEN").await.unwrap();
        settle().await;
        pool.sweep();
        // It is still open.
        far.write_all(b"D\r\n").await.unwrap();
        settle().await;
        pool.sweep();
        assert!(far.write_all(b"more").await.is_err());
        let (link, mut far, body) = lacking_the_end();
        pool.see_off(link, body, Instant::now());
        pool.sweep();
        assert!(far.write_all(b"\r\nEND").await.is_err());
    }
}
