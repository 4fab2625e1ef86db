//! `COPY` and `MOVE` (`ngx_http_dav_copy_move_handler`).

use super::{
    Depth, away, not_created, refuse_body, refused,
    tree::{self, Log, Placing},
};
use crate::{
    config::scope::bytes_to_path,
    http::{
        exchange::{Exchange, Method},
        files,
        modules::core::Alias,
        uri::{Unescape, parse_unsafe, split_args, unescape},
    },
    observe::error_log::Level,
};
use std::{
    fs::{self, Metadata},
    io,
};

/// Copies or moves what is asked for; the status of the answer, or of a refusal.
pub(super) async fn transfer(exchange: &Exchange) -> Result<u16, u16> {
    refuse_body(exchange, "COPY and MOVE with body are unsupported")?;
    let Some(destination) = exchange.field("destination") else {
        exchange.log(Level::Err, "client sent no \"Destination\" header");
        return Err(400);
    };
    let uri = target(exchange, destination)?;
    let moves = exchange.method == Method::Move;
    check_depth(exchange, moves)?;
    let overwrite = overwrite(exchange)?;
    let from = merged(files::path(exchange, &exchange.path).ok_or(500_u16)?);
    let mut to = merged(files::path(exchange, &uri).ok_or(500_u16)?);
    let slash = to.ends_with(b"/");
    if slash {
        to.pop();
    }
    check_paths(exchange, &from, &to, slash, destination)?;
    let replaced = match fs::symlink_metadata(bytes_to_path(&to)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(refused(exchange, "lstat()", &to, &error, 404)),
        Ok(facts) if facts.is_dir() && !slash => {
            exchange.log(Level::Err, &into_collection(exchange, destination));
            return Err(409);
        }
        Ok(_) if !overwrite => {
            let error = io::Error::from_raw_os_error(libc::EEXIST);
            exchange.log(Level::Err, &not_created(&to, &error));
            return Err(412);
        }
        Ok(facts) => Some(facts.is_dir()),
    };
    let facts = fs::symlink_metadata(bytes_to_path(&from));
    let facts = facts.map_err(|error| refused(exchange, "lstat()", &from, &error, 404))?;
    if facts.is_dir() && !exchange.path.ends_with(b"/") {
        exchange.log(Level::Err, &format!("\"{}\" is collection", String::from_utf8_lossy(&exchange.path)));
        return Err(400);
    }
    let folders = exchange.location.settings.dav.access.of_folder();
    let transfer = Transfer { from, to, moves, replaced, facts, folders };
    away(exchange, move |log| transfer.run(log)).await.unwrap_or(Err(500))
}

/// Something that may be done, away from the thread that serves.
struct Transfer {
    from: Vec<u8>,
    to: Vec<u8>,
    moves: bool,
    /// Something is there already; whether it is a folder.
    replaced: Option<bool>,
    facts: Metadata,
    /// The rights of folders that are missing on the way.
    folders: u32,
}

impl Transfer {
    fn run(mut self, log: &mut Log) -> Result<u16, u16> {
        if self.facts.is_dir() {
            return self.folder(log);
        }
        if self.moves {
            let placing = Placing { access: 0, folders: Some(self.folders), modified: None };
            tree::place(log, &self.from, &self.to, &placing).map_err(|()| 500_u16)?;
        } else {
            tree::copy_file(log, &self.from, &self.to, None, None).map_err(|()| 500_u16)?;
        }
        Ok(204)
    }

    fn folder(&mut self, log: &mut Log) -> Result<u16, u16> {
        if let Some(folder) = self.replaced {
            tree::delete(log, &self.to, folder)?;
        }
        // The slash at the end.
        self.from.pop();
        if self.moves && tree::rename(&self.from, &self.to).is_ok() {
            return Ok(201);
        }
        tree::create_folder(&self.to, tree::rights(&self.facts))
            .map_err(|error| log.refused("mkdir()", &self.to, &error, 404))?;
        tree::copy_folder(log, &self.from, &self.to).map_err(|()| 500_u16)?;
        if self.moves {
            tree::delete(log, &self.from, true)?;
        }
        Ok(201)
    }
}

/// The path that `Destination` names; it must be on this server.
fn target(exchange: &Exchange, destination: &[u8]) -> Result<Vec<u8>, u16> {
    let shown = || String::from_utf8_lossy(destination);
    let invalid = || {
        exchange.log(Level::Err, &format!("client sent invalid \"Destination\" header: \"{}\"", shown()));
        400
    };
    let written = match destination {
        [b'/', ..] => destination,
        _ => behind_host(exchange, destination)?.ok_or_else(invalid)?,
    };
    let (uri, _) = parse_unsafe(written).map_err(|_| {
        // Where `%2e` hides the dots, it is told as what it stands for.
        let mut plain = Vec::new();
        unescape(split_args(written).0, Unescape::Plain, &mut plain);
        let hidden = memchr::memmem::find(written, b"/..").is_none();
        let uri = String::from_utf8_lossy(if hidden { &plain } else { written });
        exchange.log(Level::Err, &format!("unsafe URI \"{uri}\" was detected"));
        invalid()
    })?;
    if exchange.path.ends_with(b"/") != written.ends_with(b"/") {
        let path = String::from_utf8_lossy(&exchange.path);
        let text = format!(
            "both URI \"{path}\" and \"Destination\" URI \"{}\" should be either collections or non-collections",
            shown()
        );
        exchange.log(Level::Err, &text);
        return Err(409);
    }
    match exchange.location.settings.core.place.alias {
        Alias::Prefix(length) if uri.len() < length => Err(invalid()),
        _ => Ok(uri.into_owned()),
    }
}

/// What stands behind scheme and host; `None` if nothing can.
fn behind_host<'d>(exchange: &Exchange, destination: &'d [u8]) -> Result<Option<&'d [u8]>, u16> {
    let Some(host) = exchange.head.host.as_ref().map(|host| &host.name[..]).filter(|name| !name.is_empty()) else {
        exchange.log(Level::Err, "client sent no \"Host\" header");
        return Err(400);
    };
    let scheme: &[u8] = if exchange.connection.tls() { b"https://" } else { b"http://" };
    let Some(rest) = destination.strip_prefix(scheme) else { return Ok(None) };
    let Some(rest) = rest.strip_prefix(host) else {
        let shown = String::from_utf8_lossy(destination);
        let text = format!("\"Destination\" URI \"{shown}\" is handled by different repository than the source URI");
        exchange.log(Level::Err, &text);
        return Err(400);
    };
    Ok(memchr::memchr(b'/', rest).map(|at| &rest[at..]))
}

fn check_depth(exchange: &Exchange, moves: bool) -> Result<(), u16> {
    match Depth::of(exchange, Depth::Infinity) {
        Depth::Infinity => return Ok(()),
        Depth::Zero if !moves => return Ok(()),
        _ if moves => exchange.log(Level::Err, "\"Depth\" header must be infinity"),
        _ => exchange.log(Level::Err, "\"Depth\" header must be 0 or infinity"),
    }
    Err(400)
}

/// Whether what is there may be replaced.
fn overwrite(exchange: &Exchange) -> Result<bool, u16> {
    match exchange.field("overwrite") {
        None | Some(b"T" | b"t") => Ok(true),
        Some(b"F" | b"f") => Ok(false),
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            exchange.log(Level::Err, &format!("client sent invalid \"Overwrite\" header: \"{other}\""));
            Err(400)
        }
    }
}

/// Several slashes are one (`ngx_http_dav_merge_slashes`).
fn merged(mut path: Vec<u8>) -> Vec<u8> {
    path.dedup_by(|byte, before| *byte == b'/' && *before == b'/');
    path
}

/// Nothing goes onto itself, and no folder into itself or out of itself (`ngx_http_dav_validate_paths`).
fn check_paths(exchange: &Exchange, from: &[u8], to: &[u8], slash: bool, destination: &[u8]) -> Result<(), u16> {
    let from = from.strip_suffix(b"/").unwrap_or(from);
    if from == to {
        let (path, shown) = (String::from_utf8_lossy(&exchange.path), String::from_utf8_lossy(destination));
        let text = format!("both URI \"{path}\" and \"Destination\" URI \"{shown}\" point to the same location");
        exchange.log(Level::Err, &text);
        return Err(403);
    }
    let within = |inner: &[u8], outer: &[u8]| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with(b"/"));
    if slash && (within(to, from) || within(from, to)) {
        exchange.log(Level::Err, &into_collection(exchange, destination));
        return Err(403);
    }
    Ok(())
}

fn into_collection(exchange: &Exchange, destination: &[u8]) -> String {
    let path = String::from_utf8_lossy(&exchange.path);
    let method = String::from_utf8_lossy(&exchange.head.method);
    let destination = String::from_utf8_lossy(destination);
    format!("\"{path}\" could not be {method}ed to collection \"{destination}\"")
}
