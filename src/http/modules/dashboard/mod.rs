//! `dashboard`: one page that shows what the API tells, and lets peers be changed where the API may be written to.
//!
//! The page asks nobody but the API: its style and script are part of it, and its policy allows no others.

use super::Room;
use crate::{
    config::{Args, Contexts, Directive, FromArgs, LOCATION, Module},
    http::{
        exchange::Exchange,
        phase::{Phase, status},
        response::Response,
        uri::escape_html,
    },
    syntax::Fault,
    upstream::pass,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{ops::RangeInclusive, sync::Arc};

#[derive(Clone, Debug, Default)]
pub struct Conf {
    pub page: Option<Arc<Page>>,
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[Directive::new("dashboard", LOCATION, |conf| &mut conf.page)];

    fn enter(this: &mut Arc<Self>, level: Contexts) {
        if this.page.is_some() && !pass::is_part(level) {
            *this = Arc::default();
        }
    }
}

impl Room for Conf {
    type State = ();
}

/// Answers with the page.
pub async fn content(exchange: &mut Exchange) -> Phase {
    if !exchange.method.reads() {
        return status(405);
    }
    let Some(page) = &exchange.location.settings.dashboard.page else { return status(404) };
    page.response().into_phase()
}

/// The page as it is sent.
#[derive(Debug)]
pub struct Page {
    text: Bytes,
    etag: Bytes,
    policy: Bytes,
}

const FRAME: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = concat!(
    include_str!("script/1-dom.js"),
    include_str!("script/2-figures.js"),
    include_str!("script/3-upstreams.js"),
    include_str!("script/4-sections.js"),
    include_str!("script/5-page.js"),
);

impl Page {
    /// The page over an API at this path.
    pub fn new(api: &str) -> Self {
        let parts = FRAME.replace("{{style}}", STYLE).replace("{{script}}", SCRIPT);
        let mut value = Vec::new();
        escape_html(api.as_bytes(), &mut value);
        let text: Bytes = parts.replace("{{api}}", &String::from_utf8_lossy(&value)).into();
        let policy = format!(
            "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'",
            source(SCRIPT),
            source(STYLE)
        );
        let mut etag = STANDARD.encode(Sha256::digest(&text));
        etag.truncate(22);
        Self { text, etag: format!("\"{etag}\"").into(), policy: policy.into() }
    }

    fn response(&self) -> Response {
        let mut response = Response::with_body(200, &b"text/html"[..], self.text.clone());
        response.charset = Some(Bytes::from_static(b"utf-8"));
        response.etag = Some(self.etag.clone());
        response.push("Cache-Control", "no-cache");
        response.push("Content-Security-Policy", self.policy.clone());
        response.push("Referrer-Policy", "no-referrer");
        response.push("X-Content-Type-Options", "nosniff");
        response
    }
}

/// `dashboard [api=PATH];`
impl FromArgs for Arc<Page> {
    const TAKES: RangeInclusive<usize> = 0..=1;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let Some(word) = args.words().first() else { return Ok(Self::new(Page::new("/api"))) };
        let path = word.value.strip_prefix(b"api=").and_then(|path| std::str::from_utf8(path).ok());
        match path {
            // A second slash would begin the name of another server.
            Some(path) if path.starts_with('/') && !path.starts_with("//") => Ok(Self::new(Page::new(path))),
            _ => Err(args.parameter(word)),
        }
    }
}

/// How a content security policy names a text that may be used.
fn source(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{ask, fault, get};

    const CONF: &str = "location /dashboard { dashboard; }";

    #[test]
    fn the_page_is_whole_and_asks_nobody_else() {
        let answer = get(CONF, "/dashboard");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html; charset=utf-8")));
        let text = answer.text();
        assert!(text.starts_with("<!doctype html>") && text.trim_end().ends_with("</html>"));
        assert!(!text.contains("{{"), "a part was not filled in");
        for outside in ["src=", "http://", "https://", "url(", "@import", "import("] {
            let mut places = text.match_indices(outside).map(|(at, _)| &text[at..at + 30]);
            // The names of XML's languages are no addresses.
            let found = places.find(|place| !place.starts_with("http://www.w3.org/2000/svg"));
            assert_eq!(found, None);
        }
        for unsafe_way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!text.contains(unsafe_way), "{unsafe_way}");
        }
    }

    #[test]
    fn the_policy_names_what_is_in_the_page() {
        let answer = get(CONF, "/dashboard");
        let (text, policy) = (answer.text(), answer.header("content-security-policy").unwrap().to_owned());
        for (kind, begin, end) in [("script-src", "<script>", "</script>"), ("style-src", "<style>", "</style>")] {
            let (_, rest) = text.split_once(begin).unwrap();
            let (part, rest) = rest.split_once(end).unwrap();
            assert!(!rest.contains(begin), "one {kind} is all there is");
            assert!(policy.contains(&format!("{kind} '{}'", source(part))), "{policy}");
        }
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
    }

    #[test]
    fn what_has_not_changed_is_not_sent_again() {
        let first = get(CONF, "/dashboard");
        let tag = first.header("etag").unwrap();
        let request = format!("GET /dashboard HTTP/1.1\r\nHost: x\r\nIf-None-Match: {tag}\r\n\r\n");
        assert_eq!(ask(CONF, &request).status, 304);
        assert_eq!(ask("location /dashboard { dashboard api=/other; }", &request).status, 200);
    }

    #[test]
    fn it_is_read_and_nothing_else() {
        let head = ask(CONF, "HEAD /dashboard HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!((head.status, head.body.len()), (200, 0));
        let post = ask(CONF, "POST /dashboard HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(post.status, 405);
    }

    #[test]
    fn the_api_may_be_elsewhere() {
        let text = get("location /dashboard { dashboard api=/a\\\"<b>&c; }", "/dashboard").text();
        assert!(text.contains("name=\"tidegate-api\" content=\"/a&quot;&lt;b&gt;&amp;c\""));
        assert!(get(CONF, "/dashboard").text().contains("name=\"tidegate-api\" content=\"/api\""));
    }

    #[test]
    fn an_api_of_another_server_is_refused() {
        for wrong in ["api=//elsewhere/api", "api=http://elsewhere/api", "api=", "/api"] {
            assert_eq!(fault(&format!("dashboard {wrong};")), format!("invalid parameter \"{wrong}\""));
        }
    }
}
