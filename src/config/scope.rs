//! What one reading of the configuration shares: names that are used before they are defined, the
//! outside world it may ask, and the warnings it gives.

use crate::syntax::{Fault, Line, Severity, Span, Stage, Statement};
use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

/// The outside world as a reading may see it. The master answers from the system and keeps every
/// answer; the worker answers from what the master kept, so that both read the same configuration.
pub trait Inputs {
    /// The contents of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The files a shell pattern names, sorted.
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>>;
    /// The addresses of a name, in the order the system gives them.
    fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// What kind of thing a name stands for. Each kind has a name space of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Variable,
    Upstream,
    Zone,
    /// A cache of upstreams' answers, by its name, and by that with the directive before it.
    Cache,
    /// A `status_zone` of servers.
    ServerZone,
    /// A `status_zone` of locations.
    LocationZone,
    /// A `status_zone=` of resolvers.
    ResolverZone,
    LogFormat,
    LogFile,
    /// A syslog server, as `access_log` and `error_log` write it.
    Syslog,
    /// How the access logs of a file are buffered.
    LogBuffer,
    /// A folder for temporary files, or of a cache, which the master makes for the worker. A cache shares its own with
    /// nobody.
    TempFolder,
    /// One that nobody has chosen: it is made where it can be.
    BuiltInFolder,
    /// What the configuration uses that everything must be prepared for.
    Feature,
}

/// A name that was mentioned: valid as an index in the tables built at the end of the reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub u32);

/// One name and what is known about it so far.
#[derive(Clone, Debug)]
pub struct Named {
    pub name: Vec<u8>,
    /// Where it was first mentioned.
    pub first_use: Span,
    /// Where it was defined, if it was.
    pub defined: Option<Span>,
    /// Where it was given a value that stands back behind other definitions (`set`).
    pub assigned: Option<Span>,
    /// What the first mention said of it; what that means is up to the kind.
    pub note: u32,
}

/// Where the configuration is read: what paths are relative to, and what is known of the machine.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `-p` or the built-in prefix, ending in `/`: for `root html`, `logs/x`.
    pub prefix: PathBuf,
    /// The directory of the main file: for `include`, certificates, password files.
    pub conf: PathBuf,
    /// The machine's name, lower case: `$hostname`.
    pub host_name: String,
    /// Whether low ports can be bound and `user` means something.
    pub superuser: bool,
    /// The access log of a configuration that names none.
    pub access_log: PathBuf,
    /// The folders for temporary files of other kinds: `proxy`, `uwsgi`.
    pub temp_folders: Vec<(&'static str, PathBuf)>,
}

/// Shared by all directives of one reading.
pub struct Scope<'i> {
    pub surroundings: Surroundings,
    inputs: &'i dyn Inputs,
    names: RefCell<HashMap<Kind, Table>>,
    faults: RefCell<Vec<Fault>>,
    enclosing: RefCell<Vec<Statement>>,
    closing: Cell<Option<Span>>,
}

#[derive(Default)]
struct Table {
    index: HashMap<Vec<u8>, u32>,
    entries: Vec<Named>,
}

impl<'i> Scope<'i> {
    pub fn new(surroundings: Surroundings, inputs: &'i dyn Inputs) -> Self {
        Self {
            surroundings,
            inputs,
            names: RefCell::default(),
            faults: RefCell::default(),
            enclosing: RefCell::default(),
            closing: Cell::default(),
        }
    }

    /// Reads what stands inside a block, while [`Scope::enclosing`] names that block.
    pub fn inside<T>(&self, block: &Statement, read: impl FnOnce() -> T) -> T {
        let header = Statement { name: block.name.clone(), args: block.args.clone(), block: None, end: block.end };
        self.enclosing.borrow_mut().push(header);
        let result = read();
        self.enclosing.borrow_mut().pop();
        result
    }

    /// Says where nginx stands when it settles levels: at the `}` of `http`.
    pub fn close_at(&self, closing: Span) {
        self.closing.set(Some(closing));
    }

    /// A fault found in settling the innermost block: nginx names the line of the `}` it stands at.
    pub fn settling(&self, message: impl Into<Vec<u8>>) -> Fault {
        let at = self.enclosing().map(|statement| statement.name.span).unwrap_or_default();
        let fault = Fault::at(at, message).when(Stage::Settling);
        match self.closing.get() {
            Some(closing) => Fault { line: Line::Of(closing), ..fault },
            None => fault,
        }
    }

    /// The statement that opened the innermost block being read, without its block.
    pub fn enclosing(&self) -> Option<Statement> {
        self.enclosing.borrow().last().cloned()
    }

    /// The handle of a name, which may be defined later.
    pub fn refer(&self, kind: Kind, name: &[u8], at: Span) -> Handle {
        self.refer_noting(kind, name, at, 0)
    }

    /// The same, with a note for whoever settles names that nothing defines.
    pub fn refer_noting(&self, kind: Kind, name: &[u8], at: Span, note: u32) -> Handle {
        let name = &*spelling(kind, name);
        let mut names = self.names.borrow_mut();
        let table = names.entry(kind).or_default();
        if let Some(&index) = table.index.get(name) {
            return Handle(index);
        }
        let index = u32::try_from(table.entries.len()).unwrap_or(u32::MAX);
        table.index.insert(name.to_vec(), index);
        table.entries.push(Named { name: name.to_vec(), first_use: at, defined: None, assigned: None, note });
        Handle(index)
    }

    /// Defines a name; where it was defined before comes back beside the handle.
    pub fn define(&self, kind: Kind, name: &[u8], at: Span) -> (Handle, Option<Span>) {
        let handle = self.refer(kind, name, at);
        let mut names = self.names.borrow_mut();
        let entry = &mut names.entry(kind).or_default().entries[handle.0 as usize];
        let earlier = entry.defined;
        entry.defined = earlier.or(Some(at));
        (handle, earlier)
    }

    /// Notes that a name is given values; unlike [`Scope::define`] this leaves it to others to define it.
    pub fn assign(&self, kind: Kind, name: &[u8], at: Span) -> Handle {
        let handle = self.refer(kind, name, at);
        let mut names = self.names.borrow_mut();
        let entry = &mut names.entry(kind).or_default().entries[handle.0 as usize];
        entry.assigned = entry.assigned.or(Some(at));
        handle
    }

    /// The handle of a name that was mentioned before.
    pub fn find(&self, kind: Kind, name: &[u8]) -> Option<Handle> {
        self.names.borrow().get(&kind)?.index.get(&*spelling(kind, name)).copied().map(Handle)
    }

    /// Where a name was first mentioned, if it was.
    pub fn first_use(&self, kind: Kind, name: &[u8]) -> Option<Span> {
        let Handle(index) = self.find(kind, name)?;
        Some(self.names.borrow().get(&kind)?.entries.get(index as usize)?.first_use)
    }

    /// All names of a kind; a handle is an index into it.
    pub fn names(&self, kind: Kind) -> Vec<Named> {
        self.names.borrow().get(&kind).map(|table| table.entries.clone()).unwrap_or_default()
    }

    /// A path as nginx completes it: relative to the prefix.
    pub fn path(&self, path: &[u8]) -> PathBuf {
        self.surroundings.prefix.join(bytes_to_path(path))
    }

    /// A path as nginx completes it: relative to the main file's directory.
    pub fn conf_path(&self, path: &[u8]) -> PathBuf {
        self.surroundings.conf.join(bytes_to_path(path))
    }

    /// The folder for temporary files of a kind, where the configuration names none.
    pub fn temp_folder(&self, kind: &str) -> PathBuf {
        let known = self.surroundings.temp_folders.iter().find(|(name, _)| *name == kind);
        known.map_or_else(|| self.path(format!("{kind}_temp").as_bytes()), |(_, path)| path.clone())
    }

    /// The contents of a file the configuration names.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.inputs.read(path)
    }

    /// The addresses of a name.
    pub fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.inputs.resolve(host)
    }

    /// Files that a pattern names.
    pub fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        self.inputs.glob(pattern)
    }

    /// Adds a fault beside those that directives return.
    pub fn fault(&self, fault: Fault) {
        self.faults.borrow_mut().push(fault);
    }

    /// How many of the faults so far leave the configuration of no use.
    pub fn emerg_count(&self) -> usize {
        self.faults.borrow().iter().filter(|fault| fault.severity == Severity::Emerg).count()
    }

    /// Hands over the faults collected so far.
    pub fn take_faults(&self) -> Vec<Fault> {
        self.faults.take()
    }
}

/// The spelling under which a name is kept: variables are the same in any case.
fn spelling(kind: Kind, name: &[u8]) -> Cow<'_, [u8]> {
    if kind == Kind::Variable && name.iter().any(u8::is_ascii_uppercase) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}

/// Bytes of a configuration as a path.
pub fn bytes_to_path(path: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(path))
}
