//! A body that is packed while it is sent.

use super::{Ask, Codec};
use crate::http::body::{Body, BodyError};
use bytes::Bytes;
use std::{
    cell::Cell,
    io,
    rc::Rc,
    task::{Context, Poll},
};

/// How much compressed data is handed on at once. What is inside stays in the compressor until asked for, so this
/// bounds the memory of a body together with the compressor's own.
const PIECE: usize = 16 << 10;

/// The lengths of an answer before and after, known when it has been compressed whole.
#[derive(Debug, Default)]
pub struct Lengths(Cell<Option<(u64, u64)>>);

impl Lengths {
    /// Before and after.
    pub fn get(&self) -> Option<(u64, u64)> {
        self.0.get()
    }
}

/// Another body, packed (`ngx_http_gzip_body_filter`).
pub struct PackedBody {
    inner: Body,
    codec: Codec,
    /// Taken from the inner body and not yet compressed.
    input: Bytes,
    output: Vec<u8>,
    stage: Stage,
    /// What has gone in and come out.
    counted: (u64, u64),
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

impl PackedBody {
    pub fn new(inner: Body, codec: Codec) -> Self {
        let (output, lengths) = (Vec::new(), Rc::default());
        Self { inner, codec, input: Bytes::new(), output, stage: Stage::Flushed, counted: (0, 0), lengths }
    }

    /// The body that is packed.
    pub fn inner(&self) -> &Body {
        &self.inner
    }

    /// How long it is before and after, once it has ended.
    pub fn lengths(&self) -> Rc<Lengths> {
        Rc::clone(&self.lengths)
    }

    /// The next piece of compressed data; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            let full = match self.stage {
                _ if !self.input.is_empty() => {
                    self.stage = Stage::Dirty;
                    self.run(Ask::Nothing)
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
                Stage::Flushing => self.run(Ask::Flush).inspect(|full| {
                    if !full {
                        self.stage = Stage::Flushed;
                    }
                }),
                Stage::Finishing => self.run(Ask::Finish),
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
    fn run(&mut self, ask: Ask) -> io::Result<bool> {
        self.output.reserve_exact(PIECE - self.output.len());
        let (left, filled) = (self.input.len(), self.output.len());
        let ended = self.codec.run(&mut self.input, &mut self.output, ask)?;
        self.counted.0 += (left - self.input.len()) as u64;
        self.counted.1 += (self.output.len() - filled) as u64;
        if ended {
            self.stage = Stage::Done;
            self.lengths.0.set(Some(self.counted));
        }
        Ok(self.output.len() == self.output.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read, task::Waker};

    /// All pieces of a body.
    fn drain(body: &mut PackedBody) -> Vec<Bytes> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut pieces = Vec::new();
        while let Poll::Ready(Some(piece)) = body.poll_next(&mut cx) {
            pieces.push(piece.unwrap());
        }
        pieces
    }

    fn unpacked(coding: &str, packed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match coding {
            "gzip" => flate2::read::GzDecoder::new(packed).read_to_end(&mut plain).unwrap(),
            "br" => brotli::Decompressor::new(packed, 4096).read_to_end(&mut plain).unwrap(),
            _ => zstd::Decoder::new(packed).unwrap().read_to_end(&mut plain).unwrap(),
        };
        plain
    }

    fn codec(coding: &str, level: u32, length: usize) -> Codec {
        match coding {
            "gzip" => Codec::gzip(level, Some(length as u64)),
            "br" => Codec::brotli(level, 19, Some(length as u64)),
            _ => Codec::zstd(i32::try_from(level).unwrap()).unwrap(),
        }
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
        for coding in ["gzip", "br", "zstd"] {
            for (length, level) in [(0, 1), (1, 1), (1000, 6), (16 << 10, 1), (300_000, 1), (300_000, 9)] {
                let plain = noise(length);
                let halves = [plain.slice(..length / 2), plain.slice(length / 2..)].map(Body::from);
                let mut body = PackedBody::new(Body::parts(halves.into()), codec(coding, level, length));
                let lengths = body.lengths();
                let pieces = drain(&mut body);
                assert_eq!(unpacked(coding, &pieces.concat()), plain, "{coding}: {length} at {level}");
                assert!(pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= PIECE), "{coding}");
                let packed: usize = pieces.iter().map(Bytes::len).sum();
                assert_eq!(lengths.get(), Some((length as u64, packed as u64)), "{coding}");
            }
        }
    }

    #[test]
    fn what_waits_in_the_compressor_is_given_away_while_the_body_waits() {
        for coding in ["gzip", "br", "zstd"] {
            let mut codec = codec(coding, 1, 1 << 20);
            let mut out = Vec::with_capacity(PIECE);
            let mut input = Bytes::from_static(b"some text");
            assert!(!codec.run(&mut input, &mut out, Ask::Nothing).unwrap());
            codec.run(&mut input, &mut out, Ask::Flush).unwrap();
            let flushed = out.len();
            assert!(flushed > b"some text".len() / 2 && input.is_empty(), "{coding}: {flushed}");
            assert!(codec.run(&mut input, &mut out, Ask::Finish).unwrap(), "{coding}");
            assert_eq!(unpacked(coding, &out), b"some text", "{coding}");
        }
    }
}
