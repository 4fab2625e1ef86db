//! What is read from a text, and what is said about it. Messages and lines are those that nginx -t printed.

use crate::syntax::{
    Block, Fault, Line, Source, Sources, Span, Statement,
    parser::{MAX_DEPTH, parse, parse_globals},
};
use proptest::prelude::*;

/// A word as written, and its value.
const WORDS: &[(&str, &str)] = &[
    ("a", "a"),
    ("\"a b\"", "a b"),
    ("'a b'", "a b"),
    ("\"\"", ""),
    ("\"a;b{c}d#e\"", "a;b{c}d#e"),
    ("'a\"b'", "a\"b"),
    ("\"a'b\"", "a'b"),
    ("a\"b", "a\"b"),
    ("a'b'c", "a'b'c"),
    ("a#b", "a#b"),
    ("a}b", "a}b"),
    ("a}", "a}"),
    (r#""a\"b""#, r#"a"b"#),
    (r"'a\'b'", "a'b"),
    (r#"'a\"b'"#, "a\"b"),
    (r#"a\"b"#, r#"a"b"#),
    (r#"\"a"#, "\"a"),
    (r"a\\b", r"a\b"),
    (r"a\tb\rc\nd", "a\tb\rc\nd"),
    (r#""a\tb\nc""#, "a\tb\nc"),
    (r"a\ b", r"a\ b"),
    (r"a\;b", r"a\;b"),
    (r"a\{b\}", r"a\{b\}"),
    (r"\a", r"\a"),
    (r"\#a", r"\#a"),
    (r"\}a", r"\}a"),
    (r"\.php$", r"\.php$"),
    (r"\\\\a", r"\\a"),
    (r"a\\", r"a\"),
    ("a\\\nb", "a\\\nb"),
    ("\"a\nb\"", "a\nb"),
    ("a${b}c", "a${b}c"),
    ("${b}", "${b}"),
    ("$b$c", "$b$c"),
    ("$${b}", "$${b}"),
    ("${{b}", "${{b}"),
    ("\"${b}\"", "${b}"),
    ("$\\{b}", "$\\{b}"),
    ("a$", "a$"),
    ("\"a$\"", "a$"),
    ("(a)", "(a)"),
    (")", ")"),
    ("\u{e4}\u{20ac}", "\u{e4}\u{20ac}"),
];

/// A text and its statements: `name[argument]` with `;`, or with a block.
const STATEMENTS: &[(&str, &str)] = &[
    ("", ""),
    (" \t\r\n", ""),
    ("# comment", ""),
    ("# } { ; \" '\na;", "a;"),
    ("a;b;", "a;b;"),
    ("a b c;", "a[b][c];"),
    ("a b\n  c # d;\n  e\n;", "a[b][c][e];"),
    ("a#b c;", "a#b[c];"),
    ("a \"b\" #\n;", "a[b];"),
    ("upstream x{server y;}", "upstream[x]{server[y];}"),
    ("a{b{c d;}e;}f;", "a{b{c[d];}e;}f;"),
    ("a {}", "a{}"),
    ("a \"b\"{}", "a[b]{}"),
    ("a \"b\";", "a[b];"),
    ("if (\"$a\"){}", "if[(\"$a\")]{}"),
    ("if ($a = \"b\"){}", "if[($a][=][b][)]{}"),
    ("if ( \"$a\" ) {}", "if[(][$a][)]{}"),
    ("location =/ {}", "location[=/]{}"),
    ("location = / {}", "location[=][/]{}"),
    ("location ~ ^/a(b|c)$ {}", "location[~][^/a(b|c)$]{}"),
    ("location ~ \"^/a{2}$\" {}", "location[~][^/a{2}$]{}"),
    ("a $b{c;}", "a[$b]{c;}"),
    ("a ${b} {c;}", "a[${b}]{c;}"),
    ("a ${b;c}{d;}", "a[${b];c}{d;}"),
    ("a ${b}{c;}", "a[${b}]{c;}"),
    ("\"a\" b;", "a[b];"),
    ("a\r\n{\r\nb c;\r\n}\r\n", "a{b[c];}"),
    ("a 'b\r\nc';", "a[b\r\nc];"),
    ("a b;}", "a[b];"),
    ("\u{feff}a b;", "\u{feff}a[b];"),
];

/// A text, and where nginx stops and why.
const FAULTS: &[(&str, &str, usize)] = &[
    ("}", "unexpected \"}\"", 1),
    ("events {}\n}", "unexpected \"}\"", 2),
    ("events {\n}\n\n}\n", "unexpected \"}\"", 4),
    ("events {}\nuser a\n}", "unexpected \"}\"", 3),
    ("events { worker_connections 1 }", "unexpected \"}\"", 1),
    ("events {\n worker_connections\n 1\n}\n", "unexpected \"}\"", 4),
    ("user \"a\"}", "unexpected \"}\"", 1),
    ("{", "unexpected \"{\"", 1),
    ("events {}\n\n{}", "unexpected \"{\"", 3),
    ("events {}\nenv a; {\n}", "unexpected \"{\"", 2),
    ("events {} {}", "unexpected \"{\"", 1),
    (";", "unexpected \";\"", 1),
    ("events {\n};\n", "unexpected \";\"", 2),
    ("events {\n  ;\n}", "unexpected \";\"", 2),
    ("events {", "unexpected end of file, expecting \"}\"", 1),
    ("events {\n", "unexpected end of file, expecting \"}\"", 2),
    ("events {\n# }\n\n", "unexpected end of file, expecting \"}\"", 4),
    ("events {\n} http {\n  types {\n}\n", "unexpected end of file, expecting \"}\"", 5),
    ("user", "unexpected end of file, expecting \";\" or \"}\"", 1),
    ("user a", "unexpected end of file, expecting \";\" or \"}\"", 1),
    ("events {}\nuser a\n", "unexpected end of file, expecting \";\" or \"}\"", 3),
    ("events {\n user", "unexpected end of file, expecting \";\" or \"}\"", 2),
    ("user \"a;\n}\n", "unexpected end of file, expecting \";\" or \"}\"", 3),
    ("user 'a", "unexpected end of file, expecting \";\" or \"}\"", 1),
    ("\"", "unexpected end of file, expecting \";\" or \"}\"", 1),
    ("\n\\", "unexpected end of file, expecting \";\" or \"}\"", 2),
    ("user \"a\"", "unexpected end of file, expecting \";\" or \"}\"", 1),
    ("user \"a\\", "unexpected end of file, expecting \";\" or \"}\"", 1),
    ("user \"a\\\"", "unexpected end of file, expecting \";\" or \"}\"", 1),
    ("user a # ;", "unexpected end of file, expecting \";\" or \"}\"", 1),
    ("user ${", "unexpected end of file, expecting \";\" or \"}\"", 1),
    ("user \"a\"b;", "unexpected \"b\"", 1),
    ("user\n'a'\n'b''c'\n;", "unexpected \"'\"", 3),
    ("user \"a\"#b\n;", "unexpected \"#\"", 1),
    ("user \"a\nb\"\\;", "unexpected \"\\\"", 2),
    ("user \"a\"$b;", "unexpected \"$\"", 1),
    ("user \"a;\nevents { use \"b\"; }", "unexpected \"b\"", 2),
    ("user \"a\"\u{e4};", "unexpected \"\u{c3}\"", 1),
];

type Overflow = Option<(&'static str, usize)>;

/// Texts with a run of letters, and where nginx's buffer overflows, if it does. `@` stands for the run.
const LENGTHS: &[(&str, usize, Overflow)] = &[
    ("\n #@\nevents {}", 4094, None),
    ("\n #@\nevents {}", 4095, Some(("too long parameter \"#aaaaaaaaa...\" started", 2))),
    ("events {} #@", 4095, None),
    ("events {} #@", 4096, Some(("too long parameter \"#aaaaaaaaa...\" started", 1))),
    ("events {}\nenv @;", 4095, None),
    ("events {}\nenv\n@\n;", 4094, None),
    ("events {}\nenv @;", 4096, Some(("too long parameter \"aaaaaaaaaa...\" started", 2))),
    ("events {}\nenv\n@\n;", 4095, Some(("too long parameter \"aaaaaaaaaa...\" started", 3))),
    ("events {}\nenv \"@\";", 4094, None),
    ("events {}\nenv \"@\";", 4095, Some(("too long parameter \"aaaaaaaaaa...\" started", 2))),
    ("events {}\nenv \"@\" ;", 4093, None),
    ("events {}\nenv \"@\" ;", 4094, Some(("too long parameter \"aaaaaaaaaa...\" started", 2))),
    ("events {}\nenv\n\"\n@\" ;", 4094, Some(("too long parameter \"\naaaaaaaaa...\" started", 3))),
    ("events {}\nenv\n \"@\";", 4096, Some(("too long parameter, probably missing terminating \"\"\" character", 3))),
    ("events {}\nenv '@\n\n;", 4094, Some(("too long parameter, probably missing terminating \"'\" character", 2))),
    ("events {}\nenv '@", 4096, Some(("unexpected end of file, expecting \";\" or \"}\"", 2))),
    ("events {}\nenv '@", 4097, Some(("too long parameter, probably missing terminating \"'\" character", 2))),
    ("events {}\nenv 'a' @'b'c;", 4090, None),
];

/// What `-g` says, and why nginx does not take it.
const GLOBAL_FAULTS: &[(&str, &str)] = &[
    ("user a", "unexpected end of parameter, expecting \";\""),
    ("user \"a;", "unexpected end of parameter, expecting \";\""),
    ("}", "unexpected \"}\""),
    ("user a }", "unexpected \"}\""),
    (";", "unexpected \";\""),
    ("{", "unexpected \"{\""),
    ("events {}", "block directives are not supported in -g option"),
    ("events {", "block directives are not supported in -g option"),
];

fn read(text: &[u8]) -> (Block, Vec<Fault>) {
    let mut faults = Vec::new();
    let block = parse(0, text, &mut faults);
    (block, faults)
}

/// A message and its line, as nginx would name it.
fn said(text: &[u8], fault: &Fault) -> (Vec<u8>, usize) {
    let source = Source { path: "test.conf".into(), text: text.to_vec(), included_at: None };
    (fault.message.clone(), Sources(vec![source]).line(fault.reported().unwrap()))
}

fn shape(block: &Block) -> String {
    let statement = |statement: &Statement| {
        let args: String = statement.args.iter().map(|word| format!("[{}]", word.text())).collect();
        let end = statement.block.as_ref().map_or(";".into(), |block| format!("{{{}}}", shape(block)));
        format!("{}{args}{end}", statement.name.text())
    };
    block.statements.iter().map(statement).collect()
}

#[test]
fn words_have_the_values_nginx_gives_them() {
    for (written, value) in WORDS {
        let (block, faults) = read(format!("{written} {written};").as_bytes());
        assert_eq!(faults, [], "{written}");
        assert_eq!(block.statements.len(), 1, "{written}");
        let statement = &block.statements[0];
        let values: Vec<_> = statement.args.iter().map(|word| word.text()).collect();
        assert_eq!((statement.name.text().as_ref(), &values[..]), (*value, &[(*value).into()][..]), "{written}");
    }
}

#[test]
fn statements_end_where_nginx_ends_them() {
    for (text, expected) in STATEMENTS {
        let (block, _) = read(text.as_bytes());
        assert_eq!(shape(&block), *expected, "{text}");
    }
}

#[test]
fn the_first_fault_is_the_one_nginx_stops_at() {
    for (text, message, line) in FAULTS {
        let (_, faults) = read(text.as_bytes());
        let (found, at) = said(text.as_bytes(), &faults[0]);
        // One byte of a longer character is not text.
        let message: Vec<u8> = message.chars().map(|c| c as u8).collect();
        assert_eq!((found, at), (message, *line), "{text}");
    }
}

#[test]
fn what_is_longer_than_nginx_s_buffer_is_refused() {
    for (text, length, expected) in LENGTHS {
        let text = text.replace('@', &"a".repeat(*length));
        let (_, faults) = read(text.as_bytes());
        let found: Vec<_> = faults.iter().map(|fault| said(text.as_bytes(), fault)).collect();
        let expected: Vec<_> = expected.iter().map(|(message, line)| (message.as_bytes().to_vec(), *line)).collect();
        assert_eq!(found, expected, "{} {length}", text.replace("aaaaaaaaaa", ""));
    }
}

#[test]
fn the_command_line_has_no_blocks_and_no_bound() {
    for (text, message) in GLOBAL_FAULTS {
        let mut faults = Vec::new();
        parse_globals(0, text.as_bytes(), &mut faults);
        assert_eq!(String::from_utf8_lossy(&faults[0].message), *message, "{text}");
    }
    let mut faults = Vec::new();
    let long = "a".repeat(10_000);
    assert_eq!(
        shape(&parse_globals(0, format!("env {long}; pid b;").as_bytes(), &mut faults)),
        format!("env[{long}];pid[b];")
    );
    assert_eq!(faults, []);
}

#[test]
fn reading_goes_on_behind_a_fault() {
    for (text, expected, messages) in [
        ("a; } b;", "a;b;", &["unexpected \"}\""][..]),
        ("a { b } c;", "a{}c;", &["unexpected \"}\""]),
        ("a;; b;", "a;b;", &["unexpected \";\""]),
        ("{ a; } b;", "b;", &["unexpected \"{\""]),
        ("a \"b\"c; d;", "d;", &["unexpected \"c\""]),
        ("a \"b\"c\"d\"; d;", "d;", &["unexpected \"c\""]),
        ("a \"b\"c { d; e; } f;", "f;", &["unexpected \"c\""]),
        ("a { \"b\"c; }", "a{}", &["unexpected \"c\""]),
        ("a { b { c;", "a{b{c;}}", &["unexpected end of file, expecting \"}\""]),
        ("a { b; c", "a{b;}", &["unexpected end of file, expecting \";\" or \"}\""]),
        ("}\n};", "", &["unexpected \"}\"", "unexpected \"}\"", "unexpected \";\""]),
    ] {
        let (block, faults) = read(text.as_bytes());
        assert_eq!(shape(&block), expected, "{text}");
        let found: Vec<_> = faults.iter().map(|fault| String::from_utf8_lossy(&fault.message)).collect();
        assert_eq!(found, messages, "{text}");
    }
}

#[test]
fn a_fault_points_at_what_probably_caused_it() {
    for (text, span, also) in [
        ("a {\n  b c\n}\n", "}", "b c"),
        ("a {\n  b \"c;\n}\n", "}", "\""),
        ("a {\n  b \"c\"d;\n}\n", "d", "\"c\""),
        ("a {\n  b;\n\n", ";", "{"),
        // The one whose `}` seems to belong to something else.
        ("a {\n  bb {\n    ccc {\n  }\n}\n", "}", "{"),
    ] {
        let (_, faults) = read(text.as_bytes());
        let of = |span: Span| &text[span.start as usize..span.end as usize];
        let (place, _) = faults[0].also.unwrap();
        assert_eq!((of(faults[0].span.unwrap()), of(place)), (span, also), "{text}");
        if text.contains("ccc") {
            assert_eq!(place.start as usize, text.find("ccc {").unwrap() + 4);
        }
    }
}

#[test]
fn places_are_where_things_are_written() {
    let text = "\u{feff}# c\na \"b c\" {\n  d\\;e ;\n}\n";
    let (block, faults) = read(&text.as_bytes()[3..]);
    assert_eq!(faults, []);
    let of = |span: Span| &text[3 + span.start as usize..3 + span.end as usize];
    let outer = &block.statements[0];
    let inner = outer.block.as_ref().unwrap();
    assert_eq!([of(outer.name.span), of(outer.args[0].span), of(outer.end)], ["a", "\"b c\"", "{"]);
    assert_eq!([of(inner.statements[0].name.span), of(inner.statements[0].end)], ["d\\;e", ";"]);
    assert_eq!([of(inner.close), of(block.close)], ["}", ""]);
    assert_eq!(block.close.start as usize, text.len() - 3);
}

#[test]
fn blocks_deeper_than_the_bound_are_left_out_with_one_fault() {
    let nested = |depth: usize| format!("{}b;{}c;", "a {\n".repeat(depth), "}".repeat(depth));
    assert_eq!(read(nested(MAX_DEPTH).as_bytes()).1, []);
    let text = nested(100_000);
    let (block, faults) = read(text.as_bytes());
    assert_eq!(faults.len(), 1);
    assert_eq!(
        said(text.as_bytes(), &faults[0]),
        (b"blocks are nested too deeply, more than 128 levels".to_vec(), MAX_DEPTH + 1)
    );
    assert_eq!(shape(&block), format!("{}{}c;", "a{".repeat(MAX_DEPTH), "}".repeat(MAX_DEPTH)));
    assert_eq!(read("a {".repeat(100_000).as_bytes()).1.len(), 2);
}

proptest! {
    #[test]
    fn any_text_is_read_and_every_place_lies_in_it(text in proptest::collection::vec(
        prop_oneof![4 => proptest::sample::select(&b"ab \n;{}$\\\"'#)"[..]), 1 => any::<u8>()], 0..300)
    ) {
        let (block, faults) = read(&text);
        let inside = |span: Span| span.start <= span.end && span.end as usize <= text.len();
        for fault in &faults {
            prop_assert!(fault.span.is_some_and(inside));
            prop_assert!(matches!(fault.line, Line::OfSpan | Line::Of(_)) && fault.reported().is_some_and(inside));
        }
        prop_assert!(inside(block.close));
        for statement in &block.statements {
            prop_assert!(inside(statement.name.span) && inside(statement.end));
        }
    }
}
