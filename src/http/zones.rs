//! `status_zone`: what the requests of some servers or locations come to, counted by each thread for itself and added up
//! when somebody reads it. A zone is known by its name, and goes on counting over reloads.

use super::{exchange::Exchange, modules::core::request_length};
use crate::{
    lock,
    observe::counts::{Codes, Counter, Histogram, Responses, Spread},
};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// What is counted together. Each kind has names of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Servers,
    /// Of locations it is the one that counts in which a request ends.
    Locations,
}

/// One zone.
#[derive(Debug)]
pub struct Zone {
    pub name: String,
    /// Its place in every thread's list.
    at: usize,
    threads: Mutex<Vec<Arc<Cells>>>,
    /// What had been counted when it was to begin anew.
    base: Mutex<Numbers>,
}

/// What one thread has counted.
#[derive(Debug, Default)]
struct Cells {
    processing: Counter<false>,
    requests: Counter<false>,
    responses: Codes<false>,
    discarded: Counter<false>,
    aborted: Counter<false>,
    received: Counter<false>,
    sent: Counter<false>,
    time: Histogram<false>,
}

/// What was counted in a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Requests under way; of servers only.
    pub processing: u64,
    /// Requests that came.
    pub requests: u64,
    pub responses: Responses,
    /// Requests that ended without an answer.
    pub discarded: u64,
    /// Requests whose client left before it had all of its answer.
    pub aborted: u64,
    /// Bytes that clients sent.
    pub received: u64,
    /// Bytes that were sent to them.
    pub sent: u64,
    /// From the first byte of a request's head to the last byte of its answer.
    pub time: Spread,
}

static ALL: Mutex<BTreeMap<(Kind, String), Arc<Zone>>> = Mutex::new(BTreeMap::new());

impl Zone {
    /// The zone of this name, which may have counted before.
    pub fn named(kind: Kind, name: &str) -> Arc<Self> {
        let mut all = lock(&ALL);
        let at = all.len();
        let new = || {
            let (threads, base) = (Mutex::default(), Mutex::default());
            Arc::new(Self { name: name.to_owned(), at, threads, base })
        };
        Arc::clone(all.entry((kind, name.to_owned())).or_insert_with(new))
    }

    /// What was counted so far.
    pub fn read(&self) -> Numbers {
        self.sum().since(&lock(&self.base))
    }

    /// Begins anew.
    pub fn reset(&self) {
        *lock(&self.base) = self.sum();
    }

    fn sum(&self) -> Numbers {
        let mut sum = Numbers::default();
        lock(&self.threads).iter().for_each(|cells| sum.join(cells));
        sum
    }
}

impl Numbers {
    fn join(&mut self, cells: &Cells) {
        self.processing = self.processing.wrapping_add(cells.processing.get());
        self.requests += cells.requests.get();
        self.responses.join(&cells.responses.read());
        self.discarded += cells.discarded.get();
        self.aborted += cells.aborted.get();
        self.received += cells.received.get();
        self.sent += cells.sent.get();
        self.time.join(&cells.time.read());
    }

    /// Without what was counted before; what is the case just now stays.
    fn since(self, before: &Self) -> Self {
        Self {
            processing: self.processing,
            requests: self.requests.saturating_sub(before.requests),
            responses: self.responses.since(&before.responses),
            discarded: self.discarded.saturating_sub(before.discarded),
            aborted: self.aborted.saturating_sub(before.aborted),
            received: self.received.saturating_sub(before.received),
            sent: self.sent.saturating_sub(before.sent),
            time: self.time.since(&before.time),
        }
    }
}

/// The cells of one thread, by the places of their zones.
#[derive(Default)]
pub struct Own(RefCell<Vec<Option<Arc<Cells>>>>);

impl Own {
    fn count(&self, zone: &Zone, count: impl FnOnce(&Cells)) {
        let mut own = self.0.borrow_mut();
        match own.get(zone.at) {
            Some(Some(cells)) => count(cells),
            _ => {
                let cells = Arc::<Cells>::default();
                lock(&zone.threads).push(Arc::clone(&cells));
                count(&cells);
                if own.len() <= zone.at {
                    own.resize(zone.at + 1, None);
                }
                own[zone.at] = Some(cells);
            }
        }
    }
}

/// A client's request has found its server.
pub fn begin(exchange: &Exchange) {
    if let Some(zone) = &exchange.server.base.settings.status_zone.zones.server {
        exchange.connection.worker.zones.count(zone, |cells| {
            cells.requests.up();
            cells.processing.up();
        });
    }
}

/// A client's request has ended.
pub fn end(exchange: &Exchange) {
    let (server, location) = (&exchange.server.base.settings.status_zone, &exchange.location.settings.status_zone);
    let own = &exchange.connection.worker.zones;
    if let Some(zone) = &server.zones.server {
        own.count(zone, |cells| {
            cells.processing.down();
            cells.note(exchange);
        });
    }
    if let Some(zone) = &location.zones.location {
        own.count(zone, |cells| {
            cells.requests.up();
            cells.note(exchange);
        });
    }
}

impl Cells {
    fn note(&self, exchange: &Exchange) {
        let sent = &exchange.sent;
        match sent.total {
            0 => self.discarded.up(),
            _ => self.responses.up(sent.status),
        }
        if sent.status == 499 || !sent.complete && exchange.connection.side.closed() {
            self.aborted.up();
        }
        self.received.add(request_length(exchange));
        self.sent.add(sent.total);
        let now = exchange.connection.worker.clock.instant();
        self.time.up(now.saturating_duration_since(exchange.started));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_the_same_by_its_kind_and_name() {
        let zone = Zone::named(Kind::Servers, "same");
        assert!(Arc::ptr_eq(&zone, &Zone::named(Kind::Servers, "same")));
        assert!(!Arc::ptr_eq(&zone, &Zone::named(Kind::Locations, "same")));
        assert_ne!(zone.at, Zone::named(Kind::Servers, "other").at);
    }

    #[test]
    fn what_threads_count_is_added_up_and_can_begin_anew() {
        let zone = Zone::named(Kind::Servers, "added");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let own = Own::default();
                    for _ in 0..1000 {
                        own.count(&zone, |cells| cells.requests.up());
                    }
                    own.count(&zone, |cells| cells.processing.up());
                });
            }
        });
        assert_eq!((zone.read().requests, zone.read().processing), (3000, 3));
        zone.reset();
        assert_eq!(zone.read(), Numbers { processing: 3, ..Numbers::default() });
    }
}
