//! `limit_rate` and `limit_rate_after`: how fast an answer is sent.

use super::exchange::Exchange;
use crate::config::values::{parse_offset, parse_size};
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

/// Keeps a body to a rate.
pub struct Pace {
    rate: u64,
    after: u64,
    sent: u64,
    started: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// `None` where the request is not limited.
    pub fn of(exchange: &Exchange) -> Option<Self> {
        let rate = rate(exchange);
        if rate == 0 {
            return None;
        }
        let after = exchange.location.settings.core.limit_rate_after.as_ref();
        let after = after.and_then(|after| parse_offset(&after.evaluate(exchange))).unwrap_or(0);
        Some(Self { rate, after, sent: 0, started: Instant::now(), sleep: None })
    }

    /// Ready when more may be sent.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        Poll::Ready(())
    }

    /// Counts what was sent and sets the time before which no more may be.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        let counted = self.sent.saturating_sub(self.after);
        let due = self.started + Duration::from_millis(counted.saturating_mul(1000) / self.rate);
        if due > Instant::now() {
            self.sleep = Some(Box::pin(tokio::time::sleep_until(due)));
        }
    }
}
