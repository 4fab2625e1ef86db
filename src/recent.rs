//! Values by their keys, in the order in which they were last used.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// A map that knows which of its keys was not used for the longest time.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    by_key: HashMap<K, Used<V>>,
    by_use: BTreeMap<u64, K>,
    uses: u64,
}

#[derive(Debug)]
struct Used<V> {
    last: u64,
    value: V,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }
}

impl<K: Eq + Hash + Clone, V> Recent<K, V> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Looks at a value, which is no use of it.
    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.by_key.get(key).map(|used| &used.value)
    }

    /// The same, to change it.
    pub(crate) fn get_mut<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.by_key.get_mut(key).map(|used| &mut used.value)
    }

    /// Uses a value: its key goes behind all others.
    pub(crate) fn touch<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let used = self.by_key.get_mut(key)?;
        self.uses += 1;
        if let Some(key) = self.by_use.remove(&used.last) {
            self.by_use.insert(self.uses, key);
        }
        used.last = self.uses;
        Some(&mut used.value)
    }

    /// Adds a value, behind all others, or puts it in the place of another.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.uses += 1;
        if let Some(before) = self.by_key.insert(key.clone(), Used { last: self.uses, value }) {
            self.by_use.remove(&before.last);
        }
        self.by_use.insert(self.uses, key);
    }

    /// Forgets a key.
    pub(crate) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let used = self.by_key.remove(key)?;
        self.by_use.remove(&used.last);
        Some(used.value)
    }

    /// Takes the one that was not used for the longest time, if it is such a one.
    pub(crate) fn take_oldest_if(&mut self, is: impl FnOnce(&V) -> bool) -> Option<V> {
        let key = self.oldest().next().filter(|(_, value)| is(value))?.0.clone();
        self.remove(&key)
    }

    /// All of them, that which was not used for the longest time first.
    pub(crate) fn oldest(&self) -> impl Iterator<Item = (&K, &V)> {
        self.by_use.values().filter_map(|key| Some((key, self.get(key)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_used_goes_behind_all_others() {
        let mut all: Recent<String, u32> = Recent::default();
        let order =
            |all: &Recent<String, u32>| all.oldest().map(|(key, value)| format!("{key}{value}")).collect::<Vec<_>>();
        for (number, key) in ["a", "b", "c"].into_iter().enumerate() {
            all.insert(key.into(), number as u32);
        }
        assert_eq!(order(&all), ["a0", "b1", "c2"]);
        *all.touch("a").unwrap() += 10;
        *all.get_mut("b").unwrap() += 10;
        assert_eq!(order(&all), ["b11", "c2", "a10"]);
        all.insert("c".into(), 3);
        assert_eq!((order(&all), all.get("c")), (vec!["b11".into(), "a10".into(), "c3".into()], Some(&3)));
        assert_eq!((all.remove("a"), all.remove("a"), all.len()), (Some(10), None, 2));
        assert_eq!(order(&all), ["b11", "c3"]);
        assert_eq!(all.touch("x"), None);
        assert_eq!(all.take_oldest_if(|value| *value == 3), None);
        assert_eq!(all.take_oldest_if(|value| *value == 11), Some(11));
        assert_eq!(order(&all), ["c3"]);
    }
}
