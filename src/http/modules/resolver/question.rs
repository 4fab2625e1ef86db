//! One question to the name servers: `A` and `AAAA` over UDP, over TCP where an answer is cut short, and
//! again to the next server while none comes (`ngx_resolver_send_query` and what follows it).

use super::{
    Log, NameServers, Trouble,
    zone::{Pending, Zone},
};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType, rdata::SRV},
};
use std::{
    cell::RefCell,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// After this long without an answer the next server is asked, too (`resend_timeout`).
const RESEND: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(5) };
/// How long an answer that is late is still waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest answer over UDP (`NGX_RESOLVER_UDP_SIZE`).
const UDP_SIZE: usize = 4096;

/// What the servers say of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Addresses {
        v4: Vec<Ipv4Addr>,
        v6: Vec<Ipv6Addr>,
        ttl: u32,
    },
    /// It is another name for this one, whose addresses did not come along.
    Alias {
        target: Name,
        ttl: u32,
    },
}

impl Answer {
    /// Seconds the answer may be kept: the least of all its records.
    pub(super) fn ttl(&self) -> u32 {
        match self {
            Self::Addresses { ttl, .. } | Self::Alias { ttl, .. } => *ttl,
        }
    }
}

/// Why a name has no addresses, as `ngx_resolver_strerror` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("2: Server failure")]
    ServerFailure,
    #[error("3: Host not found")]
    NotFound,
    #[error("4: Unimplemented")]
    Unimplemented,
    #[error("5: Operation refused")]
    Refused,
    #[error("{}: Operation timed out", libc::ETIMEDOUT)]
    TimedOut,
}

/// A name as it is asked for; `None` if no server could know it. It is complete as it is: there are no
/// search domains, and the final dot says nothing.
pub(super) fn name(text: &str) -> Option<Name> {
    let text = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    Name::from_labels(text.split('.').map(str::as_bytes)).ok()
}

/// Asks the servers, beginning with the one at `first`, until one answers. Whoever has waited long enough
/// drops the future.
///
/// # Errors
/// What a server answered instead of addresses. Two families are one question: an error of one is one of both.
pub(super) async fn ask(servers: &NameServers, first: usize, name: &Name, log: &Log) -> Result<Answer, Failure> {
    let zone = Zone::of(servers).inspect(|zone| zone.names.up());
    let (log, pending) = (&counting(zone.clone(), log), Pending(zone));
    let replies = RefCell::new(Vec::new());
    let ask = |wanted: bool, kind| {
        let replies = &replies;
        async move {
            if wanted {
                let reply = Asked::new(&servers.servers, name.clone(), kind, log).ask(first).await;
                replies.borrow_mut().push(reply);
            }
        }
    };
    tokio::join!(biased; ask(servers.ipv4, RecordType::A), ask(servers.ipv6, RecordType::AAAA));
    let replies = replies.into_inner();
    pending.answered(replies.iter().find_map(|reply| reply.as_ref().err().copied()));
    combine(replies)
}

/// Asks the servers for the servers of a service.
///
/// # Errors
/// As [`ask`].
pub(super) async fn ask_service(
    servers: &NameServers,
    first: usize,
    name: &Name,
    log: &Log,
) -> Result<ServiceAnswer, Failure> {
    let zone = Zone::of(servers).inspect(|zone| zone.services.up());
    let (log, pending) = (&counting(zone.clone(), log), Pending(zone));
    let records = Asked::new(&servers.servers, name.clone(), RecordType::SRV, log).ask(first).await;
    pending.answered(records.as_ref().err().copied());
    let records = records?;
    let ttl = records.iter().map(seconds).min().unwrap_or(0);
    let (mut targets, mut alias) = (Vec::new(), None);
    for record in records {
        match record.data {
            RData::SRV(srv) => targets.push(srv),
            RData::CNAME(target) => alias = Some(target.0),
            _ => {}
        }
    }
    // Lower ones first; in the order they came otherwise (`ngx_resolver_cmp_srvs`).
    targets.sort_by_key(|srv| srv.priority);
    match alias {
        _ if !targets.is_empty() => Ok(ServiceAnswer::Targets { targets, ttl }),
        Some(target) => Ok(ServiceAnswer::Alias(target.to_lowercase())),
        None => Err(Failure::NotFound),
    }
}

/// The same log, which sees answers that are waited over as well.
fn counting(zone: Option<Arc<Zone>>, log: &Log) -> Log {
    let log = Rc::clone(log);
    let Some(zone) = zone else { return log };
    Rc::new(move |trouble| {
        if let Trouble::Code { code, .. } = &trouble {
            zone.confused(*code);
        }
        log(trouble);
    })
}

/// What the servers say of a service.
#[derive(Debug)]
pub(super) enum ServiceAnswer {
    Targets { targets: Vec<SRV>, ttl: u32 },
    /// It is another name for this one.
    Alias(Name),
}

/// How long a record may be kept; nonsense is not kept at all.
fn seconds(record: &Record) -> u32 {
    if i32::try_from(record.ttl).is_ok() { record.ttl } else { 0 }
}

/// One answer of the replies, in the order they came. Where none has an address it is the last that decides, as in
/// `ngx_resolver_process_a`: it may name another name to ask for, or nothing.
fn combine(replies: Vec<Result<Vec<Record>, Failure>>) -> Result<Answer, Failure> {
    let mut replies = replies.into_iter().collect::<Result<Vec<_>, _>>()?;
    let is_address = |record: &Record| matches!(record.data, RData::A(_) | RData::AAAA(_));
    let ttl = replies.iter().flatten().map(seconds).min().unwrap_or(0);
    if !replies.iter().flatten().any(is_address) {
        replies = replies.pop().into_iter().collect();
    }
    let records = replies.concat();
    let (mut v4, mut v6, mut alias) = (Vec::new(), Vec::new(), None);
    for record in records {
        match record.data {
            RData::A(ip) => v4.push(ip.0),
            RData::AAAA(ip) => v6.push(ip.0),
            RData::CNAME(target) => alias = Some(target.0),
            _ => {}
        }
    }
    match alias {
        _ if !v4.is_empty() || !v6.is_empty() => Ok(Answer::Addresses { v4, v6, ttl }),
        Some(target) => Ok(Answer::Alias { target: target.to_lowercase(), ttl }),
        None => Err(Failure::NotFound),
    }
}

/// The question for one family of addresses.
struct Asked<'a> {
    servers: &'a [SocketAddr],
    query: Rc<Message>,
    log: &'a Log,
    attempts: JoinSet<(SocketAddr, io::Result<Reply>)>,
}

/// What one server said.
#[derive(Debug, PartialEq)]
enum Reply {
    Records(Vec<Record>),
    Failed(Failure),
    /// More than fits into a datagram.
    CutShort,
}

impl<'a> Asked<'a> {
    fn new(servers: &'a [SocketAddr], name: Name, kind: RecordType, log: &'a Log) -> Self {
        let mut query = Message::query();
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(name, kind));
        Self { servers, query: Rc::new(query), log, attempts: JoinSet::new() }
    }

    /// Asks one server after the other. An earlier one may still answer while a later one is asked.
    async fn ask(mut self, first: usize) -> Result<Vec<Record>, Failure> {
        let mut tcp = false;
        let (mut at, mut untried) = self.next(first, self.servers.len(), tcp);
        let mut resend = Instant::now() + RESEND;
        loop {
            tokio::select! {
                Some(Ok((server, reply))) = self.attempts.join_next() => match reply {
                    Ok(Reply::Records(records)) => return Ok(records),
                    Ok(Reply::Failed(failure)) => return Err(failure),
                    Ok(Reply::CutShort) => {
                        tcp = true;
                        self.send(server, tcp);
                        resend = Instant::now() + RESEND;
                    }
                    // nginx would let the time pass; a server that is not there is no reason to.
                    Err(error) if untried > 0 && error.kind() != io::ErrorKind::TimedOut => {
                        (at, untried) = self.next(at, untried, tcp);
                    }
                    Err(_) => {}
                },
                () = sleep_until(resend) => {
                    resend = Instant::now() + RESEND;
                    (at, untried) = self.next(at, self.servers.len(), tcp);
                }
            }
        }
    }

    /// Asks the server whose turn it is; gives the next one and how many are left in this round.
    fn next(&mut self, at: usize, untried: usize, tcp: bool) -> (usize, usize) {
        if let Some(server) = self.servers.get(at) {
            self.send(*server, tcp);
        }
        ((at + 1) % self.servers.len().max(1), untried.saturating_sub(1))
    }

    fn send(&mut self, server: SocketAddr, tcp: bool) {
        let (query, log) = (Rc::clone(&self.query), Rc::clone(self.log));
        self.attempts.spawn_local(async move {
            let mut call = "connect";
            let reply = async {
                match tcp {
                    true => over_tcp(server, &query, &log, &mut call).await,
                    false => over_udp(server, &query, &log, &mut call).await,
                }
            };
            let reply = timeout(PATIENCE, reply).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            if let Err(error) = &reply
                && error.raw_os_error().is_some()
            {
                log(Trouble::Io { call, error, server });
            }
            (server, reply)
        });
    }
}

/// A socket of its own for every question: its port is one more thing a forger would have to guess.
async fn over_udp(server: SocketAddr, query: &Message, log: &Log, call: &mut &'static str) -> io::Result<Reply> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    *call = "send";
    socket.send(&query.to_vec().map_err(io::Error::other)?).await?;
    *call = "recv";
    let mut buffer = vec![0; UDP_SIZE];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(reply) = read(query, &buffer[..length], log) {
            return Ok(reply);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &Message, log: &Log, call: &mut &'static str) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    *call = "send";
    let text = query.to_vec().map_err(io::Error::other)?;
    let length = u16::try_from(text.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &text].concat()).await?;
    *call = "recv";
    loop {
        let mut buffer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut buffer).await?;
        match read(query, &buffer, log) {
            None | Some(Reply::CutShort) => {}
            Some(reply) => return Ok(reply),
        }
    }
}

/// What a message says to a query; `None` if it is no answer to it, or one that is better waited over.
fn read(query: &Message, message: &[u8], log: &Log) -> Option<Reply> {
    let message = Message::from_vec(message).ok()?;
    let head = &message.metadata;
    if head.id != query.metadata.id || head.message_type != MessageType::Response || head.op_code != OpCode::Query {
        return None;
    }
    let asked = query.queries.first()?;
    let failure = match head.response_code {
        ResponseCode::NoError => None,
        ResponseCode::ServFail => Some(Failure::ServerFailure),
        ResponseCode::NXDomain => Some(Failure::NotFound),
        ResponseCode::NotImp => Some(Failure::Unimplemented),
        ResponseCode::Refused => Some(Failure::Refused),
        code => {
            let text = if code == ResponseCode::FormErr { "Format error" } else { "Unknown error" };
            let name = asked.name().to_ascii().trim_end_matches('.').to_owned();
            log(Trouble::Code { code: code.into(), text, id: head.id, name });
            return None;
        }
    };
    if message.queries != query.queries {
        return None;
    }
    if head.truncation {
        return Some(Reply::CutShort);
    }
    if let Some(failure) = failure {
        return Some(Reply::Failed(failure));
    }
    let fits = |record: &Record| {
        let kind = record.record_type();
        let foreign = matches!(kind, RecordType::A | RecordType::AAAA) && kind != asked.query_type();
        record.dns_class == DNSClass::IN && !foreign
    };
    message.answers.iter().all(fits).then_some(Reply::Records(message.answers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::rdata::{A, AAAA, CNAME};

    fn query(kind: RecordType) -> Message {
        let mut query = Message::query();
        query.add_query(Query::query(name("example.com").unwrap(), kind));
        query
    }

    fn record(ttl: u32, data: RData) -> Record {
        Record::from_rdata(name("example.com").unwrap(), ttl, data)
    }

    fn v4() -> RData {
        RData::A(A(Ipv4Addr::LOCALHOST))
    }

    fn v6() -> RData {
        RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))
    }

    fn alias() -> RData {
        RData::CNAME(CNAME(name("other.example").unwrap()))
    }

    #[test]
    fn a_name_is_complete_in_any_case_and_with_or_without_its_dot() {
        assert_eq!(name("Example.COM."), name("example.com"));
        assert_eq!(name("db").unwrap().to_ascii(), "db.");
        assert!(name("under_score.x").is_some());
        let long = "a".repeat(64);
        for text in ["", ".", "a..b", ".a", &long, &"abc.".repeat(64)] {
            assert_eq!(name(text), None, "{text}");
        }
    }

    #[test]
    fn only_an_answer_to_the_question_is_read() {
        let log: Log = Rc::new(|_| {});
        let asked = query(RecordType::A);
        let good = || {
            let mut reply = Message::response(asked.metadata.id, OpCode::Query);
            reply.add_queries(asked.queries.clone()).add_answer(record(1, v4()));
            reply
        };
        let said = |change: fn(&mut Message)| {
            let mut reply = good();
            change(&mut reply);
            read(&asked, &reply.to_vec().unwrap(), &log)
        };
        let code = |reply: &mut Message, code| reply.metadata.response_code = code;
        assert_eq!(said(|_| {}), Some(Reply::Records(vec![record(1, v4())])));
        assert_eq!(said(|reply| reply.metadata.truncation = true), Some(Reply::CutShort));
        assert_eq!(said(|reply| reply.metadata.id ^= 1), None);
        assert_eq!(said(|reply| reply.metadata.message_type = MessageType::Query), None);
        assert_eq!(said(|reply| reply.queries[0] = Query::query(name("x").unwrap(), RecordType::A)), None);
        assert_eq!(said(|reply| reply.queries.clear()), None);
        assert_eq!(said(|reply| reply.answers.push(record(1, v6()))), None);
        assert_eq!(said(|reply| reply.answers[0].dns_class = DNSClass::CH), None);
        for (response, failure) in [
            (ResponseCode::ServFail, Some(Failure::ServerFailure)),
            (ResponseCode::NXDomain, Some(Failure::NotFound)),
            (ResponseCode::NotImp, Some(Failure::Unimplemented)),
            (ResponseCode::Refused, Some(Failure::Refused)),
            (ResponseCode::FormErr, None),
            (ResponseCode::NotAuth, None),
        ] {
            let mut reply = good();
            code(&mut reply, response);
            assert_eq!(read(&asked, &reply.to_vec().unwrap(), &log), failure.map(Reply::Failed), "{response}");
        }
        let whole = good().to_vec().unwrap();
        for length in 0..whole.len() {
            assert_eq!(read(&asked, &whole[..length], &log), None, "{length}");
        }
    }

    #[test]
    fn the_families_make_one_answer() {
        let addresses = |v4: usize, v6: usize, ttl| {
            let (v4, v6) = (vec![Ipv4Addr::LOCALHOST; v4], vec![Ipv6Addr::LOCALHOST; v6]);
            Ok(Answer::Addresses { v4, v6, ttl })
        };
        let found = |ttl, data| Some(Ok(vec![record(ttl, data)]));
        let failed = |failure| Some(Err(failure));
        for (v4, v6, answer) in [
            (found(9, v4()), found(8, v6()), addresses(1, 1, 8)),
            (found(9, v4()), None, addresses(1, 0, 9)),
            (found(9, v4()), Some(Ok(Vec::new())), addresses(1, 0, 9)),
            (found(u32::MAX, v4()), None, addresses(1, 0, 0)),
            (Some(Ok(vec![record(3, alias()), record(9, v4())])), None, addresses(1, 0, 3)),
            (found(9, v4()), found(5, alias()), addresses(1, 0, 5)),
            (
                found(5, alias()),
                found(6, alias()),
                Ok(Answer::Alias { target: name("other.example").unwrap(), ttl: 5 }),
            ),
            (
                Some(Ok(Vec::new())),
                found(7, alias()),
                Ok(Answer::Alias { target: name("other.example").unwrap(), ttl: 7 }),
            ),
            (found(7, alias()), Some(Ok(Vec::new())), Err(Failure::NotFound)),
            (None, Some(Ok(Vec::new())), Err(Failure::NotFound)),
            (found(9, v4()), failed(Failure::ServerFailure), Err(Failure::ServerFailure)),
            (failed(Failure::Refused), found(9, v6()), Err(Failure::Refused)),
        ] {
            let said = format!("{v4:?} {v6:?}");
            assert_eq!(combine([v4, v6].into_iter().flatten().collect()), answer, "{said}");
        }
    }

    #[test]
    fn failures_are_told_as_nginx_tells_them() {
        assert_eq!(Failure::NotFound.to_string(), "3: Host not found");
        assert_eq!(Failure::TimedOut.to_string(), format!("{}: Operation timed out", libc::ETIMEDOUT));
    }
}
