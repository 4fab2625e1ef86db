//! `fastcgi_pass`: requests are passed to FastCGI applications.

use super::Room;
use crate::{
    config::{
        Args, Contexts, Declarations, Directive, FromArgs, IF_IN_LOCATION, LEVELS, LOCATION, List,
        Module, Scope,
    },
    http::{exchange::Exchange, modules::core::put, phase::Phase, regex::Regex, variables::Variable},
    observe::error_log::Level,
    syntax::Fault,
    upstream::{
        cache::{self, Caching},
        pass::{
            Passing, Request, Sends,
            cgi::{self, Param, Pass, Protocol},
            is_part, settings,
        },
        wire::{Frames, answer::Dialect, fastcgi},
    },
};
use bytes::Bytes;
use std::{cell::OnceCell, sync::Arc};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub pass: Option<Pass>,
    pub passing: Passing,
    pub caching: Caching,
    pub params: List<Param>,
    /// What `$fastcgi_script_name` has behind a slash at its end.
    pub index: Bytes,
    pub split_path_info: Option<Split>,
    pub catch_stderr: List<Bytes>,
    pub keep_conn: bool,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("fastcgi_pass", LOCATION.or(IF_IN_LOCATION), |conf| &mut conf.pass),
        Directive::new("fastcgi_param", LEVELS, |conf| &mut conf.params),
        Directive::new("fastcgi_index", LEVELS, |conf| &mut conf.index),
        Directive::new("fastcgi_split_path_info", LEVELS, |conf| &mut conf.split_path_info),
        Directive::new("fastcgi_catch_stderr", LEVELS, |conf| &mut conf.catch_stderr),
        Directive::new("fastcgi_keep_conn", LEVELS, |conf| &mut conf.keep_conn),
    ];

    fn families(declarations: &mut Declarations<'_, Self>) {
        declarations.family("fastcgi", settings::DIRECTIVES, &[], |conf| &mut conf.passing);
        declarations.family("fastcgi", cache::settings::DIRECTIVES, &[], |conf| &mut conf.caching);
    }

    fn settle(&mut self, scope: &Scope<'_>, level: Contexts) -> Result<(), Fault> {
        self.caching.settle("fastcgi", &mut self.passing, scope, level)?;
        self.passing.settle("fastcgi", scope, level)
    }

    fn enter(this: &mut Arc<Self>, level: Contexts) {
        if this.pass.is_some() && !is_part(level) {
            Arc::make_mut(this).pass = None;
        }
    }
}

impl Room for Conf {
    const VARIABLES: &'static [Variable] = &[
        Variable::new("fastcgi_script_name", |ex, out| {
            let (script, _) = parts(ex);
            put(out, &script);
            if script.ends_with(b"/") {
                put(out, &ex.location.settings.fastcgi.index);
            }
            true
        }),
        Variable::new("fastcgi_path_info", |ex, out| {
            let (_, info) = parts(ex);
            put(out, &info);
            true
        }),
    ];

    type State = State;
}

/// The path in its two parts, once somebody has asked for them.
#[derive(Debug, Default)]
pub struct State {
    parts: OnceCell<(Bytes, Bytes)>,
}

/// The script and what stands behind it (`ngx_http_fastcgi_split`).
fn parts(exchange: &Exchange) -> (Bytes, Bytes) {
    exchange.state.fastcgi.parts.get_or_init(|| split(exchange)).clone()
}

fn split(exchange: &Exchange) -> (Bytes, Bytes) {
    let whole = || (exchange.path.clone(), Bytes::new());
    let Some(Split(regex)) = &exchange.location.settings.fastcgi.split_path_info else { return whole() };
    match regex.captures(&exchange.path) {
        Ok(Some(captures)) => {
            let group = |n| captures.get(n).map(|range| exchange.path.slice(range)).unwrap_or_default();
            (group(1), group(2))
        }
        Ok(None) => whole(),
        Err(error) => {
            let (path, pattern) = (String::from_utf8_lossy(&exchange.path), String::from_utf8_lossy(regex.pattern()));
            exchange
                .log(Level::Alert, &format!("pcre2_match() failed: {} on \"{path}\" using \"{pattern}\"", error.code));
            (Bytes::new(), Bytes::new())
        }
    }
}

static PROTOCOL: Protocol = Protocol { directive: "fastcgi", scheme: "fastcgi://", dialect: Dialect::FastCgi(fastcgi::Reading { keep: false, catch: Vec::new() }), bare: |url| Ok(url), hidden: &["Status"] };

/// Passes the request to the location's server.
pub async fn content(exchange: &mut Exchange) -> Phase {
    let conf = Arc::clone(&exchange.location.settings.fastcgi);
    let Some(pass) = &conf.pass else { return Phase::Continue(()) };
    // By now the path may be another one.
    exchange.state.fastcgi = State::default();
    cgi::answer(exchange, &PROTOCOL, pass, (&conf.passing, &conf.caching), true, |exchange| request(exchange, &conf)).await
}

/// The packet for a request.
pub(super) fn request(exchange: &Exchange, conf: &Conf) -> Result<Request, String> {
    let pairs = cgi::pairs(exchange, &conf.params, &conf.passing);
    let mut head = Vec::with_capacity(1024);
    fastcgi::frame(conf.keep_conn, cgi::slices(&pairs), &mut head).map_err(|error| error.to_string())?;
    let reading = fastcgi::Reading { keep: conf.keep_conn, catch: conf.catch_stderr.0.clone() };
    Ok(Request {
        head: head.into(),
        body: Sends::by(&conf.passing),
        frames: Frames::FastCgi,
        dialect: Dialect::FastCgi(reading),
        head_only: false,
        keepalive: conf.keep_conn,
    })
}

/// `fastcgi_split_path_info`: an expression with two groups.
#[derive(Clone, Debug)]
pub struct Split(Arc<Regex>);

impl FromArgs for Split {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let regex = Regex::compile(&word.value, false).map_err(|error| Fault::at(word.span, error.to_string()))?;
        if regex.group_count() != 2 {
            let text = [b"pattern \"", &word.value[..], b"\" must have 2 captures"].concat();
            return Err(Fault::at(word.span, text));
        }
        Ok(Self(Arc::new(regex)))
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{fault, get};

    #[test]
    fn a_path_is_a_script_and_what_stands_behind_it() {
        let server = r#"
            fastcgi_index index.php;
            location / { return 200 "$fastcgi_script_name|$fastcgi_path_info"; }
            location /split/ {
                fastcgi_split_path_info ^(.+?\.php)(/.*)$;
                return 200 "$fastcgi_script_name|$fastcgi_path_info";
            }
            location /kept/ {
                set $script $fastcgi_script_name;
                rewrite ^/kept(/.*)$ $1;
            }
        "#;
        let cases = [
            ("/", "/index.php|"),
            ("/a/", "/a/index.php|"),
            ("/a.php/b", "/a.php/b|"),
            ("/split/a.php/b/c", "/split/a.php|/b/c"),
            ("/split/a.php", "/split/a.php|"),
            ("/split/a.php/b.php/c", "/split/a.php|/b.php/c"),
            ("/split/", "/split/index.php|"),
            // Once asked for, it stays.
            ("/kept/a", "/kept/a|"),
        ];
        for (target, expected) in cases {
            assert_eq!(get(server, target).text(), expected, "{target}");
        }
    }

    #[test]
    fn an_expression_needs_two_groups() {
        let text = "pattern \"^(.+)$\" must have 2 captures";
        assert_eq!(fault("fastcgi_split_path_info ^(.+)$;"), text);
        assert!(fault("fastcgi_split_path_info ^((.+)$;").starts_with("pcre2_compile() failed: missing"));
        assert_eq!(fault("fastcgi_index a; fastcgi_index b;"), "\"fastcgi_index\" directive is duplicate");
    }

    #[test]
    fn its_buffers_go_together() {
        assert_eq!(fault("fastcgi_buffers 1 4k;"), "there must be at least 2 \"fastcgi_buffers\"");
        let text =
            "\"fastcgi_busy_buffers_size\" must be less than the size of all \"fastcgi_buffers\" minus one buffer";
        assert_eq!(fault("fastcgi_buffer_size 32k;"), text);
    }
}
