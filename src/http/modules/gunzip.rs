//! `gunzip`: unpacks answers for clients that cannot do that themselves.

use super::{Room, gzip};
use crate::{
    config::{Directive, LEVELS, Module},
    http::{
        body::{Body, BodyError},
        exchange::{Exchange, Method},
        response::Response,
    },
};
use bytes::{Buf, Bytes};
use flate2::{Decompress, FlushDecompress, Status};
use std::task::{Context, Poll, ready};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub enabled: bool,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[Directive::new("gunzip", LEVELS, |conf| &mut conf.enabled)];
}

impl Room for Conf {
    type State = ();
}

/// Unpacks a packed answer if the client does not take it as it is (`ngx_http_gunzip_header_filter`).
pub fn filter(exchange: &mut Exchange, response: &mut Response) {
    let packed = |encoding: &[u8]| encoding.eq_ignore_ascii_case(b"gzip");
    if !exchange.location.settings.gunzip.enabled || !response.field("content-encoding").is_some_and(packed) {
        return;
    }
    response.vary_accept_encoding = true;
    if gzip::accepted(exchange, response) {
        return;
    }
    if exchange.method != Method::Head {
        response.body = Body::Gunzip(Box::new(GunzipBody::new(std::mem::take(&mut response.body))));
    }
    response.fields.remove("content-encoding");
    response.encoded = false;
    response.forget_length();
    response.weaken_etag();
}

/// How much is unpacked at once: a small body may become a large one.
const PIECE: usize = 16 << 10;

/// zlib's window, as large as it can be.
const WINDOW_BITS: u8 = 15;

/// Another body, unpacked (`ngx_http_gunzip_body_filter`).
pub struct GunzipBody {
    inner: Body,
    inflate: Decompress,
    /// Taken from the inner body and not yet unpacked.
    input: Bytes,
    /// There was no room for all that could be unpacked.
    full: bool,
    /// A packed stream has ended; another one may follow.
    ended: bool,
}

impl GunzipBody {
    pub fn new(inner: Body) -> Self {
        let inflate = Decompress::new_gzip(WINDOW_BITS);
        Self { inner, inflate, input: Bytes::new(), full: false, ended: false }
    }

    /// The body that is unpacked.
    pub fn inner(&self) -> &Body {
        &self.inner
    }

    /// The next piece; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            while self.full || !self.input.is_empty() {
                match self.unpack() {
                    Ok(piece) if piece.is_empty() => {}
                    unpacked => return Poll::Ready(Some(unpacked)),
                }
            }
            match ready!(self.inner.poll_next(cx)) {
                Some(Ok(piece)) => self.input = piece,
                None if !self.ended => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(failed("inflate() returned -5 on response end"))));
                }
                other => return Poll::Ready(other),
            }
        }
    }

    /// Unpacks until the input or the room is used up, or a stream has ended.
    fn unpack(&mut self) -> Result<Bytes, BodyError> {
        if self.ended {
            self.inflate = Decompress::new_gzip(WINDOW_BITS);
            self.ended = false;
        }
        let mut output = Vec::with_capacity(PIECE);
        let before = self.inflate.total_in();
        let status = self.inflate.decompress_vec(&self.input, &mut output, FlushDecompress::None);
        let taken = usize::try_from(self.inflate.total_in() - before).unwrap_or(self.input.len());
        let stuck = taken == 0 && output.is_empty() && !self.input.is_empty();
        match status {
            Ok(status) if !stuck || status == Status::StreamEnd => {
                self.input.advance(taken);
                self.ended = status == Status::StreamEnd;
                self.full = !self.ended && output.len() == output.capacity();
                Ok(output.into())
            }
            _ => {
                self.input.clear();
                self.full = false;
                Err(failed("inflate() failed: 0, -3"))
            }
        }
    }
}

fn failed(text: &'static str) -> BodyError {
    BodyError::Filter(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{
        packing::{Codec, PackedBody},
        testing::ask,
    };
    use proptest::prelude::*;
    use std::task::Waker;

    fn drain(mut body: Body) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        while let Poll::Ready(Some(piece)) = body.poll_next(&mut Context::from_waker(Waker::noop())) {
            let piece = piece.map_err(|error| error.to_string())?;
            assert!(!piece.is_empty() && piece.len() <= PIECE);
            out.extend_from_slice(&piece);
        }
        Ok(out)
    }

    fn packed(plain: &[u8], level: u32) -> Vec<u8> {
        let body = Body::from(Bytes::copy_from_slice(plain));
        drain(Body::Packed(Box::new(PackedBody::new(body, Codec::gzip(level, Some(plain.len() as u64)))))).unwrap()
    }

    fn unpacked(packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
        let pieces = packed.chunks(size).map(|piece| Body::from(Bytes::copy_from_slice(piece))).collect();
        drain(Body::Gunzip(Box::new(GunzipBody::new(Body::parts(pieces)))))
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_as_it_was(
            runs in proptest::collection::vec((any::<u8>(), 1_usize..9000), 0..12),
            noise in proptest::collection::vec(any::<u8>(), 0..3000),
            level in 1_u32..10,
            size in 1_usize..5000,
        ) {
            let mut plain: Vec<u8> = runs.iter().flat_map(|(byte, count)| std::iter::repeat_n(*byte, *count)).collect();
            plain.extend(noise);
            prop_assert_eq!(unpacked(&packed(&plain, level), size), Ok(plain));
        }

        #[test]
        fn anything_else_is_an_error_and_ends(bytes in proptest::collection::vec(any::<u8>(), 0..300), size in 1_usize..99) {
            prop_assert!(unpacked(&bytes, size).is_err());
        }
    }

    #[test]
    fn streams_may_follow_each_other() {
        let both = [packed(b"one", 1), packed(b"two", 9)].concat();
        for size in 1..=both.len() {
            assert_eq!(unpacked(&both, size), Ok(b"onetwo".to_vec()), "{size}");
        }
    }

    #[test]
    fn what_breaks_off_or_goes_on_is_told() {
        let whole = packed(b"some text that is long enough", 1);
        for cut in [0, 1, 10, whole.len() - 1] {
            let error = unpacked(&whole[..cut], 7).unwrap_err();
            assert_eq!(error, "inflate() returned -5 on response end", "{cut}");
        }
        let more = [&whole[..], b"garbage behind it"].concat();
        assert_eq!(unpacked(&more, 1000).unwrap_err(), "inflate() failed: 0, -3");
    }

    #[test]
    fn clients_that_take_it_packed_get_it_so() {
        let folder = tempfile::tempdir().unwrap();
        let plain = "plain text".repeat(20);
        std::fs::write(folder.path().join("x.gz"), packed(plain.as_bytes(), 6)).unwrap();
        let server = format!(
            "root {}; gunzip on; gzip_vary on; gzip_static always; location / {{ }} location /off/ {{ gunzip off; alias {}/; }}",
            folder.path().display(),
            folder.path().display()
        );
        for (path, accept, encoding) in [
            ("/x", "", None),
            ("/x", "Accept-Encoding: gzip\r\n", Some("gzip")),
            ("/x", "Accept-Encoding: gzip;q=0\r\n", None),
            ("/off/x", "", Some("gzip")),
        ] {
            let answer = ask(&server, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{accept}\r\n"));
            assert_eq!((answer.status, answer.header("content-encoding")), (200, encoding), "{path} {accept}");
            let vary = (path == "/x").then_some("Accept-Encoding");
            assert_eq!(answer.header("vary"), vary, "{path} {accept}");
            let unpacks = encoding.is_none();
            assert_eq!(answer.header("content-length").is_none(), unpacks);
            assert_eq!(answer.header("etag").unwrap().starts_with("W/"), unpacks);
            assert_eq!(answer.text() == plain, unpacks);
        }
        let head = ask(&server, "HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!((head.header("content-encoding"), head.header("content-length")), (None, None));
    }
}
