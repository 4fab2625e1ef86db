//! `add_header`, `add_trailer`, `expires`: fields that the configuration adds to answers.

use super::Room;
use crate::{
    config::{
        Args, Contexts, Directive, FromArgs, LEVELS_IF, Module, Scope, Slot,
        values::{choose, parse_time},
    },
    http::{dates, exchange::Exchange, response::{Response, preview}, template::Template},
    syntax::Fault,
};
use bytes::Bytes;
use std::{ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub expires: Expires,
    pub headers: Headers,
    pub add_header_inherit: Inherit,
    pub trailers: Headers,
    pub add_trailer_inherit: Inherit,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("expires", LEVELS_IF, |conf| &mut conf.expires),
        Directive::new("add_header", LEVELS_IF, |conf| &mut conf.headers),
        Directive::new("add_header_inherit", LEVELS_IF, |conf| &mut conf.add_header_inherit),
        Directive::new("add_trailer", LEVELS_IF, |conf| &mut conf.trailers),
        Directive::new("add_trailer_inherit", LEVELS_IF, |conf| &mut conf.add_trailer_inherit),
    ];

    fn enter(this: &mut Arc<Self>, _level: Contexts) {
        if this.headers.changes(this.add_header_inherit) {
            let this = Arc::make_mut(this);
            this.headers.enter(this.add_header_inherit);
        }
        if this.trailers.changes(this.add_trailer_inherit) {
            let this = Arc::make_mut(this);
            this.trailers.enter(this.add_trailer_inherit);
        }
    }

    fn settle(&mut self, _scope: &Scope<'_>, _level: Contexts) -> Result<(), Fault> {
        self.headers.settle(self.add_header_inherit);
        self.trailers.settle(self.add_trailer_inherit);
        Ok(())
    }
}

impl Room for Conf {
    type State = ();
}

/// Adds the fields (`ngx_http_headers_filter`).
pub fn filter(exchange: &mut Exchange, response: &mut Response) {
    let conf = &exchange.location.settings.headers;
    if conf.headers.all.is_empty() && conf.trailers.all.is_empty() && conf.expires == Expires::Off {
        return;
    }
    let conf = Arc::clone(conf);
    let safe = is_safe(response.status);
    if safe {
        conf.expires.apply(exchange, response);
    }
    for header in conf.headers.all.iter().filter(|header| safe || header.always) {
        if header.value.as_literal().is_none() {
            // It may speak of the answer it is added to, and of what was added before.
            exchange.sent.status = response.status;
            exchange.sent.text = preview(exchange, response);
        }
        let value = header.value.evaluate_bytes(exchange);
        header.apply(exchange, response, value);
    }
    response.trailers = conf.trailers.all.iter().any(|trailer| safe || trailer.always);
}

/// Adds the fields that go out behind a body that has just ended (`ngx_http_trailers_filter`).
pub fn add_trailers(exchange: &mut Exchange) {
    let conf = Arc::clone(&exchange.location.settings.headers);
    let safe = is_safe(exchange.sent.status);
    for trailer in conf.trailers.all.iter().filter(|trailer| safe || trailer.always) {
        let value = trailer.value.evaluate_bytes(exchange);
        if !value.is_empty() {
            exchange.sent.trailers.push(trailer.name.clone(), value);
        }
    }
}

/// The statuses of answers that get what is not added `always`.
fn is_safe(status: u16) -> bool {
    matches!(status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308)
}

/// What a level's answers get, by its own `add_header`s and those above.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    /// Those that apply.
    pub all: Arc<[Header]>,
    above: Arc<[Header]>,
    own: Vec<Header>,
}

impl Headers {
    /// Whether a nested level has others than this one.
    fn changes(&self, inherit: Inherit) -> bool {
        !self.own.is_empty() || inherit == Inherit::Off && !self.all.is_empty()
    }

    fn enter(&mut self, inherit: Inherit) {
        self.own.clear();
        self.above = Arc::clone(&self.all);
        self.settle(inherit);
    }

    fn settle(&mut self, inherit: Inherit) {
        self.all = match inherit {
            Inherit::On if self.own.is_empty() => Arc::clone(&self.above),
            Inherit::Merge => self.own.iter().chain(&*self.above).cloned().collect(),
            Inherit::On | Inherit::Off => self.own.iter().cloned().collect(),
        };
    }
}

impl Slot for Headers {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        self.own.push(Header::from_args(args)?);
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        Header::TAKES
    }
}

/// What becomes of the fields of the level above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inherit {
    /// They are forgotten.
    Off,
    /// They apply where a level adds none itself.
    #[default]
    On,
    /// They apply behind those of the level.
    Merge,
}

impl FromArgs for Inherit {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        choose(args, &[("off", Self::Off), ("on", Self::On), ("merge", Self::Merge)])
    }
}

/// One `add_header` or `add_trailer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub name: Bytes,
    /// Nothing is added when it comes out empty.
    pub value: Template,
    /// Whatever the status is.
    pub always: bool,
}

impl FromArgs for Header {
    const TAKES: RangeInclusive<usize> = 2..=3;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let name = Bytes::copy_from_slice(&args.word(0).value);
        let value = Template::compile(args.word(1), args.scope)?;
        let always = match args.words().get(2) {
            None => false,
            Some(word) if word.value == b"always" => true,
            Some(word) => return Err(args.parameter(word).help("the only parameter is `always`")),
        };
        Ok(Self { name, value, always })
    }
}

impl Header {
    /// `Last-Modified` and `ETag` replace what the answer says, and an empty value takes it away; the others are added.
    fn apply(&self, exchange: &Exchange, response: &mut Response, value: Bytes) {
        let is = |name: &[u8]| self.name.eq_ignore_ascii_case(name);
        if is(b"last-modified") {
            response.last_modified = dates::parse_http_time(&value);
            return replace(response, &self.name, value);
        }
        if is(b"etag") {
            response.etag = None;
            return replace(response, &self.name, value);
        }
        if value.is_empty() {
            return;
        }
        // nginx's own `Server` and `Date` stay beside those that are added here.
        if is(b"server") && !response.fields.contains("server") {
            let signature = exchange.location.settings.core.server_tokens.signature(exchange).into_owned();
            response.push(&b"Server"[..], signature);
        }
        if is(b"date") && !response.fields.contains("date") {
            response.push(&b"Date"[..], dates::http_date(now(exchange)));
        }
        response.push(self.name.clone(), value);
    }
}

fn replace(response: &mut Response, name: &Bytes, value: Bytes) {
    if value.is_empty() {
        response.fields.remove(name);
    } else {
        response.fields.set(name.clone(), value);
    }
}

/// `expires`: how long an answer stays fresh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expires {
    #[default]
    Off,
    /// Has been stale since 1970.
    Epoch,
    /// Ten years.
    Max,
    /// Seconds from now.
    Access(i64),
    /// Seconds from when the file was changed.
    Modified(i64),
    /// Until that second of the local day.
    Daily(i64),
    /// Any of the above as a variable says; what it says wrongly has no effect.
    Variable { value: Template, modified: bool },
}

impl FromArgs for Expires {
    const TAKES: RangeInclusive<usize> = 1..=2;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let (word, modified) = match args.words().get(1) {
            None => (args.word(0), false),
            Some(word) if args.word(0).value == b"modified" => (word, true),
            Some(_) => return Err(args.directive(args.word(0), "invalid value")),
        };
        let value = Template::compile(word, args.scope)?;
        match value.as_literal() {
            Some(text) => Self::parse(text, modified).map_err(|error| args.directive(word, error)),
            None => Ok(Self::Variable { value, modified }),
        }
    }
}

impl Expires {
    /// `ngx_http_parse_expires`.
    fn parse(text: &[u8], modified: bool) -> Result<Self, &'static str> {
        match text {
            b"epoch" if !modified => return Ok(Self::Epoch),
            b"max" if !modified => return Ok(Self::Max),
            b"off" if !modified => return Ok(Self::Off),
            [b'@', ..] if modified => return Err("daily time cannot be used with \"modified\" parameter"),
            _ => {}
        }
        let (sign, digits) = match text {
            [sign @ (b'@' | b'+' | b'-'), digits @ ..] => (*sign, digits),
            _ => (b'+', text),
        };
        let seconds = parse_time(digits, false).and_then(|seconds| i64::try_from(seconds).ok());
        let seconds = seconds.ok_or("invalid value")?;
        match sign {
            b'@' if seconds > 24 * 60 * 60 => Err("daily time value must be less than 24 hours"),
            b'@' => Ok(Self::Daily(seconds)),
            sign => {
                let seconds = if sign == b'-' { -seconds } else { seconds };
                Ok(if modified { Self::Modified(seconds) } else { Self::Access(seconds) })
            }
        }
    }

    /// Sets `Expires` and `Cache-Control` (`ngx_http_set_expires`).
    fn apply(&self, exchange: &Exchange, response: &mut Response) {
        let now = now(exchange);
        let (at, age) = match self {
            Self::Off => return,
            Self::Epoch => return set(response, "Thu, 01 Jan 1970 00:00:01 GMT", None),
            Self::Max => return set(response, "Thu, 31 Dec 2037 23:55:55 GMT", Some(315_360_000)),
            Self::Variable { value, modified } => {
                if let Ok(said) = Self::parse(&value.evaluate(exchange), *modified) {
                    said.apply(exchange, response);
                }
                return;
            }
            Self::Access(0) | Self::Modified(0) => (now, 0),
            Self::Access(seconds) => (now.saturating_add(*seconds), *seconds),
            Self::Modified(seconds) => match response.last_modified {
                None => (now.saturating_add(*seconds), *seconds),
                // What is negative is stale, even if the file is of tomorrow.
                Some(modified) if *seconds < 0 => (modified.saturating_add(*seconds), -1),
                Some(modified) => {
                    let at = modified.saturating_add(*seconds);
                    (at, at - now)
                }
            },
            Self::Daily(second) => {
                let at = next_time(now, *second);
                (at, at - now)
            }
        };
        set(response, dates::http_date(at), (age >= 0).then_some(age));
    }
}

/// Sets both fields; without an age the answer is stale.
fn set(response: &mut Response, expires: impl Into<Bytes>, max_age: Option<i64>) {
    response.fields.set(&b"Expires"[..], expires);
    let control = max_age.map_or_else(|| "no-cache".to_owned(), |age| format!("max-age={age}"));
    response.fields.set(&b"Cache-Control"[..], control);
}

/// When the local clock shows that second of the day the next time (`ngx_next_time`).
fn next_time(now: i64, second: i64) -> i64 {
    const DAY: i64 = 24 * 60 * 60;
    let offset = i64::from(dates::local_offset(now));
    let midnight = (now + offset).div_euclid(DAY) * DAY;
    let today = to_utc(midnight + second);
    if today > now { today } else { to_utc(midnight + DAY + second) }
}

/// A moment by the local clock, by the offset that holds then.
fn to_utc(local: i64) -> i64 {
    let guess = local - i64::from(dates::local_offset(local));
    local - i64::from(dates::local_offset(guess))
}

/// Seconds since the epoch.
fn now(exchange: &Exchange) -> i64 {
    i64::try_from(exchange.connection.worker.clock.now().as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{ask, fault, get};

    #[test]
    fn a_field_is_added_to_answers_that_went_well_and_to_all_if_always() {
        for (directives, status, expected) in [
            ("add_header X a;", 200, Some("a")),
            ("add_header X a;", 404, None),
            ("add_header X a always;", 404, Some("a")),
            ("add_header X $arg_none;", 200, None),
            ("add_header X \"\";", 200, None),
            ("add_header X $uri;", 200, Some("/x")),
            ("add_header X a;", 206, Some("a")),
            ("add_header X a;", 202, None),
        ] {
            let answer = get(&format!("location / {{ {directives} return {status} text; }}"), "/x");
            assert_eq!(answer.header("x"), expected, "{directives} {status}");
        }
    }

    #[test]
    fn trailers_need_the_chunked_coding() {
        for (directives, line, chunked) in [
            ("add_trailer X a; return 200 x;", "GET / HTTP/1.1", true),
            ("add_trailer X a; return 200 x;", "GET / HTTP/1.0", false),
            ("add_trailer X a; return 200 x;", "HEAD / HTTP/1.1", false),
            ("add_trailer X a; return 404 x;", "GET / HTTP/1.1", false),
            ("add_trailer X a always; return 404 x;", "GET / HTTP/1.1", true),
            ("add_trailer X a; return 204;", "GET / HTTP/1.1", false),
            ("chunked_transfer_encoding off; add_trailer X a; return 200 x;", "GET / HTTP/1.1", false),
            ("return 200 x;", "GET / HTTP/1.1", false),
        ] {
            let answer = ask(&format!("location / {{ {directives} }}"), &format!("{line}\r\nHost: x\r\n\r\n"));
            assert_eq!(answer.header("transfer-encoding").is_some(), chunked, "{directives} {line}");
        }
    }

    #[test]
    fn a_level_that_adds_fields_hides_those_above_unless_it_merges() {
        for (inherit, own, outer) in [
            ("", "b", None),
            ("add_header_inherit on;", "b", None),
            ("add_header_inherit merge;", "b", Some("a")),
            ("add_header_inherit off;", "b", None),
        ] {
            let config = format!("add_header Outer a; location / {{ {inherit} add_header Own b; return 200; }}");
            let answer = get(&config, "/");
            assert_eq!((answer.header("own"), answer.header("outer")), (Some(own), outer), "{inherit}");
        }
        let off = "add_header A a; location / { add_header_inherit off; return 200; }";
        assert_eq!(get(off, "/").header("a"), None);
        let far =
            "add_header_inherit merge; add_header A a; location / { location /x { add_header B b; return 200; } }";
        assert_eq!(get(far, "/x").header("a"), Some("a"));
        assert_eq!(get("add_header A a; location / { location /x { return 200; } }", "/x").header("a"), Some("a"));
    }

    #[test]
    fn expires_comes_with_cache_control() {
        let epoch = "Thu, 01 Jan 1970 00:00:01 GMT";
        for (value, control, expires) in [
            ("off", None, None),
            ("epoch", Some("no-cache"), Some(epoch)),
            ("max", Some("max-age=315360000"), Some("Thu, 31 Dec 2037 23:55:55 GMT")),
            ("0", Some("max-age=0"), None),
            ("1h", Some("max-age=3600"), None),
            ("+1d", Some("max-age=86400"), None),
            ("-1", Some("no-cache"), None),
            ("modified 10m", Some("max-age=600"), None),
            ("$arg_e", Some("no-cache"), Some(epoch)),
            ("$arg_none", None, None),
        ] {
            let answer = get(&format!("location / {{ expires {value}; return 200 text; }}"), "/?e=epoch");
            assert_eq!(answer.header("cache-control"), control, "{value}");
            assert!(expires.is_none() || answer.header("expires") == expires, "{value}");
        }
    }

    #[test]
    fn the_next_time_is_within_a_day_and_not_now() {
        let now = 1_700_000_000;
        for second in [0, 3600, 43_200, 86_399, 86_400] {
            let next = next_time(now, second);
            assert!(next > now && next <= now + 25 * 3600, "{second}: {next}");
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (directive, message) in [
            ("add_header X a never;", "invalid parameter \"never\""),
            ("expires soon;", "\"expires\" directive invalid value"),
            ("expires changed 1h;", "\"expires\" directive invalid value"),
            ("expires @25h;", "\"expires\" directive daily time value must be less than 24 hours"),
            ("expires modified @1h;", "\"expires\" directive daily time cannot be used with \"modified\" parameter"),
            ("expires 1h; expires 2h;", "\"expires\" directive is duplicate"),
            ("add_header_inherit maybe;", "invalid value \"maybe\""),
        ] {
            assert_eq!(fault(directive), message);
        }
    }
}
