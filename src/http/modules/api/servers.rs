//! The servers of an upstream as they are configured, and changes of them.

use super::{
    fault::Fault,
    json::{Json, Members},
};
use crate::{
    config::values::{Wants, parse_known_url, parse_time},
    http::Http,
    upstream::{Address, Group, Peer, ServerLine, edit::Refused, resolve::Resolved},
};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The group of that name.
///
/// # Errors
/// `UpstreamNotFound`, or `UpstreamStatic` for one without `zone`.
pub(super) fn group(http: &Http, name: &str) -> Result<Arc<Group>, Fault> {
    let declared = http.settings.upstream.groups.iter().any(|group| group.name == name);
    let group = http.upstreams.iter().flatten().find(|group| declared && group.name == name);
    let group = group.ok_or_else(|| Fault::new(404, "UpstreamNotFound", "upstream not found"))?;
    match group.zone {
        Some(_) => Ok(Arc::clone(group)),
        None => Err(Fault::new(400, "UpstreamStatic", "upstream is static")),
    }
}

/// The number of a server, as a path has it.
///
/// # Errors
/// `UpstreamBadServerId`.
pub(super) fn number(id: &str) -> Result<u32, Fault> {
    let digits = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| id.parse().unwrap_or(u32::MAX));
    number.ok_or_else(|| Fault::new(400, "UpstreamBadServerId", "invalid server ID"))
}

/// What a number stands for: a server, or a name that joined.
pub(super) enum Server {
    Peer(Arc<Peer>),
    Name(Arc<Resolved>),
}

impl Server {
    /// Its number.
    pub(super) fn id(&self) -> u32 {
        match self {
            Self::Peer(peer) => peer.id,
            // Every name that joins has one.
            Self::Name(name) => name.id.unwrap_or_default(),
        }
    }
}

/// The server of a number.
///
/// # Errors
/// `UpstreamBadServerId`, `UpstreamServerNotFound`.
pub(super) fn server(group: &Group, id: &str) -> Result<Server, Fault> {
    let number = number(id)?;
    let name = || group.joined_name(number).map(|(_, name)| Server::Name(name));
    group.peer(number).map(Server::Peer).or_else(name).ok_or_else(|| missing(id))
}

fn missing(id: &str) -> Fault {
    Fault::new(404, "UpstreamServerNotFound", format!("server with ID \"{id}\" does not exist"))
}

/// All servers, as they are configured: names that joined before the servers they stand for.
pub(super) fn list(group: &Group) -> Json {
    let names = group.joined_names().into_iter().map(|(_, name)| Server::Name(name));
    let servers = names.chain(group.peers().map(Server::Peer));
    Json::List(servers.map(|server| configured(group, &server)).collect())
}

/// One server, as it is configured.
pub(super) fn configured(group: &Group, server: &Server) -> Json {
    let (text, line) = match server {
        Server::Peer(peer) => (&peer.name, &*peer.line),
        Server::Name(name) => (&name.line.server, &name.line),
    };
    let mut members: Members = vec![("id".into(), server.id().into()), ("server".into(), text.clone().into())];
    if let Server::Name(name) = server
        && let Some(service) = &name.service
    {
        members.push(("service".into(), service.clone().into()));
    }
    let parameters = [
        ("weight", line.weight.into()),
        ("max_conns", line.max_conns.into()),
        ("max_fails", line.max_fails.into()),
        ("fail_timeout", format!("{}s", line.fail_timeout).into()),
        ("slow_start", time(line.slow_start).into()),
        ("route", line.route.clone().into()),
        ("backup", line.backup.into()),
        ("down", line.down.into()),
    ];
    members.extend(parameters.map(|(name, value)| (name.into(), value)));
    if line.drain {
        members.push(("drain".into(), true.into()));
    }
    if let Server::Peer(peer) = server
        && let Some(name) = group.name_of(peer)
    {
        members.extend(name.id.map(|id| ("parent".into(), id.to_string().into())));
        members.push(("host".into(), name.host.clone().into()));
    }
    Json::Object(members)
}

/// Milliseconds as nginx writes a time.
fn time(millis: u64) -> String {
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

/// What a request says of a server: the parameters it has, and no others.
#[derive(Debug, Default)]
pub(super) struct Wish {
    server: Option<Place>,
    weight: Option<u32>,
    max_conns: Option<u32>,
    max_fails: Option<u32>,
    fail_timeout: Option<i64>,
    slow_start: Option<u64>,
    route: Option<String>,
    backup: Option<bool>,
    down: Option<bool>,
    drain: Option<bool>,
}

/// Where a server is, as a request says it.
#[derive(Debug)]
enum Place {
    Address(String, Address),
    Name { server: String, host: String, port: u16, service: Option<String> },
}

impl Wish {
    /// Reads the body of a request. What cannot be chosen (`id`, `parent`, `host`) may stand there and says nothing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(body: &[u8]) -> Result<Self, Fault> {
        let value: Value =
            serde_json::from_slice(body).map_err(|error| Fault::new(415, "JsonError", error.to_string()))?;
        let Value::Object(members) = value else { return Err(Fault::format("an object is wanted")) };
        let mut wish = Self::default();
        for (name, value) in &members {
            wish.take(name, value)?;
        }
        wish.place(&members)?;
        Ok(wish)
    }

    fn take(&mut self, name: &str, value: &Value) -> Result<(), Fault> {
        if value.is_array() || value.is_object() {
            return Err(Fault::format("nested object or list"));
        }
        match name {
            "id" | "parent" | "host" | "server" | "service" => {}
            "weight" => self.weight = Some(count(name, value, "UpstreamBadWeight", 1, HEAVIEST)?),
            "max_conns" => self.max_conns = Some(count(name, value, "UpstreamBadMaxConns", 0, u32::MAX)?),
            "max_fails" => self.max_fails = Some(count(name, value, "UpstreamBadMaxFails", 0, u32::MAX)?),
            "fail_timeout" => {
                let seconds =
                    parse_time(text(name, value)?.as_bytes(), false).and_then(|time| i32::try_from(time).ok());
                let bad = || Fault::new(400, "UpstreamBadFailTimeout", "invalid fail_timeout");
                self.fail_timeout = Some(seconds.ok_or_else(bad)?.into());
            }
            "slow_start" => {
                let millis = parse_time(text(name, value)?.as_bytes(), true).filter(|time| *time <= LONGEST);
                let bad = || Fault::new(400, "UpstreamBadSlowStart", "invalid slow_start");
                self.slow_start = Some(millis.ok_or_else(bad)?);
            }
            "route" => {
                let route = text(name, value)?;
                if route.len() > 32 {
                    return Err(Fault::new(400, "UpstreamBadRoute", "route is too long"));
                }
                self.route = Some(plain(name, route)?.to_owned());
            }
            "backup" => self.backup = Some(flag(name, value)?),
            "down" => self.down = Some(flag(name, value)?),
            "drain" => self.drain = Some(flag(name, value)?),
            _ => return Err(Fault::format(format!("unknown parameter \"{name}\""))),
        }
        Ok(())
    }

    /// `server` and `service`, which depend on one another.
    fn place(&mut self, members: &Map<String, Value>) -> Result<(), Fault> {
        let bad = |text: String| Fault::new(400, "UpstreamBadAddress", text);
        let service = members.get("service").map(|value| text("service", value)).transpose()?;
        if service == Some("") {
            return Err(Fault::new(400, "UpstreamBadService", "service is empty"));
        }
        let Some(server) = members.get("server") else { return Ok(()) };
        let server = text("server", server)?;
        let url = parse_known_url(server.as_bytes(), Wants { default_port: 80, ..Wants::default() });
        let url = url.map_err(|error| bad(format!("{error} while parsing \"{server}\"")))?;
        if service.is_some() && url.has_port {
            return Err(bad(format!("service upstream \"{server}\" may not have port")));
        }
        if service.is_some() && !url.addresses.is_empty() {
            return Err(bad(format!("service upstream \"{server}\" requires domain name")));
        }
        let server = plain("server", server)?.to_owned();
        let service = service.map(|service| plain("service", service)).transpose()?.map(Into::into);
        self.server = Some(match url.addresses.into_iter().next() {
            Some(address) => Place::Address(server, address),
            None => {
                let host = String::from_utf8_lossy(&url.host).into_owned();
                Place::Name { server, host, port: url.port, service }
            }
        });
        Ok(())
    }

    /// Adds the server.
    ///
    /// # Errors
    /// What does not fit, and `None` inside where the group has been replaced by a reload.
    pub(super) fn add(&self, group: &Group) -> Result<Server, Option<Fault>> {
        self.suits(group)?;
        let line = |server: &String| {
            let backup = self.backup == Some(true);
            let mut line = ServerLine { server: server.clone(), backup, ..ServerLine::default() };
            self.apply(&mut line);
            line
        };
        let added = match &self.server {
            None => return Err(Some(Fault::format("missing \"server\" argument"))),
            Some(Place::Address(server, address)) => {
                group.add_once(line(server), address).map(|(peer, added)| added.then_some(Server::Peer(peer)))
            }
            Some(Place::Name { host, .. }) if group.resolving.servers.is_none() => {
                let text = format!("no resolver defined to resolve \"{host}\"");
                return Err(Some(Fault::new(400, "UpstreamConfNoResolver", text)));
            }
            Some(Place::Name { server, host, port, service }) => {
                let name = Resolved::new(line(server), host.clone(), service.clone(), *port);
                group.add_name(name).map(|name| name.map(Server::Name))
            }
        };
        match added {
            Ok(Some(server)) => Ok(server),
            Ok(None) => Err(Some(exists())),
            Err(refused) => Err(refusal(refused, group, "")),
        }
    }

    /// Changes the server of a number.
    ///
    /// # Errors
    /// As [`Wish::add`].
    pub(super) fn change(&self, group: &Group, id: &str) -> Result<Server, Option<Fault>> {
        let server = server(group, id)?;
        self.suits(group)?;
        let backup = match &server {
            Server::Peer(peer) => peer.line.backup,
            Server::Name(name) => name.line.backup,
        };
        if self.backup.is_some_and(|wanted| wanted != backup) {
            return Err(Some(Fault::format("\"backup\" cannot be changed")));
        }
        match server {
            Server::Peer(peer) => self.change_peer(group, id, &peer).map(Server::Peer),
            Server::Name(name) => self.change_name(group, id, &name).map(Server::Name),
        }
    }

    fn change_peer(&self, group: &Group, id: &str, peer: &Peer) -> Result<Arc<Peer>, Option<Fault>> {
        let place = match &self.server {
            None => None,
            Some(Place::Address(server, address)) => Some((server, address)),
            Some(Place::Name { .. }) => {
                return Err(Some(Fault::new(400, "UpstreamBadAddress", "invalid \"server\" argument")));
            }
        };
        let moves = place.filter(|(_, address)| **address != peer.address);
        if let Some(name) = group.name_of(peer) {
            if moves.is_some() {
                return Err(Some(immutable("UpstreamServerImmutable", id, "address")));
            }
            if name.service.is_some() && self.weight.is_some_and(|weight| weight != peer.line.weight) {
                return Err(Some(immutable("UpstreamServerWeightImmutable", id, "weight")));
            }
        }
        if moves.is_some_and(|(_, address)| group.peers().any(|other| other.address == *address)) {
            return Err(Some(exists()));
        }
        let changed = group.change_to(peer.id, moves.map(|(_, address)| address.clone()), |line| {
            if let Some((server, _)) = moves {
                line.server.clone_from(server);
            }
            self.apply(line);
        });
        changed.map_err(|refused| refusal(refused, group, id))
    }

    fn change_name(&self, group: &Group, id: &str, name: &Resolved) -> Result<Arc<Resolved>, Option<Fault>> {
        let same = |place: &Place| matches!(place, Place::Name { server, .. } if *server == name.line.server);
        if self.server.as_ref().is_some_and(|place| !same(place)) {
            return Err(Some(immutable("UpstreamServerImmutable", id, "address")));
        }
        let changed = group.change_name(name.id.unwrap_or_default(), |line| self.apply(line));
        changed.map_err(|refused| refusal(refused, group, id))
    }

    fn suits(&self, group: &Group) -> Result<(), Option<Fault>> {
        if group.balance.allows_backup() {
            return Ok(());
        }
        if self.backup == Some(true) {
            return Err(refusal(Refused::NoBackup, group, ""));
        }
        if self.slow_start.is_some_and(|time| time > 0) {
            let text = "balancing method does not support slow_start";
            return Err(Some(Fault::new(400, "UpstreamBadSlowStart", text)));
        }
        Ok(())
    }

    /// Puts everything but the address into a line.
    fn apply(&self, line: &mut ServerLine) {
        line.weight = self.weight.unwrap_or(line.weight);
        line.max_conns = self.max_conns.unwrap_or(line.max_conns);
        line.max_fails = self.max_fails.unwrap_or(line.max_fails);
        line.fail_timeout = self.fail_timeout.unwrap_or(line.fail_timeout);
        line.slow_start = self.slow_start.unwrap_or(line.slow_start);
        if let Some(route) = &self.route {
            line.route.clone_from(route);
        }
        // One mode at a time: whoever is said to be up or down drains no more.
        if let Some(down) = self.down {
            (line.down, line.drain) = (down, false);
        }
        if let Some(drain) = self.drain {
            line.drain = drain;
            line.down &= !drain;
        }
    }
}

/// The heaviest a server may be: what a name server can say, too.
const HEAVIEST: u32 = 65535;

/// The longest time in milliseconds.
const LONGEST: u64 = i32::MAX as u64 * 1000;

/// Removes the server of a number.
///
/// # Errors
/// As [`Wish::add`].
pub(super) fn remove(group: &Group, id: &str) -> Result<(), Option<Fault>> {
    let removed = match server(group, id)? {
        Server::Name(name) => group.remove_name(name.id.unwrap_or_default()),
        Server::Peer(peer) if group.name_of(&peer).is_some() => {
            let text = format!("server \"{id}\" not removable");
            return Err(Some(Fault::new(400, "UpstreamServerImmutable", text)));
        }
        Server::Peer(peer) => group.remove(peer.id).map(drop),
    };
    removed.map_err(|refused| refusal(refused, group, id))
}

fn exists() -> Fault {
    Fault::new(409, "EntryExists", "entry exists")
}

fn immutable(code: &'static str, id: &str, what: &str) -> Fault {
    Fault::new(400, code, format!("server \"{id}\" {what} is immutable"))
}

fn refusal(refused: Refused, group: &Group, id: &str) -> Option<Fault> {
    match refused {
        Refused::Superseded => None,
        Refused::NotFound => Some(missing(id)),
        Refused::NoBackup => {
            Some(Fault::new(400, "UpstreamNoBackup", format!("upstream \"{}\" has no backup", group.name)))
        }
    }
}

fn wrong(name: &str) -> Fault {
    Fault::format(format!("invalid \"{name}\" value"))
}

/// A whole number between two others; another number has a fault of its own.
fn count(name: &str, value: &Value, code: &'static str, least: u32, most: u32) -> Result<u32, Fault> {
    let Value::Number(number) = value else { return Err(wrong(name)) };
    // 5.0 is a whole number, too.
    let real = || number.as_f64().filter(|real| real.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(real));
    let whole = number.as_u64().or_else(|| real().map(|real| real as u64));
    let whole = whole.and_then(|number| u32::try_from(number).ok());
    let fits = whole.filter(|number| (least..=most).contains(number));
    fits.ok_or_else(|| Fault::new(400, code, format!("invalid {name}")))
}

fn text<'v>(name: &str, value: &'v Value) -> Result<&'v str, Fault> {
    value.as_str().ok_or_else(|| wrong(name))
}

fn flag(name: &str, value: &Value) -> Result<bool, Fault> {
    value.as_bool().ok_or_else(|| wrong(name))
}

/// A text that can be written in a configuration and in a log as it is.
fn plain<'t>(name: &str, text: &'t str) -> Result<&'t str, Fault> {
    if text.chars().any(char::is_control) { Err(wrong(name)) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_or_refused_by_its_code() {
        for (body, code) in [
            ("", "JsonError"),
            ("{", "JsonError"),
            ("[]", "UpstreamConfFormatError"),
            ("{\"server\":1}", "UpstreamConfFormatError"),
            ("{\"server\":[\"a\"]}", "UpstreamConfFormatError"),
            ("{\"servers\":\"127.0.0.1\"}", "UpstreamConfFormatError"),
            ("{\"server\":\"127.0.0.1:0\"}", "UpstreamBadAddress"),
            ("{\"server\":\"\"}", "UpstreamBadAddress"),
            ("{\"server\":\"unix:/a\\u0000b\"}", "UpstreamConfFormatError"),
            ("{\"server\":\"127.0.0.1\",\"service\":\"http\"}", "UpstreamBadAddress"),
            ("{\"server\":\"a.example:80\",\"service\":\"http\"}", "UpstreamBadAddress"),
            ("{\"service\":\"\"}", "UpstreamBadService"),
            ("{\"weight\":0}", "UpstreamBadWeight"),
            ("{\"weight\":1.5}", "UpstreamBadWeight"),
            ("{\"weight\":65536}", "UpstreamBadWeight"),
            ("{\"weight\":\"5\"}", "UpstreamConfFormatError"),
            ("{\"max_conns\":-1}", "UpstreamBadMaxConns"),
            ("{\"max_fails\":99999999999}", "UpstreamBadMaxFails"),
            ("{\"fail_timeout\":\"x\"}", "UpstreamBadFailTimeout"),
            ("{\"slow_start\":\"-1s\"}", "UpstreamBadSlowStart"),
            ("{\"route\":\"123456789012345678901234567890123\"}", "UpstreamBadRoute"),
            ("{\"down\":\"yes\"}", "UpstreamConfFormatError"),
        ] {
            assert_eq!(Wish::read(body.as_bytes()).unwrap_err().code, code, "{body}");
        }
    }

    #[test]
    fn a_server_is_up_down_or_draining_and_one_of_them_at_a_time() {
        let mut line = ServerLine::default();
        for (body, down, drain) in [
            ("{\"drain\":true}", false, true),
            ("{\"down\":true}", true, false),
            ("{\"drain\":true}", false, true),
            ("{\"down\":false}", false, false),
            ("{\"drain\":false,\"weight\":7}", false, false),
        ] {
            Wish::read(body.as_bytes()).unwrap().apply(&mut line);
            assert_eq!((line.down, line.drain), (down, drain), "{body}");
        }
        assert_eq!(line.weight, 7);
    }

    #[test]
    fn times_are_written_as_nginx_reads_them() {
        assert_eq!([0, 1500, 10_000].map(time), ["0s", "1500ms", "10s"]);
    }
}
