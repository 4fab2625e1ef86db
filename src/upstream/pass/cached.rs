//! Where a request meets its cache: an answer that is kept is given, one that comes is kept, and an old one stands in
//! where none can be had (`ngx_http_upstream_cache` and what follows from it).

use super::{
    Job,
    answer::{self, Rules},
};
use crate::{
    config::values::parse_number,
    http::{
        dates,
        exchange::{Exchange, Method},
        heads::{ResponseHead, response::Progress},
        phase::{Break, Phase},
        response::{self, Response},
        subrequest,
    },
    observe::error_log::Level,
    upstream::{
        cache::{Caching, Entry, Found, Key, Status, Turn, Zone, policy, settings::Chosen},
        failure::cases,
        store::Store,
        wire::{
            answer::{Dialect, HeadReader},
            fastcgi,
        },
    },
};
use bytes::Bytes;
use std::{mem, rc::Rc, sync::Arc};

/// What a request remembers of its cache.
#[derive(Debug, Default)]
pub struct State {
    /// `$upstream_cache_status`, and of which cache.
    pub status: Option<(Status, Arc<Zone>)>,
    /// Until its answer is there, or is being kept.
    pub entry: Option<Box<Entry>>,
    /// It fetches an answer anew that was given already, and has this task from the request that was given it.
    pub background: bool,
    turn: Option<Turn>,
    /// The answer is one that was kept.
    given: bool,
    /// An upstream is asked whether an old one still holds (`_cache_revalidate`).
    revalidate: bool,
    /// What it is asked by: when that was modified, -1 if it does not say, and its `ETag`.
    asked: Option<Box<(i64, Bytes)>>,
}

impl State {
    /// The answer that comes may be kept: its request is made accordingly.
    pub fn keeps(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.keeps)
    }

    /// An old answer, of which the upstream is asked whether it still holds.
    fn doubted(&self) -> Option<&(i64, Bytes)> {
        self.asked.as_deref().filter(|_| self.is(Status::Expired))
    }

    /// There is a cache, and the answer is of it or on its way to it.
    pub fn has(&self) -> bool {
        self.given || self.keeps()
    }

    fn is(&self, status: Status) -> bool {
        self.status.as_ref().is_some_and(|(is, _)| *is == status)
    }

    fn set(&mut self, status: Status) {
        if let Some((is, _)) = &mut self.status {
            *is = status;
        }
    }

    /// Counts an answer, and what the cache gave of its body.
    fn count(&self, bytes: u64) {
        if let Some((status, zone)) = &self.status {
            zone.count(*status, bytes);
        }
    }
}

/// The request was passed on, and has its answer: counts it unless that was of the cache after all. The body of an
/// upstream's is counted when it ends.
pub(super) fn count(exchange: &Exchange, job: &Job<'_>) {
    let state = &exchange.state.upstream.cache;
    if job.rules.caching.is_some() && !state.given {
        state.count(0);
    }
}

/// Fields of the client that are not passed on where the answer is to be kept: it is asked for whole, and as if nobody
/// had it.
pub const OWN: [&str; 6] =
    ["if-modified-since", "if-unmodified-since", "if-none-match", "if-match", "range", "if-range"];

/// The fields that ask whether an old answer still holds: `If-Modified-Since` and `If-None-Match`; empty where there is
/// nothing to ask by.
pub fn questions(exchange: &Exchange) -> (Bytes, Bytes) {
    let Some((modified, etag)) = exchange.state.upstream.cache.doubted() else { return Default::default() };
    let since = (*modified != -1).then(|| Bytes::from(dates::http_date(*modified)));
    (since.unwrap_or_default(), etag.clone())
}

/// Answers from the cache. Goes on where the upstream has to be asked.
pub async fn look_up(
    exchange: &mut Exchange,
    rules: &Rules<'_>,
    dialect: &Dialect,
    key: impl FnOnce(&Exchange) -> Vec<u8>,
) -> Phase {
    let state = &mut exchange.state.upstream.cache;
    (state.entry, state.status, state.given) = (None, None, false);
    match rules.caching {
        Some(caching) if !matches!(caching.cache.value, Chosen::Off) && caching.takes(exchange.method) => {
            let key = key(exchange);
            // On the heap: what most requests have no use for.
            Box::pin(find(exchange, rules, caching, dialect, Key::new(key))).await
        }
        _ => Phase::Continue(()),
    }
}

async fn find(exchange: &mut Exchange, rules: &Rules<'_>, caching: &Caching, dialect: &Dialect, key: Key) -> Phase {
    let zone = match caching.zone(exchange) {
        Ok(Some(zone)) => zone,
        Ok(None) => return Phase::Continue(()),
        Err(text) => {
            exchange.log(Level::Err, &text);
            return Phase::Break(Break::Status(500));
        }
    };
    let size = rules.passing.buffer_size.0;
    let now = exchange.connection.worker.clock.millis();
    let length = key.text.len();
    let Some(mut entry) = Entry::new(Arc::clone(&zone), key, caching, size, now) else {
        let enough = Entry::least_size(length).next_multiple_of(1024);
        let directive = rules.directive;
        exchange.log(
            Level::Err,
            &format!(
                "{directive}_buffer_size {size} is not enough for cache key, it should be increased to at least {enough}"
            ),
        );
        return Phase::Continue(());
    };
    let state = &mut exchange.state.upstream.cache;
    state.revalidate = caching.revalidate;
    state.status = Some((Status::Miss, zone));
    if caching.bypass.test(exchange) {
        let state = &mut exchange.state.upstream.cache;
        state.set(Status::Bypass);
        state.entry = Some(entry);
        return Phase::Continue(());
    }
    let found = entry.open(exchange).await;
    let state = &mut exchange.state.upstream.cache;
    if let Some(turn) = state.turn.take() {
        entry.take_turn(turn);
    }
    let may = (caching.use_stale.has(cases::UPDATING) || entry.stale_updating()) && !state.background;
    let status = match found {
        Found::Fresh => Status::Hit,
        Found::Updating if may => Status::Updating,
        Found::Stale if may && caching.background_update => {
            if !update_in_background(exchange, &mut entry) {
                return Phase::Break(Break::Status(500));
            }
            Status::Stale
        }
        Found::Stale | Found::Updating => {
            entry.expire();
            state.asked = state.revalidate.then(|| Box::new((entry.last_modified, entry.etag.clone())));
            Status::Expired
        }
        Found::Nothing => Status::Miss,
        Found::Scarce => {
            entry.keeps = false;
            Status::Miss
        }
        Found::Error(error) => {
            state.set(Status::Hit);
            state.count(0);
            return Phase::Break(Break::Status(error));
        }
        Found::Failed => return Phase::Break(Break::Status(500)),
    };
    let state = &mut exchange.state.upstream.cache;
    state.set(status);
    if matches!(status, Status::Hit | Status::Stale | Status::Updating) {
        match give(exchange, rules, dialect, &mut entry) {
            Some(response) => return Phase::Break(Break::Answer(response)),
            None => exchange.state.upstream.cache.set(Status::Miss),
        }
    }
    entry.keeps &= !fetched_alone(exchange, caching);
    exchange.state.upstream.cache.entry = Some(entry);
    Phase::Continue(())
}

/// A range that begins so late that the whole is not fetched for it (`_cache_max_range_offset`).
fn fetched_alone(exchange: &Exchange, caching: &Caching) -> bool {
    let (Some(range), Some(most)) = (exchange.field("range"), caching.max_range_offset) else { return false };
    if most.0 == 0 {
        return true;
    }
    if range.len() < 7 || !range[..6].eq_ignore_ascii_case(b"bytes=") {
        return false;
    }
    let first = range[6..].trim_ascii_start();
    let digits = first.iter().take_while(|byte| byte.is_ascii_digit()).count();
    first.starts_with(b"-") || parse_number(&first[..digits]).is_some_and(|offset| offset as u64 >= most.0)
}

/// Has an answer fetched anew by another request, while this one is given the old one
/// (`ngx_http_upstream_cache_background_update`).
fn update_in_background(exchange: &Exchange, entry: &mut Entry) -> bool {
    let Some(mut child) = subrequest::begin_again(exchange) else { return false };
    child.state.upstream.cache = State { background: true, turn: entry.give_turn(), ..State::default() };
    let worker = Rc::clone(&exchange.connection.worker);
    tokio::task::spawn_local(async move {
        if let Some(answered) = subrequest::answer_again(child).await
            && let Some(body) = answered.response.upstream()
        {
            body.read_out(&worker);
        }
    });
    true
}

/// The answer that was found (`ngx_http_upstream_cache_send`). `None` if it cannot be read, which is in the log.
fn give(exchange: &mut Exchange, rules: &Rules<'_>, dialect: &Dialect, entry: &mut Entry) -> Option<Box<Response>> {
    let mut text = entry.head();
    let head = if text.is_empty() {
        // Then there never was any.
        exchange.head.version = (0, 9);
        ResponseHead { version: (0, 9), status: 200, ..ResponseHead::default() }
    } else {
        let mut reader = HeadReader::new(dialect);
        let size = text.len() + 1;
        match reader.parse(&mut text, size) {
            Ok(Progress::Complete(n)) => reader.finish(text.split_to(n).freeze()),
            _ => {
                let text = format!("cache file \"{}\" contains invalid header", entry.path().display());
                exchange.log(Level::Crit, &text);
                return None;
            }
        }
    };
    // What it says of being kept decides who looks at the client's conditions.
    let keep = heard(exchange, rules, &head, entry);
    let (body, length) = entry.body();
    exchange.state.upstream.cache.given = true;
    let mut response = answer::translate(exchange, rules, &head);
    response.passed = !(entry.keeps && keep);
    response.single_range = false;
    answer::steer(exchange, rules, &head.fields);
    exchange.upstream_fields = head.fields;
    let bodyless = response.bodyless(exchange);
    exchange.state.upstream.cache.count(if bodyless { 0 } else { length });
    if !bodyless {
        response.body = body;
    }
    Some(response)
}

/// Notes what an answer says of being kept; whether it may be by that.
fn heard(exchange: &Exchange, rules: &Rules<'_>, head: &ResponseHead, entry: &mut Entry) -> bool {
    let now = exchange.connection.worker.clock.unix();
    let said = policy::read(&head.fields, rules.passing.ignore_headers, now, entry.validity);
    entry.keeps &= !said.barred;
    entry.validity = said.validity;
    entry.vary(said.vary);
    said.keep
}

/// The head of an answer is here: notes what it says of being kept, and finds the old answer that is given in its place,
/// where it tells that it still holds, or nothing better.
pub(super) fn instead(exchange: &mut Exchange, job: &Job<'_>, head: &ResponseHead) -> Option<Phase> {
    let mut entry = exchange.state.upstream.cache.entry.take()?;
    let caching = job.rules.caching?;
    let keep = heard(exchange, &job.rules, head, &mut entry);
    if exchange.state.upstream.cache.is(Status::Expired) {
        let case = super::repeatable(head.status).unwrap_or(0);
        if caching.use_stale.has(case) {
            return Some(stale(exchange, job, &mut entry));
        }
        if head.status == 304 && caching.revalidate {
            return Some(revalidated(exchange, job, caching, &mut entry));
        }
    }
    entry.keeps &= keep;
    exchange.state.upstream.cache.entry = Some(entry);
    None
}

/// The old answer, where no better one is to be had (`_cache_use_stale`).
pub(super) fn old(exchange: &mut Exchange, job: &Job<'_>, case: u32) -> Option<Phase> {
    let state = &mut exchange.state.upstream.cache;
    if !state.is(Status::Expired) {
        return None;
    }
    let stale_error = state.entry.as_ref()?.stale_error();
    if !job.rules.caching?.use_stale.has(case) && !stale_error {
        return None;
    }
    let mut entry = state.entry.take()?;
    Some(stale(exchange, job, &mut entry))
}

fn stale(exchange: &mut Exchange, job: &Job<'_>, entry: &mut Entry) -> Phase {
    exchange.state.upstream.cache.set(Status::Stale);
    Phase::Break(match give(exchange, &job.rules, &job.request.dialect, entry) {
        Some(response) => Break::Answer(response),
        None => Break::Status(500),
    })
}

/// The upstream says that the old answer still holds.
fn revalidated(exchange: &mut Exchange, job: &Job<'_>, caching: &Caching, entry: &mut Entry) -> Phase {
    exchange.state.upstream.cache.set(Status::Revalidated);
    let said = entry.validity;
    let Some(response) = give(exchange, &job.rules, &job.request.dialect, entry) else {
        return Phase::Break(Break::Status(500));
    };
    if said.until != 0 {
        entry.validity = said;
    }
    if remember_until(exchange, caching, entry, response.status) {
        entry.renew(exchange, entry.validity);
    }
    Phase::Break(Break::Answer(response))
}

/// Has the answer kept that is on its way to the client, if it may be. It was asked for as often as it takes.
pub(super) fn keep(
    exchange: &mut Exchange,
    job: &Job<'_>,
    head: &mut ResponseHead,
    response: &Response,
) -> Option<Box<Store>> {
    let mut entry = exchange.state.upstream.cache.entry.take()?;
    let caching = job.rules.caching?;
    entry.close();
    // What speaks against it may be a field of this answer, as it came or as it goes.
    if !caching.no_cache.0.is_empty() {
        exchange.sent.status = response.status;
        exchange.sent.text = response::preview(exchange, response);
    }
    mem::swap(&mut exchange.upstream_fields, &mut head.fields);
    let not = caching.no_cache.test(exchange);
    mem::swap(&mut exchange.upstream_fields, &mut head.fields);
    if not {
        return None;
    }
    // Nobody has looked for it yet.
    if exchange.state.upstream.cache.is(Status::Bypass) && !entry.create(exchange) {
        return None;
    }
    // An answer without a head has no status.
    let status = if head.version == (0, 9) { 0 } else { head.status };
    if !entry.keeps || !remember_until(exchange, caching, &mut entry, status) {
        return None;
    }
    let dated = matches!(head.status, 200 | 206);
    let field = |name: &str| head.fields.get(name).filter(|_| dated);
    entry.last_modified = field("last-modified").and_then(dates::parse_http_time).unwrap_or(-1);
    entry.etag = field("etag").map(Bytes::copy_from_slice).unwrap_or_default();
    let text = match &job.request.dialect {
        _ if head.version == (0, 9) => Bytes::new(),
        Dialect::FastCgi(_) => fastcgi::output(&head.text).into(),
        _ => head.text.clone(),
    };
    if !entry.fits(&text) {
        return None;
    }
    if let Some((status, _)) = &exchange.state.upstream.cache.status {
        entry.fared = *status;
    }
    let start = entry.begin_file(exchange, &text)?;
    let folder = &job.rules.passing.bounds.as_ref()?.folder;
    let created = Store::cache(folder, entry, &start);
    created.map_err(|error| exchange.log(Level::Crit, &format!("{error} while reading upstream"))).ok()
}

/// An answer with this status has a page in its place: that is remembered without a file.
pub(super) fn intercepted(exchange: &mut Exchange, job: &Job<'_>, status: u16) {
    let Some(mut entry) = exchange.state.upstream.cache.entry.take() else { return };
    if let Some(caching) = job.rules.caching
        && entry.keeps
        && remember_until(exchange, caching, &mut entry, status)
    {
        entry.keep_error(status);
    }
}

/// No upstream has answered: that may be remembered, too (`ngx_http_upstream_finalize_request`).
pub(super) fn failed(exchange: &mut Exchange, job: &Job<'_>, status: u16) {
    let Some(mut entry) = exchange.state.upstream.cache.entry.take() else { return };
    // What an answer said does not count for this.
    entry.expire();
    if matches!(status, 502 | 504)
        && entry.keeps
        && let Some(caching) = job.rules.caching
        && remember_until(exchange, caching, &mut entry, status)
    {
        entry.keep_error(status);
    }
}

/// Until when it is kept: as it says itself, else by `_cache_valid`; whether either says so.
fn remember_until(exchange: &Exchange, caching: &Caching, entry: &mut Entry, status: u16) -> bool {
    if entry.validity.until == 0 {
        let valid = caching.valid(status);
        if valid == 0 {
            return false;
        }
        entry.validity.until = exchange.connection.worker.clock.unix().saturating_add(valid);
    }
    true
}

/// Whether the answer to a request without a body is fetched with one, to be kept (`proxy_cache_convert_head`).
pub fn converts_head(exchange: &Exchange, caching: &Caching) -> bool {
    exchange.method == Method::Head && caching.convert_head && exchange.state.upstream.cache.entry.is_some()
}
