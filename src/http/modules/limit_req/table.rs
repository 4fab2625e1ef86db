//! The counts of one zone: a leaky bucket for each key, in bounded memory (`ngx_http_limit_req_lookup`).

use crate::{http::limit_zone::Counts, lock, recent::Recent};
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

/// What one limit says of a request; excess in thousandths of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// It is booked, with this excess.
    Taken(u64),
    /// It may pass, if the limits that follow let it: to be booked or released.
    Noted,
    /// More than the burst.
    Over(u64),
    /// There is no room for the key.
    Full,
}

/// A zone's counts, shared by all threads.
#[derive(Debug)]
pub(super) struct Table {
    began: Instant,
    /// Bytes that keys may take.
    size: usize,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    all: Recent<Arc<[u8]>, Bucket>,
    bytes: usize,
}

#[derive(Debug)]
struct Bucket {
    /// Milliseconds since the table began.
    last: u64,
    excess: u64,
    /// Requests that are noted and neither booked nor released.
    noted: u32,
}

impl Counts for Table {
    fn sized(size: usize) -> Self {
        Self { began: Instant::now(), size, buckets: Mutex::default() }
    }
}

impl Table {
    /// Judges one request of a key, and books it if `last` says that no other limit follows.
    pub(super) fn judge(&self, key: &[u8], rate: u64, burst: u64, last: bool) -> Judged {
        let now = self.now();
        self.lock().judge(key, rate, burst, last, now, self.size)
    }

    /// Books a request that was noted; its excess.
    pub(super) fn book(&self, key: &[u8], rate: u64) -> u64 {
        let now = self.now();
        let mut buckets = self.lock();
        let Some(bucket) = buckets.all.get_mut(key) else { return 0 };
        bucket.noted = bucket.noted.saturating_sub(1);
        bucket.excess = bucket.excess_at(now, rate);
        bucket.last = bucket.last.max(now);
        bucket.excess
    }

    /// Forgets a request that was noted.
    pub(super) fn release(&self, key: &[u8]) {
        if let Some(bucket) = self.lock().all.get_mut(key) {
            bucket.noted = bucket.noted.saturating_sub(1);
        }
    }

    /// Milliseconds; never 0, which stands for long ago.
    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64 + LONG
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        lock(&self.buckets)
    }
}

/// After this many milliseconds an empty bucket may be forgotten.
const LONG: u64 = 60_000;

impl Bucket {
    /// What a request at this time makes of the bucket.
    fn excess_at(&self, now: u64, rate: u64) -> u64 {
        let leaked = rate.saturating_mul(now.saturating_sub(self.last)) / 1000;
        (self.excess + 1000).saturating_sub(leaked)
    }
}

impl Buckets {
    fn judge(&mut self, key: &[u8], rate: u64, burst: u64, last: bool, now: u64, size: usize) -> Judged {
        if let Some(bucket) = self.all.touch(key) {
            let excess = bucket.excess_at(now, rate);
            if excess > burst {
                return Judged::Over(excess);
            }
            if !last {
                bucket.noted += 1;
                return Judged::Noted;
            }
            bucket.excess = excess;
            bucket.last = bucket.last.max(now);
            return Judged::Taken(excess);
        }
        self.expire(now, rate, false);
        if self.bytes + cost(key) > size {
            self.expire(now, rate, true);
            if self.bytes + cost(key) > size {
                return Judged::Full;
            }
        }
        self.bytes += cost(key);
        let bucket = Bucket { last: if last { now } else { 0 }, excess: 0, noted: u32::from(!last) };
        self.all.insert(key.into(), bucket);
        if last { Judged::Taken(0) } else { Judged::Noted }
    }

    /// Forgets up to two empty buckets that were not used for long; by force the oldest, whatever it holds
    /// (`ngx_http_limit_req_expire`).
    fn expire(&mut self, now: u64, rate: u64, mut force: bool) {
        for _ in 0..if force { 3 } else { 2 } {
            let Some((key, bucket)) = self.all.oldest().next() else { return };
            let idle = now.saturating_sub(bucket.last);
            let full = bucket.excess > rate.saturating_mul(idle) / 1000;
            if bucket.noted > 0 || !force && (idle < LONG || full) {
                return;
            }
            force = false;
            self.bytes = self.bytes.saturating_sub(cost(key));
            let key = Arc::clone(key);
            self.all.remove(&key);
        }
    }
}

/// The bytes a key takes in nginx's zone: its node, in the slab of the next power of two.
fn cost(key: &[u8]) -> usize {
    (80 + key.len()).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_leaks_at_its_rate_and_takes_a_burst() {
        let mut buckets = Buckets::default();
        let mut at = |now, burst| buckets.judge(b"k", 2000, burst, true, LONG + now, 1 << 20);
        assert_eq!(at(0, 0), Judged::Taken(0));
        assert_eq!(at(0, 0), Judged::Over(1000));
        assert_eq!(at(499, 0), Judged::Over(2));
        assert_eq!(at(499, 1000), Judged::Taken(2));
        assert_eq!(at(1500, 0), Judged::Taken(0));
    }

    #[test]
    fn what_is_noted_counts_only_once_it_is_booked() {
        let table = Table::sized(1 << 20);
        assert_eq!(table.judge(b"k", 1, 0, false), Judged::Noted);
        assert_eq!(table.judge(b"k", 1, 1000, false), Judged::Noted);
        table.release(b"k");
        assert!(table.book(b"k", 1) > 0);
        assert!(matches!(table.judge(b"k", 1, 0, true), Judged::Over(_)));
    }

    #[test]
    fn the_oldest_key_makes_room() {
        let mut buckets = Buckets::default();
        for key in [b"a", b"b", b"c"] {
            assert_eq!(buckets.judge(key, 1, 9000, true, LONG, 256), Judged::Taken(0));
        }
        assert_eq!(buckets.judge(b"c", 1, 9000, true, LONG, 256), Judged::Taken(1000));
        assert_eq!(buckets.judge(b"a", 1, 9000, true, LONG, 256), Judged::Taken(0));
    }
}
