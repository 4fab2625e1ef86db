//! `autoindex`: a list of what is in a folder, for a request that no index file answers.

use super::Room;
use crate::{
    config::{Args, Directive, FromArgs, LEVELS, Module, scope::bytes_to_path, values::choose},
    http::{
        dates,
        exchange::{Exchange, Method},
        files,
        phase::{Break, Phase},
        response::Response,
        uri::{Escape, escape, escape_html},
    },
    observe::error_log::Level,
    syntax::Fault,
};
use bytes::Bytes;
use std::{
    fs,
    io::{self, ErrorKind, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
};

#[derive(Clone, Debug)]
pub struct Conf {
    pub enabled: bool,
    pub format: Format,
    /// Times are the server's rather than Greenwich's; for `html` alone.
    pub localtime: bool,
    /// Sizes are in bytes rather than in rounded units; for `html` alone.
    pub exact_size: bool,
}

impl Default for Conf {
    fn default() -> Self {
        Self { enabled: false, format: Format::Html, localtime: false, exact_size: true }
    }
}

impl Module for Conf {
    const DIRECTIVES: &'static [Directive<Self>] = &[
        Directive::new("autoindex", LEVELS, |conf| &mut conf.enabled),
        Directive::new("autoindex_format", LEVELS, |conf| &mut conf.format),
        Directive::new("autoindex_localtime", LEVELS, |conf| &mut conf.localtime),
        Directive::new("autoindex_exact_size", LEVELS, |conf| &mut conf.exact_size),
    ];
}

impl Room for Conf {
    type State = ();
}

/// Answers a request for a folder with a list of it (`ngx_http_autoindex_handler`).
pub async fn content(exchange: &mut Exchange) -> Phase {
    let conf = &exchange.location.settings.autoindex;
    if !conf.enabled || !exchange.path.ends_with(b"/") || !exchange.method.reads() {
        return Phase::Continue(());
    }
    let Some(mut path) = files::path(exchange, &exchange.path) else { return Phase::Break(Break::Status(500)) };
    if path.len() > 1 {
        path.pop();
    }
    let callback = match conf.format {
        Format::Jsonp => match callback(exchange) {
            Ok(callback) => callback,
            Err(text) => {
                exchange.log(Level::Info, &text);
                return Phase::Break(Break::Status(400));
            }
        },
        _ => Bytes::new(),
    };
    let folder = match open(&path) {
        Ok(folder) => folder,
        Err(error) => return Phase::Break(Break::Status(refusal(exchange, &path, &error))),
    };
    let (media, charset): (&'static [u8], Option<&'static [u8]>) = match conf.format {
        Format::Html => (b"text/html", None),
        Format::Jsonp if !callback.is_empty() => (b"application/javascript", None),
        Format::Json | Format::Jsonp => (b"application/json", None),
        Format::Xml => (b"text/xml", Some(b"utf-8")),
    };
    let mut response = Response::new(200);
    response.content_type = Some(Bytes::from_static(media));
    response.charset = charset.map(Bytes::from_static);
    if exchange.method == Method::Head {
        return response.into_phase();
    }
    let Some(entries) = entries(exchange, &path, folder) else { return Phase::Break(Break::Status(500)) };
    let list = match conf.format {
        Format::Html => {
            let charset = exchange.location.settings.charset.destination(exchange, &response);
            let utf8 = charset.is_some_and(|charset| charset.eq_ignore_ascii_case(b"utf-8"));
            let now = i64::try_from(exchange.connection.worker.clock.now().as_secs()).unwrap_or(0);
            let offset = if conf.localtime { dates::local_offset(now) } else { 0 };
            html(&exchange.path, &entries, &Look { utf8, offset, exact_size: conf.exact_size })
        }
        Format::Json | Format::Jsonp => json(&callback, &entries),
        Format::Xml => xml(&entries),
    };
    response.body = Bytes::from(list).into();
    response.into_phase()
}

fn open(path: &[u8]) -> io::Result<fs::ReadDir> {
    if path.contains(&0) {
        return Err(ErrorKind::NotFound.into());
    }
    fs::read_dir(bytes_to_path(path))
}

/// The status for a folder that could not be opened, and its line in the log.
fn refusal(exchange: &Exchange, path: &[u8], error: &io::Error) -> u16 {
    let (level, status) = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => (Level::Err, 404),
        _ if error.raw_os_error() == Some(libc::ENAMETOOLONG) => (Level::Err, 404),
        ErrorKind::PermissionDenied => (Level::Err, 403),
        _ => (Level::Crit, 500),
    };
    let path = String::from_utf8_lossy(path);
    exchange.log(level, &format!("opendir() \"{path}\" failed ({})", files::errno(error)));
    status
}

/// The function that `jsonp` calls; empty if the client names none (`ngx_http_autoindex_jsonp_callback`).
fn callback(exchange: &Exchange) -> Result<Bytes, String> {
    let named = exchange.args.split(|byte| *byte == b'&').find_map(|argument| {
        let (name, value) = argument.split_at_checked(9)?;
        name.eq_ignore_ascii_case(b"callback=").then(|| exchange.args.slice_ref(value))
    });
    let callback = named.unwrap_or_default();
    let what = match () {
        () if callback.len() > 128 => "too long",
        () if !callback.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')) => "invalid",
        () => return Ok(callback),
    };
    Err(format!("client sent {what} callback name: \"{}\"", String::from_utf8_lossy(&callback)))
}

/// What stands in one line of the list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// First in the order: folders come first.
    kind: Kind,
    name: Vec<u8>,
    /// Seconds since the epoch.
    modified: i64,
    size: u64,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Folder,
    File,
    Other,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Folder => "directory",
            Self::File => "file",
            Self::Other => "other",
        }
    }

    fn is_folder(self) -> bool {
        matches!(self, Self::Folder)
    }

    fn is_file(self) -> bool {
        matches!(self, Self::File)
    }
}

/// The order knows folders from the rest alone.
impl Ord for Kind {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.is_folder().cmp(&self.is_folder())
    }
}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Kind {}

/// What is in the folder, in order, but for names with a dot in front; `None` where it cannot be read to its end.
fn entries(exchange: &Exchange, path: &[u8], folder: fs::ReadDir) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    for found in folder {
        let found = found.map_err(|error| {
            let path = String::from_utf8_lossy(path);
            exchange.log(Level::Crit, &format!("readdir() \"{path}\" failed ({})", files::errno(&error)));
        });
        let found = found.ok()?;
        let name = found.file_name().as_bytes().to_vec();
        if name.starts_with(b".") {
            continue;
        }
        let failed = |call: &str, error: &io::Error| {
            let name = found.path();
            exchange.log(Level::Crit, &format!("{call} \"{}\" failed ({})", name.display(), files::errno(error)));
        };
        let metadata = match fs::metadata(found.path()) {
            Ok(metadata) => metadata,
            // A link that leads nowhere is listed as what it is.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ELOOP)) => {
                fs::symlink_metadata(found.path()).map_err(|error| failed("lstat()", &error)).ok()?
            }
            Err(error) => {
                failed("stat()", &error);
                match error.kind() {
                    ErrorKind::PermissionDenied => continue,
                    _ => return None,
                }
            }
        };
        let kind = match () {
            () if metadata.is_dir() => Kind::Folder,
            () if metadata.is_file() => Kind::File,
            () => Kind::Other,
        };
        entries.push(Entry { kind, name, modified: metadata.mtime(), size: metadata.len() });
    }
    entries.sort();
    Some(entries)
}

/// How the lines of a page look.
struct Look {
    /// Names are measured in characters.
    utf8: bool,
    /// Seconds east of Greenwich.
    offset: i32,
    exact_size: bool,
}

/// Characters of a name that have room in a line (`NGX_HTTP_AUTOINDEX_NAME_LEN`).
const NAME: usize = 50;

fn html(path: &[u8], entries: &[Entry], look: &Look) -> Vec<u8> {
    let mut out = b"<html>\r\n<head><title>Index of ".to_vec();
    escape_html(path, &mut out);
    out.extend(b"</title></head>\r\n<body>\r\n<h1>Index of ");
    escape_html(path, &mut out);
    out.extend(b"</h1><hr><pre><a href=\"../\">../</a>\r\n");
    for entry in entries {
        link(entry, look.utf8, &mut out);
        let time = dates::index_time(entry.modified, look.offset);
        let size = match (look.exact_size, entry.kind.is_folder()) {
            (true, true) => format!("{:>19}", "-"),
            (true, false) => format!("{:>19}", entry.size),
            (false, true) => format!("{:>7}", "-"),
            (false, false) => rounded(entry.size),
        };
        out.extend(format!(" {time} {size}\r\n").as_bytes());
    }
    out.extend(b"</pre><hr></body>\r\n</html>\r\n");
    out
}

/// The link to an entry, and what fills its column.
fn link(entry: &Entry, utf8: bool, out: &mut Vec<u8>) {
    out.extend(b"<a href=\"");
    escape(&entry.name, Escape::UriComponent, out);
    out.extend(if entry.kind.is_folder() { &b"/\">"[..] } else { b"\">" });
    let text = std::str::from_utf8(&entry.name).ok().filter(|_| utf8);
    let width = text.map_or(entry.name.len(), |text| text.chars().count());
    if width > NAME {
        let cut = |text: &str| text.char_indices().nth(NAME - 3).map(|(at, _)| at);
        escape_html(&entry.name[..text.and_then(cut).unwrap_or(NAME - 3)], out);
        out.extend(b"..&gt;</a>");
        return;
    }
    escape_html(&entry.name, out);
    let slash = entry.kind.is_folder() && width < NAME;
    if slash {
        out.push(b'/');
    }
    out.extend(b"</a>");
    out.resize(out.len() + NAME - width - usize::from(slash), b' ');
}

/// A size in seven columns, with a unit where it is not bytes.
fn rounded(size: u64) -> String {
    let of = |unit: u64| size / unit + u64::from(size % unit > unit / 2 - 1);
    match size {
        0..=9999 => format!(" {size:>6}"),
        10_000..=0xf_ffff => format!("{:>6}K", of(1 << 10)),
        0x10_0000..=0x3fff_ffff => format!("{:>6}M", of(1 << 20)),
        _ => format!("{:>6}G", of(1 << 30)),
    }
}

fn json(callback: &[u8], entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    if !callback.is_empty() {
        out.extend([b"/* callback */\r\n", callback, b"("].concat());
    }
    out.push(b'[');
    for (at, entry) in entries.iter().enumerate() {
        out.extend(if at > 0 { &b",\r\n{ \"name\":\""[..] } else { b"\r\n{ \"name\":\"" });
        super::access_log::escape_json(&entry.name, &mut out);
        let modified = dates::http_date(entry.modified);
        let _ = write!(out, "\", \"type\":\"{}\", \"mtime\":\"", entry.kind.name());
        out.extend(modified);
        out.push(b'"');
        if entry.kind.is_file() {
            let _ = write!(out, ", \"size\":{}", entry.size);
        }
        out.extend(b" }");
    }
    out.extend(b"\r\n]");
    if !callback.is_empty() {
        out.extend(b");");
    }
    out
}

fn xml(entries: &[Entry]) -> Vec<u8> {
    let mut out = b"<?xml version=\"1.0\"?>\r\n<list>\r\n".to_vec();
    for entry in entries {
        let kind = entry.kind.name();
        let modified = dates::iso8601(entry.modified, 0);
        let _ = write!(out, "<{kind} mtime=\"{}Z\"", modified.trim_end_matches("+00:00"));
        if entry.kind.is_file() {
            let _ = write!(out, " size=\"{}\"", entry.size);
        }
        out.push(b'>');
        escape_html(&entry.name, &mut out);
        let _ = write!(out, "</{kind}>\r\n");
    }
    out.extend(b"</list>\r\n");
    out
}

/// `autoindex_format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Html,
    Json,
    /// JSON in a call of the function that the argument `callback` names.
    Jsonp,
    Xml,
}

impl FromArgs for Format {
    fn from_args(args: &Args<'_>) -> Result<Self, Fault> {
        choose(args, &[("html", Self::Html), ("json", Self::Json), ("jsonp", Self::Jsonp), ("xml", Self::Xml)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{Answer, fault, get};

    /// The list of a folder with one folder and one file of five bytes, both of 1970.
    fn list(directives: &str, args: &str) -> Answer {
        let folder = tempfile::tempdir().unwrap();
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(86_400 * 31);
        fs::create_dir(folder.path().join("z<")).unwrap();
        fs::write(folder.path().join("a \"b"), "12345").unwrap();
        fs::write(folder.path().join(".hidden"), "").unwrap();
        for name in ["z<", "a \"b"] {
            fs::File::open(folder.path().join(name)).unwrap().set_modified(at).unwrap();
        }
        get(&format!("root {}; autoindex on; {directives}", folder.path().display()), &format!("/{args}"))
    }

    #[test]
    fn a_page_lists_folders_first_with_their_times_and_sizes() {
        let answer = list("", "");
        assert_eq!(answer.header("content-type"), Some("text/html"));
        let line = |href: &str, text: &str, pad: usize, size: &str| {
            format!("<a href=\"{href}\">{text}</a>{}01-Feb-1970 00:00 {size:>19}\r\n", " ".repeat(pad + 1))
        };
        let expected = [
            "<html>\r\n<head><title>Index of /</title></head>\r\n<body>\r\n<h1>Index of /</h1><hr><pre><a href=\"../\">../</a>\r\n",
            &line("z%3C/", "z&lt;/", 47, "-"),
            &line("a%20%22b", "a &quot;b", 46, "5"),
            "</pre><hr></body>\r\n</html>\r\n",
        ];
        assert_eq!(answer.text(), expected.concat());
    }

    #[test]
    fn json_and_xml_tell_the_same() {
        let json = "[\r\n{ \"name\":\"z<\", \"type\":\"directory\", \"mtime\":\"Sun, 01 Feb 1970 00:00:00 GMT\" },\r\n\
                    { \"name\":\"a \\\"b\", \"type\":\"file\", \"mtime\":\"Sun, 01 Feb 1970 00:00:00 GMT\", \"size\":5 }\r\n]";
        let xml = "<?xml version=\"1.0\"?>\r\n<list>\r\n<directory mtime=\"1970-02-01T00:00:00Z\">z&lt;</directory>\r\n\
                   <file mtime=\"1970-02-01T00:00:00Z\" size=\"5\">a &quot;b</file>\r\n</list>\r\n";
        let call = format!("/* callback */\r\nf.g({json});");
        for (format, args, media, text) in [
            ("json", "", "application/json", json),
            ("jsonp", "", "application/json", json),
            ("jsonp", "?x=1&callback=f.g", "application/javascript", &call),
            ("xml", "", "text/xml; charset=utf-8", xml),
        ] {
            let answer = list(&format!("autoindex_format {format};"), args);
            assert_eq!((answer.header("content-type"), &*answer.text()), (Some(media), text), "{format}{args}");
        }
        assert_eq!(list("autoindex_format jsonp;", "?callback=a;b").status, 400);
    }

    #[test]
    fn long_names_are_cut_by_bytes_or_by_characters() {
        let entry = |name: &str| Entry { kind: Kind::File, name: name.into(), modified: 0, size: 0 };
        let shown = |name: &str, utf8: bool| {
            let mut out = Vec::new();
            link(&entry(name), utf8, &mut out);
            let text = String::from_utf8_lossy(&out).into_owned();
            text.split_once('>').unwrap().1.to_owned()
        };
        assert_eq!(shown(&"x".repeat(50), false), format!("{}</a>", "x".repeat(50)));
        assert_eq!(shown(&"x".repeat(51), false), format!("{}..&gt;</a>", "x".repeat(47)));
        assert_eq!(shown(&"\u{e4}".repeat(30), true), format!("{}</a>{}", "\u{e4}".repeat(30), " ".repeat(20)));
        assert_eq!(shown(&"\u{e4}".repeat(51), true), format!("{}..&gt;</a>", "\u{e4}".repeat(47)));
    }

    #[test]
    fn sizes_are_rounded_as_their_unit_asks() {
        for (size, text) in [
            (9999, "   9999"),
            (10_000, "    10K"),
            (10_752, "    11K"),
            ((1 << 20) - 1, "  1024K"),
            (3 << 19, "     2M"),
            (1 << 30, "     1G"),
        ] {
            assert_eq!(rounded(size), text);
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_found_and_other_methods_are_not_for_lists() {
        assert_eq!(get("root /nowhere; autoindex on;", "/x/").status, 404);
        assert_eq!(fault("autoindex_format yaml;"), "invalid value \"yaml\"");
    }
}
