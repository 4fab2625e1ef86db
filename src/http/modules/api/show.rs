//! What the API says of the server itself: processes, connections, requests.

use super::{
    fault::Fault,
    json::{Json, Members, object},
};
use crate::{
    http::{
        dates,
        exchange::Exchange,
        worker::{self, Anew, Totals},
    },
    process::worker::respawned,
};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::SystemTime,
};

/// `/nginx`.
pub(super) fn nginx(exchange: &Exchange, now: u64) -> Json {
    let reloads = crate::process::reloads::told();
    let mut shown = vec![
        ("version", crate::NGINX_VERSION.into()),
        ("build", concat!("tidegate-", env!("CARGO_PKG_VERSION")).into()),
        ("address", exchange.connection.local_ip().to_owned().into()),
        ("generation", (reloads.succeeded + 1).into()),
        ("load_timestamp", moment(millis(reloads.loaded)).into()),
        ("timestamp", moment(now).into()),
        ("pid", std::process::id().into()),
        ("ppid", std::os::unix::process::parent_id().into()),
    ];
    if let Some((at, error)) = reloads.last {
        let mut last: Members =
            vec![("succeeded".into(), error.is_none().into()), ("timestamp".into(), moment(millis(Some(at))).into())];
        last.extend(error.map(|error| ("error".into(), error.into())));
        shown.push(("last_reload", Json::Object(last)));
    }
    Json::Object(shown.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

fn millis(time: Option<SystemTime>) -> u64 {
    let time = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A moment in milliseconds since the epoch, as ISO 8601 writes it.
pub(super) fn moment(millis: u64) -> String {
    let text = dates::iso8601((millis / 1000) as i64, 0);
    format!("{}.{:03}Z", text.get(..19).unwrap_or(&text), millis % 1000)
}

/// `/processes`.
pub(super) fn processes() -> Json {
    let before = RESPAWNED_BEFORE.load(Relaxed);
    object([("respawned", respawned().saturating_sub(before).into())])
}

/// Has `/processes` begin anew.
pub(super) fn reset_processes() {
    RESPAWNED_BEFORE.store(respawned(), Relaxed);
}

/// What had been counted when it was to begin anew.
static RESPAWNED_BEFORE: AtomicU64 = AtomicU64::new(0);

/// `/connections`.
pub(super) fn connections() -> Json {
    of_connections(&worker::reported())
}

/// Has it begin anew.
pub(super) fn reset_connections() {
    worker::reset(Anew::Connections);
}

fn of_connections(counts: &Totals) -> Json {
    object([
        ("accepted", counts.accepted.into()),
        ("dropped", counts.dropped.into()),
        ("active", counts.busy().into()),
        ("idle", counts.waiting.into()),
    ])
}

/// `/http/requests`.
pub(super) fn requests() -> Json {
    of_requests(&worker::reported())
}

/// Has it begin anew.
pub(super) fn reset_requests() {
    worker::reset(Anew::Requests);
}

fn of_requests(counts: &Totals) -> Json {
    object([("total", counts.requests.into()), ("current", counts.current().into())])
}

/// `/workers/`: nginx's processes are threads here.
pub(super) fn workers() -> Json {
    Json::List(worker::workers().iter().map(|(number, counts)| of_worker(*number, counts)).collect())
}

/// One of them.
pub(super) fn worker(id: &str) -> Result<Json, Fault> {
    known(id).map(|(number, counts)| of_worker(number, &counts))
}

/// Has all of them begin anew.
pub(super) fn reset_workers() {
    worker::reset(Anew::Connections);
    worker::reset(Anew::Requests);
}

/// Has one of them begin anew.
pub(super) fn reset_worker(id: &str) -> Result<(), Fault> {
    known(id).map(|(number, _)| worker::reset(Anew::Thread(number)))
}

fn known(id: &str) -> Result<(usize, Totals), Fault> {
    let found = worker::workers().into_iter().find(|(number, _)| number.to_string() == id);
    found.ok_or_else(|| Fault::new(404, "WorkerNotFound", "worker not found"))
}

fn of_worker(number: usize, counts: &Totals) -> Json {
    object([
        ("id", (number as u64).into()),
        ("pid", std::process::id().into()),
        ("connections", of_connections(counts)),
        ("http", object([("requests", of_requests(counts))])),
    ])
}

/// `/ssl`: nothing is encrypted yet.
pub(super) fn ssl() -> Json {
    let names = [
        "handshakes",
        "handshakes_failed",
        "session_reuses",
        "no_common_protocol",
        "no_common_cipher",
        "handshake_timeout",
        "peer_rejected_cert",
    ];
    let failures = ["no_cert", "expired_cert", "revoked_cert", "hostname_mismatch", "other"];
    let failures = Json::Object(failures.into_iter().map(|name| (name.into(), 0u64.into())).collect());
    let zero = |name: &'static str| (name.into(), 0u64.into());
    Json::Object(names.into_iter().map(zero).chain([("verify_failures".into(), failures)]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_has_milliseconds() {
        assert_eq!(moment(1_656_414_944_467), "2022-06-28T11:15:44.467Z");
        assert_eq!(moment(7), "1970-01-01T00:00:00.007Z");
    }
}
