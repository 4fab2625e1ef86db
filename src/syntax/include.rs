//! `include`, expanded in place: from the main file to one tree of statements.

use super::{
    Block, Fault, Line, Source, Sources, Span, Statement,
    parser::{self, MAX_DEPTH},
};
use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// What stands for a path where the text came from `-g`.
pub const COMMAND_LINE: &str = "command line";

/// How deep files may include one another.
const MAX_INCLUDES: usize = 64;

/// How many times files may be opened in all.
const MAX_FILES: usize = 1 << 16;

/// The file system, as far as a reading needs it.
pub trait Loader {
    /// The contents of a file.
    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>>;

    /// The paths that match a pattern, sorted, as glob(3) gives them; none is no error.
    fn glob(&mut self, pattern: &Path) -> io::Result<Vec<PathBuf>>;
}

/// One reading of the configuration: every text, and the statements with all includes expanded.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Every text, in the order they were opened.
    pub sources: Sources,
    /// The statements of `-g`, which come first.
    pub globals: Block,
    /// The statements of the main file.
    pub root: Block,
}

/// Reads the main file and everything it includes (`ngx_conf_param`, `ngx_conf_parse`, `ngx_conf_include`).
///
/// `main` is the path as nginx would print it; relative includes start from its directory. `globals` are the
/// directives of `-g`. An `include` without exactly one argument, or with a block, is left in its place for
/// whoever checks directives.
pub fn load(loader: &mut dyn Loader, main: &Path, globals: Option<&[u8]>, faults: &mut Vec<Fault>) -> Tree {
    let prefix = main.parent().unwrap_or(Path::new(""));
    let mut reading =
        Reading { loader, prefix, sources: Sources::default(), faults, files: Vec::new(), stopped: false };
    let globals = globals.map(|text| reading.globals(text)).unwrap_or_default();
    let root = match reading.loader.read(main) {
        Ok(text) => reading.file(main, text, None, 0),
        Err(error) => {
            // A source without text, so that the spans of the empty block are good.
            reading.sources.0.push(Source { path: main.into(), text: Vec::new(), included_at: None });
            let fault = Fault { span: None, ..Fault::at(Span::default(), cannot_read(main, &error).0) };
            reading.faults.push(fault);
            Block::default()
        }
    };
    Tree { sources: reading.sources, globals, root }
}

/// Whether a name in a directory matches one component of a pattern, by the rules of glob(3): `*`, `?`, sets in
/// `[]`, a backslash before what is meant as it is. A dot at the beginning matches only a dot.
pub fn glob_match(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && !matches!(pattern, [b'.', ..] | [b'\\', b'.', ..]) {
        return false;
    }
    let (mut pattern, mut name) = (pattern, name);
    // Where to go on if what follows the last `*` does not match: with one more byte left to the `*`.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = pattern {
            pattern = after;
            retry = Some((after, name));
            continue;
        }
        match (name, match_one(pattern, name.first().copied())) {
            ([], _) => return pattern.is_empty(),
            ([_, rest @ ..], Some(after)) => (pattern, name) = (after, rest),
            (_, None) => match retry {
                Some((after, [byte, rest @ ..])) if *byte != b'/' => {
                    (pattern, name) = (after, rest);
                    retry = Some((after, rest));
                }
                _ => return false,
            },
        }
    }
}

/// What is left of a pattern whose first element, not a `*`, matches this byte.
fn match_one(pattern: &[u8], byte: Option<u8>) -> Option<&[u8]> {
    let byte = byte?;
    match pattern {
        [b'?', after @ ..] => (byte != b'/').then_some(after),
        [b'[', set @ ..] if byte != b'/' => match match_set(set, byte) {
            Some((found, after)) => found.then_some(after),
            None => (byte == b'[').then_some(set),
        },
        // A backslash with nothing behind it matches nothing.
        [b'\\'] | [] => None,
        [b'\\', literal, after @ ..] | [literal, after @ ..] => (byte == *literal).then_some(after),
    }
}

/// Whether a byte is in the set that begins here, behind its `[`, and what follows the set; `None` if the
/// set has no end.
fn match_set(set: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match set {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    let mut first = true;
    loop {
        match rest {
            [] => return None,
            [b']', after @ ..] if !first => return Some((found != negated, after)),
            [b'[', b':', named @ ..] if named.windows(2).any(|end| end == b":]") => {
                let length = named.windows(2).position(|end| end == b":]")?;
                found |= in_class(&named[..length], byte);
                rest = &named[length + 2..];
            }
            _ => {
                let (low, after) = set_member(rest)?;
                (found, rest) = match after {
                    [b'-', high @ ..] if !matches!(high, [b']', ..] | []) => {
                        let (high, after) = set_member(high)?;
                        (found || (low..=high).contains(&byte), after)
                    }
                    _ => (found || low == byte, after),
                };
            }
        }
        first = false;
    }
}

fn set_member(set: &[u8]) -> Option<(u8, &[u8])> {
    match set {
        [b'\\', member, after @ ..] | [member, after @ ..] => Some((*member, after)),
        [] => None,
    }
}

fn in_class(class: &[u8], byte: u8) -> bool {
    match class {
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"alpha" => byte.is_ascii_alphabetic(),
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"cntrl" => byte.is_ascii_control(),
        b"digit" => byte.is_ascii_digit(),
        b"graph" => byte.is_ascii_graphic(),
        b"lower" => byte.is_ascii_lowercase(),
        b"print" => byte.is_ascii_graphic() || byte == b' ',
        b"punct" => byte.is_ascii_punctuation(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => false,
    }
}

struct Reading<'a> {
    loader: &'a mut dyn Loader,
    /// The directory of the main file (`conf_prefix`).
    prefix: &'a Path,
    sources: Sources,
    faults: &'a mut Vec<Fault>,
    /// The files being read, each included by the one before.
    files: Vec<PathBuf>,
    /// Set by the first fault about includes without end: no further file is opened.
    stopped: bool,
}

impl Reading<'_> {
    fn globals(&mut self, text: &[u8]) -> Block {
        let file = self.sources.0.len() as u32;
        let mut block = parser::parse_globals(file, text, self.faults);
        self.sources.0.push(Source { path: COMMAND_LINE.into(), text: text.to_vec(), included_at: None });
        self.expand(&mut block, 0);
        block
    }

    fn file(&mut self, path: &Path, text: Vec<u8>, included_at: Option<Span>, depth: usize) -> Block {
        let file = self.sources.0.len() as u32;
        let mut block = parser::parse(file, &text, self.faults);
        self.sources.0.push(Source { path: path.into(), text, included_at });
        self.files.push(path.into());
        self.expand(&mut block, depth);
        self.files.pop();
        block
    }

    /// Puts what is included in the place of each `include`. `depth` counts the blocks around.
    fn expand(&mut self, block: &mut Block, depth: usize) {
        let written = std::mem::take(&mut block.statements);
        for mut statement in written {
            if let Some(path) = included_path(&statement) {
                block.statements.append(&mut self.include(&statement, path, depth));
                continue;
            }
            if let Some(inner) = &mut statement.block {
                if depth == MAX_DEPTH {
                    self.faults.push(Fault::at(statement.end, parser::too_deep()));
                    continue;
                }
                self.expand(inner, depth + 1);
            }
            block.statements.push(statement);
        }
    }

    /// The statements an `include` stands for.
    fn include(&mut self, statement: &Statement, path: &[u8], depth: usize) -> Vec<Statement> {
        let full = self.prefix.join(OsStr::from_bytes(path));
        let paths = if full.as_os_str().as_bytes().iter().any(|byte| b"*?[".contains(byte)) {
            match self.loader.glob(&full) {
                Ok(paths) => paths,
                Err(error) => {
                    self.fault(statement, [b"glob() ", &failed(&full, &error)[..]].concat());
                    return Vec::new();
                }
            }
        } else {
            vec![full]
        };
        let mut statements = Vec::new();
        for path in paths {
            if self.stopped || self.goes_on_without_end(statement, &path) {
                break;
            }
            match self.loader.read(&path) {
                Ok(text) if u32::try_from(text.len()).is_err() => {
                    self.fault(statement, [b"\"", path.as_os_str().as_bytes(), b"\" is too large"].concat());
                }
                Ok(text) => {
                    let site = Span { end: statement.end.end, ..statement.name.span };
                    statements.append(&mut self.file(&path, text, Some(site), depth).statements);
                }
                Err(error) => {
                    let (message, named) = cannot_read(&path, &error);
                    let fault = self.fault(statement, message);
                    if !named {
                        fault.line = Line::Unnamed;
                    }
                }
            }
        }
        statements
    }

    /// nginx would go on until no file can be opened any more.
    fn goes_on_without_end(&mut self, statement: &Statement, path: &Path) -> bool {
        let fault = if let Some(at) = self.files.iter().position(|file| file == path) {
            let by_way_of: Vec<_> = self.files[at + 1..].iter().map(|file| format!("`{}`", file.display())).collect();
            let message = [b"\"", path.as_os_str().as_bytes(), b"\" includes itself"].concat();
            let help = if by_way_of.is_empty() {
                "an included file must not include itself: name the files meant, or move them to a directory of their own"
                    .to_owned()
            } else {
                format!("it does so by way of {}", by_way_of.join(", then "))
            };
            self.fault(statement, message).help = Some(help);
            true
        } else if self.files.len() > MAX_INCLUDES {
            let message = format!("files include one another too deeply, more than {MAX_INCLUDES} levels");
            self.fault(statement, message).help = Some("a file may include itself under another name".to_owned());
            true
        } else if self.sources.0.len() >= MAX_FILES {
            self.fault(statement, format!("too many files are included, more than {MAX_FILES}"));
            true
        } else {
            false
        };
        self.stopped |= fault;
        fault
    }

    fn fault(&mut self, statement: &Statement, message: impl Into<Vec<u8>>) -> &mut Fault {
        let place = statement.args.first().map_or(statement.end, |word| word.span);
        let at = self.faults.len();
        self.faults.push(Fault { line: Line::Of(statement.end), ..Fault::at(place, message) });
        &mut self.faults[at]
    }
}

/// The argument of an `include` that can be expanded. Like any name in nginx, it ends at a zero byte.
fn included_path(statement: &Statement) -> Option<&[u8]> {
    match &statement.args[..] {
        [path] if statement.name.value == b"include" && statement.block.is_none() => {
            path.value.split(|byte| *byte == 0).next()
        }
        _ => None,
    }
}

/// nginx's words for a file that cannot be read, and whether it still names the place then: a directory can be
/// opened, and fails where nginx has no longer a place to name.
fn cannot_read(path: &Path, error: &io::Error) -> (Vec<u8>, bool) {
    let directory = error.kind() == io::ErrorKind::IsADirectory;
    let call: &[u8] = if directory { b"pread() " } else { b"open() " };
    ([call, &failed(path, error)].concat(), !directory)
}

/// `"PATH" failed (2: No such file or directory)`
fn failed(path: &Path, error: &io::Error) -> Vec<u8> {
    let code = error.raw_os_error().or(match error.kind() {
        io::ErrorKind::NotFound => Some(2),
        io::ErrorKind::PermissionDenied => Some(13),
        io::ErrorKind::NotADirectory => Some(20),
        io::ErrorKind::IsADirectory => Some(21),
        _ => None,
    });
    let reason = match code {
        Some(code) => {
            let text = io::Error::from_raw_os_error(code).to_string();
            let text = text.strip_suffix(&format!(" (os error {code})")).unwrap_or(&text);
            format!("{code}: {text}")
        }
        None => error.to_string(),
    };
    let mut message = b"\"".to_vec();
    message.append(&mut path.as_os_str().to_owned().into_vec());
    message.extend_from_slice(format!("\" failed ({reason})").as_bytes());
    message
}

#[cfg(test)]
mod tests;
