//! The metrics that neither nginx nor its exporter has: how long things take by steps, why other peers had to be asked, what
//! queues, caches, reloads and names are doing.

use super::{
    Labelled, Moment, Seen, Watched,
    text::{
        Kind::{Counter, Gauge, Histogram},
        Text, decimal,
    },
};
use crate::{
    http::zones::Numbers,
    observe::counts::Spread,
    process::reloads,
    upstream::{
        Group,
        cache::{Status, Tally, Zone},
    },
};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

pub(super) fn write(text: &mut Text, moment: &Moment<'_>) {
    let mut family = text.family("tidegate_build_info", Gauge, "What is running");
    family.sample(&[("version", env!("CARGO_PKG_VERSION")), ("nginx", crate::NGINX_VERSION)], 1);
    reloads(text);
    zones(text, "server_zone", &moment.server_zones);
    zones(text, "location_zone", &moment.location_zones);
    peers(text, &moment.peers);
    queues(text, moment.groups);
    caches(text, &moment.caches);
    names(text, moment.groups, moment.now);
}

fn reloads(text: &mut Text) {
    let told = reloads::told();
    let mut family = text.family("tidegate_config_reloads_total", Counter, "Reloads of the configuration, by result");
    family.sample(&[("result", "success")], told.succeeded);
    family.sample(&[("result", "failure")], told.failed);
    let failed = told.last.is_some_and(|(_, why)| why.is_some());
    let help = "Whether the last reload was successful";
    text.single("tidegate_config_last_reload_successful", Gauge, help, u8::from(!failed));
    if let Some(loaded) = told.loaded {
        let help = "When the configuration in force was taken";
        text.single("tidegate_config_last_reload_success_timestamp_seconds", Gauge, help, seconds(loaded));
    }
}

fn seconds(time: SystemTime) -> String {
    let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    decimal(u64::try_from(millis).unwrap_or(0), 3)
}

fn zones(text: &mut Text, label: &str, zones: &Labelled<'_, Numbers>) {
    let name = format!("tidegate_{label}_request_duration_seconds");
    let help = "From the first byte of a request's head to the last byte of its answer";
    let mut family = text.family(&name, Histogram, help);
    for (labels, numbers) in zones {
        family.histogram(labels, &numbers.time);
    }
    let name = format!("tidegate_{label}_client_aborts_total");
    let mut family = text.family(&name, Counter, "Requests whose client left before it had all of its answer");
    for (labels, numbers) in zones {
        family.sample(labels, numbers.aborted);
    }
}

fn peers(text: &mut Text, peers: &Labelled<'_, &Seen>) {
    let times: [(&str, &str, fn(&Seen) -> &Spread); 3] = [
        ("connect", "How long opening a connection to the server took", |seen| &seen.numbers.connect),
        ("header", "How long it took until the head of an answer was here", |seen| &seen.numbers.header),
        ("response", "How long it took until all of an answer was here", |seen| &seen.numbers.response),
    ];
    for (name, help, spread) in times {
        let name = format!("tidegate_upstream_server_{name}_duration_seconds");
        let mut family = text.family(&name, Histogram, help);
        for (labels, seen) in peers.iter().filter(|(_, seen)| spread(seen).count() > 0) {
            family.histogram(labels, spread(seen));
        }
    }
    let counts: [(&str, &str, fn(&Seen) -> u64); 2] = [
        ("opened", "Connections that were opened", |seen| seen.numbers.opened),
        ("reused", "Requests that went over a kept connection", |seen| seen.numbers.reused),
    ];
    for (name, help, value) in counts {
        let name = format!("tidegate_upstream_server_connections_{name}_total");
        let mut family = text.family(&name, Counter, help);
        for (labels, seen) in peers {
            family.sample(labels, value(seen));
        }
    }
    let help =
        "How long the server could not be asked: taken out by failures, checked for the first time, or unhealthy";
    let mut family = text.family("tidegate_upstream_server_downtime_seconds_total", Counter, help);
    for (labels, seen) in peers {
        family.sample(labels, decimal(seen.numbers.downtime, 3));
    }
    let help = "Attempts after which another one was made, by the reason";
    let mut family = text.family("tidegate_upstream_server_retries_total", Counter, help);
    for (labels, seen) in peers {
        for (reason, times) in &seen.numbers.retries {
            family.sample(&[&labels[..], &[("reason", reason.word())]].concat(), times);
        }
    }
    let help = "When an attempt failed last, and why";
    let mut family = text.family("tidegate_upstream_server_last_failure_timestamp_seconds", Gauge, help);
    for (labels, seen) in peers {
        if let Some((reason, at)) = seen.numbers.last_failure {
            family.sample(&[&labels[..], &[("reason", reason.word())]].concat(), decimal(at, 3));
        }
    }
    let mut family = text.family("tidegate_upstream_server_load", Gauge, "How loaded the server says it is");
    for (labels, seen) in peers {
        if let Some(load) = seen.peer.load() {
            family.sample(labels, load);
        }
    }
}

fn queues(text: &mut Text, groups: &[Watched]) {
    let queues = || groups.iter().filter_map(|watched| Some((&*watched.group.name, watched.group.queue.as_ref()?)));
    let mut family = text.family("tidegate_upstream_queue_depth", Gauge, "Requests that wait for a server");
    queues().for_each(|(name, queue)| family.sample(&[("upstream", name)], queue.len()));
    let mut family = text.family("tidegate_upstream_queue_limit", Gauge, "How many may wait");
    queues().for_each(|(name, queue)| family.sample(&[("upstream", name)], queue.most));
    let help = "Requests that found no place in the queue";
    let mut family = text.family("tidegate_upstream_queue_overflows_total", Counter, help);
    queues().for_each(|(name, queue)| family.sample(&[("upstream", name)], queue.overflows()));
    let help = "Requests that waited in vain";
    let mut family = text.family("tidegate_upstream_queue_timeouts_total", Counter, help);
    queues().for_each(|(name, queue)| family.sample(&[("upstream", name)], queue.timeouts()));
    let help = "How long requests waited that a server took";
    let mut family = text.family("tidegate_upstream_queue_wait_seconds", Histogram, help);
    queues().for_each(|(name, queue)| family.histogram(&[("upstream", name)], &queue.waits()));
}

/// What was written of answers that were in no cache.
fn caches(text: &mut Text, caches: &[(String, Arc<Zone>)]) {
    let counts: [(&str, &str, fn(&Tally) -> u64); 2] = [
        ("responses", "Answers that were in no cache and have been put into it", |tally| tally.responses_written.get()),
        ("bytes", "Bytes of their files", |tally| tally.bytes_written.get()),
    ];
    for (name, help, value) in counts {
        let name = format!("tidegate_cache_miss_{name}_written_total");
        let mut family = text.family(&name, Counter, help);
        for (cache, zone) in caches {
            family.sample(&[("zone", cache)], value(zone.tally(Status::Miss)));
        }
    }
}

/// Names that are looked up while the server runs.
fn names(text: &mut Text, groups: &[Watched], now: u64) {
    let help = "How old the answer is by which the servers of a name are known";
    let mut family = text.family("tidegate_upstream_resolve_answer_age_seconds", Gauge, help);
    for group in groups.iter().map(|watched| &*watched.group) {
        ages(group, now).for_each(|(name, age)| family.sample(&[("upstream", &group.name), ("name", name)], age));
    }
}

fn ages(group: &Group, now: u64) -> impl Iterator<Item = (&str, u64)> {
    let mut seen = std::collections::HashSet::new();
    group.resolving.names.iter().filter_map(move |name| {
        let answered = Some(name.answered()).filter(|second| *second > 0)?;
        let label = &*name.line.server;
        seen.insert(label).then(|| (label, (now / 1000).saturating_sub(answered)))
    })
}
