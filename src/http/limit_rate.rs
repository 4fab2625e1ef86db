//! `limit_rate` and `limit_rate_after`: how fast an answer is sent.

use super::{exchange::Exchange, heads::Pace};
use crate::config::values::{parse_offset, parse_size};

/// The rate of this request in bytes a second; 0 is unlimited.
pub fn rate(exchange: &Exchange) -> u64 {
    if let Some(rate) = exchange.state.core.limit_rate {
        return rate;
    }
    let Some(rate) = &exchange.location.settings.core.limit_rate else { return 0 };
    parse_size(&rate.evaluate(exchange)).map_or(0, |rate| rate as u64)
}

/// What an answer is kept to; `None` where the request is not limited.
pub fn pace(exchange: &Exchange) -> Option<Box<Pace>> {
    let rate = rate(exchange);
    if rate == 0 {
        return None;
    }
    let after = exchange.location.settings.core.limit_rate_after.as_ref();
    let after = after.and_then(|after| parse_offset(&after.evaluate(exchange))).unwrap_or(0);
    Some(Box::new(Pace::new(rate, after, exchange.started.into())))
}
