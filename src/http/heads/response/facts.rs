//! What nginx makes of single fields of an answer while it reads them (`ngx_http_upstream_headers_in`).

use super::{HeadError, Span};
use crate::http::heads::{
    fields::same,
    request::{holds, length},
};
use bytes::Bytes;
use smallvec::SmallVec;

/// What the fields have said so far.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) close: bool,
    pub(super) upgrade: bool,
    /// Indexes of the fields that nginx drops.
    pub(super) ignored: SmallVec<[u16; 4]>,
    pub(super) warnings: Vec<Bytes>,
    /// Index of the first field of each kind, plus one.
    seen: [u16; KINDS],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    // From here on: nginx keeps the first and drops the others.
    Status,
    ContentType,
    Date,
    LastModified,
    ETag,
    Server,
    Location,
    Refresh,
    Expires,
    AccelExpires,
    AccelRedirect,
    AccelLimitRate,
}

const KINDS: usize = Kind::AccelLimitRate as usize + 1;

impl Facts {
    /// Takes the last of `spans` in.
    pub(super) fn note(&mut self, bytes: &[u8], spans: &[Span]) -> Result<(), HeadError> {
        let Some(span) = spans.last() else { return Ok(()) };
        let Some(kind) = kind(span.name(bytes)) else { return Ok(()) };
        let first = self.seen[kind as usize];
        if first != 0 && !matches!(kind, Kind::Connection | Kind::Upgrade) {
            let before = &spans[usize::from(first) - 1];
            let pair = |span: &Span| [span.name(bytes), b": ", span.value(bytes)].concat();
            let (now, before) = (pair(span), pair(before));
            let text =
                [b"upstream sent duplicate header line: \"", &now[..], b"\", previous value: \"", &before, b"\""];
            if matches!(kind, Kind::ContentLength | Kind::TransferEncoding) {
                return Err(HeadError::invalid(&text));
            }
            self.warnings.push([&text.concat()[..], b", ignored"].concat().into());
            self.ignored.push(u16::try_from(spans.len() - 1).unwrap_or(u16::MAX));
            return Ok(());
        }
        if first == 0 {
            self.seen[kind as usize] = u16::try_from(spans.len()).unwrap_or(u16::MAX);
        }
        let (name, value) = (span.name(bytes), span.value(bytes));
        match kind {
            Kind::ContentLength | Kind::TransferEncoding
                if self.seen[Kind::ContentLength as usize] != 0 && self.seen[Kind::TransferEncoding as usize] != 0 =>
            {
                let text = b"upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time";
                return Err(HeadError::invalid(&[text]));
            }
            Kind::ContentLength => match length(value) {
                Some(length) => self.content_length = Some(length),
                None => {
                    let text = b"upstream sent invalid \"Content-Length\" header: \"";
                    return Err(HeadError::invalid(&[text, name, b": ", value, b"\""]));
                }
            },
            Kind::TransferEncoding if same(value, b"chunked") => self.chunked = true,
            Kind::TransferEncoding => {
                return Err(HeadError::invalid(&[b"upstream sent unknown \"Transfer-Encoding\": \"", value, b"\""]));
            }
            Kind::Connection => self.close |= holds(value, b"close"),
            Kind::Upgrade => self.upgrade = true,
            _ => {}
        }
        Ok(())
    }

    /// Index of the `Status` field.
    pub(super) fn status(&self) -> Option<usize> {
        self.first(Kind::Status)
    }

    /// Whether there is a `Location` field.
    pub(super) fn has_location(&self) -> bool {
        self.first(Kind::Location).is_some()
    }

    fn first(&self, kind: Kind) -> Option<usize> {
        usize::from(self.seen[kind as usize]).checked_sub(1)
    }
}

fn kind(name: &[u8]) -> Option<Kind> {
    let is = |wanted: &[u8], kind: Kind| same(name, wanted).then_some(kind);
    match name.len() {
        4 => is(b"Date", Kind::Date).or_else(|| is(b"ETag", Kind::ETag)),
        6 => is(b"Server", Kind::Server).or_else(|| is(b"Status", Kind::Status)),
        7 => is(b"Upgrade", Kind::Upgrade)
            .or_else(|| is(b"Expires", Kind::Expires))
            .or_else(|| is(b"Refresh", Kind::Refresh)),
        8 => is(b"Location", Kind::Location),
        10 => is(b"Connection", Kind::Connection),
        12 => is(b"Content-Type", Kind::ContentType),
        13 => is(b"Last-Modified", Kind::LastModified),
        14 => is(b"Content-Length", Kind::ContentLength),
        15 => is(b"X-Accel-Expires", Kind::AccelExpires),
        16 => is(b"X-Accel-Redirect", Kind::AccelRedirect),
        17 => is(b"Transfer-Encoding", Kind::TransferEncoding),
        18 => is(b"X-Accel-Limit-Rate", Kind::AccelLimitRate),
        _ => None,
    }
}
