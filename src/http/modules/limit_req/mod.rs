//! `limit_req`: how often a key's requests are taken, by the leaky bucket.

mod table;

use super::Room;
use crate::{
    config::{Args, Directive, FromArgs, HTTP, Handle, Kind, LEVELS, List, Module, Scope, values::parse_number},
    http::{
        exchange::Exchange,
        limit_zone::{self, LimitLevel, LimitStatus, Tally, no_zone, zone_shape},
        phase::{Phase, status},
        variables::Variable,
    },
    observe::error_log::Level,
    syntax::{Fault, Span},
};
use std::{ops::RangeInclusive, sync::Arc, time::Duration};
use table::{Judged, Table};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    zones: List<Arc<Zone>>,
    limits: List<Limit>,
    log_level: LimitLevel,
    status: LimitStatus,
    dry_run: bool,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("limit_req_zone", HTTP, |conf| &mut conf.zones),
        Directive::new("limit_req", LEVELS, |conf| &mut conf.limits),
        Directive::new("limit_req_log_level", LEVELS, |conf| &mut conf.log_level),
        Directive::new("limit_req_status", LEVELS, |conf| &mut conf.status),
        Directive::new("limit_req_dry_run", LEVELS, |conf| &mut conf.dry_run),
    ];

    fn settle(&mut self, scope: &Scope<'_>, _level: crate::config::Contexts) -> Result<(), Fault> {
        // A zone counts once at a level.
        for (at, limit) in self.limits.iter().enumerate() {
            if self.limits[..at].iter().any(|earlier| earlier.zone == limit.zone) {
                scope.fault(Fault::at(limit.at, "\"limit_req\" directive is duplicate"));
            }
        }
        Ok(())
    }
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] = &[Variable::new("limit_req_status", |ex, out| {
        ex.state.limit_req.is_some_and(|status| super::core::put(out, status.as_bytes()))
    })];
    /// `$limit_req_status`, once it is known.
    type State = Option<&'static str>;
}

/// The preaccess phase (`ngx_http_limit_req_handler`): lets the request pass, wait, or go.
pub async fn check(exchange: &mut Exchange) -> Phase {
    if exchange.location.settings.limit_req.limits.is_empty() || exchange.state.limit_req.is_some() {
        return Phase::Continue(());
    }
    let (conf, http) = (Arc::clone(&exchange.location.settings.limit_req), Arc::clone(&exchange.http));
    let dry_run = if conf.dry_run { ", dry run" } else { "" };
    let (delay, excess, zone) = match judge(exchange, &conf, &http.settings.limit_req.zones) {
        Verdict::Unasked => return Phase::Continue(()),
        Verdict::Refused(excess, zone) => {
            zone.tally().reject(conf.dry_run);
            if let Some(excess) = excess {
                let (whole, rest) = (excess / 1000, excess % 1000);
                let text = format!("limiting requests{dry_run}, excess: {whole}.{rest:03} by zone \"{}\"", zone.name);
                exchange.log(conf.log_level.0, &text);
            }
            exchange.state.limit_req = Some(if conf.dry_run { "REJECTED_DRY_RUN" } else { "REJECTED" });
            return if conf.dry_run { Phase::Continue(()) } else { status(conf.status.0) };
        }
        Verdict::Passed(delay, excess, zone) => (delay, excess, zone),
    };
    if delay == 0 {
        zone.tally().passed.up();
        exchange.state.limit_req = Some("PASSED");
        return Phase::Continue(());
    }
    let (whole, rest) = (excess / 1000, excess % 1000);
    let text = format!("delaying request{dry_run}, excess: {whole}.{rest:03}, by zone \"{}\"", zone.name);
    exchange.log(conf.log_level.weaker(), &text);
    zone.tally().delay(conf.dry_run);
    exchange.state.limit_req = Some(if conf.dry_run { "DELAYED_DRY_RUN" } else { "DELAYED" });
    if !conf.dry_run {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    Phase::Continue(())
}

enum Verdict<'z> {
    /// No key has a value.
    Unasked,
    /// What was too much, in thousandths of requests, and in which zone; none where there was no room to count it.
    Refused(Option<u64>, &'z Keys),
    /// Milliseconds to wait, and for what.
    Passed(u64, u64, &'z Keys),
}

/// Asks every limit in turn; what a request costs is booked only where all of them take it.
fn judge<'z>(exchange: &Exchange, conf: &Conf, zones: &'z [Arc<Zone>]) -> Verdict<'z> {
    let mut asked: Vec<(&Limit, &'z Zone, Vec<u8>)> = Vec::with_capacity(conf.limits.len());
    for (at, limit) in conf.limits.iter().enumerate() {
        let Some(zone) = zones.iter().find(|zone| zone.keys.handle == limit.zone) else { continue };
        let Some(key) = zone.keys.key(exchange, 65535) else { continue };
        let last = at + 1 == conf.limits.len();
        let judged = zone.keys.table().judge(&key, zone.rate, limit.burst, last);
        let (excess, done) = match judged {
            Judged::Taken(excess) => (excess, true),
            Judged::Noted => (0, false),
            Judged::Over(excess) => {
                for (_, zone, key) in &asked {
                    zone.keys.table().release(key);
                }
                return Verdict::Refused(Some(excess), &zone.keys);
            }
            Judged::Full => {
                exchange
                    .log(Level::Alert, &format!("could not allocate node in limit_req zone \"{}\"", zone.keys.name));
                for (_, zone, key) in &asked {
                    zone.keys.table().release(key);
                }
                return Verdict::Refused(None, &zone.keys);
            }
        };
        if done {
            let delay = limit.wait(excess, zone.rate);
            return book(&asked, Some((delay, excess, zone)));
        }
        asked.push((limit, zone, key));
    }
    book(&asked, None)
}

/// Books the request with the limits that were asked; the longest wait counts (`ngx_http_limit_req_account`).
fn book<'z>(asked: &[(&Limit, &'z Zone, Vec<u8>)], last: Option<(u64, u64, &'z Zone)>) -> Verdict<'z> {
    let mut longest = last;
    for (limit, zone, key) in asked.iter().rev() {
        let excess = zone.keys.table().book(key, zone.rate);
        let delay = limit.wait(excess, zone.rate);
        if longest.is_none_or(|(most, ..)| delay > most) {
            longest = Some((delay, excess, *zone));
        }
    }
    let Some((delay, excess, slowest)) = longest else { return Verdict::Unasked };
    // What the slowest one does is told by the caller.
    let zones = asked.iter().map(|(_, zone, _)| *zone).chain(last.map(|(_, _, zone)| zone));
    zones.filter(|zone| !std::ptr::eq(*zone, slowest)).for_each(|zone| zone.keys.tally().passed.up());
    Verdict::Passed(delay, excess, &slowest.keys)
}

/// What the limits of each zone have done, by its name.
pub fn tallies(conf: &Conf) -> impl Iterator<Item = (&str, &Arc<Tally>)> {
    conf.zones.iter().map(|zone| (&*zone.keys.name, zone.keys.tally()))
}

/// Takes over what the generation before has counted in the same zones.
pub fn adopt(conf: &Conf, previous: &Conf) {
    limit_zone::adopt(conf.zones.iter().map(|zone| &zone.keys), previous.zones.iter().map(|zone| &zone.keys));
}

type Keys = limit_zone::Zone<Table>;

/// One `limit_req_zone`.
#[derive(Debug)]
struct Zone {
    keys: Keys,
    /// Thousandths of requests a second.
    rate: u64,
}

impl FromArgs for Arc<Zone> {
    const TAKES: RangeInclusive<usize> = 3..=3;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let (mut found, mut rate) = (None, 1000);
        for word in &args.words()[1..] {
            if let Some(shape) = word.value.strip_prefix(b"zone=") {
                found = Some(zone_shape(shape, word)?);
            } else if let Some(text) = word.value.strip_prefix(b"rate=") {
                let (text, scale) = match text {
                    [number @ .., b'r', b'/', b's'] => (number, 1),
                    [number @ .., b'r', b'/', b'm'] => (number, 60),
                    number => (number, 1),
                };
                let number = parse_number(text).filter(|number| *number > 0);
                let fault = || Fault::at(word.span, [b"invalid rate \"", &word.value[..], b"\""].concat());
                rate = number.ok_or_else(fault)? as u64 * 1000 / scale;
            } else {
                return Err(args.parameter(word));
            }
        }
        let (name, size) = found.ok_or_else(|| no_zone(args))?;
        Ok(Self::new(Zone { keys: limit_zone::Zone::define(args, name, size)?, rate }))
    }
}

/// One `limit_req`; excess in thousandths of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limit {
    zone: Handle,
    burst: u64,
    /// From which excess on requests wait.
    delay: u64,
    at: Span,
}

impl Limit {
    /// Milliseconds to wait for an excess.
    fn wait(&self, excess: u64, rate: u64) -> u64 {
        excess.saturating_sub(self.delay) * 1000 / rate.max(1)
    }
}

impl FromArgs for Limit {
    const TAKES: RangeInclusive<usize> = 1..=3;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let (mut zone, mut burst, mut delay) = (None, 0, 0);
        for word in args.words() {
            let number = |text: &[u8], what: &str| {
                let fault = || {
                    Fault::at(word.span, [b"invalid ", what.as_bytes(), b" value \"", &word.value[..], b"\""].concat())
                };
                parse_number(text).filter(|number| *number > 0).map(|number| number as u64 * 1000).ok_or_else(fault)
            };
            if let Some(name) = word.value.strip_prefix(b"zone=") {
                zone = Some(args.scope.refer(Kind::Zone, name, word.span));
            } else if let Some(text) = word.value.strip_prefix(b"burst=") {
                burst = number(text, "burst")?;
            } else if let Some(text) = word.value.strip_prefix(b"delay=") {
                delay = number(text, "delay")?;
            } else if &word.value[..] == b"nodelay" {
                delay = u64::MAX;
            } else {
                return Err(args.parameter(word));
            }
        }
        let zone = zone.ok_or_else(|| no_zone(args))?;
        Ok(Self { zone, burst, delay, at: args.statement.name.span })
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask_http, http_fault};

    fn first(zone: &str, limits: &str) -> String {
        let server = format!(
            "server {{ location / {{ {limits} try_files $uri @said; }} location @said {{ return 200 $limit_req_status; }} }}"
        );
        ask_http(&format!("limit_req_zone {zone}; {server}"), "GET /?k=a HTTP/1.1\r\nHost: x\r\n\r\n").text()
    }

    #[test]
    fn a_first_request_passes_and_one_without_a_key_is_not_counted() {
        assert_eq!(first("$arg_k zone=one:32k rate=1r/s", "limit_req zone=one;"), "PASSED");
        assert_eq!(first("$arg_none zone=one:32k rate=1r/s", "limit_req zone=one;"), "");
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        for (text, message) in [
            ("limit_req_zone $host zone=a rate=1r/s;", "invalid zone size \"zone=a\""),
            ("limit_req_zone $host zone=a:1k rate=1r/s;", "zone \"zone=a:1k\" is too small"),
            ("limit_req_zone $host zone=a:1m rate=0r/s;", "invalid rate \"rate=0r/s\""),
            ("limit_req_zone $host x rate=1r/s;", "invalid parameter \"x\""),
            ("limit_req zone=a burst=0;", "invalid burst value \"burst=0\""),
            ("limit_req burst=1;", "\"limit_req\" must have \"zone\" parameter"),
            ("limit_req zone=a;", "zero size shared memory zone \"a\""),
        ] {
            assert_eq!(http_fault(text), message, "{text}");
        }
    }
}
