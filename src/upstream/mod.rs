//! Destinations: pools of endpoints, who among them takes a request, and what they are known to be able to carry.
//!
//! A `Spec` is compiled from words without effects. A `Pool` has a name, outlives tables and is applied the newest spec;
//! its members are one immutable snapshot that requests read without a lock. Picking gives a `Lease`; dropping it is the
//! only way a request leaves the counts. Nothing here knows a route, a client or Pingora.

mod address;
mod balance;
mod budget;
mod counters;
mod dial;
mod eject;
mod endpoint;
mod exchange;
mod health;
mod hosts;
mod lease;
mod members;
mod pick;
mod pool;
mod pools;
mod registry;
mod resolve;
mod snapshot;
mod spec;
mod standing;
mod targets;
mod tier;
mod tls;
mod transport;
mod wire;

#[cfg(test)]
mod tests;

pub use budget::RetryPermit;
pub use counters::Counts;
pub use endpoint::{ConnectionGuard, Endpoint};
pub use exchange::{ExchangeError, Truncated, exchange};
pub use lease::{Lease, Outcome, StickyToken};
pub use pool::{PickError, Pool, hash_key};
pub use pools::{Discovery, Pools};
pub use resolve::ResolverError;
pub use snapshot::{EndpointSnapshot, EndpointState, PoolSnapshot};
pub use spec::{Spec, Sticky};
pub use standing::{NameSnapshot, NameState};
pub use tls::Tls;
pub use transport::{Connections, Transport};
