//! A map that holds so many entries and no more: sharded, and at the bound whoever was idle longest goes.
//!
//! Keys are 128 bits of a keyed hash: whoever chooses what is hashed can neither guess the key nor aim at a shard. Entries
//! live in a list ordered by use; a call takes the lock of one shard, and allocates only while the shard grows.

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

const SHARDS: usize = 64;
/// No entry.
const NONE: u32 = u32::MAX;

/// A key of the map, made by `Bounded::key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u128);

/// See the module.
#[derive(Debug)]
pub struct Bounded<V> {
    shards: Box<[Mutex<Shard<V>>]>,
    per_shard: usize,
    hashers: (ahash::RandomState, ahash::RandomState),
    len: AtomicUsize,
    evicted: AtomicU64,
}

#[derive(Debug)]
struct Shard<V> {
    places: HashTable<u32>,
    entries: Vec<Entry<V>>,
    /// Places that were given back, linked by `next`.
    free: u32,
    /// Used last, and idle longest.
    newest: u32,
    oldest: u32,
}

#[derive(Debug)]
struct Entry<V> {
    key: u128,
    value: Option<V>,
    newer: u32,
    older: u32,
}

/// What becomes of an entry after it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Keep,
    Drop,
}

impl<V> Bounded<V> {
    /// Holds about so many entries: the bound is kept by shard, and keys spread over them evenly.
    pub fn new(entries: usize) -> Bounded<V> {
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect();
        let per_shard = entries.div_ceil(SHARDS).clamp(1, NONE as usize - 1);
        let hashers = (ahash::RandomState::new(), ahash::RandomState::new());
        Bounded { shards, per_shard, hashers, len: AtomicUsize::new(0), evicted: AtomicU64::new(0) }
    }

    /// The key of anything that can be hashed.
    pub fn key(&self, of: impl Hash) -> Key {
        let (one, other) = (self.hashers.0.hash_one(&of), self.hashers.1.hash_one(&of));
        Key(u128::from(one) << 64 | u128::from(other))
    }

    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many entries had to go for others.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// What is held under a key, used now.
    pub fn get(&self, key: Key) -> Option<V>
    where
        V: Clone,
    {
        let mut shard = self.shard(key);
        let place = shard.find(key.0)?;
        shard.touch(place);
        shard.entry(place)?.value.clone()
    }

    /// Puts a value under a key.
    pub fn put(&self, key: Key, value: V) {
        self.with(key, |held| {
            *held = Some(value);
            ((), Fate::Keep)
        });
    }

    pub fn remove(&self, key: Key) {
        self.with(key, |_| ((), Fate::Drop));
    }

    /// Looks at what is held under a key and changes it. A value that is `None` afterwards is not held.
    pub fn with<T>(&self, key: Key, change: impl FnOnce(&mut Option<V>) -> (T, Fate)) -> T {
        let mut shard = self.shard(key);
        let Some(place) = shard.find(key.0) else {
            let mut value = None;
            let (out, fate) = change(&mut value);
            if let (Some(value), Fate::Keep) = (value, fate) {
                if shard.insert(key.0, value, self.per_shard) {
                    self.evicted.fetch_add(1, Ordering::Relaxed);
                } else {
                    self.len.fetch_add(1, Ordering::Relaxed);
                }
            }
            return out;
        };
        shard.touch(place);
        let Some(entry) = shard.entry_mut(place) else { return change(&mut None).0 };
        let (out, fate) = change(&mut entry.value);
        if fate == Fate::Drop || entry.value.is_none() {
            shard.remove(place);
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
        out
    }

    /// Takes out every entry that is not to be kept. Looks at all of them, a shard at a time.
    pub fn retain(&self, keep: impl Fn(&V) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let unwanted: Vec<u32> = shard
                .places
                .iter()
                .copied()
                .filter(|place| {
                    shard.entry(*place).and_then(|entry| entry.value.as_ref()).is_some_and(|value| !keep(value))
                })
                .collect();
            self.len.fetch_sub(unwanted.len(), Ordering::Relaxed);
            for place in unwanted {
                shard.remove(place);
            }
        }
    }

    fn shard(&self, Key(key): Key) -> MutexGuard<'_, Shard<V>> {
        // The lower half places a key within its shard; the upper half chooses the shard.
        let index = (key >> 64) as usize % SHARDS;
        let shard = self.shards.get(index).unwrap_or_else(|| unreachable!("a remainder of SHARDS"));
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Default for Shard<V> {
    fn default() -> Shard<V> {
        Shard { places: HashTable::new(), entries: Vec::new(), free: NONE, newest: NONE, oldest: NONE }
    }
}

impl<V> Shard<V> {
    fn entry(&self, place: u32) -> Option<&Entry<V>> {
        self.entries.get(place as usize)
    }

    fn entry_mut(&mut self, place: u32) -> Option<&mut Entry<V>> {
        self.entries.get_mut(place as usize)
    }

    fn find(&self, key: u128) -> Option<u32> {
        let entries = &self.entries;
        self.places
            .find(key as u64, |place| entries.get(*place as usize).is_some_and(|entry| entry.key == key))
            .copied()
    }

    /// Makes an entry the one used last.
    fn touch(&mut self, place: u32) {
        if self.newest != place {
            self.unlink(place);
            self.link(place);
        }
    }

    fn unlink(&mut self, place: u32) {
        let Some(&Entry { newer, older, .. }) = self.entry(place) else { return };
        match self.entry_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
        match self.entry_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link(&mut self, place: u32) {
        let before = self.newest;
        if let Some(entry) = self.entry_mut(place) {
            (entry.newer, entry.older) = (NONE, before);
        }
        match self.entry_mut(before) {
            Some(entry) => entry.newer = place,
            None => self.oldest = place,
        }
        self.newest = place;
    }

    /// True if another entry had to go.
    fn insert(&mut self, key: u128, value: V, bound: usize) -> bool {
        let full = self.places.len() >= bound;
        if full {
            self.remove(self.oldest);
        }
        let entry = Entry { key, value: Some(value), newer: NONE, older: NONE };
        let place = match self.entry(self.free) {
            Some(&Entry { older: next, .. }) => {
                let place = self.free;
                self.free = next;
                if let Some(slot) = self.entry_mut(place) {
                    *slot = entry;
                }
                place
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
            }
        };
        let entries = &self.entries;
        let hash = |place: &u32| entries.get(*place as usize).map_or(0, |entry| entry.key as u64);
        self.places.insert_unique(key as u64, place, hash);
        self.link(place);
        full
    }

    fn remove(&mut self, place: u32) {
        let Some(key) = self.entry(place).map(|entry| entry.key) else { return };
        if let Ok(found) = self.places.find_entry(key as u64, |one| *one == place) {
            found.remove();
            self.unlink(place);
            let free = self.free;
            if let Some(entry) = self.entry_mut(place) {
                (entry.value, entry.newer, entry.older) = (None, NONE, free);
            }
            self.free = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn holds_no_more_than_the_bound() {
        let map = Bounded::new(1_000);
        for number in 0..50_000_u32 {
            map.put(map.key(number), number);
        }
        assert!(map.len() <= 1_000 + SHARDS, "{}", map.len());
        assert_eq!(map.evicted() as usize + map.len(), 50_000);
        let last = map.key(49_999_u32);
        assert_eq!(map.get(last), Some(49_999));
        map.remove(last);
        map.remove(last);
        assert_eq!(map.get(last), None);
        map.retain(|value| value % 2 == 0);
        assert!((0..50_000_u32).all(|number| map.get(map.key(number)).is_none_or(|value| value % 2 == 0)));
    }

    #[derive(Clone, Debug)]
    enum Call {
        Put(u8),
        Get(u8),
        Remove(u8),
    }

    fn call() -> impl Strategy<Value = Call> {
        prop_oneof![
            any::<u8>().prop_map(Call::Put),
            any::<u8>().prop_map(Call::Get),
            any::<u8>().prop_map(Call::Remove)
        ]
    }

    proptest! {
        /// One shard against a list that does the same in the plainest way.
        #[test]
        fn the_idle_longest_goes(calls in prop::collection::vec(call(), 0..400)) {
            let bound = 8;
            let mut shard = Shard::<u8>::default();
            let mut model: VecDeque<u8> = VecDeque::new();
            for call in calls {
                match call {
                    Call::Put(key) => {
                        let known = model.iter().position(|one| *one == key);
                        match shard.find(u128::from(key)) {
                            Some(place) => shard.touch(place),
                            None => {
                                shard.insert(u128::from(key), key, bound);
                            }
                        }
                        if let Some(at) = known {
                            model.remove(at);
                        } else if model.len() == bound {
                            model.pop_back();
                        }
                        model.push_front(key);
                    }
                    Call::Get(key) => {
                        let found = shard.find(u128::from(key));
                        prop_assert_eq!(found.is_some(), model.contains(&key));
                        if let Some(place) = found {
                            shard.touch(place);
                            model.retain(|one| *one != key);
                            model.push_front(key);
                        }
                    }
                    Call::Remove(key) => {
                        if let Some(place) = shard.find(u128::from(key)) {
                            shard.remove(place);
                        }
                        model.retain(|one| *one != key);
                    }
                }
                let mut listed = Vec::new();
                let mut place = shard.newest;
                while let Some(entry) = shard.entry(place) {
                    listed.extend(entry.value);
                    place = entry.older;
                }
                prop_assert_eq!(&listed, &Vec::from(model.clone()));
                prop_assert!(shard.entries.len() <= bound + 1);
            }
        }
    }

    #[test]
    fn nothing_is_allocated_for_what_is_known() {
        let map = Bounded::new(1_000);
        let key = map.key("somebody");
        map.put(key, 1_u64);
        let info = allocation_counter::measure(|| {
            for _ in 0..100 {
                let key = map.key("somebody");
                map.with(key, |value| {
                    *value = value.map(|value| value + 1);
                    ((), Fate::Keep)
                });
            }
        });
        assert_eq!(info.count_total, 0);
        assert_eq!(map.get(key), Some(101));
    }
}
