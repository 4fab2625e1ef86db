//! Walks over a body in the chunked coding by nginx's rules (`ngx_http_parse_chunked`): where it ends, what is payload,
//! and what is refused. RFC 9112, section 7.1.

/// The largest size nginx can hold (`NGX_MAX_OFF_T_VALUE`).
const MAX: u64 = i64::MAX as u64;

/// What a walk over some bytes found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The body ended behind this many of the bytes.
    Done(usize),
    /// All bytes belong to the body, and it goes on.
    More,
    /// nginx answers 400: `client sent invalid chunked body`.
    Invalid,
}

/// What is left of bytes when everything but payload is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwrapped {
    /// The payload is the first `kept` ones.
    pub kept: usize,
    /// How the walk ended.
    pub scan: Scan,
}

/// A place within a chunked body. It holds no bytes.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    state: State,
    /// What is left of the chunk; while its size is being read, the size so far.
    size: u64,
    payload: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    Size,
    Extension,
    ExtensionEnd,
    Data,
    DataEnd,
    DataEndLf,
    LastExtension,
    LastExtensionEnd,
    Trailer,
    End,
    TrailerField,
    TrailerFieldEnd,
}

impl Scanner {
    /// Walks over the next bytes and takes out, in place, everything but payload. The lines of trailer fields are added to
    /// `trailers`, if they are wanted.
    pub fn unwrap(&mut self, bytes: &mut [u8], mut trailers: Option<&mut Vec<u8>>) -> Unwrapped {
        let (mut at, mut kept) = (0, 0);
        let mut scan = Scan::More;
        while at < bytes.len() {
            if self.state == State::Data {
                let n = self.take(bytes.len() - at);
                if kept != at {
                    bytes.copy_within(at..at + n, kept);
                }
                at += n;
                kept += n;
                continue;
            }
            let byte = bytes[at];
            at += 1;
            let trailer = matches!(self.state, State::Trailer | State::TrailerField | State::TrailerFieldEnd);
            match self.step(byte) {
                Step::Drop => {
                    if let Some(trailers) = trailers.as_mut().filter(|_| trailer) {
                        trailers.push(byte);
                    }
                }
                Step::Invalid => {
                    scan = Scan::Invalid;
                    break;
                }
                Step::Frame => {}
                Step::Done => {
                    scan = Scan::Done(at);
                    break;
                }
            }
        }
        Unwrapped { kept, scan }
    }

    /// Walks over what stands in front of the next payload, and says how much that is. It stops in front of what ends
    /// the body, and of what is invalid: [`Scanner::unwrap`] tells.
    pub fn lead(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Data {
            // Neither of the two takes a step.
            if matches!(self.step(bytes[at]), Step::Done | Step::Invalid) {
                break;
            }
            at += 1;
        }
        at
    }

    /// Bytes of payload seen so far.
    pub fn payload(&self) -> u64 {
        self.payload
    }

    /// Takes up to `n` bytes of payload.
    fn take(&mut self, n: usize) -> usize {
        let n = usize::try_from(self.size).map_or(n, |left| left.min(n));
        self.size -= n as u64;
        self.payload += n as u64;
        if self.size == 0 {
            self.state = State::DataEnd;
        }
        n
    }

    /// One byte that is not payload.
    fn step(&mut self, byte: u8) -> Step {
        use State as S;
        let (next, step) = match (self.state, byte) {
            (S::Start, _) => match digit(byte) {
                Some(digit) => {
                    self.size = digit;
                    (S::Size, Step::Frame)
                }
                None => return Step::Invalid,
            },
            (S::Size, _) if self.size > MAX / 16 => return Step::Invalid,
            (S::Size, b'\r') if self.size == 0 => (S::LastExtensionEnd, Step::Frame),
            (S::Size, b'\r') => (S::ExtensionEnd, Step::Frame),
            (S::Size, b';' | b' ' | b'\t') if self.size == 0 => (S::LastExtension, Step::Drop),
            (S::Size, b';' | b' ' | b'\t') => (S::Extension, Step::Drop),
            (S::Size, _) => match digit(byte) {
                Some(digit) => {
                    self.size = self.size * 16 + digit;
                    (S::Size, Step::Frame)
                }
                None => return Step::Invalid,
            },
            (S::Extension, b'\r') => (S::ExtensionEnd, Step::Frame),
            (S::LastExtension, b'\r') => (S::LastExtensionEnd, Step::Frame),
            (S::Extension | S::LastExtension, b'\n') => return Step::Invalid,
            (S::Extension | S::LastExtension, _) => (self.state, Step::Drop),
            (S::ExtensionEnd, b'\n') => (S::Data, Step::Frame),
            (S::DataEnd, b'\r') => (S::DataEndLf, Step::Frame),
            (S::DataEndLf, b'\n') => (S::Start, Step::Frame),
            (S::LastExtensionEnd, b'\n') => (S::Trailer, Step::Frame),
            (S::Trailer, b'\r') => (S::End, Step::Frame),
            (S::End, b'\n') => return Step::Done,
            (S::Trailer | S::TrailerField, b'\n') => return Step::Invalid,
            (S::TrailerField, b'\r') => (S::TrailerFieldEnd, Step::Drop),
            (S::Trailer | S::TrailerField, _) => (S::TrailerField, Step::Drop),
            (S::TrailerFieldEnd, b'\n') => (S::Trailer, Step::Drop),
            _ => return Step::Invalid,
        };
        self.state = next;
        step
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Frame,
    /// Of an extension or of a trailer field.
    Drop,
    Done,
    Invalid,
}

fn digit(byte: u8) -> Option<u64> {
    (byte as char).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans in pieces of `step` bytes.
    fn scan(body: &[u8], step: usize) -> (Scan, u64) {
        let mut scanner = Scanner::default();
        let mut before = 0;
        for piece in body.chunks(step) {
            match scanner.unwrap(&mut piece.to_vec(), None).scan {
                Scan::More => before += piece.len(),
                Scan::Done(n) => return (Scan::Done(before + n), scanner.payload()),
                Scan::Invalid => return (Scan::Invalid, scanner.payload()),
            }
        }
        (Scan::More, scanner.payload())
    }

    #[test]
    fn the_end_is_found_however_the_bytes_arrive() {
        let bodies: [(&[u8], Scan, u64); 9] = [
            (b"0\r\n\r\nGET", Scan::Done(5), 0),
            (b"3\r\nabc\r\n0\r\n\r\n", Scan::Done(13), 3),
            (b"A\r\n0123456789\r\nb;x=y\r\n01234567890\r\n000\r\n\r\nrest", Scan::Done(42), 21),
            (b"3 \t anything\r\nabc\r\n0;\r\n\r\n", Scan::Done(25), 3),
            (b"0\r\nTrailer: x\r\nOther: y\r\n\r\n", Scan::Done(27), 0),
            (b"0 \"a;b\"\r\n\r\n", Scan::Done(11), 0),
            (b"3\r\nab", Scan::More, 2),
            (b"0\r\n", Scan::More, 0),
            (b"7fffffffffffff\r\n", Scan::More, 0),
        ];
        for (body, found, payload) in bodies {
            for step in 1..=body.len() {
                assert_eq!(scan(body, step), (found, payload), "{:?} by {step}", String::from_utf8_lossy(body));
            }
        }
    }

    #[test]
    fn what_nginx_refuses_is_invalid() {
        let bodies: [&[u8]; 16] = [
            b"\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"3\nabc",
            b"3\r\nabcd",
            b"3\r\nabc\n",
            b"3\r\nabc\rx",
            b"3;a\nabc",
            b"3\rx",
            b"3x\r\n",
            b"0\n",
            b"0\r\n\n",
            b"0\r\n\rx",
            b"0\r\nA: b\n",
            b"0\r\nA: b\rx",
            b"7fffffffffffffff\r\n",
        ];
        for body in bodies {
            for step in 1..=body.len() {
                assert_eq!(scan(body, step).0, Scan::Invalid, "{:?}", String::from_utf8_lossy(body));
            }
        }
    }

    #[test]
    fn only_payload_is_left_in_place() {
        let body = b"5;ext=1\r\nhello\r\n6 \r\n world\r\n0;last\r\nTrailer: x\r\n\r\nNEXT";
        for step in 1..=body.len() {
            let (mut scanner, mut out, mut end) = (Scanner::default(), Vec::new(), None);
            for (i, piece) in body.chunks(step).enumerate() {
                let mut piece = piece.to_vec();
                let filtered = scanner.unwrap(&mut piece, None);
                out.extend_from_slice(&piece[..filtered.kept]);
                if let Scan::Done(n) = filtered.scan {
                    end = Some(i * step + n);
                    break;
                }
            }
            assert_eq!(out, b"hello world");
            assert_eq!(end, Some(body.len() - 4));
            assert_eq!(scanner.payload(), 11);
        }
    }
}
