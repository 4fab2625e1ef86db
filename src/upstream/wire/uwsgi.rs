//! The uwsgi protocol: one packet of parameters opens a request, the body follows it bare.

/// The most a packet can carry after its four header bytes: its size field has 16 bits.
pub const MAX_SIZE: usize = 65535;

/// The parameters do not fit. nginx logs this at `alert` and answers 500.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("uwsgi request is too big: {0}")]
pub struct TooLarge(pub usize);

/// Appends a request packet to `out`: `modifier1`, size, `modifier2` (`uwsgi_modifier1`, `uwsgi_modifier2`), and each
/// parameter as length, name, length, value; lengths are little-endian. On an error `out` is as it was.
pub fn frame<'a>(
    modifier1: u8,
    modifier2: u8,
    params: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    out: &mut Vec<u8>,
) -> Result<(), TooLarge> {
    frame_with(modifier1, modifier2, params, b"", out)
}

/// The same with the bytes of `uwsgi_string` after the parameters.
pub fn frame_with<'a>(
    modifier1: u8,
    modifier2: u8,
    params: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    string: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), TooLarge> {
    let start = out.len();
    out.extend_from_slice(&[modifier1, 0, 0, modifier2]);
    // The whole size is wanted for the message, so counting goes on where writing has stopped.
    let mut size = string.len();
    for (name, value) in params {
        size += 2 + name.len() + 2 + value.len();
        if size <= MAX_SIZE {
            for part in [name, value] {
                out.extend_from_slice(&(part.len() as u16).to_le_bytes());
                out.extend_from_slice(part);
            }
        }
    }
    if size > MAX_SIZE {
        out.truncate(start);
        return Err(TooLarge(size));
    }
    out.extend_from_slice(string);
    out[start + 1..start + 3].copy_from_slice(&(size as u16).to_le_bytes());
    Ok(())
}

/// A packet taken apart: what a uwsgi server reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What kind of request it is; 0 is WSGI.
    pub modifier1: u8,
    /// Details of that kind.
    pub modifier2: u8,
    /// Names and values, in order.
    pub params: Vec<(&'a [u8], &'a [u8])>,
    /// What follows the packet: the request body.
    pub rest: &'a [u8],
}

/// Not a whole packet, or lengths in it that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed uwsgi packet")]
pub struct Malformed;

/// Takes a packet apart.
pub fn parse(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    let [modifier1, low, high, modifier2, rest @ ..] = bytes else { return Err(Malformed) };
    let size = usize::from(u16::from_le_bytes([*low, *high]));
    let (mut block, rest) = rest.split_at_checked(size).ok_or(Malformed)?;
    let mut params = Vec::new();
    while !block.is_empty() {
        let name = take_string(&mut block)?;
        params.push((name, take_string(&mut block)?));
    }
    Ok(Packet { modifier1: *modifier1, modifier2: *modifier2, params, rest })
}

fn take_string<'a>(block: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let (length, rest) = block.split_first_chunk().ok_or(Malformed)?;
    let (string, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))).ok_or(Malformed)?;
    *block = rest;
    Ok(string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(params: &[(&[u8], &[u8])]) -> Result<Vec<u8>, TooLarge> {
        let mut out = Vec::new();
        frame(0, 0, params.iter().copied(), &mut out).map(|()| out)
    }

    #[test]
    fn a_packet_has_little_endian_lengths() {
        let mut out = b"before".to_vec();
        frame(5, 7, [(&b"HOST"[..], &b"a.b"[..]), (b"HTTPS", b"")].into_iter(), &mut out).unwrap();
        assert_eq!(out, b"before\x05\x14\x00\x07\x04\x00HOST\x03\x00a.b\x05\x00HTTPS\x00\x00");
    }

    #[test]
    fn a_uwsgi_string_follows_the_parameters_and_counts() {
        let mut out = Vec::new();
        frame_with(0, 0, [(&b"A"[..], &b"B"[..])].into_iter(), b"xyz", &mut out).unwrap();
        assert_eq!(out, b"\x00\x09\x00\x00\x01\x00A\x01\x00Bxyz");
    }

    #[test]
    fn the_largest_packet_fits_and_one_byte_more_does_not() {
        let value = vec![b'v'; MAX_SIZE - 5];
        assert_eq!(framed(&[(b"N", &value)]).unwrap().len(), 4 + MAX_SIZE);
        let mut out = b"before".to_vec();
        let params = [(&b"NN"[..], &value[..]), (b"more", b"")];
        let fault = frame(0, 0, params.into_iter(), &mut out).unwrap_err();
        assert_eq!(fault.to_string(), "uwsgi request is too big: 65544");
        assert_eq!(out, b"before");
    }

    #[test]
    fn a_packet_that_was_cut_or_contradicts_itself_is_malformed() {
        let whole = framed(&[(b"name", b"value")]).unwrap();
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), Err(Malformed), "{length} bytes");
        }
        assert_eq!(parse(b"\x00\x04\x00\x00\x09\x00ab"), Err(Malformed));
    }

    proptest! {
        #[test]
        fn what_was_framed_is_read_back(
            params in proptest::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..8),
            modifiers in any::<(u8, u8)>(),
            body in any::<Vec<u8>>(),
        ) {
            let params: Vec<_> = params.iter().map(|(name, value)| (&name[..], &value[..])).collect();
            let mut out = Vec::new();
            frame(modifiers.0, modifiers.1, params.iter().copied(), &mut out).unwrap();
            out.extend_from_slice(&body);
            let packet = Packet { modifier1: modifiers.0, modifier2: modifiers.1, params, rest: &body };
            prop_assert_eq!(parse(&out), Ok(packet));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in any::<Vec<u8>>()) {
            if let Ok(packet) = parse(&bytes) {
                prop_assert!(packet.rest.len() + 4 <= bytes.len());
            }
        }
    }
}
