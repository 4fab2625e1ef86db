//! Answers that are packed for clients who take them so: what `gzip`, `brotli` and `zstd` have in common.

pub mod beforehand;
mod body;
mod codec;

pub use body::{Lengths, PackedBody};
pub use codec::{Ask, Codec};

use super::{
    body::Body,
    exchange::{Exchange, Method},
    media_types::MediaTypes,
    modules::gzip,
    response::Response,
};
use crate::{
    config::{Args, FromArgs, values::parse_number},
    syntax::Fault,
};
use std::{io, io::Write, rc::Rc};

/// Which answers a room packs.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'c> {
    pub enabled: bool,
    pub types: &'c MediaTypes,
    /// Shorter ones are not worth it. Bytes.
    pub min_length: usize,
}

impl Rule<'_> {
    /// Whether an answer is one of them (`ngx_http_gzip_header_filter`).
    pub fn fits(self, response: &Response) -> bool {
        self.enabled
            && matches!(response.status, 200 | 403 | 404)
            && response.field("content-encoding").is_none_or(<[u8]>::is_empty)
            && response.content_length.is_none_or(|length| length >= self.min_length as u64)
            && self.types.contains(response.content_type.as_deref().unwrap_or_default())
    }
}

/// Whether the client takes a coding that is none of gzip's: whose rules of proxies and versions do not hold for it.
pub fn takes(exchange: &Exchange, coding: &str) -> bool {
    exchange.depth == 0 && exchange.field("accept-encoding").is_some_and(|value| gzip::takes(value, coding.as_bytes()))
}

/// Packs an answer if it is worth it and the client takes it. What comes back tells the lengths of its body, once they are
/// known.
///
/// # Errors
/// The compressor's: then the answer goes out as it is.
pub fn offer(
    exchange: &mut Exchange,
    response: &mut Response,
    rule: Rule<'_>,
    coding: &'static str,
    accepted: impl FnOnce(&mut Exchange, &Response) -> bool,
    codec: impl FnOnce(Option<u64>) -> io::Result<Codec>,
) -> io::Result<Option<Rc<Lengths>>> {
    if !rule.fits(response) {
        return Ok(None);
    }
    response.vary_accept_encoding = true;
    if !accepted(exchange, response) {
        return Ok(None);
    }
    let mut lengths = None;
    if exchange.method != Method::Head {
        let codec = codec(response.content_length)?;
        let body = PackedBody::new(std::mem::take(&mut response.body), codec);
        lengths = Some(body.lengths());
        response.body = Body::Packed(Box::new(body));
    }
    response.push(&b"Content-Encoding"[..], coding.as_bytes());
    response.encoded = true;
    response.forget_length();
    response.weaken_etag();
    Ok(lengths)
}

/// `$gzip_ratio` and its kin: how many times shorter an answer became, once that is known; two digits behind the point,
/// rounded by the third.
pub fn ratio(lengths: Option<&Rc<Lengths>>, out: &mut Vec<u8>) -> bool {
    let Some((plain, packed)) = lengths.and_then(|lengths| lengths.get()) else { return false };
    write_ratio(plain, packed, out)
}

fn write_ratio(plain: u64, packed: u64, out: &mut Vec<u8>) -> bool {
    if packed == 0 {
        return false;
    }
    let mut hundredths = plain.saturating_mul(100) / packed;
    if (plain.saturating_mul(1000) / packed) % 10 > 4 {
        hundredths += 1;
    }
    write!(out, "{}.{:02}", hundredths / 100, hundredths % 100).is_ok()
}

/// How hard a compressor tries, between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompLevel<const LEAST: u32, const MOST: u32>(pub u32);

impl<const LEAST: u32, const MOST: u32> FromArgs for CompLevel<LEAST, MOST> {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let level = parse_number(&word.value).ok_or_else(|| args.directive(word, "invalid number"))?;
        let level = u32::try_from(level).ok().filter(|level| (LEAST..=MOST).contains(level));
        level.map(Self).ok_or_else(|| Fault::at(word.span, format!("value must be between {LEAST} and {MOST}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_has_two_digits_behind_its_point() {
        for (plain, packed, ratio) in
            [(2125, 1000, "2.13"), (2124, 1000, "2.12"), (1999, 1000, "2.00"), (5, 100, "0.05")]
        {
            let mut out = Vec::new();
            assert!(write_ratio(plain, packed, &mut out));
            assert_eq!(String::from_utf8_lossy(&out), ratio);
        }
        assert!(!write_ratio(1, 0, &mut Vec::new()));
    }
}
