//! The servers of an upstream as they are configured, and changes of them.

use super::{
    fault::Fault,
    json::{Json, Members},
};
use crate::{
    config::values::{Wants, parse_known_url, parse_time},
    http::Http,
    upstream::{Address, Group, Peer, ServerLine, edit::Refused},
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

/// The server of a number.
///
/// # Errors
/// `UpstreamBadServerId`, `UpstreamServerNotFound`.
pub(super) fn server(group: &Group, id: &str) -> Result<Arc<Peer>, Fault> {
    group.peer(number(id)?).ok_or_else(|| missing(id))
}

fn missing(id: &str) -> Fault {
    Fault::new(404, "UpstreamServerNotFound", format!("server with ID \"{id}\" does not exist"))
}

/// All servers, as they are configured.
pub(super) fn list(group: &Group) -> Json {
    Json::List(group.peers().map(|peer| configured(group, &peer)).collect())
}

/// One server, as it is configured.
pub(super) fn configured(group: &Group, peer: &Peer) -> Json {
    let line = &*peer.line;
    let mut members: Members = vec![
        ("id".into(), peer.id.into()),
        ("server".into(), peer.name.clone().into()),
        ("weight".into(), line.weight.into()),
        ("max_conns".into(), line.max_conns.into()),
        ("max_fails".into(), line.max_fails.into()),
        ("fail_timeout".into(), format!("{}s", line.fail_timeout).into()),
        ("slow_start".into(), time(line.slow_start).into()),
        ("route".into(), line.route.clone().into()),
        ("backup".into(), line.backup.into()),
        ("down".into(), line.down.into()),
    ];
    if line.drain {
        members.push(("drain".into(), true.into()));
    }
    if let Some(name) = group.name_of(peer) {
        members.push(("host".into(), name.host.clone().into()));
    }
    Json::Object(members)
}

/// Milliseconds as nginx writes a time.
fn time(millis: u64) -> String {
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

/// What a request says of a server: the parameters it has, and no others.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wish {
    server: Option<(String, Address)>,
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
        let Some(address) = url.addresses.first() else {
            let text = format!("no resolver defined to resolve \"{server}\": addresses only can be added at run time");
            return Err(Fault::new(400, "UpstreamConfNoResolver", text));
        };
        self.server = Some((plain("server", server)?.to_owned(), address.clone()));
        Ok(())
    }

    /// Adds the server.
    ///
    /// # Errors
    /// What does not fit, and `None` inside where the group has been replaced by a reload.
    pub(super) fn add(self, group: &Group) -> Result<Arc<Peer>, Option<Fault>> {
        let Some((server, address)) = self.server.clone() else {
            return Err(Some(Fault::format("missing \"server\" argument")));
        };
        self.suits(group)?;
        let mut line = ServerLine { server, backup: self.backup == Some(true), ..ServerLine::default() };
        self.apply(&mut line);
        match group.add_once(line, &address) {
            Ok((peer, true)) => Ok(peer),
            Ok((_, false)) => Err(Some(Fault::new(409, "EntryExists", "entry exists"))),
            Err(refused) => Err(refusal(refused, group, "")),
        }
    }

    /// Changes the server of a number.
    ///
    /// # Errors
    /// As [`Wish::add`].
    pub(super) fn change(self, group: &Group, id: &str) -> Result<Arc<Peer>, Option<Fault>> {
        let peer = server(group, id)?;
        self.suits(group)?;
        if let Some(name) = group.name_of(&peer) {
            let moves = self.server.as_ref().is_some_and(|(_, address)| *address != peer.address);
            let weighs = name.service.is_some() && self.weight.is_some_and(|weight| weight != peer.line.weight);
            let immutable = |code, what: &str| Fault::new(400, code, format!("server \"{id}\" {what} is immutable"));
            if moves {
                return Err(Some(immutable("UpstreamServerImmutable", "address")));
            }
            if weighs {
                return Err(Some(immutable("UpstreamServerWeightImmutable", "weight")));
            }
        }
        if self.backup.is_some_and(|backup| backup != peer.line.backup) {
            return Err(Some(Fault::format("\"backup\" cannot be changed")));
        }
        let address = self.server.as_ref().map(|(_, address)| address.clone());
        let moves = address.as_ref().filter(|address| **address != peer.address);
        if moves.is_some_and(|address| group.peers().any(|other| other.address == *address)) {
            return Err(Some(Fault::new(409, "EntryExists", "entry exists")));
        }
        let moves = moves.cloned();
        let changed = group.change_to(peer.id, moves.clone(), |line| {
            if let (Some((server, _)), Some(_)) = (&self.server, &moves) {
                line.server.clone_from(server);
            }
            self.apply(line);
        });
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
    let peer = server(group, id)?;
    if group.name_of(&peer).is_some() {
        let text = format!("server \"{id}\" not removable");
        return Err(Some(Fault::new(400, "UpstreamServerImmutable", text)));
    }
    group.remove(peer.id).map(drop).map_err(|refused| refusal(refused, group, id))
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
            ("{\"server\":\"app.example\"}", "UpstreamConfNoResolver"),
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
