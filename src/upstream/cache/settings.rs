//! The directives of caches, which `proxy_`, `fastcgi_`, `scgi_` and `uwsgi_` have alike: declared once by suffix.

use super::zone::Zone;
use crate::{
    config::{
        Args, Contexts, Directive, FromArgs, HTTP, Kind, LEVELS, Leveled, List, Scope,
        values::{Choices, Mask, Msec, Offset, parse_number, parse_offset, parse_size, parse_time},
    },
    http::{
        exchange::{Exchange, Method},
        limit_zone::other_use,
        template::{AnyOf, Template},
    },
    syntax::{Fault, Span, Word},
    upstream::{
        failure::cases,
        pass::{
            Passing,
            settings::{CASES, Store},
        },
    },
};
use std::{ops::RangeInclusive, os::unix::ffi::OsStrExt, path::PathBuf, sync::Arc, time::Duration};

/// What a location says of its cache.
#[derive(Clone, Debug)]
pub struct Caching {
    /// The caches there are: those of the http level.
    pub zones: List<Arc<Zone>>,
    pub cache: Leveled<Chosen>,
    pub key: Option<Template>,
    pub bypass: AnyOf,
    pub no_cache: AnyOf,
    pub valid: List<Valid>,
    pub min_uses: usize,
    /// From which byte on a range is fetched alone; `None` for never.
    pub max_range_offset: Option<Offset>,
    /// The cases in which an old answer will do.
    pub use_stale: Mask<Stale>,
    pub methods: Mask<Methods>,
    pub lock: bool,
    pub lock_timeout: Msec,
    pub lock_age: Msec,
    pub revalidate: bool,
    pub background_update: bool,
    /// `HEAD` is asked as `GET`.
    pub convert_head: bool,
}

impl Default for Caching {
    fn default() -> Self {
        Self {
            zones: List::default(),
            cache: Leveled::default(),
            key: None,
            bypass: AnyOf::default(),
            no_cache: AnyOf::default(),
            valid: List::default(),
            min_uses: 1,
            max_range_offset: None,
            use_stale: Mask::default(),
            methods: Mask::default(),
            lock: false,
            lock_timeout: Msec::seconds(5),
            lock_age: Msec::seconds(5),
            revalidate: false,
            background_update: false,
            convert_head: true,
        }
    }
}

/// The rows, by suffix.
pub const DIRECTIVES: &[Directive<Caching>] = &[
    Directive::new("_cache", LEVELS, |caching: &mut Caching| &mut caching.cache),
    Directive::new("_cache_key", LEVELS, |caching| &mut caching.key),
    Directive::new("_cache_path", HTTP, |caching| &mut caching.zones),
    Directive::new("_cache_bypass", LEVELS, |caching| &mut caching.bypass),
    Directive::new("_no_cache", LEVELS, |caching| &mut caching.no_cache),
    Directive::new("_cache_valid", LEVELS, |caching| &mut caching.valid),
    Directive::new("_cache_min_uses", LEVELS, |caching| &mut caching.min_uses),
    Directive::new("_cache_max_range_offset", LEVELS, |caching| &mut caching.max_range_offset),
    Directive::new("_cache_use_stale", LEVELS, |caching| &mut caching.use_stale),
    Directive::new("_cache_methods", LEVELS, |caching| &mut caching.methods),
    Directive::new("_cache_lock", LEVELS, |caching| &mut caching.lock),
    Directive::new("_cache_lock_timeout", LEVELS, |caching| &mut caching.lock_timeout),
    Directive::new("_cache_lock_age", LEVELS, |caching| &mut caching.lock_age),
    Directive::new("_cache_revalidate", LEVELS, |caching| &mut caching.revalidate),
    Directive::new("_cache_background_update", LEVELS, |caching| &mut caching.background_update),
];

impl Caching {
    /// Finds the cache that the level names; `prefix` is that of the room. What the level says of keeping answers in one
    /// way takes the place of what is said of the other above it.
    ///
    /// # Errors
    /// There is none of that name, or both ways are wanted at one level.
    pub fn settle(
        &mut self,
        prefix: &str,
        passing: &mut Passing,
        scope: &Scope<'_>,
        level: Contexts,
    ) -> Result<(), Fault> {
        let caches = !matches!(self.cache.value, Chosen::Off);
        let stores = passing.store.value != Store::Off;
        if caches && stores {
            match (self.cache.is_own(scope), passing.store.is_own(scope)) {
                (true, true) => {
                    let (first, second) = match self.cache.at < passing.store.at {
                        true => ((self.cache.at, "cache"), (passing.store.at, "store")),
                        false => ((passing.store.at, "store"), (self.cache.at, "cache")),
                    };
                    let text =
                        format!("\"{prefix}_{}\" directive is incompatible with \"{prefix}_{}\"", second.1, first.1);
                    return Err(Fault::at(second.0.unwrap_or_default(), text)
                        .also(first.0.unwrap_or_default(), "which stands here"));
                }
                (false, true) => self.cache.value = Chosen::Off,
                _ => passing.store.value = Store::Off,
            }
        }
        if level == HTTP {
            return Ok(());
        }
        // `proxy_` has a key of its own for those who name none.
        if prefix != "proxy" && self.key.is_none() && !matches!(self.cache.value, Chosen::Off) {
            scope.fault(scope.settling(format!("no \"{prefix}_cache_key\" for \"{prefix}_cache\"")).warn());
        }
        if let Chosen::Named(name) = &self.cache.value {
            let zone = self.zones.iter().find(|zone| zone.path.name == name.text);
            let unknown = || {
                let text = format!("\"{prefix}_cache\" zone \"{}\" is unknown", String::from_utf8_lossy(&name.text));
                Fault { span: Some(name.span), ..scope.settling(text) }
            };
            self.cache.value = Chosen::Zone(Arc::clone(zone.ok_or_else(unknown)?));
        }
        Ok(())
    }

    /// The cache of a request; `None` where it has none.
    ///
    /// # Errors
    /// There is none of the name that variables gave: what to log.
    pub fn zone(&self, exchange: &Exchange) -> Result<Option<Arc<Zone>>, String> {
        match &self.cache.value {
            Chosen::Off | Chosen::Named(_) => Ok(None),
            Chosen::Zone(zone) => Ok(Some(Arc::clone(zone))),
            Chosen::Variable(name) => match &*name.evaluate(exchange) {
                b"" | b"off" => Ok(None),
                name => {
                    let zone = self.zones.iter().find(|zone| zone.path.name == name);
                    let zone = zone.ok_or_else(|| format!("cache \"{}\" not found", String::from_utf8_lossy(name)));
                    zone.cloned().map(Some)
                }
            },
        }
    }

    /// For how many seconds an answer with this status is kept where it says nothing itself; 0 is not at all
    /// (`ngx_http_file_cache_valid`).
    pub fn valid(&self, status: u16) -> i64 {
        let mut all = self.valid.iter().flat_map(|valid| valid.statuses.iter().map(|known| (*known, valid.seconds)));
        all.find(|(known, _)| *known == 0 || *known == status).map_or(0, |(_, seconds)| seconds)
    }

    /// Whether answers to this method are kept.
    pub fn takes(&self, method: Method) -> bool {
        match method {
            Method::Get | Method::Head => true,
            Method::Post => self.methods.has(Methods::POST),
            _ => false,
        }
    }
}

/// `_cache`: the cache of a level.
#[derive(Clone, Debug, Default)]
pub enum Chosen {
    #[default]
    Off,
    /// By a name that was not looked up yet.
    Named(Name),
    Zone(Arc<Zone>),
    Variable(Template),
}

/// A name, and where it stands.
#[derive(Clone, Debug)]
pub struct Name {
    text: Vec<u8>,
    span: Span,
}

impl FromArgs for Chosen {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        if word.value == b"off" {
            return Ok(Self::Off);
        }
        let template = Template::compile(word, args.scope)?;
        match template.as_literal() {
            Some(name) => Ok(Self::Named(Name { text: name.to_vec(), span: word.span })),
            None => Ok(Self::Variable(template)),
        }
    }
}

/// One `_cache_path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePath {
    pub folder: PathBuf,
    /// The lengths of the names of folders within it.
    pub levels: Vec<usize>,
    /// Files are written where temporary files are, and not where they stay.
    pub use_temp_path: bool,
    pub name: Vec<u8>,
    /// For the keys. Bytes.
    pub size: usize,
    /// Seconds that a file is kept that nobody asks for.
    pub inactive: u64,
    /// All files together. Bytes.
    pub max_size: u64,
    /// What has to be left on the file system; 0 for nothing. Bytes.
    pub min_free: u64,
    pub manager: Steps,
    pub loader: Steps,
}

/// The `max_size` of a cache without one.
const UNLIMITED: u64 = i64::MAX as u64;

/// How much is done at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    pub files: usize,
    pub sleep: Duration,
    pub threshold: Duration,
}

impl Default for Steps {
    fn default() -> Self {
        Self { files: 100, sleep: Duration::from_millis(50), threshold: Duration::from_millis(200) }
    }
}

impl FromArgs for Arc<Zone> {
    const TAKES: RangeInclusive<usize> = 2..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let path = CachePath::from_args(args)?;
        let at = args.statement.name.span;
        // No name has a colon.
        let own = [args.statement.name.value.as_slice(), b":", &path.name].concat();
        let (_, same) = args.scope.define(Kind::Cache, &own, at);
        let (_, earlier) = args.scope.define(Kind::Cache, &path.name, at);
        if let Some(earlier) = earlier.or_else(|| args.scope.first_use(Kind::Zone, &path.name)) {
            let text = match same {
                Some(_) => [b"duplicate zone \"", &path.name[..], b"\""].concat(),
                None => other_use(&path.name),
            };
            return Err(Fault::at(at, text).also(earlier, "defined here"));
        }
        let folder = path.folder.as_os_str().as_bytes();
        // nginx compares what is written: with a slash at its end it is another one.
        let slash = args.word(0).value.ends_with(b"/");
        if let Some(earlier) = args.scope.first_use(Kind::TempFolder, folder).filter(|_| !slash) {
            let text = [b"the same path name \"", folder, b"\" used"].concat();
            return Err(Fault::at(at, text).also(earlier, "used here"));
        }
        args.scope.define(Kind::TempFolder, folder, args.word(0).span);
        Ok(Self::new(Zone::new(path)))
    }
}

impl FromArgs for CachePath {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let folder = &args.word(0).value;
        let folder = args.scope.path(folder.strip_suffix(b"/").unwrap_or(folder));
        let mut path = Self {
            folder,
            levels: Vec::new(),
            use_temp_path: true,
            name: Vec::new(),
            size: 0,
            inactive: 600,
            max_size: UNLIMITED,
            min_free: 0,
            manager: Steps::default(),
            loader: Steps::default(),
        };
        for word in &args.words()[1..] {
            path.read(args, word)?;
        }
        if path.name.is_empty() || path.size == 0 {
            let text = format!("\"{}\" must have \"keys_zone\" parameter", args.name());
            return Err(Fault::at(args.statement.name.span, text));
        }
        Ok(path)
    }
}

impl CachePath {
    /// How large the cache may become, where that is said. Bytes.
    pub fn limit(&self) -> Option<u64> {
        Some(self.max_size).filter(|size| *size < UNLIMITED)
    }

    fn read(&mut self, args: &Args<'_>, word: &Word) -> Result<(), Fault> {
        let bad = |name: &str| {
            Fault::at(word.span, [b"invalid ", name.as_bytes(), b" value \"", &word.value[..], b"\""].concat())
        };
        let Some(at) = memchr::memchr(b'=', &word.value) else { return Err(args.parameter(word)) };
        let (name, value) = (&word.value[..at], &word.value[at + 1..]);
        let number = |name: &str| parse_number(value).ok_or_else(|| bad(name));
        let time = |name: &str| parse_time(value, true).map(Duration::from_millis).ok_or_else(|| bad(name));
        let bytes = |name: &str| parse_offset(value).ok_or_else(|| bad(name));
        match name {
            b"levels" => {
                let text = || Fault::at(word.span, [b"invalid \"levels\" \"", &word.value[..], b"\""].concat());
                self.levels = if value.is_empty() { Vec::new() } else { levels(value).ok_or_else(text)? };
            }
            b"use_temp_path" => {
                self.use_temp_path = match value {
                    b"on" => true,
                    b"off" => false,
                    _ => {
                        let text =
                            [b"invalid use_temp_path value \"", &word.value[..], b"\", it must be \"on\" or \"off\""];
                        return Err(Fault::at(word.span, text.concat()));
                    }
                };
            }
            b"keys_zone" => {
                let text = || Fault::at(word.span, [b"invalid keys zone size \"", &word.value[..], b"\""].concat());
                let colon = memchr::memchr(b':', value).ok_or_else(text)?;
                let size = parse_size(&value[colon + 1..]).ok_or_else(text)?;
                if size < 2 * 4096 {
                    return Err(Fault::at(word.span, [b"keys zone \"", &word.value[..], b"\" is too small"].concat()));
                }
                self.name = value[..colon].to_vec();
                self.size = size;
            }
            b"inactive" => self.inactive = parse_time(value, false).ok_or_else(|| bad("inactive"))?,
            b"max_size" => self.max_size = bytes("max_size")?,
            b"min_free" => self.min_free = bytes("min_free")?,
            b"loader_files" => self.loader.files = number("loader_files")?,
            b"loader_sleep" => self.loader.sleep = time("loader_sleep")?,
            b"loader_threshold" => self.loader.threshold = time("loader_threshold")?,
            b"manager_files" => self.manager.files = number("manager_files")?,
            b"manager_sleep" => self.manager.sleep = time("manager_sleep")?,
            b"manager_threshold" => self.manager.threshold = time("manager_threshold")?,
            _ => return Err(args.parameter(word)),
        }
        Ok(())
    }
}

/// `1:2:2`: up to three levels of one or two digits.
fn levels(text: &[u8]) -> Option<Vec<usize>> {
    let level = |part: &[u8]| match part {
        b"1" => Some(1),
        b"2" => Some(2),
        _ => None,
    };
    let levels = text.split(|byte| *byte == b':').map(level).collect::<Option<Vec<_>>>()?;
    (levels.len() <= 3).then_some(levels)
}

/// One `_cache_valid`: statuses, of which 0 is any, and the seconds for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Valid {
    statuses: Vec<u16>,
    seconds: i64,
}

impl FromArgs for Valid {
    const TAKES: RangeInclusive<usize> = 1..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let [statuses @ .., time] = args.words() else { return Err(args.count()) };
        let seconds = parse_time(&time.value, false).and_then(|seconds| i64::try_from(seconds).ok());
        let text = || Fault::at(time.span, [b"invalid time value \"", &time.value[..], b"\""].concat());
        let seconds = seconds.ok_or_else(text)?;
        let status = |word: &Word| match parse_number(&word.value) {
            _ if word.value == b"any" => Ok(0),
            Some(status @ 100..=599) => Ok(u16::try_from(status).unwrap_or(0)),
            _ => Err(Fault::at(word.span, [b"invalid status \"", &word.value[..], b"\""].concat())),
        };
        let statuses = match statuses {
            [] => vec![200, 301, 302],
            statuses => statuses.iter().map(status).collect::<Result<_, _>>()?,
        };
        Ok(Self { statuses, seconds })
    }
}

/// `_cache_use_stale`.
pub struct Stale;

impl Choices for Stale {
    const CHOICES: &'static [(&'static str, u32)] = CASES;
    const DEFAULT: u32 = 0;
    const OFF: u32 = cases::OFF;
}

/// `_cache_methods`; `GET` and `HEAD` are among them in any case.
pub struct Methods;

impl Methods {
    const POST: u32 = 1;
}

impl Choices for Methods {
    const CHOICES: &'static [(&'static str, u32)] = &[("GET", 2), ("HEAD", 4), ("POST", Self::POST)];
    const DEFAULT: u32 = 0;
}

#[cfg(test)]
mod tests;
