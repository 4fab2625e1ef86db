//! `status_zone`: counts what the requests of a server or a location come to, for `api` and `metrics`. The directive is NGINX
//! Plus's.

use super::Room;
use crate::{
    config::{Args, Directive, IF_IN_LOCATION, Kind as Named, LOCATION, Module, SERVER, Scope, Slot},
    http::zones::{Kind, Zone},
    syntax::Fault,
};
use std::{ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub zones: Zones,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] =
        &[Directive::new("status_zone", SERVER.or(LOCATION).or(IF_IN_LOCATION), |conf| &mut conf.zones)];
}

impl Room for Conf {
    type State = ();
}

/// Where requests are counted.
#[derive(Clone, Debug, Default)]
pub struct Zones {
    /// With those of the same server.
    pub server: Option<Arc<Zone>>,
    /// With those that end in the same location. Locations inside of it count there, too, unless they say otherwise.
    pub location: Option<Arc<Zone>>,
}

impl Slot for Zones {
    fn fill(&mut self, args: &Args<'_>) -> Result<(), Fault> {
        let word = args.word(0);
        if word.value.is_empty() {
            return Err(Fault::at(word.span, "invalid zone name \"\""));
        }
        let (kind, named, zone) = match args.here == SERVER {
            true => (Kind::Servers, Named::ServerZone, &mut self.server),
            false => (Kind::Locations, Named::LocationZone, &mut self.location),
        };
        if &word.value[..] == b"off" {
            *zone = None;
            return Ok(());
        }
        args.scope.refer(named, &word.value, word.span);
        *zone = Some(Zone::named(kind, &word.text()));
        Ok(())
    }

    fn takes(&self) -> RangeInclusive<usize> {
        1..=1
    }
}

/// The zones of a kind that a reading mentions, in the order of their mention.
pub fn mentioned(kind: Kind, scope: &Scope<'_>) -> Vec<Arc<Zone>> {
    let named = match kind {
        Kind::Servers => Named::ServerZone,
        Kind::Locations => Named::LocationZone,
    };
    let zone = |named: &crate::config::scope::Named| Zone::named(kind, &String::from_utf8_lossy(&named.name));
    scope.names(named).iter().map(zone).collect()
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{conf, fault, http, http_fault};

    #[test]
    fn servers_and_locations_have_zones_of_their_own() {
        let http = http(
            "server { status_zone a; location / { status_zone b; location /x { status_zone off; } location /y { } \
             if ($arg_c) { status_zone c; } } }",
        );
        let names =
            |zones: &[std::sync::Arc<super::Zone>]| zones.iter().map(|zone| zone.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&http.server_zones), ["a"]);
        assert_eq!(names(&http.location_zones), ["b", "c"]);
        let server = &http.servers[0];
        assert!(server.base.settings.status_zone.zones.location.is_none());
        for (path, zone) in [("/", Some("b")), ("/x", None), ("/y", Some("b"))] {
            let found = server.locations.find(path.as_bytes()).unwrap();
            let zones = &found.outcome.location().unwrap().settings.status_zone.zones;
            assert_eq!(zones.location.as_ref().map(|zone| &*zone.name), zone, "{path}");
            assert_eq!(zones.server.as_ref().map(|zone| &*zone.name), Some("a"));
        }
    }

    #[test]
    fn a_level_without_a_zone_counts_nothing() {
        let zones = conf("").status_zone;
        assert!(zones.zones.server.is_none() && zones.zones.location.is_none());
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        assert_eq!(fault("status_zone a b;"), "invalid number of arguments in \"status_zone\" directive");
        assert_eq!(fault("status_zone '';"), "invalid zone name \"\"");
        assert_eq!(fault("status_zone a; status_zone b;"), "\"status_zone\" directive is duplicate");
        assert_eq!(http_fault("status_zone a;"), "\"status_zone\" directive is not allowed here");
    }
}
