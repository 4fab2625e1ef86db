//! The server side, over pipes and over TCP.

use super::{
    ServerSide,
    testing::{Answer, Asked, Ended, echo, read, run, serve, talk, talk_to},
};
use crate::http::heads::{Framing, Limits};
use bytes::Bytes;
use std::cell::RefCell;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn ours(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nX-OURS: yes\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn pipelined_requests_are_parted_however_they_arrive() {
    let input = b"GET /a HTTP/1.1\r\nHOST: x\r\nx-B: c\r\n\r\n\
        POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\
        POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n3;e=1\r\nabc\r\n2\r\nde\r\n0\r\nT: r\r\n\r\n\
        \r\n\nHEAD /d HTTP/1.1\nHost: x\n\n\
        PUT /e HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n\
        GET /f HTTP/1.1\r\nHost: x\r\n\r\n";
    let head_only = ours("[HEAD /d HTTP/1.1]Host=x;");
    let expected = [
        ours("[GET /a HTTP/1.1]HOST=x;x-B=c;"),
        ours("[POST /b HTTP/1.1]Host=x;Content-Length=5;hello"),
        ours("[POST /c HTTP/1.1]Host=x;Transfer-Encoding=Chunked;abcde"),
        head_only[..head_only.len() - "[HEAD /d HTTP/1.1]Host=x;".len()].into(),
        ours("[PUT /e HTTP/1.1]Host=x;Content-Length=0;"),
        ours("[GET /f HTTP/1.1]Host=x;"),
    ]
    .concat();
    for step in [1, 2, 3, 7, 50, 1000] {
        assert_eq!(run(talk(input, step)), (expected.clone(), Ended::Closed), "by {step}");
    }
}

#[test]
fn what_follows_a_body_is_a_request() {
    // The second request hides behind a body whose end only our count knows; it must be read as a request.
    let input = b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: y\r\nConnection: close\r\n\r\ntrailing junk";
    let (output, ended) = run(talk(input, 4096));
    let close = ours("[GET /2 HTTP/1.1]Host=y;Connection=close;");
    assert_eq!(output, ours("[POST /1 HTTP/1.1]Host=x;Content-Length=3;abc") + &close);
    assert_eq!(ended, Ended::ByUs);
}

#[test]
fn the_answer_goes_to_http_1_0_clients_as_we_wrote_it() {
    let kept = b"GET /1 HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n";
    let (output, ended) = run(talk(kept, 4096));
    assert_eq!(output, ours("[GET /1 HTTP/1.0]Connection=Keep-Alive;") + &ours("[GET /2 HTTP/1.0]"));
    assert_eq!(ended, Ended::ByUs);
}

#[test]
fn a_body_without_a_length_ends_with_the_connection() {
    for request in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /\r\n"] {
        let (output, ended) = run(talk_to(request, 4096, |_, _, _| async {
            let mut answer = Answer::new(Framing::Close, "");
            answer.body = vec![Bytes::from_static(b"one "), Bytes::from_static(b"two")];
            answer
        }));
        assert_eq!(output, "HTTP/1.1 200 OK\r\nX-OURS: yes\r\n\r\none two");
        assert_eq!(ended, Ended::ByUs);
    }
}

#[test]
fn an_http_0_9_answer_has_no_head() {
    let (output, _) = run(talk_to(b"GET /old\r\n", 4096, |_, asked, _| async move {
        let Asked::Request(head) = asked else { panic!("refused") };
        assert_eq!((head.version, &*head.target), ((0, 9), &b"/old"[..]));
        let mut answer = Answer::new(Framing::Close, "just this");
        answer.head = String::new();
        answer
    }));
    assert_eq!(output, "just this");
}

#[test]
fn chunked_answers_are_framed_behind_our_head() {
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nHEAD / HTTP/1.1\r\nHost: x\r\n\r\n";
    let (output, ended) = run(talk_to(request, 4096, |_, _, _| async {
        let mut answer = Answer::new(Framing::Chunked, "");
        answer.body = vec![Bytes::from_static(b"hello "), Bytes::from_static(b"world")];
        answer
    }));
    let head = "HTTP/1.1 200 OK\r\nX-OURS: yes\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(output, format!("{head}6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n{head}"));
    assert_eq!(ended, Ended::Closed);
}

#[test]
fn statuses_without_a_body_get_none() {
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let (output, ended) = run(talk_to(request, 4096, |_, _, _| async {
        let mut answer = Answer::new(Framing::None, "this must not go out");
        answer.head = "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n".into();
        answer
    }));
    assert_eq!(output, "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n".repeat(2));
    assert_eq!(ended, Ended::Closed);
}

#[test]
fn refused_requests_are_answered_and_the_connection_closes() {
    for (request, status) in [
        (&b"G\x01T / HTTP/1.1\r\n\r\n"[..], 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    ] {
        let (output, ended) = run(talk(request, 1));
        assert_eq!(output, format!("HTTP/1.1 {status} refused\r\nConnection: close\r\n\r\n"));
        assert_eq!(ended, Ended::ByUs);
    }
}

#[test]
fn a_refused_request_behind_a_good_one_is_answered_in_turn() {
    let (output, _) = run(talk(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET\r\n", 4096));
    assert_eq!(output, ours("[GET /1 HTTP/1.1]Host=x;") + "HTTP/1.1 400 refused\r\nConnection: close\r\n\r\n");
}

#[test]
fn an_unfinished_head_is_told_from_a_quiet_close() {
    assert_eq!(run(talk(b"", 1)), (String::new(), Ended::Closed));
    assert_eq!(run(talk(b"GET / HTTP/1.1\r\nHos", 3)), (String::new(), Ended::Unfinished));
}

#[test]
fn continue_is_sent_when_the_body_is_read_and_only_once() {
    run(async {
        for early in [false, true] {
            let (near, mut far) = tokio::io::duplex(4096);
            let serving = serve(near, Limits::default(), |side, asked, body| async move {
                if early {
                    side.send_continue();
                }
                echo(asked, body).await
            });
            let client = async {
                let head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n";
                far.write_all(head).await.expect("written");
                let mut interim = [0; 25];
                far.read_exact(&mut interim).await.expect("interim");
                assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
                far.write_all(b"abc").await.expect("written");
                far.shutdown().await.expect("shut");
                let mut rest = String::new();
                far.read_to_string(&mut rest).await.expect("rest");
                rest
            };
            let (_, rest) = tokio::join!(async { serving.await.0 }, client);
            assert_eq!(rest, ours("[POST / HTTP/1.1]Host=x;Expect=100-Continue;Content-Length=3;abc"));
        }
    });
}

#[test]
fn continue_goes_out_where_there_is_no_body() {
    let request = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n";
    let (output, _) = run(talk_to(request, 4096, |side, asked, body| async move {
        side.send_continue();
        side.send_continue();
        echo(asked, body).await
    }));
    let end = ours("[POST / HTTP/1.1]Host=x;Expect=100-continue;Content-Length=0;");
    assert_eq!(output, format!("HTTP/1.1 100 Continue\r\n\r\n{end}"));
}

#[test]
fn a_body_nobody_wants_is_read_away_and_the_connection_lives() {
    run(async {
        let (near, mut far) = tokio::io::duplex(1024);
        let serving = serve(near, Limits::default(), |side, _, body| async move {
            drop((side, body));
            let mut answer = Answer::new(Framing::Length(2), "ok");
            answer.discards = true;
            answer
        });
        let client = async {
            far.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n").await.expect("written");
            let mut first = vec![0; ours("ok").len()];
            far.read_exact(&mut first).await.expect("answered before the body came");
            far.write_all(&vec![b'x'; 200_000]).await.expect("written");
            let chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
            far.write_all(chunked).await.expect("written");
            far.write_all(b"3\r\nabc\r\n0\r\n\r\n").await.expect("written");
            far.shutdown().await.expect("shut");
            let mut rest = String::new();
            far.read_to_string(&mut rest).await.expect("rest");
            [first, rest.into_bytes()].concat()
        };
        let (ended, all) = tokio::join!(async { serving.await.0 }, client);
        assert_eq!(String::from_utf8_lossy(&all), ours("ok").repeat(2));
        assert_eq!(ended, Ended::Closed);
    });
}

#[test]
fn an_invalid_chunked_body_breaks_the_body_but_not_the_answer() {
    for (body, step) in [(&b"zz\r\n"[..], 4096), (b"3\r\nabcX\r\n", 1), (b"1\nx\n", 4096)] {
        let request = [b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", body].concat();
        let bad = RefCell::new(false);
        let (output, ended) = run(talk_to(&request, step, |side, _, body| {
            let bad = &bad;
            async move {
                assert!(read(body).await.is_err());
                *bad.borrow_mut() = side.bad_body();
                Answer::new(Framing::Length(3), "bad")
            }
        }));
        assert!(bad.take());
        assert_eq!(output, ours("bad"));
        assert_eq!(ended, Ended::ByUs);
    }
}

#[test]
fn a_client_that_leaves_is_noted_but_the_answer_goes_on() {
    run(async {
        let (near, mut far) = tokio::io::duplex(1024);
        let serving = serve(near, Limits::default(), |side, _, _| async move {
            while !side.closed() {
                tokio::task::yield_now().await;
            }
            Answer::new(Framing::Length(4), "late")
        });
        let client = async {
            far.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("written");
            far.shutdown().await.expect("shut");
            let mut all = String::new();
            far.read_to_string(&mut all).await.expect("read");
            all
        };
        let (ended, all) = tokio::join!(async { serving.await.0 }, client);
        assert_eq!((ended, all), (Ended::Closed, ours("late")));
    });
}

#[test]
fn a_body_cut_short_is_an_error_for_the_service() {
    let request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc";
    let (output, _) = run(talk(request, 4096));
    assert_eq!(output, ours("[POST / HTTP/1.1]Host=x;Content-Length=10;BROKEN"));
}

#[test]
fn bytes_both_ways_are_counted_for_each_request() {
    run(async {
        let (near, mut far) = tokio::io::duplex(4096);
        let (first, second) = (
            b"POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n",
        );
        let seen = RefCell::new(Vec::new());
        let serving = serve(near, Limits::default(), |side, asked, body| {
            let seen = &seen;
            async move {
                let Asked::Request(head) = asked else { panic!("refused") };
                let body = read(body).await.expect("a body");
                seen.borrow_mut().push((head.length, side.body_received(), body.len(), side.sent_now()));
                Answer::new(Framing::Length(2), "ok")
            }
        });
        let client = async {
            far.write_all(&[&first[..], second].concat()).await.expect("written");
            far.shutdown().await.expect("shut");
            let mut all = vec![0; 2 * ours("ok").len()];
            far.read_exact(&mut all).await.expect("read");
            all.len() as u64
        };
        let ((_, handle), sent) = tokio::join!(serving, client);
        assert_eq!(*seen.borrow(), [(first.len() - 13, 13, 3, 0), (second.len(), 0, 0, 0)]);
        assert_eq!(handle.received(), (first.len() + second.len()) as u64);
        assert_eq!((handle.sent(), handle.sent_now()), (sent, ours("ok").len() as u64));
    });
}

#[test]
fn behind_an_upgrade_both_ways_are_bare_and_nothing_is_lost() {
    run(async {
        let (near, mut far) = tokio::io::duplex(4096);
        let serving = async {
            let (ended, handle) = serve(near, Limits::default(), |_, _, _| async {
                let mut answer = Answer::new(Framing::None, "");
                answer.head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: Echo\r\n\r\n".into();
                answer.keepalive = false;
                answer
            })
            .await;
            assert_eq!(ended, Ended::ByUs);
            let mut tunnel = handle.tunnel().expect("the stream");
            assert!(handle.tunnel().is_none());
            let mut bytes = [0; 11];
            tunnel.read_exact(&mut bytes).await.expect("early and late bytes");
            tunnel.write_all(&bytes).await.expect("written");
            tunnel.shutdown().await.expect("shut");
        };
        let client = async {
            let head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly ";
            far.write_all(head).await.expect("written");
            let mut answer = [0; 51];
            far.read_exact(&mut answer).await.expect("head");
            assert_eq!(&answer, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: Echo\r\n\r\n");
            far.write_all(b"later").await.expect("written");
            let mut all = String::new();
            far.read_to_string(&mut all).await.expect("read");
            all
        };
        let ((), all) = tokio::join!(serving, client);
        assert_eq!(all, "early later");
    });
}

#[test]
fn huge_bodies_go_both_ways_over_tcp() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let size = 3_000_000;
        let serving = async {
            let (stream, _) = listener.accept().await.expect("accepted");
            serve(stream, Limits::default(), |_, asked, body| async move {
                let Asked::Request(head) = asked else { panic!("refused") };
                let body: Bytes = read(body).await.expect("a body").into();
                let framing = if head.chunked { Framing::Chunked } else { Framing::Length(body.len() as u64) };
                let mut answer = Answer::new(framing, "");
                answer.body = body.chunks(70_000).map(Bytes::copy_from_slice).collect();
                answer
            })
            .await
            .0
        };
        let client = async {
            let body: Vec<u8> = (0..size).map(|i: usize| (i % 251) as u8).collect();
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
            let (mut reader, mut writer) = stream.split();
            let write = async {
                let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n");
                writer.write_all(head.as_bytes()).await.expect("written");
                writer.write_all(&body).await.expect("written");
                writer.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await.expect("w");
                for chunk in body.chunks(12_345) {
                    writer.write_all(format!("{:x};x=y\r\n", chunk.len()).as_bytes()).await.expect("written");
                    writer.write_all(chunk).await.expect("written");
                    writer.write_all(b"\r\n").await.expect("written");
                }
                writer.write_all(b"0\r\n\r\n").await.expect("written");
                writer.shutdown().await.expect("shut");
            };
            let mut all = Vec::new();
            let read = async { reader.read_to_end(&mut all).await.expect("read") };
            tokio::join!(write, read);
            let head = format!("HTTP/1.1 200 OK\r\nX-OURS: yes\r\nContent-Length: {size}\r\n\r\n");
            assert!(all.starts_with(head.as_bytes()));
            assert!(all[head.len()..][..size] == body[..]);
            let rest = &all[head.len() + size..];
            let head = b"HTTP/1.1 200 OK\r\nX-OURS: yes\r\nTransfer-Encoding: chunked\r\n\r\n";
            assert!(rest.starts_with(head));
            let mut coded = rest[head.len()..].to_vec();
            let mut scanner = crate::http::heads::chunked::Scanner::default();
            assert_eq!(scanner.unwrap(&mut coded, None).scan, crate::http::heads::chunked::Scan::Done(coded.len()));
            assert_eq!(scanner.payload(), size as u64);
        };
        let (ended, ()) = tokio::join!(serving, client);
        assert_eq!(ended, Ended::Closed);
    });
}

#[test]
fn an_upgrade_that_is_not_taken_leaves_the_connection_as_it_was() {
    let request = b"GET /1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    let (output, ended) = run(talk(&request.repeat(2), 4096));
    assert_eq!(output, ours("[GET /1 HTTP/1.1]Host=x;Connection=Upgrade;Upgrade=h2c;").repeat(2));
    assert_eq!(ended, Ended::Closed);
}

#[test]
fn an_idle_connection_is_small() {
    let (shared, channel) = (ServerSide::SIZE, super::server::channel_size::<tokio::net::TcpStream>());
    assert!(shared + channel < 320, "{shared} + {channel}");
}

#[test]
fn nobody_waits_in_vain_for_a_continue_unless_it_is_meant() {
    let request = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc";
    let answer = |skip: bool| {
        run(talk_to(request, 4096, move |side, _, body| async move {
            match skip {
                true => side.skip_continue(),
                false => side.send_continue(),
            }
            drop((side, body));
            let mut answer = Answer::new(Framing::Length(2), "ok");
            answer.discards = true;
            answer
        }))
        .0
    };
    assert_eq!(answer(false), format!("HTTP/1.1 100 Continue\r\n\r\n{}", ours("ok")));
    assert_eq!(answer(true), ours("ok"));
}

#[test]
fn empty_lines_without_end_take_no_memory() {
    run(async {
        let (near, mut far) = tokio::io::duplex(1024);
        let handle = super::server(near);
        let client = async {
            far.write_all(&b"\r\n".repeat(50_000)).await.expect("written");
            far.write_all(b"GET /late HTTP/1.0\r\n\r\n").await.expect("written");
        };
        let limits = Limits::default();
        let (head, ()) = tokio::join!(handle.next_head(&limits), client);
        assert_eq!(head.expect("a head").target, "/late");
        assert!(handle.buffered().is_empty() && !handle.head_begun());
    });
}

#[test]
fn bytes_of_another_protocol_can_be_looked_at_first() {
    run(async {
        let (near, mut far) = tokio::io::duplex(1024);
        let handle = super::server(near);
        far.write_all(b"PROXY x\r\nGET /a HTTP/1.0\r\n").await.expect("written");
        assert!(handle.wait().await.expect("read"));
        assert!(handle.buffered().starts_with(b"PROXY x\r\n"));
        handle.consume(9);
        handle.unread(b"\r\n");
        far.write_all(b"A: b\r\n\r\nrest").await.expect("written");
        let head = handle.next_head(&Limits::default()).await.expect("a head");
        assert_eq!((&*head.target, head.fields.len()), (&b"/a"[..], 1));
        drop(far);
        let mut rest = String::new();
        handle.tunnel().expect("the stream").read_to_string(&mut rest).await.expect("read");
        assert_eq!(rest, "rest");
    });
}

/// A request to come: what it looks like on the wire, and its body.
fn any_request() -> impl proptest::strategy::Strategy<Value = (Vec<u8>, Vec<u8>)> {
    use proptest::prelude::*;
    let body = prop::collection::vec(b'a'..=b'z', 0..20_000);
    let chunks = prop::collection::vec((1..3000usize, "(;[ -~]{0,20}| )?"), 1..20);
    let trailers = "([A-Z][a-z]{0,8}: [!-~]{0,9}\r\n){0,3}";
    (body, any::<bool>(), chunks, trailers, "(\r?\n){0,2}").prop_map(|(body, chunked, chunks, trailers, before)| {
        let mut text = before.into_bytes();
        text.extend_from_slice(b"POST / HTTP/1.1\r\nHost: x\r\n");
        if !chunked {
            text.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            text.extend_from_slice(&body);
            return (text, body);
        }
        text.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        let mut rest = &body[..];
        for (size, extension) in chunks.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, behind) = rest.split_at((*size).min(rest.len()));
            text.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
            text.extend_from_slice(chunk);
            text.extend_from_slice(b"\r\n");
            rest = behind;
        }
        text.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
        (text, body)
    })
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_is_pipelined_comes_apart_again(
        requests in proptest::collection::vec(any_request(), 1..6),
        step in 1..9000usize,
    ) {
        let wire: Vec<u8> = requests.iter().flat_map(|(text, _)| text.iter().copied()).collect();
        let (output, ended) = run(talk_to(&wire, step, |_, _, body| async move {
            let body: Bytes = read(body).await.expect("a body").into();
            Answer::new(Framing::Length(body.len() as u64), body)
        }));
        let expected: String = requests.iter().map(|(_, body)| ours(&String::from_utf8_lossy(body))).collect();
        proptest::prop_assert_eq!(ended, Ended::Closed);
        proptest::prop_assert!(output == expected);
    }
}
