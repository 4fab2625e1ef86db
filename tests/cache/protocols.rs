//! Caches before FastCGI, SCGI and uwsgi, and of answers that are asked for slice by slice.

use super::{KEPT, Site, files, holds, seen, text};
use crate::support::backend::Reply;
use crate::support::client::{Connection, Request, get};
use crate::support::component::find;
use crate::support::ports::free_port;
use crate::support::server::Server;
use crate::support::{binary, replaced};
use crate::versus::backend::{Backend, Speech, Step};

/// What a backend is to say in its protocol.
fn script(speech: Speech, answer: &str) -> Vec<Step> {
    let bytes = answer.as_bytes().to_vec();
    match speech {
        Speech::FastCgi => {
            vec![Step::Record(6, 5, bytes), Step::Record(6, 0, Vec::new()), Step::Record(3, 0, vec![0; 8])]
        }
        Speech::Uwsgi => vec![Step::Send([b"HTTP/1.1 200 OK\r\n", &bytes[..]].concat())],
        _ => vec![Step::Send(bytes)],
    }
}

const KINDS: [(&str, Speech); 3] = [("fastcgi", Speech::FastCgi), ("scgi", Speech::Scgi), ("uwsgi", Speech::Uwsgi)];

fn server(kind: &str, backend: &Backend, location: &str) -> Server {
    let (port, address) = (free_port(), backend.address());
    let conf = format!(
        "add_header X-Cache $upstream_cache_status always; {kind}_cache_path cache keys_zone=z:1m levels=1:2; \
         {kind}_param REQUEST_METHOD $request_method; {kind}_param QUERY_STRING $args; \
         server {{ listen 127.0.0.1:{port}; location / {{ {kind}_cache z; {kind}_cache_key $uri; \
         {kind}_pass {address}; {location} }} }}"
    );
    Server::http(port, &conf)
}

#[test]
fn answers_in_every_protocol_are_kept() {
    for (kind, speech) in KINDS {
        let backend = Backend::tcp(kind, speech);
        let server = server(kind, &backend, "");
        let port = server.port();
        backend.script(Some(script(
            speech,
            &format!("{KEPT}Content-Type: text/x\r\nX-A: b\r\nStatus: 203 Fine\r\n\r\nbody"),
        )));
        for cache in ["MISS", "HIT", "HIT"] {
            let answer = get(port, "/a?b");
            let status = if speech == Speech::Uwsgi { "200" } else { "203" };
            assert_eq!(seen(&answer), format!("{status} {cache} body"), "{kind}");
            assert_eq!((answer.header("Content-Type"), answer.header("X-A")), (Some("text/x"), Some("b")), "{kind}");
        }
        assert_eq!(backend.take_seen().len(), 1, "{kind}");
        // One that is too old, and none at all instead of it.
        backend.script(Some(script(speech, "X-Accel-Expires: @1\r\n\r\nold")));
        assert_eq!(
            (seen(&get(port, "/old")), seen(&get(port, "/old"))),
            ("200 MISS old".into(), "200 EXPIRED old".into())
        );
        backend.script(Some(vec![]));
        let failed = get(port, "/old");
        assert_eq!((failed.status, failed.header("X-Cache")), (502, Some("EXPIRED")), "{kind}");
        // What is kept is all of it.
        let folder = server.dir().path().join("cache");
        assert_eq!(files(&folder).len(), 2, "{kind}");
        let long = "x".repeat(50_000);
        backend.script(Some(script(speech, &format!("{KEPT}\r\n{long}"))));
        assert_eq!(seen(&get(port, "/long")), format!("200 MISS {long}"), "{kind}");
        assert_eq!(seen(&get(port, "/long")), format!("200 HIT {long}"), "{kind}");
        // A method is asked for as it is.
        backend.take_seen();
        let head = Connection::open(port).ask(&Request::new("HEAD", "/head"));
        assert_eq!((head.status, head.header("X-Cache")), (200, Some("MISS")), "{kind}");
        let asked = backend.take_seen().concat();
        assert!(asked.windows(4).any(|word| word == b"HEAD"), "{kind}: {}", String::from_utf8_lossy(&asked));
    }
}

#[test]
fn old_answers_of_every_protocol_may_hold_still() {
    for (kind, speech) in KINDS {
        let backend = Backend::tcp(kind, speech);
        let server = server(kind, &backend, &format!("{kind}_cache_revalidate on; {kind}_cache_use_stale http_503;"));
        let port = server.port();
        backend.script(Some(script(
            speech,
            "X-Accel-Expires: @1\r\nETag: \"one\"\r\nLast-Modified: Tue, 02 Jan 2024 03:04:05 GMT\r\n\r\nbody",
        )));
        assert_eq!(seen(&get(port, "/")), "200 MISS body", "{kind}");
        backend.take_seen();
        let answer = |status: &str, fields: &str| match speech {
            Speech::Uwsgi => vec![Step::Send(format!("HTTP/1.1 {status}\r\n{fields}\r\n").into_bytes())],
            _ => script(speech, &format!("Status: {status}\r\n{fields}\r\n")),
        };
        backend.script(Some(answer("503 Busy", "")));
        assert_eq!(seen(&get(port, "/")), "200 STALE body", "{kind}");
        backend.script(Some(answer("304 Not Modified", KEPT)));
        assert_eq!(seen(&get(port, "/")), "200 REVALIDATED body", "{kind}");
        for asked in backend.take_seen() {
            let asked = String::from_utf8_lossy(&asked).into_owned();
            for word in ["HTTP_IF_NONE_MATCH", "\"one\"", "HTTP_IF_MODIFIED_SINCE", "Tue, 02 Jan 2024 03:04:05 GMT"] {
                assert!(asked.contains(word), "{kind}: {asked}");
            }
        }
        assert_eq!(seen(&get(port, "/")), "200 HIT body", "{kind}");
    }
}

#[test]
fn what_a_client_asks_for_does_not_reach_whoever_answers_for_all() {
    for (kind, speech) in KINDS {
        let backend = Backend::tcp(kind, speech);
        let server = server(kind, &backend, "");
        let (folder, mut kept) = (server.dir().path().join("cache"), 0);
        backend.script(Some(script(
            speech,
            &format!("{KEPT}Accept-Ranges: bytes\r\nContent-Length: 4\r\nETag: \"one\"\r\n\r\nbody"),
        )));
        for (path, name, value, status) in [
            ("/a", "Range", "bytes=1-2", 206),
            ("/b", "If-None-Match", "\"one\"", 304),
            ("/c", "If-Range", "\"one\"", 200),
        ] {
            kept += 1;
            for cache in ["MISS", "HIT"] {
                let request = Request::get(path).header(name, value).header("X-Other", "kept");
                let answer = Connection::open(server.port()).ask(&request);
                assert_eq!((answer.status, answer.header("X-Cache")), (status, Some(cache)), "{kind} {name}");
                holds(&folder, kept);
            }
            let asked = String::from_utf8_lossy(&backend.take_seen().concat()).into_owned();
            assert!(
                asked.contains("HTTP_X_OTHER") && !asked.contains("HTTP_RANGE") && !asked.contains("HTTP_IF"),
                "{asked}"
            );
        }
    }
}

#[test]
fn fastcgi_answers_that_break_off_are_not_kept() {
    let backend = Backend::tcp("fastcgi", Speech::FastCgi);
    let server = server("fastcgi", &backend, "");
    let answer = format!("{KEPT}Content-Length: 4\r\n\r\nbody").into_bytes();
    let short = format!("{KEPT}Content-Length: 100\r\n\r\nbody").into_bytes();
    let end = Step::Record(3, 0, vec![0; 8]);
    for (path, steps) in [
        ("/b", vec![Step::Record(6, 0, short.clone()), Step::Record(6, 0, Vec::new()), end.clone()]),
        ("/c", vec![Step::Record(6, 0, short)]),
    ] {
        backend.script(Some(steps));
        for _ in 0..2 {
            assert_eq!(get(server.port(), path).header("X-Cache"), Some("MISS"), "{path}");
        }
    }
    assert_eq!(files(&server.dir().path().join("cache")).len(), 0);
    // All that was announced is there; what is missing is only the end of the request.
    backend.script(Some(vec![Step::Record(6, 0, answer), Step::Record(6, 0, Vec::new()), end]));
    assert_eq!(seen(&get(server.port(), "/a")), "200 MISS body");
    assert_eq!(seen(&get(server.port(), "/a")), "200 HIT body");
}

#[test]
fn slices_are_kept_one_by_one() {
    // Not every nginx has it.
    if replaced() && Some(binary()) != find("nginx") {
        return;
    }
    let letters = "abcdefghijklmnopqrstuvwxyz";
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; location / { proxy_cache z; \
                slice 10; proxy_cache_key $uri$slice_range; proxy_set_header Range $slice_range; \
                proxy_cache_valid 200 206 1h; proxy_pass http://%ORIGIN%; } }";
    let site = Site::of(conf, move |request| {
        let range = request.header("Range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        let (first, last) = range.expect("a range");
        let (first, last) = (first.parse::<usize>().unwrap(), last.parse::<usize>().unwrap().min(25));
        let fields = format!("ETag: \"az\"\r\nContent-Range: bytes {first}-{last}/26\r\n");
        text("206 Partial Content", &fields, &letters[first..=last])
    });
    let part = [("Range", "bytes=12-13")];
    for (fields, expected, hits) in [
        (&part[..], "206 MISS mn", 1),
        (&part, "206 HIT mn", 1),
        (&[], "200 MISS abcdefghijklmnopqrstuvwxyz", 3),
        (&[], "200 HIT abcdefghijklmnopqrstuvwxyz", 3),
        (&[("Range", "bytes=5-24")], "206 HIT fghijklmnopqrstuvwxy", 3),
        (&[("Range", "bytes=-1")], "206 HIT z", 3),
    ] {
        assert_eq!(site.see_with("/", fields), expected, "{fields:?}");
        assert_eq!(site.origin.hits(), hits, "{fields:?}");
    }
    assert_eq!(files(&site.cache()).len(), 3);
}

#[test]
fn a_subrequest_is_answered_from_the_cache_as_well() {
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; \
                location / { ssi on; ssi_types *; proxy_pass http://%ORIGIN%; } \
                location /part { proxy_cache z; proxy_pass http://%ORIGIN%; } \
                location /allowed { auth_request /auth; proxy_pass http://%ORIGIN%/part; } \
                location /auth { proxy_cache z; proxy_cache_key $http_who; proxy_pass http://%ORIGIN%; } }";
    let site = Site::of(conf, |request| match request.target() {
        "/part" => text("200 OK", KEPT, "part"),
        "/auth" => text(if request.header("Who") == Some("me") { "200 OK" } else { "403 No" }, KEPT, ""),
        _ => Reply::Text("<!--# include virtual=\"/part\" -->,<!--# include virtual=\"/part\" -->".into()),
    });
    for round in 1..=3 {
        assert_eq!(site.get("/").text(), "part,part");
        // The first two may be under way at once.
        assert!(site.origin.hits() <= 2 + round, "{}", site.origin.hits());
    }
    let before = site.origin.hits();
    for _ in 0..3 {
        assert_eq!(site.ask(&Request::get("/part")).text(), "part");
    }
    assert_eq!(site.origin.hits(), before);
    for (who, status) in [("me", 200), ("me", 200), ("you", 403), ("you", 403)] {
        assert_eq!(site.ask(&Request::get("/allowed").header("Who", who)).status, status);
    }
    // Two questions, and twice the answer to the one who may have it.
    assert_eq!(site.origin.hits(), before + 4);
}
