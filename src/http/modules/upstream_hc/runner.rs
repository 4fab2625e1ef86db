//! Makes the checks: one thread of the process does it for all, for as long as its generation is in force.

use super::{
    args::Kind,
    collect::Check,
    matching::{self, Unfit},
};
use crate::{
    config::values::Address,
    http::{
        Http,
        body::RequestBody,
        connection::Connection,
        content::Content,
        exchange::{Exchange, Try},
        heads::RequestHead,
        modules::{fastcgi, proxy, scgi, uwsgi},
        uri,
        worker::Worker,
    },
    observe::error_log::{self, Level},
    upstream::{
        Failure, Peer, grpc,
        health::Verdict,
        pass::{Request, Sends},
        probe::{self, Line, Question, Target},
        wire::answer::Dialect,
    },
};
use bytes::Bytes;
use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::{Arc, Weak},
    time::Duration,
};

/// Begins to make the checks of a generation, unless another thread has begun before. Has to run inside a `LocalSet`.
pub fn watch(http: &Arc<Http>, worker: &Rc<Worker>) {
    if http.checks.claim() {
        for check in &http.checks.all {
            tokio::task::spawn_local(look_after(Arc::downgrade(http), Rc::clone(worker), Arc::clone(check)));
        }
    }
}

/// The generation, while it is the one in force and the process goes on.
fn in_force(http: &Weak<Http>, worker: &Worker) -> Option<Arc<Http>> {
    http.upgrade().filter(|http| worker.is_current(http) && !worker.quitting.get())
}

/// How often it is seen to that nobody is left out, whatever is told of changes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// … and how soon, where one change follows the other.
const AT_MOST: Duration = Duration::from_millis(20);

/// Has every peer of the check's group checked, those who join later, too.
async fn look_after(http: Weak<Http>, worker: Rc<Worker>, check: Arc<Check>) {
    let mut known: HashMap<u32, Address> = HashMap::new();
    loop {
        let changed = Arc::clone(&check.group.changed).notified_owned();
        if in_force(&http, &worker).is_none() {
            return;
        }
        worker.clock.update();
        let mut present = HashMap::with_capacity(known.len());
        for peer in check.group.peers() {
            if known.get(&peer.id) != Some(&peer.address) {
                check.group.seen(&peer, worker.clock.millis());
                let of = (Weak::clone(&http), Rc::clone(&worker), Arc::clone(&check));
                tokio::task::spawn_local(follow(of, peer.id, peer.address.clone()));
            }
            present.insert(peer.id, peer.address.clone());
        }
        known = present;
        tokio::time::sleep(AT_MOST).await;
        // It says that something has changed, or nothing.
        let _ = tokio::time::timeout(LOOK_AGAIN, changed).await;
    }
}

/// Checks one peer again and again, as long as it belongs to the group.
async fn follow((http, worker, check): (Weak<Http>, Rc<Worker>, Arc<Check>), id: u32, address: Address) {
    let keep = check.args.keepalive_time;
    let mut lines = Lines { plain: Line::kept(keep), grpc: grpc::Line::kept(keep) };
    loop {
        tokio::time::sleep(late(&worker, check.args.jitter)).await;
        let Some(http) = in_force(&http, &worker) else { return };
        let Some(peer) = check.group.peer(id).filter(|peer| peer.address == address) else { return };
        // Who is `down` is asked nothing.
        if !peer.line.down {
            let outcome = ask(&http, &worker, &check, &peer, &mut lines).await;
            worker.clock.update();
            if worker.is_current(&http) {
                note(&http, &worker, &check, &peer, outcome);
            }
        }
        drop((http, peer));
        tokio::time::sleep(check.args.interval).await;
    }
}

/// What may be kept of a check's connection to a peer, in whichever protocol it is.
struct Lines {
    plain: Line,
    grpc: grpc::Line,
}

/// A random part of the jitter.
fn late(worker: &Worker, jitter: Duration) -> Duration {
    let part = u32::from(worker.random_byte(0)) << 8 | u32::from(worker.random_byte(1));
    jitter * part / (1 << 16)
}

/// What came of a check: what was looked at last, or what is wrong.
enum Outcome {
    Fit(&'static str),
    Unfit(Unfit),
    /// There was no answer.
    Failed(Failure, &'static str),
}

/// Asks a peer and judges its answer.
async fn ask(http: &Arc<Http>, worker: &Rc<Worker>, check: &Check, peer: &Arc<Peer>, lines: &mut Lines) -> Outcome {
    let passing = check.passing();
    let mut address = peer.address.clone();
    if let (Address::Tcp(address), Some(port)) = (&mut address, check.args.port) {
        address.set_port(port);
    }
    let wants_body = check.matching.as_ref().is_some_and(|matching| matching.wants_body());
    let Some(mut exchange) = exchange(http, worker, check) else { return Outcome::Fit(matching::STATUS) };
    let target = Target {
        options: passing.connecting(&exchange),
        patience: passing.read_timeout.0,
        head_size: passing.buffer_size.0,
        body_size: EXAMINED,
        needs_body: wants_body,
        ..Target::new(address)
    };
    match &check.args.kind {
        Kind::Http => {}
        Kind::Tcp => {
            return match probe::reach(&target).await {
                Ok(_) => Outcome::Fit("connecting to upstream"),
                Err(failure) => Outcome::Failed(failure, "connecting to upstream"),
            };
        }
        Kind::Grpc { service, status } => {
            let answer = match grpc_question(&mut exchange, check, service).await {
                Ok(question) => lines.grpc.put(&target, &question).await,
                Err(why) => return Outcome::Unfit(Unfit { action: SENDING, why }),
            };
            return match answer.map(|answer| answer.judge(*status)) {
                Ok(Ok(())) => Outcome::Fit(matching::GRPC),
                Ok(Err(why)) => Outcome::Unfit(Unfit { action: matching::GRPC, why }),
                Err(failure) => {
                    let action = failure.action(true);
                    Outcome::Failed(failure, action)
                }
            };
        }
    }
    let question = match question(&mut exchange, check).await {
        Ok(question) => question,
        Err(why) => return Outcome::Unfit(Unfit { action: SENDING, why }),
    };
    let reply = match lines.plain.put(&target, &question).await {
        Ok(reply) => reply,
        Err(failure) => {
            let action = failure.action(true);
            return Outcome::Failed(failure, action);
        }
    };
    let millis = |time: Duration| u64::try_from(time.as_millis()).ok();
    exchange.tries.push(Try {
        peer: peer.name.clone(),
        status: reply.head.status,
        header_ms: millis(reply.times.0),
        response_ms: millis(reply.times.1),
        response_length: reply.body.len() as u64,
        ..Try::default()
    });
    exchange.upstream_fields = reply.head.fields.clone();
    let judged = match &check.matching {
        None => matching::usual(&reply),
        Some(matching) => matching.judge(&reply, &exchange),
    };
    judged.map_or_else(Outcome::Unfit, Outcome::Fit)
}

const SENDING: &str = "sending request to upstream";

/// So much of a body is looked at. Bytes.
const EXAMINED: usize = 256 << 10;

/// The request of nobody that a check is: what the location says of requests is said of it, too.
pub(super) fn exchange(http: &Arc<Http>, worker: &Rc<Worker>, check: &Check) -> Option<Exchange> {
    let listener = Arc::clone(http.listeners.first()?);
    let here = |port| Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let connection = Connection::new(Rc::clone(worker), Arc::clone(http), listener, 0, here(0)).made_to(here(80));
    let uri = &check.args.uri;
    let text = [b"GET ", &uri[..], b" HTTP/1.0\r\n\r\n"].concat();
    let head = RequestHead::of(&text)?;
    let (connection, server) = (Rc::new(connection), Arc::clone(&check.server));
    let mut exchange = Exchange::new(Arc::clone(http), connection, server, Box::new(head), RequestBody::default());
    exchange.location = Arc::clone(&check.location);
    exchange.host = exchange.server.name.clone();
    match uri::normalise(uri, exchange.location.settings.core.merge_slashes) {
        Ok(target) => {
            exchange.path = Bytes::from(target.path.into_owned());
            exchange.args = Bytes::copy_from_slice(target.args);
        }
        Err(_) => exchange.path = uri.clone(),
    }
    Some(exchange)
}

/// The request as it goes to the peer.
pub(super) async fn question(exchange: &mut Exchange, check: &Check) -> Result<Question, String> {
    let location = Arc::clone(&check.location);
    let settings = &location.settings;
    let request = match location.content {
        Content::Fastcgi => fastcgi::request(exchange, &settings.fastcgi)?,
        Content::Uwsgi => uwsgi::request(exchange, &settings.uwsgi)?,
        Content::Scgi => scgi::request(exchange, &settings.scgi),
        _ => match proxy::check(exchange, &check.args.uri).await {
            Some(request) => request,
            None => return Err("the upstream is not defined".to_owned()),
        },
    };
    let Request { mut head, body, frames, dialect, head_only, .. } = request;
    if check.args.keepalive_time.is_none() && matches!(dialect, Dialect::Http) {
        head = closing(head);
    }
    let body = match body {
        Sends::Text(text) => text,
        Sends::Client | Sends::Nothing => Bytes::new(),
    };
    Ok(Question { head, body, frames, dialect, head_only })
}

/// The question to a gRPC server. It is told the host and the fields that the location tells servers of HTTP.
pub(super) async fn grpc_question(
    exchange: &mut Exchange,
    check: &Check,
    service: &[u8],
) -> Result<grpc::Question, String> {
    let head = match check.location.content {
        Content::Proxy => proxy::check(exchange, b"/").await.map(|request| request.head).unwrap_or_default(),
        _ => Bytes::new(),
    };
    let fields = || {
        let lines = head.split(|byte| *byte == b'\n').skip(1);
        lines.filter_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    };
    let host = fields().find(|(name, _)| name.eq_ignore_ascii_case(b"host"));
    let host = host.map_or(check.group.name.as_bytes(), |(_, host)| host);
    grpc::Question::new(service, host, fields())
}

/// The same head, and the peer is told that nothing follows, unless the location says something of it.
fn closing(head: Bytes) -> Bytes {
    let says = head
        .split(|byte| *byte == b'\n')
        .any(|line| line.get(..11).is_some_and(|name| name.eq_ignore_ascii_case(b"connection:")));
    match head.strip_suffix(b"\r\n") {
        Some(fields) if !says => [fields, b"Connection: close\r\n\r\n"].concat().into(),
        _ => head,
    }
}

/// Tells the group what came of a check, and the log what is new.
fn note(http: &Http, worker: &Worker, check: &Check, peer: &Peer, outcome: Outcome) {
    let conf = &check.location.settings.error_log;
    let log = |level, text: &str| {
        let name = check.args.matching.as_ref().map(|(name, _)| String::from_utf8_lossy(name).into_owned());
        let mut text = format!(
            "{text}, health check \"{}\" of peer {} in upstream \"{}\"",
            name.unwrap_or_default(),
            peer.name,
            check.group.name
        );
        if let Some(port) = check.args.port {
            text.push_str(&format!(", port {port}"));
        }
        error_log::plain_line(http, conf, level, &text);
    };
    let (action, why, detail) = match outcome {
        Outcome::Fit(action) => (action, String::new(), String::new()),
        Outcome::Unfit(Unfit { action, why }) => {
            // There is no `match` to look up what was wanted.
            let detail = if action == matching::GRPC { format!(": {why}") } else { String::new() };
            (action, format!("{why} while {action}"), detail)
        }
        Outcome::Failed(failure, action) => {
            let why = format!("{failure} while {action}");
            log(Level::Err, &why);
            (action, why, String::new())
        }
    };
    match check.group.note_check(peer, &check.terms, &why, worker.clock.millis()) {
        Some(Verdict::Healthy) => log(Level::Notice, &format!("peer is healthy while {action}")),
        Some(_) => log(Level::Warn, &format!("peer is unhealthy while {action}{detail}")),
        None => {}
    }
}
