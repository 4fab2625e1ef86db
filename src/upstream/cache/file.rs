//! The files of a cache: what stands before an answer's head. They are nginx's, byte for byte, so that a cache can
//! change hands (`ngx_http_file_cache_header_t` of a machine with 64 bits).

use super::key::{Digest, Key};
use bytes::Bytes;

/// nginx writes another number whenever the form changes (`NGX_HTTP_CACHE_VERSION`).
const VERSION: u64 = 5;

/// The longest `ETag` and `Vary` there is room for.
pub(super) const ROOM: usize = 128;

/// How long the fixed part is. Bytes.
pub(super) const FIXED: usize = 336;

/// What stands between that and the key.
const BEFORE_KEY: &[u8] = b"\nKEY: ";

/// What a file says about its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub validity: Validity,
    /// Seconds since the epoch; -1 where the answer has no `Last-Modified`.
    pub last_modified: i64,
    /// When it was stored, in seconds since the epoch.
    pub date: i64,
    pub crc: u32,
    /// Where the answer's head begins.
    pub header_start: u16,
    /// Where its body begins.
    pub body_start: u16,
    /// Empty where it has none, or one that is too long.
    pub etag: Bytes,
    /// Empty where it has none.
    pub vary: Bytes,
    /// The digest of the variant it is, if it has a `Vary`.
    pub variant: Digest,
}

/// How long an answer may be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    /// Until when, in seconds since the epoch; 0 where nothing says so.
    pub until: i64,
    /// For how many seconds more while it is fetched anew (`stale-while-revalidate`).
    pub updating: i64,
    /// For how many seconds more while that fails (`stale-if-error`).
    pub error: i64,
}

/// Why a file is no answer to a request. The texts are nginx's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("is too small")]
    TooSmall,
    #[error("version mismatch")]
    Version,
    #[error("has md5 collision")]
    Collision,
    #[error("has too long header")]
    TooLong,
    #[error("has incorrect vary length")]
    Vary,
}

/// Where the head of an answer begins whose key is so long.
pub(super) fn header_start(key: usize) -> usize {
    FIXED + BEFORE_KEY.len() + key + 1
}

impl Header {
    /// The fixed part.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED);
        out.extend_from_slice(&VERSION.to_ne_bytes());
        for number in [self.validity.until, self.validity.updating, self.validity.error, self.last_modified, self.date]
        {
            out.extend_from_slice(&number.to_ne_bytes());
        }
        out.extend_from_slice(&self.crc.to_ne_bytes());
        for number in [0, self.header_start, self.body_start] {
            out.extend_from_slice(&number.to_ne_bytes());
        }
        for text in [&self.etag, &self.vary] {
            let text = if text.len() > ROOM { &[] } else { &text[..] };
            out.push(u8::try_from(text.len()).unwrap_or(0));
            out.extend_from_slice(text);
            out.resize(out.len() + ROOM - text.len(), 0);
        }
        let variant = if self.vary.is_empty() { Digest::default() } else { self.variant };
        out.extend_from_slice(&variant);
        out.resize(FIXED, 0);
        out
    }

    /// All that stands before the head: the fixed part, and the key.
    pub fn preamble(&self, key: &Key) -> Vec<u8> {
        [&self.encode()[..], BEFORE_KEY, &key.text, b"\n"].concat()
    }

    /// Reads what a file begins with, if it is an answer to this key whose head ends within `limit` bytes
    /// (`ngx_http_file_cache_read`).
    ///
    /// # Errors
    /// Why it is none.
    pub fn read(start: &[u8], key: &Key, limit: usize) -> Result<Self, Unfit> {
        if start.len() < header_start(key.text.len()) {
            return Err(Unfit::TooSmall);
        }
        let header = Self::decode(start)?;
        let text = &start[FIXED + BEFORE_KEY.len()..][..key.text.len()];
        if header.crc != key.crc || usize::from(header.header_start) != header_start(key.text.len()) || text != key.text
        {
            return Err(Unfit::Collision);
        }
        let body_start = usize::from(header.body_start);
        if body_start > limit || body_start > start.len() || header.body_start < header.header_start {
            return Err(Unfit::TooLong);
        }
        Ok(header)
    }

    /// The fixed part alone.
    ///
    /// # Errors
    /// It is cut off, of another version, or contradicts itself.
    pub fn decode(start: &[u8]) -> Result<Self, Unfit> {
        let mut rest = start.get(..FIXED).ok_or(Unfit::TooSmall)?;
        if u64::from_ne_bytes(take(&mut rest)) != VERSION {
            return Err(Unfit::Version);
        }
        let mut number = || i64::from_ne_bytes(take(&mut rest));
        let validity = Validity { until: number(), updating: number(), error: number() };
        let (last_modified, date) = (number(), number());
        let crc = u32::from_ne_bytes(take(&mut rest));
        let [_, header_start, body_start] = [(); 3].map(|()| u16::from_ne_bytes(take(&mut rest)));
        let mut text = || {
            let [length] = take(&mut rest);
            let room: [u8; ROOM] = take(&mut rest);
            room.get(..usize::from(length)).map(Bytes::copy_from_slice)
        };
        let etag = text().unwrap_or_default();
        let vary = text().ok_or(Unfit::Vary)?;
        let variant = take(&mut rest);
        Ok(Self { validity, last_modified, date, crc, header_start, body_start, etag, vary, variant })
    }
}

/// The next so many bytes; zeros where there are none.
fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let Some((first, behind)) = rest.split_first_chunk::<N>() else { return [0; N] };
    *rest = behind;
    *first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(key: &Key) -> Header {
        let start = u16::try_from(header_start(key.text.len())).unwrap();
        Header {
            validity: Validity { until: 1_700_000_000, updating: 5, error: 7 },
            last_modified: -1,
            date: 1_600_000_000,
            crc: key.crc,
            header_start: start,
            body_start: start + 10,
            etag: Bytes::from_static(b"\"x\""),
            vary: Bytes::from_static(b"Accept-Encoding"),
            variant: [7; 16],
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let key = Key::new(b"http://a/b".to_vec());
        let header = header(&key);
        let file = [&header.preamble(&key)[..], b"0123456789body"].concat();
        assert_eq!(file.len(), header_start(key.text.len()) + 14);
        assert_eq!(Header::read(&file, &key, 4096), Ok(header.clone()));
        let bare = Header { vary: Bytes::new(), etag: vec![b'x'; 200].into(), ..header };
        let read = Header::decode(&bare.encode()).unwrap();
        assert_eq!((&read.etag[..], &read.vary[..], read.variant), (&b""[..], &b""[..], [0; 16]));
    }

    #[test]
    fn a_file_of_something_else_is_no_answer() {
        let key = Key::new(b"http://a/b".to_vec());
        let file = [&header(&key).preamble(&key)[..], b"0123456789body"].concat();
        let read = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut file = file.clone();
            change(&mut file);
            Header::read(&file, &key, 4096).unwrap_err().to_string()
        };
        assert_eq!(read(&|file| file.truncate(300)), "is too small");
        assert_eq!(read(&|file| file[0] = 4), "version mismatch");
        assert_eq!(read(&|file| file[48] ^= 1), "has md5 collision");
        assert_eq!(read(&|file| file[FIXED + 6] ^= 1), "has md5 collision");
        assert_eq!(read(&|file| file[57] = 0xff), "has too long header");
        assert_eq!(read(&|file| file[56] = 0), "has too long header");
        assert_eq!(read(&|file| file[187] = 129), "has incorrect vary length");
        assert_eq!(read(&|file| file.truncate(header_start(key.text.len()) + 5)), "has too long header");
        assert_eq!(Header::read(&file, &key, 300).unwrap_err(), Unfit::TooLong);
    }
}
