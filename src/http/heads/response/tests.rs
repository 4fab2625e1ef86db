//! What nginx 1.31.5 makes of answers' heads; it was asked. Rows marked with a star behave otherwise in 1.22.1.

use super::{HeadError, Parser, Progress, ResponseHead, cgi::CgiParser};
use bytes::Bytes;

type Verdict = Result<Option<ResponseHead>, HeadError>;

/// Parses bytes that arrive in pieces of `step`.
fn parse(bytes: &[u8], step: usize, size: usize) -> Verdict {
    let mut parser = Parser::default();
    let mut arrived = 0;
    while arrived < bytes.len() {
        arrived = (arrived + step).min(bytes.len());
        if let Progress::Complete(n) = parser.parse(&bytes[..arrived], size)? {
            return Ok(Some(parser.finish(Bytes::copy_from_slice(&bytes[..n]))));
        }
    }
    Ok(None)
}

fn parse_cgi(bytes: &[u8], step: usize, fields_only: bool) -> Verdict {
    let mut parser = if fields_only { CgiParser::fields_only() } else { CgiParser::with_status_line() };
    let mut arrived = 0;
    while arrived < bytes.len() {
        arrived = (arrived + step).min(bytes.len());
        if let Progress::Complete(n) = parser.parse(&bytes[..arrived], 1024)? {
            return Ok(Some(parser.finish(Bytes::copy_from_slice(&bytes[..n]))));
        }
    }
    Ok(None)
}

/// In words: `status line|name=value;…`, with `close` and the like behind it; the error; or `more`.
fn words(verdict: Verdict) -> String {
    let head = match verdict {
        Ok(None) => return "more".into(),
        Err(error) => return error.to_string(),
        Ok(Some(head)) => head,
    };
    if head.version == (0, 9) {
        return "no head".into();
    }
    let mut text = format!("{}:{}|", head.status, String::from_utf8_lossy(&head.status_line));
    for field in &head.fields {
        text += &format!("{}={};", String::from_utf8_lossy(&field.name), String::from_utf8_lossy(&field.value));
    }
    if let Some(length) = head.content_length {
        text += &format!(" length {length}");
    }
    for (is, word) in [(head.chunked, " chunked"), (head.close, " close"), (head.upgrade, " upgrade")] {
        if is {
            text += word;
        }
    }
    text
}

#[test]
fn status_lines_are_taken_as_nginx_takes_them() {
    let cases = [
        ("HTTP/1.1 200 OK\r\n\r\nok", "200:200 OK|"),
        ("HTTP/1.0 200 OK\r\n\r\n", "200:200 OK| close"),
        ("HTTP/1.1 200 OK\n\n", "200:200 OK|"),
        ("HTTP/1.1 404\r\n\r\n", "404:404|"),
        ("HTTP/1.1 404 \r\n\r\n", "404:404 |"),
        ("HTTP/1.1 403.1 Sub\r\n\r\n", "403:403.1 Sub|"),
        ("HTTP/1.1   200   Fine  \r\n\r\n", "200:200   Fine  |"),
        ("HTTP/1.1 2 0 0 OK\r\n\r\n", "200:0 0 OK|"),
        ("HTTP/1.1 999 Odd\r\n\r\n", "999:999 Odd|"),
        ("HTTP/2.0 200 OK\r\n\r\n", "200:200 OK|"),
        ("HTTP/999.9 200 OK\r\n\r\n", "200:200 OK|"),
        ("HTTP/1.1 20 OK\r\n\r\n", "no head"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "no head"),
        ("HTTP/0.9 200 OK\r\n\r\n", "no head"),
        ("HTTP/1. 200 OK\r\n\r\n", "no head"),
        ("http/1.1 200 OK\r\n\r\n", "no head"),
        ("just text", "no head"),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", "no head"),
        ("HTTP/1.1 200 O\rK\r\n\r\n", "no head"),
        ("HTTP/1.1 200\tOK\r\n\r\n", "no head"),
        ("HTTP/1.1 200", "more"),
        ("HTTP/1.1 200 OK\r\nA: b\r\n", "more"),
    ];
    for (text, expected) in cases {
        for step in 1..=text.len() {
            assert_eq!(words(parse(text.as_bytes(), step, 1024)), expected, "{text:?} by {step}");
        }
    }
}

#[test]
fn fields_are_taken_or_refused_as_nginx_does() {
    let both = "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time";
    let cases = [
        ("a_b: 1\r\nX@y: 2\r\nZ", "200:200 OK|a_b=1;X@y=2;Z=;"),
        ("HTTP/1.1 300 X\r\nA: b\r\nHTTP/1.0 1", "200:200 OK|A=b;"),
        ("a b: c", "upstream sent invalid header: \"a\\x20...\""),
        ("a : c", "upstream sent invalid header: \"a\\x20...\""),
        ("a: c\r\n d", "upstream sent invalid header: \"\\x20...\""),
        ("a: c\0", "upstream sent invalid header: \"a: c\\x00...\""),
        ("a: c\rd", "upstream sent invalid header: \"a: c\\x0d...\""),
        ("Content-Length: 12", "200:200 OK|Content-Length=12; length 12"),
        // *
        ("Content-Length: 2x", "upstream sent invalid \"Content-Length\" header: \"Content-Length: 2x\""),
        // *
        ("Content-Length:", "upstream sent invalid \"Content-Length\" header: \"Content-Length: \""),
        // *
        (
            "Content-Length: 2\r\ncontent-length: 2",
            "upstream sent duplicate header line: \"content-length: 2\", previous value: \"Content-Length: 2\"",
        ),
        ("transfer-encoding: Chunked", "200:200 OK|transfer-encoding=Chunked; chunked"),
        // *
        ("Transfer-Encoding: gzip", "upstream sent unknown \"Transfer-Encoding\": \"gzip\""),
        // *
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
            "upstream sent duplicate header line: \"Transfer-Encoding: x\", previous value: \"Transfer-Encoding: chunked\"",
        ),
        // *
        ("Transfer-Encoding: chunked\r\nContent-Length: 2", both),
        // *
        ("Content-Length: 2\r\nTransfer-Encoding: x", both),
        ("Connection: x, Close\r\nUpgrade: a", "200:200 OK|Connection=x, Close;Upgrade=a; close upgrade"),
        ("Connection: keep-alive", "200:200 OK|Connection=keep-alive;"),
        ("Set-Cookie: a\r\nSet-Cookie: b", "200:200 OK|Set-Cookie=a;Set-Cookie=b;"),
        // *
        ("ETag: a\r\netag: b\r\nX: y\r\nServer: z", "200:200 OK|ETag=a;X=y;Server=z;"),
    ];
    for (fields, expected) in cases {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nbody");
        for step in [1, 2, 5, text.len()] {
            assert_eq!(words(parse(text.as_bytes(), step, 1024)), expected, "{fields:?} by {step}");
        }
    }
}

#[test]
fn repeated_fields_that_should_stand_once_are_dropped_with_a_warning() {
    let text = b"HTTP/1.1 200 OK\r\nLocation: a\r\nLocation: b\r\nX-Accel-Expires: 1\r\nx-accel-expires: 2\r\n\r\n";
    let head = parse(text, text.len(), 1024).expect("taken").expect("complete");
    assert_eq!(head.fields.len(), 2);
    let warnings: Vec<_> = head.warnings.iter().map(|text| String::from_utf8_lossy(text)).collect();
    assert_eq!(
        warnings,
        [
            "upstream sent duplicate header line: \"Location: b\", previous value: \"Location: a\", ignored",
            "upstream sent duplicate header line: \"x-accel-expires: 2\", previous value: \"X-Accel-Expires: 1\", ignored",
        ]
    );
}

#[test]
fn a_head_must_fit_its_buffer() {
    let sized = |n: usize| ["HTTP/1.1 200 OK\r\nA: ", &"b".repeat(n - 24), "\r\n\r\n"].concat();
    for step in [1, 100, 5000] {
        assert_eq!(parse(sized(1024).as_bytes(), step, 1024).expect("fits").expect("complete").length, 1024);
        assert_eq!(parse(sized(1025).as_bytes(), step, 1024).err(), Some(HeadError::TooBig));
        let line = format!("HTTP/1.1 200 {}", "b".repeat(2000));
        assert_eq!(parse(line.as_bytes(), step, 1024).err(), Some(HeadError::TooBig));
    }
}

#[test]
fn early_hints_are_for_http_1_1_and_nothing_in_them_counts() {
    let hints = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\nContent-Length: x\r\nTransfer-Encoding: y\r\n\r\n";
    assert_eq!(words(parse(hints, 3, 1024)), "103:103 Early Hints|Link=a;Content-Length=x;Transfer-Encoding=y;");
    let old = b"HTTP/1.0 103 Early Hints\r\n\r\n";
    assert_eq!(words(parse(old, 3, 1024)), "upstream sent HTTP/1.0 response with early hints");
}

#[test]
fn cgi_heads_say_their_status_in_a_field_or_not_at_all() {
    let cases = [
        ("Status: 404 Gone Fishing\r\nX: y\r\n\r\n", "404:404 Gone Fishing|Status=404 Gone Fishing;X=y;"),
        ("status: 201\r\n\r\n", "201:|status=201;"),
        ("Location: /a\r\n\r\n", "302:302 Moved Temporarily|Location=/a;"),
        ("Status: 200 OK\r\nLocation: /a\r\n\r\n", "200:200 OK|Status=200 OK;Location=/a;"),
        ("Content-Type: text/plain\n\nbody", "200:200 OK|Content-Type=text/plain;"),
        ("\r\nbody", "200:200 OK|"),
        ("Status: 20\r\n\r\n", "upstream sent invalid status \"20\""),
        ("Status: x\r\n\r\n", "upstream sent invalid status \"x\""),
        ("Status: 200\r\nStatus: 404\r\n\r\n", "200:|Status=200;"),
        ("a b\r\n\r\n", "upstream sent invalid header: \"a\\x20...\""),
        ("HTTPS: x\r\n\r\n", "200:200 OK|HTTPS=x;"),
        ("Content-Length: 5\r\n\r\n", "200:200 OK|Content-Length=5; length 5"),
    ];
    for (text, expected) in cases {
        for step in 1..=text.len() {
            for fields_only in [false, true] {
                let found = words(parse_cgi(text.as_bytes(), step, fields_only));
                assert_eq!(found, expected, "{text:?} by {step}");
            }
        }
    }
    let http = "HTTP/1.1 418 Teapot\r\nStatus: 200 OK\r\n\r\n";
    assert_eq!(words(parse_cgi(http.as_bytes(), 4, false)), "418:418 Teapot|Status=200 OK;");
    assert_eq!(words(parse_cgi(http.as_bytes(), 4, true)), "200:200 OK|Status=200 OK;");
}

#[test]
fn the_reason_is_what_stands_behind_the_status() {
    let reason = |text: &[u8]| parse(text, 9, 1024).expect("taken").expect("complete").reason().to_vec();
    assert_eq!(reason(b"HTTP/1.1 200 Quite OK\r\n\r\n"), b"Quite OK");
    assert_eq!(reason(b"HTTP/1.1 404\r\n\r\n"), b"");
    assert_eq!(reason(b"HTTP/1.1 403.1 Sub\r\n\r\n"), b".1 Sub");
}
