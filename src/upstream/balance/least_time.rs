//! `least_time`: the peer that would have answered soonest, by how long it took before and what it has to do now;
//! round robin among equals.

use super::{Measure, Pick, least_conn, round_robin};
use crate::upstream::peer::{Guarded, Peer, Times};

/// Milliseconds beyond which peers are equally slow.
const SLOWEST: u64 = 5000;
/// Times that lie together in a step of so many milliseconds count as equal.
const STEP: u64 = 20;

/// `ngx_http_upstream_get_least_time_peer` within one set.
pub(super) fn pick(measure: Measure, pick: &mut Pick<'_>) -> Option<usize> {
    if pick.set.single {
        return round_robin::pick(pick);
    }
    let now = pick.now;
    least_conn::least(pick, |peer| peer.live().times.grow(now), |peer| expected(peer, measure, now))
}

/// How long it takes it to be done with its requests and one more (`ngx_http_upstream_least_time_eta`).
pub(super) fn expected(peer: &Peer, measure: Measure, now: u64) -> u64 {
    let live = peer.live();
    let times = &live.times;
    let taken = match measure {
        Measure::Header => &times.header,
        Measure::LastByte => &times.response,
    };
    let mut time = taken.get().unsigned_abs();
    // Whoever was not asked for long is believed to have become faster, to get a chance.
    let unasked = (now / 1000) as i64 - live.checked.get();
    if unasked > peer.line.fail_timeout {
        let times = unasked / (peer.line.fail_timeout + 1);
        time = time.checked_shr(u32::try_from(times).unwrap_or(u32::MAX)).unwrap_or(0);
    }
    if times.inflight_count.get() > 0 {
        time = time.max(times.inflight.get().unsigned_abs());
    }
    time = if time > SLOWEST { SLOWEST } else { time + STEP - time % STEP };
    time * (1 + u64::from(peer.active()))
}

/// What is counted of a request: `inflight` until its time is known.
impl Times {
    /// A request begins at millisecond `now`.
    pub(in crate::upstream) fn begin(&self, now: u64) {
        let count = self.inflight_count.get();
        if count > 0 {
            self.inflight_sum.set(self.inflight_sum.get() + self.unchanged(now) * count);
        }
        self.inflight_changed.set(now as i64);
        self.inflight_count.set(count + 1);
    }

    /// A request is no longer in flight: it took `taken` milliseconds.
    pub(in crate::upstream) fn end(&self, taken: i64, now: u64) {
        let count = self.inflight_count.get();
        if count <= 1 {
            self.inflight_sum.set(0);
        } else {
            self.inflight_sum.set((self.inflight_sum.get() + self.unchanged(now) * count - taken).max(0));
            self.inflight_changed.set(now as i64);
        }
        self.inflight_count.set((count - 1).max(0));
    }

    /// Looks at what the requests under way have taken by now.
    fn grow(&self, now: u64) {
        let count = self.inflight_count.get();
        if count > 0 {
            average(&self.inflight, self.inflight_sum.get() / count + self.unchanged(now));
        }
    }

    fn unchanged(&self, now: u64) -> i64 {
        (now as i64).saturating_sub(self.inflight_changed.get()).max(0)
    }
}

/// An exponential moving average, rounded (`ngx_http_upstream_response_time_avg`).
pub(in crate::upstream) fn average(average: &Guarded, value: i64) {
    let before = average.get();
    average.set(match before {
        0 => value,
        before => (value * 5 + before * 95 + 50) / 100,
    });
}

#[cfg(test)]
mod tests {
    use super::super::tests::group_of;
    use super::*;
    use crate::upstream::{Balance, Client, Group, Outcome, Selection};
    use std::sync::Arc;

    fn least_time(measure: Measure, inflight: bool) -> Balance {
        Balance::LeastTime { measure, inflight }
    }

    fn start(group: &Arc<Group>, now: u64) -> (u32, Selection) {
        let mut selection = group.select(Client::default());
        (selection.next(now).unwrap().id, selection)
    }

    /// A request that gets its head after the first time and its end after the second; its peer.
    fn request(group: &Arc<Group>, now: u64, header: u64, end: u64) -> u32 {
        let (peer, mut selection) = start(group, now);
        selection.answered(now + header);
        selection.passed_on(now + header);
        selection.done(Outcome::Success, now + end);
        peer
    }

    #[test]
    fn the_faster_peer_is_asked_and_equals_take_turns() {
        for (measure, slow) in [(Measure::Header, (500, 500)), (Measure::LastByte, (1, 500))] {
            let group = group_of(least_time(measure, false), &[1, 1]);
            assert_eq!(request(&group, 1_000_000, slow.0, slow.1), 0);
            assert!((0..10).all(|_| request(&group, 1_001_000, 5, 6) == 1), "{measure:?}");
        }
        let group = group_of(least_time(Measure::Header, false), &[1, 1]);
        let ids: Vec<_> = (0..6).map(|n| request(&group, 1_000_000 + n, 1, 500 * (n % 2))).collect();
        assert_eq!(ids, [0, 1, 0, 1, 0, 1], "the rest of the answer does not matter");
    }

    #[test]
    fn requests_under_way_count_as_much_as_slowness() {
        let group = group_of(least_time(Measure::LastByte, false), &[1, 1]);
        request(&group, 1_000_000, 90, 90);
        request(&group, 1_000_000, 10, 10);
        // 100 for each at one, 20 for each at the other.
        let seen: Vec<_> = (0..7).map(|_| start(&group, 1_001_000)).collect();
        assert_eq!(seen.iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 0, 1]);
    }

    #[test]
    fn a_slow_peer_gets_another_chance_after_fail_timeout() {
        let group = group_of(least_time(Measure::LastByte, false), &[1, 1]);
        request(&group, 1_000_000, 160, 160);
        request(&group, 1_000_000, 10, 10);
        let asked = |from: u64| (0..10).any(|n| request(&group, from + n * 1000, 10, 10) == 0);
        assert!(!asked(1_000_000));
        assert!(asked(1_044_000), "halved until it is as fast as the other");
    }

    #[test]
    fn a_peer_that_does_not_answer_is_left_alone_with_inflight() {
        for (inflight, expected) in [(false, 5), (true, 10)] {
            let group = group_of(least_time(Measure::LastByte, inflight), &[1, 1]);
            let hanging: Vec<_> = (0..8).map(|_| start(&group, 1_000_000)).collect();
            let (stuck, fine): (Vec<_>, Vec<_>) = hanging.into_iter().partition(|(peer, _)| *peer == 0);
            for (_, mut selection) in fine {
                selection.answered(1_000_005);
                selection.done(Outcome::Success, 1_000_005);
            }
            let (kept, _gone) = stuck.split_at(1);
            assert_eq!(kept.len(), 1);
            let later: Vec<_> = (0..10).map(|n| request(&group, 1_003_000 + n, 5, 5)).collect();
            let others = later.iter().filter(|peer| **peer == 1).count();
            assert!(others >= expected, "{inflight}: {later:?}");
        }
    }

    #[test]
    fn failures_tell_nothing_of_the_time() {
        let group = group_of(least_time(Measure::LastByte, true), &[1, 1]);
        let (peer, mut selection) = start(&group, 1_000_000);
        selection.done(Outcome::Failed, 1_004_000);
        let times = |at: usize| group.peers().nth(at).unwrap().live().times.response.get();
        assert_eq!((peer, times(0)), (0, 0));
        request(&group, 1_004_000, 7, 9);
        assert_eq!(times(1), 9);
    }

    #[test]
    fn averages_move_by_a_twentieth_and_are_rounded() {
        let number = Guarded::default();
        let after: Vec<_> = [100, 100, 0, 1000, 3]
            .map(|value| {
                average(&number, value);
                number.get()
            })
            .into();
        assert_eq!(after, [100, 100, 95, 140, 133]);
    }
}
