//! Tests: requests through the whole pipeline to a server that answers once.

use crate::http::testing::{Answer, ask, ask_http, conf, fault};
use std::{
    io::{Read, Write},
    net::TcpListener,
    thread::{self, JoinHandle},
};

/// A server that answers one request; what it was asked, and from where.
fn upstream(answer: &str) -> (String, JoinHandle<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = answer.to_owned();
    let server = thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        let mut asked = Vec::new();
        let mut piece = [0; 4096];
        while !whole(&asked) {
            let read = stream.read(&mut piece).unwrap();
            asked.extend_from_slice(&piece[..read]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        (String::from_utf8(asked).unwrap(), from.ip().to_string())
    });
    (address, server)
}

/// The head, and as much of a body as it announces.
fn whole(asked: &[u8]) -> bool {
    let asked = String::from_utf8_lossy(asked);
    let Some((head, body)) = asked.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or(0, |n| n.parse().unwrap());
    body.len() >= length
}

/// What a location that says this sends to its upstream for `GET /a?b HTTP/1.1`.
fn sent(directives: &str) -> String {
    let (address, server) = upstream("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    let server_block = format!("location / {{ proxy_pass http://{address}; {directives} }}");
    ask(&server_block, "GET /a?b HTTP/1.1\r\nHost: localhost\r\nX-Own: 1\r\n\r\n");
    server.join().unwrap().0.replace(&address, "UPSTREAM")
}

/// What a client gets from a location that says this when its upstream answers that.
fn got(directives: &str, answer: &str) -> Answer {
    got_for("", directives, answer)
}

/// The same for a request with more fields.
fn got_for(fields: &str, directives: &str, answer: &str) -> Answer {
    let (address, server) = upstream(answer);
    let server_block =
        format!("location / {{ proxy_pass http://{address}; {directives} }} location = /other {{ return 200 other; }}");
    let answer = ask(&server_block, &format!("GET /a HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"));
    server.join().unwrap();
    answer
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n";

#[test]
fn the_method_may_be_another() {
    assert!(sent("proxy_method PUT;").starts_with("PUT /a?b HTTP/1.1\r\n"));
    assert!(sent("proxy_method $arg_none$request_method-X;").starts_with("GET-X /a?b HTTP/1.1\r\n"));
}

#[test]
fn a_body_that_is_set_goes_with_its_length() {
    let asked = sent("proxy_set_body \"$request_method of $args\";");
    assert!(asked.contains("\r\nContent-Length: 8\r\n"), "{asked}");
    assert!(asked.ends_with("\r\n\r\nGET of b"), "{asked}");
}

#[test]
fn an_empty_body_that_is_set_has_a_length_too() {
    let asked = sent("proxy_set_body $arg_none;");
    assert!(asked.contains("\r\nContent-Length: 0\r\n") && asked.ends_with("\r\n\r\n"), "{asked}");
}

#[test]
fn host_comes_first_and_an_empty_one_is_the_upstreams_in_1_1() {
    for (directives, host) in [
        ("", "\r\nHost: UPSTREAM\r\n"),
        ("proxy_set_header X-A a; proxy_set_header Host $host;", "\r\nHost: localhost\r\nX-A: a\r\n"),
        ("proxy_set_header Host \"\";", "\r\nHost: UPSTREAM\r\n"),
        ("proxy_set_header host a; proxy_set_header HOST b;", "\r\nHost: b\r\n"),
    ] {
        let asked = sent(directives);
        let line = asked.find("\r\n").unwrap();
        assert!(asked[line..].starts_with(host), "{directives}: {asked}");
    }
    assert!(!sent("proxy_http_version 1.0; proxy_set_header Host \"\";").contains("Host"));
}

#[test]
fn the_clients_own_fields_need_not_be_passed_on() {
    assert!(sent("").contains("X-Own: 1"));
    assert!(!sent("proxy_pass_request_headers off;").contains("X-Own"));
    assert!(!sent("proxy_set_header X-Own \"\";").contains("X-Own"));
}

#[test]
fn a_connection_comes_from_the_address_that_is_bound() {
    for (directives, from) in [
        ("proxy_bind 127.0.0.2;", "127.0.0.2"),
        ("proxy_bind 127.0.0.$arg_n;", "127.0.0.3"),
        ("proxy_bind $arg_none;", "127.0.0.1"),
        ("proxy_bind not-an-address-$arg_n;", "127.0.0.1"),
        ("proxy_bind 127.0.0.4; proxy_socket_rcvbuf 64k; proxy_socket_sndbuf 64k;", "127.0.0.4"),
    ] {
        let (address, server) = upstream("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        let block = format!("location / {{ proxy_pass http://{address}; {directives} }}");
        assert_eq!(ask(&block, "GET /?n=3 HTTP/1.0\r\n\r\n").status, 204, "{directives}");
        assert_eq!(server.join().unwrap().1, from, "{directives}");
    }
}

#[test]
fn an_address_that_is_not_ours_cannot_be_bound_and_nobody_else_is_asked() {
    let block = "upstream u { server 127.0.0.1:1; server 127.0.0.1:2; }
        server { location / { proxy_pass http://u; proxy_bind 192.0.2.1; add_header X-Asked $upstream_addr always; } }";
    let answer = ask_http(block, "GET / HTTP/1.0\r\n\r\n");
    assert_eq!((answer.status, answer.header("x-asked")), (500, None));
}

#[test]
fn cookies_become_ours() {
    for (directives, cookie, expected) in [
        (
            "proxy_cookie_domain example.org our.net;",
            "a=b; Domain=.Example.org; Path=/",
            "a=b; Domain=.our.net; Path=/",
        ),
        ("proxy_cookie_domain .example.org .our.net;", "a=b;domain=example.org", "a=b; domain=our.net"),
        ("proxy_cookie_domain ~\\.([a-z]+)$ $1.net;", "a=b; domain=x.ORG", "a=b; domain=ORG.net"),
        ("proxy_cookie_domain example.org x;", "a=b; domain=an.example.org", "a=b; domain=an.example.org"),
        ("proxy_cookie_path /one/ /;", "a=b; path=/one/two; x", "a=b; path=/two; x"),
        ("proxy_cookie_path ~*^/ONE/(.+) /$1;", "a=b; path=/one/two", "a=b; path=/two"),
        ("proxy_cookie_path ~^/ONE/(.+) /$1;", "a=b; path=/one/two", "a=b; path=/one/two"),
        ("proxy_cookie_path /none /; proxy_cookie_path / /p/;", "a=b; path=/", "a=b; path=/p/"),
        ("proxy_cookie_path / /p/;", "path; path=/", "path; path=/"),
        ("proxy_cookie_flags a secure httponly samesite=lax;", "a=b", "a=b; Secure; HttpOnly; SameSite=Lax"),
        ("proxy_cookie_flags ~. nosecure nohttponly nosamesite;", "a=b; HttpOnly; Secure; x; SameSite=None", "a=b; x"),
        ("proxy_cookie_flags A samesite=strict;", "a=b; samesite=none; y", "a=b; SameSite=Strict; y"),
        ("proxy_cookie_flags a samesite=strict;", "a=b; samesite=strict", "a=b; samesite=strict"),
        ("proxy_cookie_flags other secure;", "a=b;  x", "a=b;  x"),
        ("proxy_cookie_flags a $arg_none bogus;", "a=b;  x", "a=b;  x"),
        ("proxy_cookie_path off; proxy_cookie_flags off;", "a=b; path=/", "a=b; path=/"),
    ] {
        let answer = got(directives, &format!("{OK}Set-Cookie: {cookie}\r\n\r\n0123456789"));
        assert_eq!(answer.header("set-cookie"), Some(expected), "{directives}");
    }
}

#[test]
fn cookie_rules_have_nginxs_faults() {
    for (directives, expected) in [
        ("proxy_cookie_path off; proxy_cookie_path / /x;", "\"proxy_cookie_path\" directive is duplicate"),
        ("proxy_cookie_domain a b; proxy_cookie_domain off;", "\"proxy_cookie_domain\" directive is duplicate"),
        ("proxy_cookie_flags on;", "invalid parameter \"on\""),
        ("proxy_cookie_flags a b c d e;", "invalid number of arguments in \"proxy_cookie_flags\" directive"),
        ("proxy_limit_rate x;", "\"proxy_limit_rate\" directive invalid value"),
    ] {
        assert_eq!(fault(directives), expected, "{directives}");
    }
}

#[test]
fn a_level_that_has_rules_of_its_own_forgets_those_above() {
    let rules = |text: &str| conf(text).proxy.cookie_path.rules.len();
    assert_eq!(rules("proxy_cookie_path / /a; proxy_cookie_path /b /c;"), 2);
    let (address, server) = upstream(&format!("{OK}Set-Cookie: a=b; path=/\r\n\r\n0123456789"));
    let block =
        format!("proxy_cookie_path / /above/; location / {{ proxy_pass http://{address}; proxy_cookie_path off; }}");
    assert_eq!(ask(&block, "GET / HTTP/1.0\r\n\r\n").header("set-cookie"), Some("a=b; path=/"));
    server.join().unwrap();
}

#[test]
fn a_redirect_that_an_expression_matches_is_replaced_whole() {
    let directives = "proxy_redirect ~^http://([a-z]+) http://our/$1/;";
    let answer = got(directives, "HTTP/1.1 302 Found\r\nLocation: http://their/path\r\nConnection: close\r\n\r\n");
    assert_eq!(answer.header("location"), Some("http://our/their/"));
}

#[test]
fn ranges_may_be_forced() {
    let answer = format!("{OK}Accept-Ranges: none\r\n\r\n0123456789");
    for (directives, range, status, body) in [
        ("proxy_force_ranges on;", "bytes=2-4", 206, "234"),
        ("proxy_force_ranges on;", "bytes=-3", 206, "789"),
        ("proxy_force_ranges on;", "bytes=0-1,4-5", 200, "0123456789"),
        ("proxy_force_ranges on;", "bytes=20-", 416, ""),
        ("", "bytes=2-4", 200, "0123456789"),
    ] {
        let got = got_for(&format!("Range: {range}\r\n"), directives, &answer);
        assert_eq!(got.status, status, "{directives} {range}");
        if status != 416 {
            assert_eq!(got.text(), body, "{directives} {range}");
        }
    }
}

#[test]
fn whether_the_client_has_it_already_is_the_upstreams_to_say() {
    let answer = format!("{OK}ETag: \"x\"\r\n\r\n0123456789");
    assert_eq!(got_for("If-None-Match: \"x\"\r\n", "", &answer).status, 200);
}

#[test]
fn a_page_for_401_says_how_to_authenticate() {
    let directives = "proxy_intercept_errors on; error_page 401 403 /other;";
    let answer = |status: &str| {
        let head =
            "WWW-Authenticate: Basic realm=\"x\"\r\nX-Other: y\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        got(directives, &format!("HTTP/1.1 {status}\r\n{head}"))
    };
    let asks = answer("401 Unauthorized");
    assert_eq!((asks.status, &*asks.text()), (401, "other"));
    assert_eq!((asks.header("www-authenticate"), asks.header("x-other")), (Some("Basic realm=\"x\""), None));
    assert_eq!(answer("403 Forbidden").header("www-authenticate"), None);
}

#[test]
fn what_an_accelerated_redirect_leads_to_keeps_some_fields() {
    let fields =
        "X-Accel-Redirect: /other\r\nContent-Type: text/x\r\nSet-Cookie: a=b; path=/\r\nExpires: never\r\nX-A: b\r\n";
    let answer = got("proxy_cookie_path / /c/;", &format!("{OK}{fields}\r\n0123456789"));
    assert_eq!(answer.text(), "other");
    assert_eq!(answer.header("content-type"), Some("text/x"));
    assert_eq!(answer.header("set-cookie"), Some("a=b; path=/c/"));
    assert_eq!(answer.header("expires"), Some("never"));
    assert_eq!(answer.header("x-a"), None);
}

#[test]
fn how_much_is_kept_where_follows_from_the_sizes_of_a_level() {
    for (directives, expected) in [
        ("", (4096, 8 * 4096, 1 << 30, 8192)),
        ("proxy_buffers 4 16k;", (16 << 10, 64 << 10, 1 << 30, 32 << 10)),
        ("proxy_buffer_size 8k; proxy_busy_buffers_size 8k;", (4096, 8 * 4096, 1 << 30, 16 << 10)),
        ("proxy_max_temp_file_size 0;", (4096, 8 * 4096, 0, 8192)),
        ("proxy_max_temp_file_size 1m; proxy_temp_file_write_size 64k;", (4096, 8 * 4096, 1 << 20, 64 << 10)),
    ] {
        let bounds = conf(&format!("proxy_pass http://127.0.0.1; {directives}")).proxy.passing.bounds.clone().unwrap();
        assert_eq!((bounds.piece, bounds.memory, bounds.file, bounds.write), expected, "{directives}");
        let folder = (bounds.folder.path.to_str().unwrap(), &bounds.folder.levels[..], bounds.folder.built_in);
        assert_eq!(folder, ("/nowhere/proxy_temp", &[1, 2][..], true));
    }
    let given = conf("proxy_temp_path /t 3;").proxy.passing.bounds.clone().unwrap();
    assert_eq!((given.folder.path.to_str().unwrap(), &given.folder.levels[..]), ("/t", &[3][..]));
}

#[test]
fn a_store_has_a_path() {
    assert_eq!(fault("proxy_store \"\";"), "empty path");
    assert_eq!(conf("proxy_store on; proxy_store_access group:r;").proxy.passing.store_access.0, 0o640);
}
