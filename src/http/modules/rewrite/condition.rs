//! What stands between the parentheses of an `if`.

use super::script::compile;
use crate::{
    config::{Args, FromArgs, Handle, Kind},
    http::{exchange::Exchange, files, regex::Regex, template::Template},
    observe::error_log::Level,
    syntax::{Fault, Word},
};
use std::{
    ops::RangeInclusive,
    os::unix::fs::{FileTypeExt, MetadataExt},
    sync::Arc,
};

/// The condition of an `if`.
#[derive(Clone, Debug)]
pub enum Condition {
    /// `$variable`: neither empty nor `0`.
    Variable(Handle),
    /// `$variable = value`, `!=`.
    Equal { variable: Handle, value: Template, negative: bool },
    /// `$variable ~ regex`, `~*`, `!~`, `!~*`.
    Match { variable: Handle, regex: Arc<Regex>, negative: bool },
    /// `-f path`, `!-f path` and their like.
    File { test: FileTest, path: Template, negative: bool },
}

/// What is asked about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileTest {
    /// `-f`: a file.
    Plain,
    /// `-d`: a folder.
    Directory,
    /// `-e`: a file, a folder or a link.
    Exists,
    /// `-x`: its owner may execute it.
    Executable,
}

impl Condition {
    /// Stands where a condition could not be read.
    pub(super) const NEVER: Self = Self::Variable(Handle(u32::MAX));
}

impl FromArgs for Condition {
    const TAKES: RangeInclusive<usize> = 1..=usize::MAX;
    const BLOCK: bool = true;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let parts = parts(args)?;
        match parts[..] {
            [(variable, word)] if is_variable(variable) => Ok(Self::Variable(refer(variable, word, args))),
            [(variable, word), (operator, operator_word), (value, value_word)] if is_variable(variable) => {
                let variable = refer(variable, word, args);
                let negative = operator.starts_with(b"!");
                match operator {
                    b"=" | b"!=" => {
                        let value = Template::compile_text(value, value_word, args.scope)?;
                        Ok(Self::Equal { variable, value, negative })
                    }
                    b"~" | b"~*" | b"!~" | b"!~*" => {
                        let regex = compile(value_word, value, operator.ends_with(b"*"), args)?;
                        Ok(Self::Match { variable, regex, negative })
                    }
                    _ => {
                        let text = [b"unexpected \"", operator, b"\" in condition"].concat();
                        let help = "the operators are `=`, `!=`, `~`, `~*`, `!~`, `!~*`";
                        Err(Fault::at(operator_word.span, text).help(help))
                    }
                }
            }
            [(test @ ([b'-', _] | [b'!', b'-', _]), word), (path, path_word)] => {
                let path = Template::compile_text(path, path_word, args.scope)?;
                let negative = test.starts_with(b"!");
                let kind = match test.last() {
                    Some(b'f') => FileTest::Plain,
                    Some(b'd') => FileTest::Directory,
                    Some(b'e') => FileTest::Exists,
                    Some(b'x') => FileTest::Executable,
                    _ => return Err(invalid(test, word)),
                };
                Ok(Self::File { test: kind, path, negative })
            }
            _ => Err(parts.first().map_or_else(|| args.count(), |(text, word)| invalid(text, word))),
        }
    }
}

/// The words without the parentheses around them.
fn parts<'a>(args: &Args<'a>) -> Result<Vec<(&'a [u8], &'a Word)>, Fault> {
    let mut parts: Vec<_> = args.words().iter().map(|word| (&word.value[..], word)).collect();
    let help = |fault: Fault| fault.help("a condition stands in parentheses: `if ($variable = value) { … }`");
    let lone = parts.len() > 1 && parts[0].0 == b"(";
    match parts.first_mut() {
        None => return Err(args.count()),
        Some((text, word)) => match text.strip_prefix(b"(") {
            None => return Err(help(invalid(text, word))),
            Some(rest) if !rest.is_empty() => *text = rest,
            Some(_) => {}
        },
    }
    if lone {
        parts.remove(0);
    }
    let lone = parts.len() > 1 && parts[parts.len() - 1].0 == b")";
    if lone {
        parts.pop();
    } else if let Some((text, word)) = parts.last_mut() {
        match text.strip_suffix(b")") {
            None => return Err(help(invalid(text, word))),
            Some(rest) if !rest.is_empty() => *text = rest,
            Some(_) => {}
        }
    }
    Ok(parts)
}

fn invalid(text: &[u8], word: &Word) -> Fault {
    Fault::at(word.span, [b"invalid condition \"", text, b"\""].concat())
}

fn is_variable(text: &[u8]) -> bool {
    text.len() > 1 && text[0] == b'$'
}

fn refer(text: &[u8], word: &Word, args: &Args<'_>) -> Handle {
    args.scope.refer(Kind::Variable, &text[1..], word.span)
}

/// Whether a path is what the test asks for. A path that cannot be looked at is nothing.
pub(super) fn test_file(exchange: &Exchange, test: FileTest, path: &[u8]) -> bool {
    let metadata = match files::stat_allowed(exchange, path) {
        Ok(metadata) => metadata,
        Err(failed) => {
            if !failed.usual() {
                exchange.log(Level::Crit, &failed.text(path));
            }
            return false;
        }
    };
    match test {
        FileTest::Plain => metadata.is_file(),
        FileTest::Directory => metadata.is_dir(),
        FileTest::Exists => {
            let kind = metadata.file_type();
            !(kind.is_socket() || kind.is_fifo() || kind.is_char_device() || kind.is_block_device())
        }
        FileTest::Executable => metadata.mode() & 0o100 != 0,
    }
}
