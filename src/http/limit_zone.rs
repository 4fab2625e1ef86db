//! What `limit_req` and `limit_conn` share: zones in which keys are counted, and how a refusal is told.

use crate::{
    config::{
        Args, FromArgs, Handle, Kind, Scope,
        values::{choose, parse_number, parse_size},
    },
    http::{exchange::Exchange, template::Template},
    observe::{counts::Counter, error_log::Level},
    syntax::Fault,
};
use std::sync::{Arc, OnceLock};

/// A zone whose keys are counted in a `T`.
#[derive(Debug)]
pub struct Zone<T> {
    pub handle: Handle,
    pub name: String,
    key: Template,
    key_text: String,
    /// Bytes.
    size: usize,
    table: OnceLock<Arc<T>>,
    tally: OnceLock<Arc<Tally>>,
}

/// `ngx_shared_memory_add`: a zone of this name is something else already.
pub fn other_use(name: &[u8]) -> Vec<u8> {
    [b"the shared memory zone \"", name, b"\" is already declared for a different use"].concat()
}

/// What the keys of a zone are counted in.
pub trait Counts {
    /// Nothing is counted yet, and the keys may take so many bytes.
    fn sized(size: usize) -> Self;
}

impl<T: Counts> Zone<T> {
    /// The zone that a directive defines, whose key is its first argument.
    pub fn define(args: &Args<'_>, name: &[u8], size: usize) -> Result<Self, Fault> {
        let key = Template::compile(args.word(0), args.scope)?;
        if name.is_empty() {
            return Err(no_zone(args));
        }
        let at = args.statement.name.span;
        if let Some(earlier) = args.scope.first_use(Kind::Cache, name) {
            return Err(Fault::at(at, other_use(name)).also(earlier, "defined here"));
        }
        let (handle, earlier) = args.scope.define(Kind::Zone, name, at);
        let key_text = args.word(0).text().into_owned();
        let name = String::from_utf8_lossy(name).into_owned();
        if earlier.is_some() {
            let text = format!("{} \"{name}\" is already bound to key \"{key_text}\"", args.name());
            return Err(Fault::at(at, text));
        }
        Ok(Self { handle, name, key, key_text, size, table: OnceLock::new(), tally: OnceLock::new() })
    }

    /// The counts. They may be those of the generation before: see [`adopt`].
    pub fn table(&self) -> &Arc<T> {
        self.table.get_or_init(|| Arc::new(T::sized(self.size)))
    }

    /// What its limits have done. It may have been counted in the generation before.
    pub fn tally(&self) -> &Arc<Tally> {
        self.tally.get_or_init(Arc::default)
    }

    /// The key of a request; none where it is not counted. One of more than `most` bytes is not, and is logged.
    pub fn key(&self, exchange: &Exchange, most: usize) -> Option<Vec<u8>> {
        let key = self.key.evaluate(exchange).into_owned();
        if key.len() > most {
            let (name, shown) = (&self.key_text, String::from_utf8_lossy(&key));
            let text = format!("the value of the \"{name}\" key is more than {most} bytes: \"{shown}\"");
            exchange.log(Level::Err, &text);
            return None;
        }
        Some(key).filter(|key| !key.is_empty())
    }
}

/// What the limits of a zone have done.
#[derive(Debug, Default)]
pub struct Tally {
    pub passed: Counter<true>,
    pub delayed: Counter<true>,
    pub rejected: Counter<true>,
    pub delayed_dry_run: Counter<true>,
    pub rejected_dry_run: Counter<true>,
}

impl Tally {
    /// What the counters are called in the API and in metrics.
    pub const NAMES: [&'static str; 5] = ["passed", "delayed", "rejected", "delayed_dry_run", "rejected_dry_run"];

    /// The counters, in the order of their names.
    pub fn counters(&self) -> [&Counter<true>; 5] {
        [&self.passed, &self.delayed, &self.rejected, &self.delayed_dry_run, &self.rejected_dry_run]
    }

    /// A request is refused, or would be.
    pub fn reject(&self, dry_run: bool) {
        if dry_run { &self.rejected_dry_run } else { &self.rejected }.up();
    }

    /// A request has to wait, or would have to.
    pub fn delay(&self, dry_run: bool) {
        if dry_run { &self.delayed_dry_run } else { &self.delayed }.up();
    }

    /// Begins anew.
    pub fn reset(&self) {
        self.counters().into_iter().for_each(Counter::reset);
    }
}

/// Takes over what was counted in zones of the same name, size and key.
pub fn adopt<'z, T: Counts + 'z>(
    zones: impl Iterator<Item = &'z Zone<T>>,
    previous: impl Iterator<Item = &'z Zone<T>> + Clone,
) {
    for zone in zones {
        let same = |earlier: &&Zone<T>| {
            earlier.name == zone.name && earlier.size == zone.size && earlier.key_text == zone.key_text
        };
        if let Some(earlier) = previous.clone().find(same) {
            let _ = zone.table.set(Arc::clone(earlier.table()));
        }
        // What the limits did is the zone's by its name alone.
        if let Some(earlier) = previous.clone().find(|earlier| earlier.name == zone.name) {
            let _ = zone.tally.set(Arc::clone(earlier.tally()));
        }
    }
}

/// The name and size of `zone=name:size`.
pub fn zone_shape<'w>(shape: &'w [u8], word: &crate::syntax::Word) -> Result<(&'w [u8], usize), Fault> {
    let fault = || Fault::at(word.span, [b"invalid zone size \"", &word.value[..], b"\""].concat());
    let at = memchr::memchr(b':', shape).ok_or_else(fault)?;
    let size = parse_size(&shape[at + 1..]).ok_or_else(fault)?;
    if size < 8 * 4096 {
        return Err(Fault::at(word.span, [b"zone \"", &word.value[..], b"\" is too small"].concat()));
    }
    Ok((&shape[..at], size))
}

/// A zone that is needed was not named.
pub fn no_zone(args: &Args<'_>) -> Fault {
    Fault::at(args.statement.name.span, format!("\"{}\" must have \"zone\" parameter", args.name()))
}

/// A zone that something names and nothing defines is a fault where it is first named (`ngx_init_zone_pool`).
pub fn check_zones(scope: &Scope<'_>) {
    for zone in scope.names(Kind::Zone).iter().filter(|zone| zone.defined.is_none()) {
        let text = [b"zero size shared memory zone \"", &zone.name[..], b"\""].concat();
        scope.fault(Fault::at(zone.first_use, text).unnamed().when(crate::syntax::Stage::Settling));
    }
}

/// The severity of what a limit does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitLevel(pub Level);

impl Default for LimitLevel {
    fn default() -> Self {
        Self(Level::Err)
    }
}

impl LimitLevel {
    /// One step weaker: delays are logged so.
    pub fn weaker(self) -> Level {
        match self.0 {
            Level::Err => Level::Warn,
            Level::Warn => Level::Notice,
            _ => Level::Info,
        }
    }
}

impl FromArgs for LimitLevel {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let levels = [("info", Level::Info), ("notice", Level::Notice), ("warn", Level::Warn), ("error", Level::Err)];
        choose(args, &levels).map(Self)
    }
}

/// The status of a refusal: 400 to 599.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitStatus(pub u16);

impl Default for LimitStatus {
    fn default() -> Self {
        Self(503)
    }
}

impl FromArgs for LimitStatus {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let number = parse_number(&word.value).ok_or_else(|| args.directive(word, "invalid number"))?;
        match number {
            400..=599 => Ok(Self(number as u16)),
            _ => Err(Fault::at(word.span, "value must be between 400 and 599")),
        }
    }
}
