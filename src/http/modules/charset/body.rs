//! A body that is written in another charset while it is sent.

use super::map::{Decoded, Table, decode};
use crate::http::body::{Body, BodyError};
use bytes::{Bytes, BytesMut};
use std::{
    io::Write,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// Another body, recoded (`ngx_http_charset_body_filter`).
pub struct CharsetBody {
    inner: Body,
    table: Arc<Table>,
    /// The beginning of a character whose end has not come.
    begun: Vec<u8>,
}

impl CharsetBody {
    pub(super) fn new(inner: Body, table: Arc<Table>) -> Self {
        Self { inner, table, begun: Vec::new() }
    }

    /// The body that is recoded.
    pub fn inner(&self) -> &Body {
        &self.inner
    }

    /// Each byte keeps its place, so that a part of the body is the same part of the inner one.
    pub fn keeps_length(&self) -> bool {
        self.table.keeps_length()
    }

    /// The same recoding of another body.
    pub fn over(&self, inner: Body) -> Self {
        Self::new(inner, Arc::clone(&self.table))
    }

    /// The next piece; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            let piece = match ready!(self.inner.poll_next(cx)) {
                Some(Ok(piece)) => self.recode(piece),
                other => return Poll::Ready(other),
            };
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(piece)));
            }
        }
    }

    fn recode(&mut self, piece: Bytes) -> Bytes {
        match &*self.table {
            Table::Bytes(table) => {
                let mut piece = BytesMut::from(piece);
                piece.iter_mut().for_each(|byte| *byte = table[usize::from(*byte)]);
                piece.freeze()
            }
            Table::ToUtf8(table) => {
                let mut out = Vec::with_capacity(piece.len() + piece.len() / 2);
                for byte in piece {
                    let (length, bytes) = &table[usize::from(byte)];
                    out.extend_from_slice(&bytes[..usize::from(*length)]);
                }
                out.into()
            }
            Table::FromUtf8(table) => {
                let piece = match self.begun.is_empty() {
                    true => piece,
                    false => [&std::mem::take(&mut self.begun)[..], &piece].concat().into(),
                };
                let mut out = Vec::with_capacity(piece.len());
                let mut rest = &piece[..];
                while let Some(&byte) = rest.first() {
                    let length = match decode(rest) {
                        _ if byte.is_ascii() => {
                            out.push(byte);
                            1
                        }
                        Decoded::Character(character, length) => {
                            match table.get(&character) {
                                Some(byte) => out.push(*byte),
                                // Writing into memory does not fail.
                                None => _ = write!(out, "&#{character};"),
                            }
                            length
                        }
                        Decoded::Invalid(length) => {
                            out.push(b'?');
                            length
                        }
                        Decoded::Incomplete => {
                            self.begun = rest.to_vec();
                            break;
                        }
                    };
                    rest = &rest[length..];
                }
                out.into()
            }
        }
    }
}
