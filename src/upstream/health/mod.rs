//! How a peer is doing: the states that NGINX Plus knows, and who holds a peer out of the choice.
//!
//! The choice reads one number of a peer, [`Peer::is_held`]. Whoever checks peers says what came of it to
//! [`Group::note_check`], or holds and releases a peer by a sign of its own ([`Group::hold`], [`Group::release`]).

mod machine;

pub use machine::{Machine, Tally, Terms, Verdict};

use super::{Group, Peer};
use crate::lock;
use std::sync::{
    Mutex, MutexGuard, OnceLock,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// The state of a peer, as NGINX Plus's API names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Up,
    /// Asked by those who belong to it, and by nobody else.
    Draining,
    Down,
    /// Taken out by failures of requests (`max_fails`).
    Unavail,
    /// Nobody has seen it healthy yet (`mandatory`).
    Checking,
    /// Checks have failed.
    Unhealthy,
}

impl State {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
            Self::Unavail => "unavail",
            Self::Checking => "checking",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Who holds a peer out of the choice; several may at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// `health_check mandatory`, whose outcome is awaited.
    Checking,
    /// `health_check`.
    Health,
    /// `load_check … on_fail=down`.
    Load,
    /// `agent_check`.
    Agent,
}

impl Hold {
    const COUNT: usize = 4;

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// The number that says that the checks of the group have been set up for a peer. It holds nobody.
const ENROLLED: u32 = 1 << Hold::COUNT;

/// What is known of a peer by checking it. Shared with the same peer of other generations.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// A bit for each [`Hold`], and [`ENROLLED`].
    holds: AtomicU32,
    /// Made when there is something to know.
    known: OnceLock<Box<Mutex<Known>>>,
}

#[derive(Debug, Default)]
struct Known {
    machine: Machine,
    /// Why each holds it.
    why: [String; Hold::COUNT],
}

impl Health {
    pub(super) fn is_held(&self) -> bool {
        self.holds.load(Relaxed) & !ENROLLED != 0
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(self.known.get_or_init(Box::default))
    }

    /// Says whether that changed anything, and whether somebody holds it now.
    fn set(&self, hold: Hold, why: Option<&str>) -> (bool, bool) {
        let mut known = self.known();
        known.why[hold as usize].clear();
        let before = match why {
            Some(why) => {
                known.why[hold as usize].push_str(why);
                self.holds.fetch_or(hold.bit(), Relaxed)
            }
            None => self.holds.fetch_and(!hold.bit(), Relaxed),
        };
        ((before & hold.bit() != 0) != why.is_some(), self.is_held())
    }
}

impl Peer {
    /// Its state at second `now`.
    pub fn state(&self, now: i64) -> State {
        let holds = self.health().map_or(0, |health| health.holds.load(Relaxed) & !ENROLLED);
        match holds {
            _ if self.line.down => State::Down,
            0 if self.line.drain => State::Draining,
            0 if self.is_taken_out(now) => State::Unavail,
            0 => State::Up,
            holds if holds == Hold::Checking.bit() => State::Checking,
            _ => State::Unhealthy,
        }
    }

    /// Whether somebody holds it out of the choice.
    pub fn is_held(&self) -> bool {
        self.health().is_some_and(Health::is_held)
    }

    /// Why it is held: the texts of all who do.
    pub fn why_held(&self) -> Option<String> {
        let health = self.health().filter(|health| health.is_held())?;
        let known = health.known();
        let texts: Vec<_> = known.why.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// What its checks have come to.
    pub fn checks(&self) -> Tally {
        self.health()
            .filter(|health| health.known.get().is_some())
            .map(|health| health.known().machine.tally.clone())
            .unwrap_or_default()
    }

    /// Forgets how many checks there were, not what came of them.
    pub fn reset_checks(&self) {
        if let Some(health) = self.health().filter(|health| health.known.get().is_some()) {
            let mut known = health.known();
            let tally = &mut known.machine.tally;
            (tally.checks, tally.fails, tally.unhealthy) = (0, 0, 0);
        }
    }
}

impl Group {
    /// The group is checked like this from now on, by a new generation. To be called once, before it is first selected
    /// from; who joins later is checked, too.
    pub fn check_by(&self, checks: Vec<Terms>, now: u64) {
        let checks = self.checks.get_or_init(|| checks);
        for peer in self.peers() {
            // Whom nobody has ever checked needs no memory for it.
            if !checks.is_empty() || peer.health().is_some_and(|health| health.holds.load(Relaxed) & ENROLLED != 0) {
                let held = peer.is_held();
                self.begin_checks(&peer, checks);
                if held
                    && !peer.is_held()
                    && let Some(stats) = self.stats(&peer)
                {
                    stats.came_up(now);
                }
                self.seen(&peer, now);
            }
        }
    }

    /// Somebody has joined: who was not checked before is from now on.
    pub(super) fn enroll(&self, peer: &Peer) {
        if let Some(checks) = self.checks.get().filter(|checks| !checks.is_empty())
            && peer.live().health.holds.load(Relaxed) & ENROLLED == 0
        {
            self.begin_checks(peer, checks);
        }
    }

    fn begin_checks(&self, peer: &Peer, checks: &[Terms]) {
        let health = &peer.live().health;
        let mut known = health.known();
        known.machine.begin(checks);
        let verdict = known.machine.verdict();
        if verdict != Verdict::Unhealthy {
            known.why[Hold::Health as usize].clear();
        }
        match checks.is_empty() {
            true => health.holds.fetch_and(!ENROLLED, Relaxed),
            false => health.holds.fetch_or(ENROLLED, Relaxed),
        };
        let bits = match verdict {
            Verdict::Healthy => 0,
            Verdict::Checking => Hold::Checking.bit(),
            Verdict::Unhealthy => Hold::Health.bit(),
        };
        // Nobody gets a moment in which neither holds it.
        health.holds.fetch_or(bits, Relaxed);
        health.holds.fetch_and(bits | !(Hold::Checking.bit() | Hold::Health.bit()), Relaxed);
    }

    /// Whoever checks the peers has seen this one join, at millisecond `now`: from then on its outage counts.
    pub fn seen(&self, peer: &Peer, now: u64) {
        if peer.is_held()
            && let Some(stats) = self.stats(peer)
        {
            stats.went_down(now);
        }
    }

    /// A check of a peer has ended at millisecond `now`; `why` is empty if it passed. Says what the check thinks from now
    /// on, where that is something else than before.
    pub fn note_check(&self, peer: &Peer, terms: &Terms, why: &str, now: u64) -> Option<Verdict> {
        let health = &peer.live().health;
        let (told, verdict) = {
            let mut known = health.known();
            (known.machine.note(terms, why, now), known.machine.verdict())
        };
        if told.is_some() {
            self.follow(peer, verdict, why, now);
        }
        told
    }

    /// Holds the peer, or not, as the checks say.
    fn follow(&self, peer: &Peer, verdict: Verdict, why: &str, now: u64) {
        let unhealthy = verdict == Verdict::Unhealthy;
        // Whoever takes over holds it before the other lets go.
        if unhealthy {
            self.hold(peer, Hold::Health, why, now);
        }
        match verdict == Verdict::Checking {
            true => self.hold(peer, Hold::Checking, "", now),
            false => self.release(peer, Hold::Checking, now),
        };
        if !unhealthy {
            self.release(peer, Hold::Health, now);
        }
    }

    /// Takes a peer out of the choice; says whether this one had not held it before.
    pub fn hold(&self, peer: &Peer, hold: Hold, why: &str, now: u64) -> bool {
        let health = &peer.live().health;
        let free = !health.is_held();
        let (changed, _) = health.set(hold, Some(why));
        if free && let Some(stats) = self.stats(peer) {
            stats.went_down(now);
        }
        changed
    }

    /// Lets go of a peer that was held; says whether this one had. If nobody else holds it, it recovers from millisecond
    /// `now` on (`slow_start`), and failures before that are forgiven.
    pub fn release(&self, peer: &Peer, hold: Hold, now: u64) -> bool {
        // Most are not held, and nobody needs to be told.
        if peer.health().is_none_or(|health| health.holds.load(Relaxed) & hold.bit() == 0) {
            return false;
        }
        let (changed, held) = peer.live().health.set(hold, None);
        if changed && !held {
            let lock = self.lock();
            peer.recover(now);
            drop(lock);
            if let Some(stats) = self.stats(peer) {
                stats.came_up(now);
            }
            if let Some(queue) = &self.queue {
                queue.call_next();
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests;
