//! How many connections there may be: in all, and from one address.
//!
//! A connection over a bound is closed before a byte is read. Addresses are counted by IPv4 address or IPv6 /64, the
//! smallest network a client is given.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const SHARDS: usize = 64;

/// Counts open connections and refuses those over a bound.
#[derive(Debug)]
pub(crate) struct Admission {
    total: AtomicUsize,
    total_max: usize,
    per_address_max: usize,
    shards: [Mutex<HashMap<u64, usize, ahash::RandomState>>; SHARDS],
    hasher: ahash::RandomState,
}

/// Why a connection is closed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Connections,
    Address,
}

/// A place among the open connections, given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    /// Under which it is counted; `None` until a proxy has said who connected.
    key: Option<u64>,
}

impl Admission {
    pub(crate) fn new(total_max: usize, per_address_max: usize) -> Admission {
        Admission {
            total: AtomicUsize::new(0),
            total_max,
            per_address_max,
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: ahash::RandomState::new(),
        }
    }

    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, Denied> {
        let mut permit = self.admit_unknown()?;
        permit.count(address)?;
        Ok(permit)
    }

    /// A place for a connection whose client is not known yet.
    pub(crate) fn admit_unknown(self: &Arc<Self>) -> Result<Permit, Denied> {
        if self.total.fetch_add(1, Ordering::AcqRel) >= self.total_max {
            self.total.fetch_sub(1, Ordering::AcqRel);
            return Err(Denied::Connections);
        }
        Ok(Permit { admission: self.clone(), key: None })
    }

    fn enter(&self, key: u64) -> bool {
        self.shard(key, |counts| {
            let count = counts.entry(key).or_default();
            let room = *count < self.per_address_max;
            *count += usize::from(room);
            room
        })
    }

    #[cfg(test)]
    fn open(&self) -> usize {
        self.total.load(Ordering::Acquire)
    }

    fn shard<T>(&self, key: u64, f: impl FnOnce(&mut HashMap<u64, usize, ahash::RandomState>) -> T) -> T {
        let index = (key as usize) % SHARDS;
        // The index is within the array by the remainder above.
        let shard = self.shards.get(index).unwrap_or_else(|| unreachable!("a remainder of SHARDS"));
        f(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Permit {
    /// Counts the connection under its client's address, once that is known.
    pub(crate) fn count(&mut self, address: IpAddr) -> Result<(), Denied> {
        let key = self.admission.hasher.hash_one(network(address));
        if self.key.is_some() || !self.admission.enter(key) {
            return Err(Denied::Address);
        }
        self.key = Some(key);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.total.fetch_sub(1, Ordering::AcqRel);
        let Some(key) = self.key else { return };
        self.admission.shard(key, |counts| {
            if let Some(count) = counts.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&key);
                }
            }
        });
    }
}

/// An IPv4 address, or the /64 of an IPv6 one.
fn network(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_all_and_each_address() {
        let admission = Arc::new(Admission::new(3, 2));
        let a: IpAddr = "192.0.2.1".parse().expect("an address");
        let b: IpAddr = "192.0.2.2".parse().expect("an address");
        let first = admission.admit(a).expect("room");
        let _second = admission.admit(a).expect("room");
        assert_eq!(admission.admit(a).err(), Some(Denied::Address));
        let _third = admission.admit(b).expect("room");
        assert_eq!(admission.admit(b).err(), Some(Denied::Connections));
        drop(first);
        assert!(admission.admit(a).is_ok());
        assert_eq!(admission.open(), 2);
    }

    #[test]
    fn one_ipv6_network_counts_as_one() {
        let admission = Arc::new(Admission::new(10, 1));
        let _first = admission.admit("2001:db8::1".parse().expect("an address")).expect("room");
        assert!(admission.admit("2001:db8::2".parse().expect("an address")).is_err());
        assert!(admission.admit("2001:db8:0:1::1".parse().expect("an address")).is_ok());
    }
}
