//! `health_check`: the servers of a group are asked now and then whether they are well, and those that are not get no
//! requests; `match` says what a good answer is.
//!
//! NGINX Plus wants `grpc_pass` in a location with `health_check type=grpc`. That is not built, so such a check may
//! stand in any location that passes requests to the upstream. It asks over cleartext HTTP/2 within the location's
//! times.

mod args;
mod collect;
mod matching;
mod runner;
#[cfg(test)]
mod tests;

pub use collect::{Checks, collect};
pub use runner::watch;

use super::Room;
use crate::{
    config::{Contexts, Directive, HTTP, LOCATION, List, Module},
    http::{Http, clock::wall_millis},
};
use args::HealthCheck;
use matching::Match;
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct Conf {
    checks: List<Arc<HealthCheck>>,
    matches: List<Arc<Match>>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("health_check", LOCATION, |conf| &mut conf.checks),
        Directive::new("match", HTTP, |conf| &mut conf.matches),
    ];

    /// A location checks what it says itself.
    fn enter(this: &mut Arc<Self>, _level: Contexts) {
        if !this.checks.is_empty() {
            Arc::make_mut(this).checks = List::default();
        }
    }
}

impl Room for Conf {
    type State = ();
}

/// A generation is about to serve: its groups are checked as it says from now on, so that nobody asks a server whose first
/// check is awaited.
pub fn begin(http: &Http) {
    let now = wall_millis();
    for group in http.upstreams.iter().flatten() {
        group.check_by(http.checks.of(group), now);
    }
}
