//! Numbers that requests count and that whoever asks may read at any time: plain ones, by status, and by how long
//! something took. Nobody waits for anybody; what is read at once need not belong together to the last request.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A number. Where `SHARED`, any thread adds to it; else one thread does, and no bus need be locked for it.
#[derive(Debug, Default)]
pub struct Counter<const SHARED: bool>(AtomicU64);

impl<const SHARED: bool> Counter<SHARED> {
    /// So many more.
    pub fn add(&self, n: u64) {
        if SHARED {
            self.0.fetch_add(n, Relaxed);
        } else {
            self.0.store(self.get().wrapping_add(n), Relaxed);
        }
    }

    /// One more.
    pub fn up(&self) {
        self.add(1);
    }

    /// One less.
    pub fn down(&self) {
        self.add(u64::MAX);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Begins anew.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// How many statuses are told apart; what comes beyond is counted by its class alone.
const SLOTS: usize = 24;

/// Answers, by status.
#[derive(Debug, Default)]
pub struct Codes<const SHARED: bool> {
    slots: [(AtomicU32, Counter<SHARED>); SLOTS],
    /// Those without a slot, by class.
    others: [Counter<SHARED>; 5],
}

impl<const SHARED: bool> Codes<SHARED> {
    /// One more answer with this status.
    pub fn up(&self, status: u16) {
        let status = u32::from(status);
        for (code, count) in &self.slots {
            let known = code.load(Relaxed);
            let claimed = || match code.compare_exchange(0, status, Relaxed, Relaxed) {
                Ok(_) => true,
                Err(other) => other == status,
            };
            if known == status || known == 0 && claimed() {
                count.up();
                return;
            }
        }
        self.others[class(status)].up();
    }

    /// What was counted so far.
    pub fn read(&self) -> Responses {
        let mut read = Responses::default();
        for (code, count) in &self.slots {
            let (code, count) = (code.load(Relaxed), count.get());
            if code != 0 && count != 0 {
                read.classes[class(code)] += count;
                *read.codes.entry(u16::try_from(code).unwrap_or(0)).or_default() += count;
            }
        }
        for (sum, other) in read.classes.iter_mut().zip(&self.others) {
            *sum += other.get();
        }
        read
    }

    /// Begins anew.
    pub fn reset(&self) {
        self.slots.iter().for_each(|(_, count)| count.reset());
        self.others.iter().for_each(Counter::reset);
    }
}

/// The classes of statuses, as the API and metrics name them.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

fn class(status: u32) -> usize {
    (status / 100).clamp(1, 5) as usize - 1
}

/// Answers that were counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Responses {
    /// By [`CLASSES`].
    pub classes: [u64; 5],
    /// By status; the rarest may be missing where there were many.
    pub codes: BTreeMap<u16, u64>,
}

impl Responses {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Adds what was counted elsewhere.
    pub fn join(&mut self, other: &Self) {
        self.classes.iter_mut().zip(other.classes).for_each(|(sum, n)| *sum += n);
        other.codes.iter().for_each(|(code, n)| *self.codes.entry(*code).or_default() += n);
    }

    /// Without what was counted before.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        self.classes.iter_mut().zip(before.classes).for_each(|(n, before)| *n = n.saturating_sub(before));
        for (code, n) in &mut self.codes {
            *n = n.saturating_sub(before.codes.get(code).copied().unwrap_or(0));
        }
        self.codes.retain(|_, n| *n > 0);
        self
    }
}

/// The upper ends of the steps of a [`Histogram`], in microseconds; one step more has none.
pub const BOUNDS: [u64; 17] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 250_000, 500_000, 750_000, 1_000_000, 2_500_000,
    5_000_000, 7_500_000, 10_000_000,
];

/// How long something took, by steps.
#[derive(Debug, Default)]
pub struct Histogram<const SHARED: bool> {
    steps: [Counter<SHARED>; BOUNDS.len() + 1],
    micros: Counter<SHARED>,
}

impl<const SHARED: bool> Histogram<SHARED> {
    /// It took so long once more.
    pub fn up(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let step = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        self.steps[step].up();
        self.micros.add(micros);
    }

    /// What was counted so far.
    pub fn read(&self) -> Spread {
        let mut read = Spread { steps: [0; BOUNDS.len() + 1], micros: self.micros.get() };
        read.steps.iter_mut().zip(&self.steps).for_each(|(n, step)| *n = step.get());
        read
    }

    /// Begins anew.
    pub fn reset(&self) {
        self.steps.iter().for_each(Counter::reset);
        self.micros.reset();
    }
}

/// What a [`Histogram`] has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// How often it took no longer than the bound of the same place, and longer than that before it.
    pub steps: [u64; BOUNDS.len() + 1],
    /// All of it together, in microseconds.
    pub micros: u64,
}

impl Spread {
    /// How often.
    pub fn count(&self) -> u64 {
        self.steps.iter().sum()
    }

    /// Adds what was counted elsewhere.
    pub fn join(&mut self, other: &Self) {
        self.steps.iter_mut().zip(other.steps).for_each(|(sum, n)| *sum += n);
        self.micros += other.micros;
    }

    /// Without what was counted before.
    #[must_use]
    pub fn since(mut self, before: &Self) -> Self {
        self.steps.iter_mut().zip(before.steps).for_each(|(n, before)| *n = n.saturating_sub(before));
        self.micros = self.micros.saturating_sub(before.micros);
        self
    }

    /// The upper end of each step in microseconds (none for the last), and how often it took no longer.
    pub fn cumulative(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let mut sum = 0;
        let bounds = BOUNDS.into_iter().map(Some).chain([None]);
        bounds.zip(self.steps).map(move |(bound, n)| {
            sum += n;
            (bound, sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_status_and_class() {
        let codes = Codes::<true>::default();
        for status in [200, 404, 200, 503, 99, 600, 101] {
            codes.up(status);
        }
        let read = codes.read();
        assert_eq!(read.classes, [2, 2, 0, 1, 2]);
        assert_eq!(
            read.codes.into_iter().collect::<Vec<_>>(),
            [(99, 1), (101, 1), (200, 2), (404, 1), (503, 1), (600, 1)]
        );
    }

    #[test]
    fn more_statuses_than_there_are_slots_are_counted_by_class() {
        let codes = Codes::<false>::default();
        (200..300).for_each(|status| codes.up(status));
        assert_eq!((codes.read().total(), codes.read().codes.len()), (100, SLOTS));
        codes.reset();
        assert_eq!(codes.read(), Responses::default());
    }

    #[test]
    fn many_threads_count_the_same_status_in_one_place() {
        let codes = Codes::<true>::default();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|n| codes.up(200 + n % 4)));
            }
        });
        let read = codes.read();
        assert_eq!(read.codes.into_values().collect::<Vec<_>>(), [2000; 4]);
    }

    #[test]
    fn what_took_as_long_as_a_bound_is_below_it() {
        let histogram = Histogram::<false>::default();
        for micros in [0, 500, 501, 10_000_000, 10_000_001] {
            histogram.up(Duration::from_micros(micros));
        }
        let read = histogram.read();
        assert_eq!((read.steps[0], read.steps[1], read.steps[16], read.steps[17]), (2, 1, 1, 1));
        assert_eq!((read.count(), read.micros), (5, 20_001_002));
        let cumulative: Vec<_> = read.cumulative().collect();
        assert_eq!((cumulative[1], cumulative[17]), ((Some(1000), 3), (None, 5)));
    }

    #[test]
    fn what_was_counted_before_can_be_left_out() {
        let codes = Codes::<false>::default();
        codes.up(200);
        let before = codes.read();
        codes.up(200);
        codes.up(500);
        assert_eq!(codes.read().since(&before).codes.into_iter().collect::<Vec<_>>(), [(200, 1), (500, 1)]);
    }
}
