//! The ways to pack a body: one face for three compressors.

use brotli::enc::{
    StandardAlloc,
    encode::{BrotliEncoderOperation, BrotliEncoderParameter, BrotliEncoderStateStruct},
};
use bytes::{Buf, Bytes};
use flate2::{Compress, Compression, FlushCompress, Status};
use std::io;
use zstd::stream::raw::{Encoder, InBuffer, Operation, OutBuffer};

/// A compressor at work.
pub enum Codec {
    Gzip(Compress),
    Brotli(Box<BrotliEncoderStateStruct<StandardAlloc>>),
    Zstd(Encoder<'static>),
}

/// What is asked of it besides to take what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Nothing,
    /// To give away all that it holds back.
    Flush,
    /// To come to its end.
    Finish,
}

impl Codec {
    /// For a body of a length, if it is known; the level is from 1 to 9.
    pub fn gzip(level: u32, length: Option<u64>) -> Self {
        // zlib-rs packs at level 1 a quarter looser than zlib; at level 2 it is tighter than that, and still faster.
        Self::Gzip(Compress::new_gzip(Compression::new(level.max(2)), window_bits(length)))
    }

    /// At a level from 0 to 11, with a window of two to the power of `bits` bytes, or no more than the body needs.
    pub fn brotli(level: u32, bits: u8, length: Option<u64>) -> Self {
        let mut state = BrotliEncoderStateStruct::new(StandardAlloc::default());
        let needed = length.map_or(bits, |length| (10..bits).find(|bits| length <= (1 << bits) - 16).unwrap_or(bits));
        state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_QUALITY, level);
        state.set_parameter(BrotliEncoderParameter::BROTLI_PARAM_LGWIN, needed.into());
        Self::Brotli(Box::new(state))
    }

    /// At a level from 1 to 22.
    ///
    /// # Errors
    /// Where there is no memory for it.
    pub fn zstd(level: i32) -> io::Result<Self> {
        Encoder::new(level).map(Self::Zstd)
    }

    /// Works until the input or the room of the output is used up; whether the end was reached.
    ///
    /// # Errors
    /// What the compressor says.
    pub fn run(&mut self, input: &mut Bytes, output: &mut Vec<u8>, ask: Ask) -> io::Result<bool> {
        match self {
            Self::Gzip(compress) => {
                let flush = match ask {
                    Ask::Nothing => FlushCompress::None,
                    Ask::Flush => FlushCompress::Sync,
                    Ask::Finish => FlushCompress::Finish,
                };
                let before = compress.total_in();
                let status = compress.compress_vec(input, output, flush).map_err(io::Error::other)?;
                input.advance(usize::try_from(compress.total_in() - before).unwrap_or(input.len()));
                Ok(status == Status::StreamEnd)
            }
            Self::Brotli(state) => {
                let operation = match ask {
                    Ask::Nothing => BrotliEncoderOperation::BROTLI_OPERATION_PROCESS,
                    Ask::Flush => BrotliEncoderOperation::BROTLI_OPERATION_FLUSH,
                    Ask::Finish => BrotliEncoderOperation::BROTLI_OPERATION_FINISH,
                };
                let (filled, mut taken, mut given) = (output.len(), 0, 0);
                output.resize(output.capacity(), 0);
                let (mut left, mut room) = (input.len(), output.len() - filled);
                let fine = state.compress_stream(
                    operation,
                    &mut left,
                    input,
                    &mut taken,
                    &mut room,
                    &mut output[filled..],
                    &mut given,
                    &mut None,
                    &mut |_, _, _, _| (),
                );
                output.truncate(filled + given);
                input.advance(taken);
                match fine {
                    true => Ok(state.is_finished()),
                    false => Err(io::Error::other("BrotliEncoderCompressStream() failed")),
                }
            }
            Self::Zstd(encoder) => {
                let filled = output.len();
                output.resize(output.capacity(), 0);
                let mut room = OutBuffer::around_pos(&mut output[..], filled);
                let mut from = InBuffer::around(input);
                let outcome = match ask {
                    Ask::Nothing => encoder.run(&mut from, &mut room).map(|_| false),
                    Ask::Flush => encoder.flush(&mut room).map(|_| false),
                    Ask::Finish => encoder.finish(&mut room, true).map(|left| left == 0),
                };
                let (taken, filled) = (from.pos(), room.pos());
                output.truncate(filled);
                input.advance(taken);
                outcome
            }
        }
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

    #[test]
    fn the_window_fits_the_body() {
        for (length, bits) in [(None, 15), (Some(0), 10), (Some(762), 10), (Some(763), 11), (Some(1 << 20), 15)] {
            assert_eq!(window_bits(length), bits, "{length:?}");
        }
    }
}
