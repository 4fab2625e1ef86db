//! Subrequests: requests of the server's own on behalf of a client's, answered by the same phases
//! (`ngx_http_subrequest`).

use super::{
    body::{Body, BodyError, RequestBody},
    content,
    exchange::Exchange,
    modules::ssi,
    phase::{Break, Phase},
    pipeline,
    response::Response,
};
use crate::observe::error_log::Level;
use bytes::Bytes;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// How deep subrequests may stand in each other (`NGX_HTTP_MAX_SUBREQUESTS` and one).
const MAX_DEPTH: u8 = 51;

/// How many of a request's there may be at a time (what nginx's counter of references has room for).
const MAX_ALIVE: usize = 65535 - 1000;

/// What a subrequest came to.
pub struct Answered {
    pub exchange: Exchange,
    pub response: Response,
}

/// How the answer of a subrequest is used.
#[derive(Default)]
pub struct Terms {
    /// It is kept as a value, and so includes nothing.
    pub in_memory: bool,
    /// What stands in its place if it is an error, or empty.
    pub stub: Option<Stub>,
}

/// A text that stands in for an answer.
pub struct Stub {
    pub text: Bytes,
    pub content_type: Option<Bytes>,
}

/// Why there is no subrequest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("subrequests cycle while processing \"{0}\"")]
    Cycle(String),
    #[error("request reference counter overflow while processing \"{0}\"")]
    TooMany(String),
    #[error("nested in-memory subrequest \"{0}\"")]
    Nested(String),
}

impl Refused {
    /// How bad nginx finds it.
    pub fn level(&self) -> Level {
        if matches!(self, Self::TooMany(_)) { Level::Crit } else { Level::Err }
    }
}

/// Answers a path with `GET`, to its head. `None`: it cannot be answered, which is in the log.
pub async fn subrequest(parent: &Exchange, path: &Bytes, args: &Bytes, body: RequestBody) -> Option<Answered> {
    answer(begin(parent, path, args, body)?).await
}

/// A subrequest before any phase; the caller may still change it. `None`: there is none, which is in the log.
pub fn begin(parent: &Exchange, path: &Bytes, args: &Bytes, body: RequestBody) -> Option<Exchange> {
    let child = try_begin(parent, path, args, body);
    child.inspect_err(|refused| parent.log(refused.level(), &refused.to_string())).ok()
}

/// The same, with what is to be logged.
///
/// # Errors
/// There are too many, in each other or at a time, or the parent may not have any.
pub fn try_begin(parent: &Exchange, path: &Bytes, args: &Bytes, body: RequestBody) -> Result<Exchange, Refused> {
    let shown = || String::from_utf8_lossy(path).into_owned();
    if parent.depth == MAX_DEPTH {
        Err(Refused::Cycle(shown()))
    } else if parent.relatives() >= MAX_ALIVE {
        Err(Refused::TooMany(shown()))
    } else if parent.terms.in_memory {
        Err(Refused::Nested(shown()))
    } else {
        Ok(parent.child(path.clone(), args.clone(), body))
    }
}

/// Answers a subrequest that has begun, of whose answer the head is all that is wanted.
pub async fn answer(exchange: Exchange) -> Option<Answered> {
    let mut answered = begun(exchange).await?;
    answered.finish();
    // A cache may want the rest.
    if let Some(body) = answered.response.body.upstream() {
        body.read_out(&answered.exchange.connection.worker);
    }
    Some(answered)
}

/// Answers a subrequest that has begun, up to its body.
async fn begun(mut exchange: Exchange) -> Option<Answered> {
    // A future of a type of its own would hold itself.
    let answer: Pin<Box<dyn Future<Output = Option<Box<Response>>> + '_>> =
        Box::pin(pipeline::subrequest(&mut exchange));
    let response = answer.await?;
    Some(answered(exchange, *response))
}

/// A subrequest that goes on where its parent stands, with the same method and in the same location
/// (`NGX_HTTP_SUBREQUEST_CLONE`).
pub fn begin_again(parent: &Exchange) -> Option<Exchange> {
    let mut child = begin(parent, &parent.path, &parent.args, parent.body.share())?;
    child.method = parent.method;
    child.head.method.clone_from(&parent.head.method);
    child.location = Arc::clone(&parent.location);
    child.valid_location = parent.valid_location;
    child.pristine = parent.pristine;
    child.quoted = parent.quoted;
    child.captures.clone_from(&parent.captures);
    Some(child)
}

/// Answers such a subrequest, by the content of the location alone.
pub async fn answer_again(mut exchange: Exchange) -> Option<Answered> {
    let ended: Pin<Box<dyn Future<Output = Phase> + '_>> = Box::pin(content::answer(&mut exchange));
    let mut answered = match ended.await {
        Phase::Break(Break::Answer(response)) => answered(exchange, *response),
        Phase::Break(Break::Status(status)) => answered(exchange, Response::new(status)),
        _ => return None,
    };
    answered.finish();
    Some(answered)
}

fn answered(mut exchange: Exchange, response: Response) -> Answered {
    exchange.sent.status = response.status;
    exchange.sent.text = super::response::preview(&exchange, &response);
    Answered { exchange, response }
}

impl Answered {
    /// The subrequest is over: `log_subrequest`.
    pub fn finish(&mut self) {
        let exchange = &mut self.exchange;
        if let Some(upstream) = self.response.body.upstream() {
            upstream.report(exchange);
        }
        if exchange.location.settings.core.log_subrequest {
            exchange.connection.worker.clock.update();
            exchange.sent.total = exchange.connection.side.sent_now();
            pipeline::log(exchange);
        }
    }
}

/// A subrequest whose answer's body is put out as part of another.
pub struct Subrequest(Stage);

enum Stage {
    Asking(Pin<Box<dyn Future<Output = Option<Answered>>>>),
    Answering(Box<Answered>),
    Over,
}

impl Subrequest {
    /// Of one that has begun.
    pub fn new(exchange: Exchange) -> Self {
        Self(Stage::Asking(Box::pin(begun(exchange))))
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        matches!(self.0, Stage::Over)
    }

    /// Goes on until the head of the answer is known.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        if let Stage::Asking(asking) = &mut self.0 {
            match ready!(asking.as_mut().poll(cx)) {
                Some(mut answered) => {
                    answered.response.body.read_ahead(cx);
                    self.0 = Stage::Answering(Box::new(answered));
                }
                None => {
                    self.0 = Stage::Over;
                    return Poll::Ready(Err(BodyError::Subrequest(444)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Lets what the answer itself includes go on.
    pub fn drive(&mut self, cx: &mut Context<'_>) {
        if let Stage::Answering(answered) = &mut self.0 {
            answered.response.body.drive(cx);
        }
    }

    /// The next piece of the body; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        if let Err(error) = ready!(self.poll_head(cx)) {
            return Poll::Ready(Some(Err(error)));
        }
        let Stage::Answering(answered) = &mut self.0 else { return Poll::Ready(None) };
        match ready!(answered.response.body.poll_next(cx)) {
            // What an upstream breaks off ends there, as in nginx; the rest of the page is not its fault.
            None | Some(Err(BodyError::Upstream(_))) => {
                answered.finish();
                self.0 = Stage::Over;
                Poll::Ready(None)
            }
            piece => Poll::Ready(piece),
        }
    }
}

/// A subrequest whose answer's body is kept (`ngx_http_postpone_filter_in_memory`).
pub struct Kept {
    subrequest: Subrequest,
    /// The most it may be, once the head is known.
    room: Option<usize>,
    bytes: Vec<u8>,
}

impl Kept {
    /// Of one that has begun.
    pub fn new(mut exchange: Exchange) -> Self {
        exchange.terms.in_memory = true;
        Self { subrequest: Subrequest::new(exchange), room: None, bytes: Vec::new() }
    }

    /// The body, once it has ended; `None` of an error, of an answer without one, and when it was told already.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        ready!(self.subrequest.poll_head(cx))?;
        let Stage::Answering(answered) = &self.subrequest.0 else { return Poll::Ready(Ok(None)) };
        let good = answered.response.status < 300 && answered.response.status != 204;
        let room = match self.room {
            Some(room) => room,
            None => *self.room.insert(room(answered)?),
        };
        loop {
            let doing = match &self.subrequest.0 {
                Stage::Answering(answered) => ssi::doing(&answered.exchange, &answered.response),
                _ => "",
            };
            match ready!(self.subrequest.poll_next(cx)).transpose()? {
                None => break,
                Some(piece) if piece.len() > room - self.bytes.len() => {
                    if let Stage::Answering(answered) = &self.subrequest.0 {
                        answered.exchange.log(Level::Err, &format!("too big subrequest response{doing}"));
                    }
                    return Poll::Ready(Err(BodyError::Subrequest(0)));
                }
                Some(piece) => self.bytes.extend_from_slice(&piece),
            }
        }
        let bytes = std::mem::take(&mut self.bytes);
        Poll::Ready(Ok(Some(Bytes::from(bytes)).filter(|_| good)))
    }
}

/// How long a body may be that is kept: as long as it says, which may not be more than `subrequest_output_buffer_size`.
fn room(answered: &Answered) -> Result<usize, BodyError> {
    let most = answered.exchange.location.settings.core.subrequest_output_buffer_size.0;
    match answered.response.content_length {
        None => Ok(most),
        Some(length) => usize::try_from(length).ok().filter(|length| *length <= most).ok_or_else(|| {
            let doing = ssi::doing(&answered.exchange, &answered.response);
            let text = format!("too big subrequest response: {length}{doing}");
            answered.exchange.log(Level::Err, &text);
            BodyError::Subrequest(0)
        }),
    }
}

/// A body with a text behind it that stands for it if it is empty.
pub struct StubBody {
    inner: Body,
    text: Bytes,
}

impl StubBody {
    /// A body, and what stands in for it.
    pub fn new(inner: Body, text: Bytes) -> Self {
        Self { inner, text }
    }

    /// The body itself.
    pub fn inner(&self) -> &Body {
        &self.inner
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.inner.is_empty()
    }

    /// The next piece; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        match ready!(self.inner.poll_next(cx)) {
            None if !self.text.is_empty() => Poll::Ready(Some(Ok(std::mem::take(&mut self.text)))),
            Some(Ok(piece)) => {
                if !piece.is_empty() {
                    self.text = Bytes::new();
                }
                Poll::Ready(Some(Ok(piece)))
            }
            other => Poll::Ready(other),
        }
    }
}
