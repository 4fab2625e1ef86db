//! Entity tags, and what the conditional headers of a request say about an answer.

use std::borrow::Cow;

use super::dates::parse_http_time;

/// The entity tag of a static file: `"MTIME-SIZE"`, both in hex (`ngx_http_set_etag`). `mtime` in unix seconds.
pub fn file_etag(mtime: i64, size: u64) -> String {
    let sign = if mtime < 0 { "-" } else { "" };
    format!("\"{sign}{:x}-{size:x}\"", mtime.unsigned_abs())
}

/// The tag to use when the body is changed on its way, as by `gzip`: `W/` before it. `None` if it must go because
/// it is no tag at all (`ngx_http_weak_etag`).
pub fn weak_etag(etag: &[u8]) -> Option<Cow<'_, [u8]>> {
    match etag {
        [b'W', b'/', _, ..] => Some(Cow::Borrowed(etag)),
        [b'"', ..] => Some(Cow::Owned([b"W/", etag].concat())),
        _ => None,
    }
}

/// What an answer says about its own version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version<'a> {
    /// `Last-Modified` in unix seconds.
    pub modified: Option<i64>,
    /// `ETag`, quotes included.
    pub etag: Option<&'a [u8]>,
}

/// The conditional headers of a request, as received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions<'a> {
    /// `If-Match`
    pub if_match: Option<&'a [u8]>,
    /// `If-None-Match`
    pub if_none_match: Option<&'a [u8]>,
    /// `If-Modified-Since`
    pub if_modified_since: Option<&'a [u8]>,
    /// `If-Unmodified-Since`
    pub if_unmodified_since: Option<&'a [u8]>,
}

/// The directive `if_modified_since`: which dates in that header mean "not modified".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IfModifiedSince {
    /// None: the answer always counts as modified.
    Off,
    /// The very date of the answer.
    #[default]
    Exact,
    /// That date or a later one.
    Before,
}

/// What becomes of an answer with status 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent.
    Send,
    /// 304 goes out instead.
    NotModified,
    /// 412 goes out instead.
    PreconditionFailed,
}

/// Weighs the conditions of a request against an answer, in the order of `ngx_http_not_modified_header_filter`:
/// unlike RFC 9110 section 13.2.2 both `If-None-Match` and `If-Modified-Since` must hold for a 304.
pub fn evaluate(conditions: &Conditions<'_>, version: &Version<'_>, mode: IfModifiedSince) -> Verdict {
    if conditions.if_unmodified_since.is_some_and(|date| !unmodified(date, version)) {
        return Verdict::PreconditionFailed;
    }
    if conditions.if_match.is_some_and(|list| !etag_listed(list, version.etag, false)) {
        return Verdict::PreconditionFailed;
    }
    if conditions.if_modified_since.is_none() && conditions.if_none_match.is_none() {
        return Verdict::Send;
    }
    if conditions.if_modified_since.is_some_and(|date| modified(date, version, mode)) {
        return Verdict::Send;
    }
    if conditions.if_none_match.is_some_and(|list| !etag_listed(list, version.etag, true)) {
        return Verdict::Send;
    }
    Verdict::NotModified
}

/// Whether `If-Range` lets the ranges of a request stand: the very same tag, or the very same date.
pub fn if_range(value: &[u8], version: &Version<'_>) -> bool {
    if value.len() >= 2 && value.ends_with(b"\"") {
        return version.etag == Some(value);
    }
    version.modified.is_some_and(|modified| date(value) == modified)
}

/// A header's date. One that cannot be read is nginx's -1, which is before every file.
fn date(value: &[u8]) -> i64 {
    parse_http_time(value).unwrap_or(-1)
}

fn unmodified(since: &[u8], version: &Version<'_>) -> bool {
    version.modified.is_some_and(|modified| date(since) >= modified)
}

fn modified(since: &[u8], version: &Version<'_>, mode: IfModifiedSince) -> bool {
    let Some(modified) = version.modified else { return true };
    match mode {
        IfModifiedSince::Off => true,
        IfModifiedSince::Exact => date(since) != modified,
        IfModifiedSince::Before => date(since) < modified,
    }
}

/// Whether a list of tags, or `*`, names this one (`ngx_http_test_if_match`). In a weak comparison `W/` counts on
/// neither side; in a strong one it is part of the tag.
fn etag_listed(list: &[u8], etag: Option<&[u8]>, weak: bool) -> bool {
    if list == b"*" {
        return true;
    }
    let Some(etag) = etag else { return false };
    let etag = if weak { without_weak(etag) } else { etag };
    let mut rest = list;
    while !rest.is_empty() {
        let item = if weak { without_weak(rest) } else { rest };
        if item.len() < etag.len() {
            return false;
        }
        if let Some(after) = item.strip_prefix(etag) {
            let after = trim_blank(after);
            if after.is_empty() || after.starts_with(b",") {
                return true;
            }
            rest = after;
        } else {
            rest = item;
        }
        let comma = rest.iter().position(|&byte| byte == b',').unwrap_or(rest.len());
        let next = rest[comma..].iter().position(|byte| !matches!(byte, b' ' | b'\t' | b',')).map(|skip| comma + skip);
        rest = next.and_then(|next| rest.get(next..)).unwrap_or_default();
    }
    false
}

fn without_weak(tag: &[u8]) -> &[u8] {
    match tag {
        [b'W', b'/', rest @ ..] if !rest.is_empty() => rest,
        _ => tag,
    }
}

/// Without the spaces and tabs it starts with.
fn trim_blank(list: &[u8]) -> &[u8] {
    let start = list.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(list.len());
    &list[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAG: &[u8] = b"\"6553f100-3e8\"";
    const DATE: &[u8] = b"Tue, 14 Nov 2023 22:13:20 GMT";
    const EARLIER: &[u8] = b"Tue, 14 Nov 2023 22:13:19 GMT";
    const LATER: &[u8] = b"Tue, 14 Nov 2023 22:13:21 GMT";
    const FILE: Version<'_> = Version { modified: Some(1_700_000_000), etag: Some(TAG) };
    const NOTHING: Version<'_> = Version { modified: None, etag: None };

    #[test]
    fn a_file_is_tagged_by_time_and_size() {
        assert_eq!(file_etag(1_700_000_000, 1000).as_bytes(), TAG);
        assert_eq!(file_etag(0, 0), "\"0-0\"");
        assert_eq!(file_etag(-1, 255), "\"-1-ff\"");
        assert_eq!(file_etag(i64::MIN, u64::MAX), "\"-8000000000000000-ffffffffffffffff\"");
    }

    #[test]
    fn a_tag_is_weakened_once() {
        for (tag, weak) in
            [("\"a\"", Some("W/\"a\"")), ("W/\"a\"", Some("W/\"a\"")), ("a", None), ("", None), ("W/", None)]
        {
            assert_eq!(weak_etag(tag.as_bytes()).as_deref(), weak.map(str::as_bytes), "{tag}");
        }
    }

    fn none_match(list: &str, etag: &str) -> bool {
        let conditions = Conditions { if_none_match: Some(list.as_bytes()), ..Conditions::default() };
        let version = Version { etag: Some(etag.as_bytes()), ..FILE };
        evaluate(&conditions, &version, IfModifiedSince::Exact) == Verdict::NotModified
    }

    fn matches(list: &str, etag: &str) -> bool {
        let conditions = Conditions { if_match: Some(list.as_bytes()), ..Conditions::default() };
        let version = Version { etag: Some(etag.as_bytes()), ..FILE };
        evaluate(&conditions, &version, IfModifiedSince::Exact) == Verdict::Send
    }

    #[test]
    fn lists_of_tags_are_searched() {
        for (list, etag, strong, weak) in [
            ("*", "\"a\"", true, true),
            ("\"a\"", "\"a\"", true, true),
            ("\"b\", \"a\"", "\"a\"", true, true),
            ("\"b\",\"a\" ,\"c\"", "\"a\"", true, true),
            ("\"b\",, \t\"a\"\t", "\"a\"", true, true),
            ("\"b\"", "\"a\"", false, false),
            ("\"a\"x", "\"a\"", false, false),
            ("\"a\"x, \"a\"", "\"a\"", true, true),
            ("*, \"b\"", "\"a\"", false, false),
            ("", "\"a\"", false, false),
            ("W/\"a\"", "\"a\"", false, true),
            ("\"a\"", "W/\"a\"", false, true),
            ("W/\"a\"", "W/\"a\"", true, true),
            ("\"b\", W/\"a\"", "\"a\"", false, true),
            ("w/\"a\"", "\"a\"", false, false),
            ("\"a", "\"a\"", false, false),
            ("W/", "\"a\"", false, false),
        ] {
            assert_eq!(matches(list, etag), strong, "If-Match: {list} for {etag}");
            assert_eq!(none_match(list, etag), weak, "If-None-Match: {list} for {etag}");
        }
    }

    #[test]
    fn a_date_means_not_modified_as_the_directive_says() {
        for (date, off, exact, before) in [
            (DATE, false, true, true),
            (LATER, false, false, true),
            (EARLIER, false, false, false),
            (b"yesterday", false, false, false),
            (b"", false, false, false),
        ] {
            let conditions = Conditions { if_modified_since: Some(date), ..Conditions::default() };
            for (mode, kept) in
                [(IfModifiedSince::Off, off), (IfModifiedSince::Exact, exact), (IfModifiedSince::Before, before)]
            {
                let expected = if kept { Verdict::NotModified } else { Verdict::Send };
                assert_eq!(evaluate(&conditions, &FILE, mode), expected, "{mode:?} {}", String::from_utf8_lossy(date));
                assert_eq!(evaluate(&conditions, &NOTHING, mode), Verdict::Send);
            }
        }
    }

    #[test]
    fn if_unmodified_since_refuses_what_is_newer_or_undated() {
        for (date, version, expected) in [
            (DATE, FILE, Verdict::Send),
            (LATER, FILE, Verdict::Send),
            (EARLIER, FILE, Verdict::PreconditionFailed),
            (&b"yesterday"[..], FILE, Verdict::PreconditionFailed),
            (LATER, NOTHING, Verdict::PreconditionFailed),
        ] {
            let conditions = Conditions { if_unmodified_since: Some(date), ..Conditions::default() };
            assert_eq!(evaluate(&conditions, &version, IfModifiedSince::Off), expected);
        }
    }

    #[test]
    fn conditions_are_weighed_together() {
        let other = Some(&b"\"x\""[..]);
        for (conditions, expected) in [
            (Conditions::default(), Verdict::Send),
            (
                Conditions { if_none_match: Some(TAG), if_modified_since: Some(DATE), ..Conditions::default() },
                Verdict::NotModified,
            ),
            (
                Conditions { if_none_match: other, if_modified_since: Some(DATE), ..Conditions::default() },
                Verdict::Send,
            ),
            (
                Conditions { if_none_match: Some(TAG), if_modified_since: Some(LATER), ..Conditions::default() },
                Verdict::Send,
            ),
            (
                Conditions { if_match: other, if_none_match: Some(TAG), ..Conditions::default() },
                Verdict::PreconditionFailed,
            ),
            (
                Conditions { if_match: Some(TAG), if_unmodified_since: Some(EARLIER), ..Conditions::default() },
                Verdict::PreconditionFailed,
            ),
        ] {
            assert_eq!(evaluate(&conditions, &FILE, IfModifiedSince::Exact), expected, "{conditions:?}");
        }
    }

    #[test]
    fn without_a_tag_only_a_star_matches() {
        for (list, expected) in [(&b"*"[..], Verdict::Send), (TAG, Verdict::PreconditionFailed)] {
            let conditions = Conditions { if_match: Some(list), ..Conditions::default() };
            assert_eq!(evaluate(&conditions, &NOTHING, IfModifiedSince::Exact), expected);
        }
    }

    #[test]
    fn if_range_wants_the_very_same_version() {
        for (value, expected) in [
            (TAG, true),
            (b"\"x\"", false),
            (b"W/\"6553f100-3e8\"", false),
            (DATE, true),
            (LATER, false),
            (EARLIER, false),
            (b"\"", false),
            (b"", false),
        ] {
            assert_eq!(if_range(value, &FILE), expected, "{}", String::from_utf8_lossy(value));
            assert!(!if_range(value, &NOTHING));
        }
    }
}
