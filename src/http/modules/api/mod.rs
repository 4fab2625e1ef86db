//! `api`: the state of the server, and the servers of its upstreams, over HTTP as NGINX Plus has it
//! (`ngx_http_api_module`).

mod fault;
pub mod json;
pub mod openapi;
mod servers;
mod show;
mod tree;
mod upstreams;
mod zones;

use super::Room;
use crate::{
    config::{Args, Contexts, Directive, FromArgs, LOCATION, Module},
    http::{
        exchange::{Exchange, Method},
        phase::{Break, Phase},
        request_body::{BodyLimits, RequestBodyError},
        response::Response,
        uri::{Escape, Unescape, escaped, unescape},
        zones::Kind,
    },
    syntax::Fault as ConfigFault,
    upstream::{Group, pass},
};
use fault::Fault;
use json::{Json, object};
use std::{ops::RangeInclusive, sync::Arc, time::Duration};
use tree::Target;

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub api: Option<Access>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[Directive::new("api", LOCATION, |conf| &mut conf.api)];

    fn enter(this: &mut Arc<Self>, level: Contexts) {
        // As other content handlers: a location inside has its own; what is excepted by method still is the API.
        if this.api.is_some() && !pass::is_part(level) {
            *this = Arc::default();
        }
    }
}

impl Room for Conf {
    type State = ();
}

/// `api [write=on|off]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whether anything may be changed.
    pub write: bool,
}

impl FromArgs for Access {
    const TAKES: RangeInclusive<usize> = 0..=1;

    fn from_args(args: &Args<'_>) -> Result<Self, ConfigFault> {
        let Some(word) = args.words().first() else { return Ok(Self { write: false }) };
        match &word.value[..] {
            b"write=on" => Ok(Self { write: true }),
            b"write=off" => Ok(Self { write: false }),
            _ => Err(args.parameter(word)),
        }
    }
}

/// What is answered.
enum Answer {
    /// A status and an object.
    Object(u16, Json),
    /// `201`, and where what was made is.
    Made(Json, String),
    /// `204`.
    Done,
    Description,
}

/// Answers a request of the API.
pub async fn content(exchange: &mut Exchange) -> Phase {
    let write = exchange.location.settings.api.api.is_some_and(|access| access.write);
    let whole = String::from_utf8_lossy(&exchange.path).into_owned();
    let (version, target) = tree::find(behind(&whole, exchange));
    let found = target.as_ref().ok().copied();
    let answered = match target {
        Ok(target) => answer(exchange, version, target, write).await,
        Err(fault) => Err(Trouble::Told(fault)),
    };
    let allowed = || allow(found, write);
    Phase::Break(match answered {
        Ok(Answer::Object(status, value)) => json_response(status, &value).into(),
        Ok(Answer::Made(value, place)) => {
            let mut response = json_response(201, &value);
            response.location = Some(place.into());
            response.into()
        }
        Ok(Answer::Description) => openapi::response(&base(exchange), write).into(),
        Ok(Answer::Done) => {
            let mut response = Response::new(204);
            if exchange.method == Method::Options {
                response.push("Allow", allowed());
            }
            response.into()
        }
        Err(Trouble::Told(fault)) => {
            let mut response = json_response(fault.status, &fault.object(version, request_id(exchange)));
            if fault.status == 405 {
                response.push("Allow", allowed());
            }
            response.into()
        }
        Err(Trouble::Silent(status)) => Break::Status(status),
    })
}

/// Why there is no answer.
enum Trouble {
    Told(Fault),
    /// nginx's own page says enough.
    Silent(u16),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Told(fault)
    }
}

/// The part of a path behind the location's own.
fn behind<'p>(path: &'p str, exchange: &Exchange) -> &'p str {
    let location = &exchange.location;
    let own = if location.regex || location.named { None } else { path.as_bytes().strip_prefix(&location.name[..]) };
    match own {
        Some(rest) => &path[path.len() - rest.len()..],
        // Where the location is no beginning of it, the version says where the rest begins.
        None => {
            let digit = |at: &usize| path.as_bytes().get(at + 1).is_some_and(u8::is_ascii_digit);
            let at = path.match_indices('/').map(|(at, _)| at).find(digit);
            at.map_or("", |at| &path[at..])
        }
    }
}

/// What can be done with a target, as `Allow` lists it.
fn allow(target: Option<Target<'_>>, write: bool) -> String {
    let changes = target.filter(|_| write).map_or(&[][..], Target::changes);
    ["GET", "HEAD", "OPTIONS"].iter().chain(changes).copied().collect::<Vec<_>>().join(", ")
}

fn json_response(status: u16, value: &Json) -> Response {
    Response::with_body(status, &b"application/json"[..], value.text())
}

fn request_id(exchange: &Exchange) -> String {
    let mut id = Vec::new();
    super::core::request_id(exchange, &mut id);
    String::from_utf8_lossy(&id).into_owned()
}

async fn answer(exchange: &mut Exchange, version: u32, target: Target<'_>, write: bool) -> Result<Answer, Trouble> {
    let method = String::from_utf8_lossy(&exchange.head.method).into_owned();
    match exchange.method {
        Method::Get | Method::Head => Ok(get(exchange, version, target)?),
        Method::Options => Ok(Answer::Done),
        Method::Post | Method::Patch | Method::Delete if !write => {
            Err(Fault::new(405, "MethodDisabled", "method disabled").into())
        }
        _ if !target.changes().contains(&&*method) => {
            Err(Fault::new(405, "MethodUnsupported", "method unsupported").into())
        }
        _ => change(exchange, version, target).await,
    }
}

fn names(names: Vec<&'static str>) -> Json {
    Json::List(names.into_iter().map(Json::from).collect())
}

fn get(exchange: &Exchange, version: u32, target: Target<'_>) -> Result<Answer, Fault> {
    let fields = fields(&exchange.args);
    let fields = fields.as_deref();
    let now = exchange.connection.worker.clock.millis();
    let http = &exchange.http;
    let empty = || object([]);
    let value = match target {
        Target::Description => return Ok(Answer::Description),
        Target::Versions => Json::List(tree::VERSIONS.map(Json::from).collect()),
        Target::Root => names(tree::root(version)),
        Target::Http => names(tree::http_root(version)),
        Target::Stream => Json::List(Vec::new()),
        Target::Nginx => show::nginx(exchange, now).only(fields),
        Target::Processes => show::processes().only(fields),
        Target::Connections => show::connections().only(fields),
        Target::Requests => show::requests().only(fields),
        Target::Ssl => show::ssl().only(fields),
        Target::Slabs | Target::Keyvals => empty(),
        Target::Workers => show::workers().each_only(fields),
        Target::Worker(id) => show::worker(id)?.only(fields),
        Target::ServerZones => zones::all(http, Kind::Servers, version).each_only(fields),
        Target::ServerZone(name) => zones::one(http, Kind::Servers, version, name)?.only(fields),
        Target::LocationZones => zones::all(http, Kind::Locations, version).each_only(fields),
        Target::LocationZone(name) => zones::one(http, Kind::Locations, version, name)?.only(fields),
        Target::LimitConns => zones::limit_conns(http).each_only(fields),
        Target::LimitConn(name) => zones::limit_conn(http, name)?.only(fields),
        Target::LimitReqs => zones::limit_reqs(http).each_only(fields),
        Target::LimitReq(name) => zones::limit_req(http, name)?.only(fields),
        Target::Caches => zones::caches(http).each_only(fields),
        Target::Cache(name) => zones::cache(http, name)?.only(fields),
        Target::Resolvers => zones::resolvers(http).each_only(fields),
        Target::Resolver(name) => zones::resolver(http, name)?.only(fields),
        Target::Upstreams => upstreams::all(http, version, now).each_only(fields),
        Target::Upstream(name) => upstreams::one(&servers::group(http, name)?, version, now).only(fields),
        Target::Servers(name) => servers::list(&*servers::group(http, name)?),
        Target::Server(name, id) => {
            let group = servers::group(http, name)?;
            servers::configured(&group, &servers::server(&group, id)?)
        }
        Target::Nobody(code, text) => return Err(Fault::new(404, code, text)),
    };
    Ok(Answer::Object(200, value))
}

/// `fields` of the arguments: the members that are asked for.
fn fields(args: &[u8]) -> Option<Vec<String>> {
    let value = args.split(|byte| *byte == b'&').find_map(|argument| argument.strip_prefix(b"fields="))?;
    let mut plain = Vec::new();
    unescape(value, Unescape::Plain, &mut plain);
    let fields = String::from_utf8_lossy(&plain).into_owned();
    Some(fields.split(',').filter(|field| !field.is_empty()).map(Into::into).collect())
}

async fn change(exchange: &mut Exchange, version: u32, target: Target<'_>) -> Result<Answer, Trouble> {
    let deletes = exchange.method == Method::Delete;
    let http = Arc::clone(&exchange.http);
    match target {
        Target::Servers(name) => {
            servers::group(&http, name)?;
            let wish = servers::Wish::read(&body(exchange).await?)?;
            let (group, server) = edit(exchange, name, |group| wish.add(group)).await?;
            super::upstream::watch(&exchange.connection.worker.http());
            let place = format!("{}/{version}/http/upstreams/{}/servers/{}/", base(exchange), link(name), server.id());
            return Ok(Answer::Made(servers::configured(&group, &server), place));
        }
        Target::Server(name, id) if deletes => {
            let (group, ()) = edit(exchange, name, |group| servers::remove(group, id)).await?;
            return Ok(Answer::Object(200, servers::list(&group)));
        }
        Target::Server(name, id) => {
            servers::server(&*servers::group(&http, name)?, id)?;
            let wish = servers::Wish::read(&body(exchange).await?)?;
            let (group, server) = edit(exchange, name, |group| wish.change(group, id)).await?;
            return Ok(Answer::Object(200, servers::configured(&group, &server)));
        }
        Target::Nobody(code, text) => return Err(Fault::new(404, code, text).into()),
        Target::Upstream(name) => upstreams::reset(&*servers::group(&http, name)?),
        Target::Processes => show::reset_processes(),
        Target::Connections => show::reset_connections(),
        Target::Requests => show::reset_requests(),
        Target::Workers => show::reset_workers(),
        Target::Worker(id) => show::reset_worker(id)?,
        Target::ServerZone(name) => zones::reset(&http, Kind::Servers, name)?,
        Target::LocationZone(name) => zones::reset(&http, Kind::Locations, name)?,
        Target::LimitConn(name) => zones::reset_limit_conn(&http, name)?,
        Target::LimitReq(name) => zones::reset_limit_req(&http, name)?,
        Target::Cache(name) => zones::reset_cache(&http, name)?,
        Target::Resolver(name) => zones::reset_resolver(&http, name)?,
        _ => {}
    }
    Ok(Answer::Done)
}

/// The location's own part of the path, as it stands in a link.
fn base(exchange: &Exchange) -> String {
    let path = String::from_utf8_lossy(&exchange.path).into_owned();
    let own = path.len() - behind(&path, exchange).len();
    link(path[..own].trim_end_matches('/'))
}

fn link(path: &str) -> String {
    String::from_utf8_lossy(&escaped(path.as_bytes(), Escape::Uri)).into_owned()
}

/// How long a change waits for a reload that is just replacing what it is for.
const PATIENCE: u32 = 1000;

/// Makes a change in the configuration that is in force, which may be a newer one than the request's own, and waits
/// until it is kept (`state`).
async fn edit<T>(
    exchange: &Exchange,
    name: &str,
    mut change: impl FnMut(&Group) -> Result<T, Option<Fault>>,
) -> Result<(Arc<Group>, T), Trouble> {
    for _ in 0..PATIENCE {
        let http = exchange.connection.worker.http();
        let group = servers::group(&http, name)?;
        match change(&group) {
            Ok(result) => {
                group.saved().await;
                return Ok((group, result));
            }
            Err(Some(fault)) => return Err(fault.into()),
            Err(None) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
    Err(Trouble::Silent(503))
}

/// The body of a request, which must not be longer than `client_body_buffer_size`.
async fn body(exchange: &mut Exchange) -> Result<bytes::Bytes, Trouble> {
    let core = &exchange.location.settings.core;
    let (buffer, gap) = (core.client_body_buffer_size.0, core.client_body_timeout.0);
    let limits = BodyLimits { max: buffer as u64, memory: buffer, gap };
    if exchange.body.too_large(limits.max) {
        return Err(Trouble::Silent(413));
    }
    match exchange.body.read(limits).await {
        Ok(()) => Ok(exchange.body.memory().cloned().unwrap_or_default()),
        Err(RequestBodyError::TooLarge) => Err(Trouble::Silent(413)),
        Err(RequestBodyError::Timeout) => Err(Trouble::Silent(408)),
        Err(error) => Err(Fault::new(400, "BodyReadError", error.to_string()).into()),
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask, fault, get};

    #[test]
    fn the_directive_says_whether_anything_may_be_changed() {
        for (conf, text) in [
            ("api write=yes;", "invalid parameter \"write=yes\""),
            ("api write=on now;", "invalid number of arguments in \"api\" directive"),
            ("api; api;", "\"api\" directive is duplicate"),
        ] {
            assert_eq!(fault(conf), text);
        }
        for (conf, code) in [("api;", "MethodDisabled"), ("api write=off;", "MethodDisabled"), ("api write=on;", "")] {
            let request = "DELETE /a/9/connections HTTP/1.1\r\nHost: a\r\n\r\n";
            let text = ask(&format!("location /a {{ {conf} }}"), request).text();
            assert!(text.contains(code) && text.is_empty() == code.is_empty(), "{conf} {text}");
        }
    }

    #[test]
    fn a_path_in_a_link_breaks_no_line() {
        assert_eq!(super::link("/x\r\ny/a b"), "/x%0D%0Ay/a%20b");
    }

    #[test]
    fn the_api_is_where_its_location_is() {
        for (location, path) in
            [("/", "/9/ssl"), ("/api/", "/api/9/ssl"), ("/api", "/api//9/ssl/"), ("~ ^/x/.*", "/x/y/9/ssl")]
        {
            let answer = get(&format!("location {location} {{ api; }}"), path);
            assert!(answer.text().starts_with("{\"handshakes\":0"), "{location} {path} {}", answer.text());
        }
        let nested = "location /api { api; location /api/9 { return 200 other; } limit_except GET { deny all; } }";
        assert_eq!(get(nested, "/api/9/ssl").text(), "other");
        assert!(get(nested, "/api/8/ssl").text().starts_with('{'));
        assert_eq!(ask(nested, "DELETE /api/8/ssl HTTP/1.1\r\nHost: a\r\n\r\n").status, 403);
    }
}
