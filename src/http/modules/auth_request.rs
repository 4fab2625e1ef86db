//! `auth_request`: another location decides whether a client may enter.

use super::Room;
use crate::{
    config::{Args, Directive, FromArgs, Handle, LEVELS, List, Module},
    http::{
        body::RequestBody, exchange::Exchange, subrequest::subrequest, template::Template, variables::define_given,
    },
    observe::error_log::Level,
    syntax::Fault,
};
use bytes::Bytes;
use std::{ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub uri: Uri,
    pub set: List<Set>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("auth_request", LEVELS, |conf| &mut conf.uri),
        Directive::new("auth_request_set", LEVELS, |conf| &mut conf.set),
    ];
}

impl Room for Conf {
    type State = ();
}

/// What the other location says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// With this status.
    Denied(u16),
}

/// Whether another location is to be asked.
pub fn asks(exchange: &Exchange) -> bool {
    !exchange.location.settings.auth_request.uri.0.is_empty()
}

/// The access phase: asks it (`ngx_http_auth_request_handler`).
pub async fn check(exchange: &mut Exchange) -> Verdict {
    let conf = Arc::clone(&exchange.location.settings.auth_request);
    let asked = subrequest(exchange, &conf.uri.0, &Bytes::new(), RequestBody::default()).await;
    let Some(answered) = asked else { return Verdict::Denied(500) };
    for set in conf.set.iter() {
        exchange.set_variable(set.variable, set.value.evaluate_bytes(&answered.exchange));
    }
    match answered.response.status {
        200..=299 => Verdict::Allowed,
        403 => Verdict::Denied(403),
        401 => {
            let challenges = || answered.response.fields.iter().chain(&answered.exchange.upstream_fields);
            let is_challenge = |name: &[u8]| name.eq_ignore_ascii_case(b"www-authenticate");
            // An upstream's are among the answer's own unless they were hidden.
            let own = answered.response.fields.contains("www-authenticate");
            let count = answered.response.fields.len();
            for (at, field) in challenges().enumerate() {
                if is_challenge(&field.name) && (at < count) == own {
                    exchange.state.error_page.kept.push(field.name.clone(), field.value.clone());
                }
            }
            Verdict::Denied(401)
        }
        status => {
            exchange.log(Level::Err, &format!("auth request unexpected status: {status}"));
            Verdict::Denied(500)
        }
    }
}

/// The path that is asked; empty if none is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uri(pub Bytes);

impl FromArgs for Uri {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = &args.word(0).value;
        Ok(Self(if word == b"off" { Bytes::new() } else { Bytes::copy_from_slice(word) }))
    }
}

/// `auth_request_set`: a variable, and its value as the subrequest sees it.
#[derive(Clone, Debug)]
pub struct Set {
    variable: Handle,
    value: Template,
}

impl FromArgs for Set {
    const TAKES: RangeInclusive<usize> = 2..=2;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let Some(name) = word.value.strip_prefix(b"$") else {
            return Err(Fault::at(word.span, [b"invalid variable name \"", &word.value[..], b"\""].concat()));
        };
        let variable = define_given(args.scope, name, word.span)?;
        Ok(Self { variable, value: Template::compile(args.word(1), args.scope)? })
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{fault, get};

    #[test]
    fn the_status_of_the_other_location_decides() {
        for (auth, status) in [
            ("return 200;", 200),
            ("return 204;", 200),
            ("return 403;", 403),
            ("return 401;", 401),
            ("return 404;", 500),
            ("return 302 /x;", 500),
            ("internal; return 200;", 200),
            ("deny all; return 204;", 200),
            ("auth_request /auth; return 204;", 200),
            ("return 500; error_page 500 =204 /fine;", 200),
        ] {
            let server = format!(
                "location / {{ auth_request /auth; error_page 404 = @in; root /nowhere; }} location @in {{ return 200 in; }}
                 location /fine {{ return 200; }} location /auth {{ {auth} }}"
            );
            assert_eq!(get(&server, "/x").status, status, "{auth}");
        }
    }

    #[test]
    fn either_check_may_do_where_any_does() {
        for (satisfy, rule, auth, status) in [
            ("any", "deny all;", 204, 404),
            ("any", "deny all;", 403, 403),
            ("any", "allow all;", 403, 404),
            ("all", "deny all;", 204, 403),
            ("all", "allow all;", 403, 403),
            ("all", "allow all;", 204, 404),
        ] {
            let server = format!(
                "location / {{ satisfy {satisfy}; {rule} auth_request /auth; root /nowhere; }}
                 location /auth {{ return {auth}; }}"
            );
            assert_eq!(get(&server, "/x").status, status, "{satisfy} {rule} {auth}");
        }
    }

    #[test]
    fn a_variable_is_set_to_what_the_subrequest_sees() {
        let server = "location / { auth_request /auth; auth_request_set $who $uri:$status:$mine; try_files /none @in; }
                      location @in { return 200 \"$who $mine $unset\"; }
                      location /auth { set $mine 1; auth_request_set $unset x; return 204; }";
        assert_eq!(get(server, "/x").text(), "/auth:204:1 1 ");
    }

    #[test]
    fn a_level_may_ask_nobody() {
        let server = "auth_request /auth; location /auth { return 403; }
                      location / { auth_request off; root /nowhere; } location /y { root /nowhere; }";
        assert_eq!(get(server, "/x").status, 404);
        assert_eq!(get(server, "/y").status, 403);
        assert_eq!(fault("auth_request_set x y;"), "invalid variable name \"x\"");
    }
}
