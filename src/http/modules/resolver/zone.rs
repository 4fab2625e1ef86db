//! `status_zone=`: what name servers were asked and what they said. A zone is known by its name, and goes on counting over
//! reloads.

use super::{Failure, NameServers};
use crate::{lock, observe::counts::Counter};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// A question that is counted. Dropped before it was answered, it counts as one that nobody answered in time: those who
/// waited for it do so no longer.
pub(super) struct Pending(pub(super) Option<Arc<Zone>>);

impl Pending {
    /// It was answered.
    pub(super) fn answered(mut self, failed: Option<Failure>) {
        if let Some(zone) = self.0.take() {
            zone.answered(failed);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(zone) = self.0.take() {
            zone.answered(Some(Failure::TimedOut));
        }
    }
}

/// The counters of one zone, shared by all threads.
#[derive(Debug, Default)]
pub struct Zone {
    pub name: String,
    /// Questions for the addresses of names.
    pub names: Counter<true>,
    /// Questions for the servers of services.
    pub services: Counter<true>,
    pub noerror: Counter<true>,
    pub formerr: Counter<true>,
    pub servfail: Counter<true>,
    pub nxdomain: Counter<true>,
    pub notimp: Counter<true>,
    pub refused: Counter<true>,
    /// Nobody answered in time.
    pub timedout: Counter<true>,
    pub unknown: Counter<true>,
}

static ALL: Mutex<BTreeMap<String, Arc<Zone>>> = Mutex::new(BTreeMap::new());

impl Zone {
    /// The zone of this name, which may have counted before.
    pub fn named(name: &str) -> Arc<Self> {
        let mut all = lock(&ALL);
        let new = || Arc::new(Self { name: name.to_owned(), ..Self::default() });
        Arc::clone(all.entry(name.to_owned()).or_insert_with(new))
    }

    /// That of these servers.
    pub(super) fn of(servers: &NameServers) -> Option<Arc<Self>> {
        servers.zone.as_deref().map(Self::named)
    }

    fn answered(&self, failed: Option<Failure>) {
        match failed {
            None => &self.noerror,
            Some(Failure::ServerFailure) => &self.servfail,
            Some(Failure::NotFound) => &self.nxdomain,
            Some(Failure::Unimplemented) => &self.notimp,
            Some(Failure::Refused) => &self.refused,
            Some(Failure::TimedOut) => &self.timedout,
        }
        .up();
    }

    /// A server answered with a code that is waited over.
    pub(super) fn confused(&self, code: u16) {
        if code == 1 { &self.formerr } else { &self.unknown }.up();
    }

    /// What the counters of answers are called in the API and in metrics.
    pub const ANSWERS: [&'static str; 8] =
        ["noerror", "formerr", "servfail", "nxdomain", "notimp", "refused", "timedout", "unknown"];

    /// The counters of answers, in the order of their names.
    pub fn answers(&self) -> [&Counter<true>; 8] {
        let Self { noerror, formerr, servfail, nxdomain, notimp, refused, timedout, unknown, .. } = self;
        [noerror, formerr, servfail, nxdomain, notimp, refused, timedout, unknown]
    }

    /// Begins anew.
    pub fn reset(&self) {
        [&self.names, &self.services].into_iter().chain(self.answers()).for_each(Counter::reset);
    }
}
