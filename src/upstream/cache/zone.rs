//! What is known of the files of one cache (`_cache_path`): shared by all threads, kept over reloads
//! (`ngx_http_file_cache_node_t`).

use super::{key::Digest, settings::CachePath};
use crate::{http::Http, lock, observe::counts::Counter, recent::Recent};
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::sync::Notify;

/// A cache, as one configuration describes it.
#[derive(Debug)]
pub struct Zone {
    pub path: CachePath,
    shared: OnceLock<Arc<Shared>>,
}

/// What outlives a configuration.
#[derive(Debug)]
pub(super) struct Shared {
    nodes: Mutex<Nodes>,
    /// The files on the disk are not all known yet.
    pub(super) cold: AtomicBool,
    /// The configuration in force, for those who look after the files.
    serving: Mutex<Option<(Weak<Zone>, Weak<Http>)>>,
    /// How requests fared, by [`Status`].
    tallies: [Tally; 7],
}

/// What was counted of the requests that fared alike.
#[derive(Debug, Default)]
pub struct Tally {
    pub responses: Counter<true>,
    /// Of their bodies: from the cache, or from the upstream.
    pub bytes: Counter<true>,
    /// Answers that were put into the cache.
    pub responses_written: Counter<true>,
    /// Bytes of their files.
    pub bytes_written: Counter<true>,
}

/// How a request fared with its cache: `$upstream_cache_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Miss,
    Bypass,
    Expired,
    Stale,
    Updating,
    Revalidated,
    Hit,
}

impl Status {
    /// All of them, in order.
    pub const ALL: [Self; 7] =
        [Self::Miss, Self::Bypass, Self::Expired, Self::Stale, Self::Updating, Self::Revalidated, Self::Hit];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Miss => "MISS",
            Self::Bypass => "BYPASS",
            Self::Expired => "EXPIRED",
            Self::Stale => "STALE",
            Self::Updating => "UPDATING",
            Self::Revalidated => "REVALIDATED",
            Self::Hit => "HIT",
        }
    }
}

#[derive(Debug, Default)]
struct Nodes {
    all: Recent<Digest, Node>,
    /// What the files take on the disk. Bytes.
    size: u64,
    /// From so many keys on, the oldest go; set when there was no room for one.
    watermark: Option<usize>,
}

/// What is known of one key.
#[derive(Debug, Default)]
struct Node {
    /// Until when it stays though nobody asks for it. Seconds since the epoch.
    expire: u64,
    /// How many requests have to do with it just now.
    count: u32,
    uses: usize,
    /// There is a file.
    exists: bool,
    /// There is one that is not the answer any more, and has to go with the key.
    left: bool,
    /// The file's number, to notice another one in its place.
    uniq: u64,
    body_start: usize,
    fs_size: u64,
    /// Someone fetches the answer; others may once the lock is too old.
    updating: bool,
    /// Milliseconds of the clock that never goes back.
    lock_time: u64,
    deleting: bool,
    /// An answer without a file: the status of an error, and until when it is given.
    error: u16,
    valid: i64,
    waiting: Option<Arc<Notify>>,
}

/// What there is for a key (`ngx_http_file_cache_exists`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It was asked for often enough. `file` if there is one, `error` if that is the answer, else 0.
    Enough {
        file: bool,
        error: u16,
    },
    /// Not often enough yet.
    TooFew,
    New,
    NoRoom,
}

/// A file's facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) uniq: u64,
    /// Where the body begins, 0 if that is not known.
    pub(super) body_start: usize,
    /// Bytes on the disk.
    pub(super) fs_size: u64,
}

/// What a node takes of a zone, as nginx's does. Bytes.
const NODE: usize = 128;

/// What a zone has no nodes in. Bytes.
const PAGE: usize = 4096;

impl Zone {
    /// A cache of which nothing is known yet.
    pub fn new(path: CachePath) -> Self {
        Self { path, shared: OnceLock::new() }
    }

    /// Goes on with what the generation before knew of the same files.
    pub fn adopt(&self, previous: &Self) {
        if self.path.folder == previous.path.folder && self.path.levels == previous.path.levels {
            // A zone that is in use already keeps what it has.
            let _ = self.shared.set(Arc::clone(previous.shared()));
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        self.shared.get_or_init(|| {
            Arc::new(Shared {
                nodes: Mutex::default(),
                cold: AtomicBool::new(true),
                serving: Mutex::default(),
                tallies: Default::default(),
            })
        })
    }

    /// Its name, as it is shown.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.path.name).into_owned()
    }

    /// What there is to log when there is no room for a key.
    pub(super) fn full(&self) -> String {
        format!("could not allocate node in cache keys zone \"{}\"", self.name())
    }

    fn lock(&self) -> MutexGuard<'_, Nodes> {
        lock(&self.shared().nodes)
    }

    /// Where the file of a digest is.
    pub fn file(&self, digest: &Digest) -> PathBuf {
        super::key::path(&self.path.folder, &self.path.levels, digest)
    }

    /// Bytes on the disk, and whether files may be there that are not known yet.
    pub fn size(&self) -> (u64, bool) {
        (self.lock().size, self.is_cold())
    }

    pub(super) fn is_cold(&self) -> bool {
        self.shared().cold.load(Relaxed)
    }

    /// What was counted of requests that fared so.
    pub fn tally(&self, status: Status) -> &Tally {
        &self.shared().tallies[status as usize]
    }

    /// Counts an answer to a request that fared so, and the bytes of its body that are known by now.
    pub fn count(&self, status: Status, bytes: u64) {
        let tally = self.tally(status);
        tally.responses.up();
        tally.bytes.add(bytes);
    }

    /// Counts from nothing on.
    pub fn reset(&self) {
        for Tally { responses, bytes, responses_written, bytes_written } in &self.shared().tallies {
            [responses, bytes, responses_written, bytes_written].into_iter().for_each(Counter::reset);
        }
    }

    /// A request has to do with a key from now on; `again` if it had before. Tells what there is, and its facts.
    pub(super) fn hold(&self, digest: &Digest, min_uses: usize, again: bool, now: i64) -> (Known, Facts) {
        let now = u64::try_from(now).unwrap_or(0);
        let mut nodes = self.lock();
        if nodes.all.get(digest).is_none() && self.is_full(&mut nodes) {
            drop(nodes);
            self.force_out(now);
            nodes = self.lock();
            if nodes.all.len() >= self.capacity() {
                return (Known::NoRoom, Facts::default());
            }
        }
        let expire = now + self.path.inactive;
        let is_new = nodes.touch(digest, expire);
        let Some(node) = nodes.all.get_mut(digest) else { return (Known::NoRoom, Facts::default()) };
        if !again {
            node.count += 1;
            node.uses += 1;
        }
        let over = node.error != 0 && u64::try_from(node.valid).is_ok_and(|valid| valid < now);
        if is_new || over {
            *node = Node {
                expire,
                left: node.exists || node.left,
                fs_size: node.fs_size,
                count: node.count,
                uses: node.uses,
                updating: node.updating,
                deleting: node.deleting,
                lock_time: node.lock_time,
                waiting: node.waiting.take(),
                ..Node::default()
            };
            return (Known::New, Facts::default());
        }
        let known = match () {
            () if node.error != 0 => Known::Enough { file: false, error: node.error },
            () if node.exists || node.uses >= min_uses => Known::Enough { file: node.exists, error: 0 },
            () => Known::TooFew,
        };
        (known, node.facts())
    }

    /// Whether there is no room for another key. Then there is to be some soon.
    fn is_full(&self, nodes: &mut Nodes) -> bool {
        let (count, full) = (nodes.all.len(), nodes.all.len() >= self.capacity());
        if full {
            nodes.watermark = Some(count - count / 8);
        }
        full
    }

    /// How many keys there is room for.
    fn capacity(&self) -> usize {
        self.path.size.saturating_sub(PAGE) / NODE
    }

    /// Whether this request is the one that fetches an answer that is missing (`ngx_http_file_cache_lock`): then until
    /// when the others wait for it, in milliseconds as `now`.
    pub(super) fn lock_out(&self, digest: &Digest, now: u64, age: u64) -> Option<u64> {
        let mut nodes = self.lock();
        let node = nodes.all.get_mut(digest)?;
        if node.updating && node.lock_time > now {
            return None;
        }
        node.updating = true;
        node.lock_time = now + age;
        Some(node.lock_time)
    }

    /// Whether this request is the one that fetches an answer anew that is too old.
    pub(super) fn begin_update(&self, digest: &Digest) -> Option<u64> {
        let mut nodes = self.lock();
        let node = nodes.all.get_mut(digest)?;
        (!std::mem::replace(&mut node.updating, true)).then_some(node.lock_time)
    }

    /// While an answer is being fetched: what tells when that is over, and until when to wait for it.
    pub(super) fn fetched(&self, digest: &Digest, now: u64) -> Option<(Arc<Notify>, u64)> {
        let mut nodes = self.lock();
        let node = nodes.all.get_mut(digest)?;
        if !node.updating || node.lock_time <= now {
            return None;
        }
        Some((Arc::clone(node.waiting.get_or_insert_default()), node.lock_time))
    }

    /// A file was found that was not known.
    pub(super) fn found(&self, digest: &Digest, facts: Facts) {
        let mut nodes = self.lock();
        let Some(node) = nodes.all.get_mut(digest).filter(|node| !node.exists) else { return };
        let before = node.fs_size;
        (node.exists, node.left) = (true, false);
        node.uses = 1;
        node.set(facts);
        nodes.size = (nodes.size + facts.fs_size).saturating_sub(before);
    }

    /// A new file is in its place, or could not be put there (`ngx_http_file_cache_update`). The request has no more to
    /// do with the key.
    pub(super) fn stored(&self, digest: &Digest, facts: Result<Facts, usize>) {
        let mut nodes = self.lock();
        let Some(node) = nodes.all.get_mut(digest) else { return };
        let before = node.fs_size;
        node.count = node.count.saturating_sub(1);
        node.error = 0;
        if facts.is_ok() {
            // Should the one before it just be removed, this one may stay.
            (node.exists, node.left, node.deleting) = (true, false, false);
        }
        node.set(facts.unwrap_or_else(|body_start| Facts { body_start, ..Facts::default() }));
        node.end_update();
        let after = node.fs_size;
        nodes.size = (nodes.size + after).saturating_sub(before);
    }

    /// A request has no more to do with a key (`ngx_http_file_cache_free`). `error` if its answer is a status, with the
    /// time until which it is given unless that is known.
    pub(super) fn release(&self, digest: &Digest, error: Option<(u16, i64)>, min_uses: usize) {
        let mut nodes = self.lock();
        let Some(node) = nodes.all.get_mut(digest) else { return };
        node.count = node.count.saturating_sub(1);
        if let Some((status, valid)) = error {
            node.error = status;
            if valid != 0 {
                node.valid = valid;
            }
        } else if !node.exists && !node.left && node.count == 0 && min_uses == 1 {
            nodes.all.remove(digest);
        }
    }

    /// The same, of a key that gives way to another one of the same request.
    pub(super) fn leave(&self, digest: &Digest) {
        if let Some(node) = self.lock().all.get_mut(digest) {
            node.count = node.count.saturating_sub(1);
        }
    }

    /// Whose turn it was to fetch an answer, with the lock of this time, has ended without one.
    pub(super) fn give_up(&self, digest: &Digest, time: u64) {
        if let Some(node) = self.lock().all.get_mut(digest).filter(|node| node.lock_time == time) {
            node.end_update();
        }
    }
}

/// What the manager and the loader do.
impl Zone {
    /// This configuration is in force. Whether nobody looks after the files yet.
    pub(super) fn serve(self: &Arc<Self>, http: Weak<Http>) -> bool {
        let mut serving = lock(&self.shared().serving);
        serving.replace((Arc::downgrade(self), http)).is_none()
    }

    /// Takes the file of a key that nobody has asked for since long; how many seconds to wait for the next one
    /// (`ngx_http_file_cache_expire`).
    pub(super) fn expire_one(&self, now: u64) -> Out {
        let mut nodes = self.lock();
        let Some((digest, node)) = nodes.all.oldest().next() else { return Out::Wait(10) };
        if node.expire > now {
            return Out::Wait((node.expire - now).min(10));
        }
        let (digest, count, deleting) = (*digest, node.count, node.deleting);
        if count == 0 {
            return nodes.begin_delete(digest);
        }
        if deleting {
            return Out::Wait(1);
        }
        nodes.touch(&digest, now + self.path.inactive);
        Out::Held(digest, count)
    }

    /// Takes the file of the key that was not asked for for the longest time (`ngx_http_file_cache_forced_expire`).
    pub(super) fn force_one(&self, now: u64) -> Out {
        let mut nodes = self.lock();
        // Those that requests have to do with go behind all others.
        for _ in 0..20 {
            let Some((digest, node)) = nodes.all.oldest().next() else { return Out::Wait(10) };
            let (digest, count) = (*digest, node.count);
            if count == 0 {
                return nodes.begin_delete(digest);
            }
            nodes.touch(&digest, now + self.path.inactive);
        }
        Out::Wait(1)
    }

    /// The file that was taken is gone.
    pub(super) fn deleted(&self, digest: &Digest) {
        let there = self.file(digest).exists();
        let mut nodes = self.lock();
        let Some(node) = nodes.all.get_mut(digest) else { return };
        node.count = node.count.saturating_sub(1);
        // Another one has come meanwhile, unless it was that one that was removed.
        let stays = !std::mem::take(&mut node.deleting) && node.exists && there;
        if node.count == 0 && !stays {
            let freed = node.fs_size;
            nodes.all.remove(digest);
            nodes.size = nodes.size.saturating_sub(freed);
        }
    }

    /// Whether the files, or the keys, are too many.
    pub(super) fn is_over(&self) -> bool {
        let nodes = self.lock();
        nodes.size >= self.path.max_size || nodes.watermark.is_some_and(|most| nodes.all.len() >= most)
    }

    /// A file of an earlier process is there; whether there is room to know it.
    pub(super) fn add(&self, digest: &Digest, fs_size: u64, now: u64) -> bool {
        let mut nodes = self.lock();
        let known = nodes.all.get(digest).is_some();
        if !known && self.is_full(&mut nodes) {
            return false;
        }
        nodes.touch(digest, now + self.path.inactive);
        if let Some(node) = nodes.all.get_mut(digest).filter(|_| !known) {
            (node.uses, node.exists, node.fs_size) = (1, true, fs_size);
            nodes.size += fs_size;
        }
        true
    }

    /// Makes room for a key.
    fn force_out(&self, now: u64) {
        if let Out::Delete(digest) = self.force_one(now) {
            super::manager::delete(self, &digest);
        }
    }
}

impl Shared {
    /// The configuration in force; `None` when there is none any more.
    pub(super) fn serving(&self) -> Option<(Arc<Zone>, Arc<Http>)> {
        let serving = lock(&self.serving);
        let (zone, http) = serving.as_ref()?;
        Some((zone.upgrade()?, http.upgrade()?))
    }
}

/// What became of looking for a file to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Out {
    /// It is to be removed, and then [`Zone::deleted`] to be said.
    Delete(Digest),
    /// There was no file.
    Forgotten,
    /// Requests have had to do with it for too long.
    Held(Digest, u32),
    /// None is due for so many seconds.
    Wait(u64),
}

impl Nodes {
    /// A key is used: it goes behind all others. Whether it is a new one.
    fn touch(&mut self, digest: &Digest, expire: u64) -> bool {
        match self.all.touch(digest) {
            Some(node) => {
                node.expire = expire;
                false
            }
            None => {
                self.all.insert(*digest, Node { expire, ..Node::default() });
                true
            }
        }
    }

    fn begin_delete(&mut self, digest: Digest) -> Out {
        let Some(node) = self.all.get_mut(&digest) else { return Out::Forgotten };
        if !node.exists && !node.left {
            self.all.remove(&digest);
            return Out::Forgotten;
        }
        self.size = self.size.saturating_sub(node.fs_size);
        node.fs_size = 0;
        node.count += 1;
        node.deleting = true;
        Out::Delete(digest)
    }
}

impl Node {
    fn facts(&self) -> Facts {
        Facts { uniq: self.uniq, body_start: self.body_start, fs_size: self.fs_size }
    }

    fn set(&mut self, facts: Facts) {
        (self.uniq, self.body_start, self.fs_size) = (facts.uniq, facts.body_start, facts.fs_size);
    }

    /// Nobody fetches the answer any more: who has waited looks for it.
    fn end_update(&mut self) {
        self.updating = false;
        if let Some(waiting) = self.waiting.take() {
            waiting.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests;
