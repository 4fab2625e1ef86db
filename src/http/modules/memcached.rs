//! `memcached_pass`: the answer is a value that memcached has under `$memcached_key`.

use super::{Room, static_files};
use crate::{
    config::{
        Args, Contexts, Declarations, Directive, FromArgs, Handle, IF_IN_LOCATION, Kind, LEVELS, LOCATION, Module,
        Scope, values::{Choices, Mask},
    },
    http::{
        exchange::Exchange,
        phase::{Break, Phase},
        uri::{Escape, escape},
    },
    observe::error_log::Level,
    syntax::Fault,
    upstream::{
        failure::cases,
        pass::{self, Job, Passing, Request, Rules, Sends, cgi, settings},
        wire::{Frames, answer::Dialect, memcached::Asked},
    },
};
use bytes::Bytes;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Conf {
    pub pass: Option<Server>,
    pub passing: Passing,
    pub next_upstream: Mask<Next>,
    /// A value with this flag is gzipped; 0 is none.
    pub gzip_flag: usize,
}

impl Default for Conf {
    fn default() -> Self {
        // What other rooms have settings for is settled here.
        let passing = Passing {
            buffering: false,
            intercept_errors: true,
            force_ranges: true,
            pass_request_headers: false,
            pass_request_body: false,
            ..Passing::default()
        };
        Self { pass: None, passing, next_upstream: Mask::default(), gzip_flag: 0 }
    }
}

/// What memcached has no use for, and what is otherwise with it.
const EXCEPT: &[&str] = &[
    "_next_upstream",
    "_buffering",
    "_buffers",
    "_busy_buffers_size",
    "_max_temp_file_size",
    "_temp_file_write_size",
    "_temp_path",
    "_store",
    "_store_access",
    "_request_buffering",
    "_intercept_errors",
    "_hide_header",
    "_pass_header",
    "_ignore_headers",
    "_pass_request_headers",
    "_pass_request_body",
    "_socket_rcvbuf",
    "_socket_sndbuf",
    "_limit_rate",
    "_ignore_client_abort",
    "_force_ranges",
];

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("memcached_pass", LOCATION.or(IF_IN_LOCATION), |conf| &mut conf.pass),
        Directive::new("memcached_next_upstream", LEVELS, |conf| &mut conf.next_upstream),
        Directive::new("memcached_gzip_flag", LEVELS, |conf| &mut conf.gzip_flag),
    ];

    fn families(declarations: &mut Declarations<'_, Self>) {
        declarations.family("memcached", settings::DIRECTIVES, EXCEPT, |conf| &mut conf.passing);
    }

    fn settle(&mut self, _scope: &Scope<'_>, _level: Contexts) -> Result<(), Fault> {
        self.passing.next_upstream = Mask::of(self.next_upstream.bits());
        Ok(())
    }

    fn enter(this: &mut Arc<Self>, level: Contexts) {
        if this.pass.is_some() && !pass::is_part(level) {
            Arc::make_mut(this).pass = None;
        }
    }
}

impl Room for Conf {
    type State = ();
}

/// Answers with the value (`ngx_http_memcached_handler`).
pub async fn content(exchange: &mut Exchange) -> Phase {
    let conf = Arc::clone(&exchange.location.settings.memcached);
    let Some(server) = &conf.pass else { return Phase::Continue(()) };
    if !exchange.method.reads() {
        return Phase::Break(Break::Status(405));
    }
    let Some(group) = exchange.http.upstreams[server.group.0 as usize].clone() else {
        return Phase::Break(Break::Status(500));
    };
    let Some(value) = exchange.variable_bytes(server.key).filter(|value| !value.is_empty()) else {
        exchange.log(Level::Err, "the \"$memcached_key\" variable is not set");
        return Phase::Break(Break::Status(500));
    };
    let mut key = Vec::with_capacity(value.len());
    escape(&value, Escape::Memcached, &mut key);
    let asked = Asked { key: key.into(), gzip_flag: conf.gzip_flag };
    let request = Request {
        head: asked.request(),
        body: Sends::Nothing,
        frames: Frames::Plain,
        dialect: Dialect::Memcached(asked),
        head_only: false,
        keepalive: true,
    };
    let rules = Rules { not_found: true, ..Rules::new(&conf.passing, "memcached") };
    let connecting = conf.passing.connecting(exchange);
    let uri = Bytes::new();
    let job = Job { group, connecting, rules, request, scheme: "memcached://", uri };
    let mut phase = pass::pass(exchange, &job).await;
    if let Phase::Break(Break::Answer(response)) = &mut phase {
        response.content_type = Some(static_files::content_type(exchange));
    }
    phase
}

/// Where `memcached_pass` leads, and the variable that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    pub group: Handle,
    key: Handle,
}

impl FromArgs for Server {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let word = args.word(0);
        let group = cgi::server(args, &word.value)?;
        Ok(Self { group, key: args.scope.refer(Kind::Variable, b"memcached_key", word.span) })
    }
}

/// `memcached_next_upstream`: the cases in which another peer is asked, in memcached's terms.
pub struct Next;

impl Choices for Next {
    const CHOICES: &'static [(&'static str, u32)] =
        &[        ("error", cases::ERROR),
        ("timeout", cases::TIMEOUT),
        ("invalid_response", cases::INVALID_HEADER),
        ("not_found", cases::HTTP_404),
        ("off", cases::OFF),
    ];
    const DEFAULT: u32 = cases::ERROR | cases::TIMEOUT;
    const OFF: u32 = cases::OFF;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{ask, conf, fault, get};

    #[test]
    fn the_key_has_to_be_a_variable_somebody_sets() {
        assert_eq!(fault("memcached_pass 127.0.0.1:1;"), "unknown \"memcached_key\" variable");
        assert_eq!(fault("set $memcached_key $uri; memcached_pass 127.0.0.1:1;"), "");
        assert_eq!(fault("set $memcached_key a; memcached_pass localhost;"), "no port in upstream \"localhost\"");
        let twice = "set $memcached_key a; memcached_pass 127.0.0.1:1; memcached_pass 127.0.0.1:1;";
        assert_eq!(fault(twice), "\"memcached_pass\" directive is duplicate");
    }

    #[test]
    fn an_empty_key_is_nothing_to_ask_for() {
        let server = "location / { set $memcached_key ''; memcached_pass 127.0.0.1:1; }";
        assert_eq!(get(server, "/").status, 500);
    }

    #[test]
    fn only_reading_is_passed_on() {
        let server = "location / { set $memcached_key a; memcached_pass 127.0.0.1:1; }";
        assert_eq!(ask(server, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status, 405);
    }

    #[test]
    fn another_peer_is_asked_in_its_own_cases() {
        let next = |text: &str| conf(text).memcached.passing.next_upstream.bits();
        assert_eq!(next("memcached_gzip_flag 2;"), cases::ERROR | cases::TIMEOUT);
        assert_eq!(
            next("memcached_next_upstream not_found invalid_response;"),
            cases::HTTP_404 | cases::INVALID_HEADER
        );
        assert_eq!(next("memcached_next_upstream error off;"), 0);
        assert_eq!(fault("memcached_next_upstream http_404;"), "invalid value \"http_404\"");
    }
}
