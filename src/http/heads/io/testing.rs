//! A small server and a small client around hyper, for tests: the loops a connection's task and a proxy run.

use super::{Asked, ServerHandle, ServerSide, Stop, server, server_builder};
use crate::http::heads::{BodyGuard, Framing, Limits, framing};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    cell::RefCell,
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A body of given pieces whose length hyper is not told.
pub(super) struct Pieces(
    pub(super) std::vec::IntoIter<Bytes>,
    #[expect(dead_code, reason = "held, not read")] pub(super) Option<BodyGuard>,
);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// What a test's service answers.
pub(super) struct Answer {
    pub(super) head: String,
    pub(super) framing: Framing,
    pub(super) keepalive: bool,
    pub(super) switch: bool,
    pub(super) body: Vec<Bytes>,
}

impl Answer {
    /// With a head of our own making, so that it can be told from hyper's.
    pub(super) fn new(framing: Framing, body: impl Into<Bytes>) -> Self {
        let body: Bytes = body.into();
        let head = match framing {
            Framing::Length(length) => format!("HTTP/1.1 200 OK\r\nX-OURS: yes\r\nContent-Length: {length}\r\n\r\n"),
            Framing::Chunked => "HTTP/1.1 200 OK\r\nX-OURS: yes\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            _ => "HTTP/1.1 200 OK\r\nX-OURS: yes\r\n\r\n".into(),
        };
        let body = if body.is_empty() { Vec::new() } else { vec![body] };
        Self { head, framing, keepalive: true, switch: false, body }
    }
}

/// What became of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Closed,
    Unfinished,
    Broken,
    /// hyper let go of it.
    ByHyper(bool),
}

/// Runs a connection: the loop of the module's documentation. hyper is dropped and made anew between requests when
/// `fresh` says so.
pub(super) async fn serve<S, F, Fut>(stream: S, limits: Limits, fresh: bool, app: F) -> (Ended, ServerHandle<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    F: Fn(ServerSide, Asked, Incoming) -> Fut,
    Fut: Future<Output = Answer>,
{
    let (_, handle) = server(stream);
    let app = &app;
    let make = || {
        let side = handle.side().clone();
        server_builder().serve_connection(
            handle.io(),
            hyper::service::service_fn(move |request| {
                let side = side.clone();
                Box::pin(async move {
                    let asked = side.take_asked().expect("a head was delivered");
                    let answer = app(side.clone(), asked, request.into_body()).await;
                    side.respond(answer.head);
                    let body = Pieces(answer.body.into_iter(), Some(side.guard()));
                    Ok::<_, Infallible>(framing::response(answer.framing, answer.keepalive, answer.switch, body))
                })
            }),
        )
    };
    let mut hyper = Some(make());
    let ended = loop {
        match handle.next_head(&limits).await {
            Ok(head) => handle.deliver(Asked::Request(head)),
            Err(Stop::Refused(refusal)) => handle.deliver(Asked::Refused(refusal)),
            Err(Stop::Closed) => break Ended::Closed,
            Err(Stop::Unfinished(_)) => break Ended::Unfinished,
            Err(Stop::Io(_)) => break Ended::Broken,
        }
        let connection = hyper.get_or_insert_with(make);
        let over = poll_fn(|cx| {
            if let Poll::Ready(result) = connection.poll_without_shutdown(cx) {
                return Poll::Ready(Some(result.is_ok()));
            }
            let _: Poll<()> = handle.poll_discard(cx);
            if handle.is_idle() { Poll::Ready(None) } else { Poll::Pending }
        })
        .await;
        if let Some(fine) = over {
            break Ended::ByHyper(fine);
        }
        if fresh {
            let parts = hyper.take().expect("it was used").into_parts();
            assert!(parts.read_buf.is_empty(), "hyper keeps nothing");
        }
    };
    drop(hyper);
    (ended, handle)
}

/// Answers with what it was asked: request line, fields, and the body's bytes.
pub(super) async fn echo(asked: Asked, body: Incoming) -> Answer {
    let head = match asked {
        Asked::Request(head) => head,
        Asked::Refused(refusal) => {
            let mut answer = Answer::new(Framing::Length(0), "");
            answer.head = format!("HTTP/1.1 {} refused\r\nConnection: close\r\n\r\n", refusal.status);
            answer.keepalive = false;
            return answer;
        }
    };
    let mut text = format!("[{}]", String::from_utf8_lossy(&head.line));
    for field in &head.fields {
        text.push_str(&format!("{}={};", String::from_utf8_lossy(&field.name), String::from_utf8_lossy(&field.value)));
    }
    match read(body).await {
        Ok(body) => text.push_str(&String::from_utf8_lossy(&body)),
        Err(()) => text.push_str("BROKEN"),
    }
    let mut answer = Answer::new(Framing::Length(text.len() as u64), text);
    answer.keepalive = head.keepalive();
    answer
}

/// All of a body.
pub(super) async fn read(mut body: Incoming) -> Result<Vec<u8>, ()> {
    let mut all = Vec::new();
    while let Some(frame) = poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut body), cx)).await {
        if let Ok(data) = frame.map_err(|_| ())?.into_data() {
            all.extend_from_slice(&data);
        }
    }
    Ok(all)
}

/// Talks to [`serve`] over a pipe: writes `input` in pieces of `step` bytes, then reads until the server closes. Returns
/// what came back.
pub(super) async fn talk(input: &[u8], step: usize, fresh: bool) -> (String, Ended) {
    talk_to(input, step, fresh, |_, asked, body| echo(asked, body)).await
}

/// The same with a service of the test's own.
pub(super) async fn talk_to<F, Fut>(input: &[u8], step: usize, fresh: bool, app: F) -> (String, Ended)
where
    F: Fn(ServerSide, Asked, Incoming) -> Fut,
    Fut: Future<Output = Answer>,
{
    let (near, mut far) = tokio::io::duplex(if step < 16 { 64 } else { 64 * 1024 });
    let output = Rc::new(RefCell::new(Vec::new()));
    let client = async {
        let (mut reader, mut writer) = tokio::io::split(&mut far);
        let write = async {
            for piece in input.chunks(step) {
                if writer.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let _: std::io::Result<()> = writer.shutdown().await;
        };
        let read = async {
            let mut all = Vec::new();
            let _: std::io::Result<usize> = reader.read_to_end(&mut all).await;
            *output.borrow_mut() = all;
        };
        tokio::join!(write, read);
    };
    let serving = async {
        let (ended, handle) = serve(near, Limits::default(), fresh, app).await;
        drop(handle);
        ended
    };
    let (ended, ()) = tokio::join!(serving, client);
    let output = String::from_utf8_lossy(&output.borrow()).into_owned();
    (output, ended)
}

/// Runs a test's future on one thread.
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}
