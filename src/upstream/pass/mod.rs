//! The life of a request at an upstream, for every protocol: pick a peer, connect, send, read the head,
//! hand the body on, or ask the next one (`ngx_http_upstream.c`).

mod answer;
pub mod ask;
pub mod cached;
pub mod cgi;
mod choose;
pub mod settings;
pub mod variables;

pub use answer::Rules;
pub use ask::{Request, Sends};
pub use settings::Passing;

use super::{
    Failure, Group, Outcome, Reason, Selection,
    body::{Source, UpstreamBody},
    connect,
    failure::cases,
    load,
    local::Options,
    peer::Peer,
    wire::answer::Note,
};
use crate::{
    config::{Contexts, IF_IN_LOCATION, LIMIT_EXCEPT},
    http::{
        body::{BodyLimits, RequestBodyError},
        body_file,
        exchange::{Exchange, Try},
        heads::ResponseHead,
        phase::{Break, Phase},
    },
    observe::error_log::{Asked, Level},
};
use bytes::Bytes;
use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

/// Whether a level is a part of its location, so that it has the `_pass` of it.
pub fn is_part(level: Contexts) -> bool {
    level.allow(IF_IN_LOCATION.or(LIMIT_EXCEPT))
}

/// What a room wants passed on.
pub struct Job<'j> {
    pub group: Arc<Group>,
    /// How connections are opened.
    pub connecting: Options,
    /// What is done to the answer.
    pub rules: Rules<'j>,
    pub request: Request,
    /// For the log: `http://` and its kin.
    pub scheme: &'static str,
    /// For the log: the path that is asked for.
    pub uri: Bytes,
}

/// An answer whose head is here and whose body is coming.
pub struct Answer {
    pub head: ResponseHead,
    pub body: UpstreamBody,
}

/// Passes the request on and answers with what comes back.
pub async fn pass(exchange: &mut Exchange, job: &Job<'_>) -> Phase {
    let phase = attempts(exchange, job).await;
    if let Phase::Break(Break::Status(status)) = phase {
        cached::failed(exchange, job, status);
    }
    cached::count(exchange, job);
    exchange.state.upstream.cache.entry = None;
    choose::keep_cookie(exchange);
    phase
}

async fn attempts(exchange: &mut Exchange, job: &Job<'_>) -> Phase {
    // From here on the request ends if its client leaves: nobody would read the answer.
    let stored = job.rules.passing.store.value != settings::Store::Off || exchange.state.upstream.cache.keeps();
    if !exchange.state.upstream.cache.background {
        exchange.connection.abortable.set(!job.rules.passing.ignore_client_abort && !stored);
    }
    let clock = &Rc::clone(&exchange.connection.worker).clock;
    let started = clock.instant();
    let mut selection = job.group.select(choose::client(exchange, &job.group));
    selection.limit_tries(job.rules.passing.next_upstream_tries);
    let mut first = true;
    let mut new_pass = !exchange.tries.is_empty();
    loop {
        let peer = match choose::next(exchange, &mut selection, std::mem::take(&mut first)).await {
            Ok(peer) => peer,
            Err(nobody) => {
                let unknown = nobody == choose::Nobody::Live && job.group.is_unresolved();
                let reason = Some(if unknown { Reason::Unresolved } else { nobody.reason() });
                let peer = job.group.name.clone();
                exchange.tries.push(Try {
                    peer,
                    status: 502,
                    new_pass,
                    response_ms: Some(0),
                    reason,
                    ..Try::default()
                });
                let about = format!("{}{}{}", job.scheme, job.group.name, String::from_utf8_lossy(&job.uri));
                let asked = Asked { upstream: Some(&about), reason };
                exchange.log_asked(Level::Err, &format!("{nobody} while connecting to upstream"), asked);
                return instead_of(exchange, job, cases::ERROR, 502);
            }
        };
        tracing::debug!(connection = exchange.connection.serial, upstream = %job.group.name, peer = %peer.name, "peer chosen");
        let began = clock.instant();
        exchange.tries.push(Try { peer: peer.name.clone(), new_pass, began: Some(began), ..Try::default() });
        new_pass = false;
        exchange.asking = None;
        let mut attempt = Attempt { began, sent: false, reused: false };
        let outcome = ask::ask(&mut attempt, exchange, job, &peer).await;
        if outcome.is_err() {
            // A head was timed when it came.
            clock.update();
        }
        let (case, status, action, reason) = match outcome {
            Ok(answer) => {
                let status = answer.head.status;
                if let Some(name) = &job.group.loads.field
                    && let Some(field) = answer.head.fields.get(name)
                {
                    peer.report_load(load::in_field(field));
                }
                let case = repeatable(status).filter(|case| {
                    selection.tries() > 1 && attempt.may_go_on(exchange, job.rules.passing, *case, started)
                });
                match case {
                    None => return answer::respond(exchange, job, answer, selection, attempt.began, &peer),
                    Some(case) => {
                        answer.body.forgo(false);
                        (Some(case), status, "reading response header from upstream", Reason::of_case(case))
                    }
                }
            }
            Err(Failure::Client(error)) => {
                attempt.note_time(exchange);
                let bad = error == RequestBodyError::Gone && exchange.connection.side.bad_body();
                let error = if bad { RequestBodyError::Bad } else { error };
                attempt.failed(exchange, job, &peer, Reason::Client);
                return refuse_body(exchange, error, Some(&job.about(&peer)));
            }
            Err(failure) => {
                let reason = Reason::of(&failure, attempt.reused);
                job.log(exchange, &peer, &failure, attempt.sent, reason);
                (failure.case(), failure.status(), failure.action(attempt.sent), Some(reason))
            }
        };
        attempt.note_time(exchange);
        if let Some(attempt) = exchange.tries.last_mut() {
            attempt.status = status;
        }
        if let Some(reason) = reason {
            attempt.failed(exchange, job, &peer, reason);
        }
        let Some(case) = case else {
            // Nobody was asked.
            if let Some(attempt) = exchange.tries.last_mut() {
                attempt.status = 0;
                attempt.peer.clear();
            }
            return Phase::Break(Break::Status(status));
        };
        if release(exchange, &mut selection, case) {
            let text = format!("upstream server temporarily disabled while {action}");
            exchange.log_about(Level::Warn, &text, Some(&job.about(&peer)));
        }
        if attempt.reused && case == cases::ERROR {
            selection.give_back_try();
        }
        if selection.tries() == 0 || !attempt.may_go_on(exchange, job.rules.passing, case, started) {
            return instead_of(exchange, job, case, status);
        }
        if let (Some(reason), Some(stats)) = (reason, job.group.stats(&peer)) {
            stats.passed_over(reason);
        }
    }
}

/// What is answered when nobody else can be asked: an old answer, or the status.
fn instead_of(exchange: &mut Exchange, job: &Job<'_>, case: u32, status: u16) -> Phase {
    cached::old(exchange, job, case).unwrap_or(Phase::Break(Break::Status(status)))
}

/// Ends a request whose client has left while an upstream was asked: what is known of the attempt is noted
/// (`ngx_http_upstream_check_broken_connection`).
pub fn abandoned(exchange: &mut Exchange) {
    let clock = &Rc::clone(&exchange.connection.worker).clock;
    clock.update();
    let Some(attempt) = exchange.tries.last_mut() else { return };
    let Some(began) = attempt.began.filter(|_| attempt.response_ms.is_none()) else { return };
    attempt.response_ms = Some(clock.millis_since(began));
    attempt.reason = Some(Reason::Client);
    let action = match attempt.connect_ms {
        None => "connecting to upstream",
        Some(_) => "sending request to upstream",
    };
    if let Some(meter) = exchange.asking.take() {
        exchange.note_traffic(&meter);
    }
    let text = "epoll_wait() reported that client prematurely closed connection, so upstream connection is closed too";
    exchange.log(Level::Info, &format!("{text} while {action}"));
}

/// How grave it is what an answer gives to log.
pub fn level(note: &Note) -> Level {
    match note {
        Note::Stderr(_) | Note::Trailer => Level::Err,
        Note::TooMuch | Note::BehindEnd => Level::Warn,
        Note::NotFound(_) => Level::Info,
    }
}

/// Tells the group how it went; whether the peer is taken out now.
fn release(exchange: &Exchange, selection: &mut Selection, case: u32) -> bool {
    let outcome = match case {
        cases::HTTP_403 | cases::HTTP_404 => Outcome::Next,
        _ => Outcome::Failed,
    };
    selection.done(outcome, exchange.connection.worker.clock.millis())
}

/// The case for which an answer with this status is not taken, if another peer may be asked
/// (`ngx_http_upstream_test_next`).
fn repeatable(status: u16) -> Option<u32> {
    match status {
        500 => Some(cases::HTTP_500),
        502 => Some(cases::HTTP_502),
        503 => Some(cases::HTTP_503),
        504 => Some(cases::HTTP_504),
        403 => Some(cases::HTTP_403),
        404 => Some(cases::HTTP_404),
        429 => Some(cases::HTTP_429),
        _ => None,
    }
}

/// One attempt at one peer.
struct Attempt {
    began: Instant,
    /// The peer has seen some of the request.
    sent: bool,
    /// Over a kept connection.
    reused: bool,
}

impl Attempt {
    async fn connect(&self, exchange: &mut Exchange, job: &Job<'_>, peer: &Peer) -> Result<connect::Stream, Failure> {
        let stream = connect::connect(&peer.address, &job.connecting).await?;
        exchange.connection.worker.clock.update();
        self.connected(exchange);
        if let Some(stats) = job.group.stats(peer) {
            stats.connected(self.elapsed(exchange));
        }
        Ok(stream)
    }

    fn connected(&self, exchange: &mut Exchange) {
        let elapsed = self.elapsed_ms(exchange);
        if let Some(attempt) = exchange.tries.last_mut() {
            attempt.connect_ms = Some(elapsed);
        }
    }

    /// The head of the answer is here.
    fn answered(&self, exchange: &mut Exchange, group: &Group, peer: &Peer, status: u16) {
        exchange.connection.worker.clock.update();
        if let Some(stats) = group.stats(peer) {
            stats.answered(status, self.elapsed(exchange));
        }
        let elapsed = self.elapsed_ms(exchange);
        if let Some(attempt) = exchange.tries.last_mut() {
            attempt.header_ms = Some(elapsed);
        }
    }

    /// Whether another peer may be asked in this case: `proxy_next_upstream` and its timeout, and what was sent.
    fn may_go_on(&self, exchange: &Exchange, passing: &Passing, case: u32, started: Instant) -> bool {
        let non_idempotent = self.sent && !exchange.is_idempotent();
        let case = if non_idempotent { case | cases::NON_IDEMPOTENT } else { case };
        let limit = passing.next_upstream_timeout.0;
        let late = !limit.is_zero() && started.elapsed() >= limit;
        let spent = exchange.body.streamed();
        passing.next_upstream.covers(case) && !late && !spent
    }

    fn note_time(&self, exchange: &mut Exchange) {
        let elapsed = self.elapsed_ms(exchange);
        if let Some(attempt) = exchange.tries.last_mut() {
            attempt.response_ms = Some(elapsed);
        }
    }

    /// It came to nothing.
    fn failed(&self, exchange: &mut Exchange, job: &Job<'_>, peer: &Peer, reason: Reason) {
        let now = exchange.connection.worker.clock.millis();
        let Some(attempt) = exchange.tries.last_mut() else { return };
        attempt.reason = Some(reason);
        if let Some(stats) = job.group.stats(peer) {
            stats.moved(attempt.bytes_sent, attempt.bytes_received);
            stats.failed(reason, now);
        }
    }

    fn elapsed_ms(&self, exchange: &Exchange) -> u64 {
        exchange.connection.worker.clock.millis_since(self.began)
    }

    fn elapsed(&self, exchange: &Exchange) -> Duration {
        exchange.connection.worker.clock.instant().saturating_duration_since(self.began)
    }
}

impl Job<'_> {
    /// The upstream as the log names it.
    fn source(&self, peer: &Arc<Peer>) -> Source {
        Source { scheme: self.scheme, peer: Arc::clone(peer), uri: self.uri.clone() }
    }

    fn about(&self, peer: &Arc<Peer>) -> String {
        self.source(peer).text()
    }

    fn log(&self, exchange: &Exchange, peer: &Arc<Peer>, failure: &Failure, sent: bool, reason: Reason) {
        let level = match failure {
            // What it said is in the log.
            Failure::Caught => return,
            Failure::Client(_) => Level::Info,
            Failure::Local(_) => Level::Crit,
            Failure::Connect(_, error) => match error.raw_os_error() {
                Some(
                    libc::ECONNREFUSED
                    | libc::ENETDOWN
                    | libc::ENETUNREACH
                    | libc::EHOSTDOWN
                    | libc::EHOSTUNREACH
                    | libc::ETIMEDOUT
                    | libc::ECONNRESET,
                ) => Level::Err,
                _ => Level::Crit,
            },
            _ => Level::Err,
        };
        let text = format!("{failure} while {}", failure.action(sent));
        let about = self.about(peer);
        exchange.log_asked(level, &text, Asked { upstream: Some(&about), reason: Some(reason) });
    }
}

/// Reads the request's body before anybody is asked, so that its length is known and it can be sent to a
/// second peer, too.
///
/// Where the room's protocol `streams` bodies of unknown length and `_request_buffering` is off, it is passed on as it
/// comes instead.
pub async fn prepare(exchange: &mut Exchange, passing: &Passing, streams: bool) -> Phase {
    read_body(exchange, streams && !passing.request_buffering && passing.pass_request_body).await
}

/// Reads the request's body, whole or no further than it has come; an error ends the phases.
pub async fn read_body(exchange: &mut Exchange, early: bool) -> Phase {
    let core = &exchange.location.settings.core;
    let buffer = core.client_body_buffer_size.0;
    // A body that is not much longer gets a buffer of its own length (`ngx_http_read_client_request_body`).
    let announced = exchange.head.content_length.and_then(|length| usize::try_from(length).ok());
    let memory = announced.filter(|length| *length < buffer + buffer / 4).map_or(buffer, |length| length.max(buffer));
    let limits = BodyLimits { max: core.client_max_body_size.0, memory, gap: core.client_body_timeout.0 };
    let announces = exchange.head.has_body() || exchange.head.content_length.is_some();
    let prepared = if announces && !early { body_file::prepare(exchange, memory) } else { Ok(()) };
    let read = match (prepared, early) {
        (Err(error), _) => Err(error),
        (Ok(()), true) => Box::pin(exchange.body.read_early(limits)).await,
        (Ok(()), false) => exchange.body.read(limits).await,
    };
    if let Some((level, text)) = exchange.body.note() {
        exchange.log(level, &text);
    }
    if exchange.head.has_body() {
        // It may have been waited for.
        exchange.connection.worker.clock.update();
    }
    match read {
        Ok(()) => Phase::Continue(()),
        Err(RequestBodyError::Gone) if exchange.connection.side.bad_body() => {
            refuse_body(exchange, RequestBodyError::Bad, None)
        }
        Err(error) => refuse_body(exchange, error, None),
    }
}

/// What becomes of a request whose body could not be read, before or while an upstream was asked.
fn refuse_body(exchange: &mut Exchange, error: RequestBodyError, upstream: Option<&str>) -> Phase {
    let (level, status, silent) = match error {
        RequestBodyError::TooLarge => (Level::Err, 413, false),
        RequestBodyError::Bad => (Level::Err, 400, false),
        RequestBodyError::Disk => (Level::Crit, 500, false),
        RequestBodyError::Timeout => (Level::Info, 408, true),
        RequestBodyError::Gone => (Level::Info, 400, true),
    };
    match upstream {
        _ if error == RequestBodyError::Timeout => {}
        None => exchange.log(level, &error.to_string()),
        Some(_) => exchange.log_about(level, &format!("{error} while sending request to upstream"), upstream),
    }
    if silent {
        // Nobody is there to read an answer; the status is for the log.
        exchange.sent.status = status;
        return Phase::Break(Break::Close);
    }
    Phase::Break(Break::Status(status))
}
