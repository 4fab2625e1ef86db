//! HTTP/1 to a peer: a kept connection or a new one, hyper's framing, our heads.

use super::{Answer, Attempt, Job};
use crate::{
    http::{
        arriving::Arriving,
        body::{Body, BodyError, RequestBody},
        exchange::Exchange,
        heads::{self, ClientSide, Framing, HeadError, ServerSide},
        worker::Clock,
    },
    upstream::{
        Failure,
        body::{Lease, UpstreamBody},
        peer::Peer,
        pool::{Key, Link},
    },
};
use bytes::Bytes;
use hyper::body::Frame;
use std::{
    error::Error,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};
use tokio::time::Instant;

/// A request as it goes to every peer that is asked.
pub struct Request {
    /// The whole head, down to the empty line.
    pub head: Bytes,
    pub framing: Framing,
    pub body: Sends,
    pub head_only: bool,
    /// The connection may serve other requests afterwards.
    pub keepalive: bool,
}

/// Whose body goes to the upstream.
pub enum Sends {
    /// None (`_pass_request_body off`).
    Nothing,
    /// The client's.
    Client,
    /// `proxy_set_body`.
    Text(Bytes),
}

/// What is sent as a request's body: once more from what was kept, or as it comes from the client.
pub enum Outbound {
    Kept(Body),
    Streamed(Box<Arriving>),
}

impl Outbound {
    pub(super) fn of(body: &mut RequestBody, sends: &Sends) -> Self {
        match sends {
            Sends::Nothing => Self::Kept(Body::Empty),
            Sends::Text(text) => Self::Kept(Body::from(text.clone())),
            Sends::Client => match body.take_stream() {
                Some(arriving) => Self::Streamed(arriving),
                None => Self::Kept(body.replay()),
            },
        }
    }

    fn waits_for_client(&self) -> bool {
        matches!(self, Self::Streamed(_))
    }
}

impl hyper::body::Body for Outbound {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Kept(body) => body.poll_next(cx).map(|next| next.map(|piece| piece.map(Frame::data))),
            Self::Streamed(arriving) => arriving.poll_next(cx).map(|next| match next? {
                Ok(piece) => Some(Ok(Frame::data(piece))),
                Err(error) => Some(Err(BodyError::Upstream(Failure::Client(error)))),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Kept(body) => body.is_empty(),
            Self::Streamed(arriving) => arriving.is_over(),
        }
    }
}

/// Sends the request and reads the head of the answer.
pub(super) async fn ask(
    attempt: &mut Attempt,
    exchange: &mut Exchange,
    job: &Job<'_>,
    peer: &Arc<Peer>,
    request: &Request,
) -> Result<Answer, Failure> {
    let key = Key::new(&job.group, peer, job.connecting.local);
    let worker = Rc::clone(&exchange.connection.worker);
    while let Some(link) = worker.pool.take(&key) {
        attempt.reused = true;
        attempt.connected(exchange);
        let side = link.side.clone();
        match over(link, &key, attempt, exchange, job, request).await {
            // It died while nobody looked: that says nothing of the peer, and it has not seen the request.
            Err(Failure::Closed | Failure::Io(..)) if side.received_now() == 0 && exchange.may_repeat(attempt.sent) => {
            }
            outcome => return outcome,
        }
    }
    attempt.reused = false;
    let stream = attempt.connect(exchange, job, peer).await?;
    let link = Link::open(stream).await?;
    over(link, &key, attempt, exchange, job, request).await
}

/// The same over one connection.
async fn over(
    mut link: Box<Link>,
    key: &Key,
    attempt: &mut Attempt,
    exchange: &mut Exchange,
    job: &Job<'_>,
    request: &Request,
) -> Result<Answer, Failure> {
    let worker = Rc::clone(&exchange.connection.worker);
    if poll_fn(|cx| link.poll_ready(cx)).await.is_err() {
        return Err(Failure::Closed);
    }
    link.requests += 1;
    link.side.request(request.head.clone(), job.passing.buffer_size.0);
    exchange.asking = Some(link.side.clone());
    let body = Outbound::of(&mut exchange.body, &request.body);
    let client = body.waits_for_client().then(|| exchange.connection.side.clone());
    let message = heads::framing::request(request.framing, request.head_only, request.keepalive, body);
    let sending = link.sender.send_request(message);
    let response = patiently(&mut link, job, &worker.clock, client.as_ref(), sending).await;
    attempt.sent = link.side.sent_now() > 0;
    exchange.note_traffic(&link.side);
    let incoming = response?.map_err(|error| failure(&link.side, &error))?.into_body();
    let Some(head) = link.side.take_response() else { return Err(Failure::Closed) };
    attempt.answered(exchange);
    let keep = request.keepalive && !head.close && !head.upgrade;
    let lease = Lease::new(worker, key.clone(), link, keep);
    let body = UpstreamBody::http(incoming, lease, job.passing.read_timeout.0);
    Ok(Answer { head, body })
}

/// Waits for an answer as long as bytes move: `_send_timeout` between writes, `_read_timeout` for the head.
async fn patiently<T>(
    link: &mut Link,
    job: &Job<'_>,
    clock: &Clock,
    client: Option<&ServerSide>,
    sending: impl Future<Output = T>,
) -> Result<T, Failure> {
    let mut sending = std::pin::pin!(sending);
    let mut moved = 0;
    let mut until = Instant::from_std(clock.instant());
    poll_fn(|cx| {
        link.drive(cx);
        // It can only be ready because of what was just driven.
        if let Poll::Ready(answer) = sending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Poll::Ready(Ok(answer));
        }
        let counted = 1 + link.side.sent_now() + link.side.received_now();
        if counted != moved {
            if moved != 0 {
                clock.update();
            }
            moved = counted;
            let blocked = link.side.write_blocked();
            until = Instant::from_std(clock.instant())
                + if blocked { job.passing.send_timeout.0 } else { job.passing.read_timeout.0 };
        }
        // While the client has yet to send, the upstream is not to blame: `client_body_timeout` runs.
        while link.deadline.poll(cx, until).is_ready() {
            if !client.is_some_and(|client| client.read_waiting()) {
                return Poll::Ready(Err(Failure::Timeout));
            }
            until = Instant::now() + job.passing.read_timeout.0;
        }
        Poll::Pending
    })
    .await
}

/// Why there is no answer: what our head parser said, or what hyper says.
fn failure(side: &ClientSide, error: &hyper::Error) -> Failure {
    match side.take_fault() {
        Some(HeadError::Closed) => return Failure::Closed,
        Some(HeadError::Io(kind)) => {
            return Failure::Io("recv()", crate::http::files::errno(&std::io::Error::from(kind)));
        }
        Some(fault) => return Failure::Invalid(fault.to_string()),
        None => {}
    }
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>()
            && io.raw_os_error().is_some()
        {
            return Failure::Io("recv()", crate::http::files::errno(io));
        }
        if let Some(BodyError::Upstream(Failure::Client(error))) = inner.downcast_ref() {
            return Failure::Client(*error);
        }
        cause = inner.source();
    }
    Failure::Closed
}
