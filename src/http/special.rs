//! Answers nginx makes itself: error pages and the pages of redirects (`ngx_http_special_response_handler`).

use super::{exchange::Exchange, response::Response, status};
use bytes::Bytes;

/// The built-in answer for a status.
pub fn response(exchange: &Exchange, code: u16) -> Response {
    let core = &exchange.location.settings.core;
    let signature = core.server_tokens.signature(exchange);
    let padding = core.msie_padding && code >= 400 && pads(exchange);
    let page = status::page(code, &String::from_utf8_lossy(&signature), padding);
    let sent = status::sent(code);
    let mut response = match page {
        Some(page) => Response::with_body(sent, &b"text/html"[..], page),
        None => Response { content_length: Some(0), ..Response::new(sent) },
    };
    response.close = status::closes_connection(code);
    response
}

/// Browsers that showed a page of their own in place of a short one.
fn pads(exchange: &Exchange) -> bool {
    let Some(agent) = exchange.field("user-agent") else { return false };
    let has = |text: &[u8]| memchr::memmem::find(agent, text).is_some();
    has(b"Chrome/") || has(b"MSIE ") && !has(b"Opera")
}

/// A page of the configuration's own for a status, with no type but the default one.
pub fn text(exchange: &Exchange, code: u16, text: Bytes) -> Response {
    Response::with_body(code, super::modules::static_files::content_type(exchange), text)
}
