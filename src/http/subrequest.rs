//! Subrequests: requests of the server's own on behalf of a client's, answered by the same phases
//! (`ngx_http_subrequest`).

use super::{body::RequestBody, exchange::Exchange, pipeline, response::Response};
use crate::observe::error_log::Level;
use bytes::Bytes;
use std::{future::Future, pin::Pin};

/// How deep subrequests may stand in each other (`NGX_HTTP_MAX_SUBREQUESTS`).
const MAX_DEPTH: u8 = 50;

/// What a subrequest came to.
pub struct Answered {
    pub exchange: Exchange,
    pub response: Response,
}

/// Answers a path with `GET`. `None`: it cannot be answered, which is in the log.
pub async fn subrequest(parent: &mut Exchange, path: &Bytes, args: &Bytes, body: RequestBody) -> Option<Answered> {
    let answered = answer(begin(parent, path, args, body)?).await?;
    // What it has set is set for both: nginx has one list of values for all of them.
    parent.take_values(&answered.exchange);
    Some(answered)
}

/// A subrequest before any phase; the caller may still change it.
pub fn begin(parent: &Exchange, path: &Bytes, args: &Bytes, body: RequestBody) -> Option<Exchange> {
    if parent.depth == MAX_DEPTH {
        let path = String::from_utf8_lossy(path);
        parent.log(Level::Err, &format!("subrequests cycle while processing \"{path}\""));
        return None;
    }
    Some(parent.child(path.clone(), args.clone(), body))
}

/// Answers a subrequest that has begun.
pub async fn answer(mut exchange: Exchange) -> Option<Answered> {
    // A future of a type of its own would hold itself.
    let answer: Pin<Box<dyn Future<Output = Option<Response>> + '_>> = Box::pin(pipeline::subrequest(&mut exchange));
    let response = answer.await?;
    exchange.sent.status = response.status;
    exchange.sent.text = super::response::preview(&exchange, &response);
    if exchange.location.settings.core.log_subrequest {
        exchange.sent.total = exchange.connection.side.sent_now();
        pipeline::log(&exchange);
    }
    Some(Answered { exchange, response })
}
