//! How requests fare: the words of `$upstream_cache_status`, and what stands behind each of them.

use super::{Gate, KEPT, OLD, Site, begin, files, holds, is_older_than, seen, text};
use crate::support::backend::Reply;
use crate::support::wait::{SOON, until};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Says how often it was asked.
fn counting(fields: &'static str) -> impl Fn(&crate::support::backend::Received) -> Reply + Send + Sync + 'static {
    let count = AtomicUsize::new(0);
    move |_| text("200 OK", fields, &(count.fetch_add(1, Ordering::SeqCst) + 1).to_string())
}

#[test]
fn what_was_fetched_once_is_given_from_then_on() {
    let site = Site::new("", "", |request| {
        text(
            "203 Fine",
            "Cache-Control: max-age=600\r\nContent-Type: text/x; charset=y\r\nX-One: 1\r\nX-Accel-Buffering: yes\r\n\
             Server: other\r\nLink: a\r\nLink: b\r\n",
            request.target(),
        )
    });
    let first = site.get("/a?b");
    assert_eq!(seen(&first), "203 MISS /a?b");
    for _ in 0..3 {
        let again = site.get("/a?b");
        assert_eq!(seen(&again), "203 HIT /a?b");
        assert_eq!(first.line(), again.line());
        for name in ["Content-Type", "Content-Length", "X-One", "Link", "Cache-Control", "Server", "X-Accel-Buffering"]
        {
            assert_eq!(first.headers(name), again.headers(name), "{name}");
        }
        assert!(again.header("Date").is_some());
    }
    assert_eq!(site.see("/a?c"), "203 MISS /a?c");
    assert_eq!(site.see("/a"), "203 MISS /a");
    assert_eq!(site.origin.hits(), 3);
}

#[test]
fn what_is_too_old_is_fetched_anew() {
    let site = Site::new("", "", counting(OLD));
    assert_eq!(site.see("/"), "200 MISS 1");
    assert_eq!(site.see("/"), "200 EXPIRED 2");
    assert_eq!(site.see("/"), "200 EXPIRED 3");
    site.origin.says("200 OK", KEPT, "last");
    assert_eq!(site.see("/"), "200 EXPIRED last");
    assert_eq!(site.see("/"), "200 HIT last");
}

#[test]
fn what_comes_instead_and_is_not_to_be_kept_leaves_the_old_one() {
    let site = Site::new("", "", counting(OLD));
    site.see("/");
    site.origin.says("200 OK", "Cache-Control: no-store\r\n", "secret");
    assert_eq!(site.see("/"), "200 EXPIRED secret");
    assert_eq!(site.see("/"), "200 EXPIRED secret");
    assert_eq!(files(&site.cache()).len(), 1);
}

#[test]
fn a_bypass_asks_the_upstream_and_keeps_what_it_says() {
    let site = Site::new("", "proxy_cache_bypass $arg_fresh $http_pragma; proxy_cache_key $uri;", counting(KEPT));
    assert_eq!(site.see("/?fresh=1"), "200 BYPASS 1");
    assert_eq!(site.see("/"), "200 HIT 1");
    assert_eq!(site.see_with("/", &[("Pragma", "no-cache")]), "200 BYPASS 2");
    assert_eq!(site.see("/?fresh=0"), "200 HIT 2");
    assert_eq!(site.see("/?fresh="), "200 HIT 2");
}

#[test]
fn what_is_not_to_be_kept_by_a_variable_is_not() {
    let location = "proxy_no_cache $arg_not $upstream_http_x_not; proxy_cache_key $uri;";
    let site = Site::new("", location, counting("Cache-Control: max-age=600\r\n"));
    assert_eq!(site.see("/?not=1"), "200 MISS 1");
    assert_eq!(site.see("/"), "200 MISS 2");
    assert_eq!(site.see("/?not=1"), "200 HIT 2");
    site.origin.says("200 OK", "Cache-Control: max-age=600\r\nX-Not: 1\r\n", "x");
    assert_eq!(site.see("/other"), "200 MISS x");
    assert_eq!(site.see("/other"), "200 MISS x");
}

#[test]
fn an_answer_is_asked_for_by_its_own_key() {
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; proxy_cache z; \
                location / { proxy_pass http://%ORIGIN%; } \
                location /under/ { proxy_pass http://%ORIGIN%/a/; } \
                location /one { proxy_cache_key $cookie_who; proxy_pass http://%ORIGIN%; } \
                location /off { proxy_cache off; proxy_pass http://%ORIGIN%; } }";
    let site = Site::of(conf, |request| text("200 OK", KEPT, request.target()));
    for (path, fields, expected) in [
        ("/a/b", "", "200 MISS /a/b"),
        // The key is where it comes from.
        ("/under/b", "", "200 HIT /a/b"),
        ("/one/1", "who=me", "200 MISS /one/1"),
        ("/one/2", "who=me", "200 HIT /one/1"),
        ("/one/2", "who=you", "200 MISS /one/2"),
        ("/off", "", "200 - /off"),
        ("/off", "", "200 - /off"),
    ] {
        assert_eq!(site.see_with(path, &[("Cookie", fields)]), expected, "{path} {fields}");
    }
}

#[test]
fn an_old_answer_is_given_while_another_request_fetches_it_anew() {
    let site = Site::new("", "proxy_cache_use_stale updating;", counting(OLD));
    assert_eq!(site.see("/"), "200 MISS 1");
    let gate = Gate::default();
    let held = gate.clone();
    site.origin.answers(move |_| {
        held.pass();
        text("200 OK", KEPT, "new")
    });
    let mut first = begin(site.port, "/");
    site.origin.has(2);
    for _ in 0..3 {
        assert_eq!(site.see("/"), "200 UPDATING 1");
    }
    gate.open();
    assert_eq!(seen(&first.answer("GET")), "200 EXPIRED new");
    site.comes_to("/", "200 HIT new");
    assert_eq!(site.origin.hits(), 2);
}

#[test]
fn whoever_fetches_it_anew_in_vain_leaves_that_to_the_next() {
    let site = Site::new("", "proxy_cache_use_stale updating;", counting(OLD));
    assert_eq!(site.see("/"), "200 MISS 1");
    site.origin.answers(|_| Reply::Close);
    for _ in 0..2 {
        assert_eq!(site.get("/").status, 502);
    }
    site.origin.says("200 OK", KEPT, "new");
    assert_eq!(site.see("/"), "200 EXPIRED new");
    assert_eq!(site.see("/"), "200 HIT new");
}

#[test]
fn in_the_cases_that_are_named_an_old_answer_will_do() {
    // A length that is none is an invalid header since then.
    if is_older_than(23) {
        return;
    }
    let silent = || Reply::After(Duration::from_secs(2), Box::new(Reply::Close));
    let cases: [(&str, u16, fn() -> Reply); 10] = [
        ("error", 502, || Reply::Close),
        ("timeout", 504, silent),
        ("invalid_header", 502, || Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".to_vec())),
        ("http_500", 500, || text("500 Bad", "", "")),
        ("http_502", 502, || text("502 Bad", "", "")),
        ("http_503", 503, || text("503 Bad", "", "")),
        ("http_504", 504, || text("504 Bad", "", "")),
        ("http_403", 403, || text("403 Bad", "", "")),
        ("http_404", 404, || text("404 Bad", "", "")),
        ("http_429", 429, || text("429 Bad", "", "")),
    ];
    // Whoever says nothing is asked where nobody waits for long; all others take their time.
    let place = |case: &str, timeout: &str| {
        format!("{{ proxy_pass http://%ORIGIN%; proxy_read_timeout {timeout}; proxy_cache_use_stale {case}; }}")
    };
    let locations: String = cases
        .iter()
        .map(|(case, ..)| {
            format!("location /{case} {} location /soon/{case} {}", place(case, "1m"), place(case, "200ms"))
        })
        .collect();
    let conf = format!(
        "proxy_cache_path cache keys_zone=z:1m; server {{ listen 127.0.0.1:%PORT%; proxy_cache z; \
         proxy_cache_key $arg_key; {locations} }}"
    );
    let site = Site::of(&conf, |_| text("200 OK", OLD, "old"));
    for (case, status, reply) in cases {
        site.origin.says("200 OK", OLD, "old");
        assert_eq!(site.see(&format!("/{case}?key={case}")), "200 MISS old");
        site.origin.answers(move |_| reply());
        for (other, ..) in cases {
            let path = match case {
                // Two of them will do: each takes its time.
                "timeout" if !matches!(other, "timeout" | "error") => continue,
                "timeout" => "/soon",
                _ => "",
            };
            let answer = site.get(&format!("{path}/{other}?key={case}"));
            let cache = answer.header("X-Cache").unwrap_or_default().to_owned();
            match case == other {
                true => assert_eq!(seen(&answer), "200 STALE old", "{case}"),
                false => assert_eq!((answer.status, &*cache), (status, "EXPIRED"), "{case} with {other}"),
            }
        }
    }
}

#[test]
fn an_old_answer_will_do_where_nobody_can_be_asked() {
    let mut site = Site::new("", "proxy_cache_use_stale error;", counting(OLD));
    assert_eq!(site.see("/"), "200 MISS 1");
    site.origin.backend.kill();
    assert_eq!(site.see("/"), "200 STALE 1");
    assert_eq!(site.see("/"), "200 STALE 1");
    assert_eq!(site.get("/other").status, 502);
    site.origin.backend.restart();
    site.comes_to("/", "200 EXPIRED 2");
}

#[test]
fn an_answer_says_itself_how_long_its_old_form_will_do() {
    // Both fields count since then.
    if is_older_than(23) {
        return;
    }
    let fields = "X-Accel-Expires: @1\r\nCache-Control: stale-while-revalidate=2000000000\r\n";
    let site =
        Site::new("", "", move |request| text("200 OK", if request.target() == "/" { fields } else { OLD }, "old"));
    assert_eq!((site.see("/"), site.see("/plain")), ("200 MISS old".into(), "200 MISS old".into()));
    let gate = Gate::default();
    let held = gate.clone();
    site.origin.answers(move |_| {
        held.pass();
        Reply::Close
    });
    let mut first = begin(site.port, "/");
    site.origin.has(3);
    assert_eq!(site.see("/"), "200 UPDATING old");
    gate.open();
    // It is a time for errors as well.
    assert_eq!(seen(&first.answer("GET")), "200 STALE old");
    assert_eq!(site.get("/plain").status, 502);
    // But only where there is no answer at all.
    site.origin.says("503 Busy", "", "busy");
    assert_eq!(site.see("/"), "503 EXPIRED busy");
    site.origin.says("200 OK", "X-Accel-Expires: @1\r\nCache-Control: stale-if-error=2000000000\r\n", "other");
    assert_eq!(site.see("/"), "200 EXPIRED other");
    site.origin.answers(|_| Reply::Close);
    assert_eq!(site.see("/"), "200 STALE other");
}

#[test]
fn an_old_answer_is_given_at_once_and_renewed_behind_it() {
    for location in ["proxy_cache_use_stale updating;", ""] {
        let fields = match location {
            // Both fields count since then.
            "" if is_older_than(23) => continue,
            "" => "X-Accel-Expires: @1\r\nCache-Control: stale-while-revalidate=2000000000\r\n",
            _ => OLD,
        };
        let site = Site::new("", &format!("proxy_cache_background_update on; {location}"), counting(fields));
        assert_eq!(site.see("/"), "200 MISS 1");
        let gate = Gate::default();
        let held = gate.clone();
        site.origin.answers(move |_| {
            held.pass();
            text("200 OK", KEPT, "new")
        });
        let mut first = begin(site.port, "/");
        let answer = first.answer("GET");
        assert_eq!(seen(&answer), "200 STALE 1");
        site.origin.has(2);
        for _ in 0..3 {
            assert_eq!(site.see("/"), "200 UPDATING 1");
        }
        gate.open();
        site.comes_to("/", "200 HIT new");
        let requests = site.origin.backend.requests();
        assert_eq!(requests.len(), 2);
        assert_eq!(requests[0].head, requests[1].head);
    }
}

#[test]
fn a_renewal_behind_an_answer_may_fail() {
    let location = "proxy_cache_background_update on; proxy_cache_use_stale updating;";
    let site = Site::new("", location, counting(OLD));
    assert_eq!(site.see("/"), "200 MISS 1");
    site.origin.answers(|_| Reply::Close);
    for round in 0..3 {
        assert_eq!(site.see("/"), "200 STALE 1");
        site.origin.has(2 + round);
        // Whoever failed has given up by then.
        until("it can be tried again", SOON, || {
            site.server.error_log().matches("upstream prematurely closed connection").count() == 1 + round
        });
    }
    site.origin.says("200 OK", KEPT, "new");
    site.comes_to("/", "200 HIT new");
}

#[test]
fn an_old_answer_may_hold_still() {
    let old = "X-Accel-Expires: @1\r\nETag: \"one\"\r\nLast-Modified: Tue, 02 Jan 2024 03:04:05 GMT\r\n";
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; proxy_cache z; \
                location / { proxy_pass http://%ORIGIN%; } \
                location /again/ { proxy_cache_revalidate on; proxy_pass http://%ORIGIN%; } }";
    let site = Site::of(conf, move |_| text("200 OK", old, "body"));
    assert_eq!((site.see("/a"), site.see("/again/b")), ("200 MISS body".into(), "200 MISS body".into()));
    let condition = || {
        let last = site.origin.last();
        let of = |name| last.header(name).unwrap_or("-").to_owned();
        (of("If-None-Match"), of("If-Modified-Since"))
    };
    assert_eq!(condition(), ("-".into(), "-".into()));
    let asked = ("\"one\"".to_owned(), "Tue, 02 Jan 2024 03:04:05 GMT".to_owned());
    // Another body in its place.
    assert_eq!(site.see("/again/b"), "200 EXPIRED body");
    assert_eq!(condition(), asked);
    // What a client has says nothing of what is here.
    assert_eq!(site.see_with("/a", &[("If-None-Match", "\"none\"")]), "200 EXPIRED body");
    assert_eq!(condition(), ("-".into(), "-".into()));

    let file = |path: &str| {
        let key = format!("KEY: http://{}{path}\n", site.origin.backend.address());
        let has = |file: &std::path::PathBuf| {
            std::fs::read(file).unwrap().windows(key.len()).any(|part| part == key.as_bytes())
        };
        files(&site.cache()).into_iter().find(has).expect("its file")
    };
    let facts = |path: &str| {
        let file = file(path);
        (std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&file).unwrap()), std::fs::read(&file).unwrap())
    };
    let before = facts("/again/b");
    site.origin.says("304 Not Modified", "Cache-Control: max-age=600\r\nETag: \"two\"\r\nX-New: 1\r\n", "");
    let again = site.get("/again/b");
    assert_eq!((seen(&again), again.header("ETag")), ("200 REVALIDATED body".into(), Some("\"one\"")));
    assert_eq!(again.header("X-New"), None);
    assert_eq!(condition(), asked);
    assert_eq!(site.see("/again/b"), "200 HIT body");
    let after = facts("/again/b");
    assert_eq!(before.0, after.0, "it is the same file");
    assert_eq!(before.1[336..], after.1[336..], "but for what stands before the answer");
    assert_ne!(before.1[..336], after.1[..336]);
    let hits = site.origin.hits();
    site.see("/again/b");
    assert_eq!(site.origin.hits(), hits);
}

#[test]
fn for_how_long_an_old_answer_holds_still_is_said_by_whoever_says_something() {
    let location = "proxy_cache_revalidate on; proxy_cache_valid 200 10m; proxy_ignore_headers X-Accel-Expires;";
    for (ignored, renewed) in [("", "200 REVALIDATED body"), (location, "200 HIT body")] {
        let conf = format!(
            "proxy_cache_path cache keys_zone=z:1m; server {{ listen 127.0.0.1:%PORT%; proxy_cache z; \
             proxy_cache_key $arg_key; \
             location / {{ proxy_cache_revalidate on; proxy_pass http://%ORIGIN%; }} \
             location /other {{ proxy_cache_revalidate on; proxy_pass http://%ORIGIN%; {} }} }}",
            ignored.replacen("proxy_cache_revalidate on;", "", 1)
        );
        let site = Site::of(&conf, |_| text("200 OK", "X-Accel-Expires: @1\r\nETag: \"one\"\r\n", "body"));
        assert_eq!(site.see("/?key=1"), "200 MISS body");
        site.origin.says("304 Not Modified", "", "");
        assert_eq!(site.see("/other?key=1"), "200 REVALIDATED body");
        assert_eq!(site.see("/other?key=1"), renewed);
    }
}

#[test]
fn a_client_learns_that_what_it_has_still_holds() {
    let fields = "Cache-Control: max-age=600\r\nETag: \"one\"\r\nLast-Modified: Tue, 02 Jan 2024 03:04:05 GMT\r\n";
    let site = Site::new("", "", move |_| text("200 OK", fields, "body"));
    let cases = [
        ("If-None-Match", "\"one\"", 304),
        ("If-None-Match", "\"two\"", 200),
        ("If-None-Match", "W/\"one\"", 304),
        ("If-Modified-Since", "Tue, 02 Jan 2024 03:04:05 GMT", 304),
        ("If-Modified-Since", "Tue, 02 Jan 2024 03:04:06 GMT", 200),
        ("If-Match", "\"two\"", 412),
        ("If-Unmodified-Since", "Tue, 02 Jan 2024 03:04:04 GMT", 412),
    ];
    let mut kept = 0;
    for (number, (name, value, status)) in cases.into_iter().enumerate() {
        // Once on its way into the cache, and once out of it.
        let path = format!("/{number}");
        for cache in ["MISS", "HIT"] {
            // An error takes the place of an answer.
            let cache = if status == 412 { "MISS" } else { cache };
            let answer = site.ask(&super::with(&path, &[(name, value)]));
            assert_eq!((answer.status, answer.header("X-Cache")), (status, Some(cache)), "{name}: {value}");
            assert_eq!(site.origin.last().header(name), None);
            kept += usize::from(cache == "MISS" && status != 412);
            holds(&site.cache(), kept);
        }
        if status == 412 {
            kept += 1;
            assert_eq!(site.see(&path), "200 MISS body");
            holds(&site.cache(), kept);
            assert_eq!(site.ask(&super::with(&path, &[(name, value)])).status, 412);
        }
        assert_eq!(site.see(&path), "200 HIT body");
    }
    // An answer that says it is not to be kept is the upstream's to judge.
    site.origin.says("200 OK", "Cache-Control: private\r\nETag: \"one\"\r\n", "body");
    assert_eq!(site.see_with("/not", &[("If-None-Match", "\"one\"")]), "200 MISS body");
}
