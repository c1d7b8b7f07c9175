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
/// Upstreams likewise.
const UPSTREAMS_MAX: usize = 500;

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
    /// Keeps the busiest routes and upstreams, by what went through them since `before`.
    pub fn busiest(&mut self, before: Option<&Traffic>) {
        let routes = before.map(|before| before.routes.as_slice()).unwrap_or_default();
        keep_busiest(&mut self.routes, routes, |route| (&route.name, route.counted.requests()), ROUTES_MAX);
        let upstreams = before.map(|before| before.upstreams.as_slice()).unwrap_or_default();
        keep_busiest(&mut self.upstreams, upstreams, |upstream| (&upstream.name, upstream.attempts), UPSTREAMS_MAX);
    }
}

fn keep_busiest<T>(all: &mut Vec<T>, before: &[T], counted: impl Fn(&T) -> (&str, u64), most: usize) {
    if all.len() <= most {
        return;
    }
    let known: BTreeMap<&str, u64> = before.iter().map(&counted).collect();
    all.sort_by_cached_key(|one| {
        let (name, count) = counted(one);
        std::cmp::Reverse(count.saturating_sub(known.get(name).copied().unwrap_or_default()))
    });
    all.truncate(most);
}

/// Tells the counters again and again, for as long as the process lives.
pub async fn tell(membership: Membership, read: impl Fn() -> Traffic + Send) {
    let subject = membership.fleet.traffic(&membership.node);
    let mut before = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let now = read();
        let mut told = now.clone();
        told.busiest(before.as_ref());
        let payload = serde_json::to_vec(&told).unwrap_or_default();
        membership.post.telemetry(Message { subject: subject.clone(), payload: payload.into() });
        before = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstreams(counts: impl Iterator<Item = u64>) -> Vec<UpstreamTraffic> {
        let upstream = |(number, attempts)| UpstreamTraffic {
            name: format!("u{number}"),
            in_flight: 0,
            endpoints: BTreeMap::new(),
            attempts,
            failures: 0,
        };
        counts.enumerate().map(upstream).collect()
    }

    #[test]
    fn what_was_busy_once_makes_room_for_what_is_busy_now() {
        let before = upstreams((0..1_000).map(|number| 1_000_000 - number));
        let mut now = upstreams((0..1_000).map(|number| 1_000_000 - number + u64::from(number >= 990)));
        keep_busiest(&mut now, &before, |one| (&one.name, one.attempts), 10);
        let names: Vec<&str> = now.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["u990", "u991", "u992", "u993", "u994", "u995", "u996", "u997", "u998", "u999"]);
    }
}
