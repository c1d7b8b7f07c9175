//! What happened in a pool since it exists. Read by metrics and `/upstreams`; written on the request path by one add each.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Declares the counters once, as atomics and as the numbers of a snapshot.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: AtomicU64,)+
        }

        /// What happened in a pool since it exists.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }
    };
}

counters! {
    /// Leases given.
    picks,
    /// Picks without a result because no endpoint was known.
    no_endpoint,
    /// Picks refused by the circuit breaker.
    breaker_open,
    /// Picks refused because every endpoint was at its connection limit.
    connection_limit,
    /// Picks made while health was ignored (`panic_percent`).
    panic_picks,
    /// Requests that ended well.
    successes,
    /// Connections that could not be opened.
    connect_failures,
    /// Connections that broke.
    resets,
    /// Requests that timed out.
    timeouts,
    /// Answers 502, 503, 504.
    bad_statuses,
    /// Endpoints ejected.
    ejections,
    /// Retries allowed by the budget.
    retries,
    /// Retries the budget refused.
    retries_refused,
    /// Names resolved to addresses.
    resolved,
    /// Names without addresses (NXDOMAIN, no data).
    resolved_empty,
    /// Resolutions that failed; the last good answer stayed.
    resolve_failures,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
