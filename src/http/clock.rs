//! The time, as a serving thread sees it.

use super::dates;
use crate::process::turn;
use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant, SystemTime},
};

/// The time, as of its last update, and its spellings, which are made once a second. As in nginx, what happens between
/// two updates happens at once.
#[derive(Debug)]
pub struct Clock {
    /// Wall time since the epoch at `started`.
    epoch: Cell<Duration>,
    started: Cell<Instant>,
    now: Cell<Instant>,
    /// Wall time since the epoch at `now`.
    wall: Cell<Duration>,
    spelled: RefCell<Spelled>,
}

impl Default for Clock {
    fn default() -> Self {
        let now = Instant::now();
        let wall = wall();
        Self {
            epoch: Cell::new(wall),
            started: Cell::new(now),
            now: Cell::new(now),
            wall: Cell::new(wall),
            spelled: RefCell::default(),
        }
    }
}

/// The wall time since the epoch, for those who have no [`Clock`].
pub fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// The same in milliseconds.
pub fn wall_millis() -> u64 {
    millis(wall())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug, Default)]
struct Spelled {
    second: u64,
    date: Vec<u8>,
    log_time: Vec<u8>,
    iso8601: Vec<u8>,
}

impl Clock {
    /// Looks at the clock: when a request arrives, when an upstream answers, when a request ends.
    pub fn update(&self) {
        let now = turn::now();
        if self.now.replace(now) != now {
            self.wall.set(self.epoch.get() + now.saturating_duration_since(self.started.get()));
        }
    }

    /// Follows the wall clock, which may have been set.
    pub fn follow(&self) {
        let (now, wall) = (Instant::now(), wall());
        self.now.set(now);
        self.started.set(now);
        self.epoch.set(wall);
        self.wall.set(wall);
    }

    /// The time for measuring.
    pub fn instant(&self) -> Instant {
        self.now.get()
    }

    /// Milliseconds from a moment until now.
    pub fn millis_since(&self, moment: Instant) -> u64 {
        millis(self.now.get().saturating_duration_since(moment))
    }

    /// Since the epoch.
    pub fn now(&self) -> Duration {
        self.wall.get()
    }

    /// Seconds since the epoch, as nginx compares them.
    pub fn unix(&self) -> i64 {
        i64::try_from(self.now().as_secs()).unwrap_or(i64::MAX)
    }

    /// Milliseconds since the epoch.
    pub fn millis(&self) -> u64 {
        millis(self.now())
    }

    /// Appends the `Date` field.
    pub fn write_date(&self, out: &mut Vec<u8>) {
        self.spelled(|spelled| out.extend_from_slice(&spelled.date));
    }

    /// `$time_local`.
    pub fn log_time(&self) -> Vec<u8> {
        self.spelled(|spelled| spelled.log_time.clone())
    }

    /// `$time_iso8601`.
    pub fn iso8601(&self) -> Vec<u8> {
        self.spelled(|spelled| spelled.iso8601.clone())
    }

    fn spelled<T>(&self, look: impl FnOnce(&Spelled) -> T) -> T {
        let second = self.now().as_secs();
        let mut spelled = self.spelled.borrow_mut();
        if spelled.second != second {
            let unix = i64::try_from(second).unwrap_or(i64::MAX);
            let offset = dates::local_offset(unix);
            *spelled = Spelled {
                second,
                date: [b"Date: ", &dates::http_date(unix)[..], b"\r\n"].concat(),
                log_time: dates::log_time(unix, offset).into(),
                iso8601: dates::iso8601(unix, offset).into(),
            };
        }
        look(&spelled)
    }
}
