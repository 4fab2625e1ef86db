//! The time at which a serving thread last woke.
//!
//! nginx looks at the clock once for everything that one `epoll_wait` brought. So do the threads that [`note`] their
//! waking; others look each time.

use std::{cell::Cell, time::Instant};

/// How often the time of one waking is good enough: a thread that never sleeps looks again after so many questions.
const LOOKS: u8 = 32;

thread_local! {
    static WOKE: Cell<Option<Instant>> = const { Cell::new(None) };
    static LEFT: Cell<u8> = const { Cell::new(0) };
}

/// This thread has just woken.
pub(super) fn note() {
    WOKE.set(Some(Instant::now()));
    LEFT.set(LOOKS);
}

/// The time, as of this thread's last waking.
pub fn now() -> Instant {
    let left = LEFT.get();
    if left == 0 && WOKE.get().is_some() {
        note();
    }
    LEFT.set(LEFT.get().saturating_sub(1));
    WOKE.get().unwrap_or_else(Instant::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a thread of its own sees.
    fn seen(look: impl FnOnce() -> bool + Send + 'static) -> bool {
        std::thread::spawn(look).join().unwrap()
    }

    #[test]
    fn a_thread_that_notes_its_waking_has_one_time_until_it_sleeps_again() {
        assert!(seen(|| {
            note();
            let first = now();
            while Instant::now() == first {}
            (1..LOOKS).all(|_| now() == first)
        }));
    }

    #[test]
    fn a_thread_that_never_sleeps_looks_again() {
        assert!(seen(|| {
            note();
            let first = now();
            while Instant::now() == first {}
            (0..=LOOKS).any(|_| now() > first)
        }));
    }

    #[test]
    fn any_other_thread_looks_each_time() {
        assert!(seen(|| {
            let first = now();
            while Instant::now() == first {}
            now() > first
        }));
    }
}
