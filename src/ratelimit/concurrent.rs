//! Numbers at once: at most so many of something under way for a key.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::bounded::{Bounded, Fate, Key};

/// How many are under way, by key. Keys of which none are, are not held.
#[derive(Debug)]
pub struct Gauge(Bounded<u32>);

/// One of them, counted until it is dropped.
#[derive(Debug)]
pub struct Held {
    gauge: Arc<Gauge>,
    key: Key,
}

impl Gauge {
    /// For about so many keys; at the bound the one that was idle longest is forgotten, and counts from nothing.
    pub fn new(keys: usize) -> Gauge {
        Gauge(Bounded::new(keys))
    }

    pub fn keys(&self) -> &Bounded<u32> {
        &self.0
    }

    /// One more, if there are fewer than `most`.
    pub fn enter(self: &Arc<Self>, key: Key, most: NonZeroU32) -> Option<Held> {
        let entered = self.0.with(key, |held| {
            let now = held.unwrap_or(0);
            if now >= most.get() {
                return (false, Fate::Keep);
            }
            *held = Some(now + 1);
            (true, Fate::Keep)
        });
        entered.then(|| Held { gauge: self.clone(), key })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.0.with(self.key, |held| {
            let left = held.unwrap_or(0).saturating_sub(1);
            *held = Some(left);
            ((), if left == 0 { Fate::Drop } else { Fate::Keep })
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_under_way() {
        let gauge = Arc::new(Gauge::new(100));
        let (key, most) = (gauge.keys().key("a"), NonZeroU32::new(2).unwrap());
        let first = gauge.enter(key, most).unwrap();
        let second = gauge.enter(key, most).unwrap();
        assert!(gauge.enter(key, most).is_none());
        drop(first);
        let third = gauge.enter(key, most).unwrap();
        drop((second, third));
        assert!(gauge.keys().is_empty());
    }
}
