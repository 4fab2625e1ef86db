//! The parameters of `health_check`.

use crate::{
    config::{
        Args, FromArgs,
        values::{parse_number, parse_time},
    },
    syntax::{Fault, Span, Word},
};
use bytes::Bytes;
use std::{ops::RangeInclusive, time::Duration};

/// One `health_check`.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    pub interval: Duration,
    /// Each check is late by up to so much.
    pub jitter: Duration,
    pub fails: u32,
    pub passes: u32,
    pub uri: Bytes,
    pub mandatory: bool,
    pub persistent: bool,
    /// The name of a `match`, and where it is written.
    pub matching: Option<(Bytes, Span)>,
    /// In the place of the server's own.
    pub port: Option<u16>,
    /// Whether it accepts connections is all that is asked (`type=tcp`).
    pub tcp: bool,
    /// How old a connection may become that serves several checks.
    pub keepalive_time: Option<Duration>,
    /// What is written, for telling checks apart.
    pub text: String,
    pub span: Span,
}

impl FromArgs for std::sync::Arc<HealthCheck> {
    const TAKES: RangeInclusive<usize> = 0..=usize::MAX;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        HealthCheck::read(args).map(Self::new)
    }
}

impl HealthCheck {
    fn read(args: &Args<'_>) -> Result<Self, Fault> {
        let texts: Vec<_> = args.words().iter().map(Word::text).collect();
        let mut check = Self {
            interval: Duration::from_secs(5),
            jitter: Duration::ZERO,
            fails: 1,
            passes: 1,
            uri: Bytes::from_static(b"/"),
            mandatory: false,
            persistent: false,
            matching: None,
            port: None,
            tcp: false,
            keepalive_time: None,
            text: texts.join(" "),
            span: args.statement.name.span,
        };
        let (mut uri, mut kind) = (None, None);
        for word in args.words() {
            let invalid = || args.parameter(word);
            let (name, value) = match memchr::memchr(b'=', &word.value) {
                Some(at) => (&word.value[..at], Some(&word.value[at + 1..])),
                None => (&word.value[..], None),
            };
            let time = |value| parse_time(value, true).map(Duration::from_millis).ok_or_else(invalid);
            let number = |value| {
                let number = parse_number(value).filter(|number| *number > 0).ok_or_else(invalid)?;
                Ok(u32::try_from(number).unwrap_or(u32::MAX))
            };
            match (name, value) {
                (b"interval", Some(value)) => check.interval = time(value)?,
                (b"jitter", Some(value)) => check.jitter = time(value)?,
                (b"fails", Some(value)) => check.fails = number(value)?,
                (b"passes", Some(value)) => check.passes = number(value)?,
                (b"uri", Some(value)) if value.first() == Some(&b'/') => {
                    check.uri = Bytes::copy_from_slice(value);
                    uri = Some(word);
                }
                (b"mandatory", None) => check.mandatory = true,
                (b"persistent", None) => check.persistent = true,
                (b"match", Some(name)) if !name.is_empty() => {
                    check.matching = Some((Bytes::copy_from_slice(name), word.span));
                }
                (b"port", Some(value)) => {
                    let port = parse_number(value).and_then(|port| u16::try_from(port).ok());
                    check.port = Some(port.filter(|port| *port > 0).ok_or_else(invalid)?);
                }
                (b"keepalive_time", Some(value)) => check.keepalive_time = Some(time(value)?),
                (b"type", Some(b"http")) => kind = None,
                (b"type", Some(b"tcp")) => kind = Some(word),
                (b"type", Some(b"grpc")) | (b"grpc_service" | b"grpc_status", Some(_)) => {
                    let fault = Fault::at(word.span, "health checks of gRPC servers are not supported by this version");
                    return Err(fault.help("they need HTTP/2 to upstreams; `type=tcp` sees whether a server is there"));
                }
                _ => return Err(invalid()),
            }
        }
        if check.interval.is_zero() {
            return Err(Fault::at(check.span, "\"interval\" of \"health_check\" must not be 0"));
        }
        if check.persistent && !check.mandatory {
            return Err(Fault::at(check.span, "\"persistent\" parameter requires \"mandatory\""));
        }
        if let Some(kind) = kind {
            check.tcp = true;
            let other = uri.map(|_| "uri").or(check.matching.as_ref().map(|_| "match"));
            if let Some(other) = other {
                let text = format!("\"{other}\" parameter is not compatible with \"type=tcp\"");
                return Err(Fault::at(kind.span, text));
            }
        }
        Ok(check)
    }
}
