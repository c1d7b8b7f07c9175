//! A route, compiled: which requests, where they go, and everything that is done on the way.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::conditions::Conditions;
use super::destination::{Destination, Mirror};
use super::host::HostPattern;
use super::pattern::{Captured, PathCaptures, Pattern};
use crate::config::{EncodedSlash, Importance, OnExpiry, OnRemove};
use crate::facts::{Head, Known, Subject};
use crate::policy::{Access, Addresses, Answers, Cors, Edits, Limit, Rewrite};
use crate::telemetry::RouteMetrics;
use crate::upstream::Pool;

/// A request keeps its route, never the whole table.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    pub destination: Destination,
    pub mirror: Option<Mirror>,
    pub rewrite: Option<Rewrite>,
    pub request_headers: Edits,
    /// Request headers that other routes write or take credentials from, and this one does not look at: no client's goes on.
    pub strip: Box<[http::HeaderName]>,
    pub answers: Answers,
    /// `None`: by whether it is proven who asks.
    pub importance: Option<Importance>,
    pub timeout: Timeouts,
    /// Tries in all, the first one counts.
    pub attempts: u8,
    /// Longest request body in bytes.
    pub body_max: u64,
    pub stream: Stream,
    pub encoded_slash: EncodedSlash,
    pub addresses: Option<Addresses>,
    pub cors: Option<Arc<Cors>>,
    pub access: Option<Arc<Access>>,
    /// Of the services that `access` asks, by the name of their block.
    pub forward: Box<[(Arc<str>, Arc<Pool>)]>,
    /// Checked before it is proven who asks, and after.
    pub limits_before: Box<[Arc<Limit>]>,
    pub limits_after: Box<[Arc<Limit>]>,
    /// Cancelled when a change removes the route; only `stream.on_remove = "drain"` listens.
    pub removed: CancellationToken,
    /// Bound when the table is adopted.
    pub metrics: OnceLock<Arc<RouteMetrics>>,
    pub(super) hosts: Box<[HostPattern]>,
    pub(super) patterns: Box<[Pattern]>,
    pub(super) conditions: Conditions,
    pub(super) priority: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    pub head: Duration,
    pub idle: Duration,
    pub request: Option<Duration>,
}

/// What becomes of upgrades and streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    pub max_age: Option<Duration>,
    pub on_remove: OnRemove,
    pub on_expiry: OnExpiry,
}

impl Route {
    /// The captures by name.
    pub fn captured<'a>(&'a self, captures: &'a PathCaptures, path: &'a str) -> Captured<'a> {
        let pattern = self.patterns.get(usize::from(captures.pattern));
        Captured { pattern, spans: &captures.spans, path }
    }

    /// What is known about a request of this route.
    pub fn facts<'a>(
        &'a self,
        head: &'a Head<'a>,
        captured: &'a Captured<'a>,
        subject: Option<&'a Subject>,
    ) -> Known<'a, Captured<'a>> {
        Known { head, route: Some(&self.name), captures: captured, subject }
    }

    /// Request headers that only the gateway writes.
    pub(super) fn reserves(&self) -> impl Iterator<Item = &http::HeaderName> {
        let access = self.access.iter().flat_map(|access| access.pass.written().chain(access.taken()));
        self.request_headers.written().chain(access)
    }

    /// Keeps what outlives a table: who waits for the route's removal, its counters, its mirrors in flight.
    pub(super) fn inherit(&mut self, previous: &Route) {
        self.removed = previous.removed.clone();
        self.metrics = previous.metrics.clone();
        if let (Some(mirror), Some(previous)) = (&mut self.mirror, &previous.mirror) {
            mirror.inherit(previous);
        }
    }
}
