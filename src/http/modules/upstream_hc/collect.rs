//! Which checks a configuration has: each `health_check` with its location and the group that this leads to.

use super::{
    args::{HealthCheck, Kind},
    matching::Match,
};
use crate::{
    config::{Handle, Scope},
    http::{
        content::Content,
        level::{Location, Server},
        modules::{Settings, uwsgi},
    },
    syntax::{Fault, Stage},
    upstream::{
        Group,
        health::Terms,
        pass::{Passing, cgi},
    },
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// All checks of a generation.
#[derive(Default)]
pub struct Checks {
    pub(super) all: Vec<Arc<Check>>,
    /// A thread has taken it upon itself to make them.
    claimed: AtomicBool,
}

/// One `health_check` where it stands.
pub(super) struct Check {
    pub(super) args: Arc<HealthCheck>,
    pub(super) matching: Option<Arc<Match>>,
    pub(super) server: Arc<Server>,
    pub(super) location: Arc<Location>,
    pub(super) group: Arc<Group>,
    pub(super) terms: Terms,
}

impl Checks {
    /// How the peers of a group are checked.
    pub(super) fn of(&self, group: &Arc<Group>) -> Vec<Terms> {
        let own = self.all.iter().filter(|check| Arc::ptr_eq(&check.group, group));
        own.map(|check| check.terms.clone()).collect()
    }

    /// Whether the caller is the first to ask this: then it is up to it to make them.
    pub(super) fn claim(&self) -> bool {
        !self.all.is_empty() && !self.claimed.swap(true, Relaxed)
    }
}

impl Check {
    /// How the location speaks to its upstream.
    pub(super) fn passing(&self) -> &Passing {
        let settings = &self.location.settings;
        match self.location.content {
            Content::Uwsgi => &settings.uwsgi.passing,
            Content::Fastcgi => &settings.fastcgi.passing,
            Content::Scgi => &settings.scgi.passing,
            Content::Memcached => &settings.memcached.passing,
            _ => &settings.proxy.passing,
        }
    }
}

/// Finds the checks of all locations. What is wrong with them is left in the scope.
pub fn collect(http: &Settings, servers: &[Arc<Server>], groups: &[Option<Arc<Group>>], scope: &Scope<'_>) -> Checks {
    let matches = &http.upstream_hc.matches;
    for (at, one) in matches.iter().enumerate() {
        if let Some(earlier) = matches[..at].iter().find(|earlier| earlier.name == one.name) {
            let text = [b"duplicate match \"", &one.name[..], b"\""].concat();
            scope.fault(Fault::at(one.span, text).also(earlier.span, "the first one"));
        }
    }
    let mut all = Vec::new();
    let mut names: HashMap<String, usize> = HashMap::new();
    for server in servers {
        for location in server.locations.all() {
            for args in location.settings.upstream_hc.checks.iter() {
                match check(args, matches, server, location, groups) {
                    Ok(Some(mut check)) => {
                        // The same may be written twice.
                        let count = names.entry(check.terms.name.to_string()).or_default();
                        *count += 1;
                        if *count > 1 {
                            check.terms.name = format!("{}#{count}", check.terms.name).into();
                        }
                        all.push(Arc::new(check));
                    }
                    Ok(None) => {}
                    Err(fault) => scope.fault(fault),
                }
            }
        }
    }
    Checks { all, claimed: AtomicBool::new(false) }
}

/// One check, unless its upstream was found faulty before.
fn check(
    args: &Arc<HealthCheck>,
    matches: &[Arc<Match>],
    server: &Arc<Server>,
    location: &Arc<Location>,
    groups: &[Option<Arc<Group>>],
) -> Result<Option<Check>, Fault> {
    let settling = |text: String| Fault::at(args.span, text).when(Stage::Settling);
    let handle = group(location, &args.kind).map_err(|text| settling(text.to_owned()))?;
    let Some(group) = groups.get(handle.0 as usize).and_then(Option::as_ref) else { return Ok(None) };
    if group.zone.is_none() {
        let text = format!("health checks require upstream \"{}\" to be in shared memory", group.name);
        return Err(settling(text).help(format!("add `zone {} 64k;` to the upstream", group.name)));
    }
    let find = |(name, span): &(bytes::Bytes, _)| {
        let found = matches.iter().find(|one| one.name == *name).map(Arc::clone);
        let text = [b"unknown match \"", &name[..], b"\""].concat();
        found.ok_or_else(|| Fault::at(*span, text).when(Stage::Settling))
    };
    let matching = args.matching.as_ref().map(find).transpose()?;
    let place = String::from_utf8_lossy(&location.name).into_owned();
    let name = format!("{} {} {place} {}", group.name, String::from_utf8_lossy(&server.name), args.text);
    let (fails, passes, mandatory, persistent) = (args.fails, args.passes, args.mandatory, args.persistent);
    let terms = Terms { name: name.into(), fails, passes, mandatory, persistent };
    let (args, server, location) = (Arc::clone(args), Arc::clone(server), Arc::clone(location));
    Ok(Some(Check { args, matching, server, location, group: Arc::clone(group), terms }))
}

/// The group that a location passes requests to.
fn group(location: &Location, kind: &Kind) -> Result<Handle, &'static str> {
    let settings = &location.settings;
    let of = |pass: Option<&cgi::Pass>| match pass {
        Some(cgi::Pass::Group(handle)) => Some(*handle),
        _ => None,
    };
    let group = match location.content {
        Content::Proxy => settings.proxy.pass.as_ref().and_then(|pass| pass.group()),
        Content::Uwsgi => of(settings.uwsgi.pass.as_ref().map(|uwsgi::Server(pass)| pass)),
        Content::Fastcgi => of(settings.fastcgi.pass.as_ref()),
        Content::Scgi => of(settings.scgi.pass.as_ref()),
        Content::Memcached if *kind == Kind::Http => {
            return Err("\"health_check\" of memcached servers is possible with \"type=tcp\" only");
        }
        Content::Memcached => settings.memcached.pass.as_ref().map(|server| server.group),
        _ => return Err("\"health_check\" requires \"proxy_pass\" or its kin in the location"),
    };
    group.ok_or("\"health_check\" does not support variables in the address of the upstream")
}
