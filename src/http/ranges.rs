//! Byte ranges: what of an answer a `Range` header asks for, and how the parts are wrapped.

use std::ops::Range;

/// What becomes of an answer with status 200 and a known length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It is sent whole.
    Ignore,
    /// 206 with this part of it.
    Single(Range<u64>),
    /// 206 with these parts of it, in the order asked for, as `multipart/byteranges`.
    Multi(Vec<Range<u64>>),
    /// 416 with [`unsatisfied`] as its `Content-Range`.
    Unsatisfiable,
}

/// `max_ranges` when the directive is not used.
pub const UNLIMITED: u32 = i32::MAX as u32;

/// Reads a `Range` header against a body of `length` bytes, as `ngx_http_range_parse` does. `max_ranges` is the
/// directive; 0 switches ranges off, and a request for more than it allows is answered whole.
///
/// Several ranges together must not be longer than the body; and where `max_ranges` was not set the framing counts
/// as 256 bytes each, of which 4096 are free.
pub fn plan(length: u64, header: &[u8], max_ranges: u32) -> Plan {
    let Some((unit, list)) = header.split_at_checked(6) else { return Plan::Ignore };
    let Ok(length) = i64::try_from(length) else { return Plan::Ignore };
    if max_ranges == 0 || list.is_empty() || !unit.eq_ignore_ascii_case(b"bytes=") {
        return Plan::Ignore;
    }
    let mut ranges = Vec::new();
    let mut size: i64 = 0;
    for item in list.split(|&byte| byte == b',') {
        let Some((start, end)) = bounds(item, length) else { return Plan::Unsatisfiable };
        if start < end {
            let Some(sum) = size.checked_add(end - start) else { return Plan::Unsatisfiable };
            size = sum;
            if ranges.len() >= max_ranges as usize {
                return Plan::Ignore;
            }
            ranges.push(start.unsigned_abs()..end.unsigned_abs());
        } else if start == 0 {
            return Plan::Ignore;
        }
    }
    match ranges.len() {
        0 => Plan::Unsatisfiable,
        1 => Plan::Single(ranges.swap_remove(0)),
        _ if size > length => Plan::Ignore,
        count if max_ranges == UNLIMITED && framed(size, count) > length.saturating_add(4096) => Plan::Ignore,
        _ => Plan::Multi(ranges),
    }
}

/// The bytes of `count` parts with a guess at their headers.
fn framed(size: i64, count: usize) -> i64 {
    size.saturating_add(i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(256))
}

/// First byte and one past the last of one item of the list; the first may lie behind the last when the item asks
/// for nothing that is there. `None` if it cannot be read.
fn bounds(item: &[u8], length: i64) -> Option<(i64, i64)> {
    let mut rest = item;
    skip_spaces(&mut rest);
    let start = match rest {
        [b'-', after @ ..] => {
            rest = after;
            None
        }
        _ => {
            let start = number(&mut rest)?;
            skip_spaces(&mut rest);
            rest = rest.strip_prefix(b"-")?;
            skip_spaces(&mut rest);
            if rest.is_empty() {
                return Some((start, length));
            }
            Some(start)
        }
    };
    let end = number(&mut rest)?;
    skip_spaces(&mut rest);
    if !rest.is_empty() {
        return None;
    }
    Some(match start {
        Some(start) if end >= length => (start, length),
        Some(start) => (start, end + 1),
        None => ((length - end).max(0), length),
    })
}

/// Passes over spaces.
pub fn skip_spaces(rest: &mut &[u8]) {
    while let Some(after) = rest.strip_prefix(b" ") {
        *rest = after;
    }
}

/// The decimal number that must come next, if it fits.
pub fn number(rest: &mut &[u8]) -> Option<i64> {
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, after) = rest.split_at_checked(digits)?;
    *rest = after;
    str::from_utf8(number).ok()?.parse().ok()
}

/// `Content-Range` of a 206 with one part, and the line in each part of several: `bytes 0-99/1000`.
pub fn content_range(range: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1))
}

/// Reads a `Content-Range`: the part, and the length of the whole, which is `None` where it says `*`
/// (`ngx_http_slice_parse_content_range`).
pub fn parse_content_range(value: &[u8]) -> Option<(Range<u64>, Option<u64>)> {
    let mut rest = value.strip_prefix(b"bytes ")?;
    let mut next = |before: &[u8]| {
        rest = rest.strip_prefix(before)?;
        skip_spaces(&mut rest);
        let number = match rest {
            [b'*', behind @ ..] if before == b"/" => {
                rest = behind;
                None
            }
            _ => Some(number(&mut rest)?.unsigned_abs()),
        };
        skip_spaces(&mut rest);
        Some(number)
    };
    let (start, last, complete) = (next(b"")??, next(b"-")??, next(b"/")?);
    rest.is_empty().then_some((start..last + 1, complete))
}

/// `Content-Range` of a 416: `bytes */1000`.
pub fn unsatisfied(length: u64) -> String {
    format!("bytes */{length}")
}

/// The framing of a `multipart/byteranges` body (`ngx_http_range_multipart_header`).
///
/// The body is, for each range, [`Self::part`] and the bytes of the range, then [`Self::close`].
#[derive(Clone, Debug)]
pub struct Multipart {
    boundary: String,
    /// All of a part's head up to the numbers.
    head: Vec<u8>,
    length: u64,
}

impl Multipart {
    /// `boundary` is any number not used shortly before; `content_type` is the whole body's, charset included,
    /// empty if it has none; `length` is the whole body's.
    pub fn new(boundary: u64, content_type: &[u8], length: u64) -> Self {
        let boundary = format!("{boundary:020}");
        let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
        if !content_type.is_empty() {
            head.extend(b"Content-Type: ");
            head.extend(content_type);
            head.extend(b"\r\n");
        }
        head.extend(b"Content-Range: ");
        Self { boundary, head, length }
    }

    /// The `Content-Type` of the answer.
    pub fn content_type(&self) -> String {
        format!("multipart/byteranges; boundary={}", self.boundary)
    }

    /// What stands before the bytes of a range.
    pub fn part(&self, range: &Range<u64>) -> Vec<u8> {
        let mut part = self.head.clone();
        part.extend(content_range(range, self.length).as_bytes());
        part.extend(b"\r\n\r\n");
        part
    }

    /// What stands behind the last range.
    pub fn close(&self) -> String {
        format!("\r\n--{}--\r\n", self.boundary)
    }

    /// The `Content-Length` of the answer.
    pub fn content_length(&self, ranges: &[Range<u64>]) -> u64 {
        let part = |range: &Range<u64>| self.part(range).len() as u64 + range.end.saturating_sub(range.start);
        ranges.iter().map(part).sum::<u64>() + self.close().len() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn planned(header: &str, max_ranges: u32) -> String {
        match plan(1000, header.as_bytes(), max_ranges) {
            Plan::Ignore => "200".into(),
            Plan::Unsatisfiable => "416".into(),
            Plan::Single(range) => format!("{}-{}", range.start, range.end - 1),
            Plan::Multi(ranges) => {
                ranges.iter().map(|range| format!("{}-{}", range.start, range.end - 1)).collect::<Vec<_>>().join(",")
            }
        }
    }

    #[test]
    fn headers_are_answered_as_by_nginx() {
        // Checked against nginx 1.31.5 with a file of 1000 bytes.
        for (header, expected) in [
            ("bytes=0-0", "0-0"),
            ("bytes=0-99", "0-99"),
            ("bytes=0-", "0-999"),
            ("bytes=990-", "990-999"),
            ("bytes=990-5000", "990-999"),
            ("bytes=-1", "999-999"),
            ("bytes=-1000", "0-999"),
            ("bytes=-5000", "0-999"),
            ("BYTES= 5 - 9 ", "5-9"),
            ("bytes=0-9223372036854775807", "0-999"),
            ("bytes=0-9223372036854775808", "416"),
            ("bytes=1000-", "416"),
            ("bytes=1000-1001", "416"),
            ("bytes=5-3", "416"),
            ("bytes=-0", "416"),
            ("bytes=0-0,", "416"),
            ("bytes=,0-0", "416"),
            ("bytes=- 5", "416"),
            ("bytes=1-2-3", "416"),
            ("bytes=\t1-2", "416"),
            ("bytes=a", "416"),
            ("bytes=-", "416"),
            ("bytes=", "200"),
            ("bytes", "200"),
            ("", "200"),
            ("items=0-5", "200"),
            ("bytes =0-1", "200"),
            ("bytes=0-1,5-6", "0-1,5-6"),
            ("bytes=5-6, 0-1", "5-6,0-1"),
            ("bytes=0-1,2000-,-1", "0-1,999-999"),
            ("bytes=0-1,2000-", "0-1"),
            ("bytes=0-1,x", "416"),
            ("bytes=0-499,500-999", "0-499,500-999"),
            ("bytes=0-500,500-999", "200"),
            ("bytes=0-,0-", "200"),
        ] {
            assert_eq!(planned(header, UNLIMITED), expected, "{header}");
        }
    }

    #[test]
    fn more_ranges_than_allowed_are_ignored() {
        for (max_ranges, one, two) in [(0, "200", "200"), (1, "0-1", "200"), (2, "0-1", "0-1,5-6")] {
            assert_eq!(planned("bytes=0-1", max_ranges), one);
            assert_eq!(planned("bytes=0-1,5-6", max_ranges), two);
            assert_eq!(planned("bytes=0-1,2000-", max_ranges), one);
        }
    }

    #[test]
    fn many_small_ranges_are_ignored_unless_max_ranges_allows_them() {
        let ranges = |count| format!("bytes={}", vec!["1-2"; count].join(","));
        assert!(planned(&ranges(19), UNLIMITED).starts_with("1-2,1-2"));
        assert_eq!(planned(&ranges(20), UNLIMITED), "200");
        assert!(planned(&ranges(20), 100).starts_with("1-2,1-2"));
    }

    #[test]
    fn an_empty_body_has_no_ranges() {
        for (header, expected) in
            [("bytes=0-", Plan::Ignore), ("bytes=-5", Plan::Ignore), ("bytes=1-", Plan::Unsatisfiable)]
        {
            assert_eq!(plan(0, header.as_bytes(), UNLIMITED), expected, "{header}");
        }
    }

    #[test]
    fn a_content_range_is_read_with_any_spaces() {
        for (value, range) in [
            ("bytes 0-9/100", Some((0..10, Some(100)))),
            ("bytes  5 - 9 / 100 ", Some((5..10, Some(100)))),
            ("bytes 5-9/*", Some((5..10, None))),
            ("bytes 5-9/* ", Some((5..10, None))),
            ("bytes 5-9/**", None),
            ("bytes */100", None),
            ("bytes=0-9/100", None),
            ("bytes 0-9", None),
            ("bytes 0-/9", None),
            ("bytes 0-9223372036854775808/9", None),
            ("", None),
        ] {
            assert_eq!(parse_content_range(value.as_bytes()), range, "{value}");
        }
    }

    #[test]
    fn parts_are_framed_as_by_nginx() {
        let ranges = [0..2, 998..1000];
        let frame = Multipart::new(7, b"text/plain; charset=utf-8", 1000);
        assert_eq!(frame.content_type(), "multipart/byteranges; boundary=00000000000000000007");
        let body =
            [frame.part(&ranges[0]), b"ab".to_vec(), frame.part(&ranges[1]), b"yz".to_vec(), frame.close().into()]
                .concat();
        let expected = "\r\n--00000000000000000007\r\nContent-Type: text/plain; charset=utf-8\r\n\
            Content-Range: bytes 0-1/1000\r\n\r\nab\
            \r\n--00000000000000000007\r\nContent-Type: text/plain; charset=utf-8\r\n\
            Content-Range: bytes 998-999/1000\r\n\r\nyz\
            \r\n--00000000000000000007--\r\n";
        assert_eq!(String::from_utf8(body).unwrap(), expected);
        assert_eq!(frame.content_length(&ranges), expected.len() as u64);
        assert_eq!(
            Multipart::new(7, b"", 9).part(&(0..9)),
            b"\r\n--00000000000000000007\r\nContent-Range: bytes 0-8/9\r\n\r\n"
        );
        assert_eq!(unsatisfied(1000), "bytes */1000");
    }

    proptest! {
        #[test]
        fn planned_ranges_lie_inside_the_body(
            length in prop_oneof![0..2000u64, any::<u64>()],
            header in "bytes=[0-9, -]{0,20}|bytes=([0-9]{0,4}-[0-9]{0,19},){0,30}[0-9]{1,3}-",
            max_ranges: u32,
        ) {
            let ranges = match plan(length, header.as_bytes(), max_ranges) {
                Plan::Ignore | Plan::Unsatisfiable => return Ok(()),
                Plan::Single(range) => vec![range],
                Plan::Multi(ranges) => {
                    prop_assert!(ranges.len() > 1);
                    ranges
                }
            };
            prop_assert!(ranges.len() <= max_ranges as usize);
            prop_assert!(ranges.iter().all(|range| range.start < range.end && range.end <= length));
            prop_assert!(ranges.iter().map(|range| range.end - range.start).sum::<u64>() <= length);
        }
    }
}
