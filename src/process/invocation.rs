//! How nginx was called: the options of the command line, completed from the build profile (`ngx_process_options`).

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use super::profile::Profile;

/// The argument of `-s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Stop,
    Quit,
    Reopen,
    Reload,
}

impl Order {
    /// The order of that name.
    pub fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"stop" => Self::Stop,
            b"quit" => Self::Quit,
            b"reopen" => Self::Reopen,
            b"reload" => Self::Reload,
            _ => return None,
        })
    }

    /// The signal that carries it to the master.
    pub fn signal(self) -> i32 {
        match self {
            Self::Stop => libc::SIGTERM,
            Self::Quit => libc::SIGQUIT,
            Self::Reopen => libc::SIGUSR1,
            Self::Reload => libc::SIGHUP,
        }
    }
}

/// The options as typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-p`.
    pub prefix: Option<OsString>,
    /// `-e`; empty for `stderr`.
    pub error_log: Option<OsString>,
    /// `-c`.
    pub conf: Option<OsString>,
    /// `-g`; of several the last counts, as in nginx.
    pub globals: Option<OsString>,
    /// `-t` or `-T`.
    pub test: bool,
    /// `-T`.
    pub dump: bool,
    /// `-q`.
    pub quiet: bool,
    /// `--lint`.
    pub lint: bool,
    /// `-s`.
    pub order: Option<Order>,
}

/// One call of nginx: what it was told, and the paths that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    pub profile: &'static Profile,
    /// `-p` or the profile's, ending in `/`; may be relative to the current directory.
    pub prefix: PathBuf,
    /// Where `include` and other paths of the configuration start: the main file's folder, ending in `/`.
    pub conf_prefix: PathBuf,
    /// The main file.
    pub conf_file: PathBuf,
    /// The error log when the configuration names none, below the prefix; empty for standard error.
    pub error_log: PathBuf,
    /// The directives of `-g`.
    pub globals: Vec<u8>,
    pub test: bool,
    pub dump: bool,
    pub quiet: bool,
    pub lint: bool,
    pub order: Option<Order>,
    /// The whole command line, for the master's title and for a new binary.
    pub arguments: Vec<OsString>,
}

impl Invocation {
    /// Completes `options`. `arguments` is the whole command line.
    pub fn new(options: Options, profile: &'static Profile, arguments: Vec<OsString>) -> Self {
        let prefix = with_slash(options.prefix.unwrap_or_else(|| profile.prefix.into()).into_vec());
        let conf_file = match &options.conf {
            Some(conf) => typed_path(&prefix, conf),
            None => full_name(&prefix, OsStr::new(profile.conf)),
        };
        let bytes = conf_file.as_os_str().as_bytes();
        let conf_prefix = match bytes.iter().rposition(|&byte| byte == b'/') {
            Some(slash) if slash > 0 => PathBuf::from(OsStr::from_bytes(&bytes[..=slash])),
            _ => prefix.clone(),
        };
        let error_log = match options.error_log.as_deref().unwrap_or(OsStr::new(profile.error_log)) {
            log if log.is_empty() || log == "stderr" => PathBuf::new(),
            log => full_name(&prefix, log),
        };
        Self {
            profile,
            prefix,
            conf_prefix,
            conf_file,
            error_log,
            globals: options.globals.map(OsString::into_vec).unwrap_or_default(),
            test: options.test,
            dump: options.dump,
            quiet: options.quiet,
            lint: options.lint,
            order: options.order,
            arguments,
        }
    }

    /// A path of the configuration that is relative to the prefix: logs, `root`, `pid` (`ngx_conf_full_name`).
    pub fn full_name(&self, path: &[u8]) -> PathBuf {
        full_name(&self.prefix, OsStr::from_bytes(path))
    }

    /// A path that is relative to the main file's folder: `include`, certificates, password files.
    pub fn conf_name(&self, path: &[u8]) -> PathBuf {
        full_name(&self.conf_prefix, OsStr::from_bytes(path))
    }
}

fn with_slash(mut path: Vec<u8>) -> PathBuf {
    if path.last().is_some_and(|&byte| byte != b'/') {
        path.push(b'/');
    }
    OsString::from_vec(path).into()
}

/// Joins by bytes, because messages show the path exactly so.
fn full_name(prefix: &Path, path: &OsStr) -> PathBuf {
    if path.as_bytes().first() == Some(&b'/') {
        return path.into();
    }
    let mut full = prefix.as_os_str().to_owned();
    full.push(path);
    full.into()
}

/// The file of `-c`. nginx looks below the prefix only; where nothing is there, the current directory is meant.
fn typed_path(prefix: &Path, conf: &OsStr) -> PathBuf {
    let named = full_name(prefix, conf);
    if !named.exists()
        && let Ok(here) = std::env::current_dir()
        && here.join(conf).is_file()
    {
        return here.join(conf);
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::profile::{NGINX_ORG, SOURCE};

    fn invocation(options: Options, profile: &'static Profile) -> Invocation {
        Invocation::new(options, profile, Vec::new())
    }

    #[test]
    fn the_profile_fills_what_is_not_typed() {
        let plain = invocation(Options::default(), &SOURCE);
        assert_eq!(plain.conf_file, Path::new("/usr/local/nginx/conf/nginx.conf"));
        assert_eq!(plain.conf_prefix.as_os_str(), "/usr/local/nginx/conf/");
        assert_eq!(plain.error_log, Path::new("/usr/local/nginx/logs/error.log"));
        assert_eq!(plain.full_name(b"html"), Path::new("/usr/local/nginx/html"));
        assert_eq!(plain.conf_name(b"mime.types"), Path::new("/usr/local/nginx/conf/mime.types"));
    }

    #[test]
    fn a_prefix_moves_relative_paths_only() {
        let options = Options { prefix: Some("/srv/x".into()), conf: Some("a/b.conf".into()), ..Options::default() };
        let moved = invocation(options, &NGINX_ORG);
        assert_eq!(moved.prefix.as_os_str(), "/srv/x/");
        assert_eq!(moved.conf_file, Path::new("/srv/x/a/b.conf"));
        assert_eq!(moved.conf_prefix.as_os_str(), "/srv/x/a/");
        assert_eq!(moved.error_log, Path::new("/var/log/nginx/error.log"));
    }

    #[test]
    fn stderr_is_an_empty_path() {
        let options = Options { error_log: Some("stderr".into()), ..Options::default() };
        assert!(invocation(options, &NGINX_ORG).error_log.as_os_str().is_empty());
    }

    #[test]
    fn a_file_of_the_current_directory_is_found_when_the_prefix_has_none() {
        let options =
            Options { prefix: Some("/nowhere".into()), conf: Some("Cargo.toml".into()), ..Options::default() };
        assert_eq!(invocation(options, &NGINX_ORG).conf_file, std::env::current_dir().unwrap().join("Cargo.toml"));
    }
}
