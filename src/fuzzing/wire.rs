//! Bytes of the protocols beside HTTP.

use crate::upstream::wire::{proxy_protocol, uwsgi};
use std::net::{IpAddr, SocketAddr};

/// A packet that is understood is written as it was; any pairs that fit into a packet come out of it again.
pub(super) fn uwsgi(data: &[u8]) {
    if let Ok(packet) = uwsgi::parse(data) {
        let mut out = Vec::new();
        let framed = uwsgi::frame(packet.modifier1, packet.modifier2, packet.params.iter().copied(), &mut out);
        assert_eq!(framed, Ok(()));
        assert_eq!([&out, packet.rest].concat(), data);
    }
    let words: Vec<&[u8]> = data.split(|byte| *byte == b'\n').collect();
    let pairs: Vec<(&[u8], &[u8])> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let mut out = b"before".to_vec();
    match uwsgi::frame(5, 6, pairs.iter().copied(), &mut out) {
        Ok(()) => {
            let packet = uwsgi::parse(&out[6..]);
            assert_eq!(packet, Ok(uwsgi::Packet { modifier1: 5, modifier2: 6, params: pairs, rest: b"" }));
        }
        Err(uwsgi::TooLarge(size)) => {
            assert!(size > uwsgi::MAX_SIZE);
            assert_eq!(out, b"before");
        }
    }
}

/// A header is within the bytes, says the same without what follows it, and what we write in its place is understood.
pub(super) fn proxy_protocol(data: &[u8]) {
    let Ok((header, length)) = proxy_protocol::parse(data) else { return };
    assert!((1..=data.len()).contains(&length), "{length} of {} bytes", data.len());
    assert_eq!(proxy_protocol::parse(&data[..length]), Ok((header.clone(), length)));
    let Some(header) = header else { return };
    for name in ["alpn", "ssl_cn", "ssl_verify", "ssl_0x21", "0xae", "0x", "nothing"] {
        // Whether it is there or broken, asking for it is no harm.
        let _ = header.tlv(name);
    }
    let ips = (header.source_address.parse::<IpAddr>(), header.destination_address.parse::<IpAddr>());
    let (Ok(source), Ok(destination)) = ips else { return };
    let source = SocketAddr::new(source, header.source_port).into();
    let destination = SocketAddr::new(destination, header.destination_port).into();
    let (mut v1, mut v2) = (Vec::new(), Vec::new());
    proxy_protocol::write_v1(&source, &destination, &mut v1);
    let written = proxy_protocol::write_v2(&source, &destination, proxy_protocol::Transport::Stream, None, &mut v2);
    assert_eq!(written, Ok(()));
    for bytes in [v1, v2] {
        let again = proxy_protocol::parse(&bytes);
        let ports =
            again.map(|(again, length)| (length, again.map(|again| (again.source_port, again.destination_port))));
        assert_eq!(ports, Ok((bytes.len(), Some((header.source_port, header.destination_port)))), "{bytes:?}");
    }
}
