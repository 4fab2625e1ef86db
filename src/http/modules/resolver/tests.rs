//! The room against small name servers on loopback.

use super::*;
use crate::http::testing::{conf, fault, get, http_fault};
use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, SRV},
    },
};
use std::{
    cell::RefCell,
    io::{Read, Write},
    net::{Ipv6Addr, TcpListener, UdpSocket},
    sync::Mutex,
};

/// What a server says of a name: records, a code, or nothing at all.
enum Say {
    Records(&'static [Data]),
    Code(ResponseCode),
    CutShort,
    Nothing,
}

enum Data {
    V4([u8; 4]),
    V6(Ipv6Addr),
    Alias(&'static str),
    /// Priority, weight, port and target.
    Server(u16, u16, u16, &'static str),
}

type Rule = fn(&str, RecordType, bool) -> Say;

/// A name server and the questions it was asked, such as `A a.example` and over TCP `A a.example tcp`.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(rule: Rule) -> Self {
        let (tcp, udp) = std::iter::repeat_with(pair).flatten().next().unwrap();
        let address = tcp.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (heard, over_tcp) = (Arc::clone(&asked), Arc::clone(&asked));
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                if let Some(reply) = reply(&buffer[..length], rule, false, &heard) {
                    udp.send_to(&reply, from).unwrap();
                }
            }
        });
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut query).unwrap();
                if let Some(reply) = reply(&query, rule, true, &over_tcp) {
                    let length = u16::try_from(reply.len()).unwrap().to_be_bytes();
                    stream.write_all(&[&length[..], &reply].concat()).unwrap();
                }
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.sort();
        asked
    }
}

/// Both kinds of socket on one port; `None` if somebody else has the other half.
fn pair() -> Option<(TcpListener, UdpSocket)> {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind(tcp.local_addr().unwrap()).ok()?;
    Some((tcp, udp))
}

fn reply(query: &[u8], rule: Rule, tcp: bool, asked: &Mutex<Vec<String>>) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).unwrap();
    assert!(query.metadata.recursion_desired);
    let question = &query.queries[0];
    let name = question.name().to_ascii().trim_end_matches('.').to_owned();
    asked.lock().unwrap().push(format!("{} {name}{}", question.query_type(), if tcp { " tcp" } else { "" }));
    let mut reply = Message::response(query.metadata.id, OpCode::Query);
    reply.add_query(question.clone());
    match rule(&name, question.query_type(), tcp) {
        Say::Nothing => return None,
        Say::Code(code) => reply.metadata.response_code = code,
        Say::CutShort => reply.metadata.truncation = true,
        Say::Records(records) => {
            let data = |data: &Data| match data {
                Data::V4(ip) => RData::A(A((*ip).into())),
                Data::V6(ip) => RData::AAAA(AAAA(*ip)),
                Data::Alias(target) => RData::CNAME(CNAME(full(target))),
                Data::Server(priority, weight, port, target) => {
                    RData::SRV(SRV::new(*priority, *weight, *port, full(target)))
                }
            };
            let record = |one| Record::from_rdata(question.name().clone(), 300, data(one));
            reply.add_answers(records.iter().map(record));
        }
    }
    Some(reply.to_vec().unwrap())
}

fn full(name: &str) -> Name {
    Name::from_ascii(format!("{name}.")).unwrap()
}

/// Knows every name by one address of each family.
const BOTH: Rule = |_, kind, _| match kind {
    RecordType::A => Say::Records(&[Data::V4([10, 0, 0, 1])]),
    _ => Say::Records(&[Data::V6(Ipv6Addr::LOCALHOST)]),
};

fn name_servers(servers: &[&Server]) -> NameServers {
    let servers = servers.iter().map(|server| server.address).collect();
    NameServers { servers, valid: None, ipv4: true, ipv6: true, zone: None }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_secs(2);

async fn look(servers: &NameServers, name: &str, patience: Duration) -> Result<String, String> {
    let found = lookup(servers, patience, name, Rc::new(|_| {})).await;
    found.map(text).map_err(|failure| failure.to_string())
}

fn text(addresses: Vec<IpAddr>) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn found(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn failed(text: &str) -> Result<String, String> {
    Err(text.to_owned())
}

#[test]
fn both_families_are_asked_for_once_by_all_and_then_known() {
    let server = Server::start(BOTH);
    let servers = name_servers(&[&server]);
    run(async {
        let (one, two) = tokio::join!(look(&servers, "a.example", LONG), look(&servers, "A.example.", Duration::ZERO));
        assert_eq!((one, two), (found("10.0.0.1 ::1"), found("10.0.0.1 ::1")));
        assert!(look(&servers, "a.example", LONG).await.is_ok());
    });
    assert_eq!(server.asked(), ["A a.example", "AAAA a.example"]);
}

#[test]
fn a_name_without_dots_is_asked_for_as_it_is() {
    let server = Server::start(BOTH);
    let servers = NameServers { ipv6: false, ..name_servers(&[&server]) };
    assert_eq!(run(look(&servers, "localhost", LONG)), found("10.0.0.1"));
    assert_eq!(server.asked(), ["A localhost"]);
}

#[test]
fn what_a_server_refuses_is_not_kept() {
    let server = Server::start(|name, _, _| match name {
        "none" => Say::Records(&[]),
        "broken" => Say::Code(ResponseCode::ServFail),
        _ => Say::Code(ResponseCode::NXDomain),
    });
    let servers = NameServers { ipv4: false, ..name_servers(&[&server]) };
    run(async {
        for (name, failure) in [
            ("none", "3: Host not found"),
            ("broken", "2: Server failure"),
            ("x", "3: Host not found"),
            ("x", "3: Host not found"),
            ("a..b", "3: Host not found"),
        ] {
            assert_eq!(look(&servers, name, LONG).await, failed(failure), "{name}");
        }
    });
    assert_eq!(server.asked(), ["AAAA broken", "AAAA none", "AAAA x", "AAAA x"]);
}

#[test]
fn an_alias_is_followed_but_not_in_circles() {
    let server = Server::start(|name, kind, _| match name {
        "start" => Say::Records(&[Data::Alias("Middle")]),
        "middle" => Say::Records(&[Data::Alias("end")]),
        "circle" => Say::Records(&[Data::Alias("circle")]),
        _ => BOTH(name, kind, false),
    });
    let servers = NameServers { ipv6: false, ..name_servers(&[&server]) };
    assert_eq!(run(look(&servers, "start", LONG)), found("10.0.0.1"));
    assert_eq!(server.asked(), ["A end", "A middle", "A start"]);
    assert_eq!(run(look(&servers, "circle", LONG)), failed("3: Host not found"));
}

#[test]
fn an_answer_that_was_cut_short_is_asked_for_again_over_tcp() {
    let server = Server::start(|_, _, tcp| if tcp { BOTH("", RecordType::A, tcp) } else { Say::CutShort });
    let servers = NameServers { ipv6: false, ..name_servers(&[&server]) };
    assert_eq!(run(look(&servers, "big", LONG)), found("10.0.0.1"));
    assert_eq!(server.asked(), ["A big", "A big tcp"]);
}

#[test]
fn the_next_server_is_asked_when_one_is_silent() {
    let silent = Server::start(|_, _, _| Say::Nothing);
    let server = Server::start(BOTH);
    let servers = name_servers(&[&silent, &server]);
    assert_eq!(run(look(&servers, "a", LONG)), found("10.0.0.1 ::1"));
    assert_eq!(silent.asked()[0], "A a");
}

#[test]
fn the_next_server_is_asked_when_one_is_not_there() {
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start(BOTH);
    let servers = vec![gone, server.address];
    let servers = NameServers { servers, valid: None, ipv4: true, ipv6: false, zone: None };
    let lines = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&lines);
    let log: Log = Rc::new(move |trouble| log.borrow_mut().push(trouble.to_string()));
    assert_eq!(run(lookup(&servers, LONG, "a", log)), Ok(vec![IpAddr::from([10, 0, 0, 1])]));
    let refused =
        format!("recv() failed ({}: Connection refused) while resolving, resolver: {gone}", libc::ECONNREFUSED);
    assert_eq!(*lines.borrow(), [refused]);
}

#[test]
fn servers_that_say_nothing_useful_are_waited_for_until_time_is_up() {
    let timed_out = format!("{}: Operation timed out", libc::ETIMEDOUT);
    let silent = Server::start(|_, _, _| Say::Nothing);
    assert_eq!(run(look(&name_servers(&[&silent]), "a", SHORT)), failed(&timed_out));
    let confused = Server::start(|_, _, _| Say::Code(ResponseCode::FormErr));
    let lines = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&lines);
    let log: Log = Rc::new(move |trouble| log.borrow_mut().push(trouble.to_string()));
    let servers = NameServers { ipv6: false, ..name_servers(&[&confused]) };
    assert_eq!(run(lookup(&servers, SHORT, "a.b", log)), Err(Failure::TimedOut));
    let line = lines.borrow()[0].clone();
    assert!(line.starts_with("DNS error (1: Format error), query id:"), "{line}");
    assert!(line.ends_with(", name:\"a.b\""), "{line}");
}

#[test]
fn a_zone_counts_what_is_asked_and_said_once_however_many_wait() {
    let server = Server::start(|name, _, _| match name {
        "a" => Say::Records(&[Data::V4([10, 0, 0, 1])]),
        "none" => Say::Code(ResponseCode::NXDomain),
        "refused" => Say::Code(ResponseCode::Refused),
        "odd" => Say::Code(ResponseCode::FormErr),
        _ => Say::Nothing,
    });
    let zone = Some("counted".to_owned());
    let servers = NameServers { ipv6: false, zone, ..name_servers(&[&server]) };
    for name in ["a", "none", "refused", "odd", "silent", "a"] {
        let _ = run(look(&servers, name, SHORT));
    }
    let zone = Zone::named("counted");
    let counted = [&zone.noerror, &zone.nxdomain, &zone.refused, &zone.timedout, &zone.servfail];
    assert_eq!(counted.map(|counter| counter.get()), [1, 1, 1, 2, 0]);
    // What is known is not asked for again; who is confused is asked again and again.
    assert_eq!((zone.names.get(), zone.services.get()), (5, 0));
    assert!(zone.formerr.get() >= 1);
    zone.reset();
    assert_eq!(zone.names.get(), 0);
}

#[test]
fn servers_are_read_with_their_ports_and_parameters() {
    let conf =
        conf("resolver 127.0.0.11 [::1]:5353 localhost:54 valid=1m ipv6=off status_zone=z; resolver_timeout 5s;");
    let servers = ["127.0.0.11:53", "[::1]:5353", "127.0.0.1:54"].map(|address| address.parse().unwrap());
    let zone = Some("z".to_owned());
    let read = NameServers { servers: servers.to_vec(), valid: Some(60), ipv4: true, ipv6: false, zone };
    assert_eq!(conf.resolver.servers, Some(read));
    assert_eq!(conf.resolver.timeout, Msec::seconds(5));
}

#[test]
fn a_location_asks_the_servers_of_the_level_above() {
    let http = crate::http::testing::http("resolver 127.0.0.1; server { resolver_timeout 1s; }");
    let conf = &http.servers[0].base.settings.resolver;
    assert!(conf.servers.as_ref().is_some_and(|servers| servers.valid.is_none() && servers.ipv6));
    assert_eq!(conf.timeout, Msec::seconds(1));
    assert_eq!(http.settings.resolver.timeout, Msec::seconds(30));
}

#[test]
fn faults_are_in_nginx_s_words() {
    for (text, message) in [
        ("resolver nowhere.example;", "host not found in resolver \"nowhere.example\""),
        ("resolver 127.0.0.1:0;", "invalid port in resolver \"127.0.0.1:0\""),
        ("resolver [::1;", "invalid host in resolver \"[::1\""),
        ("resolver 127.0.0.1 valid=soon;", "invalid parameter: valid=soon"),
        ("resolver 127.0.0.1 ipv6=ON;", "invalid parameter: ipv6=ON"),
        ("resolver 127.0.0.1 ipv4=;", "invalid parameter: ipv4="),
        ("resolver 127.0.0.1 ipv4=off ipv6=off;", "\"ipv4\" and \"ipv6\" cannot both be \"off\""),
        ("resolver valid=30s;", "no name servers defined"),
        ("resolver;", "invalid number of arguments in \"resolver\" directive"),
        ("resolver 127.0.0.1; resolver 127.0.0.2;", "\"resolver\" directive is duplicate"),
        ("resolver_timeout soon;", "\"resolver_timeout\" directive invalid value"),
    ] {
        assert_eq!(fault(text), message, "{text}");
        assert_eq!(http_fault(text), message, "{text}");
    }
}

#[test]
fn a_request_is_passed_to_a_name_that_its_location_can_look_up() {
    let peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = peer.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (mut stream, _) = peer.accept().unwrap();
        let mut buffer = [0; 1024];
        assert!(stream.read(&mut buffer).unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nfound").unwrap();
    });
    let server = Server::start(|name, kind, _| match (name, kind) {
        ("peer.example", RecordType::A) => Say::Records(&[Data::V4([127, 0, 0, 1])]),
        ("peer.example", _) => Say::Records(&[]),
        _ => Say::Code(ResponseCode::NXDomain),
    });
    let pass = |resolver: &str, name: &str| {
        get(&format!("{resolver} set $name {name}; location / {{ proxy_pass http://$name:{port}; }}"), "/")
    };
    let resolver = format!("resolver {};", server.address);
    assert_eq!(pass(&resolver, "Peer.example").text(), "found");
    assert_eq!(pass(&resolver, "other.example").status, 502);
    assert_eq!(pass("", "peer.example").status, 502);
}

/// The servers of a service, or why there are none; and whose addresses are not known.
fn service(rule: Rule, service: &str, name: &str) -> (String, String) {
    let server = Server::start(rule);
    let servers = NameServers { ipv6: false, ..name_servers(&[&server]) };
    let found = run(lookup_service(&servers, SHORT, service, name, Rc::new(|_| {})));
    let list = |failed: &[(String, Failure)]| {
        failed.iter().map(|(name, failure)| format!("{name} {failure}")).collect::<Vec<_>>().join(", ")
    };
    match found {
        Ok(found) => {
            let one = |target: &Target| {
                format!("{} {} {} {}", target.address, target.server, target.priority, target.weight)
            };
            let targets = found.targets.iter().map(one).collect::<Vec<_>>().join(", ");
            (format!("{targets} for {}", found.seconds), list(&found.failed))
        }
        Err((failure, failed)) => (failure.to_string(), list(&failed)),
    }
}

const SERVICE: Rule = |name, kind, _| match (name, kind) {
    ("_http._tcp.example.net", RecordType::SRV) => Say::Records(&[
        Data::Server(2, 0, 8082, "b.example.net"),
        Data::Server(1, 5, 8081, "A.example.net"),
        Data::Server(3, 1, 8083, "gone.example.net"),
    ]),
    ("_alias._tcp.example.net", _) => Say::Records(&[Data::Alias("_http._tcp.example.net")]),
    ("_gone._tcp.example.net", _) => Say::Records(&[Data::Server(1, 1, 1, "gone.example.net")]),
    ("_bad._tcp.example.net", _) => Say::Records(&[Data::Server(1, 1, 1, "bad.example.net")]),
    ("_none._tcp.example.net", _) => Say::Records(&[]),
    ("a.example.net", _) => Say::Records(&[Data::V4([10, 0, 0, 1])]),
    ("b.example.net", _) => Say::Records(&[Data::V4([10, 0, 0, 2]), Data::V4([10, 0, 0, 3])]),
    ("gone.example.net", _) => Say::Code(ResponseCode::NXDomain),
    _ => Say::Code(ResponseCode::ServFail),
};

#[test]
fn a_service_is_its_servers_by_priority_and_each_of_their_addresses() {
    let all = "10.0.0.1:8081 a.example.net 1 5, 10.0.0.2:8082 b.example.net 2 1, 10.0.0.3:8082 b.example.net 2 1 for 300";
    let gone = "gone.example.net 3: Host not found";
    for name in ["http", "_http._tcp", "alias"] {
        assert_eq!(service(SERVICE, name, "Example.net"), (all.to_owned(), gone.to_owned()), "{name}");
    }
}

#[test]
fn a_service_without_servers_says_why() {
    for (name, failure, failed) in [
        ("none", "3: Host not found", ""),
        ("gone", "3: Host not found", "gone.example.net 3: Host not found"),
        ("bad", "2: Server failure", "bad.example.net 2: Server failure"),
        ("other", "2: Server failure", ""),
    ] {
        assert_eq!(service(SERVICE, name, "example.net"), (failure.to_owned(), failed.to_owned()), "{name}");
    }
    let silent: Rule = |_, _, _| Say::Nothing;
    assert_eq!(service(silent, "http", "example.net").0, "110: Operation timed out");
}
