//! Files: the content of a location that passes requests to nobody.

use super::Room;
use crate::{
    config::{Directive, Module},
    http::{
        body::{Body, FileBody},
        exchange::{Exchange, Method},
        files,
        phase::{Break, Phase},
        redirect,
        response::Response,
        validators,
    },
    observe::error_log::Level,
};
use std::{io::ErrorKind, sync::Arc};

/// Has no settings of its own: where files are is `core`'s.
#[derive(Clone, Debug, Default)]
pub struct Conf;

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[];
}

impl Room for Conf {
    type State = ();
}

/// Answers with the file of the path (`ngx_http_static_handler`).
pub async fn content(exchange: &mut Exchange) -> Phase {
    if !exchange.method.reads_or_posts() {
        return Phase::Break(Break::Status(405));
    }
    if exchange.path.ends_with(b"/") {
        return Phase::Continue(());
    }
    let Some(path) = files::path(exchange, &exchange.path) else {
        return Phase::Break(Break::Status(500));
    };
    let found = match files::open_allowed(exchange, &path) {
        Ok(found) => found,
        Err(error) => return Phase::Break(Break::Status(refusal(exchange, &path, &error))),
    };
    if found.is_dir() {
        let mut slashed = exchange.path.to_vec();
        slashed.push(b'/');
        return Phase::Break(redirect::moved(exchange, &slashed));
    }
    if !found.metadata.is_file() {
        let text = format!("\"{}\" is not a regular file", String::from_utf8_lossy(&path));
        exchange.log(Level::Crit, &text);
        return Phase::Break(Break::Status(404));
    }
    if exchange.method == Method::Post {
        return Phase::Break(Break::Status(405));
    }
    Phase::Break(file(exchange, found).into())
}

/// An answer with a whole file; filters cut it down.
pub fn file(exchange: &Exchange, found: files::Found) -> Response {
    let core = &exchange.location.settings.core;
    let length = found.metadata.len();
    let modified = found.modified();
    let mut response = Response::new(200);
    response.content_type = Some(content_type(exchange));
    response.content_length = Some(length);
    response.last_modified = Some(modified);
    if core.etag {
        response.etag = Some(validators::file_etag(modified, length).into());
    }
    response.ranges = true;
    if length > 0 {
        response.body = Body::File(FileBody { file: Arc::new(found.file), offset: 0, left: length });
    }
    response
}

/// The type of the path's extension, or the default one (`ngx_http_set_content_type`).
pub fn content_type(exchange: &Exchange) -> bytes::Bytes {
    if let Some(kept) = &exchange.state.error_page.content_type {
        return kept.clone();
    }
    let core = &exchange.location.settings.core;
    core.types.of_path(&exchange.path).unwrap_or(&core.default_type).clone()
}

/// The status for a path that could not be opened, and its line in the log.
fn refusal(exchange: &Exchange, path: &[u8], failed: &files::Failed) -> u16 {
    let error = &failed.error;
    let (level, status) = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => (Level::Err, 404),
        _ if error.raw_os_error() == Some(libc::ENAMETOOLONG) => (Level::Err, 404),
        ErrorKind::PermissionDenied => (Level::Err, 403),
        _ if failed.link() => (Level::Err, 403),
        _ => (Level::Crit, 500),
    };
    if status != 404 || exchange.location.settings.core.log_not_found {
        exchange.log(level, &failed.text(path));
    }
    status
}
