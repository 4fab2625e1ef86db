//! Bytes of the protocols beside HTTP.

use super::paced;
use crate::{
    http::heads::response::Progress,
    upstream::wire::{
        answer::{Dialect, HeadReader, Note, Step},
        fastcgi::{self, Reading},
        grpc, proxy_protocol, uwsgi,
    },
};
use bytes::{Bytes, BytesMut};
use std::net::{IpAddr, SocketAddr};

/// A FastCGI answer means the same however its bytes arrive; a body comes whole out of the records it is written in.
pub(super) fn fastcgi(data: &[u8]) {
    let (step, bytes) = paced(data);
    let [flags, bytes @ ..] = bytes else { return };
    let catch = if flags & 2 == 0 { Vec::new() } else { vec![Bytes::from_static(b"oops")] };
    let reading = Reading { keep: flags & 1 == 1, catch };
    assert_eq!(answered(bytes, step, &reading), answered(bytes, bytes.len().max(1), &reading), "in pieces of {step}");
    let mut records = 0;
    fastcgi::stdin(Bytes::copy_from_slice(bytes), |part| records += part.len());
    assert!(records % 8 == 0 && records >= bytes.len());
}

/// What came of a head that must fit into 256 bytes, of the body, and of its end; and what is to be logged.
fn answered(bytes: &[u8], step: usize, reading: &Reading) -> (Result<String, String>, Vec<u8>, String, Vec<Note>) {
    let size = 256;
    let mut reader = HeadReader::new(&Dialect::FastCgi(reading.clone()));
    let (mut rest, mut left) = (BytesMut::new(), bytes);
    let mut feed = |rest: &mut BytesMut, most: usize| {
        let (piece, behind) = left.split_at(left.len().min(step).min(most));
        left = behind;
        rest.extend_from_slice(piece);
        !piece.is_empty()
    };
    let head = loop {
        let parsed = if rest.is_empty() { Ok(Progress::Partial) } else { reader.parse(&mut rest, size) };
        match parsed {
            Ok(Progress::Complete(n)) => break reader.finish(rest.split_to(n).freeze()),
            Ok(Progress::Partial) => {
                let room = reader.room(size, rest.len());
                assert!((1..=size).contains(&room), "{room}");
                if !feed(&mut rest, room) {
                    return (Err("closed".into()), Vec::new(), String::new(), reader.notes(true));
                }
            }
            Err(error) => return (Err(error.to_string()), Vec::new(), String::new(), reader.notes(false)),
        }
    };
    assert!(head.length <= bytes.len());
    let mut notes = reader.notes(false);
    let mut body = reader.body(&head, false);
    let mut all = Vec::new();
    let end = loop {
        match body.next(&mut rest) {
            Ok(Step::Piece(piece)) => all.extend_from_slice(&piece),
            Ok(Step::End) => break "end".to_owned(),
            Ok(Step::More) if feed(&mut rest, usize::MAX) => {}
            Ok(Step::More) => break body.cut_off().map_or_else(|failure| failure.to_string(), |()| "cut".to_owned()),
            Err(failure) => break failure.to_string(),
        }
    };
    assert!(head.content_length.is_none_or(|length| all.len() as u64 <= length));
    notes.extend_from_slice(body.notes());
    (Ok(format!("{head:?}")), all, end, notes)
}

/// Whatever a gRPC server answers is judged in a few printable words; what is understood means the same in a message of its
/// own, and a question is a message that answers nothing.
pub(super) fn grpc(data: &[u8]) {
    let [flags, bytes @ ..] = data else { return };
    let said = Bytes::copy_from_slice(bytes);
    let answer = grpc::Answer {
        http: if flags & 1 == 0 { 200 } else { 503 },
        content_type: if flags & 2 == 0 { grpc::CONTENT_TYPE.into() } else { said.clone() },
        status: if flags & 4 == 0 { Some("0".into()) } else { Some(said.clone()).filter(|_| flags & 8 == 0) },
        message: said.clone(),
        body: said,
    };
    let judged = answer.judge(0);
    if let Err(why) = &judged {
        assert!(why.len() < 600 && !why.chars().any(char::is_control), "{why:?}");
    }
    if flags & 4 == 0 {
        assert_eq!(judged.is_ok(), grpc::serving(bytes) == Ok(grpc::Serving::Serving));
    }
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let framed = grpc::serving(&[&[0][..], &length.to_be_bytes(), bytes].concat());
    if let Some(message) = bytes.get(5..).filter(|_| grpc::serving(bytes).is_ok()) {
        assert_eq!(bytes[1..5], (message.len() as u32).to_be_bytes());
    }
    if let Ok(serving) = framed {
        // A field that nobody knows changes nothing.
        let longer = [&[0][..], &(length + 4).to_be_bytes(), bytes, b"\x12\x02\x08\x01"].concat();
        assert_eq!(grpc::serving(&longer), Ok(serving));
    }
    assert_eq!(grpc::serving(&grpc::question(bytes)), Ok(grpc::Serving::Unknown));
}

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
