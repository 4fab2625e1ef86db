//! Bytes on their way to a connection, in pieces, so that one write takes many of them.

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use std::io::IoSlice;

/// Pieces handed to one write at most. A piece of a body may be three with what frames it.
const SLICES: usize = 8;

/// What waits to be written.
pub struct Queue(SmallVec<[Bytes; SLICES]>);

impl Queue {
    /// A head, which may be empty.
    pub fn new(head: Bytes) -> Self {
        let mut queue = Self(SmallVec::new());
        if !head.is_empty() {
            queue.push(head);
        }
        queue
    }

    /// Puts a piece behind the others.
    pub fn push(&mut self, piece: Bytes) {
        self.0.push(piece);
    }

    /// The same in the chunked coding, sizes as nginx writes them (RFC 9112, section 7.1). The piece is not empty.
    pub fn push_chunk(&mut self, piece: Bytes) {
        self.push(format!("{:x}\r\n", piece.len()).into());
        self.push(piece);
        self.push(Bytes::from_static(b"\r\n"));
    }

    /// The end of that coding, with the lines of trailer fields in it.
    pub fn push_last_chunk(&mut self, trailers: &[u8]) {
        self.push(match trailers.is_empty() {
            true => Bytes::from_static(b"0\r\n\r\n"),
            false => [b"0\r\n", trailers, b"\r\n"].concat().into(),
        });
    }

    /// Puts something in front of everything.
    pub fn put_first(&mut self, piece: Bytes) {
        self.0.insert(0, piece);
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one write takes another piece of a body along.
    pub fn has_room(&self) -> bool {
        self.0.len() + 3 <= SLICES
    }

    /// How many bytes wait.
    pub fn length(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Shows what waits to a write, no more than `limit` bytes of it.
    pub fn slices<T>(&self, limit: u64, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let mut left = usize::try_from(limit).unwrap_or(usize::MAX);
        if let [only] = &self.0[..] {
            return write(&[IoSlice::new(&only[..only.len().min(left)])]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut filled = 0;
        for (slice, part) in slices.iter_mut().zip(&self.0) {
            if left == 0 {
                break;
            }
            let part = &part[..part.len().min(left)];
            left -= part.len();
            *slice = IoSlice::new(part);
            filled += 1;
        }
        write(&slices[..filled])
    }

    /// So much of it was written.
    pub fn advance(&mut self, mut n: usize) {
        let mut whole = 0;
        for part in &mut self.0 {
            if n < part.len() {
                part.advance(n);
                break;
            }
            n -= part.len();
            whole += 1;
        }
        match whole == self.0.len() {
            true => self.0.clear(),
            false => drop(self.0.drain(..whole)),
        }
    }
}
