//! What the fields of an answer say of keeping it: `X-Accel-Expires`, `Cache-Control`, `Expires`, `Set-Cookie`, `Vary`
//! (`ngx_http_upstream_process_cache_control` and its kin).

use super::file::{ROOM, Validity};
use crate::{
    config::values::{Mask, parse_number},
    http::{
        dates,
        heads::{Fields, same},
    },
    upstream::pass::settings::Steering,
};
use bytes::Bytes;

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// It may be kept.
    pub keep: bool,
    /// Neither may what is found in its place: `Set-Cookie` and its kin, but not `no-cache`.
    pub barred: bool,
    pub validity: Validity,
    /// Which fields of requests it depends on; empty for none.
    pub vary: Bytes,
}

/// Reads the fields in their order, which matters, without those that are ignored. `now` in seconds since the epoch;
/// `before` is what is known already, which `Expires` does not change.
pub fn read(fields: &Fields, ignore: Mask<Steering>, now: i64, before: Validity) -> Said {
    let mut reading = Reading { may: true, validity: before, ..Reading::default() };
    for field in fields {
        let value = &field.value;
        match field.name.len() {
            4 if same(&field.name, b"Vary") => reading.vary(fields, value, ignore),
            7 if same(&field.name, b"Expires") => reading.expires(value, ignore, now),
            10 if same(&field.name, b"Set-Cookie") => reading.may &= ignore.has(Steering::SET_COOKIE),
            13 if same(&field.name, b"Cache-Control") => reading.cache_control(value, ignore, now),
            15 if same(&field.name, b"X-Accel-Expires") => reading.accel_expires(value, ignore, now),
            _ => {}
        }
    }
    let keep = reading.may && !reading.forbidden && !reading.expired;
    Said { keep, barred: !reading.may, validity: reading.validity, vary: reading.vary }
}

#[derive(Default)]
struct Reading {
    /// Nothing has ruled it out for good.
    may: bool,
    /// `no-cache` and its kin, which `X-Accel-Expires` overrides.
    forbidden: bool,
    /// `Expires` is over, which others override.
    expired: bool,
    /// There was an `X-Accel-Expires`.
    steered: bool,
    validity: Validity,
    vary: Bytes,
}

impl Reading {
    fn cache_control(&mut self, value: &[u8], ignore: Mask<Steering>, now: i64) {
        if ignore.has(Steering::CACHE_CONTROL) {
            return;
        }
        let lower = value.to_ascii_lowercase();
        let behind = |name: &str| {
            let at = memchr::memmem::find(&lower, name.as_bytes())?;
            Some(seconds(&lower[at + name.len()..]))
        };
        if self.validity.until == 0 || !self.steered {
            let has = |name: &str| memchr::memmem::find(&lower, name.as_bytes()).is_some();
            if has("no-cache") || has("no-store") || has("private") {
                self.forbidden = true;
                return;
            }
            match behind("s-maxage=").or_else(|| behind("max-age=")) {
                None => {}
                Some(None) => return self.may = false,
                Some(Some(0)) => return self.forbidden = true,
                Some(Some(age)) => {
                    self.validity.until = now.saturating_add(age);
                    self.expired = false;
                }
            }
        }
        match behind("stale-while-revalidate=") {
            None => {}
            Some(None) => return self.may = false,
            Some(Some(more)) => (self.validity.updating, self.validity.error) = (more, more),
        }
        match behind("stale-if-error=") {
            None => {}
            Some(None) => self.may = false,
            Some(Some(more)) => self.validity.error = more,
        }
    }

    fn expires(&mut self, value: &[u8], ignore: Mask<Steering>, now: i64) {
        if ignore.has(Steering::EXPIRES) || self.validity.until != 0 {
            return;
        }
        match dates::parse_http_time(value).filter(|until| *until >= now) {
            Some(until) => self.validity.until = until,
            None => self.expired = true,
        }
    }

    fn accel_expires(&mut self, value: &[u8], ignore: Mask<Steering>, now: i64) {
        self.steered = true;
        if ignore.has(Steering::X_EXPIRES) {
            return;
        }
        let (at, digits) = match value.strip_prefix(b"@") {
            Some(digits) => (true, digits),
            None => (false, value),
        };
        let Some(number) = parse_number(digits).and_then(|number| i64::try_from(number).ok()) else { return };
        if number == 0 && !at {
            self.may = false;
            return;
        }
        self.validity.until = if at { number } else { now.saturating_add(number) };
        (self.forbidden, self.expired) = (false, false);
    }

    fn vary(&mut self, fields: &Fields, value: &Bytes, ignore: Mask<Steering>) {
        if ignore.has(Steering::VARY) || !self.may {
            return;
        }
        if &value[..] == b"*" {
            self.may = false;
            return;
        }
        let mut all = fields.get_all("vary");
        self.vary = match (all.next(), all.next()) {
            (_, None) => value.clone(),
            _ => fields.get_all("vary").collect::<Vec<_>>().join(&b", "[..]).into(),
        };
        self.may = self.vary.len() <= ROOM;
    }
}

/// The number of seconds a directive has; as many as fit (`ngx_http_upstream_process_delta_seconds`).
fn seconds(text: &[u8]) -> Option<i64> {
    let end = text.iter().position(|byte| matches!(byte, b',' | b';' | b' ')).unwrap_or(text.len());
    text[..end].iter().try_fold(0_i64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        Some(number.saturating_mul(10).saturating_add(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000_000;

    fn said(fields: &str, ignore: u32) -> Said {
        let mut all = Fields::new();
        for line in fields.lines().filter(|line| !line.trim().is_empty()) {
            let (name, value) = line.trim().split_once(": ").unwrap();
            all.push(name.as_bytes().to_vec(), value.as_bytes().to_vec());
        }
        read(&all, Mask::of(ignore), NOW, Validity::default())
    }

    /// Seconds it may be kept; `no` where it may not, `-` where nothing says so.
    fn kept(fields: &str) -> String {
        let said = said(fields, 0);
        match (said.keep, said.validity.until) {
            (false, _) => "no".into(),
            (true, 0) => "-".into(),
            (true, until) => (until - NOW).to_string(),
        }
    }

    #[test]
    fn fields_say_whether_and_for_how_long_an_answer_is_kept() {
        let cases = [
            ("X: y", "-"),
            ("Cache-Control: max-age=10", "10"),
            ("Cache-Control: public, Max-Age=10, s-maxage=20", "20"),
            ("Cache-Control: max-age=", "no"),
            ("Cache-Control: max-age=0", "no"),
            ("Cache-Control: max-age=\"10\"", "no"),
            ("Cache-Control: max-age=1x", "no"),
            ("Cache-Control: no-store", "no"),
            ("Cache-Control: no-cache", "no"),
            ("Cache-Control: private, max-age=10", "no"),
            ("Set-Cookie: a=b", "no"),
            ("Expires: Thu, 01 Jan 1970 00:00:01 GMT", "no"),
            ("Expires: never", "no"),
            ("Expires: Sun, 09 Sep 2001 01:46:50 GMT", "10"),
            // Whoever comes first, and X-Accel-Expires in any place.
            ("Expires: Sun, 09 Sep 2001 01:46:50 GMT\nCache-Control: max-age=5", "5"),
            ("Cache-Control: max-age=5\nExpires: Sun, 09 Sep 2001 01:46:50 GMT", "5"),
            ("Expires: never\nCache-Control: max-age=5", "5"),
            ("X-Accel-Expires: 7\nCache-Control: no-cache", "7"),
            ("Cache-Control: no-cache\nX-Accel-Expires: 7", "7"),
            ("X-Accel-Expires: @1000000009", "9"),
            ("X-Accel-Expires: 0", "no"),
            ("X-Accel-Expires: x\nCache-Control: max-age=3", "3"),
            ("X-Accel-Expires: 7\nSet-Cookie: a=b", "no"),
            ("Vary: *", "no"),
        ];
        for (fields, expected) in cases {
            assert_eq!(kept(fields), expected, "{fields}");
        }
        let far = said("Cache-Control: max-age=99999999999999999999", 0);
        assert_eq!((far.keep, far.validity.until), (true, i64::MAX));
    }

    #[test]
    fn what_is_ignored_says_nothing() {
        let all = "Cache-Control: no-cache\nExpires: never\nSet-Cookie: a=b\nX-Accel-Expires: 0\nVary: *";
        assert!(!said(all, 0).keep);
        let ignored =
            Steering::CACHE_CONTROL | Steering::EXPIRES | Steering::SET_COOKIE | Steering::X_EXPIRES | Steering::VARY;
        assert_eq!(
            said(all, ignored),
            Said { keep: true, barred: false, validity: Validity::default(), vary: Bytes::new() }
        );
    }

    #[test]
    fn stale_answers_have_their_own_time() {
        let of = |value: &str| said(&format!("Cache-Control: {value}"), 0).validity;
        assert_eq!(of("max-age=1, stale-while-revalidate=2"), Validity { until: NOW + 1, updating: 2, error: 2 });
        assert_eq!(
            of("max-age=1, stale-while-revalidate=2, stale-if-error=3"),
            Validity { until: NOW + 1, updating: 2, error: 3 }
        );
        assert!(!said("Cache-Control: max-age=1, stale-if-error=x", 0).keep);
        // The limits of X-Accel-Expires stay, and these are read nevertheless.
        let both = said("X-Accel-Expires: 9\nCache-Control: max-age=1, stale-if-error=3", 0);
        assert_eq!(both.validity, Validity { until: NOW + 9, updating: 0, error: 3 });
    }

    #[test]
    fn the_fields_that_an_answer_depends_on_are_one_list() {
        assert_eq!(said("Vary: A\nvary: B, C", 0).vary, "A, B, C");
        let long = format!("Vary: {}", "x".repeat(129));
        assert!(!said(&long, 0).keep);
    }
}
