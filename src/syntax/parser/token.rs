//! Bytes to tokens, by nginx's rules of quoting.

use nom::{
    IResult, Parser,
    branch::alt,
    bytes::complete::{is_not, take, take_till, take_while, take_while1},
    character::complete::char,
    combinator::{map, opt, recognize, rest, value},
    multi::{many0_count, many1_count},
    sequence::{delimited, preceded},
};

/// One step of nginx's reader.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Space,
    /// `#` to the end of its line, which is not part of it.
    Comment,
    /// A word without quotes, as written.
    Bare(&'a [u8]),
    /// What stands between two quotes, as written.
    Quoted(&'a [u8]),
    /// A quote and everything behind it: the closing one is missing.
    Unclosed,
    Semicolon,
    Open,
    Close,
}

/// The next token; an error only where the text ends.
pub(super) fn token(text: &[u8]) -> IResult<&[u8], Token<'_>> {
    alt((
        value(Token::Space, take_while1(is_space)),
        value(Token::Comment, (char('#'), take_till(|byte| byte == b'\n'))),
        value(Token::Semicolon, char(';')),
        value(Token::Open, char('{')),
        value(Token::Close, char('}')),
        map(alt((quoted('"', b"\\\""), quoted('\'', b"\\'"))), Token::Quoted),
        value(Token::Unclosed, (alt((char('"'), char('\''))), rest)),
        map(bare, Token::Bare),
    ))
    .parse(text)
}

/// What nginx takes for space between words.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The value of a word as written: `\"`, `\'`, `\\`, `\t`, `\r` and `\n` are rewritten, any other backslash stays.
pub(super) fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        value.extend_from_slice(&rest[..at]);
        let (byte, length) = match rest.get(at + 1) {
            Some(same @ (b'"' | b'\'' | b'\\')) => (*same, 2),
            Some(b't') => (b'\t', 2),
            Some(b'r') => (b'\r', 2),
            Some(b'n') => (b'\n', 2),
            _ => (b'\\', 1),
        };
        value.push(byte);
        rest = &rest[at + length..];
    }
    value.extend_from_slice(rest);
    value
}

/// A string that ends; `special` are its quote and the backslash.
fn quoted<'a>(
    quote: char,
    special: &'static [u8],
) -> impl Parser<&'a [u8], Output = &'a [u8], Error = nom::error::Error<&'a [u8]>> {
    let content = many0_count(alt((is_not(special), preceded(char('\\'), take(1usize)))));
    delimited(char(quote), recognize(content), char(quote))
}

/// Everything up to a space, `;` or `{`. A backslash covers any of them, and `$` covers a `{` right behind
/// it, so that `${name}` needs no quotes.
fn bare(text: &[u8]) -> IResult<&[u8], &[u8]> {
    let escaped = recognize((char('\\'), opt(take(1usize))));
    let variable = recognize((char('$'), take_while(|byte| byte == b'{')));
    let plain = is_not(&b" \t\r\n;{\\$"[..]);
    recognize(many1_count(alt((plain, variable, escaped)))).parse(text)
}
