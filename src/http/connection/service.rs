//! What answers a request: from a head to an exchange, from a response to bytes.

use super::{Asked, Connection, Stream};
use crate::{
    http::{
        agent::Agent,
        body::{Body, BodyError, Outgoing, RequestBody},
        exchange::{Exchange, Method},
        heads::{Framing, Incoming, Refusal, RequestHead, Sending, ServerHandle},
        limit_rate,
        modules::core::Browsers,
        pipeline,
        response::{self, Response},
        uri, zones,
    },
    observe::error_log::Level,
    upstream::{link::Link, pass},
};
use bytes::Bytes;
use std::{rc::Rc, sync::Arc, time::Duration};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// An answer, to be sent.
pub(super) struct Answer {
    pub(super) sending: Sending<Outgoing>,
    /// What follows behind it.
    pub(super) switch: Option<Box<Switch>>,
    /// The rest of the request is to be read away.
    pub(super) discards: bool,
}

/// A request as it arrives, and the status it is refused with; 0 if it is not.
pub(super) fn arrive(
    connection: &Rc<Connection>,
    asked: Asked,
    incoming: impl FnOnce() -> Incoming,
) -> (UnderWay, u16) {
    match asked {
        Asked::Request(head) => {
            connection.worker.clock.update();
            let body = RequestBody::new(head.has_body().then(incoming));
            let mut under_way = UnderWay::new(exchange(connection, head, body));
            let exchange = under_way.exchange();
            for line in &std::mem::take(&mut exchange.head.dropped) {
                let text = format!("client sent invalid header line: \"{}\"", String::from_utf8_lossy(line));
                exchange.log(Level::Info, &text);
            }
            let refused = place(exchange).err().unwrap_or(0);
            (under_way, refused)
        }
        // A request that nginx refuses still has a server, an error page and a log line.
        Asked::Refused(refusal) => {
            let (text, status) = (refusal.to_string(), refusal.status);
            let mut under_way = UnderWay::new(exchange(connection, Box::new(refusal.head), RequestBody::default()));
            let exchange = under_way.exchange();
            if !exchange.head.target.is_empty() {
                // Logs and error pages speak of what could be read.
                let _ = place(exchange);
            }
            exchange.log(Level::Info, &text);
            connection.broken.set(true);
            (under_way, status)
        }
    }
}

/// Makes the answer to a request. `None`: the connection is to be closed without a word.
pub(super) async fn answer(mut under_way: UnderWay, refused: u16) -> Option<Box<Answer>> {
    let exchange = under_way.exchange();
    let mut response = match refused {
        0 => pipeline::answer(exchange).await,
        status => Box::pin(pipeline::refuse(exchange, status)).await,
    };
    if let Some(answer) = response.take_if(|answer| answer.body.includes() && !answer.bodyless(exchange)) {
        response = Box::pin(postpone(exchange, answer)).await;
    }
    send(under_way.take(), response)
}

/// The exchange of a request: its server is chosen by name.
pub(in crate::http) fn exchange(
    connection: &Rc<Connection>,
    head: Box<RequestHead>,
    body: RequestBody,
) -> Box<Exchange> {
    let http = connection.http();
    let name = head.host.as_ref().map(|host| host.name.clone()).unwrap_or_default();
    let listener = connection.listener();
    let hosts = listener.host(|| connection.local());
    let (server, found) = match hosts.find(&name).ok().flatten() {
        Some(found) => (Arc::clone(found.value), found.regex),
        None => (Arc::clone(&hosts.default), None),
    };
    let mut exchange = Box::new(Exchange::new(http, Rc::clone(connection), server, head, body));
    if let Some((regex, captures)) = found {
        pipeline::captured(&mut exchange, regex, &captures, name.clone());
    }
    zones::begin(&exchange);
    exchange.host = if name.is_empty() { exchange.server.name.clone() } else { name };
    exchange
}

/// Takes the target apart: `$uri` and `$args`.
pub(in crate::http) fn place(exchange: &mut Exchange) -> Result<(), u16> {
    // nginx takes it apart before it knows which server is meant.
    let merge = {
        let listener = exchange.connection.listener();
        listener.host(|| exchange.connection.local()).default.base.settings.core.merge_slashes
    };
    let raw = exchange.head.target.clone();
    let Ok(target) = uri::normalise(&raw, merge) else {
        exchange.log(Level::Info, "client sent invalid request while reading client request line");
        exchange.connection.broken.set(true);
        return Err(400);
    };
    exchange.args = raw.slice_ref(target.args);
    exchange.pristine = target.valid_unparsed;
    exchange.quoted = target.quoted;
    exchange.path = match target.path {
        std::borrow::Cow::Borrowed(path) if raw.as_ptr_range().contains(&path.as_ptr()) => raw.slice_ref(path),
        path => Bytes::from(path.into_owned()),
    };
    Ok(())
}

/// Waits for so much of an answer as nginx would not send alone (`postpone_output`), where it is made of others: if one
/// of them ends the request by then, nothing is sent.
async fn postpone(exchange: &mut Exchange, mut response: Box<Response>) -> Option<Box<Response>> {
    exchange.sent.status = response.status;
    let enough = exchange.location.settings.core.postpone_output.0;
    let (mut come, mut length) = (Vec::new(), 0);
    while length < enough {
        match std::future::poll_fn(|cx| response.body.poll_next(cx)).await {
            None => break,
            Some(Ok(piece)) => {
                length += piece.len();
                come.push(Body::from(piece));
            }
            Some(Err(error)) => {
                if let BodyError::Subrequest(status @ 1..) = error {
                    exchange.sent.status = status;
                }
                return None;
            }
        }
    }
    come.push(std::mem::take(&mut response.body));
    response.body = Body::parts(come);
    Some(response)
}

/// Makes bytes of an answer.
fn send(mut exchange: Box<Exchange>, response: Option<Box<Response>>) -> Option<Box<Answer>> {
    let connection = &Rc::clone(&exchange.connection);
    let Some(mut response) = response else {
        if exchange.sent.status == 0 {
            exchange.sent.status = 444;
        }
        if matches!(exchange.sent.status, 408 | 444) {
            connection.timed_out.set(true);
        }
        connection.broken.set(true);
        connection.finished(exchange);
        return None;
    };
    let framing = response::framing(&exchange, &response);
    let keepalive = keeps(&exchange, &response, framing);
    if !keepalive {
        connection.broken.set(true);
    }
    let head: Bytes = match exchange.head.version {
        (0, 9) => Bytes::new(),
        _ => response::head(&exchange, &response, framing, keepalive).into(),
    };
    exchange.sent.status = response.status;
    exchange.sent.head = head.len() as u64;
    exchange.sent.text = head.clone();
    // An error is answered at once; who waits for leave to send a body gets it from all other content.
    let page_is_no_error = matches!(exchange.overwritten_status, Some(0 | 200));
    match exchange.error_status != 0 && !page_is_no_error {
        true => connection.side.skip_continue(),
        false => connection.side.send_continue(),
    }
    let discards = exchange.body.take_unread();
    if discards {
        // nginx says so before it reads on (`ngx_http_discard_request_body`).
        connection.side.send_continue();
    }
    let bodyless = response.bodyless(&exchange);
    let framing = if bodyless || response.upgrade { Framing::None } else { framing };
    let upgrade = response.upgrade;
    let mut body = std::mem::take(&mut response.body);
    let mut switch = None;
    if upgrade {
        switch = body.take_link().map(|link| {
            let held = std::mem::take(&mut body);
            Box::new(Switch { link, gap: exchange.tunnel_timeout, held })
        });
        connection.broken.set(true);
    }
    if bodyless {
        body = Body::Empty;
    }
    let pace = limit_rate::pace(&exchange);
    if pace.is_some() {
        // Nobody waits long for a client that has gone.
        connection.abortable.set(true);
    }
    let outgoing = Outgoing::new(body, exchange, response.trailers || response.passes_trailers);
    Some(Box::new(Answer { sending: Sending::new(head, outgoing, framing).paced(pace), switch, discards }))
}

/// Whether the connection serves another request after this answer (`ngx_http_handler`, `ngx_http_update_location_config`).
pub fn keeps(exchange: &Exchange, response: &Response, framing: Framing) -> bool {
    let connection = &exchange.connection;
    let core = &exchange.location.settings.core;
    let disable = core.keepalive_disable;
    let (msie6, safari) =
        (disable.has(Browsers::MSIE6) && exchange.method == Method::Post, disable.has(Browsers::SAFARI));
    let disabled = (msie6 || safari) && {
        let agent = Agent::of(exchange);
        agent.msie6 && msie6 || agent.safari && safari
    };
    exchange.head.keepalive()
        && !response.close
        && !disabled
        && framing != Framing::Close
        && !core.keepalive_timeout.timeout.is_zero()
        && connection.requests.get() < core.keepalive_requests as u64
        && connection.worker.clock.instant() - connection.started < core.keepalive_time.0
        && !connection.is_leaving()
        && !connection.broken.get()
}

/// A request whose client left before its head was complete, or took too long: nginx logs it with status 400 or 408 and
/// no answer.
pub(super) fn log_unfinished(connection: &Rc<Connection>, refusal: Refusal) {
    let text = refusal.to_string();
    let mut exchange = exchange(connection, Box::new(refusal.head), RequestBody::default());
    if !exchange.head.target.is_empty() {
        // Logs speak of what could be read.
        let _ = place(&mut exchange);
    }
    exchange.sent.status = refusal.status;
    exchange.log(Level::Info, &text);
    pipeline::log(&exchange);
}

/// A request under way. Dropped with it, the request ends as one whose client has gone: 499.
pub(super) struct UnderWay(Option<Box<Exchange>>);

impl UnderWay {
    fn new(exchange: Box<Exchange>) -> Self {
        Self(Some(exchange))
    }

    fn exchange(&mut self) -> &mut Exchange {
        match &mut self.0 {
            Some(exchange) => exchange,
            None => unreachable!("an exchange is taken once, at its end"),
        }
    }

    fn take(mut self) -> Box<Exchange> {
        match self.0.take() {
            Some(exchange) => exchange,
            None => unreachable!("an exchange is taken once, at its end"),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(mut exchange) = self.0.take() {
            exchange.sent.status = 499;
            pass::abandoned(&mut exchange);
            let connection = Rc::clone(&exchange.connection);
            connection.finished(exchange);
        }
    }
}

/// A connection to an upstream that has switched protocols.
pub(super) struct Switch {
    link: Box<Link>,
    /// The longest silence on both sides.
    gap: Duration,
    /// Keeps the peer in use.
    held: Body,
}

/// Carries bytes both ways until one side ends.
pub(super) async fn tunnel<S: Stream>(handle: &ServerHandle<S>, connection: &Rc<Connection>, switch: Box<Switch>) {
    let Some(client) = handle.tunnel() else { return };
    let Switch { link, gap, held } = *switch;
    let meter = Rc::clone(&link.meter);
    let upstream = link.into_tunnel();
    let moved = || meter.sent() + meter.received();
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_upstream, mut to_upstream) = tokio::io::split(upstream);
    let up = carry(&mut from_client, &mut to_upstream);
    let down = carry(&mut from_upstream, &mut to_client);
    // Who has said all may still be told something; behind what the upstream says there is nobody to speak to.
    let up = async {
        up.await;
        std::future::pending::<()>().await;
    };
    let mut both = std::pin::pin!(async { tokio::select!(() = up => {}, () = down => {}) });
    let timed_out = loop {
        let before = moved();
        tokio::select! {
            () = both.as_mut() => break false,
            () = tokio::time::sleep(gap) => {
                if moved() == before {
                    break true;
                }
            }
        }
    };
    // How much went over it and how long it took are the request's: its line in the log is not written yet.
    connection.with_finished(|exchange| {
        let Some(body) = held.upstream() else { return };
        connection.worker.clock.update();
        if timed_out {
            let text = "upstream timed out (110: Connection timed out) while proxying upgraded connection";
            exchange.log_about(Level::Info, text, body.whom().as_deref());
        }
        let counted = exchange.tries.last().map(|attempt| attempt.response_length);
        body.report(exchange);
        // What comes behind a switch of protocols is no answer.
        if let (Some(attempt), Some(counted)) = (exchange.tries.last_mut(), counted) {
            attempt.response_length = counted;
        }
    });
}

async fn carry(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) {
    let mut piece = vec![0; 16 << 10];
    loop {
        match from.read(&mut piece).await {
            Ok(read) if read > 0 => {
                if to.write_all(&piece[..read]).await.is_err() {
                    return;
                }
            }
            _ => {
                // The other direction may still have something to say.
                let _ = to.shutdown().await;
                return;
            }
        }
    }
}
