//! Directives that are accepted without an effect: what is wrong with them is told as nginx's standard setters tell it.

use super::{
    args::{Args, FromArgs},
    values::{Msec, Offset, Seconds, Size, parse_number, parse_size, parse_time},
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
    /// `aio`
    Aio,
    /// `directio`
    Directio,
    /// `open_file_cache`: files are looked for anew with every request, so that no answer is older than its file.
    OpenFileCache,
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
            "aio" => Self::Aio,
            "directio" => Self::Directio,
            "open_file_cache" => Self::OpenFileCache,
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
            Self::Aio => match &args.word(0).value[..] {
                b"on" | b"off" | b"threads" => Ok(()),
                value if value.starts_with(b"threads=") => Ok(()),
                _ => Err(args.directive(args.word(0), "invalid value")),
            },
            Self::Directio if args.word(0).value == b"off" => Ok(()),
            Self::Directio => Offset::from_args(args).map(drop),
            Self::OpenFileCache => open_file_cache(args),
            Self::Text | Self::Unchecked => Ok(()),
        }
    }
}

/// `ngx_http_core_open_file_cache`.
fn open_file_cache(args: &Args<'_>) -> Result<(), Fault> {
    let (mut max, mut off) = (false, false);
    for word in args.words() {
        let value = &word.value[..];
        let known = if let Some(number) = value.strip_prefix(b"max=") {
            max = true;
            parse_number(number).is_some_and(|number| number > 0)
        } else if let Some(time) = value.strip_prefix(b"inactive=") {
            parse_time(time, false).is_some()
        } else {
            off |= value == b"off";
            value == b"off"
        };
        if !known {
            let text = [b"invalid \"open_file_cache\" parameter \"", value, b"\""].concat();
            return Err(Fault::at(word.span, text));
        }
    }
    if max || off {
        return Ok(());
    }
    let text = "\"open_file_cache\" must have the \"max\" parameter";
    Err(Fault::at(args.statement.name.span, text))
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
            ("aio threads=default;", ""),
            ("aio on;", ""),
            ("aio sendfile;", "\"aio\" directive invalid value"),
            ("directio off;", ""),
            ("directio 4m;", ""),
            ("directio on;", "\"directio\" directive invalid value"),
            ("directio off; directio off;", "\"directio\" directive is duplicate"),
            ("open_file_cache off;", ""),
            ("open_file_cache max=10 inactive=1m;", ""),
            ("open_file_cache inactive=1m;", "\"open_file_cache\" must have the \"max\" parameter"),
            ("open_file_cache max=0;", "invalid \"open_file_cache\" parameter \"max=0\""),
            ("open_file_cache max=1 valid=1;", "invalid \"open_file_cache\" parameter \"valid=1\""),
        ] {
            assert_eq!(http_fault(text), message, "{text}");
        }
    }
}
