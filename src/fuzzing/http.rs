//! Bytes of clients and of upstreams that speak HTTP.

use super::paced;
use crate::http::{
    heads::{
        Limits,
        chunked::{Scan, Scanner},
        request::{Parser, Progress},
        response::{self, cgi::CgiParser},
    },
    uri::{self, Escape, Unescape},
};
use bytes::Bytes;

/// The head of a request is judged the same however its bytes arrive, and takes no more of them than there are.
pub(super) fn heads(data: &[u8]) {
    let (step, bytes) = paced(data);
    let small = Limits { client_header_buffer_size: 32, large: (2, 64), max_headers: 4, ..Limits::default() };
    let open = Limits { ignore_invalid_headers: false, underscores_in_headers: true, allow_connect: true, ..small };
    for limits in [Limits::default(), small, open] {
        let whole = request(bytes, bytes.len().max(1), &limits);
        assert_eq!(whole, request(bytes, step, &limits), "in pieces of {step}");
    }
}

/// The verdict on a request that arrives in pieces.
fn request(bytes: &[u8], step: usize, limits: &Limits) -> String {
    let mut parser = Parser::default();
    let mut arrived = 0;
    while arrived < bytes.len() {
        arrived = (arrived + step).min(bytes.len());
        match parser.parse(&bytes[..arrived], limits) {
            Progress::Partial => {}
            Progress::Refused(refusal) => return format!("{} {:?} {}", refusal.status, refusal.why, refusal.linger),
            Progress::Complete(length) => {
                assert!(length <= arrived, "{length} of {arrived} bytes");
                let head = parser.finish(Bytes::copy_from_slice(&bytes[..length]));
                assert!(head.length <= length, "a head of {} in {length}", head.length);
                return format!("{head:?}");
            }
        }
    }
    parser.give_up(bytes, 400, "client closed");
    "more".to_owned()
}

/// The head of an answer is judged the same however its bytes arrive.
pub(super) fn answers(data: &[u8]) {
    let (step, bytes) = paced(data);
    for size in [4096, 64] {
        let http = |step| -> Result<Option<String>, String> {
            let mut parser = response::Parser::default();
            let length = pieces(bytes, step, |bytes| parser.parse(bytes, size).map_err(|error| error.to_string()))?;
            Ok(length.map(|length| format!("{:?}", parser.finish(Bytes::copy_from_slice(&bytes[..length])))))
        };
        assert_eq!(http(bytes.len().max(1)), http(step), "in pieces of {step}");
        for new in [CgiParser::with_status_line, CgiParser::fields_only] {
            let cgi = |step| -> Result<Option<String>, String> {
                let mut parser = new();
                let length = pieces(bytes, step, |bytes| parser.parse(bytes, size).map_err(|error| error.to_string()))?;
                Ok(length.map(|length| format!("{:?}", parser.finish(Bytes::copy_from_slice(&bytes[..length])))))
            };
            assert_eq!(cgi(bytes.len().max(1)), cgi(step), "in pieces of {step}");
        }
    }
}

/// How long the head is, if it is complete.
fn pieces(
    bytes: &[u8],
    step: usize,
    mut parse: impl FnMut(&[u8]) -> Result<response::Progress, String>,
) -> Result<Option<usize>, String> {
    let mut arrived = 0;
    while arrived < bytes.len() {
        arrived = (arrived + step).min(bytes.len());
        if let response::Progress::Complete(length) = parse(&bytes[..arrived])? {
            assert!(length <= arrived, "{length} of {arrived} bytes");
            return Ok(Some(length));
        }
    }
    Ok(None)
}

/// A chunked body ends at the same place, and its payload is the same, however its bytes arrive, and whether or not what
/// stands in front of the payload was walked over first. Framed anew, it is the same body.
pub(super) fn chunked(data: &[u8]) {
    let (step, bytes) = paced(data);
    let (found, payload) = unwrapped(bytes, bytes.len().max(1), false);
    for led in [false, true] {
        assert_eq!(unwrapped(bytes, step, led), (found, payload.clone()), "in pieces of {step}, led: {led}");
    }
    let mut anew = Vec::new();
    for piece in payload.chunks(step) {
        anew.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        anew.extend_from_slice(piece);
        anew.extend_from_slice(b"\r\n");
    }
    anew.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(unwrapped(&anew, step, true), (Scan::Done(anew.len()), payload));
}

/// How a walk over a chunked body that arrives in pieces ends, and its payload.
fn unwrapped(bytes: &[u8], step: usize, led: bool) -> (Scan, Vec<u8>) {
    let (mut scanner, mut at, mut payload) = (Scanner::default(), 0, Vec::new());
    for piece in bytes.chunks(step) {
        let lead = if led { scanner.lead(piece) } else { 0 };
        let mut rest = piece[lead..].to_vec();
        let found = scanner.unwrap(&mut rest, None);
        payload.extend_from_slice(&rest[..found.kept]);
        assert_eq!(scanner.payload(), payload.len() as u64);
        match found.scan {
            Scan::More => at += piece.len(),
            Scan::Done(length) => return (Scan::Done(at + lead + length), payload),
            Scan::Invalid => return (Scan::Invalid, payload),
        }
    }
    (Scan::More, payload)
}

/// A path that is accepted stays within the root, and what is sent on in its place means the same.
pub(super) fn uri(data: &[u8]) {
    for merge in [true, false] {
        let Ok(target) = uri::normalise(data, merge) else { continue };
        let path = &target.path[..];
        assert_eq!(path.first(), Some(&b'/'), "{path:?}");
        assert!(!path.contains(&0), "{path:?}");
        let dots = |segment: &[u8]| segment == b"." || segment == b"..";
        assert!(!path.split(|byte| *byte == b'/').any(dots), "{path:?}");
        assert!(!merge || !path.windows(2).any(|pair| pair == b"//"), "{path:?}");
        assert!(target.extension().len() < path.len());

        let sent = uri::escaped(path, Escape::Uri);
        let again = uri::normalise(&sent, merge);
        assert_eq!(again.map(|again| again.path.into_owned()), Ok(path.to_vec()), "sent as {sent:?}");
    }
    for flavour in [Escape::Uri, Escape::Args, Escape::UriComponent, Escape::Memcached] {
        let mut back = Vec::new();
        uri::unescape(&uri::escaped(data, flavour), Unescape::Plain, &mut back);
        assert_eq!(back, data, "{flavour:?}");
    }
    for how in [Unescape::Uri, Unescape::Redirect] {
        let mut out = Vec::new();
        assert!(uri::unescape(data, how, &mut out) <= data.len());
        assert!(out.len() <= data.len());
    }
    uri::escape_html(data, &mut Vec::new());
    uri::extension(data);
    if let Ok((path, _)) = uri::parse_unsafe(data) {
        assert!(!path.split(|byte| *byte == b'/').any(|segment| segment == b".."), "{path:?}");
    }
}
