//! A walk over the records of an answer (`ngx_http_fastcgi_process_record`, `…_input_filter`).

use super::{END_REQUEST, STDERR, STDOUT, VERSION};
use bytes::Bytes;
use std::collections::VecDeque;

/// A place within the records of an answer. It holds no bytes but of what the application says to its error stream.
#[derive(Debug, Default)]
pub struct Records {
    state: State,
    kind: u8,
    /// Content that is yet to come of this record.
    left: u16,
    /// Padding that is yet to come of this record.
    padding: u8,
    payload: u64,
    /// All bytes.
    raw: u64,
    /// Where among all bytes the first of the output stands.
    first: Option<u64>,
    /// Where stretches of output begin, in output and in all bytes, of what was looked at last.
    runs: Vec<(u64, u64)>,
    said: Vec<u8>,
    events: VecDeque<Event>,
    /// The record that ends the request is complete, and nothing came behind it.
    pub ended: bool,
    /// Something came behind it.
    pub more: bool,
    /// Nothing can be made of what comes.
    pub fault: Option<Fault>,
}

/// Something that happened between two bytes of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// How much of the output came before it.
    pub at: u64,
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Something was said to the error stream.
    Said(Bytes),
    /// An empty record has closed the output.
    Closed,
    /// The record that ends the request has begun.
    Ending,
}

/// Why records cannot be read. The texts are nginx's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("upstream sent unsupported FastCGI protocol version: {0}")]
    Version(u8),
    #[error("upstream sent invalid FastCGI record type: {0}")]
    Type(u8),
    #[error("upstream sent unexpected FastCGI request id high byte: {0}")]
    IdHigh(u8),
    #[error("upstream sent unexpected FastCGI request id low byte: {0}")]
    IdLow(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of a header have been seen.
    Header(u8),
    Content,
    Padding,
}

impl Default for State {
    fn default() -> Self {
        Self::Header(0)
    }
}

impl Records {
    /// Walks over the next bytes and takes out, in place, everything but output: the first so many bytes.
    pub fn unwrap(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut kept) = (0, 0);
        let before = self.raw;
        self.runs.clear();
        while at < bytes.len() {
            if self.ended {
                (self.ended, self.more) = (false, true);
            }
            if self.more || self.fault.is_some() {
                break;
            }
            let here = bytes.len() - at;
            match self.state {
                State::Header(seen) => {
                    self.header(seen, bytes[at]);
                    at += 1;
                }
                State::Content => {
                    let n = here.min(usize::from(self.left));
                    match self.kind {
                        STDOUT => {
                            let raw = before + at as u64;
                            self.runs.push((self.payload, raw));
                            self.first.get_or_insert(raw);
                            bytes.copy_within(at..at + n, kept);
                            kept += n;
                            self.payload += n as u64;
                        }
                        STDERR => self.said.extend_from_slice(&bytes[at..at + n]),
                        _ => {}
                    }
                    at += n;
                    self.left -= n as u16;
                    self.settle();
                }
                State::Padding => {
                    let n = here.min(usize::from(self.padding));
                    at += n;
                    self.padding -= n as u8;
                    self.settle();
                }
            }
        }
        self.raw = before + bytes.len() as u64;
        kept
    }

    /// How many of all bytes there were when there was so much output: more than none, and the last of it in what was
    /// looked at last.
    pub fn raw_at(&self, payload: u64) -> u64 {
        let run = self.runs.iter().rfind(|(start, _)| *start < payload);
        run.map_or(self.raw, |(start, raw)| raw + (payload - start))
    }

    /// One byte of a record's header.
    fn header(&mut self, seen: u8, byte: u8) {
        match (seen, byte) {
            (0, version) if version != VERSION => self.fault = Some(Fault::Version(version)),
            (1, kind @ (STDOUT | STDERR | END_REQUEST)) => self.kind = kind,
            (1, kind) => self.fault = Some(Fault::Type(kind)),
            (2, id) if id != 0 => self.fault = Some(Fault::IdHigh(id)),
            (3, id) if id != 1 => self.fault = Some(Fault::IdLow(id)),
            (4, high) => self.left = u16::from(high) << 8,
            (5, low) => self.left |= u16::from(low),
            (6, padding) => self.padding = padding,
            _ => {}
        }
        if seen < 7 {
            self.state = State::Header(seen + 1);
            return;
        }
        self.state = State::Content;
        match self.kind {
            STDOUT if self.left == 0 => self.note(What::Closed),
            END_REQUEST => self.note(What::Ending),
            _ => {}
        }
        self.settle();
    }

    /// Goes on to what comes next in a record, or to the next record.
    fn settle(&mut self) {
        if self.state == State::Content && self.left == 0 {
            if self.kind == STDERR {
                self.say();
            }
            self.state = State::Padding;
        }
        if self.state == State::Padding && self.padding == 0 {
            self.state = State::Header(0);
            self.ended = self.kind == END_REQUEST;
        }
    }

    /// What was said so far becomes a line, without the ends of lines and sentences behind it.
    fn say(&mut self) {
        let said = std::mem::take(&mut self.said);
        if !said.is_empty() {
            let end = said.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | b'.' | b' ')).unwrap_or(0);
            self.note(What::Said(said[..=end].to_vec().into()));
        }
    }

    fn note(&mut self, what: What) {
        self.events.push_back(Event { at: self.payload, what });
    }

    /// How many of all bytes there were since the output began.
    pub fn since_first(&self) -> u64 {
        self.first.map_or(0, |first| self.raw - first)
    }

    /// How much output there was.
    pub fn payload(&self) -> u64 {
        self.payload
    }

    /// The connection has ended: what was being said is all there is of it.
    pub fn cut_off(&mut self) {
        self.say();
    }

    /// The first of what happened and was not taken.
    pub fn event(&self) -> Option<&Event> {
        self.events.front()
    }

    /// Takes it.
    pub fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Takes all that is left of what was said.
    pub fn take_said(&mut self) -> impl Iterator<Item = Bytes> {
        self.events.drain(..).filter_map(|event| match event.what {
            What::Said(text) => Some(text),
            What::Closed | What::Ending => None,
        })
    }
}

#[cfg(test)]
pub(in super::super) fn record(kind: u8, content: &[u8], padding: u8) -> Vec<u8> {
    let head = super::header(kind, content.len() as u16, padding);
    [&head, content, &vec![b'#'; usize::from(padding)][..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The output, what was said, and how it ended, of bytes that arrive in pieces of `step`.
    fn walk(bytes: &[u8], step: usize) -> (Vec<u8>, Vec<(u64, String)>, String) {
        let (mut records, mut out) = (Records::default(), Vec::new());
        for piece in bytes.chunks(step) {
            let mut piece = piece.to_vec();
            let kept = records.unwrap(&mut piece);
            out.extend_from_slice(&piece[..kept]);
        }
        assert_eq!(records.payload(), out.len() as u64);
        let happened = |what: What| records.events.iter().any(|event| event.what == what);
        let end = match &records {
            Records { fault: Some(fault), .. } => fault.to_string(),
            Records { more: true, .. } => "more".into(),
            Records { ended: true, .. } => "ended".into(),
            _ if happened(What::Ending) => "ending".into(),
            _ if happened(What::Closed) => "closed".into(),
            _ => "open".into(),
        };
        let text = |event: &Event| match &event.what {
            What::Said(text) => Some((event.at, String::from_utf8_lossy(text).into_owned())),
            What::Closed | What::Ending => None,
        };
        (out, records.events.iter().filter_map(text).collect(), end)
    }

    #[test]
    fn output_is_taken_out_of_its_records_wherever_they_are_cut() {
        let answer = [
            record(STDERR, b"PHP warning: x.\r\n", 3),
            record(STDOUT, b"hello", 255),
            record(STDERR, b"", 0),
            record(STDERR, b". \n", 0),
            record(STDOUT, b" world", 0),
            record(STDOUT, b"", 4),
        ]
        .concat();
        let said = [(0, "PHP warning: x".to_owned()), (5, ".".to_owned())];
        let end = record(END_REQUEST, &[0; 8], 5);
        let cases = [
            (Vec::new(), "closed"),
            (end[..8].to_vec(), "ending"),
            (end[..20].to_vec(), "ending"),
            (end.clone(), "ended"),
            ([&end[..], b"x"].concat(), "more"),
            (b"\x02".to_vec(), "upstream sent unsupported FastCGI protocol version: 2"),
            (b"\x01\x05".to_vec(), "upstream sent invalid FastCGI record type: 5"),
            (b"\x01\x06\x09".to_vec(), "upstream sent unexpected FastCGI request id high byte: 9"),
            (b"\x01\x06\x00\x02".to_vec(), "upstream sent unexpected FastCGI request id low byte: 2"),
        ];
        for (rest, expected) in cases {
            let bytes = [&answer[..], &rest].concat();
            for step in 1..=bytes.len() {
                let found = walk(&bytes, step);
                assert_eq!(found, (b"hello world".to_vec(), said.to_vec(), expected.to_owned()), "by {step}");
            }
        }
    }

    #[test]
    fn what_was_being_said_when_the_connection_broke_is_told() {
        let mut records = Records::default();
        records.unwrap(&mut record(STDERR, b"half a word", 0)[..12]);
        assert_eq!(records.event(), None);
        records.cut_off();
        assert_eq!(records.take_said().collect::<Vec<_>>(), [&b"half"[..]]);
    }

    proptest! {
        #[test]
        fn any_bytes_mean_the_same_however_they_are_cut(bytes in any::<Vec<u8>>(), step in 1_usize..9) {
            prop_assert_eq!(walk(&bytes, step), walk(&bytes, bytes.len().max(1)));
        }
    }
}
