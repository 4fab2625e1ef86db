//! A time limit that is moved with every request and hardly ever reached.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::{Instant, Sleep};

/// A timer that is armed late: moving it further away costs nothing until it fires for the old time.
#[derive(Default)]
pub struct Deadline {
    timer: Option<Armed>,
}

struct Armed {
    sleep: Pin<Box<Sleep>>,
    at: Instant,
}

impl Deadline {
    /// Ready at `at`, which may be another time with every call.
    pub fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        let armed = self.timer.get_or_insert_with(|| Armed { sleep: Box::pin(tokio::time::sleep_until(at)), at });
        if at < armed.at {
            armed.move_to(at);
        }
        ready!(armed.sleep.as_mut().poll(cx));
        while at > armed.at {
            armed.move_to(at);
            ready!(armed.sleep.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

impl Armed {
    fn move_to(&mut self, at: Instant) {
        self.sleep.as_mut().reset(at);
        self.at = at;
    }
}
