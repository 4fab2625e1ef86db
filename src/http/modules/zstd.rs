//! `zstd`: compresses answers with Zstandard (RFC 8878) for clients that take it, under the names of zstd-nginx-module's
//! directives. nginx has no such module; without these directives nothing of it is there.

use super::Room;
use crate::{
    config::{Directive, LEVELS, LEVELS_IF, Module, values::Size},
    http::{
        exchange::Exchange,
        media_types::MediaTypes,
        modules::core::Buffers,
        packing::{self, Codec, CompLevel, Lengths, Rule, beforehand},
        phase::Phase,
        response::Response,
        variables::Variable,
    },
    observe::error_log::Level,
};
use std::{rc::Rc, sync::Arc};

#[derive(Clone, Debug)]
pub struct Conf {
    pub enabled: bool,
    pub beforehand: beforehand::Enabled,
    pub types: MediaTypes,
    pub min_length: Size,
    pub level: CompLevel<1, 22>,
    /// Accepted: answers leave in pieces of their own size.
    buffers: Option<Buffers>,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            enabled: false,
            beforehand: beforehand::Enabled::Off,
            types: MediaTypes::of(&["text/html"]),
            min_length: Size(20),
            level: CompLevel(1),
            buffers: None,
        }
    }
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("zstd", LEVELS_IF, |conf| &mut conf.enabled),
        Directive::new("zstd_static", LEVELS, |conf| &mut conf.beforehand),
        Directive::new("zstd_types", LEVELS, |conf| &mut conf.types),
        Directive::new("zstd_min_length", LEVELS, |conf| &mut conf.min_length),
        Directive::new("zstd_comp_level", LEVELS, |conf| &mut conf.level),
        Directive::new("zstd_buffers", LEVELS, |conf| &mut conf.buffers),
    ];
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] =
        &[Variable::new("zstd_ratio", |exchange, out| packing::ratio(exchange.state.zstd.lengths.as_ref(), out))];
    type State = State;
}

/// What is known about the compression of one answer.
#[derive(Debug, Default)]
pub struct State {
    lengths: Option<Rc<Lengths>>,
}

/// Answers with a file that was packed beforehand.
pub async fn content(exchange: &mut Exchange) -> Phase {
    let enabled = exchange.location.settings.zstd.beforehand;
    beforehand::content(exchange, enabled, ".zst", "zstd", |exchange| packing::takes(exchange, "zstd"))
}

/// Packs an answer if it is worth it and the client takes it.
pub fn filter(exchange: &mut Exchange, response: &mut Response) {
    let conf = Arc::clone(&exchange.location.settings.zstd);
    let rule = Rule { enabled: conf.enabled, types: &conf.types, min_length: conf.min_length.0 };
    let codec = |_| Codec::zstd(i32::try_from(conf.level.0).unwrap_or(1));
    let accepted = |exchange: &mut Exchange, _: &Response| packing::takes(exchange, "zstd");
    match packing::offer(exchange, response, rule, "zstd", accepted, codec) {
        Ok(lengths) => exchange.state.zstd.lengths = lengths,
        Err(error) => exchange.log(Level::Alert, &format!("zstd failed ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask, fault};

    #[test]
    fn an_answer_is_packed_if_both_sides_agree() {
        let text = "text ".repeat(40);
        for (directives, accept, coding) in [
            ("", "zstd", Some("zstd")),
            ("zstd_comp_level 19;", "gzip, zstd", Some("zstd")),
            ("gzip on;", "gzip, zstd;q=0", Some("gzip")),
            ("", "gzip", None),
            ("zstd_types text/css; default_type text/plain;", "zstd", None),
        ] {
            let kind = if directives.contains("default_type") { "" } else { "default_type text/html;" };
            let server = format!("{kind} zstd on; {directives} location / {{ return 200 \"{text}\"; }}");
            let request = format!("GET / HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {accept}\r\n\r\n");
            let answer = ask(&server, &request);
            assert_eq!(answer.header("content-encoding"), coding, "{directives} {accept}");
            if coding == Some("zstd") {
                assert_eq!(zstd::decode_all(&answer.body[..]).unwrap(), text.as_bytes(), "{directives}");
            }
        }
    }

    #[test]
    fn faults_name_what_is_allowed() {
        for (text, message) in [
            ("zstd_comp_level 0;", "value must be between 1 and 22"),
            ("zstd_comp_level x;", "\"zstd_comp_level\" directive invalid number"),
            ("zstd_min_length x;", "\"zstd_min_length\" directive invalid value"),
        ] {
            assert_eq!(fault(text), message, "{text}");
        }
    }
}
