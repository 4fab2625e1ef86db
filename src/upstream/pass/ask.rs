//! One attempt: a kept connection or a new one, the request over it, and the head of the answer.

use super::{Answer, Attempt, Job, Passing, answer, level};
use crate::{
    http::{
        body::{Body, RequestBody},
        exchange::Exchange,
        heads::{ResponseHead, ServerSide},
    },
    upstream::{
        Failure, Reason,
        body::UpstreamBody,
        lease::Lease,
        link::{Link, Outbound, Sending},
        peer::Peer,
        pool::Key,
        wire::{Frames, answer::Dialect},
    },
};
use bytes::Bytes;
use std::{future::poll_fn, rc::Rc, sync::Arc, task::Poll};
use tokio::time::Instant;

/// A request as it goes to every peer that is asked.
pub struct Request {
    /// The whole head: down to the empty line, or a packet.
    pub head: Bytes,
    pub body: Sends,
    pub frames: Frames,
    /// The protocol of the answer.
    pub dialect: Dialect,
    /// The answer has no body.
    pub head_only: bool,
    /// The connection may serve other requests before and afterwards.
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

impl Sends {
    /// As `_pass_request_body` says.
    pub fn by(passing: &Passing) -> Self {
        if passing.pass_request_body { Self::Client } else { Self::Nothing }
    }

    fn outbound(&self, body: &mut RequestBody) -> Outbound {
        match self {
            Self::Nothing => Outbound::Kept(Body::Empty),
            Self::Text(text) => Outbound::Kept(Body::from(text.clone())),
            Self::Client => match body.take_stream() {
                Some(arriving) => Outbound::Streamed(arriving),
                None => Outbound::Kept(body.replay()),
            },
        }
    }
}

/// Sends the request and reads the head of the answer.
pub(super) async fn ask(
    attempt: &mut Attempt,
    exchange: &mut Exchange,
    job: &Job<'_>,
    peer: &Arc<Peer>,
) -> Result<Answer, Failure> {
    let key = Key::new(&job.group, peer, job.connecting.local, &exchange.location);
    let worker = Rc::clone(&exchange.connection.worker);
    while job.request.keepalive
        && let Some(link) = worker.pool.take(&key)
    {
        attempt.reused = true;
        tracing::debug!(connection = exchange.connection.serial, requests = link.requests, "kept connection taken");
        attempt.connected(exchange);
        if let Some(stats) = job.group.stats(peer) {
            stats.took_kept();
        }
        let meter = Rc::clone(&link.meter);
        match over(link, key.clone(), attempt, exchange, job).await {
            // It died while nobody looked: that says nothing of the peer, and it has not seen the request.
            Err(Failure::Closed | Failure::Io(..))
                if meter.received_now() == 0 && exchange.may_repeat(attempt.sent) =>
            {
                if let Some(stats) = job.group.stats(peer) {
                    stats.passed_over(Reason::ResetOnReused);
                }
            }
            outcome => return outcome,
        }
    }
    attempt.reused = false;
    let stream = attempt.connect(exchange, job, peer).await?;
    let link = Link::new(stream, worker.clock.instant());
    over(link, key, attempt, exchange, job).await
}

/// The same over one connection.
async fn over(
    mut link: Box<Link>,
    key: Key,
    attempt: &mut Attempt,
    exchange: &mut Exchange,
    job: &Job<'_>,
) -> Result<Answer, Failure> {
    let worker = Rc::clone(&exchange.connection.worker);
    let request = &job.request;
    link.begin(&request.dialect);
    exchange.asking = Some(Rc::clone(&link.meter));
    let body = request.body.outbound(&mut exchange.body);
    let client = body.waits_for_client().then(|| exchange.connection.side.clone());
    let mut sending = Sending::new(request.head.clone(), body, request.frames);
    let head = match job.rules.tunnel {
        false => patiently(&mut link, &mut sending, job, exchange, client.as_ref(), key.peer()).await,
        // Who is connected to says nothing before the client does.
        true => Ok(ResponseHead { version: (1, 1), status: 200, upgrade: true, ..ResponseHead::default() }),
    };
    attempt.sent = link.meter.sent_now() > 0;
    exchange.note_traffic(&link.meter);
    let head = head?;
    tracing::debug!(connection = exchange.connection.serial, status = u64::from(head.status), "answer's head read");
    attempt.answered(exchange, &job.group, key.peer(), head.status);
    // Who answers before everything was sent gets no more of it, and nothing else, either.
    let keep = request.keepalive && !head.close && !head.upgrade && sending.is_done();
    let rest = link.body(&head, request.head_only);
    let body = UpstreamBody::new(Lease { worker, key, link, keep }, rest, job.rules.passing.read_timeout.0);
    Ok(Answer { head, body })
}

/// Waits for an answer as long as bytes move: `_send_timeout` between writes, `_read_timeout` for the head.
async fn patiently(
    link: &mut Link,
    sending: &mut Sending,
    job: &Job<'_>,
    exchange: &Exchange,
    client: Option<&ServerSide>,
    peer: &Arc<Peer>,
) -> Result<ResponseHead, Failure> {
    let clock = &exchange.connection.worker.clock;
    let (mut moved, mut hinted) = (0, 0);
    // The key stands before a head that is to be kept.
    let kept = exchange.state.upstream.cache.entry.as_ref().map(|entry| entry.head_limit());
    let size = kept.unwrap_or(job.rules.passing.buffer_size.0);
    let mut until = Instant::from_std(clock.instant());
    poll_fn(|cx| {
        loop {
            let answer = link.poll_answer(cx, sending, size);
            for note in link.notes(matches!(answer, Poll::Ready(Err(Failure::Closed | Failure::Io(..))))) {
                let text = format!("{note} while reading response header from upstream");
                exchange.log_about(level(&note), &text, Some(&job.about(peer)));
            }
            match answer {
                // Only HTTP has hints.
                Poll::Ready(Ok(head)) if head.status == 103 && head.version >= (1, 1) => {
                    answer::hint(exchange, job, &head, &mut hinted);
                }
                Poll::Ready(answer) => return Poll::Ready(answer),
                Poll::Pending => break,
            }
        }
        let counted = 1 + link.meter.sent_now() + link.meter.received_now();
        if counted != moved {
            if moved != 0 {
                clock.update();
            }
            moved = counted;
            let blocked = link.meter.write_blocked();
            until = Instant::from_std(clock.instant())
                + if blocked { job.rules.passing.send_timeout.0 } else { job.rules.passing.read_timeout.0 };
        }
        // While the client has yet to send, the upstream is not to blame: `client_body_timeout` runs.
        while link.deadline.poll(cx, until).is_ready() {
            if !client.is_some_and(|client| client.read_waiting()) {
                let blocked = link.meter.write_blocked();
                return Poll::Ready(Err(if blocked { Failure::SendTimeout } else { Failure::Timeout }));
            }
            until = Instant::now() + job.rules.passing.read_timeout.0;
        }
        Poll::Pending
    })
    .await
}
