//! The status line, byte by byte as `ngx_http_parse_status_line` reads it.

use memchr::memchr2;

/// A status line under way. It begins with the first byte.
#[derive(Clone, Debug, Default)]
pub(super) struct StatusLine {
    state: State,
    pub(super) version: (u8, u8),
    pub(super) status: u16,
    digits: u8,
    number: u16,
    /// Where `200 OK` stands.
    pub(super) text: (usize, usize),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// So many bytes of `HTTP/` have been seen.
    Protocol(u8),
    #[default]
    Start,
    FirstMajor,
    Major,
    FirstMinor,
    Minor,
    Status,
    AfterStatus,
    Text,
    AlmostDone,
}

impl StatusLine {
    /// Reads on from `at`, which ends up behind what was read: `true` when the line is complete. `None` if this is no
    /// status line.
    pub(super) fn read(&mut self, bytes: &[u8], at: &mut usize) -> Option<bool> {
        while let Some(&byte) = bytes.get(*at) {
            match (self.state, byte) {
                (State::Start, _) => {
                    if bytes.starts_with(b"HTTP/1.1 ") {
                        self.version = (1, 1);
                        self.state = State::Status;
                        *at += 9;
                    } else {
                        self.state = State::Protocol(0);
                    }
                    continue;
                }
                (State::Protocol(seen), _) => {
                    if b"HTTP/"[usize::from(seen)] != byte {
                        return None;
                    }
                    self.state = if seen == 4 { State::FirstMajor } else { State::Protocol(seen + 1) };
                }
                (State::FirstMajor, b'1'..=b'9') | (State::FirstMinor, b'0'..=b'9') => {
                    self.number = u16::from(byte - b'0');
                    self.state = if self.state == State::FirstMajor { State::Major } else { State::Minor };
                }
                (State::Major, b'.') => {
                    self.version.0 = u8::try_from(self.number).unwrap_or(u8::MAX);
                    self.state = State::FirstMinor;
                }
                (State::Minor, b' ') => {
                    self.version.1 = u8::try_from(self.number).unwrap_or(u8::MAX);
                    self.state = State::Status;
                }
                (State::Major | State::Minor, b'0'..=b'9') if self.number <= 99 => {
                    self.number = self.number * 10 + u16::from(byte - b'0');
                }
                (State::Status, b' ') => {}
                (State::Status, b'0'..=b'9') => {
                    self.status = self.status * 10 + u16::from(byte - b'0');
                    self.digits += 1;
                    if self.digits == 3 {
                        self.text.0 = *at - 2;
                        self.state = State::AfterStatus;
                    }
                }
                (State::AfterStatus, b' ' | b'.') => self.state = State::Text,
                (State::AfterStatus | State::Text, b'\r') => {
                    self.text.1 = *at;
                    self.state = State::AlmostDone;
                }
                (State::AfterStatus | State::Text, b'\n') => {
                    self.text.1 = *at;
                    *at += 1;
                    return Some(true);
                }
                (State::Text, _) => {
                    let rest = &bytes[*at..];
                    *at += memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    continue;
                }
                (State::AlmostDone, b'\n') => {
                    *at += 1;
                    return Some(true);
                }
                _ => return None,
            }
            *at += 1;
        }
        Some(false)
    }
}
