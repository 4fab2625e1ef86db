//! Zones by their names: of servers and locations (`status_zone`), of limits, of resolvers.

use super::{
    fault::Fault,
    json::{Json, Members, object},
    upstreams::{histogram, responses},
};
use crate::http::{
    Http,
    limit_zone::Tally,
    modules::{limit_conn, limit_req, resolver},
    zones::{Numbers, Zone},
};
use std::sync::Arc;

/// `/http/server_zones/`.
pub(super) fn servers(http: &Http, version: u32) -> Json {
    named(&http.server_zones, |zone| (zone.name.clone(), server_numbers(&zone.read(), version)))
}

/// One of them.
pub(super) fn server(http: &Http, version: u32, name: &str) -> Result<Json, Fault> {
    find_server(http, name).map(|zone| server_numbers(&zone.read(), version))
}

/// Has one of them begin anew.
pub(super) fn reset_server(http: &Http, name: &str) -> Result<(), Fault> {
    find_server(http, name).map(|zone| zone.reset())
}

/// `/http/location_zones/`.
pub(super) fn locations(http: &Http, version: u32) -> Json {
    named(&http.location_zones, |zone| (zone.name.clone(), location_numbers(&zone.read(), version)))
}

/// One of them.
pub(super) fn location(http: &Http, version: u32, name: &str) -> Result<Json, Fault> {
    find_location(http, name).map(|zone| location_numbers(&zone.read(), version))
}

/// Has one of them begin anew.
pub(super) fn reset_location(http: &Http, name: &str) -> Result<(), Fault> {
    find_location(http, name).map(|zone| zone.reset())
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

fn find_server<'h>(http: &'h Http, name: &str) -> Result<&'h Arc<Zone>, Fault> {
    let missing = || Fault::new(404, "ServerZoneNotFound", "server zone not found");
    http.server_zones.iter().find(|zone| zone.name == name).ok_or_else(missing)
}

fn find_location<'h>(http: &'h Http, name: &str) -> Result<&'h Arc<Zone>, Fault> {
    let missing = || Fault::new(404, "LocationZoneNotFound", "location zone not found");
    http.location_zones.iter().find(|zone| zone.name == name).ok_or_else(missing)
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

fn server_numbers(numbers: &Numbers, version: u32) -> Json {
    let mut members: Members = vec![("processing".into(), numbers.processing.into())];
    members.extend(zone_members(numbers, version));
    Json::Object(members)
}

fn location_numbers(numbers: &Numbers, version: u32) -> Json {
    Json::Object(zone_members(numbers, version))
}

fn zone_members(numbers: &Numbers, version: u32) -> Members {
    let mut members: Members = vec![
        ("requests".into(), numbers.requests.into()),
        ("responses".into(), responses(&numbers.responses, version)),
        ("discarded".into(), numbers.discarded.into()),
        ("received".into(), numbers.received.into()),
        ("sent".into(), numbers.sent.into()),
    ];
    if numbers.time.count() > 0 {
        members.push(("request_time_hist".into(), histogram(&numbers.time)));
    }
    members
}

fn conn_numbers(tally: &Tally) -> Json {
    object([
        ("passed", tally.passed.get().into()),
        ("rejected", tally.rejected.get().into()),
        ("rejected_dry_run", tally.rejected_dry_run.get().into()),
    ])
}

fn req_numbers(tally: &Tally) -> Json {
    object([
        ("passed", tally.passed.get().into()),
        ("delayed", tally.delayed.get().into()),
        ("rejected", tally.rejected.get().into()),
        ("delayed_dry_run", tally.delayed_dry_run.get().into()),
        ("rejected_dry_run", tally.rejected_dry_run.get().into()),
    ])
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
        (
            "responses",
            object([
                ("noerror", zone.noerror.get().into()),
                ("formerr", zone.formerr.get().into()),
                ("servfail", zone.servfail.get().into()),
                ("nxdomain", zone.nxdomain.get().into()),
                ("notimp", zone.notimp.get().into()),
                ("refused", zone.refused.get().into()),
                ("timedout", zone.timedout.get().into()),
                ("unknown", zone.unknown.get().into()),
            ]),
        ),
    ])
}
