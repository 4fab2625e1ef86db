//! Takes a page apart: texts, and the directives `<!--#command name="value" -->` between them.

use bytes::{Buf, Bytes};

/// How a directive begins.
const OPENING: &[u8] = b"<!--#";

/// The longest name of a command and of a parameter (`NGX_HTTP_SSI_COMMAND_LEN`, `NGX_HTTP_SSI_PARAM_LEN`).
const NAME: usize = 32;

/// More parameters than a command may have (`NGX_HTTP_SSI_MAX_PARAMS`): those behind are as good as these.
const PARAMETERS: usize = 17;

/// A piece of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    Text(Bytes),
    Directive(Directive),
    /// The end of what began as a directive and is none.
    Broken,
}

/// A directive as it was written: quotes are gone, backslashes are still there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directive {
    pub command: Vec<u8>,
    pub params: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Where in a page the parser is (`ngx_http_ssi_parse`). It holds back one directive at most.
#[derive(Debug)]
pub struct Parser {
    state: State,
    directive: Directive,
    /// The quote the value began with.
    quote: u8,
    /// `ssi_value_length`.
    longest: usize,
    complaint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    /// So many bytes of [`OPENING`] have come.
    Opening(usize),
    BeforeCommand,
    Command,
    BeforeName,
    Name,
    BeforeEqual,
    BeforeValue,
    Value,
    /// Behind a backslash.
    Escaped,
    AfterValue,
    /// Behind the first or the second dash of the end.
    End(u8),
    /// It is no directive; its end is waited for.
    Error,
    ErrorEnd(u8),
}

impl Parser {
    /// Before a page whose directives have values of so many bytes at most.
    pub fn new(longest: usize) -> Self {
        Self { state: State::Text, directive: Directive::default(), quote: b'"', longest, complaint: None }
    }

    /// What is wrong with the directive that is being read, once.
    pub fn complaint(&mut self) -> Option<String> {
        self.complaint.take()
    }

    /// The next token of what has come of the page; `None` when more has to come.
    pub fn next(&mut self, input: &mut Bytes) -> Option<Token> {
        while !input.is_empty() {
            match self.state {
                State::Text => {
                    let text = self.text(input);
                    if !text.is_empty() {
                        return Some(Token::Text(text));
                    }
                }
                State::Opening(come) => {
                    let common = common(&OPENING[come..], input);
                    input.advance(common);
                    if come + common == OPENING.len() {
                        self.begin();
                    } else if input.is_empty() {
                        self.state = State::Opening(come + common);
                    } else {
                        self.state = State::Text;
                        return Some(Token::Text(Bytes::from_static(&OPENING[..come + common])));
                    }
                }
                _ => {
                    if let Some(token) = self.directive(input) {
                        return Some(token);
                    }
                }
            }
        }
        None
    }

    fn begin(&mut self) {
        self.state = State::BeforeCommand;
        self.directive = Directive::default();
    }

    /// The text up to the next directive, or to what may become one.
    fn text(&mut self, input: &mut Bytes) -> Bytes {
        if let Some(at) = memchr::memmem::find(input, OPENING) {
            self.state = State::Opening(0);
            return input.split_to(at);
        }
        let begun = (1..OPENING.len()).rev().find(|length| input.ends_with(&OPENING[..*length]));
        let begun = begun.unwrap_or(0);
        let text = input.split_to(input.len() - begun);
        if begun > 0 {
            input.clear();
            self.state = State::Opening(begun);
        }
        text
    }

    /// Goes on in a directive, to its end or to that of what has come.
    fn directive(&mut self, input: &mut Bytes) -> Option<Token> {
        for at in 0..input.len() {
            let byte = input[at];
            if let Some(token) = self.byte(byte) {
                input.advance(at + 1);
                return Some(token);
            }
        }
        input.clear();
        None
    }

    fn byte(&mut self, byte: u8) -> Option<Token> {
        let blank = matches!(byte, b' ' | b'\r' | b'\n' | b'\t');
        self.state = match (self.state, byte) {
            (State::BeforeCommand | State::BeforeName | State::BeforeEqual | State::BeforeValue, _) if blank => {
                return None;
            }
            (State::BeforeCommand, _) => {
                self.directive.command.push(byte);
                State::Command
            }
            (State::Command | State::AfterValue, _) if blank => State::BeforeName,
            (State::Command | State::AfterValue | State::BeforeName, b'-') => State::End(1),
            (State::Command, _) if self.directive.command.len() == NAME => {
                let text = format!("the \"{}{}...\" SSI command is too long", self.command(), char::from(byte));
                self.error(text)
            }
            (State::Command, _) => {
                self.directive.command.push(byte);
                State::Command
            }
            (State::BeforeName, _) => {
                self.directive.params.truncate(PARAMETERS - 1);
                self.directive.params.push((vec![byte], Vec::new()));
                State::Name
            }
            (State::Name, _) if blank => State::BeforeEqual,
            (State::Name | State::BeforeEqual, b'=') => State::BeforeValue,
            (State::Name, b'-') | (State::BeforeEqual, _) => self.unexpected(byte, "after"),
            (State::Name, _) => self.name(byte),
            (State::BeforeValue, b'"' | b'\'') => {
                self.quote = byte;
                State::Value
            }
            (State::BeforeValue, _) => self.unexpected(byte, "before value of"),
            (State::Value, _) if byte == self.quote => State::AfterValue,
            (State::Value, b'\\') => self.value(byte, State::Escaped),
            (State::Value | State::Escaped, _) => self.value(byte, State::Value),
            (State::AfterValue, _) => {
                let (name, value) = self.parameter();
                let text = format!(
                    "unexpected \"{}\" symbol after \"{value}\" value of \"{name}\" parameter in \"{}\" SSI command",
                    char::from(byte),
                    self.command()
                );
                self.error(text)
            }
            (State::End(1), b'-') => State::End(2),
            (State::End(2), b'>') => {
                self.state = State::Text;
                return Some(Token::Directive(std::mem::take(&mut self.directive)));
            }
            (State::End(_), _) => {
                let text = format!("unexpected \"{}\" symbol in \"{}\" SSI command", char::from(byte), self.command());
                self.error(text)
            }
            (State::Error, b'-') => State::ErrorEnd(1),
            (State::ErrorEnd(1), b'-') => State::ErrorEnd(2),
            (State::ErrorEnd(2), b'>') => {
                self.state = State::Text;
                return Some(Token::Broken);
            }
            (State::Error | State::ErrorEnd(_) | State::Text | State::Opening(_), _) => State::Error,
        };
        None
    }

    fn name(&mut self, byte: u8) -> State {
        match self.directive.params.last_mut() {
            Some((name, _)) if name.len() < NAME => {
                name.push(byte);
                State::Name
            }
            _ => {
                let (name, _) = self.parameter();
                let byte = char::from(byte);
                let text = format!("too long \"{name}{byte}...\" parameter in \"{}\" SSI command", self.command());
                self.error(text)
            }
        }
    }

    fn value(&mut self, byte: u8, then: State) -> State {
        match self.directive.params.last_mut() {
            Some((_, value)) if value.len() < self.longest => {
                value.push(byte);
                then
            }
            _ => {
                let (name, value) = self.parameter();
                let (byte, command) = (char::from(byte), self.command());
                let text =
                    format!("too long \"{value}{byte}...\" value of \"{name}\" parameter in \"{command}\" SSI command");
                self.error(text)
            }
        }
    }

    fn unexpected(&mut self, byte: u8, place: &str) -> State {
        let (name, _) = self.parameter();
        let command = self.command();
        let text = format!(
            "unexpected \"{}\" symbol {place} \"{name}\" parameter in \"{command}\" SSI command",
            char::from(byte)
        );
        self.error(text);
        if byte == b'-' { State::ErrorEnd(1) } else { State::Error }
    }

    fn error(&mut self, text: String) -> State {
        self.complaint = Some(text);
        State::Error
    }

    fn command(&self) -> String {
        String::from_utf8_lossy(&self.directive.command).into_owned()
    }

    fn parameter(&self) -> (String, String) {
        let last = self.directive.params.last();
        last.map(|(name, value)| (text(name), text(value))).unwrap_or_default()
    }
}

impl Directive {
    /// The directive as text, with blanks and quotes of one kind.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(OPENING);
        out.extend_from_slice(&self.command);
        for (name, value) in &self.params {
            for part in [&b" "[..], name, b"=\"", value, b"\""] {
                out.extend_from_slice(part);
            }
        }
        out.extend_from_slice(b" -->");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How many bytes two texts begin with in common.
fn common(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a page is made of, however it is cut: texts as they are, directives as `{command name=value}`, `!` where
    /// there is a broken one, followed by what is wrong with it.
    fn tokens(page: &str) -> String {
        let mut whole = None;
        for step in 1..=page.len() {
            let mut parser = Parser::new(20);
            let mut out = String::new();
            for piece in page.as_bytes().chunks(step) {
                let mut input = Bytes::copy_from_slice(piece);
                while let Some(token) = parser.next(&mut input) {
                    match token {
                        Token::Text(text) => out.push_str(&String::from_utf8_lossy(&text)),
                        Token::Broken => out.push_str(&format!("!{}!", parser.complaint().unwrap())),
                        Token::Directive(directive) => {
                            let params =
                                directive.params.iter().map(|(name, value)| format!(" {}={}", text(name), text(value)));
                            let params: String = params.collect();
                            out.push_str(&format!("{{{}{params}}}", text(&directive.command)));
                        }
                    }
                }
            }
            assert_eq!(*whole.get_or_insert(out.clone()), out, "{page} in pieces of {step}");
        }
        whole.unwrap()
    }

    #[test]
    fn a_page_is_texts_and_directives_wherever_it_is_cut() {
        for (page, expected) in [
            ("text", "text"),
            ("a<!--#echo var=\"b\" -->c", "a{echo var=b}c"),
            ("<!--#echo var='b'--><!--#endif-->", "{echo var=b}{endif}"),
            ("<!--#\r\n\techo\n var = \"b\"  default='' -->", "{echo var=b default=}"),
            ("<!--#set var=\"a\" value=\"it's \\\"b\\\"\" -->", "{set var=a value=it's \\\"b\\\"}"),
            ("<!- <!-- x --> <!---#a --> <<!--#a --> < <!", "<!- <!-- x --> <!---#a --> <{a} < "),
            ("<<!<!-<!--<!--#a--><!--", "<<!<!-<!--{a}"),
            ("a<!--#echo var=\"b\"", "a"),
            ("a<!--#echo -", "a"),
        ] {
            assert_eq!(tokens(page), expected, "{page}");
        }
    }

    #[test]
    fn what_is_no_directive_is_told_and_left_out() {
        for (page, complaint) in [
            ("<!--#-->-->", "unexpected \">\" symbol in \"-\" SSI command"),
            ("<!--#a b-->", "unexpected \"-\" symbol after \"b\" parameter in \"a\" SSI command"),
            ("<!--#a b c-->", "unexpected \"c\" symbol after \"b\" parameter in \"a\" SSI command"),
            ("<!--#a b -->", "unexpected \"-\" symbol after \"b\" parameter in \"a\" SSI command"),
            ("<!--#a b=c -->", "unexpected \"c\" symbol before value of \"b\" parameter in \"a\" SSI command"),
            ("<!--#a b=-->", "unexpected \"-\" symbol before value of \"b\" parameter in \"a\" SSI command"),
            ("<!--#a b='c'd -->", "unexpected \"d\" symbol after \"c\" value of \"b\" parameter in \"a\" SSI command"),
            ("<!--#a -b-->", "unexpected \"b\" symbol in \"a\" SSI command"),
            ("<!--#a --b-->", "unexpected \"b\" symbol in \"a\" SSI command"),
            (
                "<!--#a b='123456789012345678901'-->",
                "too long \"123456789012345678901...\" value of \"b\" parameter in \"a\" SSI command",
            ),
            (
                "<!--#a b='1234567890123456789\\\\'-->",
                "too long \"1234567890123456789\\\\...\" value of \"b\" parameter in \"a\" SSI command",
            ),
            (
                "<!--#123456789012345678901234567890123 -->",
                "the \"123456789012345678901234567890123...\" SSI command is too long",
            ),
            (
                "<!--#a 123456789012345678901234567890123='' -->",
                "too long \"123456789012345678901234567890123...\" parameter in \"a\" SSI command",
            ),
        ] {
            assert_eq!(tokens(&format!("x{page}y")), format!("x!{complaint}!y"), "{page}");
        }
    }

    #[test]
    fn a_directive_can_be_written_again() {
        let mut input = Bytes::from_static(b"<!--#set  var='a' value=\"b\"-->");
        let Some(Token::Directive(directive)) = Parser::new(9).next(&mut input) else { panic!("a directive") };
        let mut out = Vec::new();
        directive.write(&mut out);
        assert_eq!(out, b"<!--#set var=\"a\" value=\"b\" -->");
    }
}
