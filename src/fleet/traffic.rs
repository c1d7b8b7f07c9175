//! What goes through a node, for whoever watches: counters that only grow, from the start of the node's process.
//!
//! Telemetry: sent every two seconds, kept nowhere on the bus, lost without harm. Whoever adds up takes differences, and
//! begins anew when `started_at_ms` changes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Membership;
use crate::bus::Message;
use crate::telemetry::metrics::LimitReading;

const EVERY: Duration = Duration::from_secs(2);
/// Routes told of at once: those with the most requests since the last time.
pub const ROUTES_MAX: usize = 500;

/// Requests that ended, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// By class of status: none (the client left), 1xx to 5xx.
    pub classes: [u64; 6],
    /// Answered by the gateway itself, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<String, u64>,
    /// Requests by how long they took: below each of `Traffic::bounds_us`, and longer.
    #[serde(default)]
    pub took: Vec<u64>,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Counted {
    pub fn requests(&self) -> u64 {
        self.classes.iter().sum()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTraffic {
    pub name: String,
    #[serde(flatten)]
    pub counted: Counted,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamTraffic {
    pub name: String,
    pub in_flight: usize,
    /// Endpoints by state.
    pub endpoints: BTreeMap<String, usize>,
    pub attempts: u64,
    pub failures: u64,
}

/// A node's counters at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub node: String,
    #[serde(default)]
    pub region: Option<String>,
    pub started_at_ms: u64,
    pub at_ms: u64,
    /// Upper bounds of `Counted::took`, in microseconds.
    pub bounds_us: Vec<u64>,
    /// Everything, refusals before a route was found included.
    pub all: Counted,
    pub routes: Vec<RouteTraffic>,
    pub upstreams: Vec<UpstreamTraffic>,
    pub limits: Vec<LimitReading>,
    /// Connections of clients open now.
    pub connections: i64,
}

impl Traffic {
    /// Keeps the busiest routes, by the requests since `before`.
    pub fn busiest(&mut self, before: Option<&Traffic>) {
        if self.routes.len() <= ROUTES_MAX {
            return;
        }
        let known: BTreeMap<&str, u64> = before
            .into_iter()
            .flat_map(|before| &before.routes)
            .map(|route| (route.name.as_str(), route.counted.requests()))
            .collect();
        let fresh = |route: &RouteTraffic| {
            route.counted.requests().saturating_sub(known.get(route.name.as_str()).copied().unwrap_or_default())
        };
        self.routes.sort_by_key(|route| std::cmp::Reverse(fresh(route)));
        self.routes.truncate(ROUTES_MAX);
    }
}

/// Tells the counters again and again, for as long as the process lives.
pub async fn tell(membership: Membership, read: impl Fn() -> Traffic + Send) {
    let subject = membership.fleet.traffic(&membership.node);
    let mut before = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let mut now = read();
        now.busiest(before.as_ref());
        let payload = serde_json::to_vec(&now).unwrap_or_default();
        membership.post.telemetry(Message { subject: subject.clone(), payload: payload.into() });
        before = Some(now);
    }
}
