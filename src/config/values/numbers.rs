//! Flags, numbers, sizes and times (`ngx_conf_set_*_slot`, `ngx_parse_size`, `ngx_parse_time`).

use crate::config::args::{Args, FromArgs};
use crate::syntax::Fault;
use std::time::Duration;

/// Bytes, with `k` and `m`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size(pub usize);

/// Bytes, with `k`, `m` and `g`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offset(pub u64);

/// A time kept to the millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Msec(pub Duration);

/// A time kept to the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seconds(pub u64);

impl Msec {
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromArgs for bool {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        if word.value.eq_ignore_ascii_case(b"on") {
            return Ok(true);
        }
        if word.value.eq_ignore_ascii_case(b"off") {
            return Ok(false);
        }
        let name = &args.statement.name.value;
        let text =
            [b"invalid value \"", &word.value[..], b"\" in \"", name, b"\" directive, it must be \"on\" or \"off\""];
        Err(Fault::at(word.span, text.concat()))
    }
}

impl FromArgs for usize {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        parse_number(&word.value).ok_or_else(|| args.directive(word, "invalid number"))
    }
}

impl FromArgs for Size {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        parse_size(&word.value).map(Self).ok_or_else(|| args.directive(word, "invalid value"))
    }
}

impl FromArgs for Offset {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        parse_offset(&word.value).map(Self).ok_or_else(|| args.directive(word, "invalid value"))
    }
}

impl FromArgs for Msec {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        parse_time(&word.value, true)
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(|| args.directive(word, "invalid value"))
    }
}

impl FromArgs for Seconds {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        parse_time(&word.value, false).map(Self).ok_or_else(|| args.directive(word, "invalid value"))
    }
}

/// Decimal digits only (`ngx_atoi`).
pub fn parse_number(text: &[u8]) -> Option<usize> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse::<usize>().ok().filter(|number| isize::try_from(*number).is_ok())
}

/// A port that one can connect to.
pub fn parse_port(text: &[u8]) -> Option<u16> {
    parse_number(text).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

/// `ngx_parse_size`: a number with `k` or `m`.
pub fn parse_size(text: &[u8]) -> Option<usize> {
    let (digits, unit) = match text.split_last()? {
        (b'k' | b'K', digits) => (digits, 1 << 10),
        (b'm' | b'M', digits) => (digits, 1 << 20),
        _ => (text, 1),
    };
    parse_number(digits)?.checked_mul(unit).filter(|size| isize::try_from(*size).is_ok())
}

/// `ngx_parse_offset`: a number with `k`, `m` or `g`.
pub fn parse_offset(text: &[u8]) -> Option<u64> {
    let (digits, unit) = match text.split_last()? {
        (b'k' | b'K', digits) => (digits, 1 << 10),
        (b'm' | b'M', digits) => (digits, 1 << 20),
        (b'g' | b'G', digits) => (digits, 1 << 30),
        _ => (text, 1),
    };
    let number = u64::try_from(parse_number(digits)?).ok()?;
    number.checked_mul(unit).filter(|size| i64::try_from(*size).is_ok())
}

/// `ngx_parse_time`: numbers with units that must descend, `1h 30m` or `1h30m`; a bare number is seconds.
/// The answer is in milliseconds or in whole seconds; `ms` is legal only in the former.
pub fn parse_time(text: &[u8], milliseconds: bool) -> Option<u64> {
    // The rank of a unit must grow along the text; year and month may not follow each other's smaller kin.
    const UNITS: [(&[u8], u8, u64); 8] = [
        (b"y", 1, 60 * 60 * 24 * 365),
        (b"M", 2, 60 * 60 * 24 * 30),
        (b"w", 3, 60 * 60 * 24 * 7),
        (b"d", 4, 60 * 60 * 24),
        (b"h", 5, 60 * 60),
        (b"m", 6, 60),
        (b"s", 7, 1),
        (b"ms", 8, 0),
    ];
    let scale = if milliseconds { 1000 } else { 1 };
    let mut rest = text;
    let mut rank = 0;
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let value = u64::try_from(parse_number(&rest[..digits])?).ok()?;
        rest = &rest[digits..];
        let letters = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        let unit = &rest[..letters];
        rest = &rest[letters..];
        let spaces = rest.iter().take_while(|byte| **byte == b' ').count();
        rest = &rest[spaces..];
        let (this, seconds) = if unit.is_empty() {
            if rank >= 7 || !rest.is_empty() && spaces == 0 {
                return None;
            }
            (9, 1)
        } else {
            let &(_, this, seconds) = UNITS.iter().find(|(name, ..)| *name == unit)?;
            (this, seconds)
        };
        if this <= rank || rank == 9 || this == 8 && !milliseconds {
            return None;
        }
        rank = this;
        let step = if this == 8 { value } else { value.checked_mul(seconds)?.checked_mul(scale)? };
        total = total.checked_add(step)?;
    }
    i64::try_from(total).is_ok().then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_offsets_know_their_units() {
        assert_eq!(parse_size(b"8k"), Some(8192));
        assert_eq!(parse_size(b"1M"), Some(1 << 20));
        assert_eq!(parse_size(b"1g"), None);
        assert_eq!(parse_size(b"k"), None);
        assert_eq!(parse_size(b"-1"), None);
        assert_eq!(parse_offset(b"2g"), Some(2 << 30));
        assert_eq!(parse_offset(b"9223372036854775807g"), None);
    }

    #[test]
    fn times_add_up_and_descend() {
        for (text, ms, s) in [
            ("60", Some(60_000), Some(60)),
            ("1h30m", Some(5_400_000), Some(5_400)),
            ("1h 30m", Some(5_400_000), Some(5_400)),
            ("500ms", Some(500), None),
            ("1s500ms", Some(1_500), None),
            ("30m1h", None, None),
            ("1x", None, None),
            ("", None, None),
            ("1M", Some(2_592_000_000), Some(2_592_000)),
            ("s", None, None),
        ] {
            assert_eq!((parse_time(text.as_bytes(), true), parse_time(text.as_bytes(), false)), (ms, s), "{text}");
        }
    }
}
