//! CRC-32 as Ethernet and zlib have it (`ngx_crc32_long`), in steps.

/// The sum of what was added so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crc32(u32);

impl Crc32 {
    pub(super) const fn new() -> Self {
        Self(u32::MAX)
    }

    #[must_use]
    pub(super) fn add(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |sum, byte| TABLE[usize::from(sum as u8 ^ byte)] ^ (sum >> 8)))
    }

    pub(super) fn value(self) -> u32 {
        !self.0
    }
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::Crc32;

    #[test]
    fn the_check_value_of_the_catalogue_is_met_in_any_steps() {
        let whole = Crc32::new().add(b"123456789");
        assert_eq!(whole.value(), 0xcbf4_3926);
        assert_eq!(Crc32::new().add(b"1234").add(b"").add(b"56789"), whole);
        assert_eq!(Crc32::new().value(), 0);
    }
}
