//! `metrics`: everything that is counted, in the text format of Prometheus. What nginx-prometheus-exporter shows of nginx and
//! of NGINX Plus has the names it has there.

mod nginx;
mod own;
#[cfg(test)]
mod tests;
mod text;

use super::Room;
use crate::{
    config::{Contexts, Directive, LOCATION, Module, values::Given},
    http::{
        exchange::Exchange,
        generation::Http,
        phase::{Phase, status},
        response::Response,
    },
    upstream::{Group, Peer, health, stats::Numbers},
};
use std::sync::Arc;
use text::Text;

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub enabled: Given,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[Directive::new("metrics", LOCATION, |conf| &mut conf.enabled)];

    fn enter(this: &mut Arc<Self>, _level: Contexts) {
        if this.enabled.0 {
            *this = Arc::default();
        }
    }
}

impl Room for Conf {
    type State = ();
}

/// Answers with all of it.
pub async fn content(exchange: &mut Exchange) -> Phase {
    if !exchange.method.reads() {
        return status(405);
    }
    let open = wants_open(exchange.field("accept").unwrap_or_default());
    let (http, now) = (Arc::clone(&exchange.http), exchange.connection.worker.clock.millis());
    // A thousand peers make megabytes of it: others need not wait for that.
    let Ok(page) = tokio::task::spawn_blocking(move || page(&http, now, open)).await else { return status(500) };
    let kind = match open {
        true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        false => "text/plain; version=0.0.4; charset=utf-8",
    };
    Response::with_body(200, kind, page).into_phase()
}

/// Whether the `Accept` field asks for OpenMetrics.
fn wants_open(accept: &[u8]) -> bool {
    let Ok(accept) = std::str::from_utf8(accept) else { return false };
    accept.split(',').any(|kind| {
        let mut words = kind.split(';').map(str::trim);
        words.next().is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"))
            && !words.any(|word| word == "q=0" || word == "q=0.0")
    })
}

fn page(http: &Http, now: u64, open: bool) -> String {
    let mut text = Text::new(open);
    let groups: Vec<_> = http.upstreams.iter().flatten().filter(|group| group.zone.is_some()).collect();
    let groups: Vec<_> = groups.into_iter().map(|group| Watched::at(group, now)).collect();
    nginx::write(&mut text, http, &groups);
    own::write(&mut text, http, &groups, now);
    text.end()
}

/// A group at one moment.
struct Watched {
    group: Arc<Group>,
    peers: Vec<Seen>,
}

/// One of its peers.
struct Seen {
    peer: Arc<Peer>,
    /// Tells it from another one at the same address.
    id: Option<String>,
    numbers: Numbers,
    state: health::State,
    checks: health::Tally,
}

impl Watched {
    fn at(group: &Arc<Group>, now: u64) -> Self {
        let mut peers: Vec<Seen> = Vec::new();
        let mut names = std::collections::HashSet::new();
        for peer in group.peers() {
            let id = (!names.insert(peer.name.clone())).then(|| peer.id.to_string());
            let (numbers, state, checks) = (peer.numbers(now), peer.state((now / 1000) as i64), peer.checks());
            peers.push(Seen { peer, id, numbers, state, checks });
        }
        Self { group: Arc::clone(group), peers }
    }
}

/// Every peer with its labels.
fn each(groups: &[Watched]) -> impl Iterator<Item = (Vec<(&'static str, &str)>, &Seen)> {
    groups.iter().flat_map(|watched| {
        watched.peers.iter().map(|seen| {
            let mut labels = vec![("upstream", &*watched.group.name), ("server", &*seen.peer.name)];
            labels.extend(seen.id.as_ref().map(|id| ("peer", &**id)));
            (labels, seen)
        })
    })
}
