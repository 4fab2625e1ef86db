//! Protocols where a request is one packet and an answer is CGI's: uwsgi and its kin.

use super::{
    Answer, Attempt, Job,
    http::{Outbound, Sends},
};
use crate::{
    http::{
        body::{BodyError, RequestBodyError},
        exchange::Exchange,
        files::errno,
        heads::{
            HeadError,
            response::{Progress, cgi::CgiParser},
        },
    },
    upstream::{Failure, body::UpstreamBody, connect::Stream, peer::Peer},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use std::{io, sync::Arc, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Sends the packet and the body, and reads the head of the answer.
pub(super) async fn ask(
    attempt: &mut Attempt,
    exchange: &mut Exchange,
    job: &Job<'_>,
    peer: &Arc<Peer>,
    packet: &Bytes,
) -> Result<Answer, Failure> {
    let mut stream = attempt.connect(exchange, job, peer).await?;
    let passing = job.passing;
    send(&mut stream, packet, passing.send_timeout.0).await?;
    attempt.sent = true;
    let mut sent = packet.len() as u64;
    if passing.pass_request_body {
        let mut body = Outbound::of(&mut exchange.body, &Sends::Client);
        while let Some(piece) = next_piece(&mut body).await? {
            send(&mut stream, &piece, passing.send_timeout.0).await?;
            sent += piece.len() as u64;
        }
    }
    if let Some(attempt) = exchange.tries.last_mut() {
        attempt.bytes_sent = sent;
    }
    let mut received = BytesMut::with_capacity(passing.buffer_size.0.min(4096));
    let mut parser = CgiParser::with_status_line();
    let head_length = loop {
        match tokio::time::timeout(passing.read_timeout.0, stream.read_buf(&mut received)).await {
            Err(_) => return Err(Failure::Timeout),
            Ok(Err(error)) => return Err(Failure::Io("recv()", errno(&error))),
            Ok(Ok(0)) => return Err(Failure::Closed),
            Ok(Ok(_)) => {}
        }
        match parser.parse(&received, passing.buffer_size.0).map_err(head_failure)? {
            Progress::Partial => {}
            Progress::Complete(length) => break length,
        }
    };
    attempt.answered(exchange);
    let head = parser.finish(received.split_to(head_length).freeze());
    let body = UpstreamBody::raw(stream, received.freeze(), head.content_length, passing.read_timeout.0);
    Ok(Answer { head, body })
}

async fn send(stream: &mut Stream, bytes: &[u8], gap: Duration) -> Result<(), Failure> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match tokio::time::timeout(gap, stream.write(rest)).await {
            Err(_) => return Err(Failure::Timeout),
            Ok(Ok(0)) => return Err(Failure::Closed),
            Ok(Ok(written)) => rest = &rest[written..],
            // Who answers before it has read everything closes on us: the answer may still be there to read.
            Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
                return Ok(());
            }
            Ok(Err(error)) => return Err(Failure::Io("writev()", errno(&error))),
        }
    }
    Ok(())
}

async fn next_piece(body: &mut Outbound) -> Result<Option<Bytes>, Failure> {
    match body.frame().await {
        None => Ok(None),
        Some(Ok(frame)) => Ok(frame.into_data().ok()),
        Some(Err(BodyError::Upstream(failure))) => Err(failure),
        Some(Err(_)) => Err(Failure::Client(RequestBodyError::Disk)),
    }
}

fn head_failure(error: HeadError) -> Failure {
    match error {
        HeadError::Closed => Failure::Closed,
        other => Failure::Invalid(other.to_string()),
    }
}
