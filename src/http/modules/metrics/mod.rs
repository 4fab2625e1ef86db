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
        zones,
    },
    upstream::{Group, Peer, cache, health, stats::Numbers},
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
    let groups = http.upstreams.iter().flatten().filter(|group| group.zone.is_some());
    let groups: Vec<_> = groups.map(|group| Watched::at(group, now)).collect();
    let moment = Moment {
        http,
        now,
        groups: &groups,
        peers: labelled(&groups),
        server_zones: read("server_zone", &http.server_zones),
        location_zones: read("location_zone", &http.location_zones),
        caches: http.caches().map(|zone| (zone.name(), Arc::clone(zone))).collect(),
    };
    nginx::write(&mut text, &moment);
    own::write(&mut text, &moment);
    text.end()
}

/// What all families are made of, looked at once.
struct Moment<'m> {
    http: &'m Http,
    /// In milliseconds.
    now: u64,
    groups: &'m [Watched],
    peers: Labelled<'m, &'m Seen>,
    server_zones: Labelled<'m, zones::Numbers>,
    location_zones: Labelled<'m, zones::Numbers>,
    /// With their names.
    caches: Vec<(String, Arc<cache::Zone>)>,
}

/// Things with their labels.
type Labelled<'m, T> = Vec<(Vec<(&'static str, &'m str)>, T)>;

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
fn labelled(groups: &[Watched]) -> Labelled<'_, &Seen> {
    let peers = groups.iter().flat_map(|Watched { group, peers }| {
        peers.iter().map(|seen| {
            let mut labels = vec![("upstream", &*group.name), ("server", &*seen.peer.name)];
            labels.extend(seen.id.as_ref().map(|id| ("peer", &**id)));
            (labels, seen)
        })
    });
    peers.collect()
}

/// What was counted in every zone.
fn read<'z>(label: &'static str, zones: &'z [Arc<zones::Zone>]) -> Labelled<'z, zones::Numbers> {
    zones.iter().map(|zone| (vec![(label, &*zone.name)], zone.read())).collect()
}
