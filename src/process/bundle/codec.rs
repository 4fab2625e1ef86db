//! Values as bytes between the master and the worker: lengths and numbers in little endian, nothing self-describing.

/// The bytes were not written by [`Writer`], or end too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message between master and worker")]
pub(crate) struct Malformed;

/// Appends values.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub Vec<u8>);

impl Writer {
    /// A number.
    pub(crate) fn number(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes, with their length before them.
    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.number(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// A list, with its length before it.
    pub(crate) fn list<T>(&mut self, values: impl ExactSizeIterator<Item = T>, mut write: impl FnMut(&mut Self, T)) {
        self.number(values.len() as u64);
        values.for_each(|value| write(self, value));
    }
}

/// Takes values off the front.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// A number.
    pub(crate) fn number(&mut self) -> Result<u64, Malformed> {
        let (number, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*number))
    }

    /// A number that fits the target.
    pub(crate) fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Malformed> {
        self.number()?.try_into().map_err(|_| Malformed)
    }

    /// Bytes.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.small()?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// A list.
    pub(crate) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let length = self.number()?;
        // Not reserved: a wrong length must not cost memory.
        let mut values = Vec::new();
        for _ in 0..length {
            values.push(read(self)?);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut writer = Writer::default();
        writer.number(7);
        writer.list([&b"ab"[..], b"", b"c"].into_iter(), |writer, item| writer.bytes(item));
        let mut reader = Reader(&writer.0);
        assert_eq!(reader.small::<u8>(), Ok(7));
        assert_eq!(reader.list(|reader| reader.bytes()).unwrap(), [&b"ab"[..], b"", b"c"]);
        assert!(reader.0.is_empty());
    }

    #[test]
    fn a_cut_message_is_malformed_and_costs_nothing() {
        let mut writer = Writer::default();
        writer.number(u64::MAX);
        assert_eq!(Reader(&writer.0).bytes(), Err(Malformed));
        assert_eq!(Reader(&writer.0).list(|reader| reader.bytes()), Err(Malformed));
        assert_eq!(Reader(&writer.0).small::<u8>(), Err(Malformed));
        assert_eq!(Reader(&writer.0[1..]).number(), Err(Malformed));
    }
}
