//! The head of a `location` block.

use crate::http::regex::{CompileError, Regex};

/// What a `location` answers, as its head says it.
#[derive(Debug)]
pub enum Pattern {
    /// `= /name`
    Exact(Vec<u8>),
    /// `/name`
    Prefix(Vec<u8>),
    /// `^~ /name`: no regular expressions are tried on its level.
    PrefixNoRegex(Vec<u8>),
    /// `~ pattern` and `~* pattern`
    Regex(Regex),
    /// `@name`, the `@` included
    Named(Vec<u8>),
}

impl Pattern {
    /// Reads the arguments of `location`, one or two; the modifier may stand alone or before the name without a space
    /// (`ngx_http_core_location`).
    ///
    /// # Errors
    /// What nginx refuses, in its words.
    pub fn parse(words: &[&[u8]]) -> Result<Self, PatternError> {
        let (modifier, name) = match words {
            [modifier, name, ..] => (*modifier, *name),
            [word] => match word {
                [b'=', ..] => word.split_at(1),
                [b'^', b'~', ..] | [b'~', b'*', ..] => word.split_at(2),
                [b'~', ..] => word.split_at(1),
                [b'@', ..] => return Ok(Self::Named(word.to_vec())),
                _ => return Ok(Self::Prefix(word.to_vec())),
            },
            [] => return Ok(Self::Prefix(Vec::new())),
        };
        Ok(match modifier {
            b"=" => Self::Exact(name.to_vec()),
            b"^~" => Self::PrefixNoRegex(name.to_vec()),
            b"~" => Self::Regex(Regex::compile(name, false)?),
            b"~*" => Self::Regex(Regex::compile(name, true)?),
            _ => return Err(PatternError::Modifier(text(modifier))),
        })
    }

    /// The name or the expression, without modifier: what nginx prints and what `proxy_pass` replaces.
    pub fn name(&self) -> &[u8] {
        match self {
            Self::Exact(name) | Self::Prefix(name) | Self::PrefixNoRegex(name) | Self::Named(name) => name,
            Self::Regex(regex) => regex.pattern(),
        }
    }

    /// Whether this location may stand directly inside another one.
    ///
    /// # Errors
    /// The reason why not, in nginx's words.
    pub fn check_inside(&self, outer: &Self) -> Result<(), PatternError> {
        let (name, outer_name) = (text(self.name()), text(outer.name()));
        match (self, outer) {
            (_, Self::Exact(_)) => Err(PatternError::InsideExact(name, outer_name)),
            (_, Self::Named(_)) => Err(PatternError::InsideNamed(name, outer_name)),
            (Self::Named(_), _) => Err(PatternError::NestedNamed(name)),
            (Self::Regex(_), _) => Ok(()),
            _ if self.name().starts_with(outer.name()) => Ok(()),
            _ => Err(PatternError::Outside(name, outer_name)),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A `location` nginx refuses while reading.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Two arguments, and the first is none of `=`, `^~`, `~`, `~*`.
    #[error("invalid location modifier \"{0}\"")]
    Modifier(String),
    /// An expression PCRE2 does not understand.
    #[error(transparent)]
    Regex(#[from] CompileError),
    /// Something inside a `location =`.
    #[error("location \"{0}\" cannot be inside the exact location \"{1}\"")]
    InsideExact(String, String),
    /// Something inside a `location @name`.
    #[error("location \"{0}\" cannot be inside the named location \"{1}\"")]
    InsideNamed(String, String),
    /// A named location inside any other.
    #[error("named location \"{0}\" can be on the server level only")]
    NestedNamed(String),
    /// A name that does not continue the outer one.
    #[error("location \"{0}\" is outside location \"{1}\"")]
    Outside(String, String),
}
