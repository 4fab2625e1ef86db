//! Regular expressions as nginx has them: PCRE2 over bytes, with groups by number and by name.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use pcre2::bytes::{CaptureLocations, Regex as Pcre, RegexBuilder};
use smallvec::SmallVec;

/// A compiled pattern. Matches bytes, not characters, unless the pattern itself starts with `(*UTF8)`.
pub struct Regex {
    pcre: Pcre,
    /// The same without machine code, made when a subject needs more than the stack JIT code has.
    interpreted: OnceLock<Option<Pcre>>,
    pattern: Box<[u8]>,
    caseless: bool,
    names: Vec<(Box<str>, usize)>,
    /// Numbered groups, and one for the whole match.
    groups: usize,
}

impl Regex {
    /// Compiles a pattern as `ngx_regex_compile` does, to machine code where PCRE2 can.
    ///
    /// # Errors
    /// What PCRE2 does not understand, in nginx's words.
    pub fn compile(pattern: &[u8], caseless: bool) -> Result<Self, CompileError> {
        let (text, origins) = as_text(pattern);
        let pcre = builder(caseless).jit_if_available(true).build(&text).map_err(|error| {
            let offset = error.offset().unwrap_or(pattern.len());
            let offset =
                origins.get(offset).copied().unwrap_or(if origins.is_empty() { offset } else { pattern.len() });
            CompileError::new(&error, pattern, offset)
        })?;
        let names = pcre.capture_names().iter().enumerate();
        let names = names.filter_map(|(group, name)| Some((name.as_deref()?.into(), group))).collect();
        let groups = pcre.capture_names().len();
        Ok(Self { pcre, interpreted: OnceLock::new(), pattern: pattern.into(), caseless, names, groups })
    }

    /// The pattern as written.
    pub fn pattern(&self) -> &[u8] {
        &self.pattern
    }

    /// Whether letters match in either case.
    pub fn caseless(&self) -> bool {
        self.caseless
    }

    /// The named groups with their numbers, as written. Each is a variable; nginx's variables know no case.
    pub fn names(&self) -> impl Iterator<Item = (&str, usize)> {
        self.names.iter().map(|(name, group)| (&**name, *group))
    }

    /// How many numbered groups there are, the whole match not counted.
    pub fn group_count(&self) -> usize {
        self.groups.saturating_sub(1)
    }

    /// Looks for the first match and tells where its groups lie in `subject`.
    ///
    /// # Errors
    /// The match ran into one of PCRE2's limits, or the subject is not UTF-8 where the pattern demands it.
    pub fn captures(&self, subject: &[u8]) -> Result<Option<Captures>, MatchError> {
        self.run(subject, Captures::read)
    }

    /// Looks only whether there is a match.
    ///
    /// # Errors
    /// As [`Self::captures`].
    pub fn is_match(&self, subject: &[u8]) -> Result<bool, MatchError> {
        self.run(subject, |_| ()).map(|found| found.is_some())
    }

    /// Runs the machine code, or what stands in for it when its stack is too small.
    fn run<R>(&self, subject: &[u8], read: impl Fn(&CaptureLocations) -> R) -> Result<Option<R>, MatchError> {
        /// `PCRE2_ERROR_JIT_STACKLIMIT` of pcre2.h.
        const JIT_STACK_LIMIT: i32 = -46;
        match self.run_with(&self.pcre, subject, &read) {
            Err(MatchError { code: JIT_STACK_LIMIT }) => {
                let plain = || builder(self.caseless).build(&as_text(&self.pattern).0).ok();
                match self.interpreted.get_or_init(plain) {
                    Some(pcre) => self.run_with(pcre, subject, &read),
                    None => Err(MatchError { code: JIT_STACK_LIMIT }),
                }
            }
            result => result,
        }
    }

    fn run_with<R>(
        &self,
        pcre: &Pcre,
        subject: &[u8],
        read: &impl Fn(&CaptureLocations) -> R,
    ) -> Result<Option<R>, MatchError> {
        thread_local! {
            // PCRE2's match data, one for each count of groups: taking it from the crate's pool costs a lock on
            // all threads but one, and asking the crate for captures an allocation on every match.
            static SCRATCH: RefCell<Vec<Option<CaptureLocations>>> = const { RefCell::new(Vec::new()) };
        }
        SCRATCH.with_borrow_mut(|all| {
            if all.len() <= self.groups {
                all.resize_with(self.groups + 1, || None);
            }
            let scratch = all[self.groups].get_or_insert_with(|| pcre.capture_locations());
            match pcre.captures_read(scratch, subject) {
                Ok(found) => Ok(found.map(|_| read(scratch))),
                Err(error) => Err(MatchError { code: error.code() }),
            }
        })
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", if self.caseless { "~*" } else { "~" }, String::from_utf8_lossy(&self.pattern))
    }
}

fn builder(caseless: bool) -> RegexBuilder {
    let mut builder = RegexBuilder::new();
    builder.caseless(caseless);
    builder
}

/// The crate takes patterns as text, nginx as bytes: a byte that is no UTF-8 becomes `\xHH`, which means the same
/// outside UTF mode. The second value is empty if nothing changed, else it has the place in `pattern` for each byte.
fn as_text(pattern: &[u8]) -> (String, Vec<usize>) {
    if let Ok(text) = str::from_utf8(pattern) {
        return (text.to_owned(), Vec::new());
    }
    let mut text = String::new();
    let mut origins = Vec::new();
    let mut quoted = false;
    let mut at = 0;
    for chunk in pattern.utf8_chunks() {
        text.push_str(chunk.valid());
        origins.extend(at..at + chunk.valid().len());
        at += chunk.valid().len();
        // `\Q…\E` takes everything literally, so our escapes have to stand outside.
        for (start, _) in chunk.valid().match_indices('\\') {
            match chunk.valid().as_bytes().get(start + 1) {
                Some(b'Q') => quoted = true,
                Some(b'E') => quoted = false,
                _ => {}
            }
        }
        let backslashes = chunk.valid().bytes().rev().take_while(|&byte| byte == b'\\').count();
        for (index, byte) in chunk.invalid().iter().enumerate() {
            // A backslash before the byte takes its meaning away, and it has none: ours to use.
            let escaped = index == 0 && backslashes % 2 == 1 && !quoted;
            let code = match (quoted, escaped) {
                (true, _) => format!("\\E\\x{byte:02X}\\Q"),
                (false, true) => format!("x{byte:02X}"),
                (false, false) => format!("\\x{byte:02X}"),
            };
            origins.extend(std::iter::repeat_n(at, code.len()));
            text.push_str(&code);
            at += 1;
        }
    }
    (text, origins)
}

/// Where the groups of one match lie in the subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captures {
    /// Start and end; `UNSET` for a group that took no part. Ends with the last group that did.
    groups: SmallVec<[(u32, u32); 6]>,
}

const UNSET: (u32, u32) = (u32::MAX, u32::MAX);

impl Captures {
    /// The bytes of group `number`; 0 is the whole match. `None` for a group that took no part in the match.
    pub fn get(&self, number: usize) -> Option<Range<usize>> {
        let &(start, end) = self.groups.get(number).filter(|&&group| group != UNSET)?;
        Some(start as usize..end as usize)
    }

    /// One more than the highest group that took part: nginx's `ncaptures` in pairs. A lower group without a part
    /// is an empty `$N`, a higher one is an `$N` that was not found.
    #[expect(clippy::len_without_is_empty, reason = "group 0 is always there")]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    fn read(locations: &CaptureLocations) -> Self {
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let groups = (0..locations.len()).map(|group| match locations.get(group) {
            // `\K` inside a look-around can put the start behind the end.
            Some((start, end)) => (place(start), place(end.max(start))),
            None => UNSET,
        });
        let mut groups: SmallVec<_> = groups.collect();
        while groups.last() == Some(&UNSET) {
            groups.pop();
        }
        Self { groups }
    }
}

/// A pattern PCRE2 does not understand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", String::from_utf8_lossy(.message))]
pub struct CompileError {
    /// nginx's own words: `pcre2_compile() failed: … in "…" at "…"`. Bytes of the pattern in it are kept.
    pub message: Vec<u8>,
    /// Where PCRE2 stopped, as an offset into the pattern.
    pub offset: usize,
}

impl CompileError {
    fn new(error: &pcre2::Error, pattern: &[u8], offset: usize) -> Self {
        let text = error.to_string();
        // The crate puts the place before PCRE2's own message.
        let reason = match text.strip_prefix("PCRE2: error compiling pattern") {
            Some(rest) => rest.split_once(": ").map_or(rest, |(_, reason)| reason),
            None => &text,
        };
        let mut message = format!("pcre2_compile() failed: {reason} in \"").into_bytes();
        message.extend(pattern);
        message.push(b'"');
        if let Some(rest) = pattern.get(offset..).filter(|rest| !rest.is_empty()) {
            message.extend(b" at \"");
            message.extend(rest);
            message.push(b'"');
        }
        Self { message, offset }
    }
}

/// A match that could not be finished. nginx answers 500 and logs
/// `pcre2_match() failed: CODE on "SUBJECT" using "PATTERN"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pcre2_match() failed: {code}")]
pub struct MatchError {
    /// PCRE2's number for it, negative.
    pub code: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regex(pattern: &str) -> Regex {
        Regex::compile(pattern.as_bytes(), false).unwrap()
    }

    fn groups<'s>(regex: &Regex, subject: &'s str) -> Option<Vec<Option<&'s str>>> {
        let captures = regex.captures(subject.as_bytes()).unwrap()?;
        Some((0..captures.len()).map(|group| captures.get(group).map(|range| &subject[range])).collect())
    }

    #[test]
    fn groups_are_found_by_number() {
        for (pattern, subject, expected) in [
            ("b", "abc", Some(vec![Some("b")])),
            ("^/(a)/(.*)$", "/a/b/c", Some(vec![Some("/a/b/c"), Some("a"), Some("b/c")])),
            ("(a)|(b)", "b", Some(vec![Some("b"), None, Some("b")])),
            ("(a)|(b)", "a", Some(vec![Some("a"), Some("a")])),
            ("(a?)(b?)", "", Some(vec![Some(""), Some(""), Some("")])),
            (
                "(1)(2)(3)(4)(5)(6)(7)(8)(9)",
                "123456789",
                Some("123456789 1 2 3 4 5 6 7 8 9".split(' ').map(Some).collect()),
            ),
            ("^b", "abc", None),
        ] {
            assert_eq!(groups(&regex(pattern), subject), expected, "{pattern} on {subject}");
        }
    }

    #[test]
    fn groups_that_took_no_part_have_no_place() {
        let captures = regex("(a)|(b)").captures(b"a").unwrap().unwrap();
        assert_eq!((captures.len(), captures.get(2), captures.get(99)), (2, None, None));
    }

    #[test]
    fn names_tell_their_numbers() {
        let regex = regex("^(?<user>[a-z]+)-(\\d+)-(?P<Kind>.)");
        assert_eq!(regex.names().collect::<Vec<_>>(), [("user", 1), ("Kind", 3)]);
        assert_eq!(regex.group_count(), 3);
    }

    #[test]
    fn case_counts_unless_told_otherwise() {
        assert!(!regex("abc").is_match(b"ABC").unwrap());
        assert!(Regex::compile(b"abc", true).unwrap().is_match(b"ABC").unwrap());
    }

    #[test]
    fn bytes_are_matched_and_not_characters() {
        assert!(!regex("^.$").is_match("é".as_bytes()).unwrap());
        assert!(regex("(*UTF8)^.$").is_match("é".as_bytes()).unwrap());
        assert!(regex("^..$").is_match(b"\xff\xfe").unwrap());
        assert!(regex("(*UTF8).").is_match(b"\xff").is_err());
    }

    #[test]
    fn patterns_may_hold_any_byte() {
        for (pattern, yes, no) in [
            (&b"^\xe9$"[..], &b"\xe9"[..], &b"e"[..]),
            (b"^[\xe0-\xe9]+$", b"\xe1\xe8", b"\xea"),
            (b"^\\\xe9$", b"\xe9", b"\\"),
            (b"^\\\\\xe9$", b"\\\xe9", b"\xe9"),
            (b"^\\Q.\xe9.\\E\xe8$", b".\xe9.\xe8", b"a\xe9a\xe8"),
            (b"^a\xe9\xe8$", b"a\xe9\xe8", b"a\xe9"),
        ] {
            let regex = Regex::compile(pattern, false).unwrap();
            assert!(regex.is_match(yes).unwrap(), "{pattern:?} on {yes:?}");
            assert!(!regex.is_match(no).unwrap(), "{pattern:?} on {no:?}");
            assert_eq!(regex.pattern(), pattern);
        }
    }

    #[test]
    fn a_subject_too_deep_for_machine_code_still_matches() {
        let regex = regex("^(a|b|(c))*$");
        assert!(regex.is_match(&b"ab".repeat(100_000)).unwrap());
        assert!(!regex.is_match(&[&b"ab".repeat(100_000)[..], b"d"].concat()).unwrap());
    }

    #[test]
    fn regexes_of_all_sizes_take_turns() {
        let regexes: Vec<_> = (0..12).map(|count| regex(&"(a)".repeat(count))).collect();
        for _ in 0..2 {
            for (count, regex) in regexes.iter().enumerate() {
                assert_eq!(groups(regex, "aaaaaaaaaaaa").unwrap().len(), count + 1);
            }
        }
    }

    #[test]
    fn a_broken_pattern_is_reported_in_the_words_of_nginx() {
        // As printed by `nginx -t` with PCRE2 10.42.
        for (pattern, message) in [
            (&b"("[..], &b"missing closing parenthesis in \"(\""[..]),
            (b"a[z-a]b", b"range out of order in character class in \"a[z-a]b\" at \"a]b\""),
            (b"*a", b"quantifier does not follow a repeatable item in \"*a\" at \"*a\""),
            (b"(?<1>a)", b"subpattern name must start with a non-digit in \"(?<1>a)\" at \"1>a)\""),
            (b"\\", b"\\ at end of pattern in \"\\\""),
            (b"\xe9(", b"missing closing parenthesis in \"\xe9(\""),
            (b"\xe9)\xe8", b"unmatched closing parenthesis in \"\xe9)\xe8\" at \")\xe8\""),
        ] {
            let error = Regex::compile(pattern, false).unwrap_err();
            let expected = [&b"pcre2_compile() failed: "[..], message].concat();
            assert_eq!(String::from_utf8_lossy(&error.message), String::from_utf8_lossy(&expected));
        }
    }
}
