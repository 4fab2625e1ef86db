//! `uwsgi_pass`: requests are passed to uWSGI servers.

use super::Room;
use crate::{
    config::{
        Args, Contexts, Declarations, Directive, FromArgs, HTTP, Handle, IF_IN_LOCATION, LEVELS, LIMIT_EXCEPT, LOCATION,
        List, Module, Scope,
        values::{Wants, parse_known_url, parse_number, parse_url},
    },
    http::{
        exchange::Exchange,
        phase::{Break, Phase},
        template::Template,
    },
    observe::error_log::Level,
    syntax::Fault,
    upstream::{
        Group,
        pass::{self, Job, Passing, Request, Rules, Sends, settings},
        wire::{Frames, answer::Dialect, uwsgi},
    },
};
use bytes::Bytes;
use std::{borrow::Cow, ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub pass: Option<Pass>,
    pub passing: Passing,
    pub params: List<Param>,
    pub modifier1: Modifier,
    pub modifier2: Modifier,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("uwsgi_pass", LOCATION.or(IF_IN_LOCATION), |conf| &mut conf.pass),
        Directive::new("uwsgi_param", LEVELS, |conf| &mut conf.params),
        Directive::new("uwsgi_modifier1", LEVELS, |conf| &mut conf.modifier1),
        Directive::new("uwsgi_modifier2", LEVELS, |conf| &mut conf.modifier2),
    ];

    fn families(declarations: &mut Declarations<'_, Self>) {
        declarations.family("uwsgi", settings::DIRECTIVES, &[], |conf| &mut conf.passing);
    }

    fn settle(&mut self, scope: &Scope<'_>, level: Contexts) -> Result<(), Fault> {
        // nginx settles what a server or a location has, not what http says for them.
        if level == HTTP { Ok(()) } else { self.passing.settle("uwsgi", scope) }
    }

    fn enter(this: &mut Arc<Self>, level: Contexts) {
        if this.pass.is_some() && !level.allow(IF_IN_LOCATION.or(LIMIT_EXCEPT)) {
            Arc::make_mut(this).pass = None;
        }
    }
}

impl Room for Conf {
    type State = ();
}

/// Passes the request to the location's server.
pub async fn content(exchange: &mut Exchange) -> Phase {
    let conf = Arc::clone(&exchange.location.settings.uwsgi);
    let Some(pass) = &conf.pass else { return Phase::Continue(()) };
    let group = match pass {
        Pass::Group(handle) => exchange.http.upstreams[handle.0 as usize].clone().ok_or((500, String::new())),
        // On the heap: looking names up is large and rare, and every request carries what may be awaited.
        Pass::Variable(template) => Box::pin(evaluated(exchange, &template.evaluate(exchange))).await,
    };
    let group = match group {
        Ok(group) => group,
        Err((status, text)) => {
            exchange.log(Level::Err, &text);
            return Phase::Break(Break::Status(status));
        }
    };
    let streams = !exchange.head.chunked;
    pass::prepare(exchange, &conf.passing, streams).await?;
    let packet = match packet(exchange, &conf) {
        Ok(packet) => packet,
        Err(error) => {
            exchange.log(Level::Alert, &error.to_string());
            return Phase::Break(Break::Status(500));
        }
    };
    let rules = Rules { hidden: &[], redirect: None, cookie: None };
    let body = if conf.passing.pass_request_body { Sends::Client } else { Sends::Nothing };
    let (frames, dialect) = (Frames::Plain, Dialect::Cgi);
    let request = Request { head: packet, body, frames, dialect, head_only: false, keepalive: false };
    let connecting = conf.passing.connecting(exchange);
    let job = Job { group, passing: &conf.passing, connecting, rules, request, scheme: "uwsgi://", uri: Bytes::new() };
    pass::pass(exchange, job).await
}

/// `ngx_http_uwsgi_eval`: the address was made of variables.
async fn evaluated(exchange: &Exchange, url: &[u8]) -> Result<Arc<Group>, (u16, String)> {
    let rest = without_scheme(url).map_err(|text| (500, text.to_owned()))?;
    let url = parse_known_url(rest, Wants::default())
        .map_err(|error| (500, format!("{error} in upstream \"{}\"", String::from_utf8_lossy(rest))))?;
    super::upstream::reach(exchange, url).await
}

fn without_scheme(url: &[u8]) -> Result<&[u8], &'static str> {
    let starts = |scheme: &[u8]| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    if starts(b"suwsgi://") {
        return Err("suwsgi protocol requires SSL support");
    }
    Ok(if starts(b"uwsgi://") { &url[8..] } else { url })
}

/// The packet: the parameters, then every field of the client that is not among them.
fn packet(exchange: &Exchange, conf: &Conf) -> Result<Bytes, uwsgi::TooLarge> {
    let mut pairs: Vec<(Cow<'_, [u8]>, Cow<'_, [u8]>)> = Vec::with_capacity(conf.params.len() + 16);
    for param in conf.params.iter() {
        // Written empty, it only keeps the client's field of that name away.
        if param.name.starts_with(b"HTTP_") && param.value.as_literal().is_some_and(<[u8]>::is_empty) {
            continue;
        }
        let value = param.value.evaluate(exchange);
        if !(param.if_not_empty && value.is_empty()) {
            pairs.push((Cow::Borrowed(&param.name), value));
        }
    }
    if !conf.params.iter().any(|param| param.name == "HTTP_HOST") {
        let mut host = exchange.host.to_vec();
        let port = super::core::request_port(exchange);
        if !port.is_empty() {
            host.push(b':');
            host.extend_from_slice(port);
        }
        pairs.push((Cow::Borrowed(b"HTTP_HOST"), Cow::Owned(host)));
    }
    if conf.passing.pass_request_headers {
        let fields = &exchange.head.fields;
        for (at, field) in fields.iter().enumerate() {
            let name = uwsgi::header_param(&field.name);
            let earlier = fields.iter().take(at).any(|other| other.name.eq_ignore_ascii_case(&field.name));
            let given = conf.params.iter().any(|param| param.name == name[..]);
            if earlier || given || name == b"HTTP_HOST" {
                continue;
            }
            let separator: &[u8] = if field.name.eq_ignore_ascii_case(b"cookie") { b"; " } else { b", " };
            let same: Vec<_> = fields.get_all(&field.name).collect();
            let value = if same.len() == 1 { Cow::Borrowed(&field.value[..]) } else { Cow::Owned(same.join(separator)) };
            pairs.push((Cow::Owned(name), value));
        }
    }
    let mut packet = Vec::with_capacity(1024);
    let pairs = pairs.iter().map(|(name, value)| (&name[..], &value[..]));
    uwsgi::frame(conf.modifier1.0, conf.modifier2.0, pairs, &mut packet)?;
    Ok(packet.into())
}

/// Where `uwsgi_pass` leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pass {
    Group(Handle),
    Variable(Template),
}

impl FromArgs for Pass {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        if memchr::memchr(b'$', &word.value).is_some() {
            return Ok(Self::Variable(Template::compile(word, args.scope)?));
        }
        let text = without_scheme(&word.value).map_err(|text| Fault::at(word.span, text))?;
        let url = parse_url(text, Wants::default(), args.scope).map_err(|error| {
            let text = [error.as_bytes(), b" in upstream \"", text, b"\""].concat();
            Fault::at(word.span, text)
        })?;
        Ok(Self::Group(super::upstream::refer(&url, word, 0, args.scope)))
    }
}

/// One `uwsgi_param`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    pub name: Bytes,
    pub value: Template,
    pub if_not_empty: bool,
}

impl FromArgs for Param {
    const TAKES: RangeInclusive<usize> = 2..=3;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let if_not_empty = match args.words().get(2) {
            Some(word) if word.value == b"if_not_empty" => true,
            Some(word) => return Err(args.parameter(word)),
            None => false,
        };
        let name = Bytes::copy_from_slice(&args.word(0).value);
        Ok(Self { name, value: Template::compile(args.word(1), args.scope)?, if_not_empty })
    }
}

/// A byte of the packet's head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modifier(pub u8);

impl FromArgs for Modifier {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let number = parse_number(&word.value).ok_or_else(|| args.directive(word, "invalid number"))?;
        u8::try_from(number).map(Self).map_err(|_| {
            Fault::at(word.span, "value must be between 0 and 255")
        })
    }
}
