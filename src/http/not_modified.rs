//! 304 and 412: what the client's conditions make of an answer.

use super::{
    body::Body,
    exchange::Exchange,
    modules::core,
    response::Response,
    validators::{self, Conditions, IfModifiedSince, Verdict, Version},
};

/// Weighs the request's conditions (`ngx_http_not_modified_header_filter`).
///
/// # Errors
/// 412, to be answered in place of this.
pub fn filter(exchange: &mut Exchange, response: &mut Response) -> Result<(), u16> {
    if response.status != 200 || response.passed {
        return Ok(());
    }
    let conditions = Conditions {
        if_match: exchange.field("if-match"),
        if_none_match: exchange.field("if-none-match"),
        if_modified_since: exchange.field("if-modified-since"),
        if_unmodified_since: exchange.field("if-unmodified-since"),
    };
    let none =
        [conditions.if_match, conditions.if_none_match, conditions.if_modified_since, conditions.if_unmodified_since];
    if none.iter().all(Option::is_none) {
        return Ok(());
    }
    let version = version(response);
    let mode = match exchange.location.settings.core.if_modified_since {
        core::IfModifiedSince::Off => IfModifiedSince::Off,
        core::IfModifiedSince::Exact => IfModifiedSince::Exact,
        core::IfModifiedSince::Before => IfModifiedSince::Before,
    };
    match validators::evaluate(&conditions, &version, mode) {
        Verdict::Send => {}
        Verdict::NotModified => {
            response.status = 304;
            response.status_line = None;
            response.content_type = None;
            response.charset = None;
            response.forget_length();
            response.fields.remove("content-encoding");
            if let Some(body) = response.body.upstream() {
                body.report(exchange);
                response.aside = Body::Upstream(body.share());
            }
            response.body = Body::Empty;
        }
        Verdict::PreconditionFailed => return Err(412),
    }
    Ok(())
}

/// What the answer says of its own version, from its own places or from an upstream's fields.
pub fn version(response: &Response) -> Version<'_> {
    let modified = response.field("last-modified").and_then(super::dates::parse_http_time);
    Version {
        modified: response.last_modified.or(modified),
        etag: response.etag.as_deref().or_else(|| response.field("etag")),
    }
}
