//! `tunnel_pass`: `CONNECT` is answered by a connection to another server, and from then on bytes go both ways.

use super::{Room, upstream};
use crate::{
    config::{
        Args, Contexts, Declarations, Directive, FromArgs, IF_IN_LOCATION, LEVELS, LOCATION, Module, SERVER, Scope,
        values::{Wants, parse_known_url}, values::{Choices, Mask},
    },
    http::{
        exchange::{Exchange, Method},
        phase::{Phase, status},
        template::Template,
    },
    observe::error_log::Level,
    syntax::{Fault, Word},
    upstream::{
        failure::cases,
        pass::{self, Job, Passing, Request, Rules, Sends, cgi, settings},
        wire::{Frames, answer::Dialect},
    },
};
use bytes::Bytes;
use std::{ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub pass: Option<Pass>,
    pub passing: Passing,
    pub next_upstream: Mask<Next>,
}

/// What a tunnel, which knows no requests and no answers, has no use for, and what is otherwise with it.
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
    "_limit_rate",
    "_ignore_client_abort",
    "_force_ranges",
];

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("tunnel_pass", SERVER.or(LOCATION).or(IF_IN_LOCATION), |conf| &mut conf.pass),
        Directive::new("tunnel_next_upstream", LEVELS, |conf| &mut conf.next_upstream),
    ];

    fn families(declarations: &mut Declarations<'_, Self>) {
        declarations.family("tunnel", settings::DIRECTIVES, EXCEPT, |conf| &mut conf.passing);
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

/// Connects, says so, and leaves the connection to the bytes (`ngx_http_tunnel_handler`).
pub async fn content(exchange: &mut Exchange) -> Phase {
    let conf = Arc::clone(&exchange.location.settings.tunnel);
    if exchange.method != Method::Connect {
        return status(405);
    }
    let group = match &conf.pass {
        None => return Phase::Continue(()),
        Some(Pass(cgi::Pass::Group(handle))) => {
            exchange.http.upstreams[handle.0 as usize].clone().ok_or((500, String::new()))
        }
        Some(Pass(cgi::Pass::Variable(template))) => {
            let url = template.evaluate_bytes(exchange);
            match parse_known_url(&url, Wants::default()) {
                // On the heap: looking names up is large and rare, and every request carries what may be awaited.
                Ok(url) => Box::pin(upstream::reach(exchange, url)).await,
                Err(error) => {
                    let url = String::from_utf8_lossy(&url);
                    exchange.log(Level::Info, &format!("{error} in upstream \"{url}\""));
                    return status(500);
                }
            }
        }
    };
    let group = match group {
        Ok(group) => group,
        Err((code, text)) => {
            exchange.log(Level::Err, &text);
            return status(code);
        }
    };
    let request = Request {
        head: Bytes::new(),
        body: Sends::Nothing,
        frames: Frames::Plain,
        dialect: Dialect::Http,
        head_only: false,
        keepalive: false,
    };
    let connecting = conf.passing.connecting(exchange);
    let rules = Rules { tunnel: true, ..Rules::new(&conf.passing, "tunnel") };
    let job = Job { group, connecting, rules, request, scheme: "", uri: Bytes::new() };
    pass::pass(exchange, &job).await
}

/// Where `tunnel_pass` leads: without an argument to where the client asks to be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass(cgi::Pass);

impl FromArgs for Pass {
    const TAKES: RangeInclusive<usize> = 0..=1;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        if !args.words().is_empty() {
            return cgi::Pass::from_args(args).map(Self);
        }
        let asked = Word { value: b"$host:$request_port".to_vec(), span: args.statement.name.span };
        Template::compile(&asked, args.scope).map(|asked| Self(cgi::Pass::Variable(asked)))
    }
}

/// `tunnel_next_upstream`: the cases in which another peer is asked: there are no answers that could be wrong.
pub struct Next;

impl Choices for Next {
    const CHOICES: &'static [(&'static str, u32)] =
        &[("error", cases::ERROR), ("timeout", cases::TIMEOUT), ("off", cases::OFF)];
    const DEFAULT: u32 = cases::ERROR | cases::TIMEOUT;
    const OFF: u32 = cases::OFF;
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask, conf, fault, http_fault};

    #[test]
    fn an_address_is_needed_with_its_port_unless_the_client_names_it() {
        for (pass, expected) in [
            ("", ""),
            ("127.0.0.1:80", ""),
            ("$arg_to", ""),
            ("localhost", "no port in upstream \"localhost\""),
            ("a b", "invalid number of arguments in \"tunnel_pass\" directive"),
            ("127.0.0.1:80; tunnel_pass", "\"tunnel_pass\" directive is duplicate"),
        ] {
            assert_eq!(fault(&format!("tunnel_pass {pass};")), expected, "{pass}");
        }
        assert_eq!(http_fault("server { tunnel_pass; if ($uri) { return 200; } }"), "");
        assert_eq!(http_fault("tunnel_pass;"), "\"tunnel_pass\" directive is not allowed here");
    }

    #[test]
    fn only_errors_and_timeouts_can_lead_to_another_peer() {
        assert_eq!(fault("tunnel_next_upstream http_500;"), "invalid value \"http_500\"");
        let next = |text: &str| conf(&format!("tunnel_next_upstream {text};")).tunnel.passing.next_upstream.bits();
        assert_eq!([next("off"), next("error timeout"), next("timeout")], [0, 3, 2]);
    }

    #[test]
    fn other_methods_are_not_answered_and_a_location_inside_is_no_tunnel() {
        let status = |server: &str| ask(server, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").status;
        assert_eq!(status("tunnel_pass;"), 405);
        assert_eq!(status("tunnel_pass; location / { return 204; }"), 204);
        assert_eq!(status("tunnel_pass; location / { if ($uri) { tunnel_pass 127.0.0.1:1; } }"), 405);
    }
}
