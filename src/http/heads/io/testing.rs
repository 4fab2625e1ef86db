//! A small server and a small client for tests: the loop a connection's task runs.

use super::{Incoming, Pieces, Sending, ServerHandle, ServerSide, Stop, server};
use crate::http::heads::{Framing, Limits, Refusal, RequestHead};
use bytes::Bytes;
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    rc::Rc,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a client asked.
pub(super) enum Asked {
    Request(Box<RequestHead>),
    Refused(Box<Refusal>),
}

/// A body of given pieces.
pub(super) struct Given(std::vec::IntoIter<Bytes>);

impl Pieces for Given {
    fn poll_piece(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, ()>>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

/// What a test's service answers.
pub(super) struct Answer {
    pub(super) head: String,
    pub(super) framing: Framing,
    pub(super) keepalive: bool,
    /// The rest of the request's body is read away.
    pub(super) discards: bool,
    pub(super) body: Vec<Bytes>,
}

impl Answer {
    /// With a head that can be told from any other.
    pub(super) fn new(framing: Framing, body: impl Into<Bytes>) -> Self {
        let body: Bytes = body.into();
        let head = match framing {
            Framing::Length(length) => format!("HTTP/1.1 200 OK\r\nX-OURS: yes\r\nContent-Length: {length}\r\n\r\n"),
            Framing::Chunked => "HTTP/1.1 200 OK\r\nX-OURS: yes\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            _ => "HTTP/1.1 200 OK\r\nX-OURS: yes\r\n\r\n".into(),
        };
        let body = if body.is_empty() { Vec::new() } else { vec![body] };
        Self { head, framing, keepalive: framing != Framing::Close, discards: false, body }
    }
}

/// What became of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Closed,
    Unfinished,
    Broken,
    /// An answer was its last.
    ByUs,
}

/// Runs a connection: the loop of the module's documentation.
pub(super) async fn serve<S, F, Fut>(stream: S, limits: Limits, app: F) -> (Ended, ServerHandle<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    F: Fn(ServerSide, Asked, Incoming) -> Fut,
    Fut: Future<Output = Answer>,
{
    let handle = server(stream);
    loop {
        let (asked, kept, bodyless) = match handle.next_head(&limits).await {
            Ok(head) => {
                handle.begin(&head);
                let (kept, bodyless) = (head.keepalive(), head.method == "HEAD");
                (Asked::Request(head), kept, bodyless)
            }
            Err(Stop::Refused(refusal)) => {
                handle.begin_refused();
                (Asked::Refused(refusal), false, false)
            }
            Err(Stop::Closed) => return (Ended::Closed, handle),
            Err(Stop::Unfinished(_)) => return (Ended::Unfinished, handle),
            Err(Stop::Io(_)) => return (Ended::Broken, handle),
        };
        let mut work = Box::pin(app(handle.side().clone(), asked, handle.incoming()));
        let answer = poll_fn(|cx| {
            let made = work.as_mut().poll(cx);
            if made.is_pending() {
                let _: Poll<std::io::Result<()>> = handle.poll_interim(cx);
                handle.poll_watch(cx);
            }
            made
        })
        .await;
        let framing = if bodyless { Framing::None } else { answer.framing };
        let mut sending = Sending::new(answer.head.into(), Given(answer.body.into_iter()), framing);
        let sent = poll_fn(|cx| {
            let sent = handle.poll_send(cx, &mut sending, |_, _, _, _| Poll::Ready(Ok(0)));
            let read = if answer.discards { handle.poll_discard(cx).map(drop) } else { Poll::Ready(()) };
            if read.is_ready() { sent } else { Poll::Pending }
        })
        .await;
        if sent.is_err() {
            return (Ended::Broken, handle);
        }
        if sending.is_cut() || !kept || !answer.keepalive || !handle.is_read() {
            return (Ended::ByUs, handle);
        }
    }
}

/// Answers with what it was asked: request line, fields, and the body's bytes.
pub(super) async fn echo(asked: Asked, body: Incoming) -> Answer {
    let head = match asked {
        Asked::Request(head) => head,
        Asked::Refused(refusal) => {
            let mut answer = Answer::new(Framing::Length(0), "");
            answer.head = format!("HTTP/1.1 {} refused\r\nConnection: close\r\n\r\n", refusal.status);
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
    Answer::new(Framing::Length(text.len() as u64), text)
}

/// All of a body.
pub(super) async fn read(mut body: Incoming) -> Result<Vec<u8>, ()> {
    let mut all = Vec::new();
    while let Some(piece) = poll_fn(|cx| body.poll_piece(cx)).await {
        all.extend_from_slice(&piece.map_err(|_| ())?);
    }
    Ok(all)
}

/// Talks to [`serve`] over a pipe: writes `input` in pieces of `step` bytes, then reads until the server closes. Returns
/// what came back.
pub(super) async fn talk(input: &[u8], step: usize) -> (String, Ended) {
    talk_to(input, step, |_, asked, body| echo(asked, body)).await
}

/// The same with a service of the test's own.
pub(super) async fn talk_to<F, Fut>(input: &[u8], step: usize, app: F) -> (String, Ended)
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
        let (ended, handle) = serve(near, Limits::default(), app).await;
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
