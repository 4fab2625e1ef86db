//! `gzip`: compresses answers for clients that say they can take it.

mod accept;

pub use accept::{Disable, HttpVersion, Proxied, takes};

use super::Room;
use crate::{
    config::{Directive, LEVELS, LEVELS_IF, Module, values::Size},
    http::{
        exchange::Exchange,
        media_types::MediaTypes,
        packing::{self, Codec, CompLevel, Lengths, Rule},
        response::Response,
        variables::Variable,
    },
};
use std::{rc::Rc, sync::Arc};

#[derive(Clone, Debug)]
pub struct Conf {
    pub enabled: bool,
    pub types: MediaTypes,
    pub min_length: Size,
    pub level: CompLevel<1, 9>,
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
    const VARIABLES: &'static [Variable] =
        &[Variable::new("gzip_ratio", |exchange, out| packing::ratio(exchange.state.gzip.lengths.as_ref(), out))];
    type State = State;
}

/// What is known about the compression of one answer.
#[derive(Debug, Default)]
pub struct State {
    /// Shared with the body that is on its way.
    lengths: Option<Rc<Lengths>>,
    /// Whether the client takes compressed answers, once that was asked (`r->gzip_ok`).
    accepted: Option<bool>,
    /// Other clients may get something else.
    vary: bool,
}

/// Whether the request may be answered compressed; what is found first stays so for the whole request.
pub fn accepted(exchange: &mut Exchange, response: &Response) -> bool {
    let known = exchange.state.gzip.accepted;
    let accepted = known
        .unwrap_or_else(|| exchange.depth == 0 && accept::ok(&exchange.location.settings.gzip, exchange, response));
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
    let rule = Rule { enabled: conf.enabled, types: &conf.types, min_length: conf.min_length.0 };
    let codec = |length| Ok(Codec::gzip(conf.level.0, length));
    exchange.state.gzip.lengths = packing::offer(exchange, response, rule, "gzip", accepted, codec).ok().flatten();
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask, conf, fault};

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
