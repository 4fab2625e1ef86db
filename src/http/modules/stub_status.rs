//! `stub_status`: a page with the numbers of connections and requests.

use super::Room;
use crate::{
    config::{Args, Directive, FromArgs, LOCATION, Module, SERVER},
    http::{
        exchange::{Exchange, Method},
        phase::{Break, Phase},
        response::Response,
        variables::Variable,
    },
    syntax::Fault,
};
use std::ops::RangeInclusive;

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub enabled: Enabled,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] =
        &[Directive::new("stub_status", SERVER.or(LOCATION), |conf| &mut conf.enabled)];
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] = &[
        Variable::new("connections_active", |ex, out| super::core::number(out, ex.counts().active)),
        Variable::new("connections_reading", |ex, out| super::core::number(out, ex.counts().reading)),
        Variable::new("connections_writing", |ex, out| super::core::number(out, ex.counts().writing)),
        Variable::new("connections_waiting", |ex, out| super::core::number(out, ex.counts().waiting)),
    ];
    type State = ();
}

/// Answers with the page.
pub async fn content(exchange: &mut Exchange) -> Phase {
    if !matches!(exchange.method, Method::Get | Method::Head) {
        return Phase::Break(Break::Status(405));
    }
    let counts = exchange.counts();
    let page = format!(
        "Active connections: {} \nserver accepts handled requests\n {} {} {} \nReading: {} Writing: {} Waiting: {} \n",
        counts.active,
        counts.accepted,
        counts.accepted - counts.dropped,
        counts.requests,
        counts.reading,
        counts.writing,
        counts.waiting,
    );
    Phase::Break(Response::with_body(200, &b"text/plain"[..], page).into())
}

/// Whether the page is on. nginx once wanted a word behind it and still allows one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enabled(pub bool);

impl FromArgs for Enabled {
    const TAKES: RangeInclusive<usize> = 0..=1;

    fn from_args(_args: &Args<'_>) -> Result<Self, Fault> {
        Ok(Self(true))
    }
}
