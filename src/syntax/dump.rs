//! Statements back to text: what `-T` prints, and a printer whose output reads back as the same statements.

use super::{Block, Sources, Statement, include::COMMAND_LINE};
use std::{collections::HashSet, os::unix::ffi::OsStrExt, path::Path};

/// The output of `-T`: every file once, in the order they were opened. What `-g` says is not part of it.
pub fn dump(sources: &Sources) -> Vec<u8> {
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    for source in &sources.0 {
        if source.path != Path::new(COMMAND_LINE) && seen.insert(&source.path) {
            for part in [b"# configuration file ", source.path.as_os_str().as_bytes(), b":\n", &source.text, b"\n"] {
                out.extend_from_slice(part);
            }
        }
    }
    out
}

/// The text of a block, one statement a line. Read again it gives the same block, apart from places.
pub fn write(block: &Block) -> Vec<u8> {
    let mut out = Vec::new();
    write_block(block, 0, &mut out);
    out
}

fn write_block(block: &Block, depth: usize, out: &mut Vec<u8>) {
    for Statement { name, args, block, .. } in &block.statements {
        indent(depth, out);
        write_word(&name.value, out);
        for word in args {
            out.push(b' ');
            write_word(&word.value, out);
        }
        match block {
            None => out.extend_from_slice(b";\n"),
            Some(block) => {
                out.extend_from_slice(b" {\n");
                write_block(block, depth + 1, out);
                indent(depth, out);
                out.extend_from_slice(b"}\n");
            }
        }
    }
}

fn indent(depth: usize, out: &mut Vec<u8>) {
    out.resize(out.len() + 4 * depth, b' ');
}

/// Writes a word in the shortest way, without quotes if there is a choice. No longer than it was
/// written before, which keeps a word within nginx's bound that was within it.
fn write_word(value: &[u8], out: &mut Vec<u8>) {
    let forms = [bare(value), Some(quoted(value, b'"')), Some(quoted(value, b'\''))];
    let shortest = forms.into_iter().flatten().min_by_key(Vec::len);
    out.extend_from_slice(&shortest.unwrap_or_default());
}

/// A word without quotes; `None` if it cannot do without.
fn bare(value: &[u8]) -> Option<Vec<u8>> {
    if matches!(value, [] | [b'#' | b'}' | b' ', ..]) {
        return None;
    }
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.iter().copied().peekable();
    // A `{` is part of a word only behind a `$`.
    let mut variable = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => write_backslash(&mut bytes, &mut out),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'"' | b'\'' if out.is_empty() => out.extend_from_slice(&[b'\\', byte]),
            b' ' | b';' => return None,
            b'{' if !variable => return None,
            _ => out.push(byte),
        }
        variable = byte == b'$' || (byte == b'{' && variable);
    }
    Some(out)
}

/// A word in quotes.
fn quoted(value: &[u8], quote: u8) -> Vec<u8> {
    let mut out = vec![quote];
    let mut bytes = value.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => write_backslash(&mut bytes, &mut out),
            _ if byte == quote => out.extend_from_slice(&[b'\\', quote]),
            _ => out.push(byte),
        }
    }
    out.push(quote);
    out
}

/// A backslash that is part of the value: doubled only where it would be taken for an escape.
fn write_backslash(bytes: &mut std::iter::Peekable<impl Iterator<Item = u8>>, out: &mut Vec<u8>) {
    match bytes.next_if(|next| !matches!(next, b'"' | b'\'' | b'\\' | b't' | b'r' | b'n')) {
        Some(covered) => out.extend_from_slice(&[b'\\', covered]),
        None => out.extend_from_slice(b"\\\\"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syntax::{Source, Span, Word, parser::parse};
    use proptest::prelude::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into(), included_at: None }
    }

    #[test]
    fn every_file_is_dumped_once_and_the_command_line_never() {
        let sources = Sources(vec![
            source(COMMAND_LINE, "daemon off;"),
            source("/etc/nginx/nginx.conf", "events {}\ninclude a;\ninclude a;\n"),
            source("/etc/nginx/a", "env A;"),
            source("/etc/nginx/a", "env A;"),
        ]);
        // As printed by `nginx -T` for these files.
        let expected = "# configuration file /etc/nginx/nginx.conf:\nevents {}\ninclude a;\ninclude a;\n\n\
                        # configuration file /etc/nginx/a:\nenv A;\n";
        assert_eq!(String::from_utf8(dump(&sources)).unwrap(), expected);
    }

    #[test]
    fn words_are_quoted_only_where_they_must_be() {
        for (written, printed) in [
            (r#"a "b" 'c';"#, "a b c;\n"),
            (r#"a "" "b c" "x;" "{";"#, "a \"\" \"b c\" \"x;\" \"{\";\n"),
            (r#"a ${b}c "${b}" "$b{}";"#, "a ${b}c ${b} \"$b{}\";\n"),
            (r"location ~ \.php$ {}", "location ~ \\.php$ {\n}\n"),
            (r#"a '"' "\"x y\"";"#, "a \\\" '\"x y\"';\n"),
            (r#"a b\ c "\\n" "\n";"#, "a b\\ c \\\\n \\n;\n"),
        ] {
            let mut faults = Vec::new();
            let block = parse(0, written.as_bytes(), &mut faults);
            assert_eq!(faults, [], "{written}");
            assert_eq!(String::from_utf8(write(&block)).unwrap(), printed, "{written}");
        }
    }

    /// The same block with no places in it.
    fn without_places(block: Block) -> Block {
        let word = |word: Word| Word { span: Span::default(), ..word };
        let statement = |statement: Statement| Statement {
            name: word(statement.name),
            args: statement.args.into_iter().map(word).collect(),
            block: statement.block.map(without_places),
            end: Span::default(),
        };
        Block { statements: block.statements.into_iter().map(statement).collect(), close: Span::default() }
    }

    /// Texts that are mostly made of what means something.
    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            6 => proptest::sample::select(&b"abnrt \t\r\n;{}$\\\"'#()"[..]),
            1 => any::<u8>(),
        ];
        proptest::collection::vec(byte, 0..200)
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_as_the_same(text in texts()) {
            let block = parse(0, &text, &mut Vec::new());
            let mut faults = Vec::new();
            let again = parse(0, &write(&block), &mut faults);
            prop_assert_eq!(faults, []);
            prop_assert_eq!(without_places(again), without_places(block));
        }

        #[test]
        fn any_value_can_be_written(value in proptest::collection::vec(any::<u8>(), 0..50)) {
            let word = Word { value, span: Span::default() };
            let statement = Statement { name: word.clone(), args: vec![word], block: None, end: Span::default() };
            let block = Block { statements: vec![statement], close: Span::default() };
            prop_assert_eq!(without_places(parse(0, &write(&block), &mut Vec::new())), block);
        }
    }
}
