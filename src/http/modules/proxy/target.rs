//! `proxy_pass`'s argument: where requests go, fixed or made of variables.

use crate::{
    config::{
        Args, FromArgs, Handle,
        values::{Url, Wants, parse_url},
    },
    http::{
        exchange::Exchange,
        location_tree::Pattern,
        modules::upstream,
        template::Template,
    },
    syntax::{Fault, Span, Word},
    upstream::Group,
};
use bytes::Bytes;
use std::sync::Arc;

/// The argument of `proxy_pass`.
#[derive(Clone, Debug)]
pub struct Pass {
    /// As written: for `proxy_redirect default`.
    pub url: Bytes,
    /// Where it is written.
    pub span: Span,
    /// What of the path the URI part replaces: the location's name; empty where there is no URI part.
    pub location: Bytes,
    /// The URI part; empty where the client's own URI is passed on.
    pub uri: Bytes,
    to: To,
}

#[derive(Clone, Debug)]
enum To {
    Group { handle: Handle, names: Names },
    Variable(Template),
}

/// Where one request goes.
pub struct Target {
    pub names: Names,
    /// The URI that variables gave; used as it is.
    pub uri: Option<Bytes>,
    to: Reach,
}

/// What an upstream is called.
#[derive(Clone, Debug)]
pub struct Names {
    /// `$proxy_host`.
    pub host: Bytes,
    /// `$proxy_port`.
    pub port: Bytes,
    /// What the key of a cache begins with where none is written.
    pub key: Bytes,
}

enum Reach {
    Group(Arc<Group>),
    /// The group is known once the name is.
    Url(Url),
}

impl Target {
    /// Who is asked. This may look a name up.
    ///
    /// # Errors
    /// The name cannot be looked up.
    pub async fn group(self, exchange: &Exchange) -> Result<Arc<Group>, Refusal> {
        match self.to {
            Reach::Group(group) => Ok(group),
            // On the heap: looking names up is large and rare, and every request carries what may be awaited.
            Reach::Url(url) => Box::pin(upstream::reach(exchange, url))
                .await
                .map_err(|(status, text)| Refusal { status, text }),
        }
    }
}

/// The request cannot be passed.
pub struct Refusal {
    pub status: u16,
    pub text: String,
}

impl FromArgs for Pass {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        if memchr::memchr(b'$', &word.value).is_some() {
            let to = To::Variable(Template::compile(word, args.scope)?);
            let url = Bytes::copy_from_slice(&word.value);
            return Ok(Self { url, span: word.span, location: location(args)?.unwrap_or_default(), uri: Bytes::new(), to });
        }
        let rest = without_scheme(&word.value).map_err(|text| {
            let fault = Fault::at(word.span, text);
            match text {
                INVALID_PREFIX => fault.help("it must begin with `http://`"),
                _ => fault,
            }
        })?;
        let wants = Wants { uri_part: true, default_port: 80, ..Wants::default() };
        let url = parse_url(rest, wants, args.scope).map_err(|error| {
            let text = [error.as_bytes(), b" in upstream \"", rest, b"\""].concat();
            Fault::at(word.span, text)
        })?;
        let uri = leading_slash(&url.uri);
        let location = location(args)?;
        if location.is_none() && !uri.is_empty() {
            return Err(Fault::at(
                word.span,
                "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside named location, \
                 or inside \"if\" statement, or inside \"limit_except\" block",
            ));
        }
        let handle = upstream::refer(&url, word, 80, args.scope);
        let to = To::Group { handle, names: Names::of(&url) };
        let location = location.unwrap_or_default();
        Ok(Self { url: Bytes::copy_from_slice(&word.value), span: word.span, location, uri, to })
    }
}

const INVALID_PREFIX: &str = "invalid URL prefix";

fn without_scheme(url: &[u8]) -> Result<&[u8], &'static str> {
    let starts = |scheme: &[u8]| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    if starts(b"http://") {
        Ok(&url[7..])
    } else if starts(b"https://") {
        Err("https protocol requires SSL support")
    } else {
        Err(INVALID_PREFIX)
    }
}

/// A URI part that is only arguments gets the root's path.
fn leading_slash(uri: &[u8]) -> Bytes {
    if uri.first() == Some(&b'?') { [b"/", uri].concat().into() } else { Bytes::copy_from_slice(uri) }
}

/// The name of the location the directive stands in; `None` where there is no prefix to replace.
fn location(args: &Args<'_>) -> Result<Option<Bytes>, Fault> {
    let Some(block) = args.scope.enclosing() else { return Ok(None) };
    if block.name.value != b"location" {
        return Ok(None);
    }
    let words: Vec<_> = block.args.iter().map(|word: &Word| &word.value[..]).collect();
    match Pattern::parse(&words) {
        Ok(Pattern::Exact(name) | Pattern::Prefix(name) | Pattern::PrefixNoRegex(name)) => Ok(Some(name.into())),
        _ => Ok(None),
    }
}

impl Names {
    /// `ngx_http_proxy_set_vars`
    fn of(url: &Url) -> Self {
        if url.unix {
            let key = [b"http://unix:", &url.host[..], b":"].concat().into();
            return Self { host: Bytes::from_static(b"localhost"), port: Bytes::new(), key };
        }
        let port = url.port.to_string();
        let host: Bytes = match url.has_port && url.port != 80 {
            true => [&url.host[..], b":", port.as_bytes()].concat().into(),
            false => Bytes::copy_from_slice(&url.host),
        };
        Self { key: [b"http://", &host[..]].concat().into(), host, port: port.into() }
    }
}

impl Pass {
    /// The group it leads to, where no variable says that.
    pub fn group(&self) -> Option<Handle> {
        match &self.to {
            To::Group { handle, .. } => Some(*handle),
            To::Variable(_) => None,
        }
    }

    /// Where a request goes.
    ///
    /// # Errors
    /// Variables that give no URL.
    pub fn target(&self, exchange: &Exchange) -> Result<Target, Refusal> {
        match &self.to {
            To::Group { handle, names } => match &exchange.http.upstreams[handle.0 as usize] {
                Some(group) => Ok(Target { names: names.clone(), uri: None, to: Reach::Group(Arc::clone(group)) }),
                None => Err(Refusal { status: 500, text: "the upstream is not defined".to_owned() }),
            },
            To::Variable(template) => evaluated(&template.evaluate(exchange)),
        }
    }
}

/// `ngx_http_proxy_eval`: the URL was made of variables.
fn evaluated(url: &[u8]) -> Result<Target, Refusal> {
    let printable = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    let refuse = |text: String| Refusal { status: 500, text };
    let rest = without_scheme(url).map_err(|_| refuse(format!("invalid URL prefix in \"{}\"", printable(url))))?;
    let wants = Wants { uri_part: true, default_port: 80, ..Wants::default() };
    let parsed = crate::config::values::parse_known_url(rest, wants);
    let url = parsed.map_err(|error| refuse(format!("{error} in upstream \"{}\"", printable(rest))))?;
    let uri = (!url.uri.is_empty()).then(|| leading_slash(&url.uri));
    Ok(Target { names: Names::of(&url), uri, to: Reach::Url(url) })
}

