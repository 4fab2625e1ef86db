//! The room as a whole: directives in, answers out. The answers are those of nginx.

use crate::http::testing::{fault, get};

/// Configuration of a server, path, status, text or `Location`.
type Case = (&'static str, &'static str, u16, &'static str);

fn check(cases: &[Case]) {
    for &(config, path, status, expected) in cases {
        let answer = get(config, path);
        let text = answer.text();
        let found = answer.header("location").unwrap_or(&text);
        assert_eq!((answer.status, found), (status, expected), "{config} {path}");
    }
}

#[test]
fn a_rewrite_changes_path_and_arguments() {
    const REST: &str = "location / { return 200 \"$uri|$args|$1\"; }";
    for (rewrites, path, expected) in [
        ("rewrite ^/a/(.*)$ /b/$1;", "/a/x?q=1", "/b/x|q=1|x"),
        ("rewrite ^/a/(.*)$ /b/$1?;", "/a/x?q=1", "/b/x||x"),
        ("rewrite ^/a/(.*)$ /b?p=$1;", "/a/x?q=1", "/b|p=x&q=1|x"),
        ("rewrite ^/a/(.*)$ /b?p=$1?;", "/a/x?q=1", "/b|p=x|x"),
        ("rewrite ^ /b?a=1?b=2;", "/a", "/b|a=1?b=2|"),
        ("rewrite ^ /b?$args&x;", "/a?q", "/b|q&x&q|"),
        ("rewrite (?<name>[a-z]+) /n/$name;", "/abc/def", "/n/abc||abc"),
        ("rewrite ^/a /b last; rewrite ^/b /c;", "/a", "/b||"),
        ("rewrite ^/a /b; rewrite ^/b /c;", "/a", "/c||"),
        ("rewrite ^/a /b break; rewrite ^/b /c;", "/a", "/b||"),
        ("rewrite ^/A /b;", "/a", "/a||"),
    ] {
        let answer = get(&format!("{rewrites} {REST}"), path);
        assert_eq!((answer.status, &*answer.text()), (200, expected), "{rewrites} {path}");
    }
}

#[test]
fn captures_are_escaped_in_arguments_if_the_path_arrived_escaped() {
    const REST: &str = "location / { return 200 \"$uri|$args|$1\"; }";
    for (rewrites, path, expected) in [
        ("rewrite ^/a/(.*)$ /b?p=$1;", "/a/x%26y+z?q=1", "/b|p=x%26y%2Bz&q=1|x&y+z"),
        ("rewrite ^/a/(.*)$ /b?p=$1;", "/a/x&y", "/b|p=x&y|x&y"),
        ("rewrite ^/a/(.*)$ /b/$1;", "/a/x%26y", "/b/x&y||x&y"),
    ] {
        assert_eq!(get(&format!("{rewrites} {REST}"), path).text(), expected, "{rewrites} {path}");
    }
    check(&[
        ("location ~ ^/(.*)$ { set $x $1; return 200 \"[$x]\"; }", "/u%20v+w", 200, "[u%20v%2Bw]"),
        ("location ~ ^/(.*)$ { set $x $1; return 200 \"[$x]\"; }", "/u&v", 200, "[u&v]"),
        ("location ~ ^/(.*)$ { return 200 \"[$1]\"; }", "/u%20v+w", 200, "[u v+w]"),
        (
            "location / { rewrite ^/no(.*)$ /$1; if ($uri ~ ^/(.*)) { set $x $1; } return 200 \"[$x]\"; }",
            "/u%20v+w",
            200,
            "[u%20v%2Bw]",
        ),
        (
            "location / { rewrite ^/(.*)$ /$1 ; if ($uri ~ ^/(.*)) { set $x $1; } return 200 \"[$x]\"; }",
            "/u%20v+w",
            200,
            "[u v+w]",
        ),
    ]);
}

#[test]
fn a_replacement_with_a_scheme_or_a_flag_redirects() {
    check(&[
        ("absolute_redirect off; rewrite ^/a/(.*)$ /b/$1 redirect;", "/a/x%26y+z?q=1", 302, "/b/x&y+z?q=1"),
        ("absolute_redirect off; rewrite ^/a/(.*)$ /b/$1 permanent;", "/a/x%20y", 301, "/b/x%20y"),
        ("rewrite ^/a/(.*)$ http://e/b?z=$1;", "/a/x%20y?q=1", 302, "http://e/b?z=x%20y&q=1"),
        ("rewrite ^/a/(.*)$ $scheme://e/b%20c?;", "/a/x?q=1", 302, "http://e/b%20c"),
        ("rewrite ^/a/(.*)$ https://e/$1 permanent;", "/a/%d1%84", 301, "https://e/%D1%84"),
    ]);
}

#[test]
fn a_changed_path_finds_another_location_unless_it_breaks() {
    check(&[
        ("location /a { rewrite ^/a /b; return 200 here; } location / { return 200 $uri; }", "/a", 200, "here"),
        ("location /a { rewrite ^/a /b last; return 200 here; } location / { return 200 $uri; }", "/a", 200, "/b"),
        ("location /a { rewrite ^/a /b; } location / { return 200 $uri; }", "/a", 200, "/b"),
        (
            "location / { if ($arg_a) { rewrite ^ /r last; } return 200 $uri; } location /r { return 200 r; }",
            "/?a=1",
            200,
            "r",
        ),
        ("location / { internal; return 200 in; } location /r { rewrite ^ /i last; }", "/r", 200, "in"),
    ]);
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("file.txt"), "hi").unwrap();
    for script in ["rewrite ^ /file.txt break; return 200 no;", "rewrite ^ /file.txt; break; return 200 no;"] {
        let config = format!("root {}; location /a {{ {script} }} location / {{ return 404; }}", root.path().display());
        assert_eq!(get(&config, "/a").text(), "hi", "{script}");
    }
}

#[test]
fn a_circle_of_rewrites_and_an_empty_path_end_with_500() {
    assert_eq!(get("location /a { rewrite ^ /a/x; }", "/a").status, 500);
    assert_eq!(get("rewrite ^/a ?x=1;", "/a").status, 500);
    // Ten changes are allowed.
    let ten = "location ~ ^/(a*)b$ { rewrite ^/a(.*)$ /$1; return 200 $uri; }";
    assert_eq!(get(ten, "/b").text(), "/b");
    let steps = "location /a { rewrite ^/a(.*)$ /$1 last; } location / { return 200 $uri; }";
    assert_eq!(get(steps, &format!("/{}b", "a".repeat(10))).text(), "/b");
    assert_eq!(get(steps, &format!("/{}b", "a".repeat(11))).status, 500);
}

#[test]
fn return_answers_with_a_text_a_redirect_or_an_error() {
    check(&[
        ("absolute_redirect off; return 301 /x$uri;", "/a", 301, "/x/a"),
        ("return http://e/$uri;", "/a", 302, "http://e//a"),
        ("return $scheme://e/;", "/a", 302, "http://e/"),
        ("return 307 http://e;", "/a", 307, "http://e"),
        ("return 308 x;", "/a", 308, "x"),
        ("return 400 \"oh $uri\";", "/a", 400, "oh /a"),
        ("return 200;", "/a", 200, ""),
        ("return 599;", "/a", 599, ""),
        ("error_page 410 /g; location /g { return 200 gone; } location / { return 410; }", "/a", 410, "gone"),
        ("error_page 410 /g; location /g { return 200 gone; } location / { return 410 text; }", "/a", 410, "text"),
        (
            "location / { error_page 404 = @f; return 404; } location @f { if ($arg_a) { return 200 f; } return 201 g; }",
            "/?a=1",
            200,
            "f",
        ),
        (
            "error_page 418 = @t; location / { return 418; } location @t { rewrite ^/a(.*)$ /n$1 last; } location /n { return 200 $uri; }",
            "/ab",
            200,
            "/nb",
        ),
    ]);
    assert!(get("return 410;", "/").text().contains("<h1>410 Gone</h1>"));
    let moved =
        get("error_page 301 =200 /g; location /g { return 200 moved; } location / { return 301 http://e/x; }", "/");
    assert_eq!((moved.status, moved.header("location"), &*moved.text()), (200, Some("http://e/x"), "moved"));
}

#[test]
fn the_text_of_return_has_the_type_of_the_path() {
    for (config, path, expected) in [
        ("location / { return 200 a; }", "/", "text/plain"),
        ("location / { default_type text/x; return 200 a; }", "/", "text/x"),
        ("location / { types { text/q q; } return 200 a; }", "/x.q", "text/q"),
        ("return 410;", "/", "text/html"),
    ] {
        assert_eq!(get(config, path).header("content-type"), Some(expected), "{config}");
    }
}

#[test]
fn conditions_hold_as_in_nginx() {
    for (condition, path, expected) in [
        ("$arg_a", "/?a=1", true),
        ("$arg_a", "/?a=0", false),
        ("$arg_a", "/?a=00", true),
        ("$arg_a", "/?a=", false),
        ("$arg_a", "/", false),
        ("$arg_a = b", "/?a=b", true),
        ("$arg_a = B", "/?a=b", false),
        ("$arg_a != b", "/?a=b", false),
        ("$arg_a = \"$arg_b\"", "/?a=b&b=b", true),
        ("$arg_a ~ ^B", "/?a=b", false),
        ("$arg_a ~* ^B", "/?a=b", true),
        ("$arg_a !~ ^B", "/?a=b", true),
        ("$arg_a !~* ^B", "/?a=b", false),
        ("$arg_a ~ ^(b|c)$", "/?a=c", true),
        (" $arg_a = b ", "/?a=b", true),
        ("$arg_a = \"b c\"", "/?a=b", false),
        ("$request_method = GET", "/", true),
    ] {
        let answer = get(&format!("location / {{ if ({condition}) {{ return 200 yes; }} return 200 no; }}"), path);
        assert_eq!(answer.text() == "yes", expected, "{condition} {path}");
    }
}

#[test]
fn conditions_look_at_files() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("file"), "").unwrap();
    std::fs::create_dir(root.path().join("dir")).unwrap();
    for (test, file, dir, none) in [
        ("-f", true, false, false),
        ("-d", false, true, false),
        ("-e", true, true, false),
        ("-x", false, true, false),
        ("!-f", false, true, true),
        ("!-d", true, false, true),
        ("!-e", false, false, true),
        ("!-x", true, false, true),
    ] {
        let script = format!("if ({test} $request_filename) {{ return 200 yes; }} return 200 no;");
        let config = format!("root {}; location / {{ {script} }}", root.path().display());
        for (path, expected) in [("/file", file), ("/dir", dir), ("/none", none)] {
            assert_eq!(get(&config, path).text() == "yes", expected, "{test} {path}");
        }
    }
}

#[test]
fn an_if_in_a_location_is_a_level_of_its_own() {
    let x = |config: &str| {
        let answer = get(config, "/?a=1&b=1");
        (answer.header("x").map(str::to_owned), answer.header("y").map(str::to_owned))
    };
    let some = |text: &str| Some(text.to_owned());
    let inner = "location / { add_header X outer; if ($arg_a) { add_header X inner; } return 200; }";
    assert_eq!(x(inner), (some("inner"), None));
    let inherited = "location / { add_header X outer; if ($arg_a) { set $z 1; } return 200; }";
    assert_eq!(x(inherited), (some("outer"), None));
    let last = "location / { if ($arg_a) { add_header X one; } if ($arg_b) { add_header Y two; } return 200; }";
    assert_eq!(x(last), (None, some("two")));
    check(&[
        (
            "location / { set $v 0; if ($arg_a) { set $v 1; } if ($v = 1) { return 200 $v; } return 200 no; }",
            "/?a=1",
            200,
            "1",
        ),
        ("if ($arg_a) { set $v 1; rewrite ^ /r; } location / { return 200 \"$uri $v\"; }", "/?a=1", 200, "/r 1"),
        ("if ($arg_a) { break; } rewrite ^ /r; location / { return 200 $uri; }", "/?a=1", 200, "/"),
        (
            "location / { if ($arg_no) { return 200 a; } if ($arg_a) { return 200 b; } if ($arg_b) { return 200 c; } }",
            "/?a=1",
            200,
            "b",
        ),
    ]);
}

#[test]
fn no_level_inherits_the_steps_of_another() {
    check(&[
        ("location / { return 200 outer; location /x { return 200 inner; } }", "/x", 200, "inner"),
        ("set $x 1; location / { set $x $x-$uri; return 200 $x; }", "/u", 200, "1-/u"),
        ("location / { limit_except POST { allow all; } return 200 r; location /y { return 200 y; } }", "/y", 200, "y"),
    ]);
    assert_ne!(get("location / { return 200 outer; location /x { } }", "/x").text(), "outer");
}

#[test]
fn variables_have_the_value_they_were_last_given() {
    check(&[
        ("location / { set $args x=2; return 200 \"$args|$arg_x|$is_args\"; }", "/?a=1", 200, "x=2|2|?"),
        ("set $Foo bar; location / { return 200 \"$foo $FOO\"; }", "/", 200, "bar bar"),
        ("location /x { set $never 1; } location / { return 200 \"[$never]\"; }", "/", 200, "[]"),
        ("location /x { set $arg_a 1; } location / { return 200 \"[$arg_a]\"; }", "/?a=2", 200, "[2]"),
        ("location / { set $arg_a 1; return 200 \"[$arg_a]\"; }", "/?a=2", 200, "[1]"),
        ("location / { set $x $1; return 200 \"[$x]\"; }", "/u", 200, "[]"),
        ("location / { if ($arg_a ~ b(?<rest>.*)) { return 200 \"$rest,$1\"; } }", "/?a=abc", 200, "c,c"),
    ]);
}

#[test]
fn wrong_arguments_are_named() {
    for (directives, message) in [
        ("return;", "invalid number of arguments in \"return\" directive"),
        ("return x;", "invalid return code \"x\""),
        ("return 1000;", "invalid return code \"1000\""),
        ("return http://e x;", "invalid return code \"http://e\""),
        ("rewrite ^ \"\";", "empty replacement"),
        ("rewrite ^ /x always;", "invalid parameter \"always\""),
        ("rewrite ( /x;", "pcre2_compile() failed: missing closing parenthesis in \"(\""),
        ("rewrite ^ /x$;", "invalid variable name"),
        ("set x 1;", "invalid variable name \"x\""),
        ("set $ 1;", "invalid variable name \"$\""),
        ("set $uri 1;", "the duplicate \"uri\" variable"),
        ("set $http_host 1;", "the duplicate \"http_host\" variable"),
        ("set $x ${y;", "the closing bracket in \"y\" variable is missing"),
        ("if $x { }", "invalid condition \"$x\""),
        ("if ($uri { }", "invalid condition \"$uri\""),
        ("if (uri) { }", "invalid condition \"uri\""),
        ("if () { }", "invalid condition \")\""),
        ("if ($uri =) { }", "invalid condition \"$uri\""),
        ("if ($uri = a b) { }", "invalid condition \"$uri\""),
        ("if ($uri == a) { }", "unexpected \"==\" in condition"),
        ("if (-f) { }", "invalid condition \"-f\""),
        ("if (-z /x) { }", "invalid condition \"-z\""),
        ("if ($uri) { if ($uri) { } }", "\"if\" directive is not allowed here"),
        ("if ($uri) { root; }", "invalid number of arguments in \"root\" directive"),
        ("if { }", "invalid number of arguments in \"if\" directive"),
        ("if ($uri);", "directive \"if\" has no opening \"{\""),
    ] {
        assert_eq!(fault(directives), message, "{directives}");
    }
}
