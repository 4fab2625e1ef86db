//! The header we send in front of a connection to an upstream server (`proxy_protocol`).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{MAX_HEADER, SIGNATURE, V2_FIXED, tlv};
use crate::upstream::peer::{Address, ip_text};

/// Bytes of the field that carries the checksum.
const CHECKSUM: usize = 7;

/// What kind of connection the client's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Stream = 1,
    /// UDP.
    Datagram = 2,
}

/// What version 2 tells of the client's TLS connection.
#[derive(Clone, Debug, Default)]
pub struct Tls<'a> {
    /// Fields beside `ssl`: nginx sends 0x02 (the requested name) and 0x01 (ALPN), in this order, if there are any.
    pub beside: Vec<(u8, &'a [u8])>,
    /// 1: TLS is used, 2: a certificate came on this connection, 4: a certificate came in this session.
    pub client: u8,
    /// The result of verifying the client's certificate; nginx sends 1 without a certificate.
    pub verify: u32,
    /// Fields within `ssl`: 0x21 version, 0x22 common name, 0x23 cipher, 0x24 and 0x25 the algorithms of our certificate.
    pub within: Vec<(u8, &'a [u8])>,
}

/// The header would be longer than [`MAX_HEADER`]. nginx logs this at `alert` and closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// No room for a field.
    #[error("too small buffer for PROXY protocol v2 TLV")]
    Tlv,
    /// No room for the fixed part of `ssl`.
    #[error("too small buffer for PROXY protocol v2 SSL TLV")]
    Ssl,
    /// No room for the checksum.
    #[error("too small buffer for PROXY protocol v2 CRC32c TLV")]
    Checksum,
}

/// Appends version 1 (`ngx_proxy_protocol_write`): `source` is the client, `destination` our end of its connection.
pub fn write_v1(source: &Address, destination: &Address, out: &mut Vec<u8>) {
    let Address::Tcp(client) = source else {
        out.extend_from_slice(b"PROXY UNKNOWN\r\n");
        return;
    };
    let (local, port) = match destination {
        Address::Tcp(local) => (ip_text(local.ip()), local.port()),
        Address::Unix(_) => (destination.to_string(), 0),
    };
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let line = format!("PROXY {family} {} {local} {} {port}\r\n", ip_text(client.ip()), client.port());
    out.extend_from_slice(line.as_bytes());
}

/// Appends version 2 (`ngx_proxy_protocol_v2_write`), with a CRC32c of the whole. On an error `out` is as it was.
pub fn write_v2(
    source: &Address,
    destination: &Address,
    transport: Transport,
    tls: Option<&Tls<'_>>,
    out: &mut Vec<u8>,
) -> Result<(), WriteError> {
    let header = v2(source, destination, transport, tls)?;
    out.extend_from_slice(&header);
    Ok(())
}

fn v2(
    source: &Address,
    destination: &Address,
    transport: Transport,
    tls: Option<&Tls<'_>>,
) -> Result<Vec<u8>, WriteError> {
    let mut header = SIGNATURE.to_vec();
    match (source, destination) {
        (Address::Tcp(source), Address::Tcp(destination)) => {
            push_addresses(&mut header, *source, *destination, transport);
        }
        // Without two IP addresses it is LOCAL: the connection speaks for itself.
        _ => header.extend_from_slice(&[0x20, 0, 0, 0]),
    }
    if let Some(tls) = tls {
        for field in &tls.beside {
            push_field(&mut header, *field)?;
        }
        if tls.client != 0 {
            push_ssl(&mut header, tls)?;
        }
    }
    room(&header, CHECKSUM, WriteError::Checksum)?;
    let size = (header.len() + CHECKSUM - V2_FIXED) as u16;
    header[14..16].copy_from_slice(&size.to_be_bytes());
    header.extend_from_slice(&[3, 0, 4]);
    // The checksum covers itself as zeros.
    let sum = crc32c(header.iter().chain(&[0; 4]));
    header.extend_from_slice(&sum.to_be_bytes());
    Ok(header)
}

/// Command, family and addresses: the higher family of both, and IPv4 when both are IPv4 in IPv6's clothes.
fn push_addresses(header: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr, transport: Transport) {
    let as_v6 = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let (from, to) = (as_v6(source), as_v6(destination));
    let low = |ip: Ipv6Addr| ip.to_ipv4_mapped().filter(|_| source.is_ipv4() == destination.is_ipv4());
    match (low(from), low(to)) {
        (Some(from), Some(to)) => {
            header.extend_from_slice(&[0x21, 0x10 | transport as u8, 0, 0]);
            header.extend([from, to].iter().flat_map(|ip| ip.octets()));
        }
        _ => {
            header.extend_from_slice(&[0x21, 0x20 | transport as u8, 0, 0]);
            header.extend([from, to].iter().flat_map(|ip| ip.octets()));
        }
    }
    header.extend([source.port(), destination.port()].iter().flat_map(|port| port.to_be_bytes()));
}

fn push_ssl(header: &mut Vec<u8>, tls: &Tls<'_>) -> Result<(), WriteError> {
    room(header, 8, WriteError::Ssl)?;
    let start = header.len();
    header.extend_from_slice(&[tlv::SSL as u8, 0, 0, tls.client]);
    header.extend_from_slice(&tls.verify.to_be_bytes());
    for field in &tls.within {
        push_field(header, *field)?;
    }
    let size = (header.len() - start - 3) as u16;
    header[start + 1..start + 3].copy_from_slice(&size.to_be_bytes());
    Ok(())
}

fn push_field(header: &mut Vec<u8>, (kind, value): (u8, &[u8])) -> Result<(), WriteError> {
    room(header, 3 + value.len(), WriteError::Tlv)?;
    header.push(kind);
    header.extend_from_slice(&(value.len() as u16).to_be_bytes());
    header.extend_from_slice(value);
    Ok(())
}

fn room(header: &[u8], wanted: usize, error: WriteError) -> Result<(), WriteError> {
    if header.len() + wanted > MAX_HEADER { Err(error) } else { Ok(()) }
}

/// CRC-32C (Castagnoli).
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let (mut sum, mut bit) = (byte as u32, 0);
            while bit < 8 {
                sum = if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 };
                bit += 1;
            }
            table[byte] = sum;
            byte += 1;
        }
        table
    };
    !bytes.fold(!0, |sum, byte| sum >> 8 ^ TABLE[usize::from(sum as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::wire::proxy_protocol::parse;

    fn tcp(text: &str) -> Address {
        Address::Tcp(text.parse().unwrap())
    }

    fn written(source: &str, destination: &str, tls: Option<&Tls<'_>>) -> Vec<u8> {
        let mut out = Vec::new();
        write_v2(&tcp(source), &tcp(destination), Transport::Stream, tls, &mut out).unwrap();
        out
    }

    #[test]
    fn version_1_names_both_ends() {
        let unix = Address::Unix("/run/a".into());
        for (source, destination, line) in [
            (tcp("1.2.3.4:50"), tcp("5.6.7.8:443"), "PROXY TCP4 1.2.3.4 5.6.7.8 50 443\r\n"),
            (tcp("[::1]:50"), tcp("[2001:db8::1]:443"), "PROXY TCP6 ::1 2001:db8::1 50 443\r\n"),
            (unix.clone(), tcp("5.6.7.8:443"), "PROXY UNKNOWN\r\n"),
            (tcp("1.2.3.4:50"), unix, "PROXY TCP4 1.2.3.4 unix:/run/a 50 0\r\n"),
        ] {
            let mut out = Vec::new();
            write_v1(&source, &destination, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), line);
        }
    }

    #[test]
    fn version_2_ends_with_a_checksum_of_itself() {
        let bytes = written("1.2.3.4:80", "5.6.7.8:443", None);
        assert_eq!(bytes[..28], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13\x01\x02\x03\x04\x05\x06\x07\x08\0\x50\x01\xbb");
        assert_eq!(bytes[28..31], [3, 0, 4]);
        let sum = crc32c(bytes[..31].iter().chain(&[0; 4]));
        assert_eq!(bytes[31..], sum.to_be_bytes());
        assert_eq!(crc32c(b"123456789".iter()), 0xe306_9283);
    }

    #[test]
    fn version_2_takes_the_higher_family_and_undresses_mapped_addresses() {
        for (source, destination, family, addresses) in [
            ("1.2.3.4:1", "[::1]:2", 0x21, ("::ffff:1.2.3.4", "::1")),
            ("[::1]:1", "5.6.7.8:2", 0x21, ("::1", "::ffff:5.6.7.8")),
            ("[::ffff:1.2.3.4]:1", "[::ffff:5.6.7.8]:2", 0x11, ("1.2.3.4", "5.6.7.8")),
            ("[::ffff:1.2.3.4]:1", "5.6.7.8:2", 0x21, ("::ffff:1.2.3.4", "::ffff:5.6.7.8")),
            ("[::ffff:1.2.3.4]:1", "[::1]:2", 0x21, ("::ffff:1.2.3.4", "::1")),
        ] {
            let bytes = written(source, destination, None);
            let (header, length) = parse(&bytes).unwrap();
            let header = header.unwrap();
            assert_eq!((bytes[13], length), (family, bytes.len()), "{source} {destination}");
            assert_eq!((&*header.source_address, &*header.destination_address), addresses);
            assert_eq!((header.source_port, header.destination_port), (1, 2));
        }
    }

    #[test]
    fn version_2_from_a_unix_socket_is_local_and_udp_is_marked() {
        let mut out = Vec::new();
        write_v2(&Address::Unix("/a".into()), &tcp("1.2.3.4:1"), Transport::Stream, None, &mut out).unwrap();
        assert_eq!((out[12], out[13], out.len()), (0x20, 0, 23));
        assert_eq!(parse(&out), Ok((None, 23)));
        out.clear();
        write_v2(&tcp("1.2.3.4:1"), &tcp("1.2.3.4:1"), Transport::Datagram, None, &mut out).unwrap();
        assert_eq!(out[13], 0x12);
    }

    #[test]
    fn tls_is_told_in_fields() {
        let tls = Tls {
            beside: vec![(2, b"a.example"), (1, b"h2")],
            client: 1,
            verify: 1,
            within: vec![(0x21, b"TLSv1.3"), (0x23, b"X")],
        };
        let bytes = written("1.2.3.4:80", "5.6.7.8:443", Some(&tls));
        let header = parse(&bytes).unwrap().0.unwrap();
        for (name, value) in [
            ("authority", &b"a.example"[..]),
            ("alpn", b"h2"),
            ("ssl_version", b"TLSv1.3"),
            ("ssl_cipher", b"X"),
            ("ssl_verify", b"1"),
        ] {
            assert_eq!(header.tlv(name).unwrap().as_deref(), Some(value), "{name}");
        }
    }

    #[test]
    fn a_header_that_would_be_too_long_is_not_written() {
        let long = vec![b'x'; MAX_HEADER];
        for (cut, client, error) in [
            (28 + 3, 0, None),
            (28 + 3 + 7, 0, Some(WriteError::Checksum)),
            (28 + 3 + 7, 1, Some(WriteError::Ssl)),
            (0, 0, Some(WriteError::Tlv)),
        ] {
            // `cut` is what stands beside the value; the first row leaves room for the checksum as well.
            let room =
                if error.is_none() { MAX_HEADER - cut - CHECKSUM } else { MAX_HEADER - cut.saturating_sub(CHECKSUM) };
            let tls = Tls { beside: vec![(5, &long[..room])], client, ..Tls::default() };
            let mut out = b"before".to_vec();
            let result = write_v2(&tcp("1.2.3.4:1"), &tcp("1.2.3.4:1"), Transport::Stream, Some(&tls), &mut out);
            assert_eq!(result.err(), error);
            assert_eq!(out.len(), if error.is_none() { 6 + MAX_HEADER } else { 6 });
        }
    }
}
