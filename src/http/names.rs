//! Tables of host names: exact names, wildcards at either end, regular expressions. Behind `server_name`, and behind
//! `map … hostnames` and `valid_referers`.

use std::collections::{HashMap, HashSet};

use super::regex::{Captures, CompileError, MatchError, Regex};

/// Values by host name, looked up as nginx does (`ngx_hash_find_combined`, `ngx_http_find_virtual_server`).
#[derive(Debug)]
pub struct Names<T> {
    exact: HashMap<Box<[u8]>, T>,
    /// `*.example.com` and `.example.com`, by `example.com`.
    leading: HashMap<Box<[u8]>, Leading<T>>,
    /// `www.example.*`, by `www.example`.
    trailing: HashMap<Box<[u8]>, T>,
    regexes: Vec<(Regex, T)>,
    /// Names `.example.com` has claimed, so that no exact one may come after it.
    claimed: HashSet<Box<[u8]>>,
}

#[derive(Debug)]
struct Leading<T> {
    value: T,
    /// Written `.example.com`: stands for `example.com` too.
    itself: bool,
}

/// What a name led to.
#[derive(Clone, Debug)]
pub struct Match<'n, T> {
    /// What was added under it.
    pub value: &'n T,
    /// The regular expression that matched and where, if it was one.
    pub regex: Option<(&'n Regex, Captures)>,
}

/// Why a name was not added; the table is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Already there: `[warn] conflicting server name "X" on ADDR, ignored`.
    Conflict,
    /// `[emerg] invalid server name or wildcard "X" on ADDR`.
    Invalid,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            leading: HashMap::new(),
            trailing: HashMap::new(),
            regexes: Vec::new(),
            claimed: HashSet::new(),
        }
    }
}

impl<T> Names<T> {
    /// Adds a name or a wildcard (`ngx_hash_add_key`). Letters of either case are the same.
    ///
    /// # Errors
    /// A name that is there already, where `.a.b` counts as `*.a.b` and as `a.b`; or one with `*` elsewhere than in
    /// front of or behind everything, with `..`, or with a NUL.
    pub fn add(&mut self, name: &[u8], value: T) -> Result<(), Refusal> {
        let name = name.to_ascii_lowercase();
        let stars = name.iter().filter(|&&byte| byte == b'*').count();
        if stars > 1 || name.contains(&0) || name.windows(2).any(|pair| pair == b"..") {
            return Err(Refusal::Invalid);
        }
        match name.as_slice() {
            [b'.', suffix @ ..] if !suffix.is_empty() => {
                if self.exact.contains_key(suffix) || !self.claimed.insert(suffix.into()) {
                    return Err(Refusal::Conflict);
                }
                // nginx leaves the claim standing when what follows is refused.
                self.add_leading(suffix, value, true)
            }
            [b'*', b'.', suffix @ ..] if !suffix.is_empty() => self.add_leading(suffix, value, false),
            [prefix @ .., b'.', b'*'] if !prefix.is_empty() => {
                if self.trailing.contains_key(prefix) {
                    return Err(Refusal::Conflict);
                }
                self.trailing.insert(prefix.into(), value);
                Ok(())
            }
            _ if stars > 0 => Err(Refusal::Invalid),
            name => {
                if self.exact.contains_key(name) || self.claimed.contains(name) {
                    return Err(Refusal::Conflict);
                }
                self.exact.insert(name.into(), value);
                Ok(())
            }
        }
    }

    fn add_leading(&mut self, suffix: &[u8], value: T, itself: bool) -> Result<(), Refusal> {
        if self.leading.contains_key(suffix) {
            return Err(Refusal::Conflict);
        }
        self.leading.insert(suffix.into(), Leading { value, itself });
        Ok(())
    }

    /// Adds a regular expression, tried after all names and after those added before it.
    pub fn add_regex(&mut self, regex: Regex, value: T) {
        self.regexes.push((regex, value));
    }

    /// Whether there are regular expressions among them.
    pub fn has_regexes(&self) -> bool {
        !self.regexes.is_empty()
    }

    /// Nothing was added.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.leading.is_empty() && self.trailing.is_empty() && self.regexes.is_empty()
    }

    /// Looks a host up: exact name, then the longest `*.suffix`, then the longest `prefix.*`, then the first regular
    /// expression. `host` is lower case and has no port and no dot at its end. An empty host is found by `""` only.
    ///
    /// # Errors
    /// A regular expression could not be run to its end; nginx answers 500.
    pub fn find(&self, host: &[u8]) -> Result<Option<Match<'_, T>>, MatchError> {
        if let Some(value) = self.find_name(host) {
            return Ok(Some(Match { value, regex: None }));
        }
        if host.is_empty() {
            return Ok(None);
        }
        for (regex, value) in &self.regexes {
            if let Some(captures) = regex.captures(host)? {
                return Ok(Some(Match { value, regex: Some((regex, captures)) }));
            }
        }
        Ok(None)
    }

    /// The part of [`Self::find`] that needs no regular expressions.
    fn find_name(&self, host: &[u8]) -> Option<&T> {
        if let Some(value) = self.exact.get(host) {
            return Some(value);
        }
        if !self.leading.is_empty() {
            if let Some(found) = self.leading.get(host).filter(|found| found.itself) {
                return Some(&found.value);
            }
            let mut suffixes = memchr::memchr_iter(b'.', host).map(|dot| &host[dot + 1..]);
            if let Some(found) = suffixes.find_map(|suffix| self.leading.get(suffix)) {
                return Some(&found.value);
            }
        }
        if self.trailing.is_empty() {
            return None;
        }
        memchr::memrchr_iter(b'.', host).find_map(|dot| self.trailing.get(&host[..dot]))
    }
}

/// One argument of `server_name`, understood.
#[derive(Debug)]
pub enum ServerName {
    /// An exact name or a wildcard, in lower case, for [`Names::add`].
    Name(Vec<u8>),
    /// What followed `~`.
    Regex(Regex),
}

impl ServerName {
    /// Reads one argument of `server_name`; `hostname` replaces `$hostname`. A regular expression is blind to case if
    /// it has a capital letter (`ngx_http_core_server_name`), as hosts come in lower case.
    ///
    /// # Errors
    /// What nginx refuses, in its words.
    pub fn parse(word: &[u8], hostname: &[u8]) -> Result<Self, ServerNameError> {
        let quoted = || String::from_utf8_lossy(word).into_owned();
        match word {
            [b'~'] => Err(ServerNameError::EmptyRegex(quoted())),
            [b'~', pattern @ ..] => {
                Ok(Self::Regex(Regex::compile(pattern, pattern.iter().any(u8::is_ascii_uppercase))?))
            }
            [b'.' | b'*'] | [b'*', _] => Err(ServerNameError::Invalid(quoted())),
            [b'*', second, ..] if *second != b'.' => Err(ServerNameError::Invalid(quoted())),
            _ if word.eq_ignore_ascii_case(b"$hostname") => Ok(Self::Name(hostname.to_ascii_lowercase())),
            _ => Ok(Self::Name(word.to_ascii_lowercase())),
        }
    }

    /// Whether nginx warns `server name "X" has suspicious symbols`: it looks for a slash, in expressions too.
    pub fn is_suspicious(word: &[u8]) -> bool {
        word.contains(&b'/')
    }
}

/// A `server_name` nginx refuses while reading.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerNameError {
    /// A star alone or without its dot, or a dot alone.
    #[error("server name \"{0}\" is invalid")]
    Invalid(String),
    /// `~` and nothing behind it.
    #[error("empty regex in server name \"{0}\"")]
    EmptyRegex(String),
    /// An expression PCRE2 does not understand.
    #[error(transparent)]
    Regex(#[from] CompileError),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A table of these names, each leading to itself, and what was refused.
    fn table<'a>(words: &[&'a str]) -> (Names<&'a str>, Vec<(&'a str, Refusal)>) {
        let mut names = Names::default();
        let mut refused = Vec::new();
        for &word in words {
            match ServerName::parse(word.as_bytes(), b"Box").unwrap() {
                ServerName::Regex(regex) => names.add_regex(regex, word),
                ServerName::Name(name) => refused.extend(names.add(&name, word).err().map(|why| (word, why))),
            }
        }
        (names, refused)
    }

    fn find<'a>(names: &Names<&'a str>, host: &str) -> Option<&'a str> {
        names.find(host.as_bytes()).unwrap().map(|found| *found.value)
    }

    #[test]
    fn hosts_lead_where_nginx_leads_them() {
        let (names, refused) = table(&[
            "example.com",
            "*.example.com",
            "*.sub.example.com",
            ".both.org",
            "*.org",
            "www.example.*",
            "www.*",
            "www.example.co.*",
            "a.www.example.com",
            "~^(?<user>[a-z]+)\\.net$",
            "~^w.*\\.net$",
            "~net",
            "*.w.net",
            "",
            "UPPER.example.net",
            "$HostName",
        ]);
        assert_eq!(refused, []);
        for (host, expected) in [
            ("example.com", Some("example.com")),
            ("a.example.com", Some("*.example.com")),
            ("a.b.example.com", Some("*.example.com")),
            ("sub.example.com", Some("*.example.com")),
            ("a.sub.example.com", Some("*.sub.example.com")),
            ("xsub.example.com", Some("*.example.com")),
            ("xexample.com", None),
            (".example.com", Some("*.example.com")),
            ("com", None),
            ("both.org", Some(".both.org")),
            ("a.both.org", Some(".both.org")),
            ("xboth.org", Some("*.org")),
            ("org", None),
            ("www.example.com", Some("*.example.com")),
            ("a.www.example.com", Some("a.www.example.com")),
            ("www.example.de", Some("www.example.*")),
            ("www.example.co", Some("www.example.*")),
            ("www.example.co.uk", Some("www.example.co.*")),
            ("www.example", Some("www.*")),
            ("www.examples.de", Some("www.*")),
            ("www", None),
            ("www.both.org", Some(".both.org")),
            ("abc.net", Some("~^(?<user>[a-z]+)\\.net$")),
            ("w1.net", Some("~^w.*\\.net$")),
            ("1.net", Some("~net")),
            ("a.w.net", Some("*.w.net")),
            ("upper.example.net", Some("UPPER.example.net")),
            ("box", Some("$HostName")),
            ("", Some("")),
            ("de", None),
        ] {
            assert_eq!(find(&names, host), expected, "{host}");
        }
    }

    #[test]
    fn the_match_of_a_regex_comes_along() {
        let (names, _) = table(&["~^(?<user>[a-z]+)\\.(net)$"]);
        let found = names.find(b"abc.net").unwrap().unwrap();
        let (regex, captures) = found.regex.unwrap();
        assert_eq!(regex.names().collect::<Vec<_>>(), [("user", 1)]);
        assert_eq!((captures.get(1), captures.get(2)), (Some(0..3), Some(4..7)));
    }

    #[test]
    fn no_regex_sees_an_empty_host() {
        assert_eq!(find(&table(&["~^$", "~.*"]).0, ""), None);
    }

    #[test]
    fn the_second_of_the_same_name_is_refused() {
        for (words, refused) in [
            (&["a.b", "a.b"][..], &["a.b"][..]),
            (&["a.b", "A.B"], &["A.B"]),
            (&["*.a.b", "*.a.b"], &["*.a.b"]),
            (&["*.a.b", ".a.b"], &[".a.b"]),
            (&[".a.b", "*.a.b"], &["*.a.b"]),
            (&[".a.b", "a.b"], &["a.b"]),
            (&["a.b", ".a.b"], &[".a.b"]),
            (&["a.*", "a.*"], &["a.*"]),
            // The refused `.a.b` has claimed `a.b` nevertheless.
            (&["*.a.b", ".a.b", "a.b"], &[".a.b", "a.b"]),
            (&["a.b", "*.a.b", "a.*", "~^a", "~^a"], &[]),
        ] {
            let expected: Vec<_> = refused.iter().map(|&word| (word, Refusal::Conflict)).collect();
            assert_eq!(table(words).1, expected, "{words:?}");
        }
    }

    #[test]
    fn a_star_stands_at_one_end_only() {
        let mut names = Names::default();
        for name in ["a.*.b", "a*", "a*.b", "*", "*.a.*", "**", "a..b", "*..a", "a.**", "a\0b", "*."] {
            assert_eq!(names.add(name.as_bytes(), ()), Err(Refusal::Invalid), "{name}");
        }
        assert!(names.is_empty());
    }

    #[test]
    fn nginx_s_own_words_refuse_a_server_name() {
        for (word, message) in [
            ("*", "server name \"*\" is invalid"),
            ("*.", "server name \"*.\" is invalid"),
            ("*a.b", "server name \"*a.b\" is invalid"),
            (".", "server name \".\" is invalid"),
            ("~", "empty regex in server name \"~\""),
            ("~(", "pcre2_compile() failed: missing closing parenthesis in \"(\""),
        ] {
            assert_eq!(ServerName::parse(word.as_bytes(), b"").unwrap_err().to_string(), message);
        }
        assert!(ServerName::is_suspicious(b"http://a.b") && !ServerName::is_suspicious(b"a.b"));
    }

    #[test]
    fn a_capital_makes_a_regex_blind_to_case() {
        let caseless = |word: &[u8]| match ServerName::parse(word, b"").unwrap() {
            ServerName::Regex(regex) => regex.caseless(),
            ServerName::Name(_) => panic!("no regex"),
        };
        assert!(caseless(b"~^W") && !caseless(b"~^w"));
    }

    /// The rules of the documentation of `server_name`, read aloud.
    fn naive<'a>(words: &[&'a str], host: &str) -> Option<&'a str> {
        let longest = |fits: &dyn Fn(&str) -> bool| {
            let mut best: Option<&str> = None;
            for &word in words.iter().filter(|word| fits(word)) {
                if best.is_none_or(|best| word.trim_start_matches('*').len() > best.trim_start_matches('*').len()) {
                    best = Some(word);
                }
            }
            best
        };
        longest(&|word| word == host)
            .or_else(|| {
                longest(&|word| {
                    let whole = word.strip_prefix('.').is_some_and(|rest| rest == host);
                    whole || (word.starts_with(['*', '.']) && host.ends_with(word.trim_start_matches('*')))
                })
            })
            .or_else(|| longest(&|word| word.strip_suffix('*').is_some_and(|rest| host.starts_with(rest))))
    }

    proptest! {
        #[test]
        fn lookups_agree_with_the_documentation(
            words in prop::collection::vec("(\\*\\.|\\.)?[ab](\\.[abc]){0,2}|[ab](\\.[abc]){0,2}\\.\\*", 1..10),
            host in "[abc](\\.[abc]){0,4}",
        ) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let (names, refused) = table(&words);
            let mut kept = words.clone();
            // The first of equals stays: take refused ones off from behind.
            for (word, _) in refused.iter().rev() {
                let at = kept.iter().rposition(|kept| kept == word).unwrap();
                kept.remove(at);
            }
            prop_assert_eq!(find(&names, &host), naive(&kept, &host));
        }
    }
}
