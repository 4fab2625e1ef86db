//! The PROXY protocol, versions 1 and 2: who the client really is, told by the balancer in front of us.
//!
//! Behaviour: nginx's `ngx_proxy_protocol.c`. A header has to arrive in one piece, as nginx wants it.

mod tlv;
mod write;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use tlv::TlvError;
pub use write::{Tls, Transport, WriteError, write_v1, write_v2};

use crate::upstream::peer::ip_text;

/// The most bytes nginx looks at for a header, and the most it writes (`NGX_PROXY_PROTOCOL_MAX_HEADER`).
pub const MAX_HEADER: usize = 4096;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, two bytes of length.
const V2_FIXED: usize = 16;

/// What a header says: `$proxy_protocol_addr` and its kin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The client's address as text. Version 1 copies what was sent: hex digits, `.` and `:`, possibly nothing.
    pub source_address: String,
    /// The client's port.
    pub source_port: u16,
    /// The address the client connected to.
    pub destination_address: String,
    /// The port the client connected to.
    pub destination_port: u16,
    /// The further fields of version 2, as sent; see [`Header::tlv`].
    pub tlvs: Vec<u8>,
}

/// Why a connection is closed. The text is what nginx logs at `err`; [`ParseError::Short`] is not logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Neither version 1 nor version 2, or version 1 with something wrong in it: its first line.
    #[error("broken header: \"{}\"", String::from_utf8_lossy(.0))]
    Broken(Vec<u8>),
    /// The signature of version 2 with another version number.
    #[error("unknown PROXY protocol version: {0}")]
    Version(u8),
    /// Version 2 announces more bytes than there are.
    #[error("header is too large")]
    TooLarge,
    /// Version 2 announces fewer bytes than its addresses take.
    #[error("too short PROXY protocol header")]
    Short,
}

/// Reads the header at the start of `bytes`. Returns what it says and its length; `None` when it is in order but
/// tells no address (`UNKNOWN`, `LOCAL`, not a stream, unix sockets).
pub fn parse(bytes: &[u8]) -> Result<(Option<Header>, usize), ParseError> {
    if bytes.len() >= V2_FIXED && bytes.starts_with(SIGNATURE) {
        return parse_v2(bytes);
    }
    parse_v1(bytes).ok_or_else(|| {
        let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        ParseError::Broken(line.to_vec())
    })
}

fn parse_v1(bytes: &[u8]) -> Option<(Option<Header>, usize)> {
    if bytes.len() < 8 {
        return None;
    }
    let line = bytes.strip_prefix(b"PROXY ")?;
    if let Some(rest) = line.strip_prefix(b"UNKNOWN") {
        // Whatever else stands on the line does not matter.
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        return Some((None, bytes.len() - rest.len() + end + 2));
    }
    let mut rest = line.strip_prefix(b"TCP4 ").or_else(|| line.strip_prefix(b"TCP6 "))?;
    let header = Header {
        source_address: take_address(&mut rest)?,
        destination_address: take_address(&mut rest)?,
        source_port: take_port(&mut rest, b' ')?,
        destination_port: take_port(&mut rest, b'\r')?,
        tlvs: Vec::new(),
    };
    let rest = rest.strip_prefix(b"\n")?;
    Some((Some(header), bytes.len() - rest.len()))
}

/// Everything up to `end`, which is passed over.
fn take_until<'a>(rest: &mut &'a [u8], end: u8) -> Option<&'a [u8]> {
    let length = memchr::memchr(end, rest)?;
    let word = &rest[..length];
    *rest = &rest[length + 1..];
    Some(word)
}

/// nginx checks the characters only: `$proxy_protocol_addr` is text, `realip` parses it when it needs to.
fn take_address(rest: &mut &[u8]) -> Option<String> {
    let word = take_until(rest, b' ')?;
    let allowed = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    word.iter().all(allowed).then(|| String::from_utf8_lossy(word).into_owned())
}

fn take_port(rest: &mut &[u8], end: u8) -> Option<u16> {
    let word = take_until(rest, end)?;
    // `parse` alone would allow a sign.
    let digits = word.iter().all(u8::is_ascii_digit);
    if digits { std::str::from_utf8(word).ok()?.parse().ok() } else { None }
}

fn parse_v2(bytes: &[u8]) -> Result<(Option<Header>, usize), ParseError> {
    let (version, command) = (bytes[12] >> 4, bytes[12] & 15);
    if version != 2 {
        return Err(ParseError::Version(version));
    }
    let size = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let block = bytes[V2_FIXED..].get(..size).ok_or(ParseError::TooLarge)?;
    let length = V2_FIXED + size;
    let (family, transport) = (bytes[13] >> 4, bytes[13] & 15);
    // Only PROXY (not LOCAL) and only streams tell us anything.
    if command != 1 || transport != 1 {
        return Ok((None, length));
    }
    let header = match family {
        1 => split_addresses(block, |ip: [u8; 4]| Ipv4Addr::from(ip).into()),
        2 => split_addresses(block, |ip: [u8; 16]| Ipv6Addr::from(ip).into()),
        _ => return Ok((None, length)),
    };
    header.map(|header| (Some(header), length)).ok_or(ParseError::Short)
}

/// Two addresses of `N` bytes, two ports, and the rest.
fn split_addresses<const N: usize>(block: &[u8], ip: impl Fn([u8; N]) -> IpAddr) -> Option<Header> {
    let (source, block) = block.split_first_chunk()?;
    let (destination, block) = block.split_first_chunk()?;
    let (source_port, block) = block.split_first_chunk()?;
    let (destination_port, tlvs) = block.split_first_chunk()?;
    Some(Header {
        source_address: ip_text(ip(*source)),
        source_port: u16::from_be_bytes(*source_port),
        destination_address: ip_text(ip(*destination)),
        destination_port: u16::from_be_bytes(*destination_port),
        tlvs: tlvs.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(source: (&str, u16), destination: (&str, u16), tlvs: &[u8]) -> Header {
        Header {
            source_address: source.0.into(),
            source_port: source.1,
            destination_address: destination.0.into(),
            destination_port: destination.1,
            tlvs: tlvs.into(),
        }
    }

    fn v2(version_command: u8, family_transport: u8, block: &[u8]) -> Vec<u8> {
        let size = (block.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[version_command, family_transport], &size, block].concat()
    }

    #[test]
    fn version_1_is_read_up_to_its_line_end() {
        for (text, expected) in [
            ("PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n", header(("1.2.3.4", 80), ("5.6.7.8", 443), b"")),
            ("PROXY TCP6 2001:db8::A ::1 0 65535\r\n", header(("2001:db8::A", 0), ("::1", 65535), b"")),
            // nginx looks at the characters only.
            ("PROXY TCP4 ::1 beef 007 1\r\n", header(("::1", 7), ("beef", 1), b"")),
            ("PROXY TCP4   1 1\r\n", header(("", 1), ("", 1), b"")),
        ] {
            let bytes = [text.as_bytes(), b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(parse(&bytes), Ok((Some(expected), text.len())), "{text:?}");
        }
    }

    #[test]
    fn an_unknown_source_is_skipped() {
        for text in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN 1 2 \r3\n4\r\n", "PROXY UNKNOWNs\r\n"] {
            assert_eq!(parse(&[text.as_bytes(), b"GET"].concat()), Ok((None, text.len())), "{text:?}");
        }
    }

    #[test]
    fn a_broken_version_1_is_refused_with_its_first_line() {
        for text in [
            "",
            "PROXY ",
            "PROXY U",
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 1.2.3.4 5.6.7.8 80 443\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 80 443\r\n",
            "PROXY TCP5 1.2.3.4 5.6.7.8 80 443\r\n",
            "PROXY TCP41.2.3.4 5.6.7.8 80 443\r\n",
            "PROXY TCP4 1.2.3.g 5.6.7.8 80 443\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80 65536\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 -80 443\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +80 443\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8  443\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80 443 \r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80 443\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 80",
            "PROXY TCP4 1.2.3.4",
            "PROXY UNKNOWN",
            "PROXY UNKNOWN\r",
        ] {
            let line = text.split(['\r', '\n']).next().unwrap();
            assert_eq!(parse(text.as_bytes()), Err(ParseError::Broken(line.into())), "{text:?}");
        }
        assert_eq!(parse(b"GET /\r\n").unwrap_err().to_string(), "broken header: \"GET /\"");
    }

    #[test]
    fn version_2_tells_addresses_ports_and_further_fields() {
        let block = b"\x01\x02\x03\x04\x05\x06\x07\x08\x00\x50\x01\xbb\x05\x00\x01x";
        let bytes = [v2(0x21, 0x11, block), b"GET".into()].concat();
        let expected = header(("1.2.3.4", 80), ("5.6.7.8", 443), b"\x05\x00\x01x");
        assert_eq!(parse(&bytes), Ok((Some(expected), bytes.len() - 3)));

        let mut block = [0; 36];
        (block[15], block[31], block[33], block[35]) = (1, 2, 3, 4);
        let bytes = v2(0x21, 0x21, &block);
        assert_eq!(parse(&bytes), Ok((Some(header(("::1", 3), ("::2", 4), b"")), bytes.len())));
    }

    #[test]
    fn version_2_without_a_usable_address_is_skipped() {
        for (command, family, block) in [
            (0x20, 0x00, &b""[..]),
            (0x20, 0x11, b"short"),
            (0x2f, 0x11, b""),
            (0x21, 0x12, b""),
            (0x21, 0x10, b""),
            (0x21, 0x01, b""),
            (0x21, 0x31, &[0; 216]),
        ] {
            let bytes = v2(command, family, block);
            assert_eq!(parse(&bytes), Ok((None, bytes.len())), "{command:x} {family:x}");
        }
    }

    #[test]
    fn a_wrong_version_2_is_refused() {
        assert_eq!(parse(&v2(0x11, 0x11, &[0; 12])), Err(ParseError::Version(1)));
        assert_eq!(parse(&v2(0x31, 0x11, &[0; 12])).unwrap_err().to_string(), "unknown PROXY protocol version: 3");
        let whole = v2(0x21, 0x11, &[0; 12]);
        assert_eq!(parse(&whole[..whole.len() - 1]), Err(ParseError::TooLarge));
        assert_eq!(parse(&v2(0x21, 0x11, &[0; 11])), Err(ParseError::Short));
        assert_eq!(parse(&v2(0x21, 0x21, &[0; 35])), Err(ParseError::Short));
        assert_eq!(parse(&whole[..15]), Err(ParseError::Broken(Vec::new())));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            start in prop_oneof![
                Just(&b""[..]),
                Just(&b"PROXY "[..]),
                Just(&b"PROXY TCP4 "[..]),
                Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..]),
            ],
            rest in any::<Vec<u8>>(),
        ) {
            let bytes = [start, &rest].concat();
            if let Ok((header, length)) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
                let _ = header.is_some_and(|header| header.tlv("ssl_cn").is_ok());
            }
        }
    }
}
