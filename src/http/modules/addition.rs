//! `add_before_body`, `add_after_body`: the answers of other locations around an answer.

use super::Room;
use crate::{
    config::{Directive, LEVELS, Module},
    http::{
        body::Body,
        exchange::{Exchange, Method},
        media_types::MediaTypes,
        response::Response,
        subrequest::{self, Subrequest},
    },
};
use bytes::Bytes;

#[derive(Clone, Debug)]
pub struct Conf {
    /// The path whose answer comes first; empty if none does.
    pub before: Bytes,
    pub after: Bytes,
    pub types: MediaTypes,
}

impl Default for Conf {
    fn default() -> Self {
        Self { before: Bytes::new(), after: Bytes::new(), types: MediaTypes::of(&["text/html"]) }
    }
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("add_before_body", LEVELS, |conf| &mut conf.before),
        Directive::new("add_after_body", LEVELS, |conf| &mut conf.after),
        Directive::new("addition_types", LEVELS, |conf| &mut conf.types),
    ];
}

impl Room for Conf {
    type State = ();
}

/// Prepares an answer that others are put around; whether it is one (`ngx_http_addition_header_filter`).
pub fn filter(exchange: &Exchange, response: &mut Response) -> bool {
    let conf = &exchange.location.settings.addition;
    if response.status != 200
        || exchange.depth > 0
        || conf.before.is_empty() && conf.after.is_empty()
        || !conf.types.contains(response.content_type.as_deref().unwrap_or_default())
    {
        return false;
    }
    response.forget_length();
    response.weaken_etag();
    exchange.method != Method::Head
}

/// Puts them around the body, behind the filters that see its text alone (`ngx_http_addition_body_filter`).
pub fn join(exchange: &Exchange, response: &mut Response) {
    let conf = &exchange.location.settings.addition;
    let part = |path: &Bytes| {
        let child = || subrequest::begin(exchange, path, &Bytes::new(), exchange.body.share());
        let child = Some(path).filter(|path| !path.is_empty()).and_then(|_| child());
        child.map_or(Body::Empty, |child| Body::Subrequest(Box::new(Subrequest::new(child))))
    };
    let (before, after) = (part(&conf.before), part(&conf.after));
    response.body = Body::parts(vec![before, std::mem::take(&mut response.body), after]);
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{ask, get};

    const SERVER: &str = "default_type text/html; sub_filter_once off; location /a { return 200 <$uri>; }
        location /b { return 404; error_page 404 =200 /a; }";

    #[test]
    fn answers_stand_around_an_answer() {
        for (directives, text) in [
            ("add_before_body /a;", "</a>x"),
            ("add_after_body /a;", "x</a>"),
            ("add_before_body /a; add_after_body /b;", "</a>x</a>"),
            ("add_before_body /a; addition_types text/plain; default_type image/png;", "x"),
            ("add_before_body /a; addition_types text/plain; default_type text/plain;", "</a>x"),
            ("add_before_body /a; sub_filter a y; sub_filter x z;", "</a>z"),
            ("add_before_body \"\";", "x"),
        ] {
            let server = format!("{SERVER} location / {{ {directives} return 200 x; }}");
            let answer = get(&server, "/");
            assert_eq!(answer.text(), text, "{directives}");
            let length = (text == "x").then_some("1");
            assert_eq!(answer.header("content-length"), length, "{directives}");
        }
    }

    #[test]
    fn nothing_is_put_around_errors_and_heads() {
        let server =
            format!("{SERVER} add_before_body /a; location / {{ return 404 x; }} location /c {{ return 200 x; }}");
        assert_eq!(get(&server, "/").text(), "x");
        assert_eq!(ask(&server, "HEAD /c HTTP/1.1\r\nHost: x\r\n\r\n").text(), "");
    }
}
