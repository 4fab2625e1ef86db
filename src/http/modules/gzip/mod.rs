//! `gzip`: compresses answers for clients that say they can take it.

mod accept;
mod body;

pub use accept::{Disable, HttpVersion, Proxied};
pub use body::GzipBody;

use super::Room;
use crate::{
    config::{
        Args, Directive, FromArgs, LEVELS, LEVELS_IF, Module,
        values::{Size, parse_number},
    },
    http::{
        body::Body,
        exchange::{Exchange, Method},
        media_types::MediaTypes,
        response::Response,
        validators::weak_etag,
        variables::Variable,
    },
    syntax::Fault,
};
use bytes::Bytes;
use std::{io::Write, rc::Rc, sync::Arc};

#[derive(Clone, Debug)]
pub struct Conf {
    pub enabled: bool,
    pub types: MediaTypes,
    pub min_length: Size,
    pub level: CompLevel,
    pub http_version: HttpVersion,
    pub proxied: Proxied,
    /// Answers that may be compressed say so in `Vary`.
    pub vary: bool,
    pub disable: Disable,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            enabled: false,
            types: MediaTypes::of(&["text/html"]),
            min_length: Size(20),
            level: CompLevel(1),
            http_version: HttpVersion::default(),
            proxied: Proxied::default(),
            vary: false,
            disable: Disable::default(),
        }
    }
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("gzip", LEVELS_IF, |conf| &mut conf.enabled),
        Directive::new("gzip_types", LEVELS, |conf| &mut conf.types),
        Directive::new("gzip_min_length", LEVELS, |conf| &mut conf.min_length),
        Directive::new("gzip_comp_level", LEVELS, |conf| &mut conf.level),
        Directive::new("gzip_http_version", LEVELS, |conf| &mut conf.http_version),
        Directive::new("gzip_proxied", LEVELS, |conf| &mut conf.proxied),
        Directive::new("gzip_vary", LEVELS, |conf| &mut conf.vary),
        Directive::new("gzip_disable", LEVELS, |conf| &mut conf.disable),
    ];
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] = &[Variable::new("gzip_ratio", ratio)];
    type State = State;
}

/// What is known about the compression of one answer.
#[derive(Debug, Default)]
pub struct State {
    /// Shared with the body that is on its way.
    lengths: Option<Rc<body::Lengths>>,
    /// Whether the client takes compressed answers, once that was asked (`r->gzip_ok`).
    accepted: Option<bool>,
    /// Other clients may get something else.
    vary: bool,
}

/// Whether the request may be answered compressed; what is found first stays so for the whole request.
pub fn accepted(exchange: &mut Exchange, response: &Response) -> bool {
    let known = exchange.state.gzip.accepted;
    let accepted =
        known.unwrap_or_else(|| exchange.depth == 0 && accept::ok(&exchange.location.settings.gzip, exchange, response));
    exchange.state.gzip.accepted = Some(accepted);
    accepted
}

/// Has the answer say in `Vary` that other clients may get something else (`r->gzip_vary`).
pub fn vary(exchange: &mut Exchange) {
    exchange.state.gzip.vary = true;
}

/// Compresses an answer if it is worth it and the client takes it (`ngx_http_gzip_header_filter`).
pub fn filter(exchange: &mut Exchange, response: &mut Response) {
    response.vary_accept_encoding |= exchange.state.gzip.vary;
    let conf = Arc::clone(&exchange.location.settings.gzip);
    if !conf.enabled
        || !matches!(response.status, 200 | 403 | 404)
        || response.field("content-encoding").is_some_and(|encoding| !encoding.is_empty())
        || response.content_length.is_some_and(|length| length < conf.min_length.0 as u64)
        || !conf.types.contains(response.content_type.as_deref().unwrap_or_default())
    {
        return;
    }
    response.vary_accept_encoding = true;
    if !accepted(exchange, response) {
        return;
    }
    if exchange.method != Method::Head {
        let body = GzipBody::new(std::mem::take(&mut response.body), conf.level.0, response.content_length);
        exchange.state.gzip.lengths = Some(body.lengths());
        response.body = Body::Gzip(Box::new(body));
    }
    response.push(&b"Content-Encoding"[..], &b"gzip"[..]);
    response.encoded = true;
    response.forget_length();
    weaken(response);
}

/// The body is no longer byte for byte what its tag stands for (`ngx_http_weak_etag`).
pub fn weaken(response: &mut Response) {
    let weak = |etag: &[u8]| weak_etag(etag).map(|weak| Bytes::copy_from_slice(&weak));
    response.etag = response.etag.as_deref().and_then(weak);
    match response.field("etag").map(weak) {
        Some(Some(etag)) => {
            for field in response.fields.iter_mut().filter(|field| field.name.eq_ignore_ascii_case(b"etag")) {
                field.value = etag.clone();
            }
        }
        Some(None) => {
            response.fields.remove("etag");
        }
        None => {}
    }
}

/// `$gzip_ratio`: how many times shorter the answer became, once it is known.
fn ratio(exchange: &Exchange, out: &mut Vec<u8>) -> bool {
    let lengths = exchange.state.gzip.lengths.as_ref();
    lengths.and_then(|lengths| lengths.get()).is_some_and(|(plain, packed)| write_ratio(plain, packed, out))
}

/// Two digits behind the point, rounded by the third.
fn write_ratio(plain: u64, packed: u64, out: &mut Vec<u8>) -> bool {
    if packed == 0 {
        return false;
    }
    let mut hundredths = plain.saturating_mul(100) / packed;
    if (plain.saturating_mul(1000) / packed) % 10 > 4 {
        hundredths += 1;
    }
    write!(out, "{}.{:02}", hundredths / 100, hundredths % 100).is_ok()
}

/// `gzip_comp_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompLevel(pub u32);

impl FromArgs for CompLevel {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let level = parse_number(&word.value).ok_or_else(|| args.directive(word, "invalid number"))?;
        let level = u32::try_from(level).ok().filter(|level| (1..=9).contains(level));
        level.map(Self).ok_or_else(|| Fault::at(word.span, "value must be between 1 and 9"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{ask, conf, fault};

    #[test]
    fn a_ratio_has_two_digits_behind_its_point() {
        for (plain, packed, ratio) in
            [(2125, 1000, "2.13"), (2124, 1000, "2.12"), (1999, 1000, "2.00"), (5, 100, "0.05")]
        {
            let mut out = Vec::new();
            assert!(write_ratio(plain, packed, &mut out));
            assert_eq!(String::from_utf8_lossy(&out), ratio);
        }
        assert!(!write_ratio(1, 0, &mut Vec::new()));
    }

    #[test]
    fn an_answer_is_compressed_if_both_sides_agree() {
        let text = "x".repeat(30);
        let ask = |directives: &str, fields: &str| {
            let server = format!("gzip on; gzip_vary on; location / {{ {directives} return 200 {text}; }}");
            ask(&server, &format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"))
        };
        let gzip = "Accept-Encoding: gzip\r\n";
        let html = "default_type text/html;";
        for (directives, fields, encoding, vary) in [
            (html, gzip, true, true),
            (html, "", false, true),
            (html, "Accept-Encoding: gzip;q=0\r\n", false, true),
            ("", gzip, false, false),
            ("gzip_types text/plain;", gzip, true, true),
            ("default_type text/html; gzip_min_length 31;", gzip, false, false),
            (
                "default_type text/html; gzip_disable curl;",
                "Accept-Encoding: gzip\r\nUser-Agent: CURL\r\n",
                false,
                true,
            ),
            (html, "Accept-Encoding: gzip\r\nVia: x\r\n", false, true),
            ("default_type text/html; gzip_proxied any;", "Accept-Encoding: gzip\r\nVia: x\r\n", true, true),
            ("default_type text/html; add_header Content-Encoding br;", gzip, false, false),
        ] {
            let answer = ask(directives, fields);
            let what = format!("{directives} {fields}");
            assert_eq!(answer.header("content-encoding") == Some("gzip"), encoding, "{what}");
            assert_eq!(answer.header("vary").is_some(), vary, "{what}");
            assert_eq!(answer.header("content-length").is_none(), encoding, "{what}");
        }
    }

    #[test]
    fn every_list_of_types_holds_html() {
        assert!(conf("gzip_types text/css; gzip_types a/b;").gzip.types.contains(b"text/html"));
        assert!(conf("gzip_types text/css; gzip_types a/b;").gzip.types.contains(b"text/css"));
        assert!(conf("gzip_types *;").gzip.types.contains(b""));
    }

    #[test]
    fn faults_are_in_nginx_s_words() {
        for (text, message) in [
            ("gzip_comp_level 10;", "value must be between 1 and 9"),
            ("gzip_comp_level x;", "\"gzip_comp_level\" directive invalid number"),
            ("gzip_http_version 2;", "invalid value \"2\""),
            ("gzip_proxied some;", "invalid value \"some\""),
        ] {
            assert_eq!(fault(text), message, "{text}");
        }
    }
}
