//! A histogram of durations: one add for the bucket, one for the sum.
//!
//! The count is the sum of the buckets, so a scrape that runs between the two adds is off by one observation at most.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::exposition::Exposition;
use super::family::Family;

/// Upper bounds in microseconds: from half a millisecond to a minute, in steps of 2 to 2.5.
pub const BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len()],
    beyond: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, elapsed: Duration) {
        let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.buckets.get(bucket).unwrap_or(&self.beyond).fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How many fell into each bucket, and beyond the last.
    pub(crate) fn buckets(&self) -> Vec<u64> {
        self.buckets.iter().chain([&self.beyond]).map(|number| number.load(Ordering::Relaxed)).collect()
    }

    pub(crate) fn expose(&self, family: &'static Family, labels: &[&str], out: &mut Exposition) {
        let mut below = 0;
        let buckets = BOUNDS_US.iter().zip(&self.buckets).map(|(bound, number)| {
            below += number.load(Ordering::Relaxed);
            (*bound as f64 / 1e6, below)
        });
        let buckets: Vec<(f64, u64)> = buckets.collect();
        let count = below + self.beyond.load(Ordering::Relaxed);
        if count > 0 {
            let sum = self.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
            out.histogram(family, labels, &buckets, count, sum);
        }
    }
}
