//! `resolver_on_start`: what becomes of a server whose name nobody knows when the server starts. nginx refuses to start;
//! with `retry` it is looked up again until somebody does.

use super::lookups::now;
use crate::{
    config::{Args, FromArgs, registry::on_statement_line, values::choose},
    http::{
        Http,
        modules::resolver::{Log, lookup},
    },
    observe::error_log::Level,
    process,
    syntax::Fault,
    upstream::{
        Group, ServerLine,
        resolve::{Found, Resolved},
    },
};
use std::{
    net::IpAddr,
    rc::Rc,
    sync::{Arc, Weak},
    time::Duration,
};

/// `resolver_on_start`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStart {
    /// As nginx does: the configuration is refused.
    #[default]
    Fail,
    Retry,
}

impl FromArgs for OnStart {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        choose(args, &[("fail", Self::Fail), ("retry", Self::Retry)])
    }
}

/// A `server` line whose name is nobody's yet.
#[derive(Clone, Debug)]
pub(super) struct Unresolved {
    line: ServerLine,
    host: String,
    port: u16,
    fault: Fault,
}

impl Unresolved {
    /// `fault` is what nginx says of it.
    pub(super) fn new(line: ServerLine, host: &[u8], port: u16, fault: Fault, args: &Args<'_>) -> Self {
        let host = String::from_utf8_lossy(host).into_owned();
        Self { line, host, port, fault: on_statement_line(fault, args.statement) }
    }

    /// The fault as it is, or a warning and the name to look up.
    pub(super) fn settle(&self, on_start: OnStart) -> (Fault, Option<Resolved>) {
        if on_start == OnStart::Fail {
            return (self.fault.clone(), None);
        }
        (warning(&self.fault), Some(Resolved::at_first(self.line.clone(), self.host.clone(), self.port)))
    }
}

/// The same as a warning.
pub(super) fn warning(fault: &Fault) -> Fault {
    fault.clone().warn().help("it is looked up again and again while the server runs, and has no address until then")
}

/// What nginx says of a name that nobody knows, and what might help.
pub(super) fn not_found(fault: Fault) -> Fault {
    fault.help(
        "the name is looked up when the server starts, and nothing answers for it; `resolver_on_start retry;` waits",
    )
}

/// The text for a name that nobody knows.
pub(super) const HOST_NOT_FOUND: &str = "host not found";

/// How long to wait before the second attempt, and at most before any other.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Looks one name up until it is somebody's.
pub(super) async fn follow(http: Weak<Http>, at: usize, line: usize) {
    let mut wait = WAITS.0;
    loop {
        let Some(http_now) = http.upgrade() else { return };
        let Some(Some(group)) = http_now.upstreams.get(at) else { return };
        let name = &group.resolving.names[line];
        let found = addresses(&http_now, group, name).await;
        if !found.is_empty() {
            let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
            let text = format!("{} resolves to {} now, in upstream \"{}\"", name.host, texts.join(", "), group.name);
            let one = |ip| Found { address: (ip, name.port).into(), server: None, priority: 0, weight: 0 };
            group.update(line, &found.into_iter().map(one).collect::<Vec<_>>());
            name.set_answered(now());
            http_now.log(Level::Notice, &text);
            return;
        }
        let text = format!("host not found in upstream \"{}\", trying again", name.line.server);
        http_now.log(Level::Info, &text);
        drop(http_now);
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(WAITS.1);
    }
}

/// Asks the name servers that are written, or else the system.
async fn addresses(http: &Arc<Http>, group: &Group, name: &Resolved) -> Vec<IpAddr> {
    let resolving = &group.resolving;
    let Some(servers) = &resolving.servers else { return process::look_up(name.host.clone()).await };
    let told = Arc::clone(http);
    let log: Log = Rc::new(move |trouble| told.log(Level::Info, &trouble.to_string()));
    lookup(servers, resolving.timeout, &name.host, log).await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::{
        http::testing::{http, http_fault},
        upstream::Client,
    };

    /// The fault of an upstream that says this, in an http that says that.
    fn fault(http: &str, upstream: &str) -> String {
        http_fault(&format!("upstream u {{ {upstream} }} {http}"))
    }

    #[test]
    fn a_name_that_nobody_knows_is_a_fault_unless_it_is_to_be_tried_again() {
        let text = "host not found in upstream \"app:5000\"";
        let retry = "resolver_on_start retry;";
        for (http, upstream, expected) in [
            ("", "server app:5000;", text),
            ("", "server 127.0.0.1; server app:5000 backup;", text),
            ("", "server app:5000; resolver_on_start retry;", ""),
            ("", "resolver_on_start retry; server app:5000 weight=2; server localhost:5000;", ""),
            (retry, "server app:5000;", ""),
            (retry, "server app:5000; resolver_on_start fail;", text),
            ("resolver_on_start fail;", "server app:5000;", text),
            (retry, "server app:5000 nonsense;", "invalid parameter \"nonsense\""),
            (retry, "server app:x;", "invalid port in upstream \"app:x\""),
            (retry, "server app:5000 backup;", "no servers in upstream \"u\""),
            ("", "resolver_on_start maybe; server localhost;", "invalid value \"maybe\""),
        ] {
            assert_eq!(fault(http, upstream), expected, "{http} {upstream}");
        }
    }

    #[test]
    fn an_address_without_upstream_is_tried_again_where_http_says_so() {
        let pass = "server { location / { proxy_pass http://app:5000; } }";
        assert_eq!(http_fault(pass), "host not found in upstream \"app\"");
        let http = http(&format!("resolver_on_start retry; {pass}"));
        let group = http.upstreams[0].as_ref().unwrap();
        assert!(group.select(Client::default()).next(0).is_err());
        let names: Vec<_> = group.resolving.names.iter().map(|name| (&*name.host, name.port, name.at_first)).collect();
        assert_eq!((&*group.name, names), ("app:5000", vec![("app", 5000, true)]));
        assert_eq!(group.unresolved(), ["app"]);
    }

    #[test]
    fn a_name_that_was_known_before_a_reload_keeps_its_addresses() {
        let generation =
            |server: &str| http(&format!("upstream u {{ resolver_on_start retry; server {server}:5000 weight=3; }}"));
        let (before, after) = (generation("localhost"), generation("app"));
        let group = |http: &crate::http::Http| std::sync::Arc::clone(http.upstreams[0].as_ref().unwrap());
        group(&after).adopt(&group(&before));
        assert!(group(&after).peers().next().is_none(), "it is another name");
        // The same name, no longer known.
        let known = crate::upstream::ServerLine { server: "app:5000".into(), weight: 3, ..Default::default() };
        let addresses = vec![crate::upstream::Address::Tcp("10.0.0.7:5000".parse().unwrap())];
        let known = crate::upstream::Group::new("u", crate::upstream::Balance::RoundRobin, vec![(known, addresses)]);
        let later = generation("app");
        group(&later).adopt(&known.unwrap());
        let names: Vec<_> = group(&later).peers().map(|peer| (peer.name.clone(), peer.line.weight)).collect();
        assert_eq!(names, [("10.0.0.7:5000".to_owned(), 3)]);
    }
}
