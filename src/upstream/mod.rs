//! Destinations: pools of endpoints, who among them takes a request, and what they are known to be able to carry.
//!
//! A `Spec` is compiled from words without effects. A `Pool` has a name, outlives tables and is applied the newest spec;
//! its members are one immutable snapshot that requests read without a lock. Picking gives a `Lease`; dropping it is the
//! only way a request leaves the counts. Nothing here knows a route, a client or Pingora.

mod address;
mod balance;
mod budget;
mod counters;
mod eject;
mod endpoint;
mod health;
mod lease;
mod members;
mod pool;
mod pools;
mod snapshot;
mod spec;
mod tier;
mod tls;
mod transport;

pub use budget::RetryPermit;
pub use counters::Counts;
pub use endpoint::{ConnectionGuard, Endpoint};
pub use lease::{Lease, Outcome, StickyToken};
pub use pool::{PickError, Pool, hash_key};
pub use pools::Pools;
pub use snapshot::{EndpointSnapshot, EndpointState, PoolSnapshot};
pub use spec::{Spec, Sticky};
pub use tls::Tls;
pub use transport::{Connections, Transport};
