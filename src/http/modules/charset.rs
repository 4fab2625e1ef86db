//! `charset`: says in `Content-Type` how the text of an answer is encoded.

use super::Room;
use crate::{
    config::{Args, Contexts, Directive, FromArgs, Handle, Kind, LEVELS, LEVELS_IF, Module, Scope},
    http::{exchange::Exchange, media_types::MediaTypes, response::Response},
    observe::error_log::Level,
    syntax::{Fault, Stage},
};
use bytes::Bytes;

#[derive(Clone, Debug)]
pub struct Conf {
    pub charset: Charset,
    pub source: Charset,
    /// An upstream's own charset gives way.
    pub overrides: bool,
    pub types: MediaTypes,
}

impl Default for Conf {
    fn default() -> Self {
        Self {
            charset: Charset::Off,
            source: Charset::Off,
            overrides: false,
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
    ];

    fn settle(&mut self, scope: &Scope<'_>, _level: Contexts) -> Result<(), Fault> {
        match (&self.charset, &self.source) {
            (Charset::Name(to), Charset::Name(from)) if !same(to, from) => {
                let at = scope.enclosing().map(|statement| statement.name.span).unwrap_or_default();
                let fault = Fault::at(at, no_map(from, to)).unnamed().when(Stage::Settling);
                Err(fault.help("tidegate does not recode texts yet: both charsets must be the same"))
            }
            _ => Ok(()),
        }
    }
}

impl Room for Conf {
    type State = ();
}

/// Gives an answer its charset (`ngx_http_charset_header_filter`). Nothing is ever recoded. The charset it has so far
/// is what an upstream said.
pub fn filter(exchange: &mut Exchange, response: &mut Response) {
    let conf = &exchange.location.settings.charset;
    let Some(media) = response.content_type.as_ref().filter(|media| !media.is_empty()) else { return };
    let meant = if response.charset.is_some() { conf.overrides } else { conf.types.contains(media) };
    if !meant {
        return;
    }
    let Some(to) = conf.charset.evaluate(exchange) else { return };
    if let Some(from) = response.charset.clone().or_else(|| conf.source.evaluate(exchange))
        && !same(&from, &to)
    {
        if !response.encoded {
            exchange.log(Level::Err, &String::from_utf8_lossy(&no_map(&from, &to)));
        }
        return;
    }
    // A charset of a redirect was once taken for that of the page behind it, so nginx gives it none.
    response.charset = Some(to).filter(|to| !to.is_empty() && !matches!(response.status, 301 | 302));
}

fn same(one: &[u8], other: &[u8]) -> bool {
    one.eq_ignore_ascii_case(other)
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
    use crate::http::testing::{fault, get};

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
    fn two_charsets_need_a_map() {
        let message = "no \"charset_map\" between the charsets \"koi8-r\" and \"utf-8\"";
        assert_eq!(fault("charset utf-8; source_charset koi8-r;"), message);
    }
}
