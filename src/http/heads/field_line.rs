//! One field line of a head, byte by byte as `ngx_http_parse_header_line` reads it. It can stop anywhere and go on when
//! more bytes have come, without looking at any byte twice.

use memchr::{memchr, memchr3};

/// A field line under way. All positions count from the first byte of the head.
#[derive(Clone, Debug, Default)]
pub(super) struct FieldLine {
    state: State,
    /// Where the line begins.
    pub(super) start: usize,
    /// The name is `start..name_end`.
    pub(super) name_end: usize,
    /// The value is `value_start..value_end`.
    pub(super) value_start: usize,
    /// Behind the value; where nginx points when the line is refused.
    pub(super) value_end: usize,
    /// The name holds a byte that nginx does not take for one of a name.
    pub(super) odd: bool,
}

/// Who writes the head decides some details.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    /// `_` is a letter like others (`underscores_in_headers`; always so in answers).
    pub(super) underscores: bool,
    /// Repeated `HTTP/1.1 …` lines are passed over, as some old servers send them.
    pub(super) answer: bool,
}

/// What came of reading on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The bytes ended first.
    More,
    /// A line is complete; the next one begins at the position.
    Line,
    /// The empty line: the head is complete.
    End,
    /// `value_end` points at the byte nginx names.
    Invalid,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    Name,
    BeforeValue,
    Value,
    Ignored,
    LineEnd,
    HeadEnd,
}

/// What a byte means within a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Underscore,
    Odd,
    Slash,
    Colon,
    Cr,
    Lf,
    Control,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Odd; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => Class::Letter,
            b'_' => Class::Underscore,
            b':' => Class::Colon,
            b'\r' => Class::Cr,
            b'\n' => Class::Lf,
            b'/' => Class::Slash,
            0..=0x20 | 0x7f => Class::Control,
            _ => Class::Odd,
        };
        byte += 1;
    }
    classes
};

impl FieldLine {
    /// Nothing of a line has been read yet.
    pub(super) fn at_start(&self) -> bool {
        self.state == State::Start
    }

    /// Reads on from `at`, which ends up behind what was read.
    pub(super) fn read(&mut self, bytes: &[u8], at: &mut usize, dialect: Dialect) -> Step {
        loop {
            let Some(&byte) = bytes.get(*at) else { return Step::More };
            match self.state {
                State::Start => {
                    self.start = *at;
                    self.odd = false;
                    match CLASSES[usize::from(byte)] {
                        Class::Lf => {
                            self.value_end = *at;
                            return self.complete(at, Step::End);
                        }
                        Class::Cr => {
                            self.value_end = *at;
                            self.state = State::HeadEnd;
                        }
                        Class::Control | Class::Colon => {
                            self.value_end = *at;
                            return Step::Invalid;
                        }
                        Class::Letter => self.state = State::Name,
                        Class::Underscore => {
                            self.odd = !dialect.underscores;
                            self.state = State::Name;
                        }
                        Class::Odd | Class::Slash => {
                            self.odd = true;
                            self.state = State::Name;
                        }
                    }
                    *at += 1;
                }
                State::Name => {
                    let rest = &bytes[*at..];
                    let letters = rest.iter().take_while(|byte| CLASSES[usize::from(**byte)] == Class::Letter).count();
                    *at += letters;
                    let Some(&byte) = rest.get(letters) else { return Step::More };
                    match CLASSES[usize::from(byte)] {
                        Class::Colon => {
                            self.name_end = *at;
                            self.state = State::BeforeValue;
                        }
                        Class::Letter => {}
                        Class::Underscore => self.odd |= !dialect.underscores,
                        Class::Slash if dialect.answer && bytes[self.start..*at] == *b"HTTP" => {
                            self.state = State::Ignored;
                        }
                        Class::Odd | Class::Slash => self.odd = true,
                        Class::Cr => {
                            (self.name_end, self.value_start, self.value_end) = (*at, *at, *at);
                            self.state = State::LineEnd;
                        }
                        Class::Lf => {
                            (self.name_end, self.value_start, self.value_end) = (*at, *at, *at);
                            return self.complete(at, Step::Line);
                        }
                        Class::Control => {
                            self.value_end = *at;
                            return Step::Invalid;
                        }
                    }
                    *at += 1;
                }
                State::BeforeValue => match byte {
                    b' ' => *at += 1,
                    b'\0' => {
                        self.value_end = *at;
                        return Step::Invalid;
                    }
                    _ => {
                        self.value_start = *at;
                        self.state = State::Value;
                    }
                },
                State::Value => {
                    let Some(found) = memchr3(b'\r', b'\n', b'\0', &bytes[*at..]) else {
                        *at = bytes.len();
                        return Step::More;
                    };
                    *at += found;
                    self.value_end = *at;
                    if bytes[*at] == b'\0' {
                        return Step::Invalid;
                    }
                    // Only spaces are trimmed, not tabs; the first byte of a value is never a space.
                    while self.value_end > self.value_start && bytes[self.value_end - 1] == b' ' {
                        self.value_end -= 1;
                    }
                    if bytes[*at] == b'\n' {
                        return self.complete(at, Step::Line);
                    }
                    *at += 1;
                    self.state = State::LineEnd;
                }
                State::Ignored => match memchr(b'\n', &bytes[*at..]) {
                    None => {
                        *at = bytes.len();
                        return Step::More;
                    }
                    Some(found) => {
                        *at += found + 1;
                        self.state = State::Start;
                    }
                },
                State::LineEnd => match byte {
                    b'\n' => return self.complete(at, Step::Line),
                    b'\r' => *at += 1,
                    _ => return Step::Invalid,
                },
                State::HeadEnd if byte == b'\n' => return self.complete(at, Step::End),
                State::HeadEnd => return Step::Invalid,
            }
        }
    }

    fn complete(&mut self, at: &mut usize, step: Step) -> Step {
        *at += 1;
        self.state = State::Start;
        step
    }

    /// nginx's picture of a refused line: what was read of it, and the byte that was too much.
    pub(super) fn picture(&self, bytes: &[u8]) -> Vec<u8> {
        let mut text = bytes.get(self.start..self.value_end).unwrap_or_default().to_vec();
        let byte = bytes.get(self.value_end).copied().unwrap_or_default();
        text.extend_from_slice(format!("\\x{byte:02x}...").as_bytes());
        text
    }
}

/// Where the parts of one field stand in a head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    name: (u32, u32),
    value: (u32, u32),
}

impl Span {
    /// Of a complete line. A head is far smaller than 4 GB: the buffers it is read through are.
    pub(super) fn of(line: &FieldLine) -> Self {
        let narrow = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self {
            name: (narrow(line.start), narrow(line.name_end)),
            value: (narrow(line.value_start), narrow(line.value_end)),
        }
    }

    /// The name, within the bytes of the head.
    pub(super) fn name<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.name.0 as usize..self.name.1 as usize]
    }

    /// The value, within the bytes of the head.
    pub(super) fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.value.0 as usize..self.value.1 as usize]
    }

    /// As a field that shares the head's memory.
    pub(super) fn field(&self, head: &bytes::Bytes) -> super::Field {
        super::Field {
            name: super::fields::name(head, self.name.0 as usize, self.name.1 as usize),
            value: head.slice(self.value.0 as usize..self.value.1 as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Dialect = Dialect { underscores: false, answer: false };
    const ANSWERED: Dialect = Dialect { underscores: true, answer: true };

    /// Reads `text` in pieces that grow by `step` bytes; the lines as `name|value`, `!` behind an odd name, and the end.
    fn read(text: &str, step: usize, dialect: Dialect) -> (Vec<String>, Step) {
        let (mut line, mut at, mut lines) = (FieldLine::default(), 0, Vec::new());
        let mut visible = 0;
        loop {
            visible = (visible + step).min(text.len());
            loop {
                match line.read(&text.as_bytes()[..visible], &mut at, dialect) {
                    Step::Line => {
                        let (span, odd) = (Span::of(&line), if line.odd { "!" } else { "" });
                        let part = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                        let (name, value) = (part(span.name(text.as_bytes())), part(span.value(text.as_bytes())));
                        lines.push(format!("{name}{odd}|{value}"));
                    }
                    Step::More if visible < text.len() => break,
                    end => return (lines, end),
                }
            }
        }
    }

    #[test]
    fn lines_are_read_as_nginx_reads_them_however_they_arrive() {
        let cases: [(&str, Dialect, &[&str], Step); 17] = [
            ("Host: a\r\nX: y z  \r\n\r\n", ASKED, &["Host|a", "X|y z"], Step::End),
            ("Host:a\nX:\n\n", ASKED, &["Host|a", "X|"], Step::End),
            ("A:   \r\nB:\t1\t \r\n\r\n", ASKED, &["A|", "B|\t1\t"], Step::End),
            ("no colon here\r\n", ASKED, &[], Step::Invalid),
            ("nocolon\r\nb\n\r\n", ASKED, &["nocolon|", "b|"], Step::End),
            ("a_b: 1\r\n_c: 2\r\n\r\n", ASKED, &["a_b!|1", "_c!|2"], Step::End),
            ("a_b: 1\r\n\r\n", ANSWERED, &["a_b|1"], Step::End),
            ("a b: 1\r\n", ASKED, &[], Step::Invalid),
            (" a: 1\r\n", ASKED, &[], Step::Invalid),
            (": 1\r\n", ASKED, &[], Step::Invalid),
            ("a: \u{0}\r\n", ASKED, &[], Step::Invalid),
            ("a: b\u{0}\r\n", ASKED, &[], Step::Invalid),
            ("a: b\rc\r\n", ASKED, &[], Step::Invalid),
            ("a: b\r\r\r\n\r\n", ASKED, &["a|b"], Step::End),
            ("a\u{e9}@: 1\r\n\r\n", ASKED, &["a\u{e9}@!|1"], Step::End),
            ("HTTP/1.1 200 OK\r\na: b\r\n\r\n", ANSWERED, &["a|b"], Step::End),
            ("a: b\r\n\rx", ASKED, &["a|b"], Step::Invalid),
        ];
        for (text, dialect, lines, end) in cases {
            for step in 1..=text.len() {
                let (found, stopped) = read(text, step, dialect);
                assert_eq!((found.iter().map(String::as_str).collect::<Vec<_>>(), stopped), (lines.to_vec(), end));
            }
        }
    }

    #[test]
    fn a_refused_line_is_pictured_up_to_the_byte_that_was_too_much() {
        let picture = |text: &[u8]| {
            let (mut line, mut at) = (FieldLine::default(), 0);
            assert_eq!(line.read(text, &mut at, ASKED), Step::Invalid);
            String::from_utf8_lossy(&line.picture(text)).into_owned()
        };
        assert_eq!(picture(b"a b: 1\r\n"), "a\\x20...");
        assert_eq!(picture(b"\x01"), "\\x01...");
        assert_eq!(picture(b"a: b \rc"), "a: b\\x20...");
        assert_eq!(picture(b"a: b\0"), "a: b\\x00...");
    }
}
