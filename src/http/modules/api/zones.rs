//! Zones by their names: of servers and locations (`status_zone`), of limits, of caches, of resolvers.

use super::{
    fault::Fault,
    json::{Json, Members, object},
    upstreams::{histogram, responses},
};
use crate::{
    http::{
        Http,
        limit_zone::Tally,
        modules::{limit_conn, limit_req, resolver},
        zones::{Kind, Numbers, Zone},
    },
    observe::counts::Counter,
    upstream::cache::{self, Status},
};
use std::{iter::zip, sync::Arc};

/// `/http/server_zones/`, `/http/location_zones/`.
pub(super) fn all(http: &Http, kind: Kind, version: u32) -> Json {
    named(of(http, kind), |zone| (zone.name.clone(), numbers(kind, &zone.read(), version)))
}

/// One of them.
pub(super) fn one(http: &Http, kind: Kind, version: u32, name: &str) -> Result<Json, Fault> {
    find(http, kind, name).map(|zone| numbers(kind, &zone.read(), version))
}

/// Has one of them begin anew.
pub(super) fn reset(http: &Http, kind: Kind, name: &str) -> Result<(), Fault> {
    find(http, kind, name).map(|zone| zone.reset())
}

/// `/http/limit_conns/`.
pub(super) fn limit_conns(http: &Http) -> Json {
    let zones = limit_conn::tallies(&http.settings.limit_conn);
    Json::Object(zones.map(|(name, tally)| (name.to_owned().into(), conn_numbers(tally))).collect())
}

/// One of them.
pub(super) fn limit_conn(http: &Http, name: &str) -> Result<Json, Fault> {
    find_conn(http, name).map(|tally| conn_numbers(&tally))
}

/// Has one of them begin anew.
pub(super) fn reset_limit_conn(http: &Http, name: &str) -> Result<(), Fault> {
    find_conn(http, name).map(|tally| tally.reset())
}

/// `/http/limit_reqs/`.
pub(super) fn limit_reqs(http: &Http) -> Json {
    let zones = limit_req::tallies(&http.settings.limit_req);
    Json::Object(zones.map(|(name, tally)| (name.to_owned().into(), req_numbers(tally))).collect())
}

/// One of them.
pub(super) fn limit_req(http: &Http, name: &str) -> Result<Json, Fault> {
    find_req(http, name).map(|tally| req_numbers(&tally))
}

/// Has one of them begin anew.
pub(super) fn reset_limit_req(http: &Http, name: &str) -> Result<(), Fault> {
    find_req(http, name).map(|tally| tally.reset())
}

fn named<T>(zones: &[T], shown: impl Fn(&T) -> (String, Json)) -> Json {
    let shown = zones.iter().map(|zone| {
        let (name, value) = shown(zone);
        (name.into(), value)
    });
    Json::Object(shown.collect())
}

fn of(http: &Http, kind: Kind) -> &[Arc<Zone>] {
    match kind {
        Kind::Servers => &http.server_zones,
        Kind::Locations => &http.location_zones,
    }
}

fn find<'h>(http: &'h Http, kind: Kind, name: &str) -> Result<&'h Arc<Zone>, Fault> {
    let missing = || match kind {
        Kind::Servers => Fault::new(404, "ServerZoneNotFound", "server zone not found"),
        Kind::Locations => Fault::new(404, "LocationZoneNotFound", "location zone not found"),
    };
    of(http, kind).iter().find(|zone| zone.name == name).ok_or_else(missing)
}

fn find_conn(http: &Http, name: &str) -> Result<Arc<Tally>, Fault> {
    let found = limit_conn::tallies(&http.settings.limit_conn).find(|(known, _)| *known == name);
    found
        .map(|(_, tally)| Arc::clone(tally))
        .ok_or_else(|| Fault::new(404, "LimitConnNotFound", "limit_conn not found"))
}

fn find_req(http: &Http, name: &str) -> Result<Arc<Tally>, Fault> {
    let found = limit_req::tallies(&http.settings.limit_req).find(|(known, _)| *known == name);
    found.map(|(_, tally)| Arc::clone(tally)).ok_or_else(|| Fault::new(404, "LimitReqNotFound", "limit_req not found"))
}

fn numbers(kind: Kind, numbers: &Numbers, version: u32) -> Json {
    let mut members = Members::new();
    // Locations do not know: a request belongs to one when it ends.
    if kind == Kind::Servers {
        members.push(("processing".into(), numbers.processing.into()));
    }
    members.extend([
        ("requests".into(), numbers.requests.into()),
        ("responses".into(), responses(&numbers.responses, version)),
        ("discarded".into(), numbers.discarded.into()),
        ("received".into(), numbers.received.into()),
        ("sent".into(), numbers.sent.into()),
    ]);
    if numbers.time.count() > 0 {
        members.push(("request_time_hist".into(), histogram(&numbers.time)));
    }
    Json::Object(members)
}

fn conn_numbers(tally: &Tally) -> Json {
    // Nobody waits for a connection.
    counted(zip(Tally::NAMES, tally.counters()).filter(|(name, _)| !name.starts_with("delayed")))
}

fn req_numbers(tally: &Tally) -> Json {
    counted(zip(Tally::NAMES, tally.counters()))
}

/// Counters under their names.
fn counted<'c>(counters: impl Iterator<Item = (&'static str, &'c Counter<true>)>) -> Json {
    Json::Object(counters.map(|(name, counter)| (name.into(), counter.get().into())).collect())
}

/// `/http/caches/`.
pub(super) fn caches(http: &Http) -> Json {
    Json::Object(http.caches().map(|zone| (zone.name().into(), cache_numbers(zone))).collect())
}

/// One of them.
pub(super) fn cache(http: &Http, name: &str) -> Result<Json, Fault> {
    find_cache(http, name).map(|zone| cache_numbers(zone))
}

/// Has one of them begin anew.
pub(super) fn reset_cache(http: &Http, name: &str) -> Result<(), Fault> {
    find_cache(http, name).map(|zone| zone.reset())
}

fn find_cache<'h>(http: &'h Http, name: &str) -> Result<&'h Arc<cache::Zone>, Fault> {
    let missing = || Fault::new(404, "CacheNotFound", "cache not found");
    http.caches().find(|zone| zone.name() == name).ok_or_else(missing)
}

fn cache_numbers(zone: &cache::Zone) -> Json {
    let (size, cold) = zone.size();
    let mut members: Members = vec![("size".into(), size.into())];
    members.extend(zone.path.limit().map(|limit| ("max_size".into(), limit.into())));
    members.push(("cold".into(), cold.into()));
    // What comes from an upstream may be written to the cache.
    let given = [Status::Hit, Status::Stale, Status::Updating, Status::Revalidated].map(|status| (status, false));
    let fetched = [Status::Miss, Status::Expired, Status::Bypass].map(|status| (status, true));
    for (status, written) in given.into_iter().chain(fetched) {
        let tally = zone.tally(status);
        let mut numbers: Members =
            vec![("responses".into(), tally.responses.get().into()), ("bytes".into(), tally.bytes.get().into())];
        if written {
            numbers.push(("responses_written".into(), tally.responses_written.get().into()));
            numbers.push(("bytes_written".into(), tally.bytes_written.get().into()));
        }
        members.push((status.word().to_ascii_lowercase().into(), Json::Object(numbers)));
    }
    Json::Object(members)
}

/// `/resolvers/`.
pub(super) fn resolvers(http: &Http) -> Json {
    named(&http.resolver_zones, |zone| (zone.name.clone(), resolver_numbers(zone)))
}

/// One of them.
pub(super) fn resolver(http: &Http, name: &str) -> Result<Json, Fault> {
    find_resolver(http, name).map(|zone| resolver_numbers(zone))
}

/// Has one of them begin anew.
pub(super) fn reset_resolver(http: &Http, name: &str) -> Result<(), Fault> {
    find_resolver(http, name).map(|zone| zone.reset())
}

fn find_resolver<'h>(http: &'h Http, name: &str) -> Result<&'h Arc<resolver::Zone>, Fault> {
    let missing = || Fault::new(404, "ResolverZoneNotFound", "resolver zone not found");
    http.resolver_zones.iter().find(|zone| zone.name == name).ok_or_else(missing)
}

fn resolver_numbers(zone: &resolver::Zone) -> Json {
    object([
        (
            "requests",
            object([
                ("name", zone.names.get().into()),
                ("srv", zone.services.get().into()),
                // Nobody asks for the names of addresses.
                ("addr", 0u64.into()),
            ]),
        ),
        ("responses", counted(zip(resolver::Zone::ANSWERS, zone.answers()))),
    ])
}
