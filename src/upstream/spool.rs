//! What is kept of an upstream's body until its client takes it: in memory as far as the buffers go, beyond them in a
//! temporary file (`ngx_event_pipe.c`).

use crate::{
    config::values::TempPath,
    http::{
        body::{BodyError, FileBody},
        files::errno,
        temp_files,
    },
    observe::error_log::Level,
};
use bytes::{Bytes, BytesMut};
use std::{fs::File, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

/// How much is kept where. Bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// One of the `_buffers`: less than that is not handed on before the end.
    pub piece: usize,
    /// All `_buffers`.
    pub memory: usize,
    /// `_max_temp_file_size`: of what is written to the file in all.
    pub file: u64,
    /// `_temp_file_write_size`: of what is written at a time.
    pub write: usize,
    /// The answer is written to another file in any case: that this one is there is no news.
    pub aside: bool,
    /// `_temp_path`
    pub folder: TempPath,
}

/// What was read and not handed on: the file comes first, memory behind it.
pub(super) struct Spool {
    bounds: Arc<Bounds>,
    memory: BytesMut,
    file: Option<Overflow>,
    /// How the body has ended, once that was read.
    pub(super) end: Option<Result<(), BodyError>>,
    /// What there is to log.
    pub(super) notes: Vec<(Level, String)>,
}

/// The temporary file. It has no name, so that nothing is left of it when it is closed.
struct Overflow {
    file: Arc<File>,
    path: PathBuf,
    read: u64,
    written: u64,
    /// Nothing can be written to it any more.
    broken: bool,
}

impl Spool {
    pub(super) fn new(bounds: Arc<Bounds>) -> Self {
        Self { bounds, memory: BytesMut::new(), file: None, end: None, notes: Vec::new() }
    }

    /// Nothing is left to be handed on, not even an error.
    pub(super) fn is_empty(&self) -> bool {
        self.in_file() == 0 && self.memory.is_empty() && !matches!(self.end, Some(Err(_)))
    }

    /// Bytes in memory.
    pub(super) fn in_memory(&self) -> usize {
        self.memory.len()
    }

    /// Bytes in the file that were not handed on.
    pub(super) fn in_file(&self) -> u64 {
        self.file.as_ref().map_or(0, |file| file.written - file.read)
    }

    /// Whether more can be kept.
    pub(super) fn has_room(&self) -> bool {
        self.memory.len() < self.bounds.memory || self.allowed() > 0
    }

    /// How much may still be written to the file.
    fn allowed(&self) -> u64 {
        match &self.file {
            Some(file) if file.broken => 0,
            Some(file) => self.bounds.file - file.written.min(self.bounds.file),
            None => self.bounds.file,
        }
    }

    /// Keeps a piece behind everything else.
    pub(super) fn push(&mut self, piece: &[u8]) {
        if self.memory.len() + piece.len() <= self.bounds.memory || self.allowed() == 0 {
            self.memory.extend_from_slice(piece);
            return;
        }
        let memory = std::mem::take(&mut self.memory);
        let written = self.spill(&memory);
        self.memory.extend_from_slice(&memory[written..]);
        // What does not fit any more stays in memory: it was read.
        let written = if self.memory.is_empty() { self.spill(piece) } else { 0 };
        self.memory.extend_from_slice(&piece[written..]);
    }

    /// Takes the next piece, from the file or all of the memory. `None` if there is nothing.
    pub(super) fn pop(&mut self) -> Option<Result<Bytes, BodyError>> {
        if self.in_file() > 0
            && let Some(file) = &mut self.file
        {
            let mut rest = FileBody { file: Arc::clone(&file.file), offset: file.read, left: file.written - file.read };
            let piece = rest.take_piece();
            file.read = rest.offset;
            return piece;
        }
        (!self.memory.is_empty()).then(|| Ok(std::mem::take(&mut self.memory).freeze()))
    }

    /// Writes to the file as much as it may hold; how much that was.
    fn spill(&mut self, bytes: &[u8]) -> usize {
        let allowed = usize::try_from(self.allowed()).unwrap_or(usize::MAX).min(bytes.len());
        if self.file.is_none() {
            match temp_files::create_unnamed(&self.bounds.folder) {
                Ok((file, path)) => {
                    let text = "an upstream response is buffered to a temporary file";
                    if !self.bounds.aside {
                        self.notes.push((Level::Warn, format!("{text} {} while reading upstream", path.display())));
                    }
                    self.file = Some(Overflow { file: Arc::new(file), path, read: 0, written: 0, broken: false });
                }
                Err(error) => {
                    self.notes.push((Level::Crit, format!("{error} while reading upstream")));
                    // Then memory has to do.
                    Arc::make_mut(&mut self.bounds).file = 0;
                }
            }
        }
        let Some(file) = &mut self.file else { return 0 };
        let mut written = 0;
        for part in bytes[..allowed].chunks(self.bounds.write.max(1)) {
            match file.file.write_all_at(part, file.written) {
                Ok(()) => {
                    file.written += part.len() as u64;
                    written += part.len();
                }
                Err(error) => {
                    file.broken = true;
                    let text = format!("pwrite() \"{}\" failed ({})", file.path.display(), errno(&error));
                    self.notes.push((Level::Crit, format!("{text} while reading upstream")));
                    break;
                }
            }
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(folder: &std::path::Path, file: u64) -> Arc<Bounds> {
        let folder = TempPath { path: folder.to_owned(), levels: vec![1, 2], built_in: false };
        Arc::new(Bounds { piece: 4, memory: 10, file, write: 3, aside: false, folder })
    }

    fn all(spool: &mut Spool) -> String {
        let mut out = Vec::new();
        while let Some(piece) = spool.pop() {
            out.extend_from_slice(&piece.unwrap());
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_kept_comes_out_in_order_wherever_it_was() {
        let folder = tempfile::tempdir().unwrap();
        for file in [0, 1, 5, 12, 1000] {
            let mut spool = Spool::new(bounds(folder.path(), file));
            let (mut kept, mut taken) = (String::new(), String::new());
            for round in 0..20 {
                let piece = format!("{round:03}|");
                spool.push(piece.as_bytes());
                kept += &piece;
                if round % 5 == 0 {
                    taken += std::str::from_utf8(&spool.pop().unwrap().unwrap()).unwrap();
                }
            }
            assert_eq!(taken + &all(&mut spool), kept, "{file}");
            assert!(spool.is_empty());
        }
    }

    #[test]
    fn memory_comes_first_then_the_file_then_nothing_more_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(bounds(folder.path(), 12));
        spool.push(b"0123456789");
        assert!(spool.has_room() && spool.notes.is_empty());
        spool.push(b"abc");
        assert_eq!((spool.in_file(), spool.in_memory(), spool.has_room()), (12, 1, true));
        spool.push(b"defghijkl");
        assert_eq!((spool.in_file(), spool.in_memory(), spool.has_room()), (12, 10, false));
        let (level, text) = &spool.notes[0];
        let place = folder.path().display();
        let start = format!("an upstream response is buffered to a temporary file {place}/");
        assert!(
            *level == Level::Warn && text.starts_with(&start) && text.ends_with(" while reading upstream"),
            "{text}"
        );
        assert_eq!(spool.notes.len(), 1);
        assert_eq!(all(&mut spool), "0123456789abcdefghijkl");
        // The file is not written to a second time.
        spool.push(b"0123456789");
        assert!(!spool.has_room());
    }

    #[test]
    fn without_a_place_for_a_file_memory_has_to_do() {
        let mut spool = Spool::new(bounds("/dev/null/x".as_ref(), 1000));
        spool.push(b"0123456789");
        spool.push(b"more");
        assert!(!spool.has_room());
        assert!(spool.notes[0].1.starts_with("open() \"/dev/null/x/"), "{:?}", spool.notes);
        assert_eq!(all(&mut spool), "0123456789more");
    }
}
