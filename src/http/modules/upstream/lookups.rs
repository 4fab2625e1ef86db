//! Names of servers that are looked up while the server runs: asked for again whenever an answer no longer holds
//! (`ngx_http_upstream_zone_module`). One thread does it for all.

use super::retry;
use crate::{
    http::{
        Http,
        clock::wall,
        modules::resolver::{Failure, Log, lookup_for_a_time, lookup_service},
    },
    observe::error_log::Level,
    upstream::{
        Group,
        resolve::{Found, Resolved},
    },
};
use std::{
    rc::Rc,
    sync::{Arc, Weak},
    time::Duration,
};

/// How long servers are believed that there is no such name, where `valid=` does not say.
const NOBODY: u64 = 10;

/// Begins to look up the names of a generation, and those that have joined it since, unless a thread has begun before. Has to run inside a `LocalSet`.
pub fn watch(http: &Arc<Http>) {
    for (at, group) in http.upstreams.iter().enumerate() {
        let Some(group) = group else { continue };
        for (line, _) in group.joined_names().iter().filter(|(_, name)| name.claim()) {
            tokio::task::spawn_local(follow(Arc::downgrade(http), at, *line));
        }
        if !group.resolving.claim() {
            continue;
        }
        for line in 0..group.resolving.names.len() {
            match group.resolving.names[line].at_first {
                true => tokio::task::spawn_local(retry::follow(Arc::downgrade(http), at, line)),
                false => tokio::task::spawn_local(follow(Arc::downgrade(http), at, line)),
            };
        }
    }
}

/// Looks one name up again and again, as long as there is its generation.
async fn follow(http: Weak<Http>, at: usize, line: usize) {
    let mut wait = Duration::ZERO;
    if let Some(http) = http.upgrade()
        && let Some(Some(group)) = http.upstreams.get(at)
    {
        wait = Duration::from_secs(group.name(line).map_or(0, |name| name.valid()).saturating_sub(now()));
    }
    loop {
        tokio::time::sleep(wait).await;
        let Some(http) = http.upgrade() else { return };
        let Some(Some(group)) = http.upstreams.get(at) else { return };
        if group.name(line).is_none_or(|name| name.is_gone()) {
            return;
        }
        wait = look_up(&http, group, line).await;
    }
}

/// Seconds since the epoch.
pub(super) fn now() -> u64 {
    wall().as_secs()
}

/// Asks once, and says after which time to ask again.
async fn look_up(http: &Arc<Http>, group: &Group, line: usize) -> Duration {
    let resolving = &group.resolving;
    let (Some(name), Some(servers)) = (group.name(line), &resolving.servers) else { return NEVER };
    let told = Arc::clone(http);
    let log: Log = Rc::new(move |trouble| told.log(Level::Err, &trouble.to_string()));
    let answer = match &name.service {
        None => {
            let answer = lookup_for_a_time(servers, resolving.timeout, &name.host, log).await;
            answer.map(|(addresses, seconds)| {
                let found = |ip| Found { address: (ip, name.port).into(), server: None, priority: 0, weight: 0 };
                (addresses.into_iter().map(found).collect(), seconds)
            })
        }
        Some(service) => {
            let answer = lookup_service(servers, resolving.timeout, service, &name.host, log).await;
            let failed = match &answer {
                Ok(found) => &found.failed,
                Err((_, failed)) => failed,
            };
            for (server, failure) in failed {
                let during = format!("while resolving service {service} of {}", host(&name));
                http.log(Level::Err, &format!("{server} could not be resolved ({failure}) {during}"));
            }
            answer.map_err(|(failure, _)| failure).map(|found| {
                let one = |target: crate::http::modules::resolver::Target| Found {
                    address: target.address,
                    server: Some(target.server),
                    priority: target.priority,
                    weight: target.weight,
                };
                (found.targets.into_iter().map(one).collect(), found.seconds)
            })
        }
    };
    let (found, seconds): (Vec<Found>, u64) = match answer {
        Ok(answer) => answer,
        Err(failure) => {
            http.log(Level::Err, &unresolved(&name, failure));
            if failure != Failure::NotFound {
                // The last answer is better than none.
                return resolving.timeout.max(Duration::from_secs(1));
            }
            (Vec::new(), servers.valid.unwrap_or(NOBODY))
        }
    };
    group.update(line, &found);
    // It may have got other parameters meanwhile.
    if let Some(name) = group.name(line) {
        name.set_valid(now() + seconds);
        name.set_answered(now());
    }
    Duration::from_secs(if seconds > 0 { seconds + 1 } else { 1 })
}

/// There is nobody to ask: long enough for any generation.
const NEVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);

fn unresolved(name: &Resolved, failure: Failure) -> String {
    match &name.service {
        None => format!("{} could not be resolved ({failure})", host(name)),
        Some(service) => format!("service {service} of {} could not be resolved ({failure})", host(name)),
    }
}

/// The name as nginx's resolver leaves it.
fn host(name: &Resolved) -> String {
    name.host.strip_suffix('.').unwrap_or(&name.host).to_ascii_lowercase()
}
