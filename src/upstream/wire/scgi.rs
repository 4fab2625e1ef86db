//! The SCGI protocol: one netstring of parameters opens a request, the body follows it bare.

/// Appends a request packet to `out`: a netstring that has `CONTENT_LENGTH` in front of all other parameters, each name
/// and each value with a zero byte behind it.
pub fn frame<'a>(content_length: u64, params: impl Iterator<Item = (&'a [u8], &'a [u8])>, out: &mut Vec<u8>) {
    let mut block = b"CONTENT_LENGTH\0".to_vec();
    block.extend_from_slice(content_length.to_string().as_bytes());
    block.push(0);
    for (name, value) in params {
        for part in [name, value] {
            block.extend_from_slice(part);
            block.push(0);
        }
    }
    out.extend_from_slice(block.len().to_string().as_bytes());
    out.push(b':');
    out.append(&mut block);
    out.push(b',');
}

/// A packet taken apart: what an SCGI server reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Names and values, in order.
    pub params: Vec<(&'a [u8], &'a [u8])>,
    /// What follows the packet: the request body.
    pub rest: &'a [u8],
}

/// Not a whole packet, or one whose parameters are no pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed SCGI packet")]
pub struct Malformed;

/// Takes a packet apart.
///
/// # Errors
/// [`Malformed`].
pub fn parse(bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    let colon = memchr::memchr(b':', bytes).ok_or(Malformed)?;
    let length = std::str::from_utf8(&bytes[..colon]).ok().and_then(|text| text.parse().ok()).ok_or(Malformed)?;
    let (mut block, rest) = bytes[colon + 1..].split_at_checked(length).ok_or(Malformed)?;
    let rest = rest.strip_prefix(b",").ok_or(Malformed)?;
    let mut params = Vec::new();
    while !block.is_empty() {
        let name = take_string(&mut block)?;
        params.push((name, take_string(&mut block)?));
    }
    Ok(Packet { params, rest })
}

fn take_string<'a>(block: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let zero = memchr::memchr(0, block).ok_or(Malformed)?;
    let (string, rest) = (&block[..zero], &block[zero + 1..]);
    *block = rest;
    Ok(string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_packet_is_a_netstring_that_begins_with_the_length() {
        let mut out = b"before".to_vec();
        frame(27, [(&b"SCGI"[..], &b"1"[..]), (b"EMPTY", b"")].into_iter(), &mut out);
        assert_eq!(out, b"before32:CONTENT_LENGTH\x0027\x00SCGI\x001\x00EMPTY\x00\x00,");
    }

    #[test]
    fn a_packet_that_was_cut_or_contradicts_itself_is_malformed() {
        let mut whole = Vec::new();
        frame(0, std::iter::empty(), &mut whole);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), Err(Malformed), "{length} bytes");
        }
        for text in ["1:a,", "2:a\0,", "4:a\0b\0.", ":a\0b\0,", "x:,"] {
            assert_eq!(parse(text.as_bytes()), Err(Malformed), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_framed_is_read_back(
            params in proptest::collection::vec(("[^\0]{0,9}", "[^\0]{0,40}"), 0..8),
            length in any::<u64>(),
            body in any::<Vec<u8>>(),
        ) {
            let params: Vec<_> = params.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
            let mut out = Vec::new();
            frame(length, params.iter().copied(), &mut out);
            out.extend_from_slice(&body);
            let digits = length.to_string();
            let mut all = vec![(&b"CONTENT_LENGTH"[..], digits.as_bytes())];
            all.extend(params);
            prop_assert_eq!(parse(&out), Ok(Packet { params: all, rest: &body }));
        }
    }
}
