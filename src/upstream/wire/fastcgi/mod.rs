//! The FastCGI protocol: a request as records, and a walk over the records of its answer. There is one request on a
//! connection at a time, and its number is 1.

mod head;
mod records;

pub use head::{FastCgiHead, Reading};
pub use records::{Fault, Records, What};

use bytes::Bytes;

const VERSION: u8 = 1;
const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

/// The role in which an application is asked: to answer.
const RESPONDER: u8 = 1;

/// The most that the parameters may take: nginx writes them as one record.
pub const MAX_SIZE: usize = 65535;

/// The most of a body that one record carries, as nginx cuts it. Bytes.
const PIECE: usize = 32 << 10;

/// The parameters do not fit. nginx logs this at `alert` and answers 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fastcgi request record is too big: {0}")]
pub struct TooLarge(pub usize);

fn header(kind: u8, length: u16, padding: u8) -> [u8; 8] {
    let [high, low] = length.to_be_bytes();
    [VERSION, kind, 0, 1, high, low, padding, 0]
}

/// Bytes as an application puts them out: in records.
pub fn output(bytes: &[u8]) -> Vec<u8> {
    let record = |piece: &[u8]| [&header(STDOUT, u16::try_from(piece.len()).unwrap_or(0), 0), piece].concat();
    bytes.chunks(PIECE).flat_map(record).collect()
}

/// How much is missing to a multiple of eight.
fn padding(length: usize) -> u8 {
    (length.wrapping_neg() % 8) as u8
}

/// Appends to `out` what comes before a request's body: its beginning, the parameters, and their end. With `keep` the
/// application is asked to leave the connection open.
///
/// # Errors
/// [`TooLarge`]; then `out` is as it was.
pub fn frame<'a>(
    keep: bool,
    params: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    out: &mut Vec<u8>,
) -> Result<(), TooLarge> {
    let start = out.len();
    out.extend_from_slice(&header(BEGIN_REQUEST, 8, 0));
    out.extend_from_slice(&[0, RESPONDER, u8::from(keep), 0, 0, 0, 0, 0]);
    let block = out.len() + 8;
    out.extend_from_slice(&[0; 8]);
    // The whole size is wanted for the message, so counting goes on where writing has stopped.
    let mut size = 0;
    for (name, value) in params {
        size += [name, value].iter().map(|part| if part.len() > 127 { 4 } else { 1 } + part.len()).sum::<usize>();
        if size <= MAX_SIZE {
            for part in [name, value] {
                match part.len() {
                    short @ ..=127 => out.push(short as u8),
                    long => out.extend_from_slice(&(long as u32 | 1 << 31).to_be_bytes()),
                }
            }
            out.extend_from_slice(name);
            out.extend_from_slice(value);
        }
    }
    let Ok(length) = u16::try_from(size) else {
        out.truncate(start);
        return Err(TooLarge(size));
    };
    let padding = padding(size);
    out[block - 8..block].copy_from_slice(&header(PARAMS, length, padding));
    out.extend_from_slice(&[0; 8][..usize::from(padding)]);
    out.extend_from_slice(&header(PARAMS, 0, 0));
    Ok(())
}

/// A piece of the body as records, part by part.
pub fn stdin(mut piece: Bytes, mut part: impl FnMut(Bytes)) {
    while !piece.is_empty() {
        let content = piece.split_to(piece.len().min(PIECE));
        let padding = padding(content.len());
        part(Bytes::copy_from_slice(&header(STDIN, content.len() as u16, padding)));
        part(content);
        if padding > 0 {
            part(Bytes::from_static(&[0; 8]).slice(..usize::from(padding)));
        }
    }
}

/// The end of the body.
pub fn stdin_end() -> Bytes {
    Bytes::from_static(&[VERSION, STDIN, 0, 1, 0, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::{records::record, *};
    use crate::upstream::wire::answer::{Dialect, HeadReader, Step};
    use bytes::BytesMut;
    use proptest::prelude::*;

    fn framed(keep: bool, params: &[(&[u8], &[u8])]) -> Result<Vec<u8>, TooLarge> {
        let mut out = Vec::new();
        frame(keep, params.iter().copied(), &mut out).map(|()| out)
    }

    #[test]
    fn a_request_begins_with_its_role_and_its_parameters() {
        let expected = [
            &b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x01\x00\x00\x00\x00\x00"[..],
            b"\x01\x04\x00\x01\x00\x06\x02\x00\x01\x03Aabc\x00\x00",
            b"\x01\x04\x00\x01\x00\x00\x00\x00",
        ];
        assert_eq!(framed(true, &[(b"A", b"abc")]).unwrap(), expected.concat());
        assert_eq!(framed(false, &[]).unwrap()[10], 0);
    }

    #[test]
    fn long_strings_have_long_lengths() {
        let out = framed(false, &[(b"N", &[b'v'; 128])]).unwrap();
        assert_eq!(out[24..30], [1, 0x80, 0, 0, 128, b'N']);
        let out = framed(false, &[(b"N", &[b'v'; 127])]).unwrap();
        assert_eq!(out[24..27], [1, 127, b'N']);
    }

    #[test]
    fn the_largest_parameters_fit_and_one_byte_more_does_not() {
        let value = vec![b'v'; MAX_SIZE - 6];
        assert_eq!(framed(false, &[(b"N", &value)]).unwrap().len(), 24 + MAX_SIZE + 1 + 8);
        let mut out = b"before".to_vec();
        let params = [(&b"NN"[..], &value[..]), (b"more", b"")];
        let fault = frame(false, params.into_iter(), &mut out).unwrap_err();
        assert_eq!(fault.to_string(), "fastcgi request record is too big: 65542");
        assert_eq!(out, b"before");
    }

    /// The body, how it ended and what is to be logged, of output records behind a head that says five bytes.
    fn read(records: &[Vec<u8>]) -> (String, String, Vec<String>) {
        let mut reader = HeadReader::new(&Dialect::FastCgi(Reading::default()));
        let mut rest = BytesMut::from(&record(STDOUT, b"Content-Length: 5\r\n\r\n", 0)[..]);
        reader.parse(&mut rest, 64).unwrap();
        let head = reader.finish(rest.split().freeze());
        let mut body = reader.body(&head, false);
        rest.extend_from_slice(&records.concat());
        let mut out = Vec::new();
        let end = loop {
            match body.next(&mut rest) {
                Ok(Step::Piece(piece)) => out.extend_from_slice(&piece),
                Ok(Step::More) => break "more".to_owned(),
                Ok(Step::End) => break if body.is_clean() { "clean".to_owned() } else { "end".to_owned() },
                Err(failure) => break failure.to_string(),
            }
        };
        (String::from_utf8(out).unwrap(), end, body.notes().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_body_ends_with_what_comes_first() {
        let out = |text: &str| record(STDOUT, text.as_bytes(), 1);
        let said = |text: &str| record(STDERR, text.as_bytes(), 0);
        let (close, end, odd) = (record(STDOUT, b"", 0), record(END_REQUEST, &[0; 8], 3), vec![9]);
        let too_much = "upstream sent more data than specified in \"Content-Length\" header";
        let cases: [(&[Vec<u8>], &str, &str, &[&str]); 9] = [
            (&[out("hello"), close.clone(), end.clone()], "hello", "clean", &[]),
            (&[out("hel"), said("a."), out("lo"), end.clone()], "hello", "clean", &["FastCGI sent in stderr: \"a\""]),
            (&[out("hello"), end.clone(), odd.clone()], "hello", "end", &[]),
            (&[out("hello")], "hello", "more", &[]),
            (&[out("hello you"), said("unheard"), end.clone()], "hello", "end", &[too_much]),
            (&[out("hel"), close.clone(), odd.clone()], "hel", "upstream prematurely closed FastCGI stdout", &[]),
            (&[out("hel"), close, out("lo"), end.clone()], "hel", "upstream prematurely closed FastCGI stdout", &[]),
            (&[out("hel"), end], "hel", "upstream prematurely closed FastCGI request", &[]),
            (&[out("hel"), odd], "hel", "upstream sent unsupported FastCGI protocol version: 9", &[]),
        ];
        for (records, body, end, notes) in cases {
            let expected = (body.to_owned(), end.to_owned(), notes.iter().map(ToString::to_string).collect());
            assert_eq!(read(records), expected, "{records:?}");
        }
    }

    proptest! {
        #[test]
        fn a_body_comes_out_of_its_records(length in 0..100_000_usize) {
            let body: Bytes = (0..length).map(|at| at as u8).collect::<Vec<_>>().into();
            let mut bytes = Vec::new();
            stdin(body.clone(), |part| bytes.extend_from_slice(&part));
            prop_assert_eq!(bytes.len() % 8, 0);
            let (mut rest, mut out) = (&bytes[..], Vec::new());
            while let [VERSION, STDIN, 0, 1, high, low, padding, 0, content @ ..] = rest {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                prop_assert!((1..=PIECE).contains(&length));
                out.extend_from_slice(&content[..length]);
                rest = &content[length + usize::from(*padding)..];
            }
            prop_assert!(rest.is_empty());
            prop_assert_eq!(out, body);
        }
    }
}
