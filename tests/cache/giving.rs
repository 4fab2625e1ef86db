//! What is given of answers that are kept: without their bodies, in parts, in variants, packed.

use super::files::restart;
use super::{KEPT, Site, holds, seen, text, with};
use crate::support::backend::{Received, Reply};
use crate::support::client::Request;
use crate::support::replaced;

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

/// The letters, or the part of them that is asked for.
fn letters(request: &Received) -> Reply {
    let fields =
        format!("{KEPT}Accept-Ranges: bytes\r\nETag: \"az\"\r\nLast-Modified: Tue, 02 Jan 2024 03:04:05 GMT\r\n");
    let range = request.header("Range").and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?.min(25)))
    });
    match range {
        Some((first, last)) => {
            let fields = format!("{fields}Content-Range: bytes {first}-{last}/26\r\n");
            text("206 Partial Content", &fields, &LETTERS[first..=last])
        }
        None => text("200 OK", &fields, LETTERS),
    }
}

#[test]
fn head_is_asked_as_get_so_that_the_body_is_there_for_others() {
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; proxy_cache z; \
                location / { proxy_pass http://%ORIGIN%; } \
                location /apart { proxy_cache_convert_head off; proxy_cache_key $request_method$uri; \
                                  proxy_pass http://%ORIGIN%; } \
                location /uncached { proxy_cache off; proxy_pass http://%ORIGIN%; } }";
    let site = Site::of(conf, |request| match request.method() {
        "HEAD" => Reply::Keep(format!("HTTP/1.1 200 OK\r\n{KEPT}Content-Length: 5\r\n\r\n").into_bytes()),
        _ => text("200 OK", KEPT, "hello"),
    });
    let ask = |method: &str, path: &str| {
        let answer = site.ask(&Request::new(method, path)).expect(200);
        assert_eq!(answer.header("Content-Length"), Some("5"), "{method} {path}");
        seen(&answer)
    };
    let mut kept = 0;
    for (method, path, expected, asked) in [
        ("HEAD", "/a", "200 MISS ", "GET"),
        ("GET", "/a", "200 HIT hello", ""),
        ("HEAD", "/a", "200 HIT ", ""),
        ("GET", "/b", "200 MISS hello", "GET"),
        ("HEAD", "/b", "200 HIT ", ""),
        ("HEAD", "/apart", "200 MISS ", "HEAD"),
        ("GET", "/apart", "200 MISS hello", "GET"),
        ("HEAD", "/apart", "200 HIT ", ""),
        ("GET", "/apart", "200 HIT hello", ""),
        ("HEAD", "/uncached", "200 - ", "HEAD"),
    ] {
        let before = site.origin.hits();
        assert_eq!(ask(method, path), expected, "{method} {path}");
        let hits = site.origin.hits() - before;
        assert_eq!(hits, usize::from(!asked.is_empty()), "{method} {path}");
        if hits > 0 {
            assert_eq!(site.origin.last().method(), asked, "{method} {path}");
        }
        if expected.contains("MISS") {
            kept += 1;
            holds(&site.cache(), kept);
        }
    }
}

#[test]
fn parts_are_given_of_what_is_kept_whole() {
    let site = Site::new("", "", letters);
    let cases: [(&[(&str, &str)], u16, &str, &str); 13] = [
        (&[("Range", "bytes=0-3")], 206, "bytes 0-3/26", "abcd"),
        (&[("Range", "bytes=24-")], 206, "bytes 24-25/26", "yz"),
        (&[("Range", "bytes=-3")], 206, "bytes 23-25/26", "xyz"),
        (&[("Range", "bytes=20-99")], 206, "bytes 20-25/26", "uvwxyz"),
        (&[("Range", "bytes=26-")], 416, "bytes */26", ""),
        (&[("Range", "bytes=3-1")], 416, "bytes */26", ""),
        (&[("Range", "bytes=x")], 416, "bytes */26", ""),
        (&[("Range", "lines=0-1")], 200, "-", LETTERS),
        (&[("Range", "bytes=0-1"), ("If-Range", "\"az\"")], 206, "bytes 0-1/26", "ab"),
        (&[("Range", "bytes=0-1"), ("If-Range", "\"xx\"")], 200, "-", LETTERS),
        (&[("Range", "bytes=0-1"), ("If-Range", "Tue, 02 Jan 2024 03:04:05 GMT")], 206, "bytes 0-1/26", "ab"),
        (&[("Range", "bytes=0-1"), ("If-Range", "Tue, 02 Jan 2024 03:04:04 GMT")], 200, "-", LETTERS),
        (&[("Range", "bytes=0-25")], 206, "bytes 0-25/26", LETTERS),
    ];
    let mut kept = 0;
    for (number, (fields, status, range, body)) in cases.into_iter().enumerate() {
        let path = format!("/{number}");
        // An error takes the place of an answer.
        let again = if status == 416 { "MISS" } else { "HIT" };
        for cache in ["MISS", again, again] {
            let answer = site.ask(&with(&path, fields)).expect(status);
            assert_eq!(answer.header("X-Cache"), Some(cache), "{fields:?}");
            assert_eq!(answer.header("Content-Range").unwrap_or("-"), range, "{fields:?}");
            if status != 416 {
                assert_eq!(answer.text(), body, "{fields:?}");
                kept += usize::from(cache == "MISS");
                holds(&site.cache(), kept);
            }
        }
        let asked = site.origin.last();
        assert_eq!((asked.header("Range"), asked.header("If-Range")), (None, None));
        if status == 416 {
            kept += 1;
            assert_eq!(site.see(&path), format!("200 MISS {LETTERS}"));
            holds(&site.cache(), kept);
            assert_eq!(site.ask(&with(&path, fields)).status, 416);
        }
        assert_eq!(site.see(&path), format!("200 HIT {LETTERS}"));
    }
    assert_eq!(site.origin.hits(), 13 + 3 * 3);
    // Several at once.
    let answer = site.ask(&with("/0", &[("Range", "bytes=0-1,24-,-1")])).expect(206);
    let boundary = answer.header("Content-Type").and_then(|kind| kind.strip_prefix("multipart/byteranges; boundary="));
    let boundary = boundary.expect("a boundary").to_owned();
    let body = answer.text();
    assert_eq!(body.matches(&format!("--{boundary}")).count(), 4, "{body}");
    for part in ["bytes 0-1/26\r\n\r\nab\r\n", "bytes 24-25/26\r\n\r\nyz\r\n", "bytes 25-25/26\r\n\r\nz\r\n"] {
        assert!(body.contains(part), "{body}");
    }
}

#[test]
fn parts_are_given_only_where_the_upstream_would_give_them() {
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; proxy_cache z; \
                location / { proxy_pass http://%ORIGIN%; } \
                location /forced { proxy_force_ranges on; proxy_pass http://%ORIGIN%; } }";
    let site = Site::of(conf, |_| text("200 OK", KEPT, LETTERS));
    let part = [("Range", "bytes=1-2")];
    for cache in ["MISS", "HIT"] {
        assert_eq!(site.see_with("/", &part), format!("200 {cache} {LETTERS}"));
        assert_eq!(site.see_with("/forced", &part), format!("206 {cache} bc"));
    }
}

#[test]
fn a_part_that_begins_late_is_fetched_alone() {
    let conf = "proxy_cache_path cache keys_zone=z:1m; server { listen 127.0.0.1:%PORT%; proxy_cache z; \
                location / { proxy_cache_max_range_offset 10; proxy_pass http://%ORIGIN%; } \
                location /none { proxy_cache_max_range_offset 0; proxy_pass http://%ORIGIN%; } }";
    let site = Site::of(conf, letters);
    for (path, range, expected, passed) in [
        ("/early", "bytes=9-10", "206 MISS jk", false),
        ("/early", "bytes=20-21", "206 HIT uv", false),
        ("/late", "bytes=10-11", "206 MISS kl", true),
        ("/late", "bytes=10-11", "206 MISS kl", true),
        ("/none", "bytes=0-1", "206 MISS ab", true),
        ("/none", "bytes=0-1", "206 MISS ab", true),
    ] {
        assert_eq!(site.see_with(path, &[("Range", range)]), expected, "{path} {range}");
        assert_eq!(site.origin.last().header("Range"), passed.then_some(range), "{path} {range}");
    }
    // The end is later than anything.
    site.see_with("/end", &[("Range", "bytes=-2")]);
    assert_eq!(site.origin.last().header("Range"), Some("bytes=-2"));
    assert_eq!(site.see("/late"), format!("200 MISS {LETTERS}"));
    assert_eq!(site.see_with("/late", &[("Range", "bytes=10-11")]), "206 HIT kl");
}

/// Answers in the language that is asked for.
fn in_languages(request: &Received) -> Reply {
    let language = request.header("Accept-Language").unwrap_or("none").to_owned();
    text("200 OK", &format!("{KEPT}Vary: Accept-Language, X-Other\r\n"), &language)
}

#[test]
fn each_variant_is_kept_for_itself() {
    let site = Site::new("", "", in_languages);
    let language = |language: &str| site.see_with("/", &[("Accept-Language", language)]);
    assert_eq!(language("de"), "200 MISS de");
    holds(&site.cache(), 1);
    assert_eq!(language("de"), "200 HIT de");
    assert_eq!(language("en, fr"), "200 MISS en, fr");
    assert_eq!(site.see("/"), "200 MISS none");
    holds(&site.cache(), 3);
    for _ in 0..2 {
        assert_eq!(language("de"), "200 HIT de");
        assert_eq!(language("en, fr"), "200 HIT en, fr");
        assert_eq!(site.see("/"), "200 HIT none");
    }
    // However it is spaced.
    assert_eq!(language(" en ,fr"), "200 HIT en, fr");
    assert_eq!(language("fr,en"), "200 MISS fr,en");
    let other = site.see_with("/", &[("Accept-Language", "de"), ("X-Other", "1")]);
    assert_eq!(other, "200 MISS de");
    assert_eq!(site.origin.hits(), 5);
    holds(&site.cache(), 5);
}

#[test]
fn variants_outlive_a_restart_too() {
    let mut site = Site::new("", "", in_languages);
    let language = |site: &Site, language: &str| site.see_with("/", &[("Accept-Language", language)]);
    for (number, word) in ["de", "en"].into_iter().enumerate() {
        assert_eq!(language(&site, word), format!("200 MISS {word}"));
        holds(&site.cache(), number + 1);
    }
    restart(&mut site);
    assert_eq!(language(&site, "en"), "200 HIT en");
    // Until nginx knows all files, it takes one of another variant for none at all.
    if !replaced() {
        assert_eq!(language(&site, "de"), "200 HIT de");
    }
}

#[test]
fn an_answer_that_depends_on_other_fields_takes_the_place_of_the_first() {
    let site = Site::new("", "proxy_cache_bypass $http_fresh;", |request| {
        let vary = request.header("X-Vary").unwrap_or("X-A").to_owned();
        text("200 OK", &format!("{KEPT}Vary: {vary}\r\n"), request.header("X-A").unwrap_or("-"))
    });
    let a = |value: &str| site.see_with("/", &[("X-A", value)]);
    assert_eq!(
        (a("1"), a("2"), a("1"), a("2")),
        ("200 MISS 1".into(), "200 MISS 2".into(), "200 HIT 1".into(), "200 HIT 2".into())
    );
    // The first one is another one now; that of another variant is still there.
    let fresh = [("X-A", "3"), ("X-Vary", "X-B"), ("Fresh", "1")];
    assert_eq!(site.see_with("/", &fresh), "200 BYPASS 3");
    assert_eq!(a("2"), "200 HIT 3");
    assert_eq!(a("1"), "200 HIT 3");
}

#[test]
fn each_variant_holds_still_for_itself() {
    let site = Site::new("", "proxy_cache_revalidate on;", |request| {
        let who = request.header("X-A").unwrap_or("-").to_owned();
        let fields = format!("X-Accel-Expires: @1\r\nETag: \"{who}\"\r\nVary: X-A\r\n");
        text("200 OK", &fields, &who)
    });
    let a = |value: &str| site.see_with("/", &[("X-A", value)]);
    for (number, who) in ["1", "2", "3"].into_iter().enumerate() {
        assert_eq!(a(who), format!("200 MISS {who}"));
        holds(&site.cache(), number + 1);
    }
    site.origin.answers(|request| match (request.header("If-None-Match"), request.header("X-A")) {
        (Some("\"1\""), Some("1")) | (Some("\"3\""), Some("3")) => text("304 Not Modified", KEPT, ""),
        (tag, who) => text("200 OK", &format!("{KEPT}Vary: X-A\r\n"), &format!("{tag:?} {who:?}")),
    });
    for who in ["3", "1"] {
        assert_eq!((a(who), a(who)), (format!("200 REVALIDATED {who}"), format!("200 HIT {who}")));
    }
    // One that has changed.
    let new = "Some(\"\\\"2\\\"\") Some(\"2\")";
    assert_eq!((a("2"), a("2")), (format!("200 EXPIRED {new}"), format!("200 HIT {new}")));
    assert_eq!((a("1"), a("3")), ("200 HIT 1".into(), "200 HIT 3".into()));
    holds(&site.cache(), 3);
}

#[test]
fn an_answer_without_vary_is_for_everybody() {
    let site = Site::new("", "proxy_ignore_headers Vary;", in_languages);
    assert_eq!(site.see_with("/", &[("Accept-Language", "de")]), "200 MISS de");
    assert_eq!(site.see_with("/", &[("Accept-Language", "en")]), "200 HIT de");
    assert_eq!(site.origin.hits(), 1);
}

#[test]
fn what_is_kept_is_changed_on_its_way_as_any_answer_is() {
    let location = "gzip on; gzip_min_length 1; gzip_types text/plain; gzip_http_version 1.0; expires 1h; \
                    proxy_hide_header X-Hidden;";
    let site = Site::new("", location, |_| {
        text(
            "200 OK",
            "X-Accel-Expires: 600\r\nContent-Type: text/plain\r\nX-Hidden: x\r\nETag: \"e\"\r\n",
            &LETTERS.repeat(50),
        )
    });
    for cache in ["MISS", "HIT", "HIT"] {
        let packed = site.ask(&with("/", &[("Accept-Encoding", "gzip")])).expect(200);
        assert_eq!((packed.header("X-Cache"), packed.header("Content-Encoding")), (Some(cache), Some("gzip")));
        assert_eq!((packed.header("ETag"), packed.header("X-Hidden")), (Some("W/\"e\""), None));
        assert_eq!((packed.header("Cache-Control"), packed.header("X-Accel-Expires")), (Some("max-age=3600"), None));
        assert!(packed.body.len() < 500);
    }
    assert_eq!(site.see("/"), format!("200 HIT {}", LETTERS.repeat(50)));
}

#[test]
fn what_the_server_says_of_a_kept_answer_is_what_holds_now() {
    let conf = |more: &str| {
        format!(
            "proxy_cache_path cache keys_zone=z:1m; server {{ listen 127.0.0.1:%PORT%; location / {{ proxy_cache z; \
             proxy_pass http://%ORIGIN%; {more} }} }}"
        )
    };
    let site = Site::of(&conf(""), |_| text("200 OK", &format!("{KEPT}X-A: a\r\nX-B: b\r\n"), "x"));
    let fields = || {
        let answer = site.get("/").expect(200);
        ["X-A", "X-B"].map(|name| answer.header(name).unwrap_or("-").to_owned())
    };
    assert_eq!((fields(), fields()), (["a", "b"].map(String::from), ["a", "b"].map(String::from)));
    site.rewrite(&conf("proxy_hide_header X-B;"));
    site.server.reload();
    crate::support::wait::until("the new file counts", crate::support::wait::SOON, || fields()[1] == "-");
    assert_eq!((fields()[0].as_str(), site.origin.hits()), ("a", 1));
}
