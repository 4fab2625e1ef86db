//! Words to statements: what nginx's reader makes of a text, and every place where it would have stopped.

mod token;

#[cfg(test)]
mod tests;

use super::{Block, Fault, Line, Span, Statement, Word};
use token::{Token, is_space};

/// How deep blocks may stand within one another. nginx has no such bound, but no meaning either for
/// anything nearly as deep; here it keeps every later walk over the blocks within its stack.
pub const MAX_DEPTH: usize = 128;

/// The size of nginx's read buffer (`NGX_CONF_BUFFER`): what it holds on to at once, a word or a
/// comment, must fit in.
const BUFFER: usize = 4096;

/// The statements of a file, as nginx reads them (`ngx_conf_parse`, `ngx_conf_read_token`).
///
/// Never gives up: what is wrong is added to `faults` and reading goes on behind it. A statement with
/// a fault inside is left out of the result, so that nothing is said about it twice.
///
/// Every fault names the line nginx names: the one its reader is on when it finds the fault.
pub fn parse(file: u32, text: &[u8], faults: &mut Vec<Fault>) -> Block {
    Reader::new(file, text, false, faults).read()
}

/// The statements of a `-g` option (`ngx_conf_param`): no blocks, words of any length.
pub fn parse_globals(file: u32, text: &[u8], faults: &mut Vec<Fault>) -> Block {
    Reader::new(file, text, true, faults).read()
}

/// Where the reader is, and what it has not finished yet.
struct Reader<'a> {
    file: u32,
    text: &'a [u8],
    globals: bool,
    faults: &'a mut Vec<Fault>,
    /// The words of the statement being read.
    words: Vec<Word>,
    /// Something is wrong with the statement being read.
    faulty: bool,
    /// The string that ended right here, which only some characters may follow.
    string: Option<Span>,
    /// The quote of the string that is still open at the end of the text.
    unclosed: Option<Span>,
    /// The statements of the block being read.
    statements: Vec<Statement>,
    /// The blocks around it, outermost first.
    open: Vec<Open>,
    /// The first block whose `}` stands at another depth of indentation than its beginning.
    suspect: Option<Span>,
}

/// A block that was opened and not closed yet.
struct Open {
    name: Word,
    args: Vec<Word>,
    end: Span,
    faulty: bool,
    /// The statements before it, in the block around it.
    before: Vec<Statement>,
}

impl<'a> Reader<'a> {
    fn new(file: u32, text: &'a [u8], globals: bool, faults: &'a mut Vec<Fault>) -> Self {
        Self {
            file,
            // Spans count in 32 bits.
            text: &text[..text.len().min(u32::MAX as usize)],
            globals,
            faults,
            words: Vec::new(),
            faulty: false,
            string: None,
            unclosed: None,
            statements: Vec::new(),
            open: Vec::new(),
            suspect: None,
        }
    }

    fn read(mut self) -> Block {
        let mut rest = self.text;
        while let Ok((after, token)) = token::token(rest) {
            let span = self.span(self.text.len() - rest.len(), self.text.len() - after.len());
            rest = after;
            self.check_what_follows_a_string(&token, span);
            let too_long = self.check_length(&token, span);
            match token {
                Token::Space | Token::Comment => {}
                Token::Bare(raw) => self.words.push(Word { value: token::unescape(raw), span }),
                Token::Quoted(raw) => {
                    self.words.push(Word { value: token::unescape(raw), span });
                    self.string = Some(span);
                }
                // The fault about its length says it all.
                Token::Unclosed if too_long => return self.finish(),
                Token::Unclosed => {
                    let quote = Span { end: span.start + 1, ..span };
                    self.words.push(Word { value: Vec::new(), span: quote });
                    self.unclosed = Some(quote);
                }
                Token::Semicolon => self.semicolon(span),
                Token::Open => self.open(span),
                Token::Close => self.close(span),
            }
        }
        self.end()
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span { file: self.file, start: start as u32, end: end as u32 }
    }

    fn fault(&mut self, fault: Fault) {
        self.faulty |= !self.words.is_empty();
        self.faults.push(fault);
    }

    /// Ends the statement being read; `None` if it has no words or is not to be handed on.
    fn take_statement(&mut self, end: Span) -> Option<Statement> {
        let mut words = std::mem::take(&mut self.words).into_iter();
        let faulty = std::mem::take(&mut self.faulty);
        let name = words.next()?;
        (!faulty).then(|| Statement { name, args: words.collect(), block: None, end })
    }

    /// nginx's `need_space`: a string ends its word, and only some characters may stand behind it.
    fn check_what_follows_a_string(&mut self, token: &Token, span: Span) {
        let Some(string) = self.string.take() else { return };
        let first = self.text[span.start as usize];
        // A `}` is no better here, but it is so after any word.
        let fine = matches!(token, Token::Space | Token::Semicolon | Token::Open | Token::Close) || first == b')';
        if !fine {
            let place = Span { end: span.start + 1, ..span };
            self.fault(
                Fault::at(place, [b"unexpected \"", &[first][..], b"\""].concat())
                    .also(string, "this string ends right before it")
                    .help("put a space behind the string, or a backslash before each quote that belongs to it"),
            );
        }
    }

    /// What nginx holds on to while it reads a word or a comment must fit in its buffer: all of it and what
    /// it looks at before it lets go.
    fn check_length(&mut self, token: &Token, span: Span) -> bool {
        let (start, end) = (span.start as usize, span.end as usize);
        let next_is_space = self.text.get(end).is_some_and(|byte| is_space(*byte));
        let (from, to) = match token {
            Token::Comment => (start, end + 1),
            Token::Bare(_) => (start, end + 1 + usize::from(next_is_space)),
            Token::Quoted(_) => (start + 1, end + 1 + usize::from(next_is_space)),
            Token::Unclosed => (start + 1, end),
            _ => return false,
        };
        let full = from + BUFFER;
        if self.globals || full >= to.min(self.text.len()) {
            return false;
        }
        let line = memchr::memchr(b'\n', &self.text[from..full]).unwrap_or(BUFFER);
        let place = self.span(start, from + line.min(60));
        let inside_quotes = matches!(token, Token::Quoted(_) | Token::Unclosed) && full < end;
        self.faulty |= !matches!(token, Token::Comment) || !self.words.is_empty();
        self.faults.push(if inside_quotes {
            let quote = self.text[start] as char;
            Fault::at(place, format!("too long parameter, probably missing terminating \"{quote}\" character"))
                .help("the string that begins here does not end within 4096 bytes")
        } else {
            Fault::at(place, [b"too long parameter \"", &self.text[from..from + 10], b"...\" started"].concat())
                .help("a word or a comment may be no longer than 4095 bytes")
        });
        true
    }

    fn semicolon(&mut self, span: Span) {
        if self.words.is_empty() {
            self.fault(Fault::at(span, "unexpected \";\""));
        }
        let statement = self.take_statement(span);
        self.statements.extend(statement);
    }

    fn open(&mut self, span: Span) {
        if self.words.is_empty() {
            self.fault(
                Fault::at(span, "unexpected \"{\"")
                    .help("the name of the block is missing, or there is a `;` before the `{`"),
            );
        } else if self.globals {
            self.fault(Fault::at(span, "block directives are not supported in -g option"));
        } else if self.open.len() == MAX_DEPTH {
            self.fault(Fault::at(span, too_deep()));
        }
        let faulty = self.faulty || self.words.is_empty() || self.open.len() >= MAX_DEPTH;
        self.faulty = false;
        let mut words = std::mem::take(&mut self.words).into_iter();
        let name = words.next().unwrap_or(Word { value: Vec::new(), span });
        let before = std::mem::take(&mut self.statements);
        self.open.push(Open { name, args: words.collect(), end: span, faulty, before });
    }

    fn close(&mut self, span: Span) {
        if let (Some(first), Some(last)) = (self.words.first(), self.words.last()) {
            let unfinished = Span { end: last.span.end, ..first.span };
            self.fault(
                Fault::at(span, "unexpected \"}\"")
                    .also(unfinished, "this directive is not finished")
                    .help("put a `;` behind the directive"),
            );
            self.words.clear();
            self.faulty = false;
        } else if self.open.is_empty() {
            self.fault(Fault::at(span, "unexpected \"}\"").help("there is no open block that it could close"));
        }
        if let Some(block) = self.open.last() {
            let begins = indentation(self.text, block.name.span.start);
            let ends = indentation(self.text, span.start);
            if begins.is_some() && ends.is_some() && begins != ends {
                self.suspect.get_or_insert(block.end);
            }
        }
        self.close_block(span);
    }

    fn close_block(&mut self, close: Span) {
        let Some(Open { name, args, end, faulty, before }) = self.open.pop() else { return };
        let statements = std::mem::replace(&mut self.statements, before);
        if !faulty {
            self.statements.push(Statement { name, args, block: Some(Block { statements, close }), end });
        }
    }

    /// The end of the text, which closes nothing.
    fn end(self) -> Block {
        if let (Some(first), Some(last)) = (self.words.first(), self.words.last()) {
            let unfinished = Span { end: last.span.end, ..first.span };
            let message = if self.globals {
                "unexpected end of parameter, expecting \";\""
            } else {
                "unexpected end of file, expecting \";\" or \"}\""
            };
            let fault = self.at_end(message);
            self.faults.push(match self.unclosed {
                Some(string) => fault.also(string, "the string that begins here has no end"),
                None => fault.also(unfinished, "this directive is not finished"),
            });
        } else if let (Some(block), false) = (self.open.last(), self.globals) {
            let fault = self.at_end("unexpected end of file, expecting \"}\"");
            self.faults.push(match self.suspect {
                Some(suspect) => fault.also(suspect, "the `}` of this block may be the one that is missing"),
                None => fault.also(block.end, "this block is not closed"),
            });
        }
        self.finish()
    }

    /// A fault found at the end of the text: nginx names its last line, which may be empty; the picture
    /// shows the last line with something on it.
    fn at_end(&self, message: &str) -> Fault {
        let end = self.span(self.text.len(), self.text.len());
        let shown = self.text.trim_ascii_end().len();
        Fault { line: Line::Of(end), ..Fault::at(self.span(shown.saturating_sub(1), shown), message) }
    }

    fn finish(mut self) -> Block {
        let end = self.span(self.text.len(), self.text.len());
        while !self.open.is_empty() {
            self.close_block(end);
        }
        Block { statements: self.statements, close: end }
    }
}

/// What is said where blocks stand deeper than [`MAX_DEPTH`].
pub(super) fn too_deep() -> String {
    format!("blocks are nested too deeply, more than {MAX_DEPTH} levels")
}

/// How far a place is indented, in bytes, if it is the first on its line.
fn indentation(text: &[u8], at: u32) -> Option<usize> {
    let before = &text[..at as usize];
    let indented = before.iter().rev().take_while(|byte| is_space(**byte) && **byte != b'\n').count();
    matches!(before[..before.len() - indented], [] | [.., b'\n']).then_some(indented)
}
