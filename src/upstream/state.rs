//! `state`: a file that says who belongs to a group, and follows every change.

use super::{
    group::Group,
    peer::{Address, Peer, ServerLine},
};
use crate::{
    config::values::{Wants, parse_known_url},
    process::keep::Keeper,
};
use std::{
    fmt::Write,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

/// The file of a group.
#[derive(Debug)]
pub struct State {
    pub path: PathBuf,
    /// Who writes it, once somebody does.
    keeper: OnceLock<Arc<Keeper>>,
}

impl State {
    /// A file that nobody writes yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, keeper: OnceLock::new() }
    }

    /// Has it written from now on.
    pub fn attach(&self, keeper: &Arc<Keeper>) {
        // It stays with whom it is.
        let _ = self.keeper.set(Arc::clone(keeper));
    }
}

impl Group {
    /// The membership has changed. To be called while it cannot change again, so that texts are in order.
    pub(super) fn note_state(&self) {
        if let Some(state) = &self.state
            && let Some(keeper) = state.keeper.get()
        {
            keeper.keep(&state.path, self.state_text().into_bytes());
        }
    }

    /// Ends when every change made so far is in the file, or could not be written, which is logged then. At once where
    /// there is no file.
    pub async fn saved(&self) {
        if let Some(state) = &self.state
            && let Some(keeper) = state.keeper.get()
        {
            keeper.wait(&state.path).await;
        }
    }

    /// The servers as lines of a configuration: those that were found by looking up a name are that name's.
    pub fn state_text(&self) -> String {
        let mut text = String::new();
        let joined = self.joined_names();
        for name in self.resolving.names.iter().chain(joined.iter().map(|(_, name)| &**name)) {
            let mut what = " resolve".to_owned();
            if let Some(service) = &name.service {
                what.push_str(" service=");
                what.push_str(service);
            }
            write_line(&mut text, &name.line.server, &name.line, &what);
        }
        for peer in self.peers().filter(|peer| peer.found_by.is_none()) {
            // An agent takes its share of what is written the next time, too.
            write_line(&mut text, &server(&peer), &peer.line_without_agent(), "");
        }
        text
    }
}

/// The server as it was written, if that is this address and no other.
fn server(peer: &Peer) -> String {
    let wants = Wants { default_port: 80, ..Wants::default() };
    let written = parse_known_url(peer.line.server.as_bytes(), wants);
    let same = |addresses: &[Address]| addresses == std::slice::from_ref(&peer.address);
    match written {
        Ok(url) if same(&url.addresses) => peer.line.server.clone(),
        _ => peer.name.clone(),
    }
}

/// One line: only what differs from nginx's defaults.
fn write_line(text: &mut String, server: &str, line: &ServerLine, more: &str) {
    let default = ServerLine::default();
    let mut out = format!("server {}", word(server));
    let mut put = |differs: bool, name: &str, value: &dyn std::fmt::Display| {
        if differs {
            // Writing to a text does not fail.
            let _ = write!(out, " {name}{value}");
        }
    };
    put(line.weight != default.weight, "weight=", &line.weight);
    put(line.max_conns != default.max_conns, "max_conns=", &line.max_conns);
    put(line.max_fails != default.max_fails, "max_fails=", &line.max_fails);
    put(line.fail_timeout != default.fail_timeout, "fail_timeout=", &format_args!("{}s", line.fail_timeout));
    put(line.slow_start != default.slow_start, "slow_start=", &format_args!("{}ms", line.slow_start));
    put(line.backup, "backup", &"");
    put(line.down, "down", &"");
    put(line.drain, "drain", &"");
    if !line.route.is_empty() {
        let route = word(&format!("route={}", line.route));
        put(true, "", &route);
    }
    text.push_str(&out);
    text.push_str(more);
    text.push_str(";\n");
}

/// A word of a configuration, in quotes where it needs them.
fn word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/[]-=*@+,~%!".contains(&byte) || byte >= 0x80;
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    let mut quoted = String::from("\"");
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{
        Balance,
        edit::Dynamics,
        resolve::{Resolved, Resolving},
    };
    use std::time::Duration;

    #[test]
    fn servers_are_written_with_what_differs_from_the_defaults() {
        let line = |server: &str| ServerLine { server: server.into(), ..ServerLine::default() };
        let whole = ServerLine {
            weight: 5,
            max_fails: 3,
            fail_timeout: 30,
            max_conns: 7,
            drain: true,
            route: "a b".into(),
            slow_start: 1500,
            ..line("127.0.0.1")
        };
        let tcp = |text: &str| vec![Address::Tcp(text.parse().unwrap())];
        let servers = vec![
            (whole, tcp("127.0.0.1:80")),
            (line("localhost:81"), [tcp("[::1]:81"), tcp("127.0.0.1:81")].concat()),
            (ServerLine { backup: true, down: true, ..line("unix:/a \"b\"") }, vec![Address::Unix("/a \"b\"".into())]),
        ];
        let name = Resolved::new(line("app.example"), "app.example".into(), Some("http".into()), 80);
        let names = Resolving::new(vec![name], None, Duration::ZERO);
        let group = Group::with_names("app", Balance::RoundRobin, servers, names, Dynamics::default()).unwrap();
        assert_eq!(
            group.state_text(),
            "server app.example resolve service=http;\n\
             server 127.0.0.1 weight=5 max_conns=7 max_fails=3 fail_timeout=30s slow_start=1500ms drain \"route=a b\";\n\
             server [::1]:81;\n\
             server 127.0.0.1:81;\n\
             server \"unix:/a \\\"b\\\"\" backup down;\n"
        );
    }
}
