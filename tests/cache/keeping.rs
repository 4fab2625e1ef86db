//! Which answers are kept, and that only whole ones are.

use super::{Gate, KEPT, OLD, Site, begin, files, holds, is_older_than, seen, text};
use crate::support::backend::Reply;
use crate::support::client::{Connection, Request};
use crate::support::replaced;
use crate::support::wait::{SOON, until};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Far more than sockets hold.
const LARGE: usize = 8 << 20;

/// `LARGE` bytes that are different everywhere.
fn large() -> Vec<u8> {
    (0_u32..).flat_map(u32::to_le_bytes).take(LARGE).collect()
}

fn large_answer() -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\n{KEPT}Content-Length: {LARGE}\r\n\r\n").into_bytes(), large()].concat()
}

/// What the second request for an answer with these fields finds.
#[track_caller]
fn second(site: &Site, path: &str, status: &'static str, fields: &str) -> String {
    let (fields, status) = (fields.to_owned(), status.to_owned());
    site.origin.answers(move |_| text(&status, &fields, ""));
    let first = site.get(path);
    assert_eq!(first.header("X-Cache"), Some("MISS"), "{path}");
    site.get(path).header("X-Cache").unwrap_or("-").to_owned()
}

#[test]
fn an_answer_is_kept_as_its_fields_say() {
    // What comes first and what goes first is so since then.
    if is_older_than(23) {
        return;
    }
    let ignore = "proxy_ignore_headers X-Accel-Expires Expires Cache-Control Set-Cookie Vary; proxy_cache_valid 1m;";
    let conf = format!(
        "proxy_cache_path cache keys_zone=z:1m; server {{ listen 127.0.0.1:%PORT%; proxy_cache z; \
         location / {{ proxy_pass http://%ORIGIN%; }} \
         location /valid/ {{ proxy_cache_valid 1m; proxy_pass http://%ORIGIN%; }} \
         location /ignore/ {{ {ignore} proxy_pass http://%ORIGIN%; }} }}"
    );
    let site = Site::of(&conf, |_| Reply::Close);
    // Without `proxy_cache_valid`, with it, and with it where the fields say nothing.
    let cases = [
        ("", ["MISS", "HIT", "HIT"]),
        ("Cache-Control: max-age=600\r\n", ["HIT", "HIT", "HIT"]),
        ("Cache-Control: public\r\n", ["MISS", "HIT", "HIT"]),
        ("Cache-Control: MAX-AGE=600\r\n", ["HIT", "HIT", "HIT"]),
        ("Cache-Control: max-age=0\r\n", ["MISS", "MISS", "HIT"]),
        ("Cache-Control: max-age=600, s-maxage=0\r\n", ["MISS", "MISS", "HIT"]),
        ("Cache-Control: max-age=0, s-maxage=600\r\n", ["HIT", "HIT", "HIT"]),
        ("Cache-Control: max-age=x\r\n", ["MISS", "MISS", "HIT"]),
        ("Cache-Control: no-cache\r\n", ["MISS", "MISS", "HIT"]),
        ("Cache-Control: no-store\r\n", ["MISS", "MISS", "HIT"]),
        ("Cache-Control: private, max-age=600\r\n", ["MISS", "MISS", "HIT"]),
        ("Cache-Control: private\r\nCache-Control: max-age=600\r\n", ["MISS", "MISS", "HIT"]),
        ("Cache-Control: public\r\nCache-Control: max-age=600\r\n", ["HIT", "HIT", "HIT"]),
        ("Expires: Fri, 01 Jan 2100 00:00:00 GMT\r\n", ["HIT", "HIT", "HIT"]),
        ("Expires: Thu, 01 Jan 1970 00:00:01 GMT\r\n", ["MISS", "MISS", "HIT"]),
        ("Expires: 0\r\n", ["MISS", "MISS", "HIT"]),
        ("Expires: 0\r\nCache-Control: max-age=600\r\n", ["HIT", "HIT", "HIT"]),
        ("Cache-Control: max-age=600\r\nExpires: 0\r\n", ["HIT", "HIT", "HIT"]),
        ("Cache-Control: no-cache\r\nExpires: Fri, 01 Jan 2100 00:00:00 GMT\r\n", ["MISS", "MISS", "HIT"]),
        ("X-Accel-Expires: 600\r\n", ["HIT", "HIT", "HIT"]),
        ("X-Accel-Expires: @1\r\n", ["EXPIRED", "EXPIRED", "HIT"]),
        ("X-Accel-Expires: @4102444800\r\n", ["HIT", "HIT", "HIT"]),
        ("X-Accel-Expires: 0\r\n", ["MISS", "MISS", "HIT"]),
        ("X-Accel-Expires: x\r\n", ["MISS", "HIT", "HIT"]),
        ("X-Accel-Expires: 600\r\nCache-Control: no-store\r\n", ["HIT", "HIT", "HIT"]),
        ("Cache-Control: no-store\r\nX-Accel-Expires: 600\r\n", ["HIT", "HIT", "HIT"]),
        ("Expires: 0\r\nX-Accel-Expires: 600\r\n", ["HIT", "HIT", "HIT"]),
        ("Cache-Control: max-age=600\r\nX-Accel-Expires: 0\r\n", ["MISS", "MISS", "HIT"]),
        ("Cache-Control: max-age=600\r\nSet-Cookie: a=b\r\n", ["MISS", "MISS", "HIT"]),
        ("X-Accel-Expires: 600\r\nSet-Cookie: a=b\r\n", ["MISS", "MISS", "HIT"]),
        ("Cache-Control: max-age=600\r\nVary: *\r\n", ["MISS", "MISS", "HIT"]),
        ("Cache-Control: max-age=600\r\nVary: X-Some\r\n", ["HIT", "HIT", "HIT"]),
        ("Cache-Control: max-age=600\r\nPragma: no-cache\r\n", ["HIT", "HIT", "HIT"]),
    ];
    for (number, (fields, expected)) in cases.into_iter().enumerate() {
        for (location, expected) in ["", "/valid", "/ignore"].iter().zip(expected) {
            assert_eq!(
                second(&site, &format!("{location}/{number}"), "200 OK", fields),
                expected,
                "{location}: {fields}"
            );
        }
    }
}

#[test]
fn an_answer_is_kept_as_its_status_says() {
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; proxy_cache z; \
                location / { proxy_pass http://%ORIGIN%; } \
                location /usual/ { proxy_cache_valid 1m; proxy_pass http://%ORIGIN%; } \
                location /some/ { proxy_cache_valid 404 410 1m; proxy_cache_valid 200 0; proxy_cache_valid 206 1m; \
                                  proxy_pass http://%ORIGIN%; } \
                location /any/ { proxy_cache_valid 404 0; proxy_cache_valid any 1m; proxy_pass http://%ORIGIN%; } }";
    let site = Site::of(conf, |_| Reply::Close);
    let cases = [
        ("200 OK", ["MISS", "HIT", "MISS", "HIT"]),
        ("203 X", ["MISS", "MISS", "MISS", "HIT"]),
        ("204 X", ["MISS", "MISS", "MISS", "HIT"]),
        ("206 X", ["MISS", "MISS", "HIT", "HIT"]),
        ("301 X", ["MISS", "HIT", "MISS", "HIT"]),
        ("302 X", ["MISS", "HIT", "MISS", "HIT"]),
        ("304 X", ["MISS", "MISS", "MISS", "HIT"]),
        ("404 X", ["MISS", "MISS", "HIT", "MISS"]),
        ("410 X", ["MISS", "MISS", "HIT", "HIT"]),
        ("500 X", ["MISS", "MISS", "MISS", "HIT"]),
        ("503 X", ["MISS", "MISS", "MISS", "HIT"]),
    ];
    for (status, expected) in cases {
        for (location, expected) in ["", "/usual", "/some", "/any"].iter().zip(expected) {
            let path = format!("{location}/{}", &status[..3]);
            assert_eq!(second(&site, &path, status, ""), expected, "{location}: {status}");
            // What the answer says goes first.
            let kept = if status.starts_with("304") { expected } else { "HIT" };
            if !status.starts_with("304") {
                assert_eq!(second(&site, &format!("{path}/kept"), status, KEPT), kept, "{location}: {status}");
            }
        }
    }
}

#[test]
fn other_methods_are_kept_if_they_are_named() {
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; proxy_cache z; \
                location / { proxy_pass http://%ORIGIN%; } \
                location /post/ { proxy_cache_methods POST; proxy_cache_key $uri$request_body; \
                                  proxy_pass http://%ORIGIN%; } }";
    let site = Site::of(conf, |request| text("200 OK", KEPT, &String::from_utf8_lossy(&request.body)));
    let post = |path: &str, body: &str| seen(&site.ask(&Request::post(path, "text/plain", body)));
    let ask = |method: &str, path: &str| seen(&site.ask(&Request::new(method, path)));
    assert_eq!((post("/a", "x"), post("/a", "x")), ("200 - x".into(), "200 - x".into()));
    assert_eq!((post("/post/a", "x"), post("/post/a", "x")), ("200 MISS x".into(), "200 HIT x".into()));
    assert_eq!((post("/post/a", "y"), post("/post/a", "x")), ("200 MISS y".into(), "200 HIT x".into()));
    assert_eq!((ask("GET", "/post/b"), ask("GET", "/post/b")), ("200 MISS ".into(), "200 HIT ".into()));
    for method in ["PUT", "DELETE", "OPTIONS", "PATCH"] {
        assert_eq!(ask(method, "/post/b"), "200 - ", "{method}");
        assert_eq!(ask(method, "/b"), "200 - ", "{method}");
    }
}

#[test]
fn an_answer_is_kept_that_was_asked_for_often_enough() {
    let site = Site::new("", "proxy_cache_min_uses 3;", |_| text("200 OK", KEPT, ""));
    let seen: Vec<_> = (0..5).map(|_| site.see("/")).collect();
    assert_eq!(seen, ["200 MISS ", "200 MISS ", "200 MISS ", "200 HIT ", "200 HIT "]);
    assert_eq!(files(&site.cache()).len(), 1);
}

#[test]
fn a_failure_is_remembered_without_a_file() {
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; proxy_cache z; \
                location / { proxy_pass http://%ORIGIN%; } \
                location /502/ { proxy_cache_valid 502 1m; proxy_pass http://%ORIGIN%; } \
                location /504/ { proxy_cache_valid 504 1m; proxy_read_timeout 200ms; proxy_pass http://%ORIGIN%; } }";
    let site = Site::of(conf, |request| match request.target() {
        "/504/" => Reply::After(Duration::from_secs(1), Box::new(Reply::Close)),
        _ => Reply::Close,
    });
    for (path, status, second) in [("/", 502, "MISS"), ("/502/", 502, "HIT"), ("/504/", 504, "HIT")] {
        let before = site.origin.hits();
        for cache in ["MISS", second] {
            let answer = site.get(path);
            assert_eq!((answer.status, answer.header("X-Cache")), (status, Some(cache)), "{path}");
        }
        assert_eq!(site.origin.hits() - before, if second == "HIT" { 1 } else { 2 }, "{path}");
    }
    assert_eq!(files(&site.cache()).len(), 0);
}

#[test]
fn a_page_in_place_of_an_answer_is_given_again() {
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; proxy_cache z; \
                proxy_intercept_errors on; error_page 404 403 /page; \
                location / { proxy_pass http://%ORIGIN%; } \
                location /valid/ { proxy_cache_valid 404 1m; proxy_pass http://%ORIGIN%; } \
                location = /page { return 200 page; } }";
    let site = Site::of(conf, |_| text("404 X", "", "theirs"));
    for _ in 0..2 {
        assert_eq!(site.see("/"), "404 MISS page");
    }
    assert_eq!(site.origin.hits(), 2);
    assert_eq!(site.see("/valid/"), "404 MISS page");
    assert_eq!(site.see("/valid/"), "404 HIT page");
    assert_eq!(site.origin.hits(), 3);
    site.origin.says("404 X", KEPT, "theirs");
    assert_eq!((site.see("/said"), site.see("/said")), ("404 MISS page".into(), "404 HIT page".into()));
    site.origin.says("403 X", "Cache-Control: no-store\r\n", "theirs");
    assert_eq!((site.see("/not"), site.see("/not")), ("403 MISS page".into(), "403 MISS page".into()));
    assert_eq!(files(&site.cache()).len(), 0);
}

#[test]
fn what_is_passed_on_as_it_comes_is_not_kept() {
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; proxy_cache z; \
                location / { proxy_pass http://%ORIGIN%; } \
                location /off { proxy_buffering off; proxy_pass http://%ORIGIN%; } }";
    let site = Site::of(conf, |_| text("200 OK", KEPT, "x"));
    assert_eq!((site.see("/off"), site.see("/off")), ("200 MISS x".into(), "200 MISS x".into()));
    site.origin.says("200 OK", "Cache-Control: max-age=600\r\nX-Accel-Buffering: no\r\n", "y");
    assert_eq!((site.see("/"), site.see("/")), ("200 MISS y".into(), "200 MISS y".into()));
    assert_eq!(files(&site.cache()).len(), 0);
}

#[test]
fn an_answer_is_kept_though_its_client_has_left() {
    let gate = Gate::default();
    let held = gate.clone();
    let site = Site::new("", "", move |_| {
        held.pass();
        Reply::Keep(large_answer())
    });
    let mut kept = 0;
    // Before anything was there: nginx waits for it, and then forgets it.
    if !replaced() {
        let first = begin(site.port, "/early");
        site.origin.has(1);
        drop(first);
        kept += 1;
    }
    gate.open();
    holds(&site.cache(), kept);
    // In the middle of it.
    let mut second = begin(site.port, "/late");
    assert_eq!(second.read_exact(15), b"HTTP/1.1 200 OK");
    drop(second);
    holds(&site.cache(), kept + 1);
    let paths = if replaced() { &["/late"][..] } else { &["/early", "/late"] };
    for path in paths {
        let answer = site.get(path).expect(200);
        assert_eq!(answer.header("X-Cache"), Some("HIT"));
        assert!(answer.body == large());
    }
    assert_eq!(site.origin.hits(), kept + 1);
}

#[test]
fn a_slow_client_does_not_keep_others_waiting() {
    let site = Site::new("", "", |_| Reply::Keep(large_answer()));
    let mut slow = begin(site.port, "/");
    let mut answer = None;
    until("it is kept", SOON, || {
        let other = site.get("/").expect(200);
        let kept = other.header("X-Cache") == Some("HIT");
        answer = Some(other);
        kept
    });
    assert!(answer.unwrap().body == large());
    let mut other = begin(site.port, "/");
    // The file goes, what was opened stays.
    assert_eq!(other.read_exact(15), b"HTTP/1.1 200 OK");
    for file in files(&site.cache()) {
        std::fs::remove_file(file).unwrap();
    }
    let rest = slow.answer("GET").expect(200);
    assert!(rest.header("X-Cache") == Some("MISS") && rest.body == large());
    assert!(other.read_to_end().ends_with(&large()));
    assert_eq!(files(&site.server.dir().path().join("proxy_temp")), Vec::<std::path::PathBuf>::new());
}

#[test]
fn of_an_answer_that_breaks_off_nothing_is_kept() {
    for parameters in ["", "use_temp_path=off levels=1:2"] {
        let site = Site::new(parameters, "", |request| match request.target() {
            "/length" => Reply::Raw(format!("HTTP/1.1 200 OK\r\n{KEPT}Content-Length: 100\r\n\r\nfirst").into()),
            "/chunks" => {
                Reply::Raw(format!("HTTP/1.1 200 OK\r\n{KEPT}Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").into())
            }
            "/large" => Reply::Raw(large_answer()[..LARGE - 1].to_vec()),
            "/stalls" => Reply::Slowly(
                vec![format!("HTTP/1.1 200 OK\r\n{KEPT}Content-Length: 100\r\n\r\nfirst").into()],
                Duration::from_millis(200),
            ),
            _ => text("200 OK", KEPT, "whole"),
        });
        for path in ["/length", "/chunks", "/large", "/stalls"] {
            for _ in 0..2 {
                let answer = site.get(path);
                assert_eq!(
                    (answer.status, answer.header("X-Cache"), answer.complete),
                    (200, Some("MISS"), false),
                    "{path}"
                );
            }
        }
        assert_eq!((site.see("/"), site.see("/")), ("200 MISS whole".into(), "200 HIT whole".into()));
        holds(&site.cache(), 1);
        holds(&site.server.dir().path().join("proxy_temp"), 0);
    }
}

#[test]
fn an_answer_that_ends_with_its_connection_is_whole() {
    let site = Site::new("", "", |request| match request.target() {
        "/chunks" => Reply::Keep(
            format!("HTTP/1.1 200 OK\r\n{KEPT}Transfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n").into_bytes(),
        ),
        _ => Reply::Raw(format!("HTTP/1.0 200 OK\r\n{KEPT}\r\nwhole").into_bytes()),
    });
    for path in ["/", "/chunks"] {
        assert_eq!((site.see(path), site.see(path)), ("200 MISS whole".into(), "200 HIT whole".into()), "{path}");
        // What it did not say is not said later, either.
        let again = site.get(path);
        assert_eq!(
            (again.header("Content-Length"), again.header("Transfer-Encoding")),
            (None, Some("chunked")),
            "{path}"
        );
    }
}

#[test]
fn answers_without_a_body_are_kept() {
    let site = Site::new("", "proxy_cache_valid any 1m;", |request| match request.target() {
        "/204" => Reply::Keep(b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n".to_vec()),
        _ => text("200 OK", "X-A: b\r\n", ""),
    });
    for (path, status) in [("/204", 204), ("/", 200)] {
        for cache in ["MISS", "HIT", "HIT"] {
            let answer = site.get(path).expect(status);
            assert_eq!(
                (answer.header("X-Cache"), answer.header("X-A"), answer.text()),
                (Some(cache), Some("b"), String::new())
            );
        }
    }
    assert_eq!(site.origin.hits(), 2);
}

#[test]
fn an_answer_that_is_stored_twice_at_once_is_one_of_both() {
    let gate = Gate::default();
    let (held, count) = (gate.clone(), AtomicUsize::new(0));
    let site = Site::new("", "", move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        held.pass();
        text("200 OK", KEPT, &number.to_string().repeat(100_000))
    });
    let all: Vec<_> = (0..8).map(|_| begin(site.port, "/")).collect();
    site.origin.has(8);
    gate.open();
    let bodies: Vec<_> = all.into_iter().map(|mut one| one.answer("GET").expect(200).text()).collect();
    until("it is kept", SOON, || site.get("/").header("X-Cache") == Some("HIT"));
    let kept = site.get("/").expect(200).text();
    assert!(bodies.contains(&kept));
    assert_eq!(files(&site.cache()).len(), 1);
    assert_eq!(files(&site.server.dir().path().join("proxy_temp")).len(), 0);
}

#[test]
fn a_key_that_is_too_long_is_told() {
    let site = Site::new("", "proxy_buffer_size 1k; proxy_cache_key $arg_key;", |_| text("200 OK", KEPT, "x"));
    let key = "k".repeat(500);
    for _ in 0..2 {
        assert_eq!(site.see(&format!("/?key={key}")), "200 - x");
    }
    let text = "proxy_buffer_size 1024 is not enough for cache key, it should be increased to at least 2048";
    assert!(site.server.error_log().contains(text), "{}", site.server.error_log());
    assert_eq!((site.see("/?key=short"), site.see("/?key=short")), ("200 MISS x".into(), "200 HIT x".into()));
}

#[test]
fn a_head_with_its_key_has_to_fit_a_buffer() {
    let site = Site::new("", "proxy_buffer_size 1k;", |request| {
        let field = format!("{KEPT}X-Long: {}\r\n", "x".repeat(2 * request.target().len()));
        text("200 OK", &field, "x")
    });
    assert_eq!((site.see("/"), site.see("/")), ("200 MISS x".into(), "200 HIT x".into()));
    let long = format!("/{}", "x".repeat(270));
    assert_eq!(site.get(&long).status, 502);
    assert!(
        site.server.error_log().contains("upstream sent too big header while reading response header from upstream")
    );
}

#[test]
fn variables_name_the_cache() {
    let conf = "proxy_cache_path a keys_zone=a:1m; proxy_cache_path b keys_zone=b:1m; \
                server { listen 127.0.0.1:%PORT%; location / { proxy_cache $arg_zone; proxy_cache_key k; \
                proxy_pass http://%ORIGIN%; } }";
    let count = AtomicUsize::new(0);
    let site = Site::of(conf, move |_| text("200 OK", KEPT, &count.fetch_add(1, Ordering::SeqCst).to_string()));
    for (zone, expected) in [
        ("a", "200 MISS 0"),
        ("b", "200 MISS 1"),
        ("a", "200 HIT 0"),
        ("b", "200 HIT 1"),
        ("off", "200 - 2"),
        ("", "200 - 3"),
    ] {
        assert_eq!(site.see(&format!("/?zone={zone}")), expected, "{zone}");
    }
    assert_eq!(site.get("/?zone=c").status, 500);
    site.server.expect_log(&["[error]", "cache \"c\" not found"]);
    let folder = |name: &str| files(&site.server.dir().path().join(name)).len();
    assert_eq!((folder("a"), folder("b")), (1, 1));
}

#[test]
fn a_redirect_inside_is_not_kept_and_its_target_may_be() {
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; proxy_cache z; \
                location / { proxy_pass http://%ORIGIN%; } }";
    let site = Site::of(conf, |request| match request.target() {
        "/from" => text("200 OK", "Cache-Control: max-age=600\r\nX-Accel-Redirect: /to\r\n", "from"),
        _ => text("200 OK", KEPT, "to"),
    });
    assert_eq!(site.see("/from"), "200 MISS to");
    assert_eq!(site.see("/from"), "200 HIT to");
    assert_eq!(site.origin.hits(), 3);
    assert_eq!(files(&site.cache()).len(), 1);
}

#[test]
fn many_clients_at_once_see_what_they_asked_for() {
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; \
                location / { proxy_cache z; proxy_cache_lock on; proxy_pass http://%ORIGIN%; } }";
    let site = Site::threaded(conf, |request| match request.target() {
        "/old" => text("200 OK", OLD, request.target()),
        path => text("200 OK", KEPT, path),
    });
    let port = site.port;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(move || {
                let mut connection = Connection::open(port);
                for round in 0..200 {
                    let path = if round % 7 == 0 { "/old".to_owned() } else { format!("/{}", round % 50) };
                    assert_eq!(connection.get(&path).expect(200).text(), path);
                }
            });
        }
    });
    let log = site.server.error_log();
    assert!(!log.contains("[crit]") && !log.contains("[alert]"), "{log}");
    assert!(site.origin.hits() < 50 + 4 * 30, "{}", site.origin.hits());
}
