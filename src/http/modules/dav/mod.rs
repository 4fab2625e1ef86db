//! `dav_methods`: clients put, delete, copy and move files and make folders.

mod transfer;
mod tree;

use super::Room;
use crate::{
    config::{
        Contexts, Directive, LEVELS, Module, Scope,
        scope::bytes_to_path,
        values::{Access, Choices, Mask},
    },
    http::{
        body_file, dates,
        exchange::{Exchange, Method},
        files,
        phase::{Phase, status},
        response::Response,
        uri::{Escape, escaped},
    },
    observe::error_log::Level,
    syntax::Fault,
    upstream::pass,
};
use bytes::Bytes;
use std::{fs, io, sync::Arc};
use tree::{Log, Placing};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub methods: Mask<Methods>,
    /// Folders that are missing on the way to what is put are made.
    pub create_full_put_path: bool,
    /// How many elements a path must have to be deleted.
    pub min_delete_depth: usize,
    pub access: Access,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("dav_methods", LEVELS, |conf| &mut conf.methods),
        Directive::new("create_full_put_path", LEVELS, |conf| &mut conf.create_full_put_path),
        Directive::new("min_delete_depth", LEVELS, |conf| &mut conf.min_delete_depth),
        Directive::new("dav_access", LEVELS, |conf| &mut conf.access),
    ];

    fn settle(&mut self, scope: &Scope<'_>, _level: Contexts) -> Result<(), Fault> {
        if self.methods.has(PUT) {
            body_file::announce(scope);
        }
        Ok(())
    }
}

impl Room for Conf {
    type State = ();
}

/// The words of `dav_methods`.
pub struct Methods;

const OFF: u32 = 1;
const PUT: u32 = 1 << 1;
const DELETE: u32 = 1 << 2;
const MKCOL: u32 = 1 << 3;
const COPY: u32 = 1 << 4;
const MOVE: u32 = 1 << 5;

impl Choices for Methods {
    const CHOICES: &'static [(&'static str, u32)] =
        &[("off", OFF), ("put", PUT), ("delete", DELETE), ("mkcol", MKCOL), ("copy", COPY), ("move", MOVE)];
    const DEFAULT: u32 = OFF;
}

/// Answers the methods that are switched on (`ngx_http_dav_handler`).
pub async fn content(exchange: &mut Exchange) -> Phase {
    let bit = match exchange.method {
        Method::Put => PUT,
        Method::Delete => DELETE,
        Method::Mkcol => MKCOL,
        Method::Copy => COPY,
        Method::Move => MOVE,
        _ => return Phase::Continue(()),
    };
    if !exchange.location.settings.dav.methods.has(bit) {
        return Phase::Continue(());
    }
    match bit {
        PUT => put(exchange).await,
        DELETE => answer(delete(exchange).await),
        MKCOL => mkcol(exchange),
        _ => answer(transfer::transfer(exchange).await),
    }
}

/// A status that has no body if all went well.
fn answer(outcome: Result<u16, u16>) -> Phase {
    status(outcome.unwrap_or_else(|refused| refused))
}

/// What is asked for is there now.
fn created(exchange: &Exchange) -> Phase {
    let location = Bytes::copy_from_slice(&escaped(&exchange.path, Escape::Uri));
    Response { location: Some(location), content_length: Some(0), ..Response::new(201) }.into_phase()
}

/// `PUT`: the body is received in a temporary file, which then takes its place at once.
async fn put(exchange: &mut Exchange) -> Phase {
    if exchange.path.ends_with(b"/") {
        exchange.log(Level::Err, "cannot PUT to a collection");
        return status(409);
    }
    if exchange.field("content-range").is_some() {
        exchange.log(Level::Err, "PUT with range is unsupported");
        return status(501);
    }
    if exchange.head.content_length.is_some() || exchange.head.chunked {
        if body_file::receive(exchange).is_err() {
            return status(500);
        }
        Box::pin(pass::read_body(exchange, false)).await?;
    }
    let Some(temporary) = exchange.body.file_name().map(<[u8]>::to_vec) else {
        exchange.log(Level::Err, "PUT request body must be in a file");
        return status(500);
    };
    let Some(path) = files::path(exchange, &exchange.path) else { return status(500) };
    let found = files::stat(&path);
    if found.as_ref().is_ok_and(fs::Metadata::is_dir) {
        let error = io::Error::from_raw_os_error(libc::EISDIR);
        exchange.log(Level::Err, &not_created(&path, &error));
        return status(409);
    }
    let conf = Arc::clone(&exchange.location.settings.dav);
    let placing = Placing {
        access: conf.access.0,
        folders: conf.create_full_put_path.then(|| conf.access.of_folder()),
        modified: exchange.field("date").and_then(dates::parse_http_time),
    };
    let Some(Ok(())) = away(exchange, move |log| tree::place(log, &temporary, &path, &placing)).await else {
        return status(500);
    };
    exchange.body.release_file();
    if found.is_ok() { status(204) } else { created(exchange) }
}

/// `DELETE`
async fn delete(exchange: &Exchange) -> Result<u16, u16> {
    refuse_body(exchange, "DELETE with body is unsupported")?;
    let least = exchange.location.settings.dav.min_delete_depth;
    let slashes = exchange.path.iter().filter(|byte| **byte == b'/').count();
    // Behind the last of them something has to stand.
    if least > 0 && slashes - usize::from(exchange.path.ends_with(b"/")) < least {
        exchange.log(Level::Err, &format!("insufficient URI depth:{slashes} to DELETE"));
        return Err(409);
    }
    let mut path = files::path(exchange, &exchange.path).ok_or(500_u16)?;
    let facts = fs::symlink_metadata(bytes_to_path(&path)).map_err(|error| {
        let not_found = if error.raw_os_error() == Some(libc::ENOTDIR) { 409 } else { 404 };
        refused(exchange, "lstat()", &path, &error, not_found)
    })?;
    let folder = facts.is_dir();
    if folder {
        if !exchange.path.ends_with(b"/") {
            let error = io::Error::from_raw_os_error(libc::EISDIR);
            let path = String::from_utf8_lossy(&path);
            exchange.log(Level::Err, &format!("DELETE \"{path}\" failed ({})", files::errno(&error)));
            return Err(409);
        }
        if Depth::of(exchange, Depth::Infinity) != Depth::Infinity {
            exchange.log(Level::Err, "\"Depth\" header must be infinity");
            return Err(400);
        }
        path.pop();
    } else if !matches!(Depth::of(exchange, Depth::Zero), Depth::Zero | Depth::Infinity) {
        exchange.log(Level::Err, "\"Depth\" header must be 0 or infinity");
        return Err(400);
    }
    away(exchange, move |log| tree::delete(log, &path, folder)).await.unwrap_or(Err(500)).map(|()| 204)
}

/// `MKCOL`
fn mkcol(exchange: &Exchange) -> Phase {
    if let Err(code) = refuse_body(exchange, "MKCOL with body is unsupported") {
        return status(code);
    }
    if !exchange.path.ends_with(b"/") {
        exchange.log(Level::Err, "MKCOL can create a collection only");
        return status(409);
    }
    let Some(mut path) = files::path(exchange, &exchange.path) else { return status(500) };
    path.pop();
    match tree::create_folder(&path, exchange.location.settings.dav.access.of_folder()) {
        Ok(()) => created(exchange),
        Err(error) => status(refused(exchange, "mkdir()", &path, &error, 409)),
    }
}

/// Of all methods only `PUT` may come with a body.
fn refuse_body(exchange: &Exchange, text: &str) -> Result<(), u16> {
    if exchange.head.content_length.is_some_and(|length| length > 0) || exchange.head.chunked {
        exchange.log(Level::Err, text);
        return Err(415);
    }
    Ok(())
}

/// The `Depth` field (`ngx_http_dav_depth`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    Zero,
    One,
    Infinity,
    Invalid,
}

impl Depth {
    fn of(exchange: &Exchange, default: Self) -> Self {
        match exchange.field("depth") {
            None => default,
            Some(b"0") => Self::Zero,
            Some(b"1") => Self::One,
            Some(b"infinity") => Self::Infinity,
            Some(other) => {
                let other = String::from_utf8_lossy(other);
                exchange.log(Level::Err, &format!("client sent invalid \"Depth\" header: \"{other}\""));
                Self::Invalid
            }
        }
    }
}

fn not_created(path: &[u8], error: &io::Error) -> String {
    format!("\"{}\" could not be created ({})", String::from_utf8_lossy(path), files::errno(error))
}

/// A call has failed; the status for that.
fn refused(exchange: &Exchange, call: &str, path: &[u8], error: &io::Error, not_found: u16) -> u16 {
    let mut log = Log::default();
    let status = log.refused(call, path, error, not_found);
    tell(exchange, log);
    status
}

fn tell(exchange: &Exchange, log: Log) {
    log.0.into_iter().for_each(|(level, text)| exchange.log(level, &text));
}

/// Does what may take long away from this thread; `None` if it broke off.
async fn away<T: Send + 'static>(
    exchange: &Exchange,
    work: impl FnOnce(&mut Log) -> T + Send + 'static,
) -> Option<T> {
    let work = move || {
        let mut log = Log::default();
        let done = work(&mut log);
        (log, done)
    };
    let (log, done) = tokio::task::spawn_blocking(work).await.ok()?;
    tell(exchange, log);
    Some(done)
}

#[cfg(test)]
mod tests;
