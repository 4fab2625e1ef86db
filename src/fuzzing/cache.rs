//! What stands in the way of keeping answers: fields of upstreams and clients, and files that somebody else may have
//! written to.

use crate::{
    config::values::Mask,
    http::heads::{
        Fields,
        response::{Parser, Progress},
    },
    upstream::{
        cache::{
            Header, Key, Validity,
            key::{hexadecimal, of_name, variant},
            policy::{self, Said},
        },
        pass::settings::Steering,
    },
};
use bytes::Bytes;

/// The fields that say something of keeping an answer, and what has them ignored.
const STEERING: [(&str, u32); 5] = [
    ("vary", Steering::VARY),
    ("expires", Steering::EXPIRES),
    ("set-cookie", Steering::SET_COOKIE),
    ("cache-control", Steering::CACHE_CONTROL),
    ("x-accel-expires", Steering::X_EXPIRES),
];

/// Parts between empty lines: fields of an answer, fields of a request, two keys (a line each), and changes of a file, four
/// bytes each: where (two bytes), what, and how often.
pub(super) fn cache(data: &[u8]) {
    let (answer, rest) = part(data);
    let (request, rest) = part(rest);
    let (keys, changes) = part(rest);
    let (answer, request) = (fields(answer), fields(request));
    let said = policy(&answer, 1_000_000_000);
    policy(&answer, 0);
    let (one, other) = keys.split_at(memchr::memchr(b'\n', keys).unwrap_or(keys.len()));
    let keys = [one, other.strip_prefix(b"\n").unwrap_or(other)].map(|text| Key::new(text.to_vec()));
    let vary: Vec<&[u8]> = answer.get_all("vary").collect();
    variants(&keys, &vary.join(&b", "[..]), &request);
    files(&keys, &answer, said, changes);
    if let Some(digest) = of_name(changes) {
        let digits = &changes[changes.len() - 32..];
        assert_eq!(hexadecimal(&digest).as_bytes(), digits.to_ascii_lowercase());
    }
}

/// What stands before the first empty line, and what behind.
fn part(data: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memmem::find(data, b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (data, &[]),
    }
}

/// The fields of a head, as it is read from an upstream.
fn fields(text: &[u8]) -> Fields {
    let head = [b"HTTP/1.1 200 OK\r\n", text, b"\n\n"].concat();
    let mut parser = Parser::default();
    match parser.parse(&head, head.len()) {
        Ok(Progress::Complete(length)) => parser.finish(Bytes::copy_from_slice(&head[..length])).fields,
        _ => Fields::new(),
    }
}

/// Those of the fields that are wanted, by their lowercase names.
fn some(fields: &Fields, wanted: impl Fn(&[u8]) -> bool) -> Fields {
    let mut some = Fields::new();
    for field in fields {
        if wanted(&field.name.to_ascii_lowercase()) {
            some.add(field.clone());
        }
    }
    some
}

fn shouted(fields: &Fields) -> Fields {
    let mut shouted = Fields::new();
    fields.iter().for_each(|field| shouted.push(field.name.to_ascii_uppercase(), field.value.clone()));
    shouted
}

/// Only the fields that steer do, however they are spelt; one that is ignored might as well not be there; and what is
/// kept can be written down.
fn policy(fields: &Fields, now: i64) -> Said {
    let nothing = Said { keep: true, barred: false, validity: Validity::default(), vary: Bytes::new() };
    let own = some(fields, |name| STEERING.iter().any(|(known, _)| known.as_bytes() == name));
    for chosen in 0..1 << STEERING.len() {
        let ignored = |at: usize| chosen >> at & 1 == 1;
        let bits = (0..STEERING.len()).filter(|at| ignored(*at)).map(|at| STEERING[at].1).sum();
        let ignore = Mask::of(bits);
        let said = policy::read(fields, ignore, now, Validity::default());
        assert_eq!(policy::read(&own, ignore, now, Validity::default()), said, "the others are nothing to it");
        assert_eq!(policy::read(&shouted(fields), ignore, now, Validity::default()), said, "however they are spelt");
        let heeded = some(&own, |name| {
            let at = STEERING.iter().position(|(known, _)| known.as_bytes() == name);
            // That there is an X-Accel-Expires matters though it is ignored.
            name == b"x-accel-expires" || at.is_some_and(|at| !ignored(at))
        });
        assert_eq!(
            policy::read(&heeded, ignore, now, Validity::default()),
            said,
            "without those that are ignored: {bits}"
        );
        if chosen == (1 << STEERING.len()) - 1 {
            assert_eq!(said, nothing);
        }
        let Validity { until, updating, error } = said.validity;
        assert!(until >= 0 && updating >= 0 && error >= 0, "{said:?}");
        let never = [(2, "set-cookie", None), (0, "vary", Some(&b"*"[..]))];
        for (at, name, value) in never {
            let there = fields.get_all(name).any(|found| value.is_none_or(|value| found == value));
            assert!(!said.keep || ignored(at) || !there, "{name}: {said:?}");
        }
        assert!(!said.keep || said.vary.len() <= 128, "{said:?}");
        assert!(said.vary.is_empty() || fields.contains("vary") && !ignored(0), "{said:?}");
    }
    policy::read(fields, Mask::of(0), now, Validity::default())
}

/// A variant depends on the key and on the fields that are named, and on nothing else.
fn variants(keys: &[Key; 2], vary: &[u8], request: &Fields) {
    let of = |key: &Key, vary: &[u8], fields: &Fields| variant(&key.digest, vary, fields);
    let known = of(&keys[0], vary, request);
    let lower = vary.to_ascii_lowercase();
    let named = |name: &[u8]| lower.split(|byte| matches!(byte, b',' | b' ')).any(|word| word == name);
    for (fields, vary) in [(&some(request, named), vary), (&shouted(request), vary), (request, &lower)] {
        assert_eq!(of(&keys[0], vary, fields), known);
    }
    assert_eq!(of(&keys[1], vary, request) == known, keys[0].text == keys[1].text);
    for at in 0..request.iter().count() {
        let mut changed = Fields::new();
        for (other, field) in request.iter().enumerate() {
            let more = if other == at { &b"x"[..] } else { b"" };
            changed.push(field.name.clone(), [&field.value[..], more].concat());
        }
        let name = request.iter().nth(at).map(|field| field.name.to_ascii_lowercase());
        let matters = name.is_some_and(|name| named(&name));
        assert_eq!(of(&keys[0], vary, &changed) != known, matters, "field {at}");
    }
}

/// What was written is read back under its own key and no other, and what became of a file is an answer to one key at
/// most: the one that stands in it.
fn files(keys: &[Key; 2], answer: &Fields, said: Said, changes: &[u8]) {
    let head = format!("HTTP/1.1 200 OK\r\nX-Fields: {}\r\n\r\n", answer.iter().count());
    let text = |name: &str| answer.get(name).map(Bytes::copy_from_slice).unwrap_or_default();
    let mut header = Header {
        validity: said.validity,
        last_modified: -1,
        date: 1_000_000_000,
        crc: keys[0].crc,
        etag: text("etag"),
        vary: said.vary,
        variant: keys[1].digest,
        ..Header::default()
    };
    let start = header.preamble(&keys[0]).len();
    let (Ok(header_start), Ok(body_start)) = (u16::try_from(start), u16::try_from(start + head.len())) else { return };
    (header.header_start, header.body_start) = (header_start, body_start);
    let file = [&header.preamble(&keys[0])[..], head.as_bytes(), changes].concat();
    let read = |file: &[u8], key: &Key| Header::read(file, key, 65536).ok();
    assert_eq!(read(&file, &keys[0]), Some(written(&header)));
    assert_eq!(read(&file, &keys[1]).is_some(), keys[0].text == keys[1].text);
    assert!(Header::read(&file, &keys[0], usize::from(body_start) - 1).is_err(), "its head is longer");
    for cut in start..usize::from(body_start) {
        assert_eq!(read(&file[..cut], &keys[0]), None, "its head is cut off");
    }
    let (changes, _) = changes.as_chunks::<4>();
    let mut changed = file;
    for [high, low, byte, times] in changes.iter().take(64) {
        let at = usize::from(u16::from_be_bytes([*high, *low]));
        assert_eq!(read(&changed[..at.min(start - 1)], &keys[0]), None, "it is cut off");
        for place in changed.iter_mut().skip(at).take(usize::from(*times)) {
            *place ^= byte;
        }
        let found = keys.each_ref().map(|key| read(&changed, key).map(|header| fits(&changed, key, &header)));
        assert!(found[0].is_none() || found[1].is_none() || keys[0].text == keys[1].text);
        if let Ok(header) = Header::decode(&changed) {
            assert_eq!(Header::decode(&header.encode()), Ok(written(&header)));
        }
    }
}

/// A file is an answer to this key: it says so itself, and its parts are in it.
fn fits(file: &[u8], key: &Key, header: &Header) {
    let (start, body) = (usize::from(header.header_start), usize::from(header.body_start));
    assert!(start <= body && body <= file.len(), "{header:?}");
    assert_eq!((header.crc, start), (key.crc, header.preamble(key).len()));
    assert_eq!(file[start - 1 - key.text.len()..start - 1], key.text);
    assert!(header.vary.len() <= 128 && header.etag.len() <= 128, "{header:?}");
}

/// A header as a file has it: a tag that is too long is left out, and who has no variants is none.
fn written(header: &Header) -> Header {
    let mut written = header.clone();
    for text in [&mut written.etag, &mut written.vary] {
        if text.len() > 128 {
            *text = Bytes::new();
        }
    }
    if header.vary.is_empty() {
        written.variant = <[u8; 16]>::default();
    }
    written
}
