//! How loaded a peer says it is: what `least_load` goes by. Who asks it is `http::modules::upstream`.

mod agent;
mod report;
mod source;

pub use agent::{Admin, Operation, Said, Weight, read as read_agent};
pub use report::{Member, in_body, in_field};
pub use source::{Agent, Check, OnFail, Sources};

use super::peer::{Peer, ServerLine};
use std::{
    borrow::Cow,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

/// The last report of a peer, and what it was given to do since. Shared by all threads and generations.
#[derive(Debug)]
pub(super) struct Load {
    /// The bits of the number; not a number while nothing is known.
    reported: AtomicU64,
    /// Requests that were sent to it since.
    since: AtomicU32,
    /// For its agent: the weight that it sets a share of, and the one it has set. 0 before it has.
    weights: AtomicU64,
}

impl Default for Load {
    fn default() -> Self {
        Self { reported: AtomicU64::new(f64::NAN.to_bits()), since: AtomicU32::new(0), weights: AtomicU64::new(0) }
    }
}

impl Load {
    /// What was reported last, if that was a number.
    pub(super) fn reported(&self) -> Option<f64> {
        let load = f64::from_bits(self.reported.load(Relaxed));
        (!load.is_nan()).then_some(load)
    }

    /// There is a new report; `None` where it says nothing.
    pub(super) fn report(&self, load: Option<f64>) {
        self.reported.store(load.unwrap_or(f64::NAN).to_bits(), Relaxed);
        self.since.store(0, Relaxed);
    }

    /// Requests that were sent to it since the last report.
    pub(super) fn since(&self) -> u32 {
        self.since.load(Relaxed)
    }

    /// A request is sent to it.
    pub(super) fn dispatch(&self) {
        self.since.fetch_add(1, Relaxed);
    }

    /// The weight that an agent sets a share of, and whether it has set it to nothing. That weight is the present one, or
    /// what was there before the agent changed it, unless somebody else has changed it since.
    fn whole_weight(&self, present: u32) -> (u32, bool) {
        let weights = self.weights.load(Relaxed);
        let (whole, set) = ((weights >> 32) as u32, weights as u32);
        match whole {
            0 => (present, false),
            _ if set == 0 => (whole, true),
            _ => (if set == present { whole } else { present }, false),
        }
    }

    fn set_weights(&self, whole: u32, set: u32) {
        self.weights.store(u64::from(whole) << 32 | u64::from(set), Relaxed);
    }
}

impl Peer {
    /// How loaded it said it was (`load_check`, `agent_check`, `load_header`); `None` while nothing is known.
    pub fn load(&self) -> Option<f64> {
        self.known().and_then(|live| live.load.reported())
    }

    /// It says how loaded it is.
    pub fn report_load(&self, load: Option<f64>) {
        self.live().load.report(load);
    }

    /// Its line without what its agent has made of the weight.
    pub(super) fn line_without_agent(&self) -> Cow<'_, ServerLine> {
        let (whole, nothing) =
            self.known().map_or((self.line.weight, false), |live| live.load.whole_weight(self.line.weight));
        if whole == self.line.weight && !nothing {
            return Cow::Borrowed(&self.line);
        }
        Cow::Owned(ServerLine { weight: whole, drain: self.line.drain && !nothing, ..(*self.line).clone() })
    }

    /// Gives a line the weight that its agent wants. Without any weight it drains, and it ends that with the next weight
    /// it gets.
    pub fn weigh_by_agent(&self, line: &mut ServerLine, weight: Weight) {
        let load = &self.live().load;
        let (whole, was_nothing) = load.whole_weight(self.line.weight);
        match weight.of(whole) {
            Some(weight) => {
                line.weight = weight;
                line.drain &= !was_nothing;
                load.set_weights(whole, weight);
            }
            None => {
                line.drain = true;
                load.set_weights(whole, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Address;
    use std::sync::Arc;

    #[test]
    fn an_agents_share_is_always_of_the_same_whole_unless_somebody_else_changes_it() {
        let mut peer = Peer::new(0, Arc::default(), Address::Unix("/a".into()));
        peer.line = Arc::new(ServerLine { weight: 100, ..ServerLine::default() });
        let mut set = |change: &dyn Fn(&mut ServerLine), weight| {
            let mut line = (*peer.line).clone();
            change(&mut line);
            peer.line = Arc::new(line.clone());
            peer.weigh_by_agent(&mut line, weight);
            peer.line = Arc::new(line);
            let own = peer.line_without_agent().into_owned();
            (peer.line.weight, peer.line.drain, own.weight, own.drain)
        };
        let percent = Weight::Percent;
        assert_eq!(set(&|_| {}, percent(50.0)), (50, false, 100, false));
        assert_eq!(set(&|_| {}, percent(20.0)), (20, false, 100, false));
        assert_eq!(set(&|_| {}, percent(0.0)), (20, true, 100, false));
        assert_eq!(set(&|_| {}, percent(100.0)), (100, false, 100, false));
        assert_eq!(set(&|line| line.weight = 40, percent(50.0)), (20, false, 40, false));
        assert_eq!(set(&|line| line.drain = true, percent(75.0)), (30, true, 40, true), "it did not begin that");
        assert_eq!(set(&|_| {}, Weight::Absolute(7)), (7, true, 40, true));
        assert_eq!(set(&|_| {}, percent(100.0)), (40, true, 40, true));
    }
}
