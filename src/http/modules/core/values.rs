//! Values that only core's directives take.

use crate::{
    config::{
        Args, FromArgs,
        values::{choose, parse_number, parse_size},
    },
    http::{body_file, exchange::Exchange, status, template::Template},
    syntax::Fault,
};
use std::{borrow::Cow, ops::RangeInclusive};

/// `satisfy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Satisfy {
    All,
    Any,
}

impl FromArgs for Satisfy {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        choose(args, &[("all", Self::All), ("any", Self::Any)])
    }
}

/// `if_modified_since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfModifiedSince {
    Off,
    Exact,
    Before,
}

impl FromArgs for IfModifiedSince {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        choose(args, &[("off", Self::Off), ("exact", Self::Exact), ("before", Self::Before)])
    }
}

/// `lingering_close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lingering {
    Off,
    On,
    Always,
}

impl FromArgs for Lingering {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        choose(args, &[("off", Self::Off), ("on", Self::On), ("always", Self::Always)])
    }
}

/// `client_body_in_file_only`: a request's body is always written to a file, which stays or goes with the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFileOnly {
    Off,
    On,
    Clean,
}

impl FromArgs for InFileOnly {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let choice = choose(args, &[("off", Self::Off), ("on", Self::On), ("clean", Self::Clean)])?;
        if choice != Self::Off {
            body_file::announce(args.scope);
        }
        Ok(choice)
    }
}

/// A number of buffers of a size each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    pub count: usize,
    pub size: usize,
}

impl FromArgs for Buffers {
    const TAKES: RangeInclusive<usize> = 2..=2;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let number = parse_number(&args.word(0).value).filter(|count| *count > 0);
        let count = number.ok_or_else(|| args.directive(args.word(0), "invalid value"))?;
        let size = parse_size(&args.word(1).value).filter(|size| *size > 0);
        let size = size.ok_or_else(|| args.directive(args.word(1), "invalid value"))?;
        Ok(Self { count, size })
    }
}

/// `server_tokens`: how the server signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerTokens {
    On,
    /// As `on`, with the build's name where there is one.
    Build,
    Off,
    /// A text of the operator's own (NGINX Plus); empty hides the field.
    Text(Template),
}

impl ServerTokens {
    /// The value of the `Server` field.
    pub fn signature<'t>(&'t self, exchange: &Exchange) -> Cow<'t, [u8]> {
        match self {
            Self::On | Self::Build => Cow::Borrowed(status::SIGNATURE.as_bytes()),
            Self::Off => Cow::Borrowed(status::BARE_SIGNATURE.as_bytes()),
            Self::Text(text) => text.evaluate(exchange),
        }
    }
}

impl FromArgs for ServerTokens {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        match &args.word(0).value.to_ascii_lowercase()[..] {
            b"on" => Ok(Self::On),
            b"off" => Ok(Self::Off),
            b"build" => Ok(Self::Build),
            _ => Template::compile(args.word(0), args.scope).map(Self::Text),
        }
    }
}
