//! Faults to text: nginx's own line first, and below it a picture of the place.

use crate::syntax::{Fault, Line, Severity, Source, Sources, Span, include::COMMAND_LINE};
use annotate_snippets::{
    Annotation,
    AnnotationKind::{self, Context, Primary},
    Group, Level, Renderer, Snippet,
};
use std::{borrow::Cow, ops::Range, os::unix::ffi::OsStrExt, path::Path};

/// The longest message nginx prints before it adds the place (`NGX_MAX_CONF_ERRSTR`), in bytes.
const MAX_MESSAGE: usize = 1024;

/// How faults are shown. The default is nginx's line and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rendering {
    /// Show the place below nginx's line: source, include chain, help.
    pub pictures: bool,
    /// Color the pictures for a terminal. nginx's line has none.
    pub color: bool,
    /// The width of the terminal, in columns: longer source lines are cut in pictures.
    pub width: usize,
}

impl Default for Rendering {
    fn default() -> Self {
        Self { pictures: false, color: false, width: 140 }
    }
}

/// One fault as text: `nginx: [emerg] MESSAGE in PATH:LINE` (`ngx_conf_log_error`), then the picture if wanted.
pub fn render(fault: &Fault, sources: &Sources, how: &Rendering) -> Vec<u8> {
    let mut out = format!("nginx: [{}] ", severity(fault.severity)).into_bytes();
    out.extend_from_slice(&message(fault, sources));
    out.push(b'\n');
    if how.pictures {
        out.extend_from_slice(picture(fault, sources, how).as_bytes());
    }
    out
}

/// What nginx writes to its log behind the severity: the message and the place, without a newline.
pub fn message(fault: &Fault, sources: &Sources) -> Vec<u8> {
    let Some(place) = fault.reported() else { return fault.message.clone() };
    let message = &fault.message[..fault.message.len().min(MAX_MESSAGE)];
    let (before, behind) = match fault.line {
        Line::Amid(at) => message.split_at(at.min(message.len())),
        _ => (message, &[][..]),
    };
    let mut out = before.to_vec();
    let path = &sources.of(place).path;
    out.extend_from_slice(b" in ");
    out.extend_from_slice(path.as_os_str().as_bytes());
    if path != Path::new(COMMAND_LINE) {
        out.extend_from_slice(format!(":{}", sources.line(place)).as_bytes());
    }
    out.extend_from_slice(behind);
    out
}

/// nginx's word for it.
pub fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Emerg => "emerg",
        Severity::Warn => "warn",
        Severity::Notice => "notice",
    }
}

/// Brings faults into the order in which nginx finds them: by stage, then by place, what has no place last.
/// The first `[emerg]` is then the one nginx stops at, and warnings stand where nginx prints them.
pub fn sort(faults: &mut [Fault], sources: &Sources) {
    faults.sort_by_cached_key(|fault| {
        let place = fault.reported().or(fault.span);
        (fault.stage, place.is_none(), place.map(|place| reading_order(sources, place)))
    });
}

/// What of all candidates was probably meant; `None` if no one is near. Letter case is no difference.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.to_lowercase().chars().collect();
    let bound = (name.len() + 1) / 3;
    candidates
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= bound)
        .map(|candidate| (distance(&name, &candidate.to_lowercase().chars().collect::<Vec<_>>()), candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, removed, changed or swapped with their neighbour (Damerau-Levenshtein,
/// each stretch edited once).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before_last = vec![0; right.len() + 1];
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut least = (last[j + 1] + 1).min(row[j] + 1).min(last[j] + usize::from(a != b));
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                least = least.min(before_last[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

/// A key that sorts places in the order nginx comes to them: what is included stands where its `include` stands.
fn reading_order(sources: &Sources, place: Span) -> Vec<(u32, u32)> {
    let mut order = sources.of(place).included_at.map(|site| reading_order(sources, site)).unwrap_or_default();
    order.push((place.file, place.start));
    order
}

/// The place with its line, what else matters, the way there and the help.
fn picture(fault: &Fault, sources: &Sources, how: &Rendering) -> String {
    let level = match fault.severity {
        Severity::Emerg => Level::ERROR,
        Severity::Warn => Level::WARNING,
        Severity::Notice => Level::NOTE,
    };
    let mut group = Group::with_level(level);
    let label = fault.also.map(|(_, label)| label);
    match (fault.span, fault.also) {
        (Some(span), Some((also, _))) if span.file == also.file => {
            group = group.element(snippet(sources.of(span), &[(Primary, span, None), (Context, also, label)]));
        }
        (span, also) => {
            let main = span.map(|span| snippet(sources.of(span), &[(Primary, span, None)]));
            let other = also.map(|(also, _)| snippet(sources.of(also), &[(Context, also, label)]));
            group = group.elements(main.into_iter().chain(other));
        }
    }
    let mut site = fault.span.and_then(|span| sources.of(span).included_at);
    while let Some(at) = site {
        let source = sources.of(at);
        group = group.element(Level::NOTE.message(match path(source) {
            path if path == COMMAND_LINE => "included by the command line".to_owned(),
            path => format!("included at {path}:{}", sources.line(at)),
        }));
        site = source.included_at;
    }
    if let Some(help) = &fault.help {
        group = group.element(Level::HELP.message(help.clone()));
    }
    if group.is_empty() {
        return String::new();
    }
    let renderer = if how.color { Renderer::styled().hyperlink(false) } else { Renderer::plain() };
    let mut text = renderer.term_width(how.width).render(&[group]);
    text.push('\n');
    text
}

/// A place in a picture, and what is said of it.
type Mark<'a> = (AnnotationKind, Span, Option<&'a str>);

/// The lines of one source that hold these places.
fn snippet<'a>(source: &'a Source, marks: &[Mark<'a>]) -> Snippet<'a, Annotation<'a>> {
    let text = &source.text[..];
    let from = marks.iter().map(|(_, span, _)| span.start as usize).min().unwrap_or(0);
    let to = marks.iter().map(|(_, span, _)| span.end as usize).max().unwrap_or(0);
    let from = memchr::memrchr(b'\n', &text[..from]).map_or(0, |newline| newline + 1);
    let mut end = memchr::memchr(b'\n', &text[to..]).map_or(text.len(), |length| to + length);
    if end > to && text[end - 1] == b'\r' {
        end -= 1;
    }
    let (lines, ranges) = readable(&text[from..end], from, marks);
    let line = 1 + memchr::memchr_iter(b'\n', &text[..from]).count();
    let annotations = marks.iter().zip(ranges).map(|((kind, _, label), range)| kind.span(range).label(*label));
    Snippet::source(lines).path(path(source)).line_start(line).annotations(annotations)
}

/// A text, beginning at `offset` of its source, with what is not UTF-8 replaced, and the places in the result.
fn readable(text: &[u8], offset: usize, marks: &[Mark]) -> (String, Vec<Range<usize>>) {
    let mut cuts: Vec<u32> = marks.iter().flat_map(|(_, span, _)| [span.start, span.end]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut lines = String::new();
    let mut moved = Vec::new();
    let mut done = 0;
    for cut in &cuts {
        let cut = *cut as usize - offset;
        lines.push_str(&String::from_utf8_lossy(&text[done..cut]));
        moved.push(lines.len());
        done = cut;
    }
    lines.push_str(&String::from_utf8_lossy(&text[done..]));
    let place = |at: u32| moved[cuts.partition_point(|cut| *cut < at)];
    (lines, marks.iter().map(|(_, span, _)| place(span.start)..place(span.end)).collect())
}

fn path(source: &Source) -> Cow<'_, str> {
    source.path.to_string_lossy()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::{Line, Stage, parse};
    use proptest::prelude::*;

    const PICTURES: Rendering = Rendering { pictures: true, color: false, width: 80 };

    fn source(path: &str, text: &[u8], included_at: Option<Span>) -> Source {
        Source { path: path.into(), text: text.to_vec(), included_at }
    }

    /// A command line, a main file, and two files brought in by line 2 of the main file.
    fn sources() -> Sources {
        let site = Some(Span { file: 1, start: 7, end: 22 });
        Sources(vec![
            source(COMMAND_LINE, b"daemon of;", None),
            source("/etc/n.conf", b"http {\ninclude conf/*;\n  gzip maybe;\n}\n", None),
            source("/etc/conf/a", b"# \xff\n\tlocatoin \xe4 \"\xe2\x82\xac\";\r\n", site),
            source("/etc/conf/b", b"x;\n", site),
        ])
    }

    /// The first place in a source where something is written.
    fn place(sources: &Sources, file: u32, text: &str) -> Span {
        let inside = &sources.0[file as usize].text;
        let start = inside.windows(text.len()).position(|window| window == text.as_bytes()).unwrap() as u32;
        Span { file, start, end: start + text.len() as u32 }
    }

    fn rendered(fault: &Fault, how: &Rendering) -> String {
        String::from_utf8(render(fault, &sources(), how)).unwrap()
    }

    #[test]
    fn the_first_line_is_nginx_s() {
        let sources = sources();
        let at = |file, text| Fault::at(place(&sources, file, text), "what");
        for (fault, expected) in [
            (at(1, "gzip"), "nginx: [emerg] what in /etc/n.conf:3\n"),
            (at(2, "locatoin").warn(), "nginx: [warn] what in /etc/conf/a:2\n"),
            (at(0, "of"), "nginx: [emerg] what in command line\n"),
            (at(1, "gzip").unnamed(), "nginx: [emerg] what\n"),
            (Fault::nowhere("what"), "nginx: [emerg] what\n"),
            (
                Fault { line: Line::Of(place(&sources, 1, "}")), severity: Severity::Notice, ..at(1, "http") },
                "nginx: [notice] what in /etc/n.conf:4\n",
            ),
        ] {
            assert_eq!(rendered(&fault, &Rendering::default()), expected);
        }
    }

    #[test]
    fn a_message_keeps_its_bytes_up_to_the_length_nginx_prints() {
        let sources = sources();
        let span = place(&sources, 1, "http");
        let long = [&b"\xff"[..], &[b'a'; 2000]].concat();
        let line = message(&Fault::at(span, long.clone()), &sources);
        assert_eq!(line, [&long[..1024], b" in /etc/n.conf:1"].concat());
    }

    #[test]
    fn the_picture_shows_the_place_the_way_there_and_the_help() {
        let sources = sources();
        let fault = Fault::at(place(&sources, 2, "locatoin"), "unknown directive \"locatoin\"")
            .help("did you mean `location`?")
            .also(place(&sources, 2, "\"\u{20ac}\""), "this is here too");
        let expected = "\
nginx: [emerg] unknown directive \"locatoin\" in /etc/conf/a:2
 --> /etc/conf/a:2:2
  |
2 |     locatoin \u{fffd} \"\u{20ac}\";
  |     ^^^^^^^^   --- this is here too
  |
  = note: included at /etc/n.conf:2
  = help: did you mean `location`?
";
        assert_eq!(rendered(&fault, &PICTURES), expected);
        let colored = rendered(&fault, &Rendering { color: true, ..PICTURES });
        assert!(colored.starts_with("nginx: [emerg] unknown directive \"locatoin\" in /etc/conf/a:2\n"));
        assert!(colored.contains("\x1b["));
    }

    #[test]
    fn a_second_place_in_another_file_has_a_picture_of_its_own() {
        let sources = sources();
        let fault = Fault::at(place(&sources, 3, "x"), "what").also(place(&sources, 1, "gzip maybe"), "first set here");
        let expected = "\
nginx: [emerg] what in /etc/conf/b:1
 --> /etc/conf/b:1:1
  |
1 | x;
  | ^
  |
 ::: /etc/n.conf:3:3
  |
3 |   gzip maybe;
  |   ---------- first set here
  |
  = note: included at /etc/n.conf:2
";
        assert_eq!(rendered(&fault, &PICTURES), expected);
    }

    #[test]
    fn a_fault_without_place_has_only_its_help() {
        assert_eq!(rendered(&Fault::nowhere("what"), &PICTURES), "nginx: [emerg] what\n");
        let fault = Fault::nowhere("what").help("do something");
        assert_eq!(rendered(&fault, &PICTURES), "nginx: [emerg] what\n = help: do something\n");
    }

    #[test]
    fn faults_are_sorted_as_nginx_comes_to_them() {
        let sources = sources();
        let at = |file, text, name: &str| Fault::at(place(&sources, file, text), name);
        let end = place(&sources, 1, "}");
        let mut faults = vec![
            Fault::nowhere("no place, settled"),
            at(1, "gzip", "in opening").when(Stage::Opening),
            at(1, "http", "settled").when(Stage::Settling),
            Fault { line: Line::Of(end), ..at(1, "http", "found at the end") },
            at(1, "gzip", "behind the include"),
            at(3, "x", "in the second file").warn(),
            at(2, "locatoin", "in the first file"),
            at(1, "include", "at the include"),
            at(1, "http", "before the include").unnamed(),
            at(0, "of", "in the command line"),
        ];
        sort(&mut faults, &sources);
        let order: Vec<_> = faults.iter().map(|fault| String::from_utf8_lossy(&fault.message)).collect();
        let expected = [
            "in the command line",
            "before the include",
            "at the include",
            "in the first file",
            "in the second file",
            "behind the include",
            "found at the end",
            "settled",
            "no place, settled",
            "in opening",
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn what_is_nearly_a_known_name_is_recognized() {
        let names = ["listen", "location", "server", "server_name", "root", "return", "env", "if"];
        for (name, expected) in [
            ("locatoin", Some("location")),
            ("Location", Some("location")),
            ("LISTEN", Some("listen")),
            ("lisen", Some("listen")),
            ("serber", Some("server")),
            ("servername", Some("server_name")),
            ("sever_nam", Some("server_name")),
            ("retrun", Some("return")),
            ("evn", Some("env")),
            ("fi", Some("if")),
            ("x", None),
            ("", None),
            ("upstream", None),
            ("proxy_pass", None),
            ("\u{20ac}\u{20ac}", None),
        ] {
            assert_eq!(nearest(name, names.into_iter()), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_shown(text in proptest::collection::vec(
            prop_oneof![4 => proptest::sample::select(&b"ab \r\n\t;{}\"'\x80\xe2\x82\xac\x1b"[..]), 1 => any::<u8>()], 0..200)
        ) {
            let mut faults = Vec::new();
            let block = parse(0, &text, &mut faults);
            faults.push(Fault::at(block.close, "end").also(Span { start: 0, ..block.close }, "all of it"));
            let sources = Sources(vec![source("a", &text, None)]);
            for fault in &faults {
                let shown = render(fault, &sources, &PICTURES);
                prop_assert!(shown.starts_with(&render(fault, &sources, &Rendering::default())));
                prop_assert!(shown.windows(5).any(|window| window == b"--> a"));
            }
        }
    }
}
