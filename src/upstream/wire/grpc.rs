//! The gRPC Health Checking Protocol: one question, one answer, and what it says of a server. gRPC's messages stand
//! behind a byte of flags and a length; what is in them is written by Protocol Buffers.

use bytes::Bytes;

/// Where the question goes (`grpc.health.v1`).
pub const PATH: &str = "/grpc.health.v1.Health/Check";

/// The type of what is asked and answered; what follows it says how messages are written.
pub const CONTENT_TYPE: &str = "application/grpc";

/// The most that an answer may have behind its head, before its trailers. Bytes; two would do.
pub const MOST: usize = 4096;

/// In front of every message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// How a server says that it is doing (`HealthCheckResponse.ServingStatus`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    Unknown,
    Serving,
    NotServing,
    /// Meant for who watches a service.
    ServiceUnknown,
    /// One that a later version of the protocol has.
    Other(u64),
}

/// Why an answer's message is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("no message")]
    Missing,
    #[error("a compressed message")]
    Compressed,
    /// How long it says that it is, and how much there is.
    #[error("a message of {0} bytes, and {1} bytes of it")]
    Length(usize, usize),
    #[error("a message that is no HealthCheckResponse")]
    Fields,
}

/// What came of a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// That of HTTP.
    pub http: u16,
    pub content_type: Bytes,
    /// `grpc-status`, as it was sent; where it is, there is an answer of gRPC.
    pub status: Option<Bytes>,
    /// `grpc-message`, as it was sent.
    pub message: Bytes,
    pub body: Bytes,
}

/// The body of a question for this service; that without a name is the server as a whole.
pub fn question(service: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(service.len() + 8);
    if !service.is_empty() {
        // `string service = 1`.
        message.push(1 << 3 | 2);
        put_number(service.len() as u64, &mut message);
        message.extend_from_slice(service);
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &message].concat().into()
}

impl Answer {
    /// Whether it is that of gRPC, so that a body is worth reading.
    pub fn is_grpc(&self) -> bool {
        self.http == 200 && self.content_type.starts_with(CONTENT_TYPE.as_bytes())
    }

    /// Whether the server is well: its status is the one that is wanted, and if that is 0, it is serving, too.
    ///
    /// # Errors
    /// What is wrong, for a log.
    pub fn judge(&self, wanted: u32) -> Result<(), String> {
        let Some(status) = &self.status else {
            return Err(match self.http {
                200 if self.is_grpc() => "no grpc-status".to_owned(),
                200 => format!("content type \"{}\" is not gRPC's", printable(&self.content_type)),
                http => format!("status {http:03} and no grpc-status"),
            });
        };
        let code = std::str::from_utf8(status).ok().and_then(|code| code.parse::<u32>().ok());
        let Some(code) = code else {
            return Err(format!("invalid grpc-status \"{}\"", printable(status)));
        };
        if code != wanted {
            let mut why = format!("grpc-status {code}");
            if let Some(name) = CODES.get(code as usize) {
                why.push_str(&format!(" ({name})"));
            }
            if !self.message.is_empty() {
                why.push_str(&format!(": {}", printable(&percent_decode(&self.message))));
            }
            return Err(why);
        }
        if wanted != 0 {
            return Ok(());
        }
        match serving(&self.body) {
            Ok(Serving::Serving) => Ok(()),
            Ok(Serving::Unknown) => Err("UNKNOWN".to_owned()),
            Ok(Serving::NotServing) => Err("NOT_SERVING".to_owned()),
            Ok(Serving::ServiceUnknown) => Err("SERVICE_UNKNOWN".to_owned()),
            Ok(Serving::Other(number)) => Err(format!("unknown serving status {number}")),
            Err(malformed) => Err(malformed.to_string()),
        }
    }
}

/// What the codes are called, by their number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Reads the body of an answer: exactly one message.
///
/// # Errors
/// Why it is none.
pub fn serving(body: &[u8]) -> Result<Serving, Malformed> {
    let Some((prefix, message)) = body.split_at_checked(PREFIX) else {
        return Err(if body.is_empty() { Malformed::Missing } else { Malformed::Fields });
    };
    let length = prefix[1..].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if prefix[0] != 0 {
        return Err(Malformed::Compressed);
    }
    if length != message.len() {
        return Err(Malformed::Length(length, message.len()));
    }
    status(message).ok_or(Malformed::Fields)
}

/// `ServingStatus status = 1` of a message. Fields that nobody knows are passed over; the last of several counts, and
/// one that is not there is 0.
fn status(mut message: &[u8]) -> Option<Serving> {
    let mut status = 0;
    while !message.is_empty() {
        let key = take_number(&mut message)?;
        let skipped = match (key >> 3, key & 7) {
            (0, _) => return None,
            (1, 0) => {
                status = take_number(&mut message)?;
                0
            }
            (_, 0) => {
                take_number(&mut message)?;
                0
            }
            (_, 1) => 8,
            (_, 2) => usize::try_from(take_number(&mut message)?).ok()?,
            (_, 5) => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(match status {
        0 => Serving::Unknown,
        1 => Serving::Serving,
        2 => Serving::NotServing,
        3 => Serving::ServiceUnknown,
        other => Serving::Other(other),
    })
}

/// A number is written seven bits a byte, the lowest first; all bytes but the last have the eighth bit.
fn put_number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// `grpc-message` has bytes beside printable ASCII as `%` and two digits; what is no such thing stays.
fn percent_decode(text: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match (digit(text.get(at + 1)), digit(text.get(at + 2))) {
            (Some(high), Some(low)) if *byte == b'%' => {
                out.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

/// As much of what a peer said as a line of a log has room for.
pub(crate) fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let plain = |char: char| if char.is_control() { ' ' } else { char };
    text.chars().take(100).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_its_service() {
        assert_eq!(question(b"")[..], [0, 0, 0, 0, 0]);
        assert_eq!(question(b"a.B")[..], *b"\0\0\0\0\x05\x0a\x03a.B");
        let long = question(&[b'x'; 200]);
        assert_eq!(long[..8], *b"\0\0\0\0\xcb\x0a\xc8\x01");
        assert_eq!(long.len(), 5 + 3 + 200);
    }

    #[test]
    fn numbers_come_out_as_they_went_in() {
        for number in [0, 1, 0x7f, 0x80, 300, u64::from(u32::MAX), u64::MAX] {
            let mut written = Vec::new();
            put_number(number, &mut written);
            for end in 0..written.len() {
                assert_eq!(take_number(&mut &written[..end]), None, "{number}");
            }
            written.push(9);
            let mut rest = &written[..];
            assert_eq!((take_number(&mut rest), rest), (Some(number), &[9][..]));
        }
        assert_eq!(take_number(&mut &[0xff; 20][..]), None, "it never ends");
    }

    #[test]
    fn an_answer_is_one_message_with_a_status() {
        for (body, expected) in [
            (&b"\0\0\0\0\x02\x08\x01"[..], Ok(Serving::Serving)),
            (b"\0\0\0\0\x02\x08\x02", Ok(Serving::NotServing)),
            (b"\0\0\0\0\x02\x08\x03", Ok(Serving::ServiceUnknown)),
            (b"\0\0\0\0\x02\x08\x09", Ok(Serving::Other(9))),
            // What is 0 need not be written.
            (b"\0\0\0\0\0", Ok(Serving::Unknown)),
            // Fields of other numbers and types are not ours; the last of ours counts.
            (b"\0\0\0\0\x04\x08\x02\x08\x01", Ok(Serving::Serving)),
            (b"\0\0\0\0\x09\x08\x01\x12\x01x\x18\x80\x01\x08", Err(Malformed::Fields)),
            (b"\0\0\0\0\x08\x08\x01\x12\x01x\x18\x80\x01", Ok(Serving::Serving)),
            (b"\0\0\0\0\x10\x19\x01\x02\x03\x04\x05\x06\x07\x08\x25\x01\x02\x03\x04\x08\x01", Ok(Serving::Serving)),
            (b"\0\0\0\0\x03\x0a\x01\x01", Ok(Serving::Unknown)),
            (b"", Err(Malformed::Missing)),
            (b"\0\0\0", Err(Malformed::Fields)),
            (b"\x01\0\0\0\x02\x08\x01", Err(Malformed::Compressed)),
            (b"\0\0\0\0\x03\x08\x01", Err(Malformed::Length(3, 2))),
            (b"\0\0\0\0\x02\x08\x01\0\0\0\0\0", Err(Malformed::Length(2, 7))),
            (b"\0\0\0\0\x01\x08", Err(Malformed::Fields)),
            (b"\0\0\0\0\x02\x12\x05", Err(Malformed::Fields)),
            (b"\0\0\0\0\x02\x0b\x01", Err(Malformed::Fields)),
            (b"\0\0\0\0\x02\0\x01", Err(Malformed::Fields)),
        ] {
            assert_eq!(serving(body), expected, "{body:?}");
        }
    }

    #[test]
    fn a_server_is_well_when_it_says_what_is_wanted() {
        let serving = b"\0\0\0\0\x02\x08\x01";
        let answer = |http, content_type: &'static str, status: Option<&'static str>, body: &'static [u8]| Answer {
            http,
            content_type: content_type.into(),
            status: status.map(Into::into),
            message: Bytes::new(),
            body: Bytes::from_static(body),
        };
        let grpc = |status, body| answer(200, CONTENT_TYPE, Some(status), body);
        for (answer, wanted, expected) in [
            (grpc("0", serving), 0, ""),
            (answer(200, "application/grpc+proto", Some("0"), serving), 0, ""),
            (grpc("0", b"\0\0\0\0\x02\x08\x02"), 0, "NOT_SERVING"),
            (grpc("0", b"\0\0\0\0\0"), 0, "UNKNOWN"),
            (grpc("0", b"\0\0\0\0\x02\x08\x03"), 0, "SERVICE_UNKNOWN"),
            (grpc("0", b"\0\0\0\0\x02\x08\x07"), 0, "unknown serving status 7"),
            (grpc("0", b""), 0, "no message"),
            (grpc("0", b"\0\0\0\0\x09\x08"), 0, "a message of 9 bytes, and 1 bytes of it"),
            (grpc("12", b""), 0, "grpc-status 12 (UNIMPLEMENTED)"),
            (grpc("99", b""), 0, "grpc-status 99"),
            (grpc("-1", b""), 0, "invalid grpc-status \"-1\""),
            (grpc("12", b""), 12, ""),
            (grpc("5", b""), 12, "grpc-status 5 (NOT_FOUND)"),
            (grpc("0", serving), 12, "grpc-status 0 (OK)"),
            (answer(404, "text/html", None, b""), 12, "status 404 and no grpc-status"),
            (answer(200, "text/html", None, b""), 0, "content type \"text/html\" is not gRPC's"),
            (answer(200, "", None, b""), 0, "content type \"\" is not gRPC's"),
            (answer(200, CONTENT_TYPE, None, serving), 0, "no grpc-status"),
        ] {
            let judged = answer.judge(wanted).err().unwrap_or_default();
            assert_eq!(judged, expected, "{answer:?} {wanted}");
        }
    }

    #[test]
    fn what_a_server_says_of_a_status_is_decoded_and_kept_to_one_line() {
        for (message, expected) in [
            ("unknown service a.B", "grpc-status 5 (NOT_FOUND): unknown service a.B"),
            ("100%25 %E2%82%AC%0Aline", "grpc-status 5 (NOT_FOUND): 100% \u{20ac} line"),
            ("50% of %zz", "grpc-status 5 (NOT_FOUND): 50% of %zz"),
        ] {
            let answer = Answer { http: 200, status: Some("5".into()), message: message.into(), ..Answer::default() };
            assert_eq!(answer.judge(0).unwrap_err(), expected);
        }
        let answer = Answer { status: Some("5".into()), message: vec![b'x'; 5000].into(), ..Answer::default() };
        assert!(answer.judge(0).unwrap_err().len() < 200);
    }
}
