//! What is counted of one peer, for the API and the metrics: in groups with a `zone`, and nowhere else.
//!
//! The counters are shared by all threads and generations: they stand beside the peer's other state.

use super::reason::Reason;
use crate::observe::counts::{Codes, Counter, Histogram, Responses, Spread};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The counters of one peer.
#[derive(Debug, Default)]
pub struct Stats {
    requests: Counter<true>,
    responses: Codes<true>,
    sent: Counter<true>,
    received: Counter<true>,
    fails: Counter<true>,
    /// When it was chosen last, in milliseconds since the epoch.
    selected: AtomicU64,
    header_time: Average,
    response_time: Average,
    connect: Histogram<true>,
    header: Histogram<true>,
    response: Histogram<true>,
    opened: Counter<true>,
    reused: Counter<true>,
    idle: Counter<true>,
    retries: [Counter<true>; Reason::ALL.len()],
    outage: Outage,
    /// The place of the reason and one; 0 where there was none.
    reason: AtomicU64,
    failed: AtomicU64,
}

/// What was counted of one peer. Times of the day are milliseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbers {
    /// Requests that were sent to it.
    pub requests: u64,
    /// Its answers.
    pub responses: Responses,
    /// Bytes sent to it.
    pub sent: u64,
    /// Bytes received from it.
    pub received: u64,
    /// Attempts that came to nothing.
    pub fails: u64,
    /// How often failures took it out (`max_fails`).
    pub unavail: u64,
    /// Milliseconds for which it could not be asked: taken out, being checked for the first time, or unhealthy.
    pub downtime: u64,
    /// Since when it cannot be asked.
    pub downstart: Option<u64>,
    /// When it was chosen last.
    pub selected: Option<u64>,
    /// How long it takes until the head of an answer is here: a moving average in microseconds.
    pub header_time: Option<u64>,
    /// Until all of it is: a moving average in microseconds.
    pub response_time: Option<u64>,
    /// How long opening a connection took.
    pub connect: Spread,
    /// How long it took until the head of an answer was here.
    pub header: Spread,
    /// Until all of it was.
    pub response: Spread,
    /// Connections that were opened.
    pub opened: u64,
    /// Requests that went over a kept connection.
    pub reused: u64,
    /// Connections that are kept just now.
    pub idle: u64,
    /// Why others had to be asked in its place, where they were.
    pub retries: Vec<(Reason, u64)>,
    /// Why an attempt failed last, and when.
    pub last_failure: Option<(Reason, u64)>,
}

impl Stats {
    /// What was counted by millisecond `now`.
    pub fn read(&self, now: u64) -> Numbers {
        let known = |number: &AtomicU64| Some(number.load(Relaxed)).filter(|number| *number != 0);
        let reason = known(&self.reason).and_then(|at| Reason::ALL.get(usize::try_from(at).ok()? - 1).copied());
        let retries = Reason::ALL.into_iter().zip(self.retries.iter().map(Counter::get));
        let (downtime, downstart) = self.outage.read(now);
        Numbers {
            requests: self.requests.get(),
            responses: self.responses.read(),
            sent: self.sent.get(),
            received: self.received.get(),
            fails: self.fails.get(),
            unavail: self.outage.times.get(),
            downtime,
            downstart,
            selected: known(&self.selected),
            header_time: self.header_time.get(),
            response_time: self.response_time.get(),
            connect: self.connect.read(),
            header: self.header.read(),
            response: self.response.read(),
            opened: self.opened.get(),
            reused: self.reused.get(),
            idle: self.idle.get(),
            retries: retries.filter(|(_, times)| *times > 0).collect(),
            last_failure: reason.zip(known(&self.failed)),
        }
    }

    /// Begins anew (`DELETE` of the API). What is the case just now stays.
    pub fn reset(&self) {
        for counter in [&self.requests, &self.sent, &self.received, &self.fails, &self.opened, &self.reused] {
            counter.reset();
        }
        self.retries.iter().for_each(Counter::reset);
        self.responses.reset();
        for histogram in [&self.connect, &self.header, &self.response] {
            histogram.reset();
        }
        for number in [&self.selected, &self.header_time.0, &self.response_time.0, &self.reason] {
            number.store(0, Relaxed);
        }
        self.outage.times.reset();
        self.outage.total.reset();
    }

    /// It cannot be asked from millisecond `now` on: its checks say so.
    pub fn went_down(&self, now: u64) {
        self.outage.begin(now, FOR_GOOD);
    }

    /// It can be asked again.
    pub fn came_up(&self, now: u64) {
        self.outage.end(now);
    }

    /// It is chosen at millisecond `now`.
    pub(super) fn choose(&self, now: u64) {
        self.requests.up();
        self.selected.store(now, Relaxed);
    }

    /// A connection to it was opened within this time.
    pub(super) fn connected(&self, took: Duration) {
        self.opened.up();
        self.connect.up(took);
    }

    /// A kept connection is used.
    pub(super) fn took_kept(&self) {
        self.reused.up();
    }

    /// A connection is kept, or no longer.
    pub(super) fn keep(&self, kept: bool) {
        if kept {
            self.idle.up();
        } else {
            self.idle.down();
        }
    }

    /// The head of its answer is here after this time.
    pub(super) fn answered(&self, status: u16, took: Duration) {
        self.responses.up(status);
        self.header.up(took);
        self.header_time.add(took);
    }

    /// All of its answer is here.
    pub(super) fn finished(&self, took: Duration) {
        self.response.up(took);
        self.response_time.add(took);
    }

    /// An attempt is over, for which these bytes went to it and came from it.
    pub(super) fn moved(&self, sent: u64, received: u64) {
        self.sent.add(sent);
        self.received.add(received);
    }

    /// An attempt came to nothing at millisecond `now`.
    pub(super) fn failed(&self, reason: Reason, now: u64) {
        self.reason.store(reason as u64 + 1, Relaxed);
        self.failed.store(now, Relaxed);
    }

    /// Another one is asked in its place.
    pub(super) fn passed_over(&self, reason: Reason) {
        self.retries[reason as usize].up();
    }

    /// That counts towards `max_fails`. With a time, it is taken out by it until that millisecond.
    pub(super) fn blamed(&self, now: u64, until: Option<u64>) {
        self.fails.up();
        if let Some(until) = until
            && self.outage.begin(now, until)
        {
            self.outage.times.up();
        }
    }

    /// What took it out is forgiven.
    pub(super) fn forgiven(&self, now: u64) {
        if self.outage.until.load(Relaxed) != FOR_GOOD {
            self.outage.end(now);
        }
    }
}

/// A moving average in microseconds, as `least_time` makes them; 0 before there is one.
#[derive(Debug, Default)]
struct Average(AtomicU64);

impl Average {
    /// Two threads at once may lose one of their times: it is an average.
    fn add(&self, took: Duration) {
        let value = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).clamp(1, u64::MAX / 128);
        let now = match self.0.load(Relaxed) {
            0 => value,
            before => (value * 5 + before * 95 + 50) / 100,
        };
        self.0.store(now.max(1), Relaxed);
    }

    fn get(&self) -> Option<u64> {
        Some(self.0.load(Relaxed)).filter(|average| *average != 0)
    }
}

/// Until somebody says otherwise.
const FOR_GOOD: u64 = u64::MAX;

/// When it could not be asked.
#[derive(Debug, Default)]
struct Outage {
    /// Since when; 0 while it can be.
    since: AtomicU64,
    /// Until when, where time alone ends it.
    until: AtomicU64,
    /// All that is over, in milliseconds.
    total: Counter<true>,
    /// How often failures took it out.
    times: Counter<true>,
}

impl Outage {
    /// It cannot be asked from now on. Whether it could before.
    fn begin(&self, now: u64, until: u64) -> bool {
        let goes_on = self.since.load(Relaxed) != 0 && now < self.until.load(Relaxed);
        if !goes_on {
            self.end(now);
            self.since.store(now.max(1), Relaxed);
        }
        self.until.store(until, Relaxed);
        !goes_on
    }

    fn end(&self, now: u64) {
        let since = self.since.swap(0, Relaxed);
        let until = self.until.swap(0, Relaxed);
        if since != 0 {
            self.total.add(now.min(until).saturating_sub(since));
        }
    }

    /// How long it was in all, and since when it is.
    fn read(&self, now: u64) -> (u64, Option<u64>) {
        let (since, until) = (self.since.load(Relaxed), self.until.load(Relaxed));
        let present = if since == 0 { 0 } else { now.min(until).saturating_sub(since) };
        (self.total.get() + present, Some(since).filter(|since| *since != 0 && now < until))
    }
}

/// Who was chosen last, in a group of which somebody watches.
#[derive(Debug)]
pub(super) struct Picks {
    ring: [AtomicU64; Self::MOST],
    count: AtomicU64,
}

impl Default for Picks {
    fn default() -> Self {
        Self { ring: [const { AtomicU64::new(0) }; Self::MOST], count: AtomicU64::new(0) }
    }
}

impl Picks {
    const MOST: usize = 64;

    /// A peer was chosen. To be called by one thread at a time: under the group's lock.
    pub(super) fn push(&self, id: u32) {
        let count = self.count.load(Relaxed);
        self.ring[(count % Self::MOST as u64) as usize].store(id.into(), Relaxed);
        self.count.store(count + 1, Relaxed);
    }

    /// The numbers of the peers, the last one at the end.
    pub(super) fn read(&self) -> Vec<u32> {
        let end = self.count.load(Relaxed);
        let start = end.saturating_sub(Self::MOST as u64);
        let at = |n: u64| self.ring[(n % Self::MOST as u64) as usize].load(Relaxed);
        (start..end).map(|n| u32::try_from(at(n)).unwrap_or(u32::MAX)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_was_never_asked_has_nothing_to_show() {
        assert_eq!(Stats::default().read(1000), Numbers::default());
    }

    #[test]
    fn averages_move_by_a_twentieth() {
        let stats = Stats::default();
        let time = |micros| {
            stats.answered(200, Duration::from_micros(micros));
            stats.read(0).header_time
        };
        assert_eq!([100, 100, 0, 1000].map(time), [100, 100, 95, 140].map(Some));
    }

    #[test]
    fn time_alone_ends_what_failures_began() {
        let stats = Stats::default();
        let read = |now| {
            let read = stats.read(now);
            (read.unavail, read.downtime, read.downstart)
        };
        stats.blamed(1000, None);
        assert_eq!(read(2000), (0, 0, None));
        stats.blamed(2000, Some(12_000));
        stats.blamed(3000, Some(13_000));
        assert_eq!(read(4000), (1, 2000, Some(2000)));
        assert_eq!(read(20_000), (1, 11_000, None));
        // A probe fails.
        stats.blamed(20_000, Some(30_000));
        assert_eq!(read(21_000), (2, 12_000, Some(20_000)));
        stats.forgiven(25_000);
        assert_eq!(read(90_000), (2, 16_000, None));
        assert_eq!(stats.read(0).fails, 4);
    }

    #[test]
    fn what_checks_began_only_checks_end() {
        let stats = Stats::default();
        stats.went_down(1000);
        stats.forgiven(2000);
        assert_eq!(stats.read(5000).downtime, 4000);
        stats.came_up(6000);
        assert_eq!((stats.read(9000).downtime, stats.read(9000).downstart), (5000, None));
    }

    #[test]
    fn a_reset_forgets_what_was_and_not_what_is() {
        let stats = Stats::default();
        stats.choose(5);
        stats.answered(200, Duration::from_millis(1));
        stats.moved(10, 20);
        stats.passed_over(Reason::Refused);
        stats.failed(Reason::Refused, 7);
        stats.keep(true);
        stats.went_down(1000);
        assert_eq!(stats.read(1000).last_failure, Some((Reason::Refused, 7)));
        stats.reset();
        assert_eq!(stats.read(3000), Numbers { idle: 1, downtime: 2000, downstart: Some(1000), ..Numbers::default() });
    }

    #[test]
    fn the_last_picks_are_known_in_order() {
        let picks = Picks::default();
        assert!(picks.read().is_empty());
        (0..3).for_each(|id| picks.push(id));
        assert_eq!(picks.read(), [0, 1, 2]);
        (3..100).for_each(|id| picks.push(id));
        assert_eq!(picks.read(), (36..100).collect::<Vec<_>>());
    }
}
