//! `modern_browser`, `ancient_browser`: variables that tell new browsers from old ones by what they call themselves.

use super::{Room, core::put};
use crate::{
    config::{Args, Directive, FromArgs, LEVELS, Module, Slot},
    http::{agent::Agent, exchange::Exchange, variables::Variable},
    syntax::{Fault, Word},
};
use bytes::Bytes;
use std::ops::RangeInclusive;

#[derive(Clone, Debug)]
pub struct Conf {
    pub modern: Modern,
    pub ancient: Ancient,
    pub modern_value: Value,
    pub ancient_value: Value,
}

impl Default for Conf {
    fn default() -> Self {
        let one = Value(Bytes::from_static(b"1"));
        Self { modern: Modern::default(), ancient: Ancient::default(), modern_value: one.clone(), ancient_value: one }
    }
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("modern_browser", LEVELS, |conf| &mut conf.modern),
        Directive::new("ancient_browser", LEVELS, |conf| &mut conf.ancient),
        Directive::new("modern_browser_value", LEVELS, |conf| &mut conf.modern_value),
        Directive::new("ancient_browser_value", LEVELS, |conf| &mut conf.ancient_value),
    ];
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] = &[
        Variable::changeable("msie", |ex, out| put(out, if Agent::of(ex).msie { b"1" } else { b"" })),
        Variable::changeable("modern_browser", |ex, out| {
            let conf = &ex.location.settings.browser;
            put(out, if conf.is_modern(ex) { &conf.modern_value.0 } else { b"" })
        }),
        Variable::changeable("ancient_browser", |ex, out| {
            let conf = &ex.location.settings.browser;
            put(out, if conf.is_modern(ex) { b"" } else { &conf.ancient_value.0 })
        }),
    ];
    type State = ();
}

impl Conf {
    fn is_modern(&self, exchange: &Exchange) -> bool {
        exchange.field("user-agent").map_or(self.modern.unlisted, |agent| self.knows_as_modern(agent))
    }

    /// `ngx_http_browser`
    fn knows_as_modern(&self, agent: &[u8]) -> bool {
        if let Some(modern) = self.modern.listed(agent) {
            return modern;
        }
        if !self.modern.list.is_empty() && !self.modern.unlisted {
            return false;
        }
        let netscape4 = agent.len() > b"Mozilla/4.72 ".len()
            && agent.strip_prefix(b"Mozilla/").is_some_and(|version| matches!(version[0], b'1'..=b'4'));
        let named = |name: &Bytes| memchr::memmem::find(agent, name).is_some();
        !(self.ancient.netscape4 && netscape4 || self.ancient.names.iter().any(named)) && self.modern.unlisted
    }
}

/// A family of browsers, and where they say what version they are.
#[derive(Debug)]
struct Kind {
    /// In the configuration.
    name: &'static str,
    /// So many bytes are not looked at.
    skip: usize,
    /// What stands before the version.
    mark: &'static str,
    /// From the beginning of the mark to the version.
    add: usize,
}

/// In the order in which they are looked for. Opera may say that it is an Internet Explorer.
static KINDS: [Kind; 5] = [
    Kind { name: "opera", skip: 0, mark: "Opera", add: 6 },
    Kind { name: "msie", skip: 25, mark: "MSIE ", add: 5 },
    Kind { name: "gecko", skip: 13, mark: "rv:", add: 3 },
    Kind { name: "safari", skip: 13, mark: "Safari/", add: 7 },
    Kind { name: "konqueror", skip: 25, mark: "Konqueror/", add: 10 },
];

/// No Opera has this version.
const NONE: u64 = 4_001_000_000;

/// `modern_browser`
#[derive(Clone, Debug, Default)]
pub struct Modern {
    /// Kinds by their place in [`KINDS`], in that order, with the lowest version that is modern.
    list: Vec<(usize, u64)>,
    /// Those that are not on the list are modern as well.
    unlisted: bool,
}

impl Modern {
    /// Whether a browser on the list is modern; `None` if it is not on it.
    fn listed(&self, agent: &[u8]) -> Option<bool> {
        self.list.iter().find_map(|(kind, least)| {
            let kind = &KINDS[*kind];
            let rest = agent.get(kind.skip..).filter(|rest| !rest.is_empty())?;
            let at = memchr::memmem::find(rest, kind.mark.as_bytes())?;
            let version = rest.get(at + kind.add..).filter(|version| !version.is_empty())?;
            Some(reaches(version, *least))
        })
    }
}

impl Slot for Modern {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        if args.first {
            *self = Self::default();
        }
        let word = args.word(0);
        let unknown = || Fault::at(word.span, [b"unknown browser name \"", &word.value[..], b"\""].concat());
        let Some(version) = args.words().get(1) else {
            self.unlisted = word.value == b"unlisted";
            return if self.unlisted { Ok(()) } else { Err(unknown()) };
        };
        let kind = KINDS.iter().position(|kind| word.value.eq_ignore_ascii_case(kind.name.as_bytes()));
        let kind = kind.ok_or_else(unknown)?;
        if self.list.is_empty() && kind != 0 {
            self.list.push((0, NONE));
        }
        let least = least_version(version)?;
        match self.list.iter_mut().find(|(known, least)| kind == 0 && *known == 0 && *least == NONE) {
            Some(opera) => opera.1 = least,
            None => self.list.push((kind, least)),
        }
        self.list.sort_by_key(|(kind, _)| *kind);
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        1..=2
    }
}

/// `5.5` as a number that versions are compared by.
fn least_version(word: &Word) -> Result<u64, Fault> {
    if !word.value.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
        return Err(Fault::at(word.span, [b"invalid browser version \"", &word.value[..], b"\""].concat()));
    }
    Ok(Version::default().read(&word.value, |_| false).number())
}

/// Whether the version at the start of a text is this one or a later one.
fn reaches(text: &[u8], least: u64) -> bool {
    let mut passed = false;
    let version = Version::default().read(text, |so_far| {
        passed = so_far > least;
        passed
    });
    passed || version.number() >= least
}

/// Parts between dots, each worth a hundred of the next.
struct Version {
    whole: u64,
    part: u64,
    scale: u64,
}

impl Default for Version {
    fn default() -> Self {
        Self { whole: 0, part: 0, scale: 1_000_000 }
    }
}

impl Version {
    /// Reads digits and dots as far as they go, or as `enough` says at a dot.
    fn read(mut self, text: &[u8], mut enough: impl FnMut(u64) -> bool) -> Self {
        for byte in text {
            match byte {
                b'0'..=b'9' => self.part = self.part.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')),
                b'.' => {
                    self.whole = self.number();
                    if enough(self.whole) {
                        break;
                    }
                    self.part = 0;
                    self.scale /= 100;
                }
                _ => break,
            }
        }
        self
    }

    fn number(&self) -> u64 {
        self.whole.wrapping_add(self.part.wrapping_mul(self.scale))
    }
}

/// `ancient_browser`
#[derive(Clone, Debug, Default)]
pub struct Ancient {
    names: Vec<Bytes>,
    netscape4: bool,
}

impl Slot for Ancient {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        if args.first {
            *self = Self::default();
        }
        for word in args.words() {
            match &word.value[..] {
                b"netscape4" => self.netscape4 = true,
                name => self.names.push(Bytes::copy_from_slice(name)),
            }
        }
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        1..=usize::MAX
    }
}

/// The value of a variable; of several at a level it is the last.
#[derive(Clone, Debug)]
pub struct Value(Bytes);

impl Slot for Value {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        self.0 = Bytes::from_args(args)?;
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        1..=1
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask, conf, fault, http_fault};

    fn said(directives: &str, agent: &str) -> String {
        let server = format!("location / {{ {directives} return 200 '$modern_browser|$ancient_browser|$msie'; }}");
        let field = if agent.is_empty() { String::new() } else { format!("User-Agent: {agent}\r\n") };
        ask(&server, &format!("GET / HTTP/1.1\r\nHost: x\r\n{field}\r\n")).text()
    }

    const MSIE: &str = "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)";
    const OPERA: &str = "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.0; en) Opera 8.0";
    const GECKO: &str = "Mozilla/5.0 (X11; U; Linux i686; en-US; rv:1.7.8) Gecko/20050511 Firefox/1.0.4";
    const SAFARI: &str =
        "Mozilla/5.0 (Macintosh; U; PPC Mac OS X; en) AppleWebKit/418 (KHTML, like Gecko) Safari/417.9.3";
    const KONQUEROR: &str = "Mozilla/5.0 (compatible; Konqueror/3.5; FreeBSD) KHTML/3.5.1 (like Gecko)";

    #[test]
    fn versions_tell_modern_browsers_from_old_ones() {
        for (directives, agent, answer) in [
            ("modern_browser msie 5.5;", MSIE, "1||1"),
            ("modern_browser msie 6.0;", MSIE, "1||1"),
            ("modern_browser msie 6.0.1;", MSIE, "|1|1"),
            ("modern_browser msie 7;", MSIE, "|1|1"),
            ("modern_browser MSIE 5;", MSIE, "1||1"),
            ("modern_browser msie 5.5;", OPERA, "|1|"),
            ("modern_browser msie 5.5; modern_browser opera 8;", OPERA, "1||"),
            ("modern_browser opera 8.1; modern_browser msie 5.5;", OPERA, "|1|"),
            ("modern_browser opera 9;", "Opera/9.01 (X11; FreeBSD 6 i386; U; en)", "1||"),
            ("modern_browser gecko 1.7.8;", GECKO, "1||"),
            ("modern_browser gecko 1.7.9;", GECKO, "|1|"),
            ("modern_browser gecko 1.0.0;", GECKO, "1||"),
            ("modern_browser safari 417;", SAFARI, "1||"),
            ("modern_browser safari 418;", SAFARI, "|1|"),
            ("modern_browser konqueror 3.4;", KONQUEROR, "1||"),
            ("modern_browser konqueror 3.6;", KONQUEROR, "|1|"),
            ("modern_browser konqueror 3.4;", GECKO, "|1|"),
            ("modern_browser konqueror 3.4; modern_browser unlisted;", GECKO, "1||"),
        ] {
            assert_eq!(said(directives, agent), answer, "{directives} {agent}");
        }
    }

    #[test]
    fn names_tell_old_browsers_and_the_rest_is_as_it_was_said() {
        for (directives, agent, answer) in [
            ("", MSIE, "|1|1"),
            ("", "", "|1|"),
            ("modern_browser unlisted;", "", "1||"),
            ("modern_browser unlisted;", GECKO, "1||"),
            ("modern_browser unlisted; ancient_browser Links Lynx;", "Lynx/2.8", "|1|"),
            ("modern_browser unlisted; ancient_browser Links Lynx;", "curl", "1||"),
            ("modern_browser unlisted; ancient_browser netscape4;", "Mozilla/4.08 [en] (Win95)", "|1|"),
            ("modern_browser unlisted; ancient_browser netscape4;", "Mozilla/4.08", "1||"),
            ("modern_browser unlisted; ancient_browser netscape4;", GECKO, "1||"),
            ("modern_browser unlisted; modern_browser_value a; modern_browser_value b;", GECKO, "b||"),
            ("ancient_browser_value old;", GECKO, "|old|"),
            ("set $msie x; set $modern_browser y; set $ancient_browser z;", MSIE, "y|z|x"),
        ] {
            assert_eq!(said(directives, agent), answer, "{directives} {agent}");
        }
    }

    #[test]
    fn a_level_that_says_something_hides_the_one_above() {
        let server = "modern_browser msie 5; ancient_browser Lynx; location / { return 200 $modern_browser; }
            location /a { modern_browser unlisted; return 200 $modern_browser; }
            location /b { modern_browser unlisted; ancient_browser Links; return 200 $modern_browser; }";
        let ask = |path: &str, agent: &str| {
            ask(server, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: {agent}\r\n\r\n")).text()
        };
        assert_eq!((ask("/", MSIE), ask("/a", GECKO), ask("/", GECKO)), ("1".into(), "1".into(), String::new()));
        assert_eq!((ask("/a", "Lynx"), ask("/b", "Lynx")), (String::new(), "1".into()));
        assert_eq!(conf("modern_browser msie 5; modern_browser gecko 1;").browser.modern.list.len(), 3);
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        assert_eq!(fault("modern_browser mosaic 1;"), "unknown browser name \"mosaic\"");
        assert_eq!(fault("modern_browser msie 5x;"), "invalid browser version \"5x\"");
        assert_eq!(fault("modern_browser listed;"), "unknown browser name \"listed\"");
        assert_eq!(http_fault("map $uri $msie { default 1; }"), "");
    }
}
