//! `limit_rate` and `limit_rate_after`: how fast an answer is sent.

use super::{
    body::{Body, BodyError},
    exchange::Exchange,
};
use crate::config::values::{parse_offset, parse_size};
use bytes::Bytes;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep};

/// The rate of this request in bytes a second; 0 is unlimited.
pub fn rate(exchange: &Exchange) -> u64 {
    if let Some(rate) = exchange.state.core.limit_rate {
        return rate;
    }
    let Some(rate) = &exchange.location.settings.core.limit_rate else { return 0 };
    parse_size(&rate.evaluate(exchange)).map_or(0, |rate| rate as u64)
}

/// Keeps an answer to a rate (`ngx_http_write_filter`).
pub struct Pace {
    rate: u64,
    after: u64,
    /// With the head.
    sent: u64,
    started: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
    /// What came before its time.
    held: Bytes,
}

impl Pace {
    /// `None` where the request is not limited. Its head counts as sent.
    pub fn of(exchange: &Exchange) -> Option<Self> {
        let rate = rate(exchange);
        if rate == 0 {
            return None;
        }
        let after = exchange.location.settings.core.limit_rate_after.as_ref();
        let after = after.and_then(|after| parse_offset(&after.evaluate(exchange))).unwrap_or(0);
        let started = exchange.started.into();
        Some(Self { rate, after, sent: exchange.sent.head, started, sleep: None, held: Bytes::new() })
    }

    /// The next piece of `body` that may be sent, or its end.
    pub fn poll_next(&mut self, body: &mut Body, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if self.held.is_empty() {
            match ready!(body.poll_next(cx)) {
                Some(Ok(piece)) if !piece.is_empty() => self.held = piece,
                other => return Poll::Ready(other),
            }
        }
        let allowed = loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            match self.allowed(self.started.elapsed().as_secs()) {
                Ok(allowed) => break allowed,
                Err(wait) => self.sleep = Some(Box::pin(tokio::time::sleep(wait))),
            }
        };
        let piece = self.held.split_to(usize::try_from(allowed).unwrap_or(usize::MAX).min(self.held.len()));
        let wait = self.spend(piece.len() as u64);
        self.sleep = Some(Box::pin(tokio::time::sleep(wait)));
        Poll::Ready(Some(Ok(piece)))
    }

    /// Whether something that came still waits.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
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
    fn spend(&mut self, bytes: u64) -> Duration {
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
        let started = Instant::now();
        let mut pace = Pace { rate: 1000, after: 300, sent: 100, started, sleep: None, held: Bytes::new() };
        assert_eq!(pace.allowed(0), Ok(1200));
        assert_eq!(pace.spend(150), Duration::ZERO);
        assert_eq!(pace.spend(550), Duration::from_millis(500));
        assert_eq!(pace.allowed(0), Ok(500));
        assert_eq!(pace.spend(700), Duration::from_millis(700));
        assert_eq!(pace.allowed(0), Err(Duration::from_millis(201)));
        assert_eq!(pace.allowed(1), Ok(800));
    }
}
