//! What passes through: forms, cookies, redirects, links, uploads, and what uWSGI is told of a request.

use super::{Compose, expect_lines};
use crate::support::client::{self, Answer, Connection, Request};
use crate::support::replaced;
use std::io::Write;

/// The configuration's limit is 75 MB.
const LIMIT: usize = 75 << 20;

#[test]
fn links_lead_back_through_the_port_the_browser_used() {
    let Some(compose) = Compose::new("") else { return };
    let (_api, _api2) = (compose.start_api(), compose.start_api2());
    let _nginx = compose.start_nginx();
    let answer = client::ask(80, &Request::get("/api/").header("Host", "localhost:8080")).expect(200);
    assert_eq!(answer.text(), "{\"music\": \"http://localhost:8080/api/music/\"}");
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
}

#[test]
fn a_form_is_posted_with_its_token_and_the_session_kept() {
    let Some(compose) = Compose::new("") else { return };
    let (_api, _api2) = (compose.start_api(), compose.start_api2());
    let _nginx = compose.start_nginx();
    let page = client::get(80, "/songs/").expect(200);
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    let cookie = |answer: &Answer, name: &str| {
        let found = answer.headers("Set-Cookie").into_iter().find(|cookie| cookie.starts_with(name)).map(str::to_owned);
        found.unwrap_or_else(|| panic!("no cookie {name}: {answer:?}")).split(';').next().unwrap().to_owned()
    };
    let csrf = cookie(&page, "csrftoken=");
    let token = page.text().split("value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();

    let form =
        Request::post("/songs/", "application/x-www-form-urlencoded", format!("csrfmiddlewaretoken={token}&song=Blue"));
    client::ask(80, &form).expect(403);
    let saved = client::ask(80, &form.header("Cookie", &csrf)).expect(302);
    assert_eq!(saved.header("Location"), Some("/songs/"));
    let session = cookie(&saved, "sessionid=");
    let shown = client::ask(80, &Request::get("/songs/").header("Cookie", &format!("{csrf}; {session}"))).expect(200);
    assert!(shown.text().contains("<p>Blue</p>"), "{}", shown.text());
}

#[test]
fn more_than_75_megabytes_are_refused() {
    let Some(compose) = Compose::new("") else { return };
    let (_api, _api2) = (compose.start_api(), compose.start_api2());
    let _nginx = compose.start_nginx();
    let mut connection = Connection::open(80);
    let length = 76 << 20;
    connection.send(format!("POST /upload/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"));
    // A browser sends on whatever comes back.
    let mut sender = connection.sender();
    let sending = std::thread::spawn(move || {
        let megabyte = vec![b'x'; 1 << 20];
        (0..76).all(|_| sender.write_all(&megabyte).is_ok())
    });
    let answer = connection.answer("POST").expect(413);
    sending.join().unwrap();
    assert!(answer.text().contains("<center><h1>413 Request Entity Too Large</h1></center>"));
    assert_eq!(answer.header("Connection"), Some("close"));
    let text = format!("client intended to send too large body: {length} bytes");
    expect_lines(1, || compose.error_log(), &["[error]", &text]);
    expect_lines(1, || compose.container.read("/var/log/nginx/access.log"), &["\"POST /upload/ HTTP/1.1\" 413 "]);
}

#[test]
fn exactly_75_megabytes_arrive() {
    let Some(compose) = Compose::new("") else { return };
    let (_api, _api2) = (compose.start_api(), compose.start_api2());
    let _nginx = compose.start_nginx();
    let body: Vec<u8> = (0..LIMIT).map(|at| u8::try_from(at % 251).unwrap()).collect();
    compose.container.write("/tmp/body", &body);
    let sum = compose.container.run(&["sha256sum", "/tmp/body"]).succeeded().stdout;
    let answer = client::ask(80, &Request::post("/upload/", "application/octet-stream", &body)).expect(200);
    let sum = sum.split(' ').next().unwrap();
    assert_eq!(answer.text(), format!("{{\"length\": {LIMIT}, \"sha256\": \"{sum}\"}}"));
}

#[test]
fn uwsgi_is_told_what_nginx_tells_it() {
    let Some(compose) = Compose::new("") else { return };
    let (_api, _api2) = (compose.start_api(), compose.start_api2());
    let _nginx = compose.start_nginx();
    let told = |request: &Request| {
        let text = client::ask(80, request).expect(200).text();
        let all: std::collections::BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
        let port = all["REMOTE_PORT"].clone();
        assert!(port.parse::<u16>().is_ok());
        // What holds a dot is uWSGI's and Python's own; Django adds SCRIPT_NAME.
        let own = |name: &String| name.contains('.') || ["REMOTE_PORT", "SCRIPT_NAME"].contains(&name.as_str());
        all.into_iter()
            .filter(|(name, _)| !own(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
    };

    let get = Request::get("/environ/?a=%20b&c").header("Host", "localhost:8080").header("User-Agent", "test");
    let get = get
        .header("X-Thing", "one")
        .header("x-thing", "two")
        .header("Bad_Name", "dropped")
        .header("Bad.Name", "dropped");
    let expected = [
        "CONTENT_LENGTH=",
        "CONTENT_TYPE=",
        "DOCUMENT_ROOT=/etc/nginx/html",
        "HTTP_HOST=localhost:8080",
        "HTTP_USER_AGENT=test",
        // nginx joins repeated headers since 1.23.0; before that it told both, and uWSGI kept the last.
        if replaced() { "HTTP_X_THING=two" } else { "HTTP_X_THING=one, two" },
        "PATH_INFO=/environ/",
        "QUERY_STRING=a=%20b&c",
        "REMOTE_ADDR=127.0.0.1",
        "REQUEST_METHOD=GET",
        "REQUEST_SCHEME=http",
        "REQUEST_URI=/environ/?a=%20b&c",
        "SERVER_NAME=twtrubiks.com",
        "SERVER_PORT=80",
        "SERVER_PROTOCOL=HTTP/1.1",
    ];
    assert_eq!(told(&get), expected);

    let escaped = Request::get("//x/../environ/%2e/").header("Host", "twtrubiks.com");
    let lines = told(&escaped);
    for line in ["PATH_INFO=/environ/", "REQUEST_URI=//x/../environ/%2e/", "HTTP_HOST=twtrubiks.com", "QUERY_STRING="] {
        assert!(lines.contains(&line.to_owned()), "{line} in {lines:?}");
    }
    // An absolute request target wins over Host; nginx has told so since 1.29.5.
    if !replaced() {
        let absolute = Request::get("http://www.twtrubiks.com:8080/environ/").header("Host", "other");
        assert!(told(&absolute).contains(&"HTTP_HOST=www.twtrubiks.com:8080".to_owned()));
    }
}

#[test]
fn a_posts_own_headers_are_told_twice() {
    let Some(compose) = Compose::new("") else { return };
    let (_api, _api2) = (compose.start_api(), compose.start_api2());
    let _nginx = compose.start_nginx();
    let page = client::get(80, "/songs/").expect(200);
    let csrf = page.header("Set-Cookie").unwrap().split(';').next().unwrap().to_owned();
    let token = page.text().split("value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let post = Request::post("/environ/", "text/plain", "abc").header("Cookie", &csrf).header("X-CSRFToken", &token);
    let text = client::ask(80, &post).expect(200).text();
    for pair in [
        "\"CONTENT_LENGTH\": \"3\"",
        "\"CONTENT_TYPE\": \"text/plain\"",
        "\"HTTP_CONTENT_LENGTH\": \"3\"",
        "\"HTTP_CONTENT_TYPE\": \"text/plain\"",
    ] {
        assert!(text.contains(pair), "{pair} in {text}");
    }
}
