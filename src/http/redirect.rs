//! Redirects that the server makes itself: a missing slash, `return 301`, and how they become absolute.

use super::{
    exchange::Exchange,
    phase::Break,
    uri::{Escape, escape},
};
use bytes::Bytes;

/// 301 to a path of this server, arguments kept (`ngx_http_static_handler`, auto_redirect).
pub fn moved(exchange: &mut Exchange, path: &[u8]) -> Break {
    let mut location = Vec::with_capacity(path.len() + exchange.args.len() + 1);
    escape(path, Escape::Uri, &mut location);
    if !exchange.args.is_empty() {
        location.push(b'?');
        location.extend_from_slice(&exchange.args);
    }
    to(exchange, 301, location.into())
}

/// 301 from `/name` to the proxied location `/name/`.
pub fn to_slash(exchange: &mut Exchange, name: &[u8]) -> Break {
    moved(exchange, name)
}

/// A redirect: `error_page` may show something else in its place.
pub fn to(exchange: &mut Exchange, status: u16, location: Bytes) -> Break {
    exchange.state.error_page.location = Some(location);
    Break::Status(status)
}

/// The `Location` field: a path becomes an absolute URI of this server (`ngx_http_header_filter`).
pub fn absolute(exchange: &Exchange, location: &Bytes) -> Bytes {
    let settings = &exchange.location.settings.core;
    if !location.starts_with(b"/") || !settings.absolute_redirect {
        return location.clone();
    }
    let mut out = Vec::with_capacity(64 + location.len());
    out.extend_from_slice(exchange.connection.scheme());
    out.extend_from_slice(b"://");
    let server_name = settings.server_name_in_redirect;
    match exchange.head.host.as_ref().filter(|host| !host.name.is_empty()) {
        _ if server_name => out.extend_from_slice(&exchange.server.name),
        Some(host) => out.extend_from_slice(&host.name),
        None => out.extend_from_slice(exchange.connection.local_ip().as_bytes()),
    }
    let port = match settings.port_in_redirect {
        false => b"",
        true => redirect_port(exchange),
    };
    if !port.is_empty() {
        out.push(b':');
        out.extend_from_slice(port);
    }
    out.extend_from_slice(location);
    out.into()
}

/// The port a redirect names: the listener's, unless it is the scheme's own.
fn redirect_port(exchange: &Exchange) -> &[u8] {
    let usual: &[u8] = if exchange.connection.tls() { b"443" } else { b"80" };
    let port = exchange.connection.local_port().as_bytes();
    if port == usual { b"" } else { port }
}
