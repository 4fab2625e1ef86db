//! The head of a FastCGI answer: fields as CGI's, in the output records (`ngx_http_fastcgi_process_header`).

use super::{END_REQUEST, Records, What};
use crate::http::heads::{
    HeadError, ResponseHead,
    response::{Progress, cgi::CgiParser},
};
use bytes::{Bytes, BytesMut};
use memchr::memmem;

/// How an answer is read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The application was asked to leave the connection open (`fastcgi_keep_conn`).
    pub keep: bool,
    /// What it must not say to its error stream before it answers (`fastcgi_catch_stderr`).
    pub catch: Vec<Bytes>,
}

/// A head under way. The bytes it has seen have lost their framing.
#[derive(Debug)]
pub struct FastCgiHead {
    parser: CgiParser,
    records: Records,
    reading: Reading,
    /// Of the bytes it was shown, the first so many are output.
    decoded: usize,
    /// Where among all bytes the head ends.
    end: u64,
    /// What was said to the error stream, and not told yet.
    said: Vec<Bytes>,
}

impl FastCgiHead {
    pub fn new(reading: Reading) -> Self {
        let (parser, records) = (CgiParser::fields_only(), Records::default());
        Self { parser, records, reading, decoded: 0, end: 0, said: Vec::new() }
    }

    /// Reads on: new bytes stand behind those that were left. Their framing is taken out.
    ///
    /// # Errors
    /// What is wrong with the records or the head.
    pub fn parse(&mut self, rest: &mut BytesMut, size: usize) -> Result<Progress, HeadError> {
        let kept = self.records.unwrap(&mut rest[self.decoded..]);
        self.decoded += kept;
        rest.truncate(self.decoded);
        // What happens counts if it does before the head is complete, or wrong.
        while let Some(event) = self.records.event() {
            let at = usize::try_from(event.at).unwrap_or(usize::MAX).min(rest.len());
            if let Progress::Complete(n) = self.parser.parse(&rest[..at], at + 1)? {
                return Ok(self.complete(n));
            }
            match self.records.take_event().map(|event| event.what) {
                Some(What::Said(text)) => {
                    let caught = self.reading.catch.iter().any(|pattern| memmem::find(&text, pattern).is_some());
                    self.said.push(text);
                    if caught {
                        return Err(HeadError::Caught);
                    }
                }
                Some(What::Closed) => return Err(invalid("upstream prematurely closed FastCGI stdout".into())),
                Some(What::Ending) => {
                    return Err(invalid(format!("upstream sent unexpected FastCGI record: {END_REQUEST}")));
                }
                None => {}
            }
        }
        if let Progress::Complete(n) = self.parser.parse(rest, rest.len() + 1)? {
            return Ok(self.complete(n));
        }
        match self.records.fault {
            Some(fault) => Err(invalid(fault.to_string())),
            None if self.raw() >= size => Err(HeadError::TooBig),
            None => Ok(Progress::Partial),
        }
    }

    fn complete(&mut self, n: usize) -> Progress {
        self.end = self.records.raw_at(n as u64);
        Progress::Complete(n)
    }

    /// Bytes as they came, which have to fit into `fastcgi_buffer_size`: however much is said before the head, it takes no
    /// room.
    fn raw(&self) -> usize {
        usize::try_from(self.records.since_first()).unwrap_or(usize::MAX)
    }

    /// How much may still come of a head that must fit into `size` bytes.
    pub fn room(&self, size: usize) -> usize {
        size.saturating_sub(self.raw()).max(1)
    }

    /// The head, of the bytes that were complete and are no longer among those that are left.
    pub fn finish(&mut self, bytes: Bytes) -> ResponseHead {
        self.decoded -= bytes.len();
        // Whether the connection lives on is not for fields to say.
        let length = usize::try_from(self.end).unwrap_or(usize::MAX);
        ResponseHead { close: false, length, ..self.parser.finish(bytes) }
    }

    /// What is needed to read on behind the head: the place in the records, and how many of the bytes that are left are
    /// output already.
    pub fn into_body(self) -> (Records, usize, bool) {
        (self.records, self.decoded, self.reading.keep)
    }

    /// Takes what was said to the error stream. When the connection has ended, what was being said, too.
    pub fn said(&mut self, ended: bool) -> Vec<Bytes> {
        if ended {
            self.records.cut_off();
            self.said.extend(self.records.take_said());
        }
        std::mem::take(&mut self.said)
    }
}

#[cold]
fn invalid(text: String) -> HeadError {
    HeadError::Invalid(text.into())
}
