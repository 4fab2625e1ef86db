//! What nginx makes of requests, row by row, and what becomes of heads that are long or come in pieces.

use super::{Connection, Limits, Parser, Progress, Refusal, RequestHead, Stage, cases::CASES};
use bytes::Bytes;

/// Parses bytes that arrive in pieces of `step`, with a parser that is kept.
fn parse(bytes: &[u8], step: usize, limits: &impl super::ServerLimits) -> Result<Option<RequestHead>, Box<Refusal>> {
    let mut parser = Parser::default();
    let mut arrived = 0;
    while arrived < bytes.len() {
        arrived = (arrived + step).min(bytes.len());
        match parser.parse(&bytes[..arrived], limits) {
            Progress::Partial => {}
            Progress::Refused(refusal) => return Err(refusal),
            Progress::Complete(n) => return Ok(Some(parser.finish(Bytes::copy_from_slice(&bytes[..n])))),
        }
    }
    Ok(None)
}

fn head(text: &str) -> RequestHead {
    parse(text.as_bytes(), text.len(), &Limits::default()).expect("taken").expect("complete")
}

/// A verdict in the words of the table.
fn verdict(bytes: &[u8], step: usize) -> Vec<u8> {
    match parse(bytes, step, &Limits::default()) {
        Ok(None) => b"more".to_vec(),
        Err(refusal) => [refusal.status.to_string().as_bytes(), b" ", &refusal.why].concat(),
        Ok(Some(head)) => {
            let host = head.host.map_or_else(Bytes::new, |host| host.name);
            let length = head.length.to_string();
            let parts = [length.as_bytes(), &head.target, &host, &head.protocol, &head.line, &head.method];
            [b"200 ", &parts.join(&b'|')[..]].concat()
        }
    }
}

#[test]
fn every_row_of_the_table_holds_however_the_bytes_arrive() {
    for (request, expected, _) in CASES {
        for step in [request.len(), 1, 2, 3, 5, 11] {
            let (shown, found) = (String::from_utf8_lossy(request), verdict(request, step));
            assert_eq!(String::from_utf8_lossy(&found), String::from_utf8_lossy(expected), "{shown} by {step}");
        }
    }
}

/// A request of which the first line, with its end, has `line` bytes and which has fields of so many bytes each.
fn sized(line: usize, fields: &[usize]) -> Vec<u8> {
    let mut request = [b"GET /", "a".repeat(line - 16).as_bytes(), b" HTTP/1.1\r\nHost: x\r\n"].concat();
    for length in fields {
        request.extend_from_slice([b"A: ", "b".repeat(length - 5).as_bytes(), b"\r\n"].concat().as_slice());
    }
    [&request[..], b"\r\n"].concat()
}

#[test]
fn lines_must_fit_nginxs_buffers() {
    // Verified with nginx, except where there are no large buffers, which it does not let one configure.
    let usual = Limits::default();
    let small = Limits { client_header_buffer_size: 64, large: (2, 256), ..usual };
    let cases = [
        (usual, sized(8192, &[]), None),
        (usual, sized(8193, &[]), Some((414, "client sent too long URI"))),
        (usual, sized(100, &[8192]), None),
        (usual, sized(100, &[8193]), Some((494, "client sent too long header line: \"A: bbb"))),
        (usual, sized(100, &[8000; 4]), None),
        (usual, sized(100, &[8000; 5]), Some((494, "client sent too long header line: \"A: bbb"))),
        (usual, [&b"\r\n".repeat(5000)[..], &sized(50, &[])].concat(), None),
        (usual, sized(50, &[6; 999]), None),
        (usual, sized(50, &[6; 1000]), Some((494, "client sent too many header lines"))),
        (small, sized(50, &[]), None),
        (small, sized(256, &[200]), None),
        (small, sized(257, &[]), Some((414, "client sent too long URI"))),
        (small, sized(40, &[250, 250]), None),
        (small, sized(40, &[250, 250, 250]), Some((494, "client sent too long header line: \"A: bbb"))),
        (small, sized(200, &[250, 10]), Some((494, "client sent too long header line: \"A: bbb"))),
        (Limits { large: (0, 256), ..small }, sized(64, &[]), Some((494, "client sent too large request"))),
        (Limits { large: (0, 256), ..small }, sized(65, &[]), Some((414, "client sent too long URI"))),
    ];
    for (index, (limits, request, expected)) in cases.iter().enumerate() {
        for step in [1, 7, request.len()] {
            match (parse(request, step, limits), expected) {
                (Ok(Some(_)), None) => {}
                (Err(refusal), Some((status, why))) => {
                    assert_eq!(refusal.status, *status, "case {index}");
                    assert!(refusal.why.starts_with(why.as_bytes()), "case {index}: {refusal}");
                    assert_eq!(refusal.linger, *status == 494);
                }
                (found, expected) => panic!("case {index} by {step}: {found:?} instead of {expected:?}"),
            }
        }
    }
}

#[test]
fn the_server_named_in_the_head_brings_its_own_limits() {
    let limits = |host: Option<&[u8]>| match host {
        Some(b"wide") => Limits { underscores_in_headers: true, large: (4, 8192), ..Limits::default() },
        Some(_) => panic!("no such server"),
        None => Limits { large: (1, 300), client_header_buffer_size: 64, ..Limits::default() },
    };
    let before = "GET / HTTP/1.1\r\na_b: dropped\r\nHOST: Wide:80\r\na_b: kept\r\nX: ";
    let request = [before, &"y".repeat(2000), "\r\n\r\n"].concat();
    let head = parse(request.as_bytes(), 100, &limits).expect("taken").expect("complete");
    assert_eq!(head.fields.get_all("a_b").collect::<Vec<_>>(), [b"kept"]);
    assert_eq!(head.dropped, ["a_b: dropped"]);
    let absolute = format!("GET http://WIDE/ HTTP/1.1\r\na_b: kept\r\nHost: other\r\nX: {}\r\n\r\n", "y".repeat(2000));
    let head = parse(absolute.as_bytes(), 4096, &limits).expect("taken").expect("complete");
    assert_eq!(head.fields.get("a_b"), Some(&b"kept"[..]));
}

#[test]
fn fields_keep_order_case_and_duplicates() {
    let head = head("GET / HTTP/1.1\r\nhOST: x\r\nX-b: 1\r\nAccept: */*\r\nx-B: 2\r\n\r\n");
    let fields: Vec<_> = head.fields.iter().map(|field| (&*field.name, &*field.value)).collect();
    assert_eq!(fields, [(&b"hOST"[..], &b"x"[..]), (b"X-b", b"1"), (b"Accept", b"*/*"), (b"x-B", b"2")]);
}

#[test]
fn invalid_names_are_kept_where_they_are_not_to_be_ignored() {
    let limits = Limits { ignore_invalid_headers: false, ..Limits::default() };
    let request = b"GET / HTTP/1.1\r\nHost: x\r\na_b: 1\r\na@b: 2\r\n\r\n";
    let head = parse(request, 9, &limits).expect("taken").expect("complete");
    assert_eq!((head.fields.get("a_b"), head.fields.get("a@b")), (Some(&b"1"[..]), Some(&b"2"[..])));
    assert!(head.dropped.is_empty());
}

#[test]
fn the_connection_lives_on_as_the_client_wishes() {
    let cases = [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", Connection::Unsaid, true),
        ("GET / HTTP/1.0\r\n\r\n", Connection::Unsaid, false),
        ("GET /\r\n", Connection::Unsaid, false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Connection::KeepAlive, true),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: foo, CLOSE\r\n\r\n", Connection::Close, false),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n\r\n", Connection::Unsaid, true),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: close, keep-alive\r\n\r\n", Connection::Close, false),
        (
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
            Connection::KeepAlive,
            true,
        ),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: disclosed\r\n\r\n", Connection::Close, false),
    ];
    for (text, connection, keepalive) in cases {
        let head = head(text);
        assert_eq!((head.connection, head.keepalive()), (connection, keepalive), "{text}");
    }
}

#[test]
fn expectations_count_from_http_1_1_on() {
    let expects = |version: &str, value: &str| {
        head(&format!("POST / HTTP/{version}\r\nHost: x\r\nExpect: {value}\r\n\r\n")).expect_continue
    };
    assert!(expects("1.1", "100-continue") && expects("1.1", "100-CONTINUE") && expects("1.2", "100-continue"));
    assert!(!expects("1.0", "100-continue") && !expects("1.1", "100-continue;x") && !expects("1.1", "other"));
}

#[test]
fn what_frames_a_body_is_told() {
    let sized = head("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0012\r\nUpgrade: a\r\n\r\n");
    assert_eq!((sized.content_length, sized.chunked, sized.has_body(), sized.upgrade), (Some(12), false, true, true));
    let chunked = head("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n");
    assert_eq!((chunked.content_length, chunked.chunked, chunked.has_body()), (None, true, true));
    assert!(chunked.trailers && !chunked.upgrade);
    let longest = head("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9223372036854775807\r\n\r\n");
    assert_eq!(longest.content_length, Some(u64::MAX / 2));
}

#[test]
fn targets_that_need_no_work_are_told_from_those_that_do() {
    let complex = |target: &str| head(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).complex;
    for plain in ["/", "/a/b.c", "/a?x=/../%41", "/a+b", "/a/+", "http://h/a", "http://h", "/\u{e9}"] {
        assert!(!complex(plain), "{plain}");
    }
    for work in ["/%41", "/a//b", "/a/./b", "/a/../b", "/.a", "/a#b", "/a?b#c", "//", "http://h?a", "/a/+./b"] {
        assert!(complex(work), "{work}");
    }
}

#[test]
fn an_absolute_target_is_taken_apart() {
    let head = head("GET HTTP+x://User-1.Example:8080/p?q HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!((&*head.scheme, &*head.target), (&b"HTTP+x"[..], &b"/p?q"[..]));
    assert_eq!(head.authority.as_deref(), Some(&b"User-1.Example:8080"[..]));
    let host = head.host.expect("a host");
    assert_eq!((&*host.name, host.port), (&b"user-1.example"[..], 8080));
}

#[test]
fn connect_is_taken_where_it_is_allowed() {
    let limits = Limits { allow_connect: true, ..Limits::default() };
    let ask = |text: &str| parse(text.as_bytes(), 3, &limits);
    let head = ask("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n").expect("taken").expect("complete");
    assert_eq!((&*head.target, head.authority.as_deref()), (&b"/"[..], Some(&b"a:443"[..])));
    assert!(!head.keepalive());
    let refused = ask("CONNECT a:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n").expect_err("refused");
    assert_eq!((refused.status, &*refused.why), (400, &b"client sent CONNECT request with body"[..]));
    assert_eq!(ask("CONNECT a:443 HTTP/1.0\r\n\r\n").expect_err("refused").status, 405);
}

#[test]
fn a_refusal_keeps_what_was_read() {
    let refuse = |text: &str| *parse(text.as_bytes(), text.len(), &Limits::default()).expect_err("refused");
    let line = refuse("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((&*line.head.line, line.head.version, line.stage), (&b"GET /a b HTTP/1.1"[..], (1, 0), Stage::Line));
    assert_eq!(line.to_string(), "client sent invalid request while reading client request line");
    let fields = refuse("GET /a HTTP/1.1\r\nHost: Name\r\nA: b\r\nHost: y\r\n\r\n");
    assert_eq!((&*fields.head.line, &*fields.head.target), (&b"GET /a HTTP/1.1"[..], &b"/a"[..]));
    assert_eq!(fields.head.host.map(|host| host.name), Some(Bytes::from_static(b"name")));
    assert_eq!((fields.head.fields.get("a"), fields.stage), (Some(&b"b"[..]), Stage::Fields));
    assert_eq!(refuse("POST /\r\n").head.version, (0, 9));
    assert_eq!(refuse("GET /\rx").head.version, (1, 0));
    let long = refuse(&format!("GET /{}", "a".repeat(9000)));
    assert_eq!(long.head.line.len(), 8192);
}

#[test]
fn a_head_that_never_ends_can_be_given_up() {
    let (mut parser, text) = (Parser::default(), b"GET /a HTTP/1.1\r\nHost: x\r\nAcc");
    assert!(matches!(parser.parse(text, &Limits::default()), Progress::Partial));
    let refusal = parser.give_up(text, 408, "client timed out");
    assert_eq!((refusal.status, &*refusal.head.target), (408, &b"/a"[..]));
    assert_eq!(refusal.head.fields.len(), 1);
    let mut parser = Parser::default();
    assert!(matches!(parser.parse(b"\r\nGET /", &Limits::default()), Progress::Partial));
    assert_eq!(parser.give_up(b"\r\nGET /", 408, "client timed out").head.line, "GET /");
}
