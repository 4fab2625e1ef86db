//! The life of a request, top to bottom. The order of the calls is the order of nginx's phases; every
//! call is static, and a module that was not configured costs one test.

use super::{
    body::Body,
    content,
    exchange::Exchange,
    level::Location,
    location_tree::Outcome,
    modules::{
        access, access_log, addition, auth_basic, auth_delay, auth_request, core, error_page, headers, limit_conn,
        limit_req, mirror, realip, rewrite, try_files,
    },
    phase::{Break, Phase, Redirect},
    redirect,
    regex::{self, Regex},
    response::Response,
    special,
    subrequest::StubBody,
    zones,
};
use crate::{observe::error_log::Level, upstream::pass};
use bytes::Bytes;
use std::sync::Arc;

/// Answers a request. `None`: the connection is to be closed without a word.
pub async fn answer(exchange: &mut Exchange) -> Option<Box<Response>> {
    let ended = match early_body(exchange).await {
        Phase::Continue(()) => {
            // post-read
            realip::replace(exchange);
            phases(exchange, Entry::Server).await
        }
        ended @ Phase::Break(_) => ended,
    };
    conclude(exchange, ended).await
}

/// `client_body_early_read`: reads the body before anything else (`ngx_http_read_early_body`).
async fn early_body(exchange: &mut Exchange) -> Phase {
    if !exchange.location.settings.core.client_body_early_read.test(exchange) {
        return Phase::Continue(());
    }
    test_size(exchange, " while reading client request headers")?;
    Box::pin(pass::read_body(exchange, false)).await
}

/// `post_action`: goes through another location behind the answer; nobody gets what that says (`ngx_http_post_action`).
pub async fn post_action(exchange: &mut Exchange) {
    while let Some(target) = exchange.location.settings.core.post_action.clone() {
        let redirect = match target.starts_with(b"/") {
            true => Redirect::Path { path: target, args: Bytes::new() },
            false => Redirect::Named(target),
        };
        let mut ended = Phase::Break(Break::Redirect(redirect));
        while let Phase::Break(Break::Redirect(redirect)) = ended {
            ended = match follow(exchange, redirect) {
                Ok(entry) => phases(exchange, entry).await,
                Err(status) => Phase::Break(Break::Status(status)),
            };
        }
        // The log says how it ended, though nobody was told.
        match ended {
            Phase::Break(Break::Answer(response)) => exchange.sent.status = response.status,
            Phase::Break(Break::Status(status)) if status >= 300 => {
                exchange.error_status = status;
                exchange.overwritten_status = None;
            }
            _ => {}
        }
        if exchange.redirects_left == 0 {
            return;
        }
    }
}

/// Answers a request of the server's own (`ngx_http_handler`).
pub async fn subrequest(exchange: &mut Exchange) -> Option<Box<Response>> {
    let ended = phases(exchange, Entry::Server).await;
    conclude(exchange, ended).await
}

/// Answers a request that is refused before any phase.
pub async fn refuse(exchange: &mut Exchange, status: u16) -> Option<Box<Response>> {
    conclude(exchange, Phase::Break(Break::Status(status))).await
}

/// Follows internal redirects until there is an answer.
async fn conclude(exchange: &mut Exchange, mut ended: Phase) -> Option<Box<Response>> {
    loop {
        let redirect = match ended {
            Phase::Break(Break::Answer(mut response)) => match filters(exchange, &mut response) {
                Ok(()) => {
                    if let Some(aside) = response.aside.upstream() {
                        aside.read_out(&exchange.connection.worker);
                    }
                    return Some(response);
                }
                Err(instead) => {
                    if let Some(body) = response.upstream() {
                        body.discard();
                        body.report(exchange);
                    }
                    ended = Phase::Break(instead);
                    continue;
                }
            },
            Phase::Break(Break::Close) => return None,
            Phase::Break(Break::Redirect(redirect)) => redirect,
            Phase::Break(Break::Status(_)) if exchange.terms.stub.is_some() => {
                ended = special::stub(exchange).into_phase();
                continue;
            }
            Phase::Break(Break::Status(status)) => match error_page::lookup(exchange, status) {
                Some(error_page::Page::Redirect(redirect)) => redirect,
                Some(error_page::Page::Answer(response)) => {
                    ended = Phase::Break(Break::Answer(response));
                    continue;
                }
                None => {
                    exchange.state.error_page.kept.remove("etag");
                    ended = special::response(exchange, status).into_phase();
                    continue;
                }
            },
            Phase::Continue(()) => {
                ended = Phase::Break(Break::Status(404));
                continue;
            }
        };
        ended = match follow(exchange, redirect) {
            Ok(entry) => phases(exchange, entry).await,
            Err(status) => Phase::Break(Break::Status(status)),
        };
    }
}

/// Where the row of phases begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// With the rewrite rules of the server.
    Server,
    /// With those of a named location.
    Location,
}

async fn phases(exchange: &mut Exchange, from: Entry) -> Phase {
    if from == Entry::Server {
        rewrite::server(exchange)?;
        find_location(exchange)?;
    }
    // rewrite: until the path stays as it is
    while let rewrite::Outcome::Changed = rewrite::location(exchange)? {
        find_location(exchange)?;
    }
    // preaccess
    realip::replace(exchange);
    if exchange.depth == 0 {
        limit_req::check(exchange).await?;
        limit_conn::check(exchange)?;
        // access
        satisfy(exchange).await?;
    }
    // precontent
    try_files::precontent(exchange)?;
    mirror::precontent(exchange).await?;
    content::answer(exchange).await
}

/// `satisfy`: all of the access checks must agree, or any of them (`ngx_http_core_access_phase`).
async fn satisfy(exchange: &mut Exchange) -> Phase {
    let any = exchange.location.settings.core.satisfy == core::Satisfy::Any;
    let mut denied = match access::check(exchange) {
        access::Verdict::Allowed if any => return Phase::Continue(()),
        access::Verdict::Unasked | access::Verdict::Allowed => 0,
        access::Verdict::Denied => 403,
    };
    let by_rule = denied != 0 || any;
    if denied == 0 || any {
        match auth_basic::check(exchange) {
            auth_basic::Verdict::Unasked => {}
            auth_basic::Verdict::Allowed if any => return Phase::Continue(()),
            auth_basic::Verdict::Allowed => {}
            auth_basic::Verdict::Denied(status) => denied = status,
        }
    }
    if auth_request::asks(exchange) && (denied == 0 || any) {
        match Box::pin(auth_request::check(exchange)).await {
            auth_request::Verdict::Allowed if any => {
                exchange.state.error_page.kept.remove("www-authenticate");
                exchange.state.error_page.kept.remove("proxy-authenticate");
                return Phase::Continue(());
            }
            auth_request::Verdict::Allowed => {}
            // Another refusal does not hide that a name and a password would do.
            auth_request::Verdict::Denied(403) if matches!(denied, 401 | 407) => {}
            auth_request::Verdict::Denied(status) => denied = status,
        }
    }
    match denied {
        0 => return Phase::Continue(()),
        401 | 407 => auth_delay::wait(exchange).await,
        403 if by_rule => exchange.log(Level::Err, "access forbidden by rule"),
        _ => {}
    }
    Phase::Break(Break::Status(denied))
}

/// find-config: chooses the location of the path (`ngx_http_core_find_config_phase`).
fn find_location(exchange: &mut Exchange) -> Phase {
    let server = Arc::clone(&exchange.server);
    let found = match server.locations.find(&exchange.path) {
        Ok(found) => found,
        Err(error) => {
            exchange.log(Level::Alert, &error.to_string());
            return Phase::Break(Break::Status(500));
        }
    };
    for (regex, captures) in &found.regexes {
        let subject = exchange.path.clone();
        captured(exchange, regex, captures, subject);
    }
    if let Outcome::AutoRedirect(location) = &found.outcome {
        let location: &Arc<Location> = location;
        exchange.location = Arc::clone(location);
        return Phase::Break(redirect::to_slash(exchange, &location.name));
    }
    exchange.location = Arc::clone(found.outcome.location().unwrap_or(&server.base));
    tracing::debug!(
        connection = exchange.connection.serial,
        uri = %String::from_utf8_lossy(&exchange.path),
        location = %String::from_utf8_lossy(&exchange.location.name),
        "location chosen"
    );
    if exchange.location.settings.core.internal.0 && !exchange.internal {
        return Phase::Break(Break::Status(404));
    }
    if let Some(except) = &exchange.location.limit_except
        && !except.allows(exchange.method)
    {
        exchange.location = Arc::clone(&except.level);
    }
    test_size(exchange, "")
}

/// `client_max_body_size`, against what the head announces; `action` is what nginx is doing just then.
fn test_size(exchange: &Exchange, action: &str) -> Phase {
    let max = exchange.location.settings.core.client_max_body_size.0;
    if exchange.body.too_large(max) || max != 0 && exchange.body.received() > max {
        let length = exchange.head.content_length.unwrap_or(0);
        exchange.log(Level::Err, &format!("client intended to send too large body: {length} bytes{action}"));
        return Phase::Break(Break::Status(413));
    }
    Phase::Continue(())
}

/// Keeps what a regular expression captured: `$1` and its named groups.
pub fn captured(exchange: &mut Exchange, regex: &Regex, captures: &regex::Captures, subject: Bytes) {
    exchange.keep_captures(regex, captures, subject);
}

/// Goes where an internal redirect leads.
fn follow(exchange: &mut Exchange, redirect: Redirect) -> Result<Entry, u16> {
    let name = match &redirect {
        Redirect::Path { path, .. } => String::from_utf8_lossy(path).into_owned(),
        Redirect::Named(name) => String::from_utf8_lossy(name).into_owned(),
    };
    if exchange.redirects_left == 0 {
        let what = match redirect {
            Redirect::Path { .. } => "rewrite or internal redirection cycle while internally redirecting to",
            Redirect::Named(_) => "rewrite or internal redirection cycle while redirect to named location",
        };
        exchange.log(Level::Err, &format!("{what} \"{name}\""));
        exchange.state.error_page.exhausted = true;
        return Err(500);
    }
    exchange.redirects_left -= 1;
    exchange.internal = true;
    match redirect {
        Redirect::Path { path, args } => {
            exchange.pristine = false;
            exchange.valid_location = true;
            exchange.state.try_files.below_alias = false;
            exchange.path = path;
            exchange.args = args;
            exchange.location = Arc::clone(&exchange.server.base);
            Ok(Entry::Server)
        }
        Redirect::Named(_) if exchange.path.is_empty() => {
            exchange.log(Level::Err, &format!("empty URI in redirect to named location \"{name}\""));
            Err(500)
        }
        Redirect::Named(name) => {
            let server = Arc::clone(&exchange.server);
            match server.locations.named(&name) {
                Some(location) => {
                    exchange.location = Arc::clone(location);
                    Ok(Entry::Location)
                }
                None => {
                    let name = String::from_utf8_lossy(&name);
                    exchange.log(Level::Err, &format!("could not find named location \"{name}\""));
                    Err(500)
                }
            }
        }
    }
}

/// The header and body filters, in nginx's order. One may put something else in the answer's
/// place: an error has its page like any.
fn filters(exchange: &mut Exchange, response: &mut Response) -> Result<(), Break> {
    error_page::finish(exchange, response);
    if let Some(stub) = exchange.terms.stub.take() {
        response.body = Body::Stub(Box::new(StubBody::new(std::mem::take(&mut response.body), stub.text)));
    }
    let main = exchange.depth == 0;
    if main {
        super::modules::slice::filter(exchange, response)?;
        super::not_modified::filter(exchange, response).map_err(Break::Status)?;
        headers::filter(exchange, response);
        super::modules::userid::filter(exchange, response);
        super::modules::proxy_status::filter(exchange, response);
    }
    super::modules::gunzip::filter(exchange, response);
    let joined = addition::filter(exchange, response);
    super::modules::sub_filter::filter(exchange, response);
    super::modules::charset::filter(exchange, response);
    super::modules::ssi::filter(exchange, response);
    if joined {
        addition::join(exchange, response);
    }
    if main {
        super::modules::brotli::filter(exchange, response);
        super::modules::zstd::filter(exchange, response);
        super::modules::gzip::filter(exchange, response);
        super::range::filter(exchange, response).map_err(Break::Status)?;
    }
    Ok(())
}

/// The log phase: the request has ended, and how much was sent is known.
pub fn log(exchange: &Exchange) {
    access_log::write(exchange);
    if exchange.depth == 0 {
        zones::end(exchange);
    }
}
