//! `set`, `if`, `rewrite`, `return`, `break`: changing a request before anybody answers it, or answering at once.

mod condition;
mod engine;
mod script;
#[cfg(test)]
mod tests;

pub use condition::{Condition, FileTest};
pub use engine::uninitialized;
pub use script::{Code, Codes, Return, Rewrite, Script, Set, Target};

use super::Room;
use crate::{
    config::{Contexts, Directive, HTTP, IF_IN_LOCATION, IF_IN_SERVER, LOCATION, Module, REWRITE, SERVER},
    http::{
        exchange::Exchange,
        phase::{Break, Phase},
    },
    observe::error_log::Level,
};
use std::{ops::ControlFlow, sync::Arc};

#[derive(Clone, Debug)]
pub struct Conf {
    /// What this level does to a request, in order; no level inherits it.
    pub script: Script,
    pub rewrite_log: bool,
    pub uninitialized_variable_warn: bool,
}

impl Default for Conf {
    fn default() -> Self {
        Self { script: Script::default(), rewrite_log: false, uninitialized_variable_warn: true }
    }
}

/// Where `rewrite_log` and `uninitialized_variable_warn` stand.
const SWITCHES: Contexts = HTTP.or(SERVER).or(IF_IN_SERVER).or(LOCATION).or(IF_IN_LOCATION);

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("rewrite", REWRITE, |conf| &mut conf.script.codes),
        Directive::new("return", REWRITE, |conf| &mut conf.script.codes),
        Directive::new("break", REWRITE, |conf| &mut conf.script.codes),
        Directive::new("if", SERVER.or(LOCATION), |conf| &mut conf.script),
        Directive::new("set", REWRITE, |conf| &mut conf.script.codes),
        Directive::new("rewrite_log", SWITCHES, |conf| &mut conf.rewrite_log),
        Directive::new("uninitialized_variable_warn", SWITCHES, |conf| &mut conf.uninitialized_variable_warn),
    ];

    fn enter(this: &mut Arc<Self>, _level: Contexts) {
        if !this.script.codes.is_empty() {
            *this = Arc::new(Self { script: Script::default(), ..**this });
        }
    }
}

impl Room for Conf {
    type State = ();
}

/// What the rewrite phase of a location did to the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is another one: the location is to be found again.
    Changed,
    /// It is the same, or is to stay in this location.
    Same,
}

/// The server-rewrite phase. The location is found behind it, so it does not matter whether the path changed.
pub fn server(exchange: &mut Exchange) -> Phase {
    if exchange.location.settings.rewrite.script.codes.is_empty() {
        return Phase::Continue(());
    }
    let level = Arc::clone(&exchange.location);
    engine::run(exchange, &level, engine::Place::Server).map_continue(|_| ())
}

/// The rewrite and post-rewrite phases of the location that was found. Where none was found there is nothing to do:
/// the server's own script has run already.
pub fn location(exchange: &mut Exchange) -> ControlFlow<Break, Outcome> {
    if exchange.location.settings.rewrite.script.codes.is_empty()
        || Arc::ptr_eq(&exchange.location, &exchange.server.base)
    {
        return ControlFlow::Continue(Outcome::Same);
    }
    let level = Arc::clone(&exchange.location);
    if !engine::run(exchange, &level, engine::Place::Location)? {
        return ControlFlow::Continue(Outcome::Same);
    }
    if exchange.redirects_left == 0 {
        let path = String::from_utf8_lossy(&exchange.path);
        exchange.log(Level::Err, &format!("rewrite or internal redirection cycle while processing \"{path}\""));
        exchange.state.error_page.exhausted = true;
        return ControlFlow::Break(Break::Status(500));
    }
    exchange.redirects_left -= 1;
    exchange.location = Arc::clone(&exchange.server.base);
    ControlFlow::Continue(Outcome::Changed)
}
