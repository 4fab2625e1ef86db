//! `proxy_pass`: requests are passed to HTTP servers.

mod cookies;
mod redirect;
mod request;
mod rewrite;
mod target;
#[cfg(test)]
mod tests;

pub use cookies::{DomainRule, FlagsRule, PathRule};
pub use redirect::Redirects;
pub use request::SetHeader;
pub use rewrite::Rewrites;
use target::{Names, Refusal};
pub use target::{Pass, Target};

use super::Room;
use crate::{
    config::{
        Args, Contexts, Declarations, Directive, FromArgs, IF_IN_LOCATION, LEVELS, LIMIT_EXCEPT, LOCATION, List,
        Module, Scope,
        values::choose,
    },
    http::{
        exchange::Exchange,
        phase::{Break, Phase},
        template::Template,
        variables::Variable,
    },
    observe::error_log::Level,
    syntax::Fault,
    upstream::{
        cache::{self, Caching},
        pass::{self, Job, Passing, Request, Rules, cached, settings},
        wire::answer::Dialect,
    },
};
use bytes::Bytes;
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub pass: Option<Pass>,
    pub passing: Passing,
    pub caching: Caching,
    pub http_version: Version,
    pub set_header: List<SetHeader>,
    pub redirect: Redirects,
    pub method: Option<Template>,
    pub set_body: Option<Template>,
    pub cookie_domain: Rewrites<DomainRule>,
    pub cookie_path: Rewrites<PathRule>,
    pub cookie_flags: Rewrites<FlagsRule>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("proxy_pass", LOCATION.or(IF_IN_LOCATION).or(LIMIT_EXCEPT), |conf| &mut conf.pass),
        Directive::new("proxy_http_version", LEVELS, |conf| &mut conf.http_version),
        Directive::new("proxy_pass_trailers", LEVELS, |conf| &mut conf.passing.pass_trailers),
        Directive::new("proxy_cache_convert_head", LEVELS, |conf| &mut conf.caching.convert_head),
        Directive::new("proxy_set_header", LEVELS, |conf| &mut conf.set_header),
        Directive::new("proxy_redirect", LEVELS, |conf| &mut conf.redirect),
        Directive::new("proxy_method", LEVELS, |conf| &mut conf.method),
        Directive::new("proxy_set_body", LEVELS, |conf| &mut conf.set_body),
        Directive::new("proxy_cookie_domain", LEVELS, |conf| &mut conf.cookie_domain),
        Directive::new("proxy_cookie_path", LEVELS, |conf| &mut conf.cookie_path),
        Directive::new("proxy_cookie_flags", LEVELS, |conf| &mut conf.cookie_flags),
    ];

    fn families(declarations: &mut Declarations<'_, Self>) {
        declarations.family("proxy", settings::DIRECTIVES, &[], |conf| &mut conf.passing);
        declarations.family("proxy", cache::settings::DIRECTIVES, &[], |conf| &mut conf.caching);
    }

    fn settle(&mut self, scope: &Scope<'_>, level: Contexts) -> Result<(), Fault> {
        self.redirect.settle(self.pass.as_ref())?;
        self.caching.settle("proxy", &mut self.passing, scope, level)?;
        self.passing.settle("proxy", scope, level)
    }

    /// A nested location passes nowhere unless it says so itself; what stands in an `if` or a
    /// `limit_except` goes where its location goes.
    fn enter(this: &mut Arc<Self>, level: Contexts) {
        if this.pass.is_some() && !pass::is_part(level) {
            Arc::make_mut(this).pass = None;
        }
    }
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] = request::VARIABLES;
    type State = State;
}

/// Where the request is passed to, once that is known.
#[derive(Debug, Default)]
pub struct State {
    /// `$proxy_host`.
    pub host: Bytes,
    /// `$proxy_port`.
    pub port: Bytes,
}

/// Passes the request to the location's server.
pub async fn content(exchange: &mut Exchange) -> Phase {
    let conf = Arc::clone(&exchange.location.settings.proxy);
    let Some(pass) = &conf.pass else { return Phase::Continue(()) };
    let target = match pass.target(exchange) {
        Ok(target) => target,
        Err(refusal) => return refuse(exchange, &refusal),
    };
    let names = target.names.clone();
    exchange.state.proxy = State { host: names.host.clone(), port: names.port.clone() };
    let streams = conf.set_body.is_none() && (!exchange.head.chunked || conf.http_version == Version::Http11);
    pass::prepare(exchange, &conf.passing, streams).await?;
    let uri = request::uri(exchange, pass, &target);
    if uri.is_empty() {
        exchange.log(Level::Err, "zero length URI to proxy");
        return Phase::Break(Break::Status(500));
    }
    let rewrite = |exchange: &Exchange, value: &[u8]| conf.redirect.rewrite(exchange, pass, value);
    let cookie = |exchange: &Exchange, value: &[u8]| cookies::rewrite(&conf, exchange, value);
    let rules = Rules {
        hidden: &["Date", "Server", "X-Pad"],
        redirect: Some(&rewrite),
        cookie: Some(&cookie),
        caching: Some(&conf.caching),
        ..Rules::new(&conf.passing, "proxy")
    };
    let key = |exchange: &Exchange| match &conf.caching.key {
        Some(key) => key.evaluate(exchange).into_owned(),
        None => [&names.key[..], &uri].concat(),
    };
    cached::look_up(exchange, &rules, &Dialect::Http, key).await?;
    let group = match target.group(exchange).await {
        Ok(group) => group,
        Err(refusal) => return refuse(exchange, &refusal),
    };
    let request = request::build(exchange, &conf, &group, &names, &uri);
    let connecting = conf.passing.connecting(exchange);
    let job = Job { group, connecting, rules, request, scheme: "http://", uri };
    pass::pass(exchange, &job).await
}

fn refuse(exchange: &Exchange, refusal: &Refusal) -> Phase {
    exchange.log(Level::Err, &refusal.text);
    Phase::Break(Break::Status(refusal.status))
}

/// The request by which a peer of the location's group is checked, for this path in the place of the client's
/// (`health_check`).
pub async fn check(exchange: &mut Exchange, uri: &[u8]) -> Option<Request> {
    let conf = Arc::clone(&exchange.location.settings.proxy);
    let target = conf.pass.as_ref()?.target(exchange).ok()?;
    let names = target.names.clone();
    exchange.state.proxy = State { host: names.host.clone(), port: names.port.clone() };
    let group = target.group(exchange).await.ok()?;
    Some(request::build(exchange, &conf, &group, &names, uri))
}

/// `proxy_http_version`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    Http10,
    #[default]
    Http11,
}

impl FromArgs for Version {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        if args.word(0).value == b"2" {
            return Err(Fault::at(args.word(0).span, "HTTP/2 to upstreams is not supported by this version"));
        }
        choose(args, &[("1.0", Self::Http10), ("1.1", Self::Http11)])
    }
}
