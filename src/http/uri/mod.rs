//! The request target: split into path and arguments, decoded, and cleaned of `.`, `..` and `//`.

mod escape;
#[cfg(test)]
mod tests;

pub use escape::{Escape, Unescape, escape, escape_html, escaped, unescape};

use std::borrow::Cow;

/// A request target taken apart, as nginx keeps it in `$uri` and `$args`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// `$uri`: decoded, without dot segments, slashes merged. Borrowed when the raw path is already clean.
    pub path: Cow<'a, [u8]>,
    /// `$args`: what stands between `?` and `#`, not decoded. Empty also when there is no `?`.
    pub args: &'a [u8],
    /// Where the extension starts in `path`; it ends where the path ends.
    extension: Option<usize>,
    /// The raw path had a `%XX` (nginx's `quoted_uri`): it must be escaped again when it is sent on.
    pub quoted: bool,
    /// The path has a `+`, raw or as `%2B` (nginx's `plus_in_uri`).
    pub plus: bool,
    /// The raw target is a complete origin-form and may be sent on unchanged (nginx's `valid_unparsed_uri`).
    pub valid_unparsed: bool,
}

impl Target<'_> {
    /// The raw path was not clean, or had a fragment: `path` is a new string (nginx's `complex_uri` or `quoted_uri`).
    pub fn complex(&self) -> bool {
        matches!(self.path, Cow::Owned(_))
    }

    /// The extension that `types` looks up: after the last dot of the last segment, unless the segment starts with
    /// that dot. Empty when there is none.
    pub fn extension(&self) -> &[u8] {
        self.extension.and_then(|start| self.path.get(start..)).unwrap_or_default()
    }
}

/// The target is not one nginx accepts; the answer is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client sent invalid request")]
pub struct BadUri;

/// Takes an origin-form target apart, as `ngx_http_parse_uri` and `ngx_http_parse_complex_uri` do together.
///
/// An absolute-form target is given from the end of its authority on; it may then be empty or start with `?`, and its
/// path is `/`. `merge_slashes` is the directive of that name.
///
/// # Errors
/// Control bytes and spaces anywhere, a bad or NUL `%XX` in the path, and `..` above the root.
pub fn normalise(target: &[u8], merge_slashes: bool) -> Result<Target<'_>, BadUri> {
    if !matches!(target.first(), None | Some(b'/' | b'?')) {
        return Err(BadUri);
    }
    let scan = scan(target)?;
    let empty_path = target.first() != Some(&b'/');
    if scan.unclean || empty_path {
        return clean(target, merge_slashes, empty_path);
    }
    let (path, args) = match scan.question {
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (target, &[][..]),
    };
    Ok(Target {
        path: Cow::Borrowed(path),
        args,
        extension: scan.extension,
        quoted: false,
        plus: scan.plus,
        valid_unparsed: true,
    })
}

/// What one look over the raw target tells.
#[derive(Default)]
struct Scan {
    /// Something in it has to be decoded, merged or cut off.
    unclean: bool,
    plus: bool,
    question: Option<usize>,
    extension: Option<usize>,
}

/// Finds out whether the path may be used as it is, and refuses bytes no target may have.
fn scan(target: &[u8]) -> Result<Scan, BadUri> {
    let mut scan = Scan::default();
    let mut segment = 0;
    let mut rest = target.len();
    for (at, &byte) in target.iter().enumerate() {
        match byte {
            b'/' => {
                scan.unclean = at > 0 && segment == at;
                scan.extension = None;
                segment = at + 1;
            }
            b'.' if segment == at => scan.unclean = true,
            b'.' => scan.extension = Some(at + 1),
            b'%' | b'#' => scan.unclean = true,
            b'?' => scan.question = Some(at),
            b'+' => scan.plus = true,
            _ if forbidden(byte) => return Err(BadUri),
            _ => {}
        }
        if scan.unclean || scan.question.is_some() {
            rest = at + 1;
            break;
        }
    }
    for &byte in &target[rest..] {
        if forbidden(byte) {
            return Err(BadUri);
        }
        scan.unclean |= byte == b'#';
    }
    Ok(scan)
}

fn forbidden(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f
}

/// What the output ends with, as far as it matters for the next byte.
#[derive(Clone, Copy, PartialEq)]
enum Tail {
    Name,
    Slash,
    Dot,
    DotDot,
}

/// The slow way: decodes and cleans the path into a new string.
fn clean(target: &[u8], merge_slashes: bool, empty_path: bool) -> Result<Target<'_>, BadUri> {
    let mut path = Vec::with_capacity(target.len() + 1);
    let mut tail = Tail::Name;
    let mut extension = None;
    let (mut quoted, mut plus) = (false, false);
    let mut args = &[][..];
    if empty_path {
        path.push(b'/');
    }
    let mut rest = target;
    while let Some((&raw, after)) = rest.split_first() {
        rest = after;
        let mut byte = raw;
        match raw {
            b'?' => {
                args = rest.split(|&byte| byte == b'#').next().unwrap_or_default();
                break;
            }
            b'#' => break,
            b'%' => {
                quoted = true;
                (byte, rest) = decode(rest)?;
                // Decoded, these three have lost their meaning.
                if matches!(byte, b'%' | b'#' | b'?') {
                    path.push(byte);
                    tail = Tail::Name;
                    continue;
                }
            }
            _ => {}
        }
        plus |= byte == b'+';
        tail = match (byte, tail) {
            (b'/', Tail::Name) => {
                extension = None;
                path.push(b'/');
                Tail::Slash
            }
            (b'/', Tail::Slash) => {
                if !merge_slashes {
                    path.push(b'/');
                }
                Tail::Slash
            }
            (b'/', Tail::Dot | Tail::DotDot) => {
                drop_dots(&mut path, tail)?;
                Tail::Slash
            }
            (b'.', Tail::Slash) => {
                path.push(b'.');
                Tail::Dot
            }
            (b'.', Tail::Dot) => {
                path.push(b'.');
                Tail::DotDot
            }
            (b'.', Tail::Name) => {
                path.push(b'.');
                extension = Some(path.len());
                Tail::Name
            }
            _ => {
                path.push(byte);
                Tail::Name
            }
        };
    }
    drop_dots(&mut path, tail)?;
    Ok(Target { path: Cow::Owned(path), args, extension, quoted, plus, valid_unparsed: !empty_path })
}

/// The byte of the two hex digits `rest` starts with, and what follows them.
fn decode(rest: &[u8]) -> Result<(u8, &[u8]), BadUri> {
    let [high, low, after @ ..] = rest else { return Err(BadUri) };
    match (hex(*high), hex(*low)) {
        (Some(0), Some(0)) => Err(BadUri),
        (Some(high), Some(low)) => Ok((high << 4 | low, after)),
        _ => Err(BadUri),
    }
}

/// The value of a hex digit.
fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Takes a finished `.` or `..` segment off the end, the latter with the segment before it. The slash stays.
fn drop_dots(path: &mut Vec<u8>, tail: Tail) -> Result<(), BadUri> {
    match tail {
        Tail::Name | Tail::Slash => {}
        Tail::Dot => path.truncate(path.len().saturating_sub(1)),
        Tail::DotDot => {
            let slash = path.len().saturating_sub(3);
            let parent = path[..slash].iter().rposition(|&byte| byte == b'/').ok_or(BadUri)?;
            path.truncate(parent + 1);
        }
    }
    Ok(())
}

/// The extension of a path that did not come from a request line, as `ngx_http_set_exten` finds it after a rewrite
/// or an internal redirect. Empty when there is none.
pub fn extension(path: &[u8]) -> &[u8] {
    for at in (2..path.len()).rev() {
        match path[at] {
            b'.' if path[at - 1] != b'/' => return &path[at + 1..],
            b'/' => break,
            _ => {}
        }
    }
    &[]
}

/// Splits at the first `?`, as `ngx_http_split_args` does; the arguments are empty when there is none.
pub fn split_args(uri: &[u8]) -> (&[u8], &[u8]) {
    match uri.iter().position(|&byte| byte == b'?') {
        Some(at) => (&uri[..at], &uri[at + 1..]),
        None => (uri, &[]),
    }
}

/// The URI leads out of where it is looked up, or is none; nginx logs `unsafe URI "…" was detected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unsafe URI was detected")]
pub struct UnsafeUri;

/// Takes a URI of an upstream or a page apart (`X-Accel-Redirect`, SSI `include`, DAV `Destination`), as
/// `ngx_http_parse_unsafe_uri` does: the path decoded, the arguments after the first `?` not.
///
/// # Errors
/// An empty path, a NUL, or a `..` segment, raw or decoded.
pub fn parse_unsafe(uri: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), UnsafeUri> {
    let (path, args) = split_args(uri);
    if path.is_empty() || climbs(path) {
        return Err(UnsafeUri);
    }
    if !path.contains(&b'%') {
        return Ok((Cow::Borrowed(path), args));
    }
    let mut decoded = Vec::with_capacity(path.len());
    unescape(path, Unescape::Plain, &mut decoded);
    if climbs(&decoded) { Err(UnsafeUri) } else { Ok((Cow::Owned(decoded), args)) }
}

/// Whether a path has a `..` segment or a NUL.
fn climbs(path: &[u8]) -> bool {
    path.contains(&0) || path.split(|&byte| byte == b'/').any(|segment| segment == b"..")
}
