//! Upstreams and their peers, as they are doing.

use super::{
    json::{Json, Members, object},
    show::moment,
};
use crate::{
    http::Http,
    observe::counts::{BOUNDS, CLASSES, Responses, Spread},
    upstream::{Balance, Group, Peer},
};
use std::sync::Arc;

/// All upstreams that have a `zone`.
pub(super) fn all(http: &Http, version: u32, now: u64) -> Json {
    let groups = http.upstreams.iter().flatten().filter(|group| group.zone.is_some());
    Json::Object(groups.map(|group| (group.name.clone().into(), one(group, version, now))).collect())
}

/// One upstream at millisecond `now`.
pub(super) fn one(group: &Arc<Group>, version: u32, now: u64) -> Json {
    let mut idle = 0;
    let mut peer = |peer: Arc<Peer>| {
        let (shown, kept) = self::peer(&peer, version, now);
        idle += kept;
        shown
    };
    let peers = Json::List(group.peers().map(&mut peer).collect());
    let mut members: Members = vec![
        ("peers".into(), peers),
        ("keepalive".into(), idle.into()),
        ("zombies".into(), (group.zombies() as u64).into()),
        ("zone".into(), group.zone.clone().unwrap_or_default().into()),
    ];
    if let Some(queue) = &group.queue {
        let size = (queue.len() as u64).into();
        let shown =
            object([("size", size), ("max_size", (queue.most as u64).into()), ("overflows", queue.overflows().into())]);
        members.push(("queue".into(), shown));
    }
    let unresolved = group.unresolved();
    if !unresolved.is_empty() {
        let names = unresolved.into_iter().map(|name| name.to_owned().into()).collect();
        members.push(("unresolved".into(), Json::List(names)));
    }
    members.push(("method".into(), method(group.balance).into()));
    members.push(("picks".into(), Json::List(group.picks().into_iter().map(Json::from).collect())));
    Json::Object(members)
}

/// Begins to count anew.
pub(super) fn reset(group: &Group) {
    for peer in group.peers() {
        if let Some(stats) = peer.stats() {
            stats.reset();
        }
        peer.reset_checks();
    }
    if let Some(queue) = &group.queue {
        queue.reset_overflows();
    }
}

/// One peer, and how many connections to it are kept.
fn peer(peer: &Peer, version: u32, now: u64) -> (Json, u64) {
    let line = &*peer.line;
    let numbers = peer.numbers(now);
    let checks = peer.checks();
    let state = peer.state((now / 1000) as i64);
    let mut members: Members = vec![
        ("id".into(), peer.id.into()),
        ("server".into(), peer.name.clone().into()),
        ("name".into(), line.server.clone().into()),
        ("backup".into(), line.backup.into()),
        ("weight".into(), line.weight.into()),
        ("state".into(), state.as_str().into()),
        ("active".into(), peer.active().into()),
    ];
    let mut put = |name: &'static str, value: Json| members.push((name.into(), value));
    if line.max_conns > 0 {
        put("max_conns", line.max_conns.into());
    }
    put("requests", numbers.requests.into());
    if let Some(micros) = numbers.header_time {
        put("header_time", (micros / 1000).into());
    }
    if let Some(micros) = numbers.response_time {
        put("response_time", (micros / 1000).into());
    }
    if numbers.response.count() > 0 {
        put("response_time_hist", histogram(&numbers.response));
    }
    put("responses", responses(&numbers.responses, version));
    put("sent", numbers.sent.into());
    put("received", numbers.received.into());
    put("fails", numbers.fails.into());
    put("unavail", numbers.unavail.into());
    let mut health: Members = vec![
        ("checks".into(), checks.checks.into()),
        ("fails".into(), checks.fails.into()),
        ("unhealthy".into(), checks.unhealthy.into()),
    ];
    if let Some(passed) = checks.last_passed {
        health.push(("last_passed".into(), passed.into()));
    }
    if checks.last_passed.is_some() {
        health.push(("last_at".into(), moment(checks.last_at).into()));
    }
    if !checks.why.is_empty() {
        health.push(("last_error".into(), checks.why.into()));
    }
    put("health_checks", Json::Object(health));
    put("downtime", numbers.downtime.into());
    if let Some(start) = numbers.downstart {
        put("downstart", moment(start).into());
    }
    if let Some(selected) = numbers.selected {
        put("selected", moment(selected).into());
    }
    if let Some(load) = peer.load() {
        put("load", Json::Real(load));
    }
    let failure = numbers.last_failure.map(|(reason, _)| reason.word().to_owned());
    if let Some(reason) = peer.why_held().or(failure) {
        put("reason", reason.into());
    }
    (Json::Object(members), numbers.idle)
}

/// Answers by class and code.
pub(super) fn responses(responses: &Responses, version: u32) -> Json {
    let classes = CLASSES.into_iter().zip(responses.classes);
    let mut members: Members = classes.map(|(class, count)| (class.into(), count.into())).collect();
    if version >= 7 {
        let code = |(code, count): (&u16, &u64)| (code.to_string().into(), (*count).into());
        members.push(("codes".into(), Json::Object(responses.codes.iter().map(code).collect())));
    }
    members.push(("total".into(), responses.total().into()));
    Json::Object(members)
}

/// The bounds of the buckets, in milliseconds.
const BUCKETS: [u64; 14] = [5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10_000];

/// Times by buckets, each for itself; what was counted in finer or other steps goes to the bucket that holds the end of
/// its step.
pub(super) fn histogram(spread: &Spread) -> Json {
    let mut counts = [0; BUCKETS.len() + 1];
    for (at, count) in spread.steps.iter().enumerate() {
        let end = BOUNDS.get(at).copied().unwrap_or(u64::MAX);
        counts[BUCKETS.partition_point(|bucket| bucket * 1000 < end)] += count;
    }
    let names = BUCKETS.iter().map(u64::to_string).chain(["inf".to_owned()]);
    let buckets = names.zip(counts).map(|(name, count)| (name.into(), count.into())).collect();
    object([
        ("count", spread.count().into()),
        ("sum", (spread.micros / 1000).into()),
        ("buckets", Json::Object(buckets)),
    ])
}

/// The method as a configuration names it.
fn method(balance: Balance) -> &'static str {
    match balance {
        Balance::RoundRobin => "round_robin",
        Balance::LeastConn => "least_conn",
        Balance::IpHash => "ip_hash",
        Balance::Hash { consistent: true } => "hash consistent",
        Balance::Hash { consistent: false } => "hash",
        Balance::Random(None) => "random",
        Balance::Random(Some(_)) => "random two",
        Balance::LeastTime { .. } => "least_time",
        Balance::LeastLoad => "least_load",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_go_to_the_bucket_that_holds_them() {
        let times = crate::observe::counts::Histogram::<true>::default();
        for millis in [1, 4, 20, 20_000] {
            times.up(Duration::from_millis(millis));
        }
        let text = histogram(&times.read()).text();
        assert!(text.starts_with("{\"count\":4,\"sum\":20025,\"buckets\":{\"5\":2,\"10\":0,\"25\":1,"), "{text}");
        assert!(text.ends_with("\"inf\":1}}"), "{text}");
    }
}
