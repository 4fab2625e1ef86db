//! Caches: how their requests fared, and what was kept.

use super::{Api, send};
use crate::support::backend::{Backend, Received, Reply};
use crate::support::client::{Request, ask};
use crate::support::replaced;
use serde_json::{Value, json};

/// What the caches hold is too old at once where the answer says `@1`.
fn answer(request: &Received) -> Reply {
    let (fields, body) = match request.target() {
        "/fresh" | "/fresh?bypass=1" => ("Cache-Control: max-age=1000", "0123456789"),
        "/old" => ("X-Accel-Expires: @1", "old"),
        "/same" if request.header("If-None-Match").is_some() => {
            return Reply::Keep(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec());
        }
        "/same" => ("X-Accel-Expires: @1\r\nETag: \"1\"", "still"),
        "/failing" if request.header("X-Fail").is_some() => {
            return Reply::Keep(b"HTTP/1.1 500 Error\r\nContent-Length: 4\r\n\r\nnone".to_vec());
        }
        "/failing" => ("X-Accel-Expires: @1", "before"),
        _ => ("X-Kept: no", "never"),
    };
    Reply::Keep(format!("HTTP/1.1 200 OK\r\n{fields}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into())
}

fn start(peer: &Backend) -> (Api, String) {
    let http = "proxy_cache_path kept keys_zone=answers:64k max_size=64m; proxy_cache_path other keys_zone=other:64k; \
                proxy_cache_path third keys_zone=errors:64k;";
    let server = format!(
        "location / {{ proxy_pass http://{}; proxy_cache answers; proxy_cache_bypass $arg_bypass; \
         proxy_cache_key $uri; proxy_cache_revalidate on; proxy_cache_use_stale http_500; \
         add_header X-Cache $upstream_cache_status; }} \
         location /dead {{ proxy_pass http://127.0.0.1:1; proxy_cache errors; proxy_cache_valid 502 1h; }}",
        peer.address()
    );
    let api = Api::new(http, &server);
    let body = Api::body(api.port, http, &server);
    (api, body)
}

/// The words of `$upstream_cache_status` for these requests; one that ends so is answered with an error.
fn fare(api: &Api, paths: &[&str]) -> String {
    let one = |path: &&str| {
        let request = match path.strip_suffix('!') {
            Some(path) => Request::get(path).header("X-Fail", "yes"),
            None => Request::get(path),
        };
        ask(api.port, &request).expect(200).header("X-Cache").unwrap_or("none").to_owned()
    };
    paths.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_cache_counts_how_requests_fared_and_what_it_keeps() {
    if replaced() {
        return;
    }
    let peer = Backend::start(answer);
    let (api, body) = start(&peer);
    let names = api.get("/http/caches/?fields=");
    assert_eq!(names, json!({ "answers": {}, "other": {}, "errors": {} }));
    assert!(api.get("/http/caches/other").get("max_size").is_none(), "it has no limit");

    assert_eq!(
        fare(&api, &["/fresh", "/fresh", "/fresh", "/fresh?bypass=1", "/x", "/x"]),
        "MISS HIT HIT BYPASS MISS MISS"
    );
    assert_eq!(fare(&api, &["/old", "/old", "/old"]), "MISS EXPIRED EXPIRED");
    assert_eq!(fare(&api, &["/same", "/same", "/failing", "/failing!"]), "MISS REVALIDATED MISS STALE");
    let head = ask(api.port, &Request::new("HEAD", "/fresh"));
    assert_eq!((head.status, head.header("X-Cache")), (200, Some("HIT")));
    for _ in 0..3 {
        assert_eq!(ask(api.port, &Request::get("/dead")).status, 502);
    }
    api.server.rewrite(&body.replace("keys_zone=other:64k;", "keys_zone=other:128k;"));
    api.server.reload();

    let cache = api.get("/http/caches/answers");
    let given = |responses: u32, bytes: u32| json!({ "responses": responses, "bytes": bytes });
    for (status, expected) in
        [("hit", given(3, 20)), ("stale", given(1, 6)), ("updating", given(0, 0)), ("revalidated", given(1, 5))]
    {
        assert_eq!(cache[status], expected, "{status} of {cache}");
    }
    for (status, responses, bytes, written) in
        [("miss", 6, 10 + 2 * 5 + 3 + 5 + 6, 4), ("expired", 2, 2 * 3, 2), ("bypass", 1, 10, 1)]
    {
        let numbers = &cache[status];
        let counted = ["responses", "bytes", "responses_written"].map(|name| numbers[name].as_u64().unwrap());
        assert_eq!(counted, [responses, bytes, written], "{status} of {cache}");
        // Key and head are before each body.
        assert!(numbers["bytes_written"].as_u64().unwrap() > written * 350, "{status} of {cache}");
    }
    assert_eq!((&cache["max_size"], &cache["cold"]), (&(64 << 20).into(), &Value::Bool(false)));
    assert!(cache["size"].as_u64().unwrap() >= 4 * 512, "{cache}");
    let errors = api.get("/http/caches/errors");
    assert_eq!((&errors["miss"]["responses"], &errors["miss"]["responses_written"]), (&1.into(), &0.into()), "no file");
    assert_eq!(errors["hit"], given(2, 0), "{errors}");
    assert_eq!(api.get("/http/caches/answers?fields=cold"), json!({ "cold": false }));
    for version in 1..=8 {
        let older = send(api.port, "GET", &format!("/api/{version}/http/caches/answers"), "").body;
        assert_eq!(older, cache, "{version}");
    }
}

#[test]
fn counts_begin_anew_and_what_is_kept_stays() {
    if replaced() {
        return;
    }
    let peer = Backend::start(answer);
    let (api, _) = start(&peer);
    assert_eq!(fare(&api, &["/fresh", "/fresh"]), "MISS HIT");
    assert_eq!(send(api.port, "DELETE", "/read/9/http/caches/answers", "").fault(), (405, "MethodDisabled"));
    assert_eq!(api.get("/http/caches/answers")["hit"]["responses"], 1);
    assert_eq!(api.send("DELETE", "/http/caches/answers", "").status, 204);
    let cache = api.get("/http/caches/answers");
    for status in ["hit", "stale", "updating", "revalidated", "miss", "expired", "bypass"] {
        for (name, number) in cache[status].as_object().unwrap() {
            assert_eq!(number, 0, "{status} {name}");
        }
    }
    assert!(cache["size"].as_u64().unwrap() > 0);
    assert_eq!(fare(&api, &["/fresh"]), "HIT");
    assert_eq!(api.get("/http/caches/answers")["hit"], json!({ "responses": 1, "bytes": 10 }));
    for method in ["GET", "DELETE"] {
        assert_eq!(api.send(method, "/http/caches/none", "").fault(), (404, "CacheNotFound"));
    }
}
