//! The counters of one upstream.

use std::time::Duration;

use super::count::{Class, Count, Counts, labels};
use super::exposition::Exposition;
use super::family;
use super::histogram::Histogram;

labels! {
    /// Why an attempt on an upstream failed.
    pub enum Failure {
        /// No connection: refused, unreachable, or not within the connect timeout.
        Connect => "connect",
        /// The TLS handshake failed or the certificate was not accepted.
        Tls => "tls",
        /// The connection broke before the answer was whole.
        Reset => "reset",
        /// The answer was not HTTP.
        Protocol => "protocol",
        /// No answer in time.
        Timeout => "timeout",
        /// There was no endpoint to try.
        NoEndpoint => "no_endpoint",
        /// The circuit breaker was open.
        BreakerOpen => "breaker_open",
        /// Every endpoint had its most connections.
        ConnectionLimit => "connection_limit",
    }
}

/// The counters of one upstream. Adding to them takes no lock and allocates nothing.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    attempts: Count,
    retries: Count,
    answers: Counts<Class, { Class::COUNT }>,
    failures: Counts<Failure, { Failure::COUNT }>,
    seconds: Histogram,
}

impl UpstreamMetrics {
    /// Counts a request sent to an endpoint, the first try as well as each retry.
    pub fn attempted(&self) {
        self.attempts.inc();
    }

    /// Counts a retry, beside `attempted`.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// Counts an answer: its status, and the time from choosing the endpoint to the head of its answer.
    pub fn answered(&self, status: u16, elapsed: Duration) {
        self.answers.inc(Class::of(status));
        self.seconds.observe(elapsed);
    }

    /// Counts an attempt without an answer.
    pub fn failed(&self, failure: Failure) {
        self.failures.inc(failure);
    }

    pub fn attempts(&self) -> u64 {
        self.attempts.value()
    }

    pub fn retries(&self) -> u64 {
        self.retries.value()
    }

    pub fn all_failures(&self) -> u64 {
        self.failures.iter().map(|(_, number)| number).sum()
    }

    pub fn failures(&self, failure: Failure) -> u64 {
        self.failures.value(failure)
    }

    pub(super) fn expose(&self, name: &str, out: &mut Exposition) {
        out.value(&family::UPSTREAM_ATTEMPTS, &[name], self.attempts.value() as f64);
        out.value(&family::UPSTREAM_RETRIES, &[name], self.retries.value() as f64);
        for (class, number) in self.answers.counted() {
            out.value(&family::UPSTREAM_ANSWERS, &[name, class], number as f64);
        }
        for (kind, number) in self.failures.counted() {
            out.value(&family::UPSTREAM_FAILURES, &[name, kind], number as f64);
        }
        self.seconds.expose(&family::UPSTREAM_SECONDS, &[name], out);
    }
}
