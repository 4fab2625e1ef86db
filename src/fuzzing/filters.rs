//! What happens to bodies of answers on their way out.

use super::paced;
use crate::http::{
    Http,
    body::Body,
    heads::RequestHead,
    in_memory,
    modules::{
        gunzip::GunzipBody,
        sub_filter::{SubBody, Words},
    },
    packing::{Codec, PackedBody},
    range,
    response::Response,
};
use bytes::Bytes;
use std::{
    ops::Range,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
};

/// A body that arrives in pieces.
fn pieces(bytes: &[u8], step: usize) -> Body {
    Body::parts(bytes.chunks(step).map(|piece| Body::from(Bytes::copy_from_slice(piece))).collect())
}

/// All that a body gives, and how it ended. No piece is empty.
fn drain(mut body: Body) -> (Vec<u8>, Result<(), String>) {
    let mut out = Vec::new();
    loop {
        match body.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(piece))) => {
                assert!(!piece.is_empty(), "an empty piece behind {} bytes", out.len());
                out.extend_from_slice(&piece);
            }
            Poll::Ready(Some(Err(error))) => return (out, Err(error.to_string())),
            Poll::Ready(None) => return (out, Ok(())),
            Poll::Pending => return (out, Err("it waits".to_owned())),
        }
    }
}

/// Pairs of a word and a value, one on each line up to an empty one, then a text: what comes out is what comes of
/// looking for the words in the whole of the text, however it is cut. The lowest bit of the first byte: each word is
/// replaced but once.
pub(super) fn sub_filter(data: &[u8]) {
    let (step, rest) = paced(data);
    let Some((flags, rest)) = rest.split_first() else { return };
    let once = flags & 1 == 1;
    let mut lines = rest.splitn(17, |byte| *byte == b'\n');
    let mut pairs: Vec<(Vec<u8>, Bytes)> = Vec::new();
    let mut text = b"".as_slice();
    for line in lines.by_ref() {
        text = line;
        let mut words = line.splitn(2, |byte| *byte == b'=');
        let (Some(word), Some(value)) = (words.next().filter(|word| !word.is_empty()), words.next()) else { break };
        pairs.push((word.to_ascii_lowercase(), Bytes::copy_from_slice(value)));
    }
    let behind = lines.fold(Vec::new(), |text, line| [&text[..], b"\n", line].concat());
    let text = if behind.is_empty() { text } else { &behind[1..] };
    let words: Vec<Bytes> = pairs.iter().map(|(word, _)| Bytes::copy_from_slice(word)).collect();
    let Some(words) = Words::new(words).map(Arc::new) else { return };
    let values: Vec<Bytes> = pairs.iter().map(|(_, value)| value.clone()).collect();
    let expected = replaced(&pairs, once, text);
    for step in [step, text.len().max(1), 1] {
        let body = SubBody::new(pieces(text, step), Arc::clone(&words), values.clone(), once);
        let (out, end) = drain(Body::Sub(Box::new(body)));
        assert_eq!(end, Ok(()));
        assert_eq!(out, expected, "in pieces of {step}");
    }
}

/// The rule itself: from left to right, at each place the words in order. One that the text breaks off in holds the rest.
fn replaced(pairs: &[(Vec<u8>, Bytes)], once: bool, text: &[u8]) -> Vec<u8> {
    let mut used = vec![false; pairs.len()];
    let (mut out, mut at) = (Vec::new(), 0);
    'text: while at < text.len() {
        let rest = text[at..].to_ascii_lowercase();
        for (number, (word, value)) in pairs.iter().enumerate() {
            if used[number] {
                continue;
            }
            if rest.starts_with(word) {
                out.extend_from_slice(value);
                at += word.len();
                used[number] = once;
                continue 'text;
            }
            if word.starts_with(&rest) {
                break 'text;
            }
        }
        out.push(text[at]);
        at += 1;
    }
    out.extend_from_slice(&text[at..]);
    out
}

/// What is packed comes out as it was, however it is cut before and behind; and whatever else claims to be packed is
/// unpacked the same in any pieces, and ends.
pub(super) fn gzip(data: &[u8]) {
    let (step, rest) = paced(data);
    let Some(([level, times], bytes)) = rest.split_first_chunk() else { return };
    // Longer than the pieces that compressors give.
    let mut plain = bytes.repeat(1 + usize::from(*times) * 8);
    plain.truncate(50_000);
    let level = u32::from(*level % 9) + 1;
    let length = (*times % 2 == 0).then_some(plain.len() as u64);
    let body = PackedBody::new(pieces(&plain, step * 97), Codec::gzip(level, length));
    let lengths = body.lengths();
    let (packed, end) = drain(Body::Packed(Box::new(body)));
    assert_eq!(end, Ok(()));
    assert_eq!(lengths.get(), Some((plain.len() as u64, packed.len() as u64)));
    assert!(unpacked(&packed, step) == (plain, Ok(())), "packed at {level}, unpacked in pieces of {step}");

    let (whole, end) = unpacked(bytes, bytes.len().max(1));
    let (cut, cut_end) = unpacked(bytes, step);
    assert_eq!(end, cut_end, "in pieces of {step}");
    // Where it breaks, the last piece may have more or less of what was read until then.
    assert!(if end.is_ok() { whole == cut } else { whole.starts_with(&cut) || cut.starts_with(&whole) });
}

fn unpacked(bytes: &[u8], step: usize) -> (Vec<u8>, Result<(), String>) {
    drain(Body::Gunzip(Box::new(GunzipBody::new(pieces(bytes, step)))))
}

/// A length of two bytes, which `max_ranges`, then a `Range`: what is served is what was asked for, in order, within the
/// body, and as long as announced.
pub(super) fn ranges(data: &[u8]) {
    static SERVERS: OnceLock<Vec<(Option<usize>, Arc<Http>)>> = OnceLock::new();
    let Some(([high, low, most], range)) = data.split_first_chunk() else { return };
    let length = u16::from_be_bytes([*high, *low]) as usize;
    let servers = SERVERS.get_or_init(|| {
        let server = |most: Option<usize>| {
            let directive = most.map(|most| format!("max_ranges {most};")).unwrap_or_default();
            (most, Arc::new(in_memory::read(format!("server {{ {directive} }}").as_bytes()).0))
        };
        [None, Some(0), Some(1), Some(3), Some(100)].map(server).into()
    });
    let (most, http) = &servers[usize::from(*most) % servers.len()];
    let request = [b"GET / HTTP/1.1\r\nHost: x\r\nRange: ", range, b"\r\n\r\n"].concat();
    let Some(head) = RequestHead::of(&request) else { return };
    let mut exchange = in_memory::exchange(Arc::clone(http), head);
    let Some(range) = exchange.field("range").map(<[u8]>::to_vec) else { return };
    let whole: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let mut response = Response { ranges: true, ..Response::with_body(200, &b"text/plain"[..], whole.clone()) };
    let outcome = range::filter(&mut exchange, &mut response);
    let expected = asked(&range, length, *most);
    match (&expected[..], most) {
        _ if outcome == Err(416) => {
            assert_eq!(expected, [Part::Nothing], "{range:?}");
            let field = exchange.state.error_page.kept.get("content-range");
            assert_eq!(field, Some(format!("bytes */{length}").as_bytes()));
            return;
        }
        ([Part::Whole], most) => {
            assert_eq!((outcome, response.status), (Ok(()), 200), "{range:?}");
            assert_eq!(response.field("accept-ranges").is_some(), *most != Some(0));
        }
        ([Part::Bytes(part)], _) => {
            assert_eq!((outcome, response.status), (Ok(()), 206), "{range:?}");
            let field = format!("bytes {}-{}/{length}", part.start, part.end - 1);
            assert_eq!(response.field("content-range"), Some(field.as_bytes()), "{range:?}");
        }
        _ => assert_eq!((outcome, response.status), (Ok(()), 206), "{range:?}"),
    }
    let kind = String::from_utf8_lossy(response.content_type.as_deref().unwrap_or_default()).into_owned();
    let announced = response.content_length;
    let (body, end) = drain(response.body);
    assert_eq!((end, announced), (Ok(()), Some(body.len() as u64)), "{range:?}");
    match &expected[..] {
        [Part::Bytes(part)] => assert_eq!(body, whole[part.clone()], "{range:?}"),
        [_] => assert_eq!(body, whole, "{range:?}"),
        parts => {
            let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_default();
            let mut rest = &body[..];
            for part in parts {
                let Part::Bytes(part) = part else { unreachable!("several are all of bytes") };
                let lines = format!(
                    "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {}-{}/{length}\r\n\r\n",
                    part.start,
                    part.end - 1
                );
                let found =
                    rest.strip_prefix(lines.as_bytes()).and_then(|rest| rest.strip_prefix(&whole[part.clone()]));
                assert!(found.is_some(), "no {lines:?} in {range:?}");
                rest = found.unwrap_or_default();
            }
            assert_eq!(rest, format!("\r\n--{boundary}--\r\n").as_bytes());
        }
    }
}

/// What is to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// All of it, with status 200.
    Whole,
    Bytes(Range<usize>),
    /// 416.
    Nothing,
}

/// nginx's rules, item by item as they are written.
fn asked(range: &[u8], length: usize, most: Option<usize>) -> Vec<Part> {
    let bytes = range.get(..6).is_some_and(|unit| unit.eq_ignore_ascii_case(b"bytes="));
    if !bytes || range.len() == 6 || most == Some(0) {
        return vec![Part::Whole];
    }
    let text = String::from_utf8_lossy(&range[6..]).into_owned();
    let number = |text: &str| match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse::<i64>().ok().map(i128::from),
        false => None,
    };
    let (whole, mut parts, mut size) = (length as i128, Vec::new(), 0);
    for item in text.split(',') {
        let Some((from, to)) = item.split_once('-') else { return vec![Part::Nothing] };
        let (suffix, from, to) = (from.trim_matches(' ').is_empty(), from.trim_matches(' '), to.trim_end_matches(' '));
        // A suffix has its number right behind the dash.
        let to = if suffix { to } else { to.trim_matches(' ') };
        let (start, end) = match (suffix, number(from), number(to)) {
            (false, Some(from), None) if to.is_empty() => (from, whole),
            (false, Some(from), Some(to)) => (from, whole.min(to + 1)),
            (true, _, Some(last)) => ((whole - last).max(0), whole),
            _ => return vec![Part::Nothing],
        };
        if start < end {
            size += end - start;
            if most == Some(parts.len()) {
                return vec![Part::Whole];
            }
            parts.push(Part::Bytes(start as usize..end as usize));
        } else if start == 0 {
            return vec![Part::Whole];
        }
    }
    let framed = size + 256 * parts.len() as i128;
    match parts.len() {
        0 => vec![Part::Nothing],
        1 => parts,
        _ if size > whole || most.is_none() && framed > whole + 4096 => vec![Part::Whole],
        _ => parts,
    }
}
