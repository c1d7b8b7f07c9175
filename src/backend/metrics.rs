//! What `/metrics` says, from a registry of its own. Labels are patterns of paths and fixed words, never what clients chose.

use std::time::Duration;

use prometheus::{
    Error, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use super::outbox::Lag;

pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    pub(super) logins: IntCounterVec,
    pub(super) outbox_failures: IntCounter,
    outbox_waiting: IntGauge,
    outbox_sent: IntGauge,
    outbox_lost: IntGauge,
    ready: IntGauge,
}

impl Metrics {
    pub(super) fn new() -> Result<Metrics, Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, Error>(made)
        };
        let gauge = |name: &str, help: &str| {
            let made = IntGauge::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok::<_, Error>(made)
        };
        let requests =
            counters("tollgate_backend_requests_total", "Requests answered.", &["route", "method", "class"])?;
        let logins = counters("tollgate_backend_logins_total", "Logins, by what came of them.", &["outcome"])?;
        let seconds = HistogramOpts::new("tollgate_backend_request_seconds", "Time to the head of the answer.")
            .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]);
        let seconds = HistogramVec::new(seconds, &["route"])?;
        registry.register(Box::new(seconds.clone()))?;
        let failures = "Tries to tell events that failed.";
        let outbox_failures = IntCounter::new("tollgate_backend_outbox_failures_total", failures)?;
        registry.register(Box::new(outbox_failures.clone()))?;
        Ok(Metrics {
            requests,
            seconds,
            logins,
            outbox_failures,
            outbox_waiting: gauge("tollgate_backend_outbox_waiting", "Events that wait to be told.")?,
            outbox_sent: gauge("tollgate_backend_outbox_sent", "Events told since the database was made.")?,
            outbox_lost: gauge(
                "tollgate_backend_outbox_lost",
                "Events lost at the bound since the database was made.",
            )?,
            ready: gauge("tollgate_backend_ready", "1 if requests are taken and can be written.")?,
            registry,
        })
    }

    pub(super) fn request(&self, route: &str, method: &axum::http::Method, status: u16, took: Duration) {
        let method = match method.as_str() {
            known @ ("GET" | "HEAD" | "POST" | "PATCH" | "DELETE") => known,
            _ => "other",
        };
        let class = match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.requests.with_label_values(&[route, method, class]).inc();
        self.seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    pub(super) fn text(&self, lag: Option<Lag>, ready: bool) -> String {
        if let Some(lag) = lag {
            self.outbox_waiting.set(lag.waiting);
            self.outbox_sent.set(lag.sent);
            self.outbox_lost.set(lag.lost);
        }
        self.ready.set(i64::from(ready));
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}
