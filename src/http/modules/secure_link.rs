//! `secure_link`: whether a link was made by who knows a secret, and has not run out.

use super::{Room, core::put};
use crate::{
    config::{Args, Contexts, Directive, FromArgs, LEVELS, Module, Scope},
    http::{exchange::Exchange, template::Template, variables::Variable},
    syntax::Fault,
};
use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use md5::{Digest, Md5};
use std::{cell::OnceCell, sync::Arc};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    link: Own<Template>,
    md5: Own<Template>,
    secret: Own<Bytes>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("secure_link", LEVELS, |conf| &mut conf.link),
        Directive::new("secure_link_md5", LEVELS, |conf| &mut conf.md5),
        Directive::new("secure_link_secret", LEVELS, |conf| &mut conf.secret),
    ];

    fn enter(this: &mut Arc<Self>, _level: Contexts) {
        if this.link.own || this.md5.own || this.secret.own {
            let this = Arc::make_mut(this);
            (this.link.own, this.md5.own, this.secret.own) = (false, false, false);
        }
    }

    /// One way of a level hides the other of those above.
    fn settle(&mut self, scope: &Scope<'_>, _level: Contexts) -> Result<(), Fault> {
        let newer = self.link.own || self.md5.own;
        if self.secret.own && newer {
            let text = "\"secure_link_secret\" cannot be mixed with \"secure_link\" and \"secure_link_md5\"";
            return Err(scope.settling(text));
        }
        if self.secret.own {
            (self.link.value, self.md5.value) = (None, None);
        } else if newer {
            self.secret.value = None;
        }
        Ok(())
    }
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] = &[
        Variable::new("secure_link", |ex, out| secure_link(ex, out).is_some()),
        Variable::new("secure_link_expires", |ex, out| {
            ex.state.secure_link.get().is_some_and(|expires| put(out, expires))
        }),
    ];
    /// `$secure_link_expires`, once `$secure_link` was asked for.
    type State = OnceCell<Bytes>;
}

/// A setting, and whether this level gave it.
#[derive(Clone, Debug)]
struct Own<T> {
    value: Option<T>,
    own: bool,
}

impl<T> Default for Own<T> {
    fn default() -> Self {
        Self { value: None, own: false }
    }
}

impl<T: FromArgs> FromArgs for Own<T> {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        T::from_args(args).map(|value| Self { value: Some(value), own: true })
    }
}

/// `$secure_link`: `1`, `0` for a link that has run out, or with a secret the rest of the link
/// (`ngx_http_secure_link_variable`).
fn secure_link(exchange: &Exchange, out: &mut Vec<u8>) -> Option<()> {
    let conf = &exchange.location.settings.secure_link;
    if let Some(secret) = &conf.secret.value {
        out.extend_from_slice(by_secret(&exchange.head.target, secret)?);
        return Some(());
    }
    let (link, text) = (conf.link.value.as_ref()?, conf.md5.value.as_ref()?);
    let link = link.evaluate(exchange);
    let (hash, expires) = match memchr::memchr(b',', &link) {
        Some(at) => (&link[..at], Some(&link[at + 1..])),
        None => (&link[..], None),
    };
    let mut over = false;
    if let Some(text) = expires {
        let time = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
        let time: u64 = time.parse().ok().filter(|time| *time > 0 && i64::try_from(*time).is_ok())?;
        over = time < exchange.connection.worker.clock.now().as_secs();
        let _ = exchange.state.secure_link.set(Bytes::copy_from_slice(text));
    }
    if hash.len() > 24 {
        return None;
    }
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&URL_SAFE, config.with_decode_allow_trailing_bits(true));
    let hash: [u8; 16] = engine.decode(hash).ok()?.try_into().ok()?;
    if !same(hash, Md5::digest(text.evaluate(exchange)).into()) {
        return None;
    }
    out.push(if over { b'0' } else { b'1' });
    Some(())
}

/// The rest of `/prefix/hash/rest`, where the hash is that of the rest and the secret.
fn by_secret<'t>(target: &'t [u8], secret: &[u8]) -> Option<&'t [u8]> {
    let mut parts = target.get(1..)?.splitn(3, |byte| *byte == b'/').skip(1);
    let (hash, rest) = (parts.next()?, parts.next()?);
    if hash.len() != 32 || rest.is_empty() {
        return None;
    }
    let mut wanted = [0; 16];
    for (byte, digits) in wanted.iter_mut().zip(hash.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(digits[0])? << 4 | digit(digits[1])?) as u8;
    }
    same(wanted, Md5::digest([rest, secret].concat()).into()).then_some(rest)
}

/// Compares in a time that says nothing of where the hashes differ.
fn same(one: [u8; 16], other: [u8; 16]) -> bool {
    one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{fault, get};

    #[test]
    fn a_link_counts_while_its_time_is_not_over() {
        let server = "location / { secure_link $arg_h,$arg_e; secure_link_md5 \"$arg_e x\"; return 200 '[$secure_link|$secure_link_expires]'; }";
        let hash = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Md5::digest(text));
        for (h, e, said) in [
            (hash("4000000000 x"), "4000000000", "[1|4000000000]"),
            (hash("1 x"), "1", "[0|1]"),
            (hash("2 x"), "1", "[|1]"),
            (hash("0 x"), "0", "[|]"),
        ] {
            assert_eq!(get(server, &format!("/?h={h}&e={e}")).text(), said);
        }
    }

    #[test]
    fn a_secret_shows_the_rest_of_the_link() {
        let server = "secure_link $a; secure_link_md5 x; set $a x; location / { secure_link_secret word; return 200 '$secure_link'; }";
        let hash: String = Md5::digest("linkword").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(get(server, &format!("/p/{hash}/link")).text(), "link");
        assert_eq!(get(server, &format!("/p/{hash}/other")).text(), "");
        assert_eq!(get(server, "/p/x/link").text(), "");
    }

    #[test]
    fn the_two_ways_are_not_mixed() {
        let text = "\"secure_link_secret\" cannot be mixed with \"secure_link\" and \"secure_link_md5\"";
        assert_eq!(fault("secure_link a; secure_link_secret b;"), text);
    }
}
