//! What `sticky learn` remembers: which session is served by which peer, as long as it is used now and then.

use crate::{lock, recent::Recent};
use md5::{Digest, Md5};
use smallvec::SmallVec;
use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::Duration,
};

/// The bytes of one session in nginx's zone.
const NODE: usize = 256;

/// A peer as `sticky` knows it; never longer than 32 bytes.
pub(in crate::upstream) type Sid = SmallVec<[u8; 32]>;

/// The sessions of one zone, for all threads.
#[derive(Debug)]
pub struct Sessions {
    /// The zone's name.
    pub zone: String,
    /// The zone's size in bytes.
    pub size: usize,
    /// How long an unused session is remembered.
    timeout: Duration,
    table: OnceLock<Arc<Mutex<Table>>>,
}

#[derive(Debug, Default)]
struct Table {
    sessions: Recent<Key, Session>,
}

/// The MD5 of a session's name.
type Key = [u8; 16];

#[derive(Debug)]
struct Session {
    sid: Sid,
    /// When it was used last. Milliseconds.
    used: u64,
}

impl Sessions {
    /// A zone in which nothing is remembered yet.
    pub fn new(zone: String, size: usize, timeout: Duration) -> Self {
        Self { zone, size, timeout, table: OnceLock::new() }
    }

    /// Remembers what the generation before knew of a zone of the same size.
    pub(in crate::upstream) fn adopt(&self, previous: &Self) {
        if self.zone == previous.zone && self.size == previous.size {
            // A zone that is in use already keeps what it has.
            let _ = self.table.set(Arc::clone(previous.table()));
        }
    }

    /// The peer of a session.
    pub(in crate::upstream) fn find(&self, session: &[u8], now: u64) -> Option<Sid> {
        if session.is_empty() {
            return None;
        }
        let mut table = self.lock();
        table.expire(now, self.timeout);
        table.sessions.get(&key(session)).map(|session| session.sid.clone())
    }

    fn table(&self) -> &Arc<Mutex<Table>> {
        self.table.get_or_init(Arc::default)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        lock(self.table())
    }
}

impl Table {
    /// Forgets who was not used for that long.
    fn expire(&mut self, now: u64, timeout: Duration) {
        let timeout = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let is_over = |session: &Session| session.used.saturating_add(timeout) <= now;
        while self.sessions.take_oldest_if(is_over).is_some() {}
    }

    fn learn(&mut self, key: Key, sid: &[u8], now: u64) {
        self.sessions.insert(key, Session { sid: Sid::from_slice(sid), used: now });
    }
}

fn key(session: &[u8]) -> Key {
    Md5::digest(session).into()
}

/// What an answer teaches: whose session it belongs to.
#[derive(Debug)]
pub struct Lesson {
    sessions: Arc<Sessions>,
    key: Key,
    /// The session may be a new one.
    begins: bool,
    at_once: bool,
}

impl Lesson {
    /// About a session that an answer began, or that its request named. `at_once`: when the head of the answer is here.
    pub(super) fn new(sessions: &Arc<Sessions>, session: &[u8], begins: bool, at_once: bool) -> Self {
        Self { sessions: Arc::clone(sessions), key: key(session), begins, at_once }
    }

    /// Whether it is learned from the head of the answer.
    pub(in crate::upstream) fn at_once(&self) -> bool {
        self.at_once
    }

    /// The session is served by this peer.
    pub(in crate::upstream) fn learn(&self, sid: &[u8], now: u64) {
        let mut table = self.sessions.lock();
        table.expire(now, self.sessions.timeout);
        if table.sessions.get(&self.key).is_none() {
            if !self.begins {
                return;
            }
            // nginx, too, forgets whoever was unused for longest when its zone is full.
            if table.sessions.len() >= (self.sessions.size / NODE).max(1) {
                table.sessions.take_oldest_if(|_| true);
            }
        }
        table.learn(self.key, sid, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> Arc<Sessions> {
        Arc::new(Sessions::new("z".into(), 4 * NODE, Duration::from_secs(10)))
    }

    fn learn(sessions: &Arc<Sessions>, session: &str, begins: bool, sid: &str, now: u64) {
        Lesson::new(sessions, session.as_bytes(), begins, false).learn(sid.as_bytes(), now);
    }

    fn find(sessions: &Sessions, session: &str, now: u64) -> String {
        String::from_utf8(sessions.find(session.as_bytes(), now).unwrap_or_default().to_vec()).unwrap()
    }

    #[test]
    fn a_session_is_remembered_as_long_as_it_is_used() {
        let sessions = sessions();
        learn(&sessions, "a", true, "one", 0);
        assert_eq!(find(&sessions, "a", 9_999), "one");
        learn(&sessions, "a", false, "one", 9_999);
        assert_eq!(find(&sessions, "a", 19_000), "one", "looking it up is no use of it, an answer is");
        assert_eq!(find(&sessions, "a", 19_999), "");
    }

    #[test]
    fn a_session_may_move_and_only_an_answer_that_begins_one_makes_one() {
        let sessions = sessions();
        learn(&sessions, "a", false, "one", 0);
        assert_eq!(find(&sessions, "a", 1), "");
        learn(&sessions, "a", true, "one", 0);
        learn(&sessions, "a", false, "two", 0);
        assert_eq!(find(&sessions, "a", 1), "two");
        assert_eq!(find(&sessions, "", 1), "");
    }

    #[test]
    fn a_full_zone_forgets_the_session_that_was_unused_for_longest() {
        let sessions = sessions();
        for name in ["a", "b", "c", "d"] {
            learn(&sessions, name, true, name, 0);
        }
        learn(&sessions, "a", false, "a", 0);
        learn(&sessions, "e", true, "e", 0);
        assert_eq!(["a", "b", "c", "d", "e"].map(|name| find(&sessions, name, 1)), ["a", "", "c", "d", "e"]);
    }

    #[test]
    fn a_reload_keeps_the_sessions_of_a_zone_of_the_same_size() {
        let old = sessions();
        learn(&old, "a", true, "one", 0);
        let (new, larger) = (sessions(), Sessions::new("z".into(), 8 * NODE, Duration::from_secs(10)));
        new.adopt(&old);
        larger.adopt(&old);
        assert_eq!((find(&new, "a", 1), find(&larger, "a", 1)), ("one".into(), String::new()));
    }
}
