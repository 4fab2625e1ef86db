//! `uwsgi_pass`: requests are passed to uWSGI servers.

use super::Room;
use crate::{
    config::{
        Args, Contexts, Declarations, Directive, FromArgs, IF_IN_LOCATION, LEVELS, LOCATION, List,
        Module, Scope, values::parse_number,
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
        wire::{Frames, answer::Dialect, uwsgi},
    },
};
use bytes::Bytes;
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub pass: Option<Server>,
    pub passing: Passing,
    pub caching: Caching,
    pub params: List<Param>,
    pub modifier1: Modifier,
    pub modifier2: Modifier,
    /// Follows the parameters in the packet.
    pub string: Bytes,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("uwsgi_pass", LOCATION.or(IF_IN_LOCATION), |conf| &mut conf.pass),
        Directive::new("uwsgi_param", LEVELS, |conf| &mut conf.params),
        Directive::new("uwsgi_modifier1", LEVELS, |conf| &mut conf.modifier1),
        Directive::new("uwsgi_modifier2", LEVELS, |conf| &mut conf.modifier2),
        Directive::new("uwsgi_string", LEVELS, |conf| &mut conf.string),
    ];

    fn families(declarations: &mut Declarations<'_, Self>) {
        declarations.family("uwsgi", settings::DIRECTIVES, &[], |conf| &mut conf.passing);
        declarations.family("uwsgi", cache::settings::DIRECTIVES, &[], |conf| &mut conf.caching);
    }

    fn settle(&mut self, scope: &Scope<'_>, level: Contexts) -> Result<(), Fault> {
        self.caching.settle("uwsgi", &mut self.passing, scope, level)?;
        self.passing.settle("uwsgi", scope, level)
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

static PROTOCOL: Protocol = Protocol { directive: "uwsgi", scheme: "uwsgi://", dialect: Dialect::Cgi, bare: without_scheme, hidden: &[] };

/// Passes the request to the location's server.
pub async fn content(exchange: &mut Exchange) -> Phase {
    let conf = Arc::clone(&exchange.location.settings.uwsgi);
    let Some(Server(pass)) = &conf.pass else { return Phase::Continue(()) };
    let streams = !exchange.head.chunked;
    cgi::answer(exchange, &PROTOCOL, pass, (&conf.passing, &conf.caching), streams, |exchange| request(exchange, &conf)).await
}

/// The packet for a request.
pub(super) fn request(exchange: &Exchange, conf: &Conf) -> Result<Request, String> {
    let pairs = cgi::pairs(exchange, &conf.params, &conf.passing);
    let mut packet = Vec::with_capacity(1024);
    uwsgi::frame_with(conf.modifier1.0, conf.modifier2.0, cgi::slices(&pairs), &conf.string, &mut packet)
        .map_err(|error| error.to_string())?;
    Ok(Request {
        head: packet.into(),
        body: Sends::by(&conf.passing),
        frames: Frames::Plain,
        dialect: Dialect::Cgi,
        head_only: false,
        keepalive: false,
    })
}

fn without_scheme(url: &[u8]) -> Result<&[u8], &'static str> {
    let starts = |scheme: &[u8]| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    if starts(b"suwsgi://") {
        return Err("suwsgi protocol requires SSL support");
    }
    Ok(if starts(b"uwsgi://") { &url[8..] } else { url })
}

/// Where `uwsgi_pass` leads: the only one of its kin whose addresses may have a scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server(pub Pass);

impl FromArgs for Server {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        Pass::read(args, without_scheme(&args.word(0).value)).map(Self)
    }
}

/// A byte of the packet's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modifier(pub u8);

impl FromArgs for Modifier {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let number = parse_number(&word.value).ok_or_else(|| args.directive(word, "invalid number"))?;
        u8::try_from(number).map(Self).map_err(|_| Fault::at(word.span, "value must be between 0 and 255"))
    }
}
