//! nginx's command line: the flags, their faults, and the texts of `-h`, `-v` and `-V` (`ngx_get_options`).

use clap::error::{ContextKind, ErrorKind};
use std::{ffi::OsString, io::Write, process::ExitCode};

use crate::process::{self, Invocation, Options, Order, Program, profile::Profile, worker};

/// The version of nginx whose behaviour this is, as `$server` and the logs name it.
pub fn server_version() -> String {
    format!("nginx/{}", crate::NGINX_VERSION)
}

/// What this build has and lacks beyond nginx's defaults, in the words of nginx's `configure`; `-V` prints it.
/// Tools (and nginx's own tests) look for `--with-http_…_module`, and for `--without-…` of what nginx has by default.
pub const BUILT_IN: &[&str] = &[
    "--with-threads",
    "--with-http_addition_module",
    "--with-http_auth_request_module",
    "--with-http_dav_module",
    "--with-http_gunzip_module",
    "--with-http_gzip_static_module",
    "--with-http_realip_module",
    "--with-http_random_index_module",
    "--with-http_secure_link_module",
    "--with-http_slice_module",
    "--with-http_stub_status_module",
    "--with-http_sub_module",
    "--without-http_grpc_module",
    "--without-mail_imap_module",
    "--without-mail_pop3_module",
    "--without-mail_smtp_module",
];

/// The whole of `main`: a worker that the master started, or what the command line asks for.
pub fn main<P: Program>(make: impl Fn() -> P) -> ExitCode {
    if let Some(code) = worker::enter(&make) {
        return code;
    }
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let parsed = parse(&arguments).and_then(|asked| Ok((asked, Profile::selected().map_err(String::into_bytes)?)));
    let (asked, profile) = match parsed {
        Ok(parsed) => parsed,
        Err(fault) => {
            process::console(&fault);
            return ExitCode::FAILURE;
        }
    };
    if asked.version {
        // Who closed standard error does not want to read it.
        let _ = std::io::stderr().write_all(version_text(&asked, profile).as_bytes());
        if !asked.options.test {
            return ExitCode::SUCCESS;
        }
    }
    process::run(make(), Invocation::new(asked.options, profile, arguments))
}

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `-v`, and with `-V` and `-h` as well.
    pub version: bool,
    /// `-V`.
    pub configure: bool,
    /// `-h` or `-?`.
    pub help: bool,
    /// Everything else.
    pub options: Options,
}

/// The flags as clap reads them: together (`-tq`), with their value (`-cfile`), each as often as one likes. nginx has no
/// long ones.
#[derive(Debug, clap::Parser)]
#[command(disable_help_flag = true, disable_version_flag = true, args_override_self = true)]
struct Flags {
    #[arg(short = 'h', short_alias = '?', long)]
    help: bool,
    #[arg(short = 'v', long)]
    version: bool,
    #[arg(short = 'V')]
    configure: bool,
    #[arg(short = 't', long)]
    test: bool,
    #[arg(short = 'T')]
    dump: bool,
    #[arg(short = 'q')]
    quiet: bool,
    #[arg(long)]
    lint: bool,
    #[arg(short = 's', value_parser = order, allow_hyphen_values = true)]
    signal: Option<Order>,
    #[arg(short = 'p', allow_hyphen_values = true)]
    prefix: Option<OsString>,
    #[arg(short = 'e', allow_hyphen_values = true)]
    error_log: Option<OsString>,
    #[arg(short = 'c', allow_hyphen_values = true)]
    conf: Option<OsString>,
    #[arg(short = 'g', allow_hyphen_values = true)]
    globals: Option<OsString>,
}

/// The value of `-s`.
fn order(name: &str) -> Result<Order, String> {
    Order::named(name.as_bytes()).ok_or_else(|| format!("-s {name}"))
}

/// Reads the flags behind the program's name. The fault is what nginx prints behind `nginx: `.
pub fn parse(arguments: &[OsString]) -> Result<Asked, Vec<u8>> {
    let flags = <Flags as clap::Parser>::try_parse_from(arguments).map_err(|error| fault(&error))?;
    let to_stderr = |path: OsString| if path == "stderr" { OsString::new() } else { path };
    Ok(Asked {
        version: flags.version || flags.configure || flags.help,
        configure: flags.configure,
        help: flags.help,
        options: Options {
            test: flags.test || flags.dump || flags.lint,
            lint: flags.lint,
            dump: flags.dump,
            quiet: flags.quiet,
            order: flags.signal,
            prefix: flags.prefix,
            error_log: flags.error_log.map(to_stderr),
            conf: flags.conf,
            globals: flags.globals,
        },
    })
}

/// What clap found wrong, in nginx's words.
fn fault(error: &clap::Error) -> Vec<u8> {
    let context = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let argument = context(ContextKind::InvalidArg);
    let flag = argument.strip_prefix('-').unwrap_or(&argument).chars().next();
    let needed = match flag {
        Some('p') => "directory name",
        Some('e' | 'c') => "file name",
        _ => "parameter",
    };
    match (error.kind(), flag) {
        (ErrorKind::InvalidValue, Some(flag)) => format!("option \"-{flag}\" requires {needed}"),
        (ErrorKind::ValueValidation, _) => format!("invalid option: \"-s {}\"", context(ContextKind::InvalidValue)),
        (_, Some(flag)) if argument.starts_with('-') => format!("invalid option: \"{flag}\""),
        _ => format!("invalid option: \"{argument}\""),
    }
    .into_bytes()
}

/// The text of `-v`, `-V` and `-h`.
fn version_text(asked: &Asked, profile: &Profile) -> String {
    let mut text = format!("nginx version: {} (tidegate/{})\n", server_version(), env!("CARGO_PKG_VERSION"));
    if asked.help {
        let error_log = match profile.error_log {
            "stderr" => "stderr".to_owned(),
            path => full(profile, path),
        };
        let options = [
            ("?,-h", "this help"),
            ("v", "show version and exit"),
            ("V", "show version and configure options then exit"),
            ("t", "test configuration and exit"),
            ("T", "test configuration, dump it and exit"),
            ("q", "suppress non-error messages during configuration testing"),
            ("s signal", "send signal to a master process: stop, quit, reopen, reload"),
            ("p prefix", &format!("set prefix path (default: {}/)", profile.prefix)),
            ("e filename", &format!("set error log file (default: {error_log})")),
            ("c filename", &format!("set configuration file (default: {})", full(profile, profile.conf))),
            ("g directives", "set global directives out of configuration file"),
        ];
        text.push_str("Usage: nginx [-?hvVtTq] [-s signal] [-p prefix]\n");
        text.push_str("             [-e filename] [-c filename] [-g directives]\n\nOptions:\n");
        for (flag, meaning) in options {
            text.push_str(&format!("  -{flag:12} : {meaning}\n"));
        }
        text.push('\n');
    }
    if asked.configure {
        let arguments = profile.configure_arguments();
        let built_in: String = BUILT_IN.iter().map(|feature| format!(" {feature}")).collect();
        text.push_str(&format!("configure arguments: {arguments}{built_in}\n"));
    }
    text
}

fn full(profile: &Profile, path: &str) -> String {
    std::path::Path::new(profile.prefix).join(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::profile;

    fn parsed(arguments: &[&str]) -> Result<Asked, String> {
        let arguments: Vec<OsString> = std::iter::once(&"nginx").chain(arguments).map(OsString::from).collect();
        parse(&arguments).map_err(|fault| String::from_utf8(fault).unwrap())
    }

    #[test]
    fn flags_stand_together_and_hold_their_value() {
        let expected = Options {
            test: true,
            quiet: true,
            conf: Some("a.conf".into()),
            prefix: Some("/p".into()),
            error_log: Some("".into()),
            order: Some(Order::Quit),
            ..Options::default()
        };
        for arguments in [
            &["-tq", "-ca.conf", "-p/p", "-estderr", "-squit"][..],
            &["-t", "-q", "-c", "a.conf", "-p", "/p", "-e", "stderr", "-s", "quit"],
            &["-tqca.conf", "--test", "-p", "/p", "-e", "stderr", "-s", "quit"],
        ] {
            assert_eq!(parsed(arguments).unwrap().options, expected, "{arguments:?}");
        }
    }

    #[test]
    fn of_several_g_the_last_counts() {
        let options = parsed(&["-g", "daemon off;", "-g", "master_process off;"]).unwrap().options;
        assert_eq!(options.globals.as_deref(), Some(std::ffi::OsStr::new("master_process off;")));
    }

    #[test]
    fn faults_read_as_in_nginx() {
        for (arguments, fault) in [
            (&["-x"][..], "invalid option: \"x\""),
            (&["-tz"], "invalid option: \"z\""),
            (&["foo"], "invalid option: \"foo\""),
            (&[""], "invalid option: \"\""),
            (&["--bar"], "invalid option: \"-\""),
            (&["-s", "foo"], "invalid option: \"-s foo\""),
            (&["-sfoo"], "invalid option: \"-s foo\""),
            (&["-s"], "option \"-s\" requires parameter"),
            (&["-c"], "option \"-c\" requires file name"),
            (&["-e"], "option \"-e\" requires file name"),
            (&["-p"], "option \"-p\" requires directory name"),
            (&["-g"], "option \"-g\" requires parameter"),
        ] {
            assert_eq!(parsed(arguments).unwrap_err(), fault);
        }
    }

    #[test]
    fn help_has_nginxs_layout() {
        let asked = parsed(&["-h"]).unwrap();
        let text = version_text(&asked, &profile::DEBIAN);
        let (version, rest) = text.split_once('\n').unwrap();
        assert_eq!(version, format!("nginx version: nginx/1.31.5 (tidegate/{})", env!("CARGO_PKG_VERSION")));
        assert_eq!(
            rest,
            "Usage: nginx [-?hvVtTq] [-s signal] [-p prefix]
             [-e filename] [-c filename] [-g directives]

Options:
  -?,-h         : this help
  -v            : show version and exit
  -V            : show version and configure options then exit
  -t            : test configuration and exit
  -T            : test configuration, dump it and exit
  -q            : suppress non-error messages during configuration testing
  -s signal     : send signal to a master process: stop, quit, reopen, reload
  -p prefix     : set prefix path (default: /usr/share/nginx/)
  -e filename   : set error log file (default: stderr)
  -c filename   : set configuration file (default: /etc/nginx/nginx.conf)
  -g directives : set global directives out of configuration file

"
        );
    }

    #[test]
    fn configure_arguments_list_the_paths_and_what_is_built_in() {
        let asked = parsed(&["-V"]).unwrap();
        let text = version_text(&asked, &profile::NGINX_ORG);
        let line = text.lines().last().unwrap();
        assert!(line.starts_with("configure arguments: --prefix=/etc/nginx --sbin-path=/usr/sbin/nginx "));
        assert!(line.ends_with(BUILT_IN.last().unwrap()));
    }
}
