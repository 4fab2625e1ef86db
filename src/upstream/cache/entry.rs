//! What one request has to do with a cache: from looking for its answer to having it kept (`ngx_http_cache_t`).

use super::{
    file::{Header, Unfit, Validity, header_start},
    key::{self, Digest, Key},
    settings::Caching,
    zone::{Facts, Known, Status, Zone},
};
use crate::{
    http::{
        body::{Body, FileBody},
        exchange::Exchange,
        files::errno,
        placing::{Log, Placing, place},
    },
    observe::error_log::Level,
};
use bytes::{Bytes, BytesMut};
use rustix::{buffer::spare_capacity, io::pread};
use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time;

/// A request's hold on the answer of its key. While it lives, the answer is not removed; if it was the one to fetch it,
/// others may once it is dropped.
#[derive(Debug)]
pub struct Entry {
    zone: Arc<Zone>,
    key: Key,
    /// That of the key, or of a variant.
    digest: Digest,
    variant: Digest,
    secondary: bool,
    /// The zone knows that this request has to do with the digest.
    held: bool,
    /// It is the one that fetches the answer.
    turn: Option<Turn>,
    min_uses: usize,
    /// The most that key and head may take.
    limit: usize,
    locking: Option<Locking>,
    /// Answers may be kept: nothing has spoken against it yet.
    pub keeps: bool,
    pub validity: Validity,
    pub last_modified: i64,
    pub etag: Bytes,
    vary: Bytes,
    date: i64,
    body_start: usize,
    /// An answer without a file: its status, kept in memory alone.
    error: Option<u16>,
    stale_updating: bool,
    stale_error: bool,
    opened: Option<Opened>,
    /// How the request fared whose answer is being kept.
    pub fared: Status,
}

#[derive(Clone, Copy, Debug)]
struct Locking {
    age: Duration,
    until: u64,
}

/// A file that holds an answer.
#[derive(Clone, Debug)]
struct Opened {
    file: Arc<File>,
    uniq: u64,
    length: u64,
    /// What was read of it.
    start: Bytes,
}

/// What there is of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Fresh,
    /// Too old; this request is the one to fetch it anew.
    Stale,
    /// Too old; another request fetches it.
    Updating,
    /// Nothing. It is to be kept once it is here.
    Nothing,
    /// Nothing, and it will not be kept: it was not asked for often enough, or others wait for it.
    Scarce,
    /// It was an error.
    Error(u16),
    /// The cache cannot be used; why is in the log.
    Failed,
}

/// A file that is no longer is read whole at once. Bytes.
const PIECE: usize = 32 << 10;

impl Entry {
    /// The entry of a request's key. `None` if key and head together are longer than `limit`.
    pub fn new(zone: Arc<Zone>, key: Key, caching: &Caching, limit: usize, now: u64) -> Option<Box<Self>> {
        let start = header_start(key.text.len());
        if Self::least_size(key.text.len()) > limit || u16::try_from(start).is_err() {
            return None;
        }
        let timeout = u64::try_from(caching.lock_timeout.0.as_millis()).unwrap_or(u64::MAX);
        let locking = Locking { age: caching.lock_age.0, until: now.saturating_add(timeout) };
        Some(Box::new(Self {
            zone,
            digest: key.digest,
            key,
            variant: Digest::default(),
            secondary: false,
            held: false,
            turn: None,
            min_uses: caching.min_uses,
            limit,
            locking: caching.lock.then_some(locking),
            keeps: true,
            validity: Validity::default(),
            last_modified: -1,
            etag: Bytes::new(),
            vary: Bytes::new(),
            date: 0,
            body_start: 0,
            error: None,
            stale_updating: false,
            stale_error: false,
            opened: None,
            fared: Status::Miss,
        }))
    }

    /// How large a buffer has to be for the head of an answer whose key is so long.
    pub fn least_size(key: usize) -> usize {
        header_start(key) + 256
    }

    /// How long an answer's head may be.
    pub fn head_limit(&self) -> usize {
        self.limit - header_start(self.key.text.len())
    }

    /// An answer that is too old may be given while it is fetched anew, as it says itself.
    pub fn stale_updating(&self) -> bool {
        self.stale_updating
    }

    /// The same while that fails.
    pub fn stale_error(&self) -> bool {
        self.stale_error
    }

    /// Looks for the answer (`ngx_http_file_cache_open`). Waits while another request fetches it, where `_cache_lock` says
    /// so.
    pub async fn open(&mut self, exchange: &Exchange) -> Found {
        let mut again = false;
        loop {
            let clock = &exchange.connection.worker.clock;
            let found = self.look(exchange, again);
            let (Found::Nothing, Some(locking)) = (found, self.locking) else { return found };
            let now = clock.millis();
            let age = u64::try_from(locking.age.as_millis()).unwrap_or(u64::MAX);
            if let Some(turn) = self.zone.lock_out(&self.digest, now, age) {
                self.turn = Some(Turn::new(&self.zone, self.digest, turn));
                return found;
            }
            if now >= locking.until {
                return Found::Scarce;
            }
            again = true;
            let Some((fetched, until)) = self.zone.fetched(&self.digest, now) else { continue };

            let wait = Duration::from_millis(until.min(locking.until) - now);
            let over = fetched.notified();
            tokio::pin!(over);
            // It may have been fetched just now.
            over.as_mut().enable();
            if self.zone.fetched(&self.digest, now).is_some_and(|(still, _)| Arc::ptr_eq(&still, &fetched)) {
                let waited = time::timeout(wait, over).await;
                clock.update();
                if waited.is_err() && clock.millis() >= locking.until {
                    exchange.log(Level::Info, "cache lock timeout");
                }
            }
        }
    }

    fn look(&mut self, exchange: &Exchange, mut again: bool) -> Found {
        let now = exchange.connection.worker.clock.unix();
        loop {
            let (known, facts) = self.zone.hold(&self.digest, self.min_uses, again, now);
            self.held = known != Known::NoRoom;
            let cold = self.zone.is_cold();
            let (otherwise, test) = match known {
                Known::NoRoom => {
                    exchange.log(Level::Alert, &self.zone.full());
                    return Found::Failed;
                }
                Known::TooFew => return Found::Scarce,
                Known::Enough { error: 0, file } => (Found::Nothing, file),
                Known::Enough { error, .. } => {
                    self.error = Some(error);
                    return Found::Error(error);
                }
                Known::New if self.min_uses > 1 => (Found::Scarce, cold),
                Known::New => (Found::Nothing, cold),
            };
            if !test {
                return otherwise;
            }
            let path = self.zone.file(&self.digest);
            // What is known of it may be of the file before this one.
            let limit = facts.body_start.max(self.limit);
            let (opened, fs_size) = match open(&path, limit) {
                Ok(opened) => opened,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    return otherwise;
                }
                Err(error) => {
                    let text = format!("open() \"{}\" failed ({})", path.display(), errno(&error));
                    exchange.log(Level::Crit, &text);
                    return Found::Failed;
                }
            };
            let header = match Header::read(&opened.start, &self.key, limit) {
                Ok(header) => header,
                Err(unfit) => {
                    unusable(exchange, &path, unfit);
                    return Found::Nothing;
                }
            };
            if !header.vary.is_empty() {
                self.variant = key::variant(&self.key.digest, &header.vary, &exchange.head.fields);
                if self.variant != header.variant {
                    if self.secondary {
                        let text = format!("cache file \"{}\" has incorrect vary hash", path.display());
                        exchange.log(Level::Crit, &text);
                        return Found::Nothing;
                    }
                    // Each variant but the first has a file of its own.
                    if cold {
                        let body_start = usize::from(header.body_start);
                        self.zone.found(&self.digest, Facts { uniq: opened.uniq, body_start, fs_size });
                    }
                    self.zone.leave(&self.digest);
                    (self.held, self.secondary, again) = (false, true, false);
                    self.digest = self.variant;
                    continue;
                }
            }
            return self.take(header, opened, fs_size, cold, now);
        }
    }

    /// The file is the answer; is it fresh?
    fn take(&mut self, header: Header, opened: Opened, fs_size: u64, cold: bool, now: i64) -> Found {
        self.validity = header.validity;
        self.last_modified = header.last_modified;
        self.date = header.date;
        self.etag = header.etag;
        self.vary = header.vary;
        self.body_start = usize::from(header.body_start);
        if cold {
            let facts = Facts { uniq: opened.uniq, body_start: self.body_start, fs_size };
            self.zone.found(&self.digest, facts);
        }
        self.opened = Some(opened);
        let Validity { until, updating, error } = self.validity;
        if until >= now {
            return Found::Fresh;
        }
        self.stale_updating = until.saturating_add(updating) >= now;
        self.stale_error = until.saturating_add(error) >= now;
        let turn = self.zone.begin_update(&self.digest);
        self.turn = turn.map(|time| Turn::new(&self.zone, self.digest, time));
        if self.turn.is_some() { Found::Stale } else { Found::Updating }
    }

    /// Hands the task of fetching the answer on to another request for it.
    pub fn give_turn(&mut self) -> Option<Turn> {
        self.turn.take()
    }

    /// Takes over that task.
    pub fn take_turn(&mut self, turn: Turn) {
        self.turn = Some(turn);
    }

    /// Begins to have to do with the key, without having looked for an answer (`ngx_http_file_cache_create`). Whether
    /// there is room for it.
    pub fn create(&mut self, exchange: &Exchange) -> bool {
        let (known, _) =
            self.zone.hold(&self.digest, self.min_uses, self.held, exchange.connection.worker.clock.unix());
        self.held = known != Known::NoRoom;
        self.held
    }

    /// An old answer is fetched anew: what it said of its time does not count for the new one.
    pub fn expire(&mut self) {
        self.validity = Validity::default();
    }

    /// The head of the answer that was found, as its upstream sent it.
    pub fn head(&self) -> BytesMut {
        let start = self.opened.as_ref().map_or(&[][..], |opened| &opened.start);
        start.get(header_start(self.key.text.len())..self.body_start).unwrap_or_default().into()
    }

    /// Which fields of requests the answer that comes depends on.
    pub fn vary(&mut self, vary: Bytes) {
        self.vary = vary;
    }

    /// Where it is, for the log.
    pub fn path(&self) -> PathBuf {
        self.zone.file(&self.digest)
    }

    /// Its body, and how long that is.
    pub fn body(&self) -> (Body, u64) {
        let Some(opened) = &self.opened else { return (Body::Empty, 0) };
        let from = self.body_start as u64;
        let left = opened.length.saturating_sub(from);
        let body = match left {
            0 => Body::Empty,
            _ if opened.start.len() as u64 == opened.length => Body::Bytes(opened.start.slice(self.body_start..)),
            _ => Body::File(FileBody { file: Arc::clone(&opened.file), offset: from, left }),
        };
        (body, left)
    }

    /// The answer is another one now.
    pub fn close(&mut self) {
        self.opened = None;
    }

    /// What a file begins with that holds an answer with this head (`ngx_http_file_cache_set_header`). `None` if there is
    /// no room for its key.
    pub fn begin_file(&mut self, exchange: &Exchange, head: &[u8]) -> Option<Vec<u8>> {
        self.date = exchange.connection.worker.clock.unix();
        self.body_start = header_start(self.key.text.len()) + head.len();
        if !self.vary.is_empty() {
            self.variant = key::variant(&self.key.digest, &self.vary, &exchange.head.fields);
        }
        // A variant that is not the one that was looked for takes the place of the first.
        if self.secondary && (self.vary.is_empty() || self.variant != self.digest) {
            self.zone.leave(&self.digest);
            self.turn = None;
            (self.digest, self.held) = (self.key.digest, false);
            if !self.create(exchange) {
                return None;
            }
        }
        let mut file = self.header().preamble(&self.key);
        file.extend_from_slice(head);
        Some(file)
    }

    fn header(&self) -> Header {
        Header {
            validity: self.validity,
            last_modified: self.last_modified,
            date: self.date,
            crc: self.key.crc,
            header_start: u16::try_from(header_start(self.key.text.len())).unwrap_or(u16::MAX),
            body_start: u16::try_from(self.body_start).unwrap_or(u16::MAX),
            etag: self.etag.clone(),
            vary: self.vary.clone(),
            variant: self.variant,
        }
    }

    /// Whether an answer whose head is so long fits.
    pub fn fits(&self, head: &[u8]) -> bool {
        u16::try_from(header_start(self.key.text.len()) + head.len()).is_ok()
    }

    /// The file beside which a new one is written; `None` where that is in the folder for temporary files.
    pub fn beside(&self) -> Option<PathBuf> {
        (!self.zone.path.use_temp_path).then(|| self.path())
    }

    /// A new file is complete: puts it in its place (`ngx_http_file_cache_update`), or removes it.
    pub fn store(&mut self, from: &Path, file: &File, log: &mut Log) {
        let to = self.path();
        let placing = Placing { access: 0o600, folders: Some(0o700), modified: None };
        let placed = place(log, from.as_os_str().as_bytes(), to.as_os_str().as_bytes(), &placing);
        if placed.is_err() {
            let _ = fs::remove_file(from);
        }
        let facts = placed.ok().and_then(|()| {
            let failed = |error| log.failed(Level::Crit, "fstat()", to.as_os_str().as_bytes(), &error);
            file.metadata().map_err(failed).ok()
        });
        let facts = facts.map(|facts| {
            let tally = self.zone.tally(self.fared);
            tally.responses_written.up();
            tally.bytes_written.add(facts.len());
            Facts { uniq: facts.ino(), body_start: self.body_start, fs_size: facts.blocks() * 512 }
        });
        if std::mem::take(&mut self.held) {
            self.zone.stored(&self.digest, facts.ok_or(self.body_start));
        }
        if let Some(turn) = self.turn.take() {
            turn.end();
        }
    }

    /// The answer that was found holds for longer: says so in its file (`ngx_http_file_cache_update_header`).
    pub fn renew(&mut self, exchange: &Exchange, validity: Validity) {
        self.validity = validity;
        self.date = exchange.connection.worker.clock.unix();
        let path = self.path();
        if let Err(error) = self.rewrite(&path)
            && error.kind() != ErrorKind::NotFound
        {
            exchange.log(Level::Crit, &format!("open() \"{}\" failed ({})", path.display(), errno(&error)));
        }
    }

    /// Writes the fixed part anew, unless there is another answer by now.
    fn rewrite(&self, path: &Path) -> io::Result<()> {
        let Some(opened) = &self.opened else { return Ok(()) };
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        let facts = file.metadata()?;
        if (facts.ino(), facts.len()) != (opened.uniq, opened.length) {
            return Ok(());
        }
        let mut start = [0; super::file::FIXED];
        file.read_exact_at(&mut start, 0)?;
        let (new, Ok(old)) = (self.header(), Header::decode(&start)) else { return Ok(()) };
        let same = |header: &Header| (header.last_modified, header.crc, header.header_start, header.body_start);
        if same(&old) == same(&new) {
            file.write_all_at(&new.encode(), 0)?;
        }
        Ok(())
    }

    /// The answer is an error without a file, given as long as it is valid.
    pub fn keep_error(&mut self, status: u16) {
        self.error = Some(status);
    }

    /// Has nothing more to do with the key.
    pub fn free(&mut self) {
        if std::mem::take(&mut self.held) {
            let error = self.error.map(|status| (status, self.validity.until));
            self.zone.release(&self.digest, error, self.min_uses);
        }
        self.turn = None;
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.free();
    }
}

/// The task of fetching an answer that others wait for or do without. Dropped, it is anyone's again.
#[derive(Debug)]
pub struct Turn {
    /// `None` when it has ended.
    zone: Option<Arc<Zone>>,
    digest: Digest,
    time: u64,
}

impl Turn {
    fn new(zone: &Arc<Zone>, digest: Digest, time: u64) -> Self {
        Self { zone: Some(Arc::clone(zone)), digest, time }
    }

    /// The answer is there.
    fn end(mut self) {
        self.zone = None;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(zone) = &self.zone {
            zone.give_up(&self.digest, self.time);
        }
    }
}

#[cold]
fn unusable(exchange: &Exchange, path: &Path, unfit: Unfit) {
    let level = if unfit == Unfit::Version { Level::Info } else { Level::Crit };
    exchange.log(level, &format!("cache file \"{}\" {unfit}", path.display()));
}

/// Opens a file and reads its beginning, so many bytes at least if it has them; what it takes on the disk.
fn open(path: &Path, at_least: usize) -> io::Result<(Opened, u64)> {
    let file = File::open(path)?;
    let facts = file.metadata()?;
    let length = usize::try_from(facts.len()).unwrap_or(usize::MAX);
    let want = if length <= PIECE { length } else { at_least.min(length) };
    let mut start = Vec::with_capacity(want);
    while start.len() < want {
        let at = start.len() as u64;
        if pread(&file, spare_capacity(&mut start), at)? == 0 {
            break;
        }
    }
    start.truncate(want);
    let opened = Opened { file: Arc::new(file), uniq: facts.ino(), length: facts.len(), start: start.into() };
    Ok((opened, facts.blocks() * 512))
}

#[cfg(test)]
mod tests;
