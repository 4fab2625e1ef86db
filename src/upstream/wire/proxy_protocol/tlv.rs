//! The further fields of a version 2 header: `$proxy_protocol_tlv_name`.

use std::borrow::Cow;

use super::Header;

/// Names that stand for a type of field, in nginx's documentation of `$proxy_protocol_tlv_`.
const NAMES: &[(&str, i64)] = &[("alpn", 1), ("authority", 2), ("unique_id", 5), ("ssl", SSL), ("netns", 0x30)];
/// The same behind `ssl_`: fields within the field `ssl`.
const SSL_NAMES: &[(&str, i64)] =
    &[("version", 0x21), ("cn", 0x22), ("cipher", 0x23), ("sig_alg", 0x24), ("key_alg", 0x25)];

pub(super) const SSL: i64 = 0x20;
/// One byte of flags and four of the verification's result open the field `ssl`.
const SSL_FIXED: usize = 5;

/// Why a field cannot be had. The text is what nginx logs at `err`; [`TlvError::ShortSsl`] is not logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlvError {
    /// Lengths that do not add up before the field was found.
    #[error("broken PROXY protocol TLV")]
    Broken,
    /// `0x` and something that is not hexadecimal.
    #[error("invalid PROXY protocol TLV \"{0}\"")]
    Invalid(String),
    /// No such name: the variable is empty.
    #[error("unknown PROXY protocol TLV \"{0}\"")]
    Unknown(String),
    /// The field `ssl` is shorter than its fixed part.
    #[error("too short PROXY protocol TLV")]
    ShortSsl,
}

impl Header {
    /// The field of a name (`alpn`, `ssl_cn`, `0xae`, `ssl_0x21`, `ssl_verify` …), `None` when it was not sent
    /// (`ngx_proxy_protocol_get_tlv`).
    pub fn tlv(&self, name: &str) -> Result<Option<Cow<'_, [u8]>>, TlvError> {
        let (mut fields, mut names, mut key) = (&self.tlvs[..], NAMES, name);
        if let Some(rest) = name.strip_prefix("ssl_") {
            let Some(ssl) = find(fields, SSL)? else { return Ok(None) };
            let (fixed, inner) = ssl.split_first_chunk::<SSL_FIXED>().ok_or(TlvError::ShortSsl)?;
            if rest == "verify" {
                let [_, verify @ ..] = *fixed;
                return Ok(Some(Cow::Owned(u32::from_be_bytes(verify).to_string().into_bytes())));
            }
            (fields, names, key) = (inner, SSL_NAMES, rest);
        }
        let kind = match key.strip_prefix("0x") {
            Some(digits) => hexadecimal(digits).ok_or_else(|| TlvError::Invalid(name.into()))?,
            None => {
                let known = names.iter().find(|(known, _)| *known == key);
                known.ok_or_else(|| TlvError::Unknown(name.into()))?.1
            }
        };
        Ok(find(fields, kind)?.map(Cow::Borrowed))
    }
}

/// The first field of a type.
fn find(mut fields: &[u8], kind: i64) -> Result<Option<&[u8]>, TlvError> {
    while !fields.is_empty() {
        let ([this, high, low], rest) = fields.split_first_chunk().ok_or(TlvError::Broken)?;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest.split_at_checked(length).ok_or(TlvError::Broken)?;
        if i64::from(*this) == kind {
            return Ok(Some(value));
        }
        fields = rest;
    }
    Ok(None)
}

/// `ngx_hextoi`: at least one digit, no sign.
fn hexadecimal(digits: &str) -> Option<i64> {
    if digits.starts_with('+') || digits.starts_with('-') { None } else { i64::from_str_radix(digits, 16).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(tlvs: &[u8]) -> Header {
        Header { tlvs: tlvs.into(), ..Header::default() }
    }

    #[test]
    fn fields_are_found_by_name_and_by_number() {
        let header = header(
            b"\x01\x00\x02h2\x02\x00\x01a\xae\x00\x00\x20\x00\x0b\x01\x00\x00\x01\x02\x22\x00\x03Bob\x02\x00\x01b",
        );
        for (name, value) in [
            ("alpn", Some(&b"h2"[..])),
            ("authority", Some(b"a")),
            ("0x2", Some(b"a")),
            ("0xaE", Some(b"")),
            ("0x102", None),
            ("unique_id", None),
            ("ssl_cn", Some(b"Bob")),
            ("ssl_0x22", Some(b"Bob")),
            ("ssl_version", None),
            ("ssl_verify", Some(b"258")),
        ] {
            assert_eq!(header.tlv(name).unwrap().as_deref(), value, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_had_says_why() {
        for (tlvs, name, message) in [
            (&b"\x01\x00"[..], "alpn", "broken PROXY protocol TLV"),
            (b"\x02\x00\x09ab", "alpn", "broken PROXY protocol TLV"),
            (b"", "0x", "invalid PROXY protocol TLV \"0x\""),
            (b"", "0x+1", "invalid PROXY protocol TLV \"0x+1\""),
            (b"", "0x1g", "invalid PROXY protocol TLV \"0x1g\""),
            (b"", "nonsense", "unknown PROXY protocol TLV \"nonsense\""),
            (b"\x20\x00\x05\0\0\0\0\0", "ssl_alpn", "unknown PROXY protocol TLV \"ssl_alpn\""),
            (b"\x20\x00\x04\0\0\0\0", "ssl_cn", "too short PROXY protocol TLV"),
        ] {
            assert_eq!(header(tlvs).tlv(name).unwrap_err().to_string(), message);
        }
        assert_eq!(header(b"").tlv("ssl_nonsense"), Ok(None), "without ssl nothing behind it is looked up");
    }
}
