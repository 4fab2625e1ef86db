//! The host a request names, checked as `ngx_http_validate_host` does.

use bytes::Bytes;

/// A host as servers are chosen by it, and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// In lower case, without port and without a trailing dot; an IPv6 address keeps its brackets. (`$host`)
    pub name: Bytes,
    /// 0 if none was written.
    pub port: u16,
}

impl Host {
    /// From the text of a `Host` field or of an authority, which may have a port. `None` if nginx refuses it.
    pub fn parse(text: &Bytes) -> Option<Self> {
        let (length, port) = check(text)?;
        Some(Self::checked(text.slice(..length), port))
    }

    /// From what [`check`] found.
    pub(super) fn checked(name: Bytes, port: u16) -> Self {
        let name = if name.iter().any(u8::is_ascii_uppercase) { name.to_ascii_lowercase().into() } else { name };
        Self { name, port }
    }
}

/// The length of the name within `text`, and the port.
pub(super) fn check(text: &[u8]) -> Option<(usize, u16)> {
    let mut last_dot = None;
    let mut bracketed = false;
    let mut end = text.len();
    let mut port = 0;
    let mut at = 0;
    if text.first() == Some(&b'[') {
        bracketed = true;
        at = 1;
    }
    loop {
        let Some(&byte) = text.get(at) else {
            if bracketed {
                return None;
            }
            break;
        };
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {}
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => {}
            b'.' => {
                if at > 0 && last_dot == Some(at - 1) {
                    return None;
                }
                last_dot = Some(at);
            }
            b':' if bracketed => {}
            b']' if bracketed => {
                end = at + 1;
                match text.get(end) {
                    None => break,
                    Some(b':') => port = number(&text[end + 1..])?,
                    Some(_) => return None,
                }
                break;
            }
            b'%' if !bracketed => {}
            b':' => {
                end = at;
                port = number(&text[at + 1..])?;
                break;
            }
            _ => return None,
        }
        at += 1;
    }
    if end > 0 && last_dot == Some(end - 1) {
        end -= 1;
    }
    (end > 0).then_some((end, port))
}

/// A port; none at all is 0.
fn number(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0u16, |port, byte| match byte {
        b'0'..=b'9' => port.checked_mul(10)?.checked_add(u16::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_lowered_and_parted_from_its_port() {
        let cases: [(&str, &str, u16); 12] = [
            ("example.com", "example.com", 0),
            ("EXAMPLE.com:8080", "example.com", 8080),
            ("example.com.", "example.com", 0),
            ("example.com.:80", "example.com", 80),
            ("example.com:", "example.com", 0),
            ("a:65535", "a", 65535),
            ("a:00080", "a", 80),
            ("[::1]", "[::1]", 0),
            ("[FE80::1]:443", "[fe80::1]", 443),
            ("a_b~!$&'()*+,;=%41", "a_b~!$&'()*+,;=%41", 0),
            (".a", ".a", 0),
            ("[", "", 0),
        ];
        for (text, name, port) in cases {
            let expected = (!name.is_empty()).then(|| Host { name: name.to_owned().into(), port });
            assert_eq!(Host::parse(&Bytes::from(text)), expected, "{text}");
        }
    }

    #[test]
    fn what_nginx_refuses_has_no_host() {
        for text in [
            "", ".", ":80", "a..b", "a b", "a/b", "a@b", "a:8x", "a:65536", "a:100000", "[::1", "[::1]x", "a\0",
            "[%1]", "a:1:2",
        ] {
            assert_eq!(Host::parse(&Bytes::from(text)), None, "{text}");
        }
    }
}
