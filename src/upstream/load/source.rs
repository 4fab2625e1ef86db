//! Where a group has the loads of its peers from, as its upstream says.

use super::Member;
use crate::upstream::{Group, health::Hold};
use bytes::Bytes;
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

/// The sources of a group. Most have none.
#[derive(Debug, Default)]
pub struct Sources {
    pub check: Option<Check>,
    pub agent: Option<Agent>,
    /// `load_header`: the field of every answer that says it.
    pub field: Option<Bytes>,
    /// A thread has taken it upon itself to ask.
    claimed: AtomicBool,
    /// Another generation asks from now on.
    ended: AtomicBool,
}

/// `load_check`: every peer is asked now and then.
#[derive(Clone, Debug)]
pub struct Check {
    /// With its arguments.
    pub uri: Bytes,
    pub interval: Duration,
    /// For one whole question.
    pub timeout: Duration,
    pub member: Member,
    /// So many failures in a row are too many.
    pub fails: u32,
    pub on_fail: OnFail,
}

/// What becomes of a peer that does not say how loaded it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFail {
    /// It is asked for nothing else until it says so again.
    #[default]
    Down,
    /// It leaves the group.
    Remove,
}

/// `agent_check`: the agent at every peer is asked now and then.
#[derive(Clone, Debug)]
pub struct Agent {
    pub port: u16,
    pub interval: Duration,
    pub timeout: Duration,
    /// What it is told first.
    pub send: Bytes,
}

impl Sources {
    /// Those that an upstream names.
    pub fn new(check: Option<Check>, agent: Option<Agent>, field: Option<Bytes>) -> Self {
        Self { check, agent, field, ..Self::default() }
    }

    /// Whether somebody has to be asked, and the caller is the first to ask this: then it is up to it.
    pub fn claim(&self) -> bool {
        (self.check.is_some() || self.agent.is_some()) && !self.claimed.swap(true, Relaxed)
    }

    /// Another generation is in force: nobody is asked for this one any more.
    pub fn end(&self) {
        self.ended.store(true, Relaxed);
    }

    /// Whether it is.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Who may hold peers on behalf of these sources.
    fn holds(&self) -> impl Iterator<Item = Hold> {
        let check = self.check.as_ref().filter(|check| check.on_fail == OnFail::Down).map(|_| Hold::Load);
        check.into_iter().chain(self.agent.as_ref().map(|_| Hold::Agent))
    }
}

impl Group {
    /// Whom the sources of the generation before held, and nobody would let go of any more, is let go of now.
    /// `now` is in milliseconds since the epoch.
    pub fn take_over_loads(&self, previous: &Self, now: u64) {
        for hold in previous.loads.holds().filter(|hold| !self.loads.holds().any(|own| own == *hold)) {
            self.peers().for_each(|peer| {
                self.release(&peer, hold, now);
            });
        }
    }
}
