//! `auth_delay`: lets who comes without the right password wait for an answer.

use super::Room;
use crate::{
    config::{Directive, LEVELS, Module, values::Msec},
    http::exchange::Exchange,
    observe::error_log::Level,
};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Conf {
    pub delay: Msec,
}

impl Default for Conf {
    fn default() -> Self {
        Self { delay: Msec(Duration::ZERO) }
    }
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[Directive::new("auth_delay", LEVELS, |conf| &mut conf.delay)];
}

impl Room for Conf {
    type State = ();
}

/// Waits before the status 401, or 407, is answered (`ngx_http_core_auth_delay`).
pub async fn wait(exchange: &Exchange) {
    let delay = exchange.location.settings.auth_delay.delay.0;
    if !delay.is_zero() {
        exchange.log(Level::Info, "delaying unauthorized request");
        tokio::time::sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::conf;

    #[test]
    fn the_delay_is_a_time() {
        assert_eq!(conf("auth_delay 1s500ms;").auth_delay.delay.0.as_millis(), 1500);
    }
}
