//! A map that holds so many entries and no more: sharded, and at the bound whoever was idle longest goes.
//!
//! Keys are 128 bits of a keyed hash: whoever chooses what is hashed can neither guess the key nor aim at a shard. Entries
//! stand in one open table per shard (linear probing), with the time of their last use beside them: a call takes the lock of
//! one shard, touches one cache line of a large map, and allocates only while the shard grows. Of a large shard the one that
//! goes is the one idle longest of 32 drawn, as Redis does it; of a small one it is the one idle longest.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Small maps have one shard, so that their bound is exact; large ones as many as threads could want.
const SHARDS_MAX: usize = 64;
const PER_SHARD_MIN: usize = 4096;
const DRAWN: usize = 32;

/// A key of the map, made by `Bounded::key`, or elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    bits: [u64; 2],
    /// Made by a hash that others know: its place here is by one that they do not.
    known: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Bounded<V> {
    shards: Box<[Mutex<Shard<V>>]>,
    per_shard: AtomicUsize,
    hashers: (ahash::RandomState, ahash::RandomState),
    len: AtomicUsize,
    evicted: AtomicU64,
}

#[derive(Debug)]
struct Shard<V> {
    slots: Vec<Option<Entry<V>>>,
    len: usize,
    /// Counts uses.
    clock: u32,
}

#[derive(Debug)]
struct Entry<V> {
    key: [u64; 2],
    value: V,
    /// When it was used last. Never zero, so that an empty slot needs no mark of its own.
    used: NonZeroU32,
}

/// What becomes of an entry after it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<V> {
    /// It stays as it is, there or not.
    Keep,
    Put(V),
    Drop,
}

impl Key {
    /// A key whose hash was made elsewhere, by whoever needs the same on several machines.
    pub fn from_bits(bits: [u64; 2]) -> Key {
        Key { bits, known: true }
    }

    pub fn bits(self) -> [u64; 2] {
        self.bits
    }
}

impl<V> Bounded<V> {
    /// Holds so many entries; a large map keeps the bound by shard, and keys spread over shards evenly.
    pub fn new(entries: usize) -> Bounded<V> {
        let number = (entries / PER_SHARD_MIN).clamp(1, SHARDS_MAX);
        let shards = (0..number).map(|_| Mutex::new(Shard { slots: Vec::new(), len: 0, clock: 0 })).collect();
        let hashers = (ahash::RandomState::new(), ahash::RandomState::new());
        let (len, evicted) = (AtomicUsize::new(0), AtomicU64::new(0));
        let map = Bounded { shards, per_shard: AtomicUsize::new(0), hashers, len, evicted };
        map.set_bound(entries);
        map
    }

    /// Another bound. What is held stays; with a lower bound, until others come.
    pub fn set_bound(&self, entries: usize) {
        self.per_shard.store(entries.div_ceil(self.shards.len().max(1)).max(1), Ordering::Relaxed);
    }

    /// The key of anything that can be hashed.
    pub fn key(&self, of: impl Hash) -> Key {
        Key { bits: [self.hashers.0.hash_one(&of), self.hashers.1.hash_one(&of)], known: false }
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
        self.with(key, |held| (held.cloned(), Change::Keep))
    }

    /// Puts a value under a key.
    pub fn put(&self, key: Key, value: V) {
        self.with(key, |_| ((), Change::Put(value)));
    }

    pub fn remove(&self, key: Key) {
        self.with(key, |_| ((), Change::Drop));
    }

    /// Looks at what is held under a key and changes it.
    pub fn with<T>(&self, key: Key, change: impl FnOnce(Option<&V>) -> (T, Change<V>)) -> T {
        self.change(key, true, change).unwrap_or_else(|| unreachable!("there is always room"))
    }

    /// As `with`, but nobody has to go: `None` if there is nothing under the key and no room for it either.
    pub fn with_room<T>(&self, key: Key, change: impl FnOnce(Option<&V>) -> (T, Change<V>)) -> Option<T> {
        self.change(key, false, change)
    }

    fn change<T>(&self, key: Key, evict: bool, change: impl FnOnce(Option<&V>) -> (T, Change<V>)) -> Option<T> {
        let bound = self.per_shard.load(Ordering::Relaxed);
        let key = self.placed(key);
        let mut shard = self.shard(key);
        match shard.find(key) {
            Some(at) => {
                let used = shard.tick();
                let Some(Some(entry)) = shard.slots.get_mut(at) else { return None };
                entry.used = used;
                let (out, change) = change(Some(&entry.value));
                match change {
                    Change::Keep => {}
                    Change::Put(value) => entry.value = value,
                    Change::Drop => {
                        shard.remove(at);
                        self.len.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                Some(out)
            }
            None if shard.len >= bound && !evict => None,
            None => {
                let (out, change) = change(None);
                if let Change::Put(value) = change {
                    // With a bound that was lowered there may be several too many.
                    let mut gone = 0;
                    while shard.len >= bound && gone < 2 && shard.evict() {
                        gone += 1;
                    }
                    shard.insert(key, value, bound);
                    self.evicted.fetch_add(gone, Ordering::Relaxed);
                    match gone {
                        0 => self.len.fetch_add(1, Ordering::Relaxed),
                        more => self.len.fetch_sub(more as usize - 1, Ordering::Relaxed),
                    };
                }
                Some(out)
            }
        }
    }

    /// Changes every value. Looks at all of them, a shard at a time.
    pub fn for_each(&self, change: impl Fn(&mut V)) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.slots.iter_mut().flatten().for_each(|entry| change(&mut entry.value));
        }
    }

    /// Whoever can compute a key cannot aim at a shard, or at a place in it.
    fn placed(&self, key: Key) -> [u64; 2] {
        match key.known {
            false => key.bits,
            true => [self.hashers.0.hash_one(key.bits), self.hashers.1.hash_one(key.bits)],
        }
    }

    fn shard(&self, [_, key]: [u64; 2]) -> MutexGuard<'_, Shard<V>> {
        // One half places a key within its shard, the other chooses the shard.
        let index = spread(key, self.shards.len());
        let shard = self.shards.get(index).unwrap_or_else(|| unreachable!("less than there are"));
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number below `range`, evenly.
fn spread(hash: u64, range: usize) -> usize {
    ((u128::from(hash) * range as u128) >> 64) as usize
}

impl<V> Shard<V> {
    fn tick(&mut self) -> NonZeroU32 {
        self.clock = self.clock.wrapping_add(1);
        NonZeroU32::new(self.clock).unwrap_or(NonZeroU32::MIN)
    }

    fn home(&self, key: [u64; 2]) -> usize {
        spread(key[0], self.slots.len())
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 >= self.slots.len() { 0 } else { at + 1 }
    }

    fn find(&self, key: [u64; 2]) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        let mut at = self.home(key);
        // There is always an empty slot.
        while let Some(Some(entry)) = self.slots.get(at) {
            if entry.key == key {
                return Some(at);
            }
            at = self.after(at);
        }
        None
    }

    fn insert(&mut self, key: [u64; 2], value: V, bound: usize) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow(bound);
        }
        let used = self.tick();
        self.place(Entry { key, value, used });
        self.len += 1;
    }

    fn place(&mut self, entry: Entry<V>) {
        let mut at = self.home(entry.key);
        while matches!(self.slots.get(at), Some(Some(_))) {
            at = self.after(at);
        }
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Some(entry);
        }
    }

    /// Twice as many slots, and no more than the bound needs.
    fn grow(&mut self, bound: usize) {
        let most = (bound.max(self.len + 1) * 4).div_ceil(3) + 1;
        let slots = (self.slots.len() * 2).max(8).min(most.max(8));
        let old = std::mem::take(&mut self.slots);
        self.slots.resize_with(slots, || None);
        old.into_iter().flatten().for_each(|entry| self.place(entry));
    }

    /// Takes an entry out; those that it had pushed on move back.
    fn remove(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        if slot.take().is_none() {
            return;
        }
        self.len -= 1;
        let (mut hole, mut next) = (at, self.after(at));
        while let Some(Some(entry)) = self.slots.get(next) {
            let home = self.home(entry.key);
            // Whether its home lies cyclically behind the hole: then it stays.
            let stays = if hole <= next { home > hole && home <= next } else { home > hole || home <= next };
            if !stays {
                self.slots.swap(hole, next);
                hole = next;
            }
            next = self.after(next);
        }
    }

    /// The one idle longest of some that are drawn goes.
    fn evict(&mut self) -> bool {
        let mut at = if self.slots.len() > DRAWN * 2 { fastrand::usize(..self.slots.len()) } else { 0 };
        let (mut seen, mut victim, mut longest) = (0, None, 0);
        for _ in 0..self.slots.len() {
            if let Some(Some(entry)) = self.slots.get(at) {
                let idle = self.clock.wrapping_sub(entry.used.get());
                if victim.is_none() || idle > longest {
                    (victim, longest) = (Some(at), idle);
                }
                seen += 1;
                if seen >= DRAWN && self.slots.len() > DRAWN * 2 {
                    break;
                }
            }
            at = self.after(at);
        }
        victim.is_some_and(|at| {
            self.remove(at);
            true
        })
    }
}

#[cfg(test)]
mod tests;
