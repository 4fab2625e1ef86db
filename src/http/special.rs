//! Answers nginx makes itself: error pages and the pages of redirects (`ngx_http_special_response_handler`).

use super::{agent::Agent, body::Body, exchange::Exchange, response::Response, status};
use bytes::Bytes;

/// The built-in answer for a status.
pub fn response(exchange: &mut Exchange, code: u16) -> Response {
    if matches!(code, 301 | 302)
        && let Some(page) = refresh(exchange)
    {
        return page;
    }
    page(exchange, code)
}

/// A redirect to an address that `error_page` names.
pub fn redirect(exchange: &mut Exchange, code: u16) -> Response {
    refresh(exchange).unwrap_or_else(|| page(exchange, code))
}

fn page(exchange: &Exchange, code: u16) -> Response {
    let core = &exchange.location.settings.core;
    let signature = core.server_tokens.signature(exchange);
    let padding = core.msie_padding && code >= 400 && exchange.head.version >= (1, 0) && pads(exchange);
    let page = status::page(code, &String::from_utf8_lossy(&signature), padding);
    let sent = status::sent(code);
    let mut response = match page {
        Some(page) => Response::with_body(sent, &b"text/html"[..], page),
        None => Response { content_length: Some(0), ..Response::new(sent) },
    };
    response.close = status::closes_connection(code);
    response
}

/// The text that stands for a subrequest that has failed (`ngx_http_ssi_stub_output`).
pub fn stub(exchange: &mut Exchange) -> Response {
    let Some(stub) = exchange.terms.stub.take() else { return Response::new(0) };
    Response { content_type: stub.content_type, body: Body::from(stub.text), ..Response::new(0) }
}

/// Browsers that showed a page of their own in place of a short one.
fn pads(exchange: &Exchange) -> bool {
    let agent = Agent::of(exchange);
    agent.msie || agent.chrome
}

/// `msie_refresh`: a page that leads on, in the place of a redirect (`ngx_http_send_refresh`).
fn refresh(exchange: &mut Exchange) -> Option<Response> {
    if !exchange.location.settings.core.msie_refresh || !Agent::of(exchange).msie {
        return None;
    }
    let location = exchange.state.error_page.location.take()?;
    exchange.overwritten_status = Some(200);
    Some(Response::with_body(200, &b"text/html"[..], status::refresh_page(&location)))
}

/// A page of the configuration's own for a status, with no type but the default one.
pub fn text(exchange: &Exchange, code: u16, text: Bytes) -> Response {
    Response::with_body(code, super::modules::static_files::content_type(exchange), text)
}

#[cfg(test)]
mod tests {
    use crate::http::testing::ask;

    #[test]
    fn old_explorers_are_led_on_by_a_page() {
        let asked = |server: &str, agent: &str| {
            let answer = ask(server, &format!("GET / HTTP/1.1\r\nHost: h\r\nUser-Agent: {agent}\r\n\r\n"));
            (answer.status, answer.header("location").map(str::to_owned), answer.text())
        };
        let page = |to: &str| {
            let meta = format!("<meta http-equiv=\"Refresh\" content=\"0; URL={to}\">");
            (200, None, format!("<html><head>{meta}</head><body></body></html>\r\n"))
        };
        for (rule, to) in [
            ("return 301 \"http://e/a b\";", Some("http://e/a%20b")),
            ("return 302 /a;", Some("/a")),
            ("return 303 /a;", None),
            ("error_page 404 http://e/x; return 404;", Some("http://e/x")),
            ("error_page 404 =307 http://e/x; return 404;", Some("http://e/x")),
            ("msie_refresh off; return 301 /a;", None),
        ] {
            let server = match rule.starts_with("msie") {
                true => rule.to_owned(),
                false => format!("msie_refresh on; {rule}"),
            };
            let (status, location, text) = asked(&server, "x MSIE 5.0;");
            match to {
                Some(to) => assert_eq!((status, location, text), page(to), "{server}"),
                None => assert!(status != 200 && location.is_some(), "{server}"),
            }
            assert_ne!(asked(&server, "x").0, 200, "{server}");
        }
    }

    #[test]
    fn only_browsers_that_need_it_get_padding() {
        for (agent, version, padded) in
            [("MSIE 6.0;", "1.1", true), ("Chrome/1", "1.0", true), ("Safari/1", "1.1", false), ("", "1.1", false)]
        {
            let request = format!("GET / HTTP/{version}\r\nHost: h\r\nUser-Agent: {agent}\r\n\r\n");
            assert_eq!(ask("return 404;", &request).text().contains("a padding to disable"), padded, "{agent}");
        }
    }
}
