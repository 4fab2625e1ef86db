//! A body that is compressed while it is sent.

use crate::http::body::{Body, BodyError};
use bytes::{Buf, Bytes};
use flate2::{Compress, Compression, FlushCompress, Status};
use std::{
    cell::Cell,
    io,
    rc::Rc,
    task::{Context, Poll},
};

/// How much compressed data is handed on at once. What is inside stays in the compressor until asked for, so this
/// bounds the memory of a body together with zlib's own 256 KB.
const PIECE: usize = 16 << 10;

/// The lengths of an answer before and after, known when it has been compressed whole.
#[derive(Debug, Default)]
pub(super) struct Lengths(Cell<Option<(u64, u64)>>);

impl Lengths {
    pub(super) fn get(&self) -> Option<(u64, u64)> {
        self.0.get()
    }
}

/// Another body, compressed (`ngx_http_gzip_body_filter`).
pub struct GzipBody {
    inner: Body,
    compress: Compress,
    /// Taken from the inner body and not yet compressed.
    input: Bytes,
    output: Vec<u8>,
    stage: Stage,
    lengths: Rc<Lengths>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// All that was compressed has been handed on.
    Flushed,
    /// The compressor may hold something back.
    Dirty,
    /// The inner body is waiting: the compressor is to give what it has.
    Flushing,
    /// The inner body has ended.
    Finishing,
    Done,
}

impl GzipBody {
    /// A body of a length, if it is known, compressed at a level from 1 to 9.
    pub fn new(inner: Body, level: u32, length: Option<u64>) -> Self {
        // zlib-rs packs at level 1 a quarter looser than zlib; at level 2 it is tighter than that, and still faster.
        let compress = Compress::new_gzip(Compression::new(level.max(2)), window_bits(length));
        let (output, lengths) = (Vec::new(), Rc::default());
        Self { inner, compress, input: Bytes::new(), output, stage: Stage::Flushed, lengths }
    }

    /// The body that is compressed.
    pub fn inner(&self) -> &Body {
        &self.inner
    }

    pub(super) fn lengths(&self) -> Rc<Lengths> {
        Rc::clone(&self.lengths)
    }

    /// The next piece of compressed data; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            let full = match self.stage {
                _ if !self.input.is_empty() => {
                    self.stage = Stage::Dirty;
                    self.run(FlushCompress::None)
                }
                Stage::Flushed | Stage::Dirty => match self.inner.poll_next(cx) {
                    Poll::Ready(Some(Ok(piece))) => {
                        self.input = piece;
                        continue;
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                    Poll::Ready(None) => {
                        self.stage = Stage::Finishing;
                        continue;
                    }
                    Poll::Pending if self.stage == Stage::Flushed => return Poll::Pending,
                    Poll::Pending => {
                        self.stage = Stage::Flushing;
                        continue;
                    }
                },
                Stage::Flushing => self.run(FlushCompress::Sync).inspect(|full| {
                    if !full {
                        self.stage = Stage::Flushed;
                    }
                }),
                Stage::Finishing => self.run(FlushCompress::Finish),
                Stage::Done => return Poll::Ready(None),
            };
            let full = match full {
                Ok(full) => full,
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            };
            // What was flushed goes out at once, the rest when it is worth it.
            if full || matches!(self.stage, Stage::Flushed | Stage::Done) && !self.output.is_empty() {
                return Poll::Ready(Some(Ok(std::mem::take(&mut self.output).into())));
            }
        }
    }

    /// Lets the compressor work until its input or its room is used up; whether the room was.
    fn run(&mut self, flush: FlushCompress) -> io::Result<bool> {
        self.output.reserve_exact(PIECE - self.output.len());
        let before = self.compress.total_in();
        let status = self.compress.compress_vec(&self.input, &mut self.output, flush).map_err(io::Error::other)?;
        let taken = usize::try_from(self.compress.total_in() - before).unwrap_or(self.input.len());
        self.input.advance(taken);
        if status == Status::StreamEnd {
            self.stage = Stage::Done;
            self.lengths.0.set(Some((self.compress.total_in(), self.compress.total_out())));
        }
        Ok(self.output.len() == self.output.capacity())
    }
}

/// No larger than the body needs (`ngx_http_gzip_filter_memory`).
fn window_bits(length: Option<u64>) -> u8 {
    let length = length.unwrap_or(u64::MAX).saturating_add(262);
    (10..=15).find(|bits| length <= 1 << bits).unwrap_or(15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read, task::Waker};

    /// All pieces of a body, and what they unpack to.
    fn drain(body: &mut GzipBody) -> (Vec<Bytes>, Vec<u8>) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut pieces = Vec::new();
        while let Poll::Ready(Some(piece)) = body.poll_next(&mut cx) {
            pieces.push(piece.unwrap());
        }
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&pieces.concat()[..]).read_to_end(&mut plain).unwrap();
        (pieces, plain)
    }

    /// Bytes that do not compress well.
    fn noise(length: usize) -> Bytes {
        let mut state = 1_u32;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..length).map(next).collect()
    }

    #[test]
    fn a_body_comes_out_as_it_was() {
        for (length, level) in [(0, 1), (1, 1), (1000, 6), (16 << 10, 1), (300_000, 1), (300_000, 9)] {
            let plain = noise(length);
            let halves = [plain.slice(..length / 2), plain.slice(length / 2..)].map(Body::from);
            let mut body = GzipBody::new(Body::parts(halves.into()), level, Some(length as u64));
            let lengths = body.lengths();
            let (pieces, unpacked) = drain(&mut body);
            assert_eq!(unpacked, plain, "{length} at {level}");
            assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= PIECE));
            let packed: usize = pieces.iter().map(Bytes::len).sum();
            assert_eq!(lengths.get(), Some((length as u64, packed as u64)));
        }
    }

    #[test]
    fn the_window_fits_the_body() {
        assert_eq!(window_bits(None), 15);
        assert_eq!(window_bits(Some(0)), 10);
        assert_eq!(window_bits(Some(762)), 10);
        assert_eq!(window_bits(Some(763)), 11);
        assert_eq!(window_bits(Some(1 << 20)), 15);
    }
}
