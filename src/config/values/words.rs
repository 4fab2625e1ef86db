//! Words from a closed list, and texts.

use crate::config::{
    args::{Args, FromArgs},
    scope::{Kind, Scope},
};
use crate::syntax::{Fault, Span};
use bytes::Bytes;
use std::{ops::RangeInclusive, os::unix::ffi::OsStrExt, path::PathBuf};

impl FromArgs for Bytes {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        Ok(Self::copy_from_slice(&args.word(0).value))
    }
}

/// A directive without arguments, there or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given(pub bool);

impl FromArgs for Given {
    const TAKES: RangeInclusive<usize> = 0..=0;

    fn from_args(_args: &Args<'_>) -> Result<Self, Fault> {
        Ok(Self(true))
    }
}

/// A folder for temporary files and the lengths of its levels (`ngx_conf_set_path_slot`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TempPath {
    pub path: PathBuf,
    pub levels: Vec<usize>,
    /// Nobody has chosen it.
    pub built_in: bool,
}

impl TempPath {
    /// Where temporary files of a kind (`proxy`, `uwsgi`) are unless a directive says so (`--http-proxy-temp-path`).
    pub fn built_in(kind: &str, scope: &Scope<'_>) -> Self {
        let path = scope.temp_folder(kind);
        scope.refer(Kind::BuiltInFolder, path.as_os_str().as_bytes(), Span::default());
        Self { path, levels: vec![1, 2], built_in: true }
    }
}

impl FromArgs for TempPath {
    const TAKES: RangeInclusive<usize> = 1..=4;

    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        let level = |word: &crate::syntax::Word| match super::numbers::parse_number(&word.value) {
            Some(level @ 1..) => Ok(level),
            _ => Err(args.directive(word, "invalid value")),
        };
        let levels = args.words().iter().skip(1).map(level).collect::<Result<_, _>>()?;
        let path = args.scope.path(&args.word(0).value);
        let folder = path.as_os_str().as_bytes();
        let handle = args.scope.refer(Kind::TempFolder, folder, args.word(0).span);
        if let Some(cache) = args.scope.names(Kind::TempFolder)[handle.0 as usize].defined {
            let text = [b"the same path name \"", folder, b"\" used"].concat();
            return Err(Fault::at(args.statement.name.span, text).also(cache, "used here"));
        }
        Ok(Self { path, levels, built_in: false })
    }
}

/// One of the choices (`ngx_conf_set_enum_slot`).
///
/// # Errors
/// `invalid value "X"`, with the choices as help.
pub fn choose<T: Copy>(args: &Args<'_>, choices: &[(&str, T)]) -> Result<T, Fault> {
    let word = args.word(0);
    let found = choices.iter().find(|(name, _)| word.value.eq_ignore_ascii_case(name.as_bytes()));
    found.map(|(_, value)| *value).ok_or_else(|| args.invalid(word).help(one_of(choices)))
}

/// Any of the choices, their bits joined (`ngx_conf_set_bitmask_slot`); a repeated one is a warning.
///
/// # Errors
/// `invalid value "X"`, with the choices as help.
pub fn choose_mask(args: &Args<'_>, choices: &[(&str, u32)]) -> Result<u32, Fault> {
    add_to_mask(0, args, choices)
}

/// The same, for a directive whose mentions add up.
///
/// # Errors
/// The same.
pub(super) fn add_to_mask(mut mask: u32, args: &Args<'_>, choices: &[(&str, u32)]) -> Result<u32, Fault> {
    for word in args.words() {
        let found = choices.iter().find(|(name, _)| word.value.eq_ignore_ascii_case(name.as_bytes()));
        let (_, bit) = found.ok_or_else(|| args.invalid(word).help(one_of(choices)))?;
        if mask & bit == *bit && *bit != 0 {
            args.scope.fault(Fault::at(word.span, [b"duplicate value \"", &word.value[..], b"\""].concat()).warn());
        }
        mask |= bit;
    }
    Ok(mask)
}

/// The same without the warning, from the words after the first `skip`.
///
/// # Errors
/// `invalid value "X"`, with the choices as help.
pub fn choose_flags(args: &Args<'_>, skip: usize, choices: &[(&str, u32)]) -> Result<u32, Fault> {
    let mut mask = 0;
    for word in args.words().iter().skip(skip) {
        let found = choices.iter().find(|(name, _)| word.value == name.as_bytes());
        mask |= found.ok_or_else(|| args.invalid(word).help(one_of(choices)))?.1;
    }
    Ok(mask)
}

fn one_of<T>(choices: &[(&str, T)]) -> String {
    let names: Vec<_> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
    format!("it must be one of {}", names.join(", "))
}
