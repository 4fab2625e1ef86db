//! Percent escaping and its reverse, in each of the flavours nginx has.

use std::borrow::Cow;

/// What a string is escaped for; it decides which bytes are replaced (the types of `ngx_escape_uri`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Escape {
    /// A path: `proxy_pass`, automatic redirects.
    Uri,
    /// A captured part that goes into arguments: `rewrite ^/(.*)$ /x?q=$1`.
    Args,
    /// One component, where even `/` has no meaning of its own: cookies, `split_clients` keys, DAV.
    UriComponent,
    /// A link inside an HTML page: `autoindex`.
    Html,
    /// The address in the page of `msie_refresh`.
    Refresh,
    /// A memcached key.
    Memcached,
    /// A header sent to the mail authentication server.
    MailAuth,
}

/// Which bytes are replaced.
type Table = [bool; 256];

static URI: Table = table(b" \"#%<>?\\^`{|}\x7f", true);
static ARGS: Table = table(b" \"#%&+;<>?\\^`{|}\x7f", true);
static URI_COMPONENT: Table = table(b" !\"#$%&'()*+,/:;<=>?@[\\]^`{|}\x7f", true);
static HTML: Table = table(b" \"#%'<>\\^`{|}\x7f", true);
// `}` passes and `~` does not: nginx's own table has it so.
static REFRESH: Table = table(b" \"'<>\\^`{|~\x7f", true);
static MEMCACHED: Table = table(b" %", false);

/// All control bytes, `chars`, and all bytes above ASCII if `high`.
const fn table(chars: &[u8], high: bool) -> Table {
    let mut table = [false; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = at < 0x20 || (high && at > 0x7f);
        at += 1;
    }
    at = 0;
    while at < chars.len() {
        table[chars[at] as usize] = true;
        at += 1;
    }
    table
}

impl Escape {
    fn table(self) -> &'static Table {
        match self {
            Self::Uri => &URI,
            Self::Args => &ARGS,
            Self::UriComponent => &URI_COMPONENT,
            Self::Html => &HTML,
            Self::Refresh => &REFRESH,
            Self::Memcached | Self::MailAuth => &MEMCACHED,
        }
    }
}

/// Appends `bytes` to `out` with `%XX` (capital digits) for what the flavour does not let pass (`ngx_escape_uri`).
pub fn escape(bytes: &[u8], flavour: Escape, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let table = flavour.table();
    out.reserve(bytes.len());
    for &byte in bytes {
        if table[usize::from(byte)] {
            out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        } else {
            out.push(byte);
        }
    }
}

/// The same as a value: borrowed when nothing has to be replaced.
pub fn escaped(bytes: &[u8], flavour: Escape) -> Cow<'_, [u8]> {
    let table = flavour.table();
    if !bytes.iter().any(|&byte| table[usize::from(byte)]) {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::new();
    escape(bytes, flavour, &mut out);
    Cow::Owned(out)
}

/// Appends `bytes` to `out` with entities for `<`, `>`, `&` and `"` (`ngx_escape_html`).
pub fn escape_html(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len());
    for &byte in bytes {
        match byte {
            b'<' => out.extend(b"&lt;"),
            b'>' => out.extend(b"&gt;"),
            b'&' => out.extend(b"&amp;"),
            b'"' => out.extend(b"&quot;"),
            _ => out.push(byte),
        }
    }
}

/// How far unescaping goes (the types of `ngx_unescape_uri`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unescape {
    /// Everything.
    Plain,
    /// Up to and including the first `?`: a raw one, or (nginx's way) one written `%3F`.
    Uri,
    /// As `Uri`, and only what reads the same in a header: `rewrite … redirect`.
    Redirect,
}

/// Appends `bytes` to `out` with `%XX` replaced, and tells how many bytes of the input were read: in `Uri` and
/// `Redirect` it stops behind a `?`, and what follows is the caller's to copy.
///
/// As in `ngx_unescape_uri` nothing is an error: of a broken escape the `%` goes, and its first digit if it had one
/// with the byte behind it.
pub fn unescape(bytes: &[u8], how: Unescape, out: &mut Vec<u8>) -> usize {
    out.reserve(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if byte != b'%' {
            out.push(byte);
            if byte == b'?' && how != Unescape::Plain {
                return at;
            }
            continue;
        }
        let Some(&first) = bytes.get(at) else { break };
        at += 1;
        let Some(high) = super::hex(first) else {
            out.push(first);
            continue;
        };
        let Some(&second) = bytes.get(at) else { break };
        at += 1;
        let Some(low) = super::hex(second) else { continue };
        let value = high << 4 | low;
        if how == Unescape::Redirect && value != b'?' && !(value > b'%' && value < 0x7f) {
            out.extend([b'%', first, second]);
            continue;
        }
        out.push(value);
        if value == b'?' && how != Unescape::Plain {
            return at;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_flavour_escapes_its_own_bytes() {
        let printable: Vec<u8> = (b' '..=b'~').filter(|byte| !byte.is_ascii_alphanumeric()).collect();
        for (flavour, replaced) in [
            (Escape::Uri, r##" "#%<>?\^`{|}"##),
            (Escape::Args, r##" "#%&+;<>?\^`{|}"##),
            (Escape::UriComponent, r##" !"#$%&'()*+,/:;<=>?@[\]^`{|}"##),
            (Escape::Html, r##" "#%'<>\^`{|}"##),
            (Escape::Refresh, r#" "'<>\^`{|~"#),
            (Escape::Memcached, " %"),
            (Escape::MailAuth, " %"),
        ] {
            let got: Vec<u8> = printable.iter().copied().filter(|&byte| escaped(&[byte], flavour).len() == 3).collect();
            assert_eq!(String::from_utf8_lossy(&got), replaced, "{flavour:?}");
            assert_eq!(&*escaped(b"\x00\x1faZ09", flavour), b"%00%1FaZ09");
        }
        assert_eq!(&*escaped(b"\x7f\x80\xff", Escape::Uri), b"%7F%80%FF");
        assert_eq!(&*escaped(b"\x7f\x80\xff", Escape::Memcached), b"\x7f\x80\xff");
    }

    #[test]
    fn a_string_without_special_bytes_is_not_copied() {
        assert!(matches!(escaped(b"/a/b.html", Escape::Uri), Cow::Borrowed(_)));
    }

    #[test]
    fn html_gets_entities() {
        let mut out = Vec::new();
        escape_html(b"<a href=\"x\">'&'</a>", &mut out);
        assert_eq!(out, b"&lt;a href=&quot;x&quot;&gt;'&amp;'&lt;/a&gt;");
    }

    #[test]
    fn unescaping_is_as_forgiving_as_nginx() {
        for (input, how, output, read) in [
            ("a%20b", Unescape::Plain, "a b", 5),
            ("a?b%3fc", Unescape::Plain, "a?b?c", 7),
            ("%zz%4g%4", Unescape::Plain, "zz", 8),
            ("%", Unescape::Plain, "", 1),
            ("a%20?b%20", Unescape::Uri, "a ?", 5),
            ("a%3Fb%20", Unescape::Uri, "a?", 4),
            ("%2f%26%25%24%7f%20", Unescape::Redirect, "/&%25%24%7f%20", 18),
            ("%2f?%2f", Unescape::Redirect, "/?", 4),
            ("a%3fb", Unescape::Redirect, "a?", 4),
        ] {
            let mut out = Vec::new();
            assert_eq!(unescape(input.as_bytes(), how, &mut out), read, "{input}");
            assert_eq!(String::from_utf8_lossy(&out), output, "{input}");
        }
    }

    proptest! {
        #[test]
        fn what_was_escaped_comes_back(bytes: Vec<u8>) {
            for flavour in [Escape::Uri, Escape::Args, Escape::UriComponent, Escape::Html, Escape::Memcached] {
                let mut out = Vec::new();
                unescape(&escaped(&bytes, flavour), Unescape::Plain, &mut out);
                prop_assert_eq!(&out, &bytes);
            }
        }
    }
}
