//! What a limit of the whole fleet has in common with other nodes: the names of its keys, and what was used here.
//!
//! A key is the same on every node, whatever its processor and version: SipHash-2-4, 128 bits, salted with the name of the
//! limit. What is used is noted beside the state and taken from here by whoever tells the others: no request waits for them.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use ahash::AHashMap;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::bounded::Key;

const SHARDS: usize = 16;
/// Keys noted between two tellings; what more there are use their share of this node unseen.
const NOTED_MAX: usize = 16 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Shared {
    salt: [u64; 2],
    used: [Mutex<AHashMap<Key, u32>>; SHARDS],
    unnoted: AtomicU64,
    /// Nodes that count together, this one among them.
    nodes: AtomicU32,
    /// The others are not heard any more.
    alone: AtomicBool,
}

impl Shared {
    /// Of the limit of this name.
    pub fn new(name: &str) -> Shared {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("limit {name}").as_bytes());
        let mut words = digest.as_ref().chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes));
        let salt = std::array::from_fn(|_| words.next().unwrap_or_default());
        let used = std::array::from_fn(|_| Mutex::default());
        Shared { salt, used, unnoted: AtomicU64::new(0), nodes: AtomicU32::new(1), alone: AtomicBool::new(false) }
    }

    /// The key of anything that can be hashed, the same on every node.
    pub fn key(&self, of: impl Hash) -> Key {
        let [one, two] = self.salt;
        let mut hasher = SipHasher24::new_with_keys(one, two);
        of.hash(&mut hasher);
        let hash = hasher.finish128();
        Key::from_bits([hash.h1, hash.h2])
    }

    fn shard(&self, key: Key) -> Option<&Mutex<AHashMap<Key, u32>>> {
        let [bits, _] = key.bits();
        self.used.get(usize::try_from(bits % SHARDS as u64).unwrap_or_default())
    }

    /// Notes what was taken here.
    pub fn used(&self, key: Key, cost: NonZeroU32) {
        let Some(shard) = self.shard(key) else { return };
        let mut noted = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() >= NOTED_MAX / SHARDS && !noted.contains_key(&key) {
            self.unnoted.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let used = noted.entry(key).or_default();
        *used = used.saturating_add(cost.get());
    }

    /// Takes a note back. What the others have been told stays told: it errs to the side of less.
    pub fn given_back(&self, key: Key, cost: NonZeroU32) {
        let Some(shard) = self.shard(key) else { return };
        let mut noted = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = noted.get_mut(&key) {
            *used = used.saturating_sub(cost.get());
        }
    }

    /// Takes all notes.
    pub fn drain(&self) -> Vec<(Key, u32)> {
        let take = |shard: &Mutex<AHashMap<Key, u32>>| {
            let mut noted = shard.lock().unwrap_or_else(PoisonError::into_inner);
            noted.drain().filter(|(_, used)| *used > 0).collect::<Vec<_>>()
        };
        self.used.iter().flat_map(take).collect()
    }

    /// Keys that were not noted for want of room.
    pub fn unnoted(&self) -> u64 {
        self.unnoted.load(Ordering::Relaxed)
    }

    /// Says how many nodes count together, this one among them, and whether the others are lost.
    pub fn set_nodes(&self, nodes: NonZeroU32, alone: bool) {
        self.nodes.store(nodes.get(), Ordering::Relaxed);
        self.alone.store(alone, Ordering::Relaxed);
    }

    pub fn nodes(&self) -> NonZeroU32 {
        NonZeroU32::new(self.nodes.load(Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN)
    }

    pub fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Relaxed)
    }

    /// Among how many nodes it was shared when the others were lost; `None` while they are heard.
    pub fn alone(&self) -> Option<NonZeroU32> {
        self.is_alone().then(|| self.nodes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: NonZeroU32 = NonZeroU32::MIN;

    #[test]
    fn keys_are_the_same_on_every_node_and_of_every_limit_others() {
        let (one, other) = (Shared::new("a"), Shared::new("b"));
        assert_eq!(one.key("x"), Shared::new("a").key("x"));
        assert_ne!(one.key("x"), other.key("x"));
        // Written down: a version that counts by other keys would share nothing with those of today.
        assert_eq!(one.key("x").bits(), [11_358_368_065_508_655_547, 13_453_376_460_118_304_361]);
    }

    #[test]
    fn what_is_used_is_told_once_and_in_bounded_memory() {
        let shared = Shared::new("a");
        let key = shared.key(1);
        shared.used(key, ONE);
        shared.used(key, ONE.saturating_add(2));
        shared.given_back(key, ONE);
        assert_eq!(shared.drain(), [(key, 3)]);
        assert_eq!(shared.drain(), []);
        for number in 0..NOTED_MAX * 2 {
            shared.used(shared.key(number), ONE);
        }
        assert!(shared.drain().len() <= NOTED_MAX);
        assert!(shared.unnoted() >= NOTED_MAX as u64);
    }
}
