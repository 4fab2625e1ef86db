//! Hashed passwords, in the forms that nginx and the system's `crypt` know (`ngx_crypt`).

use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};
use sha1::Sha1;

/// Whether a password is the one that was hashed.
pub(super) fn fits(password: &[u8], hash: &[u8]) -> bool {
    if let Some(salt) = hash.strip_prefix(b"$apr1$") {
        let salt = salt.split(|byte| *byte == b'$').next().unwrap_or_default();
        return same(apr1(password, &salt[..salt.len().min(8)]).as_bytes(), hash);
    }
    if let Some(plain) = hash.strip_prefix(b"{PLAIN}") {
        return same(password, plain);
    }
    if let Some(coded) = hash.strip_prefix(b"{SSHA}") {
        let decoded = STANDARD.decode(coded).unwrap_or_default();
        let salt = decoded.get(20..).unwrap_or_default();
        return decoded.len() >= 20 && same(&[&sha1(&[password, salt])[..], salt].concat(), &decoded);
    }
    if let Some(coded) = hash.strip_prefix(b"{SHA}") {
        return same(STANDARD.encode(sha1(&[password])).as_bytes(), coded);
    }
    std::str::from_utf8(hash).is_ok_and(|hash| pwhash::unix::verify(password, hash))
}

/// Compares in a time that says nothing of where the texts differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut hash = Sha1::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

fn md5(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// Apache's variant of the MD5 crypt by Poul-Henning Kamp.
fn apr1(password: &[u8], salt: &[u8]) -> String {
    let inner = md5(&[password, salt, password]);
    let mut hash = Md5::new();
    hash.update([password, b"$apr1$", salt].concat());
    hash.update(inner.iter().copied().cycle().take(password.len()).collect::<Vec<u8>>());
    let mut bits = password.len();
    while bits > 0 {
        let byte = if bits & 1 == 1 { 0 } else { password.first().copied().unwrap_or(0) };
        hash.update([byte]);
        bits >>= 1;
    }
    let mut last: [u8; 16] = hash.finalize().into();
    for round in 0..1000 {
        let odd = round % 2 == 1;
        let (first, end): (&[u8], &[u8]) = if odd { (password, &last) } else { (&last, password) };
        let salt: &[u8] = if round % 3 == 0 { b"" } else { salt };
        let middle: &[u8] = if round % 7 == 0 { b"" } else { password };
        last = md5(&[first, salt, middle, end]);
    }
    let mut out = format!("$apr1${}$", String::from_utf8_lossy(salt));
    for [high, middle, low] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        let [high, middle, low] = [high, middle, low].map(|at: usize| u32::from(last[at]));
        letters(&mut out, high << 16 | middle << 8 | low, 4);
    }
    letters(&mut out, u32::from(last[11]), 2);
    out
}

/// Appends so many letters of six bits each, the lowest first.
fn letters(out: &mut String, mut bits: u32, count: usize) {
    const LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for _ in 0..count {
        out.push(char::from(LETTERS[(bits & 63) as usize]));
        bits >>= 6;
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn each_form_of_hash_knows_its_password() {
        for (password, hash) in [
            ("password", "$apr1$salt$Xxd1irWT9ycqoYxGFn4cb."),
            ("longerpasswordthansixteen", "$apr1$saltsalt$mzSf.gwIzFqrApdikXE1N1"),
            ("password", "{PLAIN}password"),
            ("password", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="),
            ("password", "{SSHA}yI6cZwQadOA1e+/f+T+H3eCQQhRzYWx0"),
            ("password", "abJnggxhB/yWI"),
            ("password", "$1$saltsalt$qjXMvbEw8oaL.CzflDtaK/"),
            ("password", "$5$saltsalt$gOjOtoMpVhru2uyjeJSEc/JaLQWOXMNmlOnj6T4AtC."),
            (
                "password",
                "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/",
            ),
            ("password", "$2y$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu"),
        ] {
            assert!(fits(password.as_bytes(), hash.as_bytes()), "{hash}");
            assert!(!fits(b"other", hash.as_bytes()), "{hash}");
        }
    }
}
