//! `proxy_status`: tells the client how it went with the upstream, in the `Proxy-Status` field (RFC 9209). What it says of
//! failures is what `$upstream_failure_reason` says, in the words of the RFC.

use super::Room;
use crate::{
    config::{Directive, LEVELS, Module},
    http::{
        exchange::{Exchange, Try},
        response::Response,
    },
    upstream::Reason,
};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    enabled: bool,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[Directive::new("proxy_status", LEVELS, |conf| &mut conf.enabled)];
}

impl Room for Conf {
    type State = ();
}

/// How this proxy is called in the field.
const NAME: &str = "tidegate";

/// Adds the field to an answer for which an upstream was asked: behind those that proxies nearer to the origin have added.
pub fn filter(exchange: &Exchange, response: &mut Response) {
    if !exchange.location.settings.proxy_status.enabled {
        return;
    }
    let value = match exchange.tries.last() {
        _ if exchange.state.upstream.unresolved.get() => failed(begun(), Reason::Unresolved),
        Some(attempt) => describe(attempt),
        None => return,
    };
    response.push(&b"Proxy-Status"[..], value);
}

/// The last attempt is the one that is answered with.
fn describe(attempt: &Try) -> String {
    let mut value = begun();
    if attempt.began.is_some() && !attempt.peer.is_empty() {
        value.push_str("; next-hop=\"");
        match attempt.peer.bytes().all(is_plain) {
            true => value.push_str(&attempt.peer),
            false => quote(&attempt.peer, &mut value),
        }
        value.push('"');
    }
    if attempt.header_ms.is_some() && attempt.status != 0 {
        value.push_str("; received-status=");
        value.push_str(itoa::Buffer::new().format(attempt.status));
    }
    match attempt.reason {
        Some(reason) => failed(value, reason),
        None => value,
    }
}

fn begun() -> String {
    // Most are no longer.
    let mut value = String::with_capacity(96);
    value.push_str(NAME);
    value
}

/// Whether a byte may stand in a text of the field as it is.
fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) && !matches!(byte, b'"' | b'\\')
}

/// What may not stand there at all is left out.
fn quote(text: &str, value: &mut String) {
    for char in text.chars().filter(|char| char.is_ascii() && !char.is_ascii_control()) {
        if matches!(char, '"' | '\\') {
            value.push('\\');
        }
        value.push(char);
    }
}

fn failed(mut value: String, reason: Reason) -> String {
    if let Some(error) = error(reason) {
        value.push_str("; error=");
        value.push_str(error);
        value.push_str("; details=\"");
        value.push_str(reason.word());
        value.push('"');
    }
    value
}

/// The error type (section 2.3 of the RFC); none where an answer came that was not wanted.
fn error(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::Refused => "connection_refused",
        Reason::Unreachable => "destination_ip_unroutable",
        Reason::Unresolved => "dns_error",
        Reason::Tls => "tls_protocol_error",
        Reason::TimeoutConnect => "connection_timeout",
        Reason::TimeoutRead => "connection_read_timeout",
        Reason::TimeoutWrite => "connection_write_timeout",
        Reason::ResetOnReused | Reason::Reset | Reason::ClosedEarly => "connection_terminated",
        Reason::HeaderTooBig => "http_response_header_section_size",
        Reason::InvalidHeader | Reason::CaughtStderr => "http_protocol_error",
        Reason::NoLivePeers => "destination_unavailable",
        Reason::QueueFull | Reason::QueueTimeout => "connection_limit_reached",
        Reason::Local => "proxy_internal_error",
        Reason::Client => "http_request_error",
        Reason::Http403
        | Reason::Http404
        | Reason::Http429
        | Reason::Http500
        | Reason::Http502
        | Reason::Http503
        | Reason::Http504 => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{ask_http, fault};

    fn said(directives: &str, location: &str) -> Option<String> {
        let text = format!(
            "upstream none {{ server 127.0.0.1:1 down; }} \
             server {{ {directives} location / {{ {location} }} location /@ {{ return 502; }} }}"
        );
        let answer = ask_http(&text, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        answer.header("proxy-status").map(ToOwned::to_owned)
    }

    #[test]
    fn nothing_is_said_unless_it_is_on_and_an_upstream_was_asked() {
        assert_eq!(said("", "proxy_pass http://127.0.0.1:1;"), None);
        assert_eq!(said("proxy_status on;", "return 200;"), None);
    }

    #[test]
    fn a_failure_has_the_words_of_the_rfc_and_ours() {
        assert_eq!(
            said("proxy_status on;", "proxy_pass http://127.0.0.1:1;").as_deref(),
            Some("tidegate; next-hop=\"127.0.0.1:1\"; error=connection_refused; details=\"refused\"")
        );
        assert_eq!(
            said("proxy_status on;", "proxy_pass http://none;").as_deref(),
            Some("tidegate; error=destination_unavailable; details=\"no_live_peers\"")
        );
        assert_eq!(
            said("proxy_status on;", "set $x nowhere.example; proxy_pass http://$x;").as_deref(),
            Some("tidegate; error=dns_error; details=\"unresolved\"")
        );
    }

    #[test]
    fn an_answer_that_was_passed_on_tells_its_status_and_from_whom_it_is() {
        let attempt = Try {
            peer: "unix:/a\"b".to_owned(),
            status: 503,
            began: Some(std::time::Instant::now()),
            header_ms: Some(1),
            reason: Some(Reason::Http503),
            ..Try::default()
        };
        assert_eq!(describe(&attempt), "tidegate; next-hop=\"unix:/a\\\"b\"; received-status=503");
    }

    #[test]
    fn it_is_on_or_off() {
        assert_eq!(
            fault("proxy_status maybe;"),
            "invalid value \"maybe\" in \"proxy_status\" directive, it must be \"on\" or \"off\""
        );
    }
}
