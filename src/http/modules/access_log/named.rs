//! Logs whose names have variables in them: opened when there is a line to write, and kept open for a while where
//! `open_log_file_cache` says so.

use crate::{
    config::{
        Args, FromArgs,
        values::{parse_number, parse_time},
    },
    http::{exchange::Exchange, files},
    lock,
    observe::error_log::Level,
    syntax::Fault,
};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    ops::RangeInclusive,
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Appends a line to the log of that name (`ngx_http_log_script_write`). The folder of the location must be there:
/// a request for a site that does not exist shall not make a log for it.
pub(super) fn write(exchange: &Exchange, cache: Option<&Cache>, name: &[u8], line: &[u8]) {
    if files::path(exchange, &exchange.path).is_none() {
        return;
    }
    let root = files::root(exchange);
    let missing = match files::stat_allowed(exchange, &root) {
        Ok(found) if found.is_dir() => None,
        Ok(_) => Some(io::Error::from_raw_os_error(libc::ENOTDIR)),
        Err(failed) => Some(failed.error),
    };
    if let Some(error) = missing {
        let root = String::from_utf8_lossy(&root);
        return exchange.log(Level::Err, &format!("testing \"{root}\" existence failed ({})", files::errno(&error)));
    }
    let file = match cache {
        None => files::append_allowed(exchange, name).map(Arc::new),
        Some(cache) => cache.open(name, Instant::now(), &|name| files::append_allowed(exchange, name)),
    };
    match file {
        // A log that cannot be written has nobody left to tell.
        Ok(file) => _ = (&*file).write_all(line),
        Err(failed) => exchange.log(Level::Crit, &failed.text(name)),
    }
}

/// `open_log_file_cache`: which logs stay open.
#[derive(Debug)]
pub(super) struct Cache {
    /// Files at a time.
    max: usize,
    /// How long one is kept that nobody writes to.
    inactive: Duration,
    /// How often it is wanted within that time before it is kept open.
    min_uses: u64,
    /// How often it is looked whether its name still leads to it.
    valid: Duration,
    entries: Mutex<HashMap<Vec<u8>, Entry>>,
}

#[derive(Debug)]
struct Entry {
    file: Option<Arc<File>>,
    uses: u64,
    used: Instant,
    checked: Instant,
}

impl Cache {
    fn open<E>(&self, name: &[u8], now: Instant, append: &dyn Fn(&[u8]) -> Result<File, E>) -> Result<Arc<File>, E> {
        // Nothing is left half done by a thread that panics here.
        let mut entries = lock(&self.entries);
        entries.retain(|_, entry| now.duration_since(entry.used) < self.inactive);
        if let Some(entry) = entries.get_mut(name) {
            entry.uses += 1;
            entry.used = now;
            if let Some(file) = &entry.file {
                if now.duration_since(entry.checked) < self.valid || leads_to(name, file) {
                    return Ok(Arc::clone(file));
                }
                entry.file = None;
            }
            let file = Arc::new(append(name)?);
            entry.checked = now;
            entry.file = (entry.uses >= self.min_uses).then(|| Arc::clone(&file));
            return Ok(file);
        }
        let file = Arc::new(append(name)?);
        if entries.len() >= self.max {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.used).map(|(name, _)| name.clone());
            oldest.map(|oldest| entries.remove(&oldest));
        }
        let kept = (self.min_uses <= 1).then(|| Arc::clone(&file));
        entries.insert(name.to_vec(), Entry { file: kept, uses: 1, used: now, checked: now });
        Ok(file)
    }
}

/// Whether a name still is that of an open file.
fn leads_to(name: &[u8], file: &File) -> bool {
    let identity = |found: io::Result<std::fs::Metadata>| found.ok().map(|found| (found.dev(), found.ino()));
    let here = identity(file.metadata());
    here.is_some() && here == identity(files::stat(name))
}

/// The value of `open_log_file_cache`; `None` is `off`.
#[derive(Clone, Debug, Default)]
pub(super) struct Caching(pub(super) Option<Arc<Cache>>);

impl FromArgs for Caching {
    const TAKES: RangeInclusive<usize> = 1..=4;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let (mut max, mut inactive, mut min_uses, mut valid) = (0, 10, 1, 60);
        let mut off = false;
        for word in args.words() {
            let value = &word.value[..];
            let known = if let Some(number) = value.strip_prefix(b"max=") {
                parse_number(number).map(|number| max = number)
            } else if let Some(time) = value.strip_prefix(b"inactive=") {
                parse_time(time, false).map(|time| inactive = time)
            } else if let Some(number) = value.strip_prefix(b"min_uses=") {
                parse_number(number).map(|number| min_uses = number)
            } else if let Some(time) = value.strip_prefix(b"valid=") {
                parse_time(time, false).map(|time| valid = time)
            } else {
                (value == b"off").then(|| off = true)
            };
            if known.is_none() {
                let text = [b"invalid \"open_log_file_cache\" parameter \"", value, b"\""].concat();
                return Err(Fault::at(word.span, text));
            }
        }
        if off {
            return Ok(Self(None));
        }
        if max == 0 {
            let text = "\"open_log_file_cache\" must have \"max\" parameter";
            return Err(Fault::at(args.statement.name.span, text));
        }
        Ok(Self(Some(Arc::new(Cache {
            max,
            inactive: Duration::from_secs(inactive),
            min_uses: min_uses as u64,
            valid: Duration::from_secs(valid),
            entries: Mutex::default(),
        }))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::fault;
    use std::os::unix::ffi::OsStrExt;

    fn cache(max: usize, min_uses: u64) -> Cache {
        let (inactive, valid) = (Duration::from_secs(20), Duration::from_secs(60));
        Cache { max, inactive, min_uses, valid, entries: Mutex::default() }
    }

    #[test]
    fn logs_that_are_used_often_stay_open_while_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        let name = |file: &str| inside.join(file).as_os_str().as_bytes().to_vec();
        let (cache, start) = (cache(3, 2), Instant::now());
        let wanted = ["oldest", "oldest", "once", "first", "first", "second", "second"];
        for (at, file) in wanted.into_iter().enumerate() {
            cache.open(&name(file), start + Duration::from_millis(at as u64), &files::append).unwrap();
        }
        std::fs::rename(&inside, folder.path().join("moved")).unwrap();
        let later = start + Duration::from_secs(1);
        let open = |file: &str| cache.open(&name(file), later, &files::append).is_ok();
        assert_eq!(["oldest", "once", "first", "second"].map(open), [false, false, true, true]);
        assert!(
            cache.open(&name("first"), start + Duration::from_secs(22), &files::append).is_err(),
            "forgotten in the meantime"
        );
    }

    #[test]
    fn a_log_that_was_moved_away_is_opened_anew_when_it_is_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("log").as_os_str().as_bytes().to_vec();
        let (cache, start) = (Cache { inactive: Duration::from_secs(100), ..cache(1, 1) }, Instant::now());
        let inode = |after: u64| {
            let file = cache.open(&name, start + Duration::from_secs(after), &files::append).unwrap();
            file.metadata().unwrap().ino()
        };
        let first = inode(0);
        std::fs::rename(folder.path().join("log"), folder.path().join("log.1")).unwrap();
        assert_eq!(inode(59), first);
        assert_ne!(inode(61), first);
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        for (text, message) in [
            ("open_log_file_cache max=x;", "invalid \"open_log_file_cache\" parameter \"max=x\""),
            ("open_log_file_cache max=1 size=2;", "invalid \"open_log_file_cache\" parameter \"size=2\""),
            ("open_log_file_cache inactive=1m;", "\"open_log_file_cache\" must have \"max\" parameter"),
            ("access_log a$uri combined buffer=4k;", "buffered logs cannot have variables in name"),
        ] {
            assert_eq!(fault(text), message, "{text}");
        }
    }
}
