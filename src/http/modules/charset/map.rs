//! `charset_map`: how the bytes of one charset are written in another, and back.

use crate::{
    config::{Args, Slot, registry::on_statement_line},
    syntax::{Fault, Statement},
};
use bytes::Bytes;
use std::{collections::HashMap, ops::RangeInclusive, sync::Arc};

/// Bytes of one charset to bytes of another.
#[derive(Debug)]
pub(super) enum Table {
    /// Each byte is another byte.
    Bytes(Box<[u8; 256]>),
    /// Each byte is a character of UTF-8, written in up to three bytes.
    ToUtf8(Box<[Character; 256]>),
    /// Characters that have a byte; the others become `&#1234;`.
    FromUtf8(HashMap<u32, u8>),
}

impl Table {
    /// A text keeps its length, and each of its bytes its place.
    pub(super) fn keeps_length(&self) -> bool {
        matches!(self, Self::Bytes(_))
    }
}

/// The bytes of a character, as many as the first says.
pub(super) type Character = (u8, [u8; 3]);

/// All `charset_map`s of the configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Maps(Vec<Arc<CharsetMap>>);

#[derive(Debug)]
struct CharsetMap {
    one: Bytes,
    other: Bytes,
    there: Arc<Table>,
    back: Arc<Table>,
}

impl Maps {
    /// The table between two charsets, in either direction.
    pub(super) fn find(&self, from: &[u8], to: &[u8]) -> Option<&Arc<Table>> {
        self.0.iter().find_map(|map| match () {
            () if same(&map.one, from) && same(&map.other, to) => Some(&map.there),
            () if same(&map.other, from) && same(&map.one, to) => Some(&map.back),
            () => None,
        })
    }

    /// Whether a map names the charset.
    pub(super) fn know(&self, name: &[u8]) -> bool {
        self.0.iter().any(|map| same(&map.one, name) || same(&map.other, name))
    }
}

/// Charsets have names in any case.
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    one.eq_ignore_ascii_case(other)
}

impl Slot for Maps {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        let (one, other) = (&args.word(0).value[..], &args.word(1).value[..]);
        let between = |text: &[u8]| {
            let text = [text, b"\"", one, b"\" and \"", other, b"\""].concat();
            Fault::at(args.word(1).span, text)
        };
        if same(one, other) {
            return Err(between(b"\"charset_map\" between the same charsets "));
        }
        if same(one, b"utf-8") {
            let text = "\"charset_map\" with \"utf-8\" charset should be given in the second column";
            return Err(Fault::at(args.word(0).span, text));
        }
        if self.find(one, other).is_some() {
            return Err(between(b"duplicate \"charset_map\" between "));
        }
        let mut rows = if same(other, b"utf-8") { Rows::utf8() } else { Rows::bytes() };
        for row in args.block() {
            if let Err(fault) = rows.add(row) {
                args.scope.fault(on_statement_line(fault, row));
            }
        }
        let (there, back) = rows.tables();
        let (one, other) = (Bytes::copy_from_slice(one), Bytes::copy_from_slice(other));
        self.0.push(Arc::new(CharsetMap { one, other, there: Arc::new(there), back: Arc::new(back) }));
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        2..=2
    }

    fn block(&self) -> bool {
        true
    }
}

/// The tables of a block while its rows are read. ASCII is the same everywhere; what no row names is a `?`.
enum Rows {
    Bytes { there: Box<[u8; 256]>, back: Box<[u8; 256]> },
    Utf8 { there: Box<[Character; 256]>, back: HashMap<u32, u8> },
}

impl Rows {
    fn bytes() -> Self {
        let table: Box<[u8; 256]> = Box::new(std::array::from_fn(ascii));
        Self::Bytes { there: table.clone(), back: table }
    }

    fn utf8() -> Self {
        let there = Box::new(std::array::from_fn(|at| (1, [ascii(at), 0, 0])));
        Self::Utf8 { there, back: (0..128).map(|byte: u8| (u32::from(byte), byte)).collect() }
    }

    /// Reads a row: two numbers written in hexadecimal (`ngx_http_charset_map`).
    fn add(&mut self, row: &Statement) -> Result<(), Fault> {
        let [to] = &row.args[..] else {
            return Err(Fault::at(row.name.span, "invalid parameters number"));
        };
        let invalid =
            |word: &crate::syntax::Word| Fault::at(word.span, [b"invalid value \"", &word.value[..], b"\""].concat());
        let from = hexadecimal(&row.name.value).ok_or_else(|| invalid(&row.name))?;
        match self {
            Self::Bytes { there, back } => {
                let to = hexadecimal(&to.value).ok_or_else(|| invalid(to))?;
                there[usize::from(from)] = to;
                back[usize::from(to)] = from;
            }
            Self::Utf8 { there, back } => {
                let (length, bytes) = sequence(&to.value).ok_or_else(|| invalid(to))?;
                let Decoded::Character(character @ ..=0xffff, _) = decode(&bytes[..usize::from(length)]) else {
                    return Err(invalid(to));
                };
                there[usize::from(from)] = (length, bytes);
                back.insert(character, from);
            }
        }
        Ok(())
    }

    fn tables(self) -> (Table, Table) {
        match self {
            Self::Bytes { there, back } => (Table::Bytes(there), Table::Bytes(back)),
            Self::Utf8 { there, back } => (Table::ToUtf8(there), Table::FromUtf8(back)),
        }
    }
}

fn ascii(at: usize) -> u8 {
    u8::try_from(at).ok().filter(u8::is_ascii).unwrap_or(b'?')
}

/// A number up to `FF`.
fn hexadecimal(text: &[u8]) -> Option<u8> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_hexdigit);
    let number = std::str::from_utf8(text).ok().filter(|_| digits)?;
    u64::from_str_radix(number, 16).ok().and_then(|number| u8::try_from(number).ok())
}

/// Up to three bytes, two digits each.
fn sequence(text: &[u8]) -> Option<Character> {
    let mut bytes = [0; 3];
    if !text.len().is_multiple_of(2) || text.len() > 2 * bytes.len() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.chunks(2)) {
        *byte = hexadecimal(digits)?;
    }
    Some((u8::try_from(text.len() / 2).ok()?, bytes))
}

/// What stands at the start of a text in UTF-8 that is not ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A character, and in how many bytes.
    Character(u32, usize),
    /// So many bytes that are none.
    Invalid(usize),
    /// The text ends too early.
    Incomplete,
}

/// Reads a character (`ngx_utf8_decode`): as nginx does, any byte that is not ASCII may continue one.
pub(super) fn decode(text: &[u8]) -> Decoded {
    let Some(&first) = text.first() else { return Decoded::Incomplete };
    let (start, more, least) = match first {
        0xf0..=0xf7 => (first & 0x07, 3, 0x1_0000),
        0xe0..=0xef => (first & 0x0f, 2, 0x800),
        0xc2..=0xdf => (first & 0x1f, 1, 0x80),
        _ => return Decoded::Invalid(1),
    };
    let Some(rest) = text.get(1..=more) else { return Decoded::Incomplete };
    if let Some(at) = rest.iter().position(u8::is_ascii) {
        return Decoded::Invalid(at + 2);
    }
    match rest.iter().fold(u32::from(start), |value, byte| value << 6 | u32::from(byte & 0x3f)) {
        value if value >= least => Decoded::Character(value, more + 1),
        _ => Decoded::Invalid(more + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::http_fault;

    #[test]
    fn characters_are_read_as_nginx_reads_them() {
        for (text, expected) in [
            (&b"\xd0\x96x"[..], Decoded::Character(0x416, 2)),
            (b"\xe2\x82\xac", Decoded::Character(0x20ac, 3)),
            (b"\xf0\x9f\x98\x80", Decoded::Character(0x1f600, 4)),
            (b"\xd0\xff", Decoded::Character(0x43f, 2)),
            (b"\xe2\x82", Decoded::Incomplete),
            (b"\x80", Decoded::Invalid(1)),
            (b"\xf8", Decoded::Invalid(1)),
            (b"\xe2\x82x", Decoded::Invalid(3)),
            (b"\xe0\x80\x80", Decoded::Invalid(3)),
        ] {
            assert_eq!(decode(text), expected, "{text:02x?}");
        }
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        for (text, message) in [
            ("charset_map a A { }", "\"charset_map\" between the same charsets \"a\" and \"A\""),
            ("charset_map UTF-8 a { }", "\"charset_map\" with \"utf-8\" charset should be given in the second column"),
            ("charset_map a b { } charset_map b a { }", "duplicate \"charset_map\" between \"b\" and \"a\""),
            ("charset_map a b { 1; }", "invalid parameters number"),
            ("charset_map a b { 1 2 3; }", "invalid parameters number"),
            ("charset_map a b { 100 2; }", "invalid value \"100\""),
            ("charset_map a b { 1 x; }", "invalid value \"x\""),
            ("charset_map a utf-8 { 80 E282AC00; }", "invalid value \"E282AC00\""),
            ("charset_map a utf-8 { 80 E28; }", "invalid value \"E28\""),
            ("charset_map a utf-8 { 41 41; }", "invalid value \"41\""),
        ] {
            assert_eq!(http_fault(&format!("{text} server {{ }}")), message, "{text}");
        }
    }
}
