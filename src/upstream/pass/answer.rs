//! What becomes of an upstream's answer: which fields go on, which steer us, and the body behind them
//! (`ngx_http_upstream_process_headers`).

use super::{
    Answer, Job, Passing, cached,
    settings::{self, Steering},
};
use crate::{
    config::{
        List,
        values::{parse_number, parse_size},
    },
    http::{
        body::Body,
        dates,
        exchange::{Exchange, Method},
        files,
        heads::{Field, Fields, ResponseHead, same},
        phase::{Break, Phase, Redirect},
        placing::Placing,
        redirect,
        response::{Response, Unsigned},
        uri,
    },
    observe::error_log::Level,
    upstream::{Peer, Selection, cache::Caching, store::Store},
};
use bytes::Bytes;
use std::{sync::Arc, time::Instant};

/// What a room does to an answer.
pub struct Rules<'j> {
    pub passing: &'j Passing,
    /// Where answers may be kept.
    pub caching: Option<&'j Caching>,
    /// What its directives begin with.
    pub directive: &'static str,
    /// Fields that are not passed on unless asked for.
    pub hidden: &'static [&'static str],
    /// Rewrites `Location` and `Refresh`.
    pub redirect: Option<&'j dyn Fn(&Exchange, &[u8]) -> Option<Vec<u8>>>,
    /// Rewrites `Set-Cookie`.
    pub cookie: Option<&'j dyn Fn(&Exchange, &[u8]) -> Option<Vec<u8>>>,
    /// The page of a 404 is our own.
    pub not_found: bool,
    /// There is no answer: the connection itself is one.
    pub tunnel: bool,
}

impl<'j> Rules<'j> {
    /// The answer as it is, but for what the settings say; `directive` is what they begin with.
    pub fn new(passing: &'j Passing, directive: &'static str) -> Self {
        Self {
            passing,
            caching: None,
            directive,
            hidden: &[],
            redirect: None,
            cookie: None,
            not_found: false,
            tunnel: false,
        }
    }
}

/// What a field of an answer is to us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Type,
    /// It belongs to one connection, or is written anew: never passed on.
    HopByHop,
    /// `X-Accel-…`: hidden by every room.
    Steering,
    AcceptRanges,
    Cookie,
    Location,
    Refresh,
    Encoding,
    Other,
}

/// Most fields are told apart by the length of their names.
fn meaning(name: &[u8]) -> Meaning {
    let among = |known: &[(&str, Meaning)]| {
        let found = known.iter().find(|(known, _)| same(name, known.as_bytes()));
        found.map_or(Meaning::Other, |(_, meaning)| *meaning)
    };
    match name.len() {
        7 => among(&[("Refresh", Meaning::Refresh)]),
        8 => among(&[("Location", Meaning::Location)]),
        10 => among(&[
            ("Connection", Meaning::HopByHop),
            ("Keep-Alive", Meaning::HopByHop),
            ("Set-Cookie", Meaning::Cookie),
        ]),
        12 => among(&[("Content-Type", Meaning::Type)]),
        13 => among(&[("Accept-Ranges", Meaning::AcceptRanges)]),
        14 => among(&[("Content-Length", Meaning::HopByHop)]),
        15 => among(&[("X-Accel-Expires", Meaning::Steering), ("X-Accel-Charset", Meaning::Steering)]),
        16 => among(&[("Content-Encoding", Meaning::Encoding), ("X-Accel-Redirect", Meaning::Steering)]),
        17 => among(&[("Transfer-Encoding", Meaning::HopByHop), ("X-Accel-Buffering", Meaning::Steering)]),
        18 => among(&[("X-Accel-Limit-Rate", Meaning::Steering)]),
        _ => Meaning::Other,
    }
}

/// Answers with what the upstream said.
pub(super) fn respond(
    exchange: &mut Exchange,
    job: &Job<'_>,
    answer: Answer,
    mut selection: Selection,
    began: Instant,
    peer: &Arc<Peer>,
) -> Phase {
    let Answer { mut head, body } = answer;
    if head.version == (0, 9) {
        exchange.log_about(Level::Err, "upstream sent no valid HTTP/1.0 header", None);
        // Then the client gets no head, either.
        exchange.head.version = (0, 9);
    }
    for warning in &head.warnings {
        exchange.log_about(Level::Warn, &String::from_utf8_lossy(warning), None);
    }
    if let Some(attempt) = exchange.tries.last_mut() {
        // What no upstream has said is none of its.
        attempt.status = if job.rules.tunnel { 0 } else { head.status };
    }
    let covered = exchange.location.settings.error_page.covers(head.status);
    let intercepted = job.rules.not_found && head.status == 404
        || job.rules.passing.intercept_errors && head.status >= 300 && covered;
    let now = exchange.connection.worker.clock.millis();
    selection.answered(now);
    if let Some(sticky) = &job.group.sticky {
        // The variables that name a session speak of this answer.
        std::mem::swap(&mut exchange.upstream_fields, &mut head.fields);
        selection.teach(sticky.lesson(exchange, selection.session()));
        std::mem::swap(&mut exchange.upstream_fields, &mut head.fields);
    }
    if !intercepted {
        selection.passed_on(now);
    }
    body.hold(selection, began, job.source(peer));
    if let Some(phase) = cached::instead(exchange, job, &head) {
        body.forgo(false);
        body.report(exchange);
        return phase;
    }
    let ignore = job.rules.passing.ignore_headers;
    // Holds behind a redirect, too.
    steer(exchange, &job.rules, &head.fields);
    if intercepted {
        body.forgo(false);
        body.report(exchange);
        if head.status == 401 {
            // The page says how to authenticate, too.
            let challenges = head.fields.iter().filter(|field| field.name.eq_ignore_ascii_case(b"www-authenticate"));
            challenges.for_each(|field| exchange.state.error_page.kept.add(field.clone()));
        }
        exchange.upstream_fields = head.fields;
        cached::intercepted(exchange, job, head.status);
        return Phase::Break(Break::Status(head.status));
    }
    if let Some(target) = head.fields.get("x-accel-redirect").filter(|_| !ignore.has(Steering::REDIRECT)) {
        body.forgo(false);
        body.report(exchange);
        let target = target.to_vec();
        head.fields.iter().for_each(|field| carry(exchange, job, field));
        exchange.upstream_fields = head.fields;
        return Phase::Break(accel_redirect(exchange, &target));
    }
    let mut response = translate(exchange, &job.rules, &head);
    if head.status == 101 && exchange.head.upgrade || job.rules.tunnel {
        response.upgrade = true;
        exchange.tunnel_timeout = job.rules.passing.read_timeout.0;
    }
    let buffered = buffering(job.rules.passing, &head.fields) && !response.upgrade;
    let kept = if buffered { cached::keep(exchange, job, &mut head, &response) } else { None };
    // What is not kept by now never will be.
    exchange.state.upstream.cache.entry = None;
    if job.rules.caching.is_some()
        && let Some((status, zone)) = &exchange.state.upstream.cache.status
    {
        body.count_for(Arc::clone(zone), *status);
    }
    let is_kept = kept.is_some();
    if let Some(kept) = kept {
        body.store(kept);
        // An answer without a body is there already.
        body.forgo(true);
    }
    exchange.upstream_fields = std::mem::take(&mut head.fields);
    if response.bodyless(exchange) && !response.upgrade {
        body.forgo(exchange.method != Method::Head);
        body.report(exchange);
        if is_kept {
            response.aside = Body::Upstream(body);
        }
    } else {
        if buffered {
            if let Some(rate) = &job.rules.passing.limit_rate {
                body.limit(parse_size(&rate.evaluate(exchange)).map_or(0, |rate| rate as u64));
            }
            if !is_kept
                && head.status == 200
                && let Some(store) = store(exchange, job, &head)
            {
                body.store(store);
            }
            if let Some(bounds) = &job.rules.passing.bounds {
                body.buffer(Arc::clone(bounds));
            }
        } else {
            // What is not buffered comes as fast as it can.
            exchange.state.core.limit_rate = Some(0);
        }
        if job.rules.passing.pass_trailers && head.chunked {
            let (own, passing) = (job.rules.hidden, job.rules.passing);
            let (hide, pass) = (passing.hide_header.clone(), passing.pass_header.clone());
            body.keep_trailers(
                passing.buffer_size.0,
                Box::new(move |name| is_hidden(name, meaning(name), own, &hide, &pass)),
            );
            response.passes_trailers = true;
        }
        response.body = Body::Upstream(body);
    }
    Phase::Break(Break::Answer(response))
}

/// `_store`: the file that an answer is to be written to.
fn store(exchange: &Exchange, job: &Job<'_>, head: &ResponseHead) -> Option<Box<Store>> {
    let to = match &job.rules.passing.store.value {
        settings::Store::Off => return None,
        settings::Store::Place => files::path(exchange, &exchange.path)?,
        settings::Store::Path(path) => path.evaluate(exchange).into_owned(),
    };
    let bounds = job.rules.passing.bounds.as_ref().filter(|_| !to.is_empty())?;
    let access = job.rules.passing.store_access;
    let modified = exchange.upstream_fields.get("last-modified").and_then(dates::parse_http_time);
    let placing = Placing { access: access.0, folders: Some(access.of_folder()), modified };
    let expected = head.content_length.filter(|_| !head.chunked);
    let created = Store::create(&bounds.folder, to, placing, expected);
    created.map_err(|error| exchange.log(Level::Crit, &format!("{error} while reading upstream"))).ok()
}

/// `_buffering`, unless the answer itself says something about it.
fn buffering(passing: &Passing, fields: &Fields) -> bool {
    let said = fields.get("x-accel-buffering").filter(|_| !passing.ignore_headers.has(Steering::BUFFERING));
    match said {
        Some(value) if value.eq_ignore_ascii_case(b"yes") => true,
        Some(value) if value.eq_ignore_ascii_case(b"no") => false,
        _ => passing.buffering,
    }
}

/// Keeps a field of an answer that another location's stands in for, where it is one of those that stay.
fn carry(exchange: &mut Exchange, job: &Job<'_>, field: &Field) {
    let is = |name: &str| field.name.eq_ignore_ascii_case(name.as_bytes());
    if is("content-type") {
        exchange.state.error_page.content_type = Some(field.value.clone());
    } else if is("set-cookie") {
        let cookie = job.rules.cookie.and_then(|rewrite| rewrite(exchange, &field.value));
        let value = cookie.map_or_else(|| field.value.clone(), Bytes::from);
        exchange.state.error_page.kept.push(field.name.clone(), value);
    } else if is("content-disposition")
        || is("cache-control")
        || is("expires")
        || is("accept-ranges") && !job.rules.passing.force_ranges
    {
        exchange.state.error_page.kept.add(field.clone());
    }
}

/// `X-Accel-Limit-Rate`.
pub(super) fn steer(exchange: &mut Exchange, rules: &Rules<'_>, fields: &Fields) {
    let ignored = rules.passing.ignore_headers.has(Steering::LIMIT_RATE);
    if let Some(rate) = fields.get("x-accel-limit-rate").filter(|_| !ignored).and_then(parse_number) {
        exchange.state.core.limit_rate = Some(rate as u64);
    }
}

/// The answer in our own terms.
pub(super) fn translate(exchange: &Exchange, rules: &Rules<'_>, head: &ResponseHead) -> Box<Response> {
    let mut response = Box::new(Response::new(head.status));
    response.status_line = (!head.status_line.is_empty()).then(|| head.status_line.clone());
    response.content_length = head.content_length.filter(|_| !head.chunked);
    response.close = head.version == (0, 9);
    response.passed = !exchange.state.upstream.cache.keeps();
    response.ranges = rules.passing.force_ranges;
    response.single_range = true;
    if rules.hidden.contains(&"Date") {
        let passes = |name: &str| rules.passing.pass_header.iter().any(|known| same(known, name.as_bytes()));
        response.without = Unsigned { server: passes("Server"), date: passes("Date") };
    }
    for field in &head.fields {
        take(exchange, rules, field, &mut response);
    }
    if let Some(charset) = head.fields.get("x-accel-charset")
        && !rules.passing.ignore_headers.has(Steering::CHARSET)
    {
        response.wanted_charset = Some(Bytes::copy_from_slice(charset));
    }
    response
}

fn take(exchange: &Exchange, rules: &Rules<'_>, field: &Field, response: &mut Response) {
    let meaning = meaning(&field.name);
    match meaning {
        Meaning::Type => return content_type(&field.value, response),
        Meaning::HopByHop => return,
        _ if hidden(rules, field, meaning) => return,
        Meaning::AcceptRanges if rules.passing.force_ranges => return,
        // Of what is at hand whole, we serve the ranges.
        Meaning::AcceptRanges if exchange.state.upstream.cache.has() => {
            response.ranges = true;
            return;
        }
        Meaning::Encoding => response.encoded = true,
        _ => {}
    }
    let value = match meaning {
        Meaning::Cookie => rules.cookie.and_then(|rewrite| rewrite(exchange, &field.value)).map(Bytes::from),
        Meaning::Location | Meaning::Refresh => {
            let rewritten = rules.redirect.and_then(|redirect| redirect(exchange, &field.value)).map(Bytes::from);
            // What was rewritten becomes absolute, as redirects of our own do.
            rewritten.map(|to| if meaning == Meaning::Location { redirect::absolute(exchange, &to) } else { to })
        }
        _ => None,
    };
    response.fields.push(field.name.clone(), value.unwrap_or_else(|| field.value.clone()));
}

/// Whether a field is kept from clients: by nature, or by `_hide_header`.
fn hidden(rules: &Rules<'_>, field: &Field, meaning: Meaning) -> bool {
    is_hidden(&field.name, meaning, rules.hidden, &rules.passing.hide_header, &rules.passing.pass_header)
}

fn is_hidden(field: &[u8], meaning: Meaning, own: &[&str], hide: &List<Bytes>, pass: &List<Bytes>) -> bool {
    let wanted = |name: &Bytes| same(name, field);
    let by_nature = meaning == Meaning::Steering || own.iter().any(|name| same(name.as_bytes(), field));
    (by_nature || hide.iter().any(wanted)) && !pass.iter().any(wanted)
}

/// `early_hints`: passes a 103 on to a client that may have it (`ngx_http_upstream_process_early_hints`). `before` is the
/// length of those that came earlier.
pub(super) fn hint(exchange: &Exchange, job: &Job<'_>, head: &ResponseHead, before: &mut usize) {
    *before += head.length;
    if *before > job.rules.passing.buffer_size.0 {
        return exchange.log(Level::Info, "upstream sent too big early hints");
    }
    if exchange.depth > 0
        || exchange.head.version < (1, 1)
        || !exchange.location.settings.core.early_hints.test(exchange)
    {
        return;
    }
    let mut hint = b"HTTP/1.1 103 Early Hints\r\n".to_vec();
    let line = hint.len();
    for field in head.fields.iter().filter(|field| !hidden(&job.rules, field, meaning(&field.name))) {
        hint.extend_from_slice(&[&field.name[..], b": ", &field.value, b"\r\n"].concat());
    }
    if hint.len() > line {
        hint.extend_from_slice(b"\r\n");
        exchange.connection.side.send_interim(hint);
    }
}

/// `text/html; charset=utf-8` in its two parts (`ngx_http_upstream_copy_content_type`).
fn content_type(value: &Bytes, response: &mut Response) {
    let mut from = 0;
    while let Some(at) = memchr::memchr(b';', &value[from..]) {
        let at = from + at;
        let parameter = value[at + 1..].trim_ascii_start();
        if parameter.len() > 8 && parameter[..8].eq_ignore_ascii_case(b"charset=") {
            let charset = parameter[8..].trim_ascii();
            let charset = charset.strip_prefix(b"\"").unwrap_or(charset);
            let charset = charset.strip_suffix(b"\"").unwrap_or(charset);
            response.content_type = Some(value.slice(..at));
            response.content_type_as_sent = Some((value.clone(), Bytes::copy_from_slice(charset)));
            response.charset = Some(Bytes::copy_from_slice(charset));
            return;
        }
        from = at + 1;
    }
    response.content_type = Some(value.clone());
}

/// `X-Accel-Redirect`: the answer is another location's.
fn accel_redirect(exchange: &mut Exchange, target: &[u8]) -> Break {
    if target.starts_with(b"@") {
        return Break::Redirect(Redirect::Named(Bytes::copy_from_slice(target)));
    }
    match uri::parse_unsafe(target) {
        Ok((path, args)) => {
            if exchange.method != Method::Head {
                exchange.method = Method::Get;
                exchange.head.method = Bytes::from_static(b"GET");
            }
            let path = Bytes::copy_from_slice(&path);
            Break::Redirect(Redirect::Path { path, args: Bytes::copy_from_slice(args) })
        }
        Err(_) => {
            let text = format!("upstream sent unsafe X-Accel-Redirect \"{}\"", String::from_utf8_lossy(target));
            exchange.log(Level::Err, &text);
            Break::Status(404)
        }
    }
}
