//! Keys of answers: their digests, the names of their files, and the variants that `Vary` makes of them.

use crate::http::{heads::Fields, temp_files};
use md5::{Digest as _, Md5};
use std::path::{Path, PathBuf};

/// What an answer is found by: MD5 of its key, or of its variant.
pub type Digest = [u8; 16];

/// The key of a request (`_cache_key`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub text: Vec<u8>,
    pub digest: Digest,
    /// A second look at the text, for the rare case that two have the same digest.
    pub crc: u32,
}

impl Key {
    /// The key of a text (`ngx_http_file_cache_create_key`).
    pub fn new(text: Vec<u8>) -> Self {
        let digest = Md5::digest(&text).into();
        let mut crc = flate2::Crc::new();
        crc.update(&text);
        Self { text, digest, crc: crc.sum() }
    }
}

/// Where a digest's file is: its name in hexadecimal digits, in folders named by the last of them.
pub(super) fn path(folder: &Path, levels: &[usize], digest: &Digest) -> PathBuf {
    let name = hexadecimal(digest);
    temp_files::place(folder, levels, &name).join(name)
}

/// A digest as it is written.
pub fn hexadecimal(digest: &Digest) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest that the name of a file stands for: its last 32 digits.
pub fn of_name(name: &[u8]) -> Option<Digest> {
    let digits = std::str::from_utf8(name.last_chunk::<32>()?).ok()?;
    let mut digest = [0; 16];
    for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(digest)
}

/// The digest of a variant: of the fields that `vary` names, as the request has them (`ngx_http_file_cache_vary`).
pub fn variant(main: &Digest, vary: &[u8], fields: &Fields) -> Digest {
    let mut md5 = Md5::new();
    md5.update(main);
    for name in words(vary) {
        let name = name.to_ascii_lowercase();
        md5.update(&name);
        md5.update(b":");
        let lists = matches!(&name[..], b"accept-charset" | b"accept-encoding" | b"accept-language");
        let mut values = fields.get_all(&name).flat_map(|value| match lists {
            // However they are spaced, they mean the same.
            true => words(value).collect::<Vec<_>>(),
            false => vec![value],
        });
        if let Some(first) = values.next() {
            md5.update(first);
        }
        for value in values {
            md5.update(b",");
            md5.update(value);
        }
        md5.update(b"\r\n");
    }
    md5.finalize().into()
}

/// What stands between commas and spaces.
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b',' | b' ')).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_the_digest_of_its_key() {
        let key = Key::new(b"http://127.0.0.1:8081/t.html".to_vec());
        assert_eq!(hexadecimal(&key.digest), "f3f218007977e125dbf91caf14778c5d");
        let at = |levels: &[usize]| path(Path::new("/c"), levels, &key.digest);
        assert_eq!(at(&[]), Path::new("/c/f3f218007977e125dbf91caf14778c5d"));
        assert_eq!(at(&[1, 2]), Path::new("/c/d/c5/f3f218007977e125dbf91caf14778c5d"));
        assert_eq!(of_name(b"f3f218007977e125dbf91caf14778c5d"), Some(key.digest));
        for name in [
            "",
            "f3f218007977e125dbf91caf14778c5",
            "x3f218007977e125dbf91caf14778c5d",
            "+3f218007977e125dbf91caf14778c5d",
        ] {
            assert_eq!(of_name(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_variant_depends_on_the_fields_that_are_named_and_lists_on_their_words() {
        let main = Key::new(b"k".to_vec()).digest;
        let of = |vary: &str, fields: &[(&str, &str)]| {
            let mut all = Fields::new();
            for (name, value) in fields {
                all.push(name.as_bytes().to_vec(), value.as_bytes().to_vec());
            }
            variant(&main, vary.as_bytes(), &all)
        };
        let plain = of("Accept-Encoding", &[("Accept-Encoding", "gzip, deflate")]);
        for same in [
            of("accept-encoding", &[("accept-encoding", "gzip,deflate")]),
            of(" Accept-Encoding,", &[("Accept-Encoding", " gzip ,, deflate"), ("X", "y")]),
            of("Accept-Encoding", &[("Accept-Encoding", "gzip"), ("Accept-Encoding", "deflate")]),
        ] {
            assert_eq!(same, plain);
        }
        for other in [
            of("Accept-Encoding", &[]),
            of("Accept-Encoding", &[("Accept-Encoding", "deflate, gzip")]),
            of("Accept-Encoding, X", &[("Accept-Encoding", "gzip, deflate")]),
        ] {
            assert_ne!(other, plain);
        }
        assert_ne!(of("X", &[("X", "a, b")]), of("X", &[("X", "a,b")]));
        assert_eq!(of("X", &[("X", "a"), ("X", "b")]), of("X", &[("x", "a,b")]));
    }
}
