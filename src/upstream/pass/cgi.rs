//! What the rooms of the CGI-like protocols share: where requests go, and the parameters they are made of
//! (`uwsgi_param`, `fastcgi_param`, `scgi_param`).

use super::{Job, Passing, Request, Rules, cached};
use crate::{
    config::{
        Args, FromArgs, Handle, List,
        values::{Url, Wants, parse_known_url, parse_url},
    },
    http::{
        exchange::Exchange,
        modules::{core::request_port, upstream},
        phase::{Break, Phase},
        template::Template,
    },
    observe::error_log::Level,
    syntax::Fault,
    upstream::{cache::Caching, wire::answer::Dialect},
};
use bytes::Bytes;
use std::{borrow::Cow, ops::RangeInclusive};

/// What one of the rooms is about.
pub struct Protocol {
    /// What its directives begin with.
    pub directive: &'static str,
    /// For the log.
    pub scheme: &'static str,
    /// In what answers come.
    pub dialect: Dialect,
    /// What an URL may begin with, and what it may not begin with, taken off.
    pub bare: fn(&[u8]) -> Result<&[u8], &'static str>,
    /// Fields that are not passed on unless asked for, in any case.
    pub hidden: &'static [&'static str],
}

/// Passes a request on. `streams` if a body may be passed on as it comes; `request` makes the packet, or says at `alert`
/// why it cannot.
pub async fn answer(
    exchange: &mut Exchange,
    protocol: &Protocol,
    pass: &Pass,
    (passing, caching): (&Passing, &Caching),
    streams: bool,
    request: impl FnOnce(&Exchange) -> Result<Request, String>,
) -> Phase {
    let url = match pass {
        Pass::Group(_) => None,
        Pass::Variable(template) => match evaluated(&template.evaluate(exchange), protocol) {
            Ok(url) => Some(url),
            Err(text) => return refuse(exchange, 500, &text),
        },
    };
    super::prepare(exchange, passing, streams).await?;
    let rules = Rules { hidden: protocol.hidden, caching: Some(caching), ..Rules::new(passing, protocol.directive) };
    let key =
        |exchange: &Exchange| caching.key.as_ref().map_or_else(Vec::new, |key| key.evaluate(exchange).into_owned());
    cached::look_up(exchange, &rules, &protocol.dialect, key).await?;
    let group = match (pass, url) {
        // On the heap: looking names up is large and rare, and every request carries what may be awaited.
        (_, Some(url)) => Box::pin(upstream::reach(exchange, url)).await,
        (Pass::Group(handle), _) => exchange.http.upstreams[handle.0 as usize].clone().ok_or((500, String::new())),
        (Pass::Variable(_), None) => Err((500, String::new())),
    };
    let group = match group {
        Ok(group) => group,
        Err((status, text)) => return refuse(exchange, status, &text),
    };
    let request = match request(exchange) {
        Ok(request) => request,
        Err(text) => {
            exchange.log(Level::Alert, &text);
            return Phase::Break(Break::Status(500));
        }
    };
    let connecting = passing.connecting(exchange);
    let job = Job { group, connecting, rules, request, scheme: protocol.scheme, uri: Bytes::new() };
    super::pass(exchange, &job).await
}

fn refuse(exchange: &Exchange, status: u16, text: &str) -> Phase {
    exchange.log(Level::Err, text);
    Phase::Break(Break::Status(status))
}

/// `ngx_http_fastcgi_eval` and its twins: the address was made of variables.
fn evaluated(url: &[u8], protocol: &Protocol) -> Result<Url, String> {
    let rest = (protocol.bare)(url)?;
    parse_known_url(rest, Wants::default())
        .map_err(|error| format!("{error} in upstream \"{}\"", String::from_utf8_lossy(rest)))
}

/// Where `_pass` leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pass {
    Group(Handle),
    Variable(Template),
}

impl Pass {
    /// Reads the argument, whose text without a scheme is `text`, where no variable is in it.
    ///
    /// # Errors
    /// What nginx says about addresses.
    pub fn read(args: &Args<'_>, text: Result<&[u8], &'static str>) -> Result<Self, Fault> {
        let word = args.word(0);
        if memchr::memchr(b'$', &word.value).is_some() {
            return Ok(Self::Variable(Template::compile(word, args.scope)?));
        }
        let text = text.map_err(|text| Fault::at(word.span, text))?;
        server(args, text).map(Self::Group)
    }
}

impl FromArgs for Pass {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        Self::read(args, Ok(&args.word(0).value))
    }
}

/// The group that an address without variables leads to.
///
/// # Errors
/// What nginx says about addresses.
pub fn server(args: &Args<'_>, text: &[u8]) -> Result<Handle, Fault> {
    let word = args.word(0);
    let url = parse_url(text, Wants::default(), args.scope).map_err(|error| {
        let text = [error.as_bytes(), b" in upstream \"", text, b"\""].concat();
        Fault::at(word.span, text)
    })?;
    Ok(upstream::refer(&url, word, 0, args.scope))
}

/// One `_param`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    pub name: Bytes,
    pub value: Template,
    pub if_not_empty: bool,
}

impl FromArgs for Param {
    const TAKES: RangeInclusive<usize> = 2..=3;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let if_not_empty = match args.words().get(2) {
            Some(word) if word.value == b"if_not_empty" => true,
            Some(word) => return Err(args.parameter(word)),
            None => false,
        };
        let name = Bytes::copy_from_slice(&args.word(0).value);
        Ok(Self { name, value: Template::compile(args.word(1), args.scope)?, if_not_empty })
    }
}

impl Param {
    /// The field of the client that it stands in for: what follows `HTTP_`.
    fn field(&self) -> Option<&[u8]> {
        self.name.strip_prefix(b"HTTP_").filter(|field| !field.is_empty())
    }
}

/// A parameter with its value.
pub type Pair<'e> = (Cow<'e, [u8]>, Cow<'e, [u8]>);

/// The parameters of one request: those that are set, then every field of the client that none of them stands in for
/// (`ngx_http_fastcgi_create_request` and its twins).
pub fn pairs<'e>(exchange: &'e Exchange, params: &'e List<Param>, passing: &Passing) -> Vec<Pair<'e>> {
    let mut pairs: Vec<Pair<'e>> = Vec::with_capacity(params.len() + 16);
    for param in params.iter() {
        // Written empty, it only keeps the client's field of that name away.
        if param.field().is_some() && param.value.as_literal().is_some_and(<[u8]>::is_empty) {
            continue;
        }
        let value = param.value.evaluate(exchange);
        if !(param.if_not_empty && value.is_empty()) {
            pairs.push((Cow::Borrowed(&param.name), value));
        }
    }
    let own_host = params.iter().any(|param| param.name.eq_ignore_ascii_case(b"HTTP_HOST"));
    if !own_host {
        let mut host = exchange.host.to_vec();
        let port = request_port(exchange);
        if !port.is_empty() {
            host.push(b':');
            host.extend_from_slice(port);
        }
        if !host.is_empty() {
            pairs.push((Cow::Borrowed(b"HTTP_HOST"), Cow::Owned(host)));
        }
    }
    let given: Vec<&[u8]> = params.iter().filter_map(Param::field).collect();
    // What is to be kept is asked for whole, and as if nobody had it.
    let kept = exchange.state.upstream.cache.keeps();
    if kept {
        let (since, tag) = cached::questions(exchange);
        for (name, value) in [(&b"HTTP_IF_MODIFIED_SINCE"[..], since), (b"HTTP_IF_NONE_MATCH", tag)] {
            if !value.is_empty() && !given.iter().any(|given| given.eq_ignore_ascii_case(&name[5..])) {
                pairs.push((Cow::Borrowed(name), Cow::Owned(value.to_vec())));
            }
        }
    }
    if !passing.pass_request_headers {
        return pairs;
    }
    let fields = &exchange.head.fields;
    for (at, field) in fields.iter().enumerate() {
        let same = |name: &[u8]| name.eq_ignore_ascii_case(&field.name);
        let earlier = fields.iter().take(at).any(|other| same(&other.name));
        let own = kept && cached::OWN.iter().any(|name| same(name.as_bytes()));
        if earlier || own || !own_host && same(b"host") || given.iter().any(|name| stands_for(name, &field.name)) {
            continue;
        }
        let separator: &[u8] = if same(b"cookie") { b"; " } else { b", " };
        let mut values = fields.get_all(&field.name);
        let value = match (values.next(), values.next()) {
            (_, None) => Cow::Borrowed(&field.value[..]),
            _ => Cow::Owned(fields.get_all(&field.name).collect::<Vec<_>>().join(separator)),
        };
        pairs.push((Cow::Owned(header_param(&field.name)), value));
    }
    pairs
}

/// Whether a parameter `HTTP_NAME` is what a field would be passed as.
fn stands_for(name: &[u8], field: &[u8]) -> bool {
    let plain = |byte: u8| if byte == b'-' { b'_' } else { byte.to_ascii_lowercase() };
    name.len() == field.len() && name.iter().zip(field).all(|(a, b)| a.to_ascii_lowercase() == plain(*b))
}

/// The parameter a client's header is passed as: `X-Real-IP` becomes `HTTP_X_REAL_IP`.
fn header_param(header: &[u8]) -> Vec<u8> {
    let upper = header.iter().map(|byte| if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() });
    b"HTTP_".iter().copied().chain(upper).collect()
}

/// The same pairs as slices, for what writes packets.
pub fn slices<'p>(pairs: &'p [Pair<'_>]) -> impl Iterator<Item = (&'p [u8], &'p [u8])> {
    pairs.iter().map(|(name, value)| (&name[..], &value[..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_becomes_a_parameter() {
        for (field, param) in [("Host", "HTTP_HOST"), ("x-Real-ip", "HTTP_X_REAL_IP"), ("a.b_c1", "HTTP_A.B_C1")] {
            assert_eq!(header_param(field.as_bytes()), param.as_bytes());
        }
    }

    #[test]
    fn a_parameter_stands_in_for_a_field_in_any_case() {
        for name in ["X_A", "x_a", "X_a"] {
            for field in ["X-A", "x-a", "X_A", "x_A"] {
                assert!(stands_for(name.as_bytes(), field.as_bytes()), "{name} {field}");
            }
        }
        assert!(!stands_for(b"X-A", b"X-A"));
        assert!(!stands_for(b"X_A", b"X-AB"));
    }
}
