//! The metrics of nginx-prometheus-exporter, under its names: what it reads from `stub_status`, and what it reads from the API
//! of NGINX Plus.

use super::{
    Labelled, Moment, Seen, Watched,
    text::{
        Kind::{self, Counter, Gauge},
        Labels, Text,
    },
};
use crate::{
    http::{
        generation::Http,
        limit_zone::Tally,
        modules::{limit_conn, limit_req, resolver},
        worker::{self, Totals},
        zones::Numbers,
    },
    observe::counts::{CLASSES, Responses},
    upstream::{
        cache::{Status, Tally as Fared, Zone},
        health::State,
    },
};
use std::{iter::zip, sync::Arc};

pub(super) fn write(text: &mut Text, moment: &Moment<'_>) {
    status(text);
    plus(text);
    workers(text);
    zones(text, "server_zone", &moment.server_zones);
    zones(text, "location_zone", &moment.location_zones);
    peers(text, &moment.peers);
    groups(text, moment.groups);
    resolvers(text, &moment.http.resolver_zones);
    limits(text, moment.http);
    caches(text, &moment.caches);
}

/// `stub_status`.
fn status(text: &mut Text) {
    let totals = worker::totals();
    text.single("nginx_up", Gauge, "Status of the last metric scrape", 1);
    for (name, kind, help, value) in [
        ("accepted", Counter, "Accepted client connections", totals.accepted),
        ("active", Gauge, "Active client connections", totals.active),
        ("handled", Counter, "Handled client connections", totals.accepted - totals.dropped),
        ("reading", Gauge, "Connections whose request is being read", totals.reading),
        ("waiting", Gauge, "Idle client connections", totals.waiting),
        ("writing", Gauge, "Connections whose request is being answered", totals.writing),
    ] {
        text.single(&format!("nginx_connections_{name}"), kind, help, value);
    }
    text.single("nginx_http_requests_total", Counter, "Total http requests", totals.requests);
}

/// Connections and requests as NGINX Plus counts them.
fn plus(text: &mut Text) {
    let totals = worker::reported();
    text.single("nginxplus_up", Gauge, "Status of the last metric scrape", 1);
    for (name, kind, help, value) in of_connections(&totals) {
        text.single(&format!("nginxplus_connections_{name}"), kind, help, value);
    }
    text.single("nginxplus_http_requests_total", Counter, "Total http requests", totals.requests);
    text.single("nginxplus_http_requests_current", Gauge, "Current http requests", totals.current());
}

fn of_connections(totals: &Totals) -> [(&'static str, Kind, &'static str, u64); 4] {
    [
        ("accepted", Counter, "Accepted client connections", totals.accepted),
        ("dropped", Counter, "Dropped client connections", totals.dropped),
        ("active", Gauge, "Active client connections", totals.busy()),
        ("idle", Gauge, "Idle client connections", totals.waiting),
    ]
}

/// The same for each thread.
fn workers(text: &mut Text) {
    let (pid, workers) = (std::process::id().to_string(), worker::workers());
    let workers: Vec<_> = workers.into_iter().map(|(number, totals)| (number.to_string(), totals)).collect();
    for (at, (name, kind, help, _)) in of_connections(&Totals::default()).into_iter().enumerate() {
        let name = format!("nginxplus_worker_connection_{name}");
        let mut family = text.family(&name, kind, help);
        for (id, totals) in &workers {
            family.sample(&[("id", id), ("pid", &pid)], of_connections(totals)[at].3);
        }
    }
    for (name, kind, help, value) in [
        ("total", Counter, "Total client requests of the worker", (|totals| totals.requests) as fn(&Totals) -> u64),
        ("current", Gauge, "Client requests of the worker under way", Totals::current),
    ] {
        let name = format!("nginxplus_worker_http_requests_{name}");
        let mut family = text.family(&name, kind, help);
        for (id, totals) in &workers {
            family.sample(&[("id", id), ("pid", &pid)], value(totals));
        }
    }
}

fn zones(text: &mut Text, label: &str, zones: &Labelled<'_, Numbers>) {
    let rows: [(&str, Kind, &str, fn(&Numbers) -> u64); 5] = [
        ("processing", Gauge, "Client requests that are currently being processed", |numbers| numbers.processing),
        ("requests", Counter, "Total client requests", |numbers| numbers.requests),
        ("discarded", Counter, "Requests completed without sending a response", |numbers| numbers.discarded),
        ("received", Counter, "Bytes received from clients", |numbers| numbers.received),
        ("sent", Counter, "Bytes sent to clients", |numbers| numbers.sent),
    ];
    for (name, kind, help, value) in rows {
        // Locations do not know: a request belongs to one when it ends.
        if name == "processing" && label == "location_zone" {
            continue;
        }
        let name = format!("nginxplus_{label}_{name}");
        let mut family = text.family(&name, kind, help);
        for (labels, numbers) in zones {
            family.sample(labels, value(numbers));
        }
    }
    let answers = zones.iter().map(|(labels, numbers)| (&labels[..], &numbers.responses));
    responses(text, &format!("nginxplus_{label}"), answers);
}

/// Answers by class, and by status.
fn responses<'r>(
    text: &mut Text,
    prefix: &str,
    answers: impl Iterator<Item = (&'r Labels<'r>, &'r Responses)> + Clone,
) {
    let name = format!("{prefix}_responses");
    let mut family = text.family(&name, Counter, "Total responses sent to clients");
    for (labels, responses) in answers.clone() {
        for (class, count) in CLASSES.into_iter().zip(responses.classes) {
            family.sample(&[labels, &[("code", class)]].concat(), count);
        }
    }
    let name = format!("{prefix}_responses_codes");
    let mut family = text.family(&name, Counter, "Total responses sent to clients, by status");
    for (labels, responses) in answers {
        for (code, count) in &responses.codes {
            family.sample(&[labels, &[("code", &code.to_string())]].concat(), count);
        }
    }
}

fn peers(text: &mut Text, peers: &Labelled<'_, &Seen>) {
    let rows: [(&str, Kind, &str, fn(&Seen) -> u64); 13] = [
        ("state", Gauge, "Current state", |seen| state(seen.state)),
        ("active", Gauge, "Active connections", |seen| seen.peer.active().into()),
        ("limit", Gauge, "Limit for connections (max_conns); zero means none", |seen| seen.peer.line.max_conns.into()),
        ("requests", Counter, "Total client requests", |seen| seen.numbers.requests),
        ("sent", Counter, "Bytes sent to this server", |seen| seen.numbers.sent),
        ("received", Counter, "Bytes received from this server", |seen| seen.numbers.received),
        ("fails", Counter, "Unsuccessful attempts to communicate with the server", |seen| seen.numbers.fails),
        ("unavail", Counter, "How many times failures took the server out (max_fails)", |seen| seen.numbers.unavail),
        ("header_time", Gauge, "Average time to get the response header from the server, in milliseconds", |seen| {
            seen.numbers.header_time.unwrap_or(0) / 1000
        }),
        ("response_time", Gauge, "Average time to get the full response from the server, in milliseconds", |seen| {
            seen.numbers.response_time.unwrap_or(0) / 1000
        }),
        ("health_checks_checks", Counter, "Total health check requests", |seen| seen.checks.checks),
        ("health_checks_fails", Counter, "Failed health checks", |seen| seen.checks.fails),
        ("health_checks_unhealthy", Counter, "How many times the server became unhealthy", |seen| {
            seen.checks.unhealthy
        }),
    ];
    for (name, kind, help, value) in rows {
        let name = format!("nginxplus_upstream_server_{name}");
        let mut family = text.family(&name, kind, help);
        for (labels, seen) in peers {
            family.sample(labels, value(seen));
        }
    }
    let answers = peers.iter().map(|(labels, seen)| (&labels[..], &seen.numbers.responses));
    responses(text, "nginxplus_upstream_server", answers);
}

fn groups(text: &mut Text, groups: &[Watched]) {
    let mut family = text.family("nginxplus_upstream_keepalive", Gauge, "Idle keepalive connections");
    for watched in groups {
        let idle: u64 = watched.peers.iter().map(|seen| seen.numbers.idle).sum();
        family.sample(&[("upstream", &watched.group.name)], idle);
    }
    let help = "Servers removed from the group but still processing active client requests";
    let mut family = text.family("nginxplus_upstream_zombies", Gauge, help);
    for watched in groups {
        family.sample(&[("upstream", &watched.group.name)], watched.group.zombies());
    }
}

/// The numbers that the exporter gives to states.
fn state(state: State) -> u64 {
    match state.as_str() {
        "up" => 1,
        "draining" => 2,
        "down" => 3,
        "unavail" => 4,
        "checking" => 5,
        _ => 6,
    }
}

fn resolvers(text: &mut Text, zones: &[Arc<resolver::Zone>]) {
    const HELP: [&str; 8] = [
        "Total number of successful responses",
        "Total number of FORMERR responses",
        "Total number of SERVFAIL responses",
        "Total number of NXDOMAIN responses",
        "Total number of NOTIMP responses",
        "Total number of REFUSED responses",
        "Total number of timed out requests",
        "Total requests completed with an unknown error",
    ];
    let mut family = |name: &str, help: &str, value: &dyn Fn(&resolver::Zone) -> u64| {
        let name = format!("nginxplus_resolver_{name}");
        let mut family = text.family(&name, Counter, help);
        for zone in zones {
            family.sample(&[("resolver", &zone.name)], value(zone));
        }
    };
    family("name", "Total requests to resolve names to addresses", &|zone| zone.names.get());
    family("srv", "Total requests to resolve SRV records", &|zone| zone.services.get());
    family("addr", "Total requests to resolve addresses to names", &|_| 0);
    for (at, (name, help)) in zip(resolver::Zone::ANSWERS, HELP).enumerate() {
        family(name, help, &|zone| zone.answers()[at].get());
    }
}

fn limits(text: &mut Text, http: &Http) {
    const HELP: [&str; 5] = [
        "neither limited nor accounted as limited",
        "delayed",
        "rejected",
        "accounted as delayed in the dry run mode",
        "accounted as rejected in the dry run mode",
    ];
    let requests: Vec<_> = limit_req::tallies(&http.settings.limit_req).collect();
    let connections: Vec<_> = limit_conn::tallies(&http.settings.limit_conn).collect();
    for (what, tallies) in [("request", requests), ("connection", connections)] {
        for (at, (name, help)) in zip(Tally::NAMES, HELP).enumerate() {
            // Nobody waits for a connection.
            if what == "connection" && name.starts_with("delayed") {
                continue;
            }
            let (name, help) = (format!("nginxplus_limit_{what}_{name}"), format!("Total number of {what}s {help}"));
            let mut family = text.family(&name, Counter, &help);
            for (zone, tally) in &tallies {
                family.sample(&[("zone", zone)], tally.counters()[at].get());
            }
        }
    }
}

fn caches(text: &mut Text, caches: &[(String, Arc<Zone>)]) {
    let state: [(&str, &str, fn(&Zone) -> u64); 3] = [
        ("size", "Total size of the cache", |zone| zone.size().0),
        ("max_size", "Maximum size of the cache; zero means none", |zone| zone.path.limit().unwrap_or(0)),
        ("cold", "Whether files of an earlier process are still being found", |zone| zone.size().1.into()),
    ];
    for (name, help, value) in state {
        let name = format!("nginxplus_cache_{name}");
        let mut family = text.family(&name, Gauge, help);
        for (name, zone) in caches {
            family.sample(&[("zone", name)], value(zone));
        }
    }
    for (status, what) in [
        (Status::Hit, "that were fresh in the cache"),
        (Status::Stale, "that were old and given for want of better ones"),
        (Status::Updating, "that were old and being fetched anew"),
        (Status::Revalidated, "that were old and still held"),
        (Status::Miss, "that were not in the cache"),
        (Status::Expired, "that were too old"),
        (Status::Bypass, "that were not looked for in the cache"),
    ] {
        let counts: [(&str, &str, fn(&Fared) -> u64); 4] = [
            ("responses", "Total number of responses", |tally| tally.responses.get()),
            ("bytes", "Total number of bytes of responses", |tally| tally.bytes.get()),
            ("responses_written", "Total number of responses written to the cache", |tally| {
                tally.responses_written.get()
            }),
            ("bytes_written", "Total number of bytes written to the cache of responses", |tally| {
                tally.bytes_written.get()
            }),
        ];
        // The exporter does not have it of misses.
        let written = matches!(status, Status::Expired | Status::Bypass);
        for (name, help, value) in counts.into_iter().take(if written { 4 } else { 2 }) {
            let word = status.word().to_ascii_lowercase();
            let (name, help) = (format!("nginxplus_cache_{word}_{name}"), format!("{help} {what}"));
            let mut family = text.family(&name, Counter, &help);
            for (name, zone) in caches {
                family.sample(&[("zone", name)], value(zone.tally(status)));
            }
        }
    }
}
