//! `queue`: requests wait for a peer while all are busy, first come, first served.

use crate::observe::counts::{Counter, Histogram, Spread};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Acquire},
        },
    },
    time::Duration,
};
use tokio::sync::Notify;

/// The queue of a group.
#[derive(Clone, Debug)]
pub struct Queue {
    /// How many requests may wait.
    pub most: usize,
    /// How long each may wait.
    pub timeout: Duration,
    line: OnceLock<Arc<Line>>,
}

/// Who waits, in all threads and generations.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: AtomicUsize,
    /// How many found no place.
    overflows: Counter<true>,
    /// How many nobody took in time.
    pub(super) timeouts: Counter<true>,
    /// How long those waited that were taken.
    pub(super) waits: Histogram<true>,
    called: Notify,
}

impl Queue {
    /// An empty queue.
    pub fn new(most: usize, timeout: Duration) -> Self {
        Self { most, timeout, line: OnceLock::new() }
    }

    /// Lets the next one look whether it finds a peer.
    pub(super) fn call_next(&self) {
        self.line().called.notify_one();
    }

    /// Whether somebody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.line().waiting.load(Acquire)
    }

    /// How many found no place.
    pub fn overflows(&self) -> u64 {
        self.line().overflows.get()
    }

    /// How many nobody took in time.
    pub fn timeouts(&self) -> u64 {
        self.line().timeouts.get()
    }

    /// How long those waited that were taken.
    pub fn waits(&self) -> Spread {
        self.line().waits.read()
    }

    /// Begins to count anew.
    pub fn reset_overflows(&self) {
        self.line().timeouts.reset();
        self.line().waits.reset();
        self.line().overflows.reset();
    }

    /// A place in it, unless it is full. It is left when what comes back is dropped.
    pub fn enter(&self) -> Option<Place> {
        let room = |waiting| (waiting < self.most).then_some(waiting + 1);
        if self.line().waiting.fetch_update(AcqRel, Acquire, room).is_err() {
            self.line().overflows.up();
            return None;
        }
        Some(Place { line: Arc::clone(self.line()) })
    }

    /// Whoever waits in the queue of the generation before waits in this one, too.
    pub(super) fn adopt(&self, previous: &Self) {
        // A queue that is in use already stays as it is.
        let _ = self.line.set(Arc::clone(previous.line()));
    }

    pub(super) fn line(&self) -> &Arc<Line> {
        self.line.get_or_init(Arc::default)
    }
}

/// A request that waits.
#[derive(Debug)]
pub struct Place {
    line: Arc<Line>,
}

impl Place {
    /// Ready when it is this one's turn to look.
    pub fn called(&self) -> tokio::sync::futures::Notified<'_> {
        self.line.called.notified()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.line.waiting.fetch_sub(1, AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_so_many_places_and_no_more() {
        let queue = Queue::new(2, Duration::from_secs(60));
        let (first, _second) = (queue.enter().unwrap(), queue.enter().unwrap());
        assert!(queue.enter().is_none());
        drop(first);
        assert_eq!(queue.len(), 1);
        assert!(queue.enter().is_some() && !queue.is_empty());
        assert!(Queue::new(0, Duration::ZERO).enter().is_none());
    }
}
