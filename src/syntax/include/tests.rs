//! Includes as nginx expands them. Messages and lines are those that nginx -t printed.

use super::*;
use std::collections::BTreeMap;

/// Files in memory. A path that ends in `/` is a directory.
struct Files(BTreeMap<PathBuf, Vec<u8>>);

impl Loader for Files {
    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        match self.0.get(path) {
            Some(text) if text == b"<directory>" => Err(io::ErrorKind::IsADirectory.into()),
            Some(text) if text == b"<secret>" => Err(io::Error::from_raw_os_error(13)),
            Some(text) => Ok(text.clone()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn glob(&mut self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        if pattern.ends_with("broken*") {
            return Err(io::Error::from_raw_os_error(12));
        }
        let matches = |path: &&PathBuf| {
            path.parent() == pattern.parent()
                && glob_match(
                    pattern.file_name().unwrap_or_default().as_bytes(),
                    path.file_name().unwrap_or_default().as_bytes(),
                )
        };
        Ok(self.0.keys().filter(matches).cloned().collect())
    }
}

fn read(files: &[(&str, &str)], globals: Option<&str>) -> (Tree, Vec<Fault>) {
    let mut loader = Files(files.iter().map(|(path, text)| (path.into(), text.as_bytes().to_vec())).collect());
    let mut faults = Vec::new();
    let tree = load(&mut loader, Path::new("/etc/n.conf"), globals.map(str::as_bytes), &mut faults);
    (tree, faults)
}

/// The names of the statements, blocks in braces.
fn shape(block: &Block) -> String {
    let of = |statement: &Statement| match &statement.block {
        Some(block) => format!("{}{{{}}}", statement.name.text(), shape(block)),
        None => statement.name.text().into_owned(),
    };
    block.statements.iter().map(of).collect::<Vec<_>>().join(" ")
}

/// Each fault as nginx's line would end.
fn said(tree: &Tree, faults: &[Fault]) -> Vec<String> {
    let line = |fault: &Fault| match fault.reported() {
        Some(place) => {
            format!(" in {}:{}", tree.sources.of(place).path.display(), tree.sources.line(place))
        }
        None => String::new(),
    };
    faults.iter().map(|fault| String::from_utf8_lossy(&fault.message).into_owned() + &line(fault)).collect()
}

#[test]
fn included_statements_stand_in_the_place_of_the_include() {
    for (main, expected) in [
        ("a; include b.conf; d;", "a b c d"),
        ("a { include b.conf; include b.conf; }", "a{b c b c}"),
        ("include /etc/b.conf;", "b c"),
        ("include ./b.conf;", "b c"),
        ("include \"b.conf\"; \"include\" b.conf;", "b c b c"),
        ("include d/*.conf;", "one two{}"),
        ("include d/*;", "one two{} other"),
        ("include d/.*;", "hidden"),
        ("include d/nothing*; a;", "a"),
        ("include nested;", "x{one two{}}"),
        ("include empty; a;", "a"),
        // Left to whoever checks directives.
        ("include;", "include"),
        ("include b.conf c;", "include"),
        ("include b.conf { include b.conf; }", "include{b c}"),
    ] {
        let (tree, faults) = read(
            &[
                ("/etc/n.conf", main),
                ("/etc/b.conf", "b; c;"),
                ("/etc/./b.conf", "b; c;"),
                ("/etc/empty", ""),
                ("/etc/nested", "x { include d/*.conf; }"),
                ("/etc/d/2.conf", "two {}"),
                ("/etc/d/1.conf", "one;"),
                ("/etc/d/.hidden.conf", "hidden;"),
                ("/etc/d/other", "other;"),
            ],
            None,
        );
        assert_eq!(faults, [], "{main}");
        assert_eq!(shape(&tree.root), expected, "{main}");
    }
}

#[test]
fn what_cannot_be_included_is_named_with_the_line_of_the_include() {
    for (main, expected) in [
        ("a;\ninclude x\n;", "open() \"/etc/x\" failed (2: No such file or directory) in /etc/n.conf:3"),
        ("a {\n include /x;\n}", "open() \"/x\" failed (2: No such file or directory) in /etc/n.conf:2"),
        ("include secret;", "open() \"/etc/secret\" failed (13: Permission denied) in /etc/n.conf:1"),
        ("include d;", "pread() \"/etc/d\" failed (21: Is a directory)"),
        ("include [d];", "pread() \"/etc/d\" failed (21: Is a directory)"),
        ("include broken*;", "glob() \"/etc/broken*\" failed (12: Cannot allocate memory) in /etc/n.conf:1"),
        ("include \"a\nb\"\n;", "open() \"/etc/a\nb\" failed (2: No such file or directory) in /etc/n.conf:3"),
        ("include \"a\0b\";", "open() \"/etc/a\" failed (2: No such file or directory) in /etc/n.conf:1"),
        ("\ninclude unclosed; }", "unexpected end of file, expecting \"}\" in /etc/unclosed:2"),
        ("x {\n include closing;", "unexpected \"}\" in /etc/closing:2"),
        ("x {\n include unfinished;\n}", "unexpected end of file, expecting \";\" or \"}\" in /etc/unfinished:1"),
    ] {
        let (tree, mut faults) = read(
            &[
                ("/etc/n.conf", main),
                ("/etc/secret", "<secret>"),
                ("/etc/d", "<directory>"),
                ("/etc/unclosed", "a {\n"),
                ("/etc/closing", "\n}"),
                ("/etc/unfinished", "a b"),
            ],
            None,
        );
        // In the order of their sources; the faults of the main file come first otherwise.
        faults.sort_by_key(|fault| std::cmp::Reverse(fault.span.map(|span| span.file)));
        assert_eq!(said(&tree, &faults)[0], expected, "{main}");
    }
}

#[test]
fn a_fault_in_one_file_does_not_hide_those_in_others() {
    let (tree, faults) = read(
        &[("/etc/n.conf", "include a; include x; include b; c;"), ("/etc/a", "a;\n}"), ("/etc/b", "b;\n\n;")],
        None,
    );
    let expected = [
        "unexpected \"}\" in /etc/a:2",
        "open() \"/etc/x\" failed (2: No such file or directory) in /etc/n.conf:1",
        "unexpected \";\" in /etc/b:3",
    ];
    assert_eq!(said(&tree, &faults), expected);
    assert_eq!(shape(&tree.root), "a b c");
}

#[test]
fn a_main_file_that_cannot_be_read_is_the_only_fault() {
    let (tree, faults) = read(&[], Some("a;"));
    assert_eq!(said(&tree, &faults), ["open() \"/etc/n.conf\" failed (2: No such file or directory)"]);
    assert_eq!((shape(&tree.globals), shape(&tree.root)), ("a".into(), String::new()));
    assert_eq!(tree.sources.of(tree.root.close).path, Path::new(COMMAND_LINE));
    let (tree, _) = read(&[], None);
    assert_eq!(tree.sources.of(tree.root.close).path, Path::new("/etc/n.conf"));
}

#[test]
fn a_file_that_includes_itself_is_a_fault() {
    for (files, expected) in [
        (&[("/etc/n.conf", "a;\ninclude n.conf;")][..], "\"/etc/n.conf\" includes itself in /etc/n.conf:2"),
        (
            &[("/etc/n.conf", "include b;"), ("/etc/b", "\n\ninclude n.c*;")],
            "\"/etc/n.conf\" includes itself in /etc/b:3",
        ),
        (
            &[("/etc/n.conf", "include d/*;"), ("/etc/d/1", "include d/*;"), ("/etc/d/2", "include d/*;")],
            "\"/etc/d/1\" includes itself in /etc/d/1:1",
        ),
    ] {
        let (tree, faults) = read(files, None);
        assert_eq!(said(&tree, &faults), [expected]);
        assert!(faults[0].help.is_some());
    }
    assert_eq!(
        read(&[("/etc/n.conf", "include b;"), ("/etc/b", "include n.conf;")], None).1[0].help.as_deref(),
        Some("it does so by way of `/etc/b`")
    );
}

/// Every name is the same file, as with a link to the directory it is in.
struct Endless;

impl Loader for Endless {
    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(format!("x {{ include {}/n; include {}/m; }}", path.display(), path.display()).into_bytes())
    }

    fn glob(&mut self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
}

#[test]
fn includes_without_end_under_other_names_end_at_a_bound() {
    let mut faults = Vec::new();
    let tree = load(&mut Endless, Path::new("/n"), None, &mut faults);
    let messages: Vec<_> = faults.iter().map(|fault| String::from_utf8_lossy(&fault.message)).collect();
    assert_eq!(messages, ["files include one another too deeply, more than 64 levels"]);
    assert_eq!(tree.sources.0.len(), MAX_INCLUDES + 1);
}

#[test]
fn included_blocks_count_for_the_depth_of_those_around_them() {
    let nested = |depth: usize, inner: &str| format!("{}{inner}{}", "a {".repeat(depth), "}".repeat(depth));
    let main = nested(100, "include b;");
    let inner = nested(MAX_DEPTH - 100 + 1, "");
    let (_, faults) = read(&[("/etc/n.conf", &main), ("/etc/b", &inner)], None);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].message, parser::too_deep().into_bytes());
    let inner = nested(MAX_DEPTH - 100, "");
    assert_eq!(read(&[("/etc/n.conf", &main), ("/etc/b", &inner)], None).1, []);
}

#[test]
fn sources_stand_in_the_order_they_were_opened() {
    let (tree, faults) = read(
        &[("/etc/n.conf", "include a;\ninclude b;"), ("/etc/a", "include b;"), ("/etc/b", "b;")],
        Some("include b; a;"),
    );
    assert_eq!(faults, []);
    let paths: Vec<_> = tree.sources.0.iter().map(|source| source.path.to_string_lossy()).collect();
    assert_eq!(paths, [COMMAND_LINE, "/etc/b", "/etc/n.conf", "/etc/a", "/etc/b", "/etc/b"]);
    let sites: Vec<_> =
        tree.sources.0.iter().map(|source| source.included_at.map(|at| tree.sources.text(at))).collect();
    let include_b = Some(&b"include b;"[..]);
    assert_eq!(sites, [None, include_b, None, Some(b"include a;"), include_b, include_b]);
    assert_eq!((shape(&tree.globals), shape(&tree.root)), ("b a".into(), "b b".into()));
}

#[test]
fn names_match_as_the_shell_would_match_them() {
    for (pattern, yes, no) in [
        ("a", &["a"][..], &["", "b", "aa", "A"][..]),
        ("*", &["", "a", "abc"], &[".", ".a"]),
        ("*.conf", &["a.conf", "a.b.conf"], &[".conf", ".a.conf", "a.confx", "a.con"]),
        (".*", &[".", ".a"], &["a", ""]),
        ("\\.*", &[".a"], &["a"]),
        ("?", &["a", "-"], &["", ".", "ab"]),
        ("a?c", &["abc", "a.c"], &["ac", "a/c"]),
        ("a*c", &["ac", "abc", "abcbc"], &["acb", "a/c"]),
        ("*a*b*", &["ab", "xaybz", "aab"], &["ba", "a"]),
        ("[abc]x", &["ax", "cx"], &["dx", "x", "[abc]x"]),
        ("[a-c]", &["a", "b", "c"], &["d", "-", ""]),
        ("[!a-c]", &["d", "-"], &["a", ".", ""]),
        ("[^a]", &["b"], &["a"]),
        ("[]a]", &["]", "a"], &["b"]),
        ("[!]a]", &["b"], &["]", "a"]),
        ("[a-]", &["a", "-"], &["b"]),
        ("[.]a", &[], &[".a"]),
        ("x[.]a", &["x.a"], &["xa"]),
        ("[[:digit:]]*", &["1a", "0"], &["a1"]),
        ("[![:upper:]_]", &["a"], &["A", "_"]),
        ("[\\]]", &["]"], &["\\"]),
        ("[a", &["[a"], &["a"]),
        ("\\*", &["*"], &["a", "\\*"]),
        ("a\\", &[], &["a", "a\\"]),
        ("", &[""], &["a"]),
        ("*\u{e4}", &["x\u{e4}"], &["x"]),
    ] {
        for name in yes {
            assert!(glob_match(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for name in no {
            assert!(!glob_match(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }
}

#[test]
fn a_pattern_of_many_stars_does_not_take_forever() {
    let name = "a".repeat(5000);
    assert!(!glob_match("a*".repeat(500).as_bytes(), (name.clone() + "b").replace('b', "b/").as_bytes()));
    assert!(glob_match(("*a".repeat(500) + "*").as_bytes(), name.as_bytes()));
}
