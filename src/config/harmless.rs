//! Directives that are accepted without an effect: what is wrong with them is told as nginx's standard setters tell it.

use super::{
    args::{Args, FromArgs},
    values::{Msec, Offset, Seconds, Size, parse_number, parse_size},
};
use crate::syntax::Fault;

/// Which of nginx's setters reads a directive; of its value nothing is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    Flag,
    Number,
    Size,
    Offset,
    Msec,
    Sec,
    /// A number of buffers and their size.
    Buffers,
    /// Any text, once.
    Text,
    /// A setter of its own, which is not looked into.
    Unchecked,
}

impl Value {
    /// From the last column of the table of directives.
    pub fn parse(name: &str) -> Self {
        match name {
            "flag" => Self::Flag,
            "number" => Self::Number,
            "size" => Self::Size,
            "offset" => Self::Offset,
            "msec" => Self::Msec,
            "sec" => Self::Sec,
            "bufs" => Self::Buffers,
            "string" | "enum" | "path" | "complex" => Self::Text,
            _ => Self::Unchecked,
        }
    }

    /// Whether the directive may stand more than once at a level.
    pub fn repeats(self) -> bool {
        self == Self::Unchecked
    }

    /// Checks the arguments.
    ///
    /// # Errors
    /// nginx's fault for a value that its setter refuses.
    pub fn check(self, args: &Args<'_>) -> Result<(), Fault> {
        match self {
            Self::Flag => bool::from_args(args).map(drop),
            Self::Number => usize::from_args(args).map(drop),
            Self::Size => Size::from_args(args).map(drop),
            Self::Offset => Offset::from_args(args).map(drop),
            Self::Msec => Msec::from_args(args).map(drop),
            Self::Sec => Seconds::from_args(args).map(drop),
            Self::Buffers => {
                let count = parse_number(&args.word(0).value).filter(|count| *count > 0);
                count.ok_or_else(|| args.directive(args.word(0), "invalid value"))?;
                let size = parse_size(&args.word(1).value).filter(|size| *size > 0);
                size.ok_or_else(|| args.directive(args.word(1), "invalid value")).map(drop)
            }
            Self::Text | Self::Unchecked => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http::testing::http_fault;

    #[test]
    fn without_effect_is_not_without_faults() {
        for (text, message) in [
            ("sendfile on;", ""),
            ("sendfile yes;", "invalid value \"yes\" in \"sendfile\" directive, it must be \"on\" or \"off\""),
            ("sendfile on; sendfile on;", "\"sendfile\" directive is duplicate"),
            ("types_hash_max_size x;", "\"types_hash_max_size\" directive invalid number"),
            ("output_buffers 0 4k;", "\"output_buffers\" directive invalid value"),
            ("sendfile_max_chunk 1x;", "\"sendfile_max_chunk\" directive invalid value"),
        ] {
            assert_eq!(http_fault(text), message, "{text}");
        }
    }
}
