//! Numbers at once: at most so many of something under way for a key.

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::bounded::{Bounded, Change, Key};

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
    /// For about so many keys at once. Nobody who is under way is forgotten: at the bound others are refused.
    pub fn new(keys: usize) -> Gauge {
        Gauge(Bounded::new(keys))
    }

    pub fn keys(&self) -> &Bounded<u32> {
        &self.0
    }

    /// One more, if there are fewer than `most`.
    pub fn enter(self: &Arc<Self>, key: Key, most: NonZeroU32) -> Option<Held> {
        let entered = self.0.with_room(key, |held| {
            let now = held.copied().unwrap_or(0);
            if now >= most.get() { (false, Change::Keep) } else { (true, Change::Put(now + 1)) }
        });
        entered.unwrap_or(false).then(|| Held { gauge: self.clone(), key })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.0.with(self.key, |held| {
            let left = held.copied().unwrap_or(0).saturating_sub(1);
            ((), if left == 0 { Change::Drop } else { Change::Put(left) })
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

    #[test]
    fn nobody_under_way_is_forgotten() {
        let gauge = Arc::new(Gauge::new(1));
        let most = NonZeroU32::MIN;
        let held = gauge.enter(gauge.keys().key("a"), most).unwrap();
        assert!(gauge.enter(gauge.keys().key("b"), most).is_none(), "there is no room");
        assert!(gauge.enter(gauge.keys().key("a"), most).is_none());
        drop(held);
        assert!(gauge.enter(gauge.keys().key("b"), most).is_some());
    }
}
