//! The parameters of `health_check`.

use crate::{
    config::{
        Args, FromArgs,
        values::{parse_number, parse_port, parse_time},
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
    pub kind: Kind,
    /// How old a connection may become that serves several checks.
    pub keepalive_time: Option<Duration>,
    /// What is written, for telling checks apart.
    pub text: String,
    pub span: Span,
}

/// What is asked (`type=`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As the location would ask: over HTTP, FastCGI, uwsgi or SCGI.
    Http,
    /// Whether it accepts connections is all.
    Tcp,
    /// The gRPC Health Checking Protocol: for this service, or if it has no name, the whole server; which status is
    /// wanted, and if it is 0, that the server is serving, too.
    Grpc { service: Bytes, status: u32 },
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
            kind: Kind::Http,
            keepalive_time: None,
            text: texts.join(" "),
            span: args.statement.name.span,
        };
        let (mut uri, mut kind, mut late) = (None, None, None);
        for word in args.words() {
            let invalid = || args.parameter(word);
            let behind = matches!(check.kind, Kind::Grpc { .. });
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
                (b"port", Some(value)) => check.port = Some(parse_port(value).ok_or_else(invalid)?),
                (b"keepalive_time", Some(value)) => check.keepalive_time = Some(time(value)?),
                (b"type", Some(b"http")) => check.kind = Kind::Http,
                (b"type", Some(b"tcp")) => {
                    check.kind = Kind::Tcp;
                    kind = Some(word);
                }
                (b"type", Some(b"grpc")) => {
                    check.kind = Kind::Grpc { service: Bytes::new(), status: 0 };
                    kind = Some(word);
                    continue;
                }
                (b"grpc_service" | b"grpc_status", Some(value)) => {
                    let Kind::Grpc { service, status } = &mut check.kind else {
                        let name = String::from_utf8_lossy(name);
                        let text = format!("\"{name}\" parameter requires \"type=grpc\" before it");
                        return Err(Fault::at(word.span, text));
                    };
                    // Names are texts to Protocol Buffers, and 0 is what is wanted anyway.
                    match name {
                        b"grpc_service" if std::str::from_utf8(value).is_ok() => {
                            *service = Bytes::copy_from_slice(value);
                        }
                        b"grpc_status" => *status = number(value)?,
                        _ => return Err(invalid()),
                    }
                    continue;
                }
                _ => return Err(invalid()),
            }
            if behind {
                late = late.or(Some((word, name)));
            }
        }
        if check.interval.is_zero() {
            return Err(Fault::at(check.span, "\"interval\" of \"health_check\" must not be 0"));
        }
        if check.persistent && !check.mandatory {
            return Err(Fault::at(check.span, "\"persistent\" parameter requires \"mandatory\""));
        }
        if let Some(kind) = kind.filter(|_| check.kind != Kind::Http) {
            let other = uri.map(|_| "uri").or(check.matching.as_ref().map(|_| "match"));
            if let Some(other) = other {
                let text = format!("\"{other}\" parameter is not compatible with \"{}\"", kind.text());
                return Err(Fault::at(kind.span, text));
            }
        }
        if let Some((word, name)) = late {
            let name = String::from_utf8_lossy(name);
            let text = format!("\"{name}\" parameter must be specified before \"type=grpc\"");
            return Err(Fault::at(word.span, text));
        }
        Ok(check)
    }
}
