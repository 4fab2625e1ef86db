//! What the real nginx (1.22.1 and 1.31.5 agree) makes of request targets, through `return 200 "$uri|$args"`.

use proptest::prelude::*;

use super::*;

type Row = (&'static str, Option<(&'static str, &'static str)>);

/// Target; `$uri` and `$args`, or nothing for 400. With `merge_slashes on`.
const MERGED: &[Row] = &[
    ("/", Some(("/", ""))),
    ("/a", Some(("/a", ""))),
    ("/a/", Some(("/a/", ""))),
    ("/a/b/c", Some(("/a/b/c", ""))),
    ("/index.html", Some(("/index.html", ""))),
    ("/a.b/c", Some(("/a.b/c", ""))),
    ("/a.b/c.", Some(("/a.b/c.", ""))),
    ("/a.b/c.a", Some(("/a.b/c.a", ""))),
    ("/.", Some(("/", ""))),
    ("/./", Some(("/", ""))),
    ("/..", None),
    ("/../", None),
    ("/../a", None),
    ("/./a", Some(("/a", ""))),
    ("/a/.", Some(("/a/", ""))),
    ("/a/./", Some(("/a/", ""))),
    ("/a/./b", Some(("/a/b", ""))),
    ("/a/..", Some(("/", ""))),
    ("/a/../", Some(("/", ""))),
    ("/a/../b", Some(("/b", ""))),
    ("/a/b/..", Some(("/a/", ""))),
    ("/a/b/../", Some(("/a/", ""))),
    ("/a/b/../..", Some(("/", ""))),
    ("/a/b/../../", Some(("/", ""))),
    ("/a/b/../../..", None),
    ("/a/b/../../../c", None),
    ("/a/b/../c", Some(("/a/c", ""))),
    ("/a/b/.../c", Some(("/a/b/.../c", ""))),
    ("/a/b/....", Some(("/a/b/....", ""))),
    ("/a/..b", Some(("/a/..b", ""))),
    ("/a/.b", Some(("/a/.b", ""))),
    ("/a/b..", Some(("/a/b..", ""))),
    ("/a/b.", Some(("/a/b.", ""))),
    ("/a/...", Some(("/a/...", ""))),
    ("/...", Some(("/...", ""))),
    ("/.a", Some(("/.a", ""))),
    ("/..a", Some(("/..a", ""))),
    ("/.a.b", Some(("/.a.b", ""))),
    ("/.htaccess", Some(("/.htaccess", ""))),
    ("//", Some(("/", ""))),
    ("//a", Some(("/a", ""))),
    ("///a///b///", Some(("/a/b/", ""))),
    ("/a//b", Some(("/a/b", ""))),
    ("/a//b//", Some(("/a/b/", ""))),
    ("/a//../b", Some(("/b", ""))),
    ("//..", None),
    ("//../a", None),
    ("/a//..", Some(("/", ""))),
    ("/a///../b", Some(("/b", ""))),
    ("/a/./../b", Some(("/b", ""))),
    ("/a/.././b", Some(("/b", ""))),
    ("/a//./b", Some(("/a/b", ""))),
    ("/a/.//b", Some(("/a/b", ""))),
    ("/a/..//b", Some(("/b", ""))),
    ("/%61", Some(("/a", ""))),
    ("/%61%62%63", Some(("/abc", ""))),
    ("/a%20b", Some(("/a b", ""))),
    ("/a+b", Some(("/a+b", ""))),
    ("/a%2Bb", Some(("/a+b", ""))),
    ("/a%2bb", Some(("/a+b", ""))),
    ("/%2e", Some(("/", ""))),
    ("/%2e%2e", None),
    ("/%2e/", Some(("/", ""))),
    ("/%2e%2e/", None),
    ("/a/%2e", Some(("/a/", ""))),
    ("/a/%2E%2E", Some(("/", ""))),
    ("/a/%2e%2e/b", Some(("/b", ""))),
    ("/a/.%2e/b", Some(("/b", ""))),
    ("/a/%2e./b", Some(("/b", ""))),
    ("/a/%2e%2e%2fb", Some(("/b", ""))),
    ("/a/..%2fb", Some(("/b", ""))),
    ("/a/..%2Fb", Some(("/b", ""))),
    ("/a%2fb", Some(("/a/b", ""))),
    ("/a%2F%2Fb", Some(("/a/b", ""))),
    ("/%2f", Some(("/", ""))),
    ("/%2fa", Some(("/a", ""))),
    ("/%2F%2Fa", Some(("/a", ""))),
    ("/a/%2f/b", Some(("/a/b", ""))),
    ("/a%2f..%2fb", Some(("/b", ""))),
    ("/a%2f.%2fb", Some(("/a/b", ""))),
    ("/a%5cb", Some(("/a\\b", ""))),
    ("/a\\b", Some(("/a\\b", ""))),
    ("/a\\..\\b", Some(("/a\\..\\b", ""))),
    ("/%5c..%5c", Some(("/\\..\\", ""))),
    ("/a%00", None),
    ("/%00", None),
    ("/a%00b", None),
    ("/a%0", None),
    ("/a%", None),
    ("/a%2", None),
    ("/%", None),
    ("/%zz", None),
    ("/%2z", None),
    ("/%g1", None),
    ("/%1g", None),
    ("/a%25b", Some(("/a%b", ""))),
    ("/a%252e", Some(("/a%2e", ""))),
    ("/%252e%252e/", Some(("/%2e%2e/", ""))),
    ("/a%23b", Some(("/a#b", ""))),
    ("/a%3fb", Some(("/a?b", ""))),
    ("/a%3Fb", Some(("/a?b", ""))),
    ("/a%3fb?c", Some(("/a?b", "c"))),
    ("/a%23b#c", Some(("/a#b", ""))),
    ("/a/.%23/b", Some(("/a/.#/b", ""))),
    ("/a/..%3f/b", Some(("/a/..?/b", ""))),
    ("/a/..%25/b", Some(("/a/..%/b", ""))),
    ("/?", Some(("/", ""))),
    ("/?a", Some(("/", "a"))),
    ("/?a=b&c=d", Some(("/", "a=b&c=d"))),
    ("/a?", Some(("/a", ""))),
    ("/a?b", Some(("/a", "b"))),
    ("/a?b?c", Some(("/a", "b?c"))),
    ("/a?b#c", Some(("/a", "b"))),
    ("/a?b#c?d", Some(("/a", "b"))),
    ("/a?#", Some(("/a", ""))),
    ("/a?#c", Some(("/a", ""))),
    ("/a#", Some(("/a", ""))),
    ("/a#b", Some(("/a", ""))),
    ("/a#b?c", Some(("/a", ""))),
    ("/#", Some(("/", ""))),
    ("/#a", Some(("/", ""))),
    ("/.?a", Some(("/", "a"))),
    ("/..?a", None),
    ("/a/.?b", Some(("/a/", "b"))),
    ("/a/..?b", Some(("/", "b"))),
    ("/a/b/..?c", Some(("/a/", "c"))),
    ("/a/b/..#c", Some(("/a/", ""))),
    ("/a/.#b", Some(("/a/", ""))),
    ("/a/..#b", Some(("/", ""))),
    ("/.#a", Some(("/", ""))),
    ("/..#a", None),
    ("//?a", Some(("/", "a"))),
    ("//#a", Some(("/", ""))),
    ("/a//?b", Some(("/a/", "b"))),
    ("/a?../b", Some(("/a", "../b"))),
    ("/a?//b", Some(("/a", "//b"))),
    ("/a?%2e%2e", Some(("/a", "%2e%2e"))),
    ("/a?%zz", Some(("/a", "%zz"))),
    ("/a?%", Some(("/a", "%"))),
    ("/a?b+c", Some(("/a", "b+c"))),
    ("/a%20?b%20", Some(("/a ", "b%20"))),
    ("/a;b=c", Some(("/a;b=c", ""))),
    ("/a,b", Some(("/a,b", ""))),
    ("/a=b", Some(("/a=b", ""))),
    ("/a&b", Some(("/a&b", ""))),
    ("/a:b", Some(("/a:b", ""))),
    ("/a@b", Some(("/a@b", ""))),
    ("/a!b", Some(("/a!b", ""))),
    ("/a$b", Some(("/a$b", ""))),
    ("/a'b", Some(("/a'b", ""))),
    ("/a(b)", Some(("/a(b)", ""))),
    ("/a*b", Some(("/a*b", ""))),
    ("/a[b]", Some(("/a[b]", ""))),
    ("/a{b}", Some(("/a{b}", ""))),
    ("/a|b", Some(("/a|b", ""))),
    ("/a\"b", Some(("/a\"b", ""))),
    ("/a<b>", Some(("/a<b>", ""))),
    ("/a^b", Some(("/a^b", ""))),
    ("/a`b", Some(("/a`b", ""))),
    ("/a~b", Some(("/a~b", ""))),
    ("/~user/", Some(("/~user/", ""))),
    ("/%7f", Some(("/\x7f", ""))),
    ("/%01", Some(("/\x01", ""))),
    ("/%1f", Some(("/\x1f", ""))),
    ("/%0d%0a", Some(("/\x0d\x0a", ""))),
    ("/\x01", None),
    ("/a\x7f", None),
    ("/a?\x01", None),
    ("/a?\x7f", None),
    ("/a#\x01", None),
    ("/a.a", Some(("/a.a", ""))),
    ("/a.a?b.html", Some(("/a.a", "b.html"))),
    ("/a.html/", Some(("/a.html/", ""))),
    ("/a.html/b", Some(("/a.html/b", ""))),
    ("/x.html%2fb", Some(("/x.html/b", ""))),
    ("/a%2ehtml", Some(("/a.html", ""))),
    ("/.html", Some(("/.html", ""))),
    ("/a/.html", Some(("/a/.html", ""))),
    ("/a/..html", Some(("/a/..html", ""))),
    ("/a/..a.b", Some(("/a/..a.b", ""))),
    ("/%2ehtml", Some(("/.html", ""))),
    ("/a.%61", Some(("/a.a", ""))),
    ("/a.htm%6c", Some(("/a.html", ""))),
    ("/a.b/../c", Some(("/c", ""))),
    ("/a.b/..", Some(("/", ""))),
    ("/a.a/.", Some(("/a.a/", ""))),
    ("/a.a//b", Some(("/a.a/b", ""))),
    ("/a.a#x", Some(("/a.a", ""))),
    ("/a./.b", Some(("/a./.b", ""))),
    ("/a.b.html", Some(("/a.b.html", ""))),
    ("/+", Some(("/+", ""))),
    ("/+/", Some(("/+/", ""))),
    ("/a/+/b", Some(("/a/+/b", ""))),
    ("/a/+", Some(("/a/+", ""))),
    ("/a/%2b/", Some(("/a/+/", ""))),
    ("/a/%20/..", Some(("/a/", ""))),
    ("/%20", Some(("/ ", ""))),
    ("/%20/", Some(("/ /", ""))),
    ("/./.././", None),
    ("/a/b/c/../../d/./e//f?g=/../h", Some(("/a/d/e/f", "g=/../h"))),
    ("/wp-content/../wp-config.php", Some(("/wp-config.php", ""))),
    ("/a/..;/b", Some(("/a/..;/b", ""))),
    ("/a/..%3b/b", Some(("/a/..;/b", ""))),
    ("/a/%2e%2e;/b", Some(("/a/..;/b", ""))),
    ("/static/..%2f..%2fetc/passwd", None),
    ("/a/b%2f..%2f..%2fc", Some(("/c", ""))),
    ("/%2f%2e%2e%2f", None),
    ("/....//....//etc", Some(("/..../..../etc", ""))),
];

/// The same with `merge_slashes off`, where it differs.
const UNMERGED: &[Row] = &[
    ("//", Some(("//", ""))),
    ("//a", Some(("//a", ""))),
    ("///a///b///", Some(("///a///b///", ""))),
    ("/a//b", Some(("/a//b", ""))),
    ("/a//b//", Some(("/a//b//", ""))),
    ("/a//../b", Some(("/a/b", ""))),
    ("//..", Some(("/", ""))),
    ("//../a", Some(("/a", ""))),
    ("/a//..", Some(("/a/", ""))),
    ("/a///../b", Some(("/a//b", ""))),
    ("/a//./b", Some(("/a//b", ""))),
    ("/a/.//b", Some(("/a//b", ""))),
    ("/a/..//b", Some(("//b", ""))),
    ("/a%2F%2Fb", Some(("/a//b", ""))),
    ("/%2f", Some(("//", ""))),
    ("/%2fa", Some(("//a", ""))),
    ("/%2F%2Fa", Some(("///a", ""))),
    ("/a/%2f/b", Some(("/a///b", ""))),
    ("//?a", Some(("//", "a"))),
    ("//#a", Some(("//", ""))),
    ("/a//?b", Some(("/a//", "b"))),
    ("/a.a//b", Some(("/a.a//b", ""))),
    ("/a/b/c/../../d/./e//f?g=/../h", Some(("/a/d/e//f", "g=/../h"))),
    ("/%2f%2e%2e%2f", Some(("/", ""))),
    ("/....//....//etc", Some(("/....//....//etc", ""))),
];

fn check(target: &str, merge_slashes: bool, expected: Option<(&str, &str)>) {
    let got = normalise(target.as_bytes(), merge_slashes).ok();
    let got = got.as_ref().map(|target| (target.path.to_vec(), target.args));
    let expected = expected.map(|(path, args)| (path.as_bytes().to_vec(), args.as_bytes()));
    assert_eq!(got, expected, "{target:?}, merge_slashes {merge_slashes}");
}

#[test]
fn targets_come_out_as_from_nginx() {
    for &(target, expected) in MERGED {
        check(target, true, expected);
        let unmerged = UNMERGED.iter().find(|row| row.0 == target);
        check(target, false, unmerged.map_or(expected, |row| row.1));
    }
}

#[test]
fn bytes_above_ascii_pass_raw_and_decoded() {
    for target in [&b"/\xc3\xa9"[..], b"/%c3%a9", b"/%C3%A9"] {
        assert_eq!(normalise(target, true).unwrap().path, &b"/\xc3\xa9"[..]);
    }
    assert_eq!(normalise(b"/%ff?\xff", true).unwrap().args, b"\xff");
}

#[test]
fn an_absolute_target_without_path_asks_for_the_root() {
    for (rest, args) in [(&b""[..], &b""[..]), (b"?", b""), (b"?a=b", b"a=b"), (b"?a#b", b"a")] {
        let target = normalise(rest, true).unwrap();
        assert_eq!((&*target.path, target.args, target.valid_unparsed), (&b"/"[..], args, false));
    }
    for other in ["*", "a", "example.com:443", "#"] {
        assert_eq!(normalise(other.as_bytes(), true), Err(BadUri));
    }
}

#[test]
fn a_clean_path_is_not_copied() {
    for target in ["/", "/a/b.html", "/a?b=//../%20", "/a+b/", "/a;b@c:d~e"] {
        assert!(!normalise(target.as_bytes(), true).unwrap().complex(), "{target}");
    }
    for target in ["/a%20b", "//", "/./a", "/.hidden", "/a#b", "/a?b#c"] {
        assert!(normalise(target.as_bytes(), true).unwrap().complex(), "{target}");
    }
}

#[test]
fn escapes_and_pluses_in_the_path_are_remembered() {
    for (target, quoted, plus) in [
        ("/a", false, false),
        ("/a?%20+", false, false),
        ("/a#%20+", false, false),
        ("/%61", true, false),
        ("//%61", true, false),
        ("/a+b", false, true),
        ("/a//+", false, true),
        ("/a%2bb", true, true),
    ] {
        let target = normalise(target.as_bytes(), true).unwrap();
        assert_eq!((target.quoted, target.plus), (quoted, plus), "{target:?}");
    }
}

#[test]
fn the_extension_is_what_types_looks_up() {
    for (target, extension) in [
        ("/a.html", "html"),
        ("/a.b.html?c.d", "html"),
        ("/a.b/c", ""),
        ("/a.", ""),
        ("/.htaccess", ""),
        ("/.a.b", "b"),
        ("/a/..b.c", "c"),
        ("/a%2ehtml", "html"),
        ("/a.htm%6c", "html"),
        ("/a.b/../c", ""),
        ("/a.html%2fb", ""),
        ("/a.b#c", "b"),
        ("//x.y", "y"),
    ] {
        let got = normalise(target.as_bytes(), true).unwrap();
        assert_eq!(got.extension(), extension.as_bytes(), "{target}");
        assert_eq!(super::extension(&got.path), extension.as_bytes(), "{target}");
    }
}

#[test]
fn arguments_start_at_the_first_question_mark() {
    assert_eq!(split_args(b"/a?b?c"), (&b"/a"[..], &b"b?c"[..]));
    assert_eq!(split_args(b"/a"), (&b"/a"[..], &b""[..]));
}

#[test]
fn an_unsafe_uri_is_refused() {
    for uri in [
        "",
        "?a",
        "..",
        "../a",
        "/..",
        "/../a",
        "/a/..",
        "/a/../b",
        "/a\0b",
        "/%2e%2e",
        "/a%2f..%2fb",
        "/%00",
        "%2e%2e/",
    ] {
        assert_eq!(parse_unsafe(uri.as_bytes()), Err(UnsafeUri), "{uri:?}");
    }
    // nginx lets these two through.
    for uri in ["..?a", "/a/..?b"] {
        assert_eq!(parse_unsafe(uri.as_bytes()), Err(UnsafeUri), "{uri:?}");
    }
    for (uri, path, args) in [
        ("/a", "/a", ""),
        ("a", "a", ""),
        ("/a?b?c", "/a", "b?c"),
        ("/a?..", "/a", ".."),
        ("/a?/../", "/a", "/../"),
        ("/a%20b?%20", "/a b", "%20"),
        ("/...", "/...", ""),
        ("/a..", "/a..", ""),
        ("/..a", "/..a", ""),
        ("/a%3fb?c", "/a?b", "c"),
        ("/%zz", "/zz", ""),
    ] {
        let (got_path, got_args) = parse_unsafe(uri.as_bytes()).unwrap();
        assert_eq!((&*got_path, got_args), (path.as_bytes(), args.as_bytes()), "{uri}");
    }
}

proptest! {
    /// Pieces that matter, in any order.
    #[test]
    fn a_path_never_leaves_the_root(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "/", "/", ".", "..", "%2e", "%2F", "a", "b.c", "?", "#", "+", "%25", "%3f", "%00", "%", "\u{e9}",
        ]), 0..12),
        merge_slashes: bool,
    ) {
        let target = format!("/{}", pieces.concat());
        if let Ok(got) = normalise(target.as_bytes(), merge_slashes) {
            prop_assert!(got.path.starts_with(b"/"));
            prop_assert!(!got.path.split(|&byte| byte == b'/').any(|segment| segment == b"." || segment == b".."));
            prop_assert!(!merge_slashes || !got.path.windows(2).any(|pair| pair == b"//"));
            // Sent on and received again, it is the same path.
            let again = escaped(&got.path, Escape::Uri).into_owned();
            prop_assert_eq!(&normalise(&again, merge_slashes).unwrap().path, &got.path);
        }
    }

    #[test]
    fn any_bytes_are_taken_or_refused(target: Vec<u8>) {
        let _ = normalise(&target, true);
        let _ = parse_unsafe(&target);
        let _ = extension(&target);
    }
}
