//! `buffer=`, `flush=` and `gzip=` of `access_log`: lines that wait in memory to be written together.

use crate::{lock, observe::LogSlot};
use flate2::{Compression, write::GzEncoder};
use std::{
    cell::RefCell,
    io::Write,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};
use tokio::{runtime, time::Instant};

/// How a log is buffered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffering {
    /// In bytes.
    pub size: usize,
    /// The longest a line waits.
    pub flush: Option<Duration>,
    /// The level of compression of each piece written.
    pub gzip: Option<u32>,
}

thread_local! {
    /// What this thread buffers.
    static OWN: RefCell<Vec<(Key, Shared)>> = const { RefCell::new(Vec::new()) };
}

/// The buffers of all threads.
static ALL: Mutex<Vec<(Key, Weak<Mutex<Buffer>>)>> = Mutex::new(Vec::new());

/// Where a file's slot is in memory: its buffers own it, so no other slot comes to the same place meanwhile.
type Key = usize;

/// A thread has its buffers for itself but for the moments when all are written, so its lock is free.
type Shared = Arc<Mutex<Buffer>>;

/// The lines of one file that one thread has not yet written.
struct Buffer {
    file: Arc<LogSlot>,
    how: Buffering,
    lines: Vec<u8>,
    /// When the first of the lines is to be written at the latest.
    due: Option<Instant>,
    /// Somebody waits for that time.
    watched: bool,
}

/// Adds a line to this thread's buffer of a file.
pub(super) fn write(file: &Arc<LogSlot>, how: Buffering, line: &[u8]) {
    OWN.with_borrow_mut(|own| {
        let key = Arc::as_ptr(file).addr();
        let at = own.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
            own.push((key, Buffer::shared(key, file, how)));
            own.len() - 1
        });
        let buffer = &own[at].1;
        if lock(buffer).add(line) {
            watch(buffer);
        }
    });
}

/// Writes all that waits, whichever thread it belongs to. For reloads, for the end of the process, and before log
/// files are reopened.
pub fn flush_all() {
    // Nobody waits for a buffer while holding the list, as others wait for the list while holding a buffer.
    let all: Vec<Shared> = lock(&ALL).iter().filter_map(|(_, buffer)| buffer.upgrade()).collect();
    for buffer in all {
        lock(&buffer).flush();
    }
}

/// Writes what waits on this thread and is due, and forgets the files of configurations that are gone. A worker
/// calls it now and then; lines with a `flush=` are written in time without it.
pub fn flush_due() {
    OWN.with_borrow_mut(|own| {
        own.retain(|(key, buffer)| {
            let mut buffer = lock(buffer);
            buffer.flush_if_due();
            Arc::strong_count(&buffer.file) > buffers_of(*key)
        });
    });
}

/// How many threads buffer a file. Nobody else owns it when no configuration has it any more.
fn buffers_of(key: Key) -> usize {
    lock(&ALL).iter().filter(|(known, buffer)| *known == key && buffer.strong_count() > 0).count()
}

/// Sees to it that the lines are written in time. A thread has one runtime.
fn watch(buffer: &Shared) {
    if let Ok(runtime) = runtime::Handle::try_current() {
        lock(buffer).watched = true;
        runtime.spawn(wait(Arc::downgrade(buffer)));
    }
}

/// Writes the lines of a buffer when their time has come.
async fn wait(buffer: Weak<Mutex<Buffer>>) {
    while let Some(due) = buffer.upgrade().and_then(|buffer| lock(&buffer).watched()) {
        tokio::time::sleep_until(due).await;
    }
}

impl Buffer {
    fn shared(key: Key, file: &Arc<LogSlot>, how: Buffering) -> Shared {
        let lines = Vec::with_capacity(how.size);
        let buffer = Self { file: Arc::clone(file), how, lines, due: None, watched: false };
        let shared = Arc::new(Mutex::new(buffer));
        let mut all = lock(&ALL);
        all.retain(|(_, buffer)| buffer.strong_count() > 0);
        all.push((key, Arc::downgrade(&shared)));
        shared
    }

    /// Adds a line; whether somebody must wait for the time it is due.
    fn add(&mut self, line: &[u8]) -> bool {
        if self.lines.len() + line.len() > self.how.size {
            self.flush();
        }
        if line.len() > self.how.size {
            self.put(line);
            return false;
        }
        if self.lines.is_empty() {
            self.due = self.how.flush.map(|flush| Instant::now() + flush);
        }
        self.lines.extend_from_slice(line);
        self.due.is_some() && !self.watched
    }

    /// Writes the lines if they are due; else the time when they will be.
    fn flush_if_due(&mut self) -> Option<Instant> {
        let due = self.due?;
        if due > Instant::now() {
            return Some(due);
        }
        self.flush();
        None
    }

    /// The same, for the one who waits.
    fn watched(&mut self) -> Option<Instant> {
        let later = self.flush_if_due();
        self.watched = later.is_some();
        later
    }

    fn flush(&mut self) {
        if !self.lines.is_empty() {
            let lines = std::mem::take(&mut self.lines);
            self.put(&lines);
            self.lines = lines;
            self.lines.clear();
        }
        self.due = None;
    }

    fn put(&self, lines: &[u8]) {
        let Some(level) = self.how.gzip else { return self.file.write(lines) };
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
        // Writing into memory does not fail.
        if encoder.write_all(lines).is_ok()
            && let Ok(packed) = encoder.finish()
        {
            self.file.write(&packed);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::LogFile;
    use std::{fs::File, io::Read};

    /// `flush_all` means the buffers of all threads, of other tests too.
    static ALONE: Mutex<()> = Mutex::new(());

    fn slot() -> (tempfile::NamedTempFile, Arc<LogSlot>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let slot = LogSlot::new(b"log");
        let open = File::options().append(true).open(file.path()).unwrap();
        slot.attach(Arc::new(LogFile::new("log".into(), open)));
        (file, Arc::new(slot))
    }

    fn text(file: &tempfile::NamedTempFile) -> String {
        std::fs::read_to_string(file.path()).unwrap()
    }

    const TEN: Buffering = Buffering { size: 10, flush: None, gzip: None };

    #[test]
    fn lines_wait_until_the_next_one_does_not_fit() {
        let _alone = lock(&ALONE);
        let (file, slot) = slot();
        for line in ["one\n", "two\n", "three\n", "much too long\n", "four\n"] {
            write(&slot, TEN, line.as_bytes());
        }
        assert_eq!(text(&file), "one\ntwo\nthree\nmuch too long\n");
        flush_all();
        assert_eq!(text(&file), "one\ntwo\nthree\nmuch too long\nfour\n");
    }

    #[test]
    fn lines_of_a_thread_that_ends_are_written() {
        let _alone = lock(&ALONE);
        let (file, slot) = slot();
        std::thread::spawn(move || write(&slot, TEN, b"last\n")).join().unwrap();
        assert_eq!(text(&file), "last\n");
    }

    #[test]
    fn lines_are_written_when_their_time_has_come() {
        let _alone = lock(&ALONE);
        let (file, slot) = slot();
        let runtime = runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let how = Buffering { flush: Some(Duration::from_millis(5)), ..TEN };
            write(&slot, how, b"one\n");
            assert_eq!(text(&file), "");
            while text(&file).is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert_eq!(text(&file), "one\n");
    }

    #[test]
    fn each_piece_is_compressed_on_its_own() {
        let _alone = lock(&ALONE);
        let (file, slot) = slot();
        let how = Buffering { gzip: Some(1), ..TEN };
        write(&slot, how, b"one\n");
        flush_all();
        write(&slot, how, b"two\n");
        flush_all();
        let mut unpacked = String::new();
        flate2::read::MultiGzDecoder::new(File::open(file.path()).unwrap()).read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, "one\ntwo\n");
    }
}
