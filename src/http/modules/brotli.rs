//! `brotli`: compresses answers with Brotli (RFC 7932) for clients that take it, under the names of ngx_brotli's directives.
//! nginx has no such module; without these directives nothing of it is there.

use super::Room;
use crate::{
    config::{
        Args, Directive, FromArgs, LEVELS, LEVELS_IF, Module,
        values::{Size, parse_size},
    },
    http::{
        exchange::Exchange,
        media_types::MediaTypes,
        modules::core::Buffers,
        packing::{self, Codec, CompLevel, Lengths, Rule, beforehand},
        phase::Phase,
        response::Response,
        variables::Variable,
    },
    syntax::Fault,
};
use std::{rc::Rc, sync::Arc};

#[derive(Clone, Debug)]
pub struct Conf {
    pub enabled: bool,
    pub beforehand: beforehand::Enabled,
    pub types: MediaTypes,
    pub min_length: Size,
    pub level: CompLevel<0, 11>,
    pub window: Window,
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
            level: CompLevel(6),
            window: Window(19),
            buffers: None,
        }
    }
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("brotli", LEVELS_IF, |conf| &mut conf.enabled),
        Directive::new("brotli_static", LEVELS, |conf| &mut conf.beforehand),
        Directive::new("brotli_types", LEVELS, |conf| &mut conf.types),
        Directive::new("brotli_min_length", LEVELS, |conf| &mut conf.min_length),
        Directive::new("brotli_comp_level", LEVELS, |conf| &mut conf.level),
        Directive::new("brotli_window", LEVELS, |conf| &mut conf.window),
        Directive::new("brotli_buffers", LEVELS, |conf| &mut conf.buffers),
    ];
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] =
        &[Variable::new("brotli_ratio", |exchange, out| packing::ratio(exchange.state.brotli.lengths.as_ref(), out))];
    type State = State;
}

/// What is known about the compression of one answer.
#[derive(Debug, Default)]
pub struct State {
    lengths: Option<Rc<Lengths>>,
}

/// Answers with a file that was packed beforehand.
pub async fn content(exchange: &mut Exchange) -> Phase {
    let enabled = exchange.location.settings.brotli.beforehand;
    beforehand::content(exchange, enabled, ".br", "br", |exchange| packing::takes(exchange, "br"))
}

/// Packs an answer if it is worth it and the client takes it.
pub fn filter(exchange: &mut Exchange, response: &mut Response) {
    let conf = Arc::clone(&exchange.location.settings.brotli);
    let rule = Rule { enabled: conf.enabled, types: &conf.types, min_length: conf.min_length.0 };
    let codec = |length| Ok(Codec::brotli(conf.level.0, conf.window.0, length));
    let accepted = |exchange: &mut Exchange, _: &Response| packing::takes(exchange, "br");
    exchange.state.brotli.lengths = packing::offer(exchange, response, rule, "br", accepted, codec).ok().flatten();
}

/// `brotli_window`: the power of two that the window's size is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(pub u8);

impl FromArgs for Window {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let size = parse_size(&word.value).ok_or_else(|| args.directive(word, "invalid value"))?;
        let bits = (10..=24).find(|bits| 1 << bits == size);
        let text = "must be 1k, 2k, 4k, 8k, 16k, 32k, 64k, 128k, 256k, 512k, 1m, 2m, 4m, 8m or 16m";
        bits.map(Self).ok_or_else(|| args.directive(word, text))
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask, fault};
    use std::io::Read;

    fn asked(server: &str, accept: &str) -> (Option<String>, Vec<u8>, bool) {
        let answer = ask(server, &format!("GET /f.css HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {accept}\r\n\r\n"));
        let vary = answer.header("vary").is_some();
        (answer.header("content-encoding").map(str::to_owned), answer.body, vary)
    }

    #[test]
    fn an_answer_is_packed_if_both_sides_agree() {
        let text = "text ".repeat(40);
        let server = |directives: &str| {
            format!(
                "default_type text/html; gzip_vary on; brotli on; {directives} location / {{ return 200 \"{text}\"; }}"
            )
        };
        for (directives, accept, coding) in [
            ("", "br", Some("br")),
            ("brotli_comp_level 0; brotli_window 1k;", "br", Some("br")),
            ("brotli_comp_level 11; brotli_window 16m;", "gzip, br;q=0.5", Some("br")),
            ("gzip on;", "gzip, br", Some("br")),
            ("gzip on;", "gzip, br;q=0", Some("gzip")),
            ("gzip on; zstd on;", "gzip, deflate, br, zstd", Some("br")),
            ("", "gzip", None),
            ("", "brx", None),
            ("brotli_min_length 1k;", "br", None),
        ] {
            let (found, body, vary) = asked(&server(directives), accept);
            assert_eq!(found.as_deref(), coding, "{directives} {accept}");
            assert_eq!(vary, directives != "brotli_min_length 1k;", "{directives} {accept}");
            if coding == Some("br") {
                let mut plain = String::new();
                brotli::Decompressor::new(&body[..], 4096).read_to_string(&mut plain).unwrap();
                assert_eq!(plain, text, "{directives}");
            }
        }
    }

    #[test]
    fn a_file_that_was_packed_beforehand_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("f.css", "plain"), ("f.css.gz", "gz"), ("f.css.br", "br"), ("f.css.zst", "zst")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let root = format!("root {};", folder.path().display());
        for (directives, accept, coding, text) in [
            ("brotli_static on; zstd_static on; gzip_static on;", "gzip, br, zstd", Some("br"), "br"),
            ("brotli_static on; zstd_static on; gzip_static on;", "gzip, zstd", Some("zstd"), "zst"),
            ("brotli_static on; zstd_static on; gzip_static on;", "gzip", Some("gzip"), "gz"),
            ("brotli_static on; zstd_static on; gzip_static on;", "x", None, "plain"),
            ("brotli_static always;", "x", Some("br"), "br"),
        ] {
            let (found, body, _) = asked(&format!("{root} {directives}"), accept);
            assert_eq!((found.as_deref(), &body[..]), (coding, text.as_bytes()), "{directives} {accept}");
        }
    }

    #[test]
    fn faults_name_what_is_allowed() {
        for (text, message) in [
            ("brotli_comp_level 12;", "value must be between 0 and 11"),
            (
                "brotli_window 3k;",
                "\"brotli_window\" directive must be 1k, 2k, 4k, 8k, 16k, 32k, 64k, 128k, 256k, 512k, 1m, 2m, 4m, 8m or 16m",
            ),
            ("brotli maybe;", "invalid value \"maybe\" in \"brotli\" directive, it must be \"on\" or \"off\""),
            ("brotli_buffers 1;", "invalid number of arguments in \"brotli_buffers\" directive"),
            ("brotli_static maybe;", "invalid value \"maybe\""),
        ] {
            assert_eq!(fault(text), message, "{text}");
        }
    }
}
