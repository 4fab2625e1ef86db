//! 206 and 416: parts of an answer (`ngx_http_range_header_filter`).

use super::{
    body::{Body, FileBody},
    exchange::Exchange,
    not_modified::version,
    ranges::{self, Multipart, Plan},
    response::Response,
    validators,
};
use bytes::Bytes;
use std::ops::Range;

/// Cuts the answer down to what the client asked for.
///
/// # Errors
/// 416, to be answered in place of this.
pub fn filter(exchange: &mut Exchange, response: &mut Response) -> Result<(), u16> {
    let Some(length) = response.content_length else { return Ok(()) };
    if !response.ranges
        || response.status != 200
        || !(sliceable(&response.body) || matches!(response.body, Body::Upstream(_) | Body::Slices(_)))
    {
        return Ok(());
    }
    let most = exchange.location.settings.core.max_ranges;
    if most == Some(0) {
        return Ok(());
    }
    let most = match response.single_range {
        true => 1,
        false => most.map_or(ranges::UNLIMITED, |most| u32::try_from(most).unwrap_or(u32::MAX)),
    };
    let plan = match exchange.field("range") {
        Some(range)
            if range.len() >= 7 && range[..6].eq_ignore_ascii_case(b"bytes=") && applies(exchange, response) =>
        {
            ranges::plan(length, range, most)
        }
        _ => Plan::Ignore,
    };
    match plan {
        Plan::Ignore => response.push(&b"Accept-Ranges"[..], &b"bytes"[..]),
        Plan::Single(range) => {
            response.status = 206;
            response.status_line = None;
            response.push(&b"Content-Range"[..], ranges::content_range(&range, length));
            response.content_length = Some(range.end - range.start);
            response.body = part(std::mem::take(&mut response.body), &range);
        }
        Plan::Multi(parts) => multipart(response, &parts, length),
        Plan::Unsatisfiable => {
            // Like nginx's, the error's page comes with the range, and with the tag of what was asked for.
            let kept = &mut exchange.state.error_page.kept;
            if let Some(etag) = response.etag.take() {
                kept.push(Bytes::from_static(b"ETag"), etag);
            }
            let fields = response.fields.iter().filter(|field| !field.name.eq_ignore_ascii_case(b"last-modified"));
            fields.for_each(|field| kept.push(field.name.clone(), field.value.clone()));
            kept.push(Bytes::from_static(b"Content-Range"), ranges::unsatisfied(length));
            return Err(416);
        }
    }
    Ok(())
}

/// `If-Range` names this very version, or there is none.
fn applies(exchange: &Exchange, response: &Response) -> bool {
    exchange.field("if-range").is_none_or(|value| validators::if_range(value, &version(response)))
}

fn multipart(response: &mut Response, parts: &[Range<u64>], length: u64) {
    let mut kind = response.content_type.take().map(|kind| kind.to_vec()).unwrap_or_default();
    if let Some(charset) = response.charset.take() {
        kind.extend_from_slice(b"; charset=");
        kind.extend_from_slice(&charset);
    }
    let boundary = boundary();
    let frame = Multipart::new(boundary, &kind, length);
    let mut bodies = Vec::with_capacity(2 * parts.len() + 1);
    for range in parts {
        bodies.push(Body::Bytes(frame.part(range).into()));
        bodies.push(slice(&response.body, range));
    }
    bodies.push(Body::Bytes(frame.close().into()));
    response.status = 206;
    response.status_line = None;
    response.content_type = Some(frame.content_type().into());
    response.content_length = Some(frame.content_length(parts));
    response.body = Body::parts(bodies);
}

/// Bodies whose every byte is at hand can be cut as often as one likes; an upstream's only once.
fn sliceable(body: &Body) -> bool {
    match body {
        Body::Charset(recoded) => recoded.keeps_length() && sliceable(recoded.inner()),
        body => matches!(body, Body::Empty | Body::Bytes(_) | Body::File(_)),
    }
}

/// A part of a body whose length is known.
pub fn part(body: Body, range: &Range<u64>) -> Body {
    match body {
        Body::Upstream(body) => {
            body.cut(range);
            Body::Upstream(body)
        }
        Body::Slices(mut body) => {
            body.cut(range);
            Body::Slices(body)
        }
        body => slice(&body, range),
    }
}

fn slice(body: &Body, range: &Range<u64>) -> Body {
    match body {
        Body::Bytes(bytes) => {
            let at = |offset: u64| usize::try_from(offset).unwrap_or(bytes.len()).min(bytes.len());
            Body::Bytes(bytes.slice(at(range.start)..at(range.end)))
        }
        Body::File(file) => {
            let offset = file.offset + range.start;
            Body::File(FileBody { offset, left: range.end - range.start, ..file.clone() })
        }
        Body::Charset(recoded) => Body::Charset(Box::new(recoded.over(slice(recoded.inner(), range)))),
        _ => Body::Empty,
    }
}

fn boundary() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
