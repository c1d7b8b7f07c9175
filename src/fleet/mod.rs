//! A gateway as one of many: what it tells the fleet, and what it has in common with it.
//!
//! ```text
//! bus ─┬─ status      every node writes its own, every few seconds and at every change
//!      ├─ traffic     counters, for whoever watches
//!      ├─ events      what happened, kept for whoever asks later
//!      └─ revocations, keys, certificates, usage of limits: what one node learns, all know
//! ```
//! Nothing here is on the way of a request.

use std::sync::Arc;

use crate::bus::names::Fleet;
use crate::bus::{Bus, Post};

mod events;
mod report;
mod requests;
mod revoked;
mod tail;
mod traffic;
mod usage;

pub use report::{CertificateReport, Node, Report, Reporter, reports, unread, words};
pub use requests::ship;
pub use revoked::share as share_revocations;
pub use tail::{Wish, answer, ask};
pub use traffic::{Counted, ROUTES_MAX, RouteTraffic, Traffic, UpstreamTraffic, tell};
pub use usage::share as share_usage;

/// How a node takes part in its fleet. Clones share it.
#[derive(Clone, Debug)]
pub struct Membership {
    pub bus: Bus,
    pub fleet: Fleet,
    /// The name of this node, unique in the fleet.
    pub node: Arc<str>,
    pub region: Option<String>,
    pub post: Post,
}
