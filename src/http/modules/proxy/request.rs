//! The request as it goes to the upstream: its line, its fields, its framing.

use super::{Conf, Names, Pass, Target, Version};
use crate::{
    config::{Args, FromArgs},
    http::{
        exchange::Exchange,
        modules::core::put,
        template::Template,
        uri::{Escape, escape},
        variables::Variable,
    },
    syntax::Fault,
    upstream::{
        Group,
        pass::{Request, Sends, cached},
        wire::{Frames, answer::Dialect},
    },
};
use bytes::Bytes;
use std::{borrow::Cow, ops::RangeInclusive};

pub(super) const VARIABLES: &[Variable] = &[
    Variable::changeable("proxy_host", |ex, out| !ex.state.proxy.host.is_empty() && put(out, &ex.state.proxy.host)),
    Variable::changeable("proxy_port", |ex, out| !ex.state.proxy.port.is_empty() && put(out, &ex.state.proxy.port)),
    Variable::new("proxy_add_x_forwarded_for", |ex, out| {
        for value in ex.head.fields.get_all("x-forwarded-for") {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        put(out, ex.remote_ip().as_bytes())
    }),
];

/// One `proxy_set_header`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetHeader {
    pub name: Bytes,
    pub value: Template,
}

impl FromArgs for SetHeader {
    const TAKES: RangeInclusive<usize> = 2..=2;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let name = Bytes::copy_from_slice(&args.word(0).value);
        Ok(Self { name, value: Template::compile(args.word(1), args.scope)? })
    }
}

/// Fields of the client that are not passed on unless `proxy_set_header` says so: they belong to its
/// connection, or are written anew.
const OWN: [&str; 9] = [
    "host",
    "connection",
    "proxy-connection",
    "content-length",
    "transfer-encoding",
    "te",
    "keep-alive",
    "expect",
    "upgrade",
];

/// The URI of the request line (`ngx_http_proxy_create_request`).
pub(super) fn uri(exchange: &Exchange, pass: &Pass, target: &Target) -> Bytes {
    if let Some(uri) = &target.uri {
        return uri.clone();
    }
    if pass.uri.is_empty() && exchange.pristine {
        return exchange.head.target.clone();
    }
    // Behind `rewrite … break` the whole path is passed on, and the one of `proxy_pass` is not.
    let replacement = if exchange.valid_location { &pass.uri[..] } else { b"" };
    let replaced = if replacement.is_empty() { 0 } else { pass.location.len().min(exchange.path.len()) };
    let rest = &exchange.path[replaced..];
    let mut out = Vec::with_capacity(replacement.len() + rest.len() + exchange.args.len() + 1);
    out.extend_from_slice(replacement);
    if exchange.quoted || exchange.internal {
        escape(rest, Escape::Uri, &mut out);
    } else {
        out.extend_from_slice(rest);
    }
    if !exchange.args.is_empty() {
        out.push(b'?');
        out.extend_from_slice(&exchange.args);
    }
    out.into()
}

/// The whole request but its body.
pub(super) fn build(exchange: &Exchange, conf: &Conf, group: &Group, names: &Names, uri: &[u8]) -> Request {
    let mut head = Vec::with_capacity(512);
    let kept = exchange.state.upstream.cache.keeps();
    let method = match &conf.method {
        _ if cached::converts_head(exchange, &conf.caching) => Cow::Borrowed(&b"GET"[..]),
        Some(method) => method.evaluate(exchange),
        None => Cow::Borrowed(&exchange.head.method[..]),
    };
    head.extend_from_slice(&method);
    head.push(b' ');
    head.extend_from_slice(uri);
    head.extend_from_slice(match conf.http_version {
        Version::Http10 => b" HTTP/1.0\r\n",
        Version::Http11 => b" HTTP/1.1\r\n",
    });
    let set = |name: &str| conf.set_header.iter().any(|header| header.name.eq_ignore_ascii_case(name.as_bytes()));
    // A peer that is spoken to in HTTP/1.1 is always told a host.
    let is_host = |header: &&SetHeader| header.name.eq_ignore_ascii_case(b"host");
    let host = conf.set_header.iter().rfind(is_host).map(|header| header.value.evaluate(exchange));
    let host = host.filter(|host| !host.is_empty() || conf.http_version == Version::Http10);
    field(&mut head, b"Host", host.as_deref().unwrap_or(&names.host));
    for header in conf.set_header.iter().filter(|header| !is_host(header)) {
        field(&mut head, &header.name, &header.value.evaluate(exchange));
    }
    let body = match &conf.set_body {
        Some(text) => Sends::Text(text.evaluate_bytes(exchange)),
        None => Sends::by(&conf.passing),
    };
    let length = match &body {
        Sends::Text(text) => Some(text.len() as u64),
        Sends::Client | Sends::Nothing => exchange.body_length(),
    };
    if let Some(length) = length.filter(|_| !set("content-length")) {
        field(&mut head, b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
    }
    let chunked = matches!(body, Sends::Client) && exchange.body.is_streaming() && exchange.head.chunked;
    if chunked && !set("transfer-encoding") {
        field(&mut head, b"Transfer-Encoding", b"chunked");
    }
    if kept {
        let (since, tag) = cached::questions(exchange);
        for (name, value) in [("If-Modified-Since", since), ("If-None-Match", tag)] {
            if !set(name) {
                field(&mut head, name.as_bytes(), &value);
            }
        }
    }
    if conf.passing.pass_request_headers {
        for client in &exchange.head.fields {
            let is = |name: &&str| client.name.eq_ignore_ascii_case(name.as_bytes());
            let own = OWN.iter().any(is) || kept && cached::OWN.iter().any(is);
            let replaced = conf.set_header.iter().any(|header| header.name.eq_ignore_ascii_case(&client.name));
            if !own && !replaced {
                raw_field(&mut head, &client.name, &client.value);
            }
        }
    }
    head.extend_from_slice(b"\r\n");
    Request {
        head: head.into(),
        body,
        frames: if chunked { Frames::Chunked } else { Frames::Plain },
        dialect: Dialect::Http,
        head_only: method.eq_ignore_ascii_case(b"HEAD"),
        keepalive: conf.http_version == Version::Http11 && group.keepalive.connections > 0,
    }
}

/// An empty value is not sent at all.
fn field(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if !value.is_empty() {
        raw_field(head, name, value);
    }
}

fn raw_field(head: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    head.extend_from_slice(name);
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}
