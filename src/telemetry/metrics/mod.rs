//! Metrics: a registry of our own, filled by handles that were fetched beforehand.
//!
//! A request adds to plain atomics; names, labels and text exist only when somebody scrapes. Labels come from configured
//! names and closed lists, never from what a client sent. Series leave with the route or upstream they belong to.

use std::collections::BTreeMap;
use std::sync::Arc;

mod control;
mod count;
mod exposition;
mod family;
mod front;
mod handles;
mod histogram;
mod process;
mod route;
mod upstream;

pub use control::{Change, ControlMetrics};
pub use count::{Count, Gauge};
pub use front::{FrontMetrics, Handshake, Refused};
pub use histogram::BOUNDS_US;
pub use route::{MirrorResult, RouteMetrics};
pub use upstream::{Failure, UpstreamMetrics};

use exposition::Exposition;
use handles::Handles;

/// All metrics of a gateway. Clones share one set.
#[derive(Clone, Debug)]
pub struct Metrics {
    routes: Arc<Handles<RouteMetrics>>,
    upstreams: Arc<Handles<UpstreamMetrics>>,
    unrouted: Arc<RouteMetrics>,
    pub front: Arc<FrontMetrics>,
    pub control: Arc<ControlMetrics>,
    /// Access log lines that found their queue full or their file unwritable.
    pub log_lines_dropped: Count,
    /// Spans that found their queue full or their collector unreachable.
    pub spans_dropped: Count,
}

/// What only its owner knows of a pool, read when somebody scrapes.
#[derive(Clone, Debug, Default)]
pub struct PoolReading {
    pub upstream: Arc<str>,
    pub in_flight: u64,
    /// Endpoints by state (`healthy`, `unhealthy`, `ejected`, ..).
    pub endpoints: Vec<(&'static str, u64)>,
    /// Endpoints ejected.
    pub ejections: u64,
    /// Resolutions of its names that gave addresses, that gave none, and that failed.
    pub resolutions: [u64; 3],
    /// Retries the budget refused.
    pub retries_refused: u64,
    /// Endpoints chosen while health was ignored.
    pub panics: u64,
}

/// What is read when somebody scrapes.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    pub pools: Vec<PoolReading>,
    pub tasks: BTreeMap<&'static str, usize>,
    /// Name, source, and when it ends, in seconds since 1970.
    pub certificates: Vec<CertificateReading>,
    pub limits: Vec<LimitReading>,
    pub overload: OverloadReading,
    /// `source`, `last_good` or `fallback`.
    pub serving: &'static str,
    /// `None`: the node is alone.
    pub bus: Option<BusReading>,
    /// Answers compressed now, and those that were not for want of room.
    pub compressing: (usize, u64),
}

/// How a node gets on with the bus.
#[derive(Clone, Copy, Debug, Default)]
pub struct BusReading {
    pub up: bool,
    pub sent: u64,
    pub events_lost: u64,
    pub telemetry_lost: u64,
    pub waiting: u64,
}

/// How much there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OverloadReading {
    /// 0: nothing is turned away; 1: all that is sheddable; 2: all that is normal, too.
    pub level: f64,
    /// How late the event loop was at least, in seconds.
    pub lag: f64,
}

/// How a limit stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LimitReading {
    pub name: String,
    pub allowed: u64,
    pub limited: u64,
    /// Would have been refused.
    pub dry_run: u64,
    pub keys: u64,
    pub evicted: u64,
    /// Of a limit of the fleet: nodes that count together, and whether the others are lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alone: Option<bool>,
}

/// How a certificate stands. Times in seconds since 1970.
#[derive(Clone, Debug, Default)]
pub struct CertificateReading {
    pub name: String,
    pub source: String,
    /// 0: there is none.
    pub ends: u64,
    pub next_order: Option<u64>,
    /// What was last done about it failed.
    pub failing: bool,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    pub fn new() -> Metrics {
        Metrics {
            routes: Arc::default(),
            upstreams: Arc::default(),
            unrouted: Arc::default(),
            front: Arc::default(),
            control: Arc::default(),
            log_lines_dropped: Count::default(),
            spans_dropped: Count::default(),
        }
    }

    /// The counters of a route. Fetch once, keep with the route.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        self.routes.fetch(name)
    }

    /// The counters of requests refused before a route was found; their label `route` is empty.
    pub fn unrouted(&self) -> &Arc<RouteMetrics> {
        &self.unrouted
    }

    /// Every route that is shown, by name.
    pub fn all_routes(&self) -> Vec<(Arc<str>, Arc<RouteMetrics>)> {
        self.routes.shown()
    }

    /// The counters of an upstream. Fetch once, keep with the route or pool.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        self.upstreams.fetch(name)
    }

    /// Drops the series of all other routes and upstreams. A handle that is
    /// still held counts unseen; it is seen again, with what it counted, if its name is fetched again while it lives.
    pub fn retain<'a>(&self, routes: impl IntoIterator<Item = &'a str>, upstreams: impl IntoIterator<Item = &'a str>) {
        self.routes.retain(&routes.into_iter().collect());
        self.upstreams.retain(&upstreams.into_iter().collect());
    }

    /// Everything in the Prometheus text format 0.0.4 (`CONTENT_TYPE`).
    pub fn render(&self, readings: &Readings) -> String {
        let mut out = Exposition::default();
        self.unrouted.expose("", &mut out);
        for (name, route) in self.routes.shown() {
            route.expose(&name, &mut out);
        }
        for (name, upstream) in self.upstreams.shown() {
            upstream.expose(&name, &mut out);
        }
        for pool in &readings.pools {
            pool.expose(&mut out);
        }
        self.front.expose(&mut out);
        self.control.expose(&mut out);
        out.value(&family::LOG_LINES_DROPPED, &[], self.log_lines_dropped.value() as f64);
        out.value(&family::LOG_RECORDS_SUPPRESSED, &[], super::log::suppressed() as f64);
        out.value(&family::SPANS_DROPPED, &[], self.spans_dropped.value() as f64);
        for (name, running) in &readings.tasks {
            out.value(&family::TASKS, &[name], *running as f64);
        }
        for CertificateReading { name, source, ends, next_order, failing } in &readings.certificates {
            out.value(&family::CERTIFICATE_EXPIRY, &[name, source], *ends as f64);
            out.value(&family::CERTIFICATE_FAILING, &[name, source], f64::from(u8::from(*failing)));
            if let Some(at) = next_order {
                out.value(&family::CERTIFICATE_NEXT_ORDER, &[name, source], *at as f64);
            }
        }
        out.value(&family::OVERLOAD_LEVEL, &[], readings.overload.level);
        out.value(&family::COMPRESSING, &[], readings.compressing.0 as f64);
        out.value(&family::COMPRESSION_SKIPPED, &[], readings.compressing.1 as f64);
        out.value(&family::OVERLOAD_LAG, &[], readings.overload.lag);
        for LimitReading { name, allowed, limited, dry_run, keys, evicted, nodes: _, alone: _ } in &readings.limits {
            for (outcome, count) in [("allowed", allowed), ("limited", limited), ("dry_run", dry_run)] {
                out.value(&family::LIMIT_REQUESTS, &[name, outcome], *count as f64);
            }
            out.value(&family::LIMIT_KEYS, &[name], *keys as f64);
            out.value(&family::LIMIT_EVICTIONS, &[name], *evicted as f64);
        }
        if !readings.serving.is_empty() {
            out.value(&family::CONFIG_SERVING, &[readings.serving], 1.0);
        }
        if let Some(BusReading { up, sent, events_lost, telemetry_lost, waiting }) = readings.bus {
            out.value(&family::BUS_UP, &[], f64::from(u8::from(up)));
            for (result, count) in [("sent", sent), ("event_lost", events_lost), ("telemetry_lost", telemetry_lost)] {
                out.value(&family::BUS_MESSAGES, &[result], count as f64);
            }
            out.value(&family::BUS_WAITING, &[], waiting as f64);
        }
        process::expose(&mut out);
        out.text()
    }
}

impl PoolReading {
    fn expose(&self, out: &mut Exposition) {
        let PoolReading { upstream, in_flight, endpoints, ejections, resolutions, retries_refused, panics } = self;
        out.value(&family::UPSTREAM_IN_FLIGHT, &[upstream], *in_flight as f64);
        for (state, number) in endpoints {
            out.value(&family::UPSTREAM_ENDPOINTS, &[upstream, state], *number as f64);
        }
        for (result, number) in ["ok", "empty", "failed"].iter().zip(resolutions) {
            out.value(&family::UPSTREAM_RESOLUTIONS, &[upstream, result], *number as f64);
        }
        out.value(&family::UPSTREAM_EJECTIONS, &[upstream], *ejections as f64);
        out.value(&family::UPSTREAM_RETRIES_REFUSED, &[upstream], *retries_refused as f64);
        out.value(&family::UPSTREAM_PANICS, &[upstream], *panics as f64);
    }
}

/// The media type of `Metrics::render`.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

#[cfg(test)]
mod tests;
