//! Links against upstreams that speak bytes.

use super::{Link, Outbound, Sending};
use crate::{
    http::{body::Body, heads::ResponseHead},
    upstream::{
        Failure,
        wire::{
            Frames,
            answer::{AnswerBody, Dialect},
        },
    },
};
use bytes::Bytes;
use std::{
    future::{Future, poll_fn},
    time::Instant,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

/// What came of a request: the head, the body, and how that ended.
#[derive(Debug)]
struct Got {
    head: ResponseHead,
    body: Vec<u8>,
    /// The body ended as it should.
    whole: bool,
    /// All of the request was sent.
    sent: bool,
}

/// Sends one request and reads the answer to its end.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    head: &str,
    body: Vec<Bytes>,
    frames: Frames,
) -> Result<Got, Failure> {
    link.begin(&Dialect::Http);
    let body = Body::parts(body.into_iter().map(Body::from).collect());
    let mut sending = Sending::new(head.to_owned().into(), Outbound::Kept(body), frames);
    let answer = poll_fn(|cx| link.poll_answer(cx, &mut sending, 1024)).await?;
    let mut rest = AnswerBody::behind(&answer, head.starts_with("HEAD"));
    let (mut all, mut whole) = (Vec::new(), true);
    while let Some(piece) = poll_fn(|cx| link.poll_body(cx, &mut rest)).await {
        match piece {
            Ok(piece) => all.extend_from_slice(&piece),
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    Ok(Got { head: answer, body: all, whole, sent: sending.is_done() })
}

/// Runs `asker` beside an upstream.
fn beside<T, A: Future<Output = T>, U: Future<Output = ()>>(
    asker: impl FnOnce(Box<Link<DuplexStream>>) -> A,
    upstream: impl FnOnce(DuplexStream) -> U,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let serving = upstream(far);
        let asking = asker(Link::new(near, Instant::now()));
        tokio::join!(asking, serving).0
    })
}

/// Reads a head, byte by byte.
async fn read_head(stream: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a byte of a head"));
    }
    String::from_utf8(head).expect("text")
}

/// One request against an upstream that reads the head, writes `answer` in pieces of `step`, and closes.
fn once(method: &str, answer: &[u8], step: usize) -> Result<Got, Failure> {
    let head = format!("{method} /Path HTTP/1.1\r\nHOST: up\r\nx-Case: kept\r\n\r\n");
    beside(
        async |mut link| {
            let got = ask(&mut link, &head, Vec::new(), Frames::Plain).await;
            if let Ok(got) = &got {
                assert!(link.meter.received_now() >= (got.head.length + got.body.len()) as u64);
            }
            got
        },
        async |mut far| {
            assert_eq!(read_head(&mut far).await, head);
            // Who has read enough goes.
            for piece in answer.chunks(step) {
                let _: std::io::Result<()> = far.write_all(piece).await;
                tokio::task::yield_now().await;
            }
        },
    )
}

#[test]
fn heads_go_out_and_come_in_as_they_are_however_they_arrive() {
    let answer = b"HTTP/1.1 203 Fine By Me\r\nSERVER: odd\r\nx-a_b: 1\r\nX@: 2\r\nContent-Length: 5\r\n\r\nhello";
    for step in [1, 2, 3, 10, 1000] {
        let got = once("GET", answer, step).expect("an answer");
        assert_eq!((got.head.status, &*got.head.status_line), (203, &b"203 Fine By Me"[..]));
        let fields: Vec<_> = got.head.fields.iter().map(|field| (&*field.name, &*field.value)).collect();
        let expected = [(&b"SERVER"[..], &b"odd"[..]), (b"x-a_b", b"1"), (b"X@", b"2"), (b"Content-Length", b"5")];
        assert_eq!(fields, expected);
        assert_eq!((&got.body[..], got.whole), (&b"hello"[..], true));
        assert_eq!(got.head.length, answer.len() - 5);
    }
}

#[test]
fn bodies_without_a_length_end_with_the_connection() {
    for answer in [&b"HTTP/1.1 200 OK\r\n\r\nuntil the end"[..], b"HTTP/1.0 200 OK\nA: b\n\nuntil the end"] {
        let got = once("GET", answer, 5).expect("an answer");
        assert_eq!((&got.body[..], got.whole), (&b"until the end"[..], true));
    }
}

#[test]
fn an_answer_without_a_head_is_all_body() {
    for step in [1, 100] {
        let got = once("GET", b"no head at all\r\n\r\n", step).expect("an answer");
        assert_eq!((got.head.version, got.head.status, got.head.close), ((0, 9), 200, true));
        assert_eq!(&got.body[..], b"no head at all\r\n\r\n");
    }
}

#[test]
fn answers_that_have_no_body_end_with_their_head() {
    for (method, answer) in [
        ("HEAD", &b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"[..]),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ] {
        let got = once(method, answer, 1000).expect("an answer");
        assert_eq!((got.body.len(), got.whole), (0, true));
    }
}

#[test]
fn a_body_cut_short_is_told() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcX",
    ] {
        assert!(!once("GET", answer, 1000).expect("an answer").whole);
    }
}

#[test]
fn bad_heads_are_told_in_nginxs_words() {
    let big = ["HTTP/1.1 200 OK\r\nA: ", &"b".repeat(2000), "\r\n\r\n"].concat();
    let cases = [
        (&b""[..], "upstream prematurely closed connection"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n", "upstream prematurely closed connection"),
        (b"HTTP/1.1 200 OK\r\nA b\r\n\r\n", "upstream sent invalid header: \"A\\x20...\""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\n", "upstream sent unknown \"Transfer-Encoding\": \"x\""),
        (big.as_bytes(), "upstream sent too big header"),
    ];
    for (answer, text) in cases {
        for step in [1, 5000] {
            assert_eq!(once("GET", answer, step).expect_err("no answer").to_string(), text);
        }
    }
}

#[test]
fn heads_follow_each_other_until_one_is_final() {
    let answer = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for step in [1, 1000] {
        beside(
            async |mut link| {
                link.begin(&Dialect::Http);
                let mut sending =
                    Sending::new("GET / HTTP/1.1\r\n\r\n".into(), Outbound::Kept(Body::Empty), Frames::Plain);
                let hint = poll_fn(|cx| link.poll_answer(cx, &mut sending, 1024)).await.expect("a hint");
                assert_eq!((hint.status, hint.fields.get("link")), (103, Some(&b"a"[..])));
                let head = poll_fn(|cx| link.poll_answer(cx, &mut sending, 1024)).await.expect("a head");
                assert_eq!((head.status, head.content_length), (200, Some(2)));
                let mut body = AnswerBody::behind(&head, false);
                while poll_fn(|cx| link.poll_body(cx, &mut body)).await.is_some() {}
            },
            async |mut far| {
                read_head(&mut far).await;
                for piece in answer.chunks(step) {
                    far.write_all(piece).await.expect("written");
                    tokio::task::yield_now().await;
                }
            },
        );
    }
}

#[test]
fn a_connection_serves_several_requests() {
    let heads =
        ["GET /1 HTTP/1.1\r\nA: 1\r\n\r\n", "POST /2 HTTP/1.1\r\ncontent-LENGTH: 5\r\n\r\n", "PUT /3 HTTP/1.1\r\n\r\n"];
    let got = beside(
        async |mut link| {
            let mut bodies = Vec::new();
            for (head, frames, body) in [
                (heads[0], Frames::Plain, vec![]),
                (heads[1], Frames::Plain, vec![Bytes::from_static(b"he"), Bytes::from_static(b"llo")]),
                (heads[2], Frames::Chunked, vec![Bytes::from_static(b"abcdefghijkl"), Bytes::from_static(b"de")]),
            ] {
                assert!(link.is_quiet());
                let got = ask(&mut link, head, body, frames).await.expect("an answer");
                bodies.push((String::from_utf8(got.body).expect("text"), link.meter.sent_now()));
            }
            bodies
        },
        async |mut far| {
            assert_eq!(read_head(&mut far).await, heads[0]);
            far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none").await.expect("written");
            assert_eq!(read_head(&mut far).await, heads[1]);
            let mut body = [0; 5];
            far.read_exact(&mut body).await.expect("a body");
            assert_eq!(&body, b"hello");
            let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n3\r\ntwo\r\n0\r\n\r\n";
            far.write_all(answer).await.expect("written");
            assert_eq!(read_head(&mut far).await, heads[2]);
            let mut body = [0; 29];
            far.read_exact(&mut body).await.expect("a body");
            // nginx writes sizes in small letters.
            assert_eq!(&body, b"c\r\nabcdefghijkl\r\n2\r\nde\r\n0\r\n\r\n");
            far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthree").await.expect("written");
        },
    );
    let sent = |head: &str, body: u64| head.len() as u64 + body;
    assert_eq!(
        got,
        [("one".into(), sent(heads[0], 0)), ("two".into(), sent(heads[1], 5)), ("three".into(), sent(heads[2], 29))]
    );
}

#[test]
fn a_connection_that_says_too_much_or_has_ended_is_not_quiet() {
    for (answer, quiet) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..], true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", false),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nextra", false),
        (b"HTTP/1.1 204 No Content\r\n\r\nextra", false),
    ] {
        beside(
            async |mut link| {
                ask(&mut link, "GET / HTTP/1.1\r\n\r\n", Vec::new(), Frames::Plain).await.expect("an answer");
                assert_eq!(link.is_quiet(), quiet, "{}", String::from_utf8_lossy(answer));
                // The upstream goes when it is told so.
                link.begin(&Dialect::Http);
                let mut bye = Sending::new("bye".into(), Outbound::Kept(Body::Empty), Frames::Plain);
                let _: Option<Failure> = poll_fn(|cx| link.poll_answer(cx, &mut bye, 1024)).await.err();
                assert!(!link.is_quiet());
            },
            async |mut far| {
                read_head(&mut far).await;
                far.write_all(answer).await.expect("written");
                far.read_u8().await.expect("the end");
            },
        );
    }
}

#[test]
fn an_answer_may_come_before_the_request_is_sent() {
    let got = beside(
        async |mut link| {
            let body = vec![Bytes::from(vec![b'x'; 300_000]); 4];
            ask(&mut link, "POST / HTTP/1.1\r\n\r\n", body, Frames::Chunked).await.expect("an answer")
        },
        async |mut far| {
            read_head(&mut far).await;
            let answer = b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
            far.write_all(answer).await.expect("written");
        },
    );
    assert_eq!((got.head.status, &got.body[..], got.sent), (413, &b"no"[..], false));
}

#[test]
fn behind_an_upgrade_both_ways_are_bare_and_nothing_is_lost() {
    let text = beside(
        async |mut link| {
            let head = "GET / HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n";
            let got = ask(&mut link, head, Vec::new(), Frames::Plain).await.expect("an answer");
            assert_eq!((got.head.status, got.head.fields.get("upgrade")), (101, Some(&b"X"[..])));
            let mut tunnel = link.into_tunnel();
            assert!(tunnel.has_rest());
            tunnel.write_all(b"ping").await.expect("written");
            let mut text = String::new();
            tunnel.read_to_string(&mut text).await.expect("read");
            text
        },
        async |mut far| {
            read_head(&mut far).await;
            far.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: X\r\n\r\nearly ").await.expect("written");
            let mut ping = [0; 4];
            far.read_exact(&mut ping).await.expect("a ping");
            far.write_all(&ping).await.expect("written");
        },
    );
    assert_eq!(text, "early ping");
}

#[test]
fn huge_bodies_go_both_ways() {
    let size = 3_000_000;
    let body: Vec<u8> = (0..size).map(|i: usize| (i % 241) as u8).collect();
    let got = beside(
        async |mut link| {
            let pieces = body.chunks(50_000).map(Bytes::copy_from_slice).collect();
            ask(&mut link, "PUT / HTTP/1.1\r\n\r\n", pieces, Frames::Plain).await.expect("an answer")
        },
        async |mut far| {
            let mut request = vec![0; 18 + size];
            far.read_exact(&mut request).await.expect("a request");
            far.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes()).await.expect("w");
            far.write_all(&request[18..]).await.expect("written");
        },
    );
    assert!(got.whole && got.sent && got.body == body);
}
