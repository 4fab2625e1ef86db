//! `$upstream_…`: what was asked of whom, and how it went.

use super::cached;
use crate::{
    http::{
        exchange::{Exchange, Try},
        modules::core::{by_variable_name, put},
        variables::{Prefixed, Variable},
    },
    upstream::Reason,
};
use std::io::Write;

pub const VARIABLES: &[Variable] = &[
    Variable::new("upstream_addr", |ex, out| {
        each(ex, out, |attempt, out| out.extend_from_slice(attempt.peer.as_bytes()))
    }),
    Variable::new("upstream_status", |ex, out| {
        each(ex, out, |attempt, out| match attempt.status {
            0 => out.push(b'-'),
            status => drop(write!(out, "{status:03}")),
        })
    }),
    Variable::new("upstream_connect_time", |ex, out| each(ex, out, |attempt, out| time(attempt.connect_ms, out))),
    Variable::new("upstream_header_time", |ex, out| each(ex, out, |attempt, out| time(attempt.header_ms, out))),
    Variable::new("upstream_response_time", |ex, out| each(ex, out, |attempt, out| time(attempt.response_ms, out))),
    Variable::new("upstream_response_length", |ex, out| {
        each(ex, out, |attempt, out| drop(write!(out, "{}", attempt.response_length)))
    }),
    Variable::new("upstream_bytes_received", |ex, out| {
        each(ex, out, |attempt, out| drop(write!(out, "{}", attempt.bytes_received)))
    }),
    Variable::new("upstream_bytes_sent", |ex, out| {
        each(ex, out, |attempt, out| drop(write!(out, "{}", attempt.bytes_sent)))
    }),
    Variable::new("upstream_cache_status", |ex, out| {
        let status = &ex.state.upstream.cache.status;
        status.as_ref().is_some_and(|(status, _)| put(out, status.word().as_bytes()))
    }),
    Variable::new("upstream_cache_last_modified", |ex, out| filled(out, &cached::questions(ex).0)),
    Variable::new("upstream_cache_etag", |ex, out| filled(out, &cached::questions(ex).1)),
    Variable::new("upstream_failure_reason", |ex, out| {
        let known =
            each(ex, out, |attempt, out| out.extend_from_slice(attempt.reason.map_or("-", Reason::word).as_bytes()));
        if !ex.state.upstream.unresolved.get() {
            return known;
        }
        // Nobody was asked.
        if known {
            out.extend_from_slice(b" : ");
        }
        out.extend_from_slice(Reason::Unresolved.word().as_bytes());
        true
    }),
];

pub const FAMILIES: &[Prefixed] = &[
    Prefixed { prefix: "upstream_http_", get: |ex, name, out| by_variable_name(&ex.upstream_fields, name, out) },
    Prefixed { prefix: "upstream_trailer_", get: |ex, name, out| by_variable_name(&ex.upstream_trailers, name, out) },
    Prefixed { prefix: "upstream_cookie_", get: cookie },
];

/// One value for each attempt: `, ` between peers, ` : ` between groups.
fn each(ex: &Exchange, out: &mut Vec<u8>, write: impl Fn(&Try, &mut Vec<u8>)) -> bool {
    for (at, attempt) in ex.tries.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(if attempt.new_pass { b" : " } else { b", " });
        }
        write(attempt, out);
    }
    !ex.tries.is_empty()
}

fn filled(out: &mut Vec<u8>, value: &[u8]) -> bool {
    !value.is_empty() && put(out, value)
}

fn time(ms: Option<u64>, out: &mut Vec<u8>) {
    match ms {
        None => out.push(b'-'),
        Some(ms) => drop(write!(out, "{}.{:03}", ms / 1000, ms % 1000)),
    }
}

/// A cookie that the last answer sets.
fn cookie(ex: &Exchange, name: &[u8], out: &mut Vec<u8>) -> bool {
    let mut values = ex.upstream_fields.get_all("set-cookie").filter_map(|field| {
        let value = field.strip_prefix(name)?.strip_prefix(b"=")?;
        Some(&value[..memchr::memchr(b';', value).unwrap_or(value.len())])
    });
    values.next().is_some_and(|value| {
        out.extend_from_slice(value);
        true
    })
}
