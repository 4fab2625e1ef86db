//! Dates in a format of the user's own (`strftime`, as glibc has it in the C locale).

use super::dates;
use jiff::{Timestamp, tz::Offset};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEK: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The widest a field is made: beyond any text that is of use.
const WIDEST: usize = 4096;

/// A moment as fields (`struct tm`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since the epoch, as `mktime` takes the fields for.
    unix: i64,
    year: i64,
    /// From 1 on.
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    /// From Sunday, which is 0.
    weekday: i64,
    /// From 1 on.
    day_of_year: i64,
    /// By ISO 8601, and the year it belongs to.
    week: i64,
    week_year: i64,
    /// Seconds east of Greenwich.
    offset: i64,
    zone: String,
}

impl Moment {
    /// A unix time as it is in Greenwich.
    pub fn utc(unix: i64) -> Self {
        let mut at = Self::shifted(unix, 0, "GMT".to_owned());
        at.unix = unix - i64::from(dates::local_offset(unix));
        at
    }

    /// As it is here.
    pub fn local(unix: i64) -> Self {
        let (offset, zone) = dates::local_zone(unix);
        Self::shifted(unix, offset, zone)
    }

    fn shifted(unix: i64, offset: i32, zone: String) -> Self {
        let at = Timestamp::from_second(unix + i64::from(offset)).unwrap_or(Timestamp::UNIX_EPOCH);
        let at = Offset::UTC.to_datetime(at);
        let week = at.date().iso_week_date();
        Self {
            unix,
            year: at.year().into(),
            month: at.month().into(),
            day: at.day().into(),
            hour: at.hour().into(),
            minute: at.minute().into(),
            second: at.second().into(),
            weekday: at.weekday().to_sunday_zero_offset().into(),
            day_of_year: at.day_of_year().into(),
            week: week.week().into(),
            week_year: week.year().into(),
            offset: offset.into(),
            zone,
        }
    }
}

/// Writes a moment in a format. What is no conversion stays as it stands; a NUL is the format's end.
pub fn strftime(format: &[u8], at: &Moment) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    let mut rest = &format[..memchr::memchr(0, format).unwrap_or(format.len())];
    while let Some(percent) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..percent]);
        let (shape, letter, length) = Shape::read(&rest[percent..]);
        let spec = &rest[percent..percent + length];
        rest = &rest[percent + length..];
        match letter.and_then(|letter| value(letter, at)) {
            Some(value) => shape.write(value, &mut out),
            None => out.extend_from_slice(spec),
        }
    }
    out.extend_from_slice(rest);
    out
}

/// What a conversion writes.
enum Value {
    /// Padded with the byte to a width.
    Number(i64, u8, usize),
    /// In capitals where `#` is given.
    Name(String),
    /// In small letters where `#` is given.
    Small(String),
    /// The same in either case.
    Format(Vec<u8>),
}

fn value(letter: u8, at: &Moment) -> Option<Value> {
    let two = |number: i64| Value::Number(number, b'0', 2);
    let blank = |number: i64| Value::Number(number, b' ', 2);
    let format = |format: &'static str| Value::Format(strftime(format.as_bytes(), at));
    let name =
        |names: &[&'static str], index: i64| usize::try_from(index).ok().and_then(|index| names.get(index)).copied();
    let half = if at.hour == 0 || at.hour == 12 { 12 } else { at.hour % 12 };
    Some(match letter {
        b'a' => Value::Name(name(&WEEK, at.weekday)?[..3].to_owned()),
        b'A' => Value::Name(name(&WEEK, at.weekday)?.to_owned()),
        b'b' | b'h' => Value::Name(name(&MONTHS, at.month - 1)?[..3].to_owned()),
        b'B' => Value::Name(name(&MONTHS, at.month - 1)?.to_owned()),
        b'c' => format("%a %b %e %H:%M:%S %Y"),
        b'C' => two(at.year.div_euclid(100)),
        b'd' => two(at.day),
        b'D' | b'x' => format("%m/%d/%y"),
        b'e' => blank(at.day),
        b'F' => format("%Y-%m-%d"),
        b'g' => two(at.week_year.rem_euclid(100)),
        b'G' => Value::Number(at.week_year, b'0', 1),
        b'H' => two(at.hour),
        b'I' => two(half),
        b'j' => Value::Number(at.day_of_year, b'0', 3),
        b'k' => blank(at.hour),
        b'l' => blank(half),
        b'm' => two(at.month),
        b'M' => two(at.minute),
        b'n' => Value::Name("\n".to_owned()),
        b'p' => Value::Small(if at.hour < 12 { "AM" } else { "PM" }.to_owned()),
        b'P' => Value::Name(if at.hour < 12 { "am" } else { "pm" }.to_owned()),
        b'r' => format("%I:%M:%S %p"),
        b'R' => format("%H:%M"),
        b's' => Value::Number(at.unix, b'0', 1),
        b'S' => two(at.second),
        b't' => Value::Name("\t".to_owned()),
        b'T' | b'X' => format("%H:%M:%S"),
        b'u' => Value::Number(if at.weekday == 0 { 7 } else { at.weekday }, b'0', 1),
        b'U' => two((at.day_of_year - 1 + 7 - at.weekday) / 7),
        b'V' => two(at.week),
        b'w' => Value::Number(at.weekday, b'0', 1),
        b'W' => two((at.day_of_year - 1 + 7 - (at.weekday + 6) % 7) / 7),
        b'y' => two(at.year.rem_euclid(100)),
        b'Y' => Value::Number(at.year, b'0', 1),
        b'z' => {
            let minutes = at.offset.abs() / 60;
            let sign = if at.offset < 0 { '-' } else { '+' };
            Value::Name(format!("{sign}{:02}{:02}", minutes / 60, minutes % 60))
        }
        b'Z' => Value::Small(at.zone.clone()),
        b'%' => Value::Name("%".to_owned()),
        _ => return None,
    })
}

/// What stands between `%` and the letter.
#[derive(Default)]
struct Shape {
    /// `_`, `-` or `0`.
    pad: Option<u8>,
    /// `^`
    upper: bool,
    /// `#`
    swap: bool,
    width: Option<usize>,
}

impl Shape {
    /// Of a text that begins with `%`: with the letter, and how long it is.
    fn read(text: &[u8]) -> (Self, Option<u8>, usize) {
        let mut shape = Self::default();
        let mut at = 1;
        while let Some(flag @ (b'_' | b'-' | b'0' | b'^' | b'#')) = text.get(at).copied() {
            match flag {
                b'^' => shape.upper = true,
                b'#' => shape.swap = true,
                pad => shape.pad = Some(pad),
            }
            at += 1;
        }
        while let Some(digit @ b'0'..=b'9') = text.get(at).copied() {
            let width = shape.width.unwrap_or(0).saturating_mul(10).saturating_add(usize::from(digit - b'0'));
            shape.width = Some(width.min(WIDEST));
            at += 1;
        }
        if let Some(b'E' | b'O') = text.get(at) {
            at += 1;
        }
        let letter = text.get(at).copied();
        (shape, letter, at + usize::from(letter.is_some()))
    }

    fn write(&self, value: Value, out: &mut Vec<u8>) {
        let text = match value {
            Value::Number(number, pad, width) => return self.number(number, pad, width, out),
            Value::Name(text) if self.upper || self.swap => text.to_uppercase(),
            Value::Name(text) => text,
            Value::Small(text) if self.swap => text.to_lowercase(),
            Value::Small(text) => {
                if self.upper {
                    text.to_uppercase()
                } else {
                    text
                }
            }
            Value::Format(text) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                if self.upper { text.to_uppercase() } else { text }
            }
        };
        let pad = if self.pad == Some(b'0') { b'0' } else { b' ' };
        out.extend(std::iter::repeat_n(pad, self.width.unwrap_or(0).saturating_sub(text.len())));
        out.extend_from_slice(text.as_bytes());
    }

    fn number(&self, number: i64, pad: u8, width: usize, out: &mut Vec<u8>) {
        let digits = number.unsigned_abs().to_string();
        if number < 0 {
            out.push(b'-');
        }
        let (fill, width) = match self.pad {
            Some(b'-') => (b' ', self.width.unwrap_or(0)),
            Some(b'_') => (b' ', self.width.unwrap_or(width)),
            Some(_) => (b'0', self.width.unwrap_or(width)),
            None => (pad, self.width.unwrap_or(width)),
        };
        out.extend(std::iter::repeat_n(fill, width.saturating_sub(digits.len())));
        out.extend_from_slice(digits.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_the_format_says() {
        // Tuesday, 1 December 2026 13:05:09 UTC.
        let at = Moment::utc(1_796_130_309);
        for (format, text) in [
            ("%A, %d-%b-%Y %H:%M:%S %Z", "Tuesday, 01-Dec-2026 13:05:09 GMT"),
            ("%a %B %h %e|%_d|%-d", "Tue December Dec  1| 1|1"),
            (
                "%c|%x|%X|%r|%R|%T|%D|%F",
                "Tue Dec  1 13:05:09 2026|12/01/26|13:05:09|01:05:09 PM|13:05|13:05:09|12/01/26|2026-12-01",
            ),
            ("%C %y %G %g %V %U %W %j %u %w", "20 26 2026 26 49 48 48 335 2 2"),
            ("%I %l %k %p %P %s", "01  1 13 PM pm 1796130309"),
            ("%z%n%t%%", "+0000\n\t%"),
            ("%^a %#p %#Z %5d %_5d %-5d %05e %10a %010a", "TUE pm gmt 00001     1     1 00001        Tue 0000000Tue"),
            ("%Ey %Od %Q %", "26 01 %Q %"),
            ("", ""),
            ("a\0b", "a"),
        ] {
            assert_eq!(String::from_utf8_lossy(&strftime(format.as_bytes(), &at)), text, "{format}");
        }
    }

    #[test]
    fn weeks_are_counted_three_ways() {
        // Friday, 1 January 2027, and the Sunday and the Monday after it.
        for (unix, weeks) in
            [(1_798_761_600, "53 2026 00 00"), (1_798_934_400, "53 2026 01 00"), (1_799_020_800, "01 2027 01 01")]
        {
            assert_eq!(String::from_utf8_lossy(&strftime(b"%V %G %U %W", &Moment::utc(unix))), weeks);
        }
    }
}
