//! The counters of one route.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::count::{Class, Counts, labels};
use super::exposition::Exposition;
use super::family;
use super::histogram::Histogram;
use crate::rejection::Code;

labels! {
    /// What became of a mirrored request.
    pub enum MirrorResult {
        /// The same status, chosen headers and body.
        Same => "same",
        StatusDiffers => "status_differs",
        HeadersDiffer => "headers_differ",
        BodyDiffers => "body_differs",
        /// The mirror's upstream could not be asked or did not answer in time.
        Failed => "failed",
        /// Not sent: the body was longer than the bound, or too many mirrors were under way.
        Skipped => "skipped",
    }
}

/// The counters of one route. Adding to them takes no lock and allocates nothing.
#[derive(Debug, Default)]
pub struct RouteMetrics {
    requests: Counts<Class, { Class::COUNT }>,
    rejections: Counts<Code, { Code::ALL.len() }>,
    mirrors: Counts<MirrorResult, { MirrorResult::COUNT }>,
    /// Whole requests, for the fleet's controller; per route it is too much for a scrape.
    seconds: Histogram,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
}

impl RouteMetrics {
    /// Counts a request that has ended: its status (0 when no answer was begun), why the gateway answered by itself if it
    /// did, how long it took, and the bytes of both bodies.
    pub fn finished(&self, status: u16, code: Option<Code>, took: Duration, bytes_in: u64, bytes_out: u64) {
        self.requests.inc(Class::of(status));
        self.seconds.observe(took);
        if let Some(code) = code {
            self.rejections.inc(code);
        }
        if bytes_in > 0 {
            self.request_bytes.fetch_add(bytes_in, Ordering::Relaxed);
        }
        if bytes_out > 0 {
            self.response_bytes.fetch_add(bytes_out, Ordering::Relaxed);
        }
    }

    /// Counts a mirrored request.
    pub fn mirrored(&self, result: MirrorResult) {
        self.mirrors.inc(result);
    }

    /// Requests that ended with this status class (`"2xx"`); for tests and dashboards.
    pub fn requests(&self, class: &str) -> u64 {
        self.requests.iter().find(|(text, _)| *text == class).map_or(0, |(_, number)| number)
    }

    pub fn rejections(&self, code: Code) -> u64 {
        self.rejections.value(code)
    }

    /// Requests by class of status, from none to 5xx.
    pub fn by_class(&self) -> [u64; 6] {
        let mut numbers = self.requests.iter().map(|(_, number)| number);
        std::array::from_fn(|_| numbers.next().unwrap_or_default())
    }

    /// Rejections by code, as far as there were any.
    pub fn by_code(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.rejections.counted()
    }

    /// Requests by how long they took: up to each of `BOUNDS_US`, and longer.
    pub fn took(&self) -> Vec<u64> {
        self.seconds.buckets()
    }

    /// Bytes of bodies, in and out.
    pub fn bytes(&self) -> (u64, u64) {
        (self.request_bytes.load(Ordering::Relaxed), self.response_bytes.load(Ordering::Relaxed))
    }

    pub(super) fn expose(&self, name: &str, out: &mut Exposition) {
        for (class, number) in self.requests.counted() {
            out.value(&family::REQUESTS, &[name, class], number as f64);
        }
        for (code, number) in self.rejections.counted() {
            out.value(&family::REJECTIONS, &[name, code], number as f64);
        }
        for (result, number) in self.mirrors.counted() {
            out.value(&family::MIRRORS, &[name, result], number as f64);
        }
        for (family, bytes) in
            [(&family::REQUEST_BYTES, &self.request_bytes), (&family::RESPONSE_BYTES, &self.response_bytes)]
        {
            let bytes = bytes.load(Ordering::Relaxed);
            if bytes > 0 {
                out.value(family, &[name], bytes as f64);
            }
        }
    }
}
