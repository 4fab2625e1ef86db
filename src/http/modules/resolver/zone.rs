//! `status_zone=`: what name servers were asked and what they said. A zone is known by its name, and goes on counting over
//! reloads.

use super::{Failure, NameServers};
use crate::observe::counts::Counter;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// A question that is counted. Dropped before it was answered, it counts as one that nobody answered in time: those who
/// waited for it do so no longer.
pub(super) struct Pending(Option<Arc<Zone>>);

impl Pending {
    pub(super) fn new(zone: Arc<Zone>) -> Self {
        Self(Some(zone))
    }

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
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Begins anew.
    pub fn reset(&self) {
        for counter in [
            &self.names,
            &self.services,
            &self.noerror,
            &self.formerr,
            &self.servfail,
            &self.nxdomain,
            &self.notimp,
            &self.refused,
            &self.timedout,
            &self.unknown,
        ] {
            counter.reset();
        }
    }
}
