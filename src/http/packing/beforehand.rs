//! Files that were packed beforehand, beside the ones that are asked for: `gzip_static`, `brotli_static`, `zstd_static`.

use crate::{
    config::{Args, FromArgs, values::choose},
    http::{
        exchange::Exchange,
        files,
        modules::{gzip, static_files},
        phase::{Phase, status},
    },
    observe::error_log::Level,
    syntax::Fault,
};

/// Whether they are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enabled {
    #[default]
    Off,
    /// For clients that take them.
    On,
    /// For all.
    Always,
}

impl FromArgs for Enabled {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        choose(args, &[("off", Self::Off), ("on", Self::On), ("always", Self::Always)])
    }
}

/// Answers with the packed file, if there is one and the client takes it (`ngx_http_gzip_static_handler`). `accepted` is
/// asked where it matters whether the client does.
pub fn content(
    exchange: &mut Exchange,
    enabled: Enabled,
    suffix: &str,
    coding: &'static str,
    accepted: fn(&mut Exchange) -> bool,
) -> Phase {
    if enabled == Enabled::Off || !exchange.method.reads() || exchange.path.ends_with(b"/") {
        return Phase::Continue(());
    }
    let accepted = enabled == Enabled::Always || accepted(exchange);
    // Who does not take it is told that others may.
    if !accepted && !exchange.location.settings.gzip.vary {
        return Phase::Continue(());
    }
    let Some(mut path) = files::path(exchange, &exchange.path) else { return status(500) };
    path.extend_from_slice(suffix.as_bytes());
    let found = match files::open_allowed(exchange, &path) {
        Ok(found) => found,
        Err(failed) => {
            let level = match failed.error.raw_os_error() {
                _ if failed.usual() => return Phase::Continue(()),
                Some(libc::EACCES | libc::EMLINK | libc::ELOOP) => Level::Err,
                _ => Level::Crit,
            };
            exchange.log(level, &failed.text(&path));
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
    response.push(&b"Content-Encoding"[..], coding.as_bytes());
    response.encoded = true;
    response.into_phase()
}
