//! Status codes: the reason nginx puts behind each, and the page it sends when an answer has no other body.

use std::sync::OnceLock;

use bytes::Bytes;

/// The name and version in `Server` and at the foot of pages, with `server_tokens on`.
pub const SIGNATURE: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

/// The name alone, with `server_tokens off`.
pub const BARE_SIGNATURE: &str = "tidegate";

/// What stands behind the code in the status line; empty for a code nginx prints without words
/// (`ngx_http_status_lines`). The words are nginx's, which for some codes are older than RFC 9110's.
pub fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        // The page says "Found".
        302 => "Moved Temporarily",
        304 => "Not Modified",
        // The page says "Authorization Required".
        401 => "Unauthorized",
        494..=498 => "",
        _ => title(status).unwrap_or_default(),
    }
}

/// The status line behind the version: `404 Not Found`. A code without words keeps the space (`418 `), as nginx has it.
pub fn line(status: u16) -> String {
    format!("{status:03} {}", reason(status))
}

/// The status that is sent for one of nginx's own codes: 494 to 497 go out as 400, so that `error_page` can tell
/// them apart and a client need not.
pub fn sent(status: u16) -> u16 {
    if matches!(status, 494..=497) { 400 } else { status }
}

/// Whether the connection ends after an error, since the rest of the request cannot be trusted
/// (`ngx_http_special_response_handler`).
pub fn closes_connection(status: u16) -> bool {
    matches!(status, 400 | 413 | 414 | 495 | 496 | 497 | 500 | 501)
}

/// The heading of a page, without the code. `None` for a code that has no page.
fn title(status: u16) -> Option<&'static str> {
    Some(match status {
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 | 494..=497 => "Bad Request",
        401 => "Authorization Required",
        402 => "Payment Required",
        403 => "Forbidden",
        404 | 498 => "Not Found",
        405 => "Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Time-out",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Large",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Temporarily Unavailable",
        504 => "Gateway Time-out",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => return None,
    })
}

/// What nginx's own codes add to the 400 they are sent as.
fn detail(status: u16) -> Option<&'static str> {
    Some(match status {
        494 => "Request Header Or Cookie Too Large",
        495 => "The SSL certificate error",
        496 => "No required SSL certificate was sent",
        497 => "The plain HTTP request was sent to HTTPS port",
        _ => return None,
    })
}

/// Keeps old browsers from showing a page of their own in place of a short one (`msie_padding`).
const PADDING: &str = "<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n";

/// The built-in page of a status, `text/html`; `None` where nginx sends an empty body. 494 to 497 have pages of their
/// own. `padding` says that the client is an MSIE or Chrome and `msie_padding` is on; redirects are never padded.
pub fn page(status: u16, signature: &str, padding: bool) -> Option<Bytes> {
    /// 301 to 507, each with and without version and padding.
    static PAGES: [[OnceLock<Bytes>; 4]; 207] = [const { [const { OnceLock::new() }; 4] }; 207];
    title(status)?;
    let padding = padding && status >= 400;
    let full = match signature {
        SIGNATURE => 2,
        BARE_SIGNATURE => 0,
        _ => return write_page(status, signature, padding),
    };
    let slot = PAGES.get(usize::from(status).checked_sub(301)?)?.get(full + usize::from(padding))?;
    Some(slot.get_or_init(|| write_page(status, signature, padding).unwrap_or_default()).clone())
}

fn write_page(status: u16, signature: &str, padding: bool) -> Option<Bytes> {
    let heading = title(status)?;
    // 498 never reaches a client; nginx has the page of 404 in its place.
    let code = if status == 498 { 404 } else { sent(status) };
    let mut page = format!("<html>\r\n<head><title>{code} {}</title></head>\r\n", detail(status).unwrap_or(heading));
    page.push_str(&format!("<body>\r\n<center><h1>{code} {heading}</h1></center>\r\n"));
    if let Some(detail) = detail(status) {
        page.push_str(&format!("<center>{detail}</center>\r\n"));
    }
    page.push_str(&format!("<hr><center>{signature}</center>\r\n</body>\r\n</html>\r\n"));
    if padding {
        page.push_str(&PADDING.repeat(6));
    }
    Some(Bytes::from(page))
}

/// The page of `msie_refresh`, sent with 200 in place of a redirect to `location`.
pub fn refresh_page(location: &[u8]) -> Vec<u8> {
    use super::uri::{Escape, escape};
    let mut page = b"<html><head><meta http-equiv=\"Refresh\" content=\"0; URL=".to_vec();
    escape(location, Escape::Refresh, &mut page);
    page.extend(b"\"></head><body></body></html>\r\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: u16, signature: &str, padding: bool) -> String {
        page(status, signature, padding).map_or_else(String::new, |page| String::from_utf8_lossy(&page).into_owned())
    }

    #[test]
    fn status_lines_have_the_words_of_nginx() {
        for (status, expected) in [
            (200, "OK"),
            (203, ""),
            (204, "No Content"),
            (206, "Partial Content"),
            (207, ""),
            (300, ""),
            (301, "Moved Permanently"),
            (302, "Moved Temporarily"),
            (303, "See Other"),
            (304, "Not Modified"),
            (305, ""),
            (307, "Temporary Redirect"),
            (308, "Permanent Redirect"),
            (400, "Bad Request"),
            (401, "Unauthorized"),
            (405, "Not Allowed"),
            (408, "Request Time-out"),
            (413, "Request Entity Too Large"),
            (414, "Request-URI Too Large"),
            (416, "Requested Range Not Satisfiable"),
            (418, ""),
            (421, "Misdirected Request"),
            (422, ""),
            (429, "Too Many Requests"),
            (444, ""),
            (498, ""),
            (499, ""),
            (500, "Internal Server Error"),
            (503, "Service Temporarily Unavailable"),
            (504, "Gateway Time-out"),
            (505, "HTTP Version Not Supported"),
            (506, ""),
            (507, "Insufficient Storage"),
            (508, ""),
            (599, ""),
            (999, ""),
        ] {
            assert_eq!(reason(status), expected, "{status}");
            assert_eq!(line(status), format!("{status} {expected}"));
        }
    }

    #[test]
    fn a_page_is_nginx_s_with_our_name() {
        let expected = "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n\
            <center><h1>404 Not Found</h1></center>\r\n<hr><center>tidegate</center>\r\n</body>\r\n</html>\r\n";
        assert_eq!(text(404, BARE_SIGNATURE, false), expected);
        let full = format!("<hr><center>tidegate/{}</center>", env!("CARGO_PKG_VERSION"));
        assert!(text(404, SIGNATURE, false).contains(&full));
        assert_eq!(text(404, "other", false), expected.replace("tidegate", "other"));
    }

    #[test]
    fn the_page_of_a_redirect_and_of_401_says_other_words_than_the_status_line() {
        assert!(text(302, SIGNATURE, false).contains("<title>302 Found</title>"));
        assert!(text(401, SIGNATURE, false).contains("<h1>401 Authorization Required</h1>"));
    }

    #[test]
    fn codes_of_nginx_s_own_are_sent_as_400_with_a_reason() {
        let page = text(497, SIGNATURE, false);
        assert!(page.contains("<title>400 The plain HTTP request was sent to HTTPS port</title>"));
        assert!(page.contains("<h1>400 Bad Request</h1></center>\r\n<center>The plain HTTP request was sent to HTTPS port</center>\r\n<hr>"));
        for status in 494..=497 {
            assert_eq!((sent(status), reason(sent(status))), (400, "Bad Request"));
        }
        assert_eq!(sent(498), 498);
        assert_eq!(text(498, SIGNATURE, false), text(404, SIGNATURE, false));
    }

    #[test]
    fn only_errors_are_padded() {
        let (plain, padded) = (text(502, SIGNATURE, false), text(502, SIGNATURE, true));
        assert_eq!(padded, plain + &PADDING.repeat(6));
        assert_eq!(text(301, SIGNATURE, true), text(301, SIGNATURE, false));
    }

    #[test]
    fn codes_without_a_page_have_none() {
        for status in [0, 200, 201, 204, 299, 300, 304, 305, 306, 309, 417, 418, 422, 430, 444, 493, 499, 506, 508, 999]
        {
            assert_eq!(page(status, SIGNATURE, true), None, "{status}");
        }
    }

    #[test]
    fn every_page_is_written_once() {
        for status in 300..=510 {
            for padding in [false, true] {
                let (first, second) = (page(status, SIGNATURE, padding), page(status, SIGNATURE, padding));
                assert_eq!(first.as_ref().map(|page| page.as_ptr()), second.as_ref().map(|page| page.as_ptr()));
                assert_eq!(first, write_page(status, SIGNATURE, padding && status >= 400));
            }
        }
    }

    #[test]
    fn a_refresh_page_escapes_the_address() {
        let page = refresh_page(b"http://h/a b'\"<>{}~^|x");
        let expected = "<html><head><meta http-equiv=\"Refresh\" content=\"0; URL=http://h/a%20b%27%22%3C%3E%7B}%7E%5E%7Cx\">\
            </head><body></body></html>\r\n";
        assert_eq!(String::from_utf8(page).unwrap(), expected);
    }
}
