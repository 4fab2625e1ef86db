//! `gzip_static`: a file that was packed beforehand, beside the one that is asked for.

use super::{Room, gzip, static_files};
use crate::{
    config::{Args, Directive, FromArgs, LEVELS, Module, values::choose},
    http::{
        exchange::Exchange,
        files,
        phase::{Phase, status},
        response::Response,
    },
    observe::error_log::Level,
    syntax::Fault,
};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub enabled: Enabled,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[Directive::new("gzip_static", LEVELS, |conf| &mut conf.enabled)];
}

impl Room for Conf {
    type State = ();
}

/// Answers with the packed file, if there is one and the client takes it (`ngx_http_gzip_static_handler`).
pub async fn content(exchange: &mut Exchange) -> Phase {
    let enabled = exchange.location.settings.gzip_static.enabled;
    if enabled == Enabled::Off || !exchange.method.reads() || exchange.path.ends_with(b"/") {
        return Phase::Continue(());
    }
    let accepted = enabled == Enabled::Always || gzip::accepted(exchange, &Response::default());
    // Who does not take it is told that others may.
    if !accepted && !exchange.location.settings.gzip.vary {
        return Phase::Continue(());
    }
    let Some(mut path) = files::path(exchange, &exchange.path) else { return status(500) };
    path.extend_from_slice(b".gz");
    let found = match files::open(&path) {
        Ok(found) => found,
        Err(error) => {
            let level = match error.raw_os_error() {
                None | Some(libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG) => return Phase::Continue(()),
                Some(libc::EACCES | libc::EMLINK | libc::ELOOP) => Level::Err,
                Some(_) => Level::Crit,
            };
            let path = String::from_utf8_lossy(&path);
            exchange.log(level, &format!("open() \"{path}\" failed ({})", files::errno(&error)));
            return Phase::Continue(());
        }
    };
    if enabled == Enabled::On {
        gzip::vary(exchange);
        if !accepted {
            return Phase::Continue(());
        }
    }
    if found.is_dir() {
        return Phase::Continue(());
    }
    if !found.metadata.is_file() {
        exchange.log(Level::Crit, &format!("\"{}\" is not a regular file", String::from_utf8_lossy(&path)));
        return status(404);
    }
    let mut response = static_files::file(exchange, found);
    response.push(&b"Content-Encoding"[..], &b"gzip"[..]);
    response.encoded = true;
    response.into_phase()
}

/// `gzip_static`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enabled {
    #[default]
    Off,
    /// For clients that take it.
    On,
    /// For all.
    Always,
}

impl FromArgs for Enabled {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        choose(args, &[("off", Self::Off), ("on", Self::On), ("always", Self::Always)])
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask, fault};
    use std::fs;

    #[test]
    fn the_packed_file_goes_to_those_who_take_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("both.css", "plain");
        write("both.css.gz", "packed");
        write("plain.css", "plain");
        write("packed.css.gz", "packed");
        fs::create_dir(folder.path().join("dir.css.gz")).unwrap();
        write("dir.css", "plain");
        let gzip = "Accept-Encoding: gzip\r\n";
        for (mode, path, fields, status, text, vary) in [
            ("on", "/both.css", gzip, 200, "packed", true),
            ("on", "/both.css", "", 200, "plain", true),
            ("on", "/plain.css", gzip, 200, "plain", false),
            ("on", "/packed.css", gzip, 200, "packed", true),
            ("on", "/packed.css", "", 404, "", true),
            ("on", "/dir.css", gzip, 200, "plain", true),
            ("on", "/both.css", "Accept-Encoding: gzip\r\nVia: x\r\n", 200, "plain", true),
            ("always", "/both.css", "", 200, "packed", false),
            ("always", "/plain.css", "", 200, "plain", false),
            ("off", "/both.css", gzip, 200, "plain", false),
        ] {
            let server = format!(
                "root {}; types {{ text/css css; }} gzip_static {mode}; gzip_vary on;",
                folder.path().display()
            );
            let answer = ask(&server, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
            let what = format!("{mode} {path} {fields}");
            assert_eq!(answer.status, status, "{what}");
            assert_eq!(answer.header("vary").is_some(), vary, "{what}");
            if status == 200 {
                assert_eq!(answer.text(), text, "{what}");
                assert_eq!(answer.header("content-type"), Some("text/css"), "{what}");
                assert_eq!(answer.header("content-encoding"), (text == "packed").then_some("gzip"), "{what}");
            }
        }
        let server = format!("root {}; gzip_static on;", folder.path().display());
        let part = ask(&server, &format!("GET /both.css HTTP/1.1\r\nHost: x\r\n{gzip}Range: bytes=1-2\r\n\r\n"));
        assert_eq!((part.status, part.text().as_str()), (206, "ac"));
        assert_eq!(fault("gzip_static maybe;"), "invalid value \"maybe\"");
    }
}
