//! `error_page`: what is shown in the place of an error, and under which status.

use super::Room;
use crate::{
    config::{Args, Directive, FromArgs, LEVELS, LEVELS_IF, List, Module, values::parse_number},
    http::{
        exchange::{Exchange, Method},
        heads::Fields,
        phase::Redirect,
        response::Response,
        special, status,
        template::Template,
    },
    syntax::Fault,
};
use bytes::Bytes;
use std::{ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub pages: List<ErrorPage>,
    pub recursive_error_pages: bool,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("error_page", LEVELS_IF, |conf| &mut conf.pages),
        Directive::new("recursive_error_pages", LEVELS, |conf| &mut conf.recursive_error_pages),
    ];
}

impl Conf {
    /// Whether a page is named for an upstream's status, so that it may be taken for an error
    /// (`ngx_http_upstream_intercept_errors`).
    pub fn covers(&self, status: u16) -> bool {
        self.pages.iter().any(|page| page.statuses.contains(&status))
    }
}

impl Room for Conf {
    type State = State;
}

/// What is remembered about a request's errors.
#[derive(Debug, Default)]
pub struct State {
    /// An error was looked up, and `recursive_error_pages` does not allow another time.
    shown: bool,
    /// The request ran in a circle: there will be no other page.
    pub exhausted: bool,
    /// The connection ends behind the answer, whatever the answer is.
    close: bool,
    /// Where a redirect of the server's own leads. It stays with the request when a page is shown in its place.
    pub location: Option<Bytes>,
    /// Fields that stay with the request, too: those of what an unsatisfiable range was asked of.
    pub kept: Fields,
    /// The type that the answer which led here (`X-Accel-Redirect`) gave to what stands in its place.
    pub content_type: Option<Bytes>,
}

/// What is shown in the place of an error.
#[derive(Debug)]
pub enum Page {
    /// What another path or a named location answers.
    Redirect(Redirect),
    /// A redirect of the client.
    Answer(Box<Response>),
}

/// Notes the error and looks its page up; `None`: the built-in one (`ngx_http_special_response_handler`).
pub fn lookup(exchange: &mut Exchange, status: u16) -> Option<Page> {
    exchange.error_status = status;
    exchange.overwritten_status = None;
    let state = &mut exchange.state.error_page;
    state.close |= status::closes_connection(status);
    if exchange.location.settings.error_page.pages.is_empty() || state.shown || state.exhausted {
        return None;
    }
    let conf = Arc::clone(&exchange.location.settings.error_page);
    state.shown = !conf.recursive_error_pages;
    let page = conf.pages.iter().find(|page| page.statuses.contains(&status))?;
    Some(show(exchange, status, page))
}

/// `ngx_http_send_error_page`.
fn show(exchange: &mut Exchange, status: u16, page: &ErrorPage) -> Page {
    exchange.overwritten_status = page.overwrite.or(Some(status::sent(status)));
    let target = page.target.evaluate_bytes(exchange);
    match target.first() {
        Some(b'/') => {
            if exchange.method != Method::Head {
                exchange.method = Method::Get;
                exchange.head.method = Bytes::from_static(b"GET");
            }
            let (path, args) = match memchr::memchr(b'?', &target) {
                Some(at) => (target.slice(..at), target.slice(at + 1..)),
                None => (target, Bytes::new()),
            };
            Page::Redirect(Redirect::Path { path, args })
        }
        Some(b'@') => Page::Redirect(Redirect::Named(target)),
        _ => {
            let status = page.overwrite.filter(|code| matches!(code, 301 | 302 | 303 | 307 | 308)).unwrap_or(302);
            exchange.overwritten_status = Some(status);
            exchange.state.error_page.location = Some(target);
            Page::Answer(Box::new(special::redirect(exchange, status)))
        }
    }
}

/// Gives an answer what the errors before it leave behind: the status (`ngx_http_send_header`), the `Location` of a
/// redirect, and that the connection ends.
pub fn finish(exchange: &mut Exchange, response: &mut Response) {
    let status = match exchange.error_status {
        0 => 0,
        error => exchange.overwritten_status.unwrap_or(status::sent(error)),
    };
    if status != 0 && !response.upgrade {
        response.status = status;
        response.status_line = None;
    }
    let state = &mut exchange.state.error_page;
    response.close |= state.close;
    if response.location.is_none() {
        response.location = state.location.take();
    }
    if !state.kept.is_empty() {
        let mut fields = std::mem::take(&mut state.kept);
        if let Some(etag) = response.etag.take() {
            fields.push(Bytes::from_static(b"ETag"), etag);
        }
        response.fields.iter().for_each(|field| fields.push(field.name.clone(), field.value.clone()));
        response.fields = fields;
    }
}

/// One `error_page`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    pub statuses: Vec<u16>,
    /// The status to send: `None` the error's own, 0 that of the page.
    pub overwrite: Option<u16>,
    /// A path with arguments, a named location, or an address of elsewhere.
    pub target: Template,
}

impl FromArgs for ErrorPage {
    const TAKES: RangeInclusive<usize> = 2..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let [statuses @ .., before, target] = args.words() else { return Err(args.count()) };
        let (statuses, overwrite) = match before.value.strip_prefix(b"=") {
            None => (&args.words()[..=statuses.len()], None),
            Some(_) if statuses.is_empty() => return Err(args.invalid(before)),
            Some(b"") => (statuses, Some(0)),
            Some(code) => {
                let code = parse_number(code).and_then(|code| u16::try_from(code).ok());
                (statuses, Some(code.ok_or_else(|| args.invalid(before))?))
            }
        };
        let target = Template::compile(target, args.scope)?;
        let status = |word: &crate::syntax::Word| match parse_number(&word.value) {
            None | Some(499) => Err(args.invalid(word)),
            Some(status @ 300..=599) => Ok(u16::try_from(status).unwrap_or_default()),
            Some(_) => {
                let text = [b"value \"", &word.value[..], b"\" must be between 300 and 599"].concat();
                Err(Fault::at(word.span, text))
            }
        };
        Ok(Self { statuses: statuses.iter().map(status).collect::<Result<_, _>>()?, overwrite, target })
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{fault, get};

    #[test]
    fn an_error_page_is_shown_under_the_status_that_is_asked_for() {
        let page = "location /page { return 200 \"page $uri $args $request_method\"; }\
                    location @named { return 202 \"named $uri $args\"; }\
                    location /e { return 404; } location /m { return 403; }";
        for (directive, path, status, text) in [
            ("error_page 404 /page;", "/e?a", 404, "page /page  GET"),
            ("error_page 404 /page?b=1;", "/e?a", 404, "page /page b=1 GET"),
            ("error_page 404 =200 /page;", "/e", 200, "page /page  GET"),
            ("error_page 404 = /page;", "/e", 200, "page /page  GET"),
            ("error_page 404 = @named;", "/e?a", 202, "named /e a"),
            ("error_page 404 @named;", "/e?a", 404, "named /e a"),
            ("error_page 403 404 =410 /page?$uri;", "/m", 410, "page /page /m GET"),
            ("error_page 404 $arg_to;", "/e?to=/page", 404, "page /page  GET"),
            ("error_page 404 /page; error_page 404 =200 /other;", "/e", 404, "page /page  GET"),
        ] {
            let answer = get(&format!("{directive} {page}"), path);
            assert_eq!((answer.status, &*answer.text()), (status, text), "{directive}");
        }
    }

    #[test]
    fn an_address_of_elsewhere_redirects_the_client() {
        for (directive, status) in [
            ("error_page 404 http://e/x;", 302),
            ("error_page 404 =301 http://e/x;", 301),
            ("error_page 404 =308 http://e/x;", 308),
            ("error_page 404 =200 http://e/x;", 302),
            ("error_page 404 = http://e/x;", 302),
        ] {
            let answer = get(&format!("{directive} location /e {{ return 404; }}"), "/e");
            assert_eq!((answer.status, answer.header("location")), (status, Some("http://e/x")), "{directive}");
        }
    }

    #[test]
    fn an_error_in_an_error_page_is_looked_up_only_if_it_may_be() {
        let rest = "error_page 404 /gone; error_page 410 =200 /page;
                    location /e { return 404; } location /gone { return 410; } location /page { return 200 page; }";
        assert_eq!(get(rest, "/e").status, 410);
        let answer = get(&format!("recursive_error_pages on; {rest}"), "/e");
        assert_eq!((answer.status, &*answer.text()), (200, "page"));
    }

    #[test]
    fn a_circle_of_error_pages_ends_with_500() {
        let answer = get("recursive_error_pages on; error_page 404 /e; location /e { return 404; }", "/e");
        assert_eq!(answer.status, 500);
        assert!(answer.text().contains("500 Internal Server Error"));
    }

    #[test]
    fn a_level_that_names_pages_hides_those_above() {
        let config = "error_page 404 =200 /page; location /page { return 200 page; }
                      location /e { error_page 403 /page; return 404; } location /f { return 404; }";
        assert_eq!(get(config, "/e").status, 404);
        assert_eq!(get(config, "/f").status, 200);
    }

    #[test]
    fn wrong_arguments_are_named() {
        for (directive, message) in [
            ("error_page =200 /x;", "invalid value \"=200\""),
            ("error_page 404 =x /x;", "invalid value \"=x\""),
            ("error_page x /x;", "invalid value \"x\""),
            ("error_page 499 /x;", "invalid value \"499\""),
            ("error_page 200 /x;", "value \"200\" must be between 300 and 599"),
            ("error_page 404 600 /x;", "value \"600\" must be between 300 and 599"),
            ("error_page /x;", "invalid number of arguments in \"error_page\" directive"),
        ] {
            assert_eq!(fault(directive), message);
        }
    }
}
