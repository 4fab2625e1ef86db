//! The request line, byte by byte as `ngx_http_parse_request_line` reads it. It can stop anywhere and go on when more
//! bytes have come, without looking at any byte twice.

/// Why a request line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Method,
    Request,
    Version,
    /// HTTP/0.9 knows `GET` only.
    OldMethod,
}

/// A request line under way. All positions count from the first byte read, which may be of an empty line before it.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestLine {
    state: State,
    /// Where the line begins, behind empty lines.
    pub(super) start: usize,
    /// Behind the last byte before the line's end; 0 while unknown.
    pub(super) end: usize,
    /// The method is `start..method_end`; 0 while unknown.
    pub(super) method_end: usize,
    /// The target without scheme and authority; empty while unknown.
    pub(super) target: (usize, usize),
    /// The scheme of a target in absolute form; empty if there is none.
    pub(super) scheme: (usize, usize),
    /// Host and port of a target in absolute or authority form.
    pub(super) host: Option<(usize, usize)>,
    /// Where `HTTP/…` begins; 0 if the line has none.
    pub(super) protocol: usize,
    pub(super) major: u16,
    pub(super) minor: u16,
    /// The target is not its own normal form: it holds `%`, `#`, `//`, or a segment that begins with a dot, or no path.
    pub(super) complex: bool,
    /// The target has arguments but no path: `http://host?a`.
    pub(super) empty_path: bool,
    connect: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    Method,
    BeforeTarget,
    Scheme,
    SchemeSlash,
    SchemeSlashSlash,
    BeforeHost,
    HostStart,
    Host,
    HostEnd,
    IpLiteral,
    PortStart,
    Port,
    AfterSlash,
    Path,
    Arguments,
    AfterTarget,
    /// So many bytes of `HTTP/` have been seen.
    Protocol(u8),
    FirstMajor,
    Major,
    FirstMinor,
    Minor,
    AfterProtocol,
    AlmostDone,
}

/// Bytes of a target that mean nothing special anywhere in it.
const USUAL: [bool; 256] = {
    let mut usual = [true; 256];
    let mut byte = 0;
    while byte < 256 {
        usual[byte] = !matches!(byte as u8, 0..=b' ' | b'#' | b'%' | b'+' | b'.' | b'/' | b'?' | 0x7f);
        byte += 1;
    }
    usual
};

impl RequestLine {
    /// Nothing but empty lines has been read.
    pub(super) fn at_start(&self) -> bool {
        self.state == State::Start
    }

    /// `1001` for HTTP/1.1 (`r->http_version`).
    pub(super) fn version(&self) -> u32 {
        u32::from(self.major) * 1000 + u32::from(self.minor)
    }

    /// Reads on from `at`, which ends up behind what was read. `true` when the line is complete.
    pub(super) fn read(&mut self, bytes: &[u8], at: &mut usize) -> Result<bool, Wrong> {
        while let Some(&byte) = bytes.get(*at) {
            match self.state {
                State::Start => {
                    self.start = *at;
                    match byte {
                        b'\r' | b'\n' => {}
                        _ if of_method(byte) => self.state = State::Method,
                        _ => return Err(Wrong::Method),
                    }
                }
                State::Method if byte == b' ' => {
                    self.method_end = *at;
                    self.connect = bytes[self.start..*at] == *b"CONNECT";
                    self.state = if self.connect { State::BeforeHost } else { State::BeforeTarget };
                }
                State::Method if of_method(byte) => {}
                State::Method => return Err(Wrong::Method),
                State::BeforeTarget => match byte {
                    b'/' => {
                        self.target.0 = *at;
                        self.state = State::AfterSlash;
                    }
                    b'a'..=b'z' | b'A'..=b'Z' => {
                        self.scheme.0 = *at;
                        self.state = State::Scheme;
                    }
                    b' ' => {}
                    _ => return Err(Wrong::Request),
                },
                State::Scheme => match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'-' | b'.' => {}
                    b':' => {
                        self.scheme.1 = *at;
                        self.state = State::SchemeSlash;
                    }
                    _ => return Err(Wrong::Request),
                },
                State::SchemeSlash if byte == b'/' => self.state = State::SchemeSlashSlash,
                State::SchemeSlashSlash if byte == b'/' => self.state = State::HostStart,
                State::SchemeSlash | State::SchemeSlashSlash => return Err(Wrong::Request),
                State::BeforeHost if byte == b' ' => {}
                State::BeforeHost | State::HostStart => {
                    self.host = Some((*at, *at));
                    if byte == b'[' {
                        self.state = State::IpLiteral;
                    } else {
                        self.state = State::Host;
                        continue;
                    }
                }
                State::Host if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-') => {}
                State::Host | State::HostEnd if byte == b':' => self.state = State::PortStart,
                State::Host | State::HostEnd => self.after_host(byte, *at, false)?,
                State::IpLiteral => match byte {
                    b']' => self.state = State::HostEnd,
                    _ if byte.is_ascii_alphanumeric() || b":-._~!$&'()*+,;=".contains(&byte) => {}
                    _ => return Err(Wrong::Request),
                },
                State::PortStart | State::Port if byte.is_ascii_digit() => self.state = State::Port,
                State::PortStart if self.connect => return Err(Wrong::Request),
                State::PortStart | State::Port => self.after_host(byte, *at, true)?,
                State::AfterSlash | State::Path | State::Arguments => {
                    let usual = bytes[*at..].iter().take_while(|byte| USUAL[usize::from(**byte)]).count();
                    if usual > 0 {
                        *at += usual;
                        if self.state == State::AfterSlash {
                            self.state = State::Path;
                        }
                        continue;
                    }
                    if self.in_target(byte, *at)? {
                        return self.complete(at);
                    }
                }
                State::AfterTarget => match byte {
                    b' ' => {}
                    b'\r' => {
                        self.minor = 9;
                        self.state = State::AlmostDone;
                    }
                    b'\n' => {
                        self.minor = 9;
                        return self.complete(at);
                    }
                    b'H' => {
                        self.protocol = *at;
                        if bytes[*at..].starts_with(b"HTTP/1.1\r\n") && !self.connect {
                            (self.major, self.minor) = (1, 1);
                            *at += 9;
                            self.end = *at - 1;
                            return self.complete(at);
                        }
                        self.state = State::Protocol(1);
                    }
                    _ => return Err(Wrong::Request),
                },
                State::Protocol(seen) => {
                    if b"HTTP/"[usize::from(seen)] != byte {
                        return Err(Wrong::Request);
                    }
                    self.state = State::Protocol(seen + 1);
                    if seen == 4 {
                        if self.connect {
                            self.target = (*at, *at + 1);
                        }
                        self.state = State::FirstMajor;
                    }
                }
                State::FirstMajor => match byte {
                    b'1' => {
                        self.major = 1;
                        self.state = State::Major;
                    }
                    b'2'..=b'9' => return Err(Wrong::Version),
                    _ => return Err(Wrong::Request),
                },
                State::Major => match byte {
                    b'.' => self.state = State::FirstMinor,
                    b'0'..=b'9' => return Err(Wrong::Version),
                    _ => return Err(Wrong::Request),
                },
                State::FirstMinor if byte.is_ascii_digit() => {
                    self.minor = u16::from(byte - b'0');
                    self.state = State::Minor;
                }
                State::FirstMinor => return Err(Wrong::Request),
                State::Minor => match byte {
                    b'\r' => self.state = State::AlmostDone,
                    b'\n' => return self.complete(at),
                    b' ' => self.state = State::AfterProtocol,
                    b'0'..=b'9' if self.minor <= 99 => self.minor = self.minor * 10 + u16::from(byte - b'0'),
                    _ => return Err(Wrong::Request),
                },
                State::AfterProtocol => match byte {
                    b' ' => {}
                    b'\r' => self.state = State::AlmostDone,
                    b'\n' => return self.complete(at),
                    _ => return Err(Wrong::Request),
                },
                State::AlmostDone => {
                    self.end = *at - 1;
                    return if byte == b'\n' { self.complete(at) } else { Err(Wrong::Request) };
                }
            }
            *at += 1;
        }
        Ok(false)
    }

    /// The byte behind host and port.
    fn after_host(&mut self, byte: u8, at: usize, port: bool) -> Result<(), Wrong> {
        if let Some(host) = &mut self.host {
            host.1 = at;
        }
        if self.connect {
            self.state = State::AfterTarget;
            return if port && byte == b' ' { Ok(()) } else { Err(Wrong::Request) };
        }
        match byte {
            b'/' => {
                self.target.0 = at;
                self.state = State::AfterSlash;
            }
            b'?' => {
                self.target.0 = at;
                (self.empty_path, self.complex) = (true, true);
                self.state = State::Arguments;
            }
            b' ' => {
                // The path is "/": nginx points at one of the two behind the scheme.
                self.target = (self.scheme.1 + 1, self.scheme.1 + 2);
                self.state = State::AfterTarget;
            }
            _ => return Err(Wrong::Request),
        }
        Ok(())
    }

    /// A byte of the target that may mean something. `true` when it ends the line.
    fn in_target(&mut self, byte: u8, at: usize) -> Result<bool, Wrong> {
        match byte {
            b' ' => {
                self.target.1 = at;
                self.state = State::AfterTarget;
            }
            b'\r' | b'\n' => {
                self.target.1 = at;
                self.minor = 9;
                self.state = State::AlmostDone;
                return Ok(byte == b'\n');
            }
            0..b' ' | 0x7f => return Err(Wrong::Request),
            b'#' => {
                self.complex = true;
                self.state = State::Arguments;
            }
            _ if self.state == State::Arguments => {}
            b'%' => {
                self.complex = true;
                self.state = State::Arguments;
            }
            b'?' => self.state = State::Arguments,
            b'/' | b'.' if self.state == State::AfterSlash => {
                self.complex = true;
                self.state = State::Arguments;
            }
            b'/' => self.state = State::AfterSlash,
            _ => {}
        }
        Ok(false)
    }

    fn complete(&mut self, at: &mut usize) -> Result<bool, Wrong> {
        if self.end == 0 {
            self.end = *at;
        }
        *at += 1;
        Ok(true)
    }
}

/// Bytes of a method.
fn of_method(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'_' | b'-')
}
