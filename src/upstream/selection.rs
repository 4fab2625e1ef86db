//! The choice of a peer for one request, from the first try to the last.

use super::{
    balance::{Course, Pick, average},
    group::Group,
    members::{Members, PeerSet},
    peer::Peer,
    sticky::Lesson,
};
use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use std::{net::IpAddr, sync::Arc};

/// What one request remembers while it looks for a peer that answers (`ngx_http_upstream_rr_peer_data_t`).
///
/// A peer that was handed out counts one request more until [`Selection::done`]. Dropping the selection of a
/// request that was cut short releases it as well, as a success: nginx does the same when a client goes away.
#[derive(Debug)]
pub struct Selection {
    group: Arc<Group>,
    /// Who belonged to the group when the request began.
    members: Arc<Members>,
    client: Client,
    course: Course,
    /// The primary servers had nobody left.
    on_backup: bool,
    /// Peers of the present set this request had already.
    tried: Tried,
    current: Option<Arc<Peer>>,
    tries: usize,
    attempt: Attempt,
    /// What `sticky learn` learns if the peer serves the request well.
    lesson: Option<Box<Lesson>>,
}

/// What is measured of one try, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Attempt {
    began: u64,
    /// How long it took until the head of the answer was there.
    header: Option<i64>,
    /// It is counted among the requests under way of `least_time … inflight`.
    inflight: bool,
}

/// What a method may want to know of the client and its request.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// The client's address (after `realip`); `None` on a unix socket.
    pub address: Option<IpAddr>,
    /// What `hash` hashes.
    pub key: Bytes,
    /// What `sticky` knows the request by: its peer's name, or its session's with `learn`.
    pub sticky: Bytes,
}

/// How it went with a peer: the `state` nginx frees it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, or the request ended for a reason that is not the peer's.
    Success,
    /// `NGX_PEER_NEXT`: it answered 403 or 404, the next one is asked, but it did not fail.
    Next,
    /// `NGX_PEER_FAILED`: counts towards `max_fails`.
    Failed,
}

/// No peer can be asked. nginx logs this text and answers 502; `$upstream_addr` shows the group's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no live upstreams")]
pub struct NoLive;

impl Selection {
    pub(super) fn new(group: Arc<Group>, client: Client) -> Self {
        let members = group.members();
        let (primary, backup) = (members.set(false), members.has_backup().then(|| members.set(true)));
        let most = primary.peers.len().max(backup.map_or(0, |set| set.peers.len()));
        Self {
            course: Course::new(group.balance, &client),
            client,
            on_backup: false,
            tried: Tried::for_peers(most),
            current: None,
            tries: primary.tries + backup.map_or(0, |set| set.tries),
            attempt: Attempt::default(),
            lesson: None,
            members,
            group,
        }
    }

    /// Chooses the next peer. `now` is in milliseconds from any fixed point; like nginx most methods mind whole seconds
    /// only, so give it the wall clock to change seconds when nginx does.
    pub fn next(&mut self, now: u64) -> Result<Arc<Peer>, NoLive> {
        self.release(Outcome::Success, None);
        let session;
        let mut sid = &self.client.sticky[..];
        if let Some(sessions) = self.group.sticky.as_ref().and_then(|sticky| sticky.sessions()) {
            session = sessions.find(sid, now);
            sid = session.as_deref().unwrap_or_default();
        }
        let mut random = self.group.lock();
        let mut switched = false;
        loop {
            let set = self.members.set(self.on_backup);
            let mut pick = Pick {
                members: &self.members,
                set,
                backup: self.on_backup,
                tried: &mut self.tried,
                now,
                random: &mut random,
                key: &self.client.key,
                sid,
            };
            let found = match switched {
                false => self.course.pick(&mut pick),
                true => self.course.pick_backup(&mut pick),
            };
            if let Some(index) = found {
                let peer = Arc::clone(&set.peers[index]);
                peer.begin_request();
                self.group.count_pick(&peer, now);
                let inflight = self.group.balance.counts_inflight() && !set.single;
                if inflight {
                    peer.live().times.begin(now);
                }
                self.attempt = Attempt { began: now, header: None, inflight };
                self.current = Some(Arc::clone(&peer));
                return Ok(peer);
            }
            if self.on_backup || !self.members.has_backup() {
                return Err(NoLive);
            }
            (self.on_backup, switched) = (true, true);
            self.tried.clear();
        }
    }

    /// The head of the answer is here.
    pub fn answered(&mut self, now: u64) {
        self.attempt.header = Some(self.attempt.elapsed(now));
    }

    /// The answer is taken: what is learned from its head is learned now (`NGX_HTTP_UPSTREAM_NOTIFY_HEADER`).
    pub fn passed_on(&mut self, now: u64) {
        if self.lesson.as_ref().is_some_and(|lesson| lesson.at_once())
            && let (Some(lesson), Some(peer)) = (self.lesson.take(), &self.current)
        {
            lesson.learn(peer.sid(), now);
        }
        if self.group.balance.measures_header_at_once()
            && let (Some(peer), Some(header)) = (&self.current, self.attempt.header)
        {
            let _lock = self.group.lock();
            let times = &peer.live().times;
            average(&times.header, header);
            if std::mem::take(&mut self.attempt.inflight) {
                times.end(header, now);
            }
        }
    }

    /// What is to be learned if the present peer serves the request well.
    pub fn teach(&mut self, lesson: Option<Box<Lesson>>) {
        self.lesson = lesson;
    }

    /// Tells how it went with the current peer. Returns `true` where nginx logs the warning
    /// `upstream server temporarily disabled`.
    pub fn done(&mut self, outcome: Outcome, now: u64) -> bool {
        self.release(outcome, Some(now))
    }

    /// What `sticky` knows the request by.
    pub fn session(&self) -> &Bytes {
        &self.client.sticky
    }

    /// The peer that was handed out and is not done with.
    pub fn current(&self) -> Option<&Arc<Peer>> {
        self.current.as_ref()
    }

    /// The group it chooses from.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// How many tries are left (`peer.tries`): at first every peer that is not `down`, and one less with each
    /// `done`. nginx asks another peer while it is not 0.
    pub fn tries(&self) -> usize {
        self.tries
    }

    /// `proxy_next_upstream_tries`: at most this many tries from now on; 0 is no limit.
    pub fn limit_tries(&mut self, most: usize) {
        if most != 0 {
            self.tries = self.tries.min(most);
        }
    }

    /// A kept connection that died before its answer says nothing of the peer: nginx gives the try back.
    pub fn give_back_try(&mut self) {
        self.tries += 1;
    }

    /// Begins anew with whoever belongs to the group now: nobody could be chosen before.
    pub(super) fn restart(&mut self) {
        let tries = self.tries;
        *self = Self::new(Arc::clone(&self.group), self.client.clone());
        self.limit_tries(tries);
    }

    /// `ngx_http_upstream_free_round_robin_peer` and what methods put before it. Without a time, when a request was cut
    /// short.
    fn release(&mut self, outcome: Outcome, now: Option<u64>) -> bool {
        let Some(peer) = self.current.take() else { return false };
        let PeerSet { single, .. } = *self.members.set(self.on_backup);
        if let (Some(lesson), Some(now), Outcome::Success) = (self.lesson.take(), now, outcome) {
            lesson.learn(peer.sid(), now);
        }
        self.note_times(&peer, outcome, now);
        if single
            && outcome == Outcome::Failed
            && let (Some(now), Some(stats)) = (now, self.group.stats(&peer))
        {
            stats.blamed(now, None);
        }
        let mut taken_out = false;
        match now.filter(|_| outcome == Outcome::Failed && !single) {
            Some(now) => {
                let _lock = self.group.lock();
                taken_out = peer.fail(seconds(now));
                if let Some(stats) = self.group.stats(&peer) {
                    let until = (seconds(now) + peer.line.fail_timeout + 1).unsigned_abs() * 1000;
                    stats.blamed(now, taken_out.then_some(until));
                }
            }
            // The common case needs no lock: there is nothing to forgive.
            _ if peer.fails() == 0 => {}
            _ => {
                let _lock = self.group.lock();
                let live = peer.live();
                if single || live.accessed.get() < live.checked.get() {
                    let now = now.unwrap_or(live.checked.get().unsigned_abs() * 1000);
                    peer.forgive(now);
                    if let Some(stats) = self.group.stats(&peer) {
                        stats.forgiven(now);
                    }
                }
            }
        }
        peer.end_request();
        if let Some(queue) = &self.group.queue {
            queue.call_next();
        }
        self.tries = if single { 0 } else { self.tries.saturating_sub(1) };
        taken_out
    }

    /// `ngx_http_upstream_free_least_time_peer`: only answers that were taken say how fast a peer is.
    fn note_times(&mut self, peer: &Peer, outcome: Outcome, now: Option<u64>) {
        let balance = self.group.balance;
        if balance.measure().is_none() {
            return;
        }
        let attempt = std::mem::take(&mut self.attempt);
        // Cut short: as if it had ended with the head of its answer.
        let now = now.unwrap_or(attempt.began + attempt.header.unwrap_or(0).unsigned_abs());
        let response = attempt.elapsed(now);
        let _lock = self.group.lock();
        let times = &peer.live().times;
        if attempt.inflight {
            times.end(if outcome == Outcome::Success { response } else { -1 }, now);
        }
        if let (Outcome::Success, Some(header)) = (outcome, attempt.header) {
            average(&times.response, response);
            if !balance.measures_header_at_once() {
                average(&times.header, header);
            }
        }
    }
}

impl Attempt {
    fn elapsed(&self, now: u64) -> i64 {
        now.saturating_sub(self.began) as i64
    }
}

impl Drop for Selection {
    fn drop(&mut self) {
        self.release(Outcome::Success, None);
    }
}

fn seconds(now: u64) -> i64 {
    (now / 1000) as i64
}

/// Which peers of a set a request had: one bit each.
#[derive(Debug)]
pub(super) struct Tried(SmallVec<[u64; 1]>);

impl Tried {
    fn for_peers(count: usize) -> Self {
        Self(smallvec![0; count.div_ceil(64).max(1)])
    }

    pub(super) fn contains(&self, index: usize) -> bool {
        self.0[index / 64] & (1 << (index % 64)) != 0
    }

    pub(super) fn insert(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Balance::{IpHash, LeastConn, RoundRobin};
    use crate::upstream::group::tests::group;

    /// Starts a request at second `now`: the number of its peer (from 1) and its selection.
    fn start(group: &Arc<Group>, now: u64) -> (u32, Selection) {
        let mut selection = group.select(Client::default());
        (selection.next(now * 1000).unwrap().id + 1, selection)
    }

    /// The peers of this many requests under way at the same time.
    fn open(group: &Arc<Group>, count: usize) -> (Vec<u32>, Vec<Selection>) {
        (0..count).map(|_| start(group, 1000)).unzip()
    }

    #[test]
    fn a_lone_server_is_never_taken_out_and_gets_one_try() {
        for balance in [RoundRobin, LeastConn, IpHash] {
            let group = group(balance, &[1], |_| {});
            for _ in 0..3 {
                let (_, mut selection) = start(&group, 1000);
                assert_eq!(selection.tries(), 1);
                assert!(!selection.done(Outcome::Failed, 1_000_000), "{balance:?}");
                assert_eq!(selection.tries(), 0);
            }
        }
    }

    #[test]
    fn a_lone_server_that_is_down_or_full_is_not_asked() {
        let down = group(RoundRobin, &[1], |(_, line)| line.down = true);
        assert_eq!(down.select(Client::default()).next(0).unwrap_err(), NoLive);
        let full = group(RoundRobin, &[1], |(_, line)| line.max_conns = 1);
        let _first = start(&full, 0);
        assert_eq!(full.select(Client::default()).next(0).unwrap_err(), NoLive);
    }

    #[test]
    fn a_lone_server_with_a_backup_is_taken_out() {
        let group = group(RoundRobin, &[1, 1], |(number, line)| line.backup = number == 2);
        let (first, mut selection) = start(&group, 1000);
        assert_eq!((first, selection.tries()), (1, 2));
        assert!(selection.done(Outcome::Failed, 1_000_000));
        assert_eq!(selection.next(1_000_000).unwrap().id, 1);
        drop(selection);
        assert_eq!(start(&group, 1000).0, 2);
    }

    #[test]
    fn tries_count_peers_that_are_not_down_backups_included() {
        let group = group(RoundRobin, &[1; 5], |(number, line)| {
            line.down = number == 2 || number == 5;
            line.backup = number > 3;
        });
        let mut selection = group.select(Client::default());
        assert_eq!(selection.tries(), 3);
        selection.limit_tries(0);
        assert_eq!(selection.tries(), 3);
        selection.limit_tries(2);
        selection.next(0).unwrap();
        selection.done(Outcome::Next, 0);
        assert_eq!(selection.tries(), 1);
        selection.give_back_try();
        assert_eq!(selection.tries(), 2);
    }

    #[test]
    fn no_peer_is_asked_twice_by_one_request_even_among_many() {
        for balance in [RoundRobin, LeastConn, IpHash] {
            let group = group(balance, &[1; 130], |_| {});
            let mut selection = group.select(Client::default());
            let mut seen = Vec::new();
            while let Ok(peer) = selection.next(0) {
                seen.push(peer.id);
                selection.done(Outcome::Next, 0);
            }
            seen.sort_unstable();
            assert_eq!(seen, (0..130).collect::<Vec<_>>(), "{balance:?}");
        }
    }

    #[test]
    fn peers_at_max_conns_are_passed_over_and_come_back() {
        let group = group(RoundRobin, &[1; 3], |(number, line)| {
            line.max_conns = u32::from(number == 1);
        });
        let (peers, selections) = open(&group, 5);
        assert_eq!(peers, [1, 2, 3, 2, 3]);
        drop(selections);
        assert_eq!(open(&group, 4).0, [2, 3, 1, 2], "who was full gained nothing meanwhile");
    }

    #[test]
    fn backups_are_asked_when_all_primaries_are_full_and_nobody_when_they_are_too() {
        let group = group(RoundRobin, &[1; 3], |(number, line)| {
            line.max_conns = 1;
            line.backup = number == 3;
        });
        let (peers, _selections) = open(&group, 3);
        assert_eq!(peers, [1, 2, 3]);
        assert!(group.select(Client::default()).next(0).is_err());
    }

    #[test]
    fn least_conn_fills_by_weight_and_shares_ties_by_round_robin() {
        // Measured on a running nginx.
        for (weights, expected) in [
            (&[1, 1, 1][..], [1, 2, 3, 3, 2, 1, 1, 2, 3, 3, 2, 1]),
            (&[1, 3], [2, 1, 2, 2, 1, 2, 2, 2, 2, 1, 2, 2]),
            (&[2, 1, 4], [3, 1, 2, 3, 1, 3, 3, 3, 2, 1, 3, 1]),
        ] {
            assert_eq!(open(&group(LeastConn, weights, |_| {}), expected.len()).0, expected, "{weights:?}");
        }
    }

    #[test]
    fn least_conn_prefers_whoever_became_free() {
        let group = group(LeastConn, &[1; 3], |_| {});
        let (_, mut selections) = open(&group, 6);
        drop(selections.remove(1));
        assert_eq!(start(&group, 1000).0, 2);
    }

    #[test]
    fn a_dropped_request_releases_its_peer_and_counts_as_no_failure() {
        let group = group(RoundRobin, &[1, 1], |_| {});
        let (_, selection) = start(&group, 1000);
        assert_eq!(group.peers().next().unwrap().active(), 1);
        drop(selection);
        let first = group.peers().next().unwrap();
        assert_eq!((first.active(), first.fails()), (0, 0));
    }

    #[test]
    fn done_twice_counts_once() {
        let group = group(RoundRobin, &[1, 1], |_| {});
        let (_, mut selection) = start(&group, 1000);
        assert!(selection.done(Outcome::Failed, 1_000_000));
        assert!(!selection.done(Outcome::Failed, 1_000_000));
        assert_eq!(selection.tries(), 1);
        assert_eq!(group.peers().map(|peer| (peer.active(), peer.fails())).collect::<Vec<_>>(), [(0, 1), (0, 0)]);
    }

    #[test]
    fn failures_add_up_over_requests_and_a_later_success_forgives_them() {
        let group = group(RoundRobin, &[1, 1], |(_, line)| line.max_fails = 3);
        let fail_first = |now: u64| loop {
            let (peer, mut selection) = start(&group, now);
            if peer == 1 {
                return selection.done(Outcome::Failed, now * 1000);
            }
        };
        assert_eq!([1000, 1005, 1010].map(fail_first), [false, false, true]);
        assert!((0..4).all(|_| start(&group, 1020).0 == 2), "out for ten seconds");
        // At 1021 it is probed once; while the probe is under way nobody else goes there.
        let probes: Vec<_> = (0..4).map(|_| start(&group, 1021)).collect();
        assert_eq!(probes.iter().filter(|(peer, _)| *peer == 1).count(), 1);
        drop(probes);
        assert_eq!(group.peers().next().unwrap().fails(), 0);
    }

    #[test]
    fn a_success_before_fail_timeout_is_over_forgives_nothing() {
        let group = group(RoundRobin, &[1, 1], |(_, line)| line.max_fails = 2);
        let (_, mut selection) = start(&group, 1000);
        selection.done(Outcome::Failed, 1_000_000);
        (0..4).for_each(|_| drop(start(&group, 1010)));
        assert_eq!(group.peers().next().unwrap().fails(), 1);
        (0..4).for_each(|_| drop(start(&group, 1011)));
        assert_eq!(group.peers().next().unwrap().fails(), 0);
    }

    #[test]
    fn a_peer_with_max_fails_zero_is_never_taken_out() {
        let group = group(RoundRobin, &[1, 1], |(_, line)| line.max_fails = 0);
        for expected in [1, 2, 1, 2] {
            let (peer, mut selection) = start(&group, 1000);
            assert_eq!(peer, expected);
            assert!(!selection.done(Outcome::Failed, 1_000_000));
        }
    }
}
