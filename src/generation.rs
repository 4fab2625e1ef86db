//! One reading of the whole configuration: what it says, what is wrong with it, and what it needs opened.

mod text;

pub use text::read_text;

use crate::{
    config::{
        Contexts, EVENTS, HTTP, Inputs, MAIN, Scope, known,
        registry::on_statement_line,
        render::{self, Rendering},
        scope::Surroundings,
        values::Address,
    },
    http::{self, Http, modules::error_log, modules::server::SoKeepalive},
    lint, lock,
    process::{
        Invocation, Level, Program, Reading, Ready, Report, Resources,
        needs::{self, Affinity, Endpoint, Identity, ListenerNeed, LogTarget, Needs},
        worker::Thread,
    },
    settings::{Processes, Settings, registry},
    syntax::{self, Block, Fault, Loader, Severity, Sources, Stage, Statement},
};
use std::{
    cell::RefCell,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

/// Everything one reading produced.
pub struct Generation {
    pub http: Arc<Http>,
    /// `worker_shutdown_timeout`: the longest a connection of this generation outlives it.
    pub shutdown_timeout: Option<Duration>,
}

/// The server, as the process room drives it.
#[derive(Default)]
pub struct Server {
    serving: Mutex<Option<Arc<Generation>>>,
}

impl Program for Server {
    type Generation = Generation;

    fn read(&self, invocation: &Invocation, resources: &mut dyn Resources) -> Reading<Generation> {
        read(invocation, resources)
    }

    fn install(&self, generation: &Arc<Generation>, opened: &crate::process::Opened) -> Result<(), String> {
        for slot in &generation.http.log_files {
            if let Some(file) = opened.log(slot.path()) {
                slot.attach(file);
            }
        }
        for slot in &generation.http.syslogs {
            if let Some(sender) = opened.syslog(&slot.need) {
                slot.attach(sender);
            }
        }
        for group in generation.http.upstreams.iter().flatten() {
            if let Some(state) = &group.state {
                state.attach(opened.keeper());
            }
        }
        let mut serving = lock(&self.serving);
        if let Some(previous) = serving.as_ref() {
            generation.http.adopt(&previous.http);
            http::modules::access_log::flush_all();
        }
        http::modules::upstream_hc::begin(&generation.http);
        crate::upstream::cache::begin(&generation.http);
        crate::observe::debug::follow(&generation.http);
        tracing::debug!("a generation serves");
        *serving = Some(Arc::clone(generation));
        Ok(())
    }

    fn flush(&self, _generation: &Arc<Generation>) {
        http::modules::access_log::flush_all();
    }

    async fn serve(self: Arc<Self>, thread: Thread<Generation>) {
        http::worker::serve(thread).await;
    }
}

/// Reads the configuration that a command line names.
pub fn read(invocation: &Invocation, resources: &mut dyn Resources) -> Reading<Generation> {
    read_with(invocation, resources, pictures(invocation.quiet))
}

/// The same, and says whether faults are drawn.
fn read_with(invocation: &Invocation, resources: &mut dyn Resources, pictures: bool) -> Reading<Generation> {
    let facts = resources.facts().clone();
    let mut inputs = FromResources(RefCell::new(resources));
    let mut faults = Vec::new();
    let globals = (!invocation.globals.is_empty()).then_some(&invocation.globals[..]);
    let tree = syntax::load(&mut inputs, &invocation.conf_file, globals, &mut faults);
    let surroundings = Surroundings {
        prefix: invocation.prefix.clone(),
        conf: invocation.conf_prefix.clone(),
        host_name: String::from_utf8_lossy(&facts.host_name).into_owned(),
        superuser: facts.superuser,
        access_log: invocation.full_name(invocation.profile.access_log.as_bytes()),
        temp_folders: temp_folders(invocation),
    };
    let mut needs = Needs::default();
    let http = {
        let scope = Scope::new(surroundings, &inputs);
        let (settings, http) = levels(&tree.globals, &tree.root, invocation, &scope);
        faults.extend(scope.take_faults());
        describe(&mut needs, &settings, &http, invocation, facts.processors);
        drop(scope);
        if facts.superuser {
            match identify(&settings, invocation, &mut **inputs.0.borrow_mut()) {
                Ok(user) => needs.identity.user = user,
                Err(fault) => faults.push(fault),
            }
        }
        http
    };
    if invocation.lint {
        let built = registry().built().chain(http::modules::registry().built()).map(|built| built.name).collect();
        faults.extend(lint::findings(&tree.root, is_fragment(&tree.root), &built));
    }
    render::sort(&mut faults, &tree.sources);
    let emerg = |stage: Stage| faults.iter().any(|fault| fault.severity == Severity::Emerg && fault.stage <= stage);
    let syntax_ok = !emerg(Stage::Settling);
    let ready = (!emerg(Stage::Opening)).then(|| {
        let generation = Generation { http: Arc::new(http), shutdown_timeout: needs.shutdown_timeout };
        Ready { generation: Arc::new(generation), needs }
    });
    let reports = faults.iter().map(|fault| report(fault, &tree.sources, pictures)).collect();
    Reading { reports, syntax_ok, ready, dump: dump(&tree.sources) }
}

/// Reads the main level and the blocks in it.
fn levels(globals: &Block, root: &Block, invocation: &Invocation, scope: &Scope<'_>) -> (Settings, Http) {
    let registry = registry();
    let mut settings = Settings::default();
    let fragment = is_fragment(root);
    let main: Vec<&Statement> = match fragment {
        true => globals.statements.iter().collect(),
        false => globals.statements.iter().chain(&root.statements).collect(),
    };
    let blocks_begin = main.iter().position(|statement| statement.block.is_some()).unwrap_or(main.len());
    let too_late = |(at, statement): &(usize, &Statement)| {
        let late = *at > blocks_begin && statement.name.value == b"load_module";
        if late {
            let fault = Fault::at(statement.name.span, "\"load_module\" directive is specified too late");
            scope.fault(on_statement_line(fault.help("it stands before all blocks"), statement));
        }
        late
    };
    let main = main.into_iter().enumerate().filter(|statement| !too_late(statement)).map(|(_, statement)| statement);
    let (blocks, own): (Vec<_>, Vec<_>) =
        main.partition(|statement| matches!(&statement.name.value[..], b"http" | b"events"));
    registry.apply_all(own, MAIN, &mut settings, scope);
    let block = |name: &str| well_formed(&blocks, name, scope);
    match block("events") {
        Some(events) => registry.apply_all(&events.statements, EVENTS, &mut settings, scope),
        None if fragment => {
            let text = "no \"http\" block in the file: it is read as what stands inside one";
            let span = root.statements.first().map_or(root.close, |statement| statement.name.span);
            scope.fault(Fault { severity: Severity::Notice, ..Fault::at(span, text) });
        }
        // One that is there and wrong has been told of.
        None if blocks.iter().any(|statement| statement.name.value == b"events") => {}
        None => scope.fault(Fault::nowhere("no \"events\" section in configuration").help("add `events {}`")),
    }
    default_error_log(&mut settings, invocation, scope);
    let above = http::modules::Settings { error_log: Arc::clone(&settings.error_log), ..Default::default() };
    let limit = settings.events.worker_connections.0;
    let empty = Block::default();
    let inside = if fragment { Some(root) } else { block("http") };
    let http = http::generation::read(inside.unwrap_or(&empty), above, limit, scope);
    (settings, http)
}

/// The block of that name, written once.
fn well_formed<'s>(blocks: &[&'s Statement], name: &str, scope: &Scope<'_>) -> Option<&'s Block> {
    let mut found = None;
    for statement in blocks.iter().filter(|statement| statement.name.value == name.as_bytes()) {
        if let Err(known::Unknown::Shape(fault)) = known::check(statement, MAIN) {
            scope.fault(on_statement_line(fault, statement));
            continue;
        }
        if found.is_some() {
            let fault = Fault::at(statement.name.span, format!("\"{name}\" directive is duplicate"));
            scope.fault(on_statement_line(fault, statement));
            continue;
        }
        found = statement.block.as_ref();
    }
    found
}

/// Whether a file is what stands inside `http {}`: it has a directive that only http knows, and no block of the
/// main level.
fn is_fragment(root: &Block) -> bool {
    let names = || root.statements.iter().map(|statement| String::from_utf8_lossy(&statement.name.value).into_owned());
    let allowed = |name: &str, here: Contexts| known::rows().any(|row| row.name == name && row.contexts.allow(here));
    let whole = names().any(|name| matches!(name.as_str(), "http" | "events" | "stream" | "mail"));
    let inner = root.statements.iter().any(|statement| {
        let name = String::from_utf8_lossy(&statement.name.value);
        statement.block.is_some() && allowed(&name, HTTP) && !allowed(&name, MAIN)
    });
    inner && !whole
}

/// Where temporary files are unless a directive says so (`--http-proxy-temp-path` and its kin).
fn temp_folders(invocation: &Invocation) -> Vec<(&'static str, PathBuf)> {
    let profile = invocation.profile;
    let folders = [
        ("client_body", profile.client_body_temp),
        ("proxy", profile.proxy_temp),
        ("fastcgi", profile.fastcgi_temp),
        ("uwsgi", profile.uwsgi_temp),
        ("scgi", profile.scgi_temp),
    ];
    folders.map(|(kind, path)| (kind, invocation.full_name(path.as_bytes()))).to_vec()
}

/// A configuration that names no error log has the one of the command line or the build.
fn default_error_log(settings: &mut Settings, invocation: &Invocation, scope: &Scope<'_>) {
    if settings.error_log.targets.is_empty() {
        let conf = Arc::make_mut(&mut settings.error_log);
        conf.targets.0.push(error_log::Target::default_at(&invocation.error_log, scope));
    }
}

/// What the settings need opened and set.
fn describe(needs: &mut Needs, settings: &Settings, http: &Http, invocation: &Invocation, processors: usize) {
    let main = &settings.main;
    needs.daemon = main.daemon;
    needs.master_process = main.master_process;
    needs.pid = main.pid.clone().unwrap_or_else(|| invocation.full_name(invocation.profile.pid.as_bytes()));
    needs.worker_processes = match main.worker_processes {
        Processes::Auto => processors,
        Processes::Number(number) => number,
    };
    needs.shutdown_timeout = main.worker_shutdown_timeout.map(|timeout| timeout.0).filter(|timeout| !timeout.is_zero());
    needs.affinity = Affinity::None;
    needs.identity = Identity {
        user: None,
        priority: main.worker_priority.0,
        rlimit_nofile: main.worker_rlimit_nofile.map(|limit| limit as u64),
        rlimit_core: main.worker_rlimit_core.map(|limit| limit.0),
        working_directory: main.working_directory.clone(),
        environment: main.env.iter().map(|variable| variable.0.clone()).collect(),
    };
    needs.directories.clone_from(&http.temp_folders);
    needs.optional_directories.clone_from(&http.built_in_folders);
    let states = http.upstreams.iter().flatten().filter_map(|group| group.state.as_ref());
    needs.kept = states.map(|state| state.path.clone()).collect();
    needs.logs = http.log_files.iter().map(|file| file.path().to_path_buf()).collect();
    let target = |target: &error_log::Target| needs::ErrorLog {
        target: match target.file {
            error_log::File::Stderr => LogTarget::Stderr,
            error_log::File::Path(handle) => LogTarget::File(http.log_files[handle.0 as usize].path().to_path_buf()),
            error_log::File::Syslog(handle) => LogTarget::Syslog(http.syslogs[handle.0 as usize].need.clone()),
        },
        level: target.level,
        json: target.json,
    };
    needs.syslogs = http.syslogs.iter().map(|slot| slot.need.clone()).collect();
    needs.error_logs = settings.error_log.targets.iter().map(target).collect();
    needs.listeners = http.listeners.iter().map(|listener| listener_need(listener)).collect();
}

fn listener_need(listener: &http::listener::Listener) -> ListenerNeed {
    let endpoint = match &listener.address {
        Address::Tcp(tcp) => Endpoint::tcp(*tcp),
        Address::Unix(path) => Endpoint::unix(path),
    };
    let options = &listener.options;
    let small = |size: usize| i32::try_from(size).unwrap_or(i32::MAX);
    let mut need = ListenerNeed::new(endpoint);
    need.backlog = options.backlog.unwrap_or(need.backlog);
    need.reuseport = options.reuseport;
    need.ipv6only = options.ipv6only.unwrap_or(true);
    need.rcvbuf = options.rcvbuf.map(small);
    need.sndbuf = options.sndbuf.map(small);
    need.fastopen = options.fastopen;
    need.deferred = options.deferred;
    need.multipath = options.multipath;
    let seconds = |seconds: Option<u64>| seconds.and_then(|seconds| i32::try_from(seconds).ok());
    match options.so_keepalive {
        None => {}
        Some(SoKeepalive::Off) => need.keepalive.on = Some(false),
        Some(SoKeepalive::On { idle, interval, count }) => {
            need.keepalive = needs::Keepalive {
                on: Some(true),
                idle: seconds(idle),
                interval: seconds(interval),
                count: count.and_then(|count| i32::try_from(count).ok()),
            };
        }
    }
    need
}

/// Whom the worker becomes: `user`, or the build's.
fn identify(
    settings: &Settings,
    invocation: &Invocation,
    resources: &mut dyn Resources,
) -> Result<Option<needs::User>, Fault> {
    let failed = |call: &str, name: &[u8], errno: crate::process::Errno, at: Option<syntax::Span>| {
        let mut text = [call.as_bytes(), b"(\"", name, b"\") failed"].concat();
        if errno.0 != 0 {
            text.extend_from_slice(format!(" ({errno})").as_bytes());
        }
        match at {
            Some(at) => Fault::at(at, text),
            None => Fault::nowhere(text),
        }
    };
    if let Some(user) = &settings.main.user {
        let name = &user.name;
        let uid = resources.user(&name.value);
        let uid = uid.map_err(|errno| failed("getpwnam", &name.value, errno, Some(name.span)))?;
        let group = user.group.as_ref().unwrap_or(name);
        let gid = resources.group(&group.value);
        let gid = gid.map_err(|errno| failed("getgrnam", &group.value, errno, Some(group.span)))?;
        return Ok(Some(needs::User { name: name.value.clone(), uid, gid }));
    }
    let name = invocation.profile.user.as_bytes();
    let uid = resources.user(name).map_err(|errno| failed("getpwnam", name, errno, None));
    let groups = invocation.profile.groups;
    let gid = groups.iter().find_map(|group| resources.group(group.as_bytes()).ok());
    match (uid, gid) {
        (Ok(uid), Some(gid)) => Ok(Some(needs::User { name: name.to_vec(), uid, gid })),
        // Not every machine has the user of every build: then the one every Unix has.
        _ => match (resources.user(b"nobody"), resources.group(b"nogroup").or_else(|_| resources.group(b"nobody"))) {
            (Ok(uid), Ok(gid)) => Ok(Some(needs::User { name: b"nobody".to_vec(), uid, gid })),
            (Err(errno), _) => Err(failed("getpwnam", b"nobody", errno, None)),
            (_, Err(errno)) => Err(failed("getgrnam", b"nobody", errno, None)),
        },
    }
}

/// A fault as the process prints it.
fn report(fault: &Fault, sources: &Sources, pictures: bool) -> Report {
    let level = match fault.severity {
        Severity::Emerg => Level::Emerg,
        Severity::Warn => Level::Warn,
        Severity::Notice => Level::Notice,
    };
    let picture = match pictures {
        false => String::new(),
        true => {
            let whole = render::render(fault, sources, &Rendering { pictures: true, ..Rendering::default() });
            let below = memchr::memchr(b'\n', &whole).map_or(whole.len(), |at| at + 1);
            String::from_utf8_lossy(&whole[below..]).into_owned()
        }
    };
    Report { level, text: render::message(fault, sources), picture, after_syntax: fault.stage == Stage::Opening }
}

/// Pictures go to a terminal; `TIDEGATE_PICTURES` is `always` or `never`.
fn pictures(quiet: bool) -> bool {
    use std::io::IsTerminal;
    match std::env::var("TIDEGATE_PICTURES").as_deref() {
        _ if quiet => false,
        Ok("always") => true,
        Ok("never") => false,
        _ => io::stderr().is_terminal(),
    }
}

/// Every file once, for `-T`.
fn dump(sources: &Sources) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for source in &sources.0 {
        let command_line = source.path == Path::new(syntax::include::COMMAND_LINE);
        if !command_line && !files.iter().any(|(path, _)| *path == source.path) {
            files.push((source.path.clone(), source.text.clone()));
        }
    }
    files
}

/// The process room's answers, as the readers of text ask for them.
struct FromResources<'r>(RefCell<&'r mut dyn Resources>);

impl Loader for FromResources<'_> {
    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        Inputs::read(self, path)
    }

    fn glob(&mut self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Inputs::glob(self, pattern)
    }
}

impl Inputs for FromResources<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let text = self.0.borrow_mut().read(path);
        text.map(|text| text.to_vec()).map_err(|error| io::Error::from_raw_os_error(error.errno.0))
    }

    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.borrow_mut().glob(pattern).map_err(|errno| io::Error::from_raw_os_error(errno.0))
    }

    fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let found = self.0.borrow_mut().resolve(host.as_bytes());
        if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
    }
}
