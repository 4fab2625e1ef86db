//! `charset`: says in `Content-Type` how the text of an answer is encoded, and encodes it anew where it has to.

mod body;
mod map;

pub use body::CharsetBody;

use super::Room;
use crate::{
    config::{Args, Contexts, Directive, FromArgs, HTTP, Handle, Kind, LEVELS, LEVELS_IF, Module, Scope},
    http::{body::Body, exchange::Exchange, media_types::MediaTypes, response::Response},
    observe::error_log::Level,
    syntax::{Fault, Stage},
};
use bytes::Bytes;
use map::{Maps, same};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Conf {
    pub charset: Charset,
    pub source: Charset,
    /// An upstream's own charset gives way.
    pub overrides: bool,
    pub types: MediaTypes,
    maps: Maps,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            charset: Charset::Off,
            source: Charset::Off,
            overrides: false,
            maps: Maps::default(),
            types: MediaTypes::of(&[
                "text/html",
                "text/xml",
                "text/plain",
                "text/vnd.wap.wml",
                "application/javascript",
                "application/rss+xml",
            ]),
        }
    }
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("charset", LEVELS_IF, |conf| &mut conf.charset),
        Directive::new("source_charset", LEVELS_IF, |conf| &mut conf.source),
        Directive::new("override_charset", LEVELS_IF, |conf| &mut conf.overrides),
        Directive::new("charset_types", LEVELS, |conf| &mut conf.types),
        Directive::new("charset_map", HTTP, |conf| &mut conf.maps),
    ];

    fn settle(&mut self, scope: &Scope<'_>, _level: Contexts) -> Result<(), Fault> {
        match (&self.charset, &self.source) {
            (Charset::Name(to), Charset::Name(from)) if !same(to, from) && self.maps.find(from, to).is_none() => {
                let at = scope.enclosing().map(|statement| statement.name.span).unwrap_or_default();
                Err(Fault::at(at, no_map(from, to)).unnamed().when(Stage::Settling))
            }
            _ => Ok(()),
        }
    }
}

impl Room for Conf {
    type State = ();
}

/// Gives an answer its charset, and writes its text in it (`ngx_http_charset_header_filter`). The charset it has so far
/// is what an upstream said.
pub fn filter(exchange: &mut Exchange, response: &mut Response) {
    let conf = Arc::clone(&exchange.location.settings.charset);
    let Some(to) = conf.destination(exchange, response) else { return };
    if let Some(from) = response.charset.clone().or_else(|| conf.source.evaluate(exchange))
        && !same(&from, &to)
    {
        if response.encoded {
            return;
        }
        let Some(table) = conf.maps.find(&from, &to) else {
            exchange.log(Level::Err, &String::from_utf8_lossy(&no_map(&from, &to)));
            return;
        };
        if !table.keeps_length() {
            response.forget_length();
        }
        let text = std::mem::take(&mut response.body);
        response.body = Body::Charset(Box::new(CharsetBody::new(text, Arc::clone(table))));
    }
    // A charset of a redirect was once taken for that of the page behind it, so nginx gives it none.
    response.charset = Some(to).filter(|to| !to.is_empty() && !matches!(response.status, 301 | 302));
}

impl Conf {
    /// The charset an answer is to have (`ngx_http_destination_charset`).
    pub fn destination(&self, exchange: &Exchange, response: &Response) -> Option<Bytes> {
        let media = response.content_type.as_ref().filter(|media| !media.is_empty())?;
        if let Some(wanted) = response.wanted_charset.as_ref().filter(|wanted| !wanted.is_empty()) {
            let named = |charset: &Charset| matches!(charset, Charset::Name(name) if same(name, wanted));
            if self.maps.know(wanted) || named(&self.charset) || named(&self.source) {
                return Some(wanted.clone());
            }
            let name = String::from_utf8_lossy(wanted);
            exchange.log(Level::Err, &format!("unknown charset \"{name}\" to override"));
            return None;
        }
        if self.charset == Charset::Off {
            return None;
        }
        let meant = if response.charset.is_some() { self.overrides } else { self.types.contains(media) };
        if meant { self.charset.evaluate(exchange) } else { None }
    }
}

fn no_map(from: &[u8], to: &[u8]) -> Vec<u8> {
    [b"no \"charset_map\" between the charsets \"", from, b"\" and \"", to, b"\""].concat()
}

/// The value of `charset` and `source_charset`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Charset {
    Off,
    Name(Bytes),
    Variable(Handle),
}

impl Charset {
    /// The charset for one request, if there is one.
    fn evaluate(&self, exchange: &Exchange) -> Option<Bytes> {
        match self {
            Self::Off => None,
            Self::Name(name) => Some(name.clone()),
            Self::Variable(handle) => exchange.variable_bytes(*handle),
        }
    }
}

impl FromArgs for Charset {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        Ok(match &word.value[..] {
            b"off" if args.name() == "charset" => Self::Off,
            [b'$', name @ ..] => Self::Variable(args.scope.refer(Kind::Variable, name, word.span)),
            name => Self::Name(Bytes::copy_from_slice(name)),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask_http, fault, get};

    #[test]
    fn texts_get_the_charset_and_redirects_do_not() {
        for (config, path, expected) in [
            ("charset utf-8; location / { return 200 x; }", "/", Some("text/plain; charset=utf-8")),
            ("charset utf-8; location / { charset off; return 200 x; }", "/", Some("text/plain")),
            ("charset utf-8; location / { default_type image/png; return 200 x; }", "/", Some("image/png")),
            ("charset utf-8; location / { return 302 /x; }", "/", Some("text/html")),
            ("charset $arg_c; location / { return 200 x; }", "/?c=koi8-r", Some("text/plain; charset=koi8-r")),
            ("charset utf-8; charset_types a/b; location / { return 200 x; }", "/", Some("text/plain")),
            (
                "charset utf-8; source_charset UTF-8; location / { return 200 x; }",
                "/",
                Some("text/plain; charset=utf-8"),
            ),
        ] {
            assert_eq!(get(config, path).header("content-type"), expected, "{config}");
        }
    }

    #[test]
    fn texts_are_recoded_by_their_map_either_way() {
        let koi8 = "charset_map koi8 utf-8 { c1 D0B0; c2 E282AC; }";
        let recoded = |maps: &str, from: &str, to: &str, text: &str| {
            let server = format!("charset {to}; source_charset {from}; location / {{ return 200 \"{text}\"; }}");
            let answer = ask_http(&format!("{maps} server {{ {server} }}"), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            (answer.body.clone(), answer.header("content-length").map(str::to_owned))
        };
        let (body, length) = recoded("charset_map B A { 58 59; }", "B", "A", "aX");
        assert_eq!((&body[..], length.as_deref()), (&b"aY"[..], Some("2")));
        let (body, length) = recoded("charset_map B A { 58 59; }", "A", "B", "aY");
        assert_eq!((&body[..], length.as_deref()), (&b"aX"[..], Some("2")));
        let (body, length) = recoded(koi8, "utf-8", "koi8", "a\u{430}\u{20ac}\u{1f600}");
        assert_eq!((&body[..], length.as_deref()), (&b"a\xc1\xc2&#128512;"[..], None));
        let (body, _) = recoded(koi8, "koi8", "utf-8", "a\u{41}");
        assert_eq!(body, b"aA");
    }

    #[test]
    fn two_charsets_need_a_map() {
        let message = "no \"charset_map\" between the charsets \"koi8-r\" and \"utf-8\"";
        assert_eq!(fault("charset utf-8; source_charset koi8-r;"), message);
    }
}
