//! What clients are counted by.

use std::net::IpAddr;

/// Whether it is of IPv6, and its bits.
pub(super) type Network = (bool, u64);

/// An IPv4 address, or the /64 of an IPv6 one: the smallest network a client is given.
pub(super) fn network(address: IpAddr) -> Network {
    match address.to_canonical() {
        IpAddr::V4(v4) => (false, u64::from(v4.to_bits())),
        IpAddr::V6(v6) => (true, (v6.to_bits() >> 64) as u64),
    }
}
