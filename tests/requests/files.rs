//! Files that go to the socket without being read (`sendfile`).

use crate::support::{client, ports::free_port, scratch::Scratch, server::Server};

/// So long that the socket cannot take it at once.
const LENGTH: usize = 6 << 20;

fn bytes() -> Vec<u8> {
    (0..LENGTH).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn body(raw: &[u8]) -> (String, &[u8]) {
    let at = raw.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    (String::from_utf8(raw[..at].to_vec()).expect("a head of text"), &raw[at..])
}

#[test]
fn a_long_file_arrives_whole_and_in_parts_whether_or_not_it_was_read() {
    let folder = Scratch::new();
    let all = bytes();
    std::fs::write(folder.path().join("a"), &all).unwrap();
    let port = free_port();
    let root = folder.path().display();
    let _server = Server::http(
        port,
        &format!(
            "server {{ listen 127.0.0.1:{port}; root {root}; max_ranges 3;
                location /on/ {{ alias {root}/; sendfile on; }}
                location /off/ {{ alias {root}/; }}
                location /slow/ {{ alias {root}/; sendfile on; limit_rate 40m; }} }}"
        ),
    );
    let ask = |place: &str, version: &str, fields: &str| {
        client::raw(port, format!("GET /{place}/a HTTP/{version}\r\nHost: h\r\nConnection: close\r\n{fields}\r\n"))
    };
    for place in ["on", "off", "slow"] {
        for version in ["1.1", "1.0"] {
            let raw = ask(place, version, "");
            let (head, body) = body(&raw);
            assert!(head.contains(&format!("Content-Length: {LENGTH}\r\n")), "{place} {head}");
            assert!(body == all, "{place} {version}: {} bytes", body.len());
        }
        let raw = ask(place, "1.1", "Range: bytes=100000-5000000\r\n");
        assert!(body(&raw).1 == &all[100_000..=5_000_000], "{place}");
        let raw = ask(place, "1.1", "Range: bytes=0-9,100000-3000000,-70000\r\n");
        let (head, body) = body(&raw);
        let boundary = head.split("boundary=").nth(1).and_then(|rest| rest.split("\r\n").next()).expect("a boundary");
        let mut rest = body;
        for range in [0..10, 100_000..3_000_001, LENGTH - 70_000..LENGTH] {
            let part = format!(
                "\r\n--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes {}-{}/{LENGTH}\r\n\r\n",
                range.start,
                range.end - 1
            );
            assert!(rest.starts_with(part.as_bytes()), "{place}: {part}");
            rest = &rest[part.len()..];
            assert!(rest[..range.len()] == all[range.clone()], "{place} {range:?}");
            rest = &rest[range.len()..];
        }
        assert_eq!(rest, format!("\r\n--{boundary}--\r\n").as_bytes());
    }
}

#[test]
fn two_long_files_go_over_one_connection() {
    let folder = Scratch::new();
    let all = bytes();
    std::fs::write(folder.path().join("a"), &all).unwrap();
    let port = free_port();
    let root = folder.path().display();
    let _server = Server::http(port, &format!("sendfile on; server {{ listen 127.0.0.1:{port}; root {root}; }}"));
    let raw = client::raw(
        port,
        "GET /a HTTP/1.1\r\nHost: h\r\n\r\nHEAD /a HTTP/1.1\r\nHost: h\r\n\r\n\
         GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    );
    let (_, rest) = body(&raw);
    assert!(rest[..LENGTH] == all);
    let (head, rest) = body(&rest[LENGTH..]);
    assert!(head.contains(&format!("Content-Length: {LENGTH}\r\n")), "{head}");
    let (_, last) = body(rest);
    assert!(last == all);
}
