//! `keepalive_timeout` and `keepalive_disable`.

use crate::{
    config::{
        Args, FromArgs,
        values::{Choices, parse_time},
    },
    syntax::Fault,
};
use std::{ops::RangeInclusive, time::Duration};

/// How long an idle connection is kept, and what the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepaliveTimeout {
    /// Zero: connections are not kept.
    pub timeout: Duration,
    /// Seconds for the `Keep-Alive: timeout=` field.
    pub header: Option<u64>,
}

impl Default for KeepaliveTimeout {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(75), header: None }
    }
}

impl FromArgs for KeepaliveTimeout {
    const TAKES: RangeInclusive<usize> = 1..=2;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let timeout = parse_time(&args.word(0).value, true);
        let timeout = timeout.ok_or_else(|| args.directive(args.word(0), "invalid value"))?;
        let header = match args.words().get(1) {
            Some(word) => Some(parse_time(&word.value, false).ok_or_else(|| args.directive(word, "invalid value"))?),
            None => None,
        };
        Ok(Self { timeout: Duration::from_millis(timeout), header })
    }
}

/// `keepalive_disable`: browsers whose connections are never kept.
pub struct Browsers;

impl Browsers {
    pub const MSIE6: u32 = 2;
    pub const SAFARI: u32 = 4;
}

impl Choices for Browsers {
    const CHOICES: &'static [(&'static str, u32)] = &[("none", 1), ("msie6", Self::MSIE6), ("safari", Self::SAFARI)];
    const DEFAULT: u32 = Self::MSIE6;
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{conf, fault};

    #[test]
    fn the_second_value_is_for_the_client() {
        let core = conf("keepalive_timeout 65 20;").core.clone();
        assert_eq!((core.keepalive_timeout.timeout.as_secs(), core.keepalive_timeout.header), (65, Some(20)));
    }

    #[test]
    fn a_wrong_time_is_refused() {
        assert_eq!(fault("keepalive_timeout soon;"), "\"keepalive_timeout\" directive invalid value");
    }
}
