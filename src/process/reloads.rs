//! How reloads went, as far as a worker knows: its own, and those that the master refused and told it of.

use std::{
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// What came of the reloads since the worker started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    /// Configurations that were taken, the first one not counted.
    pub succeeded: u64,
    /// Those that were not.
    pub failed: u64,
    /// When the configuration in force was taken.
    pub loaded: Option<SystemTime>,
    /// When somebody last tried, and why it failed if it did.
    pub last: Option<(SystemTime, Option<String>)>,
}

static RELOADS: Mutex<Reloads> = Mutex::new(Reloads { succeeded: 0, failed: 0, loaded: None, last: None });

/// What is known by now.
pub fn told() -> Reloads {
    RELOADS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The first configuration is taken.
pub(super) fn began() {
    change(|reloads, now| reloads.loaded = Some(now));
}

/// Another one is.
pub(super) fn succeeded() {
    change(|reloads, now| {
        reloads.succeeded += 1;
        reloads.loaded = Some(now);
        reloads.last = Some((now, None));
    });
}

/// It is not, for a reason.
pub(super) fn failed(why: &[u8]) {
    change(|reloads, now| {
        reloads.failed += 1;
        reloads.last = Some((now, Some(String::from_utf8_lossy(why).trim_end().to_owned())));
    });
}

fn change(change: impl FnOnce(&mut Reloads, SystemTime)) {
    change(&mut RELOADS.lock().unwrap_or_else(PoisonError::into_inner), SystemTime::now());
}
