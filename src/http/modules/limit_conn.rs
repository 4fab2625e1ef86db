//! `limit_conn`: how many requests of a key may be under way at once.

use super::Room;
use crate::{
    config::{Args, Directive, FromArgs, HTTP, Handle, Kind, LEVELS, List, Module, Slot, values::parse_number},
    http::{
        exchange::Exchange,
        limit_zone::{self, Counts, LimitLevel, LimitStatus, Tally, zone_shape},
        phase::{Phase, status},
        variables::Variable,
    },
    lock,
    syntax::Fault,
};
use std::{
    collections::HashMap,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard},
};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    zones: List<Arc<Zone>>,
    limits: Limits,
    log_level: LimitLevel,
    status: LimitStatus,
    dry_run: bool,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("limit_conn_zone", HTTP, |conf| &mut conf.zones),
        Directive::new("limit_conn", LEVELS, |conf| &mut conf.limits),
        Directive::new("limit_conn_log_level", LEVELS, |conf| &mut conf.log_level),
        Directive::new("limit_conn_status", LEVELS, |conf| &mut conf.status),
        Directive::new("limit_conn_dry_run", LEVELS, |conf| &mut conf.dry_run),
    ];
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] = &[Variable::new("limit_conn_status", |ex, out| {
        ex.state.limit_conn.status.is_some_and(|status| super::core::put(out, status.as_bytes()))
    })];
    type State = State;
}

/// What is remembered about a request.
#[derive(Debug, Default)]
pub struct State {
    /// `$limit_conn_status`, once it is known.
    status: Option<&'static str>,
    /// Where it is counted until it ends.
    counted: Vec<Counted>,
}

/// The preaccess phase (`ngx_http_limit_conn_handler`).
pub fn check(exchange: &mut Exchange) -> Phase {
    if exchange.location.settings.limit_conn.limits.0.is_empty() || exchange.state.limit_conn.status.is_some() {
        return Phase::Continue(());
    }
    let conf = Arc::clone(&exchange.location.settings.limit_conn);
    for limit in &conf.limits.0 {
        let zones = &exchange.http.settings.limit_conn.zones;
        let Some(zone) = zones.iter().find(|zone| zone.handle == limit.zone).cloned() else { continue };
        let Some(key) = zone.key(exchange, 255) else { continue };
        exchange.state.limit_conn.status = Some("PASSED");
        let refused = match Table::count(zone.table(), key, limit.most) {
            Ok(counted) => {
                zone.tally().passed.up();
                exchange.state.limit_conn.counted.push(counted);
                continue;
            }
            Err(refused) => refused,
        };
        if refused == Refused::TooMany {
            let dry_run = if conf.dry_run { ", dry run," } else { "" };
            exchange.log(conf.log_level.0, &format!("limiting connections{dry_run} by zone \"{}\"", zone.name));
        }
        zone.tally().reject(conf.dry_run);
        exchange.state.limit_conn.counted.clear();
        exchange.state.limit_conn.status = Some(if conf.dry_run { "REJECTED_DRY_RUN" } else { "REJECTED" });
        return if conf.dry_run { Phase::Continue(()) } else { status(conf.status.0) };
    }
    Phase::Continue(())
}

/// What the limits of each zone have done, by its name.
pub fn tallies(conf: &Conf) -> impl Iterator<Item = (&str, &Arc<Tally>)> {
    conf.zones.iter().map(|zone| (&*zone.name, zone.tally()))
}

/// Takes over what is under way in the same zones.
pub fn adopt(conf: &Conf, previous: &Conf) {
    limit_zone::adopt(conf.zones.iter().map(|zone| &**zone), previous.zones.iter().map(|zone| &**zone));
}

/// The counts of one zone, shared by all threads.
#[derive(Debug)]
struct Table {
    /// How many bytes keys may take.
    size: usize,
    counts: Mutex<HashMap<Box<[u8]>, u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    TooMany,
    /// There is no room for the key.
    Full,
}

impl Table {
    /// Counts one request of a key until what comes back is dropped.
    fn count(this: &Arc<Self>, key: Vec<u8>, most: u64) -> Result<Counted, Refused> {
        let mut counts = this.lock();
        let room = counts.len() * NODE < this.size;
        match counts.get_mut(&key[..]) {
            Some(count) if *count >= most => return Err(Refused::TooMany),
            Some(count) => *count += 1,
            None if !room => return Err(Refused::Full),
            None => {
                counts.insert(key.clone().into(), 1);
            }
        }
        drop(counts);
        Ok(Counted { table: Arc::clone(this), key })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, u64>> {
        lock(&self.counts)
    }
}

/// The bytes of one key in nginx's zone.
const NODE: usize = 64;

/// A request that is counted while this lives.
#[derive(Debug)]
struct Counted {
    table: Arc<Table>,
    key: Vec<u8>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.table.lock();
        match counts.get_mut(&self.key[..]) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.key[..])),
        }
    }
}

impl Counts for Table {
    fn sized(size: usize) -> Self {
        Self { size, counts: Mutex::default() }
    }
}

/// One `limit_conn_zone`.
type Zone = limit_zone::Zone<Table>;

impl FromArgs for Arc<Zone> {
    const TAKES: RangeInclusive<usize> = 2..=2;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(1);
        let shape = word.value.strip_prefix(b"zone=").ok_or_else(|| args.parameter(word))?;
        let (name, size) = zone_shape(shape, word)?;
        Zone::define(args, name, size).map(Self::new)
    }
}

/// The `limit_conn` of a level; one mention hides those above.
#[derive(Clone, Debug, Default)]
struct Limits(Vec<Limit>);

#[derive(Clone, Copy, Debug)]
struct Limit {
    zone: Handle,
    most: u64,
}

impl Slot for Limits {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        if args.first {
            self.0.clear();
        }
        let name = args.word(0);
        let zone = args.scope.refer(Kind::Zone, &name.value, name.span);
        if self.0.iter().any(|limit| limit.zone == zone) {
            return Err(Fault::at(args.statement.name.span, "\"limit_conn\" directive is duplicate"));
        }
        let word = args.word(1);
        let number = parse_number(&word.value).filter(|number| *number > 0);
        let fault = || Fault::at(word.span, [b"invalid number of connections \"", &word.value[..], b"\""].concat());
        let most = number.ok_or_else(fault)? as u64;
        if most > 65535 {
            return Err(Fault::at(word.span, "connection limit must be less 65536"));
        }
        self.0.push(Limit { zone, most });
        Ok(())
    }

    fn repeats(&self) -> bool {
        true
    }

    fn takes(&self) -> RangeInclusive<usize> {
        2..=2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{ask_http, http_fault};

    #[test]
    fn a_request_is_counted_until_it_ends() {
        let table = Arc::new(Table { size: 128, counts: Mutex::default() });
        let first = Table::count(&table, b"a".to_vec(), 1).unwrap();
        assert_eq!(Table::count(&table, b"a".to_vec(), 1).unwrap_err(), Refused::TooMany);
        let other = Table::count(&table, b"b".to_vec(), 1).unwrap();
        assert_eq!(Table::count(&table, b"c".to_vec(), 1).unwrap_err(), Refused::Full);
        drop((first, other));
        assert!(table.lock().is_empty());
    }

    #[test]
    fn the_status_tells_whether_it_was_counted() {
        for (key, said) in [("$host", "PASSED"), ("$arg_none", "")] {
            let server = "server { location / { limit_conn z 1; try_files $uri @a; } location @a { return 200 $limit_conn_status; } }";
            let answer =
                ask_http(&format!("limit_conn_zone {key} zone=z:32k; {server}"), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            assert_eq!(answer.text(), said, "{key}");
        }
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        for (text, message) in [
            ("limit_conn_zone $host zone=a;", "invalid zone size \"zone=a\""),
            ("limit_conn_zone $host a;", "invalid parameter \"a\""),
            ("limit_conn a 0;", "invalid number of connections \"0\""),
            ("limit_conn a 65536;", "connection limit must be less 65536"),
            ("limit_conn a 1; limit_conn a 2;", "\"limit_conn\" directive is duplicate"),
            ("limit_conn a 1;", "zero size shared memory zone \"a\""),
        ] {
            assert_eq!(http_fault(text), message, "{text}");
        }
    }
}
