//! When two conversations are equal, and how a difference is told.

use super::wire::{Conversation, End, Response};
use std::io::Read;

/// The headers every case compares, besides all that begin with `X-`.
const USUAL: [&str; 11] = [
    "Content-Type",
    "Content-Length",
    "Location",
    "Connection",
    "Transfer-Encoding",
    "ETag",
    "Last-Modified",
    "Accept-Ranges",
    "Content-Range",
    "Content-Encoding",
    "Allow",
];

/// Every difference between nginx's conversation and ours, in words; empty when they are equal.
pub(crate) fn differences(nginx: &Conversation, ours: &Conversation, headers: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    if nginx.responses.len() != ours.responses.len() {
        let statuses =
            |side: &Conversation| format!("{:?}", side.responses.iter().map(Response::status).collect::<Vec<_>>());
        out.push(format!("answers: {} <> {}", statuses(nginx), statuses(ours)));
    }
    for (theirs, mine) in nginx.responses.iter().zip(&ours.responses) {
        out.extend(response(theirs, mine, headers));
    }
    // nginx lingers where a body was left unread; whether we do shows in nothing a client can use.
    let lingering = nginx.end == End::LeftOpen && ours.end == End::Closed;
    if !lingering && ending(&nginx.end) != ending(&ours.end) {
        out.push(format!("connection afterwards: {} <> {}", ending(&nginx.end), ending(&ours.end)));
    }
    out
}

fn ending(end: &End) -> String {
    match end {
        End::Trailing(bytes) => format!("{} bytes too many: {}", bytes.len(), shown(bytes)),
        other => format!("{other:?}"),
    }
}

fn response(nginx: &Response, ours: &Response, headers: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    if nginx.status() != ours.status() {
        out.push(format!("status: {} <> {}", nginx.status(), ours.status()));
    }
    if nginx.complete != ours.complete {
        out.push(format!("ended as framed: {} <> {}", nginx.complete, ours.complete));
    }
    let (theirs, mine) = (Normal::of(nginx), Normal::of(ours));
    let mut names: Vec<String> = USUAL.iter().map(|name| name.to_ascii_lowercase()).collect();
    names.extend(headers.iter().map(|name| name.to_ascii_lowercase()));
    for (name, _) in nginx.headers.iter().chain(&ours.headers) {
        if name.to_ascii_lowercase().starts_with("x-") {
            names.push(name.to_ascii_lowercase());
        }
    }
    names.sort();
    names.dedup();
    for name in names {
        let (a, b) = (theirs.values(&name), mine.values(&name));
        // Behind HEAD it does not show whether the page has a signature: equal as it stands will do as well.
        let unseen = name == "content-length" && nginx.body.is_empty() && nginx.values(&name) == ours.values(&name);
        if a != b && !unseen {
            out.push(format!("{name}: {} <> {}", a.join(" | "), b.join(" | ")));
        }
    }
    for name in ["server", "date"] {
        if nginx.value(name).is_some() != ours.value(name).is_some() {
            out.push(format!("{name} present: {} <> {}", nginx.value(name).is_some(), ours.value(name).is_some()));
        }
    }
    if theirs.body != mine.body {
        out.push(format!("body: {} <> {}", shown(&theirs.body), shown(&mine.body)));
    }
    out
}

/// An answer without what is bound to differ.
struct Normal {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Normal {
    fn of(response: &Response) -> Self {
        let mut headers: Vec<(String, String)> =
            response.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        headers.push((":line".to_owned(), response.line.clone()));
        let mut body = response.body.clone();
        let length = body.len();
        let gzipped = response.value("content-encoding").is_some_and(|value| value == "gzip");
        if gzipped {
            let mut plain = Vec::new();
            if flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).is_ok() {
                body = plain;
            }
        }
        // The signature of error pages, and the length it changes.
        let signature = response.value("server").unwrap_or_default().to_owned();
        let own_page = response.status() >= 300
            && response.value("content-type").is_some_and(|value| value.starts_with("text/html"));
        let line = format!("<center>{signature}</center>");
        if own_page && !signature.is_empty() && contains(&body, line.as_bytes()) {
            body = replace(&body, line.as_bytes(), b"<center>SERVER</center>");
        }
        body = shapes(&body);
        for (name, value) in &mut headers {
            match name.as_str() {
                "content-length" if !gzipped && *value == length.to_string() => *value = body.len().to_string(),
                // A page that HEAD does not show: its length without the signature's.
                "content-length" if own_page && length == 0 => {
                    let number: usize = value.parse().unwrap_or(0);
                    *value = number.saturating_sub(signature.len()).to_string();
                }
                "connection" | "transfer-encoding" => value.make_ascii_lowercase(),
                _ => {}
            }
        }
        for (name, value) in &mut headers {
            if let Some(boundary) = value.strip_prefix("multipart/byteranges; boundary=").map(str::to_owned)
                && name == "content-type"
            {
                body = replace(&body, boundary.as_bytes(), b"BOUNDARY");
                *value = "multipart/byteranges; boundary=BOUNDARY".to_owned();
            }
        }
        Self { headers, body }
    }

    fn values(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// Puts the mark for [`shapes`] before every line of the bodies, and forgets their lengths.
pub(crate) fn marked(conversation: &Conversation) -> Conversation {
    let mut marked = conversation.clone();
    for response in &mut marked.responses {
        response.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("content-length"));
        response.body =
            response.body.split_inclusive(|byte| *byte == b'\n').flat_map(|line| [b"~~", line].concat()).collect();
    }
    marked
}

/// Behind `~~` only the shape of a line counts: each run of digits becomes `9`, each run of letters `a`.
pub(crate) fn shapes(text: &[u8]) -> Vec<u8> {
    if !contains(text, b"~~") {
        return text.to_vec();
    }
    let mut out: Vec<u8> = Vec::new();
    let mut shaping = false;
    for (index, byte) in text.iter().enumerate() {
        if *byte == b'\n' {
            shaping = false;
        } else if text[index..].starts_with(b"~~") {
            shaping = true;
        }
        let mark = match byte {
            b'0'..=b'9' if shaping => b'9',
            byte if shaping && byte.is_ascii_alphabetic() => b'a',
            byte => *byte,
        };
        if !(shaping && mark.is_ascii_alphanumeric() && out.last() == Some(&mark)) {
            out.push(mark);
        }
    }
    out
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn replace(text: &[u8], part: &[u8], by: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if !part.is_empty() && text[at..].starts_with(part) {
            out.extend_from_slice(by);
            at += part.len();
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    out
}

/// Bytes for a message, the middle of long ones left out.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    if text.len() <= 1200 {
        return format!("\"{text}\"");
    }
    format!("\"{}...{}\" ({} bytes)", &text[..600], &text[text.len() - 300..], bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(signature: &str, status: u16, body: &str) -> Response {
        Response {
            line: format!("HTTP/1.1 {status} X"),
            headers: [
                ("Server", signature),
                ("Date", "now"),
                ("Content-Type", "text/html"),
                ("Content-Length", &body.len().to_string()),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
            body: body.as_bytes().to_vec(),
            complete: true,
        }
    }

    #[test]
    fn the_signature_of_an_error_page_does_not_count() {
        let nginx = page("nginx/1.22.1", 404, "<hr><center>nginx/1.22.1</center>");
        let ours = page("tidegate/0.1", 404, "<hr><center>tidegate/0.1</center>");
        assert_eq!(response(&nginx, &ours, &[]), Vec::<String>::new());
    }

    #[test]
    fn nor_does_it_behind_head_where_only_its_length_shows() {
        let head = |signature: &str, length: &str| {
            let mut head = page(signature, 404, "");
            head.headers.retain(|(name, _)| name != "Content-Length");
            head.headers.push(("Content-Length".to_owned(), length.to_owned()));
            head
        };
        assert_eq!(response(&head("nginx/1.22.1", "153"), &head("tidegate/0.1.0", "155"), &[]), Vec::<String>::new());
        assert_eq!(response(&head("nginx/1.22.1", "8"), &head("tidegate/0.1.0", "8"), &[]), Vec::<String>::new());
        assert_eq!(response(&head("nginx/1.22.1", "153"), &head("tidegate/0.1.0", "154"), &[]).len(), 1);
    }

    #[test]
    fn another_status_length_or_body_is_told() {
        let told = response(&page("a", 404, "x"), &page("a", 403, "xy"), &[]);
        assert_eq!(told, ["status: 404 <> 403", "content-length: 1 <> 2", "body: \"x\" <> \"xy\""]);
    }

    #[test]
    fn behind_the_mark_only_the_shape_counts() {
        assert_eq!(shapes(b"12 ~~12 ab:3\n45"), b"12 ~~9 a:9\n45");
        assert_eq!(shapes(b"no mark 12"), b"no mark 12");
    }
}
