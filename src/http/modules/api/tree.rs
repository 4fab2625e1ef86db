//! The paths of the API: what each stands for, since which version, and what can be done with it.

use super::fault::Fault;

/// The versions that are offered.
pub(super) const VERSIONS: std::ops::RangeInclusive<u32> = 1..=9;

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<'p> {
    /// The versions.
    Versions,
    /// The document that describes all of this.
    Description,
    Root,
    Nginx,
    Processes,
    Connections,
    Slabs,
    Http,
    Requests,
    ServerZones,
    ServerZone(&'p str),
    LocationZones,
    LocationZone(&'p str),
    LimitConns,
    LimitConn(&'p str),
    LimitReqs,
    LimitReq(&'p str),
    Caches,
    Cache(&'p str),
    Keyvals,
    Upstreams,
    Upstream(&'p str),
    Servers(&'p str),
    Server(&'p str, &'p str),
    Resolvers,
    Resolver(&'p str),
    Ssl,
    Workers,
    Worker(&'p str),
    Stream,
    /// One of a kind of which there are none; the fault says so.
    Nobody(&'static str, &'static str),
}

use Target as T;

/// Finds what the part of a path behind the location's own stands for; also the version, 9 where none is written.
///
/// # Errors
/// `UnknownVersion`, `PathNotFound`.
pub(super) fn find(path: &str) -> (u32, Result<Target<'_>, Fault>) {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (version, rest) = match &parts[..] {
        [] => return (9, Ok(T::Versions)),
        ["openapi.yaml"] => return (9, Ok(T::Description)),
        [version, rest @ ..] => (version.parse().ok().filter(|version| VERSIONS.contains(version)), rest),
    };
    let Some(version) = version else { return (9, Err(Fault::version())) };
    let since = |first: u32, target: Target<'static>| (version >= first).then_some(target);
    let target = match *rest {
        [] => Some(T::Root),
        ["nginx"] => Some(T::Nginx),
        ["processes"] => Some(T::Processes),
        ["connections"] => Some(T::Connections),
        ["slabs"] => Some(T::Slabs),
        ["slabs", _] => Some(T::Nobody("SlabNotFound", "slab not found")),
        ["ssl"] => Some(T::Ssl),
        ["resolvers"] => since(5, T::Resolvers),
        ["resolvers", name] if version >= 5 => Some(T::Resolver(name)),
        ["workers"] => since(9, T::Workers),
        ["workers", id] if version >= 9 => Some(T::Worker(id)),
        ["stream"] => Some(T::Stream),
        ["http"] => Some(T::Http),
        ["http", ref rest @ ..] => http(version, rest),
        _ => None,
    };
    (version, target.ok_or_else(Fault::path))
}

fn http<'p>(version: u32, rest: &[&'p str]) -> Option<Target<'p>> {
    Some(match *rest {
        ["requests"] => T::Requests,
        ["server_zones"] => T::ServerZones,
        ["server_zones", name] => T::ServerZone(name),
        ["location_zones"] if version >= 5 => T::LocationZones,
        ["location_zones", name] if version >= 5 => T::LocationZone(name),
        ["limit_conns"] if version >= 6 => T::LimitConns,
        ["limit_conns", name] if version >= 6 => T::LimitConn(name),
        ["limit_reqs"] if version >= 6 => T::LimitReqs,
        ["limit_reqs", name] if version >= 6 => T::LimitReq(name),
        ["caches"] => T::Caches,
        ["caches", name] => T::Cache(name),
        ["keyvals"] => T::Keyvals,
        ["keyvals", _] => T::Nobody("KeyvalNotFound", "keyval not found"),
        ["upstreams"] => T::Upstreams,
        ["upstreams", name] => T::Upstream(name),
        ["upstreams", name, "servers"] => T::Servers(name),
        ["upstreams", name, "servers", id] => T::Server(name, id),
        _ => return None,
    })
}

/// What `/` of a version lists.
pub(super) fn root(version: u32) -> Vec<&'static str> {
    let since = [("resolvers", 5), ("ssl", 1), ("workers", 9), ("stream", 1)];
    let first = ["nginx", "processes", "connections", "slabs", "http"];
    let later = since.into_iter().filter(|(_, first)| version >= *first).map(|(name, _)| name);
    first.into_iter().chain(later).collect()
}

/// What `/http/` of a version lists.
pub(super) fn http_root(version: u32) -> Vec<&'static str> {
    let since = [
        ("requests", 1),
        ("server_zones", 1),
        ("location_zones", 5),
        ("limit_conns", 6),
        ("limit_reqs", 6),
        ("caches", 1),
        ("keyvals", 1),
        ("upstreams", 1),
    ];
    since.into_iter().filter(|(_, first)| version >= *first).map(|(name, _)| name).collect()
}

impl Target<'_> {
    /// The methods that change something here, as they stand in `Allow`.
    pub(super) fn changes(self) -> &'static [&'static str] {
        match self {
            T::Processes
            | T::Connections
            | T::Requests
            | T::ServerZone(_)
            | T::LocationZone(_)
            | T::LimitConn(_)
            | T::LimitReq(_)
            | T::Cache(_)
            | T::Upstream(_)
            | T::Resolver(_)
            | T::Ssl
            | T::Workers
            | T::Worker(_) => &["DELETE"],
            T::Servers(_) => &["POST"],
            T::Server(..) => &["PATCH", "DELETE"],
            T::Nobody("KeyvalNotFound", _) => &["POST", "PATCH", "DELETE"],
            T::Nobody(..) => &["DELETE"],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_with_and_without_its_last_slash() {
        for (path, target) in [
            ("", T::Versions),
            ("/", T::Versions),
            ("/9", T::Root),
            ("/9/", T::Root),
            ("/9/nginx", T::Nginx),
            ("/9/http/upstreams/app/servers/", T::Servers("app")),
            ("/1/http/upstreams/app/servers/7", T::Server("app", "7")),
            ("/9/http/caches/one", T::Cache("one")),
            ("/9/slabs/one", T::Nobody("SlabNotFound", "slab not found")),
        ] {
            assert_eq!(find(path).1.as_ref(), Ok(&target), "{path}");
        }
    }

    #[test]
    fn what_is_not_there_says_why() {
        for (path, code) in [
            ("/0/", "UnknownVersion"),
            ("/10/nginx", "UnknownVersion"),
            ("/x", "UnknownVersion"),
            ("/9/x", "PathNotFound"),
            ("/9/http/upstreams/a/servers/1/x", "PathNotFound"),
            ("/8/workers/", "PathNotFound"),
            ("/4/resolvers/", "PathNotFound"),
            ("/9/stream/upstreams", "PathNotFound"),
        ] {
            assert_eq!(find(path).1.unwrap_err().code, code, "{path}");
        }
    }

    #[test]
    fn what_a_list_names_is_there() {
        for version in VERSIONS {
            for name in root(version) {
                assert!(find(&format!("/{version}/{name}/")).1.is_ok(), "{version} {name}");
            }
            for name in http_root(version) {
                assert!(find(&format!("/{version}/http/{name}/")).1.is_ok(), "{version} {name}");
            }
        }
    }
}
