//! Everything that reading `http {}` produced: immutable, shared by all threads, replaced as a whole.

use super::{
    clock,
    level::{self, Server},
    listener::{self, Listener},
    modules::{self, Settings, access_log},
    variables::{self, Definition},
    zones,
};
use crate::{
    config::{
        Handle, Kind, Scope,
        values::{Address, TempPath},
    },
    observe::{
        LogSlot,
        error_log::Level,
        syslog::{self, SyslogSlot},
    },
    syntax::Block,
    upstream::{Group, cache::Zone},
};
use std::{collections::HashMap, path::PathBuf, sync::Arc};

/// The `http` block, ready to answer.
pub struct Http {
    /// The http level's own settings: what applies before a server is known.
    pub settings: Settings,
    pub servers: Vec<Arc<Server>>,
    pub listeners: Vec<Arc<Listener>>,
    /// What each variable stands for; indexed by handles.
    pub variables: Vec<Definition>,
    /// Variables by name, for the named groups of regular expressions.
    pub variable_names: HashMap<Vec<u8>, Handle>,
    /// The groups that are referred to by name; indexed by handles of [`Kind::Upstream`].
    pub upstreams: Vec<Option<Arc<Group>>>,
    /// The log files; indexed by handles of [`Kind::LogFile`].
    pub log_files: Vec<Arc<LogSlot>>,
    /// The syslog servers; indexed by handles of [`Kind::Syslog`].
    pub syslogs: Vec<Arc<SyslogSlot>>,
    /// The formats of `log_format`; indexed by handles of [`Kind::LogFormat`].
    pub log_formats: Vec<Option<Arc<access_log::Format>>>,
    /// The `status_zone` of servers, as they were first mentioned.
    pub server_zones: Vec<Arc<zones::Zone>>,
    /// Those of locations.
    pub location_zones: Vec<Arc<zones::Zone>>,
    /// The `status_zone=` of resolvers.
    pub resolver_zones: Vec<Arc<modules::resolver::Zone>>,
    /// The health checks.
    pub checks: modules::upstream_hc::Checks,
    /// `$hostname`.
    pub hostname: String,
    /// For folders that variables name.
    pub prefix: PathBuf,
    /// Where request bodies are kept for a configuration that does not say.
    pub client_body_temp: TempPath,
    /// The folders for temporary files.
    pub temp_folders: Vec<PathBuf>,
    /// Those that nobody has chosen.
    pub built_in_folders: Vec<PathBuf>,
    /// `worker_connections`: what a thread takes.
    pub connections_limit: usize,
}

/// Reads an `http` block. What is wrong is left in the scope; the result is then of no use.
pub fn read(block: &Block, above: Settings, connections_limit: usize, scope: &Scope<'_>) -> Http {
    let levels = level::read(block, above, scope);
    let mut settings = levels.settings;
    access_log::complete(Arc::make_mut(&mut settings.access_log), &levels.servers, scope);
    let variables = variables::resolve(scope, settings.computed());
    let names = scope.names(Kind::Variable).into_iter().enumerate();
    let handle = |at: usize| Handle(u32::try_from(at).unwrap_or(u32::MAX));
    let variable_names = names.map(|(at, named)| (named.name, handle(at))).collect();
    super::limit_zone::check_zones(scope);
    let listeners = listener::collect(&levels.servers, scope).into_iter().map(Arc::new).collect();
    let upstreams = modules::upstream::groups(&settings, scope);
    Http {
        checks: modules::upstream_hc::collect(&settings, &levels.servers, &upstreams, scope),
        upstreams,
        log_formats: access_log::formats(&settings.access_log, scope),
        log_files: scope.names(Kind::LogFile).iter().map(|file| Arc::new(LogSlot::new(&file.name))).collect(),
        syslogs: syslog::slots(scope),
        server_zones: modules::status_zone::mentioned(zones::Kind::Servers, scope),
        location_zones: modules::status_zone::mentioned(zones::Kind::Locations, scope),
        resolver_zones: modules::resolver::zones(scope),
        servers: levels.servers,
        listeners,
        variables,
        variable_names,
        settings,
        hostname: scope.surroundings.host_name.clone(),
        prefix: scope.surroundings.prefix.clone(),
        client_body_temp: super::body_file::built_in(scope),
        temp_folders: super::temp_files::chosen(scope),
        built_in_folders: super::temp_files::built_in(scope),
        connections_limit,
    }
}

impl Http {
    /// The listener of an address.
    pub fn listener(&self, address: &Address) -> Option<Arc<Listener>> {
        self.listeners.iter().find(|listener| listener.address == *address).cloned()
    }

    /// The group of a name that variables gave: an `upstream` block, or one written the same way.
    pub fn group(&self, host: &[u8], port: Option<u16>) -> Option<Arc<Group>> {
        let is = |group: &&Arc<Group>| match port {
            None => group.name.as_bytes().eq_ignore_ascii_case(host),
            Some(port) => group.name.eq_ignore_ascii_case(&format!("{}:{port}", String::from_utf8_lossy(host))),
        };
        self.upstreams.iter().flatten().find(is).cloned()
    }

    /// Writes a line that belongs to no request to the error log of the http level.
    pub fn log(&self, level: Level, message: &str) {
        crate::observe::error_log::plain_line(self, &self.settings.error_log, level, message);
    }

    /// The caches of upstreams' answers.
    pub fn caches(&self) -> impl Iterator<Item = &Arc<Zone>> {
        let Settings { proxy, fastcgi, scgi, uwsgi, .. } = &self.settings;
        [&proxy.caching, &fastcgi.caching, &scgi.caching, &uwsgi.caching].into_iter().flat_map(|room| room.zones.iter())
    }

    /// Takes over the state of groups that the generation before had under the same name.
    pub fn adopt(&self, previous: &Self) {
        let now = clock::wall_millis();
        for group in self.upstreams.iter().flatten() {
            let same = previous.upstreams.iter().flatten().find(|earlier| earlier.name == group.name);
            if let Some(earlier) = same {
                group.adopt(earlier);
                group.take_over_loads(earlier, now);
            }
        }
        previous.upstreams.iter().flatten().for_each(|earlier| earlier.loads.end());
        for zone in self.caches() {
            if let Some(earlier) = previous.caches().find(|earlier| earlier.path.name == zone.path.name) {
                zone.adopt(earlier);
            }
        }
        modules::limit_req::adopt(&self.settings.limit_req, &previous.settings.limit_req);
        modules::limit_conn::adopt(&self.settings.limit_conn, &previous.settings.limit_conn);
    }
}
