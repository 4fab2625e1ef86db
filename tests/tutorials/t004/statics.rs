//! `location /static { alias /docker_api/static; }`: what makes the admin look styled.

use super::{Compose, expect_lines};
use crate::support::client::{self, Request};

#[test]
fn static_files_come_as_nginx_serves_them() {
    let Some(compose) = Compose::new("") else { return };
    let _nginx = compose.start_nginx();
    let path = "/docker_api/static/admin/css/base.css";
    compose.container.run(&["touch", "-d", "2024-01-02T03:04:05Z", path]).silently();
    let css = compose.container.read(path);
    let url = "/static/admin/css/base.css";
    let whole = client::get(80, url).expect(200);
    let modified = "Tue, 02 Jan 2024 03:04:05 GMT";
    let tag = format!("\"{:x}-{:x}\"", 1_704_164_645, css.len());
    assert_eq!(whole.text(), css);
    // The stylesheet's type is not among those that get a charset.
    for (name, value) in [
        ("Content-Type", "text/css"),
        ("Content-Length", &css.len().to_string()),
        ("Last-Modified", modified),
        ("ETag", &tag),
        ("Accept-Ranges", "bytes"),
    ] {
        assert_eq!(whole.header(name), Some(value), "{name}");
    }

    let with = |name: &str, value: &str| client::ask(80, &Request::get(url).header(name, value));
    for (name, value) in
        [("If-None-Match", tag.as_str()), ("If-Modified-Since", modified), ("If-None-Match", "W/\"x\", *")]
    {
        let unchanged = with(name, value);
        if value.ends_with('*') {
            // A star in a list is a tag like any other, which this file does not have.
            unchanged.expect(200);
            continue;
        }
        let unchanged = unchanged.expect(304);
        assert_eq!((unchanged.header("ETag"), unchanged.header("Content-Length")), (Some(tag.as_str()), None));
    }
    with("If-None-Match", "\"other\"").expect(200);
    with("If-Match", "\"other\"").expect(412);

    let part = with("Range", "bytes=10-19").expect(206);
    assert_eq!(part.header("Content-Range"), Some(&*format!("bytes 10-19/{}", css.len())));
    assert_eq!(part.body, &css.as_bytes()[10..20]);
    let end = with("Range", "bytes=-5").expect(206);
    assert_eq!(end.body, &css.as_bytes()[css.len() - 5..]);
    let beyond = with("Range", "bytes=9999999-").expect(416);
    assert_eq!(beyond.header("Content-Range"), Some(&*format!("bytes */{}", css.len())));

    let head = client::ask(80, &Request::new("HEAD", url)).expect(200);
    assert_eq!(head.header("Content-Length"), Some(&*css.len().to_string()));
}

#[test]
fn scripts_and_pages_carry_the_charset() {
    let Some(compose) = Compose::new("") else { return };
    let _nginx = compose.start_nginx();
    for (path, kind) in [
        ("/static/admin/js/core.js", "application/javascript; charset=utf-8"),
        ("/static/demo/page.html", "text/html; charset=utf-8"),
        ("/static/admin/img/icon-yes.svg", "image/svg+xml"),
        ("/static/admin/css/vendor/select2/LICENSE-SELECT2.md", "application/octet-stream"),
    ] {
        let answer = client::get(80, path).expect(200);
        assert_eq!(answer.header("Content-Type"), Some(kind), "{path}");
        assert_eq!(answer.text(), compose.container.read(&path.replacen("/static", "/docker_api/static", 1)));
    }
}

#[test]
fn what_is_no_file_is_told_as_nginx_tells_it() {
    let Some(compose) = Compose::new("") else { return };
    let _nginx = compose.start_nginx();
    // Behind Docker's 8080:80 the port gets lost, as it does with nginx.
    let redirect = client::ask(80, &Request::get("/static").header("Host", "localhost:8080")).expect(301);
    assert_eq!(redirect.header("Location"), Some("http://localhost/static/"));
    assert!(redirect.text().contains("<center><h1>301 Moved Permanently</h1></center>"));
    client::get(80, "/static/").expect(403);
    client::get(80, "/static/nothing.css").expect(404);
    client::ask(80, &Request::post("/static/demo/page.html", "text/plain", "x")).expect(405);
    client::get(80, "/static/../manage.py").expect(502);
    client::get(80, "/static/%2e%2e/manage.py").expect(502);
    for text in [
        "open() \"/docker_api/static/nothing.css\" failed (2: No such file or directory), client: 127.0.0.1",
        "directory index of \"/docker_api/static/\" is forbidden",
    ] {
        expect_lines(1, || compose.error_log(), &[text]);
    }
}
