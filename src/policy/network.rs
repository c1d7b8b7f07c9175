//! What clients are counted by.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use crate::facts::{Fact, Facts};

/// Whether it is of IPv6, and its bits.
pub(super) type Network = (bool, u64);

/// An IPv4 address, or the /64 of an IPv6 one: the smallest network a client is given.
pub(super) fn network(address: IpAddr) -> Network {
    match address.to_canonical() {
        IpAddr::V4(v4) => (false, u64::from(v4.to_bits())),
        IpAddr::V6(v6) => (true, (v6.to_bits() >> 64) as u64),
    }
}

/// What a key of a limit is made of: the facts of its alternative, an address as the network it belongs to.
pub(super) struct Parts<'a> {
    pub(super) index: usize,
    pub(super) all: &'a [Fact],
    pub(super) client: IpAddr,
    pub(super) facts: &'a dyn Facts,
}

impl Hash for Parts<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.index.hash(state);
        for fact in self.all {
            match fact {
                Fact::ClientIp => network(self.client).hash(state),
                fact => self.facts.fact(fact).hash(state),
            }
        }
    }
}
