//! The client side under a real hyper, against upstreams that speak bytes.

use super::{
    client, client_builder,
    testing::{Pieces, run},
};
use crate::http::heads::{ClientHandle, Framing, HeadError, ResponseHead, framing};
use bytes::Bytes;
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

type Sender = hyper::client::conn::http1::SendRequest<Pieces>;

/// What came of a request: the head, the body, trailers, or why not.
#[derive(Debug)]
struct Got {
    head: ResponseHead,
    body: Vec<u8>,
    trailers: Option<http::HeaderMap>,
    /// The body ended as it should.
    whole: bool,
}

/// Sends one request and reads the answer to its end.
async fn ask<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    sender: &mut Sender,
    handle: &ClientHandle<S>,
    head: &str,
    framed: Framing,
    body: Vec<Bytes>,
) -> Result<Got, Option<HeadError>> {
    sender.ready().await.map_err(|_| None)?;
    handle.request(head.to_owned(), 1024);
    let request = framing::request(framed, head.starts_with("HEAD"), true, Pieces(body.into_iter(), None));
    let response = sender.send_request(request).await.map_err(|_| handle.take_fault())?;
    let head = handle.take_response().expect("a head, when hyper has one");
    let (mut all, mut trailers, mut whole) = (Vec::new(), None, true);
    let mut incoming = response.into_body();
    while let Some(frame) = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut incoming), cx)).await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => all.extend_from_slice(&data),
            Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    Ok(Got { head, body: all, trailers, whole })
}

/// Runs `ask` beside hyper's connection and an upstream.
fn beside<T, A, U>(
    asker: impl FnOnce(Sender, ClientHandle<DuplexStream>) -> A,
    upstream: impl FnOnce(DuplexStream) -> U,
) -> T
where
    A: Future<Output = T>,
    U: Future<Output = ()>,
{
    run(async {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (io, handle) = client(near);
        let (sender, connection) = client_builder().handshake(io).await.expect("shaken");
        let mut asking = pin!(asker(sender, handle));
        let mut serving = pin!(upstream(far));
        let (mut connection, mut served) = (Some(connection), false);
        poll_fn(|cx| {
            // Only when it is dropped does the sender hear that it is over.
            connection.take_if(|connection| connection.poll_without_shutdown(cx).is_ready());
            served = served || serving.as_mut().poll(cx).is_ready();
            asking.as_mut().poll(cx)
        })
        .await
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
fn once(method: &str, answer: &[u8], step: usize) -> Result<Got, Option<HeadError>> {
    let head = format!("{method} /Path HTTP/1.1\r\nHOST: up\r\nx-Case: kept\r\n\r\n");
    let sent = head.clone();
    let answer = answer.to_vec();
    beside(
        |mut sender, handle| async move {
            let got = ask(&mut sender, &handle, &head, Framing::None, Vec::new()).await;
            if let Ok(got) = &got {
                assert!(handle.received_now() >= (got.head.length + got.body.len()) as u64);
            }
            got
        },
        |mut far| async move {
            assert_eq!(read_head(&mut far).await, sent);
            for piece in answer.chunks(step) {
                far.write_all(piece).await.expect("written");
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
fn chunked_answers_are_read_with_their_trailers() {
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n3;x\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n";
    for step in [1, 7, 1000] {
        let got = once("GET", answer, step).expect("an answer");
        assert_eq!((&got.body[..], got.whole), (&b"abcde"[..], true));
        assert_eq!(got.trailers.expect("trailers")["x-sum"], "1");
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
            let fault = once("GET", answer, step).expect_err("no answer").expect("a fault of ours");
            assert_eq!(fault.to_string(), text);
        }
    }
}

#[test]
fn interim_answers_are_passed_over_and_early_hints_handed_out() {
    let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n\
        HTTP/1.1 103 Early Hints\r\nLink: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for step in [1, 1000] {
        let answer = answer.to_vec();
        let (got, hints) = beside(
            |mut sender, handle| async move {
                let got = ask(&mut sender, &handle, "GET / HTTP/1.1\r\n\r\n", Framing::None, Vec::new()).await;
                let mut hints = Vec::new();
                for _ in 0..2 {
                    hints.push(poll_fn(|cx| handle.poll_interim(cx)).await);
                }
                (got.expect("an answer"), hints)
            },
            |mut far| async move {
                read_head(&mut far).await;
                for piece in answer.chunks(step) {
                    far.write_all(piece).await.expect("written");
                    tokio::task::yield_now().await;
                }
            },
        );
        assert_eq!((got.head.status, &got.body[..]), (200, &b"ok"[..]));
        let links: Vec<_> = hints.iter().map(|hint| hint.fields.get("link").expect("a link")).collect();
        assert_eq!(links, [b"a", b"b"]);
    }
}

#[test]
fn a_connection_serves_several_requests() {
    let heads =
        ["GET /1 HTTP/1.1\r\nA: 1\r\n\r\n", "POST /2 HTTP/1.1\r\ncontent-LENGTH: 5\r\n\r\n", "PUT /3 HTTP/1.1\r\n\r\n"];
    let got = beside(
        |mut sender, handle| async move {
            let mut bodies = Vec::new();
            for (head, framed, body) in [
                (heads[0], Framing::None, vec![]),
                (heads[1], Framing::Length(5), vec![Bytes::from_static(b"he"), Bytes::from_static(b"llo")]),
                (heads[2], Framing::Chunked, vec![Bytes::from_static(b"abc"), Bytes::from_static(b"de")]),
            ] {
                let got = ask(&mut sender, &handle, head, framed, body).await.expect("an answer");
                bodies.push((String::from_utf8(got.body).expect("text"), handle.sent_now()));
            }
            bodies
        },
        |mut far| async move {
            assert_eq!(read_head(&mut far).await, heads[0]);
            far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none").await.expect("written");
            assert_eq!(read_head(&mut far).await, heads[1]);
            let mut body = [0; 5];
            far.read_exact(&mut body).await.expect("a body");
            assert_eq!(&body, b"hello");
            far.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n")
                .await
                .expect("w");
            assert_eq!(read_head(&mut far).await, heads[2]);
            let mut body = [0; 20];
            far.read_exact(&mut body).await.expect("a body");
            assert_eq!(&body, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
            far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nthree").await.expect("written");
            let _: std::io::Result<u8> = far.read_u8().await;
        },
    );
    let sent = |head: &str, body: u64| head.len() as u64 + body;
    assert_eq!(
        got,
        [("one".into(), sent(heads[0], 0)), ("two".into(), sent(heads[1], 5)), ("three".into(), sent(heads[2], 20))]
    );
}

#[test]
fn a_connection_that_must_close_or_says_too_much_is_not_used_again() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Close\r\n\r\nok"[..],
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nextra",
        b"HTTP/1.1 204 No Content\r\n\r\nextra",
    ] {
        let reused = beside(
            |mut sender, handle| async move {
                let head = "GET / HTTP/1.1\r\n\r\n";
                ask(&mut sender, &handle, head, Framing::None, Vec::new()).await.expect("an answer");
                ask(&mut sender, &handle, head, Framing::None, Vec::new()).await.is_ok()
            },
            |mut far| async move {
                read_head(&mut far).await;
                far.write_all(answer).await.expect("written");
                let _: std::io::Result<u8> = far.read_u8().await;
            },
        );
        assert!(!reused, "{}", String::from_utf8_lossy(answer));
    }
}

#[test]
fn an_answer_may_come_before_the_request_is_sent() {
    let got = beside(
        |mut sender, handle| async move {
            let body = vec![Bytes::from(vec![b'x'; 300_000]); 4];
            ask(&mut sender, &handle, "POST / HTTP/1.1\r\n\r\n", Framing::Chunked, body).await.expect("an answer")
        },
        |mut far| async move {
            read_head(&mut far).await;
            far.write_all(b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
                .await
                .expect("w");
            let mut all = Vec::new();
            let _: std::io::Result<usize> = far.read_to_end(&mut all).await;
        },
    );
    assert_eq!((got.head.status, &got.body[..]), (413, &b"no"[..]));
}

#[test]
fn behind_an_upgrade_both_ways_are_bare_and_nothing_is_lost() {
    let text = beside(
        |mut sender, handle| async move {
            handle.request("GET / HTTP/1.1\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 1024);
            let request = framing::request(Framing::None, false, true, Pieces(Vec::new().into_iter(), None));
            let response = sender.send_request(request).await.expect("an answer");
            assert_eq!(response.status(), 101);
            assert_eq!(handle.take_response().expect("a head").fields.get("upgrade"), Some(&b"X"[..]));
            let mut tunnel = handle.tunnel().expect("the stream");
            assert!(tunnel.has_rest());
            tunnel.write_all(b"ping").await.expect("written");
            let mut text = String::new();
            tunnel.read_to_string(&mut text).await.expect("read");
            text
        },
        |mut far| async move {
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
fn huge_bodies_go_both_ways_over_tcp() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let size = 3_000_000;
        let address = listener.local_addr().expect("an address");
        let upstream = async {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let mut request = vec![0; 18 + size];
            stream.read_exact(&mut request).await.expect("a request");
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes()).await.expect("w");
            stream.write_all(&request[18..]).await.expect("written");
        };
        let asker = async {
            let stream = tokio::net::TcpStream::connect(address).await.expect("connected");
            let (io, handle) = client(stream);
            let (mut sender, connection) = client_builder().handshake(io).await.expect("shaken");
            let body: Vec<u8> = (0..size).map(|i: usize| (i % 241) as u8).collect();
            let pieces = body.chunks(50_000).map(Bytes::copy_from_slice).collect();
            let asking = async {
                let head = "PUT / HTTP/1.1\r\n\r\n";
                let got = ask(&mut sender, &handle, head, Framing::Length(size as u64), pieces).await;
                drop(sender);
                got.expect("an answer")
            };
            let (got, _) = tokio::join!(asking, connection);
            assert!(got.whole && got.body == body);
        };
        tokio::join!(upstream, asker);
    });
}
