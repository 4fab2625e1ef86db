//! `upstream_register`: servers add themselves to an upstream by a POST of JSON that names their address. Ours, after the
//! master of a tutorial that balances by load: its nodes are answered in its words.

use super::{Room, upstream};
use crate::{
    config::{
        Args, Contexts, Directive, FromArgs, Handle, Kind, LOCATION, Module,
        values::{Address, parse_number, parse_port},
    },
    http::{
        exchange::{Exchange, Method},
        phase::{Phase, status},
        response::Response,
    },
    observe::error_log::Level,
    syntax::Fault,
    upstream::{Group, ServerLine, pass},
};
use bytes::Bytes;
use serde_json::Value;
use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
};

/// The longest body that is taken. Bytes.
const MOST: u64 = 4096;

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub register: Option<Register>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] =
        &[Directive::new("upstream_register", LOCATION, |conf| &mut conf.register)];

    fn enter(this: &mut Arc<Self>, level: Contexts) {
        // A location inside another one registers nobody unless it says so itself.
        if this.register.is_some() && !pass::is_part(level) {
            Arc::make_mut(this).register = None;
        }
    }
}

impl Room for Conf {
    type State = ();
}

/// `upstream_register name ip-field port-field [weight=number] [max=number]`.
#[derive(Clone, Debug)]
pub struct Register {
    group: Handle,
    ip: String,
    port: String,
    /// Of the servers that register.
    weight: u32,
    /// The upstream has no more servers than this, however many register.
    most: usize,
}

impl FromArgs for Register {
    const TAKES: RangeInclusive<usize> = 3..=5;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let name = args.word(0);
        let group = args.scope.refer(Kind::Upstream, &name.value, name.span);
        upstream::joined_at_run_time(&name.value, name.span, args.scope);
        let field = |n: usize| {
            let word = args.word(n);
            if word.value.is_empty() { Err(args.invalid(word)) } else { Ok(word.text().into_owned()) }
        };
        let (ip, port) = (field(1)?, field(2)?);
        let (mut weight, mut most) = (1, 256);
        for word in &args.words()[3..] {
            let number = |text| parse_number(text).filter(|number| *number > 0).ok_or_else(|| args.parameter(word));
            if let Some(text) = word.value.strip_prefix(b"weight=") {
                weight = u32::try_from(number(text)?).map_err(|_| args.parameter(word))?;
            } else if let Some(text) = word.value.strip_prefix(b"max=") {
                most = number(text)?;
            } else {
                return Err(args.parameter(word));
            }
        }
        Ok(Self { group, ip, port, weight, most })
    }
}

/// Adds whoever asks for it. Who is there already is answered the same, and stays as it is.
pub async fn content(exchange: &mut Exchange) -> Phase {
    let settings = Arc::clone(&exchange.location.settings.upstream_register);
    let Some(register) = &settings.register else { return status(500) };
    if exchange.method != Method::Post {
        exchange.state.error_page.kept.push(Bytes::from_static(b"Allow"), Bytes::from_static(b"POST"));
        return status(405);
    }
    if exchange.body.too_large(MOST) {
        return status(413);
    }
    // A page somewhere else can make a browser send anything but JSON without being asked whether it may.
    if exchange.field("origin").is_some() && !is_json(exchange.field("content-type").unwrap_or_default()) {
        return status(415);
    }
    Box::pin(pass::read_body(exchange, false)).await?;
    let length = exchange.body.length().unwrap_or(0);
    if length > MOST {
        return status(413);
    }
    let address = match address(exchange.body.memory().map_or(&[], |body| &body[..]), register) {
        Ok(address) => address,
        Err(refused) => {
            exchange.log(Level::Info, &format!("no server is registered: {}", refused.1));
            return failed(refused.0);
        }
    };
    let (ended, group) = join(exchange, register, address);
    if let Some(group) = group {
        // Whoever is answered is in the file of the upstream, if it has one.
        Box::pin(async move { group.saved().await }).await;
    }
    ended
}

/// The address that a body names; else the status of the answer and what is wrong.
fn address(body: &[u8], register: &Register) -> Result<SocketAddr, (u16, &'static str)> {
    if body.is_empty() {
        return Err((200, "no address is named"));
    }
    let json: Value = serde_json::from_slice(body).map_err(|_| (400, "the body is not JSON"))?;
    let ip = match json.get(&register.ip) {
        // The master of the tutorial answers this with 200.
        None | Some(Value::Null) => return Err((200, "no address is named")),
        Some(Value::String(ip)) if ip.is_empty() => return Err((200, "no address is named")),
        Some(ip) => ip.as_str().and_then(|ip| ip.parse::<IpAddr>().ok()).ok_or((400, "the address is not one"))?,
    };
    let port = match json.get(&register.port) {
        Some(Value::Number(port)) => parse_port(port.to_string().as_bytes()),
        Some(Value::String(port)) => parse_port(port.as_bytes()),
        _ => None,
    };
    let port = port.ok_or((400, "the port is not one"))?;
    if ip.is_unspecified() || ip.is_multicast() {
        return Err((400, "nobody can be reached there"));
    }
    Ok((ip, port).into())
}

/// The answer, and the group that has the server now.
fn join(exchange: &Exchange, register: &Register, address: SocketAddr) -> (Phase, Option<Arc<Group>>) {
    let own = exchange.http.upstreams.get(register.group.0 as usize).and_then(Option::as_ref);
    let Some(own) = own else { return (failed(503), None) };
    // A reload may be about to put another group in the place of this one: its servers are looked at there.
    for http in [&exchange.http, &exchange.connection.worker.http()] {
        let Some(group) = http.upstreams.iter().flatten().find(|group| group.name == own.name) else { break };
        let line = ServerLine { server: address.to_string(), weight: register.weight, ..ServerLine::default() };
        match group.add_below(register.most, line, &Address::Tcp(address)) {
            Ok(Some((peer, added))) => {
                if added {
                    // Nobody has less to do than who has just come.
                    peer.report_load(Some(0.0));
                    http.log(Level::Notice, &upstream::about(group, &peer, "added"));
                }
                return (succeeded(address.ip()), added.then(|| Arc::clone(group)));
            }
            Ok(None) => {
                let (name, most) = (&own.name, register.most);
                let text = format!("upstream \"{name}\" has {most} servers already, {address} is not added");
                exchange.log(Level::Warn, &text);
                break;
            }
            Err(_) => {}
        }
    }
    (failed(503), None)
}

fn succeeded(ip: IpAddr) -> Phase {
    told(200, format!("{{\"status\":true,\"message\":\"successfully assigned child with address: {ip}\"}}"))
}

fn failed(status: u16) -> Phase {
    told(status, "{\"status\":false,\"message\":\"failed to assign address\"}".to_owned())
}

fn told(status: u16, text: String) -> Phase {
    Response::with_body(status, &b"application/json"[..], text).into_phase()
}

fn is_json(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask_http, http_fault};

    /// The first fault of a location that registers servers, behind this.
    fn fault(above: &str, register: &str) -> String {
        http_fault(&format!("{above} server {{ location / {{ upstream_register {register}; }} }}"))
    }

    #[test]
    fn servers_register_only_where_an_upstream_can_take_them() {
        let zone = "upstream u { zone u 64k; }";
        let apart = "adding servers at run time requires upstream \"u\" to be in shared memory";
        for (above, register, expected) in [
            (zone, "u ip port", ""),
            (zone, "u ip port weight=5 max=10", ""),
            ("upstream u { zone u 64k; server 127.0.0.1:1; }", "u ip port", ""),
            ("upstream u { server 127.0.0.1:1; }", "u ip port", apart),
            ("upstream u { }", "u ip port", apart),
            ("", "localhost ip port", "no upstream \"localhost\" to add servers to"),
            (
                "upstream u { zone u 64k; server 127.0.0.1:1; }",
                "u ip",
                "invalid number of arguments in \"upstream_register\" directive",
            ),
            (zone, "u ip port weight=0", "invalid parameter \"weight=0\""),
            (zone, "u ip port weight=99999999999", "invalid parameter \"weight=99999999999\""),
            (zone, "u ip port max=0", "invalid parameter \"max=0\""),
            (zone, "u ip port down", "invalid parameter \"down\""),
            (zone, "u '' port", "invalid value \"\""),
            (zone, "u ip port; upstream_register u ip port", "\"upstream_register\" directive is duplicate"),
        ] {
            assert_eq!(fault(above, register), expected, "{above} {register}");
        }
        assert_eq!(http_fault("upstream u { zone u 64k; }"), "no servers are inside upstream");
    }

    #[test]
    fn a_location_inside_another_one_registers_nobody() {
        let outer = "location /a { upstream_register u ip port; location /a/b { return 204; } }";
        let http = format!("upstream u {{ zone u 64k; }} server {{ {outer} }}");
        let status = |path: &str| ask_http(&http, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).status;
        assert_eq!([status("/a"), status("/a/b")], [405, 204]);
    }
}
