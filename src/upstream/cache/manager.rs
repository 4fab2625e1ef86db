//! Who looks after the files of a cache: one thread that removes those that nobody asks for or that are too many, and one
//! that learns which are there when the server starts (nginx's cache manager and cache loader).

use super::{
    file::FIXED,
    key::{self, Digest},
    settings::Steps,
    zone::{Out, Shared, Zone},
};
use crate::{
    http::{Http, clock::wall, files::errno},
    observe::error_log::Level,
};
use std::{
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// A generation is about to serve: its caches are looked after as it says from now on.
pub fn begin(http: &Arc<Http>) {
    for zone in http.caches() {
        if !zone.serve(Arc::downgrade(http)) {
            continue;
        }
        let (managed, loaded) = (Arc::downgrade(zone.shared()), Arc::downgrade(zone.shared()));
        let managing = thread::Builder::new().name("cache manager".into()).spawn(move || manage(&managed));
        let loading = thread::Builder::new().name("cache loader".into()).spawn(move || load(&loaded));
        for error in [managing.err(), loading.err()].into_iter().flatten() {
            http.log(Level::Alert, &format!("thread for a cache failed ({})", errno(&error)));
        }
    }
}

fn now() -> u64 {
    wall().as_secs()
}

/// Manages the files until no configuration has the cache any more.
fn manage(shared: &Weak<Shared>) {
    while let Some(next) = shared.upgrade().and_then(|shared| {
        let (zone, http) = shared.serving()?;
        Some(step(&zone, &http))
    }) {
        thread::park_timeout(next);
    }
}

/// Removes what is due, so many files at a time; when to go on (`ngx_http_file_cache_manager`).
fn step(zone: &Zone, http: &Http) -> Duration {
    let mut pace = Pace::new(zone.path.manager);
    let next = loop {
        match zone.expire_one(now()) {
            Out::Delete(digest) => remove(zone, &digest, http),
            Out::Forgotten => {}
            Out::Held(digest, count) => {
                let name = key::hexadecimal(&digest);
                let text = format!("ignore long locked inactive cache entry {name}, count:{count}");
                http.log(Level::Alert, &text);
            }
            Out::Wait(seconds) => break Duration::from_secs(seconds),
        }
        if pace.is_spent() {
            return zone.path.manager.sleep;
        }
    };
    while zone.is_over() || zone.path.min_free > 0 && free(&zone.path.folder) <= zone.path.min_free {
        match zone.force_one(now()) {
            Out::Delete(digest) => remove(zone, &digest, http),
            Out::Forgotten | Out::Held(..) => {}
            Out::Wait(seconds) => return Duration::from_secs(seconds),
        }
        if pace.is_spent() {
            return zone.path.manager.sleep;
        }
    }
    next
}

/// What may still be written to a file system. Bytes; all there is if it does not say.
fn free(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(u64::MAX, |facts| facts.f_bavail.saturating_mul(facts.f_frsize))
}

/// Removes a file that was taken, whoever asks.
pub(super) fn delete(zone: &Zone, digest: &Digest) {
    match zone.shared().serving() {
        Some((_, http)) => remove(zone, digest, &http),
        None => {
            let _ = fs::remove_file(zone.file(digest));
            zone.deleted(digest);
        }
    }
}

fn remove(zone: &Zone, digest: &Digest, http: &Http) {
    let path = zone.file(digest);
    unlink(&path, http);
    zone.deleted(digest);
}

fn unlink(path: &Path, http: &Http) {
    if let Err(error) = fs::remove_file(path) {
        http.log(Level::Crit, &format!("unlink() \"{}\" failed ({})", path.display(), errno(&error)));
    }
}

/// How much is done before others have their turn.
struct Pace {
    steps: Steps,
    began: Instant,
    files: usize,
}

impl Pace {
    fn new(steps: Steps) -> Self {
        Self { steps, began: Instant::now(), files: 0 }
    }

    /// One file more is done; whether that is enough.
    fn is_spent(&mut self) -> bool {
        self.files += 1;
        self.files >= self.steps.files || self.began.elapsed() >= self.steps.threshold
    }
}

/// Learns what files there are (`ngx_http_file_cache_loader`).
fn load(shared: &Weak<Shared>) {
    let Some((zone, http)) = shared.upgrade().and_then(|shared| shared.serving()) else { return };
    let (folder, steps) = (zone.path.folder.clone(), zone.path.loader);
    drop((zone, http));
    let (mut pace, mut told) = (Pace::new(steps), 0);
    walk(&folder, &mut |path, facts| {
        let Some((zone, http)) = shared.upgrade().and_then(|shared| shared.serving()) else { return false };
        match facts {
            Ok(facts) if know(&zone, &http, path, facts, &mut told) => {}
            Ok(_) => unlink(path, &http),
            // The others are known all the same.
            Err(error) => {
                http.log(Level::Crit, &format!("opendir() \"{}\" failed ({})", path.display(), errno(&error)));
            }
        }
        drop((zone, http));
        if pace.is_spent() {
            thread::park_timeout(steps.sleep);
            pace = Pace::new(steps);
        }
        true
    });
    let Some(shared) = shared.upgrade() else { return };
    let Some((zone, http)) = shared.serving() else { return };
    shared.cold.store(false, Relaxed);
    let block = rustix::fs::statvfs(&folder).map_or(512, |facts| facts.f_bsize);
    let size = zone.size().0;
    let (whole, rest) = (size >> 20, ((size & 0xf_ffff) * 1000) >> 20);
    http.log(Level::Notice, &format!("http file cache: {} {whole}.{rest:03}M, bsize: {block}", folder.display()));
}

/// Goes through all files below a folder but those in folders for temporary ones, until it is told to stop; tells of
/// folders that cannot be read, too.
fn walk(folder: &Path, each: &mut impl FnMut(&Path, io::Result<&fs::Metadata>) -> bool) -> bool {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return each(folder, Err(error)),
    };
    entries.flatten().all(|entry| {
        let path = entry.path();
        // It may be gone by now.
        let Ok(facts) = fs::symlink_metadata(&path) else { return true };
        match facts.is_dir() {
            true if path.file_name().is_some_and(|name| name == "temp") => true,
            true => walk(&path, each),
            false => each(&path, Ok(&facts)),
        }
    })
}

/// Takes note of a file; `false` if it is none of the cache's (`ngx_http_file_cache_add_file`). `told` is the
/// second in which a full zone was logged.
fn know(zone: &Zone, http: &Http, path: &Path, facts: &fs::Metadata, told: &mut u64) -> bool {
    let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
    if !facts.is_file() || name.len() < 32 {
        return false;
    }
    // On its way to its place.
    if name.len() >= 32 + 11 && name[name.len() - 11] == b'.' {
        return true;
    }
    if facts.len() < FIXED as u64 {
        http.log(Level::Crit, &format!("cache file \"{}\" is too small", path.display()));
        return false;
    }
    let Some(digest) = key::of_name(name) else { return false };
    let known = zone.add(&digest, facts.blocks() * 512, now());
    if !known && std::mem::replace(told, now()) != now() {
        http.log(Level::Alert, &zone.full());
    }
    known
}
