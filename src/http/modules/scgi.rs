//! `scgi_pass`: requests are passed to SCGI servers.

use super::Room;
use crate::{
    config::{
        Contexts, Declarations, Directive, IF_IN_LOCATION, LEVELS, LOCATION, List, Module, Scope,
    },
    http::{exchange::Exchange, phase::Phase},
    syntax::Fault,
    upstream::{
        cache::{self, Caching},
        pass::{
            Passing, Request, Sends,
            cgi::{self, Param, Pass, Protocol},
            is_part, settings,
        },
        wire::{Frames, answer::Dialect, scgi},
    },
};
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub pass: Option<Pass>,
    pub passing: Passing,
    pub caching: Caching,
    pub params: List<Param>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("scgi_pass", LOCATION.or(IF_IN_LOCATION), |conf| &mut conf.pass),
        Directive::new("scgi_param", LEVELS, |conf| &mut conf.params),
    ];

    fn families(declarations: &mut Declarations<'_, Self>) {
        declarations.family("scgi", settings::DIRECTIVES, &[], |conf| &mut conf.passing);
        declarations.family("scgi", cache::settings::DIRECTIVES, &[], |conf| &mut conf.caching);
    }

    fn settle(&mut self, scope: &Scope<'_>, level: Contexts) -> Result<(), Fault> {
        self.caching.settle("scgi", &mut self.passing, scope, level)?;
        self.passing.settle("scgi", scope, level)
    }

    fn enter(this: &mut Arc<Self>, level: Contexts) {
        if this.pass.is_some() && !is_part(level) {
            Arc::make_mut(this).pass = None;
        }
    }
}

impl Room for Conf {
    type State = ();
}

static PROTOCOL: Protocol = Protocol { directive: "scgi", scheme: "scgi://", dialect: Dialect::Cgi, bare: |url| Ok(url), hidden: &["Status"] };

/// Passes the request to the location's server.
pub async fn content(exchange: &mut Exchange) -> Phase {
    let conf = Arc::clone(&exchange.location.settings.scgi);
    let Some(pass) = &conf.pass else { return Phase::Continue(()) };
    let streams = !exchange.head.chunked;
    cgi::answer(exchange, &PROTOCOL, pass, (&conf.passing, &conf.caching), streams, |exchange| Ok(request(exchange, &conf))).await
}

/// The packet for a request.
pub(super) fn request(exchange: &Exchange, conf: &Conf) -> Request {
    let pairs = cgi::pairs(exchange, &conf.params, &conf.passing);
    let mut packet = Vec::with_capacity(1024);
    scgi::frame(exchange.body_length().unwrap_or(0), cgi::slices(&pairs), &mut packet);
    Request {
        head: packet.into(),
        body: Sends::by(&conf.passing),
        frames: Frames::Plain,
        dialect: Dialect::Cgi,
        head_only: false,
        keepalive: false,
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{conf, fault};

    #[test]
    fn parameters_of_a_level_hide_those_above_it() {
        let names = |directives: &str| {
            let scgi = conf(directives).scgi;
            scgi.params.iter().map(|param| String::from_utf8_lossy(&param.name).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("scgi_param A b; scgi_param C $uri if_not_empty;"), ["A", "C"]);
        assert_eq!(fault("scgi_param A b maybe;"), "invalid parameter \"maybe\"");
    }

    #[test]
    fn an_address_is_needed_with_its_port() {
        assert_eq!(fault("scgi_pass localhost;"), "no port in upstream \"localhost\"");
        assert_eq!(fault("scgi_pass unix:;"), "no path in the unix domain socket in upstream \"unix:\"");
        assert_eq!(fault("scgi_pass 127.0.0.1:1; scgi_pass 127.0.0.1:2;"), "\"scgi_pass\" directive is duplicate");
    }

    #[test]
    fn its_buffers_go_together() {
        let text = "there must be at least 2 \"scgi_buffers\"";
        assert_eq!(fault("scgi_buffers 1 4k;"), text);
    }
}
