//! `buffer=`, `flush=` and `gzip=` of `access_log`: lines that wait in memory to be written together.

use crate::observe::LogSlot;
use flate2::{Compression, write::GzEncoder};
use std::{cell::RefCell, io::Write, sync::Arc, time::Duration};
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
    static BUFFERS: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// The lines of one file that this thread has not yet written. Nobody else owns the file of a configuration that is
/// gone.
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
    BUFFERS.with_borrow_mut(|buffers| {
        let at = buffers.iter().position(|buffer| Arc::ptr_eq(&buffer.file, file)).unwrap_or_else(|| {
            buffers.push(Buffer {
                file: Arc::clone(file),
                how,
                lines: Vec::with_capacity(how.size),
                due: None,
                watched: false,
            });
            buffers.len() - 1
        });
        buffers[at].add(line);
    });
}

/// Writes all that waits on this thread. For the end of a worker, and before log files are reopened.
pub fn flush_all() {
    BUFFERS.with_borrow_mut(|buffers| buffers.iter_mut().for_each(Buffer::flush));
}

/// Writes what waits on this thread and is due, and forgets the files of configurations that are gone. A worker
/// calls it now and then; lines with a `flush=` are written in time without it.
pub fn flush_due() {
    let now = Instant::now();
    BUFFERS.with_borrow_mut(|buffers| {
        buffers.retain(|buffer| Arc::strong_count(&buffer.file) > 1);
        let due = |buffer: &&mut Buffer| buffer.due.is_some_and(|due| due <= now);
        buffers.iter_mut().filter(due).for_each(Buffer::flush);
    });
}

impl Buffer {
    fn add(&mut self, line: &[u8]) {
        if self.lines.len() + line.len() > self.how.size {
            self.flush();
        }
        if line.len() > self.how.size {
            self.put(line);
            return;
        }
        if self.lines.is_empty() {
            self.watch();
        }
        self.lines.extend_from_slice(line);
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

    /// Sees to it that the lines are written in time. A thread has one runtime that stays on it.
    fn watch(&mut self) {
        let Some(flush) = self.how.flush else { return };
        self.due = Some(Instant::now() + flush);
        if !self.watched
            && let Ok(runtime) = runtime::Handle::try_current()
        {
            self.watched = true;
            runtime.spawn(wait(Arc::clone(&self.file)));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Writes the lines of a file when their time has come.
async fn wait(file: Arc<LogSlot>) {
    while let Some(due) = overdue(&file) {
        tokio::time::sleep_until(due).await;
    }
}

/// Writes the lines if they are due; else the time when they will be.
fn overdue(file: &Arc<LogSlot>) -> Option<Instant> {
    BUFFERS.with_borrow_mut(|buffers| {
        let buffer = buffers.iter_mut().find(|buffer| Arc::ptr_eq(&buffer.file, file))?;
        let later = buffer.due.filter(|due| *due > Instant::now());
        if later.is_none() {
            buffer.flush();
            buffer.watched = false;
        }
        later
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::LogFile;
    use std::{fs::File, io::Read};

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
        let (file, slot) = slot();
        std::thread::spawn(move || write(&slot, TEN, b"last\n")).join().unwrap();
        assert_eq!(text(&file), "last\n");
    }

    #[test]
    fn lines_are_written_when_their_time_has_come() {
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
