//! What else decides: names that cannot be looked up, variables of the answer, clients' conditions, files that are damaged.

use super::{KEPT, Site, files, seen, text, with};
use crate::support::client::Request;
use crate::support::replaced;
use crate::support::scratch::Scratch;

/// A date long ago, by which an answer is known again.
const DATED: &str = "Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT\r\n";

#[test]
fn two_sockets_with_one_path_behind_them_are_told_apart() {
    let folder = Scratch::new();
    let server = |name: &str| {
        let at = folder.path().display();
        format!(
            "server {{ listen unix:{at}/{name}; location / {{ expires 10m; return 200 {name}; }} }} \
             server {{ listen 127.0.0.1:%PORT%; server_name {name}; \
             location / {{ proxy_cache z; proxy_pass http://unix:{at}/{name}:/x/; }} }} "
        )
    };
    let conf = format!("proxy_cache_path cache keys_zone=z:1m; {} {}", server("a"), server("b"));
    let site = Site::of(&conf, |_| text("200 OK", "", ""));
    for fared in ["MISS", "HIT"] {
        for name in ["a", "b"] {
            assert_eq!(site.see_with("/q", &[("Host", name)]), format!("200 {fared} {name}"));
        }
    }
}

#[test]
fn what_is_kept_is_given_though_its_server_cannot_be_looked_up() {
    let conf = "proxy_cache_path cache keys_zone=z:1m; \
                server { listen 127.0.0.1:%PORT%; resolver 127.0.0.1:9 ipv6=off; resolver_timeout 1s; \
                location / { proxy_cache z; proxy_cache_key $uri; proxy_pass http://$arg_to; } }";
    let site = Site::of(conf, |_| text("200 OK", KEPT, "kept"));
    let known = format!("/?to={}", site.origin.backend.address());
    assert_eq!(site.see(&known), "200 MISS kept");
    assert_eq!(site.see("/?to=nowhere.example"), "200 HIT kept");
    assert_eq!(site.get("/other?to=nowhere.example").status, 502);
}

#[test]
fn an_answer_may_be_too_private_by_what_it_says_of_itself() {
    for variable in ["$sent_http_content_type", "$status", "$upstream_http_x_private"] {
        let conf = format!(
            "map {variable} $private {{ default ''; text/private 1; 203 1; yes 1; }} \
             proxy_cache_path cache keys_zone=z:1m; \
             server {{ listen 127.0.0.1:%PORT%; location / {{ proxy_cache z; proxy_no_cache $private; \
             proxy_pass http://%ORIGIN%; }} }}"
        );
        let site = Site::of(&conf, |request| match request.target() {
            "/private" => {
                let fields = "Cache-Control: max-age=600\r\nContent-Type: text/private\r\nX-Private: yes\r\n";
                text("203 Private", fields, "private")
            }
            _ => text("200 OK", KEPT, "public"),
        });
        for fared in ["MISS", "HIT"] {
            assert_eq!(site.see("/private"), "203 MISS private", "{variable}");
            assert_eq!(site.see("/public"), format!("200 {fared} public"), "{variable}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_no_reason_to_tell_that_it_still_holds() {
    let fields = concat!("X-Accel-Expires: @1\r\n", "Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT\r\n");
    let site = Site::new("", "proxy_cache_revalidate on;", move |request| match request.header("If-Modified-Since") {
        Some(_) => text("304 Not Modified", "", ""),
        None => text("200 OK", fields, "whole"),
    });
    assert_eq!(site.see("/"), "200 MISS whole");
    assert_eq!(site.see("/"), "200 REVALIDATED whole");
    let path = files(&site.cache()).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(4).position(|window| window == b"Last").unwrap();
    bytes[at + 1] = 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(site.get("/").status, 500);
    site.server.expect_log(&["contains invalid header"]);
}

#[test]
fn a_client_that_has_an_old_answer_is_told_so() {
    let expires =
        concat!("Expires: Sat, 01 Jan 2000 00:00:00 GMT\r\n", "Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT\r\n");
    let has = [("If-Modified-Since", "Sat, 01 Jan 2000 00:00:00 GMT")];
    // What speaks against keeping the failure does not speak against what is given in its place.
    let site = Site::new("", "proxy_cache_use_stale http_500;", move |_| {
        text("200 OK", concat!("X-Accel-Expires: @1\r\n", "Last-Modified: Sat, 01 Jan 2000 00:00:00 GMT\r\n"), "old")
    });
    assert_eq!(site.see("/"), "200 MISS old");
    site.origin.says("500 Sorry", "Cache-Control: no-cache\r\n", "");
    assert_eq!(site.see("/"), "200 STALE old");
    assert_eq!(site.see_with("/", &has), "304 STALE ");
    // What was kept by another rule is known to be too old by its own.
    let site = Site::new("", "proxy_ignore_headers Expires; proxy_cache_valid 200 10m;", move |_| {
        text("200 OK", expires, "whole")
    });
    assert_eq!(site.see("/"), "200 MISS whole");
    assert_eq!(site.see_with("/", &has), "304 HIT ");
}

#[test]
fn a_page_of_an_error_stands_before_a_redirect_within() {
    let conf = "server { listen 127.0.0.1:%PORT%; proxy_intercept_errors on; error_page 404 /404; \
                location / { proxy_pass http://%ORIGIN%; } \
                location = /404 { return 200 page; } location = /inside { return 200 inside; } }";
    let site = Site::of(conf, |request| match request.target() {
        "/gone" => text("404 Gone", "X-Accel-Redirect: /inside\r\n", ""),
        _ => text("200 OK", "X-Accel-Redirect: /inside\r\n", ""),
    });
    let answer = site.get("/gone");
    assert_eq!((answer.status, answer.text().as_str()), (404, "page"));
    assert_eq!(site.get("/here").text(), "inside");
}

#[test]
fn what_a_client_does_not_get_by_its_condition_is_not_kept() {
    if replaced() {
        // nginx keeps it for GET.
        return;
    }
    let site = Site::new("", "", |_| text("200 OK", &[KEPT, DATED, "ETag: \"a\"\r\n"].concat(), "whole"));
    let head = Request::new("HEAD", "/").header("If-Match", "\"x\"");
    let answer = site.ask(&head);
    assert_eq!((answer.status, answer.header("X-Cache")), (412, Some("MISS")));
    assert_eq!(seen(&site.ask(&with("/", &[]))), "200 MISS whole");
}
