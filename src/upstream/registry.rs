//! Things found by key for as long as somebody holds them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Shared values by key; it does not keep them alive.
#[derive(Debug)]
pub(crate) struct Registry<K, V>(Mutex<Entries<K, V>>);

#[derive(Debug)]
struct Entries<K, V> {
    map: HashMap<K, Weak<V>>,
    /// Entries of values that are gone are removed when there are this many in all: a constant cost per value.
    sweep_at: usize,
}

const SWEEP_MIN: usize = 64;

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        Registry(Mutex::new(Entries { map: HashMap::new(), sweep_at: SWEEP_MIN }))
    }
}

impl<K: Eq + Hash, V> Registry<K, V> {
    /// The value of a key, made if nobody holds one.
    pub(crate) fn find_or_make(&self, key: K, make: impl FnOnce() -> V) -> Arc<V> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = entries.map.get(&key).and_then(Weak::upgrade) {
            return value;
        }
        if entries.map.len() >= entries.sweep_at {
            entries.map.retain(|_, value| value.strong_count() > 0);
            entries.sweep_at = SWEEP_MIN.max(entries.map.len() * 2);
        }
        let value = Arc::new(make());
        entries.map.insert(key, Arc::downgrade(&value));
        value
    }

    /// How many values are held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.map.values().filter(|value| value.strong_count() > 0).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_held_and_forgets_the_rest() {
        let registry = Registry::default();
        let one = registry.find_or_make(1, || 10);
        assert!(Arc::ptr_eq(&one, &registry.find_or_make(1, || 11)));
        drop(one);
        assert_eq!(*registry.find_or_make(1, || 12), 12);
        let held: Vec<_> = (0..50).map(|key| registry.find_or_make(key, || key)).collect();
        for key in 100..10_000 {
            registry.find_or_make(key, || key);
        }
        let entries = registry.0.lock().unwrap().map.len();
        assert!((50..=SWEEP_MIN * 2).contains(&entries), "{entries}");
        drop(held);
        assert_eq!(registry.held(), 0);
    }
}
