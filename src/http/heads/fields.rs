//! The fields of a head: an ordered list that keeps every name as it was written.

use bytes::Bytes;

/// One field of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// As written; its case is kept.
    pub name: Bytes,
    /// Without the spaces around it.
    pub value: Bytes,
}

/// The fields of a head in the order they were written (`ngx_list_t headers`). Names compare without regard to case;
/// heads are short, so a look-up walks the list and compares lengths first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(Vec<Field>);

impl Fields {
    /// None.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// None, with room for `n`.
    pub fn with_capacity(n: usize) -> Self {
        Self(Vec::with_capacity(n))
    }

    /// Adds a field at the end.
    pub fn push(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.0.push(Field { name: name.into(), value: value.into() });
    }

    /// Adds a field at the end.
    pub fn add(&mut self, field: Field) {
        self.0.push(field);
    }

    /// The value of the first field of that name.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&[u8]> {
        self.find(name).map(|field| &*field.value)
    }

    /// The first field of that name.
    pub fn find(&self, name: impl AsRef<[u8]>) -> Option<&Field> {
        let name = name.as_ref();
        self.0.iter().find(|field| same(&field.name, name))
    }

    /// The values of all fields of that name, in order.
    pub fn get_all<'a>(&'a self, name: &'a (impl AsRef<[u8]> + ?Sized)) -> impl Iterator<Item = &'a [u8]> {
        let name = name.as_ref();
        self.0.iter().filter(move |field| same(&field.name, name)).map(|field| &*field.value)
    }

    /// Whether there is a field of that name.
    pub fn contains(&self, name: impl AsRef<[u8]>) -> bool {
        self.find(name).is_some()
    }

    /// Takes out every field of that name and says whether there was one.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) -> bool {
        let (name, before) = (name.as_ref(), self.0.len());
        self.0.retain(|field| !same(&field.name, name));
        self.0.len() != before
    }

    /// Leaves one field of that name with that value: in the place of the first if there was one, else at the end.
    pub fn set(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter().position(|field| same(&field.name, &name)) {
            None => self.0.push(Field { name, value }),
            Some(first) => {
                let mut at = 0;
                self.0.retain(|field| {
                    at += 1;
                    at <= first + 1 || !same(&field.name, &name)
                });
                self.0[first] = Field { name, value };
            }
        }
    }

    /// Keeps the fields for which `keep` says so.
    pub fn retain(&mut self, keep: impl FnMut(&Field) -> bool) {
        self.0.retain(keep);
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Field> {
        self.0.iter()
    }

    /// In order, to change.
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Field> {
        self.0.iter_mut()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out all.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = &'a Field;
    type IntoIter = std::slice::Iter<'a, Field>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl IntoIterator for Fields {
    type Item = Field;
    type IntoIter = std::vec::IntoIter<Field>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<N: Into<Bytes>, V: Into<Bytes>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        Self(fields.into_iter().map(|(name, value)| Field { name: name.into(), value: value.into() }).collect())
    }
}

/// Whether two names are the same name. It is quickest where they are spelt alike.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && (a == b || a.eq_ignore_ascii_case(b))
}

/// `name` as bytes of their own: the spellings most clients and servers use need no share of the head's memory.
pub(super) fn name(head: &Bytes, from: usize, to: usize) -> Bytes {
    let name = &head[from..to];
    let usual: &[&'static str] = match name.len() {
        4 => &["Host", "Date", "ETag", "Vary"],
        6 => &["Accept", "Cookie", "Server", "Origin"],
        7 => &["Referer", "Upgrade"],
        10 => &["User-Agent", "Connection", "Set-Cookie"],
        12 => &["Content-Type"],
        13 => &["Cache-Control", "Accept-Ranges", "Last-Modified", "Authorization"],
        14 => &["Content-Length"],
        15 => &["Accept-Encoding", "Accept-Language"],
        17 => &["Transfer-Encoding", "If-Modified-Since"],
        _ => &[],
    };
    match usual.iter().find(|usual| usual.as_bytes() == name) {
        Some(usual) => Bytes::from_static(usual.as_bytes()),
        None => head.slice(from..to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Fields {
        [("Host", "a"), ("X-One", "1"), ("x-one", "2"), ("Accept", "*/*")].into_iter().collect()
    }

    #[test]
    fn the_first_field_of_a_name_is_found_in_any_case() {
        assert_eq!(sample().get("HOST"), Some(&b"a"[..]));
        assert_eq!(sample().get("X-ONE"), Some(&b"1"[..]));
        assert_eq!(sample().get("X-On"), None);
        assert_eq!(sample().get_all("x-oNe").collect::<Vec<_>>(), [b"1", b"2"]);
        assert!(sample().contains("accept") && !sample().contains("accept-"));
    }

    #[test]
    fn set_keeps_the_place_of_the_first_and_drops_the_others() {
        let mut fields = sample();
        fields.set("X-ONE", "3");
        let all: Vec<_> = fields.iter().map(|field| (&*field.name, &*field.value)).collect();
        assert_eq!(all, [(&b"Host"[..], &b"a"[..]), (b"X-ONE", b"3"), (b"Accept", b"*/*")]);
        fields.set("New", "4");
        assert_eq!(fields.get("new"), Some(&b"4"[..]));
        assert_eq!(fields.len(), 4);
    }

    #[test]
    fn remove_takes_out_all_of_a_name() {
        let mut fields = sample();
        assert!(fields.remove("x-one"));
        assert!(!fields.remove("x-one"));
        assert_eq!(fields.len(), 2);
    }

    #[test]
    fn a_usual_name_keeps_its_spelling_and_shares_nothing() {
        let head = Bytes::from_static(b"Host: a\r\nhost: b\r\n");
        assert_eq!(name(&head, 0, 4), "Host");
        assert_eq!(name(&head, 9, 13), "host");
    }
}
