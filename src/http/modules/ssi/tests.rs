//! Pages in, pages out.

use crate::http::testing::{Answer, ask, conf, get};

const ERROR: &str = "[an error occurred while processing the directive]";

/// What a server that says this answers for a page `/d/p` among others.
fn answer(directives: &str, text: &str) -> Answer {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("d")).unwrap();
    for (name, text) in [
        ("d/p", text),
        ("d/beside", "beside"),
        ("empty", ""),
        ("page", r#"[<!--#echo var="v" default="none" --><!--#set var="v" value="page" -->]"#),
        ("loop", r#"x<!--#include virtual="/loop" -->"#),
        ("nested", r#"(<!--#include virtual="/a" -->)"#),
        ("long", &"x".repeat(5000)),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let server = format!(
        "root {}; default_type text/html; ssi on; {directives}
         location /a {{ return 200 '<$uri?$args>'; }}
         location = /nothing {{ return 204; }} location = /nobody {{ return 404; }} location = /closed {{ return 444; }}
         location = /plain {{ default_type text/plain; return 200 '<!--#echo -->'; }}
         location = /set {{ set $mine 1; return 200 set; }}
         location = /shown {{ error_page 404 =200 /a; return 404; }}
         location = /small {{ alias {}/long; subrequest_output_buffer_size 5k; }}",
        folder.path().display(),
        folder.path().display()
    );
    get(&server, "/d/p?a=1&b=%3Cx%3E")
}

#[track_caller]
fn pages(pages: &[(&str, &str)]) {
    for (text, expected) in pages {
        assert_eq!(answer("", text).text(), *expected, "{text}");
    }
}

#[test]
fn variables_are_shown_with_entities_until_another_encoding_is_asked_for() {
    pages(&[
        (r#"x<!--#echo var="uri" -->x"#, "x/d/px"),
        (r#"<!--#echo var="URI" -->"#, "/d/p"),
        (r#"<!--#echo var="arg_none" -->"#, "(none)"),
        (r#"<!--#echo var="arg_none" default="<>" -->"#, "&lt;&gt;"),
        (r#"<!--#echo var="arg_none" default="" -->"#, ""),
        (r#"<!--#set var="v" value="<a&\"b>" --><!--#echo var="v" -->"#, "&lt;a&amp;&quot;b&gt;"),
        (r#"<!--#set var="v" value="<a b>" --><!--#echo encoding="url" var="v" -->"#, "%3Ca%20b%3E"),
        (r#"<!--#set var="v" value="<" --><!--#echo var="v" encoding="none" --><!--#echo var="v" -->"#, "<<"),
        (r#"<!--#set var="v" value="<" --><!--#echo var="v" encoding="x" -->"#, "&lt;"),
    ]);
}

#[test]
fn a_value_is_put_together_of_variables() {
    pages(&[
        (r#"<!--#set var="v" value="a$arg_a{}" --><!--#echo var="v" -->"#, "a1{}"),
        (r#"<!--#set var="V" value="x" --><!--#set var="w" value="${v}y" --><!--#echo var="W" -->"#, "xy"),
        (r#"<!--#set var="v" value="$none-\$" --><!--#echo var="v" -->"#, "-$"),
        (r#"<!--#set var="v" value="1" --><!--#set var="v" value="${v}2" --><!--#echo var="v" -->"#, "12"),
        (r#"<!--#set var="v" value="${a" -->"#, ERROR),
        (r#"<!--#set var="v" value="$" -->"#, ERROR),
    ]);
}

#[test]
fn the_first_condition_that_holds_chooses_what_is_put_out() {
    pages(&[
        (r#"<!--#if expr="$arg_a" -->1<!--#else -->2<!--#endif -->3"#, "13"),
        (r#"<!--#if expr="$arg_z" -->1<!--#else -->2<!--#endif -->3"#, "23"),
        (r#"<!--#if expr="$arg_z" -->1<!--#elif expr="$arg_a = 1" -->2<!--#elif expr="1" -->3<!--#endif -->"#, "2"),
        (r#"<!--#if expr="$arg_a=2" -->1<!--#elif expr="$arg_a != 2" -->2<!--#else -->3<!--#endif -->"#, "2"),
        (r#"<!--#if expr="$arg_z" --><!--#echo var="uri" --><!--#none --><!--#endif -->x"#, "x"),
        (
            r#"<!--#if expr="$arg_z" --><!--#if expr="1" -->1<!--#endif -->2<!--#endif -->3"#,
            &["2", ERROR, "3"].concat(),
        ),
        (r#"<!--#if expr="1" -->1<!--#if expr="1" -->2<!--#endif -->3"#, &["1", ERROR, "23"].concat()),
        (r#"<!--#if expr="$arg_a" -->1<!--#else -->2<!--#else -->3<!--#endif -->"#, &["1", ERROR].concat()),
        ("<!--#else -->x<!--#endif -->y", &[ERROR, "x", ERROR, "y"].concat()),
        (r#"<!--#if expr="$a ? b" -->x<!--#endif -->"#, &[ERROR, "x", ERROR].concat()),
    ]);
}

#[test]
fn an_expression_leaves_its_groups_behind() {
    pages(&[
        (
            r#"<!--#if expr="$uri = /^.d.(.)(x)?/" --><!--#echo var="0" -->,<!--#echo var="1" -->,<!--#echo var="2" --><!--#endif -->"#,
            "/d/p,p,(none)",
        ),
        (r#"<!--#if expr="$uri = /(?<Name>p)$$/" --><!--#endif -->"#, &[ERROR, ERROR].concat()),
        (
            r#"<!--#if expr="$uri = /(?<Name>p)/" --><!--#set var="v" value="$1${name}" --><!--#echo var="v" --><!--#endif -->"#,
            "pp",
        ),
        (r#"<!--#if expr="$uri != /x/" -->x<!--#endif -->"#, "x"),
        (r#"<!--#if expr="$uri = /(/" -->x<!--#endif -->"#, &[ERROR, "x", ERROR].concat()),
    ]);
}

#[test]
fn answers_of_other_paths_stand_where_they_are_included() {
    pages(&[
        (r#"x<!--#include virtual="/a?b=%20" -->x"#, "x</a?b=%20>x"),
        (r#"<!--#include virtual="beside" --><!--#include file="beside" -->"#, "besidebeside"),
        (r#"<!--#include virtual="/a%20b%3f?$arg_b" -->"#, "</a b??%3Cx%3E>"),
        (
            r#"1<!--#include virtual="/nested" wait="yes" -->2<!--#include virtual="/a" wait="NO" -->3"#,
            "1(</a?>)2</a?>3",
        ),
        (
            r#"<!--#include virtual="/page" -->-<!--#include virtual="/page" -->-<!--#echo var="v" -->"#,
            "[none]-[page]-(none)",
        ),
        (r#"<!--#include virtual="/page" wait="yes" --><!--#echo var="v" -->"#, "[none]page"),
        (r#"<!--#set var="v" value="1" --><!--#include file="../../page" -->"#, ERROR),
        (r#"<!--#include virtual="/plain" -->"#, "<!--#echo -->"),
        (r#"<!--#include virtual="/nothing" --><!--#include virtual="/empty" -->x"#, "x"),
        (r#"<!--#include virtual="/shown" -->"#, "</a?>"),
        (r#"<!--#include virtual="/a" file="/a" -->"#, ERROR),
        (r#"<!--#include wait="yes" -->"#, ERROR),
        (r#"<!--#include virtual="/a" wait="maybe" -->"#, ERROR),
        (r#"<!--#include file="/a" wait="yes" -->"#, ERROR),
        (r#"<!--#include virtual="/a" set="x" stub="y" -->"#, ERROR),
        (r#"<!--#include virtual="/a" virtual="/b" -->"#, ERROR),
    ]);
    assert!(answer("", r#"<!--#include virtual="/nobody" -->x"#).text().ends_with("</html>\r\nx"));
}

#[test]
fn a_page_that_includes_itself_ends() {
    let text = answer("", r#"<!--#include virtual="/loop" -->"#).text();
    assert_eq!(text, format!("{}{ERROR}", "x".repeat(51)));
}

#[test]
fn an_answer_becomes_the_value_of_a_variable() {
    pages(&[
        (r#"<!--#include virtual="/a" set="V" -->x<!--#echo var="v" encoding="none" -->"#, "x</a?>"),
        (r#"<!--#set var="v" value="1" --><!--#include virtual="/nobody" set="v" --><!--#echo var="v" -->"#, "1"),
        (r#"<!--#include virtual="/nobody" set="v" -->x<!--#echo var="v" default="none" -->"#, "x"),
        (r#"<!--#include virtual="/empty" set="uri" --><!--#echo var="uri" -->x"#, "x"),
        (
            r#"<!--#include virtual="/set" --><!--#include virtual="/a" wait="yes" --><!--#echo var="mine" -->"#,
            "set</a?>1",
        ),
    ]);
    let long = answer("", r#"<!--#include virtual="/small" set="v" --><!--#echo var="v" -->"#).text();
    assert_eq!(long.len(), 5000);
}

#[test]
fn a_block_stands_for_what_fails_or_is_empty() {
    let block = r#"<!--#block name="b" -->(<!--#echo var="arg_c" default="stub" -->)<!--#if expr="1" -->!<!--#endif --><!--#endblock -->"#;
    for (text, expected) in [
        (r#"x<!--#include virtual="/nobody" stub="b" -->x"#, "x(stub)!x"),
        (r#"<!--#include virtual="/nowhere?c=1" stub="b" -->"#, "(1)!"),
        (r#"<!--#include virtual="/a" stub="b" -->"#, "</a?>"),
        (r#"<!--#include virtual="/shown" stub="b" --><!--#include virtual="/nobody" stub="b" -->"#, "(stub)!(stub)!"),
        (r#"<!--#include virtual="/nobody" stub="c" -->"#, ERROR),
    ] {
        assert_eq!(answer("", &format!("{block}{text}")).text(), expected, "{text}");
    }
    let raw = answer(
        "",
        r#"<!--#block name="b" --><!--#echo  var='a' --><!--#endblock --><!--#include virtual="/empty" stub="b" -->"#,
    );
    assert_eq!(raw.text(), r#"<!--#echo var="a" -->"#);
}

#[test]
fn dates_are_written_as_they_are_wanted() {
    pages(&[
        (r#"<!--#config timefmt="%%Y" --><!--#echo var="date_gmt" -->-<!--#echo var="date_local" -->"#, "%Y-%Y"),
        (r#"<!--#config timefmt="" --><!--#echo var="date_gmt" -->"#, ERROR),
        (
            r#"<!--#config timefmt="GMT" --><!--#set var="v" value="$date_gmt$DATE_LOCAL" --><!--#echo var="v" -->"#,
            "GMTGMT",
        ),
    ]);
    let text = answer("", r#"<!--#echo var="date_gmt" -->"#).text();
    assert!(text.ends_with(" GMT") && text.contains("day, "), "{text}");
}

#[test]
fn what_cannot_be_done_is_said_unless_nothing_is_to_be_said() {
    pages(&[
        ("<!--#none -->", ERROR),
        ("<!--#echo -->", ERROR),
        (r#"<!--#echo var="a" x="b" -->"#, ERROR),
        (r#"<!--#echo var="a" var="b" -->"#, ERROR),
        (r#"<!--#config errmsg="<sorry>" --><!--#none -->"#, "<sorry>"),
        (r#"<!--#echo var="a"b -->x"#, &[ERROR, "x"].concat()),
    ]);
    assert_eq!(answer("ssi_silent_errors on;", "a<!--#none -->b<!--#echo x-->").text(), "ab");
    assert_eq!(
        answer("ssi_value_length 3;", r#"<!--#echo var="uri" --><!--#echo var="host" -->"#).text(),
        ["/d/p", ERROR].concat()
    );
}

#[test]
fn pages_have_neither_date_nor_length() {
    let plain = answer("", "x");
    assert_eq!(plain.text(), "x");
    for field in ["content-length", "etag", "last-modified", "accept-ranges"] {
        assert_eq!(plain.header(field), None, "{field}");
    }
    let dated = answer("ssi_last_modified on;", "x");
    assert!(dated.header("etag").is_some_and(|etag| etag.starts_with("W/")));
    assert!(dated.header("last-modified").is_some());
    let other = answer("ssi_types text/plain; location /d/ { default_type image/png; }", "<!--#echo -->");
    assert_eq!((other.text(), other.header("content-length")), ("<!--#echo -->".to_owned(), Some("13")));
    let server = "ssi on; default_type text/html; location / { return 200 <!--#echo-->; }";
    assert_eq!(ask(server, "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").text(), "");
}

#[test]
fn filters_before_it_see_the_page_and_those_behind_it_the_whole() {
    for (directives, expected) in [
        ("sub_filter x y;", "y-</a?>"),
        ("add_before_body /a;", "</a?>x-</a?>"),
        ("sub_filter 'x-' '<!--#echo var=\"uri\"-->';", "/d/p</a?>"),
    ] {
        assert_eq!(answer(directives, r#"x-<!--#include virtual="/a" -->"#).text(), expected, "{directives}");
    }
}

#[test]
fn the_settings_are_nginxs() {
    let ssi = conf("ssi on; ssi_min_file_chunk 2k; ssi_ignore_recycled_buffers on;").ssi.clone();
    assert_eq!(
        (ssi.enabled, ssi.min_file_chunk.0, ssi.value_length.0, ssi.ignore_recycled_buffers),
        (true, 2048, 255, true)
    );
}
