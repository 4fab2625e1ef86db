//! Dates as headers and logs write them.

use std::sync::OnceLock;

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEK: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// 9999-12-31 23:59:59, the last moment nginx prints.
const LAST: i64 = 253_402_300_799;

/// A moment as fields: `unix` seconds seen `offset` seconds east of Greenwich, held within 1970 and 9999 as
/// `ngx_gmtime` does.
fn fields(unix: i64, offset: i32) -> DateTime {
    let shifted = unix.saturating_add(i64::from(offset)).clamp(0, LAST);
    let epoch = Offset::UTC.to_datetime(Timestamp::UNIX_EPOCH);
    epoch.saturating_add(SignedDuration::from_secs(shifted))
}

fn month(at: &DateTime) -> &'static str {
    usize::try_from(at.month() - 1).ok().and_then(|index| MONTHS.get(index)).copied().unwrap_or("Jan")
}

fn weekday(at: &DateTime) -> &'static str {
    usize::try_from(at.weekday().to_sunday_zero_offset()).ok().and_then(|day| WEEK.get(day)).copied().unwrap_or("Sun")
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` of a unix time: RFC 9110 section 5.6.7, `ngx_http_time`.
pub fn http_date(unix: i64) -> Vec<u8> {
    let at = fields(unix, 0);
    let (day, month, year) = (at.day(), month(&at), at.year());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    format!("{}, {day:02} {month} {year:4} {hour:02}:{minute:02}:{second:02} GMT", weekday(&at)).into_bytes()
}

/// `Thu, 31-Dec-37 23:55:55 GMT` of a unix time, for `expires=` of a cookie; after 2037 the year has four digits
/// (`ngx_http_cookie_time`).
pub fn cookie_time(unix: i64) -> String {
    let at = fields(unix, 0);
    let year = if at.year() > 2037 { at.year().to_string() } else { format!("{:02}", at.year() % 100) };
    let (day, month) = (at.day(), month(&at));
    format!("{}, {day:02}-{month}-{year} {:02}:{:02}:{:02} GMT", weekday(&at), at.hour(), at.minute(), at.second())
}

/// `$time_local`: `21/Nov/2026:10:00:00 +0000`. `offset` is in seconds east of Greenwich.
pub fn log_time(unix: i64, offset: i32) -> String {
    let at = fields(unix, offset);
    let (sign, hours, minutes) = zone(offset);
    let (day, month, year) = (at.day(), month(&at), at.year());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    format!("{day:02}/{month}/{year}:{hour:02}:{minute:02}:{second:02} {sign}{hours:02}{minutes:02}")
}

/// `$time_iso8601`: `2026-11-21T10:00:00+00:00`. `offset` is in seconds east of Greenwich.
pub fn iso8601(unix: i64, offset: i32) -> String {
    let at = fields(unix, offset);
    let (sign, hours, minutes) = zone(offset);
    let (year, month, day) = (at.year(), at.month(), at.day());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    format!("{year:4}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{sign}{hours:02}:{minutes:02}")
}

/// The time of a file in a page of `autoindex`: `21-Nov-2026 10:00`. `offset` is in seconds east of Greenwich.
pub fn index_time(unix: i64, offset: i32) -> String {
    let at = fields(unix, offset);
    format!("{:02}-{}-{} {:02}:{:02}", at.day(), month(&at), at.year(), at.hour(), at.minute())
}

/// Sign, hours and minutes of an offset. Like nginx it forgets seconds, so `-00:00:30` is `+00:00`.
fn zone(offset: i32) -> (char, i32, i32) {
    let minutes = offset / 60;
    (if minutes < 0 { '-' } else { '+' }, (minutes / 60).abs(), (minutes % 60).abs())
}

/// How far local time is east of Greenwich at that moment, in seconds: `TZ`, else `/etc/localtime`, else none.
/// The zone is read once, at the first call.
pub fn local_offset(unix: i64) -> i32 {
    Timestamp::from_second(unix).map_or(0, |at| here().to_offset(at).seconds())
}

/// The same, with the name of the zone.
pub fn local_zone(unix: i64) -> (i32, String) {
    let at = Timestamp::from_second(unix).unwrap_or(Timestamp::UNIX_EPOCH);
    let zone = here().to_offset_info(at);
    (zone.offset().seconds(), zone.abbreviation().to_owned())
}

fn here() -> &'static TimeZone {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    ZONE.get_or_init(|| TimeZone::try_system().unwrap_or(TimeZone::UTC))
}

/// Reads a date in any of the three forms of RFC 9110 section 5.6.7, exactly as lenient and as strict as
/// `ngx_parse_http_time`: names are looked at only as far as they differ, the weekday and the zone not at all.
pub fn parse_http_time(value: &[u8]) -> Option<i64> {
    let cut = value.iter().position(|byte| matches!(byte, b',' | b' '))?;
    let mut text = Reader { rest: &value[cut + 1..] };
    while text.peek() == b' ' {
        text.skip(1);
    }
    if text.rest.len() < 18 {
        return None;
    }
    let (year, month, day, clock);
    if value[cut] == b' ' {
        // Sun Nov  6 08:49:37 1994
        month = text.month()?;
        text.skip(4);
        if text.peek() == b' ' {
            text.skip(1);
        }
        let first = text.digits(1)?;
        day = if text.peek() == b' ' { first } else { first * 10 + text.digits(1)? };
        if text.rest.len() < 14 {
            return None;
        }
        text.expect(b' ')?;
        clock = text.clock()?;
        text.expect(b' ')?;
        year = text.digits(4)?;
    } else {
        day = text.digits(2)?;
        let separator = text.peek();
        match separator {
            // Sun, 06 Nov 1994 08:49:37 GMT
            b' ' if text.rest.len() >= 18 => {}
            // Sunday, 06-Nov-94 08:49:37 GMT
            b'-' => {}
            _ => return None,
        }
        text.skip(1);
        month = text.month()?;
        text.skip(3);
        text.expect(separator)?;
        year = if separator == b' ' {
            text.digits(4)?
        } else {
            let year = text.digits(2)?;
            year + if year < 70 { 2000 } else { 1900 }
        };
        text.expect(b' ')?;
        clock = text.clock()?;
    }
    let (hour, minute, second) = clock;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if hour > 23 || minute > 59 || second > 59 || day > length {
        return None;
    }
    Some(days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Day 0 is the day before the first, as in nginx.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that start in March put the leap day at their end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// What is left to read of a date. Behind the end it reads NUL, which is no digit and no letter.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn at(&self, index: usize) -> u8 {
        self.rest.get(index).copied().unwrap_or(0)
    }

    fn peek(&self) -> u8 {
        self.at(0)
    }

    fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek() == byte).then(|| self.skip(1))
    }

    fn digits(&mut self, count: usize) -> Option<i64> {
        let digits = self.rest.get(..count)?;
        let value = digits
            .iter()
            .try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit - b'0')))?;
        self.skip(count);
        Some(value)
    }

    /// The month that is meant, 1 to 12; nothing is skipped.
    fn month(&self) -> Option<i64> {
        Some(match (self.peek(), self.at(1), self.at(2)) {
            (b'J', b'a', _) => 1,
            (b'F', _, _) => 2,
            (b'M', _, b'r') => 3,
            (b'A', b'p', _) => 4,
            (b'M', _, _) => 5,
            (b'J', _, b'n') => 6,
            (b'J', _, _) => 7,
            (b'A', _, _) => 8,
            (b'S', _, _) => 9,
            (b'O', _, _) => 10,
            (b'N', _, _) => 11,
            (b'D', _, _) => 12,
            _ => return None,
        })
    }

    /// `HH:MM:SS`.
    fn clock(&mut self) -> Option<(i64, i64, i64)> {
        let hour = self.digits(2)?;
        self.expect(b':')?;
        let minute = self.digits(2)?;
        self.expect(b':')?;
        Some((hour, minute, self.digits(2)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun Nov  6 08:49:37 1994, the moment of RFC 9110.
    const MOMENT: i64 = 784_111_777;

    #[test]
    fn all_three_forms_are_read() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(MOMENT)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(MOMENT)),
            ("Sun Nov  6 08:49:37 1994", Some(MOMENT)),
            ("Sun Nov 16 08:49:37 1994", Some(MOMENT + 864_000)),
            ("Sun Nov 6 08:49:37 1994 ", Some(MOMENT)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Thu, 01-Jan-70 00:00:00 GMT", Some(0)),
            ("Tue, 29 Feb 2000 23:59:59 GMT", Some(951_868_799)),
            ("Tue, 01-Jan-69 00:00:00 GMT", Some(3_124_224_000)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(LAST)),
            ("Mon, 01 Jan 1900 00:00:00 GMT", Some(-2_208_988_800)),
            ("Sat, 31 Jan 2026 10:00:00 GMT", Some(1_769_853_600)),
        ] {
            assert_eq!(parse_http_time(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn what_does_not_matter_is_not_looked_at() {
        for text in [
            "x, 06 Nov 1994 08:49:37",
            ",06 Nov 1994 08:49:37",
            "Mon,   06 Nov 1994 08:49:37 +0200",
            "Sun, 06 NxY 1994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37x",
            "x Nov  6 08:49:37 1994",
            "x NovX 6 08:49:37 1994",
        ] {
            assert_eq!(parse_http_time(text.as_bytes()), Some(MOMENT), "{text}");
        }
        // Day 0 is the last of the month before.
        assert_eq!(parse_http_time(b"x, 00 Mar 2000 00:00:00 GMT"), parse_http_time(b"x, 29 Feb 2000 00:00:00 GMT"));
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "0",
            "784111777",
            "Sun, 06 Nov 1994 08:49:3",
            "Sun, 06 Nov 1994",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 06-Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Thu, 29 Feb 2001 00:00:00 GMT",
            "Mon, 29 Feb 1900 00:00:00 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 06 Nov 1994 08:49:60 GMT",
            "Sun, 06 Nov 1994 08-49-37 GMT",
            "Sun Nov  6 08:49:37 94",
            "Sun Nov  6 08:49:37",
            "Sun Nov x6 08:49:37 1994",
        ] {
            assert_eq!(parse_http_time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn moments_are_written_as_headers_want_them() {
        for (unix, http, cookie) in [
            (MOMENT, "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06-Nov-94 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01-Jan-70 00:00:00 GMT"),
            (-1, "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 01-Jan-70 00:00:00 GMT"),
            (2_145_916_799, "Thu, 31 Dec 2037 23:59:59 GMT", "Thu, 31-Dec-37 23:59:59 GMT"),
            (2_145_916_800, "Fri, 01 Jan 2038 00:00:00 GMT", "Fri, 01-Jan-2038 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT", "Tue, 29-Feb-00 00:00:00 GMT"),
            (i64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31-Dec-9999 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(unix), http.as_bytes());
            assert_eq!(cookie_time(unix), cookie);
        }
    }

    #[test]
    fn moments_are_written_as_logs_want_them() {
        for (offset, local, iso) in [
            (0, "06/Nov/1994:08:49:37 +0000", "1994-11-06T08:49:37+00:00"),
            (7200, "06/Nov/1994:10:49:37 +0200", "1994-11-06T10:49:37+02:00"),
            (-34_200, "05/Nov/1994:23:19:37 -0930", "1994-11-05T23:19:37-09:30"),
            (20_700, "06/Nov/1994:14:34:37 +0545", "1994-11-06T14:34:37+05:45"),
            (-30, "06/Nov/1994:08:49:07 +0000", "1994-11-06T08:49:07+00:00"),
        ] {
            assert_eq!(log_time(MOMENT, offset), local);
            assert_eq!(iso8601(MOMENT, offset), iso);
        }
    }

    #[test]
    fn the_local_offset_is_less_than_a_day() {
        assert!(local_offset(MOMENT).abs() < 86_400);
        assert_eq!(local_offset(i64::MAX), 0);
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(unix in 0..=LAST) {
            prop_assert_eq!(parse_http_time(&http_date(unix)), Some(unix));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[A-Z]?[a-z]{0,6}[, ]{0,2}[0-9JFMASOND ,:a-z-]{0,30}") {
            let _ = parse_http_time(text.as_bytes());
        }
    }
}
