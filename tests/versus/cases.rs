//! The readable form of requests: blocks between lines of `===`.
//!
//! A block is notes (`# ...`), a request line, headers, and behind an empty line a body. Lines are sent with CRLF, the
//! last line of a body without one. A request line without a version, like `GET /x`, stands for HTTP/1.1 with
//! `Host: localhost` and `Connection: close`, unless the block has headers of these names. `\xNN` is that byte.
//!
//! Notes that mean something; any other is a comment:
//! - `# headers: A, B`: headers to compare besides the usual ones; `:line` is the whole status line.
//! - `# responses: N`: how many answers to wait for on the connection. `# repeat: N`: send the block N times.
//! - `# upstream: TEXT`: the answer of every HTTP backend to this block, `# upstream 2: TEXT` of that one, `# uwsgi: TEXT`
//!   of every uwsgi backend, as `scgi`, `memcached` and `fastcgi` for theirs; then they close. In TEXT, `\r \n \t \xNN` are
//!   bytes, `\p` is a pause, `\fN;` are N letters. For FastCGI what stands in brackets is a record: `[out TEXT]`, `[err TEXT]`,
//!   `[end]`, with N bytes of padding `[out:N TEXT]`; a text without any is the output of a whole answer.
//! - `# shape`: of the body only the shape is compared (see `compare::shapes`), of its length nothing.
//! - `# half-close`: the client ends its direction after sending.
//! - `# expect: STATUS TEXT`: where nginx 1.31 answers otherwise than Debian's older one: our status, and what our body
//!   must contain, instead of a comparison.
//! - `# differs: WHY`: a known difference, shown but not counted as a failure.
//!
//! `%%LENGTH%%` is the length of the body; `%%FILL:N%%` are N letters (`%%FILL-UPPER:N%%` capitals); `%%CHUNKS:a,b%%` are
//! `a` and `b` as chunks; `%%HEADERS:N%%` are N header lines.

use super::backend::{Speech, Step};
use super::wire::Exchange;

/// One block.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Its line in the file.
    pub(crate) line: usize,
    /// Its request line as written.
    pub(crate) title: String,
    /// What to send and to wait for.
    pub(crate) exchange: Exchange,
    /// How often.
    pub(crate) repeat: usize,
    /// Headers to compare besides the usual ones.
    pub(crate) headers: Vec<String>,
    /// Scripts: the backend's number (0 for all of its kind), what it speaks, what it says.
    pub(crate) scripts: Vec<(usize, Speech, Vec<Step>)>,
    /// Whether only the body's shape counts.
    pub(crate) shape: bool,
    /// Instead of a comparison: the status, and a part of the body.
    pub(crate) expect: Option<(u16, String)>,
    /// Why it is known to differ.
    pub(crate) differs: Option<String>,
}

/// Reads the blocks of a file whose placeholders are already replaced.
pub(crate) fn parse(text: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut start = 1;
    let mut block: Vec<&str> = Vec::new();
    for (index, line) in text.lines().chain(["==="]).enumerate() {
        if line != "===" {
            block.push(line);
            continue;
        }
        cases.extend(one(start, &block));
        block.clear();
        start = index + 2;
    }
    cases
}

/// Reads one block; `None` when it has notes only.
fn one(start: usize, block: &[&str]) -> Option<Case> {
    let mut case = Case {
        line: start,
        title: String::new(),
        exchange: Exchange { responses: 1, ..Exchange::default() },
        repeat: 1,
        headers: Vec::new(),
        scripts: Vec::new(),
        shape: false,
        expect: None,
        differs: None,
    };
    let notes = block.iter().take_while(|line| line.is_empty() || line.starts_with('#')).count();
    for note in &block[..notes] {
        let note = note.trim_start_matches('#').trim();
        let (key, value) = note.split_once(": ").unwrap_or((note.trim_end_matches(':'), ""));
        let mut words = key.split(' ');
        match (words.next().unwrap_or_default(), words.next()) {
            ("headers", None) => case.headers.extend(value.split(", ").map(str::to_owned)),
            ("responses", None) => case.exchange.responses = value.parse().expect("a number of responses"),
            ("repeat", None) => case.repeat = value.parse().expect("a number of repetitions"),
            ("shape", None) => case.shape = true,
            ("expect", None) => {
                let (status, text) = value.split_once(' ').unwrap_or((value, ""));
                case.expect = Some((status.parse().expect("a status"), text.to_owned()));
            }
            ("half-close", None) => case.exchange.half_close = true,
            ("differs", None) => case.differs = Some(value.to_owned()),
            ("upstream", number) if number.is_none_or(|n| n.parse::<usize>().is_ok()) => {
                let number = number.and_then(|n| n.parse().ok()).unwrap_or(0);
                case.scripts.push((number, Speech::Http, steps(value)));
            }
            ("uwsgi", None) => case.scripts.push((0, Speech::Uwsgi, steps(value))),
            ("scgi", None) => case.scripts.push((0, Speech::Scgi, steps(value))),
            ("memcached", None) => case.scripts.push((0, Speech::Memcached, steps(value))),
            ("fastcgi", None) => case.scripts.push((0, Speech::FastCgi, records(value))),
            _ => {}
        }
    }
    let (title, rest) = block[notes..].split_first()?;
    case.line = start + notes;
    case.title = (*title).to_owned();
    case.exchange.pieces = vec![bytes(title, rest)];
    Some(case)
}

/// The bytes of a request.
fn bytes(title: &str, rest: &[&str]) -> Vec<u8> {
    let split = rest.iter().position(|line| line.is_empty());
    let (headers, body) = split.map_or((rest, &[][..]), |at| (&rest[..at], &rest[at + 1..]));
    let body = unescape(&expand(&body.join("\r\n")));
    let has = |name: &str| headers.iter().any(|line| line.to_ascii_lowercase().starts_with(name));
    let mut head = title.to_owned();
    if !title.contains(" HTTP/") {
        head.push_str(" HTTP/1.1");
        if !has("host:") {
            head.push_str("\r\nHost: localhost");
        }
        if !has("connection:") {
            head.push_str("\r\nConnection: close");
        }
    }
    for line in headers {
        head.push_str("\r\n");
        head.push_str(line);
    }
    head.push_str("\r\n\r\n");
    let mut all = unescape(&expand(&head.replace("%%LENGTH%%", &body.len().to_string())));
    all.extend_from_slice(&body);
    all
}

/// Replaces `%%FILL:N%%`, `%%CHUNKS:a,b%%` and `%%HEADERS:N%%`.
pub(crate) fn expand(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("%%") {
        out.push_str(&rest[..at]);
        let Some(length) = rest[at + 2..].find("%%") else { break };
        let word = &rest[at + 2..at + 2 + length];
        rest = &rest[at + 4 + length..];
        if let Some(count) = word.strip_prefix("FILL:") {
            out.push_str(&letters(count.parse().expect("a count behind FILL")));
        } else if let Some(parts) = word.strip_prefix("CHUNKS:") {
            for part in parts.split(',').filter(|part| !part.is_empty()) {
                out.push_str(&format!("{:x}\r\n{part}\r\n", part.len()));
            }
            out.push_str("0\r\n\r\n");
        } else if let Some(count) = word.strip_prefix("HEADERS:") {
            for number in 0..count.parse::<usize>().expect("a count behind HEADERS") {
                out.push_str(&format!("X-{number}: {number}\r\n"));
            }
        } else if let Some(count) = word.strip_prefix("FILL-UPPER:") {
            out.push_str(&letters(count.parse().expect("a count behind FILL-UPPER")).to_ascii_uppercase());
        } else {
            panic!("unknown placeholder %%{word}%%");
        }
    }
    out.push_str(rest);
    out
}

fn letters(count: usize) -> String {
    ('a'..='z').cycle().take(count).collect()
}

/// Replaces `\xNN`.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'\\' && bytes.get(at + 1) == Some(&b'x'))
            .then(|| text.get(at + 2..at + 4).and_then(|digits| u8::from_str_radix(digits, 16).ok()))
            .flatten();
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    out
}

/// The steps of a script.
fn steps(text: &str) -> Vec<Step> {
    let mut out = Vec::new();
    for (index, part) in text.split("\\p").enumerate() {
        if index > 0 {
            out.push(Step::Pause);
        }
        let mut plain = part.replace("\\r", "\r").replace("\\n", "\n").replace("\\t", "\t");
        while let Some(at) = plain.find("\\f") {
            let end = at + plain[at..].find(';').expect("a count between \\f and ;");
            let count = plain[at + 2..end].parse().expect("a count behind \\f");
            plain.replace_range(at..=end, &letters(count));
        }
        if !plain.is_empty() {
            out.push(Step::Send(unescape(&plain)));
        }
    }
    out
}

/// The steps of a FastCGI script.
fn records(text: &str) -> Vec<Step> {
    if !text.contains('[') {
        let output = steps(text).into_iter().map(|step| match step {
            Step::Send(bytes) => Step::Record(6, 0, bytes),
            other => other,
        });
        return output.chain([Step::Record(6, 0, Vec::new()), Step::Record(3, 0, vec![0; 8])]).collect();
    }
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((plain, record)) = rest.split_once('[') {
        out.extend(steps(plain));
        let (record, after) = record.split_once(']').expect("a record ends with a bracket");
        let (head, content) = record.split_once(' ').unwrap_or((record, ""));
        let (kind, padding) = head.split_once(':').unwrap_or((head, "0"));
        let padding = padding.parse().expect("a number of bytes of padding");
        let content = match steps(content).pop() {
            Some(Step::Send(bytes)) => bytes,
            _ => Vec::new(),
        };
        out.push(match kind {
            "out" => Step::Record(6, padding, content),
            "err" => Step::Record(7, padding, content),
            "end" => Step::Record(3, padding, vec![0; 8]),
            other => panic!("unknown record {other}"),
        });
        rest = after;
    }
    out.extend(steps(rest));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_without_version_gets_host_and_close() {
        let cases = parse("# a comment\nGET /x\n===\nPOST /y\nHost: h\nContent-Length: %%LENGTH%%\n\nab\ncd\n");
        assert_eq!(cases.len(), 2);
        assert_eq!(cases[0].exchange.pieces[0], b"GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(
            cases[1].exchange.pieces[0],
            b"POST /y HTTP/1.1\r\nConnection: close\r\nHost: h\r\nContent-Length: 6\r\n\r\nab\r\ncd"
        );
        assert_eq!((cases[0].line, cases[1].line), (2, 4));
    }

    #[test]
    fn notes_are_read_and_scripts_decoded() {
        let cases = parse("# headers: Vary, :line\n# upstream 2: HTTP/1.1 200 OK\\r\\n\\r\\n\\pab\\f3;\nGET /\\x41\n");
        assert_eq!(cases[0].headers, ["Vary", ":line"]);
        assert_eq!(
            cases[0].scripts,
            [(
                2,
                Speech::Http,
                vec![Step::Send(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()), Step::Pause, Step::Send(b"ababc".to_vec())]
            )]
        );
        assert!(cases[0].exchange.pieces[0].starts_with(b"GET /A HTTP/1.1\r\n"));
    }

    #[test]
    fn fastcgi_scripts_are_records() {
        assert_eq!(
            records("hi"),
            [Step::Record(6, 0, b"hi".to_vec()), Step::Record(6, 0, Vec::new()), Step::Record(3, 0, vec![0; 8])]
        );
        let expected = [
            Step::Record(7, 3, b"a b\n".to_vec()),
            Step::Pause,
            Step::Record(6, 0, Vec::new()),
            Step::Send(b"x".to_vec()),
        ];
        assert_eq!(records("[err:3 a b\\n]\\p[out]x"), expected);
    }

    #[test]
    fn chunks_and_fillings_are_written_out() {
        assert_eq!(expand("%%CHUNKS:ab,c%%"), "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
        assert_eq!(expand("x%%FILL:3%%y"), "xabcy");
    }
}
