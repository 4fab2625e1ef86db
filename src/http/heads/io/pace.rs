//! A rate that what is written to a connection is kept to.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// Keeps an answer, its head included, to a rate (`ngx_http_write_filter`).
pub struct Pace {
    /// Bytes a second.
    rate: u64,
    /// The first so many bytes are free.
    after: u64,
    sent: u64,
    /// When the request began: its whole seconds count.
    started: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// So many bytes a second, which is not 0, behind the first ones (`limit_rate`, `limit_rate_after`).
    pub fn new(rate: u64, after: u64, started: Instant) -> Self {
        Self { rate, after, sent: 0, started, sleep: None }
    }

    /// How many bytes may be written now; ready when some may.
    pub(super) fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            match self.allowed(self.started.elapsed().as_secs()) {
                Ok(allowed) => return Poll::Ready(allowed),
                Err(wait) => self.sleep = Some(Box::pin(tokio::time::sleep(wait))),
            }
        }
    }

    /// So many were.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.sleep = Some(Box::pin(tokio::time::sleep(self.rest(bytes))));
    }

    /// How many bytes may be sent, so many whole seconds after the request began: what the seconds begun so far hold.
    /// Or how long none may.
    fn allowed(&self, seconds: u64) -> Result<u64, Duration> {
        let total = self.rate.saturating_mul(seconds + 1).saturating_add(self.after);
        match total.checked_sub(self.sent) {
            Some(allowed @ 1..) => Ok(allowed),
            _ => Err(self.time(self.sent - total) + Duration::from_millis(1)),
        }
    }

    /// Counts what is sent; for how long nothing may follow.
    fn rest(&mut self, bytes: u64) -> Duration {
        self.sent += bytes;
        self.time(bytes.min(self.sent.saturating_sub(self.after)))
    }

    fn time(&self, bytes: u64) -> Duration {
        Duration::from_millis(bytes.saturating_mul(1000) / self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_allows_the_rate_and_the_first_bytes_are_free() {
        let mut pace = Pace { sent: 100, ..Pace::new(1000, 300, Instant::now()) };
        assert_eq!(pace.allowed(0), Ok(1200));
        assert_eq!(pace.rest(150), Duration::ZERO);
        assert_eq!(pace.rest(550), Duration::from_millis(500));
        assert_eq!(pace.allowed(0), Ok(500));
        assert_eq!(pace.rest(700), Duration::from_millis(700));
        assert_eq!(pace.allowed(0), Err(Duration::from_millis(201)));
        assert_eq!(pace.allowed(1), Ok(800));
    }
}
