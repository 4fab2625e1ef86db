//! The variables of the core: what was asked, who asked, what was answered, and the time.

use crate::{
    http::{
        exchange::{Exchange, Method},
        variables::{Prefixed, Variable},
    },
    process::TcpInfo,
};
use bytes::Bytes;
use std::io::Write;

pub(super) const VARIABLES: &[Variable] = &[
    Variable::settable("args", |ex, out| put_some(out, &ex.args), set_args),
    Variable::new("query_string", |ex, out| put_some(out, &ex.args)),
    Variable::new("is_args", |ex, out| put(out, if ex.args.is_empty() { b"" } else { b"?" })),
    Variable::new("uri", path),
    Variable::new("document_uri", path),
    Variable::new("request_uri", |ex, out| put_some(out, &ex.head.target)),
    Variable::new("request", |ex, out| put_some(out, &ex.head.line)),
    Variable::new("request_method", |ex, out| put_some(out, ex.main_method.as_ref().unwrap_or(&ex.head.method))),
    Variable::new("request_length", |ex, out| number(out, request_length(ex))),
    Variable::new("request_time", |ex, out| {
        let ms = ex.elapsed_ms();
        write_to(out, format_args!("{}.{:03}", ms / 1000, ms % 1000))
    }),
    Variable::new("request_id", request_id),
    Variable::new("request_completion", |ex, out| put(out, if ex.sent.complete { b"OK" } else { b"" })),
    Variable::new("request_body", |ex, out| ex.body.memory().is_some_and(|body| put_some(out, body))),
    Variable::new("request_body_file", |ex, out| ex.body.file_name().is_some_and(|name| put(out, name))),
    Variable::new("request_filename", |ex, out| {
        let path = crate::http::files::path(ex, &ex.path);
        path.is_some_and(|path| put(out, &path))
    }),
    Variable::new("document_root", |ex, out| put(out, &crate::http::files::root(ex))),
    Variable::new("realpath_root", |ex, out| crate::http::files::real_root(ex).is_some_and(|root| put(out, &root))),
    Variable::new("content_length", |ex, out| match ex.field("content-length") {
        Some(length) => put(out, length),
        None if !ex.head.chunked => false,
        None => match ex.body.length() {
            Some(length) => number(out, length),
            // Once there is an answer, a body that nobody read counts for nothing.
            None => ex.sent.status != 0 && !ex.body.streamed() && number(out, 0),
        },
    }),
    Variable::new("content_type", |ex, out| joined(ex.head.fields.get_all("content-type"), b", ", out)),
    Variable::new("host", |ex, out| put(out, &ex.host)),
    Variable::new("hostname", |ex, out| put(out, ex.http.hostname.as_bytes())),
    Variable::new("scheme", |ex, out| put(out, ex.connection.scheme())),
    Variable::new("https", |ex, out| ex.connection.tls() && put(out, b"on")),
    Variable::new("server_name", |ex, out| put(out, &ex.server.name)),
    Variable::new("server_addr", |ex, out| put(out, ex.connection.local_ip().as_bytes())),
    Variable::new("server_port", |ex, out| put(out, ex.connection.local_port().as_bytes())),
    Variable::new("server_protocol", |ex, out| put(out, &ex.head.protocol)),
    Variable::new("remote_addr", |ex, out| put(out, ex.remote_ip().as_bytes())),
    Variable::new("remote_port", |ex, out| put(out, ex.remote_port().as_bytes())),
    Variable::new("binary_remote_addr", |ex, out| put(out, &ex.remote_binary())),
    Variable::new("remote_user", remote_user),
    Variable::new("request_port", |ex, out| put(out, request_port(ex))),
    Variable::new("is_request_port", |ex, out| put(out, if request_port(ex).is_empty() { b"" } else { b":" })),
    Variable::new("connection", |ex, out| number(out, ex.connection.serial)),
    Variable::new("connection_requests", |ex, out| number(out, ex.connection.requests.get())),
    Variable::new("connection_time", |ex, out| {
        let ms = ex.connection.started.elapsed().as_millis();
        write_to(out, format_args!("{}.{:03}", ms / 1000, ms % 1000))
    }),
    Variable::new("pipe", |ex, out| put(out, if ex.connection.pipelined() { b"p" } else { b"." })),
    Variable::new("tcpinfo_rtt", |ex, out| tcp_info(ex, |info| info.rtt, out)),
    Variable::new("tcpinfo_rttvar", |ex, out| tcp_info(ex, |info| info.rttvar, out)),
    Variable::new("tcpinfo_snd_cwnd", |ex, out| tcp_info(ex, |info| info.snd_cwnd, out)),
    Variable::new("tcpinfo_rcv_space", |ex, out| tcp_info(ex, |info| info.rcv_space, out)),
    Variable::new("status", |ex, out| {
        let error = if ex.error_status == 0 { 0 } else { ex.overwritten_status.unwrap_or(ex.error_status) };
        let status = match (error, ex.sent.status) {
            (0, 0) if ex.head.version < (1, 0) => 9,
            (0, status) => status,
            (error, _) => crate::http::status::sent(error),
        };
        write_to(out, format_args!("{status:03}"))
    }),
    Variable::new("bytes_sent", |ex, out| number(out, ex.sent.total)),
    Variable::new("body_bytes_sent", |ex, out| number(out, ex.sent.total.saturating_sub(ex.sent.head))),
    Variable::settable("limit_rate", limit_rate, set_limit_rate),
    Variable::new("nginx_version", |_, out| put(out, crate::NGINX_VERSION.as_bytes())),
    Variable::new("pid", |_, out| number(out, u64::from(std::process::id()))),
    Variable::new("msec", |ex, out| {
        let now = ex.connection.worker.clock.now();
        write_to(out, format_args!("{}.{:03}", now.as_secs(), now.subsec_millis()))
    }),
    Variable::new("time_local", |ex, out| put(out, &ex.connection.worker.clock.log_time())),
    Variable::new("time_iso8601", |ex, out| put(out, &ex.connection.worker.clock.iso8601())),
    Variable::new("http_host", |ex, out| of_field(ex, "host", out)),
    Variable::new("http_user_agent", |ex, out| by_variable_name(&ex.head.fields, b"user_agent", out)),
    Variable::new("http_referer", |ex, out| by_variable_name(&ex.head.fields, b"referer", out)),
    Variable::new("http_via", |ex, out| joined(ex.head.fields.get_all("via"), b", ", out)),
    Variable::new("http_cookie", |ex, out| joined(ex.head.fields.get_all("cookie"), b"; ", out)),
    Variable::new("http_x_forwarded_for", |ex, out| joined(ex.head.fields.get_all("x-forwarded-for"), b", ", out)),
    Variable::new("sent_http_content_type", |ex, out| sent(ex, b"content_type", out)),
    Variable::new("sent_http_content_length", |ex, out| sent(ex, b"content_length", out)),
    Variable::new("sent_http_location", |ex, out| sent(ex, b"location", out)),
    Variable::new("sent_http_last_modified", |ex, out| sent(ex, b"last_modified", out)),
    Variable::new("sent_http_connection", |ex, out| sent(ex, b"connection", out)),
    Variable::new("sent_http_keep_alive", |ex, out| sent(ex, b"keep_alive", out)),
    Variable::new("sent_http_transfer_encoding", |ex, out| sent(ex, b"transfer_encoding", out)),
    Variable::new("sent_http_cache_control", |ex, out| sent(ex, b"cache_control", out)),
    Variable::new("sent_http_link", |ex, out| sent(ex, b"link", out)),
];

pub(super) const FAMILIES: &[Prefixed] = &[
    Prefixed { prefix: "http_", get: |ex, name, out| by_variable_name(&ex.head.fields, name, out) },
    Prefixed { prefix: "sent_http_", get: sent },
    Prefixed { prefix: "sent_trailer_", get: |ex, name, out| by_variable_name(&ex.sent.trailers, name, out) },
    Prefixed { prefix: "cookie_", get: cookie },
    Prefixed { prefix: "arg_", get: argument },
];

/// `$request_length`: the head and what was read of the body with its frame; what is only read away does not count.
pub fn request_length(ex: &Exchange) -> u64 {
    let body = if ex.body.received() > 0 || ex.body.streamed() { ex.connection.side.body_received() } else { 0 };
    ex.head.length as u64 + body
}

/// `$uri`; none in a request that broke off before there was one.
fn path(ex: &Exchange, out: &mut Vec<u8>) -> bool {
    !ex.head.target.is_empty() && put(out, &ex.path)
}

/// The port of the `Host` field or the request line; empty where there is none.
pub fn request_port(ex: &Exchange) -> &[u8] {
    let host = ex.head.authority.as_deref().or_else(|| ex.field("host")).unwrap_or(b"");
    match memchr::memrchr(b':', host) {
        Some(at) if !host[at + 1..].is_empty() && host[at + 1..].iter().all(u8::is_ascii_digit) => &host[at + 1..],
        _ => b"",
    }
}

/// A query argument by name, in any case, as it is written.
pub fn argument(ex: &Exchange, name: &[u8], out: &mut Vec<u8>) -> bool {
    let arguments = ex.args.split(|byte| *byte == b'&');
    let value = arguments.filter_map(|argument| {
        let at = memchr::memchr(b'=', argument)?;
        argument[..at].eq_ignore_ascii_case(name).then(|| &argument[at + 1..])
    });
    value.into_iter().next().is_some_and(|value| put(out, value))
}

/// Appends `text` and says that there is a value.
pub fn put(out: &mut Vec<u8>, text: &[u8]) -> bool {
    out.extend_from_slice(text);
    true
}

/// The same for what has no value while it is empty.
fn put_some(out: &mut Vec<u8>, text: &[u8]) -> bool {
    !text.is_empty() && put(out, text)
}

/// Appends a number.
pub fn number(out: &mut Vec<u8>, number: u64) -> bool {
    put(out, itoa::Buffer::new().format(number).as_bytes())
}

/// A field whose name is written as in a variable: lower case, `_` for what is not a letter or digit.
/// Repeated fields are joined as nginx joins them.
pub fn by_variable_name(fields: &crate::http::heads::Fields, name: &[u8], out: &mut Vec<u8>) -> bool {
    let separator: &[u8] = if name == b"cookie" { b"; " } else { b", " };
    let values = fields.iter().filter(|field| is_named(&field.name, name)).map(|field| &field.value[..]);
    joined(values, separator, out)
}

fn joined<'v>(values: impl Iterator<Item = &'v [u8]>, separator: &[u8], out: &mut Vec<u8>) -> bool {
    let mut any = false;
    for value in values {
        if any {
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(value);
        any = true;
    }
    any
}

fn of_field(ex: &Exchange, name: &str, out: &mut Vec<u8>) -> bool {
    ex.field(name).is_some_and(|value| put(out, value))
}

fn write_to(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) -> bool {
    out.write_fmt(text).is_ok()
}

/// What the head that was sent said. Before it was sent there is no value.
fn sent(ex: &Exchange, name: &[u8], out: &mut Vec<u8>) -> bool {
    let head = &ex.sent.text;
    let mut any = false;
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(at) = memchr::memchr(b':', line).filter(|at| is_named(&line[..*at], name)) else { continue };
        if any {
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(line[at + 1..].trim_ascii_start());
        any = true;
    }
    any
}

/// Whether a field's name is the one a variable spells.
fn is_named(field: &[u8], name: &[u8]) -> bool {
    field.len() == name.len()
        && field.iter().zip(name).all(|(byte, wanted)| match byte {
            b'-' => *wanted == b'_',
            byte => byte.eq_ignore_ascii_case(wanted),
        })
}

/// `$cookie_name`: the first cookie of that name, in any of the `Cookie` fields.
fn cookie(ex: &Exchange, name: &[u8], out: &mut Vec<u8>) -> bool {
    let pairs = ex.head.fields.get_all("cookie").flat_map(|field| field.split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii_start();
        let at = memchr::memchr(b'=', pair)?;
        pair[..at].trim_ascii_end().eq_ignore_ascii_case(name).then(|| pair[at + 1..].trim_ascii_start())
    });
    values.next().is_some_and(|value| put(out, value))
}

/// The name of the `Basic` credentials, whether or not anybody checked them.
fn remote_user(ex: &Exchange, out: &mut Vec<u8>) -> bool {
    let Some(decoded) = basic_credentials(ex) else { return false };
    let end = memchr::memchr(b':', &decoded).unwrap_or(decoded.len());
    end > 0 && put(out, &decoded[..end])
}

/// What `Authorization: Basic` holds, or `Proxy-Authorization` of `CONNECT`: `name:password`.
pub fn basic_credentials(ex: &Exchange) -> Option<Vec<u8>> {
    let proxy = ex.method == Method::Connect;
    let value = ex.field(if proxy { "proxy-authorization" } else { "authorization" })?;
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    decode_base64(rest.trim_ascii())
}

/// Reads base 64 as nginx does: up to the first `=`, and what is left over behind the last byte is not looked at
/// (`ngx_decode_base64`).
pub fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    use base64::{
        Engine, alphabet,
        engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
    };
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::RequireNone)
            .with_decode_allow_trailing_bits(true),
    );
    let end = memchr::memchr(b'=', text).unwrap_or(text.len());
    ENGINE.decode(&text[..end]).ok()
}

/// `$request_id`.
pub fn request_id(ex: &Exchange, out: &mut Vec<u8>) -> bool {
    let id = ex.state.core.request_id.get_or_init(|| {
        let mut id = [0; 32];
        for (at, byte) in id.iter_mut().enumerate() {
            *byte = b"0123456789abcdef"[usize::from(ex.connection.worker.random_byte(at) & 15)];
        }
        id
    });
    put(out, id)
}

/// What the system has measured of the client's connection; none where it is not TCP.
fn tcp_info(ex: &Exchange, pick: fn(&TcpInfo) -> u32, out: &mut Vec<u8>) -> bool {
    let info = ex.connection.descriptor.and_then(crate::process::tcp_info);
    info.is_some_and(|info| number(out, pick(&info).into()))
}

fn set_args(ex: &mut Exchange, value: Bytes) {
    ex.args = value;
    ex.pristine = false;
}

fn limit_rate(ex: &Exchange, out: &mut Vec<u8>) -> bool {
    number(out, crate::http::limit_rate::rate(ex))
}

fn set_limit_rate(ex: &mut Exchange, value: Bytes) {
    if let Some(rate) = crate::config::values::parse_size(&value) {
        ex.state.core.limit_rate = Some(rate as u64);
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask, get};

    #[test]
    fn arguments_and_cookies_are_found_by_name_in_any_case() {
        let answer = get("location / { return 200 \"$arg_a|$arg_B|$arg_c|$is_args|$args\"; }", "/x?A=1&b=%20&&c");
        assert_eq!(answer.text(), "1|%20||?|A=1&b=%20&&c");
    }

    #[test]
    fn repeated_fields_are_joined_and_cookies_stand_apart_by_semicolons() {
        let config = "location / { return 200 \"$http_cookie|$cookie_a|$cookie_b|$cookie_c|$content_type\"; }";
        let fields = "Cookie: a=1, b=2; c=3\r\nCookie: B=4\r\nContent-Type: x\r\nContent-Type: y";
        let answer = ask(config, &format!("GET / HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n\r\n"));
        assert_eq!(answer.text(), "a=1, b=2; c=3; B=4|1, b=2|4|3|x, y");
    }
}
